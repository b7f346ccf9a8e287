"""The measures of the experiments: for each image a value, from its maps."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from ..evaluate.baselines import Method
from ..evaluate.faithfulness import gini_index
from ..evaluate.localization import (
    grid_pointing_game,
    outside_inside_ratio,
    relevance_mass_accuracy,
    segmentation,
)
from ..evaluate.maps import heatmaps
from ..evaluate.perturbation import region_perturbation
from ..evaluate.truth import marked, mosaics, own_pixels
from ..fusion import fuse
from .study import Study, Trained

REGION, EVERY = 4, 8
"""The size of regions, and how many are replaced between two scores."""
FILLS = ("zero", "uniform")


def of_method(
    study: Study, one: Trained, name: str, method: Method, measures: tuple[str, ...]
) -> dict[str, np.ndarray]:
    """All measures of a method on a network, kept as a piece.

    Parameters
    ----------
    measures : names in `MEASURES`
    """
    settings = {"measures": measures, "region": REGION, "every": EVERY}
    return study.piece(one, name, settings, lambda: _all(study, one, method, measures))


def _all(study: Study, one: Trained, method: Method, measures: tuple[str, ...]) -> dict[str, np.ndarray]:
    images = study.samples(one.name)
    found: dict[str, np.ndarray] = {}
    scores = study.logits(one) if set(measures) - {"grid", "grid of positive", "mark"} else None
    target = None if scores is None else scores.argmax(1)
    R = None if target is None else np.asarray(method(one.network, images.x, target))
    for measure in measures:
        found |= MEASURES[measure](study, one, method, R, target)
    if scores is not None:
        found["score"] = scores.max(1)
    return {key: np.asarray(value, np.float64) for key, value in found.items()}


def _perturbation(study: Study, one: Trained, method: Method, R: Any, target: Any) -> dict:
    x, network = study.samples(one.name).x, fuse(one.network)[0]
    found = {}
    for fill in FILLS:
        options: dict[str, Any] = {"fill": fill, "orders": ("MoRF", "LeRF"), "steps": study.steps}
        options |= {"region": REGION, "every": EVERY}
        found[f"ABPC {fill}"] = region_perturbation(network, x, R, target, **options).abpc()
    return found


def _signs(study: Study, one: Trained, method: Method, R: Any, target: Any) -> dict:
    """Positive and negative relevance apart: how far the score falls, and how far it rises."""
    x, network = study.samples(one.name).x, fuse(one.network)[0]
    options: dict[str, Any] = {"fill": "uniform", "orders": ("MoRF",), "steps": study.steps}
    options |= {"region": REGION, "every": EVERY}
    fall = region_perturbation(network, x, R, target, part="positive", **options).aopc()
    rise = -region_perturbation(network, x, R, target, part="negative", **options).aopc()
    return {"AOPC positive": fall, "rise negative": rise}


def _gini(study: Study, one: Trained, method: Method, R: Any, target: Any) -> dict:
    return {"Gini": gini_index(heatmaps(R))}


def _absorbed(study: Study, one: Trained, method: Method, R: Any, target: Any) -> dict:
    score = study.logits(one)[np.arange(len(R)), target]
    return {"absorbed": 1 - R.reshape(len(R), -1).sum(1) / score}


def _object(study: Study, one: Trained, method: Method, R: Any, target: Any) -> dict:
    """Against the digit's own pixels, which the images of CIFAR-10 don't have."""
    x = study.samples(one.name).x
    if not one.name.startswith("mnist"):
        return {}
    return _located(heatmaps(R), own_pixels(x, target).mask)


def _located(maps: np.ndarray, masks: np.ndarray) -> dict:
    parts = {t: segmentation(maps, masks, t) for t in ("mean", 0.5)}
    return {
        "mass": relevance_mass_accuracy(maps, masks, "positive"),
        "outside-inside positive": outside_inside_ratio(maps, masks, "positive"),
        "outside-inside normalized": outside_inside_ratio(maps, masks, "normalized"),
        **{f"IoU {t}": (s.intersection / np.maximum(s.union, 1)).mean(1) for t, s in parts.items()},
    }


def _mark(study: Study, one: Trained, method: Method, R: Any, target: Any) -> dict:
    """The share of positive relevance on a mark that decides the class."""
    if "mark" not in one.network.metadata:
        return {}
    mark = one.network.metadata["mark"]
    images = study.samples(one.name)
    other = images.labels != mark["class"]
    ones = np.ones((mark["size"],) * 2)
    truth = marked(images.x[other], mark["class"], ones, (mark["top"], mark["left"]))
    found = heatmaps(np.asarray(method(one.network, truth.x, truth.target)))
    mass = np.full(len(images.x), np.nan)
    mass[other] = relevance_mass_accuracy(found, truth.mask, "positive")
    return {"mark": mass}


def _grid(study: Study, one: Trained, method: Method, R: Any, target: Any) -> dict:
    """Mosaics of four images: the share of positive relevance in the cell of the class asked for."""
    if None not in one.network.inputs["input"]:
        return {}
    images = study.samples(one.name)
    truth = mosaics(images.x, images.labels)
    maps = heatmaps(np.asarray(method(one.network, truth.x, truth.target)))
    return {"grid": grid_pointing_game(maps, truth.cells)}


def _grid_of_positive(study: Study, one: Trained, method: Method, R: Any, target: Any) -> dict:
    """The same, and for those mosaics alone whose class has a positive logit, with which CLRP starts."""
    images = study.samples(one.name)
    truth = mosaics(images.x, images.labels)
    logits = np.asarray(one.network.forward(truth.x))[np.arange(len(truth.target)), truth.target]
    share = _grid(study, one, method, R, target)["grid"]
    return {"grid": share, "grid, logit > 0": np.where(logits > 0, share, np.nan)}


MEASURES: dict[str, Callable[..., dict]] = {
    "perturbation": _perturbation,
    "signs": _signs,
    "gini": _gini,
    "absorbed": _absorbed,
    "object": _object,
    "mark": _mark,
    "grid": _grid,
    "grid of positive": _grid_of_positive,
}
"""The measures by name: functions of study, network, method, its maps and their classes."""

LOWER = ("outside-inside positive", "outside-inside normalized")
"""Values of which the lower is the better."""
