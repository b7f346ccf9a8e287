"""Keras models: whole-model .h5 of Keras 1 to 3 and .keras files, read with h5py alone.

A model file is data: nothing in it is unpickled or run. Lambda layers and custom objects are refused.
"""

from __future__ import annotations

import io
import json
import os
import zipfile
from pathlib import Path
from typing import Any

import h5py  # type: ignore
import numpy as np

from .. import layers as L
from ..errors import FileError, LRPError, UnsupportedError
from ..export.graph import Value
from ..files import keeps_to_itself, opened, read_json
from ..network import Network
from . import keras1, keras_model, keras_weights
from .keras_layers import Builder, plain
from .keras_refused import called
from .keras_weights import MODELS, Weights
from .tensors import beside

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
    try:
        network = _load(path, architecture)
    except LRPError as error:
        raise error if str(path) in str(error) else type(error)(f"{path}: {error}") from None
    except Exception as error:  # whatever else a stranger's file sets off in JSON, HDF5, NumPy or here
        said = " ".join(f"{type(error).__name__}: {error}".split())
        raise FileError(f"{path}: the model is damaged or not understood ({said:.200})") from error
    return network if dtype is None else network.astype(dtype)


def _load(path: Path, architecture: str | os.PathLike | None) -> Network:
    if zipped(path):
        config, metadata, file = _archive(path)
        with file:
            return _network(path, config, file, metadata, True)
    with opened(path) as file:
        text = file.attrs.get("model_config")
        if text is None:
            config = read_json(beside(path) if architecture is None else architecture)
            group = file
        else:
            if not isinstance(file.get("model_weights"), h5py.Group):
                raise FileError(f"{path}: the group 'model_weights' is missing")
            config, group = _json(text, path), file["model_weights"]
        said = {k: _text(v) for k, v in {**group.attrs, **file.attrs}.items()}
        said |= {k: str(config[k]) for k in ("keras_version", "backend") if k in config}
        return _network(path, config, group, said, text is not None)


def zipped(path: Path) -> bool:
    """Whether a file is a zip archive, or the beginning of one."""
    if not path.is_file():
        return False
    with open(path, "rb") as stream:
        return stream.read(4) == b"PK\x03\x04"


def _text(value: Any) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)


def _json(text: Any, path: Path) -> dict:
    try:
        value = json.loads(text.decode() if isinstance(text, bytes) else text)
    except RecursionError:
        raise FileError(f"{path}: the configuration is nested too deeply") from None
    except (ValueError, TypeError, UnicodeDecodeError) as error:
        raise FileError(f"{path}: the configuration is not JSON ({error})") from None
    if not isinstance(value, dict):
        raise FileError(f"{path}: the configuration is a {type(value).__name__}, not an object")
    return value


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
            texts = [archive.read(name) for name in ("config.json", "metadata.json", "model.weights.h5")]
    except LRPError:
        raise
    except KeyError as error:
        raise FileError(f"{path} is a zip archive, but no Keras model: {error}") from None
    except Exception as error:  # zipfile lets through what zlib, bz2, lzma and struct raise
        said = " ".join(str(error).split()) or type(error).__name__
        raise FileError(f"{path} is a .keras file, but truncated or damaged ({said:.200})") from None
    *configs, weights = texts
    config, metadata = (_json(text, path) for text in configs)
    try:
        file = h5py.File(io.BytesIO(weights), "r")
        keeps_to_itself(file, path)
    except LRPError:
        raise
    except Exception as error:
        said = " ".join(str(error).split())
        raise FileError(f"{path}: model.weights.h5 is damaged ({said:.200})") from None
    return config, metadata, file


def _network(path: Path, config: dict, group: h5py.Group, said: dict, whole: bool) -> Network:
    """The network of a configuration and the group that has its weights.

    `said` are the versions of Keras and of its backend, `whole` whether both come from one file.
    """
    kind = str(config.get("class_name"))
    refused = called(kind, config, config.get("config"))
    if kind not in MODELS or refused:
        why = refused or f"is not supported; there are {', '.join(MODELS)}"
        raise UnsupportedError(f"the model, of class {kind!r:.60}, {why}")
    try:
        model = plain(config.get("config"))
    except RecursionError:
        raise FileError(f"{path}: the configuration is nested too deeply") from None
    keras_model.formed(model, kind)
    by_layer = "layer_names" in group.attrs or "layer_names0" in group.attrs
    keras = _version(said.get("keras_version"), by_layer, model)
    if keras == 1:
        model = keras1.modern(model)
    keras_model.supported(model)
    inputs = keras_model.inputs(model)
    b = Builder(inputs, keras, said.get("backend") == "theano")
    weights: Weights = (
        keras_weights.legacy(group, path, model, keras, whole)
        if by_layer
        else keras_weights.stored(group, path, model, keras)
    )
    given = [Value(name, shape) for name, shape in inputs.items()]
    made = [b.laid(t, False) for t in keras_model.outputs(b, model, given, weights)]
    for n, t in enumerate(made):  # a tensor may be an output twice, and an input one
        if t in made[:n] or t.name in inputs:
            made[n] = b.add(f"{t.name}/output{n}", L.Identity(), t)
    source = {"source": f"Keras {said.get('keras_version', keras)}"}
    return Network(b.layers, inputs, [t.name for t in made], source)


def _version(said: Any, by_layer: bool, model: Any) -> int:
    """The version of Keras, by what the file says, or else by its form."""
    first = str(said).split(".")[0]
    if first.isdecimal() and len(first) < 3:
        return int(first)
    return (1 if keras1.is_old(model) else 2) if by_layer else 3
