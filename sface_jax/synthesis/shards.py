"""The shards of the dataset: which picture lies where, and writing them."""

from __future__ import annotations

import dataclasses
import io
import itertools
from collections.abc import Iterator

import numpy as np
from etils import epath
from jaxtyping import Int

from sface_jax.core import files
from sface_jax.data import records
from sface_jax.data.example import Example
from sface_jax.synthesis.attempts import Taken

SPLIT = "train"


def class_name(label: int) -> str:
    """The neutral name of a class: a dataset that is handed on must not carry the names of authentic people."""
    return f"synthetic-{label:06d}"


@dataclasses.dataclass(frozen=True)
class Plan:
    """Which picture lies where: sample s is picture s % per_class of class s // per_class."""

    classes: int
    per_class: int
    shard_size: int

    @property
    def total(self) -> int:
        """Pictures in all."""
        return self.classes * self.per_class

    @property
    def shards(self) -> int:
        """Number of shards; the last one may be smaller."""
        return -(-self.total // self.shard_size)

    def samples(self, shard: int) -> tuple[Int[np.ndarray, " n"], Int[np.ndarray, " n"]]:
        """Labels and indices of a shard's pictures, in order."""
        start = shard * self.shard_size
        samples = np.arange(start, min(start + self.shard_size, self.total))
        return samples // self.per_class, samples % self.per_class


class Shards:
    """The shards of the dataset on disk.

    Attributes:
        plan: which picture lies where.
    """

    def __init__(self, output: epath.Path, plan: Plan, rejecting: bool, png_folders: bool):
        """Notes what belongs to a shard: with rejection its attempts, with `png_folders` a file of each picture."""
        self.plan = plan
        self._output, self._rejecting, self._png_folders = output, rejecting, png_folders

    def path(self, shard: int) -> epath.Path:
        """Where a shard lies."""
        return records.shard_path(self._output, SPLIT, shard, self.plan.shards)

    def attempts_path(self, shard: int) -> epath.Path:
        """Where the attempts of its pictures lie: int16 [n], see `attempts.Taken`."""
        return self._output / "attempts" / f"{SPLIT}-{shard:05d}-of-{self.plan.shards:05d}.npy"

    def exists(self, shard: int) -> bool:
        """Whether a shard is there, and so whole."""
        return self.path(shard).exists() and (not self._rejecting or self.attempts_path(shard).exists())

    def write(self, shard: int, stream: Iterator[Taken]) -> None:
        """Writes a shard of the next pictures of a stream."""
        records.write_shard(self._output, SPLIT, shard, self.plan.shards, self._examples(shard, stream))

    def _examples(self, shard: int, stream: Iterator[Taken]) -> Iterator[Example]:
        labels, indices = self.plan.samples(shard)
        tries = np.zeros(len(labels), np.int16)
        for row, taken in enumerate(itertools.islice(stream, len(labels))):
            label = int(labels[row])
            name = f"{class_name(label)}/{indices[row]:06d}"
            if self._png_folders:
                files.write_bytes(self._output / "png" / f"{name}.png", taken.png)
            tries[row] = taken.attempt
            yield Example(taken.png, label, name)
        if self._rejecting:  # before the shard gets its name
            buffer = io.BytesIO()
            np.save(buffer, tries)
            files.write_bytes(self.attempts_path(shard), buffer.getvalue())

    def counts(self) -> dict[str, int]:
        """How many pictures of the whole dataset were accepted at once, drawn again, or kept though none passed."""
        paths = [self.attempts_path(shard) for shard in range(self.plan.shards)]
        tries = np.concatenate([np.load(io.BytesIO(path.read_bytes())) for path in paths])
        sums = {"accepted_at_once": tries == 0, "redrawn": tries > 0, "forced": tries < 0}
        return {name: int(which.sum()) for name, which in sums.items()}
