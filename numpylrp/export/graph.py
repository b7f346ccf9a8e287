"""What exporters share: a graph of tensor operations as a network of ours, one operation at a time.

Frameworks write operations on whole arrays, the batch on axis 0; here values are samples, and an
operation that would mix samples is refused.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from .. import layers as L
from ..errors import LRPError, UnsupportedError
from ..network import Network


class Value(NamedTuple):
    """A tensor of the model under construction: its name, the shape of one sample, the axis of the batch."""

    name: str
    shape: tuple[int, ...]
    batch: int = 0


Operand = Any

PIECES = 64
"""Slices that an axis may be cut into for a permutation of its entries."""


class Graph:
    """Collects layers; knows the sample shape of every value."""

    def __init__(self, inputs: dict[str, tuple[int, ...]]) -> None:
        self.inputs = inputs
        self.read: set[str] = set()
        """What any node of the model reads, and its outputs, by the names that it has there."""
        self.layers: list[tuple] = []
        self._made: dict[Any, L.Layer] = {}
        self._by_name: dict[str, tuple[L.Layer, tuple[Value, ...]]] = {}

    def add(self, name: str, layer: L.Layer, *inputs: Value) -> Value:
        """One more layer, under this name or one like it, and its output."""
        if len(inputs) == 1 and inputs[0].batch and sequences.passes(layer, inputs[0]):
            (v,) = inputs
            return self.add(name, layer, v._replace(batch=0))._replace(batch=v.batch)
        for v in inputs:
            if v.batch:
                raise UnsupportedError(
                    f"{name}: {type(layer).__name__} of what has its batch on axis {v.batch} is not supported"
                )
        free, n = name, 1
        while free in self._by_name or free in self.inputs:
            n += 1
            free = f"{name}_{n}"
        self.layers.append((free, layer, tuple(v.name for v in inputs)))
        self._by_name[free] = layer, inputs
        try:
            return Value(free, layer.output_shape(*(v.shape for v in inputs)))
        except LRPError as error:
            raise type(error)(f"{free} ({type(layer).__name__}): {error}") from None

    @property
    def made(self) -> dict[str, tuple[L.Layer, tuple[Value, ...]]]:
        """The layer that made each value, and what it read."""
        return self._by_name

    def shared(self, key: Any, make: Callable[[], L.Layer]) -> L.Layer:
        """The layer made for these parameters before, or a new one."""
        if repr(key) not in self._made:
            self._made[repr(key)] = make()
        return self._made[repr(key)]

    def network(self, outputs: Sequence[Value], metadata: dict, dtype: Any) -> Network:
        """The network, with these outputs, in this dtype."""
        outputs = list(outputs)
        for n, value in enumerate(outputs):
            if value.name in self.inputs or value in outputs[:n]:
                outputs[n] = self.add("output", L.Identity(), value)
        if any(v.batch for v in outputs):
            raise UnsupportedError("an output has its batch on another axis than the first")
        needed = {v.name for v in outputs}
        for name, _, reads in reversed(self.layers):
            needed |= set(reads) if name in needed else set()
        layers = [entry for entry in self.layers if entry[0] in needed]
        return Network(layers, self.inputs, [v.name for v in outputs], metadata).astype(dtype)

    # ------------------------------------------------------------ moves

    def reshape(self, name: str, v: Value, shape: Sequence[int]) -> Value:
        """The sample in another shape, one entry of which may be -1."""
        size, known = math.prod(v.shape), math.prod(n for n in shape if n != -1)
        shape = tuple(size // max(known, 1) if n == -1 else int(n) for n in shape)
        if math.prod(shape) != size:
            raise UnsupportedError(
                f"{name}: a reshape of samples {v.shape} to {shape} would mix the samples of a batch"
            )
        if shape == v.shape:
            return v
        return self.add(name, L.Flatten() if len(shape) == 1 else L.Reshape(shape), v)

    def batch_reshape(self, name: str, v: Value, shape: Sequence[int]) -> Value:
        """Likewise with the batch, whose size is of no account, as the first entry."""
        if not shape:
            raise UnsupportedError(f"{name}: a reshape of the whole batch to one number is not supported")
        rest = list(shape[1:])
        if shape[0] == -1 and -1 in rest:
            raise UnsupportedError(f"{name}: the shape {tuple(shape)} leaves two sizes open")
        return self.reshape(name, v, rest)

    def permute(self, name: str, v: Value, axes: Sequence[int]) -> Value:
        """The axes of the batch in another order."""
        return sequences.permuted(self, name, v, axes)

    def axis(self, name: str, v: Value, axis: int, new: int = 0) -> int:
        """An axis of the batch, which may count from the end, as an axis of the sample."""
        at = axis % (len(v.shape) + 1 + new)
        if at == v.batch:
            raise UnsupportedError(f"{name}: works along the batch axis, which would mix samples")
        return at - (at > v.batch)

    def squeeze(self, name: str, v: Value, axes: Sequence[int] | None = None) -> Value:
        """Without axes of size 1."""
        if v.batch and axes is not None:
            return sequences.squeezed(self, name, v, axes)
        at = range(len(v.shape)) if axes is None else [self.axis(name, v, a) for a in axes]
        return self.reshape(name, v, [n for i, n in enumerate(v.shape) if not (i in at and n == 1)])

    def unsqueeze(self, name: str, v: Value, axes: Sequence[int]) -> Value:
        """With new axes of size 1."""
        front = {a % (len(v.shape) + 1 + len(axes)) for a in axes}
        if v.batch or 0 in front:
            return sequences.unsqueezed(self, name, v, sorted(front))
        shape = list(v.shape)
        for at in sorted(self.axis(name, v, a, new=len(axes)) for a in axes):
            shape.insert(at, 1)
        return self.reshape(name, v, shape)

    def part(self, name: str, v: Value, at: int, start: Any, stop: Any, step: int = 1) -> Value:
        """A slice along an axis of the sample."""
        first, last, step = slice(start, stop, step).indices(v.shape[at])
        if step < 1:
            raise UnsupportedError(f"{name}: a slice with step {step} is not supported")
        if (first, step) == (0, 1) and last == v.shape[at]:
            return v
        rank = len(v.shape)
        starts, steps = [0] * rank, [1] * rank
        stops: list[Any] = [None] * rank
        starts[at], stops[at], steps[at] = first, last, step
        layer = L.Slice(tuple(starts), tuple(stops), tuple(steps))
        return self.add(name, layer, v._replace(batch=0))._replace(batch=v.batch)

    def parts(self, name: str, v: Value, at: int, sizes: Sequence[int]) -> list[Value]:
        """The sample cut along an axis."""
        ends = np.cumsum([0, *sizes]).tolist()
        return [self.part(f"{name}.{n}", v, at, *ends[n : n + 2]) for n in range(len(sizes))]

    def select(self, name: str, v: Value, at: int, index: int) -> Value:
        """One entry of an axis, which goes."""
        index %= v.shape[at]
        one = self.part(name, v, at, index, index + 1)._replace(batch=0)
        found = self.reshape(name, one, [*v.shape[:at], *v.shape[at + 1 :]])
        return found._replace(batch=v.batch - (at < v.batch))

    def gather(self, name: str, v: Value, at: int, indices: Sequence[int]) -> Value:
        """Entries of an axis in any order: slices, one for each run of even steps, side by side."""
        n = v.shape[at]
        runs: list[list[int]] = [[]]
        for index in indices:
            if not -n <= index < n:
                raise UnsupportedError(f"{name}: the index {index} is none of {n} along axis {at}")
            index, run = index % n, runs[-1]
            step = run[1] - run[0] if len(run) > 1 else index - run[0] if run else 1
            if not run or (step > 0 and index - run[-1] == step):
                run.append(index)
            else:
                runs.append([index])
        if len(runs) > PIECES or not runs[0]:
            raise UnsupportedError(
                f"{name}: {len(runs)} pieces along an axis are not supported, up to {PIECES} are"
            )
        parts = []
        for k, (first, *rest) in enumerate(runs):
            step, own = (rest[0] - first if rest else 1), f"{name}.{k}" if len(runs) > 1 else name
            parts.append(self.part(own, v, at, first, [first, *rest][-1] + 1, step))
        return self.join(name, parts, at)

    def turned(self, name: str, v: Value, axes: Sequence[int]) -> Value:
        """Axes of the sample turned around."""
        for k, at in enumerate(axes):
            v = self.gather(f"{name}.{k}" if len(axes) > 1 else name, v, at, range(v.shape[at])[::-1])
        return v

    def repeated(self, name: str, v: Value, times: Sequence[int]) -> Value:
        """The sample side by side with itself, this often along each of its axes."""
        for at, n in enumerate(times):
            v = self.join(f"{name}.{at}", [v] * n, at)
        return v

    def power(self, name: str, v: Value, exponent: float) -> Value:
        """A whole power, as a product with itself; every factor gets an equal share."""
        if exponent not in (1, 2, 3, 4):
            raise UnsupportedError(f"{name}: the power {exponent:g} is not supported, only 1 to 4")
        return v if exponent == 1 else self.add(name, L.Multiply(), *[v] * int(exponent))

    def row_transpose(self, name: str, v: Value, weight: np.ndarray, bias: Any, options: dict) -> Value:
        """A transposed convolution in one dimension: on images of height 1."""
        groups = options.get("groups", 1)
        image = self.reshape(f"{name}.image", v, (v.shape[0], 1, -1))
        lifted: dict[str, Any] = {
            k: o
            if k == "groups" or isinstance(o, str)
            else ({"padding": (0, 0), "output_padding": 0}.get(k, 1), *o)
            for k, o in options.items()
        }
        made = self.add(name, L.Conv2DTranspose(weight[:, :, None], bias, **lifted), image)
        return self.reshape(f"{name}.row", made, (weight.shape[1] * groups, -1))

    def pad(
        self,
        name: str,
        v: Value,
        pairs: Sequence[tuple[int, int]],
        value: Any = 0,
        mode: str = "constant",
    ) -> Value:
        """Zeros, another constant or copies around the sample; negative padding cuts off."""
        for at, (a, b) in enumerate(pairs):
            if min(a, b) < 0:
                v = self.part(name, v, at, max(0, -a), v.shape[at] + min(0, b))
        pairs = tuple((max(0, int(a)), max(0, int(b))) for a, b in pairs)
        if not np.any(pairs):
            return v
        if mode != "constant":
            return self.add(name, L.CopyPadding(pairs, mode), v)
        if not value:
            return self.add(name, L.ZeroPadding(pairs), v)
        zeros = self.add(f"{name}.zeros", L.ZeroPadding(pairs), v)
        around = np.pad(np.zeros(v.shape), pairs, constant_values=float(value))
        return self.affine(name, zeros, 1.0, around)

    def expand(self, name: str, v: Value, shape: Sequence[int]) -> Value:
        """Axes of size 1 repeated."""
        shape = [*v.shape[: len(shape)], *shape[len(v.shape) :]] if -1 in shape else list(shape)
        v = self.reshape(name, v, (1,) * (len(shape) - len(v.shape)) + v.shape)
        if any(n not in (1, m) for n, m in zip(v.shape, shape)):
            raise UnsupportedError(f"{name}: samples {v.shape} can't be repeated to {tuple(shape)}")
        size = tuple(m // n for n, m in zip(v.shape, shape))
        return self.add(name, L.UpSampling(size), v) if max(size, default=1) > 1 else v

    def join(self, name: str, values: Sequence[Value], at: int) -> Value:
        """Concatenation along an axis of the sample."""
        return values[0] if len(values) == 1 else self.add(name, L.Concatenate(at), *values)

    # ------------------------------------------------------------ arithmetic

    def affine(self, name: str, v: Value, scale: Any, shift: Any) -> Value:
        """``scale * v + shift`` with constants, one a channel or any that broadcast to a sample."""
        arrays = []
        for given in (scale, shift):
            array = np.asarray(given)
            array = array.astype(np.float64) if array.dtype.kind != "f" else array
            if array.ndim == len(v.shape) + 1 and (array == array[:1]).all():  # the same for all samples
                array = array[0]
            array = array.reshape((1,) * (len(v.shape) - array.ndim) + array.shape)
            if array.ndim != len(v.shape) or any(a not in (1, n) for a, n in zip(array.shape, v.shape)):
                raise UnsupportedError(
                    f"{name}: a constant of shape {np.shape(given)} with samples {v.shape} is not supported"
                )
            arrays.append(array)
        full = np.broadcast_shapes(*(a.shape for a in arrays))
        along = [at for at, n in enumerate(full) if n > 1]
        if along == [0, 1] and full == v.shape and (arrays[0] == 1).all():  # learned positions
            return self.add(name, L.Positions(np.broadcast_to(arrays[1], full)), v)
        if len(along) <= 1:
            at = along[0] if along else 0
            scale, shift = (a.reshape(-1) for a in arrays)
            return self.add(name, L.Affine(scale, shift, at), v)
        flat = self.reshape(name, v, (-1,))
        scale, shift = (np.broadcast_to(a, v.shape).reshape(-1) for a in arrays)
        made = self.add(name, L.Affine(scale, shift), flat)
        return self.reshape(name, made, v.shape)

    def combine(self, name: str, kind: str, a: Operand, b: Operand) -> Operand:
        """``a + b``, ``a - b``, ``a * b`` or ``a / b`` of values and constants."""
        if not isinstance(a, Value) and not isinstance(b, Value):
            return {"+": np.add, "-": np.subtract, "*": np.multiply, "/": np.divide}[kind](a, b)
        if isinstance(a, Value) and isinstance(b, Value):
            if kind == "/":
                raise UnsupportedError(f"{name}: a quotient of two values of the network is not supported")
            if len(a.shape) != len(b.shape):
                raise UnsupportedError(
                    f"{name}: samples {a.shape} and {b.shape} have different numbers of axes"
                )
            layer = {"+": L.Add(), "-": L.Subtract()}.get(kind) or L.Multiply(self._signal(a, b))
            return self.add(name, layer, a, b)
        if isinstance(a, Value):
            scale = {"*": b, "/": 1 / np.asarray(b, float) if kind == "/" else 1}.get(kind, 1)
            shift = {"+": b, "-": -np.asarray(b)}.get(kind, 0)
            return self.affine(name, a, scale, shift)
        if kind == "/":
            raise UnsupportedError(f"{name}: division by a value of the network is not supported")
        return self.affine(name, b, {"*": a, "-": -1}.get(kind, 1), 0 if kind == "*" else a)

    def _signal(self, a: Value, b: Value) -> int | None:
        """A factor that comes out of a sigmoid is a gate: the other one takes the relevance."""
        gates = [self._gate(v) for v in (a, b)]
        return gates.index(False) if gates.count(False) == 1 else None

    def _gate(self, v: Value) -> bool:
        while v.name in self._by_name:
            layer, inputs = self._by_name[v.name]
            if layer.family != "shape":
                return isinstance(layer, (L.Sigmoid, L.HardSigmoid))
            v = inputs[0]
        return False

    def several(self, name: str, kind: type, values: Sequence[Operand]) -> Value:
        """A merge of two or more values."""
        if not all(isinstance(v, Value) for v in values):
            raise UnsupportedError(f"{name}: {kind.__name__} with a constant is not supported")
        return values[0] if len(values) == 1 else self.add(name, kind(), *values)

    def product(self, name: str, a: Operand, b: Operand, bias: np.ndarray | None = None) -> Value:
        """``a @ b`` with a constant matrix b: a dense layer on the last axis."""
        if isinstance(b, Value):
            return sequences.product(self, name, a, b)
        if np.ndim(b) != 2:
            raise UnsupportedError(f"{name}: a matrix product with an array {np.shape(b)} is not supported")
        return self.add(name, L.Dense(np.asarray(b).T, bias), a)

    def reduced(self, name: str, kind: type, v: Value, axes: Sequence[int] | None, keep: bool) -> Value:
        """Mean, sum or maximum (a global pooling) over axes of the batch."""
        rank = len(v.shape)
        over = sorted({self.axis(name, v, a) for a in (range(1, rank + 1) if axes is None else axes)})
        if rank > 1 and over == list(range(1, rank)):
            return self.add(name, kind(keep), v)
        rest = [at for at in range(rank) if at not in over]
        moved = self.permute(name, v, [0, *(at + 1 for at in (*rest, *over))])
        flat = self.reshape(name, moved, (math.prod(v.shape[at] for at in rest), -1))
        pooled = self.add(name, kind(), flat)
        shape = (
            [1 if at in over else n for at, n in enumerate(v.shape)] if keep else [v.shape[a] for a in rest]
        )
        return self.reshape(name, pooled, shape)

    # ------------------------------------------------------------ pooling to a size

    def adaptive(self, name: str, v: Value, out: Sequence[Any], largest: bool) -> Value:
        """Pooling to a given size: windows from floor(i n / out) to ceil((i + 1) n / out)."""
        size = v.shape[1:]
        out = tuple(int(n if o is None else o) for o, n in zip(out, size))
        if all(o == 1 for o in out):
            return self.add(name, (L.GlobalMaxPool if largest else L.GlobalAveragePool)(True), v)
        if all(n % o == 0 for o, n in zip(out, size)):
            kernel = tuple(n // o for o, n in zip(out, size))
            if max(kernel) == 1:
                return v
            kinds = (
                (L.MaxPool1D, L.MaxPool2D, L.MaxPool3D)
                if largest
                else (L.AveragePool1D, L.AveragePool2D, L.AveragePool3D)
            )
            return self.add(name, kinds[len(size) - 1](kernel), v)
        if largest:
            raise UnsupportedError(
                f"{name}: adaptive maximum pooling of {size} to {out}, which is no divisor, is not supported"
            )
        return self.add(name, L.AdaptiveAveragePool(out), v)

    def interpolated(self, name: str, v: Value, size: Sequence[int], places: str) -> Value:
        """Linear interpolation of the spatial axes."""
        if tuple(size) == tuple(v.shape[1:]):
            return v
        return self.add(name, L.Interpolation(tuple(int(n) for n in size), places), v)

    def upsampled(self, name: str, v: Value, size: Sequence[float]) -> Value:
        """Nearest neighbour with whole factors for the spatial axes."""
        if any(s != round(s) or s < 1 for s in size):
            raise UnsupportedError(
                f"{name}: upsampling by {tuple(size)}, not by whole factors, is not supported"
            )
        return self.add(name, L.UpSampling((1, *(int(s) for s in size))), v)


def images(name: str, v: Value, *kinds: type) -> type:
    """The layer for one, two or three spatial dimensions."""
    rank = len(v.shape) - 1
    if not 1 <= rank <= len(kinds):
        raise UnsupportedError(
            f"{name}: takes samples (channels, *spatial) of 1 to {len(kinds)} dimensions, not {v.shape}"
        )
    return kinds[rank - 1]


from . import sequences  # noqa: E402  (it is made of what is above)
