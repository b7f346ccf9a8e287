"""Windows of images as matrices, and back: convolution, and the way back through it.

Pure functions on arrays. Images are channels first, (N, C, *size), with one axis, two or three. A
convolution gives every output channel o, at every place p of the window, a sum over the C input
channels and the K taps of the kernel::

    y[n, o, p] = sum_{c, k} w[o, c, k] x[n, c, pixel that tap k meets at p]

Copying the windows side by side (im2col) makes this sum a matrix product. That matrix is K times larger
than the image, so it is built for some rows of one output image at a time: memory stays bounded, and what
comes out for an image does not depend on the others.
"""

from __future__ import annotations

from collections.abc import Iterator
from math import prod

import numpy as np

from .windows import Size, Windows, crop, pad, taps

PIECE_BYTES = 2**21
"""Size of the largest im2col matrix that is built (but for a single row that is larger)."""


def im2col(x: np.ndarray, g: Windows, out: Size) -> np.ndarray:
    """The windows of one padded image (C, *size) as columns, (C * K, P), P = prod(out).

    Examples
    --------
    >>> im2col(np.array([[1.0, 2.0, 3.0]]), Windows((2,)), (2,))
    array([[1., 2.],
           [2., 3.]])
    """
    return np.stack(list(taps(x, g, out)), axis=1).reshape(-1, prod(out))


def col2im(columns: np.ndarray, g: Windows, out: Size, image: np.ndarray) -> None:
    """The transposed map of `im2col`: add every column to the pixels of its window, in place."""
    columns = columns.reshape(len(image), prod(g.kernel), *out)
    for k, pixels in enumerate(taps(image, g, out)):
        pixels += columns[:, k]


def _pieces(g: Windows, channels: int, out: Size, itemsize: int) -> Iterator[tuple[slice, slice, Size]]:
    """Rows of the output, the padded rows of the input that they see, and the size of this part."""
    row = channels * prod(g.kernel) * prod(out[1:]) * itemsize
    step = max(1, PIECE_BYTES // row)
    for first in range(0, out[0], step):
        last = min(first + step, out[0])
        seen = slice(first * g.stride[0], (last - 1) * g.stride[0] + g.dilation[0] * (g.kernel[0] - 1) + 1)
        yield slice(first, last), seen, (last - first, *out[1:])


def convolve(x: np.ndarray, weight: np.ndarray, g: Windows, groups: int = 1) -> np.ndarray:
    """Cross-correlation, which deep learning calls convolution, with zero padding.

    Parameters
    ----------
    x : (N, C, *size) array
    weight : (O, C / groups, *kernel) array
    g : Windows
    groups : int
        Input and output channels are cut into this many groups, each seeing only its own.

    Returns
    -------
    (N, O, *out) array

    Examples
    --------
    >>> x = np.arange(9.0).reshape(1, 1, 3, 3)
    >>> convolve(x, np.ones((1, 1, 2, 2)), Windows((2, 2)))
    array([[[[ 8., 12.],
             [20., 24.]]]])
    """
    size, o = x.shape[2:], len(weight)
    out = g.output_size(size)
    w = weight.reshape(groups, o // groups, -1)
    y = np.empty((len(x), o, *out), np.result_type(x, weight))
    for into, image in zip(y, pad(x, g.pads(size))):
        for rows, seen, part in _pieces(g, len(image), out, x.itemsize):
            columns = im2col(image[:, seen], g, part).reshape(groups, w.shape[2], -1)
            into[:, rows] = (w @ columns).reshape(o, *part)
    return y


def convolve_adjoint(
    s: np.ndarray, weight: np.ndarray, g: Windows, size: Size, groups: int = 1
) -> np.ndarray:
    """The transposed map of `convolve`: from (N, O, *out) back to (N, C, *size).

    ``sum(convolve(x, w) * s) == sum(x * convolve_adjoint(s, w))`` for every x and s.

    Parameters
    ----------
    s : (N, O, *out) array
    weight, g, groups : as those of `convolve`
    size : tuple of int
        Size of the image to go back to, which a stride hides.

    Examples
    --------
    >>> convolve_adjoint(np.ones((1, 1, 2, 2)), np.ones((1, 1, 2, 2)), Windows((2, 2)), (3, 3))
    array([[[[1., 2., 1.],
             [2., 4., 2.],
             [1., 2., 1.]]]])
    """
    channels, out, pads = weight.shape[1] * groups, s.shape[2:], g.pads(size)
    w = weight.reshape(groups, len(weight) // groups, -1).swapaxes(1, 2)
    back = pad(np.zeros((len(s), channels, *size), np.result_type(s, weight)), pads)
    for into, image in zip(back, s):
        for rows, seen, part in _pieces(g, channels, out, s.itemsize):
            columns = w @ image[:, rows].reshape(groups, w.shape[2], -1)
            col2im(columns, g, part, into[:, seen])
    return crop(back, pads)
