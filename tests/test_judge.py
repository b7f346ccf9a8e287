"""The judge names what was planted, never a wrong cause, and rejects nobody who is right."""

import os
from pathlib import Path

import faulty
import networks
import numpy as np
import pytest
from test_sequence_conventions import block

from numpylrp import Network, explain
from numpylrp import layers as L
from numpylrp.composite import Composite, attn_lrp
from numpylrp.planning import prepared
from numpylrp.rules import LRP0, Epsilon, Gamma, ZPlus
from numpylrp.validate import vectors
from numpylrp.validate.compare import judge
from numpylrp.validate.sequence_conventions import CONVENTIONS

VECTORS = Path(__file__).parent / "vectors"
EVERY = bool(os.environ.get("NUMPYLRP_EVERY_FAULT"))
"""All faults, which takes some minutes; else a few of each."""

# ---------------------------------------------------------------- what is wrong is named


@pytest.mark.parametrize("how", ["layers", "activations", "alone"])
@pytest.mark.parametrize("fused", [False, True])
def test_planted_faults_are_named(how, fused):
    """At least nine of ten; the others differ, but no wrong cause is named."""
    first = 2 * ["layers", "activations", "alone"].index(how) + fused
    faults = [f for f in faulty.planted(fused) if how != "alone" or f not in faulty.ONLY_LAYERS]
    some = faults if EVERY else faults[3 * first :: 24 if how == "alone" else 16]
    total = faulty.count(how, fused, some)
    assert not total["misleading"] and not total["agrees"], total
    assert total["right"] >= 0.9 * len(some), total


@pytest.mark.parametrize("how", ["layers", "activations", "alone"])
def test_other_faults_on_other_networks_are_named(how):
    """Residual blocks, concatenations, grouped convolutions; an implementation in PyTorch."""
    second = pytest.importorskip("second", reason="PyTorch is not installed")
    every = [(name, fault) for name, faults in second.FAULTS.items() for fault in faults]
    first = ["layers", "activations", "alone"].index(how)
    some = every if EVERY else every[first :: 45 if how == "alone" else 15]
    found = {}
    for name, fault in some:
        verdict = second.judged(name, fault, how)
        found[name, fault] = second.outcome(name, fault, verdict)
        assert found[name, fault] in ("right", "differs"), f"{name}, {fault}: {verdict}"
    assert sum(got == "right" for got in found.values()) >= 0.8 * len(some), found


@pytest.mark.parametrize("name", ["LXT explicit", "autolrp", "HiLRP", "Chefer"])
def test_conventions_for_attention_are_named(name):
    network, _ = block(np.random.default_rng(0))
    x, R = np.random.default_rng(1).standard_normal((2, 2, 5, 6))
    composite, apart = CONVENTIONS[name].composite(), {"normalization": "linear"}
    theirs = explain(network, x, seed=R, composite=composite, **apart).relevance
    verdict = judge(network, x, attn_lrp(network).rules(network), {"input": theirs}, seed=R)
    assert verdict["input"].fits == (f"{name} {CONVENTIONS[name].version}",), verdict


def test_every_hypothesis_can_be_tried():
    """None is lost to an error of its own."""
    from numpylrp.validate.candidate import given
    from numpylrp.validate.hypotheses import Case, tables
    from numpylrp.validate.search import Evidence, Search
    from numpylrp.validate.worlds import Question

    network, rules = faulty.library(faulty.parameters())
    question = Question(network, {"input": faulty.images()}, rules, target=1)
    case = Case(question, question.world())
    walked = case.world.walked({})
    arrays = given({"input": faulty.images()}, {k: a.shape for k, a in case.world.values.items()})
    evidence = Evidence(case, arrays, {}, [], {}, walked.found, None, dict(arrays.units), walked)
    search = Search(evidence, ["input"], [], 60.0)
    search.focus, search.opened = "input", {"input"}
    for hypothesis in (h for table in tables(case) for h in table):
        search.attempt(hypothesis, None, "")
    assert set(search.failed) <= {f"{rules['conv1']} instead"}, search.failed  # it checks its inputs


