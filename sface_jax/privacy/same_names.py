"""Identities of two sets that have the same name, written alike or in another way."""

from __future__ import annotations

import collections
import re
import unicodedata
from collections.abc import Callable, Sequence

EQUAL, NORMALISED = "equal", "normalised"


def pairs(first: Sequence[str], second: Sequence[str]) -> dict[tuple[int, int], str]:
    """The identities that have one name in both sets.

    Names are compared as they are; those left over as `plain` writes them; those still left over without a number at
    their end. A form that stands for several identities of a set says nothing.

    Args:
        first: the names of one set, each once.
        second: the names of the other, each once.

    Returns:
        (position in the first set, position in the second) -> `EQUAL` or `NORMALISED`.
    """
    left, right = dict(enumerate(first)), dict(enumerate(second))
    found: dict[tuple[int, int], str] = {}
    for form, kind in ((str, EQUAL), (plain, NORMALISED), (unnumbered, NORMALISED)):
        here, there = _by_form(left, form), _by_form(right, form)
        for shared in here.keys() & there.keys():
            found[here[shared], there[shared]] = kind
            del left[here[shared]], right[there[shared]]
    return dict(sorted(found.items()))


def plain(name: str) -> str:
    """Lower case, without accents, words apart by one space: "José_Maria-Aznar" is "jose maria aznar"."""
    bare = "".join(c for c in unicodedata.normalize("NFKD", name.casefold()) if not unicodedata.combining(c))
    return " ".join(re.findall(r"[^\W_]+", bare))


def unnumbered(name: str) -> str:
    """The plain name without a number at its end, where two words remain: those of "face_00012" would be no name."""
    bare = re.sub(r"[\d ]+$", "", plain(name))
    return bare if " " in bare else ""


def is_number(name: str) -> bool:
    """Whether a name has no letter: two sets may well number different people alike."""
    return not any(c.isalpha() for c in name)


def _by_form(names: dict[int, str], form: Callable[[str], str]) -> dict[str, int]:
    """form -> the only position that has it."""
    formed = {position: form(name) for position, name in names.items()}
    counts = collections.Counter(formed.values())
    return {shape: position for position, shape in formed.items() if shape and counts[shape] == 1}
