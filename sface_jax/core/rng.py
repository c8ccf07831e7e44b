"""Randomness as a function of (seed, stream, step): nothing to save but the step."""

from __future__ import annotations

import zlib

import jax
from jaxtyping import Array, Int, Key


def stream(seed: int, name: str, step: int | Int[Array, ""] = 0, fast: bool = False) -> Key[Array, ""]:
    """Returns the key of a named random stream at a step.

    Args:
        seed: the run's seed.
        name: the stream, e.g. "gan/z" or "augment"; different names give independent streams.
        step: the global step, a Python integer or a traced scalar.
        fast: use the backend's own generator. Its programs compile several times faster, but what they draw may depend
            on how arrays are sharded: for the initial weights, which every device holds whole.

    Returns:
        A typed PRNG key that depends on the three arguments alone.
    """
    key = jax.random.fold_in(jax.random.key(seed, impl="rbg" if fast else "threefry2x32"), zlib.crc32(name.encode()))
    return jax.random.fold_in(key, step)
