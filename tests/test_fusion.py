"""Fused networks are equivalent, in every position; what can't be fused exactly stays, with a reason."""

import numpy as np
import pytest
import twins
from hypothesis import assume, given
from hypothesis import strategies as st
from numpy.testing import assert_allclose
from strategies import numbers, seeds

from numpylrp import Network, explain, fuse, load, save
from numpylrp.composite import standardizations
from numpylrp.errors import LRPError
from numpylrp.fusion import NotExact
from numpylrp.layers import (
    AdaptiveAveragePool,
    Add,
    Affine,
    Average,
    AveragePool1D,
    AveragePool2D,
    BatchNorm,
    Concatenate,
    Conv1D,
    Conv2D,
    Conv2DTranspose,
    Dense,
    Dropout,
    Flatten,
    GlobalAveragePool,
    GlobalMaxPool,
    GlobalSumPool,
    Identity,
    LeakyReLU,
    MaxPool1D,
    MaxPool2D,
    Multiply,
    ReLU,
    Reshape,
    Sigmoid,
    Slice,
    Subtract,
    SumPool2D,
    Transpose,
    UpSampling,
    ZeroPadding,
)
from numpylrp.rules import LRP0, AbsZ, AlphaBeta, Flat, Gamma, WSquare, ZPlus


def bn(rng, n, axis=0, zero=True):
    """Statistics far from 0 and 1, an eps that matters, gamma of both signs and 0, parts left out."""
    gamma = rng.standard_normal(n) * 2
    if zero and n > 1:
        gamma[rng.random(n) < 0.2] = 0
    gamma = None if rng.random() < 0.15 else gamma
    beta = None if rng.random() < 0.15 else rng.standard_normal(n)
    variance = rng.uniform(0.05, 4, n) * (rng.random(n) > 0.1)  # some are 0
    return BatchNorm(gamma, beta, rng.standard_normal(n), variance, 0.03, axis)


def affine(rng, n, axis=0):
    """A scale, a shift, or both; for each channel, or one for all; zeros among them."""
    scale = rng.choice([1.0, -2.0, 0.3, 0.0], n) if rng.random() < 0.7 else np.ones(1)
    shift = rng.standard_normal(n) if rng.random() < 0.7 else np.zeros(1)
    return Affine(scale, shift, axis)


