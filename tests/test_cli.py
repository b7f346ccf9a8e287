"""The command line, as a user calls it."""

import json
import re
import subprocess
import sys

import h5py
import numpy as np
import pytest
from networks import chain
from numpy.testing import assert_allclose

import numpylrp.run
from numpylrp import Network, explain, load, save
from numpylrp.cli import main
from numpylrp.layers import Dense, Flatten

plot = pytest.mark.skipif(
    not all(map(__import__("importlib.util").util.find_spec, ("PIL", "matplotlib"))),
    reason="the plot extra is missing",
)


@pytest.fixture
def model(tmp_path):
    save(chain(), tmp_path / "net.h5")
    return str(tmp_path / "net.h5")


@pytest.fixture
def images():
    return np.random.default_rng(1).uniform(-4, 4, (10, 2, 7, 8))


def call(capsys, *args):
    code = main([str(a) for a in args])
    out, err = capsys.readouterr()
    return code, out, err


def test_inspect(model, capsys):
    code, out, _ = call(capsys, "inspect", model)
    assert code == 0 and "input 2 x 7 x 8, 10 layers" in out and "class_names: ['ant', 'bee', 'cat']" in out
    assert re.search(r"conv2\s+Conv2D\s+pool1\s+6 x 2 x 3\s+54", out)
    code, out, _ = call(capsys, "inspect", model, "--composite", "epsilon-gamma-box")
    assert code == 0 and re.search(r"conv1\s+Conv2D\s+ZBox\(-4, 4\)", out)


def test_fuse(weights, tmp_path, capsys):
    model = weights / "mnist_cnn_bn.h5"
    code, out, _ = call(capsys, "inspect", model)
    assert code == 0 and "what fusing would do" in out and "4 of 4 normalization layers fused" in out
    code, out, _ = call(capsys, "fuse", model, "--out", tmp_path / "fused.h5")
    assert code == 0 and "into the layers before: conv1" in out and "largest difference of the outputs" in out
    x = np.random.default_rng(0).random((3, 1, 28, 28))
    assert_allclose(load(tmp_path / "fused.h5").forward(x), load(model).forward(x), rtol=1e-12, atol=1e-12)
    code, _, err = call(capsys, "fuse", model, "--layers", "relu1", "--out", tmp_path / "other.h5")
    assert code == 1 and "is no normalization to fuse" in err and not (tmp_path / "other.h5").exists()


def test_normalization_is_a_choice(weights, tmp_path, capsys):
    sums = {}
    for name in ("fused", "linear", "identity", "abs-z"):
        args = [weights / "mnist_cnn_bn.h5", weights / "digits.h5", "--first", 5, "--heatmaps", 0]
        out = tmp_path / name
        assert call(capsys, "explain", *args, "--normalization", name, "--out", out)[0] == 0
        with h5py.File(out / "relevance.h5") as file:
            sums[name] = float(file["attribution"][()].sum())
    assert len({round(v, 6) for v in sums.values()}) == 4


@pytest.mark.parametrize("kind", ["npy", "npz", "h5"])
def test_explain(kind, model, images, tmp_path, capsys):
    path, out = tmp_path / f"x.{kind}", tmp_path / "out"
    labels = np.arange(10) % 3
    if kind == "npy":
        np.save(path, images)
    elif kind == "npz":
        np.savez(path, x=images, labels=labels)
    else:
        with h5py.File(path, "w") as file:
            file["group/x"], file["labels"] = images, labels
    code, text, _ = call(capsys, "explain", model, path, "--out", out, "--heatmaps", 0)
    assert code == 0 and " lost\n" in text and "fc2" in (out / "audit.txt").read_text()
    expected = explain(load(model), images)
    with h5py.File(out / "relevance.h5") as file:
        assert_allclose(file["attribution"][()], expected.relevance, rtol=1e-12, atol=1e-14)
        assert_allclose(file["output"][()], expected.output, rtol=1e-12)
        assert file["prediction"][()].tolist() == expected.prediction.tolist()
        assert file["index"][()].tolist() == list(range(10))
        last = file["layers"][sorted(file["layers"])[-1]]
        assert last.attrs["name"] == "fc2"
        assert_allclose(last[:, 0], expected["fc2"].received, rtol=1e-12)
        assert ("label" in file) == (kind != "npy")
        assert json.loads(file.attrs["settings"])["rules"]["conv1"] == "ZPlus()"
    if kind != "npy":
        right = int((expected.prediction == labels).sum())
        assert f"{right} of 10 samples classified correctly" in text
    assert sorted(p.name for p in out.iterdir()) == ["audit.txt", "relevance.h5"]


