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
import weakref
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

RUN = 2**17
"""Values of a run of `mapped`."""

# glibc gives the memory of large arrays back to the system, and takes pages for the next anew, each
# mapped and zeroed: as expensive as calculating with them. Once it has freed an array of nearly 32 MB
# it keeps that much (M_MMAP_THRESHOLD in mallopt(3)). No page of this one is ever touched.
np.empty(2**25 - 2**16, np.uint8)

_here = threading.local()
_lock, _starting = threading.Lock(), threading.Lock()
_users, _before = 0, 0


def threads() -> int:
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
    if len(pieces) < 2 or getattr(_here, "inside", False) or threads() < 2 or _blas() is None:
        for piece in pieces:
            work(*piece)
        return

    left, done, failed = deque(pieces), SimpleQueue(), []

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
                helpers = _helpers(threads() - 1, os.getpid())
            for _ in range(min(threads(), len(pieces)) - 1):
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


_derived: dict[tuple, tuple] = {}


def derived(array: np.ndarray, how: Callable, *options: Any) -> Any:
    """``how(array, *options)``, no view of it, computed once for an array that lives on.

    For parameters, which are constant.
    """
    key = (id(array), how, options)
    kept = _derived.get(key)
    if kept is None or kept[0]() is not array:
        forget = partial(_derived.pop, key)  # called with the dead reference, the default of pop
        kept = weakref.ref(array, forget), how(array, *options)
        _derived[key] = kept
    return kept[1]


def spread(count: int, size: int, least: int = 2**16) -> list[tuple[slice]]:
    """`count` things of `size` values each, in parts for the threads; one part where they are few."""
    parts = min(threads(), count, max(1, count * size // least))
    return [(slice(count * n // parts, count * (n + 1) // parts),) for n in range(parts)]


def matmul(x: np.ndarray, w: np.ndarray) -> np.ndarray:
    """``x @ w`` for any x and a matrix w: many rows in parts, few by columns of w.

    Examples
    --------
    >>> matmul(np.array([1.0, 2.0]), np.eye(2))
    array([1., 2.])
    """
    count, rows = w.shape[1], x.reshape(-1, w.shape[0])
    if w.size * (len(rows) + 16) < 2**23 or not len(rows):  # w is read once, whatever the rows
        return np.matmul(x, w)
    out = np.empty((len(rows), count), np.result_type(x, w))
    if len(rows) >= 64:
        each(lambda at: np.matmul(rows[at], w, out=out[at]), spread(len(rows), w.size))
        return out.reshape(*x.shape[:-1], count)
    size = -(-count // (4 * threads()))  # some parts for each thread: none is waited for long

    def part(start: int) -> None:  # this way around BLAS takes long rows of w, for few rows of x, fastest
        out[:, start : start + size] = np.matmul(w[:, start : start + size].T, rows.T).T

    each(part, ((start,) for start in range(0, count, size)))
    return out.reshape(*x.shape[:-1], count)


def mapped(work: Callable[..., np.ndarray], *arrays: np.ndarray) -> np.ndarray:
    """``work(*arrays)`` for work on single values, which takes an `out` as NumPy's functions do.

    Large arrays of one shape are cut into runs of up to `RUN` values: they stay in a core's cache from
    one pass of `work` to the next, and the threads share them out.

    Examples
    --------
    >>> mapped(np.multiply, np.array([6.0, 8.0]), np.array([1.0, 3.0]))
    array([ 6., 24.])
    """
    first = arrays[0]
    if first.size < RUN or any(a.shape != first.shape for a in arrays):
        return work(*arrays)
    out = np.empty(first.shape, np.result_type(*arrays))
    flat = [a.reshape(-1) for a in (*arrays, out)]
    count = -(-first.size // (RUN * threads())) * threads()
    run = -(-first.size // count)

    def piece(start: int) -> None:
        *given, into = (a[start : start + run] for a in flat)
        work(*given, out=into)

    each(piece, ((n,) for n in range(0, first.size, run)))
    return out
