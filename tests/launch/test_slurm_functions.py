"""What slurm.sbatch takes for progress: names that a run adds to its work directory, here or in an object store."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from etils import epath

from sface_jax.core import files
from tests.core import store

SCRIPT = (Path(__file__).parents[2] / "launch" / "slurm.sbatch").read_text()
FUNCTION = SCRIPT[SCRIPT.index("saved() {") : SCRIPT.index("\n}\n", SCRIPT.index("saved() {")) + 3]


def saved(workdir: object) -> str:
    done = subprocess.run(
        ["bash", "-c", f"{FUNCTION}\nsaved"],
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
        workdir = epath.Path(url if remote else tmp_path) / "run"
        told = []
        for name in ("gan/metrics.jsonl", "logs/process_0.log", "gan/metrics.jsonl", "gan/checkpoints/9/state"):
            files.write_text(workdir / name, f"after {len(told)}")
            told.append(saved(workdir))
    assert told[0] == told[1] == told[2] != told[3]
