"""Normalization by the sample's own statistics, against its definition and PyTorch."""

import itertools

import numpy as np
import pytest
import twins
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose
from strategies import seeds

from numpylrp import Composite, Network, explain, fuse
from numpylrp.errors import LRPError, ShapeError
from numpylrp.layers import (
    GELU,
    LRN,
    Add,
    AveragePool2D,
    BatchNorm,
    Concatenate,
    Conv2D,
    Dense,
    Flatten,
    GlobalAveragePool,
    GroupNorm,
    Identity,
    InstanceNorm,
    LayerNorm,
    MaxPool2D,
    ReLU,
    RMSNorm,
    UnitNorm,
)
from numpylrp.rules import LRP0, AlphaBeta, Epsilon, Flat, Gamma, Pass, ZPlus

# ---------------------------------------------------------------- by definition


def groups_of(layer, shape):
    """Which values are normalized together: lists of positions of the flattened sample."""
    index = np.arange(np.prod(shape)).reshape(shape)
    if isinstance(layer, InstanceNorm):
        return [c.ravel() for c in index]
    if isinstance(layer, GroupNorm):
        return [part.ravel() for part in np.split(index, layer.groups)]
    axes = sorted(a % len(shape) for a in layer.axes)
    rest = [a for a in range(len(shape)) if a not in axes]
    moved = index.transpose(*rest, *axes).reshape(-1, np.prod([shape[a] for a in axes]))
    return list(moved)


def definition(layer, x):
    """Output and the matrix with the denominators held constant, of one sample, value by value."""
    shape, flat = x.shape, x.ravel()
    y, M = np.zeros_like(flat), np.zeros((flat.size, flat.size))
    for group in groups_of(layer, shape):
        values, n = flat[group], len(group)
        if isinstance(layer, UnitNorm):
            mean, d = 0.0, max(np.sqrt((values**2).sum()), layer.eps)
        elif isinstance(layer, RMSNorm):
            mean, d = 0.0, np.sqrt((values**2).mean() + layer.eps)
        else:
            mean = values.sum() / n
            d = np.sqrt(((values - mean) ** 2).sum() / n + layer.eps)
        y[group] = (values - mean) / d
        centre = np.zeros((n, n)) if isinstance(layer, (RMSNorm, UnitNorm)) else np.full((n, n), 1 / n)
        M[np.ix_(group, group)] = (np.eye(n) - centre) / d
    gamma, beta = np.ones(shape), np.zeros(shape)
    for name, target in (("gamma", gamma), ("beta", beta)):
        value = getattr(layer, name, None)
        if value is not None:
            if isinstance(layer, GroupNorm):
                target[:] = value.reshape(-1, *(1,) * (len(shape) - 1))
            else:
                axes = sorted(a % len(shape) for a in layer.axes)
                target[:] = value.reshape([n if a in axes else 1 for a, n in enumerate(shape)])
    gamma, beta = gamma.ravel(), beta.ravel()
    return y * gamma + beta, M * gamma, beta


@st.composite
def norms(draw):
    rng = np.random.default_rng(draw(seeds))
    kind = draw(st.sampled_from([LayerNorm, GroupNorm, InstanceNorm, RMSNorm, UnitNorm]))
    shape = draw(st.sampled_from([(4, 3), (4, 2, 3)]))
    learn = draw(st.booleans())
    if issubclass(kind, GroupNorm):
        learned = rng.standard_normal((2, 4)) if learn else (None, None)
        groups = () if kind is InstanceNorm else (draw(st.sampled_from([1, 2, 4])),)
        named = dict(zip(("gamma", "beta"), learned))
        return kind(*groups, **named, eps=0.1), shape
    axes = draw(st.sampled_from([-1, 0, (-2, -1), (0, 1)]))
    if kind is UnitNorm:
        return UnitNorm(axes=axes), shape
    picked = [
        shape[a] for a in sorted(a % len(shape) for a in (axes if isinstance(axes, tuple) else (axes,)))
    ]
    gamma, beta = rng.standard_normal((2, *picked)) if learn else (None, None)
    if kind is RMSNorm:
        return RMSNorm(gamma, 0.1, axes), shape
    return LayerNorm(gamma, beta, 0.1, axes), shape


