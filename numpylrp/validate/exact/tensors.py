"""Exact arrays: flat lists of fractions, row-major, with a shape."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from fractions import Fraction
from itertools import product
from typing import Any

from ...errors import ShapeError

Shape = tuple[int, ...]
Values = list[Fraction]
ZERO, ONE = Fraction(0), Fraction(1)


def size(shape: Shape) -> int:
    return math.prod(shape)


def positions(shape: Iterable[int]) -> Iterable[Shape]:
    return product(*map(range, shape))


def flat_index(position: Iterable[int], shape: Shape) -> int:
    """The row-major index of a position."""
    at = 0
    for p, n in zip(position, shape, strict=True):
        at = at * n + p
    return at


def along(shape: Shape, axis: int) -> list[int]:
    """For each unit its index along an axis."""
    return [position[axis] for position in positions(shape)]


@dataclass(frozen=True)
class Tensor:
    """Exact values.

    Attributes
    ----------
    shape : tuple of int
    values : list of Fraction
        Row-major.

    Examples
    --------
    >>> x = tensor([[0.5, 1], [Fraction(1, 3), -2]])
    >>> x.shape, x[1, 0]
    ((2, 2), Fraction(1, 3))
    >>> x.to_float()
    [[0.5, 1.0], [0.3333333333333333, -2.0]]
    """

    shape: Shape
    values: Values

    def __getitem__(self, position: Any) -> Fraction:
        return self.values[flat_index(position if isinstance(position, tuple) else (position,), self.shape)]

    def _nested(self, of: Callable) -> Any:
        parts: list = list(map(of, self.values))
        for n in reversed(self.shape):
            parts = [parts[i : i + n] for i in range(0, len(parts), n)]
        return parts[0]

    def to_float(self) -> Any:
        """Nested lists of float, each value rounded once, to the nearest."""
        return self._nested(float)

    def to_list(self) -> Any:
        """Nested lists of Fraction."""
        return self._nested(Fraction)


def tensor(values: Any) -> Tensor:
    """Numbers, nested lists of them or an array as a `Tensor`; each float is the rational that it is."""
    if isinstance(values, Tensor):
        return values
    values = values.tolist() if hasattr(values, "tolist") else values
    if not isinstance(values, (list, tuple)):
        return Tensor((), [Fraction(values)])
    parts = [tensor(v) for v in values]
    if len({part.shape for part in parts}) != 1:
        raise ShapeError("nested lists must have one shape, and not be empty")
    return Tensor((len(parts), *parts[0].shape), [v for part in parts for v in part.values])


def broadcast(given: Any, shape: Shape, channels: bool = False) -> Values:
    """A parameter for each unit of a sample; where `channels`, one axis is the channels (the first)."""
    t = tensor(given)
    view = (*t.shape, *(1,) * (len(shape) - 1)) if channels and len(t.shape) == 1 else t.shape
    if len(view) > len(shape) or any(a not in (1, b) for a, b in zip(view[::-1], shape[::-1])):
        raise ShapeError(f"an array of shape {t.shape} does not fit samples of shape {shape}")
    t = Tensor((*(1,) * (len(shape) - len(view)), *view), t.values)
    return [t[tuple(p if n > 1 else 0 for p, n in zip(at, t.shape))] for at in positions(shape)]
