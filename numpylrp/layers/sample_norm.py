"""Normalization by the sample's own statistics: layer, group, instance, RMS and L2 normalization.

``y = gamma (x - mean) / d + beta``, where the mean and the denominator d come from the sample, so
that there is nothing to fuse but gamma and beta. For relevance, d is held constant (Ali et al. 2022;
Achtibat et al. 2024, AttnLRP): the layer is then linear in x, the mean included. Without that,
gradient times input is nearly 0 by construction, since y does not change with the size of x.

The layer takes the epsilon rule, on what is linear, or `Pass`, the identity. Other rules ask for the
sign of single weights, which for a mean over all inputs says nothing: they are refused.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np

from ..errors import LRPError, ShapeError
from ..nonlinear import AbsBeta, MeanHeld
from .base import Shape, parameter
from .norm import Scaled


class _Held:
    """The layer for one batch, its denominators held constant: linear."""

    merges = False

    def __init__(self, layer: _SampleNorm, x: np.ndarray) -> None:
        self.layer, self.inverse = layer, layer._inverse(x)
        self.gamma, self.beta = layer._learned(x.shape[1:], x.dtype)

    def parameters(self, shape):
        return self.gamma, self.beta

    def _own(self, weight: np.ndarray) -> None:
        if weight is not self.gamma:
            kind = type(self.layer).__name__
            raise LRPError(f"{kind} takes the epsilon rule (its denominator held constant) or Pass, no other")

    def linear(self, x, weight, bias):
        self._own(weight)
        y = (x - self.layer._mean(x)) * self.inverse * weight
        return y if bias is None else y + bias

    def adjoint(self, s, weight, shape):
        self._own(weight)
        s = s * weight * self.inverse
        return s - self.layer._mean(s)


@dataclass(frozen=True, eq=False, repr=False)
class _SampleNorm(Scaled):
    """What they share. Subclasses say over which values the statistics go."""

    own_rules: ClassVar[tuple[type, ...]] = (MeanHeld, AbsBeta)
    centred: ClassVar[bool] = True

    eps = 0.0
    axes = tuple[int, ...]()

    def _check(self, *names: str) -> None:
        for name in names:
            parameter(self, name, range(1, 4), optional=True)
        eps = self.eps
        if not (isinstance(eps, (int, float, np.number)) and eps >= 0):
            raise LRPError(f"{type(self).__name__}: eps must be a number of at least 0, not {eps!r}")

    def _over(self, x: np.ndarray, function: Callable) -> np.ndarray:
        """A statistic of the values that are normalized together, with x's axes."""
        axes = tuple(a + 1 if a >= 0 else a for a in self.axes)
        return function(x, axis=axes, keepdims=True)

    def _mean(self, x: np.ndarray) -> Any:
        return self._over(x, np.mean) if self.centred else 0

    def _inverse(self, x: np.ndarray) -> np.ndarray:
        """1 / d."""
        return 1 / np.sqrt(self._over(np.square(x - self._mean(x)), np.mean) + self.eps)

    def _view(self, shape: Shape) -> tuple[int, ...]:
        """Gamma's shape among the axes of a sample."""
        axes = sorted(a % len(shape) for a in self.axes)
        return tuple(n if a in axes else 1 for a, n in enumerate(shape))

    def _learned(self, shape: Shape, dtype: Any) -> tuple[np.ndarray, np.ndarray | None]:
        view = self._view(shape)
        gamma, beta = (self.arrays().get(name) for name in ("gamma", "beta"))
        gamma = np.ones((), dtype) if gamma is None else gamma.reshape(view)
        return gamma, None if beta is None else beta.reshape(view)

    def _learned_names(self) -> list[str]:
        return [name for name in ("gamma", "beta") if name in self.arrays()]

    def learned(self, shape):
        names = self._learned_names()
        if not names:
            return None
        gamma, beta = self._learned(shape, self.arrays()[names[0]].dtype)
        ones = (1,) * len(shape)
        return np.broadcast_to(gamma, np.broadcast_shapes(gamma.shape, ones)), (
            np.zeros(ones, gamma.dtype) if beta is None else beta
        )

    def without_learned(self):
        return replace(self, **dict.fromkeys(self._learned_names()))

    def output_shape(self, shape: Shape) -> Shape:
        for axis in self.axes:
            if not -len(shape) <= axis < len(shape):
                raise ShapeError(f"axis {axis} is not an axis of a sample of shape {shape}")
        if len({axis % len(shape) for axis in self.axes}) < len(self.axes):
            raise ShapeError(f"{type(self).__name__}: axes {self.axes} name an axis twice")
        for name, array in self.arrays().items():
            view = self._view(shape)
            wanted = 1 if None in view else int(np.prod(view))
            if None not in view and array.size != wanted:
                raise ShapeError(
                    f"{name} has shape {array.shape}, but the input {shape}, normalized over {view}"
                )
        return shape

    def forward(self, x):
        gamma, beta = self._learned(x.shape[1:], x.dtype)
        y = (x - self._mean(x)) * self._inverse(x) * gamma
        return y if beta is None else y + beta

    def linearized(self, x: np.ndarray, y: np.ndarray) -> tuple[Any, np.ndarray, np.ndarray]:
        """The layer with its denominators held at what they are for this input."""
        return _Held(self, x), x, y


