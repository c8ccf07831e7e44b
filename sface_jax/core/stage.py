"""A stage in its work directory: run once, resumed when cut off, skipped when finished."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from absl import logging
from etils import epath
from ml_collections import ConfigDict

from sface_jax.core import files, mesh
from sface_jax.core.errors import Unfinished, UserError
from sface_jax.core.progress import duration

# Keys that change how a run is watched or saved, not what it computes.
FREE = frozenset({"log_every", "checkpoint_every", "keep_checkpoints", "sample_every", "tensorboard", "workers"})


def run(
    key: str,
    config: ConfigDict,
    workdir: epath.Path,
    function: Callable[[ConfigDict, epath.Path], dict],
    again: bool = False,
) -> None:
    """Runs one stage in `workdir` and keeps its config, state, time and result.

    `config.json` holds the resolved config of each stage that ran, `stages.json` its state ("running" or
    "finished"), the seconds it took (over all its runs) and the result it returned.

    Args:
        key: the stage's name in this run, e.g. "gan" or "classification".
        config: its config, flat, with every "{workdir}" expanded.
        workdir: the work directory.
        function: does the work and returns a JSON-able result.
        again: run it even where it finished before, with whatever config.

    Raises:
        UserError: the work directory was made with another config.
    """
    configs, stages = _read(workdir / "config.json"), _read(workdir / "stages.json")
    resolved = _plain(config)
    new = {"state": "new", "wall_seconds": 0.0}
    entry = new if again else stages.get(key, new)
    if key in configs and entry["state"] != "new":
        _compare(key, configs[key], resolved, workdir)
    if entry["state"] == "finished":
        logging.info("%s: finished before (%s), skipped", key, duration(entry["wall_seconds"]))
        return
    mesh.barrier(f"{key} begins")
    _update(workdir / "config.json", key, resolved)
    began, before = time.monotonic(), entry["wall_seconds"]
    logging.info("%s: %s", key, "begins" if entry["state"] == "new" else "goes on where it stopped")
    result: dict[str, Any] = {}
    state = "running"
    _update(workdir / "stages.json", key, {"state": state, "wall_seconds": before})
    try:
        result = function(config, workdir)
        state = "finished"
    except UserError as error:
        # A config that was refused before any work binds nobody: the mended one may use the same folder.
        if entry["state"] == "new" and not isinstance(error, Unfinished):
            state = "new"
        raise
    finally:
        seconds = round(before + time.monotonic() - began, 1)
        _update(workdir / "stages.json", key, {"state": state, "wall_seconds": seconds, "result": result})
    mesh.barrier(f"{key} ends")
    logging.info("%s: finished in %s", key, duration(seconds))


def _read(path: epath.Path) -> dict[str, Any]:
    return files.read_json(path) if path.exists() else {}


def _update(path: epath.Path, key: str, value: Any) -> None:
    if mesh.is_lead():
        files.write_json(path, {**_read(path), key: value})


def _plain(config: ConfigDict) -> dict[str, Any]:
    """The config as JSON holds it: tuples become lists."""
    return _jsonable(config.to_dict())


def _jsonable(value: Any) -> Any:
    if isinstance(value, dict):
        return {k: _jsonable(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_jsonable(v) for v in value]
    return value


def _compare(key: str, old: dict[str, Any], new: dict[str, Any], workdir: epath.Path) -> None:
    for name in sorted({*old, *new} - FREE):
        if old.get(name) != new.get(name):
            raise UserError(
                f"{workdir} was made with {key}.{name}={old.get(name)!r}, now it is {new.get(name)!r}: "
                f"set it back, or choose another --workdir"
            )
