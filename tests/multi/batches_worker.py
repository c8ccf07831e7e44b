"""Takes this process's batches from a step on: `batches_worker DATASET START STEPS BATCH_SIZE`."""

import hashlib
import itertools
import json
import sys

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
    print(json.dumps({"process": jax.process_index(), "batches": told}))


def _told(batch: dict[str, np.ndarray]) -> list[str]:
    """Pixels, label and position of each picture."""
    digests = [hashlib.sha256(np.ascontiguousarray(picture)).hexdigest()[:8] for picture in batch["image"]]
    return [" ".join(map(str, row)) for row in zip(digests, batch["label"], batch["index"], strict=True)]


if __name__ == "__main__":
    main()
