"""Values of samples in a few numbers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from ..errors import LRPError


@dataclass(frozen=True)
class Summary:
    """Values of samples in a few numbers.

    Attributes
    ----------
    mean : float
    deviation : float
        Standard deviation over samples (with N - 1).
    error : float
        Standard error of the mean.
    count : int
        Samples whose value is defined.
    undefined : int
        Samples whose value is not (NaN): they are left out of the other numbers, and told.
    """

    mean: float
    deviation: float
    error: float
    count: int
    undefined: int

    def __str__(self) -> str:
        missing = f" ({self.undefined} undefined)" if self.undefined else ""
        return f"{self.mean:.4g} +- {self.error:.2g}{missing}"


def summarize(values: Any) -> Summary:
    """Mean, spread and number of the values of samples, one each.

    Raises
    ------
    LRPError
        Fewer than two samples.

    Examples
    --------
    >>> print(summarize([1.0, 2.0, 3.0, float("nan")]))
    2 +- 0.58 (1 undefined)
    """
    values = np.asarray(values, float)
    if values.ndim != 1 or len(values) < 2:
        raise LRPError(
            f"a mean with its spread needs the values of two samples or more, not shape {values.shape}"
        )
    defined = values[~np.isnan(values)]
    missing = len(values) - len(defined)
    if len(defined) == 0:
        return Summary(np.nan, np.nan, np.nan, 0, missing)
    if len(defined) == 1 or not np.isfinite(defined).all():
        return Summary(float(defined.mean()), np.nan, np.nan, len(defined), missing)
    deviation = float(defined.std(ddof=1))
    return Summary(float(defined.mean()), deviation, deviation / len(defined) ** 0.5, len(defined), missing)
