"""Gradients and baselines, against finite differences, PyTorch and closed forms."""

import dataclasses

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from networks import chain, graph, numeric_gradient
from numpy.testing import assert_allclose
from strategies import linear_layers, sample, seeds

from numpylrp import LRPError, Network, explain, fuse, load
from numpylrp import layers as kinds
from numpylrp.errors import NonFiniteError, UnsupportedError
from numpylrp.evaluate import (
    METHODS,
    additive_network,
    gradient,
    gradient_x_input,
    integrated_gradients,
    lrp,
    occlusion,
    random_relevance,
    smoothgrad,
)
from numpylrp.evaluate.gradients import backward
from numpylrp.layers import Dense, ReLU


def differences(layer, g, x, h=1e-6):
    """sum(g * y) derived by each value of x, by central differences."""
    found = np.zeros_like(x)
    for n in np.ndindex(*x.shape):
        up, down = x.copy(), x.copy()
        up[n] += h
        down[n] -= h
        found[n] = (g * (layer.forward(up) - layer.forward(down))).sum() / (2 * h)
    return found


SMOOTH = [
    kinds.ReLU(),
    kinds.ReLU(max_value=1.0),
    kinds.ReLU(1.5, 0.2, 0.3),
    kinds.ReLU(None, 0.2, -0.3),
    kinds.LeakyReLU(0.2),
    kinds.PReLU([0.1, 0.3, -0.2, 0.5]),
    kinds.ELU(0.7),
    kinds.CELU(0.7),
    kinds.SELU(),
    kinds.GELU(),
    kinds.GELU(True),
    kinds.SiLU(),
    kinds.Mish(),
    kinds.Sigmoid(),
    kinds.Tanh(),
    kinds.Softplus(2.0),
    kinds.HardSigmoid(),
    kinds.HardSigmoid(0.2),
    kinds.HardSwish(),
    kinds.Clip(-0.5, 0.8),
    kinds.Clip(None, 0.8),
    kinds.Clip(-0.5),
    kinds.Threshold(np.array([1, -1, 0, 1])[:, None, None], np.array([0.2, 0.1, 0.0, -0.5])[:, None, None]),
    kinds.Softmax(),
    kinds.Softmax(-1),
    kinds.LogSoftmax(),
    kinds.LayerNorm(axes=(-2, -1)),
    kinds.LayerNorm(np.arange(1.0, 6), np.arange(5.0)),
    kinds.RMSNorm(np.arange(1.0, 6)),
    kinds.UnitNorm(),
    kinds.UnitNorm(eps=100.0),
    kinds.GroupNorm(2, np.arange(1.0, 5), np.arange(4.0)),
    kinds.InstanceNorm(gamma=np.arange(1.0, 5)),
    kinds.LRN(3, 0.5, 0.75, 1.0),
    kinds.LRN(2, 0.5, 0.75, 1.0, average=False, before=0),
    kinds.LRN(3, 0.5, 0.75, 1.0, within=True),
    kinds.MaxPool2D(2, 1, 1),
    kinds.MaxPool2D(2, 1, sign=[1, -1, 1, -1]),
    kinds.GlobalMaxPool(),
    kinds.Identity(),
    kinds.Dropout(),
    kinds.Flatten(),
    kinds.Reshape((2, -1)),
    kinds.Transpose((2, 0, 1)),
    kinds.ZeroPadding(((0, 1), (1, 0), (2, 1))),
    kinds.Slice((0, 1, 0), (None, None, -1), (2, 1, 2)),
    kinds.UpSampling((1, 2, 3)),
]


@pytest.mark.parametrize("layer", SMOOTH, ids=repr)
def test_layer_against_finite_differences(layer):
    rng = np.random.default_rng(3)
    x = 2 * rng.standard_normal((2, 4, 3, 5))
    y = layer.forward(x)
    g = rng.standard_normal(y.shape)
    # Central differences of h = 1e-6 are right to h^2 f''' and to rounding / h: some 1e-9.
    assert_allclose(backward(layer, g, x, y), differences(layer, g, x), rtol=1e-6, atol=3e-8)


@given(linear_layers, seeds)
def test_linear_layers_send_by_their_transpose(one, seed):
    layer, shape = one
    x, y, g = sample(layer, shape, seed, 2)
    matrix = layer.as_matrix(shape)
    expected = (g.reshape(2, -1) @ matrix.T).reshape(x.shape)
    assert_allclose(backward(layer, g, x, y), expected, rtol=1e-10, atol=1e-12)


