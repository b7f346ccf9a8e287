"""How far a correct implementation may lie from ours: a running error analysis in floating point.

For a network and its inputs, each value gets a standard error sigma of rounding, in the arithmetic whose unit
roundoff u is given, and a largest error F of *decisions* that rounding takes (who wins a maximum, on which
side of a kink or of 0 a value lies). Errors of different origin add in quadrature (Higham and Mary 2019), so
the bound does not grow without reason in deep networks. With n terms t_i of a sum,

    z = sum_i t_i            sigma_z^2 = sum_i w_i^2 sigma_x^2 + (u (sqrt n + 4) sum_i |t_i|)^2
    s = R / d(z)             sigma_s^2 = (sigma_R / d)^2 + (R sigma_z / d^2)^2 + (3 u s)^2
    c = sum_j w_ij s_j       as z
    R_x = x c                sigma^2 = x^2 sigma_c^2 + c^2 sigma_x^2 + (2 u R_x)^2

Relevance that is a multiple of the value, R = x c, keeps c and the error of c as well: divided by the same
value again, R / x is c whatever the rounding of x. (So the error of LRP-0 is that of gradient times input.)
A sum of small multiples of a power of two has no error: there, ties are ties in every implementation.

`Bounds.tolerance` is `MARGIN` sigma + F. What lies beyond `MARGIN` sigma was decided by rounding.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from .. import layers as L
from ..errors import LRPError
from ..layers.base import Linear
from ..layers.merge import _unbroadcast
from ..network import Network
from ..nonlinear import Nonlinear
from ..rules import Pass, Rule, one
from ..wiring import Node
from . import variants as v
from .worlds import Arrays, Question, World

MARGIN = 6.0
"""So many sigma are taken for rounding."""

LEAST = 128
"""So many units of roundoff of the largest |value| are no difference in any network."""

SLACK = 1.05
"""So much more than its estimate is taken for the error of decisions."""

UNITS = {"float64": 2.0**-53, "float32": 2.0**-24, "float16": 2.0**-11}
"""Unit roundoff."""

MADE = 8.0
"""Roundings of a parameter that is calculated, by a root or by fusing."""

KINKED = (L.ReLU, L.LeakyReLU, L.PReLU)


@dataclass
class Bounds:
    """Errors of relevance, by value.

    Attributes
    ----------
    sigma, decided : dict of array
        The standard error of rounding, and the largest error of decisions.
    undecided : dict of (text, mask)
        By layer, what rounding decides there, and for which units.
    """

    sigma: Arrays = field(default_factory=dict)
    decided: Arrays = field(default_factory=dict)
    undecided: dict[str, tuple[str, np.ndarray]] = field(default_factory=dict)

    def rounding(self, name: str) -> np.ndarray:
        """What rounding alone may change."""
        return MARGIN * self.sigma[name]

    def tolerance(self, name: str) -> np.ndarray:
        """What rounding and its decisions may change."""
        return self.rounding(name) + SLACK * self.decided[name]


# ---------------------------------------------------------------- sums that do not round


def places(array: np.ndarray | None, most: int = 24) -> int | None:
    """The least p for which all values are multiples of 2^-p; None if it is above `most`.

    Examples
    --------
    >>> places(np.array([0.5, 3.0])), places(np.array([1 / 3]))
    (1, None)
    """
    if array is None or not array.size:
        return 0
    whole = array * 2.0**most
    if not np.isfinite(whole).all() or (whole != np.floor(whole)).any():
        return None
    size = np.bitwise_or.reduce(np.abs(whole).astype(np.int64, casting="unsafe").ravel())
    trailing = (int(size) & -int(size)).bit_length() - 1 if size else most
    return max(most - trailing, 0) if abs(whole).max() < 2.0**62 else None


def never_rounds(
    unit: float, size: float, *arrays: np.ndarray | None, bias: np.ndarray | None = None
) -> bool:
    """Whether sums of products of these arrays, plus `bias`, of this size at most, are exact in any order."""
    powers = [places(array) for array in arrays]
    of_bias = places(bias)
    if of_bias is None or any(p is None for p in powers):
        return False
    return size * 2.0 ** max(sum(powers), of_bias) <= 1 / unit  # type: ignore[arg-type]


# ---------------------------------------------------------------- linear maps


class _Map:
    """A linear layer for one sample shape: sums of errors and of sizes through it, and their terms."""

    def __init__(self, layer: Any, shape: tuple) -> None:
        self.layer, self.shape = layer, shape
        self.weight, self.bias = layer.parameters(shape)
        ones = one(self.weight)
        counts = layer.linear(np.ones((1, *shape)), ones, None)
        self.terms = float(counts.max()) + 1
        self.outputs = float(layer.adjoint(np.ones_like(counts), ones, shape).max())

    def size(self, x: np.ndarray, weight: np.ndarray, bias: np.ndarray | None) -> np.ndarray:
        """``sum |t|``."""
        return self.layer.linear(np.abs(x), np.abs(weight), None if bias is None else np.abs(bias))

    def carried(self, V: np.ndarray, weight: np.ndarray) -> np.ndarray:
        """The variance of a sum of inputs of variance V."""
        return np.maximum(self.layer.linear(V, np.square(weight), None), 0)

    def back(self, s: np.ndarray, weight: np.ndarray) -> np.ndarray:
        return self.layer.adjoint(s, weight, self.shape)

    def local(self, unit: float, terms: float, size: np.ndarray) -> np.ndarray:
        """Variance of the rounding of a sum."""
        return np.square(unit * (math.sqrt(terms) + 4) * size)


def _made(layer: Any, majorant: Any, shape: tuple) -> np.ndarray | None:
    """How much was summed to make a layer's bias, beyond its own size."""
    if isinstance(layer, L.BatchNorm):
        majorant = _grown(layer)
    if majorant is None or not isinstance(majorant, Linear):
        return None
    bias, most = layer.parameters(shape)[1], majorant.parameters(shape)[1]
    if bias is None or most is None or bias.shape != most.shape:
        return None
    extra = np.maximum(np.abs(most) - np.abs(bias), 0)
    return extra.reshape(-1, *(1,) * (len(shape) - 1)) if extra.ndim == 1 else extra


