"""The stage "benchmark_loader": how fast the input pipeline delivers, against decoding alone."""

from __future__ import annotations

import concurrent.futures
import itertools
import multiprocessing
import os
import statistics
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from absl import logging
from etils import epath
from ml_collections import ConfigDict

from sface_jax.core import files, pictures
from sface_jax.data import dataset, pipeline
from sface_jax.data.dataset import Split

_IN_MEMORY = 4096  # records that decoding alone goes through again and again
_AHEAD = 32  # batches left out before the clock starts: some were made while others were timed


def run(config: ConfigDict, workdir: epath.Path) -> dict[str, Any]:
    """Prints a table and writes `benchmark/loader.json`.

    Decoding alone is a loop over encoded pictures in memory: with 0 workers in one process, with a thread a core, as
    the pipeline has them; with n workers in n processes of one thread. The pipeline also shuffles, reads, gathers
    batches and hands them over.

    Args:
        config: see configs/benchmark.py.
        workdir: gets the file.

    Raises:
        UserError: there is no dataset.
    """
    split = dataset.open(config.dataset)[config.split]
    count = -(-config.pictures // config.batch_size) * config.batch_size
    contents = [split.encoded(index) for index in range(min(len(split), _IN_MEMORY))]
    measures: dict[str, Callable[[], float]] = {}
    pools = []
    for workers in config.worker_counts:
        processes = max(workers, 1)
        if workers:
            pool = concurrent.futures.ProcessPoolExecutor(
                workers, multiprocessing.get_context("spawn"), _hold, (contents, split.image_size)
            )
        else:
            processes = os.cpu_count() or 1
            _hold(contents, split.image_size)
            pool = concurrent.futures.ThreadPoolExecutor(processes)
        pools.append(pool)
        measures[f"decode_{workers}"] = _alone(pool, processes, count)
        measures[f"pipeline_{workers}"] = _pipeline(split, config, workers, count)
    rates: dict[str, list[float]] = {name: [] for name in measures}
    for number in range(config.rounds + 1):
        for name, measure in measures.items():
            rate = count / measure()
            if number:  # the first round starts processes and reads the files
                rates[name].append(rate)
    for pool in pools:
        pool.shutdown()
    told = _table(split, config, {name: statistics.median(of) for name, of in rates.items()})
    files.write_json(workdir / "benchmark" / "loader.json", told)
    return told


def _table(split: Split, config: ConfigDict, median: dict[str, float]) -> dict[str, Any]:
    logging.info(
        "%s pictures of %s pixels, batch %s: pictures/s, medians of %s rounds",
        *(len(split), split.image_size, config.batch_size, config.rounds),
    )
    told: dict[str, Any] = {"dataset": str(config.dataset), "batch_size": config.batch_size, "cores": os.cpu_count()}
    for workers in config.worker_counts:
        alone, delivered = median[f"decode_{workers}"], median[f"pipeline_{workers}"]
        told[f"workers_{workers}"] = {"decode": alone, "pipeline": delivered, "ratio": delivered / alone}
        logging.info(
            "  %s: decoding alone %8.0f, pipeline %8.0f, %.2f of it",
            f"{workers} workers" if workers else "threads  ",
            *(alone, delivered, delivered / alone),
        )
    return told


def _pipeline(split: Split, config: ConfigDict, workers: int, count: int) -> Callable[[], float]:
    """Gives a function that takes as many pictures from the pipeline, and returns the seconds it took."""
    batches = pipeline.batches(split, batch_size=config.batch_size, seed=0, workers=workers, memory_limit=0)

    def measure() -> float:
        for _ in itertools.islice(batches, _AHEAD):
            pass
        began = time.perf_counter()
        for _ in itertools.islice(batches, count // config.batch_size):
            pass
        return time.perf_counter() - began

    return measure


def _alone(pool: concurrent.futures.Executor, processes: int, count: int) -> Callable[[], float]:
    """Gives a function that decodes as many pictures, and returns the seconds it took."""

    def measure() -> float:
        began = time.perf_counter()
        list(pool.map(_decode, [count // processes] * processes))
        return time.perf_counter() - began

    return measure


_held: tuple[Sequence[bytes], int] = (), 0


def _hold(contents: Sequence[bytes], size: int) -> None:
    """Keeps what this process is to decode."""
    global _held
    _held = contents, size


def _decode(count: int) -> None:
    contents, size = _held
    image = np.empty((size, size, 3), np.uint8)
    for content in itertools.islice(itertools.cycle(contents), count):
        pictures.decode_into(content, image)
