"""What every layer is: parameters, a forward pass and a way back for relevance; no memory."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from ..errors import NonFiniteError, ShapeError

Shape = tuple[int | None, ...]
"""Shape of one sample, without the batch axis; None where a size is free."""


@dataclass(frozen=True, eq=False)
class Layer:
    """A step of a network.

    A layer holds its parameters and nothing else. What a forward pass computed belongs to the
    caller, so that a layer can be run twice, by several threads, and tested without set-up.
    Parameters are constant, views that can't be written to: for other values build another layer
    (``dataclasses.replace(layer, weight=...)``), and leave the array that was given as it is.
    Arrays have the batch as their first axis; a *sample shape* is a shape without it.

    Attributes
    ----------
    family : str
        "dense", "conv", "pool", "norm", "activation", "shape" or "merge": what composites match.
    takes_rule : bool
        Whether `relprop` depends on the rule. Where it doesn't, `way_back` says what it does.
    merges : bool
        Whether the layer takes several inputs; then x and R_x are tuples.
    """

    family: ClassVar[str] = ""
    takes_rule: ClassVar[bool] = False
    way_back: ClassVar[str] = "unchanged"
    merges: ClassVar[bool] = False

    def output_shape(self, shape: Shape) -> Shape:
        """Sample shape of the output for this sample shape of the input."""
        return shape

    def forward(self, x: np.ndarray) -> np.ndarray:
        """The layer's output, batch first."""
        raise NotImplementedError

    def relprop(
        self, R: np.ndarray, x: np.ndarray, y: np.ndarray, rule: Any = None, note: Callable | None = None
    ) -> np.ndarray:
        """Relevance of the input `x`, given relevance `R` of the output `y`.

        `note` is called with the arrays that the rule computes on the way, by name.
        """
        return R

    def arrays(self) -> dict[str, np.ndarray]:
        """The parameters that are arrays, by name."""
        fields = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}
        return {name: value for name, value in fields.items() if isinstance(value, np.ndarray)}

    def astype(self, dtype: np.dtype) -> Layer:
        """The same layer with parameters of this dtype (itself where nothing changes)."""
        change = {k: v.astype(dtype) for k, v in self.arrays().items() if v.dtype != dtype}
        return dataclasses.replace(self, **change) if change else self

    def __repr__(self) -> str:
        parts = []
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if isinstance(value, np.ndarray):
                parts.append(f"{field.name}: {'x'.join(map(str, value.shape)) or 'scalar'}")
            elif value is not None and value != field.default:
                parts.append(f"{field.name}={value!r}")
        return f"{type(self).__name__}({', '.join(parts)})"


@dataclass(frozen=True, eq=False, repr=False)
class Ruled(Layer):
    """A layer through which relevance goes by a rule: linear, or made so for each input."""

    takes_rule: ClassVar[bool] = True
    way_back: ClassVar[str] = "by rule"

    def linearized(self, x: Any, y: np.ndarray) -> tuple[Any, np.ndarray, np.ndarray]:
        """The linear map that rules see at this input: its primitives, its input and its output."""
        return self, x, y

    def relprop(self, R, x, y, rule, note=None, z=None):
        """As `Layer.relprop`; `z` are denominators that are known, see `Rule.forward`."""
        linear, x, y = self.linearized(x, y)
        known = {} if z is None else {"z": z}
        return rule.propagate(linear, R, x, y, note, **known)


