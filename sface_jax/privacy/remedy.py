"""Remedy: the synthetic pictures to leave out, the dataset without them, and what that changes."""

from __future__ import annotations

import csv
import hashlib
import io
import os
import uuid
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from etils import epath
from jaxtyping import Int

from sface_jax.core import files
from sface_jax.core.errors import UserError
from sface_jax.data import cards, dataset, formats, layout, records
from sface_jax.data.example import Example
from sface_jax.data.sources import Source
from sface_jax.privacy.attacks.links import Links
from sface_jax.privacy.attacks.screening import Screening
from sface_jax.privacy.relations import Faces

LIST = "exclude.tsv"
HEADER = ("position", "picture", "score", "rate", "expected_by_chance")

_SHARD = 8192  # pictures in a file
_AUDITED = "No audit of this dataset has been made: the one that chose what to leave out was of the whole."

_HEADLINES: tuple[tuple[str, tuple[str, ...], tuple[str, ...] | float | None], ...] = (
    (
        "same-label match rate at FMR 1e-3",
        ("match_rates", "authentic_synthetic", "1e-3", "rate"),
        ("match_rates", "authentic_synthetic", "1e-3", "fmr"),
    ),
    (
        "rank-1 linkage, single pictures",
        ("linkage", "single", "rank1", "rate"),
        ("linkage", "single", "rank1", "chance"),
    ),
    (
        "rank-1 linkage, all pictures of a class",
        ("linkage", "pooled", "all", "mean", "rank1", "rate"),
        ("linkage", "pooled", "all", "mean", "rank1", "chance"),
    ),
    ("membership AUC, identities", ("membership", "identity", "auc"), 0.5),
    ("membership AUC, pictures", ("membership", "picture", "auc"), 0.5),
    ("p-value of the screening", ("screening", "p_value"), None),
)


def exclude(screening: Screening, rate: str) -> Int[np.ndarray, " k"]:
    """Rows of the synthetic pictures that are flagged at a rate, ascending.

    Args:
        screening: of the set.
        rate: such as "1e-3"; none are flagged where its threshold would rest on less than one chance link.
    """
    return np.sort(screening.flagged(rate).pictures) if rate in screening.thresholds else np.zeros(0, np.int64)


def write_list(
    path: files.PathLike,
    screening: Screening,
    rate: str,
    positions: Int[np.ndarray, " n"],
    name: Callable[[int], str],
    copied: Int[np.ndarray, " c"],
) -> int:
    """Writes the pictures to leave out as a table, the most suspicious first; it names no authentic picture.

    Columns: `HEADER`; the rate is the lowest at which the picture is flagged. Copies come last, without a score. Where
    thresholds at that rate would rest on less than one chance link, copies are all.

    Args:
        path: of the table.
        screening: of the set.
        rate: pictures flagged at this rate are listed.
        positions: where the pictures of the screening's rows lie in the whole set.
        name: what the synthetic picture of a row is called.
        copied: rows of copies, which are listed too where they are not flagged.

    Returns:
        How many are listed.
    """
    links = screening.strongest
    flagged = screening.flagged(rate) if rate in screening.thresholds else Links(*(column[:0] for column in links))
    rates, expected = screening.rate_of(flagged.scores), screening.by_chance(flagged.scores)
    text = io.StringIO()
    table = csv.writer(text, delimiter="\t", lineterminator="\n")
    table.writerow(HEADER)
    for row, score, lowest, chance in zip(flagged.pictures.tolist(), flagged.scores, rates, expected, strict=True):
        table.writerow((positions[row], name(row), f"{score:.6f}", lowest, f"{chance:.3g}"))
    more = np.setdiff1d(copied, flagged.pictures).tolist()
    table.writerows((positions[row], name(row), "", "copy", "") for row in more)
    files.write_text(path, text.getvalue())
    return len(rates) + len(more)


