"""How training went: curves of the generator and of the recognisers."""

from __future__ import annotations

from markupsafe import Markup

from sface_jax.report import plots, utility
from sface_jax.report.findings import Log

# scalar's name -> (label, role of its colour), in the order of drawing
GAN_LOSSES = {
    "d_loss": ("discriminator", "authentic"),
    "g_loss": ("generator", "synthetic"),
}
GAN_OUTPUTS = {
    "d_real": ("authentic pictures", "authentic"),
    "d_fake": ("generated pictures", "synthetic"),
}
# scalar's name, axis label, whether the axis is logarithmic, caption
RECOGNITION = (
    ("classification_loss", "classification loss", True, "How hard the recognisers find the labels of their pictures."),
    ("accuracy", "training accuracy", False, "Share of training pictures given their own label, without a margin."),
    ("teacher_cosine", "agreement with the teacher", False, "Cosine between the embeddings of student and teacher."),
)


def gan_curves(log: Log) -> list[tuple[Markup, str]]:
    """The losses of generator and discriminator, and what the discriminator thinks of either kind of picture."""
    drawn = [
        (
            _chart("gan-losses", log, GAN_LOSSES, "loss"),
            "The generator against its discriminator: neither should win outright.",
        ),
        (
            _chart("gan-outputs", log, GAN_OUTPUTS, "discriminator's mean output"),
            "What the discriminator says of authentic and of generated pictures; where the gap keeps widening, it may "
            "be learning them by heart.",
        ),
    ]
    return [(chart, caption) for chart, caption in drawn if chart]


def recognition_curves(logs: dict[str, Log]) -> list[tuple[Markup, str]]:
    """The recognisers' scalars, all networks in one chart each."""
    charts = []
    for scalar, ylabel, log, caption in RECOGNITION:
        series, colours = {}, {}
        for network in sorted(logs, key=utility.order):
            if scalar in logs[network]:
                label, _, colour = utility.describe(network)
                series[label], colours[label] = logs[network][scalar], colour
        if series:
            alt = f"{ylabel} over steps of {', '.join(series)}"
            chart = plots.curves(f"recognition-{scalar}", series, colours, alt, xlabel="step", ylabel=ylabel, log=log)
            charts.append((chart, caption))
    return charts


def _chart(name: str, log: Log, wanted: dict[str, tuple[str, str]], ylabel: str) -> Markup | None:
    series = {label: log[scalar] for scalar, (label, _) in wanted.items() if scalar in log}
    if not series:
        return None
    alt = f"{ylabel} over steps: {', '.join(series)}"
    return plots.curves(name, series, dict(wanted.values()), alt, xlabel="step", ylabel=ylabel)
