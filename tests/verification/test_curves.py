"""Error rates: agreement with scikit-learn, and their definitions written out."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sface_jax.verification import curves

FIXTURE = Path(__file__).parents[3] / "shared/fixtures/recognition/privacy.npz"
WANTED = (0.0, 0.01, 0.07, 0.1, 0.29, 0.5, 1.0)


def tied_scores(seed: int, most: int = 200) -> tuple[np.ndarray, np.ndarray]:
    """Mated and non-mated scores, of few values or of many."""
    rng = np.random.default_rng(seed)
    steps = rng.choice([1, 3, 20, 10**6])
    return tuple(np.rint(rng.uniform(-1, 1, rng.integers(1, most)) * steps) / steps for _ in range(2))


@settings(max_examples=1000, deadline=None)
@given(seed=st.integers(0, 2**32 - 1))
def test_operating_points_are_those_of_scikit_learn(seed):
    roc_curve = pytest.importorskip("sklearn.metrics").roc_curve
    mated, non_mated = tied_scores(seed)
    points = curves.operating_points(mated, non_mated)
    same = np.repeat([True, False], [len(mated), len(non_mated)])
    fpr, tpr, thresholds = roc_curve(same, np.concatenate([mated, non_mated]), drop_intermediate=False)
    np.testing.assert_array_equal(points.thresholds[::-1], thresholds)
    np.testing.assert_array_equal(points.fmr[::-1], fpr)
    np.testing.assert_array_equal(points.true_accepts[::-1] / len(mated), tpr)


@settings(max_examples=200, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), precision=st.sampled_from([np.float32, np.float64]))
def test_rates_at_fmr_by_their_definition(seed, precision):
    mated, non_mated = (scores.astype(precision) for scores in tied_scores(seed))
    mated[:1] = -np.inf
    non_mated[non_mated == 0] = -0.0
    found = curves.at_fmr(mated, non_mated, WANTED)
    points = np.append(np.unique(np.concatenate([mated, non_mated])), np.inf)
    for i, percent in enumerate([0, 1, 7, 10, 29, 50, 100]):
        threshold = min(t for t in points if 100 * int((non_mated >= t).sum()) <= percent * len(non_mated))
        assert found.thresholds[i] == threshold
        assert found.false_matches[i] == (non_mated >= threshold).sum()
        assert found.fmr[i] == (non_mated >= threshold).mean()
        assert found.tmr[i] == (mated >= threshold).mean()


def test_double_precision_is_kept():
    non_mated = 0.5 + np.arange(100) * 2.0**-53
    found = curves.at_fmr(non_mated[-1:], non_mated, [0.01, 0.05])
    np.testing.assert_array_equal(found.thresholds, non_mated[[-1, -5]])
    assert len(np.unique(non_mated.astype(np.float32))) == 1


@pytest.mark.skipif(not FIXTURE.exists(), reason=f"reference numbers are not at {FIXTURE}")
@pytest.mark.parametrize("case", ["", "small__"])
def test_reference_rates(case):
    reference = np.load(FIXTURE)
    mated, non_mated = reference[f"{case}genuine"], reference[f"{case}impostor"]
    found = curves.at_fmr(mated, non_mated, [1 / 100, 1 / 1000, 1 / 10000])
    for i, per in enumerate([100, 1000, 10000]):
        assert found.thresholds[i] == reference[f"{case}fmr{per}_threshold"]
        assert found.false_matches[i] == reference[f"{case}fmr{per}_false_accepts"]
        np.testing.assert_allclose(1 - found.tmr[i], reference[f"{case}fmr{per}"], atol=1e-12)
    np.testing.assert_allclose(
        curves.eer(curves.operating_points(mated, non_mated)), reference[f"{case}eer"], atol=1e-12
    )


def test_counts_may_exceed_32_bits():
    counts = np.array([2**40, 1])
    points = curves.operating_points(np.array([0.1, 0.9]), np.array([0.5, 0.2]), counts, counts[::-1])
    np.testing.assert_array_equal(points.thresholds, [0.1, 0.2, 0.5, 0.9, np.inf])
    np.testing.assert_array_equal(points.true_accepts, [2**40 + 1, 1, 1, 1, 0])
    np.testing.assert_array_equal(points.false_accepts, [2**40 + 1, 2**40 + 1, 1, 0, 0])


@pytest.mark.parametrize("rates", [curves.operating_points, lambda a, b: curves.at_fmr(a, b, [0.1])])
def test_samples_without_rates_are_refused(rates):
    with pytest.raises(ValueError, match="at least one mated and one non-mated"):
        rates(np.zeros(3), np.zeros(0))
    with pytest.raises(ValueError, match="scores that are numbers: 1 are NaN"):
        rates(np.zeros(3), np.array([1, np.nan]))


def test_names_of_rates():
    assert [curves.rate_name(rate) for rate in (1e-6, 0.001, 0.025, 0.1)] == ["1e-6", "1e-3", "2.5e-2", "1e-1"]
