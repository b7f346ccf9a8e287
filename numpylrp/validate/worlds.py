"""A world: a network, its rules, its activations and the relevance to start from, that can be walked.

The judge compares a candidate with many worlds: that of the definition, and those in which one thing is
otherwise. A `Question` is what was asked (the model, the inputs, the rules, the seed); it makes worlds.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np

from .. import layers as L
from .. import seed as seeds
from ..composite import Composite, weighted
from ..fast import path_of
from ..fast.threads import one_blas_thread
from ..network import Network
from ..planning import class_names, prepared, start_of
from ..rules import Rule
from ..wiring import Node

Arrays = dict[str, np.ndarray]
Pair = tuple[Any, Rule | None]
"""A layer and its rule."""


def added(old: np.ndarray, new: np.ndarray) -> np.ndarray:
    """What a value has that several layers read: the sum of what they send."""
    return old + new


@dataclass
class Walked:
    """A walk: the relevance of every value, and what each layer sent to each of its inputs."""

    found: Arrays
    sent: dict[str, tuple[np.ndarray, ...]]


@dataclass(frozen=True)
class World:
    """A network that can be walked forward and back.

    Attributes
    ----------
    network : Network
    rules : dict of Rule
        By layer.
    values : dict of array
        All activations.
    top : str
        Where the walk back starts.
    seed : array
        The relevance it starts from.
    target : (N,) int array
    contrast : str
        "clrp1" or "clrp2" where the relevance of the input is the positive part of a difference.
    fixed : bool
        Whether the seed was given as an array, which no rounding of the logits changes.
    changes : dict of (layer, rule)
        What stands in a layer's place on the way back.
    join : function
        How a value's relevance comes of what its readers send.
    through : function of R, or None
        What is done to the relevance of each value that was not given.
    path : Plain or Fast
        Where layers are asked, see `numpylrp.fast`.
    """

    network: Network
    rules: Mapping[str, Rule]
    values: Mapping[str, np.ndarray]
    top: str
    seed: np.ndarray
    target: np.ndarray
    contrast: str = ""
    fixed: bool = False
    changes: Mapping[str, Pair] = field(default_factory=dict)
    join: Callable = added
    through: Callable | None = None
    path: Any = field(default_factory=lambda: path_of({}), repr=False)

    def changed(self, changes: Mapping[str, Pair]) -> World:
        """The same world with other layers or rules on the way back."""
        return replace(self, changes={**self.changes, **changes})

    def pair(self, node: Node) -> Pair:
        """What does a layer's work on the way back, and by which rule."""
        return self.changes.get(node.name) or (node.layer, self.rules.get(node.name))

    def into(self, node: Node) -> tuple[np.ndarray, ...]:
        """The inputs of a layer."""
        return tuple(self.values[name] for name in node.inputs)

    def sent(self, node: Node, R: np.ndarray) -> tuple[np.ndarray, ...]:
        """What a layer sends back to each of its inputs."""
        parts = self.into(node)
        x = parts if node.layer.merges else parts[0]
        layer, rule = self.pair(node)
        if layer is node.layer:
            R_x = self.path.relprop(node, R, x, self.values[node.name], rule)
        else:
            R_x = layer.relprop(R, x, self.values[node.name], rule)
        return tuple(R_x) if node.layer.merges else (R_x,)

    def walk(
        self,
        given: Mapping[str, np.ndarray],
        nodes: Iterable[Node] | None = None,
        base: Walked | None = None,
    ) -> Arrays:
        """What is expected for every value that these layers (by default all) lead to.

        Where a value's relevance is `given`, it goes on with that.
        """
        return self.walked(given, nodes, base).found

    def walked(
        self,
        given: Mapping[str, np.ndarray],
        nodes: Iterable[Node] | None = None,
        base: Walked | None = None,
    ) -> Walked:
        """As `walk`, with what each layer sent.

        `base` is the same walk without `changes`: layers are asked again only where something changes.
        """
        wanted = None if nodes is None else {node.name for node in nodes}
        found, sent, same = {self.top: self.seed}, {}, {self.top}
        with np.errstate(all="ignore"), one_blas_thread():
            for node in reversed(self.network.nodes):
                if (wanted is not None and node.name not in wanted) or not (
                    node.name in found or node.name in given
                ):
                    continue
                if self.through is not None and node.name in found and node.name != self.top:
                    found[node.name] = self.through(found[node.name])
                R = given[node.name] if node.name in given else found[node.name]
                known = base is not None and node.name not in self.changes
                known = known and (node.name in given or node.name in same)
                parts = base.sent[node.name] if known else self.sent(node, R)  # type: ignore[union-attr]
                sent[node.name] = parts
                for name, share in zip(node.inputs, parts):
                    first = name not in found
                    if not known:
                        same.discard(name)
                    elif first:
                        same.add(name)
                    found[name] = share if first else self.join(found[name], share)
            if self.through is not None:
                found = {name: R if name == self.top else self.through(R) for name, R in found.items()}
        return Walked(self._contrasted(found) if self.contrast else found, sent)

    def _contrasted(self, found: Arrays) -> Arrays:
        dual = self.dual.walk({}) if self.contrast == "clrp2" else {}
        for name in self.network.inputs:
            if name in found:
                found[name] = np.maximum(found[name] - dual.get(name, 0), 0)
        return found

    @cached_property
    def dual(self) -> World:
        """CLRP2's dual: the same relevance through the output layer with its weights negated."""
        last = weighted(self.network)[-1]
        own: Any = last.layer
        layer = replace(own, weight=-own.weight, bias=None if own.bias is None else -own.bias)
        values = {**self.values, self.top: -self.values[self.top]}
        rule = self.pair(last)[1]
        return replace(self, values=values, contrast="").changed({last.name: (layer, rule)})

    def between(self, name: str, given: Iterable[str]) -> list[Node]:
        """The layers between a value and the values above it that were given."""
        if name == self.top:
            return []
        found, names = [], [name]
        while names:
            for node in self.network.readers(names.pop()):
                if node not in found and node.name in self.reached:
                    found.append(node)
                    names += [] if node.name in given else [node.name]
        return [node for node in self.network.nodes if node in found]

    @cached_property
    def reached(self) -> set[str]:
        """The values that what is explained depends on."""
        found = {self.top}
        for node in reversed(self.network.nodes):
            found |= set(node.inputs) if node.name in found else set()
        return found


