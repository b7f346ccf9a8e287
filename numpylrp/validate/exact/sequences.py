"""Attention, recurrent layers and normalization by the sample's own values, exact given what is recorded.

Every float64 is a rational number. Where a layer computes what is not rational (a sigmoid, an exponential,
a root) the value is recorded once: correctly rounded to float64, from 50 digits, on every machine the same.
From there on it is an exact constant, and relevance, which all rules make of such constants by rational
operations, is exact again: given the recorded values, R is exactly this.

Numbers here are anything that adds, multiplies, divides and compares: `Fraction`, or `Running`, which
carries a bound of the error that floating point makes on the way.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from decimal import Decimal, localcontext
from fractions import Fraction
from itertools import product
from typing import Any

from ...errors import LRPError, UnsupportedError
from ...rules import Epsilon
from .layers import KINDS, Rows, _sum, kind_of
from .rules import spread
from .tensors import ONE, ZERO, Shape, Values, flat_index, positions, size, tensor

FLOAT32 = 2.0**-24


class Running:
    """A value with the error, in units of the roundoff u, that floating point may have made so far.

    First-order running error analysis (Higham 2002, ch. 3): each operation adds the errors of its operands
    and one rounding of its result; a sum of n terms t, in any order, adds ``n sum |t|``.

    Examples
    --------
    >>> third = Running(1.0, 0.0) / Running(3.0, 0.0)
    >>> third.error == third.value
    True
    """

    def __init__(self, value: float, error: float = 0.0, terms: float | None = None, count: int = 1) -> None:
        self.value, self.errors = value, error
        self.terms, self.count = abs(value) if terms is None else terms, count

    @property
    def error(self) -> float:
        """The bound, in units of u."""
        return self.errors + (self.count * self.terms if self.count > 1 else 0.0)

    def __add__(self, other: Any) -> Running:
        other = _running(other)
        if not other.terms and not other.error:
            return self
        if not self.terms and not self.error:
            return other
        terms, count = self.terms + other.terms, self.count + other.count
        return Running(self.value + other.value, self.errors + other.errors, terms, count)

    __radd__ = __add__

    def __neg__(self) -> Running:
        return Running(-self.value, self.errors, self.terms, self.count)

    def __sub__(self, other: Any) -> Running:
        return self + -_running(other)

    def __rsub__(self, other: Any) -> Running:
        return -self + other

    def __mul__(self, other: Any) -> Running:
        other = _running(other)
        a, b = self.value, other.value
        return Running(a * b, abs(a) * other.error + abs(b) * self.error + abs(a * b))

    __rmul__ = __mul__

    def __truediv__(self, other: Any) -> Running:
        other = _running(other)
        b = abs(other.value)
        if 4 * FLOAT32 * other.error > b:
            raise LRPError("a denominator is too small for float32: choose other numbers")
        value = self.value / other.value
        return Running(value, self.error / b + abs(value) * (other.error / b + 1))

    def __rtruediv__(self, other: Any) -> Running:
        return _running(other) / self

    def __abs__(self) -> Running:
        return Running(abs(self.value), self.errors, self.terms, self.count)

    def __pow__(self, n: int) -> Running:
        return self * self if n == 2 else NotImplemented

    def _decided(self, other: Any) -> float:
        other = _running(other)
        gap = self.value - other.value
        if FLOAT32 * (self.error + other.error) > abs(gap):
            raise LRPError("rounding in float32 could decide a sign: choose other numbers")
        return gap

    def __lt__(self, other: Any) -> bool:
        return self._decided(other) < 0

    def __le__(self, other: Any) -> bool:
        return self._decided(other) <= 0

    def __gt__(self, other: Any) -> bool:
        return self._decided(other) > 0

    def __ge__(self, other: Any) -> bool:
        return self._decided(other) >= 0

    def __bool__(self) -> bool:
        return self._decided(ZERO) != 0

    def __float__(self) -> float:
        return self.value


def _running(value: Any) -> Running:
    return value if isinstance(value, Running) else Running(float(value))


# ---------------------------------------------------------------- what is recorded


def _decimal(v: Fraction) -> Decimal:
    return Decimal(v.numerator) / Decimal(v.denominator)


def _sigmoid(z: Decimal) -> Decimal:
    return 1 / (1 + (-z).exp())


def _tanh(z: Decimal) -> Decimal:
    e = (-2 * abs(z)).exp()
    return ((1 - e) / (1 + e)).copy_sign(z)


SMOOTH: dict[str, tuple[Callable[[Decimal], Decimal], Callable[[float], float]]] = {
    "sigmoid": (_sigmoid, lambda y: y * (1 - y)),
    "tanh": (_tanh, lambda y: 1 - y * y),
}
"""Functions with their slopes, as functions of their values."""


def recorded(function: str, z: Any) -> Any:
    """A function of one value, correctly rounded to float64.

    Examples
    --------
    >>> recorded("sigmoid", Fraction(0))
    Fraction(1, 2)
    """
    if function == "linear":
        return z
    if function == "relu":
        return z if z > 0 else ZERO
    if function not in SMOOTH:
        raise UnsupportedError(f"the oracle does not know the function {function!r}")
    of, slope = SMOOTH[function]
    with localcontext() as context:
        context.prec = 50
        exact = z.value if isinstance(z, Running) else z
        y = float(of(_decimal(Fraction(exact))))
    if isinstance(z, Running):
        return Running(y, abs(slope(y)) * z.error + 4 * abs(y))
    return Fraction(y)


def softmax(z: Values) -> Values:
    """Softmax of some values, each correctly rounded to float64."""
    floats = [Fraction(v.value) if isinstance(v, Running) else v for v in z]
    with localcontext() as context:
        context.prec = 50
        top = max(floats, default=ZERO)
        e = [_decimal(v - top).exp() for v in floats]
        s = [float(v / sum(e)) for v in e]
    if not any(isinstance(v, Running) for v in z):
        return [Fraction(v) for v in s]
    errors = [v.error if isinstance(v, Running) else 0.0 for v in z]
    mean = sum(p * e for p, e in zip(s, errors))
    made: list[Any] = [Running(p, p * (e + mean + 4 * len(s) + 8)) for p, e in zip(s, errors)]
    return made


def inverse_root(v: Any) -> Any:
    """1 / sqrt(v), correctly rounded to float64."""
    with localcontext() as context:
        context.prec = 50
        y = float(1 / _decimal(Fraction(v.value if isinstance(v, Running) else v)).sqrt())
    if isinstance(v, Running):
        return Running(y, y / v.value / 2 * v.error + 4 * y)
    return Fraction(y)


# ---------------------------------------------------------------- layers


@dataclass(frozen=True)
class Smooth:
    """An activation, value by value, whose output is recorded."""

    function: str

    def forward(self, x: Values) -> Values:
        if self.function == "silu":
            return [_rounded(v * recorded("sigmoid", v)) for v in x]
        return [recorded(self.function, v) for v in x]

    def back(self, R: Values, *_: Any) -> Values:
        return list(R)


def _rounded(v: Any) -> Any:
    return v if isinstance(v, Running) else Fraction(float(v))


@dataclass(frozen=True)
class Attend:
    """Softmax of rows of units, of which some are kept; the others are 0."""

    rows: Callable[[Values], list[list[int]]]
    scores: int

    def forward(self, x: Values) -> Values:
        y: Values = [ZERO] * self.scores
        for row in self.rows(x):
            for i, s in zip(row, softmax([x[i] for i in row])):
                y[i] = s
        return y

    def back(self, R: Values, x: Values, rule: Any, *_: Any) -> Values:
        R_x, s = [ZERO] * len(x), self.forward(x)
        for row in self.rows(x):
            total = sum((R[i] for i in row), ZERO)
            for i in row:
                R_x[i] = R[i] if rule is None else x[i] * (R[i] - s[i] * total)
        return R_x


@dataclass(frozen=True)
class Bilinear:
    """``y_j = scale sum a_i b_i`` over pairs of units."""

    pairs: list[list[tuple[int, int]]]
    scale: Fraction
    weights: int

    def forward(self, x: Values) -> Values:
        return [self.scale * sum((x[a] * x[b] for a, b in pairs), ZERO) for pairs in self.pairs]

    def back(self, R: Values, x: Values, rule: Any, *_: Any) -> Values:
        halves = type(rule).__name__ == "Bilinear"
        R_x: Values = [ZERO] * len(x)
        for held in (0, 1) if halves else (self.weights,):
            used = Epsilon(float(rule.epsilon) / (2 if rule.doubled else 1)) if halves else rule
            for pairs, r in zip(self.pairs, R):
                row = {pair[1 - held]: x[pair[held]] for pair in pairs}
                for i, v in spread(used, row, ZERO, x, r / 2 if halves else r).items():
                    R_x[i] = R_x[i] + v
        return R_x


@dataclass(frozen=True)
class SampleNorm:
    """``y = gamma (x - mean) / d + beta`` over groups of units, 1 / d recorded."""

    groups: list[list[int]]
    gamma: Values
    beta: Values
    eps: Fraction
    centred: bool

    def _held(self, x: Values) -> tuple[Rows, Values, Values]:
        """The layer with d held, and for each unit gamma / d, and the mean times that."""
        rows: list[dict[int, Any]] = [{} for _ in x]
        scales, means = list(x), list(x)
        for group in self.groups:
            n = Fraction(1, len(group))
            mean = sum((x[i] for i in group), ZERO) * n if self.centred else ZERO
            inverse = inverse_root(sum(((x[i] - mean) ** 2 for i in group), ZERO) * n + self.eps)
            for j in group:
                g = self.gamma[j] * inverse
                scales[j], means[j] = g, mean * g
                others = dict.fromkeys(group, -n * g) if self.centred else {}
                rows[j] = {**others, j: g - n * g if self.centred else g}
        return Rows(rows, self.beta), scales, means

    def forward(self, x: Values) -> Values:
        return self._held(x)[0].forward(x)

    def inside(self, x: Values) -> dict[str, list[float]]:
        """1 / d of each group."""
        found = []
        for group in self.groups:
            mean = sum((x[i] for i in group), ZERO) / len(group) if self.centred else ZERO
            found.append(inverse_root(sum(((x[i] - mean) ** 2 for i in group), ZERO) / len(group) + self.eps))
        return {"inverse": list(map(float, found))}

    def back(self, R: Values, x: Values, rule: Any, shapes: list[Shape], shape: Shape) -> Values:
        held, scales, means = self._held(x)
        kind = type(rule).__name__
        if kind == "MeanHeld":
            rows = [{j: g} for j, g in enumerate(scales)]
            bias = [b - mean for b, mean in zip(self.beta, means)]
            return Rows(rows, bias).back(R, x, Epsilon(rule.epsilon), shapes, shape)
        if kind == "AbsBeta":
            found = []
            for r, z, b in zip(R, held.forward(x), self.beta):
                size = abs(z - b) + abs(b)
                found.append(r * (abs(z - b) / size) if size else ZERO)
            return found
        return held.back(R, x, rule, shapes, shape)


@dataclass(frozen=True)
class Tokens:
    """The vector of each token."""

    table: list[Values]

    def forward(self, x: Values) -> Values:
        found = [(i, v) for i in x for v in self.table[int(float(i))]]
        return [Running(float(v)) if isinstance(i, Running) else v for i, v in found]

    def back(self, R: Values, x: Values, *_: Any) -> Values:
        d = len(self.table[0])
        return [sum(R[i * d : (i + 1) * d], ZERO) for i in range(len(x))]


@dataclass(frozen=True)
class Ends:
    """A mask, to which no relevance goes."""

    value: Fraction
    groups: list[list[int]]

    def forward(self, x: Values) -> Values:
        return [ONE if any(float(x[i]) != self.value for i in group) else ZERO for group in self.groups]

    def back(self, R: Values, x: Values, *_: Any) -> Values:
        return [ZERO] * len(x)


# ---------------------------------------------------------------- recurrent layers


def _parts(products: Any, R: Any, gate: Any, signal: Any) -> tuple[Any, Any]:
    """What a gate and its signal get."""
    kind = type(products).__name__
    if kind == "SignalTakesAll":
        return ZERO, R
    if kind == "Uniform":
        return R / 2, R / 2
    a, b = (abs(gate), abs(signal)) if products.absolute else (gate, signal)
    total = a + b
    return (a / total * R, b / total * R) if total else (ZERO, ZERO)


@dataclass(frozen=True)
class Unrolled:
    """A recurrent layer, step after step; gates and candidates are recorded."""

    layer: Any
    shapes: list[Shape]
    blocks: list[list[dict[int, Fraction]]] = field(default_factory=list)
    biases: list[Values] = field(default_factory=list)

    def _inputs(self, x: Values) -> dict[str, Values]:
        given, at = {}, 0
        for name, shape in zip(self.layer.reads, self.shapes):
            given[name] = x[at : at + size(shape)]
            at += size(shape)
        H = self.layer.units
        for name in self.layer.states:
            own = getattr(self.layer, f"initial_{name}")
            given.setdefault(name, [ZERO] * H if own is None else tensor(own).values)
        return given

    def _sums(self, block: int, flat: Values) -> Values:
        """A block's sums over what a step reads and the state before."""
        rows, biases = self.blocks[block], self.biases[block]
        return [sum((w * flat[i] for i, w in row.items()), b) for row, b in zip(rows, biases)]

    def _step(self, x: Values, state: dict[str, Values]) -> dict[str, Values]:
        layer, h = self.layer, state["h"]
        kind, both = kind_of(layer), [*x, *state["h"]]
        act = [layer.activation] * layer.units
        if kind == "SimpleRNN":
            return {"h": list(map(recorded, act, self._sums(0, both)))}
        gate = [layer.gate] * layer.units
        if kind == "LSTM":
            kinds = {"i": gate, "f": gate, "g": act, "o": gate}
            v = {n: list(map(recorded, of, self._sums(k, both))) for k, (n, of) in enumerate(kinds.items())}
            c = [f * old + i * g for f, old, i, g in zip(v["f"], state["c"], v["i"], v["g"])]
            out = list(map(recorded, act, c))
            return {**v, "c": c, "out": out, "h": [o * t for o, t in zip(v["o"], out)]}
        r, z = (list(map(recorded, gate, self._sums(k, both))) for k in (0, 1))
        a = self._candidate(x, h, r)
        n = list(map(recorded, act, a))
        return {"r": r, "z": z, "n": n, "a": a, "h": [(1 - k) * p + k * q for k, p, q in zip(z, n, h)]}

    def _candidate(self, x: Values, h: Values, r: Values) -> Values:
        if not self.layer.reset_after:
            return self._sums(2, [*x, *(p * q for p, q in zip(r, h))])
        rows = self._after(len(x), r)
        return [sum((w * ([*x, *h][i]) for i, w in row.items()), b) for row, b in rows]

    def _after(self, d: int, r: Values) -> list[tuple[dict[int, Any], Any]]:
        """Rows and biases of the candidate where r multiplies U h + c."""
        second = self.layer.recurrent_bias
        c = [ZERO] * len(r) if second is None else tensor(second[2 * len(r) :]).values
        found = []
        for row, both, k, own in zip(self.blocks[2], self.biases[2], r, c):
            b = both - own
            found.append(({i: w if i < d else k * w for i, w in row.items()}, b + k * own))
        return found

    def _walk(self, x: Values) -> tuple[list[tuple[int, dict, dict | None]], dict[str, Values]]:
        given = self._inputs(x)
        length, d = self.shapes[0]
        state = {name: given[name] for name in self.layer.states}
        steps: list[tuple[int, dict, dict | None]] = []
        for t in range(length)[::-1] if self.layer.reverse else range(length):
            if "mask" in given and not float(given["mask"][t]):
                steps.append((t, state, None))
                continue
            found = self._step(given["x"][t * d : (t + 1) * d], state)
            steps.append((t, state, found))
            state = {name: found[name] for name in self.layer.states}
        return steps, state

    def inside(self, x: Values) -> dict[str, list[list[float]]]:
        """Gates and candidates of each step, (T, H) each; 0 for a step that is skipped."""
        steps, _ = self._walk(x)
        names = {"LSTM": ("i", "f", "g", "o", "out"), "GRU": ("r", "z", "n")}.get(
            type(self.layer).__name__, ()
        )
        by_time = {t: found for t, _, found in steps}
        none = [0.0] * self.layer.units
        return {
            name: [none if v is None else list(map(float, v[name])) for _, v in sorted(by_time.items())]
            for name in names
        }

    def forward(self, x: Values) -> Values:
        steps, last = self._walk(x)
        if not self.layer.all_states:
            return last["h"]
        after = {t: (found or before)["h"] for t, before, found in steps}
        return [v for t in sorted(after) for v in after[t]]

    def back(self, R: Values, x: Values, rule: Any, *_: Any) -> Values:
        kind = type(rule).__name__
        how = (rule.products, rule.sums) if kind == "Gated" else (None, rule)
        given, (steps, _last) = self._inputs(x), self._walk(x)
        H, d = self.layer.units, self.shapes[0][1]
        sent = {name: [ZERO] * len(values) for name, values in given.items()}
        R_state = {name: [ZERO] * H for name in self.layer.states}
        for place, (t, before, found) in reversed(list(enumerate(steps))):
            if self.layer.all_states or place == len(steps) - 1:
                own = R[t * H : (t + 1) * H] if self.layer.all_states else R
                R_state["h"] = [a + b for a, b in zip(R_state["h"], own)]
            if found is not None:
                part = given["x"][t * d : (t + 1) * d]
                R_x, R_state = self._back(part, before, found, R_state, *how)
                sent["x"][t * d : (t + 1) * d] = R_x
        sent |= R_state
        return [v for name in self.layer.reads for v in sent[name]]

    def _shared(self, rows: list, R: Values, x: Values, sums: Any) -> Values:
        return _sum((spread(sums, row, b, x, r) for (row, b), r in zip(rows, R)), len(x))

    def _two(self, R: Values, a: Values, b: Values, sums: Any) -> tuple[Values, Values]:
        """Relevance of the sum of two values, unit by unit."""
        R_a, R_b = [], []
        for r, p, q in zip(R, a, b):
            got = spread(sums, {0: ONE, 1: ONE}, ZERO, [p, q], r)
            R_a.append(got.get(0, ZERO))
            R_b.append(got.get(1, ZERO))
        return R_a, R_b

    def _split(self, products: Any, R: Values, gate: Values, signal: Values) -> tuple[Values, Values]:
        if products is None:
            return [ZERO] * len(R), R
        pairs = [_parts(products, *three) for three in zip(R, gate, signal)]
        return [a for a, _ in pairs], [b for _, b in pairs]

    def _back(
        self, x: Values, before: dict, v: dict, R: dict, products: Any, sums: Any
    ) -> tuple[Values, dict[str, Values]]:
        kind, h, d = type(self.layer).__name__, before["h"], len(x)
        both = [*x, *h]

        def through(R_blocks: dict[int, Values]) -> Values:
            total: Values = [ZERO] * len(both)
            for k, R_k in R_blocks.items():
                rows = list(zip(self.blocks[k], self.biases[k]))
                total = [a + b for a, b in zip(total, self._shared(rows, R_k, both, sums))]
            return total

        if kind == "SimpleRNN":
            R_in = through({0: R["h"]})
            return R_in[:d], {"h": R_in[d:]}
        if kind == "LSTM":
            R_o, R_out = self._split(products, R["h"], v["o"], v["out"])
            R_c = [a + b for a, b in zip(R["c"], R_out)]
            kept = [a * b for a, b in zip(v["f"], before["c"])]
            new = [a * b for a, b in zip(v["i"], v["g"])]
            R_kept, R_new = self._two(R_c, kept, new, sums)
            R_f, R_before = self._split(products, R_kept, v["f"], before["c"])
            R_i, R_g = self._split(products, R_new, v["i"], v["g"])
            R_in = through({0: R_i, 1: R_f, 2: R_g, 3: R_o})
            return R_in[:d], {"h": R_in[d:], "c": R_before}
        rest = [1 - z for z in v["z"]]
        parts = [a * b for a, b in zip(rest, v["n"])], [a * b for a, b in zip(v["z"], h)]
        R_new, R_old = self._two(R["h"], *parts, sums)
        R_z, R_n = self._split(products, R_new, rest, v["n"])
        more, R_h = self._split(products, R_old, v["z"], h)
        R_r, R_x, R_part = self._candidate_back(x, h, v, R_n, products, sums)
        R_in = through({0: R_r, 1: [a + b for a, b in zip(R_z, more)]})
        R_x = [a + b for a, b in zip(R_x, R_in)]
        return R_x, {"h": [a + b + c for a, b, c in zip(R_h, R_part, R_in[d:])]}

    def _candidate_back(
        self, x: Values, h: Values, v: dict, R: Values, products: Any, sums: Any
    ) -> tuple[Values, Values, Values]:
        d, r = len(x), v["r"]
        if not self.layer.reset_after:
            rows = list(zip(self.blocks[2], self.biases[2]))
            R_in = self._shared(rows, R, [*x, *(p * q for p, q in zip(r, h))], sums)
            R_r, R_h = self._split(products, R_in[d:], r, h)
            return R_r, R_in[:d], R_h
        if products is None or type(products).__name__ == "SignalTakesAll":
            R_in = self._shared(self._after(d, r), R, [*x, *h], sums)
            return [ZERO] * len(r), R_in[:d], R_in[d:]
        ones = self._after(d, [ONE] * len(r))
        zeros = self._after(d, [ZERO] * len(r))
        of_x = [({i: w for i, w in row.items() if i < d}, b) for row, b in zeros]
        of_h = [
            ({i - d: w for i, w in row.items() if i >= d}, b - z) for (row, b), (_, z) in zip(ones, zeros)
        ]
        a_x = [sum((w * x[i] for i, w in row.items()), b) for row, b in of_x]
        a_h = [sum((w * h[i] for i, w in row.items()), b) for row, b in of_h]
        R_a, R_b = self._two(R, a_x, [p * q for p, q in zip(r, a_h)], sums)
        R_r, R_b = self._split(products, R_b, r, a_h)
        return R_r, self._shared(of_x, R_a, x, sums), self._shared(of_h, R_b, h, sums)


