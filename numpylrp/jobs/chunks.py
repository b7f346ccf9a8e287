"""A long job in chunks: each is a file of its own, and the result is put together at the end.

A chunk is written beside, and renamed when it is whole, so that a job can stop at any moment and go on from
the chunks that are there. No counter says how far it came: HDF5's writing is not atomic, and a counter may
reach the disk before the data that it speaks of. While a job is at work on PATH, there are::

    PATH.lock                 held by the process that is at work
    PATH.parts/settings.json  what the job computes, of what
    PATH.parts/00000000.h5    the first chunk, with a checksum of what it holds

and at the end PATH alone, with the settings in an attribute.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import h5py  # type: ignore

from ..errors import FileError, LRPError
from ..files import UNFINISHED, digest, opened, same_file, whole, whole_hdf5

try:
    import fcntl
except ImportError:  # not on every system
    fcntl = None  # type: ignore


@contextmanager
def locked(path: str | os.PathLike) -> Iterator[None]:
    """Hold the lock of the job that makes `path`; a process that dies lets go of it.

    Raises
    ------
    LRPError
        Another process holds it.
    """
    path = Path(path)
    lock = path.with_name(f"{path.name}.lock")
    while True:
        try:
            number = os.open(lock, os.O_RDWR | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0), 0o666)
        except OSError as error:
            raise FileError(f"{lock} can't be written: {error.strerror}") from error
        try:
            if fcntl is not None:
                fcntl.flock(number, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if same_file(number, lock):  # else its last holder has just removed it
                break
        except OSError:
            who = os.read(number, 20).decode(errors="replace").strip()
            os.close(number)
            process = f"process {who}" if who.isdecimal() else "another process"
            raise LRPError(f"{path} is being made by {process}: wait for it, or write elsewhere") from None
        os.close(number)
    try:
        os.ftruncate(number, 0)
        os.write(number, f"{os.getpid()}\n".encode())
        yield
    finally:
        lock.unlink(missing_ok=True)
        os.close(number)


class Job:
    """A job of `total` samples that makes the file `path`, in chunks of `size`.

    Parameters
    ----------
    path : path
        The file to make.
    settings : mapping
        All that the result depends on, as JSON has it: another job has others.
    total, size : int
    overwrite : bool
        Replace the result of another job.

    Raises
    ------
    FileError
        There is a result of another job, or a file that is none.
    """

    def __init__(
        self,
        path: str | os.PathLike,
        settings: Mapping[str, Any],
        total: int,
        size: int,
        overwrite: bool = False,
    ) -> None:
        self.path, self.total, self.size = Path(path), total, size
        self.settings = json.dumps({**settings, "samples": total, "chunk": size}, sort_keys=True)
        self.parts = self.path.with_name(f"{self.path.name}.parts")
        self.finished = False
        if os.path.lexists(self.path):
            other = self._other()
            self.finished = other is None
            if other is not None and not overwrite:
                raise FileError(f"{self.path} {other}: write elsewhere, or replace it (--overwrite)")

    def _other(self) -> str | None:
        """What makes the file that is there not the result of this job, or None."""
        try:
            with opened(self.path) as file:
                text, checksum = (file.attrs.get(name) for name in ("settings", "checksum"))
                if not isinstance(text, str) or not isinstance(checksum, str):
                    return "is there, and is no finished result"
                if differs := different(json.loads(text), json.loads(self.settings)):
                    return f"is the result of another run ({differs})"
                return None if digest(file) == checksum else "is there, but damaged"
        except (FileError, ValueError):
            return "is there, and is no finished result"

    def __len__(self) -> int:
        return -(-self.total // self.size)

    def rows(self, n: int) -> slice:
        """The samples of a chunk."""
        return slice(n * self.size, min((n + 1) * self.size, self.total))

    def begin(self) -> list[int]:
        """Make the folder of chunks, or take up the one that is there; the chunks that are left to do.

        To be called with the lock held.
        """
        try:
            if self.parts.is_symlink():
                raise FileError(f"{self.parts} is a symbolic link, which is not followed")
            known = self.parts / "settings.json"
            if self.parts.is_dir() and (not known.is_file() or known.read_text("utf-8") != self.settings):
                shutil.rmtree(self.parts)
            self.parts.mkdir(parents=True, exist_ok=True)
            for left in self.parts.glob(UNFINISHED):
                left.unlink()
            if not known.exists():
                with whole(known) as beside:
                    beside.write_text(self.settings, "utf-8")
        except OSError as error:
            raise FileError(f"{self.parts} can't be written: {error.strerror or error}") from error
        return [n for n in range(len(self)) if not self._is_whole(n)]

    def _chunk(self, n: int) -> Path:
        return self.parts / f"{n:08d}.h5"

    def _is_whole(self, n: int) -> bool:
        if not self._chunk(n).exists():
            return False
        try:
            with opened(self._chunk(n)) as file:
                return file.attrs.get("checksum") == digest(file)
        except FileError:
            return False

    def leave(self) -> None:
        """Remove the folder of chunks where none has been made."""
        if not any(self.parts.glob("[0-9]*.h5")):
            shutil.rmtree(self.parts, ignore_errors=True)

    @contextmanager
    def writing(self, n: int) -> Iterator[h5py.File]:
        """The file of a chunk, which is there when it is whole."""
        with whole_hdf5(self._chunk(n)) as file:
            yield file
            file.attrs["checksum"] = digest(file)

    def chunks(self) -> Iterator[tuple[slice, h5py.File]]:
        """The chunks in order, with their samples."""
        for n in range(len(self)):
            with opened(self._chunk(n)) as file:
                yield self.rows(n), file

    def finish(self) -> None:
        """Put the chunks together, row by row, and remove them."""
        with whole_hdf5(self.path, self.parts, sync=True) as result:
            for rows, chunk in self.chunks():

                def copy(name: str, item: Any, rows: slice = rows) -> None:
                    if not isinstance(item, h5py.Dataset):
                        return
                    if name not in result:
                        shape, chunks = (
                            (self.total, *item.shape[1:]),
                            (min(self.total, self.size), *item.shape[1:]),
                        )
                        result.create_dataset(name, shape, item.dtype, chunks=chunks)
                        result[name].attrs.update(item.attrs)
                    result[name][rows] = item[()]

                chunk.visititems(copy)
            result.attrs["settings"] = self.settings
            result.attrs["checksum"] = digest(result)
        shutil.rmtree(self.parts, ignore_errors=True)


def different(old: Mapping[str, Any], new: Mapping[str, Any]) -> str:
    """The settings in which two jobs differ, in words.

    Examples
    --------
    >>> different({"seed": "logit", "rules": {"fc": "ZPlus()"}}, {"seed": "clrp1", "rules": {}})
    'other rules, seed logit instead of clrp1'
    """
    words = []
    for name in sorted({*old, *new}):
        a, b = old.get(name), new.get(name)
        if a != b:
            short = all(isinstance(v, (str, int, float)) and len(str(v)) <= 12 for v in (a, b))
            words.append(f"{name} {a} instead of {b}" if short else f"other {name}")
    return ", ".join(words)
