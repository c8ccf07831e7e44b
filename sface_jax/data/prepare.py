"""Stage prepare: labelled pictures, procedural or from anywhere, become a dataset with held-out identities."""

from __future__ import annotations

import dataclasses
import hashlib
import os
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import jax
import numpy as np
from absl import logging
from etils import epath
from jaxtyping import Float, Int
from ml_collections import ConfigDict

from sface_jax.core import files, mesh
from sface_jax.core.errors import UserError
from sface_jax.core.progress import Progress
from sface_jax.data import blocks, formats, inspection, landmarks, pairs, records, splits
from sface_jax.data.blocks import Blocks, Conversion
from sface_jax.data.example import Example
from sface_jax.data.sources import PROCEDURAL, Chosen, ProceduralFaces, Source

MANIFEST = "manifest.json"
SPLITS = "splits.tsv"
FOLDS = 10


def run(config: ConfigDict, workdir: epath.Path) -> dict[str, Any]:
    """Builds `workdir/authentic`: the dataset, its manifest, the validator's findings, a preview and the splits.

    The folder appears when it is whole. Identities are held out before anything is trained: `heldout_identities` for
    verification and as the audit's non-members, `matcher_identities` to train the audit's own matcher,
    `verification_identities` for verification alone. For the held-out and the verification split, pairs in LFW's
    format (10 folds) lie in `<split>_pairs.txt`.

    Several processes share the work, on one file system. What was converted is kept until the dataset is whole: a run
    that was cut off goes on, and ends with the same bytes.

    Returns:
        Counts: {"splits": {split: {"identities", "pictures"}}, "image_size", "skipped", "procedural"}.

    Raises:
        UserError: the source is missing, unreadable beyond the limit, or too small for what is asked of it.
    """
    target = epath.Path(workdir) / "authentic"
    if not (target / MANIFEST).exists():
        _build(config, target)
    mesh.barrier("dataset built")
    return files.read_json(target / MANIFEST)["counts"]


