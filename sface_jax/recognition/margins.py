"""Margins on cosines: pure functions from the cosines of a batch to the logits of its cross entropy.

In every function c is a row's cosine with each class weight, y the row's own class and s the scale.
"""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int


def softmax(cosine: Float[Array, "n c"], labels: Int[Array, " n"], scale: float = 64.0) -> Float[Array, "n c"]:
    """Normalised softmax without a margin: s c.

    Args:
        cosine: cosines in [-1, 1], float32.
        labels: the class of each row, 0 <= label < c.
        scale: s.
    """
    del labels
    return scale * cosine


def cosface(
    cosine: Float[Array, "n c"], labels: Int[Array, " n"], scale: float = 64.0, margin: float = 0.35
) -> Float[Array, "n c"]:
    """CosFace (Wang et al., arXiv 1801.09414, eq. 4): s (c - m) at y, s c elsewhere.

    Args:
        cosine: cosines in [-1, 1], float32.
        labels: the class of each row, 0 <= label < c.
        scale: s.
        margin: m, taken off the cosine.
    """
    return scale * (cosine - margin * _own(cosine, labels))


def arcface(
    cosine: Float[Array, "n c"], labels: Int[Array, " n"], scale: float = 64.0, margin: float = 0.5
) -> Float[Array, "n c"]:
    """ArcFace (Deng et al., arXiv 1801.07698, eq. 3): s cos(theta + m) at y, s cos(theta) elsewhere, c = cos(theta).

    Nothing is done about theta + m > pi, where the logit rises again. The gradient at y is
    s sin(theta + m) / sin(theta); at c = +-1, where that is infinite, it is s cos(m).

    Args:
        cosine: cosines in [-1, 1], float32.
        labels: the class of each row, 0 <= label < c.
        scale: s.
        margin: m, added to the angle, in radians.
    """
    # cos(theta + m) = cos(theta) cos(m) - sin(theta) sin(m)
    turned = cosine * math.cos(margin) - _sine(cosine) * math.sin(margin)
    return scale * jnp.where(_own(cosine, labels), turned, cosine)


def combined_margin(
    cosine: Float[Array, "n c"],
    labels: Int[Array, " n"],
    scale: float = 64.0,
    m1: float = 1.0,
    m2: float = 0.5,
    m3: float = 0.0,
    filter_threshold: float = 0.0,
) -> Float[Array, "n c"]:
    """The margins of ArcFace's published trainer, which differ from its paper (eq. 4) in two ways.

    With m3 > 0 the logit at y is s (c - m3), and m1 and m2 are ignored. With m3 = 0 it is s cos(m1 theta + m2), but the
    angle is a constant to differentiation: the gradient of every logit with respect to its cosine is s.

    Args:
        cosine: cosines in [-1, 1], float32.
        labels: the class of each row, 0 <= label < c.
        scale: s.
        m1: factor on the angle.
        m2: added to the angle, in radians.
        m3: taken off the cosine.
        filter_threshold: above 0, cosines with other classes that exceed it get the logit 0 and no gradient.
    """
    own = _own(cosine, labels)
    if filter_threshold > 0:
        cosine = jnp.where(~own & (cosine > filter_threshold), 0.0, cosine)
    if m3 > 0:
        return scale * (cosine - m3 * own)
    turned = jnp.cos(m1 * jnp.arccos(jnp.clip(cosine, -1, 1)) + m2)
    return scale * (cosine + jax.lax.stop_gradient(jnp.where(own, turned - cosine, 0.0)))


def _own(cosine: Float[Array, "n c"], labels: Int[Array, " n"]) -> Bool[Array, "n c"]:
    """True at each row's class; a comparison, unlike a scatter, stays cheap when the classes are sharded."""
    return labels[:, None] == jnp.arange(cosine.shape[1])


def _sine(cosine: Float[Array, "n c"]) -> Float[Array, "n c"]:
    """sin(arccos(c)), with gradient 0 where it is 0."""
    square = (1 - cosine) * (1 + cosine)
    inside = square > 0
    return jnp.where(inside, jnp.sqrt(jnp.where(inside, square, 1.0)), 0.0)
