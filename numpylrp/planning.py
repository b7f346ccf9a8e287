"""What `explain` settles before it walks: the network, its rules, where to start, what to keep."""

from __future__ import annotations

from typing import Any

import numpy as np

from .bounds import check_range
from .composite import Composite, find_composite, named_layers, one_layer, standardizations
from .errors import LRPError, lookup
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
    if at not in network.outputs:
        raise LRPError(f"there is no output {at!r}; there are {', '.join(network.outputs)}")
    own = not isinstance(seed, str) and not callable(seed)  # an array has the layout of the output
    while isinstance(network[at], Transpose) and not own and network.node(at).inputs[0] in network:
        at = network.node(at).inputs[0]
    if isinstance(network[at], (Softmax, Sigmoid)) and network.node(at).inputs[0] in network:
        at = network.node(at).inputs[0]
    return at


def traced_layers(trace: Any, network: Network) -> set[str]:
    """The names of the layers whose arrays are kept."""
    if isinstance(trace, (bool, np.bool_)):
        return {node.name for node in network.nodes} if trace else set()
    names = {trace} if isinstance(trace, str) else set(trace)
    for name in names:
        network[name]
    return names
