"""Error rates of two samples of scores: at every operating point, at wanted false match rates, where the two are equal.

A score is accepted when it is >= the threshold. Conventions: the operating points are every distinct score of both
samples, and +infinity; a rate that is to be at most something is decided on whole numbers, never interpolated.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Num, UInt

RULE_OF_30 = 30
"""False matches behind a rate that is to be believed to 30 %, at 90 % confidence (Doddington; ISO/IEC 19795-1)."""


_EMPTY = "error rates need at least one mated and one non-mated score"


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


class RatesAt(NamedTuple):
    """The lowest operating points whose false match rates are not above the wanted ones.

    Attributes:
        wanted: false match rates.
        thresholds: of the operating points; +infinity where no score may be accepted.
        fmr: false match rates reached.
        tmr: true match rates: accepted mated / mated.
        false_matches: accepted non-mated scores.
    """

    wanted: Float[np.ndarray, " w"]
    thresholds: Float[np.ndarray, " w"]
    fmr: Float[np.ndarray, " w"]
    tmr: Float[np.ndarray, " w"]
    false_matches: Int[np.ndarray, " w"]


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
        ValueError: one of the two samples is empty, or holds NaN.
    """
    # Counted on the host: there are as many points as scores, and counts of histograms may exceed 32 bits.
    mated, non_mated = _checked(mated, non_mated)
    scores = np.sort(np.concatenate([mated, non_mated]))
    scores = scores[np.append(True, scores[1:] != scores[:-1])]
    true_accepts = _accepted(scores, mated, mated_counts)
    false_accepts = _accepted(scores, non_mated, non_mated_counts)
    if not true_accepts[0] or not false_accepts[0]:
        raise ValueError(_EMPTY)
    return OperatingPoints(np.append(scores, np.inf).astype(np.float64), false_accepts, true_accepts)


def at_fmr(
    mated: Num[Array | np.ndarray, " g"], non_mated: Num[Array | np.ndarray, " i"], wanted: Sequence[float]
) -> RatesAt:
    """True match rates at false match rates: the lowest operating points with FMR <= wanted.

    With k = floor(wanted * i), these are the points that accept what is above the (k + 1)-th highest non-mated score.
    That score is found on the device bit by bit from the highest, each bit by a count of the scores that are not below;
    nothing is sorted. Scores keep their precision.

    Args:
        mated: scores of mated comparisons, higher is more alike; fewer than 2^31.
        non_mated: scores of non-mated comparisons; fewer than 2^31.
        wanted: false match rates in [0, 1].

    Raises:
        ValueError: one of the two samples is empty, or holds NaN.
    """
    mated, non_mated = _checked(mated, non_mated)
    wanted = np.asarray(wanted, np.float64)
    most = np.array([allowed(rate, len(non_mated)) for rate in wanted], np.int32)
    with jax.enable_x64(mated.dtype.itemsize == 8):
        found = jax.device_get(_counts_at(_padded(_keys(mated)), _padded(_keys(non_mated)), most))
    keys, false_matches, true_matches = found
    thresholds = np.where(keys == ~keys.dtype.type(0), np.inf, _scores(keys)).astype(np.float64)
    return RatesAt(
        wanted, thresholds, false_matches / len(non_mated), true_matches / len(mated), false_matches.astype(np.int64)
    )


def eer(points: OperatingPoints) -> float:
    """The equal error rate: where FMR and FNMR cross when consecutive operating points are joined by straight lines."""
    fmr, fnmr = points.fmr, points.fnmr
    after = int(np.argmax(fnmr >= fmr))  # never 0: there FMR is 1 and FNMR 0
    gap_before, gap_after = fmr[after - 1] - fnmr[after - 1], fmr[after] - fnmr[after]
    share = gap_before / (gap_before - gap_after)
    return float(fmr[after - 1] + share * (fmr[after] - fmr[after - 1]))


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


def allowed(rate: float, count: int) -> int:
    """How many of `count` may be accepted at a rate; the product of 0.29 and 100 is below 29, but allows 29."""
    return int(rate * count * (1 + 1e-12))


def one_too_many(scores: Num[np.ndarray, " n"], rate: float) -> float | np.floating:
    """The score that a threshold must be above, if at most a share `rate` below 1 of all scores is to be accepted."""
    return np.sort(scores)[::-1][allowed(rate, len(scores))]


