"""The graph of a Keras model: sequential and functional, models as layers, in the words of Keras 1 to 3.

What a layer is called with stands in its nodes; a tensor is named there by the layer that made it, the number
of the call, and the number of the output. A model used as a layer counts its calls in ways of its own:

- up to Keras 2 from 1, since its own input was a call that is not in the file (from 0 where it had none);
- in Keras 3 from 0 where layers read it, and from 1 among the outputs of the model, unless it is sequential.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np

from ..errors import FileError, LRPError, UnsupportedError
from ..export.graph import Value
from . import keras1, keras_sequences
from . import keras_operations as operations
from .keras_layers import Builder, build, refuse
from .keras_refused import called
from .keras_weights import Weights, entries, name_of, nested

DEEPEST = 40
"""Models in models in models."""


class Ref(NamedTuple):
    """A tensor of the model: which layer, which of its calls, which of its outputs."""

    layer: str
    call: int
    output: int


class Node(NamedTuple):
    """A call of a layer: what it is called with, tensors as `Ref`."""

    args: list[Any]
    kwargs: dict[str, Any]


# ---------------------------------------------------------------- before anything is built


def formed(config: Any, kind: str = "Functional", depth: int = 0) -> None:
    """Refuse a configuration that is not built as one, and give every layer its name.

    Raises
    ------
    FileError
        Something is missing, or of another type.
    """
    if depth > DEEPEST:
        raise FileError(f"models lie in each other more than {DEEPEST} deep")
    layers = config.get("layers") if isinstance(config, dict) else config
    if not isinstance(layers, list) or not layers:
        raise FileError("the configuration has no list of layers")
    ends = () if kind == "Sequential" else ("input_layers", "output_layers")
    for key in ends:
        if not isinstance(config, dict) or key not in config:
            raise FileError(f"the configuration of a {kind} model lacks {key}")
    for entry in layers:
        own, inner = [entry.get(k) if isinstance(entry, dict) else None for k in ("class_name", "config")]
        listed = isinstance(inner, list) and own == "Sequential"
        if not isinstance(own, str) or not (isinstance(inner, dict) or listed):
            raise FileError(f"the configuration has a layer without class_name and config: {entry!r:.80}")
        entry["name"] = entry.get("name") or (own.lower() if listed else inner.get("name"))  # type: ignore[union-attr]
        if not isinstance(entry["name"], str):
            raise FileError(f"the configuration has a layer of class {own!r} without a name")
        if nested(entry):
            formed(inner, own, depth + 1)


def supported(config: Any) -> None:
    """Refuse layers that have no counterpart here.

    Raises
    ------
    UnsupportedError
        In one sentence, what it is and what to do.
    """
    for entry in entries(config):
        if nested(entry):
            why = called(entry["class_name"], entry, entry["config"])
            if why:
                raise UnsupportedError(f"layer {name_of(entry)!r} ({entry['class_name']}) {why}")
            supported(entry["config"])
        elif entry["class_name"] != "InputLayer" and operations.operation(entry) is None:
            refuse(name_of(entry), entry)


def inputs(config: Any) -> dict[str, tuple]:
    """The inputs of the model in its order: their names here, and their sample shapes."""
    layers = {name_of(entry): entry for entry in entries(config)}
    if _functional(config):
        names = [ref.layer for ref in flat(tensors(config["input_layers"]))]
        missing = [n for n in names if n not in layers]
        if missing or not names:
            raise FileError(f"the configuration says that {missing or names} are inputs, which are not there")
        shapes = {name: _shape(layers[name]["config"]) for name in names}
    else:
        first = entries(config)[0]
        own = _shape(first["config"])
        if own is None and nested(first):
            return inputs(first["config"])
        if own is None and isinstance(config, dict) and config.get("build_input_shape"):
            own = tuple(config["build_input_shape"][1:])
        shapes = {"input": own}
    if None in shapes.values():
        raise FileError("the model does not say what shape its input has")
    return {"input": next(iter(shapes.values()))} if len(shapes) == 1 else shapes


def _functional(config: Any) -> bool:
    return isinstance(config, dict) and "input_layers" in config


def _shape(c: Any) -> Any:
    for key in ("batch_shape", "batch_input_shape") if isinstance(c, dict) else ():
        if c.get(key) is not None:
            shape = c[key]
            return tuple((shape[0] if isinstance(shape[0], (list, tuple)) else shape)[1:])
    return None


# ---------------------------------------------------------------- nodes


def tensors(value: Any) -> Any:
    """The same nesting of lists and dicts with a `Ref` for every tensor, in the notation of Keras 2 or 3."""
    if isinstance(value, dict):
        inner = value.get("config")
        if value.get("class_name") == "__keras_tensor__" or (
            isinstance(inner, dict) and "keras_history" in inner
        ):
            return Ref(*inner["keras_history"][:3])  # type: ignore[index]
        return {k: tensors(v) for k, v in value.items()}
    if not isinstance(value, list):
        return value
    if len(value) in (3, 4) and isinstance(value[0], str) and isinstance(value[1], int):
        return value[2] if value[0] == "_CONSTANT_VALUE" else Ref(*value[:3])
    return [tensors(v) for v in value]


def _node(data: Any) -> Node:
    """A call of a layer as Keras 2 or 3 writes it."""
    if isinstance(data, dict) and "args" in data:  # Keras 3
        return Node(tensors(data["args"]), tensors(data.get("kwargs") or {}))
    kwargs = {k: tensors(v) for leaf in _leaves(data) for k, v in (leaf[3] if len(leaf) > 3 else {}).items()}
    return Node([tensors(data)], kwargs)


def _leaves(data: Any) -> Iterator[list]:
    """The tensors of a node of Keras 2: [layer, call, output, keyword arguments]."""
    if isinstance(data, dict):
        data = list(data.values())
    if len(data) > 2 and isinstance(data[0], str):
        yield data
    else:
        for part in data:
            yield from _leaves(part)


def flat(value: Any) -> list:
    """What stands in a nesting of lists and dicts, these by the order of their keys."""
    if isinstance(value, dict):
        return [v for key in sorted(value) for v in flat(value[key])]
    if isinstance(value, list):
        return [v for part in value for v in flat(part)]
    return [value]


def _replaced(value: Any, values: dict) -> Any:
    """The same nesting with the tensors that have been built."""
    if isinstance(value, Ref):
        made = values[value.layer, value.call]
        if not 0 <= value.output < len(made):
            raise FileError(
                f"layer {value.layer!r} has {len(made)} outputs, but output {value.output} is read"
            )
        return made[value.output]
    if isinstance(value, dict):
        return {k: _replaced(v, values) for k, v in value.items()}
    return [_replaced(v, values) for v in value] if isinstance(value, list) else value


# ---------------------------------------------------------------- models


def outputs(b: Builder, config: Any, given: list[Value], weights: Weights, prefix: str = "") -> list[Value]:
    """Add the layers of a model to the builder.

    Parameters
    ----------
    b : Builder
    config : dict or list
        As `formed` left it.
    given : list of Value
        Its inputs, in its order.
    weights : dict
        The arrays of every layer by its path.
    prefix : str
        The path of the model.

    Returns
    -------
    list of Value
        Its outputs, in its order.
    """
    model = _Model(b, config, weights, prefix)
    if _functional(config):
        b.implicit = b.keras < 3
        return model.functional(given)
    for name, entry in model.layers.items():
        if entry["class_name"] != "InputLayer":
            given = model.call(name, [given], {})
    return given


class _Model:
    """One model whose layers are being built."""

    def __init__(self, b: Builder, config: Any, weights: Weights, prefix: str) -> None:
        self.b, self.config, self.weights, self.prefix = b, config, weights, prefix
        self.layers = {name_of(entry): entry for entry in entries(config)}
        if len(self.layers) < len(entries(config)):
            raise FileError("two layers of a model have the same name")
        self._calls: dict[str, int] = {}

    def call(self, name: str, args: list[Any], kwargs: dict[str, Any]) -> list[Value]:
        """Call a layer once more."""
        entry = self.layers[name]
        kind, c, again = entry["class_name"], entry["config"], self._calls.get(name, 0)
        self._calls[name] = again + 1
        path = f"{self.prefix}{name}"
        full = f"{path}_call{again}" if again else path
        if kwargs.get("training"):
            raise UnsupportedError(f"layer {name!r} ({kind}) is called with training=True: save it without")
        function = None if nested(entry) else operations.operation(entry)
        try:
            if function is not None:
                return operations.build(self.b, function, full, args, {**operations.options(entry), **kwargs})
            if not nested(entry):
                c, kwargs = _called(kind, c, kwargs)
            given = _given(args, kwargs, c if nested(entry) else None)
            if nested(entry):
                return outputs(self.b, c, given, self._inside(path, full), f"{full}/")
            return [build(self.b, kind, full, c, given, self._arrays(kind, path, c))]
        except LRPError as error:
            if nested(entry):
                raise
            raise type(error)(f"layer {name!r} ({function or kind}): {error}") from None
        except (KeyError, TypeError, ValueError, IndexError, AttributeError, ArithmeticError) as error:
            raise FileError(
                f"layer {name!r} ({function or kind}): the configuration is not understood ({error!r:.200})"
            ) from error

    def _inside(self, path: str, full: str) -> Weights:
        """The weights of a model's layers, under the name that this call has."""
        if path == full:
            return self.weights
        own = {k: v for k, v in self.weights.items() if k.startswith(f"{path}/")}
        return {full + k[len(path) :]: v for k, v in own.items()}

    def _arrays(self, kind: str, path: str, c: dict) -> list[np.ndarray]:
        arrays = self.weights.get(path, [])
        if self.b.keras == 1:
            arrays = keras1.weights(kind, c, arrays)
        return keras1.turned(kind, arrays) if self.b.theano else arrays

    def functional(self, given: list[Value]) -> list[Value]:
        """The outputs of a functional model: layers are called once all that they read is there."""
        names = [ref.layer for ref in flat(tensors(self.config["input_layers"]))]
        if len(names) != len(given):
            raise FileError(f"a model with {len(names)} inputs is called with {len(given)} tensors")
        values = {(name, 0): [t] for name, t in zip(names, given)}
        nodes = {
            name: [_node(data) for data in entry.get("inbound_nodes") or []]
            for name, entry in self.layers.items()
            if entry["class_name"] != "InputLayer"
        }
        ends = flat(tensors(self.config["output_layers"]))
        nodes, ends = self._counted(nodes, ends)
        left = [(name, n, node) for name, own in nodes.items() for n, node in enumerate(own)]
        while left:
            waiting = []
            for name, n, node in left:
                if all(r[:2] in values for r in flat([node.args, node.kwargs]) if isinstance(r, Ref)):
                    args, kwargs = (_replaced(part, values) for part in node)
                    values[name, n] = self.call(name, args, kwargs)
                else:
                    waiting.append((name, n, node))
            if len(waiting) == len(left):
                stuck = sorted({name for name, _, _ in left})
                raise FileError(f"layers {', '.join(stuck[:5])} read what is not there")
            left = waiting
        missing = [r for r in ends if r[:2] not in values]
        if missing:
            raise FileError(f"the output {missing[0].layer!r}, call {missing[0].call}, is not there")
        return _replaced(ends, values)

    def _counted(self, nodes: dict[str, list[Node]], ends: list[Ref]) -> tuple[dict, list]:
        """The same with calls counted from 0, whichever way the version of Keras counts them."""
        read = [r for own in nodes.values() for r in flat([list(node) for node in own]) if isinstance(r, Ref)]
        lowest: dict[str, int] = {}
        for ref in (*read, *ends):
            if not isinstance(ref, Ref) or ref.layer not in self.layers:
                raise FileError(f"the configuration reads the layer {ref!r:.60}, which is not there")
            lowest[ref.layer] = min(lowest.get(ref.layer, ref.call), ref.call)

        def counted(ref: Any, end: bool = False) -> Any:
            if isinstance(ref, list):
                return [counted(r, end) for r in ref]
            if isinstance(ref, dict):
                return {k: counted(r, end) for k, r in ref.items()}
            if not isinstance(ref, Ref):
                return ref
            kind, call = self.layers[ref.layer]["class_name"], ref.call
            if kind == "InputLayer":
                call = 0
            elif self.b.keras < 3 and nested(self.layers[ref.layer]):
                call -= min(1, lowest[ref.layer])  # every call is read, so that one of 0 tells
            elif self.b.keras >= 3 and end and kind in ("Functional", "Model"):
                call -= 1
            return ref._replace(call=call)

        made = {n: [Node(*(counted(part) for part in node)) for node in own] for n, own in nodes.items()}
        return _without_gaps(made, [counted(r, True) for r in ends])


