"""The stage "compile_matching": the matching engine's program ahead of time, and what all of it costs there."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from absl import logging
from etils import epath
from jax.sharding import Mesh
from ml_collections import ConfigDict

from sface_jax.core import ahead, costs, files
from sface_jax.privacy import tiles

PASSES = 6  # products of bfloat16 that stand for one of float32 on a TPU


def run(config: ConfigDict, workdir: epath.Path) -> dict[str, Any]:
    """Tells memory, collectives and the least time of the whole, and writes `compile/matching.json`.

    The least time counts the products of the scores, six in bfloat16 for one in float32, and the table of counts as
    a product of 8-bit integers, at the peak of the chip: what is read, compared and sorted beside them is not in it.

    Args:
        config: see configs/compile.py.
        workdir: gets the file.

    Raises:
        UserError: there is no compiler for the topology, or the program does not fit its memory.
    """
    devices = ahead.mesh(config.topology).devices.reshape(-1)
    mesh = Mesh(devices, ("tiles",))
    place = f"{mesh.size} x {devices[0].device_kind}"
    cells = config.bins + config.thresholds
    compare = tiles.compiled(mesh, config.bins, config.thresholds, exclude_self=False, gallery_side=True)
    rows = config.queries_per_device * mesh.size
    shared, everywhere = tiles.placed(mesh)

    def lower() -> jax.stages.Lowered:
        queries, gallery = _tile(rows, config.dimensions, shared), _tile(config.tile, config.dimensions, everywhere)
        nearest = jax.tree.map(lambda x: _shape(x.shape, x.dtype, shared), tiles.nothing(rows, config.top_k))
        return compare.lower(queries, nearest, gallery, _shape((config.thresholds,), jnp.float32, everywhere))

    compiled = ahead.compiled(lower, "matching", "queries_per_device")
    cost = costs.of(compiled)
    steps = -(-config.n // rows) * -(-config.m // config.tile)
    comparisons = steps * config.queries_per_device * config.tile  # of one chip, padding included
    scores = comparisons * 2 * config.dimensions * PASSES / (1e12 * config.peak_tflops)
    counts = comparisons * 2 * cells / (1e12 * config.peak_int8_tops)
    told = {
        "devices": place,
        "memory_bytes": cost["memory"],
        "collective_bytes": cost["collectives"],
        "steps": steps,
        "scores_seconds": scores,
        "counts_seconds": counts,
        "least_seconds": scores + counts,
    }
    logging.info(
        "%s x %s pictures of %s dimensions on %s: %s steps of %s x %s",
        *(f"{config.n:,}", f"{config.m:,}", config.dimensions, place, steps, f"{rows:,}", f"{config.tile:,}"),
    )
    logging.info(
        "  a chip: %.2f GiB, %s bytes of collectives; the whole takes at least %.2f s: scores %.2f s, counts %.2f s",
        *(cost["memory"] / ahead.GIB, int(cost["collectives"]), scores + counts, scores, counts),
    )
    files.write_json(epath.Path(workdir) / "compile" / "matching.json", told)
    return told


def _shape(shape: tuple[int, ...], dtype: Any, sharding: jax.sharding.Sharding) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(shape, np.dtype(dtype), sharding=sharding)


def _tile(rows: int, dimensions: int, sharding: jax.sharding.Sharding) -> tiles.Tile:
    return tiles.Tile(
        _shape((rows, dimensions), np.float32, sharding),
        _shape((rows,), np.float32, sharding),
        _shape((rows,), np.int32, sharding),
        _shape((rows,), np.int32, sharding),
    )
