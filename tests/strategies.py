"""Hypothesis strategies for linear layers in the awkward cases, and inputs for them."""

import numpy as np
from hypothesis import strategies as st

from numpylrp.layers import (
    AdaptiveAveragePool,
    Affine,
    AveragePool1D,
    AveragePool2D,
    BatchNorm,
    Conv1D,
    Conv2D,
    Conv2DTranspose,
    Dense,
    GlobalAveragePool,
    GlobalSumPool,
    Interpolation,
    SumPool2D,
)
from numpylrp.layers.interpolation import PLACES

seeds = st.integers(0, 2**32 - 1)


def numbers(rng, *shape):
    """Values of both signs, with ties, exact zeros and ordinary numbers among them."""
    x = rng.standard_normal(shape)
    coarse = np.round(x * 2) / 2
    return np.where(rng.random(shape) < 0.3, coarse, x)


@st.composite
def geometries(draw, rank):
    """Kernel, stride, asymmetric padding, dilation for `rank` axes."""
    each = lambda low, high: tuple(draw(st.integers(low, high)) for _ in range(rank))  # noqa: E731
    kernel, stride, dilation = each(1, 3), each(1, 3), each(1, 2)
    padding = tuple((draw(st.integers(0, 2)), draw(st.integers(0, 2))) for _ in range(rank))
    padding = draw(st.sampled_from([padding, padding, "same", "same_lower", "valid"]))
    return kernel, stride, padding, dilation


@st.composite
def convolutions(draw, kinds=(Conv1D, Conv2D, Conv2DTranspose)):
    """A convolution and a sample shape that it takes."""
    kind = draw(st.sampled_from(kinds))
    rng = np.random.default_rng(draw(seeds))
    kernel, stride, padding, dilation = draw(geometries(kind.rank))
    groups = draw(st.sampled_from([1, 1, 2, 3]))
    per_in, per_out = draw(st.integers(1, 2)), draw(st.integers(1, 3))
    bias = draw(st.booleans())
    if kind is Conv2DTranspose:
        padding = draw(st.sampled_from([((0, 1), (0, 0)), "same", 0]))
        if padding == "same":
            output_padding = 0
            # "same" needs the kernel to reach over the stride.
            kernel = tuple(max(k, s) for k, s in zip(kernel, stride))
        else:
            output_padding = tuple(draw(st.integers(0, s - 1)) for s in stride)
            kernel = (max(kernel[0], 2), kernel[1])
        weight = numbers(rng, per_in * groups, per_out, *kernel)
        b = numbers(rng, per_out * groups) if bias else None
        layer = Conv2DTranspose(weight, b, stride, padding, dilation, groups, output_padding)
        return layer, (per_in * groups, draw(st.integers(1, 3)), draw(st.integers(1, 3)))
    weight = numbers(rng, per_out * groups, per_in, *kernel)
    b = numbers(rng, per_out * groups) if bias else None
    layer = kind(weight, b, stride, padding, dilation, groups)
    least = [d * (k - 1) + 1 for k, d in zip(kernel, dilation)]
    size = tuple(draw(st.integers(n, n + 3)) for n in least)
    return layer, (per_in * groups, *size)


@st.composite
def pools(draw):
    """An average, sum or global pooling and a sample shape that it takes."""
    kinds = [AveragePool2D, SumPool2D, AveragePool1D, GlobalAveragePool, GlobalSumPool, AdaptiveAveragePool]
    kinds.append(Interpolation)
    kind = draw(st.sampled_from(kinds))
    if kind in (AdaptiveAveragePool, Interpolation):
        size = draw(st.lists(st.integers(1, 5), min_size=1, max_size=2))
        options = (draw(st.sampled_from(PLACES)),) if kind is Interpolation else ()
        return kind(size, *options), (draw(st.integers(1, 2)), *(draw(st.integers(1, 7)) for _ in size))
    if kind in (GlobalAveragePool, GlobalSumPool):
        return kind(draw(st.booleans())), (2, draw(st.integers(1, 4)), draw(st.integers(1, 4)))
    each = lambda low, high: tuple(draw(st.integers(low, high)) for _ in range(kind.rank))  # noqa: E731
    kernel, stride = each(1, 3), each(1, 3)
    padding = tuple((draw(st.integers(0, k - 1)), draw(st.integers(0, k - 1))) for k in kernel)
    padding = draw(st.sampled_from([padding, "same", "valid"]))
    options = {} if kind is SumPool2D else {"count_padding": draw(st.booleans())}
    layer = kind(kernel, stride, padding, ceil=draw(st.booleans()), **options)
    return layer, (draw(st.integers(1, 2)), *each(3, 6))


@st.composite
def diagonals(draw):
    """Batch normalization or an affine map, on any axis, with statistics that are not 0 and 1."""
    rng = np.random.default_rng(draw(seeds))
    shape = draw(st.sampled_from([(3,), (3, 2, 4), (2, 3, 4)]))
    axis = draw(st.integers(-len(shape), len(shape) - 1))
    n = shape[axis]
    if draw(st.booleans()):
        return Affine(numbers(rng, n), numbers(rng, n), axis), shape
    gamma = numbers(rng, n) if draw(st.booleans()) else None
    beta = numbers(rng, n) if draw(st.booleans()) else None
    return BatchNorm(gamma, beta, numbers(rng, n), rng.uniform(0.1, 4, n), 1e-3, axis), shape


@st.composite
def dense(draw):
    rng = np.random.default_rng(draw(seeds))
    i, o = draw(st.integers(1, 5)), draw(st.integers(1, 5))
    bias = numbers(rng, o) if draw(st.booleans()) else None
    lead = draw(st.sampled_from([(), (), (2,), (2, 3)]))
    return Dense(numbers(rng, o, i), bias), (*lead, i)


linear_layers = st.one_of(convolutions(), convolutions(), pools(), diagonals(), dense())


def sample(layer, shape, seed, batch, positive=False):
    """An input batch, and relevance of the output with zeros in it."""
    rng = np.random.default_rng(seed)
    x = numbers(rng, batch, *shape)
    x[rng.random(x.shape) < 0.1] = 0
    x = abs(x) if positive else x
    y = layer.forward(x)
    R = numbers(rng, *y.shape)
    return x, y, R
