"""The pictures an audit looks at: a dataset of this project, or any folder <root>/<identity>/<picture>."""

from __future__ import annotations

import dataclasses

import numpy as np
from etils import epath
from jaxtyping import Int, UInt8

from sface_jax.core.errors import UserError
from sface_jax.data import dataset, folders, layout
from sface_jax.verification.embed import Images


@dataclasses.dataclass(frozen=True)
class Source:
    """Labelled pictures.

    Attributes:
        images: the pictures.
        labels: the label of each.
        names: the name of the identity of each label.
        folder: whether it is a folder of pictures, whose labels mean nothing outside it.
    """

    images: Images
    labels: Int[np.ndarray, " n"]
    names: dict[int, str]
    folder: bool

    def chosen(self, most: int, seed: int = 0) -> Int[np.ndarray, " k"]:
        """Positions of at most `most` pictures, drawn so that all identities keep equal numbers where they can."""
        if not most or len(self.labels) <= most:
            return np.arange(len(self.labels))
        order = np.random.default_rng(seed).permutation(len(self.labels))
        by_label = order[np.argsort(self.labels[order], kind="stable")]
        _, first, counts = np.unique(self.labels[by_label], return_index=True, return_counts=True)
        turn = np.arange(len(by_label)) - np.repeat(first, counts)  # 0 for the first picture of each identity, ...
        return np.sort(by_label[np.argsort(turn, kind="stable")[:most]])


def open_dataset(path: epath.Path, split: str, key: str) -> Source | None:
    """One split of a dataset; None where the dataset has no such split.

    Raises:
        UserError: the folder holds no dataset.
    """
    found = dataset.open(path, key)
    if split not in found.splits:
        return None
    pictures = found[split]
    names = {int(label): found.class_names[label] for label in pictures.classes}
    return Source(pictures, np.asarray(pictures.labels), names, folder=False)


def is_dataset(path: epath.Path) -> bool:
    """Whether the folder is a dataset that stage prepare or synthesize wrote."""
    return (path / layout.INFO_FILE).exists()


def same_identities(synthetic: Source, authentic: Source) -> Source:
    """Numbers the synthetic identities as the authentic ones are.

    Two datasets of this project share their labels. Otherwise an identity is known by its name, or by its number among
    the authentic ones where the synthetic names are numbers. Synthetic identities unknown to the authentic set keep
    numbers of their own.

    Raises:
        UserError: the two have no identity in common.
    """
    if not (synthetic.folder or authentic.folder):
        return synthetic
    known = {name: label for label, name in authentic.names.items()}
    by_number = {label for label, name in synthetic.names.items() if name.isdecimal() and int(name) in authentic.names}
    new, free = {}, max([*authentic.names, 0]) + 1
    for label, name in synthetic.names.items():
        new[label] = known.get(name, int(name) if label in by_number else free + label)
    if not set(new.values()) & set(authentic.names):
        raise UserError(
            "no identity of config.synthetic is one of config.authentic: name the synthetic folders after the "
            "authentic identities they were made from"
        )
    labels = np.array([new[int(label)] for label in synthetic.labels], np.int32)
    return Source(synthetic.images, labels, {new[label]: name for label, name in synthetic.names.items()}, True)


class _Files:
    """Pictures in files, decoded when they are asked for."""

    def __init__(self, paths: list[epath.Path], size: int):
        self.paths, self.size = paths, size

    def __len__(self) -> int:
        return len(self.paths)

    def images(self, indices: Int[np.ndarray, " k"]) -> UInt8[np.ndarray, "k s s 3"]:
        """The pictures at these positions, cut and resized."""
        return np.stack([folders.read_picture(self.paths[index], self.size) for index in indices])


def open_folder(path: epath.Path, size: int) -> Source:
    """A folder `<root>/<identity>/<picture>`, its identities numbered in natural order.

    Args:
        path: the root.
        size: side to which the pictures are cut and resized, in pixels.

    Raises:
        UserError: there is no such folder, or no picture in it.
    """
    found = folders.scan(path)
    labels = np.repeat(np.arange(len(found), dtype=np.int32), [len(paths) for paths in found.values()])
    files = _Files([path for paths in found.values() for path in paths], size)
    return Source(files, labels, dict(enumerate(found)), folder=True)
