"""Keras layers as ours: for each class a function of its configuration, inputs and variables.

Inside, images are channels first. A tensor knows whether it is `swapped`: channels first here where
Keras has them last. Layers that look at single values take tensors as they come; convolutions and
pooling ask for swapped ones, flattening and dense layers for Keras' own layout, and only there a
transpose stands.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from .. import layers as L
from ..errors import FileError, UnsupportedError


class Tensor(NamedTuple):
    """A tensor of the model under construction."""

    name: str
    rank: int
    swapped: bool = False


class Builder:
    """Collects layers; gives tensors in the layout that is asked for."""

    def __init__(self, keras: int, theano: bool = False) -> None:
        self.keras, self.theano = keras, theano
        self.layers: list[tuple] = []
        self._other: dict[Tensor, Tensor] = {}

    def add(
        self, name: str, layer: L.Layer, *inputs: Tensor, rank: int | None = None, swapped: Any = None
    ) -> Tensor:
        """One more layer, and its output."""
        self.layers.append((name, layer, tuple(t.name for t in inputs)))
        first = inputs[0]
        return Tensor(
            name, first.rank if rank is None else rank, first.swapped if swapped is None else swapped
        )

    def laid(self, t: Tensor, swapped: bool) -> Tensor:
        """The tensor with its channels first (swapped) or as Keras has it."""
        if t.swapped == swapped or t.rank < 2:
            return t._replace(swapped=swapped and t.rank > 1)
        if t not in self._other:
            r = t.rank
            axes = (r - 1, *range(r - 1)) if swapped else (*range(1, r), 0)
            name = f"{t.name}/channels_{'first' if swapped else 'last'}"
            made = self.add(name, L.Transpose(axes), t, swapped=swapped)
            self._other[t], self._other[made] = made, t
        return self._other[t]


def axis(t: Tensor, keras_axis: int) -> int:
    """A Keras axis (the batch is 0) as an axis of our sample."""
    at = keras_axis - 1 if keras_axis > 0 else t.rank + keras_axis
    if not 0 <= at < t.rank:
        raise UnsupportedError(f"axis {keras_axis} is none of a sample's {t.rank} axes")
    return at if not t.swapped else 0 if at == t.rank - 1 else at + 1


def _images(b: Builder, t: Tensor, c: dict) -> Tensor:
    """The tensor with channels first, by whichever way."""
    return b.laid(t, c.get("data_format", "channels_last") != "channels_first")


def _pair(value: Any, rank: int) -> tuple[int, ...]:
    return (value,) * rank if isinstance(value, int) else tuple(value)


def activation(b: Builder, name: str, what: Any, t: Tensor) -> Tensor:
    """An activation by its Keras name."""
    if isinstance(what, dict):
        own, config = what.get("class_name"), what.get("config")
        if own in ("ReLU", "LeakyReLU", "ELU", "Softmax", "Activation") and isinstance(config, dict):
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
        "hardswish": L.HardSwish,
        "hardsilu": L.HardSwish,
        "softmax": lambda: L.Softmax(axis(t, -1)),
        "logsoftmax": lambda: L.LogSoftmax(axis(t, -1)),
    }
    if key not in known:
        raise UnsupportedError(f"activation {what!r} is not supported; there are {', '.join(known)}")
    layer = known[key]()
    return t if layer is None else b.add(name, layer, t)


def _then(b: Builder, name: str, c: dict, t: Tensor) -> Tensor:
    """The activation that a layer was given as an argument."""
    return activation(b, f"{name}/activation", c.get("activation"), t)


def _said(c: dict, given: dict[str, Any]) -> None:
    """What the configuration says of a layer's weights is to be what they are."""
    for key, value in given.items():
        if c.get(key) is not None and c[key] != value and list(np.ravel(c[key])) != list(np.ravel(value)):
            raise FileError(f"the configuration has {key} {c[key]}, but the weights {value}")


def _dense(b, name, c, x, v):
    _said(c, {"units": v[0].shape[-1]})
    t = b.add(name, L.Dense(v[0].T, v[1] if c.get("use_bias", True) else None), b.laid(x[0], False))
    return _then(b, name, c, t)


def _conv(rank: int, transposed: bool = False, depthwise: bool = False):
    kind = L.Conv2DTranspose if transposed else L.Conv1D if rank == 1 else L.Conv2D

    def build(b, name, c, x, v):
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
        image = b.add(f"{name}/image", L.Reshape((len(w), 1, -1)), t, rank=3)
        options = {k: (0, *o) for k, o in options.items()}
        made = kind(w[:, :, None], bias, (1, *stride), padding, (1, *dilation), groups, **options)
        made = b.add(name, made, image)
        made = b.add(f"{name}/row", L.Reshape((w.shape[1] * groups, -1)), made, rank=2)
        return _then(b, name, c, made)

    return build


