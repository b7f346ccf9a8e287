"""Published vectors: small networks with exact relevance, in files that any implementation can be checked by.

Each file is a model file (`numpylrp.convert.native`) with one more group, ``/vectors``: inputs, the output z
of every layer and, for each case, rules, seed, the relevance R of every layer and the error that a correct
implementation keeps to. `tests/vectors/README.md` describes them for readers in other languages. Weights
and inputs are small dyadic numbers from a generator that is written out here; z and R are rational numbers
of `numpylrp.validate.exact`, rounded once.

The bounds come from the exact numbers alone, by a first-order running error analysis (Higham 2002, ch. 3).
With u the unit roundoff and u E the error of a value,

    sum      z = sum_i t_i           E(z) = sum_i E(t_i) + n sum_i |t_i|
    share    R_i += c_ij / z_j R_j   E(R_i) += |c_ij| / |z_j| E(R_j)
                                              + (E(c_ij) / |z_j| + |c_ij| E(z_j) / z_j^2) |R_j|

where n is the number of terms, and more by a few for their own roundings. A sum of terms that are multiples
of a power of two, and small, rounds in no order and has no error of its own. So errors grow by the
condition numbers ``sum_i |c_ij| / |z_j|`` of the layers. The bound of a case is 2 u max E / max |R|, the
worst of its arrays. Where rounding could decide (the sign of z, who wins a maximum), no file is written.
"""

from __future__ import annotations

import dataclasses
import json
import math
import os
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from decimal import ROUND_CEILING, Context, Decimal
from fractions import Fraction
from functools import partial
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from .. import layers as L
from .. import rules as kinds
from ..composite import Composite, weighted
from ..convert import native
from ..errors import FileError, LRPError
from ..explain import explain, prepared
from ..files import opened, stored_array
from ..network import Network
from ..rules import LRP0, AlphaBeta, Epsilon, Flat, Gamma, Rule, WSquare, ZBox, ZPlus
from . import exact
from .exact import Each, Lrn, Move, Pick, Rows, Tensor, Threshold

FORMAT, VERSION = "numpylrp vectors", 1

UNIT = {"float64": 2.0**-53, "float32": 2.0**-24}
"""Unit roundoff."""

CONVENTIONS = {
    "stabilizer": "z + epsilon * sign(z)",
    "sign(0)": 1,
    "0/0": 0,
    "bias": "part of the denominator, where it absorbs its share; in w-square, flat and z-box it is not",
    "alpha-beta": "contributions x_i w_ij are split by sign, the bias likewise",
    "gamma": "contributions of the sign of z_j are favoured, for inputs of any sign; z_j = 0 is positive",
    "ties": "the first of equal values in row-major order wins a maximum and takes all its relevance",
    "activation": "passes relevance on unchanged",
    "padding": "zeros around an image are no inputs, in no rule and no maximum",
    "branches": "the relevance of a tensor that is read twice is the sum of what its readers send",
    "layout": "row-major, batch first, channels before height and width",
}


@dataclass(frozen=True)
class Case:
    """One explanation of a file's inputs.

    Attributes
    ----------
    rules : dict of Rule
        By the layer's name.
    normalization : str
        Of batch normalization: "linear", "fused", "identity" or "abs-z" (see `numpylrp.explain`).
    target : int or None
        The class whose logit the seed is; None for a seed of its own.
    seed : (N, *output) array
        Relevance of the network's first output.
    R : dict of (N, *shape) arrays
        Relevance of every layer's output, and of the inputs, by name.
    bounds : dict of float
        For "float64" and "float32": the largest error, relative to the largest ``|R|`` of the array.
    """

    rules: dict[str, Rule]
    normalization: str
    target: int | None
    seed: np.ndarray
    R: dict[str, np.ndarray]
    bounds: dict[str, float]


@dataclass(frozen=True)
class Vectors:
    """What one file holds.

    Attributes
    ----------
    name, description : str
    network : Network
    x : dict of (N, *shape) arrays
        The inputs, by name.
    y : dict of (N, *shape) arrays
        The output of every layer (of the network as it is, not fused), by its name.
    y_bounds : dict of float
        As `Case.bounds`, for y.
    cases : dict of Case
    conventions : dict
    """

    name: str
    description: str
    network: Network
    x: dict[str, np.ndarray]
    y: dict[str, np.ndarray]
    y_bounds: dict[str, float]
    cases: dict[str, Case]
    conventions: dict[str, Any]


