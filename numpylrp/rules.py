"""How relevance is shared: the four steps that all rules have in common, and the rules.

A rule says how the relevance R_j of a linear layer's outputs is shared among its inputs. With
``z_ij = x_i w_ij`` the contribution of input i to output j, all rules are forms of

    R_i = sum_j  z_ij / z_j  R_j,        z_j = sum_i z_ij (+ b_j)

that differ in which contributions count. Every rule says that by the `Share`s it makes, under its
equation; `Rule.propagate` is the four steps (Montavon et al. 2019, sec. 10.3.2) for all of them. A rule
knows a layer by ``parameters``, ``linear`` and ``adjoint``, so it is written once for dense layers,
convolutions, pooling, normalization and sums. x+ is max(x, 0) and x- is min(x, 0).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import cached_property, partial
from typing import Any, ClassVar, NamedTuple

import numpy as np

from .bounds import frozen_bound, sample_bounds
from .errors import LRPError, ShapeError, check_numbers
from .text import fields_text

# Changes of weights: w, w^2, 1 and |w|, w+ and w-.
same, square, one, absolute = np.asarray, np.square, np.ones_like, np.abs
positive, negative = partial(np.maximum, 0), partial(np.minimum, 0)


@dataclass(frozen=True)
class Favour:
    """w + gamma w+, or w + gamma w- where `sign` is -1."""

    gamma: float
    sign: int

    def __call__(self, w: np.ndarray) -> np.ndarray:
        return w + self.gamma * (positive(w) if self.sign > 0 else negative(w))


class Part(NamedTuple):
    """One product of a share: inputs `x` times ``change(w)``, plus a part of the bias."""

    x: np.ndarray
    change: Callable = same
    bias: np.ndarray | None = None


class Share(NamedTuple):
    """Relevance `R` shared out by the contributions of some parts over their sum."""

    R: np.ndarray
    parts: list[Part]
    z: np.ndarray | None = None
    """The sum of the parts where it is already known."""
    mark: str = ""
    """What a trace puts after z, s and c."""


def stabilize(z: np.ndarray, epsilon: float | np.ndarray) -> np.ndarray:
    """``z + epsilon * sign(z)`` with sign(0) = +1.

    Examples
    --------
    >>> stabilize(np.array([2.0, 0.0, -1.0]), 0.5)
    array([ 2.5,  0.5, -1.5])
    """
    return z + np.copysign(epsilon, z + 0.0)  # -0 + 0 is +0


def divide(R: np.ndarray, z: np.ndarray) -> np.ndarray:
    """``R / z``, and 0 where z is 0: that relevance is dropped.

    Examples
    --------
    >>> divide(np.array([3.0, 3.0]), np.array([2.0, 0.0]))
    array([1.5, 0. ])
    """
    zero = z == 0
    return R / (z + zero) * ~zero if zero.any() else R / z


Halves = list[tuple[np.ndarray, int]]


def halves(x: np.ndarray) -> Halves:
    """x+ and x-, each with its sign; x itself where it has one sign, as after a ReLU."""
    if x.min() >= 0:
        return [(x, 1)]
    return [(positive(x), 1), (negative(x), -1)] if x.max() > 0 else [(x, -1)]


def signed_parts(x: Halves, along: Callable, against: Callable, bias: np.ndarray | None) -> list[Part]:
    """The parts ``x+ along(w)``, which the bias joins, and ``x- against(w)``."""
    parts = [Part(half, along if sign > 0 else against) for half, sign in x]
    return [parts[0]._replace(bias=bias), *parts[1:]]


class Rule:
    """A rule of LRP for linear layers.

    Subclasses say in `shares` what is shared among what; `propagate` does it.

    Examples
    --------
    A rule of one's own, relevance in proportion to ``|x_i w_ij|``:

    >>> class Absolute(Rule):
    ...     def shares(self, layer, R, x, y):
    ...         yield Share(R, [Part(abs(x), absolute)])
    >>> from numpylrp.layers import Dense
    >>> dense, x = Dense([[1.0, -2.0]]), np.array([[2.0, 3.0]])
    >>> dense.relprop(np.array([[4.0]]), x, dense.forward(x), Absolute())
    array([[1., 3.]])
    """

    epsilon: float = 0.0
    """Stabilizer of the denominators, of every rule."""
    shown: ClassVar[tuple[str, ...]] = ()
    """The parameters that are always printed; others where they are not the default."""

    def __post_init__(self) -> None:
        check_numbers(self)

    def shares(self, layer: Any, R: np.ndarray, x: np.ndarray, y: np.ndarray) -> Iterator[Share]:
        """The shares whose sum is the relevance of the input."""
        raise NotImplementedError

    def stabilized(self, z: np.ndarray) -> np.ndarray:
        """The denominator for z."""
        return stabilize(z, self.epsilon)

    def propagate(
        self, layer: Any, R: np.ndarray, x: np.ndarray, y: np.ndarray, note: Callable | None = None
    ) -> np.ndarray:
        """Relevance of the layer's input `x`, given relevance `R` of its output `y`.

        Parameters
        ----------
        layer : linear layer
        R, y : (N, *output) array
        x : (N, *input) array
        note : callable, optional
            Called with the arrays of the four steps by name: z, s, c.

        Returns
        -------
        (N, *input) array
        """
        weight, _ = layer.parameters(x.shape[1:])
        R_x = np.zeros_like(x)
        for share in self.shares(layer, R, x, y):
            parts = [(part, part.change(weight)) for part in share.parts]
            z = share.z
            if z is None:
                z = sum(layer.linear(part.x, w, part.bias) for part, w in parts)  # 1. forward
            s = divide(share.R, self.stabilized(z))  # 2. divide
            c = [layer.adjoint(s, w, x.shape[1:]) for _, w in parts]  # 3. send back
            for (part, _), sent in zip(parts, c):
                R_x = R_x + part.x * sent  # 4. weigh by the input
            if note:
                names = {f"c{share.mark}" + "'" * k: sent for k, sent in enumerate(c)}
                note(**{f"z{share.mark}": z, f"s{share.mark}": s}, **names)
        return R_x

    def __repr__(self) -> str:
        return self._text

    @cached_property
    def _text(self) -> str:
        return fields_text(self, self.shown)


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

    def stabilized(self, z):
        if not self.relative:
            return super().stabilized(z)
        size = np.sqrt(np.mean(np.square(z), axis=tuple(range(1, z.ndim)), keepdims=True))
        return stabilize(z, self.epsilon * size)

    def shares(self, layer, R, x, y):
        yield Share(R, [Part(x)], z=y)


def LRP0() -> Epsilon:
    """LRP-0, the basic rule (Bach et al. 2015, eq. 56): `Epsilon` with epsilon 0."""
    return Epsilon(0.0)


@dataclass(frozen=True, repr=False)
class Gamma(Rule):
    """The gamma rule (Montavon et al. 2019, sec. 10.2.3), for inputs of any sign.

    ``R_i = sum_j (x_i w_ij + gamma (x_i w_ij)+) / (sum_i ... + b_j + gamma b_j+) R_j`` where z_j >= 0, and
    with ( )- instead of ( )+ where z_j < 0 (the generalised form, Andeol et al. 2021). Where x >= 0 and
    z >= 0, as between ReLUs, that is the rule on weights ``w + gamma w+``.

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

    def favoured(self, layer: Any, shape: tuple, x: Halves, sign: int) -> list[Part]:
        """The parts of the share that favours contributions of this sign."""
        _, bias = layer.parameters(shape)
        along, against = Favour(self.gamma, sign), Favour(self.gamma, -sign)
        return signed_parts(x, along, against, None if bias is None else along(bias))

    def shares(self, layer, R, x, y):
        shape, x, below = x.shape[1:], halves(x), R * (y < 0)
        yield Share(R - below, self.favoured(layer, shape, x, 1), mark="+")
        if below.any():  # after a ReLU, units with z < 0 have no relevance
            yield Share(below, self.favoured(layer, shape, x, -1), mark="-")


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
    shown: ClassVar[tuple[str, ...]] = ("alpha", "beta")

    def __post_init__(self) -> None:
        super().__post_init__()
        if not np.isclose(self.alpha - self.beta, 1, rtol=0, atol=1e-9):
            raise LRPError(f"AlphaBeta: alpha - beta must be 1, not {self.alpha} - {self.beta}")

    def sums(self, layer: Any, x: np.ndarray) -> Iterator[tuple[str, float, list[Part]]]:
        """The sign of each share, its factor, and the parts of its sum z+ or z-."""
        _, bias = layer.parameters(x.shape[1:])
        parts = halves(x)
        for sign, factor, along, against in (
            ("+", self.alpha, positive, negative),
            ("-", -self.beta, negative, positive),
        ):
            if factor:
                b = along(bias) if self.bias and bias is not None else None
                yield sign, factor, signed_parts(parts, along, against, b)

    def shares(self, layer, R, x, y):
        for sign, factor, parts in self.sums(layer, x):
            yield Share(factor * R, parts, mark=sign)


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

    def shares(self, layer, R, x, y):
        # The denominators are the same for all samples: one of them is enough.
        yield Share(R, [Part(np.ones_like(x[:1]), self.change)])


