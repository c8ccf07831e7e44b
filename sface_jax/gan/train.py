"""Training of the class-conditional GAN: one state, and the declared phases that each step goes through."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
import optax
from absl import logging
from etils import epath
from jaxtyping import Array, Float, Int
from ml_collections import ConfigDict

from sface_jax.core import mesh as meshes
from sface_jax.core import pictures, rng, train_loop
from sface_jax.core.errors import UserError
from sface_jax.data import dataset, pipeline
from sface_jax.gan import losses, network

Tree = Any
Batch = dict[str, jax.Array]


class State(flax.struct.PyTreeNode):
    """Everything that training needs to go on.

    Attributes:
        step: steps done.
        generator: parameters of G.
        discriminator: parameters of D.
        generator_ema: running mean of G's parameters, what is used afterwards.
        buffers: G's buffers: the mean w and the constant noise maps.
        generator_optimizer: Adam's moments for G.
        discriminator_optimizer: Adam's moments for D.
    """

    step: Any
    generator: Tree
    discriminator: Tree
    generator_ema: Tree
    buffers: Tree
    generator_optimizer: Tree
    discriminator_optimizer: Tree


@dataclass(frozen=True)
class Phase:
    """One update of one network.

    Attributes:
        name: as in the log.
        network: "generator" or "discriminator".
        interval: done on steps 0, interval, 2 interval, ...
        loss: (parameters of the network, state, real batch, key) -> (loss, scalars and new buffers).
    """

    name: str
    network: str
    interval: int
    loss: Callable[[Tree, State, Batch, jax.Array], tuple[Float[Array, ""], dict[str, Any]]]


class Trainer:
    """The networks, optimisers and compiled phases of a run."""

    def __init__(
        self, config: ConfigDict, class_counts: Int[np.ndarray, " c"], image_size: int, mesh: jax.sharding.Mesh
    ):
        """Builds everything but the state.

        Args:
            config: see configs/gan.py.
            class_counts: authentic pictures of each class; generated labels follow their shares.
            image_size: height and width.
            mesh: devices; the batch is sharded over "data", the state is on each.
        """
        self.config, self.mesh = config, mesh
        self.facts = network_facts(config, len(class_counts), image_size)
        self.generator, self.discriminator = network.build(self.facts)
        self.class_shares = jnp.asarray(class_counts / class_counts.sum(), jnp.float32)
        self.optimizers = {
            "generator": _adam(config.generator_learning_rate, config.beta1, config.beta2, 0),
            "discriminator": _adam(config.discriminator_learning_rate, config.beta1, config.beta2, config.r1_interval),
        }
        self.phases = (
            Phase("g_main", "generator", 1, self._g_main),
            Phase("d_main", "discriminator", 1, self._d_main),
        )
        if config.r1_gamma > 0:
            self.phases += (Phase("d_r1", "discriminator", config.r1_interval, self._d_r1),)
        replicated, batch = meshes.replicated(mesh), meshes.batch_sharding(mesh)
        self._updates = {
            phase.name: jax.jit(
                lambda state, real, phase=phase: self._update(phase, state, real),
                in_shardings=(replicated, batch),
                out_shardings=replicated,
                donate_argnums=0,
            )
            for phase in self.phases
        }
        self._finish = jax.jit(self._end_step, in_shardings=replicated, out_shardings=replicated, donate_argnums=0)

    def init(self) -> State:
        """Makes the state of step 0, on every device."""
        config = self.config
        z, c = jnp.zeros((2, self.generator.z_dim)), jnp.zeros(2, jnp.int32)

        def make() -> State:
            variables = self.generator.init(rng.stream(config.seed, "gan/generator", fast=True), z, c)
            image = jnp.zeros((2, self.generator.image_size, self.generator.image_size, self.generator.image_channels))
            discriminator = self.discriminator.init(rng.stream(config.seed, "gan/discriminator", fast=True), image, c)[
                "params"
            ]
            return State(
                step=jnp.zeros((), jnp.int32),
                generator=variables["params"],
                discriminator=discriminator,
                generator_ema=jax.tree.map(jnp.copy, variables["params"]),
                buffers=variables["buffers"],
                generator_optimizer=self.optimizers["generator"].init(variables["params"]),
                discriminator_optimizer=self.optimizers["discriminator"].init(discriminator),
            )

        return jax.jit(make, out_shardings=meshes.replicated(self.mesh))()

    def step(self, state: State, batch: dict[str, np.ndarray], number: int) -> tuple[State, dict[str, jax.Array]]:
        """Goes through the phases due at step `number`, then averages G. The state is donated.

        Args:
            state: after `number` steps.
            batch: this process's share of authentic pictures "image" uint8 [n, h, w, 3] and "label" int32 [n].
            number: the step, from 0.
        """
        real = meshes.shard_batch(batch, self.mesh)
        scalars: dict[str, jax.Array] = {}
        for phase in self.phases:
            if number % phase.interval == 0:
                state, told = self._updates[phase.name](state, real)
                scalars |= told
        return self._finish(state), scalars

    def _update(self, phase: Phase, state: State, real: Batch) -> tuple[State, dict[str, jax.Array]]:
        key = rng.stream(self.config.seed, f"gan/{phase.name}", state.step)
        real = {"image": self._authentic(real["image"], state.step), "label": real["label"]}
        parameters = getattr(state, phase.network)
        (_, told), gradient = jax.value_and_grad(phase.loss, has_aux=True)(parameters, state, real, key)
        moments = getattr(state, f"{phase.network}_optimizer")
        change, moments = self.optimizers[phase.network].update(gradient, moments)
        state = state.replace(
            **{phase.network: optax.apply_updates(parameters, change), f"{phase.network}_optimizer": moments},
            buffers=told.pop("buffers", state.buffers),
        )
        return state, told

    def _authentic(self, images: jax.Array, step: jax.Array) -> jax.Array:
        """Brings authentic pictures to [-1, 1], half of them mirrored."""
        images = pictures.from_uint8(images)
        if not self.config.mirror:
            return images
        mirrored = jax.random.bernoulli(rng.stream(self.config.seed, "gan/mirror", step), 0.5, (images.shape[0],))
        return jnp.where(mirrored[:, None, None, None], images[:, :, ::-1], images)

    def _fakes(self, parameters: Tree, state: State, key: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
        """Generates a batch: pictures, labels, and w."""
        z_key, c_key, noise_key = jax.random.split(key, 3)
        n = self.config.batch_size
        z = jax.random.normal(z_key, (n, self.generator.z_dim))
        c = jax.random.choice(c_key, len(self.class_shares), (n,), p=self.class_shares)
        z, c = jax.lax.with_sharding_constraint((z, c), meshes.batch_sharding(self.mesh))
        variables = {"params": parameters, "buffers": state.buffers}
        ws = self.generator.apply(variables, z, c, method="map")
        images = self.generator.apply(variables, ws, "random", method="synthesize", rngs={"noise": noise_key})
        return images, c, ws[:, 0]

    def _logits(self, parameters: Tree, images: jax.Array, c: jax.Array) -> jax.Array:
        return self.discriminator.apply({"params": parameters}, images, c)

    def _g_main(self, parameters: Tree, state: State, real: Batch, key: jax.Array) -> tuple[jax.Array, dict[str, Any]]:
        images, c, w = self._fakes(parameters, state, key)
        loss = losses.generator_loss(self._logits(state.discriminator, images, c))
        w_avg = state.buffers["w_avg"]
        w_avg = w_avg + (1 - self.config.w_avg_beta) * (jax.lax.stop_gradient(w.mean(0)) - w_avg)
        return loss, {"g_loss": loss, "buffers": {**state.buffers, "w_avg": w_avg}}

    def _d_main(self, parameters: Tree, state: State, real: Batch, key: jax.Array) -> tuple[jax.Array, dict[str, Any]]:
        images, c, _ = self._fakes(state.generator, state, key)
        fake_logits = self._logits(parameters, images, c)
        real_logits = self._logits(parameters, real["image"], real["label"])
        loss = losses.discriminator_loss(real_logits, fake_logits)
        told = {"d_loss": loss, "d_real": real_logits.mean(), "d_fake": fake_logits.mean()}
        return loss, told | {"d_real_sign": jnp.sign(real_logits).mean()}

    def _d_r1(self, parameters: Tree, state: State, real: Batch, key: jax.Array) -> tuple[jax.Array, dict[str, Any]]:
        penalty = losses.r1_penalty(lambda x: self._logits(parameters, x, real["label"]), real["image"]).mean()
        return penalty * (self.config.r1_gamma / 2 * self.config.r1_interval), {"r1_penalty": penalty}

    def _end_step(self, state: State) -> State:
        beta = ema_beta(state.step * self.config.batch_size, self.config)
        ema = jax.tree.map(lambda a, b: b + beta * (a - b), state.generator_ema, state.generator)
        return state.replace(generator_ema=ema, step=state.step + 1)


def network_facts(config: ConfigDict, num_classes: int, image_size: int) -> dict[str, Any]:
    """Gathers the attributes of both networks from the config, as `network.json` keeps them."""
    shared = {
        "image_size": image_size,
        "num_classes": num_classes,
        "channel_base": config.channel_base,
        "channel_max": config.channel_max,
        "dtype": config.dtype,
    }
    generator = {"z_dim": config.z_dim, "w_dim": config.w_dim, "mapping_layers": config.g_mapping_layers}
    discriminator = {
        "channel_base": config.d_channel_base,
        "mapping_layers": config.d_mapping_layers,
        "mbstd_group_size": config.mbstd_group_size,
    }
    return {"generator": shared | generator, "discriminator": shared | discriminator}


def ema_beta(images_shown: Int[Array, ""], config: ConfigDict) -> Float[Array, ""]:
    """Decay of G's running mean for one step: 2^(-batch / half-life), the half-life at most rampup x images shown.

    Args:
        images_shown: pictures seen before this step.
        config: `batch_size`, `ema_kimg` (half-life in thousands of pictures), `ema_rampup` (0: none).
    """
    half_life = jnp.asarray(1000.0 * config.ema_kimg)
    if config.ema_rampup:
        half_life = jnp.minimum(half_life, config.ema_rampup * images_shown)
    return 0.5 ** (config.batch_size / jnp.maximum(half_life, 1e-8))


def _adam(learning_rate: float, beta1: float, beta2: float, interval: int) -> optax.GradientTransformation:
    """Adam that also serves a lazy regulariser: rate x q and betas^q with q = k/(k+1) (StyleGAN2, appendix B).

    Gradients that are not finite count as 0 or +-1e5. The update runs on one flat vector: an array at a time it is
    hundreds of small kernels, which take longer to compile than the networks.
    """
    q = interval / (interval + 1) if interval else 1.0
    finite = optax.stateless(
        lambda g, _: jax.tree.map(lambda x: jnp.nan_to_num(x, nan=0.0, posinf=1e5, neginf=-1e5), g)
    )
    return optax.flatten(optax.chain(finite, optax.adam(learning_rate * q, beta1**q, beta2**q, eps=1e-8)))


def run(config: ConfigDict, workdir: epath.Path) -> dict[str, Any]:
    """Trains the generator; the stage "gan".

    Args:
        config: see configs/gan.py.
        workdir: gets `gan/checkpoints`, `gan/metrics.jsonl`, `gan/network.json` and `gan/samples`.

    Raises:
        UserError: the dataset is missing, or does not suit.
    """
    data = dataset.open(config.dataset)
    split = data[config.split]
    _check(config, split)
    mesh = meshes.make_mesh(config.mesh.data, config.mesh.model)
    counts = np.bincount(split.labels - split.labels.min(), minlength=split.num_classes)
    trainer = Trainer(config, counts, split.image_size, mesh)
    directory = workdir / "gan"
    if meshes.is_lead():
        network.save(directory, trainer.facts)
    total_steps = -(-int(config.kimg * 1000) // config.batch_size)
    state = trainer.init()
    size = {name: sum(x.size for x in jax.tree.leaves(getattr(state, name))) for name in ("generator", "discriminator")}
    logging.info("gan: %s classes, %s pictures, parameters %s", split.num_classes, len(split), size)
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
        tensorboard=config.tensorboard,
        hooks=[(config.sample_every, SampleGrid(trainer, directory / "samples"))],
    )
    return {
        "kimg": config.kimg,
        "steps": int(state.step),
        "classes": split.num_classes,
        "pictures": len(split),
        "image_size": split.image_size,
        "parameters": size,
    }


def _check(config: ConfigDict, split: Any) -> None:
    size = split.image_size
    if size & (size - 1) or not 8 <= size <= 512:
        raise UserError(
            f"the generator draws 8, 16, ... 512 pixels, not the {size} of {config.dataset}: prepare it anew"
        )
    if config.batch_size % jax.device_count():
        raise UserError(f"batch_size={config.batch_size} does not divide over {jax.device_count()} devices")


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

        def draw(state: State) -> jax.Array:
            return generator.apply({"params": state.generator_ema, "buffers": state.buffers}, z, c)

        self._draw = jax.jit(draw, out_shardings=meshes.replicated(trainer.mesh))

    def __call__(self, state: State, step: int) -> None:
        """Writes `<step>.png`."""
        images = self._draw(state)
        if meshes.is_lead():
            images = pictures.to_uint8(images)
            path = self.directory / f"{step:07d}.png"
            pictures.write_png(path, pictures.grid(images.reshape(*self.shape, *images.shape[1:])))
