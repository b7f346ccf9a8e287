"""The relevance to start from: which part of the output is explained.

A seed turns the output (the logits) into relevance of the same shape. Classes lie along the first
axis of a sample.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from scipy import special  # type: ignore

from .errors import LRPError, ShapeError, lookup

Seed = Callable[[np.ndarray, np.ndarray], np.ndarray]


def targets(target: Any, output: np.ndarray, class_names: Sequence[str] | None = None) -> np.ndarray:
    """The class to explain of each sample, (N,) int.

    A network with a single output (a sigmoid before it was left out, a regression) has one thing to
    explain: its labels 0 and 1, and names for them, are targets too, and all mean that output, which
    speaks for 1 where it is above 0.

    Parameters
    ----------
    target : None, int, str, or a sequence of N of them
        None is the class with the largest output (of equals, the first; of a map, the largest sum).
    output : (N, K, ...) array
    class_names : sequence of str, optional
        The labels that may be used for the indices 0 .. K - 1.

    Raises
    ------
    LRPError
        A label that is not known, an index out of range, or not one target a sample.

    Examples
    --------
    >>> targets("cat", np.zeros((2, 2)), ["dog", "cat"])
    array([1, 1])
    """
    n, count = output.shape[:2] if output.ndim > 1 else (len(output), 1)
    if target is None:
        return output.reshape(n, count, -1).sum(-1).argmax(1)
    if not (isinstance(target, (list, tuple, np.ndarray)) and np.ndim(target)):
        return np.full(n, _index(target, count, class_names))
    if len(target) != n:
        raise LRPError(f"target must be one class, or one for each of the {n} samples, not {len(target)}")
    return np.array([_index(t, count, class_names) for t in target])


def _index(target: Any, count: int, names: Sequence[str] | None) -> int:
    single = count == 1
    if isinstance(target, str):
        if names is None or target not in list(names):
            known = "the network has no class_names" if names is None else f"there are {', '.join(names)}"
            raise LRPError(f"target {target!r} is no class of this network: {known}")
        return 0 if single else list(names).index(target)
    if isinstance(target, (bool, np.bool_)) or not isinstance(target, (int, np.integer)):
        raise LRPError(f"target must be an index or a label, not {target!r}")
    if single and target in (0, 1):
        return 0
    if not 0 <= target < count:
        raise LRPError(f"target {target} is out of range: the output has classes 0 .. {count - 1}")
    return int(target)


def predicted(output: np.ndarray) -> np.ndarray:
    """The class with the largest output, of each sample; of a single output, 1 where it is above 0.

    Examples
    --------
    >>> predicted(np.array([[1.0, 3.0]])), predicted(np.array([[-2.0], [0.5]]))
    (array([1]), array([0, 1]))
    """
    if output[0].size == 1:
        return (output.reshape(len(output)) > 0).astype(int)
    return targets(None, output)


def one_hot(output: np.ndarray, target: np.ndarray) -> np.ndarray:
    """1 for the target, 0 for all other classes.

    Examples
    --------
    >>> one_hot(np.array([[4.0, 5.0]]), np.array([1]))
    array([[0., 1.]])
    """
    R = np.zeros_like(output)
    R[np.arange(len(output)), target] = 1
    return R


def logit(output: np.ndarray, target: np.ndarray) -> np.ndarray:
    """The output of the target, 0 for all other classes (Bach et al. 2015).

    Examples
    --------
    >>> logit(np.array([[4.0, 5.0]]), np.array([1]))
    array([[0., 5.]])
    """
    return output * one_hot(output, target)


def everything(output: np.ndarray, target: np.ndarray) -> np.ndarray:
    """The whole output: all classes, or all values of a network that is no classifier."""
    return np.array(output)


def softmax_gradient(output: np.ndarray, target: np.ndarray) -> np.ndarray:
    """The gradient of the target's probability (SGLRP, Iwana et al. 2019).

    With p = softmax(output): ``p_t (1 - p_t)`` for the target t, ``-p_t p_k`` for another class k.

    Examples
    --------
    >>> softmax_gradient(np.zeros((1, 2)), np.array([0]))
    array([[ 0.25, -0.25]])
    """
    p = special.softmax(output, axis=1)
    hot = one_hot(output, target)
    p_target = (p * hot).sum(1, keepdims=True)
    # 1 - p_t as the sum of the others: no cancellation where the network is sure.
    rest = (p * (1 - hot)).sum(1, keepdims=True)
    return np.where(hot == 1, p_target * rest, -p_target * p)


def contrastive(output: np.ndarray, target: np.ndarray) -> np.ndarray:
    """The target against all other classes (CLRP1, Gu et al. 2018).

    ``z_t`` for the target t and ``-z_t / (K - 1)`` for each other class. Rules are linear in R, so one
    pass gives the difference of the two that the paper makes; `numpylrp.explain` keeps its
    positive part.

    Examples
    --------
    >>> contrastive(np.array([[6.0, 1.0, 0.0]]), np.array([0]))
    array([[ 6., -3., -3.]])
    """
    if output.shape[1] < 2:
        raise LRPError("a contrastive seed needs two classes or more")
    hot = one_hot(output, target)
    z = (output * hot).sum(1, keepdims=True)
    return np.where(hot == 1, z, -z / (output.shape[1] - 1))


@dataclass(frozen=True)
class margin:
    """The target's logit minus that of another class: ``z_t`` for t, ``-z_a`` for `against`.

    Parameters
    ----------
    against : int, str, or a sequence of them, one a sample
    class_names : sequence of str, optional
        The labels that may be used.

    Examples
    --------
    >>> margin(2)(np.array([[6.0, 1.0, 4.0]]), np.array([0]))
    array([[ 6.,  0., -4.]])
    """

    against: Any
    class_names: Sequence[str] | None = None

    def __call__(self, output: np.ndarray, target: np.ndarray) -> np.ndarray:
        other = targets(self.against, output, self.class_names)
        if (other == target).any():
            raise LRPError("a margin needs two different classes, but a target is compared with itself")
        return logit(output, target) - logit(output, other)


@dataclass(frozen=True, init=False)
class unit:
    """A single value of the output, 0 elsewhere, whatever the target: for units of hidden layers.

    Parameters
    ----------
    *index : int
        One for each axis of a sample.

    Examples
    --------
    >>> unit(1, 0)(np.array([[[4.0, 5.0], [6.0, 7.0]]]), np.array([0]))
    array([[[0., 0.],
            [6., 0.]]])
    """

    index: tuple[int, ...]

    def __init__(self, *index: int) -> None:
        object.__setattr__(self, "index", index)

    def __call__(self, output: np.ndarray, target: np.ndarray) -> np.ndarray:
        shape = output.shape[1:]
        whole = all(isinstance(n, (int, np.integer)) and not isinstance(n, bool) for n in self.index)
        if (
            len(self.index) != len(shape)
            or not whole
            or not all(0 <= n < m for n, m in zip(self.index, shape))
        ):
            raise LRPError(f"unit {self.index} is none of an output of shape {shape}")
        R = np.zeros_like(output)
        at: tuple[Any, ...] = (slice(None), *self.index)
        R[at] = output[at]
        return R


SEEDS: dict[str, Seed] = {
    "logit": logit,
    "one-hot": one_hot,
    "all": everything,
    "softmax-gradient": softmax_gradient,
    "clrp1": contrastive,
    "clrp2": logit,
}
"""The seeds by name."""


def seed_of(seed: Any, rows: slice, total: int, rank: int) -> Any:
    """The seed for these of `total` samples; an array with `rank` axes has a row for each sample.

    Raises
    ------
    LRPError
        An array, or the classes of a margin, with rows for another number of samples.
    """
    if isinstance(seed, margin):
        if not (isinstance(seed.against, (list, tuple, np.ndarray)) and np.ndim(seed.against)):
            return seed
        if len(seed.against) != total:
            raise LRPError(f"margin is against {len(seed.against)} classes, but there are {total} samples")
        return replace(seed, against=seed.against[rows])
    if isinstance(seed, str) or callable(seed) or np.ndim(seed) < rank or len(seed) == 1:
        return seed
    if len(seed) != total:
        raise ShapeError(f"the seed has {len(seed)} rows, but there are {total} samples")
    return np.asarray(seed)[rows]


def start(seed: Any, output: np.ndarray, target: np.ndarray) -> np.ndarray:
    """Relevance of the output: a seed by name, a function of output and targets, or an array."""
    if isinstance(seed, str):
        seed = lookup(SEEDS, seed, "seed")
    if callable(seed):  # a single number a sample is a single class
        R = seed(output, target) if output.ndim > 1 else seed(output[:, None], target)[:, 0]
    else:
        R = seed
    R = np.asarray(R)
    if R.dtype.kind not in "fiub":
        raise LRPError("a seed must be an array of numbers")
    if R.shape != output.shape:
        try:
            R = np.broadcast_to(R, output.shape)
        except ValueError:
            raise ShapeError(f"the seed has shape {R.shape}, but the output {output.shape}") from None
    return R.astype(output.dtype)
