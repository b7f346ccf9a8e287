"""The layers: small classes with parameters, ``forward`` and ``relprop``, one family a file."""

from .activation import (
    CELU,
    ELU,
    GELU,
    SELU,
    Activation,
    Clip,
    HardSigmoid,
    HardSwish,
    LeakyReLU,
    LogSoftmax,
    Mish,
    PReLU,
    ReLU,
    Sigmoid,
    SiLU,
    Softmax,
    Softplus,
    Sqrt,
    Tanh,
    Threshold,
)
from .attention import Embedding, MaskedSoftmax, MatMul, NotEqual, Positions, Rotary
from .base import Layer, Linear, Ruled
from .conv import Conv, Conv1D, Conv2D, Conv3D
from .dense import Dense
from .distributed import TimeDistributed
from .interpolation import Interpolation
from .lrn import LRN
from .merge import Add, Average, Concatenate, Maximum, Minimum, Multiply, Subtract
from .norm import Affine, BatchNorm, Diagonal, Scaled
from .pool import (
    AdaptiveAveragePool,
    AveragePool1D,
    AveragePool2D,
    AveragePool3D,
    GlobalAveragePool,
    GlobalMaxPool,
    GlobalSumPool,
    MaxPool1D,
    MaxPool2D,
    MaxPool3D,
    SumPool1D,
    SumPool2D,
    SumPool3D,
)
from .recurrent import GRU, LSTM, Recurrent, SimpleRNN
from .sample_norm import GroupNorm, InstanceNorm, LayerNorm, RMSNorm, UnitNorm
from .scaled_pool import ScaledPool1D, ScaledPool2D, ScaledPool3D
from .shape import (
    CopyPadding,
    Dropout,
    Flatten,
    Identity,
    Reshape,
    Slice,
    Transpose,
    UpSampling,
    ZeroPadding,
)
from .transposed import Conv2DTranspose

BASES = (Layer, Linear, Ruled, Activation, Conv, Recurrent, Scaled, Diagonal)

KINDS: dict[str, type[Layer]] = {
    name: kind
    for name, kind in globals().items()
    if isinstance(kind, type) and issubclass(kind, Layer) and kind not in BASES
}
"""Every kind of layer by its name, as model files spell it."""


def kind_of(layer: Layer) -> type[Layer]:
    """The kind that a layer is, or that a user's own class inherits from; else its class."""
    own = type(layer)
    return next((kind for kind in own.__mro__ if KINDS.get(kind.__name__) is kind), own)


__all__ = [
    "CELU",
    "ELU",
    "GELU",
    "GRU",
    "KINDS",
    "LRN",
    "LSTM",
    "SELU",
    "Activation",
    "AdaptiveAveragePool",
    "Add",
    "Affine",
    "Average",
    "AveragePool1D",
    "AveragePool2D",
    "AveragePool3D",
    "BatchNorm",
    "Clip",
    "Concatenate",
    "Conv1D",
    "Conv2D",
    "Conv2DTranspose",
    "Conv3D",
    "CopyPadding",
    "Dense",
    "Diagonal",
    "Dropout",
    "Embedding",
    "Flatten",
    "GlobalAveragePool",
    "GlobalMaxPool",
    "GlobalSumPool",
    "GroupNorm",
    "HardSigmoid",
    "HardSwish",
    "Identity",
    "InstanceNorm",
    "Interpolation",
    "Layer",
    "LayerNorm",
    "LeakyReLU",
    "Linear",
    "LogSoftmax",
    "MaskedSoftmax",
    "MatMul",
    "MaxPool1D",
    "MaxPool2D",
    "MaxPool3D",
    "Maximum",
    "Minimum",
    "Mish",
    "Multiply",
    "NotEqual",
    "PReLU",
    "Positions",
    "RMSNorm",
    "ReLU",
    "Reshape",
    "Rotary",
    "Ruled",
    "Scaled",
    "ScaledPool1D",
    "ScaledPool2D",
    "ScaledPool3D",
    "SiLU",
    "Sigmoid",
    "SimpleRNN",
    "Slice",
    "Softmax",
    "Softplus",
    "Sqrt",
    "Subtract",
    "SumPool1D",
    "SumPool2D",
    "SumPool3D",
    "Tanh",
    "Threshold",
    "TimeDistributed",
    "Transpose",
    "UnitNorm",
    "UpSampling",
    "ZeroPadding",
    "kind_of",
]