@dataclass(frozen=True, eq=False, repr=False)
class Linear(Ruled):
    """A layer that is linear in its input: ``y = linear(x, weight, bias)``.

    Every rule is written in three primitives, once for all linear layers: `linear`, the map with
    the weights that it is given instead of its own; `adjoint`, the transposed map; and
    `as_matrix`, the same map as an explicit matrix, slow, for tests and for teaching.

    Attributes
    ----------
    channels_axis : int or None
        The axis of inputs and outputs that grows where weights are concatenated: along their second
        axis for inputs, along their first (with biases) for outputs; None where they can't be.
    """

    channels_axis: ClassVar[int | None] = None

    def parameters(self, shape: Shape) -> tuple[np.ndarray, np.ndarray | None]:
        """Weight and bias for an input of this sample shape."""
        return self.weight, self.bias

    def linear(self, x: np.ndarray, weight: np.ndarray, bias: np.ndarray | None) -> np.ndarray:
        """The map with this weight and bias: (N, *input) -> (N, *output)."""
        raise NotImplementedError

    def linear_maps(
        self, x: np.ndarray, weight: np.ndarray, bias: np.ndarray | None, maps: int
    ) -> np.ndarray:
        """`linear` for several weights and biases, one behind the other: (maps, N, *output)."""
        y = self.linear(x, weight, bias)
        return np.stack(np.split(y, maps, self.channels_axis))

    def adjoint(self, s: np.ndarray, weight: np.ndarray, shape: Shape) -> np.ndarray:
        """Send s back through the transposed map: from the output to (N, *shape).

        With it, ``sum(linear(x, w, None) * s) == sum(x * adjoint(s, w))`` for all x and s.
        """
        raise NotImplementedError

    def as_matrix(self, shape: Shape, weight: np.ndarray | None = None) -> np.ndarray:
        """The map without its bias as a matrix (inputs, outputs), from the images of a basis.

        Examples
        --------
        >>> from numpylrp.layers import AveragePool1D
        >>> AveragePool1D(2).as_matrix((1, 4))
        array([[0.5, 0. ],
               [0.5, 0. ],
               [0. , 0.5],
               [0. , 0.5]])
        """
        if weight is None:
            weight = self.parameters(shape)[0]
        n = math.prod(shape)
        basis = np.eye(n, dtype=weight.dtype).reshape(n, *shape)
        return self.linear(basis, weight, None).reshape(n, -1)

    def forward(self, x: np.ndarray) -> np.ndarray:
        return self.linear(x, *self.parameters(x.shape[1:]))


def parameter(layer: Layer, name: str, ndim: int | Sequence[int], optional: bool = False) -> None:
    """Make parameter `name` a finite float array with `ndim` axes, or say what is wrong with it."""
    value = getattr(layer, name)
    if value is None and optional:
        return
    who = f"{type(layer).__name__}: {name}"
    try:
        array = np.asarray(value)
        if array.dtype.kind not in "fiub":
            raise TypeError
    except (TypeError, ValueError):
        raise ShapeError(f"{who} is to be an array of numbers, not {value!r:.80}") from None
    if array.dtype.kind != "f" or array.dtype.itemsize < 4:
        array = array.astype(np.float32 if array.dtype == np.float16 else np.float64)
    allowed = (ndim,) if isinstance(ndim, int) else tuple(ndim)
    if array.ndim not in allowed:
        axes = " or ".join(map(str, allowed))
        raise ShapeError(f"{who} is to have {axes} axes, but its shape is {array.shape}")
    if not np.isfinite(array).all():
        bad = np.count_nonzero(~np.isfinite(array))
        raise NonFiniteError(f"{who} has {bad} of {array.size} values that are NaN or infinite")
    array = array.view()
    array.flags.writeable = False  # what was derived of it would not change with it
    object.__setattr__(layer, name, array)


def whole(layer: Layer, name: str, rank: int, least: int = 1) -> None:
    """Make option `name` a tuple of `rank` integers of at least `least`."""
    value = getattr(layer, name)
    values = tuple(value) if isinstance(value, (tuple, list, np.ndarray)) else (value,) * rank
    valid = len(values) == rank and all(
        isinstance(v, (int, np.integer)) and not isinstance(v, bool) and v >= least for v in values
    )
    if not valid:
        raise ShapeError(
            f"{type(layer).__name__}: {name} is to be an integer of at least {least}, "
            f"or {rank} of them, not {value!r}"
        )
    object.__setattr__(layer, name, tuple(int(v) for v in values))
