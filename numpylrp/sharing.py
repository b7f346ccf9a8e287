"""How relevance is shared: the four steps that all rules have in common.

A rule says how the relevance R_j of a linear layer's outputs is shared among its inputs. With
``z_ij = x_i w_ij`` the contribution of input i to output j, all rules are forms of

    R_i = sum_j  z_ij / z_j  R_j,        z_j = sum_i z_ij (+ b_j)

that differ in which contributions count. The four steps of the code are those of the literature
(Montavon et al. 2019, sec. 10.3.2):

    z = linear(x, w, b)          1. forward: the share of every input in every output, summed
    s = R / stabilize(z)         2. divide
    c = adjoint(s, w)            3. send back
    R_x = x * c                  4. weigh by the input

A rule knows a layer by its primitives ``parameters``, ``linear`` and ``adjoint``, so each is written
once for dense layers, convolutions, average pooling, batch normalization and sums. It says which
`Share`s it makes; `Rule.propagate` is the four steps. Where a layer has a ``channels_axis``, several
products of one input are done as one, on blocks of weights (``linear_maps``).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields, is_dataclass
from functools import cached_property, lru_cache, partial, reduce
from typing import Any, ClassVar, NamedTuple

import numpy as np

from .engine import derived, mapped

# ---------------------------------------------------------------- changed weights


def same(w):
    """W"""
    return w


def positive(w):
    """w+"""
    return np.maximum(w, 0)


def negative(w):
    """w-"""
    return np.minimum(w, 0)


def square(w):
    """w^2"""
    return np.square(w)


def one(w):
    """1"""
    return np.ones_like(w)


def absolute(w):
    """|w|"""
    return np.abs(w)


@dataclass(frozen=True)
class Favour:
    """w + gamma w+, or w + gamma w- where `sign` is -1."""

    gamma: float
    sign: int

    def __call__(self, w):
        part = positive(w) if self.sign > 0 else negative(w)
        part *= self.gamma
        part += w
        return part


@dataclass(frozen=True)
class Block:
    """Several changes as one: rows of them one behind the other along outputs, columns along inputs."""

    rows: tuple[tuple[Callable, ...], ...]

    def __call__(self, w):
        return np.concatenate([np.concatenate([change(w) for change in row], 1) for row in self.rows])


def changed(weight: np.ndarray, change: Callable) -> np.ndarray:
    """``change(weight)``, computed once for the weight of a layer."""
    return weight if change is same else derived(weight, change)


# ---------------------------------------------------------------- the four steps


@lru_cache
def _bits(epsilon: float, dtype: np.dtype) -> tuple[np.signedinteger, np.signedinteger]:
    """The bit of the sign, and those of epsilon, as integers of the dtype's size."""
    sign, size = dtype.type(-0.0), dtype.type(epsilon)
    return tuple(value.view(f"i{dtype.itemsize}") for value in (sign, size))


def stabilize(z: np.ndarray, epsilon: float) -> np.ndarray:
    """``z + epsilon * sign(z)`` with sign(0) = +1.

    Examples
    --------
    >>> stabilize(np.array([2.0, 0.0, -1.0]), 0.5)
    array([ 2.5,  0.5, -1.5])
    """
    if not epsilon:
        return z
    sign, size = _bits(float(epsilon), z.dtype)
    signed = np.add(z, z.dtype.type(0), out=np.empty_like(z))  # -0 + 0 is +0
    bits = signed.view(sign.dtype)  # copysign by hand: NumPy's takes as long as the rest together
    bits &= sign
    bits |= size
    signed += z
    return signed


def divide(R: np.ndarray, z: np.ndarray, out: np.ndarray | None = None) -> np.ndarray:
    """``R / z``, and 0 where z is 0: that relevance is dropped. `out` may be z."""
    zero = z == 0
    if not zero.any():
        return np.divide(R, z, out=out)
    s = np.divide(R, z + zero, out=out)
    s *= ~zero
    return s


def plus_product(R: np.ndarray, x: np.ndarray, c: np.ndarray, out: np.ndarray | None = None) -> np.ndarray:
    """``R + x * c``."""
    out = np.multiply(x, c, out=out)
    out += R
    return out


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
    """What the notes put behind z, s and c."""


