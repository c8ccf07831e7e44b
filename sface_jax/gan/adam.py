"""Adam for a network whose regulariser is lazy: done on some steps only."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax.flatten_util import ravel_pytree

Tree = Any
Update = Callable[..., tuple[Tree, Tree]]


def lazy(
    learning_rate: float, beta1: float, beta2: float, interval: int, shares: bool = False
) -> optax.GradientTransformation:
    """Adam at rate x q and betas^q with q = k/(k+1), k the interval of the regulariser (StyleGAN2, appendix B).

    Gradients that are not finite count as 0 or +-1e5. The moments are trees like the parameters.

    Args:
        learning_rate: before the correction, as the betas are.
        beta1: decay of the first moment.
        beta2: decay of the second.
        interval: k; 0 for no regulariser, and no correction.
        shares: the arrays lie in shares on several devices.
    """
    q = interval / (interval + 1) if interval else 1.0
    finite = optax.stateless(
        lambda g, _: jax.tree.map(lambda x: jnp.nan_to_num(x, nan=0.0, posinf=1e5, neginf=-1e5), g)
    )
    adam = optax.chain(finite, optax.adam(learning_rate * q, beta1**q, beta2**q, eps=1e-8))
    return adam if shares else optax.GradientTransformation(adam.init, _flat_on_cpu(adam.update))


def _flat_on_cpu(update: Update) -> Update:
    """Runs an update on one flat vector on CPUs: an array at a time it is hundreds of small kernels there."""

    def flat(gradient: Tree, state: Tree) -> tuple[Tree, Tree]:
        vector, unflatten = ravel_pytree(gradient)
        structure = jax.tree.structure(gradient)

        def is_moment(x: Tree) -> bool:
            return jax.tree.structure(x) == structure

        state = jax.tree.map(lambda x: ravel_pytree(x)[0] if is_moment(x) else x, state, is_leaf=is_moment)
        change, state = update(vector, state)
        return unflatten(change), jax.tree.map(lambda x: unflatten(x) if x.ndim else x, state)

    return lambda gradient, state, parameters=None: jax.lax.platform_dependent(
        gradient, state, cpu=flat, default=update
    )
