"""Conventions by name: zennit and captum as they run, others as they are written, and the size of each."""

import numpy as np
import pytest
import twins
from numpy.testing import assert_allclose

from numpylrp import Network
from numpylrp.errors import LRPError, UnsupportedError
from numpylrp.explanation import explain
from numpylrp.layers import (
    Add,
    AveragePool2D,
    BatchNorm,
    Conv2D,
    Dense,
    Flatten,
    GlobalMaxPool,
    LayerNorm,
    Maximum,
    MaxPool1D,
    MaxPool2D,
    ReLU,
)
from numpylrp.rules import LRP0, AbsZ, AlphaBeta, Epsilon, Flat, Gamma, Pass, WSquare, ZBox, ZPlus
from numpylrp.validate.conventions import (
    CONVENTIONS,
    Case,
    cases,
    convention,
    deviations,
    table,
    translated,
)
from numpylrp.validate.variants import Ties, squared_variance

RULES = {
    "lrp-0": LRP0(),
    "epsilon": Epsilon(0.25),
    "gamma": Gamma(0.5),
    "z+": ZPlus(),
    "alpha2-beta1": AlphaBeta(2.0, 1.0),
    "w^2": WSquare(),
    "flat": Flat(),
    "z^B": ZBox(-4.0, 4.0),
}


def one_layer(kind):
    """A layer alone, its input of mixed signs, and relevance of its output."""
    r = np.random.default_rng(4)
    layer, shape = {
        "dense": (Dense(r.standard_normal((4, 6)), r.standard_normal(4)), (6,)),
        "conv": (Conv2D(r.standard_normal((3, 2, 3, 3)), r.standard_normal(3), padding=1), (2, 5, 4)),
        "pool": (AveragePool2D(2), (2, 4, 4)),
        "norm": (BatchNorm(*r.standard_normal((3, 2)), r.uniform(0.5, 2, 2)), (2, 3, 3)),
        "max": (MaxPool2D(2), (2, 4, 4)),
    }[kind]
    x = np.round(r.standard_normal((2, *shape)), 1)
    y = layer.forward(x)
    return layer, x, y, r.standard_normal(y.shape)


def as_torch(kind, layer, torch):
    module = {
        "dense": lambda: torch.nn.Linear(6, 4),
        "conv": lambda: torch.nn.Conv2d(2, 3, 3, padding=1),
        "pool": lambda: torch.nn.AvgPool2d(2),
        "norm": lambda: torch.nn.BatchNorm2d(2),
        "max": lambda: torch.nn.MaxPool2d(2),
    }[kind]()
    names = {"weight": "weight", "bias": "bias"}
    if kind == "norm":
        names = {"weight": "gamma", "bias": "beta", "running_mean": "mean", "running_var": "variance"}
    for theirs, ours in names.items() if kind not in ("pool", "max") else ():
        getattr(module, theirs).data = torch.tensor(getattr(layer, ours))
    return torch.nn.Sequential(module).double().eval()


@pytest.mark.parametrize("name", RULES)
@pytest.mark.parametrize("kind", ["dense", "conv", "pool"])
def test_zennit_as_it_runs(kind, name):
    torch, zr = pytest.importorskip("torch"), pytest.importorskip("zennit.rules")
    layer, x, y, R = one_layer(kind)
    rule = RULES[name]
    theirs = {
        "lrp-0": lambda: zr.Epsilon(0.0),
        "epsilon": lambda: zr.Epsilon(0.25),
        "gamma": lambda: zr.Gamma(0.5),
        "z+": lambda: zr.ZPlus(),
        "alpha2-beta1": lambda: zr.AlphaBeta(2.0, 1.0),
        "w^2": lambda: zr.WSquare(),
        "flat": lambda: zr.Flat(),
        "z^B": lambda: zr.ZBox(torch.tensor(-4.0).double(), torch.tensor(4.0).double()),
    }[name]()
    if kind == "pool" and name == "z^B":
        pytest.skip("z^B on a pooling is nothing that anybody asks for")
    model = as_torch(kind, layer, torch)
    handles = theirs.register(model[0])
    given = torch.from_numpy(x).requires_grad_()
    (found,) = torch.autograd.grad(model(given), given, torch.from_numpy(R))
    handles.remove()
    ours = layer.relprop(R, x, y, CONVENTIONS["zennit"].translate(layer, rule))
    assert_allclose(ours, found.numpy(), rtol=1e-9, atol=1e-12 * abs(ours).max())


