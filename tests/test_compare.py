"""The judge names the bug: candidates with deliberate bugs, made by plain sums on explicit matrices."""

import h5py
import numpy as np
import pytest
import twins

import numpylrp
from numpylrp import Network, explain
from numpylrp.errors import FileError, LRPError
from numpylrp.layers import (
    Add,
    BatchNorm,
    Conv2D,
    Dense,
    Flatten,
    MaxPool2D,
    ReLU,
)
from numpylrp.rules import LRP0, AlphaBeta, Epsilon, Flat, Gamma, Pass, WSquare, ZBox, ZPlus
from numpylrp.validate.compare import judge, read_candidate

RNG = np.random.default_rng(3)

# ---------------------------------------------------------------- a second implementation, with bugs


def epsilon(eps, sign=lambda z: np.where(z >= 0, 1.0, -1.0), bias=True, weigh=True, back=None):
    """The epsilon rule for one sample; the options are bugs."""

    def rule(x, W, b, R):
        z = x @ W + (b if bias else 0)
        denominator = z + eps * sign(z)
        s = np.divide(R, denominator, out=np.zeros_like(R), where=denominator != 0)
        W = W if back is None else back
        return (x if weigh else 1) * (W @ s)

    return rule


def bias_shared(eps, share_of_eps):
    """``(x_i w_ij + (b_j + share_of_eps eps sign z_j) / n) / (z_j + eps sign z_j) R_j`` by loops."""

    def rule(x, W, b, R):
        R_x = np.zeros(len(x))
        for j, R_j in enumerate(R):
            z = sum(x[i] * W[i, j] for i in range(len(x))) + b[j]
            more = eps if z >= 0 else -eps
            for i in range(len(x)):
                R_x[i] += (x[i] * W[i, j] + (b[j] + share_of_eps * more) / len(x)) / (z + more) * R_j
        return R_x

    return rule


def gamma(g, weights_only=False):
    def rule(x, W, b, R):
        if not weights_only:
            return twins.gamma(x, W, b, R, g)
        W = W + g * np.maximum(W, 0)
        return x * (W @ (R / (x @ W + b + g * np.maximum(b, 0))))

    return rule


def alpha_beta(alpha, beta, bug=""):
    def rule(x, W, b, R):
        if bug == "weights":
            up, down = np.maximum(W, 0), np.minimum(W, 0)
            R_x = alpha * x * (up @ (R / (x @ up + np.maximum(b, 0))))
            return R_x - beta * x * (down @ (R / (x @ down + np.minimum(b, 0))))
        c = twins.contributions(x, W)
        clamp = (b, b) if bug == "unclamped" else (np.maximum(b, 0), np.minimum(b, 0))
        up, down = c * (c > 0), c * (c < 0)
        R_x = alpha * twins._share(R, up, up.sum(0) + clamp[0])
        return R_x - beta * twins._share(R, down, down.sum(0) + clamp[1])

    return rule


def w_square(x, W, b, R):
    return twins._share(R, W**2, (W**2).sum(0) + b**2)


def flat(window=None):
    def rule(x, W, b, R):
        connected = (W != 0) * 1.0
        return twins._share(R, connected, connected.sum(0) if window is None else np.full(W.shape[1], window))

    return rule


def max_pool(how, size=2):
    """Max pooling of windows of `size` without overlap, for one sample (C, H, W)."""

    def back(x, y, R):
        R_x = np.zeros_like(x)
        for at in np.ndindex(*y.shape):
            hits = [
                (at[0], size * at[1] + i, size * at[2] + j)
                for i in range(size)
                for j in range(size)
                if x[at[0], size * at[1] + i, size * at[2] + j] == y[at]
            ]
            hits = {"first": hits[:1], "last": hits[-1:]}.get(how, hits)
            for hit in hits:
                R_x[hit] += R[at] / (len(hits) if how == "equal" else 1)
        return R_x

    return back


