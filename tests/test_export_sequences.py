"""Exported models with tokens, attention and recurrent layers: what they compute, and its relevance."""

import numpy as np
import pytest
from numpy.testing import assert_allclose

from numpylrp import Network, explain, load
from numpylrp.blocks import attention
from numpylrp.errors import UnsupportedError
from numpylrp.layers import GRU, LSTM, Dense, MaskedSoftmax, Multiply, Positions, SimpleRNN, Softmax

torch = pytest.importorskip("torch")
exporter = pytest.importorskip("numpylrp.export.torch")
nn, F = torch.nn, torch.nn.functional


class Does(nn.Module):
    """A function of modules and inputs."""

    def __init__(self, function, *modules):
        super().__init__()
        self.function, self.parts = function, nn.ModuleList(modules)

    def forward(self, *x):
        return self.function(self.parts, *x)


def sequence():
    torch.manual_seed(0)
    return torch.randn(2, 5, 6)


def agrees(module, *given):
    """The network, whose output is the module's in float64; `convert` compares random samples too."""
    torch.manual_seed(1)
    module = module.double().eval()
    given = tuple(x.double() if x.is_floating_point() else x for x in given)
    network = exporter.convert(module, given)
    x = {name: value.numpy() for name, value in zip(network.inputs, given)}
    with torch.no_grad():
        y = module(*given).numpy()
    assert_allclose(network.forward(x), y, rtol=1e-10, atol=1e-12 * abs(y).max())
    return network, x


def test_gated_halves_and_products_of_batches():
    """A gate gets nothing; bmm is a product as matmul is."""
    network, _ = agrees(Does(lambda m, x: m[0](m[1](x)), nn.GLU(), nn.Linear(6, 8)), sequence())
    (product,) = (n.layer for n in network.nodes if isinstance(n.layer, Multiply))
    assert product.signal == 0
    agrees(Does(lambda m, x: torch.bmm(x, x.transpose(1, 2))), sequence())


