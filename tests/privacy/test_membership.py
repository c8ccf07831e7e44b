"""Membership attacks find members where the generator knows them, and bounds on epsilon are bounds."""

import math

import numpy as np
import pytest

from sface_jax.privacy.attacks import membership
from sface_jax.privacy.relations import Faces
from tests.privacy import leaky


@pytest.fixture(scope="module")
def known():
    members, heldout, made = leaky.released(0, leak=0.9)
    unseen = leaky.people(9, leaky.centres(0, 60), 2)
    return membership.membership(members, heldout, made, unseen=unseen, rounds=99)


def test_members_of_a_generator_that_knows_them_are_found(known):
    for unit, name in membership.PRIMARY.items():
        assert known[unit]["interval"][0] > 0.6
        assert known[unit]["auc"] == known["attacks"][name]["auc"]
    assert known["tried"] == len(membership.ATTACKS) == len(known["attacks"])
    for found in known["attacks"].values():
        assert found["p_value"] == 0.01 and found["p_adjusted"] == pytest.approx(0.07)
        assert found["interval"][0] <= found["auc"] <= found["interval"][1]
    assert known["members"] == {"identities": 60, "pictures": 360}
    assert known["identity"]["operating"]["1e-1"]["false_positives"] == 3
    assert set(known["picture"]["tpr_at_fpr"]) == {"1e-1", "1e-2"}
    assert 0 < known["epsilon"]["epsilon"] <= known["epsilon"]["largest_measurable"]


def test_people_are_known_here_but_not_pictures(known):
    low, high = known["memorised"]["interval"]
    assert low < 0.5 < high
    assert known["memorised"]["pictures"] == {"seen": 360, "unseen": 120}


def test_memorised_pictures_are_found():
    labels = np.repeat(np.arange(30), 4)
    person = np.random.default_rng(0).standard_normal(30)[labels]  # people differ more than seen and unseen pictures
    found = membership.memorised(person + 0.1, labels, person, labels)
    assert found["auc"] == 1 and found["interval"][0] > 0.85
    assert membership.memorised(person, labels, person, labels + 50) == {}


def test_no_picture_meets_its_own_identity_in_the_cohort():
    eye = np.eye(24, dtype=np.float32)  # each identity is alike to itself alone
    members, heldout = Faces(eye[:16], np.arange(16)), Faces(eye[16:], np.arange(16, 24))
    found, cohort = membership.difficulty({"members": members, "heldout": heldout})
    assert all((part == 0).all() for part in found.values())
    assert cohort["folds"] == 5 and cohort["identities"] == cohort["pictures"] == 12


def test_one_identity_on_a_side_is_no_test():
    members, heldout, made = leaky.released(0, leak=0.9)
    one = Faces(heldout.embeddings[:6], heldout.labels[:6])
    assert membership.membership(members, one, made) == {}


def test_changing_sides_is_what_the_p_value_counts():
    rng = np.random.default_rng(0)
    labels = np.repeat(np.arange(20), 5)
    person = rng.standard_normal(20)[labels]  # pictures of one person are as good as one
    p_values = [
        membership.judge(person[chosen], labels[chosen], person[~chosen], labels[~chosen], rounds=49, seed=i)
        for i in range(40)
        for chosen in [np.isin(labels, rng.permutation(20)[:8])]
    ]
    for unit in ("picture", "identity"):
        assert np.mean([found[unit]["p_value"] <= 0.2 for found in p_values]) < 0.4
    both = membership.judge(person + 1e-3, labels, person, labels, rounds=99)  # the same people on both sides
    assert both["picture"]["auc"] == pytest.approx(0.5, abs=0.03) and both["identity"]["p_value"] == 0.01


def test_epsilon_of_full_separation_is_the_largest_measurable():
    found = membership.epsilon_lower_bound(np.full(200, 1.0), np.zeros(60))
    low, high = 0.025 ** (1 / 100), 1 - 0.025 ** (1 / 30)
    other = math.log(0.025 ** (1 / 30) / (1 - 0.025 ** (1 / 100)))
    assert found["largest_measurable"] == pytest.approx(max(math.log(low / high), other))
    assert found["epsilon"] == pytest.approx(found["largest_measurable"])
    assert membership.epsilon_lower_bound(np.ones(1), np.zeros(60)) == {}


def test_epsilon_of_randomised_response_is_seldom_exceeded():
    rng, true = np.random.default_rng(0), 1.0
    honest = math.exp(true) / (1 + math.exp(true))
    bounds = [
        membership.epsilon_lower_bound(*(rng.random((2, 300)) < [[honest], [1 - honest]]).astype(float), seed=i)[
            "epsilon"
        ]
        for i in range(40)
    ]
    assert np.mean(np.array(bounds) > true) <= 0.1
    assert np.mean(bounds) > 0.3
