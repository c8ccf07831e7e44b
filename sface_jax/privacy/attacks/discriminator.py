"""What the discriminator of a GAN tells of its training set, where it is out together with the generator."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np
from jaxtyping import Bool, Float32, Float64, Int, UInt8

from sface_jax.core.progress import Progress
from sface_jax.privacy.attacks import membership
from sface_jax.verification.embed import Images

PRIMARY = {"identity": "consistent", "picture": "highest"}

ATTACKS = {
    "highest": "the logit of a picture under the label that suits it best",
    "soft": "the same with all labels that suit it, log sum exp",
    "mean": "its mean logit over all labels",
    "peak": "its highest logit less the mean",
    "consistent": "how far the pictures of an identity agree on one label: the highest over labels of the mean over "
    "pictures, each picture and each label standardised first",
}

Logits = Callable[[UInt8[np.ndarray, "n h w 3"]], Float32[np.ndarray, "n c"]]
"""Pictures to a logit for each label; see `gan.scoring.Scorer`, which `main` hands over."""


@dataclasses.dataclass(frozen=True)
class Pictures:
    """Pictures to show to the discriminator.

    Attributes:
        images: the pictures, or something to read them from batch by batch.
        labels: the identity of each picture that is looked at.
        indices: which of `images` these are; all where None.
    """

    images: UInt8[np.ndarray, "m h w 3"] | Images
    labels: Int[np.ndarray, " n"]
    indices: Int[np.ndarray, " n"] | None = None


def discriminator(
    logits: Logits,
    members: Pictures,
    heldout: Pictures,
    unseen: Pictures | None = None,
    *,
    own_labels: bool = False,
    batch_size: int = 256,
    progress: str = "",
) -> dict[str, Any]:
    """Membership by a discriminator's logits (LOGAN: Hayes et al., PoPETs 2019, the white-box attack).

    In training the discriminator is shown the authentic pictures as authentic, again and again: where it has learned
    them by heart it finds them more authentic than others. Its logits know a label, and a held-out person has none. A
    score that used a member's own label would tell members by the label, not by what was learned: all of `ATTACKS`
    use all labels alike. The primary ones were chosen on the quickstart's procedural faces, whose own figures may be a
    little too good for that, before any other data was seen.

    `consistent`: z = (logit - mean over labels) / deviation over labels for each picture, then z less its mean over
    all pictures of both sides, over its deviation there, for each label. Equally many pictures of each identity take
    part, for a maximum of means is the higher the fewer there are.

    The second question, a memorised picture or a known person, is asked where there are unseen pictures of members:
    under the own label, which both sides have, are pictures that trained more authentic than others of the same person?

    Args:
        logits: the discriminator.
        members: pictures that trained the GAN.
        heldout: pictures of identities that it never saw.
        unseen: pictures of member identities that it never saw, numbered as in `members`.
        own_labels: the labels of members are the discriminator's, 0 ... classes - 1.
        batch_size: pictures to read at once.
        progress: name for progress lines; none are shown without.

    Returns:
        `identity` and `picture`, the figures of `primary` (`membership.judge`); `attacks`, {name: {"text", "identity",
        "picture"}} without curves, `consistent` by identity only; `tried`, how many these are; `recognised`, the share
        of pictures whose own label has the highest logit, of `members` and `unseen`, beside `chance`; `memorised`
        (`membership.memorised`). Both of the last are {} where they cannot be asked. {} where a side has fewer than two
        identities.

    Raises:
        ValueError: `own_labels` with a label that the discriminator does not have.
    """
    sides = {"members": members, "heldout": heldout} | ({} if unseen is None else {"unseen": unseen})
    counts = [np.unique(sides[name].labels, return_counts=True)[1] for name in ("members", "heldout")]
    if min(map(len, counts)) < 2:
        return {}
    each = int(min(np.quantile(count, 0.1, method="lower") for count in counts))
    seen = {
        name: _look(
            logits,
            pictures,
            each if name != "unseen" else 0,
            own=own_labels and name != "heldout",
            batch_size=batch_size,
            progress=f"{progress}, {name}" if progress else "",
        )
        for name, pictures in sides.items()
    }
    inside, outside = seen["members"], seen["heldout"]
    found = {
        name: membership.judge(inside.scores[name], members.labels, outside.scores[name], heldout.labels)
        for name in inside.scores
    }
    if inside.pool is not None:
        scores = _consistent(inside.pool, outside.pool)
        identities = [np.unique(side.labels) for side in (members, heldout)]
        judged = membership.judge(scores[0], identities[0], scores[1], identities[1])
        found["consistent"] = {"identity": judged["identity"]}
    primary = PRIMARY if "consistent" in found else dict.fromkeys(PRIMARY, "highest")
    return {
        **{unit: found[name][unit] for unit, name in primary.items()},
        "primary": primary,
        "attacks": {
            name: {"text": ATTACKS[name]} | {unit: _without_curve(figures) for unit, figures in units.items()}
            for name, units in found.items()
        },
        "tried": len(found),
        "recognised": _recognised(seen, members),
        "memorised": {}
        if unseen is None or not own_labels
        else membership.memorised(inside.own, members.labels, seen["unseen"].own, unseen.labels),
    }


@dataclasses.dataclass
class _Pool:
    """Sums over pictures of standardised logits: of each identity, and of their squares over all."""

    sums: Float32[np.ndarray, "g c"]
    counts: Int[np.ndarray, " g"]
    squares: Float64[np.ndarray, " c"]


@dataclasses.dataclass(frozen=True)
class _Seen:
    """What is kept of a set's logits.

    Attributes:
        scores: one figure a picture for each attack by picture.
        pool: for `consistent`, where there is more than one label.
        own: the logit under the own label.
        recognised: whether that is the highest.
    """

    scores: dict[str, Float64[np.ndarray, " n"]]
    pool: _Pool | None
    own: Float64[np.ndarray, " n"] | None
    recognised: Bool[np.ndarray, " n"] | None


def _look(logits: Logits, pictures: Pictures, each: int, *, own: bool, batch_size: int, progress: str) -> _Seen:
    """Shows a set to the discriminator; the first `each` pictures of an identity are pooled."""
    labels = np.asarray(pictures.labels)
    rows = np.arange(len(labels)) if pictures.indices is None else np.asarray(pictures.indices)
    read = pictures.images.__getitem__ if isinstance(pictures.images, np.ndarray) else pictures.images.images
    identities, group = np.unique(labels, return_inverse=True)
    pooled = _turn(group) < each
    shown = Progress(progress, len(rows), unit="pictures") if progress else None
    parts: dict[str, list[np.ndarray]] = {}
    pool = None
    for start in range(0, len(rows), batch_size):
        of = slice(start, start + batch_size)
        x = logits(read(rows[of])).astype(np.float64)  # [n,c]
        for name, value in (_scores(x) | (_own(x, labels[of]) if own else {})).items():
            parts.setdefault(name, []).append(value)
        if x.shape[1] > 1:
            if pool is None:
                sums = np.zeros((len(identities), x.shape[1]), np.float32)
                pool = _Pool(sums, np.bincount(group[pooled], minlength=len(identities)), np.zeros(x.shape[1]))
            z = ((x - x.mean(1, keepdims=True)) / x.std(1, keepdims=True).clip(1e-12))[pooled[of]]
            np.add.at(pool.sums, group[of][pooled[of]], z)
            pool.squares += np.square(z).sum(0)
        if shown:
            shown.update(min(start + batch_size, len(rows)))
    if shown:
        shown.close()
    joined = {name: np.concatenate(part) for name, part in parts.items()}
    own_logits, recognised = joined.pop("own", None), joined.pop("recognised", None)
    return _Seen(joined, pool, own_logits, recognised)


def _turn(group: Int[np.ndarray, " n"]) -> Int[np.ndarray, " n"]:
    """0 for the first picture of each identity, 1 for the second, ..."""
    order = np.argsort(group, kind="stable")
    turn = np.empty(len(group), np.int64)
    turn[order] = np.arange(len(group)) - np.searchsorted(group[order], group[order])
    return turn


def _scores(x: Float64[np.ndarray, "n c"]) -> dict[str, Float64[np.ndarray, " n"]]:
    top = x.max(1)
    if x.shape[1] == 1:
        return {"highest": top}
    mean = x.mean(1)
    return {"highest": top, "soft": top + np.log(np.exp(x - top[:, None]).sum(1)), "mean": mean, "peak": top - mean}


def _own(x: Float64[np.ndarray, "n c"], labels: Int[np.ndarray, " n"]) -> dict[str, np.ndarray]:
    if labels.min() < 0 or labels.max() >= x.shape[1]:
        raise ValueError(f"labels {labels.min()} to {labels.max()} are not those of a discriminator of {x.shape[1]}")
    own = x[np.arange(len(x)), labels]
    return {"own": own, "recognised": own == x.max(1)}


def _consistent(inside: _Pool, outside: _Pool) -> tuple[Float64[np.ndarray, " g"], Float64[np.ndarray, " h"]]:
    pictures = inside.counts.sum() + outside.counts.sum()
    mean = (inside.sums.sum(0, dtype=np.float64) + outside.sums.sum(0, dtype=np.float64)) / pictures
    std = np.sqrt(((inside.squares + outside.squares) / pictures - mean**2).clip(1e-12))
    first, second = (((side.sums / side.counts[:, None] - mean) / std).max(1) for side in (inside, outside))
    return first, second


def _recognised(seen: dict[str, _Seen], members: Pictures) -> dict[str, float]:
    rates = {name: float(of.recognised.mean()) for name, of in seen.items() if of.recognised is not None}
    return rates | {"chance": 1 / len(np.unique(members.labels))} if rates else {}


def _without_curve(figures: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in figures.items() if key != "roc"}
