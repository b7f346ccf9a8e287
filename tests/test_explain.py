"""Networks, composites, seeds and the walk back."""

import gc
import threading
import weakref

import numpy as np
import pytest
import twins
from networks import chain, graph, numeric_gradient
from numpy.testing import assert_allclose, assert_array_equal

import numpylrp
from numpylrp import Composite, LRPError, Network, explain
from numpylrp import seed as seeds
from numpylrp.composite import PRESETS
from numpylrp.errors import NonFiniteError, ShapeError
from numpylrp.layers import (
    Add,
    Affine,
    BatchNorm,
    Conv2D,
    Dense,
    Flatten,
    Identity,
    LeakyReLU,
    ReLU,
    Softmax,
    Tanh,
    Transpose,
    ZeroPadding,
)
from numpylrp.rules import LRP0, AlphaBeta, Epsilon, Flat, Gamma, WSquare, ZBox, ZPlus


def inputs(network, n=3, seed=1):
    return np.random.default_rng(seed).standard_normal((n, *network.inputs["input"]))


# ---------------------------------------------------------------- the walk


@pytest.mark.parametrize("make", [chain, graph])
@pytest.mark.parametrize("seed", range(3))
def test_lrp_0_is_gradient_times_input(make, seed):
    """On piecewise-linear networks, biases and batch normalization included (Shrikumar et al. 2016)."""
    network = make(seed)
    x = inputs(network, seed=seed)
    e = explain(network, x, 1, composite=LRP0())
    assert_allclose(e.relevance, x * numeric_gradient(network, x, 1), rtol=0, atol=1e-6)


def test_an_explanation_by_hand():
    """2 - 2 - 1 with every number worked out on paper."""
    network = Network(
        [("fc1", Dense([[1.0, 2.0], [3.0, -1.0]])), ("relu", ReLU()), ("fc2", Dense([[2.0, -1.0]], [3.0]))],
        input_shape=(2,),
    )
    # x = (1, 2): z1 = (5, 1), z2 = 10 - 1 + 3 = 12
    e = explain(network, [[1.0, 2.0]], composite=LRP0(), trace=True)
    assert e.output.tolist() == [[12.0]] and e.seed.tolist() == [[12.0]]
    assert e["fc2"]["s"].tolist() == [[1.0]] and e["fc2"]["c"].tolist() == [[2.0, -1.0]]
    assert e["fc2"]["R_x"].tolist() == [[10.0, -1.0]]
    assert e["fc1"]["z"].tolist() == [[5.0, 1.0]] and e["fc1"]["s"].tolist() == [[2.0, -1.0]]
    # c = (2*1 - 1*3, 2*2 + 1*1) = (-1, 5), R = x c
    assert e["fc1"]["c"].tolist() == [[-1.0, 5.0]] and e.relevance.tolist() == [[-1.0, 10.0]]
    assert e["fc2"].received.tolist() == [12.0] and e["fc2"].sent.tolist() == [9.0]
    assert e["input"].received.tolist() == [9.0]
    text = str(e)
    assert "1 sample, class 0" in text and "25.00%" in text and "(unchanged)" in text


