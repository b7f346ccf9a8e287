"""ONNX' operators for tokens and recurrent layers, and what exporters write out for them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np

from .. import layers as L
from ..errors import MissingExtraError, UnsupportedError
from .graph import Graph, Value
from .sequences import ORDERS, attended, in_order, recurrent

try:
    import onnx

    from .onnx_patterns import _add as add_norm
except ImportError:
    raise MissingExtraError(
        "reading ONNX models needs the package onnx: pip install 'numpylrp[onnx]'"
    ) from None

# ---------------------------------------------------------------- recurrent layers

GATES = {"Sigmoid": "sigmoid", "Tanh": "tanh", "Relu": "relu", "HardSigmoid": "hard_sigmoid_keras2"}
"""What ONNX calls the functions of recurrent layers; HardSigmoid with its defaults."""

USUAL = {"LSTM": ("Sigmoid", "Tanh", "Tanh"), "GRU": ("Sigmoid", "Tanh"), "RNN": ("Tanh",)}


def _functions(name: str, a: Any, kind: str, count: int) -> dict[str, str]:
    """The functions of gates and candidates, one choice for all directions."""
    usual = USUAL[kind]
    given = [v.decode() if isinstance(v, bytes) else v for v in a.get("activations", usual * count)]
    sets = {tuple(given[n : n + len(usual)]) for n in range(0, len(given), len(usual))}
    known = all(f in GATES for one in sets for f in one)
    options = a.get("activation_alpha") or a.get("activation_beta")
    if len(sets) > 1 or not known or options or (kind == "LSTM" and len({one[1:] for one in sets}) > 1):
        raise UnsupportedError(f"{name}: {kind} with the activations {', '.join(given)} is not supported")
    (one,) = sets
    if kind == "LSTM" and one[1] != one[2]:
        raise UnsupportedError(f"{name}: LSTM with the activations {', '.join(given)} is not supported")
    found = {"activation": GATES[one[-1]]}
    return found if kind == "RNN" else {**found, "gate": GATES[one[0]]}


def _state(g: Graph, name: str, a: Any, n: int, direction: int, front: int) -> Any:
    """An initial state of one direction: nothing, a constant, or a value."""
    if not a.has(n):
        return None
    given = a.operand(n)
    if isinstance(given, Value):
        if given.batch != front:
            raise UnsupportedError(f"{name}: initial states must have the batch on axis {front}")
        return g.select(f"{name}.state", given._replace(batch=0), 0, direction)
    rows = given[direction] if front else given[:, direction]
    if (rows != rows[:1]).any():
        raise UnsupportedError(f"{name}: initial states that differ between samples are not supported")
    return rows[0]


def _recurrent(kind: str) -> Callable:
    kinds: dict[str, type[L.Recurrent]] = {"LSTM": L.LSTM, "GRU": L.GRU, "RNN": L.SimpleRNN}
    layer = kinds[kind]

    def build(g: Graph, name: str, a: Any) -> list:
        if a.get("clip") or a.get("input_forget") or a.has(7):
            raise UnsupportedError(f"{name}: {kind} with clip, input_forget or peepholes is not supported")
        if a.has(4) and isinstance(a.operand(4), Value):
            raise UnsupportedError(f"{name}: {kind} with lengths that depend on the input is not supported")
        front = 0 if a.get("layout", 0) else 1
        x = a.value()
        lengths = a.array(4)
        if x.batch != front or (lengths is not None and (lengths != x.shape[0]).any()):
            raise UnsupportedError(f"{name}: {kind} must read time first, then samples, all of one length")
        x = x._replace(batch=0)
        direction = a.get("direction", "forward")
        count, read = (2 if direction == "bidirectional" else 1), a.graph.read
        functions, directions = _functions(name, a, kind, count), []
        for n in range(count):
            given = {**functions, **_weights(a, kind, n)}
            given.update((s, _state(g, name, a, 5 + k, n, front)) for k, s in enumerate(layer.states))
            directions.append(given)
        outputs = [o for o in a.node.output if o]
        if len(a.node.output) > 2 and a.node.output[2] in read:
            raise UnsupportedError(f"{name}: the final cell state as an output is not supported")
        backward = direction == "reverse"
        states = _made(g, name, layer, x, directions, backward)
        h = layer(**{k: v for k, v in directions[0].items() if k not in ("h", "c")}).units
        results: list[Any] = [None] * len(a.node.output)
        if a.node.output[0] in read:
            whole = g.reshape(f"{name}.directions", g.join(name, states, 1), (x.shape[0], count, h))
            results[0] = whole._replace(batch=2 if front else 0)
        if len(outputs) > 1 and a.node.output[1] in read:
            last = [
                g.select(f"{name}.last{n}", s, 0, 0 if backward or n else -1) for n, s in enumerate(states)
            ]
            ends = g.reshape(f"{name}.ends", g.join(f"{name}.end", last, 0), (count, h))
            results[1] = ends._replace(batch=front)
        return results

    return build


def _made(g: Graph, name: str, kind: type, x: Value, directions: list[dict], backward: bool) -> list[Value]:
    """The states of each direction, (T, H)."""
    made = []
    for n, given in enumerate(directions):
        own = name if len(directions) == 1 else f"{name}.{('forward', 'backward')[n]}"
        one = recurrent(g, own, kind, x, [given], reverse=backward or n == 1)
        made.append(one)
    return made


def _weights(a: Any, kind: str, n: int) -> dict[str, Any]:
    """The parameters of one direction, in our order of gates."""
    order = ORDERS["onnx"].get(kind, (0,))
    W, R, B = (None if v is None else v[n] for v in (a.array(1), a.array(2), a.array(3)))
    found: dict[str, Any] = {"weight": in_order(W, order), "recurrent": in_order(R, order)}
    if B is None:
        return found | ({"reset_after": bool(a.get("linear_before_reset", 0))} if kind == "GRU" else {})
    first, second = (np.asarray(in_order(b, order)) for b in np.split(B, 2))
    if kind == "GRU":
        after = bool(a.get("linear_before_reset", 0))
        return found | {"bias": first, "recurrent_bias": second, "reset_after": after}
    return found | {"bias": first + second}


# ---------------------------------------------------------------- tokens and moves


def gather(before: Callable) -> Callable:
    """Entries of a value; of a constant by a value: an embedding."""

    def build(g: Graph, name: str, a: Any) -> Any:
        table, index = a.operand(0), a.operand(1)
        if isinstance(table, Value):
            return before(g, name, a)
        if np.ndim(table) != 2 or a.get("axis", 0):
            raise UnsupportedError(
                f"{name}: Gather of an array {np.shape(table)} by a value is not supported"
            )
        return g.add(name, L.Embedding(table), index)

    return build


def reshape(before: Callable) -> Callable:
    """Where the batch is not in front it stays where it is."""

    def build(g: Graph, name: str, a: Any) -> Value:
        x = a.value()
        if not x.batch:
            return before(g, name, a)
        shape = [int(n) for n in a.given("shape", 1)]
        old = [*x.shape[: x.batch], 1, *x.shape[x.batch :]]
        if len(shape) <= x.batch or shape[x.batch] not in (0, 1):
            raise UnsupportedError(f"{name}: the batch is on axis {x.batch}, and a reshape moves it")
        shape = [old[n] if s == 0 else s for n, s in enumerate(shape)]
        ahead = shape[: x.batch]
        if list(ahead) != list(x.shape[: x.batch]):
            raise UnsupportedError(f"{name}: the batch is on axis {x.batch}, and a reshape moves it")
        inside = g.reshape(name, x._replace(batch=0), [*ahead, *shape[x.batch + 1 :]])
        return inside._replace(batch=x.batch)

    return build


def _attention(g: Graph, name: str, a: Any) -> Value:
    """Attention of operator set 23, on (N, H, T, d)."""
    q, k, v = given = [a.operand(n) for n in range(3)]
    if len(a.node.output) > 1 or any(a.has(n) for n in (4, 5, 6)) or a.get("softcap", 0):
        raise UnsupportedError(f"{name}: Attention with a cache, softcap or several outputs is not supported")
    if not all(isinstance(v, Value) and len(v.shape) == 3 for v in given):
        raise UnsupportedError(f"{name}: Attention is supported of values (N, heads, T, d) only")
    mask = a.operand(3) if a.has(3) else None
    return attended(g, name, q, k, v, mask, bool(a.get("is_causal", 0)), a.get("scale"))


OPERATIONS: dict[str, Callable] = {**{kind: _recurrent(kind) for kind in USUAL}, "Attention": _attention}
"""The operators of ONNX that are understood here."""


# ---------------------------------------------------------------- what exporters write out


class _Nodes:
    """The nodes that depend on the input, to walk back from one."""

    def __init__(self, nodes: list, constants: Mapping[str, Any], outputs: set[str]) -> None:
        self.nodes, self.constants, self.outputs = nodes, constants, outputs
        self.made = {o: n for n, node in enumerate(nodes) for o in node.output}
        self.readers: dict[str, set[int]] = {}
        for n, node in enumerate(nodes):
            for i in node.input:
                self.readers.setdefault(i, set()).add(n)

    def of(self, name: str, *kinds: str) -> tuple[int, Any] | None:
        """The node that makes a value, if it is of these kinds."""
        n = self.made.get(name)
        return None if n is None or self.nodes[n].op_type not in kinds else (n, self.nodes[n])

    def moved(self, name: str, used: set[int]) -> str:
        """The value before what changes only its shape or type."""
        while found := self.of(name, "Reshape", "Expand", "Cast", "Identity", "Unsqueeze"):
            used.add(found[0])
            name = found[1].input[0]
        return name

    def number(self, name: str) -> float | None:
        """A constant of one value."""
        value = self.constants.get(name)
        return float(np.reshape(value, ())) if value is not None and np.size(value) == 1 else None

    def both(self, name: str, kind: str, used: set[int]) -> tuple[str, Any] | None:
        """A sum or product of a value and a constant: the value's name and the constant."""
        found = self.of(name, kind)
        if found is None:
            return None
        used.add(found[0])
        a, b = found[1].input
        a, b = (b, a) if a in self.constants else (a, b)
        return (a, self.constants[b]) if b in self.constants and a not in self.constants else None

    def closed(self, last: int, used: set[int]) -> bool:
        """Whether nothing else reads what lies within."""
        inner = [o for n in used - {last} for o in self.nodes[n].output]
        return all(self.readers.get(o, set()) <= used and o not in self.outputs for o in inner)

    def mean(self, name: str, used: set[int]) -> tuple[str, tuple[int, ...], float] | None:
        """``c sum(x)`` over axes: what is summed, the axes and c (0 of a mean)."""
        name, c = self.moved(name, used), 0.0
        if found := self.of(name, "Mul", "Div"):
            scaled = self.both(name, found[1].op_type, used)
            if scaled is None or np.size(scaled[1]) != 1:
                return None
            factor = float(np.reshape(scaled[1], ()))
            c = 1 / factor if found[1].op_type == "Div" else factor
            name = scaled[0]
        reduced = self.of(name, "ReduceSum" if c else "ReduceMean")
        if reduced is None:
            return None
        used.add(reduced[0])
        node = reduced[1]
        axes = next((onnx.helper.get_attribute_value(a) for a in node.attribute if a.name == "axes"), None)
        axes = self.constants.get(node.input[1]) if axes is None and len(node.input) > 1 else axes
        return None if axes is None else (node.input[0], tuple(int(n) for n in np.ravel(axes)), c)

    def square(self, name: str, used: set[int]) -> str | None:
        """What is multiplied by itself."""
        found = self.of(name, "Mul", "Pow")
        if found is None:
            return None
        used.add(found[0])
        a, b = found[1].input
        whole = b == a if found[1].op_type == "Mul" else self.number(b) == 2
        return a if whole else None


