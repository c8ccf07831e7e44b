"""The class-conditional StyleGAN2 generator: mapping network and skip synthesis network."""

from __future__ import annotations

import math

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Int

from sface_jax.core.arrays import AnyArray
from sface_jax.gan import ops

Latents = Float[AnyArray, "n z"]
Labels = Int[AnyArray, " n"]
Styles = Float[AnyArray, "n l w"]
Maps = Float[AnyArray, "n _ _ _"]  # activations and pictures, NHWC


def channels_at(resolution: int, base: int, maximum: int) -> int:
    """Feature maps at a resolution: base / resolution, at most `maximum`."""
    return min(base // resolution, maximum)


def resolutions(image_size: int) -> list[int]:
    """The resolutions 4, 8, ... up to the picture's."""
    return [2**k for k in range(2, int(math.log2(image_size)) + 1)]


class Mapping(nn.Module):
    """Latent and label to w: both brought to unit second moment, joined, and sent through a small MLP.

    Attributes:
        w_dim: width of w and of the label embedding.
        num_classes: 0 leaves the label out.
        num_layers: fully connected layers.
        lr_multiplier: of those layers.
    """

    w_dim: int
    num_classes: int
    num_layers: int = 2
    lr_multiplier: float = 0.01

    @nn.compact
    def __call__(
        self, z: Latents | None, c: Labels, condition: float | Float[AnyArray, ""] = 1.0
    ) -> Float[AnyArray, "n w"]:
        """Maps z [N, z_dim] (None: labels alone) and labels c [N], times `condition`, to w [N, w_dim]."""
        parts = [] if z is None else [ops.normalize_second_moment(z.astype(jnp.float32))]
        if self.num_classes:
            embedding = ops.Embedding(self.num_classes, self.w_dim, name="embed")(c)
            parts.append(condition * ops.normalize_second_moment(embedding))
        x = jnp.concatenate(parts, axis=-1)
        for i in range(self.num_layers):
            x = ops.Dense(self.w_dim, "lrelu", self.lr_multiplier, name=f"fc{i}")(x)
        return x


class SynthesisLayer(nn.Module):
    """Modulated 3x3 convolution, noise, bias, leaky ReLU."""

    features: int
    resolution: int
    up: bool = False

    @nn.compact
    def __call__(self, x: Maps, w: Float[AnyArray, "n w"], noise: str | Float[AnyArray, "n _ _ 1"]) -> Maps:
        """Applies the layer; `noise` is "const" (the stored map), "none", or the planes to add."""
        channels = x.shape[-1]
        styles = ops.Dense(channels, bias_init=1.0, name="affine")(w)
        weight = self.param("weight", nn.initializers.normal(1.0), (3, 3, channels, self.features))
        strength = self.param("noise_strength", nn.initializers.zeros, ())
        bias = self.param("bias", nn.initializers.zeros, (self.features,))
        size = (self.resolution, self.resolution)
        constant = self.variable("buffers", "noise_const", lambda: jax.random.normal(self.make_rng("params"), size))
        x = ops.modulated_convolve(x, weight, styles, up=self.up)
        if not isinstance(noise, str):
            x = x + (noise * strength).astype(x.dtype)
        elif noise == "const":
            x = x + (constant.value * strength)[None, :, :, None].astype(x.dtype)
        return ops.leaky_relu(x + bias.astype(x.dtype))


def _noise(key: jax.Array, n: int, sizes: list[int]) -> list[Float[AnyArray, "n _ _ 1"]]:
    """Draws unit normal planes of all sizes at once: one random kernel to compile and run in place of one a layer."""
    ends = np.cumsum([size * size for size in sizes])
    drawn = jnp.split(jax.random.normal(key, (n, int(ends[-1]))), ends[:-1], axis=1)
    return [plane.reshape(n, size, size, 1) for plane, size in zip(drawn, sizes, strict=True)]


class ToRGB(nn.Module):
    """Modulated 1x1 convolution to the picture's channels, without demodulation."""

    features: int

    @nn.compact
    def __call__(self, x: Maps, w: Float[AnyArray, "n w"]) -> Maps:
        """Returns this resolution's float32 contribution to the picture."""
        channels = x.shape[-1]
        styles = ops.Dense(channels, bias_init=1.0, name="affine")(w) / math.sqrt(channels)
        weight = self.param("weight", nn.initializers.normal(1.0), (1, 1, channels, self.features))
        bias = self.param("bias", nn.initializers.zeros, (self.features,))
        return ops.modulated_convolve(x, weight, styles, demodulate=False).astype(jnp.float32) + bias


class SynthesisBlock(nn.Module):
    """All layers of one resolution."""

    features: int
    resolution: int
    image_channels: int
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(
        self, x: Maps | None, image: Maps | None, ws: Styles, noise: list[str] | list[Float[AnyArray, "n _ _ 1"]]
    ) -> tuple[Maps, Maps]:
        """Returns the activations and the running picture; the first block starts from a learned constant.

        Args:
            x: activations of the resolution below, None at 4x4.
            image: running picture of the resolution below, None at 4x4.
            ws: this block's style vectors: one a convolution, and the picture's.
            noise: of each convolution, see `SynthesisLayer`.
        """
        if x is None:
            shape = (self.resolution, self.resolution, self.features)
            constant = self.param("const", nn.initializers.normal(1.0), shape)
            x = jnp.broadcast_to(constant, (ws.shape[0], *shape)).astype(self.dtype)
        else:
            layer = SynthesisLayer(self.features, self.resolution, up=True, name="conv0")
            x = layer(x.astype(self.dtype), ws[:, 0], noise[0])
        x = SynthesisLayer(self.features, self.resolution, name="conv1")(x, ws[:, -2], noise[-1])
        contribution = ToRGB(self.image_channels, name="torgb")(x, ws[:, -1])
        image = contribution if image is None else ops.upsample(image) + contribution
        return x, image


class Synthesis(nn.Module):
    """Style vectors to picture: from 4x4 upwards, each resolution adding to an up-sampled running picture."""

    image_size: int
    image_channels: int
    channel_base: int
    channel_max: int
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, ws: Styles, noise: str) -> Maps:
        """Returns float32 pictures, in [-1, 1] once trained (not clipped)."""
        if noise not in ("const", "none", "random"):
            raise ValueError(f'noise is "const", "none" or "random", not {noise!r}')
        x = image = None
        first = 0
        sizes = [r for r in resolutions(self.image_size) for _ in range(1 if r == 4 else 2)]
        planes = _noise(self.make_rng("noise"), ws.shape[0], sizes) if noise == "random" else [noise] * len(sizes)
        for resolution in resolutions(self.image_size):
            features = channels_at(resolution, self.channel_base, self.channel_max)
            convolutions = 1 if resolution == 4 else 2
            block = SynthesisBlock(features, resolution, self.image_channels, self.dtype, name=f"b{resolution}")
            # The picture's style is shared with the first convolution of the next block.
            here = slice(first, first + convolutions)
            x, image = block(x, image, ws[:, first : first + convolutions + 1], planes[here])
            first += convolutions
        return image


