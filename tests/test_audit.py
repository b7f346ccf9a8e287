"""The audit: where relevance went, in numbers that add up."""

import json

import h5py
import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from numpy.testing import assert_allclose
from strategies import linear_layers, numbers, sample, seeds

from numpylrp import Network, explain, fuse, save
from numpylrp.auditing import SINKS, audit, combined
from numpylrp.cli import main
from numpylrp.composite import Composite
from numpylrp.errors import LRPError
from numpylrp.layers import (
    LRN,
    Add,
    BatchNorm,
    Concatenate,
    Conv2D,
    Dense,
    Flatten,
    GlobalAveragePool,
    LayerNorm,
    LeakyReLU,
    MaxPool2D,
    Multiply,
    ReLU,
    ZeroPadding,
)
from numpylrp.planning import prepared
from numpylrp.rules import LRP0, AbsZ, AlphaBeta, Epsilon, Flat, Gamma, Rule, WSquare, ZBox, ZPlus

RULES = [
    LRP0(),
    Epsilon(0.3),
    Epsilon(0.2, relative=True),
    Gamma(0.25),
    AlphaBeta(2, 1),
    AlphaBeta(1.5, 0.5, epsilon=0.1),
    ZPlus(),
    ZPlus(bias=False),
    WSquare(),
    Flat(),
    ZBox(-9.0, 9.0),
    AbsZ(),
]


def adds_up(account):
    """Every row, and the whole, but for rounding: 1e-12 of the relevance that flowed."""
    flow = sum(row.absolute_sent + row.absolute_received for row in account.rows.values())
    for row in account.rows.values():
        assert (abs(row.rounding) <= 1e-12 * (row.absolute_sent + row.absolute_received)).all(), row
    assert (abs(account.rounding) <= 1e-12 * flow).all()


@given(case=linear_layers, rule=st.sampled_from(RULES), seed=seeds, positive=st.booleans())
def test_every_rule_on_every_linear_layer_adds_up(case, rule, seed, positive):
    layer, shape = case
    x, _, R = sample(layer, shape, seed, 2, positive)
    network = Network([("layer", layer)], shape)
    account = audit(
        network, np.clip(x, -9, 9), seed=R, composite=Composite(default=rule), normalization="linear"
    )
    adds_up(account)
    assert_allclose(account.seed, R.reshape(2, -1).sum(1), rtol=1e-12, atol=1e-12)


def residual(rng):
    """Convolutions, normalization, padding, pooling, branches of all kinds."""

    def w(*shape):
        return numbers(rng, *shape)

    def norm(n):
        return BatchNorm(w(n), w(n), w(n), rng.uniform(0.3, 2, n))

    return Network(
        [
            ("conv1", Conv2D(w(4, 2, 3, 3), w(4), padding=1)),
            ("bn1", norm(4)),
            ("relu1", ReLU()),
            ("bn2", norm(4)),
            ("relu2", ReLU()),
            ("pad", ZeroPadding(((0, 0), (1, 0), (0, 1)))),
            ("conv2", Conv2D(w(4, 4, 2, 2))),
            ("add", Add(), ("conv2", "relu1")),
            ("lrn", LRN(3, 0.5, 1.0, 1.0)),
            ("gate", Multiply(), ("lrn", "add")),
            ("cat", Concatenate(), ("gate", "relu1")),
            ("pool", MaxPool2D(2)),
            ("flat", Flatten()),
            ("norm", LayerNorm(w(32), w(32), 1e-3)),
            ("fc", Dense(w(3, 32), w(3))),
        ],
        (2, 4, 4),
    )


