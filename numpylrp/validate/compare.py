"""The judge: where another implementation's relevance parts from the definition, and why.

The candidate gives relevance by name: of the inputs, of the outputs of layers, or of both, any subset.
For each *hypothesis* (none; a library's conventions; a known bug) the judge walks backward once. At each
value it takes the candidate's own relevance where that was given, else what the hypothesis predicts, and
sums what the readers of the value send back under the hypothesis. So every value gets a verdict of its own,
whatever went wrong above it: it agrees if the definition predicts it, else the hypotheses that do are named,
else patterns are tried (a factor, an order of axes, the border), else it is said where it differs.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from itertools import permutations
from pathlib import Path
from typing import Any, NamedTuple

import h5py
import numpy as np

from .. import layers as L
from .. import seed as seeds
from ..composite import Composite
from ..errors import FileError, LRPError
from ..explanation import NORMALIZATION, prepared, start_of
from ..files import opened, stored_array
from ..layers.base import Linear
from ..network import Network, Node
from ..rules import Rule, one
from ..text import aligned
from . import variants as v
from .hypotheses import BUGS, LIBRARIES, MERGED, OTHER_RULES, Change, Hypothesis, merged_by_zennit

TOLERANCE = {"float64": 1e-9, "float32": 1e-4, "float16": 1e-2}
"""Largest difference that agrees, relative to the largest |value|, by the candidate's dtype."""


# ---------------------------------------------------------------- one walk


class _World:
    """A network with its rules, its activations and the relevance to start from."""

    def __init__(
        self, network: Network, rules: Mapping[str, Rule], x: Any, target: Any, seed: Any, output: Any
    ):
        self.network, self.rules = network, rules
        self.top = start_of(network, output, seed)
        self.values = network.record(x)
        logits = self.values[self.top]
        names = network.metadata.get("class_names")
        self.target = seeds.targets(target, logits, names)
        self.seed = seeds.start(seed, logits, self.target)

    def shares(self, node: Node, R: np.ndarray, change: Change) -> tuple[np.ndarray, ...]:
        """What a layer sends back to each of its inputs, under a hypothesis."""
        x = tuple(self.values[name] for name in node.inputs)
        layer, rule = change(node.layer, self.rules.get(node.name)) or (node.layer, self.rules.get(node.name))
        R_x = layer.relprop(R, x if node.layer.merges else x[0], self.values[node.name], rule)
        return tuple(R_x) if node.layer.merges else (R_x,)

    def walk(
        self, given: Mapping[str, np.ndarray], change: Change, only: str | None = None
    ) -> dict[str, np.ndarray]:
        """What is predicted for every value; `only` names the one layer that the change is made to."""
        predicted = {self.top: self.seed}
        with np.errstate(all="ignore"):
            for node in reversed(self.network.nodes):
                if node.name not in predicted:
                    continue
                R = given.get(node.name, predicted[node.name])
                here = change if only in (None, node.name) else _nothing
                for name, share in zip(node.inputs, self.shares(node, R, here)):
                    predicted[name] = predicted[name] + share if name in predicted else share
        return predicted

    def between(self, name: str, given: Mapping[str, np.ndarray]) -> list[Node]:
        """The layers between a value and the values above it that were given."""
        found, names = [], [name]
        while names:
            for node in self.network.readers(names.pop()):
                if node not in found:
                    found.append(node)
                    names += [] if node.name in given else [node.name]
        return [node for node in self.network.nodes if node in found]


def _nothing(layer: Any, rule: Rule | None) -> None:
    return None


# ---------------------------------------------------------------- the verdict


@dataclass
class Row:
    """The verdict on one value.

    Attributes
    ----------
    name, kind : str
        The value, and the layer that it is the output of ("Input" for an input).
    layers : tuple of str
        The layers that sent its relevance: those between it and what was given above.
    rule : str
        Their rules.
    maximum, l2, cosine : float
        Largest difference relative to the largest |value|, the L2 norm of the difference relative to that of
        the value, and the cosine between both.
    agrees : bool
    fits : tuple of str
        The hypotheses that explain it, simplest first.
    text : str
        The verdict.
    """

    name: str
    kind: str
    layers: tuple[str, ...]
    rule: str
    maximum: float = np.nan
    l2: float = np.nan
    cosine: float = np.nan
    agrees: bool = False
    fits: tuple[str, ...] = ()
    text: str = ""


