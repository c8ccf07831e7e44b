"""The charts of the report: matplotlib drawings as small inline SVG whose colours follow the page's theme."""

from __future__ import annotations

import dataclasses
import io
import re
from collections.abc import Mapping, Sequence
from html import escape
from statistics import NormalDist
from typing import Any

import matplotlib as mpl
import numpy as np
from jaxtyping import Float
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter

Curve = tuple[Float[np.ndarray, " n"], Float[np.ndarray, " n"]]
Thinned = tuple[Float[np.ndarray, " m"], Float[np.ndarray, " m"]]

# matplotlib draws with these stand-ins; the SVG then refers to CSS variables of the page (fallback: the light theme).
# Hues are told apart under the common colour-blindnesses, and every series also has its own dash or marker.
COLOURS = {
    "ink": ("#010101", "#22262e"),
    "muted": ("#020202", "#5b6472"),
    "grid": ("#030303", "#dfe3e8"),
    "panel": ("#040404", "#ffffff"),
    "authentic": ("#050505", "#0b5fa5"),
    "synthetic": ("#060606", "#b4510b"),
    "distillation": ("#070707", "#0b7a5e"),
    "combined": ("#080808", "#93308a"),
    "cross": ("#090909", "#93308a"),
    "other": ("#0a0a0a", "#6b7280"),
}
DARK = {  # of the same roles where the reader's system is dark; style.css has them, too
    "ink": "#e8eaee",
    "muted": "#a4adba",
    "grid": "#333a45",
    "panel": "#1c2027",
    "authentic": "#6cb6f5",
    "synthetic": "#f2a154",
    "distillation": "#4fc9a4",
    "combined": "#e08ad6",
    "cross": "#e08ad6",
    "other": "#9aa3b2",
}
STAND_IN = {name: stand_in for name, (stand_in, _) in COLOURS.items()}
DASHES = {"synthetic": (0, (6, 2)), "distillation": (0, (1, 1)), "combined": (0, (6, 2, 1, 2))}  # others: solid
STROKES = ("authentic", "synthetic", "distillation", "combined", "other")
MARKERS = {"authentic": "o", "synthetic": "s", "distillation": "^", "combined": "D", "cross": "D", "other": "o"}

_SHORT = 22  # characters of labels of which two stand side by side in a legend
WIDTH = 4.3  # inches; small enough that the labels stay readable when a phone scales the drawing to its width
STYLE = {
    "svg.fonttype": "none",
    "font.size": 9,
    "axes.titlesize": 9.5,
    "axes.titlelocation": "left",
    "axes.titleweight": "bold",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": STAND_IN["muted"],
    "axes.labelcolor": STAND_IN["muted"],
    "axes.titlecolor": STAND_IN["ink"],
    "axes.linewidth": 0.8,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": STAND_IN["grid"],
    "grid.linewidth": 0.8,
    "text.color": STAND_IN["ink"],
    "xtick.color": STAND_IN["muted"],
    "ytick.color": STAND_IN["muted"],
    "xtick.labelsize": 8.5,
    "ytick.labelsize": 8.5,
    "lines.linewidth": 1.8,
    "legend.frameon": False,
    "legend.fontsize": 8.5,
    "text.parse_math": False,
    "path.simplify": True,
    "path.simplify_threshold": 0.5,
}


@dataclasses.dataclass(frozen=True)
class Bar:
    """A value with its spread: `low` and `high` are the ends of the whisker, in the value's own unit."""

    label: str
    value: float
    low: float
    high: float
    colour: str


@dataclasses.dataclass(frozen=True)
class Panel:
    """One row of the score figure: named histograms over common `edges`, each (label, counts [bins], colour)."""

    title: str
    edges: Float[np.ndarray, " bins_plus_1"]
    samples: Sequence[tuple[str, Float[np.ndarray, " bins"], str]]


