"""Identities that two sets have in common: by their names, by equal pictures, and as a recogniser sees them."""

from __future__ import annotations

import collections
import dataclasses
import itertools
from typing import NamedTuple

import numpy as np
from jaxtyping import Float32

from sface_jax.privacy import matching
from sface_jax.privacy.inputs import same_names
from sface_jax.privacy.overlap.people import People

NEIGHBOURS = 5  # of an identity, in another set
STRANGERS = 10  # of a set, the most alike, that are told; exact up to twice NEIGHBOURS
COMMON = 10  # identities of a set that a picture may belong to; what more of them have is a placeholder
LEAST = 60  # pairs of strangers: with fewer, none of which is as alike, the FMR may still be above 5 %


@dataclasses.dataclass(frozen=True)
class Threshold:
    """A cosine at and above which two mean embeddings are taken for one person's.

    Attributes:
        value: the cosine; None where none can be frozen, and so nobody is confirmed.
        comparisons: of identities within a set, on which it was frozen.
        false_matches: those of them at or above it.
    """

    value: float | None
    comparisons: int
    false_matches: int

    @property
    def fmr(self) -> float:
        """The false match rate as measured."""
        return self.false_matches / max(self.comparisons, 1)

    @property
    def fmr_at_most(self) -> float:
        """The upper end of its one-sided 95 % interval; for no false match 3 / comparisons, the rule of three.

        Poisson's, by Wilson and Hilferty's approximation, which is low by 1 % at most. It takes the comparisons for
        independent; those of one identity are not.
        """
        k = self.false_matches + 1
        return min(k * (1 - 1 / (9 * k) + 1.645 / (3 * k**0.5)) ** 3 / max(self.comparisons, 1), 1.0)

    @property
    def words(self) -> str:
        """How it was frozen, and what it can tell."""
        if self.value is None and self.comparisons < LEAST:
            return (
                f"no threshold: {self.comparisons} pairs of identities within the sets cannot freeze one, "
                f"{LEAST} or more can (12 identities): the recogniser confirms nobody"
            )
        if self.value is None:
            return (
                f"no threshold: of {self.comparisons:,} pairs of identities within the sets, too many are as alike as "
                "equal pictures: the recogniser confirms nobody"
            )
        return (
            f"threshold {self.value:.3f}: {self.false_matches:,} of {self.comparisons:,} pairs of identities within "
            f"the sets are as alike, so the FMR is {f'{self.fmr:.2g}, ' if self.false_matches else ''}at most "
            f"{self.fmr_at_most:.2g} (95 %, as if pairs were independent)"
        )


class Strangers(NamedTuple):
    """Two identities of one set, which are different people by their names."""

    similarity: float
    first: int
    second: int


@dataclasses.dataclass(frozen=True)
class Found:
    """An identity of one set that may be one of another.

    Attributes:
        first: its name in the first set.
        second: its name in the second.
        places: where the two are in their sets.
        by_name: `same_names.EQUAL` or `NORMALISED`, or empty.
        placeholder: whether one of the names is such, see `same_names.placeholders`.
        pictures: how many pictures of the two have equal pixels.
        similarity: cosine of the mean embeddings, where a network looked.
        confirmed: whether that is at or above the threshold.
    """

    first: str
    second: str
    places: tuple[int, int]
    by_name: str
    placeholder: bool
    pictures: int
    similarity: float | None
    confirmed: bool

    @property
    def seen(self) -> bool:
        """Whether pictures say so, and not names alone."""
        return self.confirmed or self.pictures > 0

    @property
    def counts(self) -> bool:
        """Whether it is reason to leave the identity out: a placeholder's name alone is not."""
        return self.seen or bool(self.by_name and not self.placeholder)