def _separable(rank: int):
    def build(b, name, c, x, v):
        plain = {
            k: c[k] for k in ("kernel_size", "strides", "padding", "dilation_rate", "data_format") if k in c
        }
        t = _conv(rank, depthwise=True)(b, f"{name}/depthwise", {**plain, "use_bias": False}, x, v[:1])
        point = {**c, "kernel_size": 1, "strides": 1, "dilation_rate": 1, "padding": "valid"}
        return _conv(rank)(b, name, point, [t], v[1:])

    return build


def _pool(kind: type):
    def build(b, name, c, x, v):
        size = _pair(c["pool_size"], kind.rank)
        stride = size if c.get("strides") is None else _pair(c["strides"], kind.rank)
        return b.add(name, kind(size, stride, c.get("padding", "valid")), _images(b, x[0], c))

    return build


def _global_pool(kind: type):
    def build(b, name, c, x, v):
        keep = bool(c.get("keepdims", c.get("keep_dims", False)))
        t = _images(b, x[0], c)
        return b.add(name, kind(keep), t, rank=t.rank if keep else 1, swapped=t.swapped and keep)

    return build


def _batch_norm(b, name, c, x, v):
    t, left = x[0], list(v)
    at = c.get("axis", -1)
    at = at[0] if isinstance(at, (list, tuple)) else at
    if c.get("renorm"):
        raise UnsupportedError("batch renormalization is not supported")
    gamma = left.pop(0) if c.get("scale", True) else None
    beta = left.pop(0) if c.get("center", True) else None
    return b.add(name, L.BatchNorm(gamma, beta, *left[:2], float(c.get("epsilon", 1e-3)), axis(t, at)), t)


def _layer_norm(b, name, c, x, v):
    if c.get("rms_scaling"):
        raise UnsupportedError("rms_scaling is not supported")
    t, left = b.laid(x[0], False), list(v)
    at = c.get("axis", -1)
    axes = tuple(axis(t, a) for a in (at if isinstance(at, (list, tuple)) else [at]))
    gamma = left.pop(0) if c.get("scale", True) else None
    beta = left.pop(0) if c.get("center", True) else None
    return b.add(name, L.LayerNorm(gamma, beta, float(c.get("epsilon", 1e-3)), axes), t)


def _rms_norm(b, name, c, x, v):
    t = b.laid(x[0], False)
    axes = tuple(axis(t, a) for a in np.ravel(c.get("axis", -1)).tolist())
    return b.add(name, L.RMSNorm(v[0], float(c.get("epsilon", 1e-6)), axes), t)


def _group_norm(b, name, c, x, v):
    if c.get("axis", -1) != -1:
        raise UnsupportedError("group normalization of another axis than the last is not supported")
    left, groups = list(v), c.get("groups", 32)
    learned = {
        "gamma": left.pop(0) if c.get("scale", True) else None,
        "beta": left.pop(0) if c.get("center", True) else None,
        "eps": float(c.get("epsilon", 1e-3)),
    }
    layer = L.InstanceNorm(**learned) if groups == -1 else L.GroupNorm(groups, **learned)
    return b.add(name, layer, b.laid(x[0], True))


def _unit_norm(b, name, c, x, v):
    at = c.get("axis", -1)
    axes = tuple(axis(x[0], a) for a in (at if isinstance(at, (list, tuple)) else [at]))
    return b.add(name, L.UnitNorm(1e-6, axes), x[0])


def _rescaling(b, name, c, x, v):
    t = x[0]
    return b.add(name, L.Affine(np.ravel(c["scale"]), np.ravel(c.get("offset", 0.0)), axis(t, -1)), t)


def _normalization(b, name, c, x, v):
    at = c.get("axis", -1)
    at = (*at, None)[0] if isinstance(at, (list, tuple)) and len(at) < 2 else at  # none: one for all
    if isinstance(at, (list, tuple)) or c.get("invert"):
        raise UnsupportedError("normalization of several axes, or inverted, is not supported")
    given = [c.get("mean"), c.get("variance")]
    mean, variance = (np.ravel(a).astype(float) for a in (v[:2] if given[0] is None else given))
    scale = 1 / np.maximum(np.sqrt(variance), 1e-7)
    return b.add(name, L.Affine(scale, -mean * scale, axis(x[0], -1 if at is None else at)), x[0])


def _pairs(given: Any, rank: int) -> list[tuple[int, int]]:
    """(before, behind) for each axis, from one number, one for each axis, or pairs."""
    pairs = [given] * rank if isinstance(given, int) else list(given)
    pairs = [pairs] if rank == 1 and len(pairs) == 2 else pairs
    return [(p, p) if isinstance(p, int) else tuple(p) for p in pairs]


