"""Stage `export`: a dataset or any other labelled pictures, in a format that others read."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import jax
import numpy as np
from absl import logging
from etils import epath
from ml_collections import ConfigDict

from sface_jax.core.errors import UserError
from sface_jax.core.progress import Progress
from sface_jax.data import dataset, formats, pairs, recordio, tfrecords

PACK = ".bin"
FOLDS = 10  # that readers of a pack cut it into
CARDS = ("README.md", "manifest.json")
"""What tells of a dataset, and goes with it wherever it goes."""


def run(config: ConfigDict, workdir: epath.Path) -> dict[str, Any]:
    """Writes what `config.source` is in the format of `config.output`; see `configs/export.py` for the keys.

    Returns:
        {"output", "pictures", "identities", "cards"}; of a pack "pairs" in place of "identities".

    Raises:
        UserError: there is nothing to read, or the output is there already or of an unknown format.
        Damaged: a container or a picture cannot be read.
    """
    if jax.process_count() > 1:
        raise UserError("an export is the work of one process: run it alone")
    if not config.source or not config.output:
        raise UserError(
            "set --config.source to a dataset or other pictures, and --config.output to a new file or folder"
        )
    output, cards = Path(config.output), _cards(epath.Path(config.source))
    if output.suffix.lower() == PACK:
        return _pack(config, output, cards)
    if tfrecords.asked(output):
        return _tfds(config, output, cards)
    if config.pairs:
        raise UserError(f"config.pairs makes a verification pack: set --config.output to a {PACK}")
    source = formats.open_source(config.source, config.split or "train", config.image_column, config.label_column)
    names = formats.write(output, source, shard_bytes=int(config.shard_mb * 1e6), beside=cards)
    identities = len(source.class_names)
    logging.info("%d pictures of %d identities: in %s", len(names), identities, output)
    return {"output": str(output), "pictures": len(names), "identities": identities, "cards": list(cards)}


def _tfds(config: ConfigDict, output: Path, cards: dict[str, bytes]) -> dict[str, Any]:
    """Writes all splits of a dataset as TFRecord files."""
    opened = dataset.open(config.source, "source")
    total = sum(len(opened[split]) for split in opened.splits)
    progress = Progress(f"writing {output}", total, unit="pictures")
    tfrecords.write(output, opened, progress.update, cards)
    progress.close()
    logging.info('%d pictures: tfds.load("%s", data_dir="%s")', total, output.parent.name, output.parent.parent)
    return {"output": str(output), "pictures": total, "identities": len(opened.class_names), "cards": list(cards)}


def _cards(source: epath.Path) -> dict[str, bytes]:
    """What tells of the source, in its folder or, as this stage writes it, beside its file."""
    found = {name: source / name if source.is_dir() else source.with_name(f"{source.stem}.{name}") for name in CARDS}
    return {name: path.read_bytes() for name, path in found.items() if path.exists()}


def _pack(config: ConfigDict, output: Path, cards: dict[str, bytes]) -> dict[str, Any]:
    """Writes a verification pack of the pairs in `config.pairs`, or of a dataset's held-out ones."""
    if output.exists():
        raise UserError(f"{output} is there already: choose another --config.output")
    root = epath.Path(config.source)
    listed, split = config.pairs, config.split or "train"
    if not listed and (root / "heldout_pairs.txt").exists():
        listed, split = root / "heldout_pairs.txt", config.split or "heldout"
    if not listed:
        raise UserError(f"{root} has no heldout_pairs.txt: set --config.pairs to a file of pairs")
    if root.is_dir() and not formats.holds_container(root):
        paths, drawn = pairs.read_pairs_file(listed, root)
        contents = [path.read_bytes() for path in paths]
    else:
        source = formats.open_source(root, split, config.image_column, config.label_column)
        drawn = pairs.read_split_pairs(listed, source)
        used = np.unique([drawn.first, drawn.second]).tolist()
        contents = {position: source.read(position) for position in used}
    if drawn.folds != FOLDS:
        dealt = drawn.in_folds(FOLDS)
        told = "%s: the pairs of %d folds were dealt into %d, %d of %d fill no round and are left out"
        logging.warning(told, output, drawn.folds, FOLDS, len(drawn) - len(dealt), len(drawn))
        drawn = dealt
    if not len(drawn):
        raise UserError(f"{listed} has too few pairs for the {FOLDS} folds of a pack")
    foreign = sum(not recordio.mxnet_decodes(contents[position]) for position in np.unique([drawn.first, drawn.second]))
    if foreign:
        logging.warning(
            "%s has %d pictures that are neither JPEG nor PNG: not every reader decodes them", output, foreign
        )
    order = np.stack([drawn.first, drawn.second], axis=1).reshape(-1).tolist()
    with formats.accompanied(output, cards):
        pairs.write_bin(output, [contents[position] for position in order], drawn.same)
    pictures = len(set(order))
    logging.info("%d pairs of %d pictures: in %s", len(drawn), pictures, output)
    return {"output": str(output), "pictures": pictures, "pairs": len(drawn), "cards": list(cards)}
