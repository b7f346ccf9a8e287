"""Activations: functions of single values. They pass relevance on unchanged.

``relprop`` is the identity for all of them, softmax included: what a rule needs to know of an
activation is already in the activations that the next layer saw (Bach et al. 2015, sec. 2).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from scipy import special  # type: ignore

from ..errors import LRPError, ShapeError
from ..nonlinear import SoftmaxTaylor
from .base import Layer, parameter


@dataclass(frozen=True, eq=False, repr=False)
class Activation(Layer):
    """A function of single values; subclasses say which."""

    family: ClassVar[str] = "activation"


@dataclass(frozen=True, eq=False, repr=False)
class ReLU(Activation):
    """``max(0, x)``, and Keras' general form of it.

    ``y = max_value`` where x >= max_value, ``x`` where threshold <= x < max_value, else
    ``negative_slope * (x - threshold)``. ReLU6 is ``ReLU(max_value=6)``.

    Examples
    --------
    >>> ReLU(max_value=6).forward(np.array([[-1.0, 2.0, 9.0]]))
    array([[0., 2., 6.]])
    """

    max_value: float | None = None
    negative_slope: float = 0.0
    threshold: float = 0.0

    def forward(self, x):
        if self.negative_slope == 0 and self.threshold == 0:
            if self.max_value is not None:
                return np.clip(x, 0, self.max_value)
            return np.maximum(x, 0)
        y = np.where(x >= self.threshold, x, self.negative_slope * (x - self.threshold))
        return y if self.max_value is None else np.minimum(y, self.max_value)


@dataclass(frozen=True, eq=False, repr=False)
class Threshold(Activation):
    """What is left of ``ReLU(g x + s)`` once g and s have moved on: ``g T(x) + s`` with this T.

    ``T(x) = max(x, value)`` where sign is 1 (g > 0), ``min(x, value)`` where it is -1 (g < 0) and x
    where it is 0 (g = 0), with ``value = -s / g``. A unit at its value is constant, as a ReLU's at
    0: its relevance, which belongs to no input, is absorbed as a bias absorbs it.

    Parameters
    ----------
    sign, value : array
        Of a shape that broadcasts to a sample.

    Examples
    --------
    >>> layer, x = Threshold([[1.0], [-1.0]], [[2.0], [2.0]]), np.array([[[1.0, 3.0], [1.0, 3.0]]])
    >>> layer.forward(x)
    array([[[2., 3.],
            [1., 2.]]])
    >>> layer.relprop(np.ones_like(x), x, layer.forward(x))
    array([[[0., 1.],
            [1., 0.]]])
    """

    sign: np.ndarray
    value: np.ndarray

    way_back: ClassVar[str] = "unchanged where x passes"

    def __post_init__(self) -> None:
        for name in ("sign", "value"):
            parameter(self, name, range(1, 5))
        if self.sign.shape != self.value.shape:
            raise ShapeError(
                f"Threshold: sign {self.sign.shape} and value {self.value.shape} differ in shape"
            )
        if not np.isin(self.sign, (-1, 0, 1)).all():
            raise LRPError("Threshold: sign must be -1, 0 or 1")

    def output_shape(self, shape):
        fits = self.sign.ndim == len(shape) and all(a in (1, b) for a, b in zip(self.sign.shape, shape))
        if not fits:
            raise ShapeError(f"a threshold of shape {self.sign.shape} does not fit samples of shape {shape}")
        return shape

    def _passes(self, x):
        return self.sign * x > self.sign * self.value

    def forward(self, x):
        return np.where(self._passes(x) | (self.sign == 0), x, self.value)

    def relprop(self, R, x, y, rule=None, note=None):
        return np.where(self._passes(x) | (self.sign == 0), R, 0)


@dataclass(frozen=True, eq=False, repr=False)
class LeakyReLU(Activation):
    """``x`` where x >= 0, else ``negative_slope * x``."""

    negative_slope: float = 0.01

    def forward(self, x):
        return np.where(x >= 0, x, self.negative_slope * x)


@dataclass(frozen=True, eq=False, repr=False)
class PReLU(Activation):
    """``x`` where x >= 0, else ``slope * x`` with learned slopes.

    Parameters
    ----------
    slope : array
        A scalar, (C,) for one slope a channel, or any shape that broadcasts to a sample.
    """

    slope: np.ndarray

    def __post_init__(self) -> None:
        parameter(self, "slope", range(5))

    def _slope(self, shape):
        """The slopes with axes to broadcast against a sample of this shape."""
        if self.slope.ndim == 1 and len(shape) > 1:
            return self.slope.reshape(-1, *(1,) * (len(shape) - 1))
        return self.slope

    def output_shape(self, shape):
        slope = self._slope(shape).shape
        fits = len(slope) <= len(shape) and all(
            a in (1, b) or b is None for a, b in zip(slope[::-1], shape[::-1])
        )
        if not fits:
            raise ShapeError(f"slope {self.slope.shape} does not fit an input of shape {shape}")
        return shape

    def forward(self, x):
        return np.where(x >= 0, x, self._slope(x.shape[1:]) * x)


@dataclass(frozen=True, eq=False, repr=False)
class ELU(Activation):
    """``x`` where x > 0, else ``alpha * (exp(x) - 1)``."""

    alpha: float = 1.0

    def forward(self, x):
        return np.where(x > 0, x, self.alpha * np.expm1(np.minimum(x, 0)))


@dataclass(frozen=True, eq=False, repr=False)
class CELU(Activation):
    """``x`` where x > 0, else ``alpha * (exp(x / alpha) - 1)`` (Barron 2017)."""

    alpha: float = 1.0

    def __post_init__(self) -> None:
        if not self.alpha > 0:
            raise LRPError(f"CELU: alpha must be positive, not {self.alpha!r}")

    def forward(self, x):
        return np.where(x > 0, x, self.alpha * np.expm1(np.minimum(x, 0) / self.alpha))


@dataclass(frozen=True, eq=False, repr=False)
class SELU(Activation):
    """Scaled ELU with the constants of Klambauer et al. 2017."""

    def forward(self, x):
        scale, alpha = 1.0507009873554804934193349852946, 1.6732632423543772848170429916717
        return scale * np.where(x > 0, x, alpha * np.expm1(np.minimum(x, 0)))


@dataclass(frozen=True, eq=False, repr=False)
class GELU(Activation):
    """``x * Phi(x)``, or its tanh approximation where `approximate`."""

    approximate: bool = False

    def forward(self, x):
        if self.approximate:
            return 0.5 * x * (1 + np.tanh(0.7978845608028654 * (x + 0.044715 * x**3)))
        return x * special.ndtr(x)


@dataclass(frozen=True, eq=False, repr=False)
class SiLU(Activation):
    """``x * sigmoid(x)``, also called swish."""

    def forward(self, x):
        return x * special.expit(x)


@dataclass(frozen=True, eq=False, repr=False)
class Mish(Activation):
    """``x * tanh(log(1 + exp(x)))`` (Misra 2019)."""

    def forward(self, x):
        return x * np.tanh(np.logaddexp(0, x).astype(x.dtype, copy=False))


@dataclass(frozen=True, eq=False, repr=False)
class Sigmoid(Activation):
    """``1 / (1 + exp(-x))``."""

    def forward(self, x):
        return special.expit(x)


@dataclass(frozen=True, eq=False, repr=False)
class Tanh(Activation):
    """Hyperbolic tangent."""

    def forward(self, x):
        return np.tanh(x)


@dataclass(frozen=True, eq=False, repr=False)
class Softplus(Activation):
    """``log(1 + exp(beta * x)) / beta``."""

    beta: float = 1.0

    def forward(self, x):
        return np.logaddexp(0, self.beta * x).astype(x.dtype, copy=False) / self.beta


@dataclass(frozen=True, eq=False, repr=False)
class Sqrt(Activation):
    """``sqrt(x)``, as for the size of a complex number; its input must not be negative."""

    def forward(self, x):
        if (x < 0).any():
            raise LRPError(f"Sqrt: the root of {x.min():g} is not real")
        return np.sqrt(x)


@dataclass(frozen=True, eq=False, repr=False)
class HardSigmoid(Activation):
    """``clip(slope * x + offset, 0, 1)``; 1/6 and 1/2 in PyTorch and Keras 3, 0.2 and 1/2 in Keras 2."""

    slope: float = 1 / 6
    offset: float = 0.5

    def forward(self, x):
        return np.clip(self.slope * x + self.offset, 0, 1)


@dataclass(frozen=True, eq=False, repr=False)
class HardSwish(Activation):
    """``x * clip(x / 6 + 1/2, 0, 1)``."""

    def forward(self, x):
        return x * np.clip(x / 6 + 0.5, 0, 1)


@dataclass(frozen=True, eq=False, repr=False)
class Clip(Activation):
    """``min(max(x, low), high)``: PyTorch's hardtanh, ONNX' Clip.

    Examples
    --------
    >>> Clip(-1, 1).forward(np.array([[-3.0, 0.5, 2.0]]))
    array([[-1. ,  0.5,  1. ]])
    """

    low: float | None = None
    high: float | None = None

    def __post_init__(self) -> None:
        if self.low is not None and self.high is not None and not self.low <= self.high:
            raise LRPError(f"Clip: low must be at most high, not {self.low!r}, {self.high!r}")

    def forward(self, x):
        y = x if self.low is None else np.maximum(x, self.low)
        return y if self.high is None else np.minimum(y, self.high)


@dataclass(frozen=True, eq=False, repr=False)
class Softmax(Activation):
    """``exp(x_k) / sum_l exp(x_l)`` along an axis of the sample (0: the channels or classes).

    At the end of a network it is kept for `forward` and left out by the seeds: an explanation
    starts from the logit.
    """

    axis: int = 0

    def __post_init__(self) -> None:
        if not isinstance(self.axis, (int, np.integer)):
            raise LRPError(f"Softmax: axis must be an integer, not {self.axis!r}")

    def output_shape(self, shape):
        if not -len(shape) <= self.axis < len(shape):
            raise ShapeError(f"axis {self.axis} is not an axis of a sample of shape {shape}")
        return shape

    own_rules: ClassVar[tuple[type, ...]] = (SoftmaxTaylor,)

    def relprop(self, R, x, y, rule=None, note=None):
        return R if rule is None else rule.propagate(self, R, x, y, note)

    def forward(self, x):
        return special.softmax(x, axis=self.axis + 1 if self.axis >= 0 else self.axis)


@dataclass(frozen=True, eq=False, repr=False)
class LogSoftmax(Softmax):
    """``log(Softmax(x))``; like it kept for `forward` and left out by the seeds."""

    own_rules: ClassVar[tuple[type, ...]] = ()

    def forward(self, x):
        return special.log_softmax(x, axis=self.axis + 1 if self.axis >= 0 else self.axis)
