"""The stage "compile_paper": whether the programs of the paper fit, and what all of it costs."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

from absl import logging
from etils import epath
from ml_collections import ConfigDict

from sface_jax.core import files
from sface_jax.report import compiled
from sface_jax.report.compiled import GIB, figure

Rows = dict[str, dict[str, Any]]

HOUR = 3600.0


class Part(NamedTuple):
    """A part of the paper.

    Attributes:
        name: what it is.
        chips: that work on it.
        batch: over all of them; 0 where it has no sense.
        runs: of its program.
        least: seconds of one run at the roofline; None where it does not fit.
        estimated: seconds as XLA expects them, where it tells.
    """

    name: str
    chips: int
    batch: int
    runs: float
    least: float | None
    estimated: float | None


def run(config: ConfigDict, workdir: epath.Path) -> dict[str, Any]:
    """Writes `compile/paper.md` and `compile/paper.json` from what the stages before wrote.

    Args:
        config: see configs/compile.py: `rows`, names of files in `compile/`; `recipes`, name -> {"gan", "synthesis",
            "recognition", "embedding", "matching": name of a file}; `efficiency`, `kimg`, `epochs`, `synthetic`,
            `authentic`, `matchers`, `intervals` of the GAN's phases.
        workdir: has the files.

    Raises:
        UserError: a file is missing.
    """
    rows = compiled.read(workdir, config.rows)
    recipes = {name: parts(config, rows, dict(own)) for name, own in config.recipes.items()}
    text = "\n".join([programs(rows), *(recipe(name, own, config.efficiency) for name, own in recipes.items())])
    files.write_text(workdir / "compile" / "paper.md", text)
    told = {name: [part._asdict() for part in own] for name, own in recipes.items()}
    files.write_json(workdir / "compile" / "paper.json", told)
    logging.info("%s", text)
    return {name: total(own) for name, own in recipes.items()}


def programs(rows: Rows) -> str:
    """The table of the programs: whether they fit, and what they cost a chip."""
    columns = ("program", "slice", "batch a chip", "fits", "memory GiB", "of it arguments", "temporaries")
    columns += ("GFLOP", "GB moved", "MB sent", "least ms", "XLA expects ms", "short of")
    lines = []
    for told in rows.values():
        for name, row in told["programs"].items():
            batch = told["batch_size"] // told["devices"]
            first = (f"{_what(told)} {name}".strip(), told["topology"], f"{batch}")
            if not row["fits"]:
                needs = f"NO: needs {figure(row.get('needs_gib'))} of {figure(row.get('has_gib'))} GiB"
                lines.append((*first, needs, *["-"] * 8, row["change"]))
                continue
            seconds = row.get("seconds", {})
            memory = (row[key] / GIB for key in ("memory", "arguments", "temporaries"))
            work = (row["flops"] / 1e9, row["traffic"] / 1e9, row["wire"] / 1e6)
            times = (seconds[key] * 1e3 if key in seconds else None for key in ("least", "estimated"))
            figures = map(figure, (*memory, *work, *times))
            lines.append((*first, "yes", *figures, row.get("bound", "-")))
    return compiled.table(columns, lines)


def parts(config: ConfigDict, rows: Rows, names: dict[str, str]) -> list[Part]:
    """The parts of the paper by the files that tell of their programs."""
    gan, recognition = rows[names["gan"]], rows[names["recognition"]]
    found = [_gan(config, gan)]
    found.append(_part("synthesis", rows[names["synthesis"]], "draw", config.synthetic, chips=recognition["devices"]))
    pictures = {"teacher": config.authentic} | dict.fromkeys(
        ("classification", "distillation", "combined"), config.synthetic
    )
    for strategy, count in pictures.items():
        program = "classification" if strategy == "teacher" else strategy
        found.append(_part(strategy, recognition, program, config.epochs * count))
    both = config.matchers * (config.synthetic + config.authentic)
    found.append(_part("audit: embedding", rows[names["embedding"]], "embed", both))
    matching = rows[names["matching"]]
    sets = ((config.synthetic, config.authentic), (config.synthetic,) * 2, (config.authentic,) * 2)
    runs = config.matchers * sum(
        math.ceil(n / matching["batch_size"]) * math.ceil(m / matching["tile"]) for n, m in sets
    )
    found.append(_part("audit: matching", matching, "compare", 0)._replace(runs=runs))
    return found


def recipe(name: str, own: list[Part], efficiency: float) -> str:
    """The table of one recipe: hours and chip-hours of each part and of all."""
    columns = ("part", "chips", "batch", "runs", "least ms", "XLA expects ms", "hours, least", "hours, XLA")
    columns += (f"hours at {efficiency:g}", "chip-hours, least", "chip-hours, XLA", f"chip-hours at {efficiency:g}")
    lines = []
    for part in own:
        hours = [None if each is None else part.runs * each / HOUR for each in (part.least, part.estimated)]
        hours.append(None if hours[0] is None else hours[0] / efficiency)
        first = (part.name, part.chips, f"{part.batch:,}" if part.batch else "-", f"{math.ceil(part.runs):,}")
        once = [None if each is None else 1e3 * each for each in (part.least, part.estimated)]
        paid = [None if each is None else part.chips * each for each in hours]
        lines.append((*first, *map(figure, (*once, *hours, *paid))))
    whole = total(own)
    hours = [whole["hours_least"], whole["hours_estimated"], _divided(whole["hours_least"], efficiency)]
    paid = [whole["chip_hours_least"], whole["chip_hours_estimated"], _divided(whole["chip_hours_least"], efficiency)]
    lines.append(("all", "-", "-", "-", "-", "-", *map(figure, (*hours, *paid))))
    return f"### {name}\n\n{compiled.table(columns, lines)}"


def total(own: list[Part]) -> dict[str, float | None]:
    """Hours and chip-hours of all parts; None where one does not fit or has no estimate."""
    told: dict[str, float | None] = {}
    for key in ("least", "estimated"):
        each = [getattr(part, key) for part in own]
        known = None not in each
        seconds = [part.runs * one for part, one in zip(own, each, strict=True)] if known else []
        told[f"hours_{key}"] = sum(seconds) / HOUR if known else None
        paid = (part.chips * one for part, one in zip(own, seconds, strict=bool(known)))
        told[f"chip_hours_{key}"] = sum(paid) / HOUR if known else None
    return told


def _gan(config: ConfigDict, told: dict[str, Any]) -> Part:
    """A step of the GAN: each phase as often as it is due."""
    times: dict[str, float | None] = {}
    for key in ("least", "estimated"):
        each = [_seconds(told["programs"][phase], key) for phase in config.intervals]
        shares = config.intervals.values()
        times[key] = None if None in each else sum(one / every for one, every in zip(each, shares, strict=True))
    steps = 1000 * config.kimg / told["batch_size"]
    return Part(f"GAN, {told['image_size']} pixels", told["devices"], told["batch_size"], steps, **times)


def _part(name: str, told: dict[str, Any], program: str, pictures: int | float, chips: int = 0) -> Part:
    """A program that takes batch after batch; on `chips` where several machines run it side by side."""
    row, chips = told["programs"][program], chips or told["devices"]
    batch = told["batch_size"] * chips // told["devices"]
    return Part(name, chips, batch, pictures / batch, _seconds(row, "least"), _seconds(row, "estimated"))


def _seconds(row: dict[str, Any], key: str) -> float | None:
    return row["seconds"].get(key) if row["fits"] and "seconds" in row else None


def _divided(value: float | None, by: float) -> float | None:
    return None if value is None else value / by


def _what(told: dict[str, Any]) -> str:
    """What is compiled, in short."""
    if "network" in told:
        classes = f", {told['classes']:,} classes," if "classes" in told else ""
        return f"{told['network']}{classes}"
    if "queries" in told:
        return "audit"
    return f"{'synthesis' if 'strategy' in told else 'GAN'} {told['image_size']}"
