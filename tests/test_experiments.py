"""Experiments: intervals and verdicts by hand, methods that are the truth, and every command, quickly."""

import argparse
import csv

import numpy as np
import pytest

from numpylrp import LRPError, Network, load, save
from numpylrp import layers as L
from numpylrp.errors import FileError
from numpylrp.experiments.claims import (
    HOLDS,
    NOT,
    OPEN,
    Comparison,
    Interval,
    compared,
    in_words,
    interval,
    verdict,
)
from numpylrp.experiments.command import add_parser
from numpylrp.experiments.experiments import EXPERIMENTS
from numpylrp.experiments.measures import of_method
from numpylrp.experiments.study import Study

WEIGHTS = "weights"


def test_interval_is_the_bootstrap_by_loops():
    values = np.array([1.0, 2.0, 4.0, 8.0, float("nan")])
    found = interval(values)
    rng = np.random.default_rng(0)
    means = [np.mean([values[k] for k in rng.integers(0, 4, 4)]) for _ in range(2000)]
    low, high = np.percentile(means, [2.5, 97.5])
    assert (found.mean, found.count) == (3.75, 4)
    assert (found.low, found.high) == pytest.approx((low, high), rel=1e-12)
    assert interval(np.array([1.0, np.nan])).low == -np.inf


def test_intervals_cover_the_truth_as_often_as_they_say():
    rng = np.random.default_rng(1)
    inside = sum(i.low <= 0 <= i.high for i in (interval(rng.standard_normal(60)) for _ in range(100)))
    assert 88 <= inside <= 100


@pytest.mark.parametrize(
    ("intervals", "word"),
    [
        ([(0.1, 0.2), (0.3, 0.4)], HOLDS),
        ([(0.1, 0.2), (0.0, 0.4)], OPEN),
        ([(-0.1, 0.2)], OPEN),
        ([(0.1, 0.2), (-0.3, -0.1)], NOT),
        ([(-0.2, -0.1), (-0.3, 0.1)], NOT),
    ],
)
def test_verdicts(intervals, word):
    group = [Comparison("", "", "", "", 0, 0, 0, Interval(0, low, high, 9)) for low, high in intervals]
    assert verdict(group) == word


def test_claims_in_words():
    def group(claim, *intervals):
        return [
            Comparison(claim, "n", str(k), "", 0, 0, 0, Interval(0, *at, 9)) for k, at in enumerate(intervals)
        ]

    up, down, both = (0.1, 0.2), (-0.2, -0.1), (-0.1, 0.1)
    found = in_words(
        group("A", up, up) + group("B", up, down, both) + group("C", down, both) + group("D", down)
    )
    ends = [line.split("**")[1] for line in found]
    assert ends == [HOLDS, "depends on the network, the method and the measure", "holds nowhere", NOT]
    assert (
        "Of 3 comparisons (1 training seed each) it holds in 1, does not hold in 1, and 1 can't" in found[1]
    )


def test_what_is_better_comes_first_whichever_way_is_up():
    high, low = np.array([2.0, 3.0, np.nan]), np.array([1.0, 1.0, 5.0])
    found = compared("", ("n", 0), "", "", (high, low))
    assert (found.better, found.worse, found.found.mean, found.found.count) == (2.5, 1.0, 1.5, 2)
    assert compared("", ("n", 0), "", "", (high, low), lower_is_better=True).found.mean == -1.5


@pytest.fixture
def toy(tmp_path):
    """A network for mosaics whose answer lies in the brightness of each image, and a mark."""
    rng = np.random.default_rng(0)
    fc = rng.standard_normal((10, 4))
    layers = [
        ("conv", L.Conv2D(rng.standard_normal((4, 1, 3, 3)), np.zeros(4), padding=1)),
        ("relu", L.ReLU()),
        ("gap", L.GlobalAveragePool()),
        ("fc", L.Dense(fc)),
    ]
    mark = {"mark": {"top": 1, "left": 1, "size": 3, "class": 0}, "input_range": [0.0, 1.0]}
    save(Network(layers, (1, None, None), metadata=mark), tmp_path / "mnist_toy.h5")
    save(Network(layers, (1, None, None), metadata=mark), tmp_path / "mnist_toy-seed3.h5")
    x = rng.random((20, 28, 28))
    np.savez(tmp_path / "mnist.npz", x_test=(255 * x).astype(np.uint8), y_test=np.arange(20) % 10)
    return tmp_path


def study(folder, **options):
    options = {"images": 12, "steps": 2, **options}
    return Study(folder / "out", [folder], [folder / "mnist.npz"], progress=lambda text: None, **options)


def test_the_truth_gets_the_best_score_and_the_opposite_the_worst(toy):
    """Relevance that lies where it must, on the mark and in the cell, scores 1; elsewhere 0."""
    run = study(toy)
    one = next(run.trained("mnist_toy"))
    from numpylrp.evaluate import marked, mosaics

    images = run.samples(one.name)
    grid = mosaics(images.x, images.labels).mask
    mark = marked(images.x[images.labels != 0], 0, np.ones((3, 3)), (1, 1)).mask

    def truth(network, x, target):
        mask = grid if x.shape[2] == 56 else mark
        return mask[:, None].astype(float) if len(mask) == len(x) else np.ones_like(x)

    def opposite(network, x, target):
        mask = grid if x.shape[2] == 56 else mark
        return 1.0 - mask[:, None] if len(mask) == len(x) else np.ones_like(x)

    for name, method, score in (("truth", truth, 1), ("opposite", opposite, 0)):
        found = of_method(run, one, name, method, ("mark", "grid"))
        assert (found["grid"] == score).all()
        assert (found["mark"][images.labels != 0] == score).all()
        assert np.isnan(found["mark"][images.labels == 0]).all()


