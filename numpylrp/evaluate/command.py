"""``numpylrp evaluate``: measures of one or more methods on the same samples, as a table, CSV and JSON.

The command line hooks it in with `add_parser`; everything else is here.
"""

from __future__ import annotations

import argparse
import csv
import io
import json
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from inspect import signature
from pathlib import Path
from typing import Any

import h5py  # type: ignore
import numpy as np

from .. import __version__, load
from ..composite import PRESETS
from ..errors import FileError, LRPError, ShapeError
from ..files import guarded, stored_array, whole
from ..inputs import read_arrays, samples
from ..network import Network
from ..text import aligned
from . import localization
from .baselines import METHODS, Method, checked_map, lrp
from .faithfulness import faithfulness_correlation, gini_index
from .fills import FILLS
from .maps import PARTS, box_masks, heatmaps, positions, regions
from .perturbation import ORDERS, region_perturbation
from .scores import SCORES, Scores, same_output
from .stability import sensitivity, weight_randomization
from .summary import Summary, summarize

MEASURES = ("perturbation", "faithfulness", "sparsity", "localization", "sensitivity", "randomization")
RELEVANCE = ("relevance", "attribution")
"""Names of the array of relevance in a file."""
INPUTS = ("inputs", "input", "x")
"""Names of the samples in a file of relevance, where it has them."""

EXAMPLES = """\
examples:
  numpylrp evaluate weights/mnist_cnn.h5 weights/digits.h5 --first 100 --composite epsilon epsilon-plus
  numpylrp evaluate model.h5 images.npy --relevance out/relevance.h5 --baselines random --out measured
  numpylrp evaluate model.h5 images.npy --composite epsilon-plus --masks masks.npy --measures localization
"""


def add_parser(commands: Any, *shared: Callable[[argparse.ArgumentParser], None]) -> None:
    """Add the command to the sub-parsers of a command line.

    Parameters
    ----------
    commands
        What ``add_subparsers`` gave.
    *shared : functions of the command's parser
        They add what other commands have too: ``inputs``, ``dataset``, ``labels``, ``scale``, ``resize`` and
        ``first``; ``normalization``; ``low`` and ``high``.
    """
    one = commands.add_parser(
        "evaluate",
        help="measure how good heatmaps are",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog=EXAMPLES,
    )
    one.set_defaults(command=run)
    one.add_argument("model", metavar="MODEL")
    for add in shared:
        add(one)
    names = {"nargs": "+", "metavar": "NAME"}
    one.add_argument("--relevance", metavar="FILE", help="relevance.h5 of numpylrp explain, .npz or .npy")
    one.add_argument(
        "--composite", choices=PRESETS, default=[], help=f"LRP by: {', '.join(PRESETS)}", **names
    )
    one.add_argument(
        "--baselines", choices=METHODS, default=[], help=f"to compare with: {', '.join(METHODS)}", **names
    )
    one.add_argument(
        "--measures",
        choices=MEASURES,
        help=f"(default perturbation, sparsity): {', '.join(MEASURES)}",
        **names,
    )
    truth = one.add_mutually_exclusive_group()
    truth.add_argument("--masks", metavar="FILE", help="for localization: N x H x W, true inside the object")
    truth.add_argument("--boxes", metavar="FILE", help="for localization: N x 4, top, left, bottom, right")
    truth.add_argument(
        "--object-threshold",
        type=float,
        metavar="F",
        help="for localization: the pixels above F are the object",
    )
    one.add_argument(
        "--region", type=int, nargs="+", metavar="N", help="size of regions (default 4; vectors 1)"
    )
    one.add_argument("--steps", type=int, metavar="N", help="regions that are replaced (default: all)")
    one.add_argument("--every", type=int, default=1, metavar="N", help="regions at a step (default 1)")
    one.add_argument(
        "--fill", choices=FILLS, default=["zero"], help=f"(default zero): {', '.join(FILLS)}", **names
    )
    one.add_argument("--part", choices=PARTS, default="all", help="which relevance counts (default all)")
    one.add_argument("--score", choices=SCORES, default="logit", help="what is watched (default logit)")
    one.add_argument("--target", help='class: an index, a label, or "true" (default: the predicted one)')
    one.add_argument("--subset", type=int, metavar="N", help="regions in a subset, for faithfulness")
    one.add_argument("--runs", type=int, default=100, metavar="N", help="subsets (default 100)")
    one.add_argument("--radius", type=float, default=0.1, metavar="F", help="of noise (default 0.1)")
    one.add_argument("--draws", type=int, default=10, metavar="N", help="of noise (default 10)")
    one.add_argument("--random-seed", type=int, default=0, metavar="N", help="(default 0)")
    one.add_argument("--batch-size", type=int, metavar="N", help="samples at a time (default: by memory)")
    one.add_argument("--out", metavar="DIR", help="folder for evaluation.csv and evaluation.json")


