"""Watching a conditional GAN: what a recogniser sees in its pictures, against those it learns from."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np
from absl import logging
from etils import epath
from jaxtyping import Float

from sface_jax.core import files, pictures, rng
from sface_jax.core import mesh as meshes
from sface_jax.core.checkpoint import Checkpoints
from sface_jax.core.embedder import Embedder
from sface_jax.core.errors import UserError
from sface_jax.gan import quality

if TYPE_CHECKING:
    from sface_jax.data.dataset import Split
    from sface_jax.gan.trainer import State, Trainer

METRICS = {"frechet": -1, "kernel": -1, "precision": 1, "recall": 1, "label_similarity": 1, "label_rank1": 1}
"""What the best may be chosen by, and whether more of it is better. Spread and similarities have no best value."""

KEPT = ("step", "generator_ema", "buffers", "discriminator")


class Watch:
    """A hook of the training loop: measures the averaged generator, warns of collapse, keeps the best of it.

    The same classes, latents and authentic training pictures are looked at every time. No benchmark is touched: what
    is best is best on the data that the generator learns from.
    """

    def __init__(self, trainer: Trainer, split: Split, embedder: Embedder, directory: epath.Path):
        """Chooses what to look at, and looks at the authentic side of it once.

        Args:
            trainer: the networks and the config (keys `watch_*`).
            split: the authentic pictures of the training.
            embedder: what looks.
            directory: gets `best/` and `best.json`.

        Raises:
            UserError: `watch_metric` is none of `METRICS`, or there is too little to look at.
        """
        config, generator = trainer.config, trainer.generator
        if config.watch_metric not in METRICS:
            raise UserError(f"config.watch_metric={config.watch_metric!r}: choose one of {', '.join(METRICS)}")
        if config.watch_per_class < 2:
            raise UserError("config.watch_per_class=1 shows no spread within a class: set it to 2 or more")
        self.metric, self.directory, self.embedder, self.mesh = config.watch_metric, directory, embedder, trainer.mesh
        self.batch_size = config.batch_size
        self.warned = False
        classes = np.linspace(0, generator.num_classes - 1, min(config.watch_classes, generator.num_classes))
        classes = np.unique(classes.round().astype(np.int32))
        self.labels = np.repeat(classes, config.watch_per_class)
        self.z = jax.random.normal(rng.stream(config.seed, "gan/watch"), (len(self.labels), generator.z_dim))

        labels = split.labels - split.labels.min()
        chosen = np.concatenate([np.flatnonzero(labels == c)[: config.watch_per_class] for c in classes])
        replicated, batch = meshes.replicated(self.mesh), meshes.batch_sharding(self.mesh)

        def of_pictures(variables: Any, images: jax.Array) -> jax.Array:
            return embedder.apply(variables, pictures.from_uint8(images))

        def of_generator(weights: Any, state: State, z: jax.Array, c: jax.Array) -> jax.Array:
            images = jnp.clip(trainer.draw(state, z, c), -1, 1)  # as on disk
            return embedder.apply(weights, jax.lax.with_sharding_constraint(images, batch))

        see = jax.jit(of_pictures, in_shardings=(replicated, batch), out_shardings=replicated)
        self._draw = jax.jit(of_generator, out_shardings=replicated)
        self.weights = meshes.replicate(embedder.variables, self.mesh)
        self.authentic_labels = labels[chosen]
        self.authentic = self._in_batches(
            lambda rows: see(self.weights, meshes.shard_whole(split.images(chosen[rows]), self.mesh)), len(chosen)
        )
        # Pixels know nothing of faces, and labels that fade in make no fair comparison with later ones.
        self.chooses = embedder.name != "pixels"
        self.choose_after = 1000 * config.transition_end_kimg / config.batch_size

    def _in_batches(self, look: Any, count: int) -> Float[np.ndarray, "n d"]:
        """Features of `count` pictures, in batches of one size; the last is filled up from the front."""
        size = self.batch_size
        rows = [np.arange(start, start + size) % count for start in range(0, count, size)]
        return np.concatenate([np.asarray(look(batch)) for batch in rows])[:count]

    def __call__(self, state: State, step: int) -> dict[str, float]:
        """Measures, warns, keeps; returns what to log."""
        features = self._in_batches(
            lambda rows: self._draw(self.weights, state, self.z[rows], self.labels[rows]), len(self.labels)
        )
        told = quality.measure(self.authentic, self.authentic_labels, features, self.labels)
        told["collapsed"] = float(quality.collapsed(told["spread_ratio"]))
        self._warn(told, step)
        if self.chooses and step > self.choose_after:
            self._keep(told[self.metric], state, step)
        return {f"watch/{name}": value for name, value in told.items()}

    def _warn(self, told: dict[str, float], step: int) -> None:
        if told["collapsed"] and not self.warned:
            logging.warning(
                "gan: at step %s the pictures of a class spread %.0f %% as far as authentic ones do, seen through %s: "
                "the generator repeats itself within classes. Stop it or lower the learning rate; with few pictures "
                "a class set --config.augment=bgc, or begin without labels (--config.transition_end_kimg)",
                *(step, 100 * told["spread_ratio"], self.embedder.name),
            )
        self.warned = bool(told["collapsed"])

    def _keep(self, value: float, state: State, step: int) -> None:
        """Saves what is drawn from, where it is the best so far."""
        path = self.directory / "best.json"
        best = files.read_json(path) if path.exists() else {}
        sign = METRICS[self.metric]
        worse = best.get("metric") == self.metric and sign * value <= sign * best["value"]
        if meshes.as_lead_has_it(float(worse or not math.isfinite(value))):
            return
        checkpoints = Checkpoints(self.directory / "best", keep=1)
        checkpoints.drop_from(step)  # of a run that was cut off before it could tell
        checkpoints.save(step, {name: getattr(state, name) for name in KEPT})
        checkpoints.close()
        if meshes.is_lead():
            files.write_json(path, {"step": step, "metric": self.metric, "value": value})
        meshes.barrier("gan: the best is kept")
