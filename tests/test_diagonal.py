"""Diagonal layers of every kind are fused: scales, biases, standardized inputs, one's own."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose
from strategies import seeds

from numpylrp import Composite, Network, explain, fuse, load, save
from numpylrp.composite import PRESETS, standardizations
from numpylrp.errors import LRPError, UnsupportedError
from numpylrp.fusion import NotExact
from numpylrp.layers import (
    AdaptiveAveragePool,
    Add,
    Affine,
    Average,
    AveragePool2D,
    BatchNorm,
    Concatenate,
    Conv1D,
    Conv2D,
    CopyPadding,
    Dense,
    Diagonal,
    Dropout,
    Flatten,
    GlobalAveragePool,
    Interpolation,
    Layer,
    LayerNorm,
    LeakyReLU,
    MaxPool2D,
    ReLU,
    ScaledPool2D,
    Sigmoid,
    Slice,
    Subtract,
    Transpose,
    UpSampling,
    ZeroPadding,
)
from numpylrp.planning import NORMALIZATION
from numpylrp.rules import AlphaBeta, Epsilon, Flat, Gamma, Pass, WSquare, ZPlus
from numpylrp.validate import exact

IMAGE = (2, 4, 4)


def eighths(rng, *shape):
    return np.round(rng.standard_normal(shape) * 8) / 8


def norm(rng, n, axis=0):
    """Batch normalization without rounding: roots and scales are powers of two."""
    gamma = rng.choice([-2.0, -1.0, -0.5, 0.5, 1.0, 2.0], n) * (rng.random(n) > 0.15)
    return BatchNorm(
        gamma, eighths(rng, n), eighths(rng, n), rng.choice([0.25, 1.0, 4.0], n) - 0.125, 0.125, axis
    )


def affine(rng, n, axis=0):
    scale = rng.choice([-2.0, -0.5, 1.0, 2.0], n) * (rng.random(n) > 0.1)
    return Affine([[1.0], scale][rng.integers(2)], [[0.0], eighths(rng, n)][rng.integers(2)], axis)


@dataclass(frozen=True, eq=False, repr=False)
class Gain(Diagonal):
    """A layer as a user writes it: ``y = 2^k x - offset`` for each channel."""

    power: Any
    offset: Any

    def __post_init__(self):
        self.check_vectors("power", "offset")

    def scale_and_shift(self):
        return 2.0**self.power, -self.offset


def gain(rng, n):
    return Gain(rng.integers(-1, 2, n).astype(float), eighths(rng, n))


def conv(rng, c, o, **options):
    return Conv2D(eighths(rng, o, c, 2, 2), eighths(rng, o) if rng.random() < 0.5 else None, **options)


def border(mode):
    return CopyPadding(((0, 0), (1, 2), (1, 0)), mode)


def flat_dense(rng):
    return Dense(eighths(rng, 2, 2 * 7 * 5))


def networks(rng):
    """Every position by its name."""
    n, a, s = lambda c: norm(rng, c), lambda c: affine(rng, c), lambda c: gain(rng, c)
    chains = {
        "conv - bias": [conv(rng, 2, 3), a(3), ReLU()],
        "conv - scale - bias - BN": [conv(rng, 2, 3), a(3), a(3), n(3), ReLU()],
        "one's own": [conv(rng, 2, 2), s(2), ReLU(), s(2), s(2), conv(rng, 2, 1, padding=1)],
        "standardized": [a(2), conv(rng, 2, 2, padding="same"), ReLU()],
        "channels last": [affine(rng, 4, 2), Transpose((2, 0, 1)), conv(rng, 4, 2, padding=1)],
        "conv - upsampling - BN": [conv(rng, 2, 2), UpSampling((1, 2, 1)), n(2), ReLU()],
        "conv - channels repeated - BN": [conv(rng, 2, 2), UpSampling((2, 1, 1)), Affine(2.0, [0.5]), ReLU()],
        "conv - slice - BN": [conv(rng, 2, 3), Slice((1, 0, 1), (None,) * 3, (1, 2, 1)), n(2), ReLU()],
        "conv - adaptive - BN": [conv(rng, 2, 2), AdaptiveAveragePool((2, 2)), n(2), ReLU()],
        "BN - adaptive - conv": [ReLU(), n(2), AdaptiveAveragePool((3, 2)), conv(rng, 2, 1, padding=1)],
        "conv - mirrored border - BN": [conv(rng, 2, 2), border("reflect"), n(2), ReLU()],
        "BN - copied border - conv": [ReLU(), n(2), border("edge"), conv(rng, 2, 1)],
        "BN of rows - mirrored border - dense": [norm(rng, 4, 1), border("wrap"), Flatten(), flat_dense(rng)],
        "conv - interpolation - BN": [conv(rng, 2, 2), Interpolation((6, 6)), n(2), ReLU()],
        "BN - interpolation - conv": [ReLU(), n(2), Interpolation((8, 2)), conv(rng, 2, 1, padding=1)],
        "BN - counted pool": [n(2), AveragePool2D(2, 2, 1, count_padding=True), ReLU(), conv(rng, 2, 1)],
    }
    graphs = {
        "two BN - concatenation - ReLU": [
            ("relu", ReLU(), "input"),
            ("bn1", n(2), "relu"),
            ("bn2", n(2), "input"),
            ("cat", Concatenate(), ("bn1", "bn2")),
            ("relu2", ReLU(), "cat"),
            ("conv", conv(rng, 4, 2, padding=1), "relu2"),
        ],
        "BN(x) + x": [
            ("relu", ReLU(), "input"),
            ("bn", n(2), "relu"),
            ("sum", [Add(), Subtract(), Average()][rng.integers(3)], ("bn", "relu")),
            ("conv", conv(rng, 2, 2, padding=1), "sum"),
        ],
        "conv - BN(x) + BN(x) + x": [
            ("conv", conv(rng, 2, 2), "input"),
            ("bn1", n(2), "conv"),
            ("bias", a(2), "bn1"),
            ("bn2", n(2), "conv"),
            ("sum", Add(), ("bias", "conv", "bn2")),
            ("relu", ReLU(), "sum"),
        ],
        "BN - both branches of a sum": [
            ("relu", ReLU(), "input"),
            ("bn", n(2), "relu"),
            ("same", Dropout(), "bn"),
            ("pool", MaxPool2D(1), "bn"),
            ("sum", Add(), ("same", "bn")),
            ("conv", conv(rng, 2, 2), "sum"),
            ("conv2", conv(rng, 2, 1), "pool"),
            ("cat", Concatenate(), ("conv", "conv2")),
        ],
    }
    found = {
        name: Network([(f"l{k}", x) for k, x in enumerate(c)], (4, 4, 4) if "last" in name else IMAGE)
        for name, c in chains.items()
    }
    return found | {name: Network(layers, IMAGE) for name, layers in graphs.items()}


RULES = [Gamma(0.5), AlphaBeta(2.0, 1.0), ZPlus(), WSquare(), Flat(), Epsilon(0.25)]


@pytest.mark.parametrize("name", networks(np.random.default_rng(0)))
@given(seed=seeds, rule=st.sampled_from(RULES))
def test_every_position(name, seed, rule):
    """The function to 1e-12, the relevance of the oracle, and a report that counts every layer."""
    rng = np.random.default_rng(seed)
    network = networks(rng)[name]
    fused, report = fuse(network)
    assert report.exact and not any(isinstance(node.layer, Diagonal) for node in fused.nodes)
    diagonal = [node.name for node in network.nodes if isinstance(node.layer, Diagonal)]
    assert {entry.name for entry in report.entries if entry.kind != "Add"} >= set(diagonal)
    x, out = rng.standard_normal((2, *network.inputs["input"])), network.outputs[0]
    y = network.record(x)[out]
    assert_allclose(fused.forward(x), y, rtol=0, atol=1e-12 * max(1, abs(y).max()))
    assert report.difference <= 1e-12 * max(1, abs(y).max())
    assert all(entry.difference <= 1e-11 * max(1, abs(y).max()) for entry in report.entries)
    x, R = eighths(rng, *network.inputs["input"]), eighths(rng, *y.shape[1:])
    known = exact.explain(network, x, R, Composite(default=rule).rules(network), "fused")
    ours = explain(network, x[None], seed=R[None], composite=rule).relevance[0]
    flow = max(float(max(map(abs, step.R.values), default=0)) for step in known.steps.values())
    errors = [abs(float(v) - w) for v, w in zip(known.relevance["input"].values, ours.ravel(), strict=True)]
    assert max(errors) <= 1e-11 * max(flow, abs(R).max())


@pytest.mark.parametrize("preset", PRESETS)
def test_a_bias_of_its_own_is_the_bias_of_its_convolution(preset):
    """Conv2D(W, b) = Conv2D(W) + Affine(1, b), and so on, under every preset."""
    rng = np.random.default_rng(0)
    W, b, g, V = (
        rng.normal(size=(4, 3, 3, 3)),
        rng.normal(size=4),
        rng.normal(size=4),
        rng.normal(size=(2, 64)),
    )
    tail = [("relu", ReLU()), ("flat", Flatten()), ("fc", Dense(V))]
    head = {
        "one": [("conv", Conv2D(W, b))],
        "a bias": [("conv", Conv2D(W)), ("add", Affine(1.0, b))],
        "an inverse scale": [
            ("conv", Conv2D(W / g[:, None, None, None])),
            ("mul", Affine(g, 0.0)),
            ("add", Affine(1, b)),
        ],
    }
    range_ = {"input_range": [0.0, 1.0]}
    nets = {name: Network([*layers, *tail], (3, 6, 6), metadata=range_) for name, layers in head.items()}
    x = rng.uniform(size=(2, 3, 6, 6))
    R = {name: explain(net, x, 1, composite=preset).relevance for name, net in nets.items()}
    assert_allclose(R["a bias"], R["one"], rtol=0, atol=1e-12 * abs(R["one"]).max())
    assert_allclose(R["an inverse scale"], R["one"], rtol=0, atol=1e-11 * abs(R["one"]).max())
    _, report = fuse(nets["an inverse scale"])
    assert report.exact and [entry.name for entry in report.entries] == ["mul", "add"]
    assert "2 of 2 normalization layers fused" in str(report)


# ---------------------------------------------------------------- standardized inputs

MEAN, STD = np.array([0.45, 0.5, 0.25]), np.array([0.225, 0.25, 0.5])


def standardized(first, *more):
    rng = np.random.default_rng(3)
    W, V = rng.normal(size=(4, 3, 3, 3)), rng.normal(size=(2, 4))
    layers = [
        *first,
        ("conv", Conv2D(W, padding="same")),
        *more,
        ("relu", ReLU()),
        ("gap", GlobalAveragePool()),
        ("fc", Dense(V)),
    ]
    return Network(layers, (3, 6, 6), metadata={"input_range": [0.0, 1.0]}), W


@pytest.mark.parametrize("preset", PRESETS)
def test_standardized_inputs_are_part_of_the_first_layer(preset):
    """W / std with a bias that counts no padding, whatever the preset; bounds in the user's units."""
    net, W = standardized([("mean", Affine(1.0, -MEAN)), ("std", Affine(1 / STD, 0.0))])
    taps = -np.einsum("ocij,c->oij", W, MEAN / STD)
    by_hand, _ = standardized([])
    by_hand = by_hand.replace("conv", Conv2D(W / STD[:, None, None], padding="same", tap_bias=taps))
    x = np.random.default_rng(0).uniform(size=(2, 3, 6, 6))
    ours, expected = (explain(n, x, 1, composite=preset) for n in (net, by_hand))
    assert_allclose(ours.relevance, expected.relevance, rtol=0, atol=1e-11 * abs(expected.relevance).max())
    assert ours.relevance.shape == x.shape and fuse(net)[1].exact


