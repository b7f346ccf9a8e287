"""Exporters for PyTorch and ONNX, and networks from plain tensors."""

import json
import os
import re
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from numpylrp import Network, explain, fuse, load, save
from numpylrp.cli import main
from numpylrp.convert import tensors
from numpylrp.errors import FileError, LRPError, UnsupportedError
from numpylrp.layers import (
    KINDS,
    BatchNorm,
    Conv2D,
    CopyPadding,
    Dense,
    Interpolation,
    Multiply,
    ReLU,
    ZeroPadding,
)
from numpylrp.rules import Epsilon

FOLDER = Path(__file__).parent / "exported"
STORED = sorted(p.stem for p in FOLDER.glob("*.npz"))
SHARED = Path(os.environ.get("NUMPYLRP_SHARED", Path(__file__).parents[2] / "shared"))

sys.path.insert(0, str(FOLDER))
import exported as make  # noqa: E402


@pytest.fixture
def torch():
    return pytest.importorskip("torch", reason="PyTorch is not installed")


@pytest.fixture
def exporter(torch):
    from numpylrp.export import torch as exporter

    return exporter


@pytest.fixture
def from_onnx():
    pytest.importorskip("onnx", reason="the package onnx is not installed")
    from numpylrp.export import onnx as from_onnx

    return from_onnx


def close(ours, theirs, tolerance):
    ours = list(ours.values()) if isinstance(ours, dict) else [ours]
    assert len(ours) == len(theirs)
    for a, b in zip(ours, theirs):
        assert a.shape == b.shape
        assert_allclose(a, b, rtol=0, atol=tolerance * max(1, abs(b).max()))


@pytest.mark.parametrize("name", STORED)
def test_stored_models_give_what_the_framework_gave(name):
    """PyTorch in float64; ONNX' reference evaluator in float32, hence the tolerance."""
    data = np.load(FOLDER / f"{name}.npz")
    network = load(FOLDER / f"{name}.h5")
    x = dict(zip(network.inputs, (data[f"x{n}"] for n in range(len(network.inputs)))))
    y = [data[k] for k in sorted(data) if k.startswith("y")]
    close(network.forward(x), y, 2e-6 if name.startswith("onnx") else 1e-12)
    fused, _ = fuse(network)
    close(fused.forward(x), y, 2e-6 if name.startswith("onnx") else 1e-10)
    relevance = explain(network, x, 0).relevance
    for R, given in zip(relevance.values() if len(x) > 1 else [relevance], x.values()):
        assert R.shape == given.shape and np.isfinite(R).all() and R.any()


def test_what_is_stored_is_all_there_is_in_the_script():
    assert len(STORED) == 14 and {n for n in STORED if n.startswith("onnx")} == set(make.onnx_models())


@pytest.mark.parametrize("name", [n for n in STORED if not n.startswith("onnx")])
def test_fresh_modules_equal_pytorch(name, exporter, tmp_path):
    module, inputs = make.made(name, seed=7)
    before = {k: v.clone() for k, v in module.state_dict().items()}
    exporter.save(module, inputs if len(inputs) > 1 else inputs[0][:1], tmp_path / "m.h5")
    assert all((before[k] == v).all() for k, v in module.state_dict().items())
    _, others = make.made(name, seed=8, batch=3)
    network = load(tmp_path / "m.h5")
    x = dict(zip(network.inputs, (t.numpy() for t in others)))
    close(network.forward(x), make.outputs(module, others), 1e-10)
    module, others = module.float(), tuple(t.float() for t in others)
    small = exporter.convert(module, others)
    assert small.dtype == np.float32 or not [a for n in small.nodes for a in n.layer.arrays().values()]
    close(small.forward(x), make.outputs(module, others), 1e-5)


@pytest.mark.parametrize("name", [n for n in STORED if n.startswith("onnx")])
def test_fresh_onnx_models_equal_the_reference_evaluator(name, from_onnx, tmp_path):
    import onnx

    model, x, y = make.onnx_model(name, seed=5)
    onnx.save(model, tmp_path / "m.onnx")
    close(load(tmp_path / "m.onnx").forward(x), [y], 2e-6)
    assert from_onnx.convert(model, example_input=x).dtype == np.float32


def test_a_module_keeps_its_names_and_shares_layers(exporter):
    module, inputs = make.made("constants", 0)
    network = exporter.convert(module, inputs[0])
    assert network["conv"] is network["conv_2"]
    module, inputs = make.made("sound", 0)
    assert [n.name for n in exporter.convert(module, inputs[0]).nodes][:3] == [
        "steps.0",
        "steps.1",
        "steps.2",
    ]


def test_a_gate_gives_its_relevance_to_the_signal(exporter):
    module, inputs = make.made("gates", 0)
    network = exporter.convert(module, inputs[0])
    assert sorted(n.layer.signal for n in network.nodes if isinstance(n.layer, Multiply)) == [0, 1]


def test_preprocessing_and_names_of_classes_come_along(exporter, torch, tmp_path):
    module, (x,) = make.made("plain", 0)
    mean, std = np.array([0.4, 0.5, 0.6]), np.array([0.2, 0.3, 0.4])
    network = exporter.save(
        module, x, tmp_path / "m.h5", mean=mean, std=std, class_names=["cat", "dog", "cow"]
    )
    again = load(tmp_path / "m.h5")
    assert again.metadata["class_names"] == ["cat", "dog", "cow"] and again.metadata["input_range"] == [0, 1]
    pixels = np.random.default_rng(0).uniform(0, 1, (2, 3, 9, 8))
    normal = (pixels - mean[:, None, None]) / std[:, None, None]
    close(again.forward(pixels), make.outputs(module, [torch.from_numpy(normal)]), 1e-10)
    assert explain(network, pixels, "dog", composite="epsilon-gamma-box").relevance.shape == pixels.shape
    module.config = type("Config", (), {"id2label": {1: "b", 0: "a", 2: "c"}})()
    assert exporter.convert(module, x).metadata["class_names"] == ["a", "b", "c"]


