"""Opens a dataset on disk: random access to its pictures, labels and names, without tensorflow.

The folder is an ordinary TFDS directory; TFDS itself is not imported, because it would bring tensorflow into every
trainer where tensorflow is installed (seconds, and a claim on the accelerators).
"""

from __future__ import annotations

import concurrent.futures
import functools
import os
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from array_record.python import array_record_data_source
from etils import epath
from jaxtyping import Int32, Int64, Integer, UInt8

from sface_jax.core import files, pictures
from sface_jax.core.errors import Damaged, UserError
from sface_jax.data import example, layout, local

_THREADS = os.cpu_count() or 1


class PictureSet:
    """Labelled pictures by position: what training and embedding need, be it a split, a part of one or several.

    Attributes:
        name: e.g. "train".
        class_names: names of all classes that may occur, by label.
        image_size: side of the square pictures, in pixels.
        labels: int32 [n], the label of each picture.
    """

    name: str
    class_names: list[str]
    image_size: int
    labels: Int32[np.ndarray, " n"]
    _decoded: UInt8[np.ndarray, "n s s 3"] | None = None

    def __len__(self) -> int:
        return len(self.labels)

    def __getstate__(self) -> dict[str, Any]:
        """Leaves the decoded pictures behind: a worker process reads what it needs."""
        return {**self.__dict__, "_decoded": None}

    @functools.cached_property
    def classes(self) -> Int32[np.ndarray, " c"]:
        """The labels that occur, ascending."""
        return np.unique(self.labels)

    @property
    def num_classes(self) -> int:
        """How many identities there are."""
        return len(self.classes)

    @property
    def nbytes(self) -> int:
        """Bytes that all pictures take when decoded."""
        return len(self) * self.image_size**2 * 3

    def images(self, indices: Integer[np.ndarray, " k"] | Sequence[int]) -> UInt8[np.ndarray, "k s s 3"]:
        """Decodes the pictures at `indices` (0 <= index < len), or copies them where `decode_all` was called."""
        indices = np.asarray(indices, np.int64)
        return self._read(indices) if self._decoded is None else self._decoded[indices]

    def decode_all(self) -> UInt8[np.ndarray, "n s s 3"]:
        """Decodes every picture once and keeps them (`nbytes`); later calls cost nothing."""
        if self._decoded is None:
            blocks = [np.arange(start, min(start + 256, len(self))) for start in range(0, len(self), 256)]
            decoded = np.empty((len(self), self.image_size, self.image_size, 3), np.uint8)
            with concurrent.futures.ThreadPoolExecutor(_THREADS) as pool:
                for block, images in zip(blocks, pool.map(self.images, blocks), strict=True):
                    decoded[block] = images
            self._decoded = decoded
        return self._decoded

    def keep_encoded(self, limit: int) -> None:
        """Keeps the records that were read, for the next time, where all of them take at most `limit` bytes."""
        raise NotImplementedError

    def names_of(self, indices: Integer[np.ndarray, " k"]) -> list[str]:
        """The names "<identity>/<picture>" of the pictures at `indices`."""
        raise NotImplementedError

    def first_of_each_class(self, count: int) -> Part:
        """The part with each class's first `count` pictures, in the order of the set, or with all where it has fewer.

        In a synthetic dataset that order is by sample number, so that a smaller part is a part of a larger one.
        """
        by_class = np.argsort(self.labels, kind="stable")
        ordered = self.labels[by_class]
        rank = np.arange(len(self)) - np.searchsorted(ordered, ordered)  # of each picture in its class
        return Part(self, np.sort(by_class[rank < count]))

    def first_classes(self, count: int) -> Part:
        """The part with the pictures of the first `count` classes, as a set of these classes alone."""
        part = Part(self, np.flatnonzero(self.labels < count))
        part.class_names = self.class_names[:count]
        return part

    def _read(self, indices: Int64[np.ndarray, " k"]) -> UInt8[np.ndarray, "k s s 3"]:
        """Decodes the pictures at `indices`."""
        raise NotImplementedError


class Part(PictureSet):
    """Some pictures of a set, as a set."""

    def __init__(self, whole: PictureSet, positions: Integer[np.ndarray, " k"]):
        """Keeps the pictures of `whole` at `positions`, in that order."""
        self.name, self.class_names, self.image_size = whole.name, whole.class_names, whole.image_size
        self.labels = whole.labels[positions]
        self._whole, self._positions = whole, positions

    def _read(self, indices: Int64[np.ndarray, " k"]) -> UInt8[np.ndarray, "k s s 3"]:
        return self._whole.images(self._positions[indices])

    def keep_encoded(self, limit: int) -> None:
        """See `PictureSet`."""
        self._whole.keep_encoded(limit)

    def names_of(self, indices: Integer[np.ndarray, " k"]) -> list[str]:
        """See `PictureSet`."""
        return self._whole.names_of(self._positions[indices])


