"""Operations of Keras' functional graphs on tensors and constants, such as ``x / 255`` and ``x[:, 1:]``.

Keras 3 stores them as layers of `keras.src.ops.numpy`, Keras 2 as TFOpLambda and SlicingOpLambda.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from .. import layers as L
from ..errors import UnsupportedError
from .keras_layers import BUILDERS, Builder, Tensor, axis

OPERATIONS = {
    **dict.fromkeys(("Add", "math.add", "__operators__.add"), "Add"),
    **dict.fromkeys(("Subtract", "math.subtract"), "Subtract"),
    **dict.fromkeys(("Multiply", "math.multiply"), "Multiply"),
    **dict.fromkeys(("TrueDivide", "Divide", "math.truediv", "math.divide"), "Divide"),
    **dict.fromkeys(("Maximum", "math.maximum"), "Maximum"),
    **dict.fromkeys(("Minimum", "math.minimum"), "Minimum"),
    **dict.fromkeys(("Negative", "math.negative"), "Negative"),
    **dict.fromkeys(("GetItem", "__operators__.getitem"), "GetItem"),
}
"""What is understood, by the names of Keras 3 and 2."""


class Ref(NamedTuple):
    """A tensor of the model: which layer, which of its calls, which of its outputs."""

    layer: str
    call: int
    output: int


def operation(entry: dict) -> str | None:
    """The name of the operation that an entry of a configuration is, None where it is built as a layer."""
    if entry["class_name"] in ("TFOpLambda", "SlicingOpLambda"):
        return str(entry["config"].get("function"))
    if entry["class_name"] not in OPERATIONS:
        return None
    # .h5 files leave the module out; the layers of these names are called with a list of tensors
    nodes = [n for n in entry.get("inbound_nodes") or [] if isinstance(n, dict)]
    listed = not nodes or isinstance(nodes[0]["args"][0], list)
    own = ".ops" in str(entry["module"]) if "module" in entry else not listed
    return entry["class_name"] if own else None


def operands(node: Any) -> list[Any]:
    """What an operation is called with, in order: a `Ref` for each tensor, else what the file has."""
    if isinstance(node, dict):  # Keras 3
        return [_operand(v) for v in (*node["args"], *node.get("kwargs", {}).values())]
    while isinstance(node[0], list):
        node = node[0]
    more = {k: v for k, v in (node[3] if len(node) > 3 else {}).items() if k != "name"}
    first = node[2] if node[0] == "_CONSTANT_VALUE" else Ref(*node[:3])
    return [first, *(_operand(v) for v in more.values())]


def _operand(value: Any) -> Any:
    if isinstance(value, dict) and "keras_history" in value.get("config", ()):
        return Ref(*value["config"]["keras_history"][:3])
    named = isinstance(value, list) and len(value) == 3 and isinstance(value[0], str)
    return Ref(*value) if named else value


def build(b: Builder, kind: str, name: str, given: list[Any]) -> Tensor:
    """Add an operation on tensors and constants to the builder."""
    if kind not in OPERATIONS:
        raise UnsupportedError(f"the operation is not supported; there are {', '.join(OPERATIONS)}")
    kind, t = OPERATIONS[kind], [v for v in given if isinstance(v, Tensor)]
    if kind == "GetItem":
        return _part(b, name, t[0], given[1])
    if kind == "Negative":
        return b.add(name, L.Affine(-1.0, 0.0), t[0])
    if len(t) == 2 and kind in BUILDERS:
        if t[0].rank != t[1].rank:  # broadcast from the last axis, which would take the batch for another
            raise UnsupportedError(f"samples with {t[0].rank} and {t[1].rank} axes don't fit together")
        return BUILDERS[kind](b, name, {}, t, [])
    behind = isinstance(given[1], Tensor)
    if len(given) != 2 or len(t) != 1 or (kind == "Divide" and behind):
        raise UnsupportedError("division by a tensor of the model is not supported")
    c = _constant(given[0] if behind else given[1])
    if kind in ("Maximum", "Minimum"):
        if c.size != 1:
            raise UnsupportedError(
                f"an array of constants of shape {c.shape} is not supported, only a number"
            )
        ends = {"low" if kind == "Maximum" else "high": float(c.reshape(()))}
        return b.add(name, L.ReLU() if ends == {"low": 0.0} else L.Clip(**ends), t[0])
    scale, shift = {
        "Add": (1.0, c),
        "Subtract": (-1.0, c) if behind else (1.0, -c),
        "Multiply": (c, 0.0),
        "Divide": (1 / c, 0.0),
    }[kind]
    long = [at for at, n in enumerate(c.shape) if n > 1]
    if len(long) > 1 or c.ndim > t[0].rank + 1 or (c.ndim > t[0].rank and c.shape[0] > 1):
        raise UnsupportedError(f"a constant of shape {c.shape} is not supported: one value, or one a channel")
    at = axis(t[0], long[0] - c.ndim) if long else 0
    return b.add(name, L.Affine(np.ravel(scale), np.ravel(shift), at), t[0])


def _constant(value: Any) -> np.ndarray:
    """A number, or an array as Keras writes it."""
    if isinstance(value, dict) and value.get("class_name") in ("__numpy__", "__tensor__"):
        value = value["config"]["value"]
    try:
        return np.asarray(value, np.float64)
    except (TypeError, ValueError):
        raise UnsupportedError(f"the constant {value!r:.60} is not supported, only numbers") from None


def _part(b: Builder, name: str, t: Tensor, spec: Any) -> Tensor:
    """``x[:, start:stop:step, index]``."""
    spec = spec if isinstance(spec, list) else [spec]
    cuts = [s if isinstance(s, int) else _cut(s) for s in spec]
    if not cuts or cuts[0] not in ((None, None, None), (0, None, None)):
        raise UnsupportedError("a slice of the batch is not supported")
    if len(cuts) > t.rank + 1:
        raise UnsupportedError(f"{len(cuts)} indices of samples with {t.rank} axes are not supported")
    gone = sum(isinstance(s, int) for s in cuts)
    if gone and t.rank - gone != 1:
        raise UnsupportedError("an index that leaves other than one axis is not supported; a slice is")
    t = b.laid(t, False) if gone else t
    start, stop, step = [0] * t.rank, [None] * t.rank, [1] * t.rank
    for n, s in enumerate(cuts[1:], 1):
        at = axis(t, n)
        first, last, every = (s, s + 1 or None, 1) if isinstance(s, int) else s
        start[at], stop[at], step[at] = first or 0, last, 1 if every is None else every
    if min(step) < 1:
        raise UnsupportedError(f"a slice with step {min(step)} is not supported")
    part = b.add(f"{name}/part" if gone else name, L.Slice(tuple(start), tuple(stop), tuple(step)), t)
    return b.add(name, L.Flatten(), part, rank=1, swapped=False) if gone else part


def _cut(spec: Any) -> tuple:
    """(start, stop, step) of a slice as Keras 3 or 2 writes it."""
    c = spec.get("config", spec) if isinstance(spec, dict) else {}
    ends = tuple(c.get(k) for k in ("start", "stop", "step"))
    known = "start" in c and all(v is None or isinstance(v, int) for v in ends)
    if not known:
        raise UnsupportedError(f"the index {spec!r:.60} is not supported, only integers and slices")
    return ends