@dataclass(frozen=True)
class Question:
    """What was asked: what `numpylrp.explain` would be called with, and the candidate's activations.

    Attributes
    ----------
    network : Network
        In float64, not fused.
    x : dict of array
    rules : composite, Rule, name of a preset, or mapping of layer name to Rule
    normalization, target, seed, output
        As in `numpylrp.explain`.
    activations : dict of array
        Of the candidate: they stand in the place of ours.
    """

    network: Network
    x: Arrays
    rules: Any
    normalization: str = "linear"
    target: Any = None
    seed: Any = "logit"
    output: str | None = None
    activations: Mapping[str, np.ndarray] = field(default_factory=dict)

    @property
    def composite(self) -> Any:
        """The rules as `numpylrp.explain` takes them."""
        if not isinstance(self.rules, Mapping):
            return self.rules
        return Composite([(_named(name), rule) for name, rule in self.rules.items()])

    def settled(self, network: Network | None = None, normalization: str | None = None) -> tuple:
        """A network as it is walked through, and its rules by name."""
        network = self.network if network is None else network
        how = self.normalization if normalization is None else normalization
        walked, composite = prepared(network, self.composite, how)
        rules = composite.rules(walked)
        return with_removed(network, walked), rules

    def world(
        self, network: Network | None = None, normalization: str | None = None, x: Arrays | None = None
    ) -> World:
        """The world of the definition, or that of another network, treatment or input."""
        network, rules = self.settled(network, normalization)
        top = start_of(network, self.output, self.seed)
        values = self.forward(network, self.x if x is None else x)
        names = class_names(network, top)
        target = seeds.targets(self.target, values[top], names)
        seed = seeds.start(self.seed, values[top], target)
        contrast = self.seed if isinstance(self.seed, str) and self.seed.startswith("clrp") else ""
        fixed = not (isinstance(self.seed, str) or callable(self.seed))
        return World(network, rules, values, top, seed, target, contrast, fixed)

    def forward(self, network: Network, x: Arrays) -> Arrays:
        """All activations; those that the candidate brought are its own."""
        path = path_of({})

        def run(node: Node, given: Any) -> np.ndarray:
            own = self.activations.get(node.name)
            return path.forward(node, given) if own is None else own

        return network.activations(x, run)


def _named(name: str) -> Callable:
    return lambda network, node: node.name == name


def with_removed(network: Network, fused: Network) -> Network:
    """The fused network with an identity in the place of every layer that fusing removed.

    So the values that those layers had a name for can be named still.
    """
    gone = [node for node in network.nodes if node.name not in fused]
    if not gone:
        return fused

    def stays(name: str) -> str:
        while name not in fused and name not in fused.inputs:
            name = network.node(name).inputs[0]
        return name

    def reads(node: Node) -> Iterator[str]:
        own = network.node(node.name).inputs if node.name in network else ()
        for k, name in enumerate(node.inputs):
            same = len(own) == len(node.inputs) and stays(own[k]) == name
            yield own[k] if same else name

    layers = [(node.name, node.layer, tuple(reads(node))) for node in fused.nodes]
    layers += [(node.name, L.Identity(), node.inputs[:1]) for node in gone]
    return Network(layers, fused.inputs, fused.outputs, fused.metadata).astype(fused.dtype)
