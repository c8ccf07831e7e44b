"""How a config names a set of pictures."""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import NamedTuple

from etils import epath

from sface_jax.core import files
from sface_jax.core.errors import UserError

TRAIN = "train"


class Entry(NamedTuple):
    """A set as a config names it: "[name=]path[:part]".

    Attributes:
        name: what it is called.
        path: whatever `data.formats` opens; or a file of verification pairs; or a `.bin` with pairs and pictures.
        part: a split of a dataset; or the folder of the pictures that a file of pairs names.
    """

    name: str
    path: str
    part: str

    @property
    def place(self) -> tuple[str, str]:
        """What two entries of the same pictures have in common."""
        return os.fspath(files.absolute(self.path)), self.part or TRAIN


def parse(entry: str, key: str) -> Entry:
    """Reads "[name=]path[:part]"; without a name, a set is called by the last part of its path and its split.

    Args:
        entry: the text.
        key: the config key that it is from, for the error line.

    Raises:
        UserError: no path is named.
    """
    name, given, rest = entry.partition("=")
    if not given or "/" in name:  # in a path
        name, rest = "", entry
    path, colon, part = rest.rpartition(":")
    if not colon or part.startswith("//") or epath.Path(rest).exists():  # "gs://path" has no part
        path, part = rest, ""
    if not path:
        raise UserError(f'config.{key} has {entry!r}: write "path", "path:split" or "pairs.txt:folder", after "name="')
    short = files.absolute(path).name
    return Entry(name or (f"{short}/{part}" if part and not epath.Path(part).is_dir() else short), path, part)


def refuse_equal(entries: Iterable[tuple[str, Entry]]) -> None:
    """Refuses sets that are the same pictures.

    Args:
        entries: the config key that names each, and the entry.

    Raises:
        UserError: two of them lie in one place.
    """
    seen: dict[tuple[str, str], str] = {}
    for key, entry in entries:
        other = seen.get(entry.place)
        if other is not None:
            same = f"is the same as config.{other}" if other != key else f"names {entry.path} twice"
            raise UserError(f"config.{key} {same}: set it to other pictures")
        seen[entry.place] = key
