"""Relevance of pairs: which parts of two samples make them similar (BiLRP, Eberle et al. 2022)."""

from __future__ import annotations

from typing import Any

import numpy as np

from .errors import LRPError, lookup
from .explanation import explain
from .network import Network


def similarity_pairs(
    network: Network | tuple[Network, Network],
    a: Any,
    b: Any,
    *,
    input: str | None = None,
    **options: Any,
) -> np.ndarray:
    """Relevance of each pair of input values for the dot product of two samples' embeddings.

    ``R_ij = sum_k R_i^k(a) R_j^k(b)``, with R^k the relevance for value k of the embedding. Where rules keep
    sums, the pairs sum to the dot product.

    Parameters
    ----------
    network : Network, or two of them
        Its output is the embedding, (N, K). Two where `b` has one of its own: a model that was exported
        once for each length, or one for images and one for texts.
    a, b : array, or mapping of input name to array
        One sample each, with the batch axis.
    input : str, optional
        Which input's relevance is paired, of a network with several; by default the first.
    **options
        As in `numpylrp.explain`.

    Returns
    -------
    (*input of a, *input of b) array

    Examples
    --------
    >>> from numpylrp.layers import Dense
    >>> net = Network([("fc", Dense([[1.0, 2.0], [0.0, 1.0]]))], input_shape=(2,))
    >>> similarity_pairs(net, [[1.0, 1.0]], [[2.0, 1.0]], composite="epsilon", epsilon=0.0)
    array([[2., 2.],
           [4., 5.]])
    """
    both = (network, network) if isinstance(network, Network) else tuple(network)
    if len(both) != 2:
        raise LRPError(f"pairs are of two samples: give one network or two, not {len(both)}")
    first, second = (_by_value(one, sample, input, options) for one, sample in zip(both, (a, b)))
    if len(first) != len(second):
        raise LRPError(f"embeddings of {len(first)} and {len(second)} values have no dot product")
    return np.tensordot(first, second, (0, 0))


def _by_value(network: Network, sample: Any, input: str | None, options: dict[str, Any]) -> np.ndarray:
    """The relevance of one sample for each value of its embedding, (K, *input)."""
    name = next(iter(network.inputs)) if input is None else input
    lookup(network.inputs, name, "input")
    top = network.shapes[options.get("output") or network.outputs[0]]
    if len(top) != 1 or top[0] is None:
        raise LRPError(f"the output must be an embedding (K,), not {top}")
    found = explain(network, sample, classes=range(top[0]), **options).relevance
    R = found[name] if isinstance(found, dict) else found
    if R.shape[1] != 1:
        raise LRPError(f"pairs are of two samples, one each, not of {R.shape[1]}")
    return R[:, 0]