# ---------------------------------------------------------------- numbers


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
        gamma = self.array(channels, 4, 12) if gamma is None else gamma
        beta, mean = self.array(channels, zero=False), self.array(channels, zero=False)
        return L.BatchNorm(gamma, beta, mean, roots**2 - 0.0625, eps=0.0625)


# ---------------------------------------------------------------- the files


PLANS: dict[str, tuple[str, int, Callable[[Numbers], tuple]]] = {}
"""For each file its description, its stream of numbers, and what makes the network, the inputs and a function
of these that gives cases: name, rules, normalization, target, seed (None: the target's logit).
"""


def _plan(name: str, description: str, stream: int) -> Callable:
    def keep(make: Callable[[Numbers], tuple]) -> Callable:
        PLANS[name] = description, stream, make
        return make

    return keep


def names() -> tuple[str, ...]:
    """The names of the files, without their ending.

    Examples
    --------
    >>> names()[:3]
    ('dense', 'dense-no-bias', 'dense-zero-outputs')
    """
    return tuple(PLANS)


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


# ---------------------------------------------------------------- bounds


MADE = 16
"""So many roundings at most has a weight or bias that is calculated (by a root, by fusing)."""

Terms = dict[int, tuple[list[float], float]]
"""For each input the terms of its contribution c, and |dc / dx|."""


def _undecided(what: str) -> LRPError:
    return LRPError(f"rounding in float32 could decide {what}: choose other numbers")


def _never_rounds(terms: list[float]) -> bool:
    """Whether no sum of some of the terms rounds, in any order, in float32.

    Examples
    --------
    >>> _never_rounds([0.5, -3.0]), _never_rounds([1 / 3, 1.0])
    (True, False)
    """
    most = max((t.as_integer_ratio()[1] for t in terms), default=1)
    return most <= 2**24 and math.fsum(map(abs, terms)) * most < 2**24


def _shares(
    rule: Any, row: Mapping[int, float], bias: float, x: list[float], z: float, box: Any
) -> list[tuple]:
    """What a rule divides for one output unit: factor, contributions and bias of each share."""
    plus, minus = (lambda v: max(v, 0.0)), (lambda v: min(v, 0.0))
    kind = type(rule).__name__
    if kind == "Epsilon":
        return [(1.0, {i: ([x[i] * w], abs(w)) for i, w in row.items()}, bias)]
    if kind == "Gamma":
        part, g = plus if z >= 0 else minus, rule.gamma
        terms = {i: ([x[i] * w, g * part(x[i] * w)], (1 + g) * abs(w)) for i, w in row.items()}
        return [(1.0, terms, bias + g * part(bias))]
    if kind in ("AlphaBeta", "ZPlus"):
        found = []
        for factor, part in ((rule.alpha, plus), (rule.beta, minus)):
            terms = {i: ([c := part(x[i] * w)], abs(w) if c or not x[i] else 0.0) for i, w in row.items()}
            found += [(factor, terms, part(bias) if rule.bias else 0.0)] if factor else []
        return found
    if kind == "WSquare":
        return [(1.0, {i: ([w * w], 0.0) for i, w in row.items()}, 0.0)]
    if kind == "Flat":
        return [(1.0, {i: ([1.0], 0.0) for i in row}, 0.0)]
    if kind == "ZBox":
        low, high = box
        terms = {i: ([x[i] * w, -low[i] * plus(w), -high[i] * minus(w)], abs(w)) for i, w in row.items()}
        return [(1.0, terms, 0.0)]
    if kind == "AbsZ":
        return [(1.0, {i: ([abs(x[i] * w)], abs(w)) for i, w in row.items()}, abs(bias))]
    raise LRPError(f"there is no bound for the rule {rule!r}")