def candidate(network, x, R, how):
    """Relevance of every value of a chain of layers, layer by layer.

    `how` says what a layer does: a function of (x, W, b, R) for linear layers, of (x, y, R) for others.
    """
    values, found = network.record(x), {network.nodes[-1].name: np.array(R)}
    for node in reversed(network.nodes):
        into, out, R = values[node.inputs[0]], values[node.name], found[node.name]
        shape = into.shape[1:]
        if node.name in how and hasattr(node.layer, "as_matrix"):
            W = node.layer.as_matrix(shape)
            b = node.layer.forward(np.zeros((1, *shape))).ravel()
            R_x = [how[node.name](v.ravel(), W, b, r.ravel()) for v, r in zip(into, R)]
        elif node.name in how:
            R_x = [how[node.name](*each) for each in zip(into, out, R)]
        else:
            R_x = R
        found[node.inputs[0]] = np.array(R_x).reshape(into.shape)
    return found


def start(network, x, target=0):
    y = network.forward(x)
    R = np.zeros_like(y)
    R[:, target] = y[:, target]
    return R


# ---------------------------------------------------------------- networks and rules


def dense(bias=True):
    r = np.random.default_rng(1)
    b = (lambda n: r.standard_normal(n)) if bias else (lambda n: None)
    return Network(
        [
            ("fc1", Dense(r.standard_normal((6, 5)), b(6))),
            ("relu", ReLU()),
            ("fc2", Dense(r.standard_normal((6, 6)), b(6))),
            ("fc3", Dense(r.standard_normal((3, 6)), b(3))),
        ],
        input_shape=(5,),
    )


def images(padding=1):
    r = np.random.default_rng(2)
    return Network(
        [
            ("conv", Conv2D(r.standard_normal((3, 2, 3, 3)), r.standard_normal(3), padding=padding)),
            ("relu", ReLU()),
            ("pool", MaxPool2D(2)),
            ("flatten", Flatten()),
            (
                "fc",
                Dense(r.standard_normal((3, 3 * (1 + padding) ** 2 if padding else 3)), r.standard_normal(3)),
            ),
        ],
        input_shape=(2, 4, 4),
    )


def normalized(**options):
    r = np.random.default_rng(5)
    return Network(
        [
            ("conv", Conv2D(r.standard_normal((3, 2, 3, 3)), r.standard_normal(3))),
            (
                "bn",
                BatchNorm(
                    r.standard_normal(3), r.standard_normal(3), r.standard_normal(3), r.uniform(0.3, 2, 3)
                ),
            ),
            ("relu", ReLU()),
            ("flatten", Flatten()),
            ("fc", Dense(r.standard_normal((3, 12)), r.standard_normal(3))),
        ],
        input_shape=(2, 4, 4),
    )


X = RNG.standard_normal((3, 5))
IMAGES = RNG.standard_normal((3, 2, 4, 4))
EPS = {"fc1": Epsilon(0.25), "fc2": Epsilon(0.25), "fc3": Epsilon(0.25)}
RIGHT = dict.fromkeys(("fc1", "fc2", "fc3"), epsilon(0.25))
PICTURE = {"conv": ZPlus(), "fc": Epsilon(0.25)}
PICTURED = {"conv": alpha_beta(1, 0), "pool": max_pool("first"), "fc": epsilon(0.25)}
BIGGER = {"conv": Gamma(0.5), "bn": Epsilon(0.25), "fc": Epsilon(0.25)}
BIGGERED = {"conv": gamma(0.5), "bn": epsilon(0.25), "fc": epsilon(0.25)}


def both(network, x, rules, how, place, cause, **options):
    """With all layers the bug is named where it is; with the input alone it is named too."""
    found = candidate(network, x, start(network, x), how)
    verdict = judge(network, x, rules, found, target=0, **options)
    assert verdict.first.name == place, verdict
    assert any(cause in fit for fit in verdict.first.fits), verdict
    assert cause in verdict.cause and cause in str(verdict)
    source = next(iter(network.inputs))
    alone = judge(network, x, rules, {source: found[source]}, target=0, **options)
    assert any(cause in fit for fit in alone.first.fits), alone
    return verdict, alone


