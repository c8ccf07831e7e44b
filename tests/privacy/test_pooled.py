"""Pooled scores of identities against all scores of their pictures."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sface_jax.privacy import pooled


@settings(max_examples=12, deadline=None)
@given(seed=st.integers(0, 1000), pooling=st.sampled_from(pooled.POOLINGS), rows=st.sampled_from([7, 4096]))
def test_pooled_scores_are_those_of_all_pairs(seed, pooling, rows):
    rng = np.random.default_rng(seed)
    a, b = rng.standard_normal((2, 40, 8))
    of_a, of_b = rng.integers(0, 9, 40), rng.integers(3, 14, 40)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pooled, "_ROWS", rows)
        patch.setattr(pooled, "_IDENTITIES", 4)
        found = pooled.match_identities(a, b, of_a, of_b, pooling=pooling, top_k=3)

    scores = (a / np.linalg.norm(a, axis=1, keepdims=True)) @ (b / np.linalg.norm(b, axis=1, keepdims=True)).T
    gallery = np.unique(of_b)
    for place, identity in enumerate(found.identities):
        among = {y: getattr(np, pooling)(scores[of_a == identity][:, of_b == y]) for y in gallery}
        own = among.pop(identity, -np.inf)
        assert found.own[place] == pytest.approx(own, abs=1e-6)
        assert found.other[place] == pytest.approx(max(among.values()), abs=1e-6)
        if np.isfinite(own):
            assert found.rank[place] == 1 + sum(score >= own for score in among.values())
        both = among | ({identity: own} if np.isfinite(own) else {})
        best = sorted(both, key=both.get, reverse=True)[:3]
        assert found.top_identities[place].tolist() == best
        assert found.top_scores[place] == pytest.approx([both[y] for y in best], abs=1e-6)
    assert found.identities.tolist() == np.unique(of_a).tolist()


def test_among_equals_the_mate_comes_last():
    x = np.eye(4)[[0, 0, 1]]
    found = pooled.match_identities(x[:1], x, np.array([5]), np.array([3, 5, 7]))
    assert found.rank.tolist() == [2] and found.own.tolist() == found.other.tolist() == [1]


def test_another_pooling_is_refused():
    with pytest.raises(ValueError, match="there are mean, max"):
        pooled.match_identities(np.eye(2), np.eye(2), np.arange(2), np.arange(2), pooling="sum")
