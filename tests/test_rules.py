"""Every rule on every linear layer against its slow twin on the explicit matrix."""

import numpy as np
import pytest
import twins
from hypothesis import assume, given
from hypothesis import strategies as st
from numpy.testing import assert_allclose
from strategies import linear_layers, sample, seeds

from numpylrp.errors import LRPError, ShapeError
from numpylrp.layers import Add, Average, Conv2D, Dense, Subtract
from numpylrp.layers.base import Linear
from numpylrp.rules import (
    LRP0,
    AlphaBeta,
    Epsilon,
    Flat,
    Gamma,
    Part,
    Pass,
    Rule,
    Share,
    WSquare,
    ZBox,
    ZPlus,
    same,
    stabilize,
)

RULES = {
    "lrp-0": (LRP0(), twins.epsilon, {}),
    "epsilon": (Epsilon(0.25), twins.epsilon, {"eps": 0.25}),
    "gamma": (Gamma(0.5), twins.gamma, {"g": 0.5}),
    "alpha2-beta1": (AlphaBeta(2.0, 1.0), twins.alpha_beta, {"alpha": 2, "beta": 1}),
    "alpha3-beta2": (AlphaBeta(3.0, 2.0), twins.alpha_beta, {"alpha": 3, "beta": 2}),
    "z+": (ZPlus(), twins.z_plus, {}),
    "w^2": (WSquare(), twins.w_square, {}),
}


def matrix_and_bias(layer, shape):
    W = layer.as_matrix(shape)
    b = layer.forward(np.zeros((1, *shape))).ravel()
    return W, b


def well_conditioned(z, scale):
    """No denominator that is 0 but for rounding: there the definition and any program part."""
    return not ((abs(z) < 1e-6 * (scale + 1e-300)) & (z != 0)).any()


def compare(ours, twin, R, rest):
    """1e-10 of the largest share that was handed out."""
    assert np.isfinite(ours).all()
    assert_allclose(ours, twin, rtol=1e-10, atol=1e-10 * max(1e-3, abs(twin).max()))


@pytest.mark.parametrize("name", RULES)
@given(case=linear_layers, seed=seeds, batch=st.integers(1, 3), positive=st.booleans())
def test_rule_equals_its_definition(name, case, seed, batch, positive):
    layer, shape = case
    rule, twin, options = RULES[name]
    x, y, R = sample(layer, shape, seed, batch, positive)
    W, b = matrix_and_bias(layer, shape)
    ours = layer.relprop(R, x, y, rule)
    assert ours.shape == x.shape and ours.dtype == x.dtype
    for n in range(batch):
        c = twins.contributions(x[n].ravel(), W)
        # rounding decides where a sum of terms cancels: not a case for comparing
        assume(well_conditioned(c.sum(0) + b, abs(c).sum(0) + abs(b)))
        if name == "lrp-0":
            exact_zero = (abs(c.sum(0) + b) == 0) == (y[n].ravel() == 0)
            assume(exact_zero.all())
        if name == "gamma":
            assume(((c.sum(0) + b >= 0) == (y[n].ravel() >= 0)).all())
        compare(ours[n].ravel(), twin(x[n].ravel(), W, b, R[n].ravel(), **options), R, c)


@given(case=linear_layers, seed=seeds)
def test_flat_equals_its_definition(case, seed):
    layer, shape = case
    x, y, R = sample(layer, shape, seed, 2)
    ones = np.ones_like(layer.parameters(shape)[0])
    connected = layer.as_matrix(shape, ones) != 0
    ours = layer.relprop(R, x, y, Flat())
    for n in range(2):
        compare(ours[n].ravel(), twins.flat(None, connected, None, R[n].ravel()), R, None)


@given(case=linear_layers, seed=seeds, bounds=st.sampled_from(["scalar", "channel", "array"]))
def test_z_box_equals_its_definition(case, seed, bounds):
    layer, shape = case
    x, y, R = sample(layer, shape, seed, 2)
    W, b = matrix_and_bias(layer, shape)
    rng = np.random.default_rng(seed)
    if bounds == "scalar":
        low, high = x.min() - 0.5, x.max() + 0.25
    elif bounds == "channel":
        axes = (0, *range(2, x.ndim))
        low, high = x.min(axes) - rng.random(shape[0]), x.max(axes) + rng.random(shape[0])
    else:
        low, high = x.min(0) - rng.random(shape), x.max(0) + rng.random(shape)
    full = []
    for bound in (low, high):
        bound = np.asarray(bound)
        if bound.ndim == 1 and len(shape) > 1:
            bound = bound.reshape(-1, *(1,) * (len(shape) - 1))
        full.append(np.broadcast_to(bound, shape).ravel())
    ours = layer.relprop(R, x, y, ZBox(low, high))
    for n in range(2):
        compare(ours[n].ravel(), twins.z_box(x[n].ravel(), W, b, R[n].ravel(), *full), R, None)