@pytest.mark.parametrize("fault", faulty.PAIRS[:3])
def test_a_fault_together_with_a_seed_of_1(fault):
    verdict = faulty.judged(fault, "alone", extra=("seed 1",))
    assert faulty.outcome(fault, verdict) == "right", verdict
    assert "together with a seed of 1" in verdict.cause


@pytest.mark.parametrize(
    "fault, layer", [("bn no eps", "bn1"), ("dropout", "relu5"), ("flip forward", "conv1")]
)
def test_a_bug_of_the_forward_pass_is_found_where_it_is(fault, layer):
    verdict = faulty.judged(fault, "activations")
    assert verdict.cause.startswith(f"the forward pass, {layer}"), verdict


def test_the_heatmap_alone_says_what_to_dump():
    verdict = faulty.judged("dropout", "alone", seconds=1)
    assert not verdict.first.fits and "differs" in verdict.cause
    text = str(verdict)
    assert text.startswith("To get further, dump relevance of layers as well (conv1, ")
    assert "register_forward_hook" in text.split("\n")[3]


# ---------------------------------------------------------------- what is right agrees


@pytest.mark.parametrize("how", ["layers", "activations", "alone"])
@pytest.mark.parametrize("fused", [False, True])
def test_the_same_implementation_without_faults_agrees(how, fused):
    verdict = faulty.judged("none", how, fused)
    assert verdict.agrees, verdict
    assert all(row.bound < 1e-11 for row in verdict.rows), "a bound that is no excuse"


def own(explanation, network):
    found = {name: step.arrays["R"] for name, step in explanation.steps.items() if step.arrays}
    R = explanation.relevance
    return {**found, **(R if isinstance(R, dict) else {next(iter(network.inputs)): R})}


def by_name(rules):
    return Composite(
        [(lambda network, node, name=name: node.name == name, rule) for name, rule in rules.items()]
    )


@pytest.mark.parametrize("path", sorted(VECTORS.glob("*.h5")), ids=lambda path: path.stem)
def test_published_vectors_agree_with_themselves_and_in_float32(path):
    given = vectors.read(path)
    single = {name: np.float32(value) for name, value in given.x.items()}
    for case in given.cases.values():
        options = {"seed": case.seed, "normalization": case.normalization}
        rounded = {name: np.float32(R) for name, R in case.R.items()}
        steps = explain(
            given.network.astype(np.float32), single, composite=by_name(case.rules), trace=True, **options
        )
        for candidate in (case.R, rounded, own(steps, given.network)):
            verdict = judge(given.network, given.x, case.rules, candidate, **options)
            assert verdict.agrees, f"{path.stem}, {case}: {verdict}"


def normalized(seed):
    r = np.random.default_rng(seed)

    def norm(n):
        gamma = r.uniform(0.5, 1.5, n) * r.choice([-1, 1], n)
        return L.BatchNorm(gamma, r.normal(size=n), r.normal(size=n), r.uniform(0.3, 2, n))

    return Network(
        [
            ("conv1", L.Conv2D(r.normal(0, 0.2, (8, 3, 3, 3)), r.normal(0, 0.1, 8), padding=1)),
            ("bn1", norm(8)),
            ("relu1", L.ReLU()),
            ("pool", L.MaxPool2D(2)),
            ("conv2", L.Conv2D(r.normal(0, 0.1, (8, 8, 3, 3)), padding=1)),
            ("bn2", norm(8)),
            ("sum", L.Add(), ("bn2", "pool")),
            ("relu2", L.ReLU()),
            ("gap", L.GlobalAveragePool()),
            ("fc", L.Dense(r.normal(size=(5, 8)), r.normal(size=5))),
        ],
        (3, 8, 8),
    )