@pytest.mark.parametrize("preset", PRESETS)
@pytest.mark.parametrize("normalization", NORMALIZATION)
def test_what_is_not_fused_in_front_is_passed(preset, normalization):
    """A sum of the standardized pixels with what is made of them: nothing takes them in."""
    rng = np.random.default_rng(0)
    conv, fc = Conv2D(rng.normal(size=(3, 3, 1, 1))), Dense(rng.normal(size=(2, 27)))
    rest = [
        ("conv", conv, "in"),
        ("sum", Add(), ("conv", "in")),
        ("flat", Flatten(), "sum"),
        ("fc", fc, "flat"),
    ]
    net = Network(
        [("in", Affine(1 / STD, -MEAN / STD), "input"), *rest],
        (3, 3, 3),
        metadata={"input_range": [0.0, 1.0]},
    )
    assert standardizations(net) == ["in"] and not fuse(net)[1].exact
    x = rng.uniform(size=(2, 3, 3, 3))
    one = explain(net, x, 1, composite=preset, normalization=normalization)
    assert one["in"].rule == "Pass()" and (one["in"].sent == one["in"].received).all()


def test_a_rule_of_the_users_own_for_a_layer_counts():
    net, _ = standardized([("in", Affine(1 / STD, -MEAN / STD))])
    x = np.random.default_rng(0).uniform(size=(1, 3, 6, 6))
    for rule in (Pass(), ZPlus()):
        assert explain(net, x, composite=Composite([("in", rule)]))["in"].rule == str(rule)
        plain = explain(net, x, composite=Composite([("Affine", rule)]), normalization="linear")
        assert plain["in"].rule == str(rule)
    own = explain(net, x, composite=Composite([("conv", ZPlus())]), normalization="linear")
    assert own["in"].rule == "Pass()"
    with_passed = explain(net, x, composite=PRESETS["epsilon-plus-flat"](net).preceded(("in", Pass())))
    assert_allclose(
        with_passed.relevance, explain(net, x, composite="epsilon-plus-flat").relevance, rtol=1e-10
    )


