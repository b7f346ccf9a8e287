"""Convolutions, in one and two dimensions, and the transposed convolution.

One-dimensional layers are the two-dimensional ones on images of height 1.
"""

from __future__ import annotations

import weakref
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, ClassVar

import numpy as np

from .. import im2col
from ..engine import derived
from ..errors import ShapeError
from ..windows import Windows
from .base import Linear, Shape, parameter, whole


def lift(x: np.ndarray) -> np.ndarray:
    """(N, C, W) as (N, C, 1, W): a view. Images stay as they are."""
    return x[:, :, None] if x.ndim == 3 else x


def _kernel(weight: np.ndarray) -> np.ndarray:
    """`lift` for a weight: no view, so that what is derived of it is kept with it."""
    return derived(weight, _lifted) if weight.ndim == 3 else weight


def _lifted(weight: np.ndarray) -> np.ndarray:
    return lift(weight).copy()


def windows(layer: Any, kernel: tuple[int, ...], ceil: bool = False) -> Windows:
    """The layer's windows in two dimensions."""
    stride, dilation, padding = layer.stride, getattr(layer, "dilation", (1, 1)), layer.padding
    if layer.rank == 1:
        kernel, stride, dilation = (1, *kernel), (1, *stride), (1, dilation[0])
        padding = padding if isinstance(padding, str) else ((0, 0), *padding)
    return Windows(tuple(kernel), stride, dilation, padding, ceil)


def padding_option(layer: Any) -> None:
    """Make ``layer.padding`` "same", "same_lower" or a pair (before, behind) for each axis."""
    given, rank = layer.padding, layer.rank
    name = type(layer).__name__
    if isinstance(given, str):
        if given not in ("same", "same_lower", "valid"):
            raise ShapeError(f"{name}: padding is to be 'same', 'same_lower' or 'valid', not {given!r}")
        value = ((0, 0),) * rank if given == "valid" else given
    else:
        pairs = tuple(given) if isinstance(given, (tuple, list, np.ndarray)) else (given,) * rank
        pairs = tuple(tuple(p) if isinstance(p, (tuple, list, np.ndarray)) else (p, p) for p in pairs)
        whole_numbers = all(isinstance(n, (int, np.integer)) for p in pairs for n in p)
        if not whole_numbers or len(pairs) != rank or not all(len(p) == 2 and min(p) >= 0 for p in pairs):
            raise ShapeError(
                f"{name}: padding is to be an integer, {rank} integers, {rank} pairs (before, behind), "
                f"none negative, 'same' or 'valid', not {given!r}"
            )
        value = tuple((int(a), int(b)) for a, b in pairs)
    object.__setattr__(layer, "padding", value)


def spatial(layer: Any, shape: Shape, channels: int | None = None) -> tuple:
    """Check a sample shape (C, *spatial) and return its spatial part lifted to two dimensions."""
    axes = "(channels, height, width)" if layer.rank == 2 else "(channels, width)"
    if len(shape) != layer.rank + 1:
        raise ShapeError(f"takes samples of shape {axes}, but the input has shape {shape}")
    if channels is not None and shape[0] != channels:
        raise ShapeError(f"takes {channels} channels, but the input has shape {shape}, read as {axes}")
    return shape[1:] if layer.rank == 2 else (1, *shape[1:])


_bias_maps: weakref.WeakKeyDictionary = weakref.WeakKeyDictionary()
"""Bias maps of layers with a tap_bias, for each sample shape: constants, computed once."""


