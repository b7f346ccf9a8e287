"""Keras models: whole-model .h5 of Keras 1 to 3 and .keras files, read with h5py alone.

A model file is data: nothing in it is unpickled or run. Lambda layers and custom objects are refused.
"""

from __future__ import annotations

import io
import json
import os
import re
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from .. import layers as L
from ..errors import FileError, LRPError, UnsupportedError
from ..files import keeps_to_itself, opened, read_json, stored_array
from ..network import Network
from . import keras1
from . import keras_operations as operations
from .keras_layers import BUILDERS, Builder, Tensor, build, variables
from .tensors import beside

MODELS = ("Sequential", "Functional", "Model")
LARGEST = 2**34
"""Largest member of a .keras file, in bytes, once unpacked."""


def load(
    path: str | os.PathLike, dtype: Any = np.float64, architecture: str | os.PathLike | None = None
) -> Network:
    """Read a Keras model as a network of ours.

    Parameters
    ----------
    path : str or path
        A whole model (.h5, .hdf5 or .keras), or weights only (.weights.h5, .h5).
    dtype : dtype or None
        float64 or float32, what the network is to compute in; None: as in the file.
    architecture : path, optional
        For weights only: the model's JSON (``model.to_json()``). By default the file of the same
        name with the ending .json.

    Returns
    -------
    Network
        Its inputs and outputs are laid out as in Keras, channels last where the model is.

    Raises
    ------
    FileError, UnsupportedError
    """
    path = Path(path)
    if zipped(path):
        config, metadata, file = _archive(path)
        with file:
            return _network(path, config, _Stored(file), metadata, dtype)
    with opened(path) as file:
        text = file.attrs.get("model_config")
        if text is None:
            config = read_json(beside(path) if architecture is None else architecture)
            source = _Legacy(file, path) if "layer_names" in file.attrs else _Stored(file)
        else:
            if "model_weights" not in file:
                raise FileError(f"{path}: the group 'model_weights' is missing")
            config, source = _json(text, path), _Legacy(file["model_weights"], path)
        said = {**source.group.attrs, **file.attrs}
        old = isinstance(source, _Legacy) and _is_old(config)
        version = _text(
            said.get("keras_version", "1" if old else "2" if isinstance(source, _Legacy) else "3")
        )
        metadata = {"keras_version": version, "backend": _text(said.get("backend", ""))}
        return _network(path, config, source, metadata, dtype)


def zipped(path: Path) -> bool:
    """Whether a file is a zip archive, or the beginning of one."""
    if not path.is_file():
        return False
    with open(path, "rb") as stream:
        return stream.read(4) == b"PK\x03\x04"


def _text(value: Any) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)


def _is_old(config: Any) -> bool:
    try:
        return keras1.is_old(config["config"])
    except (KeyError, TypeError, AttributeError):
        return False  # what is wrong is said later


def _json(text: Any, path: Path) -> dict:
    try:
        return json.loads(text.decode() if isinstance(text, bytes) else text)
    except (ValueError, UnicodeDecodeError) as error:
        raise FileError(f"{path}: the configuration is not JSON ({error})") from None


def _archive(path: Path) -> tuple[dict, dict, h5py.File]:
    """Configuration, metadata and weights of a .keras file."""
    try:
        with zipfile.ZipFile(path) as archive:
            for member in archive.infolist():
                parts = Path(member.filename).parts
                if member.filename.startswith(("/", "\\")) or ".." in parts or ":" in member.filename:
                    raise FileError(f"{path}: the member {member.filename!r} leads out of the archive")
                if member.file_size > min(LARGEST, 2**24 + 100 * member.compress_size):
                    raise FileError(f"{path}: the member {member.filename!r} claims {member.file_size} bytes")
            config = _json(archive.read("config.json"), path)
            metadata = _json(archive.read("metadata.json"), path)
            weights = archive.read("model.weights.h5")
    except KeyError as error:
        raise FileError(f"{path} is a zip archive, but no Keras model: {error}") from None
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError) as error:
        raise FileError(f"{path} is a .keras file, but truncated or damaged ({error})") from None
    try:
        file = h5py.File(io.BytesIO(weights), "r")
    except OSError as error:
        raise FileError(f"{path}: model.weights.h5 is damaged ({error})") from None
    keeps_to_itself(file, path)
    return config, metadata, file