class _Errors:
    """Error bounds, in units of u, of one sample's activations and relevance.

    Made of the exact values alone; `majorant` is the network with weights of absolute value, whose
    biases say how much was summed where a bias is calculated (by a normalization, or fusing).
    """

    def __init__(self, network: Network, x: Mapping[str, np.ndarray], fused: bool) -> None:
        given = {name: exact.tensor(value) for name, value in x.items()}
        shapes = {name: value.shape for name, value in given.items()}
        plain = exact._nodes(network, shapes)
        major = exact._nodes(_majorant(network), shapes)
        self.nodes = plain
        if fused:
            (self.nodes, stays), (major, as_before) = (
                exact._fused(n, network.outputs) for n in (plain, major)
            )
            if stays.keys() != as_before.keys():
                raise LRPError("the majorant fuses otherwise than the network")
        self.values = {n: [float(v) for v in t.values] for n, t in exact._record(self.nodes, given).items()}
        self.made = {n.name for n in plain.values() if n.kind in ("BatchNorm", "LRN")}
        self.made |= {n.name for n in self.nodes.values() if n.op is not plain[n.name].op}
        self.rows = {}
        for node in self.nodes.values():
            op = node.op
            if isinstance(op, Lrn):
                op = op.expanded([Fraction(v) for v in self._joined(self.values, node)])
            if isinstance(op, Rows):
                bias = major[node.name].op.bias if node.name in self.made and op is node.op else op.bias
                rows = [{i: float(w) for i, w in row.items()} for row in op.rows]
                self.rows[node.name] = rows, [float(b) for b in op.bias], [abs(float(b)) for b in bias]
        self.E: dict[str, list[float]] = {name: [0.0] * len(t.values) for name, t in given.items()}
        for node in self.nodes.values():
            self.E[node.name] = self._forward(node, major[node.name])

    @staticmethod
    def _joined(values: Mapping[str, list], node: exact.Node) -> list:
        return [v for name in node.inputs for v in values[name]]

    def _sum(self, node: exact.Node, terms: Terms, bias: float, major: float, E: list[float]) -> float:
        """Error of a sum of contributions and a bias."""
        sizes = [t for parts, _ in terms.values() for t in parts]
        carried = math.fsum(slope * E[i] for i, (_, slope) in terms.items() if slope)
        made = node.name in self.made
        if not carried and not made and _never_rounds([*sizes, bias]):
            return 0.0
        return carried + (len(sizes) + 1 + MADE * made) * (math.fsum(map(abs, sizes)) + max(abs(bias), major))

    def _forward(self, node: exact.Node, major: exact.Node) -> list[float]:
        op, x, E = node.op, self._joined(self.values, node), self._joined(self.E, node)
        if isinstance(op, Lrn):
            if any(E):
                raise LRPError("the input of LRN is to be exact")
            return [(MADE + len(w)) * abs(v) for v, w in zip(self.values[node.name], op.windows)]
        if node.name in self.rows:
            found = []
            for row, b, most in zip(*self.rows[node.name]):
                terms = {i: ([x[i] * w], abs(w)) for i, w in row.items()}
                found.append(self._sum(node, terms, b, most, E))
            return found
        if isinstance(op, Pick):
            return [max(E[i] for i in window) for window in op.windows]
        if isinstance(op, Threshold):
            return [
                e if ok else MADE * abs(float(v)) for e, v, ok in zip(E, major.op.value, self._passes(node))
            ]
        if isinstance(op, Each):  # a ReLU: what is surely below 0 is exactly 0
            return [0.0 if v + UNIT["float32"] * e <= 0 else e for v, e in zip(x, E)]
        if isinstance(op, Move):
            return [0.0 if i is None else E[i] for i in op.source]
        raise LRPError(f"there is no bound for layer {node.name!r} ({node.kind})")

    def _passes(self, node: exact.Node) -> list[bool]:
        op, x, E = node.op, self._joined(self.values, node), self._joined(self.E, node)
        found = []
        for s, t, v, e in zip(op.sign, op.value, x, E):
            gap = float(s) * (v - float(t))
            if s and abs(gap) <= UNIT["float32"] * (e + MADE * abs(float(t))):
                raise _undecided(f"whether a unit of {node.name!r} passes its threshold")
            found.append(not s or gap > 0)
        return found

    def back(self, steps: Mapping[str, exact.Step], rules: Mapping[str, Rule]) -> dict[str, list[float]]:
        """Errors of the relevance of every layer's output and of the inputs."""
        top = next(iter(steps))
        found = {top: [abs(float(v)) for v in steps[top].R.values]}  # the seed is rounded
        for node in reversed(self.nodes.values()):
            if node.name not in steps:
                continue
            R = [float(v) for v in steps[node.name].R.values]
            sent, at = self._back(node, R, found[node.name], rules.get(node.name)), 0
            sizes = steps[node.name].R_x
            for name, part in zip(node.inputs, sizes if isinstance(sizes, tuple) else (sizes,)):
                some = sent[at : at + len(part.values)]
                at += len(part.values)
                if name in found:  # another branch came here before
                    some = [a + b + abs(float(v)) for a, b, v in zip(found[name], some, part.values)]
                found[name] = some
        return found

    def _back(self, node: exact.Node, R: list[float], E_R: list[float], rule: Any) -> list[float]:
        op, x, E = node.op, self._joined(self.values, node), self._joined(self.E, node)
        if isinstance(op, Each):
            return list(E_R)
        out, size, count = [0.0] * len(x), [0.0] * len(x), [0] * len(x)

        def give(i: int, error: float, amount: float) -> None:
            out[i] += error
            size[i] += abs(amount)
            count[i] += 1

        if isinstance(op, Pick):
            for window, sign, r, e in zip(op.windows, op.sign, R, E_R):
                best = max(window, key=lambda i: sign * x[i])
                for i in window:
                    margin = UNIT["float32"] * (E[i] + E[best])
                    if i != best and margin and sign * (x[best] - x[i]) <= margin:
                        raise _undecided(f"who wins a maximum of {node.name!r}")
                give(best, e, r)
        elif isinstance(op, Threshold):
            for i, ok in enumerate(self._passes(node)):
                give(i, E_R[i] if ok else 0.0, R[i] if ok else 0.0)
        elif isinstance(op, Move):
            for i, r, e in zip(op.source, R, E_R):
                if i is not None:
                    give(i, e, r)
        elif type(rule).__name__ == "Pass":
            for row, r, e in zip(self.rows[node.name][0], R, E_R):
                for i in row:
                    give(i, (e + abs(r)) / len(row), r / len(row))
        else:
            box = None
            if type(rule).__name__ == "ZBox":
                bounds = (exact._broadcast(v, node.shapes[0], channels=True) for v in (rule.low, rule.high))
                box = [[float(v) for v in bound] for bound in bounds]
            E_x = [0.0] * len(x) if isinstance(op, Lrn) else E
            for j, (row, b, major) in enumerate(zip(*self.rows[node.name])):
                z = math.fsum([*(x[i] * w for i, w in row.items()), b])
                for share in _shares(rule, row, b, x, z, box):
                    self._share(node, rule, share, major, (R[j], E_R[j]), E_x, give)
                terms = {i: ([x[i] * w], abs(w)) for i, w in row.items()}
                of_sign = type(rule).__name__ == "Gamma"
                if of_sign and UNIT["float32"] * self._sum(node, terms, b, major, E_x) > abs(z):
                    raise _undecided(f"the sign of an output of {node.name!r}")
        return [e + n * s if n > 1 else e for e, s, n in zip(out, size, count)]

    def _share(
        self,
        node: exact.Node,
        rule: Any,
        share: tuple,
        major: float,
        R: tuple,
        E: list[float],
        give: Callable,
    ) -> None:
        """One output's relevance shared out: errors to the inputs."""
        factor, terms, bias = share
        r, e_r = abs(R[0]) * factor, R[1] * factor
        z = math.fsum([*(t for parts, _ in terms.values() for t in parts), bias])
        # a bias that takes part is at most (1 + gamma) times its own
        most = (1 + getattr(rule, "gamma", 0.0)) * major if bias else 0.0
        e_z = self._sum(node, terms, bias, most, E)
        below = abs(z) + rule.epsilon
        if rule.epsilon:
            if e_z and UNIT["float32"] * e_z > abs(z):
                raise _undecided(f"the sign of a denominator of {node.name!r}")
            e_z += below
        if not below:
            if e_z:
                raise _undecided(f"whether a denominator of {node.name!r} is 0")
            return  # 0/0: dropped
        if 4 * UNIT["float32"] * e_z > below:
            raise LRPError(f"a denominator of {node.name!r} is too small for float32: choose other numbers")
        rounds = 4 + MADE * (node.name in self.made)
        for i, (parts, slope) in terms.items():
            c, size = abs(math.fsum(parts)), math.fsum(map(abs, parts))
            e_c = (slope * E[i] if slope else 0.0) + rounds * size
            give(i, c / below * e_r + r * (e_c / below + c * e_z / below**2), r * size / below)


