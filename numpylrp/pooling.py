"""Sums and maxima of the windows of an image, and the way back through them.

Pure functions on arrays, (N, C, *size) with one axis, two or three.
"""

from __future__ import annotations

from functools import lru_cache, reduce

import numpy as np

from .windows import Size, Windows, crop, pad, taps


def window_sum(x: np.ndarray, g: Windows) -> np.ndarray:
    """Sum of `x` over each window, (N, C, *size) -> (N, C, *out); padding counts as 0."""
    size = x.shape[2:]
    out = g.output_size(size)
    y = np.zeros((*x.shape[:2], *out), x.dtype)
    for pixels in taps(pad(x, g.pads(size)), g, out):
        y += pixels
    return y


def window_sum_adjoint(s: np.ndarray, g: Windows, size: Size) -> np.ndarray:
    """The transposed map of `window_sum`: every window hands its `s` to each of its pixels."""
    pads = g.pads(size)
    back = pad(np.zeros((*s.shape[:2], *size), s.dtype), pads)
    for pixels in taps(back, g, s.shape[2:]):
        pixels += s
    return crop(back, pads)


@lru_cache(maxsize=256)
def window_counts(g: Windows, size: Size, padding: bool) -> np.ndarray:
    """How many pixels each window sees: those of the image, or with `padding` all but the overhang of
    ``ceil``.
    """
    counts = []
    for axis, n in enumerate(size):
        out, before, after = g.along(n, axis)
        if not isinstance(g.padding, str):
            after = g.padding[axis][1]
        low, high = (-before, n + after) if padding else (0, n)
        position = np.arange(out)[:, None] * g.stride[axis] - before
        position = position + np.arange(g.kernel[axis]) * g.dilation[axis]
        counts.append(((position >= low) & (position < high)).sum(1))
    counted = reduce(np.multiply.outer, counts).astype(float)
    counted.flags.writeable = False
    return counted


def window_max(x: np.ndarray, g: Windows) -> np.ndarray:
    """Largest value of each window; padding never wins."""
    size = x.shape[2:]
    out = g.output_size(size)
    y = np.full((*x.shape[:2], *out), -np.inf, x.dtype)
    for pixels in taps(pad(x, g.pads(size), -np.inf), g, out):
        np.maximum(y, pixels, out=y)
    return y


def window_max_adjoint(s: np.ndarray, x: np.ndarray, y: np.ndarray, g: Windows) -> np.ndarray:
    """Hand each window's `s` to its largest pixel, of equals to the first in row-major order."""
    pads = g.pads(x.shape[2:])
    back = pad(np.zeros(x.shape, s.dtype), pads)
    left = np.array(s)
    for pixels, place in zip(taps(pad(x, pads, -np.inf), g, y.shape[2:]), taps(back, g, y.shape[2:])):
        winner = pixels == y
        place += np.where(winner, left, 0)
        left[winner] = 0
    return crop(back, pads)