def test_a_right_candidate_gets_a_clean_verdict():
    for network, x, rules, how in (
        (dense(), X, EPS, RIGHT),
        (images(), IMAGES, PICTURE, PICTURED),
        (normalized(), IMAGES, BIGGER, BIGGERED),
    ):
        found = candidate(network, x, start(network, x), how)
        verdict = judge(network, x, rules, found, target=0)
        assert verdict.agrees and verdict.first is None, verdict
        assert [row.name for row in verdict.rows][-1] == "input"
        assert len(verdict.rows) == len(network) + 1
        assert judge(network, x, rules, {"input": found["input"]}, target=0).agrees
        single = {name: value.astype(np.float32) for name, value in found.items()}
        assert judge(network, x, rules, single, target=0).agrees
        assert not judge(network, x, rules, single, target=0, tolerance=1e-12).agrees


DENSE_BUGS = {
    "no sign": (epsilon(0.25, sign=lambda z: 1.0), "a stabilizer without sign"),  # the logits are > 0
    "no bias": (epsilon(0.25, bias=False), "the bias dropped from the denominator"),
    "not weighed": (epsilon(0.25, weigh=False), "c instead of x c"),
    "no epsilon": (epsilon(0.0), "no stabilizer"),
    "bias shared": (bias_shared(0.25, 0), "the bias shared equally among the inputs"),
    "bias_factor": (bias_shared(0.25, 1), "bias and stabilizer shared equally among the inputs"),
    "another rule": (alpha_beta(1, 0), "ZPlus() instead"),
    "gradient": (lambda x, W, b, R: W @ R, "the layer's gradient"),
}


@pytest.mark.parametrize("name", DENSE_BUGS)
def test_bugs_of_the_epsilon_rule(name):
    rule, cause = DENSE_BUGS[name]
    place, layer = ("relu", "fc2") if name == "no sign" else ("fc2", "fc3")
    verdict, _ = both(dense(), X, EPS, dict.fromkeys(EPS, rule), place, cause)
    assert verdict.first.layers == (layer,) and f"{layer} (Epsilon(0.25))" in verdict.cause
    assert any(cause in line for line in str(verdict).splitlines()[-1:]), "one cause for all"


def test_a_denominator_without_sign():
    """The logits are positive, so that the last layer can't tell; behind the ReLU nothing is negative."""
    for eps, rule in ((0.25, Epsilon(0.25)), (0.0, LRP0())):
        how = {**RIGHT, "fc2": lambda x, W, b, R, eps=eps: x * (W @ (R / (abs(x @ W + b) + eps)))}
        both(dense(), X, {**EPS, "fc2": rule}, how, "relu", "|z| + eps as the denominator")


def test_a_bug_in_one_layer_is_found_there_and_nowhere_else():
    how = {**RIGHT, "fc2": epsilon(0.25, bias=False)}
    verdict, alone = both(dense(), X, EPS, how, "relu", "the bias dropped from the denominator")
    assert [row.name for row in verdict.rows if not row.agrees] == ["relu"]
    assert verdict.first.layers == ("fc2",)
    assert alone.first.fits == ("the bias dropped from the denominator, in fc2 alone",)


def test_wrong_sign_at_0():
    network = Network([("fc", Dense([[1.0, -1.0], [1.0, 1.0]]))], input_shape=(2,))
    x, R = np.array([[2.0, 2.0], [2.0, 1.0]]), np.ones((2, 2))
    rules = {"fc": Epsilon(0.25)}
    for sign, cause in (
        (lambda z: np.where(z > 0, 1.0, -1.0), "sign(0) = -1"),
        (np.sign, "sign(0) = 0"),
    ):
        found = candidate(network, x, R, {"fc": epsilon(0.25, sign)})
        verdict = judge(network, x, rules, found, seed=R)
        assert any(cause in fit for fit in verdict.first.fits), verdict
    right = candidate(network, x, R, {"fc": epsilon(0.25)})
    assert judge(network, x, rules, right, seed=R).agrees


