"""Arrays in shares: along which axis, and which stay whole."""

import jax
import numpy as np
import pytest
from jax.sharding import AxisType, Mesh
from jax.sharding import PartitionSpec as P

from sface_jax.core import mesh as meshes

EIGHT = Mesh(np.array(jax.devices()[:1] * 8).reshape(4, 2), meshes.ALL, axis_types=(AxisType.Auto,) * 2)


@pytest.mark.parametrize(
    ("shape", "expected"),
    [
        ((3, 3, 256, 512), P(None, None, None, meshes.ALL)),
        ((10572, 512), P(None, meshes.ALL)),  # 10,572 does not divide by 8
        ((512, 512), P(meshes.ALL)),
        ((3, 3, 100, 100), P()),
        ((512,), P()),  # small
        ((), P()),
    ],
)
def test_arrays_are_cut_along_the_largest_axis_that_divides(shape, expected):
    sharding = meshes.spread({"x": jax.ShapeDtypeStruct(shape, np.float32)}, EIGHT)["x"]
    assert sharding.spec == expected
    sharding.shard_shape(shape)  # divides
