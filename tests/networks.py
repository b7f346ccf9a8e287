"""Small networks for tests, and gradients calculated without the library's way back."""

import numpy as np

from numpylrp import Network
from numpylrp.layers import (
    Add,
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


def chain(seed=0, bias=True):
    """conv - relu - max pool - conv - relu - average pool - dense - relu - dense"""
    r = np.random.default_rng(seed)
    b = (lambda n: r.standard_normal(n)) if bias else (lambda n: None)
    return Network(
        [
            ("conv1", Conv2D(r.standard_normal((4, 2, 3, 3)), b(4), padding=((1, 0), (1, 1)))),
            ("relu1", ReLU()),
            ("pool1", MaxPool2D(2)),
            ("conv2", Conv2D(r.standard_normal((6, 2, 2, 2)), b(6), groups=2)),
            ("relu2", ReLU()),
            ("pool2", AveragePool2D(2, 1)),
            ("flatten", Flatten()),
            ("fc1", Dense(r.standard_normal((5, 12)), b(5))),
            ("relu3", ReLU()),
            ("fc2", Dense(r.standard_normal((3, 5)), b(3))),
        ],
        input_shape=(2, 7, 8),
        metadata={"class_names": ["ant", "bee", "cat"], "input_range": [-4.0, 4.0]},
    )


def graph(seed=0):
    """A residual sum, a concatenation, batch normalization, and a shared convolution."""
    r = np.random.default_rng(seed)
    shared = Conv2D(r.standard_normal((3, 3, 3, 3)), r.standard_normal(3), padding=1)
    statistics = (r.standard_normal(3), r.standard_normal(3), r.standard_normal(3), r.uniform(0.5, 2, 3))
    return Network(
        [
            ("a", shared, "input"),
            ("bn", BatchNorm(*statistics), "a"),
            ("relu", ReLU(), "bn"),
            ("b", shared, "relu"),
            ("sum", Add(), ("b", "input")),
            ("relu_sum", ReLU(), "sum"),
            ("both", Concatenate(), ("relu_sum", "relu")),
            ("gap", GlobalAveragePool(), "both"),
            ("fc", Dense(r.standard_normal((4, 6)), r.standard_normal(4)), "gap"),
        ],
        input_shape=(3, 5, 6),
    )


def numeric_gradient(network, x, target, h=1e-6):
    """d output_target / d x by central differences, one value at a time."""
    g = np.zeros_like(x)
    for n in np.ndindex(*x.shape[1:]):
        up, down = x.copy(), x.copy()
        up[(slice(None), *n)] += h
        down[(slice(None), *n)] -= h
        rows = np.arange(len(x))
        change = network.forward(up)[rows, target] - network.forward(down)[rows, target]
        g[(slice(None), *n)] = change / (2 * h)
    return g