def _grown(layer: Any) -> Any:
    change = {name: np.abs(value) for name, value in layer.arrays().items()}
    if isinstance(layer, L.BatchNorm):
        change["mean"] = -change["mean"]
    return replace(layer, **change)


def majorant(question: Question) -> dict[str, Any]:
    """The layers of the walked network, of absolute parameters: ``beta - g mean`` becomes a sum."""
    own = question.network
    try:
        grown = own.rebuilt(
            (n.name, _grown(n.layer) if n.layer.arrays() else n.layer, n.inputs) for n in own.nodes
        )
        network, _ = question.settled(grown)
    except LRPError:
        return {}
    return {node.name: node.layer for node in network.nodes}


# ---------------------------------------------------------------- forward


def forward_errors(
    network: Network,
    values: Mapping[str, np.ndarray],
    unit: float,
    given: Iterable[str] = (),
    major: Mapping[str, Any] | None = None,
) -> Arrays:
    """Sigma of every activation; those `given` are known, and have none."""
    found: Arrays = {}
    for name in network.inputs:
        x = values[name]
        found[name] = np.zeros_like(x) if _fits(x, unit) else unit * np.abs(x)
    with np.errstate(all="ignore"):
        for node in network.nodes:
            y = values[node.name]
            if node.name in given:
                found[node.name] = np.zeros_like(y)
                continue
            x = tuple(values[name] for name in node.inputs)  # type: ignore[assignment]
            E = tuple(found[name] for name in node.inputs)
            error = _forward(node.layer, x, E, y, unit, (major or {}).get(node.name))  # type: ignore[arg-type]
            found[node.name] = np.nan_to_num(error, nan=np.inf)
    return found


