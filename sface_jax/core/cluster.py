"""The processes of a run: how one finds the others, what they are called, and what each has to say."""

from __future__ import annotations

import hashlib
import json
import math
import os
import queue
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterable
from typing import Any, TypeVar

import jax
from jax._src import clusters, distributed

from sface_jax.core import rollcall
from sface_jax.core.errors import Lost, UserError

T = TypeVar("T")

_GRACE = 5.0  # seconds that a process waits longer for process 0 to tell what it has heard

_hosts: list[str] = []
"""The machine of each process, once they have joined."""


def join() -> None:
    """Joins the other processes of the run, when the environment names any.

    `SFACE_COORDINATOR` (host:port), `SFACE_NUM_PROCESSES` and `SFACE_PROCESS_ID` name them explicitly;
    `SFACE_DISTRIBUTED=auto` leaves it to JAX's own detection (Slurm, TPU slices, Open MPI). Without either the run has
    one process. Processes on CPUs talk through gloo.

    All must come within `SFACE_JOIN_SECONDS` (300); from then on one that gives no sign of life for
    `SFACE_HEARTBEAT_SECONDS` (60) ends the run. `SFACE_HOSTS`, a name a process with commas between, or on TPUs
    `TPU_WORKER_HOSTNAMES`, tells where processes that never came should have been.

    Raises:
        UserError: the environment is at odds with itself, or the port is taken.
        Lost: not all processes came; which, is told.
    """
    place = _given()
    if place is None:
        return
    limit, heartbeat = _seconds("SFACE_JOIN_SECONDS", 300.0), _seconds("SFACE_HEARTBEAT_SECONDS", 60.0)
    address, count, process, devices = place if place else _detected(limit)
    _check_hosts(count)
    host = dict(enumerate(_declared())).get(process) or socket.gethostname()
    _hosts[:] = rollcall.call(address, count, process, host, _run(), limit, named)
    jax.config.update("jax_cpu_collectives_implementation", "gloo")
    jax.distributed.initialize(
        coordinator_address=address,
        num_processes=count,
        process_id=process,
        local_device_ids=devices,
        cluster_detection_method="deactivate",  # all is known; inside Slurm it would take devices away
        # everybody was there a moment ago: where one is lost in between, the runtime need not wait for long
        initialization_timeout=math.ceil(min(limit, 60.0)),
        heartbeat_timeout_seconds=math.ceil(heartbeat),
    )


def named(processes: Iterable[int]) -> str:
    """Tells some processes, such as "process 1 (n2), process 3 (n4)", as far as their hosts are known."""
    hosts = _hosts or _declared()
    return ", ".join(f"process {i}" + (f" ({hosts[i]})" if i < len(hosts) else "") for i in processes)


def gather(key: str, word: str, seconds: float) -> list[str]:
    """Hands every process each one's word, through the runtime's service and not through the devices.

    Args:
        key: names this exchange, a new one each time.
        word: what this process has to say.
        seconds: how long to wait for the others.

    Returns:
        The words, by process.

    Raises:
        Lost: some gave none in time; which, is told.
    """
    state = distributed.global_state
    client, count = state.client, state.num_processes
    if client is None:
        return [word]

    def exchange() -> dict[str, Any]:
        client.key_value_set(f"{key}/{state.process_id}", word)
        if state.process_id:
            return json.loads(client.blocking_key_value_get(f"{key} of all", math.ceil(1000 * (seconds + _GRACE))))
        end = time.monotonic() + seconds
        while len(words := dict(client.key_value_dir_get(key))) < count and time.monotonic() < end:
            time.sleep(0.05)
        missing = [i for i in range(count) if f"{key}/{i}" not in words]
        told = {"missing": missing} if missing else {"words": [words[f"{key}/{i}"] for i in range(count)]}
        client.key_value_set(f"{key} of all", json.dumps(told))
        return told

    try:
        told = within(seconds + 2 * _GRACE, exchange)
    except (TimeoutError, RuntimeError):  # process 0, which keeps the words, is gone, or its calls never return
        told = {"missing": [0]}
    if "words" not in told:
        raise Lost(f"{named(told['missing'])} did not answer within {seconds:g} s: gone, or stopped")
    return told["words"]


