"""Recurrent layers: against PyTorch and Keras, loops from the definitions, and their unrolled network."""

import dataclasses
import os

import numpy as np
import pytest
import twins
from hypothesis import given, settings
from hypothesis import strategies as st
from networks import numeric_gradient
from numpy.testing import assert_allclose, assert_array_equal
from strategies import numbers, seeds
from test_audit import adds_up
from test_native import same

from numpylrp import Composite, Network, explain, load, plain, save
from numpylrp.auditing import audit
from numpylrp.errors import LRPError, ShapeError
from numpylrp.evaluate.gradients import gradient
from numpylrp.layers import (
    GRU,
    LSTM,
    Add,
    Affine,
    Concatenate,
    Dense,
    Flatten,
    Multiply,
    ReLU,
    Sigmoid,
    SimpleRNN,
    Slice,
    Tanh,
)
from numpylrp.nonlinear import Gated, Proportional, SignalTakesAll, Spread, Uniform
from numpylrp.rules import AlphaBeta, Epsilon, ZPlus

PRODUCTS = [SignalTakesAll(), Uniform(), Proportional(), Proportional(absolute=False)]


@st.composite
def recurrent(draw, kinds=(LSTM, GRU, SimpleRNN), masked=True):
    """A recurrent layer, its inputs and relevance of its output."""
    rng = np.random.default_rng(draw(seeds))
    kind = draw(st.sampled_from(kinds))
    d, h, length, n = (draw(st.integers(1, top)) for top in (3, 3, 4, 3))
    b = kind.blocks
    options = {"all_states": draw(st.booleans()), "reverse": draw(st.booleans())}
    if draw(st.booleans()):
        options["bias"] = numbers(rng, b * h)
    if kind is GRU:
        options["reset_after"] = draw(st.booleans())
        options["recurrent_bias"] = numbers(rng, 3 * h) if draw(st.booleans()) else None
    start = draw(st.sampled_from(["zero", "own", "read"]))
    if start == "own":
        options.update({f"initial_{name}": numbers(rng, h) for name in kind.states})
    reads = ("x", *["mask"] * (masked and draw(st.booleans())), *(kind.states if start == "read" else ()))
    layer = kind(numbers(rng, b * h, d), numbers(rng, b * h, h), reads=reads, **options)
    given = {"x": numbers(rng, n, length, d), "mask": (rng.random((n, length)) < 0.6) * 1.0}
    given |= {name: numbers(rng, n, h) for name in kind.states}
    x = tuple(given[name] for name in reads)
    x = x if layer.merges else x[0]
    return layer, x, numbers(rng, *layer.forward(x).shape)


# ---------------------------------------------------------------- forward


def torch_layer(torch, layer):
    kinds = {LSTM: torch.nn.LSTM, GRU: torch.nn.GRU, SimpleRNN: torch.nn.RNN}
    made = kinds[type(layer)](layer.weight.shape[1], layer.units, batch_first=True, dtype=torch.float64)
    zero = np.zeros(len(layer.weight))
    second = layer.recurrent_bias if isinstance(layer, GRU) else None
    values = (layer.weight, layer.recurrent, layer.bias, second)
    for name, value in zip(("weight_ih_l0", "weight_hh_l0", "bias_ih_l0", "bias_hh_l0"), values):
        getattr(made, name).data = torch.tensor(np.array(zero if value is None else value))
    return made


@settings(max_examples=60)
@given(case=recurrent(masked=False))
def test_forward_as_in_pytorch(case):
    torch = pytest.importorskip("torch")
    layer, x, _ = case
    if isinstance(layer, GRU) and not layer.reset_after:
        return
    given = layer._given(x)
    values = given["x"][:, ::-1] if layer.reverse else given["x"]
    states = tuple(torch.tensor(np.array(given[name]))[None] for name in layer.states)
    with torch.no_grad():
        y = torch_layer(torch, layer)(torch.tensor(values.copy()), states if len(states) > 1 else states[0])[
            0
        ]
    y = y.numpy()
    y = (y[:, ::-1] if layer.reverse else y) if layer.all_states else y[:, -1]
    assert_allclose(layer.forward(x), y, rtol=1e-12, atol=1e-13)


