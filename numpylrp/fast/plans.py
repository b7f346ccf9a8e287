"""What is settled once for a network and a composite, and how many samples a thread walks with."""

from __future__ import annotations

from collections.abc import Mapping
from types import NoneType
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np

from ..batches import sample_bytes
from ..composite import PRESETS
from ..network import Network
from ..planning import prepared
from ..rules import AlphaBeta, Gamma, Rule
from .threads import thread_count

WALK = 2**25
"""Bytes of activations that are worth a walk of their own."""

_settled: WeakKeyDictionary[Network, dict] = WeakKeyDictionary()


def settled(
    network: Network, composite: Any, normalization: str, options: Mapping[str, Any]
) -> tuple[Network, dict[str, Rule]]:
    """The network to walk through and the rule of each layer; those of a preset are worked out once."""
    bounds = network.metadata.get("input_range")
    bounds = tuple(bounds) if isinstance(bounds, (list, tuple)) else (bounds,)
    numbers = all(isinstance(value, (int, float, NoneType)) for value in (*options.values(), *bounds))
    known: dict = _settled.setdefault(network, {})
    key = (composite, normalization, *sorted(options.items()), bounds) if numbers else None
    if not isinstance(composite, str) or key is None:
        walked, chosen = prepared(network, composite, normalization, **options)
        return walked, chosen.rules(walked)
    if key not in known or known[key][0] is not PRESETS.get(composite):
        walked, chosen = prepared(network, composite, normalization, **options)
        own = walked is network  # itself would keep it alive
        known[key] = PRESETS.get(composite), None if own else walked, chosen.rules(walked)
    _, walked, rules = known[key]
    return network if walked is None else walked, rules


def needed(network: Network, batch: Mapping[str, np.ndarray], rules: Mapping[str, Rule]) -> int:
    """Bytes of one sample's activations, and of the denominators that are kept with them."""
    kept = {name: 2 * isinstance(rule, AlphaBeta) + isinstance(rule, Gamma) for name, rule in rules.items()}
    return sample_bytes(network, batch, kept)


def each_walk(network: Network, batch: Mapping[str, np.ndarray], size: int) -> int:
    """Samples that one thread walks with, where `size` may be in memory: few enough to stay near the
    processor, many enough to outweigh the weights, which every walk reads, and the walking itself.
    """
    if size < thread_count() or thread_count() == 1:
        return size
    bytes_each = sample_bytes(network, batch, {})
    if size * bytes_each < WALK // 4:
        return size
    weights = sum(a.nbytes for node in network.nodes for a in node.layer.arrays().values())
    walks = -(-size * bytes_each // max(weights, WALK))
    walks = -(-walks // thread_count()) * thread_count()  # as many for each thread
    return -(-size // walks)
