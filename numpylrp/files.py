"""Files that are whole or not there, and files of strangers that say what is wrong with them.

What a file holds never ends in anything but a `FileError` (or another `LRPError`) that names it. Not
protected is what the HDF5 library itself makes of a file that is damaged on purpose: of some thousand
such files a few make it hang or crash, which no Python code can catch. Read files that you do not
trust at all in a process of its own, with limits of time and memory.
"""

from __future__ import annotations

import hashlib
import io
import json
import math
import os
import secrets
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import h5py  # type: ignore
import numpy as np

from .errors import FileError, LRPError

UNFINISHED = ".numpylrp-*.part"
"""What a file is called until it is whole."""

BLOCK = 2**24
"""Bytes of a dataset that are read at a time where it is only checked."""


@contextmanager
def whole(path: str | os.PathLike, folder: Path | None = None, sync: bool = False) -> Iterator[Path]:
    """A path beside `path` to write to, which becomes `path` if nothing goes wrong.

    Parameters
    ----------
    path : path
        A symbolic link in its place is replaced, never followed.
    folder : Path, optional
        Where it is written, on the same file system; by default the folder of `path`.
    sync : bool
        Wait until the content is on the disk before it gets its name.

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
    beside = (folder or path.parent) / UNFINISHED.replace("*", secrets.token_hex(8))
    try:
        try:
            os.close(os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666))
            yield beside
            if sync:
                _synced(beside)
            os.replace(beside, path)
        except OSError as error:
            raise FileError(f"{path} can't be written: {error.strerror or error}") from error
    finally:
        beside.unlink(missing_ok=True)


def _synced(path: Path) -> None:
    number = os.open(path, os.O_RDWR)
    try:
        os.fsync(number)
    finally:
        os.close(number)


@contextmanager
def whole_hdf5(
    path: str | os.PathLike, folder: Path | None = None, sync: bool = False
) -> Iterator[h5py.File]:
    """An HDF5 file to write, which becomes `path` if nothing goes wrong (see `whole`).

    A full disk is a `FileError`: the HDF5 library, which may crash where writing fails, does not see it.
    """
    with whole(path, folder, sync) as beside:
        disk = _Disk(beside)
        try:
            with h5py.File(disk, "w") as file:
                yield file
        except Exception:
            if disk.error is None:
                raise
        finally:
            disk.close()
        if disk.error is not None:
            raise disk.error


class _Disk(io.RawIOBase):
    """A file for HDF5 to write to that never fails: the first error is kept, and the rest goes nowhere."""

    def __init__(self, path: Path) -> None:
        self.number = os.open(path, os.O_RDWR)
        self.at = 0
        self.error: BaseException | None = None

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        start = {os.SEEK_SET: 0, os.SEEK_CUR: self.at}.get(whence)
        self.at = offset + (os.fstat(self.number).st_size if start is None else start)
        return self.at

    def tell(self) -> int:
        return self.at

    def readinto(self, buffer: Any) -> int:
        view = memoryview(buffer).cast("B")
        view[:] = bytes(len(view))
        try:
            content = os.pread(self.number, len(view), self.at)
            view[: len(content)] = content
        except BaseException as error:
            self.error = self.error or error
        self.at += len(view)
        return len(view)

    def write(self, buffer: Any) -> int:
        view = memoryview(buffer).cast("B")
        left = view
        try:
            while left and self.error is None:
                count = os.pwrite(self.number, left, self.at + len(view) - len(left))
                left = left[count:]
        except BaseException as error:  # an interrupt too is raised once HDF5 is out of the way
            self.error = self.error or error
        self.at += len(view)
        return len(view)

    def truncate(self, size: int | None = None) -> int:
        size = self.at if size is None else size
        try:
            os.ftruncate(self.number, size)
        except BaseException as error:
            self.error = self.error or error
        return size

    def close(self) -> None:
        if not self.closed:
            os.close(self.number)
        super().close()

    def readable(self) -> bool:
        return True

    def writable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True


def digest(item: h5py.Group | h5py.Dataset, only: tuple[str, ...] | None = None) -> str:
    """SHA-256 of what an HDF5 group holds, as text: the ``checksum`` of our own files.

    The text that is hashed has a line for each attribute (but ``checksum``) and each dataset::

        PATH@NAME=VALUE                                 VALUE a text, or a number in decimal digits
        PATH DTYPE SHAPE SHA256_OF_THE_VALUES           such as /x <f8 2,3 9f86d0...

    An object's attributes come first, in the order of their names, then its members in the order of
    theirs. DTYPE is NumPy's, little-endian, and so are the values, in C order; SHAPE has commas between.

    Parameters
    ----------
    item : h5py.Group or h5py.Dataset
    only : tuple of str, optional
        The members of `item` that count, where not all do.
    """
    lines = hashlib.sha256()
    _tell(lines, item, only)
    return f"sha256:{lines.hexdigest()}"


def check_unchanged(file: h5py.File, path: str | os.PathLike) -> None:
    """Refuse a file of ours whose checksum is not that of what it holds."""
    checksum = file.attrs.get("checksum")
    if isinstance(checksum, str) and checksum.startswith("sha256:") and checksum != digest(file):
        raise FileError(
            f"{path} is damaged, or was changed since it was written: its checksum is that of other values "
            "(without the attribute 'checksum' it is read as it is)"
        )


def _tell(lines: Any, item: h5py.Group | h5py.Dataset, only: tuple[str, ...] | None) -> None:
    for name in sorted(item.attrs):
        if name != "checksum":
            lines.update(f"{item.name}@{name}={item.attrs[name]}\n".encode(errors="surrogateescape"))
    if isinstance(item, h5py.Dataset):
        dtype = item.dtype.newbyteorder("<")
        shape = ",".join(map(str, item.shape))
        lines.update(
            f"{item.name} {dtype.str} {shape} {_digest_of_values(item, dtype)}\n".encode(
                errors="surrogateescape"
            )
        )
        return
    for name in sorted(item):
        if only is None or name in only:
            _tell(lines, item[name], None)


def _digest_of_values(data: h5py.Dataset, dtype: np.dtype) -> str:
    values = hashlib.sha256()
    rows = max(1, BLOCK // max(1, dtype.itemsize * math.prod(data.shape[1:])))
    parts = (data[n : n + rows] for n in range(0, len(data), rows)) if data.ndim else [data[()]]
    for part in parts:
        values.update(np.ascontiguousarray(part, dtype).tobytes())
    return values.hexdigest()


@contextmanager
def guarded(path: str | os.PathLike) -> Iterator[None]:
    """What goes wrong in between because of what a file holds is an `LRPError` that names the file."""
    try:
        yield
    except LRPError as error:
        if str(path) in str(error):
            raise
        raise type(error)(f"{path}: {error}") from error
    except MemoryError as error:
        raise FileError(f"{path}: what it holds does not fit into memory ({brief(error)})") from error
    except Exception as error:
        text = f"{type(error).__name__}: {brief(error)}"
        raise FileError(f"{path} is damaged, or not what its name says ({text})") from error


def brief(error: BaseException) -> str:
    """An error's text on one line."""
    text = " ".join(str(error).split())
    return text if len(text) <= 200 else f"{text[:199]}…"