def _axes(layer: Any) -> None:
    axes = (layer.axes,) if isinstance(layer.axes, (int, np.integer)) else tuple(layer.axes)
    if not axes or not all(isinstance(a, (int, np.integer)) for a in axes):
        raise ShapeError(f"{type(layer).__name__}: axes must be one or more integers, not {layer.axes!r}")
    object.__setattr__(layer, "axes", tuple(int(a) for a in axes))


@dataclass(frozen=True, eq=False, repr=False)
class LayerNorm(_SampleNorm):
    """``y = gamma (x - mean(x)) / sqrt(var(x) + eps) + beta`` over some axes of a sample (Ba et al. 2016).

    Parameters
    ----------
    gamma, beta : array or None
        Of the shape of the normalized axes.
    eps : float
    axes : int or tuple of int
        The axes of a sample that are normalized together; by default the last.

    Examples
    --------
    >>> LayerNorm(None, None, 0.0).forward(np.array([[1.0, 3.0]]))
    array([[-1.,  1.]])
    """

    gamma: np.ndarray | None = None
    beta: np.ndarray | None = None
    eps: float = 1e-5
    axes: Any = -1

    def __post_init__(self) -> None:
        _axes(self)
        self._check("gamma", "beta")


@dataclass(frozen=True, eq=False, repr=False)
class RMSNorm(_SampleNorm):
    """``y = gamma x / sqrt(mean(x^2) + eps)`` (Zhang and Sennrich 2019).

    Held constant, the denominator leaves a scale for each value: relevance passes unchanged.

    Parameters
    ----------
    gamma : array or None
    eps : float
    axes : int or tuple of int

    Examples
    --------
    >>> RMSNorm(None, 0.0).forward(np.array([[3.0, 3.0]]))
    array([[1., 1.]])
    """

    gamma: np.ndarray | None = None
    eps: float = 1e-6
    axes: Any = -1

    centred: ClassVar[bool] = False

    def __post_init__(self) -> None:
        _axes(self)
        self._check("gamma")


@dataclass(frozen=True, eq=False, repr=False)
class UnitNorm(_SampleNorm):
    """L2 normalization, ``y = x / max(||x||, eps)`` over some axes of a sample.

    Examples
    --------
    >>> UnitNorm().forward(np.array([[3.0, 4.0]]))
    array([[0.6, 0.8]])
    """

    eps: float = 1e-12
    axes: Any = -1

    centred: ClassVar[bool] = False

    def __post_init__(self) -> None:
        _axes(self)
        self._check()

    def _inverse(self, x):
        return 1 / np.maximum(np.sqrt(self._over(np.square(x), np.sum)), self.eps)


@dataclass(frozen=True, eq=False, repr=False)
class GroupNorm(_SampleNorm):
    """Normalization over groups of channels and all positions (Wu and He 2018).

    Parameters
    ----------
    groups : int
        The channels, first axis of a sample, are cut into this many groups.
    gamma, beta : (C,) array or None
    eps : float

    Examples
    --------
    >>> GroupNorm(1, None, None, 0.0).forward(np.array([[[1.0], [3.0]]]))
    array([[[-1.],
            [ 1.]]])
    """

    groups: int
    gamma: np.ndarray | None = None
    beta: np.ndarray | None = None
    eps: float = 1e-5

    def __post_init__(self) -> None:
        if not isinstance(self.groups, (int, np.integer)) or self.groups < 1:
            raise ShapeError(f"GroupNorm: groups must be an integer of at least 1, not {self.groups!r}")
        self._check("gamma", "beta")

    def _count(self, channels: int) -> int:
        return self.groups

    def output_shape(self, shape: Shape) -> Shape:
        if shape[0] is not None and shape[0] % self._count(shape[0]):
            raise ShapeError(f"the channels of {shape} can't be cut into {self.groups} groups")
        return super().output_shape(shape)

    def _view(self, shape):
        return (shape[0], *(1,) * (len(shape) - 1))

    def _over(self, x, function):
        grouped = x.reshape(len(x), self._count(x.shape[1]), -1)
        value = function(grouped, axis=2)
        value = np.repeat(value, x.shape[1] // value.shape[1], axis=1)
        return value.reshape(*value.shape, *(1,) * (x.ndim - 2))


@dataclass(frozen=True, eq=False, repr=False)
class InstanceNorm(GroupNorm):
    """Normalization of each channel over its positions (Ulyanov et al. 2016): `GroupNorm` of single channels.

    Examples
    --------
    >>> InstanceNorm(eps=0.0).forward(np.array([[[1.0, 3.0], [5.0, 5.5]]]))
    array([[[-1.,  1.],
            [-1.,  1.]]])
    """

    groups: int = 1

    def _count(self, channels: int) -> int:
        return channels