def test_weights_not_transposed():
    def back(x, W, b, R):
        return epsilon(0.25, back=W.T if W.shape[0] == W.shape[1] else None)(x, W, b, R)

    verdict, _ = both(dense(), X, EPS, dict.fromkeys(EPS, back), "relu", "the weight not transposed")
    assert verdict.first.layers == ("fc2",)


def test_gamma_on_weights_only():
    rules = {"fc1": Gamma(0.5), "fc2": Epsilon(0.25), "fc3": Epsilon(0.25)}
    how = {**RIGHT, "fc1": gamma(0.5, weights_only=True)}
    verdict, _ = both(dense(), X, rules, how, "input", "gamma on weights only")
    assert "differs from the definition on" in verdict.cause


@pytest.mark.parametrize(
    "bug, cause", [("unclamped", "the bias unclamped"), ("weights", "alpha-beta on weights only")]
)
def test_bugs_of_alpha_beta(bug, cause):
    rules = {"fc1": AlphaBeta(2, 1), "fc2": Epsilon(0.25), "fc3": Epsilon(0.25)}
    both(dense(), X, rules, {**RIGHT, "fc1": alpha_beta(2, 1, bug)}, "input", cause)


def test_w_square_with_bias():
    rules = {**EPS, "fc1": WSquare()}
    both(dense(), X, rules, {**RIGHT, "fc1": w_square}, "input", "b^2 in the denominator")


def test_flat_that_counts_padding():
    verdict, _ = both(
        images(),
        IMAGES,
        {**PICTURE, "conv": Flat()},
        {**PICTURED, "conv": flat(18)},
        "input",
        "padding counted",
    )
    assert "the border" in verdict.cause or "100 %" in verdict.cause


@pytest.mark.parametrize(
    "how, cause",
    [
        ("all", "each of equal maxima gets all"),
        ("equal", "equal maxima share equally"),
        ("last", "the last of equal maxima wins"),
    ],
)
def test_ties_of_max_pooling(how, cause):
    x = np.round(2 * IMAGES)  # after the ReLU whole windows are 0, with relevance by Flat above
    rules = {"conv": ZPlus(), "fc": Flat()}
    hows = {"conv": alpha_beta(1, 0), "pool": max_pool(how), "fc": flat()}
    verdict, _ = both(images(), x, rules, hows, "relu", cause)
    assert "at ties of the maximum" in verdict.cause or "where x = 0" in verdict.cause


def test_the_gradient_of_relu_applied_to_relevance():
    rules = {**EPS, "fc2": Flat()}
    how = {**RIGHT, "fc2": flat(), "relu": lambda x, y, R: R * (x > 0)}
    verdict, _ = both(dense(), X, rules, how, "fc1", "an activation's gradient")
    assert "where x < 0" in verdict.cause


@pytest.mark.parametrize(
    "turn, cause", [("flip", "turned the wrong way"), ("swap", "height and width swapped")]
)
def test_a_kernel_turned_the_wrong_way(turn, cause):
    network = images()
    conv = network["conv"]
    weight = conv.weight[..., ::-1, ::-1] if turn == "flip" else conv.weight.swapaxes(2, 3)
    other = Conv2D(weight, conv.bias, padding=1).as_matrix((2, 4, 4))

    rules = {"conv": Epsilon(0.25), "fc": Epsilon(0.25)}
    both(network, IMAGES, rules, {**PICTURED, "conv": epsilon(0.25, back=other)}, "input", cause)