@dataclasses.dataclass(frozen=True)
class Shared:
    """What two sets have in common.

    Attributes:
        first: one set.
        second: the other.
        threshold: for the recogniser; None where none looked.
        found: the identities, the most alike first.
        unlisted: further pairs at or above the threshold: an identity has `NEIGHBOURS` at most in `found`.
        pictures: different pictures that are in both, pixel for pixel.
        passed_over: further ones that more than `COMMON` identities of a set have: placeholders for missing pictures.
    """

    first: People
    second: People
    threshold: Threshold | None
    found: list[Found]
    unlisted: int
    pictures: int
    passed_over: int

    @property
    def by_name(self) -> list[Found]:
        """Those with one name, but for placeholders."""
        return [f for f in self.found if f.by_name and not f.placeholder]

    @property
    def by_placeholder(self) -> list[Found]:
        """Those with one placeholder for a name."""
        return [f for f in self.found if f.by_name and f.placeholder]

    @property
    def others(self) -> list[Found]:
        """Those that only pictures tell of."""
        return [f for f in self.found if not f.by_name]

    @property
    def looked(self) -> bool:
        """Whether a recogniser could confirm anybody."""
        return self.threshold is not None and self.threshold.value is not None

    @property
    def summary(self) -> str:
        """The same in a sentence."""
        parts = []
        if not (self.first.named and self.second.named):
            parts.append("names are not known in both")
        else:
            parts.append(self._names())
        if self.by_placeholder:
            parts.append(self._placeholders())
        if self.looked:
            parts.append(self._recognised())
        elif self.threshold:
            parts.append("none confirmed by the recogniser, which has no threshold")
        equal = _count(self.pictures, "equal picture", "equal pictures") if self.pictures else "no equal pictures"
        if self.passed_over:
            equal += f" but for {self.passed_over:,} of more than {COMMON} identities of a set (placeholders?)"
        parts.append(equal + ("" if self.first.whole and self.second.whole else " among those looked at"))
        return f"{self.first.name} and {self.second.name}: {', '.join(parts)}"

    def _names(self) -> str:
        named = self.by_name
        if not named:
            return "no identity by name"
        written = sum(f.by_name == same_names.NORMALISED for f in named)
        told = f"{_count(len(named), 'identity', 'identities')} by name"
        told += f" ({written:,} written differently)" * bool(written)
        if self.looked:
            told += f", {sum(f.confirmed for f in named):,} of them confirmed by pictures' embeddings"
        return told

    def _placeholders(self) -> str:
        both, seen = self.by_placeholder, sum(f.seen for f in self.by_placeholder)
        witnesses = "the recogniser or an equal picture" if self.looked else "an equal picture"
        names = _count(len(both), "placeholder name", "placeholder names")
        return f"{names} in both, which by themselves say nothing, {seen or 'none'} of them borne out by {witnesses}"

    def _recognised(self) -> str:
        more = sum(f.confirmed for f in self.others) + self.unlisted
        rates = self.threshold.fmr, self.threshold.fmr_at_most
        chance, most = (_rounded(rate * len(self.first) * len(self.second)) for rate in rates)
        expected = f"{f'about {chance}, ' if self.threshold.false_matches else ''}at most {most} expected by chance"
        told = f"{f'{more:,}' if more else 'none'} {'more ' if self.by_name or self.by_placeholder else ''}"
        return f"{told}found by the recogniser ({expected})"


def freeze(
    sets: list[People], seen: list[Float32[np.ndarray, "_ d"]], fmr: float
) -> tuple[Threshold, dict[str, list[Strangers]]]:
    """Freezes the threshold on pairs of identities within each set, which are different people by their names.

    It is the lowest at which no more than a share `fmr` of them would be taken for one person. A person who is in a set
    under two names raises it: that is why the pairs most alike are told. There is none with fewer than `LEAST` pairs.

    Args:
        sets: those without names of people give no pairs.
        seen: mean embeddings of each.
        fmr: the share.

    Returns:
        The threshold, and of each set the pairs most alike.
    """
    counts, edges, strangers = np.zeros(1, np.int64), None, {}
    for people, rows in zip(sets, seen, strict=True):
        if not people.named or len(people) < 2:
            continue
        labels = np.arange(len(people))
        matches = matching.match(rows, rows, labels, labels, top_k=NEIGHBOURS, exclude_self=True)
        counts, edges = counts + matches.non_mated, matches.edges
        # of two identities each may be the other's neighbour, or one of them alone
        alike = {(min(a, b), max(a, b)): score for a, b, score in _neighbours(matches, -np.inf)}
        best = sorted(((score, *both) for both, score in alike.items()), reverse=True)[:STRANGERS]
        strangers[people.name] = [Strangers(*pair) for pair in best]
    accepted = np.append(counts[::-1].cumsum()[::-1], 0)  # at or above each edge
    at, comparisons = int(np.argmax(accepted <= fmr * accepted[0])), int(accepted[0])
    # above the last bin's start there is no cosine
    frozen = float(edges[at]) if comparisons >= LEAST and at < len(counts) else None
    return Threshold(frozen, comparisons, int(accepted[at]) if frozen is not None else 0), strangers


