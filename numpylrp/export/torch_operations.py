"""Operations of PyTorch (ATen) as layers: for each a function of the graph, its name and its arguments."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from .. import layers as L
from ..errors import MissingExtraError, UnsupportedError, lookup
from . import torch_sequences
from .graph import Graph, Value, images

try:
    import torch
except ImportError:
    raise MissingExtraError("exporting modules needs PyTorch: pip install 'numpylrp[torch]'") from None


def as_array(tensor: torch.Tensor) -> np.ndarray:
    """A tensor on the processor as NumPy has it; half precision as float32."""
    tensor = tensor.detach().cpu()
    return (tensor.float() if tensor.dtype in (torch.float16, torch.bfloat16) else tensor).numpy()


class Args:
    """The arguments of a call by their names in PyTorch."""

    def __init__(self, args: dict[str, Any], batch: int, node: Any) -> None:
        self.args, self.batch, self.node = args, batch, node

    def __getitem__(self, name: str) -> Any:
        return self.args[name]

    def get(self, name: str, default: Any = None) -> Any:
        """An argument that not every version of PyTorch has."""
        return self.args.get(name, default)

    def array(self, name: str) -> Any:
        """A parameter."""
        value = self.args.get(name)
        if isinstance(value, Value):
            raise UnsupportedError(f"{self.node.name}: {name} depends on the input, which is not supported")
        return None if value is None else as_array(value)

    def operand(self, name: str) -> Any:
        """A value of the network, or a constant."""
        value = self.args[name]
        return as_array(value) if isinstance(value, torch.Tensor) else value

    def key(self, *names: str) -> tuple:
        """What makes two calls of one module alike: parameters by identity, options by value."""
        return tuple(id(v) if isinstance(v := self.args.get(n), torch.Tensor) else repr(v) for n in names)


def _pairs(padding: Sequence[int]) -> tuple[tuple[int, int], ...]:
    return tuple((int(p), int(p)) for p in padding)


def _full(value: Any, rank: int) -> tuple[int, ...]:
    """One integer an axis, as PyTorch leaves out what repeats."""
    values = [value] if isinstance(value, int) else list(value)
    return tuple(values * rank if len(values) == 1 else values)


def _linear(g: Graph, name: str, a: Args) -> Value:
    layer = g.shared(("linear", a.key("weight", "bias")), lambda: L.Dense(a.array("weight"), a.array("bias")))
    return g.add(name, layer, a["input"])


def _conv(g: Graph, name: str, a: Args) -> Value:
    x, w = a["input"], a.array("weight")
    kind, rank = images(name, x, L.Conv1D, L.Conv2D, L.Conv3D), w.ndim - 2
    padding = a["padding"]
    if padding == "same":  # of an odd number, PyTorch puts the larger half behind
        spans = [d * (k - 1) for k, d in zip(w.shape[2:], _full(a["dilation"], rank))]
        padding = tuple((n // 2, n - n // 2) for n in spans)
    elif padding != "valid":
        padding = _pairs(_full(padding, rank))
    make = lambda: kind(  # noqa: E731
        w, a.array("bias"), _full(a["stride"], rank), padding, _full(a["dilation"], rank), a["groups"]
    )
    return g.add(
        name, g.shared((kind, padding, a.key("weight", "bias", "stride", "dilation", "groups")), make), x
    )


def _conv_transpose(g: Graph, name: str, a: Args) -> Value:
    x, w = a["input"], a.array("weight")
    rank = w.ndim - 2
    if rank not in (1, 2):
        raise UnsupportedError(f"{name}: a transposed convolution in {rank} dimensions is not supported")
    options = {
        "stride": _full(a["stride"], rank),
        "padding": _pairs(_full(a["padding"], rank)),
        "dilation": _full(a["dilation"], rank),
        "groups": a["groups"],
        "output_padding": _full(a["output_padding"], rank),
    }
    if rank == 1:
        return g.row_transpose(name, x, w, a.array("bias"), options)
    return g.add(name, L.Conv2DTranspose(w, a.array("bias"), **options), x)


def _convolution(g: Graph, name: str, a: Args) -> Value:
    return (_conv_transpose if a["transposed"] else _conv)(g, name, a)


def _batch_norm(g: Graph, name: str, a: Args) -> Value:
    if a.get("training") or a["running_mean"] is None:
        raise UnsupportedError(
            f"{name}: batch normalization with the statistics of the batch would mix samples "
            "(track_running_stats=False?)"
        )
    layer = g.shared(
        ("bn", a.key("weight", "bias", "running_mean", "eps")),
        lambda: L.BatchNorm(  # type: ignore[misc]
            *(a.array(n) for n in ("weight", "bias", "running_mean", "running_var")), eps=a["eps"]
        ),
    )
    return g.add(name, layer, a["input"])


def _instance_norm(g: Graph, name: str, a: Args) -> Value:
    if not a["use_input_stats"]:
        return _batch_norm(g, name, a)
    layer = L.InstanceNorm(gamma=a.array("weight"), beta=a.array("bias"), eps=a["eps"])
    return g.add(name, layer, a["input"])


def _last(shape: Sequence[int]) -> tuple[int, ...]:
    return tuple(range(-len(shape), 0))


def _layer_norm(g: Graph, name: str, a: Args) -> Value:
    axes = _last(a["normalized_shape"])
    return g.add(name, L.LayerNorm(a.array("weight"), a.array("bias"), a["eps"], axes), a["input"])


def _rms_norm(g: Graph, name: str, a: Args) -> Value:
    eps = a["eps"]
    if eps is None:
        eps = float(torch.finfo(a.node.meta["val"].dtype).eps)
    return g.add(name, L.RMSNorm(a.array("weight"), eps, _last(a["normalized_shape"])), a["input"])


def _group_norm(g: Graph, name: str, a: Args) -> Value:
    layer = L.GroupNorm(a["num_groups"], a.array("weight"), a.array("bias"), a["eps"])
    return g.add(name, layer, a["input"])


def _normalize(g: Graph, name: str, a: Args) -> Value:
    return g.add(name, L.UnitNorm(a["eps"], g.axis(name, a["x"], a["dim"])), a["x"])


def _lrn(g: Graph, name: str, a: Args) -> Value:
    return g.add(name, L.LRN(a["size"], a["alpha"], a["beta"], a["k"]), a["x"])


def _max_pool(g: Graph, name: str, a: Args) -> Value:
    x = a["self"]
    kind = images(name, x, L.MaxPool1D, L.MaxPool2D, L.MaxPool3D)
    rank = len(x.shape) - 1
    if any(d != 1 for d in _full(a["dilation"], rank)):
        raise UnsupportedError(f"{name}: maximum pooling with dilation is not supported")
    kernel = _full(a["kernel_size"], rank)
    stride = _full(a["stride"], rank) if a["stride"] else kernel
    return g.add(name, kind(kernel, stride, _pairs(_full(a["padding"], rank)), a["ceil_mode"]), x)


def _avg_pool(g: Graph, name: str, a: Args) -> Value:
    x = a["self"]
    kind = images(name, x, L.AveragePool1D, L.AveragePool2D, L.AveragePool3D)
    rank = len(x.shape) - 1
    if a.get("divisor_override"):
        raise UnsupportedError(f"{name}: average pooling with divisor_override is not supported")
    kernel = _full(a["kernel_size"], rank)
    stride = _full(a["stride"], rank) if a["stride"] else kernel
    padding = _pairs(_full(a["padding"], rank))
    return g.add(name, kind(kernel, stride, padding, a["ceil_mode"], count_padding=a["count_include_pad"]), x)


def _adaptive(largest: bool) -> Callable:
    def build(g: Graph, name: str, a: Args) -> Any:
        x = a["self"]
        y = g.adaptive(name, x, _full(a["output_size"], len(x.shape) - 1), largest)
        return (y, None) if a.node.target._schema.name.endswith(("max_pool2d", "max_pool3d")) else y

    return build


def _upsample(g: Graph, name: str, a: Args) -> Value:
    x, out = a["input"] if "input" in a.args else a["self"], a.get("output_size")
    factors = a.get("scale_factors")
    if out is not None:
        factors = [o / n for o, n in zip(out, x.shape[1:])]
    return g.upsampled(name, x, factors)


def _interpolate(g: Graph, name: str, a: Args) -> Value:
    x, out, factors = a["input"], a.get("output_size"), a.get("scale_factors")
    if out is None:
        out = [n * f for n, f in zip(x.shape[1:], factors)]
        if any(n != round(n) for n in out):  # PyTorch then counts with the factor, not with the sizes
            raise UnsupportedError(
                f"{name}: interpolation of {x.shape[1:]} by {tuple(factors)}: no whole sizes"
            )
    return g.interpolated(name, x, out, "align_corners" if a["align_corners"] else "half_pixel")


def _activation(make: Callable[[Args], L.Layer], first: str = "self") -> Callable:
    def build(g: Graph, name: str, a: Args) -> Value:
        return g.add(name, make(a), a["input"] if first not in a.args else a[first])

    return build


def _clip(low: Any, high: Any) -> L.Layer:
    low, high = (None if v is None else float(v) for v in (low, high))
    return L.ReLU(high) if low == 0 else L.Clip(low, high)


def _softplus(a: Args) -> L.Layer:
    if a["beta"] * a["threshold"] < 20 or a["threshold"] < 20:
        raise UnsupportedError(f"softplus with threshold {a['threshold']} is not supported")
    return L.Softplus(float(a["beta"]))


def _elu(a: Args) -> L.Layer:
    if (a["scale"], a["input_scale"]) != (1, 1):
        raise UnsupportedError("elu with scales is not supported")
    return L.ELU(float(a["alpha"]))


def _softmax(kind: type) -> Callable:
    def build(g: Graph, name: str, a: Args) -> Value:
        return g.add(name, kind(g.axis(name, a["self"], a["dim"])), a["self"])

    return build


def _threshold(a: Args) -> L.Layer:
    if a["value"] != 0 or a["threshold"] < 0:
        raise UnsupportedError("a threshold with a value other than 0 is not supported")
    return L.ReLU(threshold=float(a["threshold"]))


def _prelu(g: Graph, name: str, a: Args) -> Value:
    slope = a.array("weight")
    return g.add(name, L.PReLU(slope if slope.size > 1 else slope.reshape(())), a["self"])


def _binary(kind: str) -> Callable:
    def build(g: Graph, name: str, a: Args) -> Any:
        x, y, alpha = a.operand("self"), a.operand("other"), a.get("alpha", 1)
        if a.get("rounding_mode"):
            raise UnsupportedError(f"{name}: division with rounding is not supported")
        if alpha != 1:
            y = g.combine(f"{name}.alpha", "*", y, float(alpha))
        return g.combine(name, kind, x, y)

    return build


def _rsub(g: Graph, name: str, a: Args) -> Any:
    x, alpha = a.operand("self"), a.get("alpha", 1)
    if alpha != 1:
        x = g.combine(f"{name}.alpha", "*", x, float(alpha))
    return g.combine(name, "-", a.operand("other"), x)


def _power(g: Graph, name: str, a: Args) -> Value:
    if isinstance(a["exponent"], (Value, torch.Tensor)) or not isinstance(a["self"], Value):
        raise UnsupportedError(f"{name}: a power with other than a number as its exponent is not supported")
    return g.power(name, a["self"], a["exponent"])


def _merge(kind: type) -> Callable:
    return lambda g, name, a: g.several(name, kind, [a.operand("self"), a.operand("other")])


def _of_two(kind: type) -> Callable:
    def build(g: Graph, name: str, a: Args) -> Value:
        if "other" not in a.args:
            raise UnsupportedError(f"{name}: {kind.__name__.lower()} with indices is not supported; amax is")
        return _merge(kind)(g, name, a)

    return build


def _addmm(g: Graph, name: str, a: Args) -> Value:
    if (a["beta"], a["alpha"]) != (1, 1):
        raise UnsupportedError(f"{name}: addmm with factors is not supported")
    return g.product(name, a.operand("mat1"), a.operand("mat2"), a.array("self"))


def _reduce(kind: type) -> Callable:
    def build(g: Graph, name: str, a: Args) -> Value:
        axes = a["dim"]
        axes = None if axes is None or axes == [] else [axes] if isinstance(axes, int) else axes
        if axes is None:
            raise UnsupportedError(f"{name}: a reduction over all axes would mix samples")
        return g.reduced(name, kind, a["self"], axes, bool(a["keepdim"]))

    return build


def _flatten(g: Graph, name: str, a: Args) -> Value:
    x = a["self"]
    first, last = (g.axis(name, x, a[k]) for k in ("start_dim", "end_dim"))
    return g.reshape(name, x, [*x.shape[:first], -1, *x.shape[last + 1 :]])


def _unflatten(g: Graph, name: str, a: Args) -> Value:
    x = a["self"]
    at = g.axis(name, x, a["dim"])
    return g.reshape(name, x, [*x.shape[:at], *a["sizes"], *x.shape[at + 1 :]])


def _view(size: str) -> Callable:
    def build(g: Graph, name: str, a: Args) -> Value:
        shape = list(a[size])
        if shape[:1] not in ([a.batch], [-1]) or (shape[0] == -1 and -1 in shape[1:]):
            raise UnsupportedError(f"{name}: a view as {tuple(shape)} would mix the samples of a batch")
        return g.batch_reshape(name, a["self"], shape)

    return build


def _transpose(g: Graph, name: str, a: Args) -> Value:
    x = a["self"]
    axes = list(range(len(x.shape) + 1))
    i, j = (a[k] % len(axes) for k in ("dim0", "dim1"))
    axes[i], axes[j] = j, i
    return g.permute(name, x, axes)


def _slice(g: Graph, name: str, a: Args) -> Value:
    x, dim = a["self"], a["dim"] % (len(a["self"].shape) + 1)
    if dim == 0:
        if (a["start"] or 0, a["step"]) == (0, 1) and (a["end"] is None or a["end"] >= 2**31):
            return x
        raise UnsupportedError(f"{name}: a slice of the batch is not supported")
    return g.part(name, x, dim - 1, a["start"], a["end"], a["step"])


def _split(g: Graph, name: str, a: Args) -> list[Value]:
    x = a["self"]
    at = g.axis(name, x, a["dim"])
    n = x.shape[at]
    size = a.get("split_size", a.get("split_sizes"))
    if "chunks" in a.args:
        size = -(-n // a["chunks"])
    sizes = [min(size, n - k) for k in range(0, n, size)] if isinstance(size, int) else list(size)
    return g.parts(name, x, at, sizes)


def _unbind(g: Graph, name: str, a: Args) -> list[Value]:
    x = a["self"]
    at = g.axis(name, x, a["dim"])
    return [g.select(f"{name}.{n}", x, at, n) for n in range(x.shape[at])]


PADDINGS = {"constant": "constant", "reflect": "reflect", "replicate": "edge", "circular": "wrap"}
"""PyTorch's names of paddings."""


