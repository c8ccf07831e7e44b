"""Comparison of two sets of embeddings in tiles: histograms, nearest neighbours, never the whole score matrix."""

from __future__ import annotations

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Float32, Int, Int64


class Matches(NamedTuple):
    """What `match` keeps of n x m comparisons.

    Attributes:
        edges: bin edges over the cosines [-1, 1].
        mated: comparisons of equal labels in each bin.
        non_mated: comparisons of different labels in each bin.
        top_scores: the highest cosines of each query in falling order; -infinity where the gallery is too small.
        top_indices: the gallery rows they belong to, the lower one first among equals; -1 where there is none.
        nearest_mated: highest cosine of each query to its own label; -infinity where the gallery lacks it.
        nearest_non_mated: highest cosine of each query to any other label.
    """

    edges: Float[np.ndarray, " bins+1"]
    mated: Int64[np.ndarray, " bins"]
    non_mated: Int64[np.ndarray, " bins"]
    top_scores: Float32[np.ndarray, "n k"]
    top_indices: Int[np.ndarray, "n k"]
    nearest_mated: Float32[np.ndarray, " n"]
    nearest_non_mated: Float32[np.ndarray, " n"]

    @property
    def centres(self) -> Float[np.ndarray, " bins"]:
        """Bin centres: with the counts they stand for the scores in `privacy.metrics`."""
        return (self.edges[1:] + self.edges[:-1]) / 2


class _Best(NamedTuple):
    """Running results of one tile of queries."""

    scores: Float[Array, "t k"]
    indices: Int[Array, "t k"]
    mated: Float[Array, " t"]
    non_mated: Float[Array, " t"]


class _Tile(NamedTuple):
    """Rows of one side; `rows` is -1 where the tile is padded."""

    embeddings: Float[Array, "t d"]
    labels: Int[Array, " t"]
    rows: Int[Array, " t"]


def match(
    query: Float[Array | np.ndarray, "n d"],
    gallery: Float[Array | np.ndarray, "m d"],
    query_labels: Int[Array | np.ndarray, " n"],
    gallery_labels: Int[Array | np.ndarray, " m"],
    *,
    bins: int = 20000,
    top_k: int = 10,
    tile: int = 1024,
    exclude_self: bool = False,
) -> Matches:
    """Compares every query with every gallery entry by cosine, in tiles of `tile` x `tile` scores on the device.

    Device memory is O(tile^2), host memory O(n (d + top_k) + m d + bins). The histograms count every comparison, so
    error rates read from them are exact up to the width of a bin (1e-4 by default).

    Args:
        query: embeddings, normalised here.
        gallery: embeddings, normalised here.
        query_labels: identities of the queries.
        gallery_labels: identities of the gallery; equal numbers mean a mated comparison.
        bins: equal bins over [-1, 1].
        top_k: neighbours to keep for each query.
        tile: rows of a tile; changes time and memory, not results.
        exclude_self: query and gallery are the same set: no entry is compared with itself, and the histograms count
            each unordered pair once.

    Raises:
        ValueError: shapes do not fit.
    """
    query, gallery = np.asarray(query, np.float32), np.asarray(gallery, np.float32)
    query_labels, gallery_labels = np.asarray(query_labels, np.int32), np.asarray(gallery_labels, np.int32)
    if query.ndim != 2 or query.shape[1:] != gallery.shape[1:] or not len(query) or not len(gallery):
        raise ValueError(f"query and gallery must be [n, d] and [m, d] and not empty: {query.shape}, {gallery.shape}")
    if len(query_labels) != len(query) or len(gallery_labels) != len(gallery):
        raise ValueError("there must be one label for each query and for each gallery entry")
    if exclude_self and len(query) != len(gallery):
        raise ValueError("exclude_self needs the same set as query and as gallery")

    histogram = np.zeros((2, bins), np.int64)
    found = []
    gallery_tiles = [_cut(gallery, gallery_labels, start, tile) for start in range(0, len(gallery), tile)]
    for start in range(0, len(query), tile):
        queries = jax.device_put(_cut(query, query_labels, start, tile))
        rows = len(queries.rows)
        best = _Best(
            jnp.full((rows, top_k), -jnp.inf),
            jnp.full((rows, top_k), -1, jnp.int32),
            jnp.full(rows, -jnp.inf),
            jnp.full(rows, -jnp.inf),
        )
        pending = None
        for other in gallery_tiles:
            counts, best = _compare(queries, other, best, bins=bins, exclude_self=exclude_self)
            # read the histogram of the tile before while this one is computed
            histogram += 0 if pending is None else np.asarray(pending)
            pending = counts
        histogram += np.asarray(pending)
        found.append(jax.tree.map(lambda x: np.asarray(x)[: len(query) - start], best))  # noqa: B023
    joined = _Best(*(np.concatenate(part) for part in zip(*found, strict=True)))
    return Matches(
        edges=np.linspace(-1, 1, bins + 1),
        mated=histogram[1],
        non_mated=histogram[0],
        top_scores=joined.scores,
        top_indices=joined.indices,
        nearest_mated=joined.mated,
        nearest_non_mated=joined.non_mated,
    )


