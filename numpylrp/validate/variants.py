"""Rules and layers as others have them, or as bugs make them: each under its equation."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np

from ..bounds import sample_bound
from ..errors import ShapeError
from ..layers import (
    Add,
    Affine,
    BatchNorm,
    Concatenate,
    GlobalMaxPool,
    GlobalSumPool,
    Layer,
    Maximum,
    MaxPool2D,
    Minimum,
    SumPool1D,
    SumPool2D,
    SumPool3D,
)
from ..layers.pool import signed
from ..rules import (
    AlphaBeta,
    Epsilon,
    Flat,
    Gamma,
    Part,
    Rule,
    Share,
    WSquare,
    ZBox,
    absolute,
    divide,
    halves,
    negative,
    one,
    positive,
    same,
    square,
    stabilize,
)
from ..windows import crop, pad, taps

# ---------------------------------------------------------------- stabilizers

STABILIZERS: dict[str, Callable] = {
    "sign(0) = +1": stabilize,
    "sign(0) = -1": lambda z, eps: z + np.where(z > 0, eps, -eps).astype(z.dtype),
    "sign(0) = 0": lambda z, eps: z + eps * np.sign(z),
    "subtracted": lambda z, eps: 2 * z - stabilize(z, eps),
    "no sign": lambda z, eps: z + z.dtype.type(eps),
    "|z| + eps": lambda z, eps: np.abs(z) + z.dtype.type(eps),
    "zeros only": lambda z, eps: np.where(z == 0, z.dtype.type(eps), z),
    "at least eps": lambda z, eps: np.where(np.abs(z) < eps, stabilize(0 * z, eps) * _sign(z), z),
    "clamped": lambda z, eps: np.maximum(z, z.dtype.type(1e-6)),
    "of the largest": lambda z, eps: stabilize(z, eps * np.abs(z).max()),
    "of the mean": lambda z, eps: stabilize(z, eps * np.abs(z).mean()),
    "of the deviation": lambda z, eps: stabilize(z, eps * z.std()),
    "of the sample's largest": lambda z, eps: stabilize(z, eps * _each(np.max, z)),
    "of the sample's mean": lambda z, eps: stabilize(z, eps * _each(np.mean, z)),
    "of the deviation (n - 1)": lambda z, eps: stabilize(z, eps * z.std(ddof=1 if z.size > 1 else 0)),
}
"""What keeps the denominators from 0: ``z + eps sign(z)`` and the forms that others have of it."""


def _sign(z: np.ndarray) -> np.ndarray:
    return np.where(z < 0, -1, 1).astype(z.dtype)


def _each(function: Callable, z: np.ndarray) -> np.ndarray:
    """A measure of |z| of each sample."""
    return function(np.abs(z), axis=tuple(range(1, z.ndim)), keepdims=True)


@dataclass(frozen=True, repr=False)
class Variant(Rule):
    """Another rule with a change; its shares and denominators unless a subclass says otherwise."""

    rule: Rule
    shown: ClassVar = ("rule",)

    def shares(self, layer, R, x, y):
        return self.rule.shares(layer, R, x, y)

    def stabilized(self, z):
        return self.rule.stabilized(z)


@dataclass(frozen=True, repr=False)
class Stabilized(Variant):
    """A rule with another stabilizer, one of `STABILIZERS`.

    Examples
    --------
    >>> from numpylrp.rules import Epsilon
    >>> Stabilized(Epsilon(), 0.5, "sign(0) = -1").stabilized(np.array([2.0, 0.0, -1.0]))
    array([ 2.5, -0.5, -1.5])
    """

    epsilon: float = 1e-6
    how: str = "sign(0) = +1"
    shown: ClassVar = ("rule", "epsilon", "how")  # type: ignore[assignment]

    def stabilized(self, z):
        return STABILIZERS[self.how](z, self.epsilon)


# ---------------------------------------------------------------- other layers, other parameters


class _Without:
    """A layer seen without its bias."""

    def __init__(self, layer: Any) -> None:
        self.layer = layer

    def __getattr__(self, name: str) -> Any:
        return getattr(self.layer, name)

    def parameters(self, shape):
        return self.layer.parameters(shape)[0], None


class _Turned(_Without):
    """A layer whose adjoint takes other weights than its forward pass."""

    def __init__(self, layer: Any, turn: Callable) -> None:
        self.layer, self.turn = layer, turn

    def parameters(self, shape):
        return self.layer.parameters(shape)

    def adjoint(self, s, weight, shape):
        return self.layer.adjoint(s, self.turn(weight), shape)


@dataclass(frozen=True, repr=False)
class NoBias(Variant):
    """A rule without the bias: ``z_j = sum_i z_ij``."""

    def propagate(self, layer, R, x, y, note=None):
        weight, _ = layer.parameters(x.shape[1:])
        return self.rule.propagate(_Without(layer), R, x, layer.linear(x, weight, None), note)


@dataclass(frozen=True, repr=False)
class BiasShared(Variant):
    """Epsilon with the bias in equal parts to the inputs: ``(z_ij + b_j / n_j) / (z_j + eps sign z_j) R_j``.

    n_j is the number of inputs of output j. That is ``bias_factor = 1`` (Arras et al. 2017), whose code
    also shares out the stabilizer: ``(z_ij + (b_j + eps sign z_j) / n_j) / (...)``.
    """

    with_stabilizer: bool = False

    def propagate(self, layer, R, x, y, note=None):
        shape = x.shape[1:]
        weight, bias = layer.parameters(shape)
        count = layer.linear(np.ones_like(x[:1]), one(weight), None)
        s, extra = divide(R, self.stabilized(y)), 0 if bias is None else y - layer.linear(x, weight, None)
        if self.with_stabilizer:
            extra = extra + self.stabilized(y) - y
        equal = layer.adjoint(divide(s * extra, count), one(weight), shape)
        return x * layer.adjoint(s, weight, shape) + equal


@dataclass(frozen=True, repr=False)
class On(Variant):
    """A rule on another layer in the place of this one.

    Parameters
    ----------
    rule : Rule
    layer : Layer
    own : bool
        Whether z is the other layer's, or (False) what the forward pass gave.
    """

    layer: Any = None
    own: bool = True
    shown: ClassVar = ("rule", "layer")  # type: ignore[assignment]

    def propagate(self, layer, R, x, y, note=None):
        y = self.layer.forward(x) if self.own else y
        return self.rule.propagate(self.layer, R, x, y, note)


@dataclass(frozen=True, repr=False)
class Turned(Variant):
    """A rule that sends back through a kernel that is turned the wrong way: ``c = adjoint(s, turn(w))``."""

    turn: Callable = same
    shown: ClassVar = ("rule",)

    def propagate(self, layer, R, x, y, note=None):
        return self.rule.propagate(_Turned(layer, self.turn), R, x, y, note)


@dataclass(frozen=True, repr=False)
class NotWeighed(Variant):
    """A rule whose last step is missing: ``R_i = c_i`` instead of ``x_i c_i``."""

    def propagate(self, layer, R, x, y, note=None):
        shape, total = x.shape[1:], 0
        weight, _ = layer.parameters(shape)
        for share in self.rule.shares(layer, R, x, y):
            weights = [part.change(weight) for part in share.parts]
            z = share.z
            if z is None:
                z = sum(layer.linear(part.x, w, part.bias) for part, w in zip(share.parts, weights))
            s = divide(share.R, self.rule.stabilized(z))
            total = total + sum(layer.adjoint(s, w, shape) for w in weights)
        return np.broadcast_to(total, x.shape).copy()


@dataclass(frozen=True, repr=False)
class Clamped(Variant):
    """A rule that sees x+ in the place of x, over its z."""

    def propagate(self, layer, R, x, y, note=None):
        x = np.maximum(x, 0)
        return self.rule.propagate(layer, R, x, layer.forward(x), note)


@dataclass(frozen=True, repr=False)
class Gradient(Rule):
    """The layer's gradient: ``R_i = sum_j w_ij R_j``, what is left where a framework knows no rule."""

    def propagate(self, layer, R, x, y, note=None):
        return np.array(layer.adjoint(R, layer.parameters(x.shape[1:])[0], x.shape[1:]))