def conv(rng, c, o, groups=1, **options):
    bias = rng.standard_normal(o) if rng.random() < 0.7 else None
    return Conv2D(rng.standard_normal((o, c // groups, 3, 2)), bias, groups=groups, **options)


def dense(rng, i, o):
    return Dense(rng.standard_normal((o, i)) / np.sqrt(i), rng.standard_normal(o))


class Builder:
    """A random network, layer after layer, with branches."""

    def __init__(self, seed):
        self.rng = np.random.default_rng(seed)
        self.layers, self.count = [], 0
        self.shape = (int(self.rng.integers(1, 4)), 9, 10)
        self.input_shape = self.shape
        self.at = "input"

    def add(self, layer, reads=None):
        self.count += 1
        name = f"{type(layer).__name__.lower()}{self.count}"
        reads = (self.at,) if reads is None else reads
        shapes = Network([*self.layers, (name, layer, reads)], self.input_shape).shapes
        self.layers.append((name, layer, reads))
        self.at, self.shape = name, shapes[name]
        return name

    def any_conv(self):
        r, c = self.rng, self.shape[0]
        groups = c if c > 1 and r.random() < 0.3 else 1
        o = groups * int(r.integers(1, 3)) if groups > 1 else int(r.integers(1, 5))
        pads = tuple((int(a), int(b)) for a, b in r.integers(0, 3, (2, 2)))
        options = {"padding": [pads, "same", 0][r.integers(3)], "stride": int(r.integers(1, 3))}
        options["dilation"] = int(r.integers(1, 3))
        if min(self.shape[1:]) < 6:
            options = {"padding": "same"}
        self.add(conv(r, c, o, groups, **options))

    def block(self):
        r, c, kind = self.rng, self.shape[0], int(self.rng.integers(18))
        small = min(self.shape[1:]) < 4
        if kind <= 1:
            self.any_conv()
        elif kind == 2:
            self.add(ReLU())
        elif kind == 3 and not small:
            padding = [0, ((1, 0), (0, 1))][r.integers(2)]
            self.add(AveragePool2D(2, 2, padding, count_padding=bool(r.integers(2))))
        elif kind == 4 and not small:
            self.add(MaxPool2D(2, padding=[0, ((0, 1), (1, 0))][r.integers(2)]))
        elif kind == 5:
            self.add(ZeroPadding(((0, int(r.integers(2))), (1, 0), (0, 2))))
        elif kind == 6:
            self.add([Dropout(), Identity()][r.integers(2)])
        elif kind == 7:  # residual sum with normalization in the branch, the shortcut, after, or not
            skip = self.at
            self.add(conv(r, c, c, padding="same"))
            self.maybe_bn()
            branch = self.at
            if r.random() < 0.5:
                self.at = skip
                self.add(conv(r, c, c, padding="same"))
                skip = self.at
            self.add([Add(), Subtract(), Average()][r.integers(3)], (branch, skip))
        elif kind == 8:  # DenseNet: normalization of a concatenation
            first = self.at
            self.add(conv(r, c, 2, padding="same"))
            self.maybe_bn()
            self.add(Concatenate(), (first, self.at))
        elif kind == 9 and not small:
            self.add(Slice((0, 1, 0), (None, None, -1), (1, 1, 2)))
        elif kind == 10 and max(self.shape[1:]) < 8:
            self.add(UpSampling((1, 2, 1)))
        elif kind == 11:
            self.add([LeakyReLU(0.1), ReLU(max_value=2.0), Sigmoid()][r.integers(3)])
        elif kind == 12:
            w = r.standard_normal((c, 2, 2, 3))
            self.add(Conv2DTranspose(w, r.standard_normal(2), stride=(1, 2), padding=((0, 1), (1, 0))))
        elif kind == 13 and not small:
            self.add(SumPool2D(2, 1, [0, ((1, 0), (0, 0))][r.integers(2)]))

        elif kind == 14:  # BN(x) + x, in one of its forms
            x = self.at
            self.add(bn(r, c))
            if r.random() < 0.5:
                self.add(affine(r, c))
            self.add([Add(), Subtract(), Average()][r.integers(3)], (self.at, x))
        elif kind == 15:  # two normalizations into one concatenation
            x = self.at
            first = self.add(bn(r, c))
            self.at = x
            self.add(bn(r, c))
            self.add(Concatenate(), (first, self.at))
            self.add(ReLU())
        elif kind == 16:
            self.add(AdaptiveAveragePool((int(r.integers(1, 6)), int(r.integers(1, 6)))))
        elif kind == 17:
            self.add(UpSampling((int(r.integers(1, 3)), 1, 1)))

    def maybe_bn(self, chance=0.6):
        r, c = self.rng, self.shape[0]
        if r.random() < chance:
            self.add(bn(r, c) if r.random() < 0.7 else affine(r, c))
            if r.random() < 0.2:
                self.add(affine(r, c))

    def build(self, blocks):
        r = self.rng
        self.maybe_bn()
        for _ in range(blocks):
            self.block()
            self.maybe_bn()
        kind = r.integers(3)
        if kind == 0:
            self.add([GlobalAveragePool(), GlobalMaxPool(), GlobalSumPool()][r.integers(3)])
        else:
            if kind == 2:  # as a channels-last model has it
                self.add(Transpose((1, 2, 0)))
            self.add(Flatten())
        self.maybe_bn(0.4)
        self.add(dense(r, self.shape[0], 5))
        if r.random() < 0.5:
            self.maybe_bn()
            self.add(ReLU())
            self.maybe_bn()
            self.add(dense(r, 5, 3))
        self.maybe_bn(0.3)
        return Network(self.layers, self.input_shape)


def relevance(network, x, rule=None):
    return explain(network, x, 0, composite=rule or LRP0(), normalization="linear").relevance


@given(seed=seeds, blocks=st.integers(1, 6))
def test_random_networks_stay_the_same(seed, blocks):
    network = Builder(seed).build(blocks)
    before = [
        (n.name, repr(n.layer), {k: a.copy() for k, a in n.layer.arrays().items()}) for n in network.nodes
    ]
    fused, report = fuse(network)
    x = np.random.default_rng([seed, 1]).standard_normal((2, *network.inputs["input"]))
    a, b = network.record(x), fused.record(x)
    out = network.outputs[0]
    scale = max(abs(v).max() for v in a.values())
    assert_allclose(b[out], a[out], rtol=1e-12, atol=1e-12 * scale)
    assert report.difference is None or report.difference <= 1e-11 * max(1, scale)
    # LRP-0 does not see fusion (activations that are no ReLU take part in it: they are passed)
    if not (standardizations(network) or standardizations(fused)):  # these relevance passes
        R, S = relevance(network, x), relevance(fused, x)
        assert_allclose(S, R, rtol=0, atol=1e-9 * (1e-6 + abs(R).max()) * max(1, _conditioning(a)))
    # the argument is as it was
    for (name, text, arrays), node in zip(before, network.nodes):
        assert name == node.name and text == repr(node.layer)
        for key, array in node.layer.arrays().items():
            assert (array == arrays[key]).all()
    # what stays has a reason, what is fused is gone
    for entry in report.entries:
        assert entry.done != bool(entry.reason)
        gone = entry.name not in fused or isinstance(fused[entry.name], Identity)
        assert entry.done == gone


def _conditioning(record):
    """How far rounding is blown up: LRP-0 divides by outputs that may be nearly 0."""
    smallest = min(abs(v[v != 0]).min() for v in record.values() if (v != 0).any())
    return min(1e4, 1e-3 / smallest)


RULES = {
    "gamma": (Gamma(0.5), lambda x, W, b, R: twins.gamma(x, W, b, R, 0.5)),
    "z+": (ZPlus(), twins.z_plus),
    "alpha-beta": (AlphaBeta(2.0, 1.0), lambda x, W, b, R: twins.alpha_beta(x, W, b, R, 2.0, 1.0)),
    "w^2": (WSquare(), twins.w_square),
    "flat": (Flat(), lambda x, W, b, R: twins.flat(x, W != 0, b, R)),
}


def by_definition(norm, shape):
    """g and s of a batch normalization for every value of a sample, from its definition."""
    view = [1] * len(shape)
    view[norm.axis] = -1
    gamma = np.ones_like(norm.mean) if norm.gamma is None else norm.gamma
    beta = np.zeros_like(norm.mean) if norm.beta is None else norm.beta
    deviation = np.sqrt(norm.variance + norm.eps)
    g = np.broadcast_to((gamma / deviation).reshape(view), shape).ravel()
    s = np.broadcast_to((beta - gamma * norm.mean / deviation).reshape(view), shape).ravel()
    return g, s


@st.composite
def linear_and_shape(draw):
    """A linear layer with padding, stride, dilation, groups; its sample shape."""
    rng = np.random.default_rng(draw(seeds))
    kind = draw(st.sampled_from(["dense", "conv1", "conv2", "depthwise", "grouped", "transposed"]))
    pads = tuple((draw(st.integers(0, 2)), draw(st.integers(0, 2))) for _ in range(2))
    padding = draw(st.sampled_from([pads, "same", 0]))
    options = {"padding": padding, "stride": draw(st.integers(1, 2)), "dilation": draw(st.integers(1, 2))}
    b = lambda n: numbers(rng, n) if draw(st.booleans()) else None  # noqa: E731
    if kind == "dense":
        return Dense(rng.standard_normal((3, 4)), b(3)), (4,)
    if kind == "conv1":
        options["padding"] = padding if isinstance(padding, (str, int)) else padding[:1]
        return Conv1D(rng.standard_normal((3, 2, 3)), b(3), **options), (2, 6)
    if kind == "transposed":
        options = {"stride": 2, "padding": ((0, 1), (1, 0)), "groups": 2}
        return Conv2DTranspose(rng.standard_normal((4, 1, 3, 3)), b(2), **options), (4, 3, 2)
    groups = {"conv2": 1, "depthwise": 4, "grouped": 2}[kind]
    weight = rng.standard_normal((8 if kind == "depthwise" else 2 * groups, 4 // groups, 3, 2))
    return Conv2D(weight, b(len(weight)), groups=groups, **options), (4, 6, 5)


def compare(layer, W, b, x, R, rule, twin):
    y = layer.forward(x)
    assert_allclose(y[0].ravel(), x[0].ravel() @ W + b, rtol=1e-10, atol=1e-10)
    ours = layer.relprop(R, x, y, rule)[0].ravel()
    z = x[0].ravel() @ W + b
    assume((abs(z) > 1e-9).all())
    expected = twin(x[0].ravel(), W, b, R[0].ravel())
    assert_allclose(ours, expected, rtol=1e-9, atol=1e-10 * (1 + abs(expected).max()))


@pytest.mark.parametrize("name", RULES)
@given(case=linear_and_shape(), seed=seeds)
def test_batch_norm_before_a_linear_layer(name, case, seed):
    """BN -> linear equals the explicit matrix diag(g) W with bias b + s W: border pixels included."""
    layer, shape = case
    rng = np.random.default_rng(seed)
    norm = bn(rng, shape[0], zero=False)
    network = Network([("bn", norm), ("linear", layer)], shape)
    fused, report = fuse(network)
    assert report.exact and [n.name for n in fused.nodes] == ["linear"]
    g, s = by_definition(norm, shape)
    W = layer.as_matrix(shape)
    b = layer.forward(np.zeros((1, *shape))).ravel() + s @ W
    x = numbers(rng, 1, *shape)
    R = rng.standard_normal((1, *fused.shapes["linear"]))
    compare(fused["linear"], g[:, None] * W, b, x, R, *RULES[name])


@pytest.mark.parametrize("name", RULES)
@given(case=linear_and_shape(), seed=seeds)
def test_batch_norm_after_a_linear_layer(name, case, seed):
    """linear -> BN equals the explicit matrix W diag(g) with bias b g + s."""
    layer, shape = case
    rng = np.random.default_rng(seed)
    out = layer.output_shape(shape)
    norm = bn(rng, out[0], zero=False)
    network = Network([("linear", layer), ("bn", norm), ("relu", ReLU())], shape)
    fused, report = fuse(network)
    assert report.exact and [n.name for n in fused.nodes] == ["linear", "relu"]
    g, s = by_definition(norm, out)
    W = layer.as_matrix(shape)
    b = layer.forward(np.zeros((1, *shape))).ravel()
    x = numbers(rng, 1, *shape)
    R = rng.standard_normal((1, *out))
    compare(fused["linear"], W * g, b * g + s, x, R, *RULES[name])


def test_border_pixels_by_hand():
    """BN(x) = 2 x + 3, then a 3 x 3 convolution of ones with padding 1: a corner sees 4 shifts."""
    norm = BatchNorm([2.0], [3.0], [0.0], [1.0], eps=0.0)
    network = Network(
        [("bn", norm), ("conv", Conv2D(np.ones((1, 1, 3, 3)), [1.0], padding=1))], (1, None, None)
    )
    fused, report = fuse(network)
    assert report.exact and (fused["conv"].weight == 2).all()
    for size in ((3, 4), (5, 3)):
        bias = fused.forward(np.zeros((1, 1, *size)))[0, 0]
        counts = np.full(size, 9.0)
        counts[[0, -1]] -= 3
        counts[:, [0, -1]] = np.where(counts[:, [0, -1]] == 9, 6, 4)
        assert (bias == 1 + 3 * counts).all()


def position(layers, shape, outputs=None):
    """A network given as layers in a row, or with (name, layer, reads)."""
    named = [
        x if isinstance(x, tuple) else (f"{type(x).__name__.lower()}{n}", x) for n, x in enumerate(layers)
    ]
    return Network(named, shape, outputs)


r = np.random.default_rng(7)
IMAGE = (3, 6, 8)
EXACT = {  # every position of which an exact answer is expected
    "conv -> BN": ([conv(r, 3, 4), bn(r, 4), ReLU(), Flatten(), dense(r, 4 * 4 * 7, 2)], IMAGE),
    "at the input": ([bn(r, 3), conv(r, 3, 4, padding=1)], IMAGE),
    "BN -> zero padding layer -> conv": (
        [bn(r, 3), ZeroPadding(((0, 0), (1, 2), (0, 1))), conv(r, 3, 4)],
        IMAGE,
    ),
    "BN -> channel padding -> conv": (
        [bn(r, 3), ZeroPadding(((1, 1), (0, 0), (0, 0))), conv(r, 5, 4)],
        IMAGE,
    ),
    "BN -> strided slice -> conv": (
        [bn(r, 3), Slice((1, 0, 1), (None,) * 3, (1, 2, 2)), conv(r, 2, 4)],
        IMAGE,
    ),
    "BN -> ReLU -> conv": ([bn(r, 3), ReLU(), conv(r, 3, 4, padding="same")], IMAGE),
    "BN -> average pool -> conv": ([bn(r, 3), AveragePool2D(2, 1, 1), conv(r, 3, 4, padding=1)], IMAGE),
    "BN -> counted average pool": (
        [bn(r, 3), AveragePool2D(3, 2, 1, count_padding=True), ReLU(), conv(r, 3, 4)],
        (3, 9, 9),
    ),
    "BN -> max pool -> conv": ([bn(r, 3), MaxPool2D(3, 2, 1), conv(r, 3, 4, padding=1)], (3, 9, 9)),
    "BN -> ReLU -> max pool -> dropout -> conv": (
        [bn(r, 3), ReLU(), MaxPool2D(2), Dropout(), conv(r, 3, 4, padding="same")],
        (3, 9, 9),
    ),
    "conv -> max pool -> BN": ([conv(r, 3, 4), MaxPool2D(2), bn(r, 4), ReLU()], (3, 9, 9)),
    "conv -> average pool -> BN": ([conv(r, 3, 4), AveragePool2D(2, padding=1), bn(r, 4)], (3, 9, 9)),
    "conv -> ReLU -> BN -> conv": ([conv(r, 3, 4), ReLU(), bn(r, 4), conv(r, 4, 2, padding=2)], (3, 9, 9)),
    "conv -> ReLU -> max pool -> BN -> conv": (
        [conv(r, 3, 4), ReLU(), MaxPool2D(2), bn(r, 4), conv(r, 4, 2, padding=2)],
        (3, 9, 9),
    ),
    "BN -> flatten -> dense": ([bn(r, 3), Flatten(), dense(r, 144, 2)], IMAGE),
    "BN -> transpose -> flatten -> dense": (
        [bn(r, 3), Transpose((1, 2, 0)), Flatten(), dense(r, 144, 2)],
        IMAGE,
    ),
    "BN on the last axis": ([bn(r, 8, -1), Transpose((2, 0, 1)), conv(r, 8, 2)], (3, 6, 8)),
    "conv -> transpose -> BN on the last axis": (
        [conv(r, 3, 4), Transpose((1, 2, 0)), bn(r, 4, 2), ReLU()],
        IMAGE,
    ),
    "BN -> global average -> dense": ([bn(r, 3), GlobalAveragePool(), dense(r, 3, 2)], IMAGE),
    "BN -> ReLU -> global maximum -> dense": (
        [bn(r, 3), ReLU(), GlobalMaxPool(True), Flatten(), dense(r, 3, 2)],
        IMAGE,
    ),
    "BN -> global sum -> dense": ([bn(r, 3), GlobalSumPool(), dense(r, 3, 2)], IMAGE),
    "BN -> reshape -> dense": ([bn(r, 3), Reshape((8, 18)), Flatten(), dense(r, 144, 2)], IMAGE),
    "BN -> upsampling -> conv": ([bn(r, 3), UpSampling((1, 2, 2)), conv(r, 3, 2, padding=1)], IMAGE),
    "BN -> transposed conv": (
        [bn(r, 4), Conv2DTranspose(r.standard_normal((4, 2, 3, 3)), stride=2, groups=2)],
        (4, 5, 5),
    ),
    "transposed conv -> BN": (
        [Conv2DTranspose(r.standard_normal((4, 2, 3, 3)), stride=2, groups=2), bn(r, 4), ReLU()],
        (4, 5, 5),
    ),
    "two BN in a row": ([ReLU(), bn(r, 3), bn(r, 3), conv(r, 3, 2, padding=1)], IMAGE),
    "conv -> two BN": ([conv(r, 3, 3), bn(r, 3), bn(r, 3), ReLU()], IMAGE),
    "dense -> BN -> ReLU -> BN -> dense": (
        [dense(r, 5, 4), bn(r, 4), ReLU(), bn(r, 4), dense(r, 4, 3)],
        (5,),
    ),
    "BN last": ([dense(r, 5, 4), bn(r, 4)], (5,)),
    "BN -> affine -> dense": ([ReLU(), bn(r, 5), Affine([2.0], [1.0]), dense(r, 5, 2)], (5,)),
    "one-dimensional": (
        [
            bn(r, 2),
            ReLU(),
            Conv1D(r.standard_normal((3, 2, 3)), padding="same"),
            bn(r, 3),
            MaxPool1D(2),
            bn(r, 3),
            AveragePool1D(2),
            ReLU(),
            bn(r, 3),
            Flatten(),
            dense(r, 6, 2),
        ],
        (2, 9),
    ),
    "conv -> flatten -> BN of whole channels": (
        [conv(r, 3, 4), GlobalMaxPool(True), Flatten(), bn(r, 4), ReLU()],
        IMAGE,
    ),
    "after a sum, into its branches": (
        [
            ("a", conv(r, 3, 4), "input"),
            ("b", conv(r, 3, 4), "input"),
            ("sum", Add(), ("a", "b")),
            ("bn", bn(r, 4), "sum"),
            ("relu", ReLU(), "bn"),
        ],
        IMAGE,
    ),
    "after a sum, to the right (ResNet v2)": (
        [
            ("a", conv(r, 3, 3, padding="same"), "input"),
            ("sum", Add(), ("a", "input")),
            ("bn", bn(r, 3), "sum"),
            ("relu", ReLU(), "bn"),
            ("b", conv(r, 3, 3, padding="same"), "relu"),
            ("out", Add(), ("sum", "b")),
        ],
        IMAGE,
    ),
    "several consumers": (
        [
            ("relu0", ReLU(), "input"),
            ("bn", bn(r, 3), "relu0"),
            ("a", conv(r, 3, 4, padding=1), "bn"),
            ("relu", ReLU(), "bn"),
            ("b", conv(r, 3, 2), "relu"),
            ("c", MaxPool2D(2), "bn"),
            ("d", conv(r, 3, 2), "c"),
        ],
        IMAGE,
    ),
    "DenseNet": (
        [
            ("a", conv(r, 3, 2, padding="same"), "input"),
            ("cat", Concatenate(), ("input", "a")),
            ("bn", bn(r, 5), "cat"),
            ("relu", ReLU(), "bn"),
            ("b", conv(r, 5, 2, padding="same"), "relu"),
            ("cat2", Concatenate(), ("cat", "b")),
            ("bn2", bn(r, 7), "cat2"),
            ("relu2", ReLU(), "bn2"),
            ("gap", GlobalAveragePool(), "relu2"),
            ("fc", dense(r, 7, 3), "gap"),
        ],
        IMAGE,
    ),
    "BN after a concatenation of convolutions": (
        [
            ("a", conv(r, 3, 2), "input"),
            ("b", conv(r, 3, 3), "input"),
            ("cat", Concatenate(), ("a", "b")),
            ("bn", bn(r, 5), "cat"),
            ("relu", ReLU(), "bn"),
        ],
        IMAGE,
    ),
    "BN before a concatenation": (
        [
            ("relu", ReLU(), "input"),
            ("bn", bn(r, 3), "relu"),
            ("cat", Concatenate(), ("relu", "bn")),
            ("conv", conv(r, 6, 2, padding=1), "cat"),
        ],
        IMAGE,
    ),
}


@pytest.mark.parametrize("name", EXACT)
def test_positions_that_are_exact(name):
    layers, shape = EXACT[name]
    network = position(layers, shape)
    fused, report = fuse(network)
    assert report.exact, str(report)
    assert not any(isinstance(node.layer, BatchNorm) for node in fused.nodes)
    x = np.random.default_rng(1).standard_normal((2, *shape)) * 2
    for out in network.outputs:
        a, b = network.record(x)[out], fused.record(x)[out]
        assert_allclose(b, a, rtol=1e-12, atol=1e-12 * abs(a).max())
    for entry in report.entries:
        assert entry.into and entry.difference <= 1e-11
    R, S = (explain(n, x, 0, composite=LRP0(), normalization="linear").relevance for n in (network, fused))
    assert_allclose(S, R, rtol=0, atol=1e-9 * abs(R).max())
    assert "normalization layers fused" in str(report)


REFUSED = {
    "leaky ReLU": ([bn(r, 3), LeakyReLU(), conv(r, 3, 2)], IMAGE, "does not commute with LeakyReLU"),
    "ReLU6": ([bn(r, 3), ReLU(max_value=6), conv(r, 3, 2)], IMAGE, "only a plain ReLU becomes a threshold"),
    "sigmoid before, output after": (
        [Sigmoid(), bn(r, 3)],
        IMAGE,
        "is an output, and nothing linear lies between",
    ),
    "one branch of a sum": (
        [("relu", ReLU(), "input"), ("bn", bn(r, 3), "relu"), ("sum", Add(), ("bn", "input"))],
        IMAGE,
        "Add mixes it with branches that are not normalized",
    ),
    "a gate": (
        [("bn", bn(r, 3), "input"), ("gate", Multiply(), ("bn", "input"))],
        IMAGE,
        "Multiply mixes it with branches",
    ),
    "read twice": (
        [
            ("conv", conv(r, 3, 3, padding="same"), "input"),
            ("bn", bn(r, 3), "conv"),
            ("out", Sigmoid(), "bn"),
            ("other", ReLU(), "conv"),
        ],
        IMAGE,
        "'other' also reads 'conv', and needs it as it is",
    ),
    "counted pool with overhang": (
        [bn(r, 3), AveragePool2D(2, 2, ((1, 0), (0, 0)), ceil=True, count_padding=True), conv(r, 3, 2)],
        IMAGE,
        "counts padding, and its last windows hang over the end",
    ),
    "by position, after a convolution": (
        [conv(r, 3, 2), Flatten(), bn(r, 2 * 4 * 7), Sigmoid()],
        IMAGE,
        "varies along an axis that a convolution shares weights over",
    ),
    "along the width": (
        [bn(r, 8, 2), conv(r, 3, 2)],
        IMAGE,
        "varies along an axis that a convolution shares",
    ),
    "zeros between it and a ReLU": (
        [bn(r, 3), ZeroPadding(((0, 0), (1, 1), (1, 1))), ReLU(), conv(r, 3, 2)],
        IMAGE,
        "zero padding lies between the normalization and a ReLU",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_not_exact_stays_with_a_reason(name):
    layers, shape, says = REFUSED[name]
    network = position(layers, shape)
    fused, report = fuse(network)
    (entry,) = report.entries
    assert not entry.done and says in entry.reason and says in str(report) and not report.exact
    x = np.random.default_rng(1).standard_normal((2, *shape))
    for out in network.outputs:
        assert (network.record(x)[out] == fused.record(x)[out]).all()
    with pytest.raises(NotExact, match="can't be fused exactly"):
        fuse(network, entry.name)


def test_only_what_is_named():
    network = position([conv(r, 3, 3), bn(r, 3), ReLU(), bn(r, 3), conv(r, 3, 2)], (3, 9, 9))
    fused, report = fuse(network, ["batchnorm3"])
    assert "batchnorm1" in fused and "batchnorm3" not in fused and len(report.entries) == 1
    with pytest.raises(LRPError, match=r"'relu2' \(ReLU\) is no normalization"):
        fuse(network, "relu2")
    with pytest.raises(LRPError, match="there is no layer 'nose'"):
        fuse(network, "nose")


def test_several_image_sizes():
    """The bias map belongs to the layer, not to one size of image."""
    rng = np.random.default_rng(3)
    layers = [bn(rng, 3), ReLU(), conv(rng, 3, 4, padding=((2, 0), (1, 1))), bn(rng, 4), GlobalAveragePool()]
    network = position(layers, (3, None, None))
    fused, report = fuse(network)
    assert report.exact
    for size in ((5, 9), (8, 4), (5, 9)):
        x = rng.standard_normal((2, 3, *size))
        assert_allclose(fused.forward(x), network.forward(x), rtol=1e-12, atol=1e-12)


def test_fused_networks_can_be_saved(tmp_path):
    for name in ("BN -> max pool -> conv", "BN -> ReLU -> conv", "BN -> zero padding layer -> conv"):
        layers, shape = EXACT[name]
        fused, _ = fuse(position(layers, shape))
        save(fused, tmp_path / "fused.h5")
        x = np.random.default_rng(1).standard_normal((2, *shape))
        assert (load(tmp_path / "fused.h5").forward(x) == fused.forward(x)).all()


def test_float32_stays_float32():
    layers, shape = EXACT["BN -> ReLU -> conv"]
    fused, report = fuse(position(layers, shape).astype(np.float32))
    assert fused.dtype == np.float32 and report.exact


def test_shared_layers_are_fused_apart():
    rng = np.random.default_rng(2)
    shared = conv(rng, 3, 3, padding="same")
    network = Network([("a", shared), ("bn", bn(rng, 3)), ("relu", ReLU()), ("b", shared)], IMAGE)
    fused, report = fuse(network)
    assert report.exact and fused["a"] is not fused["b"]
    x = rng.standard_normal((2, *IMAGE))
    assert_allclose(fused.forward(x), network.forward(x), rtol=1e-12, atol=1e-11)


@pytest.mark.parametrize("name", ["mnist_cnn_bn", "mnist_fc_bn"])
def test_shipped_networks(name, weights):
    network = load(weights / f"{name}.h5")
    _, report = fuse(network)
    assert report.exact and report.difference < 1e-11
    assert bool(report.warnings) == (name == "mnist_fc_bn")
    assert ("advise against" in str(report)) == (name == "mnist_fc_bn")


def test_the_warning_is_about_what_dense_layers_take_and_give():
    rng = np.random.default_rng(0)
    warned = [
        ([bn(rng, 5), dense(rng, 5, 2)], (5,)),
        ([dense(rng, 5, 4), ReLU(), bn(rng, 4), dense(rng, 4, 2)], (5,)),
        ([dense(rng, 5, 4), bn(rng, 4, -1)], (3, 5)),
    ]
    quiet = ([conv(rng, 3, 4), bn(rng, 4), ReLU(), GlobalAveragePool(), dense(rng, 4, 2)], IMAGE)
    assert all(fuse(position(*case), probe=0)[1].warnings for case in warned)
    assert not fuse(position(*quiet), probe=0)[1].warnings


# ---------------------------------------------------------------- treatments


def test_treatments_by_hand():
    """y = 2 x + 1 after a dense layer: what each treatment makes of it."""
    norm = BatchNorm([2.0], [1.0], [0.0], [1.0], eps=0.0)
    network = Network([("fc", Dense([[1.0, -1.0]], [1.0])), ("bn", norm)], (2,))
    x = np.array([[3.0, 2.0]])  # fc = 2, bn = 5
    ways = {
        n: explain(network, x, composite=ZPlus(), normalization=n)
        for n in ("fused", "linear", "identity", "abs-z")
    }
    # fused: weights (2, -2), bias 2 * 1 + 1 = 3: 6 of 6 + 3
    assert_allclose(ways["fused"].relevance, [[5 * 6 / 9, 0]])
    # linear: BN hands on 4 of 5, dense 3 of 3 + 1
    assert_allclose(ways["linear"].relevance, [[4 * 3 / 4, 0]])
    assert_allclose(ways["identity"].relevance, [[5 * 3 / 4, 0]])
    assert_allclose(ways["abs-z"].relevance, [[5 * 4 / (4 + 1) * 3 / 4, 0]])
    assert ways["fused"]["bn"].kind == "Identity" and "Pass()" in str(ways["identity"])
    with pytest.raises(LRPError, match="there is no normalization 'nose'; there are fused, linear"):
        explain(network, x, normalization="nose")


def test_abs_z_by_definition():
    rng = np.random.default_rng(0)
    norm = bn(rng, 4, zero=False)
    x, R = rng.standard_normal((3, 4)), rng.standard_normal((3, 4))
    g, s = by_definition(norm, (4,))
    expected = abs(g * x) / (abs(g * x) + abs(s)) * R
    assert_allclose(norm.relprop(R, x, norm.forward(x), AbsZ()), expected, rtol=1e-12)


def test_treatments_side_by_side(weights, tmp_path):
    import h5py

    from numpylrp.treatments import compare_treatments

    network = load(weights / "mnist_cnn_bn.h5")
    with h5py.File(weights / "digits.h5") as file:
        x = file["images"][:3]
    compared = compare_treatments(network, x, composite="epsilon-plus")
    fused, _ = fuse(network)
    assert_allclose(compared.relevance["fused"], explain(fused, x).relevance, rtol=1e-12)
    a, b = compared.relevance["identity"], compared.relevance["fused"]
    expected = [abs(a[n] - b[n]).sum() / abs(b[n]).sum() for n in range(3)]
    assert_allclose(compared.distance("identity", "fused"), expected, rtol=1e-12)
    assert_allclose(compared.correlation("fused", "fused"), 1, rtol=1e-12)
    # z+ sees batch normalization; LRP-0 does not, unless relevance is passed through it
    assert (compared.distance("linear", "fused") > 0.05).all()
    zero = compare_treatments(network, x, composite=LRP0())
    assert (zero.distance("linear", "fused") < 1e-8).all()
    assert (zero.distance("identity", "fused") > 0.05).all()
    pytest.importorskip("matplotlib", reason="the plot extra is missing")
    compared.picture(path=tmp_path / "sheet.png")
    assert (tmp_path / "sheet.png").stat().st_size > 10_000
