"""A scale and a shift on their way: what a normalization did and its neighbours have yet to do."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..errors import LRPError
from ..layers.base import Layer, Shape
from ..layers.norm import Scaled


class NotExact(LRPError):
    """A normalization can't be fused exactly here; the message says why."""


DEFINITION = ("forward", "relprop", "linear", "parameters")


def by_kind(table: Mapping[type[Layer], Callable], layer: Layer) -> Callable | None:
    """The entry of the nearest class that the layer inherits from and whose definition it keeps.

    A class of a user's own that changes what the layer computes is not of the kind that it inherits from.
    """
    kind = next((kind for kind in type(layer).__mro__ if kind in table), None)
    return table[kind] if kind is not None and keeps(layer, kind, DEFINITION) else None


def keeps(layer: Layer, kind: type[Layer], methods: Iterable[str]) -> bool:
    """Whether a layer has these methods of a class that it inherits from, not others in their place."""
    return all(getattr(type(layer), name, None) is getattr(kind, name, None) for name in methods)


def scaled(layer: Layer) -> bool:
    """Whether what a layer computes ends with the scale and shift that it says are learned.

    A class of a user's own that computes something else, and says nothing new of scale and shift, does not.
    """
    kind = next((kind for kind in type(layer).__mro__ if "learned" in vars(kind)), None)
    return (
        kind is not None and issubclass(kind, Scaled) and keeps(layer, kind, ("forward", "relprop", "linear"))
    )


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
    def of(cls, g: np.ndarray, s: np.ndarray) -> Pending:
        """Without zeros around."""
        return cls(g, s, ((0, 0),) * g.ndim)

    @property
    def rank(self) -> int:
        """Axes of a sample."""
        return len(self.border)

    def plain(self, what: str) -> Pending:
        """Itself, if no zeros were put around."""
        if any(map(any, self.border)):
            raise NotExact(f"zero padding lies between the normalization and {what}")
        return self

    def varies(self, axis: int) -> bool:
        """Whether g or s differs along an axis."""
        return self.g.shape[axis] > 1 or self.s.shape[axis] > 1

    def vectors(self, axis: int, size: int | None, what: str) -> tuple[np.ndarray, np.ndarray]:
        """Vectors g and s along one axis, if they vary along no other."""
        axis %= self.rank
        if any(self.varies(n) for n in range(self.rank) if n != axis):
            raise NotExact(f"its scale or shift varies along an axis that {what} shares weights over")
        if size is None:
            raise NotExact(f"the size of axis {axis} is free")
        return np.broadcast_to(self.g.ravel(), size).copy(), np.broadcast_to(self.s.ravel(), size).copy()

    def full(self, shape: Shape) -> tuple[np.ndarray, np.ndarray]:
        """Arrays g and s of a sample's shape, zeros around included."""
        if None in shape:
            raise NotExact(f"the size of a sample is free ({shape})")
        s = np.zeros(shape, self.s.dtype)
        inside = tuple(slice(a, n - b) for n, (a, b) in zip(shape, self.border))
        inner = tuple(n - a - b for n, (a, b) in zip(shape, self.border))
        s[inside] = np.broadcast_to(self.s, inner)
        return np.broadcast_to(self.g, shape), s

    def reduced(self) -> Pending:
        """The same with size 1 along every axis along which neither g nor s differs."""
        g, s = self.g, self.s
        for axis in range(self.rank):
            firsts = [a.take([0], axis) for a in (g, s)]
            if all((a == first).all() for a, first in zip((g, s), firsts)):
                g, s = firsts
        return Pending(g, s, self.border)


def expanded(p: Pending, axis: int, size: int | None) -> Pending:
    """The same with g and s written out along one axis."""
    if size is None:
        raise NotExact(f"the size of axis {axis} is free")

    def repeated(a: np.ndarray) -> Any:
        return np.broadcast_to(a, [size if n == axis else k for n, k in enumerate(a.shape)])

    return Pending(repeated(p.g), repeated(p.s), p.border)