# ---------------------------------------------------------------- which kind of layer is which of them


def _recurrent(layer: Any, *shapes: Shape) -> tuple[Any, Shape]:
    H, d = layer.units, shapes[0][1]
    W, U = tensor(layer.weight), tensor(layer.recurrent)
    biases = [layer.bias, getattr(layer, "recurrent_bias", None)]
    biases = [tensor(b).values for b in biases if b is not None]
    total = [sum(values, ZERO) for values in zip(*biases)] if biases else [ZERO] * (layer.blocks * H)
    rows = [
        {**{i: W[j, i] for i in range(d)}, **{d + i: U[j, i] for i in range(H)}}
        for j in range(layer.blocks * H)
    ]
    blocks = [rows[k * H : (k + 1) * H] for k in range(layer.blocks)]
    parts = [total[k * H : (k + 1) * H] for k in range(layer.blocks)]
    out = (shapes[0][0], H) if layer.all_states else (H,)
    return Unrolled(layer, list(shapes), blocks, parts), out


def _matmul(layer: Any, a: Shape, b: Shape) -> tuple[Any, Shape]:
    lead = tuple(map(max, zip(a[:-2], b[:-2])))
    inner = a[-1]
    out = (*lead, a[-2], b[-2] if layer.transposed else b[-1])

    def unit(shape: Shape, at: list[int], i: int, j: int) -> int:
        return flat_index((*(p if n > 1 else 0 for p, n in zip(at, shape)), i, j), shape)

    pairs: list[list[tuple[int, int]]] = []
    for *at, i, j in positions(out):
        pairs.append([])
        for k in range(inner):
            second = unit(b, at, j, k) if layer.transposed else unit(b, at, k, j)
            pairs[-1].append((unit(a, at, i, k), size(a) + second))
    return Bilinear(pairs, Fraction(layer.scale), layer.weights), out