def _majorant(network: Network) -> Network:
    """The network with weights and shifts of absolute value: ``beta - g mean`` becomes a sum."""

    def grown(layer: L.Layer) -> L.Layer:
        change = {name: np.abs(value) for name, value in layer.arrays().items()}
        if isinstance(layer, L.BatchNorm):
            change["mean"] = -change["mean"]
        return dataclasses.replace(layer, **change)

    return network.rebuilt((node.name, grown(node.layer), node.inputs) for node in network.nodes)


def _relative(E: Iterable[float], values: np.ndarray) -> float:
    most, scale = max(E, default=0.0), float(np.abs(values).max())
    if most and not scale:
        raise LRPError("all values are 0, but not exactly: choose other numbers")
    return most / scale if most else 0.0


def _bounds(worst: float) -> dict[str, float]:
    """Bounds for the largest E / max |value|, rounded up to two digits; never less than one rounding."""
    up = Context(prec=2, rounding=ROUND_CEILING)
    return {kind: float(up.create_decimal(Decimal(2 * u * max(worst, 1.0)))) for kind, u in UNIT.items()}


# ---------------------------------------------------------------- making


def _made(name: str) -> Vectors:
    """The vectors of this name, from nothing."""
    description, stream, make = PLANS[name]
    numbers = Numbers(stream)
    network, x, cases = make(numbers)
    samples = [{key: value[n] for key, value in x.items()} for n in range(2)]
    errors = {False: [_Errors(network, sample, False) for sample in samples]}
    outputs = [exact.forward(network, sample) for sample in samples]
    y = {node.name: _stacked(output[node.name] for output in outputs) for node in network.nodes}
    worst = max(_relative((e for one in errors[False] for e in one.E[key]), y[key]) for key in y)
    found = {}
    for case, rules, normalization, target, seed in cases(network, x, numbers):
        if seed is None:
            logits = y[network.outputs[0]]
            seed = np.where(np.arange(logits.shape[1]) == target, logits, 0.0)
        fused = normalization == "fused"
        if fused not in errors:
            errors[fused] = [_Errors(network, sample, fused) for sample in samples]
        try:
            found[case] = _case(network, samples, errors[fused], rules, normalization, target, seed)
        except LRPError as error:
            raise type(error)(f"{name}, {case}: {error}") from None
    return Vectors(name, description, network, x, y, _bounds(worst), found, CONVENTIONS)


