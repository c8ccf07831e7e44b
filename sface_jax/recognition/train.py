"""Training of recognisers: one trainer, whose loss is the weighted sum of a classification and a distillation term."""

from __future__ import annotations

import functools
import json
import math
from collections.abc import Callable
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
from absl import logging
from etils import epath
from jaxtyping import Array, Float, Int
from ml_collections import ConfigDict

from sface_jax.core import mesh as meshes
from sface_jax.core import rng, train_loop
from sface_jax.core.errors import UserError
from sface_jax.data import dataset, layout, pipeline
from sface_jax.recognition import augment, losses, margins, network, optimiser
from sface_jax.recognition.head import ClassifierHead

Tree = Any
Logits = Callable[[Float[Array, "n c"], Int[Array, " n"]], Float[Array, "n c"]]


class State(flax.struct.PyTreeNode):
    """Everything that training needs to go on; JAX also fills it with shapes, shardings or nothing.

    Attributes:
        step: steps done, int32.
        params: {"backbone"}, and {"head"} where there is a classification term.
        batch_stats: running statistics of the backbone.
        velocity: SGD's momentum, like `params`.
    """

    step: Any
    params: Tree
    batch_stats: Tree
    velocity: Tree


class Trainer:
    """The networks, schedule and compiled step of a run."""

    def __init__(
        self,
        config: ConfigDict,
        num_classes: int,
        num_pictures: int,
        image_size: int,
        mesh: jax.sharding.Mesh,
        teacher: network.Network | None = None,
    ):
        """Builds everything but the state.

        Args:
            config: see configs/combined.py.
            num_classes: identities in the training set.
            num_pictures: pictures in the training set; an epoch is that many.
            image_size: side of the training pictures, taken for the network's where `config.image_size` is 0.
            mesh: devices; the batch is sharded over "data", the state is on each.
            teacher: for the distillation term.

        Raises:
            UserError: a key of the config does not suit.
        """
        self.config, self.mesh, self.teacher = config, mesh, teacher
        self.attributes = network.architecture(
            config.network,
            blocks=config.blocks,
            widths=config.widths,
            strides=config.strides,
            stem_stride=config.stem_stride,
            embedding_size=config.embedding_size,
            dropout=config.dropout,
            squeeze_excitation=config.squeeze_excitation,
            dtype=config.dtype,
        )
        self.backbone = network.build(self.attributes)
        _check(config, num_classes, self.attributes["embedding_size"], teacher)
        self.preprocessing = network.Preprocessing(size=config.image_size or image_size)
        self.head = ClassifierHead(num_classes) if config.classification_weight else None
        self.logits = _logits(config)
        epoch = num_pictures / config.batch_size
        self.total_steps = config.steps or math.ceil(config.epochs * epoch)
        self.learning_rate = functools.partial(
            optimiser.learning_rate,
            base=config.learning_rate * config.batch_size / config.learning_rate_batch,
            schedule=config.schedule,
            total_steps=self.total_steps,
            milestones=tuple(math.ceil(milestone * epoch) for milestone in config.milestones),
            factor=config.milestone_factor,
            warmup_steps=round(config.warmup_epochs * epoch),
        )
        jax.eval_shape(self.learning_rate, 0)  # tells a wrong schedule before anything is compiled
        whole, batch = meshes.replicated(mesh), meshes.batch_sharding(mesh)
        self._teacher_variables = meshes.replicate(teacher.variables, mesh) if teacher else None
        self._update = jax.jit(
            self._one_step, in_shardings=(whole, whole, batch), out_shardings=(whole, whole), donate_argnums=0
        )

    def init(self) -> State:
        """Makes the state of step 0, on every device."""
        size, seed = self.preprocessing.size, self.config.seed

        def make() -> State:
            variables = self.backbone.init(rng.stream(seed, "recognition/backbone"), jnp.zeros((1, size, size, 3)))
            params = {"backbone": variables["params"]}
            if self.head:
                embedding = jnp.zeros((1, self.backbone.embedding_size))
                params["head"] = self.head.init(rng.stream(seed, "recognition/head"), embedding)["params"]
            return State(
                step=jnp.zeros((), jnp.int32),
                params=params,
                batch_stats=variables["batch_stats"],
                velocity=jax.tree.map(jnp.zeros_like, params),
            )

        return jax.jit(make, out_shardings=meshes.replicated(self.mesh))()

    def step(self, state: State, batch: dict[str, np.ndarray], number: int) -> tuple[State, dict[str, jax.Array]]:
        """One step of SGD. The state is donated.

        Args:
            state: after `number` steps.
            batch: this process's share of pictures "image" uint8 [n, h, w, 3] and "label" int32 [n].
            number: the step, from 0; the state knows it too.
        """
        del number
        return self._update(state, self._teacher_variables, meshes.shard_batch(batch, self.mesh))

    def _one_step(self, state: State, teacher: Tree, batch: dict[str, jax.Array]) -> tuple[State, dict[str, jax.Array]]:
        config = self.config
        pictures = batch["image"].astype(jnp.float32)  # [n,h,w,3], 0..255
        pictures = augment.apply(config.augmentations, rng.stream(config.seed, "augment", state.step), pictures)
        target = self._teach(teacher, pictures)
        gradients, (batch_stats, told) = jax.grad(self._loss, has_aux=True)(
            state.params, state, pictures, batch["label"], target
        )
        # Only the backbone is clipped, as in the published recipe: the head's gradient has another scale.
        size = optimiser.norm(gradients["backbone"])
        gradients = gradients | {"backbone": optimiser.clip(gradients["backbone"], size, config.clip_norm)}
        rate = self.learning_rate(state.step)
        params, velocity = optimiser.sgd(
            state.params, state.velocity, gradients, rate, config.momentum, config.weight_decay
        )
        state = State(step=state.step + 1, params=params, batch_stats=batch_stats, velocity=velocity)
        return state, told | {"gradient_norm": size, "learning_rate": rate}

    def _teach(self, teacher: Tree, pictures: Float[Array, "n h w 3"]) -> Float[Array, "n d"] | None:
        """The teacher's embeddings of the pictures as the student sees them, augmented."""
        if not self.teacher:
            return None
        return self.teacher.module.apply(teacher, self.teacher.preprocessing(pictures), train=False)

    def _loss(
        self,
        params: Tree,
        state: State,
        pictures: Float[Array, "n h w 3"],
        labels: Int[Array, " n"],
        target: Float[Array, "n d"] | None,
    ) -> tuple[Float[Array, ""], tuple[Tree, dict[str, jax.Array]]]:
        """L = classification_weight L_margin + distillation_weight L_KT."""
        config, told = self.config, {}
        embeddings, changed = self.backbone.apply(
            {"params": params["backbone"], "batch_stats": state.batch_stats},
            self.preprocessing(pictures),
            train=True,
            mutable=["batch_stats"],
            rngs={"dropout": rng.stream(config.seed, "dropout", state.step)},
        )  # [n,d]
        total = jnp.zeros(())
        if self.head:
            cosine = self.head.apply({"params": params["head"]}, embeddings)  # [n,c]
            told["classification_loss"] = losses.classification(self.logits(cosine, labels), labels)
            told["accuracy"] = (cosine.argmax(1) == labels).mean()
            total += config.classification_weight * told["classification_loss"]
        if target is not None:
            told["distillation_loss"] = losses.distillation(embeddings, target)
            told["teacher_cosine"] = 1 - told["distillation_loss"] * embeddings.shape[1] / 2
            total += config.distillation_weight * told["distillation_loss"]
        return total, (changed["batch_stats"], {"loss": total} | told)