MERGES = [kinds.Add(), kinds.Average(), kinds.Multiply(), kinds.Maximum(), kinds.Minimum()]


@pytest.mark.parametrize("layer", [*MERGES, kinds.Subtract()], ids=repr)
def test_merges_against_finite_differences(layer):
    rng = np.random.default_rng(4)
    x = [rng.standard_normal((2, 3, 4)), rng.standard_normal((2, 3, 1))]
    x += [] if isinstance(layer, kinds.Subtract) else [rng.standard_normal((2, 1, 4))]
    y = layer.forward(tuple(x))
    g = rng.standard_normal(y.shape)
    for k, share in enumerate(backward(layer, g, tuple(x), y)):

        class One:
            @staticmethod
            def forward(values, k=k):
                return layer.forward(tuple(values if i == k else branch for i, branch in enumerate(x)))

        assert_allclose(share, differences(One, g, x[k]), rtol=1e-6, atol=1e-8)


def test_concatenate():
    rng = np.random.default_rng(4)
    x = (rng.standard_normal((2, 3, 4)), rng.standard_normal((2, 2, 4)))
    y = kinds.Concatenate().forward(x)
    g = rng.standard_normal(y.shape)
    a, b = backward(kinds.Concatenate(), g, x, y)
    assert (a == g[:, :3]).all() and (b == g[:, 3:]).all()


@pytest.mark.parametrize("make", [chain, graph])
def test_networks_against_finite_differences(make):
    network = make()
    x = np.random.default_rng(5).standard_normal((3, *network.inputs["input"]))
    target = network.forward(x).argmax(1)
    expected = numeric_gradient(network, x, target)
    assert_allclose(gradient(network, x), expected, rtol=1e-5, atol=1e-7)
    assert_allclose(
        gradient(network, x, 2, batch_size=2), numeric_gradient(network, x, 2), rtol=1e-5, atol=1e-7
    )


def test_softmax_at_the_end_is_left_out():
    network = chain()
    ended = Network(
        [*((n.name, n.layer, n.inputs) for n in network.nodes), ("p", kinds.Softmax())], (2, 7, 8)
    )
    x = np.random.default_rng(5).standard_normal((2, 2, 7, 8))
    assert (gradient(ended, x, 1) == gradient(network, x, 1)).all()


def test_several_inputs_and_outputs():
    r = np.random.default_rng(0)
    network = Network(
        [
            ("a", Dense(r.standard_normal((3, 2))), "left"),
            ("b", Dense(r.standard_normal((3, 4))), "right"),
            ("product", kinds.Multiply(), ("a", "b")),
            ("one", Dense(r.standard_normal((2, 3))), "product"),
            ("two", Dense(r.standard_normal((2, 3))), "a"),
        ],
        {"left": (2,), "right": (4,)},
        outputs=("one", "two"),
    )
    x = {"left": r.standard_normal((2, 2)), "right": r.standard_normal((2, 4))}
    found = gradient(network, x, 0)
    w = {n.name: n.layer.weight for n in network.nodes if n.layer.arrays()}
    by_a = w["one"][0] * (x["right"] @ w["b"].T)
    assert_allclose(found["left"], by_a @ w["a"], rtol=1e-12)
    assert_allclose(found["right"], (w["one"][0] * (x["left"] @ w["a"].T)) @ w["b"], rtol=1e-12)
    other = gradient(network, x, 1, output="two")
    assert_allclose(other["left"], np.tile(w["two"][1] @ w["a"], (2, 1)), rtol=1e-12)
    assert (other["right"] == 0).all()
    assert set(random_relevance(network, x)) == {"left", "right"}
    assert_allclose(gradient_x_input(network, x, 0)["right"], x["right"] * found["right"], rtol=1e-12)
    whole = integrated_gradients(
        network, x, 0, steps=4
    )  # quadratic: the middle of the pieces is exact enough
    assert_allclose(whole["left"].sum(1) + whole["right"].sum(1), network.forward(x)["one"][:, 0], rtol=1e-12)


