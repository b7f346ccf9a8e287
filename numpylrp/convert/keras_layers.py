"""Keras layers as ours: for each class a function of its configuration, inputs and variables.

Inside, images are channels first. The builder knows which tensors are `swapped`: channels first here where
Keras has them last. Layers that look at single values take tensors as they come; convolutions and
pooling ask for swapped ones, flattening and dense layers for Keras' own layout, and only there a
transpose stands.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from .. import layers as L
from ..errors import FileError, UnsupportedError
from ..export.graph import Graph, Value
from . import keras_sequences
from .keras_refused import BEFORE, OWN, called, why_not

Config = dict[str, Any]
Arrays = list[np.ndarray]


class Builder(Graph):
    """Collects layers; gives tensors in the layout that is asked for."""

    def __init__(self, inputs: dict[str, tuple], keras: int, theano: bool = False) -> None:
        super().__init__(inputs)
        self.keras, self.theano = keras, theano
        self.masks: dict[str, Value] = {}
        self.implicit = True
        """Whether masks go along with tensors (else a layer is called with them)."""
        self._swapped: set[str] = set()
        self._other: dict[str, Value] = {}

    def add(self, name: str, layer: L.Layer, *inputs: Value, swapped: bool | None = None) -> Value:
        """One more layer, under this name or one like it, and its output, laid out as its first input."""
        free, n = name, 1
        while free in self._by_name or free in self.inputs:
            n += 1
            free = f"{name}_{n}"
        made = Value(free, layer.output_shape(*(v.shape for v in inputs)))
        self.layers.append((free, layer, tuple(v.name for v in inputs)))
        self._by_name[free] = layer, inputs
        if len(made.shape) > 1 and (self.swapped(inputs[0]) if swapped is None else swapped):
            self._swapped.add(free)
        return made

    def swapped(self, t: Value) -> bool:
        """Whether the tensor has its channels first here, and last in Keras."""
        return t.name in self._swapped

    def laid(self, t: Value, swapped: bool) -> Value:
        """The tensor with its channels first (swapped) or as Keras has it."""
        rank = len(t.shape)
        if self.swapped(t) == swapped or rank < 2:
            return t
        if t.name not in self._other:
            axes = (rank - 1, *range(rank - 1)) if swapped else (*range(1, rank), 0)
            name = f"{t.name}/channels_{'first' if swapped else 'last'}"
            made = self.add(name, L.Transpose(axes), t, swapped=swapped)
            self._other[t.name], self._other[made.name] = made, t
        return self._other[t.name]

    def reshape(self, name: str, v: Value, shape: Sequence[int]) -> Value:
        """The sample, in Keras' layout, in another shape; sizes may be free."""
        v = self.laid(v, False)
        if None not in v.shape:
            return super().reshape(name, v, shape)
        if len(shape) == 1:
            return self.add(name, L.Flatten(), v)
        return self.add(name, L.Reshape(tuple(shape)), v)

    def batch_reshape(self, name: str, v: Value, shape: Sequence[int]) -> Value:
        """Likewise with the batch as the first entry, which must stay what it is."""
        if shape[0] == -1 and -1 in shape[1:]:
            raise UnsupportedError(f"the shape {tuple(shape)} leaves two sizes open")
        return self.reshape(name, v, shape[1:])

    def shape(self, t: Value) -> tuple[Any, ...]:
        """The shape of a sample as Keras has it."""
        return (*t.shape[1:], t.shape[0]) if self.swapped(t) else t.shape

    def at(self, t: Value, axis: int) -> int:
        """A Keras axis (the batch is 0) as an axis of our sample."""
        rank = len(t.shape)
        if not isinstance(axis, int) or isinstance(axis, bool):
            raise UnsupportedError(f"axis {axis!r:.40} is no integer")
        at = axis - 1 if axis > 0 else rank + axis
        if not 0 <= at < rank or axis == 0:
            raise UnsupportedError(f"axis {axis} is none of a sample's {rank} axes")
        return at if not self.swapped(t) else 0 if at == rank - 1 else at + 1

    def sizes(self, t: Value) -> tuple[int, ...]:
        """The shape of a sample, where the model says all of it."""
        if None in t.shape:
            raise UnsupportedError(f"it needs the size of its input, which the model leaves open: {t.shape}")
        return t.shape

    def signal(self, factors: Sequence[Value]) -> int | None:
        """Which of two factors takes the relevance: the one that is no gate, if the other one is."""
        return self._signal(*factors)

    def scaled(self, name: str, t: Value, scale: Any, shift: Any) -> Value:
        """``scale * t + shift`` with constants that broadcast to a batch in Keras' layout."""
        arrays, rank = [np.asarray(a, np.float64) for a in (scale, shift)], len(t.shape)
        shape = np.broadcast_shapes(*(a.shape for a in arrays))
        if len(shape) > rank + 1 or (len(shape) == rank + 1 and shape[0] != 1):
            raise UnsupportedError(f"a constant of shape {shape} is not supported with samples {t.shape}")
        shape = shape[1:] if len(shape) > rank else shape
        along = [n for n, size in enumerate(shape) if size > 1]
        if len(along) < 2:
            at = self.at(t, along[0] - len(shape)) if along else 0
            factor, offset = (a.reshape(-1) for a in arrays)
            return self.add(name, L.Affine(factor, offset, at), t)
        t = self.laid(t, False)
        full = (1,) * (rank - len(shape)) + shape
        if any(a not in (1, n) for a, n in zip(full, self.sizes(t))):
            raise UnsupportedError(f"a constant of shape {shape} is not supported with samples {t.shape}")
        flat = self.reshape(f"{name}/row", t, (-1,))
        factor, offset = (np.broadcast_to(a.reshape(a.shape[-rank:]), t.shape).reshape(-1) for a in arrays)
        return self.reshape(f"{name}/shape", self.add(name, L.Affine(factor, offset), flat), t.shape)


