"""Agreement with Quantus 0.6 on the same arrays, where it defines the same thing."""

import numpy as np
import pytest
from networks import chain
from numpy.testing import assert_allclose

from numpylrp import Network, explain
from numpylrp import layers as kinds
from numpylrp.evaluate import (
    class_randomization,
    faithfulness_correlation,
    gini_index,
    gradient,
    heatmaps,
    pointing_game,
    rank_correlation,
    region_perturbation,
    relevance_mass_accuracy,
    relevance_rank_accuracy,
    sensitivity,
    ssim,
)
from numpylrp.evaluate.fills import DRAWS, NOISE, SUBSETS, generator
from numpylrp.layers import Dense

quantus = pytest.importorskip("quantus")
pytestmark = pytest.mark.filterwarnings("ignore")

PLAIN = {"abs": False, "normalise": False, "disable_warnings": True}


class Model:
    """What Quantus' metrics ask of a model."""

    def __init__(self, network):
        self.network = network

    def shape_input(self, x, shape, channel_first=None, batched=False):
        return np.asarray(x).reshape(shape)

    def predict(self, x, **options):
        return self.network.forward(x)


@pytest.fixture
def gray():
    """A network for gray images, inputs, relevance and classes."""
    r = np.random.default_rng(0)
    network = Network(
        [
            ("conv", kinds.Conv2D(r.standard_normal((4, 1, 3, 3)), r.standard_normal(4), padding=1)),
            ("relu", kinds.ReLU()),
            ("flatten", kinds.Flatten()),
            ("fc", Dense(r.standard_normal((3, 192)), r.standard_normal(3))),
        ],
        (1, 6, 8),
    )
    x = r.standard_normal((4, 1, 6, 8))
    return network, x, explain(network, x, [0, 1, 2, 0]).relevance, np.array([0, 1, 2, 0])


def test_localization(gray):
    _, x, R, y = gray
    masks = np.random.default_rng(1).random((4, 1, 6, 8)) < 0.3
    options = {"model": None, "x_batch": x, "y_batch": y, "a_batch": R, "s_batch": masks}
    maps = heatmaps(R)
    for metric, found in (
        (quantus.RelevanceMassAccuracy, relevance_mass_accuracy(maps, masks[:, 0])),
        (quantus.RelevanceRankAccuracy, relevance_rank_accuracy(maps, masks[:, 0])),
        (quantus.PointingGame, pointing_game(maps, masks[:, 0])),
    ):
        assert_allclose(found, metric(**PLAIN)(**options), rtol=1e-10)
    absolute = {**PLAIN, "abs": True}
    found = relevance_mass_accuracy(maps, masks[:, 0], "absolute")
    assert_allclose(found, quantus.RelevanceMassAccuracy(**absolute)(**options), rtol=1e-10)


def test_sparseness(gray):
    _, x, R, y = gray
    found = quantus.Sparseness(**{**PLAIN, "abs": True})(model=None, x_batch=x, y_batch=y, a_batch=R)
    assert_allclose(gini_index(np.abs(R) + 1e-7), found, rtol=1e-10)  # which it adds to every value
    assert_allclose(gini_index(R), found, rtol=1e-4)


@pytest.mark.parametrize("order, name", [("MoRF", "morf"), ("LeRF", "lerf")])
@pytest.mark.parametrize("make", ["gray", "colour"])
def test_region_perturbation(gray, order, name, make):
    """Drops of the score after k = 1 .. L; filled with a number, since its "mean" moves with the steps."""
    if make == "gray":
        network, x, R, y = gray
    else:
        network = chain()
        network = Network([(n.name, n.layer, n.inputs) for n in network.nodes[:5]] + TOP, (2, 8, 8))
        x = np.random.default_rng(2).standard_normal((3, 2, 8, 8))
        R, y = explain(network, x, 1).relevance, np.array([1, 1, 1])
    metric = quantus.RegionPerturbation(
        patch_size=2, order=name, regions_evaluation=10, perturb_baseline=0.25, **PLAIN
    )
    theirs = metric.evaluate_batch(model=Model(network), x_batch=x, y_batch=y, a_batch=R)
    found = region_perturbation(network, x, R, y.tolist(), region=2, steps=10, orders=order, fill=0.25)
    f = found.scores[order]
    assert_allclose(f[:, :1] - f[:, 1:], theirs, rtol=1e-9, atol=1e-10)
    assert_allclose(found.aopc(order), np.mean(theirs, 1) * 10 / 11, rtol=1e-9, atol=1e-10)


