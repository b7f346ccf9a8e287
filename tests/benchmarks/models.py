"""The benchmark's networks, with random weights."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from numpylrp import Network, load
from numpylrp.layers import (
    Add,
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


def resnet20() -> Network:
    """ResNet-20 for CIFAR-10 (He et al. 2016), with 1 x 1 convolutions in its two shortcuts."""
    m = Maker()
    m.conv(16, 3)
    m.add(ReLU())
    for width, stride in ((16, 1), (32, 2), (64, 2)):
        for block in range(3):
            start, channels, step = m.at, m.channels, stride if block == 0 else 1
            m.conv(width, 3, step)
            m.add(ReLU())
            m.conv(width, 3)
            branch = m.at
            if step > 1:
                m.at, m.channels = start, channels
                m.conv(width, 1, step)
                start = m.at
            m.add(Add(), branch, start)
            m.add(ReLU())
    m.add(GlobalAveragePool())
    m.dense(64, 10)
    return m.network((3, 32, 32))


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
    "ResNet-20": resnet20,
    "mnist_cnn": lambda: shipped("mnist_cnn"),
    "mnist_fc": lambda: shipped("mnist_fc"),
}
