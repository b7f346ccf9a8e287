"""Layers on the concatenated flat lists of their inputs, and which kind of layer is which of them."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from fractions import Fraction
from itertools import product
from typing import Any

from ...errors import LRPError, ShapeError, UnsupportedError
from .rules import attributed, spread
from .tensors import ONE, ZERO, Shape, Values, along, broadcast, flat_index, positions, size, tensor


def kind_of(layer: Any) -> str:
    """The kind that a layer is, or inherits from without a definition of its own."""
    for kind in type(layer).__mro__:
        if kind.__module__.startswith("numpylrp.") and kind.__name__ in KINDS:
            return kind.__name__
        if {"forward", "relprop", "linear", "parameters"} & vars(kind).keys():
            break
        if "scale_and_shift" in vars(kind):
            return "Diagonal"
    name = type(layer).__name__
    return f"own {name}" if name in KINDS else name


@dataclass(frozen=True)
class Rows:
    """``y_j = sum_i w_ji x_i + b_j``, in a sum or concatenation of branches over all of them."""

    rows: list[dict[int, Fraction]]
    bias: Values
    ins: list[int] = field(default_factory=list)
    outs: list[int] = field(default_factory=list)
    """For each input and output unit its channel: those of one channel share weights."""
    from_after: str = "absorb"
    from_before: str = "absorb"
    """What becomes of a scale and shift that comes from after, or from before: it is absorbed,
    passed on (by a pooling; into the "branches" by a sum), or refused.
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
        if type(rule).__name__ == "RelativeAttribution":
            return attributed(rule, self.rows, x, R)
        bounds: Any = [], []
        if type(rule).__name__ == "ZBox":
            if len(shapes) > 1:
                raise UnsupportedError("the oracle has no z^B rule for sums of branches")
            bounds = tuple(broadcast(v, shapes[0], channels=True) for v in (rule.low, rule.high))
        shares = (spread(rule, row, b, x, r, bounds) for row, b, r in zip(self.rows, self.bias, R))
        return _sum(shares, len(x))


class Scales(Rows):
    """A diagonal layer: unit i reads unit i."""


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

    def back(self, R: Values, x: Values, rule: Any = None, *_: Any) -> Values:
        kind = type(rule).__name__
        if kind not in ("NoneType", "Uniform", "SignalTakesAll"):
            raise UnsupportedError(f"the oracle does not know the rule {rule!r} for a product")
        signal = None if kind == "Uniform" else self.signal
        takers = [u if signal is None else [u[signal]] for u in self.factors]
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


@dataclass(frozen=True)
class Held:
    """Values unchanged, relevance times a factor each."""

    factors: Values

    def forward(self, x: Values) -> Values:
        return list(x)

    def back(self, R: Values, *_: Any) -> Values:
        return [r * f for r, f in zip(R, self.factors)]


class Top:
    """A softmax or sigmoid at the end, which the seed leaves out."""


# ---------------------------------------------------------------- what each kind of layer is


def _dense(layer: Any, shape: Shape) -> tuple[Any, Shape]:
    w, b = tensor(layer.weight), _bias(layer, layer.weight.shape[0])
    out = (*shape[:-1], w.shape[0])
    rows = [
        {flat_index((*at, i), shape): w[o, i] for i in range(shape[-1])} for *at, o in positions(out)
    ]  # on the last axis of any array
    return Rows(rows, [b[at[-1]] for at in positions(out)], along(shape, -1), along(out, -1)), out


def _bias(layer: Any, n: int) -> Values:
    return [ZERO] * n if layer.bias is None else tensor(layer.bias).values


