"""Keras models in the forms in which they are found, read without Keras."""

import io
import json
import os
import zipfile
from pathlib import Path

import h5py
import numpy as np
import pytest
from numpy.testing import assert_allclose

from numpylrp import explain, fuse, load, save
from numpylrp.cli import main
from numpylrp.convert import keras
from numpylrp.errors import FileError, LRPError, NonFiniteError, UnsupportedError
from numpylrp.layers import AveragePool2D, Conv2DTranspose, Multiply

FOLDER = Path(__file__).parent / "keras"
NAMES = sorted(p.stem for p in FOLDER.glob("*.npz"))
SHARED = Path(os.environ.get("NUMPYLRP_SHARED", Path(__file__).parents[2] / "shared"))


@pytest.mark.parametrize("ending", ["keras", "h5"])
@pytest.mark.parametrize("name", NAMES)
def test_stored_models_give_what_keras_gave(name, ending):
    """The outputs were computed by Keras in float32 when the files were written (tests/keras/make.py)."""
    data = np.load(FOLDER / f"{name}.npz")
    network = load(FOLDER / f"{name}.{ending}")
    y = network.forward(data["x"])
    assert y.shape == data["y"].shape
    assert_allclose(y, data["y"], rtol=0, atol=2e-6 * max(1, abs(data["y"]).max()))
    fused, _ = fuse(network)
    assert_allclose(fused.forward(data["x"]), y, rtol=1e-10, atol=1e-12)
    e = explain(network, data["x"], 0)
    assert e.relevance.shape == data["x"].shape and np.isfinite(e.relevance).all() and e.relevance.any()


def test_there_are_stored_models():
    assert len(NAMES) >= 9


def test_weights_only_with_the_architecture_beside(tmp_path):
    (name,) = (p.name.removesuffix("_only.weights.h5") for p in FOLDER.glob("*_only.weights.h5"))
    data = np.load(FOLDER / f"{name}.npz")
    network = load(FOLDER / f"{name}_only.weights.h5")
    assert_allclose(network.forward(data["x"]), data["y"], rtol=0, atol=2e-6)
    alone = tmp_path / "alone.weights.h5"
    alone.write_bytes((FOLDER / f"{name}_only.weights.h5").read_bytes())
    with pytest.raises(FileError, match=r"weights only, and its architecture .*alone\.json does not exist"):
        load(alone)
    given = keras.load(alone, architecture=FOLDER / f"{name}_only.json")
    assert_allclose(given.forward(data["x"]), data["y"], rtol=0, atol=2e-6)


def test_a_gate_gives_its_relevance_to_the_signal():
    network = load(FOLDER / "residual.keras")
    signals = [n.layer.signal for n in network.nodes if isinstance(n.layer, Multiply)]
    assert sorted(signals, key=str) == [1, None]


@pytest.mark.parametrize("live", NAMES)
def test_fresh_models_equal_keras(live, tmp_path, monkeypatch):
    """Written by Keras now, and computed by it in float32: hence the tolerance."""
    pytest.importorskip("torch", reason="PyTorch, Keras' backend here, is not installed")
    os.environ.setdefault("KERAS_BACKEND", "torch")
    pytest.importorskip("keras", reason="Keras is not installed")
    monkeypatch.syspath_prepend(str(FOLDER))
    import make

    model = make.randomized(make.models()[live](), seed=5)
    x = make.inputs(model, seed=6)
    y = np.asarray(model.predict(x, verbose=0))
    for ending in ("keras", "h5"):
        model.save(tmp_path / f"m.{ending}")
        ours = load(tmp_path / f"m.{ending}").forward(x)
        assert_allclose(ours, y, rtol=0, atol=2e-6 * max(1, abs(y).max()))


# ---------------------------------------------------------------- older spellings


def legacy(path, layers, weights, kind="Sequential", version=b"1.2.2", **more):
    """A whole-model file as Keras 1 and 2 wrote it."""
    config = layers if isinstance(layers, list) and not more else {"layers": layers, "name": "model", **more}
    with h5py.File(path, "w") as file:
        file.attrs["model_config"] = json.dumps({"class_name": kind, "config": config}).encode()
        if version:
            file.attrs["keras_version"] = version
        group = file.create_group("model_weights")
        group.attrs["layer_names"] = [entry["config"]["name"].encode() for entry in layers]
        for entry in layers:
            name = entry["config"]["name"]
            sub = group.create_group(name)
            arrays = weights.get(name, {})
            sub.attrs["weight_names"] = [f"{name}/{n}:0".encode() for n in arrays]
            for n, array in arrays.items():
                sub[f"{name}/{n}:0"] = np.asarray(array, np.float32)
    return path


