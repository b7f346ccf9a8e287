"""Maximum pooling along one axis after the other, spread over the threads."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from ..layers import MaxPool2D
from ..layers.pool import signed
from ..windows import Padding, Windows, crop
from .convolution import fitted, in_two_dimensions
from .products import lift
from .threads import each, thread_count

PLANES = 2**17
"""Values of one piece."""


def _padded(x: np.ndarray, pads: Padding) -> np.ndarray:
    """`x` surrounded by what never wins."""
    (top, bottom), (left, right) = pads
    if not (top or bottom or left or right):
        return x
    *lead, height, width = x.shape
    out = np.empty((*lead, height + top + bottom, width + left + right), x.dtype)
    out[..., :top, :] = out[..., top + height :, :] = -np.inf
    out[..., :left] = out[..., left + width :] = -np.inf
    out[..., top : top + height, left : left + width] = x
    return out


def _planes(images: int, channels: int, pixels: int) -> Iterator[tuple[slice, slice]]:
    """Cut a batch of images into (images, channels) of about `PLANES` values, as many for each thread."""
    total = images * channels * pixels
    count = -(-total // PLANES)
    if 2 * total > PLANES:
        count = -(-count // thread_count()) * thread_count()
    size = -(-channels // min(count, channels))
    together = max(1, PLANES // (size * pixels))
    for n in range(0, images, together):
        for c in range(0, channels, size):
            yield slice(n, n + together), slice(c, c + size)


def window_max(x: np.ndarray, g: Windows) -> np.ndarray:
    """Largest value of each window, of its columns first; padding never wins."""
    n, c, *size = x.shape
    ho, wo = fitted(g, tuple(size))[0]
    y = np.empty((n, c, ho, wo), x.dtype)
    pads = fitted(g, tuple(size))[1]

    def piece(*at: slice) -> None:
        seen = _padded(x[at], pads)
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
    pads = fitted(g, tuple(size))[1]
    back = np.empty((n, c, *(m + sum(p) for m, p in zip(size, pads))), s.dtype)

    def piece(*at: slice) -> None:
        seen = _padded(x[at], pads)
        across = np.empty((*seen.shape[:3], y.shape[3]), x.dtype)
        _largest(_along(seen, g, 1, y.shape[3]), across)
        rows = np.empty(across.shape, s.dtype)
        _to_first(s[at], y[at], across, g, 0, rows)
        _to_first(rows, across, seen, g, 1, back[at])

    each(piece, _planes(n, c, size[0] * size[1]))
    return crop(back, pads)


def _along(x: np.ndarray, g: Windows, axis: int, out: int) -> list[np.ndarray]:
    """What each tap meets along height (axis 0) or width (1), of padded `x` (views)."""
    step, distance = g.stride[axis], g.dilation[axis]
    at = (slice(k * distance, k * distance + (out - 1) * step + 1, step) for k in range(g.kernel[axis]))
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


def _forward(layer: Any, x: np.ndarray) -> np.ndarray:
    if layer.rank > 2:
        return MaxPool2D.forward(layer, x)
    g = in_two_dimensions(layer.windows)
    y = window_max(lift(signed(layer, x)), g)
    return signed(layer, y if layer.rank == 2 else y[:, :, 0])


def _relprop(
    layer: Any, R: np.ndarray, x: np.ndarray, y: np.ndarray, rule: Any = None, note: Any = None
) -> np.ndarray:
    if layer.rank > 2:
        return MaxPool2D.relprop(layer, R, x, y)
    g = in_two_dimensions(layer.windows)
    back = window_max_adjoint(lift(R), lift(signed(layer, x)), lift(signed(layer, y)), g)
    return back if layer.rank == 2 else back[:, :, 0]


FORWARD: dict[Callable, Callable] = {MaxPool2D.forward: _forward}
"""By the method of the layer that is answered here: a layer with another of its own is not known."""

RELPROP: dict[Callable, Callable] = {MaxPool2D.relprop: _relprop}
