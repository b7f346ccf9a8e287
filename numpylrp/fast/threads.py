"""Both cores: independent pieces of work on Python threads, each with one thread of BLAS.

NumPy lets go of the interpreter's lock while it calculates, so pieces of an array run side by side,
copies and sums included, which the BLAS library's own threads leave to one core. Two kinds of
threads would compete, so while pieces run, BLAS gets one thread each; afterwards it has as many
as before. Pieces write to different places: results don't depend on how many threads there are.
"""

from __future__ import annotations

import ctypes
import os
import threading
from collections import deque
from collections.abc import Callable, Iterable
from contextvars import copy_context
from functools import cache, partial
from pathlib import Path
from queue import SimpleQueue
from typing import Any

import numpy as np

THREADS: int | None = None
"""Threads to use; None for one a core, 1 for none but the caller's own."""

# glibc gives the memory of large arrays back to the system, and takes pages for the next anew, each
# mapped and zeroed: as expensive as calculating with them. Once it has freed an array of nearly 32 MB
# it keeps that much (M_MMAP_THRESHOLD in mallopt(3)). No page of this one is ever touched.
np.empty(2**25 - 2**16, np.uint8)

_here = threading.local()
_lock, _starting = threading.Lock(), threading.Lock()
_users, _before = 0, 0


def thread_count() -> int:
    """How many threads pieces are spread over."""
    if THREADS is not None:
        return max(1, THREADS)
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:  # not on every system
        return os.cpu_count() or 1


@cache
def _blas() -> tuple[Callable, Callable] | None:
    """The functions that get and set the number of threads of NumPy's own OpenBLAS, if it has one."""
    root = Path(np.__file__).parent
    for folder in (root.parent / "numpy.libs", root / ".dylibs", root / ".libs"):
        for path in sorted(folder.glob("*openblas*")):
            try:
                library = ctypes.CDLL(str(path))
            except OSError:
                continue
            for prefix, suffix in (("scipy_", "64_"), ("scipy_", ""), ("", "64_"), ("", "")):
                names = (f"{prefix}openblas_{verb}_num_threads{suffix}" for verb in ("get", "set"))
                get, set_to = (getattr(library, name, None) for name in names)
                if get is not None and set_to is not None:
                    get.restype, set_to.argtypes = ctypes.c_int, [ctypes.c_int]
                    return get, set_to
    return None


class one_blas_thread:
    """One thread of BLAS until the last of its users is done, then as many as before.

    Also around work that is too small for `each`: BLAS would wake its threads for it, and wait for
    them where other programs keep the cores busy.
    """

    def __enter__(self) -> None:
        global _users, _before
        if (blas := _blas()) is None:
            return
        get, set_to = blas
        with _lock:
            if _users == 0:
                _before = get()
                set_to(1)
            _users += 1

    def __exit__(self, *error: object) -> None:
        global _users
        if (blas := _blas()) is None:
            return
        _, set_to = blas
        with _lock:
            _users -= 1
            if _users == 0:
                set_to(_before)


@cache
def _helpers(count: int, process: int) -> SimpleQueue:
    """What so many threads wait for, to call it; a forked process makes its own.

    Not a ThreadPoolExecutor: to hand over work takes it longer than small pieces take.
    """
    calls: SimpleQueue[Callable] = SimpleQueue()

    def serve() -> None:
        _here.inside = True
        while True:
            calls.get()()

    for _ in range(count):
        threading.Thread(target=serve, name="numpylrp", daemon=True).start()
    return calls


def _after_fork() -> None:
    """A forked process has no threads, and nobody who holds its locks."""
    global _lock, _starting, _users
    _lock, _starting = threading.Lock(), threading.Lock()
    if _users and (blas := _blas()) is not None:
        blas[1](_before)
    _users = 0


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


def each(work: Callable[..., Any], pieces: Iterable[tuple]) -> None:
    """Call ``work(*piece)`` for every piece, on as many threads as there are cores.

    Work that is itself a piece, and work where BLAS can't be held to one thread, runs in line. After
    an error no more pieces are begun.

    Examples
    --------
    >>> out = np.zeros(4)
    >>> each(lambda n: out.__setitem__(n, n * n), [(n,) for n in range(4)])
    >>> out
    array([0., 1., 4., 9.])
    """
    pieces = list(pieces)
    if len(pieces) < 2 or getattr(_here, "inside", False) or thread_count() < 2 or _blas() is None:
        for piece in pieces:
            work(*piece)
        return

    left = deque(pieces)
    done: SimpleQueue[None] = SimpleQueue()
    failed: list[BaseException] = []

    def take() -> None:
        while True:
            try:
                piece = left.popleft()
            except IndexError:
                return
            try:
                if not failed:
                    work(*piece)
            except BaseException as error:
                failed.append(error)
            done.put(None)

    with one_blas_thread():
        try:
            _here.inside = True
            with _starting:
                helpers = _helpers(thread_count() - 1, os.getpid())
            for _ in range(min(thread_count(), len(pieces)) - 1):
                helpers.put(partial(copy_context().run, take))  # NumPy's error state is part of it
            take()
            for _ in pieces:
                done.get()
        finally:
            _here.inside = False
            left.clear()  # where this was interrupted, helpers end their piece and begin no other
    if failed:
        try:
            raise failed[0]
        finally:
            failed.clear()  # or it would keep itself alive, with all that its frames hold


def spread(count: int, size: int, least: int = 2**16) -> list[tuple[slice]]:
    """`count` things of `size` values each, in parts for the threads; one part where they are few."""
    parts = min(thread_count(), count, max(1, count * size // least))
    return [(slice(count * n // parts, count * (n + 1) // parts),) for n in range(parts)]
