"""Error bounds of the published vectors, from their exact numbers.

The bounds come from the exact numbers alone, by a first-order running error analysis (Higham 2002, ch. 3).
With u the unit roundoff and u E the error of a value,

    sum      z = sum_i t_i           E(z) = sum_i E(t_i) + n sum_i |t_i|
    share    R_i += c_ij / z_j R_j   E(R_i) += |c_ij| / |z_j| E(R_j)
                                              + (E(c_ij) / |z_j| + |c_ij| E(z_j) / z_j^2) |R_j|

where n is the number of terms, and more by a few for their own roundings. A sum of terms that are multiples
of a power of two, and small, rounds in no order and has no error of its own. So errors grow by the
condition numbers ``sum_i |c_ij| / |z_j|`` of the layers. The bound of a case is 2 u max E / max |R|, the
worst of its arrays. Where rounding could decide (the sign of z, who wins a maximum), no file is written.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterable, Mapping
from decimal import ROUND_CEILING, Context, Decimal
from fractions import Fraction
from typing import Any

import numpy as np

from .. import layers as L
from ..errors import LRPError
from ..network import Network
from ..rules import Rule
from . import exact
from .exact.fusing import fuse_nodes
from .exact.layers import Each, Gate, Lrn, Move, Node, Pick, Rows, Threshold, exact_nodes
from .exact.tensors import broadcast
from .exact.walk import record

UNIT = {"float64": 2.0**-53, "float32": 2.0**-24}
"""Unit roundoff."""


MADE = 16
"""So many roundings at most has a weight or bias that is calculated (by a root, by fusing)."""

STEEPEST = 1.5
"""The largest slope of an activation that is no ReLU: that of hard swish."""

Terms = dict[int, tuple[list[float], float]]
"""For each input the terms of its contribution c, and |dc / dx|."""


def _undecided(what: str) -> LRPError:
    return LRPError(f"rounding in float32 could decide {what}: choose other numbers")


def _never_rounds(terms: list[float]) -> bool:
    """Whether no sum of some of the terms rounds, in any order, in float32.

    Examples
    --------
    >>> _never_rounds([0.5, -3.0]), _never_rounds([1 / 3, 1.0])
    (True, False)
    """
    most = max((t.as_integer_ratio()[1] for t in terms), default=1)
    return most <= 2**24 and math.fsum(map(abs, terms)) * most < 2**24


def _shares(
    rule: Any, row: Mapping[int, float], bias: float, x: list[float], z: float, box: Any
) -> list[tuple]:
    """What a rule divides for one output unit: factor, contributions and bias of each share."""
    plus, minus = (lambda v: max(v, 0.0)), (lambda v: min(v, 0.0))
    kind = type(rule).__name__
    if kind == "Epsilon":
        return [(1.0, {i: ([x[i] * w], abs(w)) for i, w in row.items()}, bias)]
    if kind == "Gamma":
        part, g = plus if z >= 0 else minus, rule.gamma
        terms = {i: ([x[i] * w, g * part(x[i] * w)], (1 + g) * abs(w)) for i, w in row.items()}
        return [(1.0, terms, bias + g * part(bias))]
    if kind in ("AlphaBeta", "ZPlus"):
        found = []
        for factor, part in ((rule.alpha, plus), (rule.beta, minus)):
            terms = {i: ([c := part(x[i] * w)], abs(w) if c or not x[i] else 0.0) for i, w in row.items()}
            found += [(factor, terms, part(bias) if rule.bias else 0.0)] if factor else []
        return found
    if kind == "WSquare":
        return [(1.0, {i: ([w * w], 0.0) for i, w in row.items()}, 0.0)]
    if kind == "Flat":
        return [(1.0, {i: ([1.0], 0.0) for i in row}, 0.0)]
    if kind == "ZBox":
        low, high = box
        terms = {i: ([x[i] * w, -low[i] * plus(w), -high[i] * minus(w)], abs(w)) for i, w in row.items()}
        return [(1.0, terms, 0.0)]
    if kind == "ImageBox":
        low, high = min(x), max(x)
        terms = {i: ([x[i] * w, -low * plus(w), -high * minus(w)], abs(w)) for i, w in row.items()}
        return [(1.0, terms, 0.0)]
    if kind == "AbsLRP":
        return [(1.0, {i: ([abs(x[i] * w)], abs(w)) for i, w in row.items()}, 0.0)]
    if kind == "AbsZ":
        return [(1.0, {i: ([abs(x[i] * w)], abs(w)) for i, w in row.items()}, abs(bias))]
    raise LRPError(f"there is no bound for the rule {rule!r}")


class Errors:
    """Error bounds, in units of u, of one sample's activations and relevance.

    Made of the exact values alone; `majorant` is the network with weights of absolute value, whose
    biases say how much was summed where a bias is calculated (by a normalization, or fusing).
    """

    def __init__(self, network: Network, x: Mapping[str, np.ndarray], fused: bool) -> None:
        given = {name: exact.tensor(value) for name, value in x.items()}
        shapes = {name: value.shape for name, value in given.items()}
        plain = exact_nodes(network, shapes)
        major = exact_nodes(_majorant(network), shapes)
        self.nodes = plain
        if fused:
            (self.nodes, stays), (major, as_before) = (fuse_nodes(n, network.outputs) for n in (plain, major))
            if stays.keys() != as_before.keys():
                raise LRPError("the majorant fuses otherwise than the network")
        self.values = {n: [float(v) for v in t.values] for n, t in record(self.nodes, given).items()}
        self.made = {n.name for n in plain.values() if n.kind in ("BatchNorm", "LRN")}
        self.made |= {n.name for n in self.nodes.values() if n.op is not plain[n.name].op}
        self.rows = {}
        for node in self.nodes.values():
            op = node.op
            if isinstance(op, Lrn):
                op = op.expanded([Fraction(v) for v in self._joined(self.values, node)])
            if isinstance(op, Rows):
                bias = major[node.name].op.bias if node.name in self.made and op is node.op else op.bias
                rows = [{i: float(w) for i, w in row.items()} for row in op.rows]
                self.rows[node.name] = rows, [float(b) for b in op.bias], [abs(float(b)) for b in bias]
        self.E: dict[str, list[float]] = {name: [0.0] * len(t.values) for name, t in given.items()}
        for node in self.nodes.values():
            self.E[node.name] = self._forward(node, major[node.name])

    @staticmethod
    def _joined(values: Mapping[str, list], node: Any) -> list:
        return [v for name in node.inputs for v in values[name]]

    def _sum(self, node: Any, terms: Terms, bias: float, major: float, E: list[float]) -> float:
        """Error of a sum of contributions and a bias."""
        sizes = [t for parts, _ in terms.values() for t in parts]
        carried = math.fsum(slope * E[i] for i, (_, slope) in terms.items() if slope)
        made = node.name in self.made
        if not carried and not made and _never_rounds([*sizes, bias]):
            return 0.0
        return carried + (len(sizes) + 1 + MADE * made) * (math.fsum(map(abs, sizes)) + max(abs(bias), major))

    def _forward(self, node: Any, major: Any) -> list[float]:
        op, x, E = node.op, self._joined(self.values, node), self._joined(self.E, node)
        if isinstance(op, Lrn):
            if any(E):
                raise LRPError("the input of LRN is to be exact")
            return [(MADE + len(w)) * abs(v) for v, w in zip(self.values[node.name], op.windows)]
        if node.name in self.rows:
            found = []
            for row, b, most in zip(*self.rows[node.name]):
                terms = {i: ([x[i] * w], abs(w)) for i, w in row.items()}
                found.append(self._sum(node, terms, b, most, E))
            return found
        if isinstance(op, Pick):
            return [max(E[i] for i in window) for window in op.windows]
        if isinstance(op, Threshold):
            return [
                e if ok else MADE * abs(float(v)) for e, v, ok in zip(E, major.op.value, self._passes(node))
            ]
        if isinstance(op, Each) and op.plain:  # a ReLU: what is surely below 0 is exactly 0
            return [0.0 if v + UNIT["float32"] * e <= 0 else e for v, e in zip(x, E)]
        if isinstance(op, Each):
            return [STEEPEST * e + 8 * abs(v) for v, e in zip(self.values[node.name], E)]
        if isinstance(op, Gate):
            return [self._product(units, x, E) for units in op.factors]
        if isinstance(op, Move):
            return [0.0 if i is None else E[i] for i in op.source]
        raise LRPError(f"there is no bound for layer {node.name!r} ({node.kind})")

    def _product(self, units: list[int], x: list[float], E: list[float]) -> float:
        whole = math.prod(x[i] for i in units)
        rest = (E[i] * math.prod(abs(x[k]) for k in units if k != i) for i in units)
        return math.fsum(rest) + len(units) * abs(whole)

    def _passes(self, node: Any) -> list[bool]:
        op, x, E = node.op, self._joined(self.values, node), self._joined(self.E, node)
        found = []
        for s, t, v, e in zip(op.sign, op.value, x, E):
            gap = float(s) * (v - float(t))
            if s and abs(gap) <= UNIT["float32"] * (e + MADE * abs(float(t))):
                raise _undecided(f"whether a unit of {node.name!r} passes its threshold")
            found.append(not s or gap > 0)
        return found

    def back(self, steps: Mapping[str, exact.Step], rules: Mapping[str, Rule]) -> dict[str, list[float]]:
        """Errors of the relevance of every layer's output and of the inputs."""
        top = next(iter(steps))
        found = {top: [abs(float(v)) for v in steps[top].R.values]}  # the seed is rounded
        for node in reversed(self.nodes.values()):
            if node.name not in steps:
                continue
            R = [float(v) for v in steps[node.name].R.values]
            sent, at = self._back(node, R, found[node.name], rules.get(node.name)), 0
            sizes = steps[node.name].R_x
            for name, part in zip(node.inputs, sizes if isinstance(sizes, tuple) else (sizes,)):
                some = sent[at : at + len(part.values)]
                at += len(part.values)
                if name in found:  # another branch came here before
                    some = [a + b + abs(float(v)) for a, b, v in zip(found[name], some, part.values)]
                found[name] = some
        return found

    def _back(self, node: Any, R: list[float], E_R: list[float], rule: Any) -> list[float]:
        op, x, E = node.op, self._joined(self.values, node), self._joined(self.E, node)
        if isinstance(op, Each):
            return list(E_R)
        if type(rule).__name__ == "RelativeAttribution":
            return self._attributed(node, rule, R, E_R)
        if type(rule).__name__ == "ImageBox" and any(E):
            raise LRPError(f"the input of {node.name!r}, whose bounds are its own, must be exact")
        out, size, count = [0.0] * len(x), [0.0] * len(x), [0] * len(x)

        def give(i: int, error: float, amount: float) -> None:
            out[i] += error
            size[i] += abs(amount)
            count[i] += 1

        if isinstance(op, Pick):
            for window, sign, r, e in zip(op.windows, op.sign, R, E_R):
                best = max(window, key=lambda i: sign * x[i])
                for i in window:
                    margin = UNIT["float32"] * (E[i] + E[best])
                    if i != best and margin and sign * (x[best] - x[i]) <= margin:
                        raise _undecided(f"who wins a maximum of {node.name!r}")
                give(best, e, r)
        elif isinstance(op, Threshold):
            for i, ok in enumerate(self._passes(node)):
                give(i, E_R[i] if ok else 0.0, R[i] if ok else 0.0)
        elif isinstance(op, Move):
            for i, r, e in zip(op.source, R, E_R):  # type: ignore[assignment]
                if i is not None:
                    give(i, e, r)
        elif isinstance(op, Gate):
            signal = None if type(rule).__name__ == "Uniform" else op.signal
            for units, r, e in zip(op.factors, R, E_R):
                takers = units if signal is None else [units[signal]]
                for i in takers:
                    give(i, (e + abs(r)) / len(takers), r / len(takers))
        elif type(rule).__name__ == "Pass":
            for row, r, e in zip(self.rows[node.name][0], R, E_R):
                for i in row:
                    give(i, (e + abs(r)) / len(row), r / len(row))
        else:
            box = None
            if type(rule).__name__ == "ZBox":
                bounds = (broadcast(v, node.shapes[0], channels=True) for v in (rule.low, rule.high))
                box = [[float(v) for v in bound] for bound in bounds]
            E_x = [0.0] * len(x) if isinstance(op, Lrn) else E
            for j, (row, b, major) in enumerate(zip(*self.rows[node.name])):
                z = math.fsum([*(x[i] * w for i, w in row.items()), b])
                for share in _shares(rule, row, b, x, z, box):
                    self._share(node, rule, share, major, (R[j], E_R[j]), E_x, give)
                terms = {i: ([x[i] * w], abs(w)) for i, w in row.items()}
                of_sign = type(rule).__name__ == "Gamma"
                if of_sign and UNIT["float32"] * self._sum(node, terms, b, major, E_x) > abs(z):
                    raise _undecided(f"the sign of an output of {node.name!r}")
        return [e + n * s if n > 1 else e for e, s, n in zip(out, size, count)]

    def _attributed(self, node: Node, rule: Any, R: list[float], E_R: list[float]) -> list[float]:
        """A step of RAP: errors of what the inputs contribute, and of the shift."""
        x, E = self._joined(self.values, node), self._joined(self.E, node)
        if any(e and UNIT["float32"] * e >= abs(v) for v, e in zip(x, E)):
            raise _undecided(f"whether an input of {node.name!r} is 0")
        C, out, size, count = ([0.0] * len(x) for _ in range(4))
        for row, r, e in zip(self.rows[node.name][0], R, E_R):
            if rule.inhibiting and e and UNIT["float32"] * e >= abs(r):
                raise _undecided(f"the sign of relevance of {node.name!r}")
            terms = {i: ([abs(x[i] * w)], abs(w)) for i, w in row.items() if x[i] * w}
            excite = {i: t for i, t in terms.items() if x[i] * row[i] > 0}
            inhibit = {i: t for i, t in terms.items() if i not in excite}
            first = inhibit if r < 0 and rule.inhibiting else excite
            for takers, below in ((first, first), (inhibit, terms)):
                z = math.fsum(t for parts, _ in below.values() for t in parts)

                def give(i: int, error: float, amount: float, takers: Terms = takers) -> None:
                    if i in takers:
                        out[i] += error
                        size[i] += abs(amount)
                        count[i] += 1

                self._share(node, rule, (1.0, below, 0.0), 0.0, (r, e), E, give)
                for i, (parts, _) in takers.items():
                    C[i] += parts[0] / z * r
        E_C = [e + n * s if n > 1 else e for e, s, n in zip(out, size, count)]
        return _shifted_errors(C, E_C, R, E_R)

    def _share(
        self,
        node: Any,
        rule: Any,
        share: tuple,
        major: float,
        R: tuple,
        E: list[float],
        give: Callable,
    ) -> None:
        """One output's relevance shared out: errors to the inputs."""
        factor, terms, bias = share
        r, e_r = abs(R[0]) * factor, R[1] * factor
        z = math.fsum([*(t for parts, _ in terms.values() for t in parts), bias])
        # a bias that takes part is at most (1 + gamma) times its own
        most = (1 + getattr(rule, "gamma", 0.0)) * major if bias else 0.0
        e_z = self._sum(node, terms, bias, most, E)
        below = abs(z) + rule.epsilon
        if rule.epsilon:
            if e_z and UNIT["float32"] * e_z > abs(z):
                raise _undecided(f"the sign of a denominator of {node.name!r}")
            e_z += below
        if not below:
            if e_z:
                raise _undecided(f"whether a denominator of {node.name!r} is 0")
            return  # 0/0: dropped
        if 4 * UNIT["float32"] * e_z > below:
            raise LRPError(f"a denominator of {node.name!r} is too small for float32: choose other numbers")
        rounds = 4 + MADE * (node.name in self.made)
        for i, (parts, slope) in terms.items():
            c, size = abs(math.fsum(parts)), math.fsum(map(abs, parts))
            e_c = (slope * E[i] if slope else 0.0) + rounds * size
            give(i, c / below * e_r + r * (e_c / below + c * e_z / below**2), r * size / below)