@pytest.mark.parametrize("name", PRESETS)
def test_presets_run_and_follow_the_twins(name):
    """Each preset walked through by hand on explicit matrices, for a chain of dense layers."""
    r = np.random.default_rng(5)
    shapes = [(4, 5), (4, 4), (3, 4)]
    dense = [Dense(r.standard_normal(s), r.standard_normal(s[0])) for s in shapes]
    network = Network(
        [("fc1", dense[0]), ("r1", ReLU()), ("fc2", dense[1]), ("r2", ReLU()), ("fc3", dense[2])],
        input_shape=(5,),
        metadata={"input_range": [-1.0, 1.0]},
    )
    x = r.uniform(-1, 1, (1, 5))
    e = explain(network, x, 2, composite=name)
    rule = {  # first, other dense layers, and the last where it is another
        "epsilon": ("eps", "eps"),
        "epsilon-plus": ("eps", "eps"),
        "epsilon-plus-flat": ("flat", "eps"),
        "epsilon-gamma-box": ("box", "eps"),
        "epsilon-alpha2-beta1": ("eps", "eps"),
        "epsilon-alpha2-beta1-flat": ("flat", "eps"),
        "excitation-backprop": ("plus0", "plus0"),
        "z-plus": ("plus", "plus"),
        "lrp-overview": ("box", "zero"),
        "deep-taylor": ("box", "plus"),
        "lstm": ("eps3", "eps3"),
        "rap": ("rap", "rap", "abs"),
    }.get(name, ("eps", "eps"))
    twin = {
        "eps": lambda a, W, b, R: twins.epsilon(a, W, b, R, 1e-6),
        "eps3": lambda a, W, b, R: twins.epsilon(a, W, b, R, 1e-3),
        "zero": twins.epsilon,
        "plus": twins.z_plus,
        "plus0": lambda a, W, b, R: twins.z_plus(a, W, 0 * b, R),
        "flat": lambda a, W, b, R: twins.flat(a, np.ones_like(W, bool), b, R),
        "rap": lambda a, W, b, R: twins.rap(a, W, R),
        "abs": twins.absolute,
        "box": lambda a, W, b, R: twins.z_box(a, W, b, R, -np.ones(5), np.ones(5)),
    }
    a1 = np.maximum(dense[0].weight @ x[0] + dense[0].bias, 0)
    a2 = np.maximum(dense[1].weight @ a1 + dense[1].bias, 0)
    R = np.array([0, 0, (dense[2].weight @ a2 + dense[2].bias)[2]])
    for layer, a, kind in ((dense[2], a2, rule[-1]), (dense[1], a1, rule[1]), (dense[0], x[0], rule[0])):
        R = twin[kind](a, layer.weight.T, layer.bias, R)
    assert_allclose(e.relevance[0], R, rtol=1e-10)


@pytest.mark.parametrize("name", PRESETS)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_presets_keep_the_dtype_and_batches_apart(name, dtype):
    network = chain().astype(dtype)
    x = np.clip(inputs(network, 5), -4, 4)
    whole = explain(network, x, composite=name)
    assert whole.relevance.dtype == dtype and whole.output.dtype == dtype
    assert all(step.received.dtype == dtype for step in whole.steps.values())
    tolerance = 1e-9 if dtype == np.float64 else 1e-3
    scale = abs(whole.relevance).max()
    for size in (1, 2):
        some = explain(network, x, composite=name, batch_size=size)
        assert_allclose(some.relevance, whole.relevance, rtol=0, atol=tolerance * scale)
        assert_array_equal(some.target, whole.target)
    alone = explain(network, x[3:4], composite=name)
    assert_allclose(alone.relevance[0], whole.relevance[3], rtol=0, atol=tolerance * scale)


def test_relevance_adds_up_where_paths_meet():
    """Without biases LRP-0 keeps the sum through a residual sum and a shared layer."""
    r = np.random.default_rng(0)
    fc = Dense(r.standard_normal((4, 4)))
    network = Network(
        [
            ("a", fc, "input"),
            ("relu", ReLU(), "a"),
            ("b", fc, "relu"),
            ("sum", Add(), ("b", "input")),
            ("out", Dense(r.standard_normal((2, 4))), "sum"),
        ],
        input_shape=(4,),
    )
    e = explain(network, r.standard_normal((6, 4)), composite=LRP0())
    total = e.output[np.arange(6), e.target]
    assert_allclose(e.relevance.sum(1), total, rtol=1e-9)
    assert_allclose(e["sum"].sent, total, rtol=1e-9)
    # "relu" gets one branch of "sum" only: the other went to the input
    assert not np.allclose(e["relu"].received, total)


def test_several_classes_share_a_forward_pass(monkeypatch):
    network = chain()
    x = inputs(network)
    calls = []
    run = Network.activations
    monkeypatch.setattr(Network, "activations", lambda self, *given: calls.append(1) or run(self, *given))
    e = explain(network, x, classes=[0, "cat"])
    assert len(calls) == 1
    assert e.relevance.shape == (2, 3, 2, 7, 8) and e.target.tolist() == [[0] * 3, [2] * 3]
    for k, target in enumerate((0, 2)):
        assert_allclose(e.relevance[k], explain(network, x, target).relevance, rtol=1e-12)
    small = explain(network, x, classes=[0, "cat"], batch_size=2)
    assert_allclose(small.relevance, e.relevance, rtol=1e-9, atol=1e-12)
    assert "relevance" in str(e)


