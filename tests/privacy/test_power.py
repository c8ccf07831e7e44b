"""What the audit could have seen is what simulated audits see."""

import numpy as np
import pytest

from sface_jax.privacy import metrics
from sface_jax.privacy.attacks import membership, power


def test_the_detectable_rate_is_found_four_times_of_five():
    rng, trials, chance = np.random.default_rng(0), 200, 0.01
    least = power.detectable_rate(chance, trials)
    fewest = next(hits for hits in range(trials) if metrics.clopper_pearson(hits, trials)[0] > chance)
    assert np.mean(rng.binomial(trials, least, 5000) >= fewest) == pytest.approx(power.POWER, abs=0.03)
    assert power.detectable_rate(0.5, 3) == 1


def test_the_detectable_auc_is_found_four_times_of_five():
    rng, m, h = np.random.default_rng(0), 120, 40
    shift = 2**0.5 * metrics.NormalDist().inv_cdf(power.detectable_auc(m, h))
    seen = [
        metrics.auc_interval(rng.normal(shift, 1, m), np.arange(m), rng.normal(0, 1, h), np.arange(m, m + h))[0] > 0.5
        for _ in range(100)
    ]
    assert np.mean(seen) == pytest.approx(power.POWER, abs=0.1)


def test_power_says_what_was_not_tested():
    rates = {"1e-2": {"fmr": 0.01, "effective": 500.0}}
    found = power.power(members=100, heldout=60, shared=100, match_rates=rates, non_mated=10_000)
    assert found["membership"]["supported_fpr"] == 0.5 and found["membership"]["unseen_event"] == 0.05
    assert found["match_rates"]["1e-2"]["rate"] > 0.01 and found["smallest_fmr"] == 0.003
    assert len(found["sentences"]) == 6
    nothing = power.power(members=100, heldout=0, shared=0)
    assert nothing["membership"] == nothing["match_rates"] == nothing["linkage"] == {} and nothing["sentences"] == []
    assert membership.RATES[0] > found["membership"]["smallest_fpr"]
