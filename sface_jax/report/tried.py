"""What a privacy audit tried and what is to be done, in words for those who must decide."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from typing import Any

from sface_jax.report import words

Part = dict[str, Any]

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
        above: whether the figure is above chance beyond its interval; None where the figure does not tell.
    """

    name: str
    tried: str
    found: str
    interval: str
    chance: str
    above: bool | None


def attacks(audit: Part) -> list[Attack]:
    """All attacks of which an audit has figures."""
    makers: tuple[Callable[[Part], Iterator[Attack]], ...] = (_matches, _linkage, _membership, _pictures, _networks)
    return [attack for make in makers for attack in make(audit)]


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


def _rate(name: str, tried: str, values: Part, chance: Any) -> Iterator[Attack]:
    if words.finite(values.get("rate")):
        shown = words.interval(values.get("interval"), words.percent)
        yield Attack(name, tried, words.percent(values["rate"]), shown, words.percent(chance), above(values, chance))


def _couples(name: str, tried: str, values: Part) -> Iterator[Attack]:
    """An AUC is the share of couples, one of each kind, that are told apart rightly."""
    if words.finite(values.get("auc")):
        shown = words.interval(values.get("interval"), words.percent)
        chance = f"{words.percent(0.5, 0)} of couples"
        yield Attack(name, tried, f"{words.percent(values['auc'])} of couples", shown, chance, above(values, 0.5))


def _matches(audit: Part) -> Iterator[Attack]:
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
    )


def _linkage(audit: Part) -> Iterator[Attack]:
    linkage = part(audit, "linkage")
    rank1 = part(linkage, "single", "rank1") or part(linkage, "rank1")
    yield from _rate(
        "one picture",
        "Take one synthetic picture and name the authentic person who looks most like it.",
        rank1,
        rank1.get("chance"),
    )
    pooled = part(linkage, "pooled", "all", "mean", "rank1")
    yield from _rate(
        "all pictures",
        "Take all pictures of a synthetic identity together, and name the authentic person most like them.",
        pooled,
        pooled.get("chance"),
    )


def _membership(audit: Part) -> Iterator[Attack]:
    yield from _couples(
        "who trained it",
        "Given a person who trained the generator and one it never saw, tell which is which by how near the synthetic "
        "pictures come to theirs.",
        part(audit, "membership", "identity"),
    )
    yield from _couples(
        "which picture",
        "Given two pictures of one member, one of which trained the generator, tell which.",
        part(audit, "membership", "memorised"),
    )
    yield from _couples(
        "who, by discriminator",
        "The same of persons, by one who also has the generator's discriminator.",
        part(audit, "discriminator", "identity"),
    )
    yield from _couples(
        "which, by discriminator",
        "The same of pictures of one member, by one who also has the discriminator.",
        part(audit, "discriminator", "memorised"),
    )


def _pictures(audit: Part) -> Iterator[Attack]:
    rates = part(audit, "screening", "rates")
    tested = {key: values["p_value"] for key, values in rates.items() if words.finite(values.get("p_value"))}
    key = min(tested, key=tested.get) if tested else headline_rate(rates)  # where the excess is least likely by chance
    values = part(rates, key)
    if values:
        yield Attack(
            "single leaks",
            "Search every synthetic picture for a member it shows, with a threshold that flags "
            f"{one_in(key)} pictures where there is nothing to find.",
            f"{words.count(values.get('links'))} links",
            "",
            f"{words.plain(values.get('expected'))} links, {words.interval(values.get('interval'), words.plain)}",
            part(audit, "screening").get("noticed"),
        )
    copies = part(audit, "screening", "copies")
    members, heldout = part(copies, "members"), part(copies, "heldout")
    expected = words.plain(heldout.get("expected_among_members"))
    if members:
        yield Attack(
            "copies",
            "Search for synthetic pictures that are a member's picture, pixel by pixel or but for small changes.",
            f"{words.count(members.get('equal'))} equal, {words.count(members.get('alike'))} nearly so",
            "",
            f"0 equal, {expected} nearly so" if heldout else "0 equal",
            True if members.get("equal") else None,
        )


