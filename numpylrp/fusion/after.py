"""Moving a pending scale and shift through the layers after it, until linear layers absorb it.

Each function gives, for a layer whose input is really ``g x + s``, the layer that takes x instead, and
what is still pending at its output (None once it is absorbed).

    linear         W (g x + s) + b = (W g) x + (b + W s)
    padded conv    the padding zeros come after the shift: b + W * pad(s), a map
    ReLU           max(0, g x + s) = g T(x) + s,  T a threshold at -s / g
    average pool   mean(g x + s) = g mean(x) + s
    maximum pool   max(g x + s) = g max(x) + s where g >= 0, g min(x) + s where g < 0
    moves          the same move of g and s
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np

from .. import layers as L
from ..layers.base import Layer, Shape
from .pending import NotExact, Pending

Moved = tuple[Layer, Pending | None]


def through(layer: Layer, pending: list[Pending | None], shapes: list[Shape]) -> Moved:
    """The layer that takes x instead of g x + s, and what is pending after it.

    Parameters
    ----------
    layer : Layer
    pending : list of Pending or None
        For each input of the layer.
    shapes : list of tuple
        Sample shapes of the inputs.

    Raises
    ------
    NotExact
        There is no such layer; the message says why.
    """
    kind = type(layer)
    if kind is L.Concatenate:
        return _concatenate(layer, pending, shapes)
    if layer.merges:
        raise NotExact(f"{kind.__name__} mixes it with branches that are not normalized")
    if kind not in THROUGH:
        raise NotExact(f"it does not commute with {kind.__name__}")
    return THROUGH[kind](layer, pending[0], shapes[0])


def _same(layer: Layer, p: Pending, shape: Shape) -> Moved:
    return layer, p


def _dense(layer: L.Dense, p: Pending, shape: Shape) -> Moved:
    g, s = p.plain("it").vectors(-1, shape[-1], "a dense layer")
    bias = 0 if layer.bias is None else layer.bias
    return dataclasses.replace(layer, weight=layer.weight * g, bias=bias + layer.weight @ s), None


def _conv(layer: Any, p: Pending, shape: Shape) -> Moved:
    if any(p.border[0]):
        raise NotExact("zeros were put around its channels")
    g, s = p.vectors(0, shape[0], "a convolution")
    transposed = isinstance(layer, L.Conv2DTranspose)
    if transposed:
        weight = layer.weight * g.reshape(-1, 1, *(1,) * layer.rank)
    else:
        split = layer.weight.reshape(layer.groups, -1, *layer.weight.shape[1:])
        weight = split * g.reshape(layer.groups, 1, -1, *(1,) * layer.rank)
        weight = weight.reshape(layer.weight.shape)
    # W s, tap by tap: the bias that each tap adds where it meets the image.
    shifts = s if transposed else s.reshape(layer.groups, -1)
    if transposed:
        per_tap = layer.weight * shifts.reshape(-1, 1, *(1,) * layer.rank)
        per_tap = per_tap.reshape(layer.groups, -1, *layer.weight.shape[1:]).sum(1)
    else:
        per_tap = (split * shifts.reshape(layer.groups, 1, -1, *(1,) * layer.rank)).sum(2)
    per_tap = per_tap.reshape(-1, *layer.weight.shape[2:])
    border = p.border[1:] if np.any(p.border) else None
    everywhere = not transposed and not isinstance(layer.padding, str) and not np.any(layer.padding)
    if everywhere and border is None and layer.tap_bias is None:
        bias = per_tap.reshape(len(per_tap), -1).sum(1)
        bias = bias if layer.bias is None else layer.bias + bias
        return dataclasses.replace(layer, weight=weight, bias=bias), None
    if layer.tap_bias is not None:
        if layer.border != border:
            raise NotExact("the convolution has absorbed a shift with other padding already")
        per_tap = per_tap + layer.tap_bias
    return dataclasses.replace(layer, weight=weight, tap_bias=per_tap, border=border), None


def _diagonal(layer: Any, p: Pending, shape: Shape) -> Moved:
    g, s = p.plain("it").vectors(layer.axis, shape[layer.axis], "the next normalization")
    scale, shift = layer.scale_and_shift()
    return L.Affine(scale * g, scale * s + shift, layer.axis), None


def _relu(layer: L.ReLU, p: Pending, shape: Shape) -> Moved:
    if layer.max_value is not None or layer.negative_slope or layer.threshold:
        raise NotExact(f"only a plain ReLU becomes a threshold, not {layer}")
    g, s = np.broadcast_arrays(p.plain("a ReLU").g, p.s)
    value = np.divide(-s, g, out=np.zeros(g.shape), where=g != 0)
    after = np.where(g == 0, np.maximum(s, 0), s)  # g = 0: the channel is the constant max(0, s)
    return L.Threshold(np.sign(g), value), Pending(g, after, p.border)


def _max_pool(layer: Any, p: Pending, shape: Shape) -> Moved:
    g, _ = p.plain("a maximum pooling").vectors(0, shape[0], "a pooling")
    sign = np.where(g < 0, -1.0, 1.0) * (1 if layer.sign is None else layer.sign)
    pool = dataclasses.replace(layer, sign=sign if (sign < 0).any() else None)
    return pool, _pooled(layer, p)


def _pooled(layer: Any, p: Pending) -> Pending:
    """The same pending of a pooling's output: global pooling may drop axes."""
    if not isinstance(layer, (L.GlobalMaxPool, L.GlobalSumPool)) or layer.keepdims:
        return p
    return Pending(p.g.ravel(), p.s.ravel(), p.border[:1])


