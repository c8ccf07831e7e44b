"""Procedural faces: labelled pictures of people who do not exist.

A person is a draw of `IDENTITY`, a picture a draw of `PICTURE`: uniform, independent parameters, pure functions of
(seed, identity) and of (seed, identity, index). `face_anatomy` turns them into shapes, `face_drawing` draws the shapes,
and this module holds the camera, the light and the batch.

How hard they are: verification of 200 unseen people at 32 pixels, 10 folds of 600 pairs, half of them the same person,
after fitting on 256 other people with 40 pictures each:

    pixels, Euclidean distance                                   0.634
    pixels, cosine                                               0.655
    PCA, best of 5..512 dimensions, unwhitened / whitened        0.683 / 0.729
    a small residual network, CosFace, 4 epochs                  0.963
"""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Integer, Key, UInt8

from sface_jax.core.errors import UserError
from sface_jax.data.face_anatomy import Parameters, hue, layers
from sface_jax.data.face_drawing import Stack, composite, pile, ripple

IntLike = int | Integer[Array, ""]
RANDOM_BITS = "threefry2x32"
SMALLEST, LARGEST = 16, 256
# Samples along each side of a pixel: shapes antialias themselves, but shapes thinner than a pixel need this.
SUPERSAMPLING = 2
# Pictures whose shapes are worked out at once, and pixels drawn at once: few enough for the coverage of all layers to
# stay in the cache. Batches are padded to them, so that there is one program for the shapes and one a size.
CHUNK = 64
PIXELS = 16 * 32 * 32

# Lengths in halves of the picture, angles in radians; what is between 0 and 1 is a share or a choice.
IDENTITY: dict[str, tuple[float, float]] = {
    "skin": (0.0, 1.0),
    "undertone": (-1.0, 1.0),
    "blush": (0.0, 0.35),
    "face_width": (0.45, 0.60),
    "jaw_square": (0.0, 0.9),
    "jaw_taper": (0.0, 0.6),
    "chin": (0.64, 0.84),
    "skull": (-0.84, -0.66),
    "ear_size": (0.09, 0.17),
    "hairline": (-0.56, -0.34),
    "hairline_square": (0.0, 0.7),
    "hair_tone": (0.0, 1.0),
    "hair_dyed": (0.0, 1.0),
    "hair_hue": (0.0, 1.0),
    "hair_style": (0.0, 1.0),
    "hair_volume": (0.02, 0.20),
    "hair_sides": (0.02, 0.20),
    "hair_length": (0.0, 1.0),
    "hair_curl": (0.0, 1.0),
    "hair_part": (-1.0, 1.0),
    "fringe": (0.0, 1.0),
    "fringe_drop": (0.06, 0.25),
    "eye_spacing": (0.19, 0.29),
    "eye_height": (-0.11, 0.0),
    "eye_width": (0.085, 0.135),
    "eye_open": (0.030, 0.070),
    "eye_tilt": (-0.25, 0.25),
    "iris_tone": (0.0, 1.0),
    "iris_size": (0.045, 0.065),
    "lid": (0.010, 0.030),
    "brow_gap": (0.11, 0.19),
    "brow_thickness": (0.014, 0.050),
    "brow_length": (0.10, 0.17),
    "brow_tilt": (-0.25, 0.25),
    "brow_arch": (0.0, 2.0),
    "brow_tone": (0.3, 1.0),
    "nose_length": (0.22, 0.36),
    "nose_width": (0.055, 0.125),
    "nose_bridge": (0.0, 1.0),
    "mouth_height": (0.32, 0.50),
    "mouth_width": (0.13, 0.24),
    "upper_lip": (0.014, 0.048),
    "lower_lip": (0.024, 0.066),
    "lip_red": (0.0, 1.0),
    "beard": (0.0, 1.0),
    "beard_length": (0.0, 0.14),
    "mole": (0.0, 1.0),
    "mole_x": (-0.2, 0.2),
    "mole_y": (0.05, 0.5),
}
PICTURE: dict[str, tuple[float, float]] = {
    "yaw": (-1.0, 1.0),
    "pitch": (-1.0, 1.0),
    "roll": (-1.0, 1.0),
    "shift_x": (-0.08, 0.08),
    "shift_y": (-0.08, 0.08),
    "scale": (1.0, 1.22),
    "smile": (-0.4, 1.0),
    "mouth_open": (0.0, 1.0),
    "brow_raise": (-0.02, 0.04),
    "frown": (-0.15, 0.15),
    "eye_opening": (0.55, 1.15),
    "gaze_x": (-1.0, 1.0),
    "gaze_y": (-1.0, 1.0),
    "hair_fall": (-1.0, 1.0),
    "light_x": (-1.0, 1.0),
    "light_y": (-0.9, 0.3),
    "light_contrast": (0.15, 0.75),
    "brightness": (-0.45, 0.20),
    "warmth": (-0.16, 0.16),
    "tint": (-0.05, 0.05),
    "back_angle": (0.0, 2 * np.pi),
    "back_grey0": (0.1, 0.9),
    "back_grey1": (0.1, 0.9),
    "back_hue0": (0.0, 1.0),
    "back_hue1": (0.0, 1.0),
    "back_chroma": (0.0, 0.5),
    "cloth_red": (0.05, 0.95),
    "cloth_green": (0.05, 0.95),
    "cloth_blue": (0.05, 0.95),
    "collar": (0.0, 1.0),
    "occluder": (0.0, 1.0),
    "occluder_red": (0.05, 0.95),
    "occluder_green": (0.05, 0.95),
    "occluder_blue": (0.05, 0.95),
    "occluder_x": (-1.0, 1.0),
    "occluder_y": (-1.0, 1.0),
    "blur": (0.0, 1.0),
    "noise": (0.005, 0.035),
}


