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


@pytest.mark.parametrize(("again", "runs"), [("always", 3), ("changed", 2)])
def test_stages_that_only_look_run_again(workdir, again, runs):
    ran = []
    for rate in (1.0, 2.0, 2.0):
        stage.run("verify", config(rate=rate), workdir, lambda config, workdir: ran.append(1) or {}, again=again)
    assert len(ran) == runs


def test_the_work_directory_may_move(workdir):
    paths = []

    def keep(config, workdir):
        paths.append(config.dataset)
        return {}

    stage.run("gan", config(dataset="{workdir}/authentic"), workdir / "a", keep)
    (workdir / "a").rename(workdir / "b")
    stage.run("gan", config(dataset="{workdir}/authentic"), workdir / "b", keep)
    assert paths == [f"{workdir}/a/authentic"]


@pytest.mark.parametrize(("name", "value"), [("batch_size", 0), ("kimg", -1.0), ("seed", -1), ("log_every", 0)])
def test_numbers_out_of_range_are_refused(workdir, name, value):
    with pytest.raises(UserError, match=f"gan.{name}={value}: set it"):
        stage.run("gan", config(**{name: value}), workdir, lambda config, workdir: {})