class Split(PictureSet, Sequence):
    """The pictures of one split of a dataset on disk.

    Labels of a dataset are contiguous, those of a split are a range.

    Attributes:
        shards: its files.
    """

    def __init__(
        self,
        name: str,
        shards: Sequence[str],
        labels: Int32[np.ndarray, " n"] | None,
        class_names: Sequence[str],
        image_size: int,
    ):
        """Opens the shards; `labels` are read from the records where None is given."""
        self.name, self.class_names, self.image_size = name, list(class_names), image_size
        self.shards = list(shards)
        self._records = array_record_data_source.ArrayRecordDataSource([files.local(path) for path in self.shards])
        self._kept: dict[int, bytes] | None = None
        if labels is None or len(labels) != len(self):
            labels = np.array([item.label for item in self.examples(range(len(self)))], np.int32)
        self.labels = labels

    def __getstate__(self) -> dict[str, Any]:
        """Leaves the kept records behind, too."""
        return {**super().__getstate__(), "_kept": None if self._kept is None else {}}

    def __len__(self) -> int:
        return len(self._records)

    def __getitem__(self, index: int) -> dict[str, Any]:
        """The picture at `index`: {"image": uint8 [s,s,3], "label": int, "name": "<identity>/<picture>"}."""
        if not -len(self) <= index < len(self):
            raise IndexError(f"{index} is outside the {len(self)} pictures of split {self.name}")
        item = next(self.examples([index % len(self)]))
        return {"image": self._decode(item.image), "label": item.label, "name": item.name}

    def __iter__(self) -> Iterator[dict[str, Any]]:
        return (self[index] for index in range(len(self)))

    def names(self) -> list[str]:
        """The name "<identity>/<picture>" of every picture, read from the records."""
        return [item.name for item in self.examples(range(len(self)))]

    def names_of(self, indices: Integer[np.ndarray, " k"]) -> list[str]:
        """See `PictureSet`."""
        return [item.name for item in self.examples(indices.tolist())]

    def encoded(self, index: int) -> bytes:
        """The picture at `index` as it is stored, JPEG or PNG."""
        return next(self.examples([index])).image

    def keep_encoded(self, limit: int) -> None:
        """See `PictureSet`."""
        if self._kept is None and sum(epath.Path(path).stat().length for path in self.shards) <= limit:
            self._kept = {}

    def _read(self, indices: Int64[np.ndarray, " k"]) -> UInt8[np.ndarray, "k s s 3"]:
        images = np.empty((len(indices), self.image_size, self.image_size, 3), np.uint8)
        for image, content in zip(images, self._encoded(indices.tolist()), strict=True):
            self._decode(content, image)
        return images

    def _encoded(self, indices: list[int]) -> list[bytes]:
        """The pictures as they are stored; from memory where they are kept, which takes a third of the time."""
        if self._kept is None:
            return [item.image for item in self.examples(indices)]
        kept = self._kept
        missing = [index for index in dict.fromkeys(indices) if index not in kept]
        kept.update(zip(missing, (item.image for item in self.examples(missing)), strict=True))
        return [kept[index] for index in indices]

    def _decode(self, content: bytes, image: UInt8[np.ndarray, "s s 3"] | None = None) -> UInt8[np.ndarray, "s s 3"]:
        image = np.empty((self.image_size, self.image_size, 3), np.uint8) if image is None else image
        try:
            pictures.decode_into(content, image)
        except Damaged as error:
            raise Damaged(f"split {self.name} has a picture that {error}: build the dataset again") from error
        return image

    def examples(self, indices: Sequence[int]) -> Iterator[example.Example]:
        """The records at `indices`, read a thousand at a time."""
        for start in range(0, len(indices), 1024):
            yield from map(example.decode, self._records.__getitems__(list(indices[start : start + 1024])))


class SplitSource:
    """A split as a `Source`: its pictures as they are stored, those of an identity together."""

    _AHEAD = 64  # pictures read at a time

    def __init__(self, split: Split):
        """Reads the names of all pictures."""
        classes, labels = np.unique(split.labels, return_inverse=True)
        self._order = np.argsort(labels, kind="stable")
        self._split = split
        self._block: tuple[int, list[bytes]] = -1, []
        self.class_names = [split.class_names[label] for label in classes]
        self.labels = labels[self._order].astype(np.int32)
        self.names = [name.rpartition("/")[2] for name in split.names_of(self._order)]

    def read(self, position: int) -> bytes:
        """The picture at a position, as it is stored; its neighbours are read with it, for they are wanted next."""
        block, row = divmod(position, self._AHEAD)
        if self._block[0] != block:
            indices = self._order[block * self._AHEAD : (block + 1) * self._AHEAD].tolist()
            self._block = block, [item.image for item in self._split.examples(indices)]
        return self._block[1][row]

    def version(self) -> str:
        """See `Source`."""
        return local.stamp(self._split.shards)


