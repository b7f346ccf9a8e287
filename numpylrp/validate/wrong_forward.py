"""Hypotheses on the forward pass: layers, wiring, preprocessing and treatments done otherwise."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import fields, replace
from typing import Any

import numpy as np

from .. import layers as L
from ..errors import LRPError
from ..network import Network
from ..planning import NORMALIZATION
from ..rules import ZBox
from ..wiring import Node
from . import variants as v
from .conventions import CONVENTIONS
from .hypotheses import Case, Hypothesis, on_pairs
from .worlds import World
from .wrong_rules import _library, channels_swapped, flipped, transposed

Alter = Callable[[Any, tuple], Any]
"""A layer, and the shape of its input, made another; None where it stays."""

Entry = tuple[str, Any, tuple[str, ...]]

CONVS = (L.Conv1D, L.Conv2D)
LINEAR = (L.Dense, *CONVS)
SAMPLE = (L.LayerNorm, L.GroupNorm, L.InstanceNorm, L.RMSNorm)

# ---------------------------------------------------------------- where a change is made


def _world(case: Case, network: Network, walked: bool) -> World:
    """The world of another network: of the question's own, or of the one that is walked, fused already."""
    return case.question.world(network, "linear" if walked else None)


def altered(case: Case, alter: Alter, names: Collection[str] | None) -> World | None:
    """The world in which layers are others, in the forward pass too.

    In the network that was given; where nothing changes there, in the one that is walked.
    """
    for walked, network in ((False, case.question.network), (True, case.world.network)):
        changed = {}
        for node in network.nodes:
            if names is None or node.name in names:
                other = alter(node.layer, network.shapes[node.inputs[0]])
                if other is not None:
                    changed[node.name] = other
        if changed:
            layers = ((n.name, changed.get(n.name, n.layer), n.inputs) for n in network.nodes)
            return _world(case, network.rebuilt(layers), walked)
        if case.question.normalization != "fused":
            break
    return None


def in_forward(name: str, alter: Alter) -> Hypothesis:
    """A layer that is another, in the forward pass and on the way back."""
    return Hypothesis(name, lambda case, names: altered(case, alter, names), scoped=True, everywhere=True)


def everywhere(name: str, alter: Alter) -> Iterator[Hypothesis]:
    """A layer with other parameters: in the forward pass too, or on the way back, or in its numerators."""
    yield in_forward(f"{name} (in the forward pass too)", alter)
    for own, text in ((True, "on the way back"), (False, "on the way back, over the right z")):

        def change(case: Case, names: Collection[str] | None, own: bool = own) -> World | None:
            changes = {}
            for node in case.world.network.nodes:
                rule = case.world.rules.get(node.name)
                if rule is None or (names is not None and node.name not in names):
                    continue
                other = alter(node.layer, case.world.network.shapes[node.inputs[0]])
                if other is not None:
                    changes[node.name] = (node.layer, v.On(rule, other, own))
            return case.world.changed(changes) if changes else None

        yield Hypothesis(f"{name} ({text})", change, scoped=True)


def of(kind: type | tuple, alter: Callable[[Any], Any]) -> Alter:
    """A change of the layers of one kind, whatever their input."""
    return lambda layer, shape: alter(layer) if isinstance(layer, kind) else None


# ---------------------------------------------------------------- normalization


def _without(*names: str) -> Callable[[Any], Any]:
    """The layer without these parameters, where it has them."""

    def alter(layer: Any) -> Any:
        known = {f.name for f in fields(layer)}
        gone = {name: None for name in names if name in known and getattr(layer, name) is not None}
        return replace(layer, **gone) if gone else None

    return alter


def _no_eps(layer: Any) -> Any:
    return replace(layer, eps=0.0) if layer.eps and getattr(layer, "variance", np.ones(1)).all() else None


def _eps_outside(layer: L.BatchNorm) -> Any:
    return v.eps_outside_the_root(layer) if layer.eps else None


def _other_eps(eps: float) -> Callable[[Any], Any]:
    return lambda layer: replace(layer, eps=eps) if layer.eps != eps else None


def _no_root(layer: L.BatchNorm) -> Any:
    return replace(layer, variance=np.square(layer.variance + layer.eps), eps=0.0)


