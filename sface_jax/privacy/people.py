"""The people of a set of pictures: what they are called, which pictures of them are looked at, what a network sees."""

from __future__ import annotations

import concurrent.futures
import dataclasses
import hashlib
import os

import numpy as np
from absl import logging
from etils import epath
from jaxtyping import Float32, Int, UInt8

from sface_jax.core import pictures
from sface_jax.core.errors import Damaged, UserError
from sface_jax.core.progress import Progress
from sface_jax.data import formats, pairs, resize
from sface_jax.data.sources import Source
from sface_jax.privacy.pair_sources import FileSource, PackSource
from sface_jax.recognition.network import Network
from sface_jax.verification.embed import embed

TRAIN = "train"
_THREADS = os.cpu_count() or 1
_READ = 1 << 10  # pictures read at a time
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
        hashes: SHA-256 (hexadecimal) of the pixels of each of them.
        unreadable: pictures that could not be read and are left out.
        named: whether `names` tell people apart; not so in a pack of pairs, where one person may go by several.
    """

    name: str
    names: list[str]
    source: Source
    positions: Int[np.ndarray, " n"]
    labels: Int[np.ndarray, " n"]
    hashes: list[str]
    unreadable: int
    named: bool

    def __len__(self) -> int:
        return len(self.names)

    @property
    def whole(self) -> bool:
        """Whether all pictures were looked at."""
        return len(self.positions) + self.unreadable == len(self.source.labels)

    def of(self, identity: int, most: int) -> list[UInt8[np.ndarray, "h w 3"]]:
        """The first so many pictures of an identity, as they are."""
        first, end = np.searchsorted(self.labels, [identity, identity + 1])
        return [pictures.decode(self.source.read(int(p))) for p in self.positions[first:end][:most]]


def open_people(entry: str, key: str, most: int) -> People:
    """Opens a set and reads the pictures that will be looked at.

    Args:
        entry: "[name=]path[:part]": whatever `data.formats` opens, `part` being a split; or a file of verification
            pairs, `part` being the folder of its pictures; or a `.bin` with pairs and pictures.
        key: the config key that names it, for the error line.
        most: look at so many pictures of each identity, the first ones; 0 looks at all.

    Raises:
        UserError: there is nothing of that kind, or no picture in it can be read.
    """
    name, given, rest = entry.partition("=")
    name, rest = (name, rest) if given else ("", entry)
    path, part = _split(rest)
    if not path:
        raise UserError(f'config.{key} has {entry!r}: write "path", "path:split" or "pairs.txt:folder", after "name="')
    named = True
    if path.endswith(".bin"):
        source, named = PackSource(path), False
    elif part and epath.Path(path).is_file() and epath.Path(part).is_dir():
        source = FileSource(pairs.read_pairs_file(path, part)[0], path)
    else:
        source = formats.open_source(path, part or TRAIN)
    short = epath.Path(path).resolve()
    shown = f"{short.name}/{part}" if part and not epath.Path(part).is_dir() else short.name
    return _read(name or shown, source, named, most)


def _split(text: str) -> tuple[str, str]:
    """Parts "path:part", but not "gs://path"."""
    path, colon, part = text.rpartition(":")
    return (path, part) if colon and not part.startswith("//") else (text, "")


def _read(name: str, source: Source, named: bool, most: int) -> People:
    """Hashes the pixels of the pictures to be looked at; those that cannot be read are left out and told."""
    labels = np.asarray(source.labels)
    rank = np.arange(len(labels)) - np.searchsorted(labels, labels)  # of each picture in its identity
    positions = np.flatnonzero(rank < most) if most else np.arange(len(labels))
    hashes, wrong = _hashes(name, source, positions)
    first = ""
    if wrong:
        at = positions[next(iter(wrong))]
        first = (
            f"{source.class_names[labels[at]]}/{source.names[at]}: {' '.join(str(next(iter(wrong.values()))).split())}"
        )
    if len(wrong) == len(positions):
        raise UserError(f"no picture of {name} can be read{f'; the first is {first}' if first else ''}")
    if wrong:
        logging.warning("%s: %d pictures cannot be read and are left out; the first is %s", name, len(wrong), first)
    readable = np.array([place not in wrong for place in range(len(positions))], bool)
    kept, new = np.unique(labels[positions[readable]], return_inverse=True)
    return People(
        name=name,
        names=[source.class_names[label] for label in kept],
        source=source,
        positions=positions[readable],
        labels=new,
        hashes=hashes,
        unreadable=len(wrong),
        named=named,
    )


def _hashes(name: str, source: Source, positions: Int[np.ndarray, " n"]) -> tuple[list[str], dict[int, Exception]]:
    """The hashes of the pictures that can be read, and what is wrong with each of the others, by place."""
    hashes: list[str] = []
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
    return hashes, wrong


def _content(source: Source, position: int) -> bytes | Exception:
    try:
        return source.read(position)
    except (OSError, Damaged) as error:
        return error


def _hash(content: bytes | Exception) -> str | Exception:
    if isinstance(content, Exception):
        return content
    try:
        image = pictures.decode(content)
    except Damaged as error:
        return error
    digest = hashlib.sha256(str(image.shape).encode())
    digest.update(np.ascontiguousarray(image).data)
    return digest.hexdigest()


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
    return sums / np.linalg.norm(sums, axis=1, keepdims=True).clip(1e-12)
