"""Pooling: average and sum (linear), maximum (the winner takes all), and their global forms."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar

import numpy as np

from ..errors import LRPError, ShapeError
from ..pooling import (
    window_counts,
    window_max,
    window_max_adjoint,
    window_sum,
    window_sum_adjoint,
)
from ..windows import Windows
from .base import Array, Layer, Linear, Shape, integers, parameter
from .images import padding_option, size_option, sized, spatial


@dataclass(frozen=True, eq=False, repr=False)
class _Pool(Layer):
    """What the window poolings share."""

    kernel: Any
    stride: Any = None
    padding: Any = 0
    ceil: bool = False

    family: ClassVar[str] = "pool"
    rank: ClassVar[int] = 2

    def __post_init__(self) -> None:
        integers(self, "kernel", self.rank)
        if self.stride is None:
            object.__setattr__(self, "stride", self.kernel)
        integers(self, "stride", self.rank)
        padding_option(self)
        if not isinstance(self.padding, str):
            for k, pads in zip(self.kernel, self.padding):
                if max(pads) >= k:
                    raise ShapeError(
                        f"{type(self).__name__}: padding {pads} must be smaller than the kernel ({k}): "
                        "a window would see no pixel"
                    )

    @cached_property
    def windows(self) -> Windows:
        """Where the kernel is laid on an image."""
        return Windows(self.kernel, self.stride, padding=self.padding, ceil=self.ceil)

    def output_shape(self, shape: Shape) -> Shape:
        return (shape[0], *self.windows.output_size(spatial(self, shape)))


def _check_sign(layer: Any) -> None:
    parameter(layer, "sign", 1, optional=True)
    if layer.sign is not None and not np.isin(layer.sign, (-1, 1)).all():
        raise LRPError(f"{type(layer).__name__}: sign must be 1 or -1 for each channel, not {layer.sign}")


def _fits_sign(layer: Any, shape: Shape) -> None:
    if layer.sign is not None and len(layer.sign) != shape[0]:
        raise ShapeError(f"sign has {len(layer.sign)} values for {shape[0]} channels")


def signed(layer: Any, x: np.ndarray) -> np.ndarray:
    """The input with the channels negated whose minimum is sought."""
    if layer.sign is None:
        return x
    return x * layer.sign.astype(x.dtype, copy=False).reshape(-1, *(1,) * (x.ndim - 2))


@dataclass(frozen=True, eq=False, repr=False)
class MaxPool2D(_Pool):
    """Maximum of each window. Relevance goes to the winner; of equals, the first in row-major order.

    Parameters
    ----------
    kernel : int or (int, int)
    stride : int or (int, int), optional
        Default: the kernel.
    padding : int, (int, int), ((top, bottom), (left, right)), "valid" or "same"
        Padding never wins.
    ceil : bool
        Round the output size up; see `numpylrp.windows.Windows`.
    sign : (C,) array, optional
        -1 for a channel whose minimum is taken instead (what is left of a batch normalization with
        negative scale), 1 for the others.

    Examples
    --------
    >>> pool, x = MaxPool2D(2), np.array([[[[1.0, 5.0], [5.0, 2.0]]]])
    >>> pool.relprop(np.array([[[[3.0]]]]), x, pool.forward(x))
    array([[[[0., 3.],
             [0., 0.]]]])
    """

    sign: Array = None

    way_back: ClassVar[str] = "winner takes all"

    def __post_init__(self) -> None:
        super().__post_init__()
        _check_sign(self)

    def output_shape(self, shape: Shape) -> Shape:
        _fits_sign(self, shape)
        return super().output_shape(shape)

    def forward(self, x):
        return signed(self, window_max(signed(self, x), self.windows))

    def relprop(self, R, x, y, rule=None, note=None):
        return window_max_adjoint(R, signed(self, x), signed(self, y), self.windows)


@dataclass(frozen=True, eq=False, repr=False)
class MaxPool1D(MaxPool2D):
    """`MaxPool2D` on samples (C, W)."""

    rank: ClassVar[int] = 1


@dataclass(frozen=True, eq=False, repr=False)
class MaxPool3D(MaxPool2D):
    """`MaxPool2D` on samples (C, D, H, W)."""

    rank: ClassVar[int] = 3


@dataclass(frozen=True, eq=False, repr=False)
class SumPool2D(_Pool, Linear):
    """Sum of each window: linear, with weight 1. Padding counts as 0.

    Examples
    --------
    >>> SumPool2D(2).forward(np.array([[[[1.0, 5.0], [5.0, 2.0]]]]))
    array([[[[13.]]]])
    """

    def _counts(self, size: tuple[int, ...]) -> np.ndarray:
        """What each window's sum is divided by, (*out)."""
        return np.ones(self.windows.output_size(size))

    def parameters(self, shape):
        # One weight for each window, the same for all its pixels.
        return 1 / self._counts(spatial(self, shape)), None

    def linear(self, x, weight, bias):
        return window_sum(x, self.windows) * weight.astype(x.dtype, copy=False)

    def adjoint(self, s, weight, shape):
        s = s * weight.astype(s.dtype, copy=False)
        return window_sum_adjoint(s, self.windows, shape[1:])


