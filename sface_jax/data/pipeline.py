"""Batches in an order that depends on the seed alone, from any step, over any number of processes and workers.

The records of a split form one endless stream, shuffled anew every epoch. Global batch b is records
[b*B, (b+1)*B) of that stream, and process p of P takes the p-th of its P equal blocks; so the position of a run is its
step, and nothing else needs saving.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import grain
import jax
import numpy as np
from absl import flags
from ml_collections import ConfigDict

from sface_jax.core.errors import UserError
from sface_jax.data.dataset import Split

GIB = 2**30


def batches(
    split: Split,
    *,
    batch_size: int,
    seed: int,
    start_step: int = 0,
    workers: int = 0,
    process_index: int = 0,
    process_count: int = 1,
    shuffle: bool = True,
    memory_limit: int = GIB,
) -> Iterator[dict[str, np.ndarray]]:
    """Yields this process's share of the batches of steps `start_step`, `start_step` + 1, ... without end.

    Args:
        split: the pictures.
        batch_size: pictures in a global batch; a multiple of `process_count`.
        seed: chooses the order.
        start_step: the first step.
        workers: processes that decode, for a split over `memory_limit`; with 0 threads of this process do.
        process_index: which process this is.
        process_count: how many share the batch.
        shuffle: False keeps the order of the records.
        memory_limit: a split that takes at most this many bytes decoded is decoded once and kept.

    Returns:
        An iterator of {"image": uint8 [b,s,s,3], "label": int32 [b]}, b = batch_size / process_count; labels count
        from 0 to the split's number of classes - 1.

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
    mine = blocks[process_index + start_step * process_count :: process_count].map(_Load(split))
    if split.nbytes <= memory_limit:
        split.decode_all()
        # A gather takes microseconds: reading ahead would cost more than it saves.
        return iter(mine.to_iter_dataset(grain.ReadOptions(num_threads=0, prefetch_buffer_size=0)))
    ahead = mine.to_iter_dataset(grain.ReadOptions(num_threads=4, prefetch_buffer_size=8))
    if workers:
        if not flags.FLAGS.is_parsed():  # grain reads flags; a script or notebook may have none
            flags.FLAGS.mark_as_parsed()
        ahead = ahead.mp_prefetch(grain.MultiprocessingOptions(num_workers=workers, per_worker_buffer_size=2))
    return iter(ahead)


def from_config(split: Split, config: ConfigDict) -> Callable[[int], Iterator[dict[str, np.ndarray]]]:
    """Gives this process's batches from a step on, as a training stage wants them.

    Args:
        split: the pictures.
        config: `batch_size`, `seed` and `workers`, see `batches`.
    """
    return lambda start: batches(
        split,
        batch_size=config.batch_size,
        seed=config.seed,
        start_step=start,
        workers=config.workers,
        process_index=jax.process_index(),
        process_count=jax.process_count(),
    )


class _Load(grain.transforms.Map):
    """Turns positions in the split into pictures and labels; picklable, for workers."""

    def __init__(self, split: Split):
        self._split = split

    def map(self, element: Any) -> dict[str, np.ndarray]:
        labels = np.searchsorted(self._split.classes, self._split.labels[element])
        return {"image": self._split.images(element), "label": labels.astype(np.int32)}
