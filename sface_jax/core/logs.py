"""The log of each process in a file, beside what the terminal shows; and a run's summary."""

from __future__ import annotations

import logging as standard
import os
import socket
from collections.abc import Mapping, Sequence
from typing import Any

import jax
from absl import logging
from etils import epath

from sface_jax.core import files
from sface_jax.core.progress import duration, notes


def to_file(workdir: epath.Path) -> None:
    """Adds what this process tells from now on to `workdir/logs/process_<its number>.log`.

    Nothing where the work directory is in an object store, to whose objects nothing can be added.
    """
    if files.is_remote(workdir):
        return
    folder = workdir / "logs"
    folder.mkdir(parents=True, exist_ok=True)
    handler = _File(os.fspath(folder / f"process_{jax.process_index()}.log"))
    handler.setFormatter(standard.Formatter("%(asctime)s %(levelname)s %(message)s"))
    for filter_ in logging.get_absl_handler().filters:
        handler.addFilter(filter_)
    logging.get_absl_logger().addHandler(handler)
    notes.addHandler(handler)
    about = jax.process_index(), jax.process_count(), socket.gethostname(), os.getpid()
    notes.info("process %s of %s on %s, pid %s", *about)


class _File(standard.FileHandler):
    def handleError(self, record: standard.LogRecord) -> None:  # noqa: N802
        """Passes over a full disk: the terminal has the line, and what cannot be done without will tell."""


def tell_summary(workdir: epath.Path, keys: Sequence[str]) -> None:
    """Logs the `summary` of a run of several stages."""
    if len(keys) > 1:
        for line in summary(files.read_json(workdir / "stages.json"), keys):
            logging.info("%s", line)


def summary(stages: Mapping[str, Mapping[str, Any]], keys: Sequence[str]) -> list[str]:
    """A table of stages: how long they took and how fast they went.

    Args:
        stages: the content of `stages.json`.
        keys: of the stages to tell, in order.
    """
    columns = {
        "pictures/s": ("pictures_per_second", "{:.3g}"),
        "steps/s": ("steps_per_second", "{:.3g}"),
        "of peak": ("share_of_peak", "{:.0f} %"),
        "input-bound": ("input_bound_percent", "{:.0f} %"),
        "memory": ("memory_gib", "{:.1f} GiB"),
    }
    lines = [f"  {'stage':<16}{'state':<10}{'time':>9}" + "".join(f"{name:>13}" for name in columns)]
    for key in keys:
        entry = stages.get(key, {"state": "new", "wall_seconds": 0.0})
        result = entry.get("result") or {}
        facts = {**result, **result.get("speed", {})}
        shown = [form.format(facts[name]) if name in facts else "" for name, form in columns.values()]
        line = f"  {key:<16}{entry['state']:<10}{duration(entry['wall_seconds']):>9}"
        lines.append((line + "".join(f"{text:>13}" for text in shown)).rstrip())
    return lines