@dataclass(frozen=True, eq=False, repr=False)
class _Conv(Linear):
    """What convolutions of one and two dimensions share."""

    weight: np.ndarray
    bias: np.ndarray | None = None
    stride: Any = 1
    padding: Any = 0
    dilation: Any = 1
    groups: int = 1
    tap_bias: np.ndarray | None = field(default=None, kw_only=True)
    border: Any = field(default=None, kw_only=True)

    family: ClassVar[str] = "conv"
    rank: ClassVar[int] = 2

    def __post_init__(self) -> None:
        parameter(self, "weight", self.rank + 2)
        parameter(self, "bias", 1, optional=True)
        whole(self, "stride", self.rank)
        whole(self, "dilation", self.rank)
        padding_option(self)
        name, outputs = type(self).__name__, self.channels[1]
        if not isinstance(self.groups, (int, np.integer)) or self.groups < 1:
            raise ShapeError(f"{name}: groups is to be an integer of at least 1, not {self.groups!r}")
        if self.weight.shape[0] % self.groups:
            raise ShapeError(
                f"{name}: weight {self.weight.shape} can't be cut into {self.groups} groups on its first axis"
            )
        if 0 in self.weight.shape:
            raise ShapeError(f"{name}: weight {self.weight.shape} is empty")
        if self.bias is not None and self.bias.shape[0] != outputs:
            raise ShapeError(
                f"{name}: weight {self.weight.shape} has {outputs} output channels, "
                f"but bias has shape {self.bias.shape}"
            )
        parameter(self, "tap_bias", self.rank + 1, optional=True)
        if self.tap_bias is not None and self.tap_bias.shape != (outputs, *self.weight.shape[2:]):
            raise ShapeError(
                f"{name}: tap_bias is to have shape {(outputs, *self.weight.shape[2:])}, "
                f"not {self.tap_bias.shape}"
            )

    def parameters(self, shape):
        if self.tap_bias is None:
            return self.weight, self.bias
        maps = _bias_maps.setdefault(self, {})
        if shape not in maps:
            image = np.zeros((1, 1, *shape[1:]), self.weight.dtype)
            border = self.border or ((0, 0),) * self.rank
            image[(..., *(slice(a, n - b) for n, (a, b) in zip(shape[1:], border)))] = 1
            # the same windows, on one channel of ones
            kernel = self.tap_bias[None] if isinstance(self, Conv2DTranspose) else self.tap_bias[:, None]
            taps = replace(self, weight=kernel, bias=self.bias, groups=1, tap_bias=None, border=None)
            maps[shape] = taps.forward(image)[0]
        return self.weight, maps[shape]

    @property
    def channels(self) -> tuple[int, int]:
        """Input and output channels."""
        return self.weight.shape[1] * self.groups, self.weight.shape[0]

    @property
    def channels_axis(self) -> int | None:
        return 1 if self.groups == 1 else None

    @cached_property
    def windows(self) -> Windows:
        return windows(self, self.weight.shape[2:])

    def output_shape(self, shape: Shape) -> Shape:
        size = self.windows.output_size(spatial(self, shape, self.channels[0]))
        return (self.channels[1], *size[2 - self.rank :])

    def _map(self, x, weight, bias, maps=0):
        return im2col.convolve(x, weight, self.windows, self.groups, bias, maps)

    def linear(self, x, weight, bias):
        return self.linear_maps(x, weight, bias, 0)

    def linear_maps(self, x, weight, bias, maps):
        bias = bias[:, None] if bias is not None and bias.ndim == 2 else bias
        y = self._map(lift(x), _kernel(weight), bias, maps)
        return y if self.rank == 2 else y[..., 0, :]

    def adjoint(self, s, weight, shape):
        size = spatial(self, shape)
        c = im2col.convolve_adjoint(lift(s), _kernel(weight), self.windows, size, self.groups, pairs=True)
        return c if self.rank == 2 else c[:, :, 0]


