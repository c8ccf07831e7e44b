import json

import numpy as np
import pytest

from sface_jax.core.errors import UserError
from sface_jax.data import builders, dataset, layout, records
from sface_jax.data.example import Example
from sface_jax.data.sources import Picture

WRITE_AND_READ = """
import numpy as np
from sface_jax.core import pictures
from sface_jax.data import dataset, pipeline, records
from sface_jax.data.example import Example
directory = sys.argv[1]
for shard in range(2):
    images = np.full((3, 8, 8, 3), 10 * shard, np.uint8)
    items = [Example(pictures.encode_png(image), shard, f"p{shard}/{i}") for i, image in enumerate(images)]
    records.write_shard(directory, "train", shard, 2, items)
print(records.finish(directory, image_size=8, class_names=["p0", "p1"], splits={"train": 2}))
split = dataset.open(directory)["train"]
for limit in (0, 2**30):
    batch = next(pipeline.batches(split, batch_size=6, seed=0, memory_limit=limit))
    assert (batch["image"].mean((1, 2, 3)) == 10 * batch["label"]).all()
assert sys.modules["tensorflow"] is None and "tensorflow_datasets" not in sys.modules
"""

PLAIN_TFDS = """
import sys
import tensorflow_datasets as tfds
builder = tfds.builder_from_directory(sys.argv[1])
source = builder.as_data_source("train")
items = [source[i] for i in range(len(source))]
print([int(item["label"]) for item in items], [int(item["image"].sum()) for item in items])
print(builder.info.features["label"].names, items[0]["name"].decode(), items[0]["image"].shape)
"""


class TwoPeople:
    identities = ["a", "b"]
    image_size = 8

    def __init__(self, content):
        self.content = content

    def count(self, identity):
        return 2

    def pictures(self, identities):
        return (Picture(identity, str(i), self.content) for identity in identities for i in range(2))


def test_writes_and_reads_without_tensorflow_and_plain_tfds_opens_it(tmp_path, run_python):
    assert "{'train': 6}" in run_python(WRITE_AND_READ, tmp_path, tensorflow=False)
    seen = run_python(PLAIN_TFDS, tmp_path, package=False).splitlines()
    assert seen[0] == f"[0, 0, 0, 1, 1, 1] {[0] * 3 + [10 * 8 * 8 * 3] * 3}"
    assert seen[1] == "['p0', 'p1'] p0/0 (8, 8, 3)"


def test_describes_the_dataset_as_the_tfds_builder_does(tmp_path):
    from sface_jax.core import pictures

    content = pictures.encode_png(np.zeros((8, 8, 3), np.uint8))
    builders.build(TwoPeople(content), {"train": ["b"], "heldout": ["a"]}, tmp_path / "tfds")
    for split, label, name in (("train", 0, "b"), ("heldout", 1, "a")):
        examples = [Example(content, label, f"{name}/{i}") for i in range(2)]
        records.write_shard(tmp_path / "own", split, 0, 1, examples)
    records.finish(tmp_path / "own", image_size=8, class_names=["b", "a"], splits={"train": 1, "heldout": 1})

    assert {p.name for p in (tmp_path / "own").iterdir()} == {p.name for p in (tmp_path / "tfds").iterdir()}
    for file in (layout.INFO_FILE, layout.FEATURES_FILE):
        assert json.loads((tmp_path / "own" / file).read_text()) == json.loads((tmp_path / "tfds" / file).read_text())
    ours, theirs = dataset.open(tmp_path / "own"), dataset.open(tmp_path / "tfds")
    assert ours.class_names == theirs.class_names == ["b", "a"]
    for split in ours.splits:
        assert ours[split].names() == theirs[split].names()
        np.testing.assert_array_equal(ours[split].labels, theirs[split].labels)


def test_an_interrupted_shard_leaves_nothing(tmp_path):
    def examples():
        yield Example(b"x", 0, "a/0")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        records.write_shard(tmp_path, "train", 0, 1, examples())
    assert not list(tmp_path.iterdir())
    with pytest.raises(UserError, match="00000-of-00001 is missing"):
        records.finish(tmp_path, image_size=8, class_names=["a"], splits={"train": 1})


def test_equal_records_make_equal_shards(tmp_path):
    examples = [Example(bytes([i]) * 100, i, f"a/{i}") for i in range(50)]
    for copy in ("one", "two"):
        records.write_shard(tmp_path / copy, "train", 0, 1, examples)
    one, two = (records.shard_path(tmp_path / copy, "train", 0, 1).read_bytes() for copy in ("one", "two"))
    assert one == two