def entry(kind, name, **config):
    return {"class_name": kind, "config": {"name": name, **config}}


R = np.random.default_rng(0)
DENSE = {"kernel": R.standard_normal((4, 2)), "bias": R.standard_normal(2)}


def test_old_spellings(tmp_path):
    """A list as configuration, batch_input_shape, keep_dims, BatchNormalizationV1, no groups."""
    kernel = R.standard_normal((2, 2, 3, 1))
    bn = {n: R.uniform(0.5, 2, 3) for n in ("gamma", "beta", "moving_mean", "moving_variance")}
    layers = [
        entry(
            "DepthwiseConv2D",
            "dw",
            batch_input_shape=[None, 4, 4, 3],
            kernel_size=[2, 2],
            strides=[1, 1],
            padding="valid",
            use_bias=False,
            activation="linear",
            groups=1,
        ),
        entry("BatchNormalizationV1", "bn", axis=[3], epsilon=0.01, scale=True, center=True),
        entry("GlobalAveragePooling2D", "gap", keep_dims=True),
        entry("Activation", "hard", activation="hard_sigmoid"),
        entry("Flatten", "flat"),
        entry("Dense", "fc", use_bias=True, activation="softmax"),
    ]
    dense = {"kernel": R.standard_normal((3, 2)), "bias": R.standard_normal(2)}
    path = legacy(tmp_path / "old.h5", layers, {"dw": {"depthwise_kernel": kernel}, "bn": bn, "fc": dense})
    x = R.standard_normal((2, 4, 4, 3))
    f32 = {n: np.float32(a).astype(float) for n, a in {**bn, **dense, "w": kernel}.items()}
    conv = np.zeros((2, 3, 3, 3))
    for p in range(3):
        for q in range(3):
            conv[:, p, q] = (x[:, p : p + 2, q : q + 2] * f32["w"][..., 0]).sum((1, 2))
    z = f32["gamma"] * (conv - f32["moving_mean"]) / np.sqrt(f32["moving_variance"] + 0.01) + f32["beta"]
    pooled = np.clip(0.2 * z.mean((1, 2)) + 0.5, 0, 1)
    logits = pooled @ f32["kernel"] + f32["bias"]
    expected = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    assert_allclose(load(path).forward(x), expected, rtol=1e-10)


@pytest.mark.parametrize("version", [b"1.2.2", None])
@pytest.mark.parametrize("backend", [b"theano", b"tensorflow", None])
def test_a_model_of_keras_1(tmp_path, version, backend):
    """Its names and orders of axes; Theano turns kernels around where it convolves."""
    w, b = R.standard_normal((3, 2, 2, 2)), R.standard_normal(3)  # (filters, inputs, rows, columns)
    bn = {n: R.uniform(0.5, 2, 3) for n in ("gamma", "beta", "running_mean", "running_std")}
    fc = {"W": R.standard_normal((3 * 2 * 3, 2)), "b": R.standard_normal(2)}
    conv = {
        "nb_filter": 3,
        "nb_row": 2,
        "nb_col": 2,
        "subsample": [1, 1],
        "border_mode": "valid",
        "bias": True,
    }
    layers = [
        entry(
            "ZeroPadding2D", "pad", batch_input_shape=[None, 2, 4, 6], padding=[1, 0, 0, 1], dim_ordering="th"
        ),
        entry("Convolution2D", "conv", activation="relu", dim_ordering="th", **conv),
        entry("BatchNormalization", "bn", mode=0, axis=1, epsilon=0.01),
        entry("Dropout", "drop", p=0.5),
        entry(
            "MaxPooling2D", "pool", pool_size=[2, 2], strides=[2, 2], border_mode="valid", dim_ordering="th"
        ),
        entry("Flatten", "flat"),
        entry("Dense", "fc", output_dim=2, bias=True, activation="linear"),
    ]
    path = legacy(tmp_path / "k1.h5", layers, {"conv": {"W": w, "b": b}, "bn": bn, "fc": fc}, version=version)
    if backend:
        with h5py.File(path, "a") as file:
            file["model_weights"].attrs["backend"] = backend
    single = lambda a: np.float32(a).astype(float)  # noqa: E731
    w = single(w)[:, :, ::-1, ::-1] if backend == b"theano" else single(w)
    x = R.standard_normal((2, 2, 4, 6))
    padded = np.pad(x, ((0, 0), (0, 0), (1, 0), (0, 1)))
    y = np.zeros((2, 3, 4, 6))
    for p in range(4):
        for q in range(6):
            y[:, :, p, q] = np.einsum("ncij,ocij->no", padded[:, :, p : p + 2, q : q + 2], w) + single(b)
    gamma, beta, mean, variance = (single(a)[:, None, None] for a in bn.values())
    y = gamma * (np.maximum(y, 0) - mean) / np.sqrt(variance + 0.01) + beta
    y = y.reshape(2, 3, 2, 2, 3, 2).max((3, 5)).reshape(2, -1)
    assert_allclose(load(path).forward(x), y @ single(fc["W"]) + single(fc["b"]), rtol=1e-10)


