"""tpu_pod_slice.sh with stand-ins for gcloud, two hosts, and their Python."""

import json
import os
import signal
import subprocess
import time
from pathlib import Path

import pytest

HERE = Path(__file__).parent
SCRIPT = HERE.parents[1] / "launch" / "tpu_pod_slice.sh"
FLAGS = ["--config=configs/a.py", "--workdir=gs://b/it's $HOME", '--config.head=f(a=1, b="2")']

# "-m venv --clear .venv" makes this pip, which notes what it is to do, and the stub as its Python
VENV = """#!/bin/bash
[ "$*" = "-m venv --clear .venv" ] || exit 9
mkdir -p .venv/bin
printf '#!/bin/bash\\necho "$@" >> ~/pip\\n' > .venv/bin/pip
chmod +x .venv/bin/pip
ln -sf {stub} .venv/bin/python
"""


@pytest.fixture
def start(tmp_path):
    """Starts the script, with what each host's process does."""
    tools = tmp_path / "tools"
    tools.mkdir()
    (tools / "gcloud").symlink_to(HERE / "gcloud.py")
    (tools / "a-python").write_text(VENV.format(stub=HERE / "stub.py"))
    (tools / "a-python").chmod(0o755)

    def run(*plans: str, arguments: list[str] = FLAGS) -> subprocess.Popen:
        own = {"REMOTE_PYTHON": "a-python", "FAKE_HOSTS": str(tmp_path)}
        own |= {"PATH": f"{tools}:{os.environ['PATH']}", "STUB_LOG": str(tmp_path / "log")}
        own["STUB"] = json.dumps({str(i): [plan] for i, plan in enumerate(plans)})
        command = [str(SCRIPT), "slice", "us-east5-a", *arguments]
        return subprocess.Popen(command, env=os.environ | own, stdout=-1, stderr=-1, text=True)

    return run


def _wait_for(*paths: Path) -> None:
    end = time.monotonic() + 30
    while not all(path.exists() for path in paths):
        assert time.monotonic() < end, paths
        time.sleep(0.05)


def test_every_host_runs_the_command_and_only_the_first_time_installs(start, tmp_path):
    for plans, status in ((("exit 0", "exit 0"), 0), (("later 134", "exit 75"), 75), (("exit 2", "later 75"), 2)):
        script = start(*plans)
        out, err = script.communicate(timeout=60)
        assert script.returncode == status, out + err
    log = [json.loads(line) for line in (tmp_path / "log").open()]
    assert sorted(line["process"] for line in log) == ["0", "0", "0", "1", "1", "1"]
    assert all(line["arguments"] == ["-m", "sface_jax.main", *FLAGS] for line in log)
    assert {line["env"]["SFACE_DISTRIBUTED"] for line in log} == {"auto"}
    for host in ("w0", "w1"):
        assert (tmp_path / host / "pip").read_text() == "install -q -c requirements.lock -e .[tpu,gcs]\n"
        assert (tmp_path / host / "sface_jax" / "sface_jax" / "main.py").exists()
    theirs, old = (
        tmp_path / "w1/sface_jax" / name for name in ("combined/checkpoints/9", "sface_jax/removed_since.py")
    )
    theirs.mkdir(parents=True)
    old.touch()
    with (tmp_path / "w1/sface_jax/.brought").open("a") as brought:
        brought.write("sface_jax/removed_since.py\n")
    lock = tmp_path / "w1" / "sface_jax" / ".venv" / "installed"
    lock.write_text("older")
    start("exit 0", "exit 0").communicate(timeout=60)
    assert theirs.exists() and not old.exists() and (tmp_path / "w1/sface_jax/sface_jax/main.py").exists()
    assert [len((tmp_path / host / "pip").read_text().splitlines()) for host in ("w0", "w1")] == [1, 2]


@pytest.mark.parametrize("how", ["signal", "stop"])
def test_a_run_that_is_to_stop_saves_on_every_host(start, tmp_path, how):
    script = start("work", "work")
    _wait_for(tmp_path / "log.0.pid", tmp_path / "log.1.pid")
    if how == "signal":
        script.send_signal(signal.SIGTERM)
    else:
        second = start("work", "work")
        out, err = second.communicate(timeout=60)
        assert second.returncode == 2 and "a run is at work on w0" in out, out + err
        assert start(arguments=["stop"]).wait(60) == 0
    out, err = script.communicate(timeout=60)
    assert script.returncode == 143, out + err
    assert out.count("saved") == 2
    assert start(arguments=["stop"]).wait(60) == 0  # nothing is running: nothing is hit


def test_too_few_arguments(start):
    script = start(arguments=[])
    assert "usage" in script.communicate(timeout=30)[1] and script.returncode == 2
