"""A set of faces that an audit looks at: pictures of any format, or embeddings that were made elsewhere."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
from jaxtyping import Bool, Int, Int64, UInt8, UInt64

from sface_jax.core import pictures
from sface_jax.core.errors import UserError
from sface_jax.data import formats
from sface_jax.data.sources import Source as PictureSource
from sface_jax.privacy.inputs import flat, given, pixels

MEMBERS, HELDOUT, UNSEEN, SYNTHETIC = "members", "heldout", "unseen", "synthetic"
KEYS = {MEMBERS: "authentic", HELDOUT: "heldout", UNSEEN: "unseen", SYNTHETIC: "synthetic"}
"""The config key that names each set."""


@dataclasses.dataclass(frozen=True)
class Pictures:
    """Those pictures of a source that are looked at.

    Attributes:
        source: all pictures.
        positions: of those looked at, among all of the source.
        hashes: of the pixels of each of these.
    """

    source: PictureSource
    positions: Int[np.ndarray, " n"]
    hashes: UInt64[np.ndarray, " n"]

    @property
    def kind(self) -> str:
        """What they are read from, in a word or two."""
        return "one folder" if isinstance(self.source, flat.FlatSource) else formats.name(self.source)

    def name(self, place: int) -> str:
        """What the picture at a place among those looked at is called: "<identity>/<picture>"."""
        return pixels.called(self.source, int(self.positions[place]))

    def picture(self, place: int) -> UInt8[np.ndarray, "h w 3"]:
        """The picture at a place among those looked at."""
        return pictures.decode(self.source.read(int(self.positions[place])))

    def at(self, size: int) -> pixels.Resized:
        """The pictures of the whole source by position, resized."""
        return pixels.Resized(self.source, size)


@dataclasses.dataclass(frozen=True)
class Rows:
    """Those embeddings of a file that are looked at; their pictures are not at hand.

    Attributes:
        path: the file, where "{matcher}" stands for a matcher's name.
        first: what it holds for the first matcher.
        positions: of the rows looked at, in the file.
        hashes: of each of them.
    """

    path: str
    first: given.Given
    positions: Int[np.ndarray, " n"]
    hashes: UInt64[np.ndarray, " n"]

    kind = "embeddings"

    def name(self, place: int) -> str:
        """What the row at a place among those looked at is called."""
        return self.first.called(int(self.positions[place]))

    def of(self, matcher: str) -> given.Given:
        """What the matcher of that name made.

        Raises:
            UserError: there is no such file, or it holds other pictures than the first matcher's.
        """
        path = self.path.replace(given.MATCHER, matcher)
        if path == self.first.path:
            return self.first
        found = given.read(path)
        alike = len(found.embeddings) == len(self.first.embeddings) and found.names == self.first.names
        if not alike or (found.labels is not None and (found.labels != self.first.labels).any()):
            raise UserError(
                f"{path} and {self.first.path} differ in number or labels: embed the same pictures in order"
            )
        return found


@dataclasses.dataclass(frozen=True)
class Source:
    """The faces of one set that are looked at; that at a place among them is `faces.positions[place]` among all.

    Attributes:
        name: of the set, one of `KEYS`.
        faces: the pictures or embeddings.
        labels: the identity of each: equal numbers, in whatever sets, mean the same identity.
        names: what the identities are called, by number.
        labelled: whether it is known who is who; if not, every face counts as another identity.
        in_all: how many faces the set has, looked at or not.
        unreadable: how many of those chosen cannot be read and are left out: failures to acquire.
        passed_over: how many of those chosen are left out for another reason, told in `sets.Sets.notes`.
    """

    name: str
    faces: Pictures | Rows
    labels: Int64[np.ndarray, " n"]
    names: dict[int, str]
    labelled: bool
    in_all: int
    unreadable: int = 0
    passed_over: int = 0

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def hashes(self) -> UInt64[np.ndarray, " n"]:
        """Of the pixels of each picture, or of each embedding: equal ones are the same picture."""
        return self.faces.hashes

    @property
    def figures(self) -> dict[str, Any]:
        """How much of the set is looked at, as JSON holds it; `fta` is the failure-to-acquire rate."""
        chosen = len(self) + self.unreadable + self.passed_over
        return {
            "identities": len(np.unique(self.labels)),
            "pictures": len(self),
            "pictures_in_all": self.in_all,
            "unreadable": self.unreadable,
            "fta": self.unreadable / chosen,
            "passed_over": self.passed_over,
            "labelled": self.labelled,
            "kind": self.faces.kind,
        }

    def without(self, dropped: Bool[np.ndarray, " n"]) -> Source:
        """The set without some of its faces, which are counted as passed over."""
        faces = dataclasses.replace(self.faces, positions=self.faces.positions[~dropped], hashes=self.hashes[~dropped])
        labels, count = self.labels[~dropped], self.passed_over + int(dropped.sum())
        return dataclasses.replace(self, faces=faces, labels=labels, passed_over=count)
