"""Stage preflight: whether all machines of a run are there, alike, and reach each other, before anything is trained."""

from __future__ import annotations

import hashlib
import itertools
import json
import os
import platform
import socket
import statistics
import time
import uuid
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import jax
import jaxlib
import numpy as np
from absl import logging
from etils import epath
from jax.sharding import Mesh
from ml_collections import ConfigDict

from sface_jax import __version__
from sface_jax.core import cluster, files, mesh
from sface_jax.core.errors import Lost, UserError

T = TypeVar("T")

KINDS = {
    "gpu": "see that nvidia-smi shows them there, that the job asks for them, and that the extra `cuda` is installed",
    "tpu": "see that the extra `tpu` is installed, and that no other process holds them",
    "cpu": "set JAX_PLATFORMS=cpu",
}
"""What a run may expect, and what to do where it is not there."""

_ROUNDS = 5
_ANSWER = 5.0  # seconds that processes get, after the limit of a step, to say that they are alive
_VISIBLE = 10.0  # seconds that a shared file system gets to show a new file to the other hosts

_runs = itertools.count()


def run(config: ConfigDict, workdir: epath.Path) -> dict[str, Any]:
    """Asks every process for its versions and devices, and for the work directory; then all devices add up numbers.

    No collective begins before every process has answered through the runtime's service. Each step may take
    `config.seconds`; those that gave no answer are told with their hosts.

    Keys of the config: `expect` (one of `KINDS`, or nothing), `devices` (their number, or 0), `seconds`, `mebibytes` of
    each device in the all-reduce, `mesh`.

    Returns:
        {"processes", "hosts", "devices", "kind", "mesh", "all_reduce_seconds", "gib_per_second"}, which is also in
        `workdir/preflight.json`.

    Raises:
        UserError: the accelerators are not the expected ones, the processes run different code, the work directory is
            not the same for all, or the sum is wrong.
        Lost: a process, or the all-reduce, gave no answer in time.
    """
    if config.expect not in ("", *KINDS):
        raise UserError(f"preflight.expect={config.expect!r}: it can be {', '.join(map(repr, KINDS))} or nothing")
    workdir = epath.Path(workdir)
    key = f"preflight/{next(_runs)}"
    _compare(_all(f"{key}/versions", _versions(), config.seconds))
    own = _together(f"{key}/devices", "the runtime", config.seconds, _devices)
    found = _all(f"{key}/found", own, config.seconds)
    _tell(found)
    _check_devices(found, config.expect, config.devices)
    _check_workdir(f"{key}/workdir", workdir, config.seconds)
    devices = mesh.make_mesh(config.mesh.data, config.mesh.model)
    logging.info("mesh: data %d x model %d", *devices.devices.shape)
    seconds = _together(
        f"{key}/sum", "the all-reduce", config.seconds, lambda: _all_reduce(devices, config.mebibytes << 20)
    )
    # in a ring each byte goes out twice, but for the share that a device ends or begins with
    rate = 2 * (devices.size - 1) / devices.size * config.mebibytes / 1024 / seconds
    logging.info(
        "all-reduce of %d MiB over %d devices: the sum is right, %.2f ms, %.2f GiB/s out of each device",
        *(config.mebibytes, devices.size, 1000 * seconds, rate),
    )
    result = {
        "processes": len(found),
        "hosts": len({entry["host"] for entry in found}),
        "devices": devices.size,
        "kind": found[0]["kind"],
        "mesh": dict(devices.shape),
        "all_reduce_seconds": seconds,
        "gib_per_second": rate,
    }
    if mesh.is_lead():
        files.write_json(workdir / "preflight.json", result)
    _all(f"{key}/end", None, config.seconds)  # nobody leaves while another still needs it
    logging.info("ready")
    return result


def _all(key: str, word: Any, seconds: float) -> list[Any]:
    """Each process's word, anything that JSON holds."""
    return [json.loads(text) for text in cluster.gather(key, json.dumps(word), seconds)]


def _together(key: str, what: str, seconds: float, function: Callable[[], T]) -> T:
    """Does what takes all processes, and finds out who is to blame where it fails.

    Raises:
        Lost: it failed, or has not ended in time.
    """
    end = time.monotonic() + seconds
    try:
        return cluster.within(seconds, function)
    except TimeoutError:
        why = f"gave no result within {seconds:g} s"
    except RuntimeError as error:
        why = f"failed ({str(error).strip().splitlines()[0]})"
    # where it failed here at once, the others may still wait for it
    cluster.gather(f"{key}/alive", "alive", max(end - time.monotonic(), 0.0) + _ANSWER)
    raise Lost(
        f"{what} {why}, though every process answers: see that the hosts reach each other on all ports and have the "
        "same accelerators, or raise --config.seconds"
    )


def _versions() -> dict[str, str]:
    source = hashlib.sha256()
    package = Path(__file__).parents[1]
    for file in sorted(package.rglob("*.py")):
        source.update(f"{file.relative_to(package)}\n".encode() + file.read_bytes())
    return {
        "Python": ".".join(platform.python_version_tuple()[:2]),
        "jax": jax.__version__,
        "jaxlib": jaxlib.__version__,
        "sface_jax": f"{__version__} (sources {source.hexdigest()[:8]})",
    }


