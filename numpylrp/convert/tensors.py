"""Tensors in an HDF5 file plus a short architecture in JSON: for people who only have a state dict.

The architecture::

    {
      "input_shape": [3, 32, 32],
      "layers": [
        {"name": "conv1", "kind": "Conv2D", "padding": 1},
        {"name": "bn1", "kind": "BatchNorm"},
        {"name": "relu", "kind": "ReLU"},
        {"name": "sum", "kind": "Add", "inputs": ["relu", "conv1"]},
        {"name": "pool", "kind": "GlobalAveragePool"},
        {"name": "fc", "kind": "Dense", "tensors": "linear"}
      ]
    }

``kind`` and its options are those of `numpylrp.layers`; a layer reads the one before, or its
``inputs``. Its arrays are the tensors ``NAME.weight``, ``NAME.bias`` and so on (see `NAMES`), where
``tensors`` gives another NAME, or a tensor for each parameter: ``{"weight": "w1"}``. At the top, there
may also be ``prefix`` ("module.", put before every tensor's name), ``outputs``, ``class_names``,
``input_range`` and ``unused``, a list of tensors (with wildcards) that no layer is to read.

A state dict becomes such a file with ``for k, v in state_dict.items(): file[k] = v.numpy()``.
"""

from __future__ import annotations

import dataclasses
import os
import re
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import h5py  # type: ignore
import numpy as np

from ..errors import FileError, LRPError, UnsupportedError
from ..files import guarded, opened, read_json, stored_array
from ..layers import KINDS, Layer
from ..network import Network
from .native import tuples

NAMES = {
    "weight": ("weight",),
    "bias": ("bias",),
    "gamma": ("gamma", "weight"),
    "beta": ("beta", "bias"),
    "mean": ("mean", "running_mean"),
    "variance": ("variance", "running_var"),
    "slope": ("slope", "weight"),
}
"""For each parameter, what its tensor may be called (PyTorch's names among them)."""

UNUSED = ["*num_batches_tracked"]


def load(path: str | os.PathLike, architecture: Any, dtype: Any = np.float64) -> Network:
    """Read a network from tensors and its architecture.

    Parameters
    ----------
    path : str or path
        HDF5 file whose datasets are the tensors; groups count as "." in their names.
    architecture : path or dict
        The JSON of the module's docstring.
    dtype : dtype or None
        float64 or float32, what the network is to compute in; None: as in the file.

    Raises
    ------
    FileError
        A tensor that is missing, or that no layer reads.
    UnsupportedError
        A kind of layer or an option that is not known.
    """
    if not isinstance(architecture, dict):
        architecture = read_json(architecture)
    with guarded(path):
        network = _network(path, architecture)
    return network if dtype is None else network.astype(dtype)


def _network(path: str | os.PathLike, architecture: dict) -> Network:
    for key in ("input_shape", "layers"):
        if key not in architecture:
            raise FileError(f"the architecture has no {key!r}")
    with opened(path) as file:
        tensors: dict[str, h5py.Dataset] = {}
        file.visititems(lambda name, item: _collect(tensors, name, item))
        left = set(tensors)
        layers = []
        for n, entry in enumerate(architecture["layers"]):
            name = entry.get("name", f"layer{n}") if isinstance(entry, dict) else None
            if name is None or "kind" not in entry:
                raise FileError(f"entry {n} of the architecture's layers has no kind: {entry!r:.80}")
            prefix = architecture.get("prefix", "")
            layer, read = _layer(name, entry, tensors, prefix, path)
            left -= read
            layers.append((name, layer, *([tuples(entry["inputs"])] if "inputs" in entry else [])))
    unused = [*UNUSED, *architecture.get("unused", [])]
    left = {t for t in left if not any(fnmatchcase(t, pattern) for pattern in unused)}
    if left:
        raise FileError(f"{path}: no layer of the architecture reads {', '.join(sorted(left))}")
    shape = architecture["input_shape"]
    shape = {k: tuple(v) for k, v in shape.items()} if isinstance(shape, dict) else tuple(shape)
    metadata = {k: architecture[k] for k in ("class_names", "input_range") if k in architecture}
    return Network(layers, shape, architecture.get("outputs"), metadata)


def beside(path: str | os.PathLike) -> Path:
    """Where the architecture of a file of weights is looked for: the same name with the ending .json."""
    path = Path(path)
    at = path.with_name(re.sub(r"(\.weights)?\.(h5|hdf5)$", "", path.name) + ".json")
    if not at.exists():
        raise FileError(f"{path} holds weights only, and its architecture {at} does not exist")
    return at


def _collect(tensors: dict, name: str, item: Any) -> None:
    if isinstance(item, h5py.Dataset):
        tensors[name.replace("/", ".")] = item


def _layer(name: str, entry: dict, tensors: dict, prefix: str, path: Any) -> tuple[Layer, set[str]]:
    """The layer of an entry, and the tensors that it read."""
    kind = entry["kind"]
    if kind not in KINDS:
        raise UnsupportedError(
            f"layer {name!r} is of the unknown kind {kind!r}; there are {', '.join(KINDS)}"
        )
    own = entry.get("tensors", name)
    fields = dataclasses.fields(KINDS[kind])
    arrays: dict[str, Any] = {}
    read = set()
    for field in fields:
        if not {"Array", "ndarray"} & set(re.findall(r"\w+", str(field.type))) or field.name in entry:
            continue
        optional = field.default is not dataclasses.MISSING or "None" in str(field.type)
        if isinstance(own, dict):
            names, optional = ([own[field.name]], False) if field.name in own else ([], optional)
        else:
            names = [f"{own}.{n}" for n in NAMES.get(field.name, (field.name,))]
        found = next((prefix + n for n in names if prefix + n in tensors), None)
        if found is not None:
            arrays[field.name] = stored_array(tensors[found], f"{path}: {found} of layer {name!r}")
            read.add(found)
        elif optional:
            arrays[field.name] = None
        else:
            wanted = " or ".join(prefix + n for n in names) or field.name
            raise FileError(f"{path}: layer {name!r} ({kind}) lacks {wanted}")
    options = {k: tuples(v) for k, v in entry.items() if k not in ("name", "kind", "inputs", "tensors")}
    known = {field.name for field in fields}
    for key in options:
        if key not in known:
            raise UnsupportedError(
                f"layer {name!r} ({kind}) has no option {key!r}; there are {', '.join(sorted(known))}"
            )
    try:
        return KINDS[kind](**options, **arrays), read
    except LRPError as error:
        raise type(error)(f"layer {name!r}: {error}") from None
    except TypeError as error:
        raise FileError(f"layer {name!r} ({kind}): {error}") from None
