"""Where the windows of an image lie, and what they do one by one: sums and maxima.

Pure functions on arrays. Beside `im2col`, which makes matrices of windows, the only room that knows
strides, padding and dilation. Images are channels first, ``(N, C, H, W)``.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from .engine import each, threads
from .errors import ShapeError

PLANES = 2**17
"""Values of one piece."""

Size = tuple[int, int]
Padding = tuple[tuple[int, int], tuple[int, int]]


@dataclass(frozen=True)
class Windows:
    """Where the windows of a two-dimensional layer lie.

    Parameters
    ----------
    kernel, stride, dilation : (int, int)
        Along height and width.
    padding : ((top, bottom), (left, right)) or "same" or "same_lower"
        Rows and columns added around the image. ``"same"`` makes the output
        ``ceil(size / stride)`` and puts an odd row or column behind (TensorFlow, and PyTorch, which
        allows it for stride 1 only); ``"same_lower"`` puts it before (ONNX).
    ceil : bool
        Round the output size up, with windows hanging over the end, as pooling in PyTorch and
        ONNX can. A window that would start behind the padded image is left out.

    Examples
    --------
    >>> Windows((3, 3), (2, 2), (1, 1), "same").output_size((28, 28))
    (14, 14)
    >>> Windows((3, 3), (2, 2), (1, 1), "same").pads((28, 28))
    ((0, 1), (0, 1))
    """

    kernel: Size
    stride: Size = (1, 1)
    dilation: Size = (1, 1)
    padding: Padding | str = ((0, 0), (0, 0))
    ceil: bool = False

    def _axis(self, size: int | None, axis: int) -> tuple[int | None, int, int]:
        """Output size, padding before and padding behind (overhang included) of one axis."""
        k, s, d = self.kernel[axis], self.stride[axis], self.dilation[axis]
        span = d * (k - 1) + 1
        if size is None:
            return None, 0, 0
        if isinstance(self.padding, str):
            out = -(-size // s)
            total = max((out - 1) * s + span - size, 0)
            less = total // 2
            return (out, less, total - less) if self.padding == "same" else (out, total - less, less)
        before, behind = self.padding[axis]
        room = size + before + behind - span
        if room < 0:
            raise ShapeError(
                f"a window spanning {span} does not fit into {size} + {before} + {behind} "
                f"({'height' if axis == 0 else 'width'} + padding)"
            )
        out = room // s + 1
        if self.ceil and room % s and out * s < size + before:
            return out + 1, before, behind + s - room % s
        return out, before, behind

    def output_size(self, size: tuple[int | None, int | None]) -> tuple[int | None, int | None]:
        """Number of windows along height and width (None where the size is None)."""
        return fitted(self, tuple(size))[0]

    def pads(self, size: Size) -> Padding:
        """Padding for an image of this size, the overhang of ``ceil`` included."""
        return fitted(self, tuple(size))[1]


@lru_cache(maxsize=1024)
def fitted(g: Windows, size: Size) -> tuple[Size, Padding]:
    """Output size and padding for images of this size."""
    (rows, *vertical), (cols, *horizontal) = (g._axis(m, axis) for axis, m in enumerate(size))
    return (rows, cols), (tuple(vertical), tuple(horizontal))


def pad(x: np.ndarray, pads: Padding, value: float = 0.0) -> np.ndarray:
    """`x` with rows and columns of `value` around its last two axes (`x` itself if none)."""
    (top, bottom), (left, right) = pads
    if not (top or bottom or left or right):
        return x
    *lead, height, width = x.shape
    out = np.empty((*lead, height + top + bottom, width + left + right), x.dtype)
    out[..., :top, :] = out[..., top + height :, :] = value
    out[..., :left] = out[..., left + width :] = value
    out[..., top : top + height, left : left + width] = x
    return out


def crop(x: np.ndarray, pads: Padding) -> np.ndarray:
    """The part of `x` that `pad` had surrounded (a view)."""
    (top, bottom), (left, right) = pads
    return x[..., top : x.shape[-2] - bottom, left : x.shape[-1] - right]


def taps(x: np.ndarray, g: Windows, out: Size) -> Iterator[tuple[int, int, np.ndarray]]:
    """For each tap (i, j), in row-major order, the pixels of padded `x` that it meets (a view)."""
    for i in range(g.kernel[0]):
        for j in range(g.kernel[1]):
            top, left = i * g.dilation[0], j * g.dilation[1]
            rows = slice(top, top + (out[0] - 1) * g.stride[0] + 1, g.stride[0])
            cols = slice(left, left + (out[1] - 1) * g.stride[1] + 1, g.stride[1])
            yield i, j, x[..., rows, cols]


def window_sum(x: np.ndarray, g: Windows) -> np.ndarray:
    """Sum of `x` over each window, (N, C, H, W) -> (N, C, Ho, Wo); padding counts as 0."""
    size = x.shape[-2:]
    out = g.output_size(size)
    y = np.zeros((*x.shape[:-2], *out), x.dtype)
    for _, _, pixels in taps(pad(x, g.pads(size)), g, out):
        y += pixels
    return y


def window_sum_adjoint(s: np.ndarray, g: Windows, size: Size) -> np.ndarray:
    """The transposed map of `window_sum`: every window hands its `s` to each of its pixels."""
    pads = g.pads(size)
    back = np.zeros((*s.shape[:-2], *(m + sum(p) for m, p in zip(size, pads))), s.dtype)
    for _, _, pixels in taps(back, g, s.shape[-2:]):
        pixels += s
    return crop(back, pads)


@lru_cache(maxsize=256)
def window_counts(g: Windows, size: Size, padding: bool) -> np.ndarray:
    """How many pixels each window sees, (Ho, Wo): those of the image, or with `padding` all but the
    overhang of ``ceil``.
    """
    counts = []
    for axis, n in enumerate(size):
        out, before, behind = g._axis(n, axis)
        if not isinstance(g.padding, str):
            behind = g.padding[axis][1]
        low, high = (-before, n + behind) if padding else (0, n)
        taps = np.arange(g.kernel[axis]) * g.dilation[axis]
        position = np.arange(out)[:, None] * g.stride[axis] - before + taps
        counts.append(((position >= low) & (position < high)).sum(1))
    counted = np.outer(*counts).astype(float)
    counted.flags.writeable = False
    return counted


def _planes(images: int, channels: int, pixels: int) -> Iterator[tuple[slice, slice]]:
    """Cut a batch of images into (images, channels) of about `PLANES` values, as many for each thread."""
    total = images * channels * pixels
    count = -(-total // PLANES)
    if 2 * total > PLANES:
        count = -(-count // threads()) * threads()
    size = -(-channels // min(count, channels))
    together = max(1, PLANES // (size * pixels))
    for n in range(0, images, together):
        for c in range(0, channels, size):
            yield slice(n, n + together), slice(c, c + size)


def window_max(x: np.ndarray, g: Windows) -> np.ndarray:
    """Largest value of each window, of its columns first; padding never wins."""
    n, c, *size = x.shape
    ho, wo = g.output_size(size)
    y = np.empty((n, c, ho, wo), x.dtype)
    pads = g.pads(size)

    def piece(*at: slice) -> None:
        seen = pad(x[at], pads, -np.inf)
        columns = np.empty((*seen.shape[:2], ho, seen.shape[3]), x.dtype)
        _largest(_along(seen, g, 0, ho), columns)
        _largest(_along(columns, g, 1, wo), y[at])

    each(piece, _planes(n, c, size[0] * size[1]))
    return y


def window_max_adjoint(s: np.ndarray, x: np.ndarray, y: np.ndarray, g: Windows) -> np.ndarray:
    """Hand each window's `s` to its largest pixel, of equals to the first in row-major order.

    First to the row of the window that it lies in, then to the pixel.
    """
    n, c, *size = x.shape
    pads = g.pads(size)
    back = np.empty((n, c, *(m + sum(p) for m, p in zip(size, pads))), s.dtype)

    def piece(*at: slice) -> None:
        seen = pad(x[at], pads, -np.inf)
        across = np.empty((*seen.shape[:3], y.shape[3]), x.dtype)
        _largest(_along(seen, g, 1, y.shape[3]), across)
        rows = np.empty(across.shape, s.dtype)
        _to_first(s[at], y[at], across, g, 0, rows)
        _to_first(rows, across, seen, g, 1, back[at])

    each(piece, _planes(n, c, size[0] * size[1]))
    return crop(back, pads)


def _along(x: np.ndarray, g: Windows, axis: int, out: int) -> list[np.ndarray]:
    """What each tap meets along height (axis 0) or width (1), of padded `x` (views)."""
    step, apart = g.stride[axis], g.dilation[axis]
    at = (slice(k * apart, k * apart + (out - 1) * step + 1, step) for k in range(g.kernel[axis]))
    return [x[..., part, :] if axis == 0 else x[..., part] for part in at]


def _largest(values: list[np.ndarray], out: np.ndarray) -> None:
    """Write the largest of each place of several arrays."""
    np.maximum(values[0], values[-1], out=out)
    for more in values[1:-1]:
        np.maximum(out, more, out=out)


def _to_first(s: np.ndarray, best: np.ndarray, x: np.ndarray, g: Windows, axis: int, out: np.ndarray) -> None:
    """Write `s` of windows along one axis to where `x` is `best` first, and 0 elsewhere."""
    count = best.shape[axis - 2]
    taps, places = _along(x, g, axis, count), _along(out, g, axis, count)
    overlap = g.dilation[axis] * (g.kernel[axis] - 1) >= g.stride[axis]
    if overlap or len(places) * places[0].size < out.size:
        out.fill(0)
    left = s
    for pixels, place in zip(taps[:-1], places):
        first = np.ascontiguousarray(pixels) == best  # calculating across gaps is slow
        share = left * first
        place[...] = place + share if overlap else share
        left = np.subtract(left, share, out=share)
    places[-1][...] = places[-1] + left if overlap else left
