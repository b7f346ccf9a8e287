"""What replaces a region: zero, the mean, uniform noise, a blurred image, or what a function says.

The replacement of a sample is made once, before the first region is replaced, and is the same in every
order. So all orders end at the same image, and no step depends on the steps before.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from scipy import ndimage  # type: ignore

from ..errors import LRPError, ShapeError
from .maps import finite

Fill = Callable[[np.ndarray, np.random.Generator], Any]
"""The replacement of one sample, given the sample and the sample's own random numbers."""

FILLS = ("zero", "mean", "uniform", "blur")

NOISE, ORDER, SUBSETS, DRAWS = range(4)


def generator(seed: int, sample: int, stream: int) -> np.random.Generator:
    """Random numbers of one sample: the same in whatever batch it is, others for each `stream`."""
    if not isinstance(seed, (int, np.integer)) or isinstance(seed, bool) or seed < 0:
        raise LRPError(f"seed must be an integer of at least 0, not {seed!r}")
    return np.random.default_rng((int(seed), sample, stream))


def uniform(low: Any, high: Any) -> Fill:
    """Independent uniform noise between `low` and `high` (numbers, or arrays that broadcast to a sample).

    Examples
    --------
    >>> uniform(2, 2)(np.zeros((1, 2)), np.random.default_rng(0))
    array([[2., 2.]])
    """
    if not (np.asarray(low) <= np.asarray(high)).all():
        raise LRPError(f"uniform noise needs low <= high, not {low} and {high}")
    return lambda x, rng: rng.uniform(low, high, x.shape)


def blur(sigma: float = 3.0, channels: int | None = 0) -> Fill:
    """The sample under a Gaussian filter of this standard deviation in positions; edges are repeated.

    Examples
    --------
    >>> blur(1.0)(np.ones((1, 2, 2)), np.random.default_rng(0))
    array([[[1., 1.],
            [1., 1.]]])
    """
    if not (isinstance(sigma, (int, float)) and sigma > 0):
        raise LRPError(f"blur needs a positive sigma, not {sigma!r}")

    def fill(x: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        widths = [0 if axis == channels else sigma for axis in range(x.ndim)]
        return ndimage.gaussian_filter(x, widths, mode="nearest")

    return fill


def mean(channels: int | None = 0) -> Fill:
    """The mean of each channel of the sample.

    Examples
    --------
    >>> mean()(np.array([[1.0, 3.0], [0.0, 0.0]]), np.random.default_rng(0))
    array([[2., 2.],
           [0., 0.]])
    """

    def fill(x: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        axes = tuple(axis for axis in range(x.ndim) if axis != channels)
        return np.broadcast_to(x.mean(axes, keepdims=True), x.shape)

    return fill


def replacements(
    fill: Any, x: np.ndarray, channels: int | None = None, bounds: Any = None, seed: int = 0
) -> np.ndarray:
    """What replaces each sample.

    Parameters
    ----------
    fill : str, number, array, or function
        "zero"; "mean" (of each channel of the sample); "uniform" (noise between `bounds`); "blur"
        (`blur` with its default width); a number; an array that broadcasts to a sample, such as the mean
        of a data set; or a function of (sample, random numbers).
    x : (N, *sample) array
    channels : int or None
        The axis of a sample that holds channels.
    bounds : (low, high), optional
        The range of the input: numbers, or one for each channel.
    seed : int
        Sample n gets the same noise wherever it is drawn.

    Returns
    -------
    (N, *sample) array of x's dtype

    Examples
    --------
    >>> replacements("mean", np.array([[1.0, 3.0]]))
    array([[2., 2.]])
    """
    function = _function(fill, x.shape[1:], channels, bounds)
    filled = np.empty_like(x)
    for n, sample in enumerate(x):
        value = np.asarray(function(sample, generator(seed, n, NOISE)))
        if value.shape != sample.shape:
            raise ShapeError(f"the fill gives shape {value.shape} for a sample of shape {sample.shape}")
        filled[n] = value
    return finite(filled, "the replacement")


def _function(fill: Any, shape: tuple[int, ...], channels: int | None, bounds: Any) -> Fill:
    if callable(fill):
        return fill
    if isinstance(fill, str):
        if fill == "zero":
            return lambda x, rng: np.zeros_like(x)
        if fill == "mean":
            return mean(channels)
        if fill == "blur":
            return blur(channels=channels)
        if fill == "uniform":
            if bounds is None:
                raise LRPError(
                    "fill 'uniform' needs the range of the input, and the model has no input_range: "
                    "give numpylrp.evaluate.fills.uniform(low, high)"
                )
            return uniform(*(_for_channels(bound, shape, channels) for bound in bounds))
        raise LRPError(f"fill must be {', '.join(FILLS)}, a number, an array or a function, not {fill!r}")
    try:
        value = np.broadcast_to(np.asarray(fill, float), shape)
    except (TypeError, ValueError):
        raise ShapeError(
            f"fill must be {', '.join(FILLS)}, a number, an array that broadcasts to a sample "
            f"of shape {shape}, or a function"
        ) from None
    return lambda x, rng: value


def _for_channels(bound: Any, shape: tuple[int, ...], channels: int | None) -> np.ndarray:
    """A bound of the input, with the axes of a sample."""
    bound = np.asarray(bound, float)
    if bound.ndim == 1 and channels is not None:
        bound = bound.reshape([-1 if axis == channels else 1 for axis in range(len(shape))])
    return np.broadcast_to(bound, shape)