def _fits(x: np.ndarray, unit: float) -> bool:
    """Whether the values can be written in the arithmetic."""
    if unit < UNITS["float32"]:
        return True
    return unit == UNITS["float32"] and bool((x == x.astype(np.float32)).all())


def _forward(layer: Any, x: tuple, E: tuple, y: np.ndarray, unit: float, major: Any) -> np.ndarray:
    if isinstance(layer, Linear):
        return _linear_forward(layer, x, E, y, unit, major)
    if isinstance(layer, L.ReLU) and type(layer) is L.ReLU and not (layer.negative_slope or layer.threshold):
        return np.where(x[0] + MARGIN * E[0] > 0, E[0], 0)
    if isinstance(layer, L.Activation) and not isinstance(layer, L.Softmax):
        h = np.maximum(E[0], 1e-7 * np.maximum(np.abs(x[0]), 1e-3))
        up, down = (np.abs(layer.forward(x[0] + step) - y) for step in (h, -h))
        rounds = 0 if isinstance(layer, (*KINKED, L.Threshold, L.Clip)) else 8 * unit * np.abs(y)
        return np.hypot(np.maximum(up, down) * E[0] / h, rounds)
    if isinstance(layer, (L.MaxPool2D, L.GlobalMaxPool)):
        return replace(layer, sign=None).forward(E[0])
    if isinstance(layer, L.Maximum):
        return np.max(np.broadcast_arrays(*E), axis=0)
    if layer.family == "shape" or isinstance(layer, L.Concatenate):
        return layer.forward(E if layer.merges else E[0])
    return _probed(lambda *x: layer.forward(x if layer.merges else x[0]), x, E, y, unit)


def _linear_forward(layer: Any, x: tuple, E: tuple, y: np.ndarray, unit: float, major: Any) -> np.ndarray:
    V = tuple(np.square(e) for e in E)
    V, x = (layer.linearized(a if layer.merges else a[0], y)[1] for a in (V, x))
    of = _Map(layer, x.shape[1:])  # type: ignore[attr-defined]
    carried = of.carried(V, of.weight) if V.any() else np.zeros_like(y)
    size = of.size(x, of.weight, of.bias)  # type: ignore[arg-type]
    extra = _made(layer, major, x.shape[1:])  # type: ignore[attr-defined]
    if extra is None and never_rounds(unit, float(size.max()), x, of.weight, bias=of.bias):  # type: ignore[arg-type]
        return np.sqrt(carried)
    made = 0 if extra is None and layer.family != "norm" else MADE
    local = of.local(unit, of.terms + made**2, size + (0 if extra is None else extra))
    return np.sqrt(carried + local)


def _probed(function: Any, x: tuple, E: tuple, y: np.ndarray, unit: float, count: int = 4) -> np.ndarray:
    """Sigma of what a function gives for inputs of this sigma, from a few perturbed ones."""
    rng = np.random.default_rng(0)
    grow = 1.0 if unit >= UNITS["float32"] else 2.0**20  # so that the difference is seen in float64
    total = np.zeros_like(y)
    for _ in range(count):
        moved = tuple(a + grow * e * rng.standard_normal(a.shape) for a, e in zip(x, E))
        total += np.square(function(*moved) - y) / grow**2
    size = np.abs(y).max(tuple(range(1, y.ndim)), keepdims=True) if y.ndim > 1 else np.abs(y)
    return np.sqrt(2 * total / count + np.square(16 * unit * size))


# ---------------------------------------------------------------- back


