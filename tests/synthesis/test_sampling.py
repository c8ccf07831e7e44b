"""Styles are functions of (seed, class, index, attempt) alone."""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sface_jax.synthesis.sampling import STRATEGIES, Samples, Source

Z, CLASSES = 8, 6


class Echo(nn.Module):
    """A generator whose w is the latent and, beside it, the class."""

    z_dim: int = Z

    def map(self, z, c, truncation_psi=1.0):
        """Truncates towards zero."""
        return truncation_psi * jnp.concatenate([z, jax.nn.one_hot(c, CLASSES)], axis=1)[:, None]


CENTRES = jnp.eye(CLASSES, Z + CLASSES, k=Z)


@functools.cache
def compiled(name, seed=5, psi=1.0, blind=False):
    """A strategy; `blind` to where the centres are takes all for zero, so that the class of a deviation shows."""

    def styles(samples):
        centres = jnp.zeros_like(CENTRES) if blind else CENTRES
        return STRATEGIES[name].styles(Source(Echo(), {}, centres, seed, psi, shared_seeds=3), samples)[:, 0]

    return jax.jit(styles)


def draw(name, labels, indices, attempts=None, **changes):
    """w as (latent, class)."""
    attempts = np.zeros(len(labels)) if attempts is None else attempts
    samples = Samples(*(np.array(part, np.int32) for part in (labels, indices, attempts)))
    w = np.asarray(compiled(name, **changes)(samples))
    return w[:, :Z], w[:, Z:]


MANY = np.divmod(np.arange(4000), 800)  # (labels 0 to 4, indices)


@pytest.mark.parametrize("name", STRATEGIES)
@settings(max_examples=30, deadline=None)
@given(
    samples=st.lists(
        st.tuples(st.integers(0, CLASSES - 1), st.integers(0, 99_999), st.integers(0, 20)), min_size=3, max_size=3
    )
)
def test_a_style_does_not_depend_on_its_neighbours(name, samples):
    first, second, third = samples
    here, there = draw(name, *zip(first, second, strict=True)), draw(name, *zip(third, first, strict=True))
    for ours, theirs in zip(here, there, strict=True):
        np.testing.assert_array_equal(ours[0], theirs[1])


@pytest.mark.parametrize("name", ["free", "class_centre", "identity_driven"])
def test_latents_are_standard_normal_and_all_different(name):
    z, _ = draw(name, *MANY)
    assert len(np.unique(z, axis=0)) == len(z)
    assert np.abs(z.mean(0)).max() < 0.08 and np.abs(np.cov(z.T) - np.eye(Z)).max() < 0.12
    assert not np.allclose(z, draw(name, *MANY, attempts=np.ones(4000))[0])


def test_another_seed_gives_other_latents():
    assert not np.allclose(draw("free", *MANY)[0], draw("free", *MANY, seed=6)[0])


def test_shared_seeds_come_from_one_small_pool():
    z, _ = draw("shared_seeds", *MANY)
    pool = np.unique(z, axis=0)
    assert len(pool) == 3
    for label in range(5):
        assert len(np.unique(z[MANY[0] == label], axis=0)) == 3


@pytest.mark.parametrize("name", STRATEGIES)
def test_truncation_shortens_the_latent_and_keeps_the_class_where_there_are_centres(name):
    z, c = draw(name, *MANY)
    half, class_at_half = draw(name, *MANY, psi=0.5)
    np.testing.assert_allclose(half, z / 2, rtol=1e-6)
    np.testing.assert_allclose(c, np.eye(CLASSES)[MANY[0]], atol=1e-6)
    np.testing.assert_allclose(class_at_half, c if STRATEGIES[name].centres else c / 2, atol=1e-6)


def test_identity_driven_takes_the_variation_of_every_other_class_alike():
    _, others = draw("identity_driven", *MANY, blind=True)
    shares = np.stack([others[MANY[0] == label].mean(0) for label in range(5)])
    assert (others.max(1) == 1).all() and (shares[np.arange(5), np.arange(5)] == 0).all()
    assert np.abs(shares[shares > 0] - 1 / (CLASSES - 1)).max() < 0.06