@dataclass
class Verdict:
    """What the judge found: a `Row` for each value that was given, in backward order.

    Attributes
    ----------
    rows : list of Row
    problems : dict of str
        What could not be used, or only with a change, by name.
    missing : list of str
        Layers of which nothing was given.
    """

    rows: list[Row]
    problems: dict[str, str] = field(default_factory=dict)
    missing: list[str] = field(default_factory=list)

    def __getitem__(self, name: str) -> Row:
        for row in self.rows:
            if row.name == name:
                return row
        raise LRPError(f"no verdict on {name!r}; there are {', '.join(row.name for row in self.rows)}")

    @property
    def agrees(self) -> bool:
        """Whether all values agree and all could be used."""
        return not self.problems and all(row.agrees for row in self.rows)

    @property
    def distance(self) -> float:
        """The largest of the values' differences; infinite where nothing could be compared."""
        known = [row.maximum for row in self.rows if np.isfinite(row.maximum)]
        return max(known, default=np.inf)

    @property
    def rank(self) -> tuple:
        """How well the candidate fits what was asked for: the smallest of several verdicts fits best."""
        known = sum(row.agrees or bool(row.fits) or "right" in row.text for row in self.rows)
        agrees = sum(row.agrees for row in self.rows)
        return not self.agrees, -known, -agrees, self.distance

    @property
    def first(self) -> Row | None:
        """The first value, walking backward, where candidate and definition part."""
        parted = [row for row in self.rows if not row.agrees]
        compared = [row for row in parted if np.isfinite(row.maximum)]
        return next(iter(compared or parted), None)

    @property
    def cause(self) -> str:
        """Why they part there, in one sentence."""
        row = self.first
        if row is None and self.rows:
            many = len(self.rows) > 1
            return f"all {len(self.rows)} values agree" if many else f"{self.rows[0].name!r} agrees"
        if row is None:
            return "nothing was compared"
        if not row.kind:  # relevance compared with relevance: no layers are known
            return f"{row.name!r} {row.text}"
        who = _names(row.layers) or "the seed"
        if len(row.layers) == 1:
            who += f" ({row.rule})"
        return f"{who}: the relevance of {row.name!r} {row.text}"

    def __str__(self) -> str:
        head = ("relevance of", "kind", "sent by", "rule", "max", "L2", "cosine", "verdict")
        lines = [aligned([head, *map(_cells, self.rows)])]
        lines += [f"{name}: {text}" for name, text in self.problems.items()]
        if self.missing:
            lines.append(f"not given: {', '.join(self.missing)}")
        lines.append(self.cause)
        others = [row for row in self.rows if not row.agrees and row is not self.first]
        if others:
            lines.append(self._others(others))
        return "\n".join(lines)

    def _others(self, others: list[Row]) -> str:
        common = [fit for fit in self.first.fits if all(fit in row.fits for row in others)]
        if common:
            return f"The same explains all {len(others) + 1} values that differ: {'; '.join(common)}"
        return f"Others that differ, each on its own: {', '.join(row.name for row in others)}"

    __repr__ = __str__


def _cells(row: Row) -> tuple[str, ...]:
    numbers = [f"{row.maximum:.1e}", f"{row.l2:.1e}", f"{row.cosine:.6f}"]
    numbers = numbers if np.isfinite(row.maximum) else ["-"] * 3
    word = "agrees" if row.agrees else row.text
    return (row.name, row.kind, _names(row.layers), row.rule, *numbers, word)


def _names(names: tuple[str, ...]) -> str:
    return ", ".join(names) if len(names) < 4 else f"{names[0]} .. {names[-1]} ({len(names)} layers)"


class _Found(NamedTuple):
    """A hypothesis, and how far its prediction lies from the candidate."""

    name: str
    error: float


