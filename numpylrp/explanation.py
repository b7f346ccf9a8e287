"""The walk forward and back through a network, and what comes of it: an Explanation."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from . import seed as seeds
from .batches import batch_size as choose_size
from .batches import in_batches, rows_of, stacked
from .clrp import contrast
from .errors import LRPError, NonFiniteError
from .fast import Fast, Plain, path_of
from .fast.plans import each_walk, needed, settled
from .fast.threads import each, one_blas_thread
from .network import Network
from .planning import start_of, traced_layers
from .rules import Rule
from .text import explanation_text, flow_table
from .wiring import Node


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
        With ``trace``: x, y, R, R_x and what the rule calculated (z, s, c; followed by a mark where
        a rule makes several shares, ``z+``, and by a prime where a share has several products, ``c'``).
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
        What was explained: the logits.
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
            known = ", ".join(self.steps)
            raise LRPError(f"there is no layer {name!r} in this explanation; there are {known}")
        return self.steps[name]

    def label(self, target: int) -> str:
        """The name of a class."""
        return self.class_names[target] if self.class_names else str(target)

    def table(self, sample: int | None = None) -> str:
        """Each layer's relevance, from the output back, for one sample or as the mean of all.

        "share lost" is the part of the relevance it received that a layer did not send on: absorbed by
        a bias or by epsilon, or dropped; a negative part was created.
        """
        return flow_table(self.steps, sample)

    def __str__(self) -> str:
        return explanation_text(self)

    __repr__ = __str__


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
    fast: bool = True,
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
        "clrp2", an array of the output's shape (or of one sample of it, for all), or a function such
        as ``numpylrp.seed.margin(3)``. For "clrp1" and "clrp2" the relevance of the input is the
        positive part of the difference between the target and its dual (Gu et al. 2018); the steps
        of "clrp2" are the target's.
    output : str, optional
        The output to explain, of a network with several; by default the first. A softmax or
        sigmoid at the end is left out: the walk starts from the logits.
    trace : bool or names of layers
        Keep the arrays of every step of these layers, for all or those named; calculated as the
        definition is written (``fast=False``).
    batch_size : int, optional
        Samples at a time; by default as many as `numpylrp.batches.MEMORY` allows.
    watch : function of (node, rule, x, y, R, R_x), optional
        Called for every layer on the way back, batch by batch: its rule (or None), input, output,
        the relevance that it received and what it sent (tuples where it merges).
    fast : bool
        False: every layer and rule as its definition is written, bit for bit the same for every
        batch size and number of threads; `numpylrp.fast` says what can differ otherwise.
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
    network, rules = settled(network, composite, normalization, options)
    batch = network.batch(x)
    total = len(next(iter(batch.values())))
    top = start_of(network, output, seed)
    walk = Walk(network, rules, top, seed, traced_layers(trace, network), watch, fast)
    rank = 1 + len(network.shapes[top])

    def part(rows: slice) -> Explanation:
        some = {name: value[rows] for name, value in batch.items()}
        return walk(some, rows_of(target, rows, total), classes, seeds.seed_of(seed, rows, total, rank))

    size = total if walk.traced else choose_size(batch_size, total, needed(network, batch, rules))
    with one_blas_thread():
        if walk.fast and watch is None:  # who watches sees the batches in order
            return in_batches(part, total, each_walk(network, batch, min(size, total)), each)
        return in_batches(part, total, size)


class Walk:
    """Forward and back through one network, layer by layer.

    The one place that asks layers for relevance; `numpylrp.fast` answers in its own way, or, with
    ``fast=False``, passes the question on to the layer.
    """

    def __init__(
        self,
        network: Network,
        rules: Mapping[str, Rule],
        top: str,
        seed: Any,
        traced: set[str],
        watch: Callable | None,
        fast: bool,
    ) -> None:
        self.network, self.rules, self.top, self.seed = network, rules, top, seed
        self.traced, self.watch, self.fast = traced, watch, fast and not traced

    def __call__(self, batch: Mapping[str, np.ndarray], target: Any, classes: Any, seed: Any) -> Explanation:
        path = path_of(self.rules, self.fast)
        values = self.network.activations(batch, path.forward)
        output, names = values[self.top], self.network.metadata.get("class_names")

        def one(target: Any) -> Explanation:
            chosen = seeds.targets(target, output, names)
            R = seeds.start(seed, output, chosen)
            relevance, steps = self.back(path, values, {self.top: R})
            if self.seed in ("clrp1", "clrp2") if isinstance(self.seed, str) else False:
                relevance = contrast(self, path, values, R, relevance)
            several = len(self.network.inputs) > 1
            found = relevance if several else relevance[next(iter(relevance))]
            return Explanation(found, output, chosen, R, steps, names)

        if classes is None:
            return one(target)
        each = [one(c) for c in classes]
        if not each:
            raise LRPError("classes is empty")
        return stacked(each)

    def back(
        self, path: Plain | Fast, values: Mapping[str, np.ndarray], start: Mapping[str, np.ndarray]
    ) -> tuple[dict[str, np.ndarray], dict[str, Step]]:
        """Relevance of the inputs, and the steps, for relevance of some values in the network."""
        relevance = dict(start)
        totals = {name: _sums(R) for name, R in start.items()}
        steps: dict[str, Step] = {}
        with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
            for node in reversed(self.network.nodes):
                if node.name in relevance:  # else nothing that is explained depends on it
                    steps[node.name] = self.step(path, node, values, relevance, totals)
        for name in self.network.inputs:
            R = relevance.setdefault(name, np.zeros_like(values[name]))
            total = totals.get(name, np.zeros(len(R), R.dtype))
            steps[name] = Step(name, "Input", "", R.shape[1:], total, total)
        if not np.isfinite(np.concatenate([step.sent for step in steps.values()])).all():
            first = next(step for step in steps.values() if not np.isfinite(step.sent).all())
            raise NonFiniteError(
                f"NaN or infinity first appears in the relevance that layer {first.name!r} "
                f"({first.kind}, {first.rule}) sends on: a denominator is too close to 0"
            )
        return {name: relevance[name] for name in self.network.inputs}, dict(reversed(steps.items()))

    def step(
        self,
        path: Plain | Fast,
        node: Node,
        values: Mapping[str, np.ndarray],
        relevance: dict[str, np.ndarray],
        totals: dict[str, np.ndarray],
    ) -> Step:
        """Take the relevance of one layer's output, and add what it sends to that of its inputs."""
        name, layer, rule = node.name, node.layer, self.rules.get(node.name)
        R, y, received = relevance.pop(name), values[name], totals.pop(name)
        x = tuple(values[source] for source in node.inputs) if layer.merges else values[node.inputs[0]]
        arrays: dict[str, Any] = {}
        try:
            R_x = path.relprop(node, R, x, y, rule, arrays.update if name in self.traced else None)
        except LRPError as error:
            raise type(error)(f"layer {name!r} ({type(layer).__name__}): {error}") from None
        if self.watch is not None:
            self.watch(node, rule, x, y, R, R_x)
        pieces = R_x if layer.merges else (R_x,)
        sent = [received if piece is R else _sums(piece) for piece in pieces]
        for source, piece, total in zip(node.inputs, pieces, sent):
            relevance[source] = relevance[source] + piece if source in relevance else piece
            totals[source] = totals[source] + total if source in totals else total
        if name in self.traced:
            arrays = dict(x=x, y=y, R=R, R_x=R_x, **arrays)
        what = f"({layer.way_back})" if rule is None else str(rule)
        return Step(name, type(layer).__name__, what, y.shape[1:], received, sum(sent[1:], sent[0]), arrays)


def _sums(R: np.ndarray) -> np.ndarray:
    return np.add.reduce(R.reshape(len(R), -1), axis=1)