@dataclass
class _Subject:
    """A method and its relevance."""

    name: str
    R: np.ndarray
    method: Method | None

    def explains(self) -> Method:
        """The method, to explain anew."""
        if self.method is None:
            raise LRPError(f"{self.name} holds relevance of these samples and can't explain others")
        return self.method


@dataclass
class _Row:
    """What a measure says of a method."""

    method: str
    measure: str
    setting: str
    summary: Summary
    values: np.ndarray | None = None
    """Of each sample; None where the measure is one of the whole data set."""


@dataclass
class _Results:
    rows: list[_Row] = field(default_factory=list)
    curves: list[dict[str, Any]] = field(default_factory=list)

    def add(self, method: str, measure: str, setting: str, values: np.ndarray) -> None:
        self.rows.append(_Row(method, measure, setting, summarize(values), values))


@dataclass
class _Job:
    """What is measured, on what, and what was found."""

    args: argparse.Namespace
    network: Network
    scores: Scores
    masks: np.ndarray | None
    results: _Results = field(default_factory=_Results)


def run(args: argparse.Namespace) -> None:
    """Measure, print a table, and write what was found."""
    if not (args.relevance or args.composite or args.baselines):
        raise LRPError("nothing to evaluate: give --relevance FILE, --composite NAME or --baselines NAME")
    measures = args.measures or ["perturbation", "sparsity", *(["localization"] if _has_truth(args) else [])]
    if "localization" in measures and not _has_truth(args):
        raise LRPError("localization needs --masks FILE, --boxes FILE or --object-threshold F")
    if args.relevance and (
        method := next((m for m in ("sensitivity", "randomization") if m in measures), None)
    ):
        raise LRPError(
            f"{method} explains anew, which a file of relevance can't: give --composite or --baselines"
        )
    if args.out:
        _folder(Path(args.out))
    network = load(args.model)
    if getattr(args, "input_range", None):
        network.metadata["input_range"] = list(args.input_range)
    given = samples(args.inputs, network, args.dataset, args.labels, args.scale, args.resize)
    given.first = args.first
    if len(given) < 2:
        raise LRPError("an evaluation with its spread needs two samples or more, not 1")
    x = given[0 : len(given)]
    stored = _read_relevance(args.relevance, x.shape) if args.relevance else {}
    target: Any = int(args.target) if args.target and args.target.isdecimal() else args.target
    if target == "true":
        if given.labels is None:
            raise LRPError("target 'true' needs labels, and the inputs have none")
        target = given.labels[: len(x)].tolist()
    if target is None and "target" in stored:
        target = stored["target"].tolist()
    scores = Scores(network, x, target, batch_size=args.batch_size)
    _same_samples(stored, scores, args.relevance)
    job = _Job(args, network, scores, _masks(args, scores) if "localization" in measures else None)
    for subject in _subjects(args, network, scores, stored):
        for measure in measures:
            _MEASURES[measure](job, subject)
    print(f"{len(x)} samples, {args.model}; mean +- standard error\n{_table(job.results)}")
    if args.out:
        _write(Path(args.out), args, len(x), job.results)


def _has_truth(args: argparse.Namespace) -> bool:
    return bool(args.masks or args.boxes or args.object_threshold is not None)


