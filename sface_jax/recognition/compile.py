"""The stage "compile_recognition": a recogniser's programs ahead of time, with what they cost."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from etils import epath
from jax.sharding import Mesh
from ml_collections import ConfigDict

from sface_jax.core import ahead
from sface_jax.recognition import programs
from sface_jax.recognition.network import Network
from sface_jax.recognition.trainer import Trainer

STRATEGIES = {"classification": (1.0, 0.0), "distillation": (0.0, 10000.0), "combined": (1.0, 10000.0)}
"""Weights of the classification and of the distillation term."""


def run(config: ConfigDict, workdir: epath.Path) -> dict[str, Any]:
    """Prints a table and writes `compile/<name>.json`; see `ahead.tell`.

    The programs are "embed" and "classify", the parts of a network in training, and the training step of each strategy.

    Args:
        config: see configs/compile.py.
        workdir: gets the file.

    Raises:
        UserError: there is no compiler for the topology, or a key does not suit.
    """
    mesh = ahead.mesh(config.topology, config.mesh.model)
    config = ConfigDict({**config.to_dict(), "batch_size": config.batch_per_device * mesh.size})
    found: dict[str, ahead.Program] = {}
    for strategy, trainer in trainers(config, mesh).items():
        own = programs.programs(trainer)
        found |= {strategy: own.pop("train")} | {name: own[name] for name in own if name not in found}
    facts = {"network": config.network, "dtype": config.dtype, "classes": config.classes, "model": config.mesh.model}
    return ahead.tell(config, workdir, mesh, found, **facts, batch_size=config.batch_size)


def trainers(config: ConfigDict, mesh: Mesh) -> dict[str, Trainer]:
    """The trainers of all strategies. The teacher is a network like the student, of shapes, and runs in the step.

    Args:
        config: see configs/compile.py, with `batch_size`.
        mesh: the devices.
    """

    def of(strategy: str, teacher: Network | None = None) -> Trainer:
        by_labels, by_teacher = STRATEGIES[strategy]
        weights = {"classification_weight": by_labels, "distillation_weight": by_teacher}
        own = ConfigDict({**config.to_dict(), **weights})
        return Trainer(own, config.classes, config.batch_size, config.image_size, mesh, teacher)

    alone = of("classification")
    size = alone.preprocessing.size
    picture = jax.ShapeDtypeStruct((1, size, size, 3), jnp.float32)
    variables = jax.eval_shape(alone.backbone.init, jax.random.key(0), picture)
    teacher = Network(alone.backbone, variables, alone.preprocessing)
    return {"classification": alone} | {name: of(name, teacher) for name in ("distillation", "combined")}
