"""Disturbs small runs in every way at random: python -m tests.faults.campaign --injections=200 --seed=0 --folder=DIR

What happens is a function of the seed, but for the very moment. The results lie in DIR/results.jsonl, a line an
injection; a campaign that was cut off goes on with the episodes that are not there. At the end, or with --injections=0
at once, it prints them as a table; the exit status is 1 where anything is wrong.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import json
import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import FIRST_COMPLETED, ThreadPoolExecutor, wait
from pathlib import Path
from typing import Any

from absl import logging
from etils import epath

from tests.core import store
from tests.faults import plans, states
from tests.faults.episode import Outcome, play
from tests.faults.injections import DAMAGES
from tests.faults.plans import ALONE, Plan
from tests.faults.running import Run, Topology

KINDS = (
    *("SIGTERM", "kill -9", "hung process", "disk full", *DAMAGES, "NaN in a step", "restart on another topology"),
    *("skewed clocks", "slow storage", "remote paths"),
)

STAGES = {"recognition": 9, "gan": 2, "synthesize": 4, "matching": 4}
"""Which are run, with weights: a start of the GAN's training takes as long as three others."""

_store = threading.Lock()


class Campaign:
    """Plays episodes, and keeps what came of them."""

    def __init__(self, folder: Path, seed: int, kinds: list[str], stages: dict[str, int]):
        """Sets the folder up, with a cache of compiled programs for all runs."""
        self.folder, self.seed, self.kinds, self.stages = folder.resolve(), seed, list(kinds), stages
        self.results = self.folder / "results.jsonl"
        self._writing, self._references = threading.Lock(), {}
        self.folder.mkdir(parents=True, exist_ok=True)
        os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(self.folder / "compiled"))
        os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"
        with small_file_system(self.folder / "probe") as mounted:
            if not mounted and "disk full" in self.kinds:
                self.kinds.remove("disk full")
                print("no file system can be mounted here: 'disk full' is left out", file=sys.stderr)

    def run(self, injections: int, jobs: int) -> None:
        """Plays episodes until so many injections have come to something."""
        done = self.outcomes()
        played, count, number = {outcome.episode for outcome in done}, len(done), 0
        with ThreadPoolExecutor(jobs) as pool:
            running = set()
            while count < injections or running:
                while count + len(running) < injections and len(running) < jobs:
                    if number not in played:
                        running.add(pool.submit(self.play, plans.draw(number, self.seed, self.kinds, self.stages, 5)))
                    number += 1
                ready, running = wait(running, return_when=FIRST_COMPLETED)
                count += sum(len(future.result()) for future in ready)
                print(f"{count} of {injections} injections", file=sys.stderr, flush=True)

    def play(self, plan: Plan) -> list[Outcome]:
        """Plays an episode and writes down what came of it."""
        folder = self.folder / f"episode{plan.number:04d}"
        shutil.rmtree(folder, ignore_errors=True)
        for topology in {plan.topology, *(injection.topology for injection in plan.injections)}:
            self.reference(plan.stage, topology)  # with which all that is needed is compiled
        began = time.monotonic()
        with self._workdir(plan, folder) as workdir:
            (epath.Path(workdir) / "dataset_info.json").write_text("{}")  # what looks for a dataset finds one
            outcomes = play(plan, folder, workdir, self.reference)
        if all(sound(outcome) for outcome in outcomes):
            shutil.rmtree(folder, ignore_errors=True)
        with self._writing, self.results.open("a") as file:
            for outcome in outcomes:
                file.write(json.dumps(dataclasses.asdict(outcome)) + "\n")
        what = f"episode {plan.number}: {plan.stage} {plan.topology}, {len(outcomes)} injections"
        print(f"{what}, {time.monotonic() - began:.0f} s", file=sys.stderr, flush=True)
        for outcome in outcomes:
            if not sound(outcome):
                print(f"  {outcome}", file=sys.stderr, flush=True)
        return outcomes

    @contextlib.contextmanager
    def _workdir(self, plan: Plan, folder: Path) -> Iterator[str]:
        if plan.remote:
            with _store, store.here() as url:
                yield f"{url}/run"
        elif any(injection.kind == "disk full" for injection in plan.injections):
            with small_file_system(folder / "work") as mounted:
                assert mounted
                yield str(folder / "work")
        else:
            (folder / "work").mkdir(parents=True)
            yield str(folder / "work")

    def reference(self, stage: str, topology: Topology) -> str:
        """The work directory of the undisturbed run, with a checkpoint of each step of a training.

        What the other stages make does not depend on the topology.
        """
        topology = topology if stage in states.TRAININGS else ALONE
        name = f"{stage}-{topology.processes}x{topology.devices}"
        with self._writing:
            lock = self._references.setdefault(name, threading.Lock())
        folder = self.folder / "references" / name
        with lock:
            if not (folder / "done").exists():
                shutil.rmtree(folder, ignore_errors=True)
                (folder / "work").mkdir(parents=True)
                (folder / "work/dataset_info.json").write_text("{}")
                every = ["--config.checkpoint_every=1", "--config.keep_checkpoints=1000"]
                flags = every if stage in states.TRAININGS else []
                run = Run(stage, str(folder / "work"), topology, folder / "start", flags=flags)
                run.wait_ended(1200)
                run.destroy()
                assert not any(run.statuses), f"{name} ended with {run.statuses}: {run.told(0)[-2000:]}"
                (folder / "done").touch()
        return str(folder / "work")

    def outcomes(self) -> list[Outcome]:
        """What is known so far."""
        lines = self.results.read_text().splitlines() if self.results.exists() else []
        return [Outcome(**json.loads(line)) for line in lines]