def deep(seed):
    r = np.random.default_rng(seed)
    layers = []
    for k in range(10):
        weight = r.normal(0, np.sqrt(2 / 72), (8, 8 if k else 3, 3, 3))
        layers += [(f"conv{k}", L.Conv2D(weight, r.normal(0, 0.1, 8), padding=1)), (f"relu{k}", L.ReLU())]
    return Network(
        [*layers, ("gap", L.GlobalAveragePool()), ("fc", L.Dense(r.normal(size=(5, 8))))], (3, 8, 8)
    )


RULES = (Epsilon(), "epsilon-plus", "epsilon-alpha2-beta1", LRP0(), Gamma(0.25), ZPlus(), "epsilon-plus-flat")


@pytest.mark.parametrize("seed", range(16 if EVERY else 7))
@pytest.mark.parametrize("make", [networks.chain, networks.graph, normalized, deep])
def test_right_runs_agree(make, seed):
    """float64, float32 (also handed over as float64), plain and fast; ties and flat regions on purpose."""
    network, r = make(seed), np.random.default_rng(seed + 100)
    x = r.normal(size=(3, *network.inputs["input"]))
    if seed % 3 == 1:
        x = np.round(2 * x) / 2
    elif seed % 3 == 2:
        x[..., :3] = 0.5
    start = ("logit", "one-hot", "clrp1", "all")[seed % 4]
    for normalization in ("fused", "linear"):
        _, rules = prepared(network, RULES[seed % len(RULES)], normalization)
        options = {"seed": start, "normalization": normalization}
        single = network.astype(np.float32)
        steps = explain(single, np.float32(x), composite=rules, trace=True, **options)
        fast = explain(single, np.float32(x), composite=rules, **options).relevance
        whole = explain(network, x, composite=rules, **options).relevance
        for R in (own(steps, network), {"input": fast}, {"input": fast.astype(float)}, {"input": whole}):
            verdict = judge(network, x, rules, R, seconds=1, **options)
            assert verdict.agrees, f"{normalization}, {start}: {verdict}"


def test_pytorch_in_float32_agrees():
    """Gradient times input is LRP-0; on a chain of ReLU networks with ties and constant regions."""
    torch = pytest.importorskip("torch", reason="PyTorch is not installed")
    from numpylrp.validate.peers import AsTorch

    for seed in range(12):
        network = (networks.chain, deep, normalized)[seed % 3](seed).astype(np.float32)
        x = np.random.default_rng(seed).normal(size=(2, *network.inputs["input"])).astype(np.float32)
        if seed % 2:
            x[..., :4] = 0.25
        given = torch.from_numpy(x).requires_grad_()
        y = AsTorch(network)(given)
        target = int(seed % y.shape[1])
        (gradient,) = torch.autograd.grad(y[:, target].sum(), given)
        R = (given * gradient).detach().numpy()
        for normalization in ("linear", "fused"):
            options = {"target": target, "normalization": normalization, "seed": "logit"}
            verdict = judge(network, x, LRP0(), {"input": R}, **options)
            assert verdict.agrees, f"{seed}: {verdict}"


