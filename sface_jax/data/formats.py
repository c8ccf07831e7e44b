"""Which reader a path asks for, and which writer."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from absl import logging
from etils import epath
from jaxtyping import Int32

from sface_jax.core import pictures
from sface_jax.core.errors import Damaged, UserError
from sface_jax.core.files import PathLike
from sface_jax.core.progress import Progress
from sface_jax.data import dataset, layout, listing, local, recordio, tables, webdataset
from sface_jax.data.folders import SUFFIXES, FolderSource
from sface_jax.data.sources import ProceduralFaces, Source

FILES = (recordio.SUFFIX, webdataset.SUFFIX, tables.PARQUET)
"""The suffixes of containers that are written."""

_ALIKE = {".jpeg": ".jpg", ".pgm": ".ppm"}
"""Suffixes that stand for the same content as others."""

_NAMES: dict[type, str] = {
    FolderSource: "folders",
    recordio.RecordSource: "RecordIO",
    webdataset.TarSource: "WebDataset",
    tables.TableSource: "list or Parquet",
    dataset.SplitSource: "TFDS dataset",
    ProceduralFaces: "procedural faces",
}

_KNOWN = ", ".join((recordio.SUFFIX, webdataset.SUFFIX, *tables.TEXT, tables.PARQUET))


def open_source(path: PathLike, split: str = "train", image_column: str = "", label_column: str = "") -> Source:
    """Opens labelled pictures of any format that is known here.

    Args:
        path: a dataset that stage prepare or synthesize wrote; InsightFace's `.rec` or the folder with it; a `.tar`, a
            folder of them, or "faces-{000..012}.tar"; a list in `.csv`, `.tsv`, `.txt` or `.lst`; a `.parquet` or a
            folder of them; or a folder of <identity>/<picture>.
        split: of a dataset.
        image_column: of a list or a Parquet file, see `tables.TableSource`.
        label_column: likewise.

    Raises:
        UserError: it is none of these, or not there, or a container on a remote disk.
        Damaged: the container is damaged.
    """
    text = os.fspath(path)
    suffix = os.path.splitext(text)[1].lower()
    if suffix in (*FILES, *tables.TEXT):
        _refuse_remote(text)
    if text and epath.Path(path).is_dir():
        return _open_folder(epath.Path(path), split, image_column, label_column)
    if suffix == webdataset.SUFFIX:
        return webdataset.TarSource(text)
    if not os.path.exists(text):
        raise UserError(f"there are no pictures at {text!r}: name a folder, or a file in {_KNOWN}")
    if suffix == recordio.SUFFIX:
        return recordio.RecordSource(text)
    if suffix in (*tables.TEXT, tables.PARQUET):
        return tables.TableSource(text, image_column, label_column)
    if re.search(r"\.(tar\.\w+|tgz|tbz2?|txz|zip)$", text, re.IGNORECASE):
        raise UserError(f"{text} is compressed: unpack it first, or pack it anew as a plain {webdataset.SUFFIX}")
    raise UserError(f"{text} is in no format known here: take a folder, or a file in {_KNOWN}")


def name(source: Source) -> str:
    """What a source is read from, in a word or two."""
    return _NAMES[type(source)]


def holds_container(path: epath.Path) -> bool:
    """Whether a folder holds a dataset or containers, rather than pictures."""
    return (path / layout.INFO_FILE).exists() or any(_containers(path, suffix) for suffix in FILES)


def _containers(path: epath.Path, suffix: str) -> list[epath.Path]:
    return sorted(file for file in path.glob(f"*{suffix}") if file.name[0] != ".")


def _open_folder(path: epath.Path, split: str, image_column: str, label_column: str) -> Source:
    if (path / layout.INFO_FILE).exists():
        return dataset.SplitSource(dataset.open(path, "source")[split])
    if holds_container(path):
        _refuse_remote(os.fspath(path))
    if records := _containers(path, recordio.SUFFIX):
        train = [file for file in records if file.name == "train.rec"] or records
        if len(train) > 1:
            raise UserError(f"{path} holds several .rec files: name one, such as {train[0]}")
        return recordio.RecordSource(train[0])
    if _containers(path, webdataset.SUFFIX):
        return webdataset.TarSource(path)
    if _containers(path, tables.PARQUET):
        return tables.TableSource(path, image_column, label_column)
    return FolderSource(path)


def _refuse_remote(path: str) -> None:
    if "://" in path:
        raise UserError(f"{path} is on a remote disk, and containers and lists are read from local ones: copy it first")


class Written(NamedTuple):
    """What `write` wrote: its files or its folder, and how many pictures got another name."""

    files: list[Path]
    renamed: int


def write(path: PathLike, source: Source, *, shard_bytes: int = 0) -> Written:
    """Writes a source in the format of the path's suffix; pictures keep their bytes, and nothing is left half-done.

    The suffix of a picture's name is made that of its content; where the new name is taken, both are kept, as in
    "1.jpg.png".

    Args:
        path: a new folder, or a new file in `FILES`.
        source: the pictures.
        shard_bytes: see `webdataset.write`.

    Raises:
        UserError: the path is taken or of no known format, or a name is none that a file may have.
        Damaged: a picture cannot be read.
    """
    path = Path(path)
    suffix = path.suffix.lower()
    if suffix and suffix not in FILES:
        raise UserError(f"{path} is in no format written here: take {', '.join(FILES)}, or a folder without a dot")
    named = _Named(source)
    progress = Progress(f"writing {path.name}", len(named.labels), unit="pictures")
    if suffix == recordio.SUFFIX:
        written = recordio.write(path, named, progress.update)
    elif suffix == webdataset.SUFFIX:
        written = webdataset.write(path, named, shard_bytes, progress.update)
    elif suffix == tables.PARQUET:
        written = tables.write(path, named, progress.update)
    else:
        write_folder(path, named, progress.update)
        written = [path]
    progress.close()
    if named.renamed:
        logging.info("%d of %d pictures were given the suffix of their content", named.renamed, len(named.labels))
    return Written(written, named.renamed)


def write_folder(path: PathLike, source: Source, done: Callable[[int], None] | None = None) -> None:
    """Writes <identity>/<picture> into a new folder, which appears whole; see `write`."""
    with local.appearing(path) as (temporary,):
        temporary.mkdir()
        for name in source.class_names:
            (temporary / name).mkdir()
        for position, label in enumerate(source.labels.tolist()):
            content = source.read(position)
            with (temporary / source.class_names[label] / source.names[position]).open("xb") as file:
                file.write(content)
            if done:
                done(position + 1)


class _Named:
    """A source whose names any file may have, and that of a picture which was read ends as its content asks.

    Attributes:
        renamed: how many names were changed.
    """

    def __init__(self, source: Source):
        for kind, names in (("identity", source.class_names), ("picture", source.names)):
            bad = next((name for name in names if not listing.usable(name)), None)
            if bad is not None:
                raise UserError(f"the {kind} {ascii(bad[:80])} has a name that no file may have: rename it")
        self._source = source
        self.class_names: Sequence[str] = source.class_names
        self.labels: Int32[np.ndarray, " n"] = source.labels
        self.names = list(source.names)
        self.renamed = 0
        self._bounds = np.searchsorted(self.labels, np.arange(len(self.class_names) + 1)).tolist()
        if len(set(self.class_names)) < len(self.class_names) or any(
            len(self._taken(label)) < self._bounds[label + 1] - self._bounds[label]
            for label in range(len(self.class_names))
        ):
            raise UserError("two pictures of an identity, or two identities, have the same name: rename them")

    def _taken(self, label: int) -> set[str]:
        return set(self.names[self._bounds[label] : self._bounds[label + 1]])

    def read(self, position: int) -> bytes:
        """See `Source`."""
        content, name = self._source.read(position), self.names[position]
        try:
            right = pictures.suffix(content)
        except Damaged as error:
            raise Damaged(f"picture {name} {error}") from error
        stem, suffix = os.path.splitext(name)
        suffix = suffix.lower()
        if _ALIKE.get(suffix, suffix) != right:
            taken = self._taken(int(self.labels[position]))
            new = (stem if suffix in SUFFIXES else name) + right
            while new in taken:
                new = name = name + right
            self.names[position] = new
            self.renamed += 1
        return content

    def version(self) -> str:
        """See `Source`."""
        return self._source.version()
