"""How private the synthetic faces are: what the report says about the audit."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
from markupsafe import Markup

from sface_jax.report import paper, plots, tried, words

CROSS = "authentic_synthetic"
# relation -> (label, its mated pairs, its non-mated pairs, role of its colour)
RELATIONS = {
    "authentic_authentic": ("authentic – authentic", "same identity", "different", "authentic"),
    "synthetic_synthetic": ("synthetic – synthetic", "same label", "different", "synthetic"),
    CROSS: ("authentic – synthetic", "same label", "different", "cross"),
}
RATES = {name: (label, colour) for name, (label, _, _, colour) in RELATIONS.items()} | {
    f"{CROSS}_different": ("authentic – synthetic, different labels", "other"),
}
METRICS = {
    "eer": ("EER, equal error rate", "EER", words.percent),
    "fmr100": ("FMR100, FMR1000", "FMR100", words.percent),
    "fmr1000": ("FMR100, FMR1000", "FMR1000", words.percent),
    "fdr": ("FDR, Fisher discriminant ratio", "FDR", lambda value: words.decimal(value, 2)),
    "auc": ("AUC", "AUC", words.decimal),
    "d_sys": ("D_sys", "D_sys", lambda value: words.decimal(value, 2)),
}
HEADLINE_FMR = 1e-3
TONES = {
    "linkable": "warn",
    "weakly linkable": "warn",
    "not detected by these attacks at this power": "good",
    "could not be tested": "plain",
}
FEW_MATED = 200
"""With fewer mated scores two histograms overlap little by chance, so that D_sys is high whatever they are."""


@dataclasses.dataclass(frozen=True)
class MatchRate:
    """Share of pairs that match at a threshold frozen at `fmr` on authentic strangers; nan where not measured."""

    fmr: float
    threshold: float
    rate: float
    low: float
    high: float
    ratio: float


@dataclasses.dataclass(frozen=True)
class Leakage:
    """The audit as the page shows it.

    Attributes:
        matcher: the recogniser that compared the pictures.
        verdict: `level`, `summary`, `findings` and `caveats`, as far as the audit gives them.
        tone: how the verdict is coloured, "warn", "good" or "plain".
        headline: match rate of same-label authentic/synthetic pairs, at the FMR nearest to 1 in 1000.
        rates: (label, colour, FMR -> match rate) of each kind of pairs.
        fmrs: the FMRs of the frozen thresholds.
        relations: labels of the relations measured.
        metrics: (term, label, [(value, notes)]) of each metric, one couple a relation; notes: interval, null, paper.
        membership: (level, values) of the membership attack.
        controls: what the audit's own checks and its power say, in sentences.
        others: (matcher, its verdict in a sentence) of the further matchers.
        page: address of the audit's own page; "" where there is none.
        mated_pairs: number of same-label authentic/synthetic pairs.
        scores, members, det, rate_chart: charts.
    """

    matcher: str
    verdict: dict[str, Any]
    tone: str
    headline: MatchRate | None
    rates: list[tuple[str, str, dict[float, MatchRate]]]
    fmrs: list[float]
    relations: list[str]
    metrics: list[tuple[str, str, list[tuple[str, list[str]]]]]
    membership: list[tuple[str, dict[str, Any]]]
    controls: list[str]
    others: list[tuple[str, str]]
    page: str
    mated_pairs: int | None
    scores: Markup | None
    members: Markup | None
    det: Markup | None
    rate_chart: Markup | None


def leakage(audit: dict[str, Any], page: str = "") -> Leakage | None:
    """Turns `privacy/audit.json` into what the page shows; None if there was no audit.

    Args:
        audit: what the file holds.
        page: where the audit's own page lies, seen from the one that shows this; "" where there is none.
    """
    if not audit:
        return None
    relations = {name: audit["relations"][name] for name in RELATIONS if name in audit.get("relations", {})}
    sets = audit.get("score_sets") or {}
    rates = _rates(audit.get("match_rates") or {})
    cross = next((by_fmr for label, _, by_fmr in rates if label == RELATIONS[CROSS][0]), {})
    headline = min(cross.values(), key=lambda rate: abs(np.log(rate.fmr / HEADLINE_FMR)), default=None)
    verdict, membership = audit.get("verdict") or {}, audit.get("membership") or {}
    return Leakage(
        matcher=audit.get("matcher", ""),
        verdict=verdict,
        tone=TONES.get(verdict.get("level"), "plain"),
        headline=headline,
        rates=rates,
        fmrs=sorted({fmr for _, _, by_fmr in rates for fmr in by_fmr}, reverse=True),
        relations=[RELATIONS[name][0] for name in relations],
        metrics=_metrics(relations),
        membership=[(level, membership[level]) for level in ("identity", "picture") if level in membership],
        controls=tried.strength(audit),
        others=[(name, other["verdict"]["summary"]) for name, other in (audit.get("other_matchers") or {}).items()],
        page=page,
        mated_pairs=(sets.get(CROSS) or {}).get("count", {}).get("mated"),
        scores=_score_figure(sets, headline),
        members=_member_figure(sets),
        det=_det(relations),
        rate_chart=_rate_chart(rates),
    )


def _number(values: dict[str, Any], key: str) -> float:
    return values[key] if words.finite(values.get(key)) else np.nan


def _rates(match_rates: dict[str, dict[str, Any]]) -> list[tuple[str, str, dict[float, MatchRate]]]:
    rows = []
    for name, by_fmr in match_rates.items():
        label, colour = RATES.get(name, (name.replace("_", " "), "other"))
        row = {}
        for nominal, values in by_fmr.items():
            rate, fmr = _number(values, "rate"), float(nominal)
            if np.isfinite(rate):
                low, high = (end if words.finite(end) else np.nan for end in values.get("interval") or (None, None))
                ratio = _number(values, "ratio_to_chance")
                row[fmr] = MatchRate(fmr, _number(values, "threshold"), rate, low, high, ratio)
        if row:
            rows.append((label, colour, row))
    order = [label for label, _ in RATES.values()]
    return sorted(rows, key=lambda row: order.index(row[0]) if row[0] in order else len(order))


def _metrics(relations: dict[str, dict[str, Any]]) -> list[tuple[str, str, list[tuple[str, list[str]]]]]:
    rows = []
    for key, (term, label, shown) in METRICS.items():
        cells = []
        for name, values in relations.items():
            notes = [words.interval(values.get(f"{key}_interval"), shown)]
            published = paper.RELATIONS.get(name, {}).get(key)
            null = values.get(f"{key}_null")
            if null:
                notes.append(f"shuffled {shown(null.get('mean'))}")
            if published is not None:
                notes.append(f"paper {shown(published)}")
            value = shown(values.get(key))
            if key == "d_sys" and too_few(values):
                value, notes = words.DASH, ["too few mated comparisons"]
            cells.append((value, [note for note in notes if note]))
        rows.append((term, label, cells))
    return rows


def too_few(values: dict[str, Any]) -> bool:
    """Whether a relation has too few mated comparisons for D_sys."""
    return words.finite(values.get("mated")) and values["mated"] < FEW_MATED


def _panel(title: str, values: dict[str, Any], wanted: dict[str, tuple[str, str]]) -> plots.Panel | None:
    """A panel of those series of a score set that are there; `wanted`: series -> (label, role of its colour)."""
    histogram = values.get("histogram") or {}
    samples = [
        (label, np.array(histogram[series], np.float64), colour)
        for series, (label, colour) in wanted.items()
        if series in histogram
    ]
    return plots.Panel(title, np.array(histogram["edges"], np.float64), samples) if samples else None


def _score_figure(sets: dict[str, dict[str, Any]], headline: MatchRate | None) -> Markup | None:
    drawn = [
        _panel(label, sets.get(name) or {}, {"non_mated": (non_mated, "other"), "mated": (mated, colour)})
        for name, (label, mated, non_mated, colour) in RELATIONS.items()
    ]
    panels = [panel for panel in drawn if panel]
    if not panels:
        return None
    alt = "Densities of comparison scores, mated against non-mated: " + "; ".join(panel.title for panel in panels)
    threshold = headline.threshold if headline and np.isfinite(headline.threshold) else None
    note = f"a match at FMR {words.one_in(headline.fmr)} →" if headline else ""
    return plots.scores("scores", panels, alt, threshold, note)


def _member_figure(sets: dict[str, dict[str, Any]]) -> Markup | None:
    wanted = {"heldout": ("held-out", "other"), "members": ("members", "cross")}
    panel = _panel("nearest synthetic picture", sets.get("nearest_synthetic") or {}, wanted)
    if panel is None or len(panel.samples) < 2:
        return None
    alt = "Scores with the nearest synthetic picture, members against held-out identities"
    return plots.scores("members", [panel], alt)


def _det(relations: dict[str, dict[str, Any]]) -> Markup | None:
    curves, colours = {}, {}
    for name, values in relations.items():
        curve = values.get("det") or {}
        if curve.get("fmr"):
            label, _, _, colour = RELATIONS[name]
            curves[label] = np.array(curve["fmr"], np.float64), np.array(curve["fnmr"], np.float64)
            colours[label] = colour
    return plots.det("det", curves, colours, f"DET curves of {', '.join(curves)}") if curves else None


def _rate_chart(rates: list[tuple[str, str, dict[float, MatchRate]]]) -> Markup | None:
    series = {}
    for label, colour, by_fmr in rates:
        short = label.rpartition(", ")[2]
        series[short] = [(fmr, plots.Bar(short, r.rate, r.low, r.high, colour)) for fmr, r in by_fmr.items()]
    if not series:
        return None
    alt = f"Match rates at frozen thresholds of {', '.join(series)}, against chance"
    return plots.match_rates("rates", series, alt)
