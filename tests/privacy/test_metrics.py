"""Error rates: parity with reference numbers, and properties that hold for any scores."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from sface_jax.privacy import metrics

FIXTURE = Path(__file__).parents[3] / "shared/fixtures/recognition/privacy.npz"
RANKED = ("eer", "eer_nearest", "fmr100", "fmr1000", "fmr10000", "auc")

scores = hnp.arrays(np.float64, st.integers(1, 60), elements=st.integers(-20, 20).map(lambda x: x / 20))


@pytest.mark.skipif(not FIXTURE.exists(), reason=f"reference numbers are not at {FIXTURE}")
@pytest.mark.parametrize("case", ["", "small__"])
def test_parity_with_reference(case):
    reference = np.load(FIXTURE)
    found = metrics.verification_metrics(reference[f"{case}genuine"], reference[f"{case}impostor"])
    same_name = [name for name in found if f"{case}{name}" in reference]
    assert {"eer", "fmr100", "fmr1000", "fmr10000", "fdr", "auc", "eer_nearest_threshold"} <= set(same_name)
    for name in same_name:
        np.testing.assert_allclose(found[name], reference[f"{case}{name}"], rtol=0, atol=1e-9, err_msg=name)
    np.testing.assert_allclose(found["d_sys"], reference[f"{case}dsys"], atol=1e-9)
    np.testing.assert_allclose(found["mean_mated"], reference[f"{case}mean_genuine"], atol=1e-9)
    np.testing.assert_allclose(found["std_non_mated"] ** 2, reference[f"{case}var_impostor"], atol=1e-9)


@settings(max_examples=50, deadline=None)
@given(mated=scores, non_mated=scores)
def test_definitions_on_small_samples(mated, non_mated):
    found = metrics.verification_metrics(mated, non_mated)
    above = (mated[:, None] > non_mated).mean() + (mated[:, None] == non_mated).mean() / 2
    np.testing.assert_allclose(found["auc"], above, atol=1e-12)
    thresholds = np.append(np.unique(np.concatenate([mated, non_mated])), np.inf)
    allowed = [t for t in thresholds if (non_mated >= t).sum() * 100 <= len(non_mated)]
    np.testing.assert_allclose(found["fmr100"], min((mated < t).mean() for t in allowed), atol=1e-12)
    assert 0 <= found["eer"] <= 1 and 0 <= found["d_sys"] <= 1 + 1e-9
    np.testing.assert_allclose(metrics.auc(non_mated, mated), 1 - found["auc"], atol=1e-12)
    swapped = metrics.verification_metrics(-non_mated, -mated)
    np.testing.assert_allclose(swapped["eer"], found["eer"], atol=1e-12)


@settings(max_examples=30, deadline=None)
@given(mated=scores, non_mated=scores)
def test_ranks_alone_decide_error_rates(mated, non_mated):
    before = metrics.verification_metrics(mated, non_mated)
    after = metrics.verification_metrics(np.exp(3 * mated), np.exp(3 * non_mated))
    for name in RANKED:
        assert before[name] == after[name], name
    moved = metrics.verification_metrics(5 + 3 * mated, 5 + 3 * non_mated)
    np.testing.assert_allclose(moved["fdr"], before["fdr"], rtol=1e-6, atol=1e-9)


@settings(max_examples=30, deadline=None)
@given(mated=scores, non_mated=scores)
def test_separated_samples_have_no_error(mated, non_mated):
    found = metrics.verification_metrics(mated + 2.5, non_mated)
    assert found["auc"] == 1 and found["eer"] == 0 and found["fmr10000"] == 0
    fmr, fnmr = metrics.det_curve(mated + 2.5, non_mated)
    assert np.any((fmr == 0) & (fnmr == 0))


@settings(max_examples=30, deadline=None)
@given(mated=scores, non_mated=scores, seed=st.integers(0, 100))
def test_counts_stand_for_repeated_scores(mated, non_mated, seed):
    rng = np.random.default_rng(seed)
    m, n = rng.integers(1, 4, len(mated)), rng.integers(1, 4, len(non_mated))
    counted = metrics.verification_metrics(mated, non_mated, mated_counts=m, non_mated_counts=n)
    repeated = metrics.verification_metrics(np.repeat(mated, m), np.repeat(non_mated, n))
    for name, value in repeated.items():
        np.testing.assert_allclose(counted[name], value, rtol=1e-9, atol=1e-9, err_msg=name)


def test_shuffled_labels_put_d_sys_at_its_null():
    rng = np.random.default_rng(0)
    mated, non_mated = rng.normal(0, 1, 500), rng.normal(0, 1, 5000)
    null = metrics.d_sys_null(mated, non_mated)
    assert metrics.d_sys(mated, non_mated) < 1.5 * null["p95"]
    assert metrics.d_sys(mated + 1, non_mated) > 2 * null["p95"]


def test_threshold_at_fmr_is_the_lowest_allowed():
    scores = np.arange(1000) / 1000
    threshold, reached = metrics.threshold_at_fmr(scores, 1e-2)
    assert threshold == 0.99 and reached == 0.01
    assert metrics.threshold_at_fmr(np.zeros(10), 1e-2) == (np.inf, 0)


def test_match_rate_counts_identities_not_comparisons():
    identities = np.repeat(np.arange(20), 50)
    clustered = metrics.match_rate((identities < 4).astype(float), identities, 0.5)  # whole identities match
    spread = metrics.match_rate(np.tile([1.0, 0, 0, 0, 0], 200), identities, 0.5)
    assert clustered["rate"] == spread["rate"] == 0.2 and clustered["accepted"] == 200
    assert clustered["effective"] == 20 and spread["effective"] == 1000
    assert clustered["interval"] == list(metrics.clopper_pearson(4, 20))
    assert spread["interval"] == list(metrics.clopper_pearson(200, 1000))
    never = metrics.match_rate(np.zeros(1000), identities, 0.5)
    assert never["interval"] == [0, pytest.approx(1 - 0.025 ** (1 / 20))]


def test_exact_intervals_of_independent_trials():
    # R: binom.test(3, 60)$conf.int, binom.test(1, 1000, conf.level = 0.99)$conf.int
    np.testing.assert_allclose(metrics.clopper_pearson(3, 60), [0.010432329644, 0.139243246721], rtol=1e-9)
    np.testing.assert_allclose(metrics.clopper_pearson(1, 1000, 0.99), [5.012529261e-06, 0.007406287], rtol=1e-6)
    assert metrics.clopper_pearson(1e-5, 100)[0] < 1e-299  # less than a float can tell from 0
    np.testing.assert_allclose(metrics.clopper_pearson(0, 60), [0, 1 - 0.025 ** (1 / 60)], rtol=1e-9)
    np.testing.assert_allclose(metrics.clopper_pearson(60, 60), [0.025 ** (1 / 60), 1], rtol=1e-9)
    np.testing.assert_allclose(metrics.clopper_pearson(2e6, 8e6), 0.25 + 3e-4 * np.array([-1, 1]), rtol=1e-5)
    with pytest.raises(ValueError, match="no more hits than trials: 2 of 1"):
        metrics.clopper_pearson(2, 1)


@settings(max_examples=30, deadline=None)
@given(a=st.floats(0.05, 1e4), b=st.floats(0.05, 1e4), share=st.floats(0.001, 0.999))
def test_beta_quantiles_are_mirrored(a, b, share):
    x = metrics.beta_quantile(share, a, b)
    np.testing.assert_allclose(1 - metrics.beta_quantile(1 - share, b, a), x, rtol=1e-6, atol=1e-9)
    np.testing.assert_allclose(metrics.beta_quantile(share, a, 1.0), share ** (1 / a), rtol=1e-9)


def test_student_quantiles():
    found = [metrics.student_quantile(0.975, freedom) for freedom in (1, 2, 10, 1e6)]
    np.testing.assert_allclose(found, [12.7062047364, 4.30265272991, 2.22813885196, 1.95996635682], rtol=1e-8)


def test_clustered_rates_are_covered():
    rng, truth, correlation = np.random.default_rng(0), 0.02, 0.4
    rates = rng.beta(truth * (1 / correlation - 1), (1 - truth) * (1 / correlation - 1), (200, 60))
    intervals = [metrics.proportion(hits, np.full(60, 30))[2] for hits in rng.binomial(30, rates)]
    assert np.mean([low <= truth <= high for low, high in intervals]) >= 0.93


@pytest.mark.parametrize("area", [0.5, 0.9])
def test_areas_of_clustered_scores_are_covered(area):
    rng, shift = np.random.default_rng(1), 2**0.5 * metrics.NormalDist().inv_cdf(area)
    ids = np.repeat(np.arange(60), 5)
    inside, outside = ids[:200], ids[200:]
    found = []
    for _ in range(100):
        person, picture = rng.standard_normal(60)[ids], rng.standard_normal(300)
        scores = 0.8 * person + 0.6 * picture
        found.append(metrics.auc_interval(scores[:200] + shift, inside, scores[200:], outside))
    assert np.mean([low <= area <= high for low, high in found]) == pytest.approx(0.95, abs=0.06)


def test_sides_that_are_fully_apart_leave_the_doubt_of_their_size():
    low, high = metrics.auc_interval(np.ones(40), np.arange(40), np.zeros(20), np.arange(40, 60))
    assert (low, high) == (pytest.approx(0.025 ** (1 / 20)), 1)
    assert metrics.auc_interval(np.ones(4), np.zeros(4, int), np.zeros(20), np.arange(1, 21)) == [0, 1]


def test_an_identity_on_both_sides_is_not_counted_as_two():
    rng, ids = np.random.default_rng(0), np.arange(50)
    person = rng.standard_normal(50)
    scores = person + 0.1 * rng.standard_normal((2, 50))
    paired = metrics.auc_interval(scores[0], ids, scores[1], ids)
    apart = metrics.auc_interval(scores[0], ids, scores[1], ids + 50)
    assert np.diff(paired) < np.diff(apart) / 3


def test_an_empty_sample_is_refused():
    with pytest.raises(ValueError, match="at least one mated and one non-mated"):
        metrics.verification_metrics(np.zeros(0), np.zeros(3))
