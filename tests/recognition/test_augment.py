"""Changes to training pictures: functions of a key, each with the property it is named for."""

import functools
import inspect

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from sface_jax.core import rng
from sface_jax.core.errors import UserError
from sface_jax.recognition import augment

N, SIZE = 64, 16


@pytest.fixture(scope="module")
def pictures():
    return jnp.asarray(np.random.default_rng(0).integers(1, 256, (N, SIZE, SIZE, 3)), jnp.float32)


SOME = [name for name, change in augment.DEVICE.items() if "probability" in inspect.signature(change).parameters]


@functools.cache
def compiled(*names):
    """Several changes as one program: those of one key share its draws, and most of the time to compile them."""
    return jax.jit(lambda key, pictures: [augment.apply((name,), key, pictures) for name in names])


def at_shares(name):
    """A change with its own probability, and with 0, 1/4 and 1, where it has one."""
    return compiled(name, *(f"{name}(probability={share})" for share in (0.0, 0.25, 1.0) if name in SOME))


@pytest.mark.parametrize("name", augment.DEVICE)
def test_draws_depend_on_seed_and_step_alone_and_keep_the_range(pictures, name):
    change = at_shares(name)
    first, *others = (
        np.asarray(change(rng.stream(*of), pictures)[0]) for of in ((0, "a", 3), (0, "a", 3), (0, "a", 4), (1, "a", 3))
    )
    assert [(first == other).all() for other in others] == [True, False, False]
    assert first.shape == pictures.shape and first.min() >= 0 and first.max() <= 255


@pytest.mark.parametrize("name", SOME)
def test_a_share_of_the_pictures_is_changed(pictures, name):
    _, *results = map(np.asarray, at_shares(name)(jax.random.key(0), pictures))
    for probability, changed in zip((0.0, 0.25, 1.0), results, strict=True):
        share = np.mean(np.any(np.abs(changed - pictures) > 1e-2, axis=(1, 2, 3)))
        assert abs(share - probability) <= (0.15 if 0 < probability < 1 else 0.1)
        assert probability or (changed == pictures).all()


def test_flip_mirrors_and_mirrored_says_which(pictures):
    names, key = ("erase(probability=0.0)", "flip", "flip(probability=0.25)"), jax.random.key(1)
    changed, turned = jax.jit(functools.partial(augment.apply, names))(key, pictures), augment.mirrored(names, key, N)
    np.testing.assert_array_equal(changed, jnp.where(turned[:, None, None, None], pictures[:, :, ::-1], pictures))
    assert 0.3 < turned.mean() < 0.7
    others = (*names, "photometric", "resized_crop", "erase")
    np.testing.assert_array_equal(augment.mirrored(others, key, N), turned)
    assert not augment.mirrored(others[3:], key, N).any()


def test_translation_moves_whole_pixels():
    ramp = jnp.asarray(np.tile(np.arange(16, dtype=np.float32)[None, :, None, None] * 8, (N, 1, 16, 3)))
    shifts = (np.asarray(at_shares("translate")(jax.random.key(1), ramp)[0])[:, 8, 8, 0] - 64) / 8
    assert set(np.unique(shifts)) == {-1.0, 0.0, 1.0}


def test_a_crop_stays_in_its_place_on_black(pictures):
    cropped = np.asarray(at_shares("crop")(jax.random.key(2), pictures)[-1])
    kept = cropped.any(-1)
    np.testing.assert_array_equal(cropped[kept], np.asarray(pictures)[kept])
    assert (kept == kept.any(1, keepdims=True) & kept.any(2, keepdims=True)).all()  # a rectangle
    assert 0.1 < kept.mean((1, 2)).min() < 0.35 and kept.mean((1, 2)).max() > 0.8


shares = st.floats(0.0, 1.0, width=32)


@settings(max_examples=25, deadline=None)
@given(st.tuples(shares, shares).map(sorted), shares, st.integers(0, 1000))
def test_rectangles_have_the_area_asked_and_lie_within(areas, narrowest, seed):
    starts, sides = map(np.asarray, augment._rectangles(jax.random.key(seed), N, *areas, narrowest))
    assert starts.min() >= 0 and sides.min() >= 0 and (starts + sides).max() <= 1 + 1e-5
    area = sides.prod(0)
    assert areas[0] - 1e-5 <= area.min() and area.max() <= areas[1] + 1e-5
    if areas[0] > 1e-3:
        aspect = sides[1] / sides[0]
        assert narrowest - 1e-4 <= aspect.min() and aspect.max() * (narrowest - 1e-4) <= 1


LEVELS = (None, 0.0, 0.5)