def _stacked(tensors: Iterable[Tensor]) -> np.ndarray:
    return np.array([t.to_float() for t in tensors])


def _case(
    network: Network,
    samples: list[dict],
    errors: list[_Errors],
    rules: dict[str, Rule],
    normalization: str,
    target: int | None,
    seed: np.ndarray,
) -> Case:
    results = [exact.explain(network, x, R, rules, normalization) for x, R in zip(samples, seed)]
    R = {
        name: _stacked(r.steps[name].R for r in results)
        for name in network.shapes
        if name in results[0].steps
    }
    R |= {name: _stacked(r.relevance[name] for r in results) for name in network.inputs}
    E = [one.back(result.steps, rules) for one, result in zip(errors, results)]
    worst = max(_relative((e for one in E for e in one[name]), R[name]) for name in R)
    return Case(rules, normalization, target, seed, R, _bounds(worst))


# ---------------------------------------------------------------- files


def write(folder: str | os.PathLike) -> list[Path]:
    """Write all files: the same bytes every time, and all of them or none.

    Parameters
    ----------
    folder : str or path
        Made where it does not exist; other files in it stay.

    Returns
    -------
    list of Path

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:  # doctest: +SKIP
    ...     paths = write(folder)
    """
    folder = Path(folder)
    beside = folder / f".vectors.{os.getpid()}.part"
    try:
        beside.mkdir(parents=True)
    except OSError as error:
        raise FileError(f"{folder} can't be written to: {error.strerror or error}") from error
    try:
        for name in names():
            _save(_made(name), beside / f"{name}.h5")
        for name in names():
            os.replace(beside / f"{name}.h5", folder / f"{name}.h5")
    except OSError as error:
        raise FileError(f"{folder} can't be written to: {error.strerror or error}") from error
    finally:
        shutil.rmtree(beside, ignore_errors=True)
    return [folder / f"{name}.h5" for name in names()]


