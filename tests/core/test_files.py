"""Files are whole or absent."""

import errno
import json
from pathlib import Path

import numpy as np
import pytest

from sface_jax.core import files, pictures, progress
from sface_jax.core.errors import Unfinished, UserError
from sface_jax.core.metrics import MetricWriter


def test_a_full_disk_leaves_the_old_file_and_tells_one_line(tmp_path, monkeypatch):
    path = tmp_path / "a.json"
    files.write_json(path, {"x": 1})

    def full(self, content):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(files.Path, "write_bytes", full)
    with pytest.raises(Unfinished, match="no space left to write"):
        files.write_json(path, {"x": 2})
    assert json.loads(path.read_text()) == {"x": 1}
    assert [p.name for p in tmp_path.iterdir()] == ["a.json"]


@pytest.mark.parametrize(("told", "full"), [
    ("RESOURCE_EXHAUSTED: Error writing local file: No space left on device [os_error_code='28']", True),
    ("RESOURCE_EXHAUSTED: Out of memory", False),
    ("HTTP 429: rateLimitExceeded, quota of requests a minute", False),
])  # fmt: skip
def test_only_a_full_disk_is_told_as_one(told, full):
    with pytest.raises(Unfinished if full else RuntimeError), files.full_disk_told("a checkpoint"):
        raise RuntimeError(told)


def test_broken_json_is_told_in_one_line(tmp_path):
    (tmp_path / "a.json").write_text('{"x": ')
    with pytest.raises(UserError, match="not valid JSON"):
        files.read_json(tmp_path / "a.json")


def test_scalars_after_the_step_resumed_from_are_dropped(tmp_path):
    writer = MetricWriter(tmp_path)
    for step in (1, 2, 3):
        writer.write(step, {"loss": step, "bad": float("nan")})
    (tmp_path / "metrics.jsonl").open("a").write('{"step": 4, "lo')
    MetricWriter(tmp_path, start_step=2).write(3, {"loss": 7})
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [(line["step"], line["loss"]) for line in lines] == [(1, 1), (2, 2), (3, 7)]
    assert lines[0]["bad"] is None


def test_pictures_survive_png_and_range(tmp_path):
    image = np.random.default_rng(0).integers(0, 256, (5, 7, 3), np.uint8)
    pictures.write_png(tmp_path / "a.png", image)
    np.testing.assert_array_equal(pictures.decode(Path(tmp_path / "a.png").read_bytes()), image)
    np.testing.assert_array_equal(pictures.to_uint8(pictures.from_uint8(image)), image)


def test_progress_in_a_log_has_rate_and_time_left(capsys):
    shown = progress.Progress("gan", 100, interval=0.0)
    shown.update(50, loss=0.5, step=3)
    shown.close()
    first, last = capsys.readouterr().err.splitlines()
    assert first.startswith("gan: 50/100 steps") and "/s" in first and "left" in first and "loss 0.5" in first
    assert last.startswith("gan: 100/100 steps") and "left" not in last
    assert [progress.duration(s) for s in (45.0, 185.0, 7620.0)] == ["45s", "3m05s", "2h07m"]
