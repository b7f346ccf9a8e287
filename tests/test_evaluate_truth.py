"""Inputs of known truth: what they are, and that the truth scores best on each of them."""

import numpy as np
import pytest
from hypothesis import given
from numpy.testing import assert_allclose, assert_array_equal
from strategies import seeds

from numpylrp import LRPError, Network, explain, load
from numpylrp import layers as kinds
from numpylrp.errors import NonFiniteError, ShapeError
from numpylrp.evaluate import (
    additive_network,
    faithfulness_correlation,
    grid_pointing_game,
    heartbeats,
    heatmaps,
    marked,
    mosaics,
    outside_inside_ratio,
    own_pixels,
    planted,
    pointing_game,
    random_relevance,
    region_perturbation,
    relevance_mass_accuracy,
    relevance_rank_accuracy,
    segmentation,
)
from numpylrp.layers import Dense


@pytest.fixture
def digits(weights):
    import h5py

    with h5py.File(weights / "digits.h5") as file:
        return file["images"][()].reshape(-1, 1, 28, 28).astype(float), file["labels"][()]


def test_mosaics_by_plain_loops():
    rng = np.random.default_rng(0)
    x, labels = rng.random((12, 3, 4, 5)), np.arange(12) % 6
    truth = mosaics(x, labels, 9, (2, 3), seed=4)
    assert truth.x.shape == (9, 3, 8, 15) and len(truth) == 9
    for n in range(9):
        assert len(set(truth.classes[n])) == 6 and truth.cells[n] == n % 6
        assert truth.target[n] == truth.classes[n, n % 6]
        for cell in range(6):
            source = truth.sources[n, cell]
            assert labels[source] == truth.classes[n, cell]
            top, left = cell // 3 * 4, cell % 3 * 5
            assert (truth.x[n, :, top : top + 4, left : left + 5] == x[source]).all()
            inside = truth.mask[n, top : top + 4, left : left + 5]
            assert inside.all() if cell == n % 6 else not inside.any()
    last = mosaics(x.transpose(0, 2, 3, 1), labels, 9, (2, 3), seed=4, channels=2)
    assert (last.x == truth.x.transpose(0, 2, 3, 1)).all() and (last.mask == truth.mask).all()
    flat = mosaics(x[:, 0], labels, 9, (2, 3), seed=4, channels=None)
    assert (flat.x == truth.x[:, 0]).all()
    assert (mosaics(x, labels, 3, (2, 3), seed=4).x == truth.x[:3]).all()
    assert len(mosaics(x, labels, seed=1)) == 12
    assert (mosaics(x, labels, 9, (2, 3), seed=5).sources != truth.sources).any()
    with pytest.raises(LRPError, match="a mosaic of 2 x 2 needs images of 4 classes, but there are 3"):
        mosaics(x, labels % 3)
    for wrong in (
        lambda: mosaics(x, labels[:3]),
        lambda: mosaics(x, labels + 0.5),
        lambda: mosaics(x, labels, 0),
        lambda: mosaics(x, labels, grid=(1, 1)),
        lambda: mosaics(x, labels, channels=None),
        lambda: mosaics(x[0], labels),
    ):
        with pytest.raises(LRPError):
            wrong()


def test_marks():
    x = np.random.default_rng(0).random((3, 2, 5, 6))
    before = x.copy()
    places = [[0, 0], [3, 3], [1, 2]]
    truth = marked(x, [4, 5, 6], [[0.5, 0.6, 0.7], [0.1, 0.2, 0.3]], places)
    assert (x == before).all() and truth.target.tolist() == [4, 5, 6]
    for n, (top, left) in enumerate(places):
        assert (truth.x[n, 1, top : top + 2, left : left + 3] == [[0.5, 0.6, 0.7], [0.1, 0.2, 0.3]]).all()
        assert truth.mask[n].sum() == 6 and truth.mask[n, top, left]
        assert (truth.x[n][:, ~truth.mask[n]] == x[n][:, ~truth.mask[n]]).all()
    coloured = marked(x, 1, np.arange(2.0)[:, None, None], (4, 5))
    assert coloured.x[0, :, 4, 5].tolist() == [0, 1] and coloured.target.tolist() == [1, 1, 1]
    last = marked(x.transpose(0, 2, 3, 1), 1, np.arange(2.0)[:, None, None], (4, 5), channels=2)
    assert (last.x.transpose(0, 3, 1, 2) == coloured.x).all()
    for at in ((4, 0), (0, 4), (-1, 0)):
        with pytest.raises(LRPError, match="reaches outside the image of 5 x 6"):
            marked(x, 0, np.ones((2, 3)), at)
    with pytest.raises(NonFiniteError):
        marked(x, 0, [[np.nan]])
    for wrong in (
        lambda: marked(x, 0, [1.0]),
        lambda: marked(x, 0, [[1.0]], (0.5, 0)),
        lambda: marked(x, [0, 1], [[1.0]]),
        lambda: marked(x, -1, [[1.0]]),
    ):
        with pytest.raises(LRPError):
            wrong()


