"""Networks and cases of the published vectors that have attention or recurrent layers."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from .. import layers as L
from ..blocks import attention, gated_unit
from ..composite import Composite, attn_lrp
from ..network import Network
from ..nonlinear import AbsBeta, Bilinear, Gated, MeanHeld, Proportional, SignalTakesAll, Uniform
from ..rules import LRP0, AlphaBeta, Epsilon, Gamma, Pass, Rule, ZPlus
from .vector_plans import Numbers, _plan

SUMS = {
    "lrp-0": LRP0(),
    "epsilon": Epsilon(0.25),
    "gamma": Gamma(0.25),
    "alpha2-beta1": AlphaBeta(2.0, 1.0),
    "z-plus": ZPlus(),
}


def _composites(network: Network, composites: Mapping[str, Composite]) -> Iterator[tuple]:
    for name, composite in composites.items():
        yield name, composite.rules(network), "linear", 1, None


def _recurrent(network: Network, x: Any, numbers: Numbers) -> Iterator[tuple]:
    """Signals take all under each rule for sums; then the other rules for products."""
    rules: dict[str, Rule] = {name: Gated(SignalTakesAll(), rule) for name, rule in SUMS.items()}
    rules |= {
        "uniform": Gated(Uniform(), Epsilon(0.25)),
        "absolute": Gated(Proportional(), Epsilon(0.25)),
        "proportional": Gated(Proportional(False), Epsilon(0.25)),
    }
    return _composites(
        network, {name: Composite([("recurrent", rule)], Epsilon(0.25)) for name, rule in rules.items()}
    )


def _attention(network: Network, x: Any, numbers: Numbers) -> Iterator[tuple]:
    """AttnLRP with and without epsilon, and with its stabilizer on O; attention held under other rules."""
    attn = attn_lrp(network, 0.25)
    composites = {
        "attnlrp": attn_lrp(network, 0.0),
        "attnlrp epsilon": attn,
        "attnlrp on-o": attn.preceded(("MatMul", Bilinear(0.25, doubled=False))),
        "cp-lrp": Composite([], LRP0()),
        "cp-lrp epsilon": Composite([], Epsilon(0.25)),
    }
    for name in ("gamma", "z-plus"):
        of = [(kind, SUMS[name]) for kind in ("dense", "MatMul")]
        composites[f"held {name}"] = Composite(of, Epsilon(0.25))
    return _composites(network, composites)


def _weights(n: Numbers, kind: type[L.Recurrent], units: int, width: int, **options: Any) -> L.Recurrent:
    """A recurrent layer with small weights, and with biases of its own."""
    rows = kind.blocks * units
    if kind is L.GRU:
        options["recurrent_bias"] = n.array(rows, zero=False)
    return kind(
        n.array((rows, width), zero=False),
        n.array((rows, units), zero=False),
        n.array(rows, zero=False),
        **options,
    )


def _last(layer: L.Recurrent, n: Numbers, x: np.ndarray) -> tuple:
    layers = [("recurrent", layer), ("fc", n.dense(2, layer.units))]
    return Network(layers, x.shape[1:]), {"input": x}, _recurrent


@_plan("seq-rnn", "simple recurrent layer, last state, dense layer", 900)
def _(n: Numbers) -> tuple:
    layer = _weights(n, L.SimpleRNN, 3, 2, all_states=False)
    return _last(layer, n, n.array((2, 3, 2), -16, 16, zero=False))


@_plan("seq-lstm", "LSTM with initial states, last state, dense layer", 601)
def _(n: Numbers) -> tuple:
    states = {"initial_h": n.array(2, zero=False), "initial_c": n.array(2, zero=False)}
    layer = _weights(n, L.LSTM, 2, 2, all_states=False, **states)
    return _last(layer, n, n.array((2, 3, 2), -16, 16, zero=False))


@_plan("seq-gru", "GRU whose reset gate is after the product (PyTorch), last state, dense layer", 1251)
def _(n: Numbers) -> tuple:
    layer = _weights(n, L.GRU, 2, 2, all_states=False)
    return _last(layer, n, n.array((2, 3, 2), -16, 16, zero=False))


@_plan("seq-gru-before", "GRU whose reset gate is before the product, from the last step to the first", 805)
def _(n: Numbers) -> tuple:
    layer = _weights(n, L.GRU, 2, 2, all_states=False, reset_after=False, reverse=True)
    return _last(layer, n, n.array((2, 3, 2), -16, 16, zero=False))


@_plan("seq-bidirectional", "LSTMs in both directions, steps that are skipped, all states, dense layer", 1200)
def _(n: Numbers) -> tuple:
    reads = ("x", "mask")
    layers = [
        ("forward", _weights(n, L.LSTM, 2, 2, reads=reads), ("input", "mask")),
        ("backward", _weights(n, L.LSTM, 2, 2, reads=reads, reverse=True), ("input", "mask")),
        ("both", L.Concatenate(1), ("forward", "backward")),
        ("flatten", L.Flatten()),
        ("fc", n.dense(2, 12)),
    ]
    x = {
        "input": n.array((2, 3, 2), -16, 16, zero=False),
        "mask": np.array([[1.0, 1.0, 0.0], [0.0, 1.0, 1.0]]),
    }
    return Network(layers, {"input": (3, 2), "mask": (3,)}), x, _recurrent


@_plan("seq-attention", "queries, keys and values as inputs, two heads; then a dense layer", 1003)
def _(n: Numbers) -> tuple:
    layers = [
        ("scores", L.MatMul(True, 0.5), ("q", "k")),
        ("weights", L.Softmax(-1), "scores"),
        ("mixed", L.MatMul(), ("weights", "v")),
        ("flatten", L.Flatten(), "mixed"),
        ("fc", n.dense(2, 8)),
    ]
    shapes = {"q": (2, 2, 2), "k": (2, 3, 2), "v": (2, 3, 2)}
    x = {name: n.array((2, *shape), -16, 16, zero=False) for name, shape in shapes.items()}
    return Network(layers, shapes), x, _attention


def _parameters(n: Numbers, width: int, groups: int, heads: int) -> dict[str, np.ndarray]:
    rows = {"query": heads * 2, "key": groups * 2, "value": groups * 2}
    given = {name: n.array((count, width), -4, 4, zero=False) for name, count in rows.items()}
    given |= {f"{name}_bias": n.array(count, -4, 4, zero=False) for name, count in rows.items()}
    return given | {"out": n.array((width, heads * 2), -4, 4, zero=False)}


@_plan(
    "seq-attention-masked",
    "tokens, positions, two heads that share keys, a causal mask and a padding mask",
    1131,
)
def _(n: Numbers) -> tuple:
    given, read = _parameters(n, 3, 1, 2), ("positions",) * 3
    layers = [
        ("mask", L.NotEqual(0.0), "input"),
        ("embed", L.Embedding(n.array((4, 3), zero=False)), "input"),
        ("positions", L.Positions(n.array((5, 3), -4, 4, zero=False))),
        *attention("at", *read, given, 2, groups=1, causal=True, mask="mask"),
        ("flatten", L.Flatten(), "at"),
        ("fc", n.dense(2, 9)),
    ]
    return Network(layers, (3,)), {"input": np.array([[1.0, 3.0, 2.0], [2.0, 1.0, 0.0]])}, _attention


@_plan("seq-encoder", "a pre-norm encoder block: LayerNorm, attention, a gated unit, residual sums", 724)
def _(n: Numbers) -> tuple:
    def norm() -> L.LayerNorm:
        return L.LayerNorm(n.array(3, 4, 12), n.array(3, -4, 4, zero=False), eps=0.0625)

    def w(*shape: int) -> np.ndarray:
        return n.array(shape, -4, 4, zero=False)

    layers = [
        ("norm1", norm(), "input"),
        *attention("at", "norm1", "norm1", "norm1", _parameters(n, 3, 1, 1), 1),
        ("sum1", L.Add(), ("input", "at")),
        ("norm2", norm()),
        *gated_unit("ff", "norm2", "SwiGLU", w(2, 3), w(2, 3), w(3, 2)),
        ("sum2", L.Add(), ("sum1", "ff")),
        ("flatten", L.Flatten()),
        ("fc", n.dense(2, 6)),
    ]
    return Network(layers, (2, 3)), {"input": n.array((2, 2, 3), -16, 16, zero=False)}, _attention


def _norms(network: Network, x: Any, numbers: Numbers) -> Iterator[tuple]:
    """The forms of normalization that go by one name."""
    forms = {
        "held": LRP0(),
        "held epsilon": Epsilon(0.25),
        "mean-held": MeanHeld(0.0),
        "mean-held epsilon": MeanHeld(0.25),
        "abs-beta": AbsBeta(),
        "identity": Pass(),
    }
    composites = {name: Composite([("norm", rule)], Epsilon(0.25)) for name, rule in forms.items()}
    return _composites(network, composites)


@_plan("seq-layer-norm", "layer normalization over the last axis, dense layer", 539)
def _(n: Numbers) -> tuple:
    norm = L.LayerNorm(n.array(4, 4, 12), n.array(4, -4, 4, zero=False), eps=0.0625)
    layers = [("norm", norm), ("flatten", L.Flatten()), ("fc", n.dense(2, 8))]
    return Network(layers, (2, 4)), {"input": n.array((2, 2, 4), -16, 16, zero=False)}, _norms


@_plan("seq-rms-norm", "root mean square normalization, dense layer", 540)
def _(n: Numbers) -> tuple:
    layers = [
        ("norm", L.RMSNorm(n.array(4, 4, 12), eps=0.0625)),
        ("flatten", L.Flatten()),
        ("fc", n.dense(2, 8)),
    ]
    return Network(layers, (2, 4)), {"input": n.array((2, 2, 4), -16, 16, zero=False)}, _norms
