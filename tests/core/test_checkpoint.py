"""Checkpoints that are whole, cut short, or all broken."""

import errno
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sface_jax.core.checkpoint import Checkpoints
from sface_jax.core.errors import Unfinished, UserError


def saved(folder, steps):
    checkpoints = Checkpoints(folder)
    for step in steps:
        checkpoints.save(step, {"x": jnp.full(1000, step, jnp.float32)})
    checkpoints.close()


def cut_short(folder, step):
    """Halves every file of data of a checkpoint."""
    files = [file for file in (folder / str(step) / "state").rglob("*") if file.is_file() and "/d/" in str(file)]
    assert files
    for file in files:
        file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])


def test_the_newest_two_are_kept_and_the_newest_comes_back(tmp_path):
    saved(tmp_path, [1, 2, 3])
    checkpoints = Checkpoints(tmp_path)
    assert checkpoints.manager.all_steps() == [2, 3]
    np.testing.assert_array_equal(checkpoints.restore({"x": jnp.zeros(1000)})["x"], 3)
    np.testing.assert_array_equal(checkpoints.read()["x"], 3)


def test_one_cut_short_gives_way_to_the_one_before(tmp_path, caplog):
    saved(tmp_path, [1, 2])
    cut_short(tmp_path, 2)
    checkpoints = Checkpoints(tmp_path)
    np.testing.assert_array_equal(checkpoints.restore({"x": jnp.zeros(1000)})["x"], 1)
    assert "checkpoint 2" in caplog.text and "cannot be read" in caplog.text
    assert (tmp_path / "broken-2").exists()
    checkpoints.save(2, {"x": jnp.full(1000, 5.0)})
    checkpoints.close()
    np.testing.assert_array_equal(Checkpoints(tmp_path).read()["x"], 5)


@pytest.mark.parametrize("error", [
    OSError(errno.ESTALE, "Stale file handle"), PermissionError(errno.EACCES, "Permission denied"),
    jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory"), ValueError("UNAVAILABLE: Error reading gs://b/a"),
])  # fmt: skip
def test_what_says_nothing_of_a_checkpoint_condemns_none(tmp_path, monkeypatch, error):
    saved(tmp_path, [1, 2])
    kept = Checkpoints(tmp_path)

    def fails(*arguments, **options):
        raise RuntimeError("cannot read an array") from error

    monkeypatch.setattr(kept._reader, "restore", fails)
    with pytest.raises(RuntimeError, match="cannot read an array"):
        kept.restore({"x": jnp.zeros(1000)})
    kept.close()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["1", "2"]


def test_nothing_is_touched_when_none_can_be_read(tmp_path):
    saved(tmp_path, [1, 2])
    cut_short(tmp_path, 1)
    cut_short(tmp_path, 2)
    with pytest.raises(UserError, match="no checkpoint in .* can be read"):
        Checkpoints(tmp_path).read()
    assert {path.name for path in tmp_path.iterdir()} == {"1", "2"}


def test_reading_changes_nothing(tmp_path):
    saved(tmp_path, [1, 2])
    cut_short(tmp_path, 2)
    (tmp_path / "3.orbax-checkpoint-tmp").mkdir()
    before = {path.name for path in tmp_path.iterdir()}
    np.testing.assert_array_equal(Checkpoints(tmp_path, read_only=True).read()["x"], 1)
    assert {path.name for path in tmp_path.iterdir()} == before


def test_an_empty_folder_gives_nothing(tmp_path):
    assert Checkpoints(tmp_path).restore({"x": jnp.zeros(3)}) is None


def test_parts_are_read_and_nothing_else(tmp_path):
    checkpoints = Checkpoints(tmp_path)
    params = {"backbone": {"w": jnp.ones(2)}, "backbone2": jnp.ones(2), "head": jnp.ones(5)}
    checkpoints.save(1, {"params": params, "batch_stats": {"mean": jnp.zeros(2)}, "step": jnp.zeros((), jnp.int32)})
    checkpoints.close()
    found = Checkpoints(tmp_path, read_only=True).read(["params/backbone", "batch_stats"])
    assert jax.tree.structure(found) == jax.tree.structure(
        {"params": {"backbone": {"w": 0}}, "batch_stats": {"mean": 0}}
    )
    np.testing.assert_array_equal(found["params"]["backbone"]["w"], 1)


def test_only_what_is_padded_may_change_its_rows(tmp_path):
    checkpoints = Checkpoints(tmp_path)
    weight = jnp.pad(jnp.arange(1.0, 9).reshape(4, 2), ((0, 2), (0, 0)))
    checkpoints.save(1, {"head": {"weight": weight}, "x": jnp.ones(3)})
    for rows in (4, 8):
        target = {"head": {"weight": jnp.zeros((rows, 2))}, "x": jnp.zeros(3)}
        found = checkpoints.restore(target, padded="head")["head"]["weight"]
        np.testing.assert_array_equal(found, np.pad(weight, ((0, 2), (0, 0)))[:rows])
    for rows, size in ((6, 4), (3, 3)):  # neither another size, nor a loss of rows that are not zero
        with pytest.raises(UserError, match="can be read"):
            Checkpoints(tmp_path, read_only=True).restore(
                {"head": {"weight": jnp.zeros((rows, 2))}, "x": jnp.zeros(size)}, padded="head"
            )
    checkpoints.close()


def test_bytes_altered_where_storage_does_not_notice_are_noticed(tmp_path, caplog):
    checkpoints = Checkpoints(tmp_path)
    noise = jax.random.normal(jax.random.key(0), (2, 4096))  # not to be compressed, so that any byte is a number's
    for step in (1, 2):
        checkpoints.save(step, {"x": noise[step - 1]})
    checkpoints.close()
    kept = max((tmp_path / "2" / "state").rglob("d/*"), key=lambda file: file.stat().st_size)
    content = bytearray(kept.read_bytes())
    content[len(content) // 2] ^= 1
    kept.write_bytes(content)
    np.testing.assert_array_equal(Checkpoints(tmp_path).restore({"x": jnp.zeros(4096)})["x"], noise[0])
    assert "checkpoint 2" in caplog.text and "x is not what was saved" in caplog.text


def test_a_checkpoint_without_digests_is_read(tmp_path):
    saved(tmp_path, [1])
    shutil.rmtree(tmp_path / "1" / "digests")
    np.testing.assert_array_equal(Checkpoints(tmp_path).read()["x"], 1)


def test_what_is_not_finite_is_not_saved(tmp_path):
    checkpoints = Checkpoints(tmp_path)
    checkpoints.save(1, {"x": jnp.ones(3), "y": jnp.ones(3)})
    with pytest.raises(
        Unfinished, match="y is not finite at step 2, which is not saved; the last checkpoint is step 1"
    ):
        checkpoints.save(2, {"x": jnp.ones(3), "y": jnp.array([1.0, jnp.nan, 1.0])})
    checkpoints.close()
    assert Checkpoints(tmp_path).latest_step() == 1