FEW = 128
"""Outputs up to which copying windows (of more than a pixel) counts beside multiplying them."""


def joined(layer: Any, sums: list[list[Part]]) -> Callable | None:
    """The change that makes of sums over the same inputs one product, whose windows are copied once for all.

    None where there is one product anyway, inputs differ, or weights can't lie one behind the other.
    """
    if len(sums) == len(sums[0]) == 1:
        return None
    one_input = len({tuple(id(part.x) for part in parts) for parts in sums}) == 1
    if not one_input or getattr(layer, "channels_axis", None) is None:
        return None
    if len({part.x.shape for part in sums[0]}) > 1:
        return None  # what is the same for all samples is computed for one
    return Block(tuple(tuple(part.change for part in parts) for parts in sums))


def summed(layer: Any, weight: np.ndarray, sums: list[list[Part]]) -> list[np.ndarray]:
    """Step 1, sums of parts."""
    change = joined(layer, sums)
    if change is None:
        plus = partial(mapped, np.add)
        return [
            reduce(plus, (layer.linear(part.x, changed(weight, part.change), part.bias) for part in parts))
            for parts in sums
        ]
    inputs = [part.x for part in sums[0]]
    x = inputs[0] if len(inputs) == 1 else np.concatenate(inputs, layer.channels_axis)
    biases = [[part.bias for part in parts if part.bias is not None] for parts in sums]
    bias = next((some[0] for some in biases if some), None)
    if bias is not None:
        bias = np.concatenate([sum(some) if some else np.zeros_like(bias) for some in biases])
    if len(sums) == 1:
        return [layer.linear(x, changed(weight, change), bias)]
    return list(layer.linear_maps(x, changed(weight, change), bias, len(sums)))


def sent_back(
    layer: Any, weight: np.ndarray, s: list[np.ndarray], sums: list[list[Part]], shape: tuple
) -> list[np.ndarray]:
    """Step 3: for each part, what all s send back to it."""
    change = joined(layer, sums)
    if change is None:
        (s,), (parts,) = s, sums
        return [layer.adjoint(s, changed(weight, part.change), shape) for part in parts]
    count = len(sums[0])
    s = s[0] if len(s) == 1 else np.concatenate(s, layer.channels_axis)
    if count == 1:
        return [layer.adjoint(s, changed(weight, change), shape)]
    axis = layer.channels_axis
    wide = list(shape)
    wide[axis if axis < 0 else axis - 1] *= count
    return np.split(layer.adjoint(s, changed(weight, change), tuple(wide)), count, axis)


def split(x: np.ndarray) -> tuple[np.ndarray | None, np.ndarray | None]:
    """x+ and x-, None for a part that is all zero (after a ReLU there is no x-)."""
    if x.min() >= 0:
        return x, None
    return (positive(x), negative(x)) if x.max() > 0 else (None, x)


def signed_parts(halves: tuple, along: Callable, against: Callable, bias=None) -> list[Part]:
    """The parts x+ along(w) and x- against(w) that are not all zero, of the halves of x."""
    up, down = halves
    parts = [] if up is None else [Part(up, along)]
    parts += [] if down is None else [Part(down, against)]
    return [parts[0]._replace(bias=bias), *parts[1:]]


