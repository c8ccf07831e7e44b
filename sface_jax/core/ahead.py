"""Programs compiled ahead of time, for devices at hand or not, and what they cost there."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np
from absl import logging
from jax.sharding import AxisType, Mesh

from sface_jax.core import costs
from sface_jax.core import mesh as meshes
from sface_jax.core.errors import UserError

GIB, MIB = 2**30, 2**20


def mesh(topology: str) -> Mesh:
    """A mesh of all chips of a TPU slice that need not be at hand, or of the devices that are.

    Args:
        topology: as libtpu names it, such as "v5e:4x4"; "" is the devices at hand.

    Raises:
        UserError: there is no compiler for it.
    """
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
    return Mesh(np.array(devices).reshape(-1, 1), meshes.ALL, axis_types=(AxisType.Auto,) * 2)


def tell(
    programs: Mapping[str, Callable[[], jax.stages.Lowered]], counted: Mapping[str, float], pictures: int
) -> dict[str, dict[str, Any]]:
    """Compiles programs, and logs a table of their costs.

    Args:
        programs: name -> function that lowers it.
        counted: name -> floating-point operations for a picture, counted by hand.
        pictures: in a batch, on one device.

    Returns:
        name -> "compile_seconds", "counted_gflop_per_picture", "compiled_gflop_per_picture", their "ratio",
        "memory_bytes" and "collective_bytes" of a device, and the "collectives" of each kind.

    Raises:
        UserError: a program does not fit the memory of a device.
    """
    columns = ("program", "compile s", "counted", "compiled", "ratio", "memory", "collectives")
    logging.info("  %-14s %9s %10s %10s %6s %9s %11s   (GFLOP a picture; GiB and MiB a device)", *columns)
    told = {}
    for name, lower in programs.items():
        began = time.perf_counter()
        made = compiled(lower, name)
        cost = costs.of(made)
        row = told[name] = {
            "compile_seconds": time.perf_counter() - began,
            "counted_gflop_per_picture": counted[name] / 1e9,
            "compiled_gflop_per_picture": cost["flops"] / pictures / 1e9,
            "memory_bytes": cost["memory"],
            "collective_bytes": cost["collectives"],
            "collectives": costs.collectives(made),
        }
        row["ratio"] = row["compiled_gflop_per_picture"] / row["counted_gflop_per_picture"]
        logging.info(
            "  %-14s %9.1f %10.2f %10.2f %6.3f %9.2f %11.1f",
            *(name, row["compile_seconds"], row["counted_gflop_per_picture"], row["compiled_gflop_per_picture"]),
            *(row["ratio"], row["memory_bytes"] / GIB, row["collective_bytes"] / MIB),
        )
    return told


def compiled(lower: Callable[[], jax.stages.Lowered], name: str, key: str = "batch_per_device") -> jax.stages.Compiled:
    """Compiles a program.

    Args:
        lower: lowers it.
        name: of the program, and
        key: of the config that makes it smaller, for the error line.

    Raises:
        UserError: it does not fit the memory of a device.
    """
    try:
        return lower().compile()
    except jax.errors.JaxRuntimeError as error:
        if "RESOURCE_EXHAUSTED" not in str(error):
            raise
        raise UserError(f"{name} does not fit the memory of a device: lower {key}") from error
