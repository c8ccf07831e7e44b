"""Lists of pictures: CSV, TSV and other text with a path and a label a line, and Parquet, also with the pictures in it.

In text the first line may name the columns; without it they are told by what looks like a picture's path. MXNet's and
InsightFace's `.lst` are such lists.
"""

from __future__ import annotations

import collections
import contextlib
import csv
import json
import os
import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from absl import logging
from jaxtyping import Int32, Int64

from sface_jax.core.errors import Damaged, UserError
from sface_jax.core.files import PathLike
from sface_jax.data import listing
from sface_jax.data.folders import SUFFIXES
from sface_jax.data.local import ABSENT, appearing, stamp
from sface_jax.data.sources import Source

TEXT = (".csv", ".tsv", ".txt", ".lst")
PARQUET = ".parquet"

_PICTURES = ("path", "file", "image", "filename", "file_name", "image_path", "filepath", "img", "jpg", "png")
_ID = "id"  # of the identity, or of the row: the last one to be taken
_LABELS = ("label", "identity", "class", "person", "subject", "target", "cls", _ID)
_GROUP = 256  # rows that are read, and written, together
_CACHE = 256 << 20  # bytes of pictures that are kept for the next reads


class TableSource:
    """The pictures of a list or of Parquet files, a `Source`.

    Labels that are whole numbers are kept in their order, names in natural order. Where a column "identity" goes with
    numbers, it names the identities; so do Hugging Face's class names.
    """

    def __init__(self, path: PathLike, image_column: str = "", label_column: str = ""):
        """Reads the table, but for the pictures.

        Args:
            path: a text file, a `.parquet`, or a folder of `.parquet` files; paths in it are relative to its folder.
            image_column: the column with the paths or pictures, where it is not called "path", "file", "image" or so.
            label_column: the column with the labels, where it is not called "label", "identity", "class", "id" or so.

        Raises:
            UserError: there is no such file, its columns cannot be told, or the first picture is not there, or every
                row has another "id" for a label.
            Damaged: it is no such table.
        """
        self._path = Path(path)
        self._root = self._path if self._path.is_dir() else self._path.parent
        read = _Text if self._path.suffix.lower() in TEXT else _Parquet
        self._table = read(self._path, image_column, label_column)
        paths, labels, identities = self._table.paths, self._table.labels, self._table.identities
        where, asked = str(path), f"{self._table.label!r} as the labels" if labels else "the folders as identities"
        logging.info("%s: read with %r as the pictures and %s", path, self._table.image, asked)
        if any("\0" in name for name in paths):
            raise Damaged(f"{where} has a path that no file may have")
        if labels is None:
            labels = listing.identities(paths, where)
        names = [os.path.basename(name) or f"{row:07d}" for row, name in enumerate(paths)]
        if labels and all(isinstance(label, int) for label in labels):
            found = listing.by_number(labels, identities, names, where)
        else:
            found = listing.by_identity([str(label) for label in labels], names, where)
        self.class_names: Sequence[str] = found.class_names
        self.labels: Int32[np.ndarray, " n"] = found.labels
        self.names: Sequence[str] = found.names
        self._order = found.order
        if self._table.label and 1 < len(labels) == len(self.class_names):
            self._each_alone(label_column)
        self._table.labels = self._table.identities = None  # worker processes get copies
        if self._table.holds_pictures:
            self._table.warn_of_jumps(self._order)
        elif not os.path.exists(first := self._root / paths[0]):
            raise UserError(
                f"{self._table.place(0)}: there is no picture {first}; paths are relative to the folder of the list"
            )

    def _each_alone(self, asked: str) -> None:
        """Tells that every identity has one picture, which is not what a label is for."""
        told = f"{self._path}: every row has another {self._table.label!r}"
        if self._table.label.lower() == _ID and not asked:
            raise UserError(f"{told}, so it tells no identity: name the column that does with --config.label_column")
        logging.warning("%s, so every identity has one picture: is this the label?", told)

    def read(self, position: int) -> bytes:
        """See `Source`; rows of one identity that are far apart in a Parquet file are read slowly."""
        row = int(self._order[position])
        if (content := self._table.picture(row)) is not None:
            return content
        path = self._root / self._table.paths[row]
        try:
            return path.read_bytes()
        except OSError as error:
            if error.errno not in ABSENT:
                raise
            raise Damaged(f"{self._table.place(row)}: there is no picture {path}") from error

    def version(self) -> str:
        """Changes where what `read` gives out may have changed."""
        named: set[str] = set()
        # Where a Parquet file holds pictures, their paths most often name no files.
        if not self._table.holds_pictures or os.path.isfile(self._root / self._table.paths[0]):
            named = {os.path.join(self._root, path) for path in self._table.paths}
        return stamp([*self._table.files, *sorted(named)])


