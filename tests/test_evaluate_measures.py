"""Measures of heatmaps against plain loops, hand-worked cases, closed forms and what chance gives."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from networks import chain
from numpy.testing import assert_allclose, assert_array_equal
from strategies import numbers, seeds

from numpylrp import LRPError, Network, explain
from numpylrp import layers as kinds
from numpylrp.errors import NonFiniteError, ShapeError
from numpylrp.evaluate import (
    average_precision,
    box_masks,
    channels_axis,
    class_randomization,
    faithfulness_correlation,
    gini_index,
    gradient,
    grid_pointing_game,
    heatmaps,
    lrp,
    outside_inside_ratio,
    pointing_game,
    random_relevance,
    rank_correlation,
    region_perturbation,
    relevance_mass_accuracy,
    relevance_rank_accuracy,
    segmentation,
    sensitivity,
    ssim,
    summarize,
    weight_randomization,
)
from numpylrp.evaluate.fills import blur, replacements, uniform
from numpylrp.evaluate.maps import regions
from numpylrp.layers import Dense


def linear(weight, shape=None):
    """A linear network with one row of weights a class."""
    weight = np.asarray(weight, float)
    layers = [("flatten", kinds.Flatten()), ("fc", Dense(weight))]
    return Network(layers, shape or (weight.shape[1],), metadata={"input_range": [0.0, 1.0]})


# Region perturbation


@given(
    seeds,
    st.sampled_from([(2, 3), (3, 8), 1, (7, 1)]),
    st.sampled_from(["all", "positive", "negative", "absolute"]),
    st.integers(1, 5),
)
def test_region_perturbation_by_plain_loops(seed, region, part, every):
    network = chain()
    rng = np.random.default_rng(seed)
    x, R = rng.standard_normal((2, 2, 2, 7, 8))
    h, w = (region, region) if isinstance(region, int) else region
    blocks = [(t, l) for t in range(0, 7, h) for l in range(0, 8, w)]
    steps = min(4, len(blocks))
    found = region_perturbation(
        network, x, R, 1, region=region, steps=steps, every=every, fill=0.3, part=part, batch_size=3
    )
    for n in range(2):
        value = {}
        for at, (t, l) in enumerate(blocks):
            value[at] = 0.0
            for i, j in itertools.product(range(t, min(t + h, 7)), range(l, min(l + w, 8))):
                r = R[n, 0, i, j] + R[n, 1, i, j]
                value[at] += {"all": r, "positive": max(r, 0), "negative": max(-r, 0), "absolute": abs(r)}[
                    part
                ]
        for order, sign in (("MoRF", -1), ("LeRF", 1)):
            assume(len(set(value.values())) == len(value))  # ties are for another test
            ranked = sorted(value, key=lambda at, sign=sign: sign * value[at])
            image, curve = x[n : n + 1].copy(), [network.forward(x[n : n + 1])[0, 1]]
            for k, at in enumerate(ranked[:steps], 1):
                t, l = blocks[at]
                image[:, :, t : t + h, l : l + w] = 0.3
                if k % every == 0 or k == steps:
                    curve.append(network.forward(image)[0, 1])
            assert found.order[order][n].tolist() == ranked[:steps]
            assert_allclose(found.scores[order][n], curve, rtol=1e-10, atol=1e-10)
            assert_allclose(found.aopc(order)[n], sum(curve[0] - f for f in curve) / len(curve), rtol=1e-9)
    assert found.counts.tolist() == [*range(0, steps, every), steps]
    both = (found.scores["LeRF"] - found.scores["MoRF"]).sum(1) / len(curve)
    assert_allclose(found.abpc(), both, rtol=1e-12)
    assert_allclose(found.abpc(), found.aopc("MoRF") - found.aopc("LeRF"), rtol=1e-9, atol=1e-12)


@given(seeds)
def test_a_linear_network_in_closed_form(seed):
    """f(x^(k)) = f - the k largest contributions; no other order has a larger AOPC."""
    rng = np.random.default_rng(seed)
    w, x = rng.standard_normal((3, 6)), rng.standard_normal((2, 6))
    network, c = linear(w), x * w[2]
    found = region_perturbation(network, x, c, 2)
    best = np.sort(c, 1)[:, ::-1]
    curve = np.concatenate([np.zeros((2, 1)), best.cumsum(1)], 1)
    assert_allclose(found.scores["MoRF"], c.sum(1)[:, None] - curve, rtol=1e-9, atol=1e-12)
    weights = np.arange(6, 0, -1) / 7  # contribution k is missing in L + 1 - k of L + 1 steps
    assert_allclose(found.aopc(), (best * weights).sum(1), rtol=1e-9, atol=1e-12)
    assert_allclose(found.aopc("LeRF"), (best[:, ::-1] * weights).sum(1), rtol=1e-9, atol=1e-12)
    other = rng.standard_normal((2, 6))
    wrong = region_perturbation(network, x, other, 2)
    assert (wrong.aopc() <= found.aopc() + 1e-12).all() and (wrong.abpc() <= found.abpc() + 1e-12).all()
    assume((c.min(1) < 0).all())
    negative = region_perturbation(network, x, c, 2, part="negative")
    assert_array_equal(negative.order["MoRF"][:, 0], c.argmin(1))


def test_a_random_map_scores_as_a_random_order():
    """E AOPC of a random order is half of all contributions, where all regions are replaced."""
    rng = np.random.default_rng(0)
    w, x = rng.uniform(0, 1, (1, 16)), rng.uniform(0, 1, (2000, 16))
    network = linear(w)
    found = region_perturbation(network, x, random_relevance(network, x, 0), 0)
    half = (x * w).sum(1) / 2
    for order in ("MoRF", "LeRF", "random"):
        gap = summarize(found.aopc(order) - half)
        assert abs(gap.mean) < 4 * gap.error
    gap = summarize(found.abpc())
    assert abs(gap.mean) < 4 * gap.error < 0.1
    again = region_perturbation(network, x, random_relevance(network, x, 0, seed=1), 0)
    assert (again.scores["MoRF"] != found.scores["MoRF"]).any()
    assert (again.scores["random"] == found.scores["random"]).all()


def test_a_map_that_says_nothing_gives_the_random_order():
    """Equal regions come in the random order: the image has no say, and MoRF is LeRF."""
    network = chain()
    x = np.random.default_rng(1).standard_normal((3, 2, 7, 8))
    found = region_perturbation(network, x, np.full(x.shape, 0.1), region=(1, 4))
    assert (found.order["MoRF"] == found.order["random"]).all()
    assert (found.order["LeRF"] == found.order["random"]).all() and not found.abpc().any()
    assert len({tuple(order) for order in found.order["random"]}) == 3
    # among equal regions only
    R = np.zeros(x.shape)
    R[:, 0, 6, 7] = 1
    assert (region_perturbation(network, x, R, region=2).order["MoRF"][:, 0] == 15).all()
    assert (region_perturbation(network, x, R, region=2).order["LeRF"][:, -1] == 15).all()


def test_nothing_depends_on_the_batch():
    network = chain()
    x = np.random.default_rng(1).standard_normal((5, 2, 7, 8))
    R = explain(network, x).relevance
    options = {"region": 2, "fill": "uniform", "seed": 3}
    whole = region_perturbation(network, x, R, **options)
    small = region_perturbation(network, x, R, batch_size=2, **options)
    alone = region_perturbation(network, x[:2], R[:2], **options)
    for order, scores in whole.scores.items():
        assert_allclose(small.scores[order], scores, rtol=1e-12, atol=1e-12)
        assert_allclose(alone.scores[order], scores[:2], rtol=1e-12, atol=1e-12)
        assert_allclose(scores[:, -1], whole.scores["MoRF"][:, -1], rtol=1e-12)  # all replaced: all alike


def test_scores():
    network = chain()
    ended = Network(
        [*((n.name, n.layer, n.inputs) for n in network.nodes), ("p", kinds.Softmax())], (2, 7, 8)
    )
    x = np.random.default_rng(1).standard_normal((2, 2, 7, 8))
    R = explain(network, x).relevance
    for net in (network, ended):
        logit = region_perturbation(net, x, R, 1, steps=3, region=2)
        p = region_perturbation(net, x, R, 1, steps=3, region=2, score="probability")
        assert_allclose(logit.scores["MoRF"][:, 0], network.forward(x)[:, 1], rtol=1e-12)
        assert_allclose(p.scores["MoRF"][:, 0], ended.forward(x)[:, 1], rtol=1e-12)
        assert (p.order["MoRF"] == logit.order["MoRF"]).all()
    one = Network([("fc", Dense([[1.0, -2.0]])), ("sigmoid", kinds.Sigmoid())], (2,))
    found = region_perturbation(one, [[3.0, 1.0]], [[1.0, 0.0]], score="probability")
    assert_allclose(found.scores["MoRF"], 1 / (1 + np.exp([[-1.0, 2.0, 0.0]])), rtol=1e-12)
    with pytest.raises(LRPError, match="a probability needs"):
        region_perturbation(linear([[1.0, 2.0]]), [[3.0, 1.0]], [[1.0, 0.0]], score="probability")


def test_several_inputs():
    layers = [
        ("a", Dense([[1.0, 2.0]]), "left"),
        ("b", Dense([[4.0]]), "right"),
        ("sum", kinds.Add(), ("a", "b")),
    ]
    network = Network(layers, {"left": (2,), "right": (1,)})
    x = {"left": [[1.0, 1.0]], "right": [[1.0]]}
    R = {"left": [[1.0, 2.0]], "right": [[4.0]]}
    found = region_perturbation(network, x, R, input="left")
    assert found.scores["MoRF"].tolist() == [[7, 5, 4]]
    assert region_perturbation(network, x, [[4.0]], input="right").scores["MoRF"].tolist() == [[7, 3]]
    with pytest.raises(LRPError, match="name the one"):
        region_perturbation(network, x, R)
    with pytest.raises(LRPError, match="no input 'up'"):
        region_perturbation(network, x, R, input="up")


def test_progress_and_text():
    network, told = chain(), []
    x = np.random.default_rng(1).standard_normal((3, 2, 7, 8))
    found = region_perturbation(
        network,
        x,
        x,
        region=4,
        steps=2,
        batch_size=5,
        progress=lambda done, total: told.append((done, total)),
    )
    assert told == [(n, 18) for n in (5, 6, 11, 12, 17, 18)]
    assert str(found).startswith("3 samples, 2 of 4 regions replaced\norder   AOPC")
    mean, spread = found.curve("LeRF")
    assert_allclose(mean, found.scores["LeRF"].mean(0)) and spread.shape == (3,)
    alone = region_perturbation(network, x[:1], x[:1], region=4)
    assert "1 sample, 4 of 4" in str(alone)
    with pytest.raises(LRPError, match="two samples or more, not 1"):
        alone.curve()
    with pytest.raises(LRPError, match="order 'LeRF' was not measured; there are MoRF"):
        region_perturbation(network, x, x, orders="MoRF", region=4).abpc()


def test_fills():
    x = np.random.default_rng(0).uniform(0, 1, (2, 3, 6, 5))
    assert not replacements("zero", x).any()
    assert_allclose(replacements("mean", x, 0)[1, 2], x[1, 2].mean())
    assert_allclose(replacements("mean", x[:, 0])[1], x[1, 0].mean())
    assert (replacements(0.5, x) == 0.5).all()
    assert (replacements(x.mean(0), x)[1] == x.mean(0)).all()
    assert (replacements(lambda one, rng: one[::-1], x)[:, 0] == x[:, 2]).all()
    noise = replacements("uniform", x, 0, ([0.0, 1.0, 2.0], [1.0, 1.0, 4.0]))
    assert (noise[:, 0] < 1).all() and (noise[:, 1] == 1).all() and (noise[:, 2] >= 2).all()
    assert (replacements("uniform", x[:1], 0, (0, 1)) == replacements("uniform", x, 0, (0, 1))[:1]).all()
    assert (replacements(uniform(0, 1), x, seed=1) != replacements(uniform(0, 1), x)).any()
    # a blurred image is the image under a Gaussian, channel by channel, edges repeated
    taps = np.exp(-(np.arange(-4, 5) ** 2) / 2)
    taps /= taps.sum()
    padded = np.pad(x[0, 1], 4, mode="edge")
    by_hand = [[taps @ padded[i : i + 9, j : j + 9] @ taps for j in range(5)] for i in range(6)]
    assert_allclose(replacements(blur(1.0), x)[0, 1], by_hand, rtol=1e-10)
    assert_allclose(
        replacements("blur", x.transpose(0, 2, 3, 1), 2).transpose(0, 3, 1, 2), replacements("blur", x, 0)
    )
    with pytest.raises(LRPError, match="no input_range"):
        replacements("uniform", x)
    for fill in ("grey", [1.0, 2.0], None, lambda one, rng: one[0], uniform):
        with pytest.raises((LRPError, TypeError)):
            replacements(fill, x)
    with pytest.raises(NonFiniteError, match="the replacement has NaN"):
        replacements(np.nan, x)
    for wrong in (lambda: blur(0), lambda: uniform(1, 0)):
        with pytest.raises(LRPError):
            wrong()


def test_where_the_channels_are():
    conv = kinds.Conv2D(np.ones((2, 3, 1, 1)))
    first = Network([("a", kinds.BatchNorm(None, None, [0.0] * 3, [1.0] * 3)), ("b", conv)], (3, 4, 3))
    last = Network([("t", kinds.Transpose((2, 0, 1))), ("b", conv)], (4, 5, 3))
    assert (channels_axis(first), channels_axis(last)) == (0, 2)
    assert channels_axis(Network([("c", kinds.Conv1D(np.ones((2, 3, 1))))], (3, 4))) == 0
    for shape, axis in (((1, 4, 3), 0), ((4, 5, 3), 2), ((8, 4, 4), 0), ((4, 4), None), ((5,), None)):
        layers = [("f", kinds.Flatten()), ("fc", Dense(np.ones((1, math.prod(shape)))))]
        assert channels_axis(Network(layers, shape)) == axis
    # images with channels last are the same experiment
    r = np.random.default_rng(0)
    x, R = r.standard_normal((2, 2, 4, 5, 3))
    same = region_perturbation(last, x, R, region=2)
    plain = Network([("b", conv)], (3, 4, 5))
    other = region_perturbation(plain, x.transpose(0, 3, 1, 2), R.transpose(0, 3, 1, 2), region=2)
    assert_allclose(same.scores["MoRF"], other.scores["MoRF"], rtol=1e-12, atol=1e-12)
    asked = region_perturbation(last, x, R, region=(2, 2, 3), channels=None)
    assert (asked.order["MoRF"] == same.order["MoRF"]).all()
    for axis in (3, -1, "first", True):
        with pytest.raises(LRPError, match="channels must be"):
            region_perturbation(last, x, R, channels=axis)


# Localization


@st.composite
def maps_and_masks(draw):
    """Maps with ties among them, and masks that are neither empty nor full."""
    rng = np.random.default_rng(draw(seeds))
    shape = draw(st.sampled_from([(4,), (2, 3), (3, 4)]))
    R = numbers(rng, 3, *shape)
    masks = rng.random((3, *shape)) < 0.4
    flat = masks.reshape(3, -1)
    flat[:, 0], flat[:, -1] = True, False
    return R, masks


@given(maps_and_masks())
def test_localization_by_plain_loops(both):
    R, masks = both
    for n in range(3):
        values, inside = R[n].ravel().tolist(), masks[n].ravel().tolist()
        within = [v for v, i in zip(values, inside) if i]
        outside = [v for v, i in zip(values, inside) if not i]
        if abs(sum(values)) > 1e-6:
            assert_allclose(
                relevance_mass_accuracy(R, masks)[n], sum(within) / sum(values), rtol=1e-9, atol=1e-12
            )
        total = sum(max(v, 0) for v in values)
        mass = relevance_mass_accuracy(R, masks, "positive")[n]
        assert np.isnan(mass) if total == 0 else abs(mass - sum(max(v, 0) for v in within) / total) < 1e-12
        # of equal values, the mean over the orders they can have: counted out for both measures
        rank, point, count, k = 0.0, 0.0, 0, len(within)
        values_of_ties = sorted(values, reverse=True)[k - 1]
        above = [i for v, i in zip(values, inside) if v > values_of_ties]
        equal = [i for v, i in zip(values, inside) if v == values_of_ties]
        for chosen in itertools.combinations(equal, k - len(above)):
            rank, count = rank + (sum(above) + sum(chosen)) / k, count + 1
        best = [i for v, i in zip(values, inside) if v == max(values)]
        point = sum(best) / len(best)
        assert_allclose(relevance_rank_accuracy(R, masks)[n], rank / count, rtol=1e-12)
        assert_allclose(pointing_game(R, masks)[n], point, rtol=1e-12)
        low, span = min(values), max(values) - min(values)
        ratio = outside_inside_ratio(R, masks)[n]
        if span and (mean := sum((v - low) / span for v in within) / k):
            expected = sum((v - low) / span for v in outside) / len(outside) / mean
            assert_allclose(ratio, expected, rtol=1e-9, atol=1e-12)
        else:
            assert not np.isfinite(ratio)


@given(maps_and_masks(), st.sampled_from(["mean", 0.5, 0.0]))
def test_segmentation_by_plain_loops(both, threshold):
    R, masks = both
    counts, correct, precision = np.zeros((2, 2)), 0, []
    for n in range(3):
        values, inside = R[n].ravel().tolist(), masks[n].ravel().tolist()
        low, high = min(values), max(values)
        values = [(v - low) / (high - low) if high > low else 0.0 for v in values]
        limit = math.fsum(values) / len(values) if threshold == "mean" else threshold
        assume(all(abs(v - limit) > 1e-9 or (v == 0 and limit == 0) for v in values))
        seen = [v > limit for v in values]
        for label in (False, True):
            counts[int(label), 0] += sum(s == label and i == label for s, i in zip(seen, inside))
            counts[int(label), 1] += sum(s == label or i == label for s, i in zip(seen, inside))
        correct += sum(s == i for s, i in zip(seen, inside))
        score, before = 0.0, 0.0
        for value in sorted(set(values), reverse=True):
            taken = [i for v, i in zip(values, inside) if v >= value]
            recall = sum(taken) / sum(inside)
            score, before = score + (recall - before) * sum(taken) / len(taken), recall
        precision.append(score)
    found = segmentation(R, masks, threshold)
    assert_allclose(found.miou, (counts[:, 0] / counts[:, 1]).mean(), rtol=1e-12)
    assert_allclose(found.pixel_accuracy, correct / R.size, rtol=1e-12)
    assert_allclose(found.average_precision, precision, rtol=1e-12)
    assert_array_equal(found.intersection.sum(0), counts[:, 0])


def test_average_precision_of_both_classes():
    """By hand: m = 1, 0.5, 0 with truth 1, 0, 0; scores 0, 0.5, 1 of the background beside them."""
    found = average_precision([[3.0, 2.0, 1.0]], [[1, 0, 0]], "both")
    # 1: two right of two; 0.5: one right of two more (the background of the second); 0: none of two
    assert_allclose(found, [2 / 3 * 1 + 1 / 3 * 3 / 4])
    assert_allclose(average_precision([[2.0, 2.0]], [[1, 0]]), [0.5])


def test_what_chance_gives():
    """A random map scores the mask's share; a constant one scores exactly that."""
    rng = np.random.default_rng(0)
    masks = np.zeros((4000, 5, 6), bool)
    masks[:, 1:3, 2:5] = True
    share = 6 / 30
    network = linear(np.ones((1, 30)), (1, 5, 6))
    R = heatmaps(random_relevance(network, rng.random((4000, 1, 5, 6))))
    measures = [relevance_mass_accuracy, relevance_rank_accuracy, pointing_game]
    for measure in measures:
        found = summarize(measure(R, masks))
        assert abs(found.mean - share) < 4 * found.error < 0.03
        assert_allclose(measure(np.full((2, 5, 6), 0.7), masks[:2]), share, rtol=1e-12)
    assert abs(summarize(np.log(outside_inside_ratio(R, masks))).mean) < 0.05
    assert abs(summarize(average_precision(R, masks)).mean - share) < 0.1
    assert abs(summarize(gini_index(R)).mean - 1 / 3) < 0.02
    grid = summarize(grid_pointing_game(R[:, :4], np.arange(4000) % 4))
    assert abs(grid.mean - 0.25) < 4 * grid.error < 0.02


