"""The shipped networks are what their table says: size, parameters, accuracy, and all four treatments."""

import re

import numpy as np
import pytest

from numpylrp import explain, load
from numpylrp.evaluate import heartbeats, planted, pointing_game, relevance_rank_accuracy
from numpylrp.experiments.experiments import TREATMENTS

ROW = re.compile(r"\| `(\w+)\.h5` \| (.+) \| ([\d,]+) \| ([\d.]+) MB \| ([\d.]+) % \|")


@pytest.fixture
def table(weights):
    text = (weights / "README.md").read_text(encoding="utf-8")
    return {found[1]: found for found in map(ROW.fullmatch, text.splitlines()) if found}


def test_the_table_is_right(weights, table):
    files = {path.stem: path for path in weights.glob("*.h5") if path.stem != "digits"}
    assert set(files) == set(table)
    for name, path in files.items():
        network = load(path, dtype=None)
        head, *lines = str(network).splitlines()
        parameters = sum(int(line[head.index("parameters") :] or 0) for line in lines)
        _, _, count, size, accuracy = table[name].groups()
        assert int(count.replace(",", "")) == parameters, name
        assert path.stat().st_size < 2_000_000 and float(size) == round(path.stat().st_size / 1e6, 2)
        training = network.metadata["training"]
        assert round(100 * training["test_accuracy"], 2) == float(accuracy), name
        assert {"script", "data", "images", "epochs", "seed", "torch"} <= set(training)
        natural = "cnn" in name or "dense" in name
        assert float(accuracy) >= (78 if natural else 50) if name.startswith("cifar") else 98


def test_every_shipped_network_has_the_four_treatments(weights, table):
    rng = np.random.default_rng(0)
    for name in table:
        network = load(weights / f"{name}.h5", dtype=np.float64)
        shape = (3, 32, 32) if name.startswith("cifar") else (1, 28, 28)
        x = planted(2).x if name.startswith("tokens") else rng.random((2, *shape))
        x = heartbeats(2).x if name == "heartbeats" else x
        for treatment in TREATMENTS:
            found = explain(network, x, composite="epsilon-plus", normalization=treatment)
            assert found.relevance.shape == x.shape and np.isfinite(found.relevance).all(), (name, treatment)
            assert np.abs(found.relevance).sum() > 0


@pytest.mark.parametrize(
    ("name", "rank", "point"), [("tokens_lstm", 0.8, 0.95), ("tokens_attention", 0.7, 0.99)]
)
def test_relevance_of_tokens_lies_where_the_truth_lies(weights, name, rank, point):
    """Of sequences that were not seen in training; at random, 2 of 24 places would be right."""
    test = planted(200, seed=11)
    network = load(weights / f"{name}.h5", dtype=np.float64)
    assert (network.forward(test.x).argmax(1) == test.target).all()
    for composite in ("lstm", "cp-lrp"):
        R = explain(network, test.x, test.target.tolist(), composite=composite).relevance
        assert relevance_rank_accuracy(R, test.mask).mean() > rank, composite
        assert pointing_game(R, test.mask).mean() >= point, composite


def test_halves_lose_what_was_early(weights):
    """Products of gates by halves (Arras et al. found the same): most relevance is on the wrong tokens."""
    test = planted(200, seed=11)
    network = load(weights / "tokens_lstm.h5", dtype=np.float64)
    R = explain(network, test.x, test.target.tolist(), composite="attnlrp").relevance
    assert relevance_rank_accuracy(R, test.mask).mean() < 0.4


def test_relevance_of_heartbeats_lies_on_the_early_one(weights):
    """More than half of what speaks for it, on a sixth of the time."""
    test = heartbeats(200, seed=11)
    network = load(weights / "heartbeats.h5", dtype=np.float64)
    assert (network.forward(test.x).argmax(1) == test.target).all()
    rows = test.target == 1
    R = explain(network, test.x[rows], 1, composite="lstm").relevance[..., 0]
    assert relevance_rank_accuracy(R, test.mask[rows]).mean() > 0.5 > 2.5 * test.mask[rows].mean()