# ---------------------------------------------------------------- changed rules


@dataclass(frozen=True)
class FavourSquare:
    """w + gamma w+^2."""

    gamma: float

    def __call__(self, w):
        return w + self.gamma * np.square(positive(w))


@dataclass(frozen=True, repr=False)
class Weights(Rule):
    """A rule on weights, whatever the sign of the input.

    ``R_i = sum_j x_i f(w_ij) / (sum_i x_i f(w_ij) + g(b_j)) R_j``. It is the gamma rule or z+ where x >= 0
    (and z >= 0), and else it favours the wrong inputs.
    """

    change: Callable = same
    bias: Callable | None = same
    epsilon: float = 0.0

    def __repr__(self) -> str:
        own = (getattr(self.change, "__doc__", "") or "w").split(",")[0].rstrip(".")
        names = {same: "W", square: "w^2", one: "1", absolute: "|w|", positive: "w+", negative: "w-"}
        return f"Weights({names.get(self.change, own)})"

    def shares(self, layer, R, x, y):
        _, bias = layer.parameters(x.shape[1:])
        bias = None if bias is None or self.bias is None else self.bias(bias)
        yield Share(R, [Part(x, self.change, bias)])


@dataclass(frozen=True, repr=False)
class GammaOpen(Gamma):
    """The gamma rule that drops relevance of outputs that are exactly 0."""

    def shares(self, layer, R, x, y):
        return super().shares(layer, R * (y != 0), x, y)