def _pad(g: Graph, name: str, a: Args) -> Value:
    x, pad = a["self"], list(a["pad"])
    mode = lookup(PADDINGS, a.get("mode", "constant"), "mode of padding")
    pairs = [(pad[k], pad[k + 1]) for k in range(0, len(pad), 2)][::-1]
    if len(pairs) > len(x.shape):
        raise UnsupportedError(f"{name}: padding of the batch axis is not supported")
    return g.pad(name, x, [(0, 0)] * (len(x.shape) - len(pairs)) + pairs, a.get("value"), mode)


def _expand(g: Graph, name: str, a: Args) -> Value:
    x = a["self"]
    size = list(a["other"].shape) if "other" in a.args else list(a["size"])[1:]
    return g.expand(name, x, [n if m == -1 else m for n, m in zip(x.shape, size)])


def _stack(g: Graph, name: str, a: Args) -> Value:
    values = list(a["tensors"])
    at = a["dim"] % (len(values[0].shape) + 2)
    return g.join(name, [g.unsqueeze(f"{name}.{n}", v, [at]) for n, v in enumerate(values)], at - 1)


def _cat(g: Graph, name: str, a: Args) -> Value:
    given = list(a["tensors"])
    first = next(n for n, v in enumerate(given) if isinstance(v, Value))
    at = g.axis(name, given[first], a["dim"])
    values, before = [], 0
    for v in given:  # constant zeros are padding
        if isinstance(v, Value):
            values.append(g.pad(f"{name}.zeros", v, _along(v, at, (before, 0))))
            before = 0
        elif v.any():
            raise UnsupportedError(f"{name}: concatenation with a constant is not supported, only with zeros")
        elif values:
            values[-1] = g.pad(f"{name}.zeros", values[-1], _along(values[-1], at, (0, v.shape[at + 1])))
        else:
            before += v.shape[at + 1]
    return g.join(name, values, at)