def judge(
    network: Network,
    x: Any,
    rules: Any,
    candidate: Mapping[str, Any],
    *,
    target: Any = None,
    seed: Any = "logit",
    output: str | None = None,
    normalization: str = "linear",
    tolerance: float | None = None,
) -> Verdict:
    """Compare another implementation's relevance with the definition and say why it differs.

    Parameters
    ----------
    network : Network
    x : (N, *input_shape) array, or mapping of input name to array
    rules : mapping of layer name to Rule, or a composite as `numpylrp.explain` takes it
        The rules that the candidate is to follow. Layers that a mapping does not name take `Epsilon()`.
    candidate : mapping of name to (N, *shape) array
        Relevance at the outputs of layers, and of inputs, by their names; any subset.
    target, seed, output
        As in `numpylrp.explain`; `seed` may be the relevance to start from, (N, *output) array.
    normalization : str
        As in `numpylrp.explain`; "fused" judges on the fused network, whose layers the names then are.
    tolerance : float, optional
        Largest difference that agrees, relative to the largest |value|; by default as in `TOLERANCE`.

    Returns
    -------
    Verdict

    Raises
    ------
    LRPError
        Nothing in the candidate can be used.

    Examples
    --------
    >>> from numpylrp.layers import Dense
    >>> from numpylrp.rules import Epsilon
    >>> network = Network([("fc", Dense([[1.0, 2.0]], [1.0]))], input_shape=(2,))
    >>> verdict = judge(network, [[3.0, 1.0]], Epsilon(0), {"input": [[3.6, 2.4]]})
    >>> print(verdict.cause)  # doctest: +NORMALIZE_WHITESPACE
    fc (Epsilon(0)): the relevance of 'input' matches "the bias dropped from the denominator" to 1e-16;
    it differs from the definition on 100 % of its values
    """
    network = network.astype(np.float64)
    x = {name: value.astype(np.float64) for name, value in network.batch(x).items()}
    chosen = _composite(rules)

    def world(normalization: str, change: Change | None = None) -> _World:
        if normalization == MERGED.normalization:
            other, own = prepared(merged_by_zennit(network), chosen, "identity")
        else:
            other, own = prepared(network, chosen, normalization)
        settled = own.rules(other)
        if change is not None:
            other = other.rebuilt(
                (n.name, (change(n.layer, settled.get(n.name)) or (n.layer,))[0], n.inputs)
                for n in other.nodes
            )
        return _World(other, settled, x, target, seed, output)

    base = world(normalization)
    for name in rules if isinstance(rules, Mapping) else ():
        if name not in network:
            base.network[name]  # says which layers there are
    given, problems, tolerances = _usable(candidate, base, network, tolerance)
    judged = _Judge(base, given, tolerances, partial(world, normalization), world, normalization)
    rows = judged.rows(problems)
    reached = set(judged.expected)
    missing = [
        node.name for node in base.network.nodes if node.name in reached and node.name not in candidate
    ]
    return Verdict(rows, problems, missing if len(given) > len(base.network.inputs) else [])


def _composite(rules: Any) -> Any:
    if not isinstance(rules, Mapping):
        return rules

    def named(name: str) -> Callable:
        return lambda network, node: node.name == name

    return Composite([(named(name), rule) for name, rule in rules.items()])


def _tolerance(given: float | None, array: np.ndarray) -> float:
    if given is None:
        return TOLERANCE.get(array.dtype.name, 1e-9)
    if not 0 <= given < np.inf:
        raise LRPError(f"tolerance is to be a number of at least 0, not {given}")
    return given