def within(seconds: float, function: Callable[[], T]) -> T:
    """Gives a function's result, or leaves it behind where it takes too long, as collectives do that hang.

    Raises:
        TimeoutError: it has not returned; it goes on in a thread that nobody waits for.
    """
    results: queue.SimpleQueue[tuple[bool, Any]] = queue.SimpleQueue()

    def run() -> None:
        try:
            results.put((True, function()))
        except BaseException as error:
            results.put((False, error))

    threading.Thread(target=run, daemon=True).start()
    try:
        good, result = results.get(timeout=seconds)
    except queue.Empty:
        raise TimeoutError(f"no result within {seconds:g} s") from None
    if not good:
        raise result
    return result


Place = tuple[str, int, int, Any]
"""Coordinator's address, number of processes, which one this is, and the local devices it may use (None for all)."""


def _given() -> Place | tuple[()] | None:
    """What the environment says in so many words; nothing where JAX is to find out, None for a run of one process."""
    names = ("SFACE_COORDINATOR", "SFACE_NUM_PROCESSES", "SFACE_PROCESS_ID")
    given = [name for name in names if os.environ.get(name)]
    if not given:
        way = os.environ.get("SFACE_DISTRIBUTED", "")
        if way not in ("", "auto"):
            raise UserError(f"SFACE_DISTRIBUTED={way!r}: it can be auto, or not be set")
        return () if way else None
    if len(given) < len(names):
        missing = ", ".join(name for name in names if name not in given)
        raise UserError(f"a run of several processes needs {missing} beside {', '.join(given)}")
    address, count, process = os.environ[names[0]], _number(names[1]), _number(names[2])
    host, _, port = address.rpartition(":")
    if not host or not port.isdecimal() or not 0 < int(port) < 65536:
        raise UserError(f"SFACE_COORDINATOR={address!r}: write it as host:port, e.g. node1:8476")
    if count < 1:
        raise UserError(f"SFACE_NUM_PROCESSES={count}: set it to the number of processes, 1 or more")
    if not 0 <= process < count:
        raise UserError(f"SFACE_PROCESS_ID={process} is not one of the {count} processes: they count from 0")
    return address, count, process, None


def _detected(limit: float) -> Place:
    """What JAX finds in the environment of a cluster."""
    try:
        address, count, process, devices = clusters.ClusterEnv.auto_detect_unset_distributed_params(
            None, None, None, None, None, math.ceil(limit)
        )
    except RuntimeError as error:  # on TPU slices: the name of the first host is not known
        raise Lost(f"{error} within {limit:g} s: see whether the first host started") from error
    if address is None or count is None or process is None:
        raise UserError(
            "SFACE_DISTRIBUTED=auto, but JAX finds no Slurm step (start it with srun), no TPU slice and no Open MPI: "
            "set SFACE_COORDINATOR, SFACE_NUM_PROCESSES and SFACE_PROCESS_ID"
        )
    return address, count, process, None if os.environ.get("JAX_LOCAL_DEVICE_IDS") else devices


def _number(name: str) -> int:
    text = os.environ[name]
    try:
        return int(text)
    except ValueError:
        raise UserError(f"{name}={text!r} is not a whole number") from None


def _seconds(name: str, default: float) -> float:
    text = os.environ.get(name, "")
    try:
        seconds = float(text or default)
    except ValueError:
        seconds = math.nan
    if not 0 < seconds < math.inf:
        raise UserError(f"{name}={text!r}: set it to seconds above 0")
    return seconds


def _declared() -> list[str]:
    """The hosts that the environment names."""
    names = os.environ.get("SFACE_HOSTS") or os.environ.get("TPU_WORKER_HOSTNAMES") or ""
    return [name.strip() for name in names.split(",")] if names else []


def _run() -> str:
    """The flags, which all processes of a run have, as a short number."""
    return hashlib.sha256("\0".join(sys.argv[1:]).encode()).hexdigest()[:16]


def _check_hosts(count: int) -> None:
    if os.environ.get("SFACE_HOSTS") and len(_declared()) != count:
        raise UserError(f"SFACE_HOSTS names {len(_declared())} hosts for {count} processes: name one for each process")
