"""Pictures in folders: `<root>/<identity>/<picture>`, any format that `core.pictures` reads, any size."""

from __future__ import annotations

import re
from collections.abc import Iterable

import numpy as np
from etils import epath

from sface_jax.core import files
from sface_jax.core.errors import UserError
from sface_jax.data import local

SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".pgm", ".ppm", ".bmp", ".webp"})


def natural(name: str) -> list[str | int]:
    """Sort key that puts `s2` before `s10`."""
    return [int(part) if part.isascii() and part.isdecimal() else part for part in re.split(r"([0-9]+)", name)]


def _in_order(paths: Iterable[epath.Path]) -> list[epath.Path]:
    """In natural order; by name where numbers are equal, as in `01` and `1`."""
    return sorted(paths, key=lambda path: (natural(path.name), path.name))


def scan(root: files.PathLike) -> dict[str, list[epath.Path]]:
    """Lists the pictures of each identity, both in natural order; other files and empty folders are passed over.

    Raises:
        UserError: `root` is no folder, or holds no pictures.
    """
    root = epath.Path(root)
    if not root.is_dir():
        raise UserError(f"there is no folder {root}: it should hold <identity>/<picture> files")
    found = {}
    for folder in _in_order(f for f in root.iterdir() if f.is_dir() and f.name[0] != "."):
        listed = [p for p in folder.iterdir() if p.suffix.lower() in SUFFIXES and p.name[0] != "."]
        if listed:
            found[folder.name] = _in_order(listed)
    if not found:
        kinds = " ".join(sorted(SUFFIXES))
        raise UserError(f"{root} holds no pictures: they should lie at <identity>/<picture> ({kinds})")
    return found


def passed_over(root: files.PathLike) -> list[epath.Path]:
    """What `scan` leaves out though it may be meant: pictures beside the folders, and in these what is no picture.

    Hidden files are left out of it.
    """
    found = []
    for path in _in_order(path for path in epath.Path(root).iterdir() if path.name[0] != "."):
        if path.is_dir():
            found += _in_order(p for p in path.iterdir() if p.suffix.lower() not in SUFFIXES and p.name[0] != ".")
        elif path.suffix.lower() in SUFFIXES:
            found.append(path)
    return found


class FolderSource:
    """The pictures under a folder, a `Source`."""

    def __init__(self, root: files.PathLike):
        """Lists the folder.

        Raises:
            UserError: there is no such folder, or no picture in it.
        """
        found = scan(root)
        self.root = str(root)
        self.class_names = list(found)
        self.labels = np.repeat(np.arange(len(found), dtype=np.int32), [len(paths) for paths in found.values()])
        self.names = [path.name for paths in found.values() for path in paths]

    def read(self, position: int) -> bytes:
        """The content of the file at a position."""
        return self._path(position).read_bytes()

    def version(self) -> str:
        """See `Source`."""
        return local.stamp(map(self._path, range(len(self.names))))

    def _path(self, position: int) -> epath.Path:
        return epath.Path(self.root) / self.class_names[self.labels[position]] / self.names[position]
