"""The rules of the literature, each under its equation.

Each says which contributions of inputs to outputs count; the steps that follow are those of `sharing`.
x+ is max(x, 0) and x- is min(x, 0); bias goes to the denominator, where it absorbs its part.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import cached_property, partial
from typing import Any, ClassVar

import numpy as np

from .engine import mapped
from .errors import LRPError, ShapeError
from .sharing import (
    Favour,
    Part,
    Rule,
    Share,
    absolute,
    negative,
    one,
    positive,
    signed_parts,
    split,
    square,
    summed,
)


def _number(rule: Rule, name: str, least: float = 0.0) -> None:
    value = getattr(rule, name)
    if not (isinstance(value, (int, float, np.number)) and np.isfinite(value) and value >= least):
        raise LRPError(
            f"{type(rule).__name__}: {name} is to be a number of at least {least:g}, not {value!r}"
        )


@dataclass(frozen=True, repr=False)
class Epsilon(Rule):
    """The epsilon rule (Bach et al. 2015, eq. 58); with epsilon 0 it is LRP-0 (eq. 56).

    ``R_i = sum_j  x_i w_ij / (z_j + epsilon sign(z_j))  R_j``, ``z_j = sum_i x_i w_ij + b_j``.

    Parameters
    ----------
    epsilon : float
        In units of z, or, where `relative`, of the root mean square of z over a sample.
    relative : bool
        The form of the LRP overview for middle layers of VGG-16 (Montavon et al. 2019, sec. 10.3).

    Examples
    --------
    >>> from numpylrp.layers import Dense
    >>> dense, x = Dense([[1.0, 2.0]]), np.array([[3.0, 1.0]])
    >>> dense.relprop(np.array([[10.0]]), x, dense.forward(x), Epsilon(0))
    array([[6., 4.]])
    """

    epsilon: float = 1e-6
    relative: bool = False
    shown: ClassVar = ("epsilon",)

    def __post_init__(self) -> None:
        _number(self, "epsilon")

    def stabilized(self, z):
        if not self.relative:
            return super().stabilized(z)
        size = np.sqrt(np.mean(np.square(z), axis=tuple(range(1, z.ndim)), keepdims=True))
        return z + size * np.where(z >= 0, z.dtype.type(self.epsilon), -z.dtype.type(self.epsilon))

    @cached_property
    def _by_value(self) -> bool:
        return type(self).stabilized is Epsilon.stabilized and not self.relative

    def shares(self, layer, R, x, y):
        yield Share(R, [Part(x)], z=y)


def LRP0() -> Epsilon:
    """LRP-0, the basic rule (Bach et al. 2015, eq. 56): `Epsilon` with epsilon 0."""
    return Epsilon(0.0)


@dataclass(frozen=True, repr=False)
class Gamma(Rule):
    """The gamma rule (Montavon et al. 2019, sec. 10.2.3), for inputs of any sign.

    ``R_i = sum_j (x_i w_ij + gamma (x_i w_ij)+) / (sum_i ... + b_j + gamma b_j+) R_j`` where
    z_j >= 0, and with ( )- instead of ( )+ where z_j < 0 (the generalised form, Andeol et al. 2021),
    so that denominators are never smaller than z_j. Where x >= 0 and z >= 0, as between ReLUs, that
    is the rule on weights ``w + gamma w+``.

    Parameters
    ----------
    gamma : float
    epsilon : float
        Stabilizer of the denominators.

    Examples
    --------
    >>> from numpylrp.layers import Dense
    >>> dense, x = Dense([[1.0, -1.0]]), np.array([[3.0, 1.0]])
    >>> dense.relprop(np.array([[5.0]]), x, dense.forward(x), Gamma(1.0))
    array([[ 6., -1.]])
    """

    gamma: float = 0.25
    epsilon: float = 0.0
    shown: ClassVar = ("gamma",)
    kept: ClassVar = 1

    def __post_init__(self) -> None:
        _number(self, "gamma")
        _number(self, "epsilon")

    def forward(self, layer, x):
        if not self.follows(Gamma):
            return super().forward(layer, x)
        return self.with_output(layer, x, lambda: [self._parts(layer, x, split(x), 1)])

    def _parts(self, layer: Any, x: np.ndarray, halves: tuple, sign: int) -> list[Part]:
        """What favours contributions of this sign."""
        _, bias = layer.parameters(x.shape[1:])
        along, against = Favour(self.gamma, sign), Favour(self.gamma, -sign)
        return signed_parts(halves, along, against, None if bias is None else along(bias))

    def shares(self, layer, R, x, y):
        halves = split(x)
        below = mapped(lambda R, y, out=None: np.multiply(R, y < 0, out=out), R, y)
        sides = [(1, R, "+")]
        if below.any():  # behind a ReLU, units with z < 0 have no relevance
            sides = [(1, R - below, "+"), (-1, below, "-")]
        for sign, part_R, mark in sides:
            yield Share(part_R, self._parts(layer, x, halves, sign), mark=mark)


@dataclass(frozen=True, repr=False)
class AlphaBeta(Rule):
    """The alpha-beta rule (Bach et al. 2015, eq. 60).

    ``R_i = sum_j (alpha z_ij+ / z_j+  -  beta z_ij- / z_j-) R_j`` with ``z_j+ = sum_i (x_i w_ij)+ + b_j+``
    and ``z_j- = sum_i (x_i w_ij)- + b_j-``. Contributions are split by sign, not weights, so inputs
    may have any sign.

    Parameters
    ----------
    alpha, beta : float
        alpha - beta = 1 keeps the sum where both signs occur. Where an output has no negative
        contribution, it still gets alpha times its relevance: the sum grows.
    epsilon : float
        Stabilizer of both denominators.
    bias : bool
        False: the bias takes no part.

    Examples
    --------
    >>> from numpylrp.layers import Dense
    >>> dense, x = Dense([[1.0, 1.0, -1.0]]), np.array([[3.0, 1.0, 2.0]])
    >>> dense.relprop(np.array([[2.0]]), x, dense.forward(x), AlphaBeta(2.0, 1.0))
    array([[ 3.,  1., -2.]])
    """

    alpha: float = 2.0
    beta: float = 1.0
    epsilon: float = 0.0
    bias: bool = True
    shown: ClassVar = ("alpha", "beta")
    kept: ClassVar = 2

    def __post_init__(self) -> None:
        for name in ("alpha", "beta", "epsilon"):
            _number(self, name)
        if not np.isclose(self.alpha - self.beta, 1, rtol=0, atol=1e-9):
            raise LRPError(f"AlphaBeta: alpha - beta is to be 1, not {self.alpha} - {self.beta}")

    def _sums(self, layer: Any, x: np.ndarray) -> Iterator[tuple[float, list[Part], str]]:
        """What is shared out, among what, and its mark."""
        _, bias = layer.parameters(x.shape[1:])
        bias = bias if self.bias else None
        halves = split(x)
        for factor, along, against, mark in (
            (self.alpha, positive, negative, "+"),
            (-self.beta, negative, positive, "-"),
        ):
            if factor:
                part_bias = None if bias is None else along(bias)
                yield factor, signed_parts(halves, along, against, part_bias), mark

    def forward(self, layer, x):
        """With alpha and beta the output is the sum of the denominators.

        Its rounding error is then relative to the sum of all |z_ij|, as the bound of any order of summing.
        """
        if not self.follows(AlphaBeta):
            return super().forward(layer, x)
        weight, bias = layer.parameters(x.shape[1:])

        def sums() -> list[list[Part]]:
            return [parts for _, parts, _ in self._sums(layer, x)]

        if self.alpha and self.beta and (self.bias or bias is None):
            z = summed(layer, weight, sums())
            return mapped(np.add, *z), z
        return self.with_output(layer, x, sums)

    def shares(self, layer, R, x, y):
        for factor, parts, mark in self._sums(layer, x):
            part_R = R if factor == 1 else mapped(partial(np.multiply, R.dtype.type(factor)), R)
            yield Share(part_R, parts, mark=mark)


@dataclass(frozen=True, repr=False)
class ZPlus(AlphaBeta):
    """The z+ rule (Montavon et al. 2017, deep Taylor): alpha-beta with alpha 1 and beta 0.

    ``R_i = sum_j  z_ij+ / z_j+  R_j``. Without bias it is excitation backprop (Zhang et al. 2016).

    Examples
    --------
    >>> from numpylrp.layers import Dense
    >>> dense, x = Dense([[1.0, 1.0, -1.0]]), np.array([[3.0, 1.0, 2.0]])
    >>> dense.relprop(np.array([[2.0]]), x, dense.forward(x), ZPlus())
    array([[1.5, 0.5, 0. ]])
    """

    alpha: float = field(default=1.0, init=False)
    beta: float = field(default=0.0, init=False)
    shown: ClassVar = ()
    kept: ClassVar = 1


@dataclass(frozen=True, repr=False)
class WSquare(Rule):
    """The w^2 rule (Montavon et al. 2017): ``R_i = sum_j  w_ij^2 / sum_i w_ij^2  R_j``.

    The input plays no part, nor does the bias. For layers whose input has any real value.

    Examples
    --------
    >>> from numpylrp.layers import Dense
    >>> dense, x = Dense([[1.0, -2.0]]), np.array([[0.0, 7.0]])
    >>> dense.relprop(np.array([[5.0]]), x, dense.forward(x), WSquare())
    array([[1., 4.]])
    """

    epsilon: float = 0.0
    change: ClassVar[Callable] = staticmethod(square)

    def __post_init__(self) -> None:
        _number(self, "epsilon")

    def shares(self, layer, R, x, y):
        # The denominators are the same for all samples: one of them is enough.
        yield Share(R, [Part(np.ones_like(x[:1]), self.change)])


@dataclass(frozen=True, repr=False)
class Flat(WSquare):
    """The flat rule (Lapuschkin et al. 2019): an output's relevance in equal shares to all its inputs.

    ``R_i = sum_j  1 / (number of inputs of j)  R_j``; padding is no input.
    """

    change: ClassVar[Callable] = staticmethod(one)


@dataclass(frozen=True, repr=False, eq=False)
class ZBox(Rule):
    """The z^B rule (Montavon et al. 2017), for inputs between known bounds, such as pixels.

    ``R_i = sum_j (x_i w_ij - l_i w_ij+ - h_i w_ij-) / (sum_i ...) R_j``. The bias takes no part.

    Parameters
    ----------
    low, high : float or array
        Bounds of the input: a scalar, one value a channel, or an array of a sample's shape.
    epsilon : float
        Stabilizer of the denominators.

    Examples
    --------
    >>> from numpylrp.layers import Dense
    >>> dense, x = Dense([[1.0, -1.0]]), np.array([[0.5, 0.5]])
    >>> dense.relprop(np.array([[1.0]]), x, dense.forward(x), ZBox(0.0, 1.0))
    array([[0.5, 0.5]])
    """

    low: Any
    high: Any
    epsilon: float = 0.0
    shown: ClassVar = ("low", "high")

    def __post_init__(self) -> None:
        _number(self, "epsilon")
        for name in ("low", "high"):
            value = np.asarray(getattr(self, name), dtype=float)
            if not np.isfinite(value).all():
                raise LRPError(f"ZBox: {name} has a value that is NaN or infinite")
            object.__setattr__(self, name, tuple(value.ravel()) if value.ndim == 1 else value)

    def __hash__(self) -> int:
        return hash(
            (type(self), np.asarray(self.low).tobytes(), np.asarray(self.high).tobytes(), self.epsilon)
        )

    def __eq__(self, other: object) -> bool:
        return isinstance(other, ZBox) and hash(self) == hash(other)

    def _bound(self, value: Any, x: np.ndarray) -> np.ndarray:
        """The bound as one sample of x's shape."""
        value = np.asarray(value, dtype=x.dtype)
        if value.ndim == 1 and x.ndim > 2:
            value = value.reshape(-1, *(1,) * (x.ndim - 2))
        try:
            return np.broadcast_to(value, x.shape[1:])[None]
        except ValueError:
            raise ShapeError(
                f"ZBox: a bound of shape {value.shape} does not fit samples of shape {x.shape[1:]}: "
                "give a scalar, one value a channel, or an array of that shape"
            ) from None

    def shares(self, layer, R, x, y):
        low, high = self._bound(self.low, x), self._bound(self.high, x)
        if (low > high).any():
            raise LRPError(f"ZBox: low {low[low > high][0]:g} is above high {high[low > high][0]:g}")
        slack = 1e-5 * np.maximum(high - low, np.maximum(abs(low), abs(high)))
        if (x < low - slack).any() or (x > high + slack).any():
            raise LRPError(
                f"ZBox: the layer's input reaches from {x.min():.4g} to {x.max():.4g}, "
                f"outside the bounds {np.min(low):.4g} .. {np.max(high):.4g}"
            )
        bounds = [Part(-low, positive)] * bool(low.any()) + [Part(-high, negative)] * bool(high.any())
        yield Share(R, [Part(x), *bounds])


