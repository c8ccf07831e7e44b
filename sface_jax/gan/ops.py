"""The operations StyleGAN2 is made of: equalised layers, resampling by [1,3,3,1], modulated convolution.

Arrays are NHWC, convolution kernels HWIO. Weights are stored at unit scale and multiplied by their gain at run time
(equalised learning rate, Karras et al. 2018). Resampling follows the StyleGAN2 conventions: up-sampling inserts zeros
and filters with gain 4, down-sampling filters and keeps every second pixel, both with the separable filter
[1,3,3,1]/8 and with zeros beyond the border.
"""

from __future__ import annotations

import functools
import math

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Float, Int

from sface_jax.core import winograd
from sface_jax.core.arrays import AnyArray

FIR = (0.125, 0.375, 0.375, 0.125)
LAYOUT = ("NHWC", "HWIO", "NHWC")

Images = Float[AnyArray, "n h w c"]


def leaky_relu(x: Float[AnyArray, "..."], gain: float = math.sqrt(2)) -> Float[AnyArray, "..."]:
    """Leaky ReLU of slope 0.2 times a gain; sqrt(2) keeps the second moment of a unit normal input about one."""
    return jnp.where(x >= 0, x, 0.2 * x) * jnp.asarray(gain, x.dtype)


def normalize_second_moment(x: Float[AnyArray, "n d"]) -> Float[AnyArray, "n d"]:
    """Scales each row to unit mean square: x / sqrt(mean(x^2) + 1e-8)."""
    return x * jax.lax.rsqrt(jnp.mean(jnp.square(x), axis=-1, keepdims=True) + 1e-8)


