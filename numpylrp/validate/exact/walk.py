"""Forward and back."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

from ...errors import LRPError, ShapeError
from ...rules import AbsZ, Pass
from .fusing import fuse_nodes
from .layers import Lrn, Node, Top, exact_nodes
from .rules import large, pruned
from .tensors import ZERO, Tensor, along, tensor


def _inputs(network: Any, x: Any) -> dict[str, Tensor]:
    x = x if isinstance(x, Mapping) else {next(iter(network.inputs)): x}
    found = {name: tensor(x[name]) for name in network.inputs}
    for name, want in network.inputs.items():
        got = found[name].shape
        if len(got) != len(want) or any(n not in (None, m) for n, m in zip(want, got)):
            raise ShapeError(f"input {name!r} must be one sample of shape {want}, not {got}")
    return found


def record(nodes: Mapping[str, Node], x: Mapping[str, Tensor]) -> dict[str, Tensor]:
    values = dict(x)
    for node in nodes.values():
        if not isinstance(node.op, Top):
            flat = [v for name in node.inputs for v in values[name].values]
            values[node.name] = Tensor(node.shape, node.op.forward(flat))
    return values


def forward(network: Any, x: Any) -> dict[str, Tensor]:
    """Exact activations of one sample.

    Parameters
    ----------
    network : Network
    x : array or nested lists of numbers, or a mapping of input name to them
        One sample, without a batch axis.

    Returns
    -------
    dict of Tensor
        By name, the inputs included; a softmax or sigmoid at the end is left out.

    Raises
    ------
    UnsupportedError
        A layer that is not rational, or not known, by its name.

    Examples
    --------
    >>> from numpylrp import Network
    >>> from numpylrp.layers import AveragePool1D
    >>> net = Network([("pool", AveragePool1D(3))], input_shape=(1, 3))
    >>> forward(net, [[1, 2, 0.5]])["pool"].values
    [Fraction(7, 6)]
    """
    given = _inputs(network, x)
    return record(exact_nodes(network, {name: t.shape for name, t in given.items()}), given)


@dataclass(frozen=True)
class Step:
    """What one layer did; x and R_x are tuples where it has several inputs.

    Attributes
    ----------
    x, z : Tensor
        Its input, and its output (of LRN, that of the expansion that relevance is shared by).
    R, R_x : Tensor
        The relevance that it received and that it sent.
    """

    x: Any
    z: Tensor
    R: Tensor
    R_x: Any


@dataclass(frozen=True)
class Result:
    """An exact explanation.

    Attributes
    ----------
    relevance : dict of Tensor
        Of each input, by name.
    steps : dict of Step
        By the layer's name, from the output back. A normalization that is fused is an identity.
    stays : dict of str
        Why a normalization could not be fused, by its name.
    """

    relevance: dict[str, Tensor]
    steps: dict[str, Step]
    stays: dict[str, str]


def explain(
    network: Any,
    x: Any,
    R: Any,
    rules: Mapping[str, Any],
    normalization: str = "linear",
    prune: Any = None,
) -> Result:
    """Exact relevance for one sample, by the definitions.

    Parameters
    ----------
    network : Network
    x : array or nested lists of numbers, or a mapping of input name to them
        One sample, without a batch axis.
    R : int, or array or nested lists of numbers
        A class, whose logit is explained; or the relevance of the (first) output. A softmax or sigmoid
        at the end is left out.
    rules : mapping of str to Rule
        The rule of every layer that takes one, as ``Composite.rules(network)`` gives.
    normalization : str
        Of batch normalization: "linear", "fused", "identity" or "abs-z" (see `numpylrp.explain`).
    prune : numpylrp.pruning.Prune, optional
        Read as data.

    Returns
    -------
    Result

    Raises
    ------
    UnsupportedError
        A layer or rule that is not rational, or not known, by its name.

    Examples
    --------
    >>> from numpylrp import Network
    >>> from numpylrp.layers import BatchNorm, Dense
    >>> from numpylrp.rules import ZPlus
    >>> norm = BatchNorm([2.0], [1.0], [0.0], [1.0], eps=0.0)
    >>> net = Network([("fc", Dense([[1.0, -1.0]], [1.0])), ("bn", norm)], input_shape=(2,))
    >>> rules = {"fc": ZPlus(), "bn": ZPlus()}
    >>> explain(net, [3, 2], 0, rules).relevance["input"].values  # 5 * 4/5 * 3/4
    [Fraction(3, 1), Fraction(0, 1)]
    >>> explain(net, [3, 2], 0, rules, "fused").relevance["input"].values  # 5 * 6 / (6 + 3)
    [Fraction(10, 3), Fraction(0, 1)]
    """
    if normalization not in ("linear", "fused", "identity", "abs-z"):
        raise LRPError(f"there is no normalization {normalization!r}")
    given = _inputs(network, x)
    nodes = exact_nodes(network, {name: t.shape for name, t in given.items()})
    stays: dict[str, str] = {}
    if normalization == "fused":
        nodes, stays = fuse_nodes(nodes, network.outputs)
    if normalization in ("identity", "abs-z"):
        own = Pass() if normalization == "identity" else AbsZ()
        rules = {**rules, **{n.name: own for n in nodes.values() if n.kind == "BatchNorm"}}
    first: dict[str, Any] = {}
    if prune is not None and prune.again:
        first = explain(network, x, R, rules, normalization).steps
    cut = _pruned_layers(network) if prune is not None else ()
    parts_cut = ZERO, ZERO
    if prune is not None:
        below = prune.p / 2 if prune.negative is None else prune.negative
        parts_cut = Fraction(prune.p), Fraction(below)
    values = record(nodes, given)
    top = network.outputs[0]
    top = nodes[top].inputs[0] if isinstance(nodes[top].op, Top) else top
    y = values[top]
    if isinstance(R, int):
        kept = zip(y.values, along(y.shape, 0))
        R = Tensor(y.shape, [v if c == R else ZERO for v, c in kept])
    R = tensor(R)
    if R.shape != y.shape:
        raise ShapeError(f"R must have shape {y.shape}, not {R.shape}")
    relevance, steps = {top: R}, {}
    for node in reversed(nodes.values()):
        if node.name not in relevance:
            continue
        R, parts = relevance.pop(node.name), tuple(values[name] for name in node.inputs)
        x = [v for part in parts for v in part.values]
        if node.name in cut and first:
            left = large(first[node.name].R_x.values, *parts_cut)
            x = [v if ok else ZERO for v, ok in zip(x, left)]
        try:
            R_x = node.op.back(R.values, x, rules.get(node.name), node.shapes, node.shape)
            if node.name in cut and not first:
                R_x = pruned(R_x, *parts_cut)
        except LRPError as error:
            raise type(error)(f"layer {node.name!r} ({node.kind}): {error}") from None
        z = values[node.name]
        z = Tensor(z.shape, node.op.expanded(x).forward(x)) if isinstance(node.op, Lrn) else z
        sent, at = [], 0
        for name, part in zip(node.inputs, parts):
            sent.append(Tensor(part.shape, R_x[at : at + len(part.values)]))
            at += len(part.values)
            before = relevance[name].values if name in relevance else [ZERO] * len(part.values)
            relevance[name] = Tensor(part.shape, [a + b for a, b in zip(before, sent[-1].values)])
        one = len(parts) == 1
        steps[node.name] = Step(parts[0] if one else parts, z, R, sent[0] if one else tuple(sent))
    found = {n: relevance.get(n, Tensor(t.shape, [ZERO] * len(t.values))) for n, t in given.items()}
    return Result(found, steps, stays)


def _pruned_layers(network: Any) -> set[str]:
    """The dense and convolutional layers that another such layer comes before."""
    after: set[str] = set()
    found = set()
    for node in network.nodes:
        has, own = any(name in after for name in node.inputs), node.layer.family in ("dense", "conv")
        if has and own:
            found.add(node.name)
        if has or own:
            after.add(node.name)
    return found


def rounding_error(ours: Any, exact: Tensor) -> float:
    """Largest ``|ours - exact|``, relative to the largest ``|exact|`` of the layer.

    Parameters
    ----------
    ours : array or nested lists of numbers, of one sample
    exact : Tensor

    Returns
    -------
    float
        The difference is exact, and rounded once; where all of `exact` is 0: 0, or inf.

    Examples
    --------
    >>> from fractions import Fraction
    >>> rounding_error([0.5, 0.25], Tensor((2,), [Fraction(1, 2), Fraction(1, 3)]))
    0.16666666666666666
    """
    ours = tensor(ours)
    if ours.shape != exact.shape:
        raise ShapeError(f"ours has shape {ours.shape}, the exact values {exact.shape}")
    most = max((abs(a - b) for a, b in zip(ours.values, exact.values)), default=ZERO)
    scale = max(map(abs, exact.values), default=ZERO)
    return float(most / scale) if scale else math.inf if most else 0.0
