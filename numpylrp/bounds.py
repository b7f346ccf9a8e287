"""Bounds of a layer's input, as the z^B rule needs them."""

from __future__ import annotations

from typing import Any

import numpy as np

from .errors import LRPError, ShapeError


def check_range(x: np.ndarray, bounds: Any, slack: float) -> None:
    """Refuse inputs that lie outside their range, by more than `slack` of its width.

    Parameters
    ----------
    x : array
    bounds : (low, high)
        Numbers, or one a channel.
    slack : float
    """
    low, high = float(np.min(bounds[0])), float(np.max(bounds[1]))
    more = slack * (high - low)
    if x.size and (x.min() < low - more or x.max() > high + more):
        raise LRPError(
            f"the inputs reach from {x.min():g} to {x.max():g}, but the network takes {low:g} to "
            f"{high:g}: scale them (--scale 1/255, say)"
        )


def frozen_bound(name: str, value: Any) -> Any:
    """A bound as a constant that can be compared: a number, or a tuple (of tuples) of numbers.

    Raises
    ------
    LRPError
        Values that are NaN or infinite; `name` says whose.
    """
    bound = np.asarray(value, dtype=float)
    if not np.isfinite(bound).all():
        raise LRPError(f"{name} has a value that is NaN or infinite")

    def constant(values: Any) -> Any:
        return tuple(map(constant, values)) if isinstance(values, list) else values

    return constant(bound.tolist())


def sample_bound(name: str, value: Any, x: np.ndarray) -> np.ndarray:
    """A bound as one sample of x's shape.

    Examples
    --------
    >>> sample_bound("low", (0.0, 1.0), np.zeros((5, 2, 1, 2)))
    array([[[[0., 0.]],
    <BLANKLINE>
            [[1., 1.]]]])
    """
    bound = np.asarray(value, dtype=x.dtype)
    if bound.ndim == 1 and x.ndim > 2:
        bound = bound.reshape(-1, *(1,) * (x.ndim - 2))
    try:
        return np.broadcast_to(bound, x.shape[1:])[None]
    except ValueError:
        raise ShapeError(
            f"{name}: a bound of shape {bound.shape} does not fit samples of shape {x.shape[1:]}: "
            "give a scalar, one value a channel, or an array of that shape"
        ) from None


def sample_bounds(name: str, low: Any, high: Any, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Lower and upper bound as samples of x's shape.

    Raises
    ------
    LRPError
        A lower bound above the upper one, or values of x outside them (by more than rounding).
    """
    low, high = sample_bound(name, low, x), sample_bound(name, high, x)
    if (low > high).any():
        raise LRPError(f"{name}: low {low[low > high][0]:g} is above high {high[low > high][0]:g}")
    slack = 1e-5 * np.maximum(high - low, np.maximum(abs(low), abs(high)))
    if (x < low - slack).any() or (x > high + slack).any():
        raise LRPError(
            f"{name}: the layer's input reaches from {x.min():.4g} to {x.max():.4g}, "
            f"outside the bounds {np.min(low):.4g} .. {np.max(high):.4g}"
        )
    return low, high