@contextlib.contextmanager
def small_file_system(folder: Path, size: str = "64m") -> Iterator[bool]:
    """Makes a folder a file system of its own, in memory, that may be filled; says whether it could."""
    folder.mkdir(parents=True, exist_ok=True)
    command = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)]
    mounted = shutil.which("mount") is not None and subprocess.run(command, capture_output=True).returncode == 0
    try:
        yield mounted
    finally:
        if mounted:
            subprocess.run(["umount", "-l", str(folder)], capture_output=True)


def sound(outcome: Outcome) -> bool:
    """Whether all is as it should be."""
    return outcome.ended and outcome.resumed and outcome.checkpoints and outcome.right and not outcome.hung


def table(outcomes: list[Outcome]) -> str:
    """The results by kind, in Markdown."""
    heads = ["kind", "injections", "ended as it should", "resumed", "lost or corrupt checkpoints"]
    heads += ["silent wrong results", "hangs", "slowest end (s)"]
    lines = ["| " + " | ".join(heads) + " |", "|---|" + "---:|" * (len(heads) - 1)]
    groups = [(kind, [x for x in outcomes if x.kind == kind]) for kind in KINDS]
    for name, group in [*groups, ("**all**", outcomes)]:
        if group:
            counts: list[Any] = [
                len(group), sum(x.ended for x in group), sum(x.resumed for x in group),
                sum(not x.checkpoints for x in group), sum(not x.right for x in group), sum(x.hung for x in group),
                f"{max(x.seconds for x in group):.1f}",
            ]  # fmt: skip
            lines.append(f"| {name} | " + " | ".join(map(str, counts)) + " |")
    return "\n".join(lines)


def main() -> int:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--injections", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--jobs", type=int, default=2, help="episodes at a time")
    parser.add_argument("--kinds", nargs="*", default=list(KINDS), choices=KINDS)
    parser.add_argument("--stages", nargs="*", default=list(STAGES), choices=STAGES)
    given = parser.parse_args()
    logging.set_verbosity(logging.ERROR)
    stages = {stage: STAGES[stage] for stage in given.stages}
    campaign = Campaign(given.folder, given.seed, given.kinds, stages)
    began = time.monotonic()
    campaign.run(given.injections, given.jobs)
    outcomes = campaign.outcomes()
    print(table(outcomes))
    print(f"\n{len(outcomes)} injections, seed {given.seed}, {time.monotonic() - began:.0f} s")
    return 0 if all(map(sound, outcomes)) else 1


if __name__ == "__main__":
    os.environ["JAX_PLATFORMS"] = "cpu"
    sys.exit(main())
