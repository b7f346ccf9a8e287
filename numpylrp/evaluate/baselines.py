"""Maps to compare with: random, gradient, gradient x input, integrated gradients, SmoothGrad, occlusion.

Each is a method, a function of (network, x, target) that gives relevance of the shape of x; `METHODS` has
them by name, and `lrp` makes one of a composite. Gradients are those of `numpylrp.evaluate.gradients`.
Methods other than occlusion give a dict of arrays for a network with several inputs.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from ..errors import LRPError, ShapeError
from ..explanation import explain
from ..network import Network
from .fills import DRAWS, NOISE, generator, replacements
from .gradients import gradient
from .maps import positions, regions, whole_number
from .scores import Progress, Scores

Method = Callable[[Network, Any, Any], Any]
"""Relevance of the shape of x, given (network, x, target)."""


def lrp(composite: Any = "epsilon-plus", normalization: str = "fused", **options: Any) -> Method:
    """`numpylrp.explain` with these settings as a method.

    Examples
    --------
    >>> from numpylrp.layers import Dense
    >>> net = Network([("fc", Dense([[2.0, 1.0]]))], input_shape=(2,))
    >>> lrp("epsilon", epsilon=0.0)(net, [[3.0, 4.0]], 0)
    array([[6., 4.]])
    """

    def method(network: Network, x: Any, target: Any = None) -> Any:
        return explain(
            network, x, target, composite=composite, normalization=normalization, **options
        ).relevance

    return method


def _single(found: dict[str, np.ndarray]) -> Any:
    return found if len(found) > 1 else found[next(iter(found))]


def _by_input(network: Network, gradients: Any) -> dict[str, np.ndarray]:
    return gradients if isinstance(gradients, dict) else {next(iter(network.inputs)): gradients}


def random_relevance(network: Network, x: Any, target: Any = None, *, seed: int = 0) -> Any:
    """Independent uniform values in 0 .. 1: what a map scores that knows nothing.

    On average: pointing game, rank and mass accuracy the mask's share of the positions, outside-inside
    ratio about 1, Gini index about 1/3 (for one channel), MoRF and LeRF as the random order.

    Examples
    --------
    >>> from numpylrp.layers import ReLU
    >>> random_relevance(Network([("relu", ReLU())], input_shape=(2,)), [[0.0, 0.0]]).shape
    (1, 2)
    """
    batch = network.batch(x)
    draws = [generator(seed, n, DRAWS) for n in range(len(next(iter(batch.values()))))]
    return _single(
        {
            name: np.stack([rng.random(value.shape[1:]) for rng in draws]).astype(network.dtype)
            for name, value in batch.items()
        }
    )


def gradient_x_input(network: Network, x: Any, target: Any = None, **options: Any) -> Any:
    """``x * df/dx`` (Shrikumar et al. 2016): LRP-0 for a network of ReLUs and linear layers.

    Parameters
    ----------
    network, x, target
    **options
        Of `gradient`.

    Examples
    --------
    >>> from numpylrp.layers import Dense
    >>> gradient_x_input(Network([("fc", Dense([[2.0, 1.0]]))], input_shape=(2,)), [[3.0, 4.0]])
    array([[6., 4.]])
    """
    batch = network.batch(x)
    found = _by_input(network, gradient(network, batch, target, **options))
    return _single({name: batch[name] * g for name, g in found.items()})


def integrated_gradients(
    network: Network,
    x: Any,
    target: Any = None,
    *,
    start: float = 0.0,
    steps: int = 64,
    progress: Progress | None = None,
    **options: Any,
) -> Any:
    """``(x - x') * mean of df/dx on the line from x' to x`` (Sundararajan et al. 2017).

    The mean is taken at the middle of `steps` equal pieces of the line. Its sum comes to f(x) - f(x') as
    the number of steps grows (completeness).

    Parameters
    ----------
    network, x
    target
        By default the class with the largest output at x.
    start : float
        Every value of the baseline x'.
    steps : int
    **options
        Of `gradient`.

    Examples
    --------
    >>> from numpylrp.layers import Multiply
    >>> net = Network([("square", Multiply(), ("input", "input"))], input_shape=(1,))
    >>> integrated_gradients(net, [[3.0]], steps=2)
    array([[9.]])
    """
    steps = whole_number(steps, "steps")
    batch = network.batch(x)
    target = Scores(network, batch, target, **_output(options), input=next(iter(batch))).target
    total: dict[str, Any] = dict.fromkeys(batch, 0)
    for step in range(steps):
        part = (step + 0.5) / steps
        between = {name: start + part * (value - start) for name, value in batch.items()}
        for name, g in _by_input(network, gradient(network, between, target, **options)).items():
            total[name] = total[name] + g
        if progress is not None:
            progress((step + 1) * len(target), steps * len(target))
    return _single({name: (value - start) * total[name] / steps for name, value in batch.items()})


def smoothgrad(
    network: Network,
    x: Any,
    target: Any = None,
    *,
    level: float = 0.15,
    draws: int = 25,
    seed: int = 0,
    progress: Progress | None = None,
    **options: Any,
) -> Any:
    """The mean gradient at x + Gaussian noise (Smilkov et al. 2017).

    Parameters
    ----------
    network, x
    target
        By default the class with the largest output at x.
    level : float
        Standard deviation of the noise, relative to the range of each sample's values.
    draws : int
    seed : int
        A sample's noise depends on its number, not on its batch.
    **options
        Of `gradient`.

    Examples
    --------
    >>> from numpylrp.layers import Dense
    >>> smoothgrad(Network([("fc", Dense([[2.0, 1.0]]))], input_shape=(2,)), [[3.0, 4.0]])
    array([[2., 1.]])
    """
    draws = whole_number(draws, "draws")
    if not (isinstance(level, (int, float)) and level >= 0):
        raise LRPError(f"level must be at least 0, not {level!r}")
    batch = network.batch(x)
    target = Scores(network, batch, target, **_output(options), input=next(iter(batch))).target
    streams = [generator(seed, n, NOISE) for n in range(len(target))]
    widths = {name: level * np.ptp(v.reshape(len(v), -1), axis=1) for name, v in batch.items()}
    total: dict[str, Any] = dict.fromkeys(batch, 0)
    for draw in range(draws):
        noisy = {
            name: np.stack(
                [v + w * rng.standard_normal(v.shape) for v, w, rng in zip(value, widths[name], streams)]
            )
            for name, value in batch.items()
        }
        for name, g in _by_input(network, gradient(network, noisy, target, **options)).items():
            total[name] = total[name] + g
        if progress is not None:
            progress((draw + 1) * len(target), draws * len(target))
    return _single({name: g / draws for name, g in total.items()})


def occlusion(
    network: Network,
    x: Any,
    target: Any = None,
    *,
    region: Any = 1,
    fill: Any = "zero",
    score: str = "logit",
    seed: int = 0,
    channels: Any = "auto",
    output: str | None = None,
    input: str | None = None,
    batch_size: int | None = None,
    progress: Progress | None = None,
) -> np.ndarray:
    """How far the score drops when a region is replaced (Zeiler and Fergus 2014).

    Regions lie side by side and do not overlap. The drop is shared equally among the values of the region,
    so that it is the region's sum. (Captum's Occlusion gives each value the whole drop.)

    Parameters
    ----------
    network, x, target, region, fill, score, seed, channels, output, input, batch_size, progress
        As in `numpylrp.evaluate.region_perturbation`.

    Returns
    -------
    (N, *input) array

    Examples
    --------
    >>> from numpylrp.layers import Dense
    >>> occlusion(Network([("fc", Dense([[2.0, 1.0]]))], input_shape=(2,)), [[3.0, 4.0]])
    array([[6., 4.]])
    """
    scores = Scores(network, x, target, score, output, input, channels, batch_size)
    labels = regions(positions(scores.x.shape[1:], scores.channels), region)
    count = int(labels.max()) + 1
    filled = replacements(fill, scores.x, scores.channels, network.metadata.get("input_range"), seed)
    found = scores.variants(filled, lambda rows, k: labels == _over(k, labels), count, progress)
    drop = (scores.start[:, None] - found) / np.bincount(labels.ravel())
    maps = drop.astype(scores.x.dtype)[:, labels]
    if scores.channels is None:
        return maps
    maps = np.expand_dims(maps, scores.channels + 1) / scores.x.shape[scores.channels + 1]
    return np.broadcast_to(maps.astype(scores.x.dtype), scores.x.shape).copy()


def _over(k: np.ndarray, labels: np.ndarray) -> np.ndarray:
    return k.reshape(-1, *(1,) * labels.ndim)


def _output(options: dict[str, Any]) -> dict[str, Any]:
    return {name: options[name] for name in ("output", "batch_size") if name in options}


def checked_map(found: Any, x: np.ndarray, name: str) -> np.ndarray:
    """What a method gave for an input, if it has its shape."""
    found = np.asarray(found[name] if isinstance(found, dict) else found)
    if found.shape != x.shape:
        raise ShapeError(f"the method gives relevance of shape {found.shape} for an input of {x.shape}")
    return found


METHODS: dict[str, Method] = {
    "random": random_relevance,
    "gradient": gradient,
    "gradient-x-input": gradient_x_input,
    "integrated-gradients": integrated_gradients,
    "smoothgrad": smoothgrad,
    "occlusion": occlusion,
}
"""The baselines by name."""