def constant(value: Any) -> np.ndarray:
    """A number, or an array as Keras writes it."""
    try:
        array = np.asarray(value, np.float64)
    except (TypeError, ValueError):
        raise UnsupportedError(f"the constant {value!r:.60} is not supported, only numbers") from None
    if not np.isfinite(array).all():
        raise UnsupportedError("a constant that is not finite is not supported")
    return array


def plain(value: Any) -> Any:
    """A configuration with arrays and tuples as lists, in whichever words Keras wrote them."""
    if isinstance(value, list):
        return [plain(v) for v in value]
    if not isinstance(value, dict):
        return value
    kind, c = value.get("class_name"), value.get("config")
    if kind in ("__numpy__", "__tensor__") and isinstance(c, dict) and "value" in c:
        return plain(c["value"])
    if kind in ("__tuple__", "TensorShape", "__set__") and "items" in value:
        return plain(value["items"])
    if value.get("type") == "ndarray" and "value" in value:
        return plain(value["value"])
    return {k: plain(v) for k, v in value.items()}


def _images(b: Builder, t: Value, c: Config) -> Value:
    """The tensor with channels first, by whichever way."""
    return b.laid(t, c.get("data_format", "channels_last") != "channels_first")


def _pair(value: Any, rank: int) -> tuple[int, ...]:
    return (value,) * rank if isinstance(value, int) else tuple(value)


ACTIVATION_LAYERS = ("ReLU", "LeakyReLU", "ELU", "Softmax", "Activation")
"""Classes of layers that may stand where the name of an activation does."""


