"""Files that are either whole or absent: every write goes to a temporary name and is then renamed."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import shutil
import tempfile
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
from etils import epath

from sface_jax.core.errors import Unfinished, UserError

PathLike = str | os.PathLike | epath.Path

# etils reaches object stores by tensorflow where that is installed, else by fsspec: one way is enough.
os.environ.setdefault("EPATH_USE_TF", "0")
# What one process has seen of a folder is not what the others have written to it since.
fsspec.config.conf.setdefault("gcs", {}).setdefault("use_listings_cache", False)


def write_bytes(path: PathLike, content: bytes) -> None:
    """Writes `content` to `path` atomically, making parent folders.

    Raises:
        UserError: no space is left on the device.
    """
    with appearing(path) as temporary:
        temporary.write_bytes(content)


@contextlib.contextmanager
def appearing(path: PathLike) -> Iterator[Path]:
    """Gives the name of a local file to write: it becomes `path` at the end of the block, or vanishes where that fails.

    Where `path` is in an object store, whose objects are whole or absent by nature, the file is sent there.

    Raises:
        UserError: no space is left on the device.
    """
    path = epath.Path(path)
    name = f".{path.name}.{uuid.uuid4().hex[:8]}.tmp"
    temporary = Path(tempfile.gettempdir() if is_remote(path) else path.parent, name)
    try:
        with full_disk_told(f"{path} by way of {temporary.parent}" if is_remote(path) else path):
            path.parent.mkdir(parents=True, exist_ok=True)
            yield temporary
            if is_remote(path):
                _copy(epath.Path(temporary), path)
            else:
                temporary.replace(path)
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)


@contextlib.contextmanager
def full_disk_told(what: object) -> Iterator[None]:
    """Turns the error of a full disk, which libraries tell in their own ways, into the one line about it.

    Args:
        what: was to be written, for the line.

    Raises:
        Unfinished: no space is left.
    """
    try:
        yield
    except Exception as error:
        if isinstance(error, Unfinished) or not _is_full(error):
            raise
        raise Unfinished(f"no space left to write {what}: free some, then run the same command again") from error


def _is_full(error: Exception) -> bool:
    texts = (os.strerror(number) for number in (errno.ENOSPC, errno.EDQUOT))
    return getattr(error, "errno", None) in (errno.ENOSPC, errno.EDQUOT) or any(text in str(error) for text in texts)


def check_store(path: PathLike) -> None:
    """Tells in time that the library for an object store is missing.

    Raises:
        UserError: it is.
    """
    if is_remote(path):
        scheme = os.fspath(path).partition("://")[0]
        try:
            fsspec.get_filesystem_class(scheme)
        except (ImportError, ValueError) as error:
            raise UserError(f"{scheme}:// needs a library ({error}): pip install '.[gcs]' for gs://") from error


def local(path: PathLike) -> str:
    """The name of a local file with the content of `path`: itself, or a copy of an object in a store.

    The copies stay in the folder for temporary files, for the next reader on this machine.
    """
    if not is_remote(path):
        return os.fspath(path)
    path = epath.Path(path)
    status = path.stat()
    version = hashlib.sha256(f"{path} {status.length} {status.mtime}".encode()).hexdigest()[:16]
    copy = Path(tempfile.gettempdir(), f"sface_jax-{os.getuid()}", version, path.name)
    if not copy.exists():
        with appearing(copy) as temporary:
            _copy(path, epath.Path(temporary))
    return os.fspath(copy)


def _copy(source: epath.Path, target: epath.Path) -> None:
    with source.open("rb") as read, target.open("wb") as written:
        shutil.copyfileobj(read, written, 1 << 20)


def absolute(path: PathLike) -> epath.Path:
    """The path from the root, links followed; one in an object store (`gs://...`) has no other."""
    path = epath.Path(path)
    return path if is_remote(path) else path.resolve()


def is_remote(path: PathLike) -> bool:
    """Whether a path is in an object store, such as gs://bucket/folder."""
    return "://" in os.fspath(path)


def write_text(path: PathLike, content: str) -> None:
    """Writes UTF-8 text atomically; see `write_bytes`."""
    write_bytes(path, content.encode())


def append_text(path: PathLike, content: str) -> None:
    """Adds UTF-8 text to the end of a file, or of an object, which is written anew for that."""
    path = epath.Path(path)
    if is_remote(path):
        write_text(path, (path.read_text() if path.exists() else "") + content)
        return
    with full_disk_told(path), path.open("a") as file:
        file.write(content)


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
    with appearing(path) as temporary, temporary.open("wb") as file:
        (np.savez_compressed if compressed else np.savez)(file, **arrays)


def write_npy(path: PathLike, array: np.ndarray) -> None:
    """Writes an array of any size as `.npy` atomically; see `write_bytes`."""
    with appearing(path) as temporary, temporary.open("wb") as file:
        np.save(file, array)


def read_npy(path: PathLike) -> np.ndarray:
    """Opens an array that `write_npy` wrote: the file is mapped, so that only what is looked at is read."""
    return np.load(local(path), mmap_mode="r")