def _softmax(layer: Any, shape: Shape, mask: Shape = ()) -> tuple[Any, Shape]:
    masked, axis = kind_of(layer) == "MaskedSoftmax", layer.axis % len(shape)
    keep = tensor(layer.keep) if masked and layer.keep is not None else None
    rest = [n for a, n in enumerate(shape) if a != axis]

    def seen(at: tuple, x: Values) -> bool:
        if masked and layer.causal and at[-1] > at[-2] + shape[-1] - shape[-2]:
            return False
        if keep is not None:
            near = [p if n > 1 else 0 for p, n in zip(at[len(at) - len(keep.shape) :], keep.shape)]
            if not keep[tuple(near)]:
                return False
        if not mask:
            return True
        near = [p if n > 1 else 0 for p, n in zip(at[len(at) - len(mask) :], mask)]
        return bool(float(x[size(shape) + flat_index(near, mask)]))

    def rows(x: Values) -> list[list[int]]:
        found = []
        for at in product(*map(range, rest)):
            places = [(*at[:axis], i, *at[axis:]) for i in range(shape[axis])]
            found.append([flat_index(p, shape) for p in places if seen(p, x)])
        return found

    return Attend(rows, size(shape)), shape


def _sample_norm(layer: Any, shape: Shape) -> tuple[Any, Shape]:
    axes = {a % len(shape) for a in layer.axes}
    groups: dict[tuple, list[int]] = {}
    places: list[int] = []
    view = tuple(n if a in axes else 1 for a, n in enumerate(shape))
    for n, at in enumerate(positions(shape)):
        groups.setdefault(tuple(p for a, p in enumerate(at) if a not in axes), []).append(n)
        places.append(flat_index([p if a in axes else 0 for a, p in enumerate(at)], view))
    learned = []
    for name, default in (("gamma", ONE), ("beta", ZERO)):
        value = getattr(layer, name, None)
        flat = None if value is None else tensor(value.reshape(-1)).values
        learned.append([default if flat is None else flat[p] for p in places])
    gamma, beta = learned
    return SampleNorm(list(groups.values()), gamma, beta, Fraction(layer.eps), layer.centred), shape


