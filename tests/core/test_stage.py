"""A stage in its work directory."""

import pytest
from etils import epath
from ml_collections import ConfigDict

from sface_jax.core import files, stage
from sface_jax.core.errors import Unfinished, UserError


def config(**keys):
    return ConfigDict({"stage": "gan", "rate": 1.0, "log_every": 10, **keys})


@pytest.fixture
def workdir(tmp_path):
    return epath.Path(tmp_path)


def fail(error):
    def function(config, workdir):
        raise error

    return function


def test_a_finished_stage_is_skipped(workdir):
    ran = []
    for _ in range(2):
        stage.run("gan", config(), workdir, lambda config, workdir: ran.append(1) or {"kimg": 3})
    assert len(ran) == 1
    entry = files.read_json(workdir / "stages.json")["gan"]
    assert entry["state"] == "finished" and entry["result"] == {"kimg": 3}
    assert files.read_json(workdir / "config.json")["gan"]["rate"] == 1.0


def test_another_config_is_refused_and_named(workdir):
    stage.run("gan", config(), workdir, lambda config, workdir: {})
    with pytest.raises(UserError, match=r"gan\.rate=1\.0, now it is 2\.0"):
        stage.run("gan", config(rate=2.0), workdir, lambda config, workdir: {})


def test_keys_that_change_no_result_may_change(workdir):
    stage.run("gan", config(), workdir, lambda config, workdir: {})
    stage.run("gan", config(log_every=1), workdir, lambda config, workdir: {})


def test_a_config_refused_before_any_work_binds_nobody(workdir):
    with pytest.raises(UserError):
        stage.run("gan", config(), workdir, fail(UserError("no dataset")))
    stage.run("gan", config(rate=2.0), workdir, lambda config, workdir: {})


@pytest.mark.parametrize("error", [Unfinished("no space"), RuntimeError(), KeyboardInterrupt()])
def test_a_stage_cut_off_at_work_keeps_its_config_and_its_time(workdir, error):
    with pytest.raises(type(error)):
        stage.run("gan", config(), workdir, fail(error))
    assert files.read_json(workdir / "stages.json")["gan"]["state"] == "running"
    with pytest.raises(UserError, match="rate"):
        stage.run("gan", config(rate=2.0), workdir, lambda config, workdir: {})


def test_a_stage_that_always_runs_takes_any_config(workdir):
    ran = []
    for rate in (1.0, 2.0):
        stage.run("report", config(rate=rate), workdir, lambda config, workdir: ran.append(1) or {}, again=True)
    assert len(ran) == 2
