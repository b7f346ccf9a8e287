"""Our own HDF5 schema: weights, graph and metadata of a network, for any program to read or write.

Version 1::

    /                    attributes
      format             "numpylrp"
      version            1
      outputs            JSON list of layer names
      metadata           JSON object: class_names, input_range, ...
      checksum           optional: `numpylrp.files.digest` of the file, looked at when it is read
    /inputs/NAME         attribute shape: JSON list, sample shape; null for a free size
    /layers/0000         one group a layer, in an order in which each comes after what it reads
      name               attribute: its name
      kind               attribute: a name in `numpylrp.layers.KINDS`
      inputs             attribute: JSON list of the names it reads
      options            attribute: JSON object: the parameters that are not arrays
      PARAMETER          dataset: a parameter that is an array, float32 or float64
      same_as            attribute, instead of options and datasets: "0003", the group of
                         the layer whose parameters it shares

Parameters have the names, layouts and meanings of the classes in `numpylrp.layers`; those left out
have the defaults of the classes. Text is UTF-8.
"""

from __future__ import annotations

import dataclasses
import json
import os
from typing import Any

import h5py  # type: ignore
import numpy as np

from ..errors import FileError, LRPError, UnsupportedError
from ..files import check_unchanged, digest, opened, stored_array, whole
from ..layers import KINDS, Layer, TimeDistributed
from ..network import Network

FORMAT, VERSION = "numpylrp", 1


def save(network: Network, path: str | os.PathLike) -> None:
    """Write a network to an HDF5 file of our schema, whole or not at all.

    The same network gives the same bytes. Arrays keep their dtype.

    Parameters
    ----------
    network : Network
    path : str or path

    Examples
    --------
    >>> import tempfile, os
    >>> from numpylrp.layers import Dense
    >>> net = Network([("fc", Dense([[1.0, 2.0]]))], input_shape=(2,), metadata={"class_names": ["a"]})
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     save(net, os.path.join(folder, "net.h5"))
    ...     load(os.path.join(folder, "net.h5")).forward([[1.0, 1.0]])
    array([[3.]])
    """
    try:
        metadata = json.dumps(network.metadata, allow_nan=False, default=_plain)
    except (TypeError, ValueError) as error:
        raise LRPError(f"the metadata can't be written as JSON: {error}") from None
    with whole(path) as beside, h5py.File(beside, "w") as file:
        file.attrs.update(format=FORMAT, version=VERSION, outputs=json.dumps(network.outputs))
        file.attrs["metadata"] = metadata
        for name, shape in network.inputs.items():
            file.create_group(f"inputs/{_safe(name)}").attrs["shape"] = json.dumps(shape)
        written: dict[int, str] = {}
        for n, node in enumerate(network.nodes):
            key = f"{n:04d}"
            group = file.create_group(f"layers/{key}")
            kind = _kind(node.layer, node.name)
            group.attrs.update(name=node.name, kind=kind, inputs=json.dumps(node.inputs))
            if id(node.layer) in written:
                group.attrs["same_as"] = written[id(node.layer)]
                continue
            written[id(node.layer)] = key
            arrays = node.layer.arrays()
            group.attrs["options"] = json.dumps(_options(node.layer), default=_plain)
            for name, array in arrays.items():
                group.create_dataset(name, data=array)
        file.attrs["checksum"] = digest(file)


def _safe(name: str) -> str:
    if not name or "/" in name or name == ".":
        raise LRPError(f"an input can't be called {name!r} in a file")
    return name


def _plain(value: Any) -> Any:
    """NumPy numbers and arrays as JSON has them."""
    if isinstance(value, (np.generic, np.ndarray)):
        return value.tolist()
    raise TypeError(f"{value!r:.80} is neither a number, a text, a list nor a mapping")


def _kind(layer: Layer, name: str) -> str:
    """The name of a layer's class, which a file can be read with."""
    kind = type(layer)
    if KINDS.get(kind.__name__) is not kind:
        raise LRPError(
            f"layer {name!r} is of a class of your own, {kind.__module__}.{kind.__name__}, "
            "that a file can't hold"
        )
    return kind.__name__


def _options(layer: Layer) -> dict[str, Any]:
    fields = {f.name: getattr(layer, f.name) for f in dataclasses.fields(layer)}
    found = {name: value for name, value in fields.items() if not isinstance(value, np.ndarray)}
    if isinstance(layer, TimeDistributed):  # its arrays are those of the layer in it
        found["layer"] = {"kind": type(layer.layer).__name__, "options": _options(layer.layer)}
    return found


