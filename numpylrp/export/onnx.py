"""ONNX models in our schema.

Needs the package onnx (``pip install 'numpylrp[onnx]'``); what it writes needs nothing of it.
"""

from __future__ import annotations

import ast
import json
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..convert import native
from ..errors import FileError, LRPError, MissingExtraError, UnsupportedError, lookup
from ..network import Network
from . import onnx_sequences
from .graph import Graph, Value
from .onnx_operators import OPERATIONS, Call, as_array
from .onnx_patterns import found

try:
    import onnx
    from onnx.reference import ReferenceEvaluator
except ImportError:
    raise MissingExtraError(
        "reading ONNX models needs the package onnx: pip install 'numpylrp[onnx]'"
    ) from None


LARGEST = 2**26
"""Values of a constant that a model may ask to be made."""


def save(model: Any, path: str | os.PathLike, **options: Any) -> Network:
    """Write an ONNX model to an HDF5 file of our schema.

    Parameters
    ----------
    model : path or onnx.ModelProto
    path : str or path
    **options
        See `convert`.

    Returns
    -------
    Network
        What was written.
    """
    network = convert(model, **options)
    native.save(network, path)
    return network


def convert(
    model: Any,
    *,
    input_shape: Sequence[int] | None = None,
    constants: Mapping[str, Any] | None = None,
    outputs: Sequence[str] | None = None,
    example_input: Any = None,
    input_range: tuple[Any, Any] | None = None,
    class_names: Sequence[str] | None = None,
) -> Network:
    """An ONNX model as a network of ours.

    Parameters
    ----------
    model : path or onnx.ModelProto
        Tensors kept in other files are refused.
    input_shape : sequence of int, optional
        Sample shape, where the model leaves sizes open.
    constants : mapping of str to array, optional
        Inputs that are no samples, by name, such as a rate or the state of a model that keeps one: what each
        is from now on. Branches (`If`) are followed where their condition is then known.
    outputs : sequence of str, optional
        The outputs to keep, by name; by default all.
    example_input : array, optional
        A batch on which our output is compared with that of ONNX' reference evaluator, at 1e-5 of its
        largest value. By default nothing is compared: the evaluator is slow, and wrong for LRN.
    input_range : (low, high), optional
        Bounds of the input, for the z^B rule.
    class_names : sequence of str, optional
        By default those in the model's metadata, under "class_names", "names" or "labels".

    Raises
    ------
    FileError
        No such file, or not an ONNX model.
    UnsupportedError
        An operator or option that has no layer here, by name.
    """
    if not isinstance(model, onnx.ModelProto):
        model = _read(Path(model))
    network = _follow(model, input_shape, dict(constants or {}), outputs)
    properties = {p.key: p.value for p in model.metadata_props}
    names = _class_names(properties) if class_names is None else class_names
    if names is not None:
        network.metadata["class_names"] = [str(name) for name in names]
    if input_range is not None:
        network.metadata["input_range"] = [np.asarray(v, float).tolist() for v in input_range]
    if example_input is not None:
        _check(network, model, np.asarray(example_input), dict(constants or {}), outputs)
    return network


def _read(path: Path) -> onnx.ModelProto:
    if not path.is_file():
        raise FileError(f"{path} does not exist")
    try:
        model = onnx.load(path, load_external_data=False)
    except Exception as error:  # protobuf has errors of its own
        raise FileError(f"{path} is not an ONNX model: {error}") from None
    if not model.graph.node:
        raise FileError(f"{path} is not an ONNX model: it has no nodes")
    return model


def _class_names(properties: dict[str, str]) -> list[str] | None:
    for key in ("class_names", "names", "labels"):
        if key in properties:
            for parse in (json.loads, ast.literal_eval):
                try:
                    names = parse(properties[key])
                except (ValueError, SyntaxError):
                    continue
                names = [names[k] for k in sorted(names)] if isinstance(names, dict) else names
                return list(names) if isinstance(names, (list, tuple)) else None
            return [name.strip() for name in properties[key].split(",")]
    return None


def _inputs(model: onnx.ModelProto, held: dict, given: Sequence[int] | None) -> dict[str, tuple[int, ...]]:
    shapes = {}
    for item in model.graph.input:
        if item.name in held:
            continue
        dims = [d.dim_value if d.HasField("dim_value") else 0 for d in item.type.tensor_type.shape.dim]
        shapes[item.name] = tuple(dims[1:])
    if given is not None:
        if len(shapes) != 1:
            raise LRPError("input_shape is for models with one input")
        shapes = dict.fromkeys(shapes, tuple(int(n) for n in given))
    for name, shape in shapes.items():
        if min(shape, default=1) < 1:
            text = " x ".join(str(n or "?") for n in shape)
            raise LRPError(f"input {name!r} is {text} for a sample, with sizes left open: give input_shape")
    return shapes