@plot
def test_heatmaps(model, images, tmp_path, capsys):
    from PIL import Image

    np.save(tmp_path / "x.npy", images)
    out = tmp_path / "out"
    code, text, _ = call(
        capsys, "explain", model, tmp_path / "x.npy", "--out", out, "--heatmaps", 3, "--target", "bee"
    )
    assert code == 0 and "overview.png" in text
    assert sorted(p.name for p in (out / "heatmaps").iterdir()) == [f"{n:05d}_bee.png" for n in range(3)]
    with Image.open(out / "heatmaps" / "00000_bee.png") as picture:
        assert picture.size[0] % 8 == 0 and picture.size[1] % 7 == 0
        assert len(picture.convert("RGB").getcolors(10**6)) > 10
    with Image.open(out / "overview.png") as picture:
        assert min(picture.size) > 100


@plot
def test_images_are_inputs(tmp_path, capsys):
    """PNG files reach the network in its range and layout."""
    from PIL import Image

    network = Network(
        [("flatten", Flatten()), ("fc", Dense(np.eye(12)[:4]))],
        input_shape=(3, 2, 2),
        metadata={"input_range": [-1.0, 1.0]},
    )
    save(network, tmp_path / "rgb.h5")
    folder = tmp_path / "photos"
    folder.mkdir()
    pixels = np.zeros((2, 2, 3), np.uint8)
    pixels[0, 0] = 255, 0, 51
    for name in ("b", "a"):
        Image.fromarray(pixels).save(folder / f"{name}.png")
    out = tmp_path / "out"
    code, _, _ = call(capsys, "explain", tmp_path / "rgb.h5", folder, "--out", out, "--heatmaps", 0)
    assert code == 0
    with h5py.File(out / "relevance.h5") as file:
        assert_allclose(file["output"][0], [1, -1, -1, -1])  # the red channel comes first
        assert len(file["output"]) == 2
    Image.fromarray(np.zeros((5, 4, 3), np.uint8)).save(folder / "c.png")
    code, _, err = call(capsys, "explain", tmp_path / "rgb.h5", folder, "--out", out, "--heatmaps", 0)
    assert code == 1 and "c.png has 5 x 4 pixels, but the network takes 2 x 2 (--resize" in err
    code, _, _ = call(
        capsys, "explain", tmp_path / "rgb.h5", folder, "--out", out, "--heatmaps", 0, "--resize"
    )
    assert code == 0


def test_options(model, images, tmp_path, capsys):
    np.savez(tmp_path / "x.npz", a=images * 10, b=images, who=np.arange(10) % 3)
    code, _, err = call(
        capsys, "explain", model, tmp_path / "x.npz", "--out", tmp_path / "out", "--heatmaps", 0
    )
    assert code == 1 and "2 arrays (a, b: choose one)" in err
    options = ["--dataset", "a", "--scale", "1/10", "--labels", "who", "--target", "true", "--first", 7]
    options += [
        "--dtype",
        "float32",
        "--composite",
        "epsilon-gamma-box",
        "--seed",
        "one-hot",
        "--batch-size",
        2,
    ]
    code, _, _ = call(
        capsys, "explain", model, tmp_path / "x.npz", "--out", tmp_path / "out", "--heatmaps", 0, *options
    )
    assert code == 0
    network = load(model, dtype=np.float32)
    target = (np.arange(7) % 3).tolist()
    expected = explain(network, images[:7], target, composite="epsilon-gamma-box", seed="one-hot")
    with h5py.File(tmp_path / "out" / "relevance.h5") as file:
        assert file["attribution"].dtype == np.float32 and len(file["attribution"]) == 7
        scale = abs(expected.relevance).max()
        assert_allclose(file["attribution"][()], expected.relevance, rtol=0, atol=1e-3 * scale)
        assert file["target"][()].tolist() == target


