"""Moving a pending scale and shift through the layers after, until linear layers absorb it.

Each function gives, for a layer whose input is really ``g x + s``, the layer that takes x instead, and
what is still pending at its output (None once it is absorbed).

    linear         W (g x + s) + b = (W g) x + (b + W s)
    padded conv    the padding zeros come after the shift: b + W * pad(s), a map
    ReLU           max(0, g x + s) = g T(x) + s,  T a threshold at -s / g
    threshold      T(g x + s) = g T'(x) + s,  T' a threshold at (v - s) / g where T has one at v
    average pool   mean(g x + s) = g mean(x) + s, and the same for interpolation, whose weights sum to 1
    maximum pool   max(g x + s) = g max(x) + s where g >= 0, g min(x) + s where g < 0
    sum            sum_k w_k (g x_k + s_k) = g sum_k w_k x_k + sum_k w_k s_k, where g is that of every branch
    moves          the same move of g and s
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from heapq import heappop, heappush
from typing import Any

import numpy as np

from .. import layers as L
from ..layers.base import Layer, Shape
from .before import Moved
from .draft import Draft
from .pending import NotExact, Pending, by_kind, expanded

Left = tuple[Layer, Pending | None]
"""The layer that takes x instead of ``g x + s``, and what is left pending after it."""


def move(draft: Draft, name: str, start: Pending) -> Moved:
    """Move what is pending at a tensor through all that reads it.

    Raises
    ------
    NotExact
        Not all of it is absorbed; the message says why.
    """
    pending, moved = {name: start}, Moved()
    todo: list[tuple[int, str]] = []
    seen: set[str] = set()

    def reached(source: str) -> None:
        if source in draft.outputs:
            raise NotExact(f"{source!r} is an output, and nothing linear lies between")
        for reader in draft.readers[source]:
            if reader not in seen:
                seen.add(reader)
                heappush(todo, (draft.position[reader], reader))

    reached(name)
    while todo:
        _, at = heappop(todo)
        inputs, layer = draft.inputs[at], draft.layers[at]
        try:
            given = [pending.get(source) for source in inputs]
            changed, left = through(layer, given, [draft.shapes[source] for source in inputs])
        except NotExact as reason:
            raise NotExact(f"{at!r}: {reason}") from None
        if changed is not layer:
            moved.changes[at] = changed
        moved.passed.append(at)
        if left is None:
            moved.absorbed.append(at)
        else:
            pending[at] = left
            reached(at)
    return moved


def through(layer: Layer, pending: list[Pending | None], shapes: list[Shape]) -> Left:
    """The layer that takes x instead of g x + s, and what is left pending after it.

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
    if layer.merges:
        function = by_kind(TOGETHER, layer)
        if function is None:
            raise NotExact(f"{type(layer).__name__} mixes it with branches that are not normalized")
        return function(layer, pending, shapes)
    function = by_kind(THROUGH, layer)
    if function is None:
        raise NotExact(f"it does not commute with {type(layer).__name__}")
    return function(layer, pending[0], shapes[0])


def _same(layer: Layer, p: Pending, shape: Shape) -> Left:
    return layer, p


def _dense(layer: L.Dense, p: Pending, shape: Shape) -> Left:
    g, s = p.plain("it").vectors(-1, layer.weight.shape[1], "a dense layer")
    bias = 0 if layer.bias is None else layer.bias
    return dataclasses.replace(layer, weight=layer.weight * g, bias=bias + layer.weight @ s), None


def _conv(layer: Any, p: Pending, shape: Shape) -> Left:
    g, s = _of_channels(layer, p)
    split = layer.weight.reshape(layer.groups, -1, *layer.weight.shape[1:])
    view = (layer.groups, 1, -1, *(1,) * layer.rank)
    weight = (split * g.reshape(view)).reshape(layer.weight.shape)
    shift_by_tap = (split * s.reshape(view)).sum(2).reshape(-1, *layer.weight.shape[2:])
    if layer.tap_bias is None and not np.any(p.border) and not padded(layer):
        bias = shift_by_tap.reshape(len(shift_by_tap), -1).sum(1)
        bias = bias if layer.bias is None else layer.bias + bias
        return dataclasses.replace(layer, weight=weight, bias=bias), None
    return _with_taps(layer, weight, shift_by_tap, p), None