def refused(torch):
    """Modules that are refused, with an input and what the message says."""
    nn, F = torch.nn, torch.nn.functional

    class Does(nn.Module):
        def __init__(self, what):
            super().__init__()
            self.what = what

        def forward(self, x):
            return self.what(x)

    image = torch.randn(2, 3, 6, 6)
    return {
        "left": (Does(lambda x: torch.ones(2, 3, 3) @ x.flatten(2)), image, "constant from the left"),
        "lstm": (nn.LSTM(3, 2, batch_first=True), torch.randn(2, 4, 3), "cell state as an output"),
        "bicubic": (nn.Upsample(scale_factor=2, mode="bicubic"), image, "upsample_bicubic2d"),
        "factor": (nn.Upsample(scale_factor=1.3, mode="bilinear"), image, "no whole sizes"),
        "batch": (nn.BatchNorm2d(3, track_running_stats=False), image, "would mix samples"),
        "view": (Does(lambda x: x.view(1, -1)), image, "mix the samples"),
        "mean": (Does(lambda x: x.mean(0)), image, "along the batch axis"),
        "dropout": (Does(lambda x: F.dropout(x, training=True)), image, "training mode"),
        "branch": (Does(lambda x: x if x.sum() > 0 else -x), image, "torch.export can't follow"),
        "quotient": (Does(lambda x: x / (x + 1)), image, "quotient"),
        "dilated": (nn.MaxPool2d(2, dilation=2), image, "dilation"),
        "nothing": (Does(lambda x: torch.ones(2)), image, "depend on its input"),
    }


@pytest.mark.parametrize("case", [*"left lstm bicubic factor batch view mean dropout".split(), "branch"])
def test_what_has_no_layer_is_refused_by_name(case, exporter, torch):
    module, x, message = refused(torch)[case]
    with pytest.raises(UnsupportedError, match=message):
        exporter.convert(module, x)


@pytest.mark.parametrize("case", ["quotient", "dilated", "nothing"])
def test_what_would_be_wrong_is_refused(case, exporter, torch):
    module, x, message = refused(torch)[case]
    with pytest.raises(UnsupportedError, match=message):
        exporter.convert(module, x)


def test_a_network_that_computes_something_else_is_refused(exporter, monkeypatch):
    """Whatever the reason: here, ReLU is taken for the identity."""
    module, (x,) = make.made("plain", 0)
    monkeypatch.setitem(exporter.OPERATIONS, "relu", exporter.OPERATIONS["contiguous"])
    with pytest.raises(LRPError, match="would not compute what the module computes"):
        exporter.convert(module, x)


def test_an_example_of_zeros_does_not_hide_what_differs(exporter, torch):
    """The check is done on random samples too."""
    F = torch.nn.functional

    class Aliased(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = torch.nn.Conv2d(3, 4, 3, bias=False)

        def forward(self, x):
            y = self.conv(x)
            flat = y.flatten(1)
            F.relu(y, inplace=True)
            return flat

    with pytest.raises(LRPError, match="would not compute what the module computes"):
        exporter.convert(Aliased(), torch.zeros(1, 3, 5, 5))
    with pytest.raises(UnsupportedError, match="softplus with threshold"):
        exporter.convert(torch.nn.Softplus(1, 0.5), torch.zeros(1, 3))


def test_what_modules_do_in_passing(exporter, torch):
    """Casts, several uses of an output, None among outputs, a single number a sample."""

    class Odd(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.fc = torch.nn.Linear(3, 1)

        def forward(self, x):
            y = self.fc(x.to(torch.float64).float().to(self.fc.weight.dtype))
            return y, None, y, torch.rsub(x, x * x, alpha=3), torch.max(x, -x)

    module, x = Odd(), torch.randn(4, 3, dtype=torch.float64)
    network = exporter.convert(module, x[:1].float())
    expected = [t.detach().numpy() for t in module.double()(x) if t is not None]
    close(network.forward(x.numpy()), expected, 1e-6)

    class Scalar(Odd):
        def forward(self, x):
            return self.fc(x).squeeze(1)

    network = exporter.convert(Scalar(), x[:1].float())
    e = explain(network, x.numpy(), composite="epsilon")
    assert e.relevance.shape == (4, 3) and e.target.tolist() == [0] * 4
    bias = network["fc"].bias[0]
    assert_allclose(e.relevance.sum(1), network.forward(x.numpy()) - bias, rtol=1e-4, atol=1e-6)
    with pytest.raises(UnsupportedError, match=r"cast to torch\.int64"):
        exporter.convert(cast(torch)(), torch.randn(1, 3))


def does(torch, what):
    class Does(torch.nn.Module):
        def forward(self, x):
            return what(x)

    return Does()


def moves(torch):
    """Operations on samples (4, 6, 8) that only move values, or are activations."""
    F = torch.nn.functional
    zeros = lambda x, n: torch.zeros(x.shape[0], n, 6, 8, dtype=x.dtype)  # noqa: E731
    return {
        "flip": lambda x: x.flip(1),
        "flip two": lambda x: x.flip(-1, 2),
        "index": lambda x: x[:, [2, 1, 0, 0, 2]],
        "index of the last axis": lambda x: x[..., torch.tensor([0, 2, 4, 1, -1])],
        "index_select": lambda x: x.index_select(2, torch.tensor([5, 3])),
        "repeat": lambda x: x.repeat(1, 2, 1, 3),
        "tile": lambda x: x.tile((2, 1)),
        "repeat_interleave": lambda x: x.repeat_interleave(3, dim=2),
        "zeros": lambda x: torch.cat([zeros(x, 1), x, zeros(x, 2), zeros(x, 1), x * 2, zeros(x, 1)], 1),
        "pixel_unshuffle": lambda x: F.pixel_unshuffle(x, 2),
        "abs": lambda x: x.abs(),
        "celu": lambda x: F.celu(x, 0.7),
        "mish": F.mish,
        "pow": lambda x: x.pow(2) + x**3 + x.square(),
    }


MOVES = "flip,flip two,index,index of the last axis,index_select,repeat,tile,repeat_interleave,zeros"


@pytest.mark.parametrize("case", [*MOVES.split(","), "pixel_unshuffle", "abs", "celu", "mish", "pow"])
def test_operations_that_move_values_or_are_activations(case, exporter, torch):
    what = moves(torch)[case]
    network = exporter.convert(does(torch, what), torch.zeros(1, 4, 6, 8, dtype=torch.float64))
    x = torch.randn(3, 4, 6, 8, dtype=torch.float64)
    y = what(x)
    close(network.forward(x.numpy()), [y.numpy()], 1e-10)
    seed = np.random.default_rng(0).standard_normal(y.shape)
    R = explain(network, x.numpy(), seed=seed, composite="epsilon").relevance
    if case in ("zeros", "pow"):
        return
    if case in ("abs", "celu", "mish"):
        assert_allclose(R, seed, rtol=1e-12)
    else:  # relevance goes where the values came from
        x.requires_grad_()
        (what(x) * torch.tensor(seed)).sum().backward()
        assert_allclose(R, x.grad.numpy(), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"stride": 2, "padding": 1, "output_padding": 1},
        {"stride": 3, "dilation": 2, "groups": 2, "bias": False},
    ],
)
def test_a_transposed_convolution_in_one_dimension(options, exporter, torch):
    module = torch.nn.ConvTranspose1d(4, 6, 3, **options).double()
    network = exporter.convert(module, torch.zeros(1, 4, 7, dtype=torch.float64))
    x = torch.randn(3, 4, 7, dtype=torch.float64, requires_grad=True)
    y = module(x)
    close(network.forward(x.detach().numpy()), [y.detach().numpy()], 1e-10)
    y.sum().backward()  # LRP-0 of the output is gradient times input
    R = explain(network, x.detach().numpy(), seed=y.detach().numpy(), composite=Epsilon(0)).relevance
    assert_allclose(R, (x.grad * x).detach().numpy(), rtol=1e-9, atol=1e-10)


