"""A trained discriminator as an attacker uses it: how authentic it finds pictures, under every label at once."""

from __future__ import annotations

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Float32, UInt8

from sface_jax.core import pictures, rng
from sface_jax.core.arrays import AnyArray
from sface_jax.gan import network
from sface_jax.gan.discriminator import Discriminator, Epilogue
from sface_jax.gan.generator import Mapping, channels_at

BATCH = 64  # pictures


class Scorer:
    """The logits of pictures under a discriminator.

    In training the minibatch standard deviation makes a logit depend on the other pictures of its group. Here every
    picture is grouped with the same companions, pictures of the generator, so that its logits are its own.

    Attributes:
        size: height and width of the pictures that the discriminator learned from; others are resized to it.
        classes: its labels, those of the generator.
    """

    def __init__(self, discriminator: Discriminator, variables: dict[str, Any], companions: Float[AnyArray, "k h w 3"]):
        """Compiles nothing yet.

        Args:
            discriminator: conditional or not.
            variables: its weights.
            companions: pictures in [-1, 1], one less than a group has; more are left out.
        """
        self.size, self.classes = discriminator.image_size - 2 * discriminator.crop, discriminator.num_classes
        group = discriminator.mbstd_group_size if discriminator.mbstd_channels else 1
        self._companions, self._variables = jnp.asarray(companions[: group - 1]), variables
        self._logits = jax.jit(lambda variables, images: _logits(discriminator, variables, images, self._companions))

    def __call__(self, images: UInt8[np.ndarray, "n h w 3"]) -> Float32[np.ndarray, "n c"]:
        """Scores RGB pictures 0..255: a logit for each label, or one column where the discriminator knows none."""
        found = []
        for start in range(0, len(images), BATCH):
            part = images[start : start + BATCH]
            padded = np.concatenate([part, np.zeros((BATCH - len(part), *part.shape[1:]), np.uint8)])
            found.append(np.asarray(self._logits(self._variables, padded))[: len(part)])
        return np.concatenate(found)


def open_discriminator(directory: str, checkpoint: str = "best") -> Scorer | None:
    """Opens the discriminator that goes with the generator in a folder that stage gan or convert wrote.

    Args:
        directory: the folder, such as `workdir/gan`.
        checkpoint: "best" or "latest", see `network.load`.

    Returns:
        What scores pictures; None where a converted generator came without its discriminator.

    Raises:
        UserError: see `network.load`.
    """
    discriminator, variables = network.load_discriminator(directory, checkpoint)
    if variables is None:
        return None
    generator, weights, _ = network.load(directory, checkpoint)
    count = max(discriminator.mbstd_group_size - 1, 0)
    labels = jnp.arange(count) % max(generator.num_classes, 1)

    @jax.jit
    def draw(weights: dict[str, Any]) -> Float[Array, "k h w 3"]:
        z = jax.random.normal(rng.stream(0, "gan/companions"), (count, generator.z_dim))
        ws = generator.apply(weights, z, labels, method="map")
        return generator.apply(weights, ws, noise="const", method="synthesize")

    return Scorer(discriminator, variables, draw(weights))


def _logits(
    discriminator: Discriminator,
    variables: dict[str, Any],
    images: UInt8[AnyArray, "n h w 3"],
    companions: Float[Array, "k s s 3"],
) -> Float[Array, "n c"]:
    """logit_c = f(x) . e(c) / sqrt(d), the features f of every picture made once for all labels."""
    count, weights = len(images), variables["params"]
    size = discriminator.image_size - 2 * discriminator.crop
    x = pictures.from_uint8(images)
    if x.shape[1:3] != (size, size):
        x = jax.image.resize(x, (count, size, size, 3), "bilinear")
    maps = _maps(discriminator, variables, jnp.concatenate([x, companions]))  # [n + k, 4, 4, channels]
    # with groups of k + 1 of the n (k + 1) rows, row i stands with rows i + n, i + 2n, ...: one of each companion
    maps = jnp.concatenate([maps[:count], jnp.repeat(maps[count:], count, axis=0)])
    last = channels_at(4, discriminator.channel_base, discriminator.channel_max)
    width = (discriminator.cmap_dim or last) if discriminator.num_classes else 1
    epilogue = Epilogue(
        last,
        width + discriminator.unconditional_head,
        discriminator.mbstd_group_size,
        discriminator.mbstd_channels,
    )
    features = epilogue.apply({"params": weights["b4"]}, maps)[:count]
    if not discriminator.num_classes:
        return features[:, :1]
    mapping = Mapping(width, discriminator.num_classes, discriminator.mapping_layers)
    labels = mapping.apply({"params": weights["mapping"]}, None, jnp.arange(discriminator.num_classes))
    logits = jnp.matmul(features[:, :width], labels.T, precision="highest") / math.sqrt(width)
    return logits + features[:, width:] if discriminator.unconditional_head else logits


def _maps(discriminator: Discriminator, variables: dict[str, Any], images: Float[Array, "n h w 3"]) -> Array:
    """What the last block hands to the end of the discriminator."""
    _, kept = discriminator.apply(
        variables,
        images,
        jnp.zeros(len(images), jnp.int32),
        capture_intermediates=lambda module, _: module.name == "b8",
        mutable=["intermediates"],
    )
    return kept["intermediates"]["b8"]["__call__"][0].astype(jnp.float32)
