"""Files that are either whole or absent: every write goes to a temporary name and is then renamed."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import uuid
from collections.abc import Iterator
from typing import Any

import numpy as np
from etils import epath

from sface_jax.core.errors import Unfinished, UserError

PathLike = str | os.PathLike | epath.Path


def write_bytes(path: PathLike, content: bytes) -> None:
    """Writes `content` to `path` atomically, making parent folders.

    Raises:
        UserError: no space is left on the device.
    """
    with _appearing(path) as temporary:
        temporary.write_bytes(content)


@contextlib.contextmanager
def _appearing(path: PathLike) -> Iterator[epath.Path]:
    """Gives a temporary name to write to, which becomes `path` at the end of the block, or vanishes where it fails."""
    path = epath.Path(path)
    temporary = path.parent / f".{path.name}.{uuid.uuid4().hex[:8]}.tmp"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield temporary
        temporary.replace(path)
    except OSError as error:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise Unfinished(f"no space left to write {path}: free some, or choose another --workdir") from error
        raise


def absolute(path: PathLike) -> epath.Path:
    """The path from the root, links followed; one in an object store (`gs://...`) has no other."""
    path = epath.Path(path)
    return path if path.is_absolute() else path.resolve()


def write_text(path: PathLike, content: str) -> None:
    """Writes UTF-8 text atomically; see `write_bytes`."""
    write_bytes(path, content.encode())


def write_json(path: PathLike, value: Any) -> None:
    """Writes `value` as indented JSON atomically; see `write_bytes`."""
    write_text(path, json.dumps(value, indent=1) + "\n")


def read_json(path: PathLike) -> Any:
    """Reads a JSON file.

    Raises:
        UserError: the file holds no valid JSON.
    """
    text = epath.Path(path).read_text()
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        raise UserError(f"{path} is not valid JSON ({error}): restore it from a copy") from error


def write_npz(path: PathLike, *, compressed: bool = True, **arrays: np.ndarray) -> None:
    """Writes arrays as an `.npz` atomically; see `write_bytes`. What is like noise is not worth being compressed."""
    with _appearing(path) as temporary, temporary.open("wb") as file:
        (np.savez_compressed if compressed else np.savez)(file, **arrays)


def write_npy(path: PathLike, array: np.ndarray) -> None:
    """Writes an array of any size as `.npy` atomically; see `write_bytes`."""
    with _appearing(path) as temporary, temporary.open("wb") as file:
        np.save(file, array)


def read_npy(path: PathLike) -> np.ndarray:
    """Opens an array that `write_npy` wrote; a local file is mapped, so that only what is looked at is read."""
    if os.path.exists(path):
        return np.load(path, mmap_mode="r")
    with epath.Path(path).open("rb") as file:
        return np.load(file)