@given(case=norms(), seed=seeds, eps=st.sampled_from([0.0, 0.3]))
def test_forward_and_epsilon_rule_by_definition(case, seed, eps):
    layer, shape = case
    rng = np.random.default_rng(seed)
    x, R = rng.standard_normal((3, *shape)) + 1, rng.standard_normal((3, *shape))
    y = layer.forward(x)
    ours = layer.relprop(R, x, y, Epsilon(eps))
    for n in range(3):
        out, M, beta = definition(layer, x[n])
        assert_allclose(y[n].ravel(), out, rtol=1e-10, atol=1e-12)
        expected = twins.epsilon(x[n].ravel(), M, beta, R[n].ravel(), eps)
        assert_allclose(ours[n].ravel(), expected, rtol=1e-9, atol=1e-10 * (1 + abs(expected).max()))
    assert layer.forward(x.astype(np.float32)).dtype == (np.float32 if not layer.arrays() else np.float64)
    assert layer.astype(np.float32).forward(x.astype(np.float32)).dtype == np.float32


@pytest.mark.parametrize("layer", [RMSNorm(np.array([2.0, -1.0, 0.5])), UnitNorm()], ids=repr)
def test_without_mean_and_shift_relevance_passes_unchanged(layer):
    rng = np.random.default_rng(0)
    x, R = rng.standard_normal((4, 3)), rng.standard_normal((4, 3))
    assert_allclose(layer.relprop(R, x, layer.forward(x), LRP0()), R, rtol=1e-12)


def test_identity_is_a_choice():
    rng = np.random.default_rng(0)
    network = Network(
        [("norm", LayerNorm(rng.standard_normal(3), None)), ("fc", Dense(np.ones((1, 3))))], (3,)
    )
    x = rng.standard_normal((2, 3))
    e = explain(network, x, composite=Composite([("LayerNorm", Pass())]), trace=True, normalization="linear")
    assert (e["norm"]["R_x"] == e["norm"]["R"]).all()


@pytest.mark.parametrize("rule", [Gamma(), ZPlus(), AlphaBeta(), Flat()], ids=str)
def test_other_rules_are_refused(rule):
    network = Network([("norm", LayerNorm(np.ones(3)))], (3,))
    with pytest.raises(LRPError, match=r"layer 'norm' \(LayerNorm\): LayerNorm takes the epsilon rule"):
        explain(network, np.array([[1.0, 2.0, 4.0]]), composite=rule, normalization="linear")


@pytest.mark.parametrize("preset", ["epsilon-plus", "z-plus", "deep-taylor", "excitation-backprop"])
def test_presets_take_them(preset):
    rng = np.random.default_rng(0)
    network = Network(
        [("a", Dense(rng.standard_normal((4, 3)))), ("norm", LayerNorm()), ("relu", ReLU())], (3,)
    )
    assert explain(network, rng.standard_normal((2, 3)), composite=preset)["norm"].rule == "Epsilon(1e-06)"


@pytest.mark.parametrize(
    ("make", "shape", "says"),
    [
        (lambda: LayerNorm(np.ones(3)), (4,), r"gamma has shape \(3,\), but the input \(4,\)"),
        (lambda: LayerNorm(axes=2), (4,), "axis 2 is not an axis"),
        (lambda: GroupNorm(3), (4, 2), "can't be cut into 3 groups"),
        (lambda: GroupNorm(0), (4, 2), "groups must be an integer of at least 1"),
        (lambda: LayerNorm(axes="x"), (4,), "axes must be one or more integers"),
        (lambda: LayerNorm(eps=-1), (4,), "eps must be a number of at least 0"),
        (lambda: LRN(0), (4, 2), "size must be an integer of at least 1"),
        (lambda: LRN(3, alpha=-1.0), (4, 2), "alpha and k must be at least 0"),
        (lambda: LRN(3, within=True), (4,), "needs samples"),
        (lambda: LRN(3, before=3), (4,), "before must be 0 .. 2"),
    ],
)
def test_bad_parameters_are_refused(make, shape, says):
    with pytest.raises((LRPError, ShapeError), match=says):
        make().output_shape(shape)


def test_forward_equals_pytorch():
    torch = pytest.importorskip("torch", reason="PyTorch is not installed")
    F = torch.nn.functional
    rng = np.random.default_rng(0)
    x, g, b = rng.standard_normal((2, 4, 3, 5)), rng.standard_normal(4), rng.standard_normal(4)
    t, tg, tb = map(torch.tensor, (x, g, b))
    w, v = rng.standard_normal((2, 3, 5))
    cases = [
        (LayerNorm(w, v, 1e-3, (-2, -1)), F.layer_norm(t, (3, 5), torch.tensor(w), torch.tensor(v), 1e-3)),
        (GroupNorm(2, g, b, 1e-3), F.group_norm(t, 2, tg, tb, 1e-3)),
        (InstanceNorm(gamma=g, beta=b, eps=1e-3), F.instance_norm(t, weight=tg, bias=tb, eps=1e-3)),
        (RMSNorm(w[0], 1e-3), F.rms_norm(t, (5,), torch.tensor(w[0]), 1e-3)),
        (UnitNorm(axes=0), F.normalize(t, dim=1)),
        (LRN(3, 0.5, 0.75, 2.0), F.local_response_norm(t, 3, 0.5, 0.75, 2.0)),
        (LRN(4, 0.5, 0.6, 1.0), F.local_response_norm(t, 4, 0.5, 0.6, 1.0)),
    ]
    for layer, expected in cases:
        assert_allclose(layer.forward(x), expected.numpy(), rtol=1e-10, atol=1e-12, err_msg=repr(layer))


