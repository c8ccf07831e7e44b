"""One run from start to end, with faults on the way: what is done to it, and what came of each."""

from __future__ import annotations

import contextlib
import io
import json
import os
import re
import signal
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from PIL import Image

from tests.faults import states
from tests.faults.injections import BALLAST, DAMAGES, Injection
from tests.faults.plans import ALONE, Plan
from tests.faults.running import Run, Topology
from tests.faults.runs import EVERY, UNITS

Reference = Callable[[str, Topology], str]

START = 240.0
"""Seconds until a run has begun its first step, with everything to compile, on a machine with much else to do."""

FAR = 2e-3
"""Relative distance of arrays, and of losses, that another number of devices or processes may cause by rounding."""


@dataclass
class Outcome:
    """What came of an injection; one line of the results."""

    episode: int
    number: int
    kind: str
    way: str
    stage: str
    topology: str
    seconds: float = 0.0
    """From the injection until the last process had ended."""
    ended: bool = False
    """With the status and the line that are expected."""
    resumed: bool = False
    """From where it should have."""
    checkpoints: bool = True
    """None lost, none corrupt."""
    right: bool = True
    """The final result is the undisturbed run's."""
    hung: bool = False
    note: str = ""


def play(plan: Plan, folder: Path, workdir: str, reference: Reference) -> list[Outcome]:
    """Plays an episode to its end.

    Args:
        plan: what is run, and what happens to it.
        folder: for the output of its processes.
        workdir: the run's; may be remote.
        reference: gives the work directory of the undisturbed run of a stage on a topology.
    """
    outcomes: list[Outcome] = []
    unjudged: list[Outcome] = []  # of which it is not yet known whether the run went on
    topology, least, changed, kept = plan.topology, 0, False, {}
    for number, injection in enumerate([*plan.injections, None]):
        if injection is not None:
            injection = _placed(injection, topology, plan.stage, least)
        run = _start(plan, injection, workdir, topology, folder / f"start{number}")
        try:
            with _reader(workdir, injection) as half_written:
                if injection is None or injection.after:
                    run.wait_begun(1, START)
                    _judge_resumption(unjudged, run, plan.stage, least)
                if injection is None:
                    run.wait_ended(START)
                    outcome = None
                else:
                    outcome = _outcome(plan, number, injection, topology)
                    _disturb(run, injection, outcome, workdir)
            finished = all(status == 0 for status in run.statuses)
            if outcome is None and not finished:
                _blame(outcomes, f"the last start ended with {run.statuses}: {_told(run)}")
                return outcomes
            if kept and (
                gone := [name for name, inode in kept.items() if states.inodes(plan.stage, workdir).get(name) != inode]
            ):
                outcomes[-1].resumed, outcomes[-1].note = False, f"{outcomes[-1].note} made anew: {gone}"
            if finished:  # maybe before the injection came
                _judge_resumption(unjudged, run, plan.stage, least)
                break
        finally:
            run.destroy()
        outcomes.append(outcome)
        unjudged.append(outcome)
        if half_written:
            outcome.checkpoints, outcome.note = False, half_written[0]
        if injection.kind == "disk full":
            Path(workdir, BALLAST).unlink(missing_ok=True)
        least = _inspect(plan, run, injection, outcome, workdir, reference, None if changed else topology)
        damaged = injection.between(plan.stage, workdir)
        if damaged:
            outcome.note = f"{outcome.note} {damaged}".strip()
            least = _before(plan.stage, workdir, least)
        elif injection.kind in DAMAGES:  # there was nothing to spare
            outcome.kind = {"term": "SIGTERM", "kill": "kill -9"}[injection.way]
        kept = {} if damaged or plan.stage in states.TRAININGS else states.inodes(plan.stage, workdir)
        changed |= injection.topology != topology
        topology = injection.topology
    found = states.result(plan.stage, workdir)
    exactly = plan.stage not in states.TRAININGS or not changed
    wanted = states.result(plan.stage, reference(plan.stage, topology if not changed else ALONE))
    if wrong := differs(plan.stage, found, wanted, exactly):
        _blame(outcomes, wrong)
    return outcomes


def _start(plan: Plan, injection: Injection | None, workdir: str, topology: Topology, folder: Path) -> Run:
    environment = injection.environment if injection else lambda process: {}
    flags = injection.flags if injection else ()
    return Run(plan.stage, workdir, topology, folder, environment=environment, flags=flags)


def _outcome(plan: Plan, number: int, injection: Injection, topology: Topology) -> Outcome:
    shared = f"{topology.processes}x{topology.devices}"
    return Outcome(plan.number, number, injection.kind, injection.way, plan.stage, shared)


def _placed(injection: Injection, topology: Topology, stage: str, least: int) -> Injection:
    """Fits what was drawn to the topology that the run has by now, and to where it goes on from."""
    victims = tuple(sorted({victim % topology.processes for victim in injection.victims}))
    unit = min(least + injection.after, UNITS[stage] - 1)
    return replace(injection, victims=victims, unit=unit)


def _disturb(run: Run, injection: Injection, outcome: Outcome, workdir: str) -> None:
    """Does it, and judges how the processes end."""
    if injection.way == "stall":
        _wait_stalled(run, injection)
    elif not injection.by_itself:
        run.wait_begun(injection.after, START)
        time.sleep(injection.delay)
    if run.ended():
        outcome.note = f"ended before its injection with {run.statuses}: {_told(run)}"
        return
    at = time.monotonic()
    still = injection.act(run, workdir)
    limit = START if injection.kind == "NaN in a step" else injection.limit
    outcome.hung = not run.wait_ended(limit, but=still)
    outcome.seconds = round(time.monotonic() - at, 2)
    if outcome.hung:
        outcome.note = f"after {limit:.0f} s the statuses are {run.statuses}: {_told(run)}"
        return
    run.send(signal.SIGKILL, still)
    run.wait_ended(10)
    outcome.note = injection.judge(run)
    outcome.ended = not outcome.note


