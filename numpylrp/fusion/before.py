"""Moving a scale and a shift into the layers before, which then give ``g y + s`` instead of y.

Each function gives, for a layer whose output must become ``g y + s``, the layer that makes it so, and
what its inputs must become (nothing where the layer absorbs it).

    linear         g (W x + b) + s = (g W) x + (g b + s)
    sum            g (x1 + x2) + s = (g x1 + s) + g x2
    concatenation  each branch its own part of g and s
    average pool   g mean(x) + s = mean(g x + s)
    maximum pool   g max(x) + s = max(g x + s) where g >= 0, min(g x + s) where g < 0
    moves          the move undone on g and s
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from .. import layers as L
from ..layers.base import Layer, Shape
from .draft import Draft
from .pending import NotExact, Pending, by_kind, expanded

Asked = tuple[Layer, list[Pending]]
"""The layer that gives ``g y + s``, and what is asked of each of its inputs."""


@dataclass
class Moved:
    """Where a scale and shift went.

    Attributes
    ----------
    changes : dict of Layer
        What stands under the names of the layers that change.
    passed : list of str
        All layers that it reached.
    absorbed : list of str
        Those that took it in.
    """

    changes: dict[str, Layer] = field(default_factory=dict)
    passed: list[str] = field(default_factory=list)
    absorbed: list[str] = field(default_factory=list)


def into(draft: Draft, name: str, reader: str, asked: Pending) -> Moved:
    """The layers that make tensor `name` be ``g t + s``, where only `reader` reads it.

    Parameters
    ----------
    draft : Draft
    name, reader : str
        A node or input, and the node that reads it.
    asked : Pending

    Raises
    ------
    NotExact
        There are no such layers; the message says why.
    """
    moved = Moved()
    todo = [(name, reader, asked, "")]
    while todo:
        name, reader, asked, where = todo.pop()
        try:
            _free_to_change(draft, name, reader)
            layer, inputs = draft.layers[name], draft.inputs[name]
            function = by_kind(INTO, layer)
            if function is None:
                raise NotExact(f"it does not move through {name!r} ({type(layer).__name__}) before it")
            changed, each = function(layer, asked, draft.shapes[name], [draft.shapes[n] for n in inputs])
        except NotExact as reason:
            raise NotExact(f"{where}{reason}") from None
        if changed is not layer:
            moved.changes[name] = changed
        moved.passed.append(name)
        if not each:
            moved.absorbed.append(name)
        for source, p in zip(inputs, each):
            if inputs.count(source) > 1:
                raise NotExact(f"{where}{name!r} reads {source!r} twice")
            branch = f"{where}branch {source!r} of {name!r} can't take it: " if len(each) > 1 else where
            todo.append((source, name, p, branch))
    return moved


def _free_to_change(draft: Draft, name: str, reader: str) -> None:
    """Refuse a tensor that something else needs as it is."""
    if name not in draft.layers:
        raise NotExact("before it comes the input, which has no weights")
    others = [other for other in draft.readers[name] if other != reader]
    if others:
        raise NotExact(f"{others[0]!r} also reads {name!r}, and needs it as it is")
    if name in draft.outputs:
        raise NotExact(f"{name!r} is an output, and needed as it is")


def _dense(layer: Any, p: Pending, shape: Shape, given: list[Shape]) -> Asked:
    g, s = p.vectors(-1, len(layer.weight), "a dense layer")
    bias = s if layer.bias is None else g * layer.bias + s
    return dataclasses.replace(layer, weight=g[:, None] * layer.weight, bias=bias), []


def _conv(layer: Any, p: Pending, shape: Shape, given: list[Shape]) -> Asked:
    g, s = p.vectors(0, layer.channels[1], "a convolution")
    return _with_weight(layer, layer.weight * g.reshape(-1, 1, *(1,) * layer.rank), g, s), []


def _transposed_conv(layer: Any, p: Pending, shape: Shape, given: list[Shape]) -> Asked:
    g, s = p.vectors(0, layer.channels[1], "a convolution")
    # weight (C, O / groups, ...): the inputs of group k lead to the outputs of group k
    split = layer.weight.reshape(layer.groups, -1, *layer.weight.shape[1:])
    weight = split * g.reshape(layer.groups, 1, -1, *(1,) * layer.rank)
    return _with_weight(layer, weight.reshape(layer.weight.shape), g, s), []


def _with_weight(layer: Any, weight: np.ndarray, g: np.ndarray, s: np.ndarray) -> Layer:
    bias = s if layer.bias is None else g * layer.bias + s
    taps = None if layer.tap_bias is None else layer.tap_bias * g.reshape(-1, *(1,) * layer.rank)
    return dataclasses.replace(layer, weight=weight, bias=bias, tap_bias=taps)


def _diagonal(layer: L.Diagonal, p: Pending, shape: Shape, given: list[Shape]) -> Asked:
    scale, shift = np.broadcast_arrays(*layer.scale_and_shift())
    size = len(scale) if shape[layer.axis] is None else shape[layer.axis]
    g, s = p.vectors(layer.axis, size, "the normalization before it")
    return L.Affine(g * scale, g * shift + s, layer.axis), []


def _same(layer: Layer, p: Pending, shape: Shape, given: list[Shape]) -> Asked:
    return layer, [p]


def _transpose(layer: L.Transpose, p: Pending, shape: Shape, given: list[Shape]) -> Asked:
    back = np.argsort(layer.axes)
    return layer, [Pending.of(p.g.transpose(back), p.s.transpose(back))]


def _reshape(layer: Layer, p: Pending, shape: Shape, given: list[Shape]) -> Asked:
    g, s = p.full(shape)
    if None in given[0]:
        raise NotExact(f"the size of a sample is free ({given[0]})")
    return layer, [Pending.of(g.reshape(given[0]), s.reshape(given[0])).reduced()]


def _max_pool(layer: Any, p: Pending, shape: Shape, given: list[Shape]) -> Asked:
    g, _ = p.vectors(0, shape[0], "a pooling")
    sign = np.where(g < 0, -1.0, 1.0) * (1 if layer.sign is None else layer.sign)
    pool = dataclasses.replace(layer, sign=sign if (sign < 0).any() else None)
    return pool, [_over_positions(p, given[0])]


def _over_positions(p: Pending, shape: Shape) -> Pending:
    """The same asked of an image with an axis for each of these, of a value for each channel."""
    view = (-1, *(1,) * (len(shape) - 1))
    return Pending.of(p.g.reshape(view), p.s.reshape(view))


def _average_pool(layer: Any, p: Pending, shape: Shape, given: list[Shape]) -> Asked:
    p.vectors(0, shape[0], "a pooling")
    if layer.count_padding and (isinstance(layer.padding, str) or np.any(layer.padding)):
        raise NotExact(f"{type(layer).__name__} counts padding, which has no shift")
    return layer, [p]


def _mean(layer: Any, p: Pending, shape: Shape, given: list[Shape]) -> Asked:
    p.vectors(0, shape[0], "a pooling")
    return layer, [_over_positions(p, given[0])]


def _add(layer: Any, p: Pending, shape: Shape, given: list[Shape]) -> Asked:
    """A sum: g into each branch, s into the first."""
    if any(other != shape for other in given):
        raise NotExact("a sum repeats a branch of another shape")
    first, zero = p.s / layer._weights(len(given))[0], np.zeros_like(p.s)
    return layer, [Pending.of(p.g, zero if n else first) for n in range(len(given))]


def _concatenate(layer: L.Concatenate, p: Pending, shape: Shape, given: list[Shape]) -> Asked:
    axis = layer.axis % len(shape)
    if not p.varies(axis):
        return layer, [p for _ in given]
    if any(other[axis] is None for other in given):
        raise NotExact("the size of a concatenation is free")
    ends = np.cumsum([other[axis] for other in given])[:-1]
    full = expanded(p, axis, shape[axis])
    parts = zip(np.split(full.g, ends, axis), np.split(full.s, ends, axis))
    return layer, [Pending.of(g, s) for g, s in parts]


def _up_sampling(layer: L.UpSampling, p: Pending, shape: Shape, given: list[Shape]) -> Asked:
    """Every copy must be asked the same."""
    g, s = p.g, p.s
    for axis, k in enumerate(layer.size):
        if k > 1 and p.varies(axis):
            p = expanded(p, axis, shape[axis])
            copies = [np.moveaxis(a, axis, 0).reshape(-1, k, *np.delete(a.shape, axis)) for a in (p.g, p.s)]
            if any((a != a[:, :1]).any() for a in copies):
                raise NotExact("its scale or shift differs between copies of a value")
            g, s = (np.moveaxis(a[:, 0], 0, axis) for a in copies)
            p = Pending.of(g, s)
    return layer, [p]


def _copy_padding(layer: L.CopyPadding, p: Pending, shape: Shape, given: list[Shape]) -> Asked:
    if any(any(pair) and p.varies(axis) for axis, pair in enumerate(layer.padding)):
        raise NotExact("its scale or shift varies along an axis that copies are put around")
    return layer, [p]


def _slice(layer: L.Slice, p: Pending, shape: Shape, given: list[Shape]) -> Asked:
    """What is cut away is read by nothing: it keeps a scale of 1 and a shift of 0 where these vary."""
    for axis, cut in enumerate(map(slice, layer.start, layer.stop, layer.step or ())):
        if cut == slice(0, None, 1) or not p.varies(axis):
            continue
        if given[0][axis] is None:
            raise NotExact("the size of what is cut is free")
        p = expanded(p, axis, shape[axis])
        arrays = []
        for a, rest in ((p.g, 1), (p.s, 0)):
            full = np.full([given[0][axis] if n == axis else k for n, k in enumerate(a.shape)], rest, a.dtype)
            full[(slice(None),) * axis + (cut,)] = a
            arrays.append(full)
        p = Pending.of(*arrays)
    return layer, [p]


INTO: dict[type[Layer], Callable[[Any, Pending, Shape, list[Shape]], Asked]] = {
    L.Dense: _dense,
    L.Conv: _conv,
    L.Conv2DTranspose: _transposed_conv,
    L.Diagonal: _diagonal,
    L.Identity: _same,
    L.Dropout: _same,
    L.Transpose: _transpose,
    **dict.fromkeys((L.Flatten, L.Reshape), _reshape),
    **dict.fromkeys((L.MaxPool2D, L.GlobalMaxPool), _max_pool),
    L.AveragePool2D: _average_pool,
    **dict.fromkeys((L.GlobalAveragePool, L.AdaptiveAveragePool, L.Interpolation), _mean),
    **dict.fromkeys((L.Add, L.Subtract, L.Average), _add),
    L.Concatenate: _concatenate,
    L.UpSampling: _up_sampling,
    L.Slice: _slice,
    L.CopyPadding: _copy_padding,
}
"""How each kind of layer takes or passes on a scale and shift that comes from after it."""
