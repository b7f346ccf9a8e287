"""What other libraries would say: their conventions by name, with the deviations that are known of them.

`CONVENTIONS` has one entry a library. Its `translate` gives, for a layer and a rule of `numpylrp.rules`, the
rule that computes what the library gives when it is asked for that rule, and raises `UnsupportedError` where
it has none. The variants are rules themselves, each under its equation, so that `numpylrp.explain` runs them,
and `deviations` measures how far each lies from the definition.

The code was read at these versions: zennit 0.5.1, captum 0.9.0, innvestigate 2.1.2, lrp_toolbox's Python
modules (April 2022), LXT's explicit functions (2026), TorchLRP (February 2021), RAP (December 2020).
zennit and captum are also run in the tests. An epsilon that was not asked for (the default of our rule) is
the library's.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any, ClassVar, NamedTuple

import numpy as np

from .. import im2col
from ..errors import LRPError, UnsupportedError
from ..layers import (
    Add,
    Affine,
    BatchNorm,
    Conv2D,
    Dense,
    GlobalMaxPool,
    GlobalSumPool,
    Layer,
    Maximum,
    MaxPool2D,
    SumPool2D,
)
from ..layers.base import Linear, ignore
from ..layers.conv import lift
from ..layers.pool import AveragePool2D, _signed
from ..network import Network
from ..network import table as columns
from ..rules import (
    LRP0,
    AbsZ,
    AlphaBeta,
    Epsilon,
    Favour,
    Flat,
    Gamma,
    Part,
    Pass,
    Rule,
    Share,
    WSquare,
    ZBox,
    ZPlus,
    changed,
    divide,
    negative,
    positive,
    same,
    signed_parts,
    split,
    stabilize,
)

# ---------------------------------------------------------------- stabilizers

STABILIZERS: dict[str, Callable] = {
    "sign(0) = +1": stabilize,
    "sign(0) = -1": lambda z, eps: z + np.where(z > 0, eps, -eps).astype(z.dtype),
    "sign(0) = 0": lambda z, eps: z + eps * np.sign(z),
    "no sign": lambda z, eps: z + z.dtype.type(eps),
    "zeros only": lambda z, eps: np.where(z == 0, z.dtype.type(eps), z),
}
"""What keeps the denominators from 0: ``z + eps sign(z)`` and the forms that others have of it."""


@dataclass(frozen=True, repr=False)
class Variant(Rule):
    """Another rule with a change; its shares and denominators unless a subclass says otherwise."""

    rule: Rule
    shown: ClassVar = ("rule",)

    def shares(self, layer, R, x, y):
        return self.rule.shares(layer, R, x, y)

    def stabilized(self, z):
        return self.rule.stabilized(z)

    def divided(self, R, z):
        return self.rule.divided(R, z)


@dataclass(frozen=True, repr=False)
class Stabilized(Variant):
    """A rule with another stabilizer, one of `STABILIZERS`.

    Examples
    --------
    >>> Stabilized(Epsilon(), 0.5, "sign(0) = -1").stabilized(np.array([2.0, 0.0, -1.0]))
    array([ 2.5, -0.5, -1.5])
    """

    epsilon: float = 1e-6
    how: str = "sign(0) = +1"
    shown: ClassVar = ("rule", "epsilon", "how")

    def stabilized(self, z):
        return STABILIZERS[self.how](z, self.epsilon)

    def divided(self, R, z):
        return divide(R, self.stabilized(z))


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

    def propagate(self, layer, R, x, y, note=ignore):
        weight, _ = layer.parameters(x.shape[1:])
        return self.rule.propagate(_Without(layer), R, x, layer.linear(x, weight, None), note)


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
    shown: ClassVar = ("rule", "layer")

    def propagate(self, layer, R, x, y, note=ignore):
        y = self.layer.forward(x) if self.own else y
        return self.rule.propagate(self.layer, R, x, y, note)


@dataclass(frozen=True, repr=False)
class Turned(Variant):
    """A rule that sends back through a kernel that is turned the wrong way: ``c = adjoint(s, turn(w))``."""

    turn: Callable = same
    shown: ClassVar = ("rule",)

    def propagate(self, layer, R, x, y, note=ignore):
        return self.rule.propagate(_Turned(layer, self.turn), R, x, y, note)


@dataclass(frozen=True, repr=False)
class NotWeighed(Variant):
    """A rule whose last step is missing: ``R_i = c_i`` instead of ``x_i c_i``."""

    def propagate(self, layer, R, x, y, note=ignore):
        shape, total = x.shape[1:], 0
        weight, _ = layer.parameters(shape)
        for share in self.rule.shares(layer, R, x, y):
            weights = [changed(weight, part.change) for part in share.parts]
            z = share.z
            if z is None:
                z = sum(layer.linear(part.x, w, part.bias) for part, w in zip(share.parts, weights))
            s = self.rule.divided(share.R, z)
            total = total + sum(layer.adjoint(s, w, shape) for w in weights)
        return np.broadcast_to(total, x.shape).copy()


@dataclass(frozen=True, repr=False)
class Gradient(Rule):
    """The layer's gradient: ``R_i = sum_j w_ij R_j``, what is left where a framework knows no rule."""

    def propagate(self, layer, R, x, y, note=ignore):
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
        what = getattr(self.change, "__doc__", "") or "w"
        return f"Weights({what.split(',')[0].rstrip('.')})"

    def shares(self, layer, R, x, y):
        _, bias = layer.parameters(x.shape[1:])
        bias = None if bias is None or self.bias is None else self.bias(bias)
        yield Share(R, [Part(x, self.change, bias)])