def convolve(x: Images, kernel: Float[AnyArray, "k k c d"]) -> Float[AnyArray, "n h w d"]:
    """Correlates pictures with a kernel of odd size, zeros beyond the border, in the pictures' precision."""
    _, h, w, c = x.shape
    plain = functools.partial(_correlate, padding=kernel.shape[0] // 2)
    # On CPUs from this size on, what Winograd saves in products is more than what it adds in additions.
    if kernel.shape[0] == 3 and x.dtype == jnp.float32 and min(c, kernel.shape[-1]) >= 256 and min(h, w) >= 16:
        return jax.lax.platform_dependent(x, kernel, cpu=winograd.correlate, default=plain)
    return plain(x, kernel)


def _correlate(
    x: Images, kernel: Float[AnyArray, "k k c d"], stride: int = 1, padding: int = 0
) -> Float[AnyArray, "n i j d"]:
    return jax.lax.conv_general_dilated(
        x, kernel.astype(x.dtype), (stride, stride), [(padding, padding)] * 2, dimension_numbers=LAYOUT
    )


def _blur_axis(x: Images, axis: int, before: int, after: int, stride: int) -> Float[AnyArray, "n _ _ c"]:
    """Filters one axis with FIR, as shifted additions: XLA's depthwise convolution is slow on CPUs."""
    pads = [(0, 0)] * 4
    pads[axis] = (before, after)
    x = jnp.pad(x, pads)
    count = x.shape[axis] - len(FIR) + 1
    taps = [jax.lax.slice_in_dim(x, k, k + count, stride, axis) * f for k, f in enumerate(FIR)]
    return sum(taps[1:], taps[0])


def downsample(x: Images) -> Float[AnyArray, "n h//2 w//2 c"]:
    """Halves height and width: filters with [1,3,3,1]/8 in both directions and keeps every second pixel."""
    return _blur_axis(_blur_axis(x, 1, 1, 1, 2), 2, 1, 1, 2)


def upsample(x: Images) -> Float[AnyArray, "n 2*h 2*w c"]:
    """Doubles height and width: inserts zeros and filters with [1,3,3,1]/4 in both directions.

    Done by phases: an even output pixel is x[i-1]/4 + 3 x[i]/4, an odd one 3 x[i]/4 + x[i+1]/4.
    """
    for axis in (1, 2):
        pads = [(0, 0)] * 4
        pads[axis] = (1, 1)
        padded, size = jnp.pad(x, pads), x.shape[axis]
        left = jax.lax.slice_in_dim(padded, 0, size, axis=axis)
        right = jax.lax.slice_in_dim(padded, 2, size + 2, axis=axis)
        phases = jnp.stack([0.25 * left + 0.75 * x, 0.75 * x + 0.25 * right], axis + 1)
        x = phases.reshape(x.shape[:axis] + (2 * size,) + x.shape[axis + 1 :])
    return x


def convolve_down(x: Images, kernel: Float[AnyArray, "k k c d"]) -> Float[AnyArray, "n h//2 w//2 d"]:
    """Filters with [1,3,3,1]/8 and convolves with stride 2, as the discriminator's second 3x3 convolution does."""
    if kernel.shape[0] == 1:
        return convolve(downsample(x), kernel)
    x = _blur_axis(_blur_axis(x, 1, 2, 2, 1), 2, 2, 2, 1)
    return jax.lax.platform_dependent(
        x, kernel, cpu=_strided_as_product, default=functools.partial(_correlate, stride=2)
    )


def _strided_as_product(x: Images, kernel: Float[AnyArray, "3 3 c d"]) -> Float[AnyArray, "n (h-1)//2 (w-1)//2 d"]:
    """Strided convolution as one matrix product, of which CPUs compute the gradients faster."""
    height, width = x.shape[1] - 2, x.shape[2] - 2
    taps = [x[:, i : i + height : 2, j : j + width : 2] for i in range(3) for j in range(3)]
    return jnp.concatenate(taps, axis=-1) @ kernel.reshape(-1, kernel.shape[-1]).astype(x.dtype)


def convolve_up(x: Images, kernel: Float[AnyArray, "3 3 c d"]) -> Float[AnyArray, "n 2*h 2*w d"]:
    """Inserts zeros, convolves with a (rotated) 3x3 kernel and filters with [1,3,3,1]/4, as the generator does.

    The zeros are never multiplied: a transposed convolution costs a quarter of one at the larger size.
    """
    y = jax.lax.platform_dependent(x, kernel, cpu=_transposed_as_product, default=_transposed)
    return 4 * _blur_axis(_blur_axis(y, 1, 1, 1, 1), 2, 1, 1, 1)


def _transposed(x: Images, kernel: Float[AnyArray, "3 3 c d"]) -> Float[AnyArray, "n 2*h+1 2*w+1 d"]:
    """y[2i + k] = sum_i x[i] w[k], as one convolution of the picture with zeros between its pixels."""
    return jax.lax.conv_general_dilated(
        x,
        kernel[::-1, ::-1].astype(x.dtype),
        (1, 1),
        [(2, 2)] * 2,
        lhs_dilation=(2, 2),
        dimension_numbers=LAYOUT,
    )


def _transposed_as_product(x: Images, kernel: Float[AnyArray, "3 3 c d"]) -> Float[AnyArray, "n 2*h+1 2*w+1 d"]:
    """`_transposed` as one matrix product and additions: CPUs take 100 times as long for its weight gradient."""
    n, h, w, c = x.shape
    d = kernel.shape[-1]
    taps = (x @ kernel.astype(x.dtype).transpose(2, 0, 1, 3).reshape(c, 9 * d)).reshape(n, h, w, 3, 3, d)
    rows = [_overlap([taps[..., i, j, :] for j in range(3)], axis=2) for i in range(3)]
    return _overlap(rows, axis=1)


def _overlap(taps: list[Float[AnyArray, "n h w d"]], axis: int) -> Float[AnyArray, "n _ _ d"]:
    """Adds the three taps of each pixel to the pixels 2i, 2i + 1, 2i + 2 of an axis of length 2 size + 1."""

    def padded(x: Float[AnyArray, "n h w d"], before: int, after: int) -> Float[AnyArray, "n _ _ d"]:
        return jnp.pad(x, [(before, after) if i == axis else (0, 0) for i in range(4)])

    even, odd = padded(taps[0], 0, 1) + padded(taps[2], 1, 0), padded(taps[1], 0, 1)
    shape = list(even.shape)
    shape[axis] *= 2
    return jax.lax.slice_in_dim(jnp.stack([even, odd], axis + 1).reshape(shape), 0, shape[axis] - 1, axis=axis)


def modulated_convolve(
    x: Images,
    kernel: Float[AnyArray, "k k c d"],
    styles: Float[AnyArray, "n c"],
    *,
    up: bool = False,
    demodulate: bool = True,
) -> Float[AnyArray, "n i j d"]:
    """Convolution whose input channels are scaled per sample, with the output scaled back (StyleGAN2, section 2.2).

        w'[k,c,d] = s[c] w[k,c,d],   w''[k,c,d] = w'[k,c,d] / sqrt(sum_{k,c} w'[k,c,d]^2 + 1e-8)

    Scaling the input by s and the output by the demodulation is the same as convolving with w'', but is one ordinary
    convolution for the whole batch. Styles and demodulation are computed in float32.

    Args:
        x: activations.
        kernel: the shared kernel.
        styles: s, one row a sample.
        up: double height and width on the way.
        demodulate: scale the outputs to unit expected variance.
    """
    styles = styles.astype(jnp.float32)
    y = x * styles[:, None, None, :].astype(x.dtype)
    if up:
        y = convolve_up(y, kernel)
    else:
        y = convolve(y, kernel)
    if demodulate:
        weights = jnp.sum(jnp.square(kernel), axis=(0, 1))
        energy = jnp.matmul(jnp.square(styles), weights, precision=jax.lax.Precision.HIGHEST) + 1e-8
        y = y * jax.lax.rsqrt(energy)[:, None, None, :].astype(y.dtype)
    return y


def minibatch_stddev(x: Images, group_size: int = 4, channels: int = 1) -> Float[AnyArray, "n h w c+{channels}"]:
    """Appends the standard deviation over a group of samples as constant planes (Karras et al. 2018, section 3).

    With n samples and groups of g, samples i and j share a group when i mod (n/g) = j mod (n/g). The channels are cut
    into f runs; each gives sqrt(variance over the group + 1e-8), averaged over the run and all pixels.

    Args:
        x: activations of the whole (global) batch.
        group_size: g, lowered to n and then to a divisor of n.
        channels: f.
    """
    n, h, w, c = x.shape
    group = min(group_size, n)
    while n % group:
        group -= 1
    y = x.astype(jnp.float32).reshape(group, n // group, h, w, channels, c // channels)
    deviation = jnp.sqrt(jnp.mean(jnp.square(y - y.mean(0)), axis=0) + 1e-8)
    plane = deviation.mean(axis=(1, 2, 4)).astype(x.dtype)  # [n/g, f]
    plane = jnp.tile(plane, (group, 1))[:, None, None, :]
    return jnp.concatenate([x, jnp.broadcast_to(plane, (n, h, w, channels))], axis=-1)


class Dense(nn.Module):
    """Fully connected layer with equalised learning rate: y = act(x W g + b m), g = m / sqrt(inputs).

    Attributes:
        features: outputs.
        activation: "linear" or "lrelu".
        lr_multiplier: m; weights start at 1/m, so that gradients move them m times as fast in relation.
        bias_init: start value of b.
    """

    features: int
    activation: str = "linear"
    lr_multiplier: float = 1.0
    bias_init: float = 0.0

    @nn.compact
    def __call__(self, x: Float[AnyArray, "n c"]) -> Float[AnyArray, "n d"]:
        """Applies the layer, in float32."""
        m = self.lr_multiplier
        weight = self.param("weight", nn.initializers.normal(1 / m), (x.shape[-1], self.features))
        bias = self.param("bias", nn.initializers.constant(self.bias_init / m), (self.features,))
        weight = weight * (m / math.sqrt(x.shape[-1]))
        y = jnp.matmul(x.astype(jnp.float32), weight, precision=jax.lax.Precision.HIGHEST) + bias * m
        return leaky_relu(y) if self.activation == "lrelu" else y


class Embedding(nn.Module):
    """A `Dense` layer on one-hot labels, as a look-up: y = W[label] / sqrt(classes) + b."""

    classes: int
    features: int

    @nn.compact
    def __call__(self, labels: Int[AnyArray, " n"]) -> Float[AnyArray, "n d"]:
        """Looks the labels up."""
        weight = self.param("weight", nn.initializers.normal(1.0), (self.classes, self.features))
        bias = self.param("bias", nn.initializers.zeros, (self.features,))
        return weight[labels] / math.sqrt(self.classes) + bias


class Conv(nn.Module):
    """Convolution with equalised learning rate, optional bias, activation and halving of the resolution.

    Attributes:
        features: output channels.
        kernel: 1 or 3, zero-padded to keep the size.
        activation: "linear" or "lrelu".
        use_bias: add a bias before the activation.
        down: halve height and width.
        gain: factor on the output.
    """

    features: int
    kernel: int = 3
    activation: str = "lrelu"
    use_bias: bool = True
    down: bool = False
    gain: float = 1.0

    @nn.compact
    def __call__(self, x: Images) -> Float[AnyArray, "n i j d"]:
        """Applies the layer, in the precision of `x`."""
        shape = (self.kernel, self.kernel, x.shape[-1], self.features)
        weight = self.param("weight", nn.initializers.normal(1.0), shape)
        weight = weight / math.sqrt(math.prod(shape[:3]))
        y = convolve_down(x, weight) if self.down else convolve(x, weight)
        if self.use_bias:
            y = y + self.param("bias", nn.initializers.zeros, (self.features,)).astype(y.dtype)
        if self.activation == "lrelu":
            return leaky_relu(y, math.sqrt(2) * self.gain)
        return y * jnp.asarray(self.gain, y.dtype)
