"""Average and sum pooling that has taken in a scale and shift."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from .conv import Conv


@dataclass(frozen=True, eq=False, repr=False)
class ScaledPool2D(Conv):
    """What is left of ``pool(g x + s)`` where padding counts: ``y = sum_taps (g x + s) / n``.

    The padding is 0 and has no shift, so that the shift comes out diluted at the border. A linear layer of
    the family "pool" with the parameters of `Conv2D`, one group a channel: composites treat it as pooling.

    Examples
    --------
    >>> import numpy as np
    >>> half = np.full((1, 1, 1, 2), 0.5)
    >>> pool = ScaledPool2D(half, padding=((0, 0), (1, 0)), groups=1, tap_bias=6 * half[:, 0])
    >>> pool.forward(np.array([[[[2.0, 4.0]]]]))
    array([[[[4., 9.]]]])
    """

    family: ClassVar[str] = "pool"


@dataclass(frozen=True, eq=False, repr=False)
class ScaledPool1D(ScaledPool2D):
    """`ScaledPool2D` on samples (C, W)."""

    rank: ClassVar[int] = 1


@dataclass(frozen=True, eq=False, repr=False)
class ScaledPool3D(ScaledPool2D):
    """`ScaledPool2D` on samples (C, D, H, W)."""

    rank: ClassVar[int] = 3