class Generator(nn.Module):
    """Class-conditional StyleGAN2 generator (Karras et al. 2020, arXiv 1912.04958 and 2006.06676).

    Attributes:
        image_size: height and width of what is drawn, a power of two from 8 to 512.
        crop: pixels then cut off on each side: 8 of 128 for pictures of 112.
        num_classes: identities; 0 for an unconditional generator.
        z_dim: latent width.
        w_dim: style width.
        channel_base: feature maps at resolution r are channel_base / r, at most `channel_max`.
        channel_max: see `channel_base`.
        mapping_layers: layers of the mapping network.
        image_channels: 3 for colour.
        dtype: precision of the convolutions; styles, demodulation and the running picture stay float32.
    """

    image_size: int
    num_classes: int
    z_dim: int = 512
    w_dim: int = 512
    channel_base: int = 16384
    channel_max: int = 512
    mapping_layers: int = 2
    image_channels: int = 3
    crop: int = 0
    dtype: jnp.dtype = jnp.float32

    @property
    def picture_size(self) -> int:
        """Height and width of a picture, what is cut off left out."""
        return self.image_size - 2 * self.crop

    @property
    def picture_shape(self) -> tuple[int, int, int]:
        """Height, width and channels of a picture."""
        return self.picture_size, self.picture_size, self.image_channels

    @property
    def num_ws(self) -> int:
        """Style vectors of one picture."""
        return 2 * len(resolutions(self.image_size))

    def setup(self) -> None:
        """Makes the two networks and the buffer of the mean w."""
        self.mapping = Mapping(self.w_dim, self.num_classes, self.mapping_layers)
        self.synthesis = Synthesis(
            self.image_size, self.image_channels, self.channel_base, self.channel_max, self.dtype
        )
        self.w_avg = self.variable("buffers", "w_avg", jnp.zeros, (self.w_dim,))

    def map(
        self,
        z: Latents,
        c: Labels,
        truncation_psi: float = 1.0,
        truncation_cutoff: int | None = None,
        condition: float | Float[AnyArray, ""] = 1.0,
    ) -> Styles:
        """Maps latents and labels to style vectors.

        Args:
            z: unit normal latents.
            c: labels 0 ... num_classes - 1.
            truncation_psi: pulls w towards its mean, w_avg + psi (w - w_avg); 1 leaves it.
            truncation_cutoff: truncate only the first so many vectors; None truncates all.
            condition: how much the label counts, 0 ... 1; below 1 only while training turns conditional.
        """
        w = self.mapping(z, c, condition)
        ws = jnp.broadcast_to(w[:, None], (w.shape[0], self.num_ws, self.w_dim))
        if truncation_psi == 1.0:
            return ws
        cutoff = self.num_ws if truncation_cutoff is None else truncation_cutoff
        truncated = self.w_avg.value + truncation_psi * (ws - self.w_avg.value)
        return jnp.where(jnp.arange(self.num_ws)[:, None] < cutoff, truncated, ws)

    def synthesize(self, ws: Styles, noise: str = "const") -> Maps:
        """Renders style vectors to float32 pictures, in [-1, 1] once trained (not clipped).

        Args:
            ws: from `map`.
            noise: "const" (stored maps), "none", or "random" (needs `rngs={"noise": key}`).
        """
        images = self.synthesis(ws, noise)
        return images[:, self.crop : self.image_size - self.crop, self.crop : self.image_size - self.crop]

    def __call__(self, z: Latents, c: Labels, noise: str = "const") -> Maps:
        """Maps and renders."""
        return self.synthesize(self.map(z, c), noise)