@given(
    seed=seeds,
    rule=st.sampled_from([r for r in RULES if not isinstance(r, ZBox)]),
    normalization=st.sampled_from(["fused", "linear", "identity", "abs-z"]),
)
def test_whole_networks_add_up(seed, rule, normalization):
    rng = np.random.default_rng(seed)
    network = residual(rng)
    x = numbers(rng, 3, 2, 4, 4)
    entries = [("LayerNorm", Epsilon(0.01)), ("LRN", Epsilon()), ("add", Epsilon(0.01))]
    composite = Composite(entries, rule)
    account = audit(network, x, composite=composite, normalization=normalization)
    adds_up(account)
    same = explain(network, x, composite=composite, normalization=normalization)
    assert_allclose(sum(account.inputs.values()), same.relevance.reshape(3, -1).sum(1), rtol=1e-9, atol=1e-9)
    for name, row in account.rows.items():
        assert_allclose(row.received, same.steps[name].received, rtol=1e-9, atol=1e-9)
    # in parts it is the same, unless rounding is all of a denominator or decides who wins
    values = prepared(network, composite, normalization)[0].record(x)
    assume(rule.epsilon or not any(((v != 0) & (abs(v) < 1e-12)).any() for v in values.values()))
    windows = values["cat"].reshape(3, 8, 2, 2, 2, 2).swapaxes(3, 4).reshape(3, 8, 4, 4)
    *_, second, first = np.moveaxis(np.sort(windows), -1, 0)
    assume(not ((first - second < 1e-9) & (first != 0)).any())
    parts = [audit(network, x[n : n + 1], composite=composite, normalization=normalization) for n in range(3)]
    put = combined(parts)
    for name, row in account.rows.items():
        for sink in SINKS:
            gross = 1e-9 * (1 + row.absolute_sent + row.absolute_received)
            assert (abs(put.rows[name].sinks[sink] - row.sinks[sink]) <= gross).all()


def one(layer, x, rule, R, **options):
    network = Network([("layer", layer)], np.shape(x)[1:])
    account = audit(network, x, seed=np.array(R, float), composite=rule, normalization="linear", **options)
    return account.rows["layer"], account.causes()


def shares(row):
    return {name: float(values[0]) for name, values in row.sinks.items() if values[0]}


def test_the_shares_by_hand():
    # z = 3*1 + 1*2 + 5 = 10, epsilon 10: d = 20, R = 8: a half is absorbed by epsilon, a quarter by the bias
    row, causes = one(Dense([[1.0, 2.0]], [5.0]), [[3.0, 1.0]], Epsilon(10.0), [[8.0]])
    assert shares(row) == {"bias": 2.0, "epsilon": 4.0} and row.sent[0] == 2.0
    assert causes == [
        "layer: the bias absorbs 25 % of what it receives.",
        "layer: epsilon absorbs 50 % of what it receives.",
    ]
    # nothing inhibits: alpha 2 doubles
    row, causes = one(Dense([[1.0, 2.0]]), [[3.0, 1.0]], AlphaBeta(2, 1), [[8.0]])
    assert shares(row) == {"rule": -8.0} and row.sent[0] == 16.0
    assert causes == ["layer: no inhibitory contributions: alpha scaling multiplies it by alpha."]
    # nothing excites: z+ drops it
    row, causes = one(Dense([[-1.0, 2.0]]), [[3.0, -1.0]], ZPlus(), [[8.0]])
    assert shares(row) == {"dropped": 8.0} and row.sent[0] == 0
    assert "100 % of what it receives is dropped" in causes[0]
    # 0/0: dropped
    row, _ = one(Dense([[1.0, -3.0]]), [[3.0, 1.0]], LRP0(), [[8.0]])
    assert shares(row) == {"dropped": 8.0}
    # z = 3 - 5 = -2: what the inputs get has the other sign, 3 / -2 * 8
    row, causes = one(Dense([[1.0]], [-5.0]), [[3.0]], LRP0(), [[8.0]])
    assert shares(row) == {"bias": 20.0} and row.sent[0] == -12.0
    assert row.spots["flips"] == (0, (0,), 8.0, -12.0, 20.0)
    assert any("the sign turns for 100 %" in c and "8 becomes -12" in c for c in causes)
    # z = 1 - 0.99 = 0.01: contributions of 100 R each way
    row, causes = one(Dense([[1.0, -1.0]]), [[1.0, 0.99]], LRP0(), [[1.0]])
    assert row.absolute_sent[0] == pytest.approx(199) and row.spots["explodes"][1] == (0,)
    assert any("relevance explodes, up to 199 times" in c and "unit (0,) of sample 0" in c for c in causes)
    # half of a flat layer's inputs are 0
    _, causes = one(Dense([[1.0, 2.0]]), [[3.0, 0.0]], Flat(), [[8.0]])
    assert causes == ["layer: 50 % of what it sends goes to inputs that are 0: the rule looks at weights."]


