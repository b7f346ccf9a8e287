"""Local response normalization, as in AlexNet and GoogLeNet."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product
from typing import Any, ClassVar

import numpy as np

from ..errors import LRPError, ShapeError
from .base import Ruled, Shape, integers

Offset = tuple[int, ...]


def _shifted(x: np.ndarray, offset: Offset) -> np.ndarray:
    """The array whose entry at n is x's at n + offset, on the axes after the batch; 0 outside."""
    y = np.zeros_like(x)
    to, at = [slice(None)], [slice(None)]
    for n, size in zip(offset, x.shape[1:]):
        to.append(slice(max(0, -n), max(0, size - max(0, n))))
        at.append(slice(max(0, n), max(0, size + min(0, n))))
    y[tuple(to)] = x[tuple(at)]
    return y


class _Expanded:
    """The layer for one batch, expanded around each unit's own input: linear, weights of each sample."""

    merges = False

    def __init__(self, layer: LRN, x: np.ndarray) -> None:
        self.offsets = layer._offsets(x.ndim - 1)
        a, b, k = layer._a(x.ndim - 1), layer.beta, layer.k
        total = k + a * layer._sum(np.square(x))
        slope = -2 * a * b * x * total ** (-b - 1)
        own = (k + a * np.square(x)) ** -b
        # x_i w_ik is the contribution of i to k
        self.weight = np.stack([slope * _shifted(x, o) if any(o) else own for o in self.offsets])

    def parameters(self, shape):
        return self.weight, None

    def linear(self, x, weight, bias):
        return sum(_shifted(x, o) * w for o, w in zip(self.offsets, weight))

    def adjoint(self, s, weight, shape):
        return sum(_shifted(s * w, tuple(-n for n in o)) for o, w in zip(self.offsets, weight))


@dataclass(frozen=True, eq=False, repr=False)
class LRN(Ruled):
    """``y_k = x_k / (k0 + a sum_i x_i^2)^beta``, the sum over a window of channels or positions.

    For relevance, the layer is expanded to first order around the point where only x_k is not 0
    (Binder et al. 2016): x_k contributes ``x_k (k0 + a x_k^2)^-beta`` to its own unit, and a
    neighbour j ``-2 a beta x_k x_j^2 (k0 + a sum_i x_i^2)^(-beta-1)``. These don't add up to y_k; the
    rules divide by their sum, which conserves. `Epsilon` gives the paper's epsilon form, `AlphaBeta`
    its beta form (with alpha = 1 + beta), `Pass` the identity.

    Parameters
    ----------
    size : int
        Width of the window.
    alpha, beta, k : float
        Scale, exponent, and k0.
    average : bool
        a is alpha / (number of values in the window), as in Caffe, PyTorch and ONNX; or else alpha,
        as in TensorFlow, whose ``depth_radius`` r is ``size = 2 r + 1``.
    within : bool
        The window lies in the image, size x size, instead of across channels (Caffe's WITHIN_CHANNEL).
    before : int, optional
        How far the window reaches back; by default ``size // 2`` (PyTorch; for even sizes, ONNX has
        ``(size - 1) // 2``).

    Examples
    --------
    >>> layer = LRN(3, alpha=3.0, beta=1.0, k=1.0)
    >>> layer.forward(np.array([[1.0, 2.0]]))
    array([[0.16666667, 0.33333333]])
    """

    size: int
    alpha: float = 1e-4
    beta: float = 0.75
    k: float = 1.0
    average: bool = True
    within: bool = False
    before: int | None = None

    family: ClassVar[str] = "norm"

    def __post_init__(self) -> None:
        integers(self, "size", 1)
        size: Any = self.size
        object.__setattr__(self, "size", size[0])
        if not (self.k >= 0 and self.alpha >= 0 and np.isfinite([self.alpha, self.beta, self.k]).all()):
            raise LRPError(f"LRN: alpha and k must be at least 0, not {self.alpha}, {self.k}")
        if self.before is not None and not 0 <= self.before < self.size:
            raise LRPError(f"LRN: before must be 0 .. {self.size - 1}, not {self.before!r}")

    def output_shape(self, shape: Shape) -> Shape:
        if self.within and len(shape) < 2:
            raise ShapeError(f"a window within channels needs samples (channels, *spatial), not {shape}")
        return shape

    def _offsets(self, rank: int) -> list[Offset]:
        """Where the window's values lie, as steps from its own."""
        before = self.size // 2 if self.before is None else self.before
        reach = range(-before, self.size - before)
        if self.within:
            return [(0, *steps) for steps in product(reach, repeat=rank - 1)]
        return [(n, *(0,) * (rank - 1)) for n in reach]

    def _a(self, rank: int) -> float:
        return self.alpha / len(self._offsets(rank)) if self.average else self.alpha

    def _sum(self, x: np.ndarray) -> Any:
        return sum(_shifted(x, offset) for offset in self._offsets(x.ndim - 1))

    def forward(self, x):
        return x * (self.k + self._a(x.ndim - 1) * self._sum(np.square(x))) ** -self.beta

    def linearized(self, x: np.ndarray, y: np.ndarray) -> tuple[Any, np.ndarray, np.ndarray]:
        """The expansion for this input, and the sum of its contributions instead of y."""
        expanded = _Expanded(self, x)
        return expanded, x, expanded.linear(x, expanded.weight, None)