def test_targets_one_a_sample():
    network = chain()
    x = inputs(network)
    e = explain(network, x, [2, "ant", 1], batch_size=2)
    assert e.target.tolist() == [2, 0, 1]
    assert_allclose(e.seed.sum(1), e.output[[0, 1, 2], [2, 0, 1]])
    assert explain(network, x).target.tolist() == e.output.argmax(1).tolist() == e.prediction.tolist()


def test_softmax_at_the_end_is_left_out():
    network = chain()
    entries = [(n.name, n.layer, n.inputs) for n in network.nodes]
    topped = Network([*entries, ("probabilities", Softmax())], network.inputs)
    x = inputs(network)
    assert_allclose(topped.forward(x).sum(1), 1)
    e = explain(topped, x)
    assert_allclose(e.output, network.forward(x))
    assert_allclose(e.relevance, explain(network, x).relevance, rtol=1e-12)
    assert "probabilities" not in e.steps


def test_maps_of_channels_last_models_are_explained_by_class():
    """A transpose at the end hides neither the softmax nor the class axis."""
    r = np.random.default_rng(0)
    layers = [
        ("conv", Conv2D(r.standard_normal((5, 2, 1, 1)))),
        ("softmax", Softmax()),
        ("last", Transpose((1, 2, 0))),
    ]
    network = Network(layers, (2, 3, 4))
    x = r.standard_normal((2, 2, 3, 4))
    assert network.forward(x).shape == (2, 3, 4, 5)
    e = explain(network, x, 4, composite=LRP0())
    logits = np.einsum("oc,nchw->nohw", network["conv"].weight[:, :, 0, 0], x)
    assert_allclose(e.output, logits)
    assert_allclose(e.relevance.sum((1, 2, 3)), logits[:, 4].sum((1, 2)), rtol=1e-9)


def test_trace_of_some_layers():
    network = chain()
    e = explain(network, inputs(network), trace=["conv2"])
    assert set(e["conv2"].arrays) >= {"x", "y", "R", "R_x", "z+", "s+", "c+"}
    assert not e["fc1"].arrays
    with pytest.raises(LRPError, match="trace=True"):
        e["fc1"]["z"]
    with pytest.raises(LRPError, match="no layer 'conv9'"):
        explain(network, inputs(network), trace=["conv9"])