def _biased(layer: Any, x: np.ndarray, shares: Iterable[Share]) -> Iterator[Share]:
    """The shares with the bias as it is."""
    _, bias = layer.parameters(x.shape[1:])
    for share in shares:
        first, *others = share.parts
        yield share._replace(parts=[first._replace(bias=bias), *others])


@dataclass(frozen=True, repr=False)
class GammaBias(Gamma):
    """Gamma with the bias as it is: ``(z_ij + gamma z_ij+) / (sum_i ... + b_j) R_j`` where z_j >= 0."""

    def shares(self, layer, R, x, y):
        return _biased(layer, x, super().shares(layer, R, x, y))


@dataclass(frozen=True, repr=False)
class GammaNoBias(Gamma):
    """Gamma without its bias: ``(z_ij + gamma z_ij+) / sum_i (z_ij + gamma z_ij+) R_j`` where z_j >= 0."""

    def shares(self, layer, R, x, y):
        for share in super().shares(layer, R, x, y):
            yield share._replace(parts=[part._replace(bias=None) for part in share.parts])


@dataclass(frozen=True)
class Bent:
    """w + gamma f(w)."""

    gamma: float
    function: Callable

    def __call__(self, w):
        return w + self.gamma * self.function(w)


@dataclass(frozen=True, repr=False)
class GammaPositive(Gamma):
    """The gamma rule with the positive form for every z: ``(z_ij + gamma z_ij+) / (sum_i ... ) R_j``."""

    def shares(self, layer, R, x, y):
        yield Share(R, self.favoured(layer, x.shape[1:], halves(x), 1))


@dataclass(frozen=True, repr=False)
class BiasInBoth(AlphaBeta):
    """Alpha-beta with the whole bias in both denominators: ``z_j+ = sum_i z_ij+ + b_j``, ``z_j-`` alike."""

    def shares(self, layer, R, x, y):
        return _biased(layer, x, super().shares(layer, R, x, y))


@dataclass(frozen=True, repr=False)
class AlphaBetaWeights(AlphaBeta):
    """Alpha-beta on the signs of weights: ``alpha x w+ / (sum x w+ + b+) - beta x w- / (sum x w- + b-)``."""

    def shares(self, layer, R, x, y):
        _, bias = layer.parameters(x.shape[1:])
        bias = bias if self.bias else None
        for factor, change in ((self.alpha, positive), (-self.beta, negative)):
            if factor:
                yield Share(factor * R, [Part(x, change, None if bias is None else change(bias))])


@dataclass(frozen=True, repr=False)
class NegativeAdded(AlphaBeta):
    """Alpha-beta with the negative part added: ``(alpha z_ij+ / z_j+  +  beta z_ij- / z_j-) R_j``."""

    def shares(self, layer, R, x, y):
        for share in super().shares(layer, R, x, y):
            yield share._replace(R=-share.R) if share.mark == "-" else share


@dataclass(frozen=True, repr=False)
class Quarters(AlphaBeta):
    """Alpha-beta with x+ w+ and x- w- divided each by its own sum, so that each gets all of R; no bias.

    ``alpha (x+ w+ / sum x+ w+  +  x- w- / sum x- w-) - beta (x+ w- / ... + x- w+ / ...)``. Where x >= 0
    it is alpha-beta without bias.
    """

    def shares(self, layer, R, x, y):
        for share in AlphaBeta(self.alpha, self.beta, bias=False).shares(layer, R, x, y):
            for part in share.parts:
                yield Share(share.R, [part])


