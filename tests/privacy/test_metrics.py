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


def test_match_rate_draws_identities_not_comparisons():
    identities = np.repeat(np.arange(20), 50)
    clustered = metrics.match_rate((identities < 4).astype(float), identities, 0.5)  # whole identities match
    spread = metrics.match_rate(np.tile([1.0, 0, 0, 0, 0], 200), identities, 0.5)
    assert clustered["rate"] == spread["rate"] == 0.2
    width = [result["interval"][1] - result["interval"][0] for result in (clustered, spread)]
    assert width[0] > 0.2 and width[1] < 0.01
    never = metrics.match_rate(np.zeros(1000), identities, 0.5)
    assert never["interval"] == [0, pytest.approx(1 - 0.05 ** (1 / 20))]


def test_an_empty_sample_is_refused():
    with pytest.raises(ValueError, match="at least one mated and one non-mated"):
        metrics.verification_metrics(np.zeros(0), np.zeros(3))
