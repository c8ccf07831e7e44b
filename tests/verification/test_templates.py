"""Templates: pooling, comparison and rates against their definitions written out as loops."""

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sface_jax.core.errors import UserError
from sface_jax.verification import curves, templates
from tests.verification.test_curves import tied_scores


def unit(rows: np.ndarray) -> np.ndarray:
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def pooled_by_loops(embeddings, template, media):
    """The published convention, in double precision: mean within a medium, sum over media, length one."""
    rows = []
    for number in np.unique(template):
        of = template == number
        means = [embeddings[of & (media == medium)].mean(0, dtype=np.float64) for medium in np.unique(media[of])]
        rows.append(np.sum(means, axis=0))
    return unit(np.array(rows))


@settings(max_examples=100, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), norms=st.booleans(), scores=st.booleans())
def test_pooling_is_the_published_one(seed, norms, scores):
    rng = np.random.default_rng(seed)
    count = rng.integers(1, 200)
    template, media = 7 * rng.integers(0, rng.integers(1, 40), count), rng.integers(0, rng.integers(1, 6), count)
    embeddings = rng.standard_normal((count, 16), dtype=np.float32) * rng.uniform(1, 30, (count, 1)).astype(np.float32)
    weights = rng.uniform(0.1, 1, count).astype(np.float32) if scores else None
    rows = embeddings if norms else unit(embeddings)
    expected = pooled_by_loops(rows if weights is None else rows * weights[:, None], template, media)
    found = templates.pool(embeddings, template, media, weights, norm_weighting=norms)
    np.testing.assert_allclose(found, expected, atol=1e-6)
    order = rng.permutation(count)
    again = templates.pool(
        embeddings[order],
        template[order],
        media[order],
        weights if weights is None else weights[order],
        norm_weighting=norms,
    )
    np.testing.assert_allclose(again, found, atol=1e-6)


def test_pooling_keeps_zeros_and_refuses_what_is_not_finite():
    embeddings = np.ones((3, 4), np.float32)
    template, media = np.array([2, 1, 1]), np.array([0, 0, 1])
    found = templates.pool(embeddings, template, media, np.array([0.0, 1, 1]))
    np.testing.assert_array_equal(found, [[0.5] * 4, [0] * 4])
    embeddings[1, 2] = np.nan
    with pytest.raises(UserError, match="1 of 2 templates have an embedding or a weight that is not finite"):
        templates.pool(embeddings, template, media)


@pytest.mark.parametrize("ordered", [True, False])
def test_scores_are_cosines_of_the_pairs(monkeypatch, ordered):
    monkeypatch.setattr(templates, "_ROWS", 4)
    monkeypatch.setattr(templates, "_COLUMNS", 16)
    rng = np.random.default_rng(0)
    rows = unit(rng.standard_normal((50, 16), dtype=np.float32))
    first, second = rng.integers(0, 50, (2, 300))
    if ordered:
        first.sort()
    scores = templates.score_pairs(rows, first, second)
    np.testing.assert_allclose(scores, (rows[first] * rows[second]).sum(1), atol=1e-6)
    assert scores.dtype == np.float32
    np.testing.assert_array_equal(templates.score_pairs(rows, first[:1], second[:1]).shape, [1])


@settings(max_examples=300, deadline=None)
@given(seed=st.integers(0, 2**32 - 1))
def test_points_of_the_published_evaluator(seed):
    roc_curve = pytest.importorskip("sklearn.metrics").roc_curve
    mated, non_mated = tied_scores(seed, most=400)
    rates = (*templates.RATES, 1 / 3, 0.5)
    same = np.repeat([True, False], [len(mated), len(non_mated)])
    fpr, tpr, thresholds = (x[::-1] for x in roc_curve(same, np.concatenate([mated, non_mated])))
    found = templates.nearest_on_roc(curves.operating_points(mated, non_mated), rates)
    for i, rate in enumerate(rates):
        _, nearest = min((abs(reached - rate), place) for place, reached in enumerate(fpr))
        assert found.fmr[i] == fpr[nearest] and found.tmr[i] == tpr[nearest]
        assert found.thresholds[i] == thresholds[nearest]


def test_measures_a_whole_protocol():
    rng = np.random.default_rng(0)
    people = np.arange(60) % 20
    rows = rng.standard_normal((20, 16), dtype=np.float32)[people]
    rows = unit(rows + 0.7 * rng.standard_normal(rows.shape, dtype=np.float32))
    first, second = np.triu_indices(60, 1)
    same = people[first] == people[second]
    found = templates.measure(rows, first, second, same, rates=(1e-6, 0.1))
    assert json.loads(json.dumps(found, allow_nan=False)) == found
    assert (found["pairs"], found["mated"], found["non_mated"]) == (1770, 60, 1710)
    assert found["templates"] == 60 and found["failed_templates"] == 0
    scores = (rows[first] * rows[second]).sum(1)
    tenth, none = found["exact"]["1e-1"], found["exact"]["1e-6"]
    assert tenth["false_matches"] == 171 and tenth["supported"] and tenth["fmr"] == 0.1
    np.testing.assert_allclose(tenth["tmr"], (scores[same] >= tenth["threshold"] - 1e-6).mean())
    assert none["false_matches"] == 0 and not none["supported"] and none["tmr"] < 1
    assert set(found["published"]) == {"1e-6", "1e-1"}
    assert found["published"]["1e-1"]["fmr"] == pytest.approx(0.1, abs=0.02)  # no point of the curve is nearer
    assert 0 < found["eer"] < 0.2
    assert found["roc"]["fmr"][0] == 0 and found["roc"]["fmr"][-1] == found["roc"]["tmr"][-1] == 1

    rows[3] = 0
    assert templates.measure(rows, first, second, same)["failed_templates"] == 1
    nothing = templates.measure(np.ones((4, 1), np.float32), np.arange(4), np.arange(4), np.arange(4) < 2)
    assert nothing["exact"]["1e-1"] == {
        "tmr": 0.0,
        "fmr": 0.0,
        "threshold": None,
        "false_matches": 0,
        "supported": False,
    }
    with pytest.raises(UserError, match="check the list of pairs"):
        templates.measure(rows, first, second, np.ones(1770, bool))
    rows[3, 1] = np.nan
    with pytest.raises(UserError, match="1 of 60 templates have an embedding that is not finite"):
        templates.measure(rows, first, second, same)
