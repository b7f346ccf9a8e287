"""Where the windows of an image lie: kernel, stride, dilation, padding.

Pure functions on arrays, for convolution (`im2col`) and pooling (`pooling`). Images are channels
first, (N, C, *size), with one axis, two or three.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from .errors import ShapeError

Size = tuple[int, ...]
Padding = tuple[tuple[int, int], ...]
AXES = {1: ("width",), 2: ("height", "width"), 3: ("depth", "height", "width")}


@dataclass(frozen=True)
class Windows:
    """Where the windows of a layer lie.

    Parameters
    ----------
    kernel, stride, dilation : tuple of int
        One for each axis; strides and dilations are 1 by default.
    padding : ((before, after), ...) or "same" or "same_lower"
        Pixels added on each axis, by default none. ``"same"`` makes the output
        ``ceil(size / stride)`` and puts an odd pixel after (TensorFlow, and PyTorch, which
        allows it for stride 1 only); ``"same_lower"`` puts it before (ONNX).
    ceil : bool
        Round the output size up, with windows hanging over the end, as pooling in PyTorch and
        ONNX can. A window that would start after the padded image is left out.

    Examples
    --------
    >>> Windows((3, 3), (2, 2), padding="same").output_size((28, 28))
    (14, 14)
    >>> Windows((3, 3), (2, 2), padding="same").pads((28, 28))
    ((0, 1), (0, 1))
    """

    kernel: Size
    stride: Size = ()
    dilation: Size = ()
    padding: Padding | str = ()
    ceil: bool = False

    def __post_init__(self) -> None:
        rank = len(self.kernel)
        for name, default in (("stride", (1,)), ("dilation", (1,)), ("padding", ((0, 0),))):
            if not getattr(self, name):
                object.__setattr__(self, name, default * rank)

    def along(self, size: Any, axis: int) -> tuple[Any, int, int]:
        """Output size, padding before and padding after (overhang included) of one axis."""
        k, s, d = self.kernel[axis], self.stride[axis], self.dilation[axis]
        span = d * (k - 1) + 1
        if size is None:
            return None, 0, 0
        if isinstance(self.padding, str):
            out = -(-size // s)
            total = max((out - 1) * s + span - size, 0)
            less = total // 2
            return (out, less, total - less) if self.padding == "same" else (out, total - less, less)
        before, after = self.padding[axis]
        room = size + before + after - span
        if room < 0:
            name = AXES[len(self.kernel)][axis]
            raise ShapeError(
                f"a window spanning {span} does not fit into {size} + {before} + {after} ({name} + padding)"
            )
        out = room // s + 1
        if self.ceil and room % s and out * s < size + before:
            return out + 1, before, after + s - room % s
        return out, before, after

    def output_size(self, size: tuple[Any, ...]) -> tuple[Any, ...]:
        """Number of windows along each axis (None where the size is None)."""
        return tuple(self.along(n, axis)[0] for axis, n in enumerate(size))

    def pads(self, size: Size) -> Padding:
        """Padding for an image of this size, the overhang of ``ceil`` included."""
        return tuple(self.along(n, axis)[1:] for axis, n in enumerate(size))


def pad(x: np.ndarray, pads: Padding, value: float = 0.0) -> np.ndarray:
    """`x` with `value` around its last axes (`x` itself if there is none)."""
    if not np.any(pads):
        return x
    widths = [(0, 0)] * (x.ndim - len(pads)) + list(pads)
    return np.pad(x, widths, constant_values=x.dtype.type(value))


def crop(x: np.ndarray, pads: Padding) -> np.ndarray:
    """The part of `x` that `pad` had surrounded (a view)."""
    axes = x.shape[x.ndim - len(pads) :]
    inside: Any = tuple(slice(before, n - after) for n, (before, after) in zip(axes, pads))
    return x[..., *inside]


def taps(x: np.ndarray, g: Windows, out: Size) -> Iterator[np.ndarray]:
    """For each tap of the kernel, in row-major order, the pixels of padded `x` that it meets (views)."""
    for tap in itertools.product(*map(range, g.kernel)):
        starts = [k * d for k, d in zip(tap, g.dilation)]
        ends = [a + (n - 1) * s + 1 for a, n, s in zip(starts, out, g.stride)]
        met: Any = map(slice, starts, ends, g.stride)
        yield x[..., *met]
