"""Attention and gated units as layers of a network: lists of (name, layer, inputs), to see each step.

Every step has a name: its activations and relevance are in the trace, and a composite gives it its rule.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from .errors import LRPError, ShapeError, lookup
from .layers import (
    GELU,
    Dense,
    Layer,
    MaskedSoftmax,
    MatMul,
    Multiply,
    ReLU,
    Reshape,
    Rotary,
    Sigmoid,
    SiLU,
    Transpose,
    UpSampling,
)

Entry = tuple[str, Layer, Any]


def attention(
    name: str,
    query: str,
    key: str,
    value: str,
    parameters: Mapping[str, Any],
    heads: int,
    *,
    groups: int | None = None,
    causal: bool = False,
    keep: Any = None,
    mask: str | None = None,
    scale: float | None = None,
    rotary: Rotary | None = None,
) -> list[Entry]:
    """Attention of several heads, softmax(Q K^T / sqrt(d)) V (Vaswani et al. 2017), as layers.

    Parameters
    ----------
    name : str
        Of the last layer; the others are called ``name_query``, ``name_scores`` and so on.
    query, key, value : str
        What queries, keys and values are made of, (T, D) each; the same name for self-attention.
    parameters : mapping
        ``query``, ``key``, ``value``: weights (H d, D), (G d, D), (G e, D); ``out``: (O, H e), which may be
        left out, as may ``query_bias`` and so on.
    heads : int
        H; ``name_scores`` is (H, T, S).
    groups : int, optional
        G, of which each gives keys and values to H / G heads (grouped queries; 1: multi-query). Default: H.
    causal, keep, mask
        What each query may see, as `numpylrp.layers.MaskedSoftmax` has it; `mask` is a name.
    scale : float, optional
        Default: 1 / sqrt(d).
    rotary : Rotary, optional
        Positions of queries and keys.

    Returns
    -------
    list of (name, layer, inputs)

    Examples
    --------
    >>> from numpylrp import Network
    >>> eye = np.eye(2)
    >>> given = dict(query=eye, key=eye, value=eye)
    >>> net = Network(attention("at", "input", "input", "input", given, heads=1), input_shape=(3, 2))
    >>> net.forward(np.zeros((1, 3, 2))).shape
    (1, 3, 2)
    """
    groups = heads if groups is None else groups
    if heads < 1 or groups < 1 or heads % groups:
        raise LRPError(f"attention {name!r}: {heads} heads can't be cut into {groups} groups")
    entries: list[Entry] = []

    def add(what: str, layer: Layer, *reads: str) -> str:
        own = f"{name}_{what}" if what else name
        entries.append((own, layer, reads if len(reads) > 1 else reads[0]))
        return own

    def split(what: str, source: str, count: int) -> str:
        weight = np.asarray(parameters[what])
        if len(weight) % count:
            raise ShapeError(f"attention {name!r}: {what} has {len(weight)} rows for {count} heads")
        source = add(f"{what}_dense", Dense(weight, parameters.get(f"{what}_bias")), source)
        source = add(f"{what}_heads", Reshape((-1, count, len(weight) // count)), source)
        source = add(what, Transpose((1, 0, 2)), source)
        if rotary is not None and what != "value":
            source = add(f"{what}_rotary", rotary, source)
        return (
            add(f"{what}_repeated", UpSampling((heads // count, 1, 1)), source) if count < heads else source
        )

    q, k, v = split("query", query, heads), split("key", key, groups), split("value", value, groups)
    d = len(np.asarray(parameters["query"])) // heads
    scores = add("scores", MatMul(True, 1 / np.sqrt(d) if scale is None else scale), q, k)
    reads = ("x",) if mask is None else ("x", "mask")
    softmax = MaskedSoftmax(causal=causal, keep=keep, reads=reads)
    weights = add("weights", softmax, scores, *(() if mask is None else (mask,)))
    mixed = add("mixed", MatMul(), weights, v)
    turned = add("turned", Transpose((1, 0, 2)), mixed)
    width = len(np.asarray(parameters["value"])) // groups * heads
    out = parameters.get("out")
    joined = add("" if out is None else "joined", Reshape((-1, width)), turned)
    if out is not None:
        add("", Dense(out, parameters.get("out_bias")), joined)
    return entries


GATES = {"GLU": Sigmoid(), "SwiGLU": SiLU(), "GEGLU": GELU(), "ReGLU": ReLU()}
"""The gated units of Shazeer 2020, by the function of their gate."""


def gated_unit(name: str, source: str, kind: str, gate: Any, up: Any, down: Any = None) -> list[Entry]:
    """A gated unit, ``f(W_gate x) * (W_up x)``, times W_down: GLU, SwiGLU, GEGLU or ReGLU (Shazeer 2020).

    The signal is ``W_up x``: where signals take all, the gate gets nothing.

    Parameters
    ----------
    name, source : str
        Of the last layer, and of what it reads.
    kind : str
        A name in `GATES`.
    gate, up, down : (weight, bias) or weight
        `down` may be left out.

    Examples
    --------
    >>> [name for name, _, _ in gated_unit("ff", "input", "SwiGLU", np.eye(2), np.eye(2), np.eye(2))]
    ['ff_gate', 'ff_open', 'ff_up', 'ff_product', 'ff']
    """
    opens = lookup(GATES, kind, "gated unit")

    def dense(given: Any) -> Dense:
        return Dense(*given) if isinstance(given, tuple) else Dense(given)

    product = name if down is None else f"{name}_product"
    entries: list[Entry] = [
        (f"{name}_gate", dense(gate), source),
        (f"{name}_open", opens, f"{name}_gate"),
        (f"{name}_up", dense(up), source),
        (product, Multiply(signal=1), (f"{name}_open", f"{name}_up")),
    ]
    return entries if down is None else [*entries, (name, dense(down), product)]