def rate_name(rate: float) -> str:
    """A rate as results are filed under: "1e-3", "2.5e-2"."""
    return np.format_float_scientific(rate, trim="-", exp_digits=1)


def _checked(
    mated: Num[Array | np.ndarray, " g"], non_mated: Num[Array | np.ndarray, " i"]
) -> tuple[Float[np.ndarray, " g"], Float[np.ndarray, " i"]]:
    """Both samples as floating-point numbers of one kind: single precision where it holds them."""
    mated, non_mated = np.asarray(mated), np.asarray(non_mated)
    precision = np.result_type(mated, non_mated, np.float32)
    mated, non_mated = mated.astype(precision, copy=False), non_mated.astype(precision, copy=False)
    if not len(mated) or not len(non_mated):
        raise ValueError(_EMPTY)
    missing = int(np.isnan(mated).sum() + np.isnan(non_mated).sum())
    if missing:
        raise ValueError(f"error rates need scores that are numbers: {missing} are NaN")
    return mated, non_mated


def _accepted(
    thresholds: Float[np.ndarray, " t"], sample: Float[np.ndarray, " n"], counts: Int[np.ndarray, " n"] | None
) -> Int[np.ndarray, " t+1"]:
    """How many scores are at or above each threshold and, at last, +infinity."""
    if counts is None:
        ordered, below = np.sort(sample), np.arange(len(sample) + 1)
    else:
        order = np.argsort(sample)
        ordered, below = sample[order], np.append(0, np.cumsum(np.asarray(counts, np.int64)[order]))
    return np.append(below[-1] - below[np.searchsorted(ordered, thresholds)], 0)


def _keys(scores: Float[np.ndarray, " n"]) -> UInt[np.ndarray, " n"]:
    """Whole numbers in the order of the scores: bits of a float are, but for the sign, in the order of its value."""
    bits = (scores + 0).view(f"u{scores.itemsize}")  # the sum makes a positive zero of a negative one
    sign = bits.dtype.type(1 << 8 * scores.itemsize - 1)
    return np.where(bits & sign, ~bits, bits | sign)


def _scores(keys: UInt[np.ndarray, " n"]) -> Float[np.ndarray, " n"]:
    """The inverse of `_keys`."""
    sign = keys.dtype.type(1 << 8 * keys.itemsize - 1)
    return np.where(keys & sign, keys ^ sign, ~keys).view(f"f{keys.itemsize}")


def _padded(keys: UInt[np.ndarray, " n"]) -> UInt[np.ndarray, " m"]:
    """As many as a power of two, so that samples of many sizes share a program; no score has the key 0."""
    return np.pad(keys, (0, max(1024, 1 << (len(keys) - 1).bit_length()) - len(keys)))


@jax.jit
def _counts_at(
    mated: UInt[Array, " g"], non_mated: UInt[Array, " i"], allowed: Int[Array, " w"]
) -> tuple[UInt[Array, " w"], Int[Array, " w"], Int[Array, " w"]]:
    """The lowest keys at which at most `allowed` non-mated ones are accepted, and accepted non-mated and mated ones."""
    kind, bits = non_mated.dtype, 8 * non_mated.dtype.itemsize
    nothing = ~jnp.zeros((), kind)

    def at(most: Int[Array, ""]) -> tuple[UInt[Array, ""], Int[Array, ""], Int[Array, ""]]:
        def set_bit(step: Int[Array, ""], level: UInt[Array, ""]) -> UInt[Array, ""]:
            higher = level | (jnp.ones((), kind) << (bits - 1 - step).astype(kind))
            return jnp.where(jnp.sum(non_mated >= higher, dtype=jnp.int32) > most, higher, level)

        # the highest number that more than `most` are not below: the key of rank `most` + 1
        level = jax.lax.fori_loop(0, bits, set_bit, jnp.zeros((), kind))
        lowest = [jnp.min(jnp.where(keys > level, keys, nothing)) for keys in (mated, non_mated)]
        counts = [jnp.sum(keys > level, dtype=jnp.int32) for keys in (non_mated, mated)]
        return jnp.minimum(*lowest), *counts

    return jax.lax.map(at, allowed)  # one after the other: in memory of one pass, and as fast