def same_label_scores(
    query: Float[Array | np.ndarray, "n d"],
    gallery: Float[Array | np.ndarray, "m d"],
    query_labels: Int[Array | np.ndarray, " n"],
    gallery_labels: Int[Array | np.ndarray, " m"],
    *,
    exclude_self: bool = False,
    limit: int = 5_000_000,
    seed: int = 0,
) -> tuple[Float32[np.ndarray, " s"], Int[np.ndarray, " s"]]:
    """The cosines of all mated comparisons one by one, with their identity; these are few beside the non-mated ones.

    Args:
        query: embeddings, normalised here.
        gallery: embeddings, normalised here.
        query_labels: identities of the queries.
        gallery_labels: identities of the gallery.
        exclude_self: as in `match`: each unordered pair of one set once.
        limit: where there would be more comparisons, each identity keeps an equal number of them drawn by `seed`.
        seed: of that draw.

    Returns:
        Cosines and the label of each, in the order of the labels.
    """
    query, gallery = _normalise(np.asarray(query, np.float32)), _normalise(np.asarray(gallery, np.float32))
    query_labels, gallery_labels = np.asarray(query_labels), np.asarray(gallery_labels)
    shared = np.intersect1d(query_labels, gallery_labels)
    most = max(limit // max(len(shared), 1), 1)
    rows_q, rows_g = _rows_of(query_labels, shared), _rows_of(gallery_labels, shared)
    scores, labels = [np.zeros(0, np.float32)], [np.zeros(0, shared.dtype)]
    for label, q, g in zip(shared, rows_q, rows_g, strict=True):
        block = query[q] @ gallery[g].T
        values = block[np.triu_indices(len(q), 1)] if exclude_self else block.ravel()
        if len(values) > most:
            values = np.random.default_rng([seed, int(label)]).choice(values, most, replace=False)
        scores.append(values)
        labels.append(np.full(len(values), label, shared.dtype))
    return np.concatenate(scores), np.concatenate(labels)


@functools.partial(jax.jit, static_argnames=("bins", "exclude_self"))
def _compare(
    queries: _Tile, gallery: _Tile, best: _Best, *, bins: int, exclude_self: bool
) -> tuple[Int[Array, "2 bins"], _Best]:
    """Histograms of one tile (row 0 non-mated, row 1 mated) and the neighbours found so far."""
    # [t, d] x [u, d] -> [t, u]; full float32 also where the device would rather use bfloat16 or TF32
    scores = jnp.matmul(
        _normalise(queries.embeddings), _normalise(gallery.embeddings).T, precision=jax.lax.Precision.HIGHEST
    )
    row, column = queries.rows[:, None], gallery.rows[None, :]
    valid = (row >= 0) & (column >= 0)
    counted = valid & (row < column) if exclude_self else valid
    compared = valid & (row != column) if exclude_self else valid
    same = queries.labels[:, None] == gallery.labels[None, :]

    bin_of = jnp.clip(jnp.floor((scores + 1) * (bins / 2)).astype(jnp.int32), 0, bins - 1)
    cell = jnp.where(counted, bin_of + bins * same, 2 * bins)  # out of range cells are dropped
    histogram = jnp.zeros(2 * bins, jnp.int32).at[cell].add(1, mode="drop").reshape(2, bins)

    scores = jnp.where(compared, scores, -jnp.inf)
    candidates = jnp.concatenate([best.scores, scores], axis=1)  # [t, k + u]; earlier rows first, so ties keep them
    indices = jnp.concatenate([best.indices, jnp.where(compared, column, -1)], axis=1)
    top, place = jax.lax.top_k(candidates, best.scores.shape[1])
    return histogram, _Best(
        top,
        jnp.take_along_axis(indices, place, axis=1),
        jnp.maximum(best.mated, jnp.max(scores, axis=1, initial=-jnp.inf, where=same)),
        jnp.maximum(best.non_mated, jnp.max(scores, axis=1, initial=-jnp.inf, where=~same)),
    )


def _normalise(x: Float[Array, "n d"] | Float[np.ndarray, "n d"]) -> Float[Array, "n d"] | Float[np.ndarray, "n d"]:
    """Rows of length one; a row of zeros stays zero."""
    return x / ((x * x).sum(1, keepdims=True) ** 0.5).clip(1e-12)


def _cut(embeddings: np.ndarray, labels: np.ndarray, start: int, tile: int) -> _Tile:
    """Rows start, start + 1, ... padded to the tile, or to the whole set where that is smaller."""
    tile = min(tile, len(embeddings))
    taken = min(tile, len(embeddings) - start)
    pad = tile - taken
    return _Tile(
        np.pad(embeddings[start : start + taken], ((0, pad), (0, 0))),
        np.pad(labels[start : start + taken], (0, pad)),
        np.pad(np.arange(start, start + taken, dtype=np.int32), (0, pad), constant_values=-1),
    )


def _rows_of(labels: np.ndarray, wanted: np.ndarray) -> list[np.ndarray]:
    """The rows that carry each of the sorted labels `wanted`."""
    order = np.argsort(labels, kind="stable")
    ordered = labels[order]
    first, last = np.searchsorted(ordered, wanted), np.searchsorted(ordered, wanted, side="right")
    return [order[a:b] for a, b in zip(first, last, strict=True)]