def test_batch_normalization_passed():
    how = {**BIGGERED, "bn": lambda x, W, b, R: R}
    verdict, _ = both(normalized(), IMAGES, BIGGER, how, "conv", "batch normalization passed unchanged")
    assert any("zennit" in fit for fit in verdict.first.fits)


@pytest.mark.parametrize(
    "variance, cause",
    [
        (lambda v: v**2 + 1e-5, "batch normalization with sqrt(var^2 + eps)"),
        (lambda v: (np.sqrt(v) + 1e-5) ** 2, "batch normalization with sqrt(var) + eps"),
        (lambda v: v, "without eps"),
    ],
)
@pytest.mark.parametrize("forward", [False, True])
def test_batch_normalization_with_another_denominator(variance, cause, forward):
    network = normalized()
    bn = network["bn"]
    g = bn.gamma / np.sqrt(variance(bn.variance))
    wrong = BatchNorm(bn.gamma, bn.beta, bn.mean, (bn.gamma / g) ** 2, eps=0.0)
    W = wrong.as_matrix((3, 2, 2))
    b = wrong.forward(np.zeros((1, 3, 2, 2))).ravel()
    if forward:
        other = network.replace("bn", wrong)
        found = candidate(other, IMAGES, start(other, IMAGES), BIGGERED)
    else:
        how = {**BIGGERED, "bn": lambda x, _, __, R: epsilon(0.25)(x, W, b, R)}
        found = candidate(network, IMAGES, start(network, IMAGES), how)
    alone = judge(network, IMAGES, BIGGER, {"input": found["input"]}, target=0)
    place = "the forward pass too" if forward else "on the way back"
    assert any(cause in fit and place in fit for fit in alone.first.fits), alone
    if not forward:
        verdict = judge(network, IMAGES, BIGGER, found, target=0)
        assert verdict.first.name == "conv" and any(cause in fit for fit in verdict.first.fits)


def padded_norm():
    r = np.random.default_rng(8)
    return Network(
        [
            (
                "bn",
                BatchNorm(
                    r.standard_normal(2), r.standard_normal(2), r.standard_normal(2), r.uniform(0.3, 2, 2)
                ),
            ),
            ("conv", Conv2D(r.standard_normal((3, 2, 3, 3)), r.standard_normal(3), padding=1)),
            ("relu", ReLU()),
            ("flatten", Flatten()),
            ("fc", Dense(r.standard_normal((3, 48)), r.standard_normal(3))),
        ],
        input_shape=(2, 4, 4),
    )


@pytest.mark.parametrize("forward", [False, True])
def test_a_scalar_bias_at_the_border(forward):
    network = padded_norm()
    fused, _ = numpylrp.fuse(network)
    conv = fused["conv"]
    assert conv.tap_bias is not None
    rules = {"conv": ZPlus(), "fc": Epsilon(0.25)}
    g, s = network["bn"].scale_and_shift()
    old = network["conv"]
    scalar = Conv2D(
        old.weight * g[:, None, None], old.bias + (old.weight * s[:, None, None]).sum((1, 2, 3)), padding=1
    )
    b = np.repeat(scalar.bias, 16)
    if forward:
        other = fused.replace("conv", scalar)
        found = candidate(
            other, IMAGES, start(other, IMAGES), {"conv": alpha_beta(1, 0), "fc": epsilon(0.25)}
        )
    else:
        how = {"conv": lambda x, W, _, R: alpha_beta(1, 0)(x, W, b, R), "fc": epsilon(0.25)}
        found = candidate(fused, IMAGES, start(fused, IMAGES), how)
    verdict = judge(network, IMAGES, rules, {"input": found["input"]}, target=0, normalization="fused")
    place = "the forward pass too" if forward else "on the way back"
    assert any("a scalar bias" in fit and place in fit for fit in verdict.first.fits), verdict


