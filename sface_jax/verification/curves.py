"""Error rates at every operating point of two samples of scores, and their thinning for drawing."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from jaxtyping import Array, Float, Int, Num


class OperatingPoints(NamedTuple):
    """What is accepted at each threshold, a score being accepted when it is >= the threshold.

    Attributes:
        thresholds: every distinct score in rising order, then +infinity.
        false_accepts: non-mated scores accepted at each threshold, falling to 0.
        true_accepts: mated scores accepted at each threshold, falling to 0.
    """

    thresholds: Float[np.ndarray, " t"]
    false_accepts: Int[np.ndarray, " t"]
    true_accepts: Int[np.ndarray, " t"]

    @property
    def fmr(self) -> Float[np.ndarray, " t"]:
        """False match rate: accepted non-mated / non-mated, in [0, 1]."""
        return self.false_accepts / self.false_accepts[0]

    @property
    def fnmr(self) -> Float[np.ndarray, " t"]:
        """False non-match rate: rejected mated / mated, in [0, 1]."""
        return (self.true_accepts[0] - self.true_accepts) / self.true_accepts[0]


def operating_points(
    mated: Num[Array | np.ndarray, " g"],
    non_mated: Num[Array | np.ndarray, " i"],
    mated_counts: Int[np.ndarray, " g"] | None = None,
    non_mated_counts: Int[np.ndarray, " i"] | None = None,
) -> OperatingPoints:
    """Counts accepted scores at every threshold that changes anything.

    Args:
        mated: scores of mated comparisons, higher is more alike.
        non_mated: scores of non-mated comparisons.
        mated_counts: how often each mated score occurred; once each when absent. So a histogram is given
            by its bin centres and counts.
        non_mated_counts: the same for `non_mated`.

    Raises:
        ValueError: one of the two samples is empty.
    """
    mated, non_mated = np.asarray(mated, np.float64).ravel(), np.asarray(non_mated, np.float64).ravel()
    scores, place = np.unique(np.concatenate([mated, non_mated]), return_inverse=True)

    def accepted(places: np.ndarray, counts: np.ndarray | None) -> np.ndarray:
        counts = np.ones(len(places), np.int64) if counts is None else np.asarray(counts, np.int64)
        at = np.zeros(len(scores) + 1, np.int64)
        np.add.at(at, places, counts)
        return np.cumsum(at[::-1])[::-1]

    true_accepts = accepted(place[: len(mated)], mated_counts)
    false_accepts = accepted(place[len(mated) :], non_mated_counts)
    if not true_accepts[0] or not false_accepts[0]:
        raise ValueError("error rates need at least one mated and one non-mated score")
    return OperatingPoints(np.append(scores, np.inf), false_accepts, true_accepts)


def thin(fmr: Float[np.ndarray, " t"], fnmr: Float[np.ndarray, " t"], points: int = 200) -> Int[np.ndarray, " p"]:
    """Indices of at most `points` operating points which draw the same curve, on linear and on logarithmic axes.

    Args:
        fmr: false match rates in falling order.
        fnmr: false non-match rates in rising order.
        points: the most indices to return, at least 8.
    """
    if len(fmr) <= points:
        return np.arange(len(fmr))
    share = (points - 2) // 4
    smallest = np.log10(fmr[fmr > 0].min())
    wanted_fmr = np.concatenate([np.linspace(0, 1, share), np.logspace(smallest, 0, 2 * share)])
    by_fmr = len(fmr) - np.searchsorted(fmr[::-1], wanted_fmr, side="right")  # first point not above the wanted rate
    by_fnmr = np.searchsorted(fnmr, np.linspace(0, 1, share)).clip(max=len(fmr) - 1)
    return np.unique(np.concatenate([[0, len(fmr) - 1], by_fmr, by_fnmr]))
