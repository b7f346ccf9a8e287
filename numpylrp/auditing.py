"""Where relevance went: for every layer, in absolute numbers that add up.

A layer receives the relevance of its output and sends relevance to its inputs. With the shares of
its rule (contributions z_ij, their sum z_j, the part b_j of the bias in it, the denominator d_j, and
the relevance R_j that it distributes), an output sends ``(z_j - b_j) / d_j R_j``. The rest is

    bias       b_j / d_j R_j            absorbed by the bias (given, where it is negative)
    epsilon    (d_j - z_j) / d_j R_j    absorbed by the stabilizer
    dropped    R_j where d_j = 0        nothing contributed: it has nowhere to go
    rule       what the rule itself makes: alpha-beta, say, where one sign is missing (see below)
    padding    what lies on zeros put around an image
    state      what arrives at the initial states of a recurrent layer, where they are no inputs
    shift      what RAP subtracts evenly from all inputs (the terms of its rule made as much: see rule)
    pruned     what is set to 0 on the way and not made up for, and what a mask holds back

so that ``received = sent + bias + epsilon + dropped + rule + padding + state + shift + pruned`` for every
sample. A saturated threshold unit (what fusing leaves of a ReLU) is constant: what it absorbs counts as
bias. Where a rule makes several shares and only some have a denominator of 0, the rule has made what these
lack: alpha 2 and beta 1 distribute 2 R and -R, and where nothing inhibits, R has been created. A layer that
takes several linear steps (a recurrent layer, a product by halves) sums up what each of them takes.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import h5py  # type: ignore
import numpy as np

from .attributing import RelativeAttribution
from .conditional import Mask
from .explanation import Explanation, explain
from .files import whole
from .fusion import fuse
from .layers import Diagonal, Linear, Recurrent, Threshold, ZeroPadding
from .network import Network
from .nonlinear import Inner, Nonlinear, Uniform
from .pruning import PrunedRule
from .rules import AlphaBeta, Flat, Pass, Rule, WSquare, ZBox, divide
from .text import aligned

SINKS = ("bias", "epsilon", "dropped", "rule", "padding", "state", "shift", "pruned")
"""Where relevance can go besides to the inputs."""

EXPLODES = 10.0
"""A layer that sends this many times the absolute relevance that it received is pointed out."""

NOTABLE = 0.01
"""The least part, of the absolute relevance received, that is put into words."""


@dataclass
class Row:
    """What one layer did with relevance; every array has one value a sample.

    Attributes
    ----------
    name, kind, rule : str
    shape : tuple
        Sample shape of the output.
    received, sent : array
        Sums of the relevance of its output, and of what its inputs got.
    sinks : dict of array
        By the names in `SINKS`.
    branches : dict of array
        Of a merge: what each of its inputs got.
    absolute_received, absolute_sent : array
        Sums of absolute values.
    onto_zeros : array
        Absolute relevance that went to inputs that are 0.
    lone : dict of array
        Of an alpha-beta rule: absolute relevance of outputs to which nothing contributes that excites
        ("+"), or inhibits ("-").
    flipped : array
        Absolute relevance of outputs whose inputs got relevance of the other sign.
    taken : dict of array
        Unit by unit, in absolute values: what bias and epsilon absorb of the outputs' relevance
        ("bias", "epsilon"), and what the bias adds to it ("bias adds"). They don't cancel within a sample.
    spots : dict
        The worst unit: "explodes" and "flips", each (sample, unit, received, sent, what the bias took).
    words : str
        What holds for the rule, whatever the numbers.
    absorber : str
        What absorbs relevance as a bias does.
    by_weights : bool
        Whether the rule looks at weights, not at contributions.
    passes : str
        What to know where relevance passes normalization unchanged.
    """

    name: str
    kind: str
    rule: str
    shape: tuple[int, ...]
    received: np.ndarray
    sent: np.ndarray
    sinks: dict[str, np.ndarray]
    branches: dict[str, np.ndarray]
    absolute_received: np.ndarray
    absolute_sent: np.ndarray
    onto_zeros: np.ndarray
    lone: dict[str, np.ndarray] = field(default_factory=dict)
    flipped: np.ndarray | None = None
    taken: dict[str, np.ndarray] = field(default_factory=dict)
    spots: dict[str, tuple] = field(default_factory=dict)
    words: str = ""
    absorber: str = "the bias"
    by_weights: bool = False
    passes: str = ""

    @property
    def rounding(self) -> np.ndarray:
        """What is left of the sum: rounding, and nothing else."""
        return self.received - self.sent - sum(self.sinks.values())


@dataclass
class Audit:
    """Where the relevance of an explanation went.

    Attributes
    ----------
    rows : dict of Row
        One for each layer, by name, from the output back.
    seed : (N,) array
        The relevance that the walk started from.
    inputs : dict of (N,) array
        What arrived at each input.
    explanation : Explanation or None
    note : str
        What the numbers do not say of the heatmap.
    """

    rows: dict[str, Row]
    seed: np.ndarray
    inputs: dict[str, np.ndarray]
    explanation: Explanation | None = None
    note: str = ""

    def total(self, sink: str) -> np.ndarray:
        """One of the `SINKS` over all layers, for each sample."""
        return _total(row.sinks[sink] for row in self.rows.values())

    @property
    def rounding(self) -> np.ndarray:
        """``seed - inputs - all sinks`` of each sample: 0 but for rounding."""
        return self.seed - sum(self.inputs.values()) - sum(self.total(name) for name in SINKS)

    def table(self, sample: int | None = None) -> str:
        """The numbers of one sample, or the mean of all, from the output back; sinks that occur at all."""

        def of(values: np.ndarray) -> str:
            value = float(np.mean(values) if sample is None else values[sample])
            return f"{value:9.4g}" if value else f"{'0':>9}"

        shown = [name for name in SINKS if any(row.sinks[name].any() for row in self.rows.values())]
        rows = [("layer", "kind", "rule", *(f"{text:>9}" for text in ("received", "sent", *shown)))]
        for row in self.rows.values():
            lost = (of(row.sinks[name]) for name in shown)
            rows.append((row.name, row.kind, row.rule, of(row.received), of(row.sent), *lost))
            rows += [(f"  to {name}", "", "", "", of(part)) for name, part in row.branches.items()]
        arrived = of(_total(self.inputs.values()))
        rows.append(("in all", "", "", of(self.seed), arrived, *(of(self.total(name)) for name in shown)))
        return aligned([(*row, *("",) * (len(rows[0]) - len(row))) for row in rows])

    def causes(self) -> list[str]:
        """What happened, in words, from the output back; of all samples together."""
        return [text for row in self.rows.values() for text in _causes(row)]

    def __str__(self) -> str:
        n = len(self.seed)
        head = f"{n} sample{'s' * (n > 1)}{'; mean over samples' * (n > 1)}"
        causes = self.causes() or ["Nothing to point out: relevance is conserved."]
        causes = [*causes, self.note] if self.note else causes
        return "\n".join([head, self.table(), "", *causes])

    __repr__ = __str__

    def save(self, path: str | os.PathLike) -> None:
        """Write all numbers to an HDF5 file.

        ``/seed`` and ``/inputs/NAME`` have one value a sample; ``/layers/0000`` and so on, from the
        output back, have the attributes name, kind, rule and shape and the datasets received, sent,
        absolute_received, absolute_sent, and one for each of the `SINKS`; ``/causes`` has the words.
        """
        with whole(path) as beside, h5py.File(beside, "w") as file:
            file["seed"] = self.seed
            for name, values in self.inputs.items():
                file[f"inputs/{name}"] = values
            for n, row in enumerate(self.rows.values()):
                group = file.create_group(f"layers/{n:04d}")
                group.attrs.update(name=row.name, kind=row.kind, rule=row.rule, shape=json.dumps(row.shape))
                for key in ("received", "sent", "absolute_received", "absolute_sent"):
                    group[key] = getattr(row, key)
                for key, values in row.sinks.items():
                    group[key] = values
            file["causes"] = json.dumps(self.causes())


def audit(network: Network, x: Any, target: Any = None, **options: Any) -> Audit:
    """Explain samples, and account for all relevance on the way.

    Parameters
    ----------
    network, x, target, **options
        As `numpylrp.explain` takes them (not ``classes``, ``watch``).

    Returns
    -------
    Audit

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
    >>> print(audit(net, [[1.0, 2.0]], composite="epsilon-plus"))
    1 sample
    layer   kind   rule             received       sent       bias    epsilon
    fc2     Dense  Epsilon(1e-06)          7          6          1      1e-06
    relu    ReLU   (unchanged)             6          6          0          0
    fc1     Dense  Epsilon(1e-06)          6          6          0      2e-06
    in all                                 7          6          1      3e-06
    <BLANKLINE>
    fc2: the bias absorbs 14 % of what it receives.
    """
    watched = _Watch(network)
    explanation = explain(network, x, target, watch=watched, **options)
    sums = {name: step.sent for name, step in explanation.steps.items() if step.kind == "Input"}
    note = ""
    if str(options.get("seed", "")).startswith("clrp"):
        note = "The heatmap is the positive part of what arrives at the pixels (for clrp2, less the dual's)."
    seed = explanation.seed.reshape(len(explanation.seed), -1).sum(1)
    return Audit(watched.rows, seed, sums, explanation, note)


def combined(parts: Sequence[Audit]) -> Audit:
    """Audits of several batches as one, without their explanations."""
    rows: dict[str, Row] = {}
    for part in parts:
        for name, row in part.rows.items():
            rows[name] = _both(rows[name], row) if name in rows else row
    inputs = {name: np.concatenate([p.inputs[name] for p in parts]) for name in parts[0].inputs}
    return Audit(rows, np.concatenate([p.seed for p in parts]), inputs, note=parts[0].note)


def _both(a: Row, b: Row) -> Row:
    """Rows of two batches as one."""

    def join(u: Any, v: Any) -> Any:
        if isinstance(u, Mapping):
            return {key: join(u[key], v[key]) for key in u}
        return np.concatenate([u, v]) if isinstance(u, np.ndarray) else u

    spots = dict(a.spots)
    for kind, spot in b.spots.items():
        moved = (spot[0] + len(a.received), *spot[1:])
        spots[kind] = max(spots.get(kind, moved), moved, key=lambda s: abs(s[3]))
    values = {key: join(getattr(a, key), getattr(b, key)) for key in a.__dict__ if key != "spots"}
    return Row(**values, spots=spots)


def _total(parts: Iterable[np.ndarray]) -> np.ndarray:
    return np.sum(np.stack(list(parts)), axis=0)


def _sums(R: np.ndarray) -> np.ndarray:
    return R.reshape(len(R), -1).sum(1, dtype=np.float64)


class _Watch:
    """Follows a walk and makes a row of each layer."""

    def __init__(self, network: Network) -> None:
        self.network, self.rows = network, dict[str, Row]()

    @cached_property
    def fused(self) -> set[str]:
        """The layers that fusing would do away with."""
        return {entry.name for entry in fuse(self.network, probe=0)[1].entries if entry.done}

    def advice(self, name: str) -> str:
        return "; fusing it is exact" if name in self.fused else ""

    def __call__(self, node: Any, rule: Any, x: Any, y: np.ndarray, R: np.ndarray, R_x: Any) -> None:
        layer = node.layer
        xs, sent = (x, R_x) if layer.merges else ((x,), (R_x,))
        parts = [_sums(part) for part in sent]
        row = Row(
            node.name,
            type(layer).__name__,
            f"({layer.way_back})" if rule is None else str(rule),
            y.shape[1:],
            _sums(R),
            _total(parts),
            {name: np.zeros(len(R)) for name in SINKS},
            {},
            _sums(np.abs(R)),
            _total(_sums(np.abs(part)) for part in sent),
            _total(_sums(np.abs(part) * (value == 0)) for part, value in zip(sent, xs)),
        )
        for name, part in zip(node.inputs, parts):
            if layer.merges:
                row.branches[name] = row.branches.get(name, 0) + part
        if isinstance(layer, Recurrent):
            steps, row.sinks["state"] = layer.inner(R, x, y, rule)
            _account_all(row, steps)
        elif isinstance(rule, Nonlinear):
            held = layer.linearized(x, y)[0] if layer.takes_rule and not layer.merges else layer
            _account_all(row, rule.inner(held, R, x, y))
            row.words = rule.words
        elif isinstance(rule, PrunedRule):
            _account_pruned(row, rule, layer, R, x, y)
        elif isinstance(rule, RelativeAttribution):
            linear, flat, _ = layer.linearized(x, y)
            _account_shift(row, rule, linear, flat, R)
        elif rule is not None and type(rule).propagate is Rule.propagate:
            linear, flat, z = layer.linearized(x, y)
            _account(row, rule, linear, flat, z, R)
        elif isinstance(layer, Mask):
            row.sinks["pruned"] = row.received - row.sent
        elif isinstance(layer, Threshold):
            row.sinks["bias"] = row.received - row.sent
            row.taken["bias"] = row.absolute_received - row.absolute_sent
            row.absorber = "what is at its threshold, constant as a bias,"
        elif isinstance(layer, ZeroPadding):
            row.sinks["padding"] = row.received - row.sent
        else:
            row.sinks["rule"] = _but_for_rounding(row)
        row.by_weights = isinstance(rule, (WSquare, Flat, ZBox))
        if isinstance(layer, Diagonal) and isinstance(rule, Pass):
            row.passes = f"relevance passes normalization as if it were not there{self.advice(node.name)}"
        self.rows[node.name] = _both(self.rows[node.name], row) if node.name in self.rows else row


def _account_all(row: Row, steps: Iterable[Inner]) -> None:
    """The sinks of a layer that takes several linear steps: their sums, and what no step accounts for."""
    for step in steps:
        part = replace(
            row, sinks={name: np.zeros_like(row.received) for name in SINKS}, taken={}, spots={}, flipped=None
        )
        if type(step.rule).propagate is Rule.propagate:
            _account(part, step.rule, step.linear, step.x, step.y, step.R)
        for name, value in part.sinks.items():
            row.sinks[name] = row.sinks[name] + value
        for name, value in part.taken.items():
            row.taken[name] = row.taken.get(name, 0.0) + value
    row.sinks["rule"] = row.sinks["rule"] + _but_for_rounding(row)


def _account_pruned(
    row: Row, rule: PrunedRule, layer: Any, R: np.ndarray, x: np.ndarray, y: np.ndarray
) -> None:
    """The shares of a rule whose relevance is pruned, and what pruning takes."""
    linear, x, y = layer.linearized(x, y)
    if rule.left is not None:
        x = x * rule.left
        y = linear.linear(x, *linear.parameters(x.shape[1:]))
    whole = replace(row, absolute_sent=row.absolute_received)  # what explodes is told of unpruned layers
    if isinstance(rule.rule, RelativeAttribution):
        _account_shift(whole, rule.rule, linear, x, R)
    elif type(rule.rule).propagate is Rule.propagate:
        _account(whole, rule.rule, linear, x, y, R)
    row.taken, row.flipped = whole.taken, whole.flipped
    row.sinks["pruned"] = _but_for_rounding(row)


def _account_shift(row: Row, rule: RelativeAttribution, linear: Any, x: np.ndarray, R: np.ndarray) -> None:
    """What the terms of RAP's rule make, what its shift takes, and what is lost where nothing contributes."""
    for side in rule.sides(x):
        C = rule.contributions(linear, R, side)
        lost = ~(C != 0).reshape(len(C), -1).any(1)
        made = _sums(C)
        row.sinks["dropped"] += np.where(lost, row.received, 0)
        row.sinks["rule"] += np.where(lost, 0, row.received - made)
        row.sinks["shift"] += np.where(lost, 0, made - row.received)
    extra = len(rule.sides(x)) - 1  # each side gets all of the relevance
    row.sinks["rule"] -= extra * row.received


