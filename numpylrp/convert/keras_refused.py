"""What is refused, and what to do about it: one sentence for each kind of layer that has none here."""

from __future__ import annotations

import re
from typing import Any

BEFORE = "explain the part of the model up to it, keras.Model(model.input, layer.input)"
OWN = "write it with Keras' own layers and save the model again"

WHAT: tuple[tuple[str, str, str], ...] = (
    (r"Lambda$", "runs code from the file, which is refused", OWN),
    (r"Attention|Transformer", "is attention, which is not supported", BEFORE),
    (r"Bidirectional", "runs a recurrent layer both ways, which is not supported", BEFORE),
    (r"LSTM", "is an LSTM, which is not supported", BEFORE),
    (r"GRU", "is a GRU, which is not supported", BEFORE),
    (r"RNN|StackedRNNCells", "is a recurrent layer, which is not supported", BEFORE),
    (
        r"Embedding",
        "is an embedding, a table that is read by integers, which is not supported",
        "explain the part of the model from its output on",
    ),
    (r"Conv3DTranspose", "is a transposed convolution in three dimensions, which is not supported", BEFORE),
    (r"Masking", "masks time steps, which is not supported", "explain samples without padding, without it"),
    (r"Dot$", "is a product of two tensors of the model, which is not supported", BEFORE),
    (
        r"Hashing|Lookup|Vectorization|CategoryEncoding|Discretization|HashedCrossing|StringLookup",
        "turns texts or categories into numbers, which is not supported",
        "explain the part of the model after it",
    ),
    (
        r"RandomCrop|Resizing|AutoContrast|Equalization|Solarization",
        "is preprocessing of images that is not supported",
        "do it beforehand, and explain the model from its output on",
    ),
    (r"TFSMLayer|TorchModuleWrapper|JaxLayer|FlaxLayer|KerasLayer", "holds code, which is not read", OWN),
)
"""For names of classes: what it is, and what to do."""


def why_not(kind: str) -> str:
    """Why a layer of this class of Keras is refused, and what to do.

    Examples
    --------
    >>> why_not("LSTM").split(":")[0]
    'is an LSTM, which is not supported'
    """
    for pattern, what, todo in WHAT:
        if re.search(pattern, kind):
            return f"{what}: {todo}"
    return f"is not supported: {OWN if '>' in kind else BEFORE}"


def own_class(entry: dict) -> str | None:
    """The registered name of a class that is not Keras' own, though it may be called like one of its."""
    registered, name = entry.get("registered_name"), str(entry.get("class_name"))
    if ">" in name:
        return name
    if isinstance(registered, str) and ">" in registered:
        return registered
    if "module" in entry and entry["module"] != "builtins":
        first = str(entry["module"]).split(".")[0]
        if first not in ("keras", "tf_keras", "keras_core", "tensorflow"):
            return str(registered or name)
    return None


def bits(config: dict) -> str | None:
    """How a layer's weights are quantized, None where they are not."""
    policy = config.get("dtype")
    if isinstance(policy, dict):
        inner = policy.get("config")
        mode = inner.get("mode") if isinstance(inner, dict) else None
        policy = f"{policy.get('class_name', '')} {mode or (inner or {}).get('name', '')}"
    said = f"{policy or ''} {config.get('quantization_mode') or config.get('quantization_config') or ''}"
    found = re.search(r"(?:^|[\s'\"])u?(?:int|float)([48])(?![0-9])", said)
    if found:
        return f"weights of {found[1]} bits"
    return "quantized weights" if re.search("gptq|awq|Quantized", said) else None


def called(kind: str, entry: dict, config: Any) -> str | None:
    """Why a layer is refused whatever its class, None where nothing is wrong with it."""
    own = own_class(entry)
    if own is not None:
        return f"is a custom class, {own!r}, not Keras' own: {OWN}"
    quantized = bits(config) if isinstance(config, dict) else None
    if quantized:
        return f"has {quantized}, which are not supported: save the model as it was before quantize()"
    return None
