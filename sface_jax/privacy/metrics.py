"""Error rates and linkability of two samples of comparison scores.

Words of ISO/IEC 19795-1: a mated comparison is between two pictures of one identity. Scores rise with likeness and are
accepted at or above the threshold. Every function takes scores one by one, or a histogram as bin centres with counts.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from jaxtyping import Array, Bool, Float, Int, Num

from sface_jax.verification import curves


def verification_metrics(
    mated: Num[Array | np.ndarray, " g"],
    non_mated: Num[Array | np.ndarray, " i"],
    *,
    mated_counts: Int[np.ndarray, " g"] | None = None,
    non_mated_counts: Int[np.ndarray, " i"] | None = None,
) -> dict[str, float]:
    """The error rates and separation measures of a comparison.

    - `eer`: where FMR and FNMR cross when consecutive operating points are joined by straight lines; `eer_nearest`
      (and `eer_nearest_threshold`): mean of the two at the operating point where they are closest.
    - `fmr100`, `fmr1000`, `fmr10000`: lowest FNMR where FMR <= 1/100, 1/1000, 1/10000, with `..._threshold` (+infinity
      where nothing may be accepted) and `..._false_accepts`.
    - `fdr` = (mu_m - mu_n)^2 / (var_m + var_n), Fisher's discriminant ratio; `auc`, ties counting one half;
      `d_sys`: see `d_sys`.
    - `mean_mated`, `std_mated`, `mean_non_mated`, `std_non_mated` (divided by n), `mated`, `non_mated` (counts).

    Args:
        mated: scores of mated comparisons.
        non_mated: scores of non-mated comparisons.
        mated_counts: how often each mated score occurred; once each when absent.
        non_mated_counts: the same for `non_mated`.

    Raises:
        ValueError: one of the samples is empty.
    """
    points = curves.operating_points(mated, non_mated, mated_counts, non_mated_counts)
    fmr, fnmr = points.fmr, points.fnmr
    nearest = int(np.argmin(np.abs(fmr - fnmr)))
    mean_m, std_m = _mean_and_std(mated, mated_counts)
    mean_n, std_n = _mean_and_std(non_mated, non_mated_counts)
    result = {
        "eer": curves.eer(points),
        "eer_nearest": float(fmr[nearest] + fnmr[nearest]) / 2,
        "eer_nearest_threshold": float(points.thresholds[nearest]),
    }
    for per in (100, 1000, 10000):
        at = _first_at_fmr(points, per)
        result[f"fmr{per}"] = float(fnmr[at])
        result[f"fmr{per}_threshold"] = float(points.thresholds[at])
        result[f"fmr{per}_false_accepts"] = int(points.false_accepts[at])
    spread = std_m**2 + std_n**2
    apart = (mean_m - mean_n) ** 2
    result |= {
        "fdr": apart / spread if spread else (np.inf if apart else 0.0),
        "auc": _area(points),
        "d_sys": d_sys(mated, non_mated, mated_counts=mated_counts, non_mated_counts=non_mated_counts),
        "mean_mated": mean_m,
        "std_mated": std_m,
        "mean_non_mated": mean_n,
        "std_non_mated": std_n,
        "mated": int(points.true_accepts[0]),
        "non_mated": int(points.false_accepts[0]),
    }
    return result


def d_sys(
    mated: Num[Array | np.ndarray, " g"],
    non_mated: Num[Array | np.ndarray, " i"],
    *,
    mated_counts: Int[np.ndarray, " g"] | None = None,
    non_mated_counts: Int[np.ndarray, " i"] | None = None,
) -> float:
    """Global unlinkability measure D_sys in [0, 1]; 0 is unlinkable, 1 fully linkable.

    D(s) = 2 LR / (1 + LR) - 1 where LR(s) = p(s|mated) / p(s|non-mated) > 1, else 0;
    D_sys = integral of D(s) p(s|mated) ds (Gomez-Barrero et al., IEEE TIFS 13(6), 2018, eq. 10 and 12, omega = 1).
    Densities are histograms with min(mated / 10, 100) bins over the range of both samples, the integral is the
    trapezoid rule over the bin centres, as in the published script.
    """
    mated, non_mated = np.asarray(mated, np.float64), np.asarray(non_mated, np.float64)
    count = len(mated) if mated_counts is None else int(np.sum(mated_counts))
    bins = max(min(count // 10, 100), 2)  # the script has no answer below 20 mated scores; two bins are the least
    low, high = min(mated.min(), non_mated.min()), max(mated.max(), non_mated.max())
    if low == high:
        return 0.0
    p_mated, edges = np.histogram(mated, bins, (low, high), weights=mated_counts, density=True)
    p_non, _ = np.histogram(non_mated, bins, (low, high), weights=non_mated_counts, density=True)
    # 2 LR / (1 + LR) - 1 = (p_m - p_n) / (p_m + p_n), which also is 1 where p_n = 0
    total = p_mated + p_non
    local = np.divide(p_mated - p_non, total, out=np.zeros(bins), where=total > 0).clip(0)
    return float(np.trapezoid(local * p_mated, (edges[1:] + edges[:-1]) / 2))


def d_sys_null(
    mated: Num[Array | np.ndarray, " g"],
    non_mated: Num[Array | np.ndarray, " i"],
    *,
    mated_counts: Int[np.ndarray, " g"] | None = None,
    non_mated_counts: Int[np.ndarray, " i"] | None = None,
    rounds: int = 20,
    seed: int = 0,
) -> dict[str, float]:
    """D_sys when labels mean nothing: which scores are mated is shuffled, sample sizes stay.

    D_sys is positive even then, because histograms of finite samples differ; a figure is evidence only above this.

    Returns:
        `mean` and `p95` (95th percentile) over `rounds` shuffles.
    """
    scores = np.concatenate([np.asarray(mated, np.float64), np.asarray(non_mated, np.float64)])
    counts = np.concatenate([_counts(mated, mated_counts), _counts(non_mated, non_mated_counts)])
    scores, counts = scores[counts > 0], counts[counts > 0]
    drawn = int(_counts(mated, mated_counts).sum())
    ends = np.cumsum(counts)
    rng = np.random.default_rng(seed)
    values = []
    for _ in range(rounds):
        # draws without replacement from the expanded sample; repeats are rare enough to draw again
        chosen = rng.choice(ends[-1], drawn, replace=False) if ends[-1] < 1 << 22 else _distinct(rng, ends[-1], drawn)
        taken = np.bincount(np.searchsorted(ends, chosen, side="right"), minlength=len(ends))
        rest = counts - taken
        kept, left = taken > 0, rest > 0
        values.append(d_sys(scores[kept], scores[left], mated_counts=taken[kept], non_mated_counts=rest[left]))
    return {"mean": float(np.mean(values)), "p95": float(np.percentile(values, 95))}


def det_curve(
    mated: Num[Array | np.ndarray, " g"],
    non_mated: Num[Array | np.ndarray, " i"],
    *,
    mated_counts: Int[np.ndarray, " g"] | None = None,
    non_mated_counts: Int[np.ndarray, " i"] | None = None,
    points: int = 200,
) -> tuple[Float[np.ndarray, " t"], Float[np.ndarray, " t"]]:
    """FMR (falling from 1 to 0) and FNMR (rising from 0 to 1) at no more than `points` thresholds."""
    every = curves.operating_points(mated, non_mated, mated_counts, non_mated_counts)
    fmr, fnmr = every.fmr, every.fnmr
    kept = curves.thin(fmr, fnmr, points)
    return fmr[kept], fnmr[kept]


def threshold_at_fmr(
    non_mated: Num[Array | np.ndarray, " i"], fmr: float, counts: Int[np.ndarray, " i"] | None = None
) -> tuple[float, float]:
    """The lowest threshold among the scores at which no more than a share `fmr` of them is accepted.

    Args:
        non_mated: scores of non-mated comparisons.
        fmr: wanted false match rate, in (0, 1).
        counts: how often each score occurred.

    Returns:
        The threshold, +infinity when even the highest score is too frequent, and the rate really reached there.
    """
    points = curves.operating_points(non_mated, non_mated, counts, counts)
    at = _first_at_fmr(points, 1 / fmr)
    return float(points.thresholds[at]), float(points.fmr[at])


def match_rate(
    scores: Num[Array | np.ndarray, " n"],
    identities: Int[np.ndarray, " n"],
    threshold: float,
    *,
    rounds: int = 1000,
    seed: int = 0,
) -> dict[str, Any]:
    """The share of scores at or above a threshold, with a 95 % interval from a bootstrap over identities.

    Comparisons of one identity are not independent, so identities are drawn, not comparisons. A bootstrap has nothing
    to say about an event that was never (always) seen: there the far end of the interval is 1 - 0.05^(1/identities)
    away, the exact form of the rule of three.

    Args:
        scores: comparison scores.
        identities: the identity each score belongs to.
        threshold: accept at or above it.
        rounds: bootstrap samples.
        seed: of the bootstrap.

    Returns:
        `rate`, its `interval` [low, high], and the counts `comparisons` and `identities`.
    """
    accepted = np.asarray(scores) >= threshold
    _, group = np.unique(identities, return_inverse=True)
    hits, totals = np.bincount(group, accepted), np.bincount(group)
    rate = float(accepted.mean())
    if rate in (0.0, 1.0):
        reach = 1 - 0.05 ** (1 / len(totals))
        low, high = (0.0, reach) if rate == 0 else (1 - reach, 1.0)
    else:
        samples = [(hits @ w) / (totals @ w) for w in resamples(len(totals), rounds, seed)]
        low, high = np.percentile(samples, [2.5, 97.5])
    return {
        "rate": rate,
        "interval": [float(low), float(high)],
        "comparisons": len(accepted),
        "identities": len(totals),
    }


def auc(
    mated: Num[Array | np.ndarray, " g"],
    non_mated: Num[Array | np.ndarray, " i"],
    *,
    mated_counts: Int[np.ndarray, " g"] | None = None,
    non_mated_counts: Int[np.ndarray, " i"] | None = None,
) -> float:
    """The share of (mated, non-mated) couples with the mated score above, ties counting one half."""
    return _area(curves.operating_points(mated, non_mated, mated_counts, non_mated_counts))


def tpr_at_fpr(mated: Num[Array | np.ndarray, " g"], non_mated: Num[Array | np.ndarray, " i"], fpr: float) -> float:
    """The largest share of mated scores accepted while at most a share `fpr` of the non-mated ones is."""
    points = curves.operating_points(mated, non_mated)
    return float(1 - points.fnmr[_first_at_fmr(points, 1 / fpr)])


def resamples(units: int, rounds: int, seed: int) -> list[Int[np.ndarray, " units"]]:
    """Bootstrap samples of `units` things: how often each is drawn in each of `rounds` samples."""
    rng = np.random.default_rng(seed)
    return [np.bincount(rng.integers(0, units, units), minlength=units) for _ in range(rounds)]


def _first_at_fmr(points: curves.OperatingPoints, per: int | float) -> int:
    """The lowest operating point with FMR <= 1 / per, decided by multiplying counts, not by dividing."""
    allowed: Bool[np.ndarray, " t"] = points.false_accepts * per <= points.false_accepts[0] * (1 + 1e-12)
    return int(np.argmax(allowed))


def _area(points: curves.OperatingPoints) -> float:
    """AUC: the ROC curve's area by trapezoids, which counts ties one half."""
    mated_here = -np.diff(points.true_accepts)
    non_here = -np.diff(points.false_accepts)
    below = points.false_accepts[0] - points.false_accepts[:-1]
    wins = (mated_here.astype(np.float64) * (below + 0.5 * non_here)).sum()
    return float(wins / points.true_accepts[0] / points.false_accepts[0])


def _counts(scores: Num[Array | np.ndarray, " n"], counts: Int[np.ndarray, " n"] | None) -> Int[np.ndarray, " n"]:
    return np.ones(len(scores), np.int64) if counts is None else np.asarray(counts, np.int64)


def _mean_and_std(scores: Num[Array | np.ndarray, " n"], counts: Int[np.ndarray, " n"] | None) -> tuple[float, float]:
    scores = np.asarray(scores, np.float64)
    mean = np.average(scores, weights=counts)
    return float(mean), float(np.sqrt(np.average(np.square(scores - mean), weights=counts)))


def _distinct(rng: np.random.Generator, below: int, count: int) -> Int[np.ndarray, " count"]:
    """`count` distinct whole numbers below `below`, for `below` too large to be permuted in memory."""
    chosen = np.unique(rng.integers(0, below, count))
    while len(chosen) < count:
        chosen = np.unique(np.concatenate([chosen, rng.integers(0, below, count - len(chosen))]))
    return chosen
