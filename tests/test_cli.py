"""The command line, as a user calls it."""

import json
import os
import re
import subprocess
import sys

import h5py
import numpy as np
import pytest
from networks import chain
from numpy.testing import assert_allclose

from numpylrp import Network, explain, load, save
from numpylrp.cli import main
from numpylrp.errors import LRPError
from numpylrp.jobs import relevance as job
from numpylrp.jobs.chunks import locked
from numpylrp.layers import Dense, Flatten, Sigmoid

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
    out = tmp_path / "other"
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
    monkeypatch.setattr(job, "CHUNK", 8)
    args = ["explain", model, tmp_path / "x.npy", "--out", tmp_path / "out", "--heatmaps", 0]
    real, calls = job.explain, []

    def stop_at_the_third(network, x, *rest, **options):
        calls.append(len(x))
        if len(calls) == 3:
            raise KeyboardInterrupt
        return real(network, x, *rest, **options)

    monkeypatch.setattr(job, "explain", stop_at_the_third)
    code, _, err = call(capsys, *args)
    assert code == 130 and "interrupted" in err
    assert [p.name for p in (tmp_path / "out").iterdir()] == ["relevance.h5.parts"]
    code, _, _ = call(capsys, *args)
    assert code == 0 and calls == [8, 8, 8, 8, 6]  # the third again, and the rest
    expected = explain(load(model), np.concatenate([images] * 3))
    with h5py.File(tmp_path / "out" / "relevance.h5") as file:
        assert_allclose(file["attribution"][()], expected.relevance, rtol=1e-12, atol=1e-14)
    assert [p.name for p in (tmp_path / "out").iterdir() if "relevance.h5." in p.name] == []


def test_a_run_with_other_inputs_begins_anew(model, images, tmp_path, capsys, monkeypatch):
    """Also where the first sample and the number of samples are the same."""
    monkeypatch.setattr(job, "CHUNK", 4)
    args = ["explain", model, tmp_path / "x.npy", "--out", tmp_path / "out", "--heatmaps", 0]
    real, calls = job.explain, []

    def stop_at_the_second(network, x, *rest, **options):
        calls.append(len(x))
        if len(calls) == 2:
            raise KeyboardInterrupt
        return real(network, x, *rest, **options)

    monkeypatch.setattr(job, "explain", stop_at_the_second)
    np.save(tmp_path / "x.npy", images)
    assert call(capsys, *args)[0] == 130
    others = images.copy()
    others[1] = others[1] / 2
    np.save(tmp_path / "x.npy", others)
    assert call(capsys, *args)[0] == 0
    with h5py.File(tmp_path / "out" / "relevance.h5") as file:
        expected = explain(load(model), others).relevance
        assert_allclose(file["attribution"][()], expected, rtol=1e-12, atol=1e-14)


def test_a_finished_run_is_not_computed_again(model, images, tmp_path, capsys, monkeypatch):
    np.save(tmp_path / "x.npy", images)
    args = ["explain", model, tmp_path / "x.npy", "--out", tmp_path / "out", "--heatmaps", 0]
    assert call(capsys, *args)[0] == 0
    before = (tmp_path / "out" / "relevance.h5").read_bytes()
    monkeypatch.setattr(job, "explain", None)  # it is not asked again
    np.save(tmp_path / "again.npy", images)  # the same samples in another file
    args[2] = tmp_path / "again.npy"
    code, _, err = call(capsys, *args)
    assert code == 0 and "is finished: the same run is not computed again" in err
    assert (tmp_path / "out" / "relevance.h5").read_bytes() == before


def test_a_result_of_another_run_is_replaced_only_when_asked(model, images, tmp_path, capsys):
    np.save(tmp_path / "x.npy", images)
    args = ["explain", model, tmp_path / "x.npy", "--out", tmp_path / "out", "--heatmaps", 0]
    assert call(capsys, *args)[0] == 0
    before = (tmp_path / "out" / "relevance.h5").read_bytes()
    code, _, err = call(capsys, *args, "--seed", "one-hot")
    assert code == 1 and "is the result of another run (seed logit instead of one-hot)" in err
    assert (tmp_path / "out" / "relevance.h5").read_bytes() == before
    assert call(capsys, *args, "--seed", "one-hot", "--overwrite")[0] == 0
    assert (tmp_path / "out" / "relevance.h5").read_bytes() != before
    (tmp_path / "out" / "relevance.h5").write_bytes(before[:-100])
    code, _, err = call(capsys, *args)
    assert code == 1 and "is there, and is no finished result" in err
    assert call(capsys, *args, "--overwrite")[0] == 0
    assert (tmp_path / "out" / "relevance.h5").read_bytes() == before


