"""Copies: synthetic pictures that are an authentic photograph, as it is or compressed, cut or brightened anew."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Float32, Int, UInt8, UInt64
from PIL import Image

from sface_jax.data import duplicates
from sface_jax.privacy import matching
from sface_jax.privacy.relations import Faces
from sface_jax.recognition.features import Images

EQUAL = 1 - 1e-5
"""The cosine from which embeddings are equal: as near to one as sums in float32 come."""

_READ = 1 << 10  # pictures read at a time


class Looks(NamedTuple):
    """What copies are found by.

    Attributes:
        hashes: of the pixels of each picture, see `pixels.look`.
        thumbnails: see `data.duplicates`.
    """

    hashes: UInt64[np.ndarray, " n"]
    thumbnails: UInt8[np.ndarray, "n 16 16"]


class Copies(NamedTuple):
    """Synthetic pictures that are copies, each with the authentic one it is most alike to; the most alike first.

    Attributes:
        pictures: rows of the synthetic pictures.
        origins: rows of the authentic ones.
        similarity: how alike the two are, from `duplicates.ALIKE` to 1.
        mirrored: whether one is like the other's mirror image.
        equal: whether their pixels are equal; their embeddings, where these are all there is.
        crowded: pictures so like many others that they were not compared with all of those.
    """

    pictures: Int[np.ndarray, " c"]
    origins: Int[np.ndarray, " c"]
    similarity: Float32[np.ndarray, " c"]
    mirrored: Bool[np.ndarray, " c"]
    equal: Bool[np.ndarray, " c"]
    crowded: int

    def counts(self) -> dict[str, int]:
        """How many are `equal`, and how many are near duplicates (`alike`) but not equal."""
        return {"equal": int(self.equal.sum()), "alike": int((~self.equal).sum())}


def thumbnails(images: UInt8[np.ndarray, "n h w 3"]) -> UInt8[np.ndarray, "n 16 16"]:
    """The luma of pictures, made small with the filter that `data.validate` uses."""
    size = (duplicates.SIDE, duplicates.SIDE)
    small = [Image.fromarray(image).convert("L").resize(size, Image.Resampling.LANCZOS) for image in images]
    return np.stack([np.asarray(one) for one in small]) if small else np.zeros((0, *size), np.uint8)


def look(pictures: Images, positions: Int[np.ndarray, " n"], hashes: UInt64[np.ndarray, " n"]) -> Looks:
    """Reads pictures, some at a time, for their thumbnails.

    Args:
        pictures: to read from.
        positions: which of them.
        hashes: of the pixels of these.
    """
    parts = [thumbnails(pictures.images(positions[start : start + _READ])) for start in range(0, len(positions), _READ)]
    return Looks(hashes, np.concatenate(parts) if parts else thumbnails(np.zeros((0, 1, 1, 3), np.uint8)))


def find(synthetic: Looks, authentic: Looks) -> Copies:
    """Finds the synthetic pictures that are copies of authentic ones; see `data.duplicates`, which does the search."""
    known, first = np.unique(authentic.hashes, return_index=True)
    place = np.searchsorted(known, synthetic.hashes).clip(max=max(len(known) - 1, 0))
    equal = known[place] == synthetic.hashes if len(known) else np.zeros(len(synthetic.hashes), bool)
    # Pictures that occur more than once are looked at once, which the search asks for.
    _, mine, again = np.unique(synthetic.hashes, return_index=True, return_inverse=True)
    both = np.concatenate([synthetic.thumbnails[mine], authentic.thumbnails[first]])
    near = duplicates.find(both, np.repeat([0, 1], [len(mine), len(first)]))
    of, _, where = np.unique(near.pairs[:, 0], return_index=True, return_inverse=True)[:3]
    best = np.full(len(mine), -1)  # of each different synthetic picture, the first and so most alike pair
    if len(of):
        best[of] = np.unique(where, return_index=True)[1]
    pair = np.where(equal, -1, best[again])
    rows = np.flatnonzero(equal | (pair >= 0))
    origins, alike, mirrored = first[place], np.ones(len(place), np.float32), np.zeros(len(place), bool)
    found = pair >= 0
    origins[found] = first[near.pairs[pair[found], 1] - len(mine)]
    alike[found], mirrored[found] = near.similarity[pair[found]], near.mirrored[pair[found]]
    rows = rows[np.lexsort((rows, -alike[rows], ~equal[rows]))]
    return Copies(rows, origins[rows], alike[rows], mirrored[rows], equal[rows], near.crowded)


def find_equal(synthetic: Faces, authentic: Faces) -> Copies:
    """Finds the synthetic embeddings that equal an authentic one, where there are no pictures to look at.

    Equal are rows with a cosine of at least `EQUAL`. Copies that were edited, and copies where the embeddings were
    computed in another way, are not found; equal embeddings of different pictures are, but a matcher makes hardly any.
    """
    matches = matching.match(synthetic.embeddings, authentic.embeddings, top_k=1, gallery_side=False)
    scores, origins = matches.top_scores[:, 0], matches.top_indices[:, 0].astype(np.int64)
    rows = np.flatnonzero(scores >= EQUAL)
    alike, yes = np.minimum(scores[rows], np.float32(1)), np.ones(len(rows), bool)
    return Copies(rows, origins[rows], alike, ~yes, yes, 0)


def same(first: UInt8[np.ndarray, "n 16 16"], second: UInt8[np.ndarray, "n 16 16"]) -> Bool[np.ndarray, " n"]:
    """Whether `find` would call the pictures of these thumbnails copies, one with one."""
    return duplicates.similarity(first, second) >= duplicates.ALIKE


def figures(members: Copies, heldout: Copies | None, scale: float = 1.0, listed: int = 100) -> dict[str, Any]:
    """What was found, for JSON.

    Args:
        members: copies of member pictures.
        heldout: copies of held-out pictures, which are chance's: the generator never saw these.
        scale: how many member pictures there are for each held-out one.
        listed: how many to list.

    Returns:
        `members` and `heldout`, each with `equal` and `alike`; the latter with `expected_among_members`, the near
        duplicates that chance makes there; `crowded`; and `suspicious`, the first rows.
    """
    others = None
    if heldout is not None:
        counts = heldout.counts()
        others = counts | {"expected_among_members": sum(counts.values()) * scale}
    return {
        "members": members.counts(),
        "heldout": others,
        "crowded": members.crowded,
        "suspicious": [
            {
                "picture": int(members.pictures[i]),
                "member": int(members.origins[i]),
                "similarity": float(members.similarity[i]),
                "mirrored": bool(members.mirrored[i]),
                "equal": bool(members.equal[i]),
            }
            for i in range(min(listed, len(members.pictures)))
        ],
    }
