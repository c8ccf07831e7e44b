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

from sface_jax.core import files, metadata, pictures
from sface_jax.core.errors import UserError
from sface_jax.data import blocks, dataset, landmarks, preview, validate
from sface_jax.data.blocks import Blocks
from sface_jax.data.sources import Source
from sface_jax.data.validate import Findings

FINDINGS = "validation.json"
PREVIEW, GRID = "preview.html", "preview.png"
LANDMARKS = "landmarks.tsv"
EQUAL = "has the pixels of another picture"
_ROWS, _COLUMNS = 8, 8  # identities of the preview, and pictures of each
_SHOWN = ("shared", "alike", "mirrored", "repeated", "dark", "bright", "flat")
_EXAMPLES = 6  # of each of these kinds


@dataclasses.dataclass(frozen=True)
class Inspection:
    """What was found in the pictures of a source, by position.

    Attributes:
        outcomes: what became of each, see `blocks`.
        facts: see `validate.FACTS`.
        points: landmarks that were found, NaN where there are none.
        jpeg: whether it is JPEG.
        metadata: whether it carries more than pixels, see `core.metadata`.
        reasons: why a picture is left out.
    """

    outcomes: UInt8[np.ndarray, " n"]
    facts: Shaped[np.ndarray, " n"]
    points: Float[np.ndarray, "n 5 2"]
    jpeg: Bool[np.ndarray, " n"]
    metadata: Bool[np.ndarray, " n"]
    reasons: dict[int, str]

    @property
    def kept(self) -> Int[np.ndarray, " k"]:
        """The positions of the pictures that are not left out, ascending."""
        there = np.ones(len(self.outcomes), bool)
        there[list(self.reasons)] = False
        return np.flatnonzero(there)

    def of(self, outcome: int) -> Int[np.ndarray, " k"]:
        """The positions of the pictures with an outcome."""
        return np.flatnonzero(self.outcomes == outcome)


def look(source: Source, made: Blocks, config: ConfigDict) -> Inspection:
    """Goes through the converted pictures.

    Args:
        source: where they come from.
        made: the converted pictures.
        config: `duplicates`; see configs/prepare.py.
    """
    n = len(source.labels)
    found = Inspection(
        outcomes=np.empty(n, np.uint8),
        facts=np.empty(n, validate.FACTS),
        points=np.empty((n, 5, 2), np.float32),
        jpeg=np.empty(n, bool),
        metadata=np.empty(n, bool),
        reasons={},
    )
    for number in range(made.count):
        block = made.read(number)
        first = number * blocks.SIZE
        rows = slice(first, first + len(block.contents))
        found.outcomes[rows], found.facts[rows], found.points[rows] = block.outcomes, block.facts, block.points
        found.jpeg[rows] = [pictures.is_jpeg(content) for content in block.contents]
        found.metadata[rows] = [metadata.carried(content) for content in block.contents]
        found.reasons.update({first + row: reason for row, reason in enumerate(block.reasons) if reason})
    if config.duplicates == "drop":
        there = found.kept
        superfluous = _superfluous(found.facts["digest"][there], np.asarray(source.labels)[there])
        found.reasons.update(dict.fromkeys(there[superfluous].tolist(), EQUAL))
    return found


def refuse_unreadable(source: Source, found: Inspection, config: ConfigDict, log: epath.Path) -> None:
    """Raises UserError where more pictures than `config.max_unreadable` cannot be read; `log` then names them."""
    unreadable, total = found.of(blocks.UNREADABLE), len(found.outcomes)
    if len(unreadable) > config.max_unreadable * total:
        write_log(source, found, log)
        raise UserError(
            f"{len(unreadable)} of {total} pictures under {config.source} cannot be read, the first is "
            f"{name(source, int(unreadable[0]))} (all in {log}): mend or remove them, or raise "
            f"--config.max_unreadable from {config.max_unreadable:g}"
        )


def write_log(source: Source, found: Inspection, log: epath.Path) -> None:
    """Names the pictures that are left out, one a line, with the reason; no file where there are none."""
    lines = [f"{name(source, position)}\t{reason}\n" for position, reason in sorted(found.reasons.items())]
    if lines:
        files.write_text(log, "".join(lines))
    else:
        log.unlink(missing_ok=True)


