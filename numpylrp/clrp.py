"""Contrastive LRP: what speaks for a class and not for its dual (Gu et al. 2018)."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np

from .composite import weighted
from .errors import LRPError

Relevance = dict[str, np.ndarray]


def contrast(walk: Any, top: str, seed: str, R: np.ndarray, relevance: Relevance) -> Relevance:
    """The positive part of the difference between the target's relevance and its dual's.

    For the seed "clrp1" the difference is in the seed already, since rules are linear in R
    (`numpylrp.seed.contrastive`). For "clrp2" the dual is the target with the weights of the output
    layer negated: the walk is made a second time from there.

    Parameters
    ----------
    walk : numpylrp.explanation.Walk
    top : str
        The layer whose output is explained.
    seed : "clrp1" or "clrp2"
    R : (N, *output) array
        The relevance that the walk started from.
    relevance : dict of array
        What the inputs got.
    """
    if seed == "clrp2":
        dual, _ = walk.back(_negated(walk, top, R))
        same = all(np.array_equal(relevance[name], dual[name]) for name in relevance)
        if same and any(value.any() for value in relevance.values()):
            raise LRPError(
                "clrp2 finds no difference between the target and its dual: the rule of the last layer "
                "looks at z_ij / z_j, which negated weights leave as it is; give it z+ or alpha-beta"
            )
        relevance = {name: relevance[name] - dual[name] for name in relevance}
    return {name: np.maximum(value, 0) for name, value in relevance.items()}


def _negated(walk: Any, top: str, R: np.ndarray) -> Relevance:
    """The same relevance of the output, sent back through the output layer with its weights negated."""
    nodes = weighted(walk.network)
    if not nodes or nodes[-1].name != top:
        kind = type(walk.network[top]).__name__
        raise LRPError(f"clrp2 negates the weights of the output layer, but {top!r} is a {kind}")
    node = nodes[-1]
    own: Any = node.layer
    layer = dataclasses.replace(own, weight=-own.weight, bias=None if own.bias is None else -own.bias)
    x, y = walk.values[node.inputs[0]], walk.values[node.name]
    return {node.inputs[0]: layer.relprop(R, x, -y, walk.rules[node.name])}
