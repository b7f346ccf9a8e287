"""Layers that move values and don't change them; relevance moves back the same way.

What reaches padding, or a pixel that no layer reads, is not sent on (see `numpylrp.audit`).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from ..errors import LRPError, ShapeError
from .base import Layer, Shape


@dataclass(frozen=True, eq=False, repr=False)
class _Move(Layer):
    """Values keep their identity; `relprop` is the inverse move."""

    family: ClassVar[str] = "shape"
    way_back: ClassVar[str] = "moved back"

    def relprop(self, R, x, y, rule=None, note=None):
        return R.reshape(x.shape)


@dataclass(frozen=True, eq=False, repr=False)
class Identity(_Move):
    """Gives what it gets. Dropout and noise layers are this at inference."""

    way_back: ClassVar[str] = "unchanged"

    def forward(self, x):
        return x


@dataclass(frozen=True, eq=False, repr=False)
class Dropout(Identity):
    """Dropout at inference: the identity.

    Parameters
    ----------
    rate : float
        The share that was dropped in training; kept for the record.
    """

    rate: float = 0.5


@dataclass(frozen=True, eq=False, repr=False)
class Flatten(_Move):
    """A sample as one vector, row-major."""

    def output_shape(self, shape: Shape) -> Shape:
        return (None,) if None in shape else (math.prod(shape),)

    def forward(self, x):
        return x.reshape(len(x), -1)


@dataclass(frozen=True, eq=False, repr=False)
class Reshape(_Move):
    """A sample in another shape, row-major.

    Parameters
    ----------
    shape : tuple of int
        Sample shape; one entry may be -1, for what is left.
    """

    shape: tuple[int, ...]

    def __post_init__(self) -> None:
        shape = tuple(self.shape)
        if sum(n == -1 for n in shape) > 1 or any(n == 0 or n < -1 for n in shape):
            raise ShapeError(f"Reshape: shape must be positive with at most one -1, not {self.shape}")
        object.__setattr__(self, "shape", tuple(int(n) for n in shape))

    def output_shape(self, shape: Shape) -> Shape:
        if None in shape:
            return tuple(None if n == -1 else n for n in self.shape)
        size, known = math.prod(shape), math.prod(n for n in self.shape if n != -1)
        if size % known or (-1 not in self.shape and size != known):
            raise ShapeError(f"the {size} values of a sample {shape} don't fit into {self.shape}")
        return tuple(size // known if n == -1 else n for n in self.shape)

    def forward(self, x):
        return x.reshape(len(x), *self.shape)


@dataclass(frozen=True, eq=False, repr=False)
class Transpose(_Move):
    """The axes of a sample in another order: bridges channels last and channels first.

    Parameters
    ----------
    axes : tuple of int
        Axis i of the output is axis ``axes[i]`` of the sample.

    Examples
    --------
    >>> Transpose((2, 0, 1)).output_shape((28, 30, 3))
    (3, 28, 30)
    """

    axes: tuple[int, ...]

    def __post_init__(self) -> None:
        object.__setattr__(self, "axes", tuple(int(a) for a in self.axes))
        if sorted(self.axes) != list(range(len(self.axes))):
            raise ShapeError(f"Transpose: axes must be an order of 0 .. n-1, not {self.axes}")

    def output_shape(self, shape: Shape) -> Shape:
        if len(shape) != len(self.axes):
            raise ShapeError(f"axes {self.axes} don't fit a sample of shape {shape}")
        return tuple(shape[a] for a in self.axes)

    def forward(self, x):
        return x.transpose(0, *(a + 1 for a in self.axes))

    def relprop(self, R, x, y, rule=None, note=None):
        return R.transpose(0, *(a + 1 for a in np.argsort(self.axes)))


def _pairs(layer: Any, name: str) -> None:
    """Make the option a tuple of pairs, one for each axis of the sample."""
    value = getattr(layer, name)
    try:
        pairs = tuple((int(a), int(b)) for a, b in value)
        if any(min(p) < 0 for p in pairs):
            raise ValueError
    except (TypeError, ValueError):
        raise ShapeError(
            f"{type(layer).__name__}: {name} must be a pair (before, after) of integers, none negative, "
            f"for each axis of a sample, not {value!r}"
        ) from None
    object.__setattr__(layer, name, pairs)


def _axes(options: tuple, shape: Shape) -> None:
    if len(options) != len(shape):
        raise ShapeError(f"{options} is for {len(options)} axes, but the input has shape {shape}")


@dataclass(frozen=True, eq=False, repr=False)
class ZeroPadding(_Move):
    """Zeros around a sample, on any of its axes (channels included).

    Parameters
    ----------
    padding : ((before, after), ...)
        One pair for each axis of a sample: ``((0, 0), (1, 1), (1, 1))`` surrounds an image.

    Examples
    --------
    >>> ZeroPadding(((0, 0), (1, 0))).forward(np.ones((1, 1, 2)))
    array([[[0., 1., 1.]]])
    """

    padding: tuple[tuple[int, int], ...]

    def __post_init__(self) -> None:
        _pairs(self, "padding")

    def output_shape(self, shape: Shape) -> Shape:
        _axes(self.padding, shape)
        return tuple(None if n is None else n + a + b for n, (a, b) in zip(shape, self.padding))

    def _inside(self, shape: Shape) -> tuple[slice, ...]:
        return (slice(None), *(slice(a, a + n) for n, (a, _) in zip(shape, self.padding)))

    def forward(self, x):
        y = np.zeros((len(x), *self.output_shape(x.shape[1:])), x.dtype)
        y[self._inside(x.shape[1:])] = x
        return y

    def relprop(self, R, x, y, rule=None, note=None):
        return R[self._inside(x.shape[1:])]


MODES = ("reflect", "symmetric", "edge", "wrap")
"""What `CopyPadding` may put around a sample."""


@dataclass(frozen=True, eq=False, repr=False)
class CopyPadding(_Move):
    """Values of the sample around it, on any of its axes; a value gets back what its copies have.

    Parameters
    ----------
    padding : ((before, after), ...)
        As in `ZeroPadding`.
    mode : str
        "reflect" (mirrored, without the last value), "symmetric" (with it), "edge" (the last value) or
        "wrap" (from the other end), as in `numpy.pad`; a mirror reaches no further than the other end.

    Examples
    --------
    >>> CopyPadding(((0, 0), (2, 1)), "reflect").forward(np.array([[[1.0, 2.0, 3.0]]]))
    array([[[3., 2., 1., 2., 3., 2.]]])
    """

    padding: tuple[tuple[int, int], ...]
    mode: str

    way_back: ClassVar[str] = "copies summed"

    def __post_init__(self) -> None:
        _pairs(self, "padding")
        if self.mode not in MODES:
            raise LRPError(f"CopyPadding: mode must be one of {', '.join(MODES)}, not {self.mode!r}")

    def output_shape(self, shape: Shape) -> Shape:
        _axes(self.padding, shape)
        for n, pair in zip(shape, self.padding):
            most = n if self.mode != "reflect" or n is None else n - 1
            if n is not None and self.mode != "edge" and max(pair) > most:
                raise ShapeError(f"{self.mode} padding {pair} is larger than an axis of {n} values allows")
        return tuple(None if n is None else n + a + b for n, (a, b) in zip(shape, self.padding))

    def _sources(self, shape: Shape) -> tuple[np.ndarray, ...]:
        """For each axis, where each value of the output comes from."""
        return tuple(np.pad(np.arange(n), pair, self.mode) for n, pair in zip(shape, self.padding))  # type: ignore[call-overload]

    def forward(self, x):
        return x[(slice(None), *np.ix_(*self._sources(x.shape[1:])))]

    def relprop(self, R, x, y, rule=None, note=None):
        back = np.zeros(x.shape, R.dtype)
        np.add.at(back, (slice(None), *np.ix_(*self._sources(x.shape[1:]))), R)
        return back


@dataclass(frozen=True, eq=False, repr=False)
class Slice(_Move):
    """A part of a sample: cropping, and taking every n-th value.

    Parameters
    ----------
    start : tuple of int
        First index on each axis of a sample.
    stop : tuple of int or None
        End on each axis, exclusive, negative counted from the end, None for all.
    step : tuple of int, optional

    Examples
    --------
    >>> Slice((0, 1), (None, -1)).forward(np.array([[[1.0, 2.0, 3.0, 4.0]]]))
    array([[[2., 3.]]])
    """

    start: tuple[int, ...]
    stop: tuple[int | None, ...]
    step: tuple[int, ...] | None = None

    def __post_init__(self) -> None:
        step = (1,) * len(self.start) if self.step is None else tuple(self.step)
        if not len(self.start) == len(self.stop) == len(step) or any(n < 1 for n in step):
            raise ShapeError(
                "Slice: start, stop and step must be of one length, with steps of at least 1, "
                f"not {self.start}, {self.stop}, {self.step}"
            )
        object.__setattr__(self, "start", tuple(int(n) for n in self.start))
        object.__setattr__(self, "stop", tuple(None if n is None else int(n) for n in self.stop))
        object.__setattr__(self, "step", step)

    @property
    def _slices(self) -> tuple[slice, ...]:
        return tuple(map(slice, self.start, self.stop, self.step or ()))

    def output_shape(self, shape: Shape) -> Shape:
        _axes(self.start, shape)
        out = tuple(n if n is None else len(range(n)[s]) for n, s in zip(shape, self._slices))
        if 0 in out:
            raise ShapeError(f"{self} leaves nothing of a sample of shape {shape}")
        return out

    def forward(self, x):
        return x[(slice(None), *self._slices)]

    def relprop(self, R, x, y, rule=None, note=None):
        back = np.zeros(x.shape, R.dtype)
        back[(slice(None), *self._slices)] = R
        return back


@dataclass(frozen=True, eq=False, repr=False)
class UpSampling(_Move):
    """Every value repeated along the axes (nearest neighbour); a value gets back what its copies have.

    Parameters
    ----------
    size : tuple of int
        Repeats on each axis of a sample: ``(1, 2, 2)`` doubles an image.

    Examples
    --------
    >>> UpSampling((1, 2)).forward(np.array([[[1.0, 2.0]]]))
    array([[[1., 1., 2., 2.]]])
    """

    size: tuple[int, ...]

    way_back: ClassVar[str] = "copies summed"

    def __post_init__(self) -> None:
        size = tuple(self.size)
        if any(not isinstance(n, (int, np.integer)) or n < 1 for n in size):
            raise ShapeError(f"UpSampling: size must be integers of at least 1, not {self.size}")
        object.__setattr__(self, "size", tuple(int(n) for n in size))

    def output_shape(self, shape: Shape) -> Shape:
        _axes(self.size, shape)
        return tuple(None if n is None else n * k for n, k in zip(shape, self.size))

    def forward(self, x):
        for axis, k in enumerate(self.size, 1):
            x = np.repeat(x, k, axis) if k > 1 else x
        return x

    def relprop(self, R, x, y, rule=None, note=None):
        split = [n for pair in zip(x.shape[1:], self.size) for n in pair]
        return R.reshape(len(R), *split).sum(tuple(range(2, 2 * len(self.size) + 1, 2)))
