"""The fully connected layer."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from ..errors import ShapeError
from .base import Array, Linear, Shape, parameter


@dataclass(frozen=True, eq=False, repr=False)
class Dense(Linear):
    """``y_j = sum_i w_ji x_i + b_j`` on the last axis of any array.

    Parameters
    ----------
    weight : (O, I) array
    bias : (O,) array, optional

    Examples
    --------
    >>> import numpy as np
    >>> Dense([[1.0, -2.0], [0.5, 0.0]], [0.0, 1.0]).forward(np.array([[3.0, 1.0]]))
    array([[1. , 2.5]])
    """

    weight: Array
    bias: Array = None

    family: ClassVar[str] = "dense"

    def __post_init__(self) -> None:
        parameter(self, "weight", 2)
        parameter(self, "bias", 1, optional=True)
        if self.bias is not None and self.bias.shape[0] != self.weight.shape[0]:
            raise ShapeError(
                f"Dense: weight {self.weight.shape} has {self.weight.shape[0]} outputs, "
                f"but bias has shape {self.bias.shape}"
            )

    def output_shape(self, shape: Shape) -> Shape:
        if not shape or shape[-1] != self.weight.shape[1]:
            raise ShapeError(
                f"weight {self.weight.shape} takes {self.weight.shape[1]} values on the last axis, "
                f"but the input has shape {shape}"
            )
        return (*shape[:-1], self.weight.shape[0])

    def forward(self, x):
        return self.linear(x, self.weight, self.bias)

    def relprop(self, R, x, y, rule=None, note=None):
        return rule.propagate(self, R, x, y, note)

    def linear(self, x, weight, bias):
        # one product for each sample: what comes out for it does not depend on the others, to the last bit
        y = x.reshape(len(x), -1, x.shape[-1]) @ weight.T
        y = y.reshape(*x.shape[:-1], len(weight))
        return y if bias is None else y + bias

    def adjoint(self, s, weight, shape):
        return (s.reshape(len(s), -1, s.shape[-1]) @ weight).reshape(len(s), *shape)
