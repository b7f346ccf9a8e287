"""What other libraries make of attention and recurrent layers, by name: composites of their rules.

Read in their code: LXT's explicit functions and its efficient form (2.1), autolrp 0.2, HiLRP 0.2, the code of
Chefer, Gur and Wolf (2021), and that of Arras et al. (2017). Where a library has no convention of its own for
a layer, or it is not known here, the definition stands, under the library's stabilizer. None of them fuses
normalization: explain with ``normalization="linear"``, or gamma and beta of a LayerNorm go into the next
dense layer first. LXT's explicit functions are run in the tests where they are installed.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import numpy as np

from .. import layers as L
from ..composite import Composite, attn_lrp
from ..errors import lookup
from ..network import Network
from ..nonlinear import (
    AbsBeta,
    Bilinear,
    Gated,
    Inner,
    Proportional,
    RatioOfSums,
    SignalTakesAll,
    SoftmaxTaylor,
    Spread,
    Uniform,
)
from ..rules import LRP0, AbsZ, Epsilon, Pass


@dataclass(frozen=True, repr=False)
class Unsigned(Epsilon):
    """The epsilon rule with ``z + eps`` for a denominator, whatever the sign of z (LXT).

    Examples
    --------
    >>> import numpy as np
    >>> from numpylrp.layers import Dense
    >>> dense, x = Dense([[-1.0, -1.0]]), np.array([[1.0, 1.0]])
    >>> dense.relprop(np.array([[3.0]]), x, dense.forward(x), Unsigned(0.5))
    array([[2., 2.]])
    """

    def stabilized(self, z):
        return z + self.epsilon


@dataclass(frozen=True, repr=False)
class UnsignedBilinear(Bilinear):
    """`numpylrp.nonlinear.Bilinear` with ``2 O + eps`` for a denominator (LXT)."""

    words: ClassVar[str] = Bilinear.words

    def inner(self, layer, R, x, y):
        for step in super().inner(layer, R, x, y):
            yield Inner(Unsigned(step.rule.epsilon), *step[1:])


class SequenceConvention(NamedTuple):
    """How a library does it: its name and version, what is particular in words, and its rules."""

    name: str
    version: str
    notes: str
    make: Callable[[], Composite]

    def composite(self) -> Composite:
        """The rules."""
        return self.make()


_SOFTMAX = [("Softmax", SoftmaxTaylor()), ("MaskedSoftmax", SoftmaxTaylor())]


def _lxt(dense: float, others: float) -> Callable[[], Composite]:
    return lambda: Composite(
        [
            *_SOFTMAX,
            ("MatMul", UnsignedBilinear(others)),
            ("Multiply", Uniform()),
            ("RMSNorm", Pass()),
            ("Add", Unsigned(others)),
        ],
        Unsigned(dense),
    )


def _efficient() -> Composite:
    return Composite(
        [*_SOFTMAX, ("MatMul", Bilinear(0.0)), ("Multiply", Uniform())],
        LRP0(),
    )


CONVENTIONS: dict[str, SequenceConvention] = {
    convention.name: convention
    for convention in (
        SequenceConvention(
            "LXT explicit",
            "2.1",
            "AttnLRP; z + eps, not sign-aware: 1e-6 for dense layers and normalization, 1e-8 for sums and "
            "products, on 2 O; RMSNorm passes unchanged",
            _lxt(1e-6, 1e-8),
        ),
        SequenceConvention(
            "LXT efficient",
            "2.1",
            "AttnLRP as gradient times input: no stabilizer; 1 / d of normalization held",
            _efficient,
        ),
        SequenceConvention(
            "autolrp",
            "0.2",
            "residual sums and products of values by |a| : |b|, LayerNorm by |y - beta| : |beta|",
            lambda: Composite(
                [("Add", AbsZ()), ("LayerNorm", AbsBeta()), ("Multiply", Proportional())], Epsilon(1e-6)
            ),
        ),
        SequenceConvention(
            "HiLRP",
            "0.2",
            "LayerNorm unchanged, beta and gamma ignored",
            lambda: Composite([("LayerNorm", Pass())], Epsilon(1e-6)),
        ),
        SequenceConvention(
            "Chefer",
            "2021",
            "residual sums by the ratio of the branches' sums; LayerNorm unchanged",
            lambda: Composite([("Add", RatioOfSums()), ("LayerNorm", Pass())], Epsilon(1e-9)),
        ),
        SequenceConvention(
            "Arras",
            "2017",
            "signals take all, eps 1e-3 sign-aware, sign(0) = +1; bias and eps absorb (bias_factor 0)",
            lambda: Composite([("recurrent", Gated(SignalTakesAll(), Epsilon(1e-3)))], Epsilon(1e-3)),
        ),
        SequenceConvention(
            "Arras, bias spread",
            "2017",
            "signals take all, eps 1e-3; bias and eps spread over the inputs (bias_factor 1): sums are kept",
            lambda: Composite([("recurrent", Gated(SignalTakesAll(), Spread(1e-3)))], Spread(1e-3)),
        ),
    )
}
"""The conventions by name."""


def rules_of(name: str, network: Any) -> dict[str, Any]:
    """The rule of every layer of a network, as a library would apply it.

    Parameters
    ----------
    name : str
        In `CONVENTIONS`.
    network : Network

    Examples
    --------
    >>> from numpylrp import Network
    >>> from numpylrp.layers import LayerNorm
    >>> rules_of("autolrp", Network([("norm", LayerNorm())], input_shape=(2,)))
    {'norm': AbsBeta()}
    """
    return lookup(CONVENTIONS, name, "convention").composite().rules(network)


# ---------------------------------------------------------------- their size


def cases() -> list[tuple[str, Network, dict[str, np.ndarray], np.ndarray]]:
    """Small layers: their name, a network of one, its inputs, and relevance of its output."""
    a = np.array([[[1.0, -0.5, 0.75], [-1.25, 0.5, 2.0]]])
    b = np.array([[[0.5, 1.5, -1.0], [1.0, 0.25, -0.75]]])
    R = np.array([[[1.0, -0.5, 2.0], [0.5, 1.0, -1.0]]])
    gamma, beta = np.array([0.75, 1.5, -0.5]), np.array([0.25, -0.5, 0.5])
    layers: dict[str, tuple[Any, int]] = {
        "LayerNorm": (L.LayerNorm(gamma, beta), 1),
        "RMSNorm": (L.RMSNorm(gamma), 1),
        "Add": (L.Add(), 2),
        "Multiply": (L.Multiply(), 2),
        "MatMul": (L.MatMul(True), 2),
        "Softmax": (L.Softmax(-1), 1),
        "Dense": (L.Dense([[1.0, 0.5, -0.25], [-1.0, 0.75, 0.5], [0.5, 0.25, 1.0]], beta), 1),
    }
    found = []
    for name, (layer, count) in layers.items():
        x = dict(zip("ab"[:count], (a, b)))
        network = Network([("layer", layer, tuple(x))], {key: value.shape[1:] for key, value in x.items()})
        found.append((name, network, x, R[..., :2] if name == "MatMul" else R))
    return found


def deviations() -> list[tuple[str, str, float]]:
    """How far each convention lies from AttnLRP: library, layer, the largest difference over the largest |R|.

    Those of Arras are of recurrent layers alone.

    Examples
    --------
    >>> {layer: round(size, 2) for library, layer, size in deviations() if library == "HiLRP"}["LayerNorm"]
    2.76
    """
    found = []
    for name in [name for name in CONVENTIONS if not name.startswith("Arras")]:
        for kind, network, x, R in cases():
            layer = network.nodes[0].layer
            parts = tuple(x.values())
            given = parts if layer.merges else parts[0]
            y = layer.forward(given)
            rules = (of.get("layer") for of in (rules_of(name, network), attn_lrp(network).rules(network)))
            theirs, ours = (layer.relprop(R, given, y, rule) for rule in rules)
            pairs = zip(theirs, ours) if layer.merges else [(theirs, ours)]
            size = max(float(abs(p - q).max()) for p, q in pairs) / float(abs(R).max())
            found.append((name, kind, size))
    return found
