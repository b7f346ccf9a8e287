"""The exact oracle on attention, recurrent layers and normalization: against the library, and by hand."""

from fractions import Fraction as F

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from strategies import seeds

from numpylrp import Composite, Network
from numpylrp import explain as explain_float
from numpylrp.errors import LRPError, UnsupportedError
from numpylrp.layers import (
    GELU,
    GRU,
    LSTM,
    Embedding,
    LayerNorm,
    MaskedSoftmax,
    MatMul,
    Multiply,
    NotEqual,
    Positions,
    RMSNorm,
    Rotary,
    Sigmoid,
    SiLU,
    SimpleRNN,
    Softmax,
    Tanh,
)
from numpylrp.nonlinear import (
    AbsBeta,
    Bilinear,
    Gated,
    MeanHeld,
    Proportional,
    SignalTakesAll,
    SoftmaxTaylor,
    Uniform,
)
from numpylrp.rules import LRP0, AlphaBeta, Epsilon, Gamma, Pass, ZPlus
from numpylrp.validate import exact
from numpylrp.validate.exact.sequences import Running, inverse_root, recorded, softmax

LINEAR = st.sampled_from([Epsilon(0.25), Gamma(0.25), ZPlus(), AlphaBeta(2.0, 1.0)])


def dyadic(rng, *shape):
    """Numbers without 0 that are multiples of 1/8."""
    return rng.integers(1, 9, shape) * rng.choice([-1, 1], shape) / 8


def agrees(network, x, rules, tolerance=1e-12):
    """The library and the oracle, from relevance of the output that is its seed."""
    rng = np.random.default_rng(0)
    R = dyadic(rng, *network.shapes[network.outputs[0]])
    want = exact.explain(network, x, R, rules)
    given = {name: np.asarray(value)[None] for name, value in x.items()}
    values, top = network.record(given), exact.forward(network, x)
    for name, value in top.items():
        assert exact.rounding_error(values[name][0], value) <= tolerance, name
    composite = Composite([(lambda n, node, k=k: node.name == k, rule) for k, rule in rules.items()])
    found = explain_float(network, given, seed=R[None], composite=composite).relevance
    found = found if isinstance(found, dict) else {"input": found}
    for name, value in want.relevance.items():
        assert exact.rounding_error(found[name][0], value) <= tolerance, name
    return want


@settings(max_examples=60)
@given(
    seed=seeds,
    kind=st.sampled_from([LSTM, GRU, SimpleRNN]),
    products=st.sampled_from([None, SignalTakesAll(), Uniform(), Proportional()]),
    rule=LINEAR,
    flags=st.tuples(*[st.booleans()] * 4),
)
def test_recurrent_layers(seed, kind, products, rule, flags):
    rng = np.random.default_rng(seed)
    options = dict(zip(("all_states", "reverse"), flags))
    if kind is GRU:
        options |= {"reset_after": flags[2], "recurrent_bias": dyadic(rng, 6)}
    options |= {f"initial_{name}": dyadic(rng, 2) for name in kind.states}
    reads = ("x", "mask") if flags[3] else ("x",)
    b = kind.blocks
    layer = kind(dyadic(rng, 2 * b, 2), dyadic(rng, 2 * b, 2), dyadic(rng, 2 * b), reads=reads, **options)
    x = {"input": dyadic(rng, 3, 2)} | ({"mask": np.array([1.0, 0.0, 1.0])} if flags[3] else {})
    network = Network([("r", layer, tuple(x))], {name: value.shape for name, value in x.items()})
    agrees(network, x, {"r": rule if products is None else Gated(products, rule)}, 1e-10)


@given(
    seed=seeds,
    rule=LINEAR,
    halves=st.booleans(),
    doubled=st.booleans(),
    turned=st.booleans(),
    w=st.booleans(),
)
def test_products(seed, rule, halves, doubled, turned, w):
    rng = np.random.default_rng(seed)
    layer = MatMul(turned, 0.5, int(w))
    x = {"a": dyadic(rng, 2, 2, 3), "b": dyadic(rng, 1, 2, 3) if turned else dyadic(rng, 1, 3, 2)}
    network = Network([("p", layer, ("a", "b"))], {name: value.shape for name, value in x.items()})
    agrees(network, x, {"p": Bilinear(0.25, doubled) if halves else rule}, 1e-10)


@given(seed=seeds, causal=st.booleans(), read=st.booleans(), taylor=st.booleans())
def test_softmax(seed, causal, read, taylor):
    rng = np.random.default_rng(seed)
    reads = ("x", "mask") if read else ("x",)
    layer = MaskedSoftmax(causal=causal, keep=np.array([[1.0, 0.0, 1.0]]), reads=reads)
    x = {"input": dyadic(rng, 2, 2, 3)} | ({"mask": np.array([1.0, 1.0, 0.0])} if read else {})
    shapes = {name: value.shape for name, value in x.items()}
    # not at the end, where a softmax is left out
    network = Network([("s", layer, tuple(x)), ("t", Tanh())], shapes)
    agrees(network, x, {"s": SoftmaxTaylor()} if taylor else {})
    network = Network([("s", Softmax(0)), ("t", Tanh())], (2, 3))
    agrees(network, {"input": dyadic(rng, 2, 3)}, {"s": SoftmaxTaylor()} if taylor else {})


