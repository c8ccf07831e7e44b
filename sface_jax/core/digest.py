"""What the bits of arrays sum up to: the same wherever the arrays lie, another where a single one was altered."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Shaped, UInt32

_WORDS = {1: jnp.uint8, 2: jnp.uint16, 4: jnp.uint32, 8: jnp.uint32}


class Digest(NamedTuple):
    """What is told of an array.

    Attributes:
        bits: what its bits sum up to.
        finite: whether all of its numbers are.
    """

    bits: int
    finite: bool


def of(tree: Any) -> dict[str, Digest]:
    """Digests of a tree's arrays by their names, such as "params/backbone/stem/kernel".

    Rows of zeros at the end of an array do not count.

    Args:
        tree: of arrays; where several processes hold shares of them, all must call this.
    """
    arrays = {name(path): array for path, array in jax.tree_util.tree_leaves_with_path(tree)}
    # One program: several at once, each with its exchange between processes, could wait for each other for ever.
    found = jax.device_get(_digests(arrays))
    return {key: Digest(int(bits), bool(finite)) for key, (bits, finite) in found.items()}


def name(path: tuple[Any, ...]) -> str:
    """An array's name from its path in a tree, whether its nodes are dicts, tuples or dataclasses."""
    return "/".join(str(getattr(key, "key", getattr(key, "name", getattr(key, "idx", key)))) for key in path)


@jax.jit
def _digests(arrays: dict[str, Array]) -> dict[str, tuple[Array, Array]]:
    return {key: _digest(array) for key, array in arrays.items()}


def _digest(array: Shaped[Array, "..."]) -> tuple[UInt32[Array, ""], Bool[Array, ""]]:
    """sum_i (2 i + 1) w_i mod 2^32 of the words w, and whether all is finite.

    Integers, so the order of the sum does not matter; 2 i + 1 is odd, and so has an inverse: whatever a single word
    becomes, the sum is another one.
    """
    bits = jax.lax.bitcast_convert_type(array.astype(jnp.uint8) if array.dtype == bool else array, _words(array))
    words, place, stride = bits.astype(jnp.uint32), jnp.uint32(0), 1
    for axis in reversed(range(words.ndim)):
        place = place + jax.lax.broadcasted_iota(jnp.uint32, words.shape, axis) * jnp.uint32(stride % 2**32)
        stride *= words.shape[axis]
    return jnp.sum(words * (2 * place + 1), dtype=jnp.uint32), jnp.isfinite(array).all()


def _words(array: Shaped[Array, "..."]) -> Any:
    return _WORDS[array.dtype.itemsize]
