"""Error bounds of the vectors with attention and recurrent layers: the oracle on numbers that carry errors.

`numpylrp.validate.exact.sequences.Running` bounds what floating point makes of each operation.
An implementation computes sigmoids, exponentials and roots by itself, from pre-activations with errors: each
counts with its slope, and four roundings.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from ..network import Network
from ..rules import Rule
from . import exact
from .exact.layers import exact_nodes
from .exact.sequences import Running, SampleNorm, Unrolled
from .exact.tensors import Tensor
from .exact.walk import record


def has_sequences(network: Network, x: Mapping[str, np.ndarray]) -> bool:
    """Whether the network has a layer of `numpylrp.validate.exact.sequences`."""
    shapes = {name: value.shape for name, value in x.items()}
    nodes = exact_nodes(network, shapes).values()
    return any(type(node.op).__module__ == Unrolled.__module__ for node in nodes)


def recorded(network: Network, x: Mapping[str, np.ndarray]) -> dict[str, dict[str, list]]:
    """What is recorded inside a layer, for one sample, by the layer's name and its own.

    Gates of recurrent layers, and 1 / d of a normalization; the output of an activation is recorded itself.
    """
    given = {name: exact.tensor(value) for name, value in x.items()}
    nodes = exact_nodes(network, {name: value.shape for name, value in given.items()})
    values = record(nodes, given)
    found = {}
    for node in nodes.values():
        if isinstance(node.op, (Unrolled, SampleNorm)):
            flat = [v for name in node.inputs for v in values[name].values]
            found[node.name] = node.op.inside(flat)
    return found


class RunningErrors:
    """As `numpylrp.validate.vector_bounds.Errors`, of one sample."""

    def __init__(self, network: Network, x: Mapping[str, np.ndarray], fused: bool = False) -> None:
        self.network = network
        self.x = {name: _running(exact.tensor(value), 0.0) for name, value in x.items()}
        nodes = exact_nodes(network, {name: value.shape for name, value in self.x.items()})
        self.E = {name: _errors(value) for name, value in record(nodes, self.x).items()}

    def back(self, steps: Mapping[str, exact.Step], rules: Mapping[str, Rule]) -> dict[str, list[float]]:
        """Errors of the relevance of every layer's output and of the inputs."""
        seed = _running(next(iter(steps.values())).R, 1.0)
        result = exact.explain(self.network, self.x, seed, rules)
        found = {name: _errors(step.R) for name, step in result.steps.items()}
        return found | {name: _errors(value) for name, value in result.relevance.items()}


def _running(values: Tensor, rounds: float) -> Tensor:
    floats = [float(v) for v in values.values]
    return Tensor(values.shape, [Running(v, rounds * abs(v)) for v in floats])  # type: ignore[misc]


def _errors(values: Tensor) -> list[float]:
    return [v.error if isinstance(v, Running) else 0.0 for v in values.values]