def test_a_damaged_chunk_is_computed_again(model, images, tmp_path, capsys, monkeypatch):
    np.save(tmp_path / "x.npy", images)
    monkeypatch.setattr(job, "CHUNK", 4)
    args = ["explain", model, tmp_path / "x.npy", "--out", tmp_path / "out", "--heatmaps", 0]
    real, calls = job.explain, []

    def stop_at_the_third(network, x, *rest, **options):
        calls.append(len(x))
        if len(calls) == 3:
            raise KeyboardInterrupt
        return real(network, x, *rest, **options)

    monkeypatch.setattr(job, "explain", stop_at_the_third)
    assert call(capsys, *args)[0] == 130
    chunk = tmp_path / "out" / "relevance.h5.parts" / "00000000.h5"
    with h5py.File(chunk, "r+") as file:
        file["attribution"][1] += 1.0
    code, _, err = call(capsys, *args)
    assert code == 0 and calls == [4, 4, 2, 4, 2] and "going on, 4 of 10 samples are done" in err
    with h5py.File(tmp_path / "out" / "relevance.h5") as file:
        assert_allclose(
            file["attribution"][()], explain(load(model), images).relevance, rtol=1e-12, atol=1e-14
        )


def test_two_processes_do_not_make_one_file(model, images, tmp_path, capsys):
    np.save(tmp_path / "x.npy", images)
    (tmp_path / "out").mkdir()
    args = ["explain", model, tmp_path / "x.npy", "--out", tmp_path / "out", "--heatmaps", 0]
    with locked(tmp_path / "out" / "relevance.h5"):
        code, _, err = call(capsys, *args)
        assert code == 1 and f"is being made by process {os.getpid()}" in err
    (tmp_path / "out" / "relevance.h5.lock").write_text("1\n")  # left by a process that was killed
    assert call(capsys, *args)[0] == 0
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == ["audit.txt", "relevance.h5"]


def test_what_is_written_is_never_what_is_read(model, tmp_path, capsys):
    before = (tmp_path / "net.h5").read_bytes()
    (tmp_path / "link.h5").symlink_to(tmp_path / "net.h5")
    os.link(tmp_path / "net.h5", tmp_path / "hard.h5")
    for out in ("net.h5", "link.h5", "hard.h5", "./net.h5"):
        for command in ("convert", "fuse"):
            code, _, err = call(capsys, command, model, "--out", f"{tmp_path}/{out}")
            assert code == 1 and "is the file that is read" in err
    assert (tmp_path / "net.h5").read_bytes() == before


def test_old_heatmaps_do_not_stay(model, images, tmp_path, capsys):
    pytest.importorskip("matplotlib", reason="the plot extra is missing")
    np.save(tmp_path / "x.npy", images)
    args = ["explain", model, tmp_path / "x.npy", "--out", tmp_path / "out"]
    assert call(capsys, *args, "--heatmaps", 5, "--target", "bee")[0] == 0
    folder = tmp_path / "out" / "heatmaps"
    (folder / "mine.png").write_bytes(b"")
    assert call(capsys, *args, "--heatmaps", 2, "--target", "ant", "--overwrite")[0] == 0
    assert sorted(p.name for p in folder.iterdir()) == ["00000_ant.png", "00001_ant.png", "mine.png"]


def test_inputs_of_an_unknown_range(images, tmp_path, capsys):
    network = chain()
    network.metadata.pop("input_range")
    save(network, tmp_path / "net.h5")
    np.save(tmp_path / "x.npy", np.round(np.abs(images) * 60).clip(0, 255))
    np.save(tmp_path / "small.npy", images)
    args = ["--heatmaps", 0, "--out"]
    run = ["explain", tmp_path / "net.h5", tmp_path / "x.npy"]
    np.save(tmp_path / "x.npy", np.full_like(images, 255.0))
    code, _, err = call(capsys, *run, *args, tmp_path / "a")
    assert code == 0 and "x.npy: the inputs reach 255, and the model does not say" in err
    code, _, err = call(capsys, *run, "--scale", "1/255", *args, tmp_path / "b")
    assert code == 0 and "warning: " not in err
    code, _, err = call(capsys, *run, "--input-range", 0, 1, *args, tmp_path / "c")
    assert code == 1 and "the network takes 0 to 1: scale them" in err
    code, _, err = call(capsys, *run, "--input-range", 1, 0, *args, tmp_path / "d")
    assert code == 1 and "low below high" in err
    network.metadata["input_range"] = [0.0, 1.0]
    with pytest.raises(LRPError, match="the network takes 0 to 1: scale them"):
        explain(network, np.full_like(images, 255.0))


