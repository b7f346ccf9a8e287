"""Conventions of other libraries for attention and recurrent layers; LXT is run where it is installed."""

import numpy as np
import pytest
from numpy.testing import assert_allclose

from numpylrp import Network, explain
from numpylrp.blocks import attention
from numpylrp.composite import attn_lrp
from numpylrp.errors import LRPError
from numpylrp.layers import GELU, GRU, LSTM, Add, Dense, LayerNorm
from numpylrp.validate.sequence_conventions import CONVENTIONS, rules_of


def block(rng, width=6, heads=2):
    """A pre-norm encoder block, and its parameters."""

    def w(*shape):
        return rng.standard_normal(shape) / np.sqrt(width)

    p = {name: w(width, width) for name in ("query", "key", "value", "out")}
    p |= {f"{name}_bias": w(width) for name in ("query", "key", "value", "out")}
    p |= {"g1": 1 + w(width), "b1": w(width), "g2": 1 + w(width), "b2": w(width)}
    p |= {"up": w(8, width), "up_bias": w(8), "down": w(width, 8), "down_bias": w(width)}
    layers = [
        ("norm1", LayerNorm(p["g1"], p["b1"]), "input"),
        *attention("at", *["norm1"] * 3, p, heads),
        ("sum1", Add(), ("input", "at")),
        ("norm2", LayerNorm(p["g2"], p["b2"])),
        ("up", Dense(p["up"], p["up_bias"])),
        ("gelu", GELU()),
        ("down", Dense(p["down"], p["down_bias"])),
        ("sum2", Add(), ("sum1", "down")),
    ]
    return Network(layers, (5, width)), p


def test_lxt_explicit_agrees():
    torch = pytest.importorskip("torch")
    f = pytest.importorskip("lxt.explicit.functional")
    rng = np.random.default_rng(0)
    network, arrays = block(rng)
    p = {name: torch.tensor(value) for name, value in arrays.items()}
    x = torch.tensor(rng.standard_normal((2, 5, 6)), requires_grad=True)

    class Unchanged(torch.autograd.Function):
        @staticmethod
        def forward(ctx, z):
            return torch.nn.functional.gelu(z)

        @staticmethod
        def backward(ctx, R):
            return R

    def heads(name, h):
        y = f.linear_epsilon(h, p[name], p[f"{name}_bias"])
        return y.reshape(2, 5, 2, 3).transpose(1, 2)

    h = f.layer_norm(x, p["g1"], p["b1"], 1e-5)
    q, k, v = (heads(name, h) for name in ("query", "key", "value"))
    scores = f.matmul(q, k.transpose(-1, -2))

    class Scale(torch.autograd.Function):  # one value in, one out: unchanged
        @staticmethod
        def forward(ctx, z):
            return z / np.sqrt(3)

        @staticmethod
        def backward(ctx, R):
            return R

    mixed = f.matmul(f.softmax(Scale.apply(scores), -1), v)
    y = f.linear_epsilon(mixed.transpose(1, 2).reshape(2, 5, 6), p["out"], p["out_bias"])
    s = f.add2(x, y)
    h = f.layer_norm(s, p["g2"], p["b2"], 1e-5)
    h = Unchanged.apply(f.linear_epsilon(h, p["up"], p["up_bias"]))
    z = f.add2(s, f.linear_epsilon(h, p["down"], p["down_bias"]))
    R = torch.tensor(rng.standard_normal((2, 5, 6)))
    z.backward(R)
    given = x.detach().numpy()
    assert_allclose(network.forward(given), z.detach().numpy(), rtol=1e-12, atol=1e-13)
    composite, apart = CONVENTIONS["LXT explicit"].composite(), {"normalization": "linear", "seed": R.numpy()}
    ours = explain(network, given, composite=composite, **apart)
    scale = abs(x.grad.numpy()).max()
    assert_allclose(ours.relevance, x.grad.numpy(), rtol=1e-11, atol=1e-12 * scale)
    other = explain(network, given, composite="attnlrp", **apart).relevance
    assert abs(other - x.grad.numpy()).max() > 1e-9 * scale  # its stabilizer has no sign


def test_lxt_efficient_is_attnlrp_without_epsilon():
    rng = np.random.default_rng(1)
    network, _ = block(rng)
    x, R = rng.standard_normal((2, 2, 5, 6))
    a = explain(network, x, seed=R, composite=CONVENTIONS["LXT efficient"].composite()).relevance
    b = explain(network, x, seed=R, composite=attn_lrp(network, 0.0)).relevance
    assert_allclose(a, b, rtol=1e-12)


def test_each_has_its_own_numbers():
    rng = np.random.default_rng(2)
    network, _ = block(rng)
    x, R = rng.standard_normal((2, 2, 5, 6))
    maps = {
        name: explain(network, x, seed=R, composite=convention.composite()).relevance
        for name, convention in CONVENTIONS.items()
        if not name.startswith("Arras")
    }
    names = list(maps)
    for n, a in enumerate(names):
        for b in names[n + 1 :]:
            assert abs(maps[a] - maps[b]).max() > 1e-9 * abs(maps[b]).max(), (a, b)
    assert str(rules_of("Chefer", network)["sum1"]) == "RatioOfSums()"
    assert all(c.notes and c.version for c in CONVENTIONS.values())
    with pytest.raises(LRPError, match="there is no convention 'nobody'"):
        rules_of("nobody", network)


@pytest.mark.parametrize("kind", [LSTM, GRU])
def test_arras_with_its_bias_spread_keeps_sums(kind):
    """The sanity check of the authors: relevance of inputs and initial states sums to the score."""
    rng = np.random.default_rng(3)
    rows = kind.blocks * 3
    states = {f"initial_{name}": rng.standard_normal(3) for name in kind.states}
    layer = kind(*(rng.standard_normal(s) for s in ((rows, 2), (rows, 3), rows)), all_states=False, **states)
    network = Network(
        [("r", layer), ("fc", Dense(rng.standard_normal((2, 3)), rng.standard_normal(2)))], (4, 2)
    )
    x = rng.standard_normal((2, 4, 2))
    found = explain(network, x, 1, composite=CONVENTIONS["Arras, bias spread"].composite(), trace=["r"])
    step = found["r"]
    kept = sum(step[f"R_{name}_0"].sum(1) for name in kind.states)
    assert_allclose(found.relevance.sum((1, 2)) + kept, found.output[:, 1], rtol=1e-9)