def test_a_stopped_run_goes_on(model, images, tmp_path, capsys, monkeypatch):
    np.save(tmp_path / "x.npy", np.concatenate([images] * 3))
    monkeypatch.setattr(numpylrp.run, "CHUNK", 8)
    args = ["explain", model, tmp_path / "x.npy", "--out", tmp_path / "out", "--heatmaps", 0]
    real, calls = numpylrp.run.explain, []

    def stop_at_the_third(network, x, *rest, **options):
        calls.append(len(x))
        if len(calls) == 3:
            raise KeyboardInterrupt
        return real(network, x, *rest, **options)

    monkeypatch.setattr(numpylrp.run, "explain", stop_at_the_third)
    code, _, err = call(capsys, *args)
    assert code == 130 and "interrupted" in err
    assert [p.name for p in (tmp_path / "out").iterdir()] == ["relevance.h5.part"]
    code, _, _ = call(capsys, *args)
    assert code == 0 and calls == [8, 8, 8, 8, 6]  # the third again, and the rest
    expected = explain(load(model), np.concatenate([images] * 3))
    with h5py.File(tmp_path / "out" / "relevance.h5") as file:
        assert_allclose(file["attribution"][()], expected.relevance, rtol=1e-12, atol=1e-14)
    assert not (tmp_path / "out" / "relevance.h5.part").exists()


def test_a_run_with_other_inputs_begins_anew(model, images, tmp_path, capsys, monkeypatch):
    """Also where the first sample and the number of samples are the same."""
    monkeypatch.setattr(numpylrp.run, "CHUNK", 4)
    args = ["explain", model, tmp_path / "x.npy", "--out", tmp_path / "out", "--heatmaps", 0]
    real, calls = numpylrp.run.explain, []

    def stop_at_the_second(network, x, *rest, **options):
        calls.append(len(x))
        if len(calls) == 2:
            raise KeyboardInterrupt
        return real(network, x, *rest, **options)

    monkeypatch.setattr(numpylrp.run, "explain", stop_at_the_second)
    np.save(tmp_path / "x.npy", images)
    assert call(capsys, *args)[0] == 130
    others = images.copy()
    others[1] = others[1] / 2
    np.save(tmp_path / "x.npy", others)
    assert call(capsys, *args)[0] == 0
    with h5py.File(tmp_path / "out" / "relevance.h5") as file:
        expected = explain(load(model), others).relevance
        assert_allclose(file["attribution"][()], expected, rtol=1e-12, atol=1e-14)


def test_another_run_does_not_go_on_with_it(model, images, tmp_path, capsys, monkeypatch):
    np.save(tmp_path / "x.npy", images)
    monkeypatch.setattr(numpylrp.run, "CHUNK", 4)
    (tmp_path / "out").mkdir()
    with h5py.File(tmp_path / "out" / "relevance.h5.part", "w") as file:
        file.attrs.update(settings="{}", done=9)
    args = ["explain", model, tmp_path / "x.npy", "--out", tmp_path / "out", "--heatmaps", 0]
    assert call(capsys, *args)[0] == 0
    with h5py.File(tmp_path / "out" / "relevance.h5") as file:
        assert abs(file["attribution"][0]).sum() > 0
    (tmp_path / "out" / "relevance.h5.part").write_bytes(b"\x89HDF\r\n\x1a\n half a file")
    assert call(capsys, *args)[0] == 0