def test_zennit_drops_gamma_at_0():
    torch, zr = pytest.importorskip("torch"), pytest.importorskip("zennit.rules")
    case = next(c for c in cases() if c.row == "Gamma" and c.column == "z = 0")
    module = torch.nn.Linear(5, 3).double()
    module.weight.data, module.bias.data = map(torch.tensor, (case.layer.weight, case.layer.bias))
    theirs = zr.Gamma(0.25)
    handles = theirs.register(module)
    given = torch.from_numpy(case.x).requires_grad_()
    output = module(given)
    assert (output == 0).any()
    (found,) = torch.autograd.grad(output, given, torch.from_numpy(case.R))
    handles.remove()
    y = case.layer.forward(case.x)
    rule = CONVENTIONS["zennit"].translate(case.layer, case.rule)
    assert_allclose(case.layer.relprop(case.R, case.x, y, rule), found.numpy(), rtol=1e-9, atol=1e-12)


@pytest.mark.filterwarnings("ignore:Input Tensor")
@pytest.mark.parametrize("kind", ["dense", "conv", "pool", "norm", "max"])
@pytest.mark.parametrize("name", ["epsilon", "gamma", "z+"])
def test_captum_as_it_runs(kind, name):
    torch = pytest.importorskip("torch")
    pytest.importorskip("captum")
    from captum.attr import LRP
    from captum.attr._utils.lrp_rules import Alpha1_Beta0_Rule, EpsilonRule, GammaRule

    layer, x, y, _ = one_layer(kind)
    rule = RULES[name]
    if kind in ("norm", "max") and name != "epsilon":
        pytest.skip("captum itself warns of it")
    theirs = {"epsilon": EpsilonRule(0.25), "gamma": GammaRule(gamma=0.5), "z+": Alpha1_Beta0_Rule()}[name]
    model = as_torch(kind, layer, torch)
    model[0].rule = EpsilonRule() if kind == "max" else theirs
    target = (0,) * (y.ndim - 1)
    R = np.zeros_like(y)
    R[(slice(None), *target)] = y[(slice(None), *target)]
    target = target if len(target) > 1 else 0
    found = LRP(model).attribute(torch.from_numpy(x), target=target).detach().numpy()
    how = CONVENTIONS["captum"]
    if kind == "max":
        ours = how.layer(layer).relprop(R, x, y)
    else:
        ours = layer.relprop(R, x, y, how.translate(layer, rule))
    assert_allclose(ours, found, rtol=1e-9, atol=1e-12 * abs(ours).max())


@pytest.mark.filterwarnings("ignore:Input Tensor")
def test_captum_drops_a_maximum_of_0():
    torch = pytest.importorskip("torch")
    pytest.importorskip("captum")
    from captum.attr import LRP

    x = torch.tensor([[[[0.0, -1.0], [-2.0, -3.0]]]]).double()
    model = torch.nn.Sequential(torch.nn.MaxPool2d(2), torch.nn.AvgPool2d(1)).eval()
    assert not LRP(model).attribute(x, target=(0, 0, 0)).any()
    layer, y = CONVENTIONS["captum"].layer(MaxPool2D(2)), np.zeros((1, 1, 1, 1))
    assert not layer.relprop(np.ones_like(y), x.numpy(), y).any()


# ---------------------------------------------------------------- others, by sums written out


def dense_case():
    layer, x, y, R = one_layer("dense")
    return layer, x, y, R, layer.weight.T, layer.bias


def of(name, layer, rule, R, x, y):
    return layer.relprop(R, x, y, CONVENTIONS[name].translate(layer, rule))


