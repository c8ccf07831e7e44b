"""Converts the pictures of a source, block by block, in worker processes; a block that exists is whole.

A run that is cut off, by `kill -9` or a lost machine, goes on with the blocks that are missing. A block depends on the
source and the conversion alone, so that the bytes are the same whoever makes it.
"""

from __future__ import annotations

import concurrent.futures.process
import dataclasses
import functools
import hashlib
import io
import json
import multiprocessing
import os
import threading
from collections.abc import Callable, Iterator, Sequence

import numpy as np
from etils import epath
from jaxtyping import Float, Shaped, UInt8

from sface_jax.core import files, metadata, pictures
from sface_jax.core.errors import Damaged, Unfinished, UserError
from sface_jax.data import align, detect, resize, validate
from sface_jax.data.sources import Source

SIZE = 1024  # pictures in a block, and lost at most when a run is cut off
LANDMARKS = "landmarks"

_ENCODERS: dict[str, Callable[[UInt8[np.ndarray, "s s 3"]], bytes]] = {
    "png": functools.partial(pictures.encode_png, level=1),
    "jpeg": pictures.encode_jpeg,
}

KEPT, ENCODED, UNREADABLE, NOT_ACQUIRED = range(4)
"""What became of a picture: its bytes are the source's, or made anew; it cannot be read; no face was found in it."""


@dataclasses.dataclass(frozen=True)
class Conversion:
    """What is done to each picture.

    Attributes:
        image_size: side of the pictures that come out.
        align: "" cuts the central square and resizes it; "landmarks" aligns by landmarks that are given; else a
            detector finds them, see `detect.open_detector`.
        encoding: "png" or "jpeg" of a picture whose own bytes will not do.
        strip_metadata: leave out of the others what their pixels do not need, see `core.metadata`.
    """

    image_size: int
    align: str = ""
    encoding: str = "png"
    strip_metadata: bool = False

    def __post_init__(self) -> None:
        """Checks the values.

        Raises:
            UserError: one is unknown, or the detector's package is missing.
        """
        if self.encoding not in _ENCODERS:
            raise UserError(f"config.encoding is {self.encoding!r}: choose from {', '.join(_ENCODERS)}")
        self.detector()

    def detector(self) -> detect.Detector | None:
        """Makes the detector, where there is one."""
        return detect.open_detector(self.align) if self.align not in ("", LANDMARKS) else None


@dataclasses.dataclass(frozen=True)
class Block:
    """A block of converted pictures.

    Attributes:
        contents: the encoded pictures, empty where there is none.
        outcomes: KEPT, ENCODED, UNREADABLE or NOT_ACQUIRED.
        reasons: why there is none, "" where there is.
        facts: what the validator wants to know, see `validate.FACTS`; zero where there is none.
        points: landmarks in the source's picture, in pixels; NaN where none were looked for or found.
    """

    contents: list[bytes]
    outcomes: UInt8[np.ndarray, " n"]
    reasons: list[str]
    facts: Shaped[np.ndarray, " n"]
    points: Float[np.ndarray, "n 5 2"]


