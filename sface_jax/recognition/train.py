"""The stage "recognition": trains one recogniser on a dataset on disk."""

from __future__ import annotations

import json
from typing import Any

import jax
import numpy as np
from absl import logging
from etils import epath
from ml_collections import ConfigDict

from sface_jax.core import costs, files, train_loop
from sface_jax.core import mesh as meshes
from sface_jax.core.errors import UserError
from sface_jax.data import layout, mixture, pipeline
from sface_jax.data.dataset import PictureSet
from sface_jax.recognition import augment, network, teacher
from sface_jax.recognition.trainer import Trainer

GIB = 2**30


def run(config: ConfigDict, workdir: epath.Path, open_network: network.OpenNetwork = network.load) -> dict[str, Any]:
    """Trains a recogniser.

    The network of the last step is the result: no benchmark, and no other step, has a say in it.

    Args:
        config: see configs/combined.py.
        workdir: gets `recognition/<config.name>` with checkpoints, metrics.jsonl and network.json.
        open_network: opens the teacher.

    Raises:
        UserError: dataset or teacher are missing or do not suit.
    """
    if not (epath.Path(config.dataset) / layout.INFO_FILE).exists():
        hint = " and --config.teacher=DIR" if config.distillation_weight else ""
        raise UserError(
            f"no training pictures in {config.dataset}: set --config.dataset=DIR{hint}, "
            "or see it run on embedded faces with --config=configs/combined.py:quickstart"
        )
    pictures = mixture.training_set(config)
    mesh = meshes.make_mesh(config.mesh.data, config.mesh.model)
    taught_by = open_network(config.teacher, "teacher") if config.distillation_weight else None
    directory = workdir / "recognition" / config.name
    _same_classes(directory, pictures.num_classes)
    targets = None
    if taught_by and config.teacher_cache:
        targets = teacher.cached(taught_by, pictures, mesh, workdir / "recognition" / "teacher_cache")
    trainer = Trainer(config, pictures.num_classes, len(pictures), pictures.image_size, mesh, taught_by, targets)
    facts = {"classes": pictures.num_classes, "pictures": len(pictures), "dataset": str(config.dataset)}
    network.describe(directory, network.attributes(trainer.backbone), trainer.preprocessing, facts)
    state = trainer.init()
    size = sum(x.size for x in jax.tree.leaves(state.params["backbone"]))
    _announce(config, trainer, pictures, size)
    train_loop.run(
        config.name,
        state,
        trainer.step,
        pipeline.from_config(pictures, config, augment.in_workers(config.augmentations)),
        total_steps=trainer.total_steps,
        directory=directory,
        log_every=config.log_every,
        checkpoint_every=config.checkpoint_every,
        keep=config.keep_checkpoints,
        pictures_per_step=config.batch_size,
        tensorboard=config.tensorboard,
        padded="head",
    )
    return {
        "network": config.name,
        "steps": trainer.total_steps,
        "epochs": trainer.total_steps * config.batch_size / len(pictures),
        "classes": pictures.num_classes,
        "pictures": len(pictures),
        "parameters": size,
    } | _outcome(directory)


def _announce(config: ConfigDict, trainer: Trainer, pictures: PictureSet, size: int) -> None:
    """Tells what is about to be trained, and what a step takes, before the first one."""
    logging.info(
        "%s: %s classes, %s pictures, %s parameters, %s steps; %s",
        *(config.name, pictures.num_classes, len(pictures), size, trainer.total_steps),
        augment.describe(config.augmentations),
    )
    cost, devices = costs.of(trainer.compile()), trainer.mesh.size
    matrix = 4 * trainer.head_rows / devices * trainer.backbone.embedding_size
    logits = 4 * config.batch_size * trainer.head_rows / devices * config.class_sample_rate
    logging.info(
        "%s: a step takes %.2f GiB of each of %s devices: activations and gradients %.2f; class matrix %.3f, with its "
        "momentum twice that; one set of logits %.3f",
        *(config.name, cost["memory"] / GIB, devices, cost["temporaries"] / GIB, matrix / GIB, logits / GIB),
    )
    limit = (jax.local_devices()[0].memory_stats() or {}).get("bytes_limit", np.inf)
    if cost["memory"] > limit:
        raise UserError(
            f"a step needs {cost['memory'] / GIB:.1f} GiB of a device that has {limit / GIB:.1f}: "
            "lower batch_size, set dtype=bfloat16, or take more devices"
        )


def _same_classes(directory: epath.Path, num_classes: int) -> None:
    """Refuses to go on with a class matrix that was made for another number of classes."""
    path = directory / "network.json"
    before = files.read_json(path).get("training", {}).get("classes", num_classes) if path.exists() else num_classes
    if before != num_classes and (directory / "checkpoints").exists():
        raise UserError(
            f"{directory} was begun with {before} classes, the dataset has {num_classes}: choose another --workdir"
        )


def _outcome(directory: epath.Path) -> dict[str, float]:
    """The last scalars logged, and the usual rate."""
    if not meshes.is_lead():
        return {}
    log = [json.loads(line) for line in (directory / "metrics.jsonl").read_text().splitlines()]
    rates = [record["pictures_per_second"] for record in log]
    told = {key: value for key, value in log[-1].items() if key.endswith(("loss", "accuracy", "cosine"))}
    return told | {"pictures_per_second": round(float(np.median(rates)), 1)}
