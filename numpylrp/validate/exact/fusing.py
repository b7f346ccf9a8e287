"""Fusing, as the composition of rows."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from fractions import Fraction
from typing import Any

from .layers import Each, Move, Node, Pick, Rows, Threshold
from .rules import plus
from .tensors import ONE, ZERO, Shape, Values, flat_index, positions, size


class _Refused(Exception):
    pass


def _by_channel(channels: list[int], g: Values, s: list) -> dict[int, tuple[Fraction, Fraction]]:
    """Scale and shift of each channel; zeros put around (s None) have no shift of their own."""
    found: dict[int, tuple] = {}
    for c, f, t in zip(channels, g, s, strict=True):
        known = found.setdefault(c, (f, t))
        if known[1] is None:
            known = found[c] = (known[0], t)
        if known[0] != f or t not in (None, known[1]):
            raise _Refused("scale or shift varies within a channel")
    return found


def _into_before(
    nodes: Mapping[str, Node], outputs: Any, name: str, reader: str, g: Values, s: Values
) -> dict:
    """What changes where tensor `name` becomes ``g t + s``."""
    if name not in nodes or name in outputs:
        raise _Refused(f"{name!r} is an input or output")
    readers = [(n.name, source) for n in nodes.values() for source in n.inputs if source == name]
    if readers != [(reader, name)]:
        raise _Refused(f"{name!r} is read twice")
    node, op = nodes[name], nodes[name].op
    changes: dict[str, Any] = {}
    n = sum(map(size, node.shapes))
    if isinstance(op, Rows) and op.from_after == "absorb":
        _by_channel(op.outs, g, s)
        rows = [{i: f * w for i, w in row.items()} for row, f in zip(op.rows, g)]
        return {name: replace(op, rows=rows, bias=[f * b + t for b, f, t in zip(op.bias, g, s)])}
    if isinstance(op, Move) and None not in op.source and sorted(op.source) == list(range(n)):
        where = {i: j for j, i in enumerate(op.source)}
        before = [(g[where[i]], s[where[i]]) for i in range(n)]
    elif (isinstance(op, Pick) and op.ins) or (isinstance(op, Rows) and op.from_after == "pass"):
        per = _by_channel(op.outs, g, s)
        before = [per[c] for c in op.ins]
        if isinstance(op, Pick):
            changes[name] = op.turned(g)
    elif isinstance(op, Rows) and op.from_after == "branches":
        first = [(f, t / op.rows[0][0]) for f, t in zip(g, s)]
        before = first + [(f, ZERO) for f in g] * (len(node.inputs) - 1)
    else:
        raise _Refused(f"nothing moves through {name!r} ({node.kind})")
    at = 0
    for source, shape in zip(node.inputs, node.shapes):
        part = before[at : at + size(shape)]
        at += size(shape)
        changes |= _into_before(nodes, outputs, source, name, [f for f, _ in part], [t for _, t in part])
    return changes


def _varies(values: list, shape: Shape, axis: int) -> bool:
    start = [(*at[:axis], 0, *at[axis + 1 :]) for at in positions(shape)]
    return any(values[j] != values[flat_index(at, shape)] for j, at in enumerate(start))


def _into_after(nodes: Mapping[str, Node], outputs: Any, name: str, g: Values, s: Values) -> dict:
    """What changes where all that reads `name` gets t for ``g t + s``."""
    pending: dict[str, tuple] = {name: (g, s)}
    changes: dict[str, Any] = {}
    for node in nodes.values():
        if node.name == name or not pending.keys() & set(node.inputs):
            continue
        g, s = [], []
        for source, shape in zip(node.inputs, node.shapes):
            f, t = pending.get(source, ([ONE] * size(shape), [ZERO] * size(shape)))
            g, s = g + f, s + t
        op = node.op
        if None in s and not isinstance(op, Move) and not node.kind.startswith("Conv"):
            raise _Refused(f"zeros were put around it before {node.name!r}")
        if isinstance(op, Rows) and op.from_before == "absorb":
            _by_channel(op.ins, g, s)
            rows = [{i: w * g[i] for i, w in row.items()} for row in op.rows]
            more = [sum((w * (s[i] or 0) for i, w in row.items()), b) for row, b in zip(op.rows, op.bias)]
            changes[node.name] = replace(op, rows=rows, bias=more)
            continue
        if isinstance(op, Rows) and op.from_before == "pass":
            per = _by_channel(op.ins, g, s)
            g = [per[c][0] for c in op.outs]
            s = [per[c][1] * sum(row.values()) for c, row in zip(op.outs, op.rows)]
        elif isinstance(op, Pick) and op.ins:
            per = _by_channel(op.ins, g, s)
            g, s = [per[c][0] for c in op.outs], [per[c][1] for c in op.outs]
            changes[node.name] = op.turned(g)
        elif isinstance(op, Each) and op.plain:
            sign = [Fraction((f > 0) - (f < 0)) for f in g]
            changes[node.name] = Threshold(sign, [-t / f if f else ZERO for f, t in zip(g, s)])
            s = [t if f else plus(t) for f, t in zip(g, s)]  # g = 0: the constant max(0, s)
        elif isinstance(op, Move):
            if node.kind in ("Flatten", "Reshape"):
                s = [t or ZERO for t in s]
            own = [a for a in range(len(node.shape)) if op.edge and _varies([*zip(g, s)], node.shapes[0], a)]
            around = {  # a zero in a channel of its own is no part of another's
                j: (ONE, ZERO) if set(axes) & set(own) else (g[near], None)
                for j, (near, axes) in op.edge.items()
            }
            both = [around[j] if i is None else (g[i], s[i]) for j, i in enumerate(op.source)]
            g, s = [f for f, _ in both], [t for _, t in both]
        else:
            raise _Refused(f"nothing moves through {node.name!r} ({node.kind})")
        pending[node.name] = g, s
    if pending.keys() & set(outputs):
        raise _Refused("an output needs it")
    return changes


def fuse_nodes(nodes: dict[str, Node], outputs: Any) -> tuple[dict[str, Node], dict[str, str]]:
    """The nodes with batch normalizations gone (identities), and why others stay."""
    stays = {}
    for name in [node.name for node in nodes.values() if node.kind == "BatchNorm"]:
        node = nodes[name]
        g, s = [row[i] for i, row in enumerate(node.op.rows)], node.op.bias
        try:
            changes = _into_before(nodes, outputs, node.inputs[0], name, g, s)
        except _Refused as before:
            try:
                changes = _into_after(nodes, outputs, name, g, s)
            except _Refused as after:
                stays[name] = f"before: {before}; after: {after}"
                continue
        changes[name] = Move(list(range(len(g))))
        nodes = {n.name: replace(n, op=changes.get(n.name, n.op)) for n in nodes.values()}
    return nodes, stays
