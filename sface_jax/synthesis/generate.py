"""Stage `synthesize`: N pictures of every class, as a dataset that may be handed on.

Picture i of class c depends on (seed, c, i): not on the batch, the devices, the processes, or a restart. The
pictures lie class by class in shards of a fixed size. A shard that exists is whole, so a run that was cut off goes
on with the first shard it lacks. Several processes share the shards out, and write to one file system.
"""

from __future__ import annotations

import difflib
import time
from collections.abc import Iterator
from typing import Any

import flax.linen as nn
import jax
import numpy as np
from etils import epath
from jaxtyping import UInt8
from ml_collections import ConfigDict

import sface_jax
from sface_jax.core import files, mesh, pictures
from sface_jax.core.embedder import OpenEmbedder
from sface_jax.core.errors import UserError
from sface_jax.core.progress import Progress
from sface_jax.data import cards, dataset, layout, records
from sface_jax.gan import network
from sface_jax.synthesis import attempts, card, recipe, rejection
from sface_jax.synthesis.attempts import Taken
from sface_jax.synthesis.draw import make_draw
from sface_jax.synthesis.rejection import Judge, Rejection
from sface_jax.synthesis.sampling import STRATEGIES
from sface_jax.synthesis.shards import SPLIT, Plan, Shards, class_name

NOISES = ("random", "const", "none")


def run(config: ConfigDict, workdir: epath.Path, open_embedder: OpenEmbedder | None = None) -> dict[str, Any]:
    """Writes the synthetic dataset, its manifest, card and preview; see `configs/synthesize.py` for the keys.

    Args:
        config: the stage's config.
        workdir: the work directory.
        open_embedder: opens `config.recognizer`, where one is to reject pictures.

    Raises:
        UserError: a key has no sense, the generator, the recogniser or the authentic dataset is missing or does not
            suit, the output folder holds something else, or no space is left.
    """
    generator, variables, facts = network.load(config.generator, checkpoint=config.checkpoint)
    _check(config, generator)
    rejecting = rejection.from_config(config, generator.num_classes, open_embedder)
    output = epath.Path(config.output)
    plan = Plan(config.classes or generator.num_classes, config.per_class, config.shard_size)
    wanted = recipe.write(config, plan, generator, variables, facts, rejecting)
    _begin(output, wanted)

    began, drawn = time.monotonic(), 0
    shards = Shards(output, plan, rejecting is not None, config.png_folders)
    if not all(map(shards.exists, range(plan.shards))):
        drawn = _draw_missing(config, generator, variables, rejecting, shards)
    seconds = time.monotonic() - began
    mesh.barrier("synthesize: all shards are written")
    counts = shards.counts() if rejecting else {}
    if mesh.is_lead():
        _finish(output, plan, wanted, counts, config.licence)
    return {
        "classes": plan.classes,
        "per_class": plan.per_class,
        "pictures": plan.total,
        "image_size": generator.picture_size,
        "shards": plan.shards,
        **counts,
        "drawn_by_this_process": drawn,
        "pictures_per_second": round(drawn / seconds, 2),
    }


def _check(config: ConfigDict, generator: nn.Module) -> None:
    for key in ("per_class", "batch_size", "shard_size", "shared_seeds", "centre_samples"):
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


def _begin(output: epath.Path, wanted: dict[str, Any]) -> None:
    """Claims the output folder for this recipe, so that shards of two recipes never mix."""
    path = output / "manifest.json"
    begun = files.read_json(path).get("recipe") if path.exists() else None
    if begun is None and (output / layout.INFO_FILE).exists():
        raise UserError(f"{output} holds a dataset that this stage did not write: set config.output to another folder")
    if begun is not None and (difference := recipe.difference(begun, wanted)):
        raise UserError(
            f"{output} was begun with another {difference}: delete the folder, or set config.output to another one"
        )
    mesh.barrier("synthesize: the recipe is compared")
    if mesh.is_lead() and begun is None:
        files.write_json(path, {"complete": False, "recipe": wanted})


def _draw_missing(
    config: ConfigDict, generator: nn.Module, variables: Any, rejecting: Rejection | None, shards: Shards
) -> int:
    """Writes those of this process's shards that are not there; returns the number of pictures it wrote."""
    mine = range(shards.plan.shards)[jax.process_index() :: jax.process_count()]
    missing = [shard for shard in mine if not shards.exists(shard)]
    draw, batch_size = make_draw(config, generator, variables)
    # even a process that lacks nothing must take part in this
    judge = Judge(rejecting, generator.num_classes, draw, batch_size) if rejecting else None
    if not missing:
        return 0
    labels, indices = (np.concatenate(part) for part in zip(*map(shards.plan.samples, missing), strict=True))
    total = sum(len(shards.plan.samples(shard)[0]) for shard in mine)
    progress = Progress("synthesize", total, unit="pictures", start=total - len(labels))

    def watched() -> Iterator[Taken]:
        # One stream over all shards: rejected pictures of one go into a batch with the first ones of the next.
        taken = attempts.take(labels, indices, draw, batch_size, judge, config.attempts)
        for done, one in enumerate(taken, total - len(labels) + 1):
            yield one
            progress.update(done)

    stream = watched()
    for shard in missing:
        shards.write(shard, stream)
    progress.close()
    return len(labels)


def _finish(output: epath.Path, plan: Plan, wanted: dict[str, Any], counts: dict[str, int], licence: str) -> None:
    """Writes what makes the shards a dataset: TFDS's files, preview, card, and last the complete manifest."""
    names = [class_name(label) for label in range(plan.classes)]
    records.finish(
        output,
        image_size=wanted["image_size"],
        class_names=names,
        splits={SPLIT: plan.shards},
        description="Synthetic faces: every picture was drawn by a generative network.",
        licence=licence,
    )
    pictures.write_png(output / "preview.png", pictures.grid(_preview(output, plan)))
    paths = [records.shard_path(output, SPLIT, shard, plan.shards) for shard in range(plan.shards)]
    hashes = {path.name: cards.sha256(path) for path in paths}
    digest = cards.digest(hashes)
    files.write_text(output / cards.FILE, _card(output, digest, card.write(wanted, counts, licence)))
    manifest = {
        "complete": True,
        "licence": licence,
        "recipe": wanted,
        **({"rejection": counts} if counts else {}),
        "software": {"sface_jax": sface_jax.__version__, "jax": jax.__version__},
        "sha256": digest,
        "shards": hashes,
    }
    files.write_json(output / "manifest.json", manifest)


def _card(output: epath.Path, digest: str, new: str) -> str:
    """The new card, with the figures of an earlier one's audit where that was of these very pictures."""
    path = output / cards.FILE
    audited = cards.section(path.read_text(), cards.PRIVACY) if path.exists() else ""
    return cards.with_section(new, cards.PRIVACY, audited) if digest in audited else new


def _preview(output: epath.Path, plan: Plan, most: int = 8) -> UInt8[np.ndarray, "r c s s 3"]:
    """Some classes, spread over all of them (rows), with the first pictures of each (columns)."""
    split = dataset.open(output)[SPLIT]
    rows = np.linspace(0, plan.classes - 1, min(most, plan.classes)).astype(int)
    columns = np.arange(min(most, plan.per_class))
    images = split.images((rows[:, None] * plan.per_class + columns).ravel())
    return images.reshape(len(rows), len(columns), *images.shape[1:])
