"""What other libraries would say: their conventions by name, with the deviations that are known of them.

`CONVENTIONS` has one entry a library. Its `translate` gives, for a layer and a rule of `numpylrp.rules`, the
rule that computes what the library gives when it is asked for that rule, and raises `UnsupportedError` where
it has none. The variants are rules themselves, each under its equation, so that `numpylrp.explain` runs them,
and `deviations` measures how far each lies from the definition.

The code was read at these versions: zennit 0.5.1, captum 0.9.0, innvestigate 2.1.2, lrp_toolbox's Python
modules (April 2022), LXT's explicit functions (2026), TorchLRP (February 2021), RAP (December 2020).
zennit and captum are also run in the tests. An epsilon that was not asked for (the default of our rule) is
the library's.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any, NamedTuple

import numpy as np

from ..errors import LRPError, UnsupportedError
from ..layers import (
    Add,
    BatchNorm,
    Conv2D,
    Dense,
    GlobalSumPool,
    Layer,
    MaxPool2D,
    SumPool2D,
)
from ..layers.base import Linear
from ..layers.pool import AveragePool2D
from ..network import Network
from ..rules import (
    LRP0,
    AbsZ,
    AlphaBeta,
    Epsilon,
    Favour,
    Flat,
    Gamma,
    Pass,
    Rule,
    WSquare,
    ZBox,
    ZPlus,
    positive,
    same,
)
from ..text import aligned
from . import sequence_conventions as sequences
from .variants import (
    BiasInBoth,
    CentredNorm,
    Even,
    FavourSquare,
    GammaOpen,
    Gradient,
    On,
    Quarters,
    RTwice,
    Scaled,
    ScaleOnly,
    Stabilized,
    Ties,
    Variant,
    Weights,
    WSquareBias,
    ZBoxOwn,
    fused_in_innvestigate,
    takes_the_maximum,
)

# ---------------------------------------------------------------- the libraries


@dataclass(frozen=True)
class Convention:
    """How a library does it.

    Attributes
    ----------
    name, version : str
    stabilizer : str
        In words.
    epsilon : float
        Its default.
    notes : dict of str
        Deviations from the definition in words, by the name of the rule, or of the layer.
    """

    name: str
    version: str
    stabilizer: str
    epsilon: float
    notes: Mapping[str, str] = field(default_factory=dict)
    rules: Callable[[Layer, Rule], Rule | None] = field(default=lambda layer, rule: rule, repr=False)
    layers: Callable[[Layer], Any] = field(default=lambda layer: layer, repr=False)

    def translate(self, layer: Layer, rule: Rule) -> Rule:
        """The rule that computes what the library gives when it is asked for `rule` on `layer`.

        Raises
        ------
        UnsupportedError
            The library has no such rule, or not for this layer.

        Examples
        --------
        >>> CONVENTIONS["captum"].translate(Dense([[1.0]]), Gamma(0.5))
        Stabilized(Weights(w + gamma w+), 1e-09, sign(0) = +1)
        """
        if self.name != "numpylrp" and not isinstance(layer, Linear):
            raise UnsupportedError(f"what {self.name} makes of {type(layer).__name__} is not known here")
        found = self.rules(layer, rule)
        if found is None:
            kind = type(layer).__name__
            why = f" ({self.notes[kind]})" if kind in self.notes else ""
            raise UnsupportedError(f"{self.name} {self.version} has no {rule} for {kind}{why}")
        return found

    def layer(self, layer: Layer) -> Any:
        """What the library has for a layer that takes no rule: itself, or a `Ties` or `Scaled`."""
        return layer if layer.takes_rule else self.layers(layer)


def _epsilon(rule: Rule, default: float) -> float:
    """The epsilon that was asked for, else the library's."""
    own = next((f.default for f in fields(rule) if f.name == "epsilon"), rule.epsilon)  # type: ignore[arg-type]
    return default if rule.epsilon == own else rule.epsilon


def _weighted(layer: Layer) -> bool:
    return layer.family in ("dense", "conv")


