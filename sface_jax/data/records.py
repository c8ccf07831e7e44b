"""Writes a dataset shard by shard, without tensorflow; a shard that exists is whole.

    for shard in range(shards):
        if not records.shard_path(directory, "train", shard, shards).exists():
            records.write_shard(directory, "train", shard, shards, examples(shard))
    records.finish(directory, image_size=112, class_names=names, splits={"train": shards})

Several processes may write different shards at the same time; one of them calls `finish` when all are there.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence

from array_record.python import array_record_data_source, array_record_module
from etils import epath

from sface_jax.core import files
from sface_jax.core.errors import UserError
from sface_jax.data import example, layout
from sface_jax.data.example import Example


def shard_path(directory: files.PathLike, split: str, shard: int, shards: int) -> epath.Path:
    """Where shard number `shard` (from 0) of `shards` lies."""
    return epath.Path(directory) / layout.shard_name(split, shard, shards)


def write_shard(directory: files.PathLike, split: str, shard: int, shards: int, examples: Iterable[Example]) -> int:
    """Writes one shard under a temporary name and renames it when it is whole.

    Args:
        directory: the dataset's folder, made when absent.
        split: e.g. "train".
        shard: number of this shard, from 0.
        shards: number of shards of the split.
        examples: the records, in order; pictures are already encoded.

    Returns:
        The number of records written.

    Raises:
        UserError: no space is left on the device.
    """
    path = shard_path(directory, split, shard, shards)
    count = 0
    with files.appearing(path) as temporary:
        writer = array_record_module.ArrayRecordWriter(os.fspath(temporary), "group_size:1")
        try:
            for item in examples:
                writer.write(example.encode(item))
                count += 1
        finally:
            writer.close()
    return count


def finish(
    directory: files.PathLike,
    *,
    image_size: int,
    class_names: Sequence[str],
    splits: Mapping[str, int],
    encoding: str = "png",
    description: str = layout.DESCRIPTION,
    licence: str = "",
) -> dict[str, int]:
    """Makes the folder a dataset that TFDS opens, see `layout`: call it when every shard is written.

    Args:
        directory: the folder with the shards.
        image_size: side of the square pictures, in pixels.
        class_names: names of the classes, by label.
        splits: number of shards of each split.
        encoding: "png" or "jpeg"; where there are both, "png", by which TFDS decodes either.
        description: one line on what the dataset is.
        licence: under which it is handed on, where that is known.

    Returns:
        The number of records of each split.

    Raises:
        UserError: a shard is missing.
    """
    directory = epath.Path(directory)
    facts: dict[str, tuple[list[int], int]] = {}
    for split, shards in splits.items():
        paths = [shard_path(directory, split, shard, shards) for shard in range(shards)]
        for path in paths:
            if not path.exists():
                raise UserError(f"{path} is missing: run the stage again to write it")
        lengths, size, labels = [], 0, []
        for path in paths:
            contents = list(array_record_data_source.ArrayRecordDataSource([files.local(path)]))
            labels += [example.decode(content).label for content in contents]
            lengths.append(len(contents))
            size += sum(map(len, contents))
        facts[split] = lengths, size
        layout.write_labels(directory, split, labels)
    features = layout.features_json(image_size, len(class_names), encoding)
    for folder, shards_in in ((directory / layout.VERSION, "../"), (directory, "")):
        files.write_text(folder / layout.NAMES_FILE, "".join(f"{name}\n" for name in class_names))
        files.write_json(folder / layout.FEATURES_FILE, features)
        files.write_json(folder / layout.INFO_FILE, layout.info_json(facts, description, licence, shards_in))
    return {split: sum(lengths) for split, (lengths, _) in facts.items()}
