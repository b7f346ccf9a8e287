"""Models in files: our own schema (`native`), and what Keras writes (`keras`)."""

from __future__ import annotations

import os
from typing import Any

import h5py
import numpy as np

from ..files import opened
from ..network import Network
from . import keras, native


def load(path: str | os.PathLike, dtype: Any = np.float64) -> Network:
    """Read a network from a file: our own HDF5 schema, or a Keras model (.h5, .hdf5 or .keras).

    Parameters
    ----------
    path : str or path
        For Keras weights without their architecture see `numpylrp.convert.keras.load`.
    dtype : dtype or None
        float64 or float32: what the network is to compute in. None: as it is in the file.

    Raises
    ------
    FileError
        No such file, damaged, or of no known format.
    UnsupportedError
        A layer or an option that is not known, by name.
    """
    if _is_keras(path):
        return keras.load(path, dtype)
    return native.load(path, dtype)


def _is_keras(path: Any) -> bool:
    if os.path.isfile(path) and not h5py.is_hdf5(path):
        with open(path, "rb") as stream:
            return stream.read(4) == b"PK\x03\x04"
    with opened(path) as file:
        stored = "layers" in file and "format" not in file.attrs
        return "model_config" in file.attrs or "layer_names" in file.attrs or stored
