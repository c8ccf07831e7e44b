"""Comparison of all of one set with all of another, in tiles: counts and neighbours, never the score matrix."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import jax
import numpy as np
from etils import epath
from jax.experimental import multihost_utils
from jax.sharding import Mesh
from jaxtyping import Array, Float, Float32, Int, Int32, Int64

from sface_jax.core.progress import Progress
from sface_jax.privacy import metrics, tiles
from sface_jax.verification import cache

PART = 16 * tiles.BLOCK
"""Queries that are compared with the whole gallery before anything is kept: what a resumed run does again at most."""

_ON_DEVICE = 4 << 30  # bytes of the gallery that may stay on an accelerator, rather than be sent again for each part


class Matches(NamedTuple):
    """What `match` keeps of n x m comparisons.

    Attributes:
        edges: bin edges over the cosines [-1, 1].
        mated: comparisons of equal labels in each bin.
        non_mated: comparisons of different labels in each bin; all of them where there are no labels.
        thresholds: those asked for, in rising order.
        mated_above: mated comparisons at or above each threshold.
        non_mated_above: non-mated comparisons at or above each threshold.
        top_scores: the highest cosines of each query in falling order; -infinity where the gallery is too small.
        top_indices: the gallery rows they belong to, the lower one first among equals; -1 where there is none.
        nearest_mated: highest cosine of each query to its own label; -infinity where the gallery lacks it.
        nearest_non_mated: highest cosine of each query to any other label.
        gallery_scores: highest cosine of each gallery row to any query; -infinity where not asked for.
        gallery_indices: the query it belongs to, the lower one among equals; -1 where there is none.
    """

    edges: Float[np.ndarray, " bins+1"]
    mated: Int64[np.ndarray, " bins"]
    non_mated: Int64[np.ndarray, " bins"]
    thresholds: Float[np.ndarray, " t"]
    mated_above: Int64[np.ndarray, " t"]
    non_mated_above: Int64[np.ndarray, " t"]
    top_scores: Float32[np.ndarray, "n k"]
    top_indices: Int32[np.ndarray, "n k"]
    nearest_mated: Float32[np.ndarray, " n"]
    nearest_non_mated: Float32[np.ndarray, " n"]
    gallery_scores: Float32[np.ndarray, " m"]
    gallery_indices: Int32[np.ndarray, " m"]

    @property
    def centres(self) -> Float[np.ndarray, " bins"]:
        """Bin centres: with the counts they stand for the scores in `privacy.metrics`."""
        return (self.edges[1:] + self.edges[:-1]) / 2


class _Side(NamedTuple):
    """One set as it is given, with what is needed of every row."""

    embeddings: Float[Array | np.ndarray, "n d"]
    scale: Float32[np.ndarray, " n"]
    labels: Int32[np.ndarray, " n"]


class _Part(NamedTuple):
    """What came of some queries and the whole gallery."""

    cells: Int64[np.ndarray, " c"]
    nearest: tiles.Nearest
    gallery_scores: Float32[np.ndarray, " m"]
    gallery_rows: Int32[np.ndarray, " m"]

    def arrays(self) -> dict[str, np.ndarray]:
        """By name, as they are kept on disk."""
        return {name: x for name, x in self._asdict().items() if name != "nearest"} | self.nearest._asdict()

    @classmethod
    def of(cls, arrays: dict[str, np.ndarray]) -> _Part:
        """What `arrays` gave."""
        nearest = tiles.Nearest(*(arrays[name] for name in tiles.Nearest._fields))
        return cls(*(nearest if name == "nearest" else arrays[name] for name in cls._fields))


class _Task(NamedTuple):
    """What is compared, and how."""

    query: _Side
    gallery: _Side
    bins: int
    at_least: Float32[np.ndarray, " t"]
    top_k: int
    tile: int
    exclude_self: bool
    gallery_side: bool
    mesh: Mesh


def match(
    query: Float[Array | np.ndarray, "n d"],
    gallery: Float[Array | np.ndarray, "m d"],
    query_labels: Int[Array | np.ndarray, " n"] | None = None,
    gallery_labels: Int[Array | np.ndarray, " m"] | None = None,
    *,
    bins: int = 20000,
    thresholds: Sequence[float] = (),
    top_k: int = 10,
    tile: int = 8192,
    exclude_self: bool = False,
    gallery_side: bool = True,
    mesh: Mesh | None = None,
    folder: epath.PathLike | None = None,
    progress: str = "",
) -> Matches:
    """Compares every query with every gallery row by cosine, in blocks of 1024 x 1024 scores on all devices.

    Beyond the embeddings, memory is O(tile) on a device and O(n top_k + m + bins) on the host. Every comparison is
    counted: error rates read from the histograms are exact up to the width of a bin (1e-4 by default), counts above
    `thresholds` are exact for scores in float32, in which equal rows score 1 to within 1e-6. The products all have one
    shape, so that on one kind of machine no result depends on tiles, devices or processes, not by a single count.

    Queries are taken in parts of 16,384. Each process takes parts of its own and shares them among its own devices; the
    processes speak to each other once, at the end.

    Args:
        query: embeddings, normalised here; they may lie in a file (`np.memmap`), and are read tile by tile.
        gallery: embeddings, normalised here.
        query_labels: identities of the queries; without labels all comparisons count as non-mated.
        gallery_labels: identities of the gallery; equal numbers mean a mated comparison. Sets that are sorted by label
            are compared a little faster.
        bins: equal bins over [-1, 1].
        thresholds: scores; a comparison counts where it is at or above.
        top_k: neighbours to keep for each query.
        tile: gallery rows on a device at a time, rounded up to a multiple of 1024, at most 32,768; changes time and
            memory, not results.
        exclude_self: query and gallery are the same set: no row is compared with itself, and the histograms and counts
            take each unordered pair once.
        gallery_side: whether to look for the nearest query of each gallery row too.
        mesh: devices of this process, all by default; of one axis.
        folder: where to keep each part that is done, so that a run that was cut off goes on, on any number of devices
            or processes; "" keeps none. Whoever calls removes it.
        progress: name for a progress line; none is shown without.

    Raises:
        ValueError: shapes do not fit, an embedding or a threshold is not finite, only one side has labels, no neighbour
            is to be kept, or there are more than 2^31 rows.
    """
    _check(query, gallery, query_labels, gallery_labels, exclude_self, top_k, thresholds)
    reached = np.sort(np.asarray(thresholds, np.float64))
    labels = _codes(query_labels, gallery_labels, len(query), len(gallery))
    task = _Task(
        query=_Side(query, _scales(query, "query"), labels[0]),
        gallery=_Side(gallery, _scales(gallery, "gallery"), labels[1]),
        bins=bins,
        at_least=_not_below(reached),
        top_k=top_k,
        tile=min(-(-tile // tiles.BLOCK), 32) * tiles.BLOCK,
        exclude_self=exclude_self,
        gallery_side=gallery_side,
        mesh=Mesh(np.array(jax.local_devices()), ("tiles",)) if mesh is None else mesh,
    )
    total = _gathered(*_parts(task, folder, progress), task)
    non_mated, mated = total.cells.reshape(2, -1)
    at = _bins_of(task.at_least, bins)
    return Matches(
        edges=np.linspace(-1, 1, bins + 1),
        mated=_histogram(mated, at, bins),
        non_mated=_histogram(non_mated, at, bins),
        thresholds=reached,
        mated_above=_above(mated, at),
        non_mated_above=_above(non_mated, at),
        top_scores=total.nearest.scores,
        top_indices=total.nearest.rows,
        nearest_mated=total.nearest.mated,
        nearest_non_mated=total.nearest.non_mated,
        gallery_scores=total.gallery_scores,
        gallery_indices=total.gallery_rows,
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
    query_labels, gallery_labels = np.asarray(query_labels), np.asarray(gallery_labels)
    shared = np.intersect1d(query_labels, gallery_labels)
    most = max(limit // max(len(shared), 1), 1)
    rows = zip(_rows_of(query_labels, shared), _rows_of(gallery_labels, shared), strict=True)
    scores, labels = [np.zeros(0, np.float32)], [np.zeros(0, shared.dtype)]
    for place, (of_query, of_gallery) in enumerate(rows):
        pairs = len(of_query) * (len(of_query) - 1) // 2 if exclude_self else len(of_query) * len(of_gallery)
        if pairs > most:
            chosen = np.sort(metrics.distinct(np.random.default_rng([seed, place]), pairs, most))
        else:
            chosen = np.arange(pairs)
        first, second = _pair(chosen, len(of_query)) if exclude_self else np.divmod(chosen, len(of_gallery))
        scores.append(_cosines(query, gallery, of_query[first], of_gallery[second]))
        labels.append(np.full(len(chosen), shared[place]))
    return np.concatenate(scores), np.concatenate(labels)


def _pair(numbers: Int[np.ndarray, " p"], n: int) -> tuple[Int[np.ndarray, " p"], Int[np.ndarray, " p"]]:
    """The places i < j of unordered pairs of n things, numbered (0, 1), (0, 2), ... (1, 2), ..."""
    before = np.arange(n) * (2 * n - np.arange(n) - 1) // 2  # pairs whose first place is lower
    first = np.searchsorted(before, numbers, side="right") - 1
    first = np.minimum(first, n - 2)  # the last place begins no pair
    return first, numbers - before[first] + first + 1


def _cosines(
    a: Float[Array | np.ndarray, "n d"],
    b: Float[Array | np.ndarray, "m d"],
    rows_a: Int[np.ndarray, " p"],
    rows_b: Int[np.ndarray, " p"],
) -> Float32[np.ndarray, " p"]:
    """The cosines of couples of rows, some at a time."""
    parts = [np.zeros(0, np.float32)]
    for start in range(0, len(rows_a), PART):
        x = _normalise(np.asarray(a[rows_a[start : start + PART]], np.float32))
        y = _normalise(np.asarray(b[rows_b[start : start + PART]], np.float32))
        parts.append(np.einsum("nd,nd->n", x, y))
    return np.concatenate(parts)


def _check(query, gallery, query_labels, gallery_labels, exclude_self: bool, top_k: int, thresholds) -> None:
    """Refuses what does not fit together."""
    if query.ndim != 2 or query.shape[1:] != gallery.shape[1:] or not len(query) or not len(gallery):
        raise ValueError(f"query and gallery must be [n, d] and [m, d] and not empty: {query.shape}, {gallery.shape}")
    if max(len(query), len(gallery)) >= 1 << 31:
        raise ValueError("no more than 2^31 rows can be compared at once")
    if (query_labels is None) != (gallery_labels is None):
        raise ValueError("query and gallery must both have labels, or neither")
    if query_labels is not None and (len(query_labels) != len(query) or len(gallery_labels) != len(gallery)):
        raise ValueError("there must be one label for each query and for each gallery row")
    if exclude_self and len(query) != len(gallery):
        raise ValueError("exclude_self needs the same set as query and as gallery")
    if top_k < 1 or not np.isfinite(thresholds).all():
        raise ValueError(f"top_k must be 1 or more and thresholds finite: {top_k}, {tuple(thresholds)}")


def _scales(embeddings: Float[Array | np.ndarray, "n d"], name: str) -> Float32[np.ndarray, " n"]:
    """One over the length of each row; a row of zeros stays zero."""
    squares = np.empty(len(embeddings), np.float32)
    for start in range(0, len(embeddings), PART):
        rows = np.asarray(embeddings[start : start + PART], np.float32)
        squares[start : start + PART] = np.einsum("nd,nd->n", rows, rows)
    if wrong := int((~np.isfinite(squares)).sum()):
        raise ValueError(f"{wrong:,} of the {len(squares):,} embeddings of the {name} are not finite")
    return (1 / np.sqrt(squares).clip(1e-12)).astype(np.float32)


def _codes(
    query: Int[Array | np.ndarray, " n"] | None, gallery: Int[Array | np.ndarray, " m"] | None, n: int, m: int
) -> tuple[Int32[np.ndarray, " n"], Int32[np.ndarray, " m"]]:
    """Labels as numbers from 0 on, in their order; two that are never equal where there are none."""
    if query is None:
        return np.zeros(n, np.int32), np.ones(m, np.int32)
    _, codes = np.unique(np.concatenate([np.asarray(query), np.asarray(gallery)]), return_inverse=True)
    return codes[:n].astype(np.int32), codes[n:].astype(np.int32)


def _not_below(thresholds: Float[np.ndarray, " t"]) -> Float32[np.ndarray, " t"]:
    """The lowest float32 at or above each threshold: a float32 score reaches both, or neither."""
    near = thresholds.astype(np.float32)
    return np.where(near < thresholds, np.nextafter(near, np.float32(np.inf)), near)


def _parts(
    task: _Task, folder: epath.PathLike | None, progress: str
) -> tuple[Int64[np.ndarray, " c"], list[tiles.Nearest], tuple[Float32[np.ndarray, " m"], Int32[np.ndarray, " m"]]]:
    """All parts of this process: counts, the nearest of each part, and the nearest of each gallery row."""
    m = len(task.gallery.scale)
    cells = np.zeros(2 * (task.bins + len(task.at_least)), np.int64)
    best = np.full(m, -np.inf, np.float32), np.full(m, -1, np.int32)
    nearest = []
    gallery = _Gallery(task)
    key = _digest(task) if folder else ""
    n = len(task.query.scale)
    starts = _parts_of(n, jax.process_index())
    shown = Progress(progress, min(len(starts) * PART, n), unit="pictures") if progress and starts else None
    for start in starts:
        path = epath.Path(folder) / f"part-{start // PART:06d}.npz" if folder else None
        kept = cache.stored(path, key) if path else None
        part = _compute(task, start, gallery) if kept is None else _Part.of(kept)
        if path and kept is None:
            cache.keep(path, key, **part.arrays())
        cells += part.cells
        best = _nearer(*best, part.gallery_scores, part.gallery_rows)
        nearest.append(part.nearest)
        if shown:
            shown.update(min(start + PART, n) - starts[0])
    if shown:
        shown.close()
    return cells, nearest, best


def _parts_of(n: int, process: int) -> range:
    """Where the parts of a process begin: neighbours, so that what processes found is put together in order."""
    parts = -(-n // PART)
    each = -(-parts // jax.process_count())
    return range(min(process * each, parts) * PART, min((process + 1) * each, parts) * PART, PART)


class _Gallery:
    """The gallery's tiles on the devices: kept there where an accelerator has room, else sent for each part."""

    def __init__(self, task: _Task):
        self.task = task
        side = task.gallery
        large = side.embeddings.shape[1] * 4 * len(side.scale) > _ON_DEVICE
        self.kept = None if large or task.mesh.devices.flat[0].platform == "cpu" else list(self._sent())

    def __iter__(self) -> Iterator[tiles.Tile]:
        return iter(self.kept) if self.kept is not None else self._sent()

    def _sent(self) -> Iterator[tiles.Tile]:
        _, everywhere = tiles.placed(self.task.mesh)
        for start in range(0, len(self.task.gallery.scale), self.task.tile):
            cut = _cut(self.task.gallery, start, self.task.tile, self.task.tile, tiles.GALLERY_PADDING)
            yield jax.device_put(cut, everywhere)


