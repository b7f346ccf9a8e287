"""What is derived of parameters, kept as long as they live."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

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