def _save(vectors: Vectors, path: Path) -> None:
    network = vectors.network
    keys = {node.name: f"{n:04d}" for n, node in enumerate(network.nodes)}
    native.save(network, path)
    with h5py.File(path, "r+") as file:
        root = file.create_group("vectors")
        root.attrs.update(format=FORMAT, version=VERSION, description=vectors.description)
        root.attrs["conventions"] = json.dumps(vectors.conventions)
        if list(vectors.x) == ["input"]:
            root["x"] = vectors.x["input"]
        else:
            for name, value in vectors.x.items():
                root[f"inputs/{name}"] = value
        _arrays(root.create_group("y"), keys, vectors.y, vectors.y_bounds)
        for name, case in vectors.cases.items():
            group = root.create_group(f"cases/{name}")
            rules = {layer: _as_json(rule) for layer, rule in case.rules.items()}
            group.attrs.update(rules=json.dumps(rules), normalization=case.normalization)
            if case.target is not None:
                group.attrs["target"] = case.target
            group["seed"] = case.seed
            _arrays(group, {}, {}, case.bounds)
            _arrays(group.create_group("R"), keys, case.R, {})


def _arrays(group: h5py.Group, keys: Mapping[str, str], arrays: Mapping, bounds: Mapping) -> None:
    for kind, bound in bounds.items():
        group.attrs[f"bound_{kind}"] = bound
    for name, array in arrays.items():
        group[keys.get(name, name)] = array
        if name in keys:
            group[keys[name]].attrs["layer"] = name


def _as_json(rule: Rule) -> dict[str, Any]:
    """A rule as its class and its parameters.

    Examples
    --------
    >>> _as_json(Gamma(0.5))
    {'rule': 'Gamma', 'gamma': 0.5, 'epsilon': 0.0}
    """
    values = {f.name: getattr(rule, f.name) for f in dataclasses.fields(rule) if f.init}
    return {"rule": type(rule).__name__, **{k: np.asarray(v).tolist() for k, v in values.items()}}


def read(path: str | os.PathLike) -> Vectors:
    """Read a file of vectors.

    Parameters
    ----------
    path : str or path

    Raises
    ------
    FileError
        No such file, damaged, not of this format, or something in it is missing.

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     _save(_made("dense"), Path(folder) / "dense.h5")
    ...     read(Path(folder) / "dense.h5").cases["gamma"].rules
    {'layer': Gamma(0.25)}
    """
    network = native.load(path)
    with opened(path) as file:
        if "vectors" not in file:
            raise FileError(f"{path} has a network, but no group 'vectors'")
        root = file["vectors"]
        if _attribute(root, "format", path) != FORMAT:
            raise FileError(f"{path}: /vectors is not in the format {FORMAT!r}")
        version = _attribute(root, "version", path)
        if version != VERSION:
            raise FileError(f"{path}: /vectors has version {version}; this numpylrp reads {VERSION}")
        single = list(network.inputs) == ["input"]
        where = {name: "x" if single else f"inputs/{name}" for name in network.inputs}
        x = {name: _dataset(root, key, path) for name, key in where.items()}
        n = len(next(iter(x.values())))
        for name, value in x.items():
            _fits(value, (n, *network.inputs[name]), f"{path}: input {name!r} of /vectors")
        y = _of_layers(_group(root, "y", path), network, n, path)
        for node in network.nodes:
            if node.name not in y:
                raise FileError(f"{path}: /vectors/y has no dataset of layer {node.name!r}")
        cases = {
            name: _read_case(_group(root["cases"], name, path), network, n, path)
            for name in _group(root, "cases", path)
        }
        description = _attribute(root, "description", path)
        conventions = _json(root, "conventions", path)
        y_bounds = _read_bounds(root["y"], path)
    return Vectors(Path(path).stem, description, network, x, y, y_bounds, cases, conventions)


def _read_case(group: h5py.Group, network: Network, n: int, path: Any) -> Case:
    rules = {}
    for name, given in _json(group, "rules", path).items():
        kind = getattr(kinds, str(given.get("rule")), None) if isinstance(given, dict) else None
        if name not in network or not (isinstance(kind, type) and issubclass(kind, Rule)):
            raise FileError(f"{path}: {group.name} has an unknown layer or rule: {name!r}: {given!r:.80}")
        try:
            rules[name] = kind(**{key: value for key, value in given.items() if key != "rule"})
        except (LRPError, TypeError) as error:
            raise FileError(f"{path}: {group.name}: the rule of layer {name!r}: {error}") from None
    seed = _dataset(group, "seed", path)
    _fits(seed, (n, *network.shapes[network.outputs[0]]), f"{path}: {group.name}/seed")
    relevance = _group(group, "R", path)
    R = _of_layers(relevance, network, n, path)
    for name, shape in network.inputs.items():
        R[name] = _dataset(relevance, name, path)
        _fits(R[name], (n, *shape), f"{path}: {relevance.name}/{name}")
    target = group.attrs.get("target")
    return Case(
        rules,
        _attribute(group, "normalization", path),
        None if target is None else int(target),
        seed,
        R,
        _read_bounds(group, path),
    )