def _svg(figure: Figure, name: str, alt: str) -> Markup:
    """Serialises a figure: equal data give equal bytes, ids are unique on the page, and CSS rules the colours."""
    buffer = io.StringIO()
    with mpl.rc_context({**STYLE, "svg.hashsalt": name}):
        figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    svg = buffer.getvalue()
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>\s*", "", svg, flags=re.S)
    svg = re.sub(r'(<g) id="[^"]*"', r"\1", svg)
    svg = re.sub(r'id="([^"]*)"', rf'id="{name}-\1"', svg)
    svg = re.sub(r"(href=\"|url\()#", rf"\1#{name}-", svg)
    svg = re.sub(r"(font(?:-size)?): ([\d.]+)px[^;\"]*", r"font-size: \2px", svg)
    svg = re.sub(r"; font-family: [^;\"]*", "", svg)
    svg = re.sub(r"<!--.*?-->\s*", "", svg, flags=re.S)
    svg = re.sub(r"<[^>]+>", lambda tag: re.sub(r"-?\d+\.\d{3,}", _rounded, tag[0]), svg)
    for role, (stand_in, light) in COLOURS.items():
        svg = svg.replace(stand_in, f"var(--{role}, {light})")
    return Markup(svg.replace("<svg ", f'<svg role="img" aria-label="{escape(alt)}" ', 1))


def standalone(svg: Markup) -> str:
    """A drawing as a file of its own, with a ground, in light and dark as the reader's system is."""
    light = " ".join(f"--{role}: {colour};" for role, (_, colour) in COLOURS.items())
    dark = " ".join(f"--{role}: {colour};" for role, colour in DARK.items())
    style = (
        f"<style>svg {{ {light} background: var(--panel); font-family: sans-serif; }} "
        f"@media (prefers-color-scheme: dark) {{ svg {{ {dark} }} }}</style>"
    )
    return str(svg).replace(">", f">\n{style}", 1).rstrip() + "\n"


def _rounded(number: re.Match[str]) -> str:
    return f"{float(number[0]):.2f}".rstrip("0").rstrip(".")


def _figure(height: float, rows: int = 1) -> tuple[Figure, np.ndarray]:
    figure = Figure(figsize=(WIDTH, height), layout="constrained")
    return figure, figure.subplots(rows, 1, sharex=True, squeeze=False)[:, 0]


