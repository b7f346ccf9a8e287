"""Long runs: explain many samples, batch by batch, into one HDF5 file that can be resumed.

The file has the layout that ViRelAy opens (``attribution``, ``label``, ``prediction``, ``index``) and
beside it what a later question may need::

    attribution   (N, *input)   relevance of the input
    index         (N,)          position in the source
    prediction    (N,)          class with the largest output
    target        (N,)          class explained
    label         (N,)          true class, where known
    output        (N, *output)  logits
    layers/0000   (N, 2)        sums of the relevance that a layer received and sent on;
                                attributes order, name, kind, rule, shape (JSON)
    attributes    settings (JSON): model, composite, seed, target, numpylrp's version

While it is being made the file is called ``NAME.part``; it gets its name when it is whole.
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

from . import __version__
from .errors import FileError, LRPError
from .explanation import Explanation, Step, explain
from .inputs import Samples
from .network import Network
from .planning import prepared

CHUNK = 64
"""Samples between two savings of the file."""


def fingerprint(network: Network) -> str:
    """A hash of what the network computes: its layers, wiring and weights, and what is said of its inputs."""
    digest = hashlib.sha256(json.dumps(network.metadata, sort_keys=True, default=str).encode())
    for node in network.nodes:
        digest.update(repr((node, sorted(node.layer.arrays()))).encode())
        for _, array in sorted(node.layer.arrays().items()):
            digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()[:16]


def run(
    network: Network,
    samples: Samples,
    path: str | os.PathLike,
    *,
    target: Any = None,
    composite: Any = "epsilon-plus",
    normalization: str = "fused",
    seed: Any = "logit",
    batch_size: int | None = None,
    progress: Callable[[int, int], None] = lambda done, total: None,
    **options: Any,
) -> dict[str, Step]:
    """Explain all samples into an HDF5 file.

    A run that was stopped is taken up again where it was, if it is the same run: the same network,
    samples and settings.

    Parameters
    ----------
    network : Network
    samples : Samples
    path : path
        The file to write.
    target : None, int, str or "true"
        As in `numpylrp.explain`; "true" is each sample's label.
    composite, normalization, seed, batch_size, **options
        As in `numpylrp.explain`; the options are those of the composite's preset.
    progress : callable
        Called with the number of samples done and in all.

    Returns
    -------
    dict of Step
        What each layer received and sent, for all samples.
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
        "samples": len(samples),
        "source": hashlib.sha256(repr(samples.identity).encode()).hexdigest()[:16],
        "options": str(sorted(options.items())),
        "scale": samples.scale,
    }
    path = Path(path)
    part = path.with_name(path.name + ".part")
    steps: dict[str, Step] = {}
    try:
        with _resumed(part, settings) as file:
            done = int(file.attrs["done"])
            while done < len(samples):
                rows = slice(done, min(done + CHUNK, len(samples)))
                labels = None if samples.labels is None else samples.labels[rows]
                some = explain(
                    network,
                    samples[rows],
                    labels.tolist() if target == "true" else target,  # type: ignore[union-attr]
                    composite=rules,
                    normalization="linear",  # what there is to fuse is fused already
                    seed=seed,
                    batch_size=batch_size,
                )
                _write(file, some, rows, len(samples), labels)
                done = rows.stop
                file.attrs["done"] = done
                file.flush()
                progress(done, len(samples))
            for name in sorted(file["layers"], key=lambda n: file["layers"][n].attrs["order"]):
                data = file["layers"][name]
                shape = tuple(json.loads(data.attrs["shape"]))
                values = data[()]
                label = data.attrs["name"]
                steps[label] = Step(
                    label, data.attrs["kind"], data.attrs["rule"], shape, values[:, 0], values[:, 1]
                )
        os.replace(part, path)
    except OSError as error:
        raise FileError(f"{path} can't be written: {error}") from error
    return steps


def _resumed(part: Path, settings: dict[str, Any]) -> h5py.File:
    """The unfinished file of the same run, or a new one."""
    text = json.dumps(settings, sort_keys=True)
    if part.exists():
        try:
            file = h5py.File(part, "r+")
            if file.attrs.get("settings") == text:
                return file
            file.close()
        except OSError:
            pass  # the run was stopped while it wrote: begin anew
    file = h5py.File(part, "w")
    file.attrs.update(settings=text, done=0)
    return file


def _write(file: h5py.File, some: Explanation, rows: slice, total: int, labels: np.ndarray | None) -> None:
    def put(name: str, values: np.ndarray) -> h5py.Dataset:
        if name not in file:
            chunks = (min(total, CHUNK), *values.shape[1:])
            file.create_dataset(name, (total, *values.shape[1:]), values.dtype, chunks=chunks)
        file[name][rows] = values
        return file[name]

    put("attribution", some.relevance)
    put("index", np.arange(rows.start, rows.stop))
    put("prediction", some.prediction)
    put("target", some.target)
    put("output", some.output)
    if labels is not None:
        put("label", labels)
    for order, step in enumerate(some.steps.values()):
        data = put(f"layers/{order:04d}", np.stack([step.received, step.sent], axis=1))
        data.attrs.update(
            order=order, name=step.name, kind=step.kind, rule=step.rule, shape=json.dumps(step.shape)
        )
