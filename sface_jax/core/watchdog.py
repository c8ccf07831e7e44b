"""Ends a run in which nothing moves any more: a collective that waits for ever, a device or a storage that hangs."""

from __future__ import annotations

import faulthandler
import threading
import time
from typing import NamedTuple

from etils import epath

from sface_jax.core.errors import LOST


class _Beat(NamedTuple):
    when: float
    what: str
    done: int | None
    total: int | None


class _Watch:
    """The watch of this process, if one is kept."""

    last: _Beat | None = None
    stopped: threading.Event | None = None


def start(seconds: float, directory: epath.Path) -> None:
    """Keeps watch from now on: where nothing beats for a time, the process ends with a line and status 75.

    The time must be longer than the longest that may pass between two beats, such as the compilation of a step.

    Args:
        seconds: the time; 0 keeps no watch.
        directory: gets `hang_<process>.txt`, with what every thread was at.
    """
    stop()
    if seconds <= 0:
        return
    stopped = _Watch.stopped = threading.Event()
    beat("the run")
    threading.Thread(target=_watch, args=(seconds, directory, stopped), name="watchdog", daemon=True).start()


def beat(what: str, done: int | None = None, total: int | None = None) -> None:
    """Something has moved. Cheap, and may be called by any thread.

    Args:
        what: the stage or task, e.g. "gan".
        done: how far it is.
        total: where it ends.
    """
    if _Watch.stopped is not None:
        _Watch.last = _Beat(time.monotonic(), what, done, total)


def stop() -> None:
    """Keeps watch no longer."""
    if _Watch.stopped is not None:
        _Watch.stopped.set()
    _Watch.stopped = _Watch.last = None


def _watch(seconds: float, directory: epath.Path, stopped: threading.Event) -> None:
    seen, since, pause = None, time.monotonic(), min(seconds / 10, 30.0)
    while not stopped.wait(pause):
        last = _Watch.last
        if last is None:
            continue
        signs = _signs(str(last.when), pause) or seen
        if signs != seen:
            seen, since = signs, time.monotonic()
        elif time.monotonic() - since > seconds:
            return _end(seconds, last, directory)


def _signs(own: str, limit: float) -> dict[str, str]:
    """The last beat of every process: where some wait for one that is at work, something moves."""
    from jax._src.distributed import global_state as joined

    from sface_jax.core import cluster

    if joined.client is None:
        return {"": own}

    def exchange() -> dict[str, str]:
        joined.client.key_value_set(f"sface/beat/{joined.process_id}", own, allow_overwrite=True)
        return dict(joined.client.key_value_dir_get("sface/beat"))

    try:
        return cluster.within(max(limit, 5.0), exchange)
    except (TimeoutError, RuntimeError):
        return {}  # no sign of life either


def _end(seconds: float, last: _Beat, directory: epath.Path) -> None:
    from sface_jax.core import cluster, endings
    from sface_jax.core.progress import duration

    since = "" if last.done is None else f" since {last.done}" + (f" of {last.total}" if last.total else "")
    told = f"{last.what}: nothing has moved for {duration(seconds)}{since}: a device, a process or the storage hangs"
    try:  # the storage may be what hangs
        where = cluster.within(5.0, lambda: _dump(directory))
    except (TimeoutError, OSError):
        where = "not written"
    endings.end(f"{told}; ended, {endings.AGAIN} (stacks: {where})", LOST)


def _dump(directory: epath.Path) -> str:
    import jax

    from sface_jax.core import files

    path = directory / f"hang_{jax.process_index()}.txt"
    with files.appearing(path) as temporary, temporary.open("w") as file:
        faulthandler.dump_traceback(file)
    return str(path)
