"""Trains the toy recogniser: `python -m tests.multi.recognition_worker WORKDIR TEACHER STEPS [CHANGES]`.

CHANGES to the config are JSON. With KILL_AT=n the process kills itself in the middle of step n. Prints the losses and a
digest of the parameters.
"""

import hashlib
import json
import os
import sys

import jax
from etils import epath

from sface_jax.core import cluster, mesh
from sface_jax.data import dataset, layout
from sface_jax.recognition import network, train
from sface_jax.recognition.trainer import Trainer
from tests.multi import launch
from tests.recognition.toy import Toy, config


def main(workdir: str, teacher: str, steps: str, changes: str = "{}") -> None:
    os.environ["XLA_FLAGS"] += " --xla_backend_optimization_level=0"  # compiled in half the time
    cluster.join()
    mesh.SMALL = 0
    folder = epath.Path(workdir)
    (folder / layout.INFO_FILE).touch()
    toy = Toy()
    dataset.open = lambda path, *key: {"train": toy}
    launch.die_if_told(Trainer)
    options = {"steps": int(steps), "checkpoint_every": 4, "dropout": 0.2, "teacher": teacher}
    options |= {"distillation_weight": 100.0, "augmentations": ("flip", "translate", "light")}
    train.run(config(folder, **options, **json.loads(changes)), folder)
    log = [json.loads(line) for line in (folder / "recognition/toy/metrics.jsonl").read_text().splitlines()]
    leaves = jax.tree.leaves(jax.device_get(network.load(folder / "recognition/toy").variables))
    digest = hashlib.sha256(b"".join(leaf.tobytes() for leaf in leaves)).hexdigest()
    losses = [[record["step"], record["loss"]] for record in log]
    print(json.dumps({"losses": losses, "digest": digest, "devices": jax.device_count()}))


if __name__ == "__main__":
    main(*sys.argv[1:])