def in_order(w, order, axis=-1):
    """Blocks of an array, in another order."""
    blocks = np.split(w, len(order), axis)
    return np.concatenate([blocks[k] for k in order], axis)


@pytest.fixture
def keras():
    """Keras on PyTorch."""
    pytest.importorskip("torch")
    os.environ.setdefault("KERAS_BACKEND", "torch")
    return pytest.importorskip("keras")


@pytest.mark.parametrize("reset_after", [True, False])
@pytest.mark.parametrize("masked", [True, False])
@pytest.mark.filterwarnings("ignore")
def test_forward_as_in_keras(keras, reset_after, masked):
    rng = np.random.default_rng(0)
    x, mask = rng.standard_normal((2, 5, 3)), np.array([[1, 1, 0, 1, 0], [0, 1, 1, 1, 1]])
    for kind in ("GRU", "LSTM"):
        theirs = (
            keras.layers.GRU(4, return_sequences=True, reset_after=reset_after)
            if kind == "GRU"
            else keras.layers.LSTM(4, return_sequences=True)
        )
        theirs.build(x.shape)
        theirs.set_weights([rng.standard_normal(w.shape) for w in theirs.get_weights()])
        W, U, b = theirs.get_weights()
        reads = ("x", "mask") if masked else ("x",)
        if kind == "LSTM":  # i, f, c, o: as here
            ours = LSTM(W.T, U.T, b, reads=reads)
        else:
            order = (1, 0, 2)
            W, U, b = (in_order(w, order) for w in (W, U, b))
            b, c = b if reset_after else (b, None)
            ours = GRU(W.T, U.T, b, recurrent_bias=c, reset_after=reset_after, reads=reads)
        call = {"mask": keras.ops.convert_to_tensor(mask.astype(bool))} if masked else {}
        y = keras.ops.convert_to_numpy(theirs(x, **call))
        got = ours.forward((x, mask.astype(float)) if masked else x)
        assert_allclose(got, y, rtol=1e-5, atol=1e-6)  # on PyTorch, Keras multiplies matrices in float32


# ---------------------------------------------------------------- relevance by definition


def sig(v):
    return 1 / (1 + np.exp(-v))


def shared(products, R, gate, signal):
    """A product's relevance, of gate and signal."""
    if isinstance(products, SignalTakesAll):
        return 0 * R, R
    if isinstance(products, Uniform):
        return R / 2, R / 2
    a, b = (abs(gate), abs(signal)) if products.absolute else (gate, signal)
    s = np.array([r / t if t else 0.0 for r, t in zip(R, a + b)])
    return a * s, b * s


def summed(R, a, b, eps):
    z = a + b
    s = [r / (t + (eps if t >= 0 else -eps)) if t or eps else 0.0 for r, t in zip(R, z)]
    return a * s, b * s