def _group_norm(layer: Any, shape: Shape) -> tuple[Any, Shape]:
    """Channels in groups, over all positions; gamma and beta of each channel."""
    channels = [at[0] for at in positions(shape)]
    per = 1 if kind_of(layer) == "InstanceNorm" else shape[0] // layer.groups
    groups: dict[int, list[int]] = {}
    for n, c in enumerate(channels):
        groups.setdefault(c // per, []).append(n)
    learned = []
    for name, default in (("gamma", ONE), ("beta", ZERO)):
        value = getattr(layer, name)
        flat = [default] * shape[0] if value is None else tensor(value).values
        learned.append([flat[c] for c in channels])
    gamma, beta = learned
    return SampleNorm(list(groups.values()), gamma, beta, Fraction(layer.eps), True), shape


def _embedding(layer: Any, shape: Shape) -> tuple[Any, Shape]:
    rows = [tensor(row).values for row in layer.table]
    return Tokens(rows), (*shape, len(rows[0]))


def _not_equal(layer: Any, shape: Shape) -> tuple[Any, Shape]:
    last = shape[-1] if layer.last else 1
    groups = [list(range(n, n + last)) for n in range(0, size(shape), last)]
    return Ends(Fraction(layer.value), groups), shape[:-1] if layer.last else shape


def _positions(layer: Any, shape: Shape) -> tuple[Any, Shape]:
    table = tensor(layer.table)
    bias = [table[at[-2], at[-1]] for at in positions(shape)]
    return Rows([{n: ONE} for n in range(len(bias))], bias), shape


def _rotary(layer: Any, shape: Shape) -> tuple[Any, Shape]:
    cos, sin, half = tensor(layer.cos), tensor(layer.sin), shape[-1] // 2
    rows = []
    for n, (*at, i) in enumerate(positions(shape)):
        first = i % 2 == 0 if layer.interleaved else i < half
        other = (i + 1 if first else i - 1) if layer.interleaved else (i + half if first else i - half)
        s = sin[at[-1], i]
        rows.append({n: cos[at[-1], i], flat_index((*at, other), shape): -s if first else s})
    return Rows(rows, [ZERO] * len(rows)), shape


KINDS |= {
    **dict.fromkeys(("SimpleRNN", "LSTM", "GRU"), _recurrent),
    **dict.fromkeys(("Softmax", "MaskedSoftmax"), _softmax),
    **dict.fromkeys(("LayerNorm", "RMSNorm"), _sample_norm),
    **dict.fromkeys(("GroupNorm", "InstanceNorm"), _group_norm),
    "MatMul": _matmul,
    "Embedding": _embedding,
    "NotEqual": _not_equal,
    "Positions": _positions,
    "Rotary": _rotary,
    "Sigmoid": lambda layer, shape: (Smooth("sigmoid"), shape),
    "Tanh": lambda layer, shape: (Smooth("tanh"), shape),
    "SiLU": lambda layer, shape: (Smooth("silu"), shape),
}
