"""What layers on images have in common: padding as it is given, shapes of samples, a bias a channel."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..errors import ShapeError
from ..windows import AXES
from .base import Shape


def padding_option(layer: Any) -> None:
    """Make ``layer.padding`` "same", "same_lower" or a pair (before, after) for each axis."""
    given, rank = layer.padding, layer.rank
    name = type(layer).__name__
    if isinstance(given, str):
        if given not in ("same", "same_lower", "valid"):
            raise ShapeError(f"{name}: padding must be 'same', 'same_lower' or 'valid', not {given!r}")
        value = ((0, 0),) * rank if given == "valid" else given
    else:
        pairs = tuple(given) if isinstance(given, (tuple, list, np.ndarray)) else (given,) * rank
        pairs = tuple(tuple(p) if isinstance(p, (tuple, list, np.ndarray)) else (p, p) for p in pairs)
        whole_numbers = all(isinstance(n, (int, np.integer)) for p in pairs for n in p)
        if not whole_numbers or len(pairs) != rank or not all(len(p) == 2 and min(p) >= 0 for p in pairs):
            raise ShapeError(
                f"{name}: padding must be an integer, {rank} integers, {rank} pairs (before, after), "
                f"none negative, 'same' or 'valid', not {given!r}"
            )
        value = tuple((int(a), int(b)) for a, b in pairs)
    object.__setattr__(layer, "padding", value)


def size_option(layer: Any, most: int) -> None:
    """Make ``layer.size``, of the output, a tuple of integers: one for each of at most `most` axes."""
    given = layer.size
    size = tuple(given) if isinstance(given, (tuple, list)) else (given,)
    if not 1 <= len(size) <= most or not all(isinstance(n, (int, np.integer)) and n > 0 for n in size):
        how_many = "one or two" if most == 2 else "one to three"
        raise ShapeError(f"{type(layer).__name__}: size must be {how_many} positive integers, not {given!r}")
    object.__setattr__(layer, "size", tuple(int(n) for n in size))


def sized(layer: Any, shape: Shape) -> Shape:
    """The shape of a sample (channels, *axes) that is brought to ``layer.size``."""
    if len(shape) != len(layer.size) + 1:
        raise ShapeError(
            f"takes samples with {len(layer.size)} spatial axes, but the input has shape {shape}"
        )
    return (shape[0], *layer.size)


def check_kernel(layer: Any) -> None:
    """Refuse groups, bias or tap_bias that do not fit the weight of a convolution."""
    name, weight, groups = type(layer).__name__, layer.weight, layer.groups
    if not isinstance(groups, (int, np.integer)) or groups < 1:
        raise ShapeError(f"{name}: groups must be an integer of at least 1, not {groups!r}")
    if len(weight) % groups:
        raise ShapeError(f"{name}: weight {weight.shape} can't be cut into {groups} groups on its first axis")
    if 0 in weight.shape:
        raise ShapeError(f"{name}: weight {weight.shape} is empty")
    outputs, bias = layer.channels[1], layer.bias
    if bias is not None and len(bias) != outputs:
        raise ShapeError(
            f"{name}: weight {weight.shape} has {outputs} output channels, but bias has shape {bias.shape}"
        )
    taps = (outputs, *weight.shape[2:])
    if layer.tap_bias is not None and layer.tap_bias.shape != taps:
        raise ShapeError(f"{name}: tap_bias must have shape {taps}, not {layer.tap_bias.shape}")


def spatial(layer: Any, shape: Shape, channels: int | None = None) -> Shape:
    """The part of a sample shape (C, *size) after the channels, checked."""
    axes = f"(channels, {', '.join(AXES[layer.rank])})"
    if len(shape) != layer.rank + 1:
        raise ShapeError(f"takes samples of shape {axes}, but the input has shape {shape}")
    if channels is not None and shape[0] != channels:
        raise ShapeError(f"takes {channels} channels, but the input has shape {shape}, read as {axes}")
    return shape[1:]


def plus(y: np.ndarray, bias: np.ndarray | None) -> np.ndarray:
    """``y + bias`` for one value a channel, or one a channel and position."""
    if bias is None:
        return y
    return y + (bias if bias.ndim > 1 else bias.reshape(-1, *(1,) * (y.ndim - 2)))
