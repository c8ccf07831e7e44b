"""Runs a worker script in processes of their own: several of them as one distributed run, with fake devices, or killed.

A worker is a module of this folder, run as `python -m tests.multi.<worker> ARGUMENTS`. It calls
`sface_jax.core.cluster.join()` first and prints one JSON object as the last line of its output.
"""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]

LAYOUTS = ({"processes": 2}, {"processes": 4, "devices": 2})
"""With one device of one process they make 1, 2 and 8 devices, in 1, 2 and 4 processes: options of `launch`."""

TRAINING_LAYOUTS = ({"processes": 2}, {"processes": 4})
"""For trainings, which every process compiles for itself, and for eight devices longest."""


def launch(
    worker: str, *arguments: object, processes: int = 1, devices: int = 1, timeout: float = 400, **environment: str
) -> list[dict[str, Any]]:
    """Runs `processes` copies of a worker and waits for them.

    Args:
        worker: its module in this folder, e.g. "recognition_worker".
        *arguments: given to every copy.
        processes: with more than one they join into one run, over gloo.
        devices: fake CPU devices of each.
        timeout: seconds after which all are killed and the test fails.
        **environment: added to that of every copy.

    Returns:
        The JSON object that each printed, by process.

    Raises:
        AssertionError: one failed or took too long; its output is told.
    """
    shared = {**_shared(devices), **environment}
    if processes > 1:
        shared |= {"SFACE_COORDINATOR": f"localhost:{_free_port()}", "SFACE_NUM_PROCESSES": str(processes)}
    command = [sys.executable, "-m", f"tests.multi.{worker}", *map(str, arguments)]
    with tempfile.TemporaryDirectory() as folder:
        logs = [Path(folder, str(i)) for i in range(processes)]
        running = []
        for i, log in enumerate(logs):
            own = shared | ({"SFACE_PROCESS_ID": str(i)} if processes > 1 else {})
            with log.open("wb") as output:
                running.append(subprocess.Popen(command, cwd=ROOT, env=own, stdout=output, stderr=subprocess.STDOUT))
        codes = _wait(running, timeout)
        told = [log.read_text(errors="replace") for log in logs]
    for i, code in enumerate(codes):
        assert code == 0, f"process {i} of {worker} ended with {code} (others {codes}):\n{told[i][-4000:]}"
    return [json.loads(text.strip().splitlines()[-1]) for text in told]


def killed(worker: str, *arguments: object, timeout: float = 400, **environment: str) -> None:
    """Runs one copy of a worker which must end by SIGKILL, sent by itself or by somebody else."""
    command = [sys.executable, "-m", f"tests.multi.{worker}", *map(str, arguments)]
    ended = subprocess.run(
        command, cwd=ROOT, env={**_shared(1), **environment}, timeout=timeout, capture_output=True, text=True
    )
    assert ended.returncode == -9, f"{worker} ended with {ended.returncode}:\n{ended.stderr[-4000:]}"


def die_if_told(trainer: type) -> None:
    """In a worker: with KILL_AT=n in the environment, step n of the trainer becomes the process's last."""
    if "KILL_AT" not in os.environ:
        return
    step, last = trainer.step, int(os.environ["KILL_AT"])

    def deadly(self: Any, state: Any, batch: Any, number: int) -> Any:
        result = step(self, state, batch, number)
        if number == last:
            os.kill(os.getpid(), signal.SIGKILL)
        return result

    trainer.step = deadly


def _shared(devices: int) -> dict[str, str]:
    flags = re.sub(r"--xla_force_host_platform_device_count=\d+", "", os.environ.get("XLA_FLAGS", ""))
    cluster = [name for name in os.environ if name.startswith("SFACE_")]
    return {k: v for k, v in os.environ.items() if k not in cluster} | {
        "JAX_PLATFORMS": "cpu",
        "PYTHONPATH": os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH", "")])),
        "XLA_FLAGS": f"{flags} --xla_force_host_platform_device_count={devices}".strip(),
    }


def _wait(running: list[subprocess.Popen], timeout: float) -> list[int | None]:
    """Waits for all; when one fails or time is up the others are killed, since they would wait for it for ever."""
    end = time.monotonic() + timeout
    try:
        while time.monotonic() < end and None in (codes := [process.poll() for process in running]):
            if any(codes):
                time.sleep(2)  # the others may have something to say
                break
            time.sleep(0.05)
        return [process.poll() for process in running]
    finally:
        for process in running:
            process.kill()
            process.wait()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("localhost", 0))
        return probe.getsockname()[1]