def _networks(audit: Part) -> Iterator[Attack]:
    control = part(audit, "released", "control").get("network")
    for name, values in part(audit, "released", "networks").items():
        if name != control:
            yield from _couples(
                f"recogniser {name}",
                "By this recogniser alone, tell people whom its teacher, or the generator, knew from others.",
                values,
            )
            yield from _couples(
                f"recogniser {name}, with its classifier",
                "The same, by one who also has the classifier that it was trained with.",
                part(values, "attacks", "class_centre"),
            )


def not_tried(audit: Part) -> list[str]:
    """What could not be tried, and why."""
    told = []
    if not part(audit, "match_rates", "authentic_synthetic"):
        told.append("Links by label: the synthetic labels are not known to stand for authentic identities.")
    if not part(audit, "membership"):
        told.append("Who trained the generator: there are no people whom it never saw to compare with.")
    elif not part(audit, "membership", "memorised"):
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
                f"{words.percent(at.get('tpr'))} were found ({words.interval(at.get('interval'), words.percent)}) at "
                f"{one_in(key)} false alarms.{_least(part(values, 'shares'))}"
            )
    shuffled = part(audit, "controls", "shuffled")
    if words.finite(shuffled.get("auc")):
        told.append(
            f"With the labels shuffled no link may remain: the AUC is then {shuffled['auc']:.3f} (0.5 is chance)."
        )
    told += _power(part(audit, "power"))
    others = list(part(audit, "other_matchers").values())
    if others:
        agree = sum(_level(other) == _level(audit) for other in others)
        told.append(f"Further matchers that reach the same verdict: {agree} of {len(others)}.")
    return told


def _level(audit: Part) -> Any:
    return part(audit, "verdict").get("level")


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


def _least(shares: Part) -> str:
    """The smallest share of such leaks in the set that the audit notices."""
    noticed = [share for share, values in shares.items() if isinstance(values, dict) and values.get("noticed")]
    if not shares:
        return ""
    if all(values.get("noticed") is None for values in shares.values() if isinstance(values, dict)):
        return " Whether a few more would be noticed cannot be told: the set stands out as it is."
    if not noticed:
        return f" Even {words.percent(max(map(float, shares)))} of the set made of such leaks would go unnoticed."
    return f" {words.percent(min(map(float, noticed)))} of the set made of such leaks would be noticed."


def to_do(audit: Part) -> list[str]:
    """What to do, the most urgent first."""
    level, told = str(_level(audit) or ""), []
    if level and not level.startswith("not detected"):
        told.append(
            "Handle the dataset as the pictures it was made from: the same people may see it, for the same purposes."
        )
    remedy = part(audit, "remedy")
    if remedy.get("excluded"):
        kept = f" {words.count(remedy['kept'])} remain." if words.finite(remedy.get("kept")) else ""
        where = f" They are listed in {remedy['list']}." if remedy.get("list") else ""
        told.append(
            f"Leave out the {words.count(remedy['excluded'])} synthetic pictures that are flagged.{kept}{where}"
        )
        if remedy.get("filtered"):
            told.append("Hand on the dataset without them, which was written, and not the one that was audited.")
        if remedy.get("unused_judge"):
            told.append(
                f"See under Remedy whether that was enough: the matcher “{remedy.get('judge')}”, which had no part in "
                "the choice, has audited what remains."
            )
        else:
            told.append(
                "Audit what remains with a matcher that had no part in the choice: leaving out what one matcher flags "
                "hides it from that matcher first."
            )
    if level and not level.startswith("not detected"):
        told.append(
            "Where the link is of labels and not of single pictures, leaving pictures out will not end it: draw with "
            "less likeness to the training identities (fewer steps of training, lower psi, mixed labels), and compare "
            "by configs/frontier.py what that costs in accuracy."
        )
    if not part(audit, "membership"):
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
    told.append("Audit again whenever the generator, the draw or the list of identities changes.")
    return told
