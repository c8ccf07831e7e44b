"""Relations of two sets: rates at frozen thresholds are counts, intervals hold their estimates."""

import numpy as np
import pytest

from sface_jax.privacy import relations
from sface_jax.privacy.relations import Faces
from tests.privacy import leaky

MEMBERS, STRANGERS, MADE = leaky.released(0, leak=0.5)


@pytest.fixture(scope="module")
def within():
    return relations.relate(MEMBERS, MEMBERS, within=True)


def test_rates_are_counts_of_all_comparisons(within):
    thresholds = relations.frozen_thresholds(within)
    assert set(thresholds) == {"1e-2", "1e-3"}  # 63,720 comparisons are too few for 1e-4
    own = MEMBERS.embeddings @ MEMBERS.embeddings.T
    apart = own[np.triu_indices(len(MEMBERS), 1)][
        (MEMBERS.labels[:, None] != MEMBERS.labels)[np.triu_indices(len(MEMBERS), 1)]
    ]
    asked = [threshold for threshold, _ in thresholds.values()]
    cross = relations.relate(MADE, MEMBERS, thresholds=asked)
    scores, same = MADE.embeddings @ MEMBERS.embeddings.T, MADE.labels[:, None] == MEMBERS.labels
    mated, other = relations.match_rates(cross, thresholds), relations.different_label_rates(cross, thresholds)
    for key, (threshold, fmr) in thresholds.items():
        assert fmr == (apart >= threshold).mean() <= float(key)
        assert mated[key]["rate"] == (scores[same] >= threshold).mean()
        assert other[key]["rate"] == (scores[~same] >= threshold).mean()
        assert mated[key]["ratio_to_chance"] == mated[key]["rate"] / fmr
        for found in (mated[key], other[key]):
            assert found["interval"][0] <= found["rate"] <= found["interval"][1]
        assert other[key]["effective"] < other[key]["comparisons"] == (~same).sum()
        assert mated[key]["comparisons"] == mated[key]["comparisons_in_all"] == same.sum()


def test_enough_strangers_freeze_a_threshold_at_1e_4():
    many = leaky.people(3, leaky.centres(3, 100), 9)
    assert "1e-4" in relations.frozen_thresholds(relations.relate(many, many, within=True))


def test_intervals_hold_their_estimates(within):
    found = relations.figures(within, rounds=40)
    for name in relations.WITH_INTERVAL:
        low, high = found[f"{name}_interval"]
        assert low < found[name] < high, name


def test_sets_that_share_no_identity_have_no_mated_figures():
    apart = relations.relate(STRANGERS, MEMBERS)
    assert relations.figures(apart) == {} == relations.match_rates(apart, {"1e-2": (0.5, 0.01)})
    assert relations.different_label_rates(apart, {"1e-2": (0.5, 0.01)})["1e-2"]["comparisons"] == apart.counts.sum()
    assert relations.score_set(mated=apart.scores)["count"] == {}


def test_one_identity_has_no_non_mated_figures():
    one = Faces(MEMBERS.embeddings[:6], MEMBERS.labels[:6])
    alone = relations.relate(one, one, within=True)
    assert relations.figures(alone) == {} == relations.different_label_rates(alone, {"1e-2": (0.5, 0.01)})


def test_score_sets_share_one_grid_of_at_most_100_bins():
    found = relations.score_set(members=np.array([0.1, 0.5]), heldout=(np.array([0.2, 0.9]), np.array([3, 1])))
    assert found["count"] == {"members": 2, "heldout": 4}
    edges = found["histogram"]["edges"]
    assert len(edges) - 1 == len(found["histogram"]["members"]) <= 100
    assert sum(found["histogram"]["heldout"]) == 4
    assert found["mean"]["heldout"] == 0.375


def test_equally_many_pictures_of_each_identity_are_drawn():
    labels = np.repeat([7, 3, 9], [5, 1, 2])
    rows = relations.drawn(labels, 2, np.random.default_rng(0))
    assert sorted(labels[rows].tolist()) == labels[rows].tolist() == [3, 7, 7, 9, 9]
    assert len(set(rows.tolist())) == 5
    assert set(labels[relations.drawn(labels, 9, np.random.default_rng(0), among=np.array([3, 9]))]) == {3, 9}
