"""one_machine.sh with a stub for Python: statuses, signals, and what each process is told."""

import json
import os
import signal
import subprocess
import time
from pathlib import Path

import pytest

HERE = Path(__file__).parent
SCRIPT = HERE.parents[1] / "launch" / "one_machine.sh"


@pytest.fixture
def start(tmp_path):
    """Starts the script with processes that do as told; `log()` of what it gives has a line a process."""

    def run(*plans: str, processes: object = None, **environment: str) -> subprocess.Popen:
        clean = {k: v for k, v in os.environ.items() if not k.startswith(("SFACE_", "CUDA_"))}
        stub = {str(i): [plan] for i, plan in enumerate(plans)}
        own = {"PYTHON": str(HERE / "stub.py"), "STUB": json.dumps(stub), "STUB_LOG": str(tmp_path / "log")}
        command = [str(SCRIPT), str(processes or len(plans)), "--config=configs/a b.py", "--workdir=w'x"]
        script = subprocess.Popen(
            command, env=clean | own | environment, stdout=-1, stderr=-1, text=True, preexec_fn=_heeds_interrupts
        )
        script.log = lambda: sorted(map(json.loads, (tmp_path / "log").open()), key=lambda line: line["process"])
        script.pids = lambda: [_pid(tmp_path / f"log.{i}.pid") for i, plan in enumerate(plans) if plan in WAITING]
        return script

    return run


def _heeds_interrupts() -> None:
    """Whoever runs the tests in the background may ignore SIGINT, and bash cannot trap what was ignored before it."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


WAITING = ("work", "deaf")


def _pid(path: Path) -> int:
    end = time.monotonic() + 20
    while time.monotonic() < end:
        if path.exists() and path.read_text():
            return int(path.read_text())
        time.sleep(0.02)
    raise AssertionError(f"{path} did not come")


def _gone(pid: int) -> bool:
    return not Path(f"/proc/{pid}").exists()


def test_all_end_well_and_are_told_who_they_are(start):
    script = start("exit 0", "exit 0", "exit 0", "exit 0", CUDA_VISIBLE_DEVICES="3,5,GPU-a,7,0,1,2,4")
    out, err = script.communicate(timeout=60)
    assert script.returncode == 0, err
    log = script.log()
    assert [line["env"]["SFACE_PROCESS_ID"] for line in log] == ["0", "1", "2", "3"]
    assert {line["env"]["SFACE_NUM_PROCESSES"] for line in log} == {"4"}
    assert len({line["env"]["SFACE_COORDINATOR"] for line in log}) == 1
    assert [line["env"]["CUDA_VISIBLE_DEVICES"] for line in log] == ["3,5", "GPU-a,7", "0,1", "2,4"]
    assert all(line["arguments"][2:] == ["--config=configs/a b.py", "--workdir=w'x"] for line in log)


@pytest.mark.parametrize("status", [1, 2, 75, 143])
def test_the_status_is_that_of_the_first_that_failed(start, status):
    script = start("later 9", f"exit {status}", "later 134")
    script.communicate(timeout=60)
    assert script.returncode == status


def test_a_process_that_fails_after_others_ended_well_counts(start):
    script = start("exit 0", "later 75")
    script.communicate(timeout=60)
    assert script.returncode == 75


def test_when_one_is_killed_those_that_do_not_end_by_themselves_are_ended(start):
    script = start("work", "work", "deaf", SFACE_GRACE="1")
    pids = script.pids()
    began = time.monotonic()
    os.kill(pids[1], signal.SIGKILL)
    script.communicate(timeout=30)
    assert script.returncode == 137
    assert 1 <= time.monotonic() - began < 10
    assert all(map(_gone, pids))


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_to_the_script_lets_all_save(start, number):
    script = start("work", "work")
    pids = script.pids()
    script.send_signal(number)
    out, _ = script.communicate(timeout=30)
    assert script.returncode == 143
    assert out.count("saved") == 2
    assert all(map(_gone, pids))


def test_mistakes_in_the_call(start):
    script = start("exit 0", processes="two")
    assert "usage" in script.communicate(timeout=30)[1]
    assert script.returncode == 2
    script = start("exit 0", processes=3, CUDA_VISIBLE_DEVICES="0,1,2,3")
    assert "4 GPUs do not divide among 3" in script.communicate(timeout=30)[1]
    assert script.returncode == 2
