"""Augmentations against reference arrays, their gradients, and the control of their probability."""

import functools
import json
import math
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sface_jax.core.errors import UserError
from sface_jax.gan import augment
from tests.gan.conftest import nhwc

TOLERANCE = 1e-4  # of pictures in [-1, 1]; the fixtures ask for 2e-3


def neutral(n: int) -> dict[str, np.ndarray]:
    drawn = augment.draw(jax.random.key(0), n, 0.0, augment.SETS["bgcfnc"])
    return {name: np.asarray(getattr(drawn, name)) for name in augment.Transforms.__dataclass_fields__}


def transforms(n: int, **values: object) -> augment.Transforms:
    """Neutral but for the given values, scalars or one for each picture."""
    fields = neutral(n)
    for name, value in values.items():
        value = np.asarray(value, np.float32)
        if value.shape[:1] == (n,) and value.ndim < fields[name].ndim:
            value = value[:, None]
        fields[name] = np.broadcast_to(value, fields[name].shape).astype(np.float32)
    return augment.Transforms(**fields)


FIELDS = {  # name of a value in the reference -> field here, and the transform that it belongs to
    "xflip_i": ("xflip", "xflip"),
    "rotate90_i": ("rotate90", "rotate90"),
    "xint_t": ("xint", "xint"),
    "scale_s": ("scale", "scale"),
    "rotate_theta_pre": ("rotate_pre", "rotate"),
    "rotate_theta_post": ("rotate_post", "rotate"),
    "aniso_s": ("aniso", "aniso"),
    "xfrac_t": ("xfrac", "xfrac"),
    "brightness_b": ("brightness", "brightness"),
    "contrast_c": ("contrast", "contrast"),
    "lumaflip_i": ("lumaflip", "lumaflip"),
    "hue_theta": ("hue", "hue"),
    "saturation_s": ("saturation", "saturation"),
    "imgfilter_t": ("imgfilter", "imgfilter"),
    "noise_sigma": ("noise", "noise"),
    "cutout_size": ("cutout_size", "cutout"),
    "cutout_center": ("cutout_center", "cutout"),
}


def erfinv(x: float) -> float:
    return float(jax.scipy.special.ndtri((x + 1) / 2)) / math.sqrt(2)


def values_at(q: float) -> dict[str, float]:
    """The values of percentile q, as the reference's README defines them."""
    return {
        "xflip_i": math.floor(2 * q), "rotate90_i": math.floor(4 * q), "xint_t": 0.125 * (2 * q - 1),
        "scale_s": 2 ** (0.2 * erfinv(2 * q - 1)), "rotate_theta_pre": math.pi * (2 * q - 1), "rotate_theta_post": 0.0,
        "aniso_s": 2 ** (0.2 * erfinv(2 * q - 1)), "xfrac_t": 0.125 * erfinv(2 * q - 1),
        "brightness_b": 0.2 * erfinv(2 * q - 1), "contrast_c": 2 ** (0.5 * erfinv(2 * q - 1)),
        "lumaflip_i": math.floor(2 * q), "hue_theta": math.pi * (2 * q - 1), "saturation_s": 2 ** erfinv(2 * q - 1),
        "imgfilter_t": 2 ** erfinv(2 * q - 1), "noise_sigma": 0.1 * erfinv(q), "cutout_size": 0.5, "cutout_center": q,
    }  # fmt: skip


@functools.partial(jax.jit, static_argnums=2)
def applied(images, drawn, kinds):
    return augment.apply(images, drawn, kinds)


def error(ours: jax.Array, theirs: np.ndarray) -> float:
    return float(np.abs(np.asarray(ours) - nhwc(theirs)).max())


@pytest.fixture(scope="module")
def arrays(reference):
    return reference.load("augment.npz")


def test_every_transform_alone_and_in_groups(arrays):
    bad, count = {}, 0
    for key in arrays:
        if not (found := re.fullmatch(r"(nonsquare/)?out/(\w+)/q(.+)", key)):
            continue
        prefix, name, q = found.groups()
        images = nhwc(arrays[f"{prefix or ''}images"])
        kinds = augment.kinds_of(name)
        given = {
            field: value
            for name, value in values_at(float(q)).items()
            for field, kind in [FIELDS[name]]
            if kind in kinds
        }
        if name == "noise":
            ours = images + transforms(2, **given).noise[:, None, None, None] * nhwc(arrays["noise_unit"])
        else:
            ours = applied(images, transforms(2, **given), kinds)
        count += 1
        if error(ours, arrays[key]) > TOLERANCE:
            bad[key] = error(ours, arrays[key])
    assert count == 67 and not bad