def test_undefined_values_are_said():
    R, masks = np.zeros((2, 4)), np.array([[1, 1, 0, 0]] * 2)
    R[1] = [0.0, 0.0, 2.0, 0.0]
    assert_array_equal(relevance_mass_accuracy(R, masks), [np.nan, 0])
    assert_array_equal(outside_inside_ratio(R, masks, "positive"), [np.nan, np.inf])
    assert_array_equal(gini_index(R), [np.nan, 0.75])
    assert str(summarize([np.nan, 1.0, 3.0])) == "2 +- 1 (1 undefined)"
    assert summarize([np.nan, np.nan]).count == 0 and np.isnan(summarize([np.inf, 1.0]).deviation)


def test_boxes():
    found = box_masks([[(0, 0, 1, 2)], [(1, 1, 2, 3), (0, 2, 2, 3)]], (2, 3))
    assert_array_equal(found, [[[1, 1, 0], [0, 0, 0]], [[0, 0, 1], [0, 1, 1]]])
    for box in ((0, 0, 3, 1), (-1, 0, 1, 1), (0, 1, 1, 1), (0, 0, 2, 4)):
        with pytest.raises(LRPError, match=r"of sample 1 is empty or reaches outside the image"):
            box_masks([(0, 0, 1, 1), box], (2, 3))
    for box in ((0, 0, 1), (0.5, 0, 1, 1), [], "box"):
        with pytest.raises(LRPError):
            box_masks([box], (2, 3))


