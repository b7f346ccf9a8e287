"""The errors of the library: all of one kind, so that one ``except`` catches them."""

from __future__ import annotations

import math
from numbers import Real
from typing import Any


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


class MissingExtraError(LRPError, ImportError):
    """An optional package is not installed; the message says which extra has it."""


def check_number(owner: Any, name: str, least: float = 0.0) -> None:
    """Refuse a field of `owner` that is not a finite number of at least `least`."""
    value = getattr(owner, name)
    if not (isinstance(value, Real) and math.isfinite(value) and value >= least):
        raise LRPError(
            f"{type(owner).__name__}: {name} must be a number of at least {least:g}, not {value!r}"
        )
