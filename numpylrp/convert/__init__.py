"""Models in files: our own schema (`native`), what Keras writes (`keras`), and tensors (`tensors`)."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import h5py  # type: ignore
import numpy as np

from ..errors import FileError
from ..files import opened, read_json
from ..network import Network
from . import keras, native, tensors

PICKLES = (".pt", ".pth", ".th", ".bin", ".ckpt", ".pkl", ".pickle")


def load(
    path: str | os.PathLike, dtype: Any = np.float64, architecture: str | os.PathLike | None = None
) -> Network:
    """Read a network from a file: our own HDF5 schema, a Keras model, tensors, or ONNX.

    Parameters
    ----------
    path : str or path
        Ours (see `numpylrp.convert.native`); Keras' .h5, .hdf5 or .keras; weights or tensors in HDF5
        with their architecture; .onnx, which needs the extra ``onnx``.
    dtype : dtype or None
        float64 or float32: what the network is to compute in. None: as it is in the file.
    architecture : path, optional
        For weights alone: Keras' JSON (``model.to_json()``), or that of `numpylrp.convert.tensors`.
        By default the file of the same name with the ending .json.

    Raises
    ------
    FileError
        No such file, damaged, or of no known format.
    UnsupportedError
        A layer or an option that is not known, by name.

    Notes
    -----
    Nothing in a file is unpickled or run, and what it holds never ends in anything but an `LRPError`. Not
    protected is what the HDF5 library makes of a file that was damaged on purpose: a few in ten thousand
    make it hang or crash, which no Python code can catch. Load files that you do not trust at all in a
    process of its own, with limits of time and memory.
    """
    suffix = os.path.splitext(path)[1].lower()
    if suffix == ".onnx":
        from ..export import onnx

        network = onnx.convert(path)
        return network if dtype is None else network.astype(dtype)
    if os.path.isfile(path) and not h5py.is_hdf5(path):
        if suffix in PICKLES:
            raise FileError(
                f"{path} is a PyTorch pickle, which is never unpickled here: where PyTorch is, write the "
                "module with numpylrp.export.torch.save, or the tensors of its state dict to HDF5"
            )
        if keras.zipped(Path(path)):
            return keras.load(path, dtype)
    with opened(path) as file:
        attributes = set(file.attrs)
        stored = "layers" in file and "format" not in attributes
    if "model_config" in attributes:
        return keras.load(path, dtype)
    if "format" in attributes:
        return native.load(path, dtype)
    if architecture is None and not (stored or "layer_names" in attributes):
        try:
            architecture = tensors.beside(path)
        except FileError:
            return native.load(path, dtype)  # which says that it is not ours
    at = tensors.beside(path) if architecture is None else architecture
    if "class_name" in read_json(at):
        return keras.load(path, dtype, at)
    return tensors.load(path, at, dtype)


__all__ = ["keras", "load", "native", "tensors"]