def test_a_network_is_shared_between_threads():
    network, results = chain(), {}
    x = inputs(network, 8)
    expected = explain(network, x).relevance

    def work(k):
        results[k] = explain(network, x).relevance

    threads = [threading.Thread(target=work, args=(k,)) for k in range(6)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert len(results) == 6
    for relevance in results.values():
        assert_allclose(relevance, expected, rtol=1e-12, atol=1e-14)


def test_several_inputs_and_outputs():
    r = np.random.default_rng(0)
    network = Network(
        [
            ("left", Dense(r.standard_normal((3, 2))), "a"),
            ("right", Dense(r.standard_normal((3, 4))), "b"),
            ("sum", Add(), ("left", "right")),
            ("only_a", Dense(r.standard_normal((2, 3))), "left"),
        ],
        input_shape={"a": (2,), "b": (4,)},
        outputs=("sum", "only_a"),
    )
    x = {"a": r.standard_normal((2, 2)), "b": r.standard_normal((2, 4))}
    out = network.forward(x)
    assert_allclose(out["sum"], x["a"] @ network["left"].weight.T + x["b"] @ network["right"].weight.T)
    e = explain(network, x, composite=LRP0())
    assert_allclose(e.relevance["a"].sum(1) + e.relevance["b"].sum(1), e.output[[0, 1], e.target], rtol=1e-10)
    only = explain(network, x, output="only_a", composite=LRP0())
    assert (only.relevance["b"] == 0).all() and "sum" not in only.steps
    with pytest.raises(LRPError, match="give a mapping"):
        network.forward(np.ones((1, 2)))
    with pytest.raises(ShapeError, match="differ in the number of samples: a 2, b 1"):
        network.forward({"a": x["a"], "b": x["b"][:1]})
    with pytest.raises(LRPError, match="there is no output or layer 'nobody'"):
        explain(network, x, output="nobody")


# ---------------------------------------------------------------- seeds


def test_softmax_gradient_is_the_gradient():
    z, t, h = np.array([[1.0, -0.5, 2.0]]), np.array([2]), 1e-6

    def p(v):
        return np.exp(v)[0, 2] / np.exp(v).sum()

    numeric = [(p(z + h * e) - p(z - h * e)) / (2 * h) for e in np.eye(3)]
    assert_allclose(seeds.softmax_gradient(z, t)[0], numeric, rtol=1e-8)
    sure = seeds.softmax_gradient(np.array([[100.0, 0.0]]), np.array([0]))
    assert_allclose(sure, [[np.exp(-100), -np.exp(-100)]], rtol=1e-12)


def test_contrastive_is_the_difference_of_two_walks():
    network = chain()
    x = inputs(network)
    first = explain(network, x, 1).relevance
    dual = np.zeros((3, 3))
    dual[:, [0, 2]] = (network.forward(x)[:, 1] / 2)[:, None]
    second = explain(network, x, 1, seed=dual).relevance
    ours = explain(network, x, 1, seed="clrp1").relevance
    assert_allclose(ours, np.maximum(first - second, 0), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("rule", [ZPlus(), AlphaBeta()])
def test_clrp2_walks_the_network_with_the_target_negated(rule):
    network = chain()
    x = inputs(network)
    plus = Composite(default=rule)
    last = network["fc2"]
    negated = network.replace("fc2", Dense(-last.weight, -last.bias))
    first = explain(network, x, 1, composite=plus)
    second = explain(negated, x, 1, composite=plus, seed=first.seed).relevance
    ours = explain(network, x, 1, composite=plus, seed="clrp2").relevance
    assert_allclose(ours, np.maximum(first.relevance - second, 0), rtol=1e-9, atol=1e-12)
    assert (ours > 0).any()


def test_what_is_kept_for_a_network_is_up_to_date_and_dies_with_it(monkeypatch):
    network = chain()
    x = inputs(network)
    monkeypatch.setitem(PRESETS, "own", lambda network: Composite(default=Epsilon(0.1)))
    assert explain(network, x, composite="own")["fc2"].rule == "Epsilon(0.1)"
    monkeypatch.setitem(PRESETS, "own", lambda network: Composite(default=Epsilon(0.2)))
    assert explain(network, x, composite="own")["fc2"].rule == "Epsilon(0.2)"
    for low in (-9.0, -8.0):
        network.metadata["input_range"] = [low, 9.0]
        assert f"ZBox({low:g}, 9)" in str(explain(network, x, composite="epsilon-gamma-box"))
    explain(network, x, composite="epsilon-gamma-box", low=np.array(-9.0), high=np.array(9.0))
    # a normalization that can't be fused: the fused network is the network itself
    stays = Network(
        [
            ("bn", BatchNorm(*np.ones((4, 2)))),
            ("leaky", ReLU(negative_slope=0.1)),
            ("fc", Dense(np.ones((1, 2)))),
        ],
        (2,),
    )
    explain(stays, np.ones((1, 2)))
    alive = [weakref.ref(network), weakref.ref(stays)]
    del network, stays
    gc.collect()
    assert [ref() for ref in alive] == [None, None]


def test_a_layer_of_ones_own_keeps_its_ways():
    class Twice(Dense):
        def forward(self, x):
            return 2 * super().forward(x)

    class Shy(Dense):
        def relprop(self, R, x, y, rule, note=None):
            return np.zeros_like(x)

    for kind, output, relevance in ((Twice, -2, [[-4, 2]]), (Shy, -1, [[0, 0]])):
        network = Network([("fc", kind([[1.0, -1.0]]))], (2,))
        e = explain(network, [[3.0, 4.0]], composite=AlphaBeta())
        assert e.output.tolist() == [[output]] and e.relevance.tolist() == relevance


def test_margin_and_other_seeds():
    network = chain()
    x = inputs(network)
    z = network.forward(x)
    e = explain(network, x, "bee", seed=seeds.margin(0))
    assert_allclose(e.seed, z * [-1, 1, 0])
    assert explain(network, x, 2, seed="one-hot").seed.tolist() == [[0, 0, 1]] * 3
    assert_allclose(explain(network, x, seed="all").seed, z)
    own = np.arange(9.0).reshape(3, 3)
    assert_array_equal(explain(network, x, seed=own, batch_size=2).seed, own)
    whole = explain(network.astype(np.float32), x, seed=own)
    assert whole.seed.dtype == whole.relevance.dtype == np.float32
    assert not np.shares_memory(explain(network, x, seed=own).seed, own)
    with pytest.raises(LRPError, match="two different classes"):
        explain(network, x, 0, seed=seeds.margin(0))
    with pytest.raises(ShapeError, match=r"the seed has shape \(4,\), but the output \(3, 3\)"):
        explain(network, x, seed=np.ones(4))


def test_maps_are_explained_by_channel():
    network = Network([("conv", Conv2D(np.ones((2, 1, 1, 1)), [0.0, 1.0]))], input_shape=(1, 2, 2))
    e = explain(network, np.ones((1, 1, 2, 2)), composite=LRP0())
    assert e.target.tolist() == [1] and e.seed[0, 0].sum() == 0 and e.seed[0, 1].sum() == 8


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"target": 3}, r"target 3 is out of range: the output has classes 0 .. 2"),
        ({"target": -1}, "target -1 is out of range"),
        ({"target": "dog"}, "'dog' is no class of this network: there are ant, bee, cat"),
        ({"target": 1.0}, "target must be an index or a label, not 1.0"),
        ({"target": [0, 1]}, "one for each of the 3 samples, not 2"),
        ({"classes": []}, "classes is empty"),
        ({"seed": "nose"}, "there is no seed 'nose'; there are logit"),
        ({"composite": "nose"}, "there is no composite 'nose'; there are epsilon"),
        ({"composite": 3}, "there is no composite 3"),
        ({"batch_size": 0}, "batch_size must be an integer of at least 1"),
    ],
)
def test_bad_calls_are_refused(options, says):
    network = chain()
    with pytest.raises(LRPError, match=says):
        explain(network, inputs(network), **options)


