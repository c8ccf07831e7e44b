"""The stage "gan": data, training loop, and what is watched on the way."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from absl import logging
from etils import epath
from ml_collections import ConfigDict

from sface_jax.core import files, pictures, rng, speed, train_loop
from sface_jax.core import mesh as meshes
from sface_jax.core.embedder import OpenEmbedder
from sface_jax.core.errors import UserError
from sface_jax.data import dataset, pipeline
from sface_jax.gan import network, programs
from sface_jax.gan.trainer import State, Trainer
from sface_jax.gan.watch import Watch


def run(config: ConfigDict, workdir: epath.Path, open_embedder: OpenEmbedder | None = None) -> dict[str, Any]:
    """Trains the generator; the stage "gan".

    Args:
        config: see configs/gan.py.
        workdir: gets `gan/checkpoints`, `gan/best`, `gan/metrics.jsonl`, `gan/network.json` and `gan/samples`.
        open_embedder: loads the networks that `config.watch_network` and `config.separation_network` name.

    Raises:
        UserError: the dataset is missing, or does not suit.
    """
    data = dataset.open(config.dataset)
    split = data[config.split]
    mesh = meshes.make_mesh(config.mesh.data, config.mesh.model)
    counts = np.bincount(split.labels - split.labels.min(), minlength=split.num_classes)
    separator = open_embedder(config.separation_network) if config.separation_weight else None
    trainer = Trainer(config, counts, split.image_size, mesh, separator)
    directory = workdir / "gan"
    _claim(directory, trainer.facts | {"trained_on": _trained_on(config, split)})
    total_steps = -(-int(config.kimg * 1000) // config.batch_size)
    state = trainer.init()
    size = {name: sum(x.size for x in jax.tree.leaves(getattr(state, name))) for name in ("generator", "discriminator")}
    logging.info("gan: %s classes, %s pictures, parameters %s", split.num_classes, len(split), size)
    hooks = [(config.sample_every, SampleGrid(trainer, directory / "samples"))]
    if config.watch_network:
        hooks.append((config.watch_every, Watch(trainer, split, open_embedder(config.watch_network), directory)))
    state = train_loop.run(
        "gan",
        state,
        trainer.step,
        pipeline.from_config(split, config),
        total_steps=total_steps,
        directory=directory,
        log_every=config.log_every,
        checkpoint_every=config.checkpoint_every,
        keep=config.keep_checkpoints,
        pictures_per_step=config.batch_size,
        flops_per_step=_flops_per_step(trainer),
        profile=config.profile,
        tensorboard=config.tensorboard,
        hooks=hooks,
    )
    best = files.read_json(directory / "best.json") if (directory / "best.json").exists() else {}
    return {
        "kimg": config.kimg,
        "steps": int(state.step),
        "classes": split.num_classes,
        "pictures": len(split),
        "image_size": split.image_size,
        "parameters": size,
        "ada_p": float(state.augment_p),
        "best": best,
        "speed": speed.usual(directory),
    }


def _flops_per_step(trainer: Trainer) -> float:
    """The operations of a step, on the average over the phases that are due on some steps only."""
    counted = programs.counted(trainer)
    return trainer.config.batch_size * sum(counted[phase.name] / phase.interval for phase in trainer.phases)


def _claim(directory: epath.Path, facts: dict[str, Any]) -> None:
    """Writes what the networks are into the folder, unless it holds others."""
    path = directory / "network.json"
    found = files.read_json(path) if path.exists() else facts
    if any(found.get(name) != facts[name] for name in ("generator", "discriminator")) or "converted_from" in found:
        raise UserError(f"{directory} holds another generator: take another --workdir, or move that folder away")
    meshes.barrier("gan: the folder is looked at")
    if meshes.is_lead():
        network.save(directory, facts)


def _trained_on(config: ConfigDict, split: Any) -> dict[str, Any]:
    """What the dataset card of the pictures will say of their source; no paths, for the card is handed on."""
    manifest = epath.Path(config.dataset) / "manifest.json"
    counts = files.read_json(manifest)["counts"] if manifest.exists() else {}
    return {"identities": split.num_classes, "pictures": len(split), "procedural": bool(counts.get("procedural"))}


class SampleGrid:
    """Draws the same latents at several times of a training: rows are identities, columns are latents."""

    def __init__(self, trainer: Trainer, directory: epath.Path, rows: int = 10, columns: int = 10):
        """Fixes latents and labels (spread over the classes)."""
        generator = trainer.generator
        self.directory = directory
        self.shape = (min(rows, generator.num_classes), columns)
        labels = np.linspace(0, generator.num_classes - 1, self.shape[0]).round().astype(np.int32)
        z = jax.random.normal(rng.stream(trainer.config.seed, "gan/samples"), (columns, generator.z_dim))
        z, c = jnp.tile(z, (self.shape[0], 1)), jnp.repeat(labels, columns)

        self._draw = jax.jit(lambda state: trainer.draw(state, z, c), out_shardings=meshes.replicated(trainer.mesh))

    def __call__(self, state: State, step: int) -> None:
        """Writes `<step>.png`."""
        images = self._draw(state)
        if meshes.is_lead():
            images = pictures.to_uint8(images)
            path = self.directory / f"{step:07d}.png"
            pictures.write_png(path, pictures.grid(images.reshape(*self.shape, *images.shape[1:])))
