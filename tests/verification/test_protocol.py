"""The k-fold protocol: parity with the reference numbers, and its definition written out as loops."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sface_jax.core.errors import UserError
from sface_jax.verification import curves, protocol

FIXTURE = Path(__file__).parents[3] / "shared/fixtures/recognition/verification.npz"


@pytest.mark.skipif(not FIXTURE.exists(), reason=f"reference numbers are not at {FIXTURE}")
@pytest.mark.parametrize("case", ["p600", "p6000"])
def test_parity_with_reference(case):
    reference = np.load(FIXTURE)
    embeddings, same = reference[f"{case}__embeddings"], reference[f"{case}__issame"]
    accuracy = protocol.kfold_accuracy(embeddings[::2], embeddings[1::2], same)
    np.testing.assert_allclose(accuracy.per_fold, reference[f"{case}__accuracy"], atol=1e-9)
    np.testing.assert_allclose(accuracy.mean, reference[f"{case}__acc_mean"], atol=1e-9)
    np.testing.assert_allclose(accuracy.std, reference[f"{case}__acc_std"], atol=1e-9)
    expected = reference["thresholds_roc"][reference[f"{case}__best_index"]]
    np.testing.assert_array_equal(accuracy.thresholds, expected)
    tar = protocol.tar_at_far(embeddings[::2], embeddings[1::2], same)
    np.testing.assert_allclose(tar.mean, reference[f"{case}__val"], atol=1e-9)
    np.testing.assert_allclose(tar.std, reference[f"{case}__val_std"], atol=1e-9)
    np.testing.assert_allclose(tar.far, reference[f"{case}__far"], atol=1e-9)
    np.testing.assert_allclose(tar.thresholds, reference[f"{case}__val_thresholds"], atol=1e-9)


def pairs_of_vectors(seed: int, pairs: int, noise: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    same = np.arange(pairs) % 2 == 0
    a = rng.standard_normal((pairs, 8))
    b = np.where(same[:, None], a, rng.standard_normal((pairs, 8))) + noise * rng.standard_normal((pairs, 8))
    return a / np.linalg.norm(a, axis=1, keepdims=True), b / np.linalg.norm(b, axis=1, keepdims=True), same


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 10_000), pairs=st.integers(20, 90), noise=st.floats(0, 1.5))
def test_accuracy_is_what_loops_over_thresholds_and_folds_give(seed, pairs, noise):
    a, b, same = pairs_of_vectors(seed, pairs, noise)
    distance = np.sum((a - b) ** 2, axis=1)
    expected, chosen = [], []
    for test in np.array_split(np.arange(pairs), 10):
        train = np.setdiff1d(np.arange(pairs), test)
        right = [np.mean((distance[train] < t) == same[train]) for t in protocol.ACCURACY_GRID]
        chosen.append(protocol.ACCURACY_GRID[int(np.argmax(right))])
        expected.append(np.mean((distance[test] < chosen[-1]) == same[test]))
    result = protocol.kfold_accuracy(a, b, same)
    np.testing.assert_array_equal(result.thresholds, chosen)
    np.testing.assert_allclose(result.per_fold, expected)
    mirrored = protocol.kfold_accuracy(b, a, same)
    assert mirrored.mean == result.mean


def test_separated_pairs_are_all_right():
    a, b, same = pairs_of_vectors(0, 200, 0.01)
    b[~same] = np.concatenate([-a[~same, 4:], a[~same, :4]], axis=1)  # orthogonal: distance 2
    assert protocol.kfold_accuracy(a, b, same).mean == 1
    assert protocol.tar_at_far(a, b, same).mean == 1
    fmr, tmr = protocol.roc(a, b, same)
    assert tmr[fmr == 0].max() == 1
    assert np.all(np.diff(fmr) >= 0) and np.all(np.diff(tmr) >= 0)


def test_a_far_that_is_never_reached_accepts_nothing():
    a = np.tile([1.0, 0.0], (20, 1))
    b = np.where(np.arange(20)[:, None] % 2 == 0, a, -a)  # different people at distance 4, beyond the grid
    result = protocol.tar_at_far(a, b, np.arange(20) % 2 == 0)
    assert result.mean == 0 and result.far == 0 and not result.thresholds.any()


def test_too_few_or_one_sided_pairs_are_refused():
    a, b, same = pairs_of_vectors(0, 9, 0.1)
    with pytest.raises(UserError, match="10 folds need at least 10 pairs, got 9"):
        protocol.kfold_accuracy(a, b, same)
    with pytest.raises(UserError, match="different people"):
        protocol.tar_at_far(np.ones((20, 2)), np.ones((20, 2)), np.ones(20, bool))


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 10_000), size=st.integers(1, 3000), points=st.integers(8, 300))
def test_a_thinned_curve_keeps_its_ends_and_its_order(seed, size, points):
    rng = np.random.default_rng(seed)
    every = curves.operating_points(rng.normal(1, 1, size), rng.normal(0, 1, size))
    kept = curves.thin(every.fmr, every.fnmr, points)
    assert len(kept) <= points
    assert kept[0] == 0 and kept[-1] == len(every.fmr) - 1
    assert np.all(np.diff(kept) > 0)
