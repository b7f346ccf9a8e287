"""``numpylrp evaluate``, as a user calls it."""

import argparse
import csv
import json
import sys

import h5py
import numpy as np
import pytest
from networks import chain
from numpy.testing import assert_allclose

from numpylrp import LRPError, cli, evaluate, explain, save
from numpylrp.evaluate import command


def call(capsys, *words):
    """The command behind the options that the command line shares."""
    top = argparse.ArgumentParser()
    commands = top.add_subparsers(required=True)
    command.add_parser(commands, cli._inputs, cli._normalization, cli._bounds)
    args = top.parse_args(["evaluate", *map(str, words)])
    args.command(args)
    return capsys.readouterr()


@pytest.fixture
def files(tmp_path):
    """A model, ten images, masks, boxes and relevance."""
    save(chain(), tmp_path / "net.h5")
    rng = np.random.default_rng(1)
    x = rng.uniform(-4, 4, (10, 2, 7, 8))
    np.savez(tmp_path / "images.npz", images=x, labels=np.arange(10) % 3)
    np.save(tmp_path / "masks.npy", rng.random((10, 7, 8)) < 0.4)
    np.save(tmp_path / "boxes.npy", np.array([[0, 1, 3, 5]] * 10))
    return tmp_path


def test_methods_side_by_side(files, capsys):
    out, err = call(
        capsys,
        files / "net.h5",
        files / "images.npz",
        *("--composite", "epsilon", "epsilon-gamma-box", "--baselines", "random", "gradient-x-input"),
        *(
            "--region",
            3,
            "--steps",
            4,
            "--every",
            2,
            "--fill",
            "zero",
            "uniform",
            "--out",
            files / "measured",
        ),
    )
    lines = out.splitlines()
    assert lines[0].startswith("10 samples") and "mean +- standard error" in lines[0]
    assert lines[1].split()[:5] == ["measure", "setting", "epsilon", "epsilon-gamma-box", "random"]
    assert "epsilon, perturbation, zero: 60 evaluations" in err
    with open(files / "measured" / "evaluation.csv") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 4 * (2 * 4 + 1)
    found = json.loads((files / "measured" / "evaluation.json").read_text())
    assert found["samples"] == 10 and found["settings"]["region"] == [3] and len(found["curves"]) == 4 * 2 * 3
    # the numbers are those of the functions
    network = chain()
    with np.load(files / "images.npz") as arrays:
        x = arrays["images"]
    explained = explain(network, x, composite="epsilon")
    expected = evaluate.region_perturbation(network, x, explained, region=3, steps=4, every=2, fill="uniform")
    one = next(
        r
        for r in found["results"]
        if (r["method"], r["measure"], r["setting"]) == ("epsilon", "ABPC", "uniform")
    )
    assert_allclose(one["values"], expected.abpc(), rtol=1e-10)
    summary = evaluate.summarize(expected.abpc())
    row = next(r for r in rows if (r["method"], r["measure"], r["setting"]) == ("epsilon", "ABPC", "uniform"))
    assert_allclose([float(row["mean"]), float(row["error"])], [summary.mean, summary.error], rtol=1e-10)
    assert str(summary) in out
    curve = next(
        c for c in found["curves"] if (c["method"], c["fill"], c["order"]) == ("epsilon", "uniform", "MoRF")
    )
    assert_allclose(curve["mean"], expected.curve()[0], rtol=1e-10)
    assert curve["regions"] == [0, 2, 4]


