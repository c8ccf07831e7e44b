"""What the stages "compile_..." wrote, and tables of it in Markdown."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from etils import epath

from sface_jax.core import files
from sface_jax.core.errors import UserError

GIB = 2**30


def read(workdir: epath.Path, names: Iterable[str]) -> dict[str, dict[str, Any]]:
    """Reads `compile/<name>.json` of each name; see `ahead.tell`.

    Raises:
        UserError: one is not there.
    """
    found = {}
    for name in names:
        path = epath.Path(workdir) / "compile" / f"{name}.json"
        if not path.exists():
            raise UserError(f"{path} is missing: run configs/compile.py in this --workdir from its first stage on")
        found[name] = files.read_json(path)
    return found


def table(columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    """A table in Markdown; figures stand on the right."""
    cells = [[str(cell) for cell in row] for row in rows]
    widths = [max(len(line[i]) for line in [list(columns), *cells]) for i in range(len(columns))]
    right = [
        bool(cells) and all(row[i][:1].isdigit() or row[i] in ("", "-") for row in cells) for i in range(len(columns))
    ]

    def line(row: Sequence[str]) -> str:
        padded = [cell.rjust(w) if r else cell.ljust(w) for cell, w, r in zip(row, widths, right, strict=True)]
        return f"| {' | '.join(padded)} |"

    rule = [("-" * (w - 1) + ":") if r else "-" * w for w, r in zip(widths, right, strict=True)]
    return "\n".join([line(columns), line(rule), *map(line, cells)]) + "\n"


def figure(value: float | None, digits: int = 3) -> str:
    """A number with some digits, or a dash."""
    if value is None:
        return "-"
    return f"{value:,.0f}" if value >= 10 ** (digits - 1) else f"{value:.{digits}g}"