def test_words_follow_the_sign_of_relevance_and_do_not_cancel():
    # z = -2 - 1 = -3, R = -3: a third is absorbed, though its sign is that of what was given
    row, causes = one(Dense([[1.0, 1.0]], [-1.0]), [[-1.0, -1.0]], LRP0(), [[-3.0]])
    assert shares(row) == {"bias": -1.0} and causes == ["layer: the bias absorbs 33 % of what it receives."]
    # half of 3 and half of -3: nothing in the sum, but a half of what flows
    row, causes = one(Dense(np.ones((2, 2)), [2.0, 2.0]), [[1.0, 1.0]], LRP0(), [[3.0, -3.0]])
    assert not shares(row) and causes == ["layer: the bias absorbs 50 % of what it receives."]
    # no bias, nothing excites unit 1: alpha-beta sends -beta R
    _, causes = one(Dense([[1.0, 1.0], [-1.0, -1.0]]), [[1.0, 0.5]], AlphaBeta(2, 1), [[0.0, -1.5]])
    assert not any("bias" in c for c in causes) and any("What inhibits" in c for c in causes)
    # a bias may cancel a single contribution
    _, causes = one(Dense([[1.0]], [-1.0 + 1e-4]), [[1.0]], LRP0(), [[1.0]])
    assert any("absorbs" not in c and "adds 1e+04 times" in c for c in causes)


def test_clrp_says_what_the_heatmap_is():
    network = Network(
        [("fc1", Dense([[1.0, -1.0], [0.5, 1.0]])), ("relu", ReLU()), ("fc2", Dense(np.eye(2)))], (2,)
    )
    account = audit(network, [[2.0, 1.0]], 0, seed="clrp1", composite="z-plus")
    assert "positive part" in str(account)
    with pytest.raises(LRPError, match="clrp2 finds no difference"):
        explain(network, [[2.0, 1.0]], 0, seed="clrp2", composite="epsilon")


def test_padding_holds_what_reaches_it():
    network = Network([("pad", ZeroPadding(((0, 0), (1, 0)))), ("conv", Flatten())], (1, 1))
    account = audit(network, [[[2.0]]], seed=np.array([[3.0, 4.0]]))
    assert shares(account.rows["pad"]) == {"padding": 3.0} and account.inputs["input"][0] == 4.0
    assert "lies on the zeros around the image" in account.causes()[0]


def test_a_threshold_absorbs_as_a_bias():
    bn = BatchNorm([1.0, 1.0], [-1.0, 2.0], [0.0, 0.0], [1.0, 1.0], 0.0)
    network = Network([("bn", bn), ("relu", ReLU()), ("fc", Dense([[1.0, 1.0]]))], (2,))
    account = audit(network, [[0.5, 1.0]], composite=LRP0())
    assert [row.kind for row in account.rows.values()] == ["Dense", "Threshold"]
    adds_up(account)
    assert account.total("bias")[0] == pytest.approx(account.seed[0] - account.inputs["input"][0])


def test_branches_are_shown():
    network = Network([("a", Dense([[2.0]])), ("sum", Add(), ("a", "input"))], (1,))
    account = audit(network, [[3.0]], composite="epsilon")
    assert account.rows["sum"].branches["a"][0] == pytest.approx(6) and "  to input" in account.table()
    assert account.rows["sum"].branches["input"][0] == pytest.approx(3)


def test_a_pass_through_normalization_is_pointed_out():
    bn = BatchNorm([2.0], [1.0], [0.5], [4.0])
    network = Network([("bn", bn), ("fc", Dense([[1.0]]))], (1,))
    account = audit(network, [[3.0]], composite="epsilon", normalization="identity")
    assert any("passes normalization as if it were not there" in c for c in account.causes())