def _logits(config: ConfigDict) -> Logits:
    """The margin that the config names."""
    known: dict[str, Logits] = {
        "softmax": functools.partial(margins.softmax, scale=config.scale),
        "cosface": functools.partial(margins.cosface, scale=config.scale, margin=config.margin),
        "arcface": functools.partial(margins.arcface, scale=config.scale, margin=config.margin),
    }
    if config.head not in known:
        raise UserError(f"config.head is {config.head!r}: choose from {', '.join(known)}")
    return known[config.head]


def _check(config: ConfigDict, num_classes: int, embedding_size: int, teacher: network.Network | None) -> None:
    if min(config.classification_weight, config.distillation_weight) < 0 or not (
        config.classification_weight or config.distillation_weight
    ):
        raise UserError("set config.classification_weight or config.distillation_weight above 0, and neither below")
    if config.classification_weight and num_classes < 2:
        raise UserError(f"classification needs two identities or more, {config.dataset} has {num_classes}")
    if config.batch_size % jax.device_count():
        raise UserError(f"batch_size={config.batch_size} does not divide over {jax.device_count()} devices")
    if teacher and (size := teacher.module.embedding_size) != embedding_size:
        raise UserError(
            f"the teacher's embeddings have {size} dimensions, the student's {embedding_size}: "
            f"set --config.embedding_size={size}"
        )
    augment.check(config.augmentations)


