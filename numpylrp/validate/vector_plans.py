"""The networks and cases of the published vectors: small, dyadic, and each about one thing."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any

import numpy as np

from .. import layers as L
from ..attributing import AbsLRP, ImageBox, RelativeAttribution
from ..composite import Composite, weighted
from ..network import Network
from ..planning import prepared
from ..rules import LRP0, AlphaBeta, Epsilon, Flat, Gamma, Rule, WSquare, ZBox, ZPlus


class Numbers:
    """Small dyadic numbers, the same for ever: Knuth's 64-bit linear congruential generator.

    ``state = 6364136223846793005 state + 1442695040888963407 mod 2^64``; a number is its upper 31 bits
    modulo a range.

    Examples
    --------
    >>> Numbers(1).array((2, 3))
    array([[-0.875, -0.875, -0.375],
           [ 0.   , -1.   , -0.375]])
    """

    def __init__(self, stream: int) -> None:
        self.state = stream

    def array(self, shape: Any, low: int = -8, high: int = 8, per: int = 8, zero: bool = True) -> np.ndarray:
        """Numbers n / per with n in low .. high, 0 only where `zero`."""
        shape = (shape,) if isinstance(shape, int) else shape
        values: list[float] = []
        while len(values) < np.prod(shape):
            self.state = (6364136223846793005 * self.state + 1442695040888963407) % 2**64
            n = low + (self.state >> 33) % (high - low + 1)
            if n or zero:
                values.append(n / per)
        return np.array(values).reshape(shape)

    def conv(self, *shape: int, bias: bool = True, kind: type = L.Conv2D, **options: Any) -> L.Layer:
        """A convolution whose weight has this shape."""
        weight, outputs = self.array(shape, zero=False), shape[0]
        if kind is L.Conv2DTranspose:
            outputs = shape[1] * options.get("groups", 1)
        return kind(weight, self.array(outputs, zero=False) if bias else None, **options)

    def dense(self, outputs: int, inputs: int, bias: bool = True) -> L.Dense:
        """A dense layer."""
        weight = self.array((outputs, inputs), zero=False)
        return L.Dense(weight, self.array(outputs, zero=False) if bias else None)

    def norm(self, channels: int, gamma: list[float] | None = None) -> L.BatchNorm:
        """A batch normalization with variance + eps = 9/4, 4, 9/16, 1, ...: its roots are rational."""
        roots = np.resize([1.5, 2.0, 0.75, 1.0], channels)
        gamma = self.array(channels, 4, 12) if gamma is None else gamma  # type: ignore[assignment]
        beta, mean = self.array(channels, zero=False), self.array(channels, zero=False)
        return L.BatchNorm(gamma, beta, mean, roots**2 - 0.0625, eps=0.0625)  # type: ignore[arg-type]


PLANS: dict[str, tuple[str, int, Callable[[Numbers], tuple]]] = {}
"""For each file its description, its stream of numbers, and what makes the network, the inputs and a function
of these that gives cases: name, rules, normalization, target, seed (None: the target's logit).
"""


def _plan(name: str, description: str, stream: int) -> Callable:
    def keep(make: Callable[[Numbers], tuple]) -> Callable:
        PLANS[name] = description, stream, make
        return make

    return keep


def _one(layer: L.Layer, x: np.ndarray) -> tuple:
    return Network([("layer", layer)], x.shape[1:]), {"input": x}, _grid


def _grid(network: Network, x: Mapping[str, np.ndarray], numbers: Numbers) -> Iterator[tuple]:
    """Every rule for all layers; z^B, whose inputs have bounds, for the first alone."""
    first, top = network.nodes[0].name, network.outputs[0]
    channels = np.arange(len(x["input"][0]))
    box = ZBox((-2 - channels / 4).tolist(), (2 + channels / 8).tolist())
    seed = numbers.array((2, *network.shapes[top]), -16, 16, zero=False)
    rules = {
        "lrp-0": LRP0(),
        "epsilon": Epsilon(0.25),
        "gamma": Gamma(0.25),
        "alpha2-beta1": AlphaBeta(2.0, 1.0),
        "z-plus": ZPlus(),
        "excitation": ZPlus(bias=False),
        "w-square": WSquare(),
        "flat": Flat(),
        "z-box": box,
    }
    for name, rule in rules.items():
        composite = Composite([(first, rule)], rule if name != "z-box" else Epsilon(0.25))
        yield name, composite.rules(network), "linear", None, seed
    if any(isinstance(node.layer, L.BatchNorm) for node in network.nodes):
        for name in ("identity", "abs-z"):
            rules = _settled(network, Epsilon(0.25), name)
            yield name, rules, name, None, seed


def _settled(network: Network, what: Any, normalization: str, **options: Any) -> dict[str, Rule]:
    walked, composite = prepared(network, what, normalization, **options)
    return composite.rules(walked)


def _presets(network: Network, x: Any, numbers: Numbers, box: bool = True) -> Iterator[tuple]:
    """The presets with an epsilon that shows, and every treatment of batch normalization."""
    norms = any(isinstance(node.layer, L.BatchNorm) for node in network.nodes)
    for name in ("epsilon", "epsilon-plus", "epsilon-plus-flat", "epsilon-gamma-box", "epsilon-alpha2-beta1"):
        if name.endswith("box") and not box:
            continue
        bounds = {"low": -2.0, "high": 2.0} if name.endswith("box") else {}
        for normalization in ("fused", "linear") if norms else ("linear",):
            rules = _settled(network, name, normalization, epsilon=0.25, **bounds)
            yield f"{name} {normalization}", rules, normalization, 1, None
    plain = {"gamma": Gamma(0.25), "z-plus": ZPlus(), "w-square": WSquare()}
    for name, rule in plain.items():
        for normalization in ("fused", "linear") if norms else ("linear",):
            composite = Composite([(node.name, rule) for node in weighted(network)], Epsilon(0.25))
            yield (
                f"{name} {normalization}",
                _settled(network, composite, normalization),
                normalization,
                1,
                None,
            )
    if norms:
        for normalization in ("identity", "abs-z"):
            rules = _settled(network, "epsilon-plus", normalization, epsilon=0.25)
            yield f"epsilon-plus {normalization}", rules, normalization, 1, None


@_plan("dense", "dense layer, inputs of mixed sign", 1)
def _(n: Numbers) -> tuple:
    return _one(n.dense(4, 6), n.array((2, 6), -16, 16))


@_plan("dense-no-bias", "dense layer without bias", 2)
def _(n: Numbers) -> tuple:
    return _one(n.dense(4, 6, bias=False), n.array((2, 6), -16, 16))


@_plan("dense-zero-outputs", "dense layer with outputs that are exactly 0: cancelled, and without weights", 3)
def _(n: Numbers) -> tuple:
    weight = np.array(
        [[1.0, -1.0, 0.5, 0.5], [0.0, 0.0, 0.0, 0.0], [0.5, 0.25, -1.0, 0.0], [-1.0, 1.0, 1.0, 1.0]]
    )
    return _one(
        L.Dense(weight, [0.0, 0.0, 0.5, -2.0]), np.array([[1.0, 1.0, 0.5, -0.5], [0.0, 0.0, 0.0, 0.0]])
    )


@_plan("conv1d", "one-dimensional convolution, stride 2, padding (2, 1)", 4)
def _(n: Numbers) -> tuple:
    conv = n.conv(3, 2, 3, kind=L.Conv1D, stride=2, padding=((2, 1),))
    return _one(conv, n.array((2, 2, 7), -16, 16))


@_plan("conv2d", "convolution without padding", 5)
def _(n: Numbers) -> tuple:
    return _one(n.conv(3, 2, 3, 2), n.array((2, 2, 4, 4), -16, 16))


@_plan("conv2d-no-bias", "convolution without bias, padding 1", 6)
def _(n: Numbers) -> tuple:
    return _one(n.conv(2, 2, 3, 3, bias=False, padding=1), n.array((2, 2, 4, 4), -16, 16))


@_plan("conv2d-padding", "convolution, padding 1 above, 2 left and 1 right", 7)
def _(n: Numbers) -> tuple:
    return _one(n.conv(2, 2, 3, 3, padding=((1, 0), (2, 1))), n.array((2, 2, 4, 4), -16, 16))


@_plan("conv2d-stride", "convolution, stride (2, 2), padding 1, an image of 5 x 4", 8)
def _(n: Numbers) -> tuple:
    return _one(n.conv(3, 2, 3, 3, stride=2, padding=1), n.array((2, 2, 5, 4), -16, 16))


@_plan("conv2d-dilation", "convolution, dilation 2, padding 1", 9)
def _(n: Numbers) -> tuple:
    return _one(n.conv(2, 2, 2, 2, dilation=2, padding=1), n.array((2, 2, 4, 5), -16, 16))


@_plan("conv2d-groups", "convolution in 2 groups", 10)
def _(n: Numbers) -> tuple:
    return _one(n.conv(4, 2, 2, 2, groups=2), n.array((2, 4, 3, 3), -16, 16))


@_plan("conv2d-depthwise", "depthwise convolution, multiplier 2, padding 1", 11)
def _(n: Numbers) -> tuple:
    return _one(n.conv(4, 1, 3, 3, groups=2, padding=1), n.array((2, 2, 3, 4), -16, 16))


@_plan(
    "conv2d-same", 'convolution, padding "same", stride 2, kernel 3 on an even size: more zeros behind', 12
)
def _(n: Numbers) -> tuple:
    return _one(n.conv(2, 2, 3, 3, stride=2, padding="same"), n.array((2, 2, 4, 6), -16, 16))


@_plan("conv2d-transpose", "transposed convolution, stride 2, padding 1, output padding 1", 13)
def _(n: Numbers) -> tuple:
    conv = n.conv(2, 3, 3, 3, kind=L.Conv2DTranspose, stride=2, padding=1, output_padding=1)
    return _one(conv, n.array((2, 2, 3, 3), -16, 16))


@_plan("average-pool", "average pooling 3 x 3, stride 2, padding 1 that is not counted", 14)
def _(n: Numbers) -> tuple:
    return _one(L.AveragePool2D(3, 2, 1), n.array((2, 2, 4, 5), -16, 16))


@_plan("average-pool-counted", "average pooling 3 x 3, stride 2, padding 1 that is counted", 15)
def _(n: Numbers) -> tuple:
    return _one(L.AveragePool2D(3, 2, 1, count_padding=True), n.array((2, 2, 4, 5), -16, 16))


@_plan("sum-pool", "sum pooling 2 x 2, stride 1, padding (1, 0)", 16)
def _(n: Numbers) -> tuple:
    return _one(L.SumPool2D(2, 1, ((1, 0), (1, 0))), n.array((2, 2, 3, 4), -16, 16))


@_plan("max-pool", "convolution, max pooling with ties (overlapping windows, padding), dense layer", 17)
def _(n: Numbers) -> tuple:
    layers = [
        ("conv", n.conv(2, 2, 1, 1)),
        ("pool", L.MaxPool2D(3, 2, 1)),
        ("flatten", L.Flatten()),
        ("fc", n.dense(3, 12)),
    ]
    # few values, so that a window has its largest several times
    return Network(layers, (2, 4, 5)), {"input": n.array((2, 2, 4, 5), -1, 1, per=1)}, _grid


@_plan("batch-norm", "batch normalization on images, one scale negative", 118)
def _(n: Numbers) -> tuple:
    return _one(n.norm(3, [0.75, -1.5, 0.5]), n.array((2, 3, 2, 3), -16, 16))


def _network(layers: list, x: Any, cases: Callable = _presets) -> tuple:
    x = x if isinstance(x, dict) else {"input": x}
    return Network(layers, {name: value.shape[1:] for name, value in x.items()}), x, cases


@_plan("net-conv-bn", "convolution, batch normalization (a scale is negative), ReLU, dense layer", 21)
def _(n: Numbers) -> tuple:
    layers = [
        ("conv", n.conv(3, 2, 3, 3, padding=1)),
        ("bn", n.norm(3, [0.75, -1.5, 0.5])),
        ("relu", L.ReLU()),
        ("flatten", L.Flatten()),
        ("fc", n.dense(3, 48)),
    ]
    return _network(layers, n.array((2, 2, 4, 4), -16, 16))


@_plan(
    "net-bn-padded-conv",
    "batch normalization before a zero-padded convolution: a bias for each position",
    122,
)
def _(n: Numbers) -> tuple:
    layers = [
        ("bn", n.norm(2)),
        ("conv", n.conv(3, 2, 3, 3, padding=1)),
        ("relu", L.ReLU()),
        ("gap", L.GlobalAveragePool()),
        ("fc", n.dense(3, 3)),
    ]
    return _network(layers, n.array((2, 2, 4, 4), -16, 16))


@_plan(
    "net-bn-relu-conv",
    "batch normalization and ReLU before a padded convolution; scales of any sign and 0",
    23,
)
def _(n: Numbers) -> tuple:
    layers = [
        ("bn", n.norm(3, [0.75, -1.5, 0.0])),
        ("relu1", L.ReLU()),
        ("conv", n.conv(3, 3, 3, 3, padding=1)),
        ("relu2", L.ReLU()),
        ("gap", L.GlobalAveragePool()),
        ("fc", n.dense(3, 3)),
    ]
    # the bounds of the input can't be followed through a ReLU to the first convolution
    return _network(layers, n.array((2, 3, 4, 4), -16, 16), partial(_presets, box=False))


@_plan("net-residual", "residual sum with batch normalization in both branches", 24)
def _(n: Numbers) -> tuple:
    layers = [
        ("conv1", n.conv(3, 2, 3, 3, padding=1)),
        ("bn1", n.norm(3)),
        ("relu1", L.ReLU()),
        ("conv2", n.conv(3, 3, 3, 3, padding=1)),
        ("bn2", n.norm(3)),
        ("conv_skip", n.conv(3, 2, 1, 1, bias=False), "input"),
        ("bn_skip", n.norm(3)),
        ("sum", L.Add(), ("bn2", "bn_skip")),
        ("relu2", L.ReLU()),
        ("gap", L.GlobalAveragePool()),
        ("fc", n.dense(3, 3)),
    ]
    return _network(layers, n.array((2, 2, 4, 4), -16, 16))


@_plan("net-concatenation", "two inputs, concatenation of channels, then batch normalization", 225)
def _(n: Numbers) -> tuple:
    layers = [
        ("conv_a", n.conv(2, 1, 3, 3, padding=1), "a"),
        ("conv_b", n.conv(1, 2, 1, 1), "b"),
        ("both", L.Concatenate(), ("conv_a", "conv_b")),
        ("bn", n.norm(3)),
        ("relu", L.ReLU()),
        ("flatten", L.Flatten()),
        ("fc", n.dense(3, 48)),
    ]
    return _network(layers, {"a": n.array((2, 1, 4, 4), -16, 16), "b": n.array((2, 2, 4, 4), -16, 16)})


@_plan("net-depthwise", "depthwise separable convolution, batch normalization behind each", 426)
def _(n: Numbers) -> tuple:
    layers = [
        ("conv1", n.conv(2, 2, 3, 3, padding=1)),
        ("bn1", n.norm(2)),
        ("relu1", L.ReLU()),
        ("depthwise", n.conv(4, 1, 3, 3, bias=False, groups=2, stride=2, padding="same")),
        ("bn2", n.norm(4)),
        ("relu2", L.ReLU()),
        ("pointwise", n.conv(3, 4, 1, 1, bias=False)),
        ("bn3", n.norm(3)),
        ("relu3", L.ReLU()),
        ("gap", L.GlobalAveragePool()),
        ("fc", n.dense(3, 3)),
    ]
    return _network(layers, n.array((2, 2, 4, 4), -16, 16))


@_plan("net-lrn", "local response normalization across channels, max pooling", 27)
def _(n: Numbers) -> tuple:
    layers = [
        ("conv", n.conv(4, 2, 3, 3)),
        ("relu", L.ReLU()),
        ("lrn", L.LRN(3, alpha=0.375, beta=1.0, k=1.0)),
        ("pool", L.MaxPool2D(2)),
        ("flatten", L.Flatten()),
        ("fc", n.dense(3, 4)),
    ]
    return _network(layers, n.array((2, 2, 4, 4), -16, 16))


@_plan("net-fc-bn", "dense layers with batch normalization", 228)
def _(n: Numbers) -> tuple:
    layers = [
        ("fc1", n.dense(6, 8)),
        ("bn1", n.norm(6)),
        ("relu1", L.ReLU()),
        ("fc2", n.dense(5, 6)),
        ("bn2", n.norm(5)),
        ("relu2", L.ReLU()),
        ("fc3", n.dense(3, 5)),
    ]
    return _network(layers, n.array((2, 8), -16, 16))


@_plan("net-cnn", "a small classifier: five convolutions, max and average pooling, two dense layers", 2129)
def _(n: Numbers) -> tuple:
    layers = [
        ("conv1", n.conv(2, 2, 3, 3, padding=1)),
        ("bn1", n.norm(2)),
        ("relu1", L.ReLU()),
        ("conv2", n.conv(3, 2, 3, 3, padding="same")),
        ("bn2", n.norm(3)),
        ("relu2", L.ReLU()),
        ("pool1", L.MaxPool2D(2)),
        ("conv3", n.conv(4, 3, 2, 2, padding=((1, 0), (0, 1)))),
        ("relu3", L.ReLU()),
        ("conv4", n.conv(4, 2, 1, 1, groups=2)),
        ("relu4", L.ReLU()),
        ("pool2", L.AveragePool2D(2, 1)),
        ("conv5", n.conv(3, 4, 2, 2)),
        ("bn5", n.norm(3)),
        ("relu5", L.ReLU()),
        ("flatten", L.Flatten()),
        ("fc1", n.dense(4, 3)),
        ("relu6", L.ReLU()),
        ("fc2", n.dense(3, 4)),
    ]
    return _network(layers, n.array((2, 2, 6, 6), -16, 16))


def _attributing(network: Network, x: Any, numbers: Numbers) -> Iterator[tuple]:
    """The rules by absolute contributions in every layer, relevance of both signs; and RAP."""
    top = network.outputs[0]
    seed = numbers.array((2, *network.shapes[top]), -16, 16, zero=False)
    rules: dict[str, Rule] = {
        "absolute": AbsLRP(),
        "attribution": RelativeAttribution(),
        "attribution inhibiting": RelativeAttribution(inhibiting=True),
    }
    if len(network) == 1:
        rules["image box"] = ImageBox()
    for name, rule in rules.items():
        composite = Composite([(node.name, rule) for node in weighted(network)], Epsilon(0.0))
        yield name, composite.rules(network), "linear", None, seed
    if len(network) > 1:
        yield "rap", _settled(network, "rap", "linear"), "linear", 1, None


@_plan("rap-dense", "dense layer, inputs of mixed sign, rules by absolute contributions", 31)
def _(n: Numbers) -> tuple:
    return Network([("layer", n.dense(4, 6))], (6,)), {"input": n.array((2, 6), -16, 16)}, _attributing


@_plan("rap-network", "RAP: three channels, padding, pooling, two dense layers", 32)
def _(n: Numbers) -> tuple:
    layers = [
        ("conv1", n.conv(3, 3, 3, 3, padding=1)),
        ("relu1", L.ReLU()),
        ("pool", L.MaxPool2D(2)),
        ("conv2", n.conv(3, 3, 2, 2)),
        ("relu2", L.ReLU()),
        ("flatten", L.Flatten()),
        ("fc1", n.dense(4, 3)),
        ("relu3", L.ReLU()),
        ("fc2", n.dense(3, 4)),
    ]
    return Network(layers, (3, 4, 4)), {"input": n.array((2, 3, 4, 4), -16, 16)}, _attributing