@pytest.mark.parametrize("channels", [(), (5,), (5, 4)], ids=["1D", "2D", "3D"])
def test_paddings_and_interpolation(channels, exporter, torch):
    """Every mode of PyTorch in one to three dimensions, and relevance that is gradient times input."""
    F, rank = torch.nn.functional, 1 + len(channels)
    x = torch.randn(2, 3, 6, *channels, dtype=torch.float64)
    around = (1, 2, 3, 0, 1, 1)[: 2 * rank]
    modes = ["linear", "bilinear", "trilinear"][rank - 1]
    size = (9, 3, 4)[:rank]
    cases = {
        CopyPadding: [lambda x, m=m: F.pad(x, around, mode=m) for m in ("reflect", "replicate", "circular")],
        Interpolation: [
            lambda x: F.interpolate(x, size, mode=modes),
            lambda x: F.interpolate(x, size, mode=modes, align_corners=True),
            lambda x: F.interpolate(x, scale_factor=2, mode=modes),
        ],
        ZeroPadding: [lambda x: F.pad(x, around, value=1.5)],
    }
    for kind, functions in cases.items():
        for function in functions:
            network = exporter.convert(does(torch, function), x)
            assert isinstance(network.nodes[0].layer, kind)
            given = x.clone().requires_grad_(True)
            y = function(given)
            close(network.forward(x.numpy()), [y.detach().numpy()], 1e-12)
            R = explain(network, x.numpy(), seed=y.detach().numpy(), composite=Epsilon(0)).relevance
            y.sum().backward()
            assert_allclose(R, (given.grad * x).numpy(), rtol=1e-9, atol=1e-10)


def test_volumes(exporter, torch):
    nn = torch.nn
    parts = (
        nn.Conv3d(3, 4, 3, padding=1),
        nn.ReLU(),
        nn.MaxPool3d(2),
        nn.AvgPool3d(2),
        nn.AdaptiveAvgPool3d(1),
    )
    module = nn.Sequential(*parts, nn.Flatten(), nn.Linear(4, 2)).double()
    x = torch.randn(2, 3, 8, 9, 8, dtype=torch.float64)
    network = exporter.convert(module, x)
    close(network.forward(x.numpy()), make.outputs(module, [x]), 1e-12)
    assert explain(network, x.numpy()).relevance.shape == x.shape


def test_values_rolled_around(exporter, torch):
    rolled = does(torch, lambda x: torch.roll(x, (1, -2), (1, 2)))
    x = torch.randn(2, 4, 5)
    assert_array_equal(exporter.convert(rolled, x).forward(x.numpy()), rolled(x).numpy())
    with pytest.raises(UnsupportedError, match="roll without axes"):
        exporter.convert(does(torch, lambda x: torch.roll(x, 1)), x)


@pytest.mark.parametrize(
    ("what", "says"),
    [
        (lambda x: x.repeat(2, 1, 1), "repeats .* of the batch"),
        (lambda x: x.repeat(1, 2, 1, 1), "of the batch, or to more axes"),
        (lambda x: x.flip(0), "along the batch axis"),
        (lambda x: x[:, [0, 1], [1, 2]], "other than one list of constants"),
        (lambda x: x.flip(2), "70 pieces along an axis are not supported, up to 64 are"),
        (lambda x: x.pow(0.5), "the power 0.5 is not supported"),
        (lambda x: 2**x, "power with other than a number|'pow' is not supported"),
    ],
)
def test_moves_that_have_no_layer_are_refused(what, says, exporter, torch):
    with pytest.raises(UnsupportedError, match=says):
        exporter.convert(does(torch, what), torch.randn(2, 4, 70))


def test_constants_beside_a_value(exporter, torch):
    """Zeros in their place, to which they are added: they take their share as a bias does."""
    ones = does(torch, lambda x: torch.cat([x, torch.ones(2, 1, 3)], 1))
    x = torch.randn(2, 4, 3)
    network = exporter.convert(ones, x)
    assert_allclose(network.forward(x.numpy()), ones(x).numpy(), rtol=1e-6)
    assert_allclose(explain(network, x.numpy(), seed=np.ones((2, 5, 3))).relevance, 1, rtol=1e-4)


def cast(torch):
    class Cast(torch.nn.Module):
        def forward(self, x):
            return x.to(torch.int64).float() + x

    return Cast


def test_bad_examples_are_refused(exporter):
    module, (x,) = make.made("plain", 0)
    for bad in (x.numpy(), x[:0], ()):
        with pytest.raises(LRPError, match="example_input is to be a tensor"):
            exporter.convert(module, bad)
    with pytest.raises(LRPError, match="does not run on example_input, samples first"):
        exporter.convert(module, x[:, :2])


def test_onnx_files_that_are_none_or_lack_something(from_onnx, tmp_path):
    import onnx
    from onnx import TensorProto, helper

    (tmp_path / "bad.onnx").write_bytes(b"no model")
    for name in ("bad.onnx", "missing.onnx"):
        with pytest.raises(FileError, match=r"is not an ONNX model|does not exist"):
            load(tmp_path / name)
    floats = lambda name, shape: helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)  # noqa: E731
    node = helper.make_node("Erf", ["x"], ["y"], name="odd")
    graph = helper.make_graph([node], "g", [floats("x", ["n", 3, "h"])], [floats("y", None)])
    onnx.save(helper.make_model(graph), tmp_path / "m.onnx")
    with pytest.raises(LRPError, match=r"3 x \? .*give input_shape"):
        load(tmp_path / "m.onnx")
    with pytest.raises(UnsupportedError, match="odd: the operator 'Erf' is not supported; there are Conv"):
        from_onnx.convert(tmp_path / "m.onnx", input_shape=(3, 4))


