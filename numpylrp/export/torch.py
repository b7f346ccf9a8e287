"""PyTorch modules in our schema: `save` follows a module with torch.export and checks the result.

Needs PyTorch 2.6 or later (``pip install 'numpylrp[torch]'``); what it writes needs nothing of it.
"""

from __future__ import annotations

import copy
import operator
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np

from .. import layers as L
from ..convert import native
from ..errors import LRPError, MissingExtraError, ShapeError, UnsupportedError
from ..network import Network
from .graph import Graph, Value, images

try:
    import torch
    import torch.nn.functional as F
except ImportError:
    raise MissingExtraError("exporting modules needs PyTorch: pip install 'numpylrp[torch]'") from None


def save(module: torch.nn.Module, example_input: Any, path: str | os.PathLike, **options: Any) -> Network:
    """Write a PyTorch module to an HDF5 file of our schema.

    Parameters
    ----------
    module : torch.nn.Module
        Followed in evaluation mode; it is not changed.
    example_input : tensor, or tuple of tensors
        A batch (one sample is enough) as the module takes it.
    path : str or path
    **options
        See `convert`.

    Returns
    -------
    Network
        What was written.

    Raises
    ------
    UnsupportedError
        An operation that has no layer here, by name.
    LRPError
        The network would not compute what the module computes.
    """
    network = convert(module, example_input, **options)
    native.save(network, path)
    return network


def convert(
    module: torch.nn.Module,
    example_input: Any,
    *,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    input_range: tuple[Any, Any] | None = None,
    class_names: Sequence[str] | None = None,
) -> Network:
    """A PyTorch module as a network of ours, checked on the example.

    Parameters
    ----------
    module, example_input
        As in `save`.
    mean, std : sequence of float, optional
        The module expects ``(x - mean) / std`` of each channel: the network does this itself, as its
        first layer, and takes x. The example is what the module takes.
    input_range : (low, high), optional
        Bounds of the network's input, for the z^B rule; with mean and std by default (0, 1).
    class_names : sequence of str, optional
        By default those of the module, where it has ``class_names``, or a configuration with
        ``id2label`` or ``label_names``.

    Examples
    --------
    >>> import torch  # doctest: +SKIP
    >>> net = convert(torch.nn.Sequential(torch.nn.Linear(2, 1)), torch.zeros(1, 2))  # doctest: +SKIP
    """
    given = example_input if isinstance(example_input, (tuple, list)) else (example_input,)
    if not given or not all(isinstance(x, torch.Tensor) and x.ndim > 0 and len(x) for x in given):
        raise ShapeError("example_input is to be a tensor, or a tuple of tensors, with at least one sample")
    copied = copy.deepcopy(module).cpu().eval()
    try:
        with torch.no_grad():
            copied(*(x.detach().cpu() for x in given))
    except Exception as error:  # whatever the module raises
        raise LRPError(f"the module does not run on example_input, samples first: {error}") from error
    # The batch axis can't be told from others of size 1: the example is repeated.
    given = tuple(torch.cat([x.detach().cpu()] * 2) if len(x) == 1 else x.detach().cpu() for x in given)
    tensors = (*copied.parameters(), *copied.buffers(), *given)
    dtype = np.float64 if any(t.dtype == torch.float64 for t in tensors) else np.float32
    try:  # in float64, so that constants that the module works out are exact, and the check is sharp
        wide = (
            copy.deepcopy(copied).double(),
            tuple(x.double() if x.is_floating_point() else x for x in given),
        )
        program, theirs = _exported(*wide)
        tolerance = 1e-10
    except Exception:  # it makes tensors of float32 itself, or can't be followed at all
        program, theirs = _exported(copied, given)
        tolerance = 1e-5
    graph, outputs = _follow(program, len(given[0]))
    metadata: dict[str, Any] = {"source": f"PyTorch {torch.__version__}"}
    names = class_names if class_names is not None else _class_names(module)
    if names is not None:
        metadata["class_names"] = [str(name) for name in names]
    network = graph.network(outputs, metadata, np.float64)
    _check(network, given, theirs, tolerance)
    network = network.astype(dtype)
    if mean is not None or std is not None:
        network = _normalized(network, mean, std)
        input_range = (0.0, 1.0) if input_range is None else input_range
    if input_range is not None:
        network.metadata["input_range"] = [np.asarray(v, float).tolist() for v in input_range]
    return network


