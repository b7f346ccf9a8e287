"""The judge: where another implementation parts from the definition, and why.

The candidate gives relevance by name (of the inputs, of the outputs of layers, or of both, any subset) and,
if it likes, activations. Each array gets a verdict of its own: expected is what the layers between it and
whatever was given above make of that, so that it does not matter what went wrong before. It agrees where it
lies within what rounding may change (`bounds`). Where it does not, hypotheses are walked (`search`, with the
tables of `wrong_seeds`, `wrong_rules` and `wrong_forward`), and those are named that explain the difference
to within rounding; else simple changes of the array are (`patterns`); else it is said where it differs.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from ..errors import LRPError
from ..layers.base import Linear
from ..network import Network
from ..rules import one
from . import patterns, search
from . import variants as v
from .activations import forward_rows
from .bounds import UNITS, Bounds, majorant
from .candidate import Given, apart, given, is_float32, read_candidate, unit, usable
from .hypotheses import Case
from .search import Evidence, Search
from .verdict import HOOKS, Row, Verdict, matches
from .worlds import Question, World

LOOSE = {"float64": 1e-9, "float32": 1e-4, "float16": 1e-2}
"""Largest difference, relative to the largest |value|, that counts as none where no network is known."""


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
    activations: Mapping[str, Any] | None = None,
    seconds: float = search.SECONDS,
) -> Verdict:
    """Compare another implementation's relevance with the definition and say why it differs.

    Parameters
    ----------
    network : Network
    x : (N, *input_shape) array, or mapping of input name to array
    rules : mapping of layer name to Rule, or a composite as `numpylrp.explain` takes it
        The rules that the candidate is to follow. Layers that a mapping does not name take `Epsilon()`.
    candidate : mapping of name to (N, *shape) array
        Relevance at the outputs of layers, and of inputs, by their names; any subset. Of images, sums over
        channels (N, H, W) are taken as well. A name that begins with "activations/" is that of an activation.
    target, seed, output
        As in `numpylrp.explain`; `seed` may be the relevance to start from, (N, *output) array.
    normalization : str
        As in `numpylrp.explain`; "fused" judges on the fused network. Layers that fusing removed are
        identities there, and may be named.
    tolerance : float, optional
        Largest difference that agrees, relative to the largest |value|. By default what rounding may change
        in this network, for these inputs, in the precision of the candidate's numbers.
    activations : mapping of name to (N, *shape) array, optional
        The candidate's outputs of layers, logits included, by name; any subset.
    seconds : float
        How long is searched for causes; what was not tried is said.

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
    >>> hidden, last = Dense([[1.0, -2.0], [1.0, 1.0]], [1.0, 0.0]), Dense([[1.0, 2.0]])
    >>> network = Network([("hidden", hidden), ("last", last)], input_shape=(2,))
    >>> verdict = judge(network, [[3.0, 1.0]], Epsilon(0), {"input": [[12.0, -2.0]]})
    >>> print(verdict.cause)  # doctest: +NORMALIZE_WHITESPACE
    hidden, last: the relevance of 'input' matches "the bias dropped from the denominator" to 1e-16;
    it differs from the definition on 100 % of its values
    """
    _checked(tolerance)
    network = network.astype(np.float64)
    x = {name: value.astype(np.float64) for name, value in network.batch(x).items()}
    for name in rules if isinstance(rules, Mapping) else ():
        network[name]  # says which layers there are
    relevance, own = apart(candidate, network)
    own = {**own, **(activations or {})}
    question = Question(network, x, rules, normalization, target, seed, output)
    rows, problems, known = forward_rows(question, own, tolerance)
    world = question.world()
    if known:
        question = replace(question, activations=known)
        world = question.world()
    if not relevance and rows:
        return Verdict(rows, problems)
    shapes = {name: value.shape for name, value in world.values.items()}
    found = given(relevance, shapes)
    usable(found, shapes)
    judged = _Judge(Case(question, world), found, tolerance)
    rows += judged.rows(seconds)
    verdict = Verdict(rows, {**problems, **found.problems}, decided=judged.decided, untried=judged.untried)
    alone = set(found.arrays) <= set(network.inputs)
    if alone:
        named = ", ".join([n.name for n in world.network.nodes if n.name in world.rules][:4])
        verdict.hint = HOOKS.format(names=named)
    else:
        verdict.missing = [
            n.name for n in world.network.nodes if n.name in judged.expected and n.name not in relevance
        ]
    return verdict


def _checked(tolerance: float | None) -> None:
    if tolerance is not None and not 0 <= tolerance < np.inf:
        raise LRPError(f"tolerance is to be a number of at least 0, not {tolerance}")


class _Judge:
    """A row for each array of relevance."""

    def __init__(self, case: Case, found: Given, tolerance: float | None) -> None:
        self.case, self.given, world = case, found, case.world
        used = found.whole({name: value.shape for name, value in world.values.items()})
        walked = world.walked(used)
        self.expected = walked.found
        fused = case.question.normalization == "fused"
        major = majorant(case.question) if fused and tolerance is None else {}
        known = list(case.question.activations)
        units = dict(found.units)
        self.evidence = Evidence(case, found, used, known, major, self.expected, tolerance, units, walked)
        self.of_unit: dict[float, Bounds] = {}
        self.decided: dict[str, str] = {}
        self.untried = ""

    def bounds(self, unit: float) -> Bounds:
        """The bounds of the definition's walk."""
        if unit not in self.of_unit:
            none = self.evidence.tolerance is not None
            self.of_unit[unit] = Bounds() if none else self.evidence.bounds(self.case.world, unit)
        return self.of_unit[unit]

    def rows(self, seconds: float) -> list[Row]:
        network = self.case.world.network
        found = []
        for name in [node.name for node in reversed(network.nodes)] + list(network.inputs):
            if name in self.given.arrays and name not in self.expected:
                self.given.problems[name] = "nothing that is explained depends on it"
            elif name in self.given.arrays:
                found.append(self.row(name))
        differing = [row for row in found if not row.agrees and not row.text]
        if differing:
            self.explain(differing, [row.name for row in found if row.agrees], seconds)
        return found

    # ------------------------------------------------------------ one array

    def row(self, name: str) -> Row:
        row = self.described(name)
        theirs, ours = (
            self.given.arrays[name],
            self.evidence.seen(name, self.expected) if (name in self.given.maps) else self.expected[name],
        )
        if theirs.shape != ours.shape:
            self.given.problems[name] += patterns.other_shape(theirs, ours, 1e-4)
            row.text = f"has {self.given.problems[name]}"
            row.text = next((f"{row.text}; it {t}" for t, o in self.reshaped(ours, theirs)), row.text)
            return row
        good = np.isfinite(theirs)
        row.maximum, row.l2, row.cosine = patterns.norms(theirs[good], ours[good])
        self.compared(row, theirs, ours, good)
        if not good.all():
            rest = "agrees" if row.agrees else "differs"
            row.agrees = False
            row.text = f"is NaN or infinite{self.where(name, ~good, ' ')}; the rest {rest}"
        return row

    def described(self, name: str) -> Row:
        """The row without numbers."""
        world, used = self.case.world, self.evidence.used
        between = world.between(name, used)
        rules = [str(world.rules[n.name]) for n in between if n.name in world.rules]
        rules = list(dict.fromkeys(rules)) or [n.layer.way_back for n in between][:1]
        kind = "Input" if name in world.network.inputs else type(world.network[name]).__name__
        decide = [n.name for n in between if n.name in world.rules or v.takes_the_maximum(n.layer)]
        layers = tuple(decide or [n.name for n in between])
        return Row(name, kind, layers, ", ".join(rules) if len(rules) < 3 else f"{len(rules)} rules")

    def compared(self, row: Row, theirs: np.ndarray, ours: np.ndarray, good: np.ndarray) -> None:
        """Whether it agrees, in its own precision or, where all of its numbers are float32, in that."""
        name = row.name
        units = [self.given.units[name]]
        if units[0] < UNITS["float32"] and is_float32(theirs[good]):
            units.append(UNITS["float32"])
        for u in units:
            self.evidence.units[name] = u
            rounding, allowed = self.evidence.allowed(name, self.bounds(u), ours)
            row.bound = float(np.minimum(allowed, 1e300).max()) / patterns.size(ours)
            apart = np.abs(theirs - ours)
            row.agrees = bool((apart <= allowed)[good].all())
            if row.agrees:
                break
        if row.agrees and (apart > rounding)[good].any():
            self.doubtful(row, rounding, (apart > rounding) & good)
        if row.agrees and name in self.given.maps and not row.text:
            row.text = "of its sums over channels"

    def doubtful(self, row: Row, rounding: np.ndarray, where: np.ndarray) -> None:
        """What agrees only because rounding decides something."""
        undecided = self.bounds(self.evidence.units[row.name]).undecided
        windows = sum(mask.sum() for what, mask in undecided.values() if "maximum" in what)
        causes = search.ties_of(self.evidence, row.name, rounding, windows)
        if causes:
            row.agrees, row.fits = False, tuple(causes)
            row.text = f"{matches(row.fits, row.maximum)}; it {self.differs(row.name, where)}"
            return
        near = {node.name for node in self.case.world.between(row.name, self.evidence.used)}
        for layer, (what, mask) in undecided.items():
            if layer in near:
                first = tuple(np.argwhere(mask)[0].tolist())
                self.decided[layer] = f"{what} in {layer!r} ({mask.sum()} units, first {first})"
        told = "; ".join(self.decided.values()) or "what lies near a kink"
        row.text = f"rounding decides {told}"

    # ------------------------------------------------------------ causes

    def explain(self, rows: list[Row], agreeing: list[str], seconds: float) -> None:
        """Try hypotheses, then patterns, on what differs."""
        differing = [row.name for row in rows]
        shifted = {row.name: text for row in rows if (text := self.misnamed(row))}
        if len(shifted) == len(rows) > 1:  # of one alone, a layer that passes relevance on is as likely
            for row in rows:
                row.fits, row.text = (shifted[row.name],), shifted[row.name]
            return
        found = Search(self.evidence, differing, agreeing, seconds)
        found.run()
        self.untried = found.untried
        chosen = found.chosen()
        for row in rows:
            fits = chosen[row.name]
            differs = self.differs(row.name)
            if not fits and row.name in shifted:
                row.fits = (shifted[row.name],)
                row.text = f"{row.fits[0]}; it {differs}"
            elif fits:
                row.fits = tuple(dict.fromkeys(fit.name for fit in fits))
                row.text = f"{matches(row.fits, min(fit.error for fit in fits))}; it {differs}"
            else:
                row.text = self.pattern(row) or differs

    def misnamed(self, row: Row) -> str:
        """Whether an array is that of another value: names off by one layer."""
        if self.given.arrays[row.name].shape != self.case.world.values[row.name].shape:
            return ""
        free = self.case.world.walk({})
        theirs = self.given.arrays[row.name]
        own = patterns.distance(theirs, free[row.name]) if row.name in free else np.inf
        for name, value in free.items():
            if name == row.name or value.shape != theirs.shape or np.array_equal(value, free.get(row.name)):  # type: ignore[arg-type]
                continue
            if patterns.distance(theirs, value) <= min(1e-3 * own, self.near(row.name)):
                return f"is the relevance of {name!r}: names off by a layer"
        return ""

    def near(self, name: str) -> float:
        """How far apart arrays may be that are taken for the same but for a simple change."""
        if self.evidence.tolerance is not None:
            return self.evidence.tolerance
        ours = self.evidence.seen(name, self.expected)
        rounding, _ = self.evidence.allowed(name, self.bounds(self.evidence.units[name]), ours)
        return max(float(rounding.max()) / patterns.size(ours), 256 * self.evidence.units[name])

    def reshaped(self, ours: np.ndarray, theirs: np.ndarray) -> Iterator[tuple[str, np.ndarray]]:
        for text, other in patterns.changed(ours, theirs.shape):
            if other.shape == theirs.shape and patterns.distance(theirs, other) <= 1e-4:
                yield text, other

    def pattern(self, row: Row) -> str:
        """A factor, a sign, an order of axes, a border: whatever simple change makes both equal."""
        name, near = row.name, self.near(row.name)
        theirs, ours, whole = (
            self.given.arrays[name],
            self.evidence.seen(name, self.expected),
            self.expected[name],
        )
        if patterns.distance(theirs, -ours) <= near:
            row.fits = ("has the wrong sign",)
            return row.fits[0]
        if text := patterns.order_of_samples(theirs, ours, near):
            row.fits = (text,)
            return text
        k = patterns.factors(theirs, ours)
        if patterns.distance(theirs, k * ours) <= near:
            seed = self.case.world.seed
            text, known = patterns.factor_text(k.ravel(), ours, seed.reshape(len(seed), -1).sum(1))
            row.fits = (text,) if known else ()
            return text
        for text, other in patterns.changed(whole, theirs.shape):
            if patterns.distance(theirs, other) <= 4 * near and np.ptp(other):
                row.fits = (text,)
                return text
        return self.border(name, theirs, ours)

    def border(self, name: str, theirs: np.ndarray, ours: np.ndarray) -> str:
        """Whether it differs at the border alone."""
        wrong = self.wrong(name)
        for node in self.case.world.network.readers(name):
            reach = _border(node.layer, self.case.world.values[name])
            if reach is None or reach.shape != wrong.shape or (wrong & ~reach).any():
                continue
            if patterns.no_accident(wrong, reach):
                part = f"{100 * wrong.mean():.3g} % of its values"
                return f"differs only at the border, within reach of the padding of {node.name}, on {part}"
        return ""

    # ------------------------------------------------------------ where

    def wrong(self, name: str) -> np.ndarray:
        ours = self.evidence.seen(name, self.expected)
        _, allowed = self.evidence.allowed(name, self.bounds(self.evidence.units[name]), ours)
        return np.abs(self.given.arrays[name] - ours) > allowed

    def differs(self, name: str, wrong: np.ndarray | None = None) -> str:
        wrong = self.wrong(name) if wrong is None else wrong
        where = self.where(name, wrong, ", ")
        return f"differs from the definition on {100 * wrong.mean():.3g} % of its values{where}"

    def where(self, name: str, wrong: np.ndarray, before: str = "") -> str:
        """The narrowest condition that holds wherever something is wrong."""
        fits = [
            (mask.sum(), text)
            for text, mask in _places(self.case.world, name)
            if mask.shape == wrong.shape and not (wrong & ~mask).any() and patterns.no_accident(wrong, mask)
        ]
        if fits:
            return f"{before}{min(fits)[1]}"
        places = np.argwhere(wrong)
        if 0 < len(places) <= 3 and wrong.mean() < 0.2:
            return f"{before}at {', '.join(str(tuple(p.tolist())) for p in places)}"
        return ""