@pytest.mark.parametrize("truth", ["--masks masks.npy", "--boxes boxes.npy", "--object-threshold 2"])
def test_localization(files, capsys, truth):
    option, value = truth.split()
    value = files / value if value.endswith(".npy") else value
    words = [files / "net.h5", files / "images.npz", "--composite", "epsilon-plus", option, value]
    out, _ = call(
        capsys, *words, "--measures", "localization", "--first", 4, "--target", "true", "--out", files
    )
    found = json.loads((files / "evaluation.json").read_text())["results"]
    with np.load(files / "images.npz") as arrays:
        x, labels = arrays["images"][:4], arrays["labels"][:4]
    masks = (
        np.load(files / "masks.npy")[:4]
        if "masks" in truth
        else evaluate.box_masks([[0, 1, 3, 5]] * 4, (7, 8))
    )
    masks = (x > 2).any(1) if "object" in truth else masks
    R = evaluate.heatmaps(explain(chain(), x, labels.tolist()).relevance)
    by_name = {(r["measure"], r["setting"]): r for r in found}
    assert_allclose(by_name["pointing game", "all"]["values"], evaluate.pointing_game(R, masks))
    assert_allclose(by_name["mIoU", "threshold 0.5"]["mean"], evaluate.segmentation(R, masks, 0.5).miou)
    assert by_name["mIoU", "threshold 0.5"]["error"] is None and len(by_name) == 11 and "mIoU" in out


def test_relevance_from_files(files, capsys):
    words = [files / "net.h5", files / "images.npz"]
    cli.main(["explain", *map(str, words), "--out", str(files / "out"), "--heatmaps", "0", "--target", "ant"])
    capsys.readouterr()
    relevance = files / "out" / "relevance.h5"
    out, err = call(capsys, *words, "--relevance", relevance, "--baselines", "random", "--region", 4)
    assert "relevance.h5" in out and "not checked" not in err
    call(capsys, *words, "--relevance", relevance, "--first", 6)
    with pytest.raises(LRPError, match="explains class 0 of sample 0, but the target is 1"):
        call(capsys, *words, "--relevance", relevance, "--target", "1")
    with np.load(files / "images.npz") as arrays:
        x = arrays["images"]
    with h5py.File(relevance) as file:
        R = file["attribution"][()]
    np.save(files / "bare.npy", R)
    _, err = call(capsys, *words, "--relevance", files / "bare.npy", "--measures", "sparsity")
    assert "that it is of these samples is not checked" in err
    np.savez(files / "both.npz", relevance=R, x=x)
    _, err = call(capsys, *words, "--relevance", files / "both.npz", "--measures", "sparsity")
    assert "not checked" not in err
    # relevance of other samples, found out by their content
    np.savez(files / "other.npz", images=x[::-1])
    for name in ("both.npz", "out/relevance.h5"):
        with pytest.raises(LRPError, match=r"of other samples|is not of these samples"):
            call(
                capsys, files / "net.h5", files / "other.npz", "--relevance", files / name, "--target", "ant"
            )
    save(chain(seed=1), files / "another.h5")
    with pytest.raises(LRPError, match=r"relevance\.h5: relevance is not of these samples and this network"):
        call(capsys, files / "another.h5", *words[1:], "--relevance", relevance)


def test_other_measures(files, capsys):
    words = [files / "net.h5", files / "images.npz", "--first", 3, "--composite", "epsilon", "--region", 2]
    measures = ["faithfulness", "sparsity", "sensitivity", "randomization"]
    out, err = call(capsys, *words, "--measures", *measures, "--draws", 2, "--runs", 5, "--subset", 3)
    for word in (
        "faithfulness correlation",
        "zero, 3 of 16",
        "Gini index",
        "max-sensitivity",
        "to conv1",
        "SSIM",
    ):
        assert word in out
    assert "epsilon, sensitivity: 6 evaluations" in err


