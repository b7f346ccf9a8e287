"""The transposed convolution, which enlarges images."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ..errors import ShapeError
from ..im2col import convolve, convolve_adjoint
from .base import Shape, integers
from .conv import Conv
from .images import plus, spatial


@dataclass(frozen=True, eq=False, repr=False)
class Conv2DTranspose(Conv):
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
    >>> import numpy as np
    >>> up = Conv2DTranspose(np.ones((1, 1, 2, 2)), stride=2)
    >>> up.forward(np.array([[[[1.0, 2.0]]]]))
    array([[[[1., 1., 2., 2.],
             [1., 1., 2., 2.]]]])
    """

    output_padding: Any = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        integers(self, "output_padding", self.rank, least=0)
        for more, stride in zip(self.output_padding, self.stride):
            if more >= stride and not isinstance(self.padding, str):
                raise ShapeError(
                    f"{type(self).__name__}: output_padding {more} must be smaller than stride {stride}"
                )

    @property
    def channels(self) -> tuple[int, int]:
        return self.weight.shape[0], self.weight.shape[1] * self.groups

    def output_size(self, size: tuple[Any, ...]) -> tuple[Any, ...]:
        """Height and width of the output."""
        g = self.windows
        out: list[Any] = []
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

    def _taps_on(self, image):
        return convolve_adjoint(image, self.tap_bias[None], self.windows, self.output_size(image.shape[2:]))

    def linear(self, x, weight, bias):
        size = self.output_size(x.shape[2:])
        return plus(convolve_adjoint(x, weight, self.windows, size, self.groups), bias)

    def adjoint(self, s, weight, shape):
        return convolve(s, weight, self.windows, self.groups)
