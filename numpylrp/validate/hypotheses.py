"""What the judge tries: ways of being different, each a world in which one thing is otherwise.

A `Hypothesis` makes of a `Case` another world, or None where it changes nothing. Those on layers can be
restricted to some of them. The tables are in `wrong_rules` (the way back), `wrong_forward` (the forward pass
and the inputs) and `wrong_seeds`; `tables` puts them in the order of trying.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from ..rules import Rule
from ..wiring import Node
from .worlds import Pair, Question, World

Change = Callable[[Any, Rule | None], Pair | None]
"""What a layer and its rule become on the way back, or None where they stay."""


@dataclass(frozen=True)
class Case:
    """What is judged: the question, and the world of the definition."""

    question: Question
    world: World


@dataclass(frozen=True)
class Hypothesis:
    """One way of being different.

    Attributes
    ----------
    name : str
        What the verdict says.
    make : function of (case, names)
        The other world, its change made in the layers of these names alone (in all, for None); None where
        nothing changes.
    scoped : bool
        Whether it is a change of layers, which can be restricted to some.
    everywhere : bool
        Whether it changes activations, or the seed: it must then be true of all values at once.
    library : bool
        Whether it is a library's convention, of many things at once.
    factored : bool
        Whether it may go together with another seed, which is a factor of each sample.
    back : function of array, optional
        Puts the predicted relevance of an input into the candidate's order.
    """

    name: str
    make: Callable[[Case, Collection[str] | None], World | None]
    scoped: bool = False
    everywhere: bool = False
    library: bool = False
    factored: bool = True
    back: Callable[[np.ndarray], np.ndarray] | None = None

    def layers(self, case: Case) -> list[Node]:
        """The layers that it changes on the way back."""
        world = self.make(case, None) if self.scoped else None
        return [] if world is None else [n for n in world.network.nodes if n.name in world.changes]


def on_layers(name: str, change: Callable[[World, Node], Pair | None], library: bool = False) -> Hypothesis:
    """A hypothesis on the way back: `change` says what stands in a layer's place."""

    def make(case: Case, names: Collection[str] | None) -> World | None:
        changes = {}
        for node in case.world.network.nodes:
            if (names is None or node.name in names) and node.name in case.world.reached:
                pair = change(case.world, node)
                if pair is not None:
                    changes[node.name] = pair
        return case.world.changed(changes) if changes else None

    return Hypothesis(name, make, scoped=True, library=library)


def on_pairs(name: str, change: Change, library: bool = False) -> Hypothesis:
    """`on_layers` for a change that looks at the layer and its rule alone."""
    return on_layers(name, lambda world, node: change(node.layer, world.rules.get(node.name)), library)


def on_walk(name: str, **options: Any) -> Hypothesis:
    """Another walk: `join` or `through` of a `World`; what is done to every value must be true of all."""
    return Hypothesis(
        name, lambda case, names: replace(case.world, **options), everywhere="through" in options
    )


def on_seed(name: str, start: Callable[[Case], np.ndarray | None]) -> Hypothesis:
    """Another relevance to start from."""

    def make(case: Case, names: Collection[str] | None) -> World | None:
        R = start(case)
        if R is None or not np.isfinite(R).all() or np.array_equal(R, case.world.seed):
            return None
        return replace(case.world, seed=R, contrast="")

    return Hypothesis(name, make, everywhere=True, factored=False)


def tables(case: Case) -> Iterator[Iterable[Hypothesis]]:
    """All hypotheses, simple and frequent ones first."""
    from . import wrong_forward, wrong_rules, wrong_seeds

    yield wrong_seeds.SEEDS
    yield wrong_seeds.other_classes(case)
    yield wrong_rules.RULES
    yield wrong_forward.FORWARD
    yield wrong_rules.other_rules(case.world)
    yield wrong_forward.treatments(case)
    yield wrong_forward.inputs(case)
    yield wrong_rules.sequence_rules(case)
    yield wrong_rules.LIBRARIES
