"""A GAN of StyleGAN2-ADA for PyTorch as a `gan` folder of ours, and such a folder as state dicts."""

from __future__ import annotations

import dataclasses
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
import numpy as np
from absl import logging
from etils import epath
from ml_collections import ConfigDict

from sface_jax.convert import array_files, folders, pickles, stylegan2
from sface_jax.core.checkpoint import Checkpoints
from sface_jax.core.errors import UserError
from sface_jax.core.files import PathLike
from sface_jax.gan import network
from sface_jax.gan.discriminator import Discriminator


def convert(source: epath.Path, output: epath.Path, config: ConfigDict) -> dict[str, Any]:
    """Converts in the direction that the source asks for; see `configs/convert.py` for the keys.

    Raises:
        UserError: the source holds no such network, or the output is of the wrong kind.
    """
    if source.is_dir():
        return to_pytorch(source, output, config.checkpoint)
    return from_pytorch(source, output, config.discriminator, config.mbstd_group_size)


def from_pytorch(
    source: PathLike, output: PathLike, discriminator: bool = True, mbstd_group_size: int = 4
) -> dict[str, Any]:
    """Writes PyTorch's networks as a folder that `gan.network.load` reads.

    Args:
        source: `.pkl`, or `.npz` or `.safetensors` with names under G_ema/ (or G/) and D/. D may be absent.
        output: the folder; it appears whole or not at all.
        discriminator: convert D too, where there is one.
        mbstd_group_size: of D, where the source does not tell.

    Returns:
        What was converted.

    Raises:
        UserError: the source holds no such network.
    """
    source, output = epath.Path(source), epath.Path(output)
    networks = _read(source)
    name = "G_ema" if "G_ema" in networks else "G"
    if name not in networks:
        raise UserError(f"{source} holds no generator: there is no G_ema and no G in it")
    generator, variables = stylegan2.generator_from_network(networks[name])
    weights = {"step": np.zeros((), np.int32), "generator_ema": variables["params"], "buffers": variables["buffers"]}
    converted = [name] + ["D"] * (discriminator and "D" in networks)
    # Without D, `network.json` describes one and the checkpoint has none.
    judge = Discriminator(generator.image_size, generator.num_classes)
    if "D" in converted:
        try:
            judge, d_variables = stylegan2.discriminator_from_network(networks["D"], mbstd_group_size)
        except UserError as error:
            raise UserError(f"{error}; --config.discriminator=False converts {name} alone") from error
        weights["discriminator"] = d_variables["params"]
    facts = {"generator": _attributes(generator), "discriminator": _attributes(judge)}
    _write_folder(output, {**facts, "converted_from": source.name}, weights)
    logging.info("%s from %s: in %s", " and ".join(converted), source, output)
    return {"networks": converted, "image_size": generator.image_size, "classes": generator.num_classes}


def to_pytorch(source: PathLike, output: PathLike, checkpoint: str = "best") -> dict[str, Any]:
    """Writes the networks of a `gan` folder as PyTorch's state dicts, named G_ema/... and D/... .

    Args:
        source: a folder that training or `from_pytorch` wrote.
        output: `.npz` or `.safetensors`.
        checkpoint: see `gan.network.load`.

    Returns:
        What was converted.

    Raises:
        UserError: the folder holds no network, or the output is of another kind.
    """
    source, output = epath.Path(source), epath.Path(output)
    if output.suffix not in array_files.SUFFIXES:
        raise UserError(f"{source} is a folder of ours, which becomes a file: set --config.output=FILE.npz")
    generator, variables, _ = network.load(source, checkpoint)
    networks = {"G_ema": stylegan2.generator_to_state_dict(generator, variables)}
    if generator.crop:
        logging.warning("PyTorch's network draws %s pixels: crop %s on each side", generator.image_size, generator.crop)
    judge, d_variables = network.load_discriminator(source, checkpoint)
    if judge.unconditional_head:
        logging.warning("D has an unconditional head, which PyTorch's has not: it is left out")
    elif d_variables is not None:
        networks["D"] = stylegan2.discriminator_to_state_dict(judge, d_variables)
    array_files.write(output, networks)
    logging.info("%s from %s: in %s, under PyTorch's names", " and ".join(networks), source, output)
    return {"networks": list(networks), "image_size": generator.image_size, "classes": generator.num_classes}


def _read(path: epath.Path) -> dict[str, pickles.StateDict]:
    if path.suffix == ".pkl":
        return pickles.read(path)
    if path.suffix not in array_files.SUFFIXES:
        raise UserError(f"{path} cannot be converted: take a file in .pkl, {', '.join(array_files.SUFFIXES)}")
    return {name: pickles.StateDict(arrays) for name, arrays in array_files.read(path).items()}


def _write_folder(output: epath.Path, facts: dict[str, Any], weights: dict[str, Any]) -> None:
    with folders.appearing(output) as folder:
        checkpoints = Checkpoints(folder / "checkpoints")
        try:
            checkpoints.save(0, weights)
        finally:
            checkpoints.close()
        network.save(folder, facts)


def _attributes(module: nn.Module) -> dict[str, Any]:
    """A network's attributes as `network.json` keeps them."""
    names = [field.name for field in dataclasses.fields(module) if field.name not in ("parent", "name")]
    return {**{name: getattr(module, name) for name in names}, "dtype": jnp.dtype(module.dtype).name}
