"""Screening: which synthetic pictures show an authentic person? Chance is measured on people nobody learned from."""

from __future__ import annotations

import dataclasses
import functools
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, Float32, Int

from sface_jax.privacy.attacks import chance, strangers
from sface_jax.privacy.attacks.chance import Tail
from sface_jax.privacy.attacks.links import COHORT, SHARE, Links, links, nearest_people
from sface_jax.privacy.attacks.strangers import Galleries
from sface_jax.privacy.relations import Faces
from sface_jax.verification import curves

RATES = (1e-2, 1e-3, 1e-4)
SIGNIFICANT = 0.05
LISTED = 100

STRANGERS = 20_000
"""Member pictures that stand in for chance where nobody was held out."""

_NEAR = COHORT + 6  # people near a member's picture, of whom itself and some under other labels are taken out

HELDOUT = "held-out people"
AUTHENTIC = "authentic strangers, in place of held-out people: weaker, as these pictures are not synthetic ones"


class Threshold(NamedTuple):
    """A frozen one.

    Attributes:
        value: links at or above it count.
        allowed: chance links there, among those that froze it.
    """

    value: float
    allowed: int


@dataclasses.dataclass(frozen=True)
class Screening:
    """The links of synthetic pictures with members, and those of chance.

    Attributes:
        links: with members.
        tested: the same with as many pictures of each member as held-out people have, see `strangers.galleries`:
            counts, expectations and tests are of these.
        null: those of chance.
        pictures: number of synthetic pictures.
        null_pictures: number of pictures that the chance links are of.
        identities: number of different labels of the synthetic pictures.
        null_identities: that of the pictures that the chance links are of.
        people: labels of the members.
        null_people: labels of the people that the chance links are with.
        heldout: whether these are people the generator never saw; else they are members, strangers to the pictures.
        drawn: whether `tested` are not of all pictures of members.
        people_known: whether labels tell people apart; else no test holds, as it is people who are exchangeable.
        same_people: held-out people who look to be members, or couples of members who look to be one, left out.
        rates: false positive rates to freeze thresholds at.
        seed: of the draws.
    """

    links: Links
    tested: Links
    null: Links
    pictures: int
    null_pictures: int
    identities: int
    null_identities: int
    people: Int[np.ndarray, " m"]
    null_people: Int[np.ndarray, " h"]
    heldout: bool
    drawn: bool
    people_known: bool
    same_people: int
    rates: tuple[float, ...]
    seed: int

    @property
    def exchangeable(self) -> bool:
        """Whether, by chance alone, links with any members would be as many as with the people of the null."""
        return self.heldout and self.people_known

    @property
    def crowd(self) -> float:
        """How many members there are for each person of the null that a picture was compared with."""
        return len(self.people) / (len(self.null_people) if self.heldout else len(self.null_people) - 1)

    @property
    def scale(self) -> float:
        """How many links chance makes with members for each chance link."""
        return self.crowd * self.pictures / self.null_pictures

    @functools.cached_property
    def thresholds(self) -> dict[str, Threshold]:
        """The thresholds at each rate that the null supports with one chance link or more, the lowest first."""
        found = {}
        for rate in self.rates:
            allowed = curves.allowed(rate, self.null_pictures)
            if 1 <= allowed < len(self.null.scores):
                # above the first score that is one too many; equal scores all go
                value = float(np.nextafter(self.null.scores[allowed], np.float32(np.inf)))
                found[curves.rate_name(rate)] = Threshold(value, int((self.null.scores >= value).sum()))
        return found

    @functools.cached_property
    def tail(self) -> Tail:
        """How many links chance makes at scores that it was not seen to reach."""
        return Tail(self.null.scores, self.null.people, seed=self.seed)

    @functools.cached_property
    def strongest(self) -> Links:
        """The strongest link of each picture that has one, the strongest first."""
        return self.links.strongest()

    def flagged(self, rate: str) -> Links:
        """The strongest link of each picture that is flagged at a rate; none where the null does not support it."""
        return self._above(self.strongest, rate)

    def flagged_in_test(self, rate: str) -> Links:
        """The same among the links that are tested."""
        return self._above(self.tested.strongest(), rate)

    def flagged_by_null(self, rate: str) -> Links:
        """The same with held-out people, in place of members; with nobody where there are none."""
        return self._above(self.null.strongest(), rate if self.heldout else "")

    def by_chance(self, scores: Float32[np.ndarray, " e"]) -> Float[np.ndarray, " e"]:
        """How many members chance is expected to link at or above each score in this search (its E-value).

        Where nobody is held out they are at most as many times more as there are more pictures, or identities of these.
        """
        if self.heldout:
            return self.tail.people_above(scores) * self.crowd
        more = max(self.pictures / self.null_pictures, self.identities / self.null_identities)
        return self.tail.people_above(scores) * more

    def rate_of(self, scores: Float32[np.ndarray, " e"]) -> list[str]:
        """The lowest rate at which each score is flagged, empty where it is at none."""
        lowest = [""] * len(scores)
        for key, threshold in self.thresholds.items():
            lowest = [key if score >= threshold.value else old for score, old in zip(scores, lowest, strict=True)]
        return lowest

    def p_values(self) -> dict[str, float]:
        """That of the excess at each rate, where people are exchangeable, and of the strongest link ("strongest").

        There is none where people are not known.
        """
        found = {}
        if self.exchangeable:
            for key, threshold in self.thresholds.items():
                counts = (
                    _counts(self.tested, self.people, threshold),
                    _counts(self.null, self.null_people, threshold),
                )
                found[key] = chance.p_value(*counts, seed=self.seed)
        if self.people_known and len(self.tested.scores) and self.tail.known:
            found["strongest"] = float(-np.expm1(-self.by_chance(self.tested.scores[:1])[0]))
        return found

    def intervals(self) -> dict[str, tuple[tuple[float, float], tuple[float, float]]]:
        """The intervals of chance at each rate, where people are exchangeable; see `chance.interval`."""
        if not self.exchangeable:
            return {}
        order = np.argsort(-np.concatenate([self.tested.scores, self.null.scores]), kind="stable")
        members, others = len(self.people), len(self.null_people)
        owners = np.concatenate(
            [
                np.searchsorted(self.people, self.tested.people),
                members + np.searchsorted(self.null_people, self.null.people),
            ]
        )[order]
        pictures = np.concatenate([self.tested.pictures, self.null.pictures])[order]
        return {
            key: chance.interval(owners, pictures, members + others, others, threshold.allowed, seed=self.seed)
            for key, threshold in self.thresholds.items()
        }

    def p_value(self) -> float:
        """That of all tests together, by Bonferroni; NaN where nothing could be tested."""
        found = self.p_values()
        return min(1.0, len(found) * min(found.values())) if found else np.nan

    def replaced(self, pictures: Int[np.ndarray, " c"], found: Found, count: int) -> Screening:
        """The screening of the set in which `count` others, with these links, replace some pictures."""
        kept = np.ones(self.pictures, bool)
        kept[pictures] = False
        joined = [
            _joined(mine.of_pictures(kept), theirs._replace(pictures=theirs.pictures + self.pictures))
            for mine, theirs in zip((self.links, self.tested, self.null)[: 2 + self.heldout], found, strict=False)
        ]
        number = int(kept.sum()) + count
        changes = {"null": joined[2], "null_pictures": number} if self.heldout else {}
        return dataclasses.replace(self, links=joined[0], tested=joined[1], pictures=number, **changes)

    def figures(self, listed: int = LISTED) -> dict[str, Any]:
        """What was found, for JSON.

        Returns:
            `null` (what chance was measured on), sizes, `calibration`, `rates` (of each supported rate `threshold`,
            `exceedances`, `fpr`, `rule_of_30`; `flagged` pictures, those `expected_flagged` by chance, the 95 %
            `interval_flagged` of chance, `excess_low`, by which it is exceeded; the same of links: `links`, `expected`,
            `interval`, `excess`; `p_value` and, for all tests, `p_adjusted`; `listed`, the pictures flagged with all
            pictures of members), `unsupported` rates, `strongest` (`score`, the members `expected_by_chance` to be
            linked as strongly, `p_value`, `p_adjusted`), `p_value` of all tests together, `noticed`, `same_people`,
            `drawn` (whether each member was tested with no more pictures than held-out people have), `notes`, and
            `suspicious`, the `listed` most suspicious pictures.
        """
        p_values, intervals, rates = self.p_values(), self.intervals(), {}
        adjusted = {key: min(1.0, len(p_values) * value) for key, value in p_values.items()}  # Bonferroni
        for key, threshold in self.thresholds.items():
            count, expected = int((self.tested.scores >= threshold.value).sum()), threshold.allowed * self.scale
            links, shown = intervals.get(key, (None, None))
            flagged = len(self.flagged_in_test(key).scores)
            rates[key] = {
                "threshold": threshold.value,
                "exceedances": threshold.allowed,
                "fpr": threshold.allowed / self.null_pictures,
                "rule_of_30": threshold.allowed >= chance.ENOUGH,
                "flagged": flagged,
                "expected_flagged": self._expected_flagged(threshold),
                "interval_flagged": list(shown) if shown else None,
                "excess_low": flagged - shown[1] if shown else None,
                "links": count,
                "expected": expected,
                "interval": list(links) if links else None,
                "excess": count - expected,
                "p_value": p_values.get(key),
                "p_adjusted": adjusted.get(key),
                "listed": len(self.flagged(key).scores),
            }
        first = self.tested.scores[:1]
        combined = min(adjusted.values()) if adjusted else np.nan
        return {
            "null": HELDOUT if self.heldout else AUTHENTIC,
            "pictures": self.pictures,
            "people": len(self.people),
            "null_pictures": self.null_pictures,
            "null_people": len(self.null_people),
            "calibration": f"cosine less {SHARE:g} of the mean over the {COHORT} most alike other people",
            "rates": rates,
            "unsupported": [curves.rate_name(rate) for rate in self.rates if curves.rate_name(rate) not in rates],
            "strongest": {
                "score": float(first[0]) if len(first) else None,
                "expected_by_chance": float(self.by_chance(first)[0]) if len(first) else None,
                "p_value": p_values.get("strongest"),
                "p_adjusted": adjusted.get("strongest"),
            },
            "p_value": combined,
            "noticed": combined < SIGNIFICANT if np.isfinite(combined) else None,
            "same_people": self.same_people,
            "drawn": self.drawn,
            "notes": self._notes(),
            "suspicious": suspicious(self, listed),
        }

    def _notes(self) -> list[str]:
        notes = []
        if not self.heldout:
            notes.append("Without held-out people the excess of links cannot be tested, only the strongest link.")
        if self.drawn:
            notes.append(
                "Members have other numbers of pictures than held-out people: for counts and tests as many of each "
                "were drawn, the list of suspicious pictures is sought with all pictures of members."
            )
        if self.same_people:
            notes.append(
                f"{self.same_people:,} held-out people look to be members and are left out."
                if self.heldout
                else f"{self.same_people:,} couples of members look to be one person under two labels: "
                "their links with each other are not taken for chance."
            )
        if not self.people_known:
            notes.append("Which authentic pictures show one person is not known: links are listed, but not tested.")
        elif not self.tail.known:
            notes.append(f"Chance links fewer than {chance.ENOUGH} people here: the strongest link cannot be judged.")
        return notes

    def _expected_flagged(self, threshold: Threshold) -> float:
        """Pictures that chance flags among members, were links of a picture independent: no less than there are."""
        share = len(np.unique(self.null.pictures[self.null.scores >= threshold.value])) / self.null_pictures
        return float(self.pictures * (1 - (1 - share) ** self.crowd))

    def _above(self, strongest: Links, rate: str) -> Links:
        at = self.thresholds[rate].value if rate in self.thresholds else np.inf
        return Links(*(column[strongest.scores >= at] for column in strongest))


