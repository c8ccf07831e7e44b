"""The pictures of verification benchmarks by identity, each a `data.sources.Source`."""

from __future__ import annotations

import os
from collections.abc import Sequence

import numpy as np
from etils import epath
from jaxtyping import Int, Int32

from sface_jax.core.errors import UserError
from sface_jax.data import pairs


class FileSource:
    """Files of pictures, each in the folder of its identity; a `Source`."""

    def __init__(self, paths: Sequence[epath.Path], where: str):
        """Orders the files by identity; `where` names their list in what is told."""
        folders = [os.fspath(path.parent) for path in paths]
        listed = sorted(set(folders))
        self.class_names = [os.path.basename(folder) for folder in listed]
        if len(set(self.class_names)) < len(listed):
            raise UserError(f"{where} names pictures in two folders of one name: the folder must tell the identity")
        order = sorted(range(len(paths)), key=lambda i: folders[i])
        self.paths = [os.fspath(paths[i]) for i in order]
        self.labels = np.array([listed.index(folders[i]) for i in order], np.int32)
        self.names = [os.path.basename(path) for path in self.paths]

    def read(self, position: int) -> bytes:
        """The content of the file at a position."""
        return epath.Path(self.paths[position]).read_bytes()


class PackSource:
    """The pictures of a pack of pairs; those that its mated pairs connect are one identity. A `Source`."""

    def __init__(self, path: str):
        """Reads the pack, see `pairs.read_bin`."""
        contents, same = pairs.read_bin(path)
        places = {content: place for place, content in enumerate(dict.fromkeys(contents))}
        found = np.array([places[content] for content in contents])
        labels = _connected(len(places), found[::2][same], found[1::2][same])
        order = np.argsort(labels, kind="stable")
        distinct = list(places)
        self.contents = [distinct[place] for place in order]
        self.labels = labels[order]
        first_pair = np.full(labels.max() + 1, len(contents))
        np.minimum.at(first_pair, labels[found], np.arange(len(contents)))
        self.class_names = [f"pair {place // 2 + 1}{'ab'[place % 2]}" for place in first_pair.tolist()]
        self.names = [str(place) for place in order.tolist()]

    def read(self, position: int) -> bytes:
        """The picture at a position."""
        return self.contents[position]


def _connected(count: int, first: Int[np.ndarray, " p"], second: Int[np.ndarray, " p"]) -> Int32[np.ndarray, " c"]:
    """Numbers the components of the graph with these edges, from 0 in the order of their first node."""
    root = np.arange(count)
    while True:
        low = np.minimum(root[first], root[second])
        new = root.copy()
        np.minimum.at(new, first, low)
        np.minimum.at(new, second, low)
        new = new[new]
        if (new == root).all():
            return np.unique(root, return_inverse=True)[1].astype(np.int32)
        root = new
