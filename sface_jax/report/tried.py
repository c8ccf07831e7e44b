"""What a privacy audit tried, and how much that weighs, in words for those who must decide."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from typing import Any

from sface_jax.report import words

Part = dict[str, Any]

OF_TWO = "of the time"
DATASET, UNTESTED = "dataset", "could not be tested"

NOT_CLAIMED = (
    "That the pictures are anonymous. A link that these attacks did not find may be found by others: a better matcher, "
    "more pictures, knowledge of a person.",
    "Differential privacy, of pictures or of identities. The lower bound on epsilon below is the opposite of such a "
    "guarantee: what any guarantee would have to admit.",
    "Anything about another dataset, another draw from the same generator, or the generator itself where it is handed "
    "on with the pictures.",
    "A legal judgement. Whether a dataset is personal data is decided by law and circumstances; this page is evidence "
    "for that decision.",
)


@dataclasses.dataclass(frozen=True)
class Attack:
    """One attack as a privacy officer reads it.

    Attributes:
        name: in two or three words.
        tried: what was done, in a sentence.
        found: its figure.
        interval: the 95 % interval of that, or "".
        chance: what chance alone gives.
        above: whether the figure is above chance beyond its interval; None where it does not tell.
        below: whether it is below chance beyond its interval.
        finding: name and threat of the verdict's finding on it.
        note: what else is to be known of the reading.
    """

    name: str
    tried: str
    found: str
    interval: str
    chance: str
    above: bool | None
    below: bool = False
    finding: tuple[str, str] = ("", DATASET)
    note: str = ""


def attacks(audit: Part) -> list[Attack]:
    """All attacks of which an audit has figures or a finding, read as its verdict reads them."""
    makers: tuple[Callable[[Part], Iterator[Attack]], ...] = (_matches, _linkage, _membership, _pictures, _networks)
    made = [attack for make in makers for attack in make(audit)]
    findings = {(found["name"], found.get("threat", DATASET)): found for found in _findings(audit)}
    shown = {attack.finding for attack in made}
    rest = [
        Attack(name, str(found.get("text", "")), words.DASH, "", words.DASH, None, finding=(name, threat))
        for (name, threat), found in findings.items()
        if threat == DATASET and (name, threat) not in shown
    ]
    return [_read(attack, findings.get(attack.finding)) for attack in (*made, *rest)]


def _findings(audit: Part) -> list[Part]:
    return [found for found in part(audit, "verdict").get("findings") or [] if isinstance(found, dict)]


def _read(attack: Attack, finding: Part | None) -> Attack:
    """An attack with the reading of the verdict's finding, so that the two never differ."""
    if finding is None:
        return attack
    level = str(finding.get("level"))
    above = None if level == UNTESTED else not level.startswith("not detected")
    differs = attack.above is not None and above is not attack.above
    return dataclasses.replace(attack, above=above, note="see What decided" if differs else attack.note)


def part(tree: Any, *keys: str) -> Part:
    """The dict under some keys; an empty one where there is none."""
    for key in keys:
        tree = tree.get(key) if isinstance(tree, dict) else None
    return tree if isinstance(tree, dict) else {}


def headline_rate(rates: Part) -> str:
    """The nominal rate nearest to 1 in 1,000 of those that a dict has; "" where it is empty."""
    return "1e-3" if "1e-3" in rates else next(iter(rates), "")


def one_in(rate: str) -> str:
    """ "1e-3" -> "1 in 1,000"."""
    return words.one_in(float(rate))


def above(values: Part, chance: Any) -> bool | None:
    """Whether the low end of the 95 % interval is above chance."""
    ends = values.get("interval")
    if not isinstance(ends, list) or len(ends) != 2 or not words.finite(ends[0]) or not words.finite(chance):
        return None
    return ends[0] > chance


def _rate(name: str, tried: str, values: Part, chance: Any, finding: str) -> Iterator[Attack]:
    if words.finite(values.get("rate")):
        shown = words.interval(values.get("interval"), words.percent)
        found = words.percent(values["rate"]), shown, words.percent(chance)
        yield Attack(name, tried, *found, above(values, chance), finding=(finding, DATASET))