def _compare(versions: list[dict[str, str]]) -> None:
    for name in versions[0]:
        usual, _ = Counter(of[name] for of in versions).most_common(1)[0]
        for i, of in enumerate(versions):
            if of[name] != usual:
                raise UserError(
                    f"{cluster.named([i])} has {name} {of[name]}, most have {usual}: install the same everywhere"
                )


def _devices() -> dict[str, Any]:
    local = jax.local_devices()
    stats = local[0].memory_stats() or {}
    memory = stats.get("bytes_limit") or os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    kind = {"cuda": "gpu", "rocm": "gpu"}.get(local[0].platform, local[0].platform)
    return {
        "host": socket.gethostname(),
        "platform": kind,
        "kind": local[0].device_kind,
        "count": len(local),
        "memory": f"{memory / 2**30:.1f} GiB" + (" each" if stats else " of the host"),
    }


def _tell(found: list[dict[str, Any]]) -> None:
    hosts = {entry["host"] for entry in found}
    devices = sum(entry["count"] for entry in found)
    logging.info("processes: %d, hosts: %d, devices: %d", len(found), len(hosts), devices)
    for i, entry in enumerate(found):
        logging.info("  process %d  %s  %d x %s, %s", i, *(entry[k] for k in ("host", "count", "kind", "memory")))
    kinds = Counter(entry["kind"] for entry in found)
    if len(kinds) > 1:
        logging.warning("the slowest of these sets the pace: %s", ", ".join(sorted(kinds)))


def _check_devices(found: list[dict[str, Any]], expect: str, count: int) -> None:
    for i, entry in enumerate(found):
        if expect and entry["platform"] != expect:
            raise UserError(f"{cluster.named([i])} has {entry['kind']} where {expect} is expected: {KINDS[expect]}")
    total = sum(entry["count"] for entry in found)
    if count and total != count:
        each = ", ".join(f"{entry['count']} in process {i}" for i, entry in enumerate(found))
        raise UserError(f"{total} devices, {count} expected ({each}): see what is missing, or set --config.devices")


def _check_workdir(key: str, workdir: epath.Path, seconds: float) -> None:
    """Lets the lead find what the others write in the work directory, and them what it writes.

    Raises:
        UserError: one cannot write there, or does not see what another wrote.
    """
    lead, own = mesh.is_lead(), str(jax.process_index())
    name = _all(f"{key}/name", f".preflight-{uuid.uuid4().hex}", seconds)[0]
    folder = workdir / name
    errors = _all(f"{key}/begun", _write(folder / own) if lead else "", seconds)
    if not lead and not errors[0]:
        seen = _appears(folder / "0")
        errors = [_write(folder / own) if seen else "does not see the work directory of the others"]
    for i, error in enumerate(_all(f"{key}/written", errors[0], seconds)):
        if error:
            _remove(folder)
            raise UserError(f"{cluster.named([i])} {error}, {workdir}: mount one file system at the same path for all")
    hidden = [i for i in range(jax.process_count()) if lead and not _appears(folder / str(i))]
    hidden = _all(f"{key}/read", hidden, seconds)[0]
    _remove(folder)
    if hidden:
        raise UserError(
            f"{cluster.named([0])} does not see what {cluster.named(hidden)} wrote in {workdir}: mount one file system "
            "at the same path for all"
        )


def _remove(folder: epath.Path) -> None:
    if mesh.is_lead():
        folder.rmtree(missing_ok=True)


def _write(file: epath.Path) -> str:
    """Writes a file, and tells what went wrong."""
    try:
        files.write_text(file, "")
    except OSError as error:
        return f"cannot write in the work directory ({error.strerror or error})"
    return ""


def _appears(file: epath.Path) -> bool:
    end = time.monotonic() + _VISIBLE
    while not file.exists():
        if time.monotonic() > end:
            return False
        time.sleep(0.2)
    return True


def _all_reduce(devices: Mesh, size: int) -> float:
    """The median time of an all-reduce in seconds; its result is checked.

    Args:
        devices: all of them.
        size: bytes that each device holds.
    """
    count = devices.size
    sharding = mesh.batch_sharding(devices)

    def own(index: tuple[slice, ...]) -> np.ndarray:
        return np.full((1, size // 4), 1 + (index[0].start or 0), np.float32)

    numbers = jax.make_array_from_callback((count, size // 4), sharding, own)
    add = jax.jit(lambda x: x.sum(0), out_shardings=mesh.replicated(devices))
    for shard in add(numbers).addressable_shards:
        if not np.all(np.asarray(shard.data) == count * (count + 1) / 2):
            raise UserError(f"{shard.device} has a wrong sum of numbers: it, or its connection, is broken")
    times = []
    for _ in range(_ROUNDS):
        began = time.perf_counter()
        add(numbers).block_until_ready()
        times.append(time.perf_counter() - began)
    return statistics.median(times)
