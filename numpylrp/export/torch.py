"""PyTorch modules in our schema: `save` follows a module with torch.export and checks the result.

Needs PyTorch 2.6 or later (``pip install 'numpylrp[torch]'``); what it writes needs nothing of it.
"""

from __future__ import annotations

import copy
import operator
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np

from .. import layers as L
from ..convert import native
from ..errors import LRPError, MissingExtraError, ShapeError, UnsupportedError
from ..network import Network
from .graph import Graph, Value
from .torch_operations import OPERATIONS, Args
from .torch_sequences import Later, plain_attention

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
    try:
        copied = copy.deepcopy(module).cpu().eval()
    except RuntimeError as error:
        raise UnsupportedError(
            f"the module can't be copied (weight_norm? remove it first): {error}"
        ) from error
    try:
        with torch.no_grad():
            copied(*(x.detach().cpu() for x in given))
    except Exception as error:  # whatever the module raises
        raise LRPError(f"the module does not run on example_input, samples first: {error}") from error
    # The batch axis can't be told from others of size 1: the example is repeated.
    given = tuple(torch.cat([x.detach().cpu()] * 2) if len(x) == 1 else x.detach().cpu() for x in given)
    tensors = (*copied.parameters(), *copied.buffers(), *given)
    dtype = np.float64 if any(t.dtype == torch.float64 for t in tensors) else np.float32
    metadata: dict[str, Any] = {"source": f"PyTorch {torch.__version__}"}
    names = class_names if class_names is not None else _class_names(module)
    if names is not None:
        metadata["class_names"] = [str(name) for name in names]
    try:  # in float64, so that constants that the module works out are exact, and the check is sharp
        wide = tuple(x.double() if x.is_floating_point() else x for x in given)
        network = _checked(copy.deepcopy(copied).double(), wide, 1e-10, metadata)
    except LRPError:  # it calculates in float32 somewhere, or can't be followed at all
        if dtype == np.float64:
            raise
        network = _checked(copied, given, 1e-5, metadata)
    network = network.astype(dtype)
    if mean is not None or std is not None:
        network = _normalized(network, mean, std)
        input_range = (0.0, 1.0) if input_range is None else input_range
    if input_range is not None:
        network.metadata["input_range"] = [np.asarray(v, float).tolist() for v in input_range]
    return network


def _checked(module: torch.nn.Module, given: tuple, tolerance: float, metadata: dict) -> Network:
    """The module's network, which computes the same on the example and on random samples like it."""
    graph, outputs = _follow(_exported(module, given), len(given[0]))
    network = graph.network(outputs, metadata, np.float64)
    _check(network, given, _outputs(module, given), tolerance)
    others = _others(given)
    try:
        expected = _outputs(module, others)
    except Exception:  # the module takes no other batch size, or asks something of its input
        return network
    _check(network, others, expected, tolerance)
    return network


def _exported(module: torch.nn.Module, given: tuple) -> Any:
    """The module's graph."""
    try:
        with torch.no_grad(), _whole_functions(), plain_attention():
            return torch.export.export(module, given, strict=False)
    except Exception as error:  # torch.export raises whatever the module does
        raise UnsupportedError(f"torch.export can't follow the module: {error}") from error


def _outputs(module: torch.nn.Module, given: tuple) -> list[np.ndarray]:
    with torch.no_grad():
        leaves = torch.utils._pytree.tree_leaves(module(*given))
    return [t.double().numpy() for t in leaves if isinstance(t, torch.Tensor)]


def _others(given: tuple) -> tuple:
    """Random samples of the example's shape and spread, and another number of them: an example of zeros,
    say, would not show much.
    """
    generator = torch.Generator().manual_seed(0)

    def other(x: torch.Tensor) -> torch.Tensor:
        if not x.is_floating_point():
            return x[:1].repeat(5, *(1,) * (x.ndim - 1))
        noise = torch.randn((5, *x.shape[1:]), generator=generator, dtype=torch.float64)
        return (x.double().mean() + noise * (3 * x.double().std(correction=0) or 3)).to(x)

    return tuple(map(other, given))


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
    scale, shift = (a.astype(network.dtype) for a in (1 / std, -mean / std))
    layer = L.Affine(scale, shift)
    own = "normalize" + "_" * ("normalize" in network)
    layers: list[tuple] = [(own, layer, (name,))]
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
        elif node.op == "get_attr":
            raise UnsupportedError(
                f"{node.name}: a part of the module under a context of its own (autocast, enable_grad, "
                "a branch) is not followed"
            )
        elif node.op == "call_function":
            values[node] = _call(graph, node, values, batch)
        elif node.op == "output":
            (results,) = node.args
            nodes_out = [r for r in results if isinstance(r, torch.fx.Node)]
            users = [r for r in nodes_out if r.name in signature.user_outputs]
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
    if "_assert" in str(node.target):
        return None
    if node.target is operator.getitem and not node.users:
        return None
    if node.target is operator.getitem:
        item = given[0][0][given[0][1]]
        return item.make() if isinstance(item, Later) else item
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
    args = {a.name: a.default_value for a in schema.arguments if a.has_default_value()}  # type: ignore[union-attr]
    args.update(zip((a.name for a in schema.arguments), given[0]))  # type: ignore[union-attr]
    args.update(given[1])
    result = build(graph, name, Args(args, batch, node))
    if own and kind.endswith("_") and not kind.endswith("__"):
        values[node.args[0]] = result  # written in place: who reads the argument later sees this
    return result


def _flat(given: Any) -> Iterator[Any]:
    if isinstance(given, Value) or not isinstance(given, (tuple, list, dict)):
        yield given
        return
    for item in given.values() if isinstance(given, dict) else given:
        yield from _flat(item)


def _check(network: Network, given: tuple, theirs: list[np.ndarray], tolerance: float) -> None:
    """Our output is the module's on these samples, but for `tolerance` of its largest value."""
    found = network.forward(dict(zip(network.inputs, (x.double().numpy() for x in given))))
    ours = list(found.values()) if isinstance(found, dict) else [found]
    if len(ours) != len(theirs):
        raise LRPError(f"the network has {len(ours)} outputs where the module has {len(theirs)}")
    for a, b in zip(ours, theirs):
        if a.shape != b.shape:
            raise LRPError(f"the network gives {a.shape} where the module gives {b.shape}")
        off, size = float(abs(a - b).max()), max(float(abs(b).max()), 1e-30)
        if not off <= tolerance * size:
            raise LRPError(
                f"the network would not compute what the module computes: on the example, or random samples "
                f"like it, they differ by {off:.3g}, with values up to {size:.3g}"
            )
