"""Functions of slurm.sbatch, by themselves: what it takes for progress, and how a task passes a signal on."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from etils import epath

from sface_jax.core import files
from tests.core import store

SCRIPT = (Path(__file__).parents[2] / "launch" / "slurm.sbatch").read_text()


def function(name: str) -> str:
    start = SCRIPT.index(f"\n{name}() {{")
    return SCRIPT[start : SCRIPT.index("\n}\n", start) + 3]


def saved(workdir: object) -> str:
    done = subprocess.run(
        ["bash", "-c", f"{function('saved')}\nsaved"],
        env=os.environ | {"workdir": str(workdir), "python": sys.executable},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout and not done.stderr
    return done.stdout


@pytest.mark.parametrize("remote", [False, True])
def test_a_checkpoint_is_progress_and_a_log_is_none(tmp_path, remote):
    with store.here() as url:
        workdir = epath.Path(url if remote else tmp_path) / "tmp_run"
        told = []
        for name in ("gan/metrics.jsonl", "logs/process_0.log", "gan/metrics.jsonl", "gan/checkpoints/9/state"):
            files.write_text(workdir / name, f"after {len(told)}")
            told.append(saved(workdir))
    assert told[0] == told[1] == told[2] != told[3]


def test_what_cannot_be_listed_is_not_taken_for_no_progress():
    assert saved("nowhere://bucket/run") != saved("nowhere://bucket/run")


SAVING = """
import os, signal, sys, time
def save(*_):
    time.sleep(0.5)
    os.write(1, b"saved\\n")  # print may be at work itself
    sys.exit(143)
signal.signal(signal.SIGTERM, save)
print("ready", flush=True)
time.sleep(60)
"""


def test_a_task_passes_on_the_signal_that_slurm_gives_its_shell_alone(tmp_path):
    """As under proctrack/cgroup, where only what slurmstepd started gets it."""
    command = ["bash", "-c", f'{function("process")}\nprocess "$@"', "sface", sys.executable, "-c", SAVING]
    task = subprocess.Popen(
        command, env=os.environ | {"ends": str(tmp_path / "ends")}, stdout=subprocess.PIPE, text=True
    )
    assert task.stdout.readline() == "ready\n"
    task.terminate()
    assert task.communicate(timeout=30)[0] == "saved\n" and task.returncode == 143
    assert (tmp_path / "ends").read_text() == "143\n"