def _along(v: Value, at: int, pair: tuple[int, int]) -> list[tuple[int, int]]:
    return [pair if n == at else (0, 0) for n in range(len(v.shape))]


def _repeat(g: Graph, name: str, a: Args) -> Value:
    x, times = a["self"], list(a["repeats"] if "repeats" in a.args else a["dims"])
    times = [1] * (len(x.shape) + 1 - len(times)) + times
    if len(times) != len(x.shape) + 1 or times[0] != 1:
        raise UnsupportedError(
            f"{name}: repeats {tuple(times)} of the batch, or to more axes, are not supported"
        )
    return g.repeated(name, x, times[1:])


def _repeat_each(g: Graph, name: str, a: Args) -> Value:
    x, times = a["self"], a["repeats"]
    if not isinstance(times, int) or a["dim"] is None:
        raise UnsupportedError(f"{name}: repeat_interleave is supported with one number and one axis")
    size = [1] * len(x.shape)
    size[g.axis(name, x, a["dim"])] = times
    return g.add(name, L.UpSampling(tuple(size)), x)


def _roll(g: Graph, name: str, a: Args) -> Value:
    x, shifts, axes = a["self"], a["shifts"], a["dims"]
    if len(axes) != len(shifts):
        raise UnsupportedError(f"{name}: roll without axes would mix the samples of a batch")
    for k, (shift, axis) in enumerate(zip(shifts, axes)):
        at = g.axis(name, x, axis)
        x = g.gather(f"{name}.{k}", x, at, np.roll(np.arange(x.shape[at]), shift).tolist())
    return x