def _exported(module: torch.nn.Module, given: tuple) -> tuple[Any, list[np.ndarray]]:
    """The module's graph, and its outputs for the example."""
    try:
        with torch.no_grad(), _whole_functions():
            program = torch.export.export(module, given, strict=False)
    except Exception as error:  # torch.export raises whatever the module does
        raise UnsupportedError(f"torch.export can't follow the module: {error}") from error
    with torch.no_grad():
        leaves = torch.utils._pytree.tree_leaves(module(*given))
    return program, [t.double().numpy() for t in leaves if isinstance(t, torch.Tensor)]


def _class_names(module: Any) -> list[str] | None:
    """What a module says of its classes (Hugging Face: config.id2label, timm: pretrained_cfg)."""
    own = getattr(module, "class_names", None)
    labels = getattr(getattr(module, "config", None), "id2label", None)
    if own is None and isinstance(labels, dict):
        own = [labels[k] for k in sorted(labels)]
    cfg = getattr(module, "pretrained_cfg", None)
    if own is None and isinstance(cfg, dict):
        own = cfg.get("label_names")
    return list(own) if isinstance(own, (list, tuple)) else None


def _normalized(network: Network, mean: Any, std: Any) -> Network:
    """The network with ``(x - mean) / std`` in front."""
    if len(network.inputs) > 1:
        raise LRPError("mean and std are for modules with one input")
    ((name, shape),) = network.inputs.items()
    mean, std = np.atleast_1d(0.0 if mean is None else mean), np.atleast_1d(1.0 if std is None else std)
    if not (np.asarray(std, float) > 0).all():
        raise LRPError(f"std is to be positive, not {std}")
    layer = L.Affine(*(a.astype(network.dtype) for a in (1 / std, -mean / std)))
    own = "normalize" + "_" * ("normalize" in network)
    layers = [(own, layer, (name,))]
    layers += [(n.name, n.layer, tuple(own if i == name else i for i in n.inputs)) for n in network.nodes]
    return Network(layers, {name: shape}, network.outputs, network.metadata)


@contextmanager
def _whole_functions() -> Iterator[None]:
    """Functions that PyTorch writes as several operations, kept as one while a module is followed."""
    old = F.local_response_norm, F.normalize

    def normalize(input: Any, p: float = 2.0, dim: int = 1, eps: float = 1e-12, out: Any = None) -> Any:
        if p != 2 or not isinstance(dim, int):
            return old[1](input, p, dim, eps, out)
        return torch.ops.numpylrp.normalize(input, dim, eps)

    F.local_response_norm = lambda input, size, alpha=1e-4, beta=0.75, k=1.0: torch.ops.numpylrp.lrn(
        input, size, alpha, beta, k
    )
    F.normalize = normalize
    try:
        yield
    finally:
        F.local_response_norm, F.normalize = old


@torch.library.custom_op("numpylrp::lrn", mutates_args=())
def _lrn_op(x: torch.Tensor, size: int, alpha: float, beta: float, k: float) -> torch.Tensor:
    return F.local_response_norm(x, size, alpha, beta, k)


@torch.library.custom_op("numpylrp::normalize", mutates_args=())
def _normalize_op(x: torch.Tensor, dim: int, eps: float) -> torch.Tensor:
    return F.normalize(x, dim=dim, eps=eps)


_lrn_op.register_fake(lambda x, size, alpha, beta, k: torch.empty_like(x))
_normalize_op.register_fake(lambda x, dim, eps: torch.empty_like(x))


def _array(tensor: torch.Tensor) -> np.ndarray:
    tensor = tensor.detach().cpu()
    return (tensor.float() if tensor.dtype in (torch.float16, torch.bfloat16) else tensor).numpy()


