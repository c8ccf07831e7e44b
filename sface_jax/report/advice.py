"""What is to be done about a dataset after its audit, in words for those who must decide."""

from __future__ import annotations

from collections.abc import Iterator

from sface_jax.report import words
from sface_jax.report.tried import UNTESTED, Part, level, part


def to_do(audit: Part) -> list[str]:
    """What to do, the most urgent first."""
    linked = level(audit) not in ("", UNTESTED) and not level(audit).startswith("not detected")
    told = []
    if linked:
        told.append(
            "Handle the dataset as the pictures it was made from: the same people may see it, for the same purposes."
        )
    elif level(audit) == UNTESTED:
        told.append(
            "Handle the dataset as the pictures it was made from until an audit can tell: with a matcher that sees "
            "more, more pictures, or people whom the generator never saw."
        )
    told += _leave_out(audit)
    if linked:
        told.append(
            "Where the link is of labels and not of single pictures, leaving pictures out will not end it: draw with "
            "less likeness to the training identities (fewer steps of training, lower psi, mixed labels), and compare "
            "by configs/frontier.py what that costs in accuracy."
        )
    if not part(audit, "sets", "heldout"):
        told.append(
            "Before the next generator is trained, hold out people for the audit (--config.heldout_identities of stage "
            "prepare, or a folder of others for --config.heldout)."
        )
    if not part(audit, "other_matchers"):
        told.append("Add a matcher of another make to --config.matchers: two that agree are worth more than one.")
    if not part(audit, "controls", "planted"):
        told.append(
            "Switch the planted controls on (--config.planted=100), without which it is not known what is found."
        )
    told.append(
        "Keep the folder embeddings/ beside this page where the pictures of these people are kept: it holds biometric "
        "templates of them. Delete it when no audit is to be repeated."
    )
    told.append("Audit again whenever the generator, the draw or the list of identities changes.")
    return told


def _leave_out(audit: Part) -> Iterator[str]:
    remedy = part(audit, "remedy")
    if remedy.get("impossible"):
        yield f"On leaving pictures out: {remedy['impossible']}."
    if not remedy.get("excluded") or remedy.get("kept") == 0:
        return
    kept = f" {words.count(remedy['kept'])} remain." if words.finite(remedy.get("kept")) else ""
    where = f" They are listed in {remedy['list']}." if remedy.get("list") else ""
    yield f"Leave out the {words.plural(remedy['excluded'], 'synthetic picture')} flagged{_chance(audit)}.{kept}{where}"
    if not remedy.get("unused_judge"):
        yield (
            "Audit what remains with a matcher that had no part in the choice: leaving out what one matcher flags "
            "hides it from that matcher first. Until then what remains is to be handled as the whole."
        )
    elif nothing_left(remedy):
        yield (
            f"Hand on what remains, and not the dataset that was audited: the matcher “{remedy.get('judge')}”, which "
            "had no part in the choice, finds no figure above chance in it."
        )
    elif remedy.get("comparison"):
        yield (
            f"Leaving them out did not end the link, by the matcher “{remedy.get('judge')}”, which had no part in the "
            "choice: see Remedy. What remains is to be handled as the whole."
        )


def _chance(audit: Part) -> str:
    """How many of the flagged pictures may be chance's."""
    found = part(audit, "screening")
    rate = part(found, "rates", str(part(audit, "remedy").get("rate")))
    ends, count = rate.get("interval_flagged", rate.get("interval")), rate.get("flagged", rate.get("links"))
    strongest = part(found, "strongest").get("p_value")
    copied = any(part(found, "copies", "members").values())
    by_pictures = rate.get("expected_flagged")
    expected = words.plain(by_pictures if words.finite(by_pictures) else rate.get("expected"))
    if expected == words.DASH:
        return ""
    told = f", of which chance would make about {expected}"
    within = words.interval(ends, words.plain) and words.finite(count) and ends[0] <= count <= ends[1]
    sure = copied or (words.finite(strongest) and strongest < 0.05)
    return f"{told}, and may make all of them, so that little may be won" if within and not sure else told


def nothing_left(remedy: Part) -> bool:
    """Whether no figure of what remains is above chance, by a matcher that had no part in the choice."""
    rows = [row for row in remedy.get("comparison") or [] if isinstance(row, dict)]
    return bool(remedy.get("unused_judge") and rows) and not any(_above(row) for row in rows)


def _above(row: Part) -> bool:
    after, chance, ends = row.get("after"), row.get("chance"), row.get("after_interval")
    if "p-value" in str(row.get("name")):
        return words.finite(after) and after < 0.05
    if not words.finite(chance):
        return False
    low = ends[0] if words.interval(ends, words.plain) else after
    return words.finite(low) and low > chance