def _wait_stalled(run: Run, injection: Injection) -> None:
    end = time.monotonic() + START
    while time.monotonic() < end and not run.ended():
        if any(injection.unit in run.begun(victim) for victim in injection.victims):
            return
        time.sleep(0.02)


def _inspect(
    plan: Plan, run: Run, injection: Injection, outcome: Outcome, workdir: str, reference: Reference,
    topology: Topology | None,
) -> int:  # fmt: skip
    """Looks at what is kept after an injection; returns the step from which a restart must go on at least.

    Args:
        topology: of all starts so far; None where there were several, whose rounding differs.
    """
    if plan.stage not in states.TRAININGS:
        return 0
    wrong = []
    done = max((run.begun() or [0])[-1], 0)  # steps that were done when the last one began
    saved = re.findall(r"saved at step (\d+)", run.told(0))
    least = int(saved[-1]) if saved else done // EVERY[plan.stage] * EVERY[plan.stage]
    try:
        step, arrays = states.newest(plan.stage, workdir) or (0, {})
    except Exception as error:
        step, arrays = 0, {}
        wrong.append(f"the checkpoints cannot be read: {error}")
    if step < least:
        wrong.append(f"the newest checkpoint is {step} after {done} steps{' and a save' if saved else ''}")
    if not states.finite(arrays):
        wrong.append(f"checkpoint {step} is not finite")
    elif arrays and topology and not states.equal(arrays, states.at(plan.stage, reference(plan.stage, topology), step)):
        wrong.append(f"checkpoint {step} is not the undisturbed run's")
    if wrong:
        outcome.checkpoints, outcome.note = False, " ".join([outcome.note, *wrong]).strip()
    return step


def _before(stage: str, workdir: str, least: int) -> int:
    """From where a run must go on whose newest checkpoint is damaged."""
    earlier = [step for step in states.steps(stage, workdir) if step < least] if stage in states.TRAININGS else []
    return max(earlier, default=0)


def _judge_resumption(outcomes: list[Outcome], run: Run, stage: str, least: int) -> None:
    """Says of those injections after which no step was begun so far, whether the run went on from where it should."""
    begun = run.begun()
    for outcome in outcomes:
        if not begun and any(run.statuses):
            outcome.note = f"{outcome.note} started again, it ended with {run.statuses}: {_told(run)}".strip()
        elif begun and stage in states.TRAININGS and begun[0] < least:
            outcome.note = f"{outcome.note} started again, it began at {begun[0]}, not at {least}".strip()
        else:
            outcome.resumed = True
    outcomes.clear()


def differs(stage: str, found: Any, wanted: Any, exactly: bool) -> str:
    """How a result is another than it should be; nothing where it is not."""
    if stage not in states.TRAININGS:
        return "" if found == wanted else "the files are not those of the undisturbed run"
    if exactly:
        if not states.equal(found["arrays"], wanted["arrays"]):
            far = states.distance(found["arrays"], wanted["arrays"])
            return f"the final state is not the undisturbed run's, which is {far:.1e} away"
        return "" if found["losses"] == wanted["losses"] else "the losses are not those of the undisturbed run"
    far = states.distance(found["arrays"], wanted["arrays"])
    if not far < FAR:
        return f"the final state is {far:.1e} away from the undisturbed run's"
    for line, other in zip(found["losses"], wanted["losses"], strict=False):
        if line.keys() != other.keys() or any(not abs(line[k] - other[k]) <= FAR * max(abs(other[k]), 1) for k in line):
            return f"the losses are not those of the undisturbed run: {line}, {other}"
    return "" if len(found["losses"]) == len(wanted["losses"]) else "some steps were not logged, or twice"


def _blame(outcomes: list[Outcome], note: str) -> None:
    """A wrong result is everybody's who disturbed the run."""
    for outcome in outcomes:
        outcome.right, outcome.note = False, f"{outcome.note} {note}".strip()


@contextlib.contextmanager
def _reader(workdir: str, injection: Injection | None) -> Iterator[list[str]]:
    """While storage is slow, reads again and again what lies in the work directory; gives what was half-written."""
    wrong: list[str] = []
    if injection is None or injection.kind != "slow storage":
        yield wrong
        return
    stopped = threading.Event()

    def read() -> None:
        while not stopped.wait(0.02):
            paths = (Path(folder, name) for folder, _, names in os.walk(workdir) for name in names)
            for path in paths:  # some of which are gone again
                if path.suffix in (".json", ".png") and "tmp" not in str(path.relative_to(workdir)):
                    with contextlib.suppress(FileNotFoundError):
                        if error := _broken(path.suffix, path.read_bytes()):
                            wrong.append(f"{path} was seen half-written: {error}")

    reader = threading.Thread(target=read)
    reader.start()
    try:
        yield wrong
    finally:
        stopped.set()
        reader.join()


def _broken(suffix: str, content: bytes) -> str:
    try:
        json.loads(content) if suffix == ".json" else Image.open(io.BytesIO(content)).load()
    except (ValueError, OSError) as error:
        return str(error) or type(error).__name__
    return ""


def _told(run: Run) -> str:
    return " || ".join(
        f"{i}: " + " | ".join(run.told(i).strip().splitlines()[-4:])[-600:] for i in range(len(run.processes))
    )
