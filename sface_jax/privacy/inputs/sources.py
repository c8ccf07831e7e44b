"""A set of faces that an audit looks at: pictures of any format, or embeddings that were made elsewhere."""

from __future__ import annotations

import dataclasses
import hashlib
from typing import Any

import numpy as np
from absl import logging
from etils import epath
from jaxtyping import Bool, Int, Int64, UInt8, UInt64
from ml_collections import ConfigDict

from sface_jax.core import pictures
from sface_jax.core.errors import UserError
from sface_jax.data import dataset, formats, layout
from sface_jax.data.sources import Source as PictureSource
from sface_jax.privacy.inputs import flat, given, pixels
from sface_jax.privacy.inputs.entries import TRAIN, Entry

MEMBERS, HELDOUT, UNSEEN, SYNTHETIC = "members", "heldout", "unseen", "synthetic"
KEYS = {MEMBERS: "authentic", HELDOUT: "heldout", UNSEEN: "unseen", SYNTHETIC: "synthetic"}
"""The config key that names each set."""

LABELS = ("auto", "own", "none")
"""What `config.labels` may be: names link the sets; they hold within a set only; every picture is somebody else's."""


@dataclasses.dataclass(frozen=True)
class Pictures:
    """Those pictures of a source that are looked at.

    Attributes:
        source: all pictures.
        positions: of those looked at, in the source.
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
        positions: of the rows looked at.
        hashes: of each of them.
    """

    path: str
    first: given.Given
    positions: Int[np.ndarray, " n"]
    hashes: UInt64[np.ndarray, " n"]

    kind = "embeddings"

    def name(self, place: int) -> str:
        """What the row at a place among those looked at is called."""
        return f"row {self.positions[place]}"

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
    """The faces of one set that are looked at.

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


def open_source(name: str, entry: Entry, config: ConfigDict, matcher: str = "") -> Source:
    """Opens a set, and reads those of its pictures that will be looked at; identities keep the set's own numbers.

    Keys of the config: `labels`, `max_pictures`, `max_unreadable`, `seed`; see `configs/privacy.py`.

    Args:
        name: one of `KEYS`.
        entry: where it lies.
        config: the config.
        matcher: which of several embeddings to look at first.

    Raises:
        UserError: it is not there or of no known format, or too many of its pictures cannot be read.
    """
    if given.is_given(entry.path):
        source = _open_rows(name, entry.path, config, matcher)
    else:
        source = _open_pictures(name, entry, config)
    return source if source.labelled and config.labels != "none" else _unlabelled(source)


def evenly(labels: Int[np.ndarray, " n"], most: int, seed: int = 0) -> Int64[np.ndarray, " k"]:
    """Positions, ascending, of at most `most` faces, drawn so that all identities keep equal numbers where they can.

    Args:
        labels: the identity of each face.
        most: how many; 0 takes all.
        seed: of the draw.
    """
    if not most or len(labels) <= most:
        return np.arange(len(labels))
    order = np.random.default_rng(seed).permutation(len(labels))
    by_label = order[np.argsort(labels[order], kind="stable")]
    _, first, counts = np.unique(labels[by_label], return_index=True, return_counts=True)
    turn = np.arange(len(by_label)) - np.repeat(first, counts)  # 0 for the first face of each identity, ...
    return np.sort(by_label[np.argsort(turn, kind="stable")[:most]])


def is_ours(entry: Entry) -> bool:
    """Whether an entry is a dataset that stage prepare or synthesize wrote."""
    return (epath.Path(entry.path) / layout.INFO_FILE).exists()


def _unlabelled(source: Source) -> Source:
    names = {place: source.faces.name(place) for place in range(len(source))}
    return dataclasses.replace(source, labels=np.arange(len(source), dtype=np.int64), names=names, labelled=False)


def _open_rows(name: str, path: str, config: ConfigDict, matcher: str) -> Source:
    found = given.read(path.replace(given.MATCHER, matcher))
    labels = np.arange(len(found.embeddings)) if found.labels is None else found.labels.astype(np.int64)
    positions = evenly(labels, config.max_pictures, config.seed)
    hashes = np.array([_hash(found.embeddings[position]) for position in positions], np.uint64)
    return Source(
        name=name,
        faces=Rows(path, found, positions, hashes),
        labels=labels[positions],
        names=dict(enumerate(found.names)),
        labelled=found.labels is not None,
        in_all=len(labels),
    )


def _hash(row: np.ndarray) -> int:
    return int.from_bytes(hashlib.sha256(row.tobytes()).digest()[:8])


def _open_pictures(name: str, entry: Entry, config: ConfigDict) -> Source:
    """The pictures of a set; the numbers of a dataset's identities are its own, which other datasets may share."""
    if is_ours(entry):
        split = dataset.open(entry.path, KEYS[name])[entry.part or TRAIN]
        source: PictureSource = dataset.SplitSource(split)
        numbers = split.classes.astype(np.int64)
    else:
        if entry.part:
            raise UserError(f"config.{KEYS[name]}: {entry.path} is no dataset with splits: leave out :{entry.part}")
        source = flat.FlatSource(entry.path) if flat.is_flat(entry.path) else formats.open_source(entry.path)
        numbers = np.arange(len(source.class_names))
    labels = np.asarray(source.labels)
    positions = evenly(labels, config.max_pictures, config.seed)
    looked = pixels.look(name, source, positions)
    _tell_unreadable(name, looked, config.max_unreadable)
    kept = positions[looked.readable]
    return Source(
        name=name,
        faces=Pictures(source, kept, looked.hashes),
        labels=numbers[labels[kept]],
        names=dict(zip(numbers.tolist(), source.class_names, strict=True)),
        labelled=not isinstance(source, flat.FlatSource),
        in_all=len(labels),
        unreadable=looked.unreadable,
    )


def _tell_unreadable(name: str, looked: pixels.Looked, most: float) -> None:
    if not looked.unreadable:
        return
    told = f"{looked.unreadable:,} of {len(looked.readable):,} pictures of {name} cannot be read"
    if looked.unreadable > most * len(looked.readable) or not len(looked.hashes):
        raise UserError(f"{told}, the first {looked.first}: mend them, or allow more by config.max_unreadable")
    logging.warning("%s and are left out; the first is %s", told, looked.first)
