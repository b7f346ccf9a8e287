"""The plain path: the same bits for every batch and thread, and the fast path's numbers but for rounding."""

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from networks import chain, graph
from numpy.testing import assert_allclose, assert_array_equal
from strategies import linear_layers, numbers, sample, seeds

import numpylrp
from numpylrp import Network, explain
from numpylrp.composite import PRESETS
from numpylrp.errors import LRPError, ShapeError
from numpylrp.fast import Fast, threads
from numpylrp.layers import (
    LRN,
    Add,
    Affine,
    BatchNorm,
    Concatenate,
    Conv1D,
    Conv2D,
    Conv2DTranspose,
    Conv3D,
    Dense,
    Flatten,
    GlobalAveragePool,
    GlobalMaxPool,
    LayerNorm,
    MaxPool2D,
    MaxPool3D,
    PReLU,
    ReLU,
    Slice,
    SumPool3D,
    Transpose,
    ZeroPadding,
)
from numpylrp.rules import (
    AbsZ,
    AlphaBeta,
    Epsilon,
    Flat,
    Gamma,
    Part,
    Rule,
    Share,
    WSquare,
    ZBox,
    ZPlus,
    absolute,
)
from numpylrp.wiring import Node

RULES = [
    Epsilon(),
    Epsilon(0.0),
    Epsilon(0.25, relative=True),
    Gamma(0.3),
    Gamma(0.0),
    AlphaBeta(),
    ZPlus(),
    ZPlus(bias=False),
    WSquare(),
    Flat(),
    AbsZ(),
    ZBox(-9.0, 9.0),
]


