"""What may be wrong with the pictures of a dataset: facts of each, and what stands out among all.

Facts are taken where a picture is decoded anyway; the findings come from the facts alone.
"""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Int, UInt8
from PIL import Image

from sface_jax.data import duplicates
from sface_jax.data.align import Pixels

FACTS = np.dtype(
    [
        ("width", "<u4"),  # of the picture as it was found, in pixels
        ("height", "<u4"),
        ("side", "<f4"),  # of the square of it that the dataset shows, in its pixels
        ("mean", "<f4"),  # of the luma, 0 to 255
        ("spread", "<f4"),  # standard deviation of the luma
        ("digest", "<u8", (2,)),  # the first 16 bytes of the SHA-256 of the pixels
        ("thumbnail", "u1", (duplicates.SIDE, duplicates.SIDE)),  # the luma, made small
    ]
)
"""A row for each picture: 292 bytes."""

DARK, BRIGHT = 32.0, 224.0
"""Mean luma below and above which a picture is too dark or too bright: an eighth of the range.

Of 12,665 pictures of LFW the darkest has 45, the brightest 194.
"""

FLAT = 10.0
"""Spread of the luma below which a picture shows hardly anything; the flattest of those of LFW has 20."""

ENLARGED = 1.1
"""How far a picture may be enlarged unremarked: about as far as a detector's errors move the scale of a face."""

KINDS = {
    "shared": ("Shared by identities", "The same pixels occur in several identities: all but one label must be wrong."),
    "alike": (
        "Near duplicates",
        "One photograph, compressed, brightened, shifted or cut anew, in two identities: one label must be wrong.",
    ),
    "mirrored": ("Mirrored near duplicates", "Near duplicates of two identities, one of them mirrored."),
    "repeated": ("Repeated in an identity", "The same pixels occur more than once in one identity."),
    "enlarged": ("Too small", f"The picture was enlarged more than {ENLARGED:g} times: it lacks detail."),
    "dark": ("Too dark", f"The mean luma is below {DARK:g} of 255."),
    "bright": ("Too bright", f"The mean luma is above {BRIGHT:g} of 255."),
    "flat": ("Flat", f"The luma hardly varies: its standard deviation is below {FLAT:g} of 255."),
    "resized": ("Of another size", "The picture was not of the size asked for, and was cut, aligned or resized."),
    "single": ("Alone", "The identity has no other picture."),
}
"""Kind of finding -> what it is called, and what it means."""


def facts(image: Pixels, shown: UInt8[np.ndarray, "s s 3"] | None = None, side: float | None = None) -> np.ndarray:
    """The facts of one picture, a scalar of dtype `FACTS`.

    Args:
        image: the picture as decoded.
        shown: what the dataset will show of it, where it was cut, aligned or resized: brightness and likeness are
            judged by that. Two people cut out of one photograph are no duplicates.
        side: the side of the square of `image` that `shown` shows, in pixels of `image`; by default its shorter side.
            Of an aligned picture: its size over the scale of the transform.
    """
    height, width, _ = image.shape
    shown = image if shown is None else shown
    luma = Image.fromarray(shown).convert("L")  # ITU-R BT.601
    values = np.asarray(luma)
    # Lanczos, as other filters alias: a thumbnail would change too much when its picture shifts by a pixel.
    thumbnail = luma.resize((duplicates.SIDE, duplicates.SIDE), Image.Resampling.LANCZOS)
    digest = hashlib.sha256(repr(shown.shape).encode() + np.ascontiguousarray(shown).tobytes()).digest()
    row = np.zeros((), FACTS)
    row["width"], row["height"], row["side"] = width, height, min(width, height) if side is None else side
    row["mean"], row["spread"] = values.mean(), values.std()
    row["digest"] = np.frombuffer(digest[:16], "<u8")
    row["thumbnail"] = np.asarray(thumbnail)
    return row


@dataclasses.dataclass(frozen=True)
class Finding:
    """What was found of one kind.

    Attributes:
        count: how many groups of pictures; of kinds that concern each picture by itself, how many pictures.
        pictures: how many pictures are in a group.
        examples: the first groups, as positions; the most alike first, of near duplicates.
    """

    count: int
    pictures: int
    examples: list[tuple[int, ...]]


