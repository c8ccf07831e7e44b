"""Linkage finds whose pictures they are, and says what chance would find."""

import numpy as np
import pytest

from sface_jax.privacy import pooled
from sface_jax.privacy.attacks import linkage
from sface_jax.privacy.relations import Faces, relate
from tests.privacy import leaky


def test_faithful_pictures_are_linked_and_pooling_helps():
    members, _, made = leaky.released(0, leak=0.5)
    found = linkage.linkage(made, members)
    assert (found["probes"], found["enrolled"], found["without_mate"]) == (60, 60, 0)
    assert set(found["pooled"]) == {"1", "all"}  # nobody has more than ten pictures, so "10" would be "all"
    one, every = (found["pooled"][name]["mean"] for name in ("1", "all"))
    assert found["single"]["rank1"]["interval"][0] > 5 * found["single"]["rank1"]["chance"]
    assert every["rank1"]["rate"] > one["rank1"]["rate"] > 5 / 60
    assert every["rank1"]["rate"] <= every["rank10"]["rate"] and every["rank10"]["chance"] == 10 / 60
    open_set = every["open_set"]["1e-1"]
    assert open_set["fpir"] <= 0.1 and open_set["false_positives"] == 6 and not open_set["supported"]
    assert open_set["fnir"] < open_set["interval"][1] < open_set["chance_fnir"]
    assert "1e-2" not in every["open_set"]  # 60 searches cannot show it


def test_open_set_counts_what_comes_first_and_above_the_threshold():
    searches = pooled.IdentityMatches(
        identities=np.arange(10),
        own=np.array([0.9, 0.9, 0.7, 0.2, 0.2, 0.2, 0.2, 0.2, 0.2, 0.2], np.float32),
        other=np.array([0.1, 0.95, 0.6, 0.3, 0.3, 0.3, 0.3, 0.3, 0.3, 0.3], np.float32),
        rank=np.array([1, 2, 1] + [2] * 7),
        top_identities=np.zeros((10, 1), int),
        top_scores=np.zeros((10, 1), np.float32),
    )
    members = Faces(np.eye(10, dtype=np.float32), np.arange(10))
    found = linkage.identification(searches, members)
    assert found["rank1"]["accepted"] == 2
    open_set = found["open_set"]["1e-1"]
    assert open_set["false_positives"] == 1 and open_set["threshold"] == pytest.approx(0.7)
    assert open_set["fnir"] == 0.8
    assert open_set["chance_fnir"] == pytest.approx(1 - 3 / 10 / 10)


def test_synthetic_identities_without_a_member_are_told():
    members, _, made = leaky.released(1, leak=0.5)
    some = Faces(members.embeddings[members.labels < 40], members.labels[members.labels < 40])
    found = linkage.linkage(made, some)
    assert (found["probes"], found["enrolled"], found["without_mate"]) == (40, 40, 20)
    assert linkage.linkage(Faces(made.embeddings, made.labels + 100), members) == {}


def test_chance_is_the_rate_of_labels_dealt_at_random():
    members, _, made = leaky.released(2, leak=0.0)
    relation, rng = relate(made, members), np.random.default_rng(0)
    rates = []
    for _ in range(100):
        dealt = Faces(made.embeddings, rng.permutation(60)[made.labels])
        found = linkage.label_recovery(dealt, members, relation)
        rates.append([found[f"rank{rank}"]["rate"] for rank in linkage.RANKS])
    np.testing.assert_allclose(np.mean(rates, 0), [found[f"rank{rank}"]["chance"] for rank in linkage.RANKS], rtol=0.15)
