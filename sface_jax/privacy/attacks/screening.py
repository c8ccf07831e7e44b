"""Screening: which synthetic pictures show an authentic person? Chance is measured on people nobody learned from."""

from __future__ import annotations

import dataclasses
import functools
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, Float32, Int

from sface_jax.privacy.attacks import chance
from sface_jax.privacy.attacks.chance import Tail
from sface_jax.privacy.attacks.links import COHORT, SHARE, Links, Nearest, links, nearest_people
from sface_jax.privacy.relations import Faces

RATES = (1e-2, 1e-3, 1e-4)
SIGNIFICANT = 0.05
LISTED = 100

STRANGERS = 20_000
"""Member pictures that stand in for chance where nobody was held out."""

MORE = 1.25
"""So many times the pictures of a usual held-out person a usual member may have and be compared with them."""

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
        null: those of chance.
        pictures: number of synthetic pictures.
        null_pictures: number of pictures that the chance links are of.
        people: labels of the members.
        null_people: labels of the people that the chance links are with.
        heldout: whether these are people the generator never saw; else they are members, strangers to the pictures.
        comparable: whether members usually have no more pictures than those, see `MORE`.
        rates: false positive rates to freeze thresholds at.
        seed: of the draws.
    """

    links: Links
    null: Links
    pictures: int
    null_pictures: int
    people: Int[np.ndarray, " m"]
    null_people: Int[np.ndarray, " h"]
    heldout: bool
    comparable: bool
    rates: tuple[float, ...]
    seed: int

    @property
    def exchangeable(self) -> bool:
        """Whether, by chance alone, links with any members would be as many as with the people of the null."""
        return self.heldout and self.comparable

    @property
    def scale(self) -> float:
        """How many links chance makes with members for each chance link."""
        compared = len(self.null_people) if self.heldout else len(self.null_people) - 1
        return self.pictures * len(self.people) / (self.null_pictures * compared)

    @functools.cached_property
    def thresholds(self) -> dict[str, Threshold]:
        """The thresholds at each rate that the null supports with one chance link or more, the lowest first."""
        found = {}
        for rate in self.rates:
            allowed = int(rate * self.null_pictures * (1 + 1e-12))
            if 1 <= allowed < len(self.null.scores):
                # above the first score that is one too many; equal scores all go
                value = float(np.nextafter(self.null.scores[allowed], np.float32(np.inf)))
                found[key_of(rate)] = Threshold(value, int((self.null.scores >= value).sum()))
        return found

    @functools.cached_property
    def tail(self) -> Tail:
        """How many links chance makes at scores that it was not seen to reach."""
        return Tail(self.null.scores, self.null.people, self.null_pictures, seed=self.seed)

    @functools.cached_property
    def strongest(self) -> Links:
        """The strongest link of each picture that has one, the strongest first."""
        _, first = np.unique(self.links.pictures, return_index=True)
        first = np.sort(first)
        return Links(*(column[first] for column in self.links))

    def flagged(self, rate: str) -> Links:
        """The strongest link of each picture that is flagged at a rate; none where the null does not support it."""
        at = self.thresholds[rate].value if rate in self.thresholds else np.inf
        kept = self.strongest.scores >= at
        return Links(*(column[kept] for column in self.strongest))

    def by_chance(self, scores: Float32[np.ndarray, " e"]) -> Float[np.ndarray, " e"]:
        """How many links at or above each score chance is expected to make in this search (its E-value)."""
        return self.tail.links_above(scores) * self.scale

    def rate_of(self, scores: Float32[np.ndarray, " e"]) -> list[str]:
        """The lowest rate at which each score is flagged, empty where it is at none."""
        lowest = [""] * len(scores)
        for key, threshold in self.thresholds.items():
            lowest = [key if score >= threshold.value else old for score, old in zip(scores, lowest, strict=True)]
        return lowest

    def p_values(self) -> dict[str, float]:
        """That of the excess at each rate, where people are exchangeable, and of the strongest link ("strongest")."""
        found = {}
        if self.exchangeable:
            for key, threshold in self.thresholds.items():
                counts = (
                    _counts(self.links, self.people, threshold),
                    _counts(self.null, self.null_people, threshold),
                )
                found[key] = chance.p_value(*counts, seed=self.seed)
        if len(self.strongest.scores) and self.tail.known:
            found["strongest"] = float(-np.expm1(-self.by_chance(self.strongest.scores[:1])[0]))
        return found

    def intervals(self) -> dict[str, tuple[float, float]]:
        """The interval of chance at each rate, where people are exchangeable; see `chance.interval`."""
        if not self.exchangeable:
            return {}
        scores = np.concatenate([self.links.scores, self.null.scores])
        members, others = len(self.people), len(self.null_people)
        owners = np.concatenate(
            [
                np.searchsorted(self.people, self.links.people),
                members + np.searchsorted(self.null_people, self.null.people),
            ]
        )[np.argsort(-scores, kind="stable")]
        return {
            key: chance.interval(owners, members + others, others, threshold.allowed, seed=self.seed)
            for key, threshold in self.thresholds.items()
        }

    def p_value(self) -> float:
        """That of all tests together, by Bonferroni; NaN where nothing could be tested."""
        found = self.p_values()
        return min(1.0, len(found) * min(found.values())) if found else np.nan

    def replaced(self, pictures: Int[np.ndarray, " c"], links: Links, null: Links, count: int) -> Screening:
        """The screening of the set in which `count` others, with these links, replace some pictures."""
        kept = np.setdiff1d(np.arange(self.pictures), pictures)
        offset = self.pictures
        joined = [
            _joined(mine.of_pictures(kept), theirs._replace(pictures=theirs.pictures + offset))
            for mine, theirs in ((self.links, links), (self.null, null))
        ]
        number = len(kept) + count
        null_pictures = number if self.heldout else self.null_pictures
        null_links = joined[1] if self.heldout else self.null
        return dataclasses.replace(self, links=joined[0], null=null_links, pictures=number, null_pictures=null_pictures)

    def figures(self, listed: int = LISTED) -> dict[str, Any]:
        """What was found, for JSON.

        Returns:
            `null` (what chance was measured on), sizes, `calibration`, `rates` (of each supported rate `threshold`,
            `exceedances`, `fpr`, `rule_of_30`, `flagged` pictures, their `links`, those `expected` by chance with the
            95 % `interval` of chance, `excess`, `p_value`), `unsupported` rates, `strongest` (`score`,
            `expected_by_chance`, `p_value`), `p_value` of all tests together, `noticed`, `notes`, and `suspicious`,
            the `listed` most suspicious pictures.
        """
        p_values, intervals, rates = self.p_values(), self.intervals(), {}
        for key, threshold in self.thresholds.items():
            count = int((self.links.scores >= threshold.value).sum())
            expected = threshold.allowed * self.scale
            rates[key] = {
                "threshold": threshold.value,
                "exceedances": threshold.allowed,
                "fpr": threshold.allowed / self.null_pictures,
                "rule_of_30": threshold.allowed >= chance.ENOUGH,
                "flagged": len(self.flagged(key).scores),
                "links": count,
                "expected": expected,
                "interval": list(intervals[key]) if key in intervals else None,
                "excess": count - expected,
                "p_value": p_values.get(key),
            }
        first = self.strongest.scores[:1]
        combined = self.p_value()
        return {
            "null": HELDOUT if self.heldout else AUTHENTIC,
            "pictures": self.pictures,
            "people": len(self.people),
            "null_pictures": self.null_pictures,
            "null_people": len(self.null_people),
            "calibration": f"cosine less {SHARE:g} of the mean over the {COHORT} most alike other people",
            "rates": rates,
            "unsupported": [key_of(rate) for rate in self.rates if key_of(rate) not in rates],
            "strongest": {
                "score": float(first[0]) if len(first) else None,
                "expected_by_chance": float(self.by_chance(first)[0]) if len(first) else None,
                "p_value": p_values.get("strongest"),
            },
            "p_value": combined,
            "noticed": combined < SIGNIFICANT if np.isfinite(combined) else None,
            "notes": self._notes(),
            "suspicious": suspicious(self, listed),
        }

    def _notes(self) -> list[str]:
        notes = []
        if not self.heldout:
            notes.append("Without held-out people the excess of links cannot be tested, only the strongest link.")
        elif not self.comparable:
            notes.append(
                "Members have more pictures each than held-out people, so that chance links them oftener than is "
                "expected here: the excess is not tested."
            )
        if not self.tail.known:
            notes.append(f"Fewer than {chance.ENOUGH} chance links: the strongest link cannot be judged.")
        return notes


def screen(
    synthetic: Faces,
    members: Faces,
    heldout: Faces | None = None,
    *,
    rates: tuple[float, ...] = RATES,
    seed: int = 0,
) -> Screening:
    """Looks for synthetic pictures that show a member.

    A picture is linked with the people it resembles, see `links`; thresholds are frozen on its links with held-out
    people. A rate is of false links for each picture and as many people as are held out; among m members chance makes
    m / h times as many, as identities are exchangeable.

    Args:
        synthetic: the pictures; their labels do not matter.
        members: authentic pictures the generator learned from.
        heldout: pictures of other people from the same source, drawn at random from all. Where there are none, member
            pictures are linked with other members in place of this.
        rates: false positive rates, falling.
        seed: of the draws.
    """
    found = nearest_people(synthetic.embeddings, members)
    people = np.unique(members.labels)
    common = {"pictures": len(synthetic), "people": people, "rates": tuple(rates), "seed": seed}
    if heldout is not None:
        linked, null = links(found, nearest_people(synthetic.embeddings, heldout))
        null_people = np.unique(heldout.labels)
        comparable = _usual_number(members) <= MORE * _usual_number(heldout)
        return Screening(
            linked, null, null_pictures=len(synthetic), null_people=null_people, heldout=True, comparable=comparable,
            **common,
        )  # fmt: skip
    (linked,) = links(found)
    chosen = np.sort(np.random.default_rng(seed).permutation(len(members))[:STRANGERS])
    (null,) = links(
        nearest_people(members.embeddings[chosen], members, COHORT + 2), own=members.labels[chosen].astype(np.int64)
    )
    return Screening(
        linked, null, null_pictures=len(chosen), null_people=people, heldout=False, comparable=False, **common
    )


def links_of(
    embeddings: Float32[np.ndarray, "n d"], members: Faces, heldout: Faces | None = None
) -> tuple[Links, Links]:
    """The links of pictures with members, and with held-out people; of the latter none where there are none."""
    found: Nearest = nearest_people(embeddings, members)
    if heldout is None:
        (linked,) = links(found)
        return linked, Links(*(column[:0] for column in linked))
    linked, null = links(found, nearest_people(embeddings, heldout))
    return linked, null


def suspicious(screening: Screening, most: int) -> list[dict[str, Any]]:
    """The pictures flagged at any rate, the most suspicious first.

    Returns:
        Of each the rows `picture` and `member`, the `identity` (label), `score`, `cosine`, the lowest `rate` at which
        it is flagged, and `expected_by_chance`, the links that strong which chance makes in this search.
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


def _usual_number(faces: Faces) -> float:
    """The median number of pictures of a person."""
    return float(np.median(np.unique(faces.labels, return_counts=True)[1]))


def _counts(found: Links, people: Int[np.ndarray, " p"], threshold: Threshold) -> Int[np.ndarray, " p"]:
    """Links of each person at or above a threshold."""
    owners = np.searchsorted(people, found.people[found.scores >= threshold.value])
    return np.bincount(owners, minlength=len(people))


def key_of(rate: float) -> str:
    """1e-2 for 0.01, as everywhere in the audit."""
    mantissa, _, exponent = f"{rate:e}".partition("e")
    return f"{float(mantissa):g}e{int(exponent)}"