def _follow(program: Any, batch: int) -> tuple[Graph, list[Value]]:
    """The graph of an exported program, node by node."""
    signature = program.graph_signature
    held = {
        **{n: program.state_dict[t] for n, t in signature.inputs_to_parameters.items()},
        **{
            n: program.state_dict[t] if t in program.state_dict else program.constants[t]
            for n, t in signature.inputs_to_buffers.items()
        },
        **{n: program.constants[t] for n, t in signature.inputs_to_lifted_tensor_constants.items()},
    }
    names = [n for n in signature.user_inputs if isinstance(n, str)]
    shapes: dict[str, tuple] = {}
    values: dict[Any, Any] = {}
    nodes = list(program.graph.nodes)
    for node in nodes:
        if node.op == "placeholder" and node.name in names:
            shapes[node.name if len(names) > 1 else "input"] = tuple(node.meta["val"].shape[1:])
    graph = Graph(shapes)
    for node in nodes:
        if node.op == "placeholder":
            if node.name in held:
                values[node] = held[node.name]
            elif node.name in names:
                name = node.name if len(names) > 1 else "input"
                values[node] = Value(name, shapes[name])
        elif node.op == "call_function":
            values[node] = _call(graph, node, values, batch)
        elif node.op == "output":
            (results,) = node.args
            users = [r for r in results if getattr(r, "name", None) in signature.user_outputs]
            outputs = [values[r] for r in users]
    if not outputs or not all(isinstance(v, Value) for v in outputs):
        raise UnsupportedError("the module's outputs are to be tensors that depend on its input")
    return graph, outputs


def _name(node: Any) -> str:
    """The path of the module that an operation stands in; for more than one there, with the operation."""
    stack = list((node.meta.get("nn_module_stack") or {}).values())
    path, kind = stack[-1] if stack else ("", "")
    kind = kind if isinstance(kind, str) else kind.__module__
    if path and kind.startswith("torch.nn.modules"):
        return path
    return f"{path}.{node.name}" if path else node.name


def _call(graph: Graph, node: Any, values: dict, batch: int) -> Any:
    given = torch.fx.node.map_arg((node.args, node.kwargs), lambda n: values[n])
    if node.target is operator.getitem:
        return given[0][0][given[0][1]]
    if not any(isinstance(v, Value) for v in _flat(given)):
        return node.target(*given[0], **given[1])  # what no input takes part in is a constant
    name = _name(node)
    schema = getattr(node.target, "_schema", None)
    key = schema.name if schema is not None else str(node.target)
    kind, own = key.split("::")[-1], not key.startswith("numpylrp::")
    plain = kind.rstrip("_") if own else kind
    build = OPERATIONS.get(plain)
    if build is None:
        raise UnsupportedError(
            f"{name}: the operation {kind!r} is not supported; there are {', '.join(sorted(OPERATIONS))}"
        )
    args = {a.name: a.default_value for a in schema.arguments if a.has_default_value()}
    args.update(zip((a.name for a in schema.arguments), given[0]))
    args.update(given[1])
    result = build(graph, name, _Args(args, batch, node))
    if own and kind.endswith("_") and not kind.endswith("__"):
        values[node.args[0]] = result  # written in place: who reads the argument later sees this
    return result


def _flat(given: Any) -> Iterator[Any]:
    if isinstance(given, Value) or not isinstance(given, (tuple, list, dict)):
        yield given
        return
    for item in given.values() if isinstance(given, dict) else given:
        yield from _flat(item)


class _Args:
    """The arguments of a call by their names in PyTorch."""

    def __init__(self, args: dict[str, Any], batch: int, node: Any) -> None:
        self.args, self.batch, self.node = args, batch, node

    def __getitem__(self, name: str) -> Any:
        return self.args[name]

    def get(self, name: str, default: Any = None) -> Any:
        """An argument that not every version of PyTorch has."""
        return self.args.get(name, default)

    def array(self, name: str) -> np.ndarray | None:
        """A parameter."""
        value = self.args.get(name)
        if isinstance(value, Value):
            raise UnsupportedError(f"{self.node.name}: {name} depends on the input, which is not supported")
        return None if value is None else _array(value)

    def operand(self, name: str) -> Any:
        """A value of the network, or a constant."""
        value = self.args[name]
        return _array(value) if isinstance(value, torch.Tensor) else value

    def key(self, *names: str) -> tuple:
        """What makes two calls of one module alike: parameters by identity, options by value."""
        return tuple(id(v) if isinstance(v := self.args.get(n), torch.Tensor) else repr(v) for n in names)


