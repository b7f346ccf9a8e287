"""iNNvestigate at work on a network of ours: chains of dense layers and convolutions, as a Keras model.

It needs TensorFlow 2.6 to 2.14. One analyzer has one rule for all layers: cases whose layers have several
are not to be had. Relevance starts at a neuron's output: a seed of several classes is a sum of runs.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from .. import layers as L
from ..errors import UnsupportedError
from ..network import Network
from ..rules import AlphaBeta, Epsilon, Flat, Rule, WSquare, ZPlus


def innvestigate(
    network: Network,
    x: np.ndarray,
    rules: Mapping[str, Rule],
    R: np.ndarray,
    normalization: str = "linear",
) -> dict[str, np.ndarray]:
    """Relevance of the input by iNNvestigate; parameters as `numpylrp.validate.peers.zennit`.

    Raises
    ------
    UnsupportedError
        A layer, a rule, or several rules.
    """
    kinds = {rule for name, rule in rules.items() if network[name].takes_rule}
    if len(kinds) != 1:
        raise UnsupportedError("an analyzer of iNNvestigate has one rule for all layers")
    name, options = _analyzer(kinds.pop())
    import innvestigate as package  # type: ignore
    import tensorflow as tf  # type: ignore

    tf.compat.v1.disable_eager_execution()
    tf.keras.backend.set_floatx("float64")
    model, images = _model(network, tf)
    given = np.moveaxis(x, 1, -1) if images else x
    y = network.record(x)[network.outputs[0]]
    if y.ndim != 2:
        raise UnsupportedError("iNNvestigate explains a neuron of a dense layer")
    try:
        analyzer = package.create_analyzer(name, model, neuron_selection_mode="index", **options)
    except NotImplementedError as error:
        raise UnsupportedError(f"iNNvestigate refuses this network ({error})") from None
    total = np.zeros_like(given)
    for k in range(y.shape[1]):
        if R[:, k].any():
            one = analyzer.analyze(given, k)
            one = next(iter(one.values())) if isinstance(one, dict) else one
            one = one[0] if isinstance(one, list) else one
            factor = np.divide(R[:, k], y[:, k], out=np.zeros(len(y)), where=y[:, k] != 0)
            total += one * factor.reshape(-1, *(1,) * (total.ndim - 1))
    (source,) = network.inputs
    return {source: np.moveaxis(total, -1, 1) if images else total}


def _analyzer(rule: Rule) -> tuple[str, dict[str, Any]]:
    if isinstance(rule, Epsilon) and not rule.relative:
        return ("lrp.epsilon", {"epsilon": rule.epsilon}) if rule.epsilon else ("lrp.z", {})
    if isinstance(rule, ZPlus):
        return ("lrp.z_plus", {}) if rule.bias else ("lrp.z_plus_fast", {})
    if isinstance(rule, AlphaBeta) and rule.bias:
        return "lrp.alpha_beta", {"alpha": rule.alpha, "beta": rule.beta}
    if isinstance(rule, Flat):
        return "lrp.flat", {}
    if type(rule) is WSquare:
        return "lrp.w_square", {}
    raise UnsupportedError(f"iNNvestigate has no analyzer for {rule}")


def _model(network: Network, tf: Any) -> tuple[Any, bool]:
    """The network as a Keras model, and whether its input is an image, channels last."""
    (shape,) = network.inputs.values()
    images, keras = len(shape) == 3, tf.keras
    value = first = keras.Input((*shape[1:], shape[0]) if images else shape)
    made, last = [], next(iter(network.inputs))
    for node in network.nodes:
        if node.inputs != (last,):
            raise UnsupportedError("only chains are translated to iNNvestigate")
        last = node.name
        built, arrays = _layer(node.layer, network.shapes[node.inputs[0]], keras)
        for one in built:
            value = one(value)
        made.append((built[0], arrays))
    model = keras.Model(first, value)
    for built, arrays in made:
        if arrays:
            built.set_weights(arrays)
    return model, images


def _layer(layer: Any, shape: tuple, keras: Any) -> tuple[list, list[np.ndarray]]:
    """Keras layers, and the weights of the first."""
    if isinstance(layer, L.Dense):
        bias = [] if layer.bias is None else [np.array(layer.bias)]
        return [keras.layers.Dense(len(layer.weight), use_bias=bool(bias))], [np.array(layer.weight.T), *bias]
    if type(layer) is L.Conv2D and layer.tap_bias is None and layer.groups == 1:
        pads = layer.windows.pads(shape[1:])
        if np.any(pads) and replace(layer, padding="same").windows.pads(shape[1:]) != pads:
            raise UnsupportedError("this padding is not translated to iNNvestigate")
        bias = [] if layer.bias is None else [np.array(layer.bias)]
        built = keras.layers.Conv2D(
            len(layer.weight),
            layer.weight.shape[2:],
            layer.stride,
            "same" if np.any(pads) else "valid",
            dilation_rate=layer.dilation,
            use_bias=bool(bias),
        )
        return [built], [np.ascontiguousarray(layer.weight.transpose(2, 3, 1, 0)), *bias]
    if type(layer) is L.ReLU and not (layer.negative_slope or layer.threshold or layer.max_value):
        return [keras.layers.Activation("relu")], []
    if type(layer) is L.Flatten and len(shape) == 3:
        return [keras.layers.Permute((3, 1, 2)), keras.layers.Flatten()], []
    if type(layer) in (L.MaxPool2D, L.AveragePool2D) and not np.any(layer.windows.pads(shape[1:])):
        kind = keras.layers.MaxPooling2D if type(layer) is L.MaxPool2D else keras.layers.AveragePooling2D
        return [kind(layer.kernel, layer.stride)], []
    raise UnsupportedError(f"{type(layer).__name__} is not translated to iNNvestigate")
