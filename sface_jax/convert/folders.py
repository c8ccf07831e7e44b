"""Folders that are either whole or absent."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from etils import epath


@contextlib.contextmanager
def appearing(output: epath.Path) -> Iterator[epath.Path]:
    """Gives a folder to fill beside the output's place; it takes that place at the end of the block."""
    temporary = output.parent / f".{output.name}.tmp"
    if temporary.exists():
        temporary.rmtree()
    try:
        yield temporary
        temporary.rename(output)
    finally:
        if temporary.exists():
            temporary.rmtree()
