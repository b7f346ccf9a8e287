"""Operations of Keras' functional graphs on tensors and constants, such as ``x / 255`` and ``ops.relu(x)``.

Keras 3 stores them as layers of `keras.src.ops`, whose options are their configuration; Keras 2 as TFOpLambda
and SlicingOpLambda, with the arguments of the function of TensorFlow. One function stands here for both.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from .. import layers as L
from ..errors import UnsupportedError
from ..export.graph import Value
from ..layers.shape import MODES
from .keras_layers import BUILDERS, Builder, constant
from .keras_refused import BEFORE


class Call:
    """What an operation is called with: tensors of the model, constants, options."""

    def __init__(self, b: Builder, name: str, args: list[Any], options: dict[str, Any]) -> None:
        self.b, self.name, self.options = b, name, options
        one = (isinstance(v, list) and len(v) == 1 and isinstance(v[0], Value) for v in args)
        self.args = [v[0] if alone else v for v, alone in zip(args, one)]

    def get(self, *names: str, at: int | None = None, default: Any = None) -> Any:
        """An argument by its place or by one of its names."""
        if at is not None and at < len(self.args) and self.args[at] is not None:
            return self.args[at]
        return next((self.options[n] for n in names if self.options.get(n) is not None), default)

    def values(self) -> list[Value]:
        """The tensors in the first argument, which may be a list."""
        first = self.get("x", "xs", "inputs", "values", "arrays", at=0)
        given = list(first) if isinstance(first, list) else [first]
        if not given or not all(isinstance(v, Value) for v in given):
            raise UnsupportedError("with a constant, not a tensor of the model, it is not supported")
        return given

    def value(self) -> Value:
        """The first argument, a tensor."""
        given = self.values()
        if len(given) != 1:
            raise UnsupportedError(f"it is called with {len(given)} tensors instead of one")
        return given[0]

    def plain(self) -> Value:
        """The first argument, in Keras' layout."""
        return self.b.laid(self.value(), False)

    def sized(self) -> Value:
        """The first argument in Keras' layout, of a shape that is known."""
        made = self.plain()
        self.b.sizes(made)
        return made

    def axes(self, value: Any) -> list[int]:
        """Axes of the batch as a list, the batch refused."""
        axes = value if isinstance(value, list) else [value]
        rank = len(self.value().shape) + 1
        for axis in axes:
            if not isinstance(axis, int) or isinstance(axis, bool) or not -rank <= axis < rank:
                raise UnsupportedError(f"axis {axis!r:.40} is none of the {rank} of its input")
        if any(axis % rank == 0 for axis in axes):
            raise UnsupportedError("works along the batch axis, which would mix samples")
        return [axis % rank for axis in axes]

    def whole(self, value: Any) -> list[int]:
        """A list of integers, where the file says one."""
        values = value if isinstance(value, list) else [value]
        if not all(isinstance(v, int) and not isinstance(v, bool) for v in values):
            raise UnsupportedError(f"{value!r:.60} is not supported, only integers")
        return values

    def layer(self, kind: str, c: dict, *arrays: np.ndarray) -> Value:
        """What a Keras layer of this class and configuration makes of the first argument."""
        return BUILDERS[kind](self.b, self.name, c, [self.value()], list(arrays))


Function = Callable[[Call], Any]


def operation(entry: dict) -> str | None:
    """The name of the operation that an entry of a configuration is, None where it is built as a layer."""
    c = entry["config"]
    if entry["class_name"] in ("TFOpLambda", "SlicingOpLambda"):
        return str(c.get("function"))
    if "module" in entry:
        return entry["class_name"] if ".ops" in str(entry["module"]) else None
    # .h5 files of Keras 3 leave the module out; only layers say whether they are trained, though not all do
    kind = entry["class_name"]
    new = any(isinstance(node, dict) and "args" in node for node in entry.get("inbound_nodes") or [])
    is_layer = not new or not isinstance(c, dict) or "trainable" in c or kind == "InputLayer"
    return None if is_layer or (kind in BUILDERS and kind not in OPERATIONS) else kind