# ---------------------------------------------------------------- kinds, by class


def test_a_class_of_ones_own_is_of_the_kind_that_it_inherits_from():
    class Named(Conv2D):
        """A convolution by another name."""

    class Twice(Conv2D):
        """No convolution: what it computes is its own."""

        def linear(self, x, weight, bias):
            return 2 * super().linear(x, weight, bias)

    rng = np.random.default_rng(0)
    W, x = rng.normal(size=(2, 2, 2, 2)), rng.normal(size=(1, *IMAGE))
    for kind, gone in ((Named, True), (Twice, False)):
        net = Network([("conv", kind(W)), ("bias", Affine(1.0, [1.0, 2.0])), ("relu", ReLU())], IMAGE)
        fused, report = fuse(net)
        assert report.exact == gone and ("bias" not in fused) == gone
        assert_allclose(fused.forward(x), net.forward(x), rtol=1e-12)
        rules = Composite([("Conv2D", ZPlus())]).rules(net)
        assert rules["conv"] == ZPlus() and Composite([(kind, Flat())]).rules(net)["conv"] == Flat()


def test_a_kind_is_no_other_that_it_is_made_of():
    net = Network([("sum", Subtract(), ("input", "input"))], (2,))
    assert Composite([("Add", ZPlus()), ("Subtract", Flat())]).rules(net)["sum"] == Flat()
    assert Composite([(Diagonal, Flat())]).rules(Network([("a", Gain([1.0], [0.0]))], (2,)))["a"] == Flat()


