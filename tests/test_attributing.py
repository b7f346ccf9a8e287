"""RAP, AbsLRP, pruned LRP, conditional relevance and hidden units: against loops, the oracle and sums."""

import itertools

import numpy as np
import pytest
import twins
from hypothesis import given, settings
from hypothesis import strategies as st

import numpylrp.layers as L
from numpylrp import LRPError, Network, audit, explain
from numpylrp.attributing import AbsLRP, ImageBox, RelativeAttribution, shifted
from numpylrp.composite import Composite, find_composite
from numpylrp.pruning import Prune
from numpylrp.rules import Epsilon, Gamma, ZPlus
from numpylrp.seed import unit
from numpylrp.validate import exact

PRESETS = ("epsilon", "epsilon-plus", "rap")


def close(a, b, tolerance=1e-11):
    assert a.shape == b.shape
    assert np.abs(a - b).max() <= tolerance * max(np.abs(b).max(), 1e-300)


numbers = st.integers(-8, 8).map(lambda n: n / 4)


@st.composite
def layers(draw):
    inputs, outputs = draw(st.integers(1, 5)), draw(st.integers(1, 4))
    array = lambda *shape: np.array(  # noqa: E731
        draw(st.lists(numbers, min_size=int(np.prod(shape)), max_size=int(np.prod(shape))))
    ).reshape(shape)
    return array(inputs), array(inputs, outputs), array(outputs)


@given(layers(), st.booleans())
@settings(max_examples=150, deadline=None)
def test_step_of_rap_is_its_loops_and_keeps_the_sum(case, inhibiting):
    x, W, R = case
    want = twins.rap(x, W, R, inhibiting)
    layer, X = L.Dense(W.T, np.ones(W.shape[1])), np.stack([x, np.ones_like(x)])
    rule = RelativeAttribution(inhibiting=inhibiting)
    got = layer.relprop(np.stack([R, R]), X, layer.forward(X), rule)[0]
    np.testing.assert_allclose(got, want, rtol=0, atol=1e-12)
    assert not got[x == 0].any()
    if want.any():
        assert got.sum() == pytest.approx(R.sum(), abs=1e-12)
    oracle = exact.explain(Network([("fc", layer)], (len(x),)), x, R, {"fc": rule})
    np.testing.assert_allclose(want, oracle.relevance["input"].to_float(), rtol=0, atol=1e-12)


@given(layers())
@settings(max_examples=60, deadline=None)
def test_doubling_of_the_authors_happens_where_both_signs_contribute(case):
    x, W, R = case
    rule, layer = RelativeAttribution(doubled=True), L.Dense(W.T)
    got = layer.relprop(R[None], x[None], layer.forward(x[None]), rule)[0]
    sides = [twins.rap(half, W, R, False) for half in (np.maximum(x, 0), np.maximum(-x, 0))]
    np.testing.assert_allclose(got, sum(sides), rtol=0, atol=1e-12)
    oracle = exact.explain(Network([("fc", layer)], (len(x),)), x, R, {"fc": rule})
    np.testing.assert_allclose(got, oracle.relevance["input"].to_float(), rtol=0, atol=1e-12)


@given(layers())
@settings(max_examples=60, deadline=None)
def test_absolute_shares_and_bounds_of_the_image(case):
    x, W, R = case
    layer = L.Dense(W.T, np.ones(W.shape[1]))
    z = np.abs(x[:, None] * W)
    total = z.sum(0)
    want = (z / np.where(total, total, 1) * R).sum(1)
    got = layer.relprop(R[None], x[None], layer.forward(x[None]), AbsLRP())[0]
    np.testing.assert_allclose(got, want, rtol=0, atol=1e-12)
    low, high = x.min(), x.max()
    z = x[:, None] * W - low * np.maximum(W, 0) - high * np.minimum(W, 0)
    total = z.sum(0)
    want = np.where(total, z / np.where(total, total, 1), 0) @ R
    got = layer.relprop(R[None], x[None], layer.forward(x[None]), ImageBox())[0]
    np.testing.assert_allclose(got, want, rtol=0, atol=1e-12)


