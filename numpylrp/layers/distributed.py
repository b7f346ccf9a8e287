"""A layer for every step of a sequence."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from ..errors import LRPError, ShapeError
from .base import Layer, Ruled, Shape


class _EachStep:
    """A linear map of single steps, on (N, T, ...)."""

    merges = False

    def __init__(self, linear: Any) -> None:
        self.inner, self.family = linear, linear.family

    def parameters(self, shape: Shape) -> tuple[np.ndarray, np.ndarray | None]:
        return self.inner.parameters(shape[1:])

    def linear(self, x: np.ndarray, weight: np.ndarray, bias: np.ndarray | None) -> np.ndarray:
        y = self.inner.linear(_steps(x), weight, bias)
        return y.reshape(*x.shape[:2], *y.shape[1:])

    def adjoint(self, s: np.ndarray, weight: np.ndarray, shape: Shape) -> np.ndarray:
        return self.inner.adjoint(_steps(s), weight, shape[1:]).reshape(len(s), *shape)


def _steps(x: np.ndarray) -> np.ndarray:
    """All steps of all samples, one after the other."""
    return x.reshape(-1, *x.shape[2:])


@dataclass(frozen=True, eq=False, repr=False)
class TimeDistributed(Ruled):
    """The same layer for every step: (T, ...) -> (T, ...), as a convolution for each image of a series.

    Rules, families and the way back are those of the layer. What works on the last axis or on single
    values (dense layers, activations) needs no such wrapper.

    Parameters
    ----------
    layer : Layer
        With one input.

    Examples
    --------
    >>> from numpylrp.layers import GlobalSumPool
    >>> TimeDistributed(GlobalSumPool()).forward(np.ones((1, 2, 1, 3)))
    array([[[3.],
            [3.]]])
    """

    layer: Layer

    family: ClassVar[str] = "shape"
    way_back: ClassVar[str] = "step by step"

    def __post_init__(self) -> None:
        if not isinstance(self.layer, Layer) or self.layer.merges or isinstance(self.layer, TimeDistributed):
            raise LRPError(f"TimeDistributed: layer must be a layer with one input, not {self.layer!r:.80}")
        for name in ("family", "takes_rule", "way_back", "own_rules"):
            object.__setattr__(self, name, getattr(self.layer, name))

    def output_shape(self, shape: Shape) -> Shape:
        if len(shape) < 2:
            raise ShapeError(f"takes samples (T, ...), but the input has shape {shape}")
        return (shape[0], *self.layer.output_shape(shape[1:]))

    def forward(self, x):
        y = self.layer.forward(_steps(x))
        return y.reshape(*x.shape[:2], *y.shape[1:])

    def linearized(self, x: np.ndarray, y: np.ndarray) -> tuple[Any, np.ndarray, np.ndarray]:
        """The layer's own linear map, for each step."""
        if not isinstance(self.layer, Ruled):
            return self, x, y
        linear, inside, out = self.layer.linearized(_steps(x), _steps(y))
        return _EachStep(linear), inside.reshape(*x.shape[:2], *inside.shape[1:]), out.reshape(y.shape)

    def relprop(self, R, x, y, rule=None, note=None):
        out = None if y is None else _steps(y)
        return self.layer.relprop(_steps(R), _steps(x), out, rule, note).reshape(x.shape)

    def arrays(self) -> dict[str, np.ndarray]:
        """The layer's parameters that are arrays."""
        return self.layer.arrays()

    def astype(self, dtype: np.dtype) -> Layer:
        """The same with parameters of this dtype."""
        inner = self.layer.astype(dtype)
        return self if inner is self.layer else dataclasses.replace(self, layer=inner)
