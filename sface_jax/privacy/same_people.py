"""Identities that two sets have in common: by their names, by equal pictures, and as a recogniser sees them."""

from __future__ import annotations

import collections
import dataclasses
import itertools
from typing import NamedTuple

import numpy as np
from absl import logging
from jaxtyping import Float32

from sface_jax.core.errors import UserError
from sface_jax.privacy import matching, same_names
from sface_jax.privacy.people import People

NEIGHBOURS = 5  # of an identity, in another set
STRANGERS = 10  # of a set, the most alike, that are told
COMMON = 10  # identities of a set that a picture may belong to; what more of them have is a placeholder


@dataclasses.dataclass(frozen=True)
class Threshold:
    """A cosine at and above which two mean embeddings are taken for one person's.

    Attributes:
        value: the cosine.
        comparisons: of identities within a set, on which it was frozen.
        false_matches: those of them at or above it.
    """

    value: float
    comparisons: int
    false_matches: int

    @property
    def fmr(self) -> float:
        """The false match rate: as measured, or what it is below at 95 % where none was seen (the rule of three)."""
        return (self.false_matches or 3) / self.comparisons

    @property
    def words(self) -> str:
        """How it was frozen, and what it can tell."""
        seen = f"{self.false_matches} of {self.comparisons:,} pairs of identities within the sets are as alike"
        if not self.false_matches:
            sure = f"so the FMR is below {self.fmr:.2g} (rule of three, 95 %), and no better is known"
        elif self.false_matches < 30:
            sure = f"an FMR of {self.fmr:.2g}, which fewer than 30 pairs do not measure to better than a factor of two"
        else:
            sure = f"an FMR of {self.fmr:.2g}"
        return f"threshold {self.value:.3f}: {seen}, {sure}"


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
        numbers: whether the names are only numbers.
        pictures: how many pictures of the two have equal pixels.
        similarity: cosine of the mean embeddings, where a network looked.
        confirmed: whether that is at or above the threshold.
    """

    first: str
    second: str
    places: tuple[int, int]
    by_name: str
    numbers: bool
    pictures: int
    similarity: float | None
    confirmed: bool

    @property
    def counts(self) -> bool:
        """Whether it is reason to leave the identity out: equal numbers alone are not."""
        return bool(self.pictures) or self.confirmed or bool(self.by_name and not self.numbers)


def freeze(
    sets: list[People], seen: list[Float32[np.ndarray, "_ d"]], fmr: float
) -> tuple[Threshold, dict[str, list[Strangers]]]:
    """Freezes the threshold on pairs of identities within each set, which are different people by their names.

    It is the lowest at which no more than a share `fmr` of them would be taken for one person. A person who is in a set
    under two names raises it: that is why the pairs most alike are told.

    Args:
        sets: those without names of people give no pairs.
        seen: mean embeddings of each.
        fmr: the share.

    Returns:
        The threshold, and of each set the pairs most alike.

    Raises:
        UserError: there is no such pair.
    """
    counts, edges, strangers = 0, None, {}
    for people, rows in zip(sets, seen, strict=True):
        if not people.named or len(people) < 2:
            continue
        labels = np.arange(len(people))
        matches = matching.match(rows, rows, labels, labels, top_k=NEIGHBOURS, exclude_self=True)
        counts, edges = counts + matches.non_mated, matches.edges
        alike = sorted((Strangers(s, a, b) for a, b, s in _neighbours(matches, -np.inf) if a < b), reverse=True)
        strangers[people.name] = alike[:STRANGERS]
    if edges is None:
        raise UserError(
            "no set has two identities with names, so no threshold can be frozen: add one to config.sets, "
            "or set --config.matcher= to compare names and pixels only"
        )
    accepted = np.append(counts[::-1].cumsum()[::-1], 0)  # at or above each edge
    at = int(np.argmax(accepted <= fmr * accepted[0]))
    return Threshold(float(edges[at]), int(accepted[0]), int(accepted[at])), strangers


def compare(
    first: People,
    second: People,
    seen: tuple[Float32[np.ndarray, "a d"], Float32[np.ndarray, "b d"]] | None,
    threshold: Threshold | None,
) -> list[Found]:
    """The identities that two sets may have in common, the most alike first.

    Args:
        first: one set.
        second: the other.
        seen: their mean embeddings, where a network looked.
        threshold: for these.
    """
    named = same_names.pairs(first.names, second.names) if first.named and second.named else {}
    equal = _equal_pictures(first, second)
    together = {*named, *equal}
    if seen:
        labels = np.zeros(len(first), np.int32), np.zeros(len(second), np.int32)
        matches = matching.match(*seen, *labels, top_k=NEIGHBOURS)
        together |= {(a, b) for a, b, _ in _neighbours(matches, threshold.value)}
    found = []
    for a, b in together:
        similarity = float(seen[0][a] @ seen[1][b]) if seen else None
        names = first.names[a], second.names[b]
        found.append(
            Found(
                *names,
                places=(a, b),
                by_name=named.get((a, b), ""),
                numbers=all(map(same_names.is_number, names)),
                pictures=equal.get((a, b), 0),
                similarity=similarity,
                confirmed=similarity is not None and similarity >= threshold.value,
            )
        )
    # the cosine of a neighbour may round to below the threshold here
    found = [f for f in found if f.by_name or f.pictures or f.confirmed]
    return sorted(found, key=lambda f: (-(f.similarity or 0), f.places))


def _neighbours(matches: matching.Matches, least: float) -> list[tuple[int, int, float]]:
    """(query, gallery, cosine) of neighbours at or above a cosine."""
    rows, ranks = np.nonzero((matches.top_indices >= 0) & (matches.top_scores >= least))
    others, scores = matches.top_indices[rows, ranks], matches.top_scores[rows, ranks]
    return list(zip(rows.tolist(), others.tolist(), scores.tolist(), strict=True))


def _equal_pictures(first: People, second: People) -> dict[tuple[int, int], int]:
    """How many pictures of two identities have equal pixels."""
    shared = set(first.hashes) & set(second.hashes)
    owners = []
    for people in (first, second):
        of = collections.defaultdict(set)
        for value, label in zip(people.hashes, people.labels.tolist(), strict=True):
            if value in shared:
                of[value].add(label)
        owners.append(of)
    counts: collections.Counter[tuple[int, int]] = collections.Counter()
    passed_over = 0
    for value in shared:
        if max(len(of[value]) for of in owners) <= COMMON:
            counts.update(itertools.product(*(of[value] for of in owners)))
        else:
            passed_over += 1
    if passed_over:
        logging.warning(
            "%s and %s: %d equal pictures are those of more than %d identities each and are passed over: placeholders?",
            *(first.name, second.name, passed_over, COMMON),
        )
    return dict(counts)
