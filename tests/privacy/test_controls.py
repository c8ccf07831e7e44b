"""Planted leaks are found; shuffled labels are not linked."""

import numpy as np
import pytest

from sface_jax.privacy import controls, planting, relations
from sface_jax.privacy.attacks.screening import screen
from tests.privacy.crowd import people, unit
from tests.verification import tiny

MEMBERS, OTHERS, FRESH = people(60, 4), people(40, 4, first=100), people(300, 4, first=1000)


def test_edited_pictures_are_other_bytes_of_the_same_scene():
    images = tiny.render(np.arange(3), np.zeros(3, int))
    made = planting.edited(images, seed=1)
    assert made.shape == images.shape and (made != images).any(axis=(1, 2, 3)).all()
    np.testing.assert_array_equal(made[:2], planting.edited(images[:2], seed=1))
    assert (made != planting.edited(images, seed=2)).any()
    apart = np.abs(made.astype(int)[:, None] - images[None]).mean(axis=(2, 3, 4))
    assert (apart.argmin(axis=1) == np.arange(3)).all()


def test_planted_leaks_are_found_by_kind_and_share():
    rng = np.random.default_rng(0)
    images = tiny.render(MEMBERS.labels, np.arange(len(MEMBERS)))
    rows = []

    def look(chosen):
        rows.append(chosen)
        return images[chosen]

    def embed(shown):
        assert (shown != images[rows[-1]]).any(axis=(1, 2, 3)).all()  # it is the edited ones that are embedded
        return unit(MEMBERS.embeddings[rows[-1]] + 0.3 * unit(rng.standard_normal((len(shown), 32))))

    made = controls.plants(MEMBERS, OTHERS, look=look, embed=embed, count=40)
    found = controls.planted(screen(FRESH, MEMBERS, OTHERS), made)
    assert found["background_p_value"] > 0.05 and list(found["kinds"]) == list(planting.KINDS)
    exact, edited, other = found["kinds"].values()
    assert exact["planted"] == exact["rates"]["1e-3"]["found"] == exact["rank1"]["found"] == 40
    assert exact["rates"]["1e-3"]["interval"][0] == pytest.approx(0.025 ** (1 / 40))
    assert exact["near_duplicates"]["rate"] == 1 and other["near_duplicates"] is None
    assert 1 >= edited["rates"]["1e-2"]["tpr"] >= other["rates"]["1e-2"]["tpr"] > 0.5
    assert {key: share["pictures"] for key, share in exact["shares"].items()} == {"1e-2": 12, "1e-3": 1}
    assert exact["shares"]["1e-3"]["share"] == pytest.approx(1 / 1200)
    assert exact["shares"]["1e-2"]["noticed_of"] == [controls.DRAWS, controls.DRAWS]
    assert exact["shares"]["1e-2"]["found"]["1e-2"] == 12 and exact["shares"]["1e-2"]["noticed"]
    assert exact["shares"]["1e-2"]["false_alarms"]["1e-2"] == pytest.approx(12 * 60 / 40)


def test_without_pictures_only_embeddings_are_planted():
    made = controls.plants(MEMBERS, None, unseen=people(60, 1, seed=3), count=1000)
    assert list(made) == ["exact", "other"] and len(made["exact"].people) == 240 and len(made["other"].people) == 60
    assert made["other"].first().mean() > 0.9


def test_shuffled_labels_are_linked_by_chance_only():
    synthetic = people(60, 3, seed=5)
    cross = relations.relate(synthetic, MEMBERS)
    found = controls.shuffled(MEMBERS, synthetic, cross, 0.5)
    assert abs(found["auc"] - 0.5) < 0.1 and found["rate"] == pytest.approx(found["expected_rate"], abs=0.03)
