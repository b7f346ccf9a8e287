"""Other libraries by their name: which are installed, and what they make of published vectors."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import numpy as np

from ..errors import LRPError, MissingExtraError, UnsupportedError, lookup

LIBRARIES = {
    "zennit": "peers",
    "captum": "peers",
    "lxt": "peer_lxt",
    "innvestigate": "peer_innvestigate",
}
"""For each library the module that runs it, with a function of its name."""

NEEDS = {
    "zennit": "pip install 'numpylrp[peers]'",
    "captum": "pip install 'numpylrp[peers]'",
    "lxt": "pip install 'numpylrp[peers]'",
    "innvestigate": "pip install innvestigate 'tensorflow-cpu<2.15', with Python 3.11 or before",
}
"""How each is installed."""


def installed() -> dict[str, str]:
    """The versions of those that are installed."""
    found = {}
    for name in LIBRARIES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    if not found:
        raise LRPError(f"none of {', '.join(LIBRARIES)} is installed: pip install 'numpylrp[peers]'")
    return found


def library(name: str) -> Callable:
    """What runs a library.

    Raises
    ------
    LRPError
        A name that is not known.
    MissingExtraError
        It is not installed.
    """
    module = lookup(LIBRARIES, name, "library")
    try:
        version(name)
    except PackageNotFoundError:
        raise MissingExtraError(f"{name} is not installed: {NEEDS[name]}") from None
    return getattr(import_module(f"{__package__}.{module}"), name)


def dump(name: str, given: Any, case: str) -> dict[str, np.ndarray]:
    """What a library makes of one case of published vectors: relevance by name, as far as it tells.

    Parameters
    ----------
    name : {"zennit", "captum", "lxt", "innvestigate"}
    given : numpylrp.validate.vectors.Vectors
    case : str
    """
    if len(given.x) > 1:
        raise UnsupportedError(f"{given.name} has several inputs, which is not translated to {name}")
    (source,), asked = given.x, given.cases[case]
    R = library(name)(given.network, given.x[source], asked.rules, asked.seed, asked.normalization)
    return {key: np.asarray(value, np.float64) for key, value in R.items()}
