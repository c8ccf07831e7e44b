"""Stage study: what several runs of one pipeline measured, as figures, tables and answers, with intervals over runs."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from absl import logging
from etils import epath
from markupsafe import Markup
from ml_collections import ConfigDict

from sface_jax.core import files, mesh
from sface_jax.core.errors import UserError
from sface_jax.report import leakage, page, plots, study_chart, words
from sface_jax.report.repeated import Contrast, Estimate, Figure, answered, contrast, estimate


class Measure(NamedTuple):
    """What is measured: its name, how it is written, its value by chance, and whether values compare by their ratio."""

    label: str
    shown: Callable[[object], str]
    chance: float | None = None
    ratio: bool = False


MEASURES = {
    "accuracy": Measure("verification accuracy", words.percent, 0.5),
    "match_rate": Measure("match rate at FMR 0.1 %", words.percent, 1e-3, ratio=True),
    "label_rank1": Measure("labels recovered at rank 1", words.percent, ratio=True),
    "eer": Measure("equal error rate", words.percent),
    "membership": Measure("membership AUC of identities", words.decimal, 0.5),
    "released": Measure("membership AUC of identities, by a recogniser", words.decimal, 0.5),
}
AUDITS = {  # where an audit keeps a measure: of the whole, or of what follows "#" in the name of the audit
    "match_rate": {
        "": ("match_rates", leakage.CROSS, "1e-3", "rate"),
        "different": ("match_rates", f"{leakage.CROSS}_different", "1e-3", "rate"),
        "authentic": ("match_rates", "authentic_authentic", "1e-3", "rate"),
    },
    "label_rank1": {
        "": ("linkage", "single", "rank1", "rate"),
        "10": ("linkage", "pooled", "10", "mean", "rank1", "rate"),
        "all": ("linkage", "pooled", "all", "mean", "rank1", "rate"),
    },
    "eer": {
        "": ("relations", leakage.CROSS, "eer"),
        "authentic": ("relations", "authentic_authentic", "eer"),
        "synthetic": ("relations", "synthetic_synthetic", "eer"),
    },
    "membership": {"": ("membership", "identity", "auc")},
    "released": {},  # a network's
}


@dataclasses.dataclass(frozen=True)
class Chart:
    """A figure of the study, with the table and the answers that belong to it.

    Attributes:
        name: of its file.
        title: a question.
        caption: what it shows.
        measure: one of `MEASURES`; "" where it shows scores.
        columns: heads of the table.
        rows: label and an estimate a column; None where there is none.
        answers: to closer questions.
        missing: networks and audits that no run has measured.
        drawing: SVG, "" where nothing was measured.
    """

    name: str
    title: str
    caption: str
    measure: str
    columns: Sequence[str]
    rows: Sequence[tuple[str, Sequence[Estimate | None]]]
    answers: Sequence[Contrast]
    missing: Sequence[str]
    drawing: Markup

    def texts(self, made: Estimate | None) -> tuple[str, str]:
        """An estimate and its interval as text: "84.1 %", "82.0 – 86.2 %"."""
        if made is None:
            return "", ""
        shown = MEASURES[self.measure].shown
        return shown(made.mean), words.interval([made.low, made.high], shown)


def run(config: ConfigDict, workdir: epath.Path) -> dict[str, Any]:
    """Gathers what runs measured and writes `{output}/{study.json, study.md, index.html, <figure>.svg}`.

    Args:
        config: `runs`, work directories of one pipeline with different seeds, or `results`, a `study.json` in their
            place; `benchmark`, a key of the files in `verification/`; `charts`, see configs/study.py; `title`;
            `output`.
        workdir: not used; the config names all paths.

    Returns:
        The runs that were found, and what none of them has measured.

    Raises:
        UserError: none of the runs has measured anything.
    """
    del workdir
    found = files.read_json(epath.Path(config.results)) if config.results else gather(config)
    made = [draw(asked, found) for asked in config.charts]
    charts = [chart for chart in made if chart.drawing]
    if not charts:
        raise UserError(f"nothing is measured in {', '.join(config.runs)}: a config's first command makes such runs")
    if missing := sorted({name for chart in made for name in chart.missing}):
        logging.warning("not measured, and left out: %s", ", ".join(missing))
    for answer in (answer for chart in charts for answer in chart.answers):
        logging.info("%s: %s, %s", answer.question, answer.answer, in_words(answer)[0])
    if mesh.is_lead():
        folder = epath.Path(config.output)
        files.write_json(folder / "study.json", found)
        files.write_text(folder / "study.md", markdown(charts))
        for chart in charts:
            files.write_text(folder / f"{chart.name}.svg", plots.standalone(chart.drawing))
        files.write_text(folder / "index.html", render(config.title, found, charts))
    return {"runs": [about["folder"] for about in found["runs"]], "missing": missing, "page": "study/index.html"}


def gather(config: ConfigDict) -> dict[str, Any]:
    """Reads the runs' JSON files.

    Returns:
        What `study.json` holds: `benchmark`; `runs`, each with folder, seed and seconds of its stages; `measured`, see
        `repeated.Measured`; `scores`, the histograms of the audits whose scores a chart shows, of the first run.
    """
    runs = [folder for folder in map(epath.Path, config.runs) if (folder / "stages.json").exists()]
    wanted: dict[str, set[str]] = {measure: set() for measure in MEASURES}
    for chart in config.charts:
        if "scores" not in chart:
            wanted[chart["measure"]] |= _names(chart)
    measured = {
        "accuracy": {
            name: [
                _accuracy(_json(folder / "verification" / f"{name}.json"), config.benchmark, len(runs) == 1)
                for folder in runs
            ]
            for name in sorted(wanted.pop("accuracy"))
        }
    }
    read = functools.cache(_json)  # an audit has several measures
    for measure, names in wanted.items():
        measured[measure] = {
            name: [_audited(read(folder / _folder(name) / "audit.json"), measure, name) for folder in runs]
            for name in sorted(names)
        }
    shown = [chart["scores"] for chart in config.charts if "scores" in chart]
    scores = {name: _scores(read(runs[0] / name / "audit.json")) for name in shown if runs}
    about = [_about(folder) for folder in runs]
    return {"benchmark": config.benchmark, "runs": about, "measured": measured, "scores": scores}


def _names(chart: Mapping[str, Any]) -> set[str]:
    """The networks or audits that a chart shows or asks about."""
    points = [point for _, line in chart.get("lines", ()) for point in line]
    asked = [name for _, more, less in chart.get("questions", ()) for name in (*more, *less)]
    return {name for _, name in (*points, *chart.get("levels", ()), *chart.get("bars", ()))} | set(asked)


def _json(path: epath.Path) -> dict[str, Any]:
    return files.read_json(path) if path.exists() else {}


def _about(folder: epath.Path) -> dict[str, Any]:
    configs, stages = _json(folder / "config.json"), _json(folder / "stages.json")
    seeds = {config["seed"] for config in configs.values() if "seed" in config}
    return {
        "folder": folder.name,
        "seed": seeds.pop() if len(seeds) == 1 else None,
        "seconds": {key: stage["wall_seconds"] for key, stage in stages.items() if stage["state"] == "finished"},
    }


def _figure(value: object, interval: object) -> Figure | None:
    if not words.finite(value):
        return None
    known = isinstance(interval, list) and len(interval) == 2 and all(map(words.finite, interval))
    low, high = (round(end, 6) for end in interval) if known else (None, None)
    return {"value": round(value, 6), "low": low, "high": high}


def _accuracy(verified: Mapping[str, Any], benchmark: str, replicates: bool) -> Figure | None:
    result = verified.get("benchmarks", {}).get(benchmark, {})
    figure = _figure(result.get("accuracy"), result.get("interval_95", {}).get("accuracy"))
    kept = {
        "per_fold": [round(share, 6) for share in result.get("per_fold", ())],
        "replicates": result.get("accuracy_replicates", []) if replicates else [],
    }
    return figure and figure | {name: values for name, values in kept.items() if values}


def _folder(name: str) -> str:
    """The folder of "folder@matcher#part"."""
    return name.partition("#")[0].partition("@")[0]


def _audited(audit: Mapping[str, Any], measure: str, name: str) -> Figure | None:
    """A figure of "folder@matcher#part": by the first matcher, or another one; of the whole, or of a part."""
    whole, _, part = name.partition("#")
    matcher = whole.partition("@")[2]
    *path, value = AUDITS[measure].get(part) or ("released", "networks", part, "auc")
    found = audit.get("other_matchers", {}).get(matcher, {}) if matcher else audit
    for key in path:
        found = found.get(key) or {}
    figure = _figure(found.get(value), found.get("interval", found.get(f"{value}_interval")))
    return {**figure, "hits": found["accepted"]} if figure and "accepted" in found else figure


def _scores(audit: Mapping[str, Any]) -> dict[str, Any]:
    """What of an audit its chart of scores needs."""
    sets = audit.get("score_sets", {})
    kept = {name: {"histogram": sets[name]["histogram"]} for name in leakage.RELATIONS if name in sets}
    return {"score_sets": kept, "match_rates": audit.get("match_rates", {})} if kept else {}


def draw(asked: Mapping[str, Any], found: Mapping[str, Any]) -> Chart:
    """Makes a chart of the config from what was found."""
    about = (asked["name"], asked["title"], asked["caption"])
    if "scores" in asked:
        shown = leakage.leakage(found["scores"].get(asked["scores"]) or {})
        drawing = shown.scores if shown else None
        return Chart(*about, "", (), (), (), () if drawing else (asked["scores"],), drawing or Markup(""))
    measure = asked["measure"]
    label, shown, chance, ratio = MEASURES[measure]
    by_name, missing = found["measured"].get(measure, {}), []

    def at(name: str) -> Estimate | None:
        made = estimate(by_name.get(name, ()), ratio)
        if made is None:
            missing.append(name)
        return made

    if bars := asked.get("bars"):
        heads = [label]
        rows = [(bar, [at(name)]) for bar, name in bars]
        known = [(bar, made) for bar, (made,) in rows if made]
        drawing = study_chart.dots(about[0], known, about[1], xlabel=label, shown=shown) if known else Markup("")
    else:
        columns = tuple(dict.fromkeys(x for _, line in asked["lines"] for x, _ in line))
        lines = [(kind, {x: at(name) for x, name in line}) for kind, line in asked["lines"]]
        levels = [(level, at(name)) for level, name in asked.get("levels", ())]
        rows = [(kind, [line.get(x) for x in columns] + [None] * bool(levels)) for kind, line in lines]
        rows += [(level, [None] * len(columns) + [made]) for level, made in levels]
        heads = [f"{column:,}" for column in columns] + ["any"] * bool(levels)
        look = {"xlabel": asked["x"], "ylabel": label, "shown": shown, "chance": chance}
        known = [(kind, {x: made for x, made in line.items() if made}) for kind, line in lines]
        known_levels = [(level, made) for level, made in levels if made]
        some = any(line for _, line in known)
        drawing = study_chart.lines(about[0], known, known_levels, about[1], **look) if some else Markup("")
    answers = [contrast(*question, measure, found["measured"], ratio) for question in asked.get("questions", ())]
    return Chart(
        *about,
        measure,
        heads,
        [(row, made) for row, made in rows if any(made)],
        answered([answer for answer in answers if answer]),
        missing,
        drawing,
    )


def in_words(answer: Contrast) -> tuple[str, str, str]:
    """The difference, its interval, and what would have been found: "+3.10 points", "+1.00 to +5.20", "2.40 points"."""
    difference = answer.difference
    if answer.ratio:
        unit, shown = " times", lambda value: f"{value:.3g}"
    elif MEASURES[answer.measure].shown is words.percent:
        unit, shown = " points", lambda value: f"{100 * value:+.2f}"
    else:
        unit, shown = "", lambda value: f"{value:+.3f}"
    ends = "" if difference.low is None else f"{shown(difference.low)} to {shown(difference.high)}"
    found = "" if answer.detectable is None else f"{shown(answer.detectable).removeprefix('+')}{unit}"
    return f"{shown(difference.mean)}{unit}", ends, found


def markdown(charts: Sequence[Chart]) -> str:
    """The tables as Markdown, to be pasted."""
    parts = []
    for chart in charts:
        if not chart.rows:
            continue
        parts.append(f"**{chart.title}** {chart.caption}")
        head = ("", *chart.columns) if len(chart.columns) == 1 else (MEASURES[chart.measure].label, *chart.columns)
        cells = [(label, *(_with(*chart.texts(one)) for one in made)) for label, made in chart.rows]
        parts.append(_table(head, cells))
        if chart.answers:
            told = [(answer, in_words(answer)) for answer in chart.answers]
            head = ("question", "difference (95 % interval)", "answer", "would be found")
            parts.append(_table(head, [(a.question, _with(*in_[:2]), a.answer, in_[2]) for a, in_ in told]))
    return "\n\n".join(parts).replace(words.UNIT, " %") + "\n"


def _with(value: str, ends: str) -> str:
    return f"{value} ({ends})" if ends else value


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |".replace("| ---", "|---").replace("--- |", "---|") for line in lines)


def render(title: str, found: Mapping[str, Any], charts: Sequence[Chart]) -> str:
    """The page: self-contained HTML that reads without scripts."""
    return page.template("study.html").render(
        title=title,
        benchmark=words.BENCHMARKS.get(found["benchmark"], found["benchmark"]),
        runs=[(about, sum(about["seconds"].values())) for about in found["runs"]],
        charts=[(chart, [(answer, in_words(answer)) for answer in chart.answers]) for chart in charts],
        measures=MEASURES,
    )
