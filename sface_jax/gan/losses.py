"""Losses of the generator and the discriminator, as pure functions."""

from __future__ import annotations

import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Bool, Float, Int

from sface_jax.core.arrays import AnyArray

Logits = Float[AnyArray, " n"]
Images = Float[AnyArray, "n h w c"]
Styles = Float[AnyArray, "n l d"]


def generator_loss(fake_logits: Logits) -> Float[AnyArray, ""]:
    """Non-saturating logistic loss of G: mean softplus(-D(G(z))) (Goodfellow et al. 2014)."""
    return jnp.mean(jax.nn.softplus(-fake_logits))


def discriminator_loss(real_logits: Logits, fake_logits: Logits) -> Float[AnyArray, ""]:
    """Logistic loss of D: mean softplus(D(G(z))) + mean softplus(-D(x))."""
    return jnp.mean(jax.nn.softplus(fake_logits)) + jnp.mean(jax.nn.softplus(-real_logits))


def r1_penalty(
    logits_of: Callable[[Images], Logits], real: Images
) -> tuple[Float[AnyArray, " n"], Float[AnyArray, " n"]]:
    """Squared norm of the gradient of D at authentic pictures (Mescheder et al. 2018): ||d sum D(x) / dx||^2.

    Args:
        logits_of: D with its parameters and labels bound, and its augmentation, if any.
        real: authentic pictures, in [-1, 1].

    Returns:
        The penalty of each picture, of which gamma / 2 times the mean is the regulariser; and its logit.
    """

    def total(x: Images) -> tuple[Float[AnyArray, ""], Logits]:
        logits = logits_of(x)
        return jnp.sum(logits), logits

    gradient, logits = jax.grad(total, has_aux=True)(real.astype(jnp.float32))
    return jnp.sum(jnp.square(gradient), axis=(1, 2, 3)), logits


def path_lengths(render: Callable[[Styles], Images], ws: Styles, directions: Images) -> Float[AnyArray, " n"]:
    """How far a random step in pictures reaches back in w: sqrt(mean_l sum_w (J^T y)^2), StyleGAN2 section 3.2.

    Args:
        render: G's synthesis with its parameters and noise bound.
        ws: style vectors; each of the l vectors of a picture is a variable of its own.
        directions: unit normal, of the pictures' shape; y is that over sqrt(height * width).
    """
    y = directions / math.sqrt(directions.shape[1] * directions.shape[2])
    gradient = jax.grad(lambda ws: jnp.sum(render(ws) * y))(ws)
    return jnp.sqrt(jnp.mean(jnp.sum(jnp.square(gradient), axis=2), axis=1))


def path_length_penalty(
    lengths: Float[AnyArray, " n"], mean: Float[AnyArray, ""], decay: float
) -> tuple[Float[AnyArray, " n"], Float[AnyArray, ""]]:
    """Squared distance of path lengths from their running mean, which takes part in the gradient.

        a <- a + decay (mean(lengths) - a),   penalty = (lengths - a)^2

    Returns:
        The penalty of each picture, and the new mean, free of gradients.
    """
    mean = mean + decay * (jnp.mean(lengths) - mean)
    return jnp.square(lengths - mean), jax.lax.stop_gradient(mean)


def identity_separation(
    features: Float[AnyArray, "n d"], labels: Int[AnyArray, " n"], margin: float
) -> Float[AnyArray, ""]:
    """Pulls generated pictures of a class together and those of two classes apart, as a recogniser sees them.

        mean over pairs of one class of (1 - s)  +  mean over pairs of two classes of max(0, s - margin)

    After IDnet (Kolf et al. 2023), which lets a recogniser take part in the GAN's game; here it is fixed.

    Args:
        features: of length one.
        labels: classes.
        margin: cosine below which two identities are far enough apart.
    """
    similarity = features @ features.T
    same = labels[:, None] == labels[None, :]
    pair = ~jnp.eye(len(labels), dtype=bool)

    def mean(values: Float[AnyArray, "n n"], among: Bool[AnyArray, "n n"]) -> Float[AnyArray, ""]:
        return jnp.sum(jnp.where(among, values, 0.0)) / jnp.maximum(jnp.sum(among), 1)

    return mean(1 - similarity, same & pair) + mean(jnp.maximum(0.0, similarity - margin), ~same)
