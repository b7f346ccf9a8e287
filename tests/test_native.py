"""Our own HDF5 schema: what is written is read back, and what is wrong is said."""

import json

import h5py
import numpy as np
import pytest
from hypothesis import given
from networks import chain, graph
from numpy.testing import assert_array_equal
from strategies import linear_layers

import numpylrp
from numpylrp import LRPError, Network, explain, load, save
from numpylrp.errors import FileError, NonFiniteError, UnsupportedError
from numpylrp.layers import (
    ELU,
    Dense,
    Flatten,
    PReLU,
    ReLU,
    Reshape,
    Slice,
    Transpose,
    UpSampling,
    ZeroPadding,
)


def same(a, b):
    """Whether two networks are equal to the bit."""
    assert [(n.name, n.inputs, repr(n.layer)) for n in a.nodes] == [
        (n.name, n.inputs, repr(n.layer)) for n in b.nodes
    ]
    for x, y in zip(a.nodes, b.nodes):
        for name, array in x.layer.arrays().items():
            assert_array_equal(y.layer.arrays()[name], array)
            assert y.layer.arrays()[name].dtype == array.dtype
    assert (a.inputs, a.outputs, a.metadata, a.shapes) == (b.inputs, b.outputs, b.metadata, b.shapes)


@pytest.mark.parametrize("make", [chain, graph])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_round_trip(make, dtype, tmp_path):
    network = make().astype(dtype)
    save(network, tmp_path / "net.h5")
    again = load(tmp_path / "net.h5", dtype=None)
    same(network, again)
    assert again.dtype == dtype
    x = np.random.default_rng(0).standard_normal((2, *network.inputs["input"]))
    assert_array_equal(explain(network, x).relevance, explain(again, x).relevance)
    save(again, tmp_path / "again.h5")
    assert (tmp_path / "net.h5").read_bytes() == (tmp_path / "again.h5").read_bytes()


@given(case=linear_layers)
def test_every_linear_layer_makes_the_round_trip(case, tmp_path_factory):
    layer, shape = case
    path = tmp_path_factory.mktemp("net") / "net.h5"
    network = Network([("layer", layer)], input_shape=shape)
    save(network, path)
    same(network, load(path, dtype=None))


def test_other_layers_and_several_inputs_make_the_round_trip(tmp_path):
    layers = [
        ("pad", ZeroPadding(((0, 0), (1, 1), (0, 2))), "b"),
        ("cut", Slice((0, 0, 1), (None, None, -1), (1, 2, 1)), "pad"),
        ("up", UpSampling((1, 2, 1)), "cut"),
        ("turn", Transpose((2, 0, 1)), "up"),
        ("reshape", Reshape((-1, 2)), "turn"),
        ("prelu", PReLU(np.array([0.5])), "reshape"),
        ("elu", ELU(1.5), "prelu"),
        ("relu6", ReLU(max_value=6), "elu"),
        ("flatten", Flatten(), "relu6"),
        ("fc", Dense(np.ones((2, 3))), "a"),
    ]
    network = Network(layers, {"a": (3,), "b": (1, 4, 3)}, metadata={"note": "é", "n": np.int64(3)})
    save(network, tmp_path / "net.h5")
    again = load(tmp_path / "net.h5", dtype=None)
    assert again.metadata == {"note": "é", "n": 3}
    again.metadata = network.metadata
    same(network, again)


def test_free_sizes_and_load_dtype(tmp_path):
    network = Network([("relu", ReLU())], input_shape=(3, None)).astype(np.float32)
    save(network, tmp_path / "net.h5")
    assert load(tmp_path / "net.h5").inputs == {"input": (3, None)}
    assert load(tmp_path / "net.h5").dtype == np.float64
    assert load(tmp_path / "net.h5", dtype=np.float32).dtype == np.float32


def test_a_failed_save_leaves_the_old_file(tmp_path):
    path = tmp_path / "net.h5"
    save(chain(), path)
    before = path.read_bytes()
    bad = chain()
    bad.metadata["what"] = object()
    with pytest.raises(LRPError, match="metadata"):
        save(bad, path)
    worse = graph()
    worse.inputs = {"a/b": (3,)}
    with pytest.raises(LRPError, match="can't be called 'a/b'"):
        save(worse, path)
    assert path.read_bytes() == before and [p.name for p in tmp_path.iterdir()] == ["net.h5"]
    with pytest.raises(FileError, match="can't be written"):
        save(chain(), tmp_path / "nowhere" / "net.h5")


def changed(tmp_path, change):
    """A saved network with its file changed."""
    path = tmp_path / "net.h5"
    save(chain(), path)
    with h5py.File(path, "r+") as file:
        change(file)
    return path


def set_attribute(where, name, value):
    return lambda file: file[where].attrs.__setitem__(name, value)


def put(where, value):
    def change(file):
        del file[where]
        file[where] = value

    return change


