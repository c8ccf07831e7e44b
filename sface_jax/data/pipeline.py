"""Batches in an order that depends on the seed alone, from any step, over any number of processes and workers.

The records of a split form one endless stream, shuffled anew every epoch. Global batch b is records
[b*B, (b+1)*B) of that stream, and process p of P takes the p-th of its P equal blocks; so the position of a run is its
step, and nothing else needs saving. Random changes to a picture depend on the seed and its place in that stream.
"""

from __future__ import annotations

import atexit
import contextlib
import multiprocessing.process
import os
import signal
import threading
import zlib
from collections.abc import Callable, Iterator
from typing import Any

import grain
import jax
import numpy as np
from absl import flags
from jaxtyping import Int, Int64, UInt8
from ml_collections import ConfigDict

from sface_jax.core.errors import UserError
from sface_jax.data.dataset import PictureSet

GIB = 2**30
_THREADS = os.cpu_count() or 1

Augment = Callable[[UInt8[np.ndarray, "s s 3"], np.random.Generator], UInt8[np.ndarray, "s s 3"]]
"""Changes a picture with draws from the generator; picklable where there are workers."""

_ORDER, _STREAM = zlib.crc32(b"order"), zlib.crc32(b"augment")  # set these draws apart from others of the same seed


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
    encoded_limit: int = 4 * GIB,
    augment: Augment | None = None,
) -> Iterator[dict[str, np.ndarray]]:
    """Yields this process's share of the batches of steps `start_step`, `start_step` + 1, ... without end.

    Args:
        split: the pictures.
        batch_size: pictures in a global batch; a multiple of `process_count`.
        seed: chooses the order.
        start_step: the first step.
        workers: processes that augment, and decode a split over `memory_limit`; with 0 threads of this process do.
            Threads decode as fast, for decoders run outside the interpreter; augmentation in Python wants processes.
        process_index: which process this is.
        process_count: how many share the batch.
        shuffle: False keeps the order of the records.
        memory_limit: a split that takes at most this many bytes decoded is decoded once and kept.
        encoded_limit: one that takes at most this many bytes encoded, over all workers, is read once and kept.
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
    load = _Load(split, _Order(len(split), seed, shuffle), batch_size // process_count, seed, augment)
    # Endless for any purpose; grain's own endless stream is too long for its length to be an int of C's.
    blocks = grain.MapDataset.range(process_index + start_step * process_count, 2**48, process_count).map(load)
    in_memory = split.nbytes <= memory_limit and not (augment and workers)
    if in_memory:
        split.decode_all()
    if in_memory and not augment:
        # A gather takes microseconds: reading ahead would cost more than it saves.
        return iter(blocks.to_iter_dataset(grain.ReadOptions(num_threads=0, prefetch_buffer_size=0)))
    split.keep_encoded(encoded_limit // max(workers, 1))
    threads = 1 if workers else _THREADS
    ahead = blocks.to_iter_dataset(grain.ReadOptions(num_threads=threads, prefetch_buffer_size=2 * threads))
    if workers:
        if not flags.FLAGS.is_parsed():  # grain reads flags; a script or notebook may have none
            flags.FLAGS.mark_as_parsed()
        atexit.register(_end_workers)
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


class _Order:
    """The endless stream of positions in a set: a permutation of them for each epoch, by seed and epoch alone."""

    def __init__(self, count: int, seed: int, shuffle: bool):
        self._count, self._seed, self._shuffle = count, seed, shuffle
        self._epochs: dict[int, Int[np.ndarray, " n"]] = {}

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_epochs": {}}

    def __getitem__(self, places: slice) -> Int64[np.ndarray, " k"]:
        """The positions at places [start, stop) of the stream."""
        epochs, within = np.divmod(np.arange(places.start, places.stop), self._count)
        if self._shuffle:
            for epoch in range(epochs[0], epochs[-1] + 1):
                chosen = epochs == epoch
                within[chosen] = self._permutation(epoch)[within[chosen]]
        return within

    def _permutation(self, epoch: int) -> Int[np.ndarray, " n"]:
        if (found := self._epochs.get(epoch)) is None:
            found = np.random.default_rng((self._seed, _ORDER, epoch)).permutation(self._count)
            # Blocks are made a few at a time, so that besides this epoch only its neighbours are wanted still.
            self._epochs = {near: of for near, of in self._epochs.items() if abs(near - epoch) <= 1} | {epoch: found}
        return found


class _Load(grain.transforms.Map):
    """Turns the number of a block of the stream into its pictures and labels; picklable, for workers."""

    def __init__(self, split: PictureSet, order: _Order, size: int, seed: int, augment: Augment | None):
        self._split, self._order, self._size, self._seed, self._augment = split, order, size, seed, augment

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Comes to a worker, which is to end with the process it works for, also where that was killed."""
        self.__dict__.update(state)
        if parent := multiprocessing.parent_process():
            with contextlib.suppress(ValueError):  # not the main thread
                signal.signal(signal.SIGTERM, signal.SIG_IGN)  # that of a whole job is for the run, which may need it
            threading.Thread(target=_end_with, args=(parent,), name="parent", daemon=True).start()

    def map(self, block: int) -> dict[str, np.ndarray]:
        first = block * self._size  # place of the block's first picture in the stream
        positions = self._order[first : first + self._size]
        labels = np.searchsorted(self._split.classes, self._split.labels[positions])
        images = self._split.images(positions)
        if self._augment:
            for row in range(len(images)):
                images[row] = self._augment(images[row], np.random.default_rng((self._seed, _STREAM, first + row)))
        return {"image": images, "label": labels.astype(np.int32), "index": positions.astype(np.int32)}


def _end_workers() -> None:
    """At the end of the program: Python would ask them to, and wait for ever."""
    for worker in multiprocessing.active_children():
        if worker.daemon:
            worker.kill()


def _end_with(process: multiprocessing.process.BaseProcess) -> None:
    process.join()
    os._exit(1)