def _zero_padding(rank: int):
    def build(b, name, c, x, v):
        return b.add(name, L.ZeroPadding(((0, 0), *_pairs(c["padding"], rank))), _images(b, x[0], c))

    return build


def _cropping(rank: int):
    def build(b, name, c, x, v):
        pairs = _pairs(c["cropping"], rank)
        stop = (None, *(-behind or None for _, behind in pairs))
        return b.add(name, L.Slice((0, *(before for before, _ in pairs)), stop), _images(b, x[0], c))

    return build


def _up_sampling(rank: int):
    def build(b, name, c, x, v):
        if c.get("interpolation", "nearest") != "nearest":
            raise UnsupportedError(
                f"interpolation {c['interpolation']!r} is not supported; there is 'nearest'"
            )
        return b.add(name, L.UpSampling((1, *_pair(c["size"], rank))), _images(b, x[0], c))

    return build


def _flatten(b, name, c, x, v):
    # channels_first models are turned to channels last before Keras flattens them
    t = b.laid(x[0], c.get("data_format") == "channels_first" and x[0].swapped)
    if c.get("data_format") == "channels_first" and not x[0].swapped and t.rank > 1:
        t = b.add(f"{name}/channels_last", L.Transpose((*range(1, t.rank), 0)), t)
    return b.add(name, L.Flatten(), t, rank=1, swapped=False)


def _reshape(b, name, c, x, v):
    shape = tuple(c["target_shape"])
    return b.add(name, L.Reshape(shape), b.laid(x[0], False), rank=len(shape))


def _permute(b, name, c, x, v):
    return b.add(name, L.Transpose(tuple(d - 1 for d in c["dims"])), b.laid(x[0], False))


def _repeat(b, name, c, x, v):
    row = b.add(f"{name}/row", L.Reshape((1, -1)), x[0], rank=2, swapped=False)
    return b.add(name, L.UpSampling((int(c["n"]), 1)), row)


def _time_distributed(b, name, c, x, v):
    """A dense layer works on the last axis by itself."""
    if c["layer"]["class_name"] != "Dense":
        raise UnsupportedError(f"it holds {c['layer']['class_name']!r}; there is Dense")
    return _dense(b, name, c["layer"]["config"], x, v)


def _same(b, name, c, x, v):
    rate = c.get("rate")
    return b.add(name, L.Dropout(rate) if isinstance(rate, float) else L.Identity(), x[0])


def _activation(b, name, c, x, v):
    t = activation(b, name, c["activation"], x[0])
    return t if t is not x[0] else b.add(name, L.Identity(), t)


def _number(value: Any) -> Any:
    """A number that Keras 2 may have written as an array."""
    while isinstance(value, (list, dict)):
        value = value[0] if isinstance(value, list) else value.get("value", value.get("config"))
    return value


def _relu(b, name, c, x, v):
    top, slope, at = (_number(c.get(k)) for k in ("max_value", "negative_slope", "threshold"))
    return b.add(name, L.ReLU(None if top is None else float(top), float(slope or 0), float(at or 0)), x[0])


def _leaky(b, name, c, x, v):
    slope = _number(c.get("negative_slope", c.get("alpha", 0.3)))
    return b.add(name, L.LeakyReLU(float(slope)), x[0])


def _prelu(b, name, c, x, v):
    slope, t = v[0], x[0]
    if t.swapped:
        slope = np.moveaxis(slope, -1, 0)
    return b.add(name, L.PReLU(slope if slope.ndim > 1 or t.rank == 1 else slope.reshape(-1)), t)


def _softmax(b, name, c, x, v):
    at = c.get("axis", -1)
    if isinstance(at, (list, tuple)):
        raise UnsupportedError("a softmax over several axes is not supported")
    return b.add(name, L.Softmax(axis(x[0], at)), x[0])


def _merge(kind: type):
    def build(b, name, c, x, v):
        x = _ranked(b, name, x)
        swapped = any(t.swapped for t in x)
        return b.add(name, kind(), *(b.laid(t, swapped) for t in x))

    return build


def _ranked(b: Builder, name: str, x: list[Tensor]) -> list[Tensor]:
    """Vectors that meet images get axes of size 1 before their own, as Keras gives them."""
    if len(x) < 2:
        raise UnsupportedError("with a constant, not a tensor of the model, it is not supported")
    most = max(t.rank for t in x)
    return [
        b.add(f"{name}/axes{n}", L.Reshape((1,) * (most - 1) + (-1,)), t, rank=most)
        if t.rank == 1 < most
        else t
        for n, t in enumerate(x)
    ]


