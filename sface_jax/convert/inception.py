"""Inception-v3 for Fréchet distances, from the PyTorch state dict that pytorch-fid uses."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict

from sface_jax.core.errors import UserError
from sface_jax.gan.inception import SIZE, Inception

# Name here -> PyTorch's.
_LEAVES = {"kernel": "weight", "scale": "weight", "bias": "bias", "mean": "running_mean", "var": "running_var"}


def inception_from_state_dict(arrays: Mapping[str, np.ndarray]) -> tuple[Inception, dict[str, Any]]:
    """Brings every array to its place in the module's variables.

    Args:
        arrays: name -> array, as in pytorch-fid's pt_inception-2015-12-05. The classifier `fc` and what
            `num_batches_tracked` tells are not used, and may be missing.

    Returns:
        The module and its variables {"params", "batch_stats"}, float32 NumPy arrays.

    Raises:
        UserError: an array is missing, unknown, or of another shape.
    """
    module = Inception()
    inputs = jax.ShapeDtypeStruct((1, SIZE, SIZE, 3), jnp.float32)
    expected = flatten_dict(jax.eval_shape(module.init, jax.random.key(0), inputs))
    names = {path: ".".join((*path[1:-1], _LEAVES[path[-1]])) for path in expected}
    unused = {"fc.weight", "fc.bias"} | {f"{'.'.join(path[1:-1])}.num_batches_tracked" for path in expected}
    missing = sorted(set(names.values()) - arrays.keys())
    unknown = sorted(arrays.keys() - set(names.values()) - unused)
    if missing or unknown:
        first = f"{missing[0]} is missing" if missing else f"{unknown[0]} is unknown"
        told = f"{len(missing) + len(unknown)} entries do not fit, e.g. {first}"
        raise UserError(f"these arrays are not pytorch-fid's Inception, pt_inception-2015-12-05: {told}")
    flat = {}
    for path, name in names.items():
        array = np.asarray(arrays[name], np.float32)
        flat[path] = np.ascontiguousarray(array.transpose(2, 3, 1, 0) if array.ndim == 4 else array)  # OIHW to HWIO
        if flat[path].shape != expected[path].shape:
            raise UserError(f"{name} has the shape {array.shape}: it is another Inception than pytorch-fid's")
    return module, unflatten_dict(flat)