@pytest.mark.parametrize("groups", [2, -1])
def test_group_normalization_without_scale_and_shift(tmp_path, groups):
    layer = entry(
        "GroupNormalization",
        "gn",
        batch_input_shape=[None, 2, 3, 4],
        groups=groups,
        axis=-1,
        epsilon=0.01,
        scale=False,
        center=False,
    )
    x = R.standard_normal((2, 2, 3, 4))
    cut = x.reshape(2, 6, groups if groups > 0 else 4, -1)
    expected = (cut - cut.mean((1, 3), keepdims=True)) / np.sqrt(cut.var((1, 3), keepdims=True) + 0.01)
    y = load(legacy(tmp_path / "g.h5", [layer], {}, version=b"2.9.0")).forward(x)
    assert_allclose(y, expected.reshape(x.shape), rtol=1e-10)


def test_an_activation_that_is_a_layer_keeps_its_options(tmp_path):
    """As Keras 3 writes ``Dense(4, activation=LeakyReLU(negative_slope=0.05))``."""
    x = R.standard_normal((5, 4))
    z = x @ np.float32(DENSE["kernel"]).astype(float) + np.float32(DENSE["bias"])
    for kind, options, expected in (
        ("LeakyReLU", {"negative_slope": 0.05}, np.where(z > 0, z, 0.05 * z)),
        ("ReLU", {"max_value": 0.5}, np.clip(z, 0, 0.5)),
        ("ELU", {"alpha": 0.3}, np.where(z > 0, z, 0.3 * np.expm1(z))),
    ):
        what = {"module": "keras.layers", "class_name": kind, "config": {"name": "a", **options}}
        for layers in (
            [entry("Dense", "fc", batch_input_shape=[None, 4], activation=what)],
            [entry("Dense", "fc", batch_input_shape=[None, 4]), entry("Activation", "act", activation=what)],
        ):
            network = load(legacy(tmp_path / "a.h5", layers, {"fc": DENSE}, version=b"3.1.0"))
            assert_allclose(network.forward(x), expected, rtol=1e-10)
    what = {"class_name": "Snake", "config": {"name": "a", "frequency": 3}}
    with pytest.raises(UnsupportedError, match="'Snake' with options of its own"):
        load(
            legacy(
                tmp_path / "a.h5",
                [entry("Dense", "fc", batch_input_shape=[None, 4], activation=what)],
                {"fc": DENSE},
            )
        )


def test_weights_that_contradict_the_configuration_are_refused(tmp_path):
    layer = entry("Dense", "fc", batch_input_shape=[None, 4], units=99)
    with pytest.raises(FileError, match=r"'fc' \(Dense\): the configuration has units 99, but the weights 2"):
        load(legacy(tmp_path / "a.h5", [layer], {"fc": DENSE}))
    kernel = {"kernel": R.standard_normal((3, 3, 1, 2))}
    layer = entry("Conv2D", "c", batch_input_shape=[None, 5, 5, 1], kernel_size=[5, 5], use_bias=False)
    with pytest.raises(FileError, match=r"kernel_size \[5, 5\], but the weights \[3, 3\]"):
        load(legacy(tmp_path / "a.h5", [layer], {"c": kernel}))


