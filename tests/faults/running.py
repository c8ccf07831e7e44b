"""One start of a small run: its processes, what they told, and how far they came."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[2]
HEARTBEAT = 10
JOIN = 20
PACE = {"recognition": 0.1, "gan": 0.1, "synthesize": 0.3, "matching": 0.3}
"""Seconds that a step, shard or part takes at least: SIGTERM gets through to several processes within one second."""


class Topology(NamedTuple):
    """What a run is shared among."""

    processes: int
    devices: int
    """Of each process."""


class Run:
    """The processes of a stage that was started."""

    def __init__(
        self,
        stage: str,
        workdir: str,
        topology: Topology,
        folder: Path,
        *,
        environment: Callable[[int], dict[str, str]] = lambda process: {},
        flags: Iterable[str] = (),
    ):
        """Starts them.

        Args:
            stage: a variant of `tests.faults.runs`.
            workdir: the work directory, which may be remote.
            topology: how many processes, and devices of each.
            folder: a new one, for their output and beacons.
            environment: what a process's environment has more.
            flags: added to the command line.
        """
        self.stage, self.topology, self.folder = stage, topology, folder
        folder.mkdir(parents=True)
        shared = _environment(topology) | {"FAULT_PACE": str(PACE[stage])}
        command = [sys.executable, "-m", "tests.faults.worker", f"--config=tests/faults/runs.py:{stage}"]
        command += [f"--workdir={workdir}", *flags]
        self.processes = []
        for i in range(topology.processes):
            own = {"FAULT_BEACON": str(folder / f"beacon{i}"), "SFACE_PROCESS_ID": str(i), **environment(i)}
            if topology.processes == 1:
                del own["SFACE_PROCESS_ID"]
            with (folder / f"log{i}").open("wb") as log:
                self.processes.append(
                    subprocess.Popen(command, cwd=ROOT, env=shared | own, stdout=log, stderr=subprocess.STDOUT)
                )
        self.began = time.monotonic()

    def begun(self, process: int = 0) -> list[int]:
        """The steps, shards or parts that a process has begun."""
        path = self.folder / f"beacon{process}"
        return [int(line) for line in path.read_text().splitlines()] if path.exists() else []

    def wait_begun(self, count: int, seconds: float) -> bool:
        """Waits until some process has begun so many; says whether it did before the run ended, or time was up."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            if max(len(self.begun(i)) for i in range(len(self.processes))) >= count:
                return True
            if self.ended():
                return False
            time.sleep(0.02)
        return False

    def ended(self, but: Iterable[int] = ()) -> bool:
        """Whether all processes have ended, some left out of account."""
        return all(process.poll() is not None for i, process in enumerate(self.processes) if i not in but)

    def wait_ended(self, seconds: float, but: Iterable[int] = ()) -> bool:
        """Waits until all processes have ended; says whether they did in time."""
        end = time.monotonic() + seconds
        while time.monotonic() < end and not self.ended(but):
            time.sleep(0.02)
        return self.ended(but)

    def send(self, number: int, processes: Iterable[int]) -> None:
        """Sends a signal to some of the processes, as far as they are still there."""
        for i in processes:
            if self.processes[i].poll() is None:
                self.processes[i].send_signal(number)

    def destroy(self) -> None:
        """Leaves no process behind."""
        self.send(signal.SIGKILL, range(len(self.processes)))
        for process in self.processes:
            process.wait()

    @property
    def statuses(self) -> list[int | None]:
        """What the processes ended with, in their order."""
        return [process.poll() for process in self.processes]

    def told(self, process: int) -> str:
        """The output of a process."""
        return (self.folder / f"log{process}").read_text(errors="replace")


def _environment(topology: Topology) -> dict[str, str]:
    flags = re.sub(r"--xla_force_host_platform_device_count=\d+", "", os.environ.get("XLA_FLAGS", ""))
    shared = {key: value for key, value in os.environ.items() if not key.startswith(("SFACE_", "FAULT_"))}
    shared |= {
        "JAX_PLATFORMS": "cpu",
        "PYTHONPATH": os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH", "")])),
        "XLA_FLAGS": f"{flags} --xla_force_host_platform_device_count={topology.devices}".strip(),
    }
    if topology.processes > 1:
        shared |= {
            "SFACE_COORDINATOR": f"localhost:{_free_port()}",
            "SFACE_NUM_PROCESSES": str(topology.processes),
            "SFACE_HEARTBEAT_SECONDS": str(HEARTBEAT),
            "SFACE_JOIN_SECONDS": str(JOIN),
        }
    return shared


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("localhost", 0))
        return probe.getsockname()[1]
