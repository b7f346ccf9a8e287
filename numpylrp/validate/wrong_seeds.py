"""Hypotheses on the relevance to start from."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
from scipy import special  # type: ignore

from .. import seed as seeds
from .hypotheses import Case, Hypothesis, on_seed

MOST = 6
"""So many other classes are tried."""


def _logits(case: Case) -> np.ndarray:
    return case.world.values[case.world.top]


def _hot(case: Case) -> np.ndarray | None:
    """1 for what is explained."""
    return None if _single(case) is None else (case.world.seed != 0) * 1.0


def _single(case: Case) -> np.ndarray | None:
    """The seed, where it is one class of each sample."""
    R = case.world.seed
    flat = (R != 0).reshape(len(R), -1)
    return R if (flat.sum(1) == 1).all() else None


def _softmax(case: Case) -> np.ndarray:
    y = _logits(case)
    return special.softmax(y, axis=1) if y.ndim > 1 else special.expit(y)


def _of_hot(function: Callable[[Case], np.ndarray]) -> Callable[[Case], np.ndarray | None]:
    """A function of the output, for the class explained alone."""

    def start(case: Case) -> np.ndarray | None:
        hot = _hot(case)
        return None if hot is None else function(case) * hot

    return start


def _named(name: str) -> Callable[[Case], np.ndarray | None]:
    def start(case: Case) -> np.ndarray | None:
        y = _logits(case)
        if y.ndim < 2 or y.shape[1] < 2:
            return None
        return seeds.SEEDS[name](y, case.world.target)

    return start


def _without_bias(case: Case) -> np.ndarray | None:
    bias = getattr(case.world.network[case.world.top], "bias", None)
    y = _logits(case)
    if bias is None or bias.shape != y.shape[1:]:
        return None
    return (y - bias) * (case.world.seed != 0)


def _predicted(case: Case) -> np.ndarray | None:
    y = _logits(case)
    return seeds.logit(y, seeds.targets(None, y)) if y.ndim > 1 else None


def _of_first(case: Case) -> np.ndarray | None:
    y = _logits(case)
    return None if y.ndim < 2 else seeds.logit(y, np.full(len(y), case.world.target[0]))


def _others(case: Case) -> np.ndarray:
    """The logits of the other classes; -infinity for the target."""
    return np.where(seeds.one_hot(_logits(case), case.world.target) > 0, -np.inf, _logits(case))


def _margin(case: Case) -> np.ndarray | None:
    y = _logits(case)
    if y.ndim != 2 or y.shape[1] < 2 or _single(case) is None:
        return None
    return case.world.seed - seeds.logit(y, _others(case).argmax(1))


def _centred(case: Case) -> np.ndarray:
    return _logits(case) - _logits(case).mean(1, keepdims=True) if _logits(case).ndim > 1 else _logits(case)


def _over_the_next(case: Case) -> np.ndarray:
    y = _logits(case)
    return y - _others(case).max(1, keepdims=True) if y.ndim == 2 and y.shape[1] > 1 else y


def _against(case: Case, shared: bool) -> np.ndarray | None:
    hot, y = _hot(case), _logits(case)
    if hot is None or y.ndim < 2 or y.shape[1] < 2:
        return None
    return hot - (1 - hot) / (y.shape[1] - 1 if shared else 1)


SEEDS: tuple[Hypothesis, ...] = (
    on_seed("a seed of 1 instead of the logit", _hot),
    on_seed("the probability as the seed", _of_hot(_softmax)),
    on_seed("all logits as the seed", lambda case: np.array(_logits(case))),
    on_seed("all probabilities as the seed", _softmax),
    on_seed("a seed of 1 for every class", lambda case: np.ones_like(_logits(case))),
    on_seed("the predicted class explained instead of the target", _predicted),
    on_seed("the class of the first sample explained in all", _of_first),
    on_seed("the gradient of the softmax as the seed", _named("softmax-gradient")),
    on_seed("the contrastive seed, z_t and -z_t / (K - 1)", _named("clrp1")),
    on_seed("the log-probability as the seed", _of_hot(lambda case: np.log(_softmax(case)))),
    on_seed(
        "the gradient of the loss as the seed, p - one-hot",
        lambda case: None if _hot(case) is None else _softmax(case) - _hot(case),
    ),
    on_seed(
        "the logit times the gradient of the softmax as the seed",
        lambda case: None if (R := _named("softmax-gradient")(case)) is None else _logits(case) * R,
    ),
    on_seed("the logit without its bias as the seed", _without_bias),
    on_seed("the logit minus the largest other, each explained", _margin),
    on_seed(
        "the logit times the probability as the seed", _of_hot(lambda case: _logits(case) * _softmax(case))
    ),
    on_seed("p (1 - p) as the seed", _of_hot(lambda case: _softmax(case) * (1 - _softmax(case)))),
    on_seed("the logit minus the mean of all logits as the seed", _of_hot(_centred)),
    on_seed("the logit minus the largest other logit as the seed", _of_hot(_over_the_next)),
    on_seed("1 for the target, -1 / (K - 1) for others", lambda case: _against(case, True)),
    on_seed("1 for the target, -1 for others", lambda case: _against(case, False)),
    on_seed("the absolute value of the logit as the seed", lambda case: np.abs(case.world.seed)),
    on_seed("the square of the logit as the seed", lambda case: np.square(case.world.seed)),
    on_seed("the logits above 0 as the seed", lambda case: np.maximum(_logits(case), 0)),
    on_seed("the sigmoid of the logit as the seed", _of_hot(lambda case: special.expit(_logits(case)))),
)
"""Other seeds."""


def other_classes(case: Case) -> Iterator[Hypothesis]:
    """The logit, or 1, for another class than the target: for one class, and the next best of each sample."""
    y, target = _logits(case), case.world.target
    if y.ndim < 2 or y.shape[1] < 2 or _single(case) is None:
        return
    total = y.reshape(*y.shape[:2], -1).sum(-1)
    others = [
        k for k in np.argsort(-total.mean(0), kind="stable")[: MOST + 1].tolist() if (target != k).any()
    ]
    choices = {f"class {k}": np.full(len(y), k) for k in others}
    rest = np.where(seeds.one_hot(total, target) > 0, -np.inf, total)
    choices["the class with the largest other logit"] = rest.argmax(1)
    choices["the class with the smallest logit"] = total.argmin(1)
    choices["the class beside the target, one higher,"] = (target + 1) % y.shape[1]
    choices["the class beside the target, one lower,"] = (target - 1) % y.shape[1]
    tried = {tuple(target.tolist())}
    for what, chosen in choices.items():
        if tuple(chosen.tolist()) in tried:
            continue
        tried.add(tuple(chosen.tolist()))
        text = f"another class: {what} explained instead of {_class(target)}"
        yield on_seed(text, lambda case, c=chosen: seeds.logit(_logits(case), c))  # type: ignore[misc]
        yield on_seed(f"{text}, with a seed of 1", lambda case, c=chosen: seeds.one_hot(_logits(case), c))  # type: ignore[misc]


def _class(target: np.ndarray) -> str:
    return f"class {target[0]}" if len(set(target.tolist())) == 1 else "the target"


def probabilities(case: Case) -> np.ndarray:
    """The probability of what is explained, of each sample."""
    return (_softmax(case) * (case.world.seed != 0)).reshape(len(case.world.seed), -1).sum(1)