def _usable(
    candidate: Mapping[str, Any], base: _World, network: Network, tolerance: float | None
) -> tuple[dict[str, np.ndarray], dict[str, str], dict[str, float]]:
    """The candidate's arrays as float64, what is wrong with others, and each one's tolerance."""
    if not isinstance(candidate, Mapping):
        raise LRPError("the candidate is to be a mapping of names to arrays")
    given, problems, tolerances = {}, {}, {}
    for name, value in candidate.items():
        if name not in base.values:
            gone = " (it is gone in the fused network)" if name in network else ""
            problems[name] = f"no value of this network{gone}"
            continue
        try:
            array = np.asarray(value)
            if array.dtype.kind not in "fiub":
                raise TypeError
        except (TypeError, ValueError, RuntimeError):  # of tensors that want to be detached first
            problems[name] = f"not an array of real numbers ({getattr(value, 'dtype', type(value).__name__)})"
            continue
        want = base.values[name].shape
        if array.shape == want[1:] and want[0] == 1:
            array = array[None]
        tolerances[name] = _tolerance(tolerance, array)
        array = array.astype(np.float64)
        if array.shape != want:
            problems[name] = f"shape {array.shape}, expected {want}"
        elif not np.isfinite(array).all():
            bad = np.argwhere(~np.isfinite(array))
            problems[name] = (
                f"{len(bad)} of {array.size} values are NaN or infinite, first at {tuple(bad[0].tolist())}"
            )
        given[name] = array
    # of another shape, but as many values: an order of axes may explain it
    if not any(
        value.size == base.values[name].size and np.isfinite(value).any() for name, value in given.items()
    ):
        told = "; ".join(f"{name}: {text}" for name, text in problems.items()) or "it is empty"
        raise LRPError(
            f"nothing in the candidate can be compared ({told}); there are {', '.join(base.values)}"
        )
    return given, problems, tolerances