@given(seed=seeds, count=st.integers(2, 4), kind=st.sampled_from([Add, Average, Subtract]))
@pytest.mark.parametrize("name", RULES)
def test_merges_are_linear_layers(name, seed, count, kind):
    """A sum of branches is a linear layer with weight 1 (1 / K, or 1 and -1) for each branch."""
    count = 2 if kind is Subtract else count
    weights = {Add: np.ones(count), Average: np.full(count, 1 / count), Subtract: np.array([1.0, -1.0])}[kind]
    rng = np.random.default_rng(seed)
    x = tuple(rng.standard_normal((2, 3)) for _ in range(count))
    y = kind().forward(x)
    R = rng.standard_normal(y.shape)
    rule, twin, options = RULES[name]
    shares = kind().relprop(R, x, y, rule)
    for n in range(2):
        for i in range(3):
            values = np.array([branch[n, i] for branch in x])
            assume(abs(values @ weights) > 1e-6)
            expected = twin(values, weights[:, None], np.zeros(1), R[n, i : i + 1], **options)
            assert_allclose([s[n, i] for s in shares], expected, rtol=1e-10, atol=1e-12)


@given(case=linear_layers, seed=seeds)
def test_adjoint_is_the_transposed_map(case, seed):
    layer, shape = case
    x, _, R = sample(layer, shape, seed, 2)
    weight, _ = layer.parameters(shape)
    forward = layer.linear(x, weight, None)
    back = layer.adjoint(R, weight, shape)
    scale = np.sum(abs(forward * R)) + np.sum(abs(x * back)) + 1
    assert abs(np.sum(forward * R) - np.sum(x * back)) < 1e-12 * scale
    W = layer.as_matrix(shape)
    assert_allclose(back.reshape(2, -1), R.reshape(2, -1) @ W.T, rtol=1e-12, atol=1e-12)


@given(case=linear_layers, seed=seeds, batch=st.integers(1, 2))
def test_what_conserves_conserves(case, seed, batch):
    """w^2 and flat keep all relevance of outputs that have inputs, z+ that of outputs with a positive
    contribution, alpha-beta that of outputs with both signs, LRP-0 all of it where there is no bias."""
    layer, shape = case
    x, y, R = sample(layer, shape, seed, batch)
    W, b = matrix_and_bias(layer, shape)
    flat_R = R.reshape(batch, -1)

    def total(rule):
        return layer.relprop(R, x, y, rule).reshape(batch, -1).sum(1)

    def close(ours, kept):
        assert_allclose(ours, kept.sum(1), rtol=1e-10, atol=1e-10 * (1 + abs(kept).sum(1).max()))

    linked = (W != 0).any(0)
    close(total(WSquare()), flat_R * linked)
    c = x.reshape(batch, -1, 1) * W
    plus = (c * (c > 0)).sum(1)
    close(total(ZPlus(bias=False)), flat_R * (plus > 0))
    # alpha-beta keeps the sum of outputs with contributions of both signs, and scales the others
    minus = (c * (c < 0)).sum(1)
    close(total(AlphaBeta(2.0, 1.0, bias=False)), flat_R * (2.0 * (plus > 0) - 1.0 * (minus < 0)))
    if not b.any():
        z = c.sum(1)
        assume(well_conditioned(z, abs(c).sum(1)))
        assume(((z == 0) == (y.reshape(batch, -1) == 0)).all())
        kept = flat_R * (z != 0)
        # LRP-0 hands out shares far larger than R where z is nearly 0: rounding grows with them
        handed = (abs(c) / np.where(z == 0, 1, abs(z))[:, None] * abs(flat_R)[:, None]).sum()
        assert_allclose(total(LRP0()), kept.sum(1), rtol=0, atol=1e-12 * (1 + handed))