def _zennit(layer: Layer, rule: Rule) -> Rule | None:
    eps = _epsilon(rule, 1e-6)
    if isinstance(layer, BatchNorm) or isinstance(rule, Pass):
        return Pass()
    if isinstance(rule, (AbsZ, Variant)) or layer.family == "norm":
        return None
    if not _weighted(layer):  # no parameters to change: what a rule does to them is without effect
        if isinstance(rule, (WSquare, Flat)) and not layer.merges:
            return Even(eps)
        return rule if isinstance(rule, Epsilon) else Epsilon(eps)
    if isinstance(rule, Gamma):
        return GammaOpen(rule.gamma, eps)
    if type(rule) is WSquare:
        return WSquareBias(eps)
    return replace(rule, epsilon=eps)  # type: ignore[type-var]


def _captum(layer: Layer, rule: Rule) -> Rule | None:
    eps = _epsilon(rule, 1e-9)
    if isinstance(rule, Pass):
        return rule
    if isinstance(rule, Epsilon):
        return None if rule.relative else Epsilon(eps)
    positive_only = isinstance(rule, AlphaBeta) and rule.beta == 0
    if not (isinstance(rule, Gamma) or positive_only) or layer.family == "norm":
        return None
    if not _weighted(layer):  # nothing to change
        return Epsilon(eps)
    if isinstance(rule, Gamma):
        return Stabilized(Weights(Favour(rule.gamma, 1)), eps)
    return Stabilized(Weights(positive, same if rule.bias else None), eps)  # type: ignore[attr-defined]


def _innvestigate(layer: Layer, rule: Rule) -> Rule | None:
    zeros = lambda rule: Stabilized(rule, 1e-7, "zeros only")  # noqa: E731
    if isinstance(rule, Pass):
        return rule
    if isinstance(layer, BatchNorm) and isinstance(rule, Epsilon):
        return CentredNorm()
    if not _weighted(layer) and layer.family != "norm":
        return zeros(LRP0())
    if isinstance(rule, Epsilon):
        eps = _epsilon(rule, 1e-7)
        found = None if rule.relative else Epsilon(eps) if eps else zeros(rule)
    elif isinstance(rule, ZPlus):
        found = zeros(ZPlus(bias=False))
    elif isinstance(rule, AlphaBeta):
        found = zeros(BiasInBoth(rule.alpha, rule.beta) if rule.bias else rule)
    else:
        found = zeros(rule) if isinstance(rule, (WSquare, ZBox)) else None
    if found is not None and isinstance(layer, BatchNorm):
        return On(found, fused_in_innvestigate(layer))
    return found if _weighted(layer) else None


def _lrp_toolbox(layer: Layer, rule: Rule) -> Rule | None:
    pools = isinstance(layer, (SumPool2D, GlobalSumPool))
    padded = getattr(layer, "padding", ()) not in ((), ((0, 0),), ((0, 0), (0, 0)))
    if not (_weighted(layer) or pools) or padded:
        return None
    if isinstance(rule, Epsilon):
        return None if rule.relative else Epsilon(_epsilon(rule, 0) or (1e-12 if pools else 1e-16))
    if isinstance(rule, AlphaBeta) and rule.bias:
        if pools and rule.beta:
            return RTwice(rule.alpha, rule.beta, 1e-16)
        return replace(rule, epsilon=_epsilon(rule, 1e-16))
    return rule if isinstance(rule, WSquare) else None


def _lxt(layer: Layer, rule: Rule) -> Rule | None:
    if not isinstance(rule, Epsilon) or rule.relative or layer.family == "norm":
        return None
    return Stabilized(rule, _epsilon(rule, 1e-6 if layer.family == "dense" else 1e-8), "no sign")