class _Judge:
    """The comparison itself: walks of all hypotheses, and a row for each value."""

    def __init__(self, base, given, tolerances, changed_world, world, normalization) -> None:
        self.base, self.tolerances = base, tolerances
        self.given = given
        self.used = {
            k: v for k, v in given.items() if v.shape == base.values[k].shape and np.isfinite(v).all()
        }
        self.changed_world, self.world, self.normalization = changed_world, world, normalization
        self.expected = base.walk(self.used, _nothing)

    def rows(self, problems: dict[str, str]) -> list[Row]:
        order = [node.name for node in reversed(self.base.network.nodes)] + list(self.base.network.inputs)
        found = []
        for name in order:
            if name in self.given and name not in self.expected:
                problems[name] = "nothing that is explained depends on it"
            elif name in self.given:
                found.append(self.row(name, problems))
        self.explain([row for row in found if not row.agrees and not row.text])
        return found

    def row(self, name: str, problems: dict[str, str]) -> Row:
        between = self.base.between(name, self.used) if name != self.base.top else []
        between = [node for node in between if node.name in self.expected]
        rules = [str(self.base.rules[n.name]) for n in between if n.name in self.base.rules]
        rules = list(dict.fromkeys(rules)) or [n.layer.way_back for n in between][:1]
        kind = "Input" if name in self.base.network.inputs else type(self.base.network[name]).__name__
        decide = [n.name for n in between if n.name in self.base.rules or v.takes_the_maximum(n.layer)]
        layers = tuple(decide or [n.name for n in between])
        row = Row(name, kind, layers, ", ".join(rules) if len(rules) < 3 else f"{len(rules)} rules")
        theirs, ours = self.given[name], self.expected[name]
        if theirs.shape != ours.shape:
            problems[name] += _other_shape(theirs, ours, self.tolerances[name])
            row.text = f"has {problems[name]}"
            return row
        good = np.isfinite(theirs)
        row.maximum, row.l2, row.cosine = _norms(theirs[good], ours[good])
        row.agrees = bool(good.all()) and row.maximum <= self.tolerances[name]
        if not good.all():
            rest = "agrees" if row.maximum <= self.tolerances[name] else "differs"
            row.text = f"is NaN or infinite{self.where(name, ~good, ' ')}; the rest {rest}"
        return row

    def explain(self, rows: list[Row]) -> None:
        """Try the hypotheses on what differs."""
        if not rows:
            return
        libraries = {hypothesis.name for hypothesis in (*LIBRARIES, MERGED)}
        found: dict[str, list[_Found]] = {row.name: [] for row in rows}
        for hypothesis in (*BUGS, *OTHER_RULES, *LIBRARIES, *self.normalizations()):
            for name, error in self.errors(hypothesis, list(found)).items():
                found[name].append(_Found(hypothesis.name, error))
        for row in rows:
            fits = self.best(row, found[row.name])
            if {fit.name for fit in fits} <= libraries:  # a bug in one layer is simpler than a library's many
                fits = self.best(row, self.single(row) + found[row.name])
            row.fits = tuple(fit.name for fit in fits)
            differs = self.differs(row.name)
            if fits:
                known = " and ".join(f'"{fit}"' for fit in row.fits)
                row.text = f"matches {known} to {max(1e-16, min(f.error for f in fits)):.0e}; it {differs}"
            else:
                row.text = self.pattern(row.name) or differs

    def normalizations(self) -> Iterator[Hypothesis]:
        """Other treatments of batch normalization, where the network has any."""
        if not any(isinstance(node.layer, L.BatchNorm) for node in self.world("linear").network.nodes):
            return
        # beside "fused", the others are other rules: that it is passed unchanged is among the bugs
        same = {self.normalization} if self.normalization == "fused" else {self.normalization, "identity"}
        for other in NORMALIZATION:
            if other not in same:
                yield Hypothesis(f"batch normalization treated as {other!r}", normalization=other)
        yield MERGED

    def errors(self, hypothesis: Hypothesis, names: list[str], only: str | None = None) -> dict[str, float]:
        """How far a hypothesis' predictions lie from the candidate, where it changes them."""
        nodes = self.base.network.nodes
        if hypothesis.normalization is None and not any(
            hypothesis.change(node.layer, self.base.rules.get(node.name)) for node in nodes
        ):
            return {}
        try:
            if hypothesis.normalization is not None:
                world, change = self.world(hypothesis.normalization), hypothesis.change
            elif hypothesis.forward:
                world, change = self.changed_world(hypothesis.change), _nothing
            else:
                world, change = self.base, hypothesis.change
            predicted = world.walk({k: v for k, v in self.used.items() if k in world.values}, change, only)
        except LRPError:
            return {}
        pairs = {name: predicted[name] for name in names if name in predicted}
        return {
            name: _distance(self.given[name], value)
            for name, value in pairs.items()
            if value.shape == self.given[name].shape and np.isfinite(value).all()
        }

    def best(self, row: Row, found: list[_Found]) -> list[_Found]:
        """Those within tolerance that fit equally well, up to rounding, in the order of trying."""
        tolerance = self.tolerances[row.name]
        least = min((f.error for f in found), default=np.inf)
        if least > tolerance:
            return []
        return [f for f in found if f.error <= min(tolerance, max(10 * least, tolerance / 1000))]

    def single(self, row: Row) -> list[_Found]:
        """The hypotheses on one layer alone of those between the value and what was given above."""
        between = self.base.between(row.name, self.used) if row.name != self.base.top else []
        if len(between) < 2 or len(between) * len(self.base.network) > 2000:
            return []
        found = []
        for hypothesis in (h for h in (*BUGS, *OTHER_RULES) if not h.forward):
            for node in between:
                if hypothesis.change(node.layer, self.base.rules.get(node.name)):
                    error = self.errors(hypothesis, [row.name], node.name).get(row.name, np.inf)
                    found.append(_Found(f"{hypothesis.name}, in {node.name} alone", error))
        return found

    # ------------------------------------------------------------ in words

    def differs(self, name: str) -> str:
        theirs, ours = self.given[name], self.expected[name]
        wrong = abs(theirs - ours) > self.tolerances[name] * _size(ours)
        where = self.where(name, wrong, ", ")
        return f"differs from the definition on {100 * wrong.mean():.3g} % of its values{where}"

    def where(self, name: str, wrong: np.ndarray, before: str = "") -> str:
        """The narrowest condition that holds wherever something is wrong."""
        fits = [
            (mask.sum(), text)
            for text, mask in self.places(name)
            if mask.shape == wrong.shape and not (wrong & ~mask).any() and _no_accident(wrong, mask)
        ]
        if fits:
            return f"{before}{min(fits)[1]}"
        places = np.argwhere(wrong)
        if 0 < len(places) <= 3 and wrong.mean() < 0.2:
            return f"{before}at {', '.join(str(tuple(p.tolist())) for p in places)}"
        return ""

    def places(self, name: str) -> Iterator[tuple[str, np.ndarray]]:
        x = self.base.values[name]
        yield "where x < 0", x < 0
        yield "where x = 0", x == 0
        yield "where x > 0", x > 0
        for node in self.base.network.readers(name):
            layer, y = node.layer, self.base.values[node.name]
            if v.takes_the_maximum(layer) and not layer.merges:
                hits, back = v.Ties(layer, "all").winners(x, y)
                tied = sum(hit.astype(float) for hit in hits) > 1
                yield "at ties of the maximum", back([hit * tied for hit in hits]) > 0
            elif isinstance(layer, Linear) and not layer.merges:
                weight = one(layer.parameters(x.shape[1:])[0])
                for text, mask in (("z = 0", y == 0), ("z < 0", y < 0)):
                    yield (
                        f"where a unit with {text} reads it",
                        layer.adjoint(mask * 1.0, weight, x.shape[1:]) > 0,
                    )
            if (border := _border(layer, x)) is not None:
                yield "at the border, within reach of the padding", border

    def pattern(self, name: str) -> str:
        """A factor, a sign, an order of axes, a border: whatever simple change makes both equal."""
        theirs, ours, tolerance = self.given[name], self.expected[name], self.tolerances[name]

        def alike(other: np.ndarray) -> bool:
            return _distance(theirs, other) <= tolerance

        if alike(-ours):
            return "has the wrong sign"
        if 1 < len(ours) <= 64:
            apart = [[_distance(t, o) for o in ours] for t in theirs]
            order = np.argmin(apart, axis=1)
            if sorted(order) == list(range(len(ours))) and alike(ours[order]):
                return f"is right, but its samples are in another order: {order.tolist()}"
        axes = tuple(range(1, ours.ndim))
        k = (theirs * ours).sum(axes, keepdims=True) / np.maximum(
            np.square(ours).sum(axes, keepdims=True), 1e-300
        )
        if alike(k * ours):
            return self.factor(k.ravel(), ours)
        for text, other in (("the absolute value", abs(ours)), ("the positive part", np.maximum(ours, 0))):
            if alike(other):
                return f"is {text} of the definition's"
        for text, other in _moved(ours):
            if other.shape == theirs.shape and alike(other):
                return f"has the right values in another order: {text}"
        wrong = abs(theirs - ours) > tolerance * _size(ours)
        for node in self.base.network.readers(name):
            border = _border(node.layer, self.base.values[name])
            if border is not None and not (wrong & ~border).any() and _no_accident(wrong, border):
                part = f"{100 * wrong.mean():.3g} % of its values"
                return f"differs only at the border, within reach of the padding of {node.name}, on {part}"
        return ""

    def factor(self, k: np.ndarray, ours: np.ndarray) -> str:
        n = len(k)
        flat = ours.reshape(n, -1)
        total = self.base.seed.reshape(n, -1).sum(1)
        known = {
            "1 / the relevance to start from (a seed of 1)": 1 / np.where(total, total, np.nan),
            "1 / the number of samples": np.full(n, 1 / n),
            "1 / the largest |value| of the sample": 1 / abs(flat).max(1),
            "1 / the largest |value|": np.full(n, 1 / abs(flat).max()),
            "1 / the sum of the sample": 1 / np.where(flat.sum(1), flat.sum(1), np.nan),
        }
        why = next((f", {text}" for text, v in known.items() if np.allclose(k, v)), "")
        if not k.any():
            return "is 0 everywhere"
        if np.allclose(k, k[0], rtol=1e-6):
            return f"is {k[0]:.6g} times the definition's{why}"
        return f"is the definition's times a factor of each sample ({k.min():.8g} .. {k.max():.8g}){why}"


