"""The four steps of a rule with fewer products.

Several products of one rule on the same input are one product, on a block of weights: rows of the block
lie one after the other along outputs, columns along inputs. Some rules' denominators come with the
forward pass: those of alpha-beta add up to the output, and z+ and gamma share with it the copies of
windows.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import reduce
from typing import Any

import numpy as np

from ..rules import (
    AbsZ,
    AlphaBeta,
    Epsilon,
    Flat,
    Gamma,
    Part,
    Rule,
    Share,
    WSquare,
    ZBox,
    ZPlus,
    halves,
    same,
)
from .kept import derived
from .pointwise import divided, in_pieces
from .products import Products

RULES = (Epsilon, Gamma, AlphaBeta, ZPlus, WSquare, Flat, ZBox, AbsZ)
"""The rules that the fast path knows, by their `shares`; their stabilizers may be others."""

FEW = 128
"""Outputs up to which copying windows (of more than a pixel) counts beside multiplying them."""


def knows(rule: Rule) -> bool:
    """Whether the rule shares as one of `RULES` does, in the four steps."""
    kind = type(rule)
    return kind.propagate is Rule.propagate and any(kind.shares is known.shares for known in RULES)


@dataclass(frozen=True)
class Block:
    """Several changes of a weight as one: rows along outputs, columns along inputs."""

    rows: tuple[tuple[Callable, ...], ...]

    def __call__(self, w: np.ndarray) -> np.ndarray:
        return np.concatenate([np.concatenate([change(w) for change in row], 1) for row in self.rows])


def changed(weight: np.ndarray, change: Callable) -> np.ndarray:
    """``change(weight)``, computed once for the weight of a layer."""
    return weight if change is same else derived(weight, change)


def block(products: Products, sums: list[list[Part]]) -> Block | None:
    """The change that makes of several sums over the same inputs one product.

    None where there is one product anyway, inputs differ, or weights can't be concatenated.
    """
    if len(sums) == len(sums[0]) == 1 or products.channels_axis is None:
        return None
    if len({part.x.shape for part in sums[0]}) > 1:
        return None  # what is the same for all samples is computed for one
    if any(
        len(parts) != len(sums[0]) or any(a.x is not b.x for a, b in zip(parts, sums[0])) for parts in sums
    ):
        return None
    return Block(tuple(tuple(part.change for part in parts) for parts in sums))


def summed(products: Products, weight: np.ndarray, sums: list[list[Part]]) -> list[np.ndarray]:
    """Step 1: the sum of the products of each of some lists of parts."""
    change = block(products, sums)
    if change is None:
        return [
            reduce(np.add, (products.linear(p.x, changed(weight, p.change), p.bias) for p in parts))
            for parts in sums
        ]
    inputs = [part.x for part in sums[0]]
    x = inputs[0] if len(inputs) == 1 else np.concatenate(inputs, products.channels_axis)
    biases = [[part.bias for part in parts if part.bias is not None] for parts in sums]
    bias = next((some[0] for some in biases if some), None)
    if bias is not None:
        bias = np.concatenate([sum(some) if some else np.zeros_like(bias) for some in biases])
    if len(sums) == 1:
        return [products.linear(x, changed(weight, change), bias)]
    return list(products.several(x, changed(weight, change), bias, len(sums)))


def sent_back(
    products: Products, weight: np.ndarray, s: list[np.ndarray], sums: list[list[Part]], shape: tuple
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Step 3: inputs, and what is sent back to each."""
    change = block(products, sums)
    if change is None:
        for one, parts in zip(s, sums):
            for part in parts:
                yield part.x, products.adjoint(one, changed(weight, part.change), shape)
        return
    count, axis = len(sums[0]), products.channels_axis
    together = s[0] if len(s) == 1 else np.concatenate(s, axis)
    wide = list(shape)
    wide[axis if axis < 0 else axis - 1] *= count
    c = products.adjoint(together, changed(weight, change), tuple(wide))
    yield from zip((part.x for part in sums[0]), np.split(c, count, axis) if count > 1 else [c])


def forward(rule: Any, products: Products, x: np.ndarray) -> tuple[np.ndarray, list[np.ndarray]] | None:
    """The layer's output and the denominators of the rule's first shares, where that saves work.

    The rounding error of an output that is the sum of alpha-beta's denominators is relative to the sum of
    all |z_ij|, as the bound of any order of summing.
    """
    kind, layer = type(rule), products.layer
    if kind.propagate is not Rule.propagate:
        return None
    weight, bias = products.parameters(x.shape[1:])
    if kind.shares is AlphaBeta.shares:
        sums = [parts for _, _, parts in rule.sums(products, x)]
        if rule.alpha and rule.beta and (rule.bias or bias is None):
            z = summed(products, weight, sums)
            return np.add(*z), z
    elif kind.shares is Gamma.shares:
        sums = [rule.favoured(products, x.shape[1:], halves(x), 1)]
    else:
        return None
    windows = weight.ndim > 2 and weight[0, 0].size > 1 and len(layer.weight) <= FEW
    both = [[Part(x, bias=bias)], *sums]
    if not windows or block(products, both) is None:
        return None
    y, *z = summed(products, weight, both)
    return y, z


def propagate(
    rule: Rule,
    products: Products,
    R: np.ndarray,
    x: np.ndarray,
    y: np.ndarray,
    known: list[np.ndarray] | None = None,
) -> np.ndarray:
    """As `Rule.propagate`; `known` are denominators of the first shares, from `forward`."""
    shape = x.shape[1:]
    weight, _ = products.parameters(shape)
    shares: list[Share] = list(rule.shares(products, R, x, y))
    sums = [share.parts for share in shares]
    found = iter(known or ())
    z = [next(found, share.z) for share in shares]
    if missing := [parts for parts, one in zip(sums, z) if one is None]:
        found = iter(summed(products, weight, missing))
    s = [divided(rule, share.R, next(found) if one is None else one) for share, one in zip(shares, z)]
    R_x: Any = None
    for part_x, c in sent_back(products, weight, s, sums, shape):
        in_pieces(np.multiply, part_x, c, c)
        if R_x is None:
            R_x = c
        else:
            in_pieces(np.add, R_x, c, R_x)
    return R_x