# ---------------------------------------------------------------- composites


def test_first_and_last_are_found_in_the_graph():
    """Two stems are both first; what only an earlier layer feeds is not."""
    w = np.eye(2)
    network = Network(
        [
            ("scale", Affine(2.0, 0.0), "input"),
            ("stem1", Dense(w), "scale"),
            ("stem2", Dense(w), "input"),
            ("sum", Add(), ("stem1", "stem2")),
            ("deep", Dense(w), "sum"),
            ("head1", Dense(w), "deep"),
            ("head2", Dense(w), "sum"),
        ],
        input_shape=(2,),
    )
    rules = Composite([("first", Flat()), ("last", WSquare())], ZPlus()).rules(network)
    assert {name for name, rule in rules.items() if rule == Flat()} == {"stem1", "stem2"}
    assert {name for name, rule in rules.items() if rule == WSquare()} == {"head1", "head2"}
    assert rules["deep"] == ZPlus() and rules["sum"] == ZPlus()


def test_entries_match_by_name_kind_class_position_and_function():
    network = chain()
    composite = Composite(
        [
            ("conv1", Gamma(1.0)),
            (3, Gamma(2.0)),
            (Dense, Gamma(3.0)),
            ("pool", Gamma(4.0)),
        ]
    )
    rules = composite.rules(network)
    assert [rules[n].gamma for n in ("conv1", "conv2", "fc1", "fc2", "pool2")] == [1, 2, 3, 3, 4]
    by_function = Composite([(lambda net, node: node.name.startswith("fc"), Flat())]).rules(network)
    assert by_function["fc2"] == Flat() and by_function["conv1"] == Epsilon()
    assert Composite([("conv*", Flat())]).rules(network)["conv2"] == Flat()
    assert Composite([("Conv2D", Flat())]).rules(network)["conv2"] == Flat()
    assert Composite([(-1, Flat())]).rules(network)["fc2"] == Flat()
    table = Composite([("conv*", Flat())]).table(network)
    assert "conv1    Conv2D         Flat()" in table and "(winner takes all)" in table


