"""The exact oracle: against sums done by hand, and the library in float64 against the oracle."""

import dataclasses
from fractions import Fraction as F

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from strategies import convolutions, dense, diagonals, pools, seeds

from numpylrp import Network, fuse
from numpylrp import explain as explain_float
from numpylrp.composite import Composite
from numpylrp.errors import LRPError, ShapeError, UnsupportedError
from numpylrp.layers import (
    LRN,
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
    CopyPadding,
    Dense,
    Dropout,
    Flatten,
    GlobalAveragePool,
    GlobalMaxPool,
    GlobalSumPool,
    HardSigmoid,
    HardSwish,
    Identity,
    LeakyReLU,
    Maximum,
    MaxPool1D,
    MaxPool2D,
    Minimum,
    Mish,
    Multiply,
    PReLU,
    ReLU,
    Reshape,
    Slice,
    Softmax,
    Subtract,
    SumPool2D,
    Threshold,
    Transpose,
    UpSampling,
    ZeroPadding,
)
from numpylrp.rules import LRP0, AbsZ, AlphaBeta, Epsilon, Flat, Gamma, Pass, WSquare, ZBox, ZPlus
from numpylrp.validate.exact import Tensor, explain, forward, rounding_error, tensor

CLOSE = 1e-12


def chain(*layers, shape):
    return Network([(f"l{n}", layer) for n, layer in enumerate(layers)], shape)


def relevance(network, x, R, rule, normalization="linear"):
    rules = rule if isinstance(rule, dict) else Composite(default=rule).rules(network)
    return explain(network, x, R, rules, normalization).relevance["input"].to_list()


# ---------------------------------------------------------------- rules, by hand

# unit 0: contributions 3, -4, bias 1/2, z = -1/2; unit 1: contributions 6, 2, bias -1, z = 7
TWO = Dense([[1.0, -2.0], [2.0, 1.0]], [0.5, -1.0])
BY_HAND = {
    "lrp-0": (LRP0(), [-6 + 6, 8 + 2]),
    "epsilon": (Epsilon(0.5), [F(3, -1) + 7 * 6 / F(15, 2), 4 + 7 * 2 / F(15, 2)]),
    # c + c- = 3, -8 over -1/2 - 4; c + c+ = 12, 4 over 7 + 8
    "gamma": (Gamma(1.0), [-F(6, 9) + 7 * F(12, 15), F(16, 9) + 7 * F(4, 15)]),
    "gamma, epsilon": (
        Gamma(1.0, epsilon=0.5),
        [-F(3, 5) + 7 * 12 / F(31, 2), F(8, 5) + 7 * 4 / F(31, 2)],
    ),
    "alpha-beta": (AlphaBeta(2.0, 1.0), [2 * F(6, 7) + 14 * F(6, 8), -1 + 14 * F(2, 8)]),
    "alpha-beta, epsilon": (
        AlphaBeta(2.0, 1.0, epsilon=1.0),
        [2 * F(6, 9) + 14 * F(6, 9), -F(4, 5) + 14 * F(2, 9)],
    ),
    "alpha-beta, no bias": (AlphaBeta(2.0, 1.0, bias=False), [2 + 14 * F(6, 8), -1 + 14 * F(2, 8)]),
    "z+": (ZPlus(), [F(6, 7) + 7 * F(6, 8), 7 * F(2, 8)]),
    "w^2": (WSquare(), [F(1, 5) + 7 * F(4, 5), F(4, 5) + 7 * F(1, 5)]),
    "flat": (Flat(), [4, 4]),
    "z^B, 0 .. 4": (ZBox(0.0, 4.0), [F(3, 7) + 7 * F(6, 8), F(4, 7) + 7 * F(2, 8)]),
    "z^B, -1 .. 4": (ZBox(-1.0, 4.0), [F(4, 8) + 7 * F(8, 11), F(4, 8) + 7 * F(3, 11)]),
    "z^B of each input": (ZBox([0.0, -1.0], [4.0, 2.0]), [1 + 7 * F(6, 9), 0 + 7 * F(3, 9)]),
    "abs-z": (AbsZ(), [3 / F(15, 2) + 7 * F(6, 9), 4 / F(15, 2) + 7 * F(2, 9)]),
    "pass": (Pass(), [1, 7]),
}


@pytest.mark.parametrize("name", BY_HAND)
def test_rules_by_hand(name):
    rule, expected = BY_HAND[name]
    network, x = chain(TWO, shape=(2,)), [3, 2]
    assert forward(network, x)["l0"].values == [F(-1, 2), 7]
    assert relevance(network, x, [1, 7], rule) == expected
    ours = explain_float(network, [x], seed=[[1.0, 7.0]], composite=rule).relevance[0]
    np.testing.assert_allclose(ours, [float(v) for v in expected], rtol=1e-14, atol=1e-14)


