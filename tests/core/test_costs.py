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