def test_mosaics_whose_class_has_a_negative_logit_are_left_out(toy):
    run = study(toy)
    one = next(run.trained("mnist_toy"))
    signs = {}

    def constant(network, x, target):
        signs["logit"] = network.forward(x)[np.arange(len(x)), target]
        return np.ones_like(x)

    found = of_method(run, one, "constant", constant, ("grid of positive",))
    assert (found["grid"] == 0.25).all() and 0 < (signs["logit"] > 0).sum() < 12
    assert (np.isnan(found["grid, logit > 0"]) == (signs["logit"] <= 0)).all()


def test_perturbation_by_plain_loops(toy):
    """Regions of 4 x 4 become 0, eight at a step: the mean gap of the scores between both orders."""
    run = study(toy, steps=10)
    one = next(run.trained("mnist_toy"))
    rng = np.random.default_rng(3)
    R = rng.standard_normal((12, 1, 28, 28))
    found = of_method(run, one, "given", lambda network, x, target: R, ("perturbation",))
    for n, image in enumerate(run.samples(one.name).x):
        target = one.network.forward(image[None]).argmax()
        sums = {(t, l): R[n, 0, t : t + 4, l : l + 4].sum() for t in range(0, 28, 4) for l in range(0, 28, 4)}
        scores = {}
        for sign in (1, -1):
            changed = image[None].copy()
            scores[sign] = [one.network.forward(changed)[0, target]]
            for k, (t, l) in enumerate(sorted(sums, key=lambda at: sign * sums[at])[:10], 1):
                changed[0, 0, t : t + 4, l : l + 4] = 0
                if k in (8, 10):
                    scores[sign].append(one.network.forward(changed)[0, target])
        gap = np.mean(np.float64(scores[1]) - np.float64(scores[-1]))
        assert found["ABPC zero"][n] == pytest.approx(gap, rel=1e-4, abs=1e-5)


def test_pieces_are_kept_and_measured_again_where_anything_differs(toy):
    calls = []

    def measured(run, method="m"):
        one = next(run.trained("mnist_toy"))
        return run.piece(one, method, {}, lambda: calls.append(1) or {"v": np.arange(3.0)})["v"].tolist()

    assert measured(study(toy)) == measured(study(toy)) == [0, 1, 2] and len(calls) == 1
    measured(study(toy), "other")
    measured(study(toy, images=13))
    measured(study(toy, steps=3))
    assert len(calls) == 4
    with pytest.raises(ZeroDivisionError):
        one = next(study(toy).trained("mnist_toy"))
        study(toy).piece(one, "fails", {}, lambda: 1 / 0)
    assert not list((toy / "out" / "pieces").glob("*fails*"))
    network = load(toy / "mnist_toy.h5")
    save(network.replace("fc", L.Dense(np.ones((10, 4)))), toy / "mnist_toy.h5")
    measured(study(toy))
    assert len(calls) == 5


def test_networks_and_images_that_are_not_there(toy):
    assert [one.seed for one in study(toy).trained("mnist_toy")] == [0, 3]
    assert [one.seed for one in study(toy, quick=True).trained("mnist_toy")] == [0]
    with pytest.raises(FileError, match="none of the networks mnist_no is in"):
        next(study(toy).trained("mnist_no"))
    with pytest.raises(LRPError, match="has 20 images, but 30 are to be measured"):
        study(toy, images=30).samples("mnist_toy")
    with pytest.raises(LRPError, match="four or more, not 3"):
        study(toy, images=3)
    with pytest.raises(LRPError, match="networks must be some of mnist_toy, not mnist_no, cifar_no"):
        next(study(toy, only=["mnist_no", "cifar_no"]).trained("mnist_toy"))
    with pytest.raises(FileError, match=r"none of the networks cifar_no is in .* need --data cifar10.npz"):
        next(study(toy).trained("cifar_no"))
    with pytest.raises(FileError, match=r"images.npz: the name of a data file must have one of mnist, cifar"):
        Study(toy / "out", [toy], [toy / "images.npz"])
    (toy / "mnist.npz").write_bytes(b"no file of arrays")
    with pytest.raises(FileError, match="it is no zip archive"):
        study(toy).samples("mnist_toy")


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_each_experiment_runs_and_goes_on(name, tmp_path, capsys):
    pytest.importorskip("matplotlib", reason="the plot extra is missing")
    top = argparse.ArgumentParser()
    add_parser(top.add_subparsers())
    given = ["reproduce", name, "--out", str(tmp_path), "--weights", WEIGHTS, "--quick", "--images", "6"]
    few = {"normalization": ["mnist_cnn_pre"], "rap": ["mnist_cnn_mark"], "pruning": ["mnist_cnn_gap"]}
    if name in few:
        given += ["--networks", *few[name]]
    args = top.parse_args(given)
    args.command(args)
    told = capsys.readouterr()
    assert EXPERIMENTS[name].title in told.out and "of" in told.out and "seed 0" in told.err
    written = {path.name for path in tmp_path.iterdir()}
    assert written == {"pieces", "report.md", "comparisons.csv", "means.csv", "chart.png", "maps.png"}
    with open(tmp_path / "comparisons.csv", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert rows and all(row["verdict"] in (HOLDS, NOT, OPEN) for row in rows)
    assert all(float(row["low"]) <= float(row["difference"]) <= float(row["high"]) for row in rows)
    report = (tmp_path / "report.md").read_text(encoding="utf-8")
    args.command(args)
    again = capsys.readouterr()
    assert "seed 0" not in again.err and again.out == told.out  # all pieces were there
    assert (tmp_path / "report.md").read_text(encoding="utf-8") == report