def _no_mean(layer: L.BatchNorm) -> Any:
    return replace(layer, mean=np.zeros_like(layer.mean)) if layer.mean.any() else None


def _mean_added(layer: L.BatchNorm) -> Any:
    return replace(layer, mean=-layer.mean) if layer.mean.any() else None


def _absolute_gamma(layer: L.BatchNorm) -> Any:
    gamma = layer.gamma
    return None if gamma is None or (gamma >= 0).all() else replace(layer, gamma=np.abs(gamma))


def _shift(change: Callable[[np.ndarray, np.ndarray, np.ndarray, np.ndarray], np.ndarray]) -> Callable:
    """Another shift, of gamma, beta, mean and the root."""

    def alter(layer: L.BatchNorm) -> Any:
        root = np.sqrt(layer.variance + layer.eps)
        gamma = np.ones_like(root) if layer.gamma is None else layer.gamma
        beta = np.zeros_like(root) if layer.beta is None else layer.beta
        return L.Affine(gamma / root, change(gamma, beta, layer.mean, root), layer.axis)

    return alter


def _swapped(a: str, b: str) -> Callable[[Any], Any]:
    def alter(layer: Any) -> Any:
        one, other = getattr(layer, a), getattr(layer, b)
        if one is None or other is None or (b == "variance" and (one < 0).any()):
            return None
        return replace(layer, **{a: other, b: one})

    return alter


def _other_axis(layer: Any, shape: tuple) -> Any:
    """The scale on the wrong axis, where another has the same size."""
    if not isinstance(layer, (L.BatchNorm, L.Affine)) or len(shape) < 2:
        return None
    size, own = shape[layer.axis], layer.axis % len(shape)
    others = [k for k in range(len(shape) - 1, -1, -1) if k != own and shape[k] == size]
    return replace(layer, axis=others[0]) if others and size > 1 else None


def _scalar_bias(layer: Any) -> Any:
    tap = getattr(layer, "tap_bias", None)
    if tap is None:
        return None
    inside = tap.reshape(len(tap), -1).sum(1)
    bias = inside if layer.bias is None else layer.bias + inside
    return replace(layer, bias=bias, tap_bias=None, border=None)


def _no_tap_bias(layer: Any) -> Any:
    return None if layer.tap_bias is None else replace(layer, tap_bias=None, border=None)


def _training(case: Case, names: Collection[str] | None) -> World | None:
    """Batch normalization with the statistics of this batch."""
    network, values, changed = case.question.network, dict(case.question.x), {}
    for node in network.nodes:
        x, layer = tuple(values[name] for name in node.inputs), node.layer
        if isinstance(layer, L.BatchNorm) and (names is None or node.name in names):
            axes = tuple(k for k in range(x[0].ndim) if k != layer.axis % (x[0].ndim - 1) + 1)
            layer = replace(layer, mean=x[0].mean(axes), variance=x[0].var(axes))
            changed[node.name] = layer
        values[node.name] = layer.forward(x if layer.merges else x[0])
    if not changed:
        return None
    layers = ((n.name, changed.get(n.name, n.layer), n.inputs) for n in network.nodes)
    return _world(case, network.rebuilt(layers), False)


NORMS = L.BatchNorm
NORMALIZATIONS: tuple[tuple[str, Alter], ...] = (
    ("batch normalization without eps", of(NORMS, _no_eps)),
    ("batch normalization with sqrt(var^2 + eps)", of(NORMS, v.squared_variance)),
    ("batch normalization with sqrt(var) + eps", of(NORMS, _eps_outside)),
    ("batch normalization without the root: var + eps", of(NORMS, _no_root)),
    ("batch normalization without its mean", of(NORMS, _no_mean)),
    ("batch normalization without beta", of(NORMS, _without("beta"))),
    ("batch normalization without gamma", of(NORMS, _without("gamma"))),
    ("batch normalization with gamma and beta swapped", of(NORMS, _swapped("gamma", "beta"))),
    ("batch normalization with mean and variance swapped", of(NORMS, _swapped("mean", "variance"))),
    ("batch normalization with its mean added", of(NORMS, _mean_added)),
    ("batch normalization with |gamma|", of(NORMS, _absolute_gamma)),
    ("batch normalization's shift without gamma", of(NORMS, _shift(lambda g, b, m, d: b - m / d))),
    ("batch normalization's shift without the root", of(NORMS, _shift(lambda g, b, m, d: b - g * m))),
    ("batch normalization's shift left out", of(NORMS, _shift(lambda g, b, m, d: 0 * m))),
    ("batch normalization with eps 1e-3", of(NORMS, _other_eps(1e-3))),
    ("batch normalization with eps 1e-5", of(NORMS, _other_eps(1e-5))),
    ("scale and shift on the wrong axis", _other_axis),
    ("a scalar bias where the border needs a map", lambda layer, shape: _scalar_bias(layer)),
    ("the shift of a normalization lost in fusing", of(CONVS, _no_tap_bias)),
)
"""Changes of normalization, wherever it is."""

