"""The chart of stage frontier: every setting with its intervals, and the front of those that none beats."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import matplotlib as mpl
import numpy as np
from markupsafe import Markup
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from sface_jax.report import plots


@dataclasses.dataclass(frozen=True)
class Figure:
    """A figure with the ends of its 95 % interval, None where that is unknown."""

    value: float
    low: float | None
    high: float | None


def draw(
    name: str,
    points: Sequence[tuple[int, Figure, Figure, bool]],
    alt: str,
    *,
    xlabel: str,
    chance: float,
    log: bool,
) -> Markup:
    """Draws accuracy over leakage.

    Args:
        name: of the drawing on its page.
        points: number, leakage, accuracy, and whether the point is on the front.
        alt: for those who do not see it.
        xlabel: what the leakage is.
        chance: the leakage of a set that gives nothing away, above 0.
        log: a logarithmic leakage axis.
    """
    floor = chance / 10  # where a rate of 0 is drawn

    def place(leak: float) -> float:
        return max(leak, floor) if log else leak

    with mpl.rc_context(plots.STYLE):
        figure, (axes,) = plots._figure(3.6)
        axes.axvline(chance, color=plots.STAND_IN["other"], linewidth=1.2, linestyle=":", label="chance")
        for number, leak, accuracy, best in points:
            colour = plots.STAND_IN["synthetic" if best else "other"]
            x, low, high = ((max(value, floor) if log else value) for value in (leak.value, leak.low, leak.high))
            axes.plot([low, high], [accuracy.value] * 2, color=colour, linewidth=2.5, alpha=0.35)
            axes.plot([x, x], [accuracy.low, accuracy.high], color=colour, linewidth=2.5, alpha=0.35)
            axes.plot([x], [accuracy.value], marker="s" if best else "o", markersize=4, color=colour)
            at = {"textcoords": "offset points", "xytext": (4, 3)}
            axes.annotate(str(number), (x, accuracy.value), fontsize=8.5, color=plots.STAND_IN["ink"], **at)
        front = sorted((max(p[1].value, floor) if log else p[1].value, p[2].value) for p in points if p[3])
        x, y = np.array(front).T
        axes.plot(
            x, y, color=plots.STAND_IN["synthetic"], linewidth=1.2, label="beaten by none", drawstyle="steps-post"
        )
        if log:
            axes.set_xscale("log")
            axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
            axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{100 * value:g} %"))
            axes.xaxis.set_minor_formatter(NullFormatter())
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{100 * value:g} %"))
        axes.set_xlabel(f"{xlabel} (left is better)")
        axes.set_ylabel("verification accuracy")
        plots._below(axes)
        return plots._svg(figure, name, alt)
