"""Inside cluster.sh: submits jobs, disturbs some, and tells what became of them.

    tests/launch/slurm/cluster.sh FOLDER python tests/launch/slurm/jobs.py FOLDER

FOLDER/jobs.json has a dict of jobs by name, each {"sbatch": options, "run": flags, "environment": variables, "when":
names of files, "do": a command of Slurm}: once a file of each name (a glob) lies in FOLDER/NAME, the work directory,
the command is given, with the number of the job. FOLDER/NAME.log is its log, and FOLDER/ended.json has what Slurm says
of each in the end.
"""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

ENDED = ("COMPLETED", "FAILED", "TIMEOUT", "CANCELLED", "NODE_FAIL")


def slurm(*command: object, **environment: str) -> str:
    """The output of a command of Slurm."""
    command = list(map(str, command))
    return subprocess.run(command, check=True, stdout=-1, text=True, env=os.environ | environment).stdout.strip()


def state(job: str) -> dict[str, str]:
    """What `scontrol show job` says."""
    return dict(item.split("=", 1) for item in slurm("scontrol", "show", "job", "-o", job).split() if "=" in item)


def submit(folder: Path, name: str, job: dict) -> str:
    """Gives a job to sbatch; its number."""
    (folder / name).mkdir()
    options = (*job["sbatch"], f"--job-name={name}", f"--output={folder / name}.log")
    run = (*job.get("run", []), f"--workdir={folder / name}")
    return slurm("sbatch", "--parsable", *options, "launch/slurm.sbatch", *run, **job.get("environment", {}))


def _there(folder: Path, names: list[str] | None) -> bool:
    return bool(names) and all(any(folder.glob(name)) for name in names)


def main(folder: Path, limit: float) -> None:
    """Waits until all jobs have ended, or the limit in seconds has."""
    jobs = json.loads((folder / "jobs.json").read_text())
    numbers = {name: submit(folder, name, job) for name, job in jobs.items()}
    disturbed, hurried, ended = set(), set(), {}
    end = time.monotonic() + limit
    while len(ended) < len(jobs) and time.monotonic() < end:
        for name, number in numbers.items():
            of = state(number)
            if of["JobState"] in ENDED:
                ended[name] = of
            elif of["JobState"] == "PENDING" and of["Reason"] == "BeginTime" and (name, of["Restarts"]) not in hurried:
                # Slurm would wait for two minutes, to be sure that no node takes the new start for the ended one
                slurm("scontrol", "update", f"JobId={number}", "StartTime=now+4")
                hurried.add((name, of["Restarts"]))
            elif name not in disturbed and _there(folder / name, jobs[name].get("when")):
                print("$", *jobs[name]["do"], number, flush=True)
                slurm(*jobs[name]["do"], number)
                disturbed.add(name)
        time.sleep(0.3)
    (folder / "ended.json").write_text(json.dumps(ended))


if __name__ == "__main__":
    main(Path(sys.argv[1]), float(sys.argv[2]))