def test_bounds_of_the_box_follow_preprocessing():
    """Pixels 0..255 that are turned, rescaled, standardized and padded: the first layer's own bounds."""
    r = np.random.default_rng(0)
    network = Network(
        [
            ("turn", Transpose((2, 0, 1))),
            ("rescale", Affine(1 / 255, 0.0)),
            ("standardize", Affine([2.0, -4.0], [-1.0, 2.0])),
            ("pad", ZeroPadding(((0, 0), (1, 0), (0, 0)))),
            ("conv", Conv2D(r.standard_normal((3, 2, 2, 2)))),
        ],
        input_shape=(3, 4, 2),
        metadata={"input_range": [0, 255]},
    )
    rule = PRESETS["epsilon-gamma-box"](network).rules(network)["conv"]
    low = np.stack([np.full((4, 4), -1.0), np.full((4, 4), -2.0)])
    high = np.stack([np.full((4, 4), 1.0), np.full((4, 4), 2.0)])
    low[:, 0], high[:, 0] = 0, 0
    assert_allclose(rule.low, low)
    assert_allclose(rule.high, high)
    x = r.uniform(0, 255, (2, 3, 4, 2))
    box = {"composite": "epsilon-gamma-box"}
    e = explain(network, x, 1, **box, trace=["conv"], normalization="linear")
    by_hand = network["conv"].relprop(e["conv"]["R"], e["conv"]["x"], e["conv"]["y"], ZBox(low, high))
    assert_allclose(e["conv"]["R_x"], by_hand, rtol=1e-12)
    fused = explain(network, x, 1, **box).relevance  # x - low is rescaled as x is: the same shares
    assert_allclose(fused, e.relevance, rtol=1e-9, atol=1e-12 * abs(fused).max())
    entries = [(n.name, n.layer, n.inputs) for n in network.nodes[:2]]
    other = Network(
        [*entries, ("tanh", Tanh()), ("conv", network["conv"])], (3, 4, 2), metadata=network.metadata
    )
    with pytest.raises(LRPError, match=r"can't be followed through layer 'tanh' \(Tanh\)"):
        explain(other, x, 1, composite="epsilon-gamma-box")


def test_bounds_that_are_one_number_stay_one(weights):
    network = numpylrp.load(weights / "mnist_fc.h5")  # a flatten layer comes first
    assert str(PRESETS["deep-taylor"](network).rules(network)["fc1"]) == "ZBox(0, 1)"


def test_overview_preset_goes_by_depth():
    r = np.random.default_rng(0)
    convs = [(f"conv{k}", Conv2D(r.standard_normal((1, 1, 1, 1)))) for k in range(13)]
    network = Network(
        [*convs, ("flatten", Flatten()), ("fc", Dense(np.ones((2, 4))))],
        input_shape=(1, 2, 2),
        metadata={"input_range": [0, 1]},
    )
    rules = PRESETS["lrp-overview"](network).rules(network)
    assert rules["conv0"] == ZBox(0, 1)
    # in VGG-16: convolutions 1 to 7 (index <= 16) have gamma, 8 to 13 epsilon, dense layers 0
    assert [type(rules[f"conv{k}"]) for k in range(1, 13)] == [Gamma] * 6 + [Epsilon] * 6
    assert rules["conv12"].relative and rules["fc"] == LRP0()


@pytest.mark.parametrize(
    ("entries", "says"),
    [
        ([("conv7*", Flat())], r"names 'conv7\*', but the network has no such layer"),
        ([(40, Flat())], "names layer 40, but the network has 10 layers"),
        ([(1.5, Flat())], "can't match layers by 1.5"),
    ],
)
def test_entries_that_match_nothing_are_refused(entries, says):
    with pytest.raises(LRPError, match=says):
        Composite(entries).rules(chain())