def test_an_output_with_positions():
    network = Network([("conv", kinds.Conv2D(np.ones((2, 1, 1, 1)) * [[[[2.0]]], [[[3.0]]]]))], (1, 2, 2))
    assert (gradient(network, np.ones((1, 1, 2, 2)), 1) == 3).all()


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class Doubled(ReLU):
    def forward(self, x):
        return 2 * super().forward(x)


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class Elsewhere(kinds.Flatten):
    def relprop(self, R, x, y, rule=None, note=None):
        return np.zeros_like(x)


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class Renamed(ReLU):
    pass


class Unknown(kinds.Layer):
    def forward(self, x):
        return x


def test_what_is_not_known_is_refused_by_name():
    for layer in (Doubled(), Unknown()):
        network = Network([("mine", layer), ("fc", Dense([[1.0, 1.0]]))], (2,))
        with pytest.raises(
            UnsupportedError, match=rf"layer 'mine' \({type(layer).__name__}\): the derivative of"
        ):
            gradient(network, [[1.0, 2.0]])
    with pytest.raises(UnsupportedError, match="Elsewhere"):
        gradient(Network([("mine", Elsewhere())], (2,)), [[1.0, 2.0]])
    # a layer that computes what its kind computes is known
    assert gradient(Network([("mine", Renamed())], (2,)), [[1.0, 2.0]], 1).tolist() == [[0, 1]]


def test_not_a_number():
    network = Network([("norm", kinds.UnitNorm(eps=0.0))], (2,))
    with pytest.raises(NonFiniteError, match="input 'input'"):
        gradient(network, [[np.nan, 1.0]])
    steep = Network([("a", Dense([[1e200, 0.0]])), ("b", Dense([[1e200]]))], (2,))
    with pytest.raises(NonFiniteError, match=r"gradient that layer 'a' \(Dense\) sends on"):
        gradient(steep, [[0.0, 1.0]])


def test_every_kind_of_layer_has_a_derivative():
    from numpylrp.evaluate.gradients import _backs

    missing = [name for name, kind in kinds.KINDS.items() if not any(c in _backs for c in kind.__mro__)]
    assert missing == []


def in_torch(network, torch):
    """The chain of `networks.chain` as a PyTorch module."""
    nn = torch.nn

    def conv(layer):
        o, i, *k = layer.weight.shape
        made = nn.Conv2d(i * layer.groups, o, k, groups=layer.groups, dtype=torch.float64)
        made.weight.data, made.bias.data = torch.tensor(layer.weight), torch.tensor(layer.bias)
        return made

    def dense(layer):
        made = nn.Linear(layer.weight.shape[1], layer.weight.shape[0], dtype=torch.float64)
        made.weight.data, made.bias.data = torch.tensor(layer.weight), torch.tensor(layer.bias)
        return made

    return nn.Sequential(
        nn.ZeroPad2d((1, 1, 1, 0)),
        conv(network["conv1"]),
        nn.ReLU(),
        nn.MaxPool2d(2),
        conv(network["conv2"]),
        nn.ReLU(),
        nn.AvgPool2d(2, 1),
        nn.Flatten(),
        dense(network["fc1"]),
        nn.ReLU(),
        dense(network["fc2"]),
    )


def test_network_against_torch():
    torch = pytest.importorskip("torch")
    network = chain()
    x = np.random.default_rng(7).standard_normal((4, 2, 7, 8))
    given_x = torch.tensor(x, requires_grad=True)
    out = in_torch(network, torch)(given_x)
    assert_allclose(network.forward(x), out.detach().numpy(), rtol=1e-12, atol=1e-12)
    out[torch.arange(4), [0, 1, 2, 0]].sum().backward()
    assert_allclose(gradient(network, x, [0, 1, 2, 0]), given_x.grad.numpy(), rtol=1e-10, atol=1e-10)


