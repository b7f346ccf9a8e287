"""Rules for layers that are not linear: products of activations, softmax, recurrent layers, normalization.

A rule for linear layers asks for one set of weights. These rules are for the kinds of layers that name
them in ``own_rules``; a composite gives them to those and to no other. Each is, where it can be, some
linear steps (`Nonlinear.inner`) that are shared out by a rule of linear layers, so that an audit can
account for what bias and epsilon take.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, ClassVar, NamedTuple

import numpy as np

from .errors import LRPError
from .rules import Epsilon, Rule, divide


class Inner(NamedTuple):
    """One linear step inside a layer: what `Rule.propagate` is called with."""

    rule: Rule
    linear: Any
    R: np.ndarray
    x: np.ndarray
    y: np.ndarray


class Nonlinear(Rule):
    """A rule for the kinds of layers that name it in ``own_rules``."""

    words: ClassVar[str] = ""
    """What an audit adds where the rule was at work."""

    def inner(self, layer: Any, R: np.ndarray, x: Any, y: np.ndarray) -> Iterator[Inner]:
        """The linear steps that the rule is made of, if it is."""
        return iter(())


def accepts(layer: Any, rule: Rule) -> bool:
    """Whether the layer can be given the rule."""
    return isinstance(rule, layer.own_rules) if isinstance(rule, Nonlinear) else layer.takes_rule


# ---------------------------------------------------------------- products, value by value


class Product(Nonlinear):
    """How the relevance of a product, value by value, is shared among its factors."""

    def split(
        self, R: np.ndarray, factors: tuple[np.ndarray, ...], signal: int | None
    ) -> tuple[np.ndarray, ...]:
        """The relevance of each factor, of R's shape; `signal` is the index of the one that is no gate."""
        raise NotImplementedError

    def propagate(self, layer, R, x, y, note=None):
        return self.split(R, x, layer.signal)


@dataclass(frozen=True, repr=False)
class SignalTakesAll(Product):
    """The signal takes all, its gates nothing (Arras et al. 2017).

    Examples
    --------
    >>> from numpylrp.layers import Multiply
    >>> gate, signal = np.array([[0.5]]), np.array([[4.0]])
    >>> Multiply(signal=1).relprop(np.array([[6.0]]), (gate, signal), gate * signal, SignalTakesAll())
    (array([[0.]]), array([[6.]]))
    """

    def split(self, R, factors, signal):
        if signal is None:
            raise LRPError(
                f"SignalTakesAll: which of the {len(factors)} factors is the signal? "
                "Give the layer its index, signal"
            )
        return tuple(R if k == signal else np.zeros_like(R) for k in range(len(factors)))


@dataclass(frozen=True, repr=False)
class Uniform(Product):
    """Equal shares, R / K for each of K factors (the uniform rule, Achtibat et al. 2024, AttnLRP)."""

    words: ClassVar[str] = "shares of a product depend on how it is bracketed: (a b) c and a (b c) differ"

    def split(self, R, factors, signal):
        return (R / len(factors),) * len(factors)


@dataclass(frozen=True, repr=False)
class Proportional(Product):
    """Shares in proportion to the factors: ``R_k = |a_k| / sum_l |a_l| R``, or without the bars.

    Which values of a gate the papers mean, before or after its sigmoid, could not be checked: here
    they are the factors of the product. autolrp has the absolute form.

    Parameters
    ----------
    absolute : bool
        False: ``a_k / sum_l a_l``; where the sum is 0, the relevance is dropped.

    Examples
    --------
    >>> from numpylrp.layers import Multiply
    >>> a, b = np.array([[1.0]]), np.array([[-3.0]])
    >>> Multiply().relprop(np.array([[8.0]]), (a, b), a * b, Proportional())
    (array([[2.]]), array([[6.]]))
    """

    absolute: bool = True

    def split(self, R, factors, signal):
        sizes = [np.abs(a) if self.absolute else a for a in factors]
        s = divide(R, sum(sizes[1:], sizes[0]))
        return tuple(np.broadcast_to(a, R.shape) * s for a in sizes)


# ---------------------------------------------------------------- attention


