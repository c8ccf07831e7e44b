"""Membership: does the synthetic set tell which people the generator learned from?

Every attack gives authentic pictures a score from the synthetic ones alone, the same way for members, whom the
generator learned, and for held-out people, whom it never saw. What counts is how well the score tells the two apart.
Units are the identity and the picture; pictures of one identity are never taken as independent.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from jaxtyping import Float, Int, Num

from sface_jax.core.significance import holm
from sface_jax.privacy import matching, metrics
from sface_jax.privacy.relations import Faces, drawn
from sface_jax.verification import curves

RATES = (1e-1, 1e-2, 1e-3)
PRIMARY = {"identity": "calibrated_mean", "picture": "calibrated_picture"}
"""The attacks whose figures are the headline, chosen before any figure was seen."""

ATTACKS = {
    "nearest_picture": "the cosine of a picture with the nearest synthetic picture",
    "nearest_mean": "the mean, over an identity's pictures, of the cosine with the nearest synthetic picture",
    "nearest_max": "the highest, over equally many pictures of each identity, of the cosine with a synthetic picture",
    "calibrated_picture": "the cosine of a picture with the nearest synthetic picture, less the mean of those with the "
    "most alike authentic strangers",
    "calibrated_mean": "the mean of calibrated_picture over an identity's pictures",
    "calibrated_max": "the highest calibrated_picture over equally many pictures of each identity",
    "template": "the cosine of an identity's mean picture with the nearest mean picture of a synthetic identity",
}


def membership(
    members: Faces,
    heldout: Faces,
    synthetic: Faces,
    *,
    unseen: Faces | None = None,
    nearest: Mapping[str, Num[np.ndarray, " _"]] | None = None,
    rounds: int = 1000,
    seed: int = 0,
) -> dict[str, Any]:
    """Runs `ATTACKS` and judges them.

    The headline is that of `PRIMARY`, whatever the others show: a mean over pictures has no bias where one side has
    more pictures an identity, and calibration (`difficulty`) removes that some faces are like many others. The
    p-value of the others is adjusted for their number by Holm's method (1979).

    Args:
        members: pictures the generator learned from.
        heldout: pictures of people it never saw.
        synthetic: what it made.
        unseen: other pictures of members, which it did not see, for `memorised`.
        nearest: under "members", "heldout" and "unseen" the cosine of each picture with its nearest synthetic picture
            where it is known already; searched for when absent.
        rounds: permutations behind each p-value.
        seed: of all draws.

    Returns:
        "members", "heldout" and "unseen", each {"identities", "pictures"}; "identity" and "picture", the headline as
        `judge` gives it; "primary", their names; "attacks", {name: the same without "roc", with "unit", "text" and
        "p_adjusted"}; "tried", how many these are; "cohort", see `difficulty`; "epsilon", see `epsilon_lower_bound`;
        "memorised", see `memorised`, {} without unseen pictures; "power", a sentence. {} where a side has fewer than
        two identities.
    """
    if min(members.identities, heldout.identities) < 2:
        return {}
    sides = {"members": members, "heldout": heldout} | ({} if unseen is None else {"unseen": unseen})
    known = nearest or {}
    close = {
        name: known[name] if name in known else nearest_synthetic(faces, synthetic) for name, faces in sides.items()
    }
    strangers, cohort = difficulty(sides, seed=seed)
    calibrated = {name: close[name] - strangers[name] for name in sides}
    labels = {name: faces.labels for name, faces in sides.items()}
    attacks, scores = {}, _scores(sides, synthetic, close, calibrated, seed)
    for name, (inside, outside) in scores.items():
        unit = "picture" if name.endswith("picture") else "identity"
        ids = labels if unit == "picture" else {side: np.unique(labels[side]) for side in ("members", "heldout")}
        found = _judge(inside, ids["members"], outside, ids["heldout"], rounds, seed)
        attacks[name] = {"unit": unit, "text": ATTACKS[name]} | found
    for name, p in zip(attacks, holm(np.array([found["p_value"] for found in attacks.values()])), strict=True):
        attacks[name]["p_adjusted"] = float(p)
    count = heldout.identities
    return {
        **{name: {"identities": faces.identities, "pictures": len(faces)} for name, faces in sides.items()},
        **{unit: attacks[name] for unit, name in PRIMARY.items()},
        "primary": PRIMARY,
        "attacks": {name: {k: v for k, v in found.items() if k != "roc"} for name, found in attacks.items()},
        "tried": len(attacks),
        "cohort": cohort,
        "epsilon": epsilon_lower_bound(*scores[PRIMARY["identity"]], seed=seed),
        "memorised": {}
        if unseen is None
        else memorised(calibrated["members"], members.labels, calibrated["unseen"], unseen.labels),
        "power": (
            f"{count} held-out identities: a false positive rate below {1 / count:.2g} of identities cannot be "
            f"measured, and an event never seen among them may still happen to {100 * min(3 / count, 1):.3g} % of "
            f"people (rule of three)."
        ),
    }


def judge(
    inside: Num[np.ndarray, " n"],
    inside_labels: Int[np.ndarray, " n"],
    outside: Num[np.ndarray, " m"],
    outside_labels: Int[np.ndarray, " m"],
    *,
    rounds: int = 1000,
    seed: int = 0,
) -> dict[str, dict[str, Any]]:
    """How well scores of pictures tell those inside from those outside, by picture and by identity (mean score).

    Args:
        inside: scores of pictures that should be higher.
        inside_labels: their identities.
        outside: scores of the other pictures.
        outside_labels: their identities; equal numbers on both sides mean the same identity.
        rounds: permutations behind the p-value.
        seed: of the permutations.

    Returns:
        "identity" and "picture", each with "auc" (0.5 is a coin toss), its 95 % "interval" (`metrics.auc_interval`),
        "p_value" (one-sided: identities change sides at random), "tpr_at_fpr" {rate: share of the inside found},
        "operating" {rate: {"threshold", "fpr" as reached, "false_positives", "tpr", its "interval" at this threshold,
        "supported": whether 30 false positives stand behind it (rule of 30)}} and "roc" {"fpr", "tpr"}. Rates that
        allow not even one of the outside are left out.
    """
    return {
        "identity": _judge(
            identity_means(inside, inside_labels),
            np.unique(inside_labels),
            identity_means(outside, outside_labels),
            np.unique(outside_labels),
            rounds,
            seed,
        ),
        "picture": _judge(inside, inside_labels, outside, outside_labels, rounds, seed),
    }


def epsilon_lower_bound(
    members: Num[np.ndarray, " m"],
    heldout: Num[np.ndarray, " h"],
    *,
    confidence: float = 0.95,
    delta: float = 0.0,
    seed: int = 0,
) -> dict[str, Any]:
    """A lower bound on the epsilon of any identity-level differential privacy guarantee that the release could have.

    (epsilon, delta) differential privacy implies TPR <= e^epsilon FPR + delta and TNR <= e^epsilon FNR + delta for
    every test of membership. On a random half of the identities the better of the two inequalities and its threshold
    are chosen; on the other half that one is judged:
    max(0, ln((TPR_low - delta) / FPR_high)) or max(0, ln((TNR_low - delta) / FNR_high)),
    both ends by Clopper and Pearson at (1 - confidence) / 2, so that together they fail at most 1 - confidence of the
    time (Jagielski, Ullman and Oprea, 2020; Nasr et al., 2021). The scores of identities are taken as independent
    trials; with one trained generator that is an assumption (Steinke, Nasr and Jagielski, 2023).

    A bound of 0 says that this attack found nothing. It is never evidence that a guarantee holds.

    Args:
        members: one score for each member identity, higher for members.
        heldout: one score for each held-out identity.
        confidence: of the bound.
        delta: of the guarantee.
        seed: of the halves.

    Returns:
        "epsilon", "confidence", "delta", "unit" "identity", the judged "members" and "heldout", "tpr" and "fpr" as
        measured on them, "inequality" ("tpr" or "tnr"), and "largest_measurable", what full separation would give.
        {} with fewer than two identities on a side.
    """
    if min(len(members), len(heldout)) < 2:
        return {}
    rng = np.random.default_rng(seed)
    (choose_in, judge_in), (choose_out, judge_out) = (
        np.array_split(rng.permutation(np.asarray(scores, np.float64)), 2) for scores in (members, heldout)
    )
    inequality, threshold = _best_test(choose_in, choose_out, confidence, delta)
    hits, alarms = int((judge_in >= threshold).sum()), int((judge_out >= threshold).sum())
    m, h = len(judge_in), len(judge_out)

    def bound(found: int, of: int, wrong: int, of_wrong: int) -> float:
        return _epsilon(found, of, wrong, of_wrong, confidence, delta)

    found = bound(hits, m, alarms, h) if inequality == "tpr" else bound(h - alarms, h, m - hits, m)
    return {
        "epsilon": found,
        "confidence": confidence,
        "delta": delta,
        "unit": "identity",
        "members": m,
        "heldout": h,
        "tpr": hits / m,
        "fpr": alarms / h,
        "inequality": inequality,
        "largest_measurable": max(bound(m, m, 0, h), bound(h, h, 0, m)),
    }


def memorised(
    seen: Num[np.ndarray, " n"],
    seen_labels: Int[np.ndarray, " n"],
    unseen: Num[np.ndarray, " m"],
    unseen_labels: Int[np.ndarray, " m"],
) -> dict[str, Any]:
    """Whether the generator gives away the pictures it saw, or only the people on them.

    Within each member identity: the share of couples of a seen and an unseen picture in which the seen one scores
    higher, ties one half. One half on the average over identities means that the people are known, not the pictures.

    Returns:
        "auc" and its 95 % "interval" over identities, "identities" with both kinds, "pictures" {"seen", "unseen"} of
        them. {} where no identity has both.
    """
    both = np.intersect1d(seen_labels, unseen_labels)
    if not len(both):
        return {}
    couples = zip(_split(seen, seen_labels, both), _split(unseen, unseen_labels, both), strict=True)
    areas = np.array([metrics.placements(here, there).mean() for here, there in couples])
    auc, interval = metrics.mean_interval(areas, 0.0, 1.0)
    pictures = {"seen": int(np.isin(seen_labels, both).sum()), "unseen": int(np.isin(unseen_labels, both).sum())}
    return {"auc": auc, "interval": interval, "identities": len(both), "pictures": pictures}


def identity_means(scores: Num[np.ndarray, " n"], labels: Int[np.ndarray, " n"]) -> Float[np.ndarray, " g"]:
    """The mean score of each identity, in the order of the labels."""
    _, group = np.unique(labels, return_inverse=True)
    return np.bincount(group, scores) / np.bincount(group)


def difficulty(
    sides: Mapping[str, Faces], *, pictures: int = 1000, folds: int = 5, seed: int = 0
) -> tuple[dict[str, Float[np.ndarray, " _"]], dict[str, int]]:
    """How close each picture lies to authentic strangers: the mean of its highest cosines with a cohort.

    A plain face is near to many others, synthetic ones among them, whether or not it was trained on. Subtracting what
    strangers score removes that: difficulty calibration of membership attacks (Watson et al., ICLR 2022), with the
    highest tenth of a cohort as in the adaptive s-norm of speaker recognition (Matejka et al., Interspeech 2017).
    Dividing by the deviation too, as s-norm does, made the attack weaker on LFW.

    The cohort must not give membership away. Identities are dealt into folds, and the pictures of a fold, members'
    and held-out people's alike, meet one cohort: equally many member and held-out identities of the other folds. So no
    picture ever meets its own identity, both sides meet the same faces, and nobody has to leave the test.

    Args:
        sides: "members" and "heldout", of at least two identities each, and others of the same identities.
        pictures: about how many a cohort has.
        folds: at most; fewer where there are not so many identities.
        seed: of folds and cohorts.

    Returns:
        For each side the mean for each picture; and "folds", "identities" and "pictures" of the smallest cohort and
        how many of its scores are "used".
    """
    rng = np.random.default_rng(seed)
    own = {name: rng.permutation(np.unique(sides[name].labels)) for name in ("members", "heldout")}
    folds = min(folds, *map(len, own.values()))
    fold_of = {int(label): at % folds for ids in own.values() for at, label in enumerate(ids)}
    result = {name: np.zeros(len(faces)) for name, faces in sides.items()}
    place = {name: np.array([fold_of.get(int(x), 0) for x in faces.labels]) for name, faces in sides.items()}
    sizes = []
    for fold in range(folds):
        other = {name: ids[np.arange(len(ids)) % folds != fold] for name, ids in own.items()}
        count = min(pictures // 2, *map(len, other.values()))
        rows = [
            drawn(sides[name].labels, pictures // (2 * count), rng, among=ids[:count]) for name, ids in other.items()
        ]
        cohort = np.concatenate([sides[name].embeddings[chosen] for name, chosen in zip(other, rows, strict=True)])
        used = min(len(cohort), max(10, len(cohort) // 10))
        sizes.append({"identities": 2 * count, "pictures": len(cohort), "used": used})
        for name, faces in sides.items():
            rows = np.flatnonzero(place[name] == fold)
            for block in np.array_split(rows, max(1, len(rows) // 4096)):
                highest = np.partition(faces.embeddings[block] @ cohort.T, len(cohort) - used, axis=1)[:, -used:]
                result[name][block] = highest.mean(1)
    return result, {"folds": folds} | min(sizes, key=lambda size: size["pictures"])


def nearest_synthetic(faces: Faces, synthetic: Faces) -> Num[np.ndarray, " n"]:
    """The cosine of each picture with the synthetic one most alike."""
    matches = matching.match(faces.embeddings, synthetic.embeddings, top_k=1, gallery_side=False)
    return matches.top_scores[:, 0]


def _scores(
    sides: Mapping[str, Faces],
    synthetic: Faces,
    close: Mapping[str, Num[np.ndarray, " _"]],
    calibrated: Mapping[str, Num[np.ndarray, " _"]],
    seed: int,
) -> dict[str, tuple[Num[np.ndarray, " _"], Num[np.ndarray, " _"]]]:
    """The scores of members and of held-out people under each of `ATTACKS`."""
    rng = np.random.default_rng(seed)
    sizes = [np.unique(sides[name].labels, return_counts=True)[1] for name in ("members", "heldout")]
    # the more pictures, the higher the highest and the surer the mean picture: equally many on both sides
    each = int(min(np.quantile(counts, 0.1, method="lower") for counts in sizes))
    made = _templates(synthetic)
    found: dict[str, list] = {name: [] for name in ATTACKS}
    for name in ("members", "heldout"):
        faces = sides[name]
        rows = drawn(faces.labels, each, rng)
        some = Faces(faces.embeddings[rows], faces.labels[rows])
        for attack, score in (("nearest", close[name]), ("calibrated", calibrated[name])):
            found[f"{attack}_picture"].append(score)
            found[f"{attack}_mean"].append(identity_means(score, faces.labels))
            found[f"{attack}_max"].append(_highest(score[rows], some.labels))
        found["template"].append(np.concatenate([(part @ made.T).max(1) for part in _blocks(_templates(some))]))
    return {name: (inside, outside) for name, (inside, outside) in found.items()}


def _templates(faces: Faces) -> Float[np.ndarray, "i d"]:
    """The mean picture of each identity, of length one, in the order of the labels."""
    names, group = np.unique(faces.labels, return_inverse=True)
    order = np.argsort(group, kind="stable")
    starts = np.searchsorted(group[order], np.arange(len(names)))
    sums = np.add.reduceat(faces.embeddings[order], starts, axis=0)
    return sums / np.linalg.norm(sums, axis=1, keepdims=True).clip(1e-12)


def _blocks(rows: Float[np.ndarray, "n d"]) -> list[np.ndarray]:
    return np.array_split(rows, max(1, len(rows) // 1024))


def _split(
    scores: Num[np.ndarray, " n"], labels: Int[np.ndarray, " n"], among: Int[np.ndarray, " i"]
) -> list[np.ndarray]:
    """The scores of each of some identities."""
    order = np.argsort(labels, kind="stable")
    ends = [np.searchsorted(labels[order], among, side=side) for side in ("left", "right")]
    return [scores[order[first:last]] for first, last in zip(*ends, strict=True)]


def _highest(scores: Num[np.ndarray, " n"], labels: Int[np.ndarray, " n"]) -> Num[np.ndarray, " g"]:
    names, group = np.unique(labels, return_inverse=True)
    highest = np.full(len(names), -np.inf)
    np.maximum.at(highest, group, scores)
    return highest


def _judge(
    inside: Num[np.ndarray, " n"],
    inside_ids: Int[np.ndarray, " n"],
    outside: Num[np.ndarray, " m"],
    outside_ids: Int[np.ndarray, " m"],
    rounds: int,
    seed: int,
) -> dict[str, Any]:
    """What `judge` says of one unit."""
    fpr, fnr = metrics.det_curve(inside, outside, points=100)
    operating = {
        curves.rate_name(rate): _operate(inside, inside_ids, outside, rate)
        for rate in RATES
        if rate * len(outside) >= 1
    }
    return {
        "auc": metrics.auc(inside, outside),
        "interval": metrics.auc_interval(inside, inside_ids, outside, outside_ids),
        "p_value": _permuted(inside, inside_ids, outside, outside_ids, rounds, seed),
        "tpr_at_fpr": {name: at["tpr"] for name, at in operating.items()},
        "operating": operating,
        "roc": {"fpr": fpr.tolist(), "tpr": (1 - fnr).tolist()},
    }


def _operate(
    inside: Num[np.ndarray, " n"], inside_ids: Int[np.ndarray, " n"], outside: Num[np.ndarray, " m"], rate: float
) -> dict[str, Any]:
    """The lowest threshold that at most a share `rate` of the outside reaches, and what is found there."""
    bar = curves.one_too_many(outside, rate)
    alarms, above = int((outside > bar).sum()), [scores[scores > bar] for scores in (inside, outside)]
    threshold = float(min((part.min() for part in above if len(part)), default=np.inf))
    found = metrics.match_rate(inside, inside_ids, threshold)
    return {
        "threshold": threshold,
        "fpr": alarms / len(outside),
        "false_positives": alarms,
        "tpr": found["rate"],
        "interval": found["interval"],
        "supported": alarms >= curves.RULE_OF_30,
    }


def _permuted(
    inside: Num[np.ndarray, " n"],
    inside_ids: Int[np.ndarray, " n"],
    outside: Num[np.ndarray, " m"],
    outside_ids: Int[np.ndarray, " m"],
    rounds: int,
    seed: int,
) -> float:
    """One-sided p-value of the area: identities change sides, those on both sides swap their two parts."""
    scores = np.concatenate([inside, outside])
    names, group = np.unique(np.concatenate([inside_ids, outside_ids]), return_inverse=True)
    ranks = metrics.placements(scores, scores) * len(scores) + 0.5  # of all scores together, so they stay
    is_in = np.arange(len(scores)) < len(inside)
    sums, counts = (
        np.stack([np.bincount(group[part], value[part], len(names)) for part in (is_in, ~is_in)])
        for value in (ranks, np.ones(len(scores)))
    )  # [2, identities]: inside, outside
    shared = (counts > 0).all(0)
    alone = np.flatnonzero(~shared)
    many = int((counts[0, alone] > 0).sum())

    def area(chosen: Int[np.ndarray, " c"], part: Int[np.ndarray, " s"]) -> float:
        total = sums[:, chosen].sum() + sums[part, np.flatnonzero(shared)].sum()
        taken = counts[:, chosen].sum() + counts[part, np.flatnonzero(shared)].sum()
        return (total - taken * (taken + 1) / 2) / (taken * (len(scores) - taken))

    rng = np.random.default_rng(seed)
    swapped = int(shared.sum())
    here = area(np.flatnonzero(~shared & (counts[0] > 0)), np.zeros(swapped, np.int64))
    others = [area(rng.permutation(alone)[:many], rng.integers(0, 2, swapped)) for _ in range(rounds)]
    return float((1 + (np.array(others) >= here - 1e-12).sum()) / (1 + rounds))


def _best_test(
    inside: Float[np.ndarray, " m"], outside: Float[np.ndarray, " h"], confidence: float, delta: float
) -> tuple[str, float]:
    """Which inequality at which threshold gives the highest bound, among thresholds of 0, 1, 2, ... errors."""
    scores = np.unique(np.concatenate([inside, outside]))
    cuts = np.concatenate([[-np.inf], (scores[1:] + scores[:-1]) / 2, [np.inf]])
    m, h = len(inside), len(outside)
    alarms = h - np.searchsorted(np.sort(outside), cuts)
    misses = np.searchsorted(np.sort(inside), cuts)
    lowest = {int(np.argmax(alarms <= errors)) for errors in _few(h)}  # the lowest threshold with so few alarms
    highest = {int(np.searchsorted(misses, errors, side="right")) - 1 for errors in _few(m)}  # with so few misses
    tests = [("tpr", at, m - misses[at], m, alarms[at], h) for at in sorted(lowest)]
    tests += [("tnr", at, h - alarms[at], h, misses[at], m) for at in sorted(highest)]
    bounds = [_epsilon(*(int(count) for count in counts), confidence, delta) for _, _, *counts in tests]
    inequality, at, *_ = tests[int(np.argmax(bounds))]
    return inequality, float(cuts[at])


def _few(most: int) -> list[int]:
    """0, 1, 2, ... and ever fewer numbers up to `most`."""
    return [0, *np.unique(np.geomspace(1, most, 16).astype(int)).tolist()]


def _epsilon(found: int, of: int, wrong: int, of_wrong: int, confidence: float, delta: float) -> float:
    """ln((share found, at its low end, - delta) / share wrong, at its high end), at least 0."""
    low = metrics.clopper_pearson(found, of, confidence)[0] - delta
    high = metrics.clopper_pearson(wrong, of_wrong, confidence)[1]
    return math.log(low / high) if low > high else 0.0
