"""iResNet, the residual network of ArcFace, for face crops from 32 to 112 pixels and more.

He et al., "Deep Residual Learning" (arXiv 1512.03385) with the pre-normalised block of Duta et al., "Improved Residual
Networks" (arXiv 2004.04989), as published with ArcFace (arXiv 1801.07698): weights trained there run here unchanged.
"""

import math
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from sface_jax.recognition.convolution import Conv3

EPSILON = 1e-5
MOMENTUM = 0.9
SE_REDUCTION = 16

_conv_init = nn.initializers.normal(0.1)
_fc_init = nn.initializers.variance_scaling(1 / 3, "fan_in", "uniform")


class BatchNorm(nn.Module):
    """Batch normalisation over all axes but the last, in float32, over the global batch.

    Normalises with the biased variance and keeps a running mean of the unbiased one: running = 0.9 running + 0.1 batch.

    Attributes:
        trained_scale: False keeps the scale out of the parameters (it lives with the statistics, and stays what it is).
    """

    trained_scale: bool = True

    @nn.compact
    def __call__(self, x: Float[Array, "*b c"], train: bool) -> Float[Array, "*b c"]:
        shape = x.shape[-1:]
        mean = self.variable("batch_stats", "mean", jnp.zeros, shape)
        var = self.variable("batch_stats", "var", jnp.ones, shape)
        if self.trained_scale:
            scale = self.param("scale", nn.initializers.ones, shape)
        else:
            scale = self.variable("batch_stats", "scale", jnp.ones, shape).value
        bias = self.param("bias", nn.initializers.zeros, shape)
        if not train:
            gain = scale * jax.lax.rsqrt(var.value + EPSILON)
            return ((x.astype(jnp.float32) - mean.value) * gain + bias).astype(x.dtype)
        y, batch_mean, batch_var = _normalise(x, scale, bias)
        if not self.is_initializing():
            count = x.size // x.shape[-1]
            mean.value = MOMENTUM * mean.value + (1 - MOMENTUM) * batch_mean
            var.value = MOMENTUM * var.value + (1 - MOMENTUM) * batch_var * (count / max(count - 1, 1))
        return y


@jax.custom_vjp
def _normalise(x: Array, scale: Array, bias: Array) -> tuple[Array, Array, Array]:
    """y = (x - mean) / sqrt(var + eps) * scale + bias with the batch's mean and biased variance, which it returns too.

    Mean and variance carry no gradient of their own. The gradient of y is written out because what automatic
    differentiation makes of it takes a third more time of a training step on a CPU.
    """
    return _normalise_forward(x, scale, bias)[0]


def _normalise_forward(x, scale, bias):
    x32, count = x.astype(jnp.float32), x.size // x.shape[-1]
    mean = channel_sums(x32) / count
    var = channel_sums(jnp.square(x32 - mean)) / count
    rate = jax.lax.rsqrt(var + EPSILON)
    y = (x32 - mean) * (rate * scale) + bias
    return (y.astype(x.dtype), mean, var), (x, mean, rate, scale)


def _normalise_backward(kept, gradients):
    # dx = scale/std (g - mean(g) - xhat mean(g xhat)),  xhat = (x - mean)/std
    x, mean, rate, scale = kept
    g, count = gradients[0].astype(jnp.float32), x.size // x.shape[-1]
    centred = x.astype(jnp.float32) - mean
    g_bias = channel_sums(g)
    g_scale = channel_sums(g * centred) * rate
    g_x = (scale * rate) * (g - g_bias / count - centred * (rate * g_scale / count))
    return g_x.astype(x.dtype), g_scale, g_bias


_normalise.defvjp(_normalise_forward, _normalise_backward)


def channel_sums(x: Float[Array, "*b c"]) -> Float[Array, " c"]:
    """Sums over all axes but the last; on a CPU, where XLA's reduction is serial, as a product with ones."""

    def product(x):
        flat = x.reshape(-1, x.shape[-1])
        # A product adds one number after the other. Folding first keeps the error so small that the kinks of PReLUs are
        # passed on the right side: gradients are then as near to float64's as 1e-5, and 7e-4 otherwise.
        fold = math.gcd(len(flat), 64) if len(flat) > 128 else 1
        flat = sum(jnp.split(flat, fold))
        return jnp.matmul(jnp.ones((1, len(flat)), x.dtype), flat, precision=jax.lax.Precision.HIGHEST)[0]

    return jax.lax.platform_dependent(x, cpu=product, default=lambda x: x.sum(tuple(range(x.ndim - 1))))


class PReLU(nn.Module):
    """max(x, 0) + slope * min(x, 0), one slope per channel."""

    @nn.compact
    def __call__(self, x: Float[Array, "*b c"]) -> Float[Array, "*b c"]:
        slope = self.param("slope", nn.initializers.constant(0.25), x.shape[-1:]).astype(x.dtype)
        return jnp.where(x >= 0, x, slope * x)


