"""Controls of the audit: what is planted must be found, and labels that mean nothing must link nothing."""

from __future__ import annotations

from typing import Any

import numpy as np
from jaxtyping import Float32, Int, UInt8

from sface_jax.privacy import matching, metrics
from sface_jax.privacy.relations import Faces, Relation


def near_copies(images: UInt8[np.ndarray, "n h w 3"]) -> UInt8[np.ndarray, "n h w 3"]:
    """Copies of pictures with every byte changed a little: moved by a pixel, contrast down by 5 %."""
    moved = np.concatenate([images[:, :, :1], images[:, :, :-1]], axis=2)
    return np.rint(127.5 + 0.95 * (moved.astype(np.float32) - 127.5)).astype(np.uint8)


def planted(
    copies: Float32[np.ndarray, "k d"],
    origins: Int[np.ndarray, " k"],
    members: Faces,
    nearest_synthetic: Float32[np.ndarray, " n"],
    heldout_nearest_synthetic: Float32[np.ndarray, " h"] | None,
) -> dict[str, Any]:
    """Plants near copies of member pictures among the synthetic ones and runs the nearest-neighbour attacks on them.

    Args:
        copies: embeddings of `near_copies` of some member pictures.
        origins: the rows of those pictures in `members`.
        members: the authentic pictures.
        nearest_synthetic: for each member picture, the score of its nearest synthetic picture without the plants.
        heldout_nearest_synthetic: the same for held-out pictures, where there are any.

    Returns:
        `planted`, `found` and `rate` (the nearest authentic picture of the copy is its origin), `near_copy_threshold`
        (the score that 95 % of the copies reach with their origins), and `membership_auc` of the copied pictures
        against the held-out ones.
    """
    label = np.zeros(len(copies), np.int32)
    matches = matching.match(copies, members.embeddings, label, np.zeros(len(members), np.int32), top_k=1)
    found = matches.top_indices[:, 0] == origins
    to_origin = (copies * members.embeddings[origins]).sum(1)
    result = {
        "planted": len(copies),
        "found": int(found.sum()),
        "rate": float(found.mean()),
        "near_copy_threshold": float(np.percentile(to_origin, 5)),
    }
    if heldout_nearest_synthetic is not None:
        with_plants = np.maximum(nearest_synthetic[origins], to_origin)
        result["membership_auc"] = metrics.auc(with_plants, heldout_nearest_synthetic)
    return result


def shuffled(
    authentic: Faces, synthetic: Faces, relation: Relation, threshold: float, *, seed: int = 0
) -> dict[str, float]:
    """Gives every synthetic identity the label of another one and measures the link again: it must be chance.

    Args:
        authentic: authentic pictures.
        synthetic: synthetic pictures.
        relation: their true relation, for its non-mated scores.
        threshold: a frozen one.
        seed: of the new labels.

    Returns:
        `auc` of the mated scores under the new labels (0.5 is chance), their match `rate`, and `expected_rate`, the
        match rate of truly different labels.
    """
    identities = np.intersect1d(np.unique(synthetic.labels), np.unique(authentic.labels))
    cycle = np.random.default_rng(seed).permutation(identities)
    other = dict(zip(cycle.tolist(), np.roll(cycle, 1).tolist(), strict=True))
    kept = np.isin(synthetic.labels, identities)
    labels = np.array([other[label] for label in synthetic.labels[kept].tolist()])
    scores, _ = matching.same_label_scores(
        synthetic.embeddings[kept], authentic.embeddings, labels, authentic.labels, seed=seed
    )
    total = int(relation.counts.sum())
    return {
        "auc": metrics.auc(scores, relation.centres, non_mated_counts=relation.counts),
        "rate": float((scores >= threshold).mean()),
        "expected_rate": float(relation.counts[relation.centres >= threshold].sum() / total),
    }
