"""The rules, for one output unit at a time (equations and sources: `numpylrp.rules`)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from fractions import Fraction
from typing import Any

from ...errors import UnsupportedError
from .tensors import ONE, ZERO, Values


def plus(v: Fraction) -> Fraction:
    return max(v, ZERO)


def _minus(v: Fraction) -> Fraction:
    return min(v, ZERO)


def _over(R: Fraction, c: Mapping[int, Fraction], z: Fraction, eps: Fraction) -> dict[int, Fraction]:
    """``c_i / (z + eps sign(z)) R`` with sign(0) = +1; 0/0 is 0."""
    z = z + eps if z >= 0 else z - eps
    return {i: v / z * R for i, v in c.items()} if z else {}


def spread(
    rule: Any,
    row: Mapping[int, Fraction],
    bias: Fraction,
    x: Sequence[Fraction],
    R: Fraction,
    bounds: tuple[Values, Values] = ([], []),
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
    bounds : (low, high)
        For the z^B rule: bounds of all inputs.

    Examples
    --------
    >>> from numpylrp.rules import Gamma
    >>> spread(Gamma(1.0), {0: Fraction(1), 1: Fraction(-1)}, Fraction(0), [3, 1], Fraction(5))
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
        gamma, part = Fraction(rule.gamma), plus if z >= 0 else _minus
        c = {i: v + gamma * part(v) for i, v in c.items()}
        return _over(R, c, sum(c.values(), bias + gamma * part(bias)), eps)
    if kind in ("AlphaBeta", "ZPlus"):
        total = dict.fromkeys(row, ZERO)
        for factor, part in ((Fraction(rule.alpha), plus), (-Fraction(rule.beta), _minus)):
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
        c = {i: v - low[i] * plus(row[i]) - high[i] * _minus(row[i]) for i, v in c.items()}
    elif kind == "ImageBox":
        least, most = min(x), max(x)
        c = {i: v - least * plus(row[i]) - most * _minus(row[i]) for i, v in c.items()}
    elif kind == "AbsLRP":
        c = {i: abs(v) for i, v in c.items()}
    elif kind == "AbsZ":
        c = {i: abs(v) for i, v in c.items()}
        return _over(R, c, sum(c.values(), abs(bias)), eps)
    else:
        raise UnsupportedError(f"the oracle does not know the rule {rule!r}")
    return _over(R, c, sum(c.values(), ZERO), eps)


def attributed(rule: Any, rows: Sequence[Mapping[int, Fraction]], x: Values, R: Values) -> Values:
    """A step of RAP, `numpylrp.attributing.RelativeAttribution`, for all outputs of a layer.

    Examples
    --------
    >>> from numpylrp.attributing import RelativeAttribution
    >>> rows = [{0: Fraction(1), 1: Fraction(-1)}, {1: Fraction(1)}]
    >>> attributed(RelativeAttribution(), rows, [Fraction(3), Fraction(1)], [Fraction(4), Fraction(2)])
    [Fraction(7, 2), Fraction(5, 2)]
    """
    if rule.doubled and min(x) < 0 < max(x):
        sides = [[plus(v) for v in x], [plus(-v) for v in x]]
    else:
        sides = [[abs(v) for v in x] if rule.doubled else x]
    found = [ZERO] * len(x)
    for side in sides:
        C = [ZERO] * len(x)
        for row, r in zip(rows, R):
            z = {i: side[i] * w for i, w in row.items()}
            P, N = sum(map(plus, z.values())), -sum(map(_minus, z.values()))
            for i, v in z.items():
                first = v if r >= 0 or not rule.inhibiting else -v
                below = P if r >= 0 or not rule.inhibiting else N
                if below:
                    C[i] += plus(first) / below * r
                if P + N:
                    C[i] += plus(-v) / (P + N) * r
        on = [c != 0 for c in C]
        shift = (sum(C, ZERO) - sum(R, ZERO)) / sum(on) if any(on) else ZERO
        found = [f + c - shift if o else f for f, c, o in zip(found, C, on)]
    return found


def large(R: Values, positive: Fraction, negative: Fraction) -> list[bool]:
    """What pruning leaves (`numpylrp.pruning.Prune`).

    Examples
    --------
    >>> large([Fraction(5), Fraction(1), Fraction(-2)], Fraction(1, 4), Fraction(1, 8))
    [True, False, True]
    """
    left = []
    for r in R:
        some = [abs(v) for v in R if v * r > 0]
        upto = sum(v for v in some if v <= abs(r))
        left.append(r != 0 and upto > (positive if r > 0 else negative) * sum(some))
    return left


def pruned(R: Values, positive: Fraction, negative: Fraction) -> Values:
    """PLRP-lambda: what is left, with the sum of each sign kept."""
    left = [r if ok else ZERO for r, ok in zip(R, large(R, positive, negative))]
    factor = {}
    for sign in (1, -1):
        below = sum(v for v in left if v * sign > 0)
        factor[sign] = sum(v for v in R if v * sign > 0) / below if below else ONE
    return [v * factor[1 if v > 0 else -1] for v in left]
