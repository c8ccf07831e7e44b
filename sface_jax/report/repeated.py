"""What several runs of one pipeline say together: means with intervals over runs, and differences within them."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float
from scipy import optimize, stats

from sface_jax.core import significance

LEVEL = 0.95  # of the intervals
POWER = 0.8  # at which a difference would be found
HITS = 30  # of a group, from which on its rate is compared by ratio: the rule of 30 of ISO/IEC 19795-1

Figure = Mapping[str, Any]
"""A run's `value`; `low` and `high`, the ends of its own interval over people, or None; maybe its folds, `per_fold`,
what a rate counts, `hits`, and its values on people drawn anew, `replicates`."""

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
        p_value: of no difference; None with one run that has no folds.
        answer: "more", "less" or "not told apart"; "perhaps more" where that would not stand among all questions that
            are asked together, see `answered`. Of a single run it holds "for these networks", and not for others
            trained alike; "one run" where that has no folds.
    """

    question: str
    measure: str
    ratio: bool
    difference: Estimate
    detectable: float | None
    p_value: float | None
    answer: str


def estimate(figures: Sequence[Figure | None], ratio: bool = False) -> Estimate | None:
    """The mean over runs with its 95 % interval.

    Of two runs and more the interval is Student's, over runs, as far as it lies between 0 and 1: it holds what another
    seed changes, people, generator and training alike. Few runs may be alike by luck: it is never narrower than what
    the runs' own intervals, over people, make of their mean. Of one run it is that run's own.

    Args:
        figures: shares, one a run; None where it did not measure this.
        ratio: take the geometric mean of positive values, and the interval of the logarithms.

    Returns:
        None where no run has measured it.
    """
    known = [figure for figure in figures if figure]
    if not known:
        return None
    values = np.array([figure["value"] for figure in known])
    told = tuple(values.tolist())
    if len(known) == 1:
        return Estimate(told[0], known[0]["low"], known[0]["high"], told)
    ratio = ratio and values.min() > 0
    scaled = np.log(values) if ratio else values
    half = float(stats.t.ppf((1 + LEVEL) / 2, len(values) - 1) * stats.sem(scaled))
    mean = float(scaled.mean())
    low, high = mean - half, mean + half
    if all(figure["low"] is not None for figure in known):
        lows, highs = (np.array([figure[end] for figure in known]) for end in ("low", "high"))
        if ratio:  # an end at 0 is as far as can be
            lows, highs = np.log(np.maximum(lows, 1e-300)), np.log(highs)
        low = min(low, mean - float(np.linalg.norm(scaled - lows)) / len(values))
        high = max(high, mean + float(np.linalg.norm(highs - scaled)) / len(values))
    if ratio:
        mean, low, high = map(float, np.exp([mean, low, high]))
    return Estimate(mean, max(low, 0.0), min(high, 1.0), told)


def contrast(
    question: str, more: Sequence[str], less: Sequence[str], measure: str, measured: Measured, ratio: bool = False
) -> Contrast | None:
    """Answers whether one group has more of a measure than another, by their difference within each run.

    What differs between runs and not between groups, such as the people of the benchmark, drops out of it. Where
    figures have folds, the difference is never held for more certain than the folds of the runs allow. Of a single run
    it is the difference on people drawn anew, or else within each fold: what another training would change is not in
    that.

    Args:
        question: in words.
        more, less: the networks or audits of either group.
        measure: a key of `measured`.
        measured: see `Measured`.
        ratio: compare by ratio, where both groups have hits enough.

    Returns:
        None where no run has measured both groups in full.
    """
    by_name = measured.get(measure, {})
    if not all(name in by_name for name in (*more, *less)):
        return None
    whole = [i for i in range(len(by_name[more[0]])) if all(by_name[name][i] for name in (*more, *less))]
    if not whole:
        return None
    groups = [[[by_name[name][i] for name in names] for i in whole] for names in (more, less)]
    ratio = ratio and all(_hits(runs) >= HITS and min(map(_value, runs)) > 0 for runs in groups)
    high, low = (np.array([_value(figures) for figures in runs]) for runs in groups)
    differences = np.log(high / low) if ratio else high - low
    folds = [_each("per_fold", *both) for both in zip(*groups, strict=True)]
    mean, errors = float(differences.mean()), []  # standard errors, with their degrees of freedom
    if len(differences) > 1:
        errors.append((float(stats.sem(differences)), len(differences) - 1))
    again = _each("replicates", groups[0][0], groups[1][0]) if len(whole) == 1 else None
    if again is not None and not ratio:
        errors.append((float(again.std(ddof=1)), len(again) - 1))
    elif not ratio and all(within is not None for within in folds):
        of_folds = float(np.linalg.norm([stats.sem(within) for within in folds])) / len(folds)
        errors.append((of_folds, sum(len(within) - 1 for within in folds)))

    def estimated(low: float | None, high: float | None) -> Estimate:
        shown = [None if end is None else float(np.exp(end)) if ratio else end for end in (mean, low, high)]
        return Estimate(*shown, tuple((np.exp(differences) if ratio else differences).tolist()))

    if not errors:
        return Contrast(question, measure, ratio, estimated(None, None), None, None, "one run")
    half = max(_half(*error) for error in errors)
    p_value = max(float(2 * stats.t.sf(abs(mean) / error, of)) if error else float(mean == 0) for error, of in errors)
    answer = "not told apart" if abs(mean) <= half else "more" if mean > 0 else "less"
    if len(whole) == 1 and answer != "not told apart":
        answer += " for these networks"
    detectable = max(_noncentral(of) * error for error, of in errors)
    found = float(np.exp(detectable)) if ratio else detectable
    return Contrast(question, measure, ratio, estimated(mean - half, mean + half), found, p_value, answer)


def answered(contrasts: Sequence[Contrast]) -> list[Contrast]:
    """The same answers, "perhaps" where one would not stand among all of them (`significance.holm`)."""
    tested = [found for found in contrasts if found.p_value is not None]
    adjusted = significance.holm(np.array([found.p_value for found in tested])) if tested else ()
    weak = {id(found) for found, p in zip(tested, adjusted, strict=True) if p > 1 - LEVEL}
    return [
        dataclasses.replace(found, answer=f"perhaps {found.answer}")
        if id(found) in weak and found.answer != "not told apart"
        else found
        for found in contrasts
    ]


def _half(error: float, freedom: int) -> float:
    """Half an interval's width."""
    return float(stats.t.ppf((1 + LEVEL) / 2, freedom)) * error


@functools.cache
def _noncentral(freedom: int) -> float:
    """The true difference, in standard errors, that Student's test finds with `POWER`."""
    threshold = stats.t.ppf((1 + LEVEL) / 2, freedom)
    return float(optimize.brentq(lambda far: stats.nct.sf(threshold, freedom, far) - POWER, 0, 100))


def _value(figures: Sequence[Figure]) -> float:
    """A group's mean in a run."""
    return float(np.mean([figure["value"] for figure in figures]))


def _hits(runs: Sequence[Sequence[Figure]]) -> float:
    """What a group's rates count in all runs; without end where that is not known."""
    return float(sum(figure.get("hits", np.inf) for figures in runs for figure in figures))


def _each(part: str, more: Sequence[Figure], less: Sequence[Figure]) -> Float[np.ndarray, " parts"] | None:
    """The groups' difference in each fold or replicate of a run, where all have such."""
    if not all(figure.get(part) for figure in (*more, *less)):
        return None
    high, low = (np.mean([figure[part] for figure in figures], axis=0) for figures in (more, less))
    return high - low