class _Text:
    """A list in text."""

    holds_pictures = False

    def __init__(self, path: Path, image_column: str, label_column: str):
        self.files = [os.fspath(path)]
        read = list(_rows(path))
        if not read:
            raise Damaged(f"{path} is empty")
        self._lines, rows = np.array([line for line, _ in read], np.int32), [row for _, row in read]
        odd = next((line for line, row in read if len(row) != len(rows[0])), None)
        if odd:
            raise Damaged(f"{path}, line {odd} has another number of columns than the first")
        while len(rows[0]) > 1 and not any(row[-1] for row in rows):  # each line ends in a separator
            rows = [row[:-1] for row in rows]
        width, lowered = len(rows[0]), {field.lower() for field in rows[0]}
        named = bool(lowered & {*_PICTURES, image_column.lower()} - {""}) and not any(map(_is_picture, rows[0]))
        if (image_column or label_column) and not named:
            raise UserError(f"{path} has no column {image_column or label_column!r}: its first line is {rows[0][:9]}")
        columns = rows.pop(0) if named else [f"column {number}" for number in range(1, width + 1)]
        self._lines = self._lines[int(named) :]
        if not rows:
            raise Damaged(f"{path} lists no pictures")
        if named:
            image = _column(path, columns, image_column, _PICTURES)
            label = _column(path, columns, label_column, _LABELS, needed=width > 1)
        else:
            image, label = _guess(path, rows[0])
        self.image, self.label = columns[image], "" if label is None else columns[label]
        self.paths = [row[image] for row in rows]
        self.labels = None if label is None else _numbers([row[label] for row in rows])
        other = columns.index("identity") if "identity" in columns else None
        self.identities = None if other in (None, label) else [row[other] for row in rows]

    def picture(self, row: int) -> None:
        """No picture is in the list itself."""

    def place(self, row: int) -> str:
        """Where a row is, for what is told."""
        return f"{self.files[0]}, line {self._lines[row]}"


def _rows(path: Path) -> Iterator[tuple[int, list[str]]]:
    """The number of each line that is not empty, and its fields."""
    try:
        text = path.read_text(encoding="utf-8-sig")
    except FileNotFoundError as error:
        raise UserError(f"there is no list {path}") from error
    except UnicodeDecodeError as error:
        raise Damaged(f"{path} is no list of pictures: it holds no text in UTF-8") from error
    head = text[: text.find("\n")] if "\n" in text else text
    separator = next((mark for mark in ("\t", ",", ";") if mark in head), None)
    if separator is None:
        yield from ((line, row.split()) for line, row in enumerate(text.splitlines(), start=1) if row.strip())
        return
    reader = csv.reader(text.splitlines(), delimiter=separator)
    try:
        yield from ((reader.line_num, row) for row in reader if row)
    except csv.Error as error:
        raise Damaged(f"{path} is no table ({error})") from error


def _column(path: Path, columns: list[str], wanted: str, known: Sequence[str], needed: bool = True) -> int | None:
    if wanted:
        if wanted not in columns:
            raise UserError(f"{path} has no column {wanted!r}: it has {', '.join(columns)}")
        return columns.index(wanted)
    lowered = [column.lower() for column in columns]
    found = next((lowered.index(name) for name in known if name in lowered), None)
    if found is None and needed:
        raise UserError(
            f"{path} has the columns {', '.join(columns)}: say which has the pictures and which the labels, "
            "with --config.image_column and --config.label_column"
        )
    return found


def _guess(path: Path, row: list[str]) -> tuple[int, int | None]:
    """The columns of path and label in a list that does not name them."""
    pictures = [i for i, field in enumerate(row) if _is_picture(field)]
    if len(pictures) == 1 and len(row) <= 2:
        return pictures[0], 1 - pictures[0] if len(row) == 2 else None
    if len(pictures) == 1 and pictures[0] == len(row) - 1:
        return pictures[0], 1  # MXNet's list: index, label, ..., path
    if len(pictures) == 1 and pictures[0] == 1:
        return 1, 2  # InsightFace's: whether aligned, path, label, ...
    raise UserError(f"{path} does not tell which column is the path and which the label: name them in a first line")


