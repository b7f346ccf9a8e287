"""Layers with several inputs. Their x, and the relevance they give back, are tuples."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from ..errors import LRPError, ShapeError
from ..nonlinear import Product, RatioOfSums
from .base import Layer, Linear, Shape

Arrays = tuple[np.ndarray, ...]


def _common(shapes: tuple[Shape, ...]) -> Shape:
    """The shape that all broadcast to."""
    if len({len(s) for s in shapes}) > 1:
        raise ShapeError(f"inputs of shapes {', '.join(map(str, shapes))} have not the same axes")
    out = []
    for sizes in zip(*shapes):
        known = set(sizes) - {1, None}
        if len(known) > 1:
            raise ShapeError(f"inputs of shapes {', '.join(map(str, shapes))} don't fit together")
        out.append(known.pop() if known else None if None in sizes else 1)
    return tuple(out)


def _unbroadcast(R: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """Sum over the axes along which an array of this shape had been repeated."""
    axes = tuple(i for i, (a, b) in enumerate(zip(R.shape, shape)) if b == 1 and a != 1)
    return R.sum(axes, keepdims=True) if axes else R


@dataclass(frozen=True, eq=False, repr=False)
class _Merge(Layer):
    family: ClassVar[str] = "merge"
    merges: ClassVar[bool] = True
    count: ClassVar[int | None] = None

    def output_shape(self, *shapes: Shape) -> Shape:
        self._enough(shapes)
        return _common(shapes)

    def _enough(self, shapes: tuple[Shape, ...]) -> None:
        if len(shapes) < 2 or (self.count and len(shapes) != self.count):
            raise ShapeError(f"takes {self.count or 'two or more'} inputs, but got {len(shapes)}")


@dataclass(frozen=True, eq=False, repr=False)
class Add(_Merge, Linear):
    """``y = x_1 + x_2 + ...``: a linear layer with weight 1 for each branch.

    Relevance is shared by the layer's rule, as in any linear layer: by the epsilon rule each branch
    gets ``R x_k / (y + eps sign y)``, by alpha-beta the positive and negative contributions are
    split, by w^2 and flat the branches get equal shares. A branch of size 1 along an axis is
    repeated, and gets the sum back.

    Examples
    --------
    >>> from numpylrp.rules import Epsilon
    >>> x = (np.array([[3.0]]), np.array([[-1.0]]))
    >>> Add().relprop(np.array([[2.0]]), x, np.array([[2.0]]), Epsilon(0))
    (array([[3.]]), array([[-1.]]))
    """

    own_rules: ClassVar[tuple[type, ...]] = (RatioOfSums,)

    def _weights(self, count: int) -> np.ndarray:
        return np.ones(count)

    def parameters(self, shape):
        return self._weights(shape[0]), None

    # The branches are stacked on a new axis after the batch, so that the primitives
    # see one input (N, K, *sample) and rules need to know nothing of merges.

    def linear(self, x, weight, bias):
        return sum(x[:, k] * w for k, w in enumerate(weight.astype(x.dtype, copy=False)))

    def adjoint(self, s, weight, shape):
        weight = weight.astype(s.dtype, copy=False)
        return s[:, None] * weight.reshape(-1, *(1,) * (s.ndim - 1))

    def forward(self, x: Any) -> np.ndarray:
        weights = self._weights(len(x))
        y = x[0] if weights[0] == 1 else x[0] * float(weights[0])
        for branch, w in zip(x[1:], weights[1:]):
            y = y + branch if w == 1 else y - branch if w == -1 else y + branch * float(w)
        return y

    def linearized(self, x, y):
        return self, np.stack(np.broadcast_arrays(*x), axis=1), y

    def relprop(self, R, x, y, rule=None, note=None):
        _, stacked, _ = self.linearized(x, y)
        shares = rule.propagate(self, R, stacked, y, note)
        return tuple(_unbroadcast(shares[:, k], branch.shape) for k, branch in enumerate(x))


@dataclass(frozen=True, eq=False, repr=False)
class Subtract(Add):
    """``y = x_1 - x_2``: linear with weights 1 and -1."""

    count: ClassVar[int | None] = 2

    def _weights(self, count):
        return np.array([1.0, -1.0])


@dataclass(frozen=True, eq=False, repr=False)
class Average(Add):
    """``y = (x_1 + ... + x_K) / K``: linear with weight 1 / K for each branch."""

    def _weights(self, count):
        return np.full(count, 1 / count)


@dataclass(frozen=True, eq=False, repr=False)
class Multiply(_Merge):
    """``y = x_1 * x_2 * ...``: a gate, or a scale that depends on the sample.

    A product is not linear in its inputs together, so no rule of linear layers applies.

    Parameters
    ----------
    signal : int or None
        None: every factor gets an equal share, R / K (the uniform rule, Achtibat et al. 2024,
        AttnLRP). An index: that factor gets all, its gates nothing (signal-take-all,
        Arras et al. 2017), for squeeze-and-excitation and gated units.

    Examples
    --------
    >>> Multiply().relprop(np.array([[4.0]]), (np.array([[2.0]]), np.array([[5.0]])), None)
    (array([[2.]]), array([[2.]]))
    """

    signal: int | None = None

    way_back: ClassVar[str] = "equal shares, or the signal takes all"
    own_rules: ClassVar[tuple[type, ...]] = (Product,)

    def output_shape(self, *shapes: Shape) -> Shape:
        if self.signal is not None and not 0 <= self.signal < len(shapes):
            raise LRPError(f"signal must be None or 0 .. {len(shapes) - 1}, not {self.signal!r}")
        return super().output_shape(*shapes)

    def forward(self, x: Arrays) -> np.ndarray:
        y = x[0]
        for factor in x[1:]:
            y = y * factor
        return y

    def relprop(self, R, x, y, rule=None, note=None):
        if rule is not None:
            parts = rule.propagate(self, R, x, y, note)
            return tuple(_unbroadcast(part, factor.shape) for part, factor in zip(parts, x))
        if self.signal is None:
            return tuple(_unbroadcast(R / len(x), factor.shape) for factor in x)
        return tuple(
            _unbroadcast(R if k == self.signal else np.zeros_like(R), factor.shape)
            for k, factor in enumerate(x)
        )


@dataclass(frozen=True, eq=False, repr=False)
class Maximum(_Merge):
    """Elementwise maximum; the largest branch takes the relevance, of equals the first."""

    way_back: ClassVar[str] = "winner takes all"

    _pick: ClassVar[Any] = staticmethod(np.maximum)

    def forward(self, x: Arrays) -> np.ndarray:
        y = x[0]
        for branch in x[1:]:
            y = self._pick(y, branch)
        return y

    def relprop(self, R, x, y, rule=None, note=None):
        left, shares = np.array(R), []
        for branch in x:
            winner = np.broadcast_to(branch == y, R.shape)
            shares.append(_unbroadcast(np.where(winner, left, 0), branch.shape))
            left[winner] = 0
        return tuple(shares)


@dataclass(frozen=True, eq=False, repr=False)
class Minimum(Maximum):
    """Elementwise minimum; the smallest branch takes the relevance, of equals the first."""

    _pick: ClassVar[Any] = staticmethod(np.minimum)


@dataclass(frozen=True, eq=False, repr=False)
class Concatenate(_Merge):
    """The inputs side by side along an axis of the sample (0: the channels).

    Examples
    --------
    >>> Concatenate().forward((np.ones((1, 1)), np.zeros((1, 2))))
    array([[1., 0., 0.]])
    """

    axis: int = 0

    way_back: ClassVar[str] = "split"

    def output_shape(self, *shapes: Shape) -> Shape:
        self._enough(shapes)
        if not -len(shapes[0]) <= self.axis < len(shapes[0]):
            raise ShapeError(f"axis {self.axis} is not an axis of a sample of shape {shapes[0]}")
        axis = self.axis % len(shapes[0])
        rest = {(*s[:axis], *s[axis + 1 :]) for s in shapes}
        if len({len(s) for s in shapes}) > 1 or len(rest) > 1:
            raise ShapeError(f"inputs of shapes {', '.join(map(str, shapes))} differ beside axis {axis}")
        along = [s[axis] for s in shapes]
        return (*shapes[0][:axis], None if None in along else sum(along), *shapes[0][axis + 1 :])

    def _axis(self, ndim: int) -> int:
        return self.axis % (ndim - 1) + 1

    def forward(self, x: Arrays) -> np.ndarray:
        return np.concatenate(x, axis=self._axis(x[0].ndim))

    def relprop(self, R, x, y, rule=None, note=None):
        axis = self._axis(R.ndim)
        return tuple(np.split(R, np.cumsum([b.shape[axis] for b in x[:-1]]), axis))