def _torchlrp(layer: Layer, rule: Rule) -> Rule | None:
    if not _weighted(layer):
        return Gradient()
    if layer.family == "conv" and not (
        isinstance(layer, Conv2D)
        and layer.stride == layer.dilation == (1, 1)
        and layer.padding == ((1, 1), (1, 1))
        and layer.groups == 1
    ):
        return None
    if isinstance(rule, Epsilon):
        return None if rule.relative else Stabilized(rule, _epsilon(rule, 0.1), "sign(0) = -1")
    if isinstance(rule, Gamma):
        f = FavourSquare(rule.gamma)
        return Stabilized(Weights(f, f), _epsilon(rule, 1e-10), "sign(0) = -1")
    if isinstance(rule, AlphaBeta) and rule.alpha in (1, 2):
        return Stabilized(AlphaBeta(rule.alpha, rule.beta, bias=False), 1e-6, "zeros only")
    return None


def _rap(layer: Layer, rule: Rule) -> Rule | None:
    if isinstance(layer, BatchNorm):
        return ScaleOnly()
    if layer.family in ("pool", "merge"):
        return LRP0()
    if layer.family == "conv" and layer.channels[0] == 3:  # type: ignore[attr-defined]
        return ZBoxOwn()
    return Quarters(rule.alpha, rule.beta) if _weighted(layer) and isinstance(rule, AlphaBeta) else None


CONVENTIONS: dict[str, Convention] = {
    c.name: c
    for c in (
        Convention("numpylrp", "", "z + eps sign z, sign(0) = +1", 1e-6),
        Convention(
            "zennit",
            "0.5.1",
            "z + eps sign z, sign(0) = +1, in all its rules",
            1e-6,
            {
                "Gamma": "relevance of outputs that are exactly 0 is dropped",
                "WSquare": "b^2 in the denominator",
                "BatchNorm": "relevance passes unchanged, unless a canonizer merged it",
                "Pool": "z+, gamma and alpha-beta on a pooling are the epsilon rule",
                "Epsilon": "with epsilon 0, 0/0 is NaN (here 0)",
            },
            _zennit,
        ),
        Convention(
            "captum",
            "0.9.0",
            "z + eps sign z, sign(0) = +1",
            1e-9,
            {
                "Gamma": "weights only: w + gamma w+ whatever the sign of x, z as of x >= 0; bias as it is",
                "ZPlus": "weights only: w+ whatever the sign of x; bias as it is, also where it is negative",
                "MaxPool2D": "epsilon rule: relevance of a maximum that is exactly 0 is dropped",
            },
            _captum,
            lambda layer: Scaled(layer, 1e-9) if takes_the_maximum(layer) else layer,
        ),
        Convention(
            "innvestigate",
            "2.1",
            "epsilon rule sign-aware, sign(0) = +1; others replace exact zeros",
            1e-7,
            {
                "AlphaBeta": "the whole bias in both denominators",
                "ZPlus": "without bias",
                "BatchNorm": "epsilon: eps is added to (x - mean) y; other rules: sqrt(var**2 + eps), "
                "and gamma missing from the shift",
                "Pool": "always LRP-0",
            },
            _innvestigate,
        ),
        Convention(
            "lrp_toolbox",
            "2022",
            "z + eps sign z, sign(0) = +1",
            1e-16,
            {
                "Pool": "alpha-beta with beta > 0 multiplies the negative part of sum pooling by R twice",
                "MaxPool2D": "equal maxima share equally",
                "Conv2D": "no padding",
            },
            _lrp_toolbox,
            lambda layer: Ties(layer, "equal") if takes_the_maximum(layer) else layer,
        ),
        Convention(
            "LXT",
            "2",
            "z + eps, not sign-aware",
            1e-6,
            {"Epsilon": "1e-6 for fully connected layers, 1e-8 for others and sums"},
            _lxt,
        ),
        Convention(
            "TorchLRP",
            "2021",
            "z + eps sign z, sign(0) = -1; alpha-beta replaces exact zeros by 1e-6",
            0.1,
            {
                "Epsilon": "epsilon is 0.1",
                "Gamma": "w + gamma w+^2, weights only, b + gamma b+^2; gamma is fixed at 0.1 in its code",
                "AlphaBeta": "without bias",
                "ZPlus": "without bias",
                "Conv2D": "the way back assumes padding 1 and stride 1: other convolutions fail",
                "Pool": "plain gradient: average pooling, batch normalization and sums have no rule",
                "BatchNorm": "plain gradient",
            },
            _torchlrp,
        ),
        Convention(
            "RAP",
            "2020",
            "only exact zeros, whose relevance is dropped",
            1e-9,
            {
                "AlphaBeta": "x+ w+ and x- w- each divided by its own sum: R twice where x has both signs; "
                "no bias; a convolution of 3 channels takes z^B with the image's own bounds",
                "ZPlus": "as AlphaBeta",
                "BatchNorm": "g x / (g x + 1e-9) R, the identity",
                "Pool": "always LRP-0",
            },
            _rap,
            lambda layer: Scaled(layer, 0.0) if takes_the_maximum(layer) else layer,
        ),
    )
}
"""The libraries by name."""