class _Legacy:
    """Weights by layer name, as .h5 files of Keras 1 to 3 have them."""

    def __init__(self, group: h5py.Group, path: Path) -> None:
        self.group, self.path = group, path

    def layer(self, kind: str, name: str, index: str) -> list[np.ndarray]:
        """The variables of a layer."""
        if name not in self.group:
            return []
        group = self.group[name]
        names = [n.decode() if isinstance(n, bytes) else n for n in self._names(group)]
        for n in names:
            if n not in group:
                raise FileError(f"{self.path}: layer {name!r}: the weights {n!r} are missing")
        return [stored_array(group[n], f"{self.path}: {n} of layer {name!r}") for n in names]

    def _names(self, group: h5py.Group) -> list:
        if "weight_names" in group.attrs:
            return list(group.attrs["weight_names"])
        chunks = sorted(
            (k for k in group.attrs if re.fullmatch(r"weight_names\d+", k)), key=lambda k: int(k[12:])
        )
        return [n for k in chunks for n in group.attrs[k]]

    def model(self, name: str, index: str, config: dict) -> _Given:
        """The variables of a model used as a layer: the trained ones of all its layers come first."""
        values = iter(self.layer("", name, index))
        own: dict[str, list] = {}
        slots: list[tuple[str, bool, int]] = []
        for key, trained, n in _slots(config, name, True):
            own.setdefault(key, []).append(None)
            slots.append((key, trained, n))
        for wanted in (True, False):
            for key, trained, n in slots:
                if trained == wanted:
                    own[key][n] = next(values, None)
        if next(values, None) is not None or any(v is None for vs in own.values() for v in vs):
            raise FileError(f"{self.path}: model {name!r}: the number of weights is not that of its layers")
        return _Given(own, name)


def _slots(config: dict, prefix: str, trains: bool) -> Iterator[tuple[str, bool, int]]:
    """Each variable of a model's layers: its layer's key, whether it is trained, its number."""
    for entry in _entries(config):
        c = entry["config"]
        key, trained = f"{prefix}/{_name(entry)}", trains and c.get("trainable", True) is not False
        if entry["class_name"] in MODELS:
            yield from _slots(c, key, trained)
        else:
            for n, flag in enumerate(variables(entry["class_name"], c)):
                yield key, flag and trained, n


class _Given:
    """Weights of a nested model, sorted out already."""

    def __init__(self, own: dict[str, list], prefix: str) -> None:
        self.own, self.prefix = own, prefix

    def layer(self, kind: str, name: str, index: str) -> list[np.ndarray]:
        """The variables of a layer."""
        return self.own.get(f"{self.prefix}/{name}", [])

    def model(self, name: str, index: str, config: dict) -> _Given:
        """A model inside."""
        return _Given(self.own, f"{self.prefix}/{name}")


class _Stored:
    """Weights by class and number, as Keras 3 stores them: layers/conv2d_1/vars/0."""

    def __init__(self, group: h5py.Group) -> None:
        self.group = group

    def layer(self, kind: str, name: str, index: str) -> list[np.ndarray]:
        """The variables of a layer."""
        at = f"layers/{index}/{'layer/' if kind == 'TimeDistributed' else ''}vars"
        if at not in self.group:
            return []
        group = self.group[at]
        return [stored_array(group[k], f"{group.name}/{k} (layer {name!r})") for k in sorted(group, key=int)]

    def model(self, name: str, index: str, config: dict) -> _Stored:
        """A model inside."""
        if f"layers/{index}" not in self.group:
            raise FileError(f"the weights of the model {name!r} (layers/{index}) are missing")
        return _Stored(self.group[f"layers/{index}"])


def _entries(config: Any) -> list[dict]:
    return config if isinstance(config, list) else config["layers"]


def _name(entry: dict) -> str:
    return entry.get("name") or entry["config"]["name"]


def _snake(kind: str) -> str:
    """A class name as Keras 3 writes it in paths."""
    text = re.sub(r"\W+", "", kind)
    text = re.sub("(.)([A-Z][a-z]+)", r"\1_\2", text)
    return re.sub("([a-z])([A-Z])", r"\1_\2", text).lower()


def _network(path: Path, config: dict, source: Any, metadata: dict, dtype: Any) -> Network:
    if not isinstance(metadata, dict):
        raise FileError(f"{path}: metadata.json is not an object")
    first = str(metadata.get("keras_version", "2")).split(".")[0]
    version = int(first) if first.isdecimal() else 2
    b = Builder(version, metadata.get("backend") == "theano")
    try:
        kind = config["class_name"]
        if kind not in MODELS:
            raise UnsupportedError(
                f"a model of class {kind!r} is not supported; there are {', '.join(MODELS)}"
            )
        if version == 1:
            config = {**config, "config": keras1.modern(config["config"])}
        inputs = _inputs(config["config"])
        given = [Tensor(name, len(shape)) for name, shape in inputs.items()]
        outputs = _model(b, config["config"], given, source, "")
        outputs = [b.laid(t, False) for t in outputs]
        for n, t in enumerate(outputs):  # a tensor may be an output twice
            if t in outputs[:n]:
                outputs[n] = b.add(f"{t.name}/again{n}", L.Identity(), t)
        network = Network(
            b.layers,
            inputs,
            [t.name for t in outputs],
            {"source": f"Keras {metadata.get('keras_version', '?')}"},
        )
    except LRPError as error:
        raise type(error)(f"{path}: {error}") from None
    except (KeyError, TypeError, ValueError, IndexError, AttributeError) as error:
        raise FileError(f"{path}: the configuration is not understood ({error!r})") from error
    return network if dtype is None else network.astype(dtype)


def _shape(c: dict) -> list | None:
    for key in ("batch_shape", "batch_input_shape"):
        if c.get(key) is not None:
            shape = c[key]
            return list((shape[0] if isinstance(shape[0], (list, tuple)) else shape)[1:])
    return None