def test_a_kind_of_ones_own_is_named_like_any_other():
    net = Network([("fc", Dense(np.eye(2))), ("a", Gain([1.0], [0.0])), ("out", Affine(2.0, 1.0))], (2,))
    rules = Composite([("Gain", Flat()), ("Affine", ZPlus())]).rules(net)
    assert rules["a"] == Flat() and rules["out"] == ZPlus() and rules["fc"] == Epsilon()
    assert Composite([("Diagonal", Flat())]).rules(net) == {"fc": Epsilon(), "a": Flat(), "out": Flat()}
    named = Network([("Gain", Dense(np.eye(2))), ("a", Gain([1.0], [0.0]))], (2,))
    assert Composite([("Gain", Flat())]).rules(named)["a"] == Epsilon()  # the name of a layer comes first
    with pytest.raises(LRPError, match="names 'Loss', but the network has no such layer, kind or family"):
        Composite([("Loss", Flat())]).rules(net)


class Loud(Affine):
    """Another function than that of its scale and shift."""

    def forward(self, x):
        return np.abs(super().forward(x))


class LoudNorm(LayerNorm):
    def forward(self, x):
        return np.abs(super().forward(x))


@dataclass(frozen=True, eq=False, repr=False)
class Halved(BatchNorm):
    """Another scale and shift than those of its kind."""

    def scale_and_shift(self):
        g, s = super().scale_and_shift()
        return g / 2, s / 2


