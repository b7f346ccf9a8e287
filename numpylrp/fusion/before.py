"""Moving a scale and a shift into the layers before, which then give ``g y + s`` instead of y.

linear         g (W x + b) + s = (g W) x + (g b + s)
sum            g (x1 + x2) + s = (g x1 + s) + g x2
concatenation  each branch its own part of g and s
average pool   g mean(x) + s = mean(g x + s)
maximum pool   g max(x) + s = max(g x + s) where g >= 0, min(g x + s) where g < 0
moves          the move undone on g and s
"""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np

from .. import layers as L
from ..layers.base import Layer
from ..network import Network
from .pending import NotExact

Changes = dict[str, Layer]


def into(network: Network, name: str, reader: str, g: np.ndarray, s: np.ndarray, axis: int) -> Changes:
    """The layers that make tensor `name` be ``g t + s``, where only `reader` reads it.

    Parameters
    ----------
    network : Network
    name, reader : str
        A node or input, and the node that reads it.
    g, s : (C,) array
        Along this axis of a sample.
    axis : int

    Returns
    -------
    dict of Layer
        What stands under the names of the layers that change.

    Raises
    ------
    NotExact
        There are no such layers; the message says why.
    """
    if name in network.inputs:
        raise NotExact("before it comes the input, which has no weights")
    others = [n.name for n in network.readers(name) if n.name != reader]
    if others:
        raise NotExact(f"{others[0]!r} also reads {name!r}, and needs it as it is")
    if name in network.outputs:
        raise NotExact(f"{name!r} is an output, and needed as it is")
    node = network.node(name)
    layer, shape = node.layer, network.shapes[name]
    kind, axis = type(layer), axis % len(shape)

    def before(source: str, g: np.ndarray, s: np.ndarray, axis: int) -> Changes:
        if node.inputs.count(source) > 1:
            raise NotExact(f"{name!r} reads {source!r} twice")
        return into(network, source, name, g, s, axis)

    if kind in (L.Dense, L.Conv1D, L.Conv2D, L.Conv2DTranspose):
        if axis != (len(shape) - 1 if kind is L.Dense else 0):
            raise NotExact(f"its axis is not that of the outputs of {name!r}")
        return {name: scaled(layer, g, s)}
    if kind in (L.BatchNorm, L.Affine):
        scale, shift = layer.scale_and_shift()
        if axis != layer.axis % len(shape):
            raise NotExact(f"its axis is not that of {name!r}")
        return {name: L.Affine(g * scale, g * shift + s, layer.axis)}
    if kind in (L.Identity, L.Dropout):
        return before(node.inputs[0], g, s, axis)
    if kind is L.Transpose:
        return before(node.inputs[0], g, s, layer.axes[axis])
    if kind in (L.Flatten, L.Reshape):
        return before(node.inputs[0], *_unfolded(network, node.inputs[0], shape, g, s, axis))
    if isinstance(layer, (L.MaxPool2D, L.GlobalMaxPool)) and axis == 0:
        sign = np.where(g < 0, -1.0, 1.0) * (1 if layer.sign is None else layer.sign)
        pool = dataclasses.replace(layer, sign=sign if (sign < 0).any() else None)
        return {name: pool, **before(node.inputs[0], g, s, 0)}
    if kind in (L.AveragePool1D, L.AveragePool2D) and axis == 0:
        if layer.count_padding and (isinstance(layer.padding, str) or np.any(layer.padding)):
            raise NotExact(f"{name!r} counts padding, which has no shift")
        return before(node.inputs[0], g, s, 0)
    if kind is L.GlobalAveragePool and axis == 0:
        return before(node.inputs[0], g, s, 0)
    if isinstance(layer, L.Add):
        return _branches(network, node, before, g, s, axis)
    if kind is L.Concatenate:
        return _parts(network, node, before, g, s, axis)
    raise NotExact(f"it does not move through {name!r} ({kind.__name__}) before it")


def scaled(layer: Any, g: np.ndarray, s: np.ndarray) -> Layer:
    """The linear layer that gives ``g y + s`` for each output channel."""
    bias = s if layer.bias is None else g * layer.bias + s
    if isinstance(layer, L.Dense):
        return dataclasses.replace(layer, weight=g[:, None] * layer.weight, bias=bias)
    taps = (1,) * layer.rank
    if isinstance(layer, L.Conv2DTranspose):
        # weight (C, O / groups, ...): the inputs of group k lead to the outputs of group k
        split = layer.weight.reshape(layer.groups, -1, *layer.weight.shape[1:])
        weight = (split * g.reshape(layer.groups, 1, -1, *taps)).reshape(layer.weight.shape)
    else:
        weight = layer.weight * g.reshape(-1, 1, *taps)
    tap_bias = None if layer.tap_bias is None else layer.tap_bias * g.reshape(-1, *taps)
    return dataclasses.replace(layer, weight=weight, bias=bias, tap_bias=tap_bias)


def _unfolded(network: Network, source: str, shape: tuple, g: np.ndarray, s: np.ndarray, axis: int) -> tuple:
    """Scale and shift, and their axis, before a reshaping: if they vary along one axis there."""
    wanted = network.shapes[source]
    if None in shape or None in wanted:
        raise NotExact("the size of a sample is free")
    view = [1] * len(shape)
    view[axis] = -1
    arrays = [np.broadcast_to(a.reshape(view), shape).reshape(wanted) for a in (g, s)]
    for at, size in enumerate(wanted):
        firsts = [np.moveaxis(a, at, 0).reshape(size, -1)[:, :1] for a in arrays]
        if all((np.moveaxis(a, at, 0).reshape(size, -1) == first).all() for a, first in zip(arrays, firsts)):
            return (*(first[:, 0] for first in firsts), at)
    raise NotExact("its scale or shift varies over the positions of a channel")


def _branches(network: Network, node: Any, before: Any, g: np.ndarray, s: np.ndarray, axis: int) -> Changes:
    """A sum: g into each branch, s into the first."""
    shape = network.shapes[node.name]
    if any(network.shapes[source] != shape for source in node.inputs):
        raise NotExact(f"{node.name!r} repeats a branch of another shape")
    weights = node.layer._weights(len(node.inputs))
    changes: Changes = {}
    for n, source in enumerate(node.inputs):
        try:
            changes.update(before(source, g, s / weights[0] if n == 0 else np.zeros_like(s), axis))
        except NotExact as reason:
            raise NotExact(f"branch {source!r} of {node.name!r} can't take it: {reason}") from None
    return changes


def _parts(network: Network, node: Any, before: Any, g: np.ndarray, s: np.ndarray, axis: int) -> Changes:
    """A concatenation: to each branch its part."""
    changes: Changes = {}
    along = axis == node.layer.axis % len(network.shapes[node.name])
    start = 0
    for source in node.inputs:
        size = network.shapes[source][axis]
        part = slice(start, start + size) if along else slice(None)
        try:
            changes.update(before(source, g[part], s[part], axis))
        except NotExact as reason:
            raise NotExact(f"branch {source!r} of {node.name!r} can't take it: {reason}") from None
        start += size
    return changes
