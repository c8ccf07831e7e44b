"""The audit in plain words. A rule turns each figure into one of three levels; the worst one is the verdict."""

from __future__ import annotations

from typing import Any

NOT_DETECTED = "not detected by these attacks at this power"
WEAK = "weakly linkable"
LINKABLE = "linkable"
LEVELS = (NOT_DETECTED, WEAK, LINKABLE)

RULES = {
    "match rate": (
        "Share of same-label authentic/synthetic pairs at or above the threshold frozen on authentic strangers, "
        "against the larger of that threshold's FMR and the rate of different labels: linkable where the low end of "
        "the 95 % interval is at least 10 times that, weakly linkable where it is above it."
    ),
    "label recovery": (
        "Share of synthetic pictures whose nearest authentic picture has their own label: weakly linkable where the "
        "low end of the interval is above chance, linkable where it is also at least 10 times chance or one half."
    ),
    "membership": (
        "AUC of the nearest-synthetic-neighbour score, members' identities against held-out ones: linkable where the "
        "low end of the interval is at least 0.75, weakly linkable where it is above 0.5."
    ),
    "near copies": (
        "Share of synthetic pictures as close to an authentic one as a planted near copy: weakly linkable where the "
        "low end of the interval is above the share of authentic pictures that are so close to another one, linkable "
        "where it is also above 1 %."
    ),
}


def decide(audit: dict[str, Any]) -> dict[str, Any]:
    """Applies the rules to the figures of the primary matcher.

    Args:
        audit: `match_rates`, `linkage`, `membership`, `near_copies` and `controls` as `privacy.audit` gathers them.

    Returns:
        `level`, `summary` (a sentence), `findings` (a list of `name`, `level`, `text`), `caveats` and `rules`.
    """
    findings = [
        finding
        for finding in (_match_rate(audit), _recovery(audit), _membership(audit), _near_copies(audit))
        if finding
    ]
    level = max((finding["level"] for finding in findings), key=LEVELS.index)
    worst = [finding["name"] for finding in findings if finding["level"] == level]
    if level == NOT_DETECTED:
        summary = "These attacks, at this power, detected no link between synthetic pictures and authentic identities."
    else:
        grade = "can be linked" if level == LINKABLE else "can be linked weakly"
        summary = f"The synthetic pictures {grade} to the identities they were made from, by {_and(worst)}."
    return {"level": level, "summary": summary, "findings": findings, "caveats": _caveats(audit), "rules": RULES}


def _match_rate(audit: dict[str, Any]) -> dict[str, str] | None:
    same, different = audit["match_rates"]["authentic_synthetic"], audit["match_rates"]["authentic_synthetic_different"]
    if not same:
        return None
    key = "1e-3" if "1e-3" in same else next(iter(same))
    rate = same[key]
    floor, low = max(rate["fmr"], different[key]["rate"]), rate["interval"][0]
    return {
        "name": "match rate",
        "level": NOT_DETECTED if low <= floor else LINKABLE if low >= 10 * floor else WEAK,
        "text": (
            f"At the threshold that lets {_percent(rate['fmr'])} of authentic strangers through, "
            f"{_percent(rate['rate'])} of the pairs of an authentic and a synthetic picture with the same label match "
            f"(95 % interval {_percent(low)} to {_percent(rate['interval'][1])}), "
            f"{_times(rate['ratio_to_chance'])} chance; "
            f"with different labels it is {_percent(different[key]['rate'])}."
        ),
    }


def _recovery(audit: dict[str, Any]) -> dict[str, str]:
    rank1 = audit["linkage"]["rank1"]
    (low, high), chance = rank1["interval"], rank1["chance"]
    level = NOT_DETECTED if low <= chance else LINKABLE if low >= min(10 * chance, 0.5) else WEAK
    return {
        "name": "label recovery",
        "level": level,
        "text": (
            f"The nearest authentic picture gives away the label of {_percent(rank1['rate'])} of the synthetic "
            f"pictures (95 % interval {_percent(low)} to {_percent(high)}); chance is {_percent(chance)}."
        ),
    }


def _membership(audit: dict[str, Any]) -> dict[str, str] | None:
    membership = audit["membership"]
    if not membership:
        return None
    found = membership["identity"]
    low, high = found["interval"]
    return {
        "name": "membership",
        "level": LINKABLE if low >= 0.75 else WEAK if low > 0.5 else NOT_DETECTED,
        "text": (
            f"By their nearest synthetic picture, identities that trained the generator are told from "
            f"{membership['heldout']['identities']} held-out ones with an AUC of {found['auc']:.3f} "
            f"(95 % interval {low:.3f} to {high:.3f}; 0.5 is a coin toss)."
        ),
    }


def _near_copies(audit: dict[str, Any]) -> dict[str, str] | None:
    copies = audit["near_copies"]
    if not copies:
        return None
    above = copies["interval"][0] > copies["baseline"]
    return {
        "name": "near copies",
        "level": NOT_DETECTED if not above else LINKABLE if copies["interval"][0] > 0.01 else WEAK,
        "text": (
            f"{_percent(copies['rate'])} of the synthetic pictures are as close to an authentic picture as a planted "
            f"near copy (score {copies['threshold']:.3f} and above); of the authentic pictures, "
            f"{_percent(copies['baseline'])} are so close to another one."
        ),
    }


def _caveats(audit: dict[str, Any]) -> list[str]:
    """What limits the verdict, whatever it is."""
    caveats = [
        "A link that is not detected may still exist: another matcher, more pictures or another attack may find it.",
    ]
    if audit["membership"]:
        caveats.append(audit["membership"]["power"])
    else:
        caveats.append("There are no held-out identities, so membership was not tested.")
    planted = audit["controls"].get("planted")
    if planted is None:
        caveats.append("The planted control was switched off, so it is not known what these attacks can find.")
    elif planted["rate"] < 0.95:
        caveats.append(
            f"Only {planted['found']} of {planted['planted']} planted copies were found: the matcher is too weak for "
            f"this audit to reassure anybody."
        )
    return caveats


def _percent(share: float) -> str:
    return f"{100 * share:.3g} %"


def _times(ratio: float) -> str:
    return f"{ratio:,.0f} times" if ratio >= 10 else f"{ratio:.2g} times"


def _and(names: list[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"
