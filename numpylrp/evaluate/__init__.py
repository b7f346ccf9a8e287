"""Measures of heatmaps, baselines to compare with, and inputs whose explanation is known.

>>> import numpylrp
>>> from numpylrp import evaluate
>>> network = numpylrp.load("weights/mnist_cnn.h5")  # doctest: +SKIP
>>> explanation = numpylrp.explain(network, images)  # doctest: +SKIP
>>> evaluate.region_perturbation(network, images, explanation, region=4)  # doctest: +SKIP
"""

from .baselines import (
    METHODS,
    gradient_x_input,
    integrated_gradients,
    lrp,
    occlusion,
    random_relevance,
    smoothgrad,
)
from .faithfulness import faithfulness_correlation, gini_index
from .gradients import gradient
from .localization import (
    average_precision,
    grid_pointing_game,
    outside_inside_ratio,
    pointing_game,
    relevance_mass_accuracy,
    relevance_rank_accuracy,
    segmentation,
)
from .maps import box_masks, channels_axis, heatmaps
from .perturbation import Perturbation, region_perturbation
from .stability import class_randomization, rank_correlation, sensitivity, ssim, weight_randomization
from .summary import summarize
from .truth import Additive, KnownTruth, additive_network, heartbeats, marked, mosaics, own_pixels, planted

__all__ = [
    "METHODS",
    "Additive",
    "KnownTruth",
    "Perturbation",
    "additive_network",
    "average_precision",
    "box_masks",
    "channels_axis",
    "class_randomization",
    "faithfulness_correlation",
    "gini_index",
    "gradient",
    "gradient_x_input",
    "grid_pointing_game",
    "heartbeats",
    "heatmaps",
    "integrated_gradients",
    "lrp",
    "marked",
    "mosaics",
    "occlusion",
    "outside_inside_ratio",
    "own_pixels",
    "planted",
    "pointing_game",
    "random_relevance",
    "rank_correlation",
    "region_perturbation",
    "relevance_mass_accuracy",
    "relevance_rank_accuracy",
    "segmentation",
    "sensitivity",
    "smoothgrad",
    "ssim",
    "summarize",
    "weight_randomization",
]