def _places(world: World, name: str) -> Iterator[tuple[str, np.ndarray]]:
    """Conditions on a value's units, and where they hold."""
    x = world.values[name]
    yield "where x < 0", x < 0
    yield "where x = 0", x == 0
    yield "where x > 0", x > 0
    for node in world.network.readers(name):
        layer, y = node.layer, world.values[node.name]
        if v.takes_the_maximum(layer) and not layer.merges:
            hits, back = v.Ties(layer, "all").winners(x, y)
            tied = sum(hit.astype(float) for hit in hits) > 1
            yield "at ties of the maximum", back([hit * tied for hit in hits]) > 0
        elif isinstance(layer, Linear) and not layer.merges:
            weight = one(layer.parameters(x.shape[1:])[0])
            for text, mask in (("z = 0", y == 0), ("z < 0", y < 0)):
                reached = layer.adjoint(mask * 1.0, weight, x.shape[1:]) > 0
                yield f"where a unit with {text} reads it", reached
        if (border := _border(layer, x)) is not None:
            yield "at the border, within reach of the padding", border


def _border(layer: Any, x: np.ndarray) -> np.ndarray | None:
    """The units that a window which reaches over the padding reads; None for a layer without padding."""
    if not hasattr(layer, "windows") or hasattr(layer, "output_padding"):
        return None
    shape = x.shape[1:]
    layer = v.as_pool(layer) if v.takes_the_maximum(layer) else layer
    weight = one(layer.parameters(shape)[0])
    seen = layer.linear(np.ones((1, *shape)), weight, None)
    reach = layer.adjoint((seen < seen.max()) * 1.0, weight, shape) > 0
    return np.broadcast_to(reach, x.shape) if reach.any() else None