def activation(b: Builder, name: str, what: Any, t: Value) -> Value:
    """An activation by its Keras name."""
    if isinstance(what, dict):
        own, config = what.get("class_name"), what.get("config")
        refused = called(str(own), what, config)
        if refused:
            raise UnsupportedError(f"the activation {refused}")
        if own in ACTIVATION_LAYERS and isinstance(config, dict):
            return BUILDERS[own](b, name, config, [t], [])
        if isinstance(config, dict) and set(config) - {"name", "trainable", "dtype"}:
            raise UnsupportedError(f"activation {own!r} with options of its own is not supported")
        what = config if own == "function" else own
    key = str(what).lower().replace("_", "") if what is not None else "linear"
    hard = L.HardSigmoid(0.2) if b.keras < 3 else L.HardSigmoid()
    known: dict[str, Callable[[], L.Layer | None]] = {
        "linear": lambda: None,
        "relu": L.ReLU,
        "relu6": lambda: L.ReLU(max_value=6.0),
        "leakyrelu": lambda: L.LeakyReLU(0.2),
        "elu": L.ELU,
        "celu": L.CELU,
        "selu": L.SELU,
        "gelu": L.GELU,
        "mish": L.Mish,
        "silu": L.SiLU,
        "swish": L.SiLU,
        "sigmoid": L.Sigmoid,
        "tanh": L.Tanh,
        "softplus": L.Softplus,
        "hardsigmoid": lambda: hard,
        "hardtanh": lambda: L.Clip(-1.0, 1.0),
        "hardswish": L.HardSwish,
        "hardsilu": L.HardSwish,
        "softmax": lambda: L.Softmax(b.at(t, -1)),
        "logsoftmax": lambda: L.LogSoftmax(b.at(t, -1)),
    }
    if key not in known:
        own_name = f"activation {what!r:.80}"
        if ">" in str(what):
            raise UnsupportedError(f"{own_name} is a function of its own: {OWN}")
        raise UnsupportedError(f"{own_name} is not supported: {BEFORE}")
    layer = known[key]()
    return t if layer is None else b.add(name, layer, t)


def _then(b: Builder, name: str, c: Config, t: Value) -> Value:
    """The activation that a layer was given as an argument."""
    return activation(b, f"{name}/activation", c.get("activation"), t)


def _said(c: dict, given: dict[str, Any]) -> None:
    """What the configuration says of a layer's weights is to be what they are."""
    for key, value in given.items():
        if c.get(key) is not None and c[key] != value and list(np.ravel(c[key])) != list(np.ravel(value)):
            raise FileError(f"the configuration has {key} {c[key]}, but the weights {value}")


def _dense(b: Builder, name: str, c: Config, x: list[Value], v: Arrays) -> Value:
    _said(c, {"units": v[0].shape[-1]})
    t = b.add(name, L.Dense(v[0].T, v[1] if c.get("use_bias", True) else None), b.laid(x[0], False))
    return _then(b, name, c, t)


def _conv(rank: int, transposed: bool = False, depthwise: bool = False):
    kind = L.Conv2DTranspose if transposed else (L.Conv1D, L.Conv2D, L.Conv3D)[rank - 1]

    def build(b: Builder, name: str, c: Config, x: list[Value], v: Arrays) -> Value:
        t, w = _images(b, x[0], c), v[0]
        padding, stride = c.get("padding", "valid"), _pair(c.get("strides", 1), rank)
        dilation, groups = _pair(c.get("dilation_rate", 1), rank), c.get("groups") or 1
        if c.get("kernel_size") is not None:
            _said({"kernel_size": list(_pair(c["kernel_size"], rank))}, {"kernel_size": list(w.shape[:rank])})
        if not depthwise:
            _said(c, {"filters": w.shape[rank if transposed else rank + 1]})
        if depthwise:
            groups = w.shape[rank]
            w = w.transpose(rank, rank + 1, *range(rank)).reshape(-1, 1, *w.shape[:rank])
        else:
            w = w.transpose(rank + 1, rank, *range(rank))
        options: dict[str, Any] = {}
        if padding == "causal":
            padding = ((dilation[0] * (w.shape[2] - 1), 0),)
        if transposed and padding == "valid":
            more = c.get("output_padding")
            options["output_padding"] = (
                tuple(max(s - k, 0) for s, k in zip(stride, w.shape[2:]))
                if more is None
                else _pair(more, rank)
            )
        elif transposed and c.get("output_padding") is not None:
            raise UnsupportedError("output_padding with padding 'same' is not supported")
        bias = v[1] if c.get("use_bias", True) else None
        if not (transposed and rank == 1):
            made = b.add(name, kind(w, bias, stride, padding, dilation, groups, **options), t)
            return _then(b, name, c, made)
        # on images of height 1
        image = b.add(f"{name}/image", L.Reshape((len(w), 1, -1)), t)
        options = {str(k): (0, *o) for k, o in options.items()}
        layer = kind(w[:, :, None], bias, (1, *stride), padding, (1, *dilation), groups, **options)
        made = b.add(name, layer, image)
        made = b.add(f"{name}/row", L.Reshape((w.shape[1] * groups, -1)), made)
        return _then(b, name, c, made)

    return build