def test_grid_pointing_game():
    R = np.zeros((2, 4, 6))
    R[0, :2, 3:], R[0, 2:, :3], R[0, 2:, 3:] = 3.0, 1.0, -8.0
    R[1, 3, 5] = 1.0
    assert_allclose(grid_pointing_game(R, [1, 3]), [0.75, 1])
    assert_allclose(grid_pointing_game(R, [1, 0]), [0.75, 0])
    assert_allclose(grid_pointing_game(R[:, :3], [2, 2], (1, 3)), [12 / 21, np.nan])
    for cells, grid in (
        ([4, 0], (2, 2)),
        ([0], (2, 2)),
        ([0, 0], (3, 2)),
        ([0.5, 0], (2, 2)),
        ([0, 0], (0, 1)),
    ):
        with pytest.raises(LRPError):
            grid_pointing_game(R, cells, grid)
    with pytest.raises(ShapeError, match="sum over channels"):
        grid_pointing_game(R[:, None], [0, 0])


# Sparsity and faithfulness


@given(seeds)
def test_gini_by_plain_loops(seed):
    R = numbers(np.random.default_rng(seed), 2, 7)
    found = gini_index(R)
    for n in range(2):
        a = [abs(v) for v in R[n].tolist()]
        assume(sum(a))
        # half the relative mean absolute difference: another form of the same index
        expected = sum(abs(p - q) for p in a for q in a) / (2 * len(a) * sum(a))
        assert_allclose(found[n], expected, rtol=1e-10, atol=1e-12)
    for scale in (1e300, 1e-300):
        assert_allclose(gini_index(R * scale), found, rtol=1e-12)
    assert_allclose(gini_index(-3 * R[:, ::-1]), found, rtol=1e-12)