def definition(layer, x, state, mask, R, products, eps):
    """Relevance of one sample's input and initial states, step by step."""
    H, D = layer.units, x.shape[1]
    gates = not isinstance(products, SignalTakesAll)
    W, U = layer.weight, layer.recurrent
    b = np.zeros(len(W)) if layer.bias is None else layer.bias
    both = np.concatenate([W, U], 1)
    order = range(len(x))[::-1] if layer.reverse else range(len(x))
    history = []
    for t in order:
        history.append((t, state))
        if not mask[t]:
            continue
        state = forward_step(layer, x[t], state, b)[0]
    R_state, R_x = [np.zeros(H) for _ in state], np.zeros_like(x)
    for place, (t, before) in reversed(list(enumerate(history))):
        if layer.all_states:
            R_state[0] = R_state[0] + R[t]
        elif place == len(history) - 1:
            R_state[0] = R_state[0] + R
        if not mask[t]:
            continue
        after, v = forward_step(layer, x[t], before, b)
        joined = np.concatenate([x[t], before[0]])
        if isinstance(layer, SimpleRNN):
            R_in = twins.epsilon(joined, both.T, b, R_state[0], eps)
            R_x[t], R_state = R_in[:D], [R_in[D:]]
        elif isinstance(layer, LSTM):
            c = before[1]
            R_o, R_c = shared(products, R_state[0], v["o"], np.tanh(after[1]))
            R_c = R_c + R_state[1]
            R_old, R_new = summed(R_c, v["f"] * c, v["i"] * v["g"], eps)
            R_f, R_before = shared(products, R_old, v["f"], c)
            R_i, R_g = shared(products, R_new, v["i"], v["g"])
            if gates:
                R_in = twins.epsilon(joined, both.T, b, np.concatenate([R_i, R_f, R_g, R_o]), eps)
            else:
                rows = slice(2 * H, 3 * H)
                R_in = twins.epsilon(joined, both[rows].T, b[rows], R_g, eps)
            R_x[t], R_state = R_in[:D], [R_in[D:], R_before]
        else:
            R_x[t], R_state = gru_step(layer, x[t], before[0], v, R_state[0], products, eps, b)
    return R_x, R_state


def forward_step(layer, x, state, b):
    H = layer.units
    if isinstance(layer, SimpleRNN):
        return [np.tanh(layer.weight @ x + layer.recurrent @ state[0] + b)], {}
    if isinstance(layer, LSTM):
        z = layer.weight @ x + layer.recurrent @ state[0] + b
        v = {n: (np.tanh if n == "g" else sig)(z[k * H : (k + 1) * H]) for k, n in enumerate("ifgo")}
        c = v["f"] * state[1] + v["i"] * v["g"]
        return [v["o"] * np.tanh(c), c], v
    (h,) = state
    c = np.zeros(3 * H) if layer.recurrent_bias is None else layer.recurrent_bias
    W, U = (np.split(w, 3) for w in (layer.weight, layer.recurrent))
    (b_r, b_z, b_n), (c_r, c_z, c_n) = np.split(b, 3), np.split(c, 3)
    r, z = sig(W[0] @ x + b_r + U[0] @ h + c_r), sig(W[1] @ x + b_z + U[1] @ h + c_z)
    inner = r * (U[2] @ h + c_n) if layer.reset_after else U[2] @ (r * h) + c_n
    n = np.tanh(W[2] @ x + b_n + inner)
    return [(1 - z) * n + z * h], {"r": r, "z": z, "n": n}


def gru_step(layer, x, h, v, R, products, eps, b):
    H, D = layer.units, len(x)
    r, z, n = v["r"], v["z"], v["n"]
    c = np.zeros(3 * H) if layer.recurrent_bias is None else layer.recurrent_bias
    W_n, U_n, b_n, c_n = layer.weight[2 * H :], layer.recurrent[2 * H :], b[2 * H :], c[2 * H :]
    R_new, R_old = summed(R, (1 - z) * n, z * h, eps)
    R_z, R_n = shared(products, R_new, 1 - z, n)
    more, R_h = shared(products, R_old, z, h)
    gates = not isinstance(products, SignalTakesAll)
    if not layer.reset_after:
        M = np.concatenate([W_n, U_n], 1).T
        R_in = twins.epsilon(np.concatenate([x, r * h]), M, b_n + c_n, R_n, eps)
        R_r, part = shared(products, R_in[D:], r, h)
        R_x = R_in[:D]
    elif gates:
        a, old = W_n @ x + b_n, U_n @ h + c_n
        R_a, R_b = summed(R_n, a, r * old, eps)
        R_r, R_b = shared(products, R_b, r, old)
        R_x = twins.epsilon(x, W_n.T, b_n, R_a, eps)
        part = twins.epsilon(h, U_n.T, c_n, R_b, eps)
    else:
        M = np.concatenate([W_n, r[:, None] * U_n], 1).T
        R_in = twins.epsilon(np.concatenate([x, h]), M, b_n + r * c_n, R_n, eps)
        R_x, part = R_in[:D], R_in[D:]
    R_h = R_h + part
    if gates:
        M = np.concatenate([layer.weight, layer.recurrent], 1)[: 2 * H].T
        R_in = twins.epsilon(
            np.concatenate([x, h]), M, (b + c)[: 2 * H], np.concatenate([R_r, R_z + more]), eps
        )
        R_x, R_h = R_x + R_in[:D], R_h + R_in[D:]
    return R_x, [R_h]