def test_merges_and_sound_of_keras_1(tmp_path):
    """A functional model with Merge, and Convolution1D, whose kernels have an axis too many."""
    w = R.standard_normal((3, 1, 2, 4))
    layers = [
        {**entry("InputLayer", "in", batch_input_shape=[None, 5, 2]), "name": "in", "inbound_nodes": []},
        *(
            {
                **entry(
                    "Convolution1D",
                    name,
                    nb_filter=4,
                    filter_length=3,
                    subsample_length=1,
                    border_mode="same",
                    bias=False,
                    activation=activation,
                ),
                "name": name,
                "inbound_nodes": [[["in", 0, 0]]],
            }
            for name, activation in (("a", "relu"), ("b", "tanh"))
        ),
        {
            **entry("Merge", "both", mode="concat", concat_axis=-1),
            "name": "both",
            "inbound_nodes": [[["a", 0, 0], ["b", 0, 0]]],
        },
        {
            **entry("Merge", "sum", mode="sum"),
            "name": "sum",
            "inbound_nodes": [[["both", 0, 0], ["both", 0, 0]]],
        },
    ]
    ends = {"input_layers": [["in", 0, 0]], "output_layers": [["sum", 0, 0]]}
    path = legacy(
        tmp_path / "m.h5", layers, {"a": {"W": w}, "b": {"W": -w}}, kind="Model", version=b"1.1.0", **ends
    )
    x = R.standard_normal((2, 5, 2))
    padded, kernel = np.pad(x, ((0, 0), (1, 1), (0, 0))), np.float32(w).astype(float)[:, 0]
    y = np.stack([np.einsum("nti,tio->no", padded[:, t : t + 3], kernel) for t in range(5)], 1)
    expected = 2 * np.concatenate([np.maximum(y, 0), np.tanh(-y)], -1)
    assert_allclose(load(path).forward(x), expected, rtol=1e-10)
    old = legacy(tmp_path / "o.h5", layers, {"a": {"W": w.T}, "b": {"W": -w.T}}, kind="Model", **ends)
    with h5py.File(old, "a") as file:  # Keras 1.0: (filters, inputs, length, 1)
        for name, sign in (("a", 1), ("b", -1)):
            del file[f"model_weights/{name}/{name}/W:0"]
            file[f"model_weights/{name}/{name}/W:0"] = sign * np.float32(w).transpose(3, 2, 0, 1)
    assert_allclose(load(old).forward(x), expected, rtol=1e-10)
    layers[-1] = {
        **entry("Merge", "sum", mode="dot"),
        "name": "sum",
        "inbound_nodes": layers[-1]["inbound_nodes"],
    }
    with pytest.raises(UnsupportedError, match="Merge of mode 'dot'"):
        load(legacy(tmp_path / "d.h5", layers, {}, kind="Model", **ends))
    bad = [entry("BatchNormalization", "bn", batch_input_shape=[None, 4], mode=1)]
    with pytest.raises(UnsupportedError, match="mode 1 mixes samples"):
        load(legacy(tmp_path / "b.h5", bad, {}))


def operation(name, function, *nodes, kind="TFOpLambda"):
    made = entry(kind, name, trainable=True, dtype="float32", function=function)
    return {**made, "name": name, "inbound_nodes": [list(node) for node in nodes]}


def functional(path, layers, version=b"2.9.0", **options):
    first = {**entry("InputLayer", "in", batch_input_shape=[None, 4, 3]), "name": "in", "inbound_nodes": []}
    ends = {"input_layers": [["in", 0, 0]], "output_layers": [[layers[-1]["name"], 0, 0]]}
    return legacy(path, [first, *layers], {}, kind="Functional", version=version, **ends, **options)


