"""Stage prepare: labelled pictures, procedural or from anywhere, become a dataset with held-out identities."""

from __future__ import annotations

import collections
import contextlib
import dataclasses
import fcntl
import hashlib
import json
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
from sface_jax.core.errors import Unfinished, UserError
from sface_jax.core.progress import Progress
from sface_jax.data import blocks, cards, formats, inspection, landmarks, listing, pairs, records, splits
from sface_jax.data.blocks import Blocks, Conversion
from sface_jax.data.example import Example
from sface_jax.data.sources import PROCEDURAL, Chosen, ProceduralFaces, Source

MANIFEST = "manifest.json"
SPLITS = "splits.tsv"
FOLDS = 10

TOO_FEW = "is of an identity with too few pictures"
NO_SPLIT = "is of an identity that is in no split"


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
        with _alone(target):
            _build(config, target)
    mesh.barrier("dataset built")
    if mesh.is_lead():
        for path in _scratch(target):
            path.rmtree()
    return files.read_json(target / MANIFEST)["counts"]


@contextlib.contextmanager
def _alone(target: epath.Path) -> Iterator[None]:
    """Keeps another run out of the work directory while the block is at work; the system frees what a dead run held."""
    if not mesh.is_lead() or "://" in str(target):  # such places have no locks
        yield
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    lock = target.parent / f".{target.name}.lock"
    with lock.open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise Unfinished(f"another run is at work in {target.parent}: wait for it, or choose another") from error
        try:
            yield
        finally:
            lock.unlink(missing_ok=True)