@dataclass(frozen=True, repr=False)
class AbsZ(Rule):
    """The |z|-rule for batch normalization (Hui and Binder 2019).

    ``R_i = sum_j  |x_i w_ij| / (sum_i |x_i w_ij| + |b_j|)  R_j``; for a batch normalization
    ``y = g x + s`` that is ``R_x = |g x| / (|g x| + |s|) R_y``. This is the form in use; which terms
    the paper itself splits could not be checked.

    Examples
    --------
    >>> from numpylrp.layers import Affine
    >>> layer, x = Affine([2.0], [-1.0]), np.array([[1.5]])
    >>> layer.relprop(np.array([[8.0]]), x, layer.forward(x), AbsZ())
    array([[6.]])
    """

    epsilon: float = 0.0

    def __post_init__(self) -> None:
        _number(self, "epsilon")

    def shares(self, layer, R, x, y):
        _, bias = layer.parameters(x.shape[1:])
        yield Share(R, [Part(np.abs(x), absolute, None if bias is None else np.abs(bias))])


@dataclass(frozen=True, repr=False)
class Pass(Rule):
    """Relevance unchanged, ``R_i = R_i``, for a layer whose input and output have one shape."""

    def propagate(self, layer, R, x, y, note):
        if R.shape == x.shape:
            return R
        if layer.merges and R.shape == (len(x), *x.shape[2:]):
            return np.repeat(R[:, None] / x.shape[1], x.shape[1], axis=1)
        raise ShapeError(
            f"Pass can't send relevance of shape {R.shape[1:]} to an input of shape {x.shape[1:]}"
        )