def test_operations_of_keras_2(tmp_path):
    """As ``(1 - (x * [..] / 4 + x)) - -2`` and slices are stored: TFOpLambda and SlicingOpLambda."""
    part = {"start": 1, "stop": None, "step": 2}
    all_of_it = dict.fromkeys(part)
    slices = [["l", 0, 0, {"slice_spec": [all_of_it, part, {**all_of_it, "stop": -1}]}]]
    layers = [
        operation("m", "math.multiply", ["in", 0, 0, {"y": [1.0, 2.0, 3.0], "name": None}]),
        operation("d", "math.truediv", ["m", 0, 0, {"y": 4, "name": None}]),
        operation("s", "__operators__.add", ["d", 0, 0, {"y": ["in", 0, 0], "name": None}]),
        operation("r", "math.subtract", ["_CONSTANT_VALUE", -1, 1.0, {"y": ["s", 0, 0], "name": None}]),
        operation("a", "math.subtract", ["r", 0, 0, {"y": -2.0, "name": None}]),
        operation("u", "math.minimum", ["a", 0, 0, {"y": 1.5, "name": None}]),
        operation("l", "math.maximum", ["u", 0, 0, {"y": 0, "name": None}]),
        operation("p", "__operators__.getitem", *slices, kind="SlicingOpLambda"),
    ]
    x = R.standard_normal((2, 4, 3))
    expected = 1 - (x * np.array([1.0, 2.0, 3.0]) / 4 + x) + 2
    network = load(functional(tmp_path / "o.h5", layers))
    expected = np.clip(expected, 0, 1.5)
    assert_allclose(network.forward(x), expected[:, 1::2, :-1], rtol=1e-12)
    e = explain(network, x, seed=np.ones((2, 2, 2)), composite="epsilon")
    assert e.relevance.shape == x.shape and not e.relevance[:, ::2].any()


OPERATIONS_REFUSED = [
    ("math.truediv", ["_CONSTANT_VALUE", -1, 1.0, {"y": ["in", 0, 0]}], "division by a tensor"),
    ("math.truediv", ["in", 0, 0, {"y": ["in", 0, 0]}], "division by a tensor"),
    (
        "math.sin",
        ["in", 0, 0, {}],
        r"'o' \(math.sin\): the operation is not supported: explain the part of the model up to it",
    ),
    ("math.multiply", ["in", 0, 0, {"y": [[1.0, 2.0, 3.0]] * 5}], r"constant of shape \(5, 3\)"),
    ("math.multiply", ["in", 0, 0, {"y": [1.0, 2.0]}], r"has 2 channels, but axis 1"),
    ("math.multiply", ["in", 0, 0, {"y": "two"}], "the constant 'two' is not supported"),
    ("__operators__.getitem", ["in", 0, 0, {"slice_spec": [0]}], "slice of the batch"),
    (
        "__operators__.getitem",
        ["in", 0, 0, {"slice_spec": [{"start": 1, "stop": None, "step": None}]}],
        "batch",
    ),
    (
        "__operators__.getitem",
        ["in", 0, 0, {"slice_spec": [{"start": None, "stop": None, "step": None}, "..."]}],
        "index '...' is not supported",
    ),
]


@pytest.mark.parametrize(("function", "node", "says"), OPERATIONS_REFUSED)
def test_operations_that_have_no_layer_are_refused(function, node, says, tmp_path):
    with pytest.raises(LRPError, match=says):
        load(functional(tmp_path / "o.h5", [operation("o", function, node)]))


def test_one_number_of_each_sample(tmp_path):
    """``x[:, 2, 1]`` leaves no axis but the batch; kept by our own files too."""
    spec = [dict.fromkeys(("start", "stop", "step"), None), 2, 1]
    node = ["in", 0, 0, {"slice_spec": spec}]
    network = load(functional(tmp_path / "o.h5", [operation("o", "__operators__.getitem", node)]))
    save(network, tmp_path / "ours.h5")
    x = R.standard_normal((2, 4, 3))
    for n in (network, load(tmp_path / "ours.h5")):
        assert (n.forward(x) == x[:, 2, 1]).all()
        expected = np.zeros((2, 4, 3))
        expected[:, 2, 1] = x[:, 2, 1]
        assert (explain(n, x).relevance == expected).all()


def test_a_wrapper_of_another_layer_is_that_layer_for_every_step(tmp_path):
    layer = {"class_name": "Conv2D", "config": {"name": "c", "use_bias": False, "kernel_size": [3, 3]}}
    wrapped = entry("TimeDistributed", "t", batch_input_shape=[None, 2, 4, 4, 1], layer=layer)
    kernel = np.arange(18.0).reshape(3, 3, 1, 2)
    path = legacy(tmp_path / "t.h5", [wrapped], {"t": {"kernel": kernel}}, version=b"2.9.0")
    x = np.random.default_rng(0).standard_normal((3, 2, 4, 4, 1))
    y = load(path).forward(x)
    assert y.shape == (3, 2, 2, 2, 2)
    want = np.einsum(
        "ntijab,abo->ntijo",
        np.lib.stride_tricks.sliding_window_view(x[..., 0], (3, 3), (2, 3)),
        kernel[:, :, 0],
    )
    assert_allclose(y, want, rtol=1e-6)


