"""The page of stage privacy: first for those who decide about a dataset, then for those who check the figures."""

from __future__ import annotations

import base64
import dataclasses
import io
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from etils import epath
from jaxtyping import UInt8
from markupsafe import Markup
from PIL import Image

from sface_jax.core import files
from sface_jax.report import advice, evidence, leakage, page, plots, tried, words
from sface_jax.report.tables import Cell, Table
from sface_jax.report.tried import Part, part

COARSE = 8
"""Cells a side that a blurred picture of a person is made of."""

_SHOWN = 112  # pixels a side of pictures on the page


@dataclasses.dataclass(frozen=True)
class Section:
    """A section of the second part: what it asks, its charts with their captions, its tables.

    Attributes:
        id: its address on the page.
        title: its heading.
        text: what it asks and how to read it.
        charts: (drawing, caption).
        tables: its tables.
        bullets: sentences after them.
    """

    id: str
    title: str
    text: str
    charts: Sequence[tuple[Markup, str]]
    tables: Sequence[Table]
    bullets: Sequence[str]

    @property
    def empty(self) -> bool:
        """Whether the audit has no figures for it."""
        return not (self.charts or self.tables or self.bullets)

    @property
    def unsupported(self) -> bool:
        """Whether a figure in it is marked for want of events."""
        return any(table.unsupported for table in self.tables)


def write_page(folder: epath.Path, audit: Part, pairs: Sequence[Mapping[str, Any]] = ()) -> None:
    """Writes `index.html`, which holds everything it shows; equal audits give equal bytes.

    Args:
        folder: where to write.
        audit: what `audit.json` holds. What it lacks is left out, and said to be.
        pairs: flagged pictures to be shown, where that was asked for: "synthetic" and "authentic" (uint8 [h, w, 3]),
            and "text"; "copy" where the synthetic one is a copy. Authentic ones and copies are blurred, see `blurred`.
    """
    verdict = part(audit, "verdict")
    attacks, sections = tried.attacks(audit), list(_sections(audit))
    made = page.template("privacy.html").render(
        audit=audit,
        verdict=verdict,
        tone=leakage.TONES.get(verdict.get("level"), "plain"),
        basis=_basis(audit),
        attacks=attacks,
        above=sum(attack.above is True for attack in attacks),
        untested=sum(attack.above is None for attack in attacks),
        decided_by=_rules(verdict),
        not_tried=tried.not_tried(audit),
        strength=tried.strength(audit),
        nothing_found=str(verdict.get("level", "")).startswith("not detected"),
        unknown=verdict.get("level") == tried.UNTESTED,
        limits=_limits(audit),
        not_claimed=tried.NOT_CLAIMED,
        to_do=advice.to_do(audit),
        pairs=[_pair(pair) for pair in pairs],
        sections=[section for section in sections if not section.empty],
        empty=[section.title for section in sections if section.empty],
        glossary=words.GLOSSARY,
    )
    files.write_text(folder / "index.html", re.sub(r"(?<=\d) %", words.UNIT, made))  # a line never begins with %


def blurred(picture: UInt8[np.ndarray, "h w 3"]) -> UInt8[np.ndarray, "s s 3"]:
    """A picture reduced to `COARSE` x `COARSE` mean colours and spread again: the detail is gone, not hidden."""
    coarse = Image.fromarray(picture).resize((COARSE, COARSE), Image.Resampling.BOX)
    return np.asarray(coarse.resize((_SHOWN, _SHOWN), Image.Resampling.BICUBIC))


def _pair(pair: Mapping[str, Any]) -> tuple[str, str, str]:
    synthetic = blurred(pair["synthetic"]) if pair.get("copy") else pair["synthetic"]
    return _uri(synthetic), _uri(blurred(pair["authentic"])), pair["text"]


def _uri(picture: np.ndarray) -> str:
    buffer = io.BytesIO()
    Image.fromarray(picture).resize((_SHOWN, _SHOWN)).save(buffer, format="JPEG", quality=85)
    return f"data:image/jpeg;base64,{base64.b64encode(buffer.getvalue()).decode()}"


def _limits(audit: Part) -> list[str]:
    """What limits the audit, each once."""
    told = []
    for of, key in ((part(audit, "verdict"), "caveats"), (part(audit, "screening"), "notes"), (audit, "notes")):
        told += [sentence[:1].upper() + sentence[1:] for sentence in of.get(key) or []]
    return list(dict.fromkeys(told))


def _rules(verdict: Part) -> int:
    """How many findings the verdict on the dataset is the worst of."""
    return sum(found.get("threat", tried.DATASET) == tried.DATASET for found in verdict.get("findings") or [])


def _looked_at(size: Part) -> str:
    """How many pictures of a set were compared, and of how many where these are not all."""
    pictures, every = size.get("pictures"), size.get("pictures_in_all")
    part_of = words.finite(pictures) and words.finite(every) and pictures < every
    return f"{words.count(pictures)} of {words.count(every)}" if part_of else words.count(pictures)


