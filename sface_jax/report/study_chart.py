"""The charts of stage study: means over runs with their intervals, and each run as a fainter mark."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import matplotlib as mpl
import numpy as np
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter, NullLocator

from sface_jax.report import plots
from sface_jax.report.repeated import Estimate

ROLES = ("synthetic", "distillation", "combined", "authentic")
NEAR = 0.15
LEVELS = ("-", "--", ":", "-.")
KINDS = {"classification": "synthetic", "different": "other", "pixels": "other"} | {
    kind: kind for kind in ("authentic", "distillation", "combined")
}


def lines(
    name: str,
    series: Sequence[tuple[str, Mapping[int, Estimate]]],
    levels: Sequence[tuple[str, Estimate]],
    alt: str,
    *,
    xlabel: str,
    ylabel: str,
    shown: Callable[[float], str],
    chance: float | None,
) -> Markup:
    """Draws a measure over a setting, one line a kind of network, on a logarithmic axis of settings.

    Args:
        name: of the drawing on its page.
        series: (label, setting -> estimate).
        levels: (label, estimate) of what the setting does not touch, drawn as horizontal lines.
        alt: for those who do not see it.
        xlabel: what the setting is.
        ylabel: what is measured.
        shown: writes a value.
        chance: the value by chance, a line where values come near. A rate below a half is drawn logarithmically.
    """
    log = chance is not None and chance < 0.5
    floor = chance / 10 if log else -np.inf  # where a rate of 0 is drawn
    with mpl.rc_context(plots.STYLE):
        figure, (axes,) = plots._figure(3.3)
        places = sorted({x for _, points in series for x in points})
        for number, (label, points) in enumerate(series):
            colour = _role(label, number)
            x = sorted(points)
            style = {"linestyle": plots.DASHES.get(colour, "-"), "marker": plots.MARKERS[colour], "markersize": 5}
            axes.plot(x, [max(points[at].mean, floor) for at in x], color=plots.STAND_IN[colour], label=label, **style)
            for at in x:
                aside = at * 1.03 ** (number - (len(series) - 1) / 2)  # so that the intervals do not hide one another
                _mark(axes, aside, points[at], plots.STAND_IN[colour], floor)
        for number, (label, made) in enumerate(levels):
            colour = plots.STAND_IN[KINDS.get(label.rpartition(" ")[2], "authentic")]
            axes.axhline(made.mean, color=colour, linewidth=1.3, linestyle=LEVELS[number % len(LEVELS)], label=label)
        if log or chance and min(points[at].mean for _, points in series for at in points) < chance + NEAR:
            axes.axhline(
                chance,
                color=plots.STAND_IN["other"],
                linewidth=1.2,
                linestyle=":",
                label="FMR of authentic pairs" if log else "chance",
            )
        if log:
            axes.set_yscale("log")
            axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
            axes.yaxis.set_minor_formatter(NullFormatter())
        axes.set_xscale("log")
        axes.xaxis.set_minor_locator(NullLocator())
        axes.set_xticks(places, [f"{place:,}" for place in places])
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: _tick(value, shown)))
        axes.set_xlabel(xlabel)
        axes.set_ylabel(ylabel)
        plots._below(axes)
        return plots._svg(figure, name, alt)


def dots(
    name: str, rows: Sequence[tuple[str, Estimate]], alt: str, *, xlabel: str, shown: Callable[[float], str]
) -> Markup:
    """Draws one measure of several settings, a row each; the first is what the others are held against."""
    with mpl.rc_context(plots.STYLE):
        figure, (axes,) = plots._figure(0.8 + 0.34 * len(rows))
        for place, (_, made) in enumerate(rows):
            colour = plots.STAND_IN["synthetic" if place else "authentic"]
            if made.low is not None:
                axes.plot([made.low, made.high], [place, place], color=colour, linewidth=3, alpha=0.35)
            axes.plot(made.values, [place] * len(made.values), color=colour, marker="|", linestyle="", markersize=7)
            axes.plot([made.mean], [place], color=colour, marker="o" if not place else "s", markersize=5.5)
        axes.axvline(rows[0][1].mean, color=plots.STAND_IN["authentic"], linewidth=1.2, linestyle=":")
        axes.set_yticks(range(len(rows)), [label for label, _ in rows])
        axes.tick_params(axis="y", length=0, labelcolor=plots.STAND_IN["ink"])
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: _tick(value, shown)))
        axes.set_xlabel(xlabel)
        axes.grid(axis="y", visible=False)
        axes.invert_yaxis()
        return plots._svg(figure, name, alt)


def _mark(axes: Axes, at: float, made: Estimate, colour: str, floor: float) -> None:
    """The interval of an estimate, and the runs behind it."""
    if made.low is not None:
        ends = np.maximum([made.low, made.high], floor)
        axes.plot([at, at], ends, color=colour, linewidth=3, alpha=0.3)
    if len(made.values) > 1:
        values = np.maximum(made.values, floor)
        axes.plot(np.full(len(values), at), values, color=colour, marker="_", linestyle="", alpha=0.7)


def _role(label: str, number: int) -> str:
    """The colour of a line: its own where the report has one for that kind of network."""
    kind = label.partition(" ")[0]
    return KINDS.get(kind, ROLES[number % len(ROLES)])


def _tick(value: float, shown: Callable[[float], str]) -> str:
    text = shown(value)
    number, unit = text[:-2], text[-2:]
    return f"{float(number):g}{unit}" if unit.endswith("%") else f"{value:g}"
