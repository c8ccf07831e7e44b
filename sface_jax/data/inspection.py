"""What stage prepare found in the pictures: which are left out and why, the validator's findings, and the preview."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np
from absl import logging
from etils import epath
from jaxtyping import Bool, Float, Int, Shaped, UInt8
from ml_collections import ConfigDict

from sface_jax.core import files, pictures
from sface_jax.core.errors import UserError
from sface_jax.data import blocks, dataset, landmarks, preview, validate
from sface_jax.data.blocks import Blocks
from sface_jax.data.sources import PROCEDURAL, Source
from sface_jax.data.validate import Findings

FINDINGS = "validation.json"
PREVIEW = "preview.html"
LANDMARKS = "landmarks.tsv"
_ROWS, _COLUMNS = 8, 8  # identities of the preview, and pictures of each
_SHOWN = ("shared", "alike", "mirrored", "repeated", "dark", "bright", "flat")
_EXAMPLES = 6  # of each of these kinds


@dataclasses.dataclass(frozen=True)
class Inspection:
    """What was found in the pictures of a source.

    Attributes:
        outcomes: what became of each, see `blocks`.
        kept: the positions of those that go into the dataset, ascending.
        all_jpeg: whether all of these are JPEG.
        points: landmarks that were found, NaN where there are none.
        findings: of the pictures that are kept; positions are among these.
    """

    outcomes: UInt8[np.ndarray, " n"]
    kept: Int[np.ndarray, " k"]
    all_jpeg: bool
    points: Float[np.ndarray, "n 5 2"]
    findings: Findings

    def counts(self) -> dict[str, int]:
        """How many pictures came in, and what became of them."""
        kinds = np.bincount(self.outcomes, minlength=4).tolist()
        kept = np.bincount(self.outcomes[self.kept], minlength=4).tolist()
        return {
            "in_source": len(self.outcomes),
            "unreadable": kinds[blocks.UNREADABLE],
            "failures_to_acquire": kinds[blocks.NOT_ACQUIRED],
            "duplicates_dropped": sum(kinds[: blocks.UNREADABLE]) - len(self.kept),
            "bytes_kept": kept[blocks.KEPT],
            "encoded_anew": kept[blocks.ENCODED],
        }


def look(source: Source, made: Blocks, config: ConfigDict, log: epath.Path) -> Inspection:
    """Goes through the converted pictures, tells what is left out, and finds what stands out.

    Args:
        source: where they come from.
        made: the converted pictures.
        config: `max_unreadable`, `duplicates`, `image_size`; see configs/prepare.py.
        log: gets the names of the pictures that are left out, one a line, with the reason.

    Raises:
        UserError: more pictures than `max_unreadable` cannot be read, or none is left.
    """
    if config.duplicates not in ("keep", "drop"):
        raise UserError(f'config.duplicates is {config.duplicates!r}: choose "keep" or "drop"')
    columns: list[tuple] = []
    for block in map(made.read, range(made.count)):  # one at a time: contents are large
        jpeg = [pictures.is_jpeg(content) for content in block.contents]
        columns.append((block.outcomes, block.facts, block.points, block.reasons, jpeg))
    outcomes, facts, points, reasons, jpeg = map(np.concatenate, zip(*columns, strict=True))
    reasons = reasons.astype(object)
    there = outcomes < blocks.UNREADABLE
    labels = np.asarray(source.labels)
    if config.duplicates == "drop":
        dropped = np.flatnonzero(there)[_superfluous(facts["digest"][there], labels[there])]
        there[dropped], reasons[dropped] = False, "has the pixels of another picture"
    _report(source, config, outcomes, reasons, ~there, log)
    kept = np.flatnonzero(there)
    findings = validate.find(facts[kept], labels[kept], size=config.image_size)
    if config.source != PROCEDURAL:  # chance likenesses of people who do not exist are nobody's mistake
        _tell(findings)
    return Inspection(outcomes, kept, bool(jpeg[kept].all()), points, findings)


def write(directory: epath.Path, manifest: Mapping[str, Any], source: Source, made: Blocks, found: Inspection) -> None:
    """Writes the findings, the landmarks that were found, and the preview page of a dataset.

    Args:
        directory: the dataset's folder.
        manifest: its manifest.
        source: where its pictures come from.
        made: the pictures.
        found: what `look` found.
    """
    names = [_name(source, position) for position in found.kept.tolist()]
    validation = found.findings.to_json(names)
    files.write_json(directory / FINDINGS, validation)
    given = ~np.isnan(found.points).any((1, 2))
    if given.any():
        points = {_name(source, position): found.points[position] for position in np.flatnonzero(given).tolist()}
        landmarks.write(directory / LANDMARKS, points)
    examples = []
    for kind in _SHOWN:
        title, meaning = validate.KINDS[kind]
        for group in found.findings.kinds[kind].examples[:_EXAMPLES]:
            contents = made.contents(found.kept[list(group)].tolist())
            shown = [(names[row], pictures.decode(content)) for row, content in zip(group, contents, strict=True)]
            examples.append((title, meaning, shown))
    preview.write(
        directory / PREVIEW,
        title="Prepared dataset",
        manifest=manifest,
        validation=validation,
        rows=_rows(directory),
        examples=examples,
    )


def _rows(directory: epath.Path) -> list[tuple[str, UInt8[np.ndarray, "_ s s 3"]]]:
    """Some identities to train on, with some pictures of each."""
    split = dataset.open(directory)["train"]
    chosen = np.linspace(0, split.num_classes - 1, min(_ROWS, split.num_classes)).astype(int)
    of_each = [(label, np.flatnonzero(split.labels == label)[:_COLUMNS]) for label in split.classes[chosen]]
    return [(split.class_names[label], split.images(indices)) for label, indices in of_each]


def _name(source: Source, position: int) -> str:
    return f"{source.class_names[source.labels[position]]}/{source.names[position]}"


def _superfluous(digests: Shaped[np.ndarray, "n 2"], labels: Int[np.ndarray, " n"]) -> Bool[np.ndarray, " n"]:
    """Pictures with the pixels of an earlier one of their identity, or of any of another."""
    _, group = np.unique(digests, axis=0, return_inverse=True)
    pairs, first = np.unique(np.stack([group, labels]), axis=1, return_index=True)
    identities = np.bincount(pairs[0])  # that share the pixels of a group
    superfluous = np.ones(len(labels), bool)
    superfluous[first] = False
    return superfluous | (identities[group] > 1)


def _report(
    source: Source,
    config: ConfigDict,
    outcomes: UInt8[np.ndarray, " n"],
    reasons: Shaped[np.ndarray, " n"],
    left_out: Bool[np.ndarray, " n"],
    log: epath.Path,
) -> None:
    """Names the pictures that are left out, and refuses where too many are unreadable."""
    if not left_out.any():
        log.unlink(missing_ok=True)
        return
    positions = np.flatnonzero(left_out).tolist()
    files.write_text(log, "".join(f"{_name(source, position)}\t{reasons[position]}\n" for position in positions))
    unreadable, total = np.flatnonzero(outcomes == blocks.UNREADABLE), len(outcomes)
    if len(unreadable) > config.max_unreadable * total:
        raise UserError(
            f"{len(unreadable)} of {total} pictures under {config.source} cannot be read, the first is "
            f"{_name(source, int(unreadable[0]))} (all in {log}): mend or remove them, or raise "
            f"--config.max_unreadable from {config.max_unreadable:g}"
        )
    failures = int(np.sum(outcomes == blocks.NOT_ACQUIRED))
    if len(positions) == total:
        raise UserError(f"no picture under {config.source} is left: {log} says why")
    logging.warning(
        "%d of %d pictures are left out, see %s: %d unreadable, %d failures to acquire (FTA %.2f %%), %d duplicates",
        *(len(positions), total, log, len(unreadable), failures, 100 * failures / total),
        len(positions) - len(unreadable) - failures,
    )


def _tell(findings: Findings) -> None:
    """Says in the log what makes labels or training doubtful."""
    for kind in ("shared", "alike", "mirrored", "repeated", "enlarged", "dark", "bright", "flat"):
        if finding := findings.kinds[kind].count:
            title, meaning = validate.KINDS[kind]
            logging.warning("%s: %d. %s See %s", title, finding, meaning, PREVIEW)