@dataclass(frozen=True, repr=False)
class RTwice(AlphaBeta):
    """Alpha-beta with R twice in the negative part: ``alpha z_ij+ / z_j+ R  -  beta z_ij- / z_j- R^2``."""

    def shares(self, layer, R, x, y):
        for share in super().shares(layer, R, x, y):
            yield share._replace(R=share.R * R) if share.mark == "-" else share


@dataclass(frozen=True, repr=False)
class WSquareBias(WSquare):
    """w^2 with the bias: ``R_i = sum_j w_ij^2 / (sum_i w_ij^2 + b_j^2) R_j``."""

    def shares(self, layer, R, x, y):
        _, bias = layer.parameters(x.shape[1:])
        yield Share(R, [Part(np.ones_like(x[:1]), self.change, None if bias is None else np.square(bias))])


@dataclass(frozen=True, repr=False)
class Even(WSquare):
    """The layer's own weights on an input of ones: ``R_i = sum_j w_ij / sum_i w_ij R_j``."""

    change: ClassVar[Callable] = staticmethod(same)


@dataclass(frozen=True, repr=False)
class FlatPadded(Flat):
    """Flat that counts padding: ``R_i = sum_j 1 / (size of the window) R_j``, also at the border."""

    def shares(self, layer, R, x, y):
        weight, _ = layer.parameters(x.shape[1:])
        ones = np.ones_like(x[:1])
        z = layer.linear(ones, self.change(weight), None)
        yield Share(R, [Part(ones, self.change)], z=np.full_like(z, z.max()))


@dataclass(frozen=True, repr=False, eq=False)
class ZBoxBias(ZBox):
    """z^B with the bias left in the denominator: ``sum_i (x w - l w+ - h w-) + b_j``."""

    def shares(self, layer, R, x, y):
        return _biased(layer, x, super().shares(layer, R, x, y))


@dataclass(frozen=True, repr=False, eq=False)
class ZBoxSwapped(ZBox):
    """z^B with its bounds swapped: ``x w - h w+ - l w-``."""

    def shares(self, layer, R, x, y):
        low, high = sample_bound("ZBox", self.low, x), sample_bound("ZBox", self.high, x)
        yield Share(R, [Part(x), Part(-high, positive), Part(-low, negative)])


@dataclass(frozen=True, repr=False)
class ZBoxOwn(Rule):
    """z^B whose bounds are each sample's own smallest and largest value, and z + `extra`.

    Parameters
    ----------
    extra : float
    of : {"sample", "batch", "channel"}
        Whose smallest and largest value.
    """

    extra: float = 1e-9
    of: str = "sample"

    def stabilized(self, z):
        return z + z.dtype.type(self.extra)

    def shares(self, layer, R, x, y):
        axes = tuple(range({"sample": 1, "batch": 0, "channel": 2}[self.of], x.ndim))
        low = np.broadcast_to(x.min(axes, keepdims=True), x.shape)
        high = np.broadcast_to(x.max(axes, keepdims=True), x.shape)
        yield Share(R, [Part(x), Part(-low, positive), Part(-high, negative)])


@dataclass(frozen=True, repr=False)
class CentredNorm(Rule):
    """Batch normalization as three layers: ``R_x = x (y - beta) R / stabilize((x - mean) y)``."""

    epsilon: float = 1e-7

    def propagate(self, layer, R, x, y, note=None):
        view = layer.parameters(x.shape[1:])[0].shape
        mean = np.broadcast_to(layer.mean, layer.scale_and_shift()[0].shape).reshape(view)
        beta = 0 if layer.beta is None else np.broadcast_to(layer.beta, mean.size).reshape(view)
        return divide(x * (y - beta) * R, stabilize((x - mean) * y, self.epsilon))


@dataclass(frozen=True, repr=False)
class ScaleOnly(Rule):
    """Batch normalization without its shift: ``R_x = g x / (g x + 1e-9) R``, which is R but where x = 0."""

    def propagate(self, layer, R, x, y, note=None):
        layer = squared_variance(layer)
        gx = layer.linear(x, layer.parameters(x.shape[1:])[0], None)
        return divide(gx * R, gx + gx.dtype.type(1e-9))


def squared_variance(layer: BatchNorm) -> BatchNorm:
    """The batch normalization with ``sqrt(variance^2 + eps)`` as its denominator."""
    return replace(layer, variance=np.square(layer.variance))


