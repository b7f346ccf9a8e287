"""What `explain` settles before it walks: the network, its rules, where to start, what to keep."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import numpy as np

from .bounds import check_range
from .composite import Composite, find_composite, named_layers, one_layer, standardizations
from .conditional import masked
from .errors import LRPError, check_finite, lookup
from .fusion import fused_once
from .layers import Sigmoid, Softmax, Transpose
from .network import Network
from .rules import AbsZ, Pass

NORMALIZATION = {
    "fused": (),
    "linear": (),
    "identity": (("BatchNorm", Pass()),),
    "abs-z": (("BatchNorm", AbsZ()),),
}
"""The treatments of normalization, as entries of a composite; "fused" also changes the network:

fused
    an equivalent network without normalization layers, where that is exact (`numpylrp.fuse`)
linear
    batch normalization is a linear layer, ``y = g x + s``, under the composite's rule
identity
    relevance passes batch normalization unchanged
abs-z
    batch normalization takes the rule `numpylrp.rules.AbsZ` (Hui and Binder 2019)

Under each of them relevance passes what standardizes the input, (x - mean) / std, unchanged where it is not
fused: a rule would divide by pixels that are near the mean.
"""


def prepared(
    network: Network, composite: Any, normalization: str = "fused", **options: Any
) -> tuple[Network, Composite]:
    """The network and the composite that `explain` walks with.

    A layer that the composite gives a rule by its own name is not fused. What standardizes the input is
    passed, but where an entry of a composite of the user's own gives it a rule.
    """
    entries = lookup(NORMALIZATION, normalization, "normalization")
    if normalization == "fused":
        network = fused_once(network, named_layers(composite, network))
    passed = [(one_layer(name), Pass()) for name in standardizations(network)]
    chosen = find_composite(composite, network, **options)
    if isinstance(composite, Composite):
        chosen = Composite((*chosen.entries, *passed), chosen.default)
    else:
        chosen = chosen.preceded(*passed)
    return network, chosen.preceded(*entries)


def checked_range(network: Network, batch: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The batch, unless it lies far outside the range that the model takes (its ``input_range``).

    Refused is what lies further outside than ten times the width of the range, such as pixels of
    0 .. 255 for a model that takes 0 .. 1; noise that was added on purpose does not.
    """
    bounds = network.metadata.get("input_range")
    if bounds is not None and len(batch) == 1:
        check_range(next(iter(batch.values())), bounds, 10.0)
    return batch


def start_of(network: Network, output: str | None, seed: Any) -> str:
    """Where the walk starts: before a softmax or sigmoid at the end of the output, and before the
    transpose after it that channels-last models have, so that classes lie along the first axis.
    """
    at = network.outputs[0] if output is None else output
    if at not in network:
        there = ", ".join(node.name for node in network.nodes)
        raise LRPError(f"there is no output or layer {at!r} in the network walked through; there are {there}")
    if at not in network.outputs:
        return at
    own = not isinstance(seed, str) and not callable(seed)  # an array has the layout of the output
    while isinstance(network[at], Transpose) and not own and network.node(at).inputs[0] in network:
        at = network.node(at).inputs[0]
    if isinstance(network[at], (Softmax, Sigmoid)) and network.node(at).inputs[0] in network:
        at = network.node(at).inputs[0]
    return at


def planned(network: Network, output: str | None, seed: Any, masks: Any, trace: Any) -> tuple:
    """The network with its masks, where the walk starts, and the layers whose arrays are kept."""
    top = start_of(network, output, seed)
    network = masked(network, masks, top) if masks else network
    return network, top, traced_layers(trace, network)


def check_sent(steps: Collection[Any]) -> None:
    """Refuse relevance that is NaN or infinite, with the first layer that sent any."""
    if not np.isfinite(np.concatenate([step.sent for step in steps])).all():
        sends = "sends on: a denominator is too close to 0"
        check_finite(
            (f"the relevance that layer {s.name!r} ({s.kind}, {s.rule}) {sends}", s.sent) for s in steps
        )


def class_names(network: Network, top: str) -> Any:
    """The labels of the classes, where the walk starts from an output, not from a hidden layer."""
    ends = {start_of(network, output, seed) for output in network.outputs for seed in ("logit", None)}
    return network.metadata.get("class_names") if top in ends else None


def traced_layers(trace: Any, network: Network) -> set[str]:
    """The names of the layers whose arrays are kept."""
    if isinstance(trace, (bool, np.bool_)):
        return {node.name for node in network.nodes} if trace else set()
    names = {trace} if isinstance(trace, str) else set(trace)
    for name in names:
        network[name]
    return names
