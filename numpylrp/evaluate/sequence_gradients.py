"""Gradients through recurrent layers and attention; see `numpylrp.evaluate.gradients`."""

from __future__ import annotations

from typing import Any

import numpy as np

from .. import layers as kinds
from ..errors import UnsupportedError
from ..layers.recurrent import FUNCTIONS, Recurrent, _product

_SLOPES = {
    "tanh": lambda z, y: 1 - y**2,
    "sigmoid": lambda z, y: y * (1 - y),
    "relu": lambda z, y: (z > 0) * 1.0,
    "linear": lambda z, y: np.ones_like(z),
    "hard_sigmoid": lambda z, y: ((y > 0) & (y < 1)) / 6,
    "hard_sigmoid_keras2": lambda z, y: ((y > 0) & (y < 1)) * 0.2,
}


def _through(name: str, z: np.ndarray) -> np.ndarray:
    """The slope of a function at z."""
    return _SLOPES[name](z, FUNCTIONS[name](z))


def _rnn(layer: Any, s: dict, g: tuple) -> tuple[np.ndarray, tuple]:
    """Gradients of the input's part of pre-activations, and of the states before."""
    g_z = g[0] * _through(layer.activation, s["z"])
    return g_z, (g_z @ layer.recurrent,)


def _lstm(layer: Any, s: dict, g: tuple) -> tuple[np.ndarray, tuple]:
    z_i, z_f, z_g, z_o = np.split(s["z"], 4, 1)
    _, c = s["before"]
    gate, activation = layer.gate, layer.activation
    g_c = g[1] + g[0] * s["o"] * _through(activation, s["new"])
    parts = [
        g_c * s["g"] * _through(gate, z_i),
        g_c * c * _through(gate, z_f),
        g_c * s["i"] * _through(activation, z_g),
        g[0] * s["tanh"] * _through(gate, z_o),
    ]
    g_z = np.concatenate(parts, 1)
    return g_z, (g_z @ layer.recurrent, g_c * s["f"])


def _gru(layer: Any, s: dict, g: tuple) -> tuple[np.ndarray, tuple]:
    (h,), units = s["before"], layer.units
    last, gates = slice(2 * units, None), slice(0, 2 * units)
    if layer.gate != "sigmoid":
        raise UnsupportedError(f"the derivative of a GRU with the gate {layer.gate!r} is not known")
    slope_r, slope_z = (s[name] * (1 - s[name]) for name in "rz")
    g_z = g[0] * (h - s["n"]) * slope_z
    g_a = g[0] * (1 - s["z"]) * _through(layer.activation, s["a"])
    if layer.reset_after:
        g_r, g_h = g_a * s["a_h"] * slope_r, (g_a * s["r"]) @ layer.recurrent[last]
    else:
        sent = g_a @ layer.recurrent[last]
        g_r, g_h = sent * h * slope_r, sent * s["r"]
    both = np.concatenate([g_r, g_z], 1)
    g_h = g[0] * s["z"] + g_h + both @ layer.recurrent[gates]
    return np.concatenate([both, g_a], 1), (g_h,)


_STEPS = {kinds.SimpleRNN: _rnn, kinds.LSTM: _lstm, kinds.GRU: _gru}


def recurrent(layer: Recurrent, g: np.ndarray, x: Any, y: np.ndarray) -> Any:
    """Back through time: the gradient of each input, as `numpylrp.evaluate.gradients.backward`."""
    back = next(step for kind, step in _STEPS.items() if isinstance(layer, kind))
    given = layer._given(x)
    steps, mask = layer._run(given), given.get("mask")
    order = layer._order(len(steps))
    g_state = tuple(np.zeros((len(g), layer.units), g.dtype) for _ in layer.states)
    g_ahead = np.zeros((*given["x"].shape[:2], len(layer.weight)), g.dtype)
    for t in reversed(order):
        if layer.all_states or t == order[-1]:
            g_state = (g_state[0] + (g[:, t] if layer.all_states else g), *g_state[1:])
        own = 1.0 if mask is None else (mask[:, t, None] != 0).astype(g.dtype)
        g_ahead[:, t], before = back(layer, steps[t], tuple(part * own for part in g_state))
        g_state = tuple(a + b * (1 - own) for a, b in zip(before, g_state))
    found = {"x": _product(g_ahead, layer.weight.T), **dict(zip(layer.states, g_state))}
    if mask is not None:
        found["mask"] = np.zeros_like(mask)
    return tuple(found[name] for name in layer.reads) if layer.merges else found["x"]


def matmul(layer: kinds.MatMul, g: np.ndarray, x: Any, y: np.ndarray) -> Any:
    """Through a product of two activations."""
    return tuple(
        layer.held(x, 1 - k).adjoint(g * layer.scale, x[1 - k], x[k].shape[1:]) for k in range(len(x))
    )


def masked_softmax(layer: kinds.MaskedSoftmax, g: np.ndarray, x: Any, y: np.ndarray) -> Any:
    """Through a softmax of what is kept; masks have no gradient."""
    sent = y * (g - (g * y).sum(-1, keepdims=True))
    return (sent, np.zeros_like(x[1])) if layer.merges else sent


def embedding(layer: kinds.Embedding, g: np.ndarray, x: Any, y: np.ndarray) -> Any:
    """Refused: a token is no number."""
    raise UnsupportedError("an output has no derivative by tokens, which are integers")
