"""Near duplicates: pictures that are one photograph, compressed, brightened, shifted, cut or mirrored anew.

Pictures are compared by thumbnails of 16 x 16 grey values. To compare each with each takes time that grows with the
square of their number; so each gets a 64-bit perceptual hash, an index over parts of the hash proposes pairs, and only
those are compared.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float32, Int, Int64, UInt8, UInt64

SIDE = 16
"""Side of a thumbnail."""

ALIKE = 0.96
"""The least `similarity` of near duplicates.

Measured on LFW, View 1 (4,964 pictures of 430 people) and View 2 (7,701 of 4,281): of 40 million pairs of two people
one reaches it, with 0.999, and that is one photograph under two names; the next has 0.938. JPEG at quality 20, half the
size, brightness changed by a tenth, a shift by 2 pixels of 112 both ways, a crop by 5 % and a turn by 2 degrees each
leave more than 99 % of the pictures above it, a crop by a tenth a fifth of them.
"""

_FEW = 1024  # so many pictures are compared each with each
_BITS = 64
_TABLES = 12  # parts of the hash that are indexed
_UNSURE, _FLIPS = 4, 2  # of a part's least certain bits, and how many of them are taken otherwise at a time
_FAR = 15  # hashes that differ in more bits are passed over: those of near duplicates differ in 0 to 14
_LEAST = 0.8  # nor are pictures compared whose hashed frequencies correlate less
_CROWD = 2000  # pictures that are looked at in one place of a table
_CHUNK = 1 << 21  # pairs held in memory
_EPSILON = 1e-6


class Near(NamedTuple):
    """Near duplicates that bear different labels.

    Attributes:
        pairs: positions of the two pictures, the lower first; the most alike pair first.
        similarity: how alike they are, from `ALIKE` to 1.
        mirrored: whether one is like the other's mirror image.
        crowded: pictures whose hash so many share that they were not compared with all of those.
    """

    pairs: Int64[np.ndarray, "p 2"]
    similarity: Float32[np.ndarray, " p"]
    mirrored: Bool[np.ndarray, " p"]
    crowded: int


def find(thumbnails: UInt8[np.ndarray, "n 16 16"], labels: Int[np.ndarray, " n"]) -> Near:
    """Finds the near duplicates among pictures of different labels; the time it takes grows about as their number.

    The hash holds the signs of the 64 lowest frequencies of the thumbnail's cosine transform (Zauner, "Implementation
    and benchmarking of perceptual image hash functions", 2010), each against its median over all pictures: aligned
    faces are so alike that the plain signs hardly tell them apart. A random part of its bits, one more than it takes to
    number the pictures, is the place in a table (Indyk and Motwani, STOC 1998); the places where one or two of the
    least certain bits are otherwise are looked up too (Lv et al., "Multi-probe LSH", VLDB 2007). Few pictures, whose
    median says little, are compared each with each.

    Args:
        thumbnails: without exact duplicates, of which there may be many.
        labels: the identity of each.
    """
    parts, crowded = [(np.empty((0, 2), np.int64), np.empty(0, np.float32))] * 2, 0
    if len(labels) > 1:
        candidates, crowded = (_all_pairs if len(labels) <= _FEW else _hashed_pairs)(thumbnails, labels)
        parts = [_confirmed(thumbnails, pairs, bool(mirrored)) for mirrored, pairs in enumerate(candidates)]
    return _merge(parts, crowded)


def similarity(first: UInt8[np.ndarray, "p 16 16"], second: UInt8[np.ndarray, "p 16 16"]) -> Float32[np.ndarray, " p"]:
    """How alike thumbnails are, from 0 to 1, whatever their brightness and contrast, and for small moves.

    The multiple correlation of the second with the first and with what a small shift, zoom or turn changes in it, which
    is, to first order, a combination of the gradients half way between the two (the tangent distance of Simard et al.,
    NIPS 1992). Smooth shading, a polynomial of the second degree, is left out of account: a bright face before a dark
    wall is no likeness. Neither do the outermost cells count, which a move fills from outside.
    """
    a, b = (_normalised(thumbnails).reshape(-1, SIDE, SIDE) for thumbnails in (first, second))
    down, right = np.gradient((a + b) / 2, axis=(1, 2))
    y, x = _GRID
    moved = np.stack([a, right, down, x * right + y * down, x * down - y * right, b], axis=-1)
    moved = moved[:, 1:-1, 1:-1].reshape(len(a), (SIDE - 2) ** 2, -1)
    moved -= _SHADING @ (_SHADING.T @ moved)
    span, _ = np.linalg.qr(moved[..., :-1])
    target = moved[..., -1] / (np.linalg.norm(moved[..., -1], axis=1, keepdims=True) + _EPSILON)
    explained = np.einsum("pnm,pn->pm", span, target)
    return np.sqrt(np.einsum("pm,pm->p", explained, explained).clip(0, 1))


def _shading() -> Float32[np.ndarray, "cells 6"]:
    """An orthonormal basis of the polynomials of the second degree over the inner cells."""
    y, x = (axis[1:-1, 1:-1].ravel() for axis in _GRID)
    return np.linalg.qr(np.stack([np.ones_like(x), x, y, x * x, x * y, y * y], axis=1))[0]


_GRID = np.mgrid[:SIDE, :SIDE].astype(np.float32) - (SIDE - 1) / 2  # y and x of the cells, from the middle
_SHADING = _shading()


def _frequencies() -> tuple[np.ndarray, np.ndarray]:
    """The lowest frequencies of the cosine transform, [256, 64], and their signs in a mirrored picture, [64]."""
    k = np.arange(SIDE)
    cosines = np.cos(np.pi / SIDE * np.outer(k, k + 0.5)) * np.sqrt(np.where(k == 0, 1, 2) / SIDE)[:, None]
    down, right = np.divmod(np.arange(SIDE**2), SIDE)
    lowest = np.argsort(down**2 + right**2, kind="stable")[1 : _BITS + 1]  # without the mean
    basis = np.einsum("fy,fx->yxf", cosines[down[lowest]], cosines[right[lowest]]).reshape(SIDE**2, _BITS)
    return basis.astype(np.float32), np.where(right[lowest] % 2, -1, 1).astype(np.float32)


_BASIS, _PARITY = _frequencies()


def _normalised(thumbnails: np.ndarray) -> Float32[np.ndarray, "n cells"]:
    """Thumbnails of mean 0 and norm 1; where they are flat, 0."""
    cells = thumbnails.reshape(len(thumbnails), int(np.prod(thumbnails.shape[1:]))).astype(np.float32)
    cells -= cells.mean(axis=1, keepdims=True)
    return cells / (np.linalg.norm(cells, axis=1, keepdims=True) + _EPSILON)


def _coefficients(thumbnails: np.ndarray) -> Float32[np.ndarray, "n 64"]:
    """The hashed frequencies of thumbnails, of norm 1: the product of two pictures' is their correlation."""
    found = np.empty((len(thumbnails), _BITS), np.float32)
    for start in range(0, len(thumbnails), 1 << 15):
        found[start : start + (1 << 15)] = _normalised(thumbnails[start : start + (1 << 15)]) @ _BASIS
    return found / (np.linalg.norm(found, axis=1, keepdims=True) + _EPSILON)