def _layer_norm(of: _Nodes, last: int) -> tuple[str, set[int], Callable] | None:
    """``(x - m) (gamma / sqrt(max(0, E[x^2] - m^2) + eps)) + beta``, as Flax has it."""
    used = {last}
    summed = of.both(of.nodes[last].output[0], "Add", used)
    product = of.of(summed[0], "Mul") if summed else None
    if product is None or summed is None:
        return None
    used.add(product[0])
    for centred, scaled in (product[1].input, reversed(product[1].input)):
        difference = of.of(centred, "Sub")
        if difference is None:
            continue
        used.add(difference[0])
        x = difference[1].input[0]
        mean = of.mean(difference[1].input[1], used)
        gamma: Any = np.ones(())
        if learned := of.both(scaled, "Mul", used):
            scaled, gamma = learned
        under = _under_root(of, scaled, used)
        if mean is None or under is None or mean[0] != x:
            return None
        variance, eps = under
        if _variance_of(of, variance, used) != mean:
            return None
        return x, used, _norm(mean, gamma, summed[1], eps)
    return None


def _under_root(of: _Nodes, name: str, used: set[int]) -> tuple[str, float] | None:
    """V and eps of ``1 / sqrt(v + eps)``."""
    for kind in ("Reciprocal", "Sqrt"):
        found = of.of(name, kind)
        if found is None:
            return None
        used.add(found[0])
        name = found[1].input[0]
    moved = of.both(name, "Add", used)
    if moved is None or np.size(moved[1]) != 1:
        return None
    name = of.moved(moved[0], used)
    if limited := of.both(name, "Max", used):
        name = limited[0]
    return name, float(np.reshape(moved[1], ()))


