"""LXT's explicit functions at work on a network of ours: dense and attention layers in PyTorch."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F

from .. import layers as L
from ..errors import UnsupportedError
from ..network import Network
from ..nonlinear import Bilinear, SoftmaxTaylor, Uniform
from ..rules import Epsilon, Pass, Rule

ACTIVATIONS: dict[type, Callable] = {
    L.ReLU: F.relu,
    L.Tanh: torch.tanh,
    L.Sigmoid: torch.sigmoid,
    L.SiLU: F.silu,
}


class _Unchanged(torch.autograd.Function):
    """A function of single values that passes relevance on unchanged."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, function: Callable) -> torch.Tensor:
        return function(x)

    @staticmethod
    def backward(ctx: Any, R: torch.Tensor) -> tuple:  # type: ignore[override]
        return R, None


def lxt(
    network: Network,
    x: np.ndarray,
    rules: Mapping[str, Rule],
    R: np.ndarray,
    normalization: str = "linear",
) -> dict[str, np.ndarray]:
    """Relevance of every value by LXT's explicit functions; parameters as `peers.zennit`.

    Raises
    ------
    UnsupportedError
        A layer, or a rule for it, that LXT does not have.
    """
    (source,) = network.inputs
    values = {source: _tensor(x).requires_grad_()}
    for node in network.nodes:
        layer, rule = node.layer, rules.get(node.name)
        given = [values[name] for name in node.inputs]
        try:
            made = _made(layer, rule, given)
        except UnsupportedError as error:
            raise UnsupportedError(f"layer {node.name!r} ({type(layer).__name__}): {error}") from None
        if made.requires_grad:
            made.retain_grad()
        values[node.name] = made
    values[network.outputs[0]].backward(_tensor(R))  # type: ignore[no-untyped-call]
    return {name: value.grad.numpy() for name, value in values.items() if value.grad is not None}


def _tensor(a: Any) -> torch.Tensor:
    return torch.tensor(np.array(a, np.float64))


def _made(layer: Any, rule: Rule | None, x: list[torch.Tensor]) -> torch.Tensor:
    """The output, of one of LXT's functions."""
    from lxt.explicit import functional as f  # type: ignore

    plain = type(rule) is Epsilon and not rule.relative  # type: ignore[attr-defined]
    if isinstance(layer, L.Dense) and plain:
        bias = None if layer.bias is None else _tensor(layer.bias)
        return f.linear_epsilon(x[0], _tensor(layer.weight), bias, rule.epsilon)  # type: ignore[union-attr]
    if isinstance(layer, L.Add) and plain and len(x) == 2 and x[0].shape == x[1].shape:
        return f.add2(*x, False, rule.epsilon)  # type: ignore[union-attr]
    if isinstance(layer, L.MatMul) and type(rule) is Bilinear and rule.doubled:
        b = x[1].transpose(-1, -2) if layer.transposed else x[1]
        product = f.matmul(x[0], b, False, rule.epsilon)
        return _Unchanged.apply(product, lambda O: O * layer.scale)  # type: ignore[no-untyped-call]
    if type(layer) is L.Softmax and isinstance(rule, SoftmaxTaylor):
        last = layer.axis in (-1, x[0].ndim - 2)
        if last:
            return f.softmax(x[0], -1)
    if isinstance(layer, L.LayerNorm) and tuple(a % (x[0].ndim - 1) for a in layer.axes) == (x[0].ndim - 2,):
        if plain:
            width = x[0].shape[-1]
            gamma = np.ones(width) if layer.gamma is None else layer.gamma.reshape(-1)
            beta = np.zeros(width) if layer.beta is None else layer.beta.reshape(-1)
            return f.layer_norm(x[0], _tensor(gamma), _tensor(beta), layer.eps)
    if type(layer) is L.RMSNorm and type(rule) is Pass:
        width = x[0].shape[-1]
        gamma = np.ones(width) if layer.gamma is None else layer.gamma.reshape(-1)
        return f.rms_norm_identity(x[0], _tensor(gamma), layer.eps)
    if isinstance(layer, L.Multiply) and type(rule) is Uniform and len(x) == 2:
        return f.mul2(*x)
    if rule is None or type(layer) in ACTIVATIONS:
        return _moved(layer, x)
    raise UnsupportedError(f"LXT has no rule {rule} for it")


def _moved(layer: Any, x: list[torch.Tensor]) -> torch.Tensor:
    """Activations, whose relevance passes unchanged, and views."""
    if type(layer) in ACTIVATIONS and not getattr(layer, "max_value", None):
        return _Unchanged.apply(x[0], ACTIVATIONS[type(layer)])  # type: ignore[no-untyped-call]
    if isinstance(layer, L.Flatten):
        return x[0].flatten(1)
    if isinstance(layer, L.Reshape):
        return x[0].reshape(len(x[0]), *layer.shape)
    if isinstance(layer, L.Transpose):
        return x[0].permute(0, *(a + 1 for a in layer.axes))
    if isinstance(layer, L.Identity):
        return x[0]
    raise UnsupportedError("it is not translated to LXT")
