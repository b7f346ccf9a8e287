"""Tables, pictures and words of an experiment."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable
from pathlib import Path
from textwrap import wrap
from typing import Any

import numpy as np

from ..evaluate.truth import mosaics
from ..files import whole
from ..plot import figure, overview, save_figure
from .claims import RESAMPLES, Comparison, grouped, in_words, verdict
from .experiments import Experiment
from .measures import EVERY, REGION
from .study import Study

SHOWN, ACROSS = 5, 4
"""Images in the sheet of heatmaps, and panels of the chart side by side."""


def means(rows: Iterable[tuple]) -> list[dict[str, Any]]:
    """Mean and standard error of each measure, as records for a table."""
    found = []
    for network, seed, method, measure, values in rows:
        values = values[np.isfinite(values)]
        n = len(values)
        if n:
            error = values.std(ddof=1) / n**0.5 if n > 1 else float("nan")
            keys = ("network", "seed", "method", "measure", "mean", "error", "images")
            found.append(dict(zip(keys, (network, seed, method, measure, values.mean(), error, n))))
    return found


def judged(comparisons: list[Comparison]) -> list[dict[str, Any]]:
    """Each comparison with its interval, and the verdict over all seeds, as records for a table."""
    found = []
    for group in grouped(comparisons).values():
        word = verdict(group)
        for one in group:
            found.append(
                {
                    "claim": one.claim,
                    "network": one.network,
                    "comparison": one.setting,
                    "measure": one.measure,
                    "seed": one.seed,
                    "first": one.better,
                    "second": one.worse,
                    "difference": one.found.mean,
                    "low": one.found.low,
                    "high": one.found.high,
                    "images": one.found.count,
                    "verdict": word,
                }
            )
    return found


def _text(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, (float, np.floating)) else str(value)


def write_csv(path: Path, records: list[dict[str, Any]]) -> None:
    """Records as CSV, written whole."""
    text = io.StringIO()
    writer = csv.DictWriter(text, list(records[0]) if records else [], lineterminator="\n")
    writer.writeheader()
    writer.writerows({key: _text(value) for key, value in record.items()} for record in records)
    with whole(path) as beside:
        beside.write_text(text.getvalue(), encoding="utf-8")


def markdown(records: list[dict[str, Any]], columns: Iterable[str] | None = None) -> str:
    """Records as a Markdown table.

    Examples
    --------
    >>> print(markdown([{"a": 1.0, "b": "x"}]))
    | a | b |
    |---|---|
    | 1 | x |
    """
    columns = list(columns or (records[0] if records else ()))

    def line(values: Iterable[Any]) -> str:
        return "| " + " | ".join(_text(value).replace("|", "\\|") for value in values) + " |"

    return "\n".join(
        [line(columns), "|" + "---|" * len(columns), *(line(r[c] for c in columns) for r in records)]
    )


def text_of(study: Study, experiment: Experiment, rows: list[tuple], comparisons: list[Comparison]) -> str:
    """The report of an experiment, in Markdown."""
    names = sorted({(row[0], row[1]) for row in rows})
    sources = sorted({f"{len(s.x)} images of {s.source}" for s in (study.samples(name) for name, _ in names)})
    pairs = len(grouped(comparisons))
    parts = [
        f"# {experiment.title}",
        experiment.about,
        f"Measured on {' and '.join(sources)}; perturbation of {study.steps} regions of {REGION} x {REGION}, "
        f"{min(EVERY, study.steps)} at a step, watching the logit. Networks (training seeds): "
        + ", ".join(f"{name} ({', '.join(str(s) for n, s in names if n == name)})" for name in dict(names))
        + ".",
        "A reproduction of claims with a protocol of our own: the papers' tables could not be had. Each "
        f"interval is a paired 95 % bootstrap interval of the mean over images ({RESAMPLES} resamples); a "
        "claim holds only where the interval of every training seed lies above 0, and does not hold where "
        "one lies "
        f"below. There are {pairs} comparisons without any correction: about one in twenty of those without "
        "a difference may show one for a single seed.",
        "## Verdicts",
        *(f"- {line}" for line in in_words(comparisons)),
        "## Comparisons",
        markdown(judged(comparisons)),
        "## All means",
        "One number for each training seed; standard errors are in means.csv.",
        markdown(side_by_side(rows)),
    ]
    return "\n\n".join(parts).replace("\n\n- ", "\n- ") + "\n"


def side_by_side(rows: Iterable[tuple]) -> list[dict[str, Any]]:
    """The means of each network and method in one record, a column for each measure, all seeds in it."""
    table = means(rows)
    measures = dict.fromkeys(record["measure"] for record in table)
    found: dict[tuple, dict[str, Any]] = {}
    for record in table:
        key = {"network": record["network"], "method": record["method"]}
        line = found.setdefault(tuple(key.values()), key | dict.fromkeys(measures, ""))
        line[record["measure"]] += f" {record['mean']:.3g}"
    return list(found.values())


def chart(rows: list[tuple], measures: list[str], path: Path) -> None:
    """Mean and standard error of every method, a panel for each measure, a colour for each network."""
    table = [record for record in means(rows) if record["measure"] in measures]
    methods = list(dict.fromkeys(record["method"] for record in table))
    networks = list(dict.fromkeys(record["network"] for record in table))
    wide = min(len(measures), ACROSS)
    high = -(-len(measures) // wide)
    line = 0.14 + 0.03 * len(networks)
    made = figure(2.2 + 2.0 * wide, 0.8 + high * (0.5 + line * len(methods)))
    grid = np.reshape(made.subplots(high, wide, sharey=True), (high, wide))
    axes = grid.ravel()
    for unused in axes[len(measures) :]:
        unused.set_visible(False)
    for axis, measure in zip(axes, measures):
        for record in table:
            if record["measure"] == measure:
                k = networks.index(record["network"])
                at = methods.index(record["method"]) + 0.7 * (k / max(len(networks) - 1, 1) - 0.5)
                axis.errorbar(
                    record["mean"], at, xerr=1.96 * record["error"], fmt="o", ms=3, lw=1, color=f"C{k}"
                )
        axis.set_title(measure, fontsize=9)
        axis.tick_params(labelsize=7)
        axis.grid(axis="x", lw=0.3)
    for axis in grid[:, 0]:
        axis.set_yticks(range(len(methods)), methods, fontsize=7)
    axes[0].invert_yaxis()
    marks = [axes[0].plot([], [], "o", ms=4, color=f"C{k}", label=name)[0] for k, name in enumerate(networks)]
    made.legend(handles=marks, loc="outside lower center", ncols=min(len(networks), 5), fontsize=7)
    save_figure(made, path)


def sheet(study: Study, experiment: Experiment, path: Path) -> None:
    """The maps of the first network for some images, a column for each method that is shown."""
    one = next(study.trained(*experiment.networks))
    images = study.samples(one.name)
    if "grid of positive" in experiment.measures:
        truth = mosaics(images.x, images.labels)
        x, target = truth.x[:SHOWN], truth.target[:SHOWN]
    else:
        x, target = images.x[:SHOWN], study.logits(one)[:SHOWN].argmax(1)
    methods = experiment.methods(study, one.name)
    names = [name for name in methods if name.startswith(experiment.shown) and name != "random"]
    maps = {
        "\n".join(wrap(name, 15)): np.asarray(methods[name](one.network, x, target)) for name in names[:9]
    }
    labels = one.network.metadata.get("class_names", [str(k) for k in range(10)])
    overview(x, maps, [labels[k] for k in target], f"{one.name}: the class asked for", path)


def write(study: Study, name: str, experiment: Experiment, rows: list[tuple], found: list[Comparison]) -> str:
    """Write report.md, comparisons.csv, means.csv, chart.png and maps.png; the text of the report."""
    text = text_of(study, experiment, rows, found)
    write_csv(study.out / "comparisons.csv", judged(found))
    write_csv(study.out / "means.csv", means(rows))
    judged_by = dict.fromkeys(one.measure for one in found)
    chart(rows, list(judged_by), study.out / "chart.png")
    sheet(study, experiment, study.out / "maps.png")
    with whole(study.out / "report.md") as beside:
        beside.write_text(text, encoding="utf-8")
    return text
