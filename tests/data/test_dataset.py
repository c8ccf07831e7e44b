import pickle

import numpy as np
import pytest

from sface_jax.core.errors import UserError
from sface_jax.data import dataset, layout, records


def test_reads_what_was_written(tmp_path, write_dataset):
    opened, images, labels = write_dataset(tmp_path, [3, 2, 4])
    split = opened["train"]
    assert opened.splits == ("train",) and len(split) == 9 and split.num_classes == 3 and split.image_size == 8
    assert split.class_names == ["person 0", "person 1", "person 2"]
    assert split[3]["name"] == "person 1/3" and split[3]["label"] == 1 and split[-1]["label"] == 2
    np.testing.assert_array_equal(split[3]["image"], images[3])
    np.testing.assert_array_equal(split.labels, labels)
    order = [8, 0, 3, 3]
    np.testing.assert_array_equal(split.images(order), images[order])
    np.testing.assert_array_equal(split.decode_all(), images)
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(split)).images(order), images[order])
    with pytest.raises(IndexError):
        split[9]


def test_labels_are_read_from_the_records_where_the_copy_is_absent(tmp_path, write_dataset):
    _, _, labels = write_dataset(tmp_path, [3, 2])
    layout.labels_path(dataset.open(tmp_path).path, "train").unlink()
    np.testing.assert_array_equal(dataset.open(tmp_path)["train"].labels, labels)


def test_names_what_is_wrong(tmp_path, write_dataset):
    with pytest.raises(UserError, match="holds no dataset.*--config.train_data"):
        dataset.open(tmp_path / "nowhere", key="train_data")
    opened, _, _ = write_dataset(tmp_path, [3, 2])
    with pytest.raises(UserError, match="no split 'test': it has train"):
        opened["test"]
    shard = records.shard_path(tmp_path, "train", 1, 2)
    shard.write_bytes(shard.read_bytes()[:1000])
    with pytest.raises(UserError, match="00001-of-00002 is missing or damaged"):
        dataset.open(tmp_path)


def test_a_label_without_a_class_is_told_before_anything_is_read(tmp_path, write_dataset):
    write_dataset(tmp_path, [3, 2])
    layout.write_labels(dataset.open(tmp_path).path, "train", [0, 0, 0, 1, 2])
    with pytest.raises(UserError, match=r"label 2, outside 0\.\.1"):
        dataset.open(tmp_path)["train"]
