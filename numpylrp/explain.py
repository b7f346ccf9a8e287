"""The walk forward and back; what comes of it is an Explanation."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from types import NoneType
from typing import Any, NamedTuple
from weakref import WeakKeyDictionary

import numpy as np

from . import seed as seeds
from .composite import PRESETS, Composite, weighted
from .composite import composite as find_composite
from .engine import each, one_blas_thread, threads
from .errors import LRPError, NonFiniteError
from .fusion import fused_once
from .layers import Layer, Sigmoid, Softmax, Transpose
from .layers.base import Linear, Ruled
from .network import Network, Node, table
from .rules import AbsZ, Pass, Rule

MEMORY = 2**28
"""Bytes of activations that one batch of `explain` may take when it chooses its size."""

WALK = 2**24
"""Bytes of activations that are worth a walk of their own."""

NORMALIZATION = {
    "fused": (),
    "linear": (),
    "identity": (("BatchNorm", Pass()),),
    "abs-z": (("BatchNorm", AbsZ()),),
}
"""How batch normalization can be treated: entries of a composite; "fused" also changes the network."""


@dataclass
class Step:
    """What one layer did with relevance.

    Attributes
    ----------
    name, kind, rule : str
        The layer, its kind, and its rule or what it does instead.
    shape : tuple
        Sample shape of the layer's output.
    received, sent : (N,) array
        Sums of the relevance of its output and of what it gave to its inputs.
    arrays : dict
        With ``trace``: x, y, R, R_x and what the rule calculated (z, s, c; with a mark behind where
        a rule makes several shares, ``z+``, and a prime where a share has several products, ``c'``).
    """

    name: str
    kind: str
    rule: str
    shape: tuple[int, ...]
    received: np.ndarray
    sent: np.ndarray
    arrays: dict[str, Any] = field(default_factory=dict)

    def __getitem__(self, name: str) -> Any:
        if name not in self.arrays:
            known = ", ".join(self.arrays) or "nothing: explain it with trace=True"
            raise LRPError(f"layer {self.name!r} has no {name!r} in its trace; it has {known}")
        return self.arrays[name]


@dataclass
class Explanation:
    """Relevance of the input, and where it came from.

    Attributes
    ----------
    relevance : (N, *input) array, or dict of them by input name
        With several classes, one more axis in front: (classes, N, *input).
    output : (N, *output) array
        What was explained: the logits. Alpha-beta sums by sign: beside `Network.forward` they may differ
        by rounding.
    target : (N,) int array
        The class explained of each sample; (classes, N) with several classes.
    seed : array
        The relevance that the walk started from.
    steps : dict of Step
        One for each input and layer, by name, in the order of the forward pass.
    """

    relevance: Any
    output: np.ndarray
    target: np.ndarray
    seed: np.ndarray
    steps: dict[str, Step]
    class_names: list[str] | None = None

    @property
    def prediction(self) -> np.ndarray:
        """The class with the largest output, of each sample."""
        return seeds.targets(None, self.output)

    def __getitem__(self, name: str) -> Step:
        if name not in self.steps:
            raise LRPError(
                f"there is no layer {name!r} in this explanation; there are {', '.join(self.steps)}"
            )
        return self.steps[name]

    def label(self, target: int) -> str:
        """The name of a class."""
        return self.class_names[target] if self.class_names else str(target)

    def table(self, sample: int | None = None) -> str:
        """Each layer's relevance, from the output back, for one sample or as the mean of all.

        "share lost" is what a layer did not send on of the relevance it received: absorbed by a
        bias or by epsilon, or dropped; a negative share was created.
        """
        return flow(self.steps, sample)

    def __str__(self) -> str:
        n = self.target.shape[-1]
        labels = sorted({self.label(t) for t in self.target.ravel().tolist()})
        what = f"class {', '.join(labels)}" if len(labels) < 6 else f"{len(labels)} classes"
        head = f"{n} sample{'s' * (n > 1)}, {what}{'; mean over samples' * (n > 1)}"
        return f"{head}\n{self.table()}"

    __repr__ = __str__


def flow(steps: Mapping[str, Step], sample: int | None = None) -> str:
    """The table of `Explanation.table`, from steps alone."""

    def of(values: np.ndarray) -> float:
        return float(values.mean() if sample is None else values[..., sample].mean())

    rows = [("layer", "kind", "rule", "output", f"{'relevance':>11}", "share lost")]
    for step in reversed(steps.values()):
        received, sent = of(step.received), of(step.sent)
        lost = f"{(received - sent) / received:10.2%}" if received else f"{'-':>10}"
        if abs(received - sent) <= 1e-9 * abs(received):
            lost = f"{'0':>9} "
        shape = " x ".join(map(str, step.shape))
        lost = "" if step.kind == "Input" else lost
        rows.append((step.name, step.kind, step.rule, shape, f"{received:11.6g}", lost))
    return table(rows)


def explain(
    network: Network,
    x: Any,
    target: Any = None,
    *,
    classes: Iterable[Any] | None = None,
    composite: Any = "epsilon-plus",
    normalization: str = "fused",
    seed: Any = "logit",
    output: str | None = None,
    trace: bool | Iterable[str] = False,
    batch_size: int | None = None,
    watch: Callable | None = None,
    **options: Any,
) -> Explanation:
    """Explain what `network` says of the samples `x`.

    Parameters
    ----------
    network : Network
    x : (N, *input_shape) array, or mapping of input name to array
    target : None, int, str, or a sequence of N of them
        The class to explain: by default the one with the largest output; an index or a label for
        all samples, or one for each.
    classes : sequence of int or str, optional
        Several classes of every sample at once, from one forward pass, instead of `target`.
    composite : str, Rule or Composite
        Which layer gets which rule: a name in `numpylrp.composite.PRESETS`, one rule for all, or
        your own.
    normalization : str
        What becomes of batch normalization: "fused" with the linear layers beside it (where that can
        be done exactly; the steps are then those of the fused network), "linear" (a linear layer
        of its own, under the composite's rule), "identity" (relevance passes unchanged) or "abs-z"
        (the |z|-rule of Hui and Binder 2019). See `numpylrp.fuse`.
    seed : str, array, or function of (output, target)
        The relevance to start from: "logit", "one-hot", "all", "softmax-gradient", "clrp1",
        "clrp2", an array of the output's shape, or a function such as `numpylrp.seed.margin(3)`.
        For "clrp1" and "clrp2" the relevance of the input is the positive part of the difference
        between the target and its dual (Gu et al. 2018); the steps of "clrp2" are the target's.
    output : str, optional
        The output to explain, of a network with several; by default the first. A softmax or
        sigmoid at the end is left out: the walk starts from the logits.
    trace : bool or names of layers
        Keep the arrays of every step of these layers, for all or those named.
    batch_size : int, optional
        Samples at a time; by default as many as `MEMORY` allows. No result depends on it.
    watch : function of (node, rule, x, y, R, R_x), optional
        Called for every layer on the way back, batch by batch: its rule (or None), input, output,
        the relevance that it received and what it sent (tuples where it merges).
    **options
        What the composite's preset leaves open: ``low`` and ``high``, the bounds of the input for the
        z^B rule (by default the model's input_range), ``gamma``, ``epsilon``.

    Returns
    -------
    Explanation

    Raises
    ------
    LRPError
        Inputs, targets, seeds or rules that are not valid; NaN, with the layer it first appears in.

    Examples
    --------
    >>> from numpylrp.layers import Dense, ReLU
    >>> net = Network(
    ...     [
    ...         ("fc1", Dense([[1.0, 1.0], [1.0, -1.0]])),
    ...         ("relu", ReLU()),
    ...         ("fc2", Dense([[2.0, 0.0], [1.0, 1.0]], [1.0, 0.0])),
    ...     ],
    ...     input_shape=(2,),
    ... )
    >>> print(explain(net, [[1.0, 2.0]], composite="epsilon"))
    1 sample, class 0
    layer  kind   rule            output    relevance  share lost
    fc2    Dense  Epsilon(1e-06)  2                 7      14.29%
    relu   ReLU   (unchanged)     2                 6          0
    fc1    Dense  Epsilon(1e-06)  2                 6       0.00%
    input  Input                  2                 6
    """
    network, plan = _settled(network, composite, normalization, options)
    top = network.outputs[0] if output is None else output
    if top not in network.outputs:
        raise LRPError(f"there is no output {top!r}; there are {', '.join(network.outputs)}")
    top = _logits(network, top, isinstance(seed, (str, Callable)))
    batch = network.batch(x)
    total = len(next(iter(batch.values())))
    kept = _kept(trace, network)
    size = _batch_size(network, plan.rules, batch, total, batch_size, bool(kept))
    walk = _Walk(network, plan, top, seed, kept, watch)
    if not kept and watch is None:
        size = _share(network, batch, min(size, total))
    parts: dict[int, Explanation] = {}

    def part(first: int) -> None:
        rows = slice(first, first + size)
        some = {name: value[rows] for name, value in batch.items()}
        parts[first] = walk(some, _rows(target, rows, total), classes, _seed_rows(seed, rows, total))

    firsts = range(0, total, size)
    with one_blas_thread():
        if watch is None:
            each(part, ((first,) for first in firsts))
        else:  # who watches sees the batches in order
            for first in firsts:
                part(first)
    return parts[0] if len(parts) == 1 else _joined([parts[first] for first in sorted(parts)])


def _logits(network: Network, top: str, any_layout: bool) -> str:
    """Where the walk starts: before a softmax or sigmoid at the end, and before the transpose behind it
    that channels-last models have, so that classes lie along the first axis.
    """
    at = top
    while isinstance(network[at], Transpose) and any_layout and network.node(at).inputs[0] in network:
        at = network.node(at).inputs[0]
    if isinstance(network[at], (Softmax, Sigmoid)) and network.node(at).inputs[0] in network:
        at = network.node(at).inputs[0]
    return at


def prepared(
    network: Network, composite: Any, normalization: str = "fused", **options: Any
) -> tuple[Network, Composite]:
    """The network and the composite that `explain` walks with."""
    if normalization not in NORMALIZATION:
        known = ", ".join(NORMALIZATION)
        raise LRPError(f"there is no normalization {normalization!r}; there are {known}")
    if normalization == "fused":
        network = fused_once(network)
    return network, find_composite(composite, network, **options).preceded(*NORMALIZATION[normalization])


class _Stage(NamedTuple):
    """A layer, and what is settled of its way back for all samples."""

    node: Node
    layer: Layer
    rule: Rule | None
    kind: str
    what: str
    """Its rule as text, or what it does instead."""


class _Plan(NamedTuple):
    """What is settled of a network and a composite for all walks."""

    rules: dict[str, Rule]
    stages: tuple[_Stage, ...]
    """From the output back."""
    ahead: dict[str, Rule]
    """Rules that have their own way of computing a layer's output."""


def _planned(network: Network, composite: Composite) -> _Plan:
    rules = composite.rules(network)
    stages, ahead = [], {}
    for node in reversed(network.nodes):
        rule, layer = rules.get(node.name), node.layer
        what = f"({layer.way_back})" if rule is None else str(rule)
        stages.append(_Stage(node, layer, rule, type(layer).__name__, what))
        if rule is not None and type(rule).forward is not Rule.forward and _plain(layer):
            ahead[node.name] = rule
    return _Plan(rules, tuple(stages), ahead)


_plans: WeakKeyDictionary[Network, dict] = WeakKeyDictionary()


def _settled(network: Network, composite: Any, normalization: str, options: dict) -> tuple[Network, _Plan]:
    """The network and the plan to walk by; that of a preset is made once."""
    bounds = network.metadata.get("input_range")
    bounds = tuple(bounds) if isinstance(bounds, (list, tuple)) else (bounds,)
    numbers = all([isinstance(value, (int, float, NoneType)) for value in (*options.values(), *bounds)])
    if not isinstance(composite, str) or not numbers:
        network, chosen = prepared(network, composite, normalization, **options)
        return network, _planned(network, chosen)
    known = _plans.setdefault(network, {})
    key = (composite, PRESETS.get(composite), normalization, *sorted(options.items()), bounds)
    if key not in known:
        known[key] = _planned(*prepared(network, composite, normalization, **options))
    return fused_once(network) if normalization == "fused" else network, known[key]


def _kept(trace: Any, network: Network) -> set[str]:
    if isinstance(trace, (bool, np.bool_)):
        return {node.name for node in network.nodes} if trace else set()
    names = {trace} if isinstance(trace, str) else set(trace)
    for name in names:
        network[name]
    return names


def _batch_size(
    network: Network, rules: Mapping, batch: Mapping, total: int, given: int | None, traced: bool
) -> int:
    """Samples at a time."""
    if given is not None:
        if not isinstance(given, (int, np.integer)) or given < 1:
            raise LRPError(f"batch_size is to be an integer of at least 1, not {given!r}")
        return int(given)
    return total if traced or total == 1 else max(1, MEMORY // _sample_bytes(network, batch, rules))


def _share(network: Network, batch: Mapping, size: int) -> int:
    """Samples that one thread walks with, where `size` may be in memory: few enough to stay near the
    processor, many enough to outweigh the weights, which every walk reads, and the walking itself.
    """
    if size < threads() or threads() == 1:
        return size
    bytes_each = _sample_bytes(network, batch, {})
    if size * bytes_each < WALK // 4:
        return size
    weights = sum(a.nbytes for node in network.nodes for a in node.layer.arrays().values())
    return min(size // threads(), -(-max(weights, WALK) // bytes_each))


def _sample_bytes(network: Network, batch: Mapping, rules: Mapping) -> int:
    """Bytes of one sample's activations, and of what rules keep with them."""
    shapes = sample_shapes(network, {name: value.shape[1:] for name, value in batch.items()})
    arrays = {name: 1 + rule.kept for name, rule in rules.items()}
    return network.dtype.itemsize * sum(math.prod(s) * arrays.get(name, 1) for name, s in shapes.items())


def sample_shapes(network: Network, given: Mapping[str, tuple]) -> dict[str, tuple]:
    """The shape of every activation for samples of these shapes."""
    shapes = dict(given)
    for node in network.nodes:
        shapes[node.name] = node.layer.output_shape(*(shapes[name] for name in node.inputs))
    return shapes


def _rows(target: Any, rows: slice, total: int) -> Any:
    per_sample = isinstance(target, (list, tuple, np.ndarray)) and np.ndim(target)
    return target[rows] if per_sample and len(target) == total else target


def _seed_rows(seed: Any, rows: slice, total: int) -> Any:
    per_sample = isinstance(seed, (list, np.ndarray)) and np.ndim(seed) and len(seed) == total
    return np.asarray(seed)[rows] if per_sample else seed


class _Walk:
    """Forward and back through one network, with rules that are settled."""

    def __init__(
        self, network: Network, plan: _Plan, top: str, seed: Any, kept: set[str], watch: Any = None
    ) -> None:
        self.network, self.plan, self.top, self.seed = network, plan, top, seed
        self.kept, self.watch = kept, watch

    def __call__(self, batch: Mapping, target: Any, classes: Any, seed: Any) -> Explanation:
        known: dict[str, list[np.ndarray]] = {}  # denominators that the forward pass came by
        ahead = self.plan.ahead

        def forward(node: Node, x: Any) -> np.ndarray:
            if node.name not in ahead:
                return node.layer.forward(x)
            y, z = ahead[node.name].forward(node.layer, x)
            if z is not None:
                known[node.name] = z
            return y

        values = self.network.activations(batch, forward)
        logits = values[self.top]
        names = self.network.metadata.get("class_names")
        if classes is None:
            return self.one(values, known, seeds.targets(target, logits, names), seed)
        several = [self.one(values, known, seeds.targets(c, logits, names), seed) for c in classes]
        if not several:
            raise LRPError("classes is empty")
        return _joined(several, stack=True)

    def one(
        self, values: Mapping[str, np.ndarray], known: Mapping[str, list], target: np.ndarray, seed: Any
    ) -> Explanation:
        """The walk back for one target a sample."""
        R = seeds.start(seed, values[self.top], target)
        relevance, steps = self.back(values, known, R)
        if self.seed == "clrp2" if isinstance(self.seed, str) else False:
            dual, _ = self.dual(values, known, R)
            same = all(np.array_equal(relevance[name], dual[name]) for name in relevance)
            if same and any(value.any() for value in relevance.values()):
                raise LRPError(
                    "clrp2 finds no difference between the target and its dual: the rule of the last layer "
                    "looks at z_ij / z_j, which negated weights leave as it is; give it z+ or alpha-beta"
                )
            relevance = {name: relevance[name] - dual[name] for name in relevance}
        if isinstance(self.seed, str) and self.seed.startswith("clrp"):
            relevance = {name: np.maximum(value, 0) for name, value in relevance.items()}
        single = len(self.network.inputs) == 1
        names = self.network.metadata.get("class_names")
        return Explanation(
            relevance[next(iter(relevance))] if single else relevance,
            values[self.top],
            target,
            R,
            steps,
            names,
        )

    def dual(
        self, values: Mapping[str, np.ndarray], known: Mapping[str, list], R: np.ndarray
    ) -> tuple[dict, dict]:
        """CLRP2's dual: the same relevance through the last weighted layer with its weights negated."""
        last = weighted(self.network)[-1]
        layer = dataclasses.replace(
            last.layer,
            weight=-last.layer.weight,
            bias=None if last.layer.bias is None else -last.layer.bias,
        )
        if last.name != self.top:
            raise LRPError(
                f"clrp2 negates the weights of the output layer, but {self.top!r} is "
                f"a {type(self.network[self.top]).__name__}"
            )
        stages = (
            stage._replace(layer=layer) if stage.node.name == last.name else stage
            for stage in self.plan.stages
        )
        walk = _Walk(self.network, self.plan._replace(stages=tuple(stages)), self.top, "logit", set())
        known = {name: z for name, z in known.items() if name != self.top}
        return walk.back({**values, self.top: -values[self.top]}, known, R)

    def back(
        self, values: Mapping[str, np.ndarray], known: Mapping[str, list], R: np.ndarray
    ) -> tuple[dict, dict[str, Step]]:
        """Relevance of the inputs, and the steps, for relevance R of the layer `top`.

        `known` are denominators that the forward pass found, by layer.
        """
        with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
            relevance, steps = self._back(values, known, R)
            if not np.isfinite(np.concatenate([step.sent for step in steps.values()])).all():
                self._back(values, known, R, locate=True)  # once more, to say where it began
        return relevance, steps

    def _back(
        self, values: Mapping[str, np.ndarray], known: Mapping[str, list], R: np.ndarray, locate: bool = False
    ) -> tuple[dict, dict[str, Step]]:
        relevance = {self.top: R}
        sums: dict[str, np.ndarray] = {}  # of relevance that came in one piece
        steps: dict[str, Step] = {}
        for node, layer, rule, kind, what in self.plan.stages:
            name = node.name
            if name not in relevance:
                continue  # nothing that is explained depends on it
            R, y = relevance.pop(name), values[name]
            x = tuple([values[source] for source in node.inputs]) if layer.merges else values[node.inputs[0]]
            notes: dict[str, Any] = {}
            note = notes.update if name in self.kept else None
            more = {"z": known[name]} if name in known else {}
            try:
                R_x = layer.relprop(R, x, y, rule, note, **more)
            except LRPError as error:
                raise type(error)(f"layer {name!r} ({kind}): {error}") from None
            shares = R_x if layer.merges else (R_x,)
            received = sums[name] if name in sums else _sums(R)
            sent = [received if share is R else _sums(share) for share in shares]
            step = Step(name, kind, what, y.shape[1:], received, sent[0] if len(sent) == 1 else sum(sent))
            if locate and not all(np.isfinite(share).all() for share in shares):
                raise NonFiniteError(
                    f"NaN or infinity first appears in the relevance that layer {name!r} "
                    f"({kind}, {what}) sends on: a denominator is too close to 0"
                )
            if note:
                step.arrays.update(x=x, y=y, R=R, R_x=R_x, **notes)
            steps[name] = step
            if self.watch is not None:
                self.watch(node, rule, x, y, R, R_x)
            for source, share, total in zip(node.inputs, shares, sent):
                if source in relevance:
                    relevance[source] = relevance[source] + share
                    sums.pop(source, None)
                else:
                    relevance[source], sums[source] = share, total
        for name in self.network.inputs:
            if name not in relevance:
                relevance[name] = np.zeros_like(values[name])
            R = relevance[name]
            total = sums[name] if name in sums else _sums(R)
            steps[name] = Step(name, "Input", "", R.shape[1:], total, total)
        return {name: relevance[name] for name in self.network.inputs}, dict(reversed(steps.items()))


def _plain(layer: Layer) -> bool:
    """Whether a layer's output and relevance are all its rule's: a subclass may have its own."""
    kind = type(layer)
    return isinstance(layer, Linear) and kind.forward is Linear.forward and kind.relprop is Ruled.relprop


def _sums(R: np.ndarray) -> np.ndarray:
    return np.add.reduce(R.reshape(len(R), -1), axis=1)


def _joined(parts: list[Explanation], stack: bool = False) -> Explanation:
    """Explanations of several batches as one, or of several classes on a new first axis."""
    first = parts[0]
    axis = 0 if stack or first.target.ndim == 1 else 1

    def join(arrays: list[np.ndarray]) -> np.ndarray:
        return np.stack(arrays) if stack else np.concatenate(arrays, axis)

    def both(values: list) -> Any:
        if isinstance(values[0], dict):
            return {name: both([v[name] for v in values]) for name in values[0]}
        if isinstance(values[0], tuple):
            return tuple(both([v[k] for v in values]) for k in range(len(values[0])))
        return join(values)

    steps = {}
    for name, step in first.steps.items():
        same = [part.steps[name] for part in parts]
        steps[name] = dataclasses.replace(
            step,
            received=join([s.received for s in same]),
            sent=join([s.sent for s in same]),
            arrays=both([s.arrays for s in same]) if step.arrays else {},
        )
    return Explanation(
        both([part.relevance for part in parts]),
        first.output if stack else np.concatenate([part.output for part in parts]),
        join([part.target for part in parts]),
        join([part.seed for part in parts]),
        steps,
        first.class_names,
    )
