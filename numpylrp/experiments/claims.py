"""Claims, the differences that they are judged by, and verdicts in words."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

HOLDS, NOT, OPEN = "holds", "does not hold", "can't tell"
RESAMPLES = 2000


@dataclass(frozen=True)
class Interval:
    """The mean of paired differences and its 95 % bootstrap interval over images."""

    mean: float
    low: float
    high: float
    count: int


def interval(difference: np.ndarray, seed: int = 0) -> Interval:
    """The percentile bootstrap of the mean over images; images without a value are left out.

    Examples
    --------
    >>> found = interval(np.array([1.0, 1.0, 1.0, float("nan")]))
    >>> (found.mean, found.low, found.high, found.count)
    (1.0, 1.0, 1.0, 3)
    """
    values = np.asarray(difference, float)
    values = values[np.isfinite(values)]
    n = len(values)
    if n < 2:
        return Interval(float("nan"), float("-inf"), float("inf"), n)
    rng = np.random.default_rng(seed)
    means = values[rng.integers(0, n, (RESAMPLES, n))].mean(1)
    low, high = np.percentile(means, [2.5, 97.5])
    return Interval(float(values.mean()), float(low), float(high), n)


@dataclass(frozen=True)
class Comparison:
    """What one network, of one training seed, says of a claim: positive differences speak for it.

    Attributes
    ----------
    claim : str
    network, setting, measure : str
    seed : int
    better, worse : float
        The means that are compared, "better" being the side that the claim says is better.
    found : Interval
    """

    claim: str
    network: str
    setting: str
    measure: str
    seed: int
    better: float
    worse: float
    found: Interval


def compared(
    claim: str,
    where: tuple[str, int],
    setting: str,
    measure: str,
    values: tuple[np.ndarray, np.ndarray],
    lower_is_better: bool = False,
) -> Comparison:
    """The comparison of paired values: the first should be better than the second."""
    better, worse = (np.asarray(v, float) for v in values)
    both = np.isfinite(better) & np.isfinite(worse)
    better, worse = better[both], worse[both]
    difference = worse - better if lower_is_better else better - worse
    first, second = (float(v.mean()) if len(v) else float("nan") for v in (better, worse))
    return Comparison(claim, where[0], setting, measure, where[1], first, second, interval(difference))


def verdict(group: Iterable[Comparison]) -> str:
    """Of comparisons that differ in the training seed alone.

    "holds" where each interval lies above 0; "does not hold" where one lies below 0; else "can't tell".

    Examples
    --------
    >>> def of(low, high):
    ...     return Comparison("", "", "", "", 0, 1.0, 0.0, Interval((low + high) / 2, low, high, 9))
    >>> verdict([of(0.1, 0.2), of(0.2, 0.4)]), verdict([of(0.1, 0.2), of(-0.2, 0.4)])
    ('holds', "can't tell")
    >>> verdict([of(0.1, 0.2), of(-0.4, -0.2)])
    'does not hold'
    """
    intervals = [one.found for one in group]
    if all(one.low > 0 for one in intervals):
        return HOLDS
    return NOT if any(one.high < 0 for one in intervals) else OPEN


def grouped(comparisons: Iterable[Comparison]) -> dict[tuple[str, str, str, str], list[Comparison]]:
    """Comparisons that differ in the seed alone, by claim, network, setting and measure."""
    groups: dict[tuple[str, str, str, str], list[Comparison]] = {}
    for one in comparisons:
        groups.setdefault((one.claim, one.network, one.setting, one.measure), []).append(one)
    return groups


def in_words(comparisons: list[Comparison]) -> list[str]:
    """A line for each claim: in how many comparisons it holds."""
    groups, texts = grouped(comparisons), []
    for claim in dict.fromkeys(one.claim for one in comparisons):
        verdicts = [verdict(group) for key, group in groups.items() if key[0] == claim]
        seeds = sorted({len(group) for key, group in groups.items() if key[0] == claim})
        count = {word: verdicts.count(word) for word in (HOLDS, NOT, OPEN)}
        whole = next((word for word, n in count.items() if n == len(verdicts)), None)
        mixed = "depends on the network, the method and the measure" if count[HOLDS] else "holds nowhere"
        summary = f"**{whole or mixed}**"
        texts.append(
            f"{claim}: {summary}. Of {len(verdicts)} comparisons ({' or '.join(map(str, seeds))} training "
            f"seed{'s' * (seeds != [1])} each) it holds in {count[HOLDS]}, does not hold in {count[NOT]}, "
            f"and {count[OPEN]} can't tell."
        )
    return texts
