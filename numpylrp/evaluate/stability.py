"""What becomes of a map under noise, with random weights, and for another class."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import ndimage, stats  # type: ignore

from ..errors import LRPError, ShapeError
from ..layers import Affine, Layer
from ..network import Network
from ..text import aligned
from .baselines import Method, checked_map
from .faithfulness import pearson
from .fills import DRAWS, NOISE, generator
from .maps import chosen, finite, heatmaps, whole_number
from .scores import Progress, Scores
from .summary import summarize

KEPT = ("mean", "variance", "sign", "value")
"""Parameters that are statistics or thresholds, and stay when weights become random."""


def sensitivity(
    network: Network,
    x: Any,
    method: Method,
    target: Any = None,
    *,
    radius: float = 0.1,
    draws: int = 10,
    seed: int = 0,
    input: str | None = None,
    progress: Progress | None = None,
) -> np.ndarray:
    """How far the map moves under small noise: ``||R(x + d) - R(x)|| / ||R(x)||`` (Yeh et al. 2019).

    Parameters
    ----------
    network, x
    method : function of (network, x, target)
        Gives relevance of the shape of x: of `numpylrp.evaluate.METHODS`, `lrp`, or your own.
    target
        By default the class with the largest output at x; it stays the same under noise.
    radius : float
        The noise d is uniform in -radius .. radius, for each value by itself.
    draws : int
    seed : int
        A sample's noise depends on its number, not on its batch.
    input : str, optional
        Which input gets the noise and is measured, of a network with several.
    progress : function of (done, total), optional

    Returns
    -------
    (N, draws) array of Frobenius norms, best 0: ``.max(1)`` is max-sensitivity, ``.mean(1)`` its average.
        NaN where R(x) is 0.

    Examples
    --------
    >>> from numpylrp.evaluate import gradient
    >>> from numpylrp.layers import Dense
    >>> net = Network([("fc", Dense([[2.0, 1.0]]))], input_shape=(2,))
    >>> sensitivity(net, [[3.0, 4.0]], gradient, draws=2)
    array([[0., 0.]])
    """
    draws = whole_number(draws, "draws")
    if not (isinstance(radius, (int, float)) and 0 < radius < np.inf):
        raise LRPError(f"radius must be positive, not {radius!r}")
    scores = Scores(network, x, target, input=input)
    streams = [generator(seed, n, NOISE) for n in range(len(scores))]

    def maps(values: np.ndarray) -> np.ndarray:
        found = method(network, scores.inputs(values), scores.target)
        return finite(checked_map(found, values, scores.input), "relevance").reshape(len(values), -1)

    R = maps(scores.x)
    size = np.linalg.norm(R, axis=1)
    found = np.empty((len(R), draws))
    for draw in range(draws):
        noise = np.stack([rng.uniform(-radius, radius, scores.x.shape[1:]) for rng in streams])
        moved = maps((scores.x + noise).astype(scores.x.dtype))
        with np.errstate(divide="ignore", invalid="ignore"):
            found[:, draw] = np.where(size > 0, np.linalg.norm(moved - R, axis=1) / size, np.nan)
        if progress is not None:
            progress((draw + 1) * len(R), draws * len(R))
    return found


def rank_correlation(a: Any, b: Any) -> np.ndarray:
    """Spearman's correlation of two maps: that of the ranks of their values; equal values share a rank.

    Parameters
    ----------
    a, b : (N, ...) arrays

    Returns
    -------
    (N,) array in -1 .. 1; NaN where a map is constant

    Examples
    --------
    >>> rank_correlation([[1.0, 2.0, 3.0]], [[-5.0, 0.0, 70.0]]).round(12)
    array([1.])
    """
    a, b = _alike(a, b)
    ranks = [stats.rankdata(values.reshape(len(values), -1), axis=1) for values in (a, b)]
    return pearson(*ranks)


def ssim(a: Any, b: Any, window: int = 7) -> np.ndarray:
    """The structural similarity index of two maps (Wang et al. 2004), as scikit-image has it by default.

    With mean, variance and covariance (n / (n - 1)) over square windows of equal weight, and L the range
    of both maps together, ``((2 m_a m_b + c1) (2 v_ab + c2)) / ((m_a^2 + m_b^2 + c1) (v_a + v_b + c2))`` with
    ``c1 = (0.01 L)^2`` and ``c2 = (0.03 L)^2``; the mean over all windows that lie in the image.

    Parameters
    ----------
    a, b : (N, *positions) arrays
    window : int
        Positions along each axis; odd.

    Returns
    -------
    (N,) array, 1 for equal maps

    Raises
    ------
    ShapeError
        A window larger than the map.

    Examples
    --------
    >>> a = np.arange(9.0).reshape(1, 3, 3)
    >>> ssim(a, a, 3), ssim(a, 8 - a, 3).round(3)
    (array([1.]), array([-0.992]))
    """
    a, b = _alike(a, b)
    window = whole_number(window, "window", 2)
    if window % 2 == 0 or window > min(a.shape[1:]):
        raise ShapeError(f"window must be odd and at most the map's {a.shape[1:]}, not {window}")
    axes = tuple(range(1, a.ndim))
    span = np.maximum(a.max(axes), b.max(axes)) - np.minimum(a.min(axes), b.min(axes))
    span = np.where(span > 0, span, 1).reshape(-1, *(1,) * len(axes))
    # Variances from values in 0 .. 1, so that they do not cancel; the means get the offset back.
    low = np.minimum(a.min(axes), b.min(axes)).reshape(span.shape)
    inside = (slice(None), *(slice(window // 2, n - window // 2) for n in a.shape[1:]))

    def average(values: np.ndarray) -> np.ndarray:
        return ndimage.uniform_filter(values, (1, *(window,) * len(axes)))[inside]

    n = window ** len(axes)
    offset = low / span
    a, b = a / span - offset, b / span - offset
    means = average(a), average(b)
    covariance = n / (n - 1) * (average(a * b) - means[0] * means[1])
    variances = [n / (n - 1) * (average(v * v) - m * m) for v, m in zip((a, b), means)]
    c1, c2 = 0.01**2, 0.03**2
    first, second = means[0] + offset, means[1] + offset
    index = (2 * first * second + c1) * (2 * covariance + c2)
    index /= (first**2 + second**2 + c1) * (variances[0] + variances[1] + c2)
    return index.mean(axes)


def _alike(a: Any, b: Any) -> tuple[np.ndarray, np.ndarray]:
    a, b = finite(a, "relevance").astype(float), finite(b, "relevance").astype(float)
    if a.shape != b.shape:
        raise ShapeError(f"maps of shapes {a.shape} and {b.shape} can't be compared")
    return a, b


@dataclass
class Similarity:
    """How like the first maps others are.

    Attributes
    ----------
    names : list of str
        The layers that became random, from the top; the last map has all of them random.
    rank_correlation : (len(names), N) array
    ssim : (len(names), N) array
    """

    names: list[str]
    rank_correlation: np.ndarray
    ssim: np.ndarray

    def __str__(self) -> str:
        rows = [("random", "rank correlation", "SSIM")]
        for name, rank, index in zip(self.names, self.rank_correlation, self.ssim):
            both = [str(summarize(v)) if len(v) > 1 else f"{v[0]:.4g}" for v in (rank, index)]
            rows.append((name, both[0], both[1]))
        return aligned(rows)

    __repr__ = __str__


def randomized_layers(network: Network) -> list[list[str]]:
    """The layers with weights from the top down; those that share one object stand together."""
    found: dict[int, list[str]] = {}
    for node in reversed(network.nodes):
        learned = set(node.layer.arrays()) - set(KEPT)
        if learned and not isinstance(node.layer, Affine):
            found.setdefault(id(node.layer), []).append(node.name)
    return list(found.values())


def randomized(layer: Layer, rng: np.random.Generator, how: str = "permuted") -> Layer:
    """The layer with random weights.

    Parameters
    ----------
    layer : Layer
    rng : Generator
    how : str
        "permuted": the values of each array in random order, so that their distribution stays. "normal":
        Gaussian values of the mean and standard deviation of the array.

    Returns
    -------
    Layer
        Statistics of batch normalization and thresholds are kept.

    Examples
    --------
    >>> from numpylrp.layers import Dense
    >>> sorted(randomized(Dense([[1.0, 2.0, 3.0]]), np.random.default_rng(0)).weight[0].tolist())
    [1.0, 2.0, 3.0]
    """
    chosen(how, ("permuted", "normal"), "how")
    arrays = {}
    for name, array in sorted(layer.arrays().items()):
        if name in KEPT:
            continue
        if how == "permuted":
            arrays[name] = rng.permutation(array.ravel()).reshape(array.shape)
        else:
            arrays[name] = rng.normal(array.mean(), array.std(), array.shape).astype(array.dtype)
    return dataclasses.replace(layer, **arrays) if arrays else layer


def weight_randomization(
    network: Network,
    x: Any,
    method: Method,
    target: Any = None,
    *,
    how: str = "permuted",
    order: str = "cascading",
    layers: Iterable[str] | None = None,
    part: str = "all",
    window: int = 7,
    seed: int = 0,
    channels: Any = "auto",
    input: str | None = None,
    progress: Progress | None = None,
) -> Similarity:
    """How like the map stays when weights become random, from the top down (Adebayo et al. 2018).

    A map that explains what the network has learned changes. Each map is divided by its largest absolute
    value before SSIM, since random weights change the size of the output; rank correlation does not need it.

    Parameters
    ----------
    network, x
    method : function of (network, x, target)
        Gives relevance of the shape of x. It is given the network with random weights and does with
        batch normalization what it does with that of the first.
    target
        By default the class with the largest output of the network as it is.
    how : str
        "permuted" or "normal", see `randomized`. Rescaled inputs (`Affine`) and statistics stay.
    order : str
        "cascading": a layer and all above it. "independent": each layer by itself.
    layers : sequence of str, optional
        Only these layers become random.
    part : str
        "all" compares signed maps, "absolute" their absolute values.
    window : int
        Of `ssim`.
    seed, channels, input, progress
        As in `numpylrp.evaluate.region_perturbation`.

    Returns
    -------
    Similarity

    Examples
    --------
    >>> from numpylrp.evaluate import gradient
    >>> from numpylrp.layers import Dense
    >>> net = Network([("fc", Dense([[1.0, 2.0, 3.0, 4.0]]))], input_shape=(4,))
    >>> weight_randomization(net, [[1.0, 1.0, 1.0, 1.0]], gradient, window=3)
    random  rank correlation  SSIM
    fc      0.8               0.6958
    """
    chosen(order, ("cascading", "independent"), "order")
    scores = Scores(network, x, target, input=input, channels=channels)

    def maps(of: Network) -> np.ndarray:
        found = method(of, scores.inputs(), scores.target)
        return heatmaps(checked_map(found, scores.x, scores.input), scores.channels, part)

    groups = randomized_layers(network)
    if layers is not None:
        for name in (only := list(layers)):
            if not any(name in group for group in groups):
                raise LRPError(f"layer {name!r} has no weights that could become random")
        groups = [group for group in groups if any(name in only for name in group)]
    if not groups:
        raise LRPError("the network has no weights that could become random")
    first, changed = maps(network), network
    names, ranks, indices = [], [], []
    for k, group in enumerate(groups):
        layer = randomized(network[group[0]], generator(seed, k, DRAWS), how)
        base = changed if order == "cascading" else network
        changed = base.rebuilt((n.name, layer if n.name in group else n.layer, n.inputs) for n in base.nodes)
        R = maps(changed)
        names.append(", ".join(group))
        ranks.append(rank_correlation(first, R))
        indices.append(ssim(_scaled(first), _scaled(R), window))
        if progress is not None:
            progress((k + 1) * len(R), len(groups) * len(R))
    return Similarity(names, np.stack(ranks), np.stack(indices))


def class_randomization(
    network: Network,
    x: Any,
    method: Method,
    target: Any = None,
    *,
    part: str = "all",
    window: int = 7,
    seed: int = 0,
    channels: Any = "auto",
    input: str | None = None,
) -> Similarity:
    """How like the map of the class is to that of another one, drawn at random (Sixt et al. 2020).

    A map that does not change explains no class. Parameters are those of `weight_randomization`.

    Returns
    -------
    Similarity
        With one name, "class".

    Examples
    --------
    >>> from numpylrp.evaluate import gradient
    >>> from numpylrp.layers import Dense
    >>> net = Network([("fc", Dense([[1.0, 2.0, 3.0], [-1.0, -2.0, -3.0]]))], input_shape=(3,))
    >>> class_randomization(net, [[1.0, 1.0, 1.0]], gradient, window=3).rank_correlation
    array([[-1.]])
    """
    scores = Scores(network, x, target, input=input, channels=channels)
    count = scores.logits.shape[1] if scores.logits.ndim > 1 else 1
    if count < 2:
        raise LRPError("another class needs a network with two classes or more")
    steps = [int(generator(seed, n, DRAWS).integers(1, count)) for n in range(len(scores))]
    R, other = (
        heatmaps(
            checked_map(method(network, scores.inputs(), t), scores.x, scores.input), scores.channels, part
        )
        for t in (scores.target, (scores.target + steps) % count)
    )
    return Similarity(
        ["class"], rank_correlation(R, other)[None], ssim(_scaled(R), _scaled(other), window)[None]
    )


def _scaled(R: np.ndarray) -> np.ndarray:
    """Each map divided by its largest absolute value."""
    largest = np.abs(R).max(tuple(range(1, R.ndim)), keepdims=True)
    return R / np.where(largest > 0, largest, 1)