def test_the_sign_of_zero_is_plus_and_zero_over_zero_is_dropped():
    network = chain(Dense([[1.0, 1.0]]), shape=(2,))
    assert relevance(network, [1, -1], [2], Epsilon(0.5)) == [4, -4]
    assert relevance(network, [1, -1], [2], LRP0()) == [0, 0]
    assert relevance(network, [1, -1], [2], Gamma(1.0)) == [4, -2]  # (1 + 1, -1) over 0 + 1
    for rule in (LRP0(), Gamma(), AlphaBeta(), ZPlus()):
        assert relevance(network, [0, 0], [2], rule) == [0, 0]
    assert relevance(network, [0, 0], [2], Flat()) == [1, 1]


def test_padding_is_in_no_row():
    """Kernel 1 2 3, padding 1 before and 2 after, stride 2: three outputs over x = 1, 1, 1, 1."""
    network = chain(Conv1D([[[1.0, 2.0, 3.0]]], [1.0], stride=2, padding=((1, 2),)), shape=(1, 4))
    x = [[1, 1, 1, 1]]
    assert forward(network, x)["l0"].to_list() == [[0 + 2 + 3 + 1, 1 + 2 + 3 + 1, 1 + 0 + 0 + 1]]
    assert relevance(network, x, [[6, 7, 2]], LRP0()) == [[2, 3 + 1, 2, 3 + 1]]
    assert relevance(network, x, [[6, 6, 2]], Flat()) == [[3, 3 + 2, 2, 2 + 2]]
    assert relevance(network, x, [[13, 14, 5]], WSquare()) == [[4, 9 + 1, 4, 9 + 5]]


def test_a_transposed_convolution_by_hand():
    up = Conv2DTranspose([[[[1.0, 2.0, 3.0]]]], [1.0], stride=(1, 2), padding=((0, 0), (1, 0)))
    network = chain(up, shape=(1, 1, 2))
    # full 1 2 3+10 20 30, the first cut off
    assert forward(network, [[[1, 10]]])["l0"].to_list() == [[[3, 14, 21, 31]]]
    R = relevance(network, [[[1, 10]]], [[[3, 14, 21, 31]]], LRP0())
    assert R == [[[2 + 3, 10 + 20 + 30]]]


def test_pooling_by_hand():
    x = [[[2, 2, 5], [2, 1, 5]]]
    network = chain(MaxPool2D(2, 1), shape=(1, 2, 3))
    assert relevance(network, x, [[[3, 4]]], {}) == [[[3, 0, 4], [0, 0, 0]]]  # the first of equals
    least = chain(MaxPool2D(2, 1, sign=[-1.0]), shape=(1, 2, 3))
    assert forward(least, x)["l0"].to_list() == [[[1, 1]]]
    assert relevance(least, x, [[[3, 4]]], {}) == [[[0, 0, 0], [0, 7, 0]]]
    # ceil: the second window hangs over the end; counted padding counts, overhang never does
    for counted, expected in ((False, [2, 4]), (True, [F(4, 3), 4])):
        pool = AveragePool1D(3, 3, ((1, 0),), ceil=True, count_padding=counted)
        assert forward(chain(pool, shape=(1, 4)), [[1, 3, 3, 5]])["l0"].to_list() == [expected]
    assert relevance(chain(AveragePool1D(3), shape=(1, 3)), [[1, 2, 4]], [[7]], LRP0()) == [[1, 2, 4]]


def test_merges_by_hand():
    def network(layer):
        return Network(
            [("a", Affine(2, 0), "input"), ("b", Affine(-1, 0), "input"), ("m", layer, ("a", "b"))], (2,)
        )

    x = [3, 0]  # a = 6, 0 and b = -3, 0
    step = lambda layer, rule: explain(  # noqa: E731
        network(layer), x, [3, 1], Composite(default=rule).rules(network(layer))
    ).steps["m"]
    assert [t.values for t in step(Add(), LRP0()).R_x] == [[6, 0], [-3, 0]]
    assert [t.values for t in step(Add(), ZPlus()).R_x] == [[3, 0], [0, 0]]
    assert [t.values for t in step(Subtract(), LRP0()).R_x] == [[2, 0], [1, 0]]
    assert [t.values for t in step(Average(), Flat()).R_x] == [[F(3, 2), F(1, 2)]] * 2
    assert [t.values for t in step(Add(), Pass()).R_x] == [[F(3, 2), F(1, 2)]] * 2
    assert [t.values for t in step(Multiply(), LRP0()).R_x] == [[F(3, 2), F(1, 2)]] * 2
    assert [t.values for t in step(Multiply(signal=1), LRP0()).R_x] == [[0, 0], [3, 1]]
    assert [t.values for t in step(Maximum(), LRP0()).R_x] == [[3, 1], [0, 0]]
    assert [t.values for t in step(Minimum(), LRP0()).R_x] == [[0, 1], [3, 0]]


