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
        how: by what they were told, in a word or two.
    """

    numbers: dict[int, int]
    how: str


def match(names: Mapping[int, str], known: Mapping[int, str]) -> Numbers:
    """Finds identities of one set in another by the first of these that finds any.

    Equal names; the numbers that the names are, where all names are numbers; the place among the known identities,
    where only the names of the set are. One way serves for all: mixed, two identities might become one.

    Args:
        names: number -> name of the identities of the set.
        known: number -> name of those of the other, its numbers in their order.
    """
    by_name = {name: number for number, name in known.items()}
    found = {number: by_name[name] for number, name in names.items() if name in by_name}
    if found or not all(name.isdecimal() for name in names.values()):
        return Numbers(found, "name")
    if all(name.isdecimal() for name in known.values()):
        by_value = {int(name): number for number, name in known.items()}
        told = "number"
    else:
        by_value = dict(enumerate(sorted(known)))
        told = "their place in the order of the authentic ones"
    if len({int(name) for name in names.values()}) < len(names):
        return Numbers({}, told)
    return Numbers({n: by_value[int(name)] for n, name in names.items() if int(name) in by_value}, told)


def by_table(path: str, names: Mapping[int, str], known: Mapping[int, str]) -> Numbers:
    """Finds identities of one set in another by a table: a line each, name in the set, tab, name in the other.

    Args:
        path: the table; lines that begin with "#" and empty ones are passed over.
        names: number -> name of the identities of the set. Those that the table does not have are not in the other.
        known: number -> name of those of the other.

    Raises:
        UserError: there is no such file, a line is no such line, names an identity twice, or one that the other set
            does not have; or no line names an identity of the set.
    """
    if not epath.Path(path).is_file():
        raise UserError(f"there is no file {path}: config.identity_map names a table of identities")
    by_name = {name: number for number, name in known.items()}
    table: dict[str, int] = {}
    for place, line in enumerate(epath.Path(path).read_text().splitlines(), 1):
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
