"""Who is in a set of an audit, before any of it is read: enough to choose what to look at."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Mapping

import numpy as np
from absl import logging
from etils import epath
from jaxtyping import Int, Int64
from ml_collections import ConfigDict

from sface_jax.core.errors import UserError
from sface_jax.data import dataset, folders, formats, layout
from sface_jax.data.sources import Source as PictureSource
from sface_jax.privacy.inputs import flat, given, pixels
from sface_jax.privacy.inputs.entries import TRAIN, Entry
from sface_jax.privacy.inputs.sources import KEYS, SYNTHETIC, Pictures, Rows, Source

LABELS = ("auto", "own", "none")
"""What `config.labels` may be: names link the synthetic set to the authentic one; they hold within each set only; those
of the synthetic set mean nothing."""


@dataclasses.dataclass(frozen=True)
class Listed:
    """All faces of a set, by name only.

    Attributes:
        name: of the set, one of `KEYS`.
        path: where it lies.
        content: all its pictures, or its embeddings for the first matcher.
        labels: the identity of each face; equal numbers, in whatever sets, mean the same one once all are `numbered`.
        names: what the identities are called, by number.
        labelled: whether it is known who is who; if not, every face counts as another identity.
        notes: what was passed over, in sentences.
    """

    name: str
    path: str
    content: PictureSource | given.Given
    labels: Int64[np.ndarray, " n"]
    names: dict[int, str]
    labelled: bool = True
    notes: tuple[str, ...] = ()

    def numbered(self, new: Mapping[int, int]) -> Listed:
        """The set under new numbers of all its identities."""
        old = np.array(sorted(new))
        values = np.array([new[number] for number in old.tolist()])
        labels = values[np.searchsorted(old, self.labels)]
        names = {new[number]: name for number, name in self.names.items()}
        return dataclasses.replace(self, labels=labels, names=names)

    def unlabelled(self) -> Listed:
        """The set with every face as another identity."""
        called = self.content.called if isinstance(self.content, given.Given) else self._called
        names = {position: called(position) for position in range(len(self.labels))}
        note = f"{self.name}: it is not known who is who, so every face counts as another person"
        return dataclasses.replace(
            self, labels=np.arange(len(self.labels)), names=names, labelled=False, notes=(*self.notes, note)
        )

    def look(self, positions: Int[np.ndarray, " k"], max_unreadable: float) -> Source:
        """Reads the faces at some positions.

        Args:
            positions: of the faces, ascending.
            max_unreadable: share of them that may be unreadable.

        Raises:
            UserError: more of them cannot be read.
        """
        unreadable = 0
        if isinstance(self.content, given.Given):
            hashes = np.array([_hash(self.content.embeddings[position]) for position in positions], np.uint64)
            faces: Pictures | Rows = Rows(self.path, self.content, positions, hashes)
        else:
            looked = pixels.look(self.name, self.content, positions)
            _tell_unreadable(self.name, looked, max_unreadable)
            positions, unreadable = positions[looked.readable], looked.unreadable
            faces = Pictures(self.content, positions, looked.hashes)
        labels, in_all = self.labels[positions], len(self.labels)
        return Source(self.name, faces, labels, self.names, self.labelled, in_all, unreadable)

    def _called(self, position: int) -> str:
        return pixels.called(self.content, position)


def open_listed(name: str, entry: Entry, config: ConfigDict, matcher: str = "") -> Listed:
    """Opens a set; its identities keep the numbers that they have in it.

    Args:
        name: one of `KEYS`.
        entry: where it lies.
        config: `labels` is asked; see `configs/privacy.py`.
        matcher: which of several embeddings to look at first.

    Raises:
        UserError: it is not there or of no known format.
    """
    if given.is_given(entry.path):
        found = given.read(entry.path.replace(given.MATCHER, matcher))
        labelled = found.labels is not None
        labels = found.labels.astype(np.int64) if labelled else np.arange(len(found.embeddings))
        listed = Listed(name, entry.path, found, labels, dict(enumerate(found.names)))
    else:
        listed = _open_pictures(name, entry)
        labelled = not isinstance(listed.content, flat.FlatSource)
    meaningless = name == SYNTHETIC and config.labels == "none"
    return listed if labelled and not meaningless else listed.unlabelled()


def evenly(labels: Int[np.ndarray, " n"], most: int, seed: int = 0) -> Int64[np.ndarray, " k"]:
    """Positions, ascending, of at most `most` faces, drawn so that all identities keep equal numbers where they can.

    Args:
        labels: the identity of each face; where not all can be taken alike, lower ones come first.
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


def _hash(row: np.ndarray) -> int:
    return int.from_bytes(hashlib.sha256(row.tobytes()).digest()[:8])


def _open_pictures(name: str, entry: Entry) -> Listed:
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
    names = dict(zip(numbers.tolist(), source.class_names, strict=True))
    notes = _passed_over(name, source, entry.path)
    return Listed(name, entry.path, source, numbers[np.asarray(source.labels)], names, notes=notes)


def _passed_over(name: str, source: PictureSource, path: str) -> tuple[str, ...]:
    """Tells of files in folders that are not looked at."""
    if isinstance(source, flat.FlatSource):
        found, rule = source.passed_over(), "only pictures directly in it are looked at"
    elif isinstance(source, folders.FolderSource):
        found, rule = folders.passed_over(path), "pictures should lie at <identity>/<picture>"
    else:
        return ()
    if not found:
        return ()
    count = f"{len(found):,} entr{'y' if len(found) == 1 else 'ies'} of its folder"
    kinds = " ".join(sorted(folders.SUFFIXES))
    return (f"{name}: {count} passed over, such as {found[0].name}: {rule}, and end in {kinds}",)


def _tell_unreadable(name: str, looked: pixels.Looked, most: float) -> None:
    if not looked.unreadable:
        return
    told = f"{looked.unreadable:,} of {len(looked.readable):,} pictures of {name} cannot be read"
    if looked.unreadable > most * len(looked.readable) or not len(looked.hashes):
        raise UserError(f"{told}, the first {looked.first}: mend them, or allow more by config.max_unreadable")
    logging.warning("%s and are left out; the first is %s", told, looked.first)