def test_faithfulness_correlation():
    rng = np.random.default_rng(0)
    w, x = rng.standard_normal((2, 12)), rng.standard_normal((3, 12))
    network = linear(w, (1, 3, 4))
    x = x.reshape(3, 1, 3, 4)
    truth = x * w[1].reshape(1, 3, 4)
    options = {"subset": 4, "runs": 30}
    assert_allclose(faithfulness_correlation(network, x, truth, 1, **options), 1, rtol=1e-12)
    assert_allclose(faithfulness_correlation(network, x, -2 * truth, 1, **options), -1, rtol=1e-12)
    assert_allclose(faithfulness_correlation(network, x, truth + 0.1, 1, **options), 1, rtol=1e-12)
    random = faithfulness_correlation(network, x, random_relevance(network, x), 1, **options)
    assert (random < 0.9).all()
    assert np.isnan(faithfulness_correlation(network, x, np.ones(x.shape), 1, **options)).all()
    told = []
    faithfulness_correlation(
        network, x, truth, 1, **options, progress=lambda *n: told.append(n), batch_size=45
    )
    assert told == [(45, 90), (90, 90)]
    by_region = faithfulness_correlation(network, x, truth, 1, region=(1, 2), subset=2, runs=20)
    assert_allclose(by_region, 1, rtol=1e-12)
    for wrong in ({"subset": 0}, {"subset": 12}, {"subset": 13}, {"subset": 2, "runs": 2}, {"subset": 2.0}):
        with pytest.raises(LRPError):
            faithfulness_correlation(network, x, truth, 1, **wrong)