# ---------------------------------------------------------------- without a network


def compare(
    reference: Mapping[str, Any], candidate: Mapping[str, Any], tolerance: float | None = None
) -> Verdict:
    """Compare relevance with relevance, name by name, where the network is not at hand.

    Parameters
    ----------
    reference, candidate : mapping of name to (N, *shape) array
    tolerance : float, optional
        Largest difference that agrees, relative to the largest |value|; by default as in `LOOSE`, by the
        candidate's dtype.

    Returns
    -------
    Verdict
        With error norms, and patterns (a factor, a sign, an order of axes), but no causes.

    Examples
    --------
    >>> print(compare({"input": [[1.0, 2.0]]}, {"input": [[2.0, 4.0]]})["input"].text)
    is 2 times the reference's
    """
    _checked(tolerance)
    rows, problems = [], {}  # type: ignore[var-annotated]
    for name, value in reference.items():
        if name not in candidate:
            continue
        row = _compared(name, np.asarray(value), np.asarray(candidate[name]), tolerance, problems)
        rows.append(row)
    if not rows:
        raise LRPError(f"no name is in both: {', '.join(reference)}, and {', '.join(candidate)}")
    return Verdict(rows, problems, [name for name in reference if name not in candidate])


def _compared(
    name: str, ours: np.ndarray, theirs: np.ndarray, tolerance: float | None, problems: dict[str, str]
) -> Row:
    if ours.dtype.kind not in "fiub" or theirs.dtype.kind not in "fiub":
        raise LRPError(f"{name!r} is to be an array of real numbers in both")
    if not np.isfinite(ours).all():
        raise LRPError(f"the reference has values that are NaN or infinite in {name!r}")
    allowed = LOOSE.get(theirs.dtype.name, 1e-9) if tolerance is None else tolerance
    ours, theirs = ours.astype(np.float64), theirs.astype(np.float64)
    row = Row(name, "", (), "", bound=allowed)
    if ours.shape != theirs.shape:
        problems[name] = f"has shape {theirs.shape}, not {ours.shape}"
        problems[name] += patterns.other_shape(theirs, ours, allowed)
        row.text = problems[name]
    elif not np.isfinite(theirs).all():
        problems[name] = row.text = f"{np.count_nonzero(~np.isfinite(theirs))} values are NaN or infinite"
    else:
        row.maximum, row.l2, row.cosine = patterns.norms(theirs, ours)
        row.agrees = row.maximum <= allowed
        if not row.agrees:
            wrong = np.abs(theirs - ours) > allowed * patterns.size(ours)
            share = f"differs on {100 * wrong.mean():.3g} % of its values"
            row.text = patterns.simple(theirs, ours, allowed) or share
    return row


__all__ = ["Row", "Verdict", "compare", "judge", "read_candidate", "unit"]