@dataclass(frozen=True, repr=False)
class Bilinear(Nonlinear):
    """A matrix product of two activations, O = A B, by halves (Achtibat et al. 2024, AttnLRP, prop. 3.3).

    ``R_A = A * ((R / stab(2 O)) B^T)`` and ``R_B = B * (A^T (R / stab(2 O)))``: each factor is given half
    of the relevance by the epsilon rule, with the other factor for weights.

    Parameters
    ----------
    epsilon : float
    doubled : bool
        Whether the stabilizer stands on 2 O, as in the proposition, or on O: ``R / (2 stab(O))``.

    Examples
    --------
    >>> from numpylrp.layers import MatMul
    >>> a, b = np.array([[[1.0, 2.0]]]), np.array([[[3.0], [-1.0]]])
    >>> layer = MatMul()
    >>> R_a, R_b = layer.relprop(np.array([[[4.0]]]), (a, b), layer.forward((a, b)), Bilinear(0))
    >>> R_a, R_b.ravel()
    (array([[[ 6., -4.]]]), array([ 6., -4.]))
    """

    epsilon: float = 1e-6
    doubled: bool = True
    shown: ClassVar = ("epsilon",)
    words: ClassVar[str] = Uniform.words

    def inner(self, layer, R, x, y):
        rule = Epsilon(self.epsilon / 2 if self.doubled else self.epsilon)
        for held in (1, 0):
            yield Inner(rule, layer.held(x, held), R / 2, x[1 - held], y / layer.scale)

    def propagate(self, layer, R, x, y, note=None):
        return tuple(rule.propagate(*step) for rule, *step in self.inner(layer, R, x, y))


@dataclass(frozen=True, repr=False)
class SoftmaxTaylor(Nonlinear):
    """Softmax by its Taylor expansion at the input (Achtibat et al. 2024, AttnLRP, prop. 3.1).

    ``R_x_i = x_i (R_i - s_i sum_j R_j)`` with s the softmax of x; a logit that is masked (-inf) gets 0.
    The rule does not conserve, and it depends on a shift of the logits, which softmax itself does not see.

    Examples
    --------
    >>> from numpylrp.layers import Softmax
    >>> x = np.array([[2.0, 2.0, -np.inf]])
    >>> Softmax().relprop(np.array([[3.0, 1.0, 0.0]]), x, Softmax().forward(x), SoftmaxTaylor())
    array([[ 2., -2.,  0.]])
    """

    words: ClassVar[str] = (
        "the softmax rule does not conserve, and depends on a shift of all logits, which softmax does not see"
    )

    def propagate(self, layer, R, x, y, note=None):
        axis = layer.axis + 1 if layer.axis >= 0 else layer.axis
        return np.where(np.isinf(x), 0, x) * (R - y * R.sum(axis, keepdims=True))


# ---------------------------------------------------------------- recurrent layers


@dataclass(frozen=True, repr=False)
class Gated(Nonlinear):
    """A recurrent layer: `products` for each gate and its signal, `sums` for all that is linear.

    A recurrent layer given a rule of linear layers alone shares its sums by that rule, and its
    signals take all.

    Parameters
    ----------
    products : Product
        `SignalTakesAll` (Arras et al. 2017), `Uniform` or `Proportional` (variants of it).
    sums : Rule
        For pre-activations and for the sum of the old state and the new.
    """

    products: Product = field(default_factory=SignalTakesAll)
    sums: Rule = field(default_factory=lambda: Epsilon(1e-3))
    shown: ClassVar = ("products", "sums")

    def __post_init__(self) -> None:
        super().__post_init__()
        if not isinstance(self.products, Product):
            raise LRPError(f"Gated: products must be a Product rule, not {self.products!r}")
        if not isinstance(self.sums, Rule) or isinstance(self.sums, Nonlinear):
            raise LRPError(f"Gated: sums must be a rule of linear layers, not {self.sums!r}")