class Dataset:
    """A dataset on disk; `dataset[split]` opens one of its `splits`.

    Attributes:
        path: its folder.
        splits: names of the splits, e.g. ("train", "heldout").
        class_names: names of the classes (identities), by label.
        image_size: side of the square pictures, in pixels.
    """

    def __init__(self, path: epath.Path, shards: dict[str, list[str]], class_names: list[str], image_size: int):
        self.path, self.class_names, self.image_size = path, class_names, image_size
        self.splits = tuple(shards)
        self._shards, self._open = shards, {}

    def __getitem__(self, split: str) -> Split:
        """Opens a split; the same object is given out every time.

        Raises:
            UserError: there is no such split, or a label in it is not that of a class.
        """
        if split not in self._shards:
            raise UserError(f"{self.path} has no split {split!r}: it has {', '.join(self.splits)}")
        if split not in self._open:
            shards, labels = self._shards[split], self._labels(split)
            opened = Split(split, shards, labels, self.class_names, self.image_size)
            wrong = opened.labels[(opened.labels < 0) | (opened.labels >= len(self.class_names))]
            if len(wrong):
                raise UserError(
                    f"split {split!r} of {self.path} has label {wrong[0]}, outside 0..{len(self.class_names) - 1}: "
                    "build the dataset again"
                )
            self._open[split] = opened
        return self._open[split]

    def _labels(self, split: str) -> Int32[np.ndarray, " n"] | None:
        path = layout.labels_path(self.path, split)
        if not path.exists():
            return None
        with path.open("rb") as file:
            return np.load(file)


def open(path: files.PathLike, key: str = "dataset") -> Dataset:  # noqa: A001 (read as dataset.open)
    """Opens the dataset in folder `path`.

    Args:
        path: a TFDS directory of labelled pictures, as `prepare` and `synthesize` write it.
        key: the config key that names the folder, for the error line.

    Raises:
        UserError: the folder holds no dataset, or one of another kind, or a shard is missing or damaged.
    """
    path = epath.Path(path)
    if not (path / layout.INFO_FILE).exists():
        raise UserError(
            f"{path} holds no dataset ({layout.INFO_FILE} is missing): "
            f"set --config.{key} to a folder that stage prepare or synthesize wrote"
        )
    info = files.read_json(path / layout.INFO_FILE)
    if info.get("fileFormat") != "array_record":
        raise UserError(f"{path} is stored as {info.get('fileFormat')}: --config.{key} must be in array_record format")
    image_size, num_classes = _features(path, key)
    shards = {split["name"]: _shards(path, info["name"], split) for split in info["splits"]}
    return Dataset(path, shards, _class_names(path, num_classes), image_size)


def _features(path: epath.Path, key: str) -> tuple[int, int]:
    """The pictures' side and the number of classes."""
    try:
        features = files.read_json(path / layout.FEATURES_FILE)["featuresDict"]["features"]
        height, width, channels = map(int, features["image"]["image"]["shape"]["dimensions"])
        num_classes = int(features["label"]["classLabel"]["numClasses"])
    except (OSError, KeyError, ValueError) as error:
        raise UserError(f"{path} has no features image and label: set --config.{key} to a dataset of faces") from error
    if height != width or height <= 0 or channels != 3:
        shape = f"{height}x{width}x{channels}"
        raise UserError(f"{path} holds pictures of {shape}: --config.{key} needs square ones of one size, RGB")
    return height, num_classes


def _shards(path: epath.Path, name: str, split: dict[str, Any]) -> list[str]:
    """Paths of a split's shards, each checked to hold the records it should."""
    lengths = [int(length) for length in split["shardLengths"]]
    template = split.get("filepathTemplate", layout.TEMPLATE)
    paths = []
    for shard, length in enumerate(lengths):
        shard_of = f"{shard:05d}-of-{len(lengths):05d}"
        file = template.format(DATASET=name, SPLIT=split["name"], FILEFORMAT="array_record", SHARD_X_OF_Y=shard_of)
        try:
            found = len(array_record_data_source.ArrayRecordDataSource([files.local(path / file)]))
        except Exception as error:  # array_record raises what its C++ side does
            raise UserError(f"{path / file} is missing or damaged: build the dataset again") from error
        if found != length:
            raise UserError(f"{path / file} holds {found} records, not {length}: build the dataset again")
        paths.append(os.fspath(path / file))
    return paths


def _class_names(path: epath.Path, num_classes: int) -> list[str]:
    file = path / layout.NAMES_FILE
    if not file.exists():
        return [str(label) for label in range(num_classes)]
    names = file.read_text().removesuffix("\n").split("\n")
    if len(names) != num_classes:
        raise UserError(f"{file} names {len(names)} classes, the dataset has {num_classes}: build it again")
    return names
