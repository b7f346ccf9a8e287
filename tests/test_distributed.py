"""A layer for every step is that layer, step by step."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal
from strategies import linear_layers, numbers, seeds
from test_audit import adds_up
from test_native import same

from numpylrp import Composite, Network, explain, load, save
from numpylrp.auditing import audit
from numpylrp.errors import FileError, LRPError, ShapeError
from numpylrp.evaluate.gradients import backward
from numpylrp.layers import Add, Conv1D, GlobalMaxPool, LayerNorm, MaxPool1D, ReLU, TimeDistributed
from numpylrp.rules import AlphaBeta, Epsilon, Flat, Gamma, ZPlus

RULES = st.sampled_from([Epsilon(0.1), Gamma(0.25), AlphaBeta(2.0, 1.0), ZPlus(), Flat()])


@given(case=linear_layers, rule=RULES, seed=seeds, length=st.integers(1, 3))
def test_every_step_by_itself(case, rule, seed, length):
    inner, shape = case
    layer, rng = TimeDistributed(inner), np.random.default_rng(seed)
    x = numbers(rng, 2, length, *shape)
    y = layer.forward(x)
    R = numbers(rng, *y.shape)
    sent, g = layer.relprop(R, x, y, rule), backward(layer, R, x, y)
    for t in range(length):
        alone = inner.forward(x[:, t])
        assert_allclose(y[:, t], alone, rtol=1e-12, atol=1e-13)
        want = inner.relprop(R[:, t], x[:, t], alone, rule)
        assert_allclose(sent[:, t], want, rtol=1e-10, atol=1e-12 * (1 + abs(want).max()))
        want = backward(inner, R[:, t], x[:, t], alone)
        assert_allclose(g[:, t], want, rtol=1e-10, atol=1e-12 * (1 + abs(want).max()))
    adds_up(audit(Network([("l", layer)], x.shape[1:]), x, seed=R, composite=Composite(default=rule)))


def network():
    rng = np.random.default_rng(0)
    return Network(
        [
            ("conv", TimeDistributed(Conv1D(numbers(rng, 4, 2, 3), numbers(rng, 4)))),
            ("relu", TimeDistributed(ReLU())),
            ("pool", TimeDistributed(MaxPool1D(2))),
            ("norm", TimeDistributed(LayerNorm(numbers(rng, 2)))),
            ("max", TimeDistributed(GlobalMaxPool())),
        ],
        (None, 2, 6),
    )


def test_families_presets_and_files(tmp_path):
    net = network()
    rules = Composite([("conv", ZPlus()), ("norm", Epsilon(0.1))]).rules(net)
    assert rules == {"conv": ZPlus(), "norm": Epsilon(0.1)}
    save(net, tmp_path / "net.h5")
    again = load(tmp_path / "net.h5", dtype=None)
    same(net, again)
    x = np.random.default_rng(1).standard_normal((2, 3, 2, 6))
    a, b = (explain(n, x, seed="all").relevance for n in (net, again))
    assert_array_equal(a, b)
    assert explain(net.astype(np.float32), x, seed="all").relevance.dtype == np.float32


def test_what_is_wrong_is_named(tmp_path):
    import json

    import h5py

    with pytest.raises(LRPError, match="layer must be a layer with one input"):
        TimeDistributed(Add())
    with pytest.raises(ShapeError, match=r"takes samples \(T, ...\)"):
        TimeDistributed(ReLU()).forward(np.ones((2, 3)))
    save(network(), tmp_path / "net.h5")
    for wrong in ({"kind": "Nothing", "options": {}}, {"kind": "TimeDistributed", "options": {}}, 3):
        with h5py.File(tmp_path / "net.h5", "r+") as file:
            file["layers/0001"].attrs["options"] = json.dumps({"layer": wrong})
        with pytest.raises(FileError, match=r"'relu' .*holds no layer that is known"):
            load(tmp_path / "net.h5")