@dataclass(frozen=True, eq=False, repr=False)
class Conv2D(_Conv):
    """Two-dimensional convolution (as in deep learning: the kernel is not turned around).

    ``y[o, p, q] = b_o + sum_{c, i, j} w[o, c, i, j] x[c, p*sh + i*dh - top, q*sw + j*dw - left]``,
    where x is 0 outside the image.

    Parameters
    ----------
    weight : (O, C / groups, kh, kw) array
        A depthwise convolution with multiplier M has ``groups = C`` and O = C * M.
    bias : (O,) array, optional
    stride, dilation : int or (int, int)
    padding : int, (int, int), ((top, bottom), (left, right)), "valid", "same" or "same_lower"
        See `numpylrp.windows.Windows`.
    groups : int
    tap_bias : (O, kh, kw) array, optional
        A bias for each tap, which counts where the tap meets the image and not where it meets the
        zeros around: what is left of the shift of a batch normalization before a padded convolution.
        The bias is then a map, whose border differs from its inside.
    border : ((top, bottom), (left, right)), optional
        Rows and columns of the input that are zeros put around it, which `tap_bias` does not count.

    Examples
    --------
    >>> conv = Conv2D(np.ones((1, 1, 3, 3)), [0.5], stride=2, padding=((0, 1), (0, 1)))
    >>> conv.forward(np.ones((1, 1, 4, 4)))
    array([[[[9.5, 6.5],
             [6.5, 4.5]]]])
    """


@dataclass(frozen=True, eq=False, repr=False)
class Conv1D(_Conv):
    """One-dimensional convolution: `Conv2D` on samples (C, W), weight (O, C / groups, k).

    Examples
    --------
    >>> Conv1D([[[1.0, -1.0]]], padding=((1, 0),)).forward(np.array([[[1.0, 4.0, 9.0]]]))
    array([[[-1., -3., -5.]]])
    """

    rank: ClassVar[int] = 1


@dataclass(frozen=True, eq=False, repr=False)
class Conv2DTranspose(_Conv):
    """Transposed convolution: the adjoint of `Conv2D`, used to enlarge images.

    Every input pixel adds ``x * w`` to a window of the output; the windows lie as those of a
    convolution from the output to the input would.

    Parameters
    ----------
    weight : (C, O / groups, kh, kw) array
        The weight of the convolution that leads back, as PyTorch and ONNX write it.
    bias : (O,) array, optional
    stride, dilation : int or (int, int)
    padding : int, (int, int), ((top, bottom), (left, right)), "valid" or "same"
        Rows and columns cut off the output; "same" gives ``output = input * stride``.
    groups : int
    output_padding : int or (int, int)
        Rows and columns added at the bottom and right of the output (no effect with "same").

    Examples
    --------
    >>> up = Conv2DTranspose(np.ones((1, 1, 2, 2)), stride=2)
    >>> up.forward(np.array([[[[1.0, 2.0]]]]))
    array([[[[1., 1., 2., 2.],
             [1., 1., 2., 2.]]]])
    """

    output_padding: Any = 0

    channels_axis: ClassVar[int | None] = None

    def __post_init__(self) -> None:
        super().__post_init__()
        whole(self, "output_padding", self.rank, least=0)
        for more, stride in zip(self.output_padding, self.stride):
            if more >= stride and not isinstance(self.padding, str):
                raise ShapeError(
                    f"{type(self).__name__}: output_padding {more} is to be smaller than stride {stride}"
                )

    @property
    def channels(self) -> tuple[int, int]:
        return self.weight.shape[0], self.weight.shape[1] * self.groups

    def output_size(self, size: tuple[int | None, ...]) -> tuple[int | None, ...]:
        """Height and width of the output."""
        out, g = [], self.windows
        for axis, n in enumerate(size):
            span = g.dilation[axis] * (g.kernel[axis] - 1) + 1
            if n is None:
                out.append(None)
            elif isinstance(g.padding, str):
                out.append(n * g.stride[axis])
            else:
                extra = self.output_padding[axis] - sum(g.padding[axis])
                out.append((n - 1) * g.stride[axis] + span + extra)
                if out[-1] < 1:
                    raise ShapeError(f"padding {g.padding[axis]} leaves nothing of {n} pixels")
        return tuple(out)

    def output_shape(self, shape: Shape) -> Shape:
        return (self.channels[1], *self.output_size(spatial(self, shape, self.channels[0])))

    def _map(self, x, weight, bias, maps=0):
        size = self.output_size(x.shape[2:])
        y = im2col.convolve_adjoint(x, weight, self.windows, size, self.groups)
        return im2col.plus(y, bias)

    def adjoint(self, s, weight, shape):
        return im2col.convolve(s, weight, self.windows, self.groups)