def test_what_is_not_valid(files, capsys):
    model, images = files / "net.h5", files / "images.npz"
    np.save(files / "few.npy", np.ones((3, 2, 7, 8)))
    np.save(files / "small.npy", np.ones((10, 2, 6, 8)))
    bad = np.ones((10, 2, 7, 8))
    bad[3] = np.nan
    np.save(files / "nan.npy", bad)
    np.save(files / "outside.npy", np.array([[0, 1, 8, 5]] * 10))
    np.save(files / "empty.npy", np.zeros((10, 7, 8), bool))
    np.savez(files / "two.npz", a=bad, b=bad)
    (files / "text.npy").write_text("no array")
    for words, match in (
        ([], "nothing to evaluate"),
        (["--composite", "epsilon", "--measures", "localization"], "localization needs --masks"),
        (["--relevance", files / "few.npy", "--measures", "sensitivity"], "sensitivity explains anew"),
        (["--relevance", files / "none.npy"], "does not exist"),
        (
            ["--relevance", files / "few.npy"],
            r"relevance has shape \(3, 2, 7, 8\), but the samples have \(10",
        ),
        (["--relevance", files / "small.npy"], "relevance has shape"),
        (["--relevance", files / "nan.npy"], "relevance has NaN or infinity, first in sample 3"),
        (["--relevance", files / "two.npz"], "has no array 'relevance' or 'attribution'"),
        (["--relevance", files / "text.npy"], "can't be read"),
        (["--composite", "epsilon", "--region", 9], "larger than the image"),
        (["--composite", "epsilon", "--first", 1], "two samples or more, not 1"),
        (["--composite", "epsilon", "--boxes", files / "outside.npy"], "reaches outside the image"),
        (["--composite", "epsilon", "--masks", files / "empty.npy"], "the mask of sample 0 is empty"),
        (
            ["--composite", "epsilon", "--masks", files / "boxes.npy"],
            r"must have one array of shape \(10, 7, 8\)",
        ),
        (["--composite", "epsilon", "--object-threshold", 9], "the mask of sample 0 is empty"),
        (["--composite", "epsilon", "--low", 0], "none of the composites takes low"),
        (["--composite", "epsilon", "--target", "dog"], "target 'dog' is no class"),
        (["--composite", "epsilon", "--out", files / "net.h5"], "can't be made"),
    ):
        with pytest.raises(LRPError, match=match):
            call(capsys, model, images, *words, *([] if "--out" in words else ["--out", files / "wrong"]))
    folder = files / "wrong"
    assert not folder.exists() or not list(folder.iterdir())
    np.save(files / "plain.npy", np.ones((4, 2, 7, 8)))
    with pytest.raises(LRPError, match="'true' needs labels"):
        call(capsys, model, files / "plain.npy", "--composite", "epsilon", "--target", "true")


def test_written_whole_or_not_at_all(files, capsys, monkeypatch):
    words = [files / "net.h5", files / "images.npz", "--composite", "epsilon", "--measures", "sparsity"]
    call(capsys, *words, "--out", files / "kept")
    before = {path.name: path.read_bytes() for path in (files / "kept").iterdir()}
    assert sorted(before) == ["evaluation.csv", "evaluation.json"]

    def full(self, text, encoding=None):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(command.Path, "write_text", full)
    with pytest.raises(LRPError, match="No space left"):
        call(capsys, *words, "--part", "positive", "--out", files / "kept")
    assert {path.name: path.read_bytes() for path in (files / "kept").iterdir()} == before
    monkeypatch.undo()
    (files / "taken" / "evaluation.json").mkdir(parents=True)
    with pytest.raises(LRPError, match="is a folder"):
        call(capsys, *words, "--out", files / "taken")
    assert [path.name for path in (files / "taken").iterdir()] == ["evaluation.json"]


def test_undefined_and_infinite_values_are_json(files, capsys):
    """A map without relevance has no mass accuracy; one with nothing inside an infinite ratio."""
    R = np.zeros((10, 2, 7, 8))
    R[1:, 0, 6, 7] = 1
    np.save(files / "R.npy", R)
    words = [
        files / "net.h5",
        files / "images.npz",
        "--relevance",
        files / "R.npy",
        "--boxes",
        files / "boxes.npy",
    ]
    out, _ = call(capsys, *words, "--measures", "localization", "--out", files)
    found = json.loads((files / "evaluation.json").read_text())["results"]
    by_name = {(r["measure"], r["setting"]): r for r in found}
    assert by_name["relevance mass accuracy", "positive"]["values"] == [None] + [0] * 9
    assert by_name["relevance mass accuracy", "positive"]["undefined"] == 1
    assert by_name["outside-inside ratio", "positive"]["values"][1] == "inf" and "(1 undefined)" in out


def test_progress_on_a_terminal(files, capsys, monkeypatch):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    words = [
        files / "net.h5",
        files / "images.npz",
        "--composite",
        "epsilon",
        "--region",
        4,
        "--batch-size",
        30,
    ]
    _, err = call(capsys, *words)
    assert "\repsilon, perturbation, zero: 30/120" in err and err.endswith("120/120   \n")