def _variance_of(of: _Nodes, name: str, used: set[int]) -> tuple[str, tuple[int, ...], float] | None:
    """The mean of which this is the variance, ``E[x^2] - m^2``."""
    found = of.of(name, "Sub")
    if found is None:
        return None
    used.add(found[0])
    squares, squared = of.mean(found[1].input[0], used), of.square(found[1].input[1], used)
    mean = None if squared is None else of.mean(squared, used)
    if squares is None or mean is None or of.square(squares[0], used) != mean[0] or squares[1:] != mean[1:]:
        return None
    return mean


def _norm(mean: tuple[str, tuple[int, ...], float], gamma: Any, beta: Any, eps: float) -> Callable:
    _, axes, c = mean

    def add(g: Graph, name: str, v: Value) -> Value:
        count = np.prod([v.shape[g.axis(name, v, a)] for a in axes])
        if c and not np.isclose(c * count, 1, rtol=1e-5):
            raise UnsupportedError(f"{name}: a sum over {count:.0f} values times {c:g} is no mean")
        return add_norm(g, name, v, axes, np.asarray(gamma), np.asarray(beta), eps, L.LayerNorm)

    return add


def _softmax(of: _Nodes, last: int) -> tuple[str, set[int], Callable] | None:
    """``exp(z - max z) / sum exp(z - max z)``."""
    used = {last}
    first, second = of.nodes[last].input
    exp = of.of(first, "Exp")
    total = of.of(of.moved(second, used), "ReduceSum")
    if exp is None or total is None or total[1].input[0] != first:
        return None
    difference = of.of(exp[1].input[0], "Sub")
    if difference is None:
        return None
    used |= {exp[0], total[0], difference[0]}
    z, top = difference[1].input[0], of.moved(difference[1].input[1], used)
    if limited := of.both(top, "Max", used):
        top = of.moved(limited[0], used)
    largest = of.of(top, "ReduceMax")
    axes = of.constants.get(total[1].input[1]) if len(total[1].input) > 1 else None
    if largest is None or largest[1].input[0] != z or axes is None or np.size(axes) != 1:
        return None
    used.add(largest[0])
    axis = int(np.ravel(axes)[0])
    return z, used, lambda g, name, v: g.add(name, L.Softmax(g.axis(name, v, axis)), v)


