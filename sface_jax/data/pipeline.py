"""Batches in an order that depends on the seed alone, from any step, over any number of processes and workers.

The records of a split form one endless stream, shuffled anew every epoch. Global batch b is records
[b*B, (b+1)*B) of that stream, and process p of P takes the p-th of its P equal blocks; so the position of a run is its
step, and nothing else needs saving. Random changes to a picture depend on the seed and its place in that stream.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator
from typing import Any

import grain
import jax
import numpy as np
from absl import flags
from jaxtyping import UInt8
from ml_collections import ConfigDict

from sface_jax.core.errors import UserError
from sface_jax.data.dataset import PictureSet

GIB = 2**30

Augment = Callable[[UInt8[np.ndarray, "s s 3"], np.random.Generator], UInt8[np.ndarray, "s s 3"]]
"""Changes a picture with draws from the generator; picklable where there are workers."""

_STREAM = zlib.crc32(b"augment")  # sets these draws apart from others of the same seed


def batches(
    split: PictureSet,
    *,
    batch_size: int,
    seed: int,
    start_step: int = 0,
    workers: int = 0,
    process_index: int = 0,
    process_count: int = 1,
    shuffle: bool = True,
    memory_limit: int = GIB,
    augment: Augment | None = None,
) -> Iterator[dict[str, np.ndarray]]:
    """Yields this process's share of the batches of steps `start_step`, `start_step` + 1, ... without end.

    Args:
        split: the pictures.
        batch_size: pictures in a global batch; a multiple of `process_count`.
        seed: chooses the order.
        start_step: the first step.
        workers: processes that augment, and decode a split over `memory_limit`; with 0 threads of this process do.
        process_index: which process this is.
        process_count: how many share the batch.
        shuffle: False keeps the order of the records.
        memory_limit: a split that takes at most this many bytes decoded is decoded once and kept.
        augment: changes each picture.

    Returns:
        An iterator of {"image": uint8 [b,s,s,3], "label": int32 [b], "index": int32 [b]}, b = batch_size /
        process_count. Labels count from 0 to the split's number of classes - 1; index is the position in the split.

    Raises:
        UserError: the batch does not divide among the processes, or the split is empty.
    """
    if batch_size % process_count:
        raise UserError(f"batch_size={batch_size} does not divide among {process_count} processes")
    if not len(split):
        raise UserError(f"split {split.name} is empty")
    order = grain.MapDataset.range(len(split))
    if shuffle:
        order = order.shuffle(seed=int(np.random.SeedSequence(seed).generate_state(1)[0]))
    # Endless for any purpose; grain's own endless stream is too long to be cut into blocks of one.
    stream = order.repeat(2**60 // len(split))
    blocks = stream.batch(batch_size // process_count, batch_fn=np.asarray)
    loaded = blocks.map_with_index(_Load(split, seed, augment))
    mine = loaded[process_index + start_step * process_count :: process_count]
    in_memory = split.nbytes <= memory_limit and not (augment and workers)
    if in_memory:
        split.decode_all()
    if in_memory and not augment:
        # A gather takes microseconds: reading ahead would cost more than it saves.
        return iter(mine.to_iter_dataset(grain.ReadOptions(num_threads=0, prefetch_buffer_size=0)))
    ahead = mine.to_iter_dataset(grain.ReadOptions(num_threads=4, prefetch_buffer_size=8))
    if workers:
        if not flags.FLAGS.is_parsed():  # grain reads flags; a script or notebook may have none
            flags.FLAGS.mark_as_parsed()
        ahead = ahead.mp_prefetch(grain.MultiprocessingOptions(num_workers=workers, per_worker_buffer_size=2))
    return iter(ahead)


def from_config(
    split: PictureSet, config: ConfigDict, augment: Augment | None = None
) -> Callable[[int], Iterator[dict[str, np.ndarray]]]:
    """Gives this process's batches from a step on, as a training stage wants them.

    Args:
        split: the pictures.
        config: `batch_size`, `seed` and `workers`, see `batches`.
        augment: changes each picture.
    """
    return lambda start: batches(
        split,
        batch_size=config.batch_size,
        seed=config.seed,
        start_step=start,
        workers=config.workers,
        process_index=jax.process_index(),
        process_count=jax.process_count(),
        augment=augment,
    )


class _Load(grain.transforms.MapWithIndex):
    """Turns positions in the split into pictures and labels; picklable, for workers."""

    def __init__(self, split: PictureSet, seed: int, augment: Augment | None):
        self._split, self._seed, self._augment = split, seed, augment

    def map_with_index(self, index: int, element: Any) -> dict[str, np.ndarray]:
        labels = np.searchsorted(self._split.classes, self._split.labels[element])
        images = self._split.images(element)
        if self._augment:
            first = index * len(element)  # place of the block's first picture in the endless stream
            for row in range(len(images)):
                images[row] = self._augment(images[row], np.random.default_rng((self._seed, _STREAM, first + row)))
        return {"image": images, "label": labels.astype(np.int32), "index": np.asarray(element, np.int32)}
