"""The stage "compile": the GAN's programs ahead of time, for devices at hand or not, with what they cost."""

from __future__ import annotations

from typing import Any

import numpy as np
from absl import logging
from etils import epath
from ml_collections import ConfigDict

from sface_jax.core import ahead, files
from sface_jax.gan import programs
from sface_jax.gan.trainer import Trainer


def run(config: ConfigDict, workdir: epath.Path) -> dict[str, Any]:
    """Prints a table and writes `compile/compile.json`.

    Args:
        config: see configs/compile.py.
        workdir: gets the file.

    Raises:
        UserError: there is no compiler for the topology, or a program does not fit its memory.
    """
    mesh = ahead.mesh(config.topology)
    config = ConfigDict({**config.to_dict(), "batch_size": config.batch_per_device * mesh.size})
    trainer = Trainer(config, np.ones(config.classes, np.int64), config.image_size, mesh)
    place = f"{mesh.size} x {mesh.devices.flat[0].device_kind}"
    logging.info(
        "%s pixels, %s classes, %s pictures on %s", config.image_size, config.classes, config.batch_size, place
    )
    told = ahead.tell(programs.lowered(trainer), programs.counted(trainer), config.batch_per_device)
    files.write_json(workdir / "compile" / "compile.json", {"devices": place, "programs": told})
    return told