def _shifted_errors(C: list[float], E_C: list[float], R: list[float], E_R: list[float]) -> list[float]:
    """Errors of ``C - (sum C - sum R) / G`` where C is not 0."""
    on = sum(c != 0 for c in C)
    total = math.fsum(C) - math.fsum(R)
    error = (
        math.fsum(E_C) + math.fsum(E_R) + len(C) * math.fsum(map(abs, C)) + len(R) * math.fsum(map(abs, R))
    )
    shift, e_shift = total / max(on, 1), (error + 3 * abs(total)) / max(on, 1)
    return [e + e_shift + 2 * (abs(c) + abs(shift)) if c else 0.0 for c, e in zip(C, E_C)]


def _majorant(network: Network) -> Network:
    """The network with weights and shifts of absolute value: ``beta - g mean`` becomes a sum."""

    def grown(layer: L.Layer) -> L.Layer:
        change = {name: np.abs(value) for name, value in layer.arrays().items()}
        if isinstance(layer, L.BatchNorm):
            change["mean"] = -change["mean"]
        return dataclasses.replace(layer, **change)

    return network.rebuilt((node.name, grown(node.layer), node.inputs) for node in network.nodes)


def relative(E: Iterable[float], values: np.ndarray) -> float:
    most, scale = max(E, default=0.0), float(np.abs(values).max())
    if most and not scale:
        raise LRPError("all values are 0, but not exactly: choose other numbers")
    return most / scale if most else 0.0


def as_bounds(worst: float) -> dict[str, float]:
    """Bounds for the largest E / max |value|, rounded up to two digits; never less than one rounding."""
    up = Context(prec=2, rounding=ROUND_CEILING)
    return {kind: float(up.create_decimal(Decimal(2 * u * max(worst, 1.0)))) for kind, u in UNIT.items()}
