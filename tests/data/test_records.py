import json
from pathlib import Path

import numpy as np
import pytest

from sface_jax.core import pictures
from sface_jax.core.errors import UserError
from sface_jax.data import dataset, layout, records
from sface_jax.data.example import Example

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
folder, _, name = sys.argv[1].rpartition("/")
by_name = tfds.data_source(name, data_dir=folder, split="train")
assert [item["name"] for item in by_name] == [item["name"] for item in source]
items = [source[i] for i in range(len(source))]
print([int(item["label"]) for item in items], [int(item["image"].sum()) for item in items])
print(builder.info.features["label"].names, items[0]["name"].decode(), items[0]["image"].shape)
"""


def test_writes_and_reads_without_tensorflow_and_plain_tfds_opens_it(tmp_path, run_python):
    assert "{'train': 6}" in run_python(WRITE_AND_READ, tmp_path, tensorflow=False)
    seen = run_python(PLAIN_TFDS, tmp_path, package=False).splitlines()
    assert seen[0] == f"[0, 0, 0, 1, 1, 1] {[0] * 3 + [10 * 8 * 8 * 3] * 3}"
    assert seen[1] == "['p0', 'p1'] p0/0 (8, 8, 3)"


AS_TFDS_DOES = """
import json, sys
import tensorflow_datasets as tfds
class FaceDataset(tfds.core.GeneratorBasedBuilder):
    VERSION = tfds.core.Version("1.0.0")
    url_infos = None
    def _info(self):
        image = tfds.features.Image(shape=(8, 8, 3), encoding_format="png")
        label = tfds.features.ClassLabel(names=["b", "a"])
        features = tfds.features.FeaturesDict({"image": image, "label": label, "name": tfds.features.Text()})
        return tfds.core.DatasetInfo(builder=self, description=sys.argv[3], features=features, license="CC0",
            supervised_keys=("image", "label"), disable_shuffling=True)
    def _split_generators(self, dl_manager):
        return {"train": self._generate_examples(0, "b"), "heldout": self._generate_examples(1, "a")}
    def _generate_examples(self, label, name):
        for i in range(2):
            yield i, {"image": open(sys.argv[2], "rb").read(), "label": label, "name": f"{name}/{i}"}
builder = FaceDataset(data_dir=sys.argv[1], file_format="array_record")
builder.download_and_prepare()
print(builder.data_dir)
"""


def test_describes_the_dataset_as_tfds_does(tmp_path, run_python):
    content = pictures.encode_png(np.zeros((8, 8, 3), np.uint8))
    (tmp_path / "x.png").write_bytes(content)
    told = run_python(AS_TFDS_DOES, tmp_path / "tfds", tmp_path / "x.png", layout.DESCRIPTION, package=False)
    theirs = Path(told.splitlines()[-1])
    for split, label, name in (("train", 0, "b"), ("heldout", 1, "a")):
        examples = [Example(content, label, f"{name}/{i}") for i in range(2)]
        records.write_shard(tmp_path / "own", split, 0, 1, examples)
    splits = {"train": 1, "heldout": 1}
    records.finish(tmp_path / "own", image_size=8, class_names=["b", "a"], splits=splits, licence="CC0")
    for file in (layout.INFO_FILE, layout.FEATURES_FILE):
        own, of_tfds = (json.loads((folder / file).read_text()) for folder in (tmp_path / "own", theirs))
        for known in ("moduleName", "nondeterministicOrder"):  # facts of the program that TFDS ran in
            of_tfds.pop(known, None)
        for split in [*own.get("splits", []), *of_tfds.get("splits", [])]:
            split.pop("numBytes")  # TFDS writes the fields of a record in another order each time
        assert own == of_tfds
    found = dataset.open(tmp_path / "own"), dataset.open(theirs)
    assert [opened.class_names for opened in found] == [["b", "a"]] * 2
    for split in found[0].splits:
        assert found[0][split].names() == found[1][split].names()
        np.testing.assert_array_equal(found[0][split].labels, found[1][split].labels)


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