# ---------------------------------------------------------------- weights, windows, activations


def _weight(turn: Callable[[np.ndarray], np.ndarray]) -> Callable[[Any], Any]:
    def alter(layer: Any) -> Any:
        w = turn(layer.weight)
        same = w.shape != layer.weight.shape or np.array_equal(w, layer.weight)
        return None if same else replace(layer, weight=w)

    return alter


def _pads(layer: Any, shape: tuple) -> tuple[tuple[int, int], ...]:
    return layer.windows.pads(shape[1:])


def _windowed(layer: Any) -> bool:
    return isinstance(layer, (*CONVS, L.MaxPool2D, L.SumPool2D))


def _padded(turn: Callable[[tuple[int, int]], tuple[int, int]]) -> Alter:
    """The same amount of padding, elsewhere."""

    def alter(layer: Any, shape: tuple) -> Any:
        if not _windowed(layer) or None in shape or getattr(layer, "ceil", False):
            return None
        pads = _pads(layer, shape)
        moved = tuple(turn(pair) for pair in pads)
        try:
            other = replace(layer, padding=moved)
            same = moved == pads or other.output_shape(shape) != layer.output_shape(shape)
        except LRPError:
            return None
        return None if same else other

    return alter


def _counting(layer: L.AveragePool2D) -> Any:
    padded = isinstance(layer.padding, str) or any(n for pair in layer.padding for n in pair)
    return replace(layer, count_padding=not layer.count_padding) if padded else None


def _window(layer: Any) -> dict[str, Any]:
    return {name: getattr(layer, name) for name in ("kernel", "stride", "padding", "ceil")}


def _as_average(layer: Any) -> Any:
    if isinstance(layer, L.GlobalMaxPool):
        return L.GlobalAveragePool(layer.keepdims)
    return (L.AveragePool1D if layer.rank == 1 else L.AveragePool2D)(**_window(layer))


def _as_maximum(layer: Any) -> Any:
    if isinstance(layer, L.GlobalSumPool):
        return L.GlobalMaxPool(layer.keepdims)
    return (L.MaxPool1D if layer.rank == 1 else L.MaxPool2D)(**_window(layer))


def _as_sum(layer: Any) -> Any:
    if isinstance(layer, L.GlobalAveragePool):
        return L.GlobalSumPool(layer.keepdims)
    if isinstance(layer, L.AveragePool2D):
        return (L.SumPool1D if layer.rank == 1 else L.SumPool2D)(**_window(layer))
    return None


def _activation(other: Any) -> Callable[[Any], Any]:
    def alter(layer: Any) -> Any:
        keeps = isinstance(layer, (L.Softmax, L.Sigmoid, L.Threshold)) or repr(layer) == repr(other)
        return None if keeps else other

    return alter


def _uncapped(layer: L.ReLU) -> Any:
    return None if layer.max_value is None else replace(layer, max_value=None)


def _scaled(power: int) -> Callable[[L.Dropout], Any]:
    return lambda layer: v.Times((1 - layer.rate) ** power) if 0 < layer.rate < 1 else None