def _no_accident(wrong: np.ndarray, mask: np.ndarray) -> bool:
    """Whether that many wrong values would hardly all lie in so large a part by chance."""
    return bool(wrong.any()) and float(mask.mean()) ** int(wrong.sum()) < 0.1


def _size(ours: np.ndarray) -> float:
    return float(abs(ours).max()) if ours.size and abs(ours).max() else 1.0


def _distance(theirs: np.ndarray, ours: np.ndarray) -> float:
    """Largest difference, relative to the largest |value| expected."""
    return float(abs(theirs - ours).max() / _size(ours)) if ours.size else 0.0


def _moved(ours: np.ndarray) -> Iterator[tuple[str, np.ndarray]]:
    """A sample's values in other orders: axes moved, axes misread, axes turned around."""
    shape = ours.shape[1:]
    order = {(1, 2, 0): "channels last", (2, 0, 1): "channels first"}
    for axes in permutations(range(len(shape))):
        if axes == tuple(range(len(shape))):
            continue
        text = order.get(axes, f"axes {axes}") if len(shape) == 3 else f"axes {axes}"
        moved = ours.transpose(0, *(a + 1 for a in axes))
        yield f"its axes moved ({text})", moved
        misread = "NHWC and NCHW mixed up" if axes in order and len(shape) == 3 else "axes misread"
        yield f"{misread}: laid out with {text}, read as {shape}", moved.reshape(ours.shape)
        back = (0, *(a + 1 for a in np.argsort(axes)))
        read = ours.reshape(len(ours), *(shape[a] for a in axes)).transpose(back)
        yield f"{misread}: laid out as {shape}, read with {text}", read
    for axis in range(len(shape)):
        yield f"axis {axis} turned around", np.flip(ours, axis + 1)