def test_layers_against_torch():
    """Values at kinks included, where PyTorch's derivative is that of the flat side."""
    torch = pytest.importorskip("torch")
    f = torch.nn.functional
    pairs = [
        (kinds.ReLU(), f.relu),
        (kinds.ReLU(max_value=6.0), f.relu6),
        (kinds.LeakyReLU(0.2), lambda t: f.leaky_relu(t, 0.2)),
        (kinds.PReLU([0.1, 0.3, -0.2]), lambda t: f.prelu(t, torch.tensor([0.1, 0.3, -0.2], dtype=t.dtype))),
        (kinds.ELU(0.7), lambda t: f.elu(t, 0.7)),
        (kinds.CELU(0.5), lambda t: f.celu(t, 0.5)),
        (kinds.SELU(), f.selu),
        (kinds.GELU(), f.gelu),
        (kinds.GELU(True), lambda t: f.gelu(t, approximate="tanh")),
        (kinds.SiLU(), f.silu),
        (kinds.Mish(), f.mish),
        (kinds.Sigmoid(), torch.sigmoid),
        (kinds.Tanh(), torch.tanh),
        (kinds.Softplus(2.0), lambda t: f.softplus(t, 2.0, threshold=100)),
        (kinds.HardSigmoid(), f.hardsigmoid),
        (kinds.HardSwish(), f.hardswish),
        (kinds.Clip(-1.0, 2.0), lambda t: f.hardtanh(t, -1.0, 2.0)),
        (kinds.Softmax(), lambda t: f.softmax(t, 1)),
        (kinds.LogSoftmax(), lambda t: f.log_softmax(t, 1)),
        (kinds.LayerNorm(eps=1e-3), lambda t: f.layer_norm(t, t.shape[-1:], eps=1e-3)),
        (kinds.RMSNorm(eps=1e-3), lambda t: f.rms_norm(t, t.shape[-1:], eps=1e-3)),
        (kinds.GroupNorm(3, eps=1e-3), lambda t: f.group_norm(t, 3, eps=1e-3)),
        (kinds.UnitNorm(axes=0), lambda t: f.normalize(t, dim=1)),
        (kinds.LRN(3, 0.5, 0.75, 2.0), lambda t: f.local_response_norm(t, 3, 0.5, 0.75, 2.0)),
        (kinds.MaxPool2D(2, 1), lambda t: f.max_pool2d(t, 2, 1)),
    ]
    rng = np.random.default_rng(8)
    x = np.concatenate(
        [rng.integers(-6, 7, (1, 3, 4, 5)).astype(float), 3 * rng.standard_normal((1, 3, 4, 5))]
    )
    for layer, function in pairs:
        t = torch.tensor(x, requires_grad=True)
        out = function(t)
        y = layer.forward(x)
        assert_allclose(y, out.detach().numpy(), rtol=1e-10, atol=1e-12, err_msg=repr(layer))
        g = rng.standard_normal(y.shape)
        out.backward(torch.tensor(g))
        rtol = 1e-7 if isinstance(layer, kinds.HardSigmoid) else 1e-9  # PyTorch's 1/6 is a float32 there
        assert_allclose(backward(layer, g, x, y), t.grad.numpy(), rtol=rtol, atol=1e-11, err_msg=repr(layer))


@pytest.mark.parametrize("name", ["mnist_cnn.h5", "mnist_cnn_bn.h5", "mnist_fc_bn.h5"])
def test_gradient_x_input_is_lrp_0_also_when_fused(weights, name):
    """For ReLUs and linear layers (DESIGN, identity 6); the bias absorbs its share in both."""
    network = load(weights / name)
    x = np.random.default_rng(0).uniform(0.1, 1, (2, 1, 28, 28))
    found = gradient_x_input(network, x)
    zero = explain(network, x, composite="epsilon", epsilon=0.0).relevance
    scale = np.abs(zero).max()
    assert_allclose(found / scale, zero / scale, atol=1e-9)
    assert_allclose(gradient_x_input(fuse(network)[0], x) / scale, found / scale, atol=1e-9)


@given(seeds, st.sampled_from([1, 2]))
def test_additive_networks_have_one_answer(seed, target):
    """What is lost by a value, its path integral, its gradient x input and its LRP-0 are all c_ti(x_i)."""
    made = additive_network((3, 2, 4), seed=seed)
    x = np.random.default_rng(seed).standard_normal((2, 3, 2, 4))
    truth = made.contributions(x, target)
    loop = np.zeros_like(x)
    for n, c, i, j in np.ndindex(*x.shape):
        at = (c * 2 + i) * 4 + j
        loop[n, c, i, j] = sum(
            w * max(0.0, a * x[n, c, i, j]) for w, a in zip(made.weights[target, at], made.slopes[at])
        )
    assert_allclose(truth, loop, rtol=1e-12, atol=1e-12)
    assert_allclose(truth.reshape(2, -1).sum(1), made.network.forward(x)[:, target], rtol=1e-10, atol=1e-10)
    options = {"rtol": 1e-8, "atol": 1e-10}
    assert_allclose(gradient_x_input(made.network, x, target), truth, **options)
    assert_allclose(integrated_gradients(made.network, x, target, steps=3), truth, **options)
    assert_allclose(lrp("epsilon", epsilon=0.0)(made.network, x, target), truth, **options)
    maps = occlusion(made.network, x, target).sum(1)
    assert_allclose(maps, truth.sum(1), **options)