@dataclass(frozen=True, repr=False)
class Spread(Epsilon):
    """The epsilon rule with what bias and epsilon take spread evenly over the inputs (Arras et al. 2017).

    ``R_i = sum_j (x_i w_ij + (b_j + eps sign(z_j)) / n) / (z_j + eps sign(z_j)) R_j`` for n inputs: the sum
    is kept, which the authors use as a sanity check (their ``bias_factor`` 1).

    Examples
    --------
    >>> from numpylrp.layers import Dense
    >>> dense, x = Dense([[1.0, 2.0]], [5.0]), np.array([[3.0, 1.0]])
    >>> dense.relprop(np.array([[10.0]]), x, dense.forward(x), Spread(0.0))
    array([[5.5, 4.5]])
    """

    def propagate(self, layer, R, x, y, note=None):
        R_x = super().propagate(layer, R, x, y, note)
        if layer.family == "dense":  # each position by itself
            return R_x + (R.sum(-1, keepdims=True) - R_x.sum(-1, keepdims=True)) / x.shape[-1]
        left = R.reshape(len(R), -1).sum(1) - R_x.reshape(len(R), -1).sum(1)
        return R_x + left.reshape(-1, *(1,) * (x.ndim - 1)) / x[0].size


# ---------------------------------------------------------------- normalization and residual sums


class _Scale:
    """``y = weight x + bias``, value by value, for one batch."""

    merges = False
    family = "norm"

    def __init__(self, weight: np.ndarray, bias: np.ndarray) -> None:
        self.weight, self.bias = weight, bias

    def parameters(self, shape: Any) -> tuple[np.ndarray, np.ndarray]:
        return self.weight, self.bias

    def linear(self, x: np.ndarray, weight: np.ndarray, bias: np.ndarray | None) -> np.ndarray:
        return x * weight if bias is None else x * weight + bias

    def adjoint(self, s: np.ndarray, weight: np.ndarray, shape: Any) -> np.ndarray:
        return s * weight


@dataclass(frozen=True, repr=False)
class MeanHeld(Nonlinear):
    """Normalization by the sample's own values with the mean held too (an option of Ali et al. 2022).

    The layer is then ``y = g x + b`` value by value, with ``g = gamma / d`` and ``b = beta - g mean``, under
    the epsilon rule: ``R_x = g x / stab(y) R``. The mean takes relevance as a bias does.

    Parameters
    ----------
    epsilon : float
    """

    epsilon: float = 1e-6
    shown: ClassVar = ("epsilon",)

    def inner(self, layer, R, x, y):
        g = layer.gamma * layer.inverse
        yield Inner(Epsilon(self.epsilon), _Scale(g, y - g * x), R, x, y)

    def propagate(self, layer, R, x, y, note=None):
        (step,) = self.inner(layer, R, x, y)
        return step.rule.propagate(*step[1:], note)


@dataclass(frozen=True, repr=False)
class AbsBeta(Nonlinear):
    """Normalization shared with its shift: ``R_x = |y - beta| / (|y - beta| + |beta|) R`` (autolrp 0.2)."""

    def inner(self, layer, R, x, y):
        beta = np.zeros((), x.dtype) if layer.beta is None else layer.beta
        scaled = np.abs(y - beta)
        yield Inner(
            Epsilon(0.0), _Scale(np.ones((), x.dtype), np.abs(beta)), R, scaled, scaled + np.abs(beta)
        )

    def propagate(self, layer, R, x, y, note=None):
        (step,) = self.inner(layer, R, x, y)
        return step.rule.propagate(*step[1:], note)


@dataclass(frozen=True, repr=False)
class RatioOfSums(Nonlinear):
    """A residual sum by the ratio of the branches' total relevance (as in the code of Chefer et al. 2021).

    The branches' shares by LRP-0, ``a = x_1 R / y`` and ``b = x_2 R / y``, are rescaled so that their sums
    over a sample are to each other as ``|sum a| : |sum b|`` and add up to that of R.
    """

    def propagate(self, layer, R, x, y, note=None):
        R_x = Rule.propagate(Epsilon(0.0), layer, R, x, y, note)
        axes = tuple(range(2, x.ndim))
        sums = R_x.sum(axes, keepdims=True)
        total = R.sum(tuple(range(1, R.ndim))).reshape(-1, *(1,) * (x.ndim - 1))
        factor = divide(np.abs(sums), np.broadcast_to(np.abs(sums).sum(1, keepdims=True), sums.shape))
        return R_x * divide(factor * total, sums)
