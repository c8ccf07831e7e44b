"""Stage export: a dataset in formats that others read, with its card, which says nothing that does not hold."""

from __future__ import annotations

import hashlib
import json
import re

import numpy as np
import pytest
from etils import epath

from configs import export as configs
from sface_jax.core.errors import UserError
from sface_jax.data import cards, export, formats, pairs
from tests.data import containers

CARD = """\
# Synthetic faces

![Some](preview.png)

See `manifest.json`.

## How to read it

    as_data_source("train")

## Privacy

None.
"""
MANIFEST = {"complete": True, "licence": "CC0", "sha256": "0" * 64, "shards": {}}


@pytest.fixture(scope="module")
def dataset(tmp_path_factory, write_dataset):
    path = tmp_path_factory.mktemp("export") / "set"
    opened, _, labels = write_dataset(path, [6] * 4)
    (path / "README.md").write_text(CARD)
    (path / "manifest.json").write_text(json.dumps(MANIFEST))
    (path / "preview.png").write_bytes(containers.picture(0, "PNG"))
    drawn = pairs.make_pairs(labels, pairs_per_fold=2, seed=0)
    pairs.write_pairs_file(path / "heldout_pairs.txt", drawn, labels, opened.class_names)
    return path, opened["train"], drawn


def run(source, output, /, **changes):
    config = configs.get_config()
    config.update({"source": str(source), "output": str(output)} | changes)
    return export.run(config, epath.Path(output).parent)


def told_of(output, prefix):
    """Manifest and card of an export, of which all that can be checked is."""
    folder = output if output.is_dir() else output.parent
    manifest = json.loads((folder / f"{prefix}manifest.json").read_text())
    card = (folder / f"{prefix}README.md").read_text()
    assert f"![Some]({prefix}preview.png)\n\nSee `{prefix}manifest.json`." in card and "as_data_source" not in card
    assert cards.section(card, "Privacy") == "None." and (folder / f"{prefix}preview.png").exists()
    named = re.findall(r"`([^`]*\.(?:json|png|lst))`|\(([^)]*\.png)\)|\"([^\"{]*\.(?:rec|idx|tar|parquet|bin))\"", card)
    assert all((folder / name).exists() for names in named for name in names if name)
    if isinstance(manifest["sha256"], dict):
        for name, digest in manifest["sha256"].items():
            assert hashlib.sha256((folder / name).read_bytes()).hexdigest() == digest
    return manifest, card


@pytest.mark.parametrize("name", ["train.rec", "x.tar", "x.parquet", "folder"])
def test_a_dataset_goes_with_its_card(tmp_path, dataset, name):
    path, split, _ = dataset
    output = tmp_path / "out" / name
    told = run(path, output)
    prefix = "" if name == "folder" else f"{name.partition('.')[0]}."
    names = [f"{prefix}{file}" for file in ("README.md", "preview.png", "manifest.json")]
    assert (told["pictures"], told["identities"], told["renamed"], told["cards"]) == (24, 4, 24, names)
    found = formats.open_source(output)
    assert list(containers.content(found).values()) == [split.encoded(i) for i in range(24)]
    manifest, _ = told_of(output, prefix)
    assert manifest["made_from"] == {"source": str(path), "sha256": "0" * 64, "split": "train"}
    assert (manifest["licence"], manifest["source_manifest"]) == ("CC0", MANIFEST)
    files = {name for name in (path.name for path in output.parent.iterdir()) if name not in names}
    assert isinstance(manifest["sha256"], str) if name == "folder" else set(manifest["sha256"]) == files
    assert cards.digest_of(output.parent if prefix else output) is None

    run(output if name == "folder" else output.parent, tmp_path / "again" / "y.tar")  # from the folder with it
    again, card = told_of(tmp_path / "again" / "y.tar", "y.")
    assert again["source_manifest"] == manifest and again["made_from"]["sha256"] == cards.stated(manifest)
    assert again["licence"] == "CC0" and again["renamed"] == 0


def test_shards(tmp_path, dataset):
    run(dataset[0], tmp_path / "x.tar", shard_mb=1e-3)
    manifest, card = told_of(tmp_path / "x.tar", "x.")
    assert len(manifest["sha256"]) > 1 and len(formats.open_source(tmp_path).labels) == 24
    (pattern,) = re.findall(r'WebDataset\("([^"]*)"\)', card)
    assert len(formats.open_source(tmp_path / pattern).labels) == 24


def test_what_has_no_card_gets_a_manifest(tmp_path):
    formats.write(tmp_path / "folder", containers.faces())
    assert run(tmp_path / "folder", tmp_path / "x.rec")["cards"] == ["x.manifest.json"]
    manifest = json.loads((tmp_path / "x.manifest.json").read_text())
    assert manifest["made_from"] == {"source": str(tmp_path / "folder"), "sha256": None, "split": ""}
    assert (manifest["format"], manifest["licence"], manifest["source_manifest"]) == ("RecordIO", "", None)


LOAD = """
import sys
import tensorflow_datasets as tfds
for item in tfds.load("my_faces", data_dir=sys.argv[1], split="train"):
    print(int(item["label"]), item["name"].numpy().decode(), int(item["image"].numpy().sum()))
"""


def test_plain_tfds_loads_what_is_written_as_tfrecord(tmp_path, dataset, run_python):
    path, split, _ = dataset
    told = run(path, tmp_path / "my_faces" / "1.0.0")
    assert told["pictures"] == 24
    manifest, card = told_of(tmp_path / "my_faces" / "1.0.0", "")
    assert manifest["made_from"]["split"] == "train" and 'tfds.load("my_faces"' in card
    expected = [f"{item['label']} {item['name']} {item['image'].sum(dtype=int)}" for item in split]
    assert run_python(LOAD, tmp_path, package=False).splitlines() == expected


def test_packs(tmp_path, dataset):
    path, split, drawn = dataset
    told = run(path, tmp_path / "held.bin", split="train")
    manifest, _ = told_of(tmp_path / "held.bin", "held.")
    assert told["pairs"] == manifest["pairs"] == 20 and list(manifest["sha256"]) == ["held.bin"]
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
        ({"source": str(tmp_path / "none" / "none")}, "there are no pictures at"),
        ({"output": "gs://none/x.rec"}, "on a remote disk"),
    ):
        with pytest.raises(UserError, match=match):
            run(path, tmp_path / "x.rec", **changes)
    assert not list(tmp_path.iterdir())
