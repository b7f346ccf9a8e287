"""More networks of the published vectors: seeds, several outputs, merges, poolings, diagonal layers."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any

import numpy as np

from .. import layers as L
from .. import seed as seeds
from ..composite import Composite
from ..network import Network
from ..rules import LRP0, AlphaBeta, Epsilon, Gamma, ZPlus
from .sequence_plans import _norms
from .vector_plans import Numbers, _network, _plan, _presets, _settled

_open = partial(_presets, box=False)
"""The presets but for z^B: of inputs without bounds, or of several kinds."""


def _rounded(seed: np.ndarray) -> np.ndarray:
    """A seed in multiples of 2^-10, so that it is the same on every machine."""
    return np.round(seed * 1024) / 1024


def _by_seed(network: Network, x: Any, numbers: Numbers) -> Iterator[tuple]:
    """The seeds of the literature under two composites; R is of the seed as it stands."""
    y, target = network.record(x)[network.outputs[0]], np.array([1, 1])
    starts = {
        "one-hot": seeds.one_hot(y, target),
        "clrp1": seeds.contrastive(y, target),
        "sglrp": _rounded(seeds.softmax_gradient(y, target)),
        "margin": seeds.logit(y, target) - seeds.logit(y, np.array([0, 2])),
        "all": np.array(y),
    }
    for name, seed in starts.items():
        for preset in ("epsilon", "epsilon-plus"):
            rules = _settled(network, preset, "linear", epsilon=0.25)
            yield f"{name} {preset}", rules, "linear", None, seed


@_plan("net-seeds", "seeds: one-hot, contrastive, softmax gradient (in multiples of 1/1024), margin, all", 41)
def _(n: Numbers) -> tuple:
    layers = [
        ("conv1", n.conv(3, 2, 3, 3, padding=1)),
        ("relu1", L.ReLU()),
        ("pool", L.MaxPool2D(2)),
        ("conv2", n.conv(3, 3, 2, 2)),
        ("relu2", L.ReLU()),
        ("flatten", L.Flatten()),
        ("fc", n.dense(3, 3)),
    ]
    return _network(layers, n.array((2, 2, 4, 4), -16, 16), _by_seed)


@_plan("net-two-outputs", "two inputs and two outputs, of which the first is explained", 42)
def _(n: Numbers) -> tuple:
    layers = [
        ("conv", n.conv(3, 1, 3, 3, padding=1), "image"),
        ("relu1", L.ReLU()),
        ("gap", L.GlobalAveragePool()),
        ("fc_side", n.dense(3, 4), "side"),
        ("relu2", L.ReLU()),
        ("both", L.Concatenate(), ("gap", "relu2")),
        ("class", n.dense(3, 6), "both"),
        ("rating", n.dense(2, 6), "both"),
    ]
    x = {"image": n.array((2, 1, 4, 4), -16, 16), "side": n.array((2, 4), -16, 16)}
    shapes = {name: value.shape[1:] for name, value in x.items()}
    return Network(layers, shapes, outputs=("class", "rating")), x, _open


@_plan("net-shared", "one convolution that is used twice", 43)
def _(n: Numbers) -> tuple:
    shared = n.conv(2, 2, 3, 3, padding=1)
    layers = [
        ("first", shared),
        ("bn1", n.norm(2)),
        ("relu1", L.ReLU()),
        ("second", shared, "relu1"),
        ("relu2", L.ReLU()),
        ("sum", L.Add(), ("relu2", "relu1")),
        ("flatten", L.Flatten()),
        ("fc", n.dense(3, 32)),
    ]
    return _network(layers, n.array((2, 2, 4, 4), -16, 16), _open)


@_plan("net-merges", "upsampling, and sums, differences, means and maxima of branches", 44)
def _(n: Numbers) -> tuple:
    layers = [
        ("a", n.conv(2, 2, 2, 2, stride=2), "input"),
        ("up", L.UpSampling((1, 2, 2)), "a"),
        ("b", n.conv(2, 2, 1, 1), "input"),
        ("difference", L.Subtract(), ("up", "b")),
        ("relu1", L.ReLU()),
        ("largest", L.Maximum(), ("up", "b")),
        ("mean", L.Average(), ("relu1", "largest")),
        ("sum", L.Add(), ("mean", "b")),
        ("flatten", L.Flatten()),
        ("fc", n.dense(3, 32)),
    ]
    return _network(layers, n.array((2, 2, 4, 4), -16, 16), _open)


def _products(network: Network, x: Any, numbers: Numbers) -> Iterator[tuple]:
    """A product by halves, or all to its signal, beside rules for the other layers."""
    from ..nonlinear import SignalTakesAll, Uniform

    rules = {"lrp-0": LRP0(), "epsilon": Epsilon(0.25), "gamma": Gamma(0.25), "z-plus": ZPlus()}
    for product, shared in (("uniform", Uniform()), ("signal", SignalTakesAll())):
        for name, rule in rules.items():
            composite = Composite([("Multiply", shared)], rule)
            yield f"{product} {name}", composite.rules(network), "linear", 1, None


@_plan("net-product", "a product of a signal and a hard sigmoid, as in squeeze and excitation", 45)
def _(n: Numbers) -> tuple:
    layers = [
        ("conv", n.conv(3, 2, 3, 3), "input"),
        ("relu", L.ReLU()),
        ("gap", L.GlobalAveragePool(True), "relu"),
        ("squeeze", n.conv(3, 3, 1, 1), "gap"),
        ("gate", L.HardSigmoid(0.25, 0.5)),
        ("product", L.Multiply(0), ("relu", "gate")),
        ("flatten", L.Flatten()),
        ("fc", n.dense(3, 12)),
    ]
    return _network(layers, n.array((2, 2, 4, 4), -16, 16), _products)


@_plan("net-poolings", "adaptive, ceil and global maximum pooling, same padding with more zeros before", 46)
def _(n: Numbers) -> tuple:
    layers = [
        ("conv1", n.conv(3, 2, 3, 3, stride=2, padding="same_lower")),
        ("relu1", L.ReLU()),
        ("mean", L.AveragePool2D(2, 2, ceil=True), "relu1"),
        ("adaptive", L.AdaptiveAveragePool((2, 2)), "relu1"),
        ("sum", L.Add(), ("mean", "adaptive")),
        ("conv2", n.conv(3, 3, 1, 1), "sum"),
        ("top", L.GlobalMaxPool(), "conv2"),
        ("fc", n.dense(3, 3)),
    ]
    return _network(layers, n.array((2, 2, 6, 6), -16, 16), _open)


@_plan("net-bn-max-pool", "a negative scale before a maximum pooling, which then looks for the smallest", 247)
def _(n: Numbers) -> tuple:
    layers = [
        ("bn", n.norm(2, [0.75, -1.5])),
        ("pool", L.MaxPool2D(2)),
        ("conv", n.conv(3, 2, 2, 2)),
        ("relu", L.ReLU()),
        ("flatten", L.Flatten()),
        ("fc", n.dense(3, 12)),
    ]
    return _network(layers, n.array((2, 2, 6, 6), -64, 64, per=32), _open)


@_plan(
    "net-bn-average-pool",
    "a negative scale and one of 0 before an average pooling and a padded convolution",
    48,
)
def _(n: Numbers) -> tuple:
    layers = [
        ("conv", n.conv(3, 2, 3, 3, padding=1)),
        ("relu1", L.ReLU()),
        ("bn", n.norm(3, [0.75, -1.5, 0.0])),
        ("pool", L.AveragePool2D(2)),
        ("conv2", n.conv(2, 3, 2, 2, padding=((1, 0), (1, 0)))),
        ("relu2", L.ReLU()),
        ("flatten", L.Flatten()),
        ("fc", n.dense(3, 8)),
    ]
    return _network(layers, n.array((2, 2, 4, 4), -16, 16), _open)


@_plan("net-bn-concatenation", "two batch normalizations into one concatenation before a ReLU", 149)
def _(n: Numbers) -> tuple:
    layers = [
        ("bn_a", n.norm(2, [0.75, -1.5]), "input"),
        ("conv", n.conv(2, 2, 3, 3, padding=1), "input"),
        ("relu", L.ReLU(), "conv"),
        ("bn_b", n.norm(2, [-0.5, 1.25]), "relu"),
        ("both", L.Concatenate(), ("bn_a", "bn_b")),
        ("relu2", L.ReLU()),
        ("conv2", n.conv(3, 4, 2, 2)),
        ("relu3", L.ReLU()),
        ("gap", L.GlobalAveragePool()),
        ("fc", n.dense(3, 3)),
    ]
    return _network(layers, n.array((2, 2, 3, 3), -16, 16), _open)


@_plan("net-bn-stays", "a batch normalization before a leaky ReLU, which can't be fused", 50)
def _(n: Numbers) -> tuple:
    layers = [
        ("pool", L.MaxPool2D(2)),
        ("bn", n.norm(2, [0.75, -1.5])),
        ("leaky", L.LeakyReLU(0.125)),
        ("conv", n.conv(3, 2, 2, 2)),
        ("relu", L.ReLU()),
        ("flatten", L.Flatten()),
        ("fc", n.dense(3, 3)),
    ]
    return _network(layers, n.array((2, 2, 4, 4), -16, 16), _open)


@_plan("net-diagonal", "standardized inputs, a scale and a bias that stand alone", 51)
def _(n: Numbers) -> tuple:
    layers = [
        ("standardize", L.Affine(n.array(2, 4, 12), n.array(2, -8, 8, zero=False))),
        ("conv", n.conv(3, 2, 3, 3, padding=1, bias=False)),
        ("bias", L.Affine([1.0, 1.0, 1.0], n.array(3, -8, 8, zero=False))),
        ("relu", L.ReLU()),
        ("scale", L.Affine([0.5, -0.75, 1.25], [0.0, 0.0, 0.0])),
        ("flatten", L.Flatten()),
        ("fc", n.dense(3, 48)),
    ]
    return _network(layers, n.array((2, 2, 4, 4), -16, 16), _diagonal)


def _diagonal(network: Network, x: Any, numbers: Numbers) -> Iterator[tuple]:
    """Fused, as layers of their own, and passed."""
    rules = {
        "lrp-0": LRP0(),
        "epsilon": Epsilon(0.25),
        "gamma": Gamma(0.25),
        "z-plus": ZPlus(),
        "alpha2-beta1": AlphaBeta(2.0, 1.0),
    }
    for name, rule in rules.items():
        for normalization in ("fused", "linear"):
            settled = _settled(network, Composite([], rule), normalization)
            yield f"{name} {normalization}", settled, normalization, 1, None


@_plan("net-activations", "PReLU, hard swish, a clip and ReLU6: relevance passes unchanged", 852)
def _(n: Numbers) -> tuple:
    layers = [
        ("conv1", n.conv(3, 2, 3, 3)),
        ("prelu", L.PReLU(np.array([0.25, -0.125, 0.5]))),
        ("conv2", n.conv(2, 3, 1, 1)),
        ("swish", L.HardSwish()),
        ("conv3", n.conv(2, 2, 1, 1)),
        ("clip", L.Clip(-1.0, 2.0)),
        ("flatten", L.Flatten()),
        ("fc1", n.dense(4, 8)),
        ("relu6", L.ReLU(6.0)),
        ("fc2", n.dense(3, 4)),
    ]
    return _network(layers, n.array((2, 2, 4, 4), -16, 16), _open)


@_plan("seq-group-norm", "group normalization, two channels a group, dense layer", 541)
def _(n: Numbers) -> tuple:
    norm = L.GroupNorm(2, n.array(4, 4, 12), n.array(4, -4, 4, zero=False), eps=0.0625)
    layers = [("norm", norm), ("flatten", L.Flatten()), ("fc", n.dense(2, 16))]
    return Network(layers, (4, 2, 2)), {"input": n.array((2, 4, 2, 2), -16, 16, zero=False)}, _norms


@_plan("seq-instance-norm", "instance normalization, dense layer", 542)
def _(n: Numbers) -> tuple:
    norm = L.InstanceNorm(gamma=n.array(2, 4, 12), beta=n.array(2, -4, 4, zero=False), eps=0.0625)
    layers = [("norm", norm), ("flatten", L.Flatten()), ("fc", n.dense(2, 12))]
    return Network(layers, (2, 2, 3)), {"input": n.array((2, 2, 2, 3), -16, 16, zero=False)}, _norms