def test_onnx_files_from_strangers_do_no_harm(from_onnx):
    """No data of other files, no loops, no arrays of absurd size."""
    from onnx import TensorProto, helper, numpy_helper

    def model(*nodes, constants=()):
        floats = [helper.make_tensor_value_info(n, TensorProto.FLOAT, ["n", 2]) for n in "xy"]
        held = [numpy_helper.from_array(np.asarray(a), k) for k, a in constants]
        add = helper.make_node("Add", ["x", "c"], ["y"])
        graph = helper.make_graph([*nodes, add], "g", floats[:1], floats[1:], held)
        return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)])

    bomb = helper.make_node("ConstantOfShape", ["s"], ["c"], name="bomb")
    with pytest.raises(FileError, match=r"bomb: ConstantOfShape would make 1e[+]12 values"):
        from_onnx.convert(model(bomb, constants=[("s", np.array([10**6, 10**6]))]))
    tile = helper.make_node("Tile", ["a", "s"], ["c"], name="tiles")
    with pytest.raises(FileError, match="tiles: Tile would make"):
        from_onnx.convert(model(tile, constants=[("a", np.ones(9)), ("s", np.array([10**9]))]))
    noise = helper.make_node("RandomNormal", [], ["c"], name="noise", shape=[2])
    with pytest.raises(UnsupportedError, match="noise: RandomNormal of constants"):
        from_onnx.convert(model(noise))
    away = model(constants=[("c", np.ones(2, np.float32))])
    tensor = away.graph.initializer[0]
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="../secrets")
    with pytest.raises(FileError, match="'c' is kept in another file"):
        from_onnx.convert(away)


@pytest.mark.parametrize(
    ("op", "inputs", "attributes", "says"),
    [
        ("PRelu", {"slope": np.float32([0.1, 0.5, 2.0])}, {}, None),  # lined up from the last axis
        ("PRelu", {"slope": np.float32([0.1, 0.5, 2.0]).reshape(1, 3, 1, 1)}, {}, None),
        (
            "Resize",
            {"": None, "s": np.float32([1, 1, 2, 3])},
            {"nearest_mode": "floor"},
            "does more than repeat",
        ),
        (
            "Resize",
            {"": None, "s": np.float32([1, 1, 2, 3])},
            {"nearest_mode": "floor", "coordinate_transformation_mode": "asymmetric"},
            None,
        ),
        ("Resize", {"": None, "s": np.float32([3, 2])}, {"axes": [3, 2]}, None),
        *(
            ("Resize", {"": None, "s": np.float32([1, 1, 2, 3])}, {"mode": "linear", **places}, None)
            for places in (
                {},
                {"coordinate_transformation_mode": "align_corners"},
                {"coordinate_transformation_mode": "asymmetric"},
                {"coordinate_transformation_mode": "pytorch_half_pixel"},
            )
        ),
        ("Resize", {"": None, "s": np.float32([1, 1, 2, 1.3])}, {"mode": "linear"}, "interpolation with"),
        ("Resize", {"": None, "s": np.float32([1, 1, 2, 2])}, {"mode": "cubic"}, "'cubic' is not supported"),
        *(
            ("Pad", {"p": np.array([0, 0, 1, 0, 0, 1, 2, 2])}, {"mode": mode}, None)
            for mode in ("reflect", "edge", "wrap", "constant")
        ),
        ("Pad", {"p": np.array([0, 0, 1, 0, 0, 0, 2, 1]), "v": np.float32(1.5)}, {}, None),
        ("Gather", {"i": np.array([2, 0, 0, 1])}, {"axis": 1}, None),
        ("Gather", {"i": np.array([[2, 0]])}, {"axis": 1}, r"array of indices \(1, 2\)"),
        ("Pow", {"e": np.float32(3)}, {}, None),
        ("Pow", {"e": np.float32(2.5)}, {}, "the power 2.5"),
        (
            "ConvTranspose",
            {"w": np.float32(np.arange(54).reshape(3, 2, 3, 3) % 7)},
            {"strides": [2, 1]},
            None,
        ),
        ("Selu", {}, {"alpha": 1.2, "gamma": 0.7}, "Selu with alpha 1.2"),
        ("Cast", {}, {"to": 7}, "cast to another type"),
        ("Dropout", {"ratio": np.float32(0.5), "training": np.array(True)}, {}, "training mode"),
        ("ReduceMax", {"axes": np.zeros(0, np.int64)}, {}, "would mix samples"),
        ("ReduceSum", {"axes": np.zeros(0, np.int64)}, {"noop_with_empty_axes": 1}, None),
    ],
)
def test_onnx_options_that_are_easily_overlooked(from_onnx, op, inputs, attributes, says):
    from onnx import TensorProto, helper, numpy_helper
    from onnx.reference import ReferenceEvaluator

    node = helper.make_node(op, ["x", *inputs], ["y"], name="it", **attributes)
    ends = [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 3, 3, 3])]
    ends.append(helper.make_tensor_value_info("y", TensorProto.FLOAT, None))
    held = [numpy_helper.from_array(a, k) for k, a in inputs.items() if k]
    graph = helper.make_graph([node], "g", ends[:1], ends[1:], held)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)])
    if says:
        with pytest.raises(UnsupportedError, match=says):
            from_onnx.convert(model)
        return
    x = np.random.default_rng(0).standard_normal((2, 3, 3, 3)).astype(np.float32)
    close(from_onnx.convert(model).forward(x), ReferenceEvaluator(model).run(None, {"x": x}), 1e-6)