def deep(dtype, width=16):
    """Seven convolutions, with strides, groups and a shortcut, whose denominators come close to 0."""
    r = np.random.default_rng(3)

    def conv(o, i, stride=1, groups=1):
        w = r.standard_normal((o, i // groups, 3, 3)) * (2 * groups / 9 / i) ** 0.5
        return Conv2D(w, 0.1 * r.standard_normal(o), stride, ((1, 1), (0, 2)), groups=groups)

    statistics = (r.uniform(0.5, 1.5, width), *r.standard_normal((2, width)), r.uniform(0.5, 2, width))
    layers = [("c0", conv(width, 3)), ("bn", BatchNorm(*statistics)), ("r0", ReLU())]
    for k, groups in enumerate((1, 4, 1, 2, 1)):
        layers += [(f"c{k + 1}", conv(width, width, groups=groups)), (f"r{k + 1}", ReLU())]
    layers += [
        ("sum", Add(), ("r5", "r2")),
        ("pool", MaxPool2D(2)),
        ("c6", conv(2 * width, width, 2)),
        ("r6", ReLU()),
        ("gap", GlobalAveragePool()),
        ("fc", Dense(r.standard_normal((10, 2 * width)))),
    ]
    return Network(layers, (3, 18, 20)).astype(dtype)


# ---------------------------------------------------------------- the same bits


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize(
    "composite", ["epsilon", "epsilon-plus", "epsilon-alpha2-beta1", Gamma(0.25)], ids=str
)
def test_every_batch_size_and_number_of_threads_gives_the_same_bits(composite, dtype):
    network = deep(dtype)
    x = np.random.default_rng(0).standard_normal((9, 3, 18, 20)).astype(dtype)
    options = {"composite": composite, "target": 1, "fast": False}
    expected = explain(network, x, **options)
    one_by_one = [explain(network, x[n : n + 1], **options) for n in range(9)]
    assert_array_equal(np.concatenate([e.relevance for e in one_by_one]), expected.relevance)
    for count, size in itertools.product((1, 3), (1, 2, 4)):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(threads, "THREADS", count)
            ours = explain(network, x, batch_size=size, **options)
        assert_array_equal(ours.relevance, expected.relevance)
        assert_array_equal(ours.output, expected.output)
        for name, step in ours.steps.items():
            assert_array_equal(step.received, expected[name].received)
            assert_array_equal(step.sent, expected[name].sent)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@given(case=linear_layers, seed=seeds, rule=st.sampled_from(RULES), batch=st.integers(2, 5))
def test_a_layer_gives_a_sample_the_same_bits_in_every_batch(dtype, case, seed, rule, batch):
    layer, shape = case
    layer = layer.astype(np.dtype(dtype))
    x, _, R = (a.astype(dtype) for a in sample(layer, shape, seed, batch))
    x[0] = abs(x[0])  # a sample without negative inputs among others
    y = layer.forward(x)
    together = layer.relprop(R, x, y, rule)
    for n in range(batch):
        one = slice(n, n + 1)
        assert_array_equal(layer.forward(x[one]), y[one])
        assert_array_equal(layer.relprop(R[one], x[one], y[one], rule), together[one])


# ---------------------------------------------------------------- fast equals plain


def close(fast, plain, most=1e-10):
    assert fast.dtype == plain.dtype and fast.shape == plain.shape
    assert_allclose(fast, plain, rtol=0, atol=most * max(1e-3, abs(plain).max()))


@given(case=linear_layers, seed=seeds, rule=st.sampled_from(RULES), batch=st.sampled_from([1, 3]))
def test_a_layer_on_the_fast_path_equals_the_plain_one(case, seed, rule, batch):
    layer, shape = case
    x, y, R = sample(layer, shape, seed, batch)
    node, path = Node("layer", layer, ("input",)), Fast({"layer": rule})
    ours = path.forward(node, x)
    assert_allclose(ours, y, rtol=1e-12, atol=1e-12 * (1 + abs(y).max()))
    terms = layer.linear(abs(x), abs(layer.parameters(shape)[0]), None)
    near_zero = (abs(y) < 1e-6 * terms) & (y != 0)  # there rounding decides what the rule divides by
    R[np.broadcast_to(near_zero, R.shape) | (ours == 0) | (y == 0)] = 0
    close(path.relprop(node, R, x, y, rule), layer.relprop(R, x, y, rule), 1e-9)


@pytest.mark.parametrize("normalization", ["fused", "linear", "identity", "abs-z"])
@pytest.mark.parametrize("make", [chain, graph])
@pytest.mark.parametrize("preset", PRESETS)
@given(seed=st.integers(0, 9), batch=st.integers(1, 4))
def test_networks_on_the_fast_path_equal_the_plain_one(preset, make, normalization, seed, batch):
    network = make(seed)
    network.metadata["input_range"] = [-4.0, 4.0]
    x = np.clip(numbers(np.random.default_rng(seed), batch, *network.inputs["input"]), -4, 4)
    fast, plain = (
        explain(network, x, 0, composite=preset, normalization=normalization, epsilon=0.1, fast=which)
        if "epsilon" in preset or preset == "lrp-overview"
        else explain(network, x, 0, composite=preset, normalization=normalization, fast=which)
        for which in (True, False)
    )
    close(fast.relevance, plain.relevance, 1e-9)
    close(fast.output, plain.output)


# ---------------------------------------------------------------- which path is taken


class _Counted(Rule):
    """Epsilon with 1, counting its calls."""

    calls = 0

    def shares(self, layer, R, x, y):
        type(self).calls += 1
        yield Share(R, [Part(x)])

    def stabilized(self, z):
        return z + 1.0


def test_rules_and_layers_of_ones_own_go_the_plain_way():
    class Doubled(Dense):
        def forward(self, x):
            return 2 * super().forward(x)

        def linear(self, x, weight, bias):
            return super().linear(x, weight, bias)

    r = np.random.default_rng(0)
    w, b = r.standard_normal((3, 4)), r.standard_normal(3)
    network = Network([("own", Doubled(w, b)), ("fc", Dense(w[:2, :3]))], (4,))
    x = r.standard_normal((2, 4))
    assert_allclose(network.forward(x), 2 * (x @ w.T + b) @ w[:2, :3].T, rtol=1e-12)
    e = explain(network, x, 0, composite=_Counted())
    assert _Counted.calls == 2
    hidden = 2 * (x @ w.T + b)
    z = hidden @ w[0, :3]
    R = hidden * w[0, :3] * (z / (z + 1))[:, None]
    inner = x @ w.T
    expected = x * ((R / (inner + 1)) @ w)
    assert_allclose(e.relevance, expected, rtol=1e-10)


def test_within_plain_and_with_a_trace_the_definition_is_walked(monkeypatch):
    from numpylrp import fast

    network, x = chain(), np.ones((1, 2, 7, 8))
    asked = []
    monkeypatch.setattr(fast.Fast, "relprop", lambda *a: asked.append(1) or fast.Plain().relprop(*a[1:]))
    explain(network, x)
    assert len(asked) == 10
    with numpylrp.plain():
        explain(network, x)
    explain(network, x, fast=False)
    explain(network, x, trace=True)
    explain(network, x, trace="conv1")
    assert len(asked) == 10
    explain(network, x)
    assert len(asked) == 20


def test_the_trace_is_the_plain_walk_to_the_last_bit():
    network, x = deep(np.float32), np.random.default_rng(0).standard_normal((2, 3, 18, 20))
    traced, plain = explain(network, x, trace=True), explain(network, x, fast=False)
    assert_array_equal(traced.relevance, plain.relevance)
    z, s, c = (traced["c3"][name] for name in ("z+", "s+", "c+"))
    assert_array_equal(traced["c3"]["R_x"], traced["c3"]["x"] * c)
    assert_allclose(s * z, traced["c3"]["R"] * (z != 0), rtol=1e-5, atol=1e-7)


def test_the_rule_of_the_docstring_takes_five_lines():
    class Absolute(Rule):
        def shares(self, layer, R, x, y):
            yield Share(R, [Part(abs(x), absolute)])

    r = np.random.default_rng(0)
    conv = Conv2D(r.standard_normal((3, 2, 2, 2)))
    x, R = r.standard_normal((1, 2, 3, 3)), r.standard_normal((1, 3, 2, 2))
    W = conv.as_matrix((2, 3, 3))
    z = abs(x.reshape(-1, 1) * W)
    expected = (z / z.sum(0) * R.ravel()).sum(1)
    assert_allclose(conv.relprop(R, x, conv.forward(x), Absolute()).ravel(), expected, rtol=1e-12)
    # on a layer with a bias it leaves the bias out, as AbsZ does not
    assert_allclose(AbsZ().propagate(conv, R, x, conv.forward(x)).ravel(), expected, rtol=1e-12)


# ---------------------------------------------------------------- nothing stale, used alone


def test_layers_keep_a_copy_of_what_they_are_given():
    w, b = np.ones((1, 2)), np.zeros(1)
    layer = Dense(w, b)
    network = Network([("fc", layer)], (2,))
    before = explain(network, [[1.0, 1.0]], composite="z-plus").relevance
    w[0, 1], b[0] = 5.0, 7.0
    assert layer.weight.tolist() == [[1, 1]] and layer.bias.tolist() == [0]
    assert_array_equal(explain(network, [[1.0, 1.0]], composite="z-plus").relevance, before)
    fresh = Network([("fc", Dense(w))], (2,))
    assert explain(fresh, [[1.0, 1.0]], composite="z-plus").relevance.tolist() == [[1, 5]]
    with pytest.raises(ValueError, match="read-only"):
        layer.weight[0, 0] = 1
    with pytest.raises(ValueError, match="WRITEABLE"):
        layer.weight.flags.writeable = True
    read_only = w.view()
    read_only.flags.writeable = False  # its owner can still write
    seen = Dense(read_only)
    w[0, 0] = 9
    assert seen.weight.tolist() == [[1, 5]]
    assert layer.astype(np.float64) is layer
    assert Dense(layer.weight).weight.base is layer.weight.base  # what can't change is not copied


ALONE = [
    (Dense(np.ones((2, 3))), (2, 4), r"Dense: weight \(2, 3\) takes 3 values"),
    (Dense(np.ones((2, 3))), (3,), r"Dense: weight \(2, 3\) takes 3 values"),
    (Conv2D(np.ones((2, 3, 1, 1))), (3, 4, 4), r"Conv2D: takes samples of shape \(channels, height, width\)"),
    (
        Conv2D(np.ones((2, 3, 1, 1))),
        (1, 4, 4, 3),
        r"takes 3 channels, but the input has shape \(4, 4, 3\)",
    ),
    (Conv1D(np.ones((2, 3, 2))), (1, 3, 1), "a window spanning 2 does not fit into 1"),
    (Conv3D(np.ones((2, 3, 1, 1, 1))), (1, 3, 4, 4), r"\(channels, depth, height, width\)"),
    (Conv2DTranspose(np.ones((2, 3, 1, 1))), (1, 3, 4, 4), "takes 2 channels"),
    (MaxPool2D(2), (1, 4), r"MaxPool2D: takes samples of shape"),
    (GlobalMaxPool(), (1, 4), r"GlobalMaxPool: takes samples of shape"),
    (BatchNorm(*np.ones((4, 3))), (1, 2), "has 3 channels, but axis 0"),
    (Affine(np.ones(3), np.ones(3)), (1, 2), "has 3 channels"),
    (LayerNorm(np.ones(3)), (1, 2), "gamma has shape"),
    (LRN(3, within=True), (1, 2), "a window within channels"),
    (PReLU(np.ones(3)), (1, 2, 4), r"slope \(3,\) does not fit"),
    (Transpose((1, 0)), (1, 2), "axes"),
    (Slice((0,), (2,)), (1, 2, 3), "is for 1 axes"),
    (ZeroPadding(((1, 1),)), (1, 2, 3), "is for 1 axes"),
]


@pytest.mark.parametrize(("layer", "shape", "says"), ALONE, ids=lambda value: str(value)[:20])
def test_a_layer_used_alone_says_which_shape_it_takes(layer, shape, says):
    x = np.ones(shape)
    with pytest.raises(ShapeError, match=says):
        layer.forward(x)
    with pytest.raises(ShapeError, match=says):
        layer.relprop(np.ones(shape), x, x, Epsilon())


def test_relevance_of_another_shape_is_refused():
    layer, x = Dense(np.ones((2, 3))), np.ones((1, 3))
    y = layer.forward(x)
    with pytest.raises(ShapeError, match=r"Dense: R must have shape \(1, 2\) for this input, not \(1, 3\)"):
        layer.relprop(x, x, y, Epsilon())
    with pytest.raises(ShapeError, match=r"Dense: y must have shape \(1, 2\)"):
        layer.relprop(y, x, x, Epsilon())
    with pytest.raises(LRPError, match="Dense: relevance goes through it by a rule; give one"):
        layer.relprop(y, x, y)
    with pytest.raises(ShapeError, match="Add: takes a tuple of arrays, not ndarray"):
        Add().forward(x)
    with pytest.raises(ShapeError, match="Concatenate: inputs of shapes"):
        Concatenate().forward((np.ones((1, 2, 3)), np.ones((1, 2, 4))))
    with pytest.raises(ShapeError, match="takes arrays with the batch as first axis, not float"):
        ReLU().forward(3.0)
    with pytest.raises(ShapeError, match=r"Flatten: R must have shape \(1, 3\)"):
        Flatten().relprop(np.ones((1, 4)), x, x)


# ---------------------------------------------------------------- three dimensions


@given(seed=seeds, stride=st.integers(1, 2), groups=st.sampled_from([1, 2]), dilation=st.integers(1, 2))
def test_three_dimensional_convolution_equals_plain_loops(seed, stride, groups, dilation):
    r = np.random.default_rng(seed)
    w, b = numbers(r, 4, 2 // groups, 2, 1, 3), r.standard_normal(4)
    pads = ((1, 0), (0, 1), (2, 1))
    conv = Conv3D(w, b, stride, pads, dilation, groups)
    x = numbers(r, 2, 2, 4, 3, 5)
    y = conv.forward(x)
    assert y.shape[1:] == conv.output_shape(x.shape[1:])
    padded = np.pad(x, ((0, 0), (0, 0), *pads))
    for n, o, *at in itertools.islice(np.ndindex(*y.shape), seed % 5, None, 5):
        total, group = b[o], o // (4 // groups)
        for c, *k in np.ndindex(*w.shape[1:]):
            pixel = tuple(p * stride + i * dilation for p, i in zip(at, k))
            total += w[(o, c, *k)] * padded[(n, group * (2 // groups) + c, *pixel)]
        assert_allclose(y[(n, o, *at)], total, rtol=1e-10, atol=1e-12)
    s = numbers(r, *y.shape)
    back = conv.adjoint(s, conv.weight, x.shape[1:])
    assert_allclose((back * x).sum(), (s * conv.linear(x, conv.weight, None)).sum(), rtol=1e-10, atol=1e-10)


def test_three_dimensional_pooling_by_hand():
    x = np.arange(16.0).reshape(1, 2, 2, 2, 2)
    assert MaxPool3D(2).forward(x).ravel().tolist() == [7, 15]
    assert SumPool3D(2).forward(x).ravel().tolist() == [28, 92]
    x[0, 0] = 3  # all equal: the first in row-major order wins
    back = MaxPool3D(2).relprop(np.array([[[[[5.0]]], [[[6.0]]]]]), x, MaxPool3D(2).forward(x))
    assert back[0, 0].ravel().tolist() == [5, *[0] * 7] and back[0, 1].ravel().tolist() == [*[0] * 7, 6]