@dataclass
class _Relevance:
    """Relevance with its errors: V is a variance, F the largest error of decisions.

    Where it is a multiple of the value, ``R = value c``, c and its errors too.
    """

    R: np.ndarray
    V: np.ndarray
    F: np.ndarray
    c: _Relevance | None = None

    def each(self, move: Any, move_V: Any = None) -> _Relevance:
        """All arrays moved alike."""
        c = None if self.c is None else self.c.each(move, move_V)
        return _Relevance(move(self.R), (move_V or move)(self.V), move(self.F), c)

    def plus(self, other: _Relevance) -> _Relevance:
        c = self.c.plus(other.c) if self.c is not None and other.c is not None else None
        return _Relevance(self.R + other.R, self.V + other.V, self.F + other.F, c)


def relevance_errors(
    world: World,
    given: Mapping[str, np.ndarray],
    unit: float,
    known: Iterable[str] = (),
    major: Mapping[str, Any] | None = None,
    nodes: Iterable[Node] | None = None,
) -> Bounds:
    """Errors of the relevance that `World.walk` expects.

    Parameters
    ----------
    world : World
    given : mapping of name to array
        Relevance that is taken as it is, as in `World.walk`.
    unit : float
        Unit roundoff.
    known : names of activations that are the candidate's own
    major : dict of layers, optional
        As of `majorant`.
    nodes : iterable of Node, optional
        As in `World.walk`.
    """
    E = forward_errors(world.network, world.values, unit, known, major)
    bounds = _Back(world, E, unit, major or {}).walk(given, nodes)
    if world.contrast == "clrp2":
        dual = _Back(world.dual, E, unit, major or {}).walk({}, None)
        for name in world.network.inputs:
            if name in bounds.sigma:
                bounds.sigma[name] = np.hypot(bounds.sigma[name], dual.sigma[name])
                bounds.decided[name] = bounds.decided[name] + dual.decided[name]
    return bounds


