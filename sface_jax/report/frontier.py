"""Stage frontier: accuracy against leakage of many synthetic datasets, as a page, as JSON and as a table."""

from __future__ import annotations

import csv
import dataclasses
import io
from collections.abc import Mapping, Sequence
from typing import Any

from absl import logging
from etils import epath
from ml_collections import ConfigDict

from sface_jax.core import files, mesh
from sface_jax.core.errors import UserError
from sface_jax.report import frontier_chart, page, words
from sface_jax.report.frontier_chart import Figure

MEASURES = {
    "match_rate": "match rate of same-label pairs",
    "membership": "membership AUC of identities",
    "released": "membership AUC by the network itself",
}

SHOWN = {
    "accuracy": words.percent,
    "match_rate": words.percent,
    "membership": words.decimal,
    "released": words.decimal,
}


@dataclasses.dataclass(frozen=True)
class Point:
    """One setting.

    Attributes:
        setting: as the config has it.
        pictures: of the synthetic set.
        accuracy: of the network that it trained.
        leakage: those of `MEASURES` that were measured.
        level: the audit's verdict.
    """

    setting: str
    pictures: int | None
    accuracy: Figure
    leakage: Mapping[str, Figure]
    level: str

    def leaks(self, measure: str) -> float:
        """How much, for comparison: an AUC below one half is chance, no less leakage than one half."""
        value = self.leakage[measure].value
        return value if measure == "match_rate" else max(value, 0.5)


def run(config: ConfigDict, workdir: epath.Path) -> dict[str, Any]:
    """Gathers what the settings' stages left and writes `workdir/frontier/{index.html, frontier.json, frontier.csv}`.

    Keys of the config: `points` (settings; those of one are in `workdir/points/<name>/privacy/audit.json` and
    `workdir/verification/<name>.json`, see configs/frontier.py), `benchmark` and `fmr` ("1e-3"), at whose frozen
    threshold the match rate is taken.

    Returns:
        The settings on each front, and those that were not measured.

    Raises:
        UserError: no setting has been measured.
    """
    workdir = epath.Path(workdir)
    points, missing = gather(workdir, config.points, config.benchmark, config.fmr)
    if not points:
        raise UserError(f"no setting has been measured in {workdir}: run configs/frontier.py with this --workdir")
    for setting in missing:
        logging.warning("setting %s has no accuracy or no audit: it is left out", setting)
    fronts = {measure: front(points, measure) for measure in MEASURES if any(measure in p.leakage for p in points)}
    told = {measure: sentences(points, measure) for measure in fronts}
    facts = {"benchmark": config.benchmark, "fmr": config.fmr}
    if mesh.is_lead():
        folder = workdir / "frontier"
        files.write_json(folder / "frontier.json", facts | document(points, fronts, told, missing))
        files.write_text(folder / "frontier.csv", table(points, fronts))
        files.write_text(folder / "index.html", render(points, fronts, told, missing, facts))
    for lines in told.values():
        for line in lines:
            logging.info("%s", line)
    return {"fronts": fronts, "missing": missing, "page": "frontier/index.html"}


def name_of(setting: str) -> str:
    """The name of a setting's folder and network, as configs/frontier.py gives it."""
    return setting.replace(" ", "").replace(",", "__").replace("=", "_").replace(".", "p")


def gather(workdir: epath.Path, settings: Sequence[str], benchmark: str, fmr: str) -> tuple[list[Point], list[str]]:
    """Reads the settings' JSON files.

    Returns:
        The points, and the settings that lack their accuracy or any leakage.
    """
    points, missing = [], []
    for setting in settings:
        name = name_of(setting)
        verified, audit = (
            files.read_json(path) if path.exists() else {}
            for path in (
                workdir / "verification" / f"{name}.json",
                workdir / "points" / name / "privacy" / "audit.json",
            )
        )
        result = verified.get("benchmarks", {}).get(benchmark, {})
        accuracy = _figure(result.get("accuracy"), result.get("interval_95", {}).get("accuracy"))
        leakage = _leakage(audit, name, fmr)
        if accuracy is None or not leakage:
            missing.append(setting)
            continue
        pictures = audit.get("sets", {}).get("synthetic", {}).get("pictures")
        points.append(Point(setting, pictures, accuracy, leakage, audit.get("verdict", {}).get("level", "")))
    return points, missing


def _leakage(audit: Mapping[str, Any], name: str, fmr: str) -> dict[str, Figure]:
    rate = audit.get("match_rates", {}).get("authentic_synthetic", {}).get(fmr, {})
    identity = (audit.get("membership") or {}).get("identity", {})
    network = (audit.get("released") or {}).get("networks", {}).get(name, {})
    found = {
        "match_rate": _figure(rate.get("rate"), rate.get("interval")),
        "membership": _figure(identity.get("auc"), identity.get("interval")),
        "released": _figure(network.get("auc"), network.get("interval")),
    }
    return {measure: figure for measure, figure in found.items() if figure is not None}


