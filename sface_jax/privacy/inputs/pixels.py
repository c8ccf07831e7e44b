"""The pixels of a source's pictures: which can be read, which are equal, and what a network is shown."""

from __future__ import annotations

import concurrent.futures
import hashlib
import os
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Int, UInt8, UInt64

from sface_jax.core import pictures
from sface_jax.core.errors import Damaged
from sface_jax.core.progress import Progress
from sface_jax.data import resize
from sface_jax.data.sources import Source

_THREADS = os.cpu_count() or 1
_READ = 1 << 10  # pictures read at a time


class Looked(NamedTuple):
    """What a look at some pictures of a source found.

    Attributes:
        readable: which of them can be read.
        hashes: of the pixels of each of these, 64 bits of SHA-256: among 10^7 pictures and 10^7 others, two that differ
            have the same one with a chance of 5e-6.
        first: the first that cannot be read, and why; "" where all can.
    """

    readable: Bool[np.ndarray, " n"]
    hashes: UInt64[np.ndarray, " r"]
    first: str

    @property
    def unreadable(self) -> int:
        """How many cannot be read."""
        return int((~self.readable).sum())


def look(name: str, source: Source, positions: Int[np.ndarray, " n"]) -> Looked:
    """Reads pictures, and hashes the pixels of those that can be read.

    Args:
        name: what the progress line calls them.
        source: the pictures.
        positions: which of them.
    """
    hashes: list[int] = []
    readable = np.ones(len(positions), bool)
    first = ""
    progress = Progress(f"reading {name}", len(positions), unit="pictures")
    with concurrent.futures.ThreadPoolExecutor(_THREADS) as pool:
        for start in range(0, len(positions), _READ):
            block = positions[start : start + _READ].tolist()
            contents = [_content(source, position) for position in block]  # a source may not stand threads
            for place, found in enumerate(pool.map(_hash, contents)):
                if not isinstance(found, Exception):
                    hashes.append(found)
                    continue
                readable[start + place] = False
                first = first or f"{called(source, block[place])}: {' '.join(str(found).split())}"
            progress.update(start + len(block))
    progress.close()
    return Looked(readable, np.array(hashes, np.uint64), first)


def called(source: Source, position: int) -> str:
    """A picture as lists and messages call it: "<identity>/<picture>"."""
    return f"{source.class_names[int(source.labels[position])]}/{source.names[position]}"


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


class Resized:
    """The pictures of a source by position, their central squares resized; what a network embeds."""

    def __init__(self, source: Source, size: int):
        """Reads nothing yet; `size` is the side of the pictures given out."""
        self.source, self.size = source, size

    def __len__(self) -> int:
        return len(self.source.labels)

    def images(self, indices: Int[np.ndarray, " k"]) -> UInt8[np.ndarray, "k s s 3"]:
        """See `recognition.features.Images`."""
        contents = [self.source.read(position) for position in indices.tolist()]  # a source may not stand threads
        with concurrent.futures.ThreadPoolExecutor(_THREADS) as pool:
            return np.stack(list(pool.map(self._image, contents)))

    def _image(self, content: bytes) -> UInt8[np.ndarray, "s s 3"]:
        return resize.square(pictures.decode(content), self.size)