# ---------------------------------------------------------------- operations


def _pairs(padding: Sequence[int]) -> tuple[tuple[int, int], ...]:
    return tuple((int(p), int(p)) for p in padding)


def _full(value: Any, rank: int) -> tuple[int, ...]:
    """One integer an axis, as PyTorch leaves out what repeats."""
    values = [value] if isinstance(value, int) else list(value)
    return tuple(values * rank if len(values) == 1 else values)


def _linear(g: Graph, name: str, a: _Args) -> Value:
    layer = g.shared(("linear", a.key("weight", "bias")), lambda: L.Dense(a.array("weight"), a.array("bias")))
    return g.add(name, layer, a["input"])


def _conv(g: Graph, name: str, a: _Args) -> Value:
    x, w = a["input"], a.array("weight")
    kind, rank = images(name, x, L.Conv1D, L.Conv2D), w.ndim - 2
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


def _conv_transpose(g: Graph, name: str, a: _Args) -> Value:
    x, w = a["input"], a.array("weight")
    rank = w.ndim - 2
    if rank != 2:
        raise UnsupportedError(f"{name}: a transposed convolution in {rank} dimensions is not supported")
    layer = L.Conv2DTranspose(
        w,
        a.array("bias"),
        _full(a["stride"], 2),
        _pairs(_full(a["padding"], 2)),
        _full(a["dilation"], 2),
        a["groups"],
        _full(a["output_padding"], 2),
    )
    return g.add(name, layer, x)


def _convolution(g: Graph, name: str, a: _Args) -> Value:
    return (_conv_transpose if a["transposed"] else _conv)(g, name, a)


def _batch_norm(g: Graph, name: str, a: _Args) -> Value:
    if a.get("training") or a["running_mean"] is None:
        raise UnsupportedError(
            f"{name}: batch normalization with the statistics of the batch would mix samples "
            "(track_running_stats=False?)"
        )
    layer = g.shared(
        ("bn", a.key("weight", "bias", "running_mean", "eps")),
        lambda: L.BatchNorm(
            *(a.array(n) for n in ("weight", "bias", "running_mean", "running_var")), eps=a["eps"]
        ),
    )
    return g.add(name, layer, a["input"])


def _instance_norm(g: Graph, name: str, a: _Args) -> Value:
    if not a["use_input_stats"]:
        return _batch_norm(g, name, a)
    layer = L.InstanceNorm(gamma=a.array("weight"), beta=a.array("bias"), eps=a["eps"])
    return g.add(name, layer, a["input"])


def _last(shape: Sequence[int]) -> tuple[int, ...]:
    return tuple(range(-len(shape), 0))


def _layer_norm(g: Graph, name: str, a: _Args) -> Value:
    axes = _last(a["normalized_shape"])
    return g.add(name, L.LayerNorm(a.array("weight"), a.array("bias"), a["eps"], axes), a["input"])


def _rms_norm(g: Graph, name: str, a: _Args) -> Value:
    eps = a["eps"]
    if eps is None:
        eps = float(torch.finfo(a.node.meta["val"].dtype).eps)
    return g.add(name, L.RMSNorm(a.array("weight"), eps, _last(a["normalized_shape"])), a["input"])


def _group_norm(g: Graph, name: str, a: _Args) -> Value:
    layer = L.GroupNorm(a["num_groups"], a.array("weight"), a.array("bias"), a["eps"])
    return g.add(name, layer, a["input"])


def _normalize(g: Graph, name: str, a: _Args) -> Value:
    return g.add(name, L.UnitNorm(a["eps"], g.axis(name, a["x"], a["dim"])), a["x"])


def _lrn(g: Graph, name: str, a: _Args) -> Value:
    return g.add(name, L.LRN(a["size"], a["alpha"], a["beta"], a["k"]), a["x"])