def test_own_pixels(digits):
    x, labels = digits
    truth = own_pixels(x, labels, 0.1)
    assert (truth.mask == (x[:, 0] > 0.1)).all() and 0.05 < truth.mask.mean() < 0.3
    colour = own_pixels(np.array([[[[0.0, 0.2]], [[0.3, 0.0]]]]), 0, 0.25)
    assert colour.mask.tolist() == [[[True, False]]]
    with pytest.raises(LRPError, match="the mask of sample 1 is empty"):
        own_pixels([[[[1.0]]], [[[0.0]]]], 0)


def best_and_wrong(mask):
    """Every measure of localization for the truth itself, and for its opposite."""
    R = mask.astype(float)
    for one, best in ((R, True), (1 - R, False)):
        yield (
            best,
            {
                "mass": relevance_mass_accuracy(one, mask),
                "rank": relevance_rank_accuracy(one, mask),
                "pointing": pointing_game(one, mask),
                "ratio": 1 / (1 + outside_inside_ratio(one, mask)),
                "ratio+": 1 / (1 + outside_inside_ratio(one, mask, "positive")),
                "miou": segmentation(one, mask).miou,
                "miou at 0.5": segmentation(one, mask, 0.5).miou,
                "accuracy": segmentation(one, mask).pixel_accuracy,
                "precision": segmentation(one, mask).average_precision,
                "precision of both": segmentation(one, mask, classes="both").average_precision,
            },
        )


def test_the_truth_scores_best(digits):
    x, labels = digits
    x, labels = x[::25], labels[::25]
    mosaic = mosaics(x, labels)
    sets = [mosaic, marked(x, labels, np.ones((3, 3)), (1, 24)), own_pixels(x, labels, 0.2)]
    for truth in sets:
        for best, scores in best_and_wrong(truth.mask):
            for name, values in scores.items():
                assert np.all(np.asarray(values) == 1) if best else np.all(np.asarray(values) < 0.6), name
        # in between: the truth with half of it missing, and with as much outside
        half = truth.mask * np.random.default_rng(0).random(truth.mask.shape)
        assert (relevance_mass_accuracy(half + 0.1, truth.mask) < 1).all()
        assert (pointing_game(half, truth.mask) == 1).all()
    assert (grid_pointing_game(mosaic.mask.astype(float), mosaic.cells) == 1).all()
    assert (grid_pointing_game(mosaic.mask.astype(float), (mosaic.cells + 1) % 4) == 0).all()


@given(seeds)
def test_the_contributions_score_best(seed):
    """No order has a larger AOPC or ABPC, and no map a larger faithfulness correlation."""
    made = additive_network((1, 3, 4), classes=2, seed=seed)
    x = np.random.default_rng(seed).standard_normal((3, 1, 3, 4))
    truth = made.contributions(x, 1)
    found = region_perturbation(made.network, x, truth, 1)
    assert_allclose(found.scores["MoRF"][:, -1], 0, atol=1e-12)
    faithful = faithfulness_correlation(made.network, x, truth, 1, subset=4, runs=20)
    assert_allclose(faithful, 1, rtol=1e-9)
    for wrong in (-truth, np.abs(truth), random_relevance(made.network, x), truth[:, :, ::-1]):
        other = region_perturbation(made.network, x, wrong, 1)
        assert (other.aopc() <= found.aopc() + 1e-9).all() and (other.abpc() <= found.abpc() + 1e-9).all()
        assert (faithfulness_correlation(made.network, x, wrong, 1, subset=4, runs=20) < 1 - 1e-9).all()
    reversed_order = region_perturbation(made.network, x, -truth, 1)
    assert_allclose(reversed_order.abpc(), -found.abpc(), rtol=1e-9, atol=1e-12)


def test_an_additive_network():
    made = additive_network((2, 3), classes=4, units=5, seed=1)
    x = np.random.default_rng(0).standard_normal((2, 2, 3))
    f = made.network.forward(x)
    assert f.shape == (2, 4) and not made.network.forward(np.zeros((1, 2, 3))).any()
    for target in range(4):
        assert_allclose(made.contributions(x, target).sum((1, 2)), f[:, target], rtol=1e-12)
    zero = x.copy()
    zero[:, 1, 2] = 0
    lost = f - made.network.forward(zero)
    assert_allclose(made.contributions(x, [0, 3])[:, 1, 2], lost[[0, 1], [0, 3]], rtol=1e-10)
    with pytest.raises(LRPError):
        made.contributions(x, [0])


