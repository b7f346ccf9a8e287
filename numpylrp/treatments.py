"""What becomes of a heatmap when batch normalization is treated in one way or another."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Any

import numpy as np

from .explanation import explain
from .network import Network
from .planning import NORMALIZATION
from .text import aligned


@dataclass(frozen=True)
class Comparison:
    """Relevance under each treatment of batch normalization, and how far the maps lie apart.

    Attributes
    ----------
    inputs : (N, *input) array
    relevance : dict of (N, *input) arrays
        By the treatment: "fused", "linear", "identity", "abs-z".
    """

    inputs: np.ndarray
    relevance: dict[str, np.ndarray]

    def distance(self, a: str, b: str) -> np.ndarray:
        """``sum |R_a - R_b| / sum |R_b|`` of each sample, (N,)."""
        p, q = (R.reshape(len(R), -1) for R in (self.relevance[a], self.relevance[b]))
        return np.abs(p - q).sum(1) / np.abs(q).sum(1)

    def correlation(self, a: str, b: str) -> np.ndarray:
        """Cosine of the two maps of each sample, (N,)."""
        p, q = (R.reshape(len(R), -1) for R in (self.relevance[a], self.relevance[b]))
        return (p * q).sum(1) / np.sqrt((p * p).sum(1) * (q * q).sum(1))

    def __str__(self) -> str:
        rows = [("treatment", "sum of relevance", "difference from fused", "cosine with fused")]
        for name, R in self.relevance.items():
            total = R.reshape(len(R), -1).sum(1).mean()
            distance, cosine = self.distance(name, "fused").mean(), self.correlation(name, "fused").mean()
            rows.append((name, f"{total:16.6g}", f"{distance:21.1%}", f"{cosine:17.3f}"))
        n = len(self.inputs)
        return f"{n} sample{'s, mean over samples' if n > 1 else ''}\n{aligned(rows)}"

    def picture(self, rows: Any = (), title: str = "", path: str | os.PathLike | None = None) -> Any:
        """A sheet with a sample a row and a treatment a column (extra ``plot``)."""
        from .plot import overview

        return overview(self.inputs, self.relevance, rows, title, path)


def compare_treatments(network: Network, x: Any, target: Any = None, **options: Any) -> Comparison:
    """Explain the same samples with every treatment of batch normalization.

    Parameters
    ----------
    network : Network
        With one input.
    x : (N, *input) array
    target, **options
        As in `numpylrp.explain`.

    Returns
    -------
    Comparison

    Examples
    --------
    >>> from numpylrp.layers import BatchNorm, Dense
    >>> from numpylrp.rules import ZPlus
    >>> bn = BatchNorm([2.0, 1.0], [1.0, 0.0], [0.0, 0.0], [1.0, 1.0], eps=0.0)
    >>> net = Network([("bn", bn), ("fc", Dense([[1.0, 1.0]]))], input_shape=(2,))
    >>> print(compare_treatments(net, [[1.0, 3.0]], composite=ZPlus()))
    1 sample
    treatment  sum of relevance  difference from fused  cosine with fused
    fused                     5                   0.0%              1.000
    linear                    5                   0.0%              1.000
    identity                  6                  20.0%              0.981
    abs-z                     5                   0.0%              1.000
    """
    relevance = {
        name: explain(network, x, target, normalization=name, **options).relevance for name in NORMALIZATION
    }
    return Comparison(next(iter(network.batch(x).values())), relevance)
