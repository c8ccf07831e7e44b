"""Tables of the page of a privacy audit: figures with what stands below them."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import Any

from sface_jax.report import words
from sface_jax.report.tried import Part, one_in, part

UNSUPPORTED = "\N{NO-BREAK SPACE}*"
"""Marks a figure behind which fewer than 30 events stand."""

PRIMARY = "chosen beforehand"
CALIBRATED = "calibrated score"


@dataclasses.dataclass(frozen=True)
class Cell:
    """A figure with what stands below it in smaller letters."""

    value: str
    notes: Sequence[str] = ()


@dataclasses.dataclass(frozen=True)
class Table:
    """A table of the page: its caption, the heads of its columns, and rows whose first cell names them."""

    title: str
    head: Sequence[str]
    rows: Sequence[tuple[str | Cell, Sequence[Cell]]]

    @property
    def unsupported(self) -> bool:
        """Whether a figure is marked for want of events."""
        return any(UNSUPPORTED in cell.value for _, cells in self.rows for cell in cells)


def judged(
    title: str, rows: Sequence[tuple[str | Cell, Part]], last: tuple[str, Callable[[Part], Cell]] | None = None
) -> Table:
    """A table of attacks: AUC, p-value and TPR at each FPR, as far as any of them has these, and one more column."""
    rates = sorted({rate for _, values in rows for rate in part(values, "tpr_at_fpr")}, key=float, reverse=True)
    columns = [("AUC, 95 % interval", _auc)]
    if any("p_adjusted" in values for _, values in rows):
        columns.append(("p, adjusted", lambda values: Cell(words.p_value(values.get("p_adjusted")))))
    columns += [(f"TPR at FPR {one_in(rate)}", functools.partial(_tpr, rate)) for rate in rates]
    columns += [last] if last else []
    made = [(name, [cell(values) for _, cell in columns]) for name, values in rows]
    return Table(title, ("attack", *(head for head, _ in columns)), made)


def _auc(values: Part) -> Cell:
    return Cell(words.decimal(values.get("auc")), some(words.interval(values.get("interval"), words.decimal)))


def _tpr(rate: str, values: Part) -> Cell:
    point = part(values, "operating", rate)
    shown = marked(words.percent(part(values, "tpr_at_fpr").get(rate)), point)
    return Cell(shown, some(words.interval(point.get("interval"), words.percent)))


def chosen(name: str, values: Part, primary: bool, unit: str) -> Cell:
    """What an attack goes by, whether it was chosen beforehand, and by which unit it judges."""
    told = values.get("text") or name.replace("_", " ")
    return Cell(told.replace("calibrated_picture", CALIBRATED), some(unit and f"by {unit}", primary and PRIMARY))


def share(values: Part, key: str) -> Cell:
    """A share with its interval and the count behind it."""
    notes = some(words.interval(values.get("interval"), words.percent))
    return Cell(words.percent(values.get(key)), [*notes, *([f"{values['found']} found"] if "found" in values else [])])


def marked(shown: str, values: Part) -> str:
    """A figure, marked where the audit says that too few events stand behind it."""
    return shown + (UNSUPPORTED if values.get("supported") is False or values.get("rule_of_30") is False else "")


def some(*notes: Any) -> list[str]:
    """The notes that say something."""
    return [note for note in notes if note]