@dataclass(frozen=True, repr=False)
class GammaOpen(Gamma):
    """The gamma rule that drops relevance of outputs that are exactly 0."""

    def shares(self, layer, R, x, y):
        return super().shares(layer, R * (y != 0), x, y)


@dataclass(frozen=True, repr=False)
class GammaPositive(Gamma):
    """The gamma rule with the positive form for every z: ``(z_ij + gamma z_ij+) / (sum_i ... ) R_j``."""

    def shares(self, layer, R, x, y):
        _, bias = layer.parameters(x.shape[1:])
        along, against = Favour(self.gamma, 1), Favour(self.gamma, -1)
        yield Share(R, signed_parts(split(x), along, against, None if bias is None else along(bias)))


@dataclass(frozen=True, repr=False)
class BiasInBoth(AlphaBeta):
    """Alpha-beta with the whole bias in both denominators: ``z_j+ = sum_i z_ij+ + b_j``, ``z_j-`` alike."""

    def shares(self, layer, R, x, y):
        _, bias = layer.parameters(x.shape[1:])
        for factor, along, against, mark in (
            (self.alpha, positive, negative, "+"),
            (-self.beta, negative, positive, "-"),
        ):
            if factor:
                yield Share(factor * R, signed_parts(split(x), along, against, bias), mark=mark)


@dataclass(frozen=True, repr=False)
class AlphaBetaWeights(AlphaBeta):
    """Alpha-beta on the signs of weights: ``alpha x w+ / (sum x w+ + b+) - beta x w- / (sum x w- + b-)``."""

    def shares(self, layer, R, x, y):
        _, bias = layer.parameters(x.shape[1:])
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
        _, bias = layer.parameters(x.shape[1:])
        for share in super().shares(layer, R, x, y):
            first, *bounds = share.parts
            yield share._replace(parts=[first._replace(bias=bias), *bounds])


@dataclass(frozen=True, repr=False)
class ZBoxOwn(Rule):
    """z^B whose bounds are each sample's own smallest and largest value, and z + 1e-9."""

    def stabilized(self, z):
        return z + z.dtype.type(1e-9)

    def shares(self, layer, R, x, y):
        axes = tuple(range(1, x.ndim))
        low = np.broadcast_to(x.min(axes, keepdims=True), x.shape)
        high = np.broadcast_to(x.max(axes, keepdims=True), x.shape)
        yield Share(R, [Part(x), Part(-low, positive), Part(-high, negative)])


