"""Measures of pictures by their features: what they are by definition, and what they must say of known cases."""

from __future__ import annotations

import math

import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sface_jax.gan import quality

SEEDS = st.integers(0, 2**32 - 1)
FEW = settings(max_examples=15, deadline=None)


def unit(x: np.ndarray) -> np.ndarray:
    return x / np.linalg.norm(x, axis=1, keepdims=True)


def faces(rng: np.random.Generator, classes: int, each: int, spread: float = 0.5, d: int = 12):
    """Features of length one around a centre of each class, and labels that do not begin at 0."""
    centres = np.random.default_rng(1).normal(size=(classes, d))
    x = np.repeat(centres, each, 0) + spread * rng.normal(size=(classes * each, d))
    return unit(x).astype(np.float32), np.repeat(np.arange(classes), each) + 7


def cosine_pairs(x: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Cosines of all pairs of two different pictures, and which are of one class."""
    i, j = np.nonzero(~np.eye(len(x), dtype=bool))
    return (x[i] * x[j]).sum(1, dtype=np.float64), labels[i] == labels[j]


def standardised(rng: np.random.Generator, n: int, d: int) -> np.ndarray:
    """A sample whose mean is 0 and whose covariance is the identity, exactly."""
    x = rng.normal(size=(n, d))
    x = np.linalg.qr(x - x.mean(0))[0]
    return x * math.sqrt(n - 1)


@FEW
@given(SEEDS)
def test_frechet_distance_of_normal_distributions(seed):
    rng = np.random.default_rng(seed)
    d = 5
    x, y = standardised(rng, 40, d), standardised(rng, 30, d)
    roots = [np.linalg.qr(rng.normal(size=(d, d)))[0] * rng.uniform(0.1, 3, d) for _ in range(2)]  # S = root root^T
    mean = rng.normal(size=d)
    covariances = [root @ root.T for root in roots]
    found = quality.frechet_distance(x @ roots[0].T, y @ roots[1].T + mean)
    mixed = np.sqrt(np.linalg.eigvals(covariances[0] @ covariances[1]).real.clip(0)).sum()
    assert found == pytest.approx(mean @ mean + np.trace(sum(covariances)) - 2 * mixed, rel=1e-9)
    # covariances that commute: the distance of the roots
    scales = rng.uniform(0.1, 3, (2, d))
    assert quality.frechet_distance(x * scales[0], y * scales[1]) == pytest.approx(
        np.square(scales[0] - scales[1]).sum(), rel=1e-9
    )


def test_frechet_distance_with_fewer_pictures_than_features():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(6, 40))
    assert quality.frechet_distance(x, x) == pytest.approx(0, abs=1e-12)
    assert quality.frechet_distance(x, x + 0.5) == pytest.approx(40 * 0.25)


@pytest.mark.parametrize("scale", [None, 1.0])
def test_kernel_distance_by_its_definition(scale):
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(7, 4)), rng.normal(1, 1, size=(5, 4))

    def k(x, y):
        return (x @ y * (scale or 1 / 4) + 1) ** 3

    expected = np.mean([k(x, y) for i, x in enumerate(a) for j, y in enumerate(a) if i != j])
    expected += np.mean([k(x, y) for i, x in enumerate(b) for j, y in enumerate(b) if i != j])
    expected -= 2 * np.mean([k(x, y) for x in a for y in b])
    assert quality.kernel_distance(a, b, scale) == pytest.approx(expected, rel=1e-12)


def test_kernel_distance_is_unbiased():
    rng = np.random.default_rng(0)
    found = [quality.kernel_distance(*rng.normal(size=(2, 12, 3))) for _ in range(400)]
    assert abs(np.mean(found)) < 4 * np.std(found) / math.sqrt(len(found))
    assert min(found) < 0


@FEW
@given(SEEDS, st.integers(1, 4))
def test_precision_and_recall_by_their_definition(seed, k):
    rng = np.random.default_rng(seed)
    a, s = rng.normal(size=(9, 3)), rng.normal(0.5, 0.7, size=(6, 3))

    def share_inside(points, of):
        radii = [sorted(np.linalg.norm(of - x, axis=1))[k] for x in of]  # the first is the point itself
        return np.mean([any(np.linalg.norm(of - x, axis=1) <= radii) for x in points])

    assert quality.precision_recall(a, s, k) == (share_inside(s, a), share_inside(a, s))


def test_precision_and_recall_of_known_cases(monkeypatch):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(50, 4)).astype(np.float32)
    whole = quality.precision_recall(x, x[::-1] * 0.9)
    monkeypatch.setattr(quality, "_ROWS", 7)
    assert quality.precision_recall(x, x[::-1] * 0.9) == whole, "blocks change nothing"
    assert quality.precision_recall(x, x) == (1, 1)
    assert quality.precision_recall(x, x + 100) == (0, 0)
    precision, recall = quality.precision_recall(x, np.repeat(x[:1], 20, 0))  # one good picture, again and again
    assert precision == 1 and recall == 1 / 50
    with pytest.raises(ValueError, match="k=3"):
        quality.precision_recall(x[:3], x)


@FEW
@given(SEEDS)
def test_class_similarity_is_that_of_all_pairs(seed):
    rng = np.random.default_rng(seed)
    x, labels = unit(rng.normal(size=(15, 6))), rng.integers(0, 4, 15)
    labels[0] = 99  # a class of one picture
    cosines, same = cosine_pairs(x, labels)
    found = quality.class_similarity(jnp.asarray(x), jnp.asarray(labels))
    assert found.intra == pytest.approx(cosines[same].mean(), abs=1e-6)
    assert found.inter == pytest.approx(cosines[~same].mean(), abs=1e-6)
    for label, spread in zip(found.classes, found.spread, strict=True):
        of_class = cosine_pairs(x[labels == label], labels[labels == label])[0]
        assert spread == pytest.approx(1 - of_class.mean() if len(of_class) else math.nan, abs=1e-6, nan_ok=True)


def test_spread_ratio_tells_collapse_within_classes():
    rng = np.random.default_rng(0)
    authentic = quality.class_similarity(*faces(rng, 8, 20))
    ratios = [
        quality.spread_ratio(authentic, quality.class_similarity(*faces(rng, 8, 20, spread)))
        for spread in (0.5, 0.25, 0.0)
    ]
    assert ratios[0] == pytest.approx(1, abs=0.1)
    assert ratios[0] > ratios[1] > ratios[2]
    assert ratios[2] == pytest.approx(0, abs=1e-6)
    assert [quality.collapsed(ratio) for ratio in (*ratios, math.nan)] == [False, True, True, False]
    alone = quality.class_similarity(*faces(rng, 8, 1))
    assert math.isnan(quality.spread_ratio(authentic, alone)) and math.isnan(alone.intra)


def test_label_consistency():
    rng = np.random.default_rng(0)
    a, labels = faces(rng, 6, 10, spread=0.1)
    s, _ = faces(rng, 6, 4, spread=0.1)
    own = np.repeat(np.arange(6), 4) + 7
    similarity, rank1 = quality.label_consistency(a, labels, s, own)
    assert similarity > 0.9 and rank1 == 1
    swapped = np.where(own == 7, 8, own)  # a sixth is asked for another class
    assert quality.label_consistency(a, labels, s, swapped)[1] == pytest.approx(5 / 6)
    unknown = np.where(own == 12, 99, own)
    assert quality.label_consistency(a, labels, s, unknown) == quality.label_consistency(a, labels, s[:20], own[:20])
    assert all(map(math.isnan, quality.label_consistency(a, labels, s, own + 50)))


def test_measure_knows_a_good_generator_from_a_collapsed_one():
    rng = np.random.default_rng(0)
    a, labels = faces(rng, 8, 16)
    good, collapsed = faces(rng, 8, 16)[0], faces(rng, 8, 16, spread=0.01)[0]
    told = {name: quality.measure(a, labels, s, labels) for name, s in (("good", good), ("collapsed", collapsed))}
    assert tuple(told["good"]) == quality.MEASURES
    assert all(isinstance(value, float) for value in told["good"].values())
    assert told["good"]["frechet"] < told["collapsed"]["frechet"]
    assert told["good"]["kernel"] < told["collapsed"]["kernel"]
    assert told["good"]["recall"] > 0.6 > 0.2 > told["collapsed"]["recall"]
    assert told["collapsed"]["intra_synthetic"] > 0.99 > told["good"]["intra_synthetic"]
    assert told["collapsed"]["precision"] > 0.9
    assert not quality.collapsed(told["good"]["spread_ratio"])
    assert quality.collapsed(told["collapsed"]["spread_ratio"])


@FEW
@given(SEEDS)
def test_the_order_of_pictures_does_not_matter(seed):
    rng = np.random.default_rng(seed)
    (a, labels), (s, others) = faces(rng, 5, 6), faces(rng, 4, 5)
    p, q = rng.permutation(len(a)), rng.permutation(len(s))
    assert quality.measure(a[p], labels[p], s[q], others[q]) == pytest.approx(
        quality.measure(a, labels, s, others), rel=1e-9, abs=1e-12
    )


def test_measure_of_features_that_are_not_finite():
    x, labels = faces(np.random.default_rng(0), 3, 4)
    told = quality.measure(x, labels, np.full_like(x, np.nan), labels)
    assert tuple(told) == quality.MEASURES and all(map(math.isnan, told.values()))
    with pytest.raises(ValueError, match="two"):
        quality.measure(x, labels, x[:1], labels[:1])
