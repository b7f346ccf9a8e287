"""Inputs whose explanation is known: mosaics, marks, own pixels, planted tokens, additive networks.

Each of the first four gives a `KnownTruth`: samples, the class to explain, and a mask of where its
relevance must lie. An additive network comes with the contribution of every value of its input.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..errors import LRPError, ShapeError
from ..layers import Dense, Flatten, ReLU
from ..network import Network
from .fills import generator
from .localization import grid_masks
from .maps import finite, masks_of, positions, whole_number


@dataclass
class KnownTruth:
    """Samples whose explanation is known.

    Attributes
    ----------
    x : (N, *sample) array
    target : (N,) int array
        The class to explain.
    mask : (N, *positions) bool array
        Where the relevance of this class must lie.
    cells : (N,) int array or None
        Of mosaics: the cell of the target.
    classes : (N, cells) int array or None
        Of mosaics: the class of each cell, row-major.
    sources : (N, cells) int array or None
        Of mosaics: the image in each cell, as its number in the images given.
    """

    x: np.ndarray
    target: np.ndarray
    mask: np.ndarray
    cells: np.ndarray | None = None
    classes: np.ndarray | None = None
    sources: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.x)


def _labels(labels: Any, count: int) -> np.ndarray:
    labels = np.asarray(labels)
    if labels.ndim == 0:
        labels = np.full(count, labels)
    if labels.shape != (count,) or labels.dtype.kind not in "iu" or (labels < 0).any():
        raise LRPError(f"classes must be integers of at least 0, one for each of the {count} samples")
    return labels.astype(int)


def _image_size(shape: tuple[int, ...], channels: int | None) -> tuple[int, int]:
    size = positions(shape, channels)
    if len(size) != 2 or len(shape) != (2 if channels is None else 3):
        raise ShapeError(
            f"images need two axes of positions; samples have shape {shape}, channels={channels}"
        )
    return size[0], size[1]


def mosaics(
    x: Any,
    labels: Any,
    count: int | None = None,
    grid: tuple[int, int] = (2, 2),
    seed: int = 0,
    channels: int | None = 0,
) -> KnownTruth:
    """Mosaics of images of different classes (grid pointing game, Boehle et al. 2021; recalled).

    Relevance for the class of one image must lie in its cell. The classes of a mosaic are drawn from all
    that there are, an image of each from those of the class; the cell to explain goes round.

    Parameters
    ----------
    x : (N, *image) array
    labels : (N,) int array
        The class of each image.
    count : int, optional
        Mosaics; by default as many as images.
    grid : (int, int)
        Rows and columns.
    seed : int
    channels : int or None
        The channel axis of an image.

    Returns
    -------
    KnownTruth
        Its images are ``grid`` times as large: for networks of free size, or with global pooling.

    Raises
    ------
    LRPError
        Images of fewer classes than a mosaic has cells.

    Examples
    --------
    >>> x = np.arange(4.0).reshape(4, 1, 1, 1) * np.ones((1, 1, 1, 2))
    >>> truth = mosaics(x, [5, 6, 7, 8], count=1, seed=2)
    >>> truth.x[0, 0], truth.classes, truth.target, truth.mask[0]
    (array([[3., 3., 2., 2.],
           [0., 0., 1., 1.]]), array([[8, 7, 5, 6]]), array([8]), array([[ True,  True, False, False],
           [False, False, False, False]]))
    """
    x = finite(x, "images")
    labels = _labels(labels, len(x))
    height, width = _image_size(x.shape[1:], channels)
    rows, columns = (whole_number(n, "grid") for n in grid)
    cells, known = rows * columns, np.unique(labels)
    count = len(x) if count is None else whole_number(count, "count")
    if cells < 2:
        raise LRPError("a mosaic needs two cells or more")
    if len(known) < cells:
        raise LRPError(
            f"a mosaic of {rows} x {columns} needs images of {cells} classes, but there are {len(known)}"
        )
    classes, sources = np.empty((count, cells), int), np.empty((count, cells), int)
    for n in range(count):
        rng = generator(seed, n, 0)
        classes[n] = rng.permutation(known)[:cells]
        sources[n] = [rng.choice(np.flatnonzero(labels == c)) for c in classes[n]]
    images = x[:, None] if channels is None else np.moveaxis(x, channels + 1, 1)
    tiles = images[sources].reshape(count, rows, columns, images.shape[1], height, width)
    whole = tiles.transpose(0, 3, 1, 4, 2, 5).reshape(count, images.shape[1], rows * height, columns * width)
    whole = whole[:, 0] if channels is None else np.ascontiguousarray(np.moveaxis(whole, 1, channels + 1))
    at = np.arange(count) % cells
    masks = grid_masks(at, (rows * height, columns * width), (rows, columns))
    return KnownTruth(whole, classes[np.arange(count), at], masks, at, classes, sources)


def marked(x: Any, target: Any, mark: Any, at: Any = (0, 0), channels: int | None = 0) -> KnownTruth:
    """Images with a mark put over them: for networks that were trained to rely on it (a Clever Hans).

    Parameters
    ----------
    x : (N, *image) array
    target : int, or (N,) int array
        The class that the mark stands for.
    mark : (h, w) array
        Its values, the same for all channels, or an array (C, h, w).
    at : (int, int), or (N, 2) int array
        Row and column of its top left corner, of all images or of each.
    channels : int or None
        The channel axis of an image.

    Returns
    -------
    KnownTruth
        Its mask is the mark.

    Raises
    ------
    LRPError
        A mark that reaches outside the image.

    Examples
    --------
    >>> marked(np.zeros((1, 1, 2, 3)), 7, [[1.0, 0.5]], at=(1, 1)).x[0, 0]
    array([[0. , 0. , 0. ],
           [0. , 1. , 0.5]])
    """
    x = finite(x, "images").copy()
    height, width = _image_size(x.shape[1:], channels)
    mark = finite(np.asarray(mark)[None], "the mark")[0]
    if mark.ndim not in (2, 3):
        raise ShapeError(f"a mark has rows and columns, or channels before them, not shape {mark.shape}")
    h, w = mark.shape[-2:]
    corners = np.broadcast_to(np.asarray(at), (len(x), 2))
    if corners.dtype.kind not in "iu":
        raise LRPError(f"a mark's place must be two integers, row and column, not {at!r:.80}")
    masks = np.zeros((len(x), height, width), bool)
    images = x[:, None] if channels is None else np.moveaxis(x, channels + 1, 1)  # a view
    for n, (top, left) in enumerate(corners.tolist()):
        if not (0 <= top <= height - h and 0 <= left <= width - w):
            raise LRPError(
                f"a mark of {h} x {w} at ({top}, {left}) reaches outside the image of {height} x {width}"
            )
        images[n, :, top : top + h, left : left + w] = mark
        masks[n, top : top + h, left : left + w] = True
    return KnownTruth(x, _labels(target, len(x)), masks)


def own_pixels(x: Any, target: Any, threshold: float = 0.0, channels: int | None = 0) -> KnownTruth:
    """Images on an empty background, the mask being the object's own pixels: any channel above `threshold`.

    That relevance lies on the object is what one expects of a digit; a network may use the background too.

    Parameters
    ----------
    x : (N, *image) array
    target : int, or (N,) int array
    threshold : float
    channels : int or None
        The channel axis of an image.

    Raises
    ------
    LRPError
        An image with nothing above the threshold.

    Examples
    --------
    >>> own_pixels([[[0.0, 0.2], [0.9, 0.0]]], 3, 0.5, channels=None).mask
    array([[[False, False],
            [ True, False]]])
    """
    x = finite(x, "images")
    above = x > threshold
    above = above if channels is None else above.any(channels + 1)
    return KnownTruth(x, _labels(target, len(x)), masks_of(above, above.shape, "the image"))


def planted(count: int, length: int = 24, tokens: int = 40, seed: int = 0) -> KnownTruth:
    """Sequences of tokens, all of them noise but two that decide the class together.

    One of the tokens 0 and 1 and one of the tokens 2 and 3 stand somewhere in each sequence, in either order;
    the class is 0 for (0, 2), 1 for (0, 3), 2 for (1, 2) and 3 for (1, 3). All else is drawn from the other
    tokens. Each of the two alone leaves two classes: a network that is right has seen both, and its mask
    are these two places.

    Parameters
    ----------
    count : int
        N.
    length : int
        T, at least 2.
    tokens : int
        Size of the vocabulary, at least 5.
    seed : int

    Returns
    -------
    KnownTruth
        x is (N, T), of integers.

    Examples
    --------
    >>> made = planted(3, length=5)
    >>> made.x[made.mask].reshape(3, 2).shape, made.x.shape
    ((3, 2), (3, 5))
    """
    count, length = whole_number(count, "count"), whole_number(length, "length", 2)
    tokens = whole_number(tokens, "tokens", 5)
    rng = np.random.default_rng(seed)
    x = rng.integers(4, tokens, (count, length))
    first, second = rng.integers(0, 2, (2, count))
    places = np.argsort(rng.random((count, length)), 1)[:, :2]
    np.put_along_axis(x, places, np.stack([first, 2 + second], 1), 1)
    return KnownTruth(x, 2 * first + second, x < 4)


WAVES = ((-16, 4.0, 0.15), (-3, 1.2, -0.1), (0, 1.6, 1.0), (3, 1.4, -0.2), (25, 7.0, 0.3))
"""P, Q, R, S and T of a beat: when (hundredths of a second from R), how wide and how high."""
EARLY = ((0, 4.5, 1.2), (9, 4.0, -0.4), (30, 8.0, -0.35))
"""The same of an early beat: wide, without P, its T turned around."""


def heartbeats(count: int, length: int = 400, seed: int = 0) -> KnownTruth:
    """Electrocardiograms drawn from a formula, half of them with one beat that comes early (class 1).

    A beat is a sum of Gaussian curves; there is noise and a slow drift. An early beat comes a third too
    early, is wide, has no P wave, and its T wave is turned around, as a ventricular extrasystole. One value
    is a hundredth of a second. No patient was measured.

    Parameters
    ----------
    count : int
        N.
    length : int
        T, at least 300.
    seed : int

    Returns
    -------
    KnownTruth
        x is (N, T, 1); the mask is the early beat, empty for class 0.

    Examples
    --------
    >>> made = heartbeats(4)
    >>> made.x.shape, bool((made.mask.any(1) == made.target).all())
    ((4, 400, 1), True)
    """
    count, length = whole_number(count, "count"), whole_number(length, "length", 300)
    rng = np.random.default_rng(seed)
    time = np.arange(length)
    x, mask = 0.02 * rng.standard_normal((count, length)), np.zeros((count, length), bool)
    target = rng.permutation(np.arange(count) % 2)
    for n in range(count):
        period = rng.uniform(70, 95)
        beats = (
            rng.uniform(0, period) + period * np.arange(length // 70 + 1) + rng.normal(0, 2, length // 70 + 1)
        )
        x[n] += 0.1 * np.sin(2 * np.pi * time / rng.uniform(250, 500) + rng.uniform(0, 6))
        inner = np.flatnonzero((beats > 90) & (beats < length - 60))
        early = rng.choice(inner) if target[n] else -1
        for k, beat in enumerate(beats):
            at = beat - period / 3 if k == early else beat
            for when, width, height in EARLY if k == early else WAVES:
                x[n] += height * np.exp(-(((time - at - when) / width) ** 2) / 2)
            if k == early:
                mask[n] = (time > at - 14) & (time < at + 50)
    return KnownTruth(x[:, :, None], target, mask)


@dataclass
class Additive:
    """A network whose output is a sum of functions of single values, ``f_t(x) = sum_i c_ti(x_i)``.

    ``c_ti(v) = sum_k w_tik max(0, a_ik v)``, so that c_ti(0) = 0. The contribution of x_i to f_t(x) is
    c_ti(x_i), whatever is asked: what is lost when x_i becomes 0, its Shapley value against 0, its
    integrated gradient from 0, its relevance by LRP-0.

    Attributes
    ----------
    network : Network
    slopes : (I, K) array
        a_ik of unit k of value i.
    weights : (classes, I, K) array
        w_tik.
    """

    network: Network
    slopes: np.ndarray
    weights: np.ndarray

    def contributions(self, x: Any, target: Any) -> np.ndarray:
        """c_ti(x_i) for the class of each sample: an array of the shape of x.

        Examples
        --------
        >>> made = additive_network((3,), classes=2)
        >>> x = np.array([[0.5, -1.0, 2.0]])
        >>> bool(np.isclose(made.contributions(x, 1).sum(), made.network.forward(x)[0, 1]))
        True
        """
        x = finite(x, "inputs")
        units = np.maximum(x.reshape(len(x), -1, 1) * self.slopes, 0)
        return np.einsum("nik,nik->ni", units, self.weights[_labels(target, len(x))]).reshape(x.shape)


def additive_network(shape: tuple[int, ...], classes: int = 3, units: int = 4, seed: int = 0) -> Additive:
    """A random additive network, without biases.

    Parameters
    ----------
    shape : tuple of int
        Sample shape of the input.
    classes, units : int
        Outputs, and ReLU units for each value of the input.
    seed : int

    Examples
    --------
    >>> print(additive_network((1, 2, 2), units=3).network)
    layer    kind     reads    output  parameters
    flatten  Flatten  input    4
    units    Dense    flatten  12      48
    relu     ReLU     units    12
    sum      Dense    relu     3       36
    """
    rng = generator(seed, 0, 0)
    count = math.prod(shape)
    slopes = rng.standard_normal((count, units))
    weights = rng.standard_normal((classes, count, units))
    own = (np.eye(count)[:, None, :] * slopes[:, :, None]).reshape(count * units, count)
    network = Network(
        [
            ("flatten", Flatten()),
            ("units", Dense(own)),
            ("relu", ReLU()),
            ("sum", Dense(weights.reshape(classes, -1))),
        ],
        input_shape=shape,
    )
    return Additive(network, slopes, weights)
