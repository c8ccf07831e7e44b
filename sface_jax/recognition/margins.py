"""Margins on cosines: pure functions from the cosines of a batch to the logits of its cross entropy.

In every function c = cos(theta) is a row's cosine with each class weight, y the row's own class and s the scale; all is
computed in float32. `cosine` may hold some of the classes only, as where they are spread over devices: a label outside
0..c-1 says that the row's own class is not among them. What depends on a row's own cosine takes it apart, as `own`.

Where the published code differs from its paper the paper's form is the default, and `published` gives the other.
Nothing is done about an angle that a margin takes past pi, where the logit rises again, unless a function says so.
"""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from sface_jax.core.arrays import AnyArray

Cosines = Float[AnyArray, "n c"]
Labels = Int[AnyArray, " n"]
Rows = Float[AnyArray, " n"]
Logits = Float[Array, "n c"]
Scalar = float | Float[AnyArray, ""]


def softmax(cosine: Cosines, labels: Labels, scale: float = 64.0) -> Logits:
    """Normalised softmax without a margin: s c.

    Args:
        cosine: cosines in [-1, 1].
        labels: the class of each row.
        scale: s.
    """
    del labels
    return scale * _float32(cosine)


def cosface(cosine: Cosines, labels: Labels, scale: float = 64.0, margin: float = 0.35) -> Logits:
    """CosFace (Wang et al., arXiv 1801.09414, eq. 4): s (c - m) at y, s c elsewhere.

    Args:
        cosine: cosines in [-1, 1].
        labels: the class of each row.
        scale: s.
        margin: m, taken off the cosine.
    """
    cosine = _float32(cosine)
    return scale * (cosine - margin * _own(cosine, labels))


def arcface(cosine: Cosines, labels: Labels, scale: float = 64.0, margin: float = 0.5) -> Logits:
    """ArcFace (Deng et al., arXiv 1801.07698, eq. 3): s cos(theta + m) at y, s cos(theta) elsewhere.

    The gradient at y is s sin(theta + m) / sin(theta); at c = +-1, where that is infinite, it is s cos(m).

    Args:
        cosine: cosines in [-1, 1].
        labels: the class of each row.
        scale: s.
        margin: m, added to the angle, in radians.
    """
    cosine = _float32(cosine)
    return scale * jnp.where(_own(cosine, labels), _turn(cosine, margin), cosine)


def combined_margin(
    cosine: Cosines,
    labels: Labels,
    scale: float = 64.0,
    m1: float = 1.0,
    m2: float = 0.5,
    m3: float = 0.0,
    filter_threshold: float = 0.0,
    published: bool = False,
) -> Logits:
    """The combined margin of ArcFace (arXiv 1801.07698, eq. 4): s (cos(m1 theta + m2) - m3) at y, s c elsewhere.

    The published trainer differs in two ways: with m3 > 0 the logit at y is s (c - m3), m1 and m2 being ignored; and
    the angle is a constant to differentiation, so that every logit's gradient with respect to its cosine is s.

    Args:
        cosine: cosines in [-1, 1].
        labels: the class of each row.
        scale: s.
        m1: factor on the angle.
        m2: added to the angle, in radians.
        m3: taken off the cosine.
        filter_threshold: above 0, cosines with other classes that exceed it get the logit 0 and no gradient; an option
            of the published trainer against classes that are one identity.
        published: do as the published trainer does.
    """
    cosine = _float32(cosine)
    own = _own(cosine, labels)
    if filter_threshold > 0:
        cosine = jnp.where(~own & (cosine > filter_threshold), 0.0, cosine)
    if published and m3 > 0:
        return scale * (cosine - m3 * own)
    turned = _turn(cosine, m2) if m1 == 1 else jnp.cos(m1 * _angle(cosine) + m2)
    if published:
        return scale * (cosine + jax.lax.stop_gradient(jnp.where(own, turned - cosine, 0.0)))
    return scale * jnp.where(own, turned - m3, cosine)


def elastic_cosface(cosine: Cosines, labels: Labels, scale: float, margins: Rows) -> Logits:
    """ElasticFace-Cos (Boutros et al., arXiv 2109.09416, eq. 7): CosFace with a margin of its own for each row.

    Args:
        cosine: cosines in [-1, 1].
        labels: the class of each row.
        scale: s.
        margins: of each row, drawn from a normal distribution (mean 0.35, deviation 0.05); see `elastic_plus`.
    """
    cosine = _float32(cosine)
    return scale * (cosine - _column(margins) * _own(cosine, labels))


