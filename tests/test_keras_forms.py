"""Small models in every form that Keras 2.12 to 3 write, against what they computed (keras/forms.py)."""

import json
import os
import re
import subprocess
import sys
import tarfile
from pathlib import Path

import h5py
import numpy as np
import pytest
from numpy.testing import assert_allclose

from numpylrp import explain, fuse, load
from numpylrp.convert import keras
from numpylrp.errors import FileError

FOLDER = Path(__file__).parent / "keras"
ENDING = r"-([\d.]+\d)\.(keras|h5|weights\.h5|order\.h5)"


def names_in_archive():
    with tarfile.open(FOLDER / "forms.tar.xz") as archive:
        return sorted(Path(n).name for n in archive.getnames() if re.search(f"{ENDING}$", n))


FILES = names_in_archive()


@pytest.fixture(scope="session")
def forms(tmp_path_factory):
    folder = tmp_path_factory.mktemp("forms")
    with tarfile.open(FOLDER / "forms.tar.xz") as archive:
        archive.extractall(folder, filter="data")
    return folder


def compared(path):
    """The network in a file, its inputs, and its outputs, which must be those that Keras had in float32."""
    with np.load(path.with_name(re.sub(ENDING, r"-\1.npz", path.name))) as data:
        xs, ys = ([data[k] for k in sorted(data) if k[0] == letter] for letter in "xy")
    network = load(path)
    assert len(network.inputs) == len(xs) and len(network.outputs) == len(ys)
    x = dict(zip(network.inputs, xs)) if len(xs) > 1 else xs[0]
    made = network.forward(x)
    made = list(made.values()) if isinstance(made, dict) else [made]
    for y, expected in zip(made, ys):
        assert y.shape == expected.shape
        assert_allclose(y, expected, rtol=0, atol=3e-6 * max(1, abs(expected).max()))
    return network, x, made


@pytest.mark.parametrize("name", FILES)
def test_every_form_gives_what_keras_gave(name, forms):
    compared(forms / name)


@pytest.mark.parametrize("name", [n for n in FILES if re.search(r"-(2\.15|3\.\d\d)\.h5$", n)])
def test_models_of_every_form_can_be_fused_and_explained(name, forms):
    network, x, made = compared(forms / name)
    fused, _ = fuse(network)
    again = fused.forward(x)
    for a, b in zip(list(again.values()) if isinstance(again, dict) else [again], made):
        assert_allclose(a, b, rtol=1e-9, atol=1e-11)
    for output, y in zip(network.outputs, made):
        found = explain(network, x, seed=np.ones_like(y), output=output, composite="epsilon").relevance
        for R, given in zip(found.values(), x.values()) if isinstance(x, dict) else [(found, x)]:
            assert R.shape == given.shape and np.isfinite(R).all() and R.any()


def test_every_version_is_there():
    versions = {re.search(ENDING, n)[1] for n in FILES}
    assert {"2.12", "2.13", "2.15"} < versions and {v.split(".")[0] for v in versions} == {"2", "3"}
    assert len(FILES) > 140


PYTHONS = [sys.executable, *filter(None, os.environ.get("NUMPYLRP_KERAS", "").split(os.pathsep))]


@pytest.mark.parametrize("python", PYTHONS)
def test_forms_written_now(python, tmp_path):
    """By the Keras that is installed, and by the interpreters in NUMPYLRP_KERAS, such as TF 2.12's."""
    script = "import os; os.environ.setdefault('KERAS_BACKEND', 'torch'); import keras; keras.ops if "
    script += "keras.__version__[0] > '2' else __import__('tensorflow')"
    if subprocess.run([python, "-c", script], capture_output=True).returncode:
        pytest.skip(f"{python} has no Keras with its backend")
    subprocess.run([python, FOLDER / "forms.py", tmp_path], check=True, capture_output=True)
    made = [p for p in sorted(tmp_path.iterdir()) if re.search(f"{ENDING}$", p.name)]
    assert len(made) > 30
    for path in made:
        compared(path)


# ---------------------------------------------------------------- what is matched how


def test_inputs_keep_the_order_of_the_model(forms):
    """``Model([late, early], ...)``, though "early" is the first layer: inputs follow the model."""
    for name in ("inputs-2.12.h5", "inputs-2.15.keras", *(n for n in FILES if n.startswith("inputs-3"))):
        assert list(load(forms / name).inputs) == ["late", "early"]


def test_the_version_beside_weights_of_keras_2_stands_in_their_json(forms, tmp_path):
    """Keras 2's hard sigmoid has another slope; nothing else in ``counted`` tells the versions apart."""
    weights = tmp_path / "m.weights.h5"
    weights.write_bytes((forms / "counted-2.15.weights.h5").read_bytes())
    config = json.loads((forms / "counted-2.15.json").read_text())
    assert config["keras_version"].startswith("2.15")
    x = np.load(forms / "counted-2.15.npz")["x0"]
    made = []
    for version in ("2.15.0", "3.1.0"):
        (tmp_path / "m.json").write_text(json.dumps({**config, "keras_version": version}))
        made.append(load(weights).forward(x))
    expected = np.load(forms / "counted-2.15.npz")["y0"]
    assert_allclose(made[0], expected, rtol=0, atol=3e-6)
    assert abs(made[1] - expected).max() > 3e-5


def test_older_weights_are_matched_by_order_and_counted(forms, tmp_path):
    """The layers of the architecture have other names than those of the weights, as in another session."""
    weights, at = forms / "counted-2.15.order.h5", forms / "counted-2.15.order.json"
    with h5py.File(weights) as file:
        stored = set(file.attrs["layer_names"])
    config = json.loads(at.read_text())
    named = {entry["config"]["name"] for entry in config["config"]["layers"]}
    assert len(stored & named) < len(stored) / 2
    config["config"]["layers"].pop()
    (tmp_path / "less.json").write_text(json.dumps(config))
    with pytest.raises(FileError, match=r"has weights of 11 layers, but the architecture 10 such layers"):
        keras.load(weights, architecture=tmp_path / "less.json")


@pytest.mark.parametrize("version", ["2.12", "2.15", "3.0"])
def test_weights_that_no_layer_reads_are_told(version, forms, tmp_path):
    """A layer of the configuration left out: the layers after it would be counted otherwise."""
    weights = forms / f"shared-{version}.weights.h5"
    config = json.loads((forms / f"shared-{version}.json").read_text())
    layers = config["config"]["layers"]
    top = next(e for e in layers if e["class_name"] == "Dense")
    layers.remove(top)
    config["config"]["output_layers"] = [["add", 0, 0]]
    (tmp_path / "m.json").write_text(json.dumps(config))
    with pytest.raises(FileError, match=r"no layer of the configuration reads the weights in /"):
        keras.load(weights, architecture=tmp_path / "m.json")
