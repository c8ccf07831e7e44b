"""Links: how much a picture resembles a person, beyond how much it resembles other people."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Float32, Int, Int32

from sface_jax.privacy.relations import Faces

COHORT = 10
"""Other people whose likeness a link is measured against."""

SHARE = 0.5
"""How much of their mean likeness is taken off."""

_QUERIES = 1024  # pictures compared at a time
_SLOTS = 4096  # pictures of the gallery they are compared with at a time


class Nearest(NamedTuple):
    """The people that each picture resembles most, in falling order; -infinity and -1 where there are no more.

    Attributes:
        cosines: the highest with any picture of the person.
        people: their labels.
        rows: the picture of theirs that has it.
    """

    cosines: Float32[np.ndarray, "n k"]
    people: Int[np.ndarray, "n k"]
    rows: Int[np.ndarray, "n k"]


class Links(NamedTuple):
    """Couples of a picture and a person, the strongest link first.

    Attributes:
        scores: cosine with the most alike picture of the person, less `SHARE` of the mean of the `COHORT` next people.
        cosines: the first of these.
        pictures: row of the picture.
        people: label of the person.
        rows: row of the person's picture.
    """

    scores: Float32[np.ndarray, " e"]
    cosines: Float32[np.ndarray, " e"]
    pictures: Int[np.ndarray, " e"]
    people: Int[np.ndarray, " e"]
    rows: Int[np.ndarray, " e"]

    def of_pictures(self, chosen: Bool[np.ndarray, " n"]) -> Links:
        """The links of the chosen pictures alone."""
        kept = chosen[self.pictures]
        return Links(*(column[kept] for column in self))

    def strongest(self) -> Links:
        """The strongest link of each picture that has one, the strongest first."""
        first = np.sort(np.unique(self.pictures, return_index=True)[1])
        return Links(*(column[first] for column in self))


def nearest_people(pictures: Float32[np.ndarray, "n d"], gallery: Faces, k: int = COHORT + 1) -> Nearest:
    """Finds the people of a gallery that each picture resembles most, by their most alike picture.

    People with about equal numbers of pictures are compared together, filled up to the same number with pictures that
    they have, so that a person's highest cosine is a maximum over one axis: memory is O(tile), whatever the sizes.

    Args:
        pictures: rows of length one.
        gallery: the pictures of people.
        k: how many people to keep.
    """
    found = []
    step = min(_QUERIES, -(-len(pictures) // 64) * 64)  # one shape, and so one program, for all parts
    tiles = [tuple(map(jax.device_put, tile)) for tile in _tiles(gallery)]
    for start in range(0, len(pictures), step):
        part = pictures[start : start + step]
        padded = jnp.asarray(np.pad(part, ((0, step - len(part)), (0, 0))))
        best = jnp.full((step, k), -jnp.inf), jnp.full((step, k), -1, jnp.int32), jnp.full((step, k), -1, jnp.int32)
        for tile in tiles:
            best = _nearer(padded, *tile, *best)
        found.append([np.asarray(one)[: len(part)] for one in best])
    return Nearest(*(np.concatenate(column) for column in zip(*found, strict=True)))


def links(first: Nearest, second: Nearest | None = None, *, own: Int[np.ndarray, " n"] | None = None) -> list[Links]:
    """The links of pictures with the people of one gallery, and of a second one.

    The likeness of a picture and a person alone is no measure: a generator's picture may be alike to many, as an
    average of faces is. So part of the mean over the most alike others is taken off, as adaptive normalisation of
    scores takes off all (Matejka et al., "Analysis of score normalization in multilingual speaker recognition",
    Interspeech 2017); over the people of both galleries, which keeps members and others exchangeable. `SHARE` of it,
    since who resembles a person resembles people like them; and without dividing by the standard deviation, which is
    noise where so few scores make it. On planted pictures, half found more than nothing or all of it did, among
    pictures of a generator and of a drawing program, and as many among photographs; dividing found far fewer.

    Args:
        first: what `nearest_people` found in one gallery.
        second: the same of the other gallery, which has none of its people.
        own: the identity of each picture, to which it has no link.

    Returns:
        Links for each gallery given.
    """
    galleries = [first] if second is None else [first, second]
    cosines = [one.cosines.astype(np.float64) for one in galleries]
    if own is not None:
        cosines = [np.where(g.people == own[:, None], -np.inf, c) for g, c in zip(galleries, cosines, strict=True)]
    pool = -np.sort(-np.concatenate(cosines, axis=1), axis=1)[:, : COHORT + 1]
    there = np.isfinite(pool)
    total, count = np.where(there, pool, 0).sum(axis=1), there.sum(axis=1)
    last = np.where(count > COHORT, pool[:, -1], -np.inf)  # the one that is left out for a person not among the first
    result = []
    for gallery, cosine in zip(galleries, cosines, strict=True):
        out = np.maximum(cosine, last[:, None])
        with np.errstate(invalid="ignore", divide="ignore"):
            scores = cosine - SHARE * (total[:, None] - out) / (count[:, None] - 1)
        rows, columns = np.nonzero(np.isfinite(scores))
        order = np.argsort(-scores[rows, columns], kind="stable")
        rows, columns = rows[order], columns[order]
        cosine_of, people, nearest = (array[rows, columns] for array in gallery)
        result.append(Links(scores[rows, columns].astype(np.float32), cosine_of, rows, people, nearest))
    return result


def _tiles(gallery: Faces) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Embeddings [r, p, d], labels [r] and rows [r, p] of some people with up to p pictures each, p a power of two."""
    order = np.argsort(gallery.labels, kind="stable")
    people, first, counts = np.unique(gallery.labels[order], return_index=True, return_counts=True)
    slots = 1 << np.ceil(np.log2(counts)).astype(np.int64)
    for width in np.unique(slots).tolist():
        same = np.flatnonzero(slots == width)
        height = max(_SLOTS // width, 1)
        for start in range(0, len(same), height):
            some = same[start : start + height]
            turn = np.minimum(np.arange(width), counts[some, None] - 1)
            rows = order[first[some, None] + turn]
            short = min(height, 1 << (len(same) - 1).bit_length()) - len(some)
            fill = ((0, short), (0, 0))
            rows = np.pad(rows, fill, mode="edge")
            labels = np.pad(people[some], (0, short), constant_values=-1)  # -1: not a person
            yield gallery.embeddings[rows], labels.astype(np.int32), rows.astype(np.int32)


@functools.partial(jax.jit, donate_argnums=(4, 5, 6))
def _nearer(
    pictures: Float[Array, "t d"],
    gallery: Float[Array, "r p d"],
    labels: Int32[Array, " r"],
    rows: Int32[Array, "r p"],
    best: Float[Array, "t k"],
    best_people: Int32[Array, "t k"],
    best_rows: Int32[Array, "t k"],
) -> tuple[Float[Array, "t k"], Int32[Array, "t k"], Int32[Array, "t k"]]:
    """The most alike people so far and those of one tile, put together."""
    # [t, d] x [r, p, d] -> [t, r, p]; full float32 also where the device would rather use bfloat16 or TF32
    cosines = jnp.einsum("td,rpd->trp", pictures, gallery, precision=jax.lax.Precision.HIGHEST)
    place = jnp.argmax(cosines, axis=2)  # [t, r]
    highest = jnp.where(labels >= 0, jnp.max(cosines, axis=2), -jnp.inf)
    row = rows[jnp.arange(len(labels)), place]
    joined = jnp.concatenate([best, highest], axis=1)
    top, chosen = jax.lax.top_k(joined, best.shape[1])
    people = jnp.concatenate([best_people, jnp.broadcast_to(labels, highest.shape)], axis=1)
    everything = jnp.concatenate([best_rows, row], axis=1)
    return top, jnp.take_along_axis(people, chosen, axis=1), jnp.take_along_axis(everything, chosen, axis=1)
