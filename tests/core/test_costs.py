"""Costs read off compiled programs."""

import jax
import jax.numpy as jnp
import pytest

from sface_jax.core import chips, costs


def test_a_matrix_product_costs_what_it_must():
    x = jax.ShapeDtypeStruct((64, 64), jnp.float32)
    told = costs.of(jax.jit(lambda x: x @ x).lower(x).compile())
    assert 2 * 64**3 <= told["flops"] <= 2.1 * 64**3
    assert told["memory"] >= 2 * 64 * 64 * 4
    assert told["traffic"] >= 2 * 64 * 64 * 4
    assert told["arguments"] == 64 * 64 * 4
    assert told["collectives"] == told["wire"] == told["unknown_loops"] == 0


def test_what_a_loop_does_counts_as_often_as_it_runs():
    x = jax.ShapeDtypeStruct((64, 64), jnp.float32)

    def chain(x: jax.Array) -> jax.Array:
        return jax.lax.scan(lambda y, _: (jnp.sin(y @ x), None), x, length=9)[0]

    assert costs.of(jax.jit(chain).lower(x).compile())["flops"] == pytest.approx(9 * 2 * 64**3, rel=0.1)


def test_the_least_time_is_that_of_what_a_chip_is_short_of():
    chip = chips.Chip("one", tflops=100, int8_tops=200, memory_gib=16, memory_gbps=1000, link_gbps=10, clock_ghz=1.0)
    cost = {"passes": 1e12, "integers": 2e12, "traffic": 5e9, "wire": 3e8, "cycles": 4e7}
    told = costs.seconds(cost, chip)
    assert told == pytest.approx(
        {"compute": 0.02, "memory": 0.005, "collectives": 0.03, "least": 0.03, "estimated": 0.07}
    )
    assert "estimated" not in costs.seconds(cost | {"cycles": 0.0}, chip)


def test_chips_are_known_by_the_names_that_jax_gives_them():
    assert chips.of("TPU v5 lite").tflops == 197
    assert chips.of("TPU v6 lite").memory_gib == 32
    assert chips.of("cpu") is None


def test_products_are_counted_from_the_definition():
    x = jax.ShapeDtypeStruct((2, 8, 8, 6), jnp.float32)
    w = jax.ShapeDtypeStruct((3, 3, 3, 10), jnp.float32)  # two groups

    def network(x, w):
        y = jax.lax.conv_general_dilated(
            x, w, (2, 2), "SAME", feature_group_count=2, dimension_numbers=("NHWC", "HWIO", "NHWC")
        )
        y = jax.lax.platform_dependent(y, cpu=lambda y: 2 * y, default=lambda y: y @ jnp.ones((10, 10)))
        return jax.jit(lambda y: y.reshape(2, -1) @ jnp.ones((160, 4)))(y)

    convolution, mixing, dense = 2 * (2 * 4 * 4 * 10) * 27, 2 * 2 * 16 * 100, 2 * 2 * 160 * 4
    assert costs.products(network, x, w) == convolution + mixing + dense
