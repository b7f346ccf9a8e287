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
    elif kind == "AbsZ":
        c = {i: abs(v) for i, v in c.items()}
        return _over(R, c, sum(c.values(), abs(bias)), eps)
    else:
        raise UnsupportedError(f"the oracle does not know the rule {rule!r}")
    return _over(R, c, sum(c.values(), ZERO), eps)