@plot
def test_scale_is_for_image_files_too(tmp_path, capsys):
    from PIL import Image

    network = Network([("flatten", Flatten()), ("fc", Dense(np.eye(12)[:4]))], input_shape=(3, 2, 2))
    save(network, tmp_path / "rgb.h5")
    Image.fromarray(np.full((2, 2, 3), 51, np.uint8)).save(tmp_path / "a.png")
    args = ["explain", tmp_path / "rgb.h5", tmp_path / "a.png", "--heatmaps", 0]
    for n, (more, value) in enumerate(
        [(["--scale", "1/255"], 0.2), (["--input-range", -1, 1], -0.6), ([], 51.0)]
    ):
        assert call(capsys, *args, *more, "--out", tmp_path / str(n))[0] == 0
        with h5py.File(tmp_path / str(n) / "relevance.h5") as file:
            assert_allclose(file["output"][0], value, rtol=1e-12)


def test_a_single_output(tmp_path, capsys):
    network = Network([("fc", Dense([[1.0, -1.0]])), ("sigmoid", Sigmoid())], input_shape=(2,))
    x = np.array([[3.0, 1.0], [1.0, 3.0], [2.0, 1.0]])
    np.savez(tmp_path / "x.npz", x=x, labels=[1, 0, 0])
    save(network, tmp_path / "net.h5")
    args = ["explain", tmp_path / "net.h5", tmp_path / "x.npz", "--heatmaps", 0]
    code, out, _ = call(capsys, *args, "--target", "true", "--out", tmp_path / "out")
    assert code == 0 and "2 of 3 samples classified correctly" in out
    with h5py.File(tmp_path / "out" / "relevance.h5") as file:
        assert file["prediction"][()].tolist() == [1, 0, 1]
        assert_allclose(file["attribution"][()], x * [1, -1], rtol=1e-5)
    np.savez(tmp_path / "x.npz", x=x, labels=[12, 30, 7])  # a regression
    code, out, _ = call(capsys, *args, "--out", tmp_path / "other")
    assert code == 0 and "classified" not in out
    explanation = explain(network, x, target=[1, 0, 1])
    assert explanation.prediction.tolist() == [1, 0, 1] and "(the only output)" in str(explanation)


def test_one_of_several_outputs(images, tmp_path, capsys):
    whole = chain()
    layers = [(node.name, node.layer, node.inputs) for node in whole.nodes]
    two = Network(layers, whole.inputs, ["fc2", "fc1"], whole.metadata)
    save(two, tmp_path / "two.h5")
    np.save(tmp_path / "x.npy", images)
    args = ["explain", tmp_path / "two.h5", tmp_path / "x.npy", "--heatmaps", 0]
    for name, target in (("fc1", 4), ("fc2", 1)):
        out = tmp_path / name
        assert call(capsys, *args, "--output", name, "--target", target, "--out", out)[0] == 0
        expected = explain(two, images, target, output=name).relevance
        with h5py.File(out / "relevance.h5") as file:
            assert_allclose(file["attribution"][()], expected, rtol=1e-12, atol=1e-14)
    code, _, err = call(capsys, *args, "--output", "fc3", "--out", tmp_path / "out")
    assert code == 1 and "there is no output 'fc3'; there are fc2, fc1" in err
    code, _, err = call(capsys, *args, "--output", "fc1", "--target", 1, "--out", tmp_path / "fc2")
    assert code == 1 and "is the result of another run" in err


def test_relevance_that_is_lost_is_told(tmp_path, capsys):
    network = Network([("fc", Dense([[1e-6, 0.0], [0.0, 0.0]], [1.0, 0.0]))], input_shape=(2,))
    save(network, tmp_path / "net.h5")
    np.save(tmp_path / "x.npy", [[1.0, 1.0], [0.0, 1.0]])
    args = ["explain", tmp_path / "net.h5", tmp_path / "x.npy", "--heatmaps", 0, "--out", tmp_path / "out"]
    code, out, _ = call(capsys, *args)
    assert code == 0 and "the heatmaps of 1 of 2 samples are 0 everywhere" in out
    assert "of 2 of 2 samples, less than 1 % of the relevance reaches the input" in out


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
        "kind": (["text.csv"], "inputs must be .npy, .npz, .h5, or images"),
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
