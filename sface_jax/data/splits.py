"""Which identity belongs to which split: drawn by a seed, or read from a file; and the file."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence

import numpy as np
from absl import logging
from etils import epath
from ml_collections import ConfigDict

from sface_jax.core import files
from sface_jax.core.errors import UserError

TRAIN, HELDOUT, MATCHER, VERIFICATION = "train", "heldout", "matcher", "verification"
SHARES = (HELDOUT, MATCHER, VERIFICATION)
"""The splits whose share a config gives; the rest trains."""

JUDGING = (HELDOUT, VERIFICATION)
"""Splits for which verification pairs are drawn."""

_HEADER = ("identity", "split", "label", "pictures")


def choose(identities: Sequence[str], config: ConfigDict) -> dict[str, list[str]]:
    """Shares identities out by `config.seed`, or as `config.splits` says where it names a file.

    Args:
        identities: all of them; those of a split keep their order.
        config: `heldout_identities`, `matcher_identities` and `verification_identities`, each a count, or below 1 a
            fraction of all; `seed`; `splits`.

    Returns:
        {"train": [...], "heldout": [...], ...}, none empty and none with an identity of another.

    Raises:
        UserError: fewer than two identities would be left to train, one would be alone in its split, or the file is
            malformed.
    """
    if config.splits:
        return _read(config.splits, identities)
    total = len(identities)
    sizes = {split: _count(config[f"{split}_identities"], total) for split in SHARES}
    left = total - sum(sizes.values())
    if left < 2:
        asked = [f"{split}_identities={size}" for split, size in sizes.items() if size or split != VERIFICATION]
        raise UserError(f"{total} identities less {' and '.join(asked)} leave {left} to train: lower them")
    for split, size in sizes.items():
        if size == 1:
            share = config[f"{split}_identities"]
            told = "" if share >= 1 else f" of {total} identities is one, which"
            raise UserError(
                f"{split}_identities={share:g}{told} leaves nobody to tell it from: set it to 0, or to 2 or more"
            )
    order = iter(np.random.default_rng((config.seed, 1)).permutation(total))
    chosen = {split: sorted(next(order) for _ in range(size)) for split, size in {TRAIN: left, **sizes}.items() if size}
    return {split: [identities[i] for i in numbers] for split, numbers in chosen.items()}


def _count(share: float | int, total: int) -> int:
    return int(share) if share >= 1 else round(share * total)


def write(path: files.PathLike, identities: Mapping[str, Sequence[str]], pictures: Mapping[str, int]) -> None:
    """Writes a line for each identity: name, split, label, number of pictures; separated by tabs.

    Args:
        path: the file, which `config.splits` may name for another dataset.
        identities: of each split, in the order of their labels.
        pictures: of each identity.
    """
    buffer = io.StringIO()
    writer = csv.writer(buffer, delimiter="\t", lineterminator="\n")
    writer.writerow(_HEADER)
    rows = [(name, split) for split, names in identities.items() for name in names]
    writer.writerows((name, split, label, pictures[name]) for label, (name, split) in enumerate(rows))
    files.write_text(path, buffer.getvalue())


def _read(path: files.PathLike, identities: Sequence[str]) -> dict[str, list[str]]:
    path = epath.Path(path)
    if not path.exists():
        raise UserError(f"there is no file {path}: set --config.splits to a splits.tsv, or to nothing")
    rows = [row for row in csv.reader(path.read_text().splitlines(), delimiter="\t") if row]
    split_of: dict[str, str] = {}
    for number, row in enumerate(rows, start=1):
        if tuple(row[:2]) == _HEADER[:2]:
            continue
        if len(row) < 2 or not row[1].isidentifier() or split_of.setdefault(row[0], row[1]) != row[1]:
            raise UserError(f"{path}, line {number}: a line is identity<TAB>split, and names an identity once")
    found = set(identities)
    known = [name for name in identities if name in split_of]
    if unknown := len(identities) - len(known):
        logging.warning("%d identities are in no split of %s and are left out", unknown, path)
    if absent := sum(name not in found for name in split_of):
        logging.warning("%d identities of %s are not in the source", absent, path)
    order = dict.fromkeys((TRAIN, *split_of.values()))
    chosen = {split: [name for name in known if split_of[name] == split] for split in order}
    if len(chosen[TRAIN]) < 2:
        raise UserError(f"{path} leaves {len(chosen[TRAIN])} identities of the source in split {TRAIN}: it takes two")
    return {split: names for split, names in chosen.items() if names}
