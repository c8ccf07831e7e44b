"""The people of a set of pictures: what they are called, which pictures of them are looked at, what a network sees."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Sequence

import numpy as np
from absl import logging
from etils import epath
from jaxtyping import Bool, Float32, Int, Int32, UInt8, UInt64

from sface_jax.core import pictures
from sface_jax.core.errors import UserError
from sface_jax.data import dataset, formats, local, pairs
from sface_jax.data.sources import Source
from sface_jax.privacy.inputs.entries import TRAIN, Entry
from sface_jax.privacy.inputs.pixels import Resized, look
from sface_jax.recognition.network import Network
from sface_jax.verification.embed import embed

_BLOCK = 1 << 16  # pictures whose embeddings are in memory at a time


@dataclasses.dataclass(frozen=True)
class People:
    """Identities of a set, with those of their pictures that are looked at.

    Attributes:
        name: of the set.
        names: of the identities.
        source: the pictures.
        positions: the pictures looked at, by identity.
        labels: the identity of each of them: its place in `names`.
        hashes: of the pixels of each of them, see `pixels.look`.
        unreadable: pictures that could not be read and are left out.
        lost: identities none of whose pictures could be read.
        named: whether `names` tell people apart; not so where only pairs do, for one person may be in several.
    """

    name: str
    names: list[str]
    source: Source
    positions: Int[np.ndarray, " n"]
    labels: Int[np.ndarray, " n"]
    hashes: UInt64[np.ndarray, " n"]
    unreadable: int
    lost: int
    named: bool

    def __len__(self) -> int:
        return len(self.names)

    @property
    def whole(self) -> bool:
        """Whether all pictures were looked at, but for those that cannot be read."""
        return len(self.positions) + self.unreadable == len(self.source.labels)

    def of(self, identity: int, most: int) -> list[UInt8[np.ndarray, "h w 3"]]:
        """The first so many pictures of an identity, as they are."""
        first, end = np.searchsorted(self.labels, [identity, identity + 1])
        return [pictures.decode(self.source.read(int(p))) for p in self.positions[first:end][:most]]


def open_people(entry: Entry, most: int) -> People:
    """Opens a set and reads the pictures that will be looked at.

    Args:
        entry: the set.
        most: look at so many pictures of each identity, the first ones; 0 looks at all.

    Raises:
        UserError: there is nothing of that kind, no picture in it can be read, or an identity has a name that
            `exclude.txt` cannot list.
    """
    source = _open(entry)
    for name in source.class_names:
        if name.splitlines() != [name.strip()] or any("\ud800" <= c <= "\udfff" for c in name):
            raise UserError(
                f"an identity of {entry.name} is called {ascii(name[:80])}, which no list can hold: rename it"
            )
    return _read(entry.name, source, most, named=not isinstance(source, PairSource) or source.named)


def _open(entry: Entry) -> Source:
    path, part = entry.path, entry.part
    if path.endswith(".bin"):
        source: Source = _open_pack(path)
    elif part and epath.Path(path).is_file() and epath.Path(part).is_dir():
        return _open_pairs(path, part)
    else:
        source = formats.open_source(path, part or TRAIN)
    if part and not isinstance(source, dataset.SplitSource):
        raise UserError(
            f"config.sets: {path} is no dataset with splits, and {part} no folder of the pictures that a file of pairs "
            f"names: leave out :{part}, or mend it"
        )
    return source


class PairSource:
    """The pictures of verification pairs by identity; a `Source`.

    Attributes:
        named: whether the identities are named as people are, and not by the pairs that they are in.
    """

    def __init__(
        self,
        path: str,
        contents: Sequence[bytes | epath.Path],
        labels: Int[np.ndarray, " n"],
        names: list[str],
        *,
        named: bool,
    ):
        """Orders the pictures of the pairs at `path`, or the files that hold them, by identity."""
        order = np.argsort(labels, kind="stable")
        self.labels = labels[order].astype(np.int32)
        self.class_names, self.named, self._path = names, named, path
        self._contents = [contents[place] for place in order]
        self.names = [
            str(place) if isinstance(content, bytes) else content.name
            for place, content in zip(order.tolist(), self._contents, strict=True)
        ]

    def read(self, position: int) -> bytes:
        """See `Source`."""
        content = self._contents[position]
        return content if isinstance(content, bytes) else content.read_bytes()

    def version(self) -> str:
        """See `Source`."""
        return local.stamp([self._path, *(content for content in self._contents if not isinstance(content, bytes))])


def _open_pack(path: str) -> PairSource:
    """The pictures of a pack, each once; those that its mated pairs connect are one identity."""
    contents, same = pairs.read_bin(path)
    places = {content: place for place, content in enumerate(dict.fromkeys(contents))}
    found = np.array([places[content] for content in contents])
    return PairSource(path, list(places), *_by_pairs(len(places), found[::2], found[1::2], same), named=False)


def _open_pairs(path: str, folder: str) -> PairSource:
    """The pictures that a file of pairs names, by their folders; by its mated pairs where folders tell no identity."""
    paths, found = pairs.read_pairs_file(path, folder)
    folders, labels = np.unique([os.fspath(path.parent) for path in paths], return_inverse=True)
    if ((labels[found.first] == labels[found.second]) & ~found.same).any():
        return PairSource(path, paths, *_by_pairs(len(paths), found.first, found.second, found.same), named=False)
    names = [os.path.basename(name) for name in folders.tolist()]
    if len(set(names)) < len(names):
        raise UserError(f"{path} names pictures in two folders of one name: the folder must tell the identity")
    return PairSource(path, paths, labels, names, named=True)


def _by_pairs(
    count: int, first: Int[np.ndarray, " p"], second: Int[np.ndarray, " p"], same: Bool[np.ndarray, " p"]
) -> tuple[Int32[np.ndarray, " n"], list[str]]:
    """Labels of pictures that mated pairs connect, and names: the first pair that an identity is in, and its side."""
    labels = _connected(count, first[same], second[same])
    order = np.stack([first, second], axis=1).ravel()
    places = np.full(labels.max() + 1, len(order))
    np.minimum.at(places, labels[order], np.arange(len(order)))
    return labels, [f"pair {place // 2 + 1}{'ab'[place % 2]}" for place in places.tolist()]


def _connected(count: int, first: Int[np.ndarray, " p"], second: Int[np.ndarray, " p"]) -> Int32[np.ndarray, " c"]:
    """Numbers the components of the graph with these edges, from 0 in the order of their first node."""
    root = np.arange(count)
    while True:
        low = np.minimum(root[first], root[second])
        new = root.copy()
        np.minimum.at(new, first, low)
        np.minimum.at(new, second, low)
        new = new[new]
        if (new == root).all():
            return np.unique(root, return_inverse=True)[1].astype(np.int32)
        root = new


def _read(name: str, source: Source, most: int, *, named: bool) -> People:
    """Hashes the pixels of the pictures to be looked at; those that cannot be read are left out and told."""
    labels = np.asarray(source.labels)
    rank = np.arange(len(labels)) - np.searchsorted(labels, labels)  # of each picture in its identity
    positions = np.flatnonzero(rank < most) if most else np.arange(len(labels))
    looked = look(name, source, positions)
    told = f"; the first is {looked.first}"
    if not len(looked.hashes):
        raise UserError(f"no picture of {name} can be read{told if looked.first else ''}")
    kept, new = np.unique(labels[positions[looked.readable]], return_inverse=True)
    lost = len(np.unique(labels)) - len(kept)
    if looked.unreadable:
        logging.warning(
            "%s: unreadable pictures are left out: %d, and with them all of %d identities%s",
            *(name, looked.unreadable, lost, told),
        )
    return People(
        name=name,
        names=[source.class_names[label] for label in kept],
        source=source,
        positions=positions[looked.readable],
        labels=new,
        hashes=looked.hashes,
        unreadable=looked.unreadable,
        lost=lost,
        named=named,
    )


def means(people: People, network: Network, *, batch_size: int, flip: str) -> Float32[np.ndarray, "c d"]:
    """The mean embedding of the pictures of each identity, of length one.

    Args:
        people: the set.
        network: the recogniser.
        batch_size: see `embed`.
        flip: see `embed`.

    Raises:
        UserError: an embedding has infinite numbers, or such as are none.
    """
    images = Resized(people.source, network.preprocessing.size)
    sums = None
    for start in range(0, len(people.positions), _BLOCK):
        block = slice(start, start + _BLOCK)
        rows = embed(
            network,
            images,
            people.positions[block],
            batch_size=batch_size,
            flip=flip,
            progress=f"embedding {people.name}",
        )
        sums = np.zeros((len(people), rows.shape[1]), np.float32) if sums is None else sums
        np.add.at(sums, people.labels[block], rows)
    if wrong := int((~np.isfinite(sums).all(1)).sum()):
        raise UserError(
            f"the recogniser gives no finite embedding for {wrong:,} identities of {people.name}: choose another"
        )
    return sums / np.linalg.norm(sums, axis=1, keepdims=True).clip(1e-12)
