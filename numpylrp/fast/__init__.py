"""The fast path: the same layers and rules, computed with less work.

`numpylrp.explanation.Walk` and `numpylrp.Network` ask a *path* for the output of a layer and for its
relevance. The plain path passes both questions on to the layer. The fast path, which is the default,
knows the library's own layers and rules and answers with fewer and larger products, spread over the
cores: convolutions in pieces that stay in a core's cache (`convolution`), several products of one rule
as one, denominators that come with the forward pass (`shares`), changed weights that are kept
(`products`). What it does not know, such as a layer or a rule of your own, goes the plain way.

Both paths give the same numbers but for rounding. On the plain path the relevance of a sample is the
same to the last bit for every batch size and number of threads. On the fast path no choice of algorithm
looks at the number of samples or threads; what is left is the order of sums inside matrix products,
which are cut differently. One layer then differs by some units in the last place of the largest term;
rules whose denominators may come close to 0 (epsilon, LRP-0) magnify that from layer to layer.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from functools import cache
from typing import Any

import numpy as np

from ..layers.base import Layer, Note
from ..rules import Rule
from . import pointwise, pooling, shares
from .products import Products, products_of

_allowed: ContextVar[bool] = ContextVar("numpylrp.fast", default=True)


@contextmanager
def plain() -> Iterator[None]:
    """Within it, every forward pass and every walk takes the plain path.

    Examples
    --------
    >>> import numpylrp
    >>> from numpylrp.layers import Dense
    >>> network = numpylrp.Network([("fc", Dense([[1.0, 2.0]]))], input_shape=(2,))
    >>> with numpylrp.plain():
    ...     numpylrp.explain(network, [[3.0, 1.0]], composite="z-plus").relevance
    array([[3., 2.]])
    """
    token = _allowed.set(False)
    try:
        yield
    finally:
        _allowed.reset(token)


class Plain:
    """Every question goes to the layer."""

    def forward(self, node: Any, x: Any) -> np.ndarray:
        """The output of the node's layer."""
        return node.layer.forward(x)

    def relprop(
        self, node: Any, R: np.ndarray, x: Any, y: np.ndarray, rule: Rule | None, note: Note = None
    ) -> Any:
        """Relevance of the layer's input."""
        return node.layer.relprop(R, x, y, rule, note)


class Fast:
    """The fast path of one walk: it keeps denominators that the forward pass came by.

    Parameters
    ----------
    rules : mapping of layer name to Rule
    """

    def __init__(self, rules: Mapping[str, Rule]) -> None:
        self.rules = rules
        self.denominators: dict[str, list[np.ndarray]] = {}
        self._products: dict[Layer, Products | None] = {}

    def products(self, layer: Layer) -> Products | None:
        """The layer's primitives, or None where it is not known."""
        try:
            return self._products[layer]
        except KeyError:
            return self._products.setdefault(layer, products_of(layer))

    def forward(self, node: Any, x: Any) -> np.ndarray:
        """As `Plain.forward`."""
        products = self.products(node.layer)
        if products is None:
            return _forward(type(node.layer))(node.layer, x)  # type: ignore[arg-type]
        rule = self.rules.get(node.name)
        found = None if rule is None else shares.forward(rule, products, x)
        if found is None:
            return products.linear(x, *products.parameters(x.shape[1:]))
        y, self.denominators[node.name] = found
        return y

    def relprop(
        self, node: Any, R: np.ndarray, x: Any, y: np.ndarray, rule: Rule | None, note: Note = None
    ) -> Any:
        """As `Plain.relprop`."""
        products = self.products(node.layer)
        if products is not None and rule is not None and shares.knows(rule):
            return shares.propagate(rule, products, R, x, y, self.denominators.get(node.name))
        return _relprop(type(node.layer))(node.layer, R, x, y, rule, note)  # type: ignore[arg-type]


@cache
def _forward(kind: type[Layer]) -> Callable:
    """The forward pass of a class without its check of shapes, which the network has made once."""
    known = pooling.FORWARD | pointwise.FORWARD
    return known.get(kind.forward, getattr(kind.forward, "__wrapped__", kind.forward))


@cache
def _relprop(kind: type[Layer]) -> Callable:
    """As `_forward`, of relprop."""
    known = pooling.RELPROP | pointwise.RELPROP
    return known.get(kind.relprop, getattr(kind.relprop, "__wrapped__", kind.relprop))


def path_of(rules: Mapping[str, Rule], fast: bool = True) -> Plain | Fast:
    """The path of one walk."""
    return Fast(rules) if fast and _allowed.get() else Plain()