def test_faithfulness_correlation_by_plain_loops():
    """The subsets are those of the sample's own random numbers."""
    from numpylrp.evaluate.fills import SUBSETS, generator

    network = chain()
    x, R = np.random.default_rng(0).standard_normal((2, 2, 2, 7, 8))
    found = faithfulness_correlation(network, x, R, 2, subset=10, runs=6, seed=5, fill=0.5)
    for n in range(2):
        shuffled = generator(5, n, SUBSETS).permuted(np.tile(np.arange(56) < 10, (6, 1)), axis=1)
        sums, drops = [], []
        for inside in shuffled.reshape(6, 7, 8):
            image = x[n : n + 1].copy()
            image[:, :, inside] = 0.5
            sums.append(R[n][:, inside].sum())
            drops.append((network.forward(x[n : n + 1]) - network.forward(image))[0, 2])
        assert inside.sum() == 10
        assert_allclose(found[n], np.corrcoef(sums, drops)[0, 1], rtol=1e-9)


# Stability


def test_sensitivity_of_a_parabola():
    """R = gradient = 2 x: the map moves by 2 |d|, and the noise lies within the radius."""
    network = Network([("square", kinds.Multiply(), ("input", "input"))], (6,))
    x = np.zeros((2, 6))
    x[:, 3] = 4.0
    found = sensitivity(network, x, gradient, radius=0.1, draws=50)
    assert found.shape == (2, 50) and (found > 0).all() and (found <= 0.1 / 4 + 1e-12).all()
    assert found.max() > 0.02 and (found[0] != found[1]).any()
    assert_allclose(sensitivity(network, x[:1], gradient, radius=0.1, draws=50), found[:1], rtol=1e-12)
    assert_allclose(sensitivity(network, x, gradient, radius=0.2, draws=50), 2 * found, rtol=1e-9)
    assert np.isnan(sensitivity(network, np.zeros((1, 6)), gradient, draws=1)).all()
    for wrong in ({"radius": 0}, {"radius": np.inf}, {"draws": 0}):
        with pytest.raises(LRPError):
            sensitivity(network, x, gradient, **wrong)
    with pytest.raises(ShapeError, match="the method gives"):
        sensitivity(network, x, lambda network, x, target: x[:, :2])
    with pytest.raises(NonFiniteError):
        sensitivity(network, x, lambda network, x, target: x * np.nan)


