"""The class-conditional StyleGAN2 discriminator: residual blocks, minibatch stddev, projection on the label."""

from __future__ import annotations

import math

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Float

from sface_jax.core.arrays import AnyArray
from sface_jax.gan import ops
from sface_jax.gan.generator import Labels, Mapping, Maps, channels_at, resolutions


class DiscriminatorBlock(nn.Module):
    """Residual block that halves the resolution: (conv, conv down) + (1x1 conv down), each times sqrt(1/2)."""

    features: int
    out_features: int

    @nn.compact
    def __call__(self, x: Maps) -> Maps:
        """Applies the block."""
        gain = math.sqrt(0.5)
        skip = ops.Conv(self.out_features, 1, "linear", use_bias=False, down=True, gain=gain, name="skip")(x)
        x = ops.Conv(self.features, name="conv0")(x)
        return skip + ops.Conv(self.out_features, down=True, gain=gain, name="conv1")(x)


class Epilogue(nn.Module):
    """The 4x4 end: minibatch stddev, convolution, two fully connected layers."""

    features: int
    out_features: int
    mbstd_group_size: int
    mbstd_channels: int

    @nn.compact
    def __call__(self, x: Maps) -> Float[AnyArray, "n d"]:
        """Returns one float32 vector a picture."""
        if self.mbstd_channels:
            x = ops.minibatch_stddev(x, self.mbstd_group_size, self.mbstd_channels)
        x = ops.Conv(self.features, name="conv")(x)
        x = ops.Dense(self.features, "lrelu", name="fc")(x.reshape(x.shape[0], -1))
        return ops.Dense(self.out_features, name="out")(x)


class Discriminator(nn.Module):
    """Class-conditional StyleGAN2 discriminator (arXiv 1912.04958, 2006.06676; projection: Miyato and Koyama 2018).

        logit = sum_j f(x)_j e(c)_j / sqrt(cmap_dim)

    Attributes:
        image_size: height and width that the blocks see, a power of two.
        crop: zeros put around a picture to bring it to that size, see `Generator`.
        num_classes: identities; 0 for an unconditional discriminator.
        channel_base: feature maps at resolution r are channel_base / r, at most `channel_max`.
        channel_max: see `channel_base`.
        cmap_dim: width of the projection; 0 takes the channels at 4x4.
        mapping_layers: layers between the label embedding and e(c).
        mbstd_group_size: group of the minibatch standard deviation.
        mbstd_channels: planes it appends; 0 leaves it out.
        image_channels: 3 for colour.
        unconditional_head: add a logit that sees no label, for a training that begins without labels.
        dtype: precision of the convolutions above 4x4; the rest is float32.
    """

    image_size: int
    num_classes: int
    channel_base: int = 16384
    channel_max: int = 512
    cmap_dim: int = 0
    mapping_layers: int = 8
    mbstd_group_size: int = 4
    mbstd_channels: int = 1
    image_channels: int = 3
    crop: int = 0
    unconditional_head: bool = False
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, images: Maps, c: Labels, condition: float | Float[AnyArray, ""] = 1.0) -> Float[AnyArray, " n"]:
        """Scores pictures: images [N, H, W, C] in [-1, 1], labels c [N] -> logits [N], high for authentic.

        With an unconditional head the logit is u(x) + condition * projection.
        """
        sizes = resolutions(self.image_size)[:0:-1]
        border = (self.crop, self.crop)
        x = jnp.pad(images, [(0, 0), border, border, (0, 0)]).astype(self.dtype)
        x = ops.Conv(self._features(self.image_size), 1, name=f"b{self.image_size}_fromrgb")(x)
        for size in sizes:
            x = DiscriminatorBlock(self._features(size), self._features(size // 2), name=f"b{size}")(x)
        last = self._features(4)
        cmap_dim = (self.cmap_dim or last) if self.num_classes else 1
        outputs = cmap_dim + self.unconditional_head
        x = Epilogue(last, outputs, self.mbstd_group_size, self.mbstd_channels, name="b4")(x.astype(jnp.float32))
        if not self.num_classes:
            return x[:, 0]
        label = Mapping(cmap_dim, self.num_classes, self.mapping_layers, name="mapping")(None, c)
        logits = condition * jnp.sum(x[:, :cmap_dim] * label, axis=-1) / math.sqrt(cmap_dim)
        return logits + x[:, cmap_dim] if self.unconditional_head else logits

    def _features(self, resolution: int) -> int:
        return channels_at(resolution, self.channel_base, self.channel_max)
