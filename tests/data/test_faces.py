import jax
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sface_jax.core.errors import UserError
from sface_jax.data import faces

SIZE = 32


@pytest.fixture(scope="module")
def album():
    """12 pictures of each of 24 people: [people, pictures, size, size, 3]."""
    people, pictures = 24, 12
    drawn = faces.render(7, np.repeat(np.arange(people), pictures), np.tile(np.arange(pictures), people), SIZE)
    return drawn.reshape(people, pictures, SIZE, SIZE, 3)


@settings(max_examples=8, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 23), st.integers(0, 11)), min_size=1, max_size=80))
def test_a_picture_does_not_depend_on_its_company(album, wanted):
    identities, indices = np.array(wanted).T
    np.testing.assert_array_equal(faces.render(7, identities, indices, SIZE), album[identities, indices])


def test_seed_identity_and_index_all_matter(album):
    flat = album.reshape(-1, SIZE * SIZE * 3)
    assert len(np.unique(flat, axis=0)) == len(flat)
    assert not np.array_equal(faces.render(8, np.array([0]), np.array([0]), SIZE)[0], album[0, 0])


def test_large_numbers_are_accepted():
    pair = faces.render(2**31, np.array([2**32 - 1, 2**32 - 2]), np.array([2**32 - 1, 0], np.int64), SIZE)
    assert not np.array_equal(pair[0], pair[1])


def test_parameters_are_those_of_the_person_and_of_the_picture():
    people = jax.jit(jax.vmap(lambda i: faces.identity_parameters(7, i)))(np.arange(400))
    pictures = jax.jit(jax.vmap(lambda i: faces.picture_parameters(7, 3, i)))(np.arange(400))
    for drawn, ranges in ((people, faces.IDENTITY), (pictures, faces.PICTURE)):
        assert set(drawn) == set(ranges)
        for name, (low, high) in ranges.items():
            values = np.asarray(drawn[name])
            assert low <= values.min() and values.max() <= high
            assert abs(values.mean() - (low + high) / 2) < 0.1 * (high - low)
    third = jax.jit(lambda: faces.identity_parameters(7, 3))()
    assert all(float(third[name]) == float(values[3]) for name, values in people.items())


def test_pictures_are_pictures(album):
    assert album.dtype == np.uint8
    levels = album.reshape(len(album), -1, SIZE * SIZE * 3).astype(float)
    assert levels.std(-1).min() > 8, "some picture is almost blank"
    assert (album == 255).mean() < 0.05 and (album == 0).mean() < 0.05


def test_pictures_of_a_person_are_nearer_than_those_of_others_but_not_by_much(album):
    """There is an identity to learn, and pixel distance is a poor way to see it."""
    flat = album.reshape(-1, SIZE * SIZE * 3).astype(np.float64)
    squares = (flat**2).sum(-1)
    distance = squares[:, None] + squares[None] - 2 * flat @ flat.T
    person = np.repeat(np.arange(album.shape[0]), album.shape[1])
    same = (person[:, None] == person[None]) & ~np.eye(len(flat), dtype=bool)
    mated, others = distance[same], distance[person[:, None] != person[None]]
    auc = 1 - (np.searchsorted(np.sort(others), mated) / len(others)).mean()
    assert 0.52 < auc < 0.8


@pytest.mark.parametrize("size", [0, 15, 257])
def test_sizes_out_of_range_are_refused(size):
    with pytest.raises(UserError, match="16 to 256"):
        faces.render(0, np.array([0]), np.array([0]), size)


def test_no_pictures_is_an_empty_array():
    assert faces.render(0, np.array([], int), np.array([], int), SIZE).shape == (0, SIZE, SIZE, 3)


def test_sizes_show_the_same_face():
    small, large = (faces.render(7, np.arange(4), np.arange(4), size).astype(float) for size in (16, SIZE))
    halved = large.reshape(4, 16, 2, 16, 2, 3).mean((2, 4))
    for mine, others in zip(halved, small, strict=True):
        assert np.corrcoef(mine.ravel(), others.ravel())[0, 1] > 0.95