@dataclass(frozen=True, repr=False)
class CentredNorm(Rule):
    """Batch normalization as three layers: ``R_x = x (y - beta) R / stabilize((x - mean) y)``."""

    epsilon: float = 1e-7

    def propagate(self, layer, R, x, y, note=ignore):
        view = layer.parameters(x.shape[1:])[0].shape
        mean = np.broadcast_to(layer.mean, layer.scale_and_shift()[0].shape).reshape(view)
        beta = 0 if layer.beta is None else np.broadcast_to(layer.beta, mean.size).reshape(view)
        return divide(x * (y - beta) * R, stabilize((x - mean) * y, self.epsilon))


@dataclass(frozen=True, repr=False)
class ScaleOnly(Rule):
    """Batch normalization without its shift: ``R_x = g x / (g x + 1e-9) R``, which is R but where x = 0."""

    def propagate(self, layer, R, x, y, note=ignore):
        layer = squared_variance(layer)
        gx = layer.linear(x, layer.parameters(x.shape[1:])[0], None)
        return divide(gx * R, gx + gx.dtype.type(1e-9))


def squared_variance(layer: BatchNorm) -> BatchNorm:
    """The batch normalization with ``sqrt(variance^2 + eps)`` as its denominator."""
    return replace(layer, variance=np.square(layer.variance))


def _fused_in_innvestigate(layer: BatchNorm) -> Affine:
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
            return [branch == y for branch in x], tuple
        if isinstance(self.layer, GlobalMaxPool):
            flat = _signed(self.layer, x).reshape(*x.shape[:2], -1)
            top = flat.max(-1)
            return [value == top for value in np.moveaxis(flat, -1, 0)], lambda parts: np.stack(
                [p.reshape(top.shape) for p in parts], -1
            ).reshape(x.shape)
        g, image, top = self.layer.windows, lift(_signed(self.layer, x)), lift(_signed(self.layer, y))
        pads, out = g.pads(image.shape[2:]), top.shape[2:]
        hits = [pixels == top for _, _, pixels in im2col.taps(im2col.pad(image, pads, -np.inf), g, out)]

        def back(parts: list[np.ndarray]) -> np.ndarray:
            whole = im2col.pad(np.zeros_like(image), pads)
            for (_, _, place), part in zip(im2col.taps(whole, g, out), parts):
                place += part
            return im2col.crop(whole, pads).reshape(x.shape)

        return hits, back

    def relprop(self, R, x, y, rule=None, note=ignore):
        hits, back = self.winners(x, y)
        R = R.reshape(hits[0].shape) if not isinstance(self.layer, Maximum) else R
        if self.how == "last":
            later = np.zeros_like(hits[0])
            for hit in reversed(hits):
                hit &= ~later
                later |= hit
        count = sum(hit.astype(R.dtype) for hit in hits) if self.how == "equal" else 1
        return back([R * hit / count for hit in hits])


class Scaled:
    """A layer that takes no rule, with the relevance ``R y / stabilize(y)`` in the place of R."""

    def __init__(self, layer: Layer, epsilon: float) -> None:
        self.layer, self.epsilon = layer, epsilon
        self.merges = layer.merges
        self.forward = layer.forward

    def relprop(self, R, x, y, rule=None, note=ignore):
        return self.layer.relprop(divide(R * y, stabilize(y, self.epsilon)), x, y)


def _takes_the_maximum(layer: Layer) -> bool:
    return isinstance(layer, (MaxPool2D, GlobalMaxPool, Maximum))


# ---------------------------------------------------------------- the libraries


@dataclass(frozen=True)
class Convention:
    """How a library does it.

    Attributes
    ----------
    name, version : str
    stabilizer : str
        In words.
    epsilon : float
        Its default.
    notes : dict of str
        Deviations from the definition in words, by the name of the rule, or of the layer.
    """

    name: str
    version: str
    stabilizer: str
    epsilon: float
    notes: Mapping[str, str] = field(default_factory=dict)
    rules: Callable[[Layer, Rule], Rule | None] = field(default=lambda layer, rule: rule, repr=False)
    layers: Callable[[Layer], Any] = field(default=lambda layer: layer, repr=False)

    def translate(self, layer: Layer, rule: Rule) -> Rule:
        """The rule that computes what the library gives when it is asked for `rule` on `layer`.

        Raises
        ------
        UnsupportedError
            The library has no such rule, or not for this layer.

        Examples
        --------
        >>> CONVENTIONS["captum"].translate(Dense([[1.0]]), Gamma(0.5))
        Stabilized(Weights(w + gamma w+), 1e-09, sign(0) = +1)
        """
        if self.name != "numpylrp" and not isinstance(layer, Linear):
            raise UnsupportedError(f"what {self.name} makes of {type(layer).__name__} is not known here")
        found = self.rules(layer, rule)
        if found is None:
            kind = type(layer).__name__
            why = f" ({self.notes[kind]})" if kind in self.notes else ""
            raise UnsupportedError(f"{self.name} {self.version} has no {rule} for {kind}{why}")
        return found

    def layer(self, layer: Layer) -> Any:
        """What the library has for a layer that takes no rule: itself, or a `Ties` or `Scaled`."""
        return layer if layer.takes_rule else self.layers(layer)


