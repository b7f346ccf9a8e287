"""Keras 1 in the words of Keras 2: names of layers and options, and the axes of kernels."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..errors import UnsupportedError

KINDS = {
    "Convolution1D": "Conv1D",
    "Convolution2D": "Conv2D",
    "AtrousConvolution1D": "Conv1D",
    "AtrousConvolution2D": "Conv2D",
    "AtrousConv1D": "Conv1D",
    "AtrousConv2D": "Conv2D",
    "SeparableConvolution2D": "SeparableConv2D",
    "Deconvolution2D": "Conv2DTranspose",
    "Deconv2D": "Conv2DTranspose",
}
"""Layers that have another name since."""

OPTIONS = {
    "output_dim": "units",
    "nb_filter": "filters",
    "filter_length": "kernel_size",
    "subsample": "strides",
    "subsample_length": "strides",
    "border_mode": "padding",
    "atrous_rate": "dilation_rate",
    "bias": "use_bias",
    "pool_length": "pool_size",
    "stride": "strides",
    "length": "size",
    "p": "rate",
}
"""Options that have another name since."""

MERGES = {"sum": "Add", "mul": "Multiply", "ave": "Average", "max": "Maximum", "concat": "Concatenate"}
"""The modes of Keras 1's Merge."""


def is_old(config: Any) -> bool:
    """Whether a model's configuration speaks of options that only Keras 1 had."""
    entries = config if isinstance(config, list) else config.get("layers", [])
    own = {"nb_filter", "border_mode", "dim_ordering", "output_dim"}
    return any(
        entry["class_name"] in KINDS
        or own & set(entry["config"])
        or (isinstance(entry["config"], dict) and "layers" in entry["config"] and is_old(entry["config"]))
        or (isinstance(entry["config"], list) and is_old(entry["config"]))
        for entry in entries
    )


def modern(config: Any) -> Any:
    """A model's configuration in the words of Keras 2.

    Raises
    ------
    UnsupportedError
        A Merge of a mode that is none of a layer's, batch normalization by the batch's statistics.
    """
    if isinstance(config, list):
        return [_entry(entry) for entry in config]
    return {**config, "layers": [_entry(entry) for entry in config["layers"]]}


def _entry(entry: dict) -> dict:
    kind, c = entry["class_name"], entry["config"]
    if isinstance(c, list) or "layers" in c:
        return {**entry, "config": modern(c)}
    c = {OPTIONS.get(name, name): value for name, value in c.items()}
    ordering = c.pop("dim_ordering", None)
    if ordering in ("th", "tf"):
        c["data_format"] = {"th": "channels_first", "tf": "channels_last"}[ordering]
    if "nb_row" in c:
        c["kernel_size"] = [c.pop("nb_row"), c.pop("nb_col")]
    if kind in ("ZeroPadding2D", "Cropping2D"):
        name = "padding" if kind == "ZeroPadding2D" else "cropping"
        if np.ndim(c[name]) == 1 and len(c[name]) == 4:
            c[name] = [c[name][:2], c[name][2:]]
    if kind == "BatchNormalization" and c.get("mode", 0) != 0:
        raise UnsupportedError(f"layer {c['name']!r}: batch normalization of mode {c['mode']} mixes samples")
    if kind == "Merge":
        mode = c.get("mode")
        if mode not in MERGES:
            raise UnsupportedError(f"layer {c['name']!r}: Merge of mode {mode!r} is not supported")
        if c.get("layers"):
            raise UnsupportedError(f"layer {c['name']!r}: a Merge of models in a Sequential is not supported")
        kind, c["axis"] = MERGES[mode], c.get("concat_axis", -1)
    return {**entry, "class_name": KINDS.get(kind, kind), "config": c}


def weights(kind: str, c: dict, values: list[np.ndarray]) -> list[np.ndarray]:
    """The variables of a layer with the axes that they have in Keras 2."""
    if not values:
        return values
    first, *rest = values
    if kind == "Conv1D" and first.ndim == 4:
        if first.shape[2:] == (c["kernel_size"], 1) and first.shape[0] == c["filters"]:
            first = first.transpose(2, 3, 1, 0)  # Keras 1.0: (filters, inputs, length, 1)
        first = first[:, 0]
    last = c.get("data_format", "channels_last") == "channels_last"
    if kind == "Conv2D" and not last:
        first = first.transpose(2, 3, 1, 0)
    if kind == "Conv2DTranspose":
        first = first.transpose((0, 1, 3, 2) if last else (2, 3, 0, 1))
    return [first, *rest]


def turned(kind: str, values: list[np.ndarray]) -> list[np.ndarray]:
    """Kernels that Theano trained: it turns them around where it convolves."""
    if "Conv" not in kind:
        return values
    return [np.flip(w, tuple(range(w.ndim - 2))) if w.ndim > 2 else w for w in values]