def elastic_arcface(cosine: Cosines, labels: Labels, scale: float, margins: Rows) -> Logits:
    """ElasticFace-Arc (Boutros et al., arXiv 2109.09416, eq. 6): ArcFace with a margin of its own for each row.

    Args:
        cosine: cosines in [-1, 1].
        labels: the class of each row.
        scale: s.
        margins: of each row, in radians, drawn from a normal distribution (mean 0.5, deviation 0.05).
    """
    cosine = _float32(cosine)
    return scale * jnp.where(_own(cosine, labels), _turn(cosine, _column(margins)), cosine)


def elastic_plus(margins: Rows, own: Rows, published: bool = False) -> Float[Array, " n"]:
    """Deals a batch's margins out anew for the "+" of ElasticFace (arXiv 2109.09416, section III).

    The row with the smallest cosine with its class gets the largest margin, and so on. The published code means this
    but applies the sorting permutation for its inverse: row i gets the o_i-th smallest margin, where o_i is the row
    whose cosine is the i-th largest.

    Args:
        margins: one for each row of the global batch, in any order.
        own: each row's cosine with its own class; it gets no gradient.
        published: do as the published code does.
    """
    upwards, own = jnp.sort(_float32(margins)), jax.lax.stop_gradient(_float32(own))
    downwards_by_cosine = jnp.argsort(-own)
    return upwards[downwards_by_cosine if published else jnp.argsort(downwards_by_cosine)]


def adaface(
    cosine: Cosines,
    labels: Labels,
    norms: Rows,
    mean: Scalar,
    std: Scalar,
    scale: float = 64.0,
    margin: float = 0.4,
    h: float = 0.333,
) -> Logits:
    """AdaFace (Kim et al., arXiv 2204.00964, eq. 11 to 14): a margin that changes its form with the embedding's norm.

    With z = clip(h (norm - mean) / (std + 0.001), -1, 1) the logit at y is s (cos(theta - m z) - m (1 + z)). As in the
    published code cosines are clipped to +-0.999 and angles to [0.001, pi - 0.001], and pass no gradient there.

    Args:
        cosine: cosines in [-1, 1].
        labels: the class of each row.
        norms: length of each row's embedding before it is normalised; it gets no gradient.
        mean: of the norms, see `adaface_statistics`.
        std: of the norms.
        scale: s.
        margin: m.
        h: concentration.
    """
    norms, mean, std = (jax.lax.stop_gradient(_float32(x)) for x in (_safe_norms(norms), mean, std))
    z = _column(jnp.clip(h * (norms - mean) / (std + 1e-3), -1, 1))
    cosine = jnp.clip(_float32(cosine), -1 + 1e-3, 1 - 1e-3)
    turned = jnp.cos(jnp.clip(jnp.arccos(cosine) - margin * z, 1e-3, math.pi - 1e-3))
    return scale * jnp.where(_own(cosine, labels), turned - margin * (1 + z), cosine)


def adaface_statistics(
    norms: Rows, mean: Scalar, std: Scalar, t_alpha: float = 0.01
) -> tuple[Float[Array, ""], Float[Array, ""]]:
    """Moves AdaFace's mean and deviation of norms on to those of a batch: t_alpha x batch + (1 - t_alpha) x old.

    Call it before `adaface`, which takes the new ones. The deviation is the unbiased one, 0 for a single row.

    Args:
        norms: of the rows of the global batch.
        mean: the old mean; 20 at the start.
        std: the old deviation; 100 at the start.
        t_alpha: weight of the batch. The paper's text gives 0.99 to the symbol in this place and calls it a momentum;
            its released code takes 0.01.
    """
    norms = jax.lax.stop_gradient(_safe_norms(norms))
    of_batch = norms.mean()
    deviation = jnp.sqrt(jnp.square(norms - of_batch).sum() / max(len(norms) - 1, 1))
    return t_alpha * of_batch + (1 - t_alpha) * mean, t_alpha * deviation + (1 - t_alpha) * std


def magface(
    cosine: Cosines,
    labels: Labels,
    norms: Rows,
    scale: float = 64.0,
    lower_norm: float = 10.0,
    upper_norm: float = 110.0,
    lower_margin: float = 0.45,
    upper_margin: float = 0.8,
    published: bool = False,
) -> Logits:
    """MagFace (Meng et al., arXiv 2103.06627, eq. 2): ArcFace whose margin m(a) grows with the embedding's norm a.

    m is linear from `lower_margin` at `lower_norm` to `upper_margin` at `upper_norm`; norms are clipped to that range.
    The norm gets a gradient, unlike in `adaface`; `magface_penalty` belongs to the loss.

    Args:
        cosine: cosines in [-1, 1].
        labels: the class of each row.
        norms: length of each row's embedding before it is normalised.
        scale: s.
        lower_norm: smallest norm.
        upper_norm: largest norm.
        lower_margin: in radians.
        upper_margin: in radians.
        published: as the published code does, leave rows with c <= 0 at y without a margin.
    """
    cosine = _float32(cosine)
    share = (jnp.clip(_float32(norms), lower_norm, upper_norm) - lower_norm) / (upper_norm - lower_norm)
    turned = _turn(cosine, _column(lower_margin + (upper_margin - lower_margin) * share))
    if published:
        turned = jnp.where(cosine > 0, turned, cosine)
    return scale * jnp.where(_own(cosine, labels), turned, cosine)