def test_nested_models_of_keras_2_store_trained_weights_first(tmp_path):
    """A model as a layer: its weights are one list, what is trained before what is not."""
    inner = [
        entry("Dense", "a", use_bias=True, activation="linear", batch_input_shape=[None, 4]),
        entry("BatchNormalization", "b", axis=[1], epsilon=0.1, scale=True, center=True),
        entry("Dense", "c", use_bias=False, activation="relu"),
    ]
    outer = [
        {"class_name": "Sequential", "config": {"name": "inner", "layers": inner}},
        entry("Dense", "fc", use_bias=False, activation="linear"),
    ]
    stored = {
        "a_kernel": R.standard_normal((4, 3)),
        "a_bias": R.standard_normal(3),
        "b_gamma": R.standard_normal(3),
        "b_beta": R.standard_normal(3),
        "c_kernel": R.standard_normal((3, 2)),
        "b_mean": R.standard_normal(3),
        "b_variance": R.uniform(0.5, 2, 3),
    }
    last = R.standard_normal((2, 2))
    path = legacy(tmp_path / "nested.h5", outer, {"inner": stored, "fc": {"kernel": last}}, version=b"2.4.0")
    s = {n: np.float32(a).astype(float) for n, a in stored.items()}
    x = R.standard_normal((3, 4))
    z = (
        s["b_gamma"] * (x @ s["a_kernel"] + s["a_bias"] - s["b_mean"]) / np.sqrt(s["b_variance"] + 0.1)
        + s["b_beta"]
    )
    expected = np.maximum(z @ s["c_kernel"], 0) @ np.float32(last).astype(float)
    assert_allclose(load(path).forward(x), expected, rtol=1e-10, atol=1e-12)


def test_same_padding_is_tensorflows(tmp_path):
    """Where Keras' backends differ, TensorFlow counts: padding is not averaged, the odd row lies behind."""
    layers = [
        entry(
            "AveragePooling2D",
            "pool",
            batch_input_shape=[None, 4, 4, 1],
            pool_size=[3, 3],
            strides=[2, 2],
            padding="same",
        )
    ]
    network = load(legacy(tmp_path / "pool.h5", layers, {}))
    (pool,) = (n.layer for n in network.nodes if isinstance(n.layer, AveragePool2D))
    x = np.arange(16.0).reshape(1, 4, 4, 1)
    image = x[0, :, :, 0]
    expected = [[image[:3, :3].mean(), image[:3, 2:].mean()], [image[2:, :3].mean(), image[2:, 2:].mean()]]
    assert_allclose(network.forward(x)[0, :, :, 0], expected)
    assert not pool.count_padding
    kernel = R.standard_normal((3, 3, 1, 1))
    layers = [
        entry(
            "Conv2DTranspose",
            "up",
            batch_input_shape=[None, 3, 3, 1],
            strides=[2, 2],
            padding="same",
            use_bias=False,
            kernel_size=[3, 3],
            activation="linear",
        )
    ]
    network = load(legacy(tmp_path / "up.h5", layers, {"up": {"kernel": kernel}}))
    assert any(isinstance(n.layer, Conv2DTranspose) for n in network.nodes)
    # the adjoint of a convolution with stride 2 and "same": one row of padding, behind
    x, s = np.zeros((1, 3, 3, 1)), np.zeros((7, 7))
    x[0, 1, 2, 0] = 1
    s[2:5, 4:7] = np.float32(kernel[:, :, 0, 0])
    assert_allclose(network.forward(x)[0, :, :, 0], s[:6, :6])


# ---------------------------------------------------------------- safety and errors


def lambda_layer(name):
    return entry("Lambda", name, function=["4wEAAAA=", None, None], batch_input_shape=[None, 4])