def _but_for_rounding(row: Row) -> np.ndarray:
    """What a layer made that distributes nothing by denominators, such as a rule of the user's own."""
    left = row.rounding
    noise = 64 * np.finfo(left.dtype).eps * (row.absolute_received + row.absolute_sent)
    return np.where(np.abs(left) > noise, left, 0)


def _account(row: Row, rule: Any, linear: Any, x: np.ndarray, y: np.ndarray, R: np.ndarray) -> None:
    """What goes into each sink, from the definition of the rule: no relevance is propagated here."""
    shape = x.shape[1:]
    weight, bias = linear.parameters(shape)
    origin = np.zeros_like(x[:1])
    allotted, sent, dead = np.zeros_like(R), np.zeros_like(R), np.zeros_like(R)
    live = np.zeros(R.shape, bool)
    gross, by_bias, by_epsilon = np.zeros_like(R), np.zeros_like(R), np.zeros_like(R)
    explodes = (row.absolute_sent > EXPLODES * row.absolute_received).any()
    for share in rule.shares(linear, R, x, y):
        weights = [part.change(weight) for part in share.parts]
        z, own = share.z, bias
        if z is None:
            z = sum(linear.linear(part.x, w, part.bias) for part, w in zip(share.parts, weights))
            own = next((part.bias for part in share.parts if part.bias is not None), None)
        b = 0 if own is None else linear.linear(origin, weight, own)
        d = rule.stabilized(z)
        s = divide(share.R, np.broadcast_to(d, share.R.shape))
        allotted += share.R
        sent += (z - b) * s
        by_bias += b * s
        by_epsilon += (d - z) * s
        none = (d == 0) & (share.R != 0)
        dead += np.where(none, share.R, 0)
        live |= (d != 0) & (share.R != 0)
        if share.mark in ("+", "-") and isinstance(rule, AlphaBeta):
            row.lone[share.mark] = _sums(np.abs(R) * none)
        if explodes and isinstance(linear, Linear):
            absolute = sum(
                linear.linear(np.abs(part.x), np.abs(w), None) for part, w in zip(share.parts, weights)
            )
            gross += np.abs(absolute * s)
    row.sinks["bias"] += _sums(by_bias)
    row.sinks["epsilon"] += _sums(by_epsilon)
    along = by_bias * np.sign(R)
    row.taken = {
        "bias": _sums(np.maximum(along, 0)),
        "bias adds": _sums(np.maximum(-along, 0)),
        "epsilon": _sums(np.abs(by_epsilon)),
    }
    row.sinks["dropped"] += _sums(np.where(live, 0, dead))
    row.sinks["rule"] += _sums(np.where(live, dead, 0)) + _sums(R - allotted)
    turned = sent * R < 0
    row.flipped = _sums(np.abs(R) * turned)
    if turned.any():
        row.spots["flips"] = _spot(np.where(turned, np.abs(sent), 0), R, sent, by_bias)
    if explodes and gross.any():
        row.spots["explodes"] = _spot(gross, R, gross, by_bias)


