"""Localization: does relevance lie where the truth lies?

Every function takes maps R (N, *positions), relevance with its channels summed (`heatmaps`), and masks
of the same shape that are true inside the object (`box_masks` makes them of boxes), and gives one value
for each sample. A value that is not defined, such as the share of a map that is 0 everywhere, is NaN.

Equal values have no order: where it matters which of them comes first, they count as if their order
were drawn at random, and the value is the mean over all draws. So a map that is constant scores what a
random map scores on average.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from ..errors import LRPError, ShapeError
from .maps import chosen, finite, masks_of, of_part, whole_number

THRESHOLDS = ("mean",)


def _flat(R: Any, masks: Any, part: str = "all") -> tuple[np.ndarray, np.ndarray]:
    """Maps and masks, checked, with the positions of a sample along one axis."""
    R = of_part(finite(R, "relevance"), part)
    masks = masks_of(masks, R.shape)
    return R.reshape(len(R), -1), masks.reshape(len(R), -1)


def _ratio(above: np.ndarray, below: np.ndarray) -> np.ndarray:
    """Above / below; NaN for 0 / 0."""
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.asarray(above / below)


def relevance_mass_accuracy(R: Any, masks: Any, part: str = "all") -> np.ndarray:
    """The share of relevance that lies inside: ``sum inside / sum total`` (Arras et al. 2022).

    The definition is of maps without negative relevance, for which it lies in 0 .. 1: choose the part
    "positive" (or "absolute") of others. The signed sums of "all" may cancel. Quantus' measure of this
    name is that of "all".

    Parameters
    ----------
    R : (N, *positions) array
    masks : (N, *positions) bool array
    part : str
        "all", "positive", "negative" or "absolute" relevance.

    Returns
    -------
    (N,) array, best 1; NaN where the sum is 0

    Examples
    --------
    >>> relevance_mass_accuracy([[3.0, 1.0, -2.0]], [[1, 0, 0]], "positive")
    array([0.75])
    """
    flat, inside = _flat(R, masks, part)
    return _ratio((flat * inside).sum(1), flat.sum(1))


def relevance_rank_accuracy(R: Any, masks: Any, part: str = "all") -> np.ndarray:
    """The share of the K largest values that lie inside, K the size of the mask (Arras et al. 2022).

    Parameters
    ----------
    R : (N, *positions) array
    masks : (N, *positions) bool array
    part : str
        "all", "positive", "negative" or "absolute" relevance.

    Returns
    -------
    (N,) array in 0 .. 1, best 1. That of random maps is the mask's share of the positions, on average.

    Examples
    --------
    One of the three equal values comes third, and one of them lies inside: (1 + 1/3) / 3.

    >>> relevance_rank_accuracy([[5.0, 4.0, 1.0, 1.0, 1.0, 0.0]], [[1, 0, 1, 0, 0, 1]])
    array([0.44444444])
    """
    flat, inside = _flat(R, masks, part)
    size = inside.sum(1)
    least = np.take_along_axis(np.sort(flat, 1)[:, ::-1], size[:, None] - 1, 1)  # the K-th largest
    above, equal = flat > least, flat == least
    places = size - above.sum(1)  # left for those that equal it
    return ((above & inside).sum(1) + places * (equal & inside).sum(1) / equal.sum(1)) / size


def pointing_game(R: Any, masks: Any, part: str = "all") -> np.ndarray:
    """Whether the largest value lies inside: 1 or 0 (Zhang et al. 2016).

    Of several largest values, the share that lies inside. (Quantus gives 1 if one of them does, so also
    for every map that is 0; Zhang et al. count a hit within 15 pixels of the object.)

    Returns
    -------
    (N,) array in 0 .. 1, best 1

    Examples
    --------
    >>> pointing_game([[0.0, 2.0], [1.0, 1.0]], [[0, 1], [0, 1]])
    array([1. , 0.5])
    """
    flat, inside = _flat(R, masks, part)
    largest = flat == flat.max(1, keepdims=True)
    return (largest & inside).sum(1) / largest.sum(1)


def outside_inside_ratio(R: Any, masks: Any, form: str = "normalized") -> np.ndarray:
    """The outside-inside relevance ratio, ``mean of R outside / mean of R inside`` (Bach et al. 2016).

    Parameters
    ----------
    R : (N, *positions) array
    masks : (N, *positions) bool array
    form : str
        "normalized": each map is first brought to 0 .. 1 by its smallest and largest value (the code of a
        third party). "positive": positive relevance only, as used for RAP (Nam et al. 2020; recalled, the
        paper's text could not be had).

    Returns
    -------
    (N,) array, best 0. It is infinite where nothing lies inside, NaN where there is nothing anywhere.

    Raises
    ------
    LRPError
        A mask with nothing outside.

    Examples
    --------
    >>> outside_inside_ratio([[4.0, 0.0, -4.0]], [[1, 0, 0]])
    array([0.25])
    >>> outside_inside_ratio([[4.0, 0.0, -4.0]], [[1, 0, 0]], "positive")
    array([0.])
    """
    chosen(form, ("normalized", "positive"), "form")
    flat, inside = _flat(R, masks, "positive" if form == "positive" else "all")
    full = np.flatnonzero(inside.all(1))
    if len(full):
        raise LRPError(f"the mask of sample {full[0]} leaves nothing outside")
    flat = normalized(flat) if form == "normalized" else flat
    outside = ~inside
    return _ratio((flat * outside).sum(1) / outside.sum(1), (flat * inside).sum(1) / inside.sum(1))


def normalized(R: np.ndarray) -> np.ndarray:
    """Each map from 0 (its smallest value) to 1 (its largest); 0 where it is constant.

    Examples
    --------
    >>> normalized(np.array([[-1.0, 1.0, 0.0], [2.0, 2.0, 2.0]]))
    array([[0. , 1. , 0.5],
           [0. , 0. , 0. ]])
    """
    axes = tuple(range(1, R.ndim))
    low, high = R.min(axes, keepdims=True), R.max(axes, keepdims=True)
    half = np.where(high > low, high / 2 - low / 2, 1)  # the difference itself may overflow
    return (R / 2 - low / 2) / half


@dataclass
class Segmentation:
    """Maps read as segmentations: counts of each sample, which add up to those of the data set.

    Attributes
    ----------
    intersection, union : (N, 2) int array
        Positions in the intersection and in the union of prediction and truth, for background and
        foreground.
    correct : (N,) int array
        Positions that are classified correctly.
    positions : int
        Positions of a sample.
    average_precision : (N,) array
        See `average_precision`.
    """

    intersection: np.ndarray
    union: np.ndarray
    correct: np.ndarray
    positions: int
    average_precision: np.ndarray

    @property
    def miou(self) -> float:
        """Mean over background and foreground of intersection over union, both summed over all samples."""
        return float(_ratio(self.intersection.sum(0), self.union.sum(0)).mean())

    @property
    def pixel_accuracy(self) -> float:
        """The share of the positions of all samples that are classified correctly."""
        return float(self.correct.sum() / (len(self.correct) * self.positions))

    def __str__(self) -> str:
        return (
            f"mIoU {self.miou:.4f}, pixel accuracy {self.pixel_accuracy:.4f}, "
            f"average precision {self.average_precision.mean():.4f} ({len(self.correct)} samples)"
        )

    __repr__ = __str__


def segmentation(R: Any, masks: Any, threshold: Any = "mean", classes: str = "foreground") -> Segmentation:
    """Maps as segmentations of the object (Chefer et al. 2021; code).

    Each map is brought to 0 .. 1 by its smallest and largest value; foreground is what lies above the
    threshold. Which threshold RAP's own table used is not known.

    Parameters
    ----------
    R : (N, *positions) array
    masks : (N, *positions) bool array
    threshold : "mean" or float
        The mean of the map itself (Chefer et al.), or a number such as 0.5.
    classes : str
        For the average precision, see `average_precision`; it does not depend on the threshold.

    Examples
    --------
    >>> segmentation([[1.0, 0.6, 0.0, 0.0]], [[1, 0, 0, 0]])
    mIoU 0.5833, pixel accuracy 0.7500, average precision 1.0000 (1 samples)
    >>> segmentation([[1.0, 0.6, 0.0, 0.0]], [[1, 0, 0, 0]], threshold=0.7).miou
    1.0
    """
    number = isinstance(threshold, (int, float, np.number)) and not isinstance(threshold, bool)
    if (not number and threshold not in THRESHOLDS) or (number and not 0 <= threshold < 1):
        raise LRPError(f"threshold must be 'mean' or a number in 0 .. 1 (1 excluded), not {threshold!r}")
    flat, inside = _flat(R, masks)
    flat = normalized(flat)
    seen = flat > (threshold if number else flat.mean(1, keepdims=True))
    both = [(~seen, ~inside), (seen, inside)]
    return Segmentation(
        np.stack([(p & t).sum(1) for p, t in both], 1),
        np.stack([(p | t).sum(1) for p, t in both], 1),
        (seen == inside).sum(1),
        flat.shape[1],
        average_precision(R, masks, classes),
    )


def average_precision(R: Any, masks: Any, classes: str = "foreground") -> np.ndarray:
    """Average precision of the map as a ranking of positions: ``sum_n (r_n - r_(n-1)) p_n``.

    The sum goes over the different values of the map from the largest on, p_n and r_n being precision and
    recall of what is at least as large (as scikit-learn has it; no interpolation).

    Parameters
    ----------
    R : (N, *positions) array
    masks : (N, *positions) bool array
    classes : str
        "foreground": positions inside are to be ranked first. "both": the map m, brought to 0 .. 1, scores
        the foreground and 1 - m the background, in one ranking of twice as many (Chefer et al. 2021; code).

    Returns
    -------
    (N,) array in 0 .. 1, best 1

    Examples
    --------
    >>> average_precision([[3.0, 2.0, 1.0]], [[1, 0, 1]])
    array([0.83333333])
    """
    chosen(classes, ("foreground", "both"), "classes")
    flat, inside = _flat(R, masks)
    if classes == "both":
        flat = normalized(flat)
        flat, inside = np.concatenate([1 - flat, flat], 1), np.concatenate([~inside, inside], 1)
    return np.array([_average_precision(*pair) for pair in zip(flat, inside)])


def _average_precision(scores: np.ndarray, inside: np.ndarray) -> float:
    order = np.argsort(-scores, kind="stable")
    hits, values = np.cumsum(inside[order]), scores[order]
    last = np.append(np.flatnonzero(np.diff(values)), len(values) - 1)  # of each run of equal values
    precision, recall = hits[last] / (last + 1), hits[last] / hits[-1]
    return float((np.diff(recall, prepend=0) * precision).sum())


def grid_masks(cells: Any, size: tuple[int, int], grid: tuple[int, int] = (2, 2)) -> np.ndarray:
    """Masks of one cell of a grid for each sample.

    Parameters
    ----------
    cells : (N,) int array
        Numbers of cells, row-major.
    size : (int, int)
        Height and width of the image.
    grid : (int, int)
        Rows and columns of cells; they must divide the image.

    Examples
    --------
    >>> grid_masks([3], (2, 4)).astype(int)
    array([[[0, 0, 0, 0],
            [0, 0, 1, 1]]])
    """
    rows, columns = (whole_number(n, "grid") for n in grid)
    if size[0] % rows or size[1] % columns:
        raise ShapeError(
            f"an image of {size[0]} x {size[1]} can't be cut into {rows} x {columns} equal cells"
        )
    cells = np.asarray(cells)
    if cells.ndim != 1 or cells.dtype.kind not in "iu" or not np.isin(cells, np.arange(rows * columns)).all():
        raise LRPError(f"cells must be integers 0 .. {rows * columns - 1}, one a sample, not {cells!r:.80}")
    at = np.arange(size[0])[:, None] // (size[0] // rows) * columns + np.arange(size[1]) // (
        size[1] // columns
    )
    return at == cells[:, None, None]


def grid_pointing_game(R: Any, cells: Any, grid: tuple[int, int] = (2, 2)) -> np.ndarray:
    """The share of positive relevance in the cell of the class asked for (Boehle et al. 2021; recalled).

    Parameters
    ----------
    R : (N, H, W) array
        Maps of mosaics (`numpylrp.evaluate.mosaics`).
    cells : (N,) int array
        The cell with the class that is explained, row-major.
    grid : (int, int)
        Rows and columns of cells.

    Returns
    -------
    (N,) array in 0 .. 1, best 1, NaN where there is no positive relevance. Chance is 1 / cells.

    Examples
    --------
    >>> grid_pointing_game([[[3.0, -1.0], [1.0, 0.0]]], [0])
    array([0.75])
    """
    R = finite(R, "relevance")
    if R.ndim != 3:
        raise ShapeError(f"mosaics have maps (N, H, W), not {R.shape}: sum over channels first (heatmaps)")
    masks = grid_masks(cells, (R.shape[1], R.shape[2]), grid)
    return relevance_mass_accuracy(R, masks, "positive")