def _index(g: Graph, name: str, a: Args) -> Value:
    """``x[:, [2, 1, 0]]``, and index_select."""
    x = a["self"]
    given = a["indices"] if "indices" in a.args else [None] * (a["dim"] % (len(x.shape) + 1)) + [a["index"]]
    at = [n for n, index in enumerate(given) if index is not None]
    index = given[at[0]] if len(at) == 1 else None
    if (
        not isinstance(index, torch.Tensor)
        or index.ndim != 1
        or index.dtype not in (torch.int64, torch.int32)
    ):
        raise UnsupportedError(f"{name}: an index other than one list of constants is not supported")
    return g.gather(name, x, g.axis(name, x, at[0]), index.tolist())


def _pixel_unshuffle(g: Graph, name: str, a: Args) -> Value:
    x, r = a["self"], a["downscale_factor"]
    c, h, w = x.shape
    cut = g.reshape(f"{name}.cut", x, (c, h // r, r, w // r, r))
    moved = g.permute(f"{name}.move", cut, (0, 1, 3, 5, 2, 4))
    return g.reshape(name, moved, (c * r**2, h // r, w // r))


def _pixel_shuffle(g: Graph, name: str, a: Args) -> Value:
    x, r = a["self"], a["upscale_factor"]
    c, h, w = x.shape
    x = g.reshape(f"{name}.cut", x, (c // r**2, r, r, h, w))
    x = g.permute(f"{name}.move", x, (0, 1, 4, 2, 5, 3))
    return g.reshape(name, x, (c // r**2, h * r, w * r))


def _channel_shuffle(g: Graph, name: str, a: Args) -> Value:
    x, k = a["self"], a["groups"]
    c, *size = x.shape
    cut = g.reshape(f"{name}.cut", x, (k, c // k, *size))
    moved = g.permute(f"{name}.move", cut, (0, 2, 1, *range(3, 3 + len(size))))
    return g.reshape(name, moved, x.shape)


def _cast(g: Graph, name: str, a: Args) -> Value:
    dtype = a.get("dtype")
    if dtype is not None and not dtype.is_floating_point:
        raise UnsupportedError(f"{name}: a cast to {dtype} is not supported")
    return _same(g, name, a)


def _same(g: Graph, name: str, a: Args) -> Value:
    if a.get("train") or a.get("training"):
        raise UnsupportedError(f"{name}: dropout in training mode (functional, training=True?)")
    return a["self"] if "self" in a.args else a["input"]


OPERATIONS: dict[str, Callable[[Graph, str, Args], Any]] = {
    "linear": _linear,
    "addmm": _addmm,
    **dict.fromkeys(
        ("matmul", "mm", "bmm"),
        lambda g, name, a: g.product(
            name, a.operand("self"), a.operand("other" if "other" in a.args else "mat2")
        ),
    ),
    **dict.fromkeys(("conv1d", "conv2d", "conv3d"), _conv),
    **dict.fromkeys(("conv_transpose1d", "conv_transpose2d"), _conv_transpose),
    "convolution": _convolution,
    **dict.fromkeys(("batch_norm", "_native_batch_norm_legit_no_training"), _batch_norm),
    "instance_norm": _instance_norm,
    "layer_norm": _layer_norm,
    "rms_norm": _rms_norm,
    "group_norm": _group_norm,
    "normalize": _normalize,
    "lrn": _lrn,
    **dict.fromkeys(("max_pool1d", "max_pool2d", "max_pool3d"), _max_pool),
    **dict.fromkeys(("avg_pool1d", "avg_pool2d", "avg_pool3d"), _avg_pool),
    **dict.fromkeys(("adaptive_avg_pool1d", "adaptive_avg_pool2d", "adaptive_avg_pool3d"), _adaptive(False)),
    **dict.fromkeys(("adaptive_max_pool1d", "adaptive_max_pool2d", "adaptive_max_pool3d"), _adaptive(True)),
    **dict.fromkeys(
        (
            "upsample_nearest1d",
            "upsample_nearest2d",
            "_upsample_nearest_exact1d",
            "_upsample_nearest_exact2d",
        ),
        _upsample,
    ),
    **dict.fromkeys(
        ("upsample_linear1d", "upsample_bilinear2d", "upsample_trilinear3d"),
        _interpolate,
    ),
    "relu": _activation(lambda a: L.ReLU()),
    "relu6": _activation(lambda a: L.ReLU(6.0)),
    "hardtanh": _activation(lambda a: _clip(a["min_val"], a["max_val"])),
    "clamp": _activation(lambda a: _clip(a["min"], a["max"])),
    "clamp_min": _activation(lambda a: _clip(a["min"], None)),
    "clamp_max": _activation(lambda a: _clip(None, a["max"])),
    "threshold": _activation(_threshold),
    "leaky_relu": _activation(lambda a: L.LeakyReLU(float(a["negative_slope"]))),
    "prelu": _prelu,
    "elu": _activation(_elu),
    "celu": _activation(lambda a: L.CELU(float(a["alpha"]))),
    "abs": _activation(lambda a: L.LeakyReLU(-1.0)),
    "selu": _activation(lambda a: L.SELU()),
    "gelu": _activation(lambda a: L.GELU(a["approximate"] == "tanh")),
    "silu": _activation(lambda a: L.SiLU()),
    "mish": _activation(lambda a: L.Mish()),
    "sigmoid": _activation(lambda a: L.Sigmoid()),
    "sqrt": _activation(lambda a: L.Sqrt()),
    "tanh": _activation(lambda a: L.Tanh()),
    "softplus": _activation(_softplus),
    "hardsigmoid": _activation(lambda a: L.HardSigmoid()),
    "hardswish": _activation(lambda a: L.HardSwish()),
    **dict.fromkeys(("softmax", "_softmax"), _softmax(L.Softmax)),
    **dict.fromkeys(("log_softmax", "_log_softmax"), _softmax(L.LogSoftmax)),
    "add": _binary("+"),
    "sub": _binary("-"),
    "mul": _binary("*"),
    "div": _binary("/"),
    "rsub": _rsub,
    "neg": lambda g, name, a: g.affine(name, a["self"], -1.0, 0.0),
    "pow": _power,
    "square": lambda g, name, a: g.power(name, a["self"], 2),
    "maximum": _merge(L.Maximum),
    "minimum": _merge(L.Minimum),
    "max": _of_two(L.Maximum),
    "min": _of_two(L.Minimum),
    "mean": _reduce(L.GlobalAveragePool),
    "sum": _reduce(L.GlobalSumPool),
    "amax": _reduce(L.GlobalMaxPool),
    "flatten": _flatten,
    "unflatten": _unflatten,
    **dict.fromkeys(("view", "_unsafe_view"), _view("size")),
    "reshape": _view("shape"),
    "permute": lambda g, name, a: g.permute(name, a["self"], a["dims"]),
    "transpose": _transpose,
    "squeeze": lambda g, name, a: g.squeeze(
        name,
        a["self"],
        None if "dim" not in a.args else [a["dim"]] if isinstance(a["dim"], int) else a["dim"],
    ),
    "unsqueeze": lambda g, name, a: g.unsqueeze(name, a["self"], [a["dim"]]),
    "slice": _slice,
    "select": lambda g, name, a: g.select(name, a["self"], g.axis(name, a["self"], a["dim"]), a["index"]),
    "narrow": lambda g, name, a: g.part(
        name, a["self"], g.axis(name, a["self"], a["dim"]), a["start"], a["start"] + a["length"]
    ),
    **dict.fromkeys(("chunk", "split", "split_with_sizes"), _split),
    "unbind": _unbind,
    **dict.fromkeys(("pad", "constant_pad_nd"), _pad),
    **dict.fromkeys(("expand", "expand_as"), _expand),
    "cat": _cat,
    "stack": _stack,
    "pixel_shuffle": _pixel_shuffle,
    "pixel_unshuffle": _pixel_unshuffle,
    **dict.fromkeys(("repeat", "tile"), _repeat),
    "repeat_interleave": _repeat_each,
    "roll": _roll,
    "flip": lambda g, name, a: g.turned(name, a["self"], [g.axis(name, a["self"], d) for d in a["dims"]]),
    **dict.fromkeys(("index", "index_select"), _index),
    **dict.fromkeys(("to", "_to_copy"), _cast),
    "channel_shuffle": _channel_shuffle,
    **dict.fromkeys(
        (
            "dropout",
            "feature_dropout",
            "alpha_dropout",
            "feature_alpha_dropout",
            "contiguous",
            "clone",
            "alias",
            "detach",
            "lift_fresh_copy",
            "type_as",
            "identity",
        ),
        _same,
    ),
}
"""The operations of PyTorch (ATen) that are understood."""

OPERATIONS |= torch_sequences.OPERATIONS
OPERATIONS["index"] = torch_sequences.index(_index)
OPERATIONS["cat"] = torch_sequences.cat(_cat)