@given(
    seed=seeds,
    kind=st.sampled_from([LayerNorm, RMSNorm]),
    rule=st.sampled_from([Epsilon(0.25), MeanHeld(0.25), AbsBeta(), Pass()]),
    axes=st.sampled_from([-1, 0, (0, 1)]),
)
def test_normalization(seed, kind, rule, axes):
    rng = np.random.default_rng(seed)
    shape = {-1: (4,), 0: (3,), (0, 1): (3, 4)}[axes]
    beta = (dyadic(rng, *shape),) if kind is LayerNorm else ()
    layer = kind(dyadic(rng, *shape), *beta, eps=0.125, axes=axes)
    agrees(Network([("n", layer)], (3, 4)), {"input": dyadic(rng, 3, 4)}, {"n": rule}, 1e-10)


@given(seed=seeds, rule=LINEAR, interleaved=st.booleans())
def test_tokens_and_positions(seed, rule, interleaved):
    rng = np.random.default_rng(seed)
    layers = [
        ("embed", Embedding(dyadic(rng, 5, 4)), "input"),
        ("positions", Positions(dyadic(rng, 4, 4))),
        ("rotary", Rotary(dyadic(rng, 4, 4), dyadic(rng, 4, 4), interleaved)),
        ("open", SiLU()),
        ("gate", Sigmoid(), "rotary"),
        ("both", Multiply(signal=0), ("open", "gate")),
        ("seen", NotEqual(2.0), "input"),
    ]
    network = Network(layers, (3,), "both")
    agrees(
        network, {"input": np.array([4, 0, 2])}, {"positions": rule, "rotary": rule, "both": Uniform()}, 1e-9
    )


def test_softmax_and_products_by_hand():
    """Logits 0 and 0 with relevance 3 and 1; a product of 1/2 and 4, 1/2 and 2."""
    network = Network([("s", Softmax(0)), ("t", Tanh())], (2,))
    result = exact.explain(network, [2, 2], [3, 1], {"s": SoftmaxTaylor()})
    assert result.relevance["input"].values == [2, -2]
    shapes = {"a": (1, 2), "v": (2, 1)}
    network = Network([("p", MatMul(), ("a", "v"))], shapes)
    x = {"a": [[F(1, 2), F(1, 2)]], "v": [[4], [2]]}
    result = exact.explain(network, x, [[6]], {"p": LRP0()})
    assert result.relevance["v"].values == [4, 2] and result.relevance["a"].values == [0, 0]
    result = exact.explain(network, x, [[6]], {"p": Bilinear(0.0)})
    assert result.relevance["v"].values == [2, 1] and result.relevance["a"].values == [2, 1]


def test_what_is_recorded_is_rounded_once():
    assert recorded("sigmoid", F(0)) == F(1, 2) and recorded("tanh", F(0)) == 0
    for z in (F(1, 3), F(-5), F(30), F(-40)):
        assert abs(float(recorded("tanh", z)) - np.tanh(float(z))) <= np.spacing(1.0)
        assert abs(float(recorded("sigmoid", z)) * (1 + np.exp(-float(z))) - 1) <= 4 * np.spacing(1.0)
    assert softmax([F(7), F(7)]) == [F(1, 2), F(1, 2)] and inverse_root(F(4)) == F(1, 2)
    with pytest.raises(UnsupportedError, match="does not know this kind"):
        exact.forward(Network([("g", GELU())], (1,)), [1])


def test_running_errors_bound_float32():
    """Random sums, products and quotients in float32, against the bound and exact numbers."""
    rng = np.random.default_rng(0)
    for _ in range(300):
        a, b, c, d = (float(np.float32(v)) for v in rng.uniform(0.5, 2, 4) * rng.choice([-1, 1], 4))

        # exact, running and in float32
        def made(a, b, c, d):
            return (a * b + c * d + a) / (d * d) * b - c

        e, r = made(*map(F, (a, b, c, d))), made(*map(Running, (a, b, c, d)))
        f = made(*map(np.float32, (a, b, c, d)))
        assert abs(float(F(float(f)) - e)) <= 2.0**-24 * r.error
    with pytest.raises(LRPError, match="too small for float32"):
        Running(1.0) / (Running(1.0, 1e8) - 1.0)
    with pytest.raises(LRPError, match="could decide a sign"):
        bool(Running(1.0) / 3 - Running(1.0) / 3)
