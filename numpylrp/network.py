"""Network: named layers wired in a directed acyclic graph, and its forward pass."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from . import wiring
from .batches import checked_batch
from .errors import check_finite, lookup
from .fast import path_of
from .fast.threads import one_blas_thread
from .layers import Layer
from .layers.base import Shape
from .text import network_text, shape_text
from .wiring import Node, float_dtype, in_one_dtype

INPUT = "input"
"""Name of the input of a network that has one."""


class Network:
    """Named layers wired in a directed acyclic graph.

    Wiring and shapes are checked here, once; errors name the layer and the shapes. A network
    holds no activations: `forward` gives the outputs, `record` all activations by name.

    Parameters
    ----------
    layers : sequence of (name, layer) or (name, layer, inputs)
        `inputs` is the name, or the names, of what the layer reads; left out, it is the layer
        before. The order is free where inputs are named. One layer object may stand under several
        names (shared weights).
    input_shape : tuple, or mapping of name to tuple
        Shape of one sample, without the batch axis; None for a size that is free. A mapping for
        several inputs; a single input is called "input".
    outputs : str or sequence of str, optional
        Default: the nodes that nothing reads.
    metadata : mapping, optional
        What is known of the model: ``class_names``, ``input_range`` (low, high), ``input_layout``
        and the like; kept in files as JSON.

    Examples
    --------
    >>> from numpylrp.layers import Add, Dense, ReLU
    >>> fc = Dense([[1.0, -1.0], [0.0, 2.0]])
    >>> layers = [("fc", fc), ("relu", ReLU()), ("sum", Add(), ("relu", "input"))]
    >>> net = Network(layers, input_shape=(2,))
    >>> net.forward([[3.0, 5.0]])
    array([[ 3., 15.]])
    >>> print(net)
    layer  kind   reads        output  parameters
    fc     Dense  input        2       4
    relu   ReLU   fc           2
    sum    Add    relu, input  2
    """

    def __init__(
        self,
        layers: Iterable[tuple],
        input_shape: Shape | Mapping[str, Shape],
        outputs: str | Sequence[str] | None = None,
        metadata: Mapping[str, Any] | None = None,
    ) -> None:
        self.inputs: dict[str, Shape] = wiring.input_shapes(input_shape, INPUT)
        self.nodes, self.dtype = in_one_dtype(wiring.nodes_in_order(layers, self.inputs))
        self.shapes: dict[str, Shape] = wiring.sample_shapes(self.nodes, self.inputs)
        self._by_name = {node.name: node for node in self.nodes}
        self._readers = wiring.readers_of(self.nodes, self.shapes)
        self.outputs: tuple[str, ...] = wiring.output_names(outputs, self._by_name, self._readers)
        self.metadata: dict[str, Any] = dict(metadata or {})

    def __getitem__(self, name: str) -> Layer:
        return self.node(name).layer

    def __contains__(self, name: object) -> bool:
        return name in self._by_name

    def __len__(self) -> int:
        return len(self.nodes)

    def node(self, name: str) -> Node:
        """The node of this name."""
        return lookup(self._by_name, name, "layer")

    def readers(self, name: str) -> list[Node]:
        """The nodes that read this node or input."""
        return list(self._readers.get(name, ()))

    def replace(self, name: str, layer: Layer) -> Network:
        """The same network with another layer under this name."""
        self[name]
        return self.rebuilt((n.name, layer if n.name == name else n.layer, n.inputs) for n in self.nodes)

    def rebuilt(self, layers: Iterable[tuple]) -> Network:
        """A network of these layers with the inputs, outputs, metadata and dtype of this one."""
        return Network(layers, self.inputs, self.outputs, self.metadata).astype(self.dtype)

    def astype(self, dtype: Any) -> Network:
        """The same network with parameters of this dtype, in which it then computes."""
        dtype = float_dtype(dtype)
        if dtype == self.dtype:
            return self
        nodes, _ = in_one_dtype(self.nodes, dtype)
        layers = ((n.name, n.layer, n.inputs) for n in nodes)
        network = Network(layers, self.inputs, self.outputs, self.metadata)
        network.dtype = dtype  # also where there is no parameter to tell
        return network

    def batch(self, x: Any) -> dict[str, np.ndarray]:
        """The inputs by name, checked, in the dtype of the network; see `numpylrp.batches.checked_batch`."""
        batch = checked_batch(x, self.inputs, self.dtype)
        if any(None in shape for shape in self.inputs.values()):  # layers look at free sizes only now
            wiring.sample_shapes(self.nodes, {name: value.shape[1:] for name, value in batch.items()})
        return batch

    def activations(
        self, batch: Mapping[str, np.ndarray], forward: Callable | None = None, keep: bool = True
    ) -> dict[str, np.ndarray]:
        """All activations by name for a batch that `batch` has checked; only outputs unless `keep`.

        `forward`, a function of (node, x), may compute what ``node.layer.forward(x)`` would.
        """
        forward = path_of({}).forward if forward is None else forward
        values = dict(batch)
        with one_blas_thread(), np.errstate(over="ignore", invalid="ignore"):
            for node in self.nodes:
                x = [values[name] for name in node.inputs]
                y = forward(node, tuple(x) if node.layer.merges else x[0])
                values[node.name] = y if y.dtype == self.dtype else y.astype(self.dtype)
                for name in () if keep else node.inputs:
                    if self._readers[name][-1] is node and name not in self.outputs:
                        values.pop(name, None)
        if not all(np.isfinite(values[name]).all() for name in self.outputs):
            if not keep:  # once more, to say where it began
                return self.activations(batch, forward)
            check_finite(
                (f"the output of layer {n.name!r} ({type(n.layer).__name__})", values[n.name])
                for n in self.nodes
            )
        return values

    def record(self, x: Any) -> dict[str, np.ndarray]:
        """All activations of a forward pass by name, the inputs included."""
        return self.activations(self.batch(x))

    def forward(self, x: Any) -> np.ndarray | dict[str, np.ndarray]:
        """The output for a batch `x`; a dict by name where the network has several outputs.

        Parameters
        ----------
        x : (N, *input_shape) array, or mapping of input name to array

        Returns
        -------
        (N, *output_shape) array of the network's dtype, or a dict of them
        """
        values = self.activations(self.batch(x), keep=False)
        if len(self.outputs) == 1:
            return values[self.outputs[0]]
        return {name: values[name] for name in self.outputs}

    def __str__(self) -> str:
        return network_text(self)

    def __repr__(self) -> str:
        inputs = ", ".join(f"{name} {shape_text(shape)}" for name, shape in self.inputs.items())
        return f"<Network: {inputs} -> {len(self)} layers -> {', '.join(self.outputs)}>"