def _separable(rank: int):
    def build(b: Builder, name: str, c: Config, x: list[Value], v: Arrays) -> Value:
        plain = {
            k: c[k] for k in ("kernel_size", "strides", "padding", "dilation_rate", "data_format") if k in c
        }
        t = _conv(rank, depthwise=True)(b, f"{name}/depthwise", {**plain, "use_bias": False}, x, v[:1])  # type: ignore[misc]
        point = {**c, "kernel_size": 1, "strides": 1, "dilation_rate": 1, "padding": "valid"}
        return _conv(rank)(b, name, point, [t], v[1:])

    return build


def _pool(kind: Any):
    def build(b: Builder, name: str, c: Config, x: list[Value], v: Arrays) -> Value:
        size = _pair(c["pool_size"], kind.rank)
        stride = size if c.get("strides") is None else _pair(c["strides"], kind.rank)
        return b.add(name, kind(size, stride, c.get("padding", "valid")), _images(b, x[0], c))

    return build


def _global_pool(kind: type):
    def build(b: Builder, name: str, c: Config, x: list[Value], v: Arrays) -> Value:
        keep = bool(c.get("keepdims", c.get("keep_dims", False)))
        t = _images(b, x[0], c)
        return b.add(name, kind(keep), t)

    return build


def _batch_norm(b: Builder, name: str, c: Config, x: list[Value], v: Arrays) -> Value:
    t, left = x[0], list(v)
    at = c.get("axis", -1)
    at = at[0] if isinstance(at, (list, tuple)) else at
    if c.get("renorm"):
        raise UnsupportedError("batch renormalization is not supported")
    gamma = left.pop(0) if c.get("scale", True) else None
    beta = left.pop(0) if c.get("center", True) else None
    return b.add(name, L.BatchNorm(gamma, beta, *left[:2], float(c.get("epsilon", 1e-3)), b.at(t, at)), t)  # type: ignore[arg-type, call-arg]


def _layer_norm(b: Builder, name: str, c: Config, x: list[Value], v: Arrays) -> Value:
    if c.get("rms_scaling"):
        raise UnsupportedError("rms_scaling is not supported")
    t, left = b.laid(x[0], False), list(v)
    at = c.get("axis", -1)
    axes = tuple(b.at(t, a) for a in (at if isinstance(at, (list, tuple)) else [at]))
    gamma = left.pop(0) if c.get("scale", True) else None
    beta = left.pop(0) if c.get("center", True) else None
    return b.add(name, L.LayerNorm(gamma, beta, float(c.get("epsilon", 1e-3)), axes), t)


def _rms_norm(b: Builder, name: str, c: Config, x: list[Value], v: Arrays) -> Value:
    t = b.laid(x[0], False)
    axes = tuple(b.at(t, a) for a in np.ravel(c.get("axis", -1)).tolist())
    return b.add(name, L.RMSNorm(v[0], float(c.get("epsilon", 1e-6)), axes), t)