@pytest.mark.parametrize("seed", range(24 if EVERY else 2))
def test_another_implementation_agrees_in_every_precision(seed):
    """Sums in PyTorch's order and in another, normalization fused or not, ties on purpose."""
    second = pytest.importorskip("second", reason="PyTorch is not installed")
    import torch

    kind = ("mixed", "epsilon", "gamma", "z-plus", "alpha-beta", "flat", "w-square", "lrp-0")[seed % 8]
    for name, make in second.NETWORKS.items():
        network = make(seed)
        rules = second.rules_of(network, kind)
        x = np.random.default_rng(seed).normal(0, 1, (3, *network.inputs["input"])).clip(-3, 3)
        if seed % 3 == 1:
            x = np.round(2 * x) / 2
        elif seed % 3 == 2:
            x[..., : x.shape[-1] // 2] = 0.5
        for fused in (False, True)[: 1 if name == "dense_block" else 2]:
            for dtype, order in ((torch.float64, True), (torch.float32, False), (torch.float32, True)):
                R, values = second.run(network, rules, x, 1, (), dtype, order, fused)
                options = {"target": 1, "normalization": "fused" if fused else "linear", "seconds": 1}
                for candidate, own in ((R, None), ({"input": R["input"]}, None), (R, values)):
                    verdict = judge(network, x, rules, candidate, activations=own, **options)
                    assert verdict.agrees, f"{name}, {kind}, {dtype}: {verdict}"


# ---------------------------------------------------------------- what rounding decides


def test_what_rounding_decides_is_named_and_no_bug():
    network = Network(
        [("c", L.Conv2D(np.full((1, 1, 1, 3), 0.1))), ("p", L.MaxPool2D((1, 2)))], input_shape=(1, 1, 4)
    )
    x = np.array([[[[0.1, 0.2, 0.3, 0.1]]]])  # both windows sum to 0.06 times 10, in another order
    R = explain(network.astype(np.float32), x, composite="epsilon", seed="all").relevance
    verdict = judge(network, x, "epsilon", {"input": R}, seed="all")
    assert verdict.agrees and "rounding decides who wins a maximum in 'p'" in verdict.cause


def test_contrastive_seeds_are_judged_as_they_are_computed():
    first = Network([("d", L.Dense(np.eye(3) + 0.1))], input_shape=(3,))
    last = Network(
        [("a", L.Dense([[1.0, 1.0], [1.0, 0.0]])), ("d", L.Dense([[1.0, -1.0], [0.0, 0.0]]))],
        input_shape=(2,),
    )
    for start, network, x in (("clrp1", first, [[3.0, 2.0, 1.0]]), ("clrp2", last, [[3.0, 1.0]])):
        R = explain(network, x, composite="z-plus", seed=start).relevance
        assert judge(network, x, "z-plus", {"input": R}, seed=start).agrees


# ---------------------------------------------------------------- seeds, maps


def test_a_probability_of_nearly_1_is_no_one_hot():
    network = Network([("d", L.Dense([[12.0, 1.0], [1.0, 0.0]]))], input_shape=(2,))
    x, hot = [[1.0, 1.0]], np.array([[1.0, 0.0]])
    y = network.forward(x)
    p = np.exp(y) / np.exp(y).sum()
    assert 1 - p[0, 0] < 1e-5
    for start, cause in ((p * hot, "the probability as the seed"), (hot, "a seed of 1 instead of the logit")):
        R = explain(network, x, composite="epsilon", seed=start).relevance
        fits = judge(network, x, "epsilon", {"input": R})["input"].fits
        assert fits[0] == cause and not any("together with" in fit for fit in fits), fits


def test_another_class_is_named():
    network = Network([("d", L.Dense([[12.0, 1.0], [1.0, 0.0]]))], input_shape=(2,))
    other = explain(network, [[1.0, 1.0]], 1, composite="epsilon")
    verdict = judge(network, [[1.0, 1.0]], "epsilon", {"d": other.seed, "input": other.relevance})
    assert "another class: class 1 explained instead of class 0" in verdict.cause


def test_a_heatmap_summed_over_channels_is_taken():
    layers = [("c", L.Conv2D(np.ones((1, 3, 1, 1)))), ("f", L.Flatten()), ("d", L.Dense(np.ones((2, 4))))]
    network, x = Network(layers, input_shape=(3, 2, 2)), np.ones((1, 3, 2, 2))
    R = explain(network, x, composite="epsilon").relevance.sum(1)
    assert judge(network, x, "epsilon", {"input": R}).agrees
    assert not judge(network, x, "epsilon", {"input": 2 * R}).agrees


def test_alpha_beta_on_weights_without_its_bias():
    from numpylrp.validate.variants import AlphaBetaWeights

    layer, x, R = L.Dense([[1.0, 2.0]], [3.0]), np.ones((1, 2)), np.ones((1, 1))
    for bias, expected in ((True, [[1 / 6, 2 / 6]]), (False, [[1 / 3, 2 / 3]])):
        got = layer.relprop(R, x, layer.forward(x), AlphaBetaWeights(1, 0, 0, bias))
        np.testing.assert_allclose(got, expected, rtol=1e-12)
