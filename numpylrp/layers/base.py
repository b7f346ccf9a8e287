"""What every layer is: parameters, a forward pass and a way back for relevance; no memory."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import wraps
from typing import Any, ClassVar

import numpy as np

from ..errors import LRPError, NonFiniteError, ShapeError

Shape = tuple[Any, ...]
"""Shape of one sample, without the batch axis: integers, and None where a size is free."""

Array = Any
"""A parameter that is an array: anything that NumPy makes one of when given, an np.ndarray once held."""

Note = Callable[..., None] | None
"""What a trace hands to `relprop`, to be called with arrays by name."""


def _output_of(layer: Layer, x: Any) -> tuple[Any, ...]:
    """The shape of the layer's output for this input, or a ShapeError."""
    arrays = x if layer.merges else (x,)
    if layer.merges and not isinstance(x, (tuple, list)):
        raise ShapeError(f"{type(layer).__name__}: takes a tuple of arrays, not {type(x).__name__}")
    if not all(isinstance(a, np.ndarray) and a.ndim for a in arrays):
        given = ", ".join(type(a).__name__ for a in arrays)
        raise ShapeError(f"{type(layer).__name__}: takes arrays with the batch as first axis, not {given}")
    try:
        return (len(arrays[0]), *layer.output_shape(*(a.shape[1:] for a in arrays)))
    except LRPError as error:
        raise type(error)(f"{type(layer).__name__}: {error}") from None


def _checked_forward(forward: Callable) -> Callable:
    @wraps(forward)
    def checked(self: Layer, x: Any) -> np.ndarray:
        _output_of(self, x)
        return forward(self, x)

    return checked


def _checked_relprop(relprop: Callable) -> Callable:
    @wraps(relprop)
    def checked(
        self: Layer, R: np.ndarray, x: Any, y: np.ndarray, rule: Any = None, note: Note = None
    ) -> Any:
        shape = _output_of(self, x)
        for name, array in (("R", R), ("y", y)):
            needed = name == "R" or self.takes_rule or array is not None
            if needed and np.shape(array) != shape:
                kind, given = type(self).__name__, np.shape(array)
                raise ShapeError(f"{kind}: {name} must have shape {shape} for this input, not {given}")
        if self.takes_rule and rule is None:
            raise LRPError(f"{type(self).__name__}: relevance goes through it by a rule; give one")
        return relprop(self, R, x, y, rule, note)

    return checked


@dataclass(frozen=True, eq=False)
class Layer:
    """A step of a network.

    A layer holds its parameters and nothing else. What a forward pass computed belongs to the
    caller, so that a layer can be run twice, by several threads, and tested without set-up.
    Parameters are constant: copies of the arrays that were given, which can't be written to. For
    other values build another layer (``dataclasses.replace(layer, weight=...)``).
    Arrays have the batch as their first axis; a *sample shape* is a shape without it.

    `forward` and `relprop` of every class, also a user's own, first check the shapes that they are
    given against `output_shape`, and raise ShapeError where they don't fit.

    Attributes
    ----------
    family : str
        "dense", "conv", "pool", "norm", "activation", "shape" or "merge": what composites match.
    takes_rule : bool
        Whether `relprop` depends on the rule. Where it doesn't, `way_back` says what it does.
    merges : bool
        Whether the layer takes several inputs; then x and R_x are tuples.
    own_rules : tuple of classes
        Rules of `numpylrp.nonlinear` that it takes besides.
    """

    family: ClassVar[str] = ""
    takes_rule: ClassVar[bool] = False
    way_back: ClassVar[str] = "unchanged"
    merges: ClassVar[bool] = False
    own_rules: ClassVar[tuple[type, ...]] = ()

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        for name, check in (("forward", _checked_forward), ("relprop", _checked_relprop)):
            if name in vars(cls):
                setattr(cls, name, check(vars(cls)[name]))

    def output_shape(self, shape: Shape) -> Shape:
        """Sample shape of the output for this sample shape of the input."""
        return shape

    def forward(self, x: Any) -> np.ndarray:
        """The layer's output, batch first."""
        raise NotImplementedError

    @_checked_relprop
    def relprop(self, R: np.ndarray, x: Any, y: np.ndarray, rule: Any = None, note: Note = None) -> Any:
        """Relevance of the input `x`, given relevance `R` of the output `y`.

        Parameters
        ----------
        R, y : (N, *output) array
        x : (N, *input) array, or a tuple of them where the layer merges
        rule : Rule, optional
            Needed where the layer takes one.
        note : callable, optional
            Called with the arrays that the rule computes on the way, by name.

        Returns
        -------
        (N, *input) array, or a tuple of them
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

    def relprop(self, R, x, y, rule=None, note=None):
        linear, x, y = self.linearized(x, y)
        return rule.propagate(linear, R, x, y, note)


@dataclass(frozen=True, eq=False, repr=False)
class Linear(Ruled):
    """A layer that is linear in its input: ``y = linear(x, weight, bias)``.

    Every rule is written in three primitives, once for all linear layers: `linear`, the map with
    the weights that it is given instead of its own; `adjoint`, the transposed map; and
    `as_matrix`, the same map as an explicit matrix, slow, for tests and for teaching.
    """

    def parameters(self, shape: Shape) -> tuple[np.ndarray, np.ndarray | None]:
        """Weight and bias for an input of this sample shape."""
        own: Any = self
        return own.weight, own.bias

    def linear(self, x: np.ndarray, weight: np.ndarray, bias: np.ndarray | None) -> np.ndarray:
        """The map with this weight and bias: (N, *input) -> (N, *output)."""
        raise NotImplementedError

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
        raise ShapeError(f"{who} must be an array of numbers, not {value!r:.80}") from None
    if array.dtype.kind != "f" or array.dtype.itemsize < 4:
        array = array.astype(np.float32 if array.dtype == np.float16 else np.float64)
    allowed = (ndim,) if isinstance(ndim, int) else tuple(ndim)
    if array.ndim not in allowed:
        axes = " or ".join(map(str, allowed))
        raise ShapeError(f"{who} must have {axes} axes, but its shape is {array.shape}")
    if not np.isfinite(array).all():
        bad = np.count_nonzero(~np.isfinite(array))
        raise NonFiniteError(f"{who} has {bad} of {array.size} values that are NaN or infinite")
    object.__setattr__(layer, name, _frozen(array))


def _frozen(array: np.ndarray) -> np.ndarray:
    """A copy that can't be written to (the array itself where it is such a copy already)."""
    if array.flags.writeable or not isinstance(array.base, np.ndarray) or array.base.flags.writeable:
        array = array.copy()
        array.flags.writeable = False
        array = array[...]  # a view of what can't be written to can't be made writeable
    return array


def integers(layer: Layer, name: str, rank: int, least: int = 1) -> None:
    """Make option `name` a tuple of `rank` integers of at least `least`."""
    value = getattr(layer, name)
    values = tuple(value) if isinstance(value, (tuple, list, np.ndarray)) else (value,) * rank
    valid = len(values) == rank and all(
        isinstance(v, (int, np.integer)) and not isinstance(v, bool) and v >= least for v in values
    )
    if not valid:
        raise ShapeError(
            f"{type(layer).__name__}: {name} must be an integer of at least {least}, "
            f"or {rank} of them, not {value!r}"
        )
    object.__setattr__(layer, name, tuple(int(v) for v in values))