def _transposed_conv(layer: Any, p: Pending, shape: Shape) -> Left:
    g, s = _of_channels(layer, p)
    weight = layer.weight * g.reshape(-1, 1, *(1,) * layer.rank)
    shifted = layer.weight * s.reshape(-1, 1, *(1,) * layer.rank)
    shift_by_tap = shifted.reshape(layer.groups, -1, *layer.weight.shape[1:]).sum(1)
    return _with_taps(layer, weight, shift_by_tap.reshape(-1, *layer.weight.shape[2:]), p), None


def _of_channels(layer: Any, p: Pending) -> tuple[np.ndarray, np.ndarray]:
    if any(p.border[0]):
        raise NotExact("zeros were put around its channels")
    return p.vectors(0, layer.channels[0], "a convolution")


def padded(layer: Any) -> bool:
    """Whether a convolution or pooling puts zeros around an image."""
    return isinstance(layer.padding, str) or bool(np.any(layer.padding))


def _with_taps(layer: Any, weight: np.ndarray, shift_by_tap: np.ndarray, p: Pending) -> Layer:
    """The convolution with W s, tap by tap: the bias that each tap adds where it meets the image."""
    border = p.border[1:] if np.any(p.border) else None
    if layer.tap_bias is not None:
        if layer.border != border:
            raise NotExact("the convolution has absorbed a shift with other padding already")
        shift_by_tap = shift_by_tap + layer.tap_bias
    return dataclasses.replace(layer, weight=weight, tap_bias=shift_by_tap, border=border)


def _diagonal(layer: L.Diagonal, p: Pending, shape: Shape) -> Left:
    scale, shift = np.broadcast_arrays(*layer.scale_and_shift())
    size = len(scale) if shape[layer.axis] is None else shape[layer.axis]
    g, s = p.plain("it").vectors(layer.axis, size, "the next normalization")
    return L.Affine(scale * g, scale * s + shift, layer.axis), None


def _relu(layer: L.ReLU, p: Pending, shape: Shape) -> Left:
    if layer.max_value is not None or layer.negative_slope or layer.threshold:
        raise NotExact(f"only a plain ReLU becomes a threshold, not {layer}")
    one = np.ones((1,) * p.rank, p.g.dtype)
    return _turned(one, 0 * one, p.plain("a ReLU"))


def _threshold(layer: L.Threshold, p: Pending, shape: Shape) -> Left:
    return _turned(layer.sign, layer.value, p.plain("a threshold"))


def _turned(sign: np.ndarray, value: np.ndarray, p: Pending) -> Left:
    """The threshold T' of ``T(g x + s) = g T'(x) + s``, for a T of this sign and value.

    Where g is 0, or so small that g x can't reach the threshold, the channel is a constant: that of x = 0.
    """
    g, s, sign, value = np.broadcast_arrays(p.g, p.s, sign, value)
    far = np.sqrt(np.finfo(g.dtype).max)  # beyond it, g x is nothing beside s, and s / g may overflow
    constant = (g == 0) | ((sign != 0) & (np.abs(value - s) > far * np.abs(g)))
    at = np.divide(value - s, g, out=np.zeros(g.shape, g.dtype), where=~constant)
    at = np.where(constant & (g != 0), far * np.sign(value - s) * np.sign(g), at)
    at_zero = np.where((sign == 0) | (sign * s > sign * value), s, value)
    left = Pending(np.where(constant, 0, g), np.where(constant, at_zero, s), p.border)
    return L.Threshold(sign * np.sign(g), np.where(sign == 0, 0, at)), left


