"""The errors of the library: all of one kind, so that one ``except`` catches them."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np


class LRPError(ValueError):
    """What was given is not valid; the message says what was given, what is valid, and where."""


class ShapeError(LRPError):
    """Shapes do not fit together."""


class UnsupportedError(LRPError):
    """A layer, an option or a format that this library does not know, refused by name."""


class FileError(LRPError):
    """A file that is missing, damaged, or not of the expected format."""


class NonFiniteError(LRPError):
    """NaN or infinity in weights, inputs, activations or relevance."""


class InputRangeWarning(UserWarning):
    """Inputs that look like pixels of 0 .. 255, for a model that does not say what range it takes."""


class MissingExtraError(LRPError, ImportError):
    """An optional package is not installed; the message says which extra has it."""


def check_numbers(owner: Any) -> None:
    """Refuse a record in which a field that is a float is no finite number of at least 0."""
    for f in dataclasses.fields(owner) if dataclasses.is_dataclass(owner) else ():
        value = getattr(owner, f.name)
        valid = isinstance(value, (int, float, np.number, np.bool_)) and math.isfinite(value) and value >= 0
        if f.type in (float, "float") and not valid:
            kind = type(owner).__name__
            raise LRPError(f"{kind}: {f.name} must be a number of at least 0, not {value!r}")


def lookup(table: Mapping[str, Any], name: str, what: str) -> Any:
    """The entry of a table, or an error with the names that it has.

    Examples
    --------
    >>> lookup({"red": 1, "blue": 2}, "green", "colour")
    Traceback (most recent call last):
    numpylrp.errors.LRPError: there is no colour 'green'; there are red, blue
    """
    if name not in table:
        raise LRPError(f"there is no {what} {name!r}; there are {', '.join(map(str, table))}")
    return table[name]


def check_values(what: str, array: np.ndarray, first: int = 0) -> None:
    """Refuse samples with a value that is NaN or infinite, by its place; `first` is that of the first."""
    if not np.isfinite(array).all():
        sample, *at = np.argwhere(~np.isfinite(array))[0].tolist()
        place = first + sample, *at
        raise NonFiniteError(f"{what} a value that is NaN or infinite, first at {place}")


def check_finite(named: Iterable[tuple[str, np.ndarray]]) -> None:
    """Refuse the first of some arrays that has a value that is NaN or infinite, by its description."""
    for description, array in named:
        if not np.isfinite(array).all():
            raise NonFiniteError(f"NaN or infinity first appears in {description}")
