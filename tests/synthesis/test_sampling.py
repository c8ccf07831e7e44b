"""Latents are functions of (seed, class, index) alone."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sface_jax.synthesis import sampling

Z = 8
STRATEGIES = {"free": sampling.free(5, Z), "shared_seeds": sampling.shared_seeds(5, Z, count=3)}
DRAW = {name: jax.jit(jax.vmap(strategy)) for name, strategy in STRATEGIES.items()}


def draw(name, labels, indices):
    return np.asarray(DRAW[name](np.array(labels, np.int32), np.array(indices, np.int32)))


@pytest.mark.parametrize("name", STRATEGIES)
@settings(max_examples=30, deadline=None)
@given(pairs=st.lists(st.tuples(st.integers(0, 99_999), st.integers(0, 999)), min_size=2, max_size=2))
def test_a_latent_does_not_depend_on_its_neighbours(name, pairs):
    forward, backward = draw(name, *zip(*pairs, strict=True)), draw(name, *zip(*pairs[::-1], strict=True))
    np.testing.assert_array_equal(forward, backward[::-1])
    np.testing.assert_array_equal(forward[:1], draw(name, *zip(*pairs[:1], strict=True)))


def test_free_latents_are_standard_normal_and_all_different():
    labels, indices = np.divmod(np.arange(4000), 20)
    z = draw("free", labels, indices)
    assert len(np.unique(z, axis=0)) == len(z)
    assert np.abs(z.mean(0)).max() < 0.08 and np.abs(np.cov(z.T) - np.eye(Z)).max() < 0.12
    assert not np.allclose(z[0], sampling.free(6, Z)(jnp.int32(0), jnp.int32(0)))


def test_shared_seeds_come_from_one_small_pool():
    labels, indices = np.divmod(np.arange(200), 20)
    z = draw("shared_seeds", labels, indices)
    pool = np.unique(z, axis=0)
    assert len(pool) == 3
    for label in range(10):
        assert {tuple(row) for row in z[labels == label]} <= {tuple(row) for row in pool}
