"""Hypotheses on the way back: rules, and layers without a rule, done otherwise."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np

from .. import layers as L
from ..errors import LRPError
from ..layers.base import Linear
from ..nonlinear import (
    AbsBeta,
    Bilinear,
    Gated,
    MeanHeld,
    Nonlinear,
    Proportional,
    RatioOfSums,
    SignalTakesAll,
    SoftmaxTaylor,
    Spread,
    Uniform,
)
from ..rules import (
    LRP0,
    AbsZ,
    AlphaBeta,
    Epsilon,
    Favour,
    Flat,
    Gamma,
    Pass,
    Rule,
    WSquare,
    ZBox,
    ZPlus,
    one,
    square,
)
from ..wiring import Node
from . import sequence_conventions as sequences
from . import variants as v
from .conventions import CONVENTIONS, Convention
from .hypotheses import Case, Change, Hypothesis, on_layers, on_pairs, on_walk
from .sequence_conventions import UnsignedBilinear
from .worlds import Pair, World

# ---------------------------------------------------------------- ways to say what changes


def _ruled(change: Callable[[Any, Rule], Rule | None]) -> Change:
    """A change of the rule alone, for linear layers."""

    def both(layer: Any, rule: Rule | None) -> Pair | None:
        if not isinstance(layer, Linear) or rule is None or isinstance(rule, Pass):
            return None
        found = change(layer, rule)
        return None if found is None or found == rule else (layer, found)

    return both


def _of_kind(kind: type | tuple, change: Callable[[Any], Rule | None]) -> Change:
    """A change of the rules of one kind."""
    return _ruled(lambda layer, rule: change(rule) if isinstance(rule, kind) else None)


def _of_layer(kind: type | tuple, change: Callable[[Any], Any]) -> Change:
    """Another layer in the place of those of one kind."""

    def both(layer: Any, rule: Rule | None) -> Pair | None:
        found = change(layer) if isinstance(layer, kind) else None
        return None if found is None else (found, rule)

    return both


def _stabilizer(how: str, epsilon: float | None = None) -> Change:
    def change(layer: Any, rule: Rule) -> Rule | None:
        eps = rule.epsilon or epsilon
        return v.Stabilized(rule, eps, how) if eps and not getattr(rule, "relative", False) else None

    return _ruled(change)


def _absolute(layer: Any, rule: Rule) -> Rule | None:
    # for alpha-beta it is the negative part added, which has its own name
    signed = isinstance(rule, (Epsilon, Gamma)) and not getattr(rule, "relative", False)
    return v.Stabilized(rule, rule.epsilon, "|z| + eps") if signed else None


def _signed(how: str) -> Change:
    return _of_kind(
        Epsilon,
        lambda rule: None if rule.relative or not rule.epsilon else v.Stabilized(rule, rule.epsilon, how),
    )


def _added(epsilon: float) -> Change:
    return _ruled(lambda layer, rule: None if rule.epsilon else v.Stabilized(rule, epsilon, "sign(0) = +1"))


def _has_bias(layer: Any) -> bool:
    # batch normalization without its shift is another matter than a layer without its bias, but alike
    return layer.family == "norm" or getattr(layer, "bias", None) is not None


def _biased(rule: Any) -> bool:
    return isinstance(rule, (Epsilon, Gamma, AlphaBeta)) and getattr(rule, "bias", True)


def _bias(how: Callable[[Rule], Rule]) -> Change:
    return _ruled(lambda layer, rule: how(rule) if _biased(rule) and _has_bias(layer) else None)


def _bias_shared(with_stabilizer: bool) -> Change:
    def change(layer: Any, rule: Rule) -> Rule | None:
        shared = isinstance(rule, Epsilon) and (_has_bias(layer) or (with_stabilizer and rule.epsilon))
        return v.BiasShared(rule, with_stabilizer) if shared else None

    return _ruled(change)


def _kernel(turn: Callable[[np.ndarray], np.ndarray], family: str) -> Change:
    """Another weight on the way back, where it has the same shape and is another."""

    def change(layer: Any, rule: Rule) -> Rule | None:
        if layer.family != family:
            return None
        turned = turn(layer.weight)
        same = turned.shape != layer.weight.shape or np.array_equal(turned, layer.weight)
        return None if same else v.Turned(rule, turn)

    return _ruled(change)


def flipped(w: np.ndarray) -> np.ndarray:
    """The kernel turned by 180 degrees."""
    return np.flip(w, tuple(range(2, w.ndim)))


def transposed(w: np.ndarray) -> np.ndarray:
    """The kernel with its height and width swapped."""
    return np.swapaxes(w, -1, -2) if w.ndim > 3 else w


def channels_swapped(w: np.ndarray) -> np.ndarray:
    """The kernel with its input and output channels swapped."""
    return np.swapaxes(w, 0, 1)


def _geometry(filled: bool = False, **options: Any) -> Change:
    """A convolution whose way back has another stride, padding or dilation."""

    def both(layer: Any, rule: Rule | None) -> Pair | None:
        if type(layer) is not L.Conv2D or isinstance(layer.padding, str):
            return None
        own = {name: getattr(layer, name) for name in options}
        changed = {k: ((n, n), (n, n)) if k == "padding" else (n, n) for k, n in options.items()}
        return None if own == changed else (v.Geometry(layer, filled, **changed), rule)

    return both


def _shifted(by: int) -> Change:
    """A convolution whose way back cuts its image out elsewhere."""

    def both(layer: Any, rule: Rule | None) -> Pair | None:
        if type(layer) is not L.Conv2D or rule is None:
            return None
        return v.Shifted(layer, by), rule

    return both


def _groups_reversed(layer: Any, rule: Rule) -> Rule | None:
    groups = getattr(layer, "groups", 1)
    if groups < 2 or layer.family != "conv" or isinstance(layer, L.Conv2DTranspose):
        return None

    def turn(w: np.ndarray) -> np.ndarray:
        return np.flip(w.reshape(groups, -1, *w.shape[1:]), 0).reshape(w.shape)

    return v.Turned(rule, turn)


def _overlapping(layer: Any) -> bool:
    """Whether windows of a maximum pooling may share values; not so many that one by one takes long."""
    return isinstance(layer, L.MaxPool2D) and any(k > s for k, s in zip(layer.kernel, layer.stride))


KINKED = (L.ReLU, L.LeakyReLU, L.PReLU)
POOLS = (L.MaxPool2D, L.GlobalMaxPool)
SUMS = (L.Add,)


class _Slope:
    """An activation whose gradient is applied to relevance."""

    merges = False

    def __init__(self, layer: Any) -> None:
        self.layer, self.forward = layer, layer.forward

    def relprop(self, R, x, y, rule=None, note=None):
        h = 1e-6 * np.maximum(abs(x), 1)
        # the slope at the left of a kink, as frameworks have it: 0 at 0 for ReLU
        slope = (y - self.forward(x - h)) / h
        return R * (np.round(slope, 6) if isinstance(self.layer, KINKED) else slope)


def _ties(how: str) -> Change:
    return lambda layer, rule: (v.Ties(layer, how), rule) if v.takes_the_maximum(layer) else None


def _instead(rule: Rule) -> Change:
    return _ruled(lambda layer, own: None if layer.family == "norm" else rule)


def _gamma_weights(changed_bias: bool) -> Callable[[Gamma], Rule]:
    def change(rule: Gamma) -> Rule:
        f = Favour(rule.gamma, 1)
        return v.Weights(f, f if changed_bias else v.same, rule.epsilon)

    return change


def _bent(function: Callable) -> Callable[[Gamma], Rule]:
    def change(rule: Gamma) -> Rule:
        f = v.Bent(rule.gamma, function)
        return v.Weights(f, f, rule.epsilon)

    return change


def _alpha_beta(kind: type) -> Callable[[AlphaBeta], Rule]:
    return lambda rule: kind(rule.alpha, rule.beta, rule.epsilon, rule.bias)


def _factors(plus: Callable, minus: Callable) -> Callable[[AlphaBeta], Rule | None]:
    def change(rule: AlphaBeta) -> Rule | None:
        first, second = float(plus(rule.alpha, rule.beta)), float(minus(rule.alpha, rule.beta))
        if (first, second) == (rule.alpha, -rule.beta):
            return None
        return v.Factors(first, abs(second), rule.epsilon, rule.bias, second > 0)

    return change


def _two_sided(change: Callable[[AlphaBeta], Rule | None]) -> Callable[[AlphaBeta], Rule | None]:
    return lambda rule: change(rule) if rule.beta else None


def _clamped(layer: Any, rule: Rule) -> Rule | None:
    return None if layer.merges else v.Clamped(rule)


def _positive_weights(layer: Any, rule: Rule, bias: Any) -> Rule | None:
    if not isinstance(rule, Epsilon) or rule.relative or layer.family not in ("dense", "conv"):
        return None
    return v.Weights(v.positive, bias, rule.epsilon)


def _over_output(layer: Any, rule: Rule) -> Rule | None:
    return v.OverOutput(rule) if isinstance(rule, (Gamma, AlphaBeta, ZBox)) else None


def _box(what: str) -> Change:
    return _of_kind(ZBox, lambda rule: v.ZBoxParts(rule.low, rule.high, rule.epsilon, what))


def _own_bounds(of: str, extra: float, rule: ZBox) -> Rule:
    return v.ZBoxOwn(extra, of)


def _flatten_back(layer: Any, rule: Rule | None) -> Pair | None:
    if not isinstance(layer, (L.Flatten, L.Reshape)):
        return None

    def back(R: np.ndarray, x: np.ndarray, y: np.ndarray, _: Rule | None) -> np.ndarray:
        if x.ndim < 3:
            return R.reshape(x.shape)
        last = np.moveaxis(x, 1, -1).shape
        return np.moveaxis(R.reshape(last), -1, 1)

    return v.Back(layer, back), rule


def _transposed_forward(layer: L.Transpose) -> Any:
    def back(R: np.ndarray, x: np.ndarray, y: np.ndarray, _: Rule | None) -> np.ndarray:
        moved = R.transpose(0, *(a + 1 for a in layer.axes))
        return moved if moved.shape == x.shape else R.reshape(x.shape)

    return v.Back(layer, back)


def _copies(how: str) -> Callable[[L.UpSampling], Any]:
    def change(layer: L.UpSampling) -> Any:
        def back(R: np.ndarray, x: np.ndarray, y: np.ndarray, _: Rule | None) -> np.ndarray:
            if how == "mean":
                return layer.relprop(R, x, y) / np.prod(layer.size)
            return R[(slice(None), *(slice(None, None, k) for k in layer.size))]

        return v.Back(layer, back)

    return change


# ---------------------------------------------------------------- other values on the way back


def _before_activation(world: World, node: Node) -> Pair | None:
    """A layer that sees what its input was before the activation."""
    sources = []
    for name in node.inputs:
        above = world.network[name] if name in world.network else None
        read = above is not None and above.family == "activation" and not isinstance(above, L.Softmax)
        sources.append(world.network.node(name).inputs[0] if read else name)
    if node.name not in world.rules or tuple(sources) == node.inputs:
        return None
    x = tuple(world.values[name] for name in sources)
    return v.At(node.layer, x if node.layer.merges else x[0]), world.rules[node.name]


def _after_activation(world: World, node: Node) -> Pair | None:
    """A layer whose denominators are its output after the activation."""
    readers = [n for n in world.network.readers(node.name) if n.layer.family == "activation"]
    if node.name not in world.rules or not readers:
        return None
    y = world.values[readers[0].name]
    return (
        (v.At(node.layer, y=y), world.rules[node.name]) if y.shape == world.values[node.name].shape else None
    )


def _positive_at_activations(layer: Any, rule: Rule | None) -> Pair | None:
    if layer.family != "activation":
        return None
    return v.Back(layer, lambda R, x, y, _: np.maximum(R, 0)), rule


def _guided(layer: Any, rule: Rule | None) -> Pair | None:
    if not isinstance(layer, KINKED):
        return None
    return v.Back(layer, lambda R, x, y, _: np.maximum(R, 0) * (x > 0)), rule


def _by_largest(R: np.ndarray) -> np.ndarray:
    most = np.abs(R).max(tuple(range(1, R.ndim)), keepdims=True)
    return np.divide(R, most, out=np.zeros_like(R), where=most != 0)


def _to_the_total(case: Case, names: Any) -> World:
    """Relevance rescaled in every layer to the sum that it started with."""
    total = case.world.seed.reshape(len(case.world.seed), -1).sum(1)
    return replace(case.world, through=lambda R: _rescaled(R) * total.reshape(-1, *(1,) * (R.ndim - 1)))


def _of_the_first(case: Case, names: Any) -> World | None:
    """The activations of the first sample for all samples."""
    world = case.world
    if len(world.seed) < 2:
        return None
    values = {k: np.broadcast_to(value[:1], value.shape) for k, value in world.values.items()}
    return replace(world, values=values)


def _rescaled(R: np.ndarray) -> np.ndarray:
    total = R.sum(tuple(range(1, R.ndim)), keepdims=True)
    return np.divide(R, total, out=np.zeros_like(R), where=total != 0)


# ---------------------------------------------------------------- the tables

_STEPS = (
    on_pairs("the bias dropped from the denominator", _bias(v.NoBias)),
    on_pairs("sign(0) = -1 in the stabilizer", _stabilizer("sign(0) = -1")),
    on_pairs("sign(0) = 0 in the stabilizer: relevance at z = 0 is dropped", _stabilizer("sign(0) = 0")),
    on_pairs("a stabilizer without sign: z + eps", _stabilizer("no sign")),
    on_pairs("a stabilizer for exact zeros only", _stabilizer("zeros only", 1e-9)),
    on_pairs("the stabilizer subtracted: z - eps sign(z)", _stabilizer("subtracted")),
    on_pairs("|z| + eps as the denominator: the sign of z is lost", _ruled(_absolute)),
    on_pairs("a stabilizer that makes |z| at least eps", _stabilizer("at least eps")),
    on_pairs("negative denominators clamped: z is at least 1e-6", _stabilizer("clamped", 1e-6)),
    *(
        on_pairs(f"epsilon times {text} of z", _signed(how))
        for text, how in (
            ("the largest |value|", "of the largest"),
            ("the mean |value|", "of the mean"),
            ("the standard deviation", "of the deviation"),
            ("the standard deviation (n - 1)", "of the deviation (n - 1)"),
            ("each sample's largest |value|", "of the sample's largest"),
            ("each sample's mean |value|", "of the sample's mean"),
        )
    ),
    on_pairs("no stabilizer: epsilon 0", _of_kind(Epsilon, lambda rule: replace(rule, epsilon=0.0))),
    on_pairs(
        "epsilon relative to the size of z",
        _of_kind(Epsilon, lambda rule: replace(rule, relative=not rule.relative) if rule.epsilon else None),
    ),
    on_pairs("the input multiplied is missing: c instead of x c", _ruled(lambda _, rule: v.NotWeighed(rule))),
    on_pairs("the division is missing: s = R", _ruled(lambda _, rule: v.NotDivided(rule))),
    on_pairs("the input multiplied twice: x^2 c", _ruled(lambda _, rule: v.WeighedTwice(rule))),
    on_pairs("the layer's gradient instead of its rule", _ruled(lambda layer, rule: v.Gradient())),
    on_pairs(
        "batch normalization passed unchanged",
        _ruled(lambda layer, rule: Pass() if isinstance(layer, L.BatchNorm) else None),
    ),
    on_pairs("the bias shared equally among the inputs", _bias_shared(False)),
    on_pairs("bias and stabilizer shared equally among the inputs (bias_factor 1)", _bias_shared(True)),
    on_pairs("the bias counted twice in the denominator", _of_kind(Epsilon, v.BiasTwice)),
    *(
        on_pairs(f"w+ in the place of w, {text}", _ruled(partial(_positive_weights, bias=bias)))
        for text, bias in (("bias as it is", v.same), ("b+ for b", v.positive), ("without bias", None))
    ),
    on_pairs(
        "inputs below 0 taken for 0", _ruled(lambda layer, rule: None if layer.merges else v.Clamped(rule))
    ),
    on_pairs("each part divided by the layer's output instead of its own sum", _ruled(_over_output)),
)

_RULES = (
    on_pairs("the bias unclamped, in both denominators", _of_kind(AlphaBeta, _alpha_beta(v.BiasInBoth))),
    on_pairs("alpha-beta on weights only", _of_kind(AlphaBeta, _alpha_beta(v.AlphaBetaWeights))),
    on_pairs(
        "alpha and beta swapped",
        _of_kind(AlphaBeta, _two_sided(_factors(lambda a, b: b, lambda a, b: -a))),
    ),
    on_pairs(
        "alpha and beta swapped, in z+ too", _of_kind(AlphaBeta, _factors(lambda a, b: b, lambda a, b: -a))
    ),
    on_pairs(
        "alpha-beta's negative part added instead of subtracted",
        _of_kind(AlphaBeta, _two_sided(_factors(lambda a, b: a, lambda a, b: b))),
    ),
    on_pairs(
        "alpha-beta's negative part left out",
        _of_kind(AlphaBeta, _two_sided(_factors(lambda a, b: a, lambda a, b: 0))),
    ),
    on_pairs(
        "alpha-beta's factors left out: both parts by 1",
        _of_kind(AlphaBeta, _two_sided(_factors(lambda a, b: 1, lambda a, b: -1))),
    ),
    on_pairs(
        "the negative part instead of the positive",
        _of_kind(ZPlus, lambda rule: v.Factors(0.0, 1.0, added=True)),
    ),
    on_pairs("x+ w+ and x- w- each over its own sum", _of_kind(AlphaBeta, _alpha_beta(v.Quarters))),
    on_pairs("gamma on weights only, bias as it is", _of_kind(Gamma, _gamma_weights(False))),
    on_pairs("gamma on weights only", _of_kind(Gamma, _gamma_weights(True))),
    on_pairs(
        "gamma's bias as it is, not favoured", _of_kind(Gamma, lambda r: v.GammaBias(r.gamma, r.epsilon))
    ),
    on_pairs("gamma without its bias", _of_kind(Gamma, lambda r: v.GammaNoBias(r.gamma, r.epsilon))),
    on_pairs("gamma on weights below 0: w + gamma w-", _of_kind(Gamma, _bent(v.negative))),
    on_pairs("gamma on all weights: w + gamma |w|", _of_kind(Gamma, _bent(np.abs))),
    on_pairs(
        "gamma's positive form also where z < 0",
        _of_kind(Gamma, lambda r: v.GammaPositive(r.gamma, r.epsilon)),
    ),
    on_pairs(
        "gamma's relevance dropped where z = 0", _of_kind(Gamma, lambda r: v.GammaOpen(r.gamma, r.epsilon))
    ),
    on_pairs("b^2 in the denominator of w^2", _of_kind(WSquare, lambda r: v.WSquareBias(r.epsilon))),
    on_pairs("|w| instead of w^2", _of_kind(WSquare, lambda r: v.Absolute(r.epsilon))),
    on_pairs("w instead of w^2", _of_kind(WSquare, lambda r: v.Even(r.epsilon))),
    on_pairs("w^2 with the input: x w^2", _of_kind(WSquare, lambda r: v.Weights(square, None, r.epsilon))),
    on_pairs("flat with the input: x in the place of 1", _of_kind(Flat, lambda r: v.Weights(one, None))),
    on_pairs("padding counted by the flat rule", _of_kind(Flat, lambda r: v.FlatPadded(r.epsilon))),
    on_pairs(
        "the bias left in the denominator of z^B",
        _of_kind(ZBox, lambda r: v.ZBoxBias(r.low, r.high, r.epsilon)),
    ),
    on_pairs(
        "the bounds of z^B swapped, low for high",
        _of_kind(ZBox, lambda r: v.ZBoxSwapped(r.low, r.high, r.epsilon)),
    ),
    on_pairs("z^B without its low term", _box("without low")),
    on_pairs("z^B without its high term", _box("without high")),
    on_pairs("z^B with w+ and w- on the wrong sides: l w- and h w+", _box("sides")),
    on_pairs("z^B with its bounds added instead of subtracted", _box("added")),
    *(
        on_pairs(
            f"z^B with the smallest and largest value of {text}",
            _of_kind(ZBox, partial(_own_bounds, of, eps)),
        )
        for text, of, eps in (
            ("each sample", "sample", 0.0),
            ("each sample, and z + 1e-9", "sample", 1e-9),
            ("the batch", "batch", 0.0),
            ("each channel", "channel", 0.0),
        )
    ),
)

_LAYERS = (
    on_pairs("each of equal maxima gets all", _ties("all")),
    on_pairs("equal maxima share equally", _ties("equal")),
    on_pairs("the last of equal maxima wins", _ties("last")),
    on_pairs("max pooling shared evenly over its window", _of_layer(POOLS, partial(v.pooled, how="evenly"))),
    on_pairs(
        "max pooling shared evenly over its window, padding counted",
        _of_layer(L.MaxPool2D, partial(v.pooled, how="evenly, padding counted")),
    ),
    on_pairs(
        "max pooling gives all to the smallest", _of_layer(POOLS, partial(v.pooled, how="to the smallest"))
    ),
    on_pairs(
        "max pooling shared in proportion to the values, as by a sum",
        _of_layer(POOLS, partial(v.pooled, how="in proportion")),
    ),
    on_pairs(
        "max pooling gives all to each value of its window", _of_layer(POOLS, partial(v.pooled, how="all"))
    ),
    on_pairs(
        "max pooling whose winner keeps the last of its windows instead of their sum",
        lambda layer, rule: (v.pooled(layer, "once"), rule) if _overlapping(layer) else None,
    ),
    on_pairs(
        "an activation's gradient applied to relevance",
        _of_layer(L.Activation, lambda layer: None if isinstance(layer, L.Softmax) else _Slope(layer)),
    ),
    on_pairs("negative relevance cut off at activations", _positive_at_activations),
    on_pairs("guided backpropagation at activations: R+ where x > 0", _guided),
    on_pairs(
        "batch normalization by the |z|-rule",
        _ruled(lambda layer, rule: AbsZ() if isinstance(layer, L.BatchNorm) else None),
    ),
    on_pairs("a sum gives all to its first branch", _of_layer(SUMS, partial(v.shared_by, how="first"))),
    on_pairs("a sum gives all to its last branch", _of_layer(SUMS, partial(v.shared_by, how="last"))),
    on_pairs("each branch of a sum gets all", _of_layer(SUMS, partial(v.shared_by, how="each"))),
    on_pairs("a sum shared evenly", _of_layer(SUMS, partial(v.shared_by, how="evenly"))),
    on_pairs("the branches of a sum swapped", _of_layer(SUMS, partial(v.shared_by, how="swapped"))),
    on_pairs(
        "a sum shared by the squares of its branches", _of_layer(SUMS, partial(v.shared_by, how="squares"))
    ),
    on_pairs("a sum shared by |a| : |b|", _ruled(lambda y, rule: AbsZ() if isinstance(y, L.Add) else None)),
    on_pairs("a sum shared by the sums of its branches", _of_layer(SUMS, partial(v.shared_by, how="totals"))),
    on_pairs("a concatenation cut apart in another order", _of_layer(L.Concatenate, v.cut_in_order)),
    on_pairs(
        "a concatenation's first branch only", _of_layer(L.Concatenate, partial(v.shared_by, how="first"))
    ),
    on_pairs(
        "a concatenation's last branch only", _of_layer(L.Concatenate, partial(v.shared_by, how="last"))
    ),
    on_pairs("flattening undone in another layout, channels last", _flatten_back),
    on_pairs("a transpose undone by its own axes", _of_layer(L.Transpose, _transposed_forward)),
    on_pairs("upsampling takes the mean of its copies", _of_layer(L.UpSampling, _copies("mean"))),
    on_pairs("upsampling takes the first of its copies", _of_layer(L.UpSampling, _copies("first"))),
)

_GEOMETRY = (
    on_pairs("the kernel turned the wrong way on the way back", _kernel(flipped, "conv")),
    on_pairs("the kernel's height and width swapped on the way back", _kernel(transposed, "conv")),
    on_pairs("the kernel's channels swapped on the way back", _kernel(channels_swapped, "conv")),
    on_pairs("the weight not transposed on the way back", _kernel(np.transpose, "dense")),
    on_pairs("padding left out on the way back", _geometry(padding=0)),
    on_pairs("padding of 1 on the way back", _geometry(padding=1)),
    on_pairs("stride left out on the way back", _geometry(stride=1)),
    on_pairs("stride left out on the way back, of the last windows", _geometry(True, stride=1)),
    on_pairs("stride 2 on the way back", _geometry(stride=2)),
    on_pairs("dilation left out on the way back", _geometry(dilation=1)),
    on_pairs("the way back shifted by a pixel, up and left", _shifted(1)),
    on_pairs("the way back shifted by a pixel, down and right", _shifted(-1)),
    on_pairs("groups in the opposite order on the way back", _ruled(_groups_reversed)),
    on_pairs("stride and padding left out on the way back", _geometry(stride=1, padding=0)),
    on_pairs("stride left out and padding of 1 on the way back", _geometry(stride=1, padding=1)),
)

_WALKS = (
    on_layers("the input before the activation taken for the layer's input", _before_activation),
    on_layers("the output after the activation taken for z", _after_activation),
    on_walk("what several readers send overwritten instead of summed", join=lambda old, new: new),
    on_walk("what the first reader sends kept, others' lost", join=lambda old, new: old),
    on_walk("the mean of what several readers send", join=lambda old, new: (old + new) / 2),
    on_walk("negative relevance set to 0 in every layer", through=lambda R: np.maximum(R, 0)),
    on_walk("the absolute value of relevance taken in every layer", through=np.abs),
    on_walk("relevance divided by its sum in every layer", through=_rescaled),
    on_walk("relevance divided by its largest |value| in every layer", through=_by_largest),
    Hypothesis(
        "relevance rescaled in every layer to the sum it started with", _to_the_total, everywhere=True
    ),
    Hypothesis("the activations of the first sample used for all", _of_the_first, everywhere=True),
)

RULES: tuple[Hypothesis, ...] = (*_STEPS, *_RULES, *_LAYERS, *_GEOMETRY, *_WALKS)
"""Known bugs of the way back, simple ones first."""


def _powers(rule: Epsilon) -> tuple[float, float]:
    return rule.epsilon**2, rule.epsilon**0.5


def _parameters(rule: Rule) -> Iterator[Rule]:
    """The rule with other parameters."""
    if isinstance(rule, Epsilon) and not rule.relative:
        values = [1e-16, 1e-12, 1e-9, 1e-8, 1e-7, 1e-6, 1e-5, 1e-4, 1e-3, 0.01, 0.1, 0.25, 0.5, 1.0]
        for eps in (
            *values,
            rule.epsilon / 2,
            2 * rule.epsilon,
            rule.epsilon / 10,
            10 * rule.epsilon,
            *_powers(rule),
        ):
            yield Epsilon(eps)
    elif type(rule) is Gamma:
        for g in (0.1, 0.25, 0.5, 1.0, 2.0, 4.0, rule.gamma / 2, 2 * rule.gamma, rule.gamma**2):
            yield Gamma(g, rule.epsilon)
    elif type(rule) is AlphaBeta:
        for beta in (0.5, 1.0, 2.0):
            yield AlphaBeta(1 + beta, beta, rule.epsilon, rule.bias)
    elif isinstance(rule, ZBox):
        for low, high in ((0.0, 1.0), (-1.0, 1.0), (0.0, 255.0)):
            yield v.ZBoxOpen(low, high, rule.epsilon)


def other_rules(world: World) -> Iterator[Hypothesis]:
    """Another rule, or other parameters, than asked for."""
    used = [rule for rule in dict.fromkeys(world.rules.values()) if not isinstance(rule, Nonlinear)]
    known = (LRP0(), Epsilon(), ZPlus(), AlphaBeta(), Gamma(), WSquare(), Flat())
    for rule in dict.fromkeys((*known, *(rule for rule in used if type(rule) is not Pass))):
        yield on_pairs(f"{rule} instead", _instead(rule))
    for own in used:
        for rule in dict.fromkeys(_parameters(own)):
            if rule != own:
                text = f"{rule} in the place of {own}"
                yield on_pairs(text, _ruled(lambda layer, r, own=own, rule=rule: rule if r == own else None))  # type: ignore[misc]
    for eps in (1e-12, 1e-9, 1e-8, 1e-7, 1e-6, 1e-5, 1e-3, *(r.epsilon for r in used if r.epsilon)):
        yield on_pairs(f"a stabilizer of {eps:g} in rules that have none", _added(eps))
    yield on_layers("relevance passed through the layer unchanged", _passed)
    yield on_pairs("z+ without bias", _of_kind(ZPlus, lambda rule: ZPlus(rule.epsilon, bias=not rule.bias)))


def _passed(world: World, node: Node) -> Pair | None:
    shapes = {world.values[name].shape for name in (node.name, *node.inputs)}
    ruled = isinstance(node.layer, Linear) and not node.layer.merges and node.layer.family != "norm"
    return (node.layer, Pass()) if ruled and len(shapes) == 1 else None


def _library(what: Convention) -> Change:
    def change(layer: Any, rule: Rule | None) -> Pair | None:
        try:
            found = (what.layer(layer), rule) if rule is None else (layer, what.translate(layer, rule))
        except LRPError:
            return None
        return None if found[0] is layer and found[1] == rule else found

    return change


LIBRARIES: tuple[Hypothesis, ...] = tuple(
    on_pairs(f"{name} {what.version}".strip(), _library(what), library=True)
    for name, what in CONVENTIONS.items()
    if name != "numpylrp"
)
"""The conventions of other libraries."""


_SEQUENCES: tuple[tuple[type | tuple, tuple[Rule, ...]], ...] = (
    (
        (L.LayerNorm, L.RMSNorm, L.GroupNorm, L.InstanceNorm),
        (Pass(), AbsBeta(), MeanHeld(), MeanHeld(1e-6), LRP0(), Epsilon()),
    ),
    (L.MatMul, (Bilinear(0.0), Bilinear(), Bilinear(1e-6, False), UnsignedBilinear(1e-8), LRP0(), Epsilon())),
    (L.Multiply, (Uniform(), SignalTakesAll(), Proportional(), Proportional(False))),
    ((L.Softmax, L.MaskedSoftmax), (SoftmaxTaylor(), Pass())),
    (L.Add, (RatioOfSums(),)),
    (
        L.Recurrent,
        tuple(
            Gated(products, sums)
            for products in (SignalTakesAll(), Uniform(), Proportional(), Proportional(False))
            for sums in (Epsilon(1e-3), LRP0(), Spread(1e-3))
        ),
    ),
)
"""Rules that other libraries have for these layers."""


def sequence_rules(case: Case) -> Iterator[Hypothesis]:
    """Attention, recurrent layers, products and normalization by the rules of other libraries."""
    layers = [node.layer for node in case.world.network.nodes if node.name in case.world.rules]
    layers += [node.layer for node in case.world.network.nodes if isinstance(node.layer, L.Softmax)]
    for kind, rules in _SEQUENCES:
        if not any(isinstance(layer, kind) for layer in layers):
            continue
        what = kind.__name__ if isinstance(kind, type) else kind[0].__name__ + " and its kind"
        for rule in rules:

            def change(layer: Any, own: Rule | None, kind: Any = kind, rule: Rule = rule) -> Pair | None:
                return (layer, rule) if isinstance(layer, kind) and rule != own else None

            yield on_pairs(f"{rule} instead, for {what}", change)
    if not any(isinstance(layer, kind) for layer in layers for kind, _ in _SEQUENCES if kind is not L.Add):
        return
    for name, known in sequences.CONVENTIONS.items():
        yield Hypothesis(f"{name} {known.version}", partial(_by_convention, known), library=True)


def _by_convention(known: Any, case: Case, names: Any) -> World | None:
    own, theirs = case.world.rules, known.composite().rules(case.world.network)
    changes = {
        node.name: (node.layer, theirs[node.name])
        for node in case.world.network.nodes
        if node.name in theirs and theirs[node.name] != own.get(node.name)
    }
    return case.world.changed(changes) if changes else None
