import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sface_jax.core.errors import Damaged
from sface_jax.data import align

TEMPLATE = align.template(112)
ANGLES, SCALES, SHIFTS = st.floats(-3.1, 3.1), st.floats(0.2, 5), st.floats(-300, 300)


def moved(points, angle, scale, dx, dy):
    turn = scale * np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    return (points @ turn.T + [dx, dy]).astype(np.float32)


def bilinear(image, x, y):
    """The pixel at (x, y) between its four neighbours; black outside."""
    total = np.zeros(3)
    for row in (int(np.floor(y)), int(np.floor(y)) + 1):
        for column in (int(np.floor(x)), int(np.floor(x)) + 1):
            if 0 <= row < image.shape[0] and 0 <= column < image.shape[1]:
                total += max(0, 1 - abs(x - column)) * max(0, 1 - abs(y - row)) * image[row, column].astype(float)
    return total


def test_the_template_shows_the_same_part_of_a_face_at_any_size():
    np.testing.assert_array_equal(TEMPLATE[0], np.float32([38.2946, 51.6963]))
    for size in (56, 128, 256):
        np.testing.assert_allclose((align.template(size) + 0.5) / size, (TEMPLATE + 0.5) / 112, rtol=1e-6)


@settings(max_examples=50, deadline=None)
@given(angle=ANGLES, scale=SCALES, dx=SHIFTS, dy=SHIFTS)
def test_a_moved_template_is_moved_back(angle, scale, dx, dy):
    points = moved(TEMPLATE, angle, scale, dx, dy)
    matrix = align.similarity(points, TEMPLATE)
    np.testing.assert_allclose(points @ matrix[:, :2].T + matrix[:, 2], TEMPLATE, atol=1e-2)
    assert align.scale(matrix) == pytest.approx(1 / scale, rel=1e-3)
    assert np.linalg.det(matrix[:, :2]) > 0


@settings(max_examples=50, deadline=None)
@given(seed=st.integers(0, 2**32), angle=ANGLES)
def test_no_similarity_comes_nearer_to_the_template(seed, angle):
    rng = np.random.default_rng(seed)
    points = (moved(TEMPLATE, angle, 2.0, 5, -7) + rng.normal(0, 8, (5, 2))).astype(np.float32)
    matrix = align.similarity(points, TEMPLATE)

    def error(a, b, c, d):
        return np.sum((points @ np.array([[a, b], [-b, a]]) + [c, d] - TEMPLATE.astype(np.float64)) ** 2)

    best = np.array([matrix[0, 0], matrix[1, 0], *matrix[:, 2]])
    assert all(error(*best) <= error(*best + step) + 1e-9 for step in rng.normal(0, 1e-3, (20, 4)))


@pytest.mark.parametrize(
    "points",
    [
        np.full((5, 2), 7.0, np.float32),
        np.full((5, 2), np.nan, np.float32),
        np.where(np.arange(10).reshape(5, 2) == 3, np.inf, TEMPLATE).astype(np.float32),
        TEMPLATE[[1, 0, 2, 4, 3]],
    ],
    ids=["one point", "not a number", "infinite", "left and right confused"],
)
def test_landmarks_of_no_face_are_refused(points):
    with pytest.raises(Damaged, match="show no face"):
        align.similarity(points, TEMPLATE)


def test_pixels_are_those_of_a_plain_bilinear_reference():
    image = np.random.default_rng(0).integers(0, 256, (30, 40, 3)).astype(np.uint8)
    # Turned and enlarged so that a corner of the square lies outside of the picture.
    matrix = align.similarity(moved(align.template(24), 0.3, 1.1, 12, -3), align.template(24))
    made = align.warp(image, matrix, 24)
    inverse = np.linalg.inv(np.vstack([matrix, [0, 0, 1]]))
    places = np.array([[inverse[:2] @ [x, y, 1] for x in range(24)] for y in range(24)])
    expected = np.array([[bilinear(image, *place) for place in row] for row in places])
    assert np.abs(made - expected).max() < 0.51
    assert (expected.sum(axis=2) == 0).any() and made.dtype == np.uint8


@pytest.mark.parametrize("size", [56, 112])
def test_landmarks_land_on_the_template(size):
    points = moved(TEMPLATE, -0.4, 1.7, 60, 20)
    y, x = np.mgrid[:300, :300]
    spots = sum(np.exp(-((x - px) ** 2 + (y - py) ** 2) / 50) for px, py in points)
    made = align.align(np.repeat((255 * spots)[..., None], 3, axis=2).astype(np.uint8), points, size)[..., 0]
    y, x = np.mgrid[:size, :size]
    for px, py in align.template(size):
        weight = made * (np.hypot(x - px, y - py) < 7 * size / 112)
        assert np.hypot((x * weight).sum() / weight.sum() - px, (y * weight).sum() / weight.sum() - py) < 0.1


def test_an_aligned_picture_stays_as_it_is():
    image = np.random.default_rng(0).integers(0, 256, (112, 112, 3)).astype(np.uint8)
    np.testing.assert_array_equal(align.align(image, TEMPLATE, 112), image)


def test_landmarks_far_outside_give_black():
    image = np.full((20, 20, 3), 255, np.uint8)
    assert not align.align(image, TEMPLATE * np.float32(1e7), 8)[1:, 1:].any()
