"""Costs read off compiled programs."""

import jax
import jax.numpy as jnp

from sface_jax.core import costs


def test_a_matrix_product_costs_what_it_must():
    x = jax.ShapeDtypeStruct((64, 64), jnp.float32)
    told = costs.of(jax.jit(lambda x: x @ x).lower(x).compile())
    assert 2 * 64**3 <= told["flops"] <= 2.1 * 64**3
    assert told["memory"] >= 2 * 64 * 64 * 4
    assert told["collectives"] == 0


def test_collectives_are_found_in_a_program():
    program = """
      %all-reduce.1 = f32[16,512]{1,0:T(8,128)} all-reduce(%fusion), channel_id=1
      %start = (bf16[8]{0}, bf16[32]{0}) all-gather-start(%x), dimensions={0}
      %add = f32[9999]{0} add(%all-reduce.1, %b)
    """
    assert costs._collective_bytes(program) == 16 * 512 * 4 + 32 * 2


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