def _one_of_two(name: str, tried: str, values: Part, finding: str, threat: str = DATASET) -> Iterator[Attack]:
    """An AUC is how often, of two that are shown, one of each kind, the right one is told."""
    if words.finite(values.get("auc")):
        ends = values.get("interval")
        shown = words.interval(ends, words.percent)
        below = bool(shown) and ends[1] < 0.5
        found = f"{words.percent(values['auc'])} {OF_TWO}", shown, f"{words.percent(0.5, 0)} {OF_TWO}"
        note = "see limits" if below and finding == "membership" else ""
        yield Attack(name, tried, *found, above(values, 0.5), below, (finding, threat), note)


def _matches(audit: Part) -> Iterator[Attack]:
    related = part(audit, "relations", "authentic_synthetic")
    yield from _one_of_two(
        "same label, ranked",
        "Given two pairs of an authentic and a synthetic picture, one of them of one label, tell which by the higher "
        "score.",
        {"auc": related.get("auc"), "interval": related.get("auc_interval")},
        "label separation",
    )
    same = part(audit, "match_rates", "authentic_synthetic")
    key = headline_rate(same)
    values, different = part(same, key), part(audit, "match_rates", "authentic_synthetic_different", key)
    if not values:
        return
    chance = max(filter(words.finite, (values.get("fmr"), different.get("rate"))), default=None)
    yield from _rate(
        "same label",
        "Compare an authentic and a synthetic picture of one label, and call it a match where no more than "
        f"{one_in(key)} pairs of authentic strangers would match.",
        values,
        chance,
        "match rate",
    )


def _linkage(audit: Part) -> Iterator[Attack]:
    linkage = part(audit, "linkage")
    rank1 = part(linkage, "single", "rank1") or part(linkage, "rank1")
    yield from _rate(
        "one picture",
        "Take one synthetic picture and name the authentic person who looks most like it.",
        rank1,
        rank1.get("chance"),
        "label recovery",
    )
    pooled = part(linkage, "pooled", "all", "mean", "rank1")
    yield from _rate(
        "all pictures",
        "Take all pictures of a synthetic identity together, and name the authentic person most like them.",
        pooled,
        pooled.get("chance"),
        "pooled linkage",
    )


def _membership(audit: Part) -> Iterator[Attack]:
    yield from _one_of_two(
        "who trained it",
        "Given a person who trained the generator and one it never saw, tell which is which by how near the synthetic "
        "pictures come to theirs.",
        part(audit, "membership", "identity"),
        "membership",
    )
    yield from _one_of_two(
        "which picture",
        "Given two pictures of one member, one of which trained the generator, tell which.",
        part(audit, "membership", "memorised"),
        "memorised pictures",
    )
    yield from _one_of_two(
        "who, by discriminator",
        "The same of persons, by one who also has the generator's discriminator.",
        part(audit, "discriminator", "identity"),
        "discriminator",
        "the discriminator",
    )
    yield from _one_of_two(
        "which, by discriminator",
        "The same of pictures of one member, by one who also has the discriminator.",
        part(audit, "discriminator", "memorised"),
        "discriminator",
        "the discriminator, by picture",
    )


def _pictures(audit: Part) -> Iterator[Attack]:
    yield from _leaks(part(audit, "screening"))
    copies = part(audit, "screening", "copies")
    members, heldout = part(copies, "members"), part(copies, "heldout")
    if members:
        theirs = f"of held-out people: {_copies(heldout)}" if any(map(heldout.get, ("equal", "alike"))) else ""
        expected = heldout.get("expected_among_members")
        yield Attack(
            "copies",
            COPIES.get(copies.get("of"), COPIES["pixels"]),
            _copies(members),
            theirs,
            f"{words.plain(expected)} in all" if words.finite(expected) else "0 equal",
            True if members.get("equal") else None,
            finding=("copies", DATASET),
            note="see limits" if heldout.get("equal") else "",
        )


COPIES = {
    "pixels": "Search for synthetic pictures that are a member's picture, pixel by pixel or but for small changes.",
    "embedding": "Search for synthetic embeddings that equal a member's; what was edited escapes.",
}
"""How copies were sought: of pictures, and where there are embeddings alone."""


def _copies(values: Part) -> str:
    return f"{words.count(values.get('equal'))} equal, {words.count(values.get('alike'))} nearly so"