class Rule:
    """A rule of LRP for linear layers.

    Subclasses say in `shares` what is shared among what; `propagate` does it. Those whose denominators
    save work in the forward pass have a `forward`.
    """

    epsilon: float = 0.0
    shown: ClassVar[tuple[str, ...]] = ()
    """The parameters that are always printed; others where they are not the default."""
    kept: ClassVar[int] = 0
    """Arrays of the output's size that `forward` may return besides the output."""

    def __repr__(self) -> str:
        return self._text

    @cached_property
    def _text(self) -> str:
        def text(value: Any) -> str:
            if isinstance(value, np.ndarray) and value.ndim:
                return f"<{'x'.join(map(str, value.shape))}>"
            if isinstance(value, tuple):
                return f"<{len(value)}>" if len(value) > 4 else f"({', '.join(map(text, value))})"
            return f"{value:g}" if isinstance(value, (float, np.ndarray)) else f"{value}"

        parts = [text(getattr(self, name)) for name in self.shown]
        for f in fields(self) if is_dataclass(self) else ():
            if f.init and f.name not in self.shown and getattr(self, f.name) != f.default:
                parts.append(f"{f.name}={text(getattr(self, f.name))}")
        return f"{type(self).__name__}({', '.join(parts)})"

    def shares(self, layer: Any, R: np.ndarray, x: np.ndarray, y: np.ndarray) -> Iterator[Share]:
        """The shares whose sum is the relevance of the input."""
        raise NotImplementedError

    def stabilized(self, z: np.ndarray) -> np.ndarray:
        """The denominator for z."""
        return stabilize(z, self.epsilon)

    @cached_property
    def _by_value(self) -> bool:
        """Whether denominators are those of `stabilize`; others may depend on all of z."""
        return type(self).stabilized is Rule.stabilized

    def divided(self, R: np.ndarray, z: np.ndarray) -> np.ndarray:
        """R over the denominator for z."""
        if not self._by_value:
            return divide(R, self.stabilized(z))
        over = np.divide if z.dtype.type(self.epsilon) > 0 else divide  # then it is never 0
        return mapped(lambda R, z, out=None: over(R, stabilize(z, self.epsilon), out), R, z)

    def follows(self, cls: type[Rule]) -> bool:
        """Whether shares are those of `cls`: a subclass may share otherwise."""
        return type(self).shares is cls.shares and type(self).propagate is Rule.propagate

    def with_output(self, layer: Any, x: np.ndarray, sums: Callable) -> tuple:
        """The layer's output and, where one product with it saves copying windows, the sums of ``sums()``."""
        weight, bias = layer.parameters(x.shape[1:])
        windows = getattr(layer, "channels_axis", None) is not None and weight[0, 0].size > 1
        if windows and len(weight) <= FEW:
            both = [[Part(x, bias=bias)], *sums()]
            if joined(layer, both):
                y, *z = summed(layer, weight, both)
                return y, z
        return layer.forward(x), None

    def forward(self, layer: Any, x: np.ndarray) -> tuple[np.ndarray, list[np.ndarray] | None]:
        """The output of a linear layer, with denominators that come of the same product.

        They are those of the first of `shares`, in their order, for `propagate`.
        """
        return layer.forward(x), None

    def propagate(
        self,
        layer: Any,
        R: np.ndarray,
        x: np.ndarray,
        y: np.ndarray,
        note: Callable | None = None,
        z: list[np.ndarray] | None = None,
    ) -> np.ndarray:
        """Relevance of the layer's input `x`, given relevance `R` of its output `y`.

        Parameters
        ----------
        layer : linear layer
        R, y : (N, *output) array
        x : (N, *input) array
        note : callable, optional
            Called with the arrays of the four steps by name: z, s, c.
        z : list of (N, *output) array, optional
            The denominators of the first shares, as `forward` returned them.

        Returns
        -------
        (N, *input) array
        """
        shape = x.shape[1:]
        weight, _ = layer.parameters(shape)
        shares = list(self.shares(layer, R, x, y))
        sums = [share.parts for share in shares]
        found = iter(z or ())
        z = [next(found, share.z) for share in shares]
        if missing := [parts for parts, known in zip(sums, z) if known is None]:
            found = iter(summed(layer, weight, missing))
            z = [next(found) if known is None else known for known in z]  # 1. forward
        s = [self.divided(share.R, each) for share, each in zip(shares, z)]  # 2. divide
        if note:
            for share, *arrays in zip(shares, z, s):
                note(**{name + share.mark: array for name, array in zip("zs", arrays)})
        apart = note or joined(layer, sums) is None  # who looks at the steps sees each share
        groups = [slice(n, n + 1) for n in range(len(shares))] if apart else [slice(None)]
        R_x = None
        for some in groups:
            c = sent_back(layer, weight, s[some], sums[some], shape)  # 3. send back
            if note:
                mark = shares[some][0].mark
                note(**{f"c{mark}" + "'" * k: part for k, part in enumerate(c)})
            for part, sent in zip(sums[some][0], c):  # 4. weigh by the input
                if R_x is None:
                    R_x = mapped(np.multiply, part.x, sent)
                else:
                    R_x = mapped(plus_product, R_x, part.x, sent)
        return R_x
