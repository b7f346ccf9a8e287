"""Convolutions in pieces that stay in a core's cache, spread over the threads.

The same sums as `numpylrp.im2col`, on images (N, C, H, W). Copying the windows of some output units
side by side makes them a matrix product; the output is computed in pieces whose matrix takes at most
`PIECE_BYTES`. Which way a convolution is computed depends on its weight and on the size of one image,
never on the number of images or threads.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from functools import lru_cache
from math import prod
from typing import NamedTuple

import numpy as np

from ..windows import Padding, Size, Windows, crop, pad, taps
from .kept import derived
from .threads import each, spread, thread_count

PIECE_BYTES = 2**21
"""Largest im2col matrix of one piece, in bytes: about what stays in a core's cache."""

THREAD_WORK = 2**23
"""Multiplications from which the product of one image is worth several threads."""

COLUMNS = 384
"""Fewer columns than this leave the processor waiting for the weights."""

BY_COLUMNS = 2**18
"""Multiplications of one image from which it is worth to go by columns of the kernel."""

FEW_OUTPUTS = 16
"""Outputs for which a column is as expensive to copy in short pieces as to multiply; half as many, as to
copy it several times.
"""

SMALL = 128
"""Images with fewer pixels lie side by side in one matrix product."""


@lru_cache(maxsize=1024)
def fitted(g: Windows, size: Size) -> tuple[Size, Padding]:
    """Output size and padding for images of this size."""
    return g.output_size(size), g.pads(size)


@lru_cache(maxsize=1024)
def in_two_dimensions(g: Windows) -> Windows:
    """The windows on images of height 1, for one dimension."""
    if len(g.kernel) == 2:
        return g
    padding = g.padding if isinstance(g.padding, str) else ((0, 0), *g.padding)
    return Windows((1, *g.kernel), (1, *g.stride), (1, *g.dilation), padding, g.ceil)


class Strip(NamedTuple):
    """Images side by side in memory, one row of `values` (C, ...) a channel.

    Image n begins at n * image, its rows are `wide` apart. Behind rows and images lie gaps of zeros
    that are padding to both neighbours, so that windows may reach over the end of a row: shifted by a
    tap, the windows of all pixels of an image are again one strip.
    """

    values: np.ndarray
    images: int
    image: int
    wide: int


def _strip(x: np.ndarray, rows: slice, g: Windows, pads: Padding) -> Strip:
    """What these rows of the output see of images x (N, C, H, W), from the first tap of the first."""
    n, c, height, width = x.shape
    (top, _), (left, right) = pads
    first = rows.start * g.stride[0] - top
    last = (rows.stop - 1) * g.stride[0] + g.dilation[0] * (g.kernel[0] - 1) + 1 - top
    low, high = (min(max(0, row), height) for row in (first, last))
    above = min(last - first, max(0, -first))
    below = last - first - above - (high - low)
    tall, wide = high - low + max(above, below), width + max(left, right)
    start = left + above * wide
    values = np.zeros((c, start + n * tall * wide), x.dtype)
    body = values[:, start:].reshape(c, n, tall, wide)
    body[:, :, : high - low, :width] = x[:, :, low:high].swapaxes(0, 1)
    return Strip(values, n, tall * wide, wide)


def _strided(a: np.ndarray, shape: tuple[int, ...], *steps: int, start: int = 0) -> np.ndarray:
    """A view with these steps, in values; they may overlap, so it is for reading.

    As numpy.lib.stride_tricks.as_strided, which is slow for small pieces.
    """
    return np.ndarray(shape, a.dtype, a, start * a.itemsize, [step * a.itemsize for step in steps])


