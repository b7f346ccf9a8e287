"""Region perturbation: does the output change where the map says that it would?"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..errors import LRPError, ShapeError
from ..network import Network
from ..text import aligned
from .fills import ORDER, generator, replacements
from .maps import chosen, heatmaps, region_sums, regions, whole_number
from .scores import Progress, relevance_and_target
from .summary import summarize

ORDERS = ("MoRF", "LeRF", "random")


@dataclass
class Perturbation:
    """What became of the score while regions were replaced.

    Attributes
    ----------
    scores : dict of (N, L + 1) array
        For each order, the score f(x^(k)) of each sample after k = 0 .. L steps.
    target : (N,) int array
        The class of each sample whose score it is.
    order : dict of (N, steps) int array
        The regions of each sample in the order in which they were replaced.
    regions : int
        How many regions a sample has.
    counts : (L + 1,) int array
        How many regions are replaced after each step; 0 .. L where a step is one region.
    """

    scores: dict[str, np.ndarray]
    target: np.ndarray
    order: dict[str, np.ndarray]
    regions: int
    counts: np.ndarray

    def _of(self, order: str) -> np.ndarray:
        if order not in self.scores:
            raise LRPError(f"order {order!r} was not measured; there are {', '.join(self.scores)}")
        return self.scores[order]

    def aopc(self, order: str = "MoRF") -> np.ndarray:
        """Area over the perturbation curve of each sample, (N,).

        ``AOPC = 1 / (L + 1) sum_{k=0..L} (f(x^(0)) - f(x^(k)))`` (Samek et al. 2017, eq. 12, whose
        figure is the mean over samples). With MoRF, higher is better; with LeRF, lower.
        """
        f = self._of(order)
        return (f[:, :1] - f).mean(1)

    def abpc(self) -> np.ndarray:
        """Area between the curves of LeRF and MoRF of each sample, (N,): higher is better.

        ``ABPC = 1 / (L + 1) sum_{k=0..L} (f_LeRF(x^(k)) - f_MoRF(x^(k)))``.
        """
        return (self._of("LeRF") - self._of("MoRF")).mean(1)

    def curve(self, order: str = "MoRF") -> tuple[np.ndarray, np.ndarray]:
        """Mean and standard deviation over samples of the score after k steps, (L + 1,) each.

        Raises
        ------
        LRPError
            Fewer than two samples: there is no spread.
        """
        f = self._of(order)
        if len(f) < 2:
            raise LRPError("the spread of a curve needs two samples or more, not 1")
        return f.mean(0), f.std(0, ddof=1)

    def __str__(self) -> str:
        rows = [("order", "AOPC", "std", "start", "end")]
        for name, f in self.scores.items():
            area = self.aopc(name)
            spread = f"{summarize(area).deviation:.4g}" if len(area) > 1 else "-"
            rows.append(
                (name, f"{area.mean():.4g}", spread, f"{f[:, 0].mean():.4g}", f"{f[:, -1].mean():.4g}")
            )
        n = len(self.target)
        head = f"{n} sample{'s' * (n > 1)}, {self.counts[-1]} of {self.regions} regions replaced"
        return f"{head}\n{aligned(rows)}"

    __repr__ = __str__


def region_perturbation(
    network: Network,
    x: Any,
    R: Any,
    target: Any = None,
    *,
    region: Any = 1,
    steps: int | None = None,
    every: int = 1,
    orders: Iterable[str] = ORDERS,
    fill: Any = "zero",
    part: str = "all",
    score: str = "logit",
    seed: int = 0,
    channels: Any = "auto",
    output: str | None = None,
    input: str | None = None,
    batch_size: int | None = None,
    progress: Progress | None = None,
) -> Perturbation:
    """Replace the regions of each sample one after the other and watch its score (Samek et al. 2017).

    The relevance of a region is the sum over it. MoRF (most relevant first) replaces regions from the
    largest on, LeRF (least relevant first) from the smallest on, and the random order is the baseline
    that both are judged against. Regions of equal relevance come in the random order, so that a map that
    says nothing gives the same curve in all three orders, whatever the image. The result depends on the
    replacement as much as on the map: measure with several fills.

    Parameters
    ----------
    network : Network
    x : (N, *input) array, or mapping of input name to array
    R : (N, *input) array, mapping, or Explanation
        Relevance of the input. An `Explanation` is checked to be of these samples.
    target : None, int, str, or a sequence of N of them
        The class of each sample; by default what R explains if it is an `Explanation`, else the class
        with the largest output.
    region : int or tuple of int
        Positions of a region along each axis; all channels of a region are replaced together.
    steps : int, optional
        Regions that are replaced; by default all of them.
    every : int
        Regions that one step replaces: the score is calculated after each step, so that there are
        ``L = ceil(steps / every)`` of them besides the first.
    orders : sequence of str
        Of "MoRF", "LeRF" and "random".
    fill : str, number, array, or function
        What comes in place of a region: "zero", "mean", "uniform" (over the model's input_range), "blur",
        or your own; see `numpylrp.evaluate.fills.replacements`. It is drawn once a sample.
    part : str
        Which relevance gives the order: "all", "positive" (R+ alone), "negative" (-R-: MoRF then begins
        with what speaks most against the class, and a good map makes the score rise) or "absolute".
    score : str
        "logit", or "probability" (softmax, or the sigmoid that the network ends with).
    seed : int
        Of the random order and of noise. Both belong to a sample's number, not to its batch.
    channels : int, None or "auto"
        The axis of a sample that holds channels; by default read off the network (`channels_axis`).
    output, input : str, optional
        Which output is scored and which input is perturbed, of a network with several.
    batch_size : int, optional
        Samples at a time. No result depends on it, but for rounding.
    progress : function of (done, total), optional
        Told how many samples have been evaluated, and how many there are with all orders and steps.

    Returns
    -------
    Perturbation

    Raises
    ------
    ShapeError
        Relevance of another shape than x; a region larger than the image.
    NonFiniteError
        NaN or infinity in x, R or the replacement.
    LRPError
        More steps than regions; names that are not known; an `Explanation` of other samples.

    Examples
    --------
    Of a linear network the curve is known: each step takes away the region's contributions.

    >>> from numpylrp.layers import Dense
    >>> net = Network([("fc", Dense([[1.0, 2.0, -1.0]]))], input_shape=(3,))
    >>> x = np.array([[1.0, 1.0, 1.0]])
    >>> found = region_perturbation(net, x, x * [[1.0, 2.0, -1.0]], target=0)
    >>> found.scores["MoRF"], found.scores["LeRF"]
    (array([[ 2.,  0., -1.,  0.]]), array([[2., 3., 2., 0.]]))
    >>> found.aopc(), found.abpc()
    (array([1.75]), array([1.5]))
    """
    orders = [orders] if isinstance(orders, str) else list(orders)
    for order in orders:
        chosen(order, ORDERS, "order")
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
    if steps is not None and isinstance(steps, (int, np.integer)) and steps > count:
        raise ShapeError(f"{steps} steps, but there are only {count} regions of {region} in {maps.shape[1:]}")
    steps = count if steps is None else whole_number(steps, "steps", 1)
    bounds = network.metadata.get("input_range")
    filled = replacements(fill, scores.x, scores.channels, bounds, seed)
    every = whole_number(every, "every", 1)
    counts = np.append(np.arange(0, steps, every), steps)
    found = Perturbation({}, scores.target, {}, count, counts)
    done, total = 0, len(orders) * len(scores) * (len(counts) - 1)
    for order in orders:
        ranked = _ranked(region_sums(maps, labels), order, seed)
        place = np.argsort(ranked, axis=1)  # of each region in the order

        def replaced(rows: np.ndarray, k: np.ndarray, place: np.ndarray = place) -> np.ndarray:
            return (place[rows] < counts[k + 1, None])[:, labels]

        after = scores.variants(filled, replaced, len(counts) - 1, progress, done, total)
        found.scores[order] = np.concatenate([scores.start[:, None], after], 1)
        found.order[order] = ranked[:, :steps]
        done += after.size
    return found


def _ranked(sums: np.ndarray, order: str, seed: int) -> np.ndarray:
    """The regions of each sample in the order in which they are replaced, (N, regions)."""
    ranked = np.stack([generator(seed, n, ORDER).permutation(sums.shape[1]) for n in range(len(sums))])
    if order == "random":
        return ranked
    shuffled = np.take_along_axis(sums, ranked, 1)
    first = np.argsort(-shuffled if order == "MoRF" else shuffled, axis=1, kind="stable")
    return np.take_along_axis(ranked, first, 1)
