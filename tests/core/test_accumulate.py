"""A batch in parts: the same gradient as in one, its rows and keys shared out as they should be, in less memory."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sface_jax.core import accumulate, costs
from sface_jax.core.errors import UserError


def loss(weight, batch, own):
    """A mean over rows, which no row shares with another."""
    y = jnp.tanh(batch["x"] @ weight["a"]) * weight["b"]
    told = {"mean": y.mean(), "high": y.max(0) > 1.0, "first": batch["row"][0], "drawn": jax.random.normal(own(KEY))}
    return jnp.square(y - batch["y"]).mean(), told


KEY = jax.random.key(5)


N = 6
COMPILED = {parts: jax.jit(accumulate.value_and_grad(loss, parts)) for parts in (1, 2, 3)}


@settings(max_examples=25, deadline=None)
@given(parts=st.sampled_from(list(COMPILED)), seed=st.integers(0, 2**32 - 1))
def test_parts_give_what_the_whole_gives(parts, seed):
    rng = np.random.default_rng(seed)
    weight = {"a": rng.normal(size=(3, 2)).astype(np.float32), "b": rng.normal(size=2).astype(np.float32)}
    batch = {"x": rng.normal(size=(N, 3)).astype(np.float32), "y": rng.normal(size=(N, 2)).astype(np.float32)}
    batch["row"] = np.arange(N, dtype=np.float32)
    (whole, told), gradient = COMPILED[1](weight, batch)
    (value, of_parts), accumulated = COMPILED[parts](weight, batch)
    np.testing.assert_allclose(value, whole, rtol=1e-5)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6), accumulated, gradient)
    np.testing.assert_allclose(of_parts["mean"], told["mean"], rtol=1e-4, atol=1e-6)
    np.testing.assert_array_equal(of_parts["high"], told["high"])
    np.testing.assert_allclose(of_parts["first"], np.mean(range(parts)))  # part p begins with row p
    keys = [KEY] if parts == 1 else [jax.random.fold_in(KEY, p) for p in range(parts)]
    np.testing.assert_allclose(of_parts["drawn"], np.mean([jax.random.normal(key) for key in keys]), rtol=1e-5)


def test_four_parts_take_a_quarter_of_the_memory():
    def deep(weight, batch, own):
        for _ in range(8):
            batch = jnp.tanh(batch @ weight)
        return batch.mean(), {}

    def temporaries(parts):
        made = jax.jit(accumulate.value_and_grad(deep, parts))
        return costs.of(made.lower(jnp.zeros((16, 16)), jnp.zeros((4096, 16))).compile())["temporaries"]

    assert 0.2 < temporaries(4) / temporaries(1) < 0.35


@pytest.mark.parametrize(
    ("count", "parts", "devices", "line"),
    [(32, 3, 8, "multiple of 24"), (12, 1, 8, "divide over 8 devices: "), (8, 0, 1, "accumulate=0")],
)
def test_what_does_not_divide_is_told(count, parts, devices, line):
    accumulate.check("batch_size", 48, 2, 8)
    with pytest.raises(UserError, match=line):
        accumulate.check("batch_size", count, parts, devices)
