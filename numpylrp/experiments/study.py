"""What all experiments share: trained networks, images, and measured pieces that are kept."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from ..convert import load
from ..errors import FileError, LRPError
from ..evaluate.baselines import Method
from ..files import opened, read_npz, whole
from ..network import Network

KINDS = ("mnist", "cifar")
"""The kinds of images, which the names of networks begin with and those of data files contain."""
QUICK = {"images": 12, "steps": 3}
"""What ``--quick`` makes of a run."""
FULL = {"images": 1000, "steps": 24}


@dataclass(frozen=True)
class Trained:
    """A trained network: its name, the seed of its training, and its file."""

    name: str
    seed: int
    path: Path
    network: Network

    @property
    def digest(self) -> str:
        """What tells this file from others."""
        return hashlib.sha256(self.path.read_bytes()).hexdigest()


@dataclass(frozen=True)
class Images:
    """Samples of one kind, with their classes."""

    x: np.ndarray
    labels: np.ndarray
    source: str


@dataclass
class Study:
    """A run of one experiment.

    Parameters
    ----------
    out : path
        Folder of the results; measured pieces lie in ``pieces``.
    weights : sequence of paths
        Folders with trained networks, ``NAME.h5`` (seed 0) and ``NAME-seed1.h5`` and so on.
    data : sequence of paths
        ``mnist.npz`` and ``cifar10.npz``, with x_test and y_test; without them the shipped digits.
    images, steps : int
        Images for each measurement (of CIFAR-10 half as many), and regions replaced in a perturbation.
    quick : bool
        Few images, one seed and fewer methods: to see that it runs.
    only : sequence of str
        Networks; by default all of an experiment.
    progress : function of a text
    """

    out: Path
    weights: Sequence[Path]
    data: Sequence[Path] = ()
    images: int = FULL["images"]
    steps: int = FULL["steps"]
    quick: bool = False
    only: Sequence[str] = ()
    progress: Callable[[str], None] = print
    _images: dict[str, Images] = field(default_factory=dict)
    _logits: dict[Path, np.ndarray] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.images < 4:
            raise LRPError(
                f"mosaics, and an interval over half the images, need four or more, not {self.images}"
            )
        for path in self.data:
            if not any(kind in Path(path).name for kind in KINDS):
                raise FileError(f"{path}: the name of a data file must have one of {', '.join(KINDS)} in it")

    def trained(self, *names: str) -> Iterator[Trained]:
        """All networks of these names that are there, and whose images are, seed by seed."""
        unknown = [name for name in self.only if name not in names]
        if unknown:
            raise LRPError(f"networks must be some of {', '.join(names)}, not {', '.join(unknown)}")
        names = tuple(name for name in names if not self.only or name in self.only)
        found = []
        for order, name in enumerate(names):
            for folder in self.weights:
                for path in Path(folder).glob(f"{name}*.h5"):
                    match = re.fullmatch(re.escape(name) + r"(?:-seed(\d+))?\.h5", path.name)
                    if match and (name.startswith("mnist") or self._has("cifar")):
                        found.append((int(match[1] or 0), order, name, path))
        if not found:
            folders = ", ".join(map(str, self.weights))
            without = "" if self._has("cifar") else " (those for CIFAR-10 need --data cifar10.npz)"
            raise FileError(f"none of the networks {', '.join(names)} is in {folders}{without}")
        for seed, _, name, path in sorted(found, key=lambda one: one[:2]):
            if not (self.quick and seed):
                yield Trained(name, seed, path, load(path, dtype=None).astype(np.float32))

    def _has(self, kind: str) -> bool:
        return any(kind in Path(path).name for path in self.data)

    def samples(self, name: str) -> Images:
        """The test images that a network of this name takes."""
        kind = name.split("_")[0]
        if kind not in self._images:
            self._images[kind] = self._read(kind)
        return self._images[kind]

    def logits(self, one: Trained) -> np.ndarray:
        """The logits of the test images, (N, classes)."""
        if one.path not in self._logits:
            found = one.network.forward(self.samples(one.name).x)
            assert isinstance(found, np.ndarray)  # the networks have one output
            self._logits[one.path] = found
        return self._logits[one.path]

    def _read(self, kind: str) -> Images:
        count = self.images if kind == "mnist" else self.images // 2
        path = next((Path(p) for p in self.data if kind in Path(p).name), None)
        if path is None:
            shipped = (Path(folder) / "digits.h5" for folder in self.weights)
            path = next((one for one in shipped if one.exists()), None)
            if path is None:
                raise FileError("digits.h5 is in none of the folders of weights: give --data mnist.npz")
            with opened(path) as file:
                x, labels = file["images"][:count], file["labels"][:count]
        else:
            file = read_npz(path)
            if not {"x_test", "y_test"} <= set(file):
                raise FileError(
                    f"{path} must be an .npz file with x_test and y_test; it has {', '.join(file)}"
                )
            x, labels = file["x_test"][:count], file["y_test"][:count].ravel()
            if kind == "cifar":
                x = x.transpose(0, 3, 1, 2) / np.float32(127.5) - np.float32(1)
            else:
                x = x[:, None] / np.float32(255)
        if len(x) < count:
            raise LRPError(f"{path} has {len(x)} images, but {count} are to be measured: give --images")
        return Images(np.asarray(x, np.float32), np.asarray(labels, int), path.name)

    def piece(
        self, one: Trained, method: str, settings: Mapping[str, Any], measure: Callable[[], dict]
    ) -> dict[str, np.ndarray]:
        """Measured values of each image by name: those of an earlier run, or measured now and kept.

        Parameters
        ----------
        one, method, settings
            What the values depend on, besides images and steps.
        measure : function
            Gives the values, (N,) each.
        """
        what = {
            "network": one.digest,
            "method": method,
            "images": len(self.samples(one.name).x),
            "steps": self.steps,
            "source": self.samples(one.name).source,
            **settings,
        }
        digest = hashlib.sha256(json.dumps(what, sort_keys=True, default=str).encode()).hexdigest()[:12]
        folder = self.out / "pieces"
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / f"{one.name}-{one.seed}-{re.sub('[^a-z0-9.]+', '-', method.lower())}-{digest}.npz"
        if path.exists():
            return read_npz(path)
        self.progress(f"{one.name}, seed {one.seed}: {method}")
        values = measure()
        with whole(path) as beside, open(beside, "wb") as file:
            np.savez(file, **values)
        return values


Methods = Mapping[str, Method]
