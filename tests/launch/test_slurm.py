"""slurm.sbatch on a real Slurm, where Debian's packages of it are installed and we are root.

With SFACE_TEST_SLURM=1 two jobs of two nodes also train for real, each through one requeue: docs/SLURM.md shows them.
"""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from sface_jax.core import pictures
from sface_jax.data import records
from sface_jax.data.example import Example

HERE = Path(__file__).parent
ROOT = HERE.parents[1]

pytestmark = pytest.mark.skipif(
    os.geteuid() != 0 or not all(map(shutil.which, ("slurmctld", "slurmd", "munged", "unshare"))),
    reason="NOT TESTED: slurm.sbatch, for want of slurmctld, slurmd and munge, or of root",
)

NODES = ("--nodes=2", "--cpus-per-task=1")
TWO = (*NODES, "--ntasks-per-node=1", "--gpus-per-node=0")


def run(folder: Path, jobs: dict, limit: float) -> dict[str, dict[str, str]]:
    """What became of the jobs, see slurm/jobs.py."""
    (folder / "jobs.json").write_text(json.dumps(jobs))
    inside = {name: value for name, value in os.environ.items() if not name.startswith(("SFACE_", "SLURM_", "SBATCH_"))}
    command = [HERE / "slurm" / "cluster.sh", folder / "slurm", sys.executable, HERE / "slurm" / "jobs.py", folder]
    done = subprocess.run(
        [*command, str(limit)], cwd=ROOT, env=inside, timeout=limit + 60, capture_output=True, text=True
    )
    logs = "\n".join(f"{log.name}:\n{log.read_text()}" for log in folder.glob("*.log"))
    assert done.returncode == 0, f"{done.stdout}{done.stderr}{logs}"
    ended = json.loads((folder / "ended.json").read_text())
    assert set(ended) == set(jobs), f"ended: {set(ended)}\n{logs}"
    return ended


def test_what_becomes_of_jobs_that_end_in_each_way(tmp_path):
    def job(first: list[str], second: list[str], *sbatch: str, environment: dict | None = None, **more) -> dict:
        return {
            "sbatch": sbatch or TWO,
            "environment": {"STUB": json.dumps({"0": first, "1": second}), "PYTHON": str(HERE / "stub.py")}
            | (environment or {}),
            **more,
        }

    at_work = [".log.0.pid", ".log.1.pid"]  # both have to hear of the signal
    works = (["work", "exit 0"], ["work", "exit 0"])
    jobs = {
        "told": job(*works, when=at_work, do=("scancel", "--signal=TERM")),
        "requeued": job(*works, when=at_work, do=("scontrol", "requeue")),
        "cancelled": job(*works, when=at_work, do=("scancel",)),
        "lost": job(["work", "exit 0"], ["saving 75", "exit 0"]),
        "mistake": job(["work"], ["later 2"]),
        "fruitless": job(["work"], ["exit 134"], environment={"SFACE_FRUITLESS": "2"}),
        "shared": job(["exit 0"], ["exit 0"], *NODES, "--ntasks-per-node=2", "--gpus-per-node=4"),
        "odd": job(["exit 0"], ["exit 0"], *NODES, "--ntasks-per-node=3", "--gpus-per-node=4"),
    }
    for name, one in jobs.items():
        one["environment"]["STUB_LOG"] = str(tmp_path / name / ".log")
    ended = run(tmp_path, jobs, 120)
    log = {name: (tmp_path / f"{name}.log").read_text() for name in jobs}
    found = {name: (of["JobState"], of["ExitCode"], of["Restarts"]) for name, of in ended.items()}
    assert found == {
        "told": ("COMPLETED", "0:0", "1"),
        "requeued": ("COMPLETED", "0:0", "1"),
        "cancelled": ("CANCELLED", "143:0", "0"),
        "lost": ("COMPLETED", "0:0", "1"),
        "mistake": ("FAILED", "2:0", "0"),
        "fruitless": ("FAILED", "134:0", "1"),
        "shared": ("COMPLETED", "0:0", "0"),
        "odd": ("FAILED", "2:0", "0"),
    }, log
    assert all(log[name].count("saved\n") == 2 for name in ("told", "requeued", "cancelled")), log
    assert "2 starts in a row saved nothing new" in log["fruitless"]
    assert "4 GPUs of a node do not divide among 3 processes" in log["odd"]
    told = sorted(map(json.loads, (tmp_path / "shared" / ".log").open()), key=lambda line: line["process"])
    assert [line["env"]["JAX_LOCAL_DEVICE_IDS"] for line in told] == ["0,1", "2,3"] * 2
    assert {line["env"]["SFACE_HOSTS"] for line in told} == {"n1,n1,n2,n2"}
    assert not list(ROOT.glob(".sface-*"))


STEPS = 40


def _dataset(folder: Path) -> Path:
    pictures_ = np.random.default_rng(0).integers(0, 256, (64, 32, 32, 3)).astype(np.uint8)
    examples = [Example(pictures.encode_png(one), i % 8, f"{i % 8}/{i}") for i, one in enumerate(pictures_)]
    records.write_shard(folder, "train", 0, 1, examples)
    records.finish(folder, image_size=32, class_names=list("01234567"), splits={"train": 1})
    return folder


@pytest.mark.skipif(not os.environ.get("SFACE_TEST_SLURM"), reason="takes minutes: set SFACE_TEST_SLURM=1")
def test_two_jobs_of_two_nodes_train_to_the_end_through_a_requeue_each(tmp_path):
    flags = {"dataset": _dataset(tmp_path / "faces"), "network": "iresnet_narrow", "widths": (8, 8, 16)}
    flags |= {"embedding_size": 16, "image_size": 0, "dropout": 0.0, "augmentations": ("flip",), "batch_size": 16}
    flags |= {"steps": STEPS, "log_every": 1, "checkpoint_every": 5, "tensorboard": False}
    config = ["--config=configs/classification.py", *(f"--config.{key}={value}" for key, value in flags.items())]
    environment = {"PYTHON": sys.executable, "JAX_PLATFORMS": "cpu"}
    saved = {"sbatch": (*TWO, "--time=30"), "run": config, "environment": environment}
    saved["when"] = ["recognition/*/checkpoints/[0-9]*"]
    jobs = {"told": saved | {"do": ("scancel", "--signal=TERM")}, "requeued": saved | {"do": ("scontrol", "requeue")}}
    alone = subprocess.run(
        [ROOT / "launch" / "one_machine.sh", "2", *config, f"--workdir={tmp_path / 'alone'}"],
        env=os.environ | environment,
        capture_output=True,
        text=True,
    )
    assert alone.returncode == 0, alone.stderr
    ended = run(tmp_path, jobs, 1200)
    losses = {}
    for name in ("alone", *jobs):
        (metrics,) = (tmp_path / name).glob("recognition/*/metrics.jsonl")
        lines = [json.loads(line) for line in metrics.open()]
        assert [line["step"] for line in lines] == list(range(1, STEPS + 1))
        losses[name] = [line["loss"] for line in lines]
    assert losses["told"] == losses["requeued"] == losses["alone"]
    for name in jobs:
        log = (tmp_path / f"{name}.log").read_text()
        print(log)
        assert (ended[name]["JobState"], ended[name]["Restarts"]) == ("COMPLETED", "1"), log
        assert f"of {STEPS}; run the same command to go on" in log
