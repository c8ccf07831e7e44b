"""A network that learned people tells them from others; one that did not does not."""

import numpy as np
import pytest
from etils import epath
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from sface_jax.core.checkpoint import Checkpoints
from sface_jax.privacy import metrics
from sface_jax.privacy.attacks import released
from sface_jax.privacy.relations import Faces

MEMBERS, HELDOUT, WIDTH = 60, 40, 24


def sees(seed: int, learned: float = 0.0, pictures: int = 6, members: int = MEMBERS) -> released.View:
    """A network's view: people differ in how alike their pictures are; what was learned makes members' more so."""
    rng = np.random.default_rng(seed)
    spread = np.random.default_rng(0).uniform(0.5, 1.0, members + HELDOUT)  # the same people for every network
    spread[:members] *= 1 - learned
    centres = np.random.default_rng(1).standard_normal((members + HELDOUT, WIDTH))
    labels = np.repeat(np.arange(members + HELDOUT), pictures)
    x = centres[labels] + spread[labels, None] * rng.standard_normal((len(labels), WIDTH))
    x = (x / np.linalg.norm(x, axis=1, keepdims=True)).astype(np.float32)
    inside = labels < members
    return released.View(Faces(x[inside], labels[inside]), Faces(x[~inside], labels[~inside]))


def test_what_was_learned_is_found_and_what_was_not_is_not():
    networks = {"authentic": sees(2, 0.4), "distillation": sees(3, 0.2), "classification": sees(4)}
    found = released.released(networks, sees(5))
    student, control, blind = (found["networks"][name] for name in ("distillation", "authentic", "classification"))
    assert found["control"] == {"network": "authentic", "found": True}
    assert 0.5 < student["interval"][0] and student["auc"] < control["auc"]
    assert blind["interval"][0] < 0.5 < blind["interval"][1] and not blind["difference"]
    assert student["difference"]["to"] == "classification" and student["difference"]["interval"][0] > 0
    assert student["difference"]["auc"] == pytest.approx(student["auc"] - blind["auc"])
    assert found["identities"] == {"members": MEMBERS, "heldout": HELDOUT} and found["tried"] == 3


def test_calibration_takes_away_that_some_people_are_easier():
    raw = sees(2, 0.15)
    found = released.released({"student": raw}, sees(5))["networks"]["student"]["attacks"]["compactness"]["auc"]
    faces, inside = np.concatenate([raw.members.embeddings, raw.heldout.embeddings]), np.arange(100) < MEMBERS
    groups = faces.reshape(100, 6, WIDTH)
    compact = np.einsum("gid,gjd->g", groups, groups)
    assert found > metrics.auc(compact[inside], compact[~inside]) + 0.05


def test_classifier_rows_are_an_attack_where_they_are_known():
    view = sees(2, 0.4)
    rows = np.array([view.members.embeddings[view.members.labels == i].mean(0) for i in range(MEMBERS)])
    known = released.View(view.members, view.heldout, rows.astype(np.float32))
    found = released.released({"authentic": known}, sees(5))
    assert found["networks"]["authentic"]["attacks"]["class_centre"]["auc"] > 0.95 and found["tried"] == 4


def test_identities_with_one_picture_are_left_out_and_counted():
    view = sees(2)
    alone = Faces(np.concatenate([view.heldout.embeddings, np.eye(1, WIDTH, dtype=np.float32)]),
                  np.append(view.heldout.labels, 999))  # fmt: skip
    one = released.View(view.members, alone)
    assert released.released({"x": one}, one)["left_out"] == 1
    single = released.View(view.members, Faces(alone.embeddings[-1:], alone.labels[-1:]))
    assert released.released({"x": single}, single) == {}


@settings(max_examples=30, deadline=None)
@given(arrays.arrays(np.float64, (2, 12), elements=st.integers(0, 5).map(float)))
def test_the_paired_difference_is_that_of_the_areas(scores):
    inside = np.arange(12) < 7
    first, second = scores
    found = released.paired_difference(first, second, inside)
    areas = [metrics.auc(score[inside], score[~inside]) for score in scores]
    assert found["auc"] == pytest.approx(areas[0] - areas[1])
    low, high = found["interval"]
    assert -1 <= low <= found["auc"] + 1e-12 and found["auc"] - 1e-12 <= high <= 1
    back = released.paired_difference(second, first, inside)
    np.testing.assert_allclose([-back["interval"][1], -back["interval"][0]], [low, high], atol=1e-12)


def test_the_paired_interval_covers():
    """Two noisy looks at the same people, of equal strength: the difference is 0 in 95 % of the cases or so."""
    rng, inside, hits = np.random.default_rng(0), np.arange(80) < 50, 0
    for _ in range(300):
        shared = rng.standard_normal(80) + inside
        low, high = released.paired_difference(*(shared + rng.standard_normal((2, 80))), inside)["interval"]
        hits += low <= 0 <= high
    assert 0.91 < hits / 300 < 0.985


def test_the_classifier_is_read_without_the_rows_that_fill_it_up(tmp_path):
    rows = np.zeros((4, 3), np.float32)
    rows[:3] = np.eye(3)
    for name, head in (("with", {"head": {"weight": rows}}), ("without", {})):
        checkpoints = Checkpoints(epath.Path(tmp_path) / name / "checkpoints")
        checkpoints.save(1, {"params": {"backbone": {"w": np.ones(2, np.float32)}, **head}})
        checkpoints.close()
    np.testing.assert_array_equal(released.class_centres(str(tmp_path / "with")), np.eye(3))
    assert released.class_centres(str(tmp_path / "without")) is None
    assert released.class_centres(str(tmp_path / "weights.pth")) is None