class Kept:
    """A source without some of its pictures; identities keep their labels and names, also one that has none left."""

    def __init__(self, source: Source, left_out: Int[np.ndarray, " k"]):
        """Leaves out the pictures at these positions of the source."""
        self._source = source
        self._positions = np.setdiff1d(np.arange(len(source.labels)), left_out)
        self.class_names = source.class_names
        self.labels = np.asarray(source.labels)[self._positions]
        self.names = [source.names[position] for position in self._positions.tolist()]

    def read(self, position: int) -> bytes:
        """See `Source`."""
        return self._source.read(int(self._positions[position]))

    def version(self) -> str:
        """See `Source`."""
        return self._source.version()


def write_filtered(
    target: files.PathLike,
    path: files.PathLike,
    source: Source,
    left_out: Int[np.ndarray, " k"],
    why: dict[str, Any],
    split: str = "train",
) -> int:
    """Writes a set without some of its pictures; those that stay keep bytes, labels and names.

    A dataset of this project becomes another one, with all its splits, a manifest that says what was left out and why,
    and its card, whose figures of an audit are taken out. Pictures of another kind are written as the target's suffix
    asks, see `formats.write`.

    Args:
        target: a new folder or file.
        path: where the set lies.
        source: its pictures.
        left_out: positions in the source.
        why: for the manifest.
        split: which the source is, of a dataset.

    Returns:
        How many pictures of the split are left.

    What an earlier call wrote of the same set, with the same left out, stays.

    Raises:
        UserError: something else is there already, or nothing would be left.
    """
    target, path = epath.Path(target), epath.Path(path)
    kept = Kept(source, left_out)
    if not len(kept.labels):
        raise UserError(f"every picture of {path} is flagged, so that none is left: do not release it")
    why = {"pictures": len(left_out), "positions_sha256": hashlib.sha256(left_out.astype(np.int64)).hexdigest(), **why}
    if target.exists():
        if _left_out(target) == why:
            return len(kept.labels)
        raise UserError(f"{target} is there already: set --config.filtered to a new folder")
    if not (path / layout.INFO_FILE).exists():
        formats.write(os.fspath(target), kept)
        files.write_json(_note(target), {"left_out": why})
        return len(kept.labels)
    building = target.parent / f".{target.name}.{uuid.uuid4().hex[:8]}.tmp"
    try:
        _write_dataset(building, path, kept, split, why)
        building.rename(target)
    finally:
        if building.exists():
            building.rmtree()
    return len(kept.labels)


def is_filtered(path: files.PathLike) -> bool:
    """Whether it is something that `write_filtered` made."""
    return _left_out(epath.Path(path)) is not None


def _left_out(target: epath.Path) -> dict[str, Any] | None:
    """What the manifest, or the note beside a set of another kind, says was left out."""
    for path in (target / cards.MANIFEST, _note(target)):
        if path.exists():
            return files.read_json(path).get("left_out")
    return None


def _note(target: epath.Path) -> epath.Path:
    return target.parent / f"{target.name}.left_out.json"


def without(faces: Faces, rows: Int[np.ndarray, " k"]) -> Faces:
    """The faces but those at some rows."""
    kept = np.setdiff1d(np.arange(len(faces)), rows)
    return Faces(faces.embeddings[kept], faces.labels[kept])