def network(channels=3, norm=False):
    rng = np.random.default_rng(1)
    draw = lambda *shape: rng.integers(-8, 9, shape) / 8  # noqa: E731
    entries = [("conv1", L.Conv2D(draw(3, channels, 3, 3), draw(3), padding=1))]
    if norm:
        entries += [("bn", L.BatchNorm([0.75, -1.5, 0.5], draw(3), draw(3), [2.1875] * 3, eps=0.0625))]
    entries += [
        ("relu1", L.ReLU()),
        ("pool", L.MaxPool2D(2)),
        ("conv2", L.Conv2D(draw(4, 3, 2, 2), draw(4))),
        ("relu2", L.ReLU()),
        ("flatten", L.Flatten()),
        ("fc1", L.Dense(draw(4, 4), draw(4))),
        ("relu3", L.ReLU()),
        ("fc2", L.Dense(draw(3, 4), draw(3))),
    ]
    names = {"class_names": ["a", "b", "c"]}
    return Network(entries, (channels, 4, 4), metadata=names), rng.integers(-16, 17, (2, channels, 4, 4)) / 8


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("normalization", ["fused", "linear", "identity"])
def test_rap_is_the_oracle_in_every_layer(channels, normalization):
    net, x = network(channels, norm=True)
    rules = find_composite("rap", net).rules(net)
    assert ("ImageBox()" in map(str, rules.values())) == (channels == 3)
    found = explain(net, x, 1, composite="rap", normalization=normalization, trace=True)
    for n in range(2):
        want = exact.explain(net, x[n], 1, rules, normalization)
        close(found.relevance[n], np.array(want.relevance["input"].to_float()))
        for name, step in found.steps.items():
            if name in want.steps:
                close(step["R"][n], np.array(want.steps[name].R.to_float()))
    fast = explain(net, x, 1, composite="rap", normalization=normalization)
    close(fast.relevance, found.relevance)
    if normalization == "fused":
        np.testing.assert_allclose(found.relevance.sum((1, 2, 3)), found.output[:, 1], rtol=1e-11)


def prune_by_loops(R, p, q):
    left, scaled = [], np.zeros(len(R))
    for r in R:
        part, same = (p, [v for v in R if v > 0]) if r > 0 else (q, [-v for v in R if v < 0])
        left.append(r != 0 and sum(v for v in same if v <= abs(r)) > part * sum(same))
    for j, r in enumerate(R):
        if left[j]:
            same = [v for v in R if v * r > 0]
            scaled[j] = r * sum(same) / sum(v for v, ok in zip(R, left) if ok and v * r > 0)
    return left, scaled


@given(
    st.lists(numbers, min_size=1, max_size=9),
    st.sampled_from([0.0, 0.25, 0.5, 0.9]),
    st.sampled_from([None, 0.0, 0.5]),
)
@settings(max_examples=150, deadline=None)
def test_pruning_is_its_loops(values, p, negative):
    R, prune = np.array(values), Prune(p, negative)
    left, want = prune_by_loops(R, p, p / 2 if negative is None else negative)
    assert prune.kept(R[None])[0].tolist() == left
    got = prune.pruned(np.stack([R, R[::-1]]))[0]
    np.testing.assert_allclose(got, want, rtol=0, atol=1e-13)
    for sign in (1, -1):
        assert got[got * sign > 0].sum() == pytest.approx(R[R * sign > 0].sum(), abs=1e-12)


@pytest.mark.parametrize("again", [False, True])
@pytest.mark.parametrize("preset", PRESETS)
def test_pruned_walk_is_the_oracle(preset, again):
    net, x = network(norm=True)
    prune, rules = Prune(0.25, again=again), find_composite(preset, net).rules(net)
    found = explain(net, x, 1, composite=preset, prune=prune, trace=["conv2"])
    for n in range(2):
        want = exact.explain(net, x[n], 1, rules, "fused", prune)
        close(found.relevance[n], np.array(want.relevance["input"].to_float()))
        close(found.steps["conv2"]["R"][n], np.array(want.steps["conv2"].R.to_float()))
    unpruned = explain(net, x, 1, composite=preset).relevance
    assert np.abs(found.relevance - unpruned).max() > 1e-3
    close(explain(net, x, 1, composite=preset, prune=Prune(0.0, again=again)).relevance, unpruned)
    one = explain(net, x[1:], 1, composite=preset, prune=prune).relevance[0]
    close(explain(net, x, classes=[0, 1], composite=preset, prune=prune).relevance[1, 1], one)
    close(explain(net, x, 1, composite=preset, prune=prune, batch_size=1).relevance[1], one)


@pytest.mark.parametrize("p", [-0.1, 1.0, "x", float("nan"), True])
def test_parts_to_prune_that_are_none(p):
    with pytest.raises(LRPError, match="Prune: p must be"):
        Prune(p)


@pytest.mark.parametrize("preset", PRESETS)
@pytest.mark.parametrize(
    "options",
    [{}, {"prune": Prune(0.3)}, {"prune": Prune(0.3, again=True)}, {"masks": {"relu2": [0, 2]}}],
    ids=["plain", "scaled", "again", "masked"],
)
def test_audit_adds_up(preset, options):
    net, x = network(norm=True)
    for normalization in ("fused", "linear"):
        found = audit(net, x, 1, composite=preset, normalization=normalization, **options)
        np.testing.assert_allclose(found.rounding, 0, atol=1e-10)
        assert (np.abs(found.total("shift")).max() > 1e-3) == (preset == "rap")
        assert np.abs(found.total("pruned")).max() > 1e-3 or "masks" not in options
        if preset == "rap":
            np.testing.assert_allclose(found.total("shift") + found.total("rule"), 0, atol=1e-10)


