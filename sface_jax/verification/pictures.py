"""The pictures of a benchmark, wherever they lie."""

from __future__ import annotations

import dataclasses
import hashlib
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from jaxtyping import Integer, UInt8

from sface_jax.core import pictures
from sface_jax.core.errors import Damaged
from sface_jax.data import resize


@dataclasses.dataclass(frozen=True)
class Pictures:
    """Pictures that are decoded when asked for: `recognition.features.Images`.

    Attributes:
        content: the encoded picture at a position.
        names: of the pictures.
        where: they are, for error lines.
        size: side to which they are cut and resized.
        crop: the share of their side that is kept, see `resize.square`.
    """

    content: Callable[[int], bytes]
    names: Sequence[str]
    where: str
    size: int
    crop: float

    def __len__(self) -> int:
        return len(self.names)

    def images(self, indices: Integer[np.ndarray, " k"]) -> UInt8[np.ndarray, "k s s 3"]:
        """The pictures at these positions, RGB.

        Raises:
            Damaged: one cannot be read.
        """
        with ThreadPoolExecutor(os.cpu_count()) as threads:
            return np.stack(list(threads.map(self._read, indices.tolist())))

    def digest(self) -> bytes:
        """SHA-256 over the hashes of the encoded pictures, each of which can be decoded.

        Raises:
            Damaged: one cannot be read. All processes look at all pictures, so that they end with the same line.
        """

        def look(index: int) -> bytes:
            content = self._content(index)
            self._decode(index, content)
            return hashlib.sha256(content).digest()

        with ThreadPoolExecutor(os.cpu_count()) as threads:
            return hashlib.sha256(b"".join(threads.map(look, range(len(self))))).digest()

    def all(self) -> UInt8[np.ndarray, "n s s 3"]:
        """Every picture; see `images`."""
        return self.images(np.arange(len(self)))

    def _read(self, index: int) -> UInt8[np.ndarray, "s s 3"]:
        return resize.square(self._decode(index, self._content(index)), self.size, self.crop)

    def _content(self, index: int) -> bytes:
        try:
            return self.content(index)
        except OSError as error:
            raise Damaged(f"{self.where}: {self.names[index]} cannot be read ({error.strerror}): mend it") from error

    def _decode(self, index: int, content: bytes) -> UInt8[np.ndarray, "h w 3"]:
        try:
            return pictures.decode(content)
        except Damaged as error:
            raise Damaged(f"{self.where}: {self.names[index]} {error}: mend it, or leave its pairs out") from error