@dataclasses.dataclass(frozen=True)
class Findings:
    """What stands out in a dataset.

    Attributes:
        pictures: how many there are.
        kinds: a finding of each of `KINDS`, of those too of which nothing was found.
        histogram: number of pictures -> how many identities have that many.
        crowded: pictures so alike that not all of their pairs were looked at for near duplicates.
    """

    pictures: int
    kinds: dict[str, Finding]
    histogram: dict[int, int]
    crowded: int

    def to_json(self, names: Sequence[str]) -> dict[str, Any]:
        """What `validation.json` keeps.

        Args:
            names: `<identity>/<picture>` of each position.
        """
        return {
            "pictures": self.pictures,
            "identities": sum(self.histogram.values()),
            "findings": {
                kind: {
                    "title": KINDS[kind][0],
                    "meaning": KINDS[kind][1],
                    "count": finding.count,
                    "pictures": finding.pictures,
                    "examples": [[names[position] for position in group] for group in finding.examples],
                }
                for kind, finding in self.kinds.items()
            },
            "pictures_per_identity": {str(count): identities for count, identities in self.histogram.items()},
            "not_fully_compared": self.crowded,
        }


def find(rows: np.ndarray, labels: Int[np.ndarray, " n"], *, size: int, most: int = 20) -> Findings:
    """Finds what stands out.

    Args:
        rows: facts of all pictures, [n] of dtype `FACTS`.
        labels: the identity of each picture.
        size: side of the dataset's pictures.
        most: how many examples of each kind to keep.
    """
    flat = rows["spread"] < FLAT
    each = {
        "resized": (rows["width"] != size) | (rows["height"] != size),
        "enlarged": size > ENLARGED * rows["side"],
        "dark": rows["mean"] < DARK,
        "bright": rows["mean"] > BRIGHT,
        "flat": flat,
    }
    identities, counts = np.unique(labels, return_counts=True)
    each["single"] = np.isin(labels, identities[counts == 1])
    kinds = {kind: _single(np.flatnonzero(mask), most) for kind, mask in each.items()}
    groups = _same_pixels(rows["digest"])
    kinds["repeated"] = _finding([part for group in groups for part in _by_label(group, labels)], most)
    kinds["shared"] = _finding([group for group in groups if len(set(labels[group])) > 1], most)
    distinct = np.ones(len(rows), bool)
    for group in groups:
        distinct[group[1:]] = False
    looked_at = np.flatnonzero(distinct & ~flat)
    near = duplicates.find(rows["thumbnail"][looked_at], labels[looked_at])
    pairs = looked_at[near.pairs]
    kinds["alike"] = _finding(list(pairs[~near.mirrored]), most)
    kinds["mirrored"] = _finding(list(pairs[near.mirrored]), most)
    sizes, numbers = np.unique(counts, return_counts=True)
    return Findings(
        pictures=len(rows),
        kinds={kind: kinds[kind] for kind in KINDS},
        histogram=dict(zip(sizes.tolist(), numbers.tolist(), strict=True)),
        crowded=near.crowded,
    )


def _single(positions: np.ndarray, most: int) -> Finding:
    return Finding(len(positions), len(positions), [(int(position),) for position in positions[:most]])


def _finding(groups: list[np.ndarray], most: int) -> Finding:
    pictures = len(np.unique(np.concatenate(groups))) if groups else 0
    return Finding(len(groups), pictures, [tuple(group.tolist()) for group in groups[:most]])


def _same_pixels(digests: np.ndarray) -> list[np.ndarray]:
    """The positions that share a digest, ascending, in groups of two or more, those that occur first first."""
    order = np.lexsort((digests[:, 1], digests[:, 0]))
    new = np.any(digests[order][1:] != digests[order][:-1], axis=1)
    groups = np.split(order, np.flatnonzero(new) + 1)
    return sorted((np.sort(group) for group in groups if len(group) > 1), key=lambda group: group[0])


def _by_label(group: np.ndarray, labels: np.ndarray) -> list[np.ndarray]:
    """The parts of a group, two or more positions, that bear one label."""
    parts = (group[labels[group] == label] for label in np.unique(labels[group]))
    return [part for part in parts if len(part) > 1]
