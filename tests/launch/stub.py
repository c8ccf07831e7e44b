#!/usr/bin/env python3
"""Stands for the interpreter that a script of launch/ starts: notes how it was started, and ends as it is told.

STUB says what each process does, by its number: {"0": ["exit 2", ...], ...}, an entry for each start of the run, the
last for all further ones. "exit S" ends with status S at once; "later S" after a second; "work" is at it until SIGTERM
comes, and saves half a second later; "deaf" does not hear of it. Before "saving S" it saves something under the work
directory. Each start adds a line to STUB_LOG.
"""

import json
import os
import signal
import sys
import time
from pathlib import Path

NOTED = ("SFACE_", "CUDA_", "JAX_LOCAL", "SLURM_RESTART", "SLURM_LOCALID")


def main() -> None:
    """Does what is said for this process and start."""
    process = os.environ.get("SFACE_PROCESS_ID") or os.environ.get("SLURM_PROCID", "0")
    start = int(os.environ.get("SLURM_RESTART_COUNT", 0))
    plan = json.loads(os.environ.get("STUB", "{}")).get(process, ["exit 0"])
    what, _, status = plan[min(start, len(plan) - 1)].partition(" ")
    noted = {name: value for name, value in os.environ.items() if name.startswith(NOTED)}
    with open(os.environ["STUB_LOG"], "a") as log:
        log.write(json.dumps({"process": process, "start": start, "arguments": sys.argv[1:], "env": noted}) + "\n")
    if what == "saving":
        workdir = next(argument for argument in sys.argv if argument.startswith("--workdir=")).partition("=")[2]
        Path(workdir, "checkpoints", str(start)).mkdir(parents=True, exist_ok=True)
    if what == "later":
        time.sleep(1)
    if what in ("work", "deaf"):
        signal.signal(signal.SIGTERM, signal.SIG_IGN if what == "deaf" else lambda *_: _save())
        Path(f"{os.environ['STUB_LOG']}.{process}.pid").write_text(str(os.getpid()))
        time.sleep(60)
    sys.exit(int(status or 0))


def _save() -> None:
    time.sleep(0.5)
    print("saved", flush=True)
    os._exit(143)


main()
