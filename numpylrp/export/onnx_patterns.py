"""What exporters write out operator by operator, and is one layer here.

A dense layer is often a MatMul and an Add. An operator set without LayerNormalization (before 17) or
Gelu (before 20) has their formulas written out: what lies between a value and a later one is read as a
polynomial in that value and in functions of it, in whatever order its steps come, and compared with the
layer's formula term by term. Only what is the same throughout, and read from nowhere else, is replaced.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np
import onnx

from .. import layers as L
from ..errors import UnsupportedError
from .graph import Graph, Value

STEPS, TERMS = 48, 16
"""Nodes behind a value that are looked at, and terms of a polynomial: more is no layer of ours."""


class Formula:
    """A polynomial: for each product of atoms (their numbers, sorted) its coefficient, number or array."""

    def __init__(self, terms: Mapping[tuple[int, ...], Any]) -> None:
        arrays = {key: np.asarray(value, np.float64) for key, value in terms.items()}
        self.terms = {key: value for key, value in arrays.items() if value.any()}

    @staticmethod
    def of(value: Any) -> Formula:
        """A constant as a formula; formulas as they are."""
        return value if isinstance(value, Formula) else Formula({(): value})

    def __add__(self, other: Any) -> Formula:
        terms = dict(self.terms)
        for key, value in Formula.of(other).terms.items():
            terms[key] = terms[key] + value if key in terms else value
        return Formula(terms)

    def __mul__(self, other: Any) -> Formula:
        total = Formula({})
        for key, value in self.terms.items():
            for more, factor in Formula.of(other).terms.items():
                total += Formula({tuple(sorted(key + more)): value * factor})
        return total

    def __sub__(self, other: Any) -> Formula:
        return self + Formula.of(other) * -1.0

    def alike(self, other: Formula) -> bool:
        """Whether these are the same terms, but for the rounding of constants to float32."""
        return self.terms.keys() == other.terms.keys() and all(
            a.size == b.size and np.allclose(a, b.reshape(a.shape), rtol=1e-6, atol=0)
            for a, b in zip(self.terms.values(), (other.terms[key] for key in self.terms))
        )


class _Atom(NamedTuple):
    kind: str
    of: Any
    options: tuple


class _Atoms:
    """Functions of formulas, each once; atom 0 is the value that all is a formula of."""

    def __init__(self) -> None:
        self.list = [_Atom("x", None, ())]
        self.x = Formula({(0,): 1.0})

    def __call__(self, kind: str, of: Formula, *options: Any) -> Formula:
        for n, atom in enumerate(self.list):
            if (atom.kind, atom.options) == (kind, options) and atom.of.alike(of):
                return Formula({(n,): 1.0})
        self.list.append(_Atom(kind, of, options))
        return Formula({(len(self.list) - 1,): 1.0})


ACTIVATIONS: tuple[tuple[Callable[[], L.Layer], Callable[[_Atoms, Formula], Formula]], ...] = (
    (L.GELU, lambda f, x: x * (f("Erf", x * math.sqrt(0.5)) + 1) * 0.5),
    (
        lambda: L.GELU(True),
        lambda f, x: x * (f("Tanh", (x + x * x * x * 0.044715) * math.sqrt(2 / math.pi)) + 1) * 0.5,
    ),
    (L.HardSwish, lambda f, x: x * f("Clip", x + 3, 0.0, 6.0) * (1 / 6)),
    (L.HardSwish, lambda f, x: x * f("Clip", x * (1 / 6) + 0.5, 0.0, 1.0)),
    (L.Mish, lambda f, x: x * f("Tanh", f("Softplus", x))),
)
"""Activations, and their formulas where exporters write them out."""


def _activation(f: _Atoms, y: Formula) -> Callable | None:
    for make, formula in ACTIVATIONS:
        if y.alike(formula(f, f.x)):
            return lambda g, name, v, make=make: g.add(name, make(), v)
    return None


def _normalization(f: _Atoms, y: Formula) -> Callable | None:
    """Layer normalization ``gamma (x - m) r + beta``, RMS normalization ``gamma x r``; r is 1 / d."""
    kinds = {n: f.list[n].kind for key in y.terms for n in key}
    roots = [n for n, kind in kinds.items() if kind == "Reciprocal"]
    means = [n for n, kind in kinds.items() if kind == "ReduceMean" and f.list[n].of.alike(f.x)]
    if len(roots) != 1 or len(means) > 1:
        return None
    (r,) = roots
    ((under, one),) = list(f.list[r].of.terms.items())[:1] or [((), 0)]
    if len(f.list[r].of.terms) != 1 or len(under) != 1 or f.list[under[0]].kind != "Sqrt" or np.any(one != 1):
        return None
    variance = f.list[under[0]].of
    eps = variance.terms.get((), np.zeros(()))
    axes = {f.list[n].options for key in variance.terms for n in key if f.list[n].kind == "ReduceMean"}
    if eps.size != 1 or eps < 0 or len(axes) != 1:
        return None
    (over,), eps = axes, float(eps.reshape(()))
    moved = tuple(sorted((0, r)))
    gamma, beta = y.terms.get(moved), y.terms.get(())
    if gamma is None:
        return None
    if not means:
        fits = variance.alike(f("ReduceMean", f.x * f.x, *over) + eps) and beta is None and len(y.terms) == 1
        return (lambda g, name, v: _add(g, name, v, over, gamma, None, eps, L.RMSNorm)) if fits else None
    m = Formula({(means[0],): 1.0})
    centred = f.x - m
    spread = f("ReduceMean", centred * centred, *over), f("ReduceMean", f.x * f.x, *over) - m * m
    whole = Formula({moved: gamma, tuple(sorted((means[0], r))): -gamma}) + (0.0 if beta is None else beta)
    fits = (
        f.list[means[0]].options == over and any(variance.alike(s + eps) for s in spread) and y.alike(whole)
    )
    return (lambda g, name, v: _add(g, name, v, over, gamma, beta, eps, L.LayerNorm)) if fits else None


def _add(
    g: Graph,
    name: str,
    v: Value,
    over: tuple[int, ...],
    gamma: np.ndarray,
    beta: Any,
    eps: float,
    kind: type,
) -> Value:
    """The layer, and what is learned of any other shape than the normalized axes' behind it."""
    axes = tuple(sorted(g.axis(name, v, a) for a in over))
    own = tuple(n if at in axes else 1 for at, n in enumerate(v.shape))
    learned = []
    for array in (gamma, beta):
        if array is not None:
            array = array[0] if array.ndim == len(v.shape) + 1 and len(array) == 1 else array
            array = array.reshape((1,) * (len(v.shape) - array.ndim) + array.shape)
            if array.ndim != len(v.shape) or any(a not in (1, n) for a, n in zip(array.shape, v.shape)):
                raise UnsupportedError(
                    f"{name}: a constant of shape {array.shape} with samples {v.shape} is not supported"
                )
        learned.append(array)
    inside = all(a is None or all(n in (1, o) for n, o in zip(a.shape, own)) for a in learned)
    gamma, beta = (None if a is None or not inside else np.broadcast_to(a, own) for a in learned)  # type: ignore[assignment]
    own = tuple(v.shape[a] for a in axes)
    options = {"gamma": None if gamma is None or (gamma == 1).all() else gamma.reshape(own), "eps": eps}
    if kind is L.LayerNorm:
        options["beta"] = None if beta is None else beta.reshape(own)
    y = g.add(name, kind(**options, axes=axes), v)
    scale, shift = learned
    return y if inside else g.affine(f"{name}.affine", y, scale, 0.0 if shift is None else shift)


