"""Pruned LRP: small relevance between layers is set to 0 (Yanez Sarmiento et al. 2024)."""

from __future__ import annotations

from copy import copy
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from .composite import ends, weighted
from .errors import LRPError
from .rules import Rule


@dataclass(frozen=True)
class Prune:
    """How much relevance is pruned between layers; the option ``prune`` of `numpylrp.explain`.

    Of what a dense or convolutional layer sends to its inputs, of each sample, theta+ is the largest value
    for which all positive values up to it (ties included) sum to at most ``p`` of the positive sum, and
    theta- the same for what is negative, in absolute values, with ``negative``. What lies between is set to
    0. What the first layers send, the relevance of the input, is not pruned.

    Parameters
    ----------
    p : float
        0 <= p < 1; 0 prunes nothing.
    negative : float, optional
        Default: p / 2.
    again : bool
        False (PLRP-lambda): what is left is multiplied so that the positive and the negative sum are each
        kept. True (PLRP-M): from an unpruned walk the mask of what is left is kept, and the rule then shares
        among the inputs that are left, as if the others were 0 (the paper's formula, recalled, has no bias;
        here the bias does what it does in the rule).

    Examples
    --------
    >>> Prune(0.3).kept(np.array([[5.0, 1.0, 1.0, -3.0, -0.25]]))
    array([[ True, False, False,  True, False]])
    """

    p: float
    negative: float | None = None
    again: bool = False

    def __post_init__(self) -> None:
        for name, value in (("p", self.p), ("negative", 0.0 if self.negative is None else self.negative)):
            if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value < 1:
                raise LRPError(f"Prune: {name} must be a number of at least 0 and below 1, not {value!r}")

    def kept(self, R: np.ndarray) -> np.ndarray:
        """Which values of each sample are left, (N, ...) bool."""
        flat = R.reshape(len(R), -1)
        below = self.p / 2 if self.negative is None else self.negative
        left = _large(np.maximum(flat, 0), self.p) | _large(np.maximum(-flat, 0), below)
        return left.reshape(R.shape)

    def pruned(self, R: np.ndarray) -> np.ndarray:
        """R with what is small set to 0; the sums of what is positive and of what is negative are kept.

        Examples
        --------
        >>> Prune(0.25).pruned(np.array([[5.0, 2.0, 1.0, -3.0]]))
        array([[ 5.71428571,  2.28571429,  0.        , -3.        ]])
        """
        left = R * self.kept(R)
        axes = tuple(range(1, R.ndim))
        for sign in (1, -1):
            before = np.where(R * sign > 0, R, 0).sum(axes, keepdims=True)
            after = np.where(left * sign > 0, left, 0).sum(axes, keepdims=True)
            factor = np.where(after == 0, 1, before / np.where(after == 0, 1, after))
            left = np.where(left * sign > 0, left * factor, left)
        return left.astype(R.dtype, copy=False)

    def walk(self, walk: Any, top: str, target: Any, seed: Any) -> Any:
        """What `numpylrp.explanation.Walk.explain` gives, pruned."""
        first = ends(walk.network, last=False)
        names = [node.name for node in weighted(walk.network) if node.name not in first]
        second, masks = copy(walk), {}
        if self.again:
            seen: dict[str, Any] = {}
            unpruned = copy(walk)
            unpruned.traced, unpruned.watch = (), lambda node, *arrays: seen.update({node.name: arrays[-1]})
            unpruned.explain(top, target, seed)
            masks = {name: self.kept(seen[name]) for name in names if name in seen}
        some = names if not self.again else masks
        second.rules = {**walk.rules, **{n: PrunedRule(walk.rules[n], self, masks.get(n)) for n in some}}
        return second.explain(top, target, seed)


def _large(values: np.ndarray, part: float) -> np.ndarray:
    """Which of the values (at least 0) of each row are not among the small ones that sum to `part`."""
    ranked = np.sort(values, axis=1)
    total = np.cumsum(ranked, axis=1)
    ends = np.ones(values.shape, bool)  # of values that are equal, all or none
    ends[:, :-1] = ranked[:, :-1] != ranked[:, 1:]
    theta = np.where(ends & (total <= part * total[:, -1:]), ranked, 0).max(axis=1, keepdims=True)
    return values > theta


@dataclass(frozen=True, repr=False, eq=False)
class PrunedRule(Rule):
    """A rule whose relevance is pruned before it goes on."""

    rule: Rule
    prune: Prune
    left: np.ndarray | None = None
    """Of PLRP-M: which inputs are left."""
    shown: ClassVar = ("rule",)

    def propagate(self, layer, R, x, y, note=None):
        if self.left is None:
            return self.prune.pruned(self.rule.propagate(layer, R, x, y, note))
        x = x * self.left
        return self.rule.propagate(layer, R, x, layer.linear(x, *layer.parameters(x.shape[1:])), note)

    def __repr__(self) -> str:
        return f"{self.rule}, pruned {self.prune.p:g}"