def _max_pool(layer: Any, p: Pending, shape: Shape) -> Left:
    g, _ = p.plain("a maximum pooling").vectors(0, shape[0], "a pooling")
    sign = np.where(g < 0, -1.0, 1.0) * (1 if layer.sign is None else layer.sign)
    return dataclasses.replace(layer, sign=sign if (sign < 0).any() else None), p


def _global_max(layer: Any, p: Pending, shape: Shape) -> Left:
    return _max_pool(layer, p, shape)[0], _pooled(layer, p)


def _pooled(layer: Any, p: Pending) -> Pending:
    """The same pending of a global pooling's output, which may have dropped axes."""
    return p if layer.keepdims else Pending(p.g.ravel(), p.s.ravel(), p.border[:1])


def _sum_pool(layer: Any, p: Pending, shape: Shape) -> Left:
    g, s = p.plain("a pooling").vectors(0, shape[0], "a pooling")
    if not padded(layer) and not layer.ceil:
        return layer, Pending(p.g, p.s * np.prod(layer.kernel), p.border)
    return _scaled_pool(layer, g, s, 1.0), None


def _average_pool(layer: Any, p: Pending, shape: Shape) -> Left:
    g, s = p.plain("a pooling").vectors(0, shape[0], "a pooling")
    if not padded(layer) or not layer.count_padding:
        return layer, p
    return _scaled_pool(layer, g, s, 1 / np.prod(layer.kernel)), None


def _scaled_pool(layer: Any, g: np.ndarray, s: np.ndarray, weight: float) -> Layer:
    """Padding that counts dilutes the shift at the border: the pooling takes in both."""
    if layer.ceil:
        raise NotExact("the pooling counts padding, and its last windows hang over the end")
    taps, view = np.full((len(g), 1, *layer.kernel), weight, g.dtype), (-1, 1, *(1,) * layer.rank)
    kind = {1: L.ScaledPool1D, 2: L.ScaledPool2D, 3: L.ScaledPool3D}[layer.rank]
    shifts = (taps * s.reshape(view))[:, 0]
    return kind(taps * g.reshape(view), None, layer.stride, layer.padding, groups=len(g), tap_bias=shifts)


def _global_mean(layer: Any, p: Pending, shape: Shape) -> Left:
    p.plain("a pooling").vectors(0, shape[0], "a pooling")
    return layer, _pooled(layer, p)


def _global_sum(layer: Any, p: Pending, shape: Shape) -> Left:
    p.plain("a pooling").vectors(0, shape[0], "a pooling")
    if None in shape:
        raise NotExact("the size of the image that is summed is free")
    return layer, _pooled(layer, Pending(p.g, p.s * np.prod(shape[1:]), p.border))


def _adaptive_mean(layer: Any, p: Pending, shape: Shape) -> Left:
    p.plain("a pooling").vectors(0, shape[0], "a pooling")
    return layer, p


def _reshape(layer: Any, p: Pending, shape: Shape) -> Left:
    g, s = (layer.forward(a[None])[0] for a in p.full(shape))
    return layer, Pending.of(g, s)


def _transpose(layer: L.Transpose, p: Pending, shape: Shape) -> Left:
    return layer, Pending(
        p.g.transpose(layer.axes), p.s.transpose(layer.axes), tuple(p.border[a] for a in layer.axes)
    )


def _zero_padding(layer: L.ZeroPadding, p: Pending, shape: Shape) -> Left:
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


def _slice(layer: Any, p: Pending, shape: Shape) -> Left:
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


def _up_sampling(layer: L.UpSampling, p: Pending, shape: Shape) -> Left:
    def more(a: np.ndarray) -> np.ndarray:
        for axis, k in enumerate(layer.size):
            a = np.repeat(a, k, axis) if a.shape[axis] > 1 else a
        return a

    border = tuple((a * k, b * k) for (a, b), k in zip(p.border, layer.size))
    return layer, Pending(more(p.g), more(p.s), border)