# ---------------------------------------------------------------- reading formulas


KINDS = (
    *("Identity", "Cast", "Neg", "Erf", "Tanh", "Softplus", "Sqrt", "Reciprocal", "HardSigmoid", "Clip"),
    *("ReduceMean", "Pow", "Div", "Add", "Sub", "Mul"),
)
"""The operators that formulas are read from."""


def _number(constants: Mapping[str, Any], name: str) -> float | None:
    value = constants.get(name)
    return float(np.reshape(value, ())) if value is not None and np.size(value) == 1 else None


def _step(node: onnx.NodeProto, known: Mapping[str, Formula], constants: dict, f: _Atoms) -> Formula | None:
    """What a node gives, if it is understood."""
    if node.op_type not in KINDS or node.domain not in ("", "ai.onnx"):
        return None
    options = {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute}
    given = [known.get(n) or (Formula.of(constants[n]) if n in constants else None) for n in node.input]
    kind, a = node.op_type, given[0]
    if a is None:
        return None
    if kind == "Identity" or (kind == "Cast" and options["to"] in (1, 10, 11, 16)):
        return a
    if kind == "Neg":
        return a * -1.0
    if kind in ("Erf", "Tanh", "Softplus", "Sqrt", "Reciprocal"):
        return f(kind, a)
    if kind == "HardSigmoid":
        return f("Clip", a * options.get("alpha", 0.2) + options.get("beta", 0.5), 0.0, 1.0)
    if kind == "Clip":
        ends = [
            options.get(k, _number(constants, n)) for k, n in zip(("min", "max"), [*node.input[1:], "", ""])
        ]
        return None if None in ends else f("Clip", a, *(float(e) for e in ends if e is not None))
    if kind == "ReduceMean":
        axes: Any = options.get("axes", constants.get(node.input[1]) if len(node.input) > 1 else None)
        kept = options.get("keepdims", 1) and axes is not None and np.size(axes)
        return f("ReduceMean", a, *map(int, np.ravel(axes))) if kept else None
    if len(given) != 2 or given[1] is None:
        return None
    b = given[1]
    if kind == "Pow":
        n = _number(constants, node.input[1])
        root: Any = f("Sqrt", a) if n in (0.5, -0.5) else None
        powers = {2.0: lambda: a * a, 3.0: lambda: a * a * a, 0.5: lambda: root}
        return f("Reciprocal", root) if n == -0.5 else powers[n]() if n in powers else None
    if kind == "Div":
        constant = constants.get(node.input[1])
        if constant is None:
            return a * f("Reciprocal", b)
        return a * (1 / np.asarray(constant, np.float64)) if np.all(constant) else None
    both = {"Add": Formula.__add__, "Sub": Formula.__sub__, "Mul": Formula.__mul__}.get(kind)
    return None if both is None else both(a, b)


