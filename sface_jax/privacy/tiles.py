"""The device's part of the matching engine: blocks of scores that are counted and searched, and never kept."""

from __future__ import annotations

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P
from jaxtyping import Array, Float32, Int32

BLOCK = 1024
"""Rows and columns of a block of scores. One product of one shape, whatever the tiles, devices and processes: its
rounding, and with it every count, depends on nothing else. 4 MB of scores stay in a CPU's caches."""

_GROUP = 32  # neighbours are looked for among the maxima of so many scores first
_LANES = 128  # columns of the table of counts where it is a product

QUERY_PADDING, GALLERY_PADDING = -1, -2
"""Labels of rows that fill a tile up: never equal, so never mated."""


class Tile(NamedTuple):
    """Rows of one side.

    Attributes:
        embeddings: of any length.
        scale: one over their lengths; 0 for rows of padding.
        labels: identities, from 0 on.
        rows: their places in the whole set; -1 for padding.
    """

    embeddings: Float32[Array, "t d"]
    scale: Float32[Array, " t"]
    labels: Int32[Array, " t"]
    rows: Int32[Array, " t"]


class Nearest(NamedTuple):
    """What is known so far of each query.

    Attributes:
        scores: the highest, in falling order.
        rows: the gallery rows they belong to; -1 where there is none.
        mated: the highest with its own label.
        non_mated: the highest with any other.
    """

    scores: Float32[Array, "t k"]
    rows: Int32[Array, "t k"]
    mated: Float32[Array, " t"]
    non_mated: Float32[Array, " t"]


class Found(NamedTuple):
    """What the tiles of each device gave.

    Attributes:
        cells: counts of non-mated, then of mated comparisons in each cell; see `cell_of`. The last is a bin for the
            padding.
        nearest: of each query.
        gallery_scores: the highest of each gallery row with the device's queries.
        gallery_rows: the query rows they belong to; -1 where there is none.
    """

    cells: Int32[Array, "devices c"]
    nearest: Nearest
    gallery_scores: Float32[Array, "devices u"]
    gallery_rows: Int32[Array, "devices u"]


def cell_of(scores: Float32[Array, "*shape"], thresholds: Float32[Array, " t"], bins: int) -> Int32[Array, "*shape"]:
    """The cell of a score: its bin among `bins` equal ones over [-1, 1], plus the number of thresholds it reaches.

    Both rise with the score, so that cells are the intervals between the bins' edges and the thresholds together: one
    table of counts gives the histogram and the exact counts above thresholds.
    """
    place = jnp.clip(((scores + 1) * (bins / 2)).astype(jnp.int32), 0, bins - 1)
    for at in range(len(thresholds)):
        place += (scores >= thresholds[at]).astype(jnp.int32)
    return place


def nothing(rows: int, top_k: int) -> Nearest:
    """What is known of queries before they are compared."""
    return Nearest(
        np.full((rows, top_k), -np.inf, np.float32),
        np.full((rows, top_k), -1, np.int32),
        np.full(rows, -np.inf, np.float32),
        np.full(rows, -np.inf, np.float32),
    )


@functools.lru_cache(maxsize=32)
def compiled(mesh: Mesh, bins: int, thresholds: int, exclude_self: bool, gallery_side: bool):
    """The function (queries, nearest, gallery, thresholds) -> Found over a mesh of one axis.

    Queries, already `scaled`, and what is known of them, lie over the devices; every device has the whole gallery tile.
    Devices exchange nothing. Both tiles have multiples of `BLOCK` rows on each device.

    Args:
        mesh: of the devices.
        bins: equal bins over [-1, 1].
        thresholds: how many there are.
        exclude_self: query and gallery are one set: rows are not compared with themselves, and pairs count once.
        gallery_side: whether the nearest query of each gallery row is wanted.
    """
    (axis,) = mesh.axis_names
    share = functools.partial(_compare, bins=bins, exclude_self=exclude_self, gallery_side=gallery_side)
    rows = P(axis)
    return jax.jit(
        jax.shard_map(
            share, mesh=mesh, in_specs=(rows, rows, P(), P()), out_specs=Found(rows, rows, rows, rows), check_vma=False
        ),
        donate_argnums=1,
    )


