"""A scale and a shift on their way: what a normalization did and its neighbours have yet to do."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..errors import LRPError
from ..layers.base import Shape


class NotExact(LRPError):
    """A normalization can't be fused exactly here; the message says why."""


@dataclass(frozen=True)
class Pending:
    """The true value of a tensor t is ``g t + s``; s only inside `border`.

    Parameters
    ----------
    g, s : array
        As many axes as a sample has, of size 1 where they don't vary.
    border : ((before, after), ...)
        For each axis, how far zeros reach in that were put around the tensor after the shift.
    """

    g: np.ndarray
    s: np.ndarray
    border: tuple[tuple[int, int], ...]

    @classmethod
    def channels(cls, g: np.ndarray, s: np.ndarray, axis: int, rank: int) -> Pending:
        """One scale and shift for each index of one axis."""
        view = [1] * rank
        view[axis] = -1
        return cls(np.reshape(g, view), np.reshape(s, view), ((0, 0),) * rank)

    @property
    def rank(self) -> int:
        """Axes of a sample."""
        return len(self.border)

    def plain(self, what: str) -> Pending:
        """Itself, if no zeros were put around."""
        if any(map(any, self.border)):
            raise NotExact(f"zero padding lies between the normalization and {what}")
        return self

    def vectors(self, axis: int, size: int | None, what: str) -> tuple[np.ndarray, np.ndarray]:
        """Vectors g and s along one axis, if they vary along no other."""
        axis %= self.rank
        varies = [n for n, (a, b) in enumerate(zip(self.g.shape, self.s.shape)) if a > 1 or b > 1]
        if set(varies) - {axis}:
            raise NotExact(f"its scale or shift varies along an axis that {what} shares weights over")
        if size is None:
            raise NotExact(f"the size of axis {axis} is free")
        return np.broadcast_to(self.g.ravel(), size).copy(), np.broadcast_to(self.s.ravel(), size).copy()

    def full(self, shape: Shape) -> tuple[np.ndarray, np.ndarray]:
        """Arrays g and s of a sample's shape, zeros around included."""
        if None in shape:
            raise NotExact(f"the size of a sample is free ({shape})")
        s = np.zeros(shape)
        inside = tuple(slice(a, n - b) for n, (a, b) in zip(shape, self.border))
        inner = tuple(n - a - b for n, (a, b) in zip(shape, self.border))
        s[inside] = np.broadcast_to(self.s, inner)
        return np.broadcast_to(self.g, shape), s