def _build(config: ConfigDict, target: epath.Path) -> None:
    if target.exists():
        raise UserError(f"{target} is there but was not made by stage prepare: move it, or choose another --workdir")
    source = _source(config)
    listed = _counts(source, source.labels)
    _plan(config, _large_enough(config, listed), listed)  # what cannot be is told before the work
    made = Blocks(source, _conversion(config), target, _landmarks(config, source))
    _convert(made, len(source.labels), config)
    mesh.barrier("pictures converted")
    if not mesh.is_lead():
        return
    found = inspection.look(source, made, config, log=target.parent / "skipped.txt")
    counts = _counts(source, source.labels[found.kept])
    identities, drawn = _plan(config, _large_enough(config, counts), counts)
    building = target.parent / f".{target.name}.building"
    building.mkdir(parents=True, exist_ok=True)
    for path in building.iterdir():  # of a run that was cut off: shards are whole, temporary files are not
        if path.name.startswith("."):
            path.unlink()
    shards = {}
    for split, chosen in _positions(source, found.kept, identities).items():
        shards[split] = -(-len(chosen) // config.shard_size)
        _write_shards(building, split, shards[split], config.shard_size, _Examples(source, made, identities, chosen))
    records.finish(
        building,
        image_size=config.image_size,
        class_names=[name for names in identities.values() for name in names],
        splits=shards,
        encoding="jpeg" if found.all_jpeg else "png",
        licence=config.licence,
    )
    for split, (of_split, labels) in drawn.items():
        if (given := len(of_split) // FOLDS) < config.pairs_per_fold:
            logging.warning("split %s has pictures for %d pairs a fold, not %d", split, given, config.pairs_per_fold)
        pairs.write_pairs_file(building / f"{split}_pairs.txt", of_split, labels, identities[split])
    splits.write(building / SPLITS, identities, counts)
    manifest = _manifest(building, config, source, found, identities, counts, drawn)
    inspection.write(building, manifest, source, made, found)
    files.write_json(building / MANIFEST, manifest)
    building.rename(target)
    made.remove()
    logging.info("look at %s", target / inspection.PREVIEW)


def _source(config: ConfigDict) -> Source:
    if not config.source:
        raise UserError("set --config.source to what you have, see configs/prepare.py, or to procedural")
    if config.source == PROCEDURAL:
        return ProceduralFaces(
            seed=config.seed,
            identities=config.identities,
            pictures_per_identity=config.pictures_per_identity,
            image_size=config.image_size,
        )
    source = formats.open_source(config.source, config.split, config.image_column, config.label_column)
    labels = np.arange(len(source.class_names))
    if config.exclude:
        excluded = _excluded(config.exclude)
        labels = np.array([label for label in labels if source.class_names[label] not in excluded], np.int64)
        logging.info("%d identities are left out by %s", len(source.class_names) - len(labels), config.exclude)
    if 0 < config.max_identities < len(labels):
        order = np.random.default_rng(config.seed).permutation(len(labels))
        labels = np.sort(labels[order[: config.max_identities]])
    return source if len(labels) == len(source.class_names) else Chosen(source, labels)


def _counts(source: Source, labels: Int[np.ndarray, " n"]) -> dict[str, int]:
    """How many pictures with these labels each identity has."""
    counts = np.bincount(labels, minlength=len(source.class_names)).tolist()
    return dict(zip(source.class_names, counts, strict=True))


def _excluded(path: str) -> set[str]:
    if not epath.Path(path).exists():
        raise UserError(f"there is no file {path}: --config.exclude names a file with an identity in each line")
    return set(epath.Path(path).read_text().splitlines())


def _conversion(config: ConfigDict) -> Conversion:
    return Conversion(config.image_size, config.align, config.encoding)


def _landmarks(config: ConfigDict, source: Source) -> Float[np.ndarray, "n 5 2"] | None:
    """The landmarks of each picture, where a file gives them."""
    if (config.align == blocks.LANDMARKS) != bool(config.landmarks):
        raise UserError("config.align=landmarks and config.landmarks=FILE go together: set both, or neither")
    if not config.landmarks:
        return None
    known = landmarks.read(config.landmarks)
    return landmarks.match(known, source.class_names, source.labels, source.names)[0]


def _convert(made: Blocks, total: int, config: ConfigDict) -> None:
    """Makes the missing blocks; block b is the work of process b % P."""
    missing = made.missing()
    mine = [number for number in missing if number % jax.process_count() == jax.process_index()]
    # Procedural faces are drawn by a program that takes all cores by itself.
    workers = 1 if config.source == PROCEDURAL else min(config.workers or os.cpu_count() or 1, max(len(mine), 1))
    done = min((made.count - len(missing)) * blocks.SIZE, total)
    progress = Progress("reading pictures", total, unit="pictures", start=done)
    for count in made.convert(mine, workers):
        done += count * jax.process_count()
        progress.update(min(done, total))
    progress.close()


def _plan(
    config: ConfigDict, named: Sequence[str], counts: Mapping[str, int]
) -> tuple[dict[str, list[str]], dict[str, tuple[pairs.Pairs, Int[np.ndarray, " n"]]]]:
    """Shares identities with so many pictures out; draws pairs, with the labels that they refer to."""
    identities, drawn = splits.choose(named, config), {}
    for split in splits.JUDGING:
        if names := identities.get(split):
            labels = np.repeat(np.arange(len(names)), [counts[name] for name in names])
            drawn[split] = _draw_pairs(labels, split, config), labels
    return identities, drawn


def _draw_pairs(labels: Int[np.ndarray, " n"], split: str, config: ConfigDict) -> pairs.Pairs:
    """Draws the verification pairs of a split; as many as there are, where fewer than asked."""
    most = pairs.capacity(labels, folds=FOLDS, seed=config.seed)
    if most < 2:
        raise UserError(
            f"{len(labels)} pictures of {labels[-1] + 1} {'held-out' if split == splits.HELDOUT else split} identities "
            f"give no {FOLDS} folds of pairs: raise --config.{split}_identities"
        )
    return pairs.make_pairs(labels, folds=FOLDS, pairs_per_fold=min(config.pairs_per_fold, most), seed=config.seed)


def _large_enough(config: ConfigDict, counts: Mapping[str, int]) -> list[str]:
    """The identities with pictures enough."""
    small = [name for name, count in counts.items() if count < config.min_pictures]
    if small and not config.drop_small_identities:
        raise UserError(
            f"{len(small)} of {len(counts)} identities under {config.source} have fewer than {config.min_pictures} "
            f"pictures (the first: {small[0]}): add some, or drop them with --config.drop_small_identities=True"
        )
    if len(small) == len(counts):
        raise UserError(
            f"no identity under {config.source} has {config.min_pictures} pictures: lower --config.min_pictures"
        )
    if small:
        logging.info("%d identities with fewer than %d pictures are left out", len(small), config.min_pictures)
    return [name for name, count in counts.items() if count >= config.min_pictures]


def _positions(
    source: Source, kept: Int[np.ndarray, " n"], identities: Mapping[str, Sequence[str]]
) -> dict[str, Int[np.ndarray, " k"]]:
    """The positions of each split's pictures, in the order of its identities."""
    of_label = np.split(kept, np.searchsorted(source.labels[kept], np.arange(1, len(source.class_names))))
    of_name = dict(zip(source.class_names, of_label, strict=True))
    return {split: np.concatenate([of_name[name] for name in names]) for split, names in identities.items()}


class _Examples:
    """The records of a split."""

    def __init__(
        self,
        source: Source,
        made: Blocks,
        identities: Mapping[str, Sequence[str]],
        positions: Int[np.ndarray, " n"],
    ):
        self._source, self._made, self._positions = source, made, positions
        names = [name for of_split in identities.values() for name in of_split]
        self._labels = {name: label for label, name in enumerate(names)}

    def __len__(self) -> int:
        return len(self._positions)

    def __getitem__(self, part: slice) -> Iterator[Example]:
        """The records at places of the split."""
        positions = self._positions[part].tolist()
        for position, content in zip(positions, self._made.contents(positions), strict=True):
            identity = self._source.class_names[self._source.labels[position]]
            yield Example(content, self._labels[identity], f"{identity}/{self._source.names[position]}")


def _write_shards(directory: epath.Path, split: str, shards: int, size: int, examples: _Examples) -> None:
    """Writes the shards of a split that are missing."""
    progress = Progress(f"writing {split}", len(examples), unit="pictures")
    for shard in range(shards):
        if not records.shard_path(directory, split, shard, shards).exists():
            records.write_shard(directory, split, shard, shards, examples[shard * size : (shard + 1) * size])
        progress.update(min((shard + 1) * size, len(examples)))
    progress.close()


def _manifest(
    directory: epath.Path,
    config: ConfigDict,
    source: Source,
    found: inspection.Inspection,
    identities: Mapping[str, Sequence[str]],
    counts: Mapping[str, int],
    drawn: Mapping[str, tuple[pairs.Pairs, Int[np.ndarray, " n"]]],
) -> dict[str, Any]:
    """What the dataset is and was made from; `procedural` says whether its pictures may be shown."""
    procedural = config.source == PROCEDURAL
    whole = source.whole if isinstance(source, Chosen) else source
    shards = sorted(path for path in directory.iterdir() if ".array_record-" in path.name)
    of_splits = {
        split: {"identities": len(names), "pictures": int(sum(counts[name] for name in names))}
        for split, names in identities.items()
    }
    return {
        "source": str(config.source),
        "format": formats.name(whole),
        "licence": config.licence,
        "procedural": procedural,
        "seed": config.seed,
        "conversion": dataclasses.asdict(_conversion(config)),
        "counts": {
            "splits": of_splits,
            "image_size": config.image_size,
            "skipped": len(source.labels) - len(found.kept),
            "procedural": procedural,
        },
        "pictures": found.counts(),
        "identities": {
            "in_source": len(whole.class_names),
            "left_out": len(whole.class_names) - sum(map(len, identities.values())),
        },
        "pairs": {split: {"folds": FOLDS, "pairs_per_fold": len(of) // FOLDS} for split, (of, _) in drawn.items()},
        "sha256": {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in shards},
    }
