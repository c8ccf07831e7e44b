"""The audit in plain words. A rule turns each figure into one of three levels; the worst one is the verdict."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

from sface_jax.privacy import metrics
from sface_jax.privacy.wording import all_of, number, percent, times

UNTESTED = "could not be tested"
NOT_DETECTED = "not detected by these attacks at this power"
WEAK = "weakly linkable"
LINKABLE = "linkable"
LEVELS = (UNTESTED, NOT_DETECTED, WEAK, LINKABLE)

DATASET = "dataset"
"""The threat that the verdict is about: the synthetic pictures are handed out, and nothing else."""

LEAST_FOUND = {"edited": 0.5, "other": 0.1}
"""Planted leaks of each kind that must be found at the highest rate, if that nothing was found is to mean anything.
Exact copies are found by any matcher, also by one that sees nothing."""

SIGNIFICANT = 0.05
SURE = 0.01
"""p-value below which members are told from held-out people: several rules make one verdict, so each must err less."""

WIDER = 2.576 / 1.96
"""From an interval of 95 % to one of 99 %, where a rule asks for that."""

SWAPPED = 0.995
"""The p-value of membership from which members are surely the less alike: chance gets there once in 200 times."""

RULES = {
    "match rate": (
        "Share of same-label authentic/synthetic pairs at or above the threshold frozen on authentic strangers, "
        "against the larger of that threshold's FMR and the rate of different labels: linkable where the low end of "
        "the 95 % interval is at least 10 times that, weakly linkable where it is above it."
    ),
    "label separation": (
        "AUC of same-label against different-label authentic/synthetic pairs: weakly linkable where the low end of a "
        "99 % interval is above 0.5."
    ),
    "label recovery": (
        "Share of synthetic pictures whose nearest authentic picture has their own label: weakly linkable where the "
        "low end of the interval is above chance, linkable where it is also at least 10 times chance or one half."
    ),
    "pooled linkage": (
        "The same for synthetic identities, by the mean score of all their pictures with all pictures of a person; "
        "weakly linkable by a 99 % interval."
    ),
    "membership": (
        "AUC of the primary attack by identity, members against held-out people: linkable where the low end of the "
        "interval is at least 0.75, weakly linkable where it is above 0.5, and in both cases the p-value below 0.01. "
        "Another attack decides where it says more and its p-value, adjusted for the number of attacks, is below 0.05."
    ),
    "memorised pictures": "The same of training pictures against unseen pictures of the same people, without p-value.",
    "leaked pictures": (
        "Links of synthetic pictures with members, against those with held-out people: weakly linkable where the "
        "p-value of all tests together is below 0.05, linkable where at a rate that is below it by itself, adjusted, "
        "more than one picture in a hundred is surely in excess of chance."
    ),
    "copies": (
        "Synthetic pictures that are an authentic photograph: linkable where pixels are equal or where more than 1 in "
        "1,000 pictures are near duplicates beyond what held-out people give, weakly linkable where there are any, and "
        "more than chance would share out between members and held-out people."
    ),
    "discriminator": "As membership, by the discriminator's logits; not part of the verdict on the dataset.",
    "released recogniser": "As membership, by the embeddings of a released network; not part of that verdict either.",
    "all": (
        "The worst finding is a matcher's verdict, and the worst of all matchers is the audit's. Where a matcher finds "
        "nothing, and less than half of the planted edited pictures of members or less than one in ten other pictures "
        "of them at the highest false positive rate, its verdict is that it could not be tested."
    ),
}


def decide(audit: dict[str, Any]) -> dict[str, Any]:
    """Applies the rules to the figures of the primary matcher.

    Args:
        audit: `match_rates`, `linkage`, `membership`, `screening`, `controls`, `discriminator` and `released` as
            `privacy.audit` gathers them, all but the first of which may be empty.

    Returns:
        `level`, of the threat that the dataset is handed out; `summary` (a sentence or two), `findings` (a list of
        `name`, `threat`, `level`, `text`), `other_threats` (threat -> its level), `caveats` and `rules`.
    """
    findings = [found for found in (*_of_dataset(audit), *_of_networks(audit)) if found]
    own = [found for found in findings if found["threat"] == DATASET]
    level = max((found["level"] for found in own), key=LEVELS.index, default=UNTESTED)
    worst = [found["name"] for found in own if found["level"] == level]
    blind = _swapped(audit) or _blind(audit)
    if level == NOT_DETECTED and blind:
        level = UNTESTED
    others = {found["threat"]: found["level"] for found in findings if found["threat"] != DATASET}
    telling = [threat for threat, found in others.items() if LEVELS.index(found) > LEVELS.index(NOT_DETECTED)]
    also = f" Who trained the generator is told by {all_of(telling)} too." if telling else ""
    return {
        "level": level,
        "summary": _summary(level, worst, blind) + also,
        "findings": findings,
        "other_threats": others,
        "caveats": list(_caveats(audit)),
        "rules": RULES,
    }


def worst_of(verdicts: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """The verdict of an audit by several matchers: the first one's, at the level of the worst.

    Args:
        verdicts: matcher -> what `decide` says; the figures that are shown are the first one's.
    """
    primary, *others = verdicts
    told = verdicts[primary] | {"levels": {name: one["level"] for name, one in verdicts.items()}}
    worse = [name for name in others if LEVELS.index(verdicts[name]["level"]) > LEVELS.index(told["level"])]
    if worse:
        name = max(worse, key=lambda name: LEVELS.index(verdicts[name]["level"]))
        told["level"] = verdicts[name]["level"]
        told["summary"] = f"{verdicts[name]['summary']} That is what {name} finds; {primary} finds less."
    if others:
        by = f"The worst of the verdicts of {len(verdicts)} matchers: "
        by += "; ".join(f"{name}: {level}" for name, level in told["levels"].items())
        told["caveats"] = [f"{by}. The more matchers, the likelier one errs on the side of a link.", *told["caveats"]]
    return told


def _summary(level: str, worst: list[str], blind: str) -> str:
    if level == UNTESTED:
        return f"Nothing is known: {blind or 'none of the attacks could be made on these sets.'}"
    if level == NOT_DETECTED:
        return "These attacks, at this power, detected no link between synthetic pictures and authentic identities."
    grade = "can be linked" if level == LINKABLE else "can be linked weakly"
    return f"The synthetic pictures {grade} to the identities they were made from, by {all_of(worst)}."


def _swapped(audit: dict[str, Any]) -> str:
    """Why held-out people seem to have trained the generator; "" where they do not."""
    copies = ((audit.get("screening") or {}).get("copies") or {}).get("heldout") or {}
    if copies.get("equal"):
        return (
            f"of the synthetic pictures {copies['equal']:,} are held-out ones: these people did train the "
            f"generator, or the two sets are swapped."
        )
    identity = (audit.get("membership") or {}).get("identity", {})
    if identity and identity["interval"][1] < 0.5 and identity["p_value"] >= SWAPPED:
        return (
            "the synthetic pictures are more like the held-out people than like members: these people did train the "
            "generator, or the two sets are swapped, or they are not from one source."
        )
    return ""


def _blind(audit: dict[str, Any]) -> str:
    """Why the matcher sees too little for an audit that finds nothing; "" where it sees enough, or none was planted."""
    for kind, planted in ((audit["controls"].get("planted") or {}).get("kinds") or {}).items():
        rate = next(iter(planted["rates"].values()), None)
        if rate and kind in LEAST_FOUND and rate["tpr"] < LEAST_FOUND[kind]:
            return (
                f"the matcher finds only {rate['found']} of {planted['planted']} planted leaks of the kind {kind!r}: "
                f"it sees too little."
            )
    return ""


def _of_dataset(audit: dict[str, Any]) -> Iterator[dict[str, str] | None]:
    yield _match_rate(audit)
    yield _separation(audit)
    linkage = audit.get("linkage") or {}
    if linkage:
        yield _recovered(
            "label recovery", "The nearest authentic picture gives away the label of {} of the synthetic pictures",
            linkage["single"]["rank1"],
        )  # fmt: skip
        yield _recovered(
            "pooled linkage", "All pictures of a label together give it away for {} of the synthetic identities",
            linkage["pooled"]["all"]["mean"]["rank1"], WIDER,
        )  # fmt: skip
    if membership := audit.get("membership"):
        yield _membership(membership)
        if found := membership["memorised"]:
            yield _memorised("memorised pictures", DATASET, found)
    yield _leaked(audit)
    yield _copied(audit)


def _of_networks(audit: dict[str, Any]) -> Iterator[dict[str, str]]:
    """Findings about what else may be handed out."""
    if found := audit.get("discriminator"):
        yield _told_apart(
            "discriminator", "the discriminator", found["identity"], audit["membership"]["heldout"]["identities"],
            "By what the discriminator says of their pictures",
        )  # fmt: skip
        if found["memorised"]:
            yield _memorised("discriminator", "the discriminator, by picture", found["memorised"])
    released = audit.get("released") or {}
    control = released.get("control", {}).get("network")
    for name, figures in released.get("networks", {}).items():
        if name != control:
            yield _told_apart(
                "released recogniser", f"the recogniser {name}", figures, released["identities"]["heldout"],
                f"By how {name} sees their pictures",
            )  # fmt: skip
            if centres := figures["attacks"].get("class_centre"):
                yield _told_apart(
                    "released recogniser", f"the recogniser {name} with its classifier", centres,
                    released["identities"]["heldout"], f"By the classes that {name} was trained with",
                )  # fmt: skip


def _membership(membership: dict[str, Any]) -> dict[str, str]:
    """The primary attack, or another one that says more although many were tried."""
    primary = membership["primary"]["identity"]
    sure = [name for name, found in membership["attacks"].items() if found["p_adjusted"] < SIGNIFICANT]
    told = {name: membership["attacks"][name] for name in (primary, *sure)}
    levels = {name: LEVELS.index(_level_of(found)) for name, found in told.items()}
    name = max(told, key=levels.get)  # the first of equals: the primary one
    how = {"identity": "identities", "picture": "people, picture by picture,"}[told[name]["unit"]]
    by = "" if name == primary else f" ({told[name]['text']})"
    return _told_apart(
        "membership",
        DATASET,
        told[name],
        membership["heldout"]["identities"],
        f"By the synthetic pictures that are like theirs{by}",
        how,
    )


def _memorised(name: str, threat: str, found: dict[str, Any]) -> dict[str, str]:
    low, high = found["interval"]
    return {
        "name": name,
        "threat": threat,
        "level": _level_of(found),
        "text": (
            f"Of a picture that trained the generator and another one of the same person, the first is told with an "
            f"AUC of {found['auc']:.3f} (95 % interval {low:.3f} to {high:.3f}; 0.5 is a coin toss), over "
            f"{found['identities']:,} identities."
        ),
    }


def _level_of(found: dict[str, Any]) -> str:
    low = found["interval"][0]
    if low <= 0.5 or found.get("p_value", 0) >= SURE:  # few identities: the interval alone is not enough
        return NOT_DETECTED
    return LINKABLE if low >= 0.75 else WEAK


def _separation(audit: dict[str, Any]) -> dict[str, str] | None:
    found = audit.get("relations", {}).get("authentic_synthetic")
    if not found:
        return None
    low, high = found["auc_interval"]
    return {
        "name": "label separation",
        "threat": DATASET,
        "level": WEAK if found["auc"] - WIDER * (found["auc"] - low) > 0.5 else NOT_DETECTED,
        "text": (
            f"A pair of an authentic and a synthetic picture of one label scores higher than one of different labels "
            f"{percent(found['auc'])} of the time (95 % interval {percent(low)} to {percent(high)}; "
            f"chance is 50 %)."
        ),
    }


def _match_rate(audit: dict[str, Any]) -> dict[str, str] | None:
    same = audit["match_rates"].get("authentic_synthetic")
    if not same:
        return None
    different = audit["match_rates"]["authentic_synthetic_different"]
    key = "1e-3" if "1e-3" in same else next(iter(same))
    rate = same[key]
    low, rarest = rate["interval"][0], 1 / different[key]["comparisons"]
    floor = max(rate["fmr"], different[key]["rate"], rarest)
    return {
        "name": "match rate",
        "threat": DATASET,
        "level": NOT_DETECTED if low <= floor else LINKABLE if low >= 10 * floor else WEAK,
        "text": (
            f"At the threshold that lets {percent(rate['fmr'])} of authentic strangers through, "
            f"{percent(rate['rate'])} of the pairs of an authentic and a synthetic picture with the same label match "
            f"(95 % interval {percent(low)} to {percent(rate['interval'][1])}), "
            f"{times(rate['ratio_to_chance'])} as many as of strangers; "
            f"with different labels it is {percent(different[key]['rate'])}."
        ),
    }


def _recovered(name: str, text: str, rank1: dict[str, Any], wider: float = 1.0) -> dict[str, str]:
    (low, high), chance = rank1["interval"], rank1["chance"]
    above = rank1["rate"] - wider * (rank1["rate"] - low) > chance
    return {
        "name": name,
        "threat": DATASET,
        "level": NOT_DETECTED if not above else LINKABLE if low >= min(10 * chance, 0.5) else WEAK,
        "text": (
            f"{text.format(percent(rank1['rate']))} (95 % interval {percent(low)} to {percent(high)}); "
            f"chance is {percent(chance)}."
        ),
    }


def _told_apart(
    name: str, threat: str, found: dict[str, Any], heldout: int, how: str, who: str = "identities"
) -> dict[str, str]:
    low, high = found["interval"]
    return {
        "name": name,
        "threat": threat,
        "level": _level_of(found),
        "text": (
            f"{how}, {who} that trained the generator are told from {heldout:,} held-out ones with an AUC of "
            f"{found['auc']:.3f} (95 % interval {low:.3f} to {high:.3f}; 0.5 is a coin toss)."
        ),
    }


def _leaked(audit: dict[str, Any]) -> dict[str, str] | None:
    found = audit.get("screening")
    if not found:
        return None
    surely = any(
        (rate.get("p_adjusted") or 1) < SIGNIFICANT and (rate.get("excess_low") or 0) > 0.01 * found["pictures"]
        for rate in found["rates"].values()
    )
    level = UNTESTED if found["noticed"] is None else NOT_DETECTED
    if found["noticed"]:
        level = LINKABLE if surely else WEAK
    parts = [
        f"at a false positive rate of {percent(float(key))} {number(rate['links'])} links, where chance makes "
        f"{number(rate['expected'])}"
        for key, rate in found["rates"].items()
    ]
    told = "no false positive rate has a chance link behind it" if not parts else all_of(parts)
    return {
        "name": "leaked pictures",
        "threat": DATASET,
        "level": level,
        "text": (
            f"{found['pictures']:,} synthetic pictures against {found['people']:,} members: {told}. Chance is that of "
            f"{found['null']}; {_tests(found['p_value'])}."
        ),
    }


def _copied(audit: dict[str, Any]) -> dict[str, str] | None:
    found = (audit.get("screening") or {}).get("copies")
    if not found:
        return None
    equal, alike = found["members"]["equal"], found["members"]["alike"]
    others = found.get("heldout") or {}
    chance = others.get("expected_among_members", 0)
    much = equal or equal + alike - chance > 1e-3 * audit["screening"]["pictures"]
    few = not equal and not _more_than_shared_out(alike, others.get("alike", 0), chance)
    return {
        "name": "copies",
        "threat": DATASET,
        "level": NOT_DETECTED if few else LINKABLE if much else WEAK,
        "text": (
            f"Synthetic pictures that have the very {found['of']} of an authentic one: {equal:,}; near duplicates "
            f"of one besides: {alike:,}. By what held-out people give, chance makes {number(chance)}."
        ),
    }


def _more_than_shared_out(members: int, heldout: int, expected: float | int) -> bool:
    """Whether members have more near duplicates than a share of all that are there would give them.

    Of members + held-out such pictures each is a member's with probability s = expected / (expected + held-out), by
    chance (one-sided binomial test). Where held-out people have none, any one counts.
    """
    if not heldout:
        return members > 0
    share = expected / (expected + heldout)
    return metrics.clopper_pearson(members, members + heldout, 1 - 2 * SIGNIFICANT)[0] > share


def _tests(p_value: float | None) -> str:
    return (
        "no test can be made" if p_value is None or math.isnan(p_value) else f"p = {p_value:.2g} of all tests together"
    )


def _caveats(audit: dict[str, Any]) -> Iterator[str]:
    """What limits the verdict, whatever it is."""
    yield "A link that is not detected may still exist: another matcher, more pictures or another attack may find it."
    if swapped := _swapped(audit):
        yield f"{swapped[0].upper()}{swapped[1:]}"
    if not audit.get("linkage"):
        yield "The sets share no identity, so that nothing could be asked about labels."
    if audit.get("membership"):
        yield audit["membership"]["power"]
    else:
        yield "There are no held-out identities, so membership was not tested."
    kinds = (audit["controls"].get("planted") or {}).get("kinds")
    if not kinds:
        yield "The planted control was switched off, so it is not known what these attacks can find."
        return
    if not any(kind["rates"] for kind in kinds.values()):
        yield "There are too few synthetic pictures to set a false positive rate: single leaked pictures escape."
    elif blind := _blind(audit):
        yield f"{blind[0].upper()}{blind[1:]} That nothing else was found means nothing."
    control = (audit.get("released") or {}).get("control") or {}
    if control and not control["found"]:
        yield (
            f"Even {control['network']}, which did learn the members, does not tell them: the attack on released "
            f"recognisers is too weak here to say anything."
        )