def write(
    directory: epath.Path,
    manifest: Mapping[str, Any],
    source: Source,
    made: Blocks,
    found: Inspection,
    positions: Int[np.ndarray, " k"],
) -> None:
    """Writes the validator's findings, the landmarks that were found, and the preview page of a dataset.

    Args:
        directory: the dataset's folder.
        manifest: its manifest.
        source: where its pictures come from.
        made: the converted pictures.
        found: what `look` found.
        positions: those of the dataset's pictures, in any order.
    """
    positions = np.sort(positions)
    labels = np.asarray(source.labels)[positions]
    findings = validate.find(found.facts[positions], labels, size=manifest["counts"]["image_size"])
    if not manifest["procedural"]:  # chance likenesses of people who do not exist are nobody's mistake
        _tell(findings, int(found.metadata[positions].sum()))
    names = [name(source, position) for position in positions.tolist()]
    validation = findings.to_json(names)
    files.write_json(directory / FINDINGS, validation)
    given = positions[~np.isnan(found.points[positions]).any((1, 2))].tolist()
    if given:
        landmarks.write(directory / LANDMARKS, {name(source, position): found.points[position] for position in given})
    examples = []
    for kind in _SHOWN:
        title, meaning = validate.KINDS[kind]
        for group in findings.kinds[kind].examples[:_EXAMPLES]:
            contents = made.contents(positions[list(group)].tolist())
            shown = [(names[row], pictures.decode(content)) for row, content in zip(group, contents, strict=True)]
            examples.append((title, meaning, shown))
    rows = _rows(directory)
    columns = min(len(images) for _, images in rows)  # the report shows these beside synthetic ones
    pictures.write_png(directory / GRID, pictures.grid(np.stack([images[:columns] for _, images in rows])))
    preview.write(
        directory / PREVIEW,
        title="Prepared dataset",
        manifest=manifest,
        validation=validation,
        rows=rows,
        examples=examples,
    )


def _rows(directory: epath.Path) -> list[tuple[str, UInt8[np.ndarray, "_ s s 3"]]]:
    """Some identities to train on, with some pictures of each; synthesis draws the same identities."""
    split = dataset.open(directory)["train"]
    chosen = np.linspace(0, split.num_classes - 1, min(_ROWS, split.num_classes)).astype(int)
    of_each = [(label, np.flatnonzero(split.labels == label)[:_COLUMNS]) for label in split.classes[chosen]]
    return [(split.class_names[label], split.images(indices)) for label, indices in of_each]


def name(source: Source, position: int) -> str:
    """<identity>/<picture>."""
    return f"{source.class_names[source.labels[position]]}/{source.names[position]}"


def _superfluous(digests: Shaped[np.ndarray, "n 2"], labels: Int[np.ndarray, " n"]) -> Bool[np.ndarray, " n"]:
    """Pictures with the pixels of an earlier one of their identity, or of any of another."""
    _, group = np.unique(digests, axis=0, return_inverse=True)
    pairs, first = np.unique(np.stack([group, labels]), axis=1, return_index=True)
    identities = np.bincount(pairs[0])  # that share the pixels of a group
    superfluous = np.ones(len(labels), bool)
    superfluous[first] = False
    return superfluous | (identities[group] > 1)


def _tell(findings: Findings, metadata_carried: int) -> None:
    """Says in the log what makes labels or training doubtful, and what pictures give away besides faces."""
    for kind in ("shared", "alike", "mirrored", "repeated", "enlarged", "dark", "bright", "flat"):
        if count := findings.kinds[kind].count:
            title, meaning = validate.KINDS[kind]
            logging.warning("%s: %d. %s See %s", title, count, meaning, PREVIEW)
    if metadata_carried:
        logging.warning(
            "%d pictures carry EXIF, comments or the like, which may hold names and places: "
            "--config.strip_metadata=True leaves that out, and not a pixel changes",
            metadata_carried,
        )
