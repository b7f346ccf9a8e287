"""Which layer gets which rule, and the named presets of the literature."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from fnmatch import fnmatchcase
from inspect import signature
from typing import Any

import numpy as np

from .attributing import AbsLRP, ImageBox, RelativeAttribution
from .errors import LRPError
from .layers import KINDS, BatchNorm, Diagonal, Layer, kind_of
from .network import Network, Node
from .nonlinear import Bilinear, Gated, Nonlinear, SoftmaxTaylor, Uniform, accepts
from .rules import AlphaBeta, Epsilon, Flat, Gamma, Rule, WSquare, ZBox, ZPlus
from .text import aligned

FAMILIES = ("dense", "conv", "pool", "norm", "activation", "shape", "merge", "recurrent", "embedding")


class Composite:
    """An ordered mapping from layers to rules: of the entries that match a layer, the first counts.

    Parameters
    ----------
    entries : iterable of (what, rule)
        `what` is one of

        - ``"first"`` or ``"last"``: the dense and convolutional layers that no other such layer
          comes before, or after
        - a family: "dense", "conv", "pool", "norm", "merge", "recurrent"
        - a kind: ``"Conv2D"``, or the class; a class of your own is named like any other, and also is of
          the kind that it inherits from
        - the name of a layer, with wildcards as in ``"block1_*"``
        - a position in the network, counted from 0 (or from the end, -1)
        - a function of (network, node) that says yes or no
    default : Rule
        For layers that no entry matches.

    Examples
    --------
    >>> from numpylrp.layers import Dense, ReLU
    >>> net = Network(
    ...     [("fc1", Dense([[1.0]])), ("relu", ReLU()), ("fc2", Dense([[1.0]]))], input_shape=(1,)
    ... )
    >>> print(Composite([("first", Flat()), ("fc*", ZPlus())]).table(net))
    layer  kind   rule
    fc1    Dense  Flat()
    relu   ReLU   (unchanged)
    fc2    Dense  ZPlus()
    """

    def __init__(self, entries: Iterable[tuple[Any, Rule]] = (), default: Rule | None = None) -> None:
        self.entries = tuple(entries)
        self.default = Epsilon() if default is None else default
        for entry in self.entries:
            if not (isinstance(entry, tuple) and len(entry) == 2):
                raise LRPError(f"an entry must be a pair (what, rule), not {entry!r}")
        for rule in (*(rule for _, rule in self.entries), self.default):
            if not isinstance(rule, Rule):
                raise LRPError(f"a composite maps layers to rules, but {rule!r} is not a rule")
        if isinstance(self.default, Nonlinear):
            raise LRPError(f"{self.default!r} is a rule for some kinds of layers: give it in an entry")

    def preceded(self, *entries: tuple[Any, Rule]) -> Composite:
        """The same composite with entries that come before its own."""
        return Composite((*entries, *self.entries), self.default)

    def rules(self, network: Network) -> dict[str, Rule]:
        """The rule of every layer of the network that takes one, by the layer's name."""
        tests = [(_test(what, network), rule) for what, rule in self.entries]
        found = {}
        for node in network.nodes:
            fit = (rule for test, rule in tests if accepts(node.layer, rule) and test(node))
            rule = next(fit, self.default if node.layer.takes_rule else None)
            if rule is not None:
                found[node.name] = rule
        return found

    def table(self, network: Network) -> str:
        """What every layer would do with relevance, before anything is run."""
        rules = self.rules(network)
        rows = [("layer", "kind", "rule")]
        for node in network.nodes:
            what = rules.get(node.name) or f"({node.layer.way_back})"
            rows.append((node.name, type(node.layer).__name__, str(what)))
        return aligned(rows)


def weighted(network: Network) -> list[Node]:
    """The dense and convolutional layers, in order."""
    return [node for node in network.nodes if node.layer.family in ("dense", "conv")]


def ends(network: Network, last: bool) -> set[str]:
    """The weighted layers with no weighted layer before them (or, where `last`, after them)."""
    seen: set[str] = set()  # nodes that a weighted layer lies before (or after)
    found = set()
    for node in reversed(network.nodes) if last else network.nodes:
        near = [n.name for n in network.readers(node.name)] if last else node.inputs
        covered = any(name in seen for name in near)
        is_weighted = node.layer.family in ("dense", "conv")
        if is_weighted and not covered:
            found.add(node.name)
        if is_weighted or covered:
            seen.add(node.name)
    return found


