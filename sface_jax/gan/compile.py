"""The stage "compile": the GAN's programs ahead of time, for devices at hand or not, with what they cost."""

from __future__ import annotations

from typing import Any

import numpy as np
from etils import epath
from ml_collections import ConfigDict

from sface_jax.core import ahead
from sface_jax.gan import programs
from sface_jax.gan.trainer import Trainer


def run(config: ConfigDict, workdir: epath.Path) -> dict[str, Any]:
    """Prints a table and writes `compile/<name>.json`; see `ahead.tell`.

    Args:
        config: see configs/compile.py.
        workdir: gets the file.

    Raises:
        UserError: there is no compiler for the topology, or a key does not suit.
    """
    mesh = ahead.mesh(config.topology, config.mesh.model)
    config = ConfigDict({**config.to_dict(), "batch_size": config.batch_per_device * mesh.size})
    trainer = Trainer(config, np.ones(config.classes, np.int64), config.image_size, mesh)
    facts = {"image_size": config.image_size, "classes": config.classes, "batch_size": config.batch_size}
    return ahead.tell(config, workdir, mesh, programs.programs(trainer), **facts)
