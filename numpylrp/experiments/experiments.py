"""The six experiments: which methods, on which networks, and what the papers claim of them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..composite import find_composite
from ..evaluate.baselines import METHODS, Method, lrp
from ..network import Network
from ..pruning import Prune
from ..rules import AlphaBeta, Epsilon, Pass, Rule
from .claims import Comparison, compared
from .measures import LOWER, of_method
from .study import Study, Trained

TREATMENTS = ("fused", "linear", "identity", "abs-z")
COMPOSITES = ("epsilon", "z-plus", "epsilon-plus", "epsilon-alpha2-beta1", "epsilon-gamma-box")
BASELINES = {name: METHODS[name] for name in ("random", "gradient-x-input")}
CONVOLUTIONAL = ("mnist_cnn_bn", "mnist_cnn_pre", "mnist_cnn_post", "mnist_cnn_mark", "mnist_cnn_gap")
NATURAL = ("cifar_cnn_bn", "cifar_cnn_pre", "cifar_dense")
FAITHFUL = ("ABPC zero", "ABPC uniform")


@dataclass(frozen=True)
class Experiment:
    """A paper's claims, and how they are measured.

    Attributes
    ----------
    title, about : str
    networks : tuple of str
    methods : function of (study, network name)
        Methods by name.
    measures : tuple of str
    compare : function of (network, values)
        The comparisons that the claims are judged by; values are arrays by method and measure.
    shown : tuple of str
        The beginnings of the names of the methods whose maps are shown, nine at most.
    """

    title: str
    about: str
    networks: tuple[str, ...]
    methods: Callable[[Study, str], dict[str, Method]]
    measures: tuple[str, ...]
    compare: Callable[[Trained, dict[str, dict[str, np.ndarray]]], Iterator[Comparison]]
    shown: tuple[str, ...] = ("",)

    def run(self, study: Study) -> tuple[list[tuple], list[Comparison]]:
        """All means, as rows (network, seed, method, measure, values), and all comparisons."""
        rows: list[tuple] = []
        comparisons: list[Comparison] = []
        for one in study.trained(*self.networks):
            methods = self.methods(study, one.name)
            found = {name: of_method(study, one, name, m, self.measures) for name, m in methods.items()}
            for name, values in found.items():
                rows += [(one.name, one.seed, name, what, v) for what, v in values.items() if what != "score"]
            comparisons += self.compare(one, found)
        return rows, comparisons


def _pairs(
    claim: str, one: Trained, found: dict, better: str, worse: str, measures: tuple[str, ...]
) -> Iterator[Comparison]:
    for what in measures:
        if better in found and worse in found and what in found[better] and what in found[worse]:
            values = found[better][what], found[worse][what]
            where = (one.name, one.seed)
            yield compared(claim, where, f"{better} against {worse}", what, values, what in LOWER)


# ---------------------------------------------------------------- normalization


def _treated(study: Study, name: str) -> dict[str, Method]:
    composites = COMPOSITES[::2] if study.quick else COMPOSITES
    # between the input and the first convolution of a pre-activation network lies nothing, so all have bounds
    made = {f"{c}, {t}": lrp(c, t) for c in composites for t in TREATMENTS}
    return {**made, **BASELINES}


def _normalization(one: Trained, found: dict) -> Iterator[Comparison]:
    claim = "Heatmaps of fused networks are more accurate than those with normalization {} (Guillemot 2020)"
    others = {"linear": "as a layer of its own", "identity": "passed by", "abs-z": "under the |z|-rule"}
    for other, words in others.items():
        for composite in COMPOSITES:
            pair = f"{composite}, fused", f"{composite}, {other}"
            yield from _pairs(claim.format(words), one, found, *pair, (*FAITHFUL, "grid", "mark"))


# ---------------------------------------------------------------- the warning of dense networks


def _dense(study: Study, name: str) -> dict[str, Method]:
    return {**{f"{c}, fused": lrp(c) for c in COMPOSITES}, **BASELINES}


def _warning(one: Trained, found: dict) -> Iterator[Comparison]:
    kind = "with" if one.name.endswith("bn") else "without"
    for composite in COMPOSITES:
        name = f"{composite}, fused"
        claim = f"LRP on fully connected networks {kind} normalization is better than a random order"
        yield from _pairs(claim, one, found, name, "random", FAITHFUL)
    for composite in COMPOSITES:
        claim = f"LRP on fully connected networks {kind} normalization is better than gradient x input"
        yield from _pairs(claim, one, found, f"{composite}, fused", "gradient-x-input", FAITHFUL)


# ---------------------------------------------------------------- local response normalization

LRN_RULES: dict[str, Rule] = {
    "identity": Pass(),
    **{f"Taylor, epsilon {e:g}": Epsilon(e) for e in (0.01, 1.0, 100.0)},
    **{f"Taylor, beta {b}": AlphaBeta(1.0 + b, float(b)) for b in (0, 1)},
}


def _lrn_method(rule: Rule) -> Method:
    def method(network: Network, x: Any, target: Any = None) -> Any:
        composite = find_composite("epsilon-plus", network).preceded(("LRN", rule))
        return lrp(composite)(network, x, target)

    return method


def _lrn(study: Study, name: str) -> dict[str, Method]:
    return {**{text: _lrn_method(rule) for text, rule in LRN_RULES.items()}, **BASELINES}


def _taylor(one: Trained, found: dict) -> Iterator[Comparison]:
    for text in list(LRN_RULES)[1:]:
        claim = "The Taylor rule for local response normalization beats the identity (Binder 2016)"
        yield from _pairs(claim, one, found, text, "identity", FAITHFUL)


# ---------------------------------------------------------------- RAP

AGAINST = ("epsilon", "epsilon-alpha2-beta1", "deep-taylor")


def _rap(study: Study, name: str) -> dict[str, Method]:
    return {**{c: lrp(c) for c in ("rap", *AGAINST)}, **BASELINES}


RAP_MEASURES = {
    "outside-inside ratio": LOWER,
    "segmentation": ("IoU mean", "IoU 0.5"),
    "region perturbation": (*FAITHFUL, "AOPC positive", "rise negative"),
    "known truth": ("mark", "grid"),
}


def _attributing(one: Trained, found: dict) -> Iterator[Comparison]:
    for words, measures in RAP_MEASURES.items():
        for other in AGAINST:
            claim = f"RAP is better than {other} by {words} (Nam 2020)"
            yield from _pairs(claim, one, found, "rap", other, measures)


# ---------------------------------------------------------------- pruning

PARTS = (0.1, 0.25, 0.5)
PRUNED = {
    **{f"pruned {p:g}, scaled": Prune(p) for p in PARTS},
    "pruned 0.25, shared again": Prune(0.25, again=True),
}


def _pruning(study: Study, name: str) -> dict[str, Method]:
    made = {"unpruned": lrp("epsilon-plus")}
    return {**made, **{text: lrp("epsilon-plus", prune=p) for text, p in PRUNED.items()}, **BASELINES}


def _pruned(one: Trained, found: dict) -> Iterator[Comparison]:
    where = (one.name, one.seed)
    for text in PRUNED:
        claim = "Pruned relevance is sparser (Yanez Sarmiento 2024)"
        yield from _pairs(claim, one, found, text, "unpruned", ("Gini",))
        claim = "Pruned relevance lies more on what the class depends on (Yanez Sarmiento 2024)"
        yield from _pairs(claim, one, found, text, "unpruned", ("mark", "grid"))
        for what in FAITHFUL:
            values = found[text][what], 0.9 * found["unpruned"][what]
            claim = "Pruning keeps nine tenths of the faithfulness (Yanez Sarmiento 2024: a small loss)"
            yield compared(claim, where, f"{text} against 0.9 x unpruned", what, values)


# ---------------------------------------------------------------- contrast

GRIDS = ("grid", "grid, logit > 0")
SEEDS = {"SGLRP": "softmax-gradient", "CLRP1": "clrp1", "CLRP2": "clrp2"}


def _seeds(composite: str) -> list[tuple[str, str]]:
    """CLRP2 needs a rule that tells positive from negative weights in the last layer."""
    return [(text, seed) for text, seed in SEEDS.items() if composite == "z-plus" or text != "CLRP2"]


def _contrast(study: Study, name: str) -> dict[str, Method]:
    made = {}
    for composite in ("epsilon-plus", "z-plus", "epsilon-gamma-box"):
        made[f"{composite}, logit"] = lrp(composite)
        made |= {f"{composite}, {text}": lrp(composite, seed=seed) for text, seed in _seeds(composite)}
    return {**made, **BASELINES}


def _contrasted(one: Trained, found: dict) -> Iterator[Comparison]:
    where = (one.name, one.seed)
    for composite in ("epsilon-plus", "z-plus", "epsilon-gamma-box"):
        for text, _ in _seeds(composite):
            claim = f"{text} shows the class that was asked for better than the logit does"
            yield from _pairs(claim, one, found, f"{composite}, {text}", f"{composite}, logit", GRIDS)
            claim = f"{text} shows the class that was asked for (more than a quarter lies in its cell)"
            for what in GRIDS:
                values = found[f"{composite}, {text}"][what]
                chance = np.full(len(values), 0.25)
                yield compared(claim, where, f"{composite}, {text} against chance", what, (values, chance))


EXPERIMENTS: dict[str, Experiment] = {
    "normalization": Experiment(
        "Are heatmaps of fused networks more accurate?",
        "Each treatment of batch normalization under five composites, beside random and gradient x input.",
        (*CONVOLUTIONAL, "mnist_cnn_densebn", *NATURAL),
        _treated,
        ("perturbation", "gini", "absorbed", "object", "mark", "grid"),
        _normalization,
        ("epsilon, ", "epsilon-gamma-box, "),
    ),
    "dense-warning": Experiment(
        "Is LRP to be trusted on fully connected networks with normalization?",
        "The same network with and without batch normalization, against a random order and gradient x input.",
        ("mnist_fc", "mnist_fc_bn", "cifar_fc", "cifar_fc_bn"),
        _dense,
        ("perturbation", "gini", "absorbed", "object"),
        _warning,
    ),
    "lrn": Experiment(
        "Does the Taylor rule for local response normalization beat the identity?",
        "z+ for convolutions and epsilon for dense layers, with different rules for the normalization.",
        ("mnist_cnn_lrn", "cifar_cnn_lrn"),
        _lrn,
        ("perturbation", "gini", "object"),
        _taylor,
    ),
    "rap": Experiment(
        "Does Relative Attributing Propagation separate relevant from irrelevant better?",
        "RAP, LRP (epsilon; alpha 2 beta 1) and deep Taylor on fused networks, by the three measures.",
        ("mnist_cnn", "mnist_cnn_mark", "mnist_cnn_gap", "cifar_cnn", "cifar_cnn_bn"),
        _rap,
        ("perturbation", "signs", "gini", "object", "mark", "grid"),
        _attributing,
    ),
    "pruning": Experiment(
        "Does pruning relevance make it sparser at little cost?",
        "epsilon-plus, unpruned and pruned between layers, scaled (PLRP-lambda) and shared again (PLRP-M).",
        ("mnist_cnn_mark", "mnist_cnn_gap", "mnist_cnn_pre", "cifar_cnn_bn"),
        _pruning,
        ("perturbation", "gini", "mark", "grid"),
        _pruned,
    ),
    "contrast": Experiment(
        "Do SGLRP and CLRP show the class that was asked for?",
        "Mosaics of four images: the share of positive relevance in the cell of the class asked for.",
        ("mnist_cnn_gap", "cifar_cnn", "cifar_cnn_bn"),
        _contrast,
        ("grid of positive",),
        _contrasted,
        ("epsilon-plus, ", "z-plus, ", "gradient"),
    ),
}
"""The experiments by name."""
