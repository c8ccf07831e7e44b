"""How many links chance makes: predicted from people the generator never saw, tested, and extrapolated."""

from __future__ import annotations

import numpy as np
from jaxtyping import Bool, Float, Int, Shaped

from sface_jax.privacy import metrics

ENOUGH = 30
"""Chance links a rate must rest on (the rule of 30), and the least number of people for a tail."""

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
    owners: Int[np.ndarray, " e"],
    pictures: Int[np.ndarray, " e"],
    people: int,
    heldout: int,
    allowed: int,
    *,
    rounds: int = 999,
    seed: int = 0,
) -> tuple[tuple[float, float], tuple[float, float]]:
    """The intervals in which 95 % of counts of links lie, and of pictures, might any people be the held-out ones.

    For each random choice of held-out people the threshold is frozen on them anew, to leave them as many links, and
    the links of the others above it are counted, and the different pictures that these are of.

    Args:
        owners: the person, 0 to `people` - 1, of every link with anybody, the strongest link first.
        pictures: the picture of every link.
        people: how many there are.
        heldout: how many of them are held out.
        allowed: how many links a threshold leaves them.
        rounds: random choices; fewer where there are very many links.
        seed: of the choices.
    """
    owners = owners[: int(_DEEP * (allowed + 8) * people / heldout)]
    pictures = np.unique(pictures[: len(owners)], return_inverse=True)[1]
    rng = np.random.default_rng(seed)
    counts = []
    for _ in range(int(np.clip(_MOST // max(len(owners), 1), 100, rounds))):
        theirs: Bool[np.ndarray, " p"] = np.zeros(people, bool)
        theirs[rng.choice(people, heldout, replace=False)] = True
        places = np.flatnonzero(theirs[owners])
        end = places[allowed] if len(places) > allowed else len(owners)
        others = ~theirs[owners[:end]]
        counts.append((others.sum(), np.count_nonzero(np.bincount(pictures[:end][others]))))
    links, shown = np.percentile(counts, [2.5, 97.5], axis=0).T.tolist()
    return tuple(links), tuple(shown)


class Tail:
    """How many people chance links how strongly, extrapolated beyond the strongest link seen.

    Of each person only the strongest link counts. Links of a person with pictures that resemble each other are one
    event seen many times, and where a generator repeats itself all links are; but people are independent of each other
    whatever the pictures are. The highest of many scores follows Gumbel's distribution where the tail of these is
    neither heavy nor bounded (Gumbel, "Statistics of Extremes", 1958); that of cosines is bounded, so that it promises
    more than there is. It is fitted by moments. Of its scale the upper end of a 95 % interval is taken, from a
    bootstrap over people.
    """

    def __init__(self, scores: Float[np.ndarray, " e"], people: Shaped[np.ndarray, " e"], *, seed: int = 0):
        """Fits the tail.

        Args:
            scores: of chance links, the strongest first.
            people: the person of each.
            seed: of the bootstrap.
        """
        self._scores = np.asarray(scores, np.float64)[np.sort(np.unique(people, return_index=True)[1])]
        number = len(self._scores)
        self.known = number >= ENOUGH
        if not self.known:
            return
        middle = self._scores - self._scores.mean()
        times = metrics.resamples(number, 400, seed)
        variances = [(middle**2 @ w - (middle @ w) ** 2 / number) / (number - 1) for w in times]
        self._scale = max(float(np.sqrt(6 * np.percentile(variances, 97.5)) / np.pi), 1e-12)
        self._mode = float(self._scores.mean()) - np.euler_gamma * self._scale

    def people_above(self, scores: Float[np.ndarray, "*s"]) -> Float[np.ndarray, "*s"]:
        """How many people chance links at or above each score; one more than seen where few can tell (`known`)."""
        scores = np.asarray(scores, np.float64)
        seen = np.searchsorted(-self._scores, -scores, side="right")
        if not self.known:
            return seen + 1.0
        with np.errstate(over="ignore"):
            share = -np.expm1(-np.exp(-(scores - self._mode) / self._scale))
        return np.maximum(seen, len(self._scores) * share)
