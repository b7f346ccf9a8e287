"""What a network is made of, checked once: names, wiring, shapes of inputs, dtype."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from heapq import heapify, heappop, heappush
from typing import Any

import numpy as np

from .errors import LRPError, ShapeError, lookup
from .layers import Layer
from .layers.base import Shape


@dataclass(frozen=True)
class Node:
    """A layer with its name and the names of what it reads: inputs of the network or other nodes."""

    name: str
    layer: Layer
    inputs: tuple[str, ...]


def float_dtype(dtype: Any) -> np.dtype:
    """`dtype` as float32 or float64, or an error."""
    try:
        dtype = np.dtype(dtype)
    except TypeError:
        raise LRPError(f"dtype must be float32 or float64, not {dtype!r}") from None
    if dtype not in (np.float32, np.float64):
        raise LRPError(f"dtype must be float32 or float64, not {dtype}")
    return dtype


def input_shapes(given: Any, name: str) -> dict[str, Shape]:
    """The sample shape of each input by its name; one shape alone is that of the input `name`."""
    shapes = dict(given) if isinstance(given, Mapping) else {name: given}
    if not shapes:
        raise LRPError("a network needs an input")
    return {name: _shape(name, shape) for name, shape in shapes.items()}


def _shape(name: str, shape: Any) -> Shape:
    try:
        shape = tuple(None if n is None else int(n) for n in shape)
    except (TypeError, ValueError):
        raise ShapeError(f"the shape of input {name!r} must be integers (or None), not {shape!r}") from None
    if any(n is not None and n < 1 for n in shape):
        raise ShapeError(f"the shape of input {name!r} must be positive, not {shape}")
    return shape


def nodes_in_order(layers: Iterable[tuple], inputs: Mapping[str, Shape]) -> list[Node]:
    """The layers as nodes, each after what it reads, else in the order in which they were given."""
    nodes = _nodes(layers, next(iter(inputs)))
    if not nodes:
        raise LRPError("a network needs at least one layer")
    names = set(inputs)
    for node in nodes:
        if node.name in names:
            raise LRPError(f"the name {node.name!r} is given twice")
        names.add(node.name)
    readers: dict[str, list[int]] = {name: [] for name in names}
    missing = []
    for at, node in enumerate(nodes):
        for name in set(node.inputs):
            if name not in names:
                raise LRPError(f"layer {node.name!r} reads {name!r}, which does not exist")
            readers[name].append(at)
        missing.append(len(set(node.inputs) - set(inputs)))
    ready = [at for at, count in enumerate(missing) if not count]
    heapify(ready)
    order = []
    while ready:
        at = heappop(ready)
        order.append(nodes[at])
        for reader in readers[nodes[at].name]:
            missing[reader] -= 1
            if not missing[reader]:
                heappush(ready, reader)
    if len(order) < len(nodes):
        left = [node.name for node in nodes if node not in order]
        raise LRPError(f"layers {', '.join(map(repr, left))} read each other in a circle")
    return order


def _nodes(layers: Iterable[tuple], first: str) -> list[Node]:
    nodes, before = [], first
    for entry in layers:
        if not 2 <= len(entry) <= 3 or not isinstance(entry[0], str) or not isinstance(entry[1], Layer):
            raise LRPError(
                f"a layer must be given as (name, layer) or (name, layer, inputs), not {entry!r:.120}"
            )
        name, layer = entry[:2]
        reads = entry[2] if len(entry) == 3 else (before,)
        reads = (reads,) if isinstance(reads, str) else tuple(reads)
        if not layer.merges and len(reads) != 1:
            raise LRPError(f"layer {name!r} ({type(layer).__name__}) takes one input, not {len(reads)}")
        nodes.append(Node(name, layer, reads))
        before = name
    return nodes


def in_one_dtype(nodes: Iterable[Node], dtype: Any = None) -> tuple[tuple[Node, ...], np.dtype]:
    """The nodes with parameters of this dtype, by default the widest among them, and the dtype.

    A layer that stands under several names stays one layer.
    """
    nodes = list(nodes)
    if dtype is None:
        arrays = [a for node in nodes for a in node.layer.arrays().values()]
        dtype = np.result_type(*arrays) if arrays else np.dtype(np.float64)
    cast = {id(node.layer): node.layer.astype(dtype) for node in nodes}
    return tuple(Node(node.name, cast[id(node.layer)], node.inputs) for node in nodes), dtype


def sample_shapes(nodes: Iterable[Node], given: Mapping[str, Shape]) -> dict[str, Shape]:
    """The shape of every activation, for inputs of the shapes given; an error names the layer."""
    shapes = dict(given)
    for node in nodes:
        try:
            shapes[node.name] = node.layer.output_shape(*(shapes[name] for name in node.inputs))
        except LRPError as error:
            raise type(error)(f"layer {node.name!r} ({type(node.layer).__name__}): {error}") from None
    return shapes


def leading_to(nodes: Iterable[Node], names: Iterable[str]) -> list[Node]:
    """The nodes that these values depend on, in order."""
    needed, kept = set(names), []
    for node in reversed(list(nodes)):
        if node.name in needed:
            needed.update(node.inputs)
            kept.append(node)
    return kept[::-1]


def readers_of(nodes: Iterable[Node], names: Iterable[str]) -> dict[str, list[Node]]:
    """The nodes that read each of the names."""
    readers: dict[str, list[Node]] = {name: [] for name in names}
    for node in nodes:
        for name in dict.fromkeys(node.inputs):
            readers[name].append(node)
    return readers


def output_names(
    given: str | Sequence[str] | None, nodes: Mapping[str, Node], readers: Mapping[str, list[Node]]
) -> tuple[str, ...]:
    """The outputs that were given, checked; by default the nodes that nothing reads."""
    if given is None:
        given = [name for name in nodes if not readers[name]]
    names = (given,) if isinstance(given, str) else tuple(given)
    if not names:
        raise LRPError("a network needs an output")
    for name in names:
        lookup(nodes, name, "layer")
        if names.count(name) > 1:
            raise LRPError(f"the output {name!r} is given twice")
    return names