def branching(helper, condition, *before):
    """An ONNX model that gives twice x where the condition holds, else relu(x), and x + 1 besides."""
    floats = [helper.make_tensor_value_info(n, 1, ["n", 3]) for n in ("x", "y", "z")]
    rate = helper.make_tensor_value_info("rate", 7, [])
    ends = [helper.make_tensor_value_info(n, 1, None) for n in ("double", "positive")]
    branches = {
        "then_branch": helper.make_graph(
            [helper.make_node("Add", ["x", "x"], ["double"])], "t", [], ends[:1]
        ),
        "else_branch": helper.make_graph([helper.make_node("Relu", ["x"], ["positive"])], "e", [], ends[1:]),
    }
    nodes = [
        *before,
        helper.make_node("If", [condition], ["y"], name="either", **branches),
        helper.make_node("Erf", ["y"], ["z"]),
    ]
    sixteen = helper.make_tensor("sixteen", 7, [], [16])
    graph = helper.make_graph(nodes, "g", [floats[0], rate], floats[1:], [sixteen])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)])


def test_onnx_branches_are_followed_where_they_are_known(from_onnx):
    from onnx import helper

    x = np.float32([[1.0, -2.0, 3.0]])
    equal = helper.make_node("Equal", ["rate", "sixteen"], ["same"])
    for rate, expected in ((16, 2 * x), (8, np.maximum(x, 0))):
        network = from_onnx.convert(branching(helper, "same", equal), constants={"rate": rate}, outputs=["y"])
        assert_array_equal(network.forward(x), expected)
    shape = helper.make_node("Shape", ["x"], ["shape"], start=1, end=2)  # known from the input's shape
    three = helper.make_node("Equal", ["shape", "three"], ["same"])
    constant = helper.make_node("Constant", [], ["three"], value=helper.make_tensor("t", 7, [1], [3]))
    model = branching(helper, "same", constant, shape, three)
    assert_array_equal(from_onnx.convert(model, constants={"rate": 1}, outputs=["y"]).forward(x), 2 * x)
    with pytest.raises(UnsupportedError, match="the operator 'Erf' is not supported"):  # what z needs
        from_onnx.convert(model, constants={"rate": 1})
    total = helper.make_node("ReduceMax", ["x", "last"], ["sum"])
    last = helper.make_node("Constant", [], ["last"], value=helper.make_tensor("l", 7, [1], [1]))
    model = branching(helper, "sum", last, total)
    with pytest.raises(UnsupportedError, match="either: a branch that depends on the input"):
        from_onnx.convert(model, constants={"rate": 1}, outputs=["y"])
    with pytest.raises(LRPError, match="there is no input 'speed'; there are x, rate"):
        from_onnx.convert(model, constants={"speed": 1})
    with pytest.raises(LRPError, match="there is no output 'w'; there are y, z"):
        from_onnx.convert(model, constants={"rate": 1}, outputs=["w"])


def test_onnx_inputs_that_are_fixed_by_command(from_onnx, tmp_path, capsys):
    import onnx
    from onnx import helper

    equal = helper.make_node("Equal", ["rate", "sixteen"], ["same"])
    onnx.save(branching(helper, "same", equal), tmp_path / "m.onnx")
    run = ["convert", tmp_path / "m.onnx", "--out", tmp_path / "m.h5", "--outputs", "y"]

    def call(*more):
        return main([str(a) for a in (*run, *more)]), capsys.readouterr().err

    assert call("--constant", "rate=16") == (0, "")
    assert load(tmp_path / "m.h5").forward(np.ones((1, 3))).tolist() == [[2, 2, 2]]
    np.save(tmp_path / "rate.npy", np.array(8))
    assert call("--constant", f"rate={tmp_path / 'rate.npy'}") == (0, "")
    assert load(tmp_path / "m.h5").forward(np.ones((1, 3))).tolist() == [[1, 1, 1]]
    for bad, says in (
        ("rate", "must be NAME=VALUE"),
        ("rate=x", "must be a number"),
        ("rate=n.npy", "not exist"),
    ):
        code, err = call("--constant", bad)
        assert code == 1 and says in err


# ---------------------------------------------------------------- layers that exporters write out

SQRT2, TANH = 2**0.5, (2 / np.pi) ** 0.5
GELU_TORCH = "Div x r2 a; Erf a b; Add b one c; Mul x c d; Mul d half y"
LAYER_NORM_TORCH = (
    "ReduceMean x last m; Sub x m d; Pow d two s; ReduceMean s last v; Add v eps e; Sqrt e f; Div d f n"
)
WRITTEN_OUT = {
    "gelu": (GELU_TORCH, "GELU"),
    "gelu by tf2onnx": ("Mul half x a; Mul x r05 b; Erf b c; Add one c d; Mul a d y", "GELU"),
    "gelu, its half inside": ("Mul x r05 b; Erf b c; Mul c half d; Add d half e; Mul e x y", "GELU"),
    "tanh": (
        "Mul x x a; Mul x a b; Mul k b c; Add x c d; Mul t d e; Tanh e f; Add one f h; Mul x h i;"
        "Mul half i y",
        "GELU",
    ),
    "tanh with Pow": (
        "Pow x three b; Mul k b c; Add x c d; Mul d t e; Tanh e f; Add f one h; Mul half x i; Mul i h y",
        "GELU",
    ),
    "hard swish": ("Add x three a; Clip a zero six b; Mul x b c; Div c six y", "HardSwish"),
    "hard swish, clipped to 1": ("Mul x sixth a; Add a half b; Clip b zero one c; Mul c x y", "HardSwish"),
    "mish": ("Softplus x a; Tanh a b; Mul x b y", "Mish"),
    "layer norm": (LAYER_NORM_TORCH + "; Mul n g h; Add h be y", "LayerNorm"),
    "layer norm alone": (LAYER_NORM_TORCH + "; Identity n y", "LayerNorm"),
    "layer norm of x * x": (
        "ReduceMean x last m; Sub x m d; Mul d d s; ReduceMean s last v; Add v eps e; Sqrt e f;"
        "Reciprocal f r; Mul d r n; Mul g n h; Add be h y",
        "LayerNorm",
    ),
    "layer norm by Keras": (
        "ReduceMean x last m; Mul x x s; ReduceMean s last q; Mul m m mm; Sub q mm v; Add v eps e; Sqrt e f;"
        "Reciprocal f r; Mul r g rg; Neg m mn; Mul mn rg a; Add a be b; Mul x rg c; Add c b y",
        "LayerNorm",
    ),
    "layer norm of channels": (
        LAYER_NORM_TORCH.replace("last", "first") + "; Mul n gc h; Add h bc y",
        "LayerNorm",
    ),
    "rms norm": (
        "Pow x two s; ReduceMean s last v; Add v eps e; Sqrt e f; Reciprocal f r; Mul x r n; Mul n g y",
        "RMSNorm",
    ),
}


