"""What an attacker gets out of a synthetic dataset: names for its pictures, and who was in the training set."""

from __future__ import annotations

from typing import Any

import numpy as np
from jaxtyping import Float, Int

from sface_jax.privacy import metrics
from sface_jax.privacy.relations import Faces, Relation


def label_recovery(
    synthetic: Faces, authentic: Faces, relation: Relation, *, rounds: int = 1000, seed: int = 0
) -> dict[str, dict[str, Any]]:
    """How often the nearest one (ten) authentic pictures of a synthetic one hold a picture of its own label.

    Args:
        synthetic: the queries of `relation`.
        authentic: the gallery of `relation`.
        relation: their comparison, with at least one neighbour kept.
        rounds: bootstrap samples over identities.
        seed: of the bootstrap.

    Returns:
        `rank1` and `rank10`, each with `rate`, its 95 % `interval`, `chance` and `ratio_to_chance`; chance is that of
        neighbours drawn at random.
    """
    neighbours = relation.matches.top_indices
    hits = (authentic.labels[neighbours] == synthetic.labels[:, None]) & (neighbours >= 0)
    identities, counts = np.unique(authentic.labels, return_counts=True)
    place = np.searchsorted(identities, synthetic.labels).clip(max=len(identities) - 1)
    share = np.where(identities[place] == synthetic.labels, counts[place], 0) / len(authentic)
    result = {}
    for rank in (1, 10):
        found = hits[:, :rank].any(1).astype(np.float32)
        chance = float((1 - (1 - share) ** min(rank, neighbours.shape[1], len(authentic))).mean())
        rate = metrics.match_rate(found, synthetic.labels, 0.5, rounds=rounds, seed=seed)
        ratio = rate["rate"] / chance if chance else np.nan
        result[f"rank{rank}"] = rate | {"chance": chance, "ratio_to_chance": ratio}
    return result


def membership(
    members: Float[np.ndarray, " m"],
    member_labels: Int[np.ndarray, " m"],
    heldout: Float[np.ndarray, " h"],
    heldout_labels: Int[np.ndarray, " h"],
    *,
    rounds: int = 300,
    seed: int = 0,
) -> dict[str, Any]:
    """Whether the nearest synthetic neighbour tells members from identities the generator never saw.

    Args:
        members: score of each member picture with its nearest synthetic picture.
        member_labels: their identities.
        heldout: the same scores for pictures of held-out identities.
        heldout_labels: their identities.
        rounds: bootstrap samples, over the identities of both sides.
        seed: of the bootstrap.

    Returns:
        `picture` and `identity` (mean score of an identity's pictures), each with `auc`, its 95 % `interval`,
        and `tpr_at_fpr` for the rates that the number of held-out units can show; the sizes; and `power`, what a test
        of this size could have seen.
    """
    member_ids, member_group = np.unique(member_labels, return_inverse=True)
    heldout_ids, heldout_group = np.unique(heldout_labels, return_inverse=True)
    drawn_members = metrics.resamples(len(member_ids), rounds, seed)
    drawn_heldout = metrics.resamples(len(heldout_ids), rounds, seed + 1)
    result: dict[str, Any] = {
        "members": {"identities": len(member_ids), "pictures": len(members)},
        "heldout": {"identities": len(heldout_ids), "pictures": len(heldout)},
    }
    levels = {
        "picture": (members, member_group, heldout, heldout_group),
        "identity": (
            _group_means(members, member_group),
            np.arange(len(member_ids)),
            _group_means(heldout, heldout_group),
            np.arange(len(heldout_ids)),
        ),
    }
    for level, (inside, inside_group, outside, outside_group) in levels.items():
        samples = [
            metrics.auc(inside, outside, mated_counts=a[inside_group], non_mated_counts=b[outside_group])
            for a, b in zip(drawn_members, drawn_heldout, strict=True)
        ]
        auc = metrics.auc(inside, outside)
        low, high = np.percentile(samples, [2.5, 97.5])
        if auc in (0.0, 1.0):  # a bootstrap sees no doubt where the two are fully apart; the rule of three does
            doubt = 1 - 0.05 ** (1 / min(len(member_ids), len(heldout_ids)))
            low, high = (1 - doubt, 1.0) if auc else (0.0, doubt)
        result[level] = {
            "auc": auc,
            "interval": [float(low), float(high)],
            "tpr_at_fpr": {
                key: metrics.tpr_at_fpr(inside, outside, rate)
                for key, rate in (("1e-1", 1e-1), ("1e-2", 1e-2), ("1e-3", 1e-3))
                if rate * len(outside) >= 1
            },
        }
    result["power"] = (
        f"{len(heldout_ids)} held-out identities: a false positive rate below {1 / len(heldout_ids):.2g} of identities "
        f"cannot be measured, and an event never seen among them may still happen to "
        f"{100 * min(3 / len(heldout_ids), 1):.2g} % of people (rule of three)."
    )
    return result


def _group_means(scores: Float[np.ndarray, " n"], group: Int[np.ndarray, " n"]) -> Float[np.ndarray, " g"]:
    return np.bincount(group, scores) / np.bincount(group)
