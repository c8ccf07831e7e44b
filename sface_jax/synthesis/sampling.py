"""Where the latents come from: strategies are functions of (seed, class, index), and of nothing else."""

from __future__ import annotations

from collections.abc import Callable

import jax
from jaxtyping import Array, Float, Int, Key

from sface_jax.core import rng

# (class, index in the class) -> latent [z_dim]
Strategy = Callable[[Int[Array, ""], Int[Array, ""]], Float[Array, " z_dim"]]


def free(seed: int, z_dim: int) -> Strategy:
    """A latent of its own for every picture: z ~ N(0, I) (SFace, arXiv 2206.10520, section 3.1)."""

    def latent(label: Int[Array, ""], index: Int[Array, ""]) -> Float[Array, " z_dim"]:
        return jax.random.normal(sample_key(seed, "synthesis/z", label, index), (z_dim,))

    return latent


def shared_seeds(seed: int, z_dim: int, count: int) -> Strategy:
    """Latents from a pool that all classes share, as in the released script of SFace.

    Each picture picks one of `count` latents of the pool, with replacement, so a class may hold the same latent
    twice; only the noise of the synthesis tells such pictures apart.

    Args:
        seed: fixes the pool and the picks.
        z_dim: length of a latent.
        count: size of the pool; 1000 in the released script.
    """

    def latent(label: Int[Array, ""], index: Int[Array, ""]) -> Float[Array, " z_dim"]:
        pick = jax.random.randint(sample_key(seed, "synthesis/pick", label, index), (), 0, count)
        return jax.random.normal(rng.stream(seed, "synthesis/pool", pick), (z_dim,))

    return latent


def sample_key(seed: int, name: str, label: Int[Array, ""], index: Int[Array, ""]) -> Key[Array, ""]:
    """Returns the key of picture `index` of class `label` in a named random stream."""
    return jax.random.fold_in(rng.stream(seed, name, label), index)
