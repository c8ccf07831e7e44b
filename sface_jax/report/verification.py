"""The page of stage verify: every network on every benchmark, for those who want to see what a figure stands on."""

from __future__ import annotations

import base64
import dataclasses
import io
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from etils import epath
from markupsafe import Markup
from PIL import Image

from sface_jax.core import files
from sface_jax.report import page, plots, words

Documents = Mapping[str, Mapping[str, Any]]
Hardest = Mapping[tuple[str, str], Sequence[Mapping[str, Any]]]
Tables = Mapping[str, Sequence[Sequence[str]]]


@dataclasses.dataclass(frozen=True)
class Benchmark:
    """A benchmark's part of the page.

    Attributes:
        name: of the benchmark.
        counts: what it holds, as a sentence.
        keys: network -> the CSS colour of its lines, and whether that is another's already.
        roc: chart.
        det: chart.
        head: names of the columns of figures.
        rows: network and its figures.
        unsupported: whether a figure is marked for want of false matches.
        folds: network and (accuracy, threshold) of each fold.
        hardest: network and (what it is, pictures as data URIs), where pictures may be shown.
    """

    name: str
    counts: str
    keys: Mapping[str, tuple[str, bool]]
    roc: Markup
    det: Markup
    head: list[str]
    rows: list[tuple[str, list[str]]]
    unsupported: bool
    folds: list[tuple[str, list[tuple[float, float]]]]
    hardest: list[tuple[str, list[tuple[str, list[str]]]]]


def write_page(
    folder: epath.Path,
    documents: Documents,
    tables: Tables,
    hardest: Hardest,
    notes: Sequence[str] = (),
    log: bool = True,
) -> None:
    """Writes `index.html`: tables, ROC and DET, and the hardest pairs.

    Args:
        folder: where to write.
        documents: network -> what `verification/<network>.json` holds.
        tables: title -> rows of cells, the first of them the heads.
        hardest: (network, benchmark) -> pairs with "names" and "pictures" (uint8 [s, s, 3]), to be shown as they are.
        notes: what marks in the tables mean.
        log: logarithmic DET axes; else normal-deviate ones.
    """
    names = dict.fromkeys(name for document in documents.values() for name in document["benchmarks"])
    made = page.template("verification.html").render(
        documents=documents,
        title=f"{_number(len(documents), 'network')} on {_number(len(names), 'benchmark')}",
        tables=[{"title": title, "head": rows[0], "rows": rows[1:]} for title, rows in tables.items()],
        benchmarks=[_benchmark(number, name, documents, hardest, log) for number, name in enumerate(names)],
        notes=notes,
        protocols=_protocols(documents),
        preprocessing=_preprocessing,
        shows_pictures=bool(hardest),
    )
    files.write_text(folder / "index.html", made)


def _number(count: int, word: str) -> str:
    return f"{count} {word}{'s' if count != 1 else ''}"


def _protocols(documents: Documents) -> dict[str, str]:
    """What the words mean by which figures are named."""
    found: dict[str, str] = {}
    for document in documents.values():
        for result in document["benchmarks"].values():
            if "protocols" in result:
                found |= {f"templates: {name}": text for name, text in result["protocols"].items()}
            else:
                found |= document["protocols"]
    return found


def _benchmark(number: int, name: str, documents: Documents, hardest: Hardest, log: bool) -> Benchmark:
    results = {network: of["benchmarks"][name] for network, of in documents.items() if name in of["benchmarks"]}
    colours = {network: plots.stroke(i) for i, network in enumerate(documents)}
    roc = {network: (np.array(of["roc"]["fmr"]), np.array(of["roc"]["tmr"])) for network, of in results.items()}
    det = {network: (fmr, 1 - tmr) for network, (fmr, tmr) in roc.items()}
    alt = f"on {name} of {', '.join(results)}"
    figures = {network: _figures(of) for network, of in results.items()}
    head = ["network", *dict.fromkeys(key for row in figures.values() for key in row)]
    rows = [(network, [row.get(key, words.DASH) for key in head[1:]]) for network, row in figures.items()]
    return Benchmark(
        name,
        _counts(next(iter(results.values()))),
        keys={network: _key(colours[network]) for network in results},
        roc=plots.roc(f"roc{number}", roc, colours, f"ROC {alt}"),
        det=plots.det(f"det{number}", det, colours, f"DET {alt}", log=log),
        head=head,
        rows=rows,
        unsupported=any("*" in cell for _, cells in rows for cell in cells),
        folds=[
            (network, list(zip(of["per_fold"], of["thresholds"], strict=True)))
            for network, of in results.items()
            if "per_fold" in of
        ],
        hardest=[(network, _pairs(hardest[network, name])) for network in results if (network, name) in hardest],
    )