def _average_pool(layer: Any, p: Pending, shape: Shape) -> Moved:
    g, s = p.plain("a pooling").vectors(0, shape[0], "a pooling")
    padded = isinstance(layer.padding, str) or np.any(layer.padding)
    is_sum = type(layer) in (L.SumPool1D, L.SumPool2D)
    if not padded and not (is_sum and layer.ceil):
        times = np.prod(layer.kernel) if is_sum else 1
        return layer, Pending(p.g, p.s * times, p.border)
    if not is_sum and not layer.count_padding:
        return layer, p
    if layer.ceil:
        raise NotExact("the pooling counts padding, and its last windows hang over the end")
    # Counted padding dilutes the shift at the border: the pooling becomes a depthwise convolution.
    tap = 1.0 if is_sum else 1 / np.prod(layer.kernel)
    taps = np.full((shape[0], *layer.kernel), tap)
    ones = (slice(None), *(None,) * layer.rank)
    kind = L.Conv1D if layer.rank == 1 else L.Conv2D
    return kind(
        (taps * g[ones])[:, None],
        None,
        layer.stride,
        layer.padding,
        groups=shape[0],
        tap_bias=taps * s[ones],
    ), None


def _global_sum(layer: Any, p: Pending, shape: Shape) -> Moved:
    p.plain("a pooling").vectors(0, shape[0], "a pooling")
    if isinstance(layer, L.GlobalAveragePool):
        return layer, _pooled(layer, p)
    if None in shape:
        raise NotExact("the size of the image that is summed is free")
    return layer, _pooled(layer, Pending(p.g, p.s * np.prod(shape[1:]), p.border))


def _reshape(layer: Any, p: Pending, shape: Shape) -> Moved:
    g, s = (layer.forward(a[None])[0] for a in p.full(shape))
    return layer, Pending(g, s, ((0, 0),) * g.ndim)


def _transpose(layer: L.Transpose, p: Pending, shape: Shape) -> Moved:
    return layer, Pending(
        p.g.transpose(layer.axes), p.s.transpose(layer.axes), tuple(p.border[a] for a in layer.axes)
    )


