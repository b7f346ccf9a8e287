"""Normalization with fixed statistics: one scale and one shift a channel, a diagonal linear map."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from ..errors import LRPError, ShapeError
from .base import Array, Layer, Linear, Ruled, Shape, parameter


@dataclass(frozen=True, eq=False, repr=False)
class Scaled(Ruled):
    """A layer whose last step is ``y = g t + s`` with constants g and s, which fusing can move elsewhere."""

    family: ClassVar[str] = "norm"

    def learned(self, shape: Shape) -> tuple[np.ndarray, np.ndarray] | None:
        """Scale and shift with the axes of a sample, of size 1 where they don't vary; None without them."""
        raise NotImplementedError

    def without_learned(self) -> Layer | None:
        """The layer that gives t; None where t is the input itself."""
        raise NotImplementedError


@dataclass(frozen=True, eq=False, repr=False)
class Diagonal(Scaled, Linear):
    """``y = g x + s`` with one g and one s for each index of one axis: a linear layer with a diagonal matrix.

    A layer of one's own says what g and s are. It then takes rules and is fused like batch normalization:

    >>> @dataclass(frozen=True, eq=False, repr=False)
    ... class Decibel(Diagonal):
    ...     '''``y = x / 10 - reference`` of each channel.'''
    ...
    ...     reference: np.ndarray
    ...
    ...     def __post_init__(self):
    ...         self.check_vectors("reference")
    ...
    ...     def scale_and_shift(self):
    ...         return np.full(1, 0.1), -self.reference
    >>> Decibel([2.0, 3.0]).forward(np.array([[10.0, 10.0]]))
    array([[-1., -2.]])

    Attributes
    ----------
    axis : int
        The axis of a sample that g and s belong to: 0, the channels, unless a class has a field ``axis``.
    """

    axis = 0

    def check_vectors(self, *names: str) -> None:
        """Make parameters vectors of one length, or of length 1, or say what is wrong with them."""
        sizes = {}
        for name in names:
            parameter(self, name, 1, optional=True)
            if getattr(self, name) is not None:
                sizes[name] = getattr(self, name).shape[0]
        if len(set(sizes.values()) - {1}) > 1:
            given = ", ".join(f"{name} {size}" for name, size in sizes.items())
            raise ShapeError(f"{type(self).__name__}: lengths differ: {given}")
        if not isinstance(self.axis, (int, np.integer)):
            raise ShapeError(f"{type(self).__name__}: axis must be an integer, not {self.axis!r}")

    def scale_and_shift(self) -> tuple[np.ndarray, np.ndarray]:
        """The vectors g and s, each with a value for each index of the axis, or one for all."""
        raise NotImplementedError

    def output_shape(self, shape: Shape) -> Shape:
        size = max(map(len, self.scale_and_shift()))
        if not -len(shape) <= self.axis < len(shape):
            raise ShapeError(f"axis {self.axis} is not an axis of a sample of shape {shape}")
        if size not in (1, shape[self.axis]):
            raise ShapeError(
                f"has {size} channels, but axis {self.axis} of the input {shape} has {shape[self.axis]}"
            )
        return shape

    def parameters(self, shape):
        view = [1] * len(shape)
        view[self.axis] = -1
        g, s = self.scale_and_shift()
        return g.reshape(view), s.reshape(view)

    def linear(self, x, weight, bias):
        y = x * weight
        return y if bias is None else np.add(y, bias, out=y)

    def adjoint(self, s, weight, shape):
        return s * weight

    def learned(self, shape):
        return self.parameters(shape)

    def without_learned(self):
        return None


@dataclass(frozen=True, eq=False, repr=False)
class BatchNorm(Diagonal):
    """Batch normalization at inference (Ioffe and Szegedy 2015), with the statistics of training.

    ``y = g x + s`` with ``g = gamma / sqrt(variance + eps)`` and ``s = beta - g * mean``, for each
    channel: a linear layer with a diagonal matrix.

    Parameters
    ----------
    gamma, beta : (C,) array or None
        Learned scale and shift; None for 1 and 0.
    mean, variance : (C,) array
        Statistics of the training data.
    eps : float
        Added to the variance, under the root.
    axis : int
        The channel axis of a sample (0: channels first).

    Examples
    --------
    >>> BatchNorm([2.0], [1.0], [3.0], [4.0], eps=0.0).forward(np.array([[3.0], [5.0]]))
    array([[1.],
           [3.]])
    """

    gamma: Array
    beta: Array
    mean: Array
    variance: Array
    eps: float = 1e-5
    axis: int = 0

    def __post_init__(self) -> None:
        for name in ("mean", "variance"):
            if getattr(self, name) is None:
                raise ShapeError(f"BatchNorm: {name} is missing")
        self.check_vectors("gamma", "beta", "mean", "variance")
        if (self.variance < 0).any():
            raise LRPError(f"BatchNorm: variance has a negative value ({self.variance.min():.3g})")
        if not self.eps >= 0:
            raise LRPError(f"BatchNorm: eps must be at least 0, not {self.eps!r}")
        if self.eps == 0 and (self.variance == 0).any():
            raise LRPError("BatchNorm: variance has a 0 and eps is 0: division by zero")

    def scale_and_shift(self):
        g = 1 / np.sqrt(self.variance + self.eps)
        g = g if self.gamma is None else self.gamma * g
        s = -g * self.mean
        return g, s if self.beta is None else self.beta + s


@dataclass(frozen=True, eq=False, repr=False)
class Affine(Diagonal):
    """``y = scale * x + shift`` along one axis: rescaled pixels, standardized features.

    Parameters
    ----------
    scale, shift : (C,) array, or one value
    axis : int
        The axis of a sample that the values belong to.

    Examples
    --------
    >>> Affine(1 / 255, 0).forward(np.array([[0.0, 255.0]]))
    array([[0., 1.]])
    """

    scale: Array
    shift: Array
    axis: int = 0

    def __post_init__(self) -> None:
        for name in ("scale", "shift"):
            object.__setattr__(self, name, np.atleast_1d(getattr(self, name)))
        self.check_vectors("scale", "shift")

    def scale_and_shift(self):
        return np.broadcast_arrays(self.scale, self.shift)
