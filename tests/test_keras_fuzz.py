"""Keras files that are not as they should be: whatever is changed, only an `LRPError` that names the file.

Structure-aware: values of the configuration, attributes, shapes and names are exchanged for others, so that
the changes reach the code after the parsers. Bytes are changed in another process, since the HDF5 library may
crash or hang where it is lied to. ``HYPOTHESIS_PROFILE=thorough`` runs it at length.
"""

import bz2
import io
import json
import lzma
import random
import re
import subprocess
import sys
import zipfile
from pathlib import Path

import h5py
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from numpylrp import load
from numpylrp.convert import keras
from numpylrp.errors import FileError, LRPError

FOLDER = Path(__file__).parent / "keras"
MODELS = ("sequential", "residual", "nested", "operations", "shapes", "sound", "norms")
LEGACY = ("inputs-2.15", "operations-2.15", "frozen-2.15")
THOROUGH = settings.default.max_examples > 50


def configuration(name):
    """The configuration of a kept model, and its weights as bytes."""
    with zipfile.ZipFile(FOLDER / f"{name}.keras") as archive:
        return json.loads(archive.read("config.json")), archive.read("model.weights.h5")


def places(value, path=()):
    """Every place in a JSON value."""
    yield path
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in items:
        yield from places(inner, (*path, key))


def at(value, path):
    for key in path:
        value = value[key]
    return value


ODD = st.one_of(
    st.none(),
    st.booleans(),
    st.sampled_from([0, 1, -1, 2, 3, 7, 10**6, 2**31, -(2**63), 10**30]),
    st.sampled_from([0.0, -0.5, 1e-320, 1e308, 1e39]),
    st.sampled_from(["", "x", "channels_first", "same", "relu", "None", "é\x1b[31m", "a" * 300]),
    st.sampled_from([[], {}, [[]], [None], [1, 2], [0], [-1, -1], ["x", 0, 0], ["_CONSTANT_VALUE", -1, 1.0]]),
    st.sampled_from(
        [
            {"class_name": "__numpy__", "config": {"value": [1.0, 2.0], "dtype": "float32"}},
            {"class_name": "__tensor__", "config": None},
            {"class_name": "__keras_tensor__", "config": {"keras_history": ["x", 3, 1]}},
            {"class_name": "__keras_tensor__", "config": {"keras_history": []}},
            {"class_name": "ReLU", "config": {"max_value": "x"}},
            {"start": 5, "stop": 1, "step": -1},
        ]
    ),
)


@st.composite
def changed(draw, value):
    """The JSON value with a few places changed."""
    value = json.loads(json.dumps(value))
    for _ in range(draw(st.integers(1, 3))):
        where = [p for p in places(value) if p]
        path = where[draw(st.integers(0, len(where) - 1))]
        parent, key = at(value, path[:-1]), path[-1]
        how = draw(st.sampled_from(["put", "put", "put", "drop", "other", "twice", "number"]))
        if how == "drop":
            del parent[key]
        elif how == "other":
            parent[key] = at(value, where[draw(st.integers(0, len(where) - 1))])
            value = json.loads(json.dumps(value))  # no value stands in itself
        elif how == "twice" and isinstance(parent, list):
            parent.append(parent[key])
        elif how == "number" and isinstance(parent[key], (int, float)):
            parent[key] = parent[key] + draw(st.sampled_from([-1, 1, 2, 0.5]))
        else:
            parent[key] = draw(ODD)
    return value


def only_lrp_errors(path, load=load):
    """Load it, and run it if it can be; anything but an `LRPError` that names the file in a line leaves."""
    try:
        network = load(path)
    except LRPError as error:
        names = (path.name, path.name.replace(".weights.h5", ".json"))
        assert any(name in str(error) for name in names) and "\n" not in str(error)
        return
    sizes = [[n or 4 for n in shape] for shape in network.shapes.values()]
    if max(int(np.prod([float(n) for n in s])) for s in sizes) > 10**5:
        return
    x = {name: np.ones((1, *(n or 4 for n in shape))) for name, shape in network.inputs.items()}
    try:
        network.forward(x)
    except LRPError:
        pass


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("fuzz")


@given(st.data())
def test_configurations_of_archives(folder, data):
    config, weights = configuration(data.draw(st.sampled_from(MODELS)))
    path = folder / "model.keras"
    with zipfile.ZipFile(path, "w") as made:
        made.writestr("config.json", json.dumps(data.draw(changed(config))))
        made.writestr("metadata.json", '{"keras_version": "3.1.0"}')
        made.writestr("model.weights.h5", weights)
    only_lrp_errors(path)


@given(st.data())
def test_configurations_of_whole_models(folder, data):
    name = data.draw(st.sampled_from(MODELS + LEGACY))
    path = folder / "model.h5"
    path.write_bytes((FOLDER / f"{name}.h5").read_bytes())
    with h5py.File(path, "r+") as file:
        config = json.loads(file.attrs["model_config"])
        file.attrs["model_config"] = json.dumps(data.draw(changed(config)))
    only_lrp_errors(path)