@dataclass(frozen=True, eq=False, repr=False)
class SumPool1D(SumPool2D):
    """`SumPool2D` on samples (C, W)."""

    rank: ClassVar[int] = 1


@dataclass(frozen=True, eq=False, repr=False)
class SumPool3D(SumPool2D):
    """`SumPool2D` on samples (C, D, H, W)."""

    rank: ClassVar[int] = 3


@dataclass(frozen=True, eq=False, repr=False)
class AveragePool2D(SumPool2D):
    """Mean of each window.

    Parameters
    ----------
    kernel, stride, padding, ceil
        As in `MaxPool2D`.
    count_padding : bool
        Whether padded pixels count in the divisor (PyTorch's ``count_include_pad``, True by default
        there), or only those of the image do (TensorFlow and Keras). Overhang of `ceil` never counts.

    Examples
    --------
    >>> AveragePool2D(2, padding=((0, 0), (0, 1))).forward(np.array([[[[1.0, 5.0, 4.0], [5.0, 1.0, 2.0]]]]))
    array([[[[3., 3.]]]])
    """

    count_padding: bool = False

    def _counts(self, size):
        return window_counts(self.windows, size, self.count_padding)


@dataclass(frozen=True, eq=False, repr=False)
class AveragePool1D(AveragePool2D):
    """`AveragePool2D` on samples (C, W)."""

    rank: ClassVar[int] = 1


@dataclass(frozen=True, eq=False, repr=False)
class AveragePool3D(AveragePool2D):
    """`AveragePool2D` on samples (C, D, H, W)."""

    rank: ClassVar[int] = 3


def _reduced(layer: Any, shape: Shape) -> Shape:
    if len(shape) < 2:
        raise ShapeError(f"takes samples of shape (channels, *spatial), but the input has shape {shape}")
    return (shape[0], *(1,) * (len(shape) - 1)) if layer.keepdims else shape[:1]


def _flat(x: np.ndarray) -> np.ndarray:
    return x.reshape(*x.shape[:2], -1)


@dataclass(frozen=True, eq=False, repr=False)
class GlobalMaxPool(Layer):
    """Maximum over all positions of a channel; the first of the largest takes the relevance.

    Parameters
    ----------
    keepdims : bool
        Give (C, 1, 1) instead of (C,).
    sign : (C,) array, optional
        As in `MaxPool2D`.

    Examples
    --------
    >>> GlobalMaxPool().forward(np.array([[[[1.0, 5.0], [5.0, 2.0]]]]))
    array([[5.]])
    """

    keepdims: bool = False
    sign: Array = None

    family: ClassVar[str] = "pool"
    way_back: ClassVar[str] = "winner takes all"

    def __post_init__(self) -> None:
        _check_sign(self)

    def output_shape(self, shape: Shape) -> Shape:
        _fits_sign(self, shape)
        return _reduced(self, shape)

    def forward(self, x):
        y = _flat(signed(self, x)).max(-1)
        return signed(self, y.reshape(len(x), *_reduced(self, x.shape[1:])))

    def relprop(self, R, x, y, rule=None, note=None):
        back = np.zeros(_flat(x).shape, R.dtype)
        winner = _flat(signed(self, x)).argmax(-1)[..., None]
        np.put_along_axis(back, winner, R.reshape(winner.shape), -1)
        return back.reshape(x.shape)


