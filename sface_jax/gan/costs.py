"""What the GAN must compute, counted from its architecture: the products of its convolutions and dense layers.

One multiplication and addition counts as two operations. Nothing else is counted: no activation, filter, modulation or
augmentation. A compiled program that does much more than this does something twice.
"""

from __future__ import annotations

from typing import Any

from sface_jax.gan.discriminator import Discriminator
from sface_jax.gan.generator import Generator, channels_at, resolutions


def generator_flops(generator: Generator) -> int:
    """Operations of one picture through mapping and synthesis.

    An up-sampling convolution is counted as the transposed convolution it is: nine products for each pixel of the
    small picture.
    """
    embedded = generator.w_dim if generator.num_classes else 0
    total = 2 * _mapping(generator.z_dim + embedded, generator.w_dim, generator.mapping_layers)
    below = 0
    for size in resolutions(generator.image_size):
        channels = channels_at(size, generator.channel_base, generator.channel_max)
        if below:
            total += 2 * 9 * below * channels * (size // 2) ** 2 + 2 * generator.w_dim * below
        total += 2 * 9 * channels**2 * size**2 + 2 * generator.w_dim * channels
        total += 2 * channels * generator.image_channels * size**2 + 2 * generator.w_dim * channels  # to RGB
        below = channels
    return total


def discriminator_flops(discriminator: Discriminator) -> int:
    """Operations of one picture through the discriminator."""

    def channels_of(size: int) -> int:
        return channels_at(size, discriminator.channel_base, discriminator.channel_max)

    size = discriminator.image_size
    total = 2 * discriminator.image_channels * channels_of(size) * size**2  # from RGB
    for size in resolutions(discriminator.image_size)[:0:-1]:
        here, below = channels_of(size), channels_of(size // 2)
        total += 2 * 9 * here**2 * size**2 + 2 * 9 * here * below * (size // 2) ** 2
        total += 2 * here * below * (size // 2) ** 2  # skip
    last = channels_of(4)
    cmap = (discriminator.cmap_dim or last) if discriminator.num_classes else 1
    total += 2 * 9 * (last + discriminator.mbstd_channels) * last * 16 + 2 * 16 * last * last + 2 * last * cmap
    if discriminator.num_classes:
        total += 2 * _mapping(cmap, cmap, discriminator.mapping_layers)
    return total


def phase_flops(generator: Generator, discriminator: Discriminator, path_length_shrink: int) -> dict[str, float]:
    """Operations of each training phase, for one picture of the batch.

    A layer's products are as many again for the gradient by its input, and again for that by its weights. A penalty on
    a gradient goes through all layers forwards and backwards, and the gradient of both costs twice that again.
    """
    g, d = float(generator_flops(generator)), float(discriminator_flops(discriminator))
    return {
        "g_main": 3 * g + 2 * d,  # of D only the gradient by its input
        "g_path": 6 * g / path_length_shrink,
        "d_main": g + 2 * 3 * d,  # generated and authentic pictures
        "d_r1": 6 * d,
    }


def _mapping(inputs: int, width: int, layers: int) -> int:
    return inputs * width + (layers - 1) * width**2 if layers else 0


def amortised(costs: dict[str, Any], intervals: dict[str, int]) -> float:
    """The cost of one step: each phase's, divided by the steps between two of it."""
    return sum(costs[name] / interval for name, interval in intervals.items())