def test_a_residual_sum_by_hand():
    """y = ReLU(x1 - x2) (1, 2) + x: relevance of both ways meets at the input."""
    network = Network(
        [
            ("fc1", Dense([[1.0, -1.0]])),
            ("relu", ReLU()),
            ("fc2", Dense([[1.0], [2.0]])),
            ("sum", Add(), ("fc2", "input")),
        ],
        (2,),
    )
    # fc1 = 2, fc2 = (2, 4), sum = (5, 5): 4 of fc2's 2 and 3 of input's at unit 0; only unit 1 is explained
    result = explain(network, [3, 1], 1, Composite(default=LRP0()).rules(network))
    assert [t.values for t in result.steps["sum"].R_x] == [[0, 4], [0, 1]]
    assert result.steps["relu"].R.values == [4]
    assert result.relevance["input"].values == [4 * F(3, 2), 4 * F(-1, 2) + 1]


def test_lrn_by_hand():
    """a = 1 / 2, beta = 1, k0 = 1 over two channels: y_k = x_k / (1 + 5 / 2)."""
    network = chain(LRN(3, alpha=1.5, beta=1.0, k=1.0), shape=(2,))
    assert forward(network, [1, 2])["l0"].values == [F(2, 7), F(4, 7)]
    # own: 1 / (3/2), 2 / 3; of the neighbour: -2 a x_k x_j^2 (7/2)^-2 = -16/49, -8/49
    z = [F(2, 3) - F(16, 49), F(2, 3) - F(8, 49)]
    result = explain(network, [1, 2], [1, 1], {"l0": LRP0()})
    assert result.steps["l0"].z.values == z
    expected = [F(2, 3) / z[0] - F(8, 49) / z[1], F(2, 3) / z[1] - F(16, 49) / z[0]]
    assert result.relevance["input"].values == expected and sum(expected) == 2


# ---------------------------------------------------------------- fusing, by hand


def test_batch_norm_after_a_linear_layer_by_hand():
    """g = 3 / (3 / 2) = 2, s = 1 - 2 * 2 = -3: weights (2, -2), bias 2 * 5 - 3 = 7."""
    norm = BatchNorm([3.0], [1.0], [2.0], [2.0], eps=0.25)
    network = chain(Dense([[1.0, -1.0]], [5.0]), norm, shape=(2,))
    assert relevance(network, [3, 2], [13], Gamma(1.0), "fused") == [F(13 * 12, 22), F(13 * -4, 22)]
    # one after the other: 12 of 12 + 0 at the normalization (s < 0 takes -3 of 9), then (6, -2) of 4 + 10
    R = 13 * F(24, 21)
    assert relevance(network, [3, 2], [13], Gamma(1.0)) == [R * F(6, 14), R * F(-2, 14)]


def test_batch_norm_before_a_padded_convolution_by_hand():
    """2 x + 3, then a kernel 1 1 1 with padding 1: the border sees two shifts, the middle three."""
    norm = BatchNorm([2.0], [3.0], [0.0], [1.0], eps=0.0)
    network = chain(norm, Conv1D([[[1.0, 1.0, 1.0]]], padding=1), shape=(1, 3))
    result = explain(network, [[1, 1, 1]], [[10, 15, 10]], {"l1": ZPlus()}, "fused")
    assert result.steps["l1"].z.to_list() == [[10, 15, 10]]
    assert result.relevance["input"].to_list() == [[2 + 2, 2 + 2 + 2, 2 + 2]]
    assert relevance(network, [[1, 1, 1]], [[2, 3, 2]], WSquare(), "fused") == [[2, 3, 2]]


def test_batch_norm_before_a_relu_by_hand():
    """Four units: g > 0 and g < 0, each once passing and once saturated; one more with g = 0."""
    norm = BatchNorm([2.0, 2.0, -3.0, -3.0, 0.0], [1.0, 1.0, 1.0, 1.0, 4.0], [0] * 5, [1] * 5, eps=0.0)
    network = chain(norm, ReLU(), Dense([[1.0, 1.0, 1.0, 1.0, 1.0]]), shape=(5,))
    x = [2, -2, -1, 1, 9]  # 5, 0, 4, 0, 4
    result = explain(network, x, [13], {"l2": LRP0()}, "fused")
    assert result.steps["l1"].z.values == [2, F(-1, 2), -1, F(1, 3), 9]
    # weights (2, 2, -3, -3, 0), bias 1 + 1 + 1 + 1 + 4: contributions 4, -1, 3, -1, 0
    assert result.steps["l2"].R_x.values == [4, -1, 3, -1, 0]
    assert result.relevance["input"].values == [4, 0, 3, 0, 0]
    assert relevance(network, x, [13], Flat(), "fused") == [F(13, 5), 0, F(13, 5), 0, F(13, 5)]
    # z+: 4 and 3 of 4 + 3 + 8
    assert relevance(network, x, [15], ZPlus(), "fused") == [4, 0, 3, 0, 0]


