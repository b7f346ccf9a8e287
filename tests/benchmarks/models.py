"""The benchmark's networks, with random weights, and the same networks as PyTorch modules."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from numpylrp import Network, load
from numpylrp.layers import (
    Add,
    AveragePool2D,
    BatchNorm,
    Conv2D,
    Dense,
    Flatten,
    GlobalAveragePool,
    MaxPool2D,
    ReLU,
)

WEIGHTS = Path(__file__).parents[2] / "weights"
RANGE = (-2.5, 2.5)


class Maker:
    """Layers with random weights, one after the other."""

    def __init__(self) -> None:
        self.rng = np.random.default_rng(0)
        self.layers: list[tuple] = []
        self.at = "input"
        self.channels = 3

    def add(self, layer, *reads: str) -> str:
        name = f"{type(layer).__name__.lower()}{len(self.layers)}"
        self.layers.append((name, layer, reads or (self.at,)))
        self.at = name
        return name

    def conv(self, out: int, size: int, stride: int = 1, groups: int = 1, bn: bool = True) -> None:
        fan = self.channels // groups * size * size
        weight = self.rng.standard_normal((out, self.channels // groups, size, size), dtype=np.float32)
        weight *= np.float32(np.sqrt(2 / fan))
        bias = None if bn else self.rng.standard_normal(out, dtype=np.float32) * np.float32(0.1)
        self.add(Conv2D(weight, bias, stride, size // 2, groups=groups))
        self.channels = out
        if bn:
            gamma, beta, mean = self.rng.standard_normal((3, out), dtype=np.float32) * np.float32(0.1)
            variance = self.rng.uniform(0.8, 1.2, out).astype(np.float32)
            self.add(BatchNorm(1 + gamma, beta, mean, variance))

    def dense(self, i: int, o: int) -> None:
        weight = self.rng.standard_normal((o, i), dtype=np.float32)
        weight *= np.float32(np.sqrt(2 / i))
        self.add(Dense(weight, self.rng.standard_normal(o, dtype=np.float32) * np.float32(0.1)))

    def network(self, shape=(3, 224, 224)) -> Network:
        return Network(self.layers, shape, metadata={"input_range": list(RANGE)})


def vgg16(bn: bool = False) -> Network:
    """VGG-16 (Simonyan and Zisserman 2015), configuration D."""
    m = Maker()
    for out in (64, 64, 0, 128, 128, 0, 256, 256, 256, 0, 512, 512, 512, 0, 512, 512, 512, 0):
        if out:
            m.conv(out, 3, bn=bn)
            m.add(ReLU())
        else:
            m.add(MaxPool2D(2))
    m.add(Flatten())
    for i, o in ((25088, 4096), (4096, 4096)):
        m.dense(i, o)
        m.add(ReLU())
    m.dense(4096, 1000)
    return m.network()


def resnet50() -> Network:
    """ResNet-50 (He et al. 2016), stride in the 3 x 3 convolution."""
    m = Maker()
    m.conv(64, 7, 2)
    m.add(ReLU())
    m.add(MaxPool2D(3, 2, 1))
    for width, blocks, stride in ((64, 3, 1), (128, 4, 2), (256, 6, 2), (512, 3, 2)):
        for block in range(blocks):
            start, channels, step = m.at, m.channels, stride if block == 0 else 1
            m.conv(width, 1)
            m.add(ReLU())
            m.conv(width, 3, step)
            m.add(ReLU())
            m.conv(4 * width, 1)
            branch = m.at
            if block == 0:
                m.at, m.channels = start, channels
                m.conv(4 * width, 1, step)
                start = m.at
            m.add(Add(), branch, start)
            m.add(ReLU())
    m.add(GlobalAveragePool())
    m.dense(2048, 1000)
    return m.network()


def mobilenet_v2() -> Network:
    """MobileNetV2 (Sandler et al. 2018)."""
    m = Maker()
    m.conv(32, 3, 2)
    m.add(ReLU(max_value=6))
    plan = (
        (1, 16, 1, 1),
        (6, 24, 2, 2),
        (6, 32, 3, 2),
        (6, 64, 4, 2),
        (6, 96, 3, 1),
        (6, 160, 3, 2),
        (6, 320, 1, 1),
    )
    for times, out, blocks, stride in plan:
        for block in range(blocks):
            start, channels = m.at, m.channels
            if times > 1:
                m.conv(times * channels, 1)
                m.add(ReLU(max_value=6))
            m.conv(m.channels, 3, stride if block == 0 else 1, groups=m.channels)
            m.add(ReLU(max_value=6))
            m.conv(out, 1)
            if block:
                m.add(Add(), m.at, start)
    m.conv(1280, 1)
    m.add(ReLU(max_value=6))
    m.add(GlobalAveragePool())
    m.dense(1280, 1000)
    return m.network()


def shipped(name: str) -> Network:
    """A network of weights/."""
    return load(WEIGHTS / f"{name}.h5", dtype=np.float32)


MODELS = {
    "VGG-16": vgg16,
    "VGG-16-BN": lambda: vgg16(bn=True),
    "ResNet-50": resnet50,
    "MobileNetV2": mobilenet_v2,
    "mnist_cnn": lambda: shipped("mnist_cnn"),
    "mnist_fc": lambda: shipped("mnist_fc"),
}


def as_torch(network: Network, addition):
    """The same network as a PyTorch module; `addition` makes the module that sums two branches."""
    import torch
    from torch import nn

    dtype = torch.float32 if network.dtype == np.float32 else torch.float64

    def tensor(a):
        return nn.Parameter(torch.from_numpy(np.ascontiguousarray(a)).to(dtype))

    def module(layer):
        if isinstance(layer, Conv2D):
            o, c = layer.weight.shape[0], layer.weight.shape[1] * layer.groups
            pads = tuple(p[0] for p in layer.padding)
            made = nn.Conv2d(
                c,
                o,
                layer.weight.shape[2:],
                layer.stride,
                pads,
                groups=layer.groups,
                bias=layer.bias is not None,
            )
        elif isinstance(layer, Dense):
            made = nn.Linear(*layer.weight.shape[::-1])
        elif isinstance(layer, BatchNorm):
            made = nn.BatchNorm2d(len(layer.mean), layer.eps)
            made.weight, made.bias = tensor(layer.gamma), tensor(layer.beta)
            made.running_mean, made.running_var = tensor(layer.mean).data, tensor(layer.variance).data
            return made
        elif isinstance(layer, ReLU):
            return nn.ReLU() if layer.max_value is None else nn.ReLU6()
        elif isinstance(layer, MaxPool2D):
            return nn.MaxPool2d(layer.kernel, layer.stride, layer.padding[0][0])
        elif isinstance(layer, AveragePool2D):
            return nn.AvgPool2d(layer.kernel, layer.stride)
        elif isinstance(layer, GlobalAveragePool):
            return nn.AdaptiveAvgPool2d(1)
        elif isinstance(layer, Add):
            return addition()
        elif isinstance(layer, Flatten):
            return None
        else:
            raise TypeError(type(layer).__name__)
        made.weight = tensor(layer.weight)
        if layer.bias is not None:
            made.bias = tensor(layer.bias)
        return made

    class Graph(nn.Module):
        def __init__(self):
            super().__init__()
            self.steps = nn.ModuleDict(
                {n.name: made for n in network.nodes if (made := module(n.layer)) is not None}
            )
            self.plan = [(n.name, n.inputs) for n in network.nodes]

        def forward(self, x):
            values = {"input": x}
            left = {source: name for name, sources in self.plan for source in sources}
            for name, sources in self.plan:
                given = [values[s] for s in sources]
                if name not in self.steps:
                    values[name] = torch.flatten(given[0], 1)
                else:
                    y = self.steps[name](*given)
                    last = isinstance(self.steps[name], nn.AdaptiveAvgPool2d)
                    values[name] = torch.flatten(y, 1) if last else y
                for s in sources:
                    if left[s] == name:
                        del values[s]
            return values[self.plan[-1][0]]

    return Graph().eval()
