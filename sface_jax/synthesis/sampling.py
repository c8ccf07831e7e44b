"""Where the styles come from: a strategy turns (seed, class, index, attempt), and nothing else, into w.

A new strategy is one function of a `Source` and `Samples`, and one entry in `STRATEGIES`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Key

from sface_jax.core import rng
from sface_jax.core.arrays import AnyArray

Styles = Float[Array, "n l w"]

FOR_CENTRES = 2**31 - 1
"""An attempt that no picture gets to: the draws a class's centre among the synthetic pictures is taken from."""


class Samples(NamedTuple):
    """Pictures to draw.

    Attributes:
        labels: class of each, [n].
        indices: its number in the class, from 0, [n].
        attempts: how often it was drawn before and rejected, [n].
    """

    labels: Int[AnyArray, " n"]
    indices: Int[AnyArray, " n"]
    attempts: Int[AnyArray, " n"]


@dataclasses.dataclass(frozen=True)
class Source:
    """What strategies draw from.

    Attributes:
        generator: the conditional generator.
        variables: its variables.
        centres: w_c of all its classes, for the strategies that need them (`gan.centres`).
        seed: of all latents.
        psi: truncation, 1 for none. Towards what, the strategy says.
        shared_seeds: latents in the pool of `shared_seeds`.
    """

    generator: nn.Module
    variables: Any
    centres: Float[Array, "c w"] | None
    seed: int
    psi: float
    shared_seeds: int

    def latents(self, samples: Samples) -> Float[Array, "n z"]:
        """A latent z ~ N(0, I) of its own for every sample."""
        size = (self.generator.z_dim,)
        return jax.vmap(lambda one: jax.random.normal(sample_key(self.seed, "synthesis/z", one), size))(samples)

    def map(self, z: Float[Array, "n z"], labels: Int[AnyArray, " n"], psi: float = 1.0) -> Styles:
        """Maps latents and labels to w; psi below 1 truncates towards the mean w of all classes."""
        return self.generator.apply(self.variables, z, labels, truncation_psi=psi, method="map")


def free(source: Source, samples: Samples) -> Styles:
    """A latent of its own for every picture (SFace, arXiv 2206.10520, section 3.1).

    w = w_avg + psi (mapping(z, c) - w_avg), z ~ N(0, I), with w_avg the mean over all classes.
    """
    return source.map(source.latents(samples), samples.labels, source.psi)


def shared_seeds(source: Source, samples: Samples) -> Styles:
    """Latents from a pool that all classes share, as in the released script of SFace; else as `free`.

    Each picture picks one of the pool's latents, with replacement, so a class may hold the same latent twice; only
    the noise of the synthesis tells such pictures apart.
    """

    def latent(one: Samples) -> Float[Array, " z"]:
        pick = jax.random.randint(sample_key(source.seed, "synthesis/pick", one), (), 0, source.shared_seeds)
        return jax.random.normal(rng.stream(source.seed, "synthesis/pool", pick), (source.generator.z_dim,))

    return source.map(jax.vmap(latent)(samples), samples.labels, source.psi)


def class_centre(source: Source, samples: Samples) -> Styles:
    """Truncation towards the centre of the picture's own class.

    w = w_c + psi (mapping(z, c) - w_c), w_c = E_z[mapping(z, c)]: psi trades variation within the class for
    consistency, where truncation towards the mean of all classes also draws the identities together.
    """
    w_c = source.centres[samples.labels][:, None]  # [n, 1, w]
    return w_c + source.psi * (source.map(source.latents(samples), samples.labels) - w_c)


def identity_driven(source: Source, samples: Samples) -> Styles:
    """The identity from the class's centre, the variation around it from another class, drawn for every picture.

    w = w_c + psi (mapping(z, k) - w_k), k uniform over the other classes.

    A reconstruction. SFace2 (Boutros et al., TBIOM 2024, doi 10.1109/TBIOM.2024.3371502) finds that w carries the
    identity and lets it drive the sampling there; its abstract says no more, and this is our own reading of it.
    """
    classes = len(source.centres)

    def another(one: Samples) -> Int[Array, ""]:
        step = 1 + jax.random.randint(sample_key(source.seed, "synthesis/other", one), (), 0, classes - 1)
        return (one.labels + step) % classes

    others = jax.vmap(another)(samples)
    variation = source.map(source.latents(samples), others) - source.centres[others][:, None]
    return source.centres[samples.labels][:, None] + source.psi * variation


@dataclasses.dataclass(frozen=True)
class Strategy:
    """A way of sampling.

    Attributes:
        styles: (source, samples) -> w of each picture and layer; of each sample alone, whatever its neighbours.
        words: for the dataset card; may name keys of the recipe in braces.
        centres: whether it needs the centres of the classes in w.
    """

    styles: Callable[[Source, Samples], Styles]
    words: str
    centres: bool = False


STRATEGIES = {
    "free": Strategy(
        free, "z ~ N(0, I), one of its own for each picture; psi truncates towards the mean w of all classes"
    ),
    "shared_seeds": Strategy(
        shared_seeds,
        "latents picked, with replacement, from {shared_seeds:,} that all classes share; psi truncates towards the "
        "mean w of all classes",
    ),
    "class_centre": Strategy(
        class_centre,
        "z ~ N(0, I), one of its own for each picture; psi truncates towards the class's centre in w, the mean over "
        "{centre_samples:,} latents",
        centres=True,
    ),
    "identity_driven": Strategy(
        identity_driven,
        "the class's centre in w, plus psi times the deviation of a random w of another class from that class's "
        "centre; centres are means over {centre_samples:,} latents (a reconstruction of the idea of SFace2, not its "
        "released method)",
        centres=True,
    ),
}


def sample_key(seed: int, name: str, sample: Samples) -> Key[Array, ""]:
    """Returns the key of one sample in a named random stream.

    The first attempt has the key of (seed, class, index) alone: what is accepted at once is the very picture that
    is drawn without rejection.
    """
    key = jax.random.fold_in(rng.stream(seed, name, sample.labels), sample.indices)
    return jnp.where(sample.attempts == 0, key, jax.random.fold_in(key, sample.attempts))