def compare(
    first: People,
    second: People,
    seen: tuple[Float32[np.ndarray, "a d"], Float32[np.ndarray, "b d"]] | None,
    threshold: Threshold | None,
) -> Shared:
    """What two sets may have in common.

    Args:
        first: one set.
        second: the other.
        seen: their mean embeddings, where a network looked.
        threshold: for these.
    """
    named: dict[tuple[int, int], str] = {}
    if first.named and second.named:
        named = same_names.pairs(first.names, second.names)
    numbered = [same_names.placeholders(people.names) for people in (first, second)]
    equal, shared, passed_over = _equal_pictures(first, second)
    alike: dict[tuple[int, int], float] = {}
    unlisted, least = 0, threshold.value if threshold else None
    if seen and least is not None:
        labels = np.zeros(len(first), np.int32), np.zeros(len(second), np.int32)
        matches = matching.match(*seen, *labels, top_k=NEIGHBOURS)
        alike = {(a, b): score for a, b, score in _neighbours(matches, least)}
        if (matches.top_scores[:, -1] >= least).any():  # some may have more
            unlisted = max(int(matches.mated[matches.edges[:-1] >= least].sum()) - len(alike), 0)
    found = []
    for a, b in {*named, *equal, *alike}:
        similarity = alike.get((a, b), float(seen[0][a] @ seen[1][b])) if seen else None
        names = first.names[a], second.names[b]
        found.append(
            Found(
                *names,
                places=(a, b),
                by_name=named.get((a, b), ""),
                placeholder=any(name in those for name, those in zip(names, numbered, strict=True)),
                pictures=equal.get((a, b), 0),
                similarity=similarity,
                confirmed=least is not None and similarity >= least,
            )
        )
    found.sort(key=lambda f: (-(f.similarity or 0), f.places))
    return Shared(first, second, threshold, found, unlisted, shared, passed_over)


def _neighbours(matches: matching.Matches, least: float) -> list[tuple[int, int, float]]:
    """(query, gallery, cosine) of neighbours at or above a cosine."""
    rows, ranks = np.nonzero((matches.top_indices >= 0) & (matches.top_scores >= least))
    others, scores = matches.top_indices[rows, ranks], matches.top_scores[rows, ranks]
    return list(zip(rows.tolist(), others.tolist(), scores.tolist(), strict=True))


def _equal_pictures(first: People, second: People) -> tuple[dict[tuple[int, int], int], int, int]:
    """How many pictures of two identities have equal pixels; and how many different such pictures count, or do not."""
    shared = np.intersect1d(first.hashes, second.hashes)
    owners = []
    for people in (first, second):
        of = collections.defaultdict(set)
        common = np.isin(people.hashes, shared)
        for value, label in zip(people.hashes[common].tolist(), people.labels[common].tolist(), strict=True):
            of[value].add(label)
        owners.append(of)
    counts: collections.Counter[tuple[int, int]] = collections.Counter()
    told = [value for value in shared.tolist() if max(len(of[value]) for of in owners) <= COMMON]
    for value in told:
        counts.update(itertools.product(*(of[value] for of in owners)))
    return dict(counts), len(told), len(shared) - len(told)


def _count(number: int, one: str, many: str) -> str:
    return f"{number:,} {one if number == 1 else many}"


def _rounded(number: float) -> str:
    """With two digits, large ones in full."""
    return f"{number:,.0f}" if number >= 10 else f"{number:.2g}"