def _zero_padding(layer: L.ZeroPadding, p: Pending, shape: Shape) -> Moved:
    g, s, border = p.g, p.s, list(p.border)
    for axis, pads in enumerate(layer.padding):
        if not any(pads):
            continue
        if g.shape[axis] == s.shape[axis] == 1:
            border[axis] = (border[axis][0] + pads[0], border[axis][1] + pads[1])
            continue
        if any(border[axis]):
            raise NotExact("zeros were put around its channels twice")
        around = [(0, 0)] * p.rank
        around[axis] = pads
        size = [max(n) for n in zip(g.shape, s.shape)]
        size = [n if a == axis else 1 for a, n in enumerate(size)]
        g = np.pad(np.broadcast_to(g, np.broadcast_shapes(g.shape, size)), around, constant_values=1)
        s = np.pad(np.broadcast_to(s, np.broadcast_shapes(s.shape, size)), around)
    return layer, Pending(g, s, tuple(border))


def _slice(layer: L.Slice, p: Pending, shape: Shape) -> Moved:
    cut = [(a, b, c) != (0, None, 1) for a, b, c in zip(layer.start, layer.stop, layer.step)]
    if any(any(border) and c for border, c in zip(p.border, cut)):
        raise NotExact("it is cut out of a padded image")

    def part(a: np.ndarray) -> np.ndarray:
        slices = (
            slice(x, y, z) if n > 1 else slice(None)
            for n, x, y, z in zip(a.shape, layer.start, layer.stop, layer.step)
        )
        return a[tuple(slices)]

    return layer, Pending(part(p.g), part(p.s), p.border)


def _up_sampling(layer: L.UpSampling, p: Pending, shape: Shape) -> Moved:
    def more(a: np.ndarray) -> np.ndarray:
        for axis, k in enumerate(layer.size):
            a = np.repeat(a, k, axis) if a.shape[axis] > 1 else a
        return a

    border = tuple((a * k, b * k) for (a, b), k in zip(p.border, layer.size))
    return layer, Pending(more(p.g), more(p.s), border)


def _concatenate(layer: L.Concatenate, pending: list[Pending | None], shapes: list[Shape]) -> Moved:
    axis, rank = layer.axis % len(shapes[0]), len(shapes[0])
    borders = {p.border for p in pending if p is not None}
    if len(borders) > 1 or (any(p is None for p in pending) and any(map(any, next(iter(borders))))):
        raise NotExact("the branches of a concatenation differ in padding")
    if any(shape[axis] is None for shape in shapes):
        raise NotExact("the size of a concatenation is free")
    parts: tuple[list, list] = [], []
    for p, shape in zip(pending, shapes):
        for out, a in zip(parts, (np.ones((1,) * rank), np.zeros((1,) * rank)) if p is None else (p.g, p.s)):
            view = [*a.shape]
            view[axis] = shape[axis]
            out.append(np.broadcast_to(a, view))
    common = [max(a.shape[n] for a in (*parts[0], *parts[1])) for n in range(rank)]
    full = []
    for arrays in parts:
        same = [
            np.broadcast_to(a, [a.shape[n] if n == axis else common[n] for n in range(rank)]) for a in arrays
        ]
        full.append(np.concatenate(same, axis))
    return layer, Pending(full[0], full[1], next(iter(borders)))


THROUGH: dict[type[Layer], Callable[[Any, Pending, Shape], Moved]] = {
    **dict.fromkeys((L.Identity, L.Dropout), _same),
    L.Dense: _dense,
    **dict.fromkeys((L.Conv1D, L.Conv2D, L.Conv2DTranspose), _conv),
    **dict.fromkeys((L.BatchNorm, L.Affine), _diagonal),
    L.ReLU: _relu,
    **dict.fromkeys((L.MaxPool1D, L.MaxPool2D, L.GlobalMaxPool), _max_pool),
    **dict.fromkeys((L.AveragePool1D, L.AveragePool2D, L.SumPool1D, L.SumPool2D), _average_pool),
    **dict.fromkeys((L.GlobalAveragePool, L.GlobalSumPool), _global_sum),
    **dict.fromkeys((L.Flatten, L.Reshape), _reshape),
    L.Transpose: _transpose,
    L.ZeroPadding: _zero_padding,
    L.Slice: _slice,
    L.UpSampling: _up_sampling,
}
"""How each kind of layer is passed; a kind that is not here is not passed."""
