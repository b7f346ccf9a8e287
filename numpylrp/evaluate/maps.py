"""Relevance as maps of an image: what every measure checks and counts in the same way.

A *sample* has the shape of the network's input. Its *positions* are the pixels of an image, the steps
of a signal or the values of a vector; an image has several channels at each position. A *map* is the
relevance of the positions, summed over channels. A *region* is a block of positions with all channels.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from ..errors import LRPError, NonFiniteError, ShapeError
from ..layers import CopyPadding, Identity, Slice, Transpose, UpSampling, ZeroPadding
from ..network import Network

PARTS = ("all", "positive", "negative", "absolute")
"""What of a map may be measured: R, max(R, 0), max(-R, 0) or |R|."""

AUTO = "auto"


def channels_axis(network: Network, name: str | None = None) -> int | None:
    """The axis of a sample along which an input's channels lie; None where each position has one value.

    It is read off the network: the first convolution or pooling has its channels on the first axis, and
    a transpose before it says where they come from. Where there is none, three axes are an image, with
    channels first unless only the last axis has 1 or 3 entries; one or two axes have no channels.

    Parameters
    ----------
    network : Network
    name : str, optional
        The input, of a network with several; by default the first.

    Examples
    --------
    >>> from numpylrp.layers import Conv1D, Transpose
    >>> layers = [("last", Transpose((1, 0))), ("conv", Conv1D(np.ones((1, 3, 1))))]
    >>> channels_axis(Network(layers, input_shape=(8, 3)))
    1
    """
    name = next(iter(network.inputs)) if name is None else name
    shape = network.inputs[name]
    axes = list(range(len(shape)))  # of the input, in the order in which the layer sees them
    while len(shape) > 1 and (readers := network.readers(name)):
        name, layer = readers[0].name, readers[0].layer
        if isinstance(layer, Transpose):
            axes = [axes[a] for a in layer.axes]
        elif layer.family in ("conv", "pool"):
            return axes[0]
        elif layer.family not in ("activation", "norm") and not isinstance(
            layer, (Identity, ZeroPadding, CopyPadding, Slice, UpSampling)
        ):
            break
    if len(shape) < 3:
        return None
    return 2 if shape[0] not in (1, 3) and shape[2] in (1, 3) else 0


def checked_axis(channels: Any, network: Network, name: str) -> int | None:
    """`channels` as an axis of a sample, or None; "auto" asks the network."""
    if isinstance(channels, str) and channels == AUTO:
        return channels_axis(network, name)
    rank = len(network.inputs[name])
    if channels is None:
        return None
    if not isinstance(channels, (int, np.integer)) or isinstance(channels, bool) or not 0 <= channels < rank:
        raise LRPError(
            f"channels must be an axis of a sample (0 .. {rank - 1}), None or 'auto', not {channels!r}"
        )
    if rank == 1:
        raise LRPError("a sample with one axis has positions only: channels must be None or 'auto'")
    return int(channels)


def heatmaps(R: Any, channels: int | None = 0, part: str = "all") -> np.ndarray:
    """Maps of relevance: summed over channels, and of that the part that is asked for.

    Parameters
    ----------
    R : (N, *sample) array
    channels : int or None
        The axis of a sample to sum over; None for samples without channels.
    part : str
        "all", "positive" (max(R, 0)), "negative" (max(-R, 0)) or "absolute" (|R|) of the sum.

    Returns
    -------
    (N, *positions) array

    Raises
    ------
    NonFiniteError
        NaN or infinity in R.

    Examples
    --------
    >>> heatmaps(np.array([[[1.0, -3.0], [1.0, 1.0]]])), heatmaps([[2.0, -1.0]], None, "negative")
    (array([[ 2., -2.]]), array([[0., 1.]]))
    """
    R = finite(R, "relevance")
    if channels is not None:
        if not 0 <= channels < R.ndim - 1:
            raise ShapeError(f"relevance of shape {R.shape} has no axis {channels} in its samples")
        R = R.sum(channels + 1)
    return of_part(R, part)


def of_part(R: np.ndarray, part: str) -> np.ndarray:
    """R, max(R, 0), max(-R, 0) or |R|."""
    chosen(part, PARTS, "part")
    if part == "all":
        return R
    return np.abs(R) if part == "absolute" else np.maximum(R if part == "positive" else -R, 0)


def chosen(value: Any, known: Any, what: str) -> None:
    """Refuse a name that is not known."""
    if not isinstance(value, str) or value not in known:
        raise LRPError(f"{what} must be one of {', '.join(known)}, not {value!r}")


def whole_number(value: Any, what: str, least: int = 1, most: int | None = None) -> int:
    """An integer from `least` to `most`, or an error."""
    whole = isinstance(value, (int, np.integer)) and not isinstance(value, bool)
    if not whole or value < least or (most is not None and value > most):
        limits = f"of at least {least}" if most is None else f"from {least} to {most}"
        raise LRPError(f"{what} must be an integer {limits}, not {value!r}")
    return int(value)


def finite(values: Any, what: str) -> np.ndarray:
    """Numbers as an array of floats (N, ...), none of them NaN or infinite, N at least 1."""
    try:
        array = np.asarray(values)
        if array.dtype.kind not in "fiub":
            raise TypeError
    except (TypeError, ValueError):
        raise LRPError(f"{what} must be an array of numbers") from None
    if array.ndim < 2 or 0 in array.shape:
        raise ShapeError(
            f"{what} must have samples first, then their axes, none empty, not shape {array.shape}"
        )
    if array.dtype.kind != "f":
        return array.astype(np.float64)
    if not np.isfinite(array).all():
        first = int(np.argwhere(~np.isfinite(array))[0, 0])
        raise NonFiniteError(f"{what} has NaN or infinity, first in sample {first}")
    return array


def same_samples(R: np.ndarray, x: np.ndarray) -> np.ndarray:
    """Relevance, if it has the shape of the input that it belongs to."""
    if R.shape != x.shape:
        raise ShapeError(f"relevance has shape {R.shape}, but the input has {x.shape}")
    return R


def positions(shape: tuple[int, ...], channels: int | None) -> tuple[int, ...]:
    """The shape of a sample without its channels."""
    return tuple(n for axis, n in enumerate(shape) if axis != channels)


def regions(size: tuple[int, ...], region: Any) -> np.ndarray:
    """The number of the region that each position belongs to, row-major from the first corner.

    Where a region does not divide an axis, the last ones on it are smaller.

    Parameters
    ----------
    size : tuple of int
        Positions along each axis.
    region : int or tuple of int
        Positions of a region along each axis; one number for all axes.

    Raises
    ------
    ShapeError
        A region larger than the image, or sizes that are not positive integers.

    Examples
    --------
    >>> regions((2, 5), (1, 2))
    array([[0, 0, 1, 1, 2],
           [3, 3, 4, 4, 5]])
    """
    given = tuple(region) if isinstance(region, (tuple, list, np.ndarray)) else (region,) * len(size)
    whole = all(isinstance(n, (int, np.integer)) and not isinstance(n, bool) and n >= 1 for n in given)
    if len(given) != len(size) or not whole:
        raise ShapeError(f"region must be an integer of at least 1, or {len(size)} of them, not {region!r}")
    if any(r > n for r, n in zip(given, size)):
        raise ShapeError(f"a region of {_by(given)} is larger than the image of {_by(size)} positions")
    labels = np.zeros(size, int)
    for axis, (r, n) in enumerate(zip(given, size)):
        at = (np.arange(n) // r).reshape(-1, *(1,) * (len(size) - axis - 1))
        labels = labels * -(-n // r) + at
    return labels


def region_sums(maps: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """The sum of a map over each region: (N, *positions) -> (N, regions)."""
    order = np.argsort(labels, axis=None, kind="stable")
    starts = np.searchsorted(labels.ravel()[order], np.arange(labels.max() + 1))
    return np.add.reduceat(maps.reshape(len(maps), -1)[:, order], starts, axis=1)


def masks_of(masks: Any, shape: tuple[int, ...], what: str = "relevance") -> np.ndarray:
    """Masks as booleans of this shape, each with a position inside.

    Raises
    ------
    ShapeError
        Another shape.
    LRPError
        Values other than 0 and 1 (or booleans), or a mask that is empty.
    """
    array = np.asarray(masks)
    if array.shape != tuple(shape):
        hint = " (sum over channels first: heatmaps)" if array.ndim < len(shape) else ""
        raise ShapeError(f"masks have shape {array.shape}, but {what} has {tuple(shape)}{hint}")
    if array.dtype.kind not in "fiub" or not np.isin(array, (0, 1)).all():
        raise LRPError("masks must be booleans, or 0 and 1")
    array = array.astype(bool)
    empty = np.flatnonzero(~array.reshape(len(array), -1).any(1))
    if len(empty):
        raise LRPError(f"the mask of sample {empty[0]} is empty ({len(empty)} of {len(array)} are)")
    return array


def box_masks(boxes: Any, size: tuple[int, int]) -> np.ndarray:
    """Masks of boxes.

    Parameters
    ----------
    boxes : (N, 4) array, or N sequences of boxes
        Each (top, left, bottom, right): rows ``top .. bottom - 1`` and columns ``left .. right - 1``.
        A sample with several boxes has all of them inside.
    size : (int, int)
        Height and width of the image.

    Returns
    -------
    (N, H, W) bool array

    Raises
    ------
    LRPError
        A box that is empty, not of integers, or reaches outside the image.

    Examples
    --------
    >>> box_masks([[0, 1, 1, 3]], (2, 3)).astype(int)
    array([[[0, 1, 1],
            [0, 0, 0]]])
    """
    height, width = size
    masks = np.zeros((len(boxes), height, width), bool)
    for n, of_sample in enumerate(boxes):
        several = np.asarray(of_sample)
        several = several[None] if several.ndim == 1 else several
        if several.ndim != 2 or several.shape[1] != 4 or not len(several):
            raise ShapeError(f"a box is (top, left, bottom, right); sample {n} has {of_sample!r:.80}")
        if several.dtype.kind not in "iu" and not (several.dtype.kind == "f" and (several % 1 == 0).all()):
            raise LRPError(f"boxes must be integers; sample {n} has {of_sample!r:.80}")
        for top, left, bottom, right in several.astype(int).tolist():
            if not (0 <= top < bottom <= height and 0 <= left < right <= width):
                raise LRPError(
                    f"the box ({top}, {left}, {bottom}, {right}) of sample {n} is empty or reaches outside "
                    f"the image: 0 <= top < bottom <= {height}, 0 <= left < right <= {width}"
                )
            masks[n, top:bottom, left:right] = True
    return masks


def one_input(x: Mapping[str, np.ndarray], name: str | None) -> str:
    """The name of the input that is measured."""
    if name is None:
        if len(x) > 1:
            raise LRPError(
                f"the network has inputs {', '.join(x)}: name the one that is measured (input=...)"
            )
        return next(iter(x))
    if name not in x:
        raise LRPError(f"the network has no input {name!r}; it has {', '.join(x)}")
    return name


def bytes_of(shapes: Mapping[str, tuple[int, ...]], dtype: np.dtype) -> int:
    """Bytes of arrays of these shapes."""
    return dtype.itemsize * sum(math.prod(shape) for shape in shapes.values())


def _by(size: tuple[int, ...]) -> str:
    return " x ".join(map(str, size))
