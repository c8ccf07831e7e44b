"""Pictures that lie in one folder, with nobody's name on them."""

from __future__ import annotations

import numpy as np
from etils import epath

from sface_jax.data import folders, local


class FlatSource:
    """The pictures directly under a folder as a `Source` of one identity, which says nothing about who they show."""

    def __init__(self, root: str):
        """Lists the folder."""
        self._root = epath.Path(root)
        self._paths = sorted(_pictures(self._root), key=lambda path: (folders.natural(path.name), path.name))
        self.class_names = [self._root.name]
        self.labels = np.zeros(len(self._paths), np.int32)
        self.names = [path.name for path in self._paths]

    def read(self, position: int) -> bytes:
        """See `Source`."""
        return self._paths[position].read_bytes()

    def version(self) -> str:
        """See `Source`."""
        return local.stamp(self._paths)

    def passed_over(self) -> list[epath.Path]:
        """See `folders.passed_over`: whatever else lies in the folder."""
        known = set(self._paths)
        return sorted(path for path in self._root.iterdir() if path.name[0] != "." and path not in known)


def is_flat(root: str) -> bool:
    """Whether pictures lie directly in a folder, and none in folders of identities."""
    path = epath.Path(root)
    if not path.is_dir() or not _pictures(path):
        return False
    return not any(_pictures(folder) for folder in path.iterdir() if folder.is_dir() and folder.name[0] != ".")


def _pictures(path: epath.Path) -> list[epath.Path]:
    return [file for file in path.iterdir() if file.suffix.lower() in folders.SUFFIXES and file.name[0] != "."]