def test_batch_norm_around_a_maximum_by_hand():
    """With g < 0 the maximum becomes a minimum, on whichever side the normalization lies."""
    norm, pool = BatchNorm([-2.0], [1.0], [0.0], [1.0], eps=0.0), MaxPool1D(2)
    conv = Conv1D([[[1.0]]], [1.0])
    after, before = chain(conv, pool, norm, shape=(1, 2)), chain(norm, pool, conv, shape=(1, 2))
    # max(4, 6) = 6, norm -11: fused min(-2 (x + 1) + 1) of 3, 5 -> -7, -11; the maximum's unit
    assert relevance(after, [[3, 5]], [[-11]], LRP0(), "fused") == [[0, -10]]
    # norm -5, -9: the maximum -5 is that of x = 3, + 1; fused weight -2, bias 2
    assert relevance(before, [[3, 5]], [[-4]], LRP0(), "fused") == [[-6, 0]]


def test_batch_norm_after_a_sum_by_hand():
    """g = 2, s = 3 after a + b: the shift goes to the first branch."""
    norm = BatchNorm([2.0], [3.0], [0.0], [1.0], eps=0.0)
    network = Network(
        [
            ("a", Dense([[1.0, 0.0]], [1.0]), "input"),
            ("b", Dense([[0.0, 1.0]]), "input"),
            ("sum", Add(), ("a", "b")),
            ("bn", norm, "sum"),
        ],
        (2,),
    )
    rules = Composite(default=ZPlus()).rules(network)
    result = explain(network, [1, 2], [11], rules, "fused")
    assert [t.values for t in result.steps["sum"].R_x] == [[7], [4]]
    assert result.relevance["input"].values == [2, 4]  # 2 of 2 + 5, 4 of 4


def test_what_is_not_fused_says_why():
    network = chain(BatchNorm([2.0], [1.0], [0.0], [1.0], eps=0.0), LeakyReLU(0.5), shape=(1,))
    result = explain(network, [1], [3], {"l0": LRP0()}, "fused")
    assert "LeakyReLU" in result.stays["l0"] and result.relevance["input"].values == [2]


# ---------------------------------------------------------------- the library against the oracle


def eighths(rng, *shape):
    """Multiples of 1/8 with zeros and ties: sums and products of them are exact in float64."""
    return rng.integers(-12, 13, shape) / 8


def norm(rng, n, axis=0):
    """Batch normalization whose scale is 0 or a power of two and its shift a multiple of 1/8."""
    gamma = rng.choice([-2.0, -1.0, -0.5, 0.5, 1.0, 2.0, 4.0], n) * (rng.random(n) > 0.15)
    variance = rng.choice([0.5, 1.0, 2.0], n) ** 2 - 0.25
    return BatchNorm(gamma, eighths(rng, n), eighths(rng, n), variance, 0.25, axis)


def dyadic(case):
    """The case with parameters that are multiples of 1/8."""
    layer, shape = case
    if isinstance(layer, BatchNorm):
        return norm(np.random.default_rng(len(layer.mean)), len(layer.mean), layer.axis), shape
    return dataclasses.replace(layer, **{k: np.round(a * 8) / 8 for k, a in layer.arrays().items()}), shape


cases = st.one_of(convolutions(), convolutions(), pools(), diagonals(), dense()).map(dyadic)

RULES = {
    "lrp-0": LRP0(),
    "epsilon": Epsilon(0.25),
    "gamma": Gamma(0.5, epsilon=1e-3),
    "alpha-beta": AlphaBeta(2.0, 1.0),
    "alpha-beta, no bias": AlphaBeta(3.0, 2.0, bias=False),
    "z+": ZPlus(epsilon=0.5),
    "w^2": WSquare(),
    "flat": Flat(),
    "abs-z": AbsZ(),
}


def largest(*tensors):
    return float(max((abs(v) for t in tensors for v in t.values), default=0))


