"""Forward passes against scipy, plain loops and PyTorch; the way back of layers without rules."""

import dataclasses
import itertools

import numpy as np
import pytest
from hypothesis import given
from numpy.testing import assert_allclose, assert_array_equal
from scipy import ndimage, signal
from strategies import convolutions, linear_layers, numbers, seeds

import numpylrp.layers as L
from numpylrp.composite import FAMILIES
from numpylrp.errors import LRPError, NonFiniteError, ShapeError
from numpylrp.layers import (
    CELU,
    ELU,
    GELU,
    KINDS,
    SELU,
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
    GlobalMaxPool,
    HardSigmoid,
    HardSwish,
    Identity,
    Interpolation,
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
    Sigmoid,
    SiLU,
    Slice,
    Softmax,
    Softplus,
    Sqrt,
    Subtract,
    Tanh,
    Transpose,
    UpSampling,
    ZeroPadding,
)


def plain_convolution(x, w, b, stride, pads, dilation, groups):
    """Seven loops, as the sum is written."""
    (top, bottom), (left, right) = pads
    x = np.pad(x, ((0, 0), (0, 0), (top, bottom), (left, right)))
    n, _, height, width = x.shape
    o, per, kh, kw = w.shape
    ho = (height - dilation[0] * (kh - 1) - 1) // stride[0] + 1
    wo = (width - dilation[1] * (kw - 1) - 1) // stride[1] + 1
    y = np.zeros((n, o, ho, wo))
    for a, k, p, q in itertools.product(range(n), range(o), range(ho), range(wo)):
        group = k // (o // groups)
        for d, i, j in itertools.product(range(per), range(kh), range(kw)):
            row, column = p * stride[0] + i * dilation[0], q * stride[1] + j * dilation[1]
            y[a, k, p, q] += w[k, d, i, j] * x[a, group * per + d, row, column]
        y[a, k, p, q] += 0 if b is None else b[k]
    return y


@given(case=convolutions(kinds=(Conv2D, Conv1D)), seed=seeds)
def test_convolution_equals_plain_loops(case, seed):
    layer, shape = case
    x = numbers(np.random.default_rng(seed), 2, *shape)
    y = layer.forward(x)
    assert y.shape[1:] == layer.output_shape(shape)
    w, images = layer.weight, x
    stride, dilation = layer.stride, layer.dilation
    if layer.rank == 1:
        w, images, stride, dilation = w[:, :, None], x[:, :, None], (1, *stride), (1, *dilation)
    pads = layer.windows.pads(x.shape[2:])
    pads = pads if layer.rank == 2 else ((0, 0), *pads)
    expected = plain_convolution(images, w, layer.bias, stride, pads, dilation, layer.groups)
    assert_allclose(y, expected[:, :, 0] if layer.rank == 1 else expected, rtol=1e-10, atol=1e-12)


def test_convolution_equals_scipy():
    rng = np.random.default_rng(0)
    x, w, b = rng.standard_normal((2, 3, 9, 7)), rng.standard_normal((4, 3, 3, 2)), rng.standard_normal(4)
    y = Conv2D(w, b).forward(x)
    for n, o in itertools.product(range(2), range(4)):
        expected = sum(signal.correlate2d(x[n, c], w[o, c], mode="valid") for c in range(3)) + b[o]
        assert_allclose(y[n, o], expected, rtol=1e-12)
    same = Conv2D(w[:1, :1], padding="same").forward(x[:, :1])
    expected = ndimage.correlate(x[0, 0], w[0, 0], mode="constant", origin=(0, -1))
    assert_allclose(same[0, 0], expected, rtol=1e-12)


