"""Numbers and shapes as text: aligned columns, and the table of an explanation."""

from __future__ import annotations

import dataclasses
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
    if isinstance(value, tuple) and any(isinstance(v, tuple) for v in value):
        value = np.array(value)
    if isinstance(value, np.ndarray) and value.ndim:
        return f"<{'x'.join(map(str, value.shape))}>"
    if isinstance(value, tuple):
        return f"<{len(value)}>" if len(value) > 4 else f"({', '.join(map(value_text, value))})"
    return f"{value:g}" if isinstance(value, (float, np.ndarray)) else f"{value}"


def fields_text(value: Any, shown: Sequence[str]) -> str:
    """A rule as it is written: the parameters `shown`, and others where they are not the default.

    Examples
    --------
    >>> from numpylrp.rules import AlphaBeta
    >>> AlphaBeta(2.0, 1.0, epsilon=0.5)
    AlphaBeta(2, 1, epsilon=0.5)
    """
    parts = [value_text(getattr(value, name)) for name in shown]
    for f in dataclasses.fields(value) if dataclasses.is_dataclass(value) else ():
        if f.init and f.name not in shown and getattr(value, f.name) != f.default:
            parts.append(f"{f.name}={value_text(getattr(value, f.name))}")
    return f"{type(value).__name__}({', '.join(parts)})"


def flow_table(steps: Mapping[str, Any], sample: int | None = None) -> str:
    """The steps of an explanation, from the output back, with what each layer did not send on."""

    def of(values: np.ndarray) -> float:
        return float(values.mean() if sample is None else values[..., sample].mean())

    rows = [("layer", "kind", "rule", "output", f"{'relevance':>11}", f"{'lost':>10}")]
    for step in reversed(list(steps.values())):
        received, sent = of(step.received), of(step.sent)
        lost = f"{(received - sent) / received:10.2%}" if received else f"{'-':>10}"
        if abs(received - sent) <= 1e-9 * abs(received):
            lost = f"{'0':>9} "
        lost = "" if step.kind == "Input" else lost
        rows.append((step.name, step.kind, step.rule, shape_text(step.shape), f"{received:11.6g}", lost))
    return aligned(rows)


def explanation_text(explanation: Any) -> str:
    """An explanation in one line, and its table."""
    n = explanation.target.shape[-1]
    labels = sorted({explanation.label(t) for t in explanation.target.ravel().tolist()})
    what = f"class {', '.join(labels)}" if len(labels) < 6 else f"{len(labels)} classes"
    what += " (the only output)" if explanation.output[0].size == 1 else ""
    head = f"{n} sample{'s' * (n > 1)}, {what}{'; mean over samples' * (n > 1)}"
    return f"{head}\n{explanation.table()}"


def network_text(network: Any) -> str:
    """The layers of a network, one a line: kind, what it reads, its output, its parameters."""
    rows = [("layer", "kind", "reads", "output", "parameters")]
    for node in network.nodes:
        kind, reads = type(node.layer).__name__, ", ".join(node.inputs)
        count = sum(a.size for a in node.layer.arrays().values())
        rows.append((node.name, kind, reads, shape_text(network.shapes[node.name]), f"{count or ''}"))
    return aligned(rows)