def options(entry: dict) -> dict[str, Any]:
    """The options of an operation that stand in its configuration, as Keras 3 has them."""
    own = ("name", "trainable", "dtype", "function")
    if entry["class_name"] in ("TFOpLambda", "SlicingOpLambda"):
        return {}
    return {k: v for k, v in entry["config"].items() if k not in own or (k == "dtype" and isinstance(v, str))}


def build(b: Builder, function: str, name: str, args: list[Any], options: dict[str, Any]) -> list[Value]:
    """Add an operation on tensors and constants to the builder."""
    make = OPERATIONS.get(function.removeprefix("compat.v1."))
    if make is None:
        raise UnsupportedError(f"the operation is not supported: {BEFORE}")
    before = len(b.layers)
    made = make(Call(b, name, args, options))
    made = made if isinstance(made, list) else [made]
    if len(made) == 1 and len(b.layers) == before:  # the layer of this name may be asked for
        made = [b.add(name, L.Identity(), made[0])]
    return made


# ---------------------------------------------------------------- single values


def _pointwise(make: Callable[[Call], L.Layer]) -> Function:
    return lambda a: a.b.add(a.name, make(a), a.value())


def _number(a: Call, *names: str, at: int | None = None, default: float | None = None) -> float:
    return _one(constant(a.get(*names, at=at, default=default)))


def _one(array: np.ndarray) -> float:
    if array.size != 1:
        raise UnsupportedError(f"an array of constants, {array.shape}, is not supported, only a number")
    return float(array.reshape(()))


def _softmax(kind: type) -> Function:
    def make(a: Call) -> Value:
        (axis,) = a.axes(a.get("axis", at=1, default=-1))
        return a.b.add(a.name, kind(a.b.at(a.value(), axis)), a.value())

    return make


def _not_equal(a: Call) -> Value:
    """A mask: what is not this number."""
    value = _number(a, "x2", "y", at=1)
    return a.b.add(a.name, L.NotEqual(value), a.plain(), swapped=False)


def _any(a: Call) -> Value:
    """Whether any value along the last axis is not a number: a mask of steps."""
    x = a.value()
    layer, inputs = a.b.made.get(x.name, (None, ()))
    last = a.get("axis", at=1) in (-1, len(x.shape), [-1], [len(x.shape)])
    if not isinstance(layer, L.NotEqual) or layer.last or not last or a.get("keepdims"):
        raise UnsupportedError("of other things than a mask, along its last axis, it is not supported")
    return a.b.add(a.name, L.NotEqual(layer.value, True), *inputs, swapped=False)


def _masks(kind: type) -> Function:
    """Two masks together."""

    def make(a: Call) -> Value:
        x, y = a.value(), a.get("x2", "y", at=1)
        if not isinstance(y, Value) or x.shape != y.shape:
            raise UnsupportedError("of other things than two masks of one shape it is not supported")
        return x if x == y else a.b.add(a.name, kind(), x, y, swapped=False)

    return make


def _silu(a: Call) -> L.Layer:
    if a.get("beta", default=1.0) != 1.0:
        raise UnsupportedError(f"silu with beta {a.get('beta')!r:.40} is not supported")
    return L.SiLU()


def _clip(a: Call) -> L.Layer:
    low = _number(a, "x_min", "clip_value_min", "min", at=1)
    high = _number(a, "x_max", "clip_value_max", "max", at=2)
    return L.Clip(low, high)


def _power(a: Call) -> Value:
    exponent = 2.0 if a.get("y", "x2", at=1) is None else _number(a, "y", "x2", at=1)
    return a.b.power(a.name, a.value(), exponent)


def _cast(a: Call) -> Value:
    if a.get("dtype", at=1) not in ("float16", "bfloat16", "float32", "float64"):
        raise UnsupportedError("a cast to another type than floating point is not supported")
    return a.value()


# ---------------------------------------------------------------- arithmetic


