"""Gradients of a batch that is taken in parts, one after another: what does not fit the devices at once."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Key

from sface_jax.core.errors import UserError

Tree = Any
Own = Callable[[Key[Array, ""]], Key[Array, ""]]
"""Makes of a random key that of a part: with one part the key itself, else the key with the part's number folded in."""
Loss = Callable[[Tree, Tree, Own], tuple[Float[Array, ""], Tree]]


def check(name: str, count: int | float, parts: int, devices: int) -> None:
    """Refuses what cannot be shared out evenly.

    Args:
        name: of the count, for the error line.
        count: rows of a batch.
        parts: that are taken one after another.
        devices: that share a part.

    Raises:
        UserError: the parts are less than one, or the rows do not divide.
    """
    if parts < 1:
        raise UserError(f"config.accumulate={parts}: set it to 1 or more")
    if count % (parts * devices):
        into = f" in accumulate={parts} parts" if parts > 1 else ""
        raise UserError(
            f"{name}={count:g} does not divide over {devices} devices{into}: make it a multiple of {parts * devices}"
        )


def value_and_grad(
    loss: Loss, parts: int, place: Callable[[Tree], Tree] = lambda gradient: gradient
) -> Callable[[Tree, Tree], tuple[tuple[Float[Array, ""], Tree], Tree]]:
    """`jax.value_and_grad(loss, has_aux=True)` over a batch in parts, of which only one is held at a time.

    Loss, gradient and what the loss tells beside are the means over the parts. Every part begins at the same state, so
    that a running mean a + r (x - a) moves at the same rate r a step whatever the parts. Of booleans it is told whether
    any part has them. What a loss makes of a batch as a whole, such as the statistics of a batch normalisation, it
    makes of a part.

    Part p is the rows p, p + parts, p + 2 parts, ... of the batch: every device takes its share of each part from the
    rows that it holds already. With one part this is JAX's function and nothing else.

    Args:
        loss: (parameters, part of the batch, own) -> (its mean over the part, what it tells beside: floats and
            booleans). Every random key that it uses goes through `own`.
        parts: divides the rows of the batch.
        place: puts a gradient where it is to lie, such as in shares on the devices, before it is added to the others.

    Returns:
        A function (parameters, batch) -> ((loss, told), gradient).
    """

    def of_part(parameters: Tree, batch: Tree, own: Own) -> tuple[tuple[Float[Array, ""], Tree], Tree]:
        value, gradient = jax.value_and_grad(loss, has_aux=True)(parameters, batch, own)
        return value, place(gradient)

    def of_batch(parameters: Tree, batch: Tree) -> tuple[tuple[Float[Array, ""], Tree], Tree]:
        if parts == 1:
            return of_part(parameters, batch, lambda key: key)
        rows = jax.tree.map(lambda x: x.reshape(len(x) // parts, parts, *x.shape[1:]), batch)

        def numbered(p: Int[Array, ""]) -> tuple[tuple[Float[Array, ""], Tree], Tree]:
            part = jax.tree.map(lambda x: jax.lax.dynamic_index_in_dim(x, p, axis=1, keepdims=False), rows)
            return of_part(parameters, part, lambda key: jax.random.fold_in(key, p))

        def add(total: Tree, p: Int[Array, ""]) -> tuple[Tree, None]:
            return jax.tree.map(_add, total, numbered(p)), None

        shapes = jax.eval_shape(numbered, jax.ShapeDtypeStruct((), jnp.int32))
        told, gradient = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), shapes)
        total, _ = jax.lax.scan(add, (told, place(gradient)), jnp.arange(parts))
        return jax.tree.map(lambda x: x if x.dtype == bool else x / parts, total)

    return of_batch


def _add(a: Array, b: Array) -> Array:
    return a | b if a.dtype == bool else a + b
