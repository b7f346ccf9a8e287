"""PyTorch's operations for tokens, attention and recurrent layers, as layers."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F

from .. import layers as L
from ..errors import UnsupportedError
from .graph import Graph, Value
from .sequences import attended, recurrent, truth


def embedding(g: Graph, name: str, a: Any) -> Value:
    """Vectors of tokens."""
    if not isinstance(a["indices"], Value):
        raise UnsupportedError(f"{name}: a table that depends on the input is not supported")
    layer = g.shared(("embedding", a.key("weight")), lambda: L.Embedding(a.array("weight")))
    return g.add(name, layer, a["indices"])


def attention(g: Graph, name: str, a: Any) -> Value:
    """scaled_dot_product_attention."""
    q, k, v = (a[name] for name in ("query", "key", "value"))
    if not all(isinstance(x, Value) for x in (q, k, v)):
        raise UnsupportedError(f"{name}: attention of constants is not supported")
    mask = None if a.get("attn_mask") is None else a.operand("attn_mask")
    return attended(g, name, q, k, v, mask, bool(a.get("is_causal")), a.get("scale"))


KINDS: dict[str, tuple[type[L.Recurrent], dict[str, str]]] = {
    "lstm": (L.LSTM, {}),
    "gru": (L.GRU, {}),
    "rnn_tanh": (L.SimpleRNN, {}),
    "rnn_relu": (L.SimpleRNN, {"activation": "relu"}),
}


def _recurrent(which: str) -> Callable:
    kind, options = KINDS[which]

    def build(g: Graph, name: str, a: Any) -> list:
        x, params = a["input"], list(a["params"])
        if not a["batch_first"] and x.batch != 1:
            raise UnsupportedError(f"{name}: {which} without batch_first takes time first, not samples")
        x = x._replace(batch=0)
        if a["has_biases"]:
            each = 4
        else:
            each = 2
        count = 2 if a["bidirectional"] else 1
        if len(params) != each * count * a["num_layers"]:
            raise UnsupportedError(f"{name}: {which} with a projection (proj_size) is not supported")
        hx = list(a["hx"]) if isinstance(a["hx"], (list, tuple)) else [a["hx"]]
        for layer in range(a["num_layers"]):
            directions = []
            for n in range(count):
                at = layer * count + n
                given: dict[str, Any] = {**options}
                arrays = [_array(p, name) for p in params[at * each : (at + 1) * each]]
                given.update(zip(("weight", "recurrent"), arrays))
                if each == 4 and kind is L.GRU:
                    given.update(bias=arrays[2], recurrent_bias=arrays[3])
                elif each == 4:
                    given["bias"] = arrays[2] + arrays[3]
                given.update((key, _state(g, name, v, at)) for key, v in zip(kind.states, hx))
                directions.append(given)
            own = f"{name}.{layer}" if a["num_layers"] > 1 else name
            x = recurrent(g, own, kind, x, directions)

        def last() -> Value:
            if count > 1 or a["num_layers"] > 1:
                raise UnsupportedError(
                    f"{name}: the final states of several layers or directions are not supported; "
                    "take them from the outputs"
                )
            state = g.select(f"{name}.last", x, 0, -1)
            return g.reshape(f"{name}.state", state, (1, *state.shape))._replace(batch=1)

        def cell() -> Value:
            raise UnsupportedError(f"{name}: the final cell state as an output is not supported")

        states = [Later(last), Later(cell)][: len(kind.states)]
        return [x if a["batch_first"] else x._replace(batch=1), *states]

    return build


class Later(NamedTuple):
    """An output that is made where it is read."""

    make: Callable[[], Value]


def _array(tensor: Any, name: str) -> np.ndarray:
    if isinstance(tensor, Value):
        raise UnsupportedError(f"{name}: weights that depend on the input are not supported")
    return tensor.detach().cpu().numpy()


def _state(g: Graph, name: str, value: Any, at: int) -> Any:
    """An initial state of one layer and direction: a constant that is one for all samples, or a value."""
    if not isinstance(value, Value):
        rows = value.detach().cpu().numpy()[at]
        if (rows != rows[:1]).any():
            raise UnsupportedError(f"{name}: initial states that differ between samples are not supported")
        return rows[0]
    if value.batch != 1:
        raise UnsupportedError(f"{name}: initial states must have the batch on axis 1")
    return g.select(f"{name}.state{at}", value._replace(batch=0), 0, at)


@contextmanager
def plain_attention() -> Iterator[None]:
    """Within it, attention is written as linear maps and products: nn.MultiheadAttention, and that of
    torchvision's Swin transformers, whose windows are else put among the samples.
    """
    before = F.multi_head_attention_forward, F._canonical_mask
    swin = sys.modules.get("torchvision.models.swin_transformer")
    windows = getattr(swin, "shifted_window_attention", None)
    fast = torch.backends.mha.get_fastpath_enabled()
    F.multi_head_attention_forward = _multi_head  # type: ignore[assignment]
    F._canonical_mask = lambda mask, *_, **__: mask
    torch.backends.mha.set_fastpath_enabled(False)
    if swin is not None:
        swin.shifted_window_attention = _windowed  # type: ignore[attr-defined]
    try:
        yield
    finally:
        F.multi_head_attention_forward, F._canonical_mask = before
        if swin is not None:
            swin.shifted_window_attention = windows  # type: ignore[attr-defined]
        torch.backends.mha.set_fastpath_enabled(fast)


def _multi_head(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    embed_dim: int,
    heads: int,
    weight: torch.Tensor | None,
    bias: torch.Tensor | None,
    bias_k: Any,
    bias_v: Any,
    add_zero: bool,
    dropout: float,
    out_weight: torch.Tensor,
    out_bias: torch.Tensor | None,
    training: bool = True,
    key_padding_mask: torch.Tensor | None = None,
    need_weights: bool = True,
    attn_mask: torch.Tensor | None = None,
    use_separate_proj_weight: bool = False,
    q_proj_weight: Any = None,
    k_proj_weight: Any = None,
    v_proj_weight: Any = None,
    static_k: Any = None,
    static_v: Any = None,
    average_attn_weights: bool = True,
    is_causal: bool = False,
) -> tuple[torch.Tensor, None]:
    """F.multi_head_attention_forward, with the samples first; inputs and output have time first."""
    if any(v is not None for v in (bias_k, bias_v, static_k, static_v)) or add_zero:
        raise UnsupportedError("MultiheadAttention with bias_k, bias_v or add_zero_attn is not supported")
    weights: Any = (q_proj_weight, k_proj_weight, v_proj_weight)
    if not use_separate_proj_weight and weight is not None:
        weights = weight.chunk(3)
    biases: Any = (None,) * 3 if bias is None else bias.chunk(3)
    made = []
    for x, w, b in zip((query, key, value), weights, biases):
        x = F.linear(x.transpose(0, 1), w, b)
        made.append(x.reshape(x.shape[0], x.shape[1], heads, embed_dim // heads).transpose(1, 2))
    q, k, v = made
    mask = None if attn_mask is None else _added(attn_mask, query.dtype)
    if key_padding_mask is not None and key_padding_mask.dtype == torch.bool:
        y = torch.ops.numpylrp.attend(q, k, v, mask, key_padding_mask)
    else:
        if key_padding_mask is not None:
            mask = key_padding_mask[:, None, None] + (0 if mask is None else mask)
        y = F.scaled_dot_product_attention(q, k, v, attn_mask=mask)
    y = y.transpose(1, 2).reshape(y.shape[0], y.shape[2], embed_dim)
    return F.linear(y, out_weight, out_bias).transpose(0, 1), None


def _windowed(
    x: torch.Tensor,
    qkv_weight: torch.Tensor,
    proj_weight: torch.Tensor,
    relative_position_bias: torch.Tensor,
    window_size: list[int],
    num_heads: int,
    shift_size: list[int],
    attention_dropout: float = 0.0,
    dropout: float = 0.0,
    qkv_bias: torch.Tensor | None = None,
    proj_bias: torch.Tensor | None = None,
    logit_scale: torch.Tensor | None = None,
    training: bool = True,
) -> torch.Tensor:
    """Torchvision's shifted_window_attention, with windows on an axis of their own; (N, H, W, C)."""
    size, (h, w), (n, _, _, c) = x.shape[1:3], window_size, x.shape
    x = F.pad(x, (0, 0, 0, -size[1] % w, 0, -size[0] % h))
    full = x.shape[1:3]
    shift = [0 if a >= b else s for a, b, s in zip(window_size, full, shift_size)]
    if any(shift):
        x = torch.roll(x, [-s for s in shift], (1, 2))
    windows = full[0] // h, full[1] // w
    x = x.reshape(n, windows[0], h, windows[1], w, c).permute(0, 1, 3, 2, 4, 5).reshape(n, -1, h * w, c)
    if logit_scale is not None and qkv_bias is not None:  # keys have no bias
        qkv_bias = torch.cat([b * (k != 1) for k, b in enumerate(qkv_bias.chunk(3))])
    heads = [
        part.reshape(*part.shape[:3], num_heads, -1).transpose(2, 3)
        for part in F.linear(x, qkv_weight, qkv_bias).chunk(3, -1)
    ]
    q, k, v = heads
    if logit_scale is None:
        scores = (q @ k.transpose(-2, -1)) * (c // num_heads) ** -0.5
    else:
        cosine = F.normalize(q, dim=-1) @ F.normalize(k, dim=-1).transpose(-2, -1)
        scores = cosine * torch.clamp(logit_scale, max=math.log(100.0)).exp()
    scores = scores + _window_bias(relative_position_bias, full, window_size, shift)
    y = (torch.softmax(scores, -1) @ v).transpose(2, 3).reshape(n, -1, h * w, c)
    y = F.linear(y, proj_weight, proj_bias).reshape(n, *windows, h, w, c)
    y = y.permute(0, 1, 3, 2, 4, 5).reshape(n, *full, c)
    if any(shift):
        y = torch.roll(y, shift, (1, 2))
    return y[:, : size[0], : size[1]]


def _window_bias(bias: torch.Tensor, full: Any, window: list[int], shift: list[int]) -> torch.Tensor:
    """What is added to scores (windows, heads, T, T): -100 between places that were no neighbours."""
    if not any(shift):
        return bias
    parts = [
        (torch.arange(n) >= n - w).int() + (torch.arange(n) >= n - s).int() if s else torch.zeros(n).int()
        for n, w, s in zip(full, window, shift)
    ]
    part = 3 * parts[0][:, None] + parts[1]
    part = part.reshape(full[0] // window[0], window[0], full[1] // window[1], window[1])
    part = part.permute(0, 2, 1, 3).reshape(-1, 1, window[0] * window[1])
    return bias - 100.0 * (part[..., None] != part[..., None, :]).to(bias.dtype)


def _added(mask: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """A mask that is added to scores: -inf where a mask of truth values says true."""
    if mask.dtype != torch.bool:
        return mask
    return torch.zeros_like(mask, dtype=dtype).masked_fill(mask, -torch.inf)


@torch.library.custom_op("numpylrp::attend", mutates_args=())
def _attend(
    q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, mask: torch.Tensor | None, hidden: torch.Tensor
) -> torch.Tensor:
    pad = _added(hidden, q.dtype)[:, None, None]
    return F.scaled_dot_product_attention(q, k, v, attn_mask=pad if mask is None else pad + mask)


_attend.register_fake(lambda q, k, v, mask, hidden: q.new_empty((*q.shape[:-1], v.shape[-1])))


def _attended(g: Graph, name: str, a: Any) -> Value:
    """Attention in which a mask hides keys."""
    mask = None if a["mask"] is None else a.operand("mask")
    hidden = a["hidden"]
    if not isinstance(hidden, Value):
        keep = ~hidden.numpy()
        if (keep != keep[:1]).any():
            raise UnsupportedError(f"{name}: a constant mask that differs between samples is not supported")
        both = keep[0] if mask is None else np.where(keep[0], mask, -np.inf)
        return attended(g, name, a["q"], a["k"], a["v"], both)
    keep = g.affine(f"{name}.keep", hidden, -1.0, 1.0)
    return attended(g, name, a["q"], a["k"], a["v"], mask, keep=keep)


def _cast(g: Graph, name: str, a: Any) -> Value:
    """A cast: truth values are 1 and 0 here."""
    dtype, x = a.get("dtype"), a["self"]
    if dtype is torch.bool and not truth(g, x):
        return g.add(name, L.NotEqual(0.0), x)
    if dtype is not None and not dtype.is_floating_point and dtype is not torch.bool:
        raise UnsupportedError(f"{name}: a cast to {dtype} is not supported")
    return x


def _and(g: Graph, name: str, a: Any) -> Value:
    """Two masks together."""
    x, y = a.operand("self"), a.operand("other")
    x, y = (x, y) if isinstance(x, Value) else (y, x)
    if not truth(g, x):
        raise UnsupportedError(f"{name}: & of other values than masks is not supported")
    if isinstance(y, Value):
        return g.add(name, L.Multiply(), x, y)
    if np.ndim(y) == len(x.shape) + 1 and len(y) == 1:
        y = y[0]
    if np.all(y):
        return x
    return g.affine(name, g.expand(name, x, np.broadcast_shapes(x.shape, np.shape(y))), y, 0.0)


def index(before: Callable) -> Callable:
    """``x[arange(batch), ..., arange(S)]``, as masks are taken: the same values with axes of size 1."""

    def build(g: Graph, name: str, a: Any) -> Value:
        x, given = a["self"], a.get("indices") or []
        if len(given) != len(x.shape) + 1 or not all(isinstance(i, torch.Tensor) for i in given):
            return before(g, name, a)
        sizes = (a.batch, *x.shape)
        full = [i.numel() == n and torch.equal(i.flatten(), torch.arange(n)) for i, n in zip(given, sizes)]
        shape = torch.broadcast_shapes(*(i.shape for i in given))
        if not all(full) or shape[0] != a.batch or np.prod(shape[1:]) != np.prod(x.shape):
            return before(g, name, a)
        return g.reshape(name, x, shape[1:])

    return build


def cat(before: Callable) -> Callable:
    """Concatenation, also with constants (a class token): zeros in their place, and the constants added."""

    def build(g: Graph, name: str, a: Any) -> Value:
        given = list(a["tensors"])
        values = [v for v in given if isinstance(v, Value)]
        fixed = [v for v in given if not isinstance(v, Value)]
        if not values or not any(v.any() for v in fixed):
            return before(g, name, a)
        if any((v != v[:1]).any() for v in fixed):
            raise UnsupportedError(f"{name}: constants that differ between samples are not supported")
        zeros = [v if isinstance(v, Value) else torch.zeros_like(v) for v in given]
        joined = before(g, f"{name}.joined", type(a)({**a.args, "tensors": zeros}, a.batch, a.node))
        at = a["dim"] % (len(joined.shape) + 1) - 1
        rows = [np.zeros(v.shape) if isinstance(v, Value) else v[0].detach().numpy() for v in given]
        shift = np.concatenate([np.broadcast_to(r, _like(r, joined, at)) for r in rows], at)
        return g.affine(name, joined, 1.0, shift)

    return build


def _like(row: np.ndarray, joined: Value, at: int) -> tuple[int, ...]:
    return (*joined.shape[:at], row.shape[at], *joined.shape[at + 1 :])


def _glu(g: Graph, name: str, a: Any) -> Value:
    """Half of the values, times the sigmoid of the other half, which is a gate."""
    x = a["self"]
    at = g.axis(name, x, a["dim"])
    signal, gate = g.parts(name, x, at, [x.shape[at] // 2] * 2)
    return g.add(name, L.Multiply(signal=0), signal, g.add(f"{name}.gate", L.Sigmoid(), gate))


OPERATIONS: dict[str, Callable] = {
    "glu": _glu,
    "embedding": embedding,
    "scaled_dot_product_attention": attention,
    "attend": _attended,
    **dict.fromkeys(("to", "_to_copy"), _cast),
    **dict.fromkeys(("__and", "bitwise_and", "logical_and"), _and),
    **{which: _recurrent(which) for which in KINDS},
}
"""The operations of PyTorch that are understood here."""