def test_the_class_stays_under_noise():
    asked = []

    def method(network, x, target):
        asked.append(list(target))
        return x

    network = linear([[1.0, 0.0], [0.0, 1.0]])
    sensitivity(network, [[1.0, 1.001], [1.0, 0.0]], method, radius=5.0, draws=8)
    assert asked == [[1, 0]] * 9


@given(seeds)
def test_rank_correlation_by_plain_loops(seed):
    a, b = numbers(np.random.default_rng(seed), 2, 1, 9)
    assume(len(set(a[0])) > 1 and len(set(b[0])) > 1)

    def ranks(values):
        return [sum(w < v for w in values) + (sum(w == v for w in values) + 1) / 2 for v in values]

    p, q = ranks(a[0].tolist()), ranks(b[0].tolist())
    p, q = [v - sum(p) / 9 for v in p], [v - sum(q) / 9 for v in q]
    expected = sum(u * v for u, v in zip(p, q)) / math.sqrt(sum(u * u for u in p) * sum(v * v for v in q))
    assert_allclose(rank_correlation(a, b), expected, rtol=1e-10, atol=1e-12)
    assert_allclose(rank_correlation(a, a), 1, rtol=1e-12)
    assert_allclose(rank_correlation(a, -b), -expected, rtol=1e-10, atol=1e-12)
    assert np.isnan(rank_correlation(a, np.ones_like(a))).all()