def _epsilon(rule: Rule, default: float) -> float:
    """The epsilon that was asked for, else the library's."""
    own = next((f.default for f in fields(rule) if f.name == "epsilon"), rule.epsilon)
    return default if rule.epsilon == own else rule.epsilon


def _weighted(layer: Layer) -> bool:
    return layer.family in ("dense", "conv")


def _zennit(layer: Layer, rule: Rule) -> Rule | None:
    eps = _epsilon(rule, 1e-6)
    if isinstance(layer, BatchNorm) or isinstance(rule, Pass):
        return Pass()
    if isinstance(rule, (AbsZ, Variant)) or layer.family == "norm":
        return None
    if not _weighted(layer):  # no parameters to change: what a rule does to them is without effect
        if isinstance(rule, (WSquare, Flat)) and not layer.merges:
            return Even(eps)
        return rule if isinstance(rule, Epsilon) else Epsilon(eps)
    if isinstance(rule, Gamma):
        return GammaOpen(rule.gamma, eps)
    if type(rule) is WSquare:
        return WSquareBias(eps)
    return replace(rule, epsilon=eps)


def _captum(layer: Layer, rule: Rule) -> Rule | None:
    eps = _epsilon(rule, 1e-9)
    if isinstance(rule, Pass):
        return rule
    if isinstance(rule, Epsilon):
        return None if rule.relative else Epsilon(eps)
    positive_only = isinstance(rule, AlphaBeta) and rule.beta == 0
    if not (isinstance(rule, Gamma) or positive_only) or layer.family == "norm":
        return None
    if not _weighted(layer):  # nothing to change
        return Epsilon(eps)
    if isinstance(rule, Gamma):
        return Stabilized(Weights(Favour(rule.gamma, 1)), eps)
    return Stabilized(Weights(positive, same if rule.bias else None), eps)


def _innvestigate(layer: Layer, rule: Rule) -> Rule | None:
    zeros = lambda rule: Stabilized(rule, 1e-7, "zeros only")  # noqa: E731
    if isinstance(rule, Pass):
        return rule
    if isinstance(layer, BatchNorm) and isinstance(rule, Epsilon):
        return CentredNorm()
    if not _weighted(layer) and layer.family != "norm":
        return zeros(LRP0())
    if isinstance(rule, Epsilon):
        eps = _epsilon(rule, 1e-7)
        found = None if rule.relative else Epsilon(eps) if eps else zeros(rule)
    elif isinstance(rule, ZPlus):
        found = zeros(ZPlus(bias=False))
    elif isinstance(rule, AlphaBeta):
        found = zeros(BiasInBoth(rule.alpha, rule.beta) if rule.bias else rule)
    else:
        found = zeros(rule) if isinstance(rule, (WSquare, ZBox)) else None
    if found is not None and isinstance(layer, BatchNorm):
        return On(found, _fused_in_innvestigate(layer))
    return found if _weighted(layer) else None


def _lrp_toolbox(layer: Layer, rule: Rule) -> Rule | None:
    pools = isinstance(layer, (SumPool2D, GlobalSumPool))
    padded = getattr(layer, "padding", ()) not in ((), ((0, 0),), ((0, 0), (0, 0)))
    if not (_weighted(layer) or pools) or padded:
        return None
    if isinstance(rule, Epsilon):
        return None if rule.relative else Epsilon(_epsilon(rule, 0) or (1e-12 if pools else 1e-16))
    if isinstance(rule, AlphaBeta) and rule.bias:
        if pools and rule.beta:
            return RTwice(rule.alpha, rule.beta, 1e-16)
        return replace(rule, epsilon=_epsilon(rule, 1e-16))
    return rule if isinstance(rule, WSquare) else None