def _conv3(width: int, stride: int, dtype: Any, name: str) -> Conv3:
    return Conv3(width, stride, kernel_init=_conv_init, dtype=dtype, name=name)


def _conv1(width: int, dtype: Any, name: str) -> nn.Conv:
    return nn.Conv(width, (1, 1), use_bias=False, dtype=dtype, kernel_init=_conv_init, name=name)


class SqueezeExcitation(nn.Module):
    """x * sigmoid(W2 relu(W1 mean(x))), Hu et al. (arXiv 1709.01507), reduction 16."""

    @nn.compact
    def __call__(self, x: Float[Array, "n h w c"]) -> Float[Array, "n h w c"]:
        width = x.shape[-1]
        gate = x.mean((1, 2), keepdims=True)  # [n,1,1,c]
        gate = nn.relu(_conv1(max(width // SE_REDUCTION, 1), x.dtype, "fc1")(gate))  # [n,1,1,c/16]
        return x * nn.sigmoid(_conv1(width, x.dtype, "fc2")(gate))


class Block(nn.Module):
    """BN - conv3x3 - BN - PReLU - conv3x3 (strided) - BN, plus the shortcut; nothing follows the addition."""

    width: int
    stride: int = 1
    squeeze_excitation: bool = False

    @nn.compact
    def __call__(self, x: Float[Array, "n h w c"], train: bool) -> Float[Array, "n H W C"]:
        y = BatchNorm(name="bn1")(x, train)
        y = _conv3(self.width, 1, x.dtype, "conv1")(y)  # [n,h,w,C]
        y = BatchNorm(name="bn2")(y, train)
        y = PReLU(name="prelu")(y)
        y = _conv3(self.width, self.stride, x.dtype, "conv2")(y)  # [n,H,W,C]
        y = BatchNorm(name="bn3")(y, train)
        if self.squeeze_excitation:
            y = SqueezeExcitation(name="se")(y)
        if self.stride != 1 or x.shape[-1] != self.width:
            # Pixels are left out before the 1x1 convolution: on CPUs a strided one's gradients take twice as long.
            x = x[:, :: self.stride, :: self.stride]
            x = _conv1(self.width, x.dtype, "shortcut_conv")(x)  # [n,H,W,C]
            x = BatchNorm(name="shortcut_bn")(x, train)
        return x + y


class IResNet(nn.Module):
    """The backbone: pictures to embeddings.

    Attributes:
        blocks: residual blocks of each stage.
        widths: channels of each stage; the stem has those of the first.
        strides: stride of each stage, taken by its first block.
        stem_stride: stride of the first convolution (1 in the published networks).
        embedding_size: d.
        dropout: probability of dropping a feature before the last linear layer.
        squeeze_excitation: a channel gate in every block.
        dtype: type of the body; statistics, the last linear layer and the embedding are float32.
    """

    blocks: tuple[int, ...] = (3, 4, 14, 3)
    widths: tuple[int, ...] = (64, 128, 256, 512)
    strides: tuple[int, ...] = (2, 2, 2, 2)
    stem_stride: int = 1
    embedding_size: int = 512
    dropout: float = 0.0
    squeeze_excitation: bool = False
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, images: Float[Array, "n h w 3"], train: bool = False) -> Float[Array, "n d"]:
        """Embeds pictures.

        Args:
            images: pictures in [-1, 1]; their size is fixed by the first call, since the last layer is fully connected.
            train: normalise with the statistics of the batch (and update them where `batch_stats` is mutable) and drop
                features (needs the rng `dropout` where the dropout is above 0).

        Returns:
            Embeddings, float32, not normalised.
        """
        x = _conv3(self.widths[0], self.stem_stride, self.dtype, "conv1")(images)
        x = BatchNorm(name="bn1")(x, train)
        x = PReLU(name="prelu")(x)
        for stage, (count, width, stride) in enumerate(zip(self.blocks, self.widths, self.strides, strict=True), 1):
            for i in range(count):
                block = Block(width, stride if i == 0 else 1, self.squeeze_excitation, name=f"layer{stage}_{i}")
                x = block(x, train)
        x = BatchNorm(name="bn2")(x, train)  # [n,h/16,w/16,c]
        x = x.transpose(0, 3, 1, 2).reshape(len(x), -1)  # channel, height, width order, as published weights have it
        x = nn.Dropout(self.dropout, deterministic=not train)(x)
        x = nn.Dense(self.embedding_size, kernel_init=_fc_init, name="fc")(x.astype(jnp.float32))  # [n,d]
        return BatchNorm(trained_scale=False, name="features")(x, train)


PUBLISHED: dict[str, tuple[int, int, int, int]] = {
    "iresnet18": (2, 2, 2, 2),
    "iresnet34": (3, 4, 6, 3),
    "iresnet50": (3, 4, 14, 3),
    "iresnet100": (3, 13, 30, 3),
    "iresnet200": (6, 26, 60, 6),
}
"""Blocks of each stage of the published networks."""