def _two(kind: str) -> Function:
    """An operation on a tensor and a tensor or a constant."""

    def make(a: Call) -> Value:
        x, y = a.get("x", "x1", at=0), a.get("y", "x2", "b", at=1)
        t = [v for v in (x, y) if isinstance(v, Value)]
        if len(t) == 2 and kind in BUILDERS:
            if len(t[0].shape) != len(t[1].shape):  # broadcast from the last axis, which mixes samples
                ranks = (len(v.shape) for v in t)
                raise UnsupportedError("samples with {} and {} axes don't fit together".format(*ranks))
            return BUILDERS[kind](a.b, a.name, {}, t, [])
        after = isinstance(y, Value)
        if len(t) != 1 or (kind == "Divide" and after):
            raise UnsupportedError("division by a tensor of the model is not supported")
        return _with_constant(a, kind, t[0], constant(x if after else y), after)

    return make


def _with_constant(a: Call, kind: str, t: Value, c: np.ndarray, after: bool) -> Value:
    if kind in ("Maximum", "Minimum"):
        ends = {"low" if kind == "Maximum" else "high": _one(c)}
        return a.b.add(a.name, L.ReLU() if ends == {"low": 0.0} else L.Clip(**ends), t)
    if kind == "Divide" and not c.all():
        raise UnsupportedError("a division by 0 is not supported")
    scale, shift = {
        "Add": lambda: (1.0, c),
        "Subtract": lambda: (-1.0, c) if after else (1.0, -c),
        "Multiply": lambda: (c, 0.0),
        "Divide": lambda: (1 / c, 0.0),
    }[kind]()
    return a.b.scaled(a.name, t, scale, shift)


def _bias_add(a: Call) -> Value:
    bias, t = constant(a.get("bias", at=1)), a.value()
    if str(a.get("data_format", at=2)).startswith("NC"):
        bias = bias.reshape(-1, *(1,) * (len(t.shape) - 1))
    return a.b.scaled(a.name, t, 1.0, bias)


def _sum_of(a: Call) -> Value:
    return BUILDERS["Add"](a.b, a.name, {}, a.values(), [])


def _matmul(a: Call) -> Value:
    other = a.get("b", "y", "x2", at=1)
    if any(a.get(k) for k in ("transpose_a", "adjoint_a", "a_is_sparse", "b_is_sparse")):
        raise UnsupportedError("a matrix product with its first factor transposed is not supported")
    if isinstance(other, Value) or not isinstance(a.get("a", "x", "x1", at=0), Value):
        raise UnsupportedError("a matrix product that is not with a constant from the right is not supported")
    weight = constant(other)
    weight = weight.T if a.get("transpose_b") or a.get("adjoint_b") else weight
    return a.b.product(a.name, a.plain(), weight)


# ---------------------------------------------------------------- pooling and convolution


def _reduced(kind: type) -> Function:
    def make(a: Call) -> Value:
        axis = a.get("axis", at=1)
        if axis is None:
            raise UnsupportedError("it reduces the whole batch, which would mix samples")
        axes, t, keep = sorted(a.axes(axis)), a.value(), bool(a.get("keepdims", at=2, default=False))
        if a.get("initial") is not None or a.get("where") is not None:
            raise UnsupportedError("with an initial value, or with a mask, it is not supported")
        rank = len(t.shape)
        if rank > 1 and axes == list(range(1, rank)):
            return a.b.add(a.name, kind(keep), a.b.laid(t, True))
        return a.b.reduced(a.name, kind, a.sized(), axes, keep)

    return make


def _pool(kind: str) -> Function:
    def make(a: Call) -> Value:
        rank = len(a.value().shape) - 1
        if rank not in (1, 2, 3):
            raise UnsupportedError(f"pooling of samples {a.value().shape} is not supported")
        size, stride = _spatial(a, "pool_size", "ksize", rank=rank), _spatial(a, "strides", rank=rank)
        return a.layer(f"{kind}{rank}D", {"pool_size": size, "strides": stride, **_windows(a)})

    return make


def _spatial(a: Call, *names: str, rank: int) -> list[int] | None:
    """Sizes of windows, which TensorFlow may give for all axes of the batch."""
    given = a.get(*names)
    if given is None:
        return None
    sizes = a.whole(given)
    if len(sizes) == rank + 2:
        if _windows(a)["data_format"] == "channels_first" or (sizes[0], sizes[-1]) != (1, 1):
            raise UnsupportedError(f"{names[-1]} {sizes} is not supported")
        sizes = sizes[1:-1]
    return sizes * rank if len(sizes) == 1 else sizes


