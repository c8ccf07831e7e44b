"""A page that shows a prepared dataset: where it comes from, how it looks, what was left out, what is doubtful."""

from __future__ import annotations

import base64
import io
import itertools
import re
from collections.abc import Mapping, Sequence
from importlib import resources
from typing import Any, NamedTuple

import jinja2
import markupsafe
import numpy as np
from jaxtyping import UInt8
from PIL import Image

from sface_jax.core import files

Captioned = tuple[str, UInt8[np.ndarray, "_ _ 3"]]

_SIDE = 160  # pixels to which larger pictures are shrunk
_SHOWN = 6  # pictures of a group
_DOUBTFUL = ("shared", "alike", "mirrored")  # findings that mean a wrong label
_POOR = ("enlarged", "dark", "bright", "flat", "repeated")  # findings of no use to training
_OUTCOMES = {
    "bytes_kept": "Taken over byte for byte",
    "encoded_anew": "Cut, resized, aligned or recoded",
    "unreadable": "Left out: cannot be read",
    "failures_to_acquire": "Left out: no face was found (failure to acquire, FTA)",
    "duplicates_dropped": "Left out: the pixels of another picture",
    "of_identities_with_too_few": "Left out: of an identity with too few pictures",
    "of_identities_in_no_split": "Left out: of an identity in no split",
    "of_excluded_identities": "Left out: of an identity that was excluded or not chosen",
    "with_metadata": "Taken over with EXIF, comments or the like, which may hold names and places",
}
_ALIGNMENT = {"": "none: the central square", "landmarks": "by given landmarks, to the five-point template"}


class _Picture(NamedTuple):
    uri: str
    width: int
    height: int
    caption: str


class _Bar(NamedTuple):
    label: str
    count: int
    share: float


def write(
    path: files.PathLike,
    *,
    title: str,
    manifest: Mapping[str, Any],
    validation: Mapping[str, Any],
    rows: Sequence[tuple[str, UInt8[np.ndarray, "_ s s 3"]]],
    examples: Sequence[tuple[str, str, Sequence[Captioned]]],
) -> None:
    """Writes one HTML file that loads nothing; it appears whole.

    Args:
        path: the file.
        title: of the page.
        manifest: what stage prepare keeps in `manifest.json`; what it does not say is not shown.
        validation: what `validate.Findings.to_json` gives.
        rows: identities, and some pictures of each.
        examples: groups of pictures that show a finding: its name, its meaning, and the pictures with their names.
            Groups of one finding follow each other.
    """
    environment = jinja2.Environment(
        autoescape=True, trim_blocks=True, lstrip_blocks=True, undefined=jinja2.StrictUndefined
    )
    environment.filters.update(count=_count, percent=_percent, breakable=_breakable)
    template = environment.from_string((resources.files("sface_jax.data") / "preview.html").read_text("utf-8"))
    findings = validation["findings"]
    page = template.render(
        title=title,
        facts=_facts(manifest),
        splits=manifest["counts"]["splits"],
        size=manifest["counts"]["image_size"],
        procedural=manifest["procedural"],
        outcomes=_outcomes(manifest),
        fta=_failures(manifest),
        findings=findings,
        doubtful=sum(findings[kind]["count"] for kind in _DOUBTFUL),
        tones={**dict.fromkeys(_DOUBTFUL, "warn"), **dict.fromkeys(_POOR, "plain")},
        not_compared=validation["not_fully_compared"],
        histogram=_histogram(validation["pictures_per_identity"]),
        rows=[(name, [_inline(image, name) for image in images]) for name, images in rows],
        examples=_by_finding(examples),
    )
    files.write_text(path, page)


def _facts(manifest: Mapping[str, Any]) -> list[tuple[str, str]]:
    """What the dataset is, as a list of a word and a line; what is not known is left out."""
    conversion, identities = manifest.get("conversion", {}), manifest.get("identities", {})
    align = conversion.get("align")
    facts = [
        ("Source", manifest.get("source")),
        ("Format", manifest.get("format")),
        ("Licence", manifest.get("licence") or "none was stated"),
        ("Alignment", None if align is None else _ALIGNMENT.get(align, f"by {align}, to the five-point template")),
        ("Seed of the splits", manifest.get("seed")),
        ("Identities left out", f"{identities['left_out']:,} of {identities['in_source']:,}" if identities else None),
    ]
    return [(word, str(value)) for word, value in facts if value is not None]


def _outcomes(manifest: Mapping[str, Any]) -> list[_Bar]:
    """What became of the source's pictures."""
    counts = manifest.get("pictures")
    if not counts:
        return []
    found = [(label, counts.get(kind, 0)) for kind, label in _OUTCOMES.items()]
    total = max(counts["in_source"], 1)
    return [_Bar(label, count, count / total) for label, count in found if count]


def _failures(manifest: Mapping[str, Any]) -> _Bar | None:
    """Failures to acquire, where pictures were aligned."""
    counts = manifest.get("pictures", {})
    if not manifest.get("conversion", {}).get("align") or "failures_to_acquire" not in counts:
        return None
    tried = counts["in_source"] - counts.get("of_excluded_identities", 0) - counts["unreadable"]
    return _Bar("FTA", counts["failures_to_acquire"], counts["failures_to_acquire"] / max(tried, 1))


def _histogram(per_identity: Mapping[str, int]) -> list[_Bar]:
    """Identities by their number of pictures: each number by itself up to 3, then 4 to 7, 8 to 15 and so on."""
    bars: dict[tuple[int, int], int] = {}
    for pictures, identities in per_identity.items():
        number = int(pictures)
        low = number if number < 4 else 1 << (number.bit_length() - 1)
        edges = low, low if number < 4 else 2 * low - 1
        bars[edges] = bars.get(edges, 0) + identities
    most = max(bars.values(), default=1)
    return [
        _Bar(f"{low:,}" if low == high else f"{low:,} to {high:,}", count, count / most)
        for (low, high), count in sorted(bars.items())
    ]


def _by_finding(examples: Sequence[tuple[str, str, Sequence[Captioned]]]) -> list[tuple[str, str, list]]:
    """Examples as (finding, meaning, [(pictures, how many more there are)])."""
    return [
        (finding, meaning, [_group(pictures) for _, _, pictures in groups])
        for (finding, meaning), groups in itertools.groupby(examples, key=lambda example: example[:2])
    ]


def _group(pictures: Sequence[Captioned]) -> tuple[list[_Picture], int]:
    return [_inline(image, name) for name, image in pictures[:_SHOWN]], max(len(pictures) - _SHOWN, 0)


def _inline(image: UInt8[np.ndarray, "_ _ 3"], caption: str) -> _Picture:
    """A picture as a data URI, JPEG."""
    small = Image.fromarray(image)
    small.thumbnail((_SIDE, _SIDE))
    buffer = io.BytesIO()
    small.save(buffer, format="JPEG", quality=90, subsampling=0)
    uri = f"data:image/jpeg;base64,{base64.b64encode(buffer.getvalue()).decode()}"
    return _Picture(uri, small.width, small.height, caption)


def _count(number: int) -> str:
    return f"{number:,}"


def _breakable(name: str) -> markupsafe.Markup:
    """A name that may go on in the next line after a slash or an underscore."""
    return markupsafe.Markup(re.sub("([/_])", r"\1<wbr>", str(markupsafe.escape(name))))


def _percent(share: float) -> str:
    """A share to a tenth of a percent; what is less, but not nothing, says so."""
    return "<0.1 %" if 0 < share < 0.0005 else f"{100 * share:.1f} %"
