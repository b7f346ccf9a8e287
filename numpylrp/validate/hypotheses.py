"""Ways of being wrong, and other conventions, as hypotheses that the judge tries."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from .. import layers as L
from ..errors import LRPError
from ..layers.base import Linear
from ..network import Network
from ..rules import LRP0, AlphaBeta, Epsilon, Favour, Flat, Gamma, Pass, Rule, WSquare, ZBox, ZPlus
from . import variants as v
from .conventions import CONVENTIONS, Convention

Change = Callable[[Any, Rule | None], tuple[Any, Rule | None] | None]
"""What a layer and its rule become, or None where they stay."""


@dataclass(frozen=True)
class Hypothesis:
    """One way of being different.

    Attributes
    ----------
    name : str
        What the verdict says.
    change : function of (layer, rule)
        Gives the layer and the rule in their place, or None.
    forward : bool
        Whether the changed layers also run the forward pass.
    normalization : str, optional
        Another treatment of batch normalization: another network.
    library : bool
    """

    name: str
    change: Change = lambda layer, rule: None
    forward: bool = False
    normalization: str | None = None
    library: bool = False


def _ruled(change: Callable[[Any, Rule], Rule | None]) -> Change:
    """A change of the rule alone, for linear layers."""

    def both(layer: Any, rule: Rule | None) -> tuple | None:
        if not isinstance(layer, Linear) or rule is None or isinstance(rule, Pass):
            return None
        found = change(layer, rule)
        return None if found is None else (layer, found)

    return both


def _of_kind(kind: type | tuple, change: Callable[[Any], Rule]) -> Change:
    """A change of the rules of one kind."""
    return _ruled(lambda layer, rule: change(rule) if isinstance(rule, kind) else None)


def _stabilizer(how: str, epsilon: float | None = None) -> Change:
    def change(layer: Any, rule: Rule) -> Rule | None:
        eps = rule.epsilon or epsilon
        return v.Stabilized(rule, eps, how) if eps and not getattr(rule, "relative", False) else None

    return _ruled(change)


def _absolute(layer: Any, rule: Rule) -> Rule | None:
    # for alpha-beta it is the negative part added, which has its own name
    signed = isinstance(rule, (Epsilon, Gamma)) and not getattr(rule, "relative", False)
    return v.Stabilized(rule, rule.epsilon, "|z| + eps") if signed else None


def _library(what: Convention) -> Change:
    def change(layer: Any, rule: Rule | None) -> tuple | None:
        try:
            found = (what.layer(layer), rule) if rule is None else (layer, what.translate(layer, rule))
        except LRPError:
            return None
        return None if found[0] is layer and found[1] == rule else found

    return change


def _altered(name: str, alter: Callable[[Any], Any]) -> Iterator[Hypothesis]:
    """A layer with other parameters: in the forward pass too, or on the way back, or in its numerators."""

    def change(own: bool) -> Change:
        def on(layer: Any, rule: Rule | None) -> tuple | None:
            other = alter(layer)
            return None if other is None or rule is None else (layer, v.On(rule, other, own))

        return on

    def both(layer: Any, rule: Rule | None) -> tuple | None:
        other = alter(layer)
        return None if other is None else (other, rule)

    yield Hypothesis(f"{name} (in the forward pass too)", both, forward=True)
    yield Hypothesis(f"{name} (on the way back)", change(True))
    yield Hypothesis(f"{name} (on the way back, over the right z)", change(False))


def _alter(kind: type, alter: Callable[[Any], Any]) -> Callable[[Any], Any]:
    return lambda layer: alter(layer) if isinstance(layer, kind) else None


def _scalar_bias(layer: Any) -> Any:
    tap = getattr(layer, "tap_bias", None)
    if tap is None:
        return None
    inside = tap.reshape(len(tap), -1).sum(1)
    bias = inside if layer.bias is None else layer.bias + inside
    return replace(layer, bias=bias, tap_bias=None, border=None)


def _no_eps(layer: L.BatchNorm) -> Any:
    return replace(layer, eps=0.0) if layer.eps and layer.variance.all() else None


def _eps_outside(layer: L.BatchNorm) -> Any:
    return v.eps_outside_the_root(layer) if layer.eps else None


def _kernel(turn: Callable[[np.ndarray], np.ndarray | None], family: str) -> Change:
    """Another weight on the way back, where it has the same shape and is another."""

    def change(layer: Any, rule: Rule) -> Rule | None:
        if layer.family != family:
            return None
        turned = turn(layer.weight)
        same = turned.shape != layer.weight.shape or np.array_equal(turned, layer.weight)
        return None if same else v.Turned(rule, turn)

    return _ruled(change)


def _flipped(w: np.ndarray) -> np.ndarray:
    return np.flip(w, tuple(range(2, w.ndim)))


def _transposed(w: np.ndarray) -> np.ndarray:
    return np.swapaxes(w, -1, -2) if w.ndim > 3 else w


KINKED = (L.ReLU, L.LeakyReLU, L.PReLU)


class _Slope:
    """An activation, linear in pieces, whose gradient is applied to relevance."""

    merges = False

    def __init__(self, layer: Any) -> None:
        self.layer, self.forward = layer, layer.forward

    def relprop(self, R, x, y, rule=None, note=None):
        h = 1e-6 * np.maximum(abs(x), 1)
        # the slope at the left of a kink, as frameworks have it: 0 at 0 for ReLU
        return R * np.round((y - self.forward(x - h)) / h, 6)


def _counting(layer: L.AveragePool2D) -> Any:
    padded = isinstance(layer.padding, str) or any(n for pair in layer.padding for n in pair)
    return replace(layer, count_padding=not layer.count_padding) if padded else None


def _ties(how: str) -> Change:
    return lambda layer, rule: (v.Ties(layer, how), rule) if v.takes_the_maximum(layer) else None


def _bias(layer: Any, rule: Rule) -> Rule | None:
    # batch normalization without its shift is another matter than a layer without its bias, but alike
    own = isinstance(rule, (Epsilon, Gamma, AlphaBeta)) and getattr(rule, "bias", True)
    return (
        v.NoBias(rule)
        if own and (layer.family == "norm" or getattr(layer, "bias", None) is not None)
        else None
    )


def _bias_shared(with_stabilizer: bool) -> Callable[[Any, Rule], Rule | None]:
    def change(layer: Any, rule: Rule) -> Rule | None:
        given = layer.family == "norm" or getattr(layer, "bias", None) is not None
        shared = isinstance(rule, Epsilon) and (given or (with_stabilizer and rule.epsilon))
        return v.BiasShared(rule, with_stabilizer) if shared else None

    return change


def _instead(rule: Rule) -> Change:
    return _ruled(lambda layer, own: None if own == rule or layer.family == "norm" else rule)


def _gamma_weights(changed_bias: bool) -> Callable[[Gamma], Rule]:
    def change(rule: Gamma) -> Rule:
        f = Favour(rule.gamma, 1)
        return v.Weights(f, f if changed_bias else v.same, rule.epsilon)

    return change


def _alpha_beta(kind: type) -> Callable[[AlphaBeta], Rule]:
    return lambda rule: kind(rule.alpha, rule.beta, rule.epsilon, rule.bias)


BUGS: tuple[Hypothesis, ...] = (
    Hypothesis("sign(0) = -1 in the stabilizer", _stabilizer("sign(0) = -1")),
    Hypothesis("sign(0) = 0 in the stabilizer: relevance at z = 0 is dropped", _stabilizer("sign(0) = 0")),
    Hypothesis("a stabilizer without sign: z + eps", _stabilizer("no sign")),
    Hypothesis("a stabilizer for exact zeros only", _stabilizer("zeros only", 1e-9)),
    Hypothesis("|z| + eps as the denominator: the sign of z is lost", _ruled(_absolute)),
    Hypothesis("no stabilizer: epsilon 0", _of_kind(Epsilon, lambda rule: replace(rule, epsilon=0.0))),
    Hypothesis("the bias dropped from the denominator", _ruled(_bias)),
    Hypothesis("the bias shared equally among the inputs", _ruled(_bias_shared(False))),
    Hypothesis(
        "bias and stabilizer shared equally among the inputs (bias_factor 1)", _ruled(_bias_shared(True))
    ),
    Hypothesis("the bias unclamped, in both denominators", _of_kind(AlphaBeta, _alpha_beta(v.BiasInBoth))),
    Hypothesis("gamma on weights only, bias as it is", _of_kind(Gamma, _gamma_weights(False))),
    Hypothesis("gamma on weights only", _of_kind(Gamma, _gamma_weights(True))),
    Hypothesis(
        "gamma's bias as it is, not favoured",
        _of_kind(Gamma, lambda rule: v.GammaBias(rule.gamma, rule.epsilon)),
    ),
    Hypothesis(
        "gamma's positive form also where z < 0",
        _of_kind(Gamma, lambda rule: v.GammaPositive(rule.gamma, rule.epsilon)),
    ),
    Hypothesis(
        "gamma's relevance dropped where z = 0",
        _of_kind(Gamma, lambda rule: v.GammaOpen(rule.gamma, rule.epsilon)),
    ),
    Hypothesis("alpha-beta on weights only", _of_kind(AlphaBeta, _alpha_beta(v.AlphaBetaWeights))),
    Hypothesis(
        "alpha-beta's negative part added instead of subtracted",
        _of_kind(AlphaBeta, _alpha_beta(v.NegativeAdded)),
    ),
    Hypothesis("b^2 in the denominator of w^2", _of_kind(WSquare, lambda rule: v.WSquareBias(rule.epsilon))),
    Hypothesis("padding counted by the flat rule", _of_kind(Flat, lambda rule: v.FlatPadded(rule.epsilon))),
    Hypothesis(
        "the bias left in the denominator of z^B",
        _of_kind(ZBox, lambda rule: v.ZBoxBias(rule.low, rule.high, rule.epsilon)),
    ),
    Hypothesis(
        "the bounds of z^B swapped, low for high",
        _of_kind(ZBox, lambda rule: v.ZBoxSwapped(rule.low, rule.high, rule.epsilon)),
    ),
    Hypothesis(
        "the input multiplied is missing: c instead of x c", _ruled(lambda _, rule: v.NotWeighed(rule))
    ),
    Hypothesis("the layer's gradient instead of its rule", _ruled(lambda layer, rule: v.Gradient())),
    Hypothesis("the kernel turned the wrong way on the way back", _kernel(_flipped, "conv")),
    Hypothesis("the kernel's height and width swapped on the way back", _kernel(_transposed, "conv")),
    Hypothesis("the weight not transposed on the way back", _kernel(np.transpose, "dense")),
    Hypothesis("each of equal maxima gets all", _ties("all")),
    Hypothesis("equal maxima share equally", _ties("equal")),
    Hypothesis("the last of equal maxima wins", _ties("last")),
    Hypothesis(
        "an activation's gradient applied to relevance",
        lambda layer, rule: (_Slope(layer), rule) if isinstance(layer, KINKED) else None,
    ),
    Hypothesis(
        "batch normalization passed unchanged",
        _ruled(lambda layer, rule: Pass() if isinstance(layer, L.BatchNorm) else None),
    ),
    *_altered("batch normalization with sqrt(var^2 + eps)", _alter(L.BatchNorm, v.squared_variance)),
    *_altered("batch normalization with sqrt(var) + eps", _alter(L.BatchNorm, _eps_outside)),
    *_altered("batch normalization without eps", _alter(L.BatchNorm, _no_eps)),
    *_altered("a scalar bias where the border needs a map", _scalar_bias),
    *_altered("average pooling counts padding otherwise", _alter(L.AveragePool2D, _counting)),
)
"""Known bugs, simple ones first."""

LIBRARIES: tuple[Hypothesis, ...] = tuple(
    Hypothesis(f"{name} {what.version}".strip(), _library(what), library=True)
    for name, what in CONVENTIONS.items()
    if name != "numpylrp"
)
"""The conventions of other libraries."""

OTHER_RULES: tuple[Hypothesis, ...] = tuple(
    Hypothesis(f"{rule} instead", _instead(rule))
    for rule in (LRP0(), Epsilon(), ZPlus(), AlphaBeta(), Gamma(), WSquare(), Flat())
) + tuple(
    Hypothesis(
        f"{rule} in place of another {type(rule).__name__}", _of_kind(type(rule), lambda own, rule=rule: rule)
    )
    for rule in (
        *map(Epsilon, (1e-9, 1e-7, 1e-6, 1e-4, 1e-3, 0.01, 0.1, 0.25, 0.5, 1.0)),
        *map(Gamma, (0.1, 0.25, 0.5, 1.0, 4.0)),
        *(AlphaBeta(1 + beta, beta) for beta in (0.5, 1.0, 2.0)),
    )
)
"""Another rule than the one asked for."""


MERGED = Hypothesis(
    "zennit 0.5.1 with batch normalization merged by its canonizer, which leaves its eps behind",
    _library(CONVENTIONS["zennit"]),
    normalization="merged",
    library=True,
)


def merged_by_zennit(network: Network) -> Network:
    """Batch normalization merged into the layer before it; what stays divides by ``sqrt(1 + eps)``."""
    changed = {}
    for node in network.nodes:
        source, bn = node.inputs[0], node.layer
        before = network[source] if source in network else None
        alone = isinstance(before, (L.Dense, L.Conv1D, L.Conv2D)) and network.readers(source) == [node]
        if isinstance(bn, L.BatchNorm) and alone and getattr(before, "tap_bias", None) is None:
            g, s = bn.scale_and_shift()
            n = len(before.weight)
            weight = before.weight * g.reshape(-1, *(1,) * (before.weight.ndim - 1))
            bias = np.broadcast_to(s if before.bias is None else s + g * before.bias, n).copy()
            changed[source] = replace(before, weight=weight, bias=bias)
            changed[node.name] = L.BatchNorm(None, None, np.zeros(n), np.ones(n), bn.eps, bn.axis)
    return network.rebuilt((n.name, changed.get(n.name, n.layer), n.inputs) for n in network.nodes)