def _columns(strip: Strip, g: Windows, out: Size, outputs: int, tail: int = 0) -> tuple[np.ndarray, int]:
    """im2col: the windows of `out` output rows and columns, copied, (C * kh * kw, N * pixels + tail).

    A row of the output takes as many pixels as the number returned beside it: with those between its
    end and the next row's beginning where to copy them too is faster, for a product of few `outputs`.
    Behind them all is a tail of zeros.
    """
    rows, cols = out
    pixels: Size
    along: Size
    size = strip.values.shape[1]
    shape, steps = (
        (len(strip.values), *g.kernel, strip.images),
        (size, g.dilation[0] * strip.wide, g.dilation[1]),
    )
    wide, pixels, along = cols, (rows, cols), (g.stride[0] * strip.wide, g.stride[1])
    if g.stride == (1, 1) and 0 <= outputs * (strip.wide - cols) <= FEW_OUTPUTS * cols:
        wide, pixels, along = strip.wide, ((rows - 1) * strip.wide + cols,), (1,)
    length = strip.images * prod(pixels)
    columns = np.empty((prod(shape[:3]), length + tail), strip.values.dtype)
    columns[:, length:] = 0
    windows = columns[:, :length].reshape(*shape, *pixels)
    windows[...] = _strided(strip.values, windows.shape, *steps, strip.image, *along)
    return columns, wide


