"""Verification of templates, sets of pictures of one person: pooling, comparison, and true match rates.

The conventions are those of InsightFace's evaluator of IJB-B and IJB-C (recognition/_evaluation_/ijb/ijb_11.py).
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from jax.sharding import PartitionSpec as P
from jaxtyping import Array, Bool, Float, Float32, Int, Integer

from sface_jax.core import mesh as meshes
from sface_jax.core.errors import UserError
from sface_jax.verification import curves

RATES = (1e-6, 1e-5, 1e-4, 1e-3, 1e-2, 1e-1)
PROTOCOLS = {
    "published": "what InsightFace's ijb_11.py computes: scikit-learn's ROC curve, points between equal steps left "
    "out, and of its points the one whose false match rate (FMR) is nearest to the wanted one, be it above or below",
    "exact": "the lowest threshold, of all scores, whose FMR is not above the wanted one; nothing is interpolated",
}

_ROWS, _COLUMNS = 256, 4096


def pool(
    embeddings: Float32[np.ndarray, "n d"],
    template: Integer[np.ndarray, " n"],
    media: Integer[np.ndarray, " n"],
    weights: Float[np.ndarray, " n"] | None = None,
    *,
    norm_weighting: bool = True,
) -> Float32[np.ndarray, "t d"]:
    """Makes one embedding of all pictures of each template.

        x_i = w_i e_i, or w_i e_i / |e_i| without norm weighting
        y_T = sum over the media m of T of the mean of x_i over the pictures i of (T, m);  result y_T / |y_T|

    This is `image2template_feature` of InsightFace's evaluator: the mean within a medium where it has several pictures,
    the sum over media, then L2 normalisation; "N1" there is norm weighting, "D1" weights by the detector's score.

    Args:
        embeddings: of the pictures, raw: with norm weighting their length counts.
        template: of each picture.
        media: of each picture, a still or a video; the same medium in two templates is two media.
        weights: w, such as the detector's scores; 1 when absent.
        norm_weighting: whether a picture counts by the length of its embedding, which grows with its quality.

    Returns:
        Rows of length one, in the order of the templates' numbers. A sum of zero stays zero.

    Raises:
        UserError: an embedding or a weight is not finite.
    """
    share = np.ones(len(embeddings), np.float32) if weights is None else np.asarray(weights, np.float32)
    if not norm_weighting:
        share = share / np.sqrt(np.einsum("nd,nd->n", embeddings, embeddings)).clip(1e-12)
    order = np.lexsort((media, template))
    new_template = np.diff(template[order], prepend=template[order[0]] - 1) != 0
    new_medium = new_template | (np.diff(media[order], prepend=media[order[0]] - 1) != 0)
    medium = np.cumsum(new_medium) - 1
    share = (share[order] / np.bincount(medium)[medium]).astype(np.float32)
    ends = np.append(np.flatnonzero(new_template), len(order))
    pooled = np.empty((len(ends) - 1, embeddings.shape[1]), np.float32)
    for row, (start, end) in enumerate(pairwise(ends)):
        # a few rows at a time: the embeddings, 1 GB for IJB-C, are neither copied nor moved to a device
        pooled[row] = share[start:end] @ embeddings[order[start:end]]
    if broken := int((~np.isfinite(pooled).all(1)).sum()):
        raise UserError(
            f"{broken} of {len(pooled)} templates have an embedding or a weight that is not finite: "
            "check the network and its preprocessing"
        )
    return pooled / np.linalg.norm(pooled, axis=1, keepdims=True).clip(1e-12)


def score_pairs(
    templates: Float32[np.ndarray, "t d"],
    first: Integer[np.ndarray, " p"],
    second: Integer[np.ndarray, " p"],
    mesh: Mesh | None = None,
) -> Float32[np.ndarray, " p"]:
    """Cosines of pairs of templates.

    They are picked from tiles of the product of those templates that occur as first and as second ones. IJB-C has few
    first ones with thousands of second ones each: on two CPU cores its 15.7 million pairs take a twentieth of the time
    in which both rows of each pair are gathered. Lists of few pairs of many templates have small tiles.

    Args:
        templates: rows of length one.
        first: position of each pair's first template; pairs that are sorted by it need no copy.
        second: position of its second template.
        mesh: devices to share the rows of a tile, all by default.

    Returns:
        Scores in the order of the pairs, the same on every process.
    """
    mesh = meshes.make_mesh() if mesh is None else mesh
    if (first[1:] < first[:-1]).any():
        order = np.argsort(first, kind="stable")
        scores = np.empty(len(first), np.float32)
        scores[order] = score_pairs(templates, first[order], second[order], mesh)
        return scores
    product, everyone = _product(mesh), meshes.replicate(np.asarray(templates, np.float32), mesh)
    starts = np.flatnonzero(np.diff(first, prepend=-1))
    at_once = -(-_ROWS // mesh.size) * mesh.size
    scores, column_of = np.empty(len(first), np.float32), np.empty(len(templates), np.int32)
    for tile in range(0, len(starts), at_once):
        ends = np.append(starts, len(first))[tile : tile + at_once + 1]
        here = slice(ends[0], ends[-1])
        wanted = np.zeros(len(templates), bool)
        wanted[second[here]] = True
        columns = np.flatnonzero(wanted)
        column_of[columns] = np.arange(len(columns))
        found = product(everyone, _padded(first[ends[:-1]], at_once), _padded(columns, _COLUMNS))
        row = np.repeat(np.arange(len(ends) - 1), np.diff(ends))
        scores[here] = np.asarray(found)[row, column_of[second[here]]]
    return scores


def measure(
    templates: Float32[np.ndarray, "t d"],
    first: Integer[np.ndarray, " p"],
    second: Integer[np.ndarray, " p"],
    same: Bool[np.ndarray, " p"],
    *,
    mesh: Mesh | None = None,
    rates: Sequence[float] = RATES,
) -> dict[str, Any]:
    """Measures pooled templates on the pairs of a 1:1 protocol.

    Args:
        templates: rows of length one.
        first: position of each pair's first template.
        second: position of its second template.
        same: whether the pair is mated.
        mesh: see `score_pairs`.
        rates: wanted false match rates.

    Returns:
        "published" and "exact" (see `PROTOCOLS`): {rate: {"tmr", "fmr" as reached, "threshold" on the cosine, None
        where nothing may be accepted, "false_matches", "supported": whether these suffice for the rule of 30}};
        "eer"; "roc": {"fmr", "tmr"}, thinned; counts "templates", "pairs", "mated", "non_mated"; "failed_templates",
        which have an embedding of zeros and so score 0 with all others.

    Raises:
        UserError: all pairs are of one kind, or an embedding is not finite.
    """
    if same.all() or not same.any():
        raise UserError("match rates need pairs of the same and pairs of different people: check the list of pairs")
    if broken := int((~np.isfinite(templates).all(1)).sum()):
        raise UserError(f"{broken} of {len(templates)} templates have an embedding that is not finite")
    scores = score_pairs(templates, first, second, mesh)
    mated, non_mated = scores[same], scores[~same]
    at = curves.at_fmr(mated, non_mated, rates)
    points = curves.operating_points(mated, non_mated)
    kept = curves.thin(points.fmr, points.fnmr)
    return {
        "published": _told(nearest_on_roc(points, rates)),
        "exact": _told(at),
        "eer": curves.eer(points),
        "roc": {"fmr": points.fmr[kept][::-1].tolist(), "tmr": (1 - points.fnmr[kept])[::-1].tolist()},
        "templates": len(templates),
        "failed_templates": int((~templates.any(1)).sum()),
        "pairs": len(same),
        "mated": len(mated),
        "non_mated": len(non_mated),
    }


def nearest_on_roc(points: curves.OperatingPoints, rates: Sequence[float]) -> curves.RatesAt:
    """The points of the published evaluator: nearest to wanted false match rates on scikit-learn's ROC curve.

    `sklearn.metrics.roc_curve` leaves out points whose distance to the one before is that to the one after, in false
    and in true accepts, such as those within a run of non-mated scores; it never leaves out the first and the last.
    Of the others, and of the point that accepts nothing, the evaluator takes the one whose rate is nearest; of two
    that are equally near the one with more false matches, and of those with as many the one with more true ones.

    Args:
        points: every operating point.
        rates: wanted false match rates.
    """
    bends = (np.diff(points.false_accepts[:-1], 2) != 0) | (np.diff(points.true_accepts[:-1], 2) != 0)
    corners = np.ones(len(points.thresholds), bool)
    corners[1:-2] = bends  # the last two are the highest score and +infinity
    kept = np.flatnonzero(corners)
    fmr = points.false_accepts[kept] / points.false_accepts[0]
    chosen = kept[[int(np.argmin(np.abs(fmr - rate))) for rate in rates]]  # thresholds rise: the first is the lowest
    return curves.RatesAt(
        np.asarray(rates, np.float64),
        points.thresholds[chosen],
        points.false_accepts[chosen] / points.false_accepts[0],
        points.true_accepts[chosen] / points.true_accepts[0],
        points.false_accepts[chosen],
    )


def _told(at: curves.RatesAt) -> dict[str, dict[str, Any]]:
    """Rates as JSON holds them."""
    return {
        curves.rate_name(wanted): {
            "tmr": float(at.tmr[i]),
            "fmr": float(at.fmr[i]),
            "threshold": float(at.thresholds[i]) if np.isfinite(at.thresholds[i]) else None,
            "false_matches": int(at.false_matches[i]),
            "supported": bool(at.false_matches[i] >= curves.RULE_OF_30),
        }
        for i, wanted in enumerate(at.wanted)
    }


def _padded(rows: Integer[np.ndarray, " n"], multiple: int) -> Int[np.ndarray, " m"]:
    """Positions, repeated up to a multiple, so that tiles of many sizes share a program."""
    return np.pad(rows.astype(np.int32), (0, -len(rows) % multiple), mode="edge")


@functools.lru_cache(maxsize=4)
def _product(mesh: Mesh) -> Callable[..., Float[Array, "r c"]]:
    """Products of some templates with others, rows shared by the devices, compiled once for each shape."""

    def product(templates: Float[Array, "t d"], rows: Int[Array, " r"], columns: Int[Array, " c"]) -> Array:
        # full float32 also where the device would rather use bfloat16 or TF32
        return jnp.matmul(templates[rows], templates[columns].T, precision=jax.lax.Precision.HIGHEST)

    shared = jax.shard_map(product, mesh=mesh, in_specs=(P(), P(meshes.ALL), P()), out_specs=P(meshes.ALL))
    return jax.jit(shared, out_shardings=meshes.replicated(mesh))
