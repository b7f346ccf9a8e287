"""Attention and what it is made of: against PyTorch, loops from the definitions, and closed forms."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from networks import numeric_gradient
from numpy.testing import assert_allclose, assert_array_equal
from strategies import numbers, seeds
from test_audit import adds_up
from test_native import same

from numpylrp import Composite, Network, explain, load, save
from numpylrp.auditing import audit
from numpylrp.blocks import GATES, attention, gated_unit
from numpylrp.errors import LRPError, ShapeError, UnsupportedError
from numpylrp.evaluate.gradients import gradient
from numpylrp.layers import (
    LSTM,
    Add,
    Dense,
    Embedding,
    Flatten,
    GlobalAveragePool,
    LayerNorm,
    LogSoftmax,
    MaskedSoftmax,
    MatMul,
    Multiply,
    NotEqual,
    Positions,
    RMSNorm,
    Rotary,
    Softmax,
    Transpose,
)
from numpylrp.layers.attention import sinusoidal
from numpylrp.nonlinear import AbsBeta, Bilinear, MeanHeld, RatioOfSums, SoftmaxTaylor, Uniform
from numpylrp.rules import LRP0, AlphaBeta, Epsilon, ZPlus


def over(a, b):
    return a / b if b else 0.0


def stab(z, eps):
    return z + (eps if z >= 0 else -eps)


@st.composite
def products(draw):
    """A matrix product and its inputs, with and without leading axes, some of size 1."""
    rng = np.random.default_rng(draw(seeds))
    i, k, j, n = (draw(st.integers(1, 3)) for _ in range(4))
    lead, other = draw(st.sampled_from([((), ()), ((2,), (2,)), ((2,), (1,)), ((1, 2), (3, 1))]))
    layer = MatMul(draw(st.booleans()), draw(st.sampled_from([1.0, 0.5])), draw(st.sampled_from([0, 1])))
    a = numbers(rng, n, *lead, i, k)
    b = numbers(rng, n, *other, j, k) if layer.transposed else numbers(rng, n, *other, k, j)
    return layer, (a, b), numbers(rng, *layer.forward((a, b)).shape)


def by_loops(layer, x, R, eps, doubled, which):
    """Relevance of both factors of a product: by halves, or all to one (`which`)."""
    a, b = x
    full_a = np.broadcast_to(a, (*R.shape[:-2], *a.shape[-2:])).copy()
    full_b = np.broadcast_to(b, (*R.shape[:-2], *b.shape[-2:])).copy()
    R_a, R_b = np.zeros_like(full_a), np.zeros_like(full_b)
    for at in np.ndindex(*R.shape):
        *lead, i, j = at
        lead = tuple(lead)
        terms = []
        for k in range(a.shape[-1]):
            place = (*lead, j, k) if layer.transposed else (*lead, k, j)
            terms.append((k, place, full_a[(*lead, i, k)] * full_b[place]))
        z = sum(t for *_, t in terms)
        for k, place, t in terms:
            if which is None:
                part = over(t, stab(2 * z, eps)) if doubled else over(t, stab(z, eps)) / 2
                R_a[(*lead, i, k)] += part * R[at]
                R_b[place] += part * R[at]
            elif which == 0:
                R_a[(*lead, i, k)] += over(t, stab(z, eps)) * R[at]
            else:
                R_b[place] += over(t, stab(z, eps)) * R[at]

    def back(v, shape):
        axes = tuple(n for n, (p, q) in enumerate(zip(v.shape, shape)) if q == 1 and p != 1)
        return v.sum(axes, keepdims=True)

    return back(R_a, a.shape), back(R_b, b.shape)


@given(case=products(), eps=st.sampled_from([0.01, 0.3]), doubled=st.booleans())
def test_products_by_definition(case, eps, doubled):
    layer, x, R = case
    b = x[1].swapaxes(-1, -2) if layer.transposed else x[1]
    y = layer.forward(x)
    assert_allclose(y, layer.scale * np.einsum("...ik,...kj->...ij", x[0], b), rtol=1e-12, atol=1e-14)
    for rule, which in ((Bilinear(eps, doubled), None), (Epsilon(eps), 1 - layer.weights)):
        ours, theirs = layer.relprop(R, x, y, rule), by_loops(layer, x, R, eps, doubled, which)
        for got, want in zip(ours, theirs):
            assert_allclose(got, want, rtol=1e-9, atol=1e-11 * (1 + abs(want).max()))


@given(case=products(), rule=st.sampled_from([ZPlus(), AlphaBeta(2.0, 1.0), Bilinear(0.1), Epsilon(0.2)]))
def test_products_add_up(case, rule):
    layer, x, R = case
    net = Network([("p", layer, ("a", "b"))], {"a": x[0].shape[1:], "b": x[1].shape[1:]})
    account = audit(net, dict(zip("ab", x)), seed=R, composite=Composite([("MatMul", rule)]))
    adds_up(account)


def test_shares_depend_on_brackets():
    """y = x1 x2 x3 at (2, 3, 4), the example of arXiv 2510.18810."""
    x = {name: np.full((1, 1, 1), v) for name, v in zip("abc", (2.0, 3.0, 4.0))}
    shapes = dict.fromkeys("abc", (1, 1))
    left = Network([("ab", MatMul(), ("a", "b")), ("y", MatMul(), ("ab", "c"))], shapes)
    right = Network([("bc", MatMul(), ("b", "c")), ("y", MatMul(), ("a", "bc"))], shapes)
    for net, want in ((left, (6, 6, 12)), (right, (12, 6, 6))):
        R = explain(net, x, seed="all", composite="attnlrp", epsilon=0.0).relevance
        assert_allclose([R[name].item() for name in "abc"], want, rtol=1e-14)
    causes = audit(left, x, seed="all", composite="attnlrp", epsilon=0.0).causes()
    assert any("how it is bracketed" in text for text in causes)


# ---------------------------------------------------------------- softmax


@given(seed=seeds, rows=st.integers(1, 3), count=st.integers(1, 4))
def test_softmax_by_definition(seed, rows, count):
    rng = np.random.default_rng(seed)
    x, R = numbers(rng, 2, rows, count), numbers(rng, 2, rows, count)
    hidden = rng.random(x.shape) < 0.2
    layer = Softmax(-1)
    hidden &= ~hidden.all(-1, keepdims=True)
    x = np.where(hidden, -np.inf, x)
    ours = layer.relprop(R, x, layer.forward(x), SoftmaxTaylor())
    for n, t in np.ndindex(2, rows):
        e = [np.exp(v) for v in x[n, t]]
        s = [v / sum(e) for v in e]
        for i in range(count):
            want = 0.0 if hidden[n, t, i] else x[n, t, i] * (R[n, t, i] - s[i] * sum(R[n, t]))
            assert_allclose(ours[n, t, i], want, rtol=1e-10, atol=1e-13)
    assert_array_equal(layer.relprop(R, x, None), R)


@given(
    seed=seeds, causal=st.booleans(), read=st.sampled_from([None, (3,), (2, 3), (1, 3)]), own=st.booleans()
)
def test_masks(seed, causal, read, own):
    rng = np.random.default_rng(seed)
    x, R = numbers(rng, 2, 4, 2, 3), numbers(rng, 2, 4, 2, 3)
    keep = (rng.random((2, 3)) < 0.7) * 1.0 if own else None
    layer = MaskedSoftmax(causal=causal, keep=keep, reads=("x", "mask") if read else ("x",))
    mask = (rng.random((2, *read)) < 0.7) * 1.0 if read else None
    given = (x, mask) if read else x
    y = layer.forward(given)
    sent = layer.relprop(R, given, y, SoftmaxTaylor())
    sent = sent[0] if read else sent
    for n, h, t in np.ndindex(2, 4, 2):
        seen = []
        for s in range(3):
            ok = not causal or s <= t + 1  # three columns for two rows: the last row sees the last
            ok = ok and (keep is None or keep[t, s] != 0)
            if read:
                ok = ok and (mask[n, s] if len(read) == 1 else mask[n, min(t, read[0] - 1), s]) != 0
            if ok:
                seen.append(s)
        e = {s: np.exp(x[n, h, t, s]) for s in seen}
        for s in range(3):
            want = e[s] / sum(e.values()) if s in e else 0.0
            assert_allclose(y[n, h, t, s], want, rtol=1e-12)
            total = sum(R[n, h, t, k] for k in seen)
            want = x[n, h, t, s] * (R[n, h, t, s] - want * total) if s in e else 0.0
            assert_allclose(sent[n, h, t, s], want, rtol=1e-9, atol=1e-12)


def test_the_audit_says_that_softmax_does_not_conserve():
    net = Network([("softmax", Softmax(-1)), ("out", Dense([[1.0, -2.0, 0.5]]))], (3,))
    account = audit(net, [[1.0, 2.0, 5.0]], composite="attnlrp")
    adds_up(account)
    assert any("softmax: the softmax rule does not conserve" in text for text in account.causes())
    held = Composite([("Softmax", Epsilon())]).rules(net)  # a rule of linear layers is not for it
    assert list(held) == ["out"]
    assert list(Composite([("*", SoftmaxTaylor())]).rules(Network([("s", LogSoftmax())], (3,)))) == []


# ---------------------------------------------------------------- attention


@st.composite
def attentions(draw):
    """Parameters of attention of some heads, self or cross, grouped or not, with masks."""
    rng = np.random.default_rng(draw(seeds))
    heads, groups = draw(st.sampled_from([(1, 1), (2, 2), (2, 1), (4, 2)]))
    d, width, out, t = 2, draw(st.integers(1, 3)), draw(st.integers(1, 3)), draw(st.integers(1, 4))
    cross = draw(st.booleans())
    s = draw(st.integers(1, 4)) if cross else t
    shapes = {"query": heads * d, "key": groups * d, "value": groups * d}
    given = {name: numbers(rng, rows, width) for name, rows in shapes.items()}
    if draw(st.booleans()):
        given |= {f"{name}_bias": numbers(rng, rows) for name, rows in shapes.items()}
    given |= {"out": numbers(rng, out, heads * d), "out_bias": numbers(rng, out)}
    options = {"heads": heads, "groups": groups, "causal": draw(st.booleans()) and s >= t}
    x = {"x": numbers(rng, 2, t, width), "source": numbers(rng, 2, s, width)}
    mask = (rng.random((2, s)) < 0.7) * 1.0
    mask[:, 0] = 1
    masked = draw(st.booleans())
    if not cross:
        del x["source"]
    source = "source" if cross else "x"
    layers = attention("at", "x", source, source, given, mask="mask" if masked else None, **options)
    x |= {"mask": mask} if masked else {}
    return Network(layers, {name: value.shape[1:] for name, value in x.items()}), x, given, options


@given(case=attentions())
def test_forward_by_loops(case):
    net, x, given, options = case
    heads, groups = options["heads"], options["groups"]
    queries, source = x["x"], x.get("source", x["x"])
    y = net.forward(x if len(x) > 1 else x["x"])
    for n in range(2):

        def made(name, of, n=n):
            return of[n] @ given[name].T + given.get(f"{name}_bias", 0)

        q, k, v = made("query", queries), made("key", source), made("value", source)
        T, S = len(q), len(k)
        joined = np.zeros((T, heads * 2))
        for h in range(heads):
            g = h // (heads // groups)
            for t in range(T):
                scores = {}
                for s in range(S):
                    if options["causal"] and s > t + S - T:
                        continue
                    if "mask" in x and not x["mask"][n, s]:
                        continue
                    scores[s] = q[t, 2 * h : 2 * h + 2] @ k[s, 2 * g : 2 * g + 2] / np.sqrt(2)
                total = sum(np.exp(v) for v in scores.values())
                for s, value in scores.items():
                    joined[t, 2 * h : 2 * h + 2] += np.exp(value) / total * v[s, 2 * g : 2 * g + 2]
        assert_allclose(y[n], joined @ given["out"].T + given["out_bias"], rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("causal", [True, False])
def test_forward_as_multihead_attention_of_pytorch(causal):
    torch = pytest.importorskip("torch")
    torch.manual_seed(0)
    module = torch.nn.MultiheadAttention(6, 3, batch_first=True, dtype=torch.float64)
    torch.nn.init.normal_(module.in_proj_bias)
    x = torch.randn(2, 5, 6, dtype=torch.float64)
    pad = torch.tensor([[False] * 5, [False, False, False, True, True]])
    hidden = torch.triu(torch.ones(5, 5, dtype=torch.bool), 1) if causal else None
    with torch.no_grad():
        y, _ = module(x, x, x, key_padding_mask=pad, attn_mask=hidden)
    names = ("query", "key", "value")
    weights = dict(zip(names, module.in_proj_weight.detach().numpy().reshape(3, 6, 6)))
    biases = zip(names, module.in_proj_bias.detach().numpy().reshape(3, 6))
    given = {**weights, **{f"{name}_bias": b for name, b in biases}}
    given |= {
        "out": module.out_proj.weight.detach().numpy(),
        "out_bias": module.out_proj.bias.detach().numpy(),
    }
    layers = attention("at", "x", "x", "x", given, 3, causal=causal, mask="mask")
    net = Network(layers, {"x": (None, 6), "mask": (None,)})
    ours = net.forward({"x": x.numpy(), "mask": 1.0 - pad.numpy()})
    assert_allclose(ours, y.numpy(), rtol=1e-12, atol=1e-13)


def core(heads=2, t=3, s=4, d=2, causal=False):
    """Scores, softmax and product of queries, keys and values that are inputs."""
    return Network(
        [
            ("scores", MatMul(True, 1 / np.sqrt(d)), ("q", "k")),
            ("weights", MaskedSoftmax(causal=causal), "scores"),
            ("out", MatMul(), ("weights", "v")),
        ],
        {"q": (heads, t, d), "k": (heads, s, d), "v": (heads, s, d)},
    )


@given(seed=seeds, causal=st.booleans())
def test_closed_form_of_attnlrp(seed, causal):
    rng = np.random.default_rng(seed)
    net = core(causal=causal)
    x = {name: rng.standard_normal((2, *shape)) for name, shape in net.inputs.items()}
    R_O = rng.standard_normal((2, 2, 3, 2))
    ours = explain(net, x, seed=R_O, composite="attnlrp", epsilon=0.0, trace=True)
    q, k, v = (x[name] for name in "qkv")
    A = net.record(x)["weights"]
    s = R_O / (2 * (A @ v))
    turn = lambda a: a.swapaxes(-1, -2)  # noqa: E731
    G = A * (s @ turn(v))
    D = G - A * G.sum(-1, keepdims=True)
    want = {
        "v": v * (turn(A) @ s),
        "q": q * (D @ k) / (2 * np.sqrt(2)),
        "k": k * (turn(D) @ q) / (2 * np.sqrt(2)),
    }
    for name, value in want.items():
        scale = abs(value).max()
        assert_allclose(ours.relevance[name], value, rtol=1e-12, atol=1e-12 * scale)
    sums = {name: a.reshape(2, -1).sum(1) for name, a in ours.relevance.items()}
    R_S, R_A = (ours[n]["R"].reshape(2, -1).sum(1) for n in ("scores", "weights"))
    total = R_O.reshape(2, -1).sum(1)
    flow = 1e-11 * sum(abs(ours[n]["R"]).sum() for n in ("scores", "weights", "out"))
    assert_allclose(sums["v"], total / 2, atol=flow)
    assert_allclose(R_A, total / 2, atol=flow)
    assert_allclose(sums["q"], R_S / 2, atol=flow)
    assert_allclose(sums["k"], R_S / 2, atol=flow)


@given(seed=seeds, causal=st.booleans(), rule=st.sampled_from(["cp-lrp", "epsilon-plus"]))
def test_cp_lrp_conserves(seed, causal, rule):
    rng = np.random.default_rng(seed)
    net = core(causal=causal)
    x = {name: rng.standard_normal((2, *shape)) for name, shape in net.inputs.items()}
    R_O = rng.standard_normal((2, 2, 3, 2))
    R = explain(net, x, seed=R_O, composite=rule, epsilon=0.0).relevance
    A = net.record(x)["weights"]
    want = x["v"] * (A.swapaxes(-1, -2) @ (R_O / (A @ x["v"])))
    assert_allclose(R["v"], want, rtol=1e-11, atol=1e-11 * abs(want).max())
    assert not R["q"].any() and not R["k"].any()
    total = R_O.reshape(2, -1).sum(1)
    assert_allclose(R["v"].reshape(2, -1).sum(1), total, atol=1e-11 * abs(R["v"]).sum())


@given(seed=seeds, preset=st.sampled_from(["attnlrp", "cp-lrp", "z-plus"]))
def test_order_of_heads_and_samples_changes_nothing(seed, preset):
    rng = np.random.default_rng(seed)
    net = core(heads=3)
    x = {name: rng.standard_normal((3, *shape)) for name, shape in net.inputs.items()}
    R_O = rng.standard_normal((3, 3, 3, 2))
    R = explain(net, x, seed=R_O, composite=preset).relevance
    rows, heads = rng.permutation(3), rng.permutation(3)
    again = explain(
        net, {n: v[rows][:, heads] for n, v in x.items()}, seed=R_O[rows][:, heads], composite=preset
    )
    for name, value in again.relevance.items():
        assert_array_equal(value, R[name][rows][:, heads])


def encoder(rng, tokens=7, width=4, norm=LayerNorm, gated=True):
    """Tokens, positions, a pre-norm block with a gated unit, a pooled head; padding is token 0."""
    w = lambda *shape: rng.standard_normal(shape)  # noqa: E731
    given = {name: w(width, width) for name in ("query", "key", "value", "out")}
    given |= {f"{name}_bias": w(width) for name in ("query", "key", "value", "out")}
    layers = [
        ("mask", NotEqual(0.0), "input"),
        ("embed", Embedding(w(tokens, width)), "input"),
        ("positions", Positions(sinusoidal(8, width)), "embed"),
        ("norm1", norm(w(width)), "positions"),
        *attention("at", "norm1", "norm1", "norm1", given, 2, mask="mask"),
        ("sum1", Add(), ("positions", "at")),
        ("norm2", norm(w(width)), "sum1"),
        *gated_unit("ff", "norm2", "SwiGLU", w(6, width), w(6, width), w(width, 6)),
        ("sum2", Add(), ("sum1", "ff")),
        ("first", Dense(w(3, width), w(3)), "sum2"),
        ("turn", Transpose((1, 0)), "first"),
    ]
    return Network(layers, (None,), "turn")


@given(seed=seeds, preset=st.sampled_from(["attnlrp", "cp-lrp", "epsilon"]))
def test_padding_gets_nothing_and_changes_nothing(seed, preset):
    rng = np.random.default_rng(seed)
    net = encoder(rng)
    x = rng.integers(1, 7, (2, 3))
    R = np.zeros((2, 3, 3))
    R[:, 0, 0] = 1.0  # class 0 at the first token
    plain = explain(net, x, seed=R, composite=preset).relevance
    padded = explain(
        net,
        np.concatenate([x, np.zeros((2, 2), int)], 1),
        seed=np.concatenate([R, np.zeros((2, 3, 2))], 2),
        composite=preset,
    ).relevance
    assert not padded[:, 3:].any()
    assert_allclose(padded[:, :3], plain, rtol=1e-9, atol=1e-10 * (1 + abs(plain).max()))


@given(seed=seeds, norm=st.sampled_from([LayerNorm, RMSNorm]))
def test_every_step_of_an_encoder_adds_up(seed, norm):
    rng = np.random.default_rng(seed)
    net = encoder(rng, norm=norm)
    x = rng.integers(1, 7, (2, 4))
    for preset in ("attnlrp", "cp-lrp"):
        account = audit(net, x, seed=np.full((2, 3, 4), 0.1), composite=preset, epsilon=0.01)
        for row in account.rows.values():
            noise = 1e-11 * (row.absolute_sent + row.absolute_received + sum(map(abs, row.taken.values())))
            assert (abs(row.rounding) <= noise).all(), row
    assert not any("softmax rule" in text for text in account.causes())
    gate = account.rows["ff_product"].branches
    assert not gate["ff_open"].any() and gate["ff_up"].any()


# ---------------------------------------------------------------- tokens and positions


def test_tokens():
    layer = Embedding(np.arange(12.0).reshape(4, 3))
    x = np.array([[3, 0], [1, 1]])
    assert_array_equal(layer.forward(x), layer.table[x])
    R = np.arange(12.0).reshape(2, 2, 3)
    assert_array_equal(layer.relprop(R, x, None), R.sum(-1))
    for bad in (4, -1, 1.5):
        with pytest.raises(LRPError, match=rf"tokens must be integers 0 .. 3, but {bad:g} is at \(0, 1\)"):
            layer.forward(np.array([[0, bad]]))
    net = Network([("embed", layer), ("flat", Flatten()), ("out", Dense(np.ones((1, 6))))], (2,))
    with pytest.raises(UnsupportedError, match="integers"):
        gradient(net, x)
    assert explain(net, x.astype(np.int32)).relevance.shape == (2, 2)


@given(seed=seeds, interleaved=st.booleans())
def test_rotary_positions_turn_pairs(seed, interleaved):
    rng = np.random.default_rng(seed)
    angle = rng.standard_normal((5, 2))
    two = np.repeat(angle, 2, 1) if interleaved else np.concatenate([angle, angle], 1)
    layer = Rotary(np.cos(two), np.sin(two), interleaved)
    x, R = numbers(rng, 2, 3, 4, 4), numbers(rng, 2, 3, 4, 4)
    y = layer.forward(x)
    pairs = [(0, 1), (2, 3)] if interleaved else [(0, 2), (1, 3)]
    for n, h, t in np.ndindex(2, 3, 4):
        for k, (a, b) in enumerate(pairs):
            z = (x[n, h, t, a] + 1j * x[n, h, t, b]) * np.exp(1j * angle[t, k])
            assert_allclose([y[n, h, t, a], y[n, h, t, b]], [z.real, z.imag], rtol=1e-12, atol=1e-14)
    sent = layer.relprop(R, x, y, Epsilon(0.1))
    matrix = layer.as_matrix((3, 4, 4))
    for n in range(2):
        z = x[n].ravel() @ matrix
        s = R[n].ravel() / (z + 0.1 * np.where(z >= 0, 1, -1))
        assert_allclose(sent[n].ravel(), x[n].ravel() * (matrix @ s), rtol=1e-10, atol=1e-12)


def test_positions():
    table = sinusoidal(3, 5)
    for t, k in np.ndindex(3, 5):
        angle = t / 10000 ** ((k - k % 2) / 5)
        assert_allclose(table[t, k], np.cos(angle) if k % 2 else np.sin(angle), rtol=1e-14, atol=1e-15)
    x = np.ones((1, 2, 5))
    layer = Positions(table)
    assert_array_equal(layer.forward(x), x + table[:2])
    account = audit(Network([("p", layer)], (2, 5)), x, seed="all", composite=LRP0())
    assert_allclose(account.rows["p"].sinks["bias"], table[:2].sum(), rtol=1e-12)
    with pytest.raises(ShapeError, match="the sequence has 4 steps, but there are positions for 3"):
        layer.forward(np.ones((1, 4, 5)))
    with pytest.raises(LRPError, match=r"layer 'p'.*4 steps"):
        Network([("p", layer)], (4, 5))


# ---------------------------------------------------------------- normalization, sums, gates


@given(seed=seeds, kind=st.sampled_from([LayerNorm, RMSNorm]), learned=st.booleans())
def test_variants_of_normalization(seed, kind, learned):
    rng = np.random.default_rng(seed)
    x, R = numbers(rng, 2, 3, 4), numbers(rng, 2, 3, 4)
    gamma, beta = numbers(rng, 4), numbers(rng, 4)
    layer = kind() if not learned else LayerNorm(gamma, beta) if kind is LayerNorm else RMSNorm(gamma)
    gamma, beta = gamma if learned else np.ones(4), beta if learned and kind is LayerNorm else np.zeros(4)
    y = layer.forward(x)
    held, split = layer.relprop(R, x, y, MeanHeld(0.1)), layer.relprop(R, x, y, AbsBeta())
    for n, t in np.ndindex(2, 3):
        v = x[n, t]
        mean = v.mean() if kind is LayerNorm else 0.0
        d = np.sqrt(((v - mean) ** 2).mean() + layer.eps)
        for i in range(4):
            r, out = R[n, t, i], y[n, t, i]
            assert_allclose(held[n, t, i], gamma[i] * v[i] / d / stab(out, 0.1) * r, rtol=1e-9, atol=1e-12)
            parts = abs(out - beta[i]), abs(beta[i])
            assert_allclose(split[n, t, i], over(parts[0], sum(parts)) * r, rtol=1e-9, atol=1e-12)
    for rule in (MeanHeld(0.1), AbsBeta()):
        net = Network([("norm", layer)], (3, 4))
        adds_up(audit(net, x, seed=R, composite=Composite([("norm", rule)]), normalization="linear"))


@given(seed=seeds)
def test_residual_sum_by_the_ratio_of_sums(seed):
    rng = np.random.default_rng(seed)
    a, b, R = (numbers(rng, 2, 3, 2) for _ in range(3))
    layer = Add()
    ours = layer.relprop(R, (a, b), a + b, RatioOfSums())
    for n in range(2):
        first = [over(p, p + q) * r for p, q, r in zip(a[n].ravel(), b[n].ravel(), R[n].ravel())]
        second = [over(q, p + q) * r for p, q, r in zip(a[n].ravel(), b[n].ravel(), R[n].ravel())]
        total = abs(sum(first)) + abs(sum(second))
        for got, parts in ((ours[0][n], first), (ours[1][n], second)):
            share = over(abs(sum(parts)), total) * R[n].sum()
            want = np.array(parts) * over(share, sum(parts))
            assert_allclose(got.ravel(), want, rtol=1e-8, atol=1e-10 * (1 + abs(want).max()))


@pytest.mark.parametrize("kind", GATES)
def test_gated_units_as_in_pytorch(kind):
    torch = pytest.importorskip("torch")
    F = torch.nn.functional
    opens = {"GLU": torch.sigmoid, "SwiGLU": F.silu, "GEGLU": F.gelu, "ReGLU": F.relu}[kind]
    rng = np.random.default_rng(0)
    gate, up, down = rng.standard_normal((5, 3)), rng.standard_normal((5, 3)), rng.standard_normal((2, 5))
    b = rng.standard_normal(5)
    x = rng.standard_normal((2, 4, 3))
    net = Network(gated_unit("ff", "input", kind, (gate, b), up, down), (4, 3))
    t = torch.tensor(x)
    y = (opens(t @ torch.tensor(gate.T) + torch.tensor(b)) * (t @ torch.tensor(up.T))) @ torch.tensor(down.T)
    assert_allclose(net.forward(x), y.numpy(), rtol=1e-12, atol=1e-13)
    gates = explain(net, x, seed="all", composite="attnlrp").steps["ff_gate"].received
    signals = explain(net, x, seed="all", composite="attnlrp").steps["ff_up"].received
    assert_allclose(gates, signals, rtol=1e-12)
    assert not explain(net, x, seed="all", composite="cp-lrp").steps["ff_gate"].received.any()


# ---------------------------------------------------------------- gradients, files, errors


def test_gradients_through_attention():
    rng = np.random.default_rng(3)
    given = {name: numbers(rng, 4, 3) for name in ("query", "key", "value")}
    layers = attention("at", "input", "input", "input", given, 2, groups=2, causal=True)
    cos, sin = np.cos(numbers(rng, 4, 3 * 2)), np.sin(numbers(rng, 4, 3 * 2))
    net = Network(
        [
            *layers,
            ("wide", Dense(numbers(rng, 6, 4))),
            ("rotary", Rotary(cos, sin)),
            ("positions", Positions(numbers(rng, 4, 6))),
            ("pool", GlobalAveragePool()),
            ("out", Dense(numbers(rng, 2, 4))),
        ],
        (4, 3),
    )
    x = rng.standard_normal((2, 4, 3))
    assert_allclose(gradient(net, x, 1), numeric_gradient(net, x, 1), rtol=1e-6, atol=1e-8)


def test_round_trip(tmp_path):
    rng = np.random.default_rng(0)
    net = encoder(rng)
    more = Network(
        [
            ("masked", MaskedSoftmax(causal=True, keep=np.ones((2, 2)))),
            ("rotary", Rotary(np.ones((2, 2)), np.zeros((2, 2)), True)),
        ],
        (2, 2),
    )
    for network in (net, more):
        save(network, tmp_path / "net.h5")
        same(network, load(tmp_path / "net.h5", dtype=None))


def test_bad_layers_are_named():
    with pytest.raises(LRPError, match="MatMul: scale must be a positive number, not 0"):
        MatMul(scale=0)
    with pytest.raises(ShapeError, match=r"MatMul: inputs of shapes .* don't fit: 3 values meet 2"):
        MatMul().forward((np.ones((1, 2, 3)), np.ones((1, 2, 3))))
    with pytest.raises(ShapeError, match=r"mask of shape \(4,\) does not fit scores of shape \(2, 3\)"):
        MaskedSoftmax(reads=("x", "mask")).forward((np.ones((1, 2, 3)), np.ones((1, 4))))
    with pytest.raises(ShapeError, match="has 4 rows for 3 heads"):
        attention("a", "x", "x", "x", dict.fromkeys(("query", "key", "value"), np.ones((4, 2))), 3)
    with pytest.raises(LRPError, match="4 heads can't be cut into 3 groups"):
        attention("a", "x", "x", "x", {}, 4, groups=3)
    with pytest.raises(LRPError, match="there is no gated unit 'ReLU'"):
        gated_unit("a", "x", "ReLU", np.eye(2), np.eye(2))
    with pytest.raises(ShapeError, match="Rotary: cos and sin must have one shape with an even last axis"):
        Rotary(np.ones((2, 3)), np.ones((2, 3)))
    with pytest.raises(LRPError, match="Bilinear: epsilon must be a number of at least 0"):
        Bilinear(-1.0)
    assert Multiply(signal=1).relprop(np.ones((1, 1)), (np.ones((1, 1)),) * 2, None, Uniform())[0] == 0.5


def test_sizes_that_are_free_are_looked_at_with_the_batch():
    network = Network(
        [("p", Positions(np.ones((4, 3)))), ("r", LSTM(np.ones((8, 3)), np.ones((8, 2))))], (None, 3)
    )
    with pytest.raises(
        ShapeError, match=r"layer 'p' \(Positions\): the sequence has 5 steps, but there are positions"
    ):
        network.forward(np.ones((1, 5, 3)))
    with pytest.raises(ShapeError, match=r"layer 'r' \(LSTM\): takes at least one step"):
        network.forward(np.ones((1, 0, 3)))
