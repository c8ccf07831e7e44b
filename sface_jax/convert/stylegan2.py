"""StyleGAN2-ADA networks from PyTorch, and back: state dicts of any configuration, and the official pickles.

A network's configuration follows from the names and shapes of its arrays. Every array of a state dict is used exactly
once, or an error names it. The way here and back leaves float32 arrays as they were, bit for bit.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Mapping
from typing import Any

import numpy as np
from absl import logging

from sface_jax.convert import pickles, state_dict
from sface_jax.convert.state_dict import Arrays, Variables
from sface_jax.core.errors import UserError
from sface_jax.core.files import PathLike
from sface_jax.gan.discriminator import Discriminator
from sface_jax.gan.generator import Generator, channels_at


def generator_from_state_dict(arrays: Arrays) -> tuple[Generator, Variables]:
    """Builds the generator that a state dict of StyleGAN2-ADA describes.

    Args:
        arrays: name -> array, as in the PyTorch state dict: NCHW layouts, weights before run-time scaling.
            `resample_filter`s may be left out.

    Returns:
        The module and {"params", "buffers"}, float32 NumPy arrays.

    Raises:
        UserError: an entry is missing, unknown, of another shape, or of another architecture.
    """
    arrays = {name: np.asarray(array) for name, array in arrays.items()}
    sizes = _sizes(arrays, r"synthesis\.b(\d+)\.torgb\.weight", first=4)
    base, maximum = _channel_rule({size: _shape(arrays, f"synthesis.b{size}.conv1.weight", 4)[0] for size in sizes})
    layers = _count(arrays, r"mapping\.fc\d+\.weight")
    w_dim = _shape(arrays, "synthesis.b4.conv1.affine.weight", 2)[1]
    embedded, classes = _embedding(arrays)
    z_dim = (_shape(arrays, "mapping.fc0.weight", 2)[1] if layers else w_dim) - embedded
    if z_dim < 1:
        raise UserError("the mapping network's layers leave no room for a latent: this is not StyleGAN2-ADA's")
    generator = Generator(
        image_size=sizes[-1],
        num_classes=classes,
        z_dim=z_dim,
        w_dim=w_dim,
        channel_base=base,
        channel_max=maximum,
        mapping_layers=layers,
        image_channels=_shape(arrays, "synthesis.b4.torgb.weight", 4)[0],
    )
    return generator, state_dict.to_variables(generator, arrays)


def discriminator_from_state_dict(arrays: Arrays, mbstd_group_size: int = 4) -> tuple[Discriminator, Variables]:
    """Builds the discriminator that a state dict of StyleGAN2-ADA describes.

    Args:
        arrays: see `generator_from_state_dict`.
        mbstd_group_size: group of the minibatch standard deviation, which shapes do not tell.

    Returns:
        The module and {"params"}, float32 NumPy arrays.

    Raises:
        UserError: see `generator_from_state_dict`.
    """
    arrays = {name: np.asarray(array) for name, array in arrays.items()}
    sizes = _sizes(arrays, r"b(\d+)\.conv0\.weight", first=8)
    last, width = _shape(arrays, "b4.conv.weight", 4)[:2]
    planes = width - last
    if planes < 0 or (planes and last % planes):
        raise UserError(f"b4.conv.weight has {width} inputs, which are not {last} channels and some planes")
    base, maximum = _channel_rule(
        {4: last} | {size: _shape(arrays, f"b{size}.conv0.weight", 4)[0] for size in sizes},
    )
    _, classes = _embedding(arrays)
    discriminator = Discriminator(
        image_size=sizes[-1],
        num_classes=classes,
        channel_base=base,
        channel_max=maximum,
        cmap_dim=_shape(arrays, "b4.out.weight", 2)[0] if classes else 0,
        mapping_layers=_count(arrays, r"mapping\.fc\d+\.weight"),
        mbstd_group_size=mbstd_group_size,
        mbstd_channels=planes,
        image_channels=_shape(arrays, f"b{sizes[-1]}.fromrgb.weight", 4)[1],
    )
    return discriminator, state_dict.to_variables(discriminator, arrays)


def generator_to_state_dict(module: Generator, variables: Variables) -> dict[str, np.ndarray]:
    """Turns a generator into the state dict that PyTorch would have, `resample_filter`s included.

    Args:
        module: the generator. That it crops its pictures has no place in a state dict.
        variables: {"params", "buffers"}.

    Raises:
        UserError: the variables are not the module's.
    """
    return state_dict.from_variables(module, variables)


def discriminator_to_state_dict(module: Discriminator, variables: Variables) -> dict[str, np.ndarray]:
    """Turns a discriminator and its {"params"} into a state dict; see `generator_to_state_dict`.

    Raises:
        UserError: the variables are not the module's, or it has an unconditional head, which PyTorch's has not.
    """
    if module.unconditional_head:
        raise UserError("a discriminator with an unconditional head has no counterpart in PyTorch: convert G alone")
    return state_dict.from_variables(module, variables)


def generator_from_pickle(path: PathLike, which: str = "G_ema") -> tuple[Generator, Variables]:
    """Reads a generator from an official network pickle, of which nothing is executed.

    Args:
        path: the `.pkl`.
        which: "G_ema" (the average, what is used), or "G" (what was trained).

    Returns:
        See `generator_from_state_dict`.

    Raises:
        UserError: see `pickles.read` and `generator_from_state_dict`.
    """
    return generator_from_network(_pick(path, which))


def discriminator_from_pickle(path: PathLike) -> tuple[Discriminator, Variables]:
    """Reads the discriminator from an official network pickle; see `generator_from_pickle`."""
    return discriminator_from_network(_pick(path, "D"))


def generator_from_network(network: pickles.StateDict) -> tuple[Generator, Variables]:
    """Builds a generator from its arrays and what its attributes tell; see `generator_from_state_dict`."""
    _check_attributes(network.attributes)
    return generator_from_state_dict(network.arrays)


def discriminator_from_network(
    network: pickles.StateDict, mbstd_group_size: int = 4
) -> tuple[Discriminator, Variables]:
    """Builds a discriminator from its arrays and what its attributes tell; see `discriminator_from_state_dict`.

    Args:
        network: from `pickles.read`.
        mbstd_group_size: taken where the attributes do not tell it.
    """
    _check_attributes(network.attributes)
    group = network.attributes.get("b4.mbstd.group_size", mbstd_group_size)
    # PyTorch's None is the whole batch, which a group here never exceeds.
    return discriminator_from_state_dict(network.arrays, sys.maxsize if group is None else group)


def _pick(path: PathLike, which: str) -> pickles.StateDict:
    networks = pickles.read(path)
    if which not in networks:
        raise UserError(f"{path} has no {which}: it holds {', '.join(networks)}")
    return networks[which]


def _check_attributes(attributes: Mapping[str, Any]) -> None:
    """Refuses what shapes do not tell and the networks here do not do; tells what is passed over."""
    clamps = set()
    for name, value in attributes.items():
        if name.endswith(".activation") and value not in ("lrelu", "linear"):
            raise UserError(f"{name} is {value!r}: only networks of leaky ReLUs can be converted")
        if re.fullmatch(r"mapping\.fc\d+\.bias_gain", name) and value != 0.01:
            raise UserError(f"{name} is {value}: only mapping networks with an lr_multiplier of 0.01 can be converted")
        if name.endswith("conv_clamp") and value is not None:
            clamps.add(value)
    if clamps:
        logging.info("its activations are clamped at %s, for float16; here they are not", max(clamps))


def _shape(arrays: Arrays, name: str, ndim: int) -> tuple[int, ...]:
    if name not in arrays or arrays[name].ndim != ndim:
        raise UserError(f"the state dict has no {name} of {ndim} axes: it is not StyleGAN2-ADA's")
    return arrays[name].shape


def _embedding(arrays: Arrays) -> tuple[int, ...]:
    """Width of the label embedding and number of classes; 0, 0 for an unconditional network."""
    return _shape(arrays, "mapping.embed.weight", 2) if "mapping.embed.weight" in arrays else (0, 0)


def _count(arrays: Arrays, pattern: str) -> int:
    return sum(1 for name in arrays if re.fullmatch(pattern, name))


def _sizes(arrays: Arrays, pattern: str, first: int) -> list[int]:
    """The resolutions of the blocks, from `first` upwards."""
    found = sorted(int(match[1]) for name in arrays if (match := re.fullmatch(pattern, name)))
    if not found or found[-1] < 8 or found != [first << k for k in range(len(found))]:
        raise UserError(
            f"the state dict's blocks {found} are not StyleGAN2-ADA's (a skip generator, a residual discriminator)"
        )
    return found


def _channel_rule(channels: Mapping[int, int]) -> tuple[int, int]:
    """Finds the least channel_base and channel_max that give each resolution its channels."""
    base, maximum = max(size * count for size, count in channels.items()), max(channels.values())
    if not base or any(channels_at(size, base, maximum) != count for size, count in channels.items()):
        raise UserError(f"channels {dict(channels)} do not follow min(base / resolution, maximum)")
    return base, maximum
