"""Files that are whole or not there, and HDF5 files that say what is wrong with them."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import h5py

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


@contextmanager
def opened(path: str | os.PathLike) -> Iterator[h5py.File]:
    """An HDF5 file to read, or a `FileError` that tells missing, other and damaged files apart."""
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
    with file:
        try:
            yield file
        except OSError as error:
            raise FileError(f"{path} is an HDF5 file, but damaged ({error})") from error