REFUSED = [
    (
        [lambda_layer("evil")],
        {},
        UnsupportedError,
        r"layer 'evil' \(Lambda\) runs code from the file, which is refused: write it with",
    ),
    (
        [entry("MyOwn>Layer", "own", batch_input_shape=[None, 4])],
        {},
        UnsupportedError,
        r"layer 'own' \(MyOwn>Layer\) is a custom class, 'MyOwn>Layer', not Keras' own: write it",
    ),
    (
        [entry("Dense", "fc", batch_input_shape=[None, 4], activation="tan")],
        {"fc": DENSE},
        UnsupportedError,
        "'tan'",
    ),
    (
        [entry("Dense", "fc", batch_input_shape=[None, 4])],
        {},
        FileError,
        r"'fc' \(Dense\): it must have 2 arrays.*has 0",
    ),
    (
        [entry("Dense", "fc", batch_input_shape=[None, 5])],
        {"fc": DENSE},
        LRPError,
        r"'fc' \(Dense\): weight \(2, 4\) takes 4",
    ),
    (
        [entry("Dense", "fc", batch_input_shape=[None, 4])],
        {"fc": {"kernel": np.full((4, 2), np.nan), "bias": np.zeros(2)}},
        NonFiniteError,
        "'fc'.*8 of 8 values",
    ),
    ([entry("Dense", "fc")], {"fc": DENSE}, FileError, "does not say what shape its input has"),
    (
        [
            entry(
                "UpSampling2D", "up", batch_input_shape=[None, 4, 4, 1], size=[2, 2], interpolation="bicubic"
            )
        ],
        {},
        UnsupportedError,
        "interpolation 'bicubic'",
    ),
]


@pytest.mark.parametrize(("layers", "weights", "kind", "says"), REFUSED)
def test_what_is_not_understood_is_refused(layers, weights, kind, says, tmp_path):
    with pytest.raises(kind, match=says) as error:
        load(legacy(tmp_path / "model.h5", layers, weights))
    assert "model.h5" in str(error.value)


def good(tmp_path):
    return legacy(tmp_path / "good.h5", [entry("Dense", "fc", batch_input_shape=[None, 4])], {"fc": DENSE})


def test_damaged_files_are_refused(tmp_path):
    path = good(tmp_path)
    assert load(path).forward(np.ones((1, 4))).shape == (1, 2)
    whole = path.read_bytes()
    (tmp_path / "cut.h5").write_bytes(whole[:-500])
    with pytest.raises(FileError, match="truncated or damaged"):
        load(tmp_path / "cut.h5")
    with h5py.File(path, "r+") as file:
        file.attrs["model_config"] = "{"
    with pytest.raises(FileError, match="configuration is not JSON"):
        load(path)
    with h5py.File(path, "r+") as file:
        file.attrs["model_config"] = (
            '{"class_name": "Sequential", "config": {"layers": [{"class_name": "Dense"}]}}'
        )
    with pytest.raises(FileError, match="without class_name and config"):
        load(path)


def test_a_file_that_points_elsewhere_is_refused(tmp_path):
    path = good(tmp_path)
    with h5py.File(path, "r+") as file:
        del file["model_weights/fc/fc/bias:0"]
        file["model_weights/fc/fc/bias:0"] = h5py.ExternalLink("/etc/passwd", "/x")
    with pytest.raises(FileError, match="bias:0 is a link"):
        load(path)


def test_a_dataset_of_absurd_size_is_refused(tmp_path):
    path = good(tmp_path)
    with h5py.File(path, "r+") as file:
        del file["model_weights/fc/fc/kernel:0"]
        file.create_dataset("model_weights/fc/fc/kernel:0", (10**6, 10**6), "f4", chunks=(1000, 1000))
    with pytest.raises(FileError, match="claims 4000000000000 bytes, but stores 0"):
        load(path)


def archive(path, change=lambda members: None):
    """A .keras file with its members changed."""
    with zipfile.ZipFile(FOLDER / "sequential.keras") as given:
        members = {name: given.read(name) for name in given.namelist()}
    change(members)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as made:
        for name, data in members.items():
            made.writestr(name, data)
    return path


def test_archives_that_are_not_right_are_refused(tmp_path):
    path = tmp_path / "a.keras"
    load(archive(path))
    with pytest.raises(FileError, match=r"'\.\./evil' leads out of the archive"):
        load(archive(path, lambda m: m.update({"../evil": b"x"})))
    with pytest.raises(FileError, match="'bomb' claims 100000000 bytes"):
        load(archive(path, lambda m: m.update(bomb=bytes(10**8))))
    with pytest.raises(FileError, match="no Keras model"):
        load(archive(path, lambda m: m.pop("config.json")))
    with pytest.raises(FileError, match=r"model.weights.h5 is damaged"):
        load(archive(path, lambda m: m.update({"model.weights.h5": m["model.weights.h5"][:3000]})))

    def drop(members):
        buffer = io.BytesIO(members["model.weights.h5"])
        with h5py.File(buffer, "r+") as file:
            del file["layers/dense/vars"]
        members["model.weights.h5"] = buffer.getvalue()

    with pytest.raises(
        FileError, match=r"layer 'dense' \(Dense\).*must have 2 arrays of weights, but the file has 0"
    ):
        load(archive(path, drop))


