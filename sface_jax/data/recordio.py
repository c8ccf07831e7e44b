"""RecordIO as MXNet writes it, in the layout of InsightFace: `.rec`, `.idx`, `property`, `.lst`; without MXNet.

A record is one part or several. A part: the magic number, then a uint32 whose upper 3 bits tell its place in the
record (0 the only part, 1 the first, 2 a middle one, 3 the last) and whose lower 29 bits its length, then its bytes,
padded to 4. A record is parted where its content has the magic number at a multiple of 4, and that is left out.
The content begins with uint32 flag, float32 label, uint64 id, uint64 id2; where the flag is not 0, that many float32
follow and are the label, of which the first is the class. A picture as a file follows.

InsightFace puts into record 0, without a picture, the label (first, end): pictures are the records 1 to first - 1, and
each record from first to end - 1 has the range of one identity's pictures for a label.
"""

from __future__ import annotations

import array
import io
import struct
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from absl import logging
from jaxtyping import Float32, Int32
from PIL import Image

from sface_jax.core import pictures
from sface_jax.core.errors import Damaged, UserError
from sface_jax.core.files import PathLike
from sface_jax.data import listing
from sface_jax.data.local import LocalFile, appearing, stamp
from sface_jax.data.sources import Source

SUFFIX = ".rec"
MOST_RECORDS = 2**24  # whole numbers that float32 tells apart

_MAGIC = struct.pack("<I", 0xCED7230A)
_PART = struct.Struct("<4sI")
_HEADER = struct.Struct("<IfQQ")
_WHOLE, _FIRST, _MIDDLE, _LAST = range(4)
_LONGEST_PART = 2**29 - 1


# What the header of a record says; "empty" where no picture follows, "end" where the record does.
_FACTS = np.dtype([("offset", "<i8"), ("end", "<i8"), ("id", "<u8"), ("label", "<f4"), ("flag", "<u4"), ("empty", "?")])
_FACT = struct.Struct("<qqQfI?")