def _is_picture(field: str) -> bool:
    return os.path.splitext(field)[1].lower() in SUFFIXES


def _numbers(fields: list[str]) -> list[int] | list[str]:
    """Labels as numbers, where that loses nothing; MXNet writes them with a fraction of zeros."""
    if all(re.fullmatch(r"(0|[1-9][0-9]{0,8})(\.0*)?", field) for field in fields):
        return [int(field.partition(".")[0]) for field in fields]
    return fields


class _Parquet:
    """Parquet files, with the paths of pictures or the pictures themselves: binary, or struct{bytes, path}."""

    def __init__(self, path: Path, image_column: str, label_column: str):
        files = sorted(path.glob(f"[!.]*{PARQUET}")) if path.is_dir() else [path]
        if not files or not files[0].is_file():
            raise UserError(f"there is no Parquet file {path}")
        self.files = [os.fspath(file) for file in files]
        self._groups: list[tuple[int, int, int]] = []  # of each group of rows: its first row, file and number in it
        self._kept: collections.OrderedDict[int, Any] = collections.OrderedDict()
        self._bytes = 0
        self.paths: list[str] = []
        labels, identities = [], []
        for number, file in enumerate(self.files):
            with _told(file):
                opened = _open(file)
                self._look(opened, file, image_column, label_column)
                for group in range(opened.num_row_groups):
                    self._groups.append((len(self.paths), number, group))
                    self._bytes += opened.metadata.row_group(group).total_byte_size
                    wanted = [name for name in (self._name, self.label, self._identity) if name]
                    table = opened.read_row_group(group, columns=wanted).to_pydict()
                    top = next(iter(table.values())) if table else []
                    count = opened.metadata.row_group(group).num_rows
                    found = _paths(table, self._name) if self._name else [""] * count
                    if len(found) != count or (table and len(top) != count):
                        raise Damaged(f"{file} has columns of unequal length")
                    self.paths += found
                    labels += table[self.label] if self.label else []
                    identities += table[self._identity] if self._identity else []
        if not self.paths:
            raise Damaged(f"{path} lists no pictures")
        if not all(isinstance(label, str) or (isinstance(label, int) and label < 2**31) for label in labels):
            raise Damaged(f"{path} has labels that are neither whole numbers nor names")
        if self._class_names and labels and not all(0 <= label < len(self._class_names) for label in labels):
            raise Damaged(f"{path} has labels without a name")
        self.labels = labels if self.label else None
        self.identities = [self._class_names[label] for label in labels] if self._class_names else None
        if self._identity and all(isinstance(name, str) for name in identities):
            self.identities = identities
        self._starts = [start for start, _, _ in self._groups]

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_kept": collections.OrderedDict()}

    def _look(self, opened: Any, file: str, image_column: str, label_column: str) -> None:
        """Finds the columns."""
        schema = opened.schema_arrow
        holding = [field.name for field in schema if _holds_pictures(field.type)]
        known = (*holding[:1], *_PICTURES)
        image = schema.names[_column(Path(file), schema.names, image_column, known)]
        label = _column(Path(file), schema.names, label_column, _LABELS, needed=False)
        self.label = "" if label is None else schema.names[label]
        self._identity = "identity" if "identity" in schema.names and self.label != "identity" else ""
        self.image, self._name, self.holds_pictures = image, image, image in holding
        if image in holding and "struct" in str(schema.field(image).type):
            self._name = f"{image}.path"
        elif image in holding:
            self._name = next((name for name in ("path", "filename", "file_name", "name") if name in schema.names), "")
        elif "string" not in str(schema.field(image).type):
            raise UserError(f"{file} has neither paths nor pictures as files in its column {image!r}")
        self._class_names = _hugging_face_names(schema.metadata, self.label)

    def place(self, row: int) -> str:
        """Where a row is, for what is told."""
        group = int(np.searchsorted(self._starts, row, side="right")) - 1
        number = self._groups[group][1]
        first = next(start for start, file, _ in self._groups if file == number)
        return f"{self.files[number]}, row {row - first}"

    def warn_of_jumps(self, order: Int64[np.ndarray, " n"]) -> None:
        """Warns where rows that are read one after another lie far apart: groups of rows are read as a whole."""
        groups = np.searchsorted(self._starts, order, side="right")
        reads = 1 + int(np.count_nonzero(np.diff(groups)))
        if self._bytes > _CACHE and reads > 2 * len(self._groups):
            logging.warning(
                "%s: the rows of an identity do not lie together: to read all takes %d readings of %.3g MB, in place of"
                " %d. Sort the table by its label first, in DuckDB or pandas",
                *(self.files[0], reads, self._bytes / len(self._groups) / 1e6, len(self._groups)),
            )

    def picture(self, row: int) -> bytes | None:
        """The picture of a row; None where the table has its path alone."""
        if not self.holds_pictures:
            return None
        group = int(np.searchsorted(self._starts, row, side="right")) - 1
        start, number, within = self._groups[group]
        if group not in self._kept:
            with _told(self.files[number]):
                table = _open(self.files[number]).read_row_group(within, columns=[self.image])
            self._kept[group] = table.column(0)
            while len(self._kept) > 1 and sum(column.nbytes for column in self._kept.values()) > _CACHE:
                self._kept.popitem(last=False)
        self._kept.move_to_end(group)
        if row - start >= len(self._kept[group]):
            raise Damaged(f"{self.files[number]} has columns of unequal length")
        with _told(self.files[number]):
            value = self._kept[group][row - start].as_py()
        content = value["bytes"] if isinstance(value, dict) else value
        if content is None and not (isinstance(value, dict) and value["path"]):
            raise Damaged(f"{self.place(row)}: there is no picture")
        return content


