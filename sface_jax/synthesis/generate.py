"""Stage `synthesize`: N pictures of every class, as a dataset that may be handed on.

Picture i of class c depends on (seed, c, i): not on the batch, the devices, the processes, or a restart. The
pictures lie class by class in shards of a fixed size. A shard that exists is whole, so a run that was cut off goes
on with the first shard it lacks. Several processes share the shards out, and write to one file system.
"""

from __future__ import annotations

import dataclasses
import difflib
import hashlib
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import flax.linen as nn
import jax
import numpy as np
from etils import epath
from jax.sharding import AxisType
from jaxtyping import Array, Float, Int, UInt8
from ml_collections import ConfigDict

import sface_jax
from sface_jax.core import files, mesh, pictures
from sface_jax.core.errors import UserError
from sface_jax.core.progress import Progress
from sface_jax.data import dataset, layout, records
from sface_jax.data.example import Example
from sface_jax.gan import network
from sface_jax.synthesis import card, sampling

SPLIT = "train"
STRATEGIES = {
    "free": lambda config, z_dim: sampling.free(config.seed, z_dim),
    "shared_seeds": lambda config, z_dim: sampling.shared_seeds(config.seed, z_dim, config.shared_seeds),
}
NOISES = ("random", "const", "none")

# (labels [n], indices [n]) -> float pictures [n, h, w, 3] in [-1, 1]
Draw = Callable[[Int[np.ndarray, " n"], Int[np.ndarray, " n"]], Float[Array, "n h w 3"]]