def _spot(size: np.ndarray, R: np.ndarray, sent: np.ndarray, by_bias: np.ndarray) -> tuple:
    """The unit of largest `size`: (sample, unit, received, sent, taken by the bias)."""
    sample, *unit = np.unravel_index(size.argmax(), size.shape)
    at = (sample, *unit)
    return int(sample), tuple(int(n) for n in unit), float(R[at]), float(sent[at]), float(by_bias[at])


def _percent(part: float) -> str:
    return f"{100 * part:.2g} %" if part < 0.1 else f"{100 * part:.0f} %"


def _causes(row: Row) -> list[str]:
    """What a layer did, in words."""
    received = float(row.absolute_received.sum())
    if not received:
        return []

    def part(values: Any) -> float:
        return 0.0 if values is None else float(np.sum(values)) / received

    texts = (*_absorbed(row, part), *_from_the_rule(row, part), *_turned(row, part))
    return [f"{row.name}: {text}" for text in texts]


def _absorbed(row: Row, part: Callable[[Any], float]) -> Iterator[str]:
    """What went elsewhere than to the inputs."""
    for key, verb in (("bias", "absorbs"), ("bias adds", "adds")):
        taken = part(row.taken.get(key))
        if NOTABLE <= taken < 100:
            yield f"{row.absorber} {verb} {_percent(taken)} of what it receives."
        elif taken >= 100:
            yield f"{row.absorber} {verb} {taken:.3g} times what it receives."
    epsilon = part(row.taken.get("epsilon"))
    if epsilon >= NOTABLE:
        yield f"epsilon absorbs {_percent(epsilon)} of what it receives."
    dropped = part(np.abs(row.sinks["dropped"]))
    if dropped >= NOTABLE:
        yield (
            f"{_percent(dropped)} of what it receives is dropped: it lies on outputs whose denominator is 0, "
            "since nothing contributes by this rule, or all that does cancels."
        )
    padding = part(np.abs(row.sinks["padding"]))
    if padding:
        yield f"{_percent(padding)} of what it receives lies on the zeros around the image."