DAMAGE = [
    (set_attribute("/", "version", 2), FileError, r"schema version 2; this numpylrp reads up to 1"),
    (set_attribute("/", "format", "other"), FileError, "not a network of numpylrp's schema"),
    (lambda f: f.attrs.pop("outputs"), FileError, "attribute 'outputs' of / is missing"),
    (lambda f: f.pop("layers"), FileError, "the group 'layers' or 'inputs' is missing"),
    (set_attribute("/", "metadata", "{"), FileError, "attribute 'metadata' of / is not JSON"),
    (
        set_attribute("layers/0000", "kind", "Conv9D"),
        UnsupportedError,
        "layer 'conv1' is of the unknown kind 'Conv9D'",
    ),
    (set_attribute("layers/0000", "kind", "Layer"), UnsupportedError, "unknown kind 'Layer'"),
    (
        set_attribute("layers/0000", "options", '{"exec": 1}'),
        UnsupportedError,
        r"'conv1' \(Conv2D\) has the unknown",
    ),
    (set_attribute("layers/0000", "options", '{"stride": 0}'), LRPError, "layer 'conv1': Conv2D: stride"),
    (lambda f: f["layers/0000"].pop("weight"), FileError, r"layer 'conv1' \(Conv2D\) lacks weight"),
    (
        put("layers/0007/weight", np.ones((5, 11))),
        LRPError,
        r"layer 'fc1' \(Dense\): weight \(5, 11\) takes 11",
    ),
    (
        put("layers/0007/weight", np.full((5, 12), np.nan)),
        NonFiniteError,
        "layer 'fc1': Dense: weight has 60 of 60",
    ),
    (put("layers/0007/weight", "text"), FileError, "weight of layer 'fc1' is not an array of numbers"),
    (set_attribute("layers/0003", "same_as", "0009"), FileError, "which does not come before it"),
    (set_attribute("layers/0003", "inputs", '["nobody"]'), LRPError, "reads 'nobody', which does not exist"),
    (put("layers/0007/weight", h5py.ExternalLink("elsewhere.h5", "/x")), FileError, "0007/weight is a link"),
    (lambda f: f.__setitem__("layers/again", f["layers"]), FileError, "contains itself"),
    (put("layers/0007/weight", h5py.SoftLink("/layers/0000/weight")), FileError, "SoftLink.*not followed"),
]


@pytest.mark.parametrize(("change", "kind", "says"), DAMAGE)
def test_damaged_files_are_refused(change, kind, says, tmp_path):
    path = changed(tmp_path, change)
    with pytest.raises(kind, match=says) as error:
        load(path)
    assert str(path) in str(error.value)


def test_files_that_are_no_networks_are_refused(tmp_path):
    with pytest.raises(FileError, match="does not exist"):
        load(tmp_path / "nothing.h5")
    with pytest.raises(FileError, match="is a folder"):
        load(tmp_path)
    (tmp_path / "text.h5").write_text("hello")
    with pytest.raises(FileError, match="is not an HDF5 file"):
        load(tmp_path / "text.h5")
    save(chain(), tmp_path / "net.h5")
    whole = (tmp_path / "net.h5").read_bytes()
    for share in (0.3, 0.9):
        (tmp_path / "cut.h5").write_bytes(whole[: int(len(whole) * share)])
        with pytest.raises(FileError, match="an HDF5 file, but truncated or damaged"):
            load(tmp_path / "cut.h5")
    with h5py.File(tmp_path / "other.h5", "w") as file:
        file["x"] = 1
    with pytest.raises(LRPError):
        load(tmp_path / "other.h5")


def test_the_schema_is_what_the_docstring_says(tmp_path):
    """A program that knows the page and nothing else can read the file."""
    save(graph(), tmp_path / "net.h5")
    with h5py.File(tmp_path / "net.h5") as file:
        assert file.attrs["format"] == "numpylrp" and file.attrs["version"] == 1
        assert json.loads(file.attrs["outputs"]) == ["fc"]
        assert json.loads(file["inputs/input"].attrs["shape"]) == [3, 5, 6]
        first, second = file["layers/0000"], file["layers/0003"]
        assert (first.attrs["name"], first.attrs["kind"]) == ("a", "Conv2D")
        assert first["weight"].shape == (3, 3, 3, 3)
        assert json.loads(first.attrs["options"])["padding"] == [[1, 1], [1, 1]]
        assert second.attrs["same_as"] == "0000" and "weight" not in second
        assert json.loads(file["layers/0004"].attrs["inputs"]) == ["b", "input"]


def test_a_file_written_by_hand_is_read(tmp_path):
    """The least that a foreign program has to write."""
    with h5py.File(tmp_path / "net.h5", "w") as file:
        file.attrs.update(format="numpylrp", version=1, outputs='["fc"]', metadata="{}")
        file.create_group("inputs/input").attrs["shape"] = "[2]"
        group = file.create_group("layers/0000")
        group.attrs.update(name="fc", kind="Dense", inputs='["input"]', options="{}")
        group["weight"] = np.array([[1.0, 2.0]], np.float32)
    assert numpylrp.load(tmp_path / "net.h5").forward([[3.0, 4.0]]).tolist() == [[11.0]]
