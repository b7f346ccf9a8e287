"""Network: named layers wired in a directed acyclic graph, and its forward pass."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from .engine import one_blas_thread
from .errors import LRPError, NonFiniteError, ShapeError
from .layers import Layer
from .layers.base import Shape

INPUT = "input"
"""Name of the input of a network that has one."""


@dataclass(frozen=True)
class Node:
    """A layer with its name and the names of what it reads: inputs of the network or other nodes."""

    name: str
    layer: Layer
    inputs: tuple[str, ...]


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

    Raises
    ------
    LRPError
        A name that is given twice, an input that doesn't exist, a cycle, shapes that don't fit.

    Examples
    --------
    >>> from numpylrp.layers import Add, Dense, ReLU
    >>> net = Network(
    ...     [
    ...         ("fc", Dense([[1.0, -1.0], [0.0, 2.0]])),
    ...         ("relu", ReLU()),
    ...         ("sum", Add(), ("relu", "input")),
    ...     ],
    ...     input_shape=(2,),
    ... )
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
        shapes = dict(input_shape) if isinstance(input_shape, Mapping) else {INPUT: input_shape}
        self.inputs: dict[str, Shape] = {name: _shape(name, s) for name, s in shapes.items()}
        if not self.inputs:
            raise LRPError("a network needs an input")
        nodes = _sorted(_nodes(layers, next(iter(self.inputs))), self.inputs)
        if not nodes:
            raise LRPError("a network needs at least one layer")
        arrays = [a for n in nodes for a in n.layer.arrays().values()]
        dtype = np.result_type(*arrays) if arrays else np.dtype(np.float64)
        self.dtype: np.dtype = dtype
        cast = {id(n.layer): n.layer.astype(dtype) for n in nodes}
        self.nodes: tuple[Node, ...] = tuple(Node(n.name, cast[id(n.layer)], n.inputs) for n in nodes)
        self._by_name = {node.name: node for node in self.nodes}
        self.shapes: dict[str, Shape] = dict(self.inputs)
        for node in self.nodes:
            given = [self.shapes[name] for name in node.inputs]
            try:
                self.shapes[node.name] = node.layer.output_shape(*given)
            except LRPError as error:
                raise type(error)(f"layer {node.name!r} ({type(node.layer).__name__}): {error}") from None
        read = {name for node in self.nodes for name in node.inputs}
        if outputs is None:
            outputs = [node.name for node in self.nodes if node.name not in read]
        self.outputs: tuple[str, ...] = (outputs,) if isinstance(outputs, str) else tuple(outputs)
        for name in self.outputs:
            self[name]
            if self.outputs.count(name) > 1:
                raise LRPError(f"the output {name!r} is given twice")
        self.metadata: dict[str, Any] = dict(metadata or {})
        self._last_reader = {name: node.name for node in self.nodes for name in node.inputs}

    def __getitem__(self, name: str) -> Layer:
        if name not in self._by_name:
            known = ", ".join(self._by_name)
            raise LRPError(f"there is no layer {name!r}; there are {known}")
        return self._by_name[name].layer

    def __contains__(self, name: object) -> bool:
        return name in self._by_name

    def __len__(self) -> int:
        return len(self.nodes)

    def node(self, name: str) -> Node:
        """The node of this name."""
        self[name]
        return self._by_name[name]

    def readers(self, name: str) -> list[Node]:
        """The nodes that read this node or input."""
        return [node for node in self.nodes if name in node.inputs]

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
        cast = {id(n.layer): n.layer.astype(dtype) for n in self.nodes}
        layers = ((n.name, cast[id(n.layer)], n.inputs) for n in self.nodes)
        network = Network(layers, self.inputs, self.outputs, self.metadata)
        network.dtype = dtype  # also where there is no parameter to tell
        return network

    def batch(self, x: Any) -> dict[str, np.ndarray]:
        """The inputs by name, checked, in the dtype of the network.

        Parameters
        ----------
        x : array, or mapping of input name to array
            Batch first.

        Raises
        ------
        ShapeError
            A shape that the network doesn't take, an empty batch, batches of different length.
        NonFiniteError
            A value that is NaN or infinite.
        """
        if not isinstance(x, Mapping):
            if len(self.inputs) > 1:
                raise LRPError(
                    f"the network has inputs {', '.join(self.inputs)}: give a mapping of name to array"
                )
            x = {next(iter(self.inputs)): x}
        if set(x) != set(self.inputs):
            raise LRPError(f"inputs are to be {', '.join(self.inputs)}, not {', '.join(map(str, x))}")
        batch = {name: self._checked(name, value) for name, value in x.items()}
        if len({len(value) for value in batch.values()}) > 1:
            lengths = ", ".join(f"{name} {len(value)}" for name, value in batch.items())
            raise ShapeError(f"inputs differ in the number of samples: {lengths}")
        return batch

    def _checked(self, name: str, value: Any) -> np.ndarray:
        try:
            array = np.asarray(value)
            if array.dtype.kind not in "fiub":
                raise TypeError
        except (TypeError, ValueError):
            raise LRPError(f"input {name!r} is to be an array of numbers") from None
        want = self.inputs[name]
        text = _text((None, *want)).replace("?", "N", 1)
        fits = array.ndim == len(want) + 1 and all(w in (None, n) for w, n in zip(want, array.shape[1:]))
        if not fits:
            hint = ""
            if array.ndim == len(want) and all(w in (None, n) for w, n in zip(want, array.shape)):
                hint = " (one sample: give x[None])"
            raise ShapeError(f"input {name!r} is to have shape {text}, but it has {_text(array.shape)}{hint}")
        if len(array) == 0:
            raise ShapeError(f"input {name!r} is empty: its shape is {_text(array.shape)}")
        if array.dtype.kind == "f" and not np.isfinite(array).all():
            bad = np.argwhere(~np.isfinite(array))[0]
            raise NonFiniteError(
                f"input {name!r} has a value that is NaN or infinite, first at {tuple(bad.tolist())}"
            )
        return array.astype(self.dtype, copy=False)

    def _run(self, batch: Mapping, keep: bool, forward: Callable | None = None) -> dict[str, np.ndarray]:
        values = dict(batch)
        with one_blas_thread(), np.errstate(over="ignore", invalid="ignore"):
            for node in self.nodes:
                layer = node.layer
                x = tuple(values[name] for name in node.inputs) if layer.merges else values[node.inputs[0]]
                y = layer.forward(x) if forward is None else forward(node, x)
                values[node.name] = y if y.dtype == self.dtype else y.astype(self.dtype)
                for name in () if keep else node.inputs:
                    if self._last_reader[name] == node.name and name not in self.outputs:
                        values.pop(name, None)
        if not all(np.isfinite(values[name]).all() for name in self.outputs):
            if not keep:  # once more, to say where it began
                return self._run(batch, keep=True)
            for node in self.nodes:
                if not np.isfinite(values[node.name]).all():
                    raise NonFiniteError(
                        f"NaN or infinity first appears in the output of layer {node.name!r} "
                        f"({type(node.layer).__name__})"
                    )
        return values

    def record(self, x: Any) -> dict[str, np.ndarray]:
        """All activations of a forward pass by name, the inputs included."""
        return self.activations(self.batch(x))

    def activations(self, batch: Mapping, forward: Callable | None = None) -> dict[str, np.ndarray]:
        """`record` for a batch that `batch` has checked.

        `forward`, a function of (node, x), may compute what ``node.layer.forward(x)`` would.
        """
        return self._run(batch, keep=True, forward=forward)

    def forward(self, x: Any) -> np.ndarray | dict[str, np.ndarray]:
        """The output for a batch `x`; a dict by name where the network has several outputs.

        Parameters
        ----------
        x : (N, *input_shape) array, or mapping of input name to array

        Returns
        -------
        (N, *output_shape) array of the network's dtype, or a dict of them
        """
        values = self._run(self.batch(x), keep=False)
        if len(self.outputs) == 1:
            return values[self.outputs[0]]
        return {name: values[name] for name in self.outputs}

    def __str__(self) -> str:
        rows = [("layer", "kind", "reads", "output", "parameters")]
        for node in self.nodes:
            count = sum(a.size for a in node.layer.arrays().values())
            kind = type(node.layer).__name__
            rows.append(
                (node.name, kind, ", ".join(node.inputs), _text(self.shapes[node.name]), f"{count or ''}")
            )
        return table(rows)

    def __repr__(self) -> str:
        inputs = ", ".join(f"{name} {_text(shape)}" for name, shape in self.inputs.items())
        return f"<Network: {inputs} -> {len(self)} layers -> {', '.join(self.outputs)}>"


def float_dtype(dtype: Any) -> np.dtype:
    """`dtype` as float32 or float64, or an error."""
    try:
        dtype = np.dtype(dtype)
    except TypeError:
        raise LRPError(f"dtype is to be float32 or float64, not {dtype!r}") from None
    if dtype not in (np.float32, np.float64):
        raise LRPError(f"dtype is to be float32 or float64, not {dtype}")
    return dtype


def table(rows: Sequence[Sequence[str]]) -> str:
    """Rows of text in columns."""
    widths = [max(map(len, column)) for column in zip(*rows)]
    return "\n".join("  ".join(map(str.ljust, row, widths)).rstrip() for row in rows)


def _text(shape: Shape) -> str:
    return " x ".join("?" if n is None else str(n) for n in shape) or "scalar"


def _shape(name: str, shape: Any) -> Shape:
    try:
        shape = tuple(None if n is None else int(n) for n in shape)
    except (TypeError, ValueError):
        raise ShapeError(f"the shape of input {name!r} is to be integers (or None), not {shape!r}") from None
    if any(n is not None and n < 1 for n in shape):
        raise ShapeError(f"the shape of input {name!r} is to be positive, not {shape}")
    return shape


def _nodes(layers: Iterable[tuple], first: str) -> list[Node]:
    nodes, before = [], first
    for entry in layers:
        if not 2 <= len(entry) <= 3 or not isinstance(entry[0], str) or not isinstance(entry[1], Layer):
            raise LRPError(
                f"a layer is to be given as (name, layer) or (name, layer, inputs), not {entry!r:.120}"
            )
        name, layer = entry[:2]
        reads = entry[2] if len(entry) == 3 else (before,)
        reads = (reads,) if isinstance(reads, str) else tuple(reads)
        if not layer.merges and len(reads) != 1:
            raise LRPError(f"layer {name!r} ({type(layer).__name__}) takes one input, not {len(reads)}")
        nodes.append(Node(name, layer, reads))
        before = name
    return nodes


def _sorted(nodes: list[Node], inputs: Mapping[str, Shape]) -> list[Node]:
    """The nodes in an order in which each comes after what it reads; else as they were given."""
    names = [*inputs, *(node.name for node in nodes)]
    for name in names:
        if names.count(name) > 1:
            raise LRPError(f"the name {name!r} is given twice")
    for node in nodes:
        for name in node.inputs:
            if name not in names:
                raise LRPError(f"layer {node.name!r} reads {name!r}, which does not exist")
    done, order, left = set(inputs), [], list(nodes)
    while left:
        ready = next((node for node in left if done.issuperset(node.inputs)), None)
        if ready is None:
            raise LRPError(f"layers {', '.join(repr(n.name) for n in left)} read each other in a circle")
        order.append(ready)
        done.add(ready.name)
        left.remove(ready)
    return order
