"""What the campaign does to runs, and what must come of it."""

from __future__ import annotations

import os
import random
import re
import shutil
import signal
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from tests.faults import states
from tests.faults.running import HEARTBEAT, JOIN, Run, Topology

WATCHDOG = 15
"""Seconds that a run may stand still where the campaign makes one."""

BALLAST = "ballast"
"""A file that fills a disk up."""

DAMAGES = ("cut short", "deleted in part", "bytes flipped")


@dataclass
class Injection:
    """One fault, brought upon one start of a run.

    Attributes:
        kind: what goes wrong, one of `KINDS`.
        way: how exactly.
        victims: the processes that it is done to.
        after: how many steps, shards or parts are begun first; 0 while the run still starts.
        delay: seconds more.
        topology: what the run is shared among when it is started again.
        seed: of what else is drawn.
    """

    kind: str
    way: str
    victims: tuple[int, ...]
    after: int
    delay: float
    topology: Topology
    seed: int
    unit: int = field(default=-1)  # step or part in which what happens inside the run does so

    def environment(self, process: int) -> dict[str, str]:
        """What a process is told to do to itself."""
        if self.kind == "hung process" and self.way == "stall" and process in self.victims:
            return {"FAULT_STALL": str(self.unit)}
        if self.kind == "NaN in a step":
            return {"FAULT_NAN": str(self.unit), **({"FAULT_NAN_AFTER": "1"} if self.way == "after" else {})}
        if self.kind == "slow storage":
            return {"FAULT_SLOW": "0.2"}
        return {}

    @property
    def flags(self) -> list[str]:
        """Of the command line."""
        return [f"--watchdog={WATCHDOG}"] if self.way == "stall" else []

    @property
    def by_itself(self) -> bool:
        """Whether the run does it to itself."""
        return self.way == "stall" or self.kind == "NaN in a step"

    def act(self, run: Run, workdir: str) -> list[int]:
        """Does what is done from outside.

        Returns:
            The processes that need not end by themselves.
        """
        if self.by_itself:
            return []
        if self.kind == "disk full":
            _fill(Path(workdir), random.Random(self.seed).choice([0, 4096, 20_000, 60_000]))
            return []
        if self.way == "stop":
            run.send(signal.SIGSTOP, self.victims)
            return list(self.victims)
        number = signal.SIGTERM if self.way == "term" else signal.SIGKILL
        run.send(number, self.victims)
        return []

    @property
    def limit(self) -> float:
        """Seconds within which all processes must have ended."""
        patience = 30.0  # for a machine with much else to do
        if self.way == "stall":
            return WATCHDOG + patience
        if self.kind in ("NaN in a step", "disk full"):
            return 90.0  # it takes some steps until it shows
        return patience + (max(JOIN, HEARTBEAT) if self.way != "term" or self.after == 0 else 0)

    def judge(self, run: Run) -> str:
        """Says what is wrong with how the processes ended; nothing where all is well."""
        told = [run.told(i) for i in range(len(run.processes))]
        for i, (status, text) in enumerate(zip(run.statuses, told, strict=True)):
            if status not in self._statuses(i, run):
                return f"process {i} ended with {status}, all with {run.statuses}: {_last(text)}"
            if "Traceback" in text and status != -signal.SIGKILL:
                return f"process {i} ended with a traceback: {_last(text)}"
        wanted = {
            "NaN in a step": r"is not finite|is nan at step",
            "disk full": "no space left",
        }.get(self.kind, {"term": "asked to end|saved at step", "stall": "nothing has moved for"}.get(self.way, ""))
        if wanted and run.begun() and not any(re.search(wanted, text) for text in told):
            return f"no process told /{wanted}/: {_last(told[0])}"
        others = [told[i] for i, status in enumerate(run.statuses) if status == 75 and self.way != "stall"]
        if any("lost" not in text for text in others):
            return f"no line says that a process was lost: {_last(others[0])}"
        return ""

    def _statuses(self, process: int, run: Run) -> Iterable[int]:
        if self.kind in ("NaN in a step", "disk full"):
            return (2,)
        if self.way == "stall":
            return (75,)
        if self.way == "term":
            # a process that has not yet come to Python's handlers, or to the others, ends as it can
            return (143,) if run.begun() else (143, -signal.SIGTERM, 75)
        if process in self.victims:
            return (-signal.SIGKILL,)
        return (75,)

    def between(self, stage: str, workdir: str) -> str:
        """Does what is done while nothing runs; says what."""
        draw = random.Random(self.seed)
        if self.kind in DAMAGES:
            return damage(self.kind, stage, workdir, draw)
        if self.kind == "skewed clocks":
            _skew(Path(workdir), draw)
        return ""


def damage(kind: str, stage: str, workdir: str, draw: random.Random) -> str:
    """Damages the newest checkpoint, or a shard or part; says what it did, nothing where there is nothing to spare."""
    if stage in states.TRAININGS:
        kept = states.steps(stage, workdir)
        if len(kept) < 2:
            return ""
        top = Path(states.checkpoints(stage, workdir), str(kept[-1]))
    else:
        made = [
            Path(workdir, "parts" if stage == "matching" else "synthetic", name)
            for name in states.inodes(stage, workdir)
        ]
        if not made:
            return ""
        top = draw.choice(made)
    files = [top] if top.is_file() else sorted(path for path in top.rglob("*") if path.is_file())
    folders = [] if top.is_file() else sorted(path for path in top.rglob("*") if path.is_dir())
    if kind == "deleted in part":
        victim = draw.choice(files + folders)
        shutil.rmtree(victim) if victim.is_dir() else victim.unlink()
        return f"deleted {victim}"
    victim = draw.choice([path for path in files if path.stat().st_size])
    content = bytearray(victim.read_bytes())
    if kind == "cut short":
        del content[draw.randrange(len(content)) :]
    else:
        for _ in range(draw.choice([1, 1, 4, 64])):
            content[draw.randrange(len(content))] ^= draw.randrange(1, 256)
    victim.write_bytes(content)
    return f"{kind}: {victim}"


def _fill(workdir: Path, leave: int) -> None:
    """Leaves so many bytes of the file system of a work directory."""
    ballast = workdir / BALLAST
    with ballast.open("wb", buffering=0) as file:
        try:
            while True:
                file.write(bytes(1 << 16))
        except OSError:
            pass
        file.truncate(max(file.tell() - leave, 0))


def _skew(workdir: Path, draw: random.Random) -> None:
    """Gives every file a time of its own, up to ten years from now, past or future."""
    for path in sorted(workdir.rglob("*")):
        when = time.time() + draw.uniform(-1, 1) * 10 * 365 * 86400
        os.utime(path, (when, when), follow_symlinks=False)


def _last(text: str) -> str:
    return " | ".join(text.strip().splitlines()[-6:])[-900:]
