"""Digests of arrays."""

import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sface_jax.core import digest


@given(st.integers(0, 2**32 - 1), st.integers(0, 11), st.integers(1, 2**32 - 1))
def test_whatever_a_word_becomes_the_digest_is_another(seed, place, change):
    words = np.random.default_rng(seed).integers(0, 2**32, (3, 4), np.uint32)
    altered = words.copy()
    altered.reshape(-1)[place] ^= np.uint32(change)
    assert digest.of({"x": jnp.array(words)}) != digest.of({"x": jnp.array(altered)})


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16, jnp.uint8, jnp.int32, jnp.bool_])
def test_it_is_the_sum_of_odd_multiples_and_zeros_at_the_end_do_not_count(dtype):
    array = jnp.array([[1, 0, 3], [0, 5, 1]], dtype)
    word = {1: np.uint8, 2: np.uint16, 4: np.uint32}[array.dtype.itemsize]
    words = np.asarray(array).view(word).astype(np.uint64).reshape(-1)
    expected = int((words * (2 * np.arange(6, dtype=np.uint64) + 1)).sum() % 2**32)
    of = digest.Digest(expected, True)
    assert digest.of({"a": (array, jnp.pad(array, ((0, 2), (0, 0))))}) == {"a/0": of, "a/1": of}


@pytest.mark.parametrize("bad", [jnp.nan, jnp.inf])
def test_a_number_that_is_not_finite_is_told(bad):
    assert not digest.of({"x": jnp.array([1.0, bad])})["x"].finite
