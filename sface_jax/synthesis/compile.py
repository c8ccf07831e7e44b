"""The stage "compile_synthesis": how synthesis draws a batch, ahead of time, with what it costs."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from etils import epath
from ml_collections import ConfigDict

from sface_jax.core import ahead
from sface_jax.core import mesh as meshes
from sface_jax.core.errors import UserError
from sface_jax.gan import costs, network
from sface_jax.gan.trainer import network_facts
from sface_jax.synthesis import draw
from sface_jax.synthesis.sampling import STRATEGIES, Samples


def run(config: ConfigDict, workdir: epath.Path) -> dict[str, Any]:
    """Prints a table and writes `compile/<name>.json`; see `ahead.tell`.

    The program is "draw", over the chips of one machine: machines share out shards of the dataset, never a batch, and
    do not speak to each other.

    Args:
        config: see configs/compile.py.
        workdir: gets the file.

    Raises:
        UserError: there is no compiler for the topology, or a key does not suit.
    """
    mesh = ahead.mesh(config.topology)
    if len({device.process_index for device in mesh.devices.flat}) > 1:
        raise UserError(
            f"{config.topology} is several machines, and each draws by itself: set --config.topology to the slice of "
            "one, such as v5e:2x2"
        )
    batch = config.batch_per_device * mesh.size
    generator, _ = network.build(network_facts(config, config.classes, config.image_size))
    shape = jax.ShapeDtypeStruct
    z, c = shape((1, config.z_dim), jnp.float32), shape((1,), jnp.int32)
    variables = jax.eval_shape(generator.init, jax.random.key(0), z, c)
    centres = shape((config.classes, config.w_dim), jnp.float32) if STRATEGIES[config.strategy].centres else None
    samples = Samples(*[shape((batch,), jnp.int32, sharding=meshes.batch_sharding(mesh))] * 3)
    program = ahead.Program(
        lambda: draw.program(config, generator, mesh).lower(variables, centres, samples),
        float(costs.generator_flops(generator)),
        batch,
    )
    facts = {"image_size": config.image_size, "classes": config.classes, "strategy": config.strategy}
    return ahead.tell(config, workdir, mesh, {"draw": program}, **facts, batch_size=batch)