class Found(NamedTuple):
    """Links of some pictures: with members, with those of their pictures that are tested, and with held-out people."""

    links: Links
    tested: Links
    null: Links


def screen(
    synthetic: Faces,
    members: Faces,
    heldout: Faces | None = None,
    *,
    rates: tuple[float, ...] = RATES,
    people_known: bool = True,
    seed: int = 0,
) -> Screening:
    """Looks for synthetic pictures that show a member.

    A picture is linked with the people it resembles, see `links`; thresholds are frozen on its links with held-out
    people. A rate is of false links for each picture and as many people as are held out; among m members chance makes
    m / h times as many, as identities are exchangeable.

    Args:
        synthetic: the pictures; their labels do not matter where people are held out.
        members: authentic pictures the generator learned from.
        heldout: pictures of other people from the same source, drawn at random from all. Where there are none, member
            pictures are linked with other members in place of this.
        rates: false positive rates, falling.
        people_known: whether the labels of authentic pictures tell people apart; else nothing is tested.
        seed: of the draws.

    Raises:
        UserError: every held-out person looks to be a member.
    """
    sought = strangers.galleries(members, heldout, seed)
    found = links_of(synthetic.embeddings, sought)
    if sought.heldout is not None:
        null, null_pictures, same = found.null, synthetic, sought.same
    else:
        chosen = np.sort(np.random.default_rng(seed).permutation(len(members))[:STRANGERS])
        null_pictures = Faces(members.embeddings[chosen], members.labels[chosen].astype(np.int64))
        near = nearest_people(null_pictures.embeddings, members, _NEAR)
        least = strangers.same_person(members, null_pictures.identities, seed)
        near, same = strangers.apart(near, null_pictures.labels, least)
        (null,) = links(near, own=null_pictures.labels)
    return Screening(
        found.links,
        found.tested,
        null,
        pictures=len(synthetic),
        null_pictures=len(null_pictures),
        identities=synthetic.identities,
        null_identities=null_pictures.identities,
        people=np.unique(members.labels),
        null_people=np.unique((sought.heldout or members).labels),
        heldout=sought.heldout is not None,
        drawn=sought.drawn,
        people_known=people_known,
        same_people=same,
        rates=tuple(rates),
        seed=seed,
    )


