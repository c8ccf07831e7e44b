"""The compiled generator: a batch of samples to a batch of pictures, over the devices of this process."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType, Mesh
from jaxtyping import Array, Float
from ml_collections import ConfigDict

from sface_jax.core import mesh as meshes
from sface_jax.gan.centres import class_centres
from sface_jax.synthesis import sampling
from sface_jax.synthesis.sampling import Samples, Source

# n samples -> float pictures [n, h, w, 3] in [-1, 1], on the devices
Draw = Callable[[Samples], Float[Array, "n h w 3"]]


def make_draw(config: ConfigDict, generator: nn.Module, variables: Any) -> tuple[Draw, int]:
    """Compiles the generator for one batch over the devices of this process.

    Every device always gets `config.batch_size` pictures, so that its arithmetic, to the last bit, is the same on
    any number of devices.

    Returns:
        The function that draws one batch, and the size of that batch.
    """
    local = local_mesh()
    centres = None
    if sampling.STRATEGIES[config.strategy].centres:
        classes = jnp.arange(generator.num_classes)
        centres = class_centres(generator, variables, classes, config.centre_samples, config.seed)
    compiled, split = program(config, generator, local), meshes.batch_sharding(local)
    variables, centres = jax.device_put((variables, centres), meshes.replicated(local))

    def call(samples: Samples) -> Float[Array, "n h w 3"]:
        samples = Samples(*(np.asarray(part, np.int32) for part in samples))
        return compiled(variables, centres, jax.device_put(samples, split))

    return call, config.batch_size * local.size


def program(config: ConfigDict, generator: nn.Module, mesh: Mesh) -> Callable[..., Float[Array, "n h w 3"]]:
    """The function (variables, class centres or None, samples) -> pictures, to be compiled for a mesh."""
    split, whole = meshes.batch_sharding(mesh), meshes.replicated(mesh)
    strategy = sampling.STRATEGIES[config.strategy]

    def draw(variables: Any, centres: Float[Array, "c w"] | None, samples: Samples) -> Float[Array, "n h w 3"]:
        source = Source(generator, variables, centres, config.seed, config.psi, config.shared_seeds)
        ws = strategy.styles(source, samples)
        if config.noise != "random":
            return generator.apply(variables, ws, noise=config.noise, method="synthesize")

        def one(w: Float[Array, "l w"], sample: Samples) -> Float[Array, "h w 3"]:
            rngs = {"noise": sampling.sample_key(config.seed, "synthesis/noise", sample)}
            return generator.apply(variables, w[None], noise="random", rngs=rngs, method="synthesize")[0]

        # A key for each picture, where one key for the batch would tie the noise to the place in the batch.
        return jax.vmap(one)(ws, samples)

    return jax.jit(draw, in_shardings=(whole, whole, split), out_shardings=split)


def local_mesh() -> Mesh:
    """The devices of this process alone: synthesis shares shards out among processes, never a batch."""
    devices = jax.local_devices()
    return jax.make_mesh((len(devices), 1), ("data", "model"), (AxisType.Auto,) * 2, devices=devices)
