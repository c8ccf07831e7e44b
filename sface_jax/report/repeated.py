"""What several runs of one pipeline say together: means with intervals over runs, and differences within them."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float
from scipy import optimize, stats

LEVEL = 0.95  # of the intervals
POWER = 0.8  # at which a difference would be found

Figure = Mapping[str, Any]
"""A run's `value`; `low` and `high`, the ends of its own interval over people, or None; maybe its folds, `per_fold`."""

Measured = Mapping[str, Mapping[str, Sequence[Figure | None]]]
"""Measure -> network or audit -> a figure a run; None where it was not measured."""


@dataclasses.dataclass(frozen=True)
class Estimate:
    """A mean over runs, its 95 % interval, None where that is unknown, and the runs' values."""

    mean: float
    low: float | None
    high: float | None
    values: tuple[float, ...]


@dataclasses.dataclass(frozen=True)
class Contrast:
    """An answer: how much more one group of networks or audits has of a measure than another, run by run.

    Attributes:
        question: in words.
        measure: what is measured.
        ratio: whether groups are compared by their ratio, as rates are that may be small; else by their difference.
        difference: mean over the runs of the difference of the groups' means, or geometric mean of their ratio, with
            its interval.
        detectable: the true difference, or ratio above 1, that so many runs, spread as these are, would tell from none
            four times in five; None with fewer than two runs.
        answer: "more", "less" or "not told apart"; of a single run the former hold "for these networks", and not for
            others trained alike; "one run" where that has no folds.
    """

    question: str
    measure: str
    ratio: bool
    difference: Estimate
    detectable: float | None
    answer: str


def estimate(figures: Sequence[Figure | None], ratio: bool = False) -> Estimate | None:
    """The mean over runs with its 95 % interval.

    Of two runs and more the interval is Student's, over runs, as far as it lies between 0 and 1: it holds what another
    seed changes, people, generator and training alike. Of one, or where all are equal, as rates of 0 are, it is the
    runs' own, over people.

    Args:
        figures: shares, one a run; None where it did not measure this.
        ratio: take the geometric mean of positive values, and the interval of the logarithms.

    Returns:
        None where no run has measured it.
    """
    known = [figure for figure in figures if figure]
    if not known:
        return None
    values = [figure["value"] for figure in known]
    if len(set(values)) == 1:
        lows, highs = ([figure[end] for figure in known if figure[end] is not None] for end in ("low", "high"))
        return Estimate(values[0], min(lows, default=None), max(highs, default=None), tuple(values))
    made = _student(values, ratio and min(values) > 0)
    return dataclasses.replace(made, low=max(made.low, 0.0), high=min(made.high, 1.0))


def _student(values: Sequence[float], ratio: bool) -> Estimate:
    scaled = np.log(values) if ratio else np.array(values)
    half = float(stats.t.ppf((1 + LEVEL) / 2, len(values) - 1) * stats.sem(scaled))
    ends = np.mean(scaled) + np.array([0.0, -half, half])
    mean, low, high = map(float, np.exp(ends) if ratio else ends)
    return Estimate(mean, low, high, tuple(values))


def contrast(
    question: str, more: Sequence[str], less: Sequence[str], measure: str, measured: Measured, ratio: bool = False
) -> Contrast | None:
    """Answers whether one group has more of a measure than another, by their difference within each run.

    What differs between runs and not between groups, such as the people of the benchmark, drops out of it. Of a single
    run it is the difference within each fold of the benchmark: what another training would change is not in that.

    Args:
        question: in words.
        more, less: the networks or audits of either group.
        measure: a key of `measured`.
        measured: see `Measured`.
        ratio: compare by ratio, where no value is 0.

    Returns:
        None where no run has measured both groups in full.
    """
    by_name = measured.get(measure, {})
    if not all(name in by_name for name in (*more, *less)):
        return None
    whole = [i for i in range(len(by_name[more[0]])) if all(by_name[name][i] for name in (*more, *less))]
    if not whole:
        return None
    high, low = (_values([[by_name[name][i] for name in names] for i in whole]) for names in (more, less))
    ratio = ratio and bool(min(*high, *low) > 0)
    values = (high / low if ratio else high - low).tolist()
    if len(values) == 1:
        return Contrast(question, measure, ratio, Estimate(values[0], None, None, tuple(values)), None, "one run")
    none, freedom = float(ratio), len(values) - 1
    difference = _student(values, ratio)
    detectable = _noncentral(freedom) * float(stats.sem(np.log(values) if ratio else values))
    answer = "more" if difference.low > none else "less" if difference.high < none else "not told apart"
    if len(whole) == 1 and answer != "not told apart":
        answer += " for these networks"
    return Contrast(question, measure, ratio, difference, float(np.exp(detectable)) if ratio else detectable, answer)


@functools.cache
def _noncentral(freedom: int) -> float:
    """The true difference, in standard errors, that Student's test finds with `POWER`."""
    threshold = stats.t.ppf((1 + LEVEL) / 2, freedom)
    return float(optimize.brentq(lambda far: stats.nct.sf(threshold, freedom, far) - POWER, 0, 100))


def _values(runs: Sequence[Sequence[Figure]]) -> Float[np.ndarray, " n"]:
    """A group's mean in each run; of a single run, in each fold where it has folds."""
    if len(runs) == 1 and all(figure.get("per_fold") for figure in runs[0]):
        return np.mean([figure["per_fold"] for figure in runs[0]], axis=0)
    return np.array([np.mean([figure["value"] for figure in figures]) for figures in runs])