# ---------------------------------------------------------------- local response normalization


def neighbours(layer, shape, k):
    """The positions in the window of position k, its own included."""
    before = layer.size // 2 if layer.before is None else layer.before
    reach = range(-before, layer.size - before)
    steps = product_of(layer, reach, len(shape))
    for step in steps:
        j = tuple(a + b for a, b in zip(k, step))
        if all(0 <= a < n for a, n in zip(j, shape)):
            yield j


def product_of(layer, reach, rank):
    if layer.within:
        return [(0, *s) for s in itertools.product(reach, repeat=rank - 1)]
    return [(n, *(0,) * (rank - 1)) for n in reach]


def lrn_by_definition(layer, x):
    """Output, and contributions z[i, k] of input i to unit k (Binder et al. 2016), of one sample."""
    count = layer.size ** (x.ndim - 1) if layer.within else layer.size
    a, b, k0 = (layer.alpha / count if layer.average else layer.alpha), layer.beta, layer.k
    y, z = np.zeros_like(x), np.zeros((x.size, x.size))
    number = np.arange(x.size).reshape(x.shape)
    for k in np.ndindex(*x.shape):
        window = list(neighbours(layer, x.shape, k))
        total = k0 + a * sum(x[j] ** 2 for j in window)
        y[k] = x[k] / total**b
        for j in window:
            own = x[k] * (k0 + a * x[k] ** 2) ** -b
            z[number[j], number[k]] = own if j == k else -2 * a * b * x[k] * x[j] ** 2 * total ** (-b - 1)
    return y, z


@st.composite
def lrns(draw):
    size = draw(st.integers(1, 4))
    options = {
        "alpha": draw(st.sampled_from([0.5, 2.0])),
        "beta": draw(st.sampled_from([0.5, 0.75])),
        "k": draw(st.sampled_from([1.0, 2.0])),
        "average": draw(st.booleans()),
        "within": draw(st.booleans()),
        "before": draw(st.sampled_from([None, 0, size - 1])),
    }
    return LRN(size, **options), draw(st.sampled_from([(4, 2), (3, 3, 2)]))


@given(case=lrns(), seed=seeds)
@pytest.mark.parametrize("form", ["epsilon", "beta"])
def test_lrn_by_definition(form, case, seed):
    layer, shape = case
    rng = np.random.default_rng(seed)
    x, R = rng.standard_normal((2, *shape)), rng.standard_normal((2, *shape))
    y = layer.forward(x)
    ours = layer.relprop(R, x, y, Epsilon(0.01) if form == "epsilon" else AlphaBeta(2.0, 1.0))
    for n in range(2):
        out, z = lrn_by_definition(layer, x[n])
        assert_allclose(y[n], out, rtol=1e-10)
        r, plus, minus = R[n].ravel(), np.maximum(z, 0), np.minimum(z, 0)
        if form == "epsilon":
            total = z.sum(0)
            expected = (z / (total + 0.01 * np.where(total >= 0, 1, -1)) * r).sum(1)
        else:
            with np.errstate(invalid="ignore"):
                shares = [np.nan_to_num(part / part.sum(0)) for part in (plus, minus)]
            expected = ((2 * shares[0] - shares[1]) * r).sum(1)
        assert_allclose(ours[n].ravel(), expected, rtol=1e-9, atol=1e-10 * (1 + abs(expected).max()))


@given(case=lrns(), seed=seeds)
def test_normalised_rule_of_lrn_conserves(case, seed):
    layer, shape = case
    x = np.random.default_rng(seed).standard_normal((2, *shape))
    y = layer.forward(x)
    R = np.random.default_rng(seed + 1).standard_normal(y.shape)
    back = layer.relprop(R, x, y, LRP0())
    assert_allclose(back.sum(), R.sum(), rtol=0, atol=1e-9 * (1 + abs(back).sum()))
    assert (layer.relprop(R, x, y, Pass()) == R).all()


