"""How many links chance makes: predicted from people the generator never saw, tested, and extrapolated."""

from __future__ import annotations

import numpy as np
from jaxtyping import Bool, Float, Int, Shaped

from sface_jax.privacy import metrics

TAIL = 1e-2
"""The share of pictures whose strongest chance links the tail is fitted to."""

ENOUGH = 30
"""Chance links a rate must rest on (the rule of 30), and the least number of them for a tail."""

_MOST = 2 * 10**8  # links looked at in all random choices
_DEEP = 8  # times as many links as are expected; what lies deeper is counted as if it ended there


def p_value(
    members: Int[np.ndarray, " m"], others: Int[np.ndarray, " h"], *, rounds: int = 9999, seed: int = 0
) -> float:
    """How often chance alone leaves so few of all links to the people the generator never saw.

    Identities, not pictures, are exchangeable: were members nothing to the generator, any h of all people might be the
    held-out ones. The share of such choices that have no more links than the held-out people is the p-value of an exact
    permutation test, though the threshold was frozen on them: one frozen anew on a choice would leave more links to
    the others just where that choice has fewer at this one. It is never far below (m / (m + h))^p where p people have
    links, however strong.

    Args:
        members: links of each member at or above a threshold.
        others: links of each held-out person.
        rounds: random choices.
        seed: of the choices.
    """
    values, people = np.unique(np.concatenate([members, others]), return_counts=True)
    drawn = np.random.default_rng(seed).multivariate_hypergeometric(people, len(others), rounds, method="marginals")
    return float((1 + (drawn @ values <= others.sum()).sum()) / (1 + rounds))


def interval(
    owners: Int[np.ndarray, " e"], people: int, heldout: int, allowed: int, *, rounds: int = 999, seed: int = 0
) -> tuple[float, float]:
    """The interval in which 95 % of counts of links lie where any of the people might be the held-out ones.

    For each random choice of held-out people the threshold is frozen on them anew, to leave them as many links, and
    the links of the others above it are counted.

    Args:
        owners: the person, 0 to `people` - 1, of every link with anybody, the strongest link first.
        people: how many there are.
        heldout: how many of them are held out.
        allowed: how many links a threshold leaves them.
        rounds: random choices; fewer where there are very many links.
        seed: of the choices.
    """
    owners = owners[: int(_DEEP * (allowed + 8) * people / heldout)]
    rng = np.random.default_rng(seed)
    counts = []
    for _ in range(int(np.clip(_MOST // max(len(owners), 1), 100, rounds))):
        theirs: Bool[np.ndarray, " p"] = np.zeros(people, bool)
        theirs[rng.choice(people, heldout, replace=False)] = True
        places = np.flatnonzero(theirs[owners])
        end = places[allowed] if len(places) > allowed else len(owners)
        counts.append(end - min(allowed, len(places)))
    low, high = np.percentile(counts, [2.5, 97.5])
    return float(low), float(high)


class Tail:
    """Chance links by score, extrapolated beyond the highest one seen.

    Excesses over a high threshold are exponential where a tail is neither heavy nor bounded (Pickands, "Statistical
    inference using extreme order statistics", 1975). Those of cosines are bounded, so that an exponential tail promises
    more chance links than there are. Of its mean the upper end of a 95 % interval is taken, from a bootstrap over
    people.
    """

    def __init__(
        self, scores: Float[np.ndarray, " e"], people: Shaped[np.ndarray, " e"], pictures: int, *, seed: int = 0
    ):
        """Fits the tail.

        Args:
            scores: of chance links, the strongest first.
            people: the person of each.
            pictures: how many pictures were compared.
            seed: of the bootstrap.
        """
        self._scores = np.asarray(scores, np.float64)
        self._count = min(max(ENOUGH, round(TAIL * pictures)), len(scores) - 1)
        self.known = self._count >= ENOUGH
        if not self.known:
            return
        self._start = self._scores[self._count]
        _, group = np.unique(people[: self._count], return_inverse=True)
        sums, counts = np.bincount(group, self._scores[: self._count] - self._start), np.bincount(group)
        means = [(sums @ w) / max(counts @ w, 1) for w in metrics.resamples(len(counts), 400, seed)]
        self._mean = max(float(np.percentile(means, 97.5)), 1e-12)

    def links_above(self, scores: Float[np.ndarray, "*s"]) -> Float[np.ndarray, "*s"]:
        """How many chance links are at or above each score; all of them where there are too few to tell (`known`)."""
        scores = np.asarray(scores, np.float64)
        if not self.known:
            return np.full(scores.shape, float(len(self._scores)))
        seen = np.searchsorted(-self._scores, -scores, side="right")
        beyond = self._count * np.exp(-(scores - self._start).clip(0) / self._mean)
        return np.where(scores >= self._start, beyond, seen)
