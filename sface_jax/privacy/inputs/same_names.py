"""Identities of two sets that have the same name, written alike or in another way."""

from __future__ import annotations

import collections
import functools
import re
import unicodedata
from collections.abc import Callable, Container, Sequence

EQUAL, NORMALISED = "equal", "normalised"
PATTERN = 0.1  # share of a set's names that are of one pattern where they are no names of people


def pairs(first: Sequence[str], second: Sequence[str]) -> dict[tuple[int, int], str]:
    """The identities that have one name in both sets.

    Names are compared as they are; those left over as `plain` writes them; those still left over with their words in
    any order; and then, but for `placeholders`, without a number at their end. A form that stands for several
    identities of a set says nothing.

    Args:
        first: the names of one set, each once.
        second: the names of the other, each once.

    Returns:
        (position in the first set, position in the second) -> `EQUAL` or `NORMALISED`.
    """
    spared = placeholders(first) | placeholders(second)
    left, right = dict(enumerate(first)), dict(enumerate(second))
    found: dict[tuple[int, int], str] = {}
    unnumbered = functools.partial(_unnumbered, spared=spared)
    for form, kind in ((str, EQUAL), (plain, NORMALISED), (_sorted, NORMALISED), (unnumbered, NORMALISED)):
        here, there = _by_form(left, form), _by_form(right, form)
        for shared in here.keys() & there.keys():
            found[here[shared], there[shared]] = kind
            del left[here[shared]], right[there[shared]]
    return dict(sorted(found.items()))


def placeholders(names: Sequence[str]) -> set[str]:
    """Those names of a set that number its identities: another set may well number other people alike.

    They are the names without a letter, and those of one pattern, such as "id7", "n000123" or "face_00012": names that
    differ in their numbers only, where a tenth of the set or more are so, and three names or all.
    """
    patterns = {name: _pattern(name) for name in names}
    counts = collections.Counter(filter(None, patterns.values()))
    enough = max(PATTERN * len(names), min(3, len(names)))
    return {name for name, pattern in patterns.items() if counts[pattern] >= enough or not any(map(str.isalpha, name))}


def plain(name: str) -> str:
    """Lower case, without accents, words apart by one space: "José_Maria-Aznar" is "jose maria aznar"."""
    bare = "".join(c for c in unicodedata.normalize("NFKD", name.casefold()) if not unicodedata.combining(c))
    return " ".join(re.findall(r"[^\W_]+", bare))


def _sorted(name: str) -> str:
    """The plain name with its words in order: "Lee_Ann" and "Ann_Lee" are "ann lee"."""
    return " ".join(sorted(plain(name).split()))


def _unnumbered(name: str, spared: Container[str]) -> str:
    """The plain name without a number at its end, where two words remain: "face" of "face_00012" would be no name."""
    bare = "" if name in spared else re.sub(r"[\d ]+$", "", plain(name))
    return bare if " " in bare else ""


def _pattern(name: str) -> str:
    """The plain name with 0 for each number; empty where it has none."""
    pattern = re.sub(r"\d+", "0", plain(name))
    return pattern if "0" in pattern else ""


def _by_form(names: dict[int, str], form: Callable[[str], str]) -> dict[str, int]:
    """form -> the only position that has it."""
    formed = {position: form(name) for position, name in names.items()}
    counts = collections.Counter(formed.values())
    return {shape: position for position, shape in formed.items() if shape and counts[shape] == 1}