def test_innvestigate_puts_the_bias_in_both_denominators():
    layer, x, y, R, W, b = dense_case()
    ours = of("innvestigate", layer, AlphaBeta(2, 1), R, x, y)
    for n in range(2):
        c = twins.contributions(x[n], W)
        up, down = c * (c > 0), c * (c < 0)
        expected = 2 * twins._share(R[n], up, up.sum(0) + b) - twins._share(R[n], down, down.sum(0) + b)
        assert_allclose(ours[n], expected, rtol=1e-9)


def test_innvestigate_batch_norm():
    layer, x, y, R = one_layer("norm")
    mean, beta = layer.mean[:, None, None], layer.beta[:, None, None]
    z = (x - mean) * y
    expected = x * (y - beta) * R / (z + 1e-7 * np.where(z >= 0, 1, -1))
    assert_allclose(of("innvestigate", layer, Epsilon(), R, x, y), expected, rtol=1e-9)
    d = np.sqrt(layer.variance**2 + layer.eps)[:, None, None]
    gx, shift = layer.gamma[:, None, None] / d * x, beta - mean / d
    expected = np.where(gx > 0, gx / (np.maximum(gx, 0) + shift), 0) * R
    ours = of("innvestigate", layer, AlphaBeta(1, 0), R, x, y)
    assert_allclose(ours, expected, rtol=1e-9, atol=1e-12)


def test_torchlrp():
    layer, x, y, R, W, b = dense_case()
    z = x @ W + b
    expected = x * ((R / (z + 0.1 * np.where(z > 0, 1, -1))) @ W.T)
    assert_allclose(of("TorchLRP", layer, Epsilon(), R, x, y), expected, rtol=1e-9)
    f = lambda w: w + w * np.maximum(w, 0) * 0.1  # noqa: E731
    expected = x * ((R / (x @ f(W) + f(b) + 0)) @ f(W).T)
    assert_allclose(of("TorchLRP", layer, Gamma(0.1), R, x, y), expected, rtol=1e-7)
    ours = of("TorchLRP", layer, AlphaBeta(2, 1), R, x, y)
    expected = [twins.alpha_beta(x[n], W, 0 * b, R[n], 2, 1) for n in range(2)]
    assert_allclose(ours, expected, rtol=1e-9)
    conv, *_ = one_layer("conv")
    CONVENTIONS["TorchLRP"].translate(conv, Epsilon())
    with pytest.raises(UnsupportedError, match="TorchLRP"):
        CONVENTIONS["TorchLRP"].translate(Conv2D(conv.weight), Epsilon())


def test_lxt_has_no_sign():
    layer, x, y, R, W, b = dense_case()
    expected = x * ((R / (x @ W + b + 1e-6)) @ W.T)
    assert_allclose(of("LXT", layer, Epsilon(), R, x, y), expected, rtol=1e-9)


def test_lrp_toolbox_has_r_twice():
    layer, x, y, R = one_layer("pool")
    ours = of("lrp_toolbox", layer, AlphaBeta(2, 1), R, x, y)
    expected = np.zeros_like(x)
    for n, c, i, j in np.ndindex(*y.shape):
        window = (n, c, slice(2 * i, 2 * i + 2), slice(2 * j, 2 * j + 2))
        v, r = x[window], R[n, c, i, j]
        up, down = np.maximum(v, 0), np.minimum(v, 0)
        expected[window] += 2 * up * r / (up.sum() + 1e-16) - down * r * r / (down.sum() - 1e-16)
    assert_allclose(ours, expected, rtol=1e-9)