def _of_layers(group: h5py.Group, network: Network, n: int, path: Any) -> dict[str, np.ndarray]:
    """The datasets of layers, by the name that each says it has."""
    found = {}
    for key in group:
        if key in network.inputs:
            continue
        data = _dataset(group, key, path)
        name = _attribute(group[key], "layer", path)
        if name not in network:
            raise FileError(f"{path}: {group.name}/{key} is of layer {name!r}, which the network has not")
        _fits(data, (n, *network.shapes[name]), f"{path}: {group.name}/{key}")
        found[name] = data
    return found


def _read_bounds(group: h5py.Group, path: Any) -> dict[str, float]:
    return {kind: float(_attribute(group, f"bound_{kind}", path)) for kind in UNIT}


def _fits(value: np.ndarray, shape: tuple, where: str) -> None:
    if value.shape != shape:
        raise FileError(f"{where} is to have shape {shape}, not {value.shape}")


def _group(parent: h5py.Group, name: str, path: Any) -> h5py.Group:
    if not isinstance(parent.get(name), h5py.Group):
        raise FileError(f"{path}: the group {name!r} of {parent.name} is missing")
    return parent[name]


def _dataset(parent: h5py.Group, name: str, path: Any) -> np.ndarray:
    if name not in parent:
        raise FileError(f"{path}: the dataset {name!r} of {parent.name} is missing")
    return stored_array(parent[name], f"{path}: {parent.name}/{name}")


def _attribute(group: Any, name: str, path: Any) -> Any:
    if name not in group.attrs:
        raise FileError(f"{path}: the attribute {name!r} of {group.name} is missing")
    return group.attrs[name]


def _json(group: h5py.Group, name: str, path: Any) -> dict:
    try:
        value = json.loads(_attribute(group, name, path))
    except (TypeError, json.JSONDecodeError):
        value = None
    if not isinstance(value, dict):
        raise FileError(f"{path}: the attribute {name!r} of {group.name} is not a JSON object")
    return value


# ---------------------------------------------------------------- comparing


def check(
    vectors: Vectors | str | os.PathLike, dtype: Any = np.float64
) -> list[tuple[str, str, float, float]]:
    """What this library makes of the vectors.

    Parameters
    ----------
    vectors : Vectors or path
    dtype : dtype
        float64 or float32.

    Returns
    -------
    list of (case, layer, error, bound)
        The error is relative to the largest value of the array. The case "forward" is that of y.
        Layers that the library has fused away have no entry.

    Examples
    --------
    >>> found = check(_made("dense"), np.float32)
    >>> found[-1][:2], all(error <= bound for _, _, error, bound in found)
    (('z-box', 'input'), True)
    """
    vectors = vectors if isinstance(vectors, Vectors) else read(vectors)
    network, kind = vectors.network.astype(dtype), np.dtype(dtype).name
    record = network.record(vectors.x)
    found = [
        ("forward", name, _error(record[name], y), vectors.y_bounds[kind]) for name, y in vectors.y.items()
    ]
    for name, case in vectors.cases.items():
        # by functions: a name may have characters that a composite reads as wildcards
        entries = [(_named(layer), rule) for layer, rule in case.rules.items()]
        done = explain(
            network,
            vectors.x,
            composite=Composite(entries),
            normalization=case.normalization,
            seed=case.seed,
            trace=True,
        )
        ours = {layer: step.arrays["R"] for layer, step in done.steps.items() if step.arrays}
        ours |= done.relevance if isinstance(done.relevance, dict) else {"input": done.relevance}
        bound = case.bounds[kind]
        found += [
            (name, layer, _error(ours[layer], R), bound) for layer, R in case.R.items() if layer in ours
        ]
    return found


def _named(name: str) -> Callable[[Network, Any], bool]:
    return lambda network, node: node.name == name


def _error(ours: np.ndarray, exact: np.ndarray) -> float:
    most, scale = np.abs(ours - exact).max(), np.abs(exact).max()
    return float(most / scale) if scale else float("inf") if most else 0.0


__all__ = ["Case", "Vectors", "check", "names", "read", "write"]
