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
        held = owners >= 40
        allowed = 20
        end = np.flatnonzero(held)[allowed]
        pictures = np.arange(4000) // 2
        (low, high), shown = chance.interval(owners, pictures, 60, 20, allowed, rounds=200, seed=seed)
        assert low / 2 <= shown[0] <= low and high / 2 <= shown[1] <= high
        inside.append(low <= end - allowed <= high)
        counts = np.bincount(owners[:end], minlength=60)
        small.append(chance.p_value(counts[:40], counts[40:], rounds=500, seed=seed) <= 0.05)
        # everyone has a link with each of a few pictures that were repeated
        own = rng.exponential(size=(150, 5)).max(axis=1)
        order = np.repeat(np.argsort(-own[:50]), 9)
        expected = 2 * chance.Tail(own[order], order, seed=seed).people_above(own[50:].max()[None])[0]
        tail.append(1 - np.exp(-expected) <= 0.05)
    assert 0.9 <= np.mean(inside) <= 1 and np.mean(small) <= 0.09 and np.mean(tail) <= 0.09


def test_a_tail_counts_people_and_falls_beyond():
    rng = np.random.default_rng(0)
    scores, people = -np.sort(-rng.exponential(size=5000)), rng.integers(0, 50, 5000)
    tail = chance.Tail(scores, people)
    best = np.array([scores[people == person].max() for person in range(50)])
    assert tail.people_above(np.sort(best)[-20:-19])[0] >= 20
    above = tail.people_above(np.array([scores[0], scores[0] + 5, scores[0] + 50]))
    assert 1 <= above[0] < 10 and above[0] > 10 * above[1] and above[2] < 1e-12
    few = chance.Tail(scores, people % 20)
    assert not few.known and few.people_above(scores[:1])[0] == 2
