"""Tiled matching against the whole score matrix."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jax import numpy as jnp

from sface_jax.privacy import matching, tiles


def signs(seed: int, rows: int) -> np.ndarray:
    """Rows of +-1/4 in 16 dimensions: of length one, and their cosines are exact in any order of summation."""
    return np.random.default_rng(seed).choice([-0.25, 0.25], (rows, 16)).astype(np.float32)


def labels_for(seed: int, rows: int) -> np.ndarray:
    return np.random.default_rng(seed + 1).integers(0, 4, rows)


@settings(max_examples=20, deadline=None)
@given(
    seed=st.integers(0, 1000),
    n=st.sampled_from([1, 10, 1500]),
    m=st.sampled_from([2, 33, 2100]),
    top_k=st.sampled_from([1, 5]),
    labelled=st.booleans(),
)
def test_tiles_give_what_the_whole_matrix_gives(seed, n, m, top_k, labelled):
    query, gallery = signs(seed, n), signs(seed + 7, m)
    of_query, of_gallery = labels_for(seed, n), labels_for(seed + 7, m)
    labels = (of_query, of_gallery) if labelled else ()
    # scores are multiples of 1/8: thresholds on them, between them, and two in one bin
    thresholds = (0.25, -0.3, 0.5, 0.26)
    found = matching.match(query, gallery, *labels, bins=64, thresholds=thresholds, top_k=top_k, tile=1024)

    matrix = query @ gallery.T
    same = of_query[:, None] == of_gallery if labelled else np.zeros((n, m), bool)
    for values, counts, above in (
        (matrix[same], found.mated, found.mated_above),
        (matrix[~same], found.non_mated, found.non_mated_above),
    ):
        np.testing.assert_array_equal(np.histogram(values, found.edges)[0], counts)
        assert above.tolist() == [(values >= threshold).sum() for threshold in sorted(thresholds)]
    order = np.argsort(-matrix, axis=1, kind="stable")[:, :top_k]
    np.testing.assert_array_equal(found.top_indices[:, : min(top_k, m)], order)
    np.testing.assert_array_equal(found.top_scores[:, : min(top_k, m)], np.take_along_axis(matrix, order, axis=1))
    assert (found.top_indices[:, m:] == -1).all()
    np.testing.assert_array_equal(found.nearest_mated, np.where(same, matrix, -np.inf).max(1))
    np.testing.assert_array_equal(found.nearest_non_mated, np.where(same, -np.inf, matrix).max(1))
    np.testing.assert_array_equal(found.gallery_scores, matrix.max(0))
    np.testing.assert_array_equal(found.gallery_indices, matrix.argmax(0))


def test_a_threshold_between_two_float32_numbers_is_exact():
    query, gallery = np.array([[1.0, 0]], np.float32), np.array([[0.6, 0.8]], np.float32)
    (score,) = matching.match(query, gallery, top_k=1).top_scores[:, 0]
    below, above = float(np.nextafter(score, np.float32(0))), float(np.nextafter(score, np.float32(1)))
    between = (float(score) + above) / 2
    found = matching.match(query, gallery, thresholds=(below, float(score), between, above))
    assert found.non_mated_above.tolist() == [1, 1, 0, 0]


def test_the_table_as_products_is_the_table():
    # what a TPU runs; the engine's other tests run the scattered additions
    cell = np.random.default_rng(0).integers(0, 301, (1024, 1024)).astype(np.int32)
    start = np.arange(400, dtype=np.int32)
    found = tiles._tally_by_products(jnp.asarray(start), jnp.asarray(cell), 301)
    np.testing.assert_array_equal(found, start + np.bincount(cell.ravel(), minlength=400))


def test_a_run_that_was_cut_off_goes_on_with_the_same_task_only(tmp_path, caplog, monkeypatch):
    monkeypatch.setattr(matching, "PART", 1024)
    query, gallery = signs(0, 2500), signs(1, 40)
    whole = matching.match(query, gallery, folder=tmp_path)
    first, second, third = sorted(tmp_path.iterdir())
    second.write_bytes(first.read_bytes()[:1000])
    third.unlink()
    made = first.stat().st_mtime_ns
    again = matching.match(query, gallery, folder=tmp_path)
    assert first.stat().st_mtime_ns == made and "is damaged" in caplog.text
    for a, b in zip(whole, again, strict=True):
        np.testing.assert_array_equal(a, b)
    other = matching.match(query, -gallery, folder=tmp_path)
    assert first.stat().st_mtime_ns != made and (other.top_scores != whole.top_scores).any()


@pytest.mark.parametrize("tile", [4, 64])
def test_a_set_against_itself_counts_each_pair_once(tile):
    faces, labels = signs(0, 21), labels_for(0, 21)
    found = matching.match(faces, faces, labels, labels, bins=64, top_k=3, tile=tile, exclude_self=True)
    assert found.mated.sum() + found.non_mated.sum() == 21 * 20 // 2
    assert (found.top_indices != np.arange(21)[:, None]).all()
    scores, of = matching.same_label_scores(faces, faces, labels, labels, exclude_self=True)
    np.testing.assert_array_equal(np.histogram(scores, found.edges)[0], found.mated)
    np.testing.assert_array_equal(np.bincount(of), [n * (n - 1) // 2 for n in np.bincount(labels)])


def test_mated_scores_can_be_limited():
    faces, labels = signs(0, 40), np.arange(40) % 2
    every, _ = matching.same_label_scores(faces, faces, labels, labels)
    some, of = matching.same_label_scores(faces, faces, labels, labels, limit=100)
    assert len(every) == 800 and np.bincount(of).tolist() == [50, 50]
    assert np.isin(some, every).all()


def test_embeddings_need_not_be_normalised():
    faces, labels = signs(0, 9), labels_for(0, 9)
    found = matching.match(5 * faces, faces, labels, labels, top_k=1)
    np.testing.assert_allclose(found.top_scores, 1, atol=1e-6)


def test_what_does_not_fit_is_refused():
    two, three = np.ones((2, 3), np.float32), np.ones((3, 3), np.float32)
    with pytest.raises(ValueError, match="not empty"):
        matching.match(two, three[:0])
    with pytest.raises(ValueError, match="the same set"):
        matching.match(two, three, exclude_self=True)
    with pytest.raises(ValueError, match="or neither"):
        matching.match(two, three, np.zeros(2, int))
    with pytest.raises(ValueError, match="1 of the 2 embeddings of the query are not finite"):
        matching.match(np.float32([[1, 0, 0], [np.nan, 0, 0]]), three)


def test_no_neighbours_and_endless_thresholds_are_refused():
    two = np.ones((2, 3), np.float32)
    for options in ({"top_k": 0}, {"thresholds": (np.nan,)}):
        with pytest.raises(ValueError, match="top_k must be 1 or more and thresholds finite"):
            matching.match(two, two, **options)


@pytest.mark.parametrize("n", [2, 3, 7])
def test_pairs_are_numbered_in_order(n):
    first, second = matching._pair(np.arange(n * (n - 1) // 2), n)
    np.testing.assert_array_equal((first, second), np.triu_indices(n, 1))
