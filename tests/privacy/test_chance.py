"""What chance does is told rightly where chance alone is at work."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sface_jax.privacy.attacks import chance


@settings(max_examples=20, deadline=None)
@given(
    members=st.lists(st.integers(0, 4), min_size=2, max_size=5),
    others=st.lists(st.integers(0, 4), min_size=2, max_size=3),
)
def test_p_value_is_the_share_of_all_choices(members, others):
    every = np.array(members + others)
    sums = [every[list(chosen)].sum() for chosen in itertools.combinations(range(len(every)), len(others))]
    exact = np.mean(np.array(sums) <= sum(others))
    assert chance.p_value(np.array(members), np.array(others)) == pytest.approx(exact, abs=0.02)


def test_intervals_cover_and_tests_keep_their_level():
    inside, small, tail = [], [], []
    for seed in range(200):
        rng = np.random.default_rng(seed)
        owners = rng.choice(60, 4000, p=rng.dirichlet(np.full(60, 2.0)))  # some people are alike to many
        scores = -np.sort(-rng.exponential(size=4000))
        held = owners >= 40
        allowed = 20
        end = np.flatnonzero(held)[allowed]
        low, high = chance.interval(owners, 60, 20, allowed, rounds=200, seed=seed)
        inside.append(low <= end - allowed <= high)
        counts = np.bincount(owners[:end], minlength=60)
        small.append(chance.p_value(counts[:40], counts[40:], rounds=500, seed=seed) <= 0.05)
        expected = 2 * chance.Tail(scores[held], owners[held], 4000, seed=seed).links_above(scores[~held][:1])[0]
        tail.append(1 - np.exp(-expected) <= 0.05)
    assert 0.9 <= np.mean(inside) <= 1 and np.mean(small) <= 0.09 and np.mean(tail) <= 0.05


def test_a_tail_counts_what_was_seen_and_falls_beyond():
    rng = np.random.default_rng(0)
    scores = -np.sort(-rng.exponential(size=5000))
    tail = chance.Tail(scores, rng.integers(0, 50, 5000), 5000)
    assert tail.links_above(scores[999:1000])[0] == 1000
    above = tail.links_above(np.array([scores[0], scores[0] + 5, scores[0] + 50]))
    assert 0.2 < above[0] < 10 and above[0] > 20 * above[1] and above[2] < 1e-12
    few = chance.Tail(scores[:20], np.arange(20), 5000)
    assert not few.known and few.links_above(scores[:1])[0] == 20