class Records:
    """The pictures of a `.rec`, in the order of their index.

    Without `.idx` the file is gone through from the beginning; the index of a record is then the id in its header, or
    where these are not distinct its number, which begins with 0, or with 1 where some records hold no picture.

    Attributes:
        path: of the `.rec`.
        index: int64 [n], of each picture.
        labels: float32 [n], of each picture; the first number of an array.
    """

    def __init__(self, path: PathLike):
        """Reads the headers of all records.

        Raises:
            UserError: there is no such file.
            Damaged: the `.rec` or the `.idx` is damaged, or there is no picture.
        """
        self.path = Path(path)
        self._file = LocalFile(path)
        beside = self.path.with_suffix(".idx")
        if beside.exists():
            index, offsets = _read_index(beside)
            order = np.argsort(offsets)
            index, headers = index[order], self._headers(offsets[order].tolist())
            # What overlaps would make the records larger than the file.
            if (headers["end"][:-1] > headers["offset"][1:]).any():
                raise Damaged(f"{beside} is not of {self.path}: it points into the middle of records")
        else:
            headers = self._headers(self._all_offsets())
            index = _numbered(headers)
        order = np.argsort(index)
        index, headers = index[order], headers[order]
        chosen = np.flatnonzero(self._pictures(index, headers))
        if not len(chosen):
            raise Damaged(f"{self.path} holds no pictures")
        self.index, self._offsets, self.labels = index[chosen], headers["offset"][chosen], headers["label"][chosen]

    def __len__(self) -> int:
        return len(self.index)

    def label(self, position: int) -> Float32[np.ndarray, " k"]:
        """The whole label: the class, and what the file may tell beside it, such as landmarks."""
        return self._split(int(self._offsets[position]))[0]

    def picture(self, position: int) -> bytes:
        """The encoded picture.

        Raises:
            Damaged: the record is not what it was when the file was opened.
        """
        return self._split(int(self._offsets[position]))[1]

    def _pictures(self, index: np.ndarray, headers: np.ndarray) -> np.ndarray:
        """Which of the records, sorted by index, are pictures."""
        without = (headers["flag"] > 0) & headers["empty"]
        if not (index[0] == 0 and without[0] and headers["flag"][0] == 2):
            return ~without
        first, end = self._split(int(headers["offset"][0]))[0].tolist()
        if not (1 <= first <= end and first == int(first)):
            raise Damaged(f"{self.path} has a record 0 that gives {first:g} to {end:g} as the records of identities")
        found = (index >= 1) & (index < first)
        if (~without & ~found).any():
            raise Damaged(f"{self.path} has pictures after {first:g}, where its record 0 says there are none")
        if found.sum() != first - 1:
            logging.warning("%s lists %d pictures, its record 0 tells of %d", self.path, found.sum(), first - 1)
        return found

    def _headers(self, offsets: Iterable[int]) -> np.ndarray:
        """The headers of the records at the offsets."""
        rows = bytearray()
        for offset in offsets:
            rows += _FACT.pack(*self._header(offset))
        if not rows:
            raise Damaged(f"{self.path} is empty")
        return np.frombuffer(rows, _FACTS)

    def _all_offsets(self) -> Iterator[int]:
        """Where each record begins, by the parts from the first on."""
        offset, place = 0, _WHOLE
        while offset < self._file.size:
            if place in (_WHOLE, _LAST):
                yield offset
            place, start, length = self._part(offset)
            offset = _padded(start + length)

    def _header(self, offset: int) -> tuple[int, int, int, float, int, bool]:
        """A row of `_FACTS`."""
        place, start, length = self._part(offset)
        if place == _WHOLE:
            begin, end = self._file.read(start, min(length, _HEADER.size + 4)), _padded(start + length)
        else:
            begin, end = self._content(offset)
            length = len(begin)
        if length < _HEADER.size:
            raise Damaged(f"{self.path} has a record at byte {offset} that is too short for a picture's header")
        flag, label, number, _ = _HEADER.unpack_from(begin)
        rest = length - _HEADER.size - 4 * flag
        if rest < 0:
            raise Damaged(f"{self.path} has a record at byte {offset} that ends within its label")
        if flag:
            (label,) = struct.unpack_from("<f", begin, _HEADER.size)
        return offset, end, number, label, flag, rest == 0

    def _split(self, offset: int) -> tuple[Float32[np.ndarray, " k"], bytes]:
        """Label and picture of the record at an offset."""
        content, _ = self._content(offset)
        if len(content) < _HEADER.size:
            raise Damaged(f"{self.path} was changed while it was read")
        flag, label, _, _ = _HEADER.unpack_from(content)
        start = _HEADER.size + 4 * flag
        if start > len(content):
            raise Damaged(f"{self.path} was changed while it was read")
        whole = np.frombuffer(content, "<f4", flag, _HEADER.size) if flag else [label]
        return np.array(whole, np.float32), content[start:]

    def _content(self, offset: int) -> tuple[bytes, int]:
        """The record at an offset, and where the next one begins."""
        parts: list[bytes] = []
        while True:
            place, start, length = self._part(offset)
            if (place in (_WHOLE, _FIRST)) != (not parts):
                raise Damaged(f"{self.path} has parts of a record out of order at byte {offset}")
            parts.append(self._file.read(start, length))
            offset = _padded(start + length)
            if place in (_WHOLE, _LAST):
                return _MAGIC.join(parts), offset

    def _part(self, offset: int) -> tuple[int, int, int]:
        """The place of a part in its record, the start of its bytes, and their number."""
        magic, word = _PART.unpack(self._file.read(offset, _PART.size))
        place, length = word >> 29, word & _LONGEST_PART
        if magic != _MAGIC or place > _LAST:
            raise Damaged(
                f"{self.path} has no record at byte {offset}: fetch the file again, "
                "or leave the line with this number out of its .idx"
            )
        if offset + _PART.size + length > self._file.size:
            raise Damaged(f"{self.path} is cut short in the record at byte {offset}: fetch it again")
        return place, offset + _PART.size, length


def _padded(length: int) -> int:
    return (length + 3) // 4 * 4


