"""Intervals from a bootstrap over subjects."""

import numpy as np

from sface_jax.verification import bootstrap, protocol


def simulated(rng: np.random.Generator, people: int = 200, each: int = 6, pairs: int = 1000, blur: float = 0):
    """Pairs of pictures of people who differ in how alike their own pictures are."""
    centre, spread = rng.standard_normal((people, 1, 16)), np.exp(0.5 * rng.standard_normal((people, 1, 1)))
    pictures = centre + spread * rng.standard_normal((people, each, 16))
    pictures += blur * np.random.default_rng(0).standard_normal(pictures.shape)
    pictures /= np.linalg.norm(pictures, axis=-1, keepdims=True)
    same = np.arange(pairs) % 2 == 0
    first = rng.integers(0, people, pairs)
    second = np.where(same, first, (first + rng.integers(1, people, pairs)) % people)
    i = rng.integers(0, each, pairs)
    j = (i + rng.integers(1, each, pairs)) % each
    return protocol.compare(pictures[first, i], pictures[second, j], same), first, second


def test_intervals_cover_the_mean_of_many_benchmarks():
    rng = np.random.default_rng(0)
    found, covers = [], []
    for _ in range(40):
        compared, first, second = simulated(rng)
        found.append(compared.accuracy().mean)
        covers.append(bootstrap.intervals(bootstrap.replicated(compared, first, second, replicates=200))["accuracy"])
    low, high = np.array(covers).T
    truth = np.mean(found)
    assert np.mean((low <= truth) & (truth <= high)) >= 0.9
    # not by being wide: pairs drawn anew, people and all, spread two thirds as much or more
    assert np.mean(high - low) / 3.92 < 1.6 * np.std(found)


def test_the_same_seed_gives_the_same_intervals_and_rates_have_theirs():
    compared, first, second = simulated(np.random.default_rng(1))
    found = bootstrap.intervals(bootstrap.replicated(compared, first, second, replicates=100))
    assert found == bootstrap.intervals(bootstrap.replicated(compared, first, second, replicates=100))
    assert found != bootstrap.intervals(bootstrap.replicated(compared, first, second, replicates=100, seed=1))
    assert list(found) == ["accuracy", "tmr_at_fmr_1e-2", "tmr_at_fmr_1e-3"]
    low, high = found["tmr_at_fmr_1e-2"]
    points = compared.points()
    assert low <= (points.true_accepts[points.false_accepts <= 5][0] / points.true_accepts[0]) <= high


def test_two_networks_are_replicated_on_the_same_people():
    (one, first, second), (other, *_) = (simulated(np.random.default_rng(1), blur=blur) for blur in (0, 0.3))
    a, b = (bootstrap.replicated(of, first, second, replicates=200)["accuracy"] for of in (one, other))
    assert np.std(a - b) < 0.7 * np.hypot(np.std(a), np.std(b))


def test_without_doubt_there_is_no_width():
    same = np.arange(100) % 2 == 0
    a = np.eye(100)
    b = np.where(same[:, None], a, np.roll(a, 1, axis=0))
    compared = protocol.compare(a, b, same)
    subjects = np.arange(100)
    second = np.where(same, subjects, (subjects + 50) % 100)
    found = bootstrap.intervals(bootstrap.replicated(compared, subjects, second, replicates=50))
    assert found["accuracy"] == (1.0, 1.0)
    assert bootstrap.intervals(bootstrap.replicated(compared, subjects % 9, subjects % 9, replicates=50)) == {}
