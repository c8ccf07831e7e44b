"""Strangers: who may stand for chance. Nobody who is a member under another label; as many pictures of each."""

from __future__ import annotations

from statistics import NormalDist
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Int

from sface_jax.core.errors import UserError
from sface_jax.privacy.attacks.links import Nearest, nearest_people
from sface_jax.privacy.relations import Faces, drawn

_NEVER = 0.1  # couples of strangers expected to be taken for one person, in a whole search
_PEOPLE, _EACH = 512, 8  # at most so many people, and pictures of each, tell how alike strangers are


class Galleries(NamedTuple):
    """The people that pictures are linked with.

    Attributes:
        members: all their pictures.
        tested: as many of each member as of a held-out person, so that chance links both alike; all without these.
        heldout: likewise; None where nobody is held out.
        same: held-out people who are left out, as they look to be members.
    """

    members: Faces
    tested: Faces
    heldout: Faces | None
    same: int

    @property
    def drawn(self) -> bool:
        """Whether not all pictures of members are tested."""
        return len(self.tested) < len(self.members)


def galleries(members: Faces, heldout: Faces | None, seed: int = 0) -> Galleries:
    """Makes members and held-out people alike, but for what the generator saw.

    Held-out people who look to be members are left out: chance would be taken for as strong as a leak. Only authentic
    pictures decide on that. The others and the members then keep, person by person in the order of their numbers of
    pictures, the lower number of the two, drawn at random: a person's strongest link grows with it.

    Raises:
        UserError: nobody is left.
    """
    if heldout is None:
        return Galleries(members, members, None, 0)
    near = nearest_people(heldout.embeddings, members, 1)
    couples = _couples(near, heldout.labels, same_person(members, heldout.identities, seed))
    twice = np.isin(heldout.labels, couples[:, 0])
    if twice.all():
        raise UserError("every held-out person looks to be a member: set config.heldout to others, or to none")
    kept = _part(heldout, ~twice)
    rng = np.random.default_rng(seed)
    sizes = [np.sort(np.unique(faces.labels, return_counts=True)[1]) for faces in (members, kept)]
    tested, others = (
        _part(faces, _as_many(faces.labels, size, rng))
        for faces, size in ((members, sizes[1]), (kept, sizes[0]))
    )  # fmt: skip
    return Galleries(members, tested, others, len(np.unique(couples[:, 0])))


def apart(near: Nearest, own: Int[np.ndarray, " n"], least: float) -> tuple[Nearest, int]:
    """Takes people out of what pictures were found near where they look to be the very person under two labels.

    Args:
        near: the people nearest to each picture.
        own: the identity of each picture.
        least: see `same_person`.

    Returns:
        What is left, the cosines of the others being -infinity, and the number of couples of labels.
    """
    couples = _couples(near, own, least)
    couples = np.unique(np.sort(couples, axis=1), axis=0)
    if not len(couples):
        return near, 0
    known = np.sort(np.concatenate([couples, couples[:, ::-1]]) @ (1 << 32, 1))
    out = np.isin((own[:, None].astype(np.int64) << 32) + near.people, known)
    return near._replace(cosines=np.where(out, np.float32(-np.inf), near.cosines)), len(couples)


def same_person(faces: Faces, people: int, seed: int = 0) -> float:
    """The cosine that tells one person under two labels, where half of the pictures under one of these reach it.

    The median of mated scores, or where that is higher the score at which one search in ten would take strangers for
    one person: by Markov's inequality half of a person's pictures reach it no oftener than twice the mean share of
    pictures that do, which is at most that of comparisons times the pictures of the other person. It is extrapolated
    as the tail of a normal distribution of the inverse hyperbolic tangent of cosines, with the median and the 99th
    percentile of non-mated scores, which a few people under two labels do not move. On LFW by MobileFaceNet no held-out
    person was left out in 20 random splits, and 58 of 60 people whose pictures were put under two labels were found.

    Args:
        faces: pictures of people, in which the search is.
        people: how many are sought.
        seed: of the sample.
    """
    rng = np.random.default_rng(seed)
    rows = drawn(faces.labels, _EACH, rng, among=rng.permutation(np.unique(faces.labels))[:_PEOPLE])
    scores = faces.embeddings[rows] @ faces.embeddings[rows].T
    equal = faces.labels[rows][:, None] == faces.labels[rows]
    upper = np.triu(np.ones(equal.shape, bool), 1)
    mated, strangers = scores[equal & upper], scores[~equal]
    if not len(strangers):
        return np.inf
    middle, high = np.quantile(np.arctanh(strangers.clip(-0.999999, 0.999999)), [0.5, 0.99])
    spread = (high - middle) / NormalDist().inv_cdf(0.99)
    never = np.tanh(middle - spread * NormalDist().inv_cdf(_NEVER / (2 * people * len(faces))))
    return float(max(never, np.median(mated) if len(mated) else -1.0))


def _couples(near: Nearest, own: Int[np.ndarray, " n"], least: float) -> Int[np.ndarray, "c 2"]:
    """Identities of pictures and other people who at least half of the identity's pictures show."""
    at = np.nonzero((near.cosines >= least) & (near.people != own[:, None]))
    couples, seen = np.unique(np.stack([own[at[0]], near.people[at]], axis=1), axis=0, return_counts=True)
    people, sizes = np.unique(own, return_counts=True)
    return couples[2 * seen >= sizes[np.searchsorted(people, couples[:, 0])]].astype(np.int64)


def _as_many(
    labels: Int[np.ndarray, " n"], others: Int[np.ndarray, " p"], rng: np.random.Generator
) -> Bool[np.ndarray, " n"]:
    """Which pictures are kept, where no person keeps more than the one of like rank among others' sorted numbers."""
    people, group, counts = np.unique(labels, return_inverse=True, return_counts=True)
    rank = np.empty(len(people), np.int64)
    rank[np.lexsort((rng.permutation(len(people)), counts))] = np.arange(len(people))
    most = others[((rank + 0.5) * (len(others) / len(people))).astype(np.int64)]
    rows = rng.permutation(len(labels))
    rows = rows[np.argsort(group[rows], kind="stable")]
    turn = np.arange(len(rows)) - (np.cumsum(counts) - counts)[group[rows]]
    kept = np.zeros(len(labels), bool)
    kept[rows] = turn < most[group[rows]]
    return kept


def _part(faces: Faces, kept: Bool[np.ndarray, " n"]) -> Faces:
    return faces if kept.all() else Faces(faces.embeddings[kept], faces.labels[kept])
