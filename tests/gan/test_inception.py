"""Inception-v3 for Fréchet distances: the features of pytorch-fid, from its state dict."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sface_jax.convert.inception import inception_from_state_dict
from sface_jax.core.errors import UserError
from sface_jax.gan.inception import Mixed
from tests.gan import inception_arrays

# Of pytorch-fid 0.3.0 (torch 2.13.0) with the weights and for the pictures of `inception_arrays`: every 171st feature.
EXPECTED = np.array(
    [
        [0.3247, 0.2902, 0.2633, 0.4312, 0.1125, 0.1277, 3.1491, 0.0000, 0.4128, 0.8267, 0.0853, 0.1437],
        [0.3316, 0.3366, 0.2848, 0.5128, 0.1228, 0.2365, 3.4090, 0.0000, 0.4472, 0.9017, 0.0870, 0.0765],
    ]
)


@pytest.fixture(scope="module")
def arrays() -> dict[str, np.ndarray]:
    return inception_arrays.state_dict()


def test_features_are_those_of_pytorch_fid(arrays):
    module, variables = inception_from_state_dict(arrays)
    features = np.asarray(jax.jit(module.apply)(variables, inception_arrays.pictures()))
    assert features.shape == (2, 2048)
    np.testing.assert_allclose(features[:, ::171], EXPECTED, atol=2e-4)


def test_the_classifier_and_the_counters_may_be_missing(arrays):
    used = {name: a for name, a in arrays.items() if not name.startswith("fc.") and a.ndim}
    assert len(used) == 94 * 5
    whole, less = inception_from_state_dict(arrays)[1], inception_from_state_dict(used)[1]
    assert jax.tree.all(jax.tree.map(np.array_equal, whole, less))
    assert sum(a.size for a in jax.tree.leaves(whole)) == sum(a.size for a in used.values())


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"Mixed_7c.branch_pool.bn.running_var": None}, "1 entries.*Mixed_7c.branch_pool.bn.running_var is missing"),
        ({"AuxLogits.fc.weight": np.zeros((1000, 768))}, "AuxLogits.fc.weight is unknown"),
        ({"Mixed_6b.branch7x7_2.conv.weight": np.zeros((128, 128, 7, 1))}, "branch7x7_2.*shape .128, 128, 7, 1"),
    ],
)
def test_another_state_dict_is_refused(arrays, change, told):
    changed = {name: array for name, array in (arrays | change).items() if array is not None}
    with pytest.raises(UserError, match=told):
        inception_from_state_dict(changed)


@pytest.mark.parametrize(("pool", "corner"), [("average", 2.5), ("max", 5.0)])
def test_pools_do_not_count_the_padding(pool, corner):
    x = jnp.arange(16.0).reshape(1, 4, 4, 1)
    pooled = Mixed((), pool).apply({}, x)
    assert pooled.shape == x.shape and pooled[0, 0, 0, 0] == corner