def _lxt(layer: Layer, rule: Rule) -> Rule | None:
    if not isinstance(rule, Epsilon) or rule.relative or layer.family == "norm":
        return None
    return Stabilized(rule, _epsilon(rule, 1e-6 if layer.family == "dense" else 1e-8), "no sign")


def _torchlrp(layer: Layer, rule: Rule) -> Rule | None:
    if not _weighted(layer):
        return Gradient()
    if layer.family == "conv" and not (
        isinstance(layer, Conv2D)
        and layer.stride == layer.dilation == (1, 1)
        and layer.padding == ((1, 1), (1, 1))
        and layer.groups == 1
    ):
        return None
    if isinstance(rule, Epsilon):
        return None if rule.relative else Stabilized(rule, _epsilon(rule, 0.1), "sign(0) = -1")
    if isinstance(rule, Gamma):
        f = FavourSquare(rule.gamma)
        return Stabilized(Weights(f, f), _epsilon(rule, 1e-10), "sign(0) = -1")
    if isinstance(rule, AlphaBeta) and rule.alpha in (1, 2):
        return Stabilized(AlphaBeta(rule.alpha, rule.beta, bias=False), 1e-6, "zeros only")
    return None


def _rap(layer: Layer, rule: Rule) -> Rule | None:
    if isinstance(layer, BatchNorm):
        return ScaleOnly()
    if layer.family in ("pool", "merge"):
        return LRP0()
    if layer.family == "conv" and layer.channels[0] == 3:
        return ZBoxOwn()
    return Quarters(rule.alpha, rule.beta) if _weighted(layer) and isinstance(rule, AlphaBeta) else None


CONVENTIONS: dict[str, Convention] = {
    c.name: c
    for c in (
        Convention("numpylrp", "", "z + eps sign z, sign(0) = +1", 1e-6),
        Convention(
            "zennit",
            "0.5.1",
            "z + eps sign z, sign(0) = +1, in all its rules",
            1e-6,
            {
                "Gamma": "relevance of outputs that are exactly 0 is dropped",
                "WSquare": "b^2 in the denominator",
                "BatchNorm": "relevance passes unchanged, unless a canonizer merged it",
                "Pool": "z+, gamma and alpha-beta on a pooling are the epsilon rule",
                "Epsilon": "with epsilon 0, 0/0 is NaN (here 0)",
            },
            _zennit,
        ),
        Convention(
            "captum",
            "0.9.0",
            "z + eps sign z, sign(0) = +1",
            1e-9,
            {
                "Gamma": "weights only: w + gamma w+ whatever the sign of x, z as of x >= 0; bias as it is",
                "ZPlus": "weights only: w+ whatever the sign of x; bias as it is, also where it is negative",
                "MaxPool2D": "epsilon rule: relevance of a maximum that is exactly 0 is dropped",
            },
            _captum,
            lambda layer: Scaled(layer, 1e-9) if _takes_the_maximum(layer) else layer,
        ),
        Convention(
            "innvestigate",
            "2.1",
            "epsilon rule sign-aware, sign(0) = +1; others replace exact zeros",
            1e-7,
            {
                "AlphaBeta": "the whole bias in both denominators",
                "ZPlus": "without bias",
                "BatchNorm": "epsilon: eps is added to (x - mean) y; other rules: sqrt(var**2 + eps), "
                "and gamma missing from the shift",
                "Pool": "always LRP-0",
            },
            _innvestigate,
        ),
        Convention(
            "lrp_toolbox",
            "2022",
            "z + eps sign z, sign(0) = +1",
            1e-16,
            {
                "Pool": "alpha-beta with beta > 0 multiplies the negative part of sum pooling by R twice",
                "MaxPool2D": "equal maxima share equally",
                "Conv2D": "no padding",
            },
            _lrp_toolbox,
            lambda layer: Ties(layer, "equal") if _takes_the_maximum(layer) else layer,
        ),
        Convention(
            "LXT",
            "2",
            "z + eps, not sign-aware",
            1e-6,
            {"Epsilon": "1e-6 for fully connected layers, 1e-8 for others and sums"},
            _lxt,
        ),
        Convention(
            "TorchLRP",
            "2021",
            "z + eps sign z, sign(0) = -1; alpha-beta replaces exact zeros by 1e-6",
            0.1,
            {
                "Epsilon": "epsilon is 0.1",
                "Gamma": "w + gamma w+^2, weights only, b + gamma b+^2; gamma is fixed at 0.1 in its code",
                "AlphaBeta": "without bias",
                "ZPlus": "without bias",
                "Conv2D": "the way back assumes padding 1 and stride 1: other convolutions fail",
                "Pool": "plain gradient: average pooling, batch normalization and sums have no rule",
                "BatchNorm": "plain gradient",
            },
            _torchlrp,
        ),
        Convention(
            "RAP",
            "2020",
            "only exact zeros, whose relevance is dropped",
            1e-9,
            {
                "AlphaBeta": "x+ w+ and x- w- each divided by its own sum: R twice where x has both signs; "
                "no bias; a convolution of 3 channels takes z^B with the image's own bounds",
                "ZPlus": "as AlphaBeta",
                "BatchNorm": "g x / (g x + 1e-9) R, the identity",
                "Pool": "always LRP-0",
            },
            _rap,
            lambda layer: Scaled(layer, 0.0) if _takes_the_maximum(layer) else layer,
        ),
    )
}
"""The libraries by name."""


