"""StyleGAN2 networks from PyTorch state dicts: names, layouts and the configuration that the shapes tell."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import numpy as np

from sface_jax.core.errors import UserError
from sface_jax.gan.discriminator import Discriminator
from sface_jax.gan.generator import Generator, channels_at, resolutions

Arrays = Mapping[str, np.ndarray]
Variables = dict[str, Any]

BUFFERS = ("w_avg", "noise_const")


def generator_from_state_dict(arrays: Arrays) -> tuple[Generator, Variables]:
    """Builds the generator that a state dict of a conditional StyleGAN2-ADA describes.

    Args:
        arrays: name -> array, as in the PyTorch state dict: NCHW layouts, weights before run-time scaling.

    Returns:
        The module and {"params", "buffers"}.

    Raises:
        UserError: an entry is missing, unknown, or of another architecture.
    """
    sizes = _resolutions(arrays, r"synthesis\.b(\d+)\.torgb\.weight")
    channels = {size: _get(arrays, f"synthesis.b{size}.conv1.weight").shape[0] for size in sizes}
    base, maximum = _channel_rule(channels)
    layers = _count(arrays, r"mapping\.fc(\d+)\.weight")
    w_dim = _get(arrays, "synthesis.b4.conv1.affine.weight").shape[1]
    classes = arrays["mapping.embed.weight"].shape[1] if "mapping.embed.weight" in arrays else 0
    first = _get(arrays, "mapping.fc0.weight").shape[1]
    generator = Generator(
        image_size=max(sizes),
        num_classes=classes,
        z_dim=first - (w_dim if classes else 0),
        w_dim=w_dim,
        channel_base=base,
        channel_max=maximum,
        mapping_layers=layers,
        image_channels=_get(arrays, "synthesis.b4.torgb.weight").shape[0],
    )
    tree: Variables = {"params": {}, "buffers": {}}
    for name, value in _wanted(arrays).items():
        path = name.split(".")
        if path == ["mapping", "w_avg"]:
            path = ["w_avg"]
        _insert(tree["buffers" if path[-1] in BUFFERS else "params"], path, _layout(name, value))
    return generator, tree


def discriminator_from_state_dict(arrays: Arrays, mbstd_group_size: int = 4) -> tuple[Discriminator, Variables]:
    """Builds the discriminator that a state dict of a conditional StyleGAN2-ADA describes.

    Args:
        arrays: see `generator_from_state_dict`.
        mbstd_group_size: group of the minibatch standard deviation, which shapes do not tell.

    Returns:
        The module and {"params"}.

    Raises:
        UserError: see `generator_from_state_dict`.
    """
    sizes = _resolutions(arrays, r"b(\d+)\.conv0\.weight")
    channels = {size: _get(arrays, f"b{size}.conv0.weight").shape[0] for size in sizes}
    channels[4] = _get(arrays, "b4.conv.weight").shape[0]
    base, maximum = _channel_rule(channels)
    out = _get(arrays, "b4.out.weight").shape[0]
    discriminator = Discriminator(
        image_size=max(sizes),
        num_classes=arrays["mapping.embed.weight"].shape[1] if "mapping.embed.weight" in arrays else 0,
        channel_base=base,
        channel_max=maximum,
        cmap_dim=out,
        mapping_layers=_count(arrays, r"mapping\.fc(\d+)\.weight"),
        mbstd_group_size=mbstd_group_size,
        mbstd_channels=_get(arrays, "b4.conv.weight").shape[1] - channels[4],
        image_channels=_get(arrays, f"b{max(sizes)}.fromrgb.weight").shape[1],
    )
    params: Variables = {}
    for name, value in _wanted(arrays).items():
        path = name.split(".")
        if path[1] == "fromrgb":
            path = [f"{path[0]}_fromrgb", path[2]]
        _insert(params, path, _layout(name, value))
    return discriminator, {"params": params}


def _wanted(arrays: Arrays) -> dict[str, np.ndarray]:
    """Leaves out the resampling filters, which are [1,3,3,1] in every layer."""
    return {name: np.asarray(value) for name, value in arrays.items() if not name.endswith("resample_filter")}


def _layout(name: str, value: np.ndarray) -> np.ndarray:
    """Brings one array from PyTorch's layout to ours: OIHW to HWIO, [out, in] to [in, out], CHW to HWC."""
    leaf = name.rsplit(".", 1)[-1]
    if leaf == "const":
        return value.transpose(1, 2, 0)
    if leaf != "weight":
        return value
    if value.ndim == 4:
        return value.transpose(2, 3, 1, 0)
    if name == "b4.fc.weight":  # its input is a flattened 4x4 map, channels first there, last here
        return value.reshape(len(value), -1, 4, 4).transpose(2, 3, 1, 0).reshape(-1, len(value))
    return value.T


def _insert(tree: Variables, path: list[str], value: np.ndarray) -> None:
    for part in path[:-1]:
        tree = tree.setdefault(part, {})
    tree[path[-1]] = value


def _get(arrays: Arrays, name: str) -> np.ndarray:
    if name not in arrays:
        raise UserError(f"the state dict has no {name}: it is not a StyleGAN2-ADA network of the skip/resnet kind")
    return arrays[name]


def _count(arrays: Arrays, pattern: str) -> int:
    return sum(1 for name in arrays if re.fullmatch(pattern, name))


def _resolutions(arrays: Arrays, pattern: str) -> list[int]:
    found = sorted(int(match[1]) for name in arrays if (match := re.fullmatch(pattern, name)))
    if not found or resolutions(found[-1])[-len(found) :] != found:
        raise UserError(f"the state dict's blocks {found} are no StyleGAN2 network of the skip/resnet kind")
    return found


def _channel_rule(channels: Mapping[int, int]) -> tuple[int, int]:
    """Finds channel_base and channel_max from the channels at each resolution."""
    maximum = max(channels.values())
    base = channels[max(channels)] * max(channels)
    if any(channels_at(size, base, maximum) != count for size, count in channels.items()):
        raise UserError(f"channels {dict(channels)} do not follow min(base / resolution, maximum)")
    return base, maximum