def placed(mesh: Mesh) -> tuple[NamedSharding, NamedSharding]:
    """How queries and gallery lie on a mesh of one axis."""
    return NamedSharding(mesh, P(mesh.axis_names[0])), NamedSharding(mesh, P())


def _compare(
    queries: Tile, nearest: Nearest, gallery: Tile, thresholds: Float32[Array, " t"], **options: int | bool
) -> Found:
    """All blocks of one device."""
    cells = options["bins"] + len(thresholds)
    gallery = scaled(gallery)
    of_gallery = (jnp.full(len(gallery.rows), -jnp.inf), jnp.full(len(gallery.rows), -1, jnp.int32))

    def over_queries(carry, block):
        table, best = carry
        query, known = block

        def over_gallery(carry, block):
            other, best = block
            return jax.lax.cond(
                (query.rows[0] >= 0) & (other.rows[0] >= 0),  # a block of padding alone begins with padding
                functools.partial(_block, thresholds=thresholds, **options),
                lambda query, other, table, known, best: ((table, known), best),
                *(query, other, *carry, best),
            )

        (table, known), best = jax.lax.scan(over_gallery, (table, known), (_blocks(gallery), best))
        return (table, best), known

    start = (jnp.zeros(2 * cells + 1, jnp.int32), _blocks(of_gallery))
    (table, best), known = jax.lax.scan(over_queries, start, (_blocks(queries), _blocks(nearest)))
    known = jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), known)
    return Found(table[None], known, best[0].reshape(1, -1), best[1].reshape(1, -1))


def _block(query, other, table, known, best, *, thresholds, bins, exclude_self, gallery_side):
    """One block: its counts, and what is nearer than all before."""
    # [b, d] x [b, d] -> [b, b]; full float32 also where the device would rather use bfloat16 or TF32
    scores = jnp.matmul(query.embeddings, other.embeddings.T, precision=jax.lax.Precision.HIGHEST)
    cell, cells = cell_of(scores, thresholds, bins), bins + len(thresholds)
    row, column = query.rows[:, None], other.rows[None, :]
    whole = (query.rows[-1] >= 0) & (other.rows[-1] >= 0)
    if exclude_self:
        whole &= query.rows[-1] < other.rows[0]
    apart = (query.labels.max() < other.labels.min()) | (query.labels.min() > other.labels.max())

    def plain(table, cell, scores):
        return _tally(table, cell, cells), scores, jnp.full(len(row), -jnp.inf), scores.max(1)

    def mixed(table, cell, scores):
        compared = (row >= 0) & (column >= 0)
        counted = compared
        if exclude_self:
            compared, counted = compared & (row != column), compared & (row < column)
        same = query.labels[:, None] == other.labels[None, :]
        cell = jnp.where(counted, cell + cells * same, 2 * cells)
        scores = jnp.where(compared, scores, -jnp.inf)
        mated = jnp.where(same, scores, -jnp.inf).max(1)
        return _tally(table, cell, 2 * cells + 1), scores, mated, jnp.where(same, -jnp.inf, scores).max(1)

    table, scores, mated, non_mated = jax.lax.cond(whole & apart, plain, mixed, table, cell, scores)
    top, rows = _nearer(scores, other.rows, known.scores, known.rows)
    known = Nearest(top, rows, jnp.maximum(known.mated, mated), jnp.maximum(known.non_mated, non_mated))
    if gallery_side:
        best = _nearer_queries(scores, query.rows, *best)
    return (table, known), best