def _group_norm(b: Builder, name: str, c: Config, x: list[Value], v: Arrays) -> Value:
    if c.get("axis", -1) != -1:
        raise UnsupportedError("group normalization of another axis than the last is not supported")
    left, groups = list(v), c.get("groups", 32)
    learned: dict[str, Any] = {
        "gamma": left.pop(0) if c.get("scale", True) else None,
        "beta": left.pop(0) if c.get("center", True) else None,
        "eps": float(c.get("epsilon", 1e-3)),
    }
    layer = L.InstanceNorm(**learned) if groups == -1 else L.GroupNorm(groups, **learned)
    return b.add(name, layer, b.laid(x[0], True))


def _unit_norm(b: Builder, name: str, c: Config, x: list[Value], v: Arrays) -> Value:
    at = c.get("axis", -1)
    axes = tuple(b.at(x[0], a) for a in (at if isinstance(at, (list, tuple)) else [at]))
    return b.add(name, L.UnitNorm(1e-6, axes), x[0])


def _rescaling(b: Builder, name: str, c: Config, x: list[Value], v: Arrays) -> Value:
    return b.scaled(name, x[0], constant(c["scale"]), constant(c.get("offset", 0.0)))


def _normalization(b: Builder, name: str, c: Config, x: list[Value], v: Arrays) -> Value:
    at, shape = c.get("axis", -1), (None, *b.shape(x[0]))
    axes = [] if at is None else sorted({a % len(shape) for a in np.ravel(at).tolist()})
    size = [shape[a] for a in axes]
    if None in size:
        raise UnsupportedError(f"normalization of axes {at} of samples {shape[1:]} is not supported")
    given = [constant(c[key]) for key in ("mean", "variance")] if c.get("mean") is not None else v[:2]
    seen = [shape[a] if a in axes else 1 for a in range(1, len(shape))]
    mean, variance = (np.broadcast_to(a.astype(float), size).reshape(seen) for a in given)
    root = np.maximum(np.sqrt(variance), 1e-7)
    scale, shift = (root, mean) if c.get("invert") else (1 / root, -mean / root)
    return b.scaled(name, x[0], scale, shift)


def _pairs(given: Any, rank: int) -> list[tuple[int, int]]:
    """(before, behind) for each axis, from one number, one for each axis, or pairs."""
    pairs = [given] * rank if isinstance(given, int) else list(given)
    pairs = [pairs] if rank == 1 and len(pairs) == 2 else pairs
    return [(p, p) if isinstance(p, int) else tuple(p) for p in pairs]


def _zero_padding(rank: int):
    def build(b: Builder, name: str, c: Config, x: list[Value], v: Arrays) -> Value:
        return b.add(name, L.ZeroPadding(((0, 0), *_pairs(c["padding"], rank))), _images(b, x[0], c))

    return build


def _cropping(rank: int):
    def build(b: Builder, name: str, c: Config, x: list[Value], v: Arrays) -> Value:
        pairs = _pairs(c["cropping"], rank)
        stop = (None, *(-behind or None for _, behind in pairs))
        return b.add(name, L.Slice((0, *(before for before, _ in pairs)), stop), _images(b, x[0], c))

    return build


