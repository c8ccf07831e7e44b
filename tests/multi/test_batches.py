"""Batches are a function of the step: the same over any number of processes and of workers, from any step on."""

import contextlib
import time
from pathlib import Path

import numpy as np
import pytest

from sface_jax.core import pictures
from sface_jax.data import records
from sface_jax.data.example import Example
from tests.multi.launch import killed, launch

PICTURES, BATCH, STEPS = 21, 8, 9  # more than three epochs


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("set") / "faces"
    images = np.random.default_rng(0).integers(0, 256, (PICTURES, 8, 8, 3)).astype(np.uint8)
    examples = [Example(pictures.encode_png(image), i % 3, f"{i % 3}/{i}") for i, image in enumerate(images)]
    for shard in range(2):
        records.write_shard(path, "train", shard, 2, examples[shard::2])
    records.finish(path, image_size=8, class_names=["0", "1", "2"], splits={"train": 2})
    return path


def test_the_same_global_batches_for_1_2_and_4_processes_and_0_1_and_2_workers_resumed_anywhere(folder):
    whole = launch("batches_worker", folder, 0, STEPS, BATCH)[0]["batches"]
    assert whole["0"] == whole["1"] == whole["2"]
    expected = whole["0"]
    assert [len(batch) for batch in expected] == [BATCH] * STEPS
    stream = [picture.split()[2] for batch in expected for picture in batch]
    for epoch in range(3):  # every picture once an epoch
        assert sorted(map(int, stream[epoch * PICTURES : (epoch + 1) * PICTURES])) == list(range(PICTURES))
    # Nothing is handed over but the step: 2 processes go on at step 3, 4 of them at step 5.
    for processes, start in ((2, 3), (4, 5)):
        shares = launch("batches_worker", folder, start, STEPS - start, BATCH, processes=processes)
        assert [share["process"] for share in shares] == list(range(processes))
        for workers in "012":
            joined = [sum(parts, []) for parts in zip(*(share["batches"][workers] for share in shares), strict=True)]
            assert joined == expected[start:]


def test_workers_outlive_sigterm_but_not_the_process_they_work_for(folder, tmp_path):
    told, end = tmp_path / "workers", time.monotonic() + 60
    killed("batches_worker", folder, 0, 2, BATCH, WORKERS_TOLD=str(told))  # a batch of either worker: both are up
    workers = [Path("/proc", pid, "stat") for pid in told.read_text().split()]
    assert len(workers) == 2
    while any(map(_runs, workers)):
        assert time.monotonic() < end
        time.sleep(0.1)


def _runs(stat: Path) -> bool:
    with contextlib.suppress(OSError):
        return stat.read_text().rpartition(") ")[2][0] != "Z"  # nobody may be there to ask how it ended
    return False