def identity_parameters(seed: int, identity: IntLike) -> Parameters:
    """What makes a person: one scalar for each name in `IDENTITY`, uniform in its range."""
    return _identity(_person_key(_seed_key(seed), identity))


def picture_parameters(seed: int, identity: IntLike, index: IntLike) -> Parameters:
    """What varies between pictures of a person: one scalar for each name in `PICTURE`, uniform in its range."""
    return _picture(_picture_key(_person_key(_seed_key(seed), identity), index))


def render(
    seed: int, identities: Integer[np.ndarray, " n"], indices: Integer[np.ndarray, " n"], size: int
) -> UInt8[np.ndarray, "n {size} {size} 3"]:
    """Draws picture number `indices[i]` of person number `identities[i]`.

    Args:
        seed: chooses the population; 0 or more.
        identities: 0 or more, below 2^32.
        indices: 0 or more, below 2^32.
        size: width and height in pixels, 16 to 256.

    Returns:
        RGB pictures, roughly aligned: the eyes a little above the middle, the face filling the picture. Each is a
        function of (seed, identity, index, size) alone, bit for bit on one machine, whatever it is drawn with.

    Raises:
        UserError: `size` is out of range.
    """
    if not SMALLEST <= size <= LARGEST:
        raise UserError(f"procedural faces are {SMALLEST} to {LARGEST} pixels wide, not {size}")
    key, pictures = _seed_key(seed), np.empty((len(identities), size, size, 3), np.uint8)
    step = min(CHUNK, max(1, PIXELS // (size * size)))
    for start in range(0, len(identities), CHUNK):
        chunk = pictures[start : start + CHUNK]
        numbers = (one[start : start + CHUNK].astype(np.uint32) for one in (identities, indices))
        scenes = jax.device_get(_arrange(key, *(np.pad(one, (0, CHUNK - len(chunk))) for one in numbers)))
        for first in range(0, len(chunk), step):
            part = chunk[first : first + step]
            few = jax.tree.map(lambda leaf, first=first: leaf[first : first + step], scenes)
            part[:] = np.asarray(_develop(few, size))[: len(part)]
    return pictures


def _seed_key(seed: int) -> Key[Array, ""]:
    return jax.random.key(seed, impl=RANDOM_BITS)


def _person_key(seed_key, identity):
    return jax.random.fold_in(seed_key, identity)


def _picture_key(person_key, index):
    # The person's own parameters are drawn from `person_key` folded with 0.
    return jax.random.fold_in(jax.random.fold_in(person_key, 1), index)


def _identity(person_key) -> Parameters:
    return _uniform(jax.random.fold_in(person_key, 0), IDENTITY)


def _picture(picture_key) -> Parameters:
    return _uniform(jax.random.fold_in(picture_key, 0), PICTURE)


def _uniform(key, ranges: dict[str, tuple[float, float]]) -> Parameters:
    low, high = jnp.asarray(list(ranges.values()), jnp.float32).T
    values = low + (high - low) * jax.random.uniform(key, (len(ranges),), jnp.float32)
    return {name: values[i] for i, name in enumerate(ranges)}


# Two programs: what does not depend on the size, most of the compile time, is compiled once; see also `Stack`.
@jax.jit
def _arrange(seed_key, identities, indices):
    """Parameters of the people and of the pictures, stacks of layers, and the bits of keys for the grain."""

    def one(identity, index):
        person = _person_key(seed_key, identity)
        key = _picture_key(person, index)
        p, q = _identity(person), _picture(key)
        return p, q, pile(layers(p, q)), jax.random.key_data(jax.random.fold_in(key, 1))

    return jax.vmap(one)(identities, indices)


@partial(jax.jit, static_argnames="size")
def _develop(scenes, size: int) -> UInt8[Array, "n {size} {size} 3"]:
    def one(p, q, stack, grain_bits):
        picture = _blur(_photograph(p, q, stack, size), 0.6 * q["blur"] ** 3 * size / 32)
        picture = picture + q["noise"] * _grain(jax.random.wrap_key_data(grain_bits, impl=RANDOM_BITS), picture.shape)
        return jnp.round(jnp.clip(picture, 0.0, 1.0) * 255.0).astype(jnp.uint8)

    return jax.vmap(one)(*scenes)


def _photograph(p: Parameters, q: Parameters, stack: Stack, size: int) -> Float[Array, "{size} {size} 3"]:
    """The noiseless picture, 0..1 and sometimes above."""
    samples = SUPERSAMPLING * size
    axis = (jnp.arange(samples, dtype=jnp.float32) + 0.5) * (2.0 / samples) - 1.0
    screen_y, screen_x = jnp.meshgrid(axis, axis, indexing="ij")
    roll = 0.22 * q["roll"] * jnp.abs(q["roll"])
    cos, sin = jnp.cos(roll) / q["scale"], jnp.sin(roll) / q["scale"]
    dx, dy = screen_x - q["shift_x"], screen_y - q["shift_y"]
    x, y = cos * dx + sin * dy, cos * dy - sin * dx
    amplitude, frequency = 0.05 * jnp.maximum(0.0, p["hair_curl"] - 0.4), 3.0 + 3.0 * p["hair_length"]
    ripple_x, ripple_y = amplitude * ripple(frequency * y), amplitude * ripple(frequency * x)

    canvas = [*_background(q, screen_x, screen_y), jnp.zeros_like(x), jnp.zeros_like(x)]
    *colours, relief, strands = composite(canvas, stack, x, y, ripple_x, ripple_y)
    # The strands of the hair fan out from the crown.
    fan = (x + ripple_x) / (0.5 + jnp.abs(y + ripple_y - p["skull"]))
    texture = 0.05 * ripple(5.0 * fan + p["hair_part"]) + 0.07 * ripple(13.0 * fan + 0.5 * y)
    light = (1.0 + relief * q["light_contrast"] * (1.25 * _lambert(q, x, y) - 0.85)) * (1.0 + strands * texture)
    gains = jnp.exp(q["brightness"]) * jnp.stack([1.0 + q["warmth"], 1.0 + q["tint"], 1.0 - q["warmth"]])
    picture = jnp.stack([colour * light * gains[i] for i, colour in enumerate(colours)], -1)
    return picture.reshape(size, SUPERSAMPLING, size, SUPERSAMPLING, 3).mean((1, 3))


def _background(q: Parameters, x: Float[Array, "h w"], y: Float[Array, "h w"]) -> list[Float[Array, "h w"]]:
    """A gradient between two muted colours."""
    first, second = (q[f"back_grey{i}"] + q["back_chroma"] * (hue(q[f"back_hue{i}"]) - 0.5) for i in (0, 1))
    along = jnp.clip(0.5 + 0.5 * (x * jnp.cos(q["back_angle"]) + y * jnp.sin(q["back_angle"])), 0.0, 1.0)
    return [jnp.clip(first[c] + along * (second[c] - first[c]), 0.0, 1.0) for c in range(3)]


def _lambert(q: Parameters, x: Float[Array, "h w"], y: Float[Array, "h w"]) -> Float[Array, "h w"]:
    """Lambert's law, max(0, normal . light), on an ellipsoid that stands for the head."""
    u, v = x / 0.68, (y - 0.02) / 0.95
    w = jnp.sqrt(jnp.maximum(1.0 - u * u - v * v, 0.02))
    to_light = jnp.stack([q["light_x"], q["light_y"], jnp.float32(0.775)])
    a, b, c = to_light / jnp.linalg.norm(to_light)
    return jnp.maximum(a * u + b * v + c * w, 0.0)


def _blur(picture: Float[Array, "size size 3"], sigma: Float[Array, ""]) -> Float[Array, "size size 3"]:
    """A separable Gaussian blur; sigma in pixels."""
    size = picture.shape[0]
    reach = max(2, size // 16)
    taps = jnp.exp(-0.5 * (jnp.arange(-reach, reach + 1) / (sigma + 0.1)) ** 2)
    taps = taps / taps.sum()
    for axis in (0, 1):
        wide = jnp.pad(picture, [(reach, reach) if a == axis else (0, 0) for a in range(3)], mode="edge")
        picture = sum(taps[i] * jax.lax.slice_in_dim(wide, i, i + size, axis=axis) for i in range(2 * reach + 1))
    return picture


def _grain(key: Key[Array, ""], shape: tuple[int, ...]) -> Float[Array, "..."]:
    """Noise of mean 0 and variance 1: the sum of four random bytes, near enough to a Gaussian and much cheaper."""
    four = jax.lax.bitcast_convert_type(jax.random.bits(key, shape, jnp.uint32), jnp.uint8)
    return (four.astype(jnp.float32).sum(-1) - 510.0) / 147.8