def printable(text: object, most: int | None = None) -> str:
    r"""Text of a stranger's file, safe to print: no control characters but line ends, not too long.

    Examples
    --------
    >>> printable("red \x1b[31m fox"), printable("antelope", most=5)
    ('red \\x1b[31m fox', 'ante…')
    """
    kept = "".join(
        c if c.isprintable() or c == "\n" else c.encode("unicode_escape", "backslashreplace").decode()
        for c in str(text)
    )
    return kept if most is None or len(kept) <= most else f"{kept[: most - 1]}…"


def regular(path: str | os.PathLike) -> Path:
    """The path of a file that is there and can be read, or a `FileError`."""
    path = Path(path)
    try:
        if path.is_dir():
            raise FileError(f"{path} is a folder, not a file")
        if not path.exists():
            raise FileError(f"{path} does not exist")
        if not path.is_file():
            raise FileError(f"{path} is not a regular file")
        with path.open("rb") as stream:
            start = stream.read(40)
    except (OSError, ValueError) as error:  # a ValueError: a null character in the name
        raise FileError(f"{path} can't be read: {getattr(error, 'strerror', None) or error}") from error
    if start.startswith(b"version https://git-lfs"):
        raise FileError(f"{path} is a Git LFS pointer, not the file: fetch it with 'git lfs pull'")
    return path


def same_file(path: str | os.PathLike | int, other: str | os.PathLike) -> bool:
    """Whether two names are of one file that is there; the first may be the number of an open one."""
    try:
        return os.path.samefile(path, other)
    except OSError:
        return False


