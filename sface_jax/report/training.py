"""How training went: curves of the generator and of the recognisers."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from markupsafe import Markup

from sface_jax.report import plots, utility, words
from sface_jax.report.findings import Log

COLLAPSED_BELOW = 0.4  # of the spread ratio, as `sface_jax.gan.quality` has it


class Chart(NamedTuple):
    """A chart of the generator's scalars.

    Attributes:
        name: of its elements on the page.
        ylabel: what the vertical axis shows.
        series: scalar's name -> (label, role of its colour), in the order of drawing.
        caption: how to read it.
        alarm: a value to draw as a line of its own.
    """

    name: str
    ylabel: str
    series: dict[str, tuple[str, str]]
    caption: str
    alarm: float | None = None


GAN = (
    Chart(
        "gan-losses",
        "loss",
        {"d_loss": ("discriminator", "authentic"), "g_loss": ("generator", "synthetic")},
        "The generator against its discriminator: neither should win outright.",
    ),
    Chart(
        "gan-outputs",
        "discriminator's mean output",
        {"d_real": ("authentic pictures", "authentic"), "d_fake": ("generated pictures", "synthetic")},
        "What the discriminator says of authentic and of generated pictures; where the gap keeps widening, it may "
        "be learning them by heart.",
    ),
    Chart(
        "gan-ada",
        "r and p",
        {"d_real_sign": ("r, how surely authentic", "authentic"), "ada_p": ("p, of augmentation", "combined")},
        "Overfitting: r is the mean sign of the discriminator's output on authentic pictures, near 1 where it knows "
        "them by heart. Adaptive augmentation raises its probability p until r is back at its target.",
    ),
    Chart(
        "gan-frechet",
        "Fréchet distance",
        {"watch/frechet": ("to the training pictures", "synthetic")},
        "How far the generated pictures are from the authentic ones, as a whole. Lower is better.",
    ),
    Chart(
        "gan-precision",
        "share of pictures",
        {
            "watch/precision": ("precision", "synthetic"),
            "watch/recall": ("recall", "distillation"),
            "watch/label_rank1": ("own class nearest", "combined"),
        },
        "Precision: generated pictures that could be authentic ones. Recall: authentic pictures that the generator "
        "could have drawn. And generated pictures that are nearest to the class that was asked for.",
    ),
    Chart(
        "gan-similarity",
        "mean cosine",
        {
            "watch/intra_authentic": ("one class, authentic", "authentic"),
            "watch/intra_synthetic": ("one class, generated", "synthetic"),
            "watch/inter_authentic": ("two classes, authentic", "other"),
            "watch/inter_synthetic": ("two classes, generated", "combined"),
        },
        "How alike two pictures are. Generated ones should come to lie where authentic ones do. One class far above: "
        "it repeats itself; one class no higher than two: the label says nothing.",
    ),
    Chart(
        "gan-spread",
        "share of the authentic spread",
        {"watch/spread_ratio": ("spread within classes", "synthetic")},
        "How much the generated pictures of a class differ, as a share of what authentic ones do (median over the "
        "classes). Near 1 is right; below the line they repeat themselves.",
        alarm=COLLAPSED_BELOW,
    ),
)

# scalar's name, axis label, whether the axis is logarithmic, caption
RECOGNITION = (
    ("classification_loss", "classification loss", True, "How hard the recognisers find the labels of their pictures."),
    ("accuracy", "training accuracy", False, "Share of training pictures given their own label, without a margin."),
    (
        "heldout_accuracy",
        "verification accuracy",
        False,
        "Accuracy on held-out identities on the way; the last step's network is the result, whatever it says.",
    ),
    ("teacher_cosine", "agreement with the teacher", False, "Cosine between the embeddings of student and teacher."),
)


def gan_curves(log: Log) -> list[tuple[Markup, str]]:
    """The generator's charts with their captions, of those scalars that were logged."""
    drawn = []
    for chart in GAN:
        series = {label: log[scalar] for scalar, (label, _) in chart.series.items() if scalar in log}
        if not series:
            continue
        colours = dict(chart.series.values())
        if chart.alarm is not None:
            label, ends = f"alarm below {chart.alarm:g}", np.concatenate([steps for steps, _ in series.values()])
            series[label] = np.array([ends.min(), ends.max()]), np.full(2, chart.alarm)
            colours[label] = "other"
        alt = f"{chart.ylabel} over steps: {', '.join(series)}"
        drawing = plots.curves(chart.name, series, colours, alt, xlabel="step", ylabel=chart.ylabel)
        drawn.append((drawing, chart.caption if drawn else chart.caption + _waited({"": log})))
    return drawn


def _waited(logs: dict[str, Log]) -> str:
    """A sentence on how long devices waited for pictures, by the names of the logs; empty where that was not logged."""
    shares = []
    for name, log in logs.items():
        _, percents = log.get("input_bound_percent", ((), ()))
        if len(percents):
            usual = np.median(percents[1:] if len(percents) > 1 else percents)  # the first is of a step being compiled
            shares.append(f"{name} {usual:.0f}{words.UNIT}".strip())
    return f" Share of the time that devices waited for pictures: {', '.join(shares)}." if shares else ""


def collapse(log: Log) -> str:
    """What to do about a spread within classes that has collapsed; empty if it had not when it was last looked at."""
    steps, collapsed = log.get("watch/collapsed", ((), ()))
    if not len(collapsed) or not collapsed[-1]:
        return ""
    at, ratios = log.get("watch/spread_ratio", ((), ()))
    ratio = ratios[-1] if len(at) and at[-1] == steps[-1] else None
    return (
        f"At step {words.count(steps[-1])} the generated pictures of a class differ {words.percent(ratio, 0)} as much "
        f"as authentic ones do (alarm: below {words.percent(COLLAPSED_BELOW, 0)}). The generator draws one picture of "
        "each identity again and again, and a recogniser learns little from that. Draw from an earlier checkpoint, or "
        "train anew: with a lower learning rate; with fewer classes, or more pictures of each; with augmentation "
        "(config.augment=bgc); or beginning without labels (config.transition_end_kimg)."
    )


def kept(best: dict[str, Any]) -> str:
    """Which checkpoint was kept as the best; empty if none was."""
    if not best:
        return ""
    metric, value = best.get("metric", ""), best.get("value")
    shown = f"{value:.3g}" if words.finite(value) else words.DASH
    return (
        f"The best checkpoint, by {words.MEASURES.get(metric, metric.replace('_', ' '))} ({shown}), is that of step "
        f"{words.count(best.get('step'))}: it was judged on training pictures, never on a benchmark, and synthetic "
        "pictures are drawn from it unless the configuration asks for the latest."
    )


def recognition_curves(logs: dict[str, Log]) -> list[tuple[Markup, str]]:
    """The recognisers' scalars, all networks in one chart each."""
    charts = []
    networks = sorted(logs, key=utility.order)
    waited = _waited({utility.describe(network)[0]: logs[network] for network in networks})
    for scalar, ylabel, log, caption in RECOGNITION:
        series, colours = {}, {}
        for network in networks:
            if scalar in logs[network]:
                label, _, colour = utility.describe(network)
                series[label], colours[label] = logs[network][scalar], colour
        if series:
            alt = f"{ylabel} over steps of {', '.join(series)}"
            chart = plots.curves(f"recognition-{scalar}", series, colours, alt, xlabel="step", ylabel=ylabel, log=log)
            charts.append((chart, caption if charts else caption + waited))
    return charts
