"""Other libraries at work on a network of ours: zennit and captum; LXT and iNNvestigate are beside it.

Needs the extra ``peers``. Their numbers are theirs: rules get the parameters that our rules have, and
everything else (stabilizers, batch normalization, pooling) is what the library does by itself.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from .. import layers as L
from ..bounds import sample_bound
from ..errors import MissingExtraError, UnsupportedError
from ..network import Network
from ..rules import AlphaBeta, Epsilon, Flat, Gamma, Pass, Rule, WSquare, ZBox, ZPlus

try:
    import torch
    import torch.nn.functional as F
    from torch import nn
except ImportError:
    raise MissingExtraError("other libraries need PyTorch: pip install 'numpylrp[peers]'") from None


class _Pad(nn.Module):
    """Zeros around the input of a layer whose padding PyTorch's own layer can't have."""

    def __init__(self, pads: tuple) -> None:
        super().__init__()
        self.pads = [n for pair in reversed(pads) for n in pair]

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return F.pad(x, self.pads)


class _Function(nn.Module):
    """A layer without parameters and without a rule."""

    def __init__(self, function: Callable) -> None:
        super().__init__()
        self.function = function

    def forward(self, *x: torch.Tensor) -> torch.Tensor:
        return self.function(*x)


class AsTorch(nn.Module):
    """A network of ours as a PyTorch module; ``forward(x)`` keeps every value in `values`.

    Parameters
    ----------
    network : Network
        With one input.
    addition : callable, optional
        Makes the module that adds two branches, where a library has its own.
    """

    def __init__(self, network: Network, addition: Callable[[], nn.Module] | None = None) -> None:
        super().__init__()
        if len(network.inputs) != 1:
            raise UnsupportedError("a network with several inputs is not translated")
        self.network, self.addition = network, addition
        self.dtype = torch.float32 if network.dtype == np.float32 else torch.float64
        self.steps = nn.ModuleDict()
        self.plan = []
        for n, node in enumerate(network.nodes):
            made = self._module(node)
            self.plan.append((node.name, node.inputs, [f"n{n}_{k}" for k in range(len(made))]))
            self.steps.update(zip(self.plan[-1][2], made))  # type: ignore[arg-type]
        self.values: dict[str, torch.Tensor] = {}
        self.eval()

    def _key(self, name: str) -> str:
        keys = next(keys for own, _, keys in self.plan if own == name)
        return next(key for key in keys if not isinstance(self.steps[key], _Pad) or len(keys) == 1)

    def module(self, name: str) -> nn.Module:
        """The module that does a layer's work (padding and flattening may take others)."""
        return self.steps[self._key(name)]

    def path(self, name: str) -> str:
        """The name of that module."""
        return f"steps.{self._key(name)}"

    def padded(self, name: str) -> bool:
        """Whether this layer's padding took a module of its own."""
        return any(
            len(keys) > 1 and isinstance(self.steps[keys[0]], _Pad)
            for own, _, keys in self.plan
            if own == name
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        (source,) = self.network.inputs
        values = {source: x}
        left = {name: own for own, sources, _ in self.plan for name in sources}
        for name, sources, keys in self.plan:
            given = [values[s] for s in sources]
            y = self.steps[keys[0]](*given)
            for key in keys[1:]:
                y = self.steps[key](y)
            values[name] = y
            if not self.keep:
                for s in sources:
                    if left[s] == name:
                        del values[s]
        self.values = values if self.keep else {}
        return y

    keep = False

    def _fill(self, made: nn.Module, **arrays: Any) -> nn.Module:
        for name, array in arrays.items():
            if array is not None:
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore")  # of an array that can't be written to
                    value = torch.from_numpy(np.ascontiguousarray(array)).to(self.dtype)
                setattr(made, name, nn.Parameter(value) if name in ("weight", "bias") else value)
        return made

    def _module(self, node: Any) -> list[nn.Module]:
        layer, shape = node.layer, self.network.shapes[node.inputs[0]]
        build = MODULES.get(type(layer))
        if build is None:
            raise UnsupportedError(
                f"layer {node.name!r} ({type(layer).__name__}) is not translated to PyTorch"
            )
        made = build(self, layer, shape)
        return made if isinstance(made, list) else [made]


def _conv(own: AsTorch, layer: Any, shape: tuple) -> list[nn.Module]:
    if layer.tap_bias is not None:
        raise UnsupportedError("a bias for each tap is not translated to PyTorch")
    pads = layer.windows.pads(shape[1:])
    plain = all(a == b for a, b in pads)
    into, out = layer.channels
    made = (nn.Conv2d if layer.rank == 2 else nn.Conv1d)(
        into,
        out,
        layer.weight.shape[2:],
        layer.stride,
        tuple(a for a, _ in pads) if plain else 0,
        layer.dilation,
        layer.groups,
        bias=layer.bias is not None,
    )
    own._fill(made, weight=layer.weight, bias=layer.bias)
    return [made] if plain else [_Pad(pads), made]


def _transposed(own: AsTorch, layer: Any, shape: tuple) -> nn.Module:
    if isinstance(layer.padding, str) or any(a != b for a, b in layer.padding):
        raise UnsupportedError("this padding of a transposed convolution is not translated to PyTorch")
    into, out = layer.channels
    made = nn.ConvTranspose2d(
        into,
        out,
        layer.weight.shape[2:],
        layer.stride,
        tuple(a for a, _ in layer.padding),
        layer.output_padding,
        layer.groups,
        layer.bias is not None,
        layer.dilation,
    )
    return own._fill(made, weight=layer.weight, bias=layer.bias)


def _dense(own: AsTorch, layer: Any, shape: tuple) -> nn.Module:
    made = nn.Linear(*layer.weight.shape[::-1], bias=layer.bias is not None)  # type: ignore[misc]
    return own._fill(made, weight=layer.weight, bias=layer.bias)


def _batch_norm(own: AsTorch, layer: Any, shape: tuple) -> nn.Module:
    if layer.axis not in (0, -len(shape)):
        raise UnsupportedError("batch normalization of another axis than the first is not translated")
    kind = {1: nn.BatchNorm1d, 2: nn.BatchNorm1d, 3: nn.BatchNorm2d}[len(shape)]
    made = kind(len(layer.mean), layer.eps)
    own._fill(made, running_mean=layer.mean, running_var=layer.variance)
    ones = np.ones_like(layer.mean)
    gamma = ones if layer.gamma is None else layer.gamma
    return own._fill(made, weight=gamma, bias=0 * ones if layer.beta is None else layer.beta)


def _pool(kinds: tuple) -> Callable:
    def build(own: AsTorch, layer: Any, shape: tuple) -> list[nn.Module]:
        if layer.ceil:
            raise UnsupportedError("pooling that rounds up is not translated to PyTorch")
        pads = layer.windows.pads(shape[1:])
        options: dict[str, Any] = {}
        if isinstance(layer, L.AveragePool2D):
            options["count_include_pad"] = layer.count_padding
        elif isinstance(layer, L.SumPool2D):
            options["divisor_override"] = 1
        if any(a != b for a, b in pads) or getattr(layer, "sign", None) is not None:
            raise UnsupportedError("this pooling is not translated to PyTorch")
        if layer.rank == 1 and "divisor_override" in options:
            raise UnsupportedError("sum pooling in one dimension is not translated to PyTorch")
        return [kinds[layer.rank - 1](layer.kernel, layer.stride, tuple(a for a, _ in pads), **options)]

    return build


def _global_average(own: AsTorch, layer: Any, shape: tuple) -> list[nn.Module]:
    made = [nn.AdaptiveAvgPool2d(1) if len(shape) == 3 else nn.AdaptiveAvgPool1d(1)]
    return made if layer.keepdims else [*made, nn.Flatten()]  # type: ignore[return-value]


def _relu(own: AsTorch, layer: Any, shape: tuple) -> nn.Module:
    if layer.negative_slope or layer.threshold or layer.max_value not in (None, 6):
        raise UnsupportedError(f"{layer} is not translated to PyTorch")
    return nn.ReLU() if layer.max_value is None else nn.ReLU6()


def _lrn(own: AsTorch, layer: Any, shape: tuple) -> nn.Module:
    if layer.within or layer.before not in (None, layer.size // 2):
        raise UnsupportedError("this local response normalization is not translated to PyTorch")
    alpha = layer.alpha if layer.average else layer.alpha * layer.size
    return nn.LocalResponseNorm(layer.size, alpha, layer.beta, layer.k)


def _add(own: AsTorch, layer: Any, shape: tuple) -> nn.Module:
    return _Function(lambda *x: sum(x[1:], x[0])) if own.addition is None else own.addition()


MODULES: dict[type, Callable] = {
    L.Conv1D: _conv,
    L.Conv2D: _conv,
    L.Conv2DTranspose: _transposed,
    L.Dense: _dense,
    L.BatchNorm: _batch_norm,
    **dict.fromkeys((L.MaxPool1D, L.MaxPool2D), _pool((nn.MaxPool1d, nn.MaxPool2d))),
    **dict.fromkeys((L.AveragePool1D, L.AveragePool2D, L.SumPool2D), _pool((nn.AvgPool1d, nn.AvgPool2d))),
    L.GlobalAveragePool: _global_average,
    L.ReLU: _relu,
    L.LRN: _lrn,
    L.Add: _add,
    L.Flatten: lambda own, layer, shape: nn.Flatten(),
    L.Identity: lambda own, layer, shape: nn.Identity(),
    L.Concatenate: lambda own, layer, shape: _Function(lambda *x: torch.cat(x, layer.axis % len(shape) + 1)),
    L.ZeroPadding: lambda own, layer, shape: _Pad(layer.padding),
}
"""The layers that are translated to PyTorch."""


class ZennitSum(nn.Module):
    """A sum of branches as zennit has it: a layer of one stacked input, which its rules run on its own."""

    def __init__(self) -> None:
        super().__init__()
        from zennit.layer import Sum  # type: ignore

        self.sum = Sum(dim=-1)

    def forward(self, *x: torch.Tensor) -> torch.Tensor:
        return self.sum(torch.stack(x, dim=-1))


def zennit(
    network: Network,
    x: np.ndarray,
    rules: Mapping[str, Rule],
    R: np.ndarray,
    normalization: str = "fused",
) -> dict[str, np.ndarray]:
    """Relevance of every value of the network by zennit, by name.

    Linear layers get zennit's rule of the same name. Batch normalization is merged by its canonizer
    where that can be ("fused"), and else passed through, as zennit's composites have it ("identity").

    Parameters
    ----------
    network : Network
    x : (N, *input) array
    rules : dict of Rule
        By layer name; normalization layers need none.
    R : (N, *output) array
        Relevance to start from.
    normalization : str
        What is asked for: zennit has "fused" and "identity", captum "linear".

    Raises
    ------
    UnsupportedError
        A layer or a rule that zennit, or the translation, does not have.
    """
    from zennit import rules as zr  # type: ignore
    from zennit.canonizers import SequentialMergeBatchNorm  # type: ignore
    from zennit.composites import NameMapComposite  # type: ignore

    def translated(rule: Rule, layer: Any) -> Any:
        if isinstance(rule, Epsilon) and not rule.relative:
            return zr.Epsilon(rule.epsilon)
        if isinstance(rule, Gamma):
            return zr.Gamma(rule.gamma)
        if isinstance(rule, ZPlus):
            return zr.ZPlus(zero_params=None if rule.bias else ["bias"])
        if isinstance(rule, AlphaBeta) and rule.bias:
            return zr.AlphaBeta(rule.alpha, rule.beta)
        if isinstance(rule, Flat):
            return zr.Flat()
        if isinstance(rule, WSquare):
            return zr.WSquare()
        if isinstance(rule, ZBox):
            low, high = (torch.from_numpy(sample_bound("ZBox", v, x).copy()) for v in (rule.low, rule.high))
            return zr.ZBox(low, high)
        if isinstance(rule, Pass):
            return zr.Pass()
        raise UnsupportedError(f"zennit has no rule {rule}")

    norms = any(isinstance(node.layer, L.BatchNorm) for node in network.nodes)
    if norms and normalization not in ("fused", "identity"):
        raise UnsupportedError(f"zennit does not treat batch normalization as {normalization!r}")
    model = AsTorch(network, ZennitSum)
    entries = []
    for node in network.nodes:
        layer, rule = node.layer, rules.get(node.name)
        if isinstance(layer, (L.BatchNorm, L.LRN)) or layer.family == "activation":
            entries.append(([model.path(node.name)], zr.Pass()))
        elif isinstance(layer, L.Add):
            own = zr.Norm(rule.epsilon or 1e-6) if isinstance(rule, Epsilon) else zr.Norm()
            entries.append(([f"{model.path(node.name)}.sum"], own))  # as zennit's composites have it
        elif isinstance(rule, (WSquare, ZBox)) and model.padded(node.name):
            raise UnsupportedError(
                f"PyTorch pads {node.name!r} in a layer of its own, and {rule} sees its zeros"
            )
        elif rule is not None:
            entries.append(([model.path(node.name)], translated(rule, layer)))
    composite = NameMapComposite(
        entries, canonizers=[SequentialMergeBatchNorm()] if normalization == "fused" else []
    )
    given = torch.from_numpy(np.ascontiguousarray(x, network.dtype)).requires_grad_()
    with composite.context(model) as ready, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model.keep = True
        y = ready(given)
        values = {k: v for k, v in model.values.items() if v.requires_grad}
        found = torch.autograd.grad(
            y, list(values.values()), torch.from_numpy(np.ascontiguousarray(R)).to(y), allow_unused=True
        )
    return {name: g.numpy() for name, g in zip(values, found) if g is not None}


def captum(
    network: Network,
    x: np.ndarray,
    rules: Mapping[str, Rule],
    R: np.ndarray,
    normalization: str = "linear",
) -> dict[str, np.ndarray]:
    """Relevance of the input by captum; parameters as `zennit`."""
    from captum.attr import LRP  # type: ignore
    from captum.attr._core.lrp import SUPPORTED_LAYERS_WITH_RULES, SUPPORTED_NON_LINEAR_LAYERS  # type: ignore
    from captum.attr._utils.custom_modules import Addition_Module  # type: ignore
    from captum.attr._utils.lrp_rules import Alpha1_Beta0_Rule, EpsilonRule, GammaRule, IdentityRule  # type: ignore

    def translated(rule: Rule | None) -> Any:
        if isinstance(rule, Epsilon) and not rule.relative:
            return EpsilonRule(rule.epsilon)
        if isinstance(rule, Gamma):
            return GammaRule(gamma=rule.gamma)
        if isinstance(rule, ZPlus) and rule.bias:
            return Alpha1_Beta0_Rule()
        raise UnsupportedError(f"captum has no rule {rule}")

    if any(isinstance(node.layer, L.BatchNorm) for node in network.nodes) and normalization != "linear":
        raise UnsupportedError(f"captum does not treat batch normalization as {normalization!r}")
    model = AsTorch(network, Addition_Module)
    for node in network.nodes:
        if isinstance(node.layer, L.MaxPool2D) or node.name not in rules:
            continue  # captum's own
        model.module(node.name).rule = translated(rules[node.name])
    known = (*SUPPORTED_LAYERS_WITH_RULES, *SUPPORTED_NON_LINEAR_LAYERS)
    for module in model.steps.values():
        if not isinstance(module, known) and not hasattr(module, "rule"):
            module.rule = IdentityRule() if isinstance(module, nn.ReLU6) else EpsilonRule()
    given = torch.from_numpy(np.ascontiguousarray(x, network.dtype))
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            found = LRP(_Seeded(model, R)).attribute(given, target=0).detach().numpy()
    except (AssertionError, RuntimeError, TypeError, AttributeError) as error:
        raise UnsupportedError(f"captum: {error}") from None
    (source,) = network.inputs
    return {source: found}


class _Seeded(nn.Module):
    """The module with an output of 1 whose gradient at the module's own output is R.

    captum starts from a logit: it sends the gradient back and multiplies by the logit at the end.
    """

    def __init__(self, module: nn.Module, R: np.ndarray) -> None:
        super().__init__()
        self.module = module
        self.R = torch.from_numpy(np.ascontiguousarray(R))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = (self.module(x) * self.R.to(x)).flatten(1).sum(1, keepdim=True)
        return y + (1 - y.detach())