@given(seeds, st.sampled_from([((6, 5), 3), ((5, 5), 5), ((9,), 3)]))
def test_ssim_by_plain_loops(seed, sizes):
    shape, window = sizes
    rng = np.random.default_rng(seed)
    a, b = rng.standard_normal((2, *shape)) + 3, rng.standard_normal((2, *shape))
    found = ssim(a, b, window)
    for n in range(2):
        span = max(a[n].max(), b[n].max()) - min(a[n].min(), b[n].min())
        c1, c2, values = (0.01 * span) ** 2, (0.03 * span) ** 2, []
        for first in itertools.product(*(range(m - window + 1) for m in shape)):
            at = tuple(slice(f, f + window) for f in first)
            p, q = a[n][at].ravel(), b[n][at].ravel()
            cov = np.cov(p, q)
            index = (2 * p.mean() * q.mean() + c1) * (2 * cov[0, 1] + c2)
            values.append(index / ((p.mean() ** 2 + q.mean() ** 2 + c1) * (cov[0, 0] + cov[1, 1] + c2)))
        assert_allclose(found[n], sum(values) / len(values), rtol=1e-8, atol=1e-10)
    assert_allclose(ssim(a, a, window), 1, rtol=1e-12)
    assert_allclose(ssim(0 * a, 0 * a, window), 1, rtol=1e-12)
    for wrong in (4, 11, 1):
        with pytest.raises(LRPError):
            ssim(a, b, wrong)
    with pytest.raises(ShapeError):
        ssim(a, b[:1], window)


def test_weight_randomization():
    network = chain()
    x = np.random.default_rng(0).standard_normal((4, 2, 7, 8))
    found = weight_randomization(network, x, lrp("epsilon"))
    assert found.names == ["fc2", "fc1", "conv2", "conv1"] and found.ssim.shape == (4, 4)
    assert (found.rank_correlation.mean(1) < 0.9).all() and "conv1" in str(found)
    # a method that does not look at the weights does not change
    blind = weight_randomization(network, x, lambda network, x, target: x)
    assert_allclose(blind.rank_correlation, 1, rtol=1e-12) and assert_allclose(blind.ssim, 1, rtol=1e-12)
    # cascading keeps what is above, independent does not
    seen = []

    def method(network, x, target):
        seen.append({n.name: n.layer for n in network.nodes})
        return x

    for order, kept in (("cascading", 0), ("independent", 3)):
        seen.clear()
        weight_randomization(network, x, method, order=order)
        first, last = seen[0], seen[-1]
        same = [name for name in ("fc2", "fc1", "conv2", "conv1") if first[name] is last[name]]
        assert len(same) == kept and "conv1" not in same
        new, old = last["conv1"].weight, first["conv1"].weight
        assert (np.sort(new, None) == np.sort(old, None)).all() and (new != old).any()
    only = weight_randomization(network, x, lrp("epsilon"), layers=["conv2"], how="normal", part="absolute")
    assert only.names == ["conv2"]
    told = []
    weight_randomization(network, x, lrp(), layers=["fc2", "fc1"], progress=lambda *n: told.append(n))
    assert told == [(4, 8), (8, 8)]
    for wrong in ({"how": "zero"}, {"order": "up"}, {"layers": ["relu1"]}, {"part": "both"}, {"window": 9}):
        with pytest.raises(LRPError):
            weight_randomization(network, x, lrp(), **wrong)


def test_randomized_weights_leave_statistics_and_shared_layers_alone():
    from networks import graph

    network = graph()
    x = np.random.default_rng(0).standard_normal((2, 3, 5, 6))
    seen = []

    def method(network, x, target):
        seen.append(network)
        return x

    found = weight_randomization(network, x, method, window=3)
    assert found.names == ["fc", "b, a", "bn"]  # a and b are one convolution
    last = seen[-1]
    assert last["a"] is last["b"] and (last["a"].weight != network["a"].weight).any()
    assert (last["bn"].variance == network["bn"].variance).all() and (
        last["bn"].mean == network["bn"].mean
    ).all()
    assert (last["bn"].gamma != network["bn"].gamma).any()


def test_class_randomization():
    wide = linear(np.random.default_rng(0).standard_normal((3, 30)), (1, 5, 6))
    x = np.random.default_rng(1).standard_normal((4, 1, 5, 6))
    found = class_randomization(wide, x, gradient, window=3)
    assert (
        found.names == ["class"]
        and found.ssim.shape == (1, 4)
        and (np.abs(found.rank_correlation) < 0.6).all()
    )
    blind = class_randomization(wide, x, lambda network, x, target: x, window=3)
    assert_allclose(blind.ssim, 1, rtol=1e-12)
    with pytest.raises(LRPError, match="two classes"):
        class_randomization(linear(np.ones((1, 30)), (1, 5, 6)), x, gradient)


# Bad input