def test_bad_composites_are_refused():
    with pytest.raises(LRPError, match="is not a rule"):
        Composite([("conv", "flat")])
    with pytest.raises(LRPError, match="a pair"):
        Composite(["conv"])
    with pytest.raises(LRPError, match="needs the bounds of the input"):
        explain(graph(), inputs(graph()), composite="epsilon-gamma-box")


# ---------------------------------------------------------------- networks


@pytest.mark.parametrize(
    ("layers", "says"),
    [
        ([], "at least one layer"),
        ([("a", ReLU()), ("a", ReLU())], "the name 'a' is given twice"),
        ([("input", ReLU())], "the name 'input' is given twice"),
        ([("a", ReLU(), "b")], "layer 'a' reads 'b', which does not exist"),
        ([("a", ReLU(), "b"), ("b", ReLU(), "a")], "layers 'a', 'b' read each other in a circle"),
        ([("a", ReLU(), ("input", "input"))], r"layer 'a' \(ReLU\) takes one input, not 2"),
        ([("a",)], r"must be given as \(name, layer\)"),
        ([("a", "relu")], r"must be given as \(name, layer\)"),
        (
            [("fc", Dense(np.ones((2, 3))))],
            r"layer 'fc' \(Dense\): weight \(2, 3\) takes 3 values on .*the input has shape \(2,\)",
        ),
        ([("sum", Add(), ("input",))], r"layer 'sum' \(Add\): takes two or more inputs, but got 1"),
    ],
)
def test_bad_wiring_is_refused_when_built(layers, says):
    with pytest.raises(LRPError, match=says):
        Network(layers, input_shape=(2,))


def test_bad_inputs_are_refused():
    network = chain()
    x = inputs(network)
    with pytest.raises(ShapeError, match=r"must have shape N x 2 x 7 x 8, but it has 3 x 2 x 8 x 7"):
        network.forward(x.swapaxes(2, 3))
    with pytest.raises(ShapeError, match=r"one sample: give x\[None\]"):
        network.forward(x[0])
    with pytest.raises(ShapeError, match="is empty"):
        network.forward(x[:0])
    with pytest.raises(LRPError, match="array of numbers"):
        network.forward([["a"]])
    with pytest.raises(LRPError, match="array of numbers"):
        network.forward([[1.0], [1.0, 2.0]])
    x[1, 0, 2, 3] = np.nan
    with pytest.raises(NonFiniteError, match=r"NaN or infinite, first at \(1, 0, 2, 3\)"):
        network.forward(x)
    with pytest.raises(LRPError, match="dtype must be float32 or float64, not int64"):
        network.astype(np.int64)


def test_nan_is_reported_where_it_first_appears():
    big = Network(
        [("one", Dense([[1e200]])), ("two", Dense([[1e200]])), ("three", Dense([[-1.0]]))], input_shape=(1,)
    )
    with pytest.raises(NonFiniteError, match=r"first appears in the output of layer 'two' \(Dense\)"):
        big.forward([[1.0]])
    tiny = Network([("one", Dense([[1e-300]])), ("two", Identity())], input_shape=(1,))
    with pytest.raises(NonFiniteError, match=r"relevance that layer 'one' \(Dense, Epsilon\(0\)\) sends on"):
        explain(tiny, [[1e-15]], composite=LRP0(), seed=np.array([[1e300]]))


def test_layers_may_come_in_any_order():
    w = np.ones((1, 1))
    network = Network(
        [("last", Dense(3 * w), "first"), ("first", Dense(2 * w), "input")], input_shape=(1,), outputs="last"
    )
    assert network.forward([[1.0]]).tolist() == [[6.0]]
    assert [n.name for n in network.nodes] == ["first", "last"]