def convention(what: str | Convention) -> Convention:
    """A convention from its name, or itself."""
    if isinstance(what, Convention):
        return what
    if what not in CONVENTIONS:
        raise LRPError(f"there is no convention {what!r}; there are {', '.join(CONVENTIONS)}")
    return CONVENTIONS[what]


def translated(network: Network, rules: Mapping[str, Rule], what: str | Convention) -> dict[str, Rule]:
    """The rules of a network's layers as a library would apply them.

    Parameters
    ----------
    network : Network
    rules : mapping of layer name to Rule
        As of ``Composite.rules(network)``.
    what : str or Convention

    Raises
    ------
    UnsupportedError
        The library has no such rule; with the layer's name.
    """
    found = {}
    for name, rule in rules.items():
        try:
            found[name] = convention(what).translate(network[name], rule)
        except UnsupportedError as error:
            raise UnsupportedError(f"layer {name!r}: {error}") from None
    return found


# ---------------------------------------------------------------- their size


class Case(NamedTuple):
    """One layer, its input, relevance of its output, and a rule (None for a layer that takes none)."""

    row: str
    column: str
    layer: Any
    x: Any
    R: np.ndarray
    rule: Rule | None


class Deviation(NamedTuple):
    """How far a library lies from the definition: the largest difference over the largest |R|."""

    library: str
    row: str
    column: str
    size: float | None
    """None where the library has no such rule."""


def cases() -> list[Case]:
    """A fixed set of small layers, for every rule: x >= 0, x of both signs, and an output that is exactly 0.

    Outputs are at least 0.05 in size but where they are 0, so that no size hangs on rounding.
    """
    rng = np.random.default_rng(0)
    W = np.round(rng.uniform(-1, 1, (3, 5)), 2)
    b = np.array([0.25, -0.25, 0.5])
    R = np.array([[1.0, -0.5, 2.0]])
    mixed = np.array([[1.0, -0.5, 0.75, -1.25, 0.5]])
    zero = Dense([[1.0, 1.0, -0.5, 0.25, -0.5], *W[1:]], [-0.5, *b[1:]])
    at_zero = np.array([[1.0, 0.5, 1.0, 1.0, 1.5]])  # z = 1 + 0.5 - 0.5 + 0.25 - 0.75 - 0.5 = 0
    rules = {
        "LRP-0": LRP0(),
        "Epsilon": Epsilon(),
        "Gamma": Gamma(),
        "ZPlus": ZPlus(),
        "AlphaBeta": AlphaBeta(),
        "WSquare": WSquare(),
        "Flat": Flat(),
        "ZBox": ZBox(-2.0, 2.0),
    }
    found = []
    for name, rule in rules.items():
        found.append(Case(name, "x >= 0", Dense(W, b), abs(mixed), R, rule))
        found.append(Case(name, "mixed x", Dense(W, b), mixed, R, rule))
        found.append(Case(name, "z = 0", zero, at_zero, R, rule))
    image = np.array([[[[1.0, 2.0], [3.0, -2.5]]]])
    norm = BatchNorm([1.5], [0.25], [0.5], [2.0], 1e-3)  # type: ignore[arg-type]
    pixels = np.arange(1.0, 5.0).reshape(1, 1, 2, 2)
    for name, rule in (("Epsilon", Epsilon()), ("ZPlus", ZPlus()), ("AlphaBeta", AlphaBeta())):
        found.append(Case(f"BatchNorm, {name}", "mixed x", norm, image, pixels, rule))
        found.append(Case(f"Pool, {name}", "x >= 0", AveragePool2D(2), abs(image), pixels[..., :1, 1:], rule))
        found.append(Case(f"Pool, {name}", "mixed x", AveragePool2D(2), image, pixels[..., :1, 1:], rule))
    branches = (np.array([[1.0, 2.0]]), np.array([[-0.5, 3.0]]))
    found.append(Case("Add, Epsilon", "mixed x", Add(), branches, np.array([[1.0, -1.0]]), Epsilon()))
    pool = MaxPool2D(2)
    found.append(
        Case("MaxPool2D, ties", "x >= 0", pool, np.full((1, 1, 2, 2), 2.0), pixels[..., :1, :1], None)
    )
    found.append(Case("MaxPool2D, ties", "z = 0", pool, np.zeros((1, 1, 2, 2)), pixels[..., :1, :1], None))
    return found