def _build(config: ConfigDict, target: epath.Path) -> None:
    if target.exists():
        raise UserError(f"{target} is there but was not made by stage prepare: move it, or choose another --workdir")
    if config.duplicates not in ("keep", "drop"):
        raise UserError(f'config.duplicates is {config.duplicates!r}: choose "keep" or "drop"')
    conversion = Conversion(config.image_size, config.align, config.encoding, config.strip_metadata)
    whole, source = _sources(config)
    listed = _counts(source, source.labels)
    _plan(config, _large_enough(config, listed), listed)  # what cannot be is told before the work
    made = Blocks(source, conversion, target, _landmarks(config, source))
    _convert(made, len(source.labels), config)
    mesh.barrier("pictures converted")
    if not mesh.is_lead():
        return
    log = target.parent / "skipped.txt"
    found = inspection.look(source, made, config)
    inspection.refuse_unreadable(source, found, config, log)
    counts = _counts(source, np.asarray(source.labels)[found.kept])
    enough = _large_enough(config, counts)
    identities, drawn = _plan(config, enough, counts)
    positions = _positions(source, found.kept, identities)
    _leave_out(source, found, set(enough), identities)
    inspection.write_log(source, found, log)
    _tell(found, log)

    building = _building(target, made, identities, config)
    shards = {}
    for split, chosen in positions.items():
        shards[split] = -(-len(chosen) // config.shard_size)
        _write_shards(building, split, shards[split], config.shard_size, _Examples(source, made, identities, chosen))
    records.finish(
        building,
        image_size=config.image_size,
        class_names=[name for names in identities.values() for name in names],
        splits=shards,
        encoding="jpeg" if found.jpeg[found.kept].all() else "png",
        licence=config.licence,
    )
    for split, (of_split, labels) in drawn.items():
        if (given := len(of_split) // FOLDS) < config.pairs_per_fold:
            logging.warning("split %s has pictures for %d pairs a fold, not %d", split, given, config.pairs_per_fold)
        names = [source.names[position] for position in positions[split].tolist()]
        pairs.write_pairs_file(building / f"{split}_pairs.txt", of_split, labels, identities[split], names)
    splits.write(building / SPLITS, identities, counts)
    manifest = _manifest(building, config, conversion, whole, source, found, identities, counts, drawn)
    inspection.write(building, manifest, source, made, found, found.kept)
    files.write_json(building / MANIFEST, manifest)
    building.rename(target)
    logging.info("look at %s", target / inspection.PREVIEW)


def _building(
    target: epath.Path, made: Blocks, identities: Mapping[str, Sequence[str]], config: ConfigDict
) -> epath.Path:
    """The folder in which the dataset is built, with what a run that was cut off left of the very same one."""
    plan = hashlib.sha256(json.dumps([made.digest, identities, config.shard_size]).encode()).hexdigest()
    building = target.parent / f".{target.name}.building-{plan[:12]}"
    for path in _scratch(target):
        if path not in (building, made.directory):
            path.rmtree()
    building.mkdir(parents=True, exist_ok=True)
    # Shards are whole, temporary files are not; an object store has no empty folders.
    for path in building.iterdir() if building.exists() else ():
        if path.name.startswith("."):
            path.unlink()
    return building


def _scratch(target: epath.Path) -> list[epath.Path]:
    """What runs keep beside the dataset until it is whole."""
    prefixes = tuple(f".{target.name}.{kind}-" for kind in ("blocks", "building"))
    beside = target.parent.iterdir() if target.parent.exists() else ()
    return [path for path in beside if path.name.startswith(prefixes)]


def _leave_out(
    source: Source, found: inspection.Inspection, enough: set[str], identities: Mapping[str, Sequence[str]]
) -> None:
    """Notes the pictures of the identities that are in no split."""
    inside = {name for names in identities.values() for name in names}
    for position in found.kept.tolist():
        name = source.class_names[source.labels[position]]
        if name not in inside:
            found.reasons[position] = NO_SPLIT if name in enough else TOO_FEW


def _tell(found: inspection.Inspection, log: epath.Path) -> None:
    """Says in the log how many pictures are left out."""
    if not found.reasons:
        return
    total, failures = len(found.outcomes), len(found.of(blocks.NOT_ACQUIRED))
    reasons = collections.Counter(found.reasons.values())
    logging.warning(
        "%d of %d pictures are left out, see %s: %d unreadable, %d failures to acquire (FTA %.2f %%), %d duplicates, "
        "%d of identities with too few, %d of identities in no split",
        *(len(found.reasons), total, log, len(found.of(blocks.UNREADABLE)), failures, 100 * failures / total),
        *(reasons[reason] for reason in (inspection.EQUAL, TOO_FEW, NO_SPLIT)),
    )


def _sources(config: ConfigDict) -> tuple[Source, Source]:
    """The source, and what is left of it when identities were excluded and chosen."""
    if not config.source:
        raise UserError("set --config.source to what you have, see configs/prepare.py, or to procedural")
    if config.source == PROCEDURAL:
        faces = ProceduralFaces(
            seed=config.seed,
            identities=config.identities,
            pictures_per_identity=config.pictures_per_identity,
            image_size=config.image_size,
        )
        return faces, faces
    source = formats.open_source(config.source, config.split, config.image_column, config.label_column)
    for kind, names in (("identity", source.class_names), ("picture", source.names)):
        if wrong := [name for name in names if not listing.usable(name)]:
            raise UserError(f"{config.source} has an {kind} called {ascii(wrong[0][:80])}: rename it")
    labels = np.arange(len(source.class_names))
    if config.exclude:
        excluded = _excluded(config.exclude, source.class_names)
        labels = np.array([label for label in labels if source.class_names[label] not in excluded], np.int64)
        if not len(labels):
            raise UserError(f"{config.exclude} excludes every identity of {config.source}: look at both")
    if 0 < config.max_identities < len(labels):
        order = np.random.default_rng(config.seed).permutation(len(labels))
        labels = np.sort(labels[order[: config.max_identities]])
    return source, source if len(labels) == len(source.class_names) else Chosen(source, labels)


def _excluded(path: str, names: Sequence[str]) -> set[str]:
    """The identities to leave out; those that the source does not have are told, for a slip must not keep a person."""
    if not epath.Path(path).exists():
        raise UserError(f"there is no file {path}: --config.exclude names a file with an identity in each line")
    listed = {line.strip() for line in epath.Path(path).read_text().splitlines() if line.strip()}
    if unknown := sorted(listed - set(names)):
        logging.warning(
            "%d of %d identities in %s are not in the source, and so are not left out: %s",
            *(len(unknown), len(listed), path, ", ".join(unknown[:3]) + (", ..." if len(unknown) > 3 else "")),
        )
    logging.info("%d identities are left out by %s", len(listed) - len(unknown), path)
    return listed


def _counts(source: Source, labels: Int[np.ndarray, " n"]) -> dict[str, int]:
    """How many pictures with these labels each identity has."""
    counts = np.bincount(labels, minlength=len(source.class_names)).tolist()
    return dict(zip(source.class_names, counts, strict=True))


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
    conversion: Conversion,
    whole: Source,
    source: Source,
    found: inspection.Inspection,
    identities: Mapping[str, Sequence[str]],
    counts: Mapping[str, int],
    drawn: Mapping[str, tuple[pairs.Pairs, Int[np.ndarray, " n"]]],
) -> dict[str, Any]:
    """What the dataset is and was made from; `procedural` says whether its pictures may be shown."""
    procedural = config.source == PROCEDURAL
    shards = sorted(path for path in directory.iterdir() if ".array_record-" in path.name)
    of_splits = {
        split: {"identities": len(names), "pictures": int(sum(counts[name] for name in names))}
        for split, names in identities.items()
    }
    reasons = collections.Counter(found.reasons.values())
    return {
        "source": str(config.source),
        "format": formats.name(whole),
        "licence": config.licence,
        "procedural": procedural,
        "seed": config.seed,
        "conversion": dataclasses.asdict(conversion),
        "selection": {
            "exclude": _file(config.exclude),
            "splits": _file(config.splits),
            **{key: config[key] for key in ("max_identities", "min_pictures", "duplicates")},
        },
        "counts": {
            "splits": of_splits,
            "image_size": config.image_size,
            "skipped": len(found.reasons),
            "procedural": procedural,
        },
        "pictures": {
            "in_source": len(whole.labels),
            "of_excluded_identities": len(whole.labels) - len(source.labels),
            "unreadable": len(found.of(blocks.UNREADABLE)),
            "failures_to_acquire": len(found.of(blocks.NOT_ACQUIRED)),
            "duplicates_dropped": reasons[inspection.EQUAL],
            "of_identities_with_too_few": reasons[TOO_FEW],
            "of_identities_in_no_split": reasons[NO_SPLIT],
            "bytes_kept": int(np.sum(found.outcomes[found.kept] == blocks.KEPT)),
            "encoded_anew": int(np.sum(found.outcomes[found.kept] == blocks.ENCODED)),
            "with_metadata": int(np.sum(found.metadata[found.kept])),
        },
        "identities": {
            "in_source": len(whole.class_names),
            "left_out": len(whole.class_names) - sum(map(len, identities.values())),
        },
        "pairs": {split: {"folds": FOLDS, "pairs_per_fold": len(of) // FOLDS} for split, (of, _) in drawn.items()},
        "sha256": {path.name: cards.sha256(path) for path in shards},
    }


def _file(path: str) -> dict[str, str] | None:
    """A file that a choice was made by."""
    return {"path": path, "sha256": cards.sha256(path)} if path else None