def _without_gaps(nodes: dict[str, list[Node]], ends: list[Ref]) -> tuple[dict, list]:
    """Calls that count those in other models too, as Keras 3.0 wrote them: every call, in its order."""
    read: dict[str, set[int]] = {}
    for ref in (*(r for own in nodes.values() for r in flat([list(node) for node in own])), *ends):
        if isinstance(ref, Ref):
            read.setdefault(ref.layer, set()).add(ref.call)
    places = {
        name: {call: n for n, call in enumerate(sorted(calls))}
        for name, calls in read.items()
        if len(calls) == len(nodes.get(name, ())) and max(calls) >= len(calls)
    }

    def placed(value: Any) -> Any:
        if isinstance(value, list):
            return [placed(v) for v in value]
        if isinstance(value, dict):
            return {k: placed(v) for k, v in value.items()}
        known = isinstance(value, Ref) and value.layer in places
        return value._replace(call=places[value.layer][value.call]) if known else value

    if not places:
        return nodes, ends
    made = {name: [Node(*map(placed, node)) for node in own] for name, own in nodes.items()}
    return made, placed(ends)


def _called(kind: str, c: dict, kwargs: dict[str, Any]) -> tuple[dict, dict]:
    """The configuration with what a layer is called with, and the arguments without masks that it ignores."""
    if kind in keras_sequences.READS:
        own = {k: v for k, v in kwargs.items() if k.endswith("mask")}
        return {**c, "called": own}, {k: v for k, v in kwargs.items() if k not in own}
    if kind in keras_sequences.IGNORES:
        return c, {k: v for k, v in kwargs.items() if k != "mask"}
    return c, kwargs


def _given(args: list[Any], kwargs: dict[str, Any], config: Any) -> list[Value]:
    """The tensors that a layer, or the model of this configuration, is called with, in its order."""
    given = args if args else [kwargs.get("inputs")]
    if len(given) == 1 and isinstance(given[0], dict) and _functional(config):
        own = tensors(config["input_layers"])
        keys = sorted(own) if isinstance(own, dict) else [ref.layer for ref in flat(own)]
        if set(keys) == set(given[0]):
            given = [given[0][key] for key in keys]
    others = {k: v for k, v in kwargs.items() if k != "inputs" and any(isinstance(t, Value) for t in flat(v))}
    if others:
        raise UnsupportedError(f"a tensor as the argument {', '.join(others)} is not supported")
    made = [t for t in flat(given) if t is not None]
    if not all(isinstance(t, Value) for t in made):
        raise UnsupportedError("with a constant, not a tensor of the model, it is not supported")
    return made