def convention(what: str | Convention) -> Convention:
    """A convention from its name, or itself."""
    if isinstance(what, Convention):
        return what
    if what not in CONVENTIONS:
        raise LRPError(f"there is no convention {what!r}; there are {', '.join(CONVENTIONS)}")
    return CONVENTIONS[what]


def translated(network: Network, rules: Mapping[str, Rule], what: str | Convention) -> dict[str, Rule]:
    """The rules of a network's layers as a library would apply them.

    Parameters
    ----------
    network : Network
    rules : mapping of layer name to Rule
        As of ``Composite.rules(network)``.
    what : str or Convention

    Raises
    ------
    UnsupportedError
        The library has no such rule; with the layer's name.
    """
    found = {}
    for name, rule in rules.items():
        try:
            found[name] = convention(what).translate(network[name], rule)
        except UnsupportedError as error:
            raise UnsupportedError(f"layer {name!r}: {error}") from None
    return found


# ---------------------------------------------------------------- their size


class Case(NamedTuple):
    """One layer, its input, relevance of its output, and a rule (None for a layer that takes none)."""

    row: str
    column: str
    layer: Any
    x: Any
    R: np.ndarray
    rule: Rule | None


class Deviation(NamedTuple):
    """How far a library lies from the definition: the largest difference over the largest |R|."""

    library: str
    row: str
    column: str
    size: float | None
    """None where the library has no such rule."""