def test_fused_where_it_should_be_linear_and_linear_where_it_should_be_fused():
    network = padded_norm()
    rules = {"conv": ZPlus(), "fc": Epsilon(0.25), "bn": ZPlus()}
    how = {"conv": alpha_beta(1, 0), "fc": epsilon(0.25), "bn": alpha_beta(1, 0)}
    found = candidate(network, IMAGES, start(network, IMAGES), how)
    assert judge(network, IMAGES, rules, found, target=0).agrees
    verdict = judge(network, IMAGES, rules, found, target=0, normalization="fused")
    assert not verdict.problems, "what fusing removed is an identity"
    assert verdict.first.fits[0] == "batch normalization treated as 'linear'", verdict
    assert verdict["input"].fits == ("batch normalization treated as 'linear'",), verdict
    passed = candidate(network, IMAGES, start(network, IMAGES), {**how, "bn": lambda x, W, b, R: R})
    verdict = judge(network, IMAGES, rules, {"input": passed["input"]}, target=0, normalization="fused")
    assert "batch normalization treated as 'identity'" in verdict.cause


def test_all_of_the_relevance_to_both_branches_of_a_sum():
    network = Network(
        [("fc", Dense([[1.0, 2.0], [0.5, -1.0]])), ("sum", Add(), ("fc", "input"))], input_shape=(2,)
    )
    x, R = np.array([[1.0, 2.0]]), np.array([[1.0, -0.5]])
    W = network["fc"].weight.T
    through = epsilon(0.25)(x[0], W, 0, R[0])
    found = {"sum": R, "fc": R, "input": (through + R[0])[None]}
    verdict = judge(network, x, Epsilon(0.25), found, seed=R)
    assert verdict.first.name == "fc" and verdict.first.layers == ("sum",)
    assert all("each branch of a sum gets all" in row.fits for row in verdict.rows if not row.agrees)


# ---------------------------------------------------------------- patterns


def right():
    network = images()
    return network, candidate(network, IMAGES, start(network, IMAGES), PICTURED)


def pattern(name, change, **options):
    network, found = right()
    found[name] = change(found[name])
    return judge(network, IMAGES, PICTURE, found, target=0, **options)[name].text


def test_factors_and_signs():
    assert pattern("input", lambda R: -R) == "has the wrong sign"
    assert pattern("input", lambda R: 3 * R) == "is 3 times the definition's"
    assert "1 / the number of samples" in pattern("input", lambda R: R / 3)
    text = pattern("input", lambda R: R / abs(R).max((1, 2, 3), keepdims=True))
    assert "a factor of each sample" in text and "1 / the largest |value| of the sample" in text
    assert pattern("input", abs) == "is the absolute value of the definition's"
    assert "positive part" in pattern("input", lambda R: np.maximum(R, 0))


def test_a_seed_of_1():
    network = images()
    R = start(network, IMAGES)
    found = candidate(network, IMAGES, (R != 0) * 1.0, PICTURED)
    verdict = judge(network, IMAGES, PICTURE, found, target=0)
    assert verdict.first.name == "fc" and "a seed of 1" in verdict.cause
    assert [row.name for row in verdict.rows if not row.agrees] == ["fc"]
    alone = judge(network, IMAGES, PICTURE, {"input": found["input"]}, target=0)
    assert "a seed of 1" in alone.cause


def test_axes_mixed_up():
    def misread(R):
        return R.transpose(0, 2, 3, 1).reshape(R.shape)

    assert "NHWC and NCHW mixed up" in pattern("input", misread)
    assert "axis 2 turned around" in pattern("input", lambda R: R[..., ::-1])
    network, found = right()
    other = {**found, "input": found["input"].transpose(0, 2, 3, 1), "conv": found["conv"].sum(1)}
    verdict = judge(network, IMAGES, PICTURE, other, target=0)
    assert "channels last" in verdict["input"].text and "channels last" in verdict.problems["input"]
    assert verdict["conv"].agrees and "its sums over channels" in verdict["conv"].text
    other["conv"] = found["conv"].sum(2)
    verdict = judge(network, IMAGES, PICTURE, other, target=0)
    assert "summed over axis 1" in verdict["conv"].text