def compare(network, x, R, rule, normalization="linear"):
    """Every step of the library to `CLOSE` of the largest relevance that flows: what a layer absorbs or
    drops may be much larger than what it sends, and leaves its rounding there.
    """
    network_float = fuse(network, probe=0)[0] if normalization == "fused" else network
    rules = rule if isinstance(rule, dict) else Composite(default=rule).rules(network)
    exact = explain(network, x, R, rules, normalization)
    # by functions: a name that is gone after fusing would be an error
    entries = [(lambda _, node, name=name: node.name == name, r) for name, r in rules.items()]
    ours = explain_float(
        network, x[None], seed=R[None], composite=Composite(entries), normalization=normalization, trace=True
    )
    pairs = [(ours.relevance[0], exact.relevance["input"])]
    scale = [largest(exact.relevance["input"])]
    for name, step in ours.steps.items():
        if name == "input":
            continue
        assert name in exact.steps, name
        known, many = exact.steps[name], isinstance(exact.steps[name].R_x, tuple)
        sent = known.R_x if many else (known.R_x,)
        values = step["R_x"] if many else (step["R_x"],)
        pairs += [(step["R"][0], known.R), *((a[0], b) for a, b in zip(values, sent, strict=True))]
        scale += [largest(known.R, *sent)]
        if not isinstance(network_float[name], LRN):
            assert rounding_error(step["y"][0], known.z) <= CLOSE, name
    for a, b in pairs:
        error = max((abs(F(float(p)) - q) for p, q in zip(a.ravel(), b.values, strict=True)), default=0)
        assert error <= CLOSE * max(scale)
    assert set(exact.steps) - set(ours.steps) <= {n.name for n in network.nodes} - {
        n.name for n in network_float.nodes
    }
    return exact


@pytest.mark.parametrize("name", RULES)
@given(case=cases, seed=seeds)
def test_rules_on_layers(name, case, seed):
    layer, shape = case
    network, rng = chain(layer, shape=shape), np.random.default_rng(seed)
    compare(network, eighths(rng, *shape), eighths(rng, *network.shapes["l0"]), RULES[name])


@given(case=cases, seed=seeds, bounds=st.sampled_from(["scalar", "channel", "array"]))
def test_z_box_on_layers(case, seed, bounds):
    layer, shape = case
    network, rng = chain(layer, shape=shape), np.random.default_rng(seed)
    x = eighths(rng, *shape)
    size = {"scalar": (), "channel": shape[:1] if len(shape) > 1 else shape, "array": shape}[bounds]
    low, high = -1.5 - abs(eighths(rng, *size)), 1.5 + abs(eighths(rng, *size))
    compare(network, x, eighths(rng, *network.shapes["l0"]), ZBox(low, high))


OTHERS = {
    "relu": (ReLU(), (2, 3)),
    "relu6": (ReLU(max_value=1.0, negative_slope=0.25, threshold=0.5), (2, 3)),
    "leaky": (LeakyReLU(0.25), (2, 3)),
    "prelu": (PReLU([0.5, 0.25]), (2, 3)),
    "threshold": (Threshold([[1.0], [-1.0], [0.0]], [[0.5], [-0.25], [1.0]]), (3, 4)),
    "hard sigmoid": (HardSigmoid(), (2, 3)),
    "hard swish": (HardSwish(), (2, 3)),
    "max pool": (MaxPool2D((2, 3), (1, 2), ((1, 0), (0, 2)), sign=[1.0, -1.0]), (2, 4, 5)),
    "max pool, ceil": (MaxPool2D(3, 2, 1, ceil=True), (1, 4, 5)),
    "max pool, same": (MaxPool1D(3, 2, "same"), (2, 6)),
    "global max": (GlobalMaxPool(True, sign=[-1.0, 1.0]), (2, 3, 2)),
    "slice": (Slice((0, 1, -3), (None, -1, None), (1, 2, 2)), (2, 5, 4)),
    "upsampling": (UpSampling((1, 2, 3)), (2, 2, 2)),
    "padding": (ZeroPadding(((1, 0), (2, 1))), (2, 3)),
    **{
        f"{mode} padding": (CopyPadding(((1, 0), (2, 1)), mode), (2, 3))
        for mode in ("reflect", "symmetric", "edge", "wrap")
    },
    "transpose": (Transpose((2, 0, 1)), (2, 3, 4)),
    "reshape": (Reshape((3, -1)), (2, 3, 4)),
}


@pytest.mark.parametrize("name", OTHERS)
@given(seed=seeds)
def test_layers_without_rules(name, seed):
    layer, shape = OTHERS[name]
    network, rng = chain(layer, shape=shape), np.random.default_rng(seed)
    compare(network, eighths(rng, *shape), eighths(rng, *network.shapes["l0"]), LRP0())


