"""Keras' layers for tokens, attention and recurrent networks as ours, with their masks.

In files of Keras 3 a functional model says which mask a layer is called with; in others masks go along with
tensors, as Keras carries them: from an embedding or a Masking layer on, to what reads them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from .. import layers as L
from ..blocks import attention
from ..errors import UnsupportedError
from ..export.graph import Value
from ..export.sequences import in_order

Config = dict[str, Any]
Arrays = list[np.ndarray]

RECURRENT: dict[str, type[L.Recurrent]] = {"LSTM": L.LSTM, "GRU": L.GRU, "SimpleRNN": L.SimpleRNN}
LASTS = ("Dense", "Activation", "Dropout", "LayerNormalization", "ReLU", "LeakyReLU", "ELU", "Embedding")
"""Layers that work on the last axis, or on single values: held by TimeDistributed they do the same."""

KEEPS = (
    *("Dense", "Activation", "Dropout", "SpatialDropout1D", "GaussianNoise", "LayerNormalization", "ReLU"),
    *("BatchNormalization", "TimeDistributed", "LeakyReLU", "ELU", "Add", "Average", "Concatenate"),
)
"""Layers that hand a mask on."""

READS = (*RECURRENT, "Bidirectional", "MultiHeadAttention")
"""Layers that use a mask."""

IGNORES = (*KEEPS, "Flatten", "Embedding", "RepeatVector")
"""Layers that a mask does nothing to."""


def mask_of(b: Any, x: Value, c: Config) -> Value | None:
    """The mask that a layer is called with, or that goes along with its input."""
    given = (c.get("called") or {}).get("mask")
    return given if isinstance(given, Value) else b.masks.get(x.name) if b.implicit else None


def carry(b: Any, kind: str, inputs: list[Value], made: Value) -> None:
    """Let a mask go along with the output of a layer."""
    masks = [b.masks[v.name] for v in inputs if v.name in b.masks]
    if not masks or kind not in KEEPS or len(made.shape) < 2:
        return
    if len(set(masks)) > 1:
        raise UnsupportedError("tensors with different masks together are not supported")
    b.masks[made.name] = masks[0]


def without(kind: str, b: Any, inputs: list[Value]) -> None:
    """Refuse a layer that would use a mask in a way of its own."""
    if any(v.name in b.masks for v in inputs) and kind.startswith("Global"):
        raise UnsupportedError("pooling over steps that are masked is not supported")


def embedding(b: Any, name: str, c: Config, x: list[Value], v: Arrays) -> Value:
    """Vectors of tokens; token 0 may be padding."""
    made = b.add(name, L.Embedding(v[0]), x[0], swapped=False)
    if c.get("mask_zero"):  # where layers are called with masks it is known, not made
        of = b.add(f"{name}/mask", L.NotEqual(0.0), x[0], swapped=False) if b.implicit else x[0]
        b.masks[made.name] = of
    return made


def masking(b: Any, name: str, c: Config, x: list[Value], v: Arrays) -> Value:
    """Steps whose values are all `mask_value` are skipped; their values become 0."""
    t = b.laid(x[0], False)
    seen = b.add(f"{name}/mask", L.NotEqual(float(c.get("mask_value", 0.0)), True), t, swapped=False)
    wide = b.add(f"{name}/wide", L.Reshape((-1, 1)), seen, swapped=False)
    made = b.add(name, L.Multiply(signal=0), t, wide, swapped=False)
    b.masks[made.name] = seen
    return made


def _function(b: Any, what: Any) -> str:
    """The name of an activation of a recurrent layer."""
    name = what.get("config", what.get("class_name")) if isinstance(what, dict) else what
    name = name.get("name", name) if isinstance(name, dict) else name
    known = {"tanh", "sigmoid", "relu", "linear", "hard_sigmoid"}
    if name not in known:
        raise UnsupportedError(f"the activation {name!r} in a recurrent layer is not supported")
    return "hard_sigmoid_keras2" if name == "hard_sigmoid" and b.keras < 3 else str(name)


def _parameters(b: Any, kind: str, c: Config, v: Arrays) -> dict[str, Any]:
    """The parameters of a recurrent layer."""
    order = {"LSTM": (0, 1, 2, 3), "GRU": (1, 0, 2)}.get(kind, (0,))
    found: dict[str, Any] = {"activation": _function(b, c.get("activation", "tanh"))}
    found |= {"weight": in_order(v[0].T, order), "recurrent": in_order(v[1].T, order)}
    if kind != "SimpleRNN":
        default = "sigmoid" if b.keras >= 3 else "hard_sigmoid"
        found["gate"] = _function(b, c.get("recurrent_activation", default))
    after = kind == "GRU" and bool(c.get("reset_after", b.keras >= 3))
    if kind == "GRU":
        found["reset_after"] = after
    if c.get("use_bias", True):
        rows = v[2] if after else [v[2]]
        found.update(zip(("bias", "recurrent_bias"), (in_order(row, order) for row in rows)))
    return found


def _refused(c: Config, inputs: list[Value]) -> None:
    for option, what in (
        ("stateful", "keeps its state from batch to batch"),
        ("return_state", "gives its states as outputs"),
        ("time_major", "has time first"),
    ):
        if c.get(option):
            raise UnsupportedError(f"it {what} ({option}=True), which is not supported")
    if len(inputs) > 1:
        raise UnsupportedError("initial states that are tensors of the model are not supported")


def _states(
    b: Any, name: str, kind: str, c: Config, t: Value, mask: Value | None, v: Arrays, reverse: bool
) -> Value:
    """The states of one direction, all or the last."""
    whole = bool(c.get("return_sequences"))
    reads = ("x",) if mask is None else ("x", "mask")
    layer = RECURRENT[kind](**_parameters(b, kind, c, v), all_states=whole, reverse=reverse, reads=reads)
    made = b.add(name, layer, t, *([] if mask is None else [mask]), swapped=False)
    if mask is None or not whole or not c.get("zero_output_for_mask"):
        return made
    wide = b.add(f"{name}/wide", L.Reshape((-1, 1)), mask, swapped=False)
    return b.add(f"{name}/masked", L.Multiply(signal=0), made, wide, swapped=False)


def _recurrent(kind: str) -> Callable:
    def build(b: Any, name: str, c: Config, x: list[Value], v: Arrays) -> Value:
        _refused(c, x)
        t, back = b.laid(x[0], False), bool(c.get("go_backwards"))
        if back and c.get("return_sequences"):
            raise UnsupportedError("all states from the last step to the first are not supported")
        mask = mask_of(b, x[0], c)
        made = _states(b, name, kind, c, t, mask, v, back)
        _after(b, x[0], made, mask, c)
        return made

    return build


def _after(b: Any, x: Value, made: Value, mask: Value | None, c: Config) -> None:
    """The mask of the input goes along with all states."""
    mask = b.masks.get(x.name) if mask is None else mask
    if mask is not None and c.get("return_sequences"):
        b.masks[made.name] = mask


def bidirectional(b: Any, name: str, c: Config, x: list[Value], v: Arrays) -> Value:
    """A recurrent layer in both directions."""
    forward = c["layer"]
    backward = c.get("backward_layer") or forward
    kinds = forward["class_name"], backward["class_name"]
    if any(kind not in RECURRENT for kind in kinds):
        raise UnsupportedError(f"it holds {kinds[0]!r}; there are {', '.join(RECURRENT)}")
    t, mask = b.laid(x[0], False), mask_of(b, x[0], c)
    made, half = [], len(v) // 2
    for n, (kind, one) in enumerate(zip(kinds, (forward, backward))):
        _refused(one["config"], x)
        own = {**one["config"], "return_sequences": forward["config"].get("return_sequences")}
        own["zero_output_for_mask"] = mask is not None and own["return_sequences"]
        arrays = v[n * half : (n + 1) * half]
        made.append(_states(b, f"{name}/{('forward', 'backward')[n]}", kind, own, t, mask, arrays, n == 1))
    mode = c.get("merge_mode", "concat")
    kinds_of = {"concat": L.Concatenate(-1), "sum": L.Add(), "ave": L.Average(), "mul": L.Multiply()}
    if mode not in kinds_of:
        raise UnsupportedError(f"the merge_mode {mode!r} is not supported")
    joined = b.add(name, kinds_of[mode], *made, swapped=False)
    _after(b, x[0], joined, mask, forward["config"])
    return joined


def multi_head(b: Any, name: str, c: Config, x: list[Value], v: Arrays) -> Value:
    """Attention of several heads: query, value and, by default the value, key."""
    called = c.get("called") or {}
    masks = [
        k for k in ("attention_mask", "query_mask", "value_mask", "key_mask") if called.get(k) is not None
    ]
    if masks or any(t.name in b.masks for t in x):
        raise UnsupportedError(
            f"attention with a mask ({', '.join(masks) or 'of its inputs'}) is not supported"
        )
    if c.get("attention_axes") not in (None, [1], (1,)) or c.get("use_gate") or c.get("sliding_window"):
        raise UnsupportedError("attention_axes, use_gate and sliding_window are not supported")
    laid = [b.laid(t, False) for t in x]
    if any(len(t.shape) != 2 for t in laid):
        raise UnsupportedError(f"attention is supported of samples (T, D), not {[t.shape for t in laid]}")
    query, value = laid[0], laid[min(1, len(laid) - 1)]
    key = laid[2] if len(laid) > 2 else value
    each = 2 if c.get("use_bias", True) else 1
    given: dict[str, Any] = {}
    for n, what in enumerate(("query", "key", "value", "out")):
        kernel = v[n * each]
        flat = kernel.reshape(-1, kernel.shape[-1]) if what == "out" else kernel.reshape(len(kernel), -1)
        given[what] = flat.T
        if each == 2:
            given[f"{what}_bias"] = v[n * each + 1].reshape(-1)
    causal = bool(called.get("use_causal_mask"))
    entries = attention(name, "query", "key", "value", given, int(c["num_heads"]), causal=causal)
    values = {"query": query, "key": key, "value": value}
    for own, layer, reads in entries:
        reads = (reads,) if isinstance(reads, str) else reads
        values[own] = b.add(own, layer, *(values[r] for r in reads), swapped=False)
    return values[name]


def each_step(b: Any, builders: dict, name: str, inner: dict, t: Value, v: Arrays) -> Value:
    """A layer for every step: what it is made of here, one after the other."""
    kind, c = inner["class_name"], inner["config"]
    if kind not in builders or kind in (*BUILDERS, "TimeDistributed"):
        raise UnsupportedError(f"it holds {kind!r}, which is not supported for every step")
    apart = type(b)({"step": t.shape[1:]}, b.keras, b.theano)
    end = apart.laid(builders[kind](apart, name, c, [Value("step", t.shape[1:])], v), False)
    read = "step"
    for own, layer, reads in apart.layers:
        if reads != (read,) or layer.merges:
            raise UnsupportedError(f"it holds {kind!r}, which is more than one layer after the other here")
        t, read = b.add(own, L.TimeDistributed(layer), t, swapped=False), own
    if read != end.name:
        raise UnsupportedError(f"it holds {kind!r}, which is not supported for every step")
    return t


BUILDERS: dict[str, Callable] = {
    "Embedding": embedding,
    "Masking": masking,
    **{kind: _recurrent(kind) for kind in RECURRENT},
    "Bidirectional": bidirectional,
    "MultiHeadAttention": multi_head,
}
"""The Keras classes that are understood here."""


def variables(kind: str, c: Config) -> list[tuple[str, bool]] | None:
    """As `numpylrp.convert.keras_layers.variables`; None for other layers."""
    bias = [("bias", True)] * bool(c.get("use_bias", True))
    if kind in RECURRENT:
        return [("kernel", True), ("recurrent_kernel", True), *bias]
    if kind == "Embedding":
        return [("embeddings", True)]
    if kind == "MultiHeadAttention":
        return [("kernel", True), *bias] * 4
    if kind == "Bidirectional":
        inner = c["layer"]
        return (variables(inner["class_name"], inner["config"]) or []) * 2
    return None


def places(kind: str) -> tuple[str, ...]:
    """Where the variables of a layer lie in its group of a .keras file."""
    if kind == "TimeDistributed":
        return ("layer/vars",)
    if kind in RECURRENT:
        return ("cell/vars",)
    if kind == "Bidirectional":
        return ("forward_layer/cell/vars", "backward_layer/cell/vars")
    if kind == "MultiHeadAttention":
        return tuple(f"{what}_dense/vars" for what in ("query", "key", "value", "output"))
    return ("vars",)
