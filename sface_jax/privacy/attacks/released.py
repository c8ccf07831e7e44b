"""Whether a released recogniser itself tells whom its teacher, or the generator, learned from."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from etils import epath
from jaxtyping import Bool, Float, Float32, Int

from sface_jax.core.checkpoint import Checkpoints
from sface_jax.privacy import matching, metrics
from sface_jax.privacy.attacks import membership
from sface_jax.privacy.relations import Faces

PRIMARY = "separation"


@dataclasses.dataclass(frozen=True)
class View:
    """Authentic pictures as one network sees them.

    Attributes:
        members: pictures of identities that the generator and the teacher learned.
        heldout: pictures of identities that neither ever saw.
        classes: rows of the classifier that the network was trained with, where they are known.
    """

    members: Faces
    heldout: Faces
    classes: Float32[np.ndarray, "c e"] | None = None


def released(
    networks: Mapping[str, View],
    reference: View,
    *,
    baseline: str = "classification",
    control: str = "authentic",
) -> dict[str, Any]:
    """Membership of identities in what a network was taught, from its embeddings of their pictures.

    A network draws together the pictures of people it learned, and moves these people away from each other. An attacker
    needs the released network, another one to compare with, and pictures of the person and of others. Each score is
    one figure an identity:

    - `separation`: compactness less the highest cosine of the identity's mean direction with that of any other
      identity, members and held-out ones alike. The primary one: it was chosen on the quickstart's procedural faces,
      whose own figures may be a little too good for that, before any other data was seen.
    - `compactness`: mean cosine of the identity's mated comparisons.
    - `strangers`: that highest cosine, negative.
    - `class_centre`: highest cosine of its mean direction with a row of the network's classifier; only where the
      classifier is at hand, which a release need not contain.

    Some people are easier than others, whoever learned them. So each score is less what a reference network, which saw
    neither side, lets expect (difficulty calibration: Watson et al., ICLR 2022): the residual of the least squares fit
    on the reference's compactness and highest cosine, over all identities at once. The fit does not know who is a
    member, so that where members and held-out identities are alike the AUC is 0.5.

    What this does not claim: an AUC near 0.5 says that these few scores, at this number of held-out identities, do
    not tell; attacks that train copies of the network on known members (Carlini et al., 2022) are stronger, and are not
    made here. An AUC above 0.5 says that members are told from others, not by which of teacher, generator and
    synthetic pictures it came; the difference to a student of labels alone points at the teacher. Nothing is said of
    whether a picture can be reconstructed.

    Args:
        networks: what to judge: name -> what the network sees. All views, and the reference's, are of the same
            pictures in the same order.
        reference: what a network sees that learned none of these identities.
        baseline: the student that the others are compared with, where it is among them.
        control: a network that did learn the members, such as the teacher; it must be found.

    Returns:
        `primary`, `control` ({"network", "found": whether its interval lies above 0.5}; {} where it is not among the
        networks), the number of `identities` on both sides, `left_out` (identities with a single picture), `tried`
        (how many scores), and for each of `networks` the primary score's figures (`membership.judge`, by identity), the
        same of all `attacks`, and `difference` (the primary AUC less the baseline's, `to`, with a paired 95 %
        interval; {} for the baseline). {} where fewer than two identities are left on a side.
    """
    kept, inside = _kept(reference)
    if min(inside.sum(), (~inside).sum()) < 2:
        return {}
    expected = _figures(reference, kept)
    covariates = [expected["compactness"], expected["strangers"]]
    scores = {
        name: {attack: _residual(score, covariates) for attack, score in _figures(view, kept).items()}
        for name, view in networks.items()
    }
    found = {name: {attack: _judge(of[attack], inside) for attack in of} for name, of in scores.items()}
    return {
        "primary": PRIMARY,
        "control": _control(found, control),
        "identities": {"members": int(inside.sum()), "heldout": int((~inside).sum())},
        "left_out": len(np.unique(_together(reference)[1])) - len(kept),
        "tried": len(expected) + any("class_centre" in of for of in scores.values()),
        "networks": {
            name: attacks[PRIMARY] | {"attacks": attacks, "difference": _difference(scores, name, baseline, inside)}
            for name, attacks in found.items()
        },
    }


def class_centres(directory: str) -> Float32[np.ndarray, "c e"] | None:
    """The classifier that a network was trained with; None where its checkpoint holds none.

    Args:
        directory: the folder of a recogniser, or a file of another kind, which has none.
    """
    folder = epath.Path(directory) / "checkpoints"
    if not folder.exists():
        return None
    checkpoints = Checkpoints(folder, read_only=True)
    state = checkpoints.read(["params"])
    checkpoints.close()
    head = (state or {}).get("params", {}).get("head")
    if head is None:
        return None
    rows = np.asarray(head["weight"], np.float32)
    return rows[np.square(rows).sum(1) > 0]  # rows of zeros fill the matrix up to a multiple of the devices


def _together(view: View) -> tuple[Float[np.ndarray, "n d"], Int[np.ndarray, " n"]]:
    """Embeddings of both sides, and a number for each identity, odd for members."""
    embeddings = np.concatenate([view.members.embeddings, view.heldout.embeddings]).astype(np.float64)
    labels = np.concatenate([view.members.labels, view.heldout.labels])
    inside = np.arange(len(labels)) < len(view.members)
    return embeddings, 2 * labels.astype(np.int64) + inside


def _kept(view: View) -> tuple[Int[np.ndarray, " a"], Bool[np.ndarray, " a"]]:
    """The identities with two pictures or more, and whether each is a member."""
    identities, counts = np.unique(_together(view)[1], return_counts=True)
    kept = identities[counts > 1]
    return kept, kept % 2 == 1


def _figures(view: View, kept: Int[np.ndarray, " a"]) -> dict[str, Float[np.ndarray, " a"]]:
    """The scores of each identity, before calibration."""
    embeddings, identities = _together(view)
    among = np.isin(identities, kept)
    group = np.searchsorted(kept, identities[among])
    counts = np.bincount(group)
    sums = np.zeros((len(kept), embeddings.shape[1]))
    np.add.at(sums, group, embeddings[among])
    # the squared length of a sum of n unit vectors is n and twice the sum of their cosines
    compactness = (np.square(sums).sum(1) - counts) / (counts * (counts - 1))
    centres = (sums / np.linalg.norm(sums, axis=1, keepdims=True).clip(1e-12)).astype(np.float32)
    places = np.arange(len(kept), dtype=np.int32)
    nearest = matching.match(centres, centres, places, places, top_k=1, exclude_self=True).nearest_non_mated
    scores = {"separation": compactness - nearest, "compactness": compactness, "strangers": -nearest.astype(np.float64)}
    if view.classes is not None:
        best = matching.match(centres, view.classes, top_k=1).top_scores[:, 0]
        scores["class_centre"] = best.astype(np.float64)
    return scores


def _residual(score: Float[np.ndarray, " a"], covariates: list[Float[np.ndarray, " a"]]) -> Float[np.ndarray, " a"]:
    design = np.stack([np.ones(len(score)), *covariates], axis=1)
    return score - design @ np.linalg.lstsq(design, score, rcond=None)[0]


def _judge(score: Float[np.ndarray, " a"], inside: Bool[np.ndarray, " a"]) -> dict[str, Any]:
    identities = np.arange(len(score))
    found = membership.judge(score[inside], identities[inside], score[~inside], identities[~inside])["identity"]
    return {key: value for key, value in found.items() if key != "roc"}


def _control(found: dict[str, dict[str, Any]], name: str) -> dict[str, Any]:
    return {"network": name, "found": found[name][PRIMARY]["interval"][0] > 0.5} if name in found else {}


def _difference(
    scores: dict[str, dict[str, Float[np.ndarray, " a"]]], name: str, baseline: str, inside: Bool[np.ndarray, " a"]
) -> dict[str, Any]:
    if name == baseline or baseline not in scores:
        return {}
    return {"to": baseline} | paired_difference(scores[name][PRIMARY], scores[baseline][PRIMARY], inside)


def paired_difference(
    first: Float[np.ndarray, " a"], second: Float[np.ndarray, " a"], inside: Bool[np.ndarray, " a"]
) -> dict[str, Any]:
    """The difference of two AUCs of the same identities, with its 95 % interval (DeLong et al., Biometrics 1988).

    With V_i the share of held-out scores below member i's, W_j the share of member scores above held-out j's, and d the
    difference of two attacks' V or W: variance = var(d V) / members + var(d W) / held-out. Simulated coverage with 12
    to 200 identities a side, 2,000 rounds each: 93.5 % to 95.7 %.

    Args:
        first: one score of each identity.
        second: the other.
        inside: whether each identity is a member; two or more on each side.

    Returns:
        `auc`, the first less the second, and its `interval`.
    """
    placed = [
        (metrics.placements(score[inside], score[~inside]), 1 - metrics.placements(score[~inside], score[inside]))
        for score in (first, second)
    ]
    members, heldout = placed[0][0] - placed[1][0], placed[0][1] - placed[1][1]
    reach = 1.96 * math.sqrt(members.var(ddof=1) / len(members) + heldout.var(ddof=1) / len(heldout))
    if reach == 0:  # both separate perfectly, or are equal: the rule of three
        reach = 1 - 0.05 ** (1 / min(len(members), len(heldout)))
    auc = float(members.mean())
    return {"auc": auc, "interval": [max(auc - reach, -1.0), min(auc + reach, 1.0)]}
