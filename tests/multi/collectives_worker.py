"""Prints what programs on eight devices send and multiply: `python -m tests.multi.collectives_worker`."""

import json

import jax
import jax.numpy as jnp
from jax import lax
from jax.sharding import AxisType
from jax.sharding import PartitionSpec as P

from sface_jax.core import costs

ROWS, WIDTH, TURNS = 16, 32, 5  # of a device's matrix; of the loop
BOTH = ("a", "b")


def turned(x: jax.Array) -> jax.Array:
    """A product and a mean over all devices, again and again."""

    def turn(y: jax.Array, _: None) -> tuple[jax.Array, None]:
        y = y @ jnp.ones((WIDTH, WIDTH))
        return y + lax.pmean(y, BOTH), None

    return lax.scan(turn, x, length=TURNS)[0]


FUNCTIONS = {
    "all-reduce": lambda x: x + lax.psum(x, BOTH),
    "all-reduce of four": lambda x: x + lax.psum(x, "b"),
    "all-gather": lambda x: lax.all_gather(x, BOTH, tiled=True).sum(0) + x,
    "reduce-scatter": lambda x: lax.psum_scatter(jnp.tile(x, (8, 1)) * 2, BOTH, tiled=True),
    "all-to-all": lambda x: lax.all_to_all(x, BOTH, 0, 0, tiled=True),
    "collective-permute": lambda x: lax.ppermute(x, BOTH, [(i, (i + 1) % 8) for i in range(8)]),
    "loop": turned,
}


def main() -> None:
    """Prints for each function what `costs.of` says, and the bytes sent by kind."""
    mesh = jax.make_mesh((2, 4), BOTH, axis_types=(AxisType.Auto,) * 2)
    x = jax.ShapeDtypeStruct((8 * ROWS, WIDTH), jnp.float32)
    told = {}
    for name, function in FUNCTIONS.items():
        share = jax.shard_map(function, mesh=mesh, in_specs=P(BOTH), out_specs=P(BOTH), check_vma=False)
        compiled = jax.jit(share).lower(x).compile()
        sent = {kind: of["wire"] for kind, of in costs.collectives(compiled).items()}
        told[name] = costs.of(compiled) | {"sent": sent}
    print(json.dumps(told))


if __name__ == "__main__":
    main()
