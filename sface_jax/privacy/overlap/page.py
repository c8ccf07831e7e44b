"""The page of an overlap report: identities of two sets side by side, to be judged by eye."""

from __future__ import annotations

import base64
import html

from sface_jax.core import pictures
from sface_jax.data import resize
from sface_jax.privacy.overlap.people import People
from sface_jax.privacy.overlap.same_people import Found, Shared, Strangers

SIDE, FACES = 96, 3  # pixels of a picture, and pictures of an identity

_PAGE = """\
<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<title>Identity overlap</title>
<style>
:root {{ color-scheme: light dark; }}
body {{ font: 15px/1.5 system-ui, sans-serif; max-width: 1100px; margin: 2rem auto; padding: 0 1rem; }}
table {{ border-collapse: collapse; width: 100%; margin: .5rem 0 2rem; }}
td, th {{ text-align: left; padding: .4rem .6rem; border-top: 1px solid #8884; vertical-align: top; }}
td {{ overflow-wrap: anywhere; }} td:last-child {{ white-space: nowrap; }}
img {{ width: {side}px; height: {side}px; margin: 2px 2px 0 0; border-radius: 4px; }}
.muted {{ opacity: .7; }} .wrap {{ overflow-x: auto; }}
</style></head><body>
<h1>Identity overlap</h1>
<p>{threshold}</p>
<p class="muted">This page may show faces of people: keep it with the data they come from.</p>
{body}
</body></html>
"""


def render(
    sets: list[People],
    compared: list[Shared],
    threshold: str,
    strangers: dict[str, list[Strangers]],
    most: int,
) -> str:
    """A self-contained page.

    Args:
        sets: all of them.
        compared: what each two have in common.
        threshold: how it was frozen, in words; empty where no network looked.
        strangers: see `same_people.freeze`.
        most: pairs to show of each kind.
    """
    parts = []
    for shared in compared:
        first, second = shared.first, shared.second
        title = f"{html.escape(first.name)} and {html.escape(second.name)}"
        parts.append(f"<h2>{title}</h2><p>{html.escape(shared.summary)}.</p>")
        for title, chosen in _kinds(shared):
            rows = [_row(first, second, *f.places, _why(f)) for f in chosen[:most]]
            parts.append(_table(title, len(chosen), (first.name, second.name), rows))
    for people in sets:
        alike = strangers.get(people.name, [])
        rows = [_row(people, people, pair.first, pair.second, f"cosine {pair.similarity:.3f}") for pair in alike]
        if rows:
            title = (
                f"Within {people.name}: the most alike under different names; one person under two raises the threshold"
            )
            parts.append(_table(title, len(rows), ("", ""), rows))
    told = (
        f"By names, equal pixels and mean embeddings; {threshold}." if threshold else "By names and equal pixels only."
    )
    return _PAGE.format(side=SIDE, threshold=html.escape(told), body="\n".join(parts))


def _kinds(shared: Shared) -> list[tuple[str, list[Found]]]:
    """What was found, sorted by what speaks for it; what asks for a look comes first."""
    names, numbers, looked = shared.by_name, shared.by_placeholder, shared.looked
    under = ", under other names" if shared.first.named and shared.second.named else ""
    kinds = {
        f"By pictures{under}": shared.others,
        "By name, not confirmed by the recogniser": [f for f in names if looked and not f.confirmed],
        "By a placeholder for a name, borne out by pictures": [f for f in numbers if f.seen],
        "By name and recogniser" if looked else "By name": [f for f in names if f.confirmed or not looked],
        "Equal placeholders, which say nothing: not counted": [f for f in numbers if not f.seen],
    }
    return [(title, chosen) for title, chosen in kinds.items() if chosen]


def _why(found: Found) -> str:
    told = [f"name {found.by_name}"] if found.by_name else []
    if found.pictures:
        told.append(f"{found.pictures} equal picture{'s' * (found.pictures > 1)}")
    if found.similarity is not None:
        told.append(f"cosine {found.similarity:.3f}")
    return "<br>".join(told)


def _table(title: str, count: int, names: tuple[str, str], rows: list[str]) -> str:
    head = "".join(f"<th>{html.escape(name)}</th>" for name in names)
    shown = f"{count:,}" if len(rows) == count else f"{len(rows):,} of {count:,}"
    return (
        f"<h3>{html.escape(title)} ({shown})</h3><div class=wrap><table><tr>{head}<th></th></tr>"
        f"{''.join(rows)}</table></div>"
    )


def _row(first: People, second: People, a: int, b: int, why: str) -> str:
    return f"<tr><td>{_identity(first, a)}</td><td>{_identity(second, b)}</td><td>{why}</td></tr>"


def _identity(people: People, place: int) -> str:
    name = html.escape(people.names[place])
    shown = "".join(
        f'<img alt="a picture of {name}" src="data:image/jpeg;base64,{base64.b64encode(content).decode()}">'
        for content in (pictures.encode_jpeg(resize.square(image, SIDE), 85) for image in people.of(place, FACES))
    )
    return f"{name}<br>{shown}"
