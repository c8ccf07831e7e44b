"""Identification: probes searched for in galleries of templates, closed-set and open-set.

Words of ISO/IEC 19795-1: a search is mated when the probe's subject is in the gallery. A subject's score is the highest
of its templates; a candidate is returned when its score is >= the threshold. The false positive identification rate
(FPIR) is the share of non-mated searches that return any candidate, the false negative one (FNIR) the share of mated
searches that do not return the mate.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from absl import logging
from jaxtyping import Array, Bool, Float, Float32, Int, Integer

from sface_jax.core.errors import UserError
from sface_jax.data.ijb import Enrolment
from sface_jax.verification import curves

RANKS = 20
RATES = (1e-3, 1e-2, 1e-1)
PUBLISHED_RATES = (0.01, 0.1)
PROTOCOLS = {
    "exact": "each gallery by itself and the mean; the threshold is the lowest at which the share of non-mated "
    "searches with any candidate (FPIR) is not above the wanted one; FNIR any_rank: the mate is not at or above it; "
    "rank_1: nor before all others",
    "published": "what InsightFace's ijb_1n.py computes, with all galleries in one; what it calls FPIR is none, for "
    "every probe has a mate there, and the threshold is the ceil(searches * rate)-th highest score of all mismatching "
    "comparisons, of which one search may give many",
}

_HEADLINES = {"rank_1": 1, "rank_5": 5, "rank_10": 10}
_FNIR = ("fnir_rank_1", "fnir_any_rank")
_AT_ONCE, _SCORES = 512, 1 << 24  # queries, and scores, that are computed at once
_ALONE, _NONE = -1, -2  # in place of a mate's position: without a mate; no query at all


class Searches(NamedTuple):
    """What came of each search.

    Attributes:
        mated: whether the probe's subject is in the gallery.
        mate: the mate's score; -infinity without one.
        other: the highest score of any other subject; -infinity where there is none.
        rank: of the mate, from 1; among equal scores it comes last. Without a mate it means nothing.
    """

    mated: Bool[np.ndarray, " q"]
    mate: Float32[np.ndarray, " q"]
    other: Float32[np.ndarray, " q"]
    rank: Int[np.ndarray, " q"]


def measure(
    templates: Float32[np.ndarray, "t d"],
    galleries: Mapping[str, Enrolment],
    probes: Enrolment,
    *,
    rates: Sequence[float] = RATES,
) -> dict[str, Any]:
    """Searches for the probes in every gallery.

    Args:
        templates: rows of length one.
        galleries: by name.
        probes: what is searched for in each of them.
        rates: wanted false positive identification rates.

    Returns:
        "galleries": by name, see `of_gallery`; "mean" over them: "cmc", "rank_1", "rank_5", "rank_10" and "open_set",
        {rate: {"fnir_rank_1", "fnir_any_rank"}}, None where a gallery has none; "published", see `published`; the count
        "probes".

    Raises:
        UserError: no probe has a mate in a gallery, or an embedding is not finite.
    """
    if broken := int((~np.isfinite(templates).all(1)).sum()):
        raise UserError(f"{broken} of {len(templates)} templates have an embedding that is not finite")
    found = {}
    for name, gallery in galleries.items():
        searches = search(templates[probes.templates], templates[gallery.templates], probes.subjects, gallery.subjects)
        if not searches.mated.any():
            raise UserError(f"no probe has its subject in gallery {name}: are these lists of one protocol?")
        counts = {"subjects": len(np.unique(gallery.subjects)), "templates": len(gallery.templates)}
        found[name] = counts | of_gallery(searches, rates)
    every = list(found.values())
    mean = {key: np.mean([one[key] for one in every], axis=0).tolist() for key in ("cmc", *_HEADLINES)}
    mean["open_set"] = None
    if all(one["open_set"] for one in every):
        mean["open_set"] = {
            rate: {kind: float(np.mean([one["open_set"][rate][kind] for one in every])) for kind in _FNIR}
            for rate in every[0]["open_set"]
        }
    return {
        "galleries": found,
        "mean": mean,
        "published": published(templates, list(galleries.values()), probes),
        "probes": len(probes.templates),
    }


def search(
    probes: Float32[np.ndarray, "q d"],
    gallery: Float32[np.ndarray, "g d"],
    probe_subjects: Integer[np.ndarray, " q"],
    gallery_subjects: Integer[np.ndarray, " g"],
) -> Searches:
    """Compares probes with a gallery, some at a time, on the device.

    Args:
        probes: rows of length one.
        gallery: rows of length one, some of one subject.
        probe_subjects: the subject of each probe.
        gallery_subjects: the subject of each row of the gallery.
    """
    order = np.argsort(gallery_subjects, kind="stable")
    enrolled, segments = np.unique(gallery_subjects[order], return_inverse=True)
    place = np.searchsorted(enrolled, probe_subjects).clip(max=len(enrolled) - 1)
    mated = enrolled[place] == probe_subjects
    mate, other, rank = _search(probes, gallery[order], np.where(mated, place, _ALONE), segments, len(enrolled))
    return Searches(mated, mate, other, rank)


def of_gallery(searches: Searches, rates: Sequence[float] = RATES) -> dict[str, Any]:
    """Rates of the searches in one gallery.

    The threshold at a wanted FPIR is the lowest score above the (k + 1)-th highest of all non-mated searches, each of
    which has one score, that of its best candidate, with k = floor(wanted * non-mated searches).

    Returns:
        "cmc": the share of mated searches whose mate is at rank 1, at least 2, ... `RANKS`, with "rank_1", "rank_5" and
        "rank_10" of it; "open_set": {rate: {"fnir_rank_1", "fnir_any_rank", "fpir" as reached, "threshold", None where
        nothing may be returned, "false_positives", "supported": whether these suffice for the rule of 30}}, None
        without non-mated searches; counts "mated_searches" and "non_mated_searches".
    """
    mated = searches.mated
    mate, rank = searches.mate[mated], searches.rank[mated]
    cmc = (rank[:, None] <= np.arange(1, RANKS + 1)).mean(0)
    result = {
        "mated_searches": int(mated.sum()),
        "non_mated_searches": int((~mated).sum()),
        "cmc": cmc.tolist(),
        **{name: float(cmc[at - 1]) for name, at in _HEADLINES.items()},
        "open_set": None,
    }
    if not mated.all():
        at = curves.at_fmr(mate, searches.other[~mated], rates)
        result["open_set"] = {
            curves.rate_name(wanted): {
                "fnir_rank_1": float(((mate < threshold) | (rank > 1)).mean()),
                "fnir_any_rank": float((mate < threshold).mean()),
                "fpir": float(at.fmr[i]),
                "threshold": float(threshold) if np.isfinite(threshold) else None,
                "false_positives": int(at.false_matches[i]),
                "supported": bool(at.false_matches[i] >= curves.RULE_OF_30),
            }
            for i, (wanted, threshold) in enumerate(zip(at.wanted, at.thresholds, strict=True))
        }
    return result


def published(
    templates: Float32[np.ndarray, "t d"], galleries: Sequence[Enrolment], probes: Enrolment
) -> dict[str, Any] | None:
    """The figures of InsightFace's 1:N script (recognition/_evaluation_/ijb/ijb_1n.py), see `PROTOCOLS`.

    Returns:
        "top_1", "top_5", "top_10": share of probes whose mate is among so many templates; "tpir_at_fpir": {rate:
        {"tpir": share of probes whose mate is strictly above the threshold, "threshold"}}. None, with a line in the
        log, where the script has no answer: the subject of a probe has not just one template in all galleries
        together, or there is but one template.
    """
    numbers, place = np.unique(np.concatenate([one.templates for one in galleries]), return_index=True)
    subjects = np.concatenate([one.subjects for one in galleries])[place]
    enrolled, row, times = np.unique(subjects, return_index=True, return_counts=True)
    at = np.searchsorted(enrolled, probes.subjects).clip(max=len(enrolled) - 1)
    if (enrolled[at] != probes.subjects).any() or (times[at] != 1).any() or len(numbers) == 1:
        logging.warning("no 1:N figures as published: these need one template of each probe's subject in all galleries")
        return None
    queries, gallery, mates = templates[probes.templates], templates[numbers], row[at]
    mate, _, rank = _search(queries, gallery, mates, np.arange(len(numbers)), len(numbers))
    counts = [math.ceil(len(queries) * rate) for rate in PUBLISHED_RATES]
    highest = _highest_others(queries, gallery, mates, max(counts))
    return {
        **{f"top_{k}": float((rank <= k).mean()) for k in _HEADLINES.values()},
        "tpir_at_fpir": {
            curves.rate_name(rate): {
                "tpir": float((mate > highest[count - 1]).mean()),
                "threshold": float(highest[count - 1]),
            }
            for rate, count in zip(PUBLISHED_RATES, counts, strict=True)
        },
    }


def _search(
    queries: Float32[np.ndarray, "q d"],
    gallery: Float32[np.ndarray, "g d"],
    mates: Integer[np.ndarray, " q"],
    segments: Integer[np.ndarray, " g"],
    subjects: int,
) -> tuple[Float32[np.ndarray, " q"], Float32[np.ndarray, " q"], Int[np.ndarray, " q"]]:
    """Score of the mate, highest other score, and rank; `segments` rises and numbers the subjects 0, 1, ..."""
    gallery, segments = jax.device_put((gallery, segments.astype(np.int32)))
    parts = [
        [np.asarray(of)[:taken] for of in _compare(block, gallery, segments, mate, subjects=subjects)]
        for taken, block, mate in _blocks(queries, mates, len(gallery))
    ]
    mate, other, rank = (np.concatenate(part) for part in zip(*parts, strict=True))
    return mate, other, rank


def _highest_others(
    queries: Float32[np.ndarray, "q d"], gallery: Float32[np.ndarray, "g d"], mates: Integer[np.ndarray, " q"], k: int
) -> Float32[np.ndarray, " k"]:
    """The k highest scores, falling, of all queries with all templates but their mates."""
    gallery, highest = jax.device_put((gallery, np.full(k, -np.inf, np.float32)))
    for _, block, mate in _blocks(queries, mates, len(gallery)):
        highest = _keep_highest(highest, block, gallery, mate)
    return np.asarray(highest)


def _blocks(
    queries: Float32[np.ndarray, "q d"], mates: Integer[np.ndarray, " q"], templates: int
) -> Iterator[tuple[int, Float32[np.ndarray, "b d"], Int[np.ndarray, " b"]]]:
    """Some queries at a time, filled up to one number: how many they are, the queries, and their mates."""
    size = max(1, min(len(queries), _AT_ONCE, _SCORES // templates))
    for start in range(0, len(queries), size):
        block, mate = queries[start : start + size], mates[start : start + size].astype(np.int32)
        rest = size - len(block)
        yield len(block), np.pad(block, ((0, rest), (0, 0))), np.pad(mate, (0, rest), constant_values=_NONE)


@functools.partial(jax.jit, static_argnames="subjects")
def _compare(
    queries: Float[Array, "b d"],
    gallery: Float[Array, "g d"],
    segments: Int[Array, " g"],
    mate: Int[Array, " b"],
    *,
    subjects: int,
) -> tuple[Float[Array, " b"], Float[Array, " b"], Int[Array, " b"]]:
    scores = _cosines(gallery, queries)  # [g, b]
    scores = jax.ops.segment_max(scores, segments, subjects, indices_are_sorted=True)  # [s, b]
    of_mate = jnp.arange(subjects)[:, None] == mate
    own = jnp.max(scores, axis=0, initial=-jnp.inf, where=of_mate)
    others = jnp.where(of_mate, -jnp.inf, scores)
    return own, jnp.max(others, axis=0), 1 + jnp.sum(others >= own, axis=0)


@jax.jit
def _keep_highest(
    highest: Float[Array, " k"], queries: Float[Array, "b d"], gallery: Float[Array, "g d"], mate: Int[Array, " b"]
) -> Float[Array, " k"]:
    column = jnp.arange(len(gallery))
    counted = (column != mate[:, None]) & (mate[:, None] != _NONE)
    scores = jnp.where(counted, _cosines(queries, gallery), -jnp.inf)
    return jax.lax.top_k(jnp.concatenate([highest, scores.ravel()]), len(highest))[0]


def _cosines(a: Float[Array, "n d"], b: Float[Array, "m d"]) -> Float[Array, "n m"]:
    # full float32 also where the device would rather use bfloat16 or TF32
    return jnp.matmul(a, b.T, precision=jax.lax.Precision.HIGHEST)