def _axis(n: int, k: int, step: int, dilation: int, padding: Any, ceil: bool) -> tuple:
    """The taps' positions of each window along one axis, and how far padding reaches."""
    span = dilation * (k - 1) + 1
    if isinstance(padding, str):
        total = max((-(-n // step) - 1) * step + span - n, 0)
        less, more = total // 2, total - total // 2
        before, after = (less, more) if padding == "same" else (more, less)
    else:
        before, after = padding
    windows: list[list[int]] = []
    start = -before
    # with ceil, one more window where those before left something over and it starts inside
    while start + span <= n + after or (ceil and windows and start < n and start - step + span < n + after):
        windows.append([start + dilation * t for t in range(k)])
        start += step
    return windows, (-before, n + after)


def _windows(layer: Any, size: Shape, kernel: Shape) -> tuple[dict[Shape, list], list[tuple[int, int]]]:
    """For each output position all (tap, input position), padding included; and its reach."""
    rank = len(size)
    paddings = [layer.padding] * rank if isinstance(layer.padding, str) else layer.padding
    dilations, ceil = getattr(layer, "dilation", (1,) * rank), getattr(layer, "ceil", False)
    axes = [_axis(*a, ceil) for a in zip(size, kernel, layer.stride, dilations, paddings)]
    found = {}
    for out in positions(len(windows) for windows, _ in axes):
        each = [windows[p] for (windows, _), p in zip(axes, out)]
        found[out] = [(tap, tuple(at[t] for at, t in zip(each, tap))) for tap in positions(kernel)]
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
    links: dict[Shape, list] = {at: [] for at in positions(out)}
    for source, taps in _windows(layer, tuple(out), kernel)[0].items():
        for tap, at in taps:
            if at in links:
                links[at].append((tap, source))
    return links


def _conv(layer: Any, shape: Shape) -> tuple[Any, Shape]:
    w, (c, *size), groups = tensor(layer.weight), shape, layer.groups
    kernel, image = w.shape[2:], [(0, n) for n in size]
    transposed = kind_of(layer) == "Conv2DTranspose"
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
                    row[flat_index((channel, *at), shape)] = w[index]
            rows.append(row)
            met = [] if taps is None else [taps[(o, *tap)] for tap, at in link if _inside(at, counted)]
            bias.append(sum(met, b[o]))
    out = (outputs, *(n + 1 for n in max(links)))
    return Rows(rows, bias, along(shape, 0), along(out, 0)), out


def _pool(layer: Any, shape: Shape) -> tuple[Any, Shape]:
    found, reach = _windows(layer, shape[1:], layer.kernel)
    image = [(0, n) for n in shape[1:]]
    out = (shape[0], *(n + 1 for n in max(found)))
    windows, counts = [], []
    for c in range(shape[0]):
        for taps in found.values():
            windows.append([flat_index((c, *at), shape) for _, at in taps if _inside(at, image)])
            counts.append(sum(_inside(at, reach) for _, at in taps))
    ins, outs = along(shape, 0), along(out, 0)
    kind = kind_of(layer)
    if kind.startswith("Max"):
        return Pick(windows, _signs(layer, outs), ins, outs), out
    padded = isinstance(layer.padding, str) or any(map(any, layer.padding))
    if kind.startswith("Sum"):
        weights = [ONE] * len(windows)
        even = not padded and not layer.ceil
        from_after = "refuse"
    else:
        counts = counts if layer.count_padding else list(map(len, windows))
        weights = [Fraction(1, n) for n in counts]
        even = not padded or not layer.count_padding
        from_after = "pass" if even else "refuse"
    # an uneven pooling dilutes a shift at the border: it takes scale and shift in
    from_before = "pass" if even else "refuse" if layer.ceil else "absorb"
    rows = [dict.fromkeys(window, w) for window, w in zip(windows, weights)]
    return Rows(rows, [ZERO] * len(rows), ins, outs, from_after, from_before), out


def _signs(layer: Any, channels: list[int]) -> list[int]:
    return [1 if layer.sign is None else int(layer.sign[c]) for c in channels]


def _global(layer: Any, shape: Shape) -> tuple[Any, Shape]:
    n = size(shape[1:])
    windows = [list(range(c * n, (c + 1) * n)) for c in range(shape[0])]
    ins, outs = along(shape, 0), list(range(shape[0]))
    out = (shape[0], *(1,) * (len(shape) - 1)) if layer.keepdims else shape[:1]
    kind = kind_of(layer)
    if kind == "GlobalMaxPool":
        return Pick(windows, _signs(layer, outs), ins, outs), out
    mean = kind == "GlobalAveragePool"
    rows = [dict.fromkeys(window, Fraction(1, n) if mean else ONE) for window in windows]
    return Rows(rows, [ZERO] * shape[0], ins, outs, "pass" if mean else "refuse", "pass"), out


def _adaptive(layer: Any, shape: Shape) -> tuple[Any, Shape]:
    """Window i of o reaches from floor(i n / o) to ceil((i + 1) n / o)."""
    out, rows = (shape[0], *layer.size), []
    for c, *at in positions(out):
        seen = [range(i * n // o, -(-(i + 1) * n // o)) for i, n, o in zip(at, shape[1:], layer.size)]
        window = [flat_index((c, *p), shape) for p in product(*seen)]
        rows.append(dict.fromkeys(window, Fraction(1, len(window))))
    return Rows(rows, [ZERO] * len(rows), along(shape, 0), along(out, 0), "pass", "pass"), out


def _interpolation(layer: Any, shape: Shape) -> tuple[Any, Shape]:
    """Between the two values next to each position, on each axis."""
    out, rows = (shape[0], *layer.size), []
    for c, *at in positions(out):
        axes = []
        for i, n, o in zip(at, shape[1:], layer.size):
            p = {
                "half_pixel": Fraction(2 * i + 1, 2 * o) * n - Fraction(1, 2),
                "align_corners": Fraction(i * (n - 1), max(o - 1, 1)),
                "asymmetric": Fraction(i * n, o),
            }[layer.places]
            p = min(max(p, ZERO), Fraction(n - 1))
            k = math.floor(p)
            axes.append([(k, k + 1 - p), (k + 1, p - k)][: n - k])
        corners = [list(zip(*ends)) for ends in product(*axes)]
        rows.append({flat_index((c, *at), shape): math.prod(w) for at, w in corners})
    return Rows(rows, [ZERO] * len(rows), along(shape, 0), along(out, 0), "pass", "pass"), out


def _root(v: Fraction) -> Fraction:
    root = Fraction(math.isqrt(v.numerator), math.isqrt(v.denominator))
    if root**2 != v:
        raise UnsupportedError(f"the root of variance + eps = {float(v)!r} is not rational")
    return root


def _batch_norm(layer: Any, shape: Shape) -> tuple[Any, Shape]:
    channels = along(shape, layer.axis)

    def per_unit(name: str, default: int) -> Values:
        values = [Fraction(default)] if getattr(layer, name) is None else tensor(getattr(layer, name)).values
        return [values[c if len(values) > 1 else 0] for c in channels]

    roots = [_root(v + Fraction(layer.eps)) for v in per_unit("variance", 1)]
    g = [v / root for v, root in zip(per_unit("gamma", 1), roots)]
    s = [b - f * m for b, f, m in zip(per_unit("beta", 0), g, per_unit("mean", 0))]
    return Scales([{i: f} for i, f in enumerate(g)], s, channels, channels), shape


def _diagonal(layer: Any, shape: Shape) -> tuple[Any, Shape]:
    """Of a kind that says itself what g and s are."""
    channels = along(shape, layer.axis)
    g, s = (tensor(a).values for a in layer.scale_and_shift())
    g, s = ([values[c if len(values) > 1 else 0] for c in channels] for values in (g, s))
    return Scales([{i: f} for i, f in enumerate(g)], s, channels, channels), shape


def _lrn(layer: Any, shape: Shape) -> tuple[Any, Shape]:
    if layer.beta != int(layer.beta):
        raise UnsupportedError(f"a power of {layer.beta} is not rational")
    before = layer.size // 2 if layer.before is None else layer.before
    reach, rank = range(-before, layer.size - before), len(shape) - 1
    steps = [(0, *s) for s in product(reach, repeat=rank)] if layer.within else None
    steps = steps or [(s, *(0,) * rank) for s in reach]
    windows = []
    for position in positions(shape):
        near = [tuple(p + s for p, s in zip(position, step)) for step in steps]
        windows.append([flat_index(at, shape) for at in near if _inside(at, [(0, n) for n in shape])])
    a = Fraction(layer.alpha) / (len(steps) if layer.average else 1)
    return Lrn(windows, a, int(layer.beta), Fraction(layer.k)), shape


def _relu(v: Fraction, layer: Any) -> Fraction:
    below = Fraction(layer.threshold)
    y = v if v >= below else Fraction(layer.negative_slope) * (v - below)
    return y if layer.max_value is None else min(y, Fraction(layer.max_value))


def _clip(v: Fraction) -> Fraction:
    return min(max(v, ZERO), ONE)


def _activation(layer: Any, shape: Shape) -> tuple[Any, Shape]:
    kind = kind_of(layer)
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
        return Threshold(broadcast(layer.sign, shape), broadcast(layer.value, shape)), shape
    given = layer.negative_slope if kind == "LeakyReLU" else layer.slope
    slopes = broadcast(given, shape, channels=True)
    return Each(lambda i, v: v if v >= 0 else slopes[i] * v), shape


def _move(layer: Any, shape: Shape) -> tuple[Any, Shape]:
    kind = kind_of(layer)
    out, edge = shape, {}
    order: list[int | None] = [*range(size(shape))]
    if kind == "Flatten":
        out = (size(shape),)
    elif kind == "Reshape":
        rest = size(shape) // abs(size(layer.shape))
        out = tuple(rest if n == -1 else n for n in layer.shape)
    elif kind == "Transpose":
        out = tuple(shape[a] for a in layer.axes)
        order = [
            flat_index((at[layer.axes.index(a)] for a in range(len(at))), shape) for at in positions(out)
        ]
    elif kind == "Slice":
        kept = [range(n)[a:b:c] for n, a, b, c in zip(shape, layer.start, layer.stop, layer.step)]
        out = tuple(map(len, kept))
        order = [flat_index(at, shape) for at in product(*kept)]
    elif kind == "UpSampling":
        out = tuple(n * k for n, k in zip(shape, layer.size))
        order = [flat_index((p // k for p, k in zip(at, layer.size)), shape) for at in positions(out)]
    elif kind == "CopyPadding":
        reach = {"edge": lambda p, n: min(max(p, 0), n - 1), "wrap": lambda p, n: p % n}
        reach["reflect"] = lambda p, n: -p if p < 0 else 2 * n - 2 - p if p >= n else p
        reach["symmetric"] = lambda p, n: -p - 1 if p < 0 else 2 * n - 1 - p if p >= n else p
        out = tuple(n + a + b for n, (a, b) in zip(shape, layer.padding))
        source = reach[layer.mode]
        order = [
            flat_index((source(p - a, n) for p, (a, _), n in zip(at, layer.padding, shape)), shape)
            for at in positions(out)
        ]
    elif kind == "ZeroPadding":
        out = tuple(n + a + b for n, (a, b) in zip(shape, layer.padding))
        order = []
        for j, position in enumerate(positions(out)):
            at = [p - a for p, (a, _) in zip(position, layer.padding)]
            near = [min(max(p, 0), n - 1) for p, n in zip(at, shape)]
            order.append(flat_index(at, shape) if near == at else None)
            if near != at:
                edge[j] = flat_index(near, shape), [a for a in range(len(at)) if at[a] != near[a]]
    return Move(order, edge), out


def _merge(layer: Any, *shapes: Shape) -> tuple[Any, Shape]:
    kind = kind_of(layer)
    starts = [sum(map(size, shapes[:k])) for k in range(len(shapes))]
    if kind == "Concatenate":
        axis = layer.axis % len(shapes[0])
        full = (*shapes[0][:axis], sum(s[axis] for s in shapes), *shapes[0][axis + 1 :])
        order: list[int | None] = []
        for at in positions(full):
            k, p = 0, at[axis]
            while p >= shapes[k][axis]:
                p, k = p - shapes[k][axis], k + 1
            order.append(starts[k] + flat_index((*at[:axis], p, *at[axis + 1 :]), shapes[k]))
        return Move(order), full
    out = tuple(map(max, zip(*shapes)))
    units = [
        [
            start + flat_index((p if n > 1 else 0 for p, n in zip(at, s)), s)
            for start, s in zip(starts, shapes)
        ]
        for at in positions(out)
    ]
    if kind == "Multiply":
        return Gate(units, layer.signal), out
    if kind in ("Maximum", "Minimum"):
        return Pick(units, [1 if kind == "Maximum" else -1] * len(units)), out
    n = len(shapes)
    weights = {"Add": [ONE] * n, "Average": [Fraction(1, n)] * n, "Subtract": [ONE, -ONE]}[kind]
    from_after = "branches" if len(set(shapes)) == 1 else "refuse"
    rows = [dict(zip(u, weights, strict=True)) for u in units]
    return Rows(rows, [ZERO] * len(rows), from_after=from_after, from_before=from_after), out


def _mask(layer: Any, shape: Shape) -> tuple[Any, Shape]:
    return Held(broadcast(layer.mask, shape, channels=True)), shape


KINDS: dict[str, Callable[..., tuple[Any, Shape]]] = {
    "Mask": _mask,
    "Dense": _dense,
    **{f"{kind}{rank}D": _conv for kind in ("Conv", "ScaledPool") for rank in (1, 2, 3)},
    "Conv2DTranspose": _conv,
    **{f"{kind}Pool{rank}D": _pool for kind in ("Max", "Sum", "Average") for rank in (1, 2, 3)},
    **dict.fromkeys(("GlobalMaxPool", "GlobalSumPool", "GlobalAveragePool"), _global),
    "BatchNorm": _batch_norm,
    "Diagonal": _diagonal,
    "AdaptiveAveragePool": _adaptive,
    "Interpolation": _interpolation,
    "LRN": _lrn,
    **dict.fromkeys(("ReLU", "LeakyReLU", "PReLU", "Threshold"), _activation),
    **dict.fromkeys(("HardSigmoid", "HardSwish", "Clip"), _activation),
    **dict.fromkeys(("Identity", "Dropout", "Flatten", "Reshape", "Transpose"), _move),
    **dict.fromkeys(("ZeroPadding", "CopyPadding", "Slice", "UpSampling"), _move),
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


def exact_nodes(network: Any, shapes: dict[str, Shape]) -> dict[str, Node]:
    nodes, shapes = {}, dict(shapes)
    for node in network.nodes:
        kind, given = kind_of(node.layer), [shapes[name] for name in node.inputs]
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
