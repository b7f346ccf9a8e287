"""A network while it is rewritten."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from ..layers import Identity
from ..layers.base import Layer
from ..network import Network


class Draft:
    """Layers and wiring that change in place; nothing is searched for, so a step costs what it changes.

    Attributes
    ----------
    layers, inputs, readers : dict
        By name: the layer, what it reads, and what reads it (the keys of a dict).
    shapes : dict of tuple
        Sample shapes; rewriting does not change them.
    position : dict of int
        Where each layer stands in the order of the network.
    """

    def __init__(self, network: Network) -> None:
        self.network, self.outputs = network, set(network.outputs)
        self.shapes = network.shapes
        self.layers: dict[str, Layer] = {node.name: node.layer for node in network.nodes}
        self.inputs: dict[str, tuple[str, ...]] = {node.name: node.inputs for node in network.nodes}
        self.readers = {name: dict.fromkeys(n.name for n in network.readers(name)) for name in self.shapes}
        self.position = {node.name: at for at, node in enumerate(network.nodes)}

    def change(self, layers: Mapping[str, Layer]) -> None:
        """Put layers in the place of others."""
        for name, layer in layers.items():
            self.layers[name] = layer.astype(self.network.dtype)

    def reads(self, name: str, inputs: tuple[str, ...]) -> None:
        """Let a layer read something else; what nothing reads any more is gone."""
        before, self.inputs[name] = self.inputs[name], inputs
        for source in dict.fromkeys(before):
            del self.readers[source][name]
        for source in inputs:
            self.readers[source][name] = None
        todo = [source for source in before if source not in inputs]
        while todo:
            source = todo.pop()
            if source in self.layers and not self.readers[source] and source not in self.outputs:
                del self.layers[source]
                for further in dict.fromkeys(self.inputs.pop(source)):
                    del self.readers[further][source]
                    todo.append(further)

    def remove(self, name: str) -> None:
        """Let the readers of a layer with one input read that; an output stays, as an identity."""
        if name in self.outputs:
            self.layers[name] = Identity()
            return
        (source,) = self.inputs.pop(name)
        readers = self.readers.pop(name)
        del self.layers[name], self.readers[source][name]
        for reader in readers:
            self.inputs[reader] = tuple(source if n == name else n for n in self.inputs[reader])
        self.readers[source] |= readers

    def in_order(self, names: Iterable[str]) -> list[str]:
        """Names in the order of the network."""
        return sorted(names, key=self.position.__getitem__)

    def finished(self) -> Network:
        """The network as it is now."""
        return self.network.rebuilt((name, layer, self.inputs[name]) for name, layer in self.layers.items())