def test_a_network_computes_in_one_dtype():
    network = Network(
        [("a", Dense(np.ones((2, 2), np.float32))), ("b", Dense(np.ones((2, 2))))], input_shape=(2,)
    )
    assert network.dtype == np.float64 and network["a"].weight.dtype == np.float64
    small = network.astype(np.float32)
    assert small.forward(np.ones((1, 2))).dtype == np.float32 and network.dtype == np.float64
    for layer in (Tanh(), LeakyReLU(), ReLU()):
        net = Network([("x", layer)], (2,)).astype(np.float32)
        assert net.forward(np.ones((1, 2))).dtype == np.float32
    assert numpylrp.explain(small, np.ones((1, 2))).relevance.dtype == np.float32


def test_a_network_without_parameters_computes_in_float64_unless_told():
    network = Network([("relu", ReLU())], (2,))
    assert network.dtype == np.float64 and network.forward(np.ones((1, 2), np.float32)).dtype == np.float64
    small = network.astype(np.float32)
    assert small.dtype == small.replace("relu", Tanh()).dtype == np.float32
    mixed = Network([("fc", Dense(np.ones((2, 2), np.float32)))], (2,))
    assert mixed.replace("fc", Dense(np.ones((2, 2)))).dtype == np.float32


def test_shared_layers_stay_shared():
    network = graph()
    assert network["a"] is network["b"]
    small = network.astype(np.float32)
    assert small["a"] is small["b"]


def test_an_image_of_another_size():
    r = np.random.default_rng(0)
    from numpylrp.layers import GlobalAveragePool

    network = Network(
        [
            ("conv", Conv2D(r.standard_normal((3, 1, 3, 3)), padding=1)),
            ("relu", ReLU()),
            ("gap", GlobalAveragePool()),
        ],
        input_shape=(1, None, None),
    )
    for size in ((5, 6), (9, 4)):
        e = explain(network, r.standard_normal((2, 1, *size)), composite=LRP0())
        assert e.relevance.shape == (2, 1, *size)
        assert_allclose(e.relevance.sum((1, 2, 3)), e.output[[0, 1], e.target], rtol=1e-9)


def test_the_box_of_a_first_layer_is_for_that_layer_alone():
    """Also where its name is that of a family."""
    network = Network(
        [("conv", Conv2D(np.ones((1, 1, 1, 1)))), ("c2", Conv2D(np.ones((1, 1, 1, 1)))), ("c*", ReLU())],
        (1, 2, 2),
    )
    rules = PRESETS["epsilon-gamma-box"](network, low=0.0, high=1.0).rules(network)
    assert rules == {"conv": ZBox(0.0, 1.0), "c2": Gamma(0.25)}


def test_bounds_and_other_options_of_a_preset_are_given_to_explain():
    network = Network([("fc", Dense([[1.0, -2.0], [3.0, 0.5]], [0.5, 0.0]))], input_shape=(2,))
    x = np.array([[0.2, 0.9], [0.5, 0.1]])
    e = explain(network, x, 0, composite="epsilon-gamma-box", low=0.0, high=1.0)
    own = explain(network, x, 0, composite=ZBox(0.0, 1.0))
    assert_allclose(e.relevance, own.relevance, rtol=1e-12)
    e = explain(network, x, 0, composite="epsilon", epsilon=0.25)
    assert_allclose(e.relevance, explain(network, x, 0, composite=Epsilon(0.25)).relevance, rtol=1e-12)
    with pytest.raises(LRPError, match="give low and high"):
        explain(network, x, composite="epsilon-gamma-box", low=0.0)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (
            {"low": 0},
            "composite 'epsilon-plus' does not take low; it takes epsilon; low is for epsilon-gamma-box, "
            r"lrp-overview, deep-taylor; or give the first layer a rule ZBox\(low, high\)",
        ),
        ({"composite": Epsilon(), "low": 0}, "a rule, does not take low; it takes nothing .*; low is for"),
        (
            {"composite": "z-plus", "gamma": 1},
            "'z-plus' does not take gamma; .* gamma is for epsilon-gamma-box",
        ),
        ({"trgt": 1}, "'epsilon-plus' does not take trgt; it takes epsilon$"),
    ],
)
def test_options_that_a_composite_does_not_take_are_refused(options, says):
    network = Network([("fc", Dense([[1.0, -2.0]]))], input_shape=(2,))
    with pytest.raises(LRPError, match=says):
        explain(network, np.ones((1, 2)), **options)
