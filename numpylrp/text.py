"""Numbers and shapes as text: aligned columns, and the table of an explanation."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np


def aligned(rows: Sequence[Sequence[str]]) -> str:
    """Rows of text in columns.

    Examples
    --------
    >>> print(aligned([("a", "bcd"), ("ef", "g")]))
    a   bcd
    ef  g
    """
    widths = [max(map(len, column)) for column in zip(*rows)]
    return "\n".join("  ".join(map(str.ljust, row, widths)).rstrip() for row in rows)


def shape_text(shape: Iterable[int | None]) -> str:
    """A sample shape, with ? for a free size.

    Examples
    --------
    >>> shape_text((3, None, 28))
    '3 x ? x 28'
    """
    return " x ".join("?" if n is None else str(n) for n in shape) or "scalar"


def value_text(value: Any) -> str:
    """A parameter of a rule, shortly: large arrays by their shape."""
    if isinstance(value, np.ndarray) and value.ndim:
        return f"<{'x'.join(map(str, value.shape))}>"
    if isinstance(value, tuple):
        return f"<{len(value)}>" if len(value) > 4 else f"({', '.join(map(value_text, value))})"
    return f"{value:g}" if isinstance(value, (float, np.ndarray)) else f"{value}"


def flow_table(steps: Mapping[str, Any], sample: int | None = None) -> str:
    """The steps of an explanation, from the output back, with what each layer did not send on."""

    def of(values: np.ndarray) -> float:
        return float(values.mean() if sample is None else values[..., sample].mean())

    rows = [("layer", "kind", "rule", "output", f"{'relevance':>11}", "share lost")]
    for step in reversed(steps.values()):
        received, sent = of(step.received), of(step.sent)
        lost = f"{(received - sent) / received:10.2%}" if received else f"{'-':>10}"
        if abs(received - sent) <= 1e-9 * abs(received):
            lost = f"{'0':>9} "
        lost = "" if step.kind == "Input" else lost
        rows.append((step.name, step.kind, step.rule, shape_text(step.shape), f"{received:11.6g}", lost))
    return aligned(rows)