def _max_pool(g: Graph, name: str, a: _Args) -> Value:
    x = a["self"]
    kind = images(name, x, L.MaxPool1D, L.MaxPool2D)
    rank = len(x.shape) - 1
    if any(d != 1 for d in _full(a["dilation"], rank)):
        raise UnsupportedError(f"{name}: maximum pooling with dilation is not supported")
    kernel = _full(a["kernel_size"], rank)
    stride = _full(a["stride"], rank) if a["stride"] else kernel
    return g.add(name, kind(kernel, stride, _pairs(_full(a["padding"], rank)), a["ceil_mode"]), x)


def _avg_pool(g: Graph, name: str, a: _Args) -> Value:
    x = a["self"]
    kind = images(name, x, L.AveragePool1D, L.AveragePool2D)
    rank = len(x.shape) - 1
    if a.get("divisor_override"):
        raise UnsupportedError(f"{name}: average pooling with divisor_override is not supported")
    kernel = _full(a["kernel_size"], rank)
    stride = _full(a["stride"], rank) if a["stride"] else kernel
    padding = _pairs(_full(a["padding"], rank))
    return g.add(name, kind(kernel, stride, padding, a["ceil_mode"], count_padding=a["count_include_pad"]), x)


def _adaptive(largest: bool) -> Callable:
    def build(g: Graph, name: str, a: _Args) -> Any:
        x = a["self"]
        y = g.adaptive(name, x, _full(a["output_size"], len(x.shape) - 1), largest)
        return (y, None) if a.node.target._schema.name.endswith("adaptive_max_pool2d") else y

    return build


def _upsample(g: Graph, name: str, a: _Args) -> Value:
    x, out = a["input"] if "input" in a.args else a["self"], a.get("output_size")
    factors = a.get("scale_factors")
    if out is not None:
        factors = [o / n for o, n in zip(out, x.shape[1:])]
    return g.upsampled(name, x, factors)


def _activation(make: Callable[[_Args], L.Layer], first: str = "self") -> Callable:
    def build(g: Graph, name: str, a: _Args) -> Value:
        return g.add(name, make(a), a["input"] if first not in a.args else a[first])

    return build


def _clip(low: Any, high: Any) -> L.Layer:
    low, high = (None if v is None else float(v) for v in (low, high))
    return L.ReLU(high) if low == 0 else L.Clip(low, high)


def _softplus(a: _Args) -> L.Layer:
    return L.Softplus(float(a["beta"]))


def _elu(a: _Args) -> L.Layer:
    if (a["scale"], a["input_scale"]) != (1, 1):
        raise UnsupportedError("elu with scales is not supported")
    return L.ELU(float(a["alpha"]))


def _softmax(kind: type) -> Callable:
    def build(g: Graph, name: str, a: _Args) -> Value:
        return g.add(name, kind(g.axis(name, a["self"], a["dim"])), a["self"])

    return build


def _threshold(a: _Args) -> L.Layer:
    if a["value"] != 0 or a["threshold"] < 0:
        raise UnsupportedError("a threshold with a value other than 0 is not supported")
    return L.ReLU(threshold=float(a["threshold"]))


def _prelu(g: Graph, name: str, a: _Args) -> Value:
    slope = a.array("weight")
    return g.add(name, L.PReLU(slope if slope.size > 1 else slope.reshape(())), a["self"])


def _binary(kind: str) -> Callable:
    def build(g: Graph, name: str, a: _Args) -> Any:
        x, y, alpha = a.operand("self"), a.operand("other"), a.get("alpha", 1)
        if a.get("rounding_mode"):
            raise UnsupportedError(f"{name}: division with rounding is not supported")
        if alpha != 1:
            y = g.combine(f"{name}.alpha", "*", y, float(alpha))
        return g.combine(name, kind, x, y)

    return build


def _rsub(g: Graph, name: str, a: _Args) -> Any:
    return g.combine(name, "-", a.operand("other"), a.operand("self"))


def _merge(kind: type) -> Callable:
    return lambda g, name, a: g.several(name, kind, [a.operand("self"), a.operand("other")])


def _addmm(g: Graph, name: str, a: _Args) -> Value:
    if (a["beta"], a["alpha"]) != (1, 1):
        raise UnsupportedError(f"{name}: addmm with factors is not supported")
    return g.product(name, a.operand("mat1"), a.operand("mat2"), a.array("self"))


