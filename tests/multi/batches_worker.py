"""Takes this process's batches from a step on: `batches_worker DATASET START STEPS BATCH_SIZE`.

With WORKERS_TOLD=FILE in the environment it writes the numbers of its two worker processes there, sends them SIGTERM,
takes more batches and is killed.
"""

import hashlib
import itertools
import json
import multiprocessing
import os
import signal
import sys
from pathlib import Path

import jax
import numpy as np
from ml_collections import ConfigDict

from sface_jax.core import cluster
from sface_jax.data import dataset, pipeline
from sface_jax.data.randaugment import randaugment


def main() -> None:
    cluster.join()
    path, start, steps, batch_size = sys.argv[1], *map(int, sys.argv[2:5])
    split = dataset.open(path)["train"]
    told = {}
    for workers in (0, 1, 2):
        config = ConfigDict({"batch_size": batch_size, "seed": 3, "workers": workers})
        batches = pipeline.from_config(split, config, augment=randaugment(layers=1, magnitude=9))(start)
        told[workers] = [_told(batch) for batch in itertools.islice(batches, steps)]
        if workers == 2 and "WORKERS_TOLD" in os.environ:
            Path(os.environ["WORKERS_TOLD"]).write_text(" ".join(str(p.pid) for p in multiprocessing.active_children()))
            for worker in multiprocessing.active_children():
                os.kill(worker.pid, signal.SIGTERM)
            for _ in range(20):  # more than is read ahead
                next(batches)
            os.kill(os.getpid(), signal.SIGKILL)
    print(json.dumps({"process": jax.process_index(), "batches": told}))


def _told(batch: dict[str, np.ndarray]) -> list[str]:
    """Pixels, label and position of each picture."""
    digests = [hashlib.sha256(np.ascontiguousarray(picture)).hexdigest()[:8] for picture in batch["image"]]
    return [" ".join(map(str, row)) for row in zip(digests, batch["label"], batch["index"], strict=True)]


if __name__ == "__main__":
    main()
