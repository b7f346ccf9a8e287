"""Files that are whole or not there, and HDF5 files that say what is wrong with them."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from .errors import FileError


@contextmanager
def whole(path: str | os.PathLike) -> Iterator[Path]:
    """A path beside `path` to write to, which becomes `path` if nothing goes wrong.

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     with whole(Path(folder) / "a.txt") as beside:
    ...         _ = beside.write_text("all of it")
    ...     (Path(folder) / "a.txt").read_text()
    'all of it'
    """
    path = Path(path)
    beside = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        try:
            yield beside
            os.replace(beside, path)
        except OSError as error:
            raise FileError(f"{path} can't be written: {error.strerror or error}") from error
    finally:
        beside.unlink(missing_ok=True)


def open_hdf5(path: str | os.PathLike) -> h5py.File:
    """An HDF5 file to read, or a `FileError` that tells missing, other and damaged files apart.

    A file from a stranger must hold its own data: one that points to other files is refused.
    """
    path = Path(path)
    if path.is_dir():
        raise FileError(f"{path} is a folder, not an HDF5 file")
    if not path.exists():
        raise FileError(f"{path} does not exist")
    try:
        with path.open("rb") as stream:
            start = stream.read(8)
    except OSError as error:
        raise FileError(f"{path} can't be read: {error.strerror or error}") from error
    try:
        file = h5py.File(path, "r")
    except OSError as error:
        if start == b"\x89HDF\r\n\x1a\n":
            raise FileError(f"{path} is an HDF5 file, but truncated or damaged ({error})") from error
        raise FileError(f"{path} is not an HDF5 file") from error
    try:
        keeps_to_itself(file, path)
    except OSError as error:
        file.close()
        raise FileError(f"{path} is an HDF5 file, but damaged ({error})") from error
    return file


@contextmanager
def opened(path: str | os.PathLike) -> Iterator[h5py.File]:
    """`open_hdf5` for a while; what turns out to be damaged in between is a `FileError` too."""
    with open_hdf5(path) as file:
        try:
            yield file
        except OSError as error:
            raise FileError(f"{path} is an HDF5 file, but damaged ({error})") from error


def keeps_to_itself(group: h5py.Group, path: Path, seen: set | None = None) -> None:
    """Refuse links and datasets whose data lie elsewhere, before anything follows them."""
    seen = set() if seen is None else seen
    address = h5py.h5o.get_info(group.id).addr
    if address in seen:
        raise FileError(f"{path}: group {group.name} contains itself, or stands in two places")
    seen.add(address)
    for name in group:
        link = group.get(name, getlink=True)
        where = f"{group.name.rstrip('/')}/{name}"
        if not isinstance(link, h5py.HardLink):
            raise FileError(f"{path}: {where} is a link ({type(link).__name__}), which is not followed")
        item = group[name]
        if isinstance(item, h5py.Group):
            keeps_to_itself(item, path, seen)
        elif isinstance(item, h5py.Dataset) and (item.external or item.is_virtual):
            raise FileError(f"{path}: the data of {where} lie in another file")


def stored_array(data: Any, where: str) -> np.ndarray:
    """A dataset of numbers, if it is one and not larger than what is stored can be."""
    if not isinstance(data, h5py.Dataset) or data.dtype.kind not in "fiu":
        raise FileError(f"{where} is not an array of numbers in this file")
    if data.nbytes > 2**20 + 1100 * data.id.get_storage_size():
        raise FileError(f"{where} claims {data.nbytes} bytes, but stores {data.id.get_storage_size()}")
    return data[()]


def read_json(path: str | os.PathLike) -> dict:
    """The object in a JSON file."""
    path = Path(path)
    if not path.exists():
        raise FileError(f"{path} does not exist")
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, UnicodeDecodeError) as error:
        raise FileError(f"{path} is not JSON ({error})") from None
    if not isinstance(value, dict):
        raise FileError(f"{path} is to be a JSON object, not a {type(value).__name__}")
    return value


def write_between(marks: tuple[str, str], text: str | None, path: str | os.PathLike) -> None:
    """Put text between two marks of a file, in place of what stands there; None only looks for the marks."""
    path = Path(path)
    old = path.read_text(encoding="utf-8") if path.exists() else ""
    if marks[0] not in old or marks[1] not in old:
        raise FileError(f"{path} has not the marks {marks[0]} and {marks[1]}")
    if text is None:
        return
    before, rest = old.split(marks[0])
    _, after = rest.split(marks[1])
    with whole(path) as beside:
        beside.write_text(f"{before}{marks[0]}\n{text}\n{marks[1]}{after}", encoding="utf-8")
