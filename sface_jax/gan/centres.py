"""Where the classes lie in w: the mean of what the mapping network makes of each label."""

from __future__ import annotations

import functools
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from sface_jax.core import rng
from sface_jax.core.arrays import AnyArray


@functools.partial(jax.jit, static_argnames=("generator", "samples", "seed"))
def class_centres(
    generator: nn.Module, variables: Any, classes: Int[AnyArray, " c"], samples: int = 512, seed: int = 0
) -> Float[Array, "c w"]:
    """Estimates the centre of each class, w_c = E_z[mapping(z, c)] with z ~ N(0, I).

    All classes are given the same latents, so that what the estimate lacks is nearly the same for all and differences
    between centres are closer than the centres themselves. They are mapped one class after the other: memory is that
    of `samples` latents, and a centre is the same to the last bit whichever other classes are asked for.

    Args:
        generator: a class-conditional generator.
        variables: its variables.
        classes: labels 0 ... num_classes - 1.
        samples: latents the mean is taken over; the standard error falls with their square root.
        seed: fixes the latents.
    """
    z = jax.random.normal(rng.stream(seed, "gan/centres"), (samples, generator.z_dim))

    def centre(label: Int[Array, ""]) -> Float[Array, " w"]:
        # every layer has the same w as long as nothing is truncated
        return generator.apply(variables, z, jnp.full(samples, label), method="map")[:, 0].mean(0)

    return jax.lax.map(centre, jnp.asarray(classes))