def _leaks(found: Part) -> Iterator[Attack]:
    """The test of the screening with the smallest p-value: of links at a rate, or of the strongest one."""
    rates, strongest = part(found, "rates"), part(found, "strongest")
    tests = {key: values for key, values in rates.items() if isinstance(values, dict)} | {"": strongest}
    tested = {key: values["p_value"] for key, values in tests.items() if words.finite(values.get("p_value"))}
    key = min(tested, key=tested.get) if tested else headline_rate(rates)
    asked, shown = "Search every synthetic picture for a member it shows", {"finding": ("leaked pictures", DATASET)}
    if key:
        values = tests.get(key, {})
        which = f" (of {words.plural(len(rates), 'rate')} the one with the smallest p-value)" if key in tested else ""
        ends = words.interval(values.get("interval"), words.plain)
        expected = words.links(values.get("expected"))
        yield Attack(
            "single leaks",
            f"{asked}, at {one_in(key)} false alarms{which}. {per_search(found)}",
            words.links(values.get("links")),
            "",
            f"{expected} ({ends})" if ends else expected,
            found.get("noticed"),
            **shown,
        )
    elif words.finite(strongest.get("score")):
        why = ", the test with the smallest p-value" if rates else ", as the sets are too small for a rate"
        yield Attack(
            "single leaks",
            f"{asked}. What counts is the strongest link{why}.",
            f"score {words.decimal(strongest['score'])}",
            "",
            f"{words.links(strongest.get('expected_by_chance'))} so strong",
            found.get("noticed"),
            **shown,
        )


def per_search(found: Part) -> str:
    """Of how many people a false positive rate of the screening is, in a sentence."""
    people, others = found.get("people"), found.get("null_people")
    if not (words.finite(people) and words.finite(others) and others):
        return "The rate is that of links by chance."
    if people == others:
        return f"The rate is per search among {words.count(others)} people."
    return (
        f"The rate is per search among as many people as are held out ({words.count(others)}); among the "
        f"{words.count(people)} members chance makes {words.plain(people / others)} times as many."
    )


def _networks(audit: Part) -> Iterator[Attack]:
    control = part(audit, "released", "control").get("network")
    for name, values in part(audit, "released", "networks").items():
        if name != control:
            yield from _one_of_two(
                f"recogniser {name}",
                "By this recogniser alone, tell people whom its teacher, or the generator, knew from others.",
                values,
                "released recogniser",
                f"the recogniser {name}",
            )
            yield from _one_of_two(
                f"recogniser {name}, with its classifier",
                "The same, by one who also has the classifier that it was trained with.",
                part(values, "attacks", "class_centre"),
                "released recogniser",
                f"the recogniser {name} with its classifier",
            )


def not_tried(audit: Part) -> list[str]:
    """What could not be tried, and why."""
    told = []
    if not part(audit, "match_rates", "authentic_synthetic"):
        told.append("Links by label: the synthetic labels are not known to stand for authentic identities.")
    if not part(audit, "membership") and not part(audit, "sets", "heldout"):
        told.append("Who trained the generator: there are no people whom it never saw to compare with.")
    elif not part(audit, "membership", "memorised") and not part(audit, "sets", "unseen"):
        told.append("Which pictures trained the generator: no pictures of its people were kept from it.")
    if not part(audit, "screening"):
        told.append("Single pictures that show a member: they were not searched for.")
    if not part(audit, "discriminator"):
        told.append("What the generator's own networks give away: they were not given to this audit.")
    if not part(audit, "released"):
        told.append("What recognisers trained on these pictures give away: none was named as to be released.")
    if not part(audit, "other_matchers"):
        told.append("Another matcher: all figures are of one, and another may see what it does not.")
    return [*told, *audit.get("not_tried", [])]


