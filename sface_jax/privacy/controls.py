"""Controls: leaks that an audit must find, and labels among which it must find none."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Float32, Int, UInt8

from sface_jax.privacy import matching, metrics, planting
from sface_jax.privacy.attacks import copies, strangers
from sface_jax.privacy.attacks.links import Links
from sface_jax.privacy.attacks.screening import SIGNIFICANT, Found, Screening, links_of
from sface_jax.privacy.attacks.strangers import Galleries
from sface_jax.privacy.relations import Faces, Relation
from sface_jax.verification import curves

SHARES = (1e-2, 1e-3, 1e-4)
"""Shares of the synthetic set that are replaced by leaks."""

DRAWS = 20
"""How often each replacement is drawn."""

Look = Callable[[Int[np.ndarray, " k"]], UInt8[np.ndarray, "k s s 3"]]
Embed = Callable[[UInt8[np.ndarray, "k s s 3"]], Float32[np.ndarray, "k d"]]


class Plants(NamedTuple):
    """Leaks of one kind.

    Attributes:
        people: the member whom each of them shows.
        sought: their links; `pictures` are rows of the plants.
        copies: which of them the search for copies finds; None where there are no pictures.
    """

    people: Int[np.ndarray, " p"]
    sought: Found
    copies: Bool[np.ndarray, " p"] | None

    def found(self, threshold: float) -> Bool[np.ndarray, " p"]:
        """Which of them are linked with the very person they show, at or above a threshold."""
        links, hits = self.sought.links, np.zeros(len(self.people), bool)
        hits[links.pictures[(links.scores >= threshold) & (links.people == self.people[links.pictures])]] = True
        return hits

    def first(self) -> Bool[np.ndarray, " p"]:
        """Which of them have their strongest link with that person (rank 1)."""
        best, found = self.sought.links.strongest(), np.zeros(len(self.people), bool)
        found[best.pictures] = best.people == self.people[best.pictures]
        return found

    def drawn(self, rows: Int[np.ndarray, " k"]) -> Found:
        """The links of some of them, those of row `rows[i]` as of picture i; rows may repeat."""
        return Found(*(_drawn(links, rows) for links in self.sought))


def plants(
    members: Faces,
    heldout: Faces | None,
    *,
    look: Look | None = None,
    embed: Embed | None = None,
    unseen: Faces | None = None,
    count: int = 100,
    seed: int = 0,
) -> dict[str, Plants]:
    """Makes leaks from members' pictures and seeks them as screening does.

    Args:
        members: pictures the generator learned from.
        heldout: pictures of people it never saw, where there are some.
        look: gives the pictures at rows of `members`; without it there are no edited ones.
        embed: embeds pictures as `members` were.
        unseen: other pictures of members; without them the "other" pictures are taken out of the members' for this.
        count: of each kind, at most.
        seed: which ones, and their editing.
    """
    rng = np.random.default_rng(seed)
    rows = rng.permutation(len(members))[:count]
    made = {}
    originals = look(rows) if look and embed else None
    alike = np.ones(len(rows), bool)
    galleries = strangers.galleries(members, heldout, seed)
    made[planting.EXACT] = seek(members.embeddings[rows], members.labels[rows], galleries, alike)
    if originals is not None:
        images = planting.edited(originals, seed)
        alike = copies.same(copies.thumbnails(images), copies.thumbnails(originals))
        made[planting.EDITED] = seek(embed(images), members.labels[rows], galleries, alike)
    if unseen is None:
        taken = _one_of_each(members.labels, rng)[:count]
        unseen = Faces(members.embeddings[taken], members.labels[taken])
        kept = np.setdiff1d(np.arange(len(members)), taken)
        galleries = strangers.galleries(Faces(members.embeddings[kept], members.labels[kept]), heldout, seed)
    chosen = rng.permutation(len(unseen))[:count]
    if len(chosen):
        others = unseen.embeddings[chosen], unseen.labels[chosen]
        made[planting.OTHER] = seek(*others, galleries, None)
    return made


def seek(
    embeddings: Float32[np.ndarray, "p d"],
    people: Int[np.ndarray, " p"],
    galleries: Galleries,
    copied: Bool[np.ndarray, " p"] | None,
) -> Plants:
    """Seeks leaks of one kind.

    Args:
        embeddings: of the leaks.
        people: the member whom each of them shows.
        galleries: where they are sought.
        copied: which of them the search for copies finds; None where there are no pictures.
    """
    return Plants(people, links_of(embeddings, galleries), copied)


def planted(screening: Screening, made: dict[str, Plants], *, seed: int = 0) -> dict[str, Any]:
    """What the screening says of leaks among the synthetic pictures, its thresholds being those frozen without them.

    Args:
        screening: of the synthetic set.
        made: what `plants` made.
        seed: which synthetic pictures the leaks replace.

    Returns:
        `background_p_value` (of the set as it is) and `kinds`, of each `planted`, `rates` (of each supported rate
        `found`, `tpr`, its Clopper-Pearson `interval`), `near_duplicates` (those found as copies; null where that was
        not tried), `rank1` (whose strongest link is the right person) and `shares`, those of the set that are a
        picture at least: what `replaced` says on average of `DRAWS` draws, the median `p_value` of these, in how many
        of them the set was noticed (`noticed_of`, [x, y]), and `noticed`, whether in half: null where it stands out as
        it is.
    """
    background = screening.p_value()
    return {
        "background_p_value": background,
        "kinds": {kind: _figures(screening, found, background, seed) for kind, found in made.items()},
    }


def replaced(screening: Screening, found: Plants, share: float, *, seed: int = 0, draw: int = 0) -> dict[str, Any]:
    """Replaces a share of the synthetic pictures by leaks, and screens that set: thresholds are frozen anew.

    Returns:
        `pictures` planted, at least one; the `share` of all that they are; those `found` and the `false_alarms`
        expected by chance at each rate; those that the search for `copies` finds, null where there are no pictures;
        and the `p_value` of all tests on the set.
    """
    rng = np.random.default_rng((seed, round(1 / share), draw))
    count = min(max(1, round(share * screening.pictures)), screening.pictures)
    out = rng.permutation(screening.pictures)[:count]
    turns = -(-count // len(found.people))
    rows = np.concatenate([rng.permutation(len(found.people)) for _ in range(turns)])[:count]
    after = screening.replaced(out, found.drawn(rows), count)
    return {
        "pictures": count,
        "share": count / screening.pictures,
        "found": {key: int(found.found(at.value)[rows].sum()) for key, at in after.thresholds.items()},
        "false_alarms": {key: at.allowed * after.scale for key, at in after.thresholds.items()},
        "copies": None if found.copies is None else int(found.copies[rows].sum()),
        "p_value": after.p_value(),
    }


def shuffled(
    authentic: Faces, synthetic: Faces, relation: Relation, threshold: float, *, seed: int = 0
) -> dict[str, float]:
    """Gives every synthetic identity the label of another one and measures the link again: it must be chance.

    Args:
        authentic: authentic pictures.
        synthetic: synthetic pictures.
        relation: their true relation, for its non-mated scores.
        threshold: a frozen one.
        seed: of the new labels.

    Returns:
        `auc` of the mated scores under the new labels (0.5 is chance), their match `rate`, and `expected_rate`, the
        match rate of truly different labels.
    """
    identities = np.intersect1d(np.unique(synthetic.labels), np.unique(authentic.labels))
    cycle = np.random.default_rng(seed).permutation(identities)
    other = dict(zip(cycle.tolist(), np.roll(cycle, 1).tolist(), strict=True))
    kept = np.isin(synthetic.labels, identities)
    labels = np.array([other[label] for label in synthetic.labels[kept].tolist()])
    scores, _ = matching.same_label_scores(
        synthetic.embeddings[kept], authentic.embeddings, labels, authentic.labels, seed=seed
    )
    total = int(relation.counts.sum())
    return {
        "auc": metrics.auc(scores, relation.centres, non_mated_counts=relation.counts),
        "rate": float((scores >= threshold).mean()),
        "expected_rate": float(relation.counts[relation.centres >= threshold].sum() / total),
    }


def share_of(hits: Bool[np.ndarray, " n"]) -> dict[str, Any]:
    """`found`, their `rate` and its 95 % `interval` (Clopper-Pearson)."""
    found = int(hits.sum())
    return {"found": found, "rate": found / len(hits), "interval": list(metrics.clopper_pearson(found, len(hits)))}


def _figures(screening: Screening, found: Plants, background: float, seed: int) -> dict[str, Any]:
    rates = {}
    for key, at in screening.thresholds.items():
        hits = share_of(found.found(at.value))
        rates[key] = {"found": hits["found"], "tpr": hits["rate"], "interval": hits["interval"]}
    shares = {}
    for share in SHARES:
        if round(share * screening.pictures * (1 + 1e-12), 9) >= 1:
            shares[curves.rate_name(share)] = _of_draws(screening, found, share, background, seed)
    return {
        "planted": len(found.people),
        "rates": rates,
        "near_duplicates": None if found.copies is None else share_of(found.copies),
        "rank1": share_of(found.first()),
        "shares": shares,
    }


def _of_draws(screening: Screening, found: Plants, share: float, background: float, seed: int) -> dict[str, Any]:
    draws = [replaced(screening, found, share, seed=seed, draw=draw) for draw in range(DRAWS)]
    noticed = sum(draw["p_value"] < SIGNIFICANT for draw in draws)
    told = not background < SIGNIFICANT

    def mean(key: str) -> dict[str, float]:
        # thresholds are frozen anew in each draw, and so are the rates that they support
        rates = [rate for rate in draws[0][key] if all(rate in draw[key] for draw in draws)]
        return {rate: float(np.mean([draw[key][rate] for draw in draws])) for rate in rates}

    return {
        "pictures": draws[0]["pictures"],
        "share": draws[0]["share"],
        "found": mean("found"),
        "false_alarms": mean("false_alarms"),
        "copies": None if found.copies is None else float(np.mean([draw["copies"] for draw in draws])),
        "p_value": float(np.median([draw["p_value"] for draw in draws])),
        "noticed_of": [noticed, DRAWS] if told else None,
        "noticed": 2 * noticed >= DRAWS if told else None,
    }


def _drawn(links: Links, rows: Int[np.ndarray, " k"]) -> Links:
    order = np.argsort(links.pictures, kind="stable")
    first, last = (np.searchsorted(links.pictures[order], rows, side=side) for side in ("left", "right"))
    number = last - first
    at = order[np.arange(number.sum()) - np.repeat(np.cumsum(number) - number - first, number)]
    return Links(*(column[at] for column in links))._replace(pictures=np.repeat(np.arange(len(rows)), number))


def _one_of_each(labels: Int[np.ndarray, " n"], rng: np.random.Generator) -> Int[np.ndarray, " k"]:
    """A row of each person who has another one, in random order."""
    order = rng.permutation(len(labels))
    people, first, counts = np.unique(labels[order], return_index=True, return_counts=True)
    return rng.permutation(order[first[counts > 1]]) if len(people) else order[:0]