LAYERS: tuple[tuple[str, Alter], ...] = (
    ("batch normalization left out", of(NORMS, lambda layer: L.Identity())),
    ("the bias left out", of(LINEAR, _without("bias"))),
    ("the kernel turned by 180 degrees", of(CONVS, _weight(flipped))),
    ("the kernel's height and width swapped", of(CONVS, _weight(transposed))),
    ("the kernel's channels swapped", of(CONVS, _weight(channels_swapped))),
    ("the weight transposed", of(L.Dense, _weight(np.transpose))),
    ("padding on the other side", _padded(lambda pair: pair[::-1])),
    ("padding all before", _padded(lambda pair: (sum(pair), 0))),
    ("padding all behind", _padded(lambda pair: (0, sum(pair)))),
    ("padding as much before as behind", _padded(lambda pair: (max(pair), max(pair)))),
    ("average instead of max pooling", of((L.MaxPool2D, L.GlobalMaxPool), _as_average)),
    ("max instead of average pooling", of((L.AveragePool2D, L.GlobalAveragePool), _as_maximum)),
    ("sum instead of average pooling", of((L.AveragePool2D, L.GlobalAveragePool), _as_sum)),
    ("activations left out", of(L.Activation, _activation(L.Identity()))),
    ("ReLU instead of another activation", of(L.Activation, _activation(L.ReLU()))),
    ("leaky ReLU (0.01) instead of another activation", of(L.Activation, _activation(L.LeakyReLU(0.01)))),
    ("GELU by its exact formula", of(L.GELU, _activation(L.GELU()))),
    ("GELU by its tanh formula", of(L.GELU, _activation(L.GELU(True)))),
    *(
        (f"{type(other).__name__} instead of ReLU", of(L.ReLU, _activation(other)))
        for other in (L.GELU(), L.SiLU(), L.ELU(), L.Softplus(), L.Tanh())
    ),
    ("ReLU with the upper bound 6", of(L.ReLU, _activation(L.ReLU(6.0)))),
    ("ReLU without its upper bound", of(L.ReLU, _uncapped)),
    ("subtraction as a sum", of(L.Subtract, lambda layer: L.Add())),
    ("values divided by the rate that dropout keeps", of(L.Dropout, _scaled(-1))),
    ("values multiplied by the rate that dropout keeps", of(L.Dropout, _scaled(1))),
    *((f"{k.__name__} without {p}", of(k, _without(p))) for k in SAMPLE for p in ("gamma", "beta")),
    *((f"{k.__name__} without eps", of(k, _no_eps)) for k in SAMPLE),
)
"""Changes of other layers, which the way back then shares."""

# ---------------------------------------------------------------- wiring


def _rewired(name: str, wire: Callable[[Network, Node], Iterable[tuple] | None]) -> Hypothesis:
    """Other nodes in the place of one."""

    def make(case: Case, names: Collection[str] | None) -> World | None:
        network, layers, changed = case.question.network, [], False  # type: ignore[var-annotated]
        for node in network.nodes:
            others = wire(network, node) if names is None or node.name in names else None
            changed |= others is not None
            layers += [(node.name, node.layer, node.inputs)] if others is None else others
        return _world(case, network.rebuilt(layers), False) if changed else None

    return Hypothesis(name, make, scoped=True, everywhere=True)


def _concatenated_in_order(network: Network, node: Node) -> list[tuple] | None:
    return [(node.name, node.layer, node.inputs[::-1])] if isinstance(node.layer, L.Concatenate) else None


def _one_branch(k: int) -> Callable:
    def wire(network: Network, node: Node) -> list[tuple] | None:
        if not isinstance(node.layer, L.Add) or network.shapes[node.inputs[k]] != network.shapes[node.name]:
            return None
        return [(node.name, L.Identity(), (node.inputs[k],))]

    return wire


def _flattened_last(network: Network, node: Node) -> list[tuple] | None:
    shape = network.shapes[node.inputs[0]]
    if not isinstance(node.layer, L.Flatten) or len(shape) < 2 or None in shape or shape[0] == 1:
        return None
    moved = f"{node.name} (channels last)"
    axes = (*range(1, len(shape)), 0)
    return [(moved, L.Transpose(axes), node.inputs), (node.name, node.layer, (moved,))]


def _bordered(mode: str) -> Callable:
    def wire(network: Network, node: Node) -> list[tuple] | None:
        layer, shape = node.layer, network.shapes[node.inputs[0]]
        if not isinstance(layer, CONVS) or None in shape or layer.tap_bias is not None:
            return None
        pads = _pads(layer, shape)
        if not np.any(pads) or (mode == "reflect" and any(max(p) >= n for p, n in zip(pads, shape[1:]))):
            return None
        around = f"{node.name} (padding)"
        return [
            (around, v.BorderPadding(pads, mode), node.inputs),
            (node.name, replace(layer, padding=0), (around,)),
        ]

    return wire