def eps_outside_the_root(layer: BatchNorm) -> BatchNorm:
    """The batch normalization with ``sqrt(variance) + eps`` as its denominator."""
    return replace(layer, variance=np.square(np.sqrt(layer.variance) + layer.eps), eps=0.0)


def fused_in_innvestigate(layer: BatchNorm) -> Affine:
    """``y = gamma / d x + beta - mean / d`` with ``d = sqrt(variance^2 + eps)``: no gamma in the shift."""
    d = np.sqrt(np.square(layer.variance) + layer.eps)
    gamma = 1.0 if layer.gamma is None else layer.gamma
    beta = 0.0 if layer.beta is None else layer.beta
    return Affine(gamma / d, beta - layer.mean / d, layer.axis)


# ---------------------------------------------------------------- layers that take no rule


class Ties:
    """A maximum whose equals share otherwise than "the first wins".

    Parameters
    ----------
    layer : MaxPool2D, MaxPool1D, GlobalMaxPool, Maximum or Minimum
    how : {"all", "equal", "last"}
        Each of the equals gets all of the relevance, or an equal part of it, or the last of them gets it.

    Examples
    --------
    >>> x = np.array([[[[3.0, 3.0]]]])
    >>> layer = Ties(MaxPool2D((1, 2)), "equal")
    >>> layer.relprop(np.array([[[[4.0]]]]), x, layer.forward(x))
    array([[[[2., 2.]]]])
    """

    def __init__(self, layer: Layer, how: str) -> None:
        self.layer, self.how = layer, how
        self.merges = layer.merges
        self.forward = layer.forward

    def winners(self, x: Any, y: np.ndarray) -> tuple[list[np.ndarray], Callable]:
        """Which values of each window are its maximum, and how to put values of windows back."""
        if isinstance(self.layer, Maximum):
            return [np.broadcast_to(branch == y, y.shape) for branch in x], tuple
        if isinstance(self.layer, GlobalMaxPool):
            flat = signed(self.layer, x).reshape(*x.shape[:2], -1)
            top = flat.max(-1)
            return [value >= top for value in np.moveaxis(flat, -1, 0)], lambda parts: np.stack(
                [p.reshape(top.shape) for p in parts], -1
            ).reshape(x.shape)
        g, image, top = self.layer.windows, signed(self.layer, x), signed(self.layer, y)  # type: ignore[attr-defined]
        pads, out = g.pads(image.shape[2:]), top.shape[2:]
        hits = [pixels >= top for pixels in taps(pad(image, pads, -np.inf), g, out)]

        def back(parts: list[np.ndarray]) -> np.ndarray:
            whole = pad(np.zeros_like(image), pads)
            for place, part in zip(taps(whole, g, out), parts):
                place += part
            return crop(whole, pads).reshape(x.shape)

        return hits, back

    def relprop(self, R, x, y, rule=None, note=None):
        hits, back = self.winners(x, y)
        R = R.reshape(hits[0].shape) if not isinstance(self.layer, Maximum) else R
        if self.how == "last":
            later, left = np.zeros(hits[0].shape, bool), []
            for hit in reversed(hits):
                left.insert(0, hit & ~later)
                later = later | hit
            hits = left
        count = sum(hit.astype(R.dtype) for hit in hits) if self.how == "equal" else 1
        return back([R * hit / count for hit in hits])


class Scaled:
    """A layer that takes no rule, with the relevance ``R y / stabilize(y)`` in the place of R."""

    def __init__(self, layer: Layer, epsilon: float) -> None:
        self.layer, self.epsilon = layer, epsilon
        self.merges = layer.merges
        self.forward = layer.forward

    def relprop(self, R, x, y, rule=None, note=None):
        return self.layer.relprop(divide(R * y, stabilize(y, self.epsilon)), x, y)


def contenders(layer: Layer, x: Any, error: Any) -> tuple[list[np.ndarray], Callable]:
    """Which values of each window could be its maximum, were each off by as much as its `error`.

    As `Ties.winners`, and how to put values of windows back.
    """
    if isinstance(layer, Maximum):
        sign = -1 if isinstance(layer, Minimum) else 1
        upper = [sign * a + e for a, e in zip(x, error)]
        least = np.max(np.broadcast_arrays(*(sign * a - e for a, e in zip(x, error))), axis=0)
        return [np.broadcast_to(a >= least, least.shape) for a in upper], tuple
    plain = replace(layer, sign=None)  # type: ignore[call-arg]
    value = signed(layer, x)
    return Ties(plain, "all").winners(value + error, plain.forward(value - error))