def test_integrated_gradients_come_to_the_difference():
    """Completeness, and the error of the middle rule falls with the square of the steps where f is smooth."""
    r = np.random.default_rng(1)
    layers = [
        ("a", Dense(r.standard_normal((6, 4)))),
        ("tanh", kinds.Tanh()),
        ("b", Dense(r.standard_normal((2, 6)))),
    ]
    network = Network(layers, (4,))
    x = r.standard_normal((3, 4))
    errors = []
    for steps in (32, 64):
        found = integrated_gradients(network, x, 1, start=0.5, steps=steps)
        f = network.forward(x)[:, 1] - network.forward(np.full((1, 4), 0.5))[:, 1]
        errors.append(np.abs(found.sum(1) - f).max())
    assert errors[1] < 2e-3 and errors[1] < errors[0] / 3.5
    told = []
    integrated_gradients(network, x, 1, steps=2, progress=lambda *n: told.append(n))
    assert told == [(3, 6), (6, 6)]


def test_smoothgrad():
    """Of a parabola: the mean of 2 (x + noise), with the noise that is said."""
    network = Network([("square", kinds.Multiply(), ("input", "input"))], (400,))
    x = np.zeros((2, 400))
    x[:, 0] = 2.0
    found = smoothgrad(network, x, 7, level=0.1, draws=1, seed=3)
    noise = found[:, 7] / 2
    assert not found[:, :7].any() and noise[0] != noise[1]
    many = smoothgrad(network, x, 7, level=0.1, draws=4000, seed=3)[:, 7] / 2
    assert (np.abs(many) < 5 * 0.2 / 4000**0.5).all()  # the level is relative to the range, 2
    assert (smoothgrad(network, x, 7, level=0.0, draws=2) == gradient(network, x, 7)).all()
    alone = smoothgrad(network, x[:1], 7, level=0.1, draws=1, seed=3)
    assert (alone == found[:1]).all()


def test_occlusion_by_plain_loops():
    network = chain()
    x = np.random.default_rng(2).standard_normal((2, 2, 7, 8))
    found = occlusion(network, x, 1, region=(3, 2), fill=0.25)
    expected = np.zeros_like(x)
    for n in range(2):
        for top in range(0, 7, 3):
            for left in range(0, 8, 2):
                rows, columns = slice(top, top + 3), slice(left, left + 2)
                other = x[n : n + 1].copy()
                other[:, :, rows, columns] = 0.25
                drop = (network.forward(x[n : n + 1]) - network.forward(other))[0, 1]
                expected[n, :, rows, columns] = drop / other[0, :, rows, columns].size
    assert_allclose(found, expected, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("name", METHODS)
def test_baselines_take_any_layout(name):
    """Gray images, images with channels last, vectors; float32 stays float32."""
    r = np.random.default_rng(0)
    last = Network(
        [
            ("move", kinds.Transpose((2, 0, 1))),
            ("conv", kinds.Conv2D(r.standard_normal((2, 3, 2, 2)).astype(np.float32))),
            ("flatten", kinds.Flatten()),
            ("fc", Dense(r.standard_normal((2, 24)).astype(np.float32))),
        ],
        (4, 5, 3),
    )
    vector = Network([("fc", Dense(r.standard_normal((2, 6))))], (6,))
    for network in (last, vector):
        x = r.standard_normal((2, *network.inputs["input"]))
        found = METHODS[name](network, x, [0, 1])
        assert found.shape == x.shape and found.dtype == network.dtype and np.isfinite(found).all()


def test_options_that_are_not_valid():
    network, x = chain(), np.zeros((1, 2, 7, 8))
    for call in (
        lambda: integrated_gradients(network, x, steps=0),
        lambda: smoothgrad(network, x, draws=0),
        lambda: smoothgrad(network, x, level=-1.0),
        lambda: occlusion(network, x, region=9),
        lambda: random_relevance(network, x, seed=-1),
        lambda: gradient(network, x, 3),
        lambda: gradient(network, x, batch_size=0),
    ):
        with pytest.raises(LRPError):
            call()