def compare(before: dict[str, Any], after: dict[str, Any]) -> list[dict[str, Any]]:
    """Headline figures of two audits by one matcher, side by side, those that both have.

    Where the matcher is the one that chose what to leave out, figures must fall whatever it chose: judge by another.

    Args:
        before: the audit of the whole set, as `privacy.audit` gathers it for a matcher.
        after: that of what is left.

    Returns:
        Of each figure `name`, `before`, `after` and `chance` (of what is left; null where it is not one number), with
        `before_interval` and `after_interval` where there are any.
    """
    rows = []
    for name, where, chance in _HEADLINES:
        found = _at(before, where), _at(after, where)
        by_chance = _at(after, chance) if isinstance(chance, tuple) else chance
        ends = [_at(tree, (*where[:-1], "interval")) for tree in (before, after)]
        row = {"name": name, "before": found[0], "after": found[1], "chance": by_chance}
        rows.append(row | {"before_interval": ends[0], "after_interval": ends[1]})
    for key, rate in (_at(before, ("screening", "rates")) or {}).items():
        again = _at(after, ("screening", "rates", key)) or {}
        links, chance = again.get("links"), again.get("expected")
        rows.append({"name": f"links at FPR {key}", "before": rate["links"], "after": links, "chance": chance})
    return [row for row in rows if row["before"] is not None and row["after"] is not None]


def _at(tree: Any, where: tuple[str, ...]) -> Any:
    for key in where:
        tree = tree.get(key) if isinstance(tree, dict) else None
    return tree


def _write_dataset(building: epath.Path, path: epath.Path, kept: Kept, split: str, left_out: dict[str, Any]) -> None:
    opened = dataset.open(path, "synthetic")
    shards, encoding = {}, "jpeg"
    for name in opened.splits:
        total = len(kept.labels) if name == split else len(opened[name])
        shards[name] = -(-total // _SHARD)
        for shard in range(shards[name]):
            part = range(shard * _SHARD, min((shard + 1) * _SHARD, total))
            examples = _examples(kept, part) if name == split else opened[name].examples(part)
            records.write_shard(building, name, shard, shards[name], _numbered(examples, opened, name == split))
        encoding = "jpeg" if encoding == "jpeg" and opened[name].encoded(0)[:3] == b"\xff\xd8\xff" else "png"
    found = path / cards.MANIFEST
    manifest = files.read_json(found) if found.exists() else {}
    licence = manifest.get("licence", "")
    records.finish(
        building,
        image_size=opened.image_size,
        class_names=opened.class_names,
        splits=shards,
        encoding=encoding,
        description="Synthetic faces, without those that an audit flagged.",
        licence=licence,
    )
    hashes = {
        file.name: cards.sha256(file)
        for name, count in shards.items()
        for file in (records.shard_path(building, name, shard, count) for shard in range(count))
    }
    if (path / cards.FILE).exists():
        files.write_text(building / cards.FILE, _card((path / cards.FILE).read_text(), left_out["pictures"]))
    told = {"left_out": left_out, "made_from": {"sha256": cards.stated(manifest)}, "source_manifest": manifest or None}
    made = {"complete": True, "licence": licence, "sha256": cards.digest(hashes), "shards": hashes}
    files.write_json(building / cards.MANIFEST, made | told)


def _examples(kept: Kept, positions: range) -> Iterator[Example]:
    for position in positions:
        label = int(kept.labels[position])
        yield Example(kept.read(position), label, f"{kept.class_names[label]}/{kept.names[position]}")


def _numbered(examples: Iterator[Example], opened: dataset.Dataset, by_name: bool) -> Iterator[Example]:
    """Examples under the dataset's labels: a source numbers the identities of its split from 0."""
    known = {name: label for label, name in enumerate(opened.class_names)} if by_name else {}
    for example in examples:
        identity = example.name.rpartition("/")[0]
        yield example._replace(label=known[identity]) if by_name else example


def _card(text: str, count: int) -> str:
    """The card of what is left: no figures of the whole, no preview of pictures that may be gone."""
    text = cards.handed_on(text, {cards.PREVIEW: None}, cards.section(text, cards.READING) or "See TFDS.")
    if cards.section(text, cards.PRIVACY):
        text = cards.with_section(text, cards.PRIVACY, _AUDITED)
    first, _, rest = text.partition("\n")
    pictures = "1 picture is" if count == 1 else f"{count:,} pictures are"
    return f"{first}\n\n**{pictures} left out** of what is described here, as an audit flagged them.\n{rest}"
