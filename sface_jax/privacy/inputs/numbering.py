"""Which identities of two sets are the same: by name, by number, or by a table."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import NamedTuple

from etils import epath

from sface_jax.core.errors import UserError


class Numbers(NamedTuple):
    """The identities of a set that another set has too.

    Attributes:
        numbers: number in the set -> number in the other.
        how: by what they were told: "name", "number" or "config.identity_map"; "" where there are none.
    """

    numbers: dict[int, int]
    how: str


def match(names: Mapping[int, str], known: Mapping[int, str]) -> Numbers:
    """Finds identities of one set in another: by equal names, or else by number where all names of both are numbers.

    One way serves for all: mixed, two identities might become one.

    Args:
        names: number -> name of the identities of the set.
        known: number -> name of those of the other.
    """
    by_name = {name: number for number, name in known.items()}
    found = {number: by_name[name] for number, name in names.items() if name in by_name}
    if found:
        return Numbers(found, "name")
    here, there = _by_value(names), _by_value(known)
    found = {here[value]: there[value] for value in here.keys() & there.keys()}
    return Numbers(found, "number") if found else Numbers({}, "")


def _by_value(names: Mapping[int, str]) -> dict[int, int]:
    """Value of the name -> number; empty where a name is no number, or two are the same one."""
    if not all(name.isdecimal() for name in names.values()):
        return {}
    found = {int(name): number for number, name in names.items()}
    return found if len(found) == len(names) else {}


def by_table(path: str, names: Mapping[int, str], known: Mapping[int, str]) -> Numbers:
    """Finds identities of one set in another by a table: a line each, name in the set, tab, name in the other.

    Args:
        path: the table, in UTF-8; lines that begin with "#" and empty ones are passed over.
        names: number -> name of the identities of the set. Those that the table does not have are not in the other.
        known: number -> name of those of the other.

    Raises:
        UserError: there is no such file, it is not UTF-8, a line is no such line, names an identity twice, or one that
            the other set does not have; or no line names an identity of the set.
    """
    if not epath.Path(path).is_file():
        raise UserError(f"there is no file {path}: config.identity_map names a table of identities")
    try:
        lines = epath.Path(path).read_bytes().decode("utf-8-sig").splitlines()  # spreadsheets begin with a mark
    except UnicodeDecodeError as error:
        raise UserError(f"{path} is not UTF-8 at byte {error.start}: save the table as UTF-8 text") from error
    by_name = {name: number for number, name in known.items()}
    table: dict[str, int] = {}
    for place, line in enumerate(lines, 1):
        if not line.strip() or line.startswith("#"):
            continue
        name, tab, other = line.partition("\t")
        if not tab or name in table:
            raise UserError(f"line {place} of {path} must be a new synthetic identity, a tab, and an authentic one")
        if other not in by_name:
            raise UserError(f"line {place} of {path}: {other!r} is no identity of config.authentic")
        table[name] = by_name[other]
    found = {number: table[name] for number, name in names.items() if name in table}
    if not found:
        raise UserError(f"{path} names no identity of config.synthetic, such as {next(iter(names.values()))!r}")
    return Numbers(found, "config.identity_map")


def above(numbers: Iterable[int], free: int) -> dict[int, int]:
    """New numbers for identities, from `free` on, in the order of the old ones."""
    return {number: free + place for place, number in enumerate(sorted(numbers))}
