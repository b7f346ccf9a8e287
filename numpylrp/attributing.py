"""Rules that share by absolute contributions: AbsLRP, and Relative Attributing Propagation (RAP)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from .rules import Halves, Part, Rule, Share, absolute, divide, halves, negative, positive, signed_parts


@dataclass(frozen=True, repr=False)
class AbsLRP(Rule):
    """Relevance in proportion to absolute contributions (Vukadin et al. 2024; details recalled).

    ``R_i = sum_j  |x_i w_ij| / sum_i |x_i w_ij|  R_j``. The bias takes no part. It is also the first step
    of RAP, from the class explained to what the last dense layer reads (Nam et al. 2020).

    Examples
    --------
    >>> from numpylrp.layers import Dense
    >>> dense, x = Dense([[1.0, -2.0]]), np.array([[2.0, 3.0]])
    >>> dense.relprop(np.array([[4.0]]), x, dense.forward(x), AbsLRP())
    array([[1., 3.]])
    """

    epsilon: float = 0.0

    def shares(self, layer, R, x, y):
        yield Share(R, [Part(np.abs(x), absolute)])


@dataclass(frozen=True, repr=False)
class ImageBox(Rule):
    """The z^B rule with the smallest and largest value of each image as its bounds (Nam et al. 2020).

    ``R_i = sum_j (x_i w_ij - l w_ij+ - h w_ij-) / (sum_i ...) R_j``, l = min x and h = max x of the sample.

    Examples
    --------
    >>> from numpylrp.layers import Dense
    >>> dense, x = Dense([[1.0, -1.0, 1.0]]), np.array([[0.0, 1.0, 0.5]])
    >>> dense.relprop(np.array([[1.0]]), x, dense.forward(x), ImageBox())
    array([[0., 0., 1.]])
    """

    epsilon: float = 0.0

    def shares(self, layer, R, x, y):
        axes = tuple(range(1, x.ndim))
        low = np.broadcast_to(x.min(axes, keepdims=True), x.shape)
        high = np.broadcast_to(x.max(axes, keepdims=True), x.shape)
        yield Share(R, [Part(x), Part(-low, positive), Part(-high, negative)])


@dataclass(frozen=True, repr=False)
class RelativeAttribution(Rule):
    """A step of RAP between hidden layers (Nam et al. 2020, as their code computes it).

    With ``P_k = sum_j z_jk+`` and ``N_k = sum_j |z_jk-|``, the sums of what excites and inhibits output k,

        C_j = sum_k ( z_jk+ / P_k  +  |z_jk-| / (P_k + N_k) ) R_k
        R_j = C_j - (sum_i C_i - sum_k R_k) / G        where C_j != 0, else 0

    G is the number of inputs with C_j != 0 (of one sample, all channels and positions): a shift by the same
    amount, which keeps the sum exactly and makes what contributes little negative. Only where no input has
    any is the relevance lost. Each term is dropped by itself where its denominator is 0. The bias takes no
    part. Contributions are split by their sign, so inputs may have any sign.

    Parameters
    ----------
    inhibiting : bool
        For outputs with negative relevance the first term is ``|z_jk-| / N_k``: so the authors' code does in
        convolutions, but not in dense layers.
    doubled : bool
        What the authors' code does where inputs have both signs: x+ and x- are taken apart, each with its
        own P, N (by the sign of the weight, not of the contribution) and shift, so that the sum doubles.

    Examples
    --------
    >>> from numpylrp.layers import Dense
    >>> dense, x = Dense([[1.0, -1.0], [0.0, 1.0]]), np.array([[3.0, 1.0]])
    >>> dense.relprop(np.array([[4.0, 2.0]]), x, dense.forward(x), RelativeAttribution())
    array([[3.5, 2.5]])
    """

    inhibiting: bool = False
    doubled: bool = False
    shown: ClassVar = ("inhibiting",)

    def propagate(self, layer, R, x, y, note=None):
        R_x = np.zeros_like(x)
        for side in self.sides(x):
            C = self.contributions(layer, R, side)
            R_x = R_x + shifted(C, R)
            if note:
                note(C=C)
        return R_x

    def sides(self, x: np.ndarray) -> list[Halves]:
        """The inputs that are shifted together: all of them, or x+ and x- apart."""
        return [[(np.abs(half), 1)] for half, _ in halves(x)] if self.doubled else [halves(x)]

    def contributions(self, layer: Any, R: np.ndarray, x: Halves) -> np.ndarray:
        """C, what the inputs contribute before the shift."""
        shape = x[0][0].shape[1:]
        weight, _ = layer.parameters(shape)
        sums = []
        for along, against in ((positive, negative), (negative, positive)):
            parts = [(part, part.change(weight)) for part in signed_parts(x, along, against, None)]
            sums.append((parts, sum(layer.linear(part.x, w, None) for part, w in parts)))
        (excite, P), (inhibit, minus_N) = sums
        below = R * (R < 0) if self.inhibiting else np.zeros_like(R)
        s_excite = divide(R - below, P)
        s_inhibit = divide(-R, P - minus_N) + divide(below, minus_N)
        C = np.zeros_like(x[0][0])
        for parts, s in ((excite, s_excite), (inhibit, s_inhibit)):
            for part, w in parts:
                C = C + part.x * layer.adjoint(s, w, shape)
        return C


def shifted(C: np.ndarray, R: np.ndarray) -> np.ndarray:
    """C less the same amount wherever it is not 0, so that each sample sums to what R sums to.

    Examples
    --------
    >>> shifted(np.array([[3.0, 0.0, 1.0]]), np.array([[2.0]]))
    array([[2., 0., 0.]])
    """
    on = C != 0
    axes = tuple(range(1, C.ndim))
    excess = C.sum(axes, keepdims=True) - R.reshape(len(R), -1).sum(1).reshape(-1, *(1,) * (C.ndim - 1))
    return C - divide(np.broadcast_to(excess, C.shape), on.sum(axes, keepdims=True, dtype=C.dtype)) * on