@dataclass(frozen=True, eq=False, repr=False)
class GlobalSumPool(Linear):
    """Sum over all positions of a channel: linear, with weight 1. Options as `GlobalMaxPool`."""

    keepdims: bool = False

    family: ClassVar[str] = "pool"

    def output_shape(self, shape: Shape) -> Shape:
        return _reduced(self, shape)

    def parameters(self, shape):
        return np.ones(1), None

    def linear(self, x, weight, bias):
        y = _flat(x).sum(-1) * weight.astype(x.dtype, copy=False)
        return y.reshape(len(x), *_reduced(self, x.shape[1:]))

    def adjoint(self, s, weight, shape):
        s = s.reshape(*s.shape[:2], *(1,) * (len(shape) - 1)) * weight.astype(s.dtype, copy=False)
        return np.broadcast_to(s, (len(s), *shape))


@dataclass(frozen=True, eq=False, repr=False)
class GlobalAveragePool(GlobalSumPool):
    """Mean over all positions of a channel: linear, with weight 1 / positions.

    Examples
    --------
    >>> GlobalAveragePool().forward(np.array([[[[1.0, 5.0], [5.0, 1.0]]]]))
    array([[3.]])
    """

    def parameters(self, shape):
        return np.ones(1) / np.prod(shape[1:]), None


@dataclass(frozen=True, eq=False, repr=False)
class AdaptiveAveragePool(Linear):
    """Mean of windows that lie so that the output has a given size (PyTorch's adaptive pooling).

    Along an axis of n values, window i of o reaches from ``floor(i n / o)`` to ``ceil((i + 1) n / o)``;
    where o is no divisor of n, windows overlap and differ in size.

    Parameters
    ----------
    size : tuple of int
        Size of the output, one for each spatial axis.

    Examples
    --------
    >>> AdaptiveAveragePool((2,)).forward(np.array([[[1.0, 5.0, 9.0]]]))
    array([[[3., 7.]]])
    """

    size: Any

    family: ClassVar[str] = "pool"

    def __post_init__(self) -> None:
        size_option(self, 2)

    def output_shape(self, shape: Shape) -> Shape:
        return sized(self, shape)

    def _seen(self, shape: Shape) -> list[np.ndarray]:
        """For each axis which values each window sees, (o, n), 1 or 0; a free axis has n = 1 here."""
        seen = []
        for n, o in zip(shape[1:], self.size):
            first = np.arange(o) * n // o
            ends = -(-(np.arange(1, o + 1) * n) // o)
            at = np.arange(n)
            seen.append(((at >= first[:, None]) & (at < ends[:, None])).astype(float))
        return [np.ones((1, 1)), *seen][-2:]

    def parameters(self, shape):
        # One weight for each window, the same for all its values.
        rows, cols = self._seen(shape)
        return 1 / np.outer(rows.sum(1), cols.sum(1)), None

    def linear(self, x, weight, bias):
        rows, cols = (a.astype(x.dtype, copy=False) for a in self._seen(x.shape[1:]))
        y = rows @ (x if len(self.size) == 2 else x[:, :, None]) @ cols.T * weight.astype(x.dtype, copy=False)
        return y if len(self.size) == 2 else y[:, :, 0]

    def adjoint(self, s, weight, shape):
        rows, cols = (a.astype(s.dtype, copy=False) for a in self._seen(shape))
        s = s if len(self.size) == 2 else s[:, :, None]
        c = rows.T @ (s * weight.astype(s.dtype, copy=False)) @ cols
        return c if len(self.size) == 2 else c[:, :, 0]