def written_out(text, opset=13, **changes):
    """An ONNX model in float64 of nodes such as ``Add a b y``, with the constants that formulas have."""
    from onnx import TensorProto, helper, numpy_helper

    rng = np.random.default_rng(0)
    constants = dict(
        **dict(r2=SQRT2, r05=0.5**0.5, half=0.5, one=1.0, two=2.0, three=3.0, zero=0.0, six=6.0, sixth=1 / 6),
        **dict(k=0.044715, t=TANH, eps=1e-3, g=rng.standard_normal(5), be=rng.standard_normal(5)),
        **dict(gc=rng.standard_normal((4, 1)), bc=rng.standard_normal((4, 1))),
    )
    constants = {k: np.array(v, np.float64) for k, v in {**constants, **changes}.items()}
    steps = [part.split() for part in text.split(";")]
    made = []
    for n, (op, *names) in enumerate(steps):
        axes = {"last": -1, "first": 1}.get(names[1])
        old = op == "ReduceMean" and opset < 18  # later the axes are an input
        attributes = {"axes": [axes]} if old else {}
        inputs = names[:1] if old else names[:-1]
        made.append(helper.make_node(op, inputs, names[-1:], f"step{n}", **attributes))
    ends = [helper.make_tensor_value_info(n, TensorProto.DOUBLE, ["n", 4, 5]) for n in "xy"]
    held = [numpy_helper.from_array(a, k) for k, a in constants.items()]
    held += [numpy_helper.from_array(np.array([a]), k) for k, a in (("last", -1), ("first", 1))]
    graph = helper.make_graph(made, "g", ends[:1], ends[1:], held)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)])


@pytest.mark.parametrize("opset", [13, 18])
@pytest.mark.parametrize("name", WRITTEN_OUT)
def test_formulas_of_layers_become_the_layer(name, opset, from_onnx):
    from onnx.reference import ReferenceEvaluator

    text, kind = WRITTEN_OUT[name]
    model = written_out(text, opset)
    network = from_onnx.convert(model)
    kinds = [type(n.layer).__name__ for n in network.nodes]
    assert [k for k in kinds if k != "Identity"] == [kind]
    x = 2 * np.random.default_rng(1).standard_normal((3, 4, 5))
    erf = "Erf" in text  # which the evaluator knows in float32 only
    close(network.forward(x), ReferenceEvaluator(model).run(None, {"x": x}), 1e-7 if erf else 1e-10)
    if kind in ("GELU", "HardSwish", "Mish"):
        assert (explain(network, x.reshape(3, 4, 5), seed=x).relevance == x).all()


@pytest.mark.parametrize(
    ("text", "changes", "says"),
    [
        (GELU_TORCH, {"half": 0.51}, "'Erf' is not supported"),
        (GELU_TORCH, {"r2": 1.414}, "'Erf' is not supported"),
        (GELU_TORCH, {"half": np.full((1, 1, 5), 0.5)}, "'Erf' is not supported"),  # could repeat x
        (GELU_TORCH, {"half": np.full((1, 1, 1, 1), 0.5)}, "constant with 4 axes"),
        (GELU_TORCH.replace("y", "z") + "; Add z b y", {}, "'Erf' is not supported"),  # b is read again
        (LAYER_NORM_TORCH.replace("Add v", "Sub v") + "; Identity n y", {}, "a quotient of two values"),
        (LAYER_NORM_TORCH.replace("Pow d", "Pow x") + "; Identity n y", {}, "a quotient of two values"),
        (LAYER_NORM_TORCH + "; Add n f y", {}, "a quotient of two values"),
    ],
)
def test_formulas_that_are_nearly_those_of_a_layer_are_refused(text, changes, says, from_onnx):
    with pytest.raises(UnsupportedError, match=says):
        from_onnx.convert(written_out(text, **changes))


def test_normalizations_of_other_axes_or_values(from_onnx):
    from onnx.reference import ReferenceEvaluator

    for text, kinds in (
        (LAYER_NORM_TORCH + "; Mul n gc h; Add h be y", {"LayerNorm", "Affine"}),
        (LAYER_NORM_TORCH.replace("s last", "s first") + "; Identity n y", {"RMSNorm", "Subtract"}),
        (LAYER_NORM_TORCH + "; Add n d y", {"RMSNorm", "Subtract", "Add"}),  # d is read again
    ):
        model = written_out(text)
        network = from_onnx.convert(model)
        assert kinds <= {type(n.layer).__name__ for n in network.nodes}
        x = np.random.default_rng(1).standard_normal((3, 4, 5))
        close(network.forward(x), ReferenceEvaluator(model).run(None, {"x": x}), 1e-10)


def test_what_pytorch_writes_out_is_read(from_onnx, torch):
    """Its exporter for operator sets before 17, for layers and for modules that do it themselves."""
    import io
    import warnings

    import onnx

    nn, F = torch.nn, torch.nn.functional

    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.steps = nn.Sequential(nn.Linear(6, 5), nn.LayerNorm(5), nn.GELU(), nn.Linear(5, 5))
            self.norm, self.last = nn.LayerNorm((4, 5)), nn.Linear(5, 3)

        def forward(self, x):
            x = self.steps(x)
            x = x + F.gelu(self.norm(x), approximate="tanh")
            x = x * F.relu6(x + 3) / 6
            return self.last(F.mish(F.hardswish(x)))

    module = Net().eval()
    with torch.no_grad():
        for p in module.parameters():
            p.normal_()
    x = torch.randn(2, 4, 6)
    for opset in (11, 14):
        file = io.BytesIO()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            torch.onnx.export(module, (x,), file, opset_version=opset, dynamo=False)
        network = from_onnx.convert(onnx.load_from_string(file.getvalue()))
        kinds = [type(n.layer).__name__ for n in network.nodes]
        assert [kinds.count(k) for k in ("LayerNorm", "GELU", "Mish", "Affine")] == [2, 2, 1, 0]
        assert [n.layer.bias is None for n in network.nodes if isinstance(n.layer, Dense)] == [False] * 3
        close(network.forward(x.double().numpy()), [module(x).detach().numpy()], 1e-5)