def _all_pairs(thumbnails: np.ndarray, labels: np.ndarray) -> tuple[list[np.ndarray], int]:
    """What `_hashed_pairs` gives, of all pairs."""
    coefficients = _coefficients(thumbnails)
    others = np.triu(labels[:, None] != labels)
    near = [np.argwhere(others & (coefficients * parity @ coefficients.T >= _LEAST)) for parity in (1, _PARITY)]
    return near, 0


def _hashed_pairs(thumbnails: np.ndarray, labels: np.ndarray) -> tuple[list[np.ndarray], int]:
    """Pairs of two labels that may be near duplicates, plain and mirrored, and the number of pictures in a crowd."""
    count = len(labels)
    crowded = np.zeros(count, bool)
    coefficients = _coefficients(thumbnails)
    centre, spread = np.median(coefficients, axis=0), coefficients.std(axis=0) + _EPSILON
    hashes = _signature(coefficients > centre)
    bits = int(np.clip(np.ceil(np.log2(count)) + 1, 8, 26))
    rng = np.random.default_rng(0)
    tables = [rng.permutation(_BITS)[:bits] for _ in range(_TABLES)]
    found = []
    for parity in (1, _PARITY):
        asked = coefficients * parity
        asked_hashes = _signature(asked > centre)
        codes = np.empty(0, np.int64)  # a pair as one number
        for table in tables:
            index, new = _Index(_place(coefficients[:, table] > centre[table]), bits), [codes]
            for place in _probes((asked[:, table] - centre[table]) / spread[table]):
                crowded |= index.crowded(place)
                for i, j in index.pairs(place):
                    keep = (labels[i] != labels[j]) & (np.bitwise_count(asked_hashes[i] ^ hashes[j]) <= _FAR)
                    i, j = i[keep], j[keep]
                    keep = np.einsum("pc,pc->p", asked[i], coefficients[j]) >= _LEAST
                    new.append((np.minimum(i, j) * count + np.maximum(i, j))[keep])
            codes = np.unique(np.concatenate(new))
        found.append(np.stack(np.divmod(codes, count), axis=1))
    return found, int(crowded.sum())


