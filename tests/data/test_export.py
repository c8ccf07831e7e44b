"""Stage export: a dataset in formats that others read, with its card."""

from __future__ import annotations

import numpy as np
import pytest
from etils import epath

from configs import export as configs
from sface_jax.core.errors import UserError
from sface_jax.data import export, formats, pairs
from tests.data import containers


@pytest.fixture(scope="module")
def dataset(tmp_path_factory, write_dataset):
    path = tmp_path_factory.mktemp("export") / "set"
    opened, _, labels = write_dataset(path, [6] * 4)
    (path / "README.md").write_text("# Synthetic faces\n")
    (path / "manifest.json").write_text("{}\n")
    drawn = pairs.make_pairs(labels, pairs_per_fold=2, seed=0)
    pairs.write_pairs_file(path / "heldout_pairs.txt", drawn, labels, opened.class_names)
    return path, opened["train"], drawn


def run(source, output, /, **changes):
    config = configs.get_config()
    config.update({"source": str(source), "output": str(output)} | changes)
    return export.run(config, epath.Path(output).parent)


@pytest.mark.parametrize("name", ["train.rec", "x.tar", "x.parquet", "folder"])
def test_a_dataset_goes_with_its_card(tmp_path, dataset, name):
    path, split, _ = dataset
    told = run(path, tmp_path / "out" / name)
    assert (told["pictures"], told["identities"], told["cards"]) == (24, 4, ["README.md", "manifest.json"])
    card = tmp_path / "out" / ("folder/README.md" if name == "folder" else f"{name.partition('.')[0]}.README.md")
    assert card.read_text() == "# Synthetic faces\n"
    found = formats.open_source(tmp_path / "out" / name)
    assert list(containers.content(found).values()) == [split.encoded(i) for i in range(24)]
    run(tmp_path / "out" / name, tmp_path / "again")
    assert (tmp_path / "again" / "README.md").read_text() == card.read_text()


LOAD = """
import sys
import tensorflow_datasets as tfds
for item in tfds.load("my_faces", data_dir=sys.argv[1], split="train"):
    print(int(item["label"]), item["name"].numpy().decode(), int(item["image"].numpy().sum()))
"""


def test_plain_tfds_loads_what_is_written_as_tfrecord(tmp_path, dataset, run_python):
    path, split, _ = dataset
    told = run(path, tmp_path / "my_faces" / "1.0.0")
    assert told["pictures"] == 24 and (tmp_path / "my_faces" / "1.0.0" / "README.md").exists()
    expected = [f"{item['label']} {item['name']} {item['image'].sum(dtype=int)}" for item in split]
    assert run_python(LOAD, tmp_path, package=False).splitlines() == expected


def test_packs(tmp_path, dataset):
    path, split, drawn = dataset
    told = run(path, tmp_path / "held.bin", split="train")
    assert told["pairs"] == 20 and (tmp_path / "held.README.md").exists()
    images, same = pairs.read_bin(tmp_path / "held.bin")
    np.testing.assert_array_equal(same, drawn.same)
    assert images[::2] == [split.encoded(i) for i in drawn.first.tolist()]
    run(path, tmp_path / "folder")
    for source in (tmp_path / "folder", path):  # the same pairs of files, and of a source
        output = tmp_path / f"{source.name}.bin"
        run(source, output, pairs=str(path / "heldout_pairs.txt"), split="train")
        assert output.read_bytes() == (tmp_path / "held.bin").read_bytes()


def test_mistakes_are_told(tmp_path, dataset):
    path = dataset[0]
    for changes, match in (
        ({"source": ""}, "set --config.source"),
        ({"output": ""}, "set --config.source"),
        ({"pairs": "pairs.txt"}, "set --config.output to a .bin"),
        ({"split": "none"}, "has no split 'none'"),
        ({"output": str(tmp_path / "x.bin")}, "has no split 'heldout'"),
        ({"source": str(tmp_path), "output": str(tmp_path / "x.bin")}, "set --config.pairs"),
        ({"output": str(path)}, "there already"),
    ):
        with pytest.raises(UserError, match=match):
            run(path, tmp_path / "x.rec", **changes)
    assert not list(tmp_path.iterdir())