def _key(stroke: str) -> tuple[str, bool]:
    role, again = stroke.split()
    return f"var(--{role})", again != "0"


def _figures(result: Mapping[str, Any]) -> dict[str, str]:
    """Column -> figure of one network on one benchmark."""
    exact, intervals = result["exact"], result.get("interval_95", {})
    found = {}
    if "accuracy" in result:
        found["accuracy, InsightFace's"] = f"{words.percent(result['accuracy'], 2)} ± {100 * result['std']:.2f}"
        found["95 % interval"] = words.interval(intervals.get("accuracy"), lambda end: words.percent(end, 2))
        found["accuracy, exact"] = words.percent(exact["accuracy"], 2)
    found["EER"] = words.percent(exact["eer"], 2)
    for rate, point in exact["tmr_at_fmr"].items():
        if float(rate) < 0.1:  # what is above nobody works with
            mark = "" if point["supported"] else "\N{NO-BREAK SPACE}*"
            found[f"TMR at FMR {_whole(rate)}"] = f"{words.percent(point['tmr'])}{mark}"
    searches = result.get("identification", {}).get("mean", {})
    if searches:
        found["1:N, rank 1"] = words.percent(searches["rank_1"])
        for rate, point in (searches["open_set"] or {}).items():
            found[f"1:N, FNIR at FPIR {_whole(rate)}"] = words.percent(point["fnir_any_rank"])
    return found


def _whole(rate: str) -> str:
    """A rate such as 1e-3 that no line breaks."""
    return rate.replace("-", "\N{NON-BREAKING HYPHEN}")


def _counts(facts: Mapping[str, Any]) -> str:
    told = f"{facts['pairs']:,} pairs, {facts['mated']:,} of them mated; {facts['pictures']:,} pictures"
    if "templates" in facts:
        told += f" in {facts['templates']:,} templates"
    intervals = facts.get("interval_95", {})
    if "subjects" in intervals:
        where = " (as far as mated pairs tell)" if intervals["subjects_from"] != "names" else ""
        told += f" of {intervals['subjects']:,} subjects{where}"
    if "folds" in facts:
        dealt = ", dealt anew" if facts.get("order") == "dealt anew" else ""
        told += f"; {facts['folds']} folds{dealt}"
    if facts.get("left_out"):
        told += f"; {facts['left_out']} pairs that fill no round of folds are left out"
    return f"{told}. SHA-256 of its file: {facts['file_sha256'][:16]}…"


def _preprocessing(document: Mapping[str, Any]) -> str:
    of = document.get("preprocessing")
    if of is None:
        return "none: a baseline"
    mean, std = (", ".join(f"{value:.3g}" for value in of[key]) for key in ("mean", "std"))
    return f"{of['size']} pixels, {of['channel_order'].upper()}, (x / 255 - ({mean})) / ({std})"


def _pairs(pairs: Sequence[Mapping[str, Any]]) -> list[tuple[str, list[str]]]:
    shown = []
    for pair in pairs:
        kind = "one person" if pair["mated"] else "two people"
        told = f"{kind}, distance {pair['distance']:.2f}: {' and '.join(pair['names'])}"
        shown.append((told, [_uri(picture) for picture in pair["pictures"]]))
    return shown


def _uri(picture: np.ndarray) -> str:
    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, format="JPEG", quality=90)
    return f"data:image/jpeg;base64,{base64.b64encode(buffer.getvalue()).decode()}"