def _holds_pictures(kind: Any) -> bool:
    import pyarrow as pa

    if pa.types.is_struct(kind):
        return {"bytes", "path"} <= {field.name for field in kind}
    return pa.types.is_binary(kind) or pa.types.is_large_binary(kind)


def _paths(table: dict[str, list[Any]], column: str) -> list[str]:
    top, _, field = column.partition(".")
    values = table[column] if column in table else [(value or {}).get(field) for value in table[top]]
    return [value if isinstance(value, str) else "" for value in values]


def _open(file: str) -> Any:
    import pyarrow.parquet as pq

    return pq.ParquetFile(file)


@contextlib.contextmanager
def _told(file: str) -> Iterator[None]:
    """Turns what pyarrow raises on a damaged file into `Damaged`."""
    import pyarrow as pa

    try:
        yield
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        first = (str(error).splitlines() or [""])[0]
        raise Damaged(f"{file} is no Parquet file, or damaged ({first})") from error


def _hugging_face_names(metadata: dict[bytes, bytes] | None, column: str | None) -> list[str] | None:
    """The names of a ClassLabel."""
    try:
        names = json.loads((metadata or {})[b"huggingface"])["info"]["features"][column]["names"]
        return [str(name) for name in names] or None
    except (KeyError, TypeError, ValueError):
        return None


def write(path: PathLike, source: Source, done: Callable[[int], None] | None = None) -> list[Path]:
    """Writes a `.parquet` as Hugging Face's `datasets` reads it: image struct{bytes, path}, label, identity.

    Args:
        path: the file; it appears whole or not at all.
        source: pictures, whose bytes are kept as they are.
        done: is called with the number of pictures written.

    Returns:
        The file.

    Raises:
        UserError: the file is there already.
        Damaged: a picture cannot be read.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    features = {
        "image": {"_type": "Image"},
        "label": {"names": list(source.class_names), "_type": "ClassLabel"},
        "identity": {"dtype": "string", "_type": "Value"},
    }
    image = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    schema = pa.schema(
        [("image", image), ("label", pa.int64()), ("identity", pa.string())],
        metadata={"huggingface": json.dumps({"info": {"features": features}})},
    )
    labels = source.labels.tolist()
    with appearing(path) as (temporary,), temporary.open("wb") as file:
        # Pictures are compressed already.
        with pq.ParquetWriter(file, schema, compression="none", use_dictionary=["identity"]) as writer:
            for start in range(0, len(labels), _GROUP):
                rows = [
                    {
                        "image": {"bytes": source.read(position), "path": source.names[position]},
                        "label": labels[position],
                        "identity": source.class_names[labels[position]],
                    }
                    for position in range(start, min(start + _GROUP, len(labels)))
                ]
                writer.write_table(pa.Table.from_pylist(rows, schema))
                if done:
                    done(start + len(rows))
    return [Path(path)]