def test_what_computes_something_else_is_not_fused():
    x = np.array([[1.0, -3.0], [-2.0, 0.5]])
    for layer in (Loud([1.0, 2.0], [1.0, -1.0]), LoudNorm([1.0, 2.0], [1.0, -1.0])):
        net = Network([("own", layer), ("fc", Dense([[1.0, 2.0]])), ("bias", Affine(1.0, 1.0))], (2,))
        fused, report = fuse(net)
        assert fused["own"] is layer and [entry.name for entry in report.entries] == ["bias"]
        assert_allclose(fused.forward(x), net.forward(x), rtol=1e-12)
        with pytest.raises(LRPError, match="is no normalization to fuse"):
            fuse(net, "own")
    loud = Network([("fc", Dense([[1.0, 2.0]])), ("own", Loud(1.0, 1.0)), ("bias", Affine(1.0, 1.0))], (2,))
    assert not fuse(loud)[1].exact  # nor does a shift move into it
    with pytest.raises(UnsupportedError, match=r"'own' \(Loud\): the oracle does not know"):
        exact.forward(loud, x[0])


def test_another_scale_and_shift_by_hand():
    layer = Halved([2.0, 4.0], [1.0, 0.0], [0.0, 1.0], [1.0, 4.0], 0.0)  # 2 x + 1, 2 x - 2
    net = Network([("fc", Dense([[1.0, 0.0], [0.0, 3.0]])), ("own", layer), ("relu", ReLU())], (2,))
    x = np.array([[3.0, 5.0]])
    assert (fuse(net)[0].forward(x) == [[3.5, 14.0]]).all() and (net.forward(x) == [[3.5, 14.0]]).all()
    assert exact.forward(net, x[0])["relu"].values == [3.5, 14.0]


def test_a_class_of_ones_own_is_not_taken_for_another_of_its_name(tmp_path):
    own = type("Dense", (Layer,), {"forward": lambda self, x: x, "output_shape": lambda self, shape: shape})
    net = Network([("fc", own())], (2,))
    with pytest.raises(UnsupportedError, match=r"'fc'.*the oracle does not know"):
        exact.forward(net, np.ones(2))
    for layer in (own(), Gain([1.0], [0.0])):
        with pytest.raises(
            LRPError, match=r"layer 'fc' is of a class of your own, test_diagonal.*a file can't"
        ):
            save(Network([("fc", layer)], (2,)), tmp_path / "own.h5")
    assert not (tmp_path / "own.h5").exists()


def test_bounds_go_through_pooling_by_hand():
    """Pixels in 0 .. 1, 4 x - 1 in -1 .. 3, and so its means; of a counted corner a quarter."""
    layers = [("std", Affine(4.0, -1.0)), ("conv", Conv2D(np.ones((1, 1, 1, 1)))), ("flat", Flatten())]
    net = Network(
        [layers[0], ("pool", AveragePool2D(2)), *layers[1:]], (1, 2, 2), metadata={"input_range": (0, 1)}
    )
    rules = PRESETS["epsilon-gamma-box"](net).rules(net)
    assert (rules["conv"].low, rules["conv"].high) == (-1.0, 3.0)
    counted = AveragePool2D(2, 2, 1, count_padding=True)
    net = Network([layers[0], ("pool", counted), *layers[1:]], (1, 2, 2), metadata={"input_range": (0, 1)})
    rules = PRESETS["epsilon-gamma-box"](net).rules(net)
    assert (np.unique(rules["conv"].low), np.unique(rules["conv"].high)) == (-0.25, 0.75)


def test_counted_padding_makes_no_convolution(tmp_path):
    rng = np.random.default_rng(0)
    pool = AveragePool2D(2, 2, 1, count_padding=True)
    net = Network([("bn", norm(rng, 2)), ("pool", pool), ("conv", conv(rng, 2, 3)), ("out", ReLU())], IMAGE)
    fused, report = fuse(net)
    assert report.exact and isinstance(fused["pool"], ScaledPool2D)
    rules = PRESETS["epsilon-plus-flat"](fused).rules(fused)
    assert isinstance(rules["pool"], Epsilon) and rules["conv"] == Flat()
    x = rng.standard_normal((2, *IMAGE))
    assert_allclose(fused.forward(x), net.forward(x), rtol=1e-12, atol=1e-13)
    save(fused, tmp_path / "fused.h5")
    assert (load(tmp_path / "fused.h5").forward(x) == fused.forward(x)).all()


