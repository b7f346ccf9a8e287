"""Explain many samples into one HDF5 file, chunk by chunk (`chunks`), so that it can stop and go on.

The file has the layout that ViRelAy opens (``attribution``, ``label``, ``prediction``, ``index``) and
beside it what a later question may need::

    attribution   (N, *input)   relevance of the input
    index         (N,)          position in the source
    prediction    (N,)          class with the largest output (of a single output: 1 where it is above 0)
    target        (N,)          class explained
    label         (N,)          true class, where known
    output        (N, *output)  logits
    layers/0000   (N, 2)        sums of the relevance that a layer received and sent on;
                                attributes order, name, kind, rule, shape (JSON)
    attributes    settings (JSON): model, composite, seed, target, numpylrp's version; checksum
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py  # type: ignore
import numpy as np

from .. import __version__
from ..errors import LRPError
from ..explanation import Explanation, Step, explain
from ..files import opened
from ..inputs import Samples
from ..network import Network
from ..planning import prepared
from .chunks import Job, locked

CHUNK = 64
"""Samples of one chunk."""


def fingerprint(network: Network) -> str:
    """A hash of what the network computes: its layers, wiring and weights, and what is said of its inputs."""
    digest = hashlib.sha256(json.dumps(network.metadata, sort_keys=True, default=str).encode())
    for node in network.nodes:
        digest.update(repr((node, sorted(node.layer.arrays()))).encode())
        for _, array in sorted(node.layer.arrays().items()):
            digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()[:16]


def explain_into(
    path: str | os.PathLike,
    network: Network,
    samples: Samples,
    *,
    target: Any = None,
    composite: Any = "epsilon-plus",
    normalization: str = "fused",
    seed: Any = "logit",
    batch_size: int | None = None,
    overwrite: bool = False,
    progress: Callable[[int, int, int], None] = lambda done, total, now: None,
    say: Callable[[str], None] = lambda text: None,
    **options: Any,
) -> dict[str, Step]:
    """Explain all samples into an HDF5 file.

    A run that was stopped is taken up again where it was, if it is the same run: the same network,
    samples and settings. One that is finished is not computed again.

    Parameters
    ----------
    path : path
        The file to make.
    network : Network
    samples : Samples
    target : None, int, str or "true"
        As in `numpylrp.explain`; "true" is each sample's label.
    composite, normalization, seed, batch_size, **options
        As in `numpylrp.explain`; the options are those of the composite's preset.
    overwrite : bool
        Replace the result of another run.
    progress : callable
        Called with the number of samples done, of all, and done in this call.
    say : callable
        Called with a line where a run goes on, or is finished already.

    Returns
    -------
    dict of Step
        What each layer received and sent, for all samples.

    Raises
    ------
    FileError
        A result of another run, a full disk.
    LRPError
        Another process is at work on the same file; what `numpylrp.explain` raises.
    """
    if target == "true" and samples.labels is None:
        raise LRPError("target 'true' needs labels, and the inputs have none")
    model = fingerprint(network)
    network, rules = prepared(network, composite, normalization, **options)
    settings = {
        "numpylrp": __version__,
        "model": model,
        "normalization": normalization,
        "dtype": str(network.dtype),
        "rules": {name: str(rule) for name, rule in rules.rules(network).items()},
        "seed": str(seed),
        "target": str(target),
        "inputs": samples.checksum(),
        "options": str(sorted(options.items())),
    }
    path = Path(path)
    with locked(path):
        job = Job(path, settings, len(samples), CHUNK, overwrite)
        if job.finished:
            say(f"{path} is finished: the same run is not computed again")
            return steps_of(path)
        left = job.begin()
        before = len(samples) - sum(job.rows(n).stop - job.rows(n).start for n in left)
        if before:
            say(f"{path}: going on, {before} of {len(samples)} samples are done")
        options = {"composite": rules, "normalization": "linear", "seed": seed, "batch_size": batch_size}
        now = 0
        try:
            for n in left:  # "linear": what there is to fuse is fused already
                rows = job.rows(n)
                labels = None if samples.labels is None else samples.labels[rows]
                chosen = labels.tolist() if target == "true" and labels is not None else target
                some = explain(network, samples[rows], chosen, **options)
                with job.writing(n) as file:
                    _write(file, some, rows, labels)
                now += rows.stop - rows.start
                progress(before + now, len(samples), now)
            job.finish()
        finally:
            job.leave()
    return steps_of(path)


def _write(file: h5py.File, some: Explanation, rows: slice, labels: np.ndarray | None) -> None:
    file["attribution"] = some.relevance
    file["index"] = np.arange(rows.start, rows.stop)
    file["prediction"] = some.prediction
    file["target"] = some.target
    file["output"] = some.output
    if labels is not None:
        file["label"] = labels
    for order, step in enumerate(some.steps.values()):
        name = f"layers/{order:04d}"
        file[name] = np.stack([step.received, step.sent], axis=1)
        file[name].attrs.update(
            order=order, name=step.name, kind=step.kind, rule=step.rule, shape=json.dumps(step.shape)
        )


def steps_of(path: str | os.PathLike) -> dict[str, Step]:
    """What each layer received and sent, of a file that `explain_into` has made."""
    steps = {}
    with opened(path) as file:
        for data in sorted(file["layers"].values(), key=lambda data: data.attrs["order"]):
            name, kind, rule = (str(data.attrs[key]) for key in ("name", "kind", "rule"))
            values = data[()]
            shape = tuple(json.loads(data.attrs["shape"]))
            steps[name] = Step(name, kind, rule, shape, values[:, 0], values[:, 1])
    return steps


def lost(path: str | os.PathLike) -> str:
    """A line on samples whose relevance did not reach the input, or an empty text.

    Told are maps that are 0 everywhere, and samples of which less than a hundredth arrives.
    """
    with opened(path) as file:
        layers = sorted(file["layers"].values(), key=lambda data: data.attrs["order"])
        inputs = [data[:, 0] for data in layers if data.attrs["kind"] == "Input"]
        start, arrived = layers[-1][:, 0], np.sum(inputs, axis=0)
        maps, rows = file["attribution"], range(0, len(start), CHUNK)
        empty = sum(int((~maps[n : n + CHUNK].any(axis=tuple(range(1, maps.ndim)))).sum()) for n in rows)
    few = int((np.abs(arrived) < 0.01 * np.abs(start)).sum())
    said = []
    if empty:
        said.append(f"the heatmaps of {empty} of {len(start)} samples are 0 everywhere")
    if few > empty:
        said.append(f"of {few} of {len(start)} samples, less than 1 % of the relevance reaches the input")
    return "; ".join(said) + " (numpylrp audit says where it goes)" if said else ""
