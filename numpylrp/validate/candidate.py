"""What a candidate gives: arrays by name, checked, in the precision of their numbers; and files of them."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import h5py  # type: ignore
import numpy as np

from ..errors import FileError, LRPError
from ..files import check_unchanged, opened, read_npz, stored_array
from ..network import Network
from .bounds import UNITS

ACTIVATIONS = "activations/"
"""What the names of activations begin with in files, and in a mapping of both."""


@dataclass
class Given:
    """Arrays by name.

    Attributes
    ----------
    arrays : dict of array
        In float64, as they were given; of another shape where that could be read.
    units : dict of float
        Unit roundoff of their precision.
    problems : dict of str
        What is wrong with others, or with these.
    maps : set of str
        Those that are sums over channels, (N, H, W) or (N, 1, H, W).
    """

    arrays: dict[str, np.ndarray] = field(default_factory=dict)
    units: dict[str, float] = field(default_factory=dict)
    problems: dict[str, str] = field(default_factory=dict)
    maps: set[str] = field(default_factory=set)

    def seen(self, name: str, value: np.ndarray) -> np.ndarray:
        """A value as the candidate gives it: itself, or its sum over channels."""
        return value.sum(1).reshape(self.arrays[name].shape) if name in self.maps else value

    def whole(self, shapes: Mapping[str, tuple]) -> dict[str, np.ndarray]:
        """Those that can stand for the values themselves."""
        return {k: a for k, a in self.arrays.items() if a.shape == shapes[k] and np.isfinite(a).all()}


def given(candidate: Mapping[str, Any], shapes: Mapping[str, tuple], what: str = "value") -> Given:
    """The candidate's arrays.

    Parameters
    ----------
    candidate : mapping of name to array
    shapes : mapping of name to tuple
        Of the values there are, the batch included.
    what : str
        What a name stands for.
    """
    if not isinstance(candidate, Mapping):
        raise LRPError("the candidate is to be a mapping of names to arrays")
    found = Given()
    for name, value in candidate.items():
        if name not in shapes:
            found.problems[name] = f"no {what} of this network"
            continue
        try:
            array = np.asarray(value)
            if array.dtype.kind not in "fiub":
                raise TypeError
        except (TypeError, ValueError, RuntimeError):  # of tensors that want to be detached first
            kind = getattr(value, "dtype", type(value).__name__)
            found.problems[name] = f"not an array of real numbers ({kind})"
            continue
        want = shapes[name]
        if array.shape == want[1:] and want[0] == 1:
            array = array[None]
        if array.shape == want[2:] and want[0] == 1 and len(want) == 4:
            array = array[None]
        found.units[name] = unit(array)
        found.arrays[name] = array = array.astype(np.float64)
        if len(want) == 4 and want[1] > 1 and array.shape in (want[:1] + want[2:], (want[0], 1, *want[2:])):
            found.maps.add(name)
        elif array.shape != want:
            found.problems[name] = f"shape {array.shape}, expected {want}"
        if not np.isfinite(array).all():
            bad = np.argwhere(~np.isfinite(array))
            found.problems[name] = (
                f"{len(bad)} of {array.size} values are NaN or infinite, first at {tuple(bad[0].tolist())}"
            )
    return found


def unit(array: np.ndarray) -> float:
    """The unit roundoff of an array's dtype."""
    return UNITS.get(array.dtype.name, UNITS["float64"])


def is_float32(array: np.ndarray) -> bool:
    """Whether float64 numbers were float32 before: all fit, with more digits than small fractions have."""
    with np.errstate(over="ignore"):
        single = array.astype(np.float32)
    return bool((single == array).all() and (single.view(np.int32) & 0xFF).any())


def usable(found: Given, shapes: Mapping[str, tuple]) -> None:
    """Raise where nothing can be compared."""
    some = (
        name in found.maps or _could_be(value.shape, shapes[name])
        for name, value in found.arrays.items()
        if np.isfinite(value).any()
    )
    if not any(some):
        told = "; ".join(f"{name}: {text}" for name, text in found.problems.items()) or "it is empty"
        raise LRPError(f"nothing in the candidate can be compared ({told}); there are {', '.join(shapes)}")


def _could_be(shape: tuple, want: tuple) -> bool:
    """Whether another order of axes, or another size of the image, could explain a shape."""
    if np.prod(shape, dtype=int) == np.prod(want, dtype=int):
        return True
    same = len(shape) == len(want) > 2 and shape[:-2] == want[:-2]
    return same and all(a % b == 0 or b % a == 0 for a, b in zip(shape[-2:], want[-2:]))


def apart(candidate: Mapping[str, Any], network: Network) -> tuple[dict[str, Any], dict[str, Any]]:
    """Relevance, and the activations among it, whose names begin with "activations/"."""
    if not isinstance(candidate, Mapping):
        raise LRPError("the candidate is to be a mapping of names to arrays")
    relevance, activations = {}, {}
    for name, value in candidate.items():
        if isinstance(name, str) and name.startswith(ACTIVATIONS) and name not in network:
            activations[name.removeprefix(ACTIVATIONS)] = value
        else:
            relevance[name] = value
    return relevance, activations


def read_candidate(path: str | os.PathLike) -> dict[str, np.ndarray]:
    """Relevance by name from a file.

    Parameters
    ----------
    path : path
        NumPy's ``.npz``, whose keys are the names, or an HDF5 file, whose datasets are (those in
        groups by their path, such as ``block1/conv``). Names that begin with ``activations/`` are those of
        activations.

    Raises
    ------
    FileError
        A file that is missing, damaged, or holds no arrays.
    """
    path = Path(path)
    if path.suffix == ".npy":
        raise FileError(
            f"{path} holds one array without a name: give .npz or .h5, with arrays named as the layers"
        )
    if path.suffix != ".npz":
        found: dict[str, np.ndarray] = {}
        with opened(path) as file:
            check_unchanged(file, path)

            def keep(name: str, item: Any) -> None:
                if isinstance(item, h5py.Dataset) and item.dtype.kind in "fiu":
                    found[name] = stored_array(item, f"{path}: {name}")

            file.visititems(keep)
    else:
        found = read_npz(path)
    if not found:
        raise FileError(f"{path} holds no arrays")
    if "attribution" in found:  # what `numpylrp explain` writes
        return {"input": found["attribution"]}
    return found


def write_candidate(path: str | os.PathLike, arrays: Mapping[str, np.ndarray]) -> None:
    """Write relevance by name as ``.npz``, as `read_candidate` reads it."""
    try:
        with open(path, "wb") as file:
            np.savez(file, **arrays)  # type: ignore[arg-type]
    except OSError as error:
        raise FileError(f"{path} can't be written to: {error.strerror or error}") from None
