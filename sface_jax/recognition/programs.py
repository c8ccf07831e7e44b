"""The programs of a recogniser's training and use, lowered for any devices, at hand or not; to time or count them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from sface_jax.core import costs
from sface_jax.core import mesh as meshes
from sface_jax.recognition import head
from sface_jax.recognition.trainer import Trainer


def lowered(trainer: Trainer) -> dict[str, Callable[[], jax.stages.Lowered]]:
    """Ways to lower each program.

    Args:
        trainer: with a classification term; its mesh may be of devices that only a compiler knows.

    Returns:
        name -> function: "embed" takes (variables, pictures 0..255) and gives embeddings; "classify" takes (weight,
        embeddings, labels, margin's state) and gives the loss and its gradients; "train" takes what `Trainer.update`
        does.
    """
    state, teacher, batch = trainer.abstract()
    whole, spread = meshes.replicated(trainer.mesh), meshes.batch_sharding(trainer.mesh)
    size = trainer.backbone.embedding_size
    embeddings = jax.ShapeDtypeStruct((trainer.config.batch_size, size), jnp.float32, sharding=spread)
    variables = {"params": state.params["backbone"], "batch_stats": state.batch_stats}

    def loss(weight: jax.Array, embeddings: jax.Array, labels: jax.Array, margin: Any) -> jax.Array:
        key, options = jax.random.key(0), {"sample_rate": trainer.config.class_sample_rate}
        return head.classify(
            *(trainer.method, embeddings, labels, weight, margin, key),
            **(options | {"num_classes": trainer.num_classes, "mesh": trainer.mesh}),
        ).loss

    classify = jax.jit(
        jax.value_and_grad(loss, (0, 1)),
        in_shardings=(spread, spread, spread, whole),
        out_shardings=(whole, (spread, spread)),
    )
    embed = jax.jit(_embed(trainer), in_shardings=(whole, spread), out_shardings=spread)
    return {
        "embed": lambda: embed.lower(variables, batch["image"]),
        "classify": lambda: classify.lower(state.params["head"]["weight"], embeddings, batch["label"], state.margin),
        "train": lambda: trainer.update.lower(state, teacher, batch),
    }


def counted(trainer: Trainer) -> dict[str, float]:
    """The operations of each program for one picture: products alone, each of which has two gradients in training."""
    state, _, batch = trainer.abstract()
    one = jax.ShapeDtypeStruct((1, *batch["image"].shape[1:]), jnp.uint8)
    variables = {"params": state.params["backbone"], "batch_stats": state.batch_stats}
    embed = costs.products(_embed(trainer), variables, one)
    classes = trainer.num_classes * trainer.config.class_sample_rate
    classify = 3 * 2 * classes * trainer.backbone.embedding_size
    return {"embed": embed, "classify": classify, "train": 3 * embed + classify}


def _embed(trainer: Trainer) -> Callable[[Any, jax.Array], jax.Array]:
    return lambda variables, pictures: trainer.backbone.apply(variables, trainer.preprocessing(pictures), train=False)
