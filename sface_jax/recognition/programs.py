"""The programs of a recogniser's training and use, lowered for any devices, at hand or not; to time or count them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from sface_jax.core import costs
from sface_jax.core import mesh as meshes
from sface_jax.core.ahead import Program
from sface_jax.recognition import head
from sface_jax.recognition.network import Network
from sface_jax.recognition.trainer import Trainer


def programs(trainer: Trainer) -> dict[str, Program]:
    """Those of `lowered`, with their operations."""
    by_hand = counted(trainer)
    return {name: Program(lower, by_hand[name], trainer.config.batch_size) for name, lower in lowered(trainer).items()}


def lowered(trainer: Trainer) -> dict[str, Callable[[], jax.stages.Lowered]]:
    """Ways to lower each program.

    Args:
        trainer: its mesh may be of devices that only a compiler knows.

    Returns:
        name -> function: "embed" takes (variables, pictures 0..255) and gives embeddings; "classify", where there is a
        classification term, takes (weight, embeddings, labels, margin's state) and gives the loss and its gradients;
        "train" takes what `Trainer.update` does.
    """
    state, teacher, batch = trainer.abstract()
    whole, spread = meshes.replicated(trainer.mesh), meshes.batch_sharding(trainer.mesh)
    variables = {"params": meshes.shapes(state.params["backbone"]), "batch_stats": state.batch_stats}
    embed = jax.jit(_embed(trainer), in_shardings=(whole, spread), out_shardings=spread)
    train = {"train": lambda: trainer.update.lower(state, teacher, batch)}
    found = {"embed": lambda: embed.lower(variables, batch["image"])}
    if not trainer.method:
        return found | train
    weight = state.params["head"]["weight"]
    size = trainer.backbone.embedding_size
    embeddings = jax.ShapeDtypeStruct((trainer.config.batch_size, size), jnp.float32, sharding=spread)

    def loss(weight: jax.Array, embeddings: jax.Array, labels: jax.Array, margin: Any) -> jax.Array:
        key, options = jax.random.key(0), {"sample_rate": trainer.config.class_sample_rate}
        return head.classify(
            *(trainer.method, embeddings, labels, weight, margin, key),
            **(options | {"num_classes": trainer.num_classes, "mesh": trainer.mesh}),
        ).loss

    classify = jax.jit(
        jax.value_and_grad(loss, (0, 1)),
        in_shardings=(weight.sharding, spread, spread, whole),
        out_shardings=(whole, (weight.sharding, spread)),
    )
    found["classify"] = lambda: classify.lower(weight, embeddings, batch["label"], state.margin)
    return found | train


def counted(trainer: Trainer) -> dict[str, float]:
    """The operations of each program for one picture: products alone, each of which has two gradients in training.

    A teacher that runs in the step sees each picture once.
    """
    state, _, batch = trainer.abstract()
    one = jax.ShapeDtypeStruct((1, *batch["image"].shape[1:]), jnp.uint8)
    variables = {"params": state.params["backbone"], "batch_stats": state.batch_stats}
    embed = costs.products(_embed(trainer), variables, one)
    classes = trainer.num_classes * trainer.config.class_sample_rate if trainer.method else 0
    classify = 3 * 2 * classes * trainer.backbone.embedding_size
    taught = 0.0
    if trainer.teacher and trainer.targets is None:
        taught = costs.products(_apply(trainer.teacher), trainer.teacher.variables, one)
    return {"embed": embed, "classify": classify, "train": 3 * embed + taught + classify}


def _embed(trainer: Trainer) -> Callable[[Any, jax.Array], jax.Array]:
    return _apply(Network(trainer.backbone, {}, trainer.preprocessing))


def _apply(network: Network) -> Callable[[Any, jax.Array], jax.Array]:
    return lambda variables, pictures: network.module.apply(variables, network.preprocessing(pictures), train=False)