def _pixels(product: np.ndarray, images: int, out: Size, wide: int, tail: int = 0, at: int = 0) -> np.ndarray:
    """Products of `_columns`, (O, ...), as images, (N, O, rows, columns), from place `at` on: a view."""
    o, length = product.shape
    return _strided(product, (images, o, *out), (length - tail) // images, length, wide, 1, start=at)


def _pieces(images: int, out: Size, column_bytes: int, work: int) -> Iterator[tuple[slice, slice]]:
    """Cut a batch's output into (images, rows) whose columns take about `PIECE_BYTES`.

    `work` are the multiplications for a whole image. Large images are cut by rows, but not into fewer
    than `COLUMNS`, unless for the threads; small ones are taken several at a time.
    """
    columns = max(COLUMNS, PIECE_BYTES // max(1, column_bytes))
    cuts = -(-out[0] // max(1, columns // out[1]))
    if images == 1 and work > THREAD_WORK:
        cuts = -(-cuts // thread_count()) * thread_count()
    rows = -(-out[0] // cuts)
    together = PIECE_BYTES // (column_bytes * out[0] * out[1])
    together = max(1, min(together, -(-images // thread_count())))
    for n in range(0, images, together):
        for r in range(0, out[0], rows):
            yield slice(n, min(n + together, images)), slice(r, min(r + rows, out[0]))


def convolve(
    x: np.ndarray,
    weight: np.ndarray,
    g: Windows,
    groups: int = 1,
    bias: np.ndarray | None = None,
    maps: int = 0,
) -> np.ndarray:
    """Cross-correlation, which deep learning calls convolution, with zero padding.

    Parameters
    ----------
    x : (N, C, H, W) array
    weight : (O, C / groups, kh, kw) array
    g : Windows
    groups : int
        Input and output channels are cut into this many groups, each seeing only its own.
    bias : (O,) or (O, Ho, Wo) array, optional
        Added to every image.
    maps : int, optional
        The weight is that of so many convolutions, one after the other, whose outputs must lie apart;
        for one group.

    Returns
    -------
    (N, O, Ho, Wo) array, or with maps (maps, N, O / maps, Ho, Wo)

    Examples
    --------
    >>> x = np.arange(9.0).reshape(1, 1, 3, 3)
    >>> convolve(x, np.ones((1, 1, 2, 2)), Windows((2, 2)))
    array([[[[ 8., 12.],
             [20., 24.]]]])
    """
    n, c, *size = x.shape
    count, o = max(maps, 1), weight.shape[0]
    (ho, wo), pads = fitted(g, tuple(size))
    y = np.empty((count, n, o // count, ho, wo), np.result_type(x, weight))
    columnwise = by_columns(weight, g, groups, pads, (ho, wo))
    w = derived(weight, _kernel_columns) if columnwise else weight.reshape(groups, o // groups, -1)
    if bias is not None:
        bias = bias.reshape(count, o // count, *(bias.shape[1:] or (1, 1)))
    if g.kernel == (1, 1) and groups == 1:
        x = pad(x, pads)[:, :, :: g.stride[0], :: g.stride[1]].reshape(n, c, ho * wo)
        for k, into in enumerate(y):
            _matmul(w[0].reshape(count, -1, c)[k], x, into.reshape(n, -1, ho * wo))
            plus(into, None if bias is None else bias[k])
        return y if maps else y[0]

    def piece(images: slice, rows: slice, part: slice) -> None:
        kernels = w[part]
        inputs, outputs = (slice(part.start * k // groups, part.stop * k // groups) for k in (c, o))
        into = y[:, images, outputs, rows].swapaxes(0, 1)  # several maps have one group: all outputs
        here = into.shape[3:]
        strip = _strip(x[images, inputs], rows, g, pads)
        if columnwise:
            terms = _by_columns(strip, kernels, g, here)
        else:
            columns, wide = _columns(strip, g, here, o // groups)
            product = np.matmul(kernels, columns.reshape(len(kernels), w.shape[2], -1))
            terms = [_pixels(product.reshape(-1, columns.shape[1]), strip.images, here, wide)]
        terms = [term.reshape(into.shape) for term in terms]
        if bias is not None:
            terms.append(bias[:, outputs, rows] if bias.shape[2] > 1 else bias[:, outputs])
        if len(terms) == 1:
            into[...] = terms[0]
        else:
            np.add(terms[0], terms[1], out=into)
        for term in terms[2:]:
            into += term

    bytes_each = w.shape[2] * x.itemsize
    together = max(1, min(groups, PIECE_BYTES // (2 * bytes_each * ho * wo)))
    work = together * weight[0].size * (o // groups) * ho * wo
    pieces = list(_pieces(n, (ho, wo), together * bytes_each, work))
    each(piece, ((*at, slice(k, k + together)) for k in range(0, groups, together) for at in pieces))
    return y if maps else y[0]


def by_columns(weight: np.ndarray, g: Windows, groups: int, pads: Padding, out: Size) -> bool:
    """Whether `_by_columns` can do it and is faster.

    It copies kh values a channel instead of kh * kw, but calculates, for kw * O outputs, also with what
    lies between the rows of the output.
    """
    (o, c), (kh, kw) = weight.shape[:2], g.kernel
    fits = groups == 1 and kw > 1 and g.stride[1] == 1 and o * kw <= c * kh
    between = g.dilation[1] * (kw - 1) - min(pads[1])
    few = 0 <= 2 * o * between <= FEW_OUTPUTS * out[1]
    return fits and few and weight.size * prod(out) >= BY_COLUMNS


def _kernel_columns(weight: np.ndarray) -> np.ndarray:
    """The columns of kernels one after the other, (1, kw * O, C * kh)."""
    return np.ascontiguousarray(weight.transpose(3, 0, 1, 2)).reshape(1, -1, weight[0, ..., 0].size)


def _by_columns(strip: Strip, kernel: np.ndarray, g: Windows, out: Size) -> list[np.ndarray]:
    """A convolution as the sum of those with each column of the kernel: what is left to add up.

    One product computes all of these for all pixels; those that belong together lie apart by as much as
    the columns do. So the rows of windows are copied, not their columns. What lies after the end of a
    row is the padding of the next one, or the tail: zeros.
    """
    kw, step = g.kernel[1], g.dilation[1]
    down, reach = Windows((g.kernel[0], 1), (g.stride[0], 1), (g.dilation[0], 1)), step * (kw - 1)
    columns, wide = _columns(strip, down, (out[0], strip.wide), 0, reach)
    length = columns.shape[1]
    products = np.matmul(kernel[0], columns).reshape(kw, -1, length)
    first = products[0, :, : length - reach]
    for k in range(1, kw - 1):
        first += products[k, :, k * step : k * step + length - reach]
    return [_pixels(products[k], strip.images, out, wide, reach, k * step) for k in (0, kw - 1)]


def plus(y: np.ndarray, bias: np.ndarray | None) -> np.ndarray:
    """`y` with `bias`, one value or one map a channel, added in place."""
    if bias is not None:
        y += bias if bias.ndim == 3 else bias[:, None, None]
    return y


def convolve_adjoint(
    s: np.ndarray, weight: np.ndarray, g: Windows, size: Size, groups: int = 1
) -> np.ndarray:
    """The transposed map of `convolve`: from (N, O, Ho, Wo) back to (N, C, H, W).

    ``sum(convolve(x, w) * s) == sum(x * convolve_adjoint(s, w))`` for every x and s.

    Parameters
    ----------
    s : (N, O, Ho, Wo) array
    weight : (O, C / groups, kh, kw) array
        The weight of `convolve`, not transposed.
    g : Windows
    size : (H, W)
        Size of the image to go back to: a stride hides it.
    groups : int

    Examples
    --------
    >>> convolve_adjoint(np.ones((1, 1, 2, 2)), np.ones((1, 1, 2, 2)), Windows((2, 2)), (3, 3))
    array([[[[1., 2., 1.],
             [2., 4., 2.],
             [1., 2., 1.]]]])
    """
    n, o, ho, wo = s.shape
    c = weight.shape[1] * groups
    dtype = np.result_type(s, weight)
    pads = fitted(g, tuple(size))[1]
    w = weight.reshape(groups, o // groups, -1).transpose(0, 2, 1)
    if g.kernel == (1, 1) and groups == 1 and g.stride == (1, 1) and not np.any(pads):
        back = np.empty((n, c, ho * wo), dtype)
        _matmul(w[0], s.reshape(n, o, ho * wo), back)
        return back.reshape(n, c, *size)
    alone = all(1 in steps for steps in zip(g.stride, g.dilation))
    if alone and ((g.stride == (1, 1) and 4 * c >= o) or c == groups > 1):
        # Windows are copied, not added up. Not for a few channels: there are O windows to copy.
        return _gathered(s, weight, g, size, groups)
    back = np.zeros((n, groups, c // groups, *(m + sum(p) for m, p in zip(size, pads))), dtype)
    split = w.reshape(groups, c // groups, weight[0, 0].size, o // groups)
    span = g.dilation[0] * (g.kernel[0] - 1) + 1

    def piece(images: slice, channels: slice, rows: slice) -> None:
        # Windows overlap: all that is added to one place is added here, by one thread.
        own = back[images, :, channels, rows]
        weights = split[:, channels].reshape(groups, -1, o // groups)
        first = max(0, (rows.start - span) // g.stride[0] + 1)  # of the windows that meet these rows
        last = min(ho, (rows.stop - 1) // g.stride[0] + 1)
        start = first * g.stride[0]
        whole = own.shape[3] == back.shape[3]
        into = own if whole else np.zeros((*own.shape[:3], rows.stop - start + span, own.shape[4]), dtype)
        row_bytes = len(own) * weights[..., 0].size * wo * s.itemsize
        height = max(1, PIECE_BYTES // row_bytes)
        for top in range(first, last, height):
            bottom = min(top + height, last)
            columns = _product(weights, s[images, :, top:bottom])
            columns = columns.reshape(*own.shape[:3], prod(g.kernel), bottom - top, wo)
            at = top * g.stride[0] - start
            for k, pixels in enumerate(taps(into[..., at:, :], g, (bottom - top, wo))):
                pixels += columns[:, :, :, k]
        if not whole:
            own[...] = into[..., rows.start - start : rows.stop - start, :]

    bytes_each = groups * weight[0, 0].size * s.itemsize
    work = weight.size * ho * wo
    each(piece, _back_pieces(n, (ho, wo), c // groups, work, bytes_each, back.shape[3], span))
    return crop(back.reshape(n, c, *back.shape[3:]), pads)


def _product(w: np.ndarray, s: np.ndarray) -> np.ndarray:
    """`w` (groups, K, O) times the pixels of `s` (N, groups * O, H, W), as (N, groups, K, pixels).

    Small images lie side by side in one matrix product: one with few columns leaves the processor idle.
    """
    (groups, _, o), (n, _, *size) = w.shape, s.shape
    pixels = size[0] * size[1]
    if n == 1 or pixels >= SMALL:
        return np.matmul(w, s.reshape(n, groups, o, pixels))
    columns = s.reshape(n, groups, o, pixels).transpose(1, 2, 0, 3).reshape(groups, o, n * pixels)
    return np.matmul(w, columns).reshape(groups, -1, n, pixels).transpose(2, 0, 1, 3)


def _gathered(s: np.ndarray, weight: np.ndarray, g: Windows, size: Size, groups: int) -> np.ndarray:
    """`convolve_adjoint` as a convolution with the kernel turned around.

    With a stride as one for each remainder of rows and columns by it, with the taps that reach those.
    """
    if g.stride != (1, 1):
        back = np.zeros((len(s), weight.shape[1] * groups, *size), np.result_type(s, weight))
    for at in itertools.product(*map(range, g.stride)):
        kernel = tuple(-(-(k - a) // step) for k, a, step in zip(g.kernel, at, g.stride))  # taps that reach
        pixels, seen, padding = [], [], []
        for axis, (m, (before, _)) in enumerate(zip(size, fitted(g, tuple(size))[1])):
            reach = g.dilation[axis] * (kernel[axis] - 1)
            low = -(-(before - at[axis]) // g.stride[axis])  # the first window, from where padding ends
            pixel = low * g.stride[axis] + at[axis] - before
            high = low + -(-(m - pixel) // g.stride[axis])
            pixels.append(slice(pixel, None, g.stride[axis]))
            seen.append(slice(max(0, low - reach), max(0, high)))
            padding.append((max(0, reach - low), max(0, high - s.shape[2 + axis])))
        part = s[:, :, *seen]
        if min(*part.shape, *kernel) < 1:
            continue  # no tap, or no window, reaches these
        around = Windows(kernel, (1, 1), g.dilation, tuple(padding))
        y = convolve(part, derived(weight, _turned, groups, at, g.stride), around, groups)
        if g.stride == (1, 1):
            return y
        back[:, :, *pixels] = y
    return back


def _turned(weight: np.ndarray, groups: int, at: Size = (0, 0), stride: Size = (1, 1)) -> np.ndarray:
    """The kernels of the way back: turned around, from outputs to inputs; those taps from `at` on."""
    weight = weight[:, :, at[0] :: stride[0], at[1] :: stride[1]]
    o, c, kh, kw = weight.shape
    turned = weight.reshape(groups, o // groups, c, kh, kw).swapaxes(1, 2)[..., ::-1, ::-1]
    return np.ascontiguousarray(turned).reshape(groups * c, o // groups, kh, kw)


def _matmul(w: np.ndarray, x: np.ndarray, out: np.ndarray) -> None:
    """``out[n] = w @ x[n]``, in pieces of images, or of columns where there is one image."""
    if len(x) > 1:
        each(lambda rows: np.matmul(w, x[rows], out=out[rows]), spread(len(x), out[0].size))
    else:
        each(lambda at: np.matmul(w, x[0, :, at], out=out[0, :, at]), spread(x.shape[2], out.shape[1]))


def _back_pieces(
    images: int, out: Size, channels: int, work: int, bytes_each: int, height: int, span: int
) -> Iterator[tuple[slice, slice, slice]]:
    """Cut a way back into (images, channels, rows): enough pieces for the threads, small ones together.

    Rows are cut where there are a few channels only; windows across a cut are computed twice.
    """
    pixels = out[0] * out[1]
    together = max(SMALL // pixels, PIECE_BYTES // (bytes_each * channels * pixels))
    together = max(1, min(together, -(-images // thread_count())))
    size = max(1, min(channels, PIECE_BYTES // max(1, bytes_each * pixels * together)))
    rows = height
    if channels <= 8:
        size = channels
    if images == 1 and work > THREAD_WORK:
        if channels <= 8:
            rows = max(8 * span, -(-height // thread_count()))
        else:
            size = min(size, -(-channels // thread_count()))
    for n in range(0, images, together):
        for c in range(0, channels, size):
            for r in range(0, height, rows):
                yield (
                    slice(n, min(n + together, images)),
                    slice(c, min(c + size, channels)),
                    slice(r, min(r + rows, height)),
                )
