"""The stage "compile_embedding": how verification and audit embed pictures, ahead of time, with what it costs."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from etils import epath
from ml_collections import ConfigDict

from sface_jax.core import ahead, costs
from sface_jax.core import mesh as meshes
from sface_jax.recognition import features, network


def run(config: ConfigDict, workdir: epath.Path) -> dict[str, Any]:
    """Prints a table and writes `compile/<name>.json`; see `ahead.tell`.

    The program is "embed", of a batch of pictures and their mirror images. On a slice of several machines it gathers
    the embeddings of the whole batch, which every machine is to have in the end.

    Args:
        config: see configs/compile.py.
        workdir: gets the file.

    Raises:
        UserError: there is no compiler for the topology, or a key does not suit.
    """
    mesh = ahead.mesh(config.topology)
    batch = config.batch_per_device * mesh.size
    own = network.architecture(config.network, embedding_size=config.embedding_size, dtype=config.dtype)
    module, preprocessing = network.build(own), network.Preprocessing(size=config.image_size)

    def shapes(rows: int, sharding: jax.sharding.Sharding | None = None) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct((rows, *[config.image_size] * 2, 3), jnp.uint8, sharding=sharding)

    variables = jax.eval_shape(module.init, jax.random.key(0), jax.eval_shape(preprocessing, shapes(1)))
    one = costs.products(lambda v, x: module.apply(v, preprocessing(x), train=False), variables, shapes(1))
    compiled = features._compiled(module, preprocessing, config.mirror, mesh)
    pictures = shapes(batch, meshes.batch_sharding(mesh))
    program = ahead.Program(lambda: compiled.lower(variables, pictures), one * (1 + config.mirror), batch)
    facts = {"network": config.network, "dtype": config.dtype, "mirror": config.mirror, "batch_size": batch}
    return ahead.tell(config, workdir, mesh, {"embed": program}, **facts)
