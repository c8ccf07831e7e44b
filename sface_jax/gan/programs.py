"""The programs of a GAN's training and use, lowered for any devices, at hand or not; to time them or to count them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from sface_jax.core import mesh as meshes
from sface_jax.core.ahead import Program
from sface_jax.gan import costs
from sface_jax.gan.trainer import Trainer


def programs(trainer: Trainer) -> dict[str, Program]:
    """Those of `lowered`, and "finish", the end of every step, of which no operations are counted by hand."""
    state, by_hand = trainer.abstract()[0], counted(trainer) | {"finish": 0.0}
    lowers = lowered(trainer) | {"finish": lambda: trainer._finish.lower(state)}
    return {name: Program(lower, by_hand[name], trainer.config.batch_size) for name, lower in lowers.items()}


def lowered(trainer: Trainer) -> dict[str, Callable[[], Any]]:
    """Ways to lower each program: the two networks forward on one batch, and the phases of training.

    Args:
        trainer: its mesh may be of devices that only a compiler knows.

    Returns:
        name -> function that gives the `jax.stages.Lowered`. "generator" takes (variables, z, c), "discriminator"
        (params, images, c), a phase what `trainer.updates[name]` takes.
    """
    state, real, weights = trainer.abstract()
    n, generator, discriminator = trainer.config.batch_size, trainer.generator, trainer.discriminator
    whole, split = meshes.replicated(trainer.mesh), meshes.batch_sharding(trainer.mesh)
    z = jax.ShapeDtypeStruct((n, generator.z_dim), jnp.float32, sharding=split)
    images = jax.ShapeDtypeStruct((n, *generator.picture_shape), jnp.float32, sharding=split)
    variables = meshes.shapes({"params": state.generator_ema, "buffers": state.buffers})
    parameters, c = meshes.shapes({"params": state.discriminator}), real["label"]

    def forward(module: Any) -> Any:
        return jax.jit(module.apply, in_shardings=(whole, split, split), out_shardings=split)

    programs: dict[str, Callable[[], Any]] = {
        "generator": lambda: forward(generator).lower(variables, z, c),
        "discriminator": lambda: forward(discriminator).lower(parameters, images, c),
    }
    for name, update in trainer.updates.items():
        programs[name] = lambda update=update: update.lower(state, real, weights)
    return programs


def counted(trainer: Trainer) -> dict[str, float]:
    """The operations of each program for one picture of the batch, counted by hand (`costs`)."""
    generator, discriminator = trainer.generator, trainer.discriminator
    phases = costs.phase_flops(generator, discriminator, trainer.config.path_length_shrink)
    return {
        "generator": float(costs.generator_flops(generator)),
        "discriminator": float(costs.discriminator_flops(discriminator)),
        **{name: phases[name] for name in trainer.updates},
    }