@dataclass(frozen=True, repr=False)
class Flat(WSquare):
    """The flat rule (Lapuschkin et al. 2019): an output's relevance in equal shares to all its inputs.

    ``R_i = sum_j  1 / (number of inputs of j)  R_j``; padding is no input.
    """

    change: ClassVar[Callable] = staticmethod(one)


@dataclass(frozen=True, repr=False)
class ZBox(Rule):
    """The z^B rule (Montavon et al. 2017), for inputs between known bounds, such as pixels.

    ``R_i = sum_j (x_i w_ij - l_i w_ij+ - h_i w_ij-) / (sum_i ...) R_j``. The bias takes no part.

    Parameters
    ----------
    low, high : float or array
        Bounds of the input: a scalar, one value a channel, or an array of a sample's shape.

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
        super().__post_init__()
        for name in ("low", "high"):
            object.__setattr__(self, name, frozen_bound(f"ZBox: {name}", getattr(self, name)))

    def shares(self, layer, R, x, y):
        low, high = sample_bounds("ZBox", self.low, self.high, x)
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

    def shares(self, layer, R, x, y):
        _, bias = layer.parameters(x.shape[1:])
        yield Share(R, [Part(np.abs(x), absolute, None if bias is None else np.abs(bias))])


@dataclass(frozen=True, repr=False)
class Pass(Rule):
    """Relevance unchanged, ``R_i = R_i``, for a layer whose input and output have one shape."""

    def propagate(self, layer, R, x, y, note=None):
        if R.shape == x.shape:
            return R
        if layer.merges and R.shape == (len(x), *x.shape[2:]):
            return np.repeat(R[:, None] / x.shape[1], x.shape[1], axis=1)
        raise ShapeError(
            f"Pass can't send relevance of shape {R.shape[1:]} to an input of shape {x.shape[1:]}"
        )
