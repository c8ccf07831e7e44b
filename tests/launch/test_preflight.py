"""The preflight in several processes: all well, not alike, and one that hangs."""

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from sface_jax.core import preflight
from sface_jax.core.errors import UserError

HERE = Path(__file__).parent
ROOT = HERE.parents[1]


@pytest.fixture
def started():
    running = []
    yield running
    for process in running:
        process.kill()
        process.wait()


def run(started: list, *arguments: object, **environment: str) -> list[subprocess.Popen]:
    """Starts two processes of preflight_worker.py."""
    with socket.socket() as probe:
        probe.bind(("", 0))
        port = probe.getsockname()[1]
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("SFACE_", "XLA_"))}
    clean |= {"JAX_PLATFORMS": "cpu", "PYTHONPATH": str(ROOT), "SFACE_COORDINATOR": f"localhost:{port}"}
    clean |= {"SFACE_NUM_PROCESSES": "2", "SFACE_HOSTS": "n1,n2", "SFACE_JOIN_SECONDS": "60", **environment}
    for i in range(2):
        command = [sys.executable, HERE / "preflight_worker.py", *map(str, arguments)]
        own = clean | {"SFACE_PROCESS_ID": str(i)}
        started.append(subprocess.Popen(command, env=own, stdout=-1, stderr=-1, text=True))
    return started


def ends(processes: list[subprocess.Popen]) -> list[tuple[int, str]]:
    """The status and the last line of each."""
    told = [process.communicate(timeout=120) for process in processes]
    assert all(out for out, _ in told), told
    return [(p.returncode, out.strip().splitlines()[-1]) for p, (out, _) in zip(processes, told, strict=True)]


def test_two_processes_add_up_and_leave_nothing_behind(started, tmp_path):
    for status, line in ends(run(started, tmp_path, 60, "expect=cpu", "devices=2")):
        assert status == 0 and "'processes': 2, 'hosts': 1, 'devices': 2, 'kind': 'cpu'" in line, line
    assert [path.name for path in tmp_path.iterdir()] == ["preflight.json"]


@pytest.mark.parametrize(
    ("keys", "environment", "line"),
    [
        (["expect=tpu"], {}, "process 0 (n1) has cpu where tpu is expected"),
        (["other"], {}, "process 1 (n2) does not see the work directory of the others"),
        ([], {"VERSION": "1"}, "has jax"),
    ],
)
def test_what_has_to_be_mended_is_told_by_all(started, tmp_path, keys, environment, line):
    workdir = tmp_path / "{process}" if keys == ["other"] else tmp_path
    keys = [key for key in keys if "=" in key]
    for status, told in ends(run(started, workdir, 60, *keys, **environment)):
        assert status == 2 and line in told, told


def test_devices_are_counted():
    found = [{"platform": "gpu", "kind": "H100", "count": count, "host": "n"} for count in (8, 7)]
    preflight._check_devices(found, "gpu", 15)
    preflight._check_devices(found, "", 0)
    with pytest.raises(UserError, match="15 devices, 16 expected .8 in process 0, 7 in process 1."):
        preflight._check_devices(found, "gpu", 16)


def test_a_process_that_hangs_in_the_all_reduce_is_named(started, tmp_path):
    lead, other = run(started, tmp_path, 4, STOP="1")
    began = time.monotonic()
    ((status, line),) = ends([lead])
    assert status == 75 and "process 1 (n2) did not answer" in line, line
    assert time.monotonic() - began < 60
    assert other.poll() is None  # stopped all the while
    other.send_signal(signal.SIGKILL)