def _windows(a: Call) -> dict[str, str]:
    padding, layout = a.get("padding", default="valid"), str(a.get("data_format", default="channels_last"))
    if not isinstance(padding, str) or padding.lower() not in ("valid", "same"):
        raise UnsupportedError(f"padding {padding!r:.40} is not supported; there are 'valid' and 'same'")
    first = layout.startswith("NC") or layout == "channels_first"
    return {"padding": padding.lower(), "data_format": "channels_first" if first else "channels_last"}


def _conv(a: Call) -> Value:
    kernel = a.get("kernel", "filters", "filter", at=1)
    if isinstance(kernel, Value):
        raise UnsupportedError("a convolution with a tensor of the model is not supported")
    weight, rank = constant(kernel), len(a.value().shape) - 1
    if rank not in (1, 2, 3) or weight.ndim != rank + 2:
        raise UnsupportedError(f"a convolution of samples {a.value().shape} is not supported")
    stride = _spatial(a, "strides", rank=rank) or [1] * rank
    dilation = _spatial(a, "dilation_rate", "dilations", rank=rank) or [1] * rank
    channels = a.b.shape(a.value())[0 if _windows(a)["data_format"] == "channels_first" else -1]
    groups = (channels or weight.shape[-2]) // weight.shape[-2]
    c = {"strides": stride, "dilation_rate": dilation, "groups": groups, "use_bias": False, **_windows(a)}
    return a.layer(f"Conv{rank}D", c, weight)


def _normalize(kind: str) -> Function:
    def make(a: Call) -> Value:
        if a.get("order", default=2) != 2:
            raise UnsupportedError(f"normalization of order {a.get('order')!r:.40} is not supported")
        tf = kind == "tf"
        eps = _number(a, "epsilon", default=1e-12 if tf else 1e-7)
        axes = tuple(a.b.at(a.value(), n) for n in a.axes(a.get("axis", at=1, default=-1)))
        return a.b.add(a.name, L.UnitNorm(float(np.sqrt(eps)) if tf else eps, axes), a.value())

    return make


