"""Files that are either whole or absent: every write goes to a temporary name and is then renamed."""

from __future__ import annotations

import contextlib
import errno
import io
import json
import os
import uuid
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
    path = epath.Path(path)
    temporary = path.parent / f".{path.name}.{uuid.uuid4().hex[:8]}.tmp"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary.write_bytes(content)
        temporary.replace(path)
    except OSError as error:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise Unfinished(f"no space left to write {path}: free some, or choose another --workdir") from error
        raise


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


def write_npz(path: PathLike, **arrays: np.ndarray) -> None:
    """Writes arrays as a compressed `.npz` atomically; see `write_bytes`."""
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **arrays)
    write_bytes(path, buffer.getvalue())