def open_hdf5(path: str | os.PathLike) -> h5py.File:
    """An HDF5 file to read, or a `FileError` that tells missing, other and damaged files apart.

    A file from a stranger must hold its own data: one that points to other files is refused.
    """
    path = Path(path)
    if path.is_dir():
        raise FileError(f"{path} is a folder, not an HDF5 file")
    with regular(path).open("rb") as stream:
        start = stream.read(8)
    try:
        file = h5py.File(path, "r")
    except Exception as error:
        if start == b"\x89HDF\r\n\x1a\n":
            raise FileError(f"{path} is an HDF5 file, but truncated or damaged ({brief(error)})") from error
        raise FileError(f"{path} is not an HDF5 file") from error
    try:
        with guarded(path):
            keeps_to_itself(file, path)
    except BaseException:
        file.close()
        raise
    return file


@contextmanager
def opened(path: str | os.PathLike) -> Iterator[h5py.File]:
    """`open_hdf5` for a while; what turns out to be damaged in between is a `FileError` too."""
    with open_hdf5(path) as file, guarded(path):
        yield file


def keeps_to_itself(group: h5py.Group, path: Path, seen: set | None = None) -> None:
    """Refuse links and datasets whose data lie elsewhere, before anything follows them."""
    seen = set() if seen is None else seen
    address = h5py.h5o.get_info(group.id).addr
    if address in seen:
        raise FileError(f"{path}: group {group.name} contains itself, or stands in two places")
    seen.add(address)
    for name in group:
        link = group.get(name, getlink=True)
        where = f"{str(group.name).rstrip('/')}/{name}"
        if not isinstance(link, h5py.HardLink):
            raise FileError(f"{path}: {where} is a link ({type(link).__name__}), which is not followed")
        item = group[name]
        if isinstance(item, h5py.Group):
            keeps_to_itself(item, path, seen)
        elif isinstance(item, h5py.Dataset) and (item.external or item.is_virtual):
            raise FileError(f"{path}: the data of {where} lie in another file")


def stored_array(data: Any, where: str, kinds: str = "fiu") -> np.ndarray:
    """A dataset of numbers, if it is one, has been written, and is not larger than what is stored can be."""
    if not isinstance(data, h5py.Dataset) or data.dtype.kind not in kinds or data.shape is None:
        raise FileError(f"{where} is not an array of numbers in this file")
    if data.nbytes > 2**20 + 1100 * data.id.get_storage_size():
        raise FileError(f"{where} claims {data.nbytes} bytes, but stores {data.id.get_storage_size()}")
    written(data, where)
    fits_in_memory(data.nbytes, where)
    return data[()]


def written(data: h5py.Dataset, where: str) -> None:
    """Refuse a dataset, or one in chunks, whose values were never written: HDF5 reads them as zeros."""
    if not data.size:
        return
    if not data.id.get_storage_size():
        raise FileError(f"{where} was never written: the file has its shape {data.shape}, but no values")
    if data.chunks is not None:
        wanted = math.prod(-(-size // chunk) for size, chunk in zip(data.shape, data.chunks))
        found = data.id.get_num_chunks()
        if found < wanted:
            raise FileError(f"{where} was never written in full: {found} of its {wanted} chunks are there")


def fits_in_memory(count: int, where: str) -> None:
    """Refuse to read more bytes than this machine has memory."""
    try:
        memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):
        return
    if count > memory:
        raise FileError(f"{where} has {count:,} bytes, more than this machine's memory of {memory:,}")


def read_npz(path: str | os.PathLike) -> dict[str, np.ndarray]:
    """All arrays of an .npz file by name; nothing in it is unpickled."""
    path = regular(path)
    if not zipfile.is_zipfile(path):
        raise FileError(f"{path} can't be read as .npz: it is no zip archive, or truncated")
    with guarded(path), zipfile.ZipFile(path) as archive:
        fits_in_memory(sum(member.file_size for member in archive.infolist()), f"{path}, unpacked,")
        with np.load(path, allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
    for name, array in arrays.items():
        if not isinstance(array, np.ndarray):
            raise FileError(f"{path}: {name!r} is no array")
    return arrays


def read_json(path: str | os.PathLike) -> dict:
    """The object in a JSON file."""
    path = regular(path)
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise FileError(f"{path} is not JSON that can be read ({brief(error)})") from None
    if not isinstance(value, dict):
        raise FileError(f"{path} must be a JSON object, not a {type(value).__name__}")
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