def test_mosaics_with_a_network_that_takes_them():
    """A network that finds vertical and horizontal bars anywhere: LRP points at the right cell."""
    vertical = np.array([[-1.0, 1.0, -1.0]] * 3)
    kernels = np.stack([vertical, vertical.T, np.eye(3) * 2 - 1, np.eye(3)[::-1] * 2 - 1])[:, None]
    network = Network(
        [
            ("conv", kinds.Conv2D(kernels)),
            ("relu", kinds.ReLU()),
            ("pool", kinds.GlobalMaxPool()),
            ("fc", Dense(np.eye(4) * 2 - 0.1)),
        ],
        (1, None, None),
    )
    x = np.zeros((4, 1, 5, 5))
    x[:, 0, 1:4, 1:4] = (np.stack([vertical, vertical.T, np.eye(3), np.eye(3)[::-1]]) > 0).astype(float)
    assert network.forward(x).argmax(1).tolist() == [0, 1, 2, 3]
    truth = mosaics(x, np.arange(4), 12)
    assert truth.x.shape == (12, 1, 10, 10)
    R = explain(network, truth.x, truth.target, composite="epsilon").relevance
    found = grid_pointing_game(heatmaps(R), truth.cells)
    assert (found > 0.9).all()
    chance = grid_pointing_game(heatmaps(random_relevance(network, truth.x)), truth.cells)
    assert abs(chance.mean() - 0.25) < 0.1


def test_a_mark_that_is_relied_on(digits):
    """A network that looks at the mark alone: its relevance is the mark."""
    x, _ = digits
    truth = marked(x[:20], 1, np.full((3, 3), 0.9), (0, 25))
    weight = np.zeros((2, 28, 28))
    weight[1, :3, 25:] = 1
    network = Network([("flatten", kinds.Flatten()), ("fc", Dense(weight.reshape(2, -1)))], (1, 28, 28))
    R = heatmaps(explain(network, truth.x, truth.target, composite="epsilon").relevance)
    for measure in (relevance_mass_accuracy, relevance_rank_accuracy, pointing_game):
        assert_allclose(measure(R, truth.mask), 1, rtol=1e-12)


def test_on_a_shipped_network(weights, digits):
    """The trial in the issue, on fewer digits: LRP far from chance under fill zero."""
    x, labels = digits[0][::20], digits[1][::20]
    network = load(weights / "mnist_fc_bn.h5")
    explained = explain(network, x, labels.tolist(), composite="epsilon")
    found = region_perturbation(network, x, explained, region=4, steps=25)
    assert found.abpc().mean() > 3
    assert found.aopc("MoRF").mean() > found.aopc("random").mean() + 3
    truth = own_pixels(x, labels, 0.2)
    maps = heatmaps(explained.relevance)
    assert (relevance_mass_accuracy(maps, truth.mask, "absolute") > 0.5).all()
    assert_array_equal(truth.target, labels)
    with pytest.raises(ShapeError):
        relevance_mass_accuracy(maps[:, :5], truth.mask)


def test_planted_tokens_decide_together():
    """Two in each sequence, one of each pair, anywhere; the class is theirs, all classes as frequent."""
    truth = planted(4000, length=6, tokens=9, seed=5)
    assert truth.x.shape == truth.mask.shape == (4000, 6) and truth.x.max() == 8
    assert (truth.mask.sum(1) == 2).all() and (truth.x[~truth.mask] >= 4).all()
    pairs = np.sort(truth.x[truth.mask].reshape(-1, 2), 1)
    assert (pairs[:, 0] < 2).all() and np.isin(pairs[:, 1], (2, 3)).all()
    assert (truth.target == 2 * pairs[:, 0] + pairs[:, 1] - 2).all()
    assert (np.bincount(truth.target) > 900).all() and (truth.mask.mean(0) > 0.3).all()
    first = truth.x[np.arange(4000), truth.mask.argmax(1)]
    assert 0.45 < (first < 2).mean() < 0.55  # in either order
    for bad in ({"length": 1}, {"tokens": 4}, {"count": 0}):
        with pytest.raises(LRPError, match=next(iter(bad))):
            planted(**{"count": 3, **bad})


def test_an_early_beat_is_what_differs():
    """Half of the electrocardiograms have one, as wide as its mask; of the others the mask is empty."""
    truth = heartbeats(40, seed=2)
    assert truth.x.shape == (40, 400, 1) and truth.target.sum() == 20
    assert (truth.mask.any(1) == (truth.target == 1)).all()
    assert (truth.mask[truth.target == 1].sum(1) >= 60).all()
    peaks = [np.argmax(np.where(m, x, -9)) for x, m in zip(truth.x[..., 0], truth.mask) if m.any()]
    inside = [x[p] for x, p in zip(truth.x[truth.target == 1, :, 0], peaks)]
    assert min(inside) > 0.9  # its R wave lies within the mask, not at its edge
    edges = [np.flatnonzero(m)[[0, -1]] for m in truth.mask if m.any()]
    assert all(10 < p - a < 20 and b - p > 40 for p, (a, b) in zip(peaks, edges))
    with pytest.raises(LRPError, match="length"):
        heartbeats(2, length=100)