def _reduce(kind: type) -> Callable:
    def build(g: Graph, name: str, a: _Args) -> Value:
        axes = a["dim"]
        axes = None if axes is None or axes == [] else [axes] if isinstance(axes, int) else axes
        if axes is None:
            raise UnsupportedError(f"{name}: a reduction over all axes would mix samples")
        return g.reduced(name, kind, a["self"], axes, bool(a["keepdim"]))

    return build


def _flatten(g: Graph, name: str, a: _Args) -> Value:
    x = a["self"]
    first, last = (g.axis(name, x, a[k]) for k in ("start_dim", "end_dim"))
    return g.reshape(name, x, [*x.shape[:first], -1, *x.shape[last + 1 :]])


def _unflatten(g: Graph, name: str, a: _Args) -> Value:
    x = a["self"]
    at = g.axis(name, x, a["dim"])
    return g.reshape(name, x, [*x.shape[:at], *a["sizes"], *x.shape[at + 1 :]])


def _view(size: str) -> Callable:
    def build(g: Graph, name: str, a: _Args) -> Value:
        shape = list(a[size])
        if shape[:1] not in ([a.batch], [-1]) or (shape[0] == -1 and -1 in shape[1:]):
            raise UnsupportedError(f"{name}: a view as {tuple(shape)} would mix the samples of a batch")
        return g.batch_reshape(name, a["self"], shape)

    return build


def _transpose(g: Graph, name: str, a: _Args) -> Value:
    x = a["self"]
    axes = list(range(len(x.shape) + 1))
    i, j = (a[k] % len(axes) for k in ("dim0", "dim1"))
    axes[i], axes[j] = j, i
    return g.permute(name, x, axes)


def _slice(g: Graph, name: str, a: _Args) -> Value:
    x, dim = a["self"], a["dim"] % (len(a["self"].shape) + 1)
    if dim == 0:
        if (a["start"] or 0, a["step"]) == (0, 1) and (a["end"] is None or a["end"] >= a.batch):
            return x
        raise UnsupportedError(f"{name}: a slice of the batch is not supported")
    return g.part(name, x, dim - 1, a["start"], a["end"], a["step"])


