"""The stage "compile_matching": the matching engine's program ahead of time, with what it costs."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from absl import logging
from etils import epath
from jax.sharding import Mesh
from ml_collections import ConfigDict

from sface_jax.core import ahead
from sface_jax.privacy import tiles


def run(config: ConfigDict, workdir: epath.Path) -> dict[str, Any]:
    """Prints a table and writes `compile/<name>.json`; see `ahead.tell`.

    The program is "compare", of `queries_per_device` queries on each device with a tile of the gallery. Its pictures
    are queries, and "steps" in the file tells how often it runs for the whole comparison.

    Args:
        config: see configs/compile.py.
        workdir: gets the file.

    Raises:
        UserError: there is no compiler for the topology, or a key does not suit.
    """
    devices = ahead.mesh(config.topology).devices.reshape(-1)
    mesh = Mesh(devices, ("tiles",))
    compare = tiles.compiled(mesh, config.bins, config.thresholds, exclude_self=False, gallery_side=True)
    rows = config.queries_per_device * mesh.size
    shared, everywhere = tiles.placed(mesh)

    def lower() -> jax.stages.Lowered:
        queries, gallery = _tile(rows, config.dimensions, shared), _tile(config.tile, config.dimensions, everywhere)
        nearest = jax.tree.map(lambda x: _shape(x.shape, x.dtype, shared), tiles.nothing(rows, config.top_k))
        return compare.lower(queries, nearest, gallery, _shape((config.thresholds,), jnp.float32, everywhere))

    counted = 2.0 * config.dimensions * config.tile  # the scores alone
    steps = -(-config.n // rows) * -(-config.m // config.tile)
    facts = {"queries": config.n, "gallery": config.m, "dimensions": config.dimensions, "tile": config.tile}
    programs = {"compare": ahead.Program(lower, counted, rows)}
    told = ahead.tell(
        config, workdir, mesh, programs, smaller="queries_per_device", **facts, batch_size=rows, steps=steps
    )
    if seconds := told["programs"]["compare"].get("seconds"):
        logging.info("  all of it: %.2f s at least", steps * seconds["least"])
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