def _follow(
    model: onnx.ModelProto,
    input_shape: Sequence[int] | None,
    given: dict[str, Any],
    kept: Sequence[str] | None,
) -> Network:
    values: dict[str, Any] = {t.name: as_array(t) for t in model.graph.initializer}
    floats = [a.dtype for a in values.values() if a.dtype.kind == "f"]
    for name, array in given.items():
        lookup({i.name: i for i in model.graph.input if i.name not in values}, name, "input")
        values[name] = np.asarray(array)
    shapes = _inputs(model, values, input_shape)
    single = len(shapes) == 1
    graph = Graph({"input" if single else name: shape for name, shape in shapes.items()})
    for name, shape in shapes.items():
        values[name] = Value("input" if single else name, shape)
    all_ends = {o.name: o for o in model.graph.output}
    ends = [lookup(all_ends, name, "output").name for name in (all_ends if kept is None else kept)]
    opset = max((i.version for i in model.opset_import if i.domain in ("", "ai.onnx")), default=1)
    walk = _Walk(graph, values, opset, set(ends))
    walk.follow(walk.folded(_needed(model.graph.node, walk.read)))
    graph_ends = [v for name in ends if isinstance(v := values.get(name), Value)]
    if not ends or len(graph_ends) < len(ends):
        raise UnsupportedError("the model's outputs are to depend on its input")
    wide = any(d == np.float64 for d in (*floats, *walk.floats))
    source = f"ONNX, {model.producer_name} {model.producer_version}".strip(" ,")
    return graph.network(graph_ends, {"source": source}, np.float64 if wide else np.float32)


def _branches(node: onnx.NodeProto) -> dict[str, onnx.GraphProto]:
    return {a.name: a.g for a in node.attribute if a.type == onnx.AttributeProto.GRAPH}


def _needed(nodes: Iterable[onnx.NodeProto], read: set[str]) -> list[onnx.NodeProto]:
    """The nodes that these values need; what the nodes read, also within branches, comes to `read`."""
    kept = []
    for node in reversed(list(nodes)):
        if node.op_type != "If":
            if read.intersection(node.output):
                read.update(n for n in node.input if n)
                kept.append(node)
            continue
        if read.intersection(node.output):
            read.update(node.input)
            for branch in _branches(node).values():
                read.update(b.name for b, o in zip(branch.output, node.output) if o in read)
                _needed(branch.node, read)
            kept.append(node)
    return kept[::-1]


class _Walk:
    """One walk through the nodes of a model: constants are calculated, the rest becomes layers."""

    def __init__(self, graph: Graph, values: dict[str, Any], opset: int, read: set[str]) -> None:
        self.graph, self.values, self.opset, self.read = graph, values, opset, read
        self.ends = frozenset(read)
        self.floats: list[Any] = []
        graph.read = read

    def known(self, node: onnx.NodeProto) -> bool:
        """Whether a node reads nothing that depends on the input."""
        return all(n in self.values and not isinstance(self.values[n], Value) for n in node.input if n)

    def taken(self, node: onnx.NodeProto) -> list[onnx.NodeProto]:
        """The nodes of the branch that is taken, and the names that its results have outside."""
        condition = self.values[node.input[0]]
        if isinstance(condition, Value):
            name = (node.name or node.output[0]).strip("/")
            raise UnsupportedError(f"{name}: a branch that depends on the input is not supported")
        branch = _branches(node)["then_branch" if np.all(condition) else "else_branch"]
        self.values.update((t.name, as_array(t)) for t in branch.initializer)
        pairs = zip(branch.output, node.output)
        names = [onnx.helper.make_node("Identity", [b.name], [o]) for b, o in pairs if o in self.read]
        return [*_needed(branch.node, {i.input[0] for i in names}), *names]

    def folded(self, nodes: Iterable[onnx.NodeProto]) -> list[onnx.NodeProto]:
        """The nodes that depend on the input, branches that are known in their place."""
        left = []
        for node in nodes:
            if node.op_type == "If" and self.known(node):
                left += self.folded(self.taken(node))
            elif self.known(node):
                call = Call(self.graph, node, self.values, self.opset)
                results = _list(_constant(call, node, self.values))
                self.floats += [r.dtype for r in results if getattr(r, "dtype", np.dtype(int)).kind == "f"]
                self.values.update(zip(node.output, results))
            else:
                left.append(node)
        return left

    def follow(self, nodes: list[onnx.NodeProto]) -> None:
        """Make layers of the nodes, of several at once where they are one layer written out."""
        constants = {name: value for name, value in self.values.items() if not isinstance(value, Value)}
        instead: dict[int, Any] = {}
        within: set[int] = set()
        given = nodes, constants, set(self.ends)
        for read, last, inside, add in (*onnx_sequences.found(*given), *found(*given)):
            if not inside & within:
                instead[last] = read, add
                within |= inside
        within -= set(instead)
        for number, node in enumerate(nodes):
            if number in within:
                continue
            if number in instead:
                read, add = instead[number]
                name = Call(self.graph, node, self.values, self.opset).name
                self.values[node.output[0]] = add(self.graph, name, self.values[read])
            elif node.op_type == "If":
                self.follow(self.folded(self.taken(node)))
            else:
                self.values.update(zip(node.output, _list(self.results(node))))

    def results(self, node: onnx.NodeProto) -> Any:
        """What one node gives."""
        call = Call(self.graph, node, self.values, self.opset)
        known = [self.values[n] for n in node.input if n]
        if node.op_type == "Shape" and isinstance(known[0], Value):
            whole = list(known[0].shape)
            whole.insert(known[0].batch, 1)  # the batch's own size is of no account
            return np.array(whole)[call.get("start", 0) : call.get("end")]
        if not any(isinstance(v, Value) for v in known):
            return _constant(call, node, self.values)
        if node.domain not in ("", "ai.onnx") or node.op_type not in OPERATIONS:
            there = ", ".join(OPERATIONS)
            raise UnsupportedError(
                f"{call.name}: the operator {node.op_type!r} is not supported; there are {there}"
            )
        return OPERATIONS[node.op_type](self.graph, call.name, call)


