"""The score that a measure watches: a network's output for one class, sample by sample, in batches."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from scipy import special  # type: ignore

from .. import seed as seeds
from ..batches import MEMORY
from ..errors import LRPError
from ..explanation import Explanation
from ..layers import Sigmoid
from ..network import Network
from ..planning import start_of
from ..wiring import leading_to, sample_shapes
from .maps import bytes_of, checked_axis, chosen, finite, one_input, same_samples, whole_number

Progress = Callable[[int, int], None]
"""Called with the evaluations of the network that are done, and how many there will be."""

SCORES = ("logit", "probability")


def logits_of(network: Network, output: str | None = None) -> str:
    """The layer whose output `explain` starts from: before a softmax or sigmoid at the end."""
    return start_of(network, output, "logit")


def up_to(network: Network, top: str) -> Network:
    """The network with this layer as its output, and no layer that it does not depend on."""
    layers = [(n.name, n.layer, n.inputs) for n in leading_to(network.nodes, [top])]
    return Network(layers, network.inputs, top, network.metadata).astype(network.dtype)


def batches(total: int, size: int) -> list[slice]:
    """The rows of each batch."""
    return [slice(first, min(first + size, total)) for first in range(0, total, size)]


class Scores:
    """A network's score of one class of each sample.

    Parameters
    ----------
    network : Network
    x : (N, *input) array, or mapping of input name to array
    target : None, int, str, or a sequence of N of them
        The class of each sample, as in `numpylrp.explain`.
    score : str
        "logit", or "probability": the softmax over the classes, or the sigmoid that the network ends with.
    output, input : str, optional
        Which output is scored and which input is changed, of a network with several.
    channels : int, None or "auto"
        The axis of a sample that holds channels; by default `channels_axis` says it.
    batch_size : int, optional
        Samples at a time; by default as many as fit into a quarter of what `explain` takes.
    """

    def __init__(
        self,
        network: Network,
        x: Any,
        target: Any = None,
        score: str = "logit",
        output: str | None = None,
        input: str | None = None,
        channels: Any = "auto",
        batch_size: int | None = None,
    ) -> None:
        chosen(score, SCORES, "score")
        top = logits_of(network, output)
        end = network.outputs[0] if output is None else output
        self.sigmoid = any(isinstance(network[name], Sigmoid) for name in _between(network, top, end))
        self.network, self.score = up_to(network, top), score
        self.batch: dict[str, np.ndarray] = network.batch(x)
        self.input = one_input(self.batch, input)
        self.x = self.batch[self.input]
        self.channels = checked_axis(channels, network, self.input)
        shapes = sample_shapes(
            self.network.nodes, {name: value.shape[1:] for name, value in self.batch.items()}
        )
        room = max(1, MEMORY // 4 // bytes_of(shapes, network.dtype))
        self.batch_size = room if batch_size is None else whole_number(batch_size, "batch_size")
        logits = np.concatenate(
            [self._logits(self.x[rows], rows) for rows in batches(len(self), self.batch_size)]
        )
        self.target = seeds.targets(target, logits, network.metadata.get("class_names"))
        if score == "probability" and (logits.ndim > 2 or (logits[0].size < 2 and not self.sigmoid)):
            raise LRPError(
                f"a probability needs one logit for each of two classes or more, or a sigmoid at the end; "
                f"the output has shape {logits.shape}"
            )
        self.logits = logits
        self.start: np.ndarray = self._of(logits, self.target)

    def __len__(self) -> int:
        return len(self.x)

    def inputs(self, x: np.ndarray | None = None) -> Any:
        """All samples as the network takes them, with `x` in place of the input that is changed."""
        x = self.x if x is None else x
        return x if len(self.batch) == 1 else self.batch | {self.input: x}

    def _logits(self, x: np.ndarray, rows: Any) -> np.ndarray:
        batch = {name: value[rows] for name, value in self.batch.items()} | {self.input: x}
        return np.asarray(self.network.forward(batch))

    def _of(self, logits: np.ndarray, target: np.ndarray) -> np.ndarray:
        logits = logits.reshape(len(logits), *(logits.shape[1:2] or (1,)), -1).sum(-1)
        if self.score == "probability":
            logits = special.expit(logits) if self.sigmoid else special.softmax(logits, axis=1)
        return logits[np.arange(len(logits)), target]

    def __call__(self, x: np.ndarray, rows: np.ndarray) -> np.ndarray:
        """The score of the samples `x`, which stand in for the samples `rows`."""
        return self._of(self._logits(x, rows), self.target[rows])

    def variants(
        self,
        replacement: np.ndarray,
        replaced: Callable[[np.ndarray, np.ndarray], np.ndarray],
        count: int,
        progress: Progress | None = None,
        done: int = 0,
        total: int | None = None,
    ) -> np.ndarray:
        """The scores (N, count) of each sample with some of its positions replaced, `count` times.

        Parameters
        ----------
        replacement : (N, *sample) array
            What comes in their place.
        replaced : function of (rows, k)
            For integer arrays of equal length, the positions (bool) of sample ``rows[i]`` that are
            replaced the ``k[i]``-th time.
        progress, done, total
            `progress` is told what is done here on top of `done`, of `total`.
        """
        found = np.empty(len(self) * count, self.network.dtype)
        for part in batches(len(found), self.batch_size):
            rows, k = np.divmod(np.arange(part.start, part.stop), count)
            where = replaced(rows, k)
            if self.channels is not None:
                where = np.expand_dims(where, self.channels + 1)
            found[part] = self(np.where(where, replacement[rows], self.x[rows]), rows)
            if progress is not None:
                progress(done + part.stop, len(found) if total is None else total)
        return found.reshape(len(self), count)


def relevance_and_target(
    network: Network, x: Any, R: Any, target: Any, **options: Any
) -> tuple[Scores, np.ndarray]:
    """`Scores`, and the relevance of the input that it changes, checked.

    R is an array, a mapping of input name to array, or an `Explanation`; that of other samples is found
    out by the logits in it, and the classes that it explains are the target where none is given.
    """
    explained = R if isinstance(R, Explanation) else None
    if explained is not None:
        if explained.target.ndim > 1:
            raise LRPError("an explanation of several classes: give one of its maps and the target")
        target = explained.target if target is None else target
        R = explained.relevance
    batch = network.batch(x)
    R = R[one_input(R, options.get("input"))] if isinstance(R, Mapping) else R
    R = same_samples(finite(R, "relevance"), batch[one_input(batch, options.get("input"))])
    scores = Scores(network, batch, target, **options)
    if explained is not None:
        same_output(explained.output, scores.logits)
        if (explained.target != scores.target).any():
            first = int(np.flatnonzero(explained.target != scores.target)[0])
            raise LRPError(
                f"relevance explains class {explained.target[first]} of sample {first}, "
                f"but the target is {scores.target[first]}"
            )
    return scores, R


def same_output(stored: np.ndarray, found: np.ndarray, rtol: float = 1e-2) -> None:
    """Refuse relevance whose logits are not those of the samples: it belongs to others."""
    if stored.shape != found.shape:
        raise LRPError(
            f"relevance comes with outputs of shape {stored.shape}, but the network gives {found.shape}"
        )
    error = np.abs(stored - found).reshape(len(found), -1).max(1)
    apart = np.flatnonzero(error > rtol * np.abs(found).max())
    if len(apart):
        raise LRPError(
            f"relevance is not of these samples and this network: the logits stored with it differ in "
            f"{len(apart)} of {len(found)} samples, first in sample {apart[0]}"
        )


def _between(network: Network, top: str, end: str) -> list[str]:
    """The layers from the one after `top` to `end`, which has one input after another."""
    names = []
    while end != top:
        names.append(end)
        end = network.node(end).inputs[0]
    return names