def _test(what: Any, network: Network) -> Callable[[Node], bool]:
    if what in ("first", "last"):
        names = ends(network, what == "last")
        return lambda node: node.name in names
    if isinstance(what, str) and what in FAMILIES:
        return lambda node: node.layer.family == what
    if isinstance(what, str) and what in KINDS:
        what = KINDS[what]
    if isinstance(what, type) and issubclass(what, Layer):
        known = KINDS.get(what.__name__) is what
        return lambda node: kind_of(node.layer) is what if known else isinstance(node.layer, what)
    if isinstance(what, str):
        if not any(fnmatchcase(node.name, what) for node in network.nodes):
            if any(what in _kind_names(node.layer) for node in network.nodes):
                return lambda node: what in _kind_names(node.layer)
            raise LRPError(f"the composite names {what!r}, but the network has no such layer, kind or family")
        return lambda node: fnmatchcase(node.name, what)
    if isinstance(what, int) and not isinstance(what, bool):
        if not -len(network) <= what < len(network):
            raise LRPError(f"the composite names layer {what}, but the network has {len(network)} layers")
        return lambda node: node is network.nodes[what]
    if callable(what):
        return lambda node: bool(what(network, node))
    raise LRPError(f"a composite can't match layers by {what!r}")


def _kind_names(layer: Layer) -> set[str]:
    """The name of a layer's class, and of the layer classes that it inherits from."""
    return {kind.__name__ for kind in type(layer).__mro__ if issubclass(kind, Layer)}


def input_range(network: Network, low: Any = None, high: Any = None) -> tuple[Any, Any]:
    """Bounds of the input: those given, else ``input_range`` of the metadata."""
    known = network.metadata.get("input_range", (None, None))
    low, high = (k if given is None else given for given, k in zip((low, high), known))
    if low is None or high is None:
        raise LRPError(
            "the z^B rule needs the bounds of the input: give low and high (the model has no input_range)"
        )
    return low, high


def boxes(network: Network, low: Any = None, high: Any = None) -> list[tuple[Callable, Rule]]:
    """The z^B rule for each first layer, with the bounds of what that layer sees.

    Between the input and a first layer may lie what moves values, scales them one by one (rescaled
    pixels, standardized channels) or pools them: the bounds go through it.

    Raises
    ------
    LRPError
        The bounds are not known, or something else lies between.
    """
    low, high = input_range(network, low, high)
    first = sorted(ends(network, False))
    return [(one_layer(name), ZBox(*_bounds(network, name, low, high))) for name in first]


def one_layer(name: str) -> Callable[[Network, Node], bool]:
    """Match one layer, whose name may also be that of a family or have characters of a wildcard."""
    return lambda network, node: node.name == name


def _bounds(network: Network, name: str, low: Any, high: Any) -> tuple[Any, Any]:
    """Bounds of the input of a layer."""
    path = []
    while (source := network.node(name).inputs[0]) in network:
        path.append(network.node(source))
        name = source
    if not path:
        return low, high
    shape = network.inputs[source]
    if None in shape:
        raise LRPError(f"the bounds of the z^B rule can't be followed from an input of free size ({shape})")

    def sample(bound: Any) -> np.ndarray:
        bound = np.asarray(bound, float)
        view = bound.reshape(-1, *(1,) * (len(shape) - 1)) if bound.ndim == 1 and len(shape) > 1 else bound
        return np.broadcast_to(view, shape)[None]

    low, high = sample(low), sample(high)
    for node in reversed(path):
        if node.layer.family not in ("shape", "pool") and not isinstance(node.layer, Diagonal):
            raise LRPError(
                f"the bounds of the z^B rule can't be followed through layer {node.name!r} "
                f"({type(node.layer).__name__}): give the layer after it a ZBox rule of its own"
            )
        ends = node.layer.forward(low), node.layer.forward(high)
        low, high = np.minimum(*ends), np.maximum(*ends)
    one = np.ptp(low) == 0 and np.ptp(high) == 0
    return (float(low.flat[0]), float(high.flat[0])) if one else (low[0], high[0])


def _lower(network: Network, fraction: float) -> Callable[[Network, Node], bool]:
    """Match the convolutions in the lower part of the network."""
    convs = [n.name for n in network.nodes if n.layer.family == "conv"]
    lower = set(convs[: round(fraction * len(convs) + 0.499)])
    return lambda network, node: node.name in lower