def all_exact(layer: Layer, x: Any, error: Any, hits: list[np.ndarray]) -> np.ndarray:
    """Where every contender of a window is without error."""
    errors = error if isinstance(layer, Maximum) else _of_windows(layer, error)
    return ~np.any([hit & (np.broadcast_to(e, hit.shape) > 0) for hit, e in zip(hits, errors)], axis=0)


def _of_windows(layer: Any, values: np.ndarray) -> list[np.ndarray]:
    """The values of each window of a maximum pooling, in the order of `Ties.winners`."""
    if isinstance(layer, GlobalMaxPool):
        return list(np.moveaxis(values.reshape(*values.shape[:2], -1), -1, 0))
    g, size = layer.windows, values.shape[2:]
    return list(taps(pad(values, g.pads(size)), g, g.output_size(size)))


def takes_the_maximum(layer: Layer) -> bool:
    """Whether a layer gives its relevance to a winner."""
    return isinstance(layer, (MaxPool2D, GlobalMaxPool, Maximum))


# ---------------------------------------------------------------- steps that are left out, or done otherwise


@dataclass(frozen=True, repr=False)
class NotDivided(Variant):
    """A rule without its division: ``R_i = sum_j z_ij R_j``."""

    def stabilized(self, z):
        return np.ones_like(z)


@dataclass(frozen=True, repr=False)
class WeighedTwice(Variant):
    """A rule whose last step is done twice: ``R_i = x_i^2 c_i``."""

    def propagate(self, layer, R, x, y, note=None):
        return x * self.rule.propagate(layer, R, x, y, note)


@dataclass(frozen=True, repr=False)
class OverOutput(Variant):
    """A rule whose shares are divided by the layer's output: ``z_ij+ / z_j``, whatever the numerators are."""

    def shares(self, layer, R, x, y):
        for share in self.rule.shares(layer, R, x, y):
            yield share._replace(z=y)


@dataclass(frozen=True, repr=False)
class BiasTwice(Variant):
    """A rule that adds the bias twice: ``z_j = sum_i z_ij + 2 b_j``."""

    def shares(self, layer, R, x, y):
        _, bias = layer.parameters(x.shape[1:])
        for share in self.rule.shares(layer, R, x, y):
            extra = 0 if bias is None else y - layer.linear(x, layer.parameters(x.shape[1:])[0], None)
            yield share._replace(z=y + extra)


@dataclass(frozen=True, repr=False)
class Factors(Rule):
    """Alpha-beta with other factors: ``(plus z_ij+ / z_j+  -  minus z_ij- / z_j-) R_j``.

    `added`: the second part is added instead of subtracted.
    """

    plus: float = 1.0
    minus: float = 0.0
    epsilon: float = 0.0
    bias: bool = True
    added: bool = False

    def shares(self, layer, R, x, y):
        halves = AlphaBeta(2.0, 1.0, self.epsilon, self.bias).shares(layer, R, x, y)
        for factor, share in zip((self.plus, self.minus if self.added else -self.minus), halves):
            if factor:
                yield share._replace(R=factor * R)


@dataclass(frozen=True, repr=False)
class Absolute(WSquare):
    """``R_i = sum_j |w_ij| / sum_i |w_ij| R_j``."""

    change: ClassVar[Callable] = staticmethod(np.abs)


@dataclass(frozen=True, repr=False, eq=False)
class ZBoxParts(ZBox):
    """z^B with one of its bounds left out, or its weights on the wrong sides."""

    what: str = "low"

    def shares(self, layer, R, x, y):
        low, high = sample_bound("ZBox", self.low, x), sample_bound("ZBox", self.high, x)
        sides = {
            "without low": [Part(-high, negative)],
            "without high": [Part(-low, positive)],
            "sides": [Part(-low, negative), Part(-high, positive)],
            "added": [Part(low, positive), Part(high, negative)],
        }
        yield Share(R, [Part(x), *sides[self.what]])


@dataclass(frozen=True, repr=False, eq=False)
class ZBoxOpen(ZBox):
    """z^B that does not ask whether its input lies between the bounds."""

    def shares(self, layer, R, x, y):
        low, high = sample_bound("ZBox", self.low, x), sample_bound("ZBox", self.high, x)
        yield Share(R, [Part(x), Part(-low, positive), Part(-high, negative)])