@settings(max_examples=150)
@given(case=recurrent(), products=st.sampled_from(PRODUCTS), eps=st.sampled_from([0.01, 0.3]))
def test_relevance_by_definition(case, products, eps):
    layer, x, R = case
    found, trace = layer.unrolled(R, x, Gated(products, Epsilon(eps)))
    given = layer._given(x)
    mask = given.get("mask", np.ones(given["x"].shape[:2]))
    b = np.zeros(len(layer.weight)) if layer.bias is None else layer.bias
    for n in range(len(R)):
        state = [given[name][n] for name in layer.states]
        end = state
        for t in layer._order(len(mask[n])):
            end = forward_step(layer, given["x"][n, t], end, b)[0] if mask[n, t] else end
        if not layer.all_states:
            assert_allclose(layer.forward(x)[n], end[0], rtol=1e-12, atol=1e-14)
        R_x, R_state = definition(layer, given["x"][n], state, mask[n], R[n], products, eps)
        scale = 1 + abs(R_x).max() + max(abs(part).max() for part in R_state)
        assert_allclose(found["x"][n], R_x, rtol=1e-9, atol=1e-11 * scale)
        for name, part in zip(layer.states, R_state):
            assert_allclose(found[name][n], part, rtol=1e-9, atol=1e-11 * scale)
    assert (found["x"][mask == 0] == 0).all()  # a step that is skipped, exactly
    assert trace["h"].shape == trace["R_h"].shape == (*mask.shape, layer.units)
    if products == SignalTakesAll():  # as a rule of linear layers alone has it
        again, _ = layer.unrolled(R, x, Epsilon(eps))
        assert_array_equal(again["x"], found["x"])


# ---------------------------------------------------------------- the network of dense layers


def network_of(layer, length, signal):
    """The layer as dense layers, slices, products and sums, one step after the other."""
    H, D = layer.units, layer.weight.shape[1]
    zero = np.zeros(H)
    own = [getattr(layer, f"initial_{name}") for name in layer.states]
    layers, state = [], []
    for name, value in zip(layer.states, own):  # constants, from nothing of the input
        begin = Dense(np.zeros((H, length * D)), zero if value is None else value)
        layers += [(f"flat_{name}", Flatten(), "input"), (f"first_{name}", begin, f"flat_{name}")]
        state.append(f"first_{name}")
    rows = {k: slice(n * H, (n + 1) * H) for n, k in enumerate("ifgo" if layer.blocks == 4 else "rzn")}
    bias = np.zeros(len(layer.weight)) if layer.bias is None else layer.bias
    more = getattr(layer, "recurrent_bias", None)
    bias = bias if more is None else bias + more
    both = np.concatenate([layer.weight, layer.recurrent], 1)

    def add(name, what, *reads):
        layers.append((name, what, reads if len(reads) > 1 else reads[0]))
        return name

    order = range(length)[::-1] if layer.reverse else range(length)
    for t in order:
        x = add(f"x_{t}", Slice((t, 0), (t + 1, None)), "input")
        x = add(f"flat_{t}", Flatten(), x)
        joined = add(f"both_{t}", Concatenate(), x, state[0])

        def dense(k, what, reads=joined, t=t):
            z = add(f"z{k}_{t}", Dense(both[rows[k]], bias[rows[k]]), reads)
            return add(f"{k}_{t}", what, z)

        if isinstance(layer, SimpleRNN):
            z = add(f"z_{t}", Dense(both, bias), joined)
            state = [add(f"h_{t}", Tanh(), z)]
        elif isinstance(layer, LSTM):
            i, f, g, o = (dense(k, Tanh() if k == "g" else Sigmoid()) for k in "ifgo")
            old = add(f"old_{t}", Multiply(signal), f, state[1])
            c = add(f"c_{t}", Add(), old, add(f"new_{t}", Multiply(signal), i, g))
            state = [add(f"h_{t}", Multiply(signal), o, add(f"tanh_{t}", Tanh(), c)), c]
        else:
            r, z = dense("r", Sigmoid()), dense("z", Sigmoid())
            held = add(f"held_{t}", Multiply(signal), r, state[0])
            n = dense("n", Tanh(), add(f"again_{t}", Concatenate(), x, held))
            rest = add(f"rest_{t}", Affine(-1.0, 1.0), z)
            new = add(f"new_{t}", Multiply(signal), rest, n)
            state = [add(f"h_{t}", Add(), new, add(f"old_{t}", Multiply(signal), z, state[0]))]
    return Network(layers, (length, D), state[0])


