"""Losses of the generator and the discriminator, as pure functions."""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Float

from sface_jax.core.arrays import AnyArray

Logits = Float[AnyArray, " n"]
Images = Float[AnyArray, "n h w c"]


def generator_loss(fake_logits: Logits) -> Float[AnyArray, ""]:
    """Non-saturating logistic loss of G: mean softplus(-D(G(z))) (Goodfellow et al. 2014)."""
    return jnp.mean(jax.nn.softplus(-fake_logits))


def discriminator_loss(real_logits: Logits, fake_logits: Logits) -> Float[AnyArray, ""]:
    """Logistic loss of D: mean softplus(D(G(z))) + mean softplus(-D(x))."""
    return jnp.mean(jax.nn.softplus(fake_logits)) + jnp.mean(jax.nn.softplus(-real_logits))


def r1_penalty(logits_of: Callable[[Images], Logits], real: Images) -> Float[AnyArray, " n"]:
    """Squared norm of the gradient of D at authentic pictures (Mescheder et al. 2018): ||d sum D(x) / dx||^2.

    Args:
        logits_of: D with its parameters and labels bound.
        real: authentic pictures, in [-1, 1].

    Returns:
        One value a picture; the regulariser is gamma / 2 times their mean.
    """
    gradient = jax.grad(lambda x: jnp.sum(logits_of(x)))(real.astype(jnp.float32))
    return jnp.sum(jnp.square(gradient), axis=(1, 2, 3))