@pytest.mark.parametrize("probability", ["1", "0.5"])
def test_values_drawn_for_each_picture(arrays, probability):
    def get(name):
        return arrays[f"random_p{probability}/{name}"]

    images = nhwc(get("images"))
    names = [name.split("/")[-1] for name in arrays if name.startswith(f"random_p{probability}/params/")]
    given = transforms(len(images), **{FIELDS[name][0]: get(f"params/{name}") for name in names})
    np.testing.assert_allclose(augment.geometry(given, *images.shape[1:3]), get("G_inv"), atol=1e-4)
    np.testing.assert_allclose(augment.colours(given), get("C"), atol=1e-4)
    assert error(applied(images, given, augment.SETS["bgc"]), get("out_bgc")) < TOLERANCE
    assert error(applied(images, given, augment.SETS["bg"]), get("out_bg")) < TOLERANCE


def test_filters_are_those_of_the_reference(arrays):
    np.testing.assert_allclose(augment.SYMLET6, arrays["const/Hz_geom"], atol=1e-7)
    np.testing.assert_allclose(augment.filter_bank(), arrays["const/Hz_fbank"], atol=1e-7)


def test_probability_follows_the_worked_examples(reference):
    examples = json.loads((reference.folder / "schedule.json").read_text())["ada_examples"]
    for told in examples:
        shown = told["batch_size"] * told["ada_interval"]
        after = augment.next_probability(
            jnp.float32(told["p_before"]), jnp.float32(told["r_t"]), shown, told["target"], float(told["ada_kimg"])
        )
        np.testing.assert_allclose(after, told["p_after_float32"], atol=1e-7)


def test_bands_sum_to_the_picture():
    np.testing.assert_allclose(augment.filter_bank().sum(0), np.eye(43)[21], atol=1e-7)
    images = np.random.default_rng(0).normal(size=(2, 8, 12, 3)).astype(np.float32)
    np.testing.assert_allclose(augment.filter_bands(images, np.ones((2, 4), np.float32)), images, atol=1e-5)


@settings(max_examples=5, deadline=None)
@given(st.integers(0, 1000), st.floats(0.05, 1.0))
def test_each_transform_is_on_as_often_as_asked(seed, p):
    kinds = augment.SETS["bgcfnc"]
    drawn = jax.jit(augment.draw, static_argnums=(1, 3))(jax.random.key(seed), 2000, p, kinds)
    off = neutral(2000)
    on = {name: np.mean(np.asarray(getattr(drawn, name)) != off[name]) for name in off if name != "cutout_center"}
    for name in (
        "xint",
        "scale",
        "aniso",
        "xfrac",
        "brightness",
        "contrast",
        "hue",
        "saturation",
        "noise",
        "cutout_size",
    ):
        assert abs(on[name] - p) < 0.06, name
    for name in ("xflip", "lumaflip"):  # half of what is drawn is no flip
        assert abs(on[name] - p / 2) < 0.06, name
    either = (np.asarray(drawn.rotate_pre) != 0) | (np.asarray(drawn.rotate_post) != 0)
    assert abs(either.mean() - p) < 0.06
    np.testing.assert_array_equal(drawn.cutout_size[:5] > 0, np.isclose(drawn.cutout_size[:5], 0.5))


def test_what_is_not_asked_for_stays_neutral():
    drawn = augment.draw(jax.random.key(0), 50, 1.0, ("hue",))
    fields = neutral(50)
    moved = {name for name in fields if name != "cutout_center" and np.any(getattr(drawn, name) != fields[name])}
    assert moved == {"hue"}


def test_second_derivatives_are_those_of_differences():
    """The penalty of R1 through the augmentation: its derivative by a scale of the pictures."""
    kinds = augment.SETS["bgcf"]
    images = jax.random.normal(jax.random.key(1), (2, 8, 8, 3))
    drawn = augment.draw(jax.random.key(2), 2, 1.0, kinds)

    @jax.jit
    def penalty(x):
        gradient = jax.grad(lambda x: jnp.sum(jnp.tanh(augment.apply(x, drawn, kinds)) ** 2))(x)
        return jnp.sum(gradient**2)

    direction = jax.random.normal(jax.random.key(3), images.shape)
    step = 1e-2
    expected = (penalty(images + step * direction) - penalty(images - step * direction)) / (2 * step)
    found = jnp.vdot(jax.jit(jax.grad(penalty))(images), direction)
    np.testing.assert_allclose(found, expected, rtol=2e-2)


def test_names_of_transforms():
    assert augment.kinds_of("") == ()
    assert augment.kinds_of("hue, xflip") == ("xflip", "hue")
    with pytest.raises(UserError, match="did you mean 'rotate'"):
        augment.kinds_of("rotat")