def _copy_padding(layer: L.CopyPadding, p: Pending, shape: Shape) -> Left:
    p.plain("copies around the image")
    pads = [pair if p.varies(axis) else (0, 0) for axis, pair in enumerate(layer.padding)]

    def around(a: np.ndarray) -> np.ndarray:
        own = [pair if n > 1 else (0, 0) for n, pair in zip(a.shape, pads)]
        return np.pad(a, own, layer.mode)  # type: ignore[call-overload]

    return layer, Pending.of(around(p.g), around(p.s))


def _concatenate(layer: L.Concatenate, pending: list[Pending | None], shapes: list[Shape]) -> Left:
    axis, rank = layer.axis % len(shapes[0]), len(shapes[0])
    borders = {p.border for p in pending if p is not None}
    if len(borders) > 1 or (any(p is None for p in pending) and any(map(any, next(iter(borders))))):
        raise NotExact("the branches of a concatenation differ in padding")
    dtype = next(p.g.dtype for p in pending if p is not None)
    nothing = Pending.of(np.ones((1,) * rank, dtype), np.zeros((1,) * rank, dtype))
    parts = [expanded(nothing if p is None else p, axis, shape[axis]) for p, shape in zip(pending, shapes)]

    def concatenated(arrays: list[np.ndarray]) -> np.ndarray:
        common = [max(sizes) for sizes in zip(*(a.shape for a in arrays))]
        common = [[a.shape[n] if n == axis else k for n, k in enumerate(common)] for a in arrays]
        return np.concatenate([np.broadcast_to(a, shape) for a, shape in zip(arrays, common)], axis)

    g, s = concatenated([p.g for p in parts]), concatenated([p.s for p in parts])
    return layer, Pending(g, s, next(iter(borders)))


def _add(layer: Any, pending: list[Pending | None], shapes: list[Shape]) -> Left:
    found = [p for p in pending if p is not None]
    if len(found) < len(pending):
        raise NotExact(f"{type(layer).__name__} mixes it with branches that are not normalized")
    if len(set(shapes)) > 1:
        raise NotExact("a sum repeats a branch of another shape")
    g = found[0].plain("a sum").g
    if any(p.plain("a sum").g.shape != g.shape or (p.g != g).any() for p in found):
        raise NotExact(f"the branches of {type(layer).__name__} differ in scale")
    s = sum(w * p.s for w, p in zip(layer._weights(len(found)).astype(g.dtype), found))
    return layer, Pending(g, s, found[0].border)


THROUGH: dict[type[Layer], Callable[[Any, Pending, Shape], Left]] = {
    **dict.fromkeys((L.Identity, L.Dropout), _same),
    L.Dense: _dense,
    L.Conv: _conv,
    L.Conv2DTranspose: _transposed_conv,
    L.Diagonal: _diagonal,
    L.ReLU: _relu,
    L.Threshold: _threshold,
    L.MaxPool2D: _max_pool,
    L.GlobalMaxPool: _global_max,
    L.SumPool2D: _sum_pool,
    L.AveragePool2D: _average_pool,
    L.GlobalAveragePool: _global_mean,
    L.GlobalSumPool: _global_sum,
    **dict.fromkeys((L.AdaptiveAveragePool, L.Interpolation), _adaptive_mean),
    **dict.fromkeys((L.Flatten, L.Reshape), _reshape),
    L.Transpose: _transpose,
    L.ZeroPadding: _zero_padding,
    L.Slice: _slice,
    L.UpSampling: _up_sampling,
    L.CopyPadding: _copy_padding,
}
"""How each kind of layer is passed; a kind that is not here is not passed."""

TOGETHER: dict[type[Layer], Callable[[Any, list[Pending | None], list[Shape]], Left]] = {
    L.Concatenate: _concatenate,
    **dict.fromkeys((L.Add, L.Subtract, L.Average), _add),
}
"""The same for layers with several inputs, of which some may have nothing pending."""
