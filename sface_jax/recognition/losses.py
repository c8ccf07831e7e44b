"""The two losses of a recogniser: classification over identities, and distillation from a teacher."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int


def normalise(x: Float[Array, "*n d"]) -> Float[Array, "*n d"]:
    """Divides by the L2 norm over the last axis, in float32; one shorter than 1e-12 is not stretched to length 1."""
    x = x.astype(jnp.float32)
    return x * jax.lax.rsqrt(jnp.maximum(jnp.square(x).sum(-1, keepdims=True), 1e-24))


def classification(logits: Float[Array, "n c"], labels: Int[Array, " n"]) -> Float[Array, ""]:
    """Cross entropy of the softmax over classes, mean over the batch.

    Args:
        logits: scaled, with the margin.
        labels: the class of each row, 0 <= label < c.
    """
    own = jnp.take_along_axis(logits, labels[:, None], axis=1)[:, 0]  # [n]
    return (jax.nn.logsumexp(logits, axis=1) - own).mean()


def distillation(student: Float[Array, "n d"], teacher: Float[Array, "n d"]) -> Float[Array, ""]:
    """Knowledge transfer of SFace (arXiv 2206.10520): mean over batch and dimensions of (s/|s| - t/|t|)^2.

    That is mean(2 - 2 cos) / d. No gradient goes into the teacher.

    Args:
        student: embeddings, of any length.
        teacher: embeddings of the same pictures.
    """
    return jnp.square(normalise(student) - jax.lax.stop_gradient(normalise(teacher))).mean()