def test_relevance_must_fit_the_samples():
    network = chain()
    x = np.random.default_rng(1).standard_normal((3, 2, 7, 8))
    R = explain(network, x).relevance
    for wrong, match in (
        (R[:2], "relevance has shape"),
        (R.sum(1), "relevance has shape"),
        (R[:, :1], "relevance has shape"),
        (R[0, 0, 0, 0], "samples first"),
        ("R", "array of numbers"),
        ([[1], [1, 2]], "array of numbers"),
        (R[:0], "none empty"),
    ):
        with pytest.raises(LRPError, match=match):
            region_perturbation(network, x, wrong)
        with pytest.raises(LRPError, match=match):
            faithfulness_correlation(network, x, wrong, subset=2)
    bad = R.copy()
    bad[1, 0, 2, 3] = np.nan
    with pytest.raises(NonFiniteError, match="relevance has NaN or infinity, first in sample 1"):
        region_perturbation(network, x, bad)
    bad = x.copy()
    bad[2, 0, 0, 0] = np.inf
    with pytest.raises(NonFiniteError, match="input 'input'"):
        region_perturbation(network, bad, R)


def test_an_explanation_of_other_samples_is_found_out():
    network = chain()
    x = np.random.default_rng(1).standard_normal((4, 2, 7, 8))
    explained = explain(network, x, [0, 1, 2, 0])
    found = region_perturbation(network, x, explained, region=4)
    assert found.target.tolist() == [0, 1, 2, 0]
    single = explain(network.astype("float32"), x, [0, 1, 2, 0], composite="epsilon-alpha2-beta1")
    region_perturbation(network, x, single, region=4)  # rounding is no other sample
    with pytest.raises(
        LRPError, match="the logits stored with it differ in 2 of 4 samples, first in sample 1"
    ):
        region_perturbation(network, x[[0, 2, 1, 3]], explained)
    with pytest.raises(LRPError, match="relevance is not of these samples and this network"):
        region_perturbation(chain(seed=1), x, explained)
    with pytest.raises(LRPError, match="relevance explains class 1 of sample 1, but the target is 0"):
        region_perturbation(network, x, explained, 0)
    with pytest.raises(LRPError, match="relevance has shape"):
        region_perturbation(network, x[:3], explained)
    with pytest.raises(LRPError, match="several classes"):
        region_perturbation(network, x, explain(network, x, classes=[0, 1]))


def test_masks_must_fit():
    R, masks = np.ones((2, 3, 4)), np.ones((2, 3, 4), bool)
    masks[:, 0] = False
    for measure in (relevance_mass_accuracy, relevance_rank_accuracy, pointing_game, segmentation):
        with pytest.raises(LRPError, match=r"the mask of sample 1 is empty \(1 of 2 are\)"):
            measure(R, masks & np.array([True, False])[:, None, None])
        with pytest.raises(ShapeError, match="sum over channels first"):
            measure(R[:, None], masks)
        with pytest.raises(ShapeError, match="masks have shape"):
            measure(R, masks[:1])
        with pytest.raises(LRPError, match="masks must be booleans"):
            measure(R, masks * 2.0)
        with pytest.raises(NonFiniteError):
            measure(R * np.nan, masks)
    with pytest.raises(LRPError, match="leaves nothing outside"):
        outside_inside_ratio(R, np.ones_like(masks))
    for wrong in (
        lambda: outside_inside_ratio(R, masks, "third"),
        lambda: segmentation(R, masks, "median"),
        lambda: segmentation(R, masks, 1.0),
        lambda: segmentation(R, masks, classes="all"),
        lambda: relevance_mass_accuracy(R, masks, "some"),
        lambda: heatmaps(R, 2),
        lambda: summarize([1.0]),
    ):
        with pytest.raises(LRPError):
            wrong()


def test_options_must_be_valid():
    network = chain()
    x = np.random.default_rng(1).standard_normal((2, 2, 7, 8))
    for options, match in (
        ({"region": 8}, "a region of 8 x 8 is larger than the image of 7 x 8"),
        ({"region": (1, 9)}, "larger than the image"),
        ({"region": 0}, "region must be an integer of at least 1, or 2 of them"),
        ({"region": (1, 2, 3)}, "region must be"),
        ({"region": 1.5}, "region must be"),
        ({"region": 4, "steps": 5}, "5 steps, but there are only 4 regions"),
        ({"steps": 0}, "steps must be"),
        ({"every": 0}, "every must be"),
        ({"steps": True}, "steps must be"),
        ({"orders": ["MoRF", "up"]}, "order must be one of MoRF, LeRF, random, not 'up'"),
        ({"score": "loss"}, "score must be one of logit, probability"),
        ({"part": "half"}, "part must be one of"),
        ({"fill": "grey"}, "fill must be zero, mean, uniform, blur, a number"),
        ({"seed": -1}, "seed must be"),
        ({"batch_size": 0}, "batch_size must be"),
        ({"output": "fc9"}, "no output or layer .fc9."),
    ):
        with pytest.raises(LRPError, match=match):
            region_perturbation(network, x, x, **options)
    with pytest.raises(LRPError, match="target 3 is out of range"):
        region_perturbation(network, x, x, 3)
    assert_array_equal(regions((5,), 2), [0, 0, 1, 1, 2])