def epsilon(network: Network, epsilon: float = 1e-6) -> Composite:
    """The epsilon rule everywhere (Bach et al. 2015)."""
    return Composite(default=Epsilon(epsilon))


def epsilon_plus(network: Network, epsilon: float = 1e-6) -> Composite:
    """z+ for convolutions, epsilon for the rest (Kohlbrenner et al. 2020)."""
    return Composite([("conv", ZPlus())], Epsilon(epsilon))


def epsilon_plus_flat(network: Network, epsilon: float = 1e-6) -> Composite:
    """`epsilon_plus` with flat for the first layer (Lapuschkin et al. 2019)."""
    return Composite([("first", Flat()), ("conv", ZPlus())], Epsilon(epsilon))


def epsilon_gamma_box(
    network: Network, gamma: float = 0.25, epsilon: float = 1e-6, low: Any = None, high: Any = None
) -> Composite:
    """z^B for the first layer, gamma for convolutions, epsilon for the rest (Montavon et al. 2019)."""
    return Composite([*boxes(network, low, high), ("conv", Gamma(gamma))], Epsilon(epsilon))


def epsilon_alpha2_beta1(network: Network, epsilon: float = 1e-6) -> Composite:
    """Alpha 2, beta 1 for convolutions, epsilon for the rest (Lapuschkin et al. 2017)."""
    return Composite([("conv", AlphaBeta(2.0, 1.0))], Epsilon(epsilon))


def epsilon_alpha2_beta1_flat(network: Network, epsilon: float = 1e-6) -> Composite:
    """`epsilon_alpha2_beta1` with flat for the first layer (Kohlbrenner et al. 2020)."""
    return Composite([("first", Flat()), ("conv", AlphaBeta(2.0, 1.0))], Epsilon(epsilon))


def excitation_backprop(network: Network) -> Composite:
    """z+ without bias for dense and convolutional layers (Zhang et al. 2016)."""
    plus = ZPlus(bias=False)
    return Composite([("dense", plus), ("conv", plus), ("pool", plus)])


SAMPLE_NORMS = [
    (kind, Epsilon()) for kind in ("LayerNorm", "GroupNorm", "InstanceNorm", "RMSNorm", "UnitNorm")
]
"""Normalization by the sample's own statistics takes the epsilon rule in every preset."""


def z_plus(network: Network) -> Composite:
    """z+ for all layers."""
    return Composite(SAMPLE_NORMS, ZPlus())


def lrp_overview(
    network: Network, gamma: float = 0.25, epsilon: float = 0.25, low: Any = None, high: Any = None
) -> Composite:
    """Rules by depth, as the LRP overview has them for VGG-16 (Montavon et al. 2019, fig. 10.6).

    LRP-0 for dense layers, epsilon (relative to the root mean square of z) for the upper half of the
    convolutions, gamma for the lower half, z^B at the pixels.
    """
    return Composite(
        [
            *boxes(network, low, high),
            (_lower(network, 0.5), Gamma(gamma, epsilon=1e-9)),
            ("conv", Epsilon(epsilon, relative=True)),
            ("dense", Epsilon(0.0)),
        ],
        Epsilon(1e-9),
    )


def deep_taylor(network: Network, low: Any = None, high: Any = None) -> Composite:
    """z+ for hidden layers, z^B for the first, or w^2 where bounds are not known (Montavon et al. 2017)."""
    known = "input_range" in network.metadata or not (low is None and high is None)
    first = boxes(network, low, high) if known else [("first", WSquare())]
    return Composite([*first, *SAMPLE_NORMS], ZPlus())


def attn_lrp(network: Network, epsilon: float = 1e-6) -> Composite:
    """Products by halves, softmax by its Taylor form, epsilon else (AttnLRP, Achtibat et al. 2024).

    As in the paper where ``normalization="linear"``: fusing takes gamma and beta of a LayerNorm along.
    """
    special = [
        ("MatMul", Bilinear(epsilon)),
        ("Softmax", SoftmaxTaylor()),
        ("MaskedSoftmax", SoftmaxTaylor()),
        ("Multiply", Uniform()),
        ("recurrent", Gated(Uniform(), Epsilon(epsilon))),
    ]
    return Composite(special, Epsilon(epsilon))


def cp_lrp(network: Network, epsilon: float = 1e-6) -> Composite:
    """The epsilon rule with attention held: values take all, queries and keys nothing (Ali et al. 2022)."""
    return Composite([], Epsilon(epsilon))