@pytest.mark.parametrize("kind", ["LSTM", "GRU", "RNN"])
@pytest.mark.parametrize(
    "options",
    [{}, {"bidirectional": True}, {"num_layers": 2, "bidirectional": True}, {"bias": False}],
    ids=str,
)
def test_recurrent_layers(kind, options):
    module = getattr(nn, kind)(6, 4, batch_first=True, **options)
    width = 8 if options.get("bidirectional") else 4
    net = Does(lambda m, x: m[1](m[0](x)[0][:, -1]), module, nn.Linear(width, 3))
    network, x = agrees(net, sequence())
    made = [node.layer for node in network.nodes if isinstance(node.layer, (LSTM, GRU, SimpleRNN))]
    assert len(made) == options.get("num_layers", 1) * (2 if "bidirectional" in options else 1)
    assert [layer.reverse for layer in made] == [False, True] * (len(made) // 2) or len(made) == 1
    R = explain(network, x, 0, composite="lstm").relevance
    assert R.shape == (2, 5, 6) and R.any()
    if not options:  # as the layer by itself has it
        (layer,) = made
        y = layer.forward(x["input"])
        seed = np.zeros_like(y)
        last = Network([("fc", Dense(net.parts[1].weight.detach(), net.parts[1].bias.detach()))], (4,))
        seed[:, -1] = explain(last, y[:, -1], 0, composite="lstm").relevance
        alone = explain(Network([("r", layer)], (5, 6)), x["input"], seed=seed, composite="lstm")
        assert_allclose(R, alone.relevance, rtol=1e-10, atol=1e-13)


@pytest.mark.parametrize(
    "function",
    [
        lambda m, x: m[1](m[0](x)[1][0][-1]),
        lambda m, x: m[1](m[0](x)[1][0].squeeze(0)),
    ],
    ids=["last state", "squeezed"],
)
def test_states(function):
    network, x = agrees(Does(function, nn.LSTM(6, 4, batch_first=True), nn.Linear(4, 3)), sequence())
    assert explain(network, x, seed="all", composite="lstm").relevance.shape == (2, 5, 6)


def test_time_first():
    net = Does(lambda m, x: m[0](x.transpose(0, 1))[0].transpose(0, 1), nn.GRU(6, 4))
    network, _ = agrees(net, sequence())
    assert [type(node.layer) for node in network.nodes] == [GRU]


def test_what_is_refused_is_named():
    cell = Does(lambda m, x: m[0](x)[1][1][0], nn.LSTM(6, 4, batch_first=True))
    with pytest.raises(UnsupportedError, match="the final cell state as an output is not supported"):
        exporter.convert(cell, sequence())
    with pytest.raises(UnsupportedError, match="final states of several layers or directions"):
        exporter.convert(
            Does(lambda m, x: m[0](x)[1][0], nn.LSTM(6, 4, batch_first=True, bidirectional=True)), sequence()
        )
    with pytest.raises(UnsupportedError, match="projection"):
        exporter.convert(
            Does(lambda m, x: m[0](x)[0], nn.LSTM(6, 4, batch_first=True, proj_size=2)), sequence()
        )
    with pytest.raises(UnsupportedError, match="takes time first"):
        exporter.convert(Does(lambda m, x: m[0](x)[0], nn.LSTM(6, 4)), sequence())
    with pytest.raises(UnsupportedError, match="batch on another axis"):
        exporter.convert(Does(lambda m, x: torch.relu(x.transpose(0, 1))), sequence())
    with pytest.raises(UnsupportedError, match="bias_k"):
        exporter.convert(
            Does(
                lambda m, x: m[0](x, x, x)[0], nn.MultiheadAttention(6, 2, add_bias_kv=True, batch_first=True)
            ),
            sequence(),
        )


def test_multihead_attention_is_the_composition():
    module = nn.MultiheadAttention(6, 2, batch_first=True)
    nn.init.normal_(module.in_proj_bias)
    hidden = torch.triu(torch.ones(5, 5, dtype=torch.bool), 1)
    network, x = agrees(Does(lambda m, x: m[0](x, x, x, attn_mask=hidden)[0], module), sequence())
    names = ("query", "key", "value")
    weights = dict(zip(names, module.in_proj_weight.detach().numpy().reshape(3, 6, 6)))
    biases = zip(names, module.in_proj_bias.detach().numpy().reshape(3, 6))
    given = {**weights, **{f"{name}_bias": b for name, b in biases}}
    out = module.out_proj
    given |= {"out": out.weight.detach().numpy(), "out_bias": out.bias.detach().numpy()}
    ours = Network(attention("at", *["input"] * 3, given, 2, causal=True), (5, 6))
    for preset in ("attnlrp", "cp-lrp", "epsilon-plus"):
        a, b = (explain(net, x, seed="all", composite=preset).relevance for net in (network, ours))
        assert_allclose(a, b, rtol=1e-9, atol=1e-11 * abs(b).max())


def cases():
    x, y = sequence(), torch.randn(2, 3, 6)
    pad = torch.tensor([[False] * 5, [False, False, False, True, True]])
    layer = nn.TransformerEncoderLayer(6, 2, 8, batch_first=True, norm_first=True, activation="gelu")
    causal = nn.Transformer.generate_square_subsequent_mask(5)
    return {
        "cross": (
            Does(lambda m, x, y: m[0](x, y, y)[0], nn.MultiheadAttention(6, 2, batch_first=True)),
            x,
            y,
        ),
        "encoder": (nn.TransformerEncoder(layer, 2), x),
        "post-norm": (nn.TransformerEncoderLayer(6, 2, 8, batch_first=True), x),
        "causal": (Does(lambda m, x: m[0](x, causal, is_causal=True), layer), x),
        "padding": (Does(lambda m, x, p: m[0](x, src_key_padding_mask=p), layer), x, pad),
        "both masks": (Does(lambda m, x, p: m[0](x, causal, p), layer), x, pad),
        "decoder": (nn.TransformerDecoderLayer(6, 2, 8, batch_first=True), x, y),
        "shared keys": (
            Does(lambda m, q, k: F.scaled_dot_product_attention(q, k, k, enable_gqa=True)),
            torch.randn(2, 4, 5, 3),
            torch.randn(2, 2, 5, 3),
        ),
        "by hand": (Does(lambda m, x: torch.softmax(x @ x.transpose(1, 2) / 6**0.5, -1) @ x), x),
        "bias": (
            Does(lambda m, x: F.scaled_dot_product_attention(x, x, x, attn_mask=torch.ones(5, 5) * 0.5)),
            x,
        ),
        "class token": (
            Does(lambda m, x: torch.cat([m[0].weight.expand(len(x), 1, 6), x], 1), nn.Embedding(1, 6)),
            x,
        ),
        "tokens": (
            Does(
                lambda m, t: m[2](m[0](t) + m[1](torch.arange(5))),
                *(nn.Embedding(9, 6) for _ in "ab"),
                nn.Linear(6, 2),
            ),
            torch.randint(0, 9, (2, 5)),
        ),
    }


@pytest.mark.parametrize("case", cases())
def test_attention(case, tmp_path):
    module, *given = cases()[case]
    network, x = agrees(module, *given)
    for preset in ("attnlrp", "cp-lrp"):
        R = explain(network, x, seed="all", composite=preset).relevance
        R = R if isinstance(R, dict) else {"input": R}
        assert all(R[name].shape == x[name].shape for name in x)
    kinds = [type(node.layer) for node in network.nodes]
    if case == "tokens":
        assert Positions in kinds
    if case in ("padding", "both masks"):  # what is hidden gets nothing: the last tokens of the second sample
        assert MaskedSoftmax in kinds and Softmax not in kinds
        seed = np.zeros((2, 5, 6))
        seed[:, 0] = 1.0
        R = explain(network, x, seed=seed, composite="attnlrp").relevance
        R = next(value for value in R.values() if value.ndim == 3)
        assert not R[1, 3:].any() and R[1, 0].any()
    from numpylrp import save

    save(network, tmp_path / "net.h5")
    assert_allclose(load(tmp_path / "net.h5").forward(x), network.forward(x), rtol=1e-12)
