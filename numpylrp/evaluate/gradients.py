"""Gradients of a network's output with respect to its input, from the same layers.

Each kind of layer has its way back, `backward`: linear layers send through their `adjoint`, layers that
move values move them back, a maximum sends to its winner, and activations multiply by their derivative.
At a kink the derivative is that of the flat side, as PyTorch has it for ReLU: 0 at 0.

What is known of a kind holds for its subclasses as long as they compute the same output: one with a
`forward` of its own is refused, and so is every kind that is not named here.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from scipy import special  # type: ignore

from .. import layers as kinds
from .. import seed as seeds
from ..batches import MEMORY
from ..errors import NonFiniteError, UnsupportedError
from ..layers import Layer
from ..layers.lrn import _shifted
from ..network import Network
from ..wiring import sample_shapes
from . import sequence_gradients
from .maps import bytes_of, whole_number
from .scores import Progress, batches, logits_of, up_to

Back = Callable[[Any, np.ndarray, Any, np.ndarray], Any]
"""The gradient of the input (a tuple where the layer merges), of (layer, gradient of the output, x, y)."""

_backs: dict[type[Layer], Back] = {}


def _of(*classes: type[Layer]) -> Callable[[Back], Back]:
    def known(back: Back) -> Back:
        _backs.update(dict.fromkeys(classes, back))
        return back

    return known


def backward(layer: Layer, g: np.ndarray, x: Any, y: np.ndarray) -> Any:
    """The gradient of the input `x`, given the gradient `g` of the output `y`.

    Raises
    ------
    UnsupportedError
        A kind of layer whose derivative is not known here.

    Examples
    --------
    >>> from numpylrp.layers import ReLU
    >>> x = np.array([[-1.0, 0.0, 2.0]])
    >>> backward(ReLU(), np.ones_like(x), x, ReLU().forward(x))
    array([[0., 0., 1.]])
    """
    kind = type(layer)
    known = next((c for c in kind.__mro__ if c in _backs), None)
    same = known is not None and kind.forward is known.forward
    if known is None or not same or (_backs[known] is _moved and kind.relprop is not known.relprop):
        raise UnsupportedError(f"the derivative of {kind.__name__} is not known: no gradient goes through it")
    return _backs[known](layer, g, x, y)


def gradient(
    network: Network,
    x: Any,
    target: Any = None,
    *,
    output: str | None = None,
    batch_size: int | None = None,
    progress: Progress | None = None,
) -> Any:
    """The gradient of the target's logit with respect to the input (Simonyan et al. 2014).

    Parameters
    ----------
    network : Network
    x : (N, *input) array, or mapping of input name to array
    target : None, int, str, or a sequence of N of them
        As in `numpylrp.explain`. A softmax or sigmoid at the end is left out; of an output with
        positions, the sum over them is derived.
    output : str, optional
        Of a network with several, by default the first.
    batch_size : int, optional
    progress : function of (done, total), optional

    Returns
    -------
    (N, *input) array of the network's dtype, or a dict of them by input name

    Raises
    ------
    UnsupportedError
        A layer whose derivative is not known.
    NonFiniteError
        NaN or infinity, in x or on the way.

    Examples
    --------
    >>> from numpylrp.layers import Dense, ReLU
    >>> layers = [("fc", Dense([[1.0, 2.0], [3.0, -1.0]])), ("relu", ReLU()), ("out", Dense([[1.0, 1.0]]))]
    >>> gradient(Network(layers, input_shape=(2,)), [[1.0, 1.0], [1.0, 4.0]])
    array([[4., 1.],
           [1., 2.]])
    """
    network = up_to(network, logits_of(network, output))
    batch = network.batch(x)
    total = len(next(iter(batch.values())))
    shapes = sample_shapes(network.nodes, {name: value.shape[1:] for name, value in batch.items()})
    room = max(1, MEMORY // (2 * bytes_of(shapes, network.dtype)))
    size = room if batch_size is None else whole_number(batch_size, "batch_size")
    parts = []
    for rows in batches(total, size):
        one_target = target[rows] if np.ndim(target) and len(target) == total else target
        parts.append(_back(network, {name: value[rows] for name, value in batch.items()}, one_target))
        if progress is not None:
            progress(rows.stop, total)
    found = {name: np.concatenate([part[name] for part in parts]) for name in batch}
    return found if len(found) > 1 else found[next(iter(found))]


def _back(network: Network, batch: dict[str, np.ndarray], target: Any) -> dict[str, np.ndarray]:
    """The gradient of each input for one batch."""
    values = network.activations(batch)
    top = network.outputs[0]
    logits = values[top]
    classes = seeds.targets(target, logits, network.metadata.get("class_names"))
    found = {top: seeds.one_hot(logits, classes) if logits.ndim > 1 else np.ones_like(logits)}
    with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
        for node in reversed(network.nodes):
            g = found.pop(node.name)
            x = tuple(values[name] for name in node.inputs) if node.layer.merges else values[node.inputs[0]]
            where = f"layer {node.name!r} ({type(node.layer).__name__})"
            try:
                sent = backward(node.layer, g, x, values[node.name])
            except UnsupportedError as error:
                raise UnsupportedError(f"{where}: {error}") from None
            for name, share in zip(node.inputs, sent if node.layer.merges else (sent,)):
                if not np.isfinite(share).all():
                    raise NonFiniteError(
                        f"NaN or infinity first appears in the gradient that {where} sends on"
                    )
                share = share.astype(network.dtype, copy=False)
                found[name] = found[name] + share if name in found else share
    return {name: found[name] if name in found else np.zeros_like(batch[name]) for name in network.inputs}


# Linear layers, and layers that move values.


@_of(kinds.Linear, kinds.Dense, kinds.Conv, kinds.Conv2DTranspose)
def _linear(layer: Any, g: np.ndarray, x: Any, y: np.ndarray) -> Any:
    shape = x.shape[1:]
    return layer.adjoint(g, layer.parameters(shape)[0], shape)


@_of(
    kinds.Identity,
    kinds.Flatten,
    kinds.Reshape,
    kinds.Transpose,
    kinds.ZeroPadding,
    kinds.CopyPadding,
    kinds.Slice,
    kinds.UpSampling,
    kinds.MaxPool1D,
    kinds.MaxPool2D,
    kinds.MaxPool3D,
    kinds.GlobalMaxPool,
    kinds.Maximum,
    kinds.Concatenate,
    kinds.Threshold,
)
def _moved(layer: Any, g: np.ndarray, x: Any, y: np.ndarray) -> Any:
    return layer.relprop(g, x, y)


def _summed(g: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """Over the axes along which an array of this shape had been repeated."""
    axes = tuple(i for i, (a, b) in enumerate(zip(g.shape, shape)) if b == 1 and a != 1)
    return g.sum(axes, keepdims=True) if axes else g


@_of(kinds.Add)
def _add(layer: Any, g: np.ndarray, x: Any, y: np.ndarray) -> Any:
    weights = layer.parameters((len(x), *y.shape[1:]))[0]
    shares = layer.adjoint(g, weights, (len(x), *y.shape[1:]))
    return tuple(_summed(shares[:, k], branch.shape) for k, branch in enumerate(x))


@_of(kinds.Multiply)
def _multiply(layer: Any, g: np.ndarray, x: Any, y: np.ndarray) -> Any:
    shares = []
    for k, factor in enumerate(x):
        share = g
        for other in (*x[:k], *x[k + 1 :]):
            share = share * other
        shares.append(_summed(share, factor.shape))
    return tuple(shares)


# Activations: g times the derivative.


@_of(kinds.ReLU)
def _relu(layer: Any, g: np.ndarray, x: Any, y: np.ndarray) -> Any:
    slope = np.where(x > layer.threshold, 1, layer.negative_slope)
    return g * (slope if layer.max_value is None else np.where(x < layer.max_value, slope, 0))


@_of(kinds.LeakyReLU)
def _leaky_relu(layer: Any, g: np.ndarray, x: Any, y: np.ndarray) -> Any:
    return g * np.where(x > 0, 1, layer.negative_slope)


@_of(kinds.PReLU)
def _prelu(layer: Any, g: np.ndarray, x: Any, y: np.ndarray) -> Any:
    return g * np.where(x > 0, 1, layer._slope(x.shape[1:]))


@_of(kinds.ELU)
def _elu(layer: Any, g: np.ndarray, x: Any, y: np.ndarray) -> Any:
    return g * np.where(x > 0, 1, layer.alpha * np.exp(np.minimum(x, 0)))


@_of(kinds.CELU)
def _celu(layer: Any, g: np.ndarray, x: Any, y: np.ndarray) -> Any:
    return g * np.where(x > 0, 1, np.exp(np.minimum(x, 0) / layer.alpha))


@_of(kinds.SELU)
def _selu(layer: Any, g: np.ndarray, x: Any, y: np.ndarray) -> Any:
    scale, alpha = 1.0507009873554804934193349852946, 1.6732632423543772848170429916717
    return g * scale * np.where(x > 0, 1, alpha * np.exp(np.minimum(x, 0)))


@_of(kinds.GELU)
def _gelu(layer: Any, g: np.ndarray, x: Any, y: np.ndarray) -> Any:
    if layer.approximate:
        root = 0.7978845608028654
        t = np.tanh(root * (x + 0.044715 * x**3))
        return g * 0.5 * (1 + t + x * (1 - t**2) * root * (1 + 3 * 0.044715 * x**2))
    return g * (special.ndtr(x) + x * np.exp(-(x**2) / 2) / np.sqrt(2 * np.pi))


@_of(kinds.SiLU)
def _silu(layer: Any, g: np.ndarray, x: Any, y: np.ndarray) -> Any:
    s = special.expit(x)
    return g * s * (1 + x * (1 - s))


@_of(kinds.Mish)
def _mish(layer: Any, g: np.ndarray, x: Any, y: np.ndarray) -> Any:
    t = np.tanh(np.logaddexp(0, x))
    return g * (t + x * (1 - t**2) * special.expit(x))


@_of(kinds.Sigmoid)
def _sigmoid(layer: Any, g: np.ndarray, x: Any, y: np.ndarray) -> Any:
    return g * y * (1 - y)


@_of(kinds.Tanh)
def _tanh(layer: Any, g: np.ndarray, x: Any, y: np.ndarray) -> Any:
    return g * (1 - y**2)


@_of(kinds.Softplus)
def _softplus(layer: Any, g: np.ndarray, x: Any, y: np.ndarray) -> Any:
    return g * special.expit(layer.beta * x)


@_of(kinds.Sqrt)
def _sqrt(layer: Any, g: np.ndarray, x: Any, y: np.ndarray) -> Any:
    return g * np.where(y > 0, 0.5 / np.where(y > 0, y, 1), 0)


@_of(kinds.HardSigmoid)
def _hard_sigmoid(layer: Any, g: np.ndarray, x: Any, y: np.ndarray) -> Any:
    return g * np.where((y > 0) & (y < 1), layer.slope, 0)


@_of(kinds.HardSwish)
def _hard_swish(layer: Any, g: np.ndarray, x: Any, y: np.ndarray) -> Any:
    return g * np.where(x <= -3, 0, np.where(x < 3, x / 3 + 0.5, 1))


@_of(kinds.Clip)
def _clip(layer: Any, g: np.ndarray, x: Any, y: np.ndarray) -> Any:
    low = True if layer.low is None else x > layer.low
    high = True if layer.high is None else x < layer.high
    return g * (low & high)


def _class_axis(layer: Any) -> int:
    return layer.axis + 1 if layer.axis >= 0 else layer.axis


@_of(kinds.Softmax)
def _softmax(layer: Any, g: np.ndarray, x: Any, y: np.ndarray) -> Any:
    return y * (g - (g * y).sum(_class_axis(layer), keepdims=True))


@_of(kinds.LogSoftmax)
def _log_softmax(layer: Any, g: np.ndarray, x: Any, y: np.ndarray) -> Any:
    return g - np.exp(y) * g.sum(_class_axis(layer), keepdims=True)


# Normalization by the sample's own values: y = gamma u + beta with u = (x - mean) / d.


@_of(kinds.LayerNorm, kinds.RMSNorm, kinds.GroupNorm)
def _sample_norm(layer: Any, g: np.ndarray, x: Any, y: np.ndarray) -> Any:
    g = g * layer._learned(x.shape[1:], x.dtype)[0]
    u = (x - layer._mean(x)) * layer._inverse(x)
    return layer._inverse(x) * (g - layer._mean(g) - u * layer._over(g * u, np.mean))


@_of(kinds.UnitNorm)
def _unit_norm(layer: Any, g: np.ndarray, x: Any, y: np.ndarray) -> Any:
    norm = np.sqrt(layer._over(np.square(x), np.sum))
    inverse = layer._inverse(x)
    return inverse * (g - np.where(norm > layer.eps, y * layer._over(g * y, np.sum), 0))


@_of(kinds.LRN)
def _lrn(layer: Any, g: np.ndarray, x: Any, y: np.ndarray) -> Any:
    a, b = layer._a(x.ndim - 1), layer.beta
    total = layer.k + a * layer._sum(np.square(x))
    spread = g * x * total ** (-b - 1)
    sent = sum(_shifted(spread, tuple(-n for n in o)) for o in layer._offsets(x.ndim - 1))
    return g * total**-b - 2 * a * b * x * sent


_of(kinds.SimpleRNN, kinds.LSTM, kinds.GRU)(sequence_gradients.recurrent)
_of(kinds.MatMul)(sequence_gradients.matmul)
_of(kinds.MaskedSoftmax)(sequence_gradients.masked_softmax)
_of(kinds.Embedding)(sequence_gradients.embedding)
_of(kinds.NotEqual)(_moved)


@_of(kinds.TimeDistributed)
def _each_step(layer: Any, g: np.ndarray, x: Any, y: np.ndarray) -> Any:
    steps = (a.reshape(-1, *a.shape[2:]) for a in (g, x, y))
    return backward(layer.layer, *steps).reshape(x.shape)
