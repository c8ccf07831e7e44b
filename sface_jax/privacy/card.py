"""What an audit adds to the card of the dataset it looked at, for whoever is handed that dataset."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from absl import logging
from etils import epath

from sface_jax.core import files
from sface_jax.data import cards
from sface_jax.privacy import planting
from sface_jax.privacy.verdict import NOT_DETECTED
from sface_jax.privacy.wording import number, percent, times

KINDS = {
    planting.EXACT: "as they are",
    planting.EDITED: "cropped, re-lit and encoded anew",
    planting.OTHER: "others of these people",
}


def write(folder: files.PathLike, digest: str | None, audit: dict[str, Any]) -> bool:
    """Writes the audit's figures into section "Privacy" of a dataset's card; all else in it stays as it is.

    Args:
        folder: the synthetic dataset.
        digest: what `cards.digest_of` said of it before the audit began.
        audit: as `privacy.audit` writes it.

    Returns:
        Whether they were written: not where the folder is no dataset of ours, where its card has no such section, or
        where it was drawn anew in the meantime.
    """
    if digest is None:
        return False
    path = epath.Path(folder) / cards.FILE
    text = path.read_text() if cards.digest_of(folder) == digest else ""
    if not cards.section(text, cards.PRIVACY):
        logging.warning("%s is no longer the card of what was audited: it gets no figures", path)
        return False
    files.write_text(path, cards.with_section(text, cards.PRIVACY, section(audit, digest)))
    logging.info("the card %s states the figures of this audit", path)
    return True


def section(audit: dict[str, Any], digest: str) -> str:
    """The text of the section, in Markdown; without a date, so that equal audits give equal bytes."""
    sets, verdict = audit["sets"], audit["verdict"]
    looked = [f"{_size(sets['members'])} of the people that the generator learned from", _of_all(sets["synthetic"])]
    if "heldout" in sets:
        looked.append(f"{_size(sets['heldout'])} of people that it never saw")
    rows = "\n".join(f"| {' | '.join(row)} |" for row in _rows(audit))
    caveats = "\n".join(f"- {caveat}" for caveat in [*_controls(audit), *verdict["caveats"]])
    others = "; ".join(f"{name}: {found['verdict']['level']}" for name, found in audit["other_matchers"].items())
    return f"""\
Verdict of an audit: **{verdict["level"]}**. {verdict["summary"]}
{_handling(verdict["level"], audit.get("procedural"))}

| attack | figure | 95 % interval | by chance |
|---|---|---|---|
{rows}

Matcher: `{audit["matcher"]}`{f", whose figures these are; others found: {others}" if others else ""}.
Looked at: {"; ".join(looked)}.

{caveats}

The figures are those of the dataset whose manifest has `sha256` `{digest}`, and of no other.
They tell what these attacks found at this power, not that the dataset is anonymous.
"""


def _rows(audit: dict[str, Any]) -> Iterator[tuple[str, str, str, str]]:
    """(attack, figure, interval, chance) of what was measured."""
    rates = audit["match_rates"].get("authentic_synthetic")
    if rates:
        rate = rates["1e-3"] if "1e-3" in rates else next(iter(rates.values()))
        ratio = spread = ""
        if rate["fmr"]:
            ratio = f", {times(rate['ratio_to_chance'])} the rate of strangers"
            spread = f"; {' to '.join(map(times, rate['ratio_interval']))}"
        yield (
            f"picture matches the person of its label, threshold frozen at FMR {percent(rate['fmr'])}",
            percent(rate["rate"]) + ratio,
            _range(rate["interval"]) + spread,
            percent(rate["fmr"]),
        )
    if linkage := audit["linkage"]:
        for name, rank1 in (
            ("nearest authentic picture has the label (rank 1)", linkage["single"]["rank1"]),
            ("all pictures of a label together give it away (rank 1)", linkage["pooled"]["all"]["mean"]["rank1"]),
        ):
            yield name, percent(rank1["rate"]), _range(rank1["interval"]), percent(rank1["chance"])
        for key, search in linkage["pooled"]["all"]["mean"]["open_set"].items():
            yield (
                f"the same where strangers ask too, and are named by mistake in {percent(float(key))} of searches",
                percent(1 - search["fnir"]),
                _range([1 - end for end in reversed(search["interval"])]),
                percent(1 - search["chance_fnir"]),
            )
    if audit["membership"]:
        found = audit["membership"]["identity"]
        low, high = found["interval"]
        yield "who trained the generator (AUC, by identity)", f"{found['auc']:.3f}", f"{low:.3f} to {high:.3f}", "0.5"
        for key, rate in list(found["tpr_at_fpr"].items())[-1:]:
            fpr = percent(float(key))
            yield f"the same, true positives at {fpr} false positives", percent(rate), "", fpr
    else:
        yield "who trained the generator", "not tested", "", ""
    screening = audit["screening"]
    for key, rate in screening["rates"].items():
        spread = f" ({' to '.join(map(number, rate['interval']))})" if rate["interval"] else ""
        yield (
            f"links of pictures with members at a false positive rate of {percent(float(key))}",
            number(rate["links"]),
            "",
            number(rate["expected"]) + spread,
        )
    if copies := screening.get("copies"):
        chance = (copies.get("heldout") or {}).get("expected_among_members")
        found = copies["members"]
        yield (
            "copies of authentic pictures: equal pixels, near duplicates",
            f"{found['equal']}, {found['alike']}",
            "",
            "" if chance is None else number(chance),
        )


def _handling(level: str, procedural: bool | None) -> str:
    """What follows from the verdict for whoever holds the dataset."""
    if procedural:
        return (
            "The faces that the generator learned were drawn by a program: no living person is concerned, and the "
            "figures say nothing of photographs."
        )
    if level == NOT_DETECTED:
        return "That is no proof of anonymity: see what limits it, below."
    return "Handle the dataset as the pictures it was made from: the same people may see it, for the same purposes."


def _controls(audit: dict[str, Any]) -> Iterator[str]:
    """What the controls say of the attacks."""
    for kind, planted in ((audit["controls"].get("planted") or {}).get("kinds") or {}).items():
        found = [
            f"{rate['found']} of {planted['planted']} at a false positive rate of {percent(float(key))}"
            for key, rate in planted["rates"].items()
        ]
        if found:
            yield f"Control: of planted pictures of members ({KINDS[kind]}) {', '.join(found)} were found."
    if shuffled := audit["controls"].get("shuffled"):
        yield f"Control: with shuffled labels the AUC of a link is {shuffled['auc']:.3f}; chance is 0.5."


def _size(of: dict[str, int]) -> str:
    return f"{of['pictures']:,} pictures of {of['identities']:,}"


def _of_all(synthetic: dict[str, int]) -> str:
    return f"{synthetic['pictures']:,} of the {synthetic['pictures_in_all']:,} synthetic pictures"


def _range(ends: list[float]) -> str:
    return f"{percent(ends[0])} to {percent(ends[1])}"
