"""Stochastic gradient descent as the published recognisers were trained with, on plain trees."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from sface_jax.core.errors import UserError

Tree = Any


def norm(tree: Tree) -> Float[Array, ""]:
    """L2 norm of all entries as one vector."""
    return jnp.sqrt(sum(jnp.square(leaf.astype(jnp.float32)).sum() for leaf in jax.tree.leaves(tree)))


def clip(gradient: Tree, total: Float[Array, ""], limit: float) -> Tree:
    """Scales a gradient of norm `total` by min(1, limit / (total + 1e-6))."""
    factor = jnp.minimum(1.0, limit / (total + 1e-6))
    return jax.tree.map(lambda g: g * factor, gradient)


def sgd(
    params: Tree,
    velocity: Tree,
    gradient: Tree,
    learning_rate: float | Float[Array, ""],
    momentum: float,
    weight_decay: float,
) -> tuple[Tree, Tree]:
    """One step: v <- momentum v + (g + decay p); p <- p - rate v. Every parameter decays.

    Returns:
        The new parameters and the new velocity.
    """
    velocity = jax.tree.map(lambda v, g, p: momentum * v + (g + weight_decay * p), velocity, gradient, params)
    return jax.tree.map(lambda p, v: p - learning_rate * v, params, velocity), velocity


def learning_rate(
    step: int | Int[Array, ""],
    *,
    base: float,
    schedule: str,
    total_steps: int,
    milestones: Sequence[int] = (),
    factor: float = 0.1,
    warmup_steps: int = 0,
) -> Float[Array, ""]:
    """The rate of a step.

    "milestones": base x factor^(milestones passed), a step equal to a milestone having passed it.
    "cosine": base x (1 + cos(pi t)) / 2, t from 0 after the warm-up to 1 at `total_steps`.
    Both rise linearly to their value over the first `warmup_steps`.
    "polynomial": base x (1 - t), as ArcFace's published trainer has it: the rise of step k > 0 is k / `warmup_steps`,
    and step 0 has the whole rate.

    Args:
        step: from 0.
        base: the whole rate.
        schedule: "milestones", "cosine" or "polynomial".
        total_steps: length of the training.
        milestones: steps.
        factor: what each milestone multiplies the rate by.
        warmup_steps: length of the warm-up.

    Raises:
        UserError: there is no such schedule.
    """
    step = jnp.asarray(step)
    t = jnp.clip((step - warmup_steps) / max(total_steps - warmup_steps, 1), 0, 1)
    if schedule == "milestones":
        passed = (step >= jnp.asarray(milestones, jnp.int32)).sum() if milestones else 0
        rate = base * jnp.asarray(factor) ** passed
    elif schedule == "cosine":
        rate = base * (1 + jnp.cos(math.pi * t)) / 2
    elif schedule == "polynomial":
        rising = (step > 0) & (step < warmup_steps)
        return jnp.where(rising, base * step / max(warmup_steps, 1), base * (1 - t))
    else:
        raise UserError(f"config.schedule is {schedule!r}: choose milestones, cosine or polynomial")
    return jnp.minimum(1.0, (step + 1) / max(warmup_steps, 1)) * rate