def magface_penalty(norms: Rows, lower_norm: float = 10.0, upper_norm: float = 110.0) -> Float[Array, ""]:
    """MagFace's regulariser g(a) = 1/a + a/u^2 (arXiv 2103.06627, section 3.2), which falls up to a = u; mean of rows.

    Args:
        norms: a, clipped to the range below.
        lower_norm: smallest norm.
        upper_norm: u, the largest.
    """
    norms = jnp.clip(_float32(norms), lower_norm, upper_norm)
    return (1 / norms + norms / upper_norm**2).mean()


def curricularface(
    cosine: Cosines,
    labels: Labels,
    t: Scalar,
    own: Rows | None = None,
    scale: float = 64.0,
    margin: float = 0.5,
    published: bool = False,
) -> Logits:
    """CurricularFace (Huang et al., arXiv 2004.00288, eq. 5 to 8): ArcFace with weights on hard negatives.

    At y the logit is s cos(theta + m). A cosine c with another class is hard where it exceeds cos(theta_y + m); its
    logit is s c (t + c) then.

    Args:
        cosine: cosines in [-1, 1].
        labels: the class of each row.
        t: see `curricular_t`.
        own: each row's cosine with its own class, wherever that is; None finds it in `cosine`.
        scale: s.
        margin: m, added to the angle, in radians.
        published: as the published code does, take s (c - m sin(m)) at y where theta + m > pi.
    """
    cosine = _float32(cosine)
    if own is None:
        own = jnp.take_along_axis(cosine, labels[:, None], axis=1)[:, 0]
    t, own = jax.lax.stop_gradient((_float32(t), _float32(own)))
    hard = cosine > _column(_turn(own, margin))
    turned = _turn(cosine, margin)
    if published:
        turned = jnp.where(cosine > -math.cos(margin), turned, cosine - margin * math.sin(margin))
    return scale * jnp.where(_own(cosine, labels), turned, jnp.where(hard, cosine * (t + cosine), cosine))


def curricular_t(t: Scalar, own: Rows, momentum: float = 0.99) -> Float[Array, ""]:
    """Moves CurricularFace's t on to a batch's mean own cosine r: momentum x t + (1 - momentum) x r; 0 at the start.

    Call it before `curricularface`, which takes the new t.

    Args:
        t: the old value.
        own: each row's cosine with its own class, of the global batch; it gets no gradient.
        momentum: weight of the old value. Equation 10 of the paper has the two weights the other way round, where 0.99
            would be no momentum; this is the published code's order.
    """
    return momentum * _float32(t) + (1 - momentum) * jax.lax.stop_gradient(_float32(own)).mean()


def _float32(x: Scalar | Float[AnyArray, "..."]) -> Float[Array, "..."]:
    return jnp.asarray(x, jnp.float32)


def _column(x: Rows) -> Float[Array, "n 1"]:
    return _float32(x)[:, None]


def _own(cosine: Cosines, labels: Labels) -> Bool[Array, "n c"]:
    """True at each row's class; a comparison, unlike a scatter, stays cheap when the classes are sharded."""
    return jnp.asarray(labels)[:, None] == jnp.arange(cosine.shape[1])


def _turn(cosine: Float[Array, "..."], margin: float | Float[Array, "..."]) -> Float[Array, "..."]:
    """cos(theta + m) = cos(theta) cos(m) - sin(theta) sin(m)."""
    return cosine * jnp.cos(margin) - _sine(cosine) * jnp.sin(margin)


def _sine(cosine: Float[Array, "..."]) -> Float[Array, "..."]:
    """sin(arccos(c)), with gradient 0 where it is 0."""
    square = (1 - cosine) * (1 + cosine)
    inside = square > 0
    return jnp.where(inside, jnp.sqrt(jnp.where(inside, square, 1.0)), 0.0)


def _angle(cosine: Float[Array, "..."]) -> Float[Array, "..."]:
    """arccos(c), with gradient 0 at c = +-1."""
    inside = jnp.abs(cosine) < 1
    return jnp.where(inside, jnp.arccos(jnp.where(inside, cosine, 0.0)), jnp.where(cosine > 0, 0.0, math.pi))


def _safe_norms(norms: Rows) -> Float[Array, " n"]:
    """Norms in the range that AdaFace's published code keeps them in."""
    return jnp.clip(_float32(norms), 1e-3, 100.0)
