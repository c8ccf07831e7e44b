"""Recognisers from PyTorch state dicts."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from sface_jax.core.errors import UserError
from sface_jax.recognition.iresnet import IResNet

# PyTorch's name of a BatchNorm entry -> collection and name here.
_NORM = {
    "weight": ("params", "scale"),
    "bias": ("params", "bias"),
    "running_mean": ("batch_stats", "mean"),
    "running_var": ("batch_stats", "var"),
}
_PARTS = {"downsample.0": "shortcut_conv", "downsample.1": "shortcut_bn", "se_block": "se"}


def iresnet_from_state_dict(arrays: Mapping[str, np.ndarray], **attributes: Any) -> tuple[IResNet, dict[str, Any]]:
    """Makes an iResNet of a PyTorch state dict with the entries of arcface_torch's iresnets.

    Blocks, widths, embedding size and squeeze-excitation are read off names and shapes.

    Args:
        arrays: name -> array; `num_batches_tracked` may be left out.
        **attributes: of `IResNet`, what arrays cannot tell: dropout, dtype, strides.

    Returns:
        The module and its variables {"params", "batch_stats"}, float32 NumPy arrays.

    Raises:
        UserError: an entry is missing, left over or of another shape.
    """
    stages = max((int(m[1]) for name in arrays if (m := re.match(r"layer(\d+)\.", name))), default=0)
    if not stages or "fc.weight" not in arrays:
        raise UserError("these arrays are no iResNet: layer1 or fc.weight is missing")
    blocks, widths = [], []
    for stage in range(1, stages + 1):
        numbers = [int(m[1]) for name in arrays if (m := re.match(rf"layer{stage}\.(\d+)\.", name))]
        blocks.append(max(numbers, default=-1) + 1)
        widths.append(len(arrays.get(f"layer{stage}.0.bn3.bias", ())))
    module = IResNet(
        **{
            "blocks": tuple(blocks),
            "widths": tuple(widths),
            "strides": (2,) * stages,
            "embedding_size": len(arrays["fc.weight"]),
            "squeeze_excitation": any(".se_block." in name for name in arrays),
            **attributes,
        }
    )
    variables: dict[str, Any] = {"params": {}, "batch_stats": {}}
    for name, array in arrays.items():
        if not name.endswith("num_batches_tracked"):
            collection, *folders, leaf = _path(name, np.ndim(array))
            node = variables[collection]
            for folder in folders:
                node = node.setdefault(folder, {})
            node[leaf] = _transposed(np.asarray(array, np.float32))
    _compare(variables, _expected(module, arrays["fc.weight"].shape[1]))
    return module, variables


def _path(name: str, ndim: int) -> tuple[str, ...]:
    """Collection and path of an entry: layer1.0.bn1.running_var -> batch_stats, layer1_0, bn1, var."""
    for theirs, ours in _PARTS.items():
        name = name.replace(theirs, ours)
    *folders, entry = re.sub(r"(layer\d+)\.(\d+)", r"\1_\2", name).split(".")
    if folders[-1:] == ["prelu"]:
        return "params", *folders, "slope"
    if ndim > 1:
        return "params", *folders, "kernel"
    if name == "features.weight":  # fixed at 1 in training, so no parameter here
        return "batch_stats", "features", "scale"
    collection, leaf = _NORM.get(entry, ("params", entry))
    return collection, *folders, leaf


def _transposed(array: np.ndarray) -> np.ndarray:
    """[out, in, h, w] -> [h, w, in, out] and [out, in] -> [in, out]."""
    return np.ascontiguousarray(array.transpose(2, 3, 1, 0) if array.ndim == 4 else array.T)


def _expected(module: IResNet, features: int) -> dict[str, Any]:
    """Shapes of the module's variables, at the input size that gives the last layer that many features."""
    side = math.isqrt(features // module.widths[-1]) * module.stem_stride * math.prod(module.strides)
    images = jax.ShapeDtypeStruct((1, side, side, 3), jnp.float32)
    return jax.eval_shape(module.init, jax.random.key(0), images)


def _compare(found: dict[str, Any], expected: dict[str, Any]) -> None:
    def shapes(tree: dict[str, Any]) -> set[tuple[str, tuple[int, ...]]]:
        return {(jax.tree_util.keystr(p), x.shape) for p, x in jax.tree_util.tree_leaves_with_path(tree)}

    missing, extra = sorted(shapes(expected) - shapes(found)), sorted(shapes(found) - shapes(expected))
    if missing or extra:
        first = f"{missing[0]} is missing" if missing else f"{extra[0]} is too much"
        raise UserError(f"these arrays are no iResNet: {len(missing) + len(extra)} entries do not fit, e.g. {first}")
