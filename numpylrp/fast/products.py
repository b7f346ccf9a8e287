"""The primitives of dense layers and convolutions, with less work; what is derived of weights is kept."""

from __future__ import annotations

import weakref
from functools import cache
from typing import Any

import numpy as np

from ..layers import Conv, Conv2D, Conv2DTranspose, Dense
from ..layers.base import Layer, Shape
from . import convolution
from .kept import derived
from .threads import each, spread, thread_count


class Products:
    """What rules see of a layer on the fast path: its primitives.

    Attributes
    ----------
    channels_axis : int or None
        The axis of inputs and outputs that grows where weights are concatenated: along their second
        axis for inputs, along their first (with biases) for outputs; None where they can't be.
    """

    channels_axis: Any = None

    def __init__(self, layer: Any) -> None:
        self.layer = layer

    def parameters(self, shape: Shape) -> tuple[np.ndarray, np.ndarray | None]:
        """Weight and bias for an input of this sample shape."""
        return self.layer.weight, self.layer.bias

    def linear(self, x: np.ndarray, weight: np.ndarray, bias: np.ndarray | None) -> np.ndarray:
        """The map with this weight and bias."""
        raise NotImplementedError

    def several(self, x: np.ndarray, weight: np.ndarray, bias: np.ndarray | None, count: int) -> list:
        """`linear` for several weights and biases, one after the other: a list of outputs."""
        y = self.linear(x, weight, bias)
        return np.split(y, count, self.channels_axis)

    def adjoint(self, s: np.ndarray, weight: np.ndarray, shape: Shape) -> np.ndarray:
        """The transposed map."""
        raise NotImplementedError


class DenseProducts(Products):
    """Of `Dense`: all samples in one product, in parts for the threads."""

    channels_axis = -1

    def linear(self, x, weight, bias):
        y = matmul(x, weight.T)
        return y if bias is None else np.add(y, bias, out=y)

    def adjoint(self, s, weight, shape):
        return matmul(s, weight)


_bias_maps: weakref.WeakKeyDictionary[Layer, dict[Shape, np.ndarray]] = weakref.WeakKeyDictionary()
"""Bias maps of layers with a tap_bias, for each sample shape: constants, computed once."""


def lift(x: np.ndarray) -> np.ndarray:
    """(N, C, W) as (N, C, 1, W): a view. Images stay as they are."""
    return x[:, :, None] if x.ndim == 3 else x


def _lifted(weight: np.ndarray) -> np.ndarray:
    return lift(weight).copy()


class ConvProducts(Products):
    """Of `Conv1D` and `Conv2D`: see `convolution`."""

    def __init__(self, layer: Any) -> None:
        super().__init__(layer)
        self.channels_axis = 1 if layer.groups == 1 else None
        self.windows = convolution.in_two_dimensions(layer.windows)

    def parameters(self, shape):
        if self.layer.tap_bias is None:
            return self.layer.weight, self.layer.bias
        maps = _bias_maps.setdefault(self.layer, {})
        if shape not in maps:
            maps[shape] = self.layer.bias_map(shape)
        return self.layer.weight, maps[shape]

    def kernel(self, weight: np.ndarray) -> np.ndarray:
        """The weight in two dimensions: no view, so that what is derived of it is kept with it."""
        return derived(weight, _lifted) if weight.ndim == 3 else weight

    def map(self, x: np.ndarray, weight: np.ndarray, bias: np.ndarray | None, count: int) -> np.ndarray:
        """The map on images."""
        return convolution.convolve(x, weight, self.windows, self.layer.groups, bias, count)

    def linear(self, x, weight, bias):
        return self.several(x, weight, bias, 0)

    def several(self, x, weight, bias, count):
        bias = bias[:, None] if bias is not None and bias.ndim == 2 else bias
        y = self.map(lift(x), self.kernel(weight), bias, count)
        return y if self.layer.rank == 2 else y[..., 0, :]

    def adjoint(self, s, weight, shape):
        size = shape[1:] if self.layer.rank == 2 else (1, *shape[1:])
        c = convolution.convolve_adjoint(lift(s), self.kernel(weight), self.windows, size, self.layer.groups)
        return c if self.layer.rank == 2 else c[:, :, 0]


class TransposedProducts(ConvProducts):
    """Of `Conv2DTranspose`."""

    def __init__(self, layer: Any) -> None:
        super().__init__(layer)
        self.channels_axis = None

    def map(self, x, weight, bias, count):
        size = self.layer.output_size(x.shape[2:])
        y = convolution.convolve_adjoint(x, weight, self.windows, size, self.layer.groups)
        return convolution.plus(y, bias)

    def adjoint(self, s, weight, shape):
        return convolution.convolve(s, weight, self.windows, self.layer.groups)


def _methods(kind: type) -> tuple:
    return tuple(getattr(kind, name) for name in ("forward", "relprop", "linear", "adjoint", "parameters"))


PRODUCTS: dict[tuple, type[Products]] = {
    _methods(Dense): DenseProducts,
    _methods(Conv2D): ConvProducts,
    _methods(Conv2DTranspose): TransposedProducts,
}
"""By the methods that a layer has: one that has others of its own, in any of them, is not known."""


@cache
def _kind(layer_kind: type) -> type[Products] | None:
    if not issubclass(layer_kind, (Dense, Conv)) or getattr(layer_kind, "rank", 1) > 2:
        return None
    return PRODUCTS.get(_methods(layer_kind))


def products_of(layer: Layer) -> Products | None:
    """The layer's primitives on the fast path, or None."""
    kind = _kind(type(layer))  # type: ignore[arg-type]
    return None if kind is None else kind(layer)


def matmul(x: np.ndarray, w: np.ndarray) -> np.ndarray:
    """``x @ w`` for any x and a matrix w: many rows in parts, few by columns of w.

    Examples
    --------
    >>> matmul(np.array([1.0, 2.0]), np.eye(2))
    array([1., 2.])
    """
    count, rows = w.shape[1], x.reshape(-1, w.shape[0])
    if w.size * (len(rows) + 16) < 2**23 or not len(rows):  # w is read once, whatever the rows
        return np.matmul(x, w)
    out = np.empty((len(rows), count), np.result_type(x, w))
    if len(rows) >= 64:
        each(lambda at: np.matmul(rows[at], w, out=out[at]), spread(len(rows), w.size))
        return out.reshape(*x.shape[:-1], count)
    size = -(-count // (4 * thread_count()))  # some parts for each thread: none is waited for long

    def part(start: int) -> None:  # this way around BLAS takes long rows of w, for few rows of x, fastest
        out[:, start : start + size] = np.matmul(w[:, start : start + size].T, rows.T).T

    each(part, ((start,) for start in range(0, count, size)))
    return out.reshape(*x.shape[:-1], count)
