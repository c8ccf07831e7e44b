"""Finds what a generator's pictures are looked at through: a recogniser, Inception, or plain pixels."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
from etils import epath
from jaxtyping import Array, Float

from sface_jax.convert import recognizers
from sface_jax.convert.inception import inception_from_state_dict
from sface_jax.core import files
from sface_jax.core.arrays import AnyArray
from sface_jax.core.embedder import Embedder
from sface_jax.core.errors import UserError
from sface_jax.recognition import network

PIXELS = "pixels"
SIDE = 16  # of the picture that the pixels' features are

_TAKEN = "name a recogniser (a folder, or a file of its state dict), Inception's weights, or 'pixels'"


def open_embedder(path: str) -> Embedder:
    """Opens what `path` names.

    Args:
        path: a recogniser, as `recognizers.load` takes it; a file (`.pth`, `.pt`, `.safetensors`, `.npz`) with the
            state dict of pytorch-fid's Inception, whose 2048 features are left at their length; or "pixels", which
            needs no weights.

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
    if place.suffix not in recognizers.SUFFIXES:
        raise UserError(f"{path} is nothing to look at pictures through: {_TAKEN}")
    content = recognizers.read_file(place)
    if isinstance(content, Mapping) and any(str(name).startswith("Mixed_5b.") for name in content):
        module, variables = inception_from_state_dict(content)
        return Embedder("inception", variables, module.apply)
    return network.embedder(network.Network(*recognizers.load(place)), place.stem)


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