def load(path: str | os.PathLike, dtype: Any = np.float64) -> Network:
    """Read a network from an HDF5 file of our schema.

    Parameters
    ----------
    path : str or path
    dtype : dtype or None
        float64 or float32: what the network is to compute in. None: as it is in the file.

    Raises
    ------
    FileError
        No such file, not HDF5, truncated, not of our schema, or of a version from the future.
    UnsupportedError
        A kind of layer that this version does not have.
    LRPError
        What the file says is not a valid network.
    """
    with opened(path) as file:
        if _attribute(file, "format", path, "") != FORMAT:
            raise FileError(f"{path} is an HDF5 file, but not a network of numpylrp's schema")
        version = _attribute(file, "version", path)
        if not isinstance(version, (int, np.integer)) or version > VERSION or version < 1:
            raise FileError(f"{path} has schema version {version}; this numpylrp reads up to {VERSION}")
        for name in ("layers", "inputs"):
            if not isinstance(file.get(name), h5py.Group):
                raise FileError(f"{path}: the group 'layers' or 'inputs' is missing")
        inputs = {name: tuple(_json(group, "shape", path, list)) for name, group in file["inputs"].items()}
        layers: dict[str, Layer] = {}
        entries = []
        for key, group in file["layers"].items():
            name, reads = _attribute(group, "name", path), _json(group, "inputs", path, list)
            same = _attribute(group, "same_as", path, None)
            if same is None:
                layers[key] = _layer(group, name, path)
            elif same in layers:
                layers[key] = layers[same]
            else:
                raise FileError(
                    f"{path}: layer {name!r} is the same as {same!r}, which does not come before it"
                )
            entries.append((name, layers[key], reads))
        outputs = _json(file, "outputs", path, list)
        metadata = _json(file, "metadata", path, dict)
        network = Network(entries, inputs, outputs, metadata)
        check_metadata(network)
        check_unchanged(file, path)  # last: what is wrong with it says more
    return network if dtype is None else network.astype(dtype)


def check_metadata(network: Network) -> None:
    """Refuse class names that are not as many as classes, and an input range that is none."""
    names = network.metadata.get("class_names")
    if names is not None:
        if not (isinstance(names, list) and all(isinstance(n, str) for n in names)):
            raise FileError("class_names must be a list of texts")
        shapes = [network.shapes[name] for name in network.outputs]
        counts = {n for shape in shapes for n in shape}
        single = any(all(n == 1 for n in shape) for shape in shapes) and len(names) == 2
        if None not in counts and len(names) not in counts and not single:
            shape = " x ".join(map(str, shapes[0]))
            raise FileError(f"class_names has {len(names)} names, but the output has shape {shape}")
    bounds = network.metadata.get("input_range")
    if bounds is not None:
        try:
            low, high = (np.asarray(bound, float) for bound in bounds)
            valid = bool(np.isfinite(low).all() and np.isfinite(high).all() and (low < high).all())
        except (TypeError, ValueError):
            valid = False
        if not valid:
            raise FileError(f"input_range must be two numbers, low below high, not {bounds!r:.80}")


def _layer(group: h5py.Group, name: str, path: Any) -> Layer:
    kind = _attribute(group, "kind", path)
    if not isinstance(kind, str) or kind not in KINDS:
        raise UnsupportedError(
            f"{path}: layer {name!r} is of the unknown kind {kind!r}; there are {', '.join(KINDS)}"
        )
    options = _json(group, "options", path, dict)
    arrays = {
        key: stored_array(data, f"{path}: {data.name} of layer {name!r}") for key, data in group.items()
    }
    inside = options.get("layer") if kind == "TimeDistributed" else None
    if inside is not None:
        known = isinstance(inside, dict) and isinstance(inside.get("options"), dict)
        if not known or inside.get("kind") not in KINDS or inside["kind"] == kind:
            raise FileError(f"{path}: layer {name!r} ({kind}) holds no layer that is known: {inside!r:.80}")
        return TimeDistributed(_built(inside["kind"], inside["options"], arrays, name, path))
    return _built(kind, options, arrays, name, path)


def _built(kind: str, options: dict, arrays: dict, name: str, path: Any) -> Layer:
    """A layer of this kind, which KINDS has, with these parameters."""
    fields = {f.name: f for f in dataclasses.fields(KINDS[kind])}
    for key in (*options, *arrays):
        if key not in fields:
            raise UnsupportedError(
                f"{path}: layer {name!r} ({kind}) has the unknown parameter {key!r}; "
                f"there are {', '.join(fields) or 'none'}"
            )
    needed = [f.name for f in fields.values() if f.default is dataclasses.MISSING]
    missing = [key for key in needed if key not in options and key not in arrays]
    if missing:
        raise FileError(f"{path}: layer {name!r} ({kind}) lacks {', '.join(missing)}")
    try:
        return KINDS[kind](**{key: tuples(value) for key, value in options.items()}, **arrays)
    except LRPError as error:
        raise type(error)(f"{path}: layer {name!r}: {error}") from None
    except TypeError as error:
        raise FileError(f"{path}: layer {name!r} ({kind}): {error}") from None


def tuples(value: Any) -> Any:
    """Lists of JSON as tuples."""
    return tuple(map(tuples, value)) if isinstance(value, list) else value


_NEEDED = object()


def _attribute(group: h5py.Group, name: str, path: Any, default: Any = _NEEDED) -> Any:
    if name not in group.attrs:
        if default is _NEEDED:
            raise FileError(f"{path}: attribute {name!r} of {group.name} is missing")
        return default
    return group.attrs[name]


def _json(group: h5py.Group, name: str, path: Any, kind: type) -> Any:
    text = _attribute(group, name, path)
    try:
        value = json.loads(text)
    except (TypeError, ValueError):
        raise FileError(f"{path}: attribute {name!r} of {group.name} is not JSON") from None
    if not isinstance(value, kind):
        raise FileError(f"{path}: attribute {name!r} of {group.name} is to be a JSON {kind.__name__}")
    return value