def deviations(
    given: Iterable[Case] | None = None, conventions: Iterable[str] | None = None
) -> list[Deviation]:
    """How far the libraries lie from the definition.

    Parameters
    ----------
    given : iterable of Case, optional
        By default `cases`.
    conventions : iterable of str, optional
        By default all but our own.

    Returns
    -------
    list of Deviation

    Examples
    --------
    >>> x, R = np.ones((1, 1, 2, 2)), np.ones((1, 1, 1, 1))
    >>> [found] = deviations([Case("max", "", MaxPool2D(2), x, R, None)], ["lrp_toolbox"])
    >>> found.size
    0.75
    """
    given = cases() if given is None else list(given)
    names = [name for name in CONVENTIONS if name != "numpylrp"] if conventions is None else conventions
    return [
        Deviation(name, case.row, case.column, _size(convention(name), case))
        for name in names
        for case in given
    ]


def _size(what: Convention, case: Case) -> float | None:
    layer, x, rule = case.layer, case.x, case.rule
    y = layer.forward(x)
    try:
        theirs = what.layer(layer).relprop(case.R, x, y, rule and what.translate(layer, rule))
    except UnsupportedError:
        return None
    ours = layer.relprop(case.R, x, y, rule)
    pairs = zip(theirs, ours) if layer.merges else [(theirs, ours)]
    return max(float(abs(a - b).max()) for a, b in pairs) / float(abs(case.R).max())


def table(found: Iterable[Deviation] | None = None) -> str:
    """`deviations` as a table: a row for each library and rule, with what is known of it in words.

    A difference is relative to the largest |R|; where z = 0, R is divided by eps and differences are as
    large as 1 / eps. "-" stands for a rule that the library does not have. Of all libraries, a second table
    has attention, normalization and sums, against AttnLRP.
    """
    if found is None:
        return f"{table(deviations())}\n\n{_sequence_table()}"
    found = list(found)
    heads = list(dict.fromkeys(d.column for d in found))
    rows: dict[tuple, dict] = {}
    for d in found:
        rows.setdefault((d.library, d.row), {})[d.column] = (
            "-" if d.size is None else f"{d.size:.1e}" if d.size else "0"
        )
    lines = [("library", "rule", *heads, "known of it")]
    for (library, row), sizes in rows.items():
        if set(sizes.values()) == {"-"}:
            continue
        notes = convention(library).notes
        note = notes.get(row.split(",")[0], "")
        lines.append((library, row, *(sizes.get(head, "") for head in heads), note))
    return aligned(lines)


def _sequence_table() -> str:
    """`sequence_conventions.deviations` as a table: a row for each library, a column for each layer."""
    found = sequences.deviations()
    kinds = list(dict.fromkeys(kind for _, kind, _ in found))
    lines = [("library", *kinds, "known of it")]
    for name, known in sequences.CONVENTIONS.items():
        sizes = {kind: f"{size:.1e}" if size else "0" for library, kind, size in found if library == name}
        lines.append((f"{name} {known.version}", *(sizes.get(kind, "-") for kind in kinds), known.notes))
    return aligned(lines)
