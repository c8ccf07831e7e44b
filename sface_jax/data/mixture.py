"""What a recogniser is trained on: a split, its first classes and pictures of each, or several datasets as one."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np
from jaxtyping import Int64, Integer, UInt8
from ml_collections import ConfigDict

from sface_jax.core.errors import UserError
from sface_jax.data import dataset
from sface_jax.data.dataset import PictureSet

SYNTHETIC = "synthetic-"  # how the names of synthetic classes begin


class Mixture(PictureSet):
    """Several sets of pictures as one; the pictures of the first come first."""

    def __init__(self, parts: Sequence[PictureSet], labels: str):
        """Joins the sets.

        Args:
            parts: one or more, with pictures of one size.
            labels: "same": label i is one identity in all of them, as it is in a set drawn from a generator that was
                conditioned on these identities. "apart": no identity is in two; labels of the second begin after the
                classes of the first, and so on.

        Raises:
            UserError: the pictures' sizes differ, or `labels` is another word.
        """
        if len(sizes := sorted({part.image_size for part in parts})) > 1:
            raise UserError(
                f"pictures of {' and '.join(map(str, sizes))} pixels cannot be mixed: prepare them at one size"
            )
        if labels == "same":
            offsets = [0] * len(parts)
            _check_names(parts)
            self.class_names = max((part.class_names for part in parts), key=len)
        elif labels == "apart":
            offsets = [0, *itertools.accumulate(len(part.class_names) for part in parts)][:-1]
            self.class_names = [name for part in parts for name in part.class_names]
        else:
            raise UserError(f'config.extra_labels is {labels!r}: choose "same" or "apart"')
        self.name, self.image_size = " + ".join(part.name for part in parts), parts[0].image_size
        moved = [part.labels + offset for part, offset in zip(parts, offsets, strict=True)]
        self.labels = np.concatenate(moved).astype(np.int32)
        self._parts, self._ends = list(parts), np.cumsum([len(part) for part in parts])

    def keep_encoded(self, limit: int) -> None:
        """See `PictureSet`; each set gets an equal share of the limit."""
        for part in self._parts:
            part.keep_encoded(limit // len(self._parts))

    def names_of(self, indices: Integer[np.ndarray, " k"]) -> list[str]:
        """See `PictureSet`; a name begins with the number of its set, counted from 0."""
        found = []
        for index in indices:
            number = int(np.searchsorted(self._ends, index, side="right"))
            part = self._parts[number]
            found += [f"{number}:{name}" for name in part.names_of(np.array([index - self._ends[number] + len(part)]))]
        return found

    def _read(self, indices: Int64[np.ndarray, " k"]) -> UInt8[np.ndarray, "k s s 3"]:
        images = np.empty((len(indices), self.image_size, self.image_size, 3), np.uint8)
        holder = np.searchsorted(self._ends, indices, side="right")
        for number, part in enumerate(self._parts):
            rows = np.flatnonzero(holder == number)
            images[rows] = part.images(indices[rows] - (self._ends[number] - len(part)))
        return images


def _check_names(parts: Sequence[PictureSet]) -> None:
    """Refuses to take two people for one: a label has one name in all sets, but for synthetic ones'."""
    authentic = [part.class_names for part in parts if not part.class_names[0].startswith(SYNTHETIC)]
    for names in authentic[1:]:
        for first, second in zip(authentic[0], names, strict=False):
            if first != second:
                raise UserError(
                    f"{first!r} and {second!r} have one label in two datasets of other people: "
                    "set --config.extra_labels=apart"
                )


def training_set(config: ConfigDict) -> PictureSet:
    """Opens what a recogniser is to be trained on.

    Args:
        config: `dataset` and `split`; `classes`, above 0 the first that many identities of `dataset`;
            `pictures_per_class`, above 0 the first that many pictures of each; `extra_datasets`, folders whose split of
            that name is mixed in whole; `extra_labels`, see `Mixture`.

    Raises:
        UserError: a dataset is missing or damaged, they do not suit each other, there are not that many identities, or
            no class has that many pictures.
    """
    pictures: PictureSet = dataset.open(config.dataset)[config.split]
    if count := config.classes:
        if (known := pictures.num_classes) < count:
            raise UserError(f"config.classes={count}, but {config.dataset} has {known}: set a smaller number")
        pictures = pictures.first_classes(count)
    if count := config.pictures_per_class:
        if (most := np.bincount(pictures.labels).max(initial=0)) < count:
            raise UserError(
                f"config.pictures_per_class={count}, but no identity of {config.dataset} has more than {most}: "
                "draw more with --config.per_class of configs/synthesize.py, or set a smaller number"
            )
        pictures = pictures.first_of_each_class(count)
    if not config.extra_datasets:
        return pictures
    extra = [dataset.open(path, "extra_datasets")[config.split] for path in config.extra_datasets]
    return Mixture([pictures, *extra], config.extra_labels)
