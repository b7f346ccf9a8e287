"""Operators of ONNX as layers: for each a function of the graph, its name and its node."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from .. import layers as L
from ..errors import FileError, MissingExtraError, UnsupportedError
from ..layers.interpolation import PLACES
from . import onnx_sequences
from .graph import Graph, Value, images

try:
    import onnx
    from onnx import numpy_helper
except ImportError:
    raise MissingExtraError(
        "reading ONNX models needs the package onnx: pip install 'numpylrp[onnx]'"
    ) from None


def as_array(proto: onnx.TensorProto) -> np.ndarray:
    """A tensor kept in the model; half precision as float32."""
    if proto.data_location == onnx.TensorProto.EXTERNAL:
        raise FileError(f"tensor {proto.name!r} is kept in another file, which is refused: save it inside")
    array = numpy_helper.to_array(proto)
    return array.astype(np.float32) if array.dtype == np.float16 else array


class Call:
    """A node: its inputs by number, its attributes by name."""

    def __init__(self, graph: Graph, node: onnx.NodeProto, values: dict, opset: int) -> None:
        self.graph, self.node, self.values, self.opset = graph, node, values, opset
        self.name = (node.name or node.output[0]).strip("/")
        self.attributes = {a.name: a for a in node.attribute}

    def get(self, name: str, default: Any = None) -> Any:
        """An attribute."""
        if name not in self.attributes:
            return default
        value = onnx.helper.get_attribute_value(self.attributes[name])
        if isinstance(value, onnx.TensorProto):
            return as_array(value)
        return value.decode() if isinstance(value, bytes) else value

    def __len__(self) -> int:
        return len(self.node.input)

    def has(self, n: int) -> bool:
        """Whether this input is there."""
        return n < len(self.node.input) and bool(self.node.input[n])

    def operand(self, n: int) -> Any:
        """A value of the network, or a constant."""
        return self.values[self.node.input[n]]

    def value(self, n: int = 0) -> Value:
        """A value of the network."""
        value = self.operand(n)
        if not isinstance(value, Value):
            raise UnsupportedError(f"{self.name}: {self.node.op_type} of a constant is not supported")
        return value

    def array(self, n: int) -> Any:
        """A constant; None where it is left out."""
        if not self.has(n):
            return None
        value = self.operand(n)
        if isinstance(value, Value):
            raise UnsupportedError(
                f"{self.name}: {self.node.op_type} with a parameter that depends on the input"
            )
        return value

    def given(self, name: str, n: int, default: Any = None) -> Any:
        """What older operator sets have as an attribute and newer ones as an input, as a list."""
        value = self.get(name)
        if value is None and self.has(n):
            value = self.array(n).reshape(-1).tolist()
        return default if value is None else value

    @property
    def all(self) -> list[Any]:
        """All inputs."""
        return [self.values[n] for n in self.node.input]


def _padding(a: Call, rank: int) -> Any:
    auto = a.get("auto_pad", "NOTSET")
    if auto in ("SAME_UPPER", "SAME_LOWER"):
        return {"SAME_UPPER": "same", "SAME_LOWER": "same_lower"}[auto]
    pads = a.get("pads", [0] * (2 * rank))
    return tuple(zip(pads[:rank], pads[rank:]))


def _conv(g: Graph, name: str, a: Call) -> Value:
    x, w = a.value(), a.array(1)
    kind, rank = images(name, x, L.Conv1D, L.Conv2D, L.Conv3D), w.ndim - 2
    ones = (1,) * rank
    layer = g.shared(
        (id(a.values[a.node.input[1]]), *(str(p) for p in a.node.attribute), tuple(a.node.input[1:])),
        lambda: kind(
            w,
            a.array(2),
            tuple(a.get("strides", ones)),
            _padding(a, rank),
            tuple(a.get("dilations", ones)),
            a.get("group", 1),
        ),
    )
    return g.add(name, layer, x)


def _conv_transpose(g: Graph, name: str, a: Call) -> Value:
    x, w = a.value(), a.array(1)
    rank = w.ndim - 2
    if rank not in (1, 2):
        raise UnsupportedError(f"{name}: a transposed convolution in {rank} dimensions is not supported")
    if a.get("output_shape"):
        raise UnsupportedError(f"{name}: output_shape is not supported; give pads")
    padding = _padding(a, rank)
    if padding == "same_lower":
        raise UnsupportedError(f"{name}: auto_pad SAME_LOWER is not supported here")
    ones = (1,) * rank
    options = {
        "stride": tuple(a.get("strides", ones)),
        "padding": padding,
        "dilation": tuple(a.get("dilations", ones)),
        "groups": a.get("group", 1),
        "output_padding": tuple(a.get("output_padding", (0,) * rank)),
    }
    if rank == 1:
        return g.row_transpose(name, x, w, a.array(2), options)
    return g.add(name, L.Conv2DTranspose(w, a.array(2), **options), x)


def _gemm(g: Graph, name: str, a: Call) -> Value:
    if a.get("transA", 0):
        raise UnsupportedError(f"{name}: Gemm with transA is not supported")
    w = a.array(1) if a.get("transB", 0) else a.array(1).T
    bias = a.array(2)
    if bias is not None:
        bias = np.broadcast_to(np.asarray(bias).reshape(-1) * a.get("beta", 1.0), w.shape[:1])
        bias = bias.astype(w.dtype)
    alpha = a.get("alpha", 1.0)
    return g.add(name, L.Dense(w if alpha == 1 else w * w.dtype.type(alpha), bias), a.value())


def _batch_norm(g: Graph, name: str, a: Call) -> Value:
    if a.get("training_mode", 0):
        raise UnsupportedError(f"{name}: batch normalization in training mode would mix samples")
    layer = L.BatchNorm(*(a.array(n) for n in (1, 2, 3, 4)), eps=a.get("epsilon", 1e-5))  # type: ignore[misc]
    return g.add(name, layer, a.value())


def _lrn(g: Graph, name: str, a: Call) -> Value:
    size = a.get("size")
    layer = L.LRN(size, a.get("alpha", 1e-4), a.get("beta", 0.75), a.get("bias", 1.0), before=(size - 1) // 2)
    return g.add(name, layer, a.value())


def _layer_norm(g: Graph, name: str, a: Call) -> Value:
    x = a.value()
    at = g.axis(name, x, a.get("axis", -1))
    axes = tuple(range(at, len(x.shape)))
    shape = x.shape[at:]
    gamma, beta = (None if p is None else np.broadcast_to(p, shape) for p in (a.array(1), a.array(2)))
    return g.add(name, L.LayerNorm(gamma, beta, a.get("epsilon", 1e-5), axes), x)


def _group_norm(g: Graph, name: str, a: Call) -> Value:
    gamma, beta, groups = a.array(1), a.array(2), a.get("num_groups")
    channels = a.value().shape[0]
    if len(gamma) != channels:  # operator set 18 has one value a group
        gamma, beta = (np.repeat(p, channels // groups) for p in (gamma, beta))
    return g.add(name, L.GroupNorm(groups, gamma, beta, a.get("epsilon", 1e-5)), a.value())


def _lp_norm(g: Graph, name: str, a: Call) -> Value:
    if a.get("p", 2) != 2:
        raise UnsupportedError(f"{name}: LpNormalization with p = {a.get('p')} is not supported, only 2")
    return g.add(name, L.UnitNorm(axes=g.axis(name, a.value(), a.get("axis", -1))), a.value())


def _pool(*kinds: type) -> Callable:
    def build(g: Graph, name: str, a: Call) -> Value:
        x = a.value()
        kind, rank = images(name, x, *kinds), len(x.shape) - 1
        if any(d != 1 for d in a.get("dilations", ())):
            raise UnsupportedError(f"{name}: pooling with dilation is not supported")
        if len(a.node.output) > 1 and a.node.output[1]:
            raise UnsupportedError(f"{name}: the indices of maximum pooling are not supported")
        options = (
            {} if kind.__name__.startswith("Max") else {"count_padding": bool(a.get("count_include_pad", 0))}
        )
        stride = tuple(a.get("strides", (1,) * rank))
        layer = kind(
            tuple(a.get("kernel_shape")), stride, _padding(a, rank), bool(a.get("ceil_mode", 0)), **options
        )
        return g.add(name, layer, x)

    return build


def _activation(make: Callable[[Call], L.Layer]) -> Callable:
    return lambda g, name, a: g.add(name, make(a), a.value())


def _clip(g: Graph, name: str, a: Call) -> Value:
    ends = []
    for key, n in (("min", 1), ("max", 2)):
        value = a.given(key, n)
        value = value[0] if isinstance(value, list) else value
        ends.append(None if value is None or abs(value) > 3e38 else float(value))
    return g.add(name, L.ReLU(ends[1]) if ends[0] == 0 else L.Clip(*ends), a.value())


def _prelu(g: Graph, name: str, a: Call) -> Value:
    x, slope = a.value(), a.array(1)
    if slope.ndim == len(x.shape) + 1 and len(slope) == 1:
        slope = slope[0]
    if slope.size == 1:
        slope = slope.reshape(())
    elif len(x.shape) > 1:  # ONNX lines axes up from the last, our single axis is the channels
        slope = slope.reshape((1,) * (len(x.shape) - slope.ndim) + slope.shape)
    return g.add(name, L.PReLU(slope), x)


def _selu(a: Call) -> L.Layer:
    given = a.get("alpha", 1.6732632), a.get("gamma", 1.0507010)
    if not np.allclose(given, (1.6732632, 1.0507010), rtol=1e-5):
        raise UnsupportedError(f"{a.name}: Selu with alpha {given[0]:g}, gamma {given[1]:g} is not supported")
    return L.SELU()


def _softmax(kind: type) -> Callable:
    def build(g: Graph, name: str, a: Call) -> Value:
        x = a.value()
        old = a.opset < 13
        at = g.axis(name, x, a.get("axis", 1 if old else -1))
        if old and at != len(x.shape) - 1:
            raise UnsupportedError(f"{name}: a softmax over several axes (before operator set 13)")
        return g.add(name, kind(at), x)

    return build


def _binary(kind: str) -> Callable:
    return lambda g, name, a: g.combine(name, kind, a.operand(0), a.operand(1))


def _several(kind: type, of: str | None = None) -> Callable:
    def build(g: Graph, name: str, a: Call) -> Value:
        return g.several(name, kind, a.all)

    return build


def _max(largest: bool) -> Callable:
    def build(g: Graph, name: str, a: Call) -> Value:
        constants = [v for v in a.all if not isinstance(v, Value)]
        if constants:  # with a number it is a clip
            if len(a) != 2 or np.size(constants[0]) != 1:
                raise UnsupportedError(
                    f"{name}: {a.node.op_type} with an array of constants is not supported"
                )
            value = float(np.reshape(constants[0], ()))
            x = next(v for v in a.all if isinstance(v, Value))
            return g.add(
                name, (L.ReLU() if value == 0 else L.Clip(value)) if largest else L.Clip(high=value), x
            )
        return g.several(name, L.Maximum if largest else L.Minimum, a.all)

    return build


def _reduce(kind: type) -> Callable:
    def build(g: Graph, name: str, a: Call) -> Value:
        axes = a.given("axes", 1)
        if not axes and a.get("noop_with_empty_axes", 0):
            return a.value()
        if not axes:
            raise UnsupportedError(f"{name}: a reduction over all axes would mix samples")
        return g.reduced(name, kind, a.value(), axes, bool(a.get("keepdims", 1)))

    return build


def _flatten(g: Graph, name: str, a: Call) -> Value:
    if a.get("axis", 1) not in (1, -len(a.value().shape)):
        raise UnsupportedError(f"{name}: Flatten with axis {a.get('axis')} would mix samples")
    return g.reshape(name, a.value(), (-1,))


def _reshape(g: Graph, name: str, a: Call) -> Value:
    x, shape = a.value(), a.given("shape", 1)
    if not a.get("allowzero", 0):
        old = (1, *x.shape)
        shape = [old[n] if s == 0 else s for n, s in enumerate(shape)]
    return g.batch_reshape(name, x, shape)


def _squeeze(g: Graph, name: str, a: Call) -> Value:
    return g.squeeze(name, a.value(), a.given("axes", 1))


def _unsqueeze(g: Graph, name: str, a: Call) -> Value:
    return g.unsqueeze(name, a.value(), a.given("axes", 1))


def _transpose(g: Graph, name: str, a: Call) -> Value:
    x = a.value()
    return g.permute(name, x, a.get("perm", list(range(len(x.shape) + 1))[::-1]))


def _slice(g: Graph, name: str, a: Call) -> Value:
    x, starts, ends = a.value(), a.given("starts", 1), a.given("ends", 2)
    axes, steps = a.given("axes", 3, range(len(starts))), a.given("steps", 4, [1] * len(starts))
    for axis, start, end, step in zip(axes, starts, ends, steps):
        if axis % (len(x.shape) + 1) == 0 and (start, step) == (0, 1) and end >= 10**9:
            continue
        x = g.part(name, x, g.axis(name, x, axis), start, end, step)
    return x


def _split(g: Graph, name: str, a: Call) -> list[Value]:
    x = a.value()
    at = g.axis(name, x, a.get("axis", 0))
    sizes, count = a.given("split", 1), len(a.node.output)
    if sizes is None:
        size = -(-x.shape[at] // count)
        sizes = [min(size, x.shape[at] - k * size) for k in range(count)]
    return g.parts(name, x, at, sizes)


def _gather(g: Graph, name: str, a: Call) -> Value:
    x, index = a.value(), np.asarray(a.array(1))
    at = g.axis(name, x, a.get("axis", 0))
    if index.ndim == 0:
        return g.select(name, x, at, int(index))
    if index.ndim == 1:
        return g.gather(name, x, at, index.tolist())
    raise UnsupportedError(f"{name}: Gather with an array of indices {index.shape} is not supported")


def _pow(g: Graph, name: str, a: Call) -> Value:
    exponent = a.array(1)
    if exponent.size != 1:
        raise UnsupportedError(f"{name}: Pow with an array of exponents {exponent.shape} is not supported")
    return g.power(name, a.value(), float(exponent.reshape(())))


def _pad(g: Graph, name: str, a: Call) -> Value:
    x = a.value()
    mode = a.get("mode", "constant")
    if mode not in ("constant", "reflect", "edge", "wrap"):
        raise UnsupportedError(f"{name}: padding of mode {mode!r} is not supported")
    pads = a.given("pads", 1)
    value = a.given("value", 2, 0)
    axes = a.given("axes", 3, range(len(pads) // 2))
    pairs = [(0, 0)] * (len(x.shape) + 1)
    for n, axis in enumerate(axes):
        pairs[axis] = pads[n], pads[n + len(pads) // 2]
    if any(pairs[0]):
        raise UnsupportedError(f"{name}: padding of the batch axis is not supported")
    return g.pad(name, x, pairs[1:], value[0] if isinstance(value, list) else value, mode)


def _expand(g: Graph, name: str, a: Call) -> Value:
    x, shape = a.value(), a.given("shape", 1)
    rank = len(x.shape) + 1
    shape = [1] * (rank - len(shape)) + list(shape)
    if len(shape) > rank:
        raise UnsupportedError(f"{name}: Expand to more axes is not supported")
    return g.expand(name, x, [max(n, m) for n, m in zip(x.shape, shape[1:])])


def _resize(g: Graph, name: str, a: Call) -> Value:
    x = a.value()
    mode = a.get("mode", "nearest")
    if mode not in ("nearest", "linear") or a.get("antialias", 0):
        raise UnsupportedError(f"{name}: interpolation {mode!r} is not supported, or with antialias")
    if a.get("keep_aspect_ratio_policy", "stretch") != "stretch":
        raise UnsupportedError(f"{name}: keep_aspect_ratio_policy is not supported")
    n = 2 if a.node.op_type == "Resize" and a.opset >= 11 else 1
    rank = len(x.shape) + 1
    axes = [axis % rank for axis in a.get("axes", range(rank))]
    factors, scales = [1.0] * rank, a.given("scales", n)
    given = scales or a.given("sizes", 3)
    for axis, value in zip(axes, given):
        if axis > 0:
            factors[axis] = value if scales else value / x.shape[axis - 1]
        elif scales and value != 1:
            raise UnsupportedError(f"{name}: resizing of the batch is not supported")
    if factors[1] != 1:
        raise UnsupportedError(f"{name}: resizing of channels is not supported")
    modern = a.node.op_type == "Resize" and a.opset >= 11
    coordinates = a.get("coordinate_transformation_mode", "half_pixel") if modern else "asymmetric"
    if mode == "linear":
        return _interpolated(g, name, x, factors[2:], coordinates)
    rounding = a.get("nearest_mode", "round_prefer_floor") if modern else "floor"
    for size, factor in zip(x.shape[1:], factors[2:]):
        if factor == round(factor) and not _repeats(size, int(factor), coordinates, rounding):
            raise UnsupportedError(
                f"{name}: nearest with {coordinates!r} and {rounding!r} does more than repeat values"
            )
    return g.upsampled(name, x, factors[2:])


def _interpolated(g: Graph, name: str, x: Value, factors: list[float], coordinates: str) -> Value:
    """Linear interpolation, to sizes that are whole: else ONNX counts with the factor, not with sizes."""
    size = [n * f for n, f in zip(x.shape[1:], factors)]
    places = "half_pixel" if coordinates == "pytorch_half_pixel" and min(size) > 1 else coordinates
    if places not in PLACES or any(abs(n - round(n)) > 1e-6 for n in size):
        raise UnsupportedError(
            f"{name}: linear interpolation with {coordinates!r} to {size} is not supported"
        )
    return g.interpolated(name, x, [round(n) for n in size], places)


def _repeats(size: int, factor: int, coordinates: str, rounding: str) -> bool:
    """Whether output i takes input ``i // factor``, by ONNX' formulas for Resize."""
    i = np.arange(size * factor)
    places = {
        "half_pixel": (i + 0.5) / factor - 0.5,
        "half_pixel_symmetric": (i + 0.5) / factor - 0.5,
        "pytorch_half_pixel": (i + 0.5) / factor - 0.5 if size * factor > 1 else 0.0 * i,
        "asymmetric": i / factor,
        "align_corners": i * (size - 1) / max(size * factor - 1, 1),
        "tf_half_pixel_for_nn": (i + 0.5) / factor,
    }
    roundings: dict[str, Callable] = {
        "round_prefer_floor": lambda v: np.ceil(v - 0.5),
        "round_prefer_ceil": lambda v: np.floor(v + 0.5),
        "floor": np.floor,
        "ceil": np.ceil,
    }
    if coordinates not in places or rounding not in roundings:
        return False
    taken = roundings[rounding](places[coordinates]).clip(0, size - 1)
    return bool((taken == i // factor).all())


def _depth_to_space(g: Graph, name: str, a: Call) -> Value:
    x, b = a.value(), a.get("blocksize")
    c, h, w = x.shape
    crd = a.get("mode", "DCR") == "CRD"
    cut = (c // b**2, b, b, h, w) if crd else (b, b, c // b**2, h, w)
    x = g.reshape(f"{name}.cut", x, cut)
    x = g.permute(f"{name}.move", x, (0, 1, 4, 2, 5, 3) if crd else (0, 3, 4, 1, 5, 2))
    return g.reshape(name, x, (c // b**2, h * b, w * b))


def _space_to_depth(g: Graph, name: str, a: Call) -> Value:
    x, b = a.value(), a.get("blocksize")
    c, h, w = x.shape
    if h % b or w % b:
        raise UnsupportedError(f"{name}: samples {x.shape} can't be cut into blocks of {b} x {b}")
    cut = g.reshape(f"{name}.cut", x, (c, h // b, b, w // b, b))
    moved = g.permute(f"{name}.move", cut, (0, 3, 5, 1, 2, 4))
    return g.reshape(name, moved, (c * b**2, h // b, w // b))


def _rms_norm(g: Graph, name: str, a: Call) -> Value:
    x = a.value()
    at = g.axis(name, x, a.get("axis", -1))
    gamma = np.broadcast_to(a.array(1), x.shape[at:])
    return g.add(name, L.RMSNorm(gamma, a.get("epsilon", 1e-5), tuple(range(at, len(x.shape)))), x)


def _cast(g: Graph, name: str, a: Call) -> Any:
    if a.get("to") not in (1, 10, 11, 16):
        raise UnsupportedError(f"{name}: a cast to another type than floating point is not supported")
    return a.value()


def _same(g: Graph, name: str, a: Call) -> Any:
    if a.has(2) and np.any(a.array(2)):
        raise UnsupportedError(f"{name}: dropout in training mode is not supported")
    return [a.value(), None][: len(a.node.output)]


OPERATIONS: dict[str, Callable[[Graph, str, Call], Any]] = {
    "Conv": _conv,
    "ConvTranspose": _conv_transpose,
    "Gemm": _gemm,
    "MatMul": lambda g, name, a: g.product(name, a.operand(0), a.operand(1)),
    "BatchNormalization": _batch_norm,
    "LRN": _lrn,
    "InstanceNormalization": lambda g, name, a: g.add(
        name, L.InstanceNorm(gamma=a.array(1), beta=a.array(2), eps=a.get("epsilon", 1e-5)), a.value()
    ),
    "LayerNormalization": _layer_norm,
    "RMSNormalization": _rms_norm,
    "GroupNormalization": _group_norm,
    "LpNormalization": _lp_norm,
    "MaxPool": _pool(L.MaxPool1D, L.MaxPool2D, L.MaxPool3D),
    "AveragePool": _pool(L.AveragePool1D, L.AveragePool2D, L.AveragePool3D),
    "GlobalMaxPool": _activation(lambda a: L.GlobalMaxPool(True)),
    "GlobalAveragePool": _activation(lambda a: L.GlobalAveragePool(True)),
    "Relu": _activation(lambda a: L.ReLU()),
    "LeakyRelu": _activation(lambda a: L.LeakyReLU(a.get("alpha", 0.01))),
    "ThresholdedRelu": _activation(lambda a: L.ReLU(threshold=a.get("alpha", 1.0))),
    "PRelu": _prelu,
    "Elu": _activation(lambda a: L.ELU(a.get("alpha", 1.0))),
    "Celu": _activation(lambda a: L.CELU(a.get("alpha", 1.0))),
    "Selu": _activation(_selu),
    "Mish": _activation(lambda a: L.Mish()),
    "Gelu": _activation(lambda a: L.GELU(a.get("approximate", "none") == "tanh")),
    "Sigmoid": _activation(lambda a: L.Sigmoid()),
    "Sqrt": _activation(lambda a: L.Sqrt()),
    "Tanh": _activation(lambda a: L.Tanh()),
    "Softplus": _activation(lambda a: L.Softplus()),
    "HardSigmoid": _activation(lambda a: L.HardSigmoid(a.get("alpha", 0.2), a.get("beta", 0.5))),
    "HardSwish": _activation(lambda a: L.HardSwish()),
    "Abs": _activation(lambda a: L.LeakyReLU(-1.0)),
    "Clip": _clip,
    "Softmax": _softmax(L.Softmax),
    "LogSoftmax": _softmax(L.LogSoftmax),
    "Add": _binary("+"),
    "Sub": _binary("-"),
    "Mul": _binary("*"),
    "Div": _binary("/"),
    "Pow": _pow,
    "Neg": lambda g, name, a: g.affine(name, a.value(), -1.0, 0.0),
    "Sum": _several(L.Add),
    "Mean": _several(L.Average),
    "Max": _max(True),
    "Min": _max(False),
    "Concat": lambda g, name, a: g.join(
        name, [a.value(n) for n in range(len(a))], g.axis(name, a.value(), a.get("axis"))
    ),
    "Flatten": _flatten,
    "Reshape": _reshape,
    "Squeeze": _squeeze,
    "Unsqueeze": _unsqueeze,
    "Transpose": _transpose,
    "Slice": _slice,
    "Split": _split,
    "Gather": _gather,
    "Pad": _pad,
    "Expand": _expand,
    "ReduceMean": _reduce(L.GlobalAveragePool),
    "ReduceSum": _reduce(L.GlobalSumPool),
    "ReduceMax": _reduce(L.GlobalMaxPool),
    **dict.fromkeys(("Resize", "Upsample"), _resize),
    "DepthToSpace": _depth_to_space,
    "SpaceToDepth": _space_to_depth,
    **dict.fromkeys(("Identity", "Dropout"), _same),
    "Cast": _cast,
}
"""The operators of ONNX that are understood."""

OPERATIONS |= onnx_sequences.OPERATIONS
OPERATIONS |= {"Gather": onnx_sequences.gather(_gather), "Reshape": onnx_sequences.reshape(_reshape)}
