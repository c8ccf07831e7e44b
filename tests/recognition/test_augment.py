"""Changes to training pictures: functions of a key, each with the property it is named for."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from sface_jax.core import rng
from sface_jax.core.errors import UserError
from sface_jax.recognition import augment

N, SIZE = 64, 16


@pytest.fixture(scope="module")
def pictures():
    return jnp.asarray(np.random.default_rng(0).integers(1, 255, (N, SIZE, SIZE, 3)), jnp.float32)


@pytest.mark.parametrize("name", augment.DEVICE)
def test_draws_depend_on_seed_and_step_alone_and_keep_the_range(pictures, name):
    change = jax.jit(lambda key: augment.apply((name,), key, pictures))
    first, *others = (
        np.asarray(change(rng.stream(*of))) for of in ((0, "a", 3), (0, "a", 3), (0, "a", 4), (1, "a", 3))
    )
    assert [(first == other).all() for other in others] == [True, False, False]
    assert first.shape == pictures.shape and first.min() >= 0 and first.max() <= 255


@pytest.mark.parametrize("name", ["flip", "grey", "crop", "low_resolution"])
def test_a_share_of_the_pictures_is_changed(pictures, name):
    for probability in (0.0, 0.25, 1.0):
        changed = augment.apply((f"{name}(probability={probability})",), jax.random.key(0), pictures)
        share = np.mean(np.any(np.abs(np.asarray(changed - pictures)) > 1e-2, axis=(1, 2, 3)))
        assert abs(share - probability) <= (0.15 if 0 < probability < 1 else 0.1)


def test_flip_mirrors_and_mirrored_says_which(pictures):
    names, key = ("grey(probability=0.0)", "flip", "flip(probability=0.25)"), jax.random.key(1)
    changed, turned = augment.apply(names, key, pictures), augment.mirrored(names, key, N)
    np.testing.assert_array_equal(changed, jnp.where(turned[:, None, None, None], pictures[:, :, ::-1], pictures))
    assert 0.3 < turned.mean() < 0.7
    assert not augment.mirrored(("light",), key, N).any()


def test_translation_moves_whole_pixels():
    ramp = jnp.tile(jnp.arange(16.0)[None, :, None, None] * 8, (32, 1, 16, 3))
    shifts = (np.asarray(augment.translate(jax.random.key(1), ramp))[:, 8, 8, 0] - 64) / 8
    assert set(np.unique(shifts)) == {-1.0, 0.0, 1.0}


def test_a_crop_stays_in_its_place_on_black(pictures):
    cropped = np.asarray(augment.crop(jax.random.key(2), pictures, probability=1.0, smallest=0.2))
    kept = cropped.any(-1)
    np.testing.assert_array_equal(cropped[kept], np.asarray(pictures)[kept])
    assert (kept == kept.any(1, keepdims=True) & kept.any(2, keepdims=True)).all()  # a rectangle
    assert 0.1 < kept.mean((1, 2)).min() < 0.35 and kept.mean((1, 2)).max() > 0.8


def test_low_resolution_is_a_linear_resize_there_and_back():
    smooth = np.linspace(0, 255, 32)[:, None] * np.ones((32, 1)) / 2 + np.linspace(0, 127, 32)
    picture = Image.fromarray(smooth.astype(np.float32), "F")
    expected = np.asarray(picture.resize((8, 8), Image.Resampling.BILINEAR).resize((32, 32), Image.Resampling.BILINEAR))
    matrix = np.asarray(augment._shrink_and_enlarge(32, jnp.array([0.25, 1.0])))
    np.testing.assert_allclose(matrix[0] @ smooth @ matrix[0].T, expected, atol=1e-2)
    np.testing.assert_allclose(matrix[1], np.eye(32), atol=1e-6)


def test_where_changes_are_made_is_sorted_out_and_told():
    names = ("flip", "randaugment(layers=2, magnitude=9)", "light(gain=0.5)")
    augment.check(names)
    assert augment.on_device(names) == ("flip", "light(gain=0.5)")
    worker = augment.in_workers(names)
    assert (worker.layers, worker.magnitude) == (2, 9) and augment.in_workers(("flip",)) is None
    expected = "randaugment(layers=2, magnitude=9) in the input pipeline; flip, light(gain=0.5) on the device"
    assert augment.describe(names) == f"augmentations: {expected}"
    assert augment.describe(()) == "augmentations: none"


@pytest.mark.parametrize(
    ("names", "line"),
    [
        (("flop",), "flip, translate.*randaugment"),
        (("flip(share=0.5)",), "flip has no option 'share': it has probability"),
        (("flip(probability=1.5)",), "probability=1.5: set it in 0..1"),
        (("randaugment(layers=0)",), "layers are 1 or more"),
        (("randaugment(magnitude=31)",), "magnitude is 0..30"),
        (("randaugment", "randaugment(layers=2)"), "choose one"),
    ],
)
def test_bad_names_are_told_in_one_line(names, line):
    with pytest.raises(UserError, match=line):
        augment.check(names)
