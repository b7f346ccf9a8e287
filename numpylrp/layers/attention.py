"""What attention is composed of: a product of two activations, softmax with masks; tokens and positions.

`numpylrp.blocks.attention` puts them together. Rules of linear layers hold the attention weights constant,
so that a product is linear in the values and conserves (CP-LRP, Ali et al. 2022); `Bilinear` and
`SoftmaxTaylor` of `numpylrp.nonlinear` (AttnLRP, Achtibat et al. 2024) send relevance to queries
and keys too.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from ..errors import LRPError, ShapeError
from ..nonlinear import Bilinear
from .activation import Softmax
from .base import Layer, Linear, Ruled, Shape, parameter
from .merge import _common, _unbroadcast


def _turned(a: np.ndarray) -> np.ndarray:
    return a.swapaxes(-1, -2)


class _Held:
    """A product of two activations with one of them held constant: linear in the other, for one batch."""

    merges = False
    family = "merge"

    def __init__(self, layer: MatMul, held: np.ndarray, index: int) -> None:
        self.weight, self.index = held, index
        self._turn = _turned if layer.transposed else np.asarray

    def parameters(self, shape: Shape) -> tuple[np.ndarray, None]:
        return self.weight, None

    def linear(self, x: np.ndarray, weight: np.ndarray, bias: np.ndarray | None) -> np.ndarray:
        y = weight @ self._turn(x) if self.index == 0 else x @ self._turn(weight)
        return y if bias is None else y + bias

    def adjoint(self, s: np.ndarray, weight: np.ndarray, shape: Shape) -> np.ndarray:
        if self.index == 0:
            return _unbroadcast(self._turn(_turned(weight) @ s), (len(s), *shape))
        return _unbroadcast(s @ _turned(self._turn(weight)), (len(s), *shape))


@dataclass(frozen=True, eq=False, repr=False)
class MatMul(Ruled):
    """The matrix product of two activations, ``y = scale A B``, for each sample and each leading axis.

    A rule of linear layers holds one factor constant as weights, and gives all to the other; `Bilinear`
    gives each half. Rules see the product before `scale`.

    Parameters
    ----------
    transposed : bool
        Whether the second input is B^T: ``y = scale A B^T`` with B (J, K), as queries times keys.
    scale : float
        Positive: ``1 / sqrt(d)``, or a temperature.
    weights : int
        The input, 0 or 1, that rules of linear layers hold constant: the attention weights.

    Examples
    --------
    >>> from numpylrp.rules import Epsilon
    >>> weights, values = np.array([[[0.5, 0.5]]]), np.array([[[4.0], [2.0]]])
    >>> layer = MatMul()
    >>> y = layer.forward((weights, values))
    >>> layer.relprop(y, (weights, values), y, Epsilon(0))[1]
    array([[[2.],
            [1.]]])
    """

    transposed: bool = False
    scale: float = 1.0
    weights: int = 0

    family: ClassVar[str] = "merge"
    merges: ClassVar[bool] = True
    own_rules: ClassVar[tuple[type, ...]] = (Bilinear,)

    def __post_init__(self) -> None:
        if not (
            isinstance(self.scale, (int, float, np.number)) and np.isfinite(self.scale) and self.scale > 0
        ):
            raise LRPError(f"MatMul: scale must be a positive number, not {self.scale!r}")
        object.__setattr__(self, "scale", float(self.scale))
        if self.weights not in (0, 1):
            raise LRPError(f"MatMul: weights must be 0 or 1, not {self.weights!r}")

    def output_shape(self, *shapes: Shape) -> Shape:
        if len(shapes) != 2 or any(len(s) < 2 for s in shapes):
            raise ShapeError(f"takes two inputs of at least two axes, but got {', '.join(map(str, shapes))}")
        (*lead, i, k), (*other, l, j) = shapes
        l, j = (j, l) if self.transposed else (l, j)
        if None not in (k, l) and k != l:
            raise ShapeError(f"inputs of shapes {shapes[0]} and {shapes[1]} don't fit: {k} values meet {l}")
        return (*_common((tuple(lead), tuple(other))), i, j)

    def forward(self, x):
        a, b = x
        y = a @ (_turned(b) if self.transposed else b)
        return y if self.scale == 1 else y * self.scale

    def held(self, x: tuple[np.ndarray, np.ndarray], index: int) -> _Held:
        """The product, before `scale`, as a linear map of the other input."""
        return _Held(self, x[index], index)

    def linearized(self, x, y):
        return self.held(x, self.weights), x[1 - self.weights], y / self.scale

    def relprop(self, R, x, y, rule=None, note=None):
        if isinstance(rule, Bilinear):
            return rule.propagate(self, R, x, y, note)
        linear, given, z = self.linearized(x, y)
        sent = rule.propagate(linear, R, given, z, note)
        held = np.zeros_like(x[self.weights])
        return (held, sent) if self.weights == 0 else (sent, held)


@dataclass(frozen=True, eq=False, repr=False)
class MaskedSoftmax(Softmax):
    """Softmax over the last axis, of what masks keep; 0 elsewhere, also where nothing is kept.

    Parameters
    ----------
    axis : int
        -1.
    causal : bool
        Of scores (..., T, S), row t keeps the columns up to t (the last row the last column).
    keep : array, optional
        Not 0 for what is kept; of a shape that broadcasts to the scores.
    reads : tuple of str
        ("x",) or ("x", "mask"): the second input, (S,) or (T, S), is not 0 for what is kept of a sample, such
        as the tokens that are no padding.

    Examples
    --------
    >>> MaskedSoftmax(causal=True).forward(np.zeros((1, 2, 2)))
    array([[[1. , 0. ],
            [0.5, 0.5]]])
    """

    axis: int = -1
    causal: bool = False
    keep: np.ndarray | None = None
    reads: tuple[str, ...] = ("x",)

    way_back: ClassVar[str] = "unchanged where it is kept"

    def __post_init__(self) -> None:
        parameter(self, "keep", range(1, 5), optional=True)
        object.__setattr__(self, "reads", tuple(self.reads))
        if self.axis != -1 or self.reads not in (("x",), ("x", "mask")):
            raise LRPError(
                f"MaskedSoftmax: axis must be -1 and reads ('x',) or ('x', 'mask'), "
                f"not {self.axis!r} and {self.reads}"
            )

    @property
    def merges(self) -> bool:  # type: ignore[override]
        return len(self.reads) > 1

    def output_shape(self, *shapes: Shape) -> Shape:
        if len(shapes) != len(self.reads):
            raise ShapeError(f"reads {', '.join(self.reads)}, but got {len(shapes)} inputs")
        shape = shapes[0]
        if len(shape) < (2 if self.causal else 1):
            raise ShapeError(f"scores of shape {shape} have no rows and columns")
        for what, mask in (("keep", None if self.keep is None else self.keep.shape), ("mask", shapes[-1])):
            if mask is None or (what == "mask" and not self.merges):
                continue
            wrong = any(m not in (1, None, n) and n is not None for m, n in zip(mask[::-1], shape[::-1]))
            if wrong or not 0 < len(mask) <= len(shape) or (what == "mask" and len(mask) > 2):
                raise ShapeError(f"{what} of shape {mask} does not fit scores of shape {shape}")
        return shape

    def kept(self, x: Any) -> np.ndarray:
        """Whether each score is kept, in a shape that broadcasts to the scores."""
        scores = x[0] if self.merges else x
        kept = np.ones((1,) * scores.ndim, bool)
        if self.causal:
            t, s = scores.shape[-2:]
            kept = kept & np.tri(t, s, s - t, dtype=bool)
        if self.keep is not None:
            kept = kept & (self.keep != 0)
        if self.merges:
            mask = x[1] != 0
            kept = kept & mask.reshape(len(mask), *(1,) * (scores.ndim - mask.ndim), *mask.shape[1:])
        return kept

    def forward(self, x):
        scores, kept = x[0] if self.merges else x, self.kept(x)
        scores = np.where(kept, scores, -np.inf)
        top = scores.max(-1, keepdims=True)
        e = np.exp(scores - np.where(np.isinf(top), 0, top))
        total = e.sum(-1, keepdims=True)
        return e / np.where(total == 0, 1, total)

    def relprop(self, R, x, y, rule=None, note=None):
        scores = x[0] if self.merges else x
        R = np.where(self.kept(x), R, 0)
        sent = R if rule is None else rule.propagate(self, R, scores, y, note)
        return (sent, np.zeros_like(x[1])) if self.merges else sent


@dataclass(frozen=True, eq=False, repr=False)
class Embedding(Layer):
    """The vector of each token: ``y_t = table[x_t]``; a token's relevance is the sum over its vector.

    Parameters
    ----------
    table : (V, D) array
        Inputs are integers 0 .. V - 1.

    Examples
    --------
    >>> layer = Embedding([[1.0, 2.0], [3.0, 4.0]])
    >>> layer.forward(np.array([[1, 0]]))
    array([[[3., 4.],
            [1., 2.]]])
    """

    table: np.ndarray

    family: ClassVar[str] = "embedding"
    way_back: ClassVar[str] = "summed over the vector"

    def __post_init__(self) -> None:
        parameter(self, "table", 2)

    def output_shape(self, shape: Shape) -> Shape:
        return (*shape, self.table.shape[1])

    def forward(self, x):
        ids = np.asarray(x).astype(np.int64)
        wrong = (ids != x) | (ids < 0) | (ids >= len(self.table))
        if wrong.any():
            at = tuple(int(n) for n in np.argwhere(wrong)[0])
            raise LRPError(
                f"Embedding: tokens must be integers 0 .. {len(self.table) - 1}, but {x[at]:g} is at {at}"
            )
        return self.table[ids]

    def relprop(self, R, x, y, rule=None, note=None):
        return R.sum(-1)


@dataclass(frozen=True, eq=False, repr=False)
class NotEqual(Layer):
    """1 where the input (or, with `last`, any value along its last axis) is not `value`, else 0: a mask.

    Relevance ends here: a mask gets none.

    Parameters
    ----------
    value : float
    last : bool
        True: (T, D) -> (T,), as Keras' Masking. False: value by value, as tokens that are no padding.

    Examples
    --------
    >>> NotEqual(0.0).forward(np.array([[5.0, 0.0]]))
    array([[1., 0.]])
    """

    value: float = 0.0
    last: bool = False

    family: ClassVar[str] = "embedding"
    way_back: ClassVar[str] = "ends"

    def output_shape(self, shape: Shape) -> Shape:
        if self.last and not shape:
            raise ShapeError(f"a sample of shape {shape} has no last axis")
        return shape[:-1] if self.last else shape

    def forward(self, x):
        differs = x != self.value
        return (differs.any(-1) if self.last else differs).astype(x.dtype)

    def relprop(self, R, x, y, rule=None, note=None):
        return np.zeros_like(x)


@dataclass(frozen=True, eq=False, repr=False)
class Positions(Linear):
    """``y_t = x_t + table_t``: learned or sinusoidal positions, which take their share as a bias does.

    That share (PA-LRP, Bakish et al. 2025, keep it as relevance of positions) is ``table * s`` with s of the
    trace.

    Parameters
    ----------
    table : (L, D) array
        For sequences of up to L steps.

    Examples
    --------
    >>> from numpylrp.rules import LRP0
    >>> layer, x = Positions([[1.0]]), np.array([[[3.0]]])
    >>> layer.relprop(np.array([[[8.0]]]), x, layer.forward(x), LRP0())
    array([[[6.]]])
    """

    table: np.ndarray

    family: ClassVar[str] = "merge"

    def __post_init__(self) -> None:
        parameter(self, "table", 2)

    def output_shape(self, shape: Shape) -> Shape:
        _fits(self.table.shape, shape)
        return shape

    def parameters(self, shape):
        return np.ones((), self.table.dtype), self.table[: shape[-2]]

    def linear(self, x, weight, bias):
        y = x * weight
        return y if bias is None else y + bias

    def adjoint(self, s, weight, shape):
        return s * weight


def _fits(table: Shape, shape: Shape) -> None:
    """Whether samples of this shape, (..., T, D), are not longer than the table, and as wide."""
    if len(shape) < 2 or shape[-1] != table[1]:
        raise ShapeError(f"takes samples (T, {table[1]}), but the input has shape {shape}")
    if shape[-2] is not None and shape[-2] > table[0]:
        raise ShapeError(f"the sequence has {shape[-2]} steps, but there are positions for {table[0]}")


def sinusoidal(length: int, size: int) -> np.ndarray:
    """The positions of Vaswani et al. 2017, (length, size): sines at even places, cosines at odd ones.

    ``P[t, 2 k] = sin(t / 10000^(2 k / size))``, ``P[t, 2 k + 1] = cos(...)``.

    Examples
    --------
    >>> sinusoidal(2, 2).round(3)
    array([[0.   , 1.   ],
           [0.841, 0.54 ]])
    """
    angle = np.arange(length)[:, None] / 10000.0 ** (np.arange(0, size, 2) / size)
    table = np.empty((length, size))
    table[:, 0::2], table[:, 1::2] = np.sin(angle), np.cos(angle)[:, : size // 2]
    return table


@dataclass(frozen=True, eq=False, repr=False)
class Rotary(Linear):
    """Rotary positions (Su et al. 2021): ``y = x cos + rot(x) sin``, linear with cos and sin held.

    ``rot(x)`` is ``(-x_2, x_1)`` of the two halves of the last axis, or of its pairs where `interleaved`.

    Parameters
    ----------
    cos, sin : (L, D) array
        For sequences of up to L steps.
    interleaved : bool

    Examples
    --------
    >>> Rotary([[0.0, 0.0]], [[1.0, 1.0]]).forward(np.array([[[3.0, 4.0]]]))
    array([[[-4.,  3.]]])
    """

    cos: np.ndarray
    sin: np.ndarray
    interleaved: bool = False

    family: ClassVar[str] = "merge"

    def __post_init__(self) -> None:
        for name in ("cos", "sin"):
            parameter(self, name, 2)
        if self.cos.shape != self.sin.shape or self.cos.shape[1] % 2:
            raise ShapeError(
                f"Rotary: cos and sin must have one shape with an even last axis, "
                f"not {self.cos.shape} and {self.sin.shape}"
            )

    def output_shape(self, shape: Shape) -> Shape:
        _fits(self.cos.shape, shape)
        return shape

    def _partner(self, x: np.ndarray) -> np.ndarray:
        """The other value of each pair."""
        if self.interleaved:
            return x.reshape(*x.shape[:-1], -1, 2)[..., ::-1].reshape(x.shape)
        return np.roll(x, x.shape[-1] // 2, -1)

    def parameters(self, shape):
        first = np.arange(shape[-1]) % 2 == 0 if self.interleaved else np.arange(shape[-1]) < shape[-1] // 2
        cos, sin = self.cos[: shape[-2]], self.sin[: shape[-2]]
        return np.stack([cos, np.where(first, -sin, sin)]), None

    def linear(self, x, weight, bias):
        y = x * weight[0] + self._partner(x) * weight[1]
        return y if bias is None else y + bias

    def adjoint(self, s, weight, shape):
        return s * weight[0] + self._partner(s * weight[1])