@given(st.data())
def test_architectures_beside_weights(folder, data):
    (folder / "w.weights.h5").write_bytes((FOLDER / "frozen-2.13.weights.h5").read_bytes())
    config = json.loads((FOLDER / "frozen-2.13.json").read_text())
    (folder / "w.json").write_text(json.dumps(data.draw(changed(config))))
    only_lrp_errors(folder / "w.weights.h5", lambda path: keras.load(path, architecture=folder / "w.json"))


@given(st.data())
def test_groups_attributes_and_shapes(folder, data):
    name = data.draw(st.sampled_from([*(f"{n}.h5" for n in MODELS + LEGACY), "frozen-2.13.weights.h5"]))
    path = folder / f"groups{Path(name).suffix}"
    path.write_bytes((FOLDER / name).read_bytes())
    if name.startswith("frozen-2.13"):
        (folder / "groups.json").write_bytes((FOLDER / "frozen-2.13.json").read_bytes())
    with h5py.File(path, "r+") as file:
        items = [file]
        file.visititems(lambda _, item: items.append(item))
        for _ in range(data.draw(st.integers(1, 2))):
            item = items[data.draw(st.integers(0, len(items) - 1))]
            change(item, data.draw)
    only_lrp_errors(path)


def change(item, draw):
    """Change an attribute of a group or dataset, or the object itself."""
    names = sorted(item.attrs) if item else []
    if names and draw(st.booleans()):
        name = draw(st.sampled_from(names))
        odd = [b"", "x", 3, 2.5, [1, 2], [b"a", b"a"], np.bytes_(b"\xff\xfe"), h5py.Empty("f4"), "9" * 400]
        item.attrs[name] = draw(st.sampled_from(odd))
    elif item and item.name != "/":
        file, name = item.file, item.name
        old = item[()] if isinstance(item, h5py.Dataset) else np.zeros(1, "f4")
        del file[name]
        new = draw(
            st.sampled_from(["none", "group", "flat", "turned", "text", "bits", "nan", "empty", "more"])
        )
        if new == "group":
            file.create_group(name)
        elif new == "empty":
            file.create_dataset(name, data=h5py.Empty("f4"))
        elif new != "none":
            made = {
                "flat": np.ravel(old),
                "turned": np.transpose(old),
                "text": np.array([b"abc"]),
                "bits": np.asarray(old).astype("i1"),
                "nan": np.full_like(old, np.nan, dtype="f8"),
                "more": np.concatenate([np.atleast_1d(old)] * 2),
            }
            file[name] = made[new]


# ---------------------------------------------------------------- bytes, in a process of its own

CHILD = """
import sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
import test_keras_fuzz as fuzz
for at in range(int(sys.argv[3]), int(sys.argv[4])):
    print(at, flush=True)
    fuzz.bytes_changed(Path(sys.argv[2]), at)
print("done", flush=True)
"""
NAMES = ("sequential.h5", "residual.keras", "frozen-2.15.h5", "frozen-2.13.weights.h5", "frozen-2.13.json")


def bytes_changed(folder, number):
    """Load a model in which bytes are changed, or whose architecture, beside it, is."""
    name = NAMES[number % len(NAMES)]
    path = folder / name
    kept = path.read_bytes()
    path.write_bytes(flipped(kept, number))
    try:
        only_lrp_errors(path.with_suffix(".weights.h5") if name.endswith(".json") else path)
    finally:
        path.write_bytes(kept)


def flipped(whole, seed):
    """The bytes with some of them changed: bits, whole bytes, or a piece that is gone or stands elsewhere."""
    rng, data = random.Random(seed), bytearray(whole)
    for _ in range(rng.choice([1, 1, 2, 5, 20])):
        where = rng.randrange(len(data))
        how = rng.randrange(4)
        if how == 0:
            data[where] ^= 1 << rng.randrange(8)
        elif how == 1:
            data[where] = rng.choice([0, 1, 0x7F, 0xFF])
        elif how == 2:
            size = rng.randrange(1, 9)
            data[where : where + size] = bytes(rng.randrange(256) for _ in range(size))
        elif rng.random() < 0.3:
            other = rng.randrange(len(data))
            data[where : where + 64] = data[other : other + 64]
    return bytes(data)


