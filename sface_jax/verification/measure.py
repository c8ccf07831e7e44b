"""What is told of one network on one benchmark, of pairs or of templates."""

from __future__ import annotations

from typing import Any

import numpy as np
from absl import logging
from jaxtyping import Float, Float32

from sface_jax.core.errors import UserError
from sface_jax.verification import bootstrap, curves, identification, templates
from sface_jax.verification.benchmarks import Benchmark, TemplateBenchmark
from sface_jax.verification.protocol import Comparisons, compare
from sface_jax.verification.table import DEALT

PROTOCOLS = {
    "insightface": "what InsightFace's verification.py computes: squared distance, accepted below a threshold of "
    "arange(0, 4, 0.01) chosen on the other folds; TAR at FAR 1e-3 on arange(0, 4, 0.001), interpolated",
    "exact": "the threshold may lie between any two distances of the other folds; true match rates (TMR) at false "
    "match rates (FMR) over all pairs, at the highest threshold on distance whose FMR is not above, not interpolated",
}
RATES = (1e-1, 1e-2, 1e-3, 1e-4)
HARDEST = 10


def measure(embeddings: Float[np.ndarray, "n d"], benchmark: Benchmark, replicates: int = 1000) -> dict[str, Any]:
    """Measures the embeddings of a benchmark's pictures, in the same order.

    Args:
        embeddings: of length one.
        benchmark: pairs of them.
        replicates: of the bootstrap; 0 leaves the intervals out.

    Returns:
        InsightFace's figures, with "exact" beside them; "interval_95" of them from a bootstrap over subjects, and
        "accuracy_replicates", which are paired with those of another network on the same pairs; "roc", false and true
        match rates; "hardest", the pairs furthest on the wrong side; counts and hashes. "order" is "dealt anew" where
        the folds are not those of the file: InsightFace's figures are then others.

    Raises:
        UserError: see `protocol.compare`.
    """
    pairs = benchmark.pairs
    empty = int((~embeddings.any(1)).sum())
    if empty == len(embeddings):
        raise UserError("all embeddings are zero: check the network's weights and its preprocessing")
    if empty:
        logging.warning("%s: %d of %d embeddings are zero", benchmark.name, empty, len(embeddings))
    first, second = embeddings[pairs.first], embeddings[pairs.second]
    compared = compare(first, second, pairs.same, pairs.folds, uneven=True)
    accuracy, tar = compared.accuracy(), compared.tar_at_far(1e-3)
    fpr, tpr = compared.grid_roc()
    points = compared.points()
    result = {
        "accuracy": accuracy.mean,
        "std": accuracy.std,
        "tar_at_far_1e-3": tar.mean,
        "tar_std": tar.std,
        "far": tar.far,
        "per_fold": accuracy.per_fold.tolist(),
        "thresholds": accuracy.thresholds.tolist(),
        "tar_thresholds": tar.thresholds.tolist(),
        "grid_roc": {"fpr": fpr.tolist(), "tpr": tpr.tolist()},
        "exact": _exact(compared, points),
    }
    if replicates:
        subjects = benchmark.subjects
        drawn = bootstrap.replicated(compared, subjects[pairs.first], subjects[pairs.second], replicates=replicates)
        result["accuracy_replicates"] = np.round(drawn.get("accuracy", ()), 4).tolist()
        result["interval_95"] = bootstrap.intervals(drawn) | {
            "subjects": len(np.unique(subjects)),
            "subjects_from": "names" if benchmark.subjects_named else "mated pairs",
            "replicates": replicates,
        }
    kept = curves.thin(points.fmr, points.fnmr)[::-1]
    return result | {
        "roc": {"fmr": points.fmr[kept].tolist(), "tmr": (1 - points.fnmr[kept]).tolist()},
        "folds": pairs.folds,
        "pairs": len(pairs),
        "mated": int(pairs.same.sum()),
        "pictures": len(benchmark.images),
        "zero_embeddings": empty,
        "order": "of the file" if (np.diff(benchmark.places) > 0).all() else DEALT,
        "left_out": benchmark.left_out,
        "sha256": benchmark.digest,
        "file_sha256": benchmark.file,
        "hardest": [pair | {"pair": int(benchmark.places[pair["pair"]])} for pair in hardest(compared)],
    }


def _exact(compared: Comparisons, points: curves.OperatingPoints) -> dict[str, Any]:
    accuracy, scores = compared.exact_accuracy(), -compared.distance
    mated, non_mated = scores[compared.same], scores[~compared.same]
    at = curves.at_fmr(mated, non_mated, RATES)
    return {
        "accuracy": accuracy.mean,
        "std": accuracy.std,
        "per_fold": accuracy.per_fold.tolist(),
        "thresholds": accuracy.thresholds.tolist(),
        "eer": curves.eer(points),
        "tmr_at_fmr": {
            curves.rate_name(rate): {
                "tmr": float(tmr),
                "false_matches": int(false_matches),
                "supported": bool(false_matches >= curves.RULE_OF_30),
            }
            for rate, tmr, false_matches in zip(RATES, at.tmr, at.false_matches, strict=True)
        },
    }


def measure_templates(
    embeddings: Float32[np.ndarray, "n d"],
    benchmark: TemplateBenchmark,
    *,
    norm_weighting: bool = True,
    detector_weighting: bool = True,
) -> dict[str, Any]:
    """Measures the embeddings of the pictures of templates, in the same order.

    Args:
        embeddings: as the network gives them, their length included.
        benchmark: the templates, pairs of them, and galleries.
        norm_weighting: see `templates.pool`.
        detector_weighting: weigh pictures by the detector's score, where there are some.

    Returns:
        See `templates.measure`; "tar_at_far_1e-4" as published; "identification", see `identification.measure`, where
        there are galleries; counts and hashes.

    Raises:
        UserError: see these.
    """
    of = benchmark.templates
    weights = of.scores if detector_weighting else None
    pooled = templates.pool(embeddings, of.template, of.media, weights, norm_weighting=norm_weighting)
    result = templates.measure(pooled, of.first, of.second, of.same)
    result["exact"] = {"eer": result.pop("eer"), "tmr_at_fmr": result["exact"]}
    result["tar_at_far_1e-4"] = result["published"]["1e-4"]["tmr"]
    if of.galleries and of.probes:
        result["identification"] = identification.measure(pooled, of.galleries, of.probes)
    return result | {
        "protocols": templates.PROTOCOLS | {f"1:N {name}": text for name, text in identification.PROTOCOLS.items()},
        "norm_weighting": norm_weighting,
        "detector_weighting": weights is not None,
        "pictures": len(of.names),
        "pictures_without_face": int(of.faceless.sum()),
        "sha256": benchmark.digest,
        "file_sha256": benchmark.file,
        "files_sha256": dict(of.sha256),
    }


def hardest(compared: Comparisons, count: int = HARDEST) -> list[dict[str, Any]]:
    """The mated pairs with the highest, and the non-mated ones with the lowest distance.

    Args:
        compared: the pairs.
        count: how many of each kind.

    Returns:
        "pair", its place in the benchmark from 0; "fold"; "mated"; "distance", squared.
    """
    order = compared.sweep.order
    mated = compared.same[order]
    chosen = [*order[mated][::-1][:count], *order[~mated][:count]]
    return [
        {
            "pair": int(i),
            "fold": int(compared.fold[i]),
            "mated": bool(compared.same[i]),
            "distance": float(compared.distance[i]),
        }
        for i in chosen
    ]
