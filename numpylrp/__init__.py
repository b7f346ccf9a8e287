"""numpylrp: Layer-wise Relevance Propagation in plain NumPy.

>>> import numpylrp
>>> network = numpylrp.load("weights/mnist_cnn.h5")  # doctest: +SKIP
>>> print(numpylrp.explain(network, images))  # doctest: +SKIP
"""

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