def strength(audit: Part) -> list[str]:
    """How much weight the findings bear, in sentences."""
    told = []
    for kind, values in part(audit, "controls", "planted", "kinds").items():
        if not isinstance(values, dict):
            continue
        rates = part(values, "rates")
        key = headline_rate(rates)
        if key:
            at = rates[key]
            told.append(
                f"Of {words.count(values.get('planted'))} planted leaks of the kind “{KINDS.get(kind, kind)}”, "
                f"{words.percent(at.get('tpr'))}{_in_brackets(at)} were found at {one_in(key)} false alarms."
                f"{_least(audit, part(values, 'shares'))}"
            )
    shuffled = part(audit, "controls", "shuffled")
    if words.finite(shuffled.get("auc")):
        told.append(f"With the labels shuffled the AUC is {shuffled['auc']:.3f} (0.5 is chance){_shuffled(shuffled)}.")
    told += _power(part(audit, "power"))
    levels = {name: level(other) for name, other in part(audit, "other_matchers").items()}
    if any(levels.values()):
        told.append(
            f"Verdicts of further matchers: {'; '.join(f'{name}, {own}' for name, own in levels.items() if own)}."
        )
    return told


def level(audit: Part) -> str:
    """That of the verdict; "" where there is none."""
    return str(part(audit, "verdict").get("level") or "")


def _in_brackets(values: Part) -> str:
    shown = words.interval(values.get("interval"), words.percent)
    return f" ({shown})" if shown else ""


def _shuffled(found: Part) -> str:
    if not words.finite(found.get("rate")):
        return ""
    return (
        f", and {words.percent(found['rate'])}{_in_brackets(found)} of the pairs match at FMR 1e-2, against "
        f"{words.percent(found.get('expected_rate'))} of those of truly different labels"
    )


def _power(power: Part) -> Iterator[str]:
    """What links would have been seen with the audit's power, as a rule four times in five."""
    seen = f"would be seen {words.percent(power.get('power'), 0)} of the time" if "power" in power else "would be seen"
    same = part(power, "match_rates")
    rate = part(same, headline_rate(same))
    if rate:
        told = f"{words.percent(rate.get('rate'))} of the pairs of one label, {words.ratio(rate.get('ratio'))} chance"
        yield f"A link by label {seen} where it made {told}, match."
    found = part(power, "linkage")
    if found:
        yield f"A link of persons {seen} where it named {words.percent(found.get('rank1'))} of them rightly."
    members = part(power, "membership")
    if members:
        people = (
            f"{words.count(members.get('members'))} members and {words.count(members.get('heldout'))} held-out people"
        )
        yield (
            f"With {people}, knowing who trained the generator {seen} where {words.percent(members.get('auc'))} of "
            f"couples are told apart; what happened to no held-out person may still happen to "
            f"{words.percent(members.get('unseen_event'))} of people."
        )


KINDS = {
    "exact": "the very picture",
    "edited": "cropped, re-lit and compressed anew",
    "other": "another picture of the same person",
}
"""What leaks of each planted kind are."""


def _least(audit: Part, shares: Part) -> str:
    """The smallest number of such leaks in the set that the audit notices."""
    known = [values for values in shares.values() if isinstance(values, dict) and words.finite(values.get("pictures"))]
    told = [values for values in known if values.get("noticed") is not None]
    if not told:
        return " Whether a few more would be noticed cannot be told: the set stands out as it is." if known else ""
    noticed = [values for values in told if values["noticed"]]
    if not noticed:
        return _said(audit, max(told, key=_size), "Even ", "go unnoticed")
    return _said(audit, min(noticed, key=_size), "", "be noticed")


def _size(values: Part) -> float | int:
    return values["pictures"]


def _said(audit: Part, values: Part, even: str, would: str) -> str:
    draws = of_draws(values)
    return f" {even}{planted_in(audit, values)} of this kind in the set would {would}{f' ({draws})' if draws else ''}."


def planted_in(audit: Part, values: Part) -> str:
    """How much of the set a control replaced: "1 picture in 455 (0.22 %)"."""
    pictures, share = values.get("pictures"), values.get("share")
    size = part(audit, "screening").get("pictures")
    if not words.finite(share) and words.finite(size) and words.finite(pictures) and size:
        share = pictures / size
    if not words.finite(share) or not share or not words.finite(pictures):
        return words.plural(pictures, "picture")
    return f"{words.plural(pictures, 'picture')} in {words.count(round(pictures / share))} ({words.percent(share, 2)})"


def of_draws(values: Part) -> str:
    """In how many draws of such leaks the set was noticed; "" where that is not told."""
    drawn = values.get("noticed_of")
    if not isinstance(drawn, list) or len(drawn) != 2 or not all(map(words.finite, drawn)):
        return ""
    return f"seen in {words.count(drawn[0])} of {words.count(drawn[1])} draws"
