"""What a run has kept, read from outside: checkpoints and results, and whether two of them are the same."""

from __future__ import annotations

import json
import threading
from pathlib import Path
from typing import Any

import jax
import numpy as np
from etils import epath

from sface_jax.core.checkpoint import Checkpoints

TRAININGS = ("recognition", "gan")

Arrays = dict[str, np.ndarray]

_reading = threading.Lock()


def checkpoints(stage: str, workdir: str) -> epath.Path:
    """The folder of a training's checkpoints."""
    return epath.Path(workdir) / ("recognition/toy" if stage == "recognition" else stage) / "checkpoints"


def steps(stage: str, workdir: str) -> list[int]:
    """The steps of which there is a checkpoint, whole or not."""
    folder = checkpoints(stage, workdir)
    return sorted(int(path.name) for path in folder.iterdir() if path.name.isdecimal()) if folder.exists() else []


def newest(stage: str, workdir: str) -> tuple[int, Arrays] | None:
    """The newest checkpoint that can be read, as a run that is started again would find it."""
    if not steps(stage, workdir):
        return None
    with _reading:
        kept = Checkpoints(checkpoints(stage, workdir), read_only=True)
        try:
            arrays = flatten(kept.read())
        finally:
            kept.close()
    return int(arrays["step"]), arrays


def at(stage: str, workdir: str, step: int) -> Arrays:
    """The checkpoint of a step."""
    with _reading:
        kept = Checkpoints(checkpoints(stage, workdir), read_only=True)
        try:
            return flatten(kept.read(step=step))
        finally:
            kept.close()


def flatten(tree: Any) -> Arrays:
    """Arrays by name."""
    leaves = jax.tree_util.tree_leaves_with_path(jax.device_get(tree))
    return {jax.tree_util.keystr(path, simple=True, separator="/"): np.asarray(array) for path, array in leaves}


def result(stage: str, workdir: str) -> Any:
    """What a finished run gives: the arrays of its last checkpoint and its losses, or digests of its files."""
    folder = epath.Path(workdir)
    if stage == "synthesize":
        return json.loads((folder / "synthetic/manifest.json").read_text())["shards"]
    if stage == "matching":
        return json.loads((folder / "found.json").read_text())
    step, arrays = newest(stage, workdir)
    lines = (checkpoints(stage, workdir).parent / "metrics.jsonl").read_text().splitlines()
    losses = [{k: v for k, v in json.loads(line).items() if k.endswith("loss") or k == "step"} for line in lines]
    return {"step": step, "arrays": arrays, "losses": [line for line in losses if len(line) > 1]}


def finite(arrays: Arrays) -> bool:
    """Whether all numbers are."""
    return all(np.isfinite(array).all() for array in arrays.values() if array.dtype.kind == "f")


def equal(a: Arrays, b: Arrays) -> bool:
    """Whether all bits are the same."""
    return a.keys() == b.keys() and all(
        a[name].dtype == b[name].dtype and a[name].tobytes() == b[name].tobytes() for name in a
    )


def distance(a: Arrays, b: Arrays) -> float:
    """The largest relative distance |a - b| / |b| of two arrays of one name, as of vectors."""
    if a.keys() != b.keys():
        return np.inf
    worst = 0.0
    for name, x in a.items():
        x, y = x.astype(np.float64), b[name].astype(np.float64)
        if x.shape != y.shape or not (np.isfinite(x).all() and np.isfinite(y).all()):
            return np.inf
        worst = max(worst, float(np.linalg.norm(x - y) / max(np.linalg.norm(y), 1e-3)))
    return worst


def inodes(stage: str, workdir: str) -> dict[str, int]:
    """The shards or parts that are there, each with what tells whether it was written anew."""
    folder, name = {"synthesize": ("synthetic", "*array_record*"), "matching": ("parts", "part-*.npz")}[stage]
    return {path.name: path.stat().st_ino for path in sorted(Path(workdir, folder).glob(name)) if path.name[0] != "."}