def _figure(value: object, interval: object) -> Figure | None:
    if not words.finite(value):
        return None
    known = isinstance(interval, list) and len(interval) == 2 and all(map(words.finite, interval))
    low, high = map(float, interval) if known else (None, None)
    return Figure(float(value), low, high)


def front(points: Sequence[Point], measure: str) -> list[str]:
    """The settings that no other one beats: none leaks as little or less and is as accurate or more, one of them truly.

    They come from the least leakage (and accuracy) to the most (Pareto front).
    """
    among = [point for point in points if measure in point.leakage]

    def beats(one: Point, other: Point) -> bool:
        leak, against = one.leaks(measure), other.leaks(measure)
        better = one.accuracy.value > other.accuracy.value or leak < against
        return better and one.accuracy.value >= other.accuracy.value and leak <= against

    kept = [point for point in among if not any(beats(other, point) for other in among)]
    kept.sort(key=lambda point: (point.leaks(measure), point.accuracy.value))
    return [point.setting for point in kept]


def sentences(points: Sequence[Point], measure: str) -> list[str]:
    """The trade-off by one measure of leakage in plain words."""
    among = [point for point in points if measure in point.leakage]
    of = {point.setting: point for point in among}
    best = [of[setting] for setting in front(points, measure)]
    top, least = best[-1], best[0]
    told = [f"By {MEASURES[measure]}: {len(best)} of {len(among)} settings are beaten by none."]
    told.append(f"Most accurate: {_both(top, measure)}.")
    # as accurate as the best, as far as these figures can tell; of them, the one that leaks least
    enough = next(point for point in best if (point.accuracy.high or point.accuracy.value) >= top.accuracy.value)
    if enough is not top:
        high, low = enough.leakage[measure].high, top.leakage[measure].low
        sure = high is not None and low is not None and high < low
        doubt = "" if sure else "; the intervals of the two leakages overlap, so this may be luck"
        told.append(f"Least leakage at an accuracy not told from the best: {_both(enough, measure)}{doubt}.")
    if least is not top and least is not enough:
        told.append(f"Least leakage of all: {_both(least, measure)}.")
    return told


def _both(point: Point, measure: str) -> str:
    leak = point.leakage[measure]
    shown = SHOWN[measure]
    ends = words.interval([leak.low, leak.high], shown)
    accuracy = words.percent(point.accuracy.value)
    return f"{point.setting} with {accuracy} accuracy and {shown(leak.value)}{f' ({ends})' if ends else ''} leakage"


def document(
    points: Sequence[Point],
    fronts: Mapping[str, list[str]],
    told: Mapping[str, list[str]],
    missing: Sequence[str],
) -> dict[str, Any]:
    """What `frontier.json` holds beside the benchmark and the FMR."""
    return {
        "points": [{"name": name_of(point.setting)} | dataclasses.asdict(point) for point in points],
        "fronts": dict(fronts),
        "sentences": dict(told),
        "missing": list(missing),
    }


def table(points: Sequence[Point], fronts: Mapping[str, list[str]]) -> str:
    """The points as CSV, a figure and its interval in three columns; empty where there is none."""
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    columns = [(measure, end) for measure in ("accuracy", *fronts) for end in ("", "_low", "_high")]
    writer.writerow(["setting", "pictures", *(f"{a}{b}" for a, b in columns), *(f"front_{m}" for m in fronts), "level"])
    for point in points:
        figures = {"accuracy": point.accuracy, **point.leakage}
        cells = [getattr(figures.get(measure), end.removeprefix("_") or "value", None) for measure, end in columns]
        on = [int(point.setting in settings) for settings in fronts.values()]
        writer.writerow([point.setting, point.pictures, *cells, *on, point.level])
    return buffer.getvalue()


def render(
    points: Sequence[Point],
    fronts: Mapping[str, list[str]],
    told: Mapping[str, list[str]],
    missing: Sequence[str],
    facts: Mapping[str, str],
) -> str:
    """The page: self-contained HTML that reads without scripts."""
    numbers = {point.setting: number for number, point in enumerate(points, 1)}
    charts = {
        measure: frontier_chart.draw(
            measure,
            [
                (numbers[p.setting], p.leakage[measure], p.accuracy, p.setting in settings)
                for p in points
                if measure in p.leakage
            ],
            f"accuracy against {MEASURES[measure]}: {' '.join(told[measure])}",
            xlabel=MEASURES[measure] + (f" at FMR {facts['fmr']}" if measure == "match_rate" else ""),
            chance=float(facts["fmr"]) if measure == "match_rate" else 0.5,
            log=measure == "match_rate",
        )
        for measure, settings in fronts.items()
    }
    return page.template("frontier.html").render(
        title=f"Accuracy against leakage: {len(points)} settings",
        points=points,
        numbers=numbers,
        fronts=fronts,
        charts=charts,
        told=told,
        missing=missing,
        measures=MEASURES,
        facts=facts,
        shown=SHOWN,
    )
