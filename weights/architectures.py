"""The shipped networks as PyTorch modules, and such a module as a network of numpylrp.

An architecture is a list of parts, each ``(name, module, inputs)``; inputs left out, a part reads the one
before it. A part without a module joins the channels of what it reads.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import torch
from torch import nn

from numpylrp import Network
from numpylrp.layers import (
    LRN,
    AveragePool2D,
    BatchNorm,
    Concatenate,
    Conv2D,
    Dense,
    Flatten,
    GlobalAveragePool,
    MaxPool2D,
    ReLU,
)


class GlobalMean(nn.Module):
    """The mean over all positions of a channel."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.mean((2, 3))


class Normalize(nn.Module):
    """Local response normalization across channels: nn.LocalResponseNorm, several times as fast."""

    def __init__(self, channels: int, size: int, alpha: float, beta: float, k: float) -> None:
        super().__init__()
        self.size, self.alpha, self.beta, self.k = size, alpha, beta, k
        near = (torch.arange(channels)[:, None] - torch.arange(channels)).abs() <= size // 2
        self.register_buffer("near", near.float()[..., None, None], persistent=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        total = nn.functional.conv2d(x * x, self.near)
        return x * (self.k + self.alpha / self.size * total) ** -self.beta


class Graph(nn.Module):
    """Parts that read each other by name."""

    def __init__(self, parts: list[tuple]) -> None:
        super().__init__()
        self.reads: dict[str, tuple[str, ...]] = {}
        self.parts = nn.ModuleDict()
        before = "input"
        for name, module, *inputs in parts:
            self.reads[name] = tuple(inputs) or (before,)
            if module is not None:
                self.parts[name] = module
            before = name

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        values = {"input": x}
        for name, reads in self.reads.items():
            given = [values[read] for read in reads]
            values[name] = self.parts[name](*given) if name in self.parts else torch.cat(given, 1)
        return values[name]


class Builder:
    """Collects parts and numbers their names."""

    def __init__(self) -> None:
        self.parts: list[tuple] = []
        self.counts: dict[str, int] = {}

    def add(self, kind: str, module: Any, *inputs: str) -> str:
        """Append a part; its name."""
        self.counts[kind] = self.counts.get(kind, 0) + 1
        name = kind if kind in ("flatten", "gap") else f"{kind}{self.counts[kind]}"
        self.parts.append((name, module, *inputs))
        return name


def fully_connected(sizes: tuple[int, ...], norm: str = "none", dropout: float = 0.2) -> list[tuple]:
    """Dense layers, each with ReLU, and batch normalization before it where `norm` is "dense"."""
    b = Builder()
    b.add("flatten", nn.Flatten())
    for i, o in pairwise(sizes[:-1]):
        b.add("fc", nn.Linear(i, o))
        if norm == "dense":
            b.add("bn", nn.BatchNorm1d(o))
        b.add("relu", nn.ReLU())
        b.add("dropout", nn.Dropout(dropout))
    b.add("fc", nn.Linear(sizes[-2], sizes[-1]))
    return b.parts


def convolutional(
    channels: int, widths: tuple, pools: tuple, norm: str = "none", hidden: tuple = (), flat: int = 0
) -> list[tuple]:
    """Convolutions 3 x 3 with zero padding, each with a pooling or none, and dense layers.

    `norm` says where normalization stands: "none", "after" a convolution (before ReLU), "before" it
    (batch normalization - ReLU - convolution, of He et al. 2016), "relu" (after ReLU), "dense" (after
    hidden dense layers alone), "lrn" (local response normalization after ReLU of the first two).
    `hidden` is (inputs, units) of a hidden dense layer; without, global average pooling ends the network.
    """
    b = Builder()
    for n, (i, o, pool) in enumerate(zip((channels, *widths), widths, pools)):
        if norm == "before" and n:
            b.add("bn", nn.BatchNorm2d(i))
            b.add("relu", nn.ReLU())
        b.add("conv", nn.Conv2d(i, o, 3, padding=1))
        if norm == "after":
            b.add("bn", nn.BatchNorm2d(o))
        if norm != "before":
            b.add("relu", nn.ReLU())
        if norm == "relu":
            b.add("bn", nn.BatchNorm2d(o))
        if norm == "lrn" and n < 2:
            b.add("lrn", Normalize(o, 5, alpha=1.0, beta=0.75, k=1.0))
        if pool:
            b.add("pool", pool(2))
    if norm == "before":
        b.add("bn", nn.BatchNorm2d(widths[-1]))
        b.add("relu", nn.ReLU())
    if not hidden:
        b.add("gap", GlobalMean())
        b.add("fc", nn.Linear(widths[-1], 10))
        return b.parts
    b.add("flatten", nn.Flatten())
    b.add("dropout", nn.Dropout(0.2))
    b.add("fc", nn.Linear(*hidden))
    if norm == "dense":
        b.add("bn", nn.BatchNorm1d(hidden[1]))
    b.add("relu", nn.ReLU())
    b.add("fc", nn.Linear(hidden[1], 10))
    return b.parts


def dense_blocks(channels: int, start: int, growth: int, blocks: tuple[int, ...]) -> list[tuple]:
    """Blocks of batch normalization - ReLU - convolution on all that came before (Huang et al. 2017).

    `blocks` says how many convolutions each has; pooling lies between blocks.
    """
    b = Builder()
    width, at = start, b.add("conv", nn.Conv2d(channels, start, 3, padding=1))
    for n, units in enumerate(blocks):
        if n:
            at = b.add("pool", nn.AvgPool2d(2), at)
        for _ in range(units):
            b.add("bn", nn.BatchNorm2d(width), at)
            b.add("relu", nn.ReLU())
            new = b.add("conv", nn.Conv2d(width, growth, 3, padding=1, bias=False))
            at = b.add("join", None, at, new)
            width += growth
    b.add("bn", nn.BatchNorm2d(width), at)
    b.add("relu", nn.ReLU())
    b.add("gap", GlobalMean())
    b.add("fc", nn.Linear(width, 10))
    return b.parts


MAX, AVG = nn.MaxPool2d, nn.AvgPool2d
POOLS = (None, MAX, AVG, MAX)
SMALL = ((8, 16, 16, 32), (MAX, None, AVG, MAX))
CIFAR = ((16, 32, 32, 64, 64), (MAX, None, MAX, None, None))

ARCHITECTURES: dict[str, tuple] = {
    "mnist_fc": (fully_connected, (784, 256, 128, 10)),
    "mnist_fc_bn": (fully_connected, (784, 256, 128, 10), "dense"),
    "mnist_cnn": (convolutional, 1, (16, 32, 32, 64), POOLS, "none", (576, 64)),
    "mnist_cnn_bn": (convolutional, 1, (16, 32, 32, 64), POOLS, "after", (576, 64)),
    "mnist_cnn_pre": (convolutional, 1, *SMALL, "before", (288, 64)),
    "mnist_cnn_post": (convolutional, 1, *SMALL, "relu", (288, 64)),
    "mnist_cnn_densebn": (convolutional, 1, *SMALL, "dense", (288, 64)),
    "mnist_cnn_lrn": (convolutional, 1, *SMALL, "lrn", (288, 64)),
    "mnist_cnn_gap": (convolutional, 1, (8, 16, 32, 64), (MAX, None, MAX, None), "after"),
    "mnist_cnn_mark": (convolutional, 1, *SMALL, "after", (288, 64)),
    "cifar_cnn_bn": (convolutional, 3, *CIFAR, "after"),
    "cifar_cnn": (convolutional, 3, *CIFAR, "none"),
    "cifar_cnn_pre": (convolutional, 3, *CIFAR, "before"),
    "cifar_cnn_lrn": (convolutional, 3, *CIFAR, "lrn"),
    "cifar_dense": (dense_blocks, 3, 16, 16, (0, 3, 4)),
    "cifar_fc": (fully_connected, (3072, 128, 64, 10)),
    "cifar_fc_bn": (fully_connected, (3072, 128, 64, 10), "dense"),
}
"""For each shipped network what makes its parts, and how."""


def module(name: str) -> Graph:
    """The PyTorch module of a network, with random weights."""
    make, *given = ARCHITECTURES[name]
    return Graph(make(*given))


def converted(graph: Graph, shape: tuple, metadata: dict) -> Network:
    """The module as a network of numpylrp; dropout is gone."""
    layers: list[tuple] = []
    renamed = {"input": "input"}
    for name, reads in graph.reads.items():
        inputs = tuple(renamed[read] for read in reads)
        part = graph.parts[name] if name in graph.parts else None
        if isinstance(part, nn.Dropout):
            renamed[name] = inputs[0]
            continue
        renamed[name] = name
        layers.append((name, _layer(part), inputs))
    return Network(layers, shape, metadata=metadata)


def _layer(part: Any) -> Any:
    if part is None:
        return Concatenate()
    p = {k: v.detach().numpy() for k, v in part.state_dict().items()}
    if isinstance(part, nn.Conv2d):
        return Conv2D(p["weight"], p.get("bias"), padding=part.padding)
    if isinstance(part, nn.Linear):
        return Dense(p["weight"], p["bias"])
    if isinstance(part, (nn.BatchNorm1d, nn.BatchNorm2d)):
        return BatchNorm(p["weight"], p["bias"], p["running_mean"], p["running_var"], part.eps)
    if isinstance(part, Normalize):
        return LRN(part.size, part.alpha, part.beta, part.k)
    if isinstance(part, (nn.MaxPool2d, nn.AvgPool2d)):
        return (MaxPool2D if isinstance(part, nn.MaxPool2d) else AveragePool2D)(part.kernel_size)
    return {nn.ReLU: ReLU, nn.Flatten: Flatten, GlobalMean: GlobalAveragePool}[type(part)]()