def _signature(signs: np.ndarray) -> UInt64[np.ndarray, " n"]:
    return np.ascontiguousarray(np.packbits(signs, axis=1)).view(np.uint64).reshape(-1)


def _place(signs: np.ndarray) -> Int64[np.ndarray, " n"]:
    """Bits [n, bits] as a number."""
    place = np.zeros(len(signs), np.int64)
    for column in signs.T:
        place = 2 * place + column
    return place


def _probes(margins: Float32[np.ndarray, "n bits"]) -> Iterator[np.ndarray]:
    """The places to look each picture up at: its own, and those it would have if some bits were otherwise."""
    bits = margins.shape[1]
    own = _place(margins > 0)
    unsure = np.argpartition(np.abs(margins), _UNSURE, axis=1)[:, :_UNSURE]
    flips = 1 << (bits - 1 - unsure)
    for number in range(_FLIPS + 1):
        for chosen in itertools.combinations(range(_UNSURE), number):
            yield own ^ flips[:, list(chosen)].sum(axis=1)


class _Index:
    """Pictures by place."""

    def __init__(self, places: np.ndarray, bits: int):
        self.order = np.argsort(places, kind="stable")
        self.starts = np.concatenate([[0], np.cumsum(np.bincount(places, minlength=1 << bits))])

    def _counts(self, places: np.ndarray) -> np.ndarray:
        return self.starts[places + 1] - self.starts[places]

    def crowded(self, places: np.ndarray) -> np.ndarray:
        """Which of the places hold more pictures than `pairs` gives."""
        return self._counts(places) > _CROWD

    def pairs(self, places: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Each asker's position with that of every picture at its place, some at a time."""
        counts = np.minimum(self._counts(places), _CROWD)
        ends = np.cumsum(counts)
        total = ends[-1] if len(ends) else 0
        cuts = np.searchsorted(ends, np.arange(_CHUNK, total + _CHUNK, _CHUNK))
        for first, last in itertools.pairwise([0, *np.minimum(cuts + 1, len(counts))]):
            some = counts[first:last]
            askers = np.repeat(np.arange(first, last), some)
            rank = np.arange(len(askers)) - np.repeat(np.cumsum(some) - some, some)
            yield askers, self.order[np.repeat(self.starts[places[first:last]], some) + rank]


def _confirmed(thumbnails: np.ndarray, pairs: np.ndarray, mirrored: bool) -> tuple[np.ndarray, np.ndarray]:
    """The pairs that are alike, and how much."""
    found = np.empty(len(pairs), np.float32)
    for start in range(0, len(pairs), 512):  # what fits the cache is four times as fast
        i, j = pairs[start : start + 512].T
        second = thumbnails[j][:, :, ::-1] if mirrored else thumbnails[j]
        found[start : start + 512] = similarity(thumbnails[i], second)
    return pairs[found >= ALIKE], found[found >= ALIKE]


def _merge(parts: list[tuple[np.ndarray, np.ndarray]], crowded: int) -> Near:
    """Plain and mirrored pairs as one list; a pair that is alike both ways is named once, as it is more alike."""
    mirrored = np.repeat([False, True], [len(pairs) for pairs, _ in parts])
    pairs, alike = (np.concatenate(arrays) for arrays in zip(*parts, strict=True))
    order = np.argsort(-alike, kind="stable")
    _, first = np.unique(pairs[order], axis=0, return_index=True)
    order = order[np.sort(first)]
    return Near(pairs[order], alike[order], mirrored[order], crowded)
