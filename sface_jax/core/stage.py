"""A stage in its work directory: run once, resumed when cut off, skipped when finished."""

from __future__ import annotations

import contextlib
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
FREE = frozenset(
    {"log_every", "checkpoint_every", "keep_checkpoints", "sample_every", "tensorboard", "workers", "profile", "fsdp"}
    | {"verify_every", "verify_benchmarks"}
)

# Keys of which 0 means nothing.
POSITIVE = frozenset(
    {"batch_size", "kimg", "per_class", "identities", "pictures_per_identity", "shard_size", "learning_rate"}
    | {"log_every", "checkpoint_every", "keep_checkpoints", "sample_every", "learning_rate_batch", "folds"}
    | {"generator_learning_rate", "discriminator_learning_rate", "z_dim", "w_dim", "channel_base", "channel_max"}
    | {"path_length_interval", "path_length_shrink", "ada_interval", "ada_kimg"}
    | {
        "watch_every",
        "watch_classes",
        "watch_per_class",
        "r1_interval",
        "mbstd_group_size",
        "rounds",
        "batch_per_device",
        "accumulate",
    }
)


def run(
    key: str,
    config: ConfigDict,
    workdir: epath.Path,
    function: Callable[[ConfigDict, epath.Path], dict],
    again: str = "never",
) -> None:
    """Runs one stage in `workdir` and keeps its config, state, time and result.

    `config.json` holds the resolved config of each stage that ran, `stages.json` its state ("running" or
    "finished"), the seconds it took (over all its runs) and the result it returned.

    Args:
        key: the stage's name in this run, e.g. "gan" or "classification".
        config: its config, flat; "{workdir}" in it stands for the work directory.
        workdir: the work directory.
        function: does the work and returns a JSON-able result.
        again: "never" skips a stage that finished and refuses another config; "changed" runs it anew with another
            config, for stages that only look at what others made; "always" runs it every time.

    Raises:
        UserError: the work directory was made with another config, or a value of the config is out of range.
    """
    configs, stages = _read(workdir / "config.json"), _read(workdir / "stages.json")
    resolved = _plain(config)
    _check(key, resolved)
    new = {"state": "new", "wall_seconds": 0.0}
    entry = new if again == "always" else stages.get(key, new)
    changed = _changed(key, configs.get(key, resolved), resolved)
    if changed and again == "changed":
        entry = new
    elif changed and entry["state"] != "new":
        raise UserError(f"{workdir} was made {changed}choose another --workdir")
    if entry["state"] == "finished":
        logging.info("%s: finished before (%s), skipped", key, duration(entry["wall_seconds"]))
        return
    mesh.barrier(f"{key} begins")
    _update(workdir / "config.json", key, resolved)
    began, before = time.monotonic(), entry["wall_seconds"]
    logging.info("%s: %s", key, "begins" if entry["state"] == "new" else "goes on where it stopped")

    def keep(state: str, result: dict[str, Any]) -> float:
        seconds = round(before + time.monotonic() - began, 1)
        _update(workdir / "stages.json", key, {"state": state, "wall_seconds": seconds, "result": result})
        return seconds

    keep("running", {})
    try:
        result = function(_expanded(config, workdir), workdir)
    except BaseException as error:
        # A config that was refused before any work binds nobody: the mended one may use the same folder.
        refused = entry["state"] == "new" and isinstance(error, UserError) and not isinstance(error, Unfinished)
        with contextlib.suppress(Unfinished):  # on a full disk, what could not be written is told by the error itself
            keep("new" if refused else "running", {})
        raise
    seconds = keep("finished", result)
    mesh.barrier(f"{key} ends")
    logging.info("%s: finished in %s", key, duration(seconds))


def _read(path: epath.Path) -> dict[str, Any]:
    value = files.read_json(path) if path.exists() else {}
    if not isinstance(value, dict):
        raise UserError(f"{path} is not what a run wrote: restore it, or choose another --workdir")
    return value


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


def _changed(key: str, old: dict[str, Any], new: dict[str, Any]) -> str:
    """Tells the first key that differs, or nothing."""
    for name in sorted({*old, *new} - FREE):
        if name not in old:
            return f"by an earlier version, which had no {key}.{name}: "
        if old.get(name) != new.get(name):
            return f"with {key}.{name}={old.get(name)!r}, now it is {new.get(name)!r}: set it back, or "
    return ""


def _check(key: str, config: dict[str, Any]) -> None:
    """Refuses numbers that no stage can work with."""
    for name, value in config.items():
        if isinstance(value, bool) or not isinstance(value, int | float):
            continue
        if name in POSITIVE and value <= 0:
            raise UserError(f"{key}.{name}={value}: set it above 0")
        if value < 0:
            raise UserError(f"{key}.{name}={value}: set it to 0 or above")


def _expanded(config: ConfigDict, workdir: epath.Path) -> ConfigDict:
    """Writes the work directory in place of every "{workdir}"."""

    def expand(value: Any) -> Any:
        if isinstance(value, str):
            return value.replace("{workdir}", str(workdir))
        if isinstance(value, tuple | list):
            return type(value)(expand(v) for v in value)
        return value

    return ConfigDict({name: expand(value) for name, value in config.to_dict().items()})
