"""The attacks find what is there, and nothing where there is nothing."""

import numpy as np
import pytest

from sface_jax.privacy import attacks, controls, relations, verdict
from sface_jax.privacy.relations import Faces


def people(seed: int, identities: int, pictures: int, spread: float, first: int = 0, centres=None) -> Faces:
    """Embeddings around one centre an identity."""
    rng = np.random.default_rng(seed)
    centres = rng.standard_normal((identities, 32)) if centres is None else centres
    x = np.repeat(centres, pictures, axis=0) + spread * rng.standard_normal((identities * pictures, 32))
    labels = first + np.repeat(np.arange(identities), pictures)
    return Faces((x / np.linalg.norm(x, axis=1, keepdims=True)).astype(np.float32), labels)


CENTRES = np.random.default_rng(5).standard_normal((30, 32))
MEMBERS = people(1, 30, 8, 0.5, centres=CENTRES)
HELDOUT = people(2, 12, 8, 0.5, first=30)
FAITHFUL = people(3, 30, 6, 0.5, centres=CENTRES)  # synthetic pictures that show the identities they are named after
UNRELATED = people(4, 30, 6, 0.5)  # synthetic pictures of nobody


def audit(synthetic: Faces) -> dict:
    within = relations.relate(MEMBERS, MEMBERS, within=True, tile=100)
    cross = relations.relate(synthetic, MEMBERS, tile=100)
    thresholds = relations.frozen_thresholds(within)
    nearest = [relations.relate(faces, synthetic, top_k=1).matches.top_scores[:, 0] for faces in (MEMBERS, HELDOUT)]
    return {
        "match_rates": {
            "authentic_synthetic": relations.match_rates(cross, thresholds, rounds=200),
            "authentic_synthetic_different": relations.different_label_rates(cross, thresholds),
        },
        "linkage": attacks.label_recovery(synthetic, MEMBERS, cross, rounds=200),
        "membership": attacks.membership(nearest[0], MEMBERS.labels, nearest[1], HELDOUT.labels, rounds=100),
        "controls": {"shuffled": controls.shuffled(MEMBERS, synthetic, cross, thresholds["1e-2"][0])},
        "near_copies": {},
        "figures": relations.figures(cross, rounds=20),
    }


@pytest.fixture(scope="module")
def faithful():
    return audit(FAITHFUL)


def test_faithful_pictures_are_linkable(faithful):
    assert faithful["linkage"]["rank1"]["rate"] > 0.9
    assert faithful["membership"]["identity"]["auc"] > 0.95
    assert faithful["match_rates"]["authentic_synthetic"]["1e-2"]["interval"][0] > 0.5
    low, high = faithful["figures"]["eer_interval"]
    assert low <= faithful["figures"]["eer"] <= high
    decided = verdict.decide(faithful)
    assert decided["level"] == verdict.LINKABLE
    assert "times chance" in decided["findings"][0]["text"]


def test_unrelated_pictures_are_not_and_no_more_is_claimed():
    found = audit(UNRELATED)
    low, high = found["linkage"]["rank1"]["interval"]
    assert low <= found["linkage"]["rank1"]["chance"] <= high
    assert abs(found["membership"]["identity"]["auc"] - 0.5) < 0.25
    decided = verdict.decide(found)
    assert decided["level"] == "not detected by these attacks at this power"
    assert "12 held-out identities" in " ".join(decided["caveats"])


def test_shuffled_labels_score_chance(faithful):
    shuffled = faithful["controls"]["shuffled"]
    assert abs(shuffled["auc"] - 0.5) < 0.05
    assert abs(shuffled["rate"] - shuffled["expected_rate"]) < 0.02


def test_planted_pictures_are_found():
    origins = np.arange(0, len(MEMBERS), 7)
    nearest = relations.relate(MEMBERS, UNRELATED, top_k=1).matches.top_scores[:, 0]
    outside = relations.relate(HELDOUT, UNRELATED, top_k=1).matches.top_scores[:, 0]
    noise = 0.02 * np.random.default_rng(0).standard_normal((len(origins), 32)).astype(np.float32)
    found = controls.planted(MEMBERS.embeddings[origins] + noise, origins, MEMBERS, nearest, outside)
    assert found["found"] == found["planted"] == len(origins)
    assert found["membership_auc"] == 1


def test_near_copies_differ_in_their_bytes_but_not_to_the_eye():
    image = np.random.default_rng(0).integers(0, 256, (2, 8, 8, 3), dtype=np.uint8)
    copy = controls.near_copies(image)
    assert copy.dtype == np.uint8 and (copy != image).mean() > 0.9
    np.testing.assert_allclose(copy[:, :, 1:], 127.5 + 0.95 * (image[:, :, :-1] - 127.5), atol=0.5)


def test_the_threshold_at_1e_4_needs_enough_strangers():
    assert set(relations.frozen_thresholds(relations.relate(MEMBERS, MEMBERS, within=True))) == {"1e-2", "1e-3"}
    many = people(9, 100, 8, 0.5)
    assert "1e-4" in relations.frozen_thresholds(relations.relate(many, many, within=True))


def test_score_sets_share_one_grid_of_at_most_100_bins():
    found = relations.score_set(members=np.array([0.1, 0.5]), heldout=(np.array([0.2, 0.9]), np.array([3, 1])))
    assert found["count"] == {"members": 2, "heldout": 4}
    edges = found["histogram"]["edges"]
    assert len(edges) - 1 == len(found["histogram"]["members"]) <= 100
    assert sum(found["histogram"]["heldout"]) == 4
    assert found["mean"]["heldout"] == 0.375
