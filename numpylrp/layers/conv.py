"""Convolutions in one, two and three dimensions."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, ClassVar

import numpy as np

from ..im2col import convolve, convolve_adjoint
from ..windows import Windows, crop
from .base import Array, Linear, Shape, integers, parameter
from .images import check_kernel, padding_option, plus, spatial


@dataclass(frozen=True, eq=False, repr=False)
class Conv(Linear):
    """A convolution in `rank` dimensions; see `Conv2D`."""

    weight: Array
    bias: Array = None
    stride: Any = 1
    padding: Any = 0
    dilation: Any = 1
    groups: int = 1
    tap_bias: Array = field(default=None, kw_only=True)
    border: Any = field(default=None, kw_only=True)

    family: ClassVar[str] = "conv"
    rank: ClassVar[int] = 2

    def __post_init__(self) -> None:
        parameter(self, "weight", self.rank + 2)
        parameter(self, "bias", 1, optional=True)
        parameter(self, "tap_bias", self.rank + 1, optional=True)
        integers(self, "stride", self.rank)
        integers(self, "dilation", self.rank)
        padding_option(self)
        check_kernel(self)

    @property
    def channels(self) -> tuple[int, int]:
        """Input and output channels."""
        return self.weight.shape[1] * self.groups, self.weight.shape[0]

    @cached_property
    def windows(self) -> Windows:
        """Where the kernel is laid on an image."""
        return Windows(self.weight.shape[2:], self.stride, self.dilation, self.padding)

    def output_shape(self, shape: Shape) -> Shape:
        return (self.channels[1], *self.windows.output_size(spatial(self, shape, self.channels[0])))

    def parameters(self, shape):
        return self.weight, self.bias if self.tap_bias is None else self.bias_map(shape)

    def bias_map(self, shape: Shape) -> np.ndarray:
        """The bias of each output unit, with `tap_bias` counted where a tap meets the image."""
        image = np.zeros((1, 1, *shape[1:]), self.weight.dtype)
        border = self.border or ((0, 0),) * self.rank
        crop(image, border)[...] = 1
        return plus(self._taps_on(image), self.bias)[0]

    def _taps_on(self, image: np.ndarray) -> np.ndarray:
        return convolve(image, self.tap_bias[:, None], self.windows)

    def forward(self, x):
        return self.linear(x, *self.parameters(x.shape[1:]))

    def relprop(self, R, x, y, rule=None, note=None):
        return rule.propagate(self, R, x, y, note)

    def linear(self, x, weight, bias):
        return plus(convolve(x, weight, self.windows, self.groups), bias)

    def adjoint(self, s, weight, shape):
        return convolve_adjoint(s, weight, self.windows, shape[1:], self.groups)


@dataclass(frozen=True, eq=False, repr=False)
class Conv2D(Conv):
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
        A bias for each tap, which counts where the tap meets the image, not the zeros around it: the
        shift of a batch normalization before a padded convolution. The bias is then a map.
    border : ((top, bottom), (left, right)), optional
        Rows and columns of the input that are zeros put around it, not counted by `tap_bias`.

    Examples
    --------
    >>> conv = Conv2D(np.ones((1, 1, 3, 3)), [0.5], stride=2, padding=((0, 1), (0, 1)))
    >>> conv.forward(np.ones((1, 1, 4, 4)))
    array([[[[9.5, 6.5],
             [6.5, 4.5]]]])
    """


@dataclass(frozen=True, eq=False, repr=False)
class Conv1D(Conv):
    """One-dimensional convolution: `Conv2D` on samples (C, W), weight (O, C / groups, k).

    Examples
    --------
    >>> Conv1D([[[1.0, -1.0]]], padding=((1, 0),)).forward(np.array([[[1.0, 4.0, 9.0]]]))
    array([[[-1., -3., -5.]]])
    """

    rank: ClassVar[int] = 1


@dataclass(frozen=True, eq=False, repr=False)
class Conv3D(Conv):
    """Three-dimensional convolution: `Conv2D` on samples (C, D, H, W), weight (O, C / groups, kd, kh, kw).

    Examples
    --------
    >>> Conv3D(np.ones((1, 1, 2, 2, 2))).forward(np.ones((1, 1, 2, 2, 2)))
    array([[[[[8.]]]]])
    """

    rank: ClassVar[int] = 3