def _resize(a: Call) -> Value:
    method = a.get("interpolation", "method", default="bilinear")
    more = ("antialias", "crop_to_aspect_ratio", "preserve_aspect_ratio", "pad_to_aspect_ratio")
    if method != "nearest" or any(a.get(option) for option in more):
        raise UnsupportedError(f"interpolation {method!r:.40} is not supported; there is 'nearest'")
    t, size = a.sized(), a.whole(a.get("size", at=1))
    if len(t.shape) != 3 or len(size) != 2 or any(s < n or s % n for s, n in zip(size, t.shape)):
        raise UnsupportedError(f"resizing of {t.shape} to {size}, not by whole factors, is not supported")
    return a.layer("UpSampling2D", {"size": [s // n for s, n in zip(size, t.shape)]})


# ---------------------------------------------------------------- moves


def _reshape(a: Call) -> Value:
    shape = a.get("newshape", "shape", at=1)
    shape = shape if isinstance(shape, list) else [shape]
    t = a.plain()
    if len(shape) == 1 or any(n is None for n in shape[1:]):
        raise UnsupportedError(f"a reshape of a batch to {shape} is not supported")
    return a.b.batch_reshape(a.name, t, [-1 if shape[0] is None else shape[0], *a.whole(shape[1:])])


def _transpose(a: Call) -> Value:
    t = a.plain()
    return a.b.permute(a.name, t, a.get("axes", "perm", at=1, default=list(range(len(t.shape) + 1))[::-1]))


def _moved(a: Call) -> Value:
    source, target = (a.axes(a.get(n, at=k)) for k, n in ((1, "source"), (2, "destination")))
    order = [n for n in range(len(a.value().shape) + 1) if n not in source]
    for to, at in sorted(zip(target, source)):
        order.insert(to, at)
    return a.b.permute(a.name, a.plain(), order)


def _swapped(a: Call) -> Value:
    one, two = a.axes([a.get("axis1", at=1), a.get("axis2", at=2)])
    order = list(range(len(a.value().shape) + 1))
    order[one], order[two] = two, one
    return a.b.permute(a.name, a.plain(), order)


def _expand_dims(a: Call) -> Value:
    axes, t = a.whole(a.get("axis", at=1)), a.plain()
    rank = len(t.shape) + 1 + len(axes)
    if any(n % rank == 0 for n in axes):
        raise UnsupportedError("an axis before the batch is not supported")
    shape = list(t.shape)
    for at in sorted(n % rank for n in axes):
        shape.insert(at - 1, 1)
    if sum(n is None for n in shape) > 1:
        a.b.sizes(t)
    return a.b.reshape(a.name, t, [-1 if n is None else n for n in shape])


def _squeeze(a: Call) -> Value:
    t, axis = a.sized(), a.get("axis", "squeeze_dims", at=1)
    if axis is not None and any(t.shape[n - 1] != 1 for n in a.axes(axis)):
        raise UnsupportedError(f"axis {axis} of samples {t.shape} is not of size 1")
    return a.b.squeeze(a.name, t, None if axis in (None, []) else a.axes(axis))


def _concat(a: Call) -> Value:
    given = a.values()
    axis = a.get("axis", at=1, default=0)
    (at,) = Call(a.b, a.name, [given[0]], {}).axes(axis)
    if len(given) == 1:
        return given[0]
    return BUILDERS["Concatenate"](a.b, a.name, {"axis": at}, given, [])


def _stack(a: Call) -> Value:
    given = [a.b.laid(t, False) for t in a.values()]
    rank, axis = len(given[0].shape) + 2, a.whole(a.get("axis", at=1, default=0))[0]
    if axis % rank == 0:
        raise UnsupportedError("works along the batch axis, which would mix samples")
    each = [_expand_dims(Call(a.b, f"{a.name}/{n}", [t], {"axis": axis % rank})) for n, t in enumerate(given)]
    return a.b.join(a.name, each, axis % rank - 1)


def _split(a: Call) -> list[Value]:
    t, (axis,) = a.sized(), a.axes(a.get("axis", at=2, default=0))
    how, size = a.get("indices_or_sections", "num_or_size_splits", at=1), t.shape[axis - 1]
    if isinstance(how, int):
        if how < 1 or size % how:
            raise UnsupportedError(f"a split of {size} into {how} equal parts is not supported")
        sizes = [size // how] * how
    elif "num_or_size_splits" in a.options:
        sizes = a.whole(how)
        if sizes.count(-1) == 1:
            sizes[sizes.index(-1)] = size - sum(sizes) - 1
    else:
        sizes = np.diff([0, *a.whole(how), size]).tolist()
    if sum(sizes) != size or min(sizes, default=0) < 1:
        raise UnsupportedError(f"a split of {size} into {how} is not supported")
    return a.b.parts(a.name, t, axis - 1, sizes)


def _unstack(a: Call) -> list[Value]:
    t, (axis,) = a.sized(), a.axes(a.get("axis", at=2, default=0))
    return [a.b.select(f"{a.name}/{n}", t, axis - 1, n) for n in range(t.shape[axis - 1])]


def _pad(a: Call) -> Value:
    mode = str(a.get("mode", at=2, default="constant")).lower()
    value = a.get("constant_values", at=3, default=0)
    pairs = a.get("pad_width", "paddings", at=1)
    t = a.value()
    pairs = [pairs] * (len(t.shape) + 1) if isinstance(pairs, int) else pairs
    pairs = [[p, p] if isinstance(p, int) else a.whole(p) for p in pairs]
    pairs = pairs * (len(t.shape) + 1) if len(pairs) == 1 else pairs
    if mode not in ("constant", *MODES) or constant(value).any():
        with_what = f"of mode {mode!r}" if mode != "constant" else f"with {value!r:.40}"
        raise UnsupportedError(f"padding {with_what} is not supported, only with 0 or by {', '.join(MODES)}")
    if len(pairs) != len(t.shape) + 1 or any(len(p) != 2 for p in pairs) or any(pairs[0]):
        raise UnsupportedError(f"padding of {pairs} is not supported")
    if a.b.swapped(t):
        pairs = [pairs[0], pairs[-1], *pairs[1:-1]]
    around = tuple(tuple(p) for p in pairs[1:])
    layer = L.ZeroPadding(around) if mode == "constant" else L.CopyPadding(around, mode)
    return a.b.add(a.name, layer, t)


def _flip(a: Call) -> Value:
    t, axes = a.value(), a.get("axis", at=1)
    if axes is None:
        raise UnsupportedError("it turns the whole batch around, which would mix samples")
    at = [a.b.at(t, n) for n in a.axes(axes)]
    a.b.sizes(t)
    return a.b.turned(a.name, t, at)


def _take(a: Call) -> Value:
    index, axis = a.get("indices", at=1), a.get("axis", at=2)
    if axis is None or isinstance(index, Value) or a.get("batch_dims", default=0):
        raise UnsupportedError("taking entries of the whole batch, or by a tensor, is not supported")
    t, (at,) = a.sized(), a.axes(axis)
    if isinstance(index, int):
        return a.b.select(a.name, t, at - 1, index)
    return a.b.gather(a.name, t, at - 1, a.whole(index))


def _tile(a: Call) -> Value:
    times, t = a.whole(a.get("repeats", "multiples", at=1)), a.plain()
    times = [1] * (len(t.shape) + 1 - len(times)) + times
    if len(times) != len(t.shape) + 1 or times[0] != 1 or min(times) < 1 or max(times) > 64:
        raise UnsupportedError(f"tiles {times} are not supported")
    return a.b.repeated(a.name, t, times[1:])


def _repeat(a: Call) -> Value:
    times, axis, t = a.get("repeats", at=1), a.get("axis", at=2), a.plain()
    if not isinstance(times, int) or axis is None or times < 1:
        raise UnsupportedError("repeating is supported with one number and one axis")
    size = [1] * len(t.shape)
    size[a.axes(axis)[0] - 1] = times
    return a.b.add(a.name, L.UpSampling(tuple(size)), t)


def _broadcast(a: Call) -> Value:
    shape = a.get("shape", at=1)
    return a.b.expand(a.name, a.sized(), a.whole(shape[1:]))


def _depth_to_space(a: Call) -> Value:
    t, r = a.sized(), a.whole(a.get("block_size", at=1))[0]
    h, w, c = t.shape
    cut = a.b.reshape(f"{a.name}/cut", t, (h, w, r, r, c // r**2))
    moved = a.b.permute(f"{a.name}/move", cut, (0, 1, 3, 2, 4, 5))
    return a.b.reshape(a.name, moved, (h * r, w * r, c // r**2))


def _space_to_depth(a: Call) -> Value:
    t, r = a.sized(), a.whole(a.get("block_size", at=1))[0]
    h, w, c = t.shape
    cut = a.b.reshape(f"{a.name}/cut", t, (h // r, r, w // r, r, c))
    moved = a.b.permute(f"{a.name}/move", cut, (0, 1, 3, 2, 4, 5))
    return a.b.reshape(a.name, moved, (h // r, w // r, c * r**2))


def _part(a: Call) -> Value:
    """``x[:, start:stop:step, index, ..., None]``."""
    key = a.get("slice_spec", "key", at=1)
    spec = [_cut(s) for s in (key if isinstance(key, list) else [key])]
    t = a.value()
    taken = sum(s is not None and s != "..." for s in spec)
    if taken > len(t.shape) + 1 or spec.count("...") > 1:
        raise UnsupportedError(f"{taken} indices of samples with {len(t.shape)} axes are not supported")
    rest = [(None, None, None)] * (len(t.shape) + 1 - taken)
    at = spec.index("...") if "..." in spec else len(spec)
    spec = [*spec[:at], *rest, *spec[at + 1 :]]
    if spec[0] not in ((None, None, None), (0, None, None), (None, None, 1), (0, None, 1)):
        raise UnsupportedError("a slice of the batch is not supported")
    return _shaped(a, spec[1:])


def _shaped(a: Call, spec: Sequence[Any]) -> Value:
    """Cut the sample, and leave out axes with an index, and put in those of size 1."""
    t, moves = a.value(), any(not isinstance(s, tuple) for s in spec)
    t = a.b.laid(t, False) if moves else t
    start, step = [0] * len(t.shape), [1] * len(t.shape)
    stop: list[Any] = [None] * len(t.shape)
    turned = []
    for n, s in enumerate((s for s in spec if s is not None), 1):
        at = a.b.at(t, n)
        first, last, every = (s, s + 1 or None, 1) if isinstance(s, int) else s
        if every is not None and every < 0:
            turned.append((at, slice(first, last, every)))
        else:
            start[at], stop[at], step[at] = first or 0, last, 1 if every is None else every
    if any(n is not None and n == 0 for n in step):
        raise UnsupportedError("a slice with step 0 is not supported")
    name = f"{a.name}/part" if moves or turned else a.name
    if any(start) or any(n is not None for n in stop) or max(step) > 1:
        t = a.b.add(name, L.Slice(tuple(start), tuple(stop), tuple(step)), t)
    for at, cut in turned:
        t = a.b.gather(f"{a.name}/turned", t, at, range(a.b.sizes(t)[at])[cut])
    if not moves:
        return t
    sizes, shape = iter(t.shape), []
    for s in spec:
        size = 1 if s is None else next(sizes)
        if not isinstance(s, int):
            shape.append(size)
    if None not in shape:
        return a.b.reshape(a.name, t, shape)
    if len(shape) != 1:
        a.b.sizes(t)
    return a.b.add(a.name, L.Flatten(), t)


def _cut(spec: Any) -> Any:
    """An index, (start, stop, step) of a slice, "..." or None, as Keras 3 or 2 writes it."""
    if spec is None or (isinstance(spec, int) and not isinstance(spec, bool)):
        return spec
    if isinstance(spec, dict) and spec.get("class_name") == "__ellipsis__":
        return "..."
    c = spec.get("config", spec) if isinstance(spec, dict) else {}
    ends = tuple(c.get(k) for k in ("start", "stop", "step"))
    known = "start" in c and all(v is None or isinstance(v, int) for v in ends)
    if not known:
        raise UnsupportedError(f"the index {spec!r:.60} is not supported, only integers and slices")
    return ends


def _same(a: Call) -> Value:
    return a.value()


def _names(make: Function, *names: str) -> dict[str, Function]:
    return dict.fromkeys(names, make)


def _ranks(name: str) -> tuple[str, ...]:
    return name, *(f"{name}{rank}d" for rank in (1, 2, 3))


OPERATIONS: dict[str, Function] = {
    **_names(_pointwise(lambda a: L.ReLU()), "Relu", "nn.relu"),
    **_names(_pointwise(lambda a: L.ReLU(max_value=6.0)), "Relu6", "nn.relu6"),
    **_names(
        _pointwise(lambda a: L.LeakyReLU(_number(a, "negative_slope", "alpha", at=1, default=0.2))),
        "LeakyRelu",
        "nn.leaky_relu",
    ),
    **_names(_pointwise(lambda a: L.ELU(_number(a, "alpha", default=1.0))), "Elu", "nn.elu"),
    **_names(_pointwise(lambda a: L.SELU()), "Selu", "nn.selu"),
    **_names(_pointwise(lambda a: L.CELU(_number(a, "alpha", default=1.0))), "Celu"),
    **_names(_pointwise(lambda a: L.GELU(bool(a.get("approximate", at=1)))), "Gelu", "nn.gelu"),
    **_names(_pointwise(_silu), "Silu", "nn.silu", "nn.swish"),
    **_names(_pointwise(lambda a: L.Mish()), "Mish"),
    **_names(_pointwise(lambda a: L.Sigmoid()), "Sigmoid", "math.sigmoid", "sigmoid", "nn.sigmoid"),
    **_names(_pointwise(lambda a: L.Tanh()), "Tanh", "math.tanh", "tanh", "nn.tanh"),
    **_names(_pointwise(lambda a: L.Softplus()), "Softplus", "math.softplus", "nn.softplus"),
    **_names(_pointwise(lambda a: L.HardSigmoid()), "HardSigmoid"),
    **_names(_pointwise(lambda a: L.HardSwish()), "HardSilu", "HardSwish"),
    **_names(_pointwise(lambda a: L.LeakyReLU(-1.0)), "Absolute", "Abs", "math.abs", "abs"),
    **_names(_softmax(L.Softmax), "Softmax", "nn.softmax"),
    **_names(_softmax(L.LogSoftmax), "LogSoftmax", "nn.log_softmax"),
    **_names(_pointwise(_clip), "Clip", "clip_by_value"),
    **_names(_not_equal, "NotEqual", "math.not_equal", "not_equal"),
    **_names(_any, "Any", "reduce_any"),
    **_names(_masks(L.Maximum), "LogicalOr", "math.logical_or"),
    **_names(_masks(L.Minimum), "LogicalAnd", "math.logical_and"),
    **_names(_power, "Power", "math.pow", "pow", "Square", "math.square", "square", "__operators__.pow"),
    **_names(_cast, "Cast", "cast"),
    **_names(_same, "Identity", "identity", "StopGradient", "stop_gradient", "Copy", "convert_to_tensor"),
    **_names(_two("Add"), "Add", "math.add", "add", "__operators__.add"),
    **_names(_two("Subtract"), "Subtract", "math.subtract", "subtract", "__operators__.sub"),
    **_names(_two("Multiply"), "Multiply", "math.multiply", "multiply", "__operators__.mul"),
    **_names(
        _two("Divide"),
        "TrueDivide",
        "Divide",
        "math.truediv",
        "math.divide",
        "divide",
        "__operators__.truediv",
    ),
    **_names(_two("Maximum"), "Maximum", "math.maximum", "maximum"),
    **_names(_two("Minimum"), "Minimum", "math.minimum", "minimum"),
    **_names(lambda a: a.b.scaled(a.name, a.value(), -1.0, 0.0), "Negative", "math.negative", "negative"),
    **_names(_sum_of, "math.add_n", "add_n"),
    **_names(_bias_add, "nn.bias_add"),
    **_names(_matmul, "Matmul", "Dot", "linalg.matmul", "matmul"),
    **_names(_reduced(L.GlobalAveragePool), "Mean", "math.reduce_mean", "reduce_mean"),
    **_names(_reduced(L.GlobalSumPool), "Sum", "math.reduce_sum", "reduce_sum"),
    **_names(_reduced(L.GlobalMaxPool), "Max", "Amax", "math.reduce_max", "reduce_max"),
    **_names(_pool("MaxPooling"), "MaxPool", *_ranks("nn.max_pool")),
    **_names(_pool("AveragePooling"), "AveragePool", *_ranks("nn.avg_pool")),
    **_names(_conv, "Conv", *_ranks("nn.conv"), "nn.convolution"),
    **_names(_normalize("keras"), "Normalize"),
    **_names(_normalize("tf"), "math.l2_normalize", "nn.l2_normalize", "linalg.l2_normalize"),
    **_names(_resize, "Resize", "image.resize"),
    **_names(_reshape, "Reshape", "reshape"),
    **_names(_transpose, "Transpose", "transpose"),
    **_names(_moved, "Moveaxis"),
    **_names(_swapped, "Swapaxes"),
    **_names(_expand_dims, "ExpandDims", "expand_dims"),
    **_names(_squeeze, "Squeeze", "squeeze"),
    **_names(_concat, "Concatenate", "concat"),
    **_names(_stack, "Stack", "stack"),
    **_names(_split, "Split", "split"),
    **_names(_unstack, "Unstack", "unstack"),
    **_names(_pad, "Pad", "pad"),
    **_names(_flip, "Flip", "reverse"),
    **_names(_take, "Take", "gather"),
    **_names(_tile, "Tile", "tile"),
    **_names(_repeat, "Repeat", "repeat"),
    **_names(_broadcast, "BroadcastTo", "broadcast_to"),
    **_names(_depth_to_space, "nn.depth_to_space"),
    **_names(_space_to_depth, "nn.space_to_depth"),
    **_names(_part, "GetItem", "__operators__.getitem"),
}
"""What is understood, by the names of Keras 3 and of TensorFlow."""
