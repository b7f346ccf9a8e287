"""The search for causes: hypotheses walked one after the other, and those kept that explain what differs."""

from __future__ import annotations

import time
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ..errors import LRPError
from ..rules import Rule
from ..wiring import Node
from . import patterns
from .bounds import LEAST, MARGIN, SLACK, Bounds, relevance_errors
from .candidate import Given
from .hypotheses import Case, Hypothesis, tables
from .worlds import Arrays, Walked, World
from .wrong_seeds import probabilities

BETTER = 0.1
"""A hypothesis explains a difference only if it leaves at most this part of it."""

MANY = 8
"""Of so many windows rounding does not always choose the last."""

SECONDS = 60.0
"""How long is searched, by default."""


@dataclass(frozen=True)
class Fit:
    """A hypothesis that explains a value, how far its prediction lies from it, and its order among all."""

    name: str
    error: float
    order: int
    library: bool
    everywhere: bool


@dataclass
class Evidence:
    """What the candidate gave, and what is known of it.

    Attributes
    ----------
    case : Case
    given : Given
    used : dict of array
        Relevance that stands in the place of what is expected.
    known : collection of str
        Activations that are the candidate's own.
    major : dict of layers
        As of `bounds.majorant`.
    expected : dict of array
        What the definition predicts.
    tolerance : float, optional
        Asked for.
    units : dict of float
        The unit roundoff of each array.
    walked : Walked, optional
        The walk that `expected` comes of.
    """

    case: Case
    given: Given
    used: Arrays
    known: Collection[str]
    major: Mapping[str, Any]
    expected: Arrays
    tolerance: float | None = None
    units: dict[str, float] = field(default_factory=dict)
    walked: Walked | None = None
    _nodes: dict[tuple, list[Node]] = field(default_factory=dict, repr=False)

    def seen(self, name: str, values: Mapping[str, np.ndarray]) -> np.ndarray:
        """A value as the candidate gives it."""
        return self.given.seen(name, values[name])

    def allowed(self, name: str, bounds: Bounds, ours: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """What rounding may change, without and with its decisions."""
        if self.tolerance is not None:
            allowed = np.full_like(ours, self.tolerance * patterns.size(ours))
            return allowed, allowed
        sigma, decided = bounds.sigma[name], bounds.decided[name]
        if name in self.given.maps:
            sigma = np.sqrt(self.given.seen(name, np.square(sigma)))
            decided = self.given.seen(name, decided)
        unit = self.units[name]
        least = LEAST * unit * patterns.size(ours)
        rounding = np.maximum(MARGIN * sigma + unit * np.abs(ours), least)
        return rounding, rounding + SLACK * decided

    def bounds(self, world: World, unit: float, names: Iterable[str] | None = None) -> Bounds:
        """Error bounds in a world, of what leads to these values."""
        nodes = None if names is None or world.contrast else self.nodes(world, names)
        major = self.major if world.network is self.case.world.network else {}
        known = [name for name in self.known if name in world.network.shapes]
        return relevance_errors(world, self.here(world), unit, known, major, nodes)

    def here(self, world: World) -> Arrays:
        """The used relevance that a world has a name for."""
        if world.network is self.case.world.network:
            return self.used
        return {name: R for name, R in self.used.items() if name in world.network.shapes}

    def nodes(self, world: World, names: Iterable[str]) -> list[Node]:
        """The layers between these values and what was given above them."""
        names = tuple(names)
        own = world.network is self.case.world.network
        if own and names in self._nodes:
            return self._nodes[names]
        wanted: set[str] = set()
        for name in names:
            if name in world.network.shapes:
                wanted |= {node.name for node in world.between(name, self.used)}
        found = [node for node in world.network.nodes if node.name in wanted]
        if own:
            self._nodes[names] = found
        return found

    def from_seed(self, name: str) -> bool:
        """Whether the walk to a value starts at the seed."""
        world = self.case.world
        if name == world.top:
            return True
        return world.top not in self.used and any(n.name == world.top for n in world.between(name, self.used))


class Search:
    """Hypotheses tried on the values that differ.

    Parameters
    ----------
    evidence : Evidence
    differing : collection of str
        Values that the definition does not explain.
    agreeing : collection of str
        Values that it does: a change of activations must not spoil them.
    seconds : float
        How long is searched.
    """

    def __init__(
        self, evidence: Evidence, differing: Collection[str], agreeing: Collection[str], seconds: float
    ) -> None:
        self.evidence, self.differing, self.agreeing = evidence, list(differing), list(agreeing)
        self.fits: dict[str, list[Fit]] = {name: [] for name in differing}
        self.until = time.monotonic() + seconds
        self.order, self.first, self.focus = 0, True, ""
        self.tried: set[tuple] = set()
        self.opened: set[str] = set()
        self.failed: dict[str, Exception] = {}
        self.left: dict[str, int] = {}
        self.apart = {
            name: patterns.distance(evidence.given.arrays[name], evidence.seen(name, evidence.expected))
            for name in self.differing
        }

    # ------------------------------------------------------------ the order of trying

    def run(self) -> None:
        """Explain the first value that differs, then the next that this does not explain, and so on.

        Hypotheses are tried in all layers, then in those of one family, then in one layer alone. What
        explains a value is tried on all others at once. Those that change activations or the seed are
        about all values, and tried in the first round only.
        """
        case = self.evidence.case
        every = [hypothesis for table in tables(case) for hypothesis in table]
        for name in self.differing:
            if self.fits[name] and name not in self.unexplained:
                continue
            self.focus, self.tried = name, set()
            self.all_at_once(every if self.first else [h for h in every if not h.everywhere])
            self.first = False
            if time.monotonic() > self.until:
                break

    def all_at_once(self, every: list[Hypothesis]) -> None:
        """The stages for one value."""
        self.stage("hypotheses", ((h, None, "") for h in every), len(every))
        if self.focus not in self.unexplained:
            return
        scoped = [h for h in every if h.scoped and not h.library]
        near = {node.name for node in self.evidence.nodes(self.evidence.case.world, [self.focus])}
        families = list(self.families())
        trials = [(h, of, text) for h in scoped for text, of in families if h.everywhere or near & of]
        self.stage("changes of one kind of layer", trials, len(trials))
        if self.focus not in self.unexplained:
            return
        names = self.candidates()
        single = [(h, {n}, f", in {n} alone") for n in names for h in scoped if h.everywhere or n in near]
        self.stage("changes of one layer", single, len(single))

    @property
    def unexplained(self) -> list[str]:
        """The values that nothing but a library's convention explains yet."""
        return [name for name, fits in self.fits.items() if all(fit.library for fit in fits)]

    def stage(self, what: str, trials: Iterable[tuple], count: int) -> None:
        done, self.opened = 0, set(self.differing if what == "hypotheses" else self.unexplained)
        for hypothesis, names, text in trials:
            if time.monotonic() > self.until:
                self.left[what] = self.left.get(what, 0) + count - done
                return
            done += 1
            self.order += 1
            self.attempt(hypothesis, names, text)

    def families(self) -> Iterator[tuple[str, set[str]]]:
        """The layers of each family, with weights, and of each rule: where they are several, not all."""
        world, groups = self.evidence.case.world, {}  # type: ignore[var-annotated]
        for node in self.evidence.case.question.network.nodes:
            family, rule = node.layer.family, world.rules.get(node.name)
            kinds = [f"{family} layers"] if node.layer.takes_rule or family in ("activation", "pool") else []
            kinds += ["layers with weights"] if family in ("dense", "conv") else []
            if rule is not None and family != "merge":
                kinds += [
                    f"layers of the rule {kind.__name__}"
                    for kind in type(rule).__mro__[:-1]
                    if kind is not Rule
                ]
            for kind in kinds:
                groups.setdefault(kind, set()).add(node.name)
        done = [set(world.rules)]
        for kind, names in groups.items():
            if len(names) > 1 and names not in done:
                done.append(names)
                yield f", in {kind} alone", names

    def candidates(self) -> list[str]:
        """Layers that alone may be otherwise, nearest to the output first: of several."""
        world, question = self.evidence.case.world, self.evidence.case.question
        near = {n.name for n in self.evidence.nodes(world, [self.focus])}
        everything = self.first and any(self.evidence.from_seed(name) for name in self.differing)
        names = [n.name for n in reversed(question.network.nodes) if n.name in near or everything]
        return names if len(names) > 1 or everything else []

    # ------------------------------------------------------------ one hypothesis

    def attempt(self, hypothesis: Hypothesis, names: Collection[str] | None, text: str) -> None:
        """Walk with a hypothesis, and keep it where it explains what differs."""
        try:
            world = hypothesis.make(self.evidence.case, names)
            if world is None or self.known(world, hypothesis):
                return
            fits = self.explained(
                world, hypothesis, self.differing if hypothesis.everywhere else [self.focus]
            )
            if not hypothesis.everywhere and any(fits.values()):
                fits = self.explained(world, hypothesis, self.differing)
        except (LRPError, ArithmeticError, ValueError, LookupError, TypeError, AttributeError) as why:
            self.failed[hypothesis.name] = why  # it can't be of this network
            return
        for name, found in fits.items():
            for more, error in found if name in self.opened else ():
                what = f"{hypothesis.name}{text}{more}"
                order = self.order + (1000 if more else 0)
                if all(fit.name != what for fit in self.fits[name]):
                    fit = Fit(what, error, order, hypothesis.library, hypothesis.everywhere)
                    self.fits[name].append(fit)

    def known(self, world: World, hypothesis: Hypothesis) -> bool:
        """Whether this changes nothing that leads to the value, or was tried with other names."""
        if hypothesis.everywhere or world.contrast or world.network is not self.evidence.case.world.network:
            return False
        if not world.changes:
            return False
        near = {node.name for node in self.evidence.nodes(world, [self.focus])}
        key = hypothesis.name, frozenset(near & world.changes.keys())
        done = not key[1] or key in self.tried
        self.tried.add(key)
        return done

    def explained(self, world: World, hypothesis: Hypothesis, names: list[str]) -> dict[str, list]:
        """For each value whether this world explains it."""
        predicted = self.predicted(world, hypothesis, names)
        fits = {}
        for name in names:
            if name not in predicted or predicted[name].shape != self.evidence.expected[name].shape:
                continue
            if hypothesis.back is not None and name in world.network.inputs:
                predicted[name] = hypothesis.back(predicted[name])
            fits[name] = self.fitting(hypothesis, world, name, predicted[name])
        if hypothesis.everywhere and any(fits.values()) and not self.keeps(world, predicted):
            return {}
        return fits

    def predicted(self, world: World, hypothesis: Hypothesis, names: list[str]) -> Arrays:
        nodes, base = None, None
        if not hypothesis.everywhere and not world.contrast:
            nodes = self.evidence.nodes(world, names)
            own = self.evidence.case.world
            same = world.values is own.values and world.seed is own.seed
            base = self.evidence.walked if same and world.join is own.join else None
        return world.walk(self.evidence.here(world), nodes, base)

    def fitting(
        self, hypothesis: Hypothesis, world: World, name: str, value: np.ndarray
    ) -> list[tuple[str, float]]:
        """Whether a prediction explains a value, as it is or times a factor that has a name."""
        theirs = self.evidence.given.arrays[name]
        ours = self.evidence.given.seen(name, value)
        if not np.isfinite(ours).all():
            return []
        found = []
        error = patterns.distance(theirs, ours)
        if error <= BETTER * self.apart[name] and self.within(world, name, theirs, ours, 1.0):
            found.append(("", error))
        elif self.evidence.from_seed(name) and name != world.top and hypothesis.factored:
            k = patterns.factors(theirs, ours)
            scaled = patterns.distance(theirs, k * ours)
            if scaled <= BETTER * self.apart[name] and scaled < 1e-2:
                found += [
                    (text, scaled)
                    for text in self.named(world, k, ours, self.evidence.units[name])
                    if self.within(world, name, theirs, k * ours, np.abs(k))
                ]
        return found

    def within(self, world: World, name: str, theirs: np.ndarray, ours: np.ndarray, k: Any) -> bool:
        """Whether what is left is rounding in that world."""
        unit = self.evidence.units[name]
        if self.evidence.tolerance is not None:
            return patterns.distance(theirs, ours) <= self.evidence.tolerance
        bounds = self.evidence.bounds(world, unit, None if world.contrast else [name])
        if name not in bounds.sigma:
            return False
        _, allowed = self.evidence.allowed(name, bounds, ours)
        return bool((np.abs(theirs - ours) <= np.maximum(allowed * k, 0)).all())

    def named(self, world: World, k: np.ndarray, ours: np.ndarray, unit: float) -> list[str]:
        """Factors that go with another cause: a seed of 1, the probability as the seed, the wrong sign."""
        hot = (world.seed != 0).reshape(len(world.seed), -1).sum(1)
        if not (hot == 1).all():
            return []
        total = world.seed.reshape(len(world.seed), -1).sum(1)
        probability = probabilities(Case(self.evidence.case.question, world))
        known = {
            ", together with a seed of 1": 1 / total,
            ", together with the probability as the seed": probability / total,
            ", together with the wrong sign": -np.ones_like(total),
        }
        near = max(1e6 * unit, 1e-12)
        return [text for text, value in known.items() if np.allclose(k.ravel(), value, rtol=near, atol=0)]

    def keeps(self, world: World, predicted: Mapping[str, np.ndarray]) -> bool:
        """Whether what agrees with the definition still does."""
        for name in self.agreeing:
            if name not in predicted or predicted[name].shape != self.evidence.expected[name].shape:
                continue
            ours = self.evidence.given.seen(name, predicted[name])
            theirs = self.evidence.given.arrays[name]
            before = patterns.distance(theirs, self.evidence.seen(name, self.evidence.expected))
            after = patterns.distance(theirs, ours)
            if after > 10 * before and not self.within(world, name, theirs, ours, 1.0):
                return False
        return True

    # ------------------------------------------------------------ what is kept

    def chosen(self) -> dict[str, list[Fit]]:
        """For each value its fits: those first that explain most values, and a library's conventions last."""
        count: dict[str, int] = {}
        for fits in self.fits.values():
            alone = {fit.name.split(" instead of")[0].removesuffix(" as the seed") for fit in fits}
            pairs = (fit.name.partition(", together with ") for fit in fits)
            fits[:] = [
                fit
                for fit, (_, together, other) in zip(list(fits), list(pairs))
                if not together or other.removesuffix(" as the seed") not in alone
            ]
        for fits in self.fits.values():
            for name in {fit.name for fit in fits}:
                count[name] = count.get(name, 0) + 1
        for name, fits in self.fits.items():
            if self.thin(name):
                fits[:] = [fit for fit in fits if count[fit.name] > 1]
        return {
            name: sorted(fits, key=lambda fit: (-count[fit.name], fit.library, fit.order))
            for name, fits in self.fits.items()
        }

    def thin(self, name: str) -> bool:
        """Whether a value is ours but for a factor of each sample, while others differ that are not.

        Then a rule may hit these few numbers by chance, where a unit or two send all there is.
        """
        if len(self.differing) < 2 or name == self.evidence.case.world.top:
            return False
        theirs = self.evidence.given.arrays[name]
        ours = self.evidence.seen(name, self.evidence.expected)
        return patterns.distance(theirs, patterns.factors(theirs, ours) * ours) < 1e-9

    @property
    def untried(self) -> str:
        """What there was no time for."""
        parts = [f"{count} {what}" for what, count in self.left.items()]
        return f"{', '.join(parts)}, for want of time (seconds=...)" if parts else ""


def ties_of(evidence: Evidence, name: str, rounding: np.ndarray, windows: int) -> list[str]:
    """Treatments of equal maxima, of which rounding decides, that explain a value as no rounding would.

    Rounding lets one of two values win, now this and now that: never both, and not always the last.
    """
    from .wrong_rules import RULES

    theirs = evidence.given.arrays[name]
    apart = patterns.distance(theirs, evidence.seen(name, evidence.expected))
    found = []
    for hypothesis in RULES:
        if "equal maxima" not in hypothesis.name:
            continue
        world = hypothesis.make(evidence.case, None)
        if world is None:
            continue
        value = evidence.given.seen(name, world.walk(evidence.used)[name])
        explains = (
            patterns.distance(theirs, value) <= BETTER * apart and (np.abs(theirs - value) <= rounding).all()
        )
        if explains and (not hypothesis.name.startswith("the last") or windows >= MANY):
            found.append(hypothesis.name)
    return found
