"""Searches in galleries against their definitions written out as loops."""

import json
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sface_jax.core.errors import UserError
from sface_jax.data.ijb import Enrolment
from sface_jax.verification import identification

PROBES, GALLERY = 24, 12


def drawn(seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Probes and gallery of whole numbers, so that scores are exact and tied, and their subjects."""
    rng = np.random.default_rng(seed)
    probes, gallery = (rng.integers(-2, 3, (n, 3)).astype(np.float32) for n in (PROBES, GALLERY))
    subjects = rng.permutation(20) * 3
    # six subjects always, so that there is one program
    enrolled = rng.permutation(np.append(subjects[:6], rng.choice(subjects[:6], GALLERY - 6)))
    return probes, gallery, rng.choice(subjects[: rng.integers(6, 20)], PROBES), enrolled


def searched_by_loops(probes, gallery, probe_subjects, gallery_subjects):
    for probe, subject in zip(probes, probe_subjects, strict=True):
        best = {s: max(probe @ row for row in gallery[gallery_subjects == s]) for s in set(gallery_subjects.tolist())}
        mate = best.pop(int(subject), -math.inf)
        yield mate, max(best.values()), 1 + sum(score >= mate for score in best.values())


@settings(max_examples=100, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), at_once=st.sampled_from([5, 24]))
def test_searches_and_their_rates(seed, at_once):
    probes, gallery, probe_subjects, gallery_subjects = drawn(seed)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(identification, "_AT_ONCE", at_once)
        found = identification.search(probes, gallery, probe_subjects, gallery_subjects)
    mate, other, rank = map(
        np.array, zip(*searched_by_loops(probes, gallery, probe_subjects, gallery_subjects), strict=True)
    )
    mated = np.isin(probe_subjects, gallery_subjects)
    np.testing.assert_array_equal(found.mated, mated)
    np.testing.assert_array_equal(found.mate, mate)
    np.testing.assert_array_equal(found.other, other)
    np.testing.assert_array_equal(found.rank[mated], rank[mated])
    if not mated.any():
        return
    rates = identification.of_gallery(found, [0.1, 0.5])
    assert rates["rank_5"] == rates["cmc"][4] == (rank[mated] <= 5).mean()
    if mated.all():
        assert rates["open_set"] is None
        return
    for wanted, name in ((0.1, "1e-1"), (0.5, "5e-1")):
        every = np.append(np.unique(np.concatenate([mate, other])), np.inf)
        # of non-mated searches alone, in whole numbers: the lowest threshold that is strict enough
        threshold = min(t for t in every if (other[~mated] >= t).sum() <= math.floor(wanted * (~mated).sum()))
        at = rates["open_set"][name]
        assert at["false_positives"] == (other[~mated] >= threshold).sum()
        assert at["fpir"] == at["false_positives"] / (~mated).sum() <= wanted
        assert at["fnir_any_rank"] == (mate[mated] < threshold).mean()
        assert at["fnir_rank_1"] == ((mate[mated] < threshold) | (rank[mated] > 1)).mean()


@settings(max_examples=50, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), at_once=st.sampled_from([7, 24]))
def test_figures_of_the_published_script(seed, at_once):
    rng = np.random.default_rng(seed)
    rows = rng.standard_normal((GALLERY + PROBES, 4), dtype=np.float32)
    enrolled = rng.permutation(GALLERY).astype(np.int32)
    galleries = [Enrolment(np.arange(k, GALLERY, 2, dtype=np.int32), enrolled[k::2]) for k in (0, 1)]
    probes = Enrolment(np.arange(GALLERY, GALLERY + PROBES, dtype=np.int32), rng.choice(enrolled, PROBES))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(identification, "_AT_ONCE", at_once)
        found = identification.published(rows, galleries, probes)

    scores = rows[GALLERY:] @ rows[:GALLERY].T
    mate = [int(np.flatnonzero(enrolled == subject)[0]) for subject in probes.subjects]
    ranked = np.argsort(-scores, axis=1)
    for k in (1, 5, 10):
        assert found[f"top_{k}"] == np.mean([mate[i] in ranked[i, :k] for i in range(PROBES)])
    own = scores[np.arange(PROBES), mate]
    others = np.sort([scores[i, j] for i in range(PROBES) for j in range(GALLERY) if j != mate[i]])[::-1]
    for rate, name in ((0.01, "1e-2"), (0.1, "1e-1")):
        threshold = others[math.ceil(PROBES * rate) - 1]
        at = found["tpir_at_fpir"][name]
        np.testing.assert_allclose(at["threshold"], threshold, atol=1e-6)
        assert at["tpir"] == (own > threshold).mean()


def enrolment(templates, subjects) -> Enrolment:
    return Enrolment(np.array(templates, np.int32), np.array(subjects, np.int32))


def test_measures_galleries_and_their_mean(caplog):
    rng = np.random.default_rng(0)
    people = np.tile(np.arange(20), 4)
    rows = rng.standard_normal((20, 16), dtype=np.float32)[people] + 0.8 * rng.standard_normal(
        (80, 16), dtype=np.float32
    )
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    galleries = {"G1": enrolment(range(10), people[:10]), "G2": enrolment(range(10, 20), people[10:20])}
    probes = enrolment(range(20, 80), people[20:])
    found = identification.measure(rows, galleries, probes, rates=(0.1,))
    assert json.loads(json.dumps(found, allow_nan=False)) == found
    one, two = (found["galleries"][name] for name in ("G1", "G2"))
    assert one["mated_searches"] == one["non_mated_searches"] == 30 and one["subjects"] == one["templates"] == 10
    assert found["mean"]["rank_1"] == (one["rank_1"] + two["rank_1"]) / 2 and 0.5 < found["mean"]["rank_1"] < 1
    assert len(found["mean"]["cmc"]) == identification.RANKS and found["mean"]["cmc"][-1] == 1
    of_both = [at["open_set"]["1e-1"]["fnir_rank_1"] for at in (one, two)]
    assert found["mean"]["open_set"]["1e-1"]["fnir_rank_1"] == pytest.approx(np.mean(of_both))
    assert found["published"]["top_1"] <= found["mean"]["rank_1"]  # twice as many candidates

    closed = {"all": enrolment(range(20), people[:20])}
    again = identification.measure(rows, closed, probes)
    assert again["galleries"]["all"]["open_set"] is None and again["mean"]["open_set"] is None
    twice = {"all": enrolment(range(40), people[:40])}
    assert identification.measure(rows, twice, enrolment(range(40, 80), people[40:]))["published"] is None
    with pytest.raises(UserError, match="no probe has its subject in gallery G2"):
        identification.measure(rows, galleries | {"G2": enrolment([0], [999])}, probes)