def test_audit_of_what_is_lost_and_of_what_doubles():
    dead = Network([("fc", L.Dense([[1.0, 2.0], [1.0, 0.0]]))], (2,))
    rules = Composite(default=RelativeAttribution())
    found = audit(dead, [[0.0, 0.0], [1.0, 2.0]], seed=np.array([3.0, 4.0]), composite=rules)
    np.testing.assert_allclose(found.total("dropped"), [7, 0])
    np.testing.assert_allclose(found.inputs["input"], [0, 7])
    doubled = Composite(default=RelativeAttribution(doubled=True))
    found = audit(dead, [[-1.0, 2.0]], seed=np.array([3.0, 4.0]), composite=doubled)
    np.testing.assert_allclose(found.inputs["input"], [14])
    np.testing.assert_allclose(found.rounding, 0, atol=1e-12)


def test_shift_leaves_what_is_off():
    np.testing.assert_array_equal(shifted(np.array([[0.0, 2.0, -4.0]]), np.array([[1.0, 1.0]])), [[0, 4, -2]])


@given(st.sampled_from(["relu1", "pool", "conv2", "relu2"]), st.sampled_from([0, 1, 2]))
@settings(max_examples=20, deadline=None)
def test_maps_of_all_channels_add_up(layer, target):
    net, x = network(norm=True)
    for rule in (Epsilon(0.25), Gamma(0.25), ZPlus()):
        whole = explain(net, x, target, composite=rule).relevance
        parts = [
            explain(net, x, target, composite=rule, masks={layer: k}).relevance
            for k in range(net.shapes[layer][0])
        ]
        close(sum(parts), whole)
    some = explain(net, x, target, composite=rule, masks={layer: [0, 2]}).relevance
    close(some, parts[0] + parts[2])


def test_masks_against_the_oracle_and_as_factors():
    net, x = network()
    factors = np.arange(3 * 2 * 2).reshape(3, 2, 2) / 8
    found = explain(net, x, 0, composite="epsilon", masks={"pool": factors, "relu3": 1}, fast=False)
    from numpylrp.conditional import masked

    other = masked(net, {"pool": factors, "relu3": 1})
    rules = find_composite("epsilon", other).rules(other)
    for n in range(2):
        want = exact.explain(other, x[n], 0, rules)
        close(found.relevance[n], np.array(want.relevance["input"].to_float()))
    assert explain(net.astype(np.float32), x, masks={"pool": 0}).relevance.dtype == np.float32


@pytest.mark.parametrize(
    ("masks", "message"),
    [
        ({"nobody": 0}, "a mask is for 'nobody', but the hidden layers walked through are conv1"),
        ({"fc2": 0}, "a mask is for 'fc2'"),
        ({"pool": 3}, "channels 0 .. 2, not 3"),
        ({"pool": np.ones((2, 2))}, "does not fit"),
        ({"pool": [0.5, float("nan"), 1.0]}, "NaN"),
    ],
)
def test_masks_that_fit_nothing(masks, message):
    net, x = network()
    with pytest.raises(LRPError, match=message):
        explain(net, x, masks=masks)


@pytest.mark.parametrize("preset", PRESETS)
def test_any_layer_and_any_unit_can_be_explained(preset):
    net, x = network(norm=True)
    cut = Network([(n.name, n.layer, n.inputs) for n in net.nodes[:6]], net.inputs)
    assert cut.outputs == ("relu2",)
    rules = find_composite(preset, net)
    found = explain(net, x, 2, composite=rules, output="relu2", normalization="linear")
    close(found.output, cut.forward(x))
    entries = find_composite(preset, net).rules(net)
    same = Composite([(name, entries[name]) for name in entries if name in cut], Epsilon())
    close(found.relevance, explain(cut, x, 2, composite=same, normalization="linear").relevance)
    assert found.class_names is None
    if preset == "epsilon":  # linear in R: single units add up to their channel
        height, width = net.shapes["relu2"][1:]
        ones = [
            explain(
                net, x, composite=rules, output="relu2", seed=unit(2, *at), normalization="linear"
            ).relevance
            for at in itertools.product(range(height), range(width))
        ]
        close(sum(ones), found.relevance)


def test_layers_and_units_that_are_not_there():
    net, x = network(norm=True)
    with pytest.raises(LRPError, match="no output or layer 'bn9' in the network walked through"):
        explain(net, x, output="bn9")
    with pytest.raises(LRPError, match=r"unit \(9, 0, 0\) is none of an output of shape"):
        explain(net, x, output="relu2", seed=unit(9, 0, 0))
    with pytest.raises(LRPError, match="no class of this network"):
        explain(net, x, "a", output="relu2")
    assert explain(net, x, "b").class_names == ["a", "b", "c"]
