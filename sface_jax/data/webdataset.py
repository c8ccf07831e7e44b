"""WebDataset's tars: `key.jpg` with `key.cls` or `key.json` for a label, or `<identity>/<picture>` without labels.

What lies together in a sample has one key: the path up to the first dot of the file's name. Only uncompressed tars can
be read by offset.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import re
import tarfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Int32

from sface_jax.core.errors import Damaged, UserError
from sface_jax.core.files import PathLike
from sface_jax.data import listing
from sface_jax.data.folders import SUFFIXES
from sface_jax.data.local import LocalFile, appearing, stamp
from sface_jax.data.sources import Source

SUFFIX = ".tar"

_BLOCK = 512
_MOST_TEXT = 1 << 20  # bytes of a long name, or of a label
_BRACES = re.compile(r"\{([0-9]+)\.\.([0-9]+)\}")
_MOST_SHARDS = 100_000
_WORDS = ("identity", "label", "class")  # what a .json may call the identity


class Member(NamedTuple):
    """A file in a tar: its name, and where its bytes are."""

    name: str
    start: int
    size: int


def shards(pattern: PathLike) -> list[str]:
    """The tars that a path, a folder of tars or a pattern such as "faces-{000..012}.tar" stands for, in order.

    Raises:
        UserError: there are none, or they are compressed.
    """
    text = os.fspath(pattern)
    if found := _BRACES.search(text):
        first, last = found.groups()
        if not int(first) <= int(last) < int(first) + _MOST_SHARDS:
            raise UserError(f"{text} stands for no shards: write {{000..012}}, from the first to the last")
        numbers = (f"{number:0{len(first)}d}" for number in range(int(first), int(last) + 1))
        return [path for number in numbers for path in shards(f"{text[: found.start()]}{number}{text[found.end() :]}")]
    if os.path.isdir(text):
        names = sorted(name for name in os.listdir(text) if name.endswith(SUFFIX) and not name.startswith("."))
        if not names:
            raise UserError(f"{text} holds no {SUFFIX}: compressed tars are to be unpacked first")
        return [os.path.join(text, name) for name in names]
    if not text.endswith(SUFFIX):
        raise UserError(f"{text} is no {SUFFIX}: a compressed tar is to be unpacked first (gunzip, unxz)")
    return [text]


def members(file: LocalFile) -> Iterator[Member]:
    """The regular files in a tar, by the headers of POSIX (ustar, pax) and GNU.

    Raises:
        Damaged: it is no tar, cut short, altered, or has links, files with holes or in several volumes.
    """
    position, told = 0, {}
    while any(header := file.read(position, _BLOCK)):
        size, kind = _number(header[124:136], file), header[156:157]
        if _number(header[148:156], file) != sum(header) - sum(header[148:156]) + 8 * ord(" "):
            raise Damaged(f"{file.path} is no tar, or damaged at byte {position}")
        start = position + _BLOCK
        if kind in (b"0", b"\0", b"7") and "size" in told:
            size = _whole(told["size"], file)
        if start + size > file.size:
            raise Damaged(f"{file.path} is cut short in the file at byte {position}: fetch it again")
        position = start + -(-size // _BLOCK) * _BLOCK
        if kind in (b"x", b"L"):
            if size > _MOST_TEXT:
                raise Damaged(f"{file.path} has a name of {size} bytes")
            content = file.read(start, size)
            told = _pax(content, file) | told if kind == b"x" else {**told, "path": content.rstrip(b"\0")}
            continue
        if kind in (b"S", b"M"):
            raise Damaged(f"{file.path} has files with holes, or in several volumes: pack it again")
        if kind in (b"1", b"2"):
            raise Damaged(
                f"{file.path} has links in place of files: pack it again with --dereference --hard-dereference"
            )
        name = _name(told.get("path") or _header_name(header), file)
        if kind in (b"0", b"\0", b"7") and not name.endswith("/"):
            yield Member(name, start, size)
        if kind != b"g":
            told = {}
    while position < file.size:
        rest = file.read(position, min(1 << 20, file.size - position))
        if any(rest):
            raise Damaged(f"{file.path} goes on behind its end: unpack tars that were joined, and pack them again")
        position += len(rest)


def _number(field: bytes, file: LocalFile) -> int:
    """A number in octal digits, or, where they do not suffice, in binary."""
    if field[0] == 0x80:
        return int.from_bytes(field[1:], "big")
    digits = field.strip(b" \0")
    if digits and not re.fullmatch(b"[0-7]+", digits):
        raise Damaged(f"{file.path} is no tar, or damaged")
    return int(digits or b"0", 8)


def _whole(text: bytes, file: LocalFile) -> int:
    if not re.fullmatch(b"[0-9]{1,18}", text):
        raise Damaged(f"{file.path} has a file without sense")
    return int(text)


def _pax(content: bytes, file: LocalFile) -> dict[str, bytes]:
    """The path and size in lines of "length key=value"."""
    found, position = {}, 0
    while position < len(content):
        line = re.compile(b"([0-9]{1,7}) ([^=]*)=").match(content, position)
        end = position + int(line[1]) if line else 0
        if not line or not line.end() < end <= len(content) or content[end - 1 : end] != b"\n":
            raise Damaged(f"{file.path} has a damaged header")
        if line[2] in (b"path", b"size"):
            found[line[2].decode()] = content[line.end() : end - 1]
        position = end
    return found


def _header_name(header: bytes) -> bytes:
    name, prefix = (header[start:end].split(b"\0")[0] for start, end in ((0, 100), (345, 500)))
    return prefix + b"/" + name if prefix and header[257:263] == b"ustar\0" else name


def _name(content: bytes, file: LocalFile) -> str:
    try:
        return content.decode().removeprefix("./")
    except UnicodeDecodeError as error:
        raise Damaged(f"{file.path} has a name that is no text in UTF-8") from error


class TarSource:
    """The pictures of WebDataset's shards, a `Source`.

    A label is the number in `key.cls`, or what `key.json` calls "identity", "label" or "class". Where numbers and
    folders (or "identity") go together, identities have the folders' names. Where no picture has either, each
    folder of pictures is an identity. Other files are passed over.
    """

    def __init__(self, pattern: PathLike):
        """Reads the headers of all shards, and the labels; see `shards`.

        Raises:
            UserError: there are no such files.
            Damaged: one is damaged; or some pictures have labels and others not.
        """
        self._files = [LocalFile(path) for path in shards(pattern)]
        found = [(number, member) for number, file in enumerate(self._files) for member in members(file)]
        seen = [entry for entry in found if os.path.basename(entry[1].name)[:1] not in (".", "")]
        kinds = {os.path.splitext(member.name)[1].lower() for _, member in seen}
        chosen, listed = self._labelled(seen) if kinds & {".cls", ".json"} else self._in_folders(seen)
        chosen = [chosen[position] for position in listed.order.tolist()]
        self._shard = np.array([number for number, _ in chosen], np.int32)
        self._start = np.array([member.start for _, member in chosen], np.int64)
        self._size = np.array([member.size for _, member in chosen], np.int64)
        self.class_names: Sequence[str] = listed.class_names
        self.labels: Int32[np.ndarray, " n"] = listed.labels
        self.names: Sequence[str] = listed.names

    @property
    def _where(self) -> str:
        return self._files[0].path

    def read(self, position: int) -> bytes:
        """See `Source`."""
        file = self._files[self._shard[position]]
        return file.read(int(self._start[position]), int(self._size[position]))

    def version(self) -> str:
        """Changes where what `read` gives out may have changed."""
        return stamp(file.path for file in self._files)

    def _in_folders(self, found: list[tuple[int, Member]]) -> tuple[list[tuple[int, Member]], listing.Listing]:
        chosen = [entry for entry in found if os.path.splitext(entry[1].name)[1].lower() in SUFFIXES]
        paths = [member.name for _, member in chosen]
        names = [os.path.basename(path) for path in paths]
        return chosen, listing.by_identity(listing.identities(paths, self._where), names, self._where)

    def _labelled(self, found: list[tuple[int, Member]]) -> tuple[list[tuple[int, Member]], listing.Listing]:
        samples: dict[tuple[int, str], dict[str, Member]] = {}
        for number, member in found:
            folder, name = os.path.split(member.name)
            key, _, kind = name.partition(".")
            samples.setdefault((number, os.path.join(folder, key)), {})[kind.lower()] = member
        chosen, labels, identities, names = [], [], [], []
        for (number, key), parts in samples.items():
            picture = [member for kind, member in parts.items() if f".{kind.rpartition('.')[2]}" in SUFFIXES]
            if not picture:
                continue
            if len(picture) > 1:
                raise Damaged(f"{self._files[number].path} has several pictures of the key {ascii(key[:80])}")
            facts = self._json(number, parts["json"]) if "json" in parts else {}
            label = self._cls(number, parts["cls"]) if "cls" in parts else _first(facts)
            if label is None:
                raise Damaged(f"{self._files[number].path} has no label for the key {ascii(key[:80])}")
            told = facts.get("identity")
            chosen.append((number, picture[0]))
            labels.append(label)
            identities.append(told if isinstance(told, str) else os.path.basename(os.path.dirname(key)))
            told = facts.get("name")
            names.append(told if isinstance(told, str) else os.path.basename(picture[0].name))
        if all(isinstance(label, int) for label in labels):
            return chosen, listing.by_number(labels, identities if all(identities) else None, names, self._where)
        return chosen, listing.by_identity([str(label) for label in labels], names, self._where)

    def _text(self, number: int, member: Member) -> bytes:
        if member.size > _MOST_TEXT:
            raise Damaged(f"{self._files[number].path} has a label of {member.size} bytes")
        return self._files[number].read(member.start, member.size)

    def _cls(self, number: int, member: Member) -> int:
        content = self._text(number, member).strip()
        if not re.fullmatch(b"[0-9]{1,9}", content):
            raise Damaged(
                f"{self._files[number].path}: {ascii(member.name[:80])} holds no label, a whole number from 0"
            )
        return int(content)

    def _json(self, number: int, member: Member) -> dict[str, Any]:
        try:
            facts = json.loads(self._text(number, member))
        except (ValueError, RecursionError) as error:
            raise Damaged(f"{self._files[number].path}: {ascii(member.name[:80])} is not valid JSON") from error
        return facts if isinstance(facts, dict) else {}


def _first(facts: dict[str, Any]) -> int | str | None:
    """The label in a `.json`: a number where there is one, else a name."""
    found = [facts[word] for word in _WORDS if word in facts]
    for kind in (int, str):
        for value in found:
            if type(value) is kind and (kind is str or 0 <= value < 2**31):
                return value
    return None


def write(
    path: PathLike, source: Source, shard_bytes: int = 0, done: Callable[[int], None] | None = None
) -> list[Path]:
    """Writes `<identity>/<picture>` with a `.cls` beside it, in the order of the source, identity after identity.

    Readers take the dots of a picture's name for the beginning of its suffix: they become "_", and a `.json` beside
    it has the name.

    Args:
        path: a `.tar`; of several shards, "faces.tar" becomes "faces-000000.tar" and so on, all of which appear last.
        source: pictures, whose bytes are kept as they are.
        shard_bytes: a shard is closed when its pictures have this many bytes; 0 writes one file.
        done: is called with the number of pictures written.

    Returns:
        The files.

    Raises:
        UserError: a file is there already.
        Damaged: a picture cannot be read.
    """
    path, written, filled, keys = Path(path), [], 0, set()
    with contextlib.ExitStack() as whole, contextlib.ExitStack() as one:

        def begin() -> tarfile.TarFile:
            written.append(path.with_name(f"{path.stem}-{len(written):06d}{SUFFIX}") if shard_bytes else path)
            (temporary,) = whole.enter_context(appearing(written[-1]))
            return one.enter_context(tarfile.TarFile(temporary, "w"))

        tar = begin()
        for position, label in enumerate(source.labels.tolist()):
            content = source.read(position)
            if shard_bytes and filled >= shard_bytes:
                one.close()
                tar, filled = begin(), 0
            stem, suffix = os.path.splitext(source.names[position])
            key = f"{source.class_names[label]}/{stem.replace('.', '_')}"
            while key in keys:
                key += "_"
            keys.add(key)
            _add(tar, f"{key}{suffix}", content)
            _add(tar, f"{key}.cls", str(label).encode())
            if os.path.basename(key) != stem:
                _add(tar, f"{key}.json", json.dumps({"name": source.names[position]}).encode())
            filled += len(content)
            if done:
                done(position + 1)
    return written


def _add(tar: tarfile.TarFile, name: str, content: bytes) -> None:
    entry = tarfile.TarInfo(name)
    entry.size = len(content)
    tar.addfile(entry, io.BytesIO(content))