def _split(g: Graph, name: str, a: _Args) -> list[Value]:
    x = a["self"]
    at = g.axis(name, x, a["dim"])
    n = x.shape[at]
    size = a.get("split_size", a.get("split_sizes"))
    if "chunks" in a.args:
        size = -(-n // a["chunks"])
    sizes = [min(size, n - k) for k in range(0, n, size)] if isinstance(size, int) else list(size)
    return g.parts(name, x, at, sizes)


def _unbind(g: Graph, name: str, a: _Args) -> list[Value]:
    x = a["self"]
    at = g.axis(name, x, a["dim"])
    return [g.select(f"{name}.{n}", x, at, n) for n in range(x.shape[at])]


def _pad(g: Graph, name: str, a: _Args) -> Value:
    x, pad = a["self"], list(a["pad"])
    if a.get("mode", "constant") != "constant":
        raise UnsupportedError(f"{name}: padding of mode {a['mode']!r} is not supported, only zeros")
    pairs = [(pad[k], pad[k + 1]) for k in range(0, len(pad), 2)][::-1]
    if len(pairs) > len(x.shape):
        raise UnsupportedError(f"{name}: padding of the batch axis is not supported")
    return g.pad(name, x, [(0, 0)] * (len(x.shape) - len(pairs)) + pairs, a.get("value"))


def _expand(g: Graph, name: str, a: _Args) -> Value:
    x = a["self"]
    size = list(a["other"].shape) if "other" in a.args else list(a["size"])[1:]
    return g.expand(name, x, [n if m == -1 else m for n, m in zip(x.shape, size)])


def _stack(g: Graph, name: str, a: _Args) -> Value:
    values = list(a["tensors"])
    at = a["dim"] % (len(values[0].shape) + 2)
    return g.join(name, [g.unsqueeze(f"{name}.{n}", v, [at]) for n, v in enumerate(values)], at - 1)


def _cat(g: Graph, name: str, a: _Args) -> Value:
    values = list(a["tensors"])
    if not all(isinstance(v, Value) for v in values):
        raise UnsupportedError(
            f"{name}: concatenation with a constant is not supported, but padding with zeros is"
        )
    return g.join(name, values, g.axis(name, values[0], a["dim"]))


def _pixel_shuffle(g: Graph, name: str, a: _Args) -> Value:
    x, r = a["self"], a["upscale_factor"]
    c, h, w = x.shape
    x = g.reshape(f"{name}.cut", x, (c // r**2, r, r, h, w))
    x = g.permute(f"{name}.move", x, (0, 1, 4, 2, 5, 3))
    return g.reshape(name, x, (c // r**2, h * r, w * r))


def _channel_shuffle(g: Graph, name: str, a: _Args) -> Value:
    x, k = a["self"], a["groups"]
    c, *size = x.shape
    cut = g.reshape(f"{name}.cut", x, (k, c // k, *size))
    moved = g.permute(f"{name}.move", cut, (0, 2, 1, *range(3, 3 + len(size))))
    return g.reshape(name, moved, x.shape)


def _same(g: Graph, name: str, a: _Args) -> Value:
    if a.get("train") or a.get("training"):
        raise UnsupportedError(f"{name}: dropout in training mode (functional, training=True?)")
    return a["self"] if "self" in a.args else a["input"]


OPERATIONS: dict[str, Callable[[Graph, str, _Args], Any]] = {
    "linear": _linear,
    "addmm": _addmm,
    **dict.fromkeys(
        ("matmul", "mm"),
        lambda g, name, a: g.product(
            name, a.operand("self"), a.operand("other" if "other" in a.args else "mat2")
        ),
    ),
    **dict.fromkeys(("conv1d", "conv2d"), _conv),
    "conv_transpose2d": _conv_transpose,
    "convolution": _convolution,
    **dict.fromkeys(("batch_norm", "_native_batch_norm_legit_no_training"), _batch_norm),
    "instance_norm": _instance_norm,
    "layer_norm": _layer_norm,
    "rms_norm": _rms_norm,
    "group_norm": _group_norm,
    "normalize": _normalize,
    "lrn": _lrn,
    **dict.fromkeys(("max_pool1d", "max_pool2d"), _max_pool),
    **dict.fromkeys(("avg_pool1d", "avg_pool2d"), _avg_pool),
    **dict.fromkeys(("adaptive_avg_pool1d", "adaptive_avg_pool2d"), _adaptive(False)),
    **dict.fromkeys(("adaptive_max_pool1d", "adaptive_max_pool2d"), _adaptive(True)),
    **dict.fromkeys(("upsample_nearest1d", "upsample_nearest2d"), _upsample),
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
    "selu": _activation(lambda a: L.SELU()),
    "gelu": _activation(lambda a: L.GELU(a["approximate"] == "tanh")),
    "silu": _activation(lambda a: L.SiLU()),
    "sigmoid": _activation(lambda a: L.Sigmoid()),
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
    "maximum": _merge(L.Maximum),
    "minimum": _merge(L.Minimum),
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
            "to",
            "_to_copy",
            "lift_fresh_copy",
            "type_as",
            "identity",
        ),
        _same,
    ),
}
"""The operations of PyTorch (ATen) that are understood."""


def _check(network: Network, given: tuple, theirs: list[np.ndarray], tolerance: float) -> None:
    """Our output is the module's on the example, but for `tolerance` of its largest value."""
    ours = network.forward(dict(zip(network.inputs, (x.double().numpy() for x in given))))
    for a, b in zip(list(ours.values()) if isinstance(ours, dict) else [ours], theirs):
        if a.shape != b.shape:
            raise LRPError(f"the network gives {a.shape} where the module gives {b.shape}")
        off, size = float(abs(a - b).max()), max(float(abs(b).max()), 1e-30)
        if not off <= tolerance * size:
            raise LRPError(
                f"the network would not compute what the module computes: on the example they differ by "
                f"{off:.3g}, with values up to {size:.3g}"
            )