def links_of(embeddings: Float32[np.ndarray, "n d"], sought: Galleries) -> Found:
    """The links of pictures; none with held-out people where there are none."""
    if sought.heldout is None:
        (linked,) = links(nearest_people(embeddings, sought.members))
        return Found(linked, linked, Links(*(column[:0] for column in linked)))
    others = nearest_people(embeddings, sought.heldout)
    tested, null = links(nearest_people(embeddings, sought.tested), others)
    linked = links(nearest_people(embeddings, sought.members), others)[0] if sought.drawn else tested
    return Found(linked, tested, null)


def suspicious(screening: Screening, most: int) -> list[dict[str, Any]]:
    """The pictures flagged at any rate, the most suspicious first.

    Returns:
        Of each the rows `picture` and `member`, the `identity` (label), `score`, `cosine`, the lowest `rate` at which
        it is flagged, and `expected_by_chance`, the members whom chance links as strongly in this search.
    """
    top = Links(*(column[:most] for column in screening.strongest))
    rates, expected = screening.rate_of(top.scores), screening.by_chance(top.scores)
    return [
        {
            "picture": int(top.pictures[i]),
            "member": int(top.rows[i]),
            "identity": int(top.people[i]),
            "score": float(top.scores[i]),
            "cosine": float(top.cosines[i]),
            "rate": rates[i],
            "expected_by_chance": float(expected[i]),
        }
        for i in range(len(top.scores))
        if rates[i]
    ]


def _joined(first: Links, second: Links) -> Links:
    columns = [np.concatenate(pair) for pair in zip(first, second, strict=True)]
    order = np.argsort(-columns[0], kind="stable")
    return Links(*(column[order] for column in columns))


def _counts(found: Links, people: Int[np.ndarray, " p"], threshold: Threshold) -> Int[np.ndarray, " p"]:
    """Links of each person at or above a threshold."""
    owners = np.searchsorted(people, found.people[found.scores >= threshold.value])
    return np.bincount(owners, minlength=len(people))
