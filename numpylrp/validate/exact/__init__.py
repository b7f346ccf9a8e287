"""The exact oracle: the definitions of LRP in rational numbers, for small piecewise-linear networks.

Everything is plain Python over `fractions.Fraction`: no result has a rounding error, and `Tensor.to_float`
rounds once. Of a `numpylrp.Network` only the wiring, the kinds of layers and their parameters are read,
each float as the rational number that it is; no code is shared with the library. Numbers grow with the number
of units: meant for networks of up to a few hundred.

An array is a flat list, row-major, with a shape. A layer is one of few things on the flat lists of its
inputs, one after the other:

    Rows    linear: for each output a dict {input: weight} and a bias. Padding is in no row, so the border
            of a padded convolution is right by construction.
    Pick    pooling by maximum or minimum: the winner takes all, of equals the first
    Each    an activation, relevance unchanged; Threshold: absorbed where it is saturated
    Move    copies: flattening, padding, slices, concatenation
    Gate    a product
    Lrn     local response normalization, rows that depend on x

`sequences` has attention and recurrent layers, exact given the activations that are not rational, which it
records. `spread` has the rules, for one output unit at a time (equations and sources: `numpylrp.rules`).

Fusing composes rows. A batch normalization ``y_i = g_i x_i + s_i`` is

    after rows         W' = g W, b' = g b + s
    before rows        W' = W g, b' = b + W s
    before a ReLU      max(0, g x + s) = g T(x) + s with T(x) = x where g x + s > 0, else -s / g, then g, s
    around a maximum   g max(x) + s = max(g x + s) where g >= 0, min(g x + s) where g < 0
    around a mean      g mean(x) + s = mean(g x + s)
    before a sum       g (x1 + x2) + s = (g x1 + s) + g x2

It goes into the layers before it or, where that is not exact, into those after (the order of Guillemot
et al. 2020; it decides the numbers of every rule but LRP-0), and units that share weights before do so after.
"""

from . import sequences as sequences  # registers its kinds of layers
from .rules import spread
from .tensors import Tensor, tensor
from .walk import Result, Step, explain, forward, rounding_error

__all__ = ["Result", "Step", "Tensor", "explain", "forward", "rounding_error", "spread", "tensor"]