def _read_index(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Index and offset of each record."""
    index, offsets = array.array("q"), array.array("q")
    try:
        for line in path.read_bytes().splitlines():
            if line.strip():
                number, offset = line.split()
                index.append(int(number))
                offsets.append(int(offset))
    except (ValueError, OverflowError) as error:
        raise Damaged(f'{path} has the line {ascii(line[:40])[2:-1]}, not "index<TAB>offset": remove it') from error
    if not index:
        raise Damaged(f"{path} is empty: remove it, and the .rec is read without")
    if min(index) < 0:
        raise Damaged(f"{path} has the index {min(index)}: remove that line")
    for numbers in (index, offsets):
        if len(np.unique(numbers)) < len(numbers):
            raise Damaged(f"{path} names a record twice: remove it, and the .rec is read without")
    return np.array(index, np.int64), np.array(offsets, np.int64)


def _numbered(headers: np.ndarray) -> np.ndarray:
    ids = headers["id"]
    if ids.max() < 2**63 and len(np.unique(ids)) == len(ids):
        return ids.astype(np.int64)
    # InsightFace's pictures begin with 1.
    without = (headers["flag"] > 0) & headers["empty"]
    return np.arange(len(ids)) + int(without.any() and not without[0])


def read(path: PathLike) -> Iterator[tuple[int, int | float, bytes]]:
    """Goes through the pictures of a `.rec`, in the order of their index; records of other kinds are left out.

    Args:
        path: a `.rec`, with or without `.idx` beside it.

    Yields:
        Index, label and encoded picture. The label is the first number of an array (`Records.label` has all), an int
        where it is whole.

    Raises:
        UserError: there is no such file.
        Damaged: it is damaged, or holds no pictures.
    """
    records = Records(path)
    for position, (index, label) in enumerate(zip(records.index.tolist(), records.labels.tolist(), strict=True)):
        yield index, int(label) if label.is_integer() else label, records.picture(position)


class _Numbers(Sequence):
    """Names of pictures that have none: their indices."""

    def __init__(self, index: np.ndarray):
        self._index, self._width = index, max(len(str(index.max())), 7)

    def __len__(self) -> int:
        return len(self._index)

    def __getitem__(self, position: Any) -> Any:
        if isinstance(position, slice):
            return [f"{number:0{self._width}d}" for number in self._index[position]]
        return f"{self._index[position]:0{self._width}d}"


class RecordSource:
    """The pictures of a `.rec`, a `Source`.

    Identities have the names that a `.lst` of the same name gives, MXNet's (index, label, path) or InsightFace's
    (aligned, path, label); without one, their label as it is in the file, padded with zeros.
    """

    def __init__(self, path: PathLike):
        """Reads the headers of all records; see `Records`.

        Raises:
            Damaged: see `Records`; or a label is none of a class.
        """
        self._records = Records(path)
        labels = self._records.labels
        if not ((labels >= 0) & (labels == np.floor(labels)) & (labels < 2**31)).all():
            raise Damaged(f"{path} has labels that are no whole numbers from 0: they do not tell identities")
        paths = _read_list(Path(path).with_suffix(".lst"), self._records.index)
        names = _Numbers(self._records.index) if paths is None else [Path(name).name for name in paths]
        identities = None if paths is None else [Path(name).parent.name for name in paths]
        found = listing.by_number(labels.astype(np.int64), identities, names, str(path))
        self._order = found.order
        self.class_names: Sequence[str] = found.class_names
        self.labels: Int32[np.ndarray, " n"] = found.labels
        self.names: Sequence[str] = _Numbers(self._records.index[found.order]) if paths is None else found.names
        told = _property(Path(path).parent / "property")
        if told is not None and told != len(self.class_names):
            logging.warning("%s has %d identities, the property file tells of %d", path, len(self.class_names), told)

    def read(self, position: int) -> bytes:
        """See `Source`."""
        return self._records.picture(int(self._order[position]))

    def version(self) -> str:
        """Changes where what `read` gives out may have changed."""
        return stamp(self._records.path.with_suffix(suffix) for suffix in (SUFFIX, ".idx", ".lst"))

    def label(self, position: int) -> Float32[np.ndarray, " k"]:
        """The whole label of a picture, as it is in the file."""
        return self._records.label(int(self._order[position]))


def _read_list(path: Path, index: np.ndarray) -> list[str] | None:
    """The path of each picture, where the list has all of them."""
    if not path.exists():
        return None
    found: dict[int, str] = {}
    try:
        for number, line in enumerate(path.read_text().splitlines(), start=1):
            fields = line.split("\t")
            if listing.is_number(fields[1]):
                found[int(fields[0])] = fields[-1]
            else:
                found[number] = fields[1]
        return [found[number] for number in index.tolist()]
    except (ValueError, IndexError, KeyError):
        logging.warning("%s does not list the pictures of the .rec beside it, so it is passed over", path)
        return None


def _property(path: Path) -> int | None:
    """The number of classes in a file of "classes,height,width"."""
    if not path.exists():
        return None
    try:
        classes, _, _ = path.read_text().strip().split(",")
        return int(classes)
    except ValueError as error:
        raise Damaged(f'{path} is not "classes,height,width": mend or remove it') from error


def write(path: PathLike, source: Source, done: Any = None) -> list[Path]:
    """Writes a source in InsightFace's layout: `.rec`, `.idx`, `.lst` and `property`, which appear together.

    Records are numbered from 1 in the order of the source, and their labels are the source's.

    Args:
        path: the `.rec`.
        source: pictures, whose bytes are kept as they are.
        done: is called with the number of pictures written.

    Returns:
        The files.

    Raises:
        UserError: a file is there already, or there are more pictures than float32 can number.
        Damaged: a picture cannot be read.
    """
    path, count, classes = Path(path), len(source.labels), len(source.class_names)
    if count + classes >= MOST_RECORDS:
        raise UserError(f"a .rec numbers at most {MOST_RECORDS:,} records, in float32: {count:,} pictures are too many")
    facts_path = path.parent / "property"
    if facts_path.exists() and not path.exists():
        raise UserError(f"{facts_path} is of another {SUFFIX}: write {path.name} into a folder of its own")
    bounds = np.searchsorted(source.labels, np.arange(classes + 1)) + 1
    written = [path.with_suffix(".idx"), path.with_suffix(".lst"), facts_path, path]
    with appearing(*written) as (index, names, facts, records):
        offsets, sizes, foreign = [], [], 0
        with records.open("wb") as file, names.open("w") as listed:

            def add(number: int, label: Any, content: bytes = b"") -> None:
                offsets.append(f"{number}\t{file.tell()}\n")
                file.writelines(_parts(_header(number, label) + content))

            for position, label in enumerate(source.labels.tolist()):
                content = source.read(position)
                sizes.append(_size(content))
                foreign += not mxnet_decodes(content)
                add(position + 1, label, content)
                listed.write(f"{position + 1}\t{label}\t{source.class_names[label]}/{source.names[position]}\n")
                if done:
                    done(position + 1)
            for label in range(classes):
                add(count + 1 + label, bounds[label : label + 2])
            add(0, (count + 1, count + 1 + classes))
        index.write_text("".join(offsets))
        if len(set(sizes)) > 1:
            logging.warning("%s has pictures of several sizes; property tells that of the first", path)
        if foreign:
            logging.warning(
                "%s has %d pictures that are neither JPEG nor PNG: MXNet does not decode them", path, foreign
            )
        width, height = sizes[0]
        facts.write_text(f"{classes},{height},{width}\n")
    return written


def mxnet_decodes(content: bytes) -> bool:
    """Whether a picture is a JPEG or PNG; MXNet's OpenCV is built without most others."""
    return content.startswith((b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n"))


def _header(number: int, label: Any) -> bytes:
    if isinstance(label, int):
        return _HEADER.pack(0, label, number, 0)
    return _HEADER.pack(len(label), 0, number, 0) + np.asarray(label, "<f4").tobytes()


def _parts(content: bytes) -> Iterator[bytes]:
    """The parts of a record, parted at each magic number that lies at a multiple of 4."""
    cuts, found = [], content.find(_MAGIC)
    while found >= 0:
        if found % 4 == 0:
            cuts.append(found)
        found = content.find(_MAGIC, found + (4 if found % 4 == 0 else 1))
    starts, ends = [0, *(cut + 4 for cut in cuts)], [*cuts, len(content)]
    for number, (start, end) in enumerate(zip(starts, ends, strict=True)):
        last = number == len(cuts)
        place = _WHOLE if not cuts else _LAST if last else _MIDDLE if number else _FIRST
        if end - start > _LONGEST_PART:
            raise UserError(f"a record of {end - start:,} bytes is longer than the format allows")
        yield _PART.pack(_MAGIC, place << 29 | end - start)
        yield content[start:end]
        yield b"\0" * (-(end - start) % 4)


def _size(content: bytes) -> tuple[int, int]:
    """Width and height of a picture, by its header."""
    try:
        with Image.open(io.BytesIO(content), formats=pictures.FORMATS) as image:
            return image.size
    except Exception as error:  # Pillow's readers are not of one mind
        raise Damaged("a picture of the source cannot be read: prepare the set first, which leaves such out") from error
