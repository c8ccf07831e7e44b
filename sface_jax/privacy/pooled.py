"""Comparison of identities with identities: the scores of all pictures of the two, pooled."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Float32, Int, Int32

POOLINGS = ("mean", "max")
"""Of all cosines between pictures of two identities: their mean, or the highest."""

_ROWS = 4096  # pictures of whole identities that are compared at a time
_IDENTITIES = 1024  # likewise where only means are


class IdentityMatches(NamedTuple):
    """What came of comparing each query identity with all gallery identities.

    Attributes:
        identities: of the queries, in rising order.
        own: the pooled score with the gallery identity of the same label; -infinity where there is none.
        other: the highest pooled score with any other gallery identity; -infinity where there is none.
        rank: of its own, from 1: among equal scores it comes last. Without one it means nothing.
        top_identities: the labels of the gallery identities with the highest pooled scores, in falling order.
        top_scores: these scores.
    """

    identities: Int[np.ndarray, " a"]
    own: Float32[np.ndarray, " a"]
    other: Float32[np.ndarray, " a"]
    rank: Int[np.ndarray, " a"]
    top_identities: Int[np.ndarray, "a k"]
    top_scores: Float32[np.ndarray, "a k"]


class _Side(NamedTuple):
    """Pictures in the order of their identities, which are `identities[i]` from `starts[i]` to `starts[i + 1]`."""

    embeddings: Float[np.ndarray, "n d"]
    order: Int[np.ndarray, " n"]
    identities: Int[np.ndarray, " a"]
    starts: Int[np.ndarray, " b"]

    def rows(self, first: int, last: int) -> Float32[np.ndarray, "r d"]:
        """The pictures of some identities, of length one."""
        x = np.asarray(self.embeddings[self.order[self.starts[first] : self.starts[last]]], np.float32)
        return x / np.linalg.norm(x, axis=1, keepdims=True).clip(1e-12)


def match_identities(
    query: Float[np.ndarray, "n d"],
    gallery: Float[np.ndarray, "m d"],
    query_labels: Int[np.ndarray, " n"],
    gallery_labels: Int[np.ndarray, " m"],
    *,
    pooling: str = "mean",
    top_k: int = 10,
) -> IdentityMatches:
    """Compares every query identity with every gallery identity by the pooled cosines of their pictures.

    Memory is O(identities of the gallery) a query identity, some at a time. The mean of all cosines of two identities
    is the product of their mean vectors, so that "mean" costs identities x identities; "max" looks at all pictures.

    Args:
        query: embeddings, normalised here.
        gallery: embeddings, normalised here.
        query_labels: identities of the queries.
        gallery_labels: identities of the gallery; equal numbers mean the same identity.
        pooling: one of `POOLINGS`.
        top_k: neighbours to keep; fewer where the gallery has fewer identities.

    Raises:
        ValueError: there is no such pooling.
    """
    if pooling not in POOLINGS:
        raise ValueError(f"there is no pooling {pooling!r}: there are {', '.join(POOLINGS)}")
    a, b = _side(query, query_labels), _side(gallery, gallery_labels)
    place = np.searchsorted(b.identities, a.identities).clip(max=len(b.identities) - 1)
    mated = b.identities[place] == a.identities
    found = []
    for first, scores in (_means if pooling == "mean" else _maxima)(a, b):
        here = slice(first, first + len(scores))
        rows, at = np.flatnonzero(mated[here]), place[here][mated[here]]
        own = np.full(len(scores), -np.inf, np.float32)
        own[rows] = scores[rows, at]
        top, best = (np.asarray(x) for x in jax.lax.top_k(scores, min(top_k, scores.shape[1])))
        others = scores.copy()
        others[rows, at] = -np.inf
        found.append((own, others.max(1), 1 + (others >= own[:, None]).sum(1), b.identities[best], top))
    return IdentityMatches(a.identities, *(np.concatenate(x) for x in zip(*found, strict=True)))


def _side(embeddings: Float[np.ndarray, "n d"], labels: Int[np.ndarray, " n"]) -> _Side:
    order = np.argsort(labels, kind="stable")
    identities, starts = np.unique(np.asarray(labels)[order], return_index=True)
    return _Side(embeddings, order, identities, np.append(starts, len(order)))


def _means(a: _Side, b: _Side) -> Iterator[tuple[int, Float32[np.ndarray, "i c"]]]:
    """Place of the first identity, and the mean scores, of some query identities with all of the gallery."""
    means = [
        np.concatenate([side.rows(i, i + 1).mean(0)[None] for i in range(len(side.identities))]) for side in (a, b)
    ]
    others = jnp.asarray(means[1].T)
    for first in range(0, len(means[0]), _IDENTITIES):
        some = means[0][first : first + _IDENTITIES]
        yield first, np.asarray(_product(jnp.asarray(some), others))


def _maxima(a: _Side, b: _Side) -> Iterator[tuple[int, Float32[np.ndarray, "i c"]]]:
    """The same of the highest scores."""
    for first, last in _chunks(a):
        scores = np.empty((last - first, len(b.identities)), np.float32)
        queries = _padded(a, first, last)
        for other, end in _chunks(b):
            found = _highest(*queries, *_padded(b, other, end), _wider(last - first + 1), _wider(end - other + 1))
            scores[:, other:end] = np.asarray(found)[: last - first, : end - other]
        yield first, scores


def _chunks(side: _Side) -> Iterator[tuple[int, int]]:
    """Consecutive identities with at most `_ROWS` pictures, or a single one with more."""
    first = 0
    while first < len(side.identities):
        last = int(np.searchsorted(side.starts, side.starts[first] + _ROWS, side="right")) - 1
        yield first, max(last, first + 1)
        first = max(last, first + 1)


def _padded(side: _Side, first: int, last: int) -> tuple[Float32[np.ndarray, "r d"], Int32[np.ndarray, " r"]]:
    """Pictures of some identities and which of these they show, filled up with pictures of one identity more."""
    rows = side.rows(first, last)
    of = np.repeat(np.arange(last - first, dtype=np.int32), np.diff(side.starts[first : last + 1]))
    fill = _wider(len(rows)) - len(rows)
    return np.pad(rows, ((0, fill), (0, 0))), np.pad(of, (0, fill), constant_values=last - first)


def _wider(count: int) -> int:
    """The next power of two, so that few shapes are compiled."""
    return 1 << (count - 1).bit_length()


@jax.jit
def _product(a: Float32[Array, "i d"], b: Float32[Array, "d c"]) -> Float32[Array, "i c"]:
    return jnp.matmul(a, b, precision=jax.lax.Precision.HIGHEST)


@functools.partial(jax.jit, static_argnums=(4, 5))
def _highest(
    a: Float32[Array, "r d"],
    of_a: Int32[Array, " r"],
    b: Float32[Array, "s d"],
    of_b: Int32[Array, " s"],
    i: int,
    j: int,
) -> Float32[Array, "_i _j"]:
    """The highest score of each two identities."""
    scores = jnp.matmul(a, b.T, precision=jax.lax.Precision.HIGHEST)  # [r, s]
    by_query = jax.ops.segment_max(scores, of_a, i, indices_are_sorted=True)  # [i, s]
    return jax.ops.segment_max(by_query.T, of_b, j, indices_are_sorted=True).T  # [i, j]