@pytest.mark.parametrize(
    "layer", [Add(), Subtract(), Average(), Multiply(), Multiply(1), Maximum(), Minimum()]
)
@pytest.mark.parametrize("rule", [LRP0(), Gamma(), AlphaBeta(), WSquare(), Flat(), Pass()], ids=str)
@given(seed=seeds)
def test_merges(layer, rule, seed):
    """The second branch is repeated along two axes."""
    layers = [("pool", GlobalMaxPool(True), "input"), ("merge", layer, ("input", "pool"))]
    network, rng = Network(layers, (2, 2, 3)), np.random.default_rng(seed)
    compare(network, eighths(rng, 2, 2, 3), eighths(rng, 2, 2, 3), rule)


@pytest.mark.parametrize("rule", [Epsilon(0.25), AlphaBeta(), ZPlus(), WSquare(), Flat(), Pass()], ids=str)
@given(seed=seeds, beta=st.integers(0, 2), within=st.booleans(), average=st.booleans(), n=st.integers(1, 3))
def test_lrn(rule, seed, beta, within, average, n):
    layer = LRN(n, 0.5, float(beta), 1.0, average, within, before=[None, seed // 2 % n][seed % 2])
    network, rng = chain(layer, shape=(4, 3, 2)), np.random.default_rng(seed)
    x = abs(eighths(rng, 4, 3, 2)) + 0.125  # no sum that cancels to 0 but for rounding
    compare(network, x, eighths(rng, 4, 3, 2), rule)


FUSED = [Epsilon(0.25), Gamma(0.5), AlphaBeta(2.0, 1.0), ZPlus(), WSquare(), Flat()]


def conv(rng, c, o, kernel=(2, 2), groups=1, **options):
    bias = eighths(rng, o) if rng.random() < 0.7 else None
    return Conv2D(eighths(rng, o, c // groups, *kernel), bias, groups=groups, **options)


def small(kind, rng):
    """A network with normalization in one of its positions."""
    n = lambda c, axis=0: norm(rng, c, axis)  # noqa: E731
    image = (2, 4, 4)
    odd = ((1, 0), (0, 2))
    layers = {
        "conv-bn-relu": [conv(rng, 2, 2, padding=odd, stride=2), n(2), ReLU()],
        "bn-conv": [n(2), conv(rng, 2, 4, (3, 2), 2, padding="same", dilation=2)],
        "bn-relu-conv": [n(2), ReLU(), conv(rng, 2, 2, padding=odd)],
        "conv-relu-bn-conv": [conv(rng, 2, 2), ReLU(), n(2), conv(rng, 2, 2, padding=1)],
        "bn-average-conv": [n(2), AveragePool2D(2, 2, odd[:1] * 2), conv(rng, 2, 2)],
        "bn-counted-average": [n(2), AveragePool2D(2, 2, odd[:1] * 2, count_padding=True), ReLU()],
        "conv-average-bn": [conv(rng, 2, 2, (1, 1)), AveragePool2D(2), n(2), ReLU()],
        "bn-sum": [n(2), SumPool2D(2, 2), conv(rng, 2, 1, (1, 1))],
        "bn-padded-sum": [n(2), SumPool2D(2, 2, 1), ReLU()],
        "bn-max-conv": [n(2), MaxPool2D(2, 2, 1), conv(rng, 2, 2, padding=1)],
        "bn-relu-max-conv": [n(2), ReLU(), MaxPool2D(2), Dropout(), conv(rng, 2, 2, padding="same")],
        "conv-max-bn": [conv(rng, 2, 2), MaxPool2D(2), n(2), ReLU()],
        "bn-flatten-dense": [n(2), Flatten(), Dense(eighths(rng, 2, 32), eighths(rng, 2))],
        "bn-transpose-flatten-dense": [
            n(4, 2),
            Transpose((2, 0, 1)),
            ReLU(),
            Flatten(),
            Dense(eighths(rng, 2, 32)),
        ],
        "bn-reshape-dense": [n(2), Reshape((-1,)), Dense(eighths(rng, 2, 32)), ReLU()],
        "conv-flatten-bn-dense": [
            conv(rng, 2, 1, (3, 3)),
            Flatten(),
            n(4),
            ReLU(),
            Dense(eighths(rng, 2, 4)),
        ],
        "bn-padding-conv": [n(2), ZeroPadding(((0, 0), (1, 0), (0, 2))), conv(rng, 2, 2, padding=1)],
        "bn-channel-padding-conv": [n(2), ZeroPadding(((1, 0), (0, 1), (0, 0))), conv(rng, 3, 2)],
        "bn-slice-conv": [n(2), Slice((1, 0, 1), (None,) * 3, (1, 2, 1)), conv(rng, 1, 2)],
        "bn-up-conv": [n(2), Slice((0, 0, 0), (2, 2, 2)), UpSampling((1, 2, 1)), conv(rng, 2, 1, padding=1)],
        "bn-global": [n(2), ReLU(), GlobalAveragePool(), Dense(eighths(rng, 2, 2))],
        "bn-global-sum": [n(2), GlobalSumPool(True), Flatten(), Dense(eighths(rng, 2, 2))],
        "bn-global-max": [n(2), GlobalMaxPool(), Dense(eighths(rng, 2, 2))],
        "bn-bn-conv": [ReLU(), n(2), n(2), conv(rng, 2, 1, padding=1)],
        "conv-bn-bn": [conv(rng, 2, 2), n(2), n(2), ReLU()],
        "bn-up-transposed": [
            n(2),
            Slice((0, 0, 0), (2, 2, 2)),
            Conv2DTranspose(eighths(rng, 2, 1, 2, 3), stride=2, padding=((0, 1), (1, 0)), groups=2),
        ],
        "transposed-bn": [
            Slice((0, 0, 0), (2, 2, 2)),
            Conv2DTranspose(eighths(rng, 2, 2, 2, 2), eighths(rng, 4), stride=(1, 2), groups=2),
            n(4),
            ReLU(),
        ],
        "on the last axis": [n(4, 2), Transpose((2, 0, 1)), conv(rng, 4, 1)],
        "stays: leaky": [n(2), LeakyReLU(0.5), conv(rng, 2, 1)],
        "stays: rows of two channels": [n(2), Reshape((4, 8)), Dense(eighths(rng, 2, 8)), ReLU()],
        "stays: width": [n(4, 2), conv(rng, 2, 1)],
        "stays: zeros before a relu": [n(2), ZeroPadding(((0, 0), (1, 1), (0, 0))), ReLU(), conv(rng, 2, 1)],
    }
    graphs = {
        "sum": [
            ("a", conv(rng, 2, 2), "input"),
            ("b", conv(rng, 2, 2), "input"),
            ("sum", [Add(), Subtract(), Average()][rng.integers(3)], ("a", "b")),
            ("bn", n(2), "sum"),
            ("relu", ReLU(), "bn"),
        ],
        "resnet": [
            ("a", conv(rng, 2, 2, padding="same"), "input"),
            ("sum", Add(), ("a", "input")),
            ("bn", n(2), "sum"),
            ("relu", ReLU(), "bn"),
            ("b", conv(rng, 2, 2, padding="same"), "relu"),
            ("out", Add(), ("sum", "b")),
        ],
        "densenet": [
            ("a", conv(rng, 2, 1, padding="same"), "input"),
            ("cat", Concatenate(), ("input", "a")),
            ("bn", n(3), "cat"),
            ("relu", ReLU(), "bn"),
            ("b", conv(rng, 3, 1, padding="same"), "relu"),
            ("cat2", Concatenate(), ("cat", "b")),
        ],
        "concatenation of convolutions": [
            ("a", conv(rng, 2, 1), "input"),
            ("b", conv(rng, 2, 2), "input"),
            ("cat", Concatenate(), ("a", "b")),
            ("bn", n(3), "cat"),
            ("relu", ReLU(), "bn"),
        ],
        "bn in a branch": [
            ("relu", ReLU(), "input"),
            ("bn", n(2), "relu"),
            ("cat", Concatenate(), ("relu", "bn")),
            ("conv", conv(rng, 4, 1, padding=1), "cat"),
        ],
        "stays: a branch of a sum": [
            ("relu", ReLU(), "input"),
            ("bn", n(2), "relu"),
            ("sum", Add(), ("bn", "input")),
        ],
    }
    names = [*layers, *graphs]
    if kind is None:
        return names
    return Network(graphs[kind], image) if kind in graphs else chain(*layers[kind], shape=image)


@pytest.mark.parametrize("kind", small(None, np.random.default_rng(0)))
@given(seed=seeds, rule=st.sampled_from(FUSED))
def test_fused_networks(kind, seed, rule):
    rng = np.random.default_rng(seed)
    network = small(kind, rng)
    x, R = eighths(rng, *network.inputs["input"]), eighths(rng, *network.shapes[network.outputs[0]])
    exact = compare(network, x, R, rule, "fused")
    fused, report = fuse(network, probe=0)
    assert set(exact.stays) == {e.name for e in report.entries if not e.done}
    assert bool(exact.stays) == kind.startswith("stays")
    # the parameters of the library's fused network have no rounding here: it is the same network exactly
    again = explain(fused, x, R, Composite(default=rule).rules(fused))
    assert again.relevance == exact.relevance
    assert all(again.steps[name].z == step.z for name, step in exact.steps.items() if name in fused)


@given(seed=seeds, rule=st.sampled_from([LRP0(), *FUSED]))
def test_fusing_keeps_the_function_and_lrp_0(seed, rule):
    """The oracle against itself, with no tolerance: the function does not change, nor does LRP-0."""
    rng = np.random.default_rng(seed)
    network = small(["bn-relu-conv", "resnet", "bn-max-conv"][seed % 3], rng)
    x = eighths(rng, *network.inputs["input"])
    top = network.outputs[0]
    y = forward(network, x)[top]
    one, other = (
        explain(network, x, y, Composite(default=LRP0()).rules(network), n) for n in ("linear", "fused")
    )
    assert one.steps[top].z == other.steps[top].z == y
    # where an activation is exactly 0, LRP-0 drops (0/0) in one network and absorbs in the other
    if all(all(s.z.values) or isinstance(network[n], ReLU) for n, s in one.steps.items()):
        assert one.relevance == other.relevance


@pytest.mark.parametrize("normalization", ["linear", "fused", "identity", "abs-z"])
@given(seed=seeds, rule=st.sampled_from(FUSED))
def test_a_whole_network(normalization, seed, rule):
    """Two convolutions with normalization, a residual sum, pools and a dense layer, a rule for each."""
    rng = np.random.default_rng(seed)
    network = Network(
        [
            ("conv1", conv(rng, 1, 2, padding=((1, 0), (0, 1)))),
            ("bn1", norm(rng, 2)),
            ("relu1", ReLU()),
            ("bn2", norm(rng, 2)),
            ("conv2", conv(rng, 2, 2, padding="same")),
            ("sum", Add(), ("conv2", "relu1")),
            ("relu2", ReLU()),
            ("pool", AveragePool2D(2)),
            ("flatten", Flatten()),
            ("fc", Dense(eighths(rng, 2, 8), eighths(rng, 2))),
            ("softmax", Softmax()),
        ],
        (1, 4, 4),
    )
    x = eighths(rng, 1, 4, 4)
    rules = Composite([("conv1", ZBox(-1.5, 1.5)), ("conv2", rule)], Epsilon(0.25)).rules(network)
    R = np.array(forward(network, x)["fc"].to_float()) * [0, 1]
    exact = compare(network, x, R, rules, normalization)
    assert exact.relevance == explain(network, x, 1, rules, normalization).relevance


# ---------------------------------------------------------------- the face


def test_tensors():
    x = tensor(np.array([[0.1, 2.0]], np.float32))
    assert x[0, 0] == F(float(np.float32(0.1))) and x.shape == (1, 2)
    third = Tensor((2, 1), [F(1, 3), F(-2, 3)])
    assert third.to_float() == [[1 / 3], [-2 / 3]] and tensor(third) is third
    with pytest.raises(ShapeError, match="one shape"):
        tensor([[1], [1, 2]])


def test_the_rounding_error_is_that_of_the_largest():
    exact = Tensor((2,), [F(1, 3), F(-4)])
    assert rounding_error(exact, exact) == 0
    assert rounding_error([0.25, -4.0], exact) == float(F(1, 12) / 4)
    assert rounding_error([0.0], Tensor((1,), [F(0)])) == 0
    assert rounding_error([1e-300], Tensor((1,), [F(0)])) == np.inf
    with pytest.raises(ShapeError, match="ours has shape"):
        rounding_error([1.0], exact)


@pytest.mark.parametrize(
    ("layer", "says"),
    [
        (Mish(), r"'l0' \(Mish\).*does not know this kind"),
        (BatchNorm(None, None, [0.0], [2.0], eps=0.0), r"'l0' \(BatchNorm\): the root of .* 2.0 is not"),
        (BatchNorm(None, None, [0.0], [0.5], eps=0.0), "0.5 is not rational"),
        (LRN(3, beta=0.75), r"'l0' \(LRN\): a power of 0.75"),
    ],
)
def test_what_is_not_rational_is_refused_by_name(layer, says):
    with pytest.raises(UnsupportedError, match=says):
        forward(chain(layer, shape=(1, 2)), [[1, 2]])


def test_rules_and_options_that_are_refused():
    network = chain(TWO, shape=(2,))
    with pytest.raises(UnsupportedError, match=r"'l0' \(Dense\): .* root mean square"):
        relevance(network, [1, 2], 0, Epsilon(0.25, relative=True))
    with pytest.raises(LRPError, match="has no rule"):
        relevance(network, [1, 2], 0, {})
    with pytest.raises(LRPError, match="no normalization 'nose'"):
        relevance(network, [1, 2], 0, LRP0(), "nose")
    with pytest.raises(ShapeError, match="one sample of shape"):
        forward(network, [[1, 2]])
    with pytest.raises(ShapeError, match="R must have shape"):
        relevance(network, [1, 2], [1], LRP0())


def test_identity_moves_nothing():
    assert relevance(chain(Identity(), Dropout(), shape=(2,)), [1, 2], [F(1, 3), 2], {}) == [F(1, 3), 2]