@settings(max_examples=40, deadline=None)
@given(
    case=recurrent(masked=False),
    rule=st.sampled_from([Epsilon(0.01), ZPlus(), AlphaBeta(2.0, 1.0)]),
    uniform=st.booleans(),
)
def test_the_unrolled_network_gives_the_same_numbers(case, rule, uniform):
    layer, x, _ = case
    if layer.merges or (isinstance(layer, GRU) and layer.reset_after):
        return  # initial states that are read have no place here
    if uniform and isinstance(layer, GRU):
        return  # 1 - z, as a layer of its own, absorbs a part of its relevance
    layer = dataclasses.replace(layer, all_states=False)
    network = network_of(layer, x.shape[1], None if uniform else 1)
    assert_allclose(network.forward(x), layer.forward(x), rtol=1e-12, atol=1e-14)
    R = network.forward(x)
    theirs = explain(network, x, seed=R, composite=rule, fast=False).relevance
    ours = layer.relprop(R, x, R, Gated(Uniform(), rule) if uniform else rule)
    assert_allclose(ours, theirs, rtol=1e-9, atol=1e-11 * (1 + abs(theirs).max()))


# ---------------------------------------------------------------- sums


@given(case=recurrent(), products=st.sampled_from(PRODUCTS), seed=seeds)
def test_the_audit_accounts_for_all(case, products, seed):
    layer, x, R = case
    inputs = dict(zip(layer.reads, x if layer.merges else (x,)))
    if not layer.merges:
        inputs = {"input": x}
    network = Network(
        [("layer", layer, tuple(inputs))], {name: value.shape[1:] for name, value in inputs.items()}
    )
    rule = Gated(products, Epsilon(0.1))
    account = audit(network, inputs, seed=R, composite=Composite([("recurrent", rule)]))
    row = account.rows["layer"]
    noise = 1e-12 * (row.absolute_sent + row.absolute_received + sum(map(abs, row.taken.values())) + 1)
    assert (abs(row.rounding) <= 50 * noise).all()
    if products != Proportional(absolute=False):  # which drops what stands on a sum of 0
        assert (
            not row.sinks["rule"].any() or abs(row.sinks["rule"]).max() <= 1e-9 * row.absolute_received.max()
        )