def run(config: ConfigDict, workdir: epath.Path) -> dict[str, Any]:
    """Trains a recogniser; the stage "recognition".

    Args:
        config: see configs/combined.py.
        workdir: gets `recognition/<config.name>` with checkpoints, metrics.jsonl and network.json.

    Raises:
        UserError: dataset or teacher are missing or do not suit.
    """
    if not (epath.Path(config.dataset) / layout.INFO_FILE).exists():
        teacher = " and --config.teacher=DIR" if config.distillation_weight else ""
        raise UserError(
            f"no training pictures in {config.dataset}: set --config.dataset=DIR{teacher}, "
            "or see it run on embedded faces with --config=configs/combined.py:quickstart"
        )
    split = dataset.open(config.dataset)[config.split]
    teacher = network.load(config.teacher, "teacher") if config.distillation_weight else None
    trainer = Trainer(
        config,
        split.num_classes,
        len(split),
        split.image_size,
        meshes.make_mesh(config.mesh.data, config.mesh.model),
        teacher,
    )
    directory = workdir / "recognition" / config.name
    network.describe(directory, trainer.attributes, trainer.preprocessing)
    state = trainer.init()
    size = sum(x.size for x in jax.tree.leaves(state.params["backbone"]))
    logging.info(
        "%s: %s classes, %s pictures, %s parameters, %s steps",
        config.name, split.num_classes, len(split), size, trainer.total_steps,
    )  # fmt: skip
    state = train_loop.run(
        config.name,
        state,
        trainer.step,
        pipeline.from_config(split, config),
        total_steps=trainer.total_steps,
        directory=directory,
        log_every=config.log_every,
        checkpoint_every=config.checkpoint_every,
        keep=config.keep_checkpoints,
        pictures_per_step=config.batch_size,
        tensorboard=config.tensorboard,
    )
    return {
        "network": config.name,
        "steps": trainer.total_steps,
        "epochs": trainer.total_steps * config.batch_size / len(split),
        "classes": split.num_classes,
        "pictures": len(split),
        "parameters": size,
    } | _outcome(directory)


def _outcome(directory: epath.Path) -> dict[str, float]:
    """The last scalars logged, and the usual rate."""
    if not meshes.is_lead():
        return {}
    log = [json.loads(line) for line in (directory / "metrics.jsonl").read_text().splitlines()]
    rates = [record["pictures_per_second"] for record in log]
    told = {key: value for key, value in log[-1].items() if key.endswith(("loss", "accuracy", "cosine"))}
    return told | {"pictures_per_second": round(float(np.median(rates)), 1)}