class Blocks:
    """The converted pictures of a source, on disk.

    Attributes:
        digest: of what source and conversion are.
        directory: their folder, named after the digest.
        count: how many blocks there are when all are done.
    """

    def __init__(
        self,
        source: Source,
        conversion: Conversion,
        beside: epath.Path,
        given: Float[np.ndarray, "n 5 2"] | None = None,
    ):
        """Says where the blocks lie: in a hidden folder beside the path `beside`.

        Args:
            source: the pictures.
            conversion: what is done to them.
            beside: what will be made of the blocks.
            given: landmarks of each picture, NaN where there are none; for a conversion that aligns by them.
        """
        listed = [dataclasses.asdict(conversion), source.version(), list(source.class_names), list(source.names), SIZE]
        digest = hashlib.sha256(json.dumps(listed).encode())
        digest.update(np.asarray(source.labels, np.int32).tobytes())
        if given is not None:
            digest.update(given.tobytes())
        self.digest = digest.hexdigest()
        self.directory = beside.parent / f".{beside.name}.blocks-{self.digest[:12]}"
        self.count = -(-len(source.labels) // SIZE)
        self._source, self._conversion, self._given = source, conversion, given
        self._detector = conversion.detector()

    def missing(self) -> list[int]:
        """The blocks that are not there yet."""
        return [number for number in range(self.count) if not self._path(number).exists()]

    def convert(self, numbers: Sequence[int], workers: int) -> Iterator[int]:
        """Makes blocks, and yields the number of pictures of each when it is there.

        Args:
            numbers: of the blocks.
            workers: processes; 1 works in this one.

        Raises:
            UserError: the detector is missing, or there is no space left.
        """
        if workers == 1:
            yield from map(self.make, numbers)
            return
        spawn = multiprocessing.get_context("spawn")
        with concurrent.futures.ProcessPoolExecutor(workers, spawn, _begin, (self,)) as pool:
            waiting = [pool.submit(_work, number) for number in numbers]
            try:
                yield from (done.result() for done in concurrent.futures.as_completed(waiting))
            except concurrent.futures.process.BrokenProcessPool as error:
                raise Unfinished(
                    "a worker process was killed, most likely for want of memory: lower --config.workers, and run "
                    "the same command to go on"
                ) from error
            except BaseException:
                pool.shutdown(cancel_futures=True)
                raise

    def make(self, number: int) -> int:
        """Makes a block, and returns the number of its pictures."""
        positions = range(number * SIZE, min((number + 1) * SIZE, len(self._source.labels)))
        block = self._converted(positions)
        buffer = io.BytesIO()
        np.savez(
            buffer,
            contents=np.frombuffer(b"".join(block.contents), np.uint8),
            ends=np.cumsum([len(content) for content in block.contents]),
            outcomes=block.outcomes,
            reasons=np.array(block.reasons, str),
            facts=block.facts,
            points=block.points,
        )
        files.write_bytes(self._path(number), buffer.getvalue())
        return len(positions)

    def read(self, number: int) -> Block:
        """Reads a block."""
        with np.load(io.BytesIO(self._path(number).read_bytes()), allow_pickle=False) as arrays:
            ends, joined = arrays["ends"], arrays["contents"].tobytes()
            contents = [joined[start:end] for start, end in zip(np.r_[0, ends[:-1]], ends, strict=True)]
            reasons = arrays["reasons"].tolist()
            return Block(contents, arrays["outcomes"], reasons, arrays["facts"], arrays["points"])

    def contents(self, positions: Sequence[int]) -> Iterator[bytes]:
        """The pictures at positions in the source; fast where neighbours lie in one block."""
        number, block = -1, None
        for position in positions:
            if position // SIZE != number:
                number = position // SIZE
                block = self.read(number)
            yield block.contents[position % SIZE]

    def _path(self, number: int) -> epath.Path:
        return self.directory / f"{number:06d}.npz"

    def _converted(self, positions: range) -> Block:
        n = len(positions)
        block = Block(
            contents=[b""] * n,
            outcomes=np.full(n, UNREADABLE, np.uint8),
            reasons=[""] * n,
            facts=np.zeros(n, validate.FACTS),
            points=np.full((n, 5, 2), np.nan, np.float32),
        )
        for row, position in enumerate(positions):
            self._convert(position, block, row)
        return block

    def _convert(self, position: int, block: Block, row: int) -> None:
        source, size = self._source, self._conversion.image_size
        try:
            content = source.read(position)
            image = pictures.decode(content)
        except (Damaged, FileNotFoundError, PermissionError, IsADirectoryError) as error:
            # Other errors of the file system may be gone the next time: they end the run, which can go on.
            block.reasons[row] = " ".join(str(error).split())
            return
        matrix = None
        if self._conversion.align:
            try:
                points = self._points(position, image)
                matrix = align.similarity(points, align.template(size))
                block.points[row] = points
            except Damaged as error:
                block.outcomes[row], block.reasons[row] = NOT_ACQUIRED, str(error)
                return
        if matrix is None and image.shape == (size, size, 3) and pictures.kept_by_every_reader(content):
            whole, content = content, metadata.stripped(content) if self._conversion.strip_metadata else content
            block.outcomes[row] = KEPT if content == whole else ENCODED
            block.facts[row] = validate.facts(image)
        else:
            shown = resize.square(image, size) if matrix is None else align.warp(image, matrix, size)
            side = None if matrix is None else size / align.scale(matrix)
            block.outcomes[row], block.facts[row] = ENCODED, validate.facts(image, shown, side)
            content = _ENCODERS[self._conversion.encoding](shown)
        block.contents[row] = content

    def _points(self, position: int, image: UInt8[np.ndarray, "h w 3"]) -> Float[np.ndarray, "5 2"]:
        if self._given is not None:
            if np.isnan(self._given[position]).any():
                raise Damaged("no landmarks are given")
            return self._given[position]
        points = self._detector(image)
        if points is None:
            raise Damaged("no face was found")
        return points


_blocks: Blocks


def _begin(blocks: Blocks) -> None:
    """Prepares a worker process."""
    global _blocks
    _blocks = blocks
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    """Ends this process when the one that started it is gone, were it by `kill -9`."""
    multiprocessing.parent_process().join()
    os._exit(1)


def _work(number: int) -> int:
    return _blocks.make(number)