def test_the_audit_says_what_initial_states_get():
    rng = np.random.default_rng(0)
    w = numbers(rng, 4, 1), numbers(rng, 4, 1)
    layer = LSTM(*w, initial_h=[1.0], initial_c=[2.0], all_states=False)
    x = rng.standard_normal((2, 3, 1))
    account = audit(Network([("lstm", layer)], (3, 1)), x, composite="lstm")
    found, _ = layer.unrolled(account.explanation.seed, x, Epsilon(1e-3))
    assert_allclose(account.rows["lstm"].sinks["state"], (found["h"] + found["c"])[:, 0], rtol=1e-12)
    assert any("initial states get" in text for text in account.causes())
    adds_up(account)
    step = explain(Network([("lstm", layer)], (3, 1)), x, composite="lstm", trace=True)["lstm"]
    assert_allclose(step["R_c_0"], found["c"], rtol=1e-12)
    assert step["R_f"].shape == step["c"].shape == (2, 3, 1)


@given(case=recurrent(kinds=(LSTM, GRU)))
def test_spread_over_the_inputs_relevance_sums_to_the_score(case):
    layer, x, R = case
    found, _ = layer.unrolled(R, x, Spread(0.1))
    total = sum(part.reshape(len(R), -1).sum(1) for part in found.values())
    scale = 1 + max(abs(part).max() for part in found.values())
    assert_allclose(total, R.reshape(len(R), -1).sum(1), rtol=1e-10, atol=1e-11 * scale)


def test_spread_by_the_loops_of_the_authors():
    """Each input of a unit's sum gets (b + eps sign) / n of it more."""
    rng = np.random.default_rng(1)
    x, W, b, R = (rng.standard_normal(s) for s in ((2, 3), (4, 3), 4, (2, 4)))
    layer = Dense(W, b)
    ours = layer.relprop(R, x, layer.forward(x), Spread(0.2))
    for n in range(2):
        z = W @ x[n] + b
        for i in range(3):
            total = 0.0
            for j in range(4):
                sign = 1 if z[j] >= 0 else -1
                total += (x[n, i] * W[j, i] + (b[j] + 0.2 * sign) / 3) / (z[j] + 0.2 * sign) * R[n, j]
            assert_allclose(ours[n, i], total, rtol=1e-11)


# ---------------------------------------------------------------- invariances


@given(case=recurrent(), seed=seeds)
def test_order_of_samples_and_padding_change_nothing(case, seed):
    layer, x, R = case
    arrays = x if layer.merges else (x,)
    rule = Epsilon(0.1)
    found, _ = layer.unrolled(R, x, rule)
    order = np.random.default_rng(seed).permutation(len(R))
    mixed = tuple(a[order] for a in arrays)
    again, _ = layer.unrolled(R[order], mixed if layer.merges else mixed[0], rule)
    for name, value in found.items():
        assert_array_equal(value[order], again[name])
    # two more steps that are skipped, with any values, at either end
    given = dict(zip(layer.reads, arrays))
    mask = given.get("mask", np.ones(given["x"].shape[:2]))
    longer = dataclasses.replace(layer, reads=("x", "mask", *[n for n in layer.reads if n in layer.states]))
    pad = lambda a, v: np.concatenate([np.full_like(a[:, :1], v), a, np.full_like(a[:, :1], v)], 1)  # noqa: E731
    given.update(x=pad(given["x"], 7.0), mask=pad(mask, 0.0))
    x_long = tuple(given[name] for name in longer.reads)
    R_long = pad(R, 0.0) if layer.all_states else R
    padded, _ = longer.unrolled(R_long, x_long, rule)
    assert_allclose(padded["x"][:, 1:-1], found["x"], rtol=1e-10, atol=1e-12 * (1 + abs(found["x"]).max()))
    assert not padded["x"][:, [0, -1]].any()


