"""Finds what a generator's pictures are looked at through: a recogniser, Inception, or plain pixels."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from etils import epath
from jaxtyping import Array, Float

from sface_jax.convert import array_files
from sface_jax.convert.inception import inception_from_state_dict
from sface_jax.core import files
from sface_jax.core.arrays import AnyArray
from sface_jax.core.embedder import Embedder
from sface_jax.core.errors import UserError
from sface_jax.recognition import network

PIXELS = "pixels"
SIDE = 16  # of the picture that the pixels' features are

_TAKEN = "name a recogniser's folder, Inception weights (.npz, .safetensors), or 'pixels'"
_TO_NPZ = (
    "python -c \"import numpy, torch; numpy.savez('{stem}.npz', **{{k: v.numpy() for k, v in "
    "torch.load('{name}', map_location='cpu').items()}})\""
)


def open_embedder(path: str) -> Embedder:
    """Opens what `path` names.

    Args:
        path: the folder of a recogniser; a `.npz` or `.safetensors` file with the state dict of pytorch-fid's
            Inception, whose 2048 features are left at their length; or "pixels", which needs no weights.

    Raises:
        UserError: it names none of them, or what it names is damaged.
    """
    if path == PIXELS:
        return Embedder(PIXELS, {}, pixels)
    place = epath.Path(path)
    if not place.exists():
        raise UserError(f"there is no {path} to look at pictures through: {_TAKEN}")
    if place.is_dir():
        return _recogniser(place)
    if place.suffix in (".pt", ".pth"):
        hint = _TO_NPZ.format(stem=place.stem, name=place.name)
        raise UserError(f"{path} is a file of PyTorch: where that is installed, convert it with {hint}")
    if place.suffix not in array_files.SUFFIXES:
        raise UserError(f"{path} is nothing to look at pictures through: {_TAKEN}")
    module, variables = inception_from_state_dict(array_files.arrays(place))
    return Embedder("inception", variables, module.apply)


def pixels(variables: Any, pictures: Float[AnyArray, "n h w 3"]) -> Float[Array, "n d"]:
    """The picture itself, at most 16 x 16, less its mean and of length one: a baseline that knows nothing of faces.

    It tells colours, light and coarse layout, and so whether pictures repeat themselves; it hardly tells persons.

    Args:
        variables: none; there for `Embedder`.
        pictures: RGB, in any range.
    """
    count, height, width, channels = pictures.shape
    x = jnp.asarray(pictures, jnp.float32)
    x = jax.image.resize(x, (count, min(SIDE, height), min(SIDE, width), channels), "bilinear").reshape(count, -1)
    x = x - x.mean(1, keepdims=True)
    return x * jax.lax.rsqrt(jnp.maximum(jnp.square(x).sum(1, keepdims=True), 1e-12))


def _recogniser(folder: epath.Path) -> Embedder:
    facts = folder / "network.json"
    if not (folder / "checkpoints").exists() or not facts.exists() or "architecture" not in files.read_json(facts):
        raise UserError(f"{folder} holds no recogniser: {_TAKEN}")
    return network.embedder(network.load(folder), folder.name)
