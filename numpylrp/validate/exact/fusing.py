"""Fusing, as the composition of rows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from fractions import Fraction
from functools import singledispatch
from typing import Any

from .layers import Each, Move, Node, Pick, Rows, Scales, Threshold
from .tensors import ONE, ZERO, Shape, flat_index, positions, size

Pair = tuple[Any, Any]
"""Scale and shift of one unit. A zero put around has no shift of its own (None); a unit that nothing reads
takes any scale and shift (None, None).
"""

FREE: Pair = (None, None)


class _Refused(Exception):
    pass


def _by_channel(channels: Sequence[Any], pairs: Sequence[Pair]) -> dict[Any, Pair]:
    """Scale and shift of each channel."""
    found: dict[Any, Pair] = {}
    for c, (f, t) in zip(channels, pairs, strict=True):
        g, s = found.setdefault(c, (f, t))
        if (None not in (f, g) and f != g) or (None not in (t, s) and t != s):
            raise _Refused("scale or shift varies within a channel")
        found[c] = f if g is None else g, t if s is None else s
    return found


def _settled(pairs: Sequence[Pair]) -> list[tuple[Fraction, Fraction]]:
    return [(ONE if f is None else f, ZERO if t is None else t) for f, t in pairs]


# ---------------------------------------------------------------- into the layers before


@singledispatch
def _ask(op: Any, node: Node, pairs: list[Pair]) -> tuple[Any, list[Pair]]:
    """What takes the place of an op that is to give ``g y + s``, and what its inputs are to give."""
    raise _Refused(f"nothing moves through {node.name!r} ({node.kind})")


@_ask.register
def _(op: Rows, node: Node, pairs: list[Pair]) -> tuple[Any, list[Pair]]:
    if op.from_after == "absorb":
        per = _by_channel(op.outs, pairs)
        own = _settled([per[c] for c in op.outs])
        rows = [{i: f * w for i, w in row.items()} for row, (f, _) in zip(op.rows, own)]
        return replace(op, rows=rows, bias=[f * b + t for b, (f, t) in zip(op.bias, own)]), []
    if op.from_after == "pass":
        per = _by_channel(op.outs, pairs)
        return op, [per[c] for c in op.ins]
    if op.from_after == "branches":
        own = _settled(pairs)
        first: list[Pair] = [(f, t / row[0]) for row, (f, t) in zip([op.rows[0]] * len(own), own)]
        return op, first + [(f, ZERO) for f, _ in own] * (len(node.inputs) - 1)
    raise _Refused(f"nothing moves through {node.name!r} ({node.kind})")


@_ask.register
def _(op: Pick, node: Node, pairs: list[Pair]) -> tuple[Any, list[Pair]]:
    if not op.ins or op.outs is None:
        raise _Refused(f"nothing moves through {node.name!r} ({node.kind})")
    per = _by_channel(op.outs, pairs)
    return op.turned([f for f, _ in _settled(pairs)]), [per[c] for c in op.ins]


@_ask.register
def _(op: Move, node: Node, pairs: list[Pair]) -> tuple[Any, list[Pair]]:
    if None in op.source:
        raise _Refused(f"{node.name!r} puts zeros around, which have no shift")
    copies = _by_channel(op.source, pairs)  # the copies of a unit are asked the same
    return op, [copies.get(i, FREE) for i in range(sum(map(size, node.shapes)))]


def _into_before(nodes: Mapping[str, Node], outputs: Any, name: str, reader: str, pairs: list[Pair]) -> dict:
    """What changes where tensor `name` becomes ``g t + s``."""
    if name not in nodes or name in outputs:
        raise _Refused(f"{name!r} is an input or output")
    readers = [(n.name, source) for n in nodes.values() for source in n.inputs if source == name]
    if readers != [(reader, name)]:
        raise _Refused(f"{name!r} is read twice")
    node = nodes[name]
    op, asked = _ask(node.op, node, pairs)
    changes, at = {name: op}, 0
    for source, shape in zip(node.inputs, node.shapes) if asked else ():
        changes |= _into_before(nodes, outputs, source, name, asked[at : at + size(shape)])
        at += size(shape)
    return changes


# ---------------------------------------------------------------- into the layers after


@singledispatch
def _pass(op: Any, node: Node, pairs: list[Pair], whole: bool) -> tuple[Any, list[Pair] | None]:
    """What takes the place of an op whose input is really ``g x + s``, and what is pending after it.

    `whole` says whether all branches are scaled.
    """
    raise _Refused(f"nothing moves through {node.name!r} ({node.kind})")


@_pass.register
def _(op: Rows, node: Node, pairs: list[Pair], whole: bool) -> tuple[Any, list[Pair] | None]:
    if op.from_before == "absorb":
        _by_channel(op.ins, pairs)
        rows = [{i: w * pairs[i][0] for i, w in row.items()} for row in op.rows]
        bias = [sum((w * (pairs[i][1] or 0) for i, w in row.items()), b) for row, b in zip(op.rows, op.bias)]
        return replace(op, rows=rows, bias=bias), None
    if op.from_before == "pass":
        per = _by_channel(op.ins, pairs)
        return op, [(per[c][0], per[c][1] * sum(row.values())) for c, row in zip(op.outs, op.rows)]
    if op.from_before == "branches" and whole:
        after = []
        for row in op.rows:
            scales = {pairs[i][0] for i in row}
            if len(scales) > 1:
                raise _Refused(f"the branches of {node.name!r} differ in scale")
            after.append((scales.pop(), sum(w * pairs[i][1] for i, w in row.items())))
        return op, after
    raise _Refused(f"nothing moves through {node.name!r} ({node.kind})")


@_pass.register
def _(op: Pick, node: Node, pairs: list[Pair], whole: bool) -> tuple[Any, list[Pair] | None]:
    if not op.ins or op.outs is None:
        raise _Refused(f"nothing moves through {node.name!r} ({node.kind})")
    per = _by_channel(op.ins, pairs)
    after = [per[c] for c in op.outs]
    return op.turned([f for f, _ in after]), after


@_pass.register
def _(op: Each, node: Node, pairs: list[Pair], whole: bool) -> tuple[Any, list[Pair] | None]:
    if not op.plain:
        raise _Refused(f"nothing moves through {node.name!r} ({node.kind})")
    return _pass(Threshold([ONE] * len(pairs), [ZERO] * len(pairs)), node, pairs, whole)


@_pass.register
def _(op: Threshold, node: Node, pairs: list[Pair], whole: bool) -> tuple[Any, list[Pair] | None]:
    """T(g x + s) = g T'(x) + s; g = 0: the constant T(s)."""
    sign = [s * ((f > 0) - (f < 0)) for s, (f, _) in zip(op.sign, pairs)]
    value = [(v - t) / f if s else ZERO for v, s, (f, t) in zip(op.value, sign, pairs)]
    at_zero = op.forward([t for _, t in pairs])
    return Threshold(sign, value), [(f, t if f else c) for (f, t), c in zip(pairs, at_zero)]


