"""Conditional relevance: only what passes chosen hidden units goes on (CRP, Achtibat et al. 2023)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from .errors import LRPError, ShapeError
from .layers.base import Array, Layer, parameter
from .network import Network


@dataclass(frozen=True, eq=False, repr=False)
class Mask(Layer):
    """Passes values on unchanged, and relevance times `mask`.

    Parameters
    ----------
    mask : array of a sample's shape, or one value a channel

    Examples
    --------
    >>> R = x = np.array([[2.0, 3.0]])
    >>> Mask([0.0, 1.0]).relprop(R, x, x)
    array([[0., 3.]])
    """

    mask: Array

    way_back: ClassVar[str] = "masked"

    def __post_init__(self) -> None:
        parameter(self, "mask", range(1, 6))

    def factor(self, shape: tuple) -> np.ndarray:
        """The mask for samples of this shape."""
        mask = self.mask
        if mask.ndim == 1 and len(shape) > 1:
            mask = mask.reshape(-1, *(1,) * (len(shape) - 1))
        if mask.shape not in (shape, (shape[0], *(1,) * (len(shape) - 1))):
            raise ShapeError(f"a mask of shape {self.mask.shape} does not fit values of shape {shape}")
        return mask

    def output_shape(self, shape):
        if None not in shape:
            self.factor(shape)
        return shape

    def forward(self, x):
        return x

    def relprop(self, R, x, y, rule=None, note=None):
        return R * self.factor(R.shape[1:])


def masked(network: Network, masks: Mapping[str, Any], top: str | None = None) -> Network:
    """The network with masks on the relevance of hidden values.

    Maps for single channels add up: with rules that are linear in R, the maps conditional on each channel of
    a layer that all relevance passes sum to the map without a mask.

    Parameters
    ----------
    network : Network
    masks : mapping of layer name to mask
        For the layer's output: a number (of a channel, or unit; the others are 0) or a list of them, or an
        array of factors, one a channel or of the output's shape.
    top : str, optional
        The layer from which relevance comes back, by default the network's first output: masks lie before it.

    Raises
    ------
    LRPError
        A layer that is not there, channels out of range, a mask of another shape.

    Examples
    --------
    >>> from numpylrp import explain
    >>> from numpylrp.layers import Dense, ReLU
    >>> net = Network([("fc1", Dense([[1.0], [2.0]])), ("relu", ReLU()), ("fc2", Dense([[1.0, 1.0]]))], (1,))
    >>> [explain(net, [[1.0]], composite="epsilon", masks={"relu": k}).relevance.round(5) for k in (0, 1)]
    [array([[1.]]), array([[2.]])]
    """
    before = {network.outputs[0] if top is None else top}
    for node in reversed(network.nodes):
        before.update(node.inputs if node.name in before else ())
    before &= set(network.shapes) - set(network.inputs) - {network.outputs[0] if top is None else top}
    new = {}
    for name, mask in masks.items():
        if name not in before:
            there = ", ".join(node.name for node in network.nodes if node.name in before)
            raise LRPError(f"a mask is for {name!r}, but the hidden layers walked through are {there}")
        new[name] = Mask(_factors(name, mask, network.shapes[name]))
    layers: list[tuple] = []
    for node in network.nodes:
        inputs = tuple(f"{source} (masked)" if source in new else source for source in node.inputs)
        layers.append((node.name, node.layer, inputs))
        if node.name in new:
            layers.append((f"{node.name} (masked)", new[node.name], node.name))
    return Network(layers, network.inputs, network.outputs, network.metadata).astype(network.dtype)


def _factors(name: str, mask: Any, shape: tuple) -> Any:
    numbers = np.asarray(mask)
    if numbers.dtype.kind in "iu" and (numbers.ndim == 0 or numbers.shape != shape[: numbers.ndim]):
        chosen = np.atleast_1d(numbers)
        if chosen.ndim > 1 or (chosen < 0).any() or (chosen >= shape[0]).any():
            raise LRPError(
                f"the mask of layer {name!r} must name channels 0 .. {shape[0] - 1}, not {mask!r:.80}"
            )
        factors = np.zeros(shape[0])
        factors[chosen] = 1
        return factors
    return mask