def cases() -> list[Case]:
    """A fixed set of small layers, for every rule: x >= 0, x of both signs, and an output that is exactly 0.

    Outputs are at least 0.05 in size but where they are 0, so that no size hangs on rounding.
    """
    rng = np.random.default_rng(0)
    W = np.round(rng.uniform(-1, 1, (3, 5)), 2)
    b = np.array([0.25, -0.25, 0.5])
    R = np.array([[1.0, -0.5, 2.0]])
    mixed = np.array([[1.0, -0.5, 0.75, -1.25, 0.5]])
    zero = Dense([[1.0, 1.0, -0.5, 0.25, -0.5], *W[1:]], [-0.5, *b[1:]])
    at_zero = np.array([[1.0, 0.5, 1.0, 1.0, 1.5]])  # z = 1 + 0.5 - 0.5 + 0.25 - 0.75 - 0.5 = 0
    rules = {
        "LRP-0": LRP0(),
        "Epsilon": Epsilon(),
        "Gamma": Gamma(),
        "ZPlus": ZPlus(),
        "AlphaBeta": AlphaBeta(),
        "WSquare": WSquare(),
        "Flat": Flat(),
        "ZBox": ZBox(-2.0, 2.0),
    }
    found = []
    for name, rule in rules.items():
        found.append(Case(name, "x >= 0", Dense(W, b), abs(mixed), R, rule))
        found.append(Case(name, "mixed x", Dense(W, b), mixed, R, rule))
        found.append(Case(name, "z = 0", zero, at_zero, R, rule))
    image = np.array([[[[1.0, 2.0], [3.0, -2.5]]]])
    norm = BatchNorm([1.5], [0.25], [0.5], [2.0], 1e-3)
    pixels = np.arange(1.0, 5.0).reshape(1, 1, 2, 2)
    for name, rule in (("Epsilon", Epsilon()), ("ZPlus", ZPlus()), ("AlphaBeta", AlphaBeta())):
        found.append(Case(f"BatchNorm, {name}", "mixed x", norm, image, pixels, rule))
        found.append(Case(f"Pool, {name}", "x >= 0", AveragePool2D(2), abs(image), pixels[..., :1, 1:], rule))
        found.append(Case(f"Pool, {name}", "mixed x", AveragePool2D(2), image, pixels[..., :1, 1:], rule))
    branches = (np.array([[1.0, 2.0]]), np.array([[-0.5, 3.0]]))
    found.append(Case("Add, Epsilon", "mixed x", Add(), branches, np.array([[1.0, -1.0]]), Epsilon()))
    pool = MaxPool2D(2)
    found.append(
        Case("MaxPool2D, ties", "x >= 0", pool, np.full((1, 1, 2, 2), 2.0), pixels[..., :1, :1], None)
    )
    found.append(Case("MaxPool2D, ties", "z = 0", pool, np.zeros((1, 1, 2, 2)), pixels[..., :1, :1], None))
    return found


def deviations(
    given: Iterable[Case] | None = None, conventions: Iterable[str] | None = None
) -> list[Deviation]:
    """How far the libraries lie from the definition.

    Parameters
    ----------
    given : iterable of Case, optional
        By default `cases`.
    conventions : iterable of str, optional
        By default all but our own.

    Returns
    -------
    list of Deviation

    Examples
    --------
    >>> x, R = np.ones((1, 1, 2, 2)), np.ones((1, 1, 1, 1))
    >>> [found] = deviations([Case("max", "", MaxPool2D(2), x, R, None)], ["lrp_toolbox"])
    >>> found.size
    0.75
    """
    given = cases() if given is None else list(given)
    names = [name for name in CONVENTIONS if name != "numpylrp"] if conventions is None else conventions
    return [
        Deviation(name, case.row, case.column, _size(convention(name), case))
        for name in names
        for case in given
    ]


def _size(what: Convention, case: Case) -> float | None:
    layer, x, rule = case.layer, case.x, case.rule
    y = layer.forward(x)
    try:
        theirs = what.layer(layer).relprop(case.R, x, y, rule and what.translate(layer, rule))
    except UnsupportedError:
        return None
    ours = layer.relprop(case.R, x, y, rule)
    pairs = zip(theirs, ours) if layer.merges else [(theirs, ours)]
    return max(float(abs(a - b).max()) for a, b in pairs) / float(abs(case.R).max())


def table(found: Iterable[Deviation] | None = None) -> str:
    """`deviations` as a table: a row for each library and rule, with what is known of it in words.

    A difference is relative to the largest |R|; where z = 0, R is divided by eps and differences are as
    large as 1 / eps. "-" stands for a rule that the library does not have.
    """
    found = deviations() if found is None else list(found)
    heads = list(dict.fromkeys(d.column for d in found))
    rows: dict[tuple, dict] = {}
    for d in found:
        rows.setdefault((d.library, d.row), {})[d.column] = (
            "-" if d.size is None else f"{d.size:.1e}" if d.size else "0"
        )
    lines = [("library", "rule", *heads, "known of it")]
    for (library, row), sizes in rows.items():
        if set(sizes.values()) == {"-"}:
            continue
        notes = convention(library).notes
        note = notes.get(row.split(",")[0], "")
        lines.append((library, row, *(sizes.get(head, "") for head in heads), note))
    return columns(lines)
