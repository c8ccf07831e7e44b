"""Trains a small GAN: `python -m tests.multi.gan_worker WORKDIR STEPS [CHANGES]`, CHANGES to the config as JSON.

With KILL_AT=n the process kills itself in the middle of step n. Prints the losses and a digest of the whole state.
"""

import hashlib
import json
import os
import sys

import jax
from etils import epath

from sface_jax.convert import embedders
from sface_jax.core import cluster, mesh
from sface_jax.core.checkpoint import Checkpoints
from sface_jax.core.embedder import Embedder
from sface_jax.data import dataset
from sface_jax.gan import network, train
from tests.gan.toy import config
from tests.multi import launch
from tests.recognition.toy import Toy

BATCH = 32
NAMES = ("frechet", "intra_authentic", "intra_synthetic", "label_similarity")


def main(workdir: str, steps: str, changes: str = "{}") -> None:
    os.environ["XLA_FLAGS"] += " --xla_backend_optimization_level=0"  # compiled in half the time
    cluster.join()
    mesh.SMALL = 0
    folder = epath.Path(workdir)
    toy = Toy()
    dataset.open = lambda path: {"train": toy}
    launch.die_if_told(train.Trainer)
    # a part for each of 8 devices, of the path lengths too
    size = {"batch_size": BATCH, "kimg": int(steps) * BATCH / 1000}
    watched = {"watch_network": "toy", "watch_every": 2, "watch_classes": 3, "watch_per_class": 5}
    settings = config(**size, **watched, **json.loads(changes))
    train.run(settings, folder, lambda path: Embedder(path, {}, embedders.pixels))
    log = [json.loads(line) for line in (folder / "gan/metrics.jsonl").read_text().splitlines()]
    checkpoints = Checkpoints(folder / "gan/checkpoints")
    leaves = jax.tree.leaves(jax.device_get(checkpoints.read()))
    digest = hashlib.sha256(b"".join(leaf.tobytes() for leaf in leaves)).hexdigest()
    losses = [[record["step"], record["g_loss"], record["d_loss"]] for record in log if "g_loss" in record]
    watched = [
        [record["step"], *(record[f"watch/{name}"] for name in NAMES)] for record in log if "watch/kernel" in record
    ]
    best = json.loads((folder / "gan/best.json").read_text())["step"], network.load(folder / "gan")[2]["step"]
    told = {"losses": losses, "watched": watched, "best": best, "digest": digest, "devices": jax.device_count()}
    print(json.dumps(told))


if __name__ == "__main__":
    main(*sys.argv[1:])