def _from_the_rule(row: Row, part: Callable[[Any], float]) -> Iterator[str]:
    """What the rule itself does, whatever absorbs."""
    for mark, missing, effect in (
        ("-", "inhibitory", "alpha scaling multiplies it by alpha"),
        ("+", "excitatory", "it is multiplied by -beta, or dropped where beta is 0"),
    ):
        lone = part(row.lone.get(mark))
        if lone >= NOTABLE:
            where = "" if lone > 0.999 else f" for {_percent(lone)} of what it receives"
            yield f"no {missing} contributions{where}: {effect}."
    made = part(row.sinks["rule"])
    if abs(made) >= NOTABLE and not row.lone:
        yield f"the rule itself {'takes' if made > 0 else 'makes'} {_percent(abs(made))}."
    state = part(row.sinks["state"])
    if abs(state) >= NOTABLE:
        sign = "minus " * (state < 0)
        yield f"its initial states get {sign}{_percent(abs(state))} of what it receives."
    if row.words and (abs(made) >= NOTABLE or row.words == Uniform.words):
        yield f"{row.words}."
    zeros = float(row.onto_zeros.sum()) / max(float(row.absolute_sent.sum()), 1e-300)
    if zeros >= NOTABLE and row.by_weights:
        yield f"{_percent(zeros)} of what it sends goes to inputs that are 0: the rule looks at weights."
    if row.passes:
        yield f"{row.passes}."


def _turned(row: Row, part: Callable[[Any], float]) -> Iterator[str]:
    """Where relevance grows, or changes its sign."""
    growth = row.absolute_sent / np.maximum(row.absolute_received, 1e-300)
    if growth.max() > EXPLODES:
        text = f"relevance explodes, up to {growth.max():.3g} times in absolute value"
        if "explodes" in row.spots:
            sample, unit, before, after, _ = row.spots["explodes"]
            text += f"; most at unit {unit} of sample {sample}: {abs(before):.3g} becomes {after:.3g}"
        yield f"{text}. What adds up to the denominator cancels: it is small beside its parts."
    flipped = part(row.flipped)
    if flipped >= NOTABLE:
        sample, unit, before, after, bias = row.spots["flips"]
        why = "The bias outweighs the contributions." if abs(bias) >= abs(before) else ""
        if not why and row.lone:
            why = "What inhibits gets relevance of the other sign, and here little excites."
        yield (
            f"the sign turns for {_percent(flipped)} of what it receives; most at unit {unit} of sample "
            f"{sample}: {before:.3g} becomes {after:.3g}. {why}".rstrip()
        )