def test_flattened_in_the_other_layout():
    network, found = right()
    R = found["flatten"]
    found["pool"] = R.reshape(3, 2, 2, 3).transpose(0, 3, 1, 2)  # read as (H, W, C)
    verdict = judge(network, IMAGES, PICTURE, found, target=0)
    assert verdict.first.name == "pool" and verdict.first.layers == ("flatten",)
    assert "flattening undone in another layout, channels last" in verdict.cause


def test_differences_at_the_border_and_elsewhere():
    network = Network(
        [("conv", Conv2D(np.ones((1, 1, 3, 3)), padding=1)), ("relu", ReLU())], input_shape=(1, 7, 7)
    )
    x = np.random.default_rng(0).uniform(1, 2, (2, 1, 7, 7))
    R = network.forward(x)
    found = candidate(network, x, R, {"conv": alpha_beta(1, 0)})
    found["input"][:, :, 0] += 0.5
    verdict = judge(network, x, ZPlus(), found, seed=R)
    assert "differs only at the border" in verdict.cause
    found["input"][:, :, 3, 3] += 0.5
    verdict = judge(network, x, ZPlus(), found, seed=R)
    assert "differs from the definition on 16.3 %" in verdict.cause


# ---------------------------------------------------------------- candidates that can't be used as they are


def test_what_cannot_be_used_is_told_and_the_rest_compared():
    network, found = right()
    found["input"][0, 0, 1, 2] = np.nan
    found["relu"] = found["relu"][:, :2]
    found["pool"] = np.array(["a", "b"])
    found["nonsense"] = np.zeros(3)
    verdict = judge(network, IMAGES, PICTURE, found, target=0)
    assert not verdict.agrees
    assert "NaN" in verdict.problems["input"] and "(0, 0, 1, 2)" in verdict.problems["input"]
    assert "shape (3, 2, 4, 4), expected (3, 3, 4, 4)" in verdict.problems["relu"]
    assert verdict.first.name == "input", "the first that could be compared"
    assert "real numbers" in verdict.problems["pool"]
    assert "no value of this network" in verdict.problems["nonsense"]
    assert verdict["conv"].agrees and "the rest agrees" in verdict["input"].text
    for name in ("nonsense", "relu", "pool"):
        assert name in str(verdict)
    del found["flatten"]
    assert judge(network, IMAGES, PICTURE, found, target=0).missing == ["flatten"]


def test_nothing_usable():
    network = images()
    for bad in ({}, {"other": IMAGES}, {"input": IMAGES[:, :, :3]}, {"input": np.full(IMAGES.shape, np.nan)}):
        with pytest.raises(LRPError, match="there are input, conv, relu, pool, flatten, fc"):
            judge(network, IMAGES, PICTURE, bad, target=0)
    with pytest.raises(LRPError, match="a mapping"):
        judge(network, IMAGES, PICTURE, IMAGES, target=0)
    with pytest.raises(LRPError, match="no layer 'convv'"):
        judge(network, IMAGES, {"convv": ZPlus()}, {"input": IMAGES}, target=0)


def test_one_sample_without_the_batch_axis():
    network = dense()
    found = candidate(network, X[:1], start(network, X[:1]), RIGHT)
    assert judge(network, X[:1], EPS, {"input": found["input"][0]}, target=0).agrees


def test_files(tmp_path):
    network, found = right()
    np.savez(tmp_path / "a.npz", **found)
    with h5py.File(tmp_path / "a.h5", "w") as file:
        for name, value in found.items():
            file[f"block/{name}" if name == "conv" else name] = value
    read = read_candidate(tmp_path / "a.npz")
    assert judge(network, IMAGES, PICTURE, read, target=0).agrees
    read = read_candidate(tmp_path / "a.h5")
    assert set(read) == {*found, "block/conv"} - {"conv"}
    (tmp_path / "bad.npz").write_bytes((tmp_path / "a.npz").read_bytes()[:300])
    np.savez(tmp_path / "empty.npz")
    for name in ("bad.npz", "empty.npz", "missing.npz", "missing.h5"):
        with pytest.raises(FileError):
            read_candidate(tmp_path / name)