def lstm(network: Network, epsilon: float = 1e-3) -> Composite:
    """The epsilon rule, and in recurrent layers the signal takes all (Arras et al. 2017)."""
    return Composite([("recurrent", Gated(sums=Epsilon(epsilon)))], Epsilon(epsilon))


def rap(network: Network, doubled: bool = False) -> Composite:
    """Relative Attributing Propagation (Nam et al. 2020), as the authors' code computes it.

    The last layer by absolute contributions, then `RelativeAttribution` with its shift; a first convolution
    of three channels gets z^B with the bounds of each image; pooling and sums LRP-0. RAP depends on whether
    normalization is fused: unfused (``normalization="linear"``), it passes relevance on unchanged, as their
    code does, but for values that are 0. `doubled` is what their code does with inputs of both signs.
    """

    def colour(network: Network, node: Node) -> bool:
        shape = {**network.inputs, **network.shapes}[node.inputs[0]]
        return node.name in ends(network, False) and node.layer.family == "conv" and shape[0] == 3

    return Composite(
        [
            ("last", AbsLRP()),
            (colour, ImageBox()),
            ("conv", RelativeAttribution(inhibiting=True, doubled=doubled)),
            ("dense", RelativeAttribution(doubled=doubled)),
            (lambda network, node: isinstance(node.layer, Diagonal), AbsLRP()),
        ],
        Epsilon(0.0),
    )


PRESETS: dict[str, Callable[..., Composite]] = {
    "epsilon": epsilon,
    "epsilon-plus": epsilon_plus,
    "epsilon-plus-flat": epsilon_plus_flat,
    "epsilon-gamma-box": epsilon_gamma_box,
    "epsilon-alpha2-beta1": epsilon_alpha2_beta1,
    "epsilon-alpha2-beta1-flat": epsilon_alpha2_beta1_flat,
    "excitation-backprop": excitation_backprop,
    "z-plus": z_plus,
    "lrp-overview": lrp_overview,
    "deep-taylor": deep_taylor,
    "attnlrp": attn_lrp,
    "cp-lrp": cp_lrp,
    "lstm": lstm,
    "rap": rap,
}
"""The presets by name: functions of a network, and of what the preset leaves open."""


def standardizations(network: Network) -> list[str]:
    """The diagonal layers in front of the network: only moves and other diagonal layers lie before them.

    They rescale what the user gives to the layers after them, (x - mean) / std and the like. Batch
    normalization, which `explain` treats as it is told to, is none of them.
    """
    in_front = set(network.inputs)
    for node in network.nodes:
        moves = node.layer.family == "shape" or isinstance(node.layer, Diagonal)
        if moves and in_front.issuperset(node.inputs):
            in_front.add(node.name)
    if in_front.issuperset(network.outputs):
        return []
    found = (n for n in network.nodes if n.name in in_front and isinstance(n.layer, Diagonal))
    return [node.name for node in found if kind_of(node.layer) is not BatchNorm]


def named_layers(what: Any, network: Network) -> set[str]:
    """The layers that a composite gives a rule by their own name."""
    entries = what.entries if isinstance(what, Composite) else ()
    names = {name for name, _ in entries if isinstance(name, str)}
    return {name for name in names if name in network} - {*FAMILIES, *KINDS, "first", "last"}


def find_composite(what: Any, network: Network, **options: Any) -> Composite:
    """A composite from its name, from one rule for all layers, or from itself.

    Parameters
    ----------
    what : str, Rule or Composite
        A name in `PRESETS`.
    network : Network
    **options
        What the preset takes: ``low``, ``high``, ``gamma``, ``epsilon``.
    """
    if isinstance(what, Rule):
        what = Composite(default=what)
    named = isinstance(what, str)
    if not isinstance(what, Composite) and not (named and what in PRESETS):
        raise LRPError(f"there is no composite {what!r}; there are {', '.join(PRESETS)}")
    takes = _takes(what) if named else []
    for option in options:
        if option not in takes:
            others = ", ".join(name for name in PRESETS if option in _takes(name))
            raise LRPError(
                (f"composite {what!r}" if named else "a composite of your own, or a rule,")
                + f" does not take {option}; it takes {', '.join(takes) or 'nothing of the kind'}"
                + (f"; {option} is for {others}" if others else "")
                + ("; or give the first layer a rule ZBox(low, high)" if option in ("low", "high") else "")
            )
    return PRESETS[what](network, **options) if named else what


def _takes(preset: str) -> list[str]:
    return list(signature(PRESETS[preset]).parameters)[1:]
