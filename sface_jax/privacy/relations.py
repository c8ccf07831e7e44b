"""The relation of two sets of pictures: mated scores one by one, non-mated ones as a histogram, and its figures."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
from jaxtyping import Float, Float32, Int, Int64

from sface_jax.privacy import matching, metrics

RATES = {"1e-2": 1e-2, "1e-3": 1e-3, "1e-4": 1e-4}
WITH_INTERVAL = ("eer", "fmr100", "fmr1000", "fdr", "auc", "d_sys")
DRAWN_EDGES = np.linspace(-1, 1, 101)


@dataclasses.dataclass(frozen=True)
class Faces:
    """Embedded pictures.

    Attributes:
        embeddings: rows of length one.
        labels: the identity of each row; equal numbers in two sets mean the same identity.
    """

    embeddings: Float32[np.ndarray, "n d"]
    labels: Int[np.ndarray, " n"]

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def identities(self) -> int:
        """How many identities there are."""
        return len(np.unique(self.labels))


@dataclasses.dataclass(frozen=True)
class Relation:
    """All comparisons of two sets.

    Attributes:
        scores: cosines of the mated comparisons.
        identities: the identity of each.
        centres: bin centres over [-1, 1] ...
        counts: ... and how many non-mated comparisons fell into each bin.
        matches: nearest neighbours of the queries.
    """

    scores: Float32[np.ndarray, " s"]
    identities: Int[np.ndarray, " s"]
    centres: Float[np.ndarray, " bins"]
    counts: Int64[np.ndarray, " bins"]
    matches: matching.Matches


def relate(query: Faces, gallery: Faces, *, within: bool = False, top_k: int = 10, tile: int = 1024) -> Relation:
    """Compares all of `query` with all of `gallery`; `within` says they are one set, whose pairs count once."""
    both = (query.embeddings, gallery.embeddings, query.labels, gallery.labels)
    matches = matching.match(*both, top_k=top_k, tile=tile, exclude_self=within)
    scores, identities = matching.same_label_scores(*both, exclude_self=within)
    return Relation(scores, identities, matches.centres, matches.non_mated, matches)


def figures(relation: Relation, *, rounds: int = 100, seed: int = 0) -> dict[str, Any]:
    """Error rates and separation of a relation, those of `WITH_INTERVAL` with a 95 % interval, and the DET curve.

    The intervals come from a bootstrap over the identities of the mated comparisons; the non-mated distribution, which
    rests on far more comparisons, is held fixed. D_sys stands beside its value under shuffled labels.
    """
    non_mated = {"non_mated_counts": relation.counts}
    result: dict[str, Any] = metrics.verification_metrics(relation.scores, relation.centres, **non_mated)
    result["d_sys_null"] = metrics.d_sys_null(relation.scores, relation.centres, **non_mated, seed=seed)
    for name, interval in _intervals(relation, result, rounds, seed).items():
        result[f"{name}_interval"] = interval
    fmr, fnmr = metrics.det_curve(relation.scores, relation.centres, **non_mated)
    result["det"] = {"fmr": fmr.tolist(), "fnmr": fnmr.tolist()}
    return result


def frozen_thresholds(authentic: Relation) -> dict[str, tuple[float, float]]:
    """Thresholds at FMR 1e-2, 1e-3 and 1e-4 of authentic non-mated comparisons, with the FMR really reached.

    A rate is left out where it would rest on less than one comparison; 1e-4 also where it would rest on fewer than
    30 (the rule of 30).
    """
    total = int(authentic.counts.sum())
    enough = {"1e-2": 1, "1e-3": 1, "1e-4": 30}
    return {
        key: metrics.threshold_at_fmr(authentic.centres, rate, authentic.counts)
        for key, rate in RATES.items()
        if total * rate >= enough[key]
    }


def match_rates(
    relation: Relation, thresholds: dict[str, tuple[float, float]], *, rounds: int = 1000, seed: int = 0
) -> dict[str, dict[str, Any]]:
    """The share of mated comparisons at or above each frozen threshold, and how many times chance that is.

    Chance is the FMR of authentic strangers at the same threshold.
    """
    result = {}
    for key, (threshold, fmr) in thresholds.items():
        rate = metrics.match_rate(relation.scores, relation.identities, threshold, rounds=rounds, seed=seed)
        ratio = {
            "ratio_to_chance": rate["rate"] / fmr if fmr else np.nan,
            "ratio_interval": [end / fmr if fmr else np.nan for end in rate["interval"]],
        }
        result[key] = {"threshold": threshold, "fmr": fmr} | rate | ratio
    return result


def different_label_rates(
    relation: Relation, thresholds: dict[str, tuple[float, float]]
) -> dict[str, dict[str, float]]:
    """The share of non-mated comparisons at or above each frozen threshold, without an interval."""
    total = int(relation.counts.sum())
    result = {}
    for key, (threshold, fmr) in thresholds.items():
        rate = float(relation.counts[relation.centres >= threshold].sum() / total)
        ratio = rate / fmr if fmr else np.nan
        result[key] = {"threshold": threshold, "fmr": fmr, "rate": rate, "ratio_to_chance": ratio, "comparisons": total}
    return result


def score_set(**series: Float[np.ndarray, " _"] | tuple[Float[np.ndarray, " _"], Int64[np.ndarray, " _"]]) -> dict:
    """Count, mean, standard deviation and a histogram of at most 100 bins of each series of scores.

    Args:
        **series: scores, or bin centres with their counts.
    """
    result: dict[str, dict[str, Any]] = {"count": {}, "mean": {}, "std": {}, "histogram": {}}
    drawn = {}
    for name, value in series.items():
        scores, counts = value if isinstance(value, tuple) else (value, np.ones(len(value), np.int64))
        scores = np.asarray(scores, np.float64).clip(-1, 1)
        total = int(counts.sum())
        mean = float((scores * counts).sum() / total)
        result["count"][name] = total
        result["mean"][name] = mean
        result["std"][name] = float(np.sqrt((np.square(scores - mean) * counts).sum() / total))
        drawn[name] = np.histogram(scores, DRAWN_EDGES, weights=counts)[0].astype(np.int64)
    occupied = np.flatnonzero(sum(drawn.values()))
    first, last = occupied[0], occupied[-1] + 1
    result["histogram"]["edges"] = DRAWN_EDGES[first : last + 1].round(6).tolist()
    result["histogram"] |= {name: counts[first:last].tolist() for name, counts in drawn.items()}
    return result


def _intervals(relation: Relation, estimates: dict[str, Any], rounds: int, seed: int) -> dict[str, list[float]]:
    """95 % intervals; mated scores are put into the bins of the non-mated ones first, which makes a round cheap."""
    bins = len(relation.centres)
    place = ((relation.scores + 1) * (bins / 2)).astype(np.int64).clip(0, bins - 1)
    _, group = np.unique(relation.identities, return_inverse=True)
    samples = []
    for drawn in metrics.resamples(int(group.max()) + 1, rounds, seed):
        counts = np.bincount(place, weights=drawn[group], minlength=bins).astype(np.int64)
        mated, non_mated = counts > 0, relation.counts > 0
        if not counts.any():  # only identities without a mated pair were drawn
            continue
        values = metrics.verification_metrics(
            relation.centres[mated],
            relation.centres[non_mated],
            mated_counts=counts[mated],
            non_mated_counts=relation.counts[non_mated],
        )
        samples.append([values[name] for name in WITH_INTERVAL])
    low, middle, high = np.percentile(samples, [2.5, 50, 97.5], axis=0)
    # Resampling repeats scores, which lifts D_sys: its interval is moved back by that bias.
    at = WITH_INTERVAL.index("d_sys")
    bias = middle[at] - estimates["d_sys"]
    low[at], high[at] = max(0.0, low[at] - bias), min(1.0, high[at] - bias)
    return {name: [float(a), float(b)] for name, a, b in zip(WITH_INTERVAL, low, high, strict=True)}
