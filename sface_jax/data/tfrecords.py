"""Writes a dataset as TFDS's TFRecord files, which `tfds.load` reads; it reads no ArrayRecord.

This module is the one place of the data package that needs tensorflow, to write that format's checksums.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

from sface_jax.core import files
from sface_jax.data import example, layout, local
from sface_jax.data.dataset import Dataset

FORMAT = "tfrecord"
SHARD = 8192  # pictures in a file

_VERSION = re.compile(r"\d+\.\d+\.\d+")


def asked(path: Path) -> bool:
    """Whether an output is a folder of TFDS's: named by a version, as in "faces/1.0.0"."""
    return bool(_VERSION.fullmatch(path.name))


def write(path: Path, dataset: Dataset, done: Callable[[int], None]) -> list[Path]:
    """Writes all splits of a dataset into a new folder, which appears whole.

    Args:
        path: "<folder>/<name>/<version>", opened by `tfds.load("<name>", data_dir="<folder>")` unless TFDS has one
            of that name in its catalogue.
        dataset: the dataset; pictures keep their bytes.
        done: called with the number of pictures written.

    Returns:
        The files.

    Raises:
        UserError: the folder is there already.
    """
    features = files.read_json(dataset.path / layout.FEATURES_FILE)
    info = files.read_json(dataset.path / layout.INFO_FILE)
    total = 0
    with local.appearing(path) as (temporary,):
        temporary.mkdir()
        facts = {}
        for split in dataset.splits:
            facts[split] = _write_split(temporary, dataset, split, lambda count, before=total: done(before + count))
            total += sum(facts[split][0])
        licence = info.get("redistributionInfo", {}).get("license", "")
        new = layout.info_json(facts, info["description"], licence, file_format=FORMAT)
        files.write_text(temporary / layout.NAMES_FILE, "".join(f"{name}\n" for name in dataset.class_names))
        files.write_json(temporary / layout.FEATURES_FILE, features)
        files.write_json(temporary / layout.INFO_FILE, new | {"version": path.name})
    return sorted(path.iterdir())


def _write_split(folder: Path, dataset: Dataset, split: str, done: Callable[[int], None]) -> tuple[list[int], int]:
    """Writes a split; returns the number of records in each shard, and the bytes of all."""
    import tensorflow as tf

    pictures = dataset[split]
    shards = max(-(-len(pictures) // SHARD), 1)
    lengths, size = [], 0
    for shard in range(shards):
        part = range(shard * SHARD, min((shard + 1) * SHARD, len(pictures)))
        file = layout.shard_name(split, shard, shards, file_format=FORMAT)
        with tf.io.TFRecordWriter(str(folder / file)) as writer:
            for index, item in zip(part, pictures.examples(part), strict=True):
                record = example.encode(item)
                writer.write(record)
                size += len(record)
                done(index + 1)
        lengths.append(len(part))
    return lengths, size
