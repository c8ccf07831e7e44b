"""Work directories in an object store."""

import jax.numpy as jnp
import numpy as np
import pytest
from etils import epath

from sface_jax.core import files
from sface_jax.core.checkpoint import Checkpoints
from sface_jax.core.errors import UserError
from sface_jax.core.metrics import MetricWriter
from sface_jax.data import dataset, records
from tests.core import store


@pytest.fixture(scope="module")
def bucket():
    with store.here() as url:
        yield epath.Path(url)


def test_files_are_written_read_and_added_to(bucket):
    path = bucket / "run" / "config.json"
    files.write_json(path, {"seed": 1})
    files.write_json(path, {"seed": 2})
    assert files.read_json(path) == {"seed": 2}
    assert [file.name for file in path.parent.iterdir()] == ["config.json"]
    files.write_npy(bucket / "x.npy", np.arange(5))
    np.testing.assert_array_equal(files.read_npy(bucket / "x.npy"), np.arange(5))
    files.write_npy(bucket / "x.npy", np.arange(6))
    np.testing.assert_array_equal(files.read_npy(bucket / "x.npy"), np.arange(6))  # not the copy of before


def test_what_fails_half_way_leaves_nothing(bucket):
    with pytest.raises(ZeroDivisionError), files.appearing(bucket / "half" / "file") as temporary:
        temporary.write_bytes(b"half")
        1 / 0  # noqa: B018
    assert not (bucket / "half" / "file").exists() and not temporary.exists()


def test_a_log_goes_on(bucket):
    for start in (0, 2):
        writer = MetricWriter(bucket / "log", start_step=start)
        for step in range(start + 1, start + 4):
            writer.write(step, {"loss": step})
        writer.close()
    lines = (bucket / "log" / "metrics.jsonl").read_text().splitlines()
    assert [line.split(",")[0] for line in lines] == [f'{{"step": {step}' for step in range(1, 6)]


def test_checkpoints_come_back_and_a_damaged_one_gives_way(bucket):
    folder = bucket / "checkpoints"
    with_noise = {step: {"x": jnp.array(np.random.default_rng(step).normal(size=4096))} for step in (1, 2, 3)}
    checkpoints = Checkpoints(folder)
    for step, state in with_noise.items():
        checkpoints.save(step, state)
    checkpoints.close()
    assert sorted(path.name for path in folder.iterdir()) == ["2", "3"]
    kept = max((folder / "3" / "state" / "ocdbt.process_0" / "d").iterdir(), key=lambda path: path.stat().length)
    content = bytearray(kept.read_bytes())
    content[len(content) // 2] ^= 1
    kept.write_bytes(content)
    again = Checkpoints(folder)
    np.testing.assert_array_equal(again.restore(with_noise[3])["x"], with_noise[2]["x"])
    assert (folder / "broken-3").exists()
    again.save(3, with_noise[3])
    again.close()
    np.testing.assert_array_equal(Checkpoints(folder, read_only=True).read()["x"], with_noise[3]["x"])


def test_a_dataset_is_written_and_opened(bucket):
    made = [records.Example(image=b"", label=0, name="a/0")]
    folder = bucket / "authentic"
    records.write_shard(folder, "train", 0, 1, made)
    records.finish(folder, image_size=8, class_names=["a"], splits={"train": 1})
    opened = dataset.open(folder)["train"]
    assert len(opened) == 1 and opened.names() == ["a/0"]


def test_a_store_without_its_library_is_told():
    with pytest.raises(UserError, match="s3:// needs a library"):
        files.check_store("s3://bucket/run")
    files.check_store("runs/here")