# ---------------------------------------------------------------- fusing what is learned


def conv(rng, c, o, **options):
    return Conv2D(
        rng.standard_normal((o, c // options.get("groups", 1), 3, 3)) / 3, rng.standard_normal(o), **options
    )


def bn(rng, n):
    return BatchNorm(
        rng.standard_normal(n), rng.standard_normal(n), rng.standard_normal(n), rng.uniform(0.3, 2, n)
    )


r = np.random.default_rng(11)
LEARNED = {
    "LayerNorm -> dense": (
        [LayerNorm(r.standard_normal(4), r.standard_normal(4)), Dense(r.standard_normal((2, 4)))],
        (3, 4),
    ),
    "LayerNorm over channels -> conv": (
        [LayerNorm(r.standard_normal(3), r.standard_normal(3), axes=0), conv(r, 3, 2, padding=1)],
        (3, 5, 5),
    ),
    "GroupNorm -> ReLU -> conv": (
        [GroupNorm(2, *r.standard_normal((2, 4))), ReLU(), conv(r, 4, 2, padding=1)],
        (4, 5, 5),
    ),
    "InstanceNorm -> pool -> conv": (
        [InstanceNorm(1, *r.standard_normal((2, 4))), MaxPool2D(2), conv(r, 4, 2, padding=1)],
        (4, 6, 6),
    ),
    "RMSNorm -> dense": ([RMSNorm(r.standard_normal(4)), Dense(r.standard_normal((2, 4)))], (3, 4)),
}


@pytest.mark.parametrize("name", LEARNED)
def test_gamma_and_beta_are_fused(name):
    layers, shape = LEARNED[name]
    network = Network([(f"{type(x).__name__}{n}", x) for n, x in enumerate(layers)], shape)
    fused, report = fuse(network)
    assert report.exact and report.difference < 1e-12 and "its statistics" not in str(report)
    left = fused.nodes[0].layer
    assert type(left) is type(layers[0]) and not left.arrays()
    x = np.random.default_rng(2).standard_normal((3, *shape))
    assert_allclose(fused.forward(x), network.forward(x), rtol=1e-12, atol=1e-12)
    R, S = (explain(n, x, 0, composite=LRP0(), normalization="linear").relevance for n in (network, fused))
    assert_allclose(S, R, rtol=0, atol=1e-9 * abs(R).max())


# ---------------------------------------------------------------- architectures


def vgg(rng):
    layers, c = [], 3
    for k, o in enumerate((4, 6)):
        layers += [(f"conv{k}", conv(rng, c, o, padding=1)), (f"bn{k}", bn(rng, o)), (f"relu{k}", ReLU())]
        layers.append((f"pool{k}", MaxPool2D(2)))
        c = o
    return [*layers, ("flatten", Flatten()), ("fc", Dense(rng.standard_normal((3, 24))))], 2


def resnet_v1(rng):
    return [
        ("stem", conv(rng, 3, 4, padding=1), "input"),
        ("bn0", bn(rng, 4)),
        ("relu0", ReLU()),
        ("a", conv(rng, 4, 6, padding=1, stride=2)),
        ("bna", bn(rng, 6)),
        ("relua", ReLU()),
        ("b", conv(rng, 6, 6, padding=1)),
        ("bnb", bn(rng, 6)),
        ("short", Conv2D(rng.standard_normal((6, 4, 1, 1)), stride=2), "relu0"),
        ("bns", bn(rng, 6)),
        ("sum", Add(), ("bnb", "bns")),
        ("relu", ReLU()),
        ("gap", GlobalAveragePool()),
        ("fc", Dense(rng.standard_normal((3, 6)))),
    ], 4


def resnet_v2(rng):
    return [
        ("stem", conv(rng, 3, 4, padding=1), "input"),
        ("bna", bn(rng, 4), "stem"),
        ("relua", ReLU()),
        ("a", conv(rng, 4, 4, padding=1)),
        ("bnb", bn(rng, 4)),
        ("relub", ReLU()),
        ("b", conv(rng, 4, 4, padding=1)),
        ("sum", Add(), ("b", "stem")),
        ("bnc", bn(rng, 4)),
        ("reluc", ReLU()),
        ("c", conv(rng, 4, 4, padding=1)),
        ("sum2", Add(), ("c", "sum")),
        ("bn", bn(rng, 4)),
        ("relu", ReLU()),
        ("gap", GlobalAveragePool()),
        ("fc", Dense(rng.standard_normal((3, 4)))),
    ], 4


def densenet(rng):
    layers, at, c = [("stem", conv(rng, 3, 4, padding=1), "input")], "stem", 4
    for k in range(3):
        layers += [(f"bn{k}", bn(rng, c), at), (f"relu{k}", ReLU()), (f"conv{k}", conv(rng, c, 3, padding=1))]
        layers.append((f"cat{k}", Concatenate(), (at, f"conv{k}")))
        at, c = f"cat{k}", c + 3
    layers += [
        ("bnt", bn(rng, c), at),
        ("relut", ReLU()),
        ("trans", Conv2D(rng.standard_normal((5, c, 1, 1)))),
    ]
    return [
        *layers,
        ("pool", AveragePool2D(2)),
        ("gap", GlobalAveragePool()),
        ("fc", Dense(np.ones((3, 5)))),
    ], 4


def mobilenet(rng):
    return [
        ("expand", Conv2D(rng.standard_normal((6, 3, 1, 1)))),
        ("bn1", bn(rng, 6)),
        ("relu1", ReLU(max_value=6)),
        ("depthwise", conv(rng, 6, 6, groups=6, stride=2, padding="same")),
        ("bn2", bn(rng, 6)),
        ("relu2", ReLU(max_value=6)),
        ("project", Conv2D(rng.standard_normal((3, 6, 1, 1)))),
        ("bn3", bn(rng, 3)),
        ("gap", GlobalAveragePool()),
        ("fc", Dense(rng.standard_normal((3, 3)))),
    ], 3


def inception(rng):
    return [
        ("a", Conv2D(rng.standard_normal((2, 3, 1, 1))), "input"),
        ("bna", bn(rng, 2)),
        ("relua", ReLU()),
        ("b", conv(rng, 3, 3, padding=1), "input"),
        ("bnb", bn(rng, 3)),
        ("relub", ReLU()),
        ("pool", AveragePool2D(3, 1, 1), "input"),
        ("c", Conv2D(rng.standard_normal((2, 3, 1, 1)))),
        ("bnc", bn(rng, 2)),
        ("reluc", ReLU()),
        ("cat", Concatenate(), ("relua", "relub", "reluc")),
        ("gap", GlobalAveragePool()),
        ("fc", Dense(rng.standard_normal((3, 7)))),
    ], 3


def alexnet(rng):
    return [
        ("conv1", conv(rng, 3, 6)),
        ("relu1", ReLU()),
        ("lrn", LRN(5, 1e-2)),
        ("pool", MaxPool2D(3, 2)),
        ("conv2", conv(rng, 6, 4, padding=1)),
        ("relu2", ReLU()),
        ("gap", GlobalAveragePool()),
        ("fc", Dense(rng.standard_normal((3, 4)))),
    ], 0


def encoder(rng):
    """The feed-forward half of a transformer's block, on patches."""
    return [
        ("norm", LayerNorm(rng.standard_normal(8), rng.standard_normal(8)), "input"),
        ("up", Dense(rng.standard_normal((16, 8)) / 3, rng.standard_normal(16))),
        ("gelu", GELU()),
        ("down", Dense(rng.standard_normal((8, 16)) / 3, rng.standard_normal(8))),
        ("sum", Add(), ("down", "input")),
        ("norm2", LayerNorm(rng.standard_normal(8), rng.standard_normal(8))),
        ("drop", Identity()),
        ("head", Dense(rng.standard_normal((3, 8)))),
    ], 2


@pytest.mark.parametrize(
    "make", [vgg, resnet_v1, resnet_v2, densenet, mobilenet, inception, alexnet, encoder]
)
def test_architectures(make):
    layers, count = make(np.random.default_rng(5))
    shape = (8, 8) if make is encoder else (3, 8, 8)
    network = Network(layers, shape)
    fused, report = fuse(network)
    assert len(report.entries) == count and report.exact, str(report)
    assert not any(isinstance(n.layer, BatchNorm) for n in fused.nodes)
    x = np.random.default_rng(6).standard_normal((2, *shape))
    y = network.forward(x)
    assert_allclose(fused.forward(x), y, rtol=0, atol=1e-12 * abs(y).max())
    target = None if y.ndim > 2 else 0
    e = explain(network, x, target, composite="epsilon-plus")
    assert np.isfinite(e.relevance).all() and e.relevance.any()
    R, S = (
        explain(n, x, target, composite=LRP0(), normalization="linear").relevance for n in (network, fused)
    )
    assert_allclose(S, R, rtol=0, atol=1e-9 * abs(R).max())