def _formulas(
    name: str, nodes: list, readers: Mapping[str, list[int]], constants: dict, f: _Atoms
) -> dict[int, Formula]:
    """The nodes behind a value that are formulas of it alone, by number."""
    known, found, todo, seen = {name: f.x}, {}, set(readers.get(name, ())), 0
    while todo and seen < STEPS:
        n = min(todo)
        todo.remove(n)
        seen += 1
        try:
            formula = _step(nodes[n], known, constants, f)
        except ValueError:  # constants whose shapes don't fit
            formula = None
        if formula is None or len(formula.terms) > TERMS:
            continue
        (output,) = nodes[n].output[:1]
        known[output], found[n] = formula, formula
        todo.update(readers.get(output, ()))
    return found


def _between(
    name: str, last: int, nodes: list, made: Mapping[str, int], readers: Mapping[str, list[int]], outputs: set
) -> set[int] | None:
    """The nodes between a value and a node; None where something else reads from within."""
    found, todo = set(), [last]
    while todo:
        n = todo.pop()
        if n not in found:
            found.add(n)
            todo += [made[i] for i in nodes[n].input if i in made and i != name]
    inner = [o for n in found - {last} for o in nodes[n].output]
    closed = all(set(readers.get(o, ())) <= found and o not in outputs for o in inner)
    return found if closed else None


def _ranked(add: Callable, rank: int) -> Callable:
    """The function that adds a layer, where constants don't give the value more axes than it has."""

    def checked(g: Graph, name: str, v: Value) -> Value:
        if rank > len(v.shape) + 1:
            raise UnsupportedError(f"{name}: a constant with {rank} axes and samples {v.shape}")
        return add(g, name, v)

    return checked


def _dense(node: onnx.NodeProto, reader: onnx.NodeProto, constants: dict) -> Callable | None:
    """A product with a matrix and the sum behind it: a dense layer's weight and bias."""
    if (node.op_type, reader.op_type) != ("MatMul", "Add") or node.input[0] in constants:
        return None
    weight: Any = constants.get(node.input[1])
    bias: Any = next((constants[i] for i in reader.input if i in constants), None)
    if np.ndim(weight) != 2 or np.ndim(bias) != 1 or len(bias) != weight.shape[1]:
        return None
    return lambda g, name, v: g.product(name, v, weight, bias)


def found(
    nodes: list[onnx.NodeProto], constants: dict[str, Any], outputs: set[str]
) -> Iterator[tuple[str, int, set[int], Callable]]:
    """Each formula that is a layer: the value it reads, the number of its last node, those of all, and a
    function of the graph, a name and that value which adds the layer.

    `nodes` are those that depend on the input, in order.
    """
    readers: dict[str, list[int]] = {}
    for n, node in enumerate(nodes):
        for i in node.input:
            readers.setdefault(i, []).append(n)
    made = {o: n for n, node in enumerate(nodes) for o in node.output}
    taken: set[int] = set()
    for n, node in enumerate(nodes):
        users = [] if node.output[0] in outputs else readers.get(node.output[0], [])
        add = _dense(node, nodes[users[0]], constants) if len(users) == 1 else None
        if add:
            taken |= {n, *users}
            yield node.input[0], users[0], {n, *users}, add
    for name, users in readers.items():
        if len(users) < 2 or name in constants or not name:
            continue
        f = _Atoms()
        for last, y in reversed(_formulas(name, nodes, readers, constants, f).items()):
            add: Any = _activation(f, y) or _normalization(f, y)  # type: ignore[no-redef]
            inside = _between(name, last, nodes, made, readers, outputs) if add else None
            if inside and not inside & taken:
                taken |= inside
                given = (constants[i] for n in inside for i in nodes[n].input if i in constants)
                yield name, last, inside, _ranked(add, max(map(np.ndim, given), default=0))  # type: ignore[arg-type]
                break
