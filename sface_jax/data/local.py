"""Local files: read by offset, and written so that they appear whole or not at all."""

from __future__ import annotations

import contextlib
import errno
import functools
import hashlib
import os
import shutil
import uuid
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import BinaryIO

from etils import epath

from sface_jax.core.errors import Damaged, UserError
from sface_jax.core.files import PathLike, full_disk_told

ABSENT = frozenset({errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.ENAMETOOLONG, errno.ELOOP})
"""What the file system says where there is no such file; other errors may be gone the next time."""


@functools.lru_cache(maxsize=64)
def _open(path: str, *version: int) -> BinaryIO:
    """Opens a file; those that were not read for long are closed, for a process may not have many."""
    return open(path, "rb", buffering=0)


class LocalFile:
    """A file read by offset, by any number of threads; a copy in another process opens it anew.

    Attributes:
        path: where it lies.
        size: its length in bytes.
    """

    def __init__(self, path: PathLike):
        """Notes the file's length.

        Raises:
            UserError: there is no such local file.
        """
        self.path = os.fspath(path)
        if not os.path.isfile(self.path):
            raise UserError(f"there is no local file {self.path}")
        status = os.stat(self.path)
        self.size, self._version = status.st_size, (status.st_ino, status.st_mtime_ns)

    def read(self, start: int, length: int) -> bytes:
        """The `length` bytes from `start` on; what lies beyond the end is refused before memory is taken for it.

        Raises:
            Damaged: the file does not have them.
        """
        if start < 0 or length < 0 or start + length > self.size:
            raise Damaged(f"{self.path} is cut short: it ends at byte {self.size}, before {start + length}")
        content = os.pread(_open(self.path, *self._version).fileno(), length, start)
        if len(content) != length:
            raise Damaged(f"{self.path} was cut short while it was read")
        return content


def stamp(paths: Iterable[PathLike]) -> str:
    """SHA-256, in hexadecimal, over path, size and time of change of each file, in that order; or that it is missing.

    Files on remote disks do too; where many are asked for, this takes its time.
    """
    digest = hashlib.sha256()
    for path in paths:
        digest.update(f"{os.fspath(path)}\0{_state(path)}\0".encode())
    return digest.hexdigest()


def _state(path: PathLike) -> tuple[int, int] | None:
    try:
        if "://" not in os.fspath(path):
            status = os.stat(path)
            return status.st_size, status.st_mtime_ns
        remote = epath.Path(path).stat()
        return remote.length, int(remote.mtime * 1e9)
    except OSError as error:
        if error.errno not in ABSENT:
            raise
        return None


@contextlib.contextmanager
def appearing(*paths: PathLike) -> Iterator[list[Path]]:
    """Gives temporary names for files or folders; they become `paths`, in that order, or vanish where the block fails.

    Raises:
        UserError: one of the paths is there already, or no space is left.
    """
    final = [Path(path) for path in paths]
    for path in final:
        if path.exists() and not (path.is_dir() and not any(path.iterdir())):
            raise UserError(f"{path} is there already: choose another place, or remove it")
    temporary = [path.parent / f".{path.name}.{uuid.uuid4().hex[:8]}.tmp" for path in final]
    try:
        with full_disk_told(final[-1]):
            for path in final:
                path.parent.mkdir(parents=True, exist_ok=True)
            yield temporary
            for written, path in zip(temporary, final, strict=True):
                written.replace(path)
    finally:
        for path in temporary:
            if path.is_dir():
                shutil.rmtree(path)
            path.unlink(missing_ok=True)