class Geometry:
    """A convolution whose way back has another stride, padding or dilation.

    Parameters
    ----------
    layer : Conv2D
    filled : bool
        Whether windows lie on an image of the right size, of which the last see nothing; else the image
        that the windows span is cut or filled up.
    **options
        Of the way back.
    """

    merges = False

    def __init__(self, layer: Any, filled: bool = False, **options: Any) -> None:
        self.layer, self.back = layer, replace(layer, tap_bias=None, border=None, **options)
        self.filled = filled

    def __getattr__(self, name: str) -> Any:
        return getattr(self.layer, name)

    def adjoint(self, s, weight, shape):
        back = self.back
        if self.filled:
            windows = back.windows.output_size(shape[1:])
            if min(np.subtract(windows, s.shape[2:])) < 0:
                raise ShapeError(f"this way back has {windows} windows, not {s.shape[2:]}")
            ends = [(0, n - m) for n, m in zip(windows, s.shape[2:])]
            return back.adjoint(np.pad(s, ((0, 0), (0, 0), *ends)), weight, shape)
        size = tuple(
            (n - 1) * stride + dilation * (kernel - 1) + 1 - sum(pads)
            for n, stride, dilation, kernel, pads in zip(
                s.shape[2:], back.stride, back.dilation, weight.shape[2:], back.padding
            )
        )
        if min(size) < 1 or back.windows.output_size(size) != s.shape[2:]:
            raise ShapeError(f"this way back does not lead to an image ({size})")
        c = back.adjoint(s, weight, (shape[0], *size))
        out = np.zeros((len(c), *shape), c.dtype)
        some = tuple(slice(0, min(a, b)) for a, b in zip(c.shape[2:], shape[1:]))
        out[(..., *some)] = c[(..., *some)]
        return out

    def relprop(self, R, x, y, rule=None, note=None):
        return rule.propagate(self, R, x, y, note)


class Shifted:
    """A convolution whose way back is shifted: what comes in from outside is 0.

    Parameters
    ----------
    layer : Conv2D
    by : int
        Pixels, up and left; down and right where below 0.
    """

    merges = False

    def __init__(self, layer: Any, by: int) -> None:
        self.layer, self.by = layer, by

    def __getattr__(self, name: str) -> Any:
        return getattr(self.layer, name)

    def adjoint(self, s, weight, shape):
        c = np.array(self.layer.adjoint(s, weight, shape))
        for axis in range(2, c.ndim):
            c = np.roll(c, -self.by, axis)
            edge = [slice(None)] * c.ndim
            edge[axis] = slice(-self.by, None) if self.by > 0 else slice(None, -self.by)
            c[tuple(edge)] = 0
        return c

    def relprop(self, R, x, y, rule=None, note=None):
        return rule.propagate(self, R, x, y, note)


class At:
    """A layer that sees another input or output on the way back.

    Parameters
    ----------
    layer : Layer
    x, y : array, or tuple of arrays, or None
        None for what the forward pass gave.
    """

    def __init__(self, layer: Any, x: Any = None, y: Any = None) -> None:
        self.layer, self.x, self.y, self.merges = layer, x, y, layer.merges

    def relprop(self, R, x, y, rule=None, note=None):
        x, y = (x if self.x is None else self.x), (y if self.y is None else self.y)
        return self.layer.relprop(R, x, y, rule)


class Back:
    """A layer with a way back of its own: ``R_x = back(R, x, y, rule)``."""

    def __init__(self, layer: Any, back: Callable) -> None:
        self.layer, self.back, self.merges, self.forward = layer, back, layer.merges, layer.forward

    def relprop(self, R, x, y, rule=None, note=None):
        return self.back(R, x, y, rule)


def as_pool(layer: Any) -> Any:
    """The sum pooling with the windows of a maximum pooling."""
    if isinstance(layer, GlobalMaxPool):
        return GlobalSumPool(layer.keepdims)
    kind = {1: SumPool1D, 2: SumPool2D, 3: SumPool3D}[layer.rank]
    return kind(layer.kernel, layer.stride, layer.padding, layer.ceil)


