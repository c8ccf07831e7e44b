"""Trains a small GAN: `python -m tests.multi.gan_worker WORKDIR STEPS`.

With KILL_AT=n the process kills itself in the middle of step n. Prints the losses and a digest of the whole state.
"""

import hashlib
import json
import sys

import jax
from etils import epath

from sface_jax.convert import embedders
from sface_jax.core import cluster
from sface_jax.core.checkpoint import Checkpoints
from sface_jax.core.embedder import Embedder
from sface_jax.data import dataset
from sface_jax.gan import network, train
from tests.gan.toy import config
from tests.multi import launch
from tests.recognition.toy import Toy

NAMES = ("frechet", "intra_authentic", "intra_synthetic", "label_similarity")


def main(workdir: str, steps: str) -> None:
    cluster.join()
    folder = epath.Path(workdir)
    toy = Toy()
    dataset.open = lambda path: {"train": toy}
    launch.die_if_told(train.Trainer)
    watched = {"watch_network": "toy", "watch_every": 2, "watch_classes": 3, "watch_per_class": 5}
    train.run(config(kimg=int(steps) * 8 / 1000, **watched), folder, lambda path: Embedder(path, {}, embedders.pixels))
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