def _other_shape(theirs: np.ndarray, ours: np.ndarray, tolerance: float) -> str:
    """What values of another shape are, in words."""
    if theirs.shape[:1] != ours.shape[:1]:
        return ""
    for text, other in _moved(ours):
        if other.shape == theirs.shape and _distance(theirs, other) <= tolerance:
            return f"; the values are right, {text}"
    for axis in range(1, ours.ndim):
        for keep in (False, True):
            total = ours.sum(axis, keepdims=keep)
            if total.shape == theirs.shape and _distance(theirs, total) <= tolerance:
                return f"; the values are right, summed over axis {axis - 1} of the sample"
    if theirs.size == ours.size and _distance(theirs.reshape(ours.shape), ours) <= tolerance:
        return "; the values are right, in another shape"
    return ""


def _border(layer: Any, x: np.ndarray) -> np.ndarray | None:
    """The units that a window which reaches over the padding reads; None for a layer without padding."""
    if not hasattr(layer, "windows") or isinstance(layer, L.Conv2DTranspose):
        return None
    shape = x.shape[1:]
    if isinstance(layer, L.MaxPool2D):
        kind = L.SumPool1D if layer.rank == 1 else L.SumPool2D
        layer = kind(layer.kernel, layer.stride, layer.padding, layer.ceil)
    weight = one(layer.parameters(shape)[0])
    seen = layer.linear(np.ones((1, *shape)), weight, None)
    reach = layer.adjoint((seen < seen.max()) * 1.0, weight, shape) > 0
    return np.broadcast_to(reach, x.shape) if reach.any() else None


