"""Linkage: whose synthetic pictures are these? Label recovery, closed-set and open-set identification.

Words of ISO/IEC 19795-1: the probes are synthetic identities, the gallery are the members, enrolled with all their
pictures. A search is mated where the identity that the probe is named after is enrolled.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from jaxtyping import Bool, Int

from sface_jax.privacy import metrics, pooled
from sface_jax.privacy.relations import Faces, Relation, drawn, relate
from sface_jax.verification import curves

PICTURES = {"1": 1, "10": 10, "all": None}
"""How many pictures of a probe are pooled."""

RANKS = (1, 10)
FPIRS = (1e-1, 1e-2)


def linkage(
    synthetic: Faces, members: Faces, *, relation: Relation | None = None, draws: int = 3, seed: int = 0
) -> dict[str, Any]:
    """Every linkage attack, with 95 % intervals over identities (`metrics.match_rate`).

    Args:
        synthetic: the probes.
        members: the gallery; equal labels mean the identity that a synthetic one is named after.
        relation: their comparison where it is known already, with ten neighbours kept.
        draws: of the pictures that are pooled, where not all are.
        seed: of the draws.

    Returns:
        "single": see `label_recovery`; "pooled": {"1", "10", "all": {"mean", "max": see `identification`}}, without
        "10" where no synthetic identity has more pictures; "probes", the synthetic identities searched for, "enrolled",
        the members, and "without_mate", the synthetic identities left out because no member has their label. {} where
        no member has any of the labels.
    """
    named = np.isin(synthetic.labels, members.labels)
    if not named.any():
        return {}
    probes = Faces(synthetic.embeddings[named], synthetic.labels[named])
    relation = relate(synthetic, members) if relation is None else relation
    most = int(np.unique(probes.labels, return_counts=True)[1].max())
    found: dict[str, Any] = {}
    for name, pictures in PICTURES.items():
        if pictures and 1 < most <= pictures:
            continue
        times = draws if pictures and most > pictures else 1
        sets = [_pick(probes, pictures or most, np.random.default_rng([seed, time])) for time in range(times)]
        found[name] = {pooling: identification(_search(sets, members, pooling), members) for pooling in pooled.POOLINGS}
    return {
        "single": label_recovery(synthetic, members, relation),
        "pooled": found,
        "probes": probes.identities,
        "enrolled": members.identities,
        "without_mate": synthetic.identities - probes.identities,
    }


def label_recovery(synthetic: Faces, members: Faces, relation: Relation) -> dict[str, dict[str, Any]]:
    """How often the nearest one (ten) pictures of members to a synthetic one hold a picture of its own label.

    Synthetic pictures of labels that no member has can find nothing and are left out.

    Args:
        synthetic: the queries of `relation`.
        members: the gallery of `relation`.
        relation: their comparison, with as many neighbours kept.

    Returns:
        `rank1` and `rank10`, each as `metrics.match_rate`, with `chance` and `ratio_to_chance`. Chance is that of
        labels dealt at random: the mean number of people on the neighbouring pictures / enrolled people.
    """
    named = np.isin(synthetic.labels, members.labels)
    labels, neighbours = synthetic.labels[named], relation.matches.top_indices[named]
    there = neighbours >= 0
    near = np.where(there, members.labels[neighbours], -1)
    # of the people a picture's neighbours show, each one counts once, at its nearest picture
    repeated = np.stack([(near[:, :place] == near[:, place, None]).any(1) for place in range(near.shape[1])], axis=1)
    people = (there & ~repeated).cumsum(1)
    hits = there & (near == labels[:, None])
    result = {}
    for rank in RANKS:
        chance = float(people[:, :rank][:, -1].mean() / members.identities)
        result[f"rank{rank}"] = _beside_chance(hits[:, :rank].any(1), labels, chance)
    return result


def identification(searches: pooled.IdentityMatches, members: Faces) -> dict[str, Any]:
    """Closed-set and open-set identification of probes that all have a mate in the gallery.

    Open-set, each probe is searched for twice: with its mate enrolled, and with the mate taken out, when the score of
    the best other identity is what a non-mated search returns. The threshold is the lowest at which the share of
    non-mated searches with a candidate (FPIR) is at most the wanted one. FNIR is the share of mated searches that do
    not return the mate first and at or above it.

    Args:
        searches: of one draw, or of several one after the other.
        members: the gallery.

    Returns:
        "rank1" and "rank10" as in `label_recovery`, among identities, so that chance is rank / enrolled; "open_set",
        {FPIR: {"fnir", its "interval", "chance_fnir", "fpir" as reached, "threshold" (infinity where nothing may be
        returned), "false_positives", "searches", "supported": whether 30 probes stand behind them (rule of 30)}},
        without the FPIRs that allow not one false positive. A probe that names no one in particular has its mate first
        in one of so many searches as there are identities: "chance_fnir".
    """
    enrolled = members.identities
    result: dict[str, Any] = {
        f"rank{rank}": _beside_chance(searches.rank <= rank, searches.identities, min(rank, enrolled) / enrolled)
        for rank in RANKS
    }
    result["open_set"] = {
        curves.rate_name(fpir): _open_set(searches, fpir, enrolled) for fpir in FPIRS if fpir * len(searches.other) >= 1
    }
    return result


def _open_set(searches: pooled.IdentityMatches, wanted: float, enrolled: int) -> dict[str, Any]:
    own, other = searches.own, searches.other
    bar = curves.one_too_many(other, wanted)
    false = other > bar
    first = np.maximum(own, other)
    threshold = float(first[first > bar].min(initial=np.inf))
    lost = (searches.rank > 1) | (own <= bar)
    missed = metrics.match_rate(lost.astype(np.float32), searches.identities, 0.5)
    return {
        "fnir": missed["rate"],
        "interval": missed["interval"],
        "chance_fnir": float(1 - (first > bar).mean() / enrolled),
        "fpir": float(false.mean()),
        "threshold": threshold,
        "false_positives": int(false.sum()),
        "searches": len(other),
        "supported": len(np.unique(searches.identities[false])) >= curves.RULE_OF_30,
    }


def _search(sets: list[Faces], members: Faces, pooling: str) -> pooled.IdentityMatches:
    """The searches of several draws one after the other."""
    found = [
        pooled.match_identities(probes.embeddings, members.embeddings, probes.labels, members.labels, pooling=pooling)
        for probes in sets
    ]
    return pooled.IdentityMatches(*(np.concatenate(column) for column in zip(*found, strict=True)))


def _pick(faces: Faces, each: int, rng: np.random.Generator) -> Faces:
    rows = drawn(faces.labels, each, rng)
    return Faces(faces.embeddings[rows], faces.labels[rows])


def _beside_chance(found: Bool[np.ndarray, " n"], labels: Int[np.ndarray, " n"], chance: float) -> dict[str, Any]:
    rate = metrics.match_rate(found.astype(np.float32), labels, 0.5)
    return rate | {"chance": chance, "ratio_to_chance": rate["rate"] / chance}