TOP = [
    ("pool", kinds.GlobalAveragePool(), "relu2"),
    ("top", Dense([[1.0, 2, 3, -1, 0, 1], [0, 1, -2, 3, 1, 1]])),
]


def test_pixel_flipping(gray):
    """Regions of one pixel of an image with one channel are its features."""
    network, x, R, y = gray
    metric = quantus.PixelFlipping(features_in_step=1, perturb_baseline=0.25, **PLAIN)
    theirs = metric.evaluate_batch(model=Model(network), x_batch=x, y_batch=y, a_batch=R)
    found = region_perturbation(network, x, R, y.tolist(), orders="MoRF", fill=0.25)
    assert_allclose(found.scores["MoRF"][:, 1:], theirs, rtol=1e-9, atol=1e-10)


def test_faithfulness_correlation(gray, monkeypatch):
    """With the same subsets."""
    network, x, R, y = gray
    runs, subset = 12, 9
    drawn = [
        generator(3, n, SUBSETS).permuted(np.tile(np.arange(48) < subset, (runs, 1)), axis=1)
        for n in range(4)
    ]
    picks = iter([np.flatnonzero(drawn[n][run]) for run in range(runs) for n in range(4)])
    monkeypatch.setattr(np.random, "choice", lambda *args, **options: next(picks))
    metric = quantus.FaithfulnessCorrelation(
        nr_runs=runs, subset_size=subset, perturb_baseline=0.25, return_aggregate=False, **PLAIN
    )
    theirs = metric.evaluate_batch(model=Model(network), x_batch=x, y_batch=y, a_batch=R)
    found = faithfulness_correlation(network, x, R, y.tolist(), subset=subset, runs=runs, seed=3, fill=0.25)
    assert_allclose(found, theirs, rtol=1e-9, atol=1e-10)


@pytest.mark.parametrize("name, over", [("MaxSensitivity", "max"), ("AvgSensitivity", "mean")])
def test_sensitivity(gray, name, over):
    """With the same noise."""
    network, x, R, y = gray
    streams = [generator(0, n, NOISE) for n in range(4)]

    def noise(arr, indices, **options):
        return arr + np.stack([rng.uniform(-0.1, 0.1, (1, 6, 8)).ravel() for rng in streams])

    metric = getattr(quantus, name)(nr_samples=5, perturb_func=noise, **PLAIN)
    metric.explain_func = lambda model, inputs, targets: gradient(network, inputs, targets.tolist())
    metric.explain_func_kwargs = {}
    R = gradient(network, x, y.tolist())
    theirs = metric.evaluate_batch(model=Model(network), x_batch=x, y_batch=y, a_batch=R)
    found = sensitivity(network, x, gradient, y.tolist(), radius=0.1, draws=5)
    assert_allclose(getattr(found, over)(1), theirs, rtol=1e-9, atol=1e-12)


def test_similarities(gray):
    network, x, R, _ = gray
    other = explain(network, x, [1, 2, 0, 1]).relevance
    a, b = R[:, 0], other[:, 0]
    theirs = quantus.functions.similarity_func.correlation_spearman(
        a.reshape(4, -1), b.reshape(4, -1), batched=True
    )
    assert_allclose(rank_correlation(a, b), theirs, rtol=1e-10, atol=1e-12)
    theirs = quantus.functions.similarity_func.ssim(a, b, batched=True, win_size=5)
    assert_allclose(ssim(a, b, 5), theirs, rtol=1e-8, atol=1e-10)


def test_random_logit(gray):
    """With the same other classes."""
    network, x, R, y = gray

    def explained(model, inputs, targets):
        others = [(t + int(generator(0, n, DRAWS).integers(1, 3))) % 3 for n, t in enumerate(y)]
        return gradient(network, inputs, others)

    similarity = quantus.functions.similarity_func.correlation_spearman
    metric = quantus.RandomLogit(num_classes=3, similarity_func=similarity, **PLAIN)
    metric.explain_func, metric.explain_func_kwargs = explained, {}
    R = gradient(network, x, y.tolist())
    theirs = metric.evaluate_batch(model=Model(network), x_batch=x, y_batch=y, a_batch=R)
    found = class_randomization(network, x, gradient, y.tolist(), window=3)
    assert_allclose(found.rank_correlation[0], theirs, rtol=1e-10, atol=1e-12)