def _inputs(config: Any) -> dict[str, tuple]:
    """The inputs of the model: their names here and their sample shapes."""
    shapes = {}
    for entry in _entries(config):
        shape = _shape(entry["config"])
        if entry["class_name"] in MODELS and not shapes and shape is None:
            return _inputs(entry["config"])  # a Sequential that begins with a model
        if shape is not None and (entry["class_name"] == "InputLayer" or not shapes):
            shapes[_name(entry)] = tuple(shape)
            if entry["class_name"] != "InputLayer":
                break
        elif not isinstance(config, dict) or "input_layers" not in config:
            break
    if not shapes and isinstance(config, dict) and config.get("build_input_shape"):
        shapes["input"] = tuple(config["build_input_shape"][1:])
    if not shapes:
        raise FileError("the model does not say what shape its input has")
    return {"input": next(iter(shapes.values()))} if len(shapes) == 1 else shapes


def _model(b: Builder, config: Any, inputs: list[Tensor], source: Any, prefix: str) -> list[Tensor]:
    """Add the layers of a model; its outputs."""
    functional = isinstance(config, dict) and "input_layers" in config
    counts: dict[str, int] = {}
    layers, made = {}, {}
    for entry in _entries(config):
        kind, name = entry["class_name"], _name(entry)
        snake = _snake(kind)
        index = snake if snake not in counts else f"{snake}_{counts[snake]}"
        counts[snake] = counts.get(snake, 0) + 1
        layers[name] = (kind, entry, index)

    calls: dict[str, int] = {}

    def call(name: str, tensors: list[Any]) -> list[Tensor]:
        kind, entry, index = layers[name]
        c, again = entry["config"], calls.get(name, 0)
        calls[name] = again + 1
        full = f"{prefix}{name}" + (f"_call{again}" if again else "")
        if kind in MODELS:
            return _model(b, c, tensors, source.model(name, index, c), f"{full}/")
        what = operations.operation(entry)
        if what is None and kind not in BUILDERS:
            why = "runs code from the file, which is refused" if "Lambda" in kind else "is not supported"
            raise UnsupportedError(f"layer {name!r} of kind {kind!r} {why}; there are {', '.join(BUILDERS)}")
        if name not in made and what is None:
            made[name] = source.layer(kind, name, index)
            if b.keras == 1:
                made[name] = keras1.weights(kind, c, made[name])
            if b.theano:
                made[name] = keras1.turned(kind, made[name])
        try:
            if what is not None:
                return [operations.build(b, what, full, tensors)]
            return [build(b, kind, full, c, tensors, made[name])]
        except LRPError as error:
            raise type(error)(f"layer {name!r} ({what or kind}): {error}") from None
        except (KeyError, TypeError, ValueError, IndexError) as error:
            raise FileError(
                f"layer {name!r} ({kind}): the configuration is not understood ({error!r})"
            ) from error

    if not functional:
        tensors = inputs
        for name, (kind, _, _) in layers.items():
            tensors = tensors if kind == "InputLayer" else call(name, tensors)
        return tensors
    return _functional(config, layers, inputs, call)


def _functional(config: dict, layers: dict, inputs: list[Tensor], call: Any) -> list[Tensor]:
    """The outputs of a functional model: layers are called once all that they read is there."""
    names = [ref[0] for ref in _refs(config["input_layers"])]
    values = {(name, 0): [t] for name, t in zip(names, inputs)}
    left = [
        (name, n, _refs(node) if operations.operation(entry) is None else operations.operands(node))
        for name, (kind, entry, _) in layers.items()
        if kind != "InputLayer"
        for n, node in enumerate(entry.get("inbound_nodes") or [])
    ]

    def known(operand: Any) -> bool:
        return not isinstance(operand, operations.Ref) or operand[:2] in values

    while left:
        ready = next((x for x in left if all(map(known, x[2]))), None)
        if ready is None:
            raise FileError(f"layers {', '.join(sorted({x[0] for x in left}))} read what is not there")
        name, n, refs = ready
        if not refs:
            raise UnsupportedError(f"layer {name!r} is called with something that is no tensor of the model")
        values[name, n] = call(
            name, [values[r[:2]][r.output] if isinstance(r, operations.Ref) else r for r in refs]
        )
        left.remove(ready)
    return [values[r[0], r[1]][r[2]] for r in _refs(config["output_layers"])]


def _refs(node: Any) -> list[operations.Ref]:
    """The tensors that a node names: (layer, node, tensor), in the notation of Keras 2 or 3."""
    if isinstance(node, dict):
        if "keras_history" in node:
            return [operations.Ref(*node["keras_history"][:3])]
        return [ref for value in node.values() for ref in _refs(value)]
    if isinstance(node, (list, tuple)):
        if len(node) >= 3 and isinstance(node[0], str) and all(isinstance(n, int) for n in node[1:3]):
            return [operations.Ref(*node[:3])]
        return [ref for value in node for ref in _refs(value)]
    return []