def test_bytes(tmp_path):
    """A crash or a hang inside the HDF5 library ends the child; another one goes on after that file."""
    here, first, lost, count = Path(__file__).parent, 0, 0, 20_000 if THOROUGH else 200
    while first < count:
        for name in NAMES:
            (tmp_path / name).write_bytes((FOLDER / name).read_bytes())
        args = [sys.executable, "-c", CHILD, *map(str, (here, tmp_path, first, min(count, first + 1000)))]
        try:
            child = subprocess.run(args, capture_output=True, text=True, timeout=300, cwd=here.parent)
            said, errors, status = child.stdout, child.stderr, child.returncode
        except subprocess.TimeoutExpired as stopped:
            said, errors, status = (stopped.stdout or b"").decode(), "", -1
        assert status <= 0, f"change {said.split()[-1:]} ends in\n{errors[-2000:]}"
        done = said.endswith("done\n")
        first, lost = min(count, first + 1000) if done else int(said.split()[-1]) + 1, lost + (not done)
    assert lost <= 1 + count // 100, f"{lost} of {count} changes end or stop the process in the HDF5 library"


# ---------------------------------------------------------------- kinds of damage that were found


def archive(path, compression=zipfile.ZIP_STORED, **changes):
    """A kept .keras file, compressed in another way, with members changed."""
    with zipfile.ZipFile(FOLDER / "sequential.keras") as given:
        members = {name: given.read(name) for name in given.namelist()} | changes
    with zipfile.ZipFile(path, "w", compression) as made:
        for name, content in members.items():
            made.writestr(name, content)
    return path


@pytest.mark.parametrize("compression", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA, zipfile.ZIP_DEFLATED])
def test_archives_compressed_in_any_way(compression, tmp_path):
    path = archive(tmp_path / "m.keras", compression)
    expected = load(FOLDER / "sequential.keras")
    x = np.ones((1, *expected.inputs["input"]))
    assert (load(path).forward(x) == expected.forward(x)).all()
    whole = path.read_bytes()
    for seed in range(60):
        path.write_bytes(flipped(whole, seed))
        only_lrp_errors(path)
    assert bz2 and lzma


DEEP = "[" * 50_000 + "]" * 50_000


@pytest.mark.parametrize(
    "text", [DEEP, f'{{"class_name": "Sequential", "config": {DEEP}}}', '{"a": 1' + "0" * 9999]
)
def test_json_that_is_nested_or_long_without_measure(text, tmp_path):
    path = archive(tmp_path / "deep.keras", **{"config.json": text})
    with pytest.raises(FileError, match=r"deep\.keras: the configuration"):
        load(path)
    path = tmp_path / "deep.h5"
    with h5py.File(path, "w") as file:
        file.attrs.create("model_config", text, dtype=h5py.string_dtype())
        file.create_group("model_weights")
    with pytest.raises(FileError, match=r"deep\.h5: the configuration"):
        load(path)


def test_models_in_models_without_end(tmp_path):
    inner = [{"class_name": "InputLayer", "config": {"name": "i", "batch_shape": [None, 2]}}]
    for n in range(60):
        inner = [{"class_name": "Sequential", "config": {"name": f"s{n}", "layers": inner}}]
    text = json.dumps({"class_name": "Sequential", "config": {"name": "m", "layers": inner}})
    with pytest.raises(FileError, match=r"models lie in each other more than 40 deep"):
        load(archive(tmp_path / "m.keras", **{"config.json": text}))


@pytest.mark.parametrize("value", [3, "text", None, [], [1], {"layers": 3}, {"layers": [3]}, {"layers": []}])
def test_configurations_of_another_type(value, tmp_path):
    text = json.dumps({"class_name": "Sequential", "config": value})
    with pytest.raises(FileError, match=r"m\.keras: the configuration has"):
        load(archive(tmp_path / "m.keras", **{"config.json": text}))
    with pytest.raises(LRPError, match=r"m\.keras: the configuration is a|of class"):
        load(archive(tmp_path / "m.keras", **{"config.json": json.dumps(value)}))


def test_damage_inside_hdf5_is_named(tmp_path):
    """HDF5 raises KeyError, RuntimeError and OSError, by where it is met."""
    whole = bytearray((FOLDER / "sequential.h5").read_bytes())
    path, kinds = tmp_path / "damaged.h5", set()
    for mark in (b"TREE", b"HEAP", b"SNOD"):
        for found in list(re.finditer(mark, whole))[:8]:
            changed = bytearray(whole)
            changed[found.start() : found.end()] = b"XXXX"
            path.write_bytes(changed)
            try:
                load(path)
            except FileError as error:
                assert "damaged.h5" in str(error) and "\n" not in str(error)
                kinds.add(type(error.__cause__))
    assert kinds


def test_members_that_are_not_there(tmp_path):
    buffer = io.BytesIO((FOLDER / "sequential.keras").read_bytes())
    with zipfile.ZipFile(buffer) as given:
        weights = given.read("model.weights.h5")
    for text in ("", "[]", '{"class_name": "Sequential"}', '{"class_name": null, "config": {}}', '"x"'):
        path = archive(tmp_path / "m.keras", **{"config.json": text, "model.weights.h5": weights})
        with pytest.raises(LRPError, match=r"m\.keras"):
            load(path)
