"""How a dataset lies on disk: the one definition that writer and reader share.

A dataset is a TFDS directory: ArrayRecord shards, `dataset_info.json`, `features.json`, `label.labels.txt`, and
beside them `labels_<split>.npy`, a copy of the labels that saves reading every record. `dataset_info.json` is written
last: a folder that has it is whole.

TFDS finds a dataset by its name where it lies in a folder of its version: `1.0.0/` holds copies of the three text
files, which point to the shards above. So `tfds.data_source("<folder>", data_dir="<where the folder is>")` opens it
as well as `tfds.builder_from_directory`.
"""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from etils import epath

from sface_jax.core import files

NAME = "face_dataset"
VERSION = "1.0.0"
DESCRIPTION = "Labelled face pictures, split by identity."
INFO_FILE = "dataset_info.json"
FEATURES_FILE = "features.json"
NAMES_FILE = "label.labels.txt"
TEMPLATE = "{DATASET}-{SPLIT}.{FILEFORMAT}-{SHARD_X_OF_Y}"


def shard_name(split: str, shard: int, shards: int, file_format: str = "array_record") -> str:
    """The file name of one shard, e.g. `face_dataset-train.array_record-00003-of-00010`."""
    return f"{NAME}-{split}.{file_format}-{shard:05d}-of-{shards:05d}"


def labels_path(directory: epath.Path, split: str) -> epath.Path:
    """Where the copy of a split's labels lies."""
    return directory / f"labels_{split}.npy"


def write_labels(directory: epath.Path, split: str, labels: Sequence[int] | np.ndarray) -> None:
    """Writes the copy of a split's labels (int32 [n], in the order of the records)."""
    buffer = io.BytesIO()
    np.save(buffer, np.asarray(labels, np.int32))
    files.write_bytes(labels_path(directory, split), buffer.getvalue())


def features_json(image_size: int, num_classes: int, encoding: str) -> dict[str, Any]:
    """`features.json` as TFDS writes it for `{"image": Image, "label": ClassLabel, "name": Text}`."""
    package = "tensorflow_datasets.core.features"
    shape = [str(image_size), str(image_size), "3"]
    features = {
        "image": {
            "pythonClassName": f"{package}.image_feature.Image",
            "image": {"dtype": "uint8", "encodingFormat": encoding, "shape": {"dimensions": shape}},
        },
        "label": {
            "pythonClassName": f"{package}.class_label_feature.ClassLabel",
            "classLabel": {"numClasses": str(num_classes)},
        },
        "name": {"pythonClassName": f"{package}.text_feature.Text", "text": {}},
    }
    return {"pythonClassName": f"{package}.features_dict.FeaturesDict", "featuresDict": {"features": features}}


def info_json(
    splits: Mapping[str, tuple[Sequence[int], int]],
    description: str,
    licence: str = "",
    shards_in: str = "",
    file_format: str = "array_record",
) -> dict[str, Any]:
    """`dataset_info.json` as TFDS writes it.

    Args:
        splits: of each split, in order, the number of records in each shard and the bytes in all.
        description: what the dataset is.
        licence: under which it is handed on; left out where it is not known.
        shards_in: where the shards lie, seen from the file, e.g. "../".
        file_format: "array_record" or "tfrecord".
    """
    return {
        "name": NAME,
        "version": VERSION,
        "description": description,
        "fileFormat": file_format,
        "disableShuffling": True,
        **({"redistributionInfo": {"license": licence}} if licence else {}),
        "supervisedKeys": {"tuple": {"items": [{"featureKey": "image"}, {"featureKey": "label"}]}},
        "splits": [
            {
                "name": split,
                "filepathTemplate": shards_in + TEMPLATE,
                "numBytes": str(size),
                "shardLengths": [str(length) for length in lengths],
            }
            for split, (lengths, size) in splits.items()
        ],
    }