# ---------------------------------------------------------------- scales near 0, many layers


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@given(seed=seeds)
def test_scales_near_zero(dtype, seed):
    """Weight decay leaves denormal scales; s / g overflows, and the channel is the constant max(0, s)."""
    rng = np.random.default_rng(seed)
    tiny = (
        [1e-39, 1e-44, 1e-30, -1e-39, 0.0, 1.0, -1.0]
        if dtype == np.float32
        else [1e-310, -1e-320, 1e-200, 0.0, 1.0]
    )
    g, s = rng.choice(tiny, 4), rng.choice([-2.0, -1e-3, 0.0, 1e-3, 2.0], 4)
    g[0], s[0] = 1.0, 1.0  # something that contributes
    bn = BatchNorm(g, s, np.zeros(4), np.ones(4), 0.0)
    net = Network(
        [("in", ReLU()), ("bn", bn), ("relu", ReLU()), ("fc", Dense(rng.uniform(0.5, 1, (3, 4))))], (4,)
    ).astype(dtype)
    fused, report = fuse(net)
    assert report.exact and fused.dtype == dtype
    x = rng.uniform(-10, 10, (5, 4))
    y = net.forward(x)
    assert_allclose(fused.forward(x), y, rtol=0, atol=64 * np.finfo(dtype).eps * (1 + abs(y).max()))
    R = explain(net, x, 0, composite=ZPlus()).relevance
    assert np.isfinite(R).all()
    dead = (s <= 0) & (abs(g) < 1e-20) & (s != 0)
    assert (R[:, dead] == 0).all()


def test_a_step_costs_what_it_changes(monkeypatch):
    """Counted, not timed: 1,000 layers are looked at a fixed number of times each."""
    from numpylrp.fusion import draft, fusing

    looks = 0

    def counted(name):
        def function(self, *arguments):
            nonlocal looks
            looks += 1
            return getattr(dict, name)(self, *arguments)

        return function

    Counted = type(
        "Counted", (dict,), {n: counted(n) for n in ("__getitem__", "__iter__", "items", "values")}
    )
    original = draft.Draft.__init__

    def watched(self, network):
        original(self, network)
        self.layers, self.inputs, self.readers = (
            Counted(self.layers),
            Counted(self.inputs),
            Counted(self.readers),
        )

    monkeypatch.setattr(fusing.Draft, "__init__", watched)
    each = []
    for count in (40, 320):
        layers = []
        for k in range(count):
            layers += [
                (f"c{k}", Conv1D(np.ones((1, 1, 1)))),
                (f"b{k}", Affine([0.5], [1.0])),
                (f"r{k}", ReLU()),
            ]
        looks = 0
        assert fuse(Network(layers, (1, 3)), probe=0)[1].exact
        each.append(looks / count)
    assert each[1] <= 1.05 * each[0]


def test_long_chains_of_moves_are_no_recursion():
    layers = [
        ("conv", Conv1D(np.ones((1, 1, 1)))),
        *((f"d{k}", Dropout()) for k in range(1500)),
        ("bn", Affine([2.0], [1.0])),
    ]
    fused, report = fuse(Network([*layers, ("relu", ReLU())], (1, 3)), probe=0)
    assert report.exact and fused["conv"].weight == 2 and fused["conv"].bias == 1


def test_what_stays_says_why():
    rng = np.random.default_rng(0)
    cases = {
        "differs between copies": [
            conv(rng, 2, 1),
            UpSampling((2, 1, 1)),
            Affine([1.0, 2.0], [0.0]),
            Sigmoid(),
        ],
        "does not move through 'l1' \\(ZeroPadding\\)": [
            conv(rng, 2, 2),
            ZeroPadding(((0, 0), (1, 0), (0, 0))),
            Affine([2.0], [1.0]),
            Sigmoid(),
        ],
        "does not commute with LeakyReLU": [ReLU(), Affine([2.0], [1.0]), LeakyReLU(), conv(rng, 2, 1)],
    }
    for says, layers in cases.items():
        net = Network([(f"l{k}", layer) for k, layer in enumerate(layers)], IMAGE)
        (entry,) = fuse(net)[1].entries
        with pytest.raises(NotExact, match=says):
            fuse(net, entry.name)
        assert not entry.done
