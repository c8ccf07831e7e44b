"""The GAN in training: one state, and the declared phases that each step goes through."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float, Int
from ml_collections import ConfigDict

from sface_jax.core import accumulate, pictures, rng
from sface_jax.core import mesh as meshes
from sface_jax.core.embedder import Embedder
from sface_jax.core.errors import UserError
from sface_jax.gan import adam, augment, losses, network

Tree = Any
Batch = dict[str, jax.Array]
Told = tuple[dict[str, jax.Array], dict[str, Any]]

SPREAD = ("generator", "discriminator", "generator_ema", "generator_optimizer", "discriminator_optimizer")
"""The fields of `State` that `config.fsdp` keeps in shares."""


class State(flax.struct.PyTreeNode):
    """Everything that training needs to go on.

    Attributes:
        step: steps done.
        generator: parameters of G.
        discriminator: parameters of D.
        generator_ema: running mean of G's parameters, what is used afterwards.
        buffers: G's buffers: the mean w and the constant noise maps.
        path_length_mean: running mean of the path lengths.
        augment_p: probability of each augmentation.
        signs: sum and number of the signs of D's logits on authentic pictures, since `augment_p` last changed.
        generator_optimizer: Adam's moments for G.
        discriminator_optimizer: Adam's moments for D.
    """

    step: Any
    generator: Tree
    discriminator: Tree
    generator_ema: Tree
    buffers: Tree
    path_length_mean: Any
    augment_p: Any
    signs: Any
    generator_optimizer: Tree
    discriminator_optimizer: Tree


@dataclass(frozen=True)
class Phase:
    """One update of one network.

    Attributes:
        name: as in the log.
        network: "generator" or "discriminator".
        interval: done on steps 0, interval, 2 interval, ...
        loss: (parameters of the network, state, real batch, key) -> (loss, (scalars to log, changed fields of State));
            a dict among these has those entries of the field that change.
    """

    name: str
    network: str
    interval: int
    loss: Callable[[Tree, State, Batch, jax.Array], tuple[Float[Array, ""], Told]]


class Trainer:
    """The networks, optimisers and compiled phases of a run."""

    def __init__(
        self,
        config: ConfigDict,
        class_counts: Int[np.ndarray, " c"],
        image_size: int,
        mesh: jax.sharding.Mesh,
        embedder: Embedder | None = None,
    ):
        """Builds everything but the state.

        Args:
            config: see configs/gan.py.
            class_counts: authentic pictures of each class; generated labels follow their shares.
            image_size: height and width.
            mesh: devices; the batch is shared by all, the state is on each, or in shares with `config.fsdp`.
            embedder: the recogniser of the separation loss; only where `config.separation_weight` is above 0.

        Raises:
            UserError: the config asks for networks or batches that cannot be.
        """
        _check(config, image_size, mesh)
        self.config, self.mesh, self.embedder = config, mesh, embedder
        self.weights = meshes.replicate(embedder.variables, mesh) if embedder else {}
        self.facts = network_facts(config, len(class_counts), image_size)
        self.generator, self.discriminator = network.build(self.facts)
        self.class_shares = (class_counts / class_counts.sum()).astype(np.float32)
        self.augmentations = augment.kinds_of(config.augment)
        path_interval = config.path_length_interval if config.path_length_weight else 0
        r1_interval = config.r1_interval if config.r1_gamma else 0
        rates = {
            "generator": (config.generator_learning_rate, path_interval),
            "discriminator": (config.discriminator_learning_rate, r1_interval),
        }
        self.optimizers = {
            name: adam.lazy(rate, config.beta1, config.beta2, interval, shares=config.fsdp)
            for name, (rate, interval) in rates.items()
        }
        self.phases = tuple(
            phase
            for phase in (
                Phase("g_main", "generator", 1, self._g_main),
                Phase("g_path", "generator", path_interval, self._g_path),
                Phase("d_main", "discriminator", 1, self._d_main),
                Phase("d_r1", "discriminator", r1_interval, self._d_r1),
            )
            if phase.interval
        )
        replicated, batch = meshes.replicated(mesh), meshes.batch_sharding(mesh)
        self._shardings = self._layout(jax.eval_shape(self._make))
        self.updates = {
            phase.name: jax.jit(
                functools.partial(self._update, phase),
                in_shardings=(self._shardings, batch, replicated),
                out_shardings=(self._shardings, replicated),
                donate_argnums=0,
            )
            for phase in self.phases
        }
        self._finish = jax.jit(
            self._end_step, in_shardings=(self._shardings,), out_shardings=self._shardings, donate_argnums=0
        )

    def _layout(self, state: State) -> State:
        """Where each array of the state lies: whole on every device or, with `config.fsdp`, mostly in shares."""
        whole = meshes.replicated(self.mesh)
        placed = jax.tree.map(lambda _: whole, state)
        if not self.config.fsdp:
            return placed
        return placed.replace(**{name: meshes.spread(getattr(state, name), self.mesh) for name in SPREAD})

    def _whole(self, tree: Tree) -> Tree:
        """In a program: arrays that may lie in shares, whole on every device."""
        return jax.lax.with_sharding_constraint(tree, meshes.replicated(self.mesh)) if self.config.fsdp else tree

    def init(self) -> State:
        """Makes the state of step 0, on its devices."""
        return jax.jit(self._make, out_shardings=self._shardings)()

    def abstract(self) -> tuple[State, Tree, Tree]:
        """The arguments of `updates` as shapes on the mesh, to compile for devices that are not at hand."""
        n, shape = self.config.batch_size, self.generator.picture_shape
        real = {
            "image": jax.ShapeDtypeStruct((n, *shape), jnp.uint8),
            "label": jax.ShapeDtypeStruct((n,), jnp.int32),
        }
        return (
            meshes.shapes(jax.eval_shape(self._make), self._shardings),
            meshes.shapes(real, meshes.batch_sharding(self.mesh)),
            meshes.shapes(self.weights, meshes.replicated(self.mesh)),
        )

    def _make(self) -> State:
        config = self.config
        z, c = jnp.zeros((2, self.generator.z_dim)), jnp.zeros(2, jnp.int32)
        image = jnp.zeros((2, *self.generator.picture_shape))
        variables = self.generator.init(rng.stream(config.seed, "gan/generator", fast=True), z, c)
        discriminator = self.discriminator.init(rng.stream(config.seed, "gan/discriminator", fast=True), image, c)
        return State(
            step=jnp.zeros((), jnp.int32),
            generator=variables["params"],
            discriminator=discriminator["params"],
            generator_ema=jax.tree.map(jnp.copy, variables["params"]),
            buffers=variables["buffers"],
            path_length_mean=jnp.zeros(()),
            augment_p=jnp.float32(config.augment_p),
            signs=jnp.zeros(2),
            generator_optimizer=self.optimizers["generator"].init(variables["params"]),
            discriminator_optimizer=self.optimizers["discriminator"].init(discriminator["params"]),
        )

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
                state, told = self.updates[phase.name](state, real, self.weights)
                scalars |= told
        return self._finish(state), scalars

    def _update(self, phase: Phase, state: State, real: Batch, weights: Tree) -> tuple[State, dict[str, jax.Array]]:
        config, field = self.config, f"{phase.network}_optimizer"
        seen = state.replace(generator=self._whole(state.generator), discriminator=self._whole(state.discriminator))

        def loss(parameters: Tree, part: Batch, own: accumulate.Own) -> tuple[Float[Array, ""], Told]:
            mirror_key, key = (
                own(rng.stream(config.seed, f"gan/{name}", state.step)) for name in ("mirror", phase.name)
            )
            part = part | {"image": self._authentic(part["image"], mirror_key), "weights": weights}
            return phase.loss(parameters, seen, part, key)

        def place(gradient: Tree) -> Tree:
            return meshes.cut(gradient, getattr(self._shardings, phase.network), self.mesh)

        gradient_of = accumulate.value_and_grad(loss, config.accumulate, place)
        (_, (scalars, changed)), gradient = gradient_of(getattr(seen, phase.network), real)
        change, moments = self.optimizers[phase.network].update(gradient, getattr(state, field))
        updated = {phase.network: optax.apply_updates(getattr(state, phase.network), change), field: moments}
        for name, value in changed.items():
            updated[name] = {**getattr(state, name), **value} if isinstance(value, dict) else value
        return state.replace(**updated), scalars

    def _authentic(self, images: jax.Array, key: jax.Array) -> jax.Array:
        """Brings authentic pictures to [-1, 1], half of them mirrored."""
        images = pictures.from_uint8(images)
        if not self.config.mirror:
            return images
        mirrored = jax.random.bernoulli(key, 0.5, (images.shape[0],))
        return jnp.where(mirrored[:, None, None, None], images[:, :, ::-1], images)

    def condition(self, state: State) -> jax.Array | float:
        """How much the label counts: 0 before the transition to conditional training, 1 after it."""
        start, end = 1000 * self.config.transition_start_kimg, 1000 * self.config.transition_end_kimg
        if not end:
            return 1.0
        return jnp.clip((state.step * self.config.batch_size - start) / max(end - start, 1), 0.0, 1.0)

    def draw(self, state: State, z: jax.Array, c: jax.Array) -> jax.Array:
        """Pictures [n, h, w, 3] of the averaged G, for latents z [n, z_dim] and labels c [n]; to be jitted."""
        variables = {"params": self._whole(state.generator_ema), "buffers": state.buffers}
        ws = self.generator.apply(variables, z, c, condition=self.condition(state), method="map")
        return self.generator.apply(variables, ws, method="synthesize")

    def _styles(self, parameters: Tree, state: State, key: jax.Array, n: int) -> tuple[jax.Array, jax.Array]:
        """Draws labels [n] and style vectors [n, num_ws, w_dim], some of them mixed of two latents."""
        z_key, c_key, mix_key, where_key = jax.random.split(key, 4)
        mixing, layers = self.config.style_mixing, self.generator.num_ws
        z = jax.random.normal(z_key, (2 if mixing else 1, n, self.generator.z_dim))
        c = jax.random.choice(c_key, len(self.class_shares), (n,), p=self.class_shares)
        z, c = jax.lax.with_sharding_constraint(
            (z, c), (meshes.batch_sharding(self.mesh, axis=1), meshes.batch_sharding(self.mesh))
        )
        variables = {"params": parameters, "buffers": state.buffers}
        condition = self.condition(state)
        ws, *other = (self.generator.apply(variables, z, c, condition=condition, method="map") for z in z)
        if mixing:
            mixed = jax.random.bernoulli(mix_key, mixing, (n,))
            kept = jnp.where(mixed, jax.random.randint(where_key, (n,), 1, layers), layers)
            ws = jnp.where(jnp.arange(layers)[None, :, None] < kept[:, None, None], ws, other[0])
        return ws, c

    def _render(self, parameters: Tree, state: State, ws: jax.Array, key: jax.Array) -> jax.Array:
        variables = {"params": parameters, "buffers": state.buffers}
        return self.generator.apply(variables, ws, "random", method="synthesize", rngs={"noise": key})

    def _logits(self, parameters: Tree, state: State, images: jax.Array, c: jax.Array, key: jax.Array) -> jax.Array:
        """D's logits of pictures as D sees them, augmented."""
        if self.augmentations:
            draw_key, noise_key = jax.random.split(key)
            drawn = augment.draw(draw_key, len(images), state.augment_p, self.augmentations)
            drawn = jax.lax.with_sharding_constraint(drawn, meshes.batch_sharding(self.mesh))
            images = augment.apply(images, drawn, self.augmentations, noise_key)
        return self.discriminator.apply({"params": parameters}, images, c, self.condition(state))

    def _signs(self, state: State, real_logits: jax.Array) -> jax.Array:
        return state.signs + jnp.array([jnp.sum(jnp.sign(real_logits)), len(real_logits)])

    def _g_main(self, parameters: Tree, state: State, real: Batch, key: jax.Array) -> tuple[jax.Array, Told]:
        key, noise_key, augment_key = jax.random.split(key, 3)
        ws, c = self._styles(parameters, state, key, len(real["label"]))
        images = self._render(parameters, state, ws, noise_key)
        loss = losses.generator_loss(self._logits(state.discriminator, state, images, c, augment_key))
        scalars = {"g_loss": loss}
        if self.config.separation_weight:
            features = self.embedder.apply(real["weights"], images)
            features = features / jnp.maximum(jnp.linalg.norm(features, axis=1, keepdims=True), 1e-12)
            separation = losses.identity_separation(features, c, self.config.separation_margin)
            scalars["g_separation"] = separation
            loss = loss + self.config.separation_weight * separation
        w_avg = state.buffers["w_avg"]
        w_avg = w_avg + (1 - self.config.w_avg_beta) * (jax.lax.stop_gradient(ws[:, 0].mean(0)) - w_avg)
        return loss, (scalars, {"buffers": {"w_avg": w_avg}})

    def _g_path(self, parameters: Tree, state: State, real: Batch, key: jax.Array) -> tuple[jax.Array, Told]:
        key, noise_key, direction_key = jax.random.split(key, 3)
        ws, _ = self._styles(parameters, state, key, len(real["label"]) // self.config.path_length_shrink)
        directions = jax.random.normal(direction_key, (len(ws), *self.generator.picture_shape))
        lengths = losses.path_lengths(lambda ws: self._render(parameters, state, ws, noise_key), ws, directions)
        penalty, mean = losses.path_length_penalty(lengths, state.path_length_mean, self.config.path_length_decay)
        loss = penalty.mean() * (self.config.path_length_weight * self.config.path_length_interval)
        return loss, ({"path_length": lengths.mean(), "path_penalty": penalty.mean()}, {"path_length_mean": mean})

    def _d_main(self, parameters: Tree, state: State, real: Batch, key: jax.Array) -> tuple[jax.Array, Told]:
        key, noise_key, fake_key, real_key = jax.random.split(key, 4)
        ws, c = self._styles(state.generator, state, key, len(real["label"]))
        images = self._render(state.generator, state, ws, noise_key)
        fake_logits = self._logits(parameters, state, images, c, fake_key)
        real_logits = self._logits(parameters, state, real["image"], real["label"], real_key)
        loss = losses.discriminator_loss(real_logits, fake_logits)
        scalars = {"d_loss": loss, "d_real": real_logits.mean(), "d_fake": fake_logits.mean()}
        scalars["d_real_sign"] = jnp.sign(real_logits).mean()
        if self.augmentations:
            scalars["ada_p"] = state.augment_p
        return loss, (scalars, {"signs": self._signs(state, real_logits)})

    def _d_r1(self, parameters: Tree, state: State, real: Batch, key: jax.Array) -> tuple[jax.Array, Told]:
        penalty, logits = losses.r1_penalty(
            lambda x: self._logits(parameters, state, x, real["label"], key), real["image"]
        )
        loss = penalty.mean() * (self.config.r1_gamma / 2 * self.config.r1_interval)
        return loss, ({"r1_penalty": penalty.mean()}, {"signs": self._signs(state, logits)})

    def _end_step(self, state: State) -> State:
        config = self.config
        beta = ema_beta(state.step * config.batch_size, config)
        ema = jax.tree.map(lambda a, b: b + beta * (a - b), state.generator_ema, state.generator)
        state = state.replace(generator_ema=ema, step=state.step + 1)
        if not (self.augmentations and config.ada_target):
            return state
        r, shown = state.signs[0] / jnp.maximum(state.signs[1], 1), config.batch_size * config.ada_interval
        p = augment.next_probability(state.augment_p, r, shown, config.ada_target, config.ada_kimg)
        due = state.step % config.ada_interval == 0
        return state.replace(
            augment_p=jnp.where(due, p, state.augment_p), signs=jnp.where(due, jnp.zeros(2), state.signs)
        )


def _check(config: ConfigDict, image_size: int, mesh: jax.sharding.Mesh) -> None:
    size = image_size + 2 * config.crop
    if size & (size - 1) or not 8 <= size <= 512:
        missing = 2 ** max(3, math.ceil(math.log2(image_size))) - image_size
        cropping = missing % 2 == 0 and image_size + missing <= 512
        way = f"set --config.crop={missing // 2}" if cropping else "prepare it at such a size"
        raise UserError(
            f"the generator draws 8, 16, ... 512 pixels, less 2 x crop={config.crop}, and not {image_size}: {way}"
        )
    if min(config.channel_base, config.d_channel_base) < size:
        raise UserError(
            f"channel_base and d_channel_base leave no channel at {size} pixels: set them to {size} or more"
        )
    if config.dtype not in ("float32", "bfloat16"):
        raise UserError(f'config.dtype={config.dtype!r}: choose "float32" or "bfloat16"')
    counts = {"batch_size": config.batch_size}
    if config.path_length_weight:
        counts["batch_size / path_length_shrink"] = config.batch_size / config.path_length_shrink
    for name, count in counts.items():
        accumulate.check(name, count, config.accumulate, mesh.size)
    rows = config.batch_size // config.accumulate
    if config.accumulate > 1 and rows % config.mbstd_group_size:
        raise UserError(
            f"mbstd_group_size={config.mbstd_group_size} does not divide the {rows} pictures of a part: lower "
            f"accumulate={config.accumulate}"
        )


def network_facts(config: ConfigDict, num_classes: int, image_size: int) -> dict[str, Any]:
    """Gathers the attributes of both networks from the config, as `network.json` keeps them."""
    shared = {
        "image_size": image_size + 2 * config.crop,
        "crop": config.crop,
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
        "unconditional_head": bool(config.transition_end_kimg),
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