def _subjects(
    args: argparse.Namespace, network: Network, scores: Scores, stored: dict[str, np.ndarray]
) -> Iterator[_Subject]:
    if stored:
        yield _Subject(Path(args.relevance).name, stored["relevance"], None)
    methods: dict[str, Method] = {}
    given = {name: getattr(args, name) for name in ("low", "high") if getattr(args, name) is not None}
    for name in args.composite:
        takes = {
            option: value for option, value in given.items() if option in signature(PRESETS[name]).parameters
        }
        methods[name] = lrp(name, args.normalization, **takes)
    if given and not any(set(given) <= set(signature(PRESETS[name]).parameters) for name in args.composite):
        raise LRPError(f"none of the composites takes {' and '.join(given)}")
    for name in args.baselines:
        seeded = {"seed": args.random_seed} if "seed" in signature(METHODS[name]).parameters else {}
        methods[name] = partial(METHODS[name], **seeded)
    for name, method in methods.items():
        R = checked_map(method(network, scores.inputs(), scores.target.tolist()), scores.x, scores.input)
        yield _Subject(name, R, method)


def _read_relevance(path: str, shape: tuple[int, ...]) -> dict[str, np.ndarray]:
    """Relevance of the samples in a file, and what there is beside it to know them by."""
    arrays = _arrays_of(path)
    name = next((n for n in RELEVANCE if n in arrays), None)
    if name is None:
        if len(arrays) != 1:
            held = ", ".join(f"{key} {a.shape}" for key, a in arrays.items())
            raise FileError(f"{path} has no array {' or '.join(map(repr, RELEVANCE))}; it has {held}")
        name = next(iter(arrays))
    R = arrays[name]
    if R.ndim != len(shape) or R.shape[1:] != shape[1:] or len(R) < shape[0]:
        raise ShapeError(f"{path}: relevance has shape {R.shape}, but the samples have {shape}")
    rows = np.arange(shape[0])
    if len(R) > shape[0] and (
        "index" not in arrays or not np.array_equal(arrays["index"][: len(rows)], rows)
    ):
        raise ShapeError(f"{path} has relevance of {len(R)} samples, but there are {shape[0]}")
    kept = {"relevance": name, "output": "output", "target": "target"}
    kept["inputs"] = next((n for n in INPUTS if n in arrays), "inputs")
    found = {key: np.asarray(arrays[at][: len(rows)]) for key, at in kept.items() if at in arrays}
    if "target" in found and (
        found["target"].shape != (len(rows),) or found["target"].dtype.kind not in "iu"
    ):
        raise FileError(f"{path}: 'target' is not one class for each of the {len(rows)} samples")
    return found


def _arrays_of(path: str) -> dict[str, Any]:
    arrays = read_arrays(Path(path))
    with guarded(path):
        return {
            name: stored_array(a, f"{path}: {name}", "fiub") if isinstance(a, h5py.Dataset) else a
            for name, a in arrays.items()
        }


def _same_samples(stored: dict[str, np.ndarray], scores: Scores, path: str) -> None:
    """Refuse relevance of other samples or other classes."""
    if not stored:
        return
    if "inputs" in stored:
        there = stored["inputs"]
        fits = there.shape == scores.x.shape
        apart = [
            n for n in range(len(scores)) if not fits or not np.allclose(there[n], scores.x[n], rtol=1e-5)
        ]
        if apart:
            raise LRPError(f"{path} holds relevance of other samples, first in sample {apart[0]}")
    if "output" in stored:
        try:
            same_output(stored["output"], scores.logits)
        except LRPError as error:
            raise LRPError(f"{path}: {error}") from None
    if "inputs" not in stored and "output" not in stored:
        print(
            f"{path} holds neither inputs nor outputs: that it is of these samples is not checked",
            file=sys.stderr,
        )
    if "target" in stored and (apart := np.flatnonzero(stored["target"] != scores.target).tolist()):
        n = apart[0]
        raise LRPError(
            f"{path} explains class {stored['target'][n]} of sample {n}, but the target is {scores.target[n]}"
        )


def _masks(args: argparse.Namespace, scores: Scores) -> np.ndarray:
    size = positions(scores.x.shape[1:], scores.channels)
    if args.object_threshold is not None:
        above = scores.x > args.object_threshold
        return above if scores.channels is None else above.any(scores.channels + 1)
    path = args.masks or args.boxes
    arrays = _arrays_of(path)
    count = len(scores)
    rows = (count, 4) if args.boxes else (count, *size)
    fitting = [a for a in arrays.values() if a.shape[1:] == rows[1:] or a.shape[1:] == (1, *rows[1:])]
    if len(fitting) != 1 or len(fitting[0]) < count or (len(fitting[0]) > count and not args.first):
        held = ", ".join(f"{name or 'array'} {a.shape}" for name, a in arrays.items()) or "none"
        raise ShapeError(f"{path} must have one array of shape {rows}; it has {held}")
    found = np.asarray(fitting[0][:count]).reshape(rows)
    if not args.boxes:
        return found
    if len(size) != 2:
        raise ShapeError(f"boxes need images, but the samples have positions {size}")
    return box_masks(found, (size[0], size[1]))