def _list(results: Any) -> list:
    return results if isinstance(results, list) else [results]


CONSTANTS = (
    *("Abs", "Add", "And", "Cast", "Ceil", "Concat", "Constant", "ConstantOfShape", "Div", "Equal", "Exp"),
    *(
        "Expand",
        "Flatten",
        "Floor",
        "Gather",
        "Greater",
        "Identity",
        "Less",
        "Log",
        "MatMul",
        "Max",
        "Min",
        "Mod",
    ),
    *(
        "Mul",
        "Neg",
        "Not",
        "Pow",
        "Range",
        "Reciprocal",
        "ReduceMax",
        "ReduceMean",
        "ReduceProd",
        "ReduceSum",
    ),
    *("Reshape", "Round", "Shape", "Size", "Slice", "Split", "Sqrt", "Squeeze", "Sub", "Tile", "Transpose"),
    *("Unsqueeze", "Where"),
)
"""What may be calculated from constants while a model is read: no loops, branches or random numbers."""

GROWS = {"ConstantOfShape": 0, "Expand": 1}
"""Of these the input that says how large the result is."""


def _constant(call: Call, node: onnx.NodeProto, values: dict[str, Any]) -> Any:
    """The result of a node that no input of the model takes part in."""
    if node.domain not in ("", "ai.onnx") or node.op_type not in CONSTANTS:
        raise UnsupportedError(f"{call.name}: {node.op_type} of constants is not supported")
    feeds = {n: values[n] for n in node.input if n}
    size = 1.0
    if node.op_type in GROWS:
        size = float(np.prod(np.asarray(values[node.input[GROWS[node.op_type]]], float)))
    elif node.op_type == "Range":
        start, stop, step = (float(values[n]) for n in node.input)
        size = (stop - start) / (step or 1e-300)
    elif node.op_type == "Tile":
        size = float(np.prod(np.asarray(values[node.input[1]], float))) * np.size(values[node.input[0]])
    if size > LARGEST:
        raise FileError(f"{call.name}: {node.op_type} would make {size:.3g} values")
    results: Any = ReferenceEvaluator(node).run(None, feeds)
    return results[0] if len(node.output) == 1 else results


def _check(
    network: Network,
    model: onnx.ModelProto,
    x: np.ndarray,
    constants: dict[str, Any],
    kept: Sequence[str] | None,
) -> None:
    """Our output is the reference evaluator's, sample by sample: many models have a batch of 1."""
    held = {t.name for t in model.graph.initializer}
    given = [i for i in model.graph.input if i.name not in held and i.name not in constants]
    if len(given) != 1:
        raise LRPError("example_input is for models with one input")
    evaluator = ReferenceEvaluator(model)
    kind = onnx.helper.tensor_dtype_to_np_dtype(given[0].type.tensor_type.elem_type)
    for sample in x.astype(kind):
        theirs = evaluator.run(
            None if kept is None else list(kept), {given[0].name: sample[None], **constants}
        )
        found = network.forward(sample[None].astype(np.float64))
        ours = list(found.values()) if isinstance(found, dict) else [found]
        if len(ours) != len(theirs):
            raise LRPError(f"the network has {len(ours)} outputs where the model has {len(theirs)}")
        for a, b in zip(ours, theirs):
            size = max(float(abs(b).max()), 1e-30)
            if a.shape != b.shape or not abs(a - b).max() <= 1e-5 * size:
                raise LRPError(
                    f"the network would not compute what the model computes: {a.shape} with values off by "
                    f"{abs(a - b).max() if a.shape == b.shape else np.nan:.3g}, up to {size:.3g}"
                )