class _Back:
    """The walk back with errors."""

    def __init__(self, world: World, E: Arrays, unit: float, major: Mapping[str, Any]) -> None:
        self.world, self.E, self.unit, self.major = world, E, unit, major
        self.bounds = Bounds()

    def walk(self, given: Mapping[str, np.ndarray], nodes: Iterable[Node] | None) -> Bounds:
        wanted = None if nodes is None else {node.name for node in nodes}
        found = {self.world.top: self.start()}
        with np.errstate(all="ignore"):
            for node in reversed(self.world.network.nodes):
                if (wanted is not None and node.name not in wanted) or not (
                    node.name in found or node.name in given
                ):
                    continue
                r = found.get(node.name)
                if node.name in given:
                    R = given[node.name]
                    r = _Relevance(R, np.square(self.unit * R), np.zeros_like(R))
                for name, share in zip(node.inputs, self.sent(node, r)):  # type: ignore[arg-type]
                    found[name] = found[name].plus(share) if name in found else share
        for name, r in found.items():
            r.V = np.nan_to_num(r.V, nan=np.inf)
            self.bounds.sigma[name] = np.sqrt(r.V) + self.unit * np.abs(r.R)
            self.bounds.decided[name] = np.nan_to_num(r.F, nan=np.inf)
        return self.bounds

    def start(self) -> _Relevance:
        R, y = self.world.seed, self.world.values[self.world.top]
        zero = np.zeros_like(R)
        if self.world.fixed:
            return _Relevance(R, np.square(self.unit * R), zero)
        axes = tuple(range(1, R.ndim))
        E = self.E[self.world.top]
        V = np.where(R != 0, np.square(E.max(axes, keepdims=True)) + np.square(4 * self.unit * R), 0)
        multiple = ((y == R) | (R == 0)).all()
        c = _Relevance((R != 0) * 1.0, zero, zero) if multiple else None
        return _Relevance(R, V, zero, c)

    def undecided(self, node: Node, what: str, mask: np.ndarray) -> None:
        if mask.any():
            self.bounds.undecided.setdefault(node.name, (what, mask))

    def sent(self, node: Node, r: _Relevance) -> list[_Relevance]:
        layer, rule = self.world.pair(node)
        x, y = self.world.into(node), self.world.values[node.name]
        if self.world.through is not None:
            r = _Relevance(self.world.through(r.R), r.V, r.F)
        if layer is not node.layer or type(layer) not in _KNOWN or isinstance(rule, Nonlinear):
            return self.probed(node, layer, rule, r)
        if isinstance(layer, Linear):
            if type(rule) is Pass and r.R.shape == x[0].shape:
                return [_Relevance(r.R, r.V, r.F)]
            own = isinstance(rule, Rule) and type(rule).propagate is Rule.propagate
            return self.shared(node, layer, rule, r) if own else self.probed(node, layer, rule, r)  # type: ignore[arg-type]
        if isinstance(layer, L.Threshold):
            return [self.threshold(node, layer, x[0], r)]
        if layer.family == "activation":
            return [self.activated(node, layer, x[0], y, r)]
        if v.takes_the_maximum(layer):
            return self.maximum(node, layer, x, y, r)
        if isinstance(layer, L.Multiply):
            parts = [layer.relprop(a, x, y) for a in (r.R, np.sqrt(r.V), r.F)]
            return [_Relevance(R, np.square(e), F) for R, e, F in zip(*parts)]
        into = x if layer.merges else x[0]
        count = len(x)
        moved = [
            r.each(lambda a, k=k: (p := layer.relprop(a, into, y), p[k] if layer.merges else p)[1])
            for k in range(count)
        ]
        return moved

    # ------------------------------------------------------------ layers without a rule

    def threshold(self, node: Node, layer: Any, x: np.ndarray, r: _Relevance) -> _Relevance:
        slack = MARGIN * np.hypot(self.E[node.inputs[0]], MADE * self.unit * np.abs(layer.value))
        near = (np.abs(x - layer.value) <= slack) & (layer.sign != 0) & (r.R != 0)
        self.undecided(node, "whether a unit passes its threshold", near)
        moved = r.each(lambda a: layer.relprop(a, x, x))
        moved.F = moved.F + np.abs(r.R) * near
        if moved.c is not None:
            moved.c.F = moved.c.F + np.abs(r.c.R) * near  # type: ignore[union-attr]
        return moved

    def activated(self, node: Node, layer: Any, x: np.ndarray, y: np.ndarray, r: _Relevance) -> _Relevance:
        kinked = isinstance(layer, KINKED) and getattr(layer, "max_value", None) is None
        if r.c is None or not kinked or getattr(layer, "threshold", 0):  # type: ignore[arg-type]
            return _Relevance(r.R, r.V, r.F)
        ratio = np.divide(y, x, out=np.zeros_like(y), where=x != 0)
        E = self.E[node.inputs[0]]
        near = (np.abs(x) <= MARGIN * E) & (E > 0) & (r.c.R != 0)
        self.undecided(node, "on which side of 0 a unit lies", near)
        c = r.c.each(lambda a: a * ratio, lambda V: V * np.square(ratio))
        c.F = c.F + np.abs(r.c.R) * near
        return _Relevance(r.R, r.V, r.F, c)

    def maximum(self, node: Node, layer: Any, x: tuple, y: np.ndarray, r: _Relevance) -> list[_Relevance]:
        E = tuple(MARGIN * self.E[name] for name in node.inputs)
        into, errors = (x, E) if layer.merges else (x[0], E[0])
        moved = [
            r.each(lambda a, k=k: (p := layer.relprop(a, into, y), p[k] if layer.merges else p)[1])
            for k in range(len(x))
        ]
        if not any(e.any() for e in E):
            return moved
        hits, back = v.contenders(layer, into, errors)
        doubt = sum(hit.astype(float) for hit in hits) > 1
        # equals that no rounding moves are equal in every implementation: there the first wins
        doubt &= ~v.all_exact(layer, into, errors, hits)
        if not doubt.any():
            return moved
        R = r.R.reshape(doubt.shape) if doubt.shape != r.R.shape else r.R
        self.undecided(node, "who wins a maximum", (doubt & (R != 0)).reshape(r.R.shape))
        for array, of in ((r, "R"), (r.c, "c")):
            if array is None:
                continue
            lost = [np.abs(array.R).reshape(doubt.shape) * doubt * hit for hit in hits]
            extra = back(lost)
            for k, one_moved in enumerate(moved):
                target = one_moved if of == "R" else one_moved.c
                target.F = target.F + (_unbroadcast(extra[k], x[k].shape) if layer.merges else extra)  # type: ignore[union-attr]
        return moved

    # ------------------------------------------------------------ rules

    def shared(self, node: Node, layer: Any, rule: Rule, r: _Relevance) -> list[_Relevance]:
        x, y = self.world.into(node), self.world.values[node.name]
        E = tuple(np.square(self.E[name]) for name in node.inputs)
        shapes = [a.shape for a in x]
        _, x, y = layer.linearized(x if layer.merges else x[0], y)
        V_x = layer.linearized(E if layer.merges else E[0], y)[1]
        of = _Map(layer, x.shape[1:])
        extra = _made(layer, self.major.get(node.name), x.shape[1:])
        total = c_total = None
        multiple = True
        for share in rule.shares(layer, np.ones_like(r.R), x, y):
            s = self.divided(node, rule, share, of, extra, r, x, V_x, y)
            for part in share.parts:
                depends = np.abs(part.x) == np.abs(x)
                c = self.sent_back(of, part, s)
                got = _Relevance(
                    part.x * c.R,
                    np.square(part.x) * c.V + np.square(c.R * depends) * V_x,
                    np.abs(part.x) * c.F,
                )
                got.V = got.V + np.square(2 * self.unit * got.R)
                total = got if total is None else total.plus(got)
                multiple = (
                    multiple and part.x.shape == x.shape and bool(((part.x == x) | (part.x == 0)).all())
                )
                if multiple:
                    own = c.each(lambda a, on=part.x == x: a * on)
                    c_total = own if c_total is None else c_total.plus(own)
        total.c = c_total if multiple else None  # type: ignore[union-attr]
        if not layer.merges:
            return [total]  # type: ignore[list-item]
        parts = []
        for k, shape in enumerate(shapes):
            part = total.each(lambda a, k=k, shape=shape: _unbroadcast(a[:, k], shape))  # type: ignore[assignment, union-attr]
            part.c = part.c if shape == y.shape else None  # type: ignore[attr-defined]
            parts.append(part)
        return parts  # type: ignore[return-value]

    def divided(self, node, rule, share, of, extra, r, x, V_x, y) -> _Relevance:
        """Steps 1 and 2, ``s = R / d(z)``, with errors."""
        unit = self.unit
        z, sigma = share.z, self.E[node.name]
        if share.z is None:
            weights = [part.change(of.weight) for part in share.parts]
            z = sum(of.layer.linear(p.x, w, p.bias) for p, w in zip(share.parts, weights))
            size = sum(of.size(p.x, w, p.bias) for p, w in zip(share.parts, weights))
            V = sum(
                of.carried((np.abs(p.x) == np.abs(x)) * V_x, w)
                for p, w in zip(share.parts, weights)
                if V_x.any()
            )
            exact = extra is None and all(
                never_rounds(unit, float(size.max()), p.x, w, bias=p.bias)
                for p, w in zip(share.parts, weights)
            )
            if not exact:
                size = size + (0 if extra is None or share.parts[0].bias is None else extra)
                V = V + of.local(unit, of.terms + (0 if extra is None else MADE**2), size)
            sigma = np.sqrt(V) + np.zeros_like(z)
        d = rule.stabilized(z)
        least = np.abs(d - z)  # what the stabilizer adds: the denominator is at least that
        over = np.divide(1.0, d, out=np.zeros_like(d), where=d != 0)
        loose = (MARGIN * sigma > 0.3 * np.abs(d)) & (sigma > 0)
        small = np.maximum(np.abs(d) - MARGIN * sigma, np.maximum(least, 1e-3 * MARGIN * sigma))
        small = np.where(loose, small, 1.0)
        factor, same = np.abs(share.R), share.z is y or share.z is not None
        s = share.R * r.R * over
        if r.c is not None:
            ratio = y * over
            if same:  # y / (y + eps): its error is that of eps alone
                change = least * np.square(over) * sigma
                wild = np.where(loose & (least > 0), np.minimum(1, (np.abs(y) + MARGIN * sigma) / small), 0)
                change = np.where(loose, 0, change)
            else:
                change = np.hypot(self.E[node.name] * over, ratio * over * sigma)
                change = np.where(loose, 0, change)
                wild = np.where(loose, (np.abs(y) + MARGIN * self.E[node.name]) / small + np.abs(ratio), 0)
            V = np.square(factor) * (r.c.V * np.square(ratio) + np.square(r.c.R * change))
            F = factor * (r.c.F * np.abs(ratio) + np.abs(r.c.R) * wild)
        else:
            first = np.where(loose, 0, np.square(r.R * np.square(over) * sigma))
            V = np.square(factor) * (r.V * np.square(over) + first)
            F = factor * (r.F * np.abs(over) + np.where(loose, np.abs(r.R) * (1 / small + np.abs(over)), 0))
        self.undecided(node, "a denominator near 0", loose & (factor * np.abs(r.R) > 0) & (F > 0))
        if type(rule).__name__.startswith("Gamma"):
            side = (np.abs(y) <= MARGIN * self.E[node.name]) & (self.E[node.name] > 0) & (r.R != 0)
            self.undecided(node, "the sign of an output", side)
            F = F + np.where(side, 2 * np.abs(r.R * over), 0)
        return _Relevance(s, V + np.square(3 * unit * s), F)

    def sent_back(self, of: _Map, part: Any, s: _Relevance) -> _Relevance:
        """Step 3, with errors."""
        w = part.change(of.weight)
        V = np.maximum(of.back(s.V, np.square(w)), 0)
        V = V + of.local(self.unit, of.outputs, of.back(np.abs(s.R), np.abs(w)))
        F = of.back(s.F, np.abs(w)) if s.F.any() else np.zeros_like(V)
        return _Relevance(of.back(s.R, w), V, F)

    def probed(self, node: Node, layer: Any, rule: Any, r: _Relevance) -> list[_Relevance]:
        """The errors of a layer or rule of which nothing is known, from a few perturbed walks."""
        x, y = self.world.into(node), self.world.values[node.name]
        merges, count = node.layer.merges, len(node.inputs)

        def run(R: np.ndarray, y: np.ndarray, *x: np.ndarray) -> tuple:
            got = layer.relprop(R, x if merges else x[0], y, rule)
            return tuple(got) if merges else (got,)

        E = (np.sqrt(r.V), self.E[node.name], *(self.E[name] for name in node.inputs))
        parts = []
        for k in range(count):
            R_x = run(r.R, y, *x)[k]
            sigma = _probed(lambda *a, k=k: run(*a)[k], (r.R, y, *x), E, R_x, self.unit)
            F = np.abs(run(r.R + r.F, y, *x)[k] - R_x) if r.F.any() else np.zeros_like(R_x)
            parts.append(_Relevance(R_x, np.square(sigma), F))
        return parts


_NORMS = (L.LRN, L.LayerNorm, L.GroupNorm, L.InstanceNorm, L.RMSNorm, L.UnitNorm)
_MEASURED = (*_NORMS, L.Recurrent, L.MatMul, L.MaskedSoftmax, L.Embedding, L.NotEqual, L.TimeDistributed)
_KNOWN = {kind for kind in L.KINDS.values() if not issubclass(kind, _MEASURED)}
"""Layers whose errors are known here; those of others are measured."""
