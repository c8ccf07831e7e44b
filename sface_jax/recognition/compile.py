"""The stage "compile_recognition": a recogniser's programs ahead of time, with what they cost."""

from __future__ import annotations

from typing import Any

from absl import logging
from etils import epath
from ml_collections import ConfigDict

from sface_jax.core import ahead, files
from sface_jax.recognition import programs
from sface_jax.recognition.trainer import Trainer


def run(config: ConfigDict, workdir: epath.Path) -> dict[str, Any]:
    """Prints a table, and the collectives of each program, and writes `compile/recognition.json`.

    Args:
        config: see configs/compile.py.
        workdir: gets the file.

    Raises:
        UserError: there is no compiler for the topology, or a program does not fit its memory.
    """
    mesh = ahead.mesh(config.topology)
    config = ConfigDict({**config.to_dict(), "batch_size": config.batch_per_device * mesh.size})
    trainer = Trainer(config, config.classes, config.batch_size, config.image_size, mesh)
    place = f"{mesh.size} x {mesh.devices.flat[0].device_kind}"
    logging.info(
        "%s, %s pixels, %s classes, %s pictures on %s",
        *(config.network, config.image_size, config.classes, config.batch_size, place),
    )
    told = ahead.tell(programs.lowered(trainer), programs.counted(trainer), config.batch_per_device)
    for name, row in told.items():
        for kind, of in row["collectives"].items():
            logging.info(
                "  %s: %s x %s, %.2f MiB a device, the largest %s",
                *(name, of["count"], kind, of["bytes"] / ahead.MIB, of["largest"]),
            )
    files.write_json(workdir / "compile" / "recognition.json", {"devices": place, "programs": told})
    return told