WIRING: tuple[Hypothesis, ...] = (
    _rewired("inputs concatenated in another order (in the forward pass too)", _concatenated_in_order),
    _rewired("a sum of its first branch alone (in the forward pass too)", _one_branch(0)),
    _rewired("a sum of its last branch alone (in the forward pass too)", _one_branch(-1)),
    _rewired("flattened channels last (in the forward pass too)", _flattened_last),
    _rewired("padding by the border's values instead of zeros", _bordered("edge")),
    _rewired("padding by reflection instead of zeros", _bordered("reflect")),
)

FORWARD: tuple[Hypothesis, ...] = (
    *(h for name, alter in NORMALIZATIONS for h in everywhere(name, alter)),
    Hypothesis("batch normalization in training mode", _training, scoped=True, everywhere=True),
    *(h for h in everywhere("average pooling counts padding otherwise", of(L.AveragePool2D, _counting))),
    *(in_forward(f"{name} (in the forward pass too)", alter) for name, alter in LAYERS),
    *WIRING,
)
"""Known bugs of the forward pass."""

# ---------------------------------------------------------------- inputs


MEAN, STD = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])
"""Of ImageNet's channels."""


def _standardized(x: np.ndarray) -> np.ndarray:
    axes = tuple(range(1, x.ndim))
    std = x.std(axes, keepdims=True)
    return (x - x.mean(axes, keepdims=True)) / np.where(std, std, 1)


def _imagenet(x: np.ndarray) -> np.ndarray:
    return (x - MEAN[:, None, None]) / STD[:, None, None]


def _stretch(x: np.ndarray, axes: tuple[int, ...] | None) -> np.ndarray:
    low, high = x.min(axes, keepdims=True), x.max(axes, keepdims=True)
    return (x - low) / np.where(high > low, high - low, 1)


def _misread(x: np.ndarray) -> np.ndarray:
    return np.moveaxis(x, 1, -1).reshape(x.shape)


def _unmisread(R: np.ndarray) -> np.ndarray:
    last = np.moveaxis(R, 1, -1).shape
    return np.moveaxis(R.reshape(last), -1, 1)


def inputs(case: Case) -> Iterator[Hypothesis]:
    """Other preprocessing, of all inputs."""
    known = case.question.network.metadata.get("input_range")
    simple: dict[str, Callable[[np.ndarray], np.ndarray]] = {
        "divided by 255": lambda x: x / 255,
        "times 255": lambda x: x * 255,
        "scaled to -1 .. 1 (2 x - 1)": lambda x: 2 * x - 1,
        "scaled to 0 .. 1 ((x + 1) / 2)": lambda x: (x + 1) / 2,
        "inverted (1 - x)": lambda x: 1 - x,
        "negated": np.negative,
        "divided by the largest |value| of each sample": lambda x: x / _largest(x),
        "with the mean of each sample subtracted": lambda x: (
            x - x.mean(tuple(range(1, x.ndim)), keepdims=True)
        ),
        "standardized, each sample by itself": _standardized,
        "rounded to whole numbers": np.rint,
        "cut off at 0 and 1": lambda x: np.clip(x, 0, 1),
        "cut off at 0": lambda x: np.maximum(x, 0),
        "scaled to 0 .. 1 between its smallest and largest value": lambda x: _stretch(x, None),
        "scaled to 0 .. 1, each sample by itself": lambda x: _stretch(x, tuple(range(1, x.ndim))),
        "scaled to 0 .. 255 from 0 .. 1 of each sample": lambda x: 255 * _stretch(x, tuple(range(1, x.ndim))),
    }
    if known is not None and np.ndim(known[0]) == 0:
        low, high = known
        simple["scaled to 0 .. 1 by its range"] = lambda x: (x - low) / (high - low)
    turned: dict[str, tuple[Callable, Callable]] = {}
    shape = next(iter(case.question.x.values())).shape[1:]
    if len(shape) == 3:
        if shape[0] == 3:
            simple["standardized as for ImageNet"] = _imagenet
            simple["with the mean of ImageNet subtracted"] = lambda x: x - MEAN[:, None, None]
            simple["divided by the standard deviation of ImageNet"] = lambda x: x / STD[:, None, None]
            simple["with ImageNet's standardization undone"] = lambda x: (
                x * STD[:, None, None] + MEAN[:, None, None]
            )
        if shape[0] > 1:
            turned["with its channels in the opposite order (BGR for RGB)"] = (_reverse(1), _reverse(1))
            turned["read in another layout (NHWC for NCHW)"] = (_misread, _unmisread)
        if shape[1] == shape[2]:
            turned["with height and width swapped"] = (lambda x: x.swapaxes(2, 3),) * 2
        turned["mirrored from left to right"] = (_reverse(3), _reverse(3))
        turned["turned upside down"] = (_reverse(2), _reverse(2))
    for what, f in simple.items():
        yield _input(what, f)
    for what, (f, back) in turned.items():
        yield _input(what, f)
        yield replace(_input(f"{what}, and its relevance put back", f), back=back)


