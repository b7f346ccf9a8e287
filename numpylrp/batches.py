"""Batches: checked inputs, how many samples at a time, and results of several batches as one."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np

from .errors import LRPError, ShapeError, check_values
from .layers.base import Shape
from .text import shape_text
from .wiring import sample_shapes

MEMORY = 2**28
"""Bytes of activations that one batch of `explain` may take when it chooses its size."""


def checked_batch(x: Any, inputs: Mapping[str, Shape], dtype: np.dtype) -> dict[str, np.ndarray]:
    """The inputs of a network by name, checked, in its dtype.

    Parameters
    ----------
    x : array, or mapping of input name to array
        Batch first.
    inputs : mapping of input name to sample shape
    dtype : dtype

    Raises
    ------
    ShapeError
        A shape that the network doesn't take, an empty batch, batches of different length.
    NonFiniteError
        A value that is NaN or infinite.
    """
    if not isinstance(x, Mapping):
        if len(inputs) > 1:
            raise LRPError(f"the network has inputs {', '.join(inputs)}: give a mapping of name to array")
        x = {next(iter(inputs)): x}
    if set(x) != set(inputs):
        raise LRPError(f"inputs must be {', '.join(inputs)}, not {', '.join(map(str, x))}")
    batch = {name: _checked(name, x[name], inputs[name], dtype) for name in inputs}
    if len({len(value) for value in batch.values()}) > 1:
        lengths = ", ".join(f"{name} {len(value)}" for name, value in batch.items())
        raise ShapeError(f"inputs differ in the number of samples: {lengths}")
    return batch


def _checked(name: str, value: Any, want: Shape, dtype: np.dtype) -> np.ndarray:
    try:
        array = np.asarray(value)
        if array.dtype.kind not in "fiub":
            raise TypeError
    except (TypeError, ValueError):
        raise LRPError(f"input {name!r} must be an array of numbers") from None
    if array.ndim != len(want) + 1 or not _matches(want, array.shape[1:]):
        text = shape_text((None, *want)).replace("?", "N", 1)
        one = array.ndim == len(want) and _matches(want, array.shape)
        hint = " (one sample: give x[None])" if one else ""
        given = shape_text(array.shape)
        raise ShapeError(f"input {name!r} must have shape {text}, but it has {given}{hint}")
    if len(array) == 0:
        raise ShapeError(f"input {name!r} is empty: its shape is {shape_text(array.shape)}")
    with np.errstate(over="ignore"):
        array = array.astype(dtype, copy=False)
    check_values(f"input {name!r} has", array)
    return array


def _matches(want: Shape, shape: tuple[int, ...]) -> bool:
    return all(w in (None, n) for w, n in zip(want, shape))


def sample_bytes(network: Any, batch: Mapping[str, np.ndarray], kept: Mapping[str, int]) -> int:
    """Bytes of one sample's activations, and of `kept` more arrays of a layer's size."""
    shapes = sample_shapes(network.nodes, {name: value.shape[1:] for name, value in batch.items()})
    values = sum(math.prod(shape) * (1 + kept.get(name, 0)) for name, shape in shapes.items())
    return network.dtype.itemsize * values


def samples_at_a_time(given: int | None, total: int, bytes_each: Callable[[], int]) -> int:
    """Samples at a time: as many as were asked for, or as `MEMORY` allows."""
    if given is None:
        return total if total == 1 else max(1, MEMORY // bytes_each())
    if not isinstance(given, (int, np.integer)) or given < 1:
        raise LRPError(f"batch_size must be an integer of at least 1, not {given!r}")
    return int(given)


def rows_of(value: Any, rows: slice, total: int) -> Any:
    """The part of a target for these samples, where it has one for each sample."""
    one_each = isinstance(value, (list, tuple, np.ndarray)) and np.ndim(value)
    return value[rows] if one_each and len(value) == total else value


def concatenated(parts: list[Any]) -> Any:
    """Explanations of several batches as one."""
    axis = parts[0].target.ndim - 1  # several classes lie before the samples
    return _combined(parts, lambda arrays: np.concatenate(arrays, axis), np.concatenate)


def stacked(parts: list[Any]) -> Any:
    """Explanations of several classes of the same samples, on a new first axis."""
    if not parts:
        raise LRPError("classes is empty")
    return _combined(parts, np.stack, lambda outputs: outputs[0])


def _combined(parts: list[Any], join: Callable, of_outputs: Callable) -> Any:
    def together(values: list) -> Any:
        if isinstance(values[0], dict):
            return {name: together([v[name] for v in values]) for name in values[0]}
        if isinstance(values[0], tuple):
            return tuple(map(together, map(list, zip(*values))))
        return join(values)

    def step(name: str) -> Any:
        same = [part.steps[name] for part in parts]
        changed = {key: together([getattr(s, key) for s in same]) for key in ("received", "sent", "arrays")}
        return dataclasses.replace(same[0], **changed)

    return dataclasses.replace(
        parts[0],
        output=of_outputs([part.output for part in parts]),
        steps={name: step(name) for name in parts[0].steps},
        **{key: together([getattr(p, key) for p in parts]) for key in ("relevance", "target", "seed")},
    )


def in_batches(walk: Callable[[slice], Any], total: int, size: int, each: Callable | None = None) -> Any:
    """What `walk` makes of every slice of the samples, together; `each` may spread the calls over threads."""
    parts: dict[int, Any] = {}

    def part(first: int) -> None:
        parts[first] = walk(slice(first, min(first + size, total)))

    firsts: Iterable[tuple[int]] = ((first,) for first in range(0, total, size))
    if each is not None:
        each(part, firsts)
    else:
        for (first,) in firsts:
            part(first)
    return parts[0] if len(parts) == 1 else concatenated([parts[first] for first in sorted(parts)])