@pytest.mark.parametrize(
    ("op", "attributes", "shape"),
    [
        ("Celu", {"alpha": 0.7}, (3, 4)),
        ("Mish", {}, (3, 4)),
        ("Abs", {}, (3, 4)),
        ("SpaceToDepth", {"blocksize": 2}, (3, 4, 6)),
    ],
)
def test_onnx_operators_alone(op, attributes, shape, from_onnx):
    from onnx import TensorProto, helper
    from onnx.reference import ReferenceEvaluator

    ends = [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", *shape])]
    ends.append(helper.make_tensor_value_info("y", TensorProto.FLOAT, None))
    graph = helper.make_graph([helper.make_node(op, ["x"], ["y"], **attributes)], "g", ends[:1], ends[1:])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)])
    x = np.random.default_rng(0).standard_normal((2, *shape)).astype(np.float32)
    close(from_onnx.convert(model).forward(x), ReferenceEvaluator(model).run(None, {"x": x}), 2e-6)


def test_onnx_on_the_command_line(from_onnx, tmp_path, capsys):
    import onnx

    model, x, y = make.onnx_model("onnx_images")
    onnx.helper.set_model_props(model, {"class_names": '["a", "b", "c"]'})
    onnx.save(model, tmp_path / "m.onnx")
    assert main(["convert", str(tmp_path / "m.onnx"), "--out", str(tmp_path / "m.h5")]) == 0
    network = load(tmp_path / "m.h5")
    assert network.metadata["class_names"] == ["a", "b", "c"]
    close(network.forward(x), [y], 2e-6)
    (tmp_path / "labels.txt").write_text("0 tabby cat\n1 dog\n2 cow\n")
    options = [
        "--class-names",
        str(tmp_path / "labels.txt"),
        "--input-range",
        "0",
        "1/2",
        "--input-shape",
        *"378",
    ]
    assert main(["convert", str(tmp_path / "m.onnx"), *options, "--out", str(tmp_path / "m.h5")]) == 0
    metadata = load(tmp_path / "m.h5").metadata
    assert metadata["class_names"] == ["tabby cat", "dog", "cow"] and metadata["input_range"] == [0, 0.5]
    (tmp_path / "labels.txt").write_text("cat\ndog")
    assert main(["convert", str(tmp_path / "m.onnx"), *options, "--out", str(tmp_path / "n.h5")]) == 1
    assert "2 class names" in capsys.readouterr().err and not (tmp_path / "n.h5").exists()


# ---------------------------------------------------------------- plain tensors


def state(tmp_path, **changes):
    """Tensors of a small network under PyTorch's names, its architecture, and the network built by hand."""
    rng = np.random.default_rng(0)
    arrays = {
        "net.conv.weight": rng.standard_normal((4, 3, 3, 3)),
        "net.bn.weight": rng.standard_normal(4),
        "net.bn.bias": rng.standard_normal(4),
        "net.bn.running_mean": rng.standard_normal(4),
        "net.bn.running_var": rng.uniform(0.3, 2, 4),
        "net.bn.num_batches_tracked": np.array(7),
        "net.head.weight": rng.standard_normal((2, 4)),
        "net.head.bias": rng.standard_normal(2),
    }
    arrays.update(changes)
    with h5py.File(tmp_path / "tensors.h5", "w") as file:
        for name, array in arrays.items():
            if array is not None:
                file[name] = array
    architecture = {
        "input_shape": [3, 6, 6],
        "prefix": "net.",
        "class_names": ["a", "b"],
        "layers": [
            {"name": "conv", "kind": "Conv2D", "padding": [[1, 0], [1, 1]], "stride": 2},
            {"name": "bn", "kind": "BatchNorm", "eps": 0.01},
            {"name": "relu", "kind": "ReLU"},
            {"name": "sum", "kind": "Add", "inputs": ["relu", "conv"]},
            {"name": "pool", "kind": "GlobalAveragePool"},
            {"name": "fc", "kind": "Dense", "tensors": "head"},
        ],
    }
    own = [arrays[f"net.bn.{n}"] for n in ("weight", "bias", "running_mean", "running_var")]
    twin = lambda: Network(  # noqa: E731
        [
            ("conv", Conv2D(arrays["net.conv.weight"], None, 2, ((1, 0), (1, 1)))),
            ("bn", BatchNorm(*own, eps=0.01)),
            ("relu", ReLU()),
            ("sum", KINDS["Add"](), ("relu", "conv")),
            ("pool", KINDS["GlobalAveragePool"]()),
            ("fc", Dense(arrays["net.head.weight"], arrays["net.head.bias"])),
        ],
        (3, 6, 6),
    )
    return tmp_path / "tensors.h5", architecture, twin


def test_tensors_and_an_architecture_make_a_network(tmp_path, capsys):
    path, architecture, twin = state(tmp_path)
    x = np.random.default_rng(1).standard_normal((2, 3, 6, 6))
    network = tensors.load(path, architecture)
    assert_allclose(network.forward(x), twin().forward(x), rtol=1e-12)
    assert network.metadata["class_names"] == ["a", "b"]
    with pytest.raises(FileError, match="not a network of numpylrp's schema"):
        load(path)
    (tmp_path / "other.json").write_text(json.dumps(architecture))
    assert_allclose(load(path, architecture=tmp_path / "other.json").forward(x), network.forward(x))
    (tmp_path / "tensors.json").write_text(json.dumps(architecture))
    assert_allclose(load(path).forward(x), network.forward(x))
    assert main(["convert", str(path), "--out", str(tmp_path / "m.h5")]) == 0
    assert_allclose(load(tmp_path / "m.h5").forward(x), network.forward(x))
    # groups in the file count as dots; a tensor may be named for each parameter
    with h5py.File(path) as source, h5py.File(tmp_path / "nested.h5", "w") as nested:
        for name in source:
            nested[name.replace(".", "/")] = source[name][()]
    architecture["layers"][-1]["tensors"] = {"weight": "head.weight", "bias": "head.bias"}
    assert_allclose(tensors.load(tmp_path / "nested.h5", architecture).forward(x), network.forward(x))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"net.head.weight": None}, r"layer 'fc' \(Dense\) lacks net.head.weight"),
        ({"net.bn.running_var": None}, "layer 'bn' .* lacks net.bn.variance or net.bn.running_var"),
        ({"net.more": np.ones(2)}, "no layer of the architecture reads net.more"),
        ({"net.head.bias": np.ones(3)}, r"layer 'fc': Dense: weight \(2, 4\) has 2 outputs"),
        ({"net.head.weight": np.array(["a"], "S")}, "is not an array of numbers"),
    ],
)
def test_tensors_that_do_not_fit_are_named(tmp_path, change, message):
    path, architecture, _ = state(tmp_path, **change)
    with pytest.raises(LRPError, match=message):
        tensors.load(path, architecture)


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ({"name": "fc", "kind": "Linear"}, "unknown kind 'Linear'; there are"),
        (
            {"name": "fc", "kind": "Dense", "tensors": "head", "units": 3},
            "has no option 'units'; there are bias",
        ),
        ({"name": "fc"}, "entry 5 .* has no kind"),
    ],
)
def test_architectures_that_are_wrong_are_refused(tmp_path, entry, message):
    path, architecture, _ = state(tmp_path)
    architecture["layers"][-1] = entry
    with pytest.raises(LRPError, match=message):
        tensors.load(path, architecture)
    with pytest.raises(FileError, match="has no 'layers'"):
        tensors.load(path, {"input_shape": [3]})


