"""Stage prepare: authentic pictures, procedural or from folders, become a dataset with held-out identities."""

from __future__ import annotations

import hashlib
from typing import Any

import numpy as np
from absl import logging
from etils import epath
from jaxtyping import Int
from ml_collections import ConfigDict

from sface_jax.core import files, mesh, pictures
from sface_jax.core.errors import UserError
from sface_jax.data import dataset, pairs
from sface_jax.data.folders import FolderSource
from sface_jax.data.sources import ProceduralFaces, Source

PROCEDURAL = "procedural"
MANIFEST = "manifest.json"
PAIRS = "heldout_pairs.txt"
FOLDS = 10


def run(config: ConfigDict, workdir: epath.Path) -> dict[str, Any]:
    """Builds `workdir/authentic`: the dataset, `manifest.json`, `preview.png` and `heldout_pairs.txt`.

    The pairs are in LFW's format, 10 folds.

    The folder appears when it is whole. Identities are held out before anything is trained: `heldout_identities` for
    verification and as the audit's non-members, `matcher_identities` to train the audit's own matcher. Each is a
    count, or below 1 a fraction of all identities.

    Returns:
        Counts: {"splits": {split: {"identities", "pictures"}}, "image_size", "skipped", "procedural"}.

    Raises:
        UserError: the source is missing, unreadable beyond the limit, or too small for what is asked of it.
    """
    target = epath.Path(workdir) / "authentic"
    if mesh.is_lead() and not (target / MANIFEST).exists():
        _build(config, target)
    mesh.barrier("dataset built")
    return files.read_json(target / MANIFEST)["counts"]


def _build(config: ConfigDict, target: epath.Path) -> None:
    from sface_jax.data import builders

    if target.exists():
        raise UserError(f"{target} is there but was not made by stage prepare: move it, or choose another --workdir")
    source = _source(config, log=target.parent / "skipped.txt")
    identities = choose_splits(source.identities, config)
    heldout = identities.get("heldout", [])
    labels = np.repeat(np.arange(len(heldout)), [source.count(name) for name in heldout])
    drawn = _draw_pairs(labels, config) if heldout else None
    temporary = target.parent / f".{target.name}.building"
    if temporary.exists():
        temporary.rmtree()
    temporary.mkdir(parents=True)
    try:
        builders.build(source, identities, temporary)
        if drawn:
            pairs.write_pairs_file(temporary / PAIRS, drawn, labels, heldout)
        _write_preview(temporary)
        files.write_json(temporary / MANIFEST, _manifest(temporary, config, source, identities, drawn))
        temporary.rename(target)
    finally:
        if temporary.exists():
            temporary.rmtree()


def _source(config: ConfigDict, log: epath.Path) -> Source:
    if config.source == PROCEDURAL:
        return ProceduralFaces(
            seed=config.seed,
            identities=config.identities,
            pictures_per_identity=config.pictures_per_identity,
            image_size=config.image_size,
        )
    if not config.source:
        raise UserError("set --config.source to a folder of <identity>/<picture> files, or to procedural")
    return FolderSource(
        config.source,
        image_size=config.image_size,
        log=log,
        min_pictures=config.min_pictures,
        drop_small_identities=config.drop_small_identities,
        max_unreadable=config.max_unreadable,
        max_identities=config.max_identities,
        seed=config.seed,
    )


def choose_splits(identities: list[str], config: ConfigDict) -> dict[str, list[str]]:
    """Shares the identities out by `config.seed`: {"train": [...], "heldout": [...], "matcher": [...]}, none empty.

    Raises:
        UserError: fewer than two identities would be left to train, or one would be alone in its split.
    """
    total = len(identities)
    sizes = {"heldout": _count(config.heldout_identities, total), "matcher": _count(config.matcher_identities, total)}
    sizes = {"train": total - sum(sizes.values()), **sizes}
    if sizes["train"] < 2:
        raise UserError(
            f"{total} identities less heldout_identities={sizes['heldout']} and matcher_identities={sizes['matcher']} "
            f"leave {sizes['train']} to train: lower them"
        )
    for split in ("heldout", "matcher"):
        if sizes[split] == 1:
            raise UserError(f"{split}_identities=1 leaves nobody to tell them from: set it to 0, or to 2 or more")
    order = iter(np.random.default_rng((config.seed, 1)).permutation(total))
    chosen = {split: sorted(next(order) for _ in range(size)) for split, size in sizes.items() if size}
    return {split: [identities[i] for i in numbers] for split, numbers in chosen.items()}


def _count(share: float | int, total: int) -> int:
    return int(share) if share >= 1 else round(share * total)


def _draw_pairs(labels: Int[np.ndarray, " n"], config: ConfigDict) -> pairs.Pairs:
    """Draws the verification pairs of the held-out identities; as many as there are, where fewer than asked."""
    most = pairs.capacity(labels, folds=FOLDS, seed=config.seed)
    if most < 2:
        raise UserError(
            f"{len(labels)} pictures of {labels[-1] + 1} held-out identities give no {FOLDS} folds of pairs: "
            "raise --config.heldout_identities"
        )
    per_fold = min(config.pairs_per_fold, most)
    if per_fold < config.pairs_per_fold:
        logging.warning("held-out pictures give %d pairs a fold, not %d", per_fold, config.pairs_per_fold)
    return pairs.make_pairs(labels, folds=FOLDS, pairs_per_fold=per_fold, seed=config.seed)


def _write_preview(directory: epath.Path, most: int = 8) -> None:
    """Draws pictures of some identities to train on, a row each; synthesis draws the same identities."""
    split = dataset.open(directory)["train"]
    chosen = np.linspace(0, split.num_classes - 1, min(most, split.num_classes)).astype(int)
    of_each = [np.flatnonzero(split.labels == split.classes[i])[:most] for i in chosen]
    columns = min(map(len, of_each))
    images = np.stack([split.images(indices[:columns]) for indices in of_each])
    pictures.write_png(directory / "preview.png", pictures.grid(images))


def _manifest(
    directory: epath.Path,
    config: ConfigDict,
    source: Source,
    identities: dict[str, list[str]],
    drawn: pairs.Pairs | None,
) -> dict[str, Any]:
    """What the dataset is and was made from; `procedural` says whether its pictures may be shown."""
    splits = {
        split: {"identities": len(names), "pictures": sum(map(source.count, names))}
        for split, names in identities.items()
    }
    procedural = config.source == PROCEDURAL
    shards = sorted(path for path in directory.iterdir() if ".array_record-" in path.name)
    return {
        "source": str(config.source),
        "procedural": procedural,
        "seed": config.seed,
        "counts": {
            "splits": splits,
            "image_size": config.image_size,
            "skipped": getattr(source, "skipped", 0),
            "procedural": procedural,
        },
        "pairs": {"folds": FOLDS, "pairs_per_fold": len(drawn) // FOLDS if drawn else 0},
        "sha256": {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in shards},
    }