def _multiply(b, name, c, x, v):
    """A factor that comes out of a sigmoid is a gate: the signal takes the relevance."""
    kinds = {entry[0]: entry[1] for entry in b.layers}
    gates = [isinstance(kinds.get(t.name), (L.Sigmoid, L.HardSigmoid)) for t in x]
    signal = gates.index(False) if gates.count(False) == 1 and len(x) == 2 else None
    x = _ranked(b, name, x)
    swapped = any(t.swapped for t in x)
    return b.add(name, L.Multiply(signal), *(b.laid(t, swapped) for t in x))


def _concatenate(b, name, c, x, v):
    swapped = any(t.swapped for t in x)
    laid = [b.laid(t, swapped) for t in x]
    return b.add(name, L.Concatenate(axis(laid[0], c.get("axis", -1))), *laid)


def _elu(b, name, c, x, v):
    return b.add(name, L.ELU(float(_number(c.get("alpha", 1.0)))), x[0])


BUILDERS: dict[str, Callable[..., Tensor]] = {
    "Dense": _dense,
    "Conv1D": _conv(1),
    "Conv2D": _conv(2),
    "DepthwiseConv1D": _conv(1, depthwise=True),
    "DepthwiseConv2D": _conv(2, depthwise=True),
    "SeparableConv1D": _separable(1),
    "SeparableConv2D": _separable(2),
    "Conv1DTranspose": _conv(1, transposed=True),
    "Conv2DTranspose": _conv(2, transposed=True),
    "MaxPooling1D": _pool(L.MaxPool1D),
    "MaxPooling2D": _pool(L.MaxPool2D),
    "AveragePooling1D": _pool(L.AveragePool1D),
    "AveragePooling2D": _pool(L.AveragePool2D),
    **dict.fromkeys(("GlobalMaxPooling1D", "GlobalMaxPooling2D"), _global_pool(L.GlobalMaxPool)),
    **dict.fromkeys(("GlobalAveragePooling1D", "GlobalAveragePooling2D"), _global_pool(L.GlobalAveragePool)),
    **dict.fromkeys(("BatchNormalization", "BatchNormalizationV1", "BatchNormalizationV2"), _batch_norm),
    "LayerNormalization": _layer_norm,
    "RMSNormalization": _rms_norm,
    "GroupNormalization": _group_norm,
    "UnitNormalization": _unit_norm,
    "Rescaling": _rescaling,
    "Normalization": _normalization,
    "ZeroPadding1D": _zero_padding(1),
    "ZeroPadding2D": _zero_padding(2),
    "Cropping1D": _cropping(1),
    "Cropping2D": _cropping(2),
    "UpSampling1D": _up_sampling(1),
    "UpSampling2D": _up_sampling(2),
    "Flatten": _flatten,
    "Reshape": _reshape,
    "Permute": _permute,
    "RepeatVector": _repeat,
    "TimeDistributed": _time_distributed,
    **dict.fromkeys(
        (
            "Dropout",
            "SpatialDropout1D",
            "SpatialDropout2D",
            "AlphaDropout",
            "GaussianDropout",
            "GaussianNoise",
            "ActivityRegularization",
            "RandomFlip",
            "RandomRotation",
            "RandomTranslation",
            "RandomZoom",
            "RandomContrast",
            "RandomBrightness",
        ),
        _same,
    ),
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


def variables(kind: str, c: dict) -> list[bool]:
    """For each variable of a layer, in Keras' order, whether it is trained."""
    bias = [True] * bool(c.get("use_bias", True))
    if kind in ("SeparableConv1D", "SeparableConv2D"):
        return [True, True, *bias]
    if kind == "Dense" or "Conv" in kind:
        return [True, *bias]
    learned = [True] * (bool(c.get("scale", True)) + bool(c.get("center", True)))
    if kind.startswith("BatchNormalization"):
        return [*learned, False, False]
    if kind in ("LayerNormalization", "GroupNormalization"):
        return learned
    if kind in ("PReLU", "RMSNormalization"):
        return [True]
    if kind == "TimeDistributed":
        return variables(c["layer"]["class_name"], c["layer"]["config"])
    if kind == "Normalization":
        return [] if c.get("mean") is not None else [False, False, False]
    return []


def build(
    b: Builder, kind: str, name: str, c: dict, inputs: list[Tensor], values: list[np.ndarray]
) -> Tensor:
    """Add a Keras layer to the builder."""
    wanted = len(variables(kind, c))
    if len(values) != wanted:
        raise FileError(f"it is to have {wanted} arrays of weights, but the file has {len(values)}")
    return BUILDERS[kind](b, name, c, inputs, values)