def test_broken_archives_are_named_in_one_line(tmp_path, capsys):
    """Cut anywhere, with bytes changed anywhere, or emptied: never another error than ours."""
    whole = (FOLDER / "sequential.keras").read_bytes()
    path, rng = tmp_path / "broken.keras", np.random.default_rng(0)
    for size in (4, 30, 1000, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:size])
        with pytest.raises(
            FileError, match=r"broken\.keras is a .keras file, but truncated or damaged \(.+\)$"
        ):
            load(path)
    for _ in range(40):
        changed = bytearray(whole)
        for at in rng.integers(len(whole), size=20):
            changed[at] ^= 0xFF
        path.write_bytes(changed)
        try:
            load(path)
        except LRPError as error:
            assert "broken.keras" in str(error)
    for nothing in (b"", b"PK", b"not a zip file"):
        path.write_bytes(nothing)
        with pytest.raises(FileError, match=r"broken\.keras"):
            load(path)
    path.write_bytes(whole[:1000])
    assert main(["inspect", str(path)]) == 1
    assert capsys.readouterr().err.count("\n") == 1


# ---------------------------------------------------------------- from the outside


def test_convert_and_explain_on_the_command_line(tmp_path, capsys):
    out = tmp_path / "model.h5"
    assert main(["convert", str(FOLDER / "residual.keras"), "--out", str(out)]) == 0
    data = np.load(FOLDER / "residual.npz")
    a, b = load(FOLDER / "residual.keras", dtype=None), load(out, dtype=None)
    assert a.dtype == b.dtype == np.float32
    assert (a.forward(data["x"]) == b.forward(data["x"])).all()
    np.save(tmp_path / "x.npy", data["x"])
    args = [
        "explain",
        str(FOLDER / "residual.h5"),
        str(tmp_path / "x.npy"),
        "--out",
        str(tmp_path / "o"),
        "--heatmaps",
        "0",
    ]
    assert main(args) == 0
    with h5py.File(tmp_path / "o" / "relevance.h5") as file:
        assert file["attribution"].shape == data["x"].shape
    save(fuse(a)[0], tmp_path / "fused.h5")
    assert main(["inspect", str(FOLDER / "residual.h5")]) == 0
    assert "normalization layers fused" in capsys.readouterr().out


@pytest.mark.parametrize("ending", ["h5", "keras"])
def test_shared_mnist_model(ending):
    path, data = SHARED / "models" / f"Moonflower2022_mnist_model.{ending}", SHARED / "data" / "mnist.npz"
    if not (path.exists() and data.exists()):
        pytest.skip("the shared models and data are not here")
    network = load(path, dtype=np.float32)
    with np.load(data) as file:
        x, y = file["x_test"][:, :, :, None] / np.float32(255), file["y_test"]
    assert (network.forward(x).argmax(1) == y).mean() >= 0.99


def test_shared_resnet8(tmp_path):
    """ResNet-8 of MLCommons (Keras 2); its 87.19 % on CIFAR-10 is checked where the images are."""
    path = SHARED / "models" / "mlcommons_resnet8_cifar10.h5"
    if not path.exists():
        pytest.skip("the shared models are not here")
    network = load(path)
    fused, report = fuse(network)
    assert report.exact and len(report.entries) == 7
    x = np.random.default_rng(0).uniform(0, 255, (4, 32, 32, 3))
    assert_allclose(fused.forward(x), network.forward(x), rtol=1e-10, atol=1e-12)
    images = os.environ.get("NUMPYLRP_CIFAR10")
    if images is None:
        pytest.skip("NUMPYLRP_CIFAR10 does not name an npz with x_test and y_test")
    with np.load(images) as data:
        x, y = data["x_test"], data["y_test"]
    network = network.astype(np.float32)
    right = sum(
        (network.forward(x[n : n + 500]).argmax(1) == y[n : n + 500]).sum() for n in range(0, 10_000, 500)
    )
    assert right == 8719
