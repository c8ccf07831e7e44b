"""The protocol of pairs: parity with the reference numbers, and its definition written out as loops."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sface_jax.core.errors import UserError
from sface_jax.verification import curves, protocol
from sface_jax.verification.sweep import sweep

FIXTURE = Path(__file__).parents[3] / "shared/fixtures/recognition/verification.npz"


@pytest.mark.skipif(not FIXTURE.exists(), reason=f"reference numbers are not at {FIXTURE}")
@pytest.mark.parametrize("case", ["p600", "p6000"])
def test_parity_with_reference(case):
    reference = np.load(FIXTURE)
    embeddings, same = reference[f"{case}__embeddings"], reference[f"{case}__issame"]
    a, b = embeddings[::2], embeddings[1::2]
    accuracy = protocol.kfold_accuracy(a, b, same)
    tar = protocol.tar_at_far(a, b, same)
    fpr, tpr = protocol.grid_roc(a, b, same)
    for found, name in [
        (accuracy.per_fold, "accuracy"),
        (accuracy.mean, "acc_mean"),
        (accuracy.std, "acc_std"),
        (tar.mean, "val"),
        (tar.std, "val_std"),
        (tar.far, "far"),
        (tar.thresholds, "val_thresholds"),
        (fpr, "fpr"),
        (tpr, "tpr"),
    ]:
        np.testing.assert_allclose(found, reference[f"{case}__{name}"], atol=1e-9, err_msg=name)
    np.testing.assert_array_equal(accuracy.thresholds, reference["thresholds_roc"][reference[f"{case}__best_index"]])


def pairs_of_vectors(seed: int, pairs: int, noise: float, tied: bool = False) -> tuple[np.ndarray, ...]:
    """Pairs of unit vectors; or, where `tied`, of points on a coarse grid: few distances, most of them thresholds."""
    rng = np.random.default_rng(seed)
    same = rng.permutation(np.arange(pairs) % 2 == 0)
    if tied:
        a, b = rng.integers(0, 3, (2, pairs, 3)) / 2
        return a, np.where(same[:, None] & (rng.random((pairs, 1)) > noise / 2), a, b), same
    a = rng.standard_normal((pairs, 8))
    b = np.where(same[:, None], a, rng.standard_normal((pairs, 8))) + noise * rng.standard_normal((pairs, 8))
    return a / np.linalg.norm(a, axis=1, keepdims=True), b / np.linalg.norm(b, axis=1, keepdims=True), same


CASES = {
    "seed": st.integers(0, 10_000),
    "pairs": st.integers(20, 90),
    "noise": st.floats(0, 1.5),
    "tied": st.booleans(),
}


def folds_of(pairs: int):
    """(test, training) positions of ten contiguous folds."""
    return [(test, np.setdiff1d(np.arange(pairs), test)) for test in np.array_split(np.arange(pairs), 10)]


@settings(max_examples=25, deadline=None)
@given(**CASES)
def test_accuracy_is_what_loops_over_thresholds_and_folds_give(seed, pairs, noise, tied):
    a, b, same = pairs_of_vectors(seed, pairs, noise, tied)
    distance = np.sum((a - b) ** 2, axis=1)
    expected, chosen = [], []
    for test, train in folds_of(pairs):
        right = [np.mean((distance[train] < t) == same[train]) for t in protocol.ACCURACY_GRID]
        chosen.append(protocol.ACCURACY_GRID[int(np.argmax(right))])
        expected.append(np.mean((distance[test] < chosen[-1]) == same[test]))
    result = protocol.kfold_accuracy(a, b, same, uneven=True)
    np.testing.assert_array_equal(result.thresholds, chosen)
    np.testing.assert_array_equal(result.per_fold, expected)
    assert protocol.kfold_accuracy(b, a, same, uneven=True).mean == result.mean


@settings(max_examples=25, deadline=None)
@given(**CASES)
def test_exact_accuracy_separates_the_other_folds_as_well_as_any_threshold(seed, pairs, noise, tied):
    a, b, same = pairs_of_vectors(seed, pairs, noise, tied)
    distance = np.sum((a - b) ** 2, axis=1)
    result = protocol.exact_accuracy(a, b, same, uneven=True)
    every = np.append(distance, np.inf)
    for (test, train), threshold, accuracy in zip(folds_of(pairs), result.thresholds, result.per_fold, strict=True):
        right = max(np.mean((distance[train] < t) == same[train]) for t in every)
        assert np.mean((distance[train] < threshold) == same[train]) == right
        lower = distance[train][distance[train] < threshold]
        assert all(np.mean((distance[train] < t) == same[train]) < right for t in lower)
        assert accuracy == np.mean((distance[test] < threshold) == same[test])


@settings(max_examples=25, deadline=None)
@given(**CASES, far=st.sampled_from([0.0, 0.01, 0.1, 0.5]))
def test_tar_at_far_is_what_loops_give(seed, pairs, noise, tied, far):
    a, b, same = pairs_of_vectors(seed, pairs, noise, tied)
    distance = np.sum((a - b) ** 2, axis=1)
    result = protocol.tar_at_far(a, b, same, far, uneven=True)
    for (test, train), threshold, tar in zip(folds_of(pairs), result.thresholds, result.per_fold, strict=True):
        strangers = distance[train][~same[train]]
        rates = np.array([np.mean(strangers < t) for t in protocol.RATE_GRID])
        expected = 0.0
        if rates.max() >= far:
            last = np.flatnonzero(rates <= far)[-1]
            expected = protocol.RATE_GRID[last]
            if rates[last] < far and last + 1 < len(rates):
                ends = protocol.RATE_GRID[last : last + 2]
                expected = np.interp(far, rates[last : last + 2], ends)
        assert threshold == pytest.approx(expected, abs=1e-12)
        mated = distance[test][same[test]]
        assert np.isnan(tar) if not len(mated) else tar == np.mean(mated < threshold)


@settings(max_examples=25, deadline=None)
@given(**CASES)
def test_points_are_those_of_all_scores(seed, pairs, noise, tied):
    a, b, same = pairs_of_vectors(seed, pairs, noise, tied)
    compared = protocol.compare(a, b, same, uneven=True)
    expected = curves.operating_points(-compared.distance[same], -compared.distance[~same])
    for found, wanted in zip(compared.points(), expected, strict=True):
        np.testing.assert_array_equal(found, wanted)


@settings(max_examples=25, deadline=None)
@given(st.lists(st.floats(0, 1e300) | st.sampled_from([0.0, -0.0, 0.01, 0.1 + 0.2, 0.3]), min_size=1, max_size=40))
def test_distances_are_sorted_to_the_last_bit(values):
    distances, group = np.array(values), np.arange(len(values)) % 3
    found = sweep(distances, group, 3)
    np.testing.assert_array_equal(found.distances, np.sort(distances))
    expected = [[np.sum(distances[group == g] < t) for t in distances] for g in range(3)]
    np.testing.assert_array_equal(found.below(distances), expected)


def test_separated_pairs_are_all_right():
    a, b, same = pairs_of_vectors(0, 200, 0.01)
    b[~same] = np.concatenate([-a[~same, 4:], a[~same, :4]], axis=1)  # orthogonal: distance 2
    assert protocol.kfold_accuracy(a, b, same).mean == protocol.exact_accuracy(a, b, same).mean == 1
    assert protocol.tar_at_far(a, b, same).mean == 1
    fmr, tmr = protocol.roc(a, b, same)
    assert tmr[fmr == 0].max() == 1
    assert np.all(np.diff(fmr) >= 0) and np.all(np.diff(tmr) >= 0)


def test_a_far_that_is_never_reached_accepts_nothing():
    a = np.tile([1.0, 0.0], (20, 1))
    b = np.where(np.arange(20)[:, None] % 2 == 0, a, -a)  # different people at distance 4, beyond the grid
    result = protocol.tar_at_far(a, b, np.arange(20) % 2 == 0)
    assert result.mean == 0 and result.far == 0 and not result.thresholds.any()


def test_bad_input_is_one_clear_line():
    a, b, same = pairs_of_vectors(0, 20, 0.1)
    broken = a.copy()
    broken[3, 1] = np.nan
    for figure in (protocol.kfold_accuracy, protocol.exact_accuracy, protocol.tar_at_far, protocol.grid_roc):
        for arguments, told in [
            ((a[:9], b[:9], same[:9]), "at least 2 folds and 10 pairs, got 9 pairs"),
            ((a[:18], b[:18], same[:18]), "18 pairs do not divide into 10 folds: use 6 or 9 folds, or allow"),
            ((a[:19], b[:19], same[:19]), "19 pairs do not divide into 10 folds: use 19 folds, or allow"),
            ((a, b, same[:19]), r"shapes \(20, 8\) and \(20, 8\) do not go with 19 labels"),
            ((a, b[:19], same), r"shapes \(20, 8\) and \(19, 8\)"),
            ((a, b[:, :5], same), r"\(20, 8\) and \(20, 5\)"),
            ((a, b, np.ones(20, bool)), "all 20 pairs are mated"),
            ((a, b, np.zeros(20, bool)), "all 20 pairs are non-mated"),
            ((broken, b, same), "embeddings of 1 of 20 pairs are not finite, the first of them pair 3"),
        ]:
            with pytest.raises(UserError, match=told) as error:
                figure(*arguments)
            assert "\n" not in str(error.value)


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 10_000), size=st.integers(1, 3000), points=st.integers(8, 300))
def test_a_thinned_curve_keeps_its_ends_and_its_order(seed, size, points):
    rng = np.random.default_rng(seed)
    every = curves.operating_points(rng.normal(1, 1, size), rng.normal(0, 1, size))
    kept = curves.thin(every.fmr, every.fnmr, points)
    assert len(kept) <= points
    assert kept[0] == 0 and kept[-1] == len(every.fmr) - 1
    assert np.all(np.diff(kept) > 0)