def _tokens(of: _Nodes, last: int) -> tuple[str, set[int], Callable] | None:
    """A one-hot code, ``x == (0, 1, ...)``, times a matrix: an embedding."""
    used = {last}
    table: Any = of.constants.get(of.nodes[last].input[1])
    code = of.nodes[last].input[0]
    while found := of.of(code, "Cast"):
        used.add(found[0])
        code = found[1].input[0]
    if np.ndim(table) != 2 or not of.of(code, "Equal"):
        return None
    equal = of.both(code, "Equal", used)
    if equal is None or not np.array_equal(np.ravel(equal[1]), np.arange(len(table))):
        return None
    return of.moved(equal[0], used), used, lambda g, name, v: g.add(name, L.Embedding(table), v)


PATTERNS = {"Add": _layer_norm, "Div": _softmax, "MatMul": _tokens}


def found(
    nodes: list, constants: Mapping[str, Any], outputs: set[str]
) -> Iterator[tuple[str, int, set[int], Callable]]:
    """As `numpylrp.export.onnx_patterns.found`."""
    of = _Nodes(nodes, constants, outputs)
    taken: set[int] = set()
    for last, node in enumerate(nodes):
        match = (
            PATTERNS[node.op_type](of, last) if node.op_type in PATTERNS and len(node.input) == 2 else None
        )
        if match is not None and of.closed(last, match[1]) and not match[1] & taken:
            taken |= match[1]
            yield match[0], last, match[1], match[2]