def _reverse(axis: int) -> Callable[[np.ndarray], np.ndarray]:
    return lambda x: np.flip(x, axis)


def _largest(x: np.ndarray) -> np.ndarray:
    most = np.abs(x).max(tuple(range(1, x.ndim)), keepdims=True)
    return np.where(most, most, 1)


def _open(rule: Any) -> Any:
    """The rule without a check of its bounds, which another input may leave."""
    return v.ZBoxOpen(rule.low, rule.high, rule.epsilon) if isinstance(rule, ZBox) else rule


def _input(what: str, f: Callable[[np.ndarray], np.ndarray]) -> Hypothesis:
    def make(case: Case, names: Collection[str] | None) -> World | None:
        x = {name: f(value) for name, value in case.question.x.items()}
        same = all(np.array_equal(x[name], value) for name, value in case.question.x.items())
        if same:
            return None
        world = case.question.world(x=x)
        return replace(world, rules={name: _open(rule) for name, rule in world.rules.items()})

    return Hypothesis(f"the input {what}", make, everywhere=True)


# ---------------------------------------------------------------- treatments


def treatments(case: Case) -> Iterator[Hypothesis]:
    """Other treatments of batch normalization, where the network has any."""
    question = case.question
    if not any(isinstance(node.layer, L.BatchNorm) for node in question.network.nodes):
        return
    # beside "fused", the others are other rules: that it is passed unchanged is among the bugs
    own = question.normalization
    same = {own} if own == "fused" else {own, "identity"}

    def treated(how: str) -> Callable:
        return lambda case, names: case.question.world(normalization=how)

    for other in NORMALIZATION:
        if other not in same:
            yield Hypothesis(f"batch normalization treated as {other!r}", treated(other))

    def merged(case: Case, names: Collection[str] | None) -> World:
        world = case.question.world(merged_by_zennit(case.question.network), "identity")
        zennit = on_pairs("", _library(CONVENTIONS["zennit"])).make(Case(case.question, world), None)
        return world if zennit is None else zennit

    yield Hypothesis(
        "zennit 0.5.1 with batch normalization merged by its canonizer, which leaves its eps behind",
        merged,
        library=True,
    )


def merged_by_zennit(network: Network) -> Network:
    """Batch normalization merged into the layer before it; what stays divides by ``sqrt(1 + eps)``."""
    changed = {}
    for node in network.nodes:
        source, bn = node.inputs[0], node.layer
        before: Any = network[source] if source in network else None
        alone = isinstance(before, LINEAR) and network.readers(source) == [node]
        if isinstance(bn, L.BatchNorm) and alone and getattr(before, "tap_bias", None) is None:
            g, s = bn.scale_and_shift()
            n = len(before.weight)
            weight = before.weight * g.reshape(-1, *(1,) * (before.weight.ndim - 1))
            bias = np.broadcast_to(s if before.bias is None else s + g * before.bias, n).copy()
            changed[source] = replace(before, weight=weight, bias=bias)
            changed[node.name] = L.BatchNorm(None, None, np.zeros(n), np.ones(n), bn.eps, bn.axis)
    return network.rebuilt((n.name, changed.get(n.name, n.layer), n.inputs) for n in network.nodes)
