"""Rejection by a recogniser: which drawn pictures are like their class, unlike other classes, and no copies."""

from __future__ import annotations

import dataclasses
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int
from ml_collections import ConfigDict

from sface_jax.core import mesh as meshes
from sface_jax.core import pictures
from sface_jax.core.arrays import AnyArray
from sface_jax.core.embedder import Embedder, OpenEmbedder
from sface_jax.core.errors import UserError
from sface_jax.data import dataset
from sface_jax.synthesis import draw as drawing
from sface_jax.synthesis.banks import Bank, authentic_bank, synthetic_bank
from sface_jax.synthesis.draw import Draw

CENTRES = ("synthetic", "authentic")


@dataclasses.dataclass(frozen=True)
class Conditions:
    """Cosines that a picture must keep to; the neutral value of each switches it off.

    Attributes:
        min_class: least with the centre of its class; 0 is off.
        max_other: most with the nearest centre of another class; 1 is off.
        max_authentic: most with the nearest authentic picture of its class; 1 is off.
    """

    min_class: float = 0.0
    max_other: float = 1.0
    max_authentic: float = 1.0

    @property
    def active(self) -> bool:
        """Whether there is any."""
        return self != Conditions()

    @property
    def use_centres(self) -> bool:
        """Whether any looks at the centres of classes."""
        return self.min_class > 0 or self.max_other < 1

    def violation(
        self, own: Float[np.ndarray, " n"], other: Float[np.ndarray, " n"], nearest: Float[np.ndarray, " n"]
    ) -> Float[np.ndarray, " n"]:
        """By how much each picture fails, summed over the conditions; 0 passes.

        Args:
            own: cosines with the centre of the picture's class.
            other: with the nearest centre of another class.
            nearest: with the nearest authentic picture of the class.
        """
        total = np.zeros(len(own), np.float32)
        if self.min_class > 0:
            total += np.maximum(self.min_class - own, 0)
        if self.max_other < 1:
            total += np.maximum(other - self.max_other, 0)
        if self.max_authentic < 1:
            total += np.maximum(nearest - self.max_authentic, 0)
        return total


@dataclasses.dataclass(frozen=True)
class Rejection:
    """What the config asks for, with what it names opened.

    Attributes:
        conditions: what a picture must keep to.
        attempts: most draws of a picture.
        embedder: the recogniser.
        centres: one of `CENTRES`.
        centre_pictures: synthetic pictures that a centre is taken from.
        authentic: split train of the authentic dataset, where it is needed.
    """

    conditions: Conditions
    attempts: int
    embedder: Embedder
    centres: str
    centre_pictures: int
    authentic: dataset.Split | None


def from_config(config: ConfigDict, classes: int, open_embedder: OpenEmbedder | None) -> Rejection | None:
    """Reads the config's keys of rejection and opens what they name; None where there is no rejection.

    Args:
        config: see configs/synthesize.py.
        classes: of the generator.
        open_embedder: opens `config.recognizer`.

    Raises:
        UserError: keys contradict each other, the recogniser does not open, or the authentic dataset is not the
            generator's.
    """
    conditions = Conditions(config.min_class_similarity, config.max_other_similarity, config.max_authentic_similarity)
    if not config.recognizer:
        if conditions.active:
            raise UserError(
                "rejection needs a recogniser: set config.recognizer to one, or leave config.min_class_similarity at "
                "0, config.max_other_similarity and config.max_authentic_similarity at 1"
            )
        return None
    _check(config, conditions)
    authentic = None
    if config.centres == "authentic" or conditions.max_authentic < 1:
        authentic = dataset.open(config.authentic, "authentic")["train"]
        if authentic.num_classes != classes:
            raise UserError(
                f"config.authentic={config.authentic} has {authentic.num_classes} identities in split train, but the "
                f"generator knows {classes}: set it to the dataset that the generator was trained on"
            )
    if open_embedder is None:
        raise UserError("config.recognizer is set, but nothing here opens one: run python -m sface_jax.main")
    try:
        embedder = open_embedder(config.recognizer)
    except OSError as error:
        raise UserError(f"config.recognizer={config.recognizer} does not open ({error}): set it to one") from error
    return Rejection(conditions, config.attempts, embedder, config.centres, config.centre_pictures, authentic)