@_pass.register
def _(op: Move, node: Node, pairs: list[Pair], whole: bool) -> tuple[Any, list[Pair] | None]:
    if node.kind == "CopyPadding" and any(t is None for _, t in pairs):
        raise _Refused(f"zeros were put around it before {node.name!r}")
    if node.kind in ("Flatten", "Reshape"):
        pairs = [(f, t or ZERO) for f, t in pairs]
    own = [a for a in range(len(node.shape)) if op.edge and _varies(pairs, node.shapes[0], a)]
    around = {  # a zero in a channel of its own is no part of another's
        j: (ONE, ZERO) if set(axes) & set(own) else (pairs[near][0], None)
        for j, (near, axes) in op.edge.items()
    }
    return op, [around[j] if i is None else pairs[i] for j, i in enumerate(op.source)]


def _varies(values: Sequence[Pair], shape: Shape, axis: int) -> bool:
    start = [(*at[:axis], 0, *at[axis + 1 :]) for at in positions(shape)]
    return any(values[j] != values[flat_index(at, shape)] for j, at in enumerate(start))


def _into_after(nodes: Mapping[str, Node], outputs: Any, name: str, start: list[Pair]) -> dict:
    """What changes where all that reads `name` gets t for ``g t + s``."""
    pending: dict[str, list[Pair]] = {name: start}
    changes: dict[str, Any] = {}
    for node in nodes.values():
        if node.name == name or not pending.keys() & set(node.inputs):
            continue
        pairs: list[Pair] = []
        for source, shape in zip(node.inputs, node.shapes):
            pairs += pending.get(source, [(ONE, ZERO)] * size(shape))
        zeros_fit = isinstance(node.op, Move) or node.kind.startswith(("Conv", "ScaledPool"))
        if not zeros_fit and any(t is None for _, t in pairs):
            raise _Refused(f"zeros were put around it before {node.name!r}")
        changes[node.name], left = _pass(node.op, node, pairs, pending.keys() >= set(node.inputs))
        if left is not None:
            pending[node.name] = left
    if pending.keys() & set(outputs):
        raise _Refused("an output needs it")
    return changes