@given(case=linear_layers, seed=seeds, factor=st.sampled_from([-3.0, 0.5, 4.0]))
@pytest.mark.parametrize(
    "rule", [Epsilon(0.1), Gamma(0.25), AlphaBeta(), ZPlus(), WSquare(), Flat()], ids=str
)
def test_rules_are_linear_in_the_relevance(rule, case, seed, factor):
    layer, shape = case
    x, y, R = sample(layer, shape, seed, 2)
    other = np.random.default_rng(seed + 1).standard_normal(R.shape)
    both = layer.relprop(factor * R + other, x, y, rule)
    apart = factor * layer.relprop(R, x, y, rule) + layer.relprop(other, x, y, rule)
    scale = 1 + abs(layer.relprop(abs(R), x, y, rule)).max() + abs(apart).max()
    assert_allclose(both, apart, rtol=1e-10, atol=1e-11 * scale)


@given(case=linear_layers, seed=seeds)
@pytest.mark.parametrize("rule", [Epsilon(0.1), Gamma(0.25), AlphaBeta(), WSquare(), Flat()], ids=str)
def test_a_sample_does_not_depend_on_its_batch(rule, case, seed):
    layer, shape = case
    x, y, R = sample(layer, shape, seed, 3)
    x[1] = abs(x[1])  # a sample without negative inputs among others
    y = layer.forward(x)
    together = layer.relprop(R, x, y, rule)
    for n in range(3):
        alone = layer.relprop(R[n : n + 1], x[n : n + 1], y[n : n + 1], rule)
        assert_allclose(together[n], alone[0], rtol=1e-10, atol=1e-12 * (1 + abs(alone).max()))


def test_permuting_channels_permutes_relevance():
    rng = np.random.default_rng(0)
    w, b = rng.standard_normal((4, 3, 3, 3)), rng.standard_normal(4)
    x, order = rng.standard_normal((2, 3, 5, 6)), [2, 0, 1]
    layer, moved = Conv2D(w, b, padding=1), Conv2D(w[:, order], b, padding=1)
    R = rng.standard_normal((2, 4, 5, 6))
    for rule in (Epsilon(0.1), Gamma(), AlphaBeta(), ZPlus(), WSquare(), Flat(), ZBox(-5, 5)):
        a = layer.relprop(R, x, layer.forward(x), rule)
        c = moved.relprop(R, x[:, order], moved.forward(x[:, order]), rule)
        assert_allclose(a[:, order], c, rtol=1e-10, atol=1e-12)


def test_a_single_number_is_stabilized():
    assert stabilize(np.float64(-2.0), 0.5) == -2.5 and stabilize(np.array(-0.0), 0.5) == 0.5


def test_sums_of_one_sign_keep_it():
    """Also with many channels and inputs of both signs: no row gets a rounding error of its neighbours."""
    rng = np.random.default_rng(0)
    conv = Conv2D(rng.standard_normal((64, 64, 3, 3)), padding=1)
    x, R = rng.standard_normal((1, 64, 8, 8)), np.zeros((1, 64, 8, 8))
    R[0, 5, 4, 4] = 1
    c = {}
    conv.relprop(R, x, conv.forward(x), ZPlus(), lambda **arrays: c.update(arrays))
    for sent, w in ((c["c+"], conv.weight[5]), (-c["c+'"], -conv.weight[5])):
        assert sent.min() >= 0
        assert (sent[0][:, 3:6, 3:6] != 0).tolist() == (w > 0).tolist()


def test_the_bias_may_be_with_any_part():
    class Second(Rule):
        def shares(self, layer, R, x, y):
            up, down = np.maximum(x, 0), np.minimum(x, 0)
            yield Share(R, [Part(up, same), Part(down, same, layer.bias)])

    dense, x, R = Dense([[1.0, -2.0]], [3.0]), np.array([[1.0, -1.0]]), np.array([[12.0]])
    assert_allclose(dense.relprop(R, x, dense.forward(x), Second()), [[2.0, 4.0]])


def test_a_stabilizer_of_ones_own_may_leave_zeros():
    class NoSign(Epsilon):
        def stabilized(self, z):
            return z + self.epsilon * np.sign(z)

    dense, x = Dense([[1.0, 1.0]]), np.array([[1.0, -1.0]])
    assert dense.relprop(np.ones((1, 1)), x, np.zeros((1, 1)), NoSign(0.5)).tolist() == [[0, 0]]


def test_sign_of_zero_is_plus():
    assert stabilize(np.array([0.0, -0.0]), 0.5).tolist() == [0.5, 0.5]
    layer, x = Dense([[1.0, 1.0]]), np.array([[1.0, -1.0]])
    R = layer.relprop(np.array([[2.0]]), x, np.array([[0.0]]), Epsilon(0.5))
    assert R.tolist() == [[4.0, -4.0]]