def test_pickles_are_never_unpickled(tmp_path):
    path = tmp_path / "model.pth"
    path.write_bytes(b"PK\x03\x04 whatever")
    with pytest.raises(FileError, match="never unpickled here"):
        load(path)


# ---------------------------------------------------------------- the page about the schema

PAGE = Path(__file__).parents[1] / "numpylrp" / "convert" / "SCHEMA.md"


def test_the_example_of_the_schema_page_works(tmp_path, monkeypatch):
    """Written with h5py alone, from parameters as JAX and Flax lay them out."""
    monkeypatch.chdir(tmp_path)
    (code,) = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.S)
    assert "numpylrp" not in re.sub(r'"numpylrp"', "", code)
    space = {}
    exec(compile(code, str(PAGE), "exec"), space)
    network, params = load("model.h5"), space["params"]
    x = np.random.default_rng(0).standard_normal((2, 8, 8, 3))
    # the same with plain loops, channels last
    w, b = params["Conv_0"]["kernel"].astype(float), params["Conv_0"]["bias"].astype(float)
    padded = np.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
    y = np.zeros((2, 8, 8, 4))
    for i in range(3):
        for j in range(3):
            y += padded[:, i : i + 8, j : j + 8] @ w[i, j]
    bn, stats = params["BatchNorm_0"], space["stats"]["BatchNorm_0"]
    y = (y + b - stats["mean"]) / np.sqrt(stats["var"] + 1e-5) * bn["scale"] + bn["bias"]
    y = np.maximum(y, 0).reshape(2, -1) @ params["Dense_0"]["kernel"] + params["Dense_0"]["bias"]
    assert_allclose(network.forward(x), y, rtol=1e-6)
    assert explain(network, x, "dog").relevance.shape == x.shape


def test_the_schema_page_names_every_kind_and_parameter():
    import dataclasses

    text = PAGE.read_text(encoding="utf-8")
    for name, kind in KINDS.items():
        row = next((line for line in text.splitlines() if re.match(rf"\|.*`{name}`", line)), None)
        assert row is not None, name
        for field in dataclasses.fields(kind):
            assert f"`{field.name}`" in row, f"{name}.{field.name}"


# ---------------------------------------------------------------- models of others


def resnet20(torch):
    """ResNet-20 for CIFAR-10 with option-A shortcuts, under the names of the shared state dict."""
    nn, F = torch.nn, torch.nn.functional

    class Block(nn.Module):
        def __init__(self, into, out, stride):
            super().__init__()
            self.conv1, self.bn1 = nn.Conv2d(into, out, 3, stride, 1, bias=False), nn.BatchNorm2d(out)
            self.conv2, self.bn2 = nn.Conv2d(out, out, 3, 1, 1, bias=False), nn.BatchNorm2d(out)
            self.more = (out - into) // 2

        def forward(self, x):
            y = self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x)))))
            if self.more:
                x = F.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, self.more, self.more))
            return F.relu(y + x)

    class ResNet(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv1, self.bn1 = nn.Conv2d(3, 16, 3, 1, 1, bias=False), nn.BatchNorm2d(16)
            stage = lambda a, b, s: nn.Sequential(Block(a, b, s), Block(b, b, 1), Block(b, b, 1))  # noqa: E731
            self.layer1, self.layer2, self.layer3 = stage(16, 16, 1), stage(16, 32, 2), stage(32, 64, 2)
            self.linear = nn.Linear(64, 10)

        def forward(self, x):
            x = self.layer3(self.layer2(self.layer1(F.relu(self.bn1(self.conv1(x))))))
            return self.linear(F.avg_pool2d(x, x.size()[3]).view(x.size(0), -1))

    return ResNet()


def test_shared_resnet20(exporter, torch, tmp_path):
    """ResNet-20 of akamaster; its 91.73 % on CIFAR-10 is checked where the images are."""
    path = SHARED / "models" / "resnet20-12fca82f.th"
    if not path.exists():
        pytest.skip("the shared models are not here")
    held = torch.load(path, map_location="cpu", weights_only=True)["state_dict"]
    module = resnet20(torch)
    module.load_state_dict({k.removeprefix("module."): v for k, v in held.items()})
    exporter.save(
        module,
        torch.randn(2, 3, 32, 32),
        tmp_path / "m.h5",
        mean=[0.485, 0.456, 0.406],
        std=[0.229, 0.224, 0.225],
    )
    network = load(tmp_path / "m.h5")
    fused, report = fuse(network)
    assert report.exact and len(report.entries) == 20  # 19 batch normalizations, and the standardized input
    x = np.random.default_rng(0).uniform(0, 1, (3, 3, 32, 32))
    assert_allclose(fused.forward(x), network.forward(x), rtol=1e-10, atol=1e-12)
    images = os.environ.get("NUMPYLRP_CIFAR10")
    if images is None:
        pytest.skip("NUMPYLRP_CIFAR10 does not name an npz with x_test and y_test")
    with np.load(images) as data:
        x, y = data["x_test"].transpose(0, 3, 1, 2), data["y_test"]
    for chosen in (network.astype(np.float32), fused.astype(np.float32)):
        parts = (slice(n, n + 500) for n in range(0, 10_000, 500))
        right = sum((chosen.forward(x[p] / np.float32(255)).argmax(1) == y[p]).sum() for p in parts)
        assert right == 9173


def test_the_file_does_not_depend_on_what_reads_it(tmp_path):
    """A stored model, saved again, gives the same bytes for every array."""
    network = load(FOLDER / "option_a.h5", dtype=None)
    save(network, tmp_path / "again.h5")
    assert (tmp_path / "again.h5").read_bytes() == (FOLDER / "option_a.h5").read_bytes()