def bad(tmp_path, images):
    np.save(tmp_path / "x.npy", images)
    np.save(tmp_path / "flat.npy", images.reshape(10, -1))
    np.save(tmp_path / "none.npy", images[:0])
    np.save(tmp_path / "far.npy", images * 100)
    nan = images.copy()
    nan[2, 0, 0, 0] = np.nan
    np.save(tmp_path / "nan.npy", nan)
    np.save(tmp_path / "objects.npy", np.array([{"a": 1}], object), allow_pickle=True)
    (tmp_path / "text.h5").write_text("hello")
    (tmp_path / "text.npz").write_text("hello")
    (tmp_path / "text.csv").write_text("1,2")
    with h5py.File(tmp_path / "x.h5", "w") as file:
        file["x"] = images
    return {
        "missing": (["no.npy"], "no.npy does not exist"),
        "kind": (["text.csv"], "inputs are to be .npy, .npz, .h5, or images"),
        "not hdf5": (["text.h5"], "text.h5 is not an HDF5 file"),
        "not npz": (["text.npz"], "text.npz can't be read as .npz"),
        "pickle": (["objects.npy"], "objects.npy can't be read as .npy"),
        "shape": (["flat.npy"], "has no array of samples of shape (2, 7, 8); it has array (10, 112)"),
        "empty": (["none.npy"], "none.npy holds no samples"),
        "range": (["far.npy"], "but the network takes -4 to 4: scale them"),
        "nan": (["nan.npy"], "NaN or infinite, first at (2, 0, 0, 0)"),
        "dataset": (["x.h5", "--dataset", "y"], "x.h5 has no dataset 'y'; it has x (10, 2, 7, 8)"),
        "labels": (["x.h5", "--labels", "y"], "x.h5 has no integers 'y'"),
        "true": (["x.h5", "--target", "true"], "target 'true' needs labels"),
        "target": (["x.h5", "--target", "7"], "target 7 is out of range"),
        "label": (["x.h5", "--target", "dog"], "'dog' is no class of this network"),
        "two": (["x.h5", "x.npy"], "give one file of arrays, or image files"),
        "no images": (["."], "is a folder without images"),
    }


CASES = ["missing", "kind", "not hdf5", "not npz", "pickle", "shape", "empty", "range", "nan", "dataset"]
CASES += ["labels", "true", "target", "label", "two", "no images"]


@pytest.mark.parametrize("case", CASES)
def test_bad_input_gives_one_line_and_no_output(case, model, images, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    cases = bad(tmp_path, images)
    assert set(CASES) == set(cases)
    args, says = cases[case]
    code, out, err = call(capsys, "explain", model, *args, "--out", "out", "--heatmaps", 0)
    assert code == 1 and out == "" and says in err and err.startswith("numpylrp: ") and err.count("\n") == 1
    assert not (tmp_path / "out" / "relevance.h5").exists()


def test_bad_calls_exit_with_2(model, capsys):
    for args in (
        [],
        ["nose"],
        ["explain", model],
        ["explain", model, "x.npy", "--out", "o", "--composite", "nose"],
    ):
        with pytest.raises(SystemExit) as stop:
            main(args)
        assert stop.value.code == 2
    assert "--scale" not in capsys.readouterr().out


def test_bad_models_exit_with_1(tmp_path, capsys):
    code, _, err = call(capsys, "inspect", tmp_path / "no.h5")
    assert code == 1 and "no.h5 does not exist" in err


def test_help_shows_examples(capsys):
    for args in (["--help"], ["explain", "--help"]):
        with pytest.raises(SystemExit) as stop:
            main(args)
        assert stop.value.code == 0 and "examples:" in capsys.readouterr().out


def test_as_a_program(model):
    done = subprocess.run(
        [sys.executable, "-m", "numpylrp", "inspect", model], capture_output=True, text=True
    )
    assert done.returncode == 0 and "conv1" in done.stdout


def test_without_the_plot_extra_it_says_so(model, images, tmp_path, capsys, monkeypatch):
    np.save(tmp_path / "x.npy", images)
    monkeypatch.setitem(sys.modules, "PIL", None)
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    code, _, err = call(capsys, "explain", model, tmp_path / "x.npy", "--out", tmp_path / "out")
    assert code == 1 and "numpylrp[plot]" in err and not (tmp_path / "out").exists()
