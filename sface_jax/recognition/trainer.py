"""One trainer for every strategy: its loss is the weighted sum of a classification and a distillation term."""

from __future__ import annotations

import functools
import math
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Array, Float, Float32
from ml_collections import ConfigDict

from sface_jax.core import accumulate, rng
from sface_jax.core import mesh as meshes
from sface_jax.core.errors import UserError
from sface_jax.recognition import augment, head, losses, methods, network, optimiser

Tree = Any
Batch = dict[str, Any]
Told = tuple[Tree, Tree, Array | None, dict[str, jax.Array]]
"""What a loss tells beside: running statistics, the margin's state, the sampled classes, scalars to log."""


class State(flax.struct.PyTreeNode):
    """Everything that training needs to go on; JAX also fills it with shapes, shardings or nothing.

    Attributes:
        step: steps done, int32.
        params: {"backbone"}, and {"head": {"weight"}} where there is a classification term.
        batch_stats: running statistics of the backbone.
        velocity: SGD's momentum, like `params`.
        margin: what the margin keeps between steps, float32 scalars by name.
    """

    step: Any
    params: Tree
    batch_stats: Tree
    velocity: Tree
    margin: Tree


class Trainer:
    """The networks, schedule and step of a run."""

    def __init__(
        self,
        config: ConfigDict,
        num_classes: int,
        num_pictures: int,
        image_size: int,
        mesh: Mesh,
        teacher: network.Network | None = None,
        targets: Float32[np.ndarray, "p 2 d"] | None = None,
    ):
        """Builds everything but the state.

        Args:
            config: see configs/combined.py.
            num_classes: identities in the training set.
            num_pictures: pictures in the training set; an epoch is that many.
            image_size: side of the training pictures, taken for the network's where `config.image_size` is 0.
            mesh: devices; they share the batch and the classes, and each has the rest of the state whole, or with
                `config.fsdp` a share of the backbone and its momentum.
            teacher: for the distillation term.
            targets: the teacher's embeddings of the training pictures and of their mirror images, which save running
                it; it then has not seen the pictures' augmentation, but for the flip.

        Raises:
            UserError: a key of the config does not suit.
        """
        self.config, self.mesh, self.teacher, self.targets = config, mesh, teacher, targets
        self.num_classes, self.image_size = num_classes, image_size
        self.backbone = network.build(
            network.architecture(
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
        )
        _check(config, num_classes, self.backbone.embedding_size, mesh, teacher)
        self.preprocessing = network.Preprocessing(size=config.image_size or image_size)
        self.augmentations = augment.on_device(config.augmentations)
        self.method = methods.from_spec(config.head) if config.classification_weight else None
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
        self._whole, self._spread = meshes.replicated(mesh), meshes.batch_sharding(mesh)
        self._shardings = self._sharded(jax.eval_shape(self._make))
        self.update = jax.jit(
            self._one_step,
            in_shardings=(self._shardings, self._whole, self._spread),
            out_shardings=(self._shardings, self._whole),
            donate_argnums=0,
        )
        self._compiled: jax.stages.Compiled | None = None

    @property
    def head_rows(self) -> int:
        """Rows of the class matrix; 0 without one."""
        return head.rows(self.num_classes, self.mesh) if self.method else 0

    def recogniser(self, state: State) -> network.Network:
        """The recogniser as it is in a state, whole on every device."""
        backbone = jax.device_put(state.params["backbone"], self._whole)
        variables = {"params": backbone, "batch_stats": state.batch_stats}
        return network.Network(self.backbone, variables, self.preprocessing)

    def init(self) -> State:
        """Makes the state of step 0, on its devices."""
        return jax.jit(self._make, out_shardings=self._shardings)()

    def _make(self) -> State:
        size, seed = self.preprocessing.size, self.config.seed
        variables = self.backbone.init(rng.stream(seed, "recognition/backbone"), jnp.zeros((1, size, size, 3)))
        params, margin = {"backbone": variables["params"]}, {}
        if self.method:
            key = rng.stream(seed, "recognition/head")
            params["head"] = {"weight": head.init(key, self.num_classes, self.backbone.embedding_size, self.mesh)}
            margin = {name: jnp.float32(value) for name, value in self.method.init.items()}
        return State(
            step=jnp.zeros((), jnp.int32),
            params=params,
            batch_stats=variables["batch_stats"],
            velocity=jax.tree.map(jnp.zeros_like, params),
            margin=margin,
        )

    def _sharded(self, state: State) -> State:
        """Where each array of the state lies: the class matrix and its momentum are spread over all devices."""
        placed = jax.tree.map(lambda _: self._whole, state)
        for tree in (placed.params, placed.velocity):
            if self.method:
                tree["head"] = {"weight": head.sharding(self.mesh)}
            if self.config.fsdp:
                tree["backbone"] = meshes.spread(state.params["backbone"], self.mesh)
        return placed

    def abstract(self) -> tuple[State, Tree, Batch]:
        """Shapes and shardings of what `update` takes: state, the teacher's variables, a global batch."""
        n, side = self.config.batch_size, self.image_size
        batch = {"image": np.broadcast_to(np.uint8(0), (n, side, side, 3)), "label": np.broadcast_to(np.int32(0), n)}
        variables = {}
        if self.targets is not None:
            batch["target"] = np.broadcast_to(np.float32(0), (n, *self.targets.shape[1:]))
        elif self.teacher:
            variables = meshes.shapes(self.teacher.variables, self._whole)
        state = meshes.shapes(jax.eval_shape(self._make), self._shardings)
        return state, variables, meshes.shapes(batch, self._spread)

    def compile(self) -> jax.stages.Compiled:
        """Compiles the step, once."""
        if self._compiled is None:
            self._compiled = self.update.lower(*self.abstract()).compile()
        return self._compiled

    @functools.cached_property
    def teacher_variables(self) -> Tree:
        """The teacher's weights, on every device; nothing where its embeddings are at hand."""
        return meshes.replicate(self.teacher.variables, self.mesh) if self.teacher and self.targets is None else {}

    def step(self, state: State, batch: Batch, number: int) -> tuple[State, dict[str, jax.Array]]:
        """One step of SGD. The state is donated.

        Args:
            state: after `number` steps.
            batch: this process's share of pictures "image" uint8 [n, h, w, 3], "label" int32 [n], and, where `targets`
                are given, "index" [n], their positions in the training set.
            number: the step, from 0; the state knows it too.
        """
        del number
        taken = {"image": batch["image"], "label": batch["label"]}
        if self.targets is not None:
            taken["target"] = np.asarray(self.targets[batch["index"]])
        return self.compile()(state, self.teacher_variables, meshes.shard_batch(taken, self.mesh))

    def _one_step(self, state: State, teacher: Tree, batch: Batch) -> tuple[State, dict[str, jax.Array]]:
        config, params = self.config, state.params
        if config.fsdp:
            params = params | {"backbone": jax.lax.with_sharding_constraint(params["backbone"], self._whole)}

        def loss(params: Tree, part: Batch, own: accumulate.Own) -> tuple[Float[Array, ""], Told]:
            return self._loss(params, state, teacher, part, own)

        def place(gradients: Tree) -> Tree:
            where = self._shardings.params
            placed = {"backbone": meshes.cut(gradients["backbone"], where["backbone"], self.mesh)}
            if self.method:
                placed["head"] = jax.lax.with_sharding_constraint(gradients["head"], where["head"])
            return placed

        gradients_of = accumulate.value_and_grad(loss, config.accumulate, place)
        (_, (batch_stats, margin, sampled, told)), gradients = gradients_of(params, batch)
        # Only the backbone is clipped, as in the published recipe: the head's gradient has another scale.
        size = optimiser.norm(gradients["backbone"])
        gradients = gradients | {"backbone": optimiser.clip(gradients["backbone"], size, config.clip_norm)}
        rate = self.learning_rate(state.step)
        params, velocity = optimiser.sgd(
            state.params, state.velocity, gradients, rate, config.momentum, config.weight_decay
        )
        if self.method and config.class_sample_rate < 1:
            for new, old in ((params, state.params), (velocity, state.velocity)):
                new["head"] = jax.tree.map(lambda n, o: jnp.where(sampled[:, None], n, o), new["head"], old["head"])
        state = State(step=state.step + 1, params=params, batch_stats=batch_stats, velocity=velocity, margin=margin)
        # The norm of all weights tells, before a checkpoint is written, whether the step has spoilt any of them.
        return state, told | {"gradient_norm": size, "parameter_norm": optimiser.norm(params), "learning_rate": rate}

    def _target(self, batch: Batch, key: Array) -> Float[Array, "n d"] | None:
        """The teacher's embeddings from the cache: those of the mirror images where pictures are mirrored."""
        if self.targets is None:
            return None
        mirrored = augment.mirrored(self.augmentations, key, len(batch["label"]))  # [n]
        return jnp.where(mirrored[:, None], batch["target"][:, 1], batch["target"][:, 0])

    def _loss(
        self, params: Tree, state: State, teacher: Tree, batch: Batch, own: accumulate.Own
    ) -> tuple[Float[Array, ""], Told]:
        """L = classification_weight L_margin + distillation_weight L_KT."""
        config, told = self.config, {}

        def key(name: str) -> Array:
            return own(rng.stream(config.seed, name, state.step))

        labels = batch["label"]
        target = self._target(batch, key("augment"))
        pictures = batch["image"].astype(jnp.float32)  # [n,h,w,3], 0..255
        pictures = augment.apply(self.augmentations, key("augment"), pictures)
        if self.teacher and target is None:
            target = self.teacher.module.apply(teacher, self.teacher.preprocessing(pictures), train=False)
        embeddings, changed = self.backbone.apply(
            {"params": params["backbone"], "batch_stats": state.batch_stats},
            self.preprocessing(pictures),
            train=True,
            mutable=["batch_stats"],
            rngs={"dropout": key("dropout")},
        )  # [n,d]
        total, margin, sampled = jnp.zeros(()), state.margin, None
        if self.method:
            found = head.classify(
                self.method,
                embeddings,
                labels,
                params["head"]["weight"],
                state.margin,
                key("recognition/margin"),
                num_classes=self.num_classes,
                mesh=self.mesh,
                sample_rate=config.class_sample_rate,
            )
            margin, sampled = found.state, found.sampled
            told["classification_loss"], told["accuracy"] = found.loss, found.accuracy
            total += config.classification_weight * found.loss
        if target is not None:
            told["distillation_loss"] = losses.distillation(embeddings, target)
            told["teacher_cosine"] = 1 - told["distillation_loss"] * embeddings.shape[1] / 2
            total += config.distillation_weight * told["distillation_loss"]
        return total, (changed["batch_stats"], margin, sampled, {"loss": total} | told)


def _check(
    config: ConfigDict, num_classes: int, embedding_size: int, mesh: Mesh, teacher: network.Network | None
) -> None:
    if min(config.classification_weight, config.distillation_weight) < 0 or not (
        config.classification_weight or config.distillation_weight
    ):
        raise UserError("set config.classification_weight or config.distillation_weight above 0, and neither below")
    if config.classification_weight and num_classes < 2:
        raise UserError(f"classification needs two identities or more, {config.dataset} has {num_classes}")
    accumulate.check("batch_size", config.batch_size, config.accumulate, mesh.size)
    if not 0 < config.class_sample_rate <= 1:
        raise UserError(f"class_sample_rate={config.class_sample_rate}: set it above 0, and to 1 at most")
    if teacher and (size := teacher.module.embedding_size) != embedding_size:
        raise UserError(
            f"the teacher's embeddings have {size} dimensions, the student's {embedding_size}: "
            f"set --config.embedding_size={size}"
        )
    augment.check(config.augmentations)