def test_zero_over_zero_drops_the_relevance():
    layer, x = Dense([[1.0, 1.0]]), np.array([[0.0, 0.0]])
    for rule in (LRP0(), Gamma(), AlphaBeta(), ZPlus()):
        assert layer.relprop(np.array([[2.0]]), x, np.array([[0.0]]), rule).tolist() == [[0.0, 0.0]]


def test_generalised_gamma_is_plain_gamma_between_relus():
    rng = np.random.default_rng(1)
    w, x = rng.standard_normal((6, 5)), abs(rng.standard_normal((4, 5)))
    layer = Dense(w, rng.standard_normal(6))
    y = layer.forward(x)
    R = np.where(y > 0, y, 0)
    g, b = w + 0.5 * np.maximum(w, 0), layer.bias + 0.5 * np.maximum(layer.bias, 0)
    z = x @ g.T + b
    expected = x * ((R / z) @ g)
    assert_allclose(layer.relprop(R, x, y, Gamma(0.5)), expected, rtol=1e-12)


def test_relative_epsilon_is_that_of_each_sample():
    rng = np.random.default_rng(2)
    layer, x = Dense(rng.standard_normal((3, 4))), rng.standard_normal((2, 4)) * [[1.0], [100.0]]
    y, R = layer.forward(x), rng.standard_normal((2, 3))
    for n in range(2):
        eps = 0.25 * np.sqrt(np.mean(y[n] ** 2))
        expected = twins.epsilon(x[n], layer.weight.T, np.zeros(3), R[n], eps)
        assert_allclose(layer.relprop(R, x, y, Epsilon(0.25, relative=True))[n], expected, rtol=1e-12)


def test_pass_needs_one_shape():
    layer = Dense(np.ones((2, 3)))
    with pytest.raises(ShapeError, match=r"Pass can't send .*\(2,\).*\(3,\)"):
        layer.relprop(np.ones((1, 2)), np.ones((1, 3)), np.ones((1, 2)), Pass())
    square = Dense(np.ones((2, 2)))
    R = np.array([[1.0, 5.0]])
    assert square.relprop(R, R, R, Pass()).tolist() == [[1.0, 5.0]]


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: Epsilon(-1.0), "epsilon must be a number of at least 0, not -1.0"),
        (lambda: Epsilon(float("nan")), "epsilon"),
        (lambda: Gamma("x"), "gamma must be a number"),
        (lambda: AlphaBeta(2.0, 0.5), r"alpha - beta must be 1, not 2.0 - 0.5"),
        (lambda: ZBox(0.0, np.inf), "high has a value that is NaN or infinite"),
    ],
)
def test_bad_options_are_refused(make, says):
    with pytest.raises(LRPError, match=says):
        make()


def test_z_box_refuses_inputs_outside_its_bounds():
    layer, x = Dense(np.ones((1, 2))), np.array([[0.5, 1.5]])
    with pytest.raises(LRPError, match=r"reaches from 0.5 to 1.5, outside the bounds 0 .. 1"):
        layer.relprop(np.ones((1, 1)), x, layer.forward(x), ZBox(0, 1))
    with pytest.raises(LRPError, match="low 2 is above high 1"):
        layer.relprop(np.ones((1, 1)), x, layer.forward(x), ZBox([0, 2], 1))
    with pytest.raises(ShapeError, match=r"a bound of shape \(3,\)"):
        layer.relprop(np.ones((1, 1)), x, layer.forward(x), ZBox([0, 0, 0], 2))


def test_rules_have_short_names():
    assert str(Epsilon(1e-6)) == "Epsilon(1e-06)"
    assert str(AlphaBeta(2.0, 1.0, bias=False)) == "AlphaBeta(2, 1, bias=False)"
    assert str(ZPlus()) == "ZPlus()" and str(Flat()) == "Flat()" and str(ZBox(0, 1)) == "ZBox(0, 1)"
    assert str(ZBox(np.zeros(9), np.ones((2, 3)))) == "ZBox(<9>, <2x3>)"


def test_a_layer_of_ones_own_needs_no_channels():
    class Scaled(Linear):
        def parameters(self, shape):
            return np.array(2.0), np.array(1.0)

        def linear(self, x, weight, bias):
            return x * weight + (0 if bias is None else bias)

        def adjoint(self, s, weight, shape):
            return s * weight

    layer, x = Scaled(), np.array([[3.0, 0.5]])
    y = layer.forward(x)
    for rule in (Epsilon(0), ZPlus(), Gamma(1.0), AlphaBeta()):
        ours = layer.relprop(y, x, y, rule)
        assert_allclose(ours, 2 * x * (2 if rule == AlphaBeta() else 1), rtol=1e-10)