@settings(max_examples=30)
@given(case=recurrent())
def test_gradients(case):
    layer, x, R = case
    arrays = dict(zip(layer.reads, x if layer.merges else (x,)))
    if layer.merges and "mask" in arrays:
        return  # a mask has no gradient by differences
    names = {"x": "input"} if not layer.merges else {}
    shapes = {names.get(k, k): v.shape[1:] for k, v in arrays.items()}
    size = int(np.prod(R.shape[1:]))
    net = Network(
        [("r", layer, tuple(shapes)), ("flat", Flatten()), ("out", Dense(np.arange(1.0, size + 1)[None]))],
        shapes,
    )
    if layer.merges:
        got = gradient(net, arrays, 0)["x"]
        loss = lambda v: net.forward({**arrays, "x": v})[:, 0]  # noqa: E731
        wanted = np.zeros_like(arrays["x"])
        for n in np.ndindex(*arrays["x"].shape[1:]):
            up, down = arrays["x"].copy(), arrays["x"].copy()
            up[(slice(None), *n)] += 1e-6
            down[(slice(None), *n)] -= 1e-6
            wanted[(slice(None), *n)] = (loss(up) - loss(down)) / 2e-6
    else:
        got, wanted = gradient(net, x, 0), numeric_gradient(net, x, 0)
    assert_allclose(got, wanted, rtol=1e-5, atol=1e-6 * (1 + abs(wanted).max()))


# ---------------------------------------------------------------- files, presets, errors


@settings(max_examples=20)
@given(case=recurrent())
def test_round_trip(case, tmp_path_factory):
    layer, x, _ = case
    arrays = dict(zip(layer.reads, x if layer.merges else (x,)))
    network = Network([("layer", layer, tuple(arrays))], {k: v.shape[1:] for k, v in arrays.items()})
    path = tmp_path_factory.mktemp("net") / "net.h5"
    save(network, path)
    same(network, load(path, dtype=None))


def test_every_preset_explains_a_recurrent_network():
    from numpylrp.composite import PRESETS

    rng = np.random.default_rng(0)
    net = Network(
        [
            ("lstm", LSTM(numbers(rng, 12, 2), numbers(rng, 12, 3), numbers(rng, 12))),
            ("gru", GRU(numbers(rng, 6, 3), numbers(rng, 6, 2), all_states=False)),
            ("relu", ReLU()),
            ("fc", Dense(numbers(rng, 2, 2))),
        ],
        (4, 2),
    )
    x = rng.uniform(0, 1, (2, 4, 2))
    for name in PRESETS:
        if "box" in name or name in ("lrp-overview", "deep-taylor"):
            continue
        explanation = explain(net, x, composite=name)
        assert np.isfinite(explanation.relevance).all() and explanation.steps["lstm"].rule != ""
        with plain():
            again = explain(net, x, composite=name).relevance
        assert_allclose(explanation.relevance, again, rtol=1e-9, atol=1e-12)


def test_bad_layers_are_named():
    w, u = np.ones((4, 2)), np.ones((4, 1))
    with pytest.raises(ShapeError, match=r"LSTM: weight must be \(4 H, D\)"):
        LSTM(np.ones((3, 2)), u)
    with pytest.raises(ShapeError, match="LSTM: initial_c must have 1 values, not 2"):
        LSTM(w, u, initial_c=[1.0, 2.0])
    with pytest.raises(LRPError, match="reads must be 'x' and then any of"):
        LSTM(w, u, reads=("mask",))
    with pytest.raises(LRPError, match=r"gate must be one of tanh, .*not 'softsign'"):
        LSTM(w, u, gate="softsign")
    with pytest.raises(ShapeError, match=r"takes samples \(T, 2\), but the input has shape \(3, 5\)"):
        LSTM(w, u).forward(np.ones((1, 3, 5)))
    with pytest.raises(ShapeError, match=r"mask must have shape \(3,\), not \(4,\)"):
        LSTM(w, u, reads=("x", "mask")).forward((np.ones((1, 3, 2)), np.ones((1, 4))))
    with pytest.raises(LRPError, match="Gated: products must be a Product rule"):
        Gated(Epsilon())
    with pytest.raises(LRPError, match="a rule for some kinds of layers"):
        Composite(default=Gated())
    with pytest.raises(LRPError, match="which of the 2 factors is the signal"):
        Multiply().relprop(np.ones((1, 1)), (np.ones((1, 1)),) * 2, np.ones((1, 1)), SignalTakesAll())
