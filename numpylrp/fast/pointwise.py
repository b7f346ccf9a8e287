"""Work on single values, in pieces that stay in a core's cache, spread over the threads."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from ..layers import Add, ReLU
from ..rules import Epsilon, Rule
from .threads import each

VALUES = 2**16
"""Values of one piece."""


def in_pieces(work: Callable, *arrays: np.ndarray) -> None:
    """Call ``work(*parts)`` for matching parts of some arrays, the last of which it writes to.

    Examples
    --------
    >>> x, y = np.arange(4.0), np.empty(4)
    >>> in_pieces(np.square, x, y)
    >>> y
    array([0., 1., 4., 9.])
    """
    shape, size = arrays[-1].shape, arrays[-1].size
    if size < 2 * VALUES or any(a.shape != shape or not a.flags.c_contiguous for a in arrays):
        work(*arrays)
        return
    flat = [a.reshape(-1) for a in arrays]
    each(
        lambda first: work(*(a[first : first + VALUES] for a in flat)),
        ((first,) for first in range(0, size, VALUES)),
    )


def divided(rule: Any, R: np.ndarray, z: np.ndarray) -> np.ndarray:
    """R over the rule's denominator for z (step 2), and 0 where that is 0."""
    own = type(rule).stabilized
    usual = own is Rule.stabilized or (own is Epsilon.stabilized and not rule.relative)
    z = z if usual else rule.stabilized(z)
    epsilon = rule.epsilon if usual and z.dtype.type(rule.epsilon) else 0.0

    def stabilized(R: np.ndarray, z: np.ndarray, s: np.ndarray) -> None:
        np.add(z, 0.0, out=s)
        np.copysign(epsilon, s, out=s)
        np.add(s, z, out=s)
        np.divide(R, s, out=s)

    def as_it_is(R: np.ndarray, z: np.ndarray, s: np.ndarray) -> None:
        zero = z == 0
        np.divide(R, z + zero if zero.any() else z, out=s)
        if zero.any():
            s *= ~zero

    s = np.empty(np.broadcast_shapes(R.shape, z.shape), np.result_type(R, z))
    in_pieces(stabilized if epsilon else as_it_is, R, z, s)
    return s


def _relu(layer: ReLU, x: np.ndarray) -> np.ndarray:
    y = np.empty_like(x)
    if layer.negative_slope or layer.threshold:
        return ReLU.forward(layer, x)
    if layer.max_value is None:
        in_pieces(lambda x, y: np.maximum(x, 0, out=y), x, y)
    else:
        in_pieces(lambda x, y: np.clip(x, 0, layer.max_value, out=y), x, y)
    return y


def _add_relprop(layer: Any, R: np.ndarray, x: Any, y: np.ndarray, rule: Any = None, note: Any = None) -> Any:
    """Branches get ``x_k s`` under the epsilon rule: nothing need be stacked for that."""
    kind, own = type(rule), type(layer)
    epsilon = kind.propagate is Rule.propagate and kind.shares is Epsilon.shares
    sums = all(getattr(own, name) is getattr(Add, name) for name in ("adjoint", "parameters", "_weights"))
    if not epsilon or not sums or any(branch.shape != y.shape for branch in x):
        return Add.relprop(layer, R, x, y, rule, note)
    s = divided(rule, R, y)
    pieces = []
    for branch in x:
        pieces.append(np.empty_like(s))
        in_pieces(np.multiply, branch, s, pieces[-1])
    return tuple(pieces)


FORWARD: dict[Callable, Callable] = {ReLU.forward: _relu}
"""By the method of the layer that is answered here."""

RELPROP: dict[Callable, Callable] = {Add.relprop: _add_relprop}
