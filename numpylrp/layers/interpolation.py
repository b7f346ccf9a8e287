"""Images brought to another size by linear interpolation."""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass
from functools import reduce
from typing import Any, ClassVar

import numpy as np

from ..errors import LRPError
from .base import Linear, Shape
from .images import size_option, sized

PLACES = ("half_pixel", "align_corners", "asymmetric")
"""How positions of the output lie on those of the input."""


@dataclass(frozen=True, eq=False, repr=False)
class Interpolation(Linear):
    """Linear interpolation to another size: bilinear for images, linear for series.

    Along an axis of n values, value i of the output, of o, lies at position p of the input, and is
    ``(1 - f) x[floor(p)] + f x[floor(p) + 1]`` with f what p is above its floor; beyond the ends of the axis
    lies its last value. Linear, with the products of these weights over the axes: at most two an axis.

    Parameters
    ----------
    size : tuple of int
        Size of the output, one for each spatial axis.
    places : str
        p is ``(i + 1/2) n / o - 1/2`` ("half_pixel": PyTorch, Keras, TensorFlow 2),
        ``i (n - 1) / (o - 1)`` ("align_corners") or ``i n / o`` ("asymmetric": TensorFlow 1).

    Examples
    --------
    >>> Interpolation((4,)).forward(np.array([[[1.0, 5.0]]]))
    array([[[1., 2., 4., 5.]]])
    """

    size: Any
    places: str = "half_pixel"

    family: ClassVar[str] = "pool"

    def __post_init__(self) -> None:
        size_option(self, 3)
        if self.places not in PLACES:
            raise LRPError(f"Interpolation: places must be one of {', '.join(PLACES)}, not {self.places!r}")

    def output_shape(self, shape: Shape) -> Shape:
        return sized(self, shape)

    def _neighbours(self, n: int, o: int) -> tuple[np.ndarray, np.ndarray]:
        """Along one axis the two values between which each of the output lies, and their weights, (2, o)."""
        i = np.arange(o)
        p = {
            "half_pixel": (i + 0.5) * n / o - 0.5,
            "align_corners": i * (n - 1) / max(o - 1, 1),
            "asymmetric": i * n / o,
        }[self.places].clip(0, n - 1)
        first = np.floor(p).astype(int)
        return np.stack([first, np.minimum(first + 1, n - 1)]), np.stack([1 - (p - first), p - first])

    def _corners(self, shape: Shape) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """The flat position and weight of each corner, and whether it is one of its own, (corners, *size)."""
        axes = [self._neighbours(n, o) for n, o in zip(shape[1:], self.size)]
        steps = [math.prod(shape[k + 2 :]) for k in range(len(axes))]
        found = []
        for corner in itertools.product((0, 1), repeat=len(axes)):
            ends = [(near[c], w[c], near[c] - near[0] >= c) for c, (near, w) in zip(corner, axes)]
            places = reduce(np.add.outer, [near * step for (near, _, _), step in zip(ends, steps)])
            weights, own = (reduce(np.multiply.outer, [end[k] for end in ends]) for k in (1, 2))
            found.append((places, weights, own))
        places, weights, own = (np.stack(arrays) for arrays in zip(*found))
        return places, weights, own

    def parameters(self, shape):
        return self._corners(shape)[1], None

    def linear(self, x, weight, bias):
        places, _, own = self._corners(x.shape[1:])
        flat, weight = x.reshape(*x.shape[:2], -1), np.where(own, weight, 0).astype(x.dtype)
        return sum(w * flat[:, :, at] for w, at in zip(weight, places))

    def adjoint(self, s, weight, shape):
        places, _, own = self._corners(shape)
        weight = np.where(own, weight, 0).astype(s.dtype)
        back = np.zeros((*s.shape[:2], int(np.prod(shape[1:]))), s.dtype)
        for w, at in zip(weight, places):
            np.add.at(back, (slice(None), slice(None), at), w * s)
        return back.reshape(len(s), *shape)
