"""Power: what an audit of this size could have seen, and what would have escaped it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from statistics import NormalDist
from typing import Any

from sface_jax.privacy import metrics
from sface_jax.privacy.wording import percent
from sface_jax.verification import curves

POWER, ALPHA = 0.8, 0.05


def power(
    *,
    members: int,
    heldout: int,
    shared: int,
    match_rates: Mapping[str, Mapping[str, Any]] | None = None,
    non_mated: int = 0,
) -> dict[str, Any]:
    """The effects that a test at level 5 % (two-sided) finds with 80 % probability, and what cannot be measured.

    Args:
        members: member identities.
        heldout: held-out identities; 0 for none.
        shared: identities with authentic and synthetic pictures.
        match_rates: of same-label pairs, as `relations.match_rates` gives them; {} or None for none.
        non_mated: comparisons of authentic strangers behind the thresholds; 0 for unknown.

    Returns:
        "power" and "alpha"; "membership": {"members", "heldout", "auc": the least that would be found
        (`detectable_auc`), "smallest_fpr": 1 / held-out, "unseen_event": what may still happen to a held-out identity
        though it did to none (rule of three, at 95 %), "supported_fpr": the least FPR behind which 30 held-out
        identities would stand (rule of 30), None where that is above 1}; "match_rates": {FMR: {"chance", "effective",
        "rate": the least that would be found (`detectable_rate`), "ratio"}}; "linkage": {"identities", "rank1": the
        same for label recovery}; "smallest_fmr": by the rule of 30, None where unknown; and "sentences", the same in
        words. What was not there to be tested is {}.
    """
    found: dict[str, Any] = {"power": POWER, "alpha": ALPHA, "membership": {}, "match_rates": {}, "linkage": {}}
    if min(members, heldout) >= 2:
        found["membership"] = {
            "members": members,
            "heldout": heldout,
            "auc": detectable_auc(members, heldout),
            "smallest_fpr": 1 / heldout,
            "unseen_event": min(3 / heldout, 1.0),
            "supported_fpr": curves.RULE_OF_30 / heldout if heldout >= curves.RULE_OF_30 else None,
        }
    for key, rate in (match_rates or {}).items():
        least = detectable_rate(rate["fmr"], rate["effective"])
        ratio = least / rate["fmr"] if rate["fmr"] else math.inf
        found["match_rates"][key] = {
            "chance": rate["fmr"],
            "effective": rate["effective"],
            "rate": least,
            "ratio": ratio,
        }
    if shared:
        found["linkage"] = {"identities": shared, "chance": 1 / members, "rank1": detectable_rate(1 / members, shared)}
    found["smallest_fmr"] = curves.RULE_OF_30 / non_mated if non_mated >= curves.RULE_OF_30 else None
    found["sentences"] = _sentences(found)
    return found


def detectable_auc(members: int, heldout: int) -> float:
    """The least AUC above one half that is found with probability `POWER` at level `ALPHA`.

    A - 1/2 = z_(1 - alpha / 2) s(1/2) + z_power s(A), s the standard error of Hanley and McNeil (1982).
    """
    level, reach = (NormalDist().inv_cdf(share) for share in (1 - ALPHA / 2, POWER))
    low, high = 0.5, 1.0
    for _ in range(50):
        middle = (low + high) / 2
        needed = level * _standard_error(0.5, members, heldout) + reach * _standard_error(middle, members, heldout)
        low, high = (middle, high) if middle - 0.5 < needed else (low, middle)
    return high


def detectable_rate(chance: float, trials: float | int) -> float:
    """The least rate above `chance` that is found with probability `POWER` at level `ALPHA` in independent trials.

    By the exact binomial test: k is the least number of hits with P(X >= k; chance) <= alpha / 2, and the rate that
    with P(X >= k; rate) = power. 1 where not even all hits would be enough.
    """
    # P(X >= k; p) = I_p(k, n - k + 1) rises with p, so the k-th test fails up to its lower Clopper-Pearson end
    low, high = 0, max(int(trials), 1)
    if metrics.clopper_pearson(high, high, 1 - ALPHA)[0] < chance:
        return 1.0
    trials = high
    while high - low > 1:
        middle = (low + high) // 2
        enough = metrics.clopper_pearson(middle, trials, 1 - ALPHA)[0] >= chance
        low, high = (low, middle) if enough else (middle, high)
    return metrics.beta_quantile(POWER, high, trials - high + 1)


def _standard_error(area: float, members: int, heldout: int) -> float:
    """Of an AUC (Hanley and McNeil, Radiology 143, 1982)."""
    one, two = area / (2 - area), 2 * area**2 / (1 + area)
    spread = area * (1 - area) + (members - 1) * (one - area**2) + (heldout - 1) * (two - area**2)
    return math.sqrt(spread / (members * heldout))


def _sentences(found: dict[str, Any]) -> list[str]:
    sentences = []
    if one := found["membership"]:
        sentences += [
            f"With {one['members']:,} members and {one['heldout']:,} held-out identities, a membership attack is found "
            f"with 80 % probability where its AUC is at least {one['auc']:.3f}.",
            f"A false positive rate below {percent(one['smallest_fpr'])} of identities cannot be measured, and what "
            f"happened to none of the held-out identities may still happen to {percent(one['unseen_event'])} of "
            f"people (rule of three).",
        ]
        if one["supported_fpr"] is None:
            sentences.append("No false positive rate has 30 held-out identities behind it (rule of 30).")
        else:
            sentences.append(
                f"False positive rates below {percent(one['supported_fpr'])} have fewer than 30 held-out identities "
                f"behind them (rule of 30)."
            )
    for rate in found["match_rates"].values():
        sentences.append(
            f"Where {percent(rate['chance'])} of authentic strangers match, same-label pairs must match in at least "
            f"{percent(rate['rate'])}, {rate['ratio']:.3g} times as often, to be found with 80 % probability."
        )
    if one := found["linkage"]:
        sentences.append(
            f"One search for each of {one['identities']:,} synthetic identities finds a link with 80 % probability "
            f"where at least {percent(one['rank1'])} of them come first; chance is {percent(one['chance'])}."
        )
    if found["smallest_fmr"]:
        sentences.append(
            f"False match rates below {found['smallest_fmr']:.2g} rest on fewer than 30 comparisons of strangers "
            f"(rule of 30)."
        )
    return sentences
