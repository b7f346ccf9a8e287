"""numpylrp: Layer-wise Relevance Propagation in plain NumPy.

>>> import numpylrp
>>> network = numpylrp.load("weights/mnist_cnn.h5")  # doctest: +SKIP
>>> print(numpylrp.explain(network, images))  # doctest: +SKIP
"""

from importlib import import_module
from importlib.util import find_spec
from typing import Any

from .auditing import Audit, audit
from .composite import Composite
from .convert import load
from .convert.native import save
from .errors import LRPError
from .explanation import Explanation, explain
from .fast import plain
from .fusion import fuse
from .network import Network

__version__ = "0.1.0"

__all__ = [
    "Audit",
    "Composite",
    "Explanation",
    "LRPError",
    "Network",
    "audit",
    "explain",
    "fuse",
    "load",
    "plain",
    "save",
]


def __getattr__(name: str) -> Any:
    """The modules of the package, imported when they are first asked for: ``numpylrp.plot`` and so on."""
    if name.startswith("_") or find_spec(f"{__name__}.{name}") is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return import_module(f"{__name__}.{name}")