# ---------------------------------------------------------------- libraries, live


def test_zennit_is_named():
    pytest.importorskip("zennit")
    from numpylrp.validate.peers import zennit

    network = dense()
    rules = {"fc1": WSquare(), "fc2": ZPlus(), "fc3": Epsilon()}
    found = zennit(network, X, rules, start(network, X))
    verdict = judge(network, X, rules, found, target=0)
    assert verdict["input"].fits and any("zennit" in fit for fit in verdict["input"].fits), verdict
    alone = judge(network, X, rules, {"input": found["input"]}, target=0)
    assert alone.first.fits == ("zennit 0.5.1",), alone


def test_zennit_with_batch_norm_merged_is_named():
    pytest.importorskip("zennit")
    from numpylrp.validate.peers import zennit

    network = normalized()
    found = zennit(network, IMAGES, BIGGER, start(network, IMAGES))
    verdict = judge(network, IMAGES, BIGGER, found, target=0)
    assert not verdict.agrees and "leaves its eps behind" in verdict.cause
    assert "The same explains all" in str(verdict)


def test_captum_is_named():
    pytest.importorskip("captum")
    from numpylrp.validate.peers import captum

    network = dense()
    rules = {"fc1": Gamma(0.5), "fc2": ZPlus(), "fc3": LRP0()}
    found = captum(network, X, rules, start(network, X))
    verdict = judge(network, X, rules, found, target=0)
    assert any("captum" in fit for fit in verdict.first.fits), verdict


def test_z_box_and_pass_are_judged():
    network = dense()
    rules = {**EPS, "fc1": ZBox(-4.0, 4.0)}
    low, high = np.full(5, -4.0), np.full(5, 4.0)
    how = {**RIGHT, "fc1": lambda x, W, b, R: twins.z_box(x, W, b, R, low, high)}
    found = candidate(network, X, start(network, X), how)
    assert judge(network, X, rules, found, target=0).agrees

    def bias(x, W, b, R):
        c = (x - low)[:, None] * np.maximum(W, 0) + (x - high)[:, None] * np.minimum(W, 0)
        return twins._share(R, c, c.sum(0) + b)

    both(network, X, rules, {**RIGHT, "fc1": bias}, "input", "the bias left in the denominator of z^B")
    rules = {**EPS, "fc1": ZBox(-4.0, 6.0)}
    low, high = np.full(5, -4.0), np.full(5, 6.0)
    swapped = {**RIGHT, "fc1": lambda x, W, b, R: twins.z_box(x, W, b, R, high, low)}
    both(network, X, rules, swapped, "input", "the bounds of z^B swapped, low for high")
    assert judge(
        normalized(), IMAGES, {**BIGGER, "bn": Pass()}, {"fc": np.ones((3, 3))}, seed=np.ones((3, 3))
    ).agrees


def test_a_heatmap_in_channels_last_is_told_to_be_right_but_for_that():
    rng = np.random.default_rng(0)
    layers = [("conv", Conv2D(rng.standard_normal((2, 3, 2, 2)))), ("flat", Flatten())]
    network = Network(layers, (3, 4, 5))
    x = rng.standard_normal((2, 3, 4, 5))
    R = explain(network, x, composite="epsilon").relevance
    verdict = judge(network, x, "epsilon", {"input": R.transpose(0, 2, 3, 1)})
    assert not verdict.agrees and "the values are right, its axes moved (channels last)" in verdict.cause
    with pytest.raises(LRPError, match="nothing in the candidate can be compared"):
        judge(network, x, "epsilon", {"input": R[:, :2]})