def _compute(task: _Task, start: int, gallery: _Gallery) -> _Part:
    """One part of the queries against the whole gallery."""
    compare = tiles.compiled(task.mesh, task.bins, len(task.at_least), task.exclude_self, task.gallery_side)
    shared, _ = tiles.placed(task.mesh)
    step = task.mesh.size * tiles.BLOCK
    rows = -(-PART // step) * step
    queries = _scaled(jax.device_put(_cut(task.query, start, PART, rows, tiles.QUERY_PADDING), shared))
    nearest = jax.device_put(tiles.nothing(rows, task.top_k), shared)
    cells, scores, whose, before = np.zeros(2 * (task.bins + len(task.at_least)), np.int64), [], [], None

    def fetch(found: tiles.Found) -> None:
        np.add(cells, np.asarray(found.cells)[:, :-1].sum(0, dtype=np.int64), out=cells)
        on_devices = np.asarray(found.gallery_scores)
        first = on_devices.argmax(0)[None]  # devices hold queries in order: the first of equals is the lower row
        scores.append(np.take_along_axis(on_devices, first, 0)[0])
        whose.append(np.take_along_axis(np.asarray(found.gallery_rows), first, 0)[0])

    for other in gallery:
        found = compare(queries, nearest, other, task.at_least)
        nearest = found.nearest
        if before is not None:  # what the tile before gave is fetched while the devices are at work on this one
            fetch(before)
        before = found._replace(nearest=None)
    fetch(before)
    taken = min(PART, len(task.query.scale) - start)
    m = len(task.gallery.scale)
    kept = tiles.Nearest(*(np.asarray(x)[:taken] for x in nearest))
    return _Part(cells, kept, np.concatenate(scores)[:m], np.concatenate(whose)[:m])


def _nearer(
    scores: Float32[np.ndarray, " m"],
    rows: Int32[np.ndarray, " m"],
    later_scores: Float32[np.ndarray, " m"],
    later_rows: Int32[np.ndarray, " m"],
) -> tuple[Float32[np.ndarray, " m"], Int32[np.ndarray, " m"]]:
    """The higher of two scores of each gallery row, the first of equals."""
    nearer = later_scores > scores
    return np.where(nearer, later_scores, scores), np.where(nearer, later_rows, rows)


def _gathered(
    cells: Int64[np.ndarray, " c"],
    nearest: list[tiles.Nearest],
    best: tuple[Float32[np.ndarray, " m"], Int32[np.ndarray, " m"]],
    task: _Task,
) -> _Part:
    """What all processes found, on every one of them."""
    nothing = tiles.nothing(0, task.top_k)
    own = tiles.Nearest(*(np.concatenate(x) for x in zip(nothing, *nearest, strict=True)))
    if jax.process_count() == 1:
        return _Part(cells, own, *best)
    n = len(task.query.scale)
    most = len(_parts_of(n, 0)) * PART  # the first process has no fewer than any other

    def put_together(rows: np.ndarray) -> np.ndarray:
        return multihost_utils.process_allgather(_filled(rows, most, 0), tiled=True)[:n]

    every = multihost_utils.process_allgather(cells.view(np.int32))  # jax would cut 64 bits down to 32
    scores, rows = (multihost_utils.process_allgather(x) for x in best)
    first = scores.argmax(0)[None]  # processes hold queries in order: the first of equals is the lower row
    return _Part(
        np.ascontiguousarray(every).view(np.int64).sum(0),
        tiles.Nearest(*map(put_together, own)),
        np.take_along_axis(scores, first, 0)[0],
        np.take_along_axis(rows, first, 0)[0],
    )


_scaled = jax.jit(tiles.scaled)


def _cut(side: _Side, start: int, count: int, rows: int, padding: int) -> tiles.Tile:
    """Rows start to start + count, filled up to `rows`."""
    stop = min(start + count, len(side.scale))
    return tiles.Tile(
        _filled(np.asarray(side.embeddings[start:stop], np.float32), rows, 0),
        _filled(side.scale[start:stop], rows, 0),
        _filled(side.labels[start:stop], rows, padding),
        _filled(np.arange(start, stop, dtype=np.int32), rows, -1),
    )


def _filled(x: np.ndarray, rows: int, value: int) -> np.ndarray:
    """With as many rows; itself where it has them, for most tiles are whole and need no copy."""
    fill = [(0, rows - len(x))] + [(0, 0)] * (x.ndim - 1)
    return x if len(x) == rows else np.pad(x, fill, constant_values=value)


def _bins_of(thresholds: Float32[np.ndarray, " t"], bins: int) -> Int[np.ndarray, " t"]:
    """The bin each threshold falls into, by the very arithmetic of the scores."""
    none = np.zeros(0, np.float32)
    return np.asarray(jax.jit(tiles.cell_of, static_argnums=2)(thresholds, none, bins)).astype(np.int64)


def _histogram(cells: Int64[np.ndarray, " c"], at: Int[np.ndarray, " t"], bins: int) -> Int64[np.ndarray, " bins"]:
    """Counts of the bins: each begins after as many cells more as there are thresholds in the bins before."""
    begins = np.arange(bins) + np.searchsorted(at, np.arange(bins))
    return np.add.reduceat(cells, begins)


def _above(cells: Int64[np.ndarray, " c"], at: Int[np.ndarray, " t"]) -> Int64[np.ndarray, " t"]:
    """Counts at or above each threshold: the cells from its bin on, but for those that reach fewer thresholds."""
    return cells[::-1].cumsum()[::-1][at + np.arange(len(at)) + 1] if len(at) else np.zeros(0, np.int64)


def _digest(task: _Task) -> str:
    """Of all that decides what a part is."""
    digest = hashlib.blake2b(repr((task.bins, task.at_least.tolist(), *task[4:5], *task[6:8])).encode())
    for side in (task.query, task.gallery):
        digest.update(side.labels.data)
        for start in range(0, len(side.scale), PART):
            digest.update(np.ascontiguousarray(side.embeddings[start : start + PART]).data)
    return digest.hexdigest()


def _normalise(x: Float[np.ndarray, "n d"]) -> Float[np.ndarray, "n d"]:
    """Rows of length one; a row of zeros stays zero."""
    return x / ((x * x).sum(1, keepdims=True) ** 0.5).clip(1e-12)


def _rows_of(labels: np.ndarray, wanted: np.ndarray) -> list[np.ndarray]:
    """The rows that carry each of the sorted labels `wanted`."""
    order = np.argsort(labels, kind="stable")
    ordered = labels[order]
    first, last = np.searchsorted(ordered, wanted), np.searchsorted(ordered, wanted, side="right")
    return [order[a:b] for a, b in zip(first, last, strict=True)]
