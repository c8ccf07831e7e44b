"""The 3x3 convolution's written-out gradients against those of XLA's convolution."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sface_jax.core import winograd
from sface_jax.recognition import convolution


def test_bodies_in_bfloat16_have_gradients_too():
    x, kernel = jnp.ones((2, 6, 6, 3), jnp.bfloat16), jnp.ones((3, 3, 3, 4), jnp.bfloat16)
    for stride in (1, 2):
        grad = jax.grad(lambda x, k, s=stride: convolution.convolve(x, k, s).astype(jnp.float32).sum(), (0, 1))
        assert [part.dtype for part in jax.jit(grad)(x, kernel)] == [jnp.bfloat16] * 2


@pytest.mark.parametrize(
    ("side", "stride", "cache"),
    [(6, 1, 2**20), (6, 2, 2**20), (7, 2, 2**20), (16, 1, 2**20), (16, 1, 2**14), (32, 2, 2**14)],
    ids=["taps", "taps_strided", "odd", "whole", "pieces", "pieces_strided"],
)
def test_gradients_are_those_of_the_plain_convolution(monkeypatch, side, stride, cache):
    monkeypatch.setattr(convolution, "CACHE", cache)
    keys = jax.random.split(jax.random.key(0), 3)
    x, kernel = jax.random.normal(keys[0], (8, side, side, 5)), jax.random.normal(keys[1], (3, 3, 5, 7))
    weight = jax.random.normal(keys[2], convolution._plain(x, kernel, stride).shape)
    found, expected = (
        jax.jit(jax.value_and_grad(lambda x, k, f=f: (f(x, k, stride) * weight).sum(), (0, 1)))(x, kernel)
        for f in (convolution.convolve, convolution._plain)
    )
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4 * float(jnp.abs(b).max()))


@pytest.mark.parametrize(("height", "width"), [(4, 6), (5, 6), (7, 7), (1, 2)])
def test_winograds_form_is_the_convolution(height, width):
    keys = jax.random.split(jax.random.key(0), 2)
    x, kernel = jax.random.normal(keys[0], (2, height, width, 5)), jax.random.normal(keys[1], (3, 3, 5, 7))
    found, expected = jax.jit(lambda x, k: (winograd.correlate(x, k), convolution._plain(x, k, 1)))(x, kernel)
    np.testing.assert_allclose(found, expected, atol=2e-5)


def test_training_computes_the_plain_convolution_to_the_last_bit():
    keys = jax.random.split(jax.random.key(0), 2)
    x, kernel = jax.random.normal(keys[0], (1, 4, 4, 64)), jax.random.normal(keys[1], (3, 3, 64, 64))

    def outputs(convolve):
        return jax.jit(lambda x, k: jax.vjp(lambda x: convolve(x, k, 1), x)[0])(x, kernel)

    np.testing.assert_array_equal(outputs(convolution.convolve), outputs(convolution._plain))
    without = jax.jit(convolution.convolve, static_argnums=2)(x, kernel, 1)
    np.testing.assert_allclose(without, outputs(convolution._plain), atol=1e-3)
    assert (without != outputs(convolution._plain)).any() == (jax.default_backend() == "cpu")
