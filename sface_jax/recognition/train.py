"""The stage "recognition": trains one recogniser on a dataset on disk."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from typing import Any

import jax
from absl import logging
from etils import epath
from ml_collections import ConfigDict

from sface_jax.core import costs, files, speed, train_loop
from sface_jax.core import mesh as meshes
from sface_jax.core.errors import UserError
from sface_jax.data import layout, mixture, pipeline
from sface_jax.data.dataset import PictureSet
from sface_jax.recognition import augment, network, programs, teacher
from sface_jax.recognition.trainer import Trainer

GIB = 2**30

Judge = Callable[[network.Network], dict[str, float]]
"""A network's figures on benchmarks."""


def run(
    config: ConfigDict,
    workdir: epath.Path,
    open_network: network.OpenNetwork = network.load,
    open_judge: Callable[..., Judge] | None = None,
) -> dict[str, Any]:
    """Trains a recogniser.

    The network of the last step is the result: no benchmark, and no other step, has a say in it. With `verify_every`
    its accuracy on `verify_benchmarks` is logged on the way, while the input pipeline goes on.

    Args:
        config: see configs/combined.py.
        workdir: gets `recognition/<config.name>` with checkpoints, metrics.jsonl and network.json.
        open_network: opens the teacher.
        open_judge: opens the benchmarks, see `verification.during.open_judge`.

    Raises:
        UserError: a benchmark cannot be read, or dataset or teacher are missing or do not suit.
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
    trainer = Trainer(config, pictures.num_classes, len(pictures), pictures.image_size, mesh, taught_by)
    architecture = network.attributes(trainer.backbone)
    _same_network(directory, architecture, pictures.num_classes)
    if taught_by and config.teacher_cache:
        trainer.targets = teacher.cached(taught_by, pictures, mesh, workdir / "recognition" / "teacher_cache")
    facts = {"classes": pictures.num_classes, "pictures": len(pictures), "dataset": str(config.dataset)}
    network.describe(directory, architecture, trainer.preprocessing, facts)
    hooks = []
    if config.verify_every and open_judge:
        judge = open_judge(config.verify_benchmarks, workdir, trainer.preprocessing.size, config.batch_size)
        hooks.append((config.verify_every, lambda state, step: judge(trainer.recogniser(state))))
    size = sum(math.prod(x.shape) for x in jax.tree.leaves(trainer.abstract()[0].params["backbone"]))
    _announce(config, trainer, pictures, size)
    train_loop.run(
        config.name,
        trainer.init(),
        trainer.step,
        pipeline.from_config(pictures, config, augment.in_workers(config.augmentations)),
        total_steps=trainer.total_steps,
        directory=directory,
        log_every=config.log_every,
        checkpoint_every=config.checkpoint_every,
        keep=config.keep_checkpoints,
        pictures_per_step=config.batch_size,
        flops_per_step=config.batch_size * programs.counted(trainer)["train"],
        profile=config.profile,
        tensorboard=config.tensorboard,
        hooks=hooks,
        padded="head",
        tell=pictures.names_of,
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
    cost, devices = costs.memory(trainer.compile()), trainer.mesh.size
    matrix = 4 * trainer.head_rows / devices * trainer.backbone.embedding_size
    logits = 4 * config.batch_size * trainer.head_rows / devices * config.class_sample_rate
    logging.info(
        "%s: a step takes %.2f GiB of each of %s devices: activations and gradients %.2f; class matrix %.3f, with its "
        "momentum twice that; one set of logits %.3f",
        *(config.name, cost["memory"] / GIB, devices, cost["temporaries"] / GIB, matrix / GIB, logits / GIB),
    )
    limit = (jax.local_devices()[0].memory_stats() or {}).get("bytes_limit", math.inf)
    if cost["memory"] > limit:
        raise UserError(
            f"a step needs {cost['memory'] / GIB:.1f} GiB of a device that has {limit / GIB:.1f}: "
            "lower batch_size, set dtype=bfloat16, or take more devices"
        )


def _same_network(directory: epath.Path, architecture: dict[str, Any], num_classes: int) -> None:
    """Refuses to go on with checkpoints of another architecture, or of another number of classes."""
    path = directory / "network.json"
    if not path.exists() or not (directory / "checkpoints").exists():
        return
    facts = files.read_json(path)
    begun = network.attributes(network.build(facts["architecture"])), facts.get("training", {}).get("classes")
    if begun[0] != architecture or begun[1] not in (None, num_classes):
        raise UserError(
            f"{directory} was begun with another architecture, or with {begun[1]} classes where the dataset has "
            f"{num_classes}: choose another --workdir or --config.name"
        )


def _outcome(directory: epath.Path) -> dict[str, float]:
    """The last scalars logged, and the usual rate."""
    if not meshes.is_lead():
        return {}
    log = [json.loads(line) for line in (directory / "metrics.jsonl").read_text().splitlines()]
    last = {key: value for record in log if record["step"] == log[-1]["step"] for key, value in record.items()}
    told = {key: value for key, value in last.items() if key.endswith(("loss", "accuracy", "cosine"))}
    return told | {"speed": speed.usual(directory)}
