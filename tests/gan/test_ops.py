"""The fast lowerings against their definitions."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sface_jax.gan import ops

FILTER = np.outer([1, 3, 3, 1], [1, 3, 3, 1]) / 64


def zero_inserted(x):
    n, h, w, c = x.shape
    up = np.zeros((n, 2 * h, 2 * w, c), np.float32)
    up[:, ::2, ::2] = x
    return up


def filtered(x, before, after, gain=1.0):
    """Correlates each channel with the filter, by definition."""
    x = np.pad(x, [(0, 0), (before, after), (before, after), (0, 0)])
    h, w = x.shape[1] - 3, x.shape[2] - 3
    return gain * sum(FILTER[i, j] * x[:, i : i + h, j : j + w] for i in range(4) for j in range(4))


@settings(max_examples=5, deadline=None)
@given(st.integers(0, 100), st.sampled_from([2, 4, 6]), st.sampled_from([2, 8]))
def test_resampling_is_what_it_says(seed, h, w):
    x = np.random.default_rng(seed).normal(size=(2, h, w, 3)).astype(np.float32)
    np.testing.assert_allclose(ops.upsample(x), filtered(zero_inserted(x), 2, 1, 4.0), atol=1e-5)
    np.testing.assert_allclose(ops.downsample(x), filtered(x, 1, 1)[:, ::2, ::2], atol=1e-5)


def test_convolutions_that_resample_are_what_they_say():
    random = np.random.default_rng(0)
    x = random.normal(size=(2, 6, 8, 4)).astype(np.float32)
    kernel = random.normal(size=(3, 3, 4, 5)).astype(np.float32)
    slow = ops._correlate(jnp.asarray(filtered(zero_inserted(x), 3, 2, 4.0)), jnp.asarray(kernel[::-1, ::-1]))
    np.testing.assert_allclose(ops.convolve_up(x, kernel), slow, atol=1e-4)
    slow = ops._correlate(jnp.asarray(filtered(x, 2, 2)), kernel, stride=2)
    np.testing.assert_allclose(ops.convolve_down(x, kernel), slow, atol=1e-4)


LOWERINGS = {
    "winograd": (ops._winograd, functools.partial(ops._correlate, padding=1), (2, 6, 8, 4)),
    "transposed": (ops._transposed_as_product, ops._transposed, (2, 3, 4, 4)),
    "strided": (ops._strided_as_product, functools.partial(ops._correlate, stride=2), (2, 7, 9, 4)),
}


@pytest.mark.parametrize("name", LOWERINGS)
def test_the_form_for_cpus_has_the_values_and_derivatives_of_the_plain_one(name):
    fast, plain, shape = LOWERINGS[name]
    random = np.random.default_rng(0)
    x = random.normal(size=shape).astype(np.float32)
    kernel = random.normal(size=(3, 3, 4, 5)).astype(np.float32) / 6

    def penalty(convolve, x, kernel):
        gradient = jax.grad(lambda x: jnp.sum(jnp.tanh(convolve(x, kernel))))(x)
        return jnp.sum(gradient**2)

    @functools.partial(jax.jit, static_argnums=0)
    def all_of_it(convolve, x, kernel):
        return convolve(x, kernel), jax.grad(penalty, argnums=(1, 2))(convolve, x, kernel)

    ours, theirs = all_of_it(fast, x, kernel), all_of_it(plain, x, kernel)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=2e-5), ours, theirs)


def test_large_convolutions_take_the_short_cut_and_stay_the_same():
    x, kernel = (
        jax.random.normal(jax.random.key(0), (1, 16, 16, 256)),
        jax.random.normal(jax.random.key(1), (3, 3, 256, 256)),
    )
    close = ops._correlate(x, kernel, padding=1)
    np.testing.assert_allclose(jax.jit(ops.convolve)(x, kernel), close, atol=1e-4 * np.abs(close).max())


def test_modulation_is_a_kernel_of_each_sample():
    random = np.random.default_rng(1)
    x, styles = random.normal(size=(3, 5, 5, 4)).astype(np.float32), random.normal(size=(3, 4)).astype(np.float32)
    kernel = random.normal(size=(3, 3, 4, 2)).astype(np.float32)
    for i in range(3):
        own = kernel * styles[i][:, None]
        own = own / np.sqrt(np.square(own).sum((0, 1, 2)) + 1e-8)
        alone = ops.convolve(jnp.asarray(x[i : i + 1]), jnp.asarray(own))
        np.testing.assert_allclose(ops.modulated_convolve(x, kernel, styles)[i : i + 1], alone, atol=1e-5)


def test_samples_of_a_group_share_its_deviation():
    x = jax.random.normal(jax.random.key(0), (8, 4, 4, 6))
    planes = ops.minibatch_stddev(x, group_size=4)[..., 6:]
    assert planes.shape == (8, 4, 4, 1)
    np.testing.assert_array_equal(planes[::2], jnp.broadcast_to(planes[:1, :1, :1], (4, 4, 4, 1)))
    assert planes[0, 0, 0, 0] != planes[1, 0, 0, 0]
    expected = jnp.sqrt(jnp.var(x[::2], axis=0) + 1e-8).mean()
    np.testing.assert_allclose(planes[0, 0, 0, 0], expected, rtol=1e-5)


def test_bfloat16_bodies_stay_near_float32():
    from sface_jax.gan.generator import Generator

    options = {"image_size": 8, "num_classes": 3, "z_dim": 8, "w_dim": 8, "channel_base": 64, "channel_max": 8}
    z, c = jax.random.normal(jax.random.key(1), (2, 8)), jnp.arange(2)
    variables = jax.jit(Generator(**options).init)(jax.random.key(0, impl="rbg"), z, c)
    exact = jax.jit(Generator(**options).apply)(variables, z, c)
    rough = jax.jit(Generator(**options, dtype=jnp.bfloat16).apply)(variables, z, c)
    assert rough.dtype == jnp.float32
    assert 0 < np.abs(exact - rough).max() < 0.1 * np.abs(exact).max()
