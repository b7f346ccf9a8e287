"""Faithfulness and sparsity of maps."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..errors import LRPError
from ..network import Network
from .fills import SUBSETS, generator, replacements
from .maps import finite, heatmaps, region_sums, regions, whole_number
from .scores import Progress, relevance_and_target


def pearson(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Pearson's correlation of the rows of a and b; NaN where one of them is constant.

    Examples
    --------
    >>> pearson(np.array([[1.0, 2.0, 3.0]]), np.array([[2.0, 4.0, 6.5]]))
    array([0.99794872])
    """
    constant = (np.ptp(a, axis=1) == 0) | (np.ptp(b, axis=1) == 0)
    a, b = (_unit(rows) for rows in (a, b))
    return np.where(constant, np.nan, np.clip((a * b).sum(1), -1, 1))


def _unit(rows: np.ndarray) -> np.ndarray:
    """Rows about their mean, of length 1."""
    scale = np.abs(rows).max(1, keepdims=True)
    rows = rows / np.where(scale > 0, scale, 1)  # squares of very large and small values stay finite
    rows = rows - rows.mean(1, keepdims=True)
    length = np.sqrt(np.square(rows).sum(1, keepdims=True))
    return rows / np.where(length > 0, length, 1)


def faithfulness_correlation(
    network: Network,
    x: Any,
    R: Any,
    target: Any = None,
    *,
    subset: int,
    runs: int = 100,
    region: Any = 1,
    fill: Any = "zero",
    part: str = "all",
    score: str = "logit",
    seed: int = 0,
    channels: Any = "auto",
    output: str | None = None,
    input: str | None = None,
    batch_size: int | None = None,
    progress: Progress | None = None,
) -> np.ndarray:
    """Correlation of the relevance of random subsets with the drop of the score (Bhatt et al. 2020).

    For `runs` random subsets S of the regions, Pearson's correlation of ``sum_{i in S} R_i`` with
    ``f(x) - f(x with S replaced)``. (Quantus chooses single values, which are these regions for images of
    one channel, and returns the mean over samples.)

    Parameters
    ----------
    subset : int
        Regions in a subset.
    runs : int
        Subsets, at least 3.
    network, x, R, target, region, fill, part, score, seed, channels, output, input, batch_size, progress
        As in `numpylrp.evaluate.region_perturbation`.

    Returns
    -------
    (N,) array in -1 .. 1, best 1; NaN where the relevance or the drop is the same for all subsets

    Examples
    --------
    >>> from numpylrp.layers import Dense
    >>> net = Network([("fc", Dense([[1.0, 2.0, -1.0, 0.5]]))], input_shape=(4,))
    >>> x = np.array([[1.0, 1.0, 1.0, 1.0]])
    >>> round(faithfulness_correlation(net, x, x * [[1.0, 2.0, -1.0, 0.5]], subset=2).item(), 12)
    1.0
    """
    options = {
        "score": score,
        "output": output,
        "input": input,
        "channels": channels,
        "batch_size": batch_size,
    }
    scores, R = relevance_and_target(network, x, R, target, **options)
    maps = heatmaps(R, scores.channels, part)
    labels = regions(maps.shape[1:], region)
    count = int(labels.max()) + 1
    runs = whole_number(runs, "runs", 3)
    subset = whole_number(subset, "subset", 1, count)
    if subset == count:
        raise LRPError(f"a subset of all {count} regions is the same in every run: choose fewer")
    members = np.stack(
        [_subsets(generator(seed, n, SUBSETS), runs, subset, count) for n in range(len(scores))]
    )
    filled = replacements(fill, scores.x, scores.channels, network.metadata.get("input_range"), seed)
    found = scores.variants(filled, lambda rows, k: members[rows, k][:, labels], runs, progress)
    sums = np.einsum("nkr,nr->nk", members, region_sums(maps, labels))
    return pearson(sums, scores.start[:, None] - found)


def _subsets(rng: np.random.Generator, runs: int, subset: int, count: int) -> np.ndarray:
    """Which regions are in each subset, (runs, count) bool."""
    return rng.permuted(np.tile(np.arange(count) < subset, (runs, 1)), axis=1)


def gini_index(R: Any) -> np.ndarray:
    """The Gini index of |R| as a measure of sparsity (Hurley and Rickard 2009; Chalasani et al. 2020).

    ``G = sum_i (2 i - n - 1) |R|_(i) / (n sum_i |R|_(i))`` with |R| sorted upwards and i = 1 .. n: 0 where
    all values are equal, 1 - 1/n where one has everything. (Quantus adds 1e-7 to every value.)

    Parameters
    ----------
    R : (N, ...) array
        Relevance, or maps (`heatmaps`): what is counted as one value is for the caller to say.

    Returns
    -------
    (N,) array; NaN where R is 0

    Examples
    --------
    >>> gini_index([[1.0, -1.0, 1.0, 1.0], [0.0, 0.0, -2.0, 0.0]])
    array([0.  , 0.75])
    """
    values = np.sort(np.abs(finite(R, "relevance")).reshape(len(R), -1), axis=1)
    largest = values[:, -1:]
    values = values / np.where(largest > 0, largest, 1)
    n = values.shape[1]
    with np.errstate(invalid="ignore"):
        return ((2 * np.arange(1, n + 1) - n - 1) * values).sum(1) / (n * values.sum(1))
