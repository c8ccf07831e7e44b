"""The stage "compile": the GAN's programs ahead of time, for devices at hand or not, with what they cost."""

from __future__ import annotations

import os
import time
from typing import Any

import jax
import numpy as np
from absl import logging
from etils import epath
from jax.sharding import AxisType, Mesh
from ml_collections import ConfigDict

from sface_jax.core import costs, files
from sface_jax.core import mesh as meshes
from sface_jax.core.errors import UserError
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
    mesh = _mesh(config.topology)
    config = ConfigDict({**config.to_dict(), "batch_size": config.batch_per_device * mesh.size})
    trainer = Trainer(config, np.ones(config.classes, np.int64), config.image_size, mesh)
    counted = programs.counted(trainer)
    place = f"{mesh.size} x {mesh.devices.flat[0].device_kind}"
    logging.info(
        "%s pixels, %s classes, %s pictures on %s", config.image_size, config.classes, config.batch_size, place
    )
    columns = ("program", "compile s", "counted", "compiled", "ratio", "memory", "collectives")
    logging.info("  %-14s %9s %10s %10s %6s %9s %11s   (GFLOP a picture; GiB and MiB a chip)", *columns)
    told = {}
    for name, lower in programs.lowered(trainer).items():
        began = time.perf_counter()
        cost = costs.of(_compile(lower, name, config.topology))
        row = told[name] = {
            "compile_seconds": time.perf_counter() - began,
            "counted_gflop_per_picture": counted[name] / 1e9,
            "compiled_gflop_per_picture": cost["flops"] / config.batch_per_device / 1e9,
            "memory_bytes": cost["memory"],
            "collective_bytes": cost["collectives"],
        }
        row["ratio"] = row["compiled_gflop_per_picture"] / row["counted_gflop_per_picture"]
        logging.info(
            "  %-14s %9.1f %10.2f %10.2f %6.3f %9.2f %11.1f",
            *(name, row["compile_seconds"], row["counted_gflop_per_picture"], row["compiled_gflop_per_picture"]),
            *(row["ratio"], row["memory_bytes"] / 2**30, row["collective_bytes"] / 2**20),
        )
    files.write_json(workdir / "compile" / "compile.json", {"devices": place, "programs": told})
    return told


def _mesh(topology: str) -> Mesh:
    if not topology:
        return meshes.make_mesh()
    os.environ.setdefault("TPU_SKIP_MDS_QUERY", "1")
    from jax.experimental import topologies

    try:
        devices = topologies.get_topology_desc(platform="tpu", topology_name=topology).devices
    except Exception as error:  # the compiler may be missing, or not know the name; its errors have no common kind
        reason = " ".join(str(error).split())[:200]
        raise UserError(
            f"no compiler for {topology!r} ({reason}): install '.[tpu]', or set --config.topology"
        ) from error
    return Mesh(np.array(devices).reshape(-1, 1), ("data", "model"), axis_types=(AxisType.Auto,) * 2)


def _compile(lower: Any, name: str, topology: str) -> jax.stages.Compiled:
    try:
        return lower().compile()
    except jax.errors.JaxRuntimeError as error:
        if "RESOURCE_EXHAUSTED" not in str(error):
            raise
        raise UserError(f"{name} does not fit the memory of a chip of {topology}: lower batch_per_device") from error
