"""Changes made to training pictures on the device, each a function of a key; a config names them in order."""

from __future__ import annotations

from collections.abc import Sequence

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key

from sface_jax.core.errors import UserError

SHIFT = 1 / 16
"""Largest translation, as a share of the picture's side."""

GAIN = 0.2
"""Largest change of brightness and contrast, as a factor off 1."""


def flip(key: Key[Array, ""], pictures: Float[Array, "n h w c"]) -> Float[Array, "n h w c"]:
    """Mirrors each picture with probability 1/2."""
    mirrored = jax.random.bernoulli(key, 0.5, (len(pictures), 1, 1, 1))
    return jnp.where(mirrored, pictures[:, :, ::-1], pictures)


def translate(key: Key[Array, ""], pictures: Float[Array, "n h w c"]) -> Float[Array, "n h w c"]:
    """Shifts each picture by whole pixels, up to `SHIFT` of its side; its edge is repeated."""
    n, height, width, _ = pictures.shape
    limit = max(1, round(SHIFT * max(height, width)))
    shifts = jax.random.randint(key, (n, 2), -limit, limit + 1)
    rows = jnp.clip(jnp.arange(height) + shifts[:, :1], 0, height - 1)  # [n,h]
    columns = jnp.clip(jnp.arange(width) + shifts[:, 1:], 0, width - 1)  # [n,w]
    return jax.vmap(lambda picture, row, column: picture[row][:, column])(pictures, rows, columns)


def light(key: Key[Array, ""], pictures: Float[Array, "n h w c"]) -> Float[Array, "n h w c"]:
    """Scales each picture's brightness and its contrast about its mean, each by a factor within 1 +- `GAIN`."""
    brightness, contrast = jax.random.uniform(key, (2, len(pictures), 1, 1, 1), minval=1 - GAIN, maxval=1 + GAIN)
    mean = pictures.mean((1, 2, 3), keepdims=True)
    return jnp.clip((mean + (pictures - mean) * contrast) * brightness, 0, 255)


AUGMENTATIONS = {"flip": flip, "translate": translate, "light": light}


def check(names: Sequence[str]) -> None:
    """Raises UserError where a name is none of `AUGMENTATIONS`."""
    unknown = [name for name in names if name not in AUGMENTATIONS]
    if unknown:
        raise UserError(f"config.augmentations has {unknown[0]!r}: choose from {', '.join(AUGMENTATIONS)}")


def apply(names: Sequence[str], key: Key[Array, ""], pictures: Float[Array, "n h w c"]) -> Float[Array, "n h w c"]:
    """Applies the named changes in order.

    Args:
        names: of `AUGMENTATIONS`.
        key: all draws come from it.
        pictures: 0..255.
    """
    for i, name in enumerate(names):
        pictures = AUGMENTATIONS[name](jax.random.fold_in(key, i), pictures)
    return pictures