def test_rap():
    layer, x, y, R, W, _ = dense_case()
    ours, expected = of("RAP", layer, ZPlus(), R, x, y), 0
    for half, w in ((np.maximum(x, 0), np.maximum(W, 0)), (np.minimum(x, 0), np.minimum(W, 0))):
        z = half @ w
        s = R / (z + 1e-9 * (z == 0)) * (z != 0)  # as its safe_divide
        expected = expected + half * (s @ w.T)
    assert_allclose(ours, expected, rtol=1e-9)
    norm, x, y, R = one_layer("norm")
    x[0, 0, 0, 0] = 0.3
    assert_allclose(of("RAP", norm, ZPlus(), R, x, y)[x != 0], R[x != 0], rtol=1e-6)
    colour = Conv2D(np.random.default_rng(0).standard_normal((2, 3, 2, 2)))
    x = np.random.default_rng(1).standard_normal((1, 3, 3, 3))
    y = colour.forward(x)
    theirs = of("RAP", colour, ZPlus(), y, x, y)
    assert_allclose(theirs, colour.relprop(y, x, y, ZBox(x.min(), x.max())), rtol=1e-6)


# ---------------------------------------------------------------- ties


@pytest.mark.parametrize("how", ["all", "equal", "last"])
def test_ties_by_loops(how):
    rng = np.random.default_rng(0)
    x = np.round(rng.standard_normal((2, 2, 5, 5)))
    layer = MaxPool2D(3, 2, 1, sign=[1, -1])
    y, R = layer.forward(x), rng.standard_normal((2, 2, 3, 3))
    expected = np.zeros((2, 2, 7, 7))
    padded = np.pad(
        x * np.array([1, -1])[:, None, None], ((0, 0), (0, 0), (1, 1), (1, 1)), constant_values=-np.inf
    )
    for n, c, i, j in np.ndindex(*y.shape):
        window = padded[n, c, 2 * i : 2 * i + 3, 2 * j : 2 * j + 3]
        hits = np.argwhere(window == window.max())
        for a, b in hits[-1:] if how == "last" else hits:
            expected[n, c, 2 * i + a, 2 * j + b] += R[n, c, i, j] / (len(hits) if how == "equal" else 1)
    assert_allclose(Ties(layer, how).relprop(R, x, y), expected[..., 1:-1, 1:-1], atol=1e-12)


def test_ties_of_other_maxima():
    R = np.array([[6.0]])
    x = np.array([[[1.0, 3.0, 3.0]]])
    for layer in (GlobalMaxPool(), MaxPool1D(3)):
        y = layer.forward(x)
        r = R.reshape(y.shape)
        assert_allclose(Ties(layer, "equal").relprop(r, x, y), [[[0, 3, 3]]])
        assert_allclose(Ties(layer, "all").relprop(r, x, y), [[[0, 6, 6]]])
        assert_allclose(Ties(layer, "last").relprop(r, x, y), [[[0, 0, 6]]])
    branches = (np.array([[3.0]]), np.array([[3.0]]))
    shares = Ties(Maximum(), "last").relprop(R, branches, Maximum().forward(branches))
    assert [float(s[0, 0]) for s in shares] == [0.0, 6.0]


# ---------------------------------------------------------------- the presets as a whole


def network():
    r = np.random.default_rng(6)
    return Network(
        [
            ("conv", Conv2D(r.standard_normal((3, 2, 3, 3)), r.standard_normal(3), padding=1)),
            ("relu", ReLU()),
            ("pool", AveragePool2D(2)),
            ("flatten", Flatten()),
            ("fc", Dense(r.standard_normal((3, 12)), r.standard_normal(3))),
        ],
        input_shape=(2, 4, 4),
    )


def test_our_own_convention_changes_nothing():
    rules = {"conv": Gamma(0.5), "pool": Epsilon(), "fc": ZPlus()}
    assert translated(network(), rules, "numpylrp") == rules
    assert all(not d.size for d in deviations(conventions=["numpylrp"]))


@pytest.mark.parametrize("name", CONVENTIONS)
def test_translations_run_in_a_network(name):
    from numpylrp import Composite

    rules = {"conv": ZPlus(), "pool": Epsilon(), "fc": Epsilon()}
    if name == "RAP":
        rules["fc"] = ZPlus()
    if name == "lrp_toolbox":
        with pytest.raises(UnsupportedError, match="layer 'conv': lrp_toolbox 2022 has no ZPlus"):
            translated(network(), rules, name)
        return
    if name == "LXT":
        with pytest.raises(UnsupportedError, match="LXT 2 has no ZPlus"):
            translated(network(), rules, name)
        rules["conv"] = Epsilon()
    theirs = translated(network(), rules, name)
    x = np.random.default_rng(0).uniform(0.1, 1, (2, 2, 4, 4))
    found = explain(network(), x, 0, composite=Composite(list(theirs.items())))
    assert np.isfinite(found.relevance).all()
    assert all(str(rule) for rule in theirs.values())