def _nearer(
    scores: Float32[Array, "b c"], rows: Int32[Array, " c"], top: Float32[Array, "b k"], found: Int32[Array, "b k"]
) -> tuple[Float32[Array, "b k"], Int32[Array, "b k"]]:
    """The k highest of those known and those of a block; among equals the earlier row.

    The k highest scores of a block lie in the k groups of neighbouring columns with the highest maxima: for a score in
    any other group each of these k has one that is higher, or as high and earlier.
    """
    count, k = scores.shape[1] // _GROUP, top.shape[1]
    groups = scores.reshape(len(scores), count, _GROUP)
    _, chosen = jax.lax.top_k(groups.max(2), min(k, count))
    chosen = jnp.sort(chosen, axis=1)  # the order of the columns, so that the first of equals is the earlier row
    values = jnp.take_along_axis(groups, chosen[:, :, None], axis=1).reshape(len(scores), -1)
    columns = (chosen[:, :, None] * _GROUP + jnp.arange(_GROUP)).reshape(len(scores), -1)
    candidates = jnp.concatenate([top, values], axis=1)
    top, place = jax.lax.top_k(candidates, k)
    before = jnp.take_along_axis(found, jnp.minimum(place, k - 1), axis=1)
    here = rows[jnp.take_along_axis(columns, jnp.maximum(place - k, 0), axis=1)]
    return top, jnp.where(place < k, before, jnp.where(jnp.isneginf(top), -1, here))


def _nearer_queries(
    scores: Float32[Array, "b c"], rows: Int32[Array, " b"], top: Float32[Array, " c"], found: Int32[Array, " c"]
) -> tuple[Float32[Array, " c"], Int32[Array, " c"]]:
    """The highest of each column, and of those known; among equals the earlier row."""
    groups = scores.reshape(-1, _GROUP, scores.shape[1])
    maxima = groups.max(1)  # [b / group, c]
    group, highest = jnp.argmax(maxima, axis=0), maxima.max(0)
    within = groups[group, :, jnp.arange(scores.shape[1])]  # [c, group]
    row = rows[group * _GROUP + jnp.argmax(within, axis=1)]
    nearer = highest > top
    return jnp.where(nearer, highest, top), jnp.where(nearer, row, found)


def _tally(table: Int32[Array, " c"], cell: Int32[Array, "b b"], cells: int) -> Int32[Array, " c"]:
    """Counts the cells, all below `cells`, into the table."""
    return jax.lax.platform_dependent(
        table,
        cell,
        tpu=functools.partial(_tally_by_products, cells=cells),
        default=lambda table, cell: table.at[cell.reshape(-1)].add(1, mode="promise_in_bounds"),
    )


def _tally_by_products(table: Int32[Array, " c"], cell: Int32[Array, "b b"], cells: int) -> Int32[Array, " c"]:
    """The same as a product of indicators, count[h, l] = sum_i [cell_i // 128 = h] [cell_i % 128 = l].

    A TPU takes scattered additions one after the other, but multiplies 8-bit integers by the hundred million million.
    """
    high = -(-cells // _LANES)

    def add(counts, row):
        a = (row[:, None] // _LANES == jnp.arange(high)).astype(jnp.int8)
        b = (row[:, None] % _LANES == jnp.arange(_LANES)).astype(jnp.int8)
        return counts + jax.lax.dot_general(a, b, (((0,), (0,)), ((), ())), preferred_element_type=jnp.int32), None

    start = jnp.zeros((high, _LANES), jnp.int32)
    counts, _ = jax.lax.scan(add, start, cell.reshape(-1, 8 * BLOCK))
    return table.at[:cells].add(counts.reshape(-1)[:cells])


def scaled(tile: Tile) -> Tile:
    """The rows of length one, wherever they lie."""
    return tile._replace(embeddings=tile.embeddings * tile.scale[:, None])


def _blocks(tree):
    """Rows cut into blocks."""
    return jax.tree.map(lambda x: x.reshape(-1, BLOCK, *x.shape[1:]), tree)
