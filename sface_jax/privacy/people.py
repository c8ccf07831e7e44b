"""The people of a set of pictures: what they are called, which pictures of them are looked at, what a network sees."""

from __future__ import annotations

import concurrent.futures
import dataclasses
import hashlib
import os
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from absl import logging
from etils import epath
from jaxtyping import Bool, Float32, Int, Int32, UInt8, UInt64

from sface_jax.core import pictures
from sface_jax.core.errors import Damaged, UserError
from sface_jax.core.progress import Progress
from sface_jax.data import dataset, formats, local, pairs, resize
from sface_jax.data.sources import Source
from sface_jax.recognition.network import Network
from sface_jax.verification.embed import embed

TRAIN = "train"
_THREADS = os.cpu_count() or 1
_READ = 1 << 10  # pictures read at a time
_BLOCK = 1 << 16  # pictures whose embeddings are in memory at a time


class Entry(NamedTuple):
    """A set as a config names it: "[name=]path[:part]".

    Attributes:
        name: what it is called.
        path: whatever `data.formats` opens; or a file of verification pairs; or a `.bin` with pairs and pictures.
        part: a split of a dataset; or the folder of the pictures that a file of pairs names.
    """

    name: str
    path: str
    part: str

    @property
    def place(self) -> tuple[str, str]:
        """What two entries of the same pictures have in common."""
        return os.fspath(epath.Path(self.path).resolve()), self.part or TRAIN


@dataclasses.dataclass(frozen=True)
class People:
    """Identities of a set, with those of their pictures that are looked at.

    Attributes:
        name: of the set.
        names: of the identities.
        source: the pictures.
        positions: the pictures looked at, by identity.
        labels: the identity of each of them: its place in `names`.
        hashes: of the pixels of each of them, 64 bits of SHA-256: among 10^7 pictures and 10^7 others, two that differ
            have the same one with a chance of 5e-6.
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


def parse(entry: str, key: str) -> Entry:
    """Reads "[name=]path[:part]"; without a name, a set is called by the last part of its path and its split.

    Args:
        entry: the text.
        key: the config key that it is from, for the error line.

    Raises:
        UserError: no path is named.
    """
    name, given, rest = entry.partition("=")
    if not given or "/" in name:  # in a path
        name, rest = "", entry
    path, colon, part = rest.rpartition(":")
    if not colon or part.startswith("//") or epath.Path(rest).exists():  # "gs://path" has no part
        path, part = rest, ""
    if not path:
        raise UserError(f'config.{key} has {entry!r}: write "path", "path:split" or "pairs.txt:folder", after "name="')
    short = epath.Path(path).resolve().name
    return Entry(name or (f"{short}/{part}" if part and not epath.Path(part).is_dir() else short), path, part)


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
    hashes, wrong = _hashes(name, source, positions)
    first = ""
    if wrong:
        place, error = next(iter(wrong.items()))
        at = positions[place]
        first = f"; the first is {source.class_names[labels[at]]}/{source.names[at]}: {' '.join(str(error).split())}"
    if len(wrong) == len(positions):
        raise UserError(f"no picture of {name} can be read{first}")
    readable = np.array([place not in wrong for place in range(len(positions))], bool)
    kept, new = np.unique(labels[positions[readable]], return_inverse=True)
    lost = len(np.unique(labels)) - len(kept)
    if wrong:
        logging.warning(
            "%s: unreadable pictures are left out: %d, and with them all of %d identities%s",
            *(name, len(wrong), lost, first),
        )
    return People(
        name=name,
        names=[source.class_names[label] for label in kept],
        source=source,
        positions=positions[readable],
        labels=new,
        hashes=hashes,
        unreadable=len(wrong),
        lost=lost,
        named=named,
    )


def _hashes(
    name: str, source: Source, positions: Int[np.ndarray, " n"]
) -> tuple[UInt64[np.ndarray, " k"], dict[int, Exception]]:
    """The hashes of the pictures that can be read, and what is wrong with each of the others, by place."""
    hashes: list[int] = []
    wrong: dict[int, Exception] = {}
    progress = Progress(f"reading {name}", len(positions), unit="pictures")
    with concurrent.futures.ThreadPoolExecutor(_THREADS) as pool:
        for start in range(0, len(positions), _READ):
            contents = [_content(source, int(position)) for position in positions[start : start + _READ]]
            for place, found in enumerate(pool.map(_hash, contents), start):
                if isinstance(found, Exception):
                    wrong[place] = found
                else:
                    hashes.append(found)
            progress.update(start + len(contents))
    progress.close()
    return np.array(hashes, np.uint64), wrong


def _content(source: Source, position: int) -> bytes | Exception:
    try:
        return source.read(position)
    except (OSError, Damaged) as error:
        return error


def _hash(content: bytes | Exception) -> int | Exception:
    if isinstance(content, Exception):
        return content
    try:
        image = pictures.decode(content)
    except Damaged as error:
        return error
    digest = hashlib.sha256(str(image.shape).encode())
    digest.update(np.ascontiguousarray(image).data)
    return int.from_bytes(digest.digest()[:8])


class _Images:
    """The pictures of a source by position, cut to the network's size."""

    def __init__(self, source: Source, size: int):
        self.source, self.size = source, size

    def __len__(self) -> int:
        return len(self.source.labels)

    def images(self, indices: Int[np.ndarray, " k"]) -> UInt8[np.ndarray, "k s s 3"]:
        contents = [self.source.read(position) for position in indices.tolist()]  # a source may not stand threads
        with concurrent.futures.ThreadPoolExecutor(_THREADS) as pool:
            return np.stack(list(pool.map(self._image, contents)))

    def _image(self, content: bytes) -> UInt8[np.ndarray, "s s 3"]:
        return resize.square(pictures.decode(content), self.size)


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
    images = _Images(people.source, network.preprocessing.size)
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