def test_an_epsilon_that_was_asked_for_is_kept():
    dense = Dense([[1.0]])
    assert CONVENTIONS["captum"].translate(dense, Epsilon()) == Epsilon(1e-9)
    assert CONVENTIONS["captum"].translate(dense, Epsilon(0.25)) == Epsilon(0.25)
    assert CONVENTIONS["zennit"].translate(dense, ZPlus(epsilon=0.5)) == ZPlus(epsilon=0.5)


def test_what_a_library_does_not_have_is_refused():
    dense = Dense([[1.0]], [1.0])
    for name, rule in (
        ("captum", WSquare()),
        ("captum", AlphaBeta()),
        ("captum", Epsilon(relative=True)),
        ("innvestigate", Gamma()),
        ("lrp_toolbox", ZBox(0, 1)),
        ("LXT", Gamma()),
        ("TorchLRP", Flat()),
        ("RAP", Epsilon()),
        ("zennit", AbsZ()),
    ):
        with pytest.raises(UnsupportedError, match=name):
            CONVENTIONS[name].translate(dense, rule)
    with pytest.raises(UnsupportedError, match="LayerNorm"):
        CONVENTIONS["zennit"].translate(LayerNorm(), Epsilon())
    with pytest.raises(LRPError, match="there are numpylrp, zennit, captum"):
        convention("unknown")
    assert isinstance(CONVENTIONS["zennit"].translate(dense, Pass()), Pass)


def test_each_deviation_has_its_size():
    sizes = {(d.library, d.row, d.column): d.size for d in deviations()}
    assert sizes["captum", "Gamma", "mixed x"] > 1e-2 and sizes["captum", "ZPlus", "mixed x"] > 1e-2
    assert sizes["zennit", "WSquare", "x >= 0"] > 1e-2
    assert sizes["zennit", "Gamma", "z = 0"] > 0.1 > 1e-5 > sizes["zennit", "Gamma", "mixed x"]
    assert sizes["zennit", "ZPlus", "mixed x"] < 1e-5
    assert sizes["innvestigate", "AlphaBeta", "mixed x"] > 1e-2
    assert sizes["lrp_toolbox", "MaxPool2D, ties", "x >= 0"] == 0.75
    assert sizes["LXT", "Gamma", "x >= 0"] is None
    for name, how in CONVENTIONS.items():
        if name == "numpylrp":
            continue
        for row, note in how.notes.items():
            found = [v for (own, r, _), v in sizes.items() if own == name and r.split(",")[0] == row and v]
            assert found or row == "Conv2D" or (name, row) == ("zennit", "Epsilon"), (name, row, note)


def test_cases_are_well_conditioned():
    for case in cases():
        if isinstance(case.layer, Dense):
            z = abs(case.layer.forward(case.x))
            assert ((z == 0) | (z > 0.05)).all() and (z == 0).any() == (case.column == "z = 0")


def test_the_table_says_it():
    text = table()
    assert "b^2 in the denominator" in text
    assert not any(line.startswith("numpylrp") for line in text.splitlines())
    case = Case("Add", "here", Add(), (np.ones((1, 2)), np.ones((1, 2))), np.ones((1, 2)), Epsilon(0.0))
    assert table(deviations([case], ["captum"])).splitlines()[1].split() == ["captum", "Add", "0"]


def test_squared_variance():
    layer, *_ = one_layer("norm")
    assert_allclose(
        squared_variance(layer).scale_and_shift()[0], layer.gamma / np.sqrt(layer.variance**2 + 1e-5)
    )