def _basis(audit: Part) -> str:
    """What was compared, in a sentence."""
    sizes = part(audit, "sets")
    synthetic, members, heldout = (part(sizes, name) for name in ("synthetic", "members", "heldout"))
    if not (synthetic and members):
        return ""
    told = (
        f"{_looked_at(synthetic)} synthetic pictures were compared with {_looked_at(members)} authentic ones "
        f"of {words.count(members.get('identities'))} people who trained the generator"
    )
    if heldout:
        told += f", and with {_looked_at(heldout)} of {words.count(heldout.get('identities'))} people whom it never saw"
    by = [f"“{name}”" for name in (audit.get("matcher"), *part(audit, "other_matchers"))]
    return f"{told}, by the matcher{'s' if len(by) > 1 else ''} {' and '.join(by)}."


def _sections(audit: Part) -> Iterator[Section]:
    shown = leakage.leakage(audit)

    def section(
        name: str,
        title: str,
        text: str,
        tables: Callable[[Part], Iterator[Table]],
        charts: Sequence[tuple[Markup | None, str]] = (),
        bullets: Sequence[str] = (),
    ) -> Section:
        drawn = [(chart, caption) for chart, caption in charts if chart]
        return Section(name, title, text, drawn, list(tables(audit)), bullets)

    yield section("sets", "Sets and failures to acquire", "", evidence.sets)
    yield section(
        "scores",
        "Comparison scores",
        "Mated and non-mated comparisons of each relation. For authentic and synthetic pictures of one label, low "
        "error rates are a strong link.",
        lambda _: _metrics(shown),
        [
            (
                shown and shown.scores,
                "Score densities, mated against non-mated. A link shows where the coloured hump of the lowest panel "
                "stands to the right of the grey one.",
            ),
            (shown and shown.det, "DET on normal-deviate axes. Nearer to the lower left corner: better told apart."),
        ],
    )
    yield section(
        "thresholds",
        "Match rates at frozen thresholds",
        "The threshold is set on comparisons of authentic strangers and kept. Chance is its FMR, or what different "
        "labels reach, if that is more.",
        evidence.thresholds,
        [
            (
                shown and shown.rate_chart,
                "Comparisons that match. On the dotted line a label tells no more than chance; thick bars: 95 % "
                "interval.",
            )
        ],
    )
    yield section(
        "linkage",
        "Linkage",
        "Probes are synthetic, the gallery are the members with all their pictures.",
        evidence.linkage,
    )
    yield section(
        "membership",
        "Membership",
        "Score of people whose pictures trained the generator against people it never saw. The attacks that count were "
        "chosen before any was run; p-values of the others are adjusted for their number (Holm). Calibrated: "
        "less the mean score with the most alike strangers.",
        evidence.membership,
        [
            (
                shown and shown.members,
                "Score of each authentic picture with its nearest synthetic one. Two humps in one place: members are "
                "not given away.",
            ),
            (
                _roc(audit),
                "ROC of the attacks chosen beforehand. What matters is its left: people named with hardly an error.",
            ),
        ],
    )
    yield section(
        "screening",
        "Single pictures that show a member",
        "A link is a synthetic picture and a member whose score is above what held-out people reach at this FPR. "
        "Expectation and interval say how many links people of whom nothing was learned would give.",
        evidence.screening,
    )
    yield section(
        "controls",
        "Controls",
        "Leaks are planted among the synthetic pictures and sought by the same search; labels are shuffled.",
        evidence.planted,
    )
    yield section(
        "power",
        "Power",
        "",
        lambda _: iter(()),
        bullets=part(audit, "power").get("sentences") or [],
    )
    yield section(
        "networks",
        "Networks that are handed out",
        "What the networks themselves tell about members against held-out people.",
        evidence.networks,
    )
    yield section("remedy", "Remedy", "", evidence.remedy)
    yield section("matchers", "Matchers side by side", "", evidence.matchers)


def _metrics(shown: leakage.Leakage | None) -> Iterator[Table]:
    if shown and shown.metrics and shown.relations:
        rows = [(label, [Cell(*cell) for cell in cells]) for _, label, cells in shown.metrics]
        title = "Error rates of each relation with 95 % interval, and the paper's figure on other data"
        yield Table(title, ("metric", *shown.relations), rows)


def _roc(audit: Part) -> Markup | None:
    curves, colours = {}, {}
    for unit, colour in (("identity", "cross"), ("picture", "synthetic")):
        curve = part(audit, "membership", unit, "roc")
        if curve.get("fpr"):
            fpr, tpr = (np.array(curve[key], np.float64) for key in ("fpr", "tpr"))
            reached = np.unique(fpr)
            best = np.array([tpr[fpr == rate].max() for rate in reached])
            curves[f"by {unit}"], colours[f"by {unit}"] = (reached, best), colour
    if not curves:
        return None
    labels = {"xlabel": "false positive rate (held-out taken for members)", "ylabel": "true positive rate"}
    return plots.roc("membership-roc", curves, colours, "ROC of membership on logarithmic axes", log=True, **labels)