def _below(axes: Axes) -> None:
    handles, labels = axes.get_legend_handles_labels()
    columns = 2 if max(map(len, labels), default=0) <= _SHORT else 1
    rows = -(-len(labels) // columns)
    axes.figure.set_figheight(axes.figure.get_figheight() + 0.19 * max(rows - 2, 0))
    axes.figure.legend(handles, labels, loc="outside lower left", ncols=columns, handlelength=2.4)


def _label(name: str) -> str:
    """A name as a legend takes it: those that begin with an underscore it would leave out."""
    return f"\N{ZERO WIDTH SPACE}{name}" if name.startswith("_") else name


def accuracy(name: str, bars: Sequence[Bar], alt: str, chance: float = 0.5) -> Markup:
    """Draws accuracies in [0, 1] as bars that start at chance level, with whiskers of one standard deviation."""
    with mpl.rc_context(STYLE):
        figure, (axes,) = _figure(0.75 + 0.36 * len(bars))
        for place, bar in enumerate(bars):
            axes.barh(place, bar.value - chance, left=chance, height=0.62, color=STAND_IN[bar.colour])
            axes.plot([bar.low, bar.high], [place, place], color=STAND_IN["ink"], linewidth=1.2)
            axes.text(max(bar.high, chance) + 0.008, place, f"{100 * bar.value:.1f} %", va="center", fontsize=9)
        axes.set_yticks(range(len(bars)), [bar.label for bar in bars])
        axes.tick_params(axis="y", length=0, labelcolor=STAND_IN["ink"])
        axes.set_xlim(min([chance, *(bar.low for bar in bars)]), 1.09)
        axes.set_xticks(np.arange(chance, 1.01, 0.1), [f"{100 * x:.0f}" for x in np.arange(chance, 1.01, 0.1)])
        axes.set_xlabel("accuracy in %; chance is 50")
        axes.grid(axis="y", visible=False)
        axes.invert_yaxis()
        return _svg(figure, name, alt)


def roc(
    name: str,
    curves: Mapping[str, Curve],
    colours: Mapping[str, str],
    alt: str,
    *,
    xlabel: str = "false match rate (different people accepted)",
    ylabel: str = "true match rate",
    log: bool = False,
) -> Markup:
    """Draws true match rate over false match rate (logarithmic), one curve a network.

    Args:
        name: of the drawing on its page.
        curves: label -> false match rates and true match rates, in the same order.
        colours: label -> see `stroke`.
        alt: for those who do not see it.
        xlabel: of the other kind of false rate that is drawn.
        ylabel: likewise.
        log: draw the true rates logarithmically, too: what an attack does where it is hardly ever wrong.
    """
    with mpl.rc_context(STYLE):
        figure, (axes,) = _figure(3.3)
        lowest, lowest_true = 0.1, 0.1
        for label, (fmr, tmr) in curves.items():
            kept = (fmr > 0) & ((tmr > 0) if log else True)
            if not kept.any():
                continue
            lowest, lowest_true = min(lowest, fmr[kept].min()), min(lowest_true, tmr[kept].min())
            axes.plot(fmr[kept], tmr[kept], label=_label(label), drawstyle="steps-post", **_stroke(colours[label]))
        floor = max(lowest, 1e-6)
        chance = np.geomspace(floor, 1, 60)
        axes.plot(chance, chance, color=STAND_IN["other"], linewidth=1.2, linestyle=":", label="chance")
        axes.set_xscale("log")
        axes.set_xlim(floor, 1)
        ticks, labels = _percent_ticks(10 ** np.ceil(np.log10(floor)))
        axes.set_xticks(ticks, labels)
        axes.xaxis.set_minor_formatter(NullFormatter())
        if log:
            bottom = max(min(floor, lowest_true), 1e-6)
            axes.set_yscale("log")
            axes.set_ylim(bottom, 1.2)
            axes.set_yticks(*_percent_ticks(10 ** np.ceil(np.log10(bottom))))
            axes.yaxis.set_minor_formatter(NullFormatter())
        else:
            axes.set_ylim(0, 1.01)
            axes.set_yticks(np.arange(0, 1.01, 0.2), [f"{x:.0f} %" for x in np.arange(0, 101, 20)])
        axes.set_xlabel(xlabel)
        axes.set_ylabel(ylabel)
        _below(axes)
        return _svg(figure, name, alt)


def curves(
    name: str,
    series: Mapping[str, Curve],
    colours: Mapping[str, str],
    alt: str,
    *,
    xlabel: str,
    ylabel: str,
    log: bool = False,
) -> Markup:
    """Draws values over training steps: the log thinly, its running mean boldly."""
    with mpl.rc_context(STYLE):
        figure, (axes,) = _figure(2.7)
        for label, (steps, values) in series.items():
            kept = np.isfinite(values) & ((values > 0) if log else True)
            steps, values = steps[kept], values[kept]
            if not len(steps):
                continue
            colour = STAND_IN[colours[label]]
            at, smooth = _smoothed(steps, values)
            if len(steps) > len(at):
                axes.plot(*_thinned(steps, values), color=colour, linewidth=0.7, alpha=0.3)
            marker = MARKERS[colours[label]] if len(steps) == 1 else None
            axes.plot(at, smooth, label=label, color=colour, linestyle=DASHES.get(colours[label], "-"), marker=marker)
        if log:
            axes.set_yscale("log")
            axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
            axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
            axes.yaxis.set_minor_formatter(NullFormatter())
        axes.xaxis.set_major_locator(MaxNLocator(7, integer=True))
        axes.set_xlabel(xlabel)
        axes.set_ylabel(ylabel)
        _below(axes)
        return _svg(figure, name, alt)


def scores(name: str, panels: Sequence[Panel], alt: str, threshold: float | None = None, note: str = "") -> Markup:
    """Draws score densities one panel above the other on a common axis, with the frozen threshold through all."""
    with mpl.rc_context({**STYLE, "axes.grid": False}):
        figure, all_axes = _figure(0.5 + 1.25 * len(panels), rows=len(panels))
        for axes, panel in zip(all_axes, panels, strict=True):
            widths = np.diff(panel.edges)
            for label, counts, colour in panel.samples:
                density = counts / max(counts.sum(), 1e-12) / widths
                line = axes.stairs(density, panel.edges, color=STAND_IN[colour], linewidth=1.5, label=label)
                axes.stairs(density, panel.edges, color=STAND_IN[colour], fill=True, alpha=0.22)
                line.set_linestyle("-" if colour != "other" else (0, (3, 1.5)))
            if threshold is not None:
                axes.axvline(threshold, color=STAND_IN["ink"], linewidth=1, linestyle=":")
            axes.set_title(panel.title)
            axes.set_yticks([])
            axes.spines["left"].set_visible(False)
            axes.set_ylim(bottom=0)
            # on the line of the title
            axes.legend(loc="lower right", bbox_to_anchor=(1.01, 0.96), ncols=2, handlelength=1.5, borderpad=0.2)
        if threshold is not None and note:
            axes = all_axes[0]
            axes.set_ylim(top=axes.get_ylim()[1] * 1.22)
            place = {"xycoords": ("data", "axes fraction"), "xytext": (-4, -2), "textcoords": "offset points"}
            axes.annotate(note, (threshold, 1), ha="right", va="top", fontsize=8, color=STAND_IN["muted"], **place)
        occupied = [(panel.edges, np.flatnonzero(counts)) for panel in panels for _, counts, _ in panel.samples]
        ends = [(edges[bins[0]], edges[bins[-1] + 1]) for edges, bins in occupied if len(bins)]
        if ends:
            low, high = np.min(ends), np.max(ends)
            all_axes[-1].set_xlim(low - 0.03 * (high - low), high + 0.03 * (high - low))
        all_axes[-1].set_xlabel("comparison score (cosine similarity; higher means more alike)")
        return _svg(figure, name, alt)


def det(
    name: str, relations: Mapping[str, Curve], colours: Mapping[str, str], alt: str, *, log: bool = False
) -> Markup:
    """Draws false non-match rate over false match rate.

    Args:
        name: of the drawing on its page.
        relations: label -> false match rates and false non-match rates.
        colours: label -> see `stroke`.
        alt: for those who do not see it.
        log: logarithmic axes; else normal-deviate ones, on which normal scores give straight lines.
    """
    inner = [rate for curve in relations.values() for rates in curve for rate in rates[(rates > 0) & (rates < 1)]]
    low, high = (max(min([*inner, 0.1]) / 1.5, 1e-7), 1.0) if log else (5e-4, 0.993)
    place = np.log10 if log else _probit
    with mpl.rc_context(STYLE):
        figure, (axes,) = _figure(4.3)
        for label, (fmr, fnmr) in relations.items():
            kept = (fmr > 0) & (fmr < 1) & (fnmr > 0) & (fnmr < 1)
            x, y = place(fmr[kept]), place(fnmr[kept])
            axes.plot(*_thinned(x, y), label=_label(label), **_stroke(colours[label]))
        diagonal = place(np.array([low, high]))
        axes.plot(diagonal, diagonal, color=STAND_IN["other"], linewidth=1, linestyle=":", label="equal errors")
        if log:
            ticks, labels = _percent_ticks(10 ** np.ceil(np.log10(low)))
        else:
            ticks = [0.001, 0.01, 0.05, 0.2, 0.5, 0.8, 0.95, 0.99]
            labels = [f"{100 * tick:g}" for tick in ticks]
        axes.set_xticks(place(np.array(ticks)), labels)
        axes.set_yticks(place(np.array(ticks)), labels)
        axes.set_xlim(*diagonal)
        axes.set_ylim(*diagonal)
        axes.set_aspect("equal")
        unit = "" if log else ", %"
        axes.set_xlabel(f"false match rate{unit}")
        axes.set_ylabel(f"false non-match rate{unit}")
        _below(axes)
        return _svg(figure, name, alt)


def match_rates(name: str, relations: Mapping[str, Sequence[tuple[float, Bar]]], alt: str) -> Markup:
    """Draws the share of matching pairs at thresholds frozen at given FMR, against the diagonal that chance gives.

    Args:
        relations: label -> (nominal FMR, the measured rate with its interval) for each threshold.
    """
    with mpl.rc_context(STYLE):
        figure, (axes,) = _figure(3.7)
        places = sorted({fmr for points in relations.values() for fmr, _ in points}, reverse=True)
        floor = min(places) / 10
        axes.plot(places, places, color=STAND_IN["other"], linewidth=1.2, linestyle=":", label="chance")
        for label, points in relations.items():
            points = sorted(points, key=lambda point: point[0])
            colour = points[0][1].colour
            x = np.array([fmr for fmr, _ in points])
            y = np.array([max(bar.value, floor) for _, bar in points])
            style = {"linestyle": DASHES.get(colour, "-"), "marker": MARKERS[colour], "markersize": 5}
            axes.plot(x, y, color=STAND_IN[colour], label=label, **style)
            for fmr, bar in points:
                if np.isfinite([bar.low, bar.high]).all():
                    ends = [max(bar.low, floor), max(bar.high, floor)]
                    axes.plot([fmr, fmr], ends, color=STAND_IN[colour], linewidth=3.5, alpha=0.35)
        axes.set_xscale("log")
        axes.set_yscale("log")
        axes.minorticks_off()
        axes.set_xticks(places, [f"1 in {round(1 / place):,}" for place in places])
        axes.set_yticks(*_percent_ticks(floor))
        axes.set_ylim(floor, 1.3)
        axes.set_xlim(min(places) / 1.6, max(places) * 1.6)
        axes.set_xlabel("false match rate the threshold was frozen at")
        axes.set_ylabel("pairs that match")
        _below(axes)
        return _svg(figure, name, alt)


def stroke(number: int) -> str:
    """A colour that `roc` and `det` draw apart from those of other numbers; with more than five, dashes tell them."""
    return f"{STROKES[number % len(STROKES)]} {number // len(STROKES)}"


def _stroke(colour: str) -> dict[str, Any]:
    """Colour and dash of a line: a role of `COLOURS`, or what `stroke` gives."""
    role, _, again = colour.partition(" ")
    dash = (0, (1 + int(again), 1, 5, 1)) if again not in ("", "0") else DASHES.get(role, "-")
    return {"color": STAND_IN[role], "linestyle": dash}


def _percent_ticks(floor: float) -> tuple[list[float], list[str]]:
    powers = range(round(np.log10(floor)), 1)
    return [10.0**power for power in powers], [f"{10.0 ** (power + 2):.{max(0, -2 - power)}f} %" for power in powers]


def _probit(rates: Float[np.ndarray, " n"]) -> Float[np.ndarray, " n"]:
    normal = NormalDist()
    return np.array([normal.inv_cdf(float(rate)) for rate in rates])


def _thinned(x: Float[np.ndarray, " n"], y: Float[np.ndarray, " n"], limit: int = 250) -> Thinned:
    """Keeps at most `limit` points, spread evenly along the drawn line rather than along the index."""
    if len(x) <= limit:
        return x, y
    spread = np.abs(np.diff(x)) / (np.ptp(x) or 1) + np.abs(np.diff(y)) / (np.ptp(y) or 1)
    length = np.concatenate([[0.0], np.cumsum(spread)])
    kept = np.unique(np.searchsorted(length, np.linspace(0, length[-1], limit)))
    return x[kept], y[kept]


def _smoothed(steps: Float[np.ndarray, " n"], values: Float[np.ndarray, " n"], points: int = 50) -> Thinned:
    """Means over at most `points` consecutive stretches of the log."""
    if len(steps) <= points:
        return steps, values
    parts = np.array_split(np.arange(len(steps)), points)
    return np.array([steps[part].mean() for part in parts]), np.array([values[part].mean() for part in parts])
