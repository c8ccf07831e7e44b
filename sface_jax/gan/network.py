"""A trained generator as it lies on disk: its architecture in `network.json`, its weights in the newest checkpoint."""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
from etils import epath

from sface_jax.core import files
from sface_jax.core.checkpoint import Checkpoints
from sface_jax.core.errors import UserError
from sface_jax.gan.discriminator import Discriminator
from sface_jax.gan.generator import Generator


def build(facts: dict[str, Any]) -> tuple[Generator, Discriminator]:
    """Makes both networks from the entries of `network.json`.

    Args:
        facts: "generator" and "discriminator", each the attributes of the class; dtypes by name.
    """
    return Generator(**_typed(facts["generator"])), Discriminator(**_typed(facts["discriminator"]))


def _typed(attributes: dict[str, Any]) -> dict[str, Any]:
    return {**attributes, "dtype": jnp.dtype(attributes["dtype"])}


def save(directory: files.PathLike, facts: dict[str, Any]) -> None:
    """Writes `network.json`, what `load` needs beside the checkpoints."""
    files.write_json(epath.Path(directory) / "network.json", facts)


def load(directory: files.PathLike, checkpoint: str = "best") -> tuple[Generator, dict[str, Any], dict[str, Any]]:
    """Loads the averaged generator (G_ema) of a training run.

    Args:
        directory: the run's `gan` folder.
        checkpoint: "best", by the measure that was watched in training (the latest, where none was), "latest", or the
            number of a step whose checkpoint was kept.

    Returns:
        The module, its variables, and facts: the entries of `network.json`, and "step" of the checkpoint.

    Raises:
        UserError: the folder holds no trained generator, or no such checkpoint.
    """
    facts, state = _read(directory, checkpoint)
    variables = {"params": state["generator_ema"], "buffers": state["buffers"]}
    return build(facts)[0], variables, {**facts, "step": int(state["step"])}


def load_discriminator(
    directory: files.PathLike, checkpoint: str = "best"
) -> tuple[Discriminator, dict[str, Any] | None]:
    """Loads the discriminator that goes with `load`'s generator.

    Returns:
        The module and its variables; None for these where a converted network came without.

    Raises:
        UserError: see `load`.
    """
    facts, state = _read(directory, checkpoint)
    return build(facts)[1], {"params": state["discriminator"]} if "discriminator" in state else None


def _read(directory: files.PathLike, checkpoint: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """The entries of `network.json`, and the state in the checkpoint."""
    directory = epath.Path(directory)
    if not (directory / "network.json").exists() or not (directory / "checkpoints").exists():
        raise UserError(f"no generator in {directory}: train one with configs/gan.py, or set --config.generator=DIR")
    facts = files.read_json(directory / "network.json")
    if "generator" not in facts:
        raise UserError(f"{directory} holds no generator: set --config.generator to what configs/gan.py trained")
    if checkpoint not in ("best", "latest") and not checkpoint.isdecimal():
        raise UserError(f'config.checkpoint={checkpoint!r} is neither "best" nor "latest" nor the number of a step')
    watched = checkpoint == "best" and (directory / "best.json").exists()
    checkpoints = Checkpoints(directory / ("best" if watched else "checkpoints"), read_only=True)
    state = _at_step(checkpoints, int(checkpoint)) if checkpoint.isdecimal() else checkpoints.read()
    checkpoints.close()
    if state is None:
        raise UserError(f"no checkpoint in {directory}: run configs/gan.py until it has saved one")
    return facts, state


def _at_step(checkpoints: Checkpoints, step: int) -> dict[str, Any]:
    """The state in the checkpoint of a step."""
    kept = sorted(checkpoints.manager.all_steps())
    if step not in kept:
        raise UserError(
            f"{checkpoints.directory} has no checkpoint of step {step}, only of {', '.join(map(str, kept)) or 'none'}: "
            f"choose one of these, or train with a higher keep_checkpoints in another --workdir"
        )
    return checkpoints.read(step=step)