def pooled(layer: Any, how: str) -> Back:
    """A maximum pooling whose windows share their relevance.

    Parameters
    ----------
    layer : MaxPool2D, MaxPool1D or GlobalMaxPool
    how : {"evenly", "evenly, padding counted", "in proportion", "all", "once", "to the smallest"}
        Each value of a window gets an equal part, a part by its size, or all; or the winner gets what
        the last of its windows sends, not the sum; or the smallest takes all.
    """
    if how == "once":
        return Back(layer, lambda R, x, y, _: _once(layer, R, x, y))
    if how == "to the smallest":
        return Back(layer, _to_the_smallest(layer))
    pool = as_pool(layer)

    def back(R: np.ndarray, x: np.ndarray, y: np.ndarray, _: Rule | None) -> np.ndarray:
        if how == "all" or "counted" in how:
            count = 1 if how == "all" else np.prod(layer.kernel)
            return pool.adjoint(R, pool.parameters(x.shape[1:])[0], x.shape[1:]) / count
        rule: Rule = Flat() if how == "evenly" else Epsilon(0.0)
        return pool.relprop(R, x, pool.forward(x), rule)

    return Back(layer, back)


def _to_the_smallest(layer: Any) -> Callable:
    def back(R: np.ndarray, x: np.ndarray, y: np.ndarray, _: Rule | None) -> np.ndarray:
        least = replace(layer, sign=-np.ones(x.shape[1]))
        return least.relprop(R, x, least.forward(x))

    return back


def _once(layer: Any, R: np.ndarray, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Maximum pooling that overwrites what a value got as the winner of another window."""
    out = np.zeros_like(x)
    for at in np.ndindex(*y.shape[2:]):
        alone = np.zeros_like(R)
        alone[(..., *at)] = 1
        won = layer.relprop(alone, x, y) != 0
        value = np.broadcast_to(R[(..., *at)].reshape(*R.shape[:2], *(1,) * len(at)), x.shape)
        out = np.where(won, value, out)
    return out


def shared_by(layer: Any, how: str) -> Back:
    """A layer with several inputs that shares otherwise: to one, in another order, evenly, or by size."""

    def back(R: np.ndarray, x: tuple, y: np.ndarray, rule: Rule | None) -> tuple:
        parts = layer.relprop(R, x, y, rule)
        if how == "swapped":
            swapped = parts[::-1]
            return swapped if [p.shape for p in swapped] == [p.shape for p in parts] else parts
        if how in ("each", "evenly"):
            return (R if how == "each" else R / len(x),) * len(x)
        if how in ("first", "last"):
            k = 0 if how == "first" else len(x) - 1
            whole = parts if not isinstance(layer, Add) else (R,) * len(x)
            return tuple(p if n == k else np.zeros_like(q) for n, (p, q) in enumerate(zip(whole, parts)))
        if how == "squares":
            below = sum(np.square(a) for a in x)
            return tuple(R * divide(np.square(a), below) for a in x)
        totals = [np.abs(a).reshape(len(a), -1).sum(1) for a in x]  # by the sums of the branches
        view = (-1, *(1,) * (R.ndim - 1))
        return tuple(R * divide(t, sum(totals)).reshape(view) for t in totals)

    return Back(layer, back)


def cut_in_order(layer: Concatenate) -> Back:
    """A concatenation that is cut apart as if its inputs came in the opposite order."""

    def back(R: np.ndarray, x: tuple, y: np.ndarray, _: Rule | None) -> tuple:
        return layer.relprop(R, x[::-1], y)[::-1]

    return Back(layer, back)


# ---------------------------------------------------------------- layers of other forward passes


@dataclass(frozen=True, eq=False, repr=False)
class Times(Layer):
    """``y = factor x``, with relevance passed on: dropout that scales where it should not."""

    factor: float = 1.0

    def forward(self, x):
        return x * self.factor


@dataclass(frozen=True, eq=False, repr=False)
class BorderPadding(Layer):
    """An image surrounded by copies of its border ("edge") or by its mirror image ("reflect")."""

    padding: tuple = ()
    mode: str = "edge"

    def output_shape(self, shape):
        return (shape[0], *(n + a + b for n, (a, b) in zip(shape[1:], self.padding)))

    def forward(self, x):
        return np.pad(x, ((0, 0), (0, 0), *self.padding), mode=self.mode)

    def relprop(self, R, x, y, rule=None, note=None):
        where = self.forward(np.arange(np.prod(x.shape[1:])).reshape(1, *x.shape[1:]))[0].ravel()
        out = np.zeros((len(R), int(np.prod(x.shape[1:]))))
        np.add.at(out, (slice(None), where), R.reshape(len(R), -1))
        return out.reshape(x.shape)