def _check(config: ConfigDict, conditions: Conditions) -> None:
    if not conditions.active:
        raise UserError(
            "config.recognizer is set, but rejects nothing: set config.min_class_similarity, "
            "config.max_other_similarity or config.max_authentic_similarity"
        )
    for key in ("min_class_similarity", "max_other_similarity", "max_authentic_similarity"):
        if not 0 <= config[key] <= 1:
            raise UserError(f"config.{key}={config[key]} is a cosine: set it between 0 and 1")
    for key in ("attempts", "centre_pictures"):
        if config[key] < 1:
            raise UserError(f"config.{key}={config[key]}: set it to 1 or more")
    if config.centres not in CENTRES:
        raise UserError(f"config.centres={config.centres!r} is unknown: set it to one of {', '.join(CENTRES)}")


class Look(NamedTuple):
    """What the recogniser saw in a batch, still on the devices.

    Attributes:
        features: of length one.
        own: cosines with the centre of the picture's class.
        other: with the nearest centre of another class.
    """

    features: Float[Array, "n d"]
    own: Float[Array, " n"]
    other: Float[Array, " n"]


class Judge:
    """Tells by how much drawn pictures fail the conditions.

    A judgement is that of the picture alone, up to rounding: where the backend's arithmetic depends on a picture's
    place in the batch, a picture that meets a condition to the last bit may be judged either way.
    """

    def __init__(self, rejection: Rejection, classes: int, draw: Draw, batch_size: int):
        """Finds the centres of all classes; every process of the run must take part.

        Args:
            rejection: what to judge by.
            classes: of the generator.
            draw: draws a batch, for the centres of synthetic pictures.
            batch_size: pictures in a batch, over the devices of this process.
        """
        self.conditions = rejection.conditions
        local = drawing.local_mesh()
        split, whole = meshes.batch_sharding(local), meshes.replicated(local)
        apply = rejection.embedder.apply
        variables = meshes.replicate(rejection.embedder.variables, local)

        def embed(variables: Any, images: Float[Array, "n h w 3"]) -> Float[Array, "n d"]:
            features = apply(variables, _as_saved(images)).astype(jnp.float32)
            return features / jnp.maximum(jnp.linalg.norm(features, axis=1, keepdims=True), 1e-12)

        def look(
            variables: Any, centres: Float[Array, "c d"], images: Float[Array, "n h w 3"], labels: Int[Array, " n"]
        ) -> Look:
            features = embed(variables, images)
            cosines = jnp.matmul(features, centres.T, precision="highest")  # [n, c]
            mine = jnp.arange(classes) == labels[:, None]
            own, other = (jnp.where(those, cosines, -jnp.inf).max(1) for those in (mine, ~mine))
            return Look(features, own, other)

        compiled = jax.jit(embed, in_shardings=(whole, split), out_shardings=split)

        def features(images: Float[AnyArray, "n h w 3"]) -> Float[Array, "n d"]:
            return compiled(variables, images)

        self._authentic: Bank | None = None
        if rejection.authentic is not None:
            self._authentic = authentic_bank(rejection.authentic, features, batch_size)
        if rejection.centres == "authentic" or not self.conditions.use_centres:
            centres = self._authentic.centres()
        else:
            centres = synthetic_bank(classes, rejection.centre_pictures, draw, features, batch_size).centres()
        if self.conditions.max_authentic == 1:
            self._authentic = None  # a gigabyte for half a million pictures
        centres = jax.device_put(centres, whole)
        judge = jax.jit(look, in_shardings=(whole, whole, split, split), out_shardings=split)
        self._look = lambda images, labels: judge(variables, centres, images, jax.device_put(labels, split))

    def look(self, images: Float[Array, "n h w 3"], labels: Int[np.ndarray, " n"]) -> Look:
        """Shows a drawn batch to the recogniser, without waiting for what it sees."""
        return self._look(images, labels.astype(np.int32))

    def violations(self, look: Look, labels: Int[np.ndarray, " n"]) -> Float[np.ndarray, " n"]:
        """By how much each picture of a batch fails; 0 is accepted."""
        nearest = np.full(len(labels), -np.inf, np.float32)
        if self._authentic is not None:
            nearest = self._authentic.nearest(np.asarray(look.features), labels)
        return self.conditions.violation(np.asarray(look.own), np.asarray(look.other), nearest)


def _as_saved(images: Float[Array, "n h w 3"]) -> Float[Array, "n h w 3"]:
    """Pictures as they come back from their files: clipped and rounded to 256 values, as by `pictures.to_uint8`."""
    pixels = jnp.clip(jnp.rint((images.astype(jnp.float32) + 1.0) * 127.5), 0, 255)
    return pictures.from_uint8(pixels.astype(jnp.uint8))
