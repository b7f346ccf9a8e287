"""What exporters share for attention, tokens and recurrent layers, where the batch may lie on another axis.

Recurrent layers of other frameworks have time first and the batch behind it. A `Value` says where its batch
is; moves that know of it give one whose batch is elsewhere, and every layer wants it in front.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from .. import layers as L
from ..errors import UnsupportedError
from .graph import Graph, Operand, Value


def permuted(g: Graph, name: str, v: Value, axes: Sequence[int]) -> Value:
    """The axes of the batch in another order, the batch among them."""
    rank = len(v.shape) + 1
    axes = [a % rank for a in axes]
    order = tuple(a - (a > v.batch) for a in axes if a != v.batch)
    inside = v._replace(batch=0)
    if order != tuple(range(len(order))):
        inside = g.add(name, L.Transpose(order), inside)
    return inside._replace(batch=axes.index(v.batch))


def squeezed(g: Graph, name: str, v: Value, axes: Sequence[int]) -> Value:
    """Without these axes, of size 1."""
    rank = len(v.shape) + 1
    gone = {a % rank for a in axes}
    rest = [n for a, n in enumerate(v.shape) if a + (a >= v.batch) not in gone]
    inside = g.reshape(name, v._replace(batch=0), rest)
    return inside._replace(batch=v.batch - sum(a < v.batch for a in gone))


def unsqueezed(g: Graph, name: str, v: Value, axes: Sequence[int]) -> Value:
    """With new axes of size 1, also before the batch."""
    order: list[Any] = [*v.shape[: v.batch], None, *v.shape[v.batch :]]  # None is the batch
    for a in axes:
        order.insert(a, 1)
    inside = g.reshape(name, v._replace(batch=0), [n for n in order if n is not None])
    return inside._replace(batch=order.index(None))


def passes(layer: L.Layer, v: Value) -> bool:
    """Whether a layer works on single values, or on the last axis, wherever the batch is."""
    if isinstance(layer, L.Dense):
        return v.batch < len(v.shape)
    own = (L.Softmax, L.PReLU, L.Threshold)
    return isinstance(layer, L.Activation) and not isinstance(layer, own)


def comes_from(g: Graph, v: Operand, kinds: type | tuple[type, ...]) -> bool:
    """Whether a value is the output of such a layer, perhaps moved."""
    while isinstance(v, Value) and v.name in g.made:
        layer, inputs = g.made[v.name]
        if layer.family != "shape":
            return isinstance(layer, kinds)
        v = inputs[0]
    return False


def truth(g: Graph, v: Operand) -> bool:
    """Whether a value is 1 where a mask says true, else 0."""
    if not isinstance(v, Value) or v.name not in g.made:
        return False
    layer, inputs = g.made[v.name]
    if isinstance(layer, L.NotEqual):
        return True
    passes = layer.family == "shape" or isinstance(layer, (L.Affine, L.Multiply))
    return passes and all(truth(g, i) for i in inputs)


def product(g: Graph, name: str, a: Operand, b: Operand, scale: float = 1.0, turned: bool = False) -> Value:
    """``scale a b`` (or ``a b^T``) of two values; attention weights are what rules of linear layers hold."""
    if not (isinstance(a, Value) and isinstance(b, Value)):
        raise UnsupportedError(f"{name}: a matrix product with a constant from the left is not supported")
    weights = int(comes_from(g, b, L.Softmax) and not comes_from(g, a, L.Softmax))
    rank = max(len(a.shape), len(b.shape))
    a, b = (g.reshape(f"{name}.axes", v, (1,) * (rank - len(v.shape)) + v.shape) for v in (a, b))
    return g.add(name, L.MatMul(turned, scale, weights), a, b)


def masked(g: Graph, name: str, scores: Value, mask: Operand, keep: Value | None = None) -> Value:
    """Softmax over the last axis of scores to which a mask is added, or that masks keep."""
    at = len(scores.shape) - 1
    if keep is not None:
        own = None if mask is None else _kept(np.asarray(mask))
        if isinstance(mask, Value) or (mask is not None and own is None):
            raise UnsupportedError(f"{name}: a mask of keys and one that is added are not supported together")
        own = None if own is None or own.all() else own.astype(np.float64)
        return g.add(f"{name}.softmax", L.MaskedSoftmax(keep=own, reads=("x", "mask")), scores, keep)
    if mask is None:
        return g.add(f"{name}.softmax", L.Softmax(at), scores)
    if truth(g, mask):
        shape = mask.shape
        if len(shape) > 2 and max(shape[:-2]) == 1:
            mask = g.reshape(f"{name}.mask", mask, shape[-2:])
        return g.add(f"{name}.softmax", L.MaskedSoftmax(reads=("x", "mask")), scores, mask)
    if isinstance(mask, Value):
        mask = g.reshape(f"{name}.mask", mask, (1,) * (len(scores.shape) - len(mask.shape)) + mask.shape)
        both = g.add(f"{name}.masked", L.Add(), scores, mask)
        return g.add(f"{name}.softmax", L.Softmax(at), both)
    mask = np.asarray(mask)
    if mask.ndim == len(scores.shape) + 1 and len(mask) == 1:
        mask = mask[0]
    kept = _kept(mask)
    if kept is not None:
        if kept.all():
            return g.add(f"{name}.softmax", L.Softmax(at), scores)
        return g.add(f"{name}.softmax", L.MaskedSoftmax(keep=kept.astype(np.float64)), scores)
    return g.add(f"{name}.softmax", L.Softmax(at), g.affine(f"{name}.bias", scores, 1.0, mask))


def _kept(mask: np.ndarray) -> np.ndarray | None:
    """What a mask keeps, if it is one: truth values, or 0 and what is too small to matter."""
    if mask.dtype == bool:
        return mask
    return mask == 0 if np.isin(mask, (0, -np.inf, np.finfo(mask.dtype).min)).all() else None


def attended(
    g: Graph,
    name: str,
    q: Value,
    k: Value,
    v: Value,
    mask: Operand = None,
    causal: bool = False,
    scale: float | None = None,
    keep: Value | None = None,
) -> Value:
    """Scaled dot-product attention of (..., T, d), (..., S, d) and (..., S, e); heads may share keys.

    `mask` is added to the scores, or says by truth values what is kept; `keep`, (S,), is not 0 for keys that
    are seen.
    """
    if len(q.shape) > 2 and q.shape[-3] != k.shape[-3]:
        if q.shape[-3] % k.shape[-3]:
            raise UnsupportedError(f"{name}: {q.shape[-3]} heads can't share {k.shape[-3]}")
        times = (*(1,) * (len(k.shape) - 3), q.shape[-3] // k.shape[-3], 1, 1)
        k, v = (g.add(f"{name}.{what}", L.UpSampling(times), x) for what, x in (("keys", k), ("values", v)))
    scale = 1 / np.sqrt(q.shape[-1]) if scale is None else scale
    scores = product(g, f"{name}.scores", q, k, scale, turned=True)
    if causal:
        if mask is not None:
            raise UnsupportedError(f"{name}: a causal mask and another one are not supported")
        t, s = scores.shape[-2:]  # counted from the first row, as PyTorch has it
        mask = np.tri(t, s, dtype=bool)
    return product(g, name, masked(g, name, scores, mask, keep), v)


# ---------------------------------------------------------------- recurrent layers


ORDERS = {"onnx": {"LSTM": (0, 2, 3, 1), "GRU": (1, 0, 2)}}
"""For each of our blocks, i f g o and r z n, where ONNX (i o f c, z r h) has it."""


def in_order(weight: np.ndarray | None, order: Sequence[int]) -> np.ndarray | None:
    """Blocks of rows in another order."""
    if weight is None:
        return None
    blocks = np.split(np.asarray(weight), len(order))
    return np.concatenate([blocks[k] for k in order])


def recurrent(
    g: Graph,
    name: str,
    kind: type[L.Recurrent],
    x: Value,
    directions: Sequence[dict[str, Any]],
    reverse: bool = False,
) -> Value:
    """A recurrent layer, in one direction or in both, side by side.

    Parameters
    ----------
    x : Value
        (T, D) for a sample.
    directions : sequence of dict
        Parameters of the layer in each direction; "h" and "c" may be values, initial states.
    reverse : bool
        Whether a single direction is that from the last step to the first.

    Returns
    -------
    Value
        All states.
    """
    made = []
    for n, given in enumerate(directions):
        states = [key for key in ("h", "c") if isinstance(given.get(key), Value)]
        fixed = {k: v for k, v in given.items() if k not in ("h", "c")}
        for key in ("h", "c"):
            value = given.get(key)
            if value is not None and not isinstance(value, Value) and np.any(value):
                fixed[f"initial_{key}"] = np.asarray(value)
        layer = kind(**fixed, reads=("x", *states), reverse=reverse or n == 1)
        own = name if len(directions) == 1 else f"{name}.{('forward', 'backward')[n]}"
        made.append(g.add(own, layer, x, *(given[key] for key in states)))
    return g.join(name, made, 1)