def compare(
    reference: Mapping[str, Any], candidate: Mapping[str, Any], tolerance: float | None = None
) -> Verdict:
    """Compare relevance with relevance, name by name, where the network is not at hand.

    Parameters
    ----------
    reference, candidate : mapping of name to (N, *shape) array
    tolerance : float, optional
        As in `judge`.

    Returns
    -------
    Verdict
        With error norms, and patterns (a factor, a sign, an order of axes), but no causes.

    Examples
    --------
    >>> print(compare({"input": [[1.0, 2.0]]}, {"input": [[2.0, 4.0]]})["input"].text)
    is 2 times the reference's
    """
    rows, problems = [], {}
    for name, value in reference.items():
        if name not in candidate:
            continue
        ours, theirs = (np.asarray(v) for v in (value, candidate[name]))
        if ours.dtype.kind not in "fiub" or theirs.dtype.kind not in "fiub":
            raise LRPError(f"{name!r} is to be an array of real numbers in both")
        if not np.isfinite(ours).all():
            raise LRPError(f"the reference has values that are NaN or infinite in {name!r}")
        allowed = _tolerance(tolerance, theirs)
        ours, theirs = ours.astype(np.float64), theirs.astype(np.float64)
        row = Row(name, "", (), "")
        rows.append(row)
        if ours.shape != theirs.shape:
            problems[name] = f"has shape {theirs.shape}, not {ours.shape}" + _other_shape(
                theirs, ours, allowed
            )
            row.text = problems[name]
        elif not np.isfinite(theirs).all():
            problems[name] = row.text = f"{np.count_nonzero(~np.isfinite(theirs))} values are NaN or infinite"
        else:
            row.maximum, row.l2, row.cosine = _norms(theirs, ours)
            row.agrees = row.maximum <= allowed
            row.text = (
                "" if row.agrees else _simple(theirs, ours, allowed) or _share_off(theirs, ours, allowed)
            )
    if not rows:
        raise LRPError(f"no name is in both: {', '.join(reference)}, and {', '.join(candidate)}")
    return Verdict(rows, problems, [name for name in reference if name not in candidate])


def _share_off(theirs: np.ndarray, ours: np.ndarray, tolerance: float) -> str:
    wrong = abs(theirs - ours) > tolerance * _size(ours)
    return f"differs on {100 * wrong.mean():.3g} % of its values"


def _simple(theirs: np.ndarray, ours: np.ndarray, tolerance: float) -> str:
    """A factor, a sign or an order of axes that makes both equal."""
    k = float((theirs * ours).sum() / max(np.square(ours).sum(), 1e-300))
    if _distance(theirs, -ours) <= tolerance:
        return "has the wrong sign"
    if _distance(theirs, k * ours) <= tolerance:
        return f"is {k:.6g} times the reference's"
    for text, other in _moved(ours):
        if other.shape == theirs.shape and _distance(theirs, other) <= tolerance:
            return f"has the right values in another order: {text}"
    return ""


def _norms(theirs: np.ndarray, ours: np.ndarray) -> tuple[float, float, float]:
    """Largest difference and L2 norm of the difference, relative to the values', and the cosine."""
    most = _distance(theirs, ours)
    product = np.linalg.norm(theirs) * np.linalg.norm(ours)
    l2 = float(np.linalg.norm(theirs - ours) / (np.linalg.norm(ours) or 1.0))
    return most, l2, float(theirs.ravel() @ ours.ravel() / product) if product else float(not most)


# ---------------------------------------------------------------- files


def read_candidate(path: str | os.PathLike) -> dict[str, np.ndarray]:
    """Relevance by name from a file.

    Parameters
    ----------
    path : path
        NumPy's ``.npz``, whose keys are the names, or an HDF5 file, whose datasets are (those in
        groups by their path, such as ``block1/conv``).

    Raises
    ------
    FileError
        A file that is missing, damaged, or holds no arrays.
    """
    path = Path(path)
    if path.suffix == ".npy":
        raise FileError(
            f"{path} holds one array without a name: give .npz or .h5, with arrays named as the layers"
        )
    if path.suffix != ".npz":
        with opened(path) as file:
            found: dict[str, np.ndarray] = {}

            def keep(name: str, item: Any) -> None:
                if isinstance(item, h5py.Dataset) and item.dtype.kind in "fiu":
                    found[name] = stored_array(item, f"{path}: {name}")

            file.visititems(keep)
    else:
        if not path.exists():
            raise FileError(f"{path} does not exist")
        try:
            with np.load(path, allow_pickle=False) as file:
                found = dict(file)
        except (OSError, ValueError, EOFError, KeyError) as error:
            raise FileError(f"{path} can't be read as .npz ({type(error).__name__})") from None
        except Exception as error:  # a damaged zip has errors of its own
            raise FileError(f"{path} is damaged ({error})") from None
    if not found:
        raise FileError(f"{path} holds no arrays")
    if "attribution" in found:  # what `numpylrp explain` writes
        return {"input": found["attribution"]}
    return found