def _center_crop(b: Builder, name: str, c: Config, x: list[Value], v: Arrays) -> Value:
    t = _images(b, x[0], c)
    given, size = b.sizes(t)[1:], (int(c["height"]), int(c["width"]))
    if len(given) != 2 or any(s > n or s < 1 for s, n in zip(size, given)):
        raise UnsupportedError(f"it enlarges images {given} to {size}, which is not supported")
    start = [(n - s) // 2 for s, n in zip(size, given)]
    return b.add(name, L.Slice((0, *start), (None, *(a + s for a, s in zip(start, size)))), t)


def _up_sampling(rank: int):
    def build(b: Builder, name: str, c: Config, x: list[Value], v: Arrays) -> Value:
        t, size = _images(b, x[0], c), _pair(c["size"], rank)
        method = c.get("interpolation", "nearest")
        if method not in ("nearest", "bilinear"):
            raise UnsupportedError(
                f"interpolation {method!r:.40} is not supported; there are 'nearest' and 'bilinear'"
            )
        if method == "bilinear":
            return b.add(name, L.Interpolation(tuple(n * k for n, k in zip(b.sizes(t)[1:], size))), t)
        return b.add(name, L.UpSampling((1, *size)), t)

    return build


def _flatten(b: Builder, name: str, c: Config, x: list[Value], v: Arrays) -> Value:
    # channels_first models are turned to channels last before Keras flattens them
    first = c.get("data_format") == "channels_first"
    t = b.laid(x[0], first and b.swapped(x[0]))
    if first and not b.swapped(x[0]) and len(t.shape) > 1:
        t = b.add(f"{name}/channels_last", L.Transpose((*range(1, len(t.shape)), 0)), t)
    return b.add(name, L.Flatten(), t, swapped=False)


def _reshape(b: Builder, name: str, c: Config, x: list[Value], v: Arrays) -> Value:
    return b.add(name, L.Reshape(tuple(c["target_shape"])), b.laid(x[0], False))


def _permute(b: Builder, name: str, c: Config, x: list[Value], v: Arrays) -> Value:
    return b.add(name, L.Transpose(tuple(d - 1 for d in c["dims"])), b.laid(x[0], False))


def _repeat(b: Builder, name: str, c: Config, x: list[Value], v: Arrays) -> Value:
    row = b.add(f"{name}/row", L.Reshape((1, -1)), x[0], swapped=False)
    return b.add(name, L.UpSampling((int(c["n"]), 1)), row)


def _time_distributed(b: Builder, name: str, c: Config, x: list[Value], v: Arrays) -> Value:
    """A dense layer works on the last axis by itself."""
    inner = c["layer"]
    refused = called(inner["class_name"], inner, inner["config"])
    if refused:
        raise UnsupportedError(f"its layer {refused}")
    if inner["class_name"] in keras_sequences.LASTS:
        return BUILDERS[inner["class_name"]](b, name, inner["config"], [b.laid(x[0], False)], v)
    return keras_sequences.each_step(b, BUILDERS, name, inner, b.laid(x[0], False), v)


def _same(b: Builder, name: str, c: Config, x: list[Value], v: Arrays) -> Value:
    rate = c.get("rate")
    return b.add(name, L.Dropout(rate) if isinstance(rate, float) else L.Identity(), x[0])


def _activation(b: Builder, name: str, c: Config, x: list[Value], v: Arrays) -> Value:
    t = activation(b, name, c["activation"], x[0])
    return t if t is not x[0] else b.add(name, L.Identity(), t)


def _number(value: Any) -> Any:
    """A number that Keras 2 may have written as an array."""
    while isinstance(value, (list, dict)):
        value = value[0] if isinstance(value, list) else value.get("value", value.get("config"))
    return value


def _relu(b: Builder, name: str, c: Config, x: list[Value], v: Arrays) -> Value:
    top, slope, at = (_number(c.get(k)) for k in ("max_value", "negative_slope", "threshold"))
    return b.add(name, L.ReLU(None if top is None else float(top), float(slope or 0), float(at or 0)), x[0])


def _leaky(b: Builder, name: str, c: Config, x: list[Value], v: Arrays) -> Value:
    slope = _number(c.get("negative_slope", c.get("alpha", 0.3)))
    return b.add(name, L.LeakyReLU(float(slope)), x[0])


def _prelu(b: Builder, name: str, c: Config, x: list[Value], v: Arrays) -> Value:
    slope, t = v[0], x[0]
    if b.swapped(t):
        slope = np.moveaxis(slope, -1, 0)
    return b.add(name, L.PReLU(slope if slope.ndim > 1 or len(t.shape) == 1 else slope.reshape(-1)), t)


def _softmax(b: Builder, name: str, c: Config, x: list[Value], v: Arrays) -> Value:
    at = c.get("axis", -1)
    if isinstance(at, (list, tuple)):
        raise UnsupportedError("a softmax over several axes is not supported")
    return b.add(name, L.Softmax(b.at(x[0], at)), x[0])


def _merge(kind: type) -> Callable[..., Value]:
    def build(b: Builder, name: str, c: Config, x: list[Value], v: Arrays) -> Value:
        return b.add(name, kind(), *_alike(b, name, x))

    return build


def _alike(b: Builder, name: str, x: list[Value]) -> list[Value]:
    """Tensors in one layout; vectors that meet images get axes of size 1 before their own, as in Keras."""
    if len(x) < 2:
        raise UnsupportedError("with a constant, not a tensor of the model, it is not supported")
    most = max(len(t.shape) for t in x)
    x = [
        b.add(f"{name}/axes{n}", L.Reshape((1,) * (most - 1) + (-1,)), t) if len(t.shape) == 1 < most else t
        for n, t in enumerate(x)
    ]
    swapped = any(b.swapped(t) for t in x)
    return [b.laid(t, swapped) for t in x]


def _multiply(b: Builder, name: str, c: Config, x: list[Value], v: Arrays) -> Value:
    """A factor that comes out of a sigmoid is a gate: the signal takes the relevance."""
    x = _alike(b, name, x)
    return b.add(name, L.Multiply(b.signal(x) if len(x) == 2 else None), *x)


def _concatenate(b: Builder, name: str, c: Config, x: list[Value], v: Arrays) -> Value:
    swapped = any(b.swapped(t) for t in x)
    laid = [b.laid(t, swapped) for t in x]
    return b.add(name, L.Concatenate(b.at(laid[0], c.get("axis", -1))), *laid)


def _elu(b: Builder, name: str, c: Config, x: list[Value], v: Arrays) -> Value:
    return b.add(name, L.ELU(float(_number(c.get("alpha", 1.0)))), x[0])


BATCH_NORMS = (
    "BatchNormalization",
    "BatchNormalizationV1",
    "BatchNormalizationV2",
    "SyncBatchNormalization",
)
ONLY_TRAINED = (
    *("Identity", "ActivityRegularization", "Dropout", "AlphaDropout", "GaussianDropout", "GaussianNoise"),
    *("SpatialDropout1D", "SpatialDropout2D", "SpatialDropout3D", "AugMix", "CutMix", "MixUp", "RandAugment"),
    *("RandomBrightness", "RandomColorDegeneration", "RandomColorJitter", "RandomContrast"),
    *("RandomElasticTransform", "RandomErasing", "RandomFlip", "RandomGaussianBlur", "RandomGrayscale"),
    *("RandomHeight", "RandomHue", "RandomInvert", "RandomPerspective", "RandomPosterization"),
    *("RandomRotation", "RandomSaturation", "RandomSharpness", "RandomShear", "RandomTranslation"),
    *("RandomWidth", "RandomZoom"),
)
"""Classes that change nothing once a model is trained (`RandomCrop` does)."""

BUILDERS: dict[str, Callable[..., Value]] = {
    "Dense": _dense,
    "Conv1D": _conv(1),
    "Conv2D": _conv(2),
    "Conv3D": _conv(3),
    "DepthwiseConv1D": _conv(1, depthwise=True),
    "DepthwiseConv2D": _conv(2, depthwise=True),
    "SeparableConv1D": _separable(1),
    "SeparableConv2D": _separable(2),
    "Conv1DTranspose": _conv(1, transposed=True),
    "Conv2DTranspose": _conv(2, transposed=True),
    "MaxPooling1D": _pool(L.MaxPool1D),
    "MaxPooling2D": _pool(L.MaxPool2D),
    "MaxPooling3D": _pool(L.MaxPool3D),
    "AveragePooling1D": _pool(L.AveragePool1D),
    "AveragePooling2D": _pool(L.AveragePool2D),
    "AveragePooling3D": _pool(L.AveragePool3D),
    **{f"GlobalMaxPooling{rank}D": _global_pool(L.GlobalMaxPool) for rank in (1, 2, 3)},
    **{f"GlobalAveragePooling{rank}D": _global_pool(L.GlobalAveragePool) for rank in (1, 2, 3)},
    **dict.fromkeys(BATCH_NORMS, _batch_norm),
    "LayerNormalization": _layer_norm,
    "RMSNormalization": _rms_norm,
    "GroupNormalization": _group_norm,
    "UnitNormalization": _unit_norm,
    "Rescaling": _rescaling,
    "Normalization": _normalization,
    **{f"ZeroPadding{rank}D": _zero_padding(rank) for rank in (1, 2, 3)},
    **{f"Cropping{rank}D": _cropping(rank) for rank in (1, 2, 3)},
    **{f"UpSampling{rank}D": _up_sampling(rank) for rank in (1, 2, 3)},
    "CenterCrop": _center_crop,
    "Flatten": _flatten,
    "Reshape": _reshape,
    "Permute": _permute,
    "RepeatVector": _repeat,
    "TimeDistributed": _time_distributed,
    **dict.fromkeys(ONLY_TRAINED, _same),
    "Activation": _activation,
    "ReLU": _relu,
    "LeakyReLU": _leaky,
    "PReLU": _prelu,
    "ELU": _elu,
    "Softmax": _softmax,
    "Add": _merge(L.Add),
    "Subtract": _merge(L.Subtract),
    "Multiply": _multiply,
    "Average": _merge(L.Average),
    "Maximum": _merge(L.Maximum),
    "Minimum": _merge(L.Minimum),
    "Concatenate": _concatenate,
}
"""The Keras classes that are understood."""

BUILDERS |= keras_sequences.BUILDERS


def variables(kind: str, c: Config) -> list[tuple[str, bool]]:
    """The variables of a layer in Keras' order: their names, and whether they are trained."""
    own = keras_sequences.variables(kind, c)
    if own is not None:
        return own
    bias = [("bias", True)] * bool(c.get("use_bias", True))
    if kind in ("SeparableConv1D", "SeparableConv2D"):
        return [("depthwise_kernel", True), ("pointwise_kernel", True), *bias]
    if kind == "Dense" or (kind in BUILDERS and "Conv" in kind):
        return [("depthwise_kernel" if kind.startswith("Depthwise") else "kernel", True), *bias]
    learned = [(n, True) for n, option in (("gamma", "scale"), ("beta", "center")) if c.get(option, True)]
    if kind in BATCH_NORMS:
        return [*learned, ("moving_mean", False), ("moving_variance", False)]
    if kind in ("LayerNormalization", "GroupNormalization"):
        return learned[:1] if c.get("rms_scaling") else learned
    if kind in ("PReLU", "RMSNormalization"):
        return [("alpha" if kind == "PReLU" else "scale", True)]
    if kind == "TimeDistributed":
        return variables(c["layer"]["class_name"], c["layer"]["config"])
    if kind == "Normalization" and c.get("mean") is None:
        return [("mean", False), ("variance", False), ("count", False)]
    return []


def refuse(name: str, entry: dict) -> None:
    """Raise where a layer has no counterpart here.

    Raises
    ------
    UnsupportedError
        In one sentence, what it is and what to do.
    """
    kind = entry["class_name"]
    why = called(kind, entry, entry["config"]) or (None if kind in BUILDERS else why_not(kind))
    if why is not None:
        raise UnsupportedError(f"layer {name!r} ({kind}) {why}")


def build(b: Builder, kind: str, name: str, c: Config, inputs: list[Value], values: Arrays) -> Value:
    """Add a Keras layer to the builder."""
    wanted = len(variables(kind, c))
    if len(values) != wanted and c.get("lora_rank"):
        raise UnsupportedError("it has LoRA adapters beside its weights: save it as .keras, to merge them")
    if len(values) != wanted:
        raise FileError(f"it must have {wanted} arrays of weights, but the file has {len(values)}")
    if not inputs:
        raise UnsupportedError("it is called with something that is no tensor of the model")
    keras_sequences.without(kind, b, inputs)
    made = BUILDERS[kind](b, name, c, inputs, values)
    keras_sequences.carry(b, kind, inputs, made)
    return made