@dataclasses.dataclass(frozen=True)
class Plan:
    """Which picture lies where: sample s is picture s % per_class of class s // per_class."""

    classes: int
    per_class: int
    shard_size: int

    @property
    def total(self) -> int:
        """Pictures in all."""
        return self.classes * self.per_class

    @property
    def shards(self) -> int:
        """Number of shards; the last one may be smaller."""
        return -(-self.total // self.shard_size)

    def samples(self, shard: int) -> tuple[Int[np.ndarray, " n"], Int[np.ndarray, " n"]]:
        """Labels and indices of a shard's pictures, in order."""
        start = shard * self.shard_size
        samples = np.arange(start, min(start + self.shard_size, self.total))
        return samples // self.per_class, samples % self.per_class


def run(config: ConfigDict, workdir: epath.Path) -> dict[str, Any]:
    """Writes the synthetic dataset, its manifest, card and preview; see `configs/synthesize.py` for the keys.

    Raises:
        UserError: a key has no sense, the generator is missing or has no classes, the output folder holds something
            else, or no space is left.
    """
    generator, variables, facts = network.load(config.generator)
    _check(config, generator)
    output = epath.Path(config.output)
    plan = Plan(config.classes or generator.num_classes, config.per_class, config.shard_size)
    recipe = _recipe(config, plan, generator, variables, facts)
    _begin(output, recipe)

    draw, batch_size = make_draw(config, generator, variables)
    began = time.monotonic()
    drawn = _write_missing(output, plan, draw, batch_size, config.png_folders)
    seconds = time.monotonic() - began
    mesh.barrier("synthesize: all shards are written")
    if mesh.is_lead():
        _finish(output, plan, recipe)
    return {
        "classes": plan.classes,
        "per_class": plan.per_class,
        "pictures": plan.total,
        "image_size": generator.image_size,
        "shards": plan.shards,
        "drawn_by_this_process": drawn,
        "pictures_per_second": round(drawn / seconds, 2),
    }


def make_draw(config: ConfigDict, generator: nn.Module, variables: Any) -> tuple[Draw, int]:
    """Compiles the generator for one batch over the devices of this process.

    Every device always gets `config.batch_size` pictures, so that its arithmetic, to the last bit, is the same on
    any number of devices.

    Returns:
        The function that draws one batch, and the size of that batch.
    """
    devices = jax.local_devices()
    local = jax.make_mesh((len(devices), 1), ("data", "model"), (AxisType.Auto,) * 2, devices=devices)
    split, whole = mesh.batch_sharding(local), mesh.replicated(local)
    latent = STRATEGIES[config.strategy](config, generator.z_dim)

    def draw(variables: Any, labels: Int[Array, " n"], indices: Int[Array, " n"]) -> Float[Array, "n h w 3"]:
        z = jax.vmap(latent)(labels, indices)
        ws = generator.apply(variables, z, labels, truncation_psi=config.psi, method="map")
        if config.noise != "random":
            return generator.apply(variables, ws, noise=config.noise, method="synthesize")

        def one(w, label, index):
            rngs = {"noise": sampling.sample_key(config.seed, "synthesis/noise", label, index)}
            return generator.apply(variables, w[None], noise="random", rngs=rngs, method="synthesize")[0]

        # A key for each picture, where one key for the batch would tie the noise to the place in the batch.
        return jax.vmap(one)(ws, labels, indices)

    compiled = jax.jit(draw, in_shardings=(whole, split, split), out_shardings=split)
    variables = jax.device_put(variables, whole)

    def call(labels: Int[np.ndarray, " n"], indices: Int[np.ndarray, " n"]) -> Float[Array, "n h w 3"]:
        return compiled(variables, *jax.device_put((labels.astype(np.int32), indices.astype(np.int32)), split))

    return call, config.batch_size * len(devices)


def class_name(label: int) -> str:
    """The neutral name of a class: a dataset that is handed on must not carry the names of authentic people."""
    return f"synthetic-{label:06d}"


def _check(config: ConfigDict, generator: nn.Module) -> None:
    for key in ("per_class", "batch_size", "shard_size", "shared_seeds"):
        if config[key] < 1:
            raise UserError(f"config.{key}={config[key]}: set it to 1 or more")
    if config.strategy not in STRATEGIES:
        near = difflib.get_close_matches(config.strategy, STRATEGIES, n=1)
        hint = f": did you mean {near[0]!r}?" if near else f": the strategies are {', '.join(STRATEGIES)}"
        raise UserError(f"config.strategy={config.strategy!r} is unknown{hint}")
    if config.noise not in NOISES:
        raise UserError(f"config.noise={config.noise!r} is unknown: set it to one of {', '.join(NOISES)}")
    if not generator.num_classes:
        raise UserError(f"the generator in {config.generator} has no classes: train one on a labelled dataset")
    if not 0 <= config.classes <= generator.num_classes:
        raise UserError(
            f"config.classes={config.classes}, but the generator knows {generator.num_classes}: "
            f"set it between 1 and that, or to 0 for all"
        )


def _recipe(config: ConfigDict, plan: Plan, generator: nn.Module, variables: Any, facts: dict) -> dict[str, Any]:
    """All that fixes the pictures; free of paths and names of this machine, for it goes into the manifest."""
    return {
        "seed": config.seed,
        "strategy": config.strategy,
        "shared_seeds": config.shared_seeds if config.strategy == "shared_seeds" else None,
        "psi": config.psi,
        "noise": config.noise,
        "classes": plan.classes,
        "per_class": plan.per_class,
        "pictures": plan.total,
        "shard_size": plan.shard_size,
        "image_size": generator.image_size,
        "generator": {
            "step": facts["step"],
            "classes": generator.num_classes,
            "sha256": fingerprint(variables),
            "trained_on": _trained_on(epath.Path(config.generator)),
        },
    }


def _trained_on(generator: epath.Path) -> dict[str, Any] | None:
    """Counts of the authentic dataset in the generator's work directory; None where there is none."""
    manifest = generator.parent / "authentic" / "manifest.json"
    if not manifest.exists():
        return None
    counts = files.read_json(manifest)["counts"]
    return {**counts["splits"]["train"], "procedural": counts["procedural"]}


def fingerprint(variables: Any) -> str:
    """SHA-256 over names, types, shapes and values of all arrays of a tree."""
    digest = hashlib.sha256()
    for path, leaf in sorted((jax.tree_util.keystr(path), leaf) for path, leaf in jax.tree.leaves_with_path(variables)):
        array = np.asarray(leaf)
        digest.update(f"{path} {array.dtype} {array.shape}\n".encode())
        digest.update(array.tobytes())
    return digest.hexdigest()


def _begin(output: epath.Path, recipe: dict[str, Any]) -> None:
    """Claims the output folder for this recipe, so that shards of two recipes never mix."""
    path = output / "manifest.json"
    begun = files.read_json(path).get("recipe") if path.exists() else None
    if begun is None and (output / layout.INFO_FILE).exists():
        raise UserError(f"{output} holds a dataset that this stage did not write: set config.output to another folder")
    for key, value in recipe.items():
        if begun is not None and begun.get(key) != value:
            raise UserError(
                f"{output} was begun with another {key} ({begun.get(key)}, now {value}): "
                f"delete the folder, or set config.output to another one"
            )
    mesh.barrier("synthesize: the recipe is compared")
    if mesh.is_lead() and begun is None:
        files.write_json(path, {"complete": False, "recipe": recipe})


def _write_missing(output: epath.Path, plan: Plan, draw: Draw, batch_size: int, png_folders: bool) -> int:
    """Writes those of this process's shards that are not there; returns the number of pictures drawn."""
    mine = range(plan.shards)[jax.process_index() :: jax.process_count()]
    sizes = {shard: len(plan.samples(shard)[0]) for shard in mine}
    missing = [shard for shard in mine if not records.shard_path(output, SPLIT, shard, plan.shards).exists()]
    start = done = sum(sizes.values()) - sum(sizes[shard] for shard in missing)
    progress = Progress("synthesize", sum(sizes.values()), unit="pictures", start=start)

    def examples(shard: int) -> Iterator[Example]:
        nonlocal done
        labels, indices = plan.samples(shard)
        pngs = _encoded(draw, labels, indices, batch_size)
        for label, index, png in zip(labels.tolist(), indices.tolist(), pngs, strict=True):
            name = f"{class_name(label)}/{index:06d}"
            if png_folders:
                files.write_bytes(output / "png" / f"{name}.png", png)
            yield Example(png, label, name)
            done += 1
            progress.update(done)

    for shard in missing:
        records.write_shard(output, SPLIT, shard, plan.shards, examples(shard))
    progress.close(done)
    return done - start


def _encoded(
    draw: Draw, labels: Int[np.ndarray, " n"], indices: Int[np.ndarray, " n"], batch_size: int
) -> Iterator[bytes]:
    """Yields a shard's pictures as PNG; the devices draw one batch while the host encodes the one before."""
    with ThreadPoolExecutor() as pool:
        waiting = None
        for start in range(0, len(labels), batch_size):
            # The last batch is filled up from the front: its shape, and so the program, stays the same.
            rows = np.arange(start, start + batch_size) % len(labels)
            drawn = draw(labels[rows], indices[rows])[: len(labels) - start]
            if waiting is not None:
                yield from pool.map(pictures.encode_png, pictures.to_uint8(waiting))
            waiting = drawn
        yield from pool.map(pictures.encode_png, pictures.to_uint8(waiting))


def _finish(output: epath.Path, plan: Plan, recipe: dict[str, Any]) -> None:
    """Writes what makes the shards a dataset: TFDS's files, preview, card, and last the complete manifest."""
    names = [class_name(label) for label in range(plan.classes)]
    records.finish(
        output,
        image_size=recipe["image_size"],
        class_names=names,
        splits={SPLIT: plan.shards},
        description="Synthetic faces: every picture was drawn by a generative network.",
    )
    pictures.write_png(output / "preview.png", pictures.grid(_preview(output, plan)))
    files.write_text(output / "README.md", card.write(recipe))
    paths = [records.shard_path(output, SPLIT, shard, plan.shards) for shard in range(plan.shards)]
    manifest = {
        "complete": True,
        "recipe": recipe,
        "software": {"sface_jax": sface_jax.__version__, "jax": jax.__version__},
        "shards": {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in paths},
    }
    files.write_json(output / "manifest.json", manifest)


def _preview(output: epath.Path, plan: Plan, most: int = 8) -> UInt8[np.ndarray, "r c s s 3"]:
    """Some classes, spread over all of them (rows), with the first pictures of each (columns)."""
    split = dataset.open(output)[SPLIT]
    rows = np.linspace(0, plan.classes - 1, min(most, plan.classes)).astype(int)
    columns = np.arange(min(most, plan.per_class))
    images = split.images((rows[:, None] * plan.per_class + columns).ravel())
    return images.reshape(len(rows), len(columns), *images.shape[1:])