def _region(args: argparse.Namespace, scores: Scores) -> Any:
    if args.region:
        return args.region[0] if len(args.region) == 1 else tuple(args.region)
    return 4 if len(positions(scores.x.shape[1:], scores.channels)) == 2 else 1


def _shared(args: argparse.Namespace, scores: Scores) -> dict[str, Any]:
    return {
        "region": _region(args, scores),
        "part": args.part,
        "score": args.score,
        "seed": args.random_seed,
        "batch_size": args.batch_size,
    }


def _perturbation(job: _Job, one: _Subject) -> None:
    for fill in job.args.fill:
        found = region_perturbation(
            job.network,
            job.scores.x,
            one.R,
            job.scores.target.tolist(),
            steps=job.args.steps,
            every=job.args.every,
            fill=fill,
            progress=_progress(f"{one.name}, perturbation, {fill}"),
            **_shared(job.args, job.scores),
        )
        for order in ORDERS:
            job.results.add(one.name, f"AOPC {order}", fill, found.aopc(order))
            mean, deviation = found.curve(order)
            curve = {"regions": found.counts.tolist(), "mean": mean.tolist(), "deviation": deviation.tolist()}
            job.results.curves.append({"method": one.name, "fill": fill, "order": order, **curve})
        job.results.add(one.name, "ABPC", fill, found.abpc())


