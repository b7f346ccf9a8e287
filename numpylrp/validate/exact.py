"""The exact oracle: the definitions of LRP in rational numbers, for small piecewise-linear networks.

Everything is plain Python over `fractions.Fraction`: no result has a rounding error, and `Tensor.to_float`
rounds once. Of a `numpylrp.Network` only the wiring, the kinds of layers and their parameters are read,
each float as the rational number that it is; no code is shared with the library. Numbers grow with the number
of units: meant for networks of up to a few hundred.

An array is a flat list, row-major, with a shape. A layer is one of few things on the joined flat lists of
its inputs:

    Rows    linear: for each output a dict {input: weight} and a bias. Padding is in no row, so the border
            of a padded convolution is right by construction.
    Pick    pooling by maximum or minimum: the winner takes all, of equals the first
    Each    an activation, relevance unchanged; Threshold: absorbed where it is saturated
    Move    copies: flattening, padding, slices, concatenation
    Gate    a product
    Lrn     local response normalization, rows that depend on x

`share` has the rules, for one output unit at a time (equations and sources: `numpylrp.rules`).

Fusing (DESIGN, "Normalization, exactly") composes rows. A batch normalization ``y_i = g_i x_i + s_i`` is

    behind rows        W' = g W, b' = g b + s
    before rows        W' = W g, b' = b + W s
    before a ReLU      max(0, g x + s) = g T(x) + s with T(x) = x where g x + s > 0, else -s / g, then g, s
    around a maximum   g max(x) + s = max(g x + s) where g >= 0, min(g x + s) where g < 0
    around a mean      g mean(x) + s = mean(g x + s)
    before a sum       g (x1 + x2) + s = (g x1 + s) + g x2

It goes into the layers before it or, where that is not exact, into those behind (the order of Guillemot
et al. 2020; it decides the numbers of every rule but LRP-0), and units that share weights before do so after.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from fractions import Fraction
from itertools import product
from typing import Any

from ..errors import LRPError, ShapeError, UnsupportedError
from ..rules import AbsZ, Pass

Shape = tuple[int, ...]
Values = list[Fraction]
ZERO, ONE = Fraction(0), Fraction(1)


def _size(shape: Shape) -> int:
    return math.prod(shape)


def _positions(shape: Iterable[int]) -> Iterable[Shape]:
    return product(*map(range, shape))


def _flat(position: Iterable[int], shape: Shape) -> int:
    """The row-major index of a position."""
    at = 0
    for p, n in zip(position, shape, strict=True):
        at = at * n + p
    return at


def _along(shape: Shape, axis: int) -> list[int]:
    """For each unit its index along an axis."""
    return [position[axis] for position in _positions(shape)]


@dataclass(frozen=True)
class Tensor:
    """Exact values.

    Attributes
    ----------
    shape : tuple of int
    values : list of Fraction
        Row-major.

    Examples
    --------
    >>> x = tensor([[0.5, 1], [Fraction(1, 3), -2]])
    >>> x.shape, x[1, 0]
    ((2, 2), Fraction(1, 3))
    >>> x.to_float()
    [[0.5, 1.0], [0.3333333333333333, -2.0]]
    """

    shape: Shape
    values: Values

    def __getitem__(self, position: Any) -> Fraction:
        return self.values[_flat(position if isinstance(position, tuple) else (position,), self.shape)]

    def _nested(self, of: Callable) -> Any:
        parts: list = list(map(of, self.values))
        for n in reversed(self.shape):
            parts = [parts[i : i + n] for i in range(0, len(parts), n)]
        return parts[0]

    def to_float(self) -> Any:
        """Nested lists of float, each value rounded once, to the nearest."""
        return self._nested(float)

    def to_list(self) -> Any:
        """Nested lists of Fraction."""
        return self._nested(Fraction)


def tensor(values: Any) -> Tensor:
    """Numbers, nested lists of them or an array as a `Tensor`; each float is the rational that it is."""
    if isinstance(values, Tensor):
        return values
    values = values.tolist() if hasattr(values, "tolist") else values
    if not isinstance(values, (list, tuple)):
        return Tensor((), [Fraction(values)])
    parts = [tensor(v) for v in values]
    if len({part.shape for part in parts}) != 1:
        raise ShapeError("nested lists are to have one shape, and not to be empty")
    return Tensor((len(parts), *parts[0].shape), [v for part in parts for v in part.values])


def _broadcast(given: Any, shape: Shape, channels: bool = False) -> Values:
    """A parameter for each unit of a sample; where `channels`, one axis is the channels (the first)."""
    t = tensor(given)
    view = (*t.shape, *(1,) * (len(shape) - 1)) if channels and len(t.shape) == 1 else t.shape
    if len(view) > len(shape) or any(a not in (1, b) for a, b in zip(view[::-1], shape[::-1])):
        raise ShapeError(f"an array of shape {t.shape} does not fit samples of shape {shape}")
    t = Tensor((*(1,) * (len(shape) - len(view)), *view), t.values)
    return [t[tuple(p if n > 1 else 0 for p, n in zip(at, t.shape))] for at in _positions(shape)]


# ---------------------------------------------------------------- rules, for one output unit


def _plus(v: Fraction) -> Fraction:
    return max(v, ZERO)


def _minus(v: Fraction) -> Fraction:
    return min(v, ZERO)


def _over(R: Fraction, c: Mapping[int, Fraction], z: Fraction, eps: Fraction) -> dict[int, Fraction]:
    """``c_i / (z + eps sign(z)) R`` with sign(0) = +1; 0/0 is 0."""
    z = z + eps if z >= 0 else z - eps
    return {i: v / z * R for i, v in c.items()} if z else {}


def share(
    rule: Any,
    row: Mapping[int, Fraction],
    bias: Fraction,
    x: Sequence[Fraction],
    R: Fraction,
    bounds: tuple[Values, Values] | None = None,
) -> dict[int, Fraction]:
    """What one output unit with relevance R gives to each of its inputs.

    Parameters
    ----------
    rule : Rule
        Read as data: its kind and its parameters.
    row : mapping of int to Fraction
        Weights of the inputs that the unit reads.
    bias : Fraction
    x : sequence of Fraction
        All inputs of the layer.
    R : Fraction
    bounds : (low, high), optional
        For the z^B rule: bounds of all inputs.

    Examples
    --------
    >>> from numpylrp.rules import Gamma
    >>> share(Gamma(1.0), {0: Fraction(1), 1: Fraction(-1)}, Fraction(0), [3, 1], Fraction(5))
    {0: Fraction(6, 1), 1: Fraction(-1, 1)}
    """
    eps = Fraction(getattr(rule, "epsilon", 0))
    c = {i: x[i] * w for i, w in row.items()}
    z = sum(c.values(), bias)
    kind = type(rule).__name__
    if kind == "Epsilon":
        if rule.relative:
            raise UnsupportedError("an epsilon relative to a root mean square is not rational")
        return _over(R, c, z, eps)
    if kind == "Gamma":
        gamma, part = Fraction(rule.gamma), _plus if z >= 0 else _minus
        c = {i: v + gamma * part(v) for i, v in c.items()}
        return _over(R, c, sum(c.values(), bias + gamma * part(bias)), eps)
    if kind in ("AlphaBeta", "ZPlus"):
        total = dict.fromkeys(row, ZERO)
        for factor, part in ((Fraction(rule.alpha), _plus), (-Fraction(rule.beta), _minus)):
            some = {i: part(v) for i, v in c.items()}
            z = sum(some.values(), part(bias) if rule.bias else ZERO)
            for i, v in _over(factor * R, some, z, eps).items():
                total[i] += v
        return total
    if kind == "WSquare":
        c = {i: w * w for i, w in row.items()}
    elif kind == "Flat":
        c = dict.fromkeys(row, ONE)
    elif kind == "ZBox":
        low, high = bounds
        c = {i: v - low[i] * _plus(row[i]) - high[i] * _minus(row[i]) for i, v in c.items()}
    elif kind == "AbsZ":
        c = {i: abs(v) for i, v in c.items()}
        return _over(R, c, sum(c.values(), abs(bias)), eps)
    else:
        raise UnsupportedError(f"the oracle does not know the rule {rule!r}")
    return _over(R, c, sum(c.values(), ZERO), eps)


# ---------------------------------------------------------------- layers, on joined flat inputs


@dataclass(frozen=True)
class Rows:
    """``y_j = sum_i w_ji x_i + b_j``, in a sum or concatenation of branches over all of them."""

    rows: list[dict[int, Fraction]]
    bias: Values
    ins: list[int] = field(default_factory=list)
    outs: list[int] = field(default_factory=list)
    """For each input and output unit its channel: those of one channel share weights."""
    left: str = "absorb"
    right: str = "absorb"
    """What a scale and shift that comes from behind, or from before, does here: it is absorbed, passed on
    (by a pooling; into the "branches" by a sum), or refused.
    """

    def forward(self, x: Values) -> Values:
        return [sum((w * x[i] for i, w in row.items()), b) for row, b in zip(self.rows, self.bias)]

    def back(self, R: Values, x: Values, rule: Any, shapes: list[Shape], shape: Shape) -> Values:
        if rule is None:
            raise LRPError("it has no rule")
        if type(rule).__name__ == "Pass":  # in a sum, every branch gets the same
            if len(shapes) == 1 and shapes[0] != shape:
                raise ShapeError(f"Pass can't send {shape} to {shapes[0]}")
            if len(shapes) == 1:
                return list(R)
            return _sum((dict.fromkeys(row, r / len(row)) for row, r in zip(self.rows, R)), len(x))
        bounds = None
        if type(rule).__name__ == "ZBox":
            if len(shapes) > 1:
                raise UnsupportedError("the oracle has no z^B rule for sums of branches")
            bounds = tuple(_broadcast(v, shapes[0], channels=True) for v in (rule.low, rule.high))
        shares = (share(rule, row, b, x, r, bounds) for row, b, r in zip(self.rows, self.bias, R))
        return _sum(shares, len(x))


def _sum(shares: Iterable[Mapping[int, Fraction]], n: int) -> Values:
    R = [ZERO] * n
    for some in shares:
        for i, v in some.items():
            R[i] += v
    return R


@dataclass(frozen=True)
class Pick:
    """The largest of each window (of minus x where the sign is -1)."""

    windows: list[list[int]]
    sign: list[int]
    ins: list[int] | None = None
    outs: list[int] | None = None
    """Channels, as in `Rows`; None for a merge, which no scale passes."""

    def _winners(self, x: Values) -> list[int]:
        return [max(w, key=lambda i: sign * x[i]) for w, sign in zip(self.windows, self.sign)]

    def forward(self, x: Values) -> Values:
        return [x[i] for i in self._winners(x)]

    def back(self, R: Values, x: Values, *_: Any) -> Values:
        return _sum(({i: r} for i, r in zip(self._winners(x), R)), len(x))

    def turned(self, g: Values) -> Pick:
        """With the windows turned whose scale is negative."""
        return replace(self, sign=[-s if f < 0 else s for s, f in zip(self.sign, g)])


@dataclass(frozen=True)
class Each:
    """A function of every unit (its index and its value)."""

    function: Callable[[int, Fraction], Fraction]
    plain: bool = False
    """Whether it is max(0, x)."""

    def forward(self, x: Values) -> Values:
        return [self.function(i, v) for i, v in enumerate(x)]

    def back(self, R: Values, *_: Any) -> Values:
        return list(R)


@dataclass(frozen=True)
class Threshold:
    """x where ``sign (x - value) > 0`` or sign = 0, else the value, which absorbs."""

    sign: Values
    value: Values

    def _passes(self, x: Values) -> list[bool]:
        return [s == 0 or s * (v - t) > 0 for s, t, v in zip(self.sign, self.value, x)]

    def forward(self, x: Values) -> Values:
        return [v if ok else t for v, t, ok in zip(x, self.value, self._passes(x))]

    def back(self, R: Values, x: Values, *_: Any) -> Values:
        return [r if ok else ZERO for r, ok in zip(R, self._passes(x))]


@dataclass(frozen=True)
class Move:
    """Each output is a copy of an input, or 0 where its source is None."""

    source: list[int | None]
    edge: dict[int, tuple[int, list[int]]] = field(default_factory=dict)
    """For each 0 that was put around: the nearest input, and the axes along which it lies outside."""

    def forward(self, x: Values) -> Values:
        return [ZERO if i is None else x[i] for i in self.source]

    def back(self, R: Values, x: Values, *_: Any) -> Values:
        return _sum(({i: r} for i, r in zip(self.source, R) if i is not None), len(x))


@dataclass(frozen=True)
class Gate:
    """A product: equal shares, or the signal takes all."""

    factors: list[list[int]]
    signal: int | None

    def forward(self, x: Values) -> Values:
        return [math.prod((x[i] for i in units), start=ONE) for units in self.factors]

    def back(self, R: Values, x: Values, *_: Any) -> Values:
        takers = [u if self.signal is None else [u[self.signal]] for u in self.factors]
        return _sum(({i: r / len(u)} for u, r in zip(takers, R) for i in u), len(x))


@dataclass(frozen=True)
class Lrn:
    """``y_k = x_k (k0 + a sum_i x_i^2)^-b``, expanded for relevance as in Binder et al. 2016."""

    windows: list[list[int]]
    a: Fraction
    b: int
    k: Fraction

    def _total(self, x: Values, window: list[int]) -> Fraction:
        return self.k + self.a * sum(x[i] ** 2 for i in window)

    def forward(self, x: Values) -> Values:
        return [x[k] * self._total(x, w) ** -self.b for k, w in enumerate(self.windows)]

    def expanded(self, x: Values) -> Rows:
        """w_kk = (k0 + a x_k^2)^-b, w_kj = -2 a b x_k x_j (k0 + a sum_i x_i^2)^(-b-1)."""
        rows = []
        for k, window in enumerate(self.windows):
            slope = -2 * self.a * self.b * x[k] * self._total(x, window) ** (-self.b - 1)
            own = (self.k + self.a * x[k] ** 2) ** -self.b
            rows.append({j: own if j == k else slope * x[j] for j in window})
        return Rows(rows, [ZERO] * len(x))

    def back(self, R: Values, x: Values, *rest: Any) -> Values:
        return self.expanded(x).back(R, x, *rest)


class Top:
    """A softmax or sigmoid at the end, which the seed leaves out."""


# ---------------------------------------------------------------- what each kind of layer is


def _dense(layer: Any, shape: Shape) -> tuple[Any, Shape]:
    w, b = tensor(layer.weight), _bias(layer, layer.weight.shape[0])
    out = (*shape[:-1], w.shape[0])
    rows = [
        {_flat((*at, i), shape): w[o, i] for i in range(shape[-1])} for *at, o in _positions(out)
    ]  # on the last axis of any array
    return Rows(rows, [b[at[-1]] for at in _positions(out)], _along(shape, -1), _along(out, -1)), out


def _bias(layer: Any, n: int) -> Values:
    return [ZERO] * n if layer.bias is None else tensor(layer.bias).values


def _axis(n: int, k: int, step: int, dilation: int, padding: Any, ceil: bool) -> tuple:
    """The taps' positions of each window along one axis, and how far padding reaches."""
    span = dilation * (k - 1) + 1
    if isinstance(padding, str):
        total = max((-(-n // step) - 1) * step + span - n, 0)
        less, more = total // 2, total - total // 2
        before, behind = (less, more) if padding == "same" else (more, less)
    else:
        before, behind = padding
    windows, start = [], -before
    # with ceil, one more window where those before left something over and it starts inside
    while start + span <= n + behind or (ceil and windows and start < n and start - step + span < n + behind):
        windows.append([start + dilation * t for t in range(k)])
        start += step
    return windows, (-before, n + behind)


def _windows(layer: Any, size: Shape, kernel: Shape) -> tuple[dict[Shape, list], list[tuple[int, int]]]:
    """For each output position all (tap, input position), padding included; and its reach."""
    rank = len(size)
    paddings = [layer.padding] * rank if isinstance(layer.padding, str) else layer.padding
    dilations, ceil = getattr(layer, "dilation", (1,) * rank), getattr(layer, "ceil", False)
    axes = [_axis(*a, ceil) for a in zip(size, kernel, layer.stride, dilations, paddings)]
    found = {}
    for out in _positions(len(windows) for windows, _ in axes):
        each = [windows[p] for (windows, _), p in zip(axes, out)]
        found[out] = [(tap, tuple(at[t] for at, t in zip(each, tap))) for tap in _positions(kernel)]
    return found, [reach for _, reach in axes]


def _inside(at: Shape, reach: Iterable[tuple[int, int]]) -> bool:
    return all(low <= p < high for p, (low, high) in zip(at, reach))


def _upsized(layer: Any, size: Shape, kernel: Shape) -> dict[Shape, list]:
    """For each output position of a transposed convolution the (tap, input position) that reach it."""
    out = []
    for a, n in enumerate(size):
        s, span = layer.stride[a], layer.dilation[a] * (kernel[a] - 1) + 1
        same = isinstance(layer.padding, str)
        out.append(n * s if same else (n - 1) * s + span + layer.output_padding[a] - sum(layer.padding[a]))
    links: dict[Shape, list] = {at: [] for at in _positions(out)}
    for source, taps in _windows(layer, tuple(out), kernel)[0].items():
        for tap, at in taps:
            if at in links:
                links[at].append((tap, source))
    return links


def _conv(layer: Any, shape: Shape) -> tuple[Any, Shape]:
    w, (c, *size), groups = tensor(layer.weight), shape, layer.groups
    kernel, image = w.shape[2:], [(0, n) for n in size]
    transposed = type(layer).__name__ == "Conv2DTranspose"
    if transposed:
        links = _upsized(layer, tuple(size), kernel)
    else:
        found, _ = _windows(layer, tuple(size), kernel)
        links = {out: [(t, at) for t, at in taps if _inside(at, image)] for out, taps in found.items()}
    outputs = w.shape[1] * groups if transposed else w.shape[0]
    per_in, per_out = c // groups, outputs // groups
    b, rows, bias = _bias(layer, outputs), [], []
    taps = None if layer.tap_bias is None else tensor(layer.tap_bias)
    border = layer.border or [(0, 0)] * len(size)
    counted = [(low, n - high) for (low, high), n in zip(border, size)]
    for o in range(outputs):
        group = o // per_out
        for link in links.values():
            row = {}
            for i in range(per_in):
                channel = group * per_in + i
                for tap, at in link:
                    index = (channel, o - group * per_out, *tap) if transposed else (o, i, *tap)
                    row[_flat((channel, *at), shape)] = w[index]
            rows.append(row)
            met = [] if taps is None else [taps[(o, *tap)] for tap, at in link if _inside(at, counted)]
            bias.append(sum(met, b[o]))
    out = (outputs, *(n + 1 for n in max(links)))
    return Rows(rows, bias, _along(shape, 0), _along(out, 0)), out


def _pool(layer: Any, shape: Shape) -> tuple[Any, Shape]:
    found, reach = _windows(layer, shape[1:], layer.kernel)
    image = [(0, n) for n in shape[1:]]
    out = (shape[0], *(n + 1 for n in max(found)))
    windows, counts = [], []
    for c in range(shape[0]):
        for taps in found.values():
            windows.append([_flat((c, *at), shape) for _, at in taps if _inside(at, image)])
            counts.append(sum(_inside(at, reach) for _, at in taps))
    ins, outs = _along(shape, 0), _along(out, 0)
    kind = type(layer).__name__
    if kind.startswith("Max"):
        return Pick(windows, _signs(layer, outs), ins, outs), out
    padded = isinstance(layer.padding, str) or any(map(any, layer.padding))
    if kind.startswith("Sum"):
        weights = [ONE] * len(windows)
        even = not padded and not layer.ceil
        left = "refuse"
    else:
        counts = counts if layer.count_padding else list(map(len, windows))
        weights = [Fraction(1, n) for n in counts]
        even = not padded or not layer.count_padding
        left = "pass" if even else "refuse"
    # an uneven pooling dilutes a shift at the border: it takes scale and shift in
    right = "pass" if even else "refuse" if layer.ceil else "absorb"
    rows = [dict.fromkeys(window, w) for window, w in zip(windows, weights)]
    return Rows(rows, [ZERO] * len(rows), ins, outs, left, right), out


def _signs(layer: Any, channels: list[int]) -> list[int]:
    return [1 if layer.sign is None else int(layer.sign[c]) for c in channels]


def _global(layer: Any, shape: Shape) -> tuple[Any, Shape]:
    n = _size(shape[1:])
    windows = [list(range(c * n, (c + 1) * n)) for c in range(shape[0])]
    ins, outs = _along(shape, 0), list(range(shape[0]))
    out = (shape[0], *(1,) * (len(shape) - 1)) if layer.keepdims else shape[:1]
    kind = type(layer).__name__
    if kind == "GlobalMaxPool":
        return Pick(windows, _signs(layer, outs), ins, outs), out
    mean = kind == "GlobalAveragePool"
    rows = [dict.fromkeys(window, Fraction(1, n) if mean else ONE) for window in windows]
    return Rows(rows, [ZERO] * shape[0], ins, outs, "pass" if mean else "refuse", "pass"), out


def _adaptive(layer: Any, shape: Shape) -> tuple[Any, Shape]:
    """Window i of o reaches from floor(i n / o) to ceil((i + 1) n / o)."""
    out, rows = (shape[0], *layer.size), []
    for c, *at in _positions(out):
        seen = [range(i * n // o, -(-(i + 1) * n // o)) for i, n, o in zip(at, shape[1:], layer.size)]
        window = [_flat((c, *p), shape) for p in product(*seen)]
        rows.append(dict.fromkeys(window, Fraction(1, len(window))))
    return Rows(rows, [ZERO] * len(rows), _along(shape, 0), _along(out, 0), "refuse", "refuse"), out


def _root(v: Fraction) -> Fraction:
    root = Fraction(math.isqrt(v.numerator), math.isqrt(v.denominator))
    if root**2 != v:
        raise UnsupportedError(f"the root of variance + eps = {float(v)!r} is not rational")
    return root


def _diagonal(layer: Any, shape: Shape) -> tuple[Any, Shape]:
    channels = _along(shape, layer.axis)

    def per_unit(name: str, default: int) -> Values:
        values = [Fraction(default)] if getattr(layer, name) is None else tensor(getattr(layer, name)).values
        return [values[c if len(values) > 1 else 0] for c in channels]

    if type(layer).__name__ == "Affine":
        g, s = per_unit("scale", 1), per_unit("shift", 0)
    else:
        roots = [_root(v + Fraction(layer.eps)) for v in per_unit("variance", 1)]
        g = [v / root for v, root in zip(per_unit("gamma", 1), roots)]
        s = [b - f * m for b, f, m in zip(per_unit("beta", 0), g, per_unit("mean", 0))]
    return Rows([{i: f} for i, f in enumerate(g)], s, channels, channels), shape


def _lrn(layer: Any, shape: Shape) -> tuple[Any, Shape]:
    if layer.beta != int(layer.beta):
        raise UnsupportedError(f"a power of {layer.beta} is not rational")
    before = layer.size // 2 if layer.before is None else layer.before
    reach, rank = range(-before, layer.size - before), len(shape) - 1
    steps = [(0, *s) for s in product(reach, repeat=rank)] if layer.within else None
    steps = steps or [(s, *(0,) * rank) for s in reach]
    windows = []
    for position in _positions(shape):
        near = [tuple(p + s for p, s in zip(position, step)) for step in steps]
        windows.append([_flat(at, shape) for at in near if _inside(at, [(0, n) for n in shape])])
    a = Fraction(layer.alpha) / (len(steps) if layer.average else 1)
    return Lrn(windows, a, int(layer.beta), Fraction(layer.k)), shape


def _relu(v: Fraction, layer: Any) -> Fraction:
    below = Fraction(layer.threshold)
    y = v if v >= below else Fraction(layer.negative_slope) * (v - below)
    return y if layer.max_value is None else min(y, Fraction(layer.max_value))


def _clip(v: Fraction) -> Fraction:
    return min(max(v, ZERO), ONE)


def _activation(layer: Any, shape: Shape) -> tuple[Any, Shape]:
    kind = type(layer).__name__
    if kind == "ReLU":
        plain = layer.max_value is None and not layer.negative_slope and not layer.threshold
        return Each(lambda i, v: _relu(v, layer), plain), shape
    if kind == "HardSigmoid":
        slope, offset = Fraction(layer.slope), Fraction(layer.offset)
        return Each(lambda i, v: _clip(slope * v + offset)), shape
    if kind == "HardSwish":
        return Each(lambda i, v: v * _clip(v / 6 + Fraction(1, 2))), shape
    if kind == "Clip":
        low, high = ([] if v is None else [Fraction(v)] for v in (layer.low, layer.high))
        return Each(lambda i, v: min([max([v, *low]), *high])), shape
    if kind == "Threshold":
        return Threshold(_broadcast(layer.sign, shape), _broadcast(layer.value, shape)), shape
    given = layer.negative_slope if kind == "LeakyReLU" else layer.slope
    slopes = _broadcast(given, shape, channels=True)
    return Each(lambda i, v: v if v >= 0 else slopes[i] * v), shape


def _move(layer: Any, shape: Shape) -> tuple[Any, Shape]:
    kind = type(layer).__name__
    out, edge, order = shape, {}, list(range(_size(shape)))
    if kind == "Flatten":
        out = (_size(shape),)
    elif kind == "Reshape":
        left = _size(shape) // abs(_size(layer.shape))
        out = tuple(left if n == -1 else n for n in layer.shape)
    elif kind == "Transpose":
        out = tuple(shape[a] for a in layer.axes)
        order = [_flat((at[layer.axes.index(a)] for a in range(len(at))), shape) for at in _positions(out)]
    elif kind == "Slice":
        kept = [range(n)[a:b:c] for n, a, b, c in zip(shape, layer.start, layer.stop, layer.step)]
        out = tuple(map(len, kept))
        order = [_flat(at, shape) for at in product(*kept)]
    elif kind == "UpSampling":
        out = tuple(n * k for n, k in zip(shape, layer.size))
        order = [_flat((p // k for p, k in zip(at, layer.size)), shape) for at in _positions(out)]
    elif kind == "ZeroPadding":
        out = tuple(n + a + b for n, (a, b) in zip(shape, layer.padding))
        order = []
        for j, at in enumerate(_positions(out)):
            at = [p - a for p, (a, _) in zip(at, layer.padding)]
            near = [min(max(p, 0), n - 1) for p, n in zip(at, shape)]
            order.append(_flat(at, shape) if near == at else None)
            if near != at:
                edge[j] = _flat(near, shape), [a for a in range(len(at)) if at[a] != near[a]]
    return Move(order, edge), out


def _merge(layer: Any, *shapes: Shape) -> tuple[Any, Shape]:
    kind = type(layer).__name__
    starts = [sum(map(_size, shapes[:k])) for k in range(len(shapes))]
    if kind == "Concatenate":
        axis = layer.axis % len(shapes[0])
        whole, order = (*shapes[0][:axis], sum(s[axis] for s in shapes), *shapes[0][axis + 1 :]), []
        for at in _positions(whole):
            k, p = 0, at[axis]
            while p >= shapes[k][axis]:
                p, k = p - shapes[k][axis], k + 1
            order.append(starts[k] + _flat((*at[:axis], p, *at[axis + 1 :]), shapes[k]))
        return Move(order), whole
    out = tuple(map(max, zip(*shapes)))
    units = [
        [start + _flat((p if n > 1 else 0 for p, n in zip(at, s)), s) for start, s in zip(starts, shapes)]
        for at in _positions(out)
    ]
    if kind == "Multiply":
        return Gate(units, layer.signal), out
    if kind in ("Maximum", "Minimum"):
        return Pick(units, [1 if kind == "Maximum" else -1] * len(units)), out
    n = len(shapes)
    weights = {"Add": [ONE] * n, "Average": [Fraction(1, n)] * n, "Subtract": [ONE, -ONE]}[kind]
    left = "branches" if len(set(shapes)) == 1 else "refuse"
    rows = [dict(zip(u, weights, strict=True)) for u in units]
    return Rows(rows, [ZERO] * len(rows), left=left, right="refuse"), out


KINDS: dict[str, Callable[..., tuple[Any, Shape]]] = {
    "Dense": _dense,
    **dict.fromkeys(("Conv1D", "Conv2D", "Conv2DTranspose"), _conv),
    **{f"{kind}Pool{rank}D": _pool for kind in ("Max", "Sum", "Average") for rank in (1, 2)},
    **dict.fromkeys(("GlobalMaxPool", "GlobalSumPool", "GlobalAveragePool"), _global),
    **dict.fromkeys(("BatchNorm", "Affine"), _diagonal),
    "AdaptiveAveragePool": _adaptive,
    "LRN": _lrn,
    **dict.fromkeys(("ReLU", "LeakyReLU", "PReLU", "Threshold"), _activation),
    **dict.fromkeys(("HardSigmoid", "HardSwish", "Clip"), _activation),
    **dict.fromkeys(("Identity", "Dropout", "Flatten", "Reshape", "Transpose"), _move),
    **dict.fromkeys(("ZeroPadding", "Slice", "UpSampling"), _move),
    **dict.fromkeys(("Add", "Subtract", "Average", "Multiply", "Maximum", "Minimum", "Concatenate"), _merge),
}
"""The kinds of layers that the oracle knows."""


@dataclass(frozen=True)
class Node:
    """A layer of the network, for inputs of these shapes."""

    name: str
    kind: str
    op: Any
    inputs: tuple[str, ...]
    shapes: list[Shape]
    shape: Shape


def _nodes(network: Any, shapes: dict[str, Shape]) -> dict[str, Node]:
    nodes, shapes = {}, dict(shapes)
    for node in network.nodes:
        kind, given = type(node.layer).__name__, [shapes[name] for name in node.inputs]
        try:
            if kind in ("Softmax", "LogSoftmax", "Sigmoid") and node.name in network.outputs:
                op, shape = Top(), given[0]
            elif kind in KINDS:
                op, shape = KINDS[kind](node.layer, *given)
            else:
                raise UnsupportedError("the oracle does not know this kind of layer")
        except UnsupportedError as error:
            raise UnsupportedError(f"layer {node.name!r} ({kind}): {error}") from None
        shapes[node.name] = shape
        nodes[node.name] = Node(node.name, kind, op, tuple(node.inputs), given, shape)
    return nodes


# ---------------------------------------------------------------- fusing


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


def _left(nodes: Mapping[str, Node], outputs: Any, name: str, reader: str, g: Values, s: Values) -> dict:
    """What changes where tensor `name` becomes ``g t + s``."""
    if name not in nodes or name in outputs:
        raise _Refused(f"{name!r} is an input or output")
    readers = [(n.name, source) for n in nodes.values() for source in n.inputs if source == name]
    if readers != [(reader, name)]:
        raise _Refused(f"{name!r} is read twice")
    node, op = nodes[name], nodes[name].op
    changes: dict[str, Any] = {}
    n = sum(map(_size, node.shapes))
    if isinstance(op, Rows) and op.left == "absorb":
        _by_channel(op.outs, g, s)
        rows = [{i: f * w for i, w in row.items()} for row, f in zip(op.rows, g)]
        return {name: replace(op, rows=rows, bias=[f * b + t for b, f, t in zip(op.bias, g, s)])}
    if isinstance(op, Move) and None not in op.source and sorted(op.source) == list(range(n)):
        where = {i: j for j, i in enumerate(op.source)}
        before = [(g[where[i]], s[where[i]]) for i in range(n)]
    elif (isinstance(op, Pick) and op.ins) or (isinstance(op, Rows) and op.left == "pass"):
        per = _by_channel(op.outs, g, s)
        before = [per[c] for c in op.ins]
        if isinstance(op, Pick):
            changes[name] = op.turned(g)
    elif isinstance(op, Rows) and op.left == "branches":
        first = [(f, t / op.rows[0][0]) for f, t in zip(g, s)]
        before = first + [(f, ZERO) for f in g] * (len(node.inputs) - 1)
    else:
        raise _Refused(f"nothing moves through {name!r} ({node.kind})")
    at = 0
    for source, shape in zip(node.inputs, node.shapes):
        part = before[at : at + _size(shape)]
        at += _size(shape)
        changes |= _left(nodes, outputs, source, name, [f for f, _ in part], [t for _, t in part])
    return changes


def _varies(values: list, shape: Shape, axis: int) -> bool:
    start = [(*at[:axis], 0, *at[axis + 1 :]) for at in _positions(shape)]
    return any(values[j] != values[_flat(at, shape)] for j, at in enumerate(start))


def _right(nodes: Mapping[str, Node], outputs: Any, name: str, g: Values, s: Values) -> dict:
    """What changes where all that reads `name` gets t for ``g t + s``."""
    pending: dict[str, tuple] = {name: (g, s)}
    changes: dict[str, Any] = {}
    for node in nodes.values():
        if node.name == name or not pending.keys() & set(node.inputs):
            continue
        g, s = [], []
        for source, shape in zip(node.inputs, node.shapes):
            f, t = pending.get(source, ([ONE] * _size(shape), [ZERO] * _size(shape)))
            g, s = g + f, s + t
        op = node.op
        if None in s and not isinstance(op, Move) and not node.kind.startswith("Conv"):
            raise _Refused(f"zeros were put around it before {node.name!r}")
        if isinstance(op, Rows) and op.right == "absorb":
            _by_channel(op.ins, g, s)
            rows = [{i: w * g[i] for i, w in row.items()} for row in op.rows]
            more = [sum((w * (s[i] or 0) for i, w in row.items()), b) for row, b in zip(op.rows, op.bias)]
            changes[node.name] = replace(op, rows=rows, bias=more)
            continue
        if isinstance(op, Rows) and op.right == "pass":
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
            s = [t if f else _plus(t) for f, t in zip(g, s)]  # g = 0: the constant max(0, s)
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


def _fused(nodes: dict[str, Node], outputs: Any) -> tuple[dict[str, Node], dict[str, str]]:
    """The nodes with batch normalizations gone (identities), and why others stay."""
    stays = {}
    for name in [node.name for node in nodes.values() if node.kind == "BatchNorm"]:
        node = nodes[name]
        g, s = [row[i] for i, row in enumerate(node.op.rows)], node.op.bias
        try:
            changes = _left(nodes, outputs, node.inputs[0], name, g, s)
        except _Refused as before:
            try:
                changes = _right(nodes, outputs, name, g, s)
            except _Refused as behind:
                stays[name] = f"before: {before}; behind: {behind}"
                continue
        changes[name] = Move(list(range(len(g))))
        nodes = {n.name: replace(n, op=changes.get(n.name, n.op)) for n in nodes.values()}
    return nodes, stays


# ---------------------------------------------------------------- forward and back


def _inputs(network: Any, x: Any) -> dict[str, Tensor]:
    x = x if isinstance(x, Mapping) else {next(iter(network.inputs)): x}
    found = {name: tensor(x[name]) for name in network.inputs}
    for name, want in network.inputs.items():
        got = found[name].shape
        if len(got) != len(want) or any(n not in (None, m) for n, m in zip(want, got)):
            raise ShapeError(f"input {name!r} is to be one sample of shape {want}, not {got}")
    return found


def _record(nodes: Mapping[str, Node], x: Mapping[str, Tensor]) -> dict[str, Tensor]:
    values = dict(x)
    for node in nodes.values():
        if not isinstance(node.op, Top):
            joined = [v for name in node.inputs for v in values[name].values]
            values[node.name] = Tensor(node.shape, node.op.forward(joined))
    return values


def forward(network: Any, x: Any) -> dict[str, Tensor]:
    """Exact activations of one sample.

    Parameters
    ----------
    network : Network
    x : array or nested lists of numbers, or a mapping of input name to them
        One sample, without a batch axis.

    Returns
    -------
    dict of Tensor
        By name, the inputs included; a softmax or sigmoid at the end is left out.

    Raises
    ------
    UnsupportedError
        A layer that is not rational, or not known, by its name.

    Examples
    --------
    >>> from numpylrp import Network
    >>> from numpylrp.layers import AveragePool1D
    >>> net = Network([("pool", AveragePool1D(3))], input_shape=(1, 3))
    >>> forward(net, [[1, 2, 0.5]])["pool"].values
    [Fraction(7, 6)]
    """
    given = _inputs(network, x)
    return _record(_nodes(network, {name: t.shape for name, t in given.items()}), given)


@dataclass(frozen=True)
class Step:
    """What one layer did; x and R_x are tuples where it has several inputs.

    Attributes
    ----------
    x, z : Tensor
        Its input, and its output (of LRN, that of the expansion that relevance is shared by).
    R, R_x : Tensor
        The relevance that it received and that it sent.
    """

    x: Any
    z: Tensor
    R: Tensor
    R_x: Any


@dataclass(frozen=True)
class Result:
    """An exact explanation.

    Attributes
    ----------
    relevance : dict of Tensor
        Of each input, by name.
    steps : dict of Step
        By the layer's name, from the output back. A normalization that is fused is an identity.
    stays : dict of str
        Why a normalization could not be fused, by its name.
    """

    relevance: dict[str, Tensor]
    steps: dict[str, Step]
    stays: dict[str, str]


def explain(network: Any, x: Any, R: Any, rules: Mapping[str, Any], normalization: str = "linear") -> Result:
    """Exact relevance for one sample, by the definitions.

    Parameters
    ----------
    network : Network
    x : array or nested lists of numbers, or a mapping of input name to them
        One sample, without a batch axis.
    R : int, or array or nested lists of numbers
        A class, whose logit is explained; or the relevance of the (first) output. A softmax or sigmoid
        at the end is left out.
    rules : mapping of str to Rule
        The rule of every layer that takes one, as ``Composite.rules(network)`` gives.
    normalization : str
        Of batch normalization: "linear", "fused", "identity" or "abs-z" (see `numpylrp.explain`).

    Returns
    -------
    Result

    Raises
    ------
    UnsupportedError
        A layer or rule that is not rational, or not known, by its name.

    Examples
    --------
    >>> from numpylrp import Network
    >>> from numpylrp.layers import BatchNorm, Dense
    >>> from numpylrp.rules import ZPlus
    >>> norm = BatchNorm([2.0], [1.0], [0.0], [1.0], eps=0.0)
    >>> net = Network([("fc", Dense([[1.0, -1.0]], [1.0])), ("bn", norm)], input_shape=(2,))
    >>> rules = {"fc": ZPlus(), "bn": ZPlus()}
    >>> explain(net, [3, 2], 0, rules).relevance["input"].values  # 5 * 4/5 * 3/4
    [Fraction(3, 1), Fraction(0, 1)]
    >>> explain(net, [3, 2], 0, rules, "fused").relevance["input"].values  # 5 * 6 / (6 + 3)
    [Fraction(10, 3), Fraction(0, 1)]
    """
    if normalization not in ("linear", "fused", "identity", "abs-z"):
        raise LRPError(f"there is no normalization {normalization!r}")
    given = _inputs(network, x)
    nodes, stays = _nodes(network, {name: t.shape for name, t in given.items()}), {}
    if normalization == "fused":
        nodes, stays = _fused(nodes, network.outputs)
    if normalization in ("identity", "abs-z"):
        own = Pass() if normalization == "identity" else AbsZ()
        rules = {**rules, **{n.name: own for n in nodes.values() if n.kind == "BatchNorm"}}
    values = _record(nodes, given)
    top = network.outputs[0]
    top = nodes[top].inputs[0] if isinstance(nodes[top].op, Top) else top
    y = values[top]
    if isinstance(R, int):
        kept = zip(y.values, _along(y.shape, 0))
        R = Tensor(y.shape, [v if c == R else ZERO for v, c in kept])
    R = tensor(R)
    if R.shape != y.shape:
        raise ShapeError(f"R is to have shape {y.shape}, not {R.shape}")
    relevance, steps = {top: R}, {}
    for node in reversed(nodes.values()):
        if node.name not in relevance:
            continue
        R, parts = relevance.pop(node.name), tuple(values[name] for name in node.inputs)
        x = [v for part in parts for v in part.values]
        try:
            R_x = node.op.back(R.values, x, rules.get(node.name), node.shapes, node.shape)
        except LRPError as error:
            raise type(error)(f"layer {node.name!r} ({node.kind}): {error}") from None
        z = values[node.name]
        z = Tensor(z.shape, node.op.expanded(x).forward(x)) if isinstance(node.op, Lrn) else z
        sent, at = [], 0
        for name, part in zip(node.inputs, parts):
            sent.append(Tensor(part.shape, R_x[at : at + len(part.values)]))
            at += len(part.values)
            before = relevance[name].values if name in relevance else [ZERO] * len(part.values)
            relevance[name] = Tensor(part.shape, [a + b for a, b in zip(before, sent[-1].values)])
        one = len(parts) == 1
        steps[node.name] = Step(parts[0] if one else parts, z, R, sent[0] if one else tuple(sent))
    found = {n: relevance.get(n, Tensor(t.shape, [ZERO] * len(t.values))) for n, t in given.items()}
    return Result(found, steps, stays)


def rounding_error(ours: Any, exact: Tensor) -> float:
    """Largest ``|ours - exact|``, relative to the largest ``|exact|`` of the layer.

    Parameters
    ----------
    ours : array or nested lists of numbers, of one sample
    exact : Tensor

    Returns
    -------
    float
        The difference is exact, and rounded once; where all of `exact` is 0: 0, or inf.

    Examples
    --------
    >>> rounding_error([0.5, 0.25], Tensor((2,), [Fraction(1, 2), Fraction(1, 3)]))
    0.16666666666666666
    """
    ours = tensor(ours)
    if ours.shape != exact.shape:
        raise ShapeError(f"ours has shape {ours.shape}, the exact values {exact.shape}")
    most = max((abs(a - b) for a, b in zip(ours.values, exact.values)), default=ZERO)
    scale = max(map(abs, exact.values), default=ZERO)
    return float(most / scale) if scale else math.inf if most else 0.0