@pytest.mark.parametrize("level", LEVELS)
def test_an_erased_rectangle_has_the_area_and_the_filling_asked(pictures, level):
    large = jnp.asarray(np.asarray(pictures).repeat(4, axis=1).repeat(4, axis=2))
    of_area = "erase(probability=1.0, smallest=0.25, largest=0.25"
    changes = compiled(*(f"{of_area})" if at is None else f"{of_area}, level={at})" for at in LEVELS))
    changed = np.asarray(changes(jax.random.key(3), large)[LEVELS.index(level)])
    erased = (changed != np.asarray(large)).any(-1)
    rows, columns = erased.any(2), erased.any(1)
    np.testing.assert_array_equal(erased, rows[:, :, None] & columns[:, None, :])  # a rectangle
    height, width = rows.sum(1), columns.sum(1)
    assert (np.abs(erased.mean((1, 2)) - 0.25) * large[0, ..., 0].size <= height + width + 1).all()
    assert 3 < (width / height).max() < 4.5 and height.min() < 40 < height.max()
    filling = changed[erased]
    if level is None:
        assert filling.min() < 5 and filling.max() > 250 and abs(filling.mean() - 127.5) < 2
    else:
        assert (filling == 255 * level).all()


def test_a_resized_crop_is_the_rectangle_enlarged(pictures):
    ramp = np.arange(SIZE) * 8.0
    ramps = np.tile(np.stack(np.broadcast_arrays(ramp[:, None], ramp, 0.0), axis=-1), (N, 1, 1, 1)).astype(np.float32)
    resized = compiled("resized_crop(smallest=0.3, largest=0.6)", "resized_crop(smallest=1.0)")
    cut = np.asarray(resized(jax.random.key(4), ramps)[0])
    inner = cut[:, 4:12, 4:12]  # what lies beyond the outermost centres is level
    height, width = inner[:, 1:, 0, 0] - inner[:, :-1, 0, 0], inner[:, 0, 1:, 1] - inner[:, 0, :-1, 1]
    assert np.ptp(height, axis=1).max() < 1e-3 and np.ptp(width, axis=1).max() < 1e-3  # a linear enlargement
    area = height[:, 0] * width[:, 0] / 64
    assert 0.3 <= area.min() < 0.37 and 0.53 < area.max() <= 0.6
    whole = resized(jax.random.key(4), pictures)[1]
    np.testing.assert_allclose(whole, pictures, atol=1e-2)


def test_photometric_changes_what_its_options_name(pictures):
    off = {"probability": 1.0, "brightness": 0.0, "contrast": 0.0, "saturation": 0.0}
    options = {}, {"brightness": 0.5}, {"contrast": 0.5}, {"saturation": 0.5, "hue": 0.1}
    dark = np.asarray(pictures) / 4 + 64  # nothing is clipped
    weights = np.array([0.299, 0.587, 0.114])
    change = jax.jit(lambda key, x: [augment.photometric(key, x, **off | some) for some in options])
    same, brightened, contrasted, coloured = map(np.asarray, change(jax.random.key(5), dark))
    np.testing.assert_allclose(same, dark, atol=1e-2)
    factor = brightened / dark
    assert np.ptp(factor, axis=(1, 2, 3)).max() < 1e-3 and 0.5 < factor.min() < 0.6 and 1.4 < factor.max() < 1.5
    np.testing.assert_allclose((contrasted @ weights).mean((1, 2)), (dark @ weights).mean((1, 2)), rtol=1e-4)
    ratio = contrasted.std((1, 2, 3)) / dark.std((1, 2, 3))
    assert 0.5 < ratio.min() < 0.6 and 1.4 < ratio.max() < 1.5
    np.testing.assert_allclose(coloured @ weights, dark @ weights, atol=0.1)
    assert np.abs(coloured - dark).max() > 5
    grey = np.asarray(jax.jit(augment._chroma)(np.zeros(1), np.zeros(1)))[0]
    np.testing.assert_allclose(grey, np.tile(weights, (3, 1)), atol=1e-5)


def test_low_resolution_is_a_linear_resize_there_and_back():
    smooth = np.linspace(0, 255, 32)[:, None] * np.ones((32, 1)) / 2 + np.linspace(0, 127, 32)
    picture = Image.fromarray(smooth.astype(np.float32), "F")
    expected = np.asarray(picture.resize((8, 8), Image.Resampling.BILINEAR).resize((32, 32), Image.Resampling.BILINEAR))
    matrix = np.asarray(jax.jit(augment._shrink_and_enlarge, static_argnums=0)(32, np.array([0.25, 1.0])))
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
        (("erase(smallest=0.5)",), "erase has smallest=0.5 above largest=0.4"),
        (("randaugment(layers=0)",), "layers are 1 or more"),
        (("randaugment(magnitude=31)",), "magnitude is 0..30"),
        (("randaugment", "randaugment(layers=2)"), "choose one"),
    ],
)
def test_bad_names_are_told_in_one_line(names, line):
    with pytest.raises(UserError, match=line):
        augment.check(names)
