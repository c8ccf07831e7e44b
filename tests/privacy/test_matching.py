"""Tiled matching against the whole score matrix."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sface_jax.privacy import matching


def signs(seed: int, rows: int) -> np.ndarray:
    """Rows of +-1/4 in 16 dimensions: of length one, and their cosines are exact in any order of summation."""
    return np.random.default_rng(seed).choice([-0.25, 0.25], (rows, 16)).astype(np.float32)


def labels_for(seed: int, rows: int) -> np.ndarray:
    return np.random.default_rng(seed + 1).integers(0, 4, rows)


# few sizes, since each one is compiled
@settings(max_examples=10, deadline=None)
@given(seed=st.integers(0, 1000), n=st.sampled_from([1, 10]), m=st.sampled_from([2, 33]), tile=st.sampled_from([4, 64]))
def test_tiles_give_what_the_whole_matrix_gives(seed, n, m, tile):
    query, gallery = signs(seed, n), signs(seed + 7, m)
    query_labels, gallery_labels = labels_for(seed, n), labels_for(seed + 7, m)
    found = matching.match(query, gallery, query_labels, gallery_labels, bins=64, top_k=5, tile=tile)

    matrix = query @ gallery.T
    same = query_labels[:, None] == gallery_labels
    for values, counts in ((matrix[same], found.mated), (matrix[~same], found.non_mated)):
        np.testing.assert_array_equal(np.histogram(values, found.edges)[0], counts)
    order = np.argsort(-matrix, axis=1, kind="stable")[:, :5]
    np.testing.assert_array_equal(found.top_indices[:, : min(5, m)], order)
    np.testing.assert_array_equal(found.top_scores[:, : min(5, m)], np.take_along_axis(matrix, order, axis=1))
    assert (found.top_indices[:, m:] == -1).all()
    np.testing.assert_array_equal(found.nearest_mated, np.where(same, matrix, -np.inf).max(1))
    np.testing.assert_array_equal(found.nearest_non_mated, np.where(same, -np.inf, matrix).max(1))


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


def test_an_empty_gallery_is_refused():
    with pytest.raises(ValueError, match="not empty"):
        matching.match(np.ones((2, 3)), np.ones((0, 3)), np.zeros(2, int), np.zeros(0, int))
    with pytest.raises(ValueError, match="the same set"):
        matching.match(np.ones((2, 3)), np.ones((4, 3)), np.zeros(2, int), np.zeros(4, int), exclude_self=True)
