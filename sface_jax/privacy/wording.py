"""Figures as the audit writes them into sentences."""

from __future__ import annotations

from collections.abc import Sequence


def percent(share: float) -> str:
    """A share in percent, with three digits."""
    return f"{100 * share:.3g} %"


def number(count: float | int) -> str:
    """A count, or an expected one: whole from ten on, else with two digits."""
    return f"{count:,.0f}" if count >= 10 or count == int(count) else f"{count:.2g}"


def times(ratio: float) -> str:
    """A ratio: whole from ten on, else with two digits."""
    return f"{ratio:,.0f} times" if ratio >= 10 else f"{ratio:.2g} times"


def all_of(names: Sequence[str]) -> str:
    """Names in a row: "a, b and c"."""
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"