def _faithfulness(job: _Job, one: _Subject) -> None:
    size = positions(job.scores.x.shape[1:], job.scores.channels)
    count = int(regions(size, _region(job.args, job.scores)).max()) + 1
    subset = job.args.subset or max(1, count // 8)
    for fill in job.args.fill:
        found = faithfulness_correlation(
            job.network,
            job.scores.x,
            one.R,
            job.scores.target.tolist(),
            subset=subset,
            runs=job.args.runs,
            fill=fill,
            progress=_progress(f"{one.name}, faithfulness, {fill}"),
            **_shared(job.args, job.scores),
        )
        job.results.add(one.name, "faithfulness correlation", f"{fill}, {subset} of {count}", found)


def _sparsity(job: _Job, one: _Subject) -> None:
    maps = heatmaps(one.R, job.scores.channels, job.args.part)
    job.results.add(one.name, "Gini index", job.args.part, gini_index(maps))


def _localization(job: _Job, one: _Subject) -> None:
    maps = heatmaps(one.R, job.scores.channels)
    for part in dict.fromkeys((job.args.part, "positive")):
        mass = localization.relevance_mass_accuracy(maps, job.masks, part)
        job.results.add(one.name, "relevance mass accuracy", part, mass)
    rank = localization.relevance_rank_accuracy(maps, job.masks, job.args.part)
    job.results.add(one.name, "relevance rank accuracy", job.args.part, rank)
    job.results.add(
        one.name, "pointing game", job.args.part, localization.pointing_game(maps, job.masks, job.args.part)
    )
    for form in ("normalized", "positive"):
        ratio = localization.outside_inside_ratio(maps, job.masks, form)
        job.results.add(one.name, "outside-inside ratio", form, ratio)
    for threshold in ("mean", 0.5):
        found = localization.segmentation(maps, job.masks, threshold)
        setting = f"threshold {threshold}"
        for measure, value in (("mIoU", found.miou), ("pixel accuracy", found.pixel_accuracy)):
            of_all = Summary(value, np.nan, np.nan, len(maps), 0)
            job.results.rows.append(_Row(one.name, measure, setting, of_all))
    job.results.add(one.name, "average precision", "", found.average_precision)


def _sensitivity(job: _Job, one: _Subject) -> None:
    found = sensitivity(
        job.network,
        job.scores.inputs(),
        one.explains(),
        job.scores.target.tolist(),
        radius=job.args.radius,
        draws=job.args.draws,
        seed=job.args.random_seed,
        progress=_progress(f"{one.name}, sensitivity"),
    )
    job.results.add(one.name, "max-sensitivity", f"radius {job.args.radius:g}", found.max(1))
    job.results.add(one.name, "average sensitivity", f"radius {job.args.radius:g}", found.mean(1))


def _randomization(job: _Job, one: _Subject) -> None:
    found = weight_randomization(
        job.network,
        job.scores.inputs(),
        one.explains(),
        job.scores.target.tolist(),
        part="absolute" if job.args.part == "absolute" else "all",
        seed=job.args.random_seed,
        progress=_progress(f"{one.name}, randomization"),
    )
    for name, rank, index in zip(found.names, found.rank_correlation, found.ssim):
        job.results.add(one.name, "rank correlation, random from the top", f"to {name}", rank)
        job.results.add(one.name, "SSIM, random from the top", f"to {name}", index)


_MEASURES: dict[str, Callable[[_Job, _Subject], None]] = {
    "perturbation": _perturbation,
    "faithfulness": _faithfulness,
    "sparsity": _sparsity,
    "localization": _localization,
    "sensitivity": _sensitivity,
    "randomization": _randomization,
}


def _progress(label: str) -> Callable[[int, int], None]:
    """Progress on one line of a terminal; elsewhere a line at the end."""

    def show(done: int, total: int) -> None:
        if sys.stderr.isatty():
            print(f"\r{label}: {done}/{total}   ", end="\n" * (done == total), file=sys.stderr, flush=True)
        elif done == total:
            print(f"{label}: {total} evaluations", file=sys.stderr)

    return show


def _table(results: _Results) -> str:
    """A line for each measure, a column for each method."""
    methods = list(dict.fromkeys(row.method for row in results.rows))
    cells: dict[tuple[str, str], dict[str, str]] = {}
    for row in results.rows:
        only = f"{row.summary.mean:.4g}" if np.isnan(row.summary.error) else str(row.summary)
        cells.setdefault((row.measure, row.setting), {})[row.method] = only
    lines = [("measure", "setting", *methods)]
    lines += [(*key, *(found.get(method, "-") for method in methods)) for key, found in cells.items()]
    return aligned(lines)


COLUMNS = ("method", "measure", "setting", "mean", "deviation", "error", "samples", "undefined")


def _record(row: _Row) -> dict[str, Any]:
    s = row.summary
    numbers = (s.mean, s.deviation, s.error)
    return dict(zip(COLUMNS, (row.method, row.measure, row.setting, *numbers, s.count, s.undefined)))


def _folder(path: Path) -> None:
    """Make the folder, before anything is calculated for it."""
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise FileError(f"{path} can't be made: {error.strerror or error}") from error
    for name in ("evaluation.csv", "evaluation.json"):
        if (path / name).is_dir():
            raise FileError(f"{path / name} is a folder")


def _write(out: Path, args: argparse.Namespace, count: int, results: _Results) -> None:
    """Both files are written beside their places before either takes it."""
    settings = {name: value for name, value in vars(args).items() if name not in ("command", "out")}
    text = io.StringIO()
    writer = csv.DictWriter(text, COLUMNS, lineterminator="\n")
    writer.writeheader()
    writer.writerows([{k: _number(v) for k, v in _record(row).items()} for row in results.rows])
    found = {
        "numpylrp": __version__,
        "samples": count,
        "settings": settings,
        "results": [
            {**_record(row), "values": None if row.values is None else row.values.tolist()}
            for row in results.rows
        ],
        "curves": results.curves,
    }
    whole_text = json.dumps(_plain(found), indent=1, allow_nan=False) + "\n"
    with whole(out / "evaluation.csv") as one, whole(out / "evaluation.json") as two:
        one.write_text(text.getvalue(), encoding="utf-8")
        two.write_text(whole_text, encoding="utf-8")
    print(f"\n{out}: evaluation.csv, evaluation.json")


def _number(value: Any) -> Any:
    """A float with all its digits; nothing where it is not defined."""
    if not isinstance(value, float):
        return value
    return "" if np.isnan(value) else repr(float(value))


def _plain(value: Any) -> Any:
    """What JSON knows: null for NaN, and infinity by name."""
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if isinstance(value, float) and not np.isfinite(value):
        return None if np.isnan(value) else str(value)
    return value if isinstance(value, (str, int, float, bool)) or value is None else str(value)