def test_a_rule_of_ones_own_is_accounted_for():
    class Half(Rule):
        def propagate(self, layer, R, x, y, note):
            return layer.adjoint(R, layer.weight, x.shape[1:]) / 2

    row, causes = one(Dense([[1.0]]), [[3.0]], Half(), [[8.0]])
    assert shares(row) == {"rule": 4.0} and causes == ["layer: the rule itself takes 50 %."]


def test_float32_adds_up_to_its_rounding():
    network = residual(np.random.default_rng(0)).astype(np.float32)
    account = audit(network, numbers(np.random.default_rng(1), 2, 2, 4, 4), composite=Epsilon(0.1))
    for row in account.rows.values():
        assert (abs(row.rounding) <= 1e-5 * (row.absolute_sent + row.absolute_received)).all()


def test_saved_numbers_add_up_too(tmp_path):
    network = residual(np.random.default_rng(0))
    account = audit(network, numbers(np.random.default_rng(1), 2, 2, 4, 4), composite=Epsilon(0.1))
    account.save(tmp_path / "audit.h5")
    with h5py.File(tmp_path / "audit.h5") as file:
        left = file["seed"][()] - file["inputs/input"][()]
        for group in file["layers"].values():
            left -= sum(group[name][()] for name in SINKS)
            assert group.attrs["name"] in account.rows
        assert_allclose(left, 0, atol=1e-9)
        assert json.loads(file["causes"][()]) == account.causes()


def test_on_the_command_line(tmp_path, capsys):
    rng = np.random.default_rng(0)
    network = Network(
        [("conv", Conv2D(rng.standard_normal((2, 1, 3, 3)), [1.0, 2.0])), ("flat", Flatten()),
         ("fc", Dense(rng.standard_normal((3, 32)), [5.0, 0.0, 1.0]))],
        (1, 6, 6),
    )  # fmt: skip
    save(network, tmp_path / "net.h5")
    np.savez(tmp_path / "x.npz", x=rng.standard_normal((70, 1, 6, 6)), labels=np.arange(70) % 3)
    args = ["audit", str(tmp_path / "net.h5"), str(tmp_path / "x.npz")]
    assert main([*args, "--target", "true", "--out", str(tmp_path / "out")]) == 0
    printed = capsys.readouterr().out
    assert "70 samples; mean over samples" in printed and "fc: the bias" in printed
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == [
        "audit.h5",
        "audit.png",
        "audit_table.txt",
    ]
    expected = audit(network, np.load(tmp_path / "x.npz")["x"], (np.arange(70) % 3).tolist())
    with h5py.File(tmp_path / "out" / "audit.h5") as file:
        assert_allclose(file["seed"][()], expected.seed, rtol=1e-12)
    assert main([*args, "--sample", "3", "--first", "5"]) == 0
    assert capsys.readouterr().out.startswith("sample 3")
    assert main([*args, "--sample", "70"]) == 1
    assert main([*args, "--dataset", "nothing"]) == 1


def test_fusing_is_called_exact_only_where_fuse_does_it():
    rng = np.random.default_rng(0)
    norm = BatchNorm([2.0, -1.0], [1.0, 0.5], [0.0, 1.0], [1.0, 4.0])
    conv = Conv2D(rng.standard_normal((2, 2, 1, 1)))
    x = rng.standard_normal((1, 2, 3, 3))
    for activation, exact in ((ReLU(), True), (LeakyReLU(), False)):
        layers = [
            ("in", ReLU()),
            ("bn", norm),
            ("act", activation),
            ("conv", conv),
            ("gap", GlobalAveragePool()),
        ]
        net = Network(layers, (2, 3, 3))
        causes = audit(net, x, 0, normalization="identity").causes()
        (text,) = [c for c in causes if c.startswith("bn: ") and "as if it were not there" in c]
        assert text.endswith("; fusing it is exact.") == exact == fuse(net)[1].exact