# ---------------------------------------------------------------- all of a network


def _identity(n: int) -> Move:
    return Move(list(range(n)))


def _pairs_of(op: Scales) -> list[Pair]:
    return [(row[i], b) for i, (row, b) in enumerate(zip(op.rows, op.bias))]


def _root(nodes: Mapping[str, Node], outputs: Any, name: str) -> tuple[str, list[tuple], list[str]]:
    """A tensor as ``g root + s``: the root, scales and shifts, and the layers between."""
    through: list[str] = []
    pairs: list[tuple] = []
    while name in nodes and isinstance(nodes[name].op, Scales) and name not in outputs:
        if len({n.name for n in nodes.values() if name in n.inputs}) > 1:
            break
        own = _pairs_of(nodes[name].op)
        pairs = [(f * g, f * s + t) for (f, t), (g, s) in zip(pairs, own)] if pairs else own
        through.append(name)
        (name,) = nodes[name].inputs
    return name, pairs, through


def _summed(nodes: dict[str, Node], outputs: Any) -> dict[str, Node]:
    """Each sum of diagonal layers of one tensor made one of them: (g + 1) x + s for BN(x) + x."""
    for name in list(nodes):
        node = nodes[name]
        if not isinstance(node.op, Rows) or node.op.from_before != "branches":
            continue
        branches = [_root(nodes, outputs, source) for source in node.inputs]
        roots, gone = {root for root, _, _ in branches}, [n for *_, through in branches for n in through]
        if len(roots) > 1 or not gone:
            continue
        n, (root,) = size(node.shape), roots
        weights = list(node.op.rows[0].values())
        every = [pairs or [(ONE, ZERO)] * n for _, pairs, _ in branches]
        g = [sum(w * pairs[i][0] for w, pairs in zip(weights, every)) for i in range(n)]
        s = [sum(w * pairs[i][1] for w, pairs in zip(weights, every)) for i in range(n)]
        axes = [a for a in range(len(node.shape)) if _varies([*zip(g, s)], node.shape, a)]
        if len(axes) > 1:
            continue
        along = [at[axes[0]] if axes else 0 for at in positions(node.shape)]
        one = Scales([{i: f} for i, f in enumerate(g)], s, along, along)
        nodes = {at: kept for at, kept in nodes.items() if at not in gone}
        nodes[name] = replace(node, op=one, inputs=(root,), shapes=[node.shape])
    return nodes


def fuse_nodes(nodes: dict[str, Node], outputs: Any) -> tuple[dict[str, Node], dict[str, str]]:
    """The nodes with the diagonal layers gone (identities), and why others stay."""
    stays = {}
    nodes = _summed(nodes, outputs)
    for name in [node.name for node in nodes.values() if isinstance(node.op, Scales)]:
        node = nodes[name]
        pairs = _pairs_of(node.op)
        try:
            changes = _into_before(nodes, outputs, node.inputs[0], name, pairs)
        except _Refused as before:
            try:
                changes = _into_after(nodes, outputs, name, pairs)
            except _Refused as after:
                stays[name] = f"before: {before}; after: {after}"
                continue
        changes[name] = _identity(len(pairs))
        nodes = {n.name: replace(n, op=changes.get(n.name, n.op)) for n in nodes.values()}
    return nodes, stays
