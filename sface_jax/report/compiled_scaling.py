"""The stage "compile_scaling": what each program sends between chips as their number grows, from compiled programs."""

from __future__ import annotations

from typing import Any

from absl import logging
from etils import epath
from ml_collections import ConfigDict

from sface_jax.core import files
from sface_jax.report import compiled
from sface_jax.report.compiled import figure

SLACK = 1.01
"""Growth beyond a ring's that is not told: sums of a few numbers, and what is rounded up to a multiple of the chips."""


def run(config: ConfigDict, workdir: epath.Path) -> dict[str, Any]:
    """Writes `compile/scaling.md` and `compile/scaling.json` from what the stages before wrote.

    Args:
        config: see configs/compile.py: `families`, name -> names of files in `compile/`, one for each slice.
        workdir: has the files.

    Raises:
        UserError: a file is missing.
    """
    told: dict[str, Any] = {}
    for family, names in config.families.items():
        rows = sorted(compiled.read(workdir, names).values(), key=lambda row: row["devices"])
        for program in rows[0]["programs"]:
            told[f"{family} {program}"] = _sent(rows, program)
    text = table(told)
    files.write_text(workdir / "compile" / "scaling.md", text)
    files.write_json(workdir / "compile" / "scaling.json", told)
    logging.info("%s", text)
    return told


def _sent(rows: list[dict[str, Any]], program: str) -> dict[str, Any]:
    """Bytes that a chip sends by the number of chips, all and by kind, and whether they grow."""
    fitting = [row for row in rows if row["programs"][program]["fits"]]
    wire = {1: 0.0} | {row["devices"]: row["programs"][program]["wire"] for row in fitting}  # one chip has no other
    kinds: dict[str, dict[int, float]] = {}
    for row in fitting:
        for kind, of in row["programs"][program]["kinds"].items():
            kinds.setdefault(kind, {})[row["devices"]] = of["wire"]
    batch = fitting[0]["batch_size"] // fitting[0]["devices"] if fitting else 0
    group = rows[0].get("model", 1)
    return {"batch_per_device": batch, "group": group, "bytes": wire, "kinds": kinds, "growth": growth(wire, group)}


def growth(wire: dict[int, float], group: int = 1) -> float | None:
    """How many times what a ring would make of it is sent on the most chips.

    Of n chips in a ring each sends (n-1)/n of what it would among very many. So the bytes that few chips send tell what
    is to be expected of the most: those of the second slice of several chips, if there is a third, since in the first
    a group of a fixed size may not be full. Where groups of g chips each have all classes, n/g of them make the ring.

    Args:
        wire: chips -> bytes that each of them sends.
        group: g.

    Returns:
        1 where nothing grows beyond the ring's constant, n for what grows with the chips; None where less than two
        slices tell.
    """
    several = sorted(chips for chips in wire if chips > group)
    if len(several) < 2:
        return None
    few, many = several[min(1, len(several) - 2)], several[-1]
    ring = {chips: wire[chips] * chips / (chips - group) for chips in (few, many)}
    return ring[many] / ring[few] if ring[few] else (1.0 if not ring[many] else float("inf"))


def table(told: dict[str, Any]) -> str:
    """MB that each chip sends in a run of each program, by the number of chips."""
    chips = sorted({count for row in told.values() for count in row["bytes"]})
    lines = []
    for name, row in told.items():
        grows = row["growth"]
        verdict = "-" if grows is None else "as a ring" if grows <= SLACK else f"grows x {grows:.2f}: {_growing(row)}"
        sent = (figure(row["bytes"][count] / 1e6) if count in row["bytes"] else "-" for count in chips)
        lines.append((name, row["batch_per_device"], *sent, verdict))
    return compiled.table(("program", "batch a chip", *(f"{count} chips" for count in chips), "growth"), lines)


def _growing(row: dict[str, Any]) -> str:
    """The kinds that grow."""
    found = {kind: growth(wire, row["group"]) for kind, wire in row["kinds"].items()}
    return ", ".join(kind for kind, grows in found.items() if grows is None or grows > SLACK)