@pytest.mark.parametrize(
    ("size", "kernel", "stride", "pads"),
    [  # by hand: out = ceil(n / s), total = (out - 1) * s + k - n, the odd one behind
        (5, 3, 1, (1, 1)),
        (5, 3, 2, (1, 1)),
        (6, 3, 2, (0, 1)),
        (6, 2, 1, (0, 1)),
        (7, 5, 3, (2, 2)),
        (8, 5, 3, (1, 2)),
        (4, 1, 2, (0, 0)),
    ],
)
def test_same_padding_is_tensorflows(size, kernel, stride, pads):
    conv = Conv1D(np.ones((1, 1, kernel)), stride=stride, padding="same")
    assert conv.windows.pads((size,)) == (pads,)
    assert conv.output_shape((1, size)) == (1, -(-size // stride))
    lower = Conv1D(np.ones((1, 1, kernel)), stride=stride, padding="same_lower")
    assert lower.windows.pads((size,)) == (pads[::-1],)


@given(case=linear_layers)
def test_output_shape_is_that_of_forward(case):
    layer, shape = case
    for dtype in (np.float32, np.float64):
        cast = layer.astype(dtype)
        y = cast.forward(np.ones((2, *shape), dtype))
        assert y.shape == (2, *layer.output_shape(shape)) and y.dtype == dtype


def test_free_sizes_stay_free():
    assert Conv2D(np.ones((4, 3, 3, 3))).output_shape((3, None, 8)) == (4, None, 6)
    assert Conv2DTranspose(np.ones((3, 4, 2, 2)), stride=2).output_shape((3, None, 8)) == (4, None, 16)
    assert MaxPool2D(2).output_shape((3, None, None)) == (3, None, None)
    assert Add().output_shape((3, None), (3, None)) == (3, None)
    assert Concatenate().output_shape((3, None), (4, None)) == (7, None)


@pytest.mark.parametrize("padding", [0, ((1, 0), (0, 1)), "same"])
@pytest.mark.parametrize(("kernel", "stride"), [((2, 2), (2, 2)), ((3, 2), (1, 2)), ((3, 3), (2, 1))])
@pytest.mark.parametrize("ceil", [False, True])
def test_pooling_equals_plain_loops(padding, kernel, stride, ceil):
    rng = np.random.default_rng(3)
    x = np.round(rng.standard_normal((2, 3, 7, 6)), 1)  # with ties
    R_scale = rng.standard_normal
    pool = MaxPool2D(kernel, stride, padding, ceil)
    means = [AveragePool2D(kernel, stride, padding, ceil, count_padding=c) for c in (False, True)]
    y = pool.forward(x)
    R = R_scale(y.shape)
    back = pool.relprop(R, x, y)
    (top, bottom), (left, right) = pool.windows.pads((7, 6))
    declared = pool.windows.padding if not isinstance(padding, str) else ((top, bottom), (left, right))
    expected_R = np.zeros_like(x)
    for n, c, p, q in itertools.product(*map(range, y.shape)):
        window = [
            (p * stride[0] - top + i, q * stride[1] - left + j)
            for i in range(kernel[0])
            for j in range(kernel[1])
        ]
        inside = [(r, k) for r, k in window if 0 <= r < 7 and 0 <= k < 6]
        values = [x[n, c, r, k] for r, k in inside]
        assert y[n, c, p, q] == max(values)
        expected_R[(n, c, *inside[int(np.argmax(values))])] += R[n, c, p, q]
        assert_allclose(means[0].forward(x)[n, c, p, q], np.mean(values), rtol=1e-12)
        counted = sum(
            -declared[0][0] <= r < 7 + declared[0][1] and -declared[1][0] <= k < 6 + declared[1][1]
            for r, k in window
        )
        assert_allclose(means[1].forward(x)[n, c, p, q], np.sum(values) / counted, rtol=1e-12)
    assert_allclose(back, expected_R, rtol=1e-12, atol=1e-14)


def test_of_equal_values_the_first_wins():
    x = np.full((1, 1, 2, 2), 3.0)
    R = np.array([[[[5.0]]]])
    assert MaxPool2D(2).relprop(R, x, np.array([[[[3.0]]]]))[0, 0].tolist() == [[5.0, 0.0], [0.0, 0.0]]
    # padding of the same value as the image does not win either
    zero = np.zeros((1, 1, 2, 2))
    pool = MaxPool2D(2, padding=((1, 0), (1, 0)))
    y = pool.forward(zero)
    assert pool.relprop(np.ones_like(y), zero, y).sum() == y.size
    assert GlobalMaxPool().relprop(np.array([[5.0]]), x, np.array([[3.0]]))[0, 0].tolist() == [
        [5.0, 0.0],
        [0.0, 0.0],
    ]
    first, second = Maximum().relprop(
        np.array([[2.0]]), (np.array([[1.0]]), np.array([[1.0]])), np.array([[1.0]])
    )
    assert (first.item(), second.item()) == (2.0, 0.0)


def test_one_dimensional_pooling():
    x = np.array([[[1.0, 5.0, 2.0, 4.0]]])
    assert MaxPool1D(2).forward(x).tolist() == [[[5.0, 4.0]]]
    assert AveragePool1D(2).forward(x).tolist() == [[[3.0, 3.0]]]
    R = MaxPool1D(2).relprop(np.array([[[1.0, 2.0]]]), x, np.array([[[5.0, 4.0]]]))
    assert R.tolist() == [[[0.0, 1.0, 0.0, 2.0]]]


ACTIVATIONS = {  # the definition, from the papers, for one number
    "relu": (ReLU(), lambda v: max(v, 0.0)),
    "relu6": (ReLU(max_value=6), lambda v: min(max(v, 0.0), 6.0)),
    "relu-general": (
        ReLU(4.0, 0.1, 1.0),
        lambda v: 4.0 if v >= 4 else v if v >= 1 else 0.1 * (v - 1),
    ),
    "leaky": (LeakyReLU(0.2), lambda v: v if v >= 0 else 0.2 * v),
    "prelu": (PReLU(np.array([0.3])), lambda v: v if v >= 0 else 0.3 * v),
    "elu": (ELU(1.5), lambda v: v if v > 0 else 1.5 * (np.exp(v) - 1)),
    "celu": (CELU(0.7), lambda v: max(0, v) + min(0, 0.7 * (np.exp(v / 0.7) - 1))),
    "mish": (Mish(), lambda v: v * np.tanh(np.log(1 + np.exp(v)))),
    "selu": (SELU(), lambda v: 1.0507009873554805 * (v if v > 0 else 1.6732632423543772 * (np.exp(v) - 1))),
    "gelu": (GELU(), lambda v: v * 0.5 * (1 + __import__("math").erf(v / np.sqrt(2)))),
    "gelu-tanh": (
        GELU(approximate=True),
        lambda v: 0.5 * v * (1 + np.tanh(np.sqrt(2 / np.pi) * (v + 0.044715 * v**3))),
    ),
    "silu": (SiLU(), lambda v: v / (1 + np.exp(-v))),
    "sigmoid": (Sigmoid(), lambda v: 1 / (1 + np.exp(-v))),
    "tanh": (Tanh(), lambda v: (np.exp(v) - np.exp(-v)) / (np.exp(v) + np.exp(-v))),
    "softplus": (Softplus(2.0), lambda v: np.log(1 + np.exp(2 * v)) / 2),
    "hard-sigmoid": (HardSigmoid(0.2), lambda v: min(max(0.2 * v + 0.5, 0), 1)),
    "hard-swish": (HardSwish(), lambda v: v * min(max(v + 3, 0), 6) / 6),
}


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_activation_equals_its_definition(name):
    layer, definition = ACTIVATIONS[name]
    x = np.concatenate([np.linspace(-8, 8, 65), [0.0, 1.0, 4.0, 6.0, -3.0]])[None]
    y = layer.forward(x)
    assert_allclose(y[0], [definition(v) for v in x[0]], rtol=1e-10, atol=1e-13)
    assert layer.astype(np.float32).forward(x.astype(np.float32)).dtype == np.float32
    R = np.random.default_rng(0).standard_normal(x.shape)
    assert_array_equal(layer.relprop(R, x, y), R)


def test_roots_of_what_is_not_negative():
    assert Sqrt().forward(np.array([[0.0, 4.0]])).tolist() == [[0.0, 2.0]]
    with pytest.raises(LRPError, match="the root of -1 is not real"):
        Sqrt().forward(np.array([[4.0, -1.0]]))


def test_softmax_of_large_values_sums_to_one():
    y = Softmax().forward(np.array([[1000.0, 1000.0, 0.0]]))
    assert_allclose(y, [[0.5, 0.5, 0.0]])
    x = np.random.default_rng(0).standard_normal((2, 3, 4))
    assert_allclose(Softmax(0).forward(x).sum(1), np.ones((2, 4)))
    assert_allclose(Softmax(-1).forward(x).sum(2), np.ones((2, 3)))


def test_prelu_slopes_belong_to_channels():
    x = np.full((1, 2, 1, 2), -1.0)
    assert PReLU(np.array([0.1, 0.2])).forward(x)[0, :, 0, 0].tolist() == [-0.1, -0.2]
    with pytest.raises(ShapeError, match=r"slope \(3,\)"):
        PReLU(np.ones(3)).output_shape((2, 4, 4))


def test_batch_norm_by_hand():
    """gamma (x - mean) / sqrt(variance + eps) + beta, with statistics that are not 0 and 1."""
    rng = np.random.default_rng(1)
    gamma, beta, mean = rng.standard_normal((3, 4))
    variance, x = rng.uniform(0.01, 3, 4), rng.standard_normal((2, 4, 3, 5))
    at = (slice(None), None, None)
    expected = gamma[at] * (x - mean[at]) / np.sqrt(variance[at] + 0.1) + beta[at]
    assert_allclose(BatchNorm(gamma, beta, mean, variance, 0.1).forward(x), expected, rtol=1e-12, atol=1e-14)
    last = BatchNorm(gamma, beta, mean, variance, 0.1, axis=-1).forward(x.transpose(0, 2, 3, 1))
    assert_allclose(last.transpose(0, 3, 1, 2), expected, rtol=1e-12, atol=1e-14)
    plain = (x - mean[at]) / np.sqrt(variance[at] + 0.1)
    assert_allclose(BatchNorm(None, None, mean, variance, 0.1).forward(x), plain, rtol=1e-12, atol=1e-14)


MOVES = [
    (Flatten(), (2, 3)),
    (Reshape((3, -1)), (2, 3)),
    (Transpose((2, 0, 1)), (2, 3, 4)),
    (ZeroPadding(((1, 0), (0, 2))), (2, 3)),
    *((CopyPadding(((1, 1), (0, 2)), mode), (2, 3)) for mode in ("reflect", "symmetric", "edge", "wrap")),
    (Slice((0, 1), (None, 3), (2, 1)), (4, 5)),
    (UpSampling((1, 2, 3)), (2, 2, 2)),
    (Identity(), (3,)),
    (Dropout(0.5), (3,)),
]


@pytest.mark.parametrize(("layer", "shape"), MOVES, ids=lambda v: type(v).__name__)
def test_moving_back_is_the_adjoint(layer, shape):
    """Relevance goes where the values came from: <forward(x), R> = <x, relprop(R)> for 0/1 maps."""
    rng = np.random.default_rng(0)
    x = rng.standard_normal((2, *shape))
    y = layer.forward(x)
    assert y.shape[1:] == layer.output_shape(shape)
    R = rng.standard_normal(y.shape)
    assert_allclose(np.sum(y * R), np.sum(x * layer.relprop(R, x, y)), rtol=1e-12)


def test_moves_by_hand():
    x = np.arange(6.0).reshape(1, 2, 3)
    assert Transpose((1, 0)).forward(x).tolist() == [[[0, 3], [1, 4], [2, 5]]]
    assert Slice((0, 0), (None, None), (1, 2)).forward(x).tolist() == [[[0, 2], [3, 5]]]
    assert UpSampling((2, 1)).forward(x)[0].tolist() == [[0, 1, 2], [0, 1, 2], [3, 4, 5], [3, 4, 5]]
    assert ZeroPadding(((0, 1), (1, 0))).forward(x)[0].tolist() == [[0, 0, 1, 2], [0, 3, 4, 5], [0, 0, 0, 0]]


def test_copies_around_a_sample_by_hand():
    x = np.array([[[1.0, 2.0, 3.0]]])
    for mode, row in {
        "reflect": [3, 2, 1, 2, 3, 2],
        "symmetric": [2, 1, 1, 2, 3, 3],
        "edge": [1, 1, 1, 2, 3, 3],
        "wrap": [2, 3, 1, 2, 3, 1],
    }.items():
        layer = CopyPadding(((0, 0), (2, 1)), mode)
        assert layer.forward(x).tolist() == [[row]]
        R = layer.relprop(np.arange(1.0, 7)[None, None], x, layer.forward(x))
        assert R[0, 0].tolist() == [sum(k for k, v in enumerate(row, 1) if v == value) for value in (1, 2, 3)]
    with pytest.raises(
        ShapeError, match=r"reflect padding \(3, 0\) is larger than an axis of 3 values allows"
    ):
        CopyPadding(((0, 0), (3, 0)), "reflect").forward(x)
    with pytest.raises(LRPError, match="mode must be one of reflect, symmetric, edge, wrap, not 'zeros'"):
        CopyPadding(((0, 0),), "zeros")


@pytest.mark.parametrize("places", ["half_pixel", "align_corners", "asymmetric"])
def test_interpolation_by_loops(places):
    """Each value between its neighbours, at a position of the input that formulas of the docstring give."""
    x = np.random.default_rng(0).standard_normal((2, 3, 4, 5))
    layer = Interpolation((7, 3), places)
    expected = np.zeros((2, 3, 7, 3))
    for i, j in itertools.product(range(7), range(3)):
        ends = []
        for k, n, o in ((i, 4, 7), (j, 5, 3)):
            p = {"half_pixel": (k + 0.5) * n / o - 0.5, "align_corners": k * (n - 1) / (o - 1)}.get(
                places, k * n / o
            )
            p = min(max(p, 0), n - 1)
            low = int(p)
            ends.append([(low, 1 - p + low), (min(low + 1, n - 1), p - low)])
        for (r, a), (c, b) in itertools.product(*ends):
            expected[:, :, i, j] += a * b * x[:, :, r, c]
    assert_allclose(layer.forward(x), expected, rtol=1e-12, atol=1e-14)
    with pytest.raises(LRPError, match="places must be one of half_pixel, align_corners, asymmetric"):
        Interpolation((2,), "corners")
    with pytest.raises(ShapeError, match="takes samples with 2 spatial axes"):
        layer.output_shape((3, 4))


def test_merges_by_hand():
    a, b = np.array([[1.0, 4.0]]), np.array([[3.0, 2.0]])
    assert Add().forward((a, b, b)).tolist() == [[7.0, 8.0]]
    assert Subtract().forward((a, b)).tolist() == [[-2.0, 2.0]]
    assert Multiply().forward((a, b)).tolist() == [[3.0, 8.0]]
    assert Average().forward((a, b)).tolist() == [[2.0, 3.0]]
    assert Maximum().forward((a, b)).tolist() == [[3.0, 4.0]]
    assert Minimum().forward((a, b)).tolist() == [[1.0, 2.0]]
    assert Concatenate().forward((a, b)).tolist() == [[1.0, 4.0, 3.0, 2.0]]
    R = np.array([[1.0, 2.0, 3.0, 4.0]])
    assert [p.tolist() for p in Concatenate().relprop(R, (a, b), R)] == [[[1.0, 2.0]], [[3.0, 4.0]]]
    gate = Multiply(signal=1).relprop(a, (a, b), a * b)
    assert [g.tolist() for g in gate] == [[[0.0, 0.0]], [[1.0, 4.0]]]


def test_a_repeated_branch_gets_the_sum_back():
    from numpylrp.rules import LRP0

    image, scale = np.ones((1, 2, 2, 2)), np.full((1, 2, 1, 1), 3.0)
    y = Add().forward((image, scale))
    R = np.full_like(y, 8.0)
    a, b = Add().relprop(R, (image, scale), y, LRP0())
    assert a.shape == image.shape and b.shape == scale.shape
    assert (a == 2.0).all() and (b == 24.0).all()
    a, b = Multiply(signal=0).relprop(R, (image, scale), y)
    assert (a == 8.0).all() and (b == 0.0).all() and b.shape == scale.shape


@pytest.mark.parametrize("kind", [k for k in KINDS.values()], ids=lambda k: k.__name__)
def test_every_kind_says_what_it_is(kind):
    assert kind.family in FAMILIES
    assert kind.way_back and kind.__doc__


BAD = [
    (lambda: Dense(np.ones(3)), r"Dense: weight must have 2 axes, but its shape is \(3,\)"),
    (
        lambda: Dense(np.ones((2, 3)), np.ones(3)),
        r"Dense: weight \(2, 3\) has 2 outputs, but bias has shape \(3,\)",
    ),
    (lambda: Dense("weights"), "Dense: weight must be an array of numbers"),
    (lambda: Conv2D(np.ones((4, 3, 3))), r"Conv2D: weight must have 4 axes"),
    (lambda: Conv2D(np.ones((4, 3, 3, 3)), stride=0), "stride must be an integer of at least 1"),
    (lambda: Conv2D(np.ones((4, 3, 3, 3)), stride=1.5), "stride"),
    (lambda: Conv2D(np.ones((4, 3, 3, 3)), padding=0.5), "padding must be"),
    (lambda: Conv2D(np.ones((4, 3, 3, 3)), padding=-1), "padding must be"),
    (lambda: Conv2D(np.ones((4, 3, 3, 3)), padding="full"), "padding must be 'same'"),
    (lambda: Conv2D(np.ones((4, 3, 3, 3)), groups=3), "can't be cut into 3 groups"),
    (lambda: Conv2D(np.ones((4, 3, 3, 3)), np.ones(3)), "has 4 output channels, but bias"),
    (lambda: Conv2D(np.ones((4, 0, 3, 3))), "is empty"),
    (lambda: MaxPool2D(2, padding=2), "a window would see no pixel"),
    (lambda: BatchNorm(None, None, [0.0], [-1.0]), "variance has a negative value"),
    (
        lambda: BatchNorm([1.0, 1.0], None, [0.0] * 3, [1.0] * 3),
        "lengths differ: gamma 2, mean 3, variance 3",
    ),
    (lambda: BatchNorm(None, None, [0.0], [0.0], eps=0), "division by zero"),
    (lambda: BatchNorm(None, None, None, [0.0]), "mean is missing"),
    (lambda: CELU(0), "alpha must be positive, not 0"),
    (lambda: Transpose((0, 2)), "axes must be an order"),
    (lambda: Reshape((-1, -1)), "at most one -1"),
    (lambda: ZeroPadding((1, 1)), "padding must be a pair"),
    (lambda: UpSampling((0, 1)), "size must be integers of at least 1"),
    (lambda: Slice((0,), (1, 2)), "of one length"),
]


@pytest.mark.parametrize(("make", "says"), BAD)
def test_bad_parameters_are_refused(make, says):
    with pytest.raises(LRPError, match=says):
        make()


@pytest.mark.parametrize("value", [np.nan, np.inf])
@pytest.mark.parametrize(
    "make",
    [
        lambda w: Dense(w),
        lambda w: Conv2D(w.reshape(1, 1, 1, 2)),
        lambda w: Affine(w.ravel(), 0),
        lambda w: BatchNorm(w.ravel(), None, np.zeros(2), np.ones(2)),
    ],
)
def test_weights_that_are_not_finite_are_refused(make, value):
    with pytest.raises(NonFiniteError, match="1 of 2 values that are NaN or infinite"):
        make(np.array([[1.0, value]]))


MISFITS = [
    (Dense(np.ones((2, 3))), [(4,)], r"takes 3 values on the last axis, but the input has shape \(4,\)"),
    (Conv2D(np.ones((4, 3, 3, 3))), [(1, 8, 8)], r"takes 3 channels, but the input has shape \(1, 8, 8\)"),
    (Conv2D(np.ones((4, 3, 3, 3))), [(3, 8)], r"takes samples of shape \(channels, height, width\)"),
    (
        Conv2D(np.ones((4, 3, 5, 3))),
        [(3, 4, 8)],
        r"a window spanning 5 does not fit into 4 \+ 0 \+ 0 \(height",
    ),
    (BatchNorm(None, None, np.zeros(3), np.ones(3)), [(4, 2)], "has 3 channels, but axis 0"),
    (Reshape((5,)), [(2, 3)], r"the 6 values of a sample \(2, 3\) don't fit into \(5,\)"),
    (Add(), [(3, 2), (3, 4)], r"\(3, 2\), \(3, 4\) don't fit together"),
    (Add(), [(3, 2)], "takes two or more inputs, but got 1"),
    (Subtract(), [(2,), (2,), (2,)], "takes 2 inputs, but got 3"),
    (Concatenate(), [(3, 2), (3, 4)], "differ beside axis 0"),
    (Softmax(2), [(3,)], "axis 2 is not an axis"),
    (Slice((5,), (None,)), [(3,)], "leaves nothing"),
    (Multiply(signal=2), [(3,), (3,)], "signal must be None or 0 .. 1"),
]


@pytest.mark.parametrize(("layer", "shapes", "says"), MISFITS)
def test_shapes_that_dont_fit_are_refused(layer, shapes, says):
    with pytest.raises(LRPError, match=says):
        layer.output_shape(*shapes)


@given(case=linear_layers, seed=seeds)
def test_layers_equal_pytorch(case, seed):
    """Forward and transposed map of convolutions against PyTorch, where it is installed."""
    torch = pytest.importorskip("torch", reason="PyTorch is not installed")
    layer, shape = case
    if not isinstance(layer, (Conv1D, Conv2D)) or isinstance(layer.padding, str):
        return
    x = numbers(np.random.default_rng(seed), 2, *shape)
    pads = [n for pair in layer.padding[::-1] for n in pair]
    leaf = torch.tensor(x, requires_grad=True)
    function = getattr(torch.nn.functional, f"conv{layer.rank}d")
    bias = None if layer.bias is None else torch.tensor(layer.bias)
    y = function(
        torch.nn.functional.pad(leaf, pads),
        torch.tensor(layer.weight),
        bias,
        layer.stride,
        0,
        layer.dilation,
        layer.groups,
    )
    assert_allclose(layer.forward(x), y.detach().numpy(), rtol=1e-10, atol=1e-12)
    s = numbers(np.random.default_rng(seed + 1), *y.shape)
    y.backward(torch.tensor(s))
    assert_allclose(layer.adjoint(s, layer.weight, shape), leaf.grad.numpy(), rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("groups", [1, 2])
@pytest.mark.parametrize("more", [0, 1])
def test_transposed_convolution_equals_pytorch(groups, more):
    torch = pytest.importorskip("torch", reason="PyTorch is not installed")
    rng = np.random.default_rng(groups)
    w, b = rng.standard_normal((4, 3, 3, 2)), rng.standard_normal(3 * groups)
    x = rng.standard_normal((2, 4, 5, 4))
    layer = Conv2DTranspose(w, b, (2, 3), (1, 0), (1, 2), groups, (more, more))
    y = torch.nn.functional.conv_transpose2d(
        torch.tensor(x), torch.tensor(w), torch.tensor(b), (2, 3), (1, 0), (more, more), groups, (1, 2)
    )
    assert_allclose(layer.forward(x), y.numpy(), rtol=1e-10, atol=1e-12)


def test_parameters_are_constant():
    given = np.ones((2, 3))
    for layer in (Dense(given), Conv1D(given[:, :, None]), Dense(given.tolist())):
        with pytest.raises(ValueError, match="read-only"):
            layer.weight[0] = 5
        other = dataclasses.replace(layer, weight=2 * layer.weight)
        x = np.ones((1, *layer.weight.shape[1:]))
        assert_array_equal(other.forward(x), 2 * layer.forward(x))
    given[0] = 7  # one's own array stays one's own


def test_every_kind_of_layer_is_exported():
    assert set(L.__all__) == {
        *L.KINDS,
        *("KINDS", "kind_of", "Activation", "Diagonal", "Layer", "Linear", "Ruled", "Scaled"),
    }
