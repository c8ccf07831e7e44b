"""MobileFaceNet: a recogniser of a million parameters, for CPUs and phones (Chen et al., arXiv 1804.07573).

Three published forms are one module: the paper's with PReLU, the wider one of InsightFace, and one with ReLU6 in the
manner of MobileNetV2 (arXiv 1801.04381). Weights trained there run here unchanged.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Iterator
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from sface_jax.core.arrays import AnyArray
from sface_jax.recognition.iresnet import BatchNorm, PReLU, channel_sums

STRIDE = 16  # of the whole body
STEM_GROUPS = 64
LAST_WIDTH = 512

_init = nn.initializers.variance_scaling(2.0, "fan_in", "normal")


class Convolution(nn.Module):
    """Convolution without bias, BatchNorm, activation.

    Attributes:
        width: output channels.
        kernel: 1 or 3, zero-padded to keep the size.
        stride: of a grouped convolution with kernel 3, or of one without groups.
        groups: 1, or a divisor of the input channels and of `width`.
        activation: "prelu", "relu", "relu6" or "none".
    """

    width: int
    kernel: int = 1
    stride: int = 1
    groups: int = 1
    activation: str = "prelu"

    @nn.compact
    def __call__(self, x: Float[Array, "n h w c"], train: bool) -> Float[Array, "n H W C"]:
        shape = (self.kernel, self.kernel, x.shape[-1] // self.groups, self.width)
        kernel = self.param("kernel", _init, shape).astype(x.dtype)
        if self.groups > 1:
            x = grouped_convolution(x, kernel, self.stride)
        elif self.kernel == 1:
            x = x @ kernel[0, 0]
        else:
            x = _convolve(x, kernel, self.stride)
        x = BatchNorm(name="bn")(x, train)
        if self.activation == "prelu":
            return PReLU(name="prelu")(x)
        return {"relu": nn.relu, "relu6": nn.relu6, "none": lambda x: x}[self.activation](x)


def grouped_convolution(
    x: Float[Array, "n h w c"], kernel: Float[Array, "3 3 m C"], stride: int
) -> Float[Array, "n H W C"]:
    """A 3x3 convolution in groups of m input channels, with padding 1; depthwise where m is 1.

    On CPUs, where XLA's grouped convolution takes twenty times as long, as multiplications and additions of shifted
    pictures.
    """
    return jax.lax.platform_dependent(
        x,
        kernel,
        cpu=functools.partial(_shifted, stride=stride),
        default=functools.partial(_convolve, stride=stride),
    )


def _convolve(x: Array, kernel: Array, stride: int) -> Array:
    pad, groups = kernel.shape[0] // 2, x.shape[-1] // kernel.shape[2]
    return jax.lax.conv_general_dilated(
        x, kernel, (stride, stride), [(pad, pad)] * 2, dimension_numbers=("NHWC", "HWIO", "NHWC"),
        feature_group_count=groups,
    )  # fmt: skip


def _shifted(x: Array, kernel: Array, stride: int) -> Array:
    members, width = kernel.shape[2:]
    groups = x.shape[-1] // members
    y = 0
    for member in range(members):
        # The input that each output channel sees: one of those in its group.
        seen = x if members == 1 else jnp.repeat(x[..., member::members], width // groups, axis=-1)
        y = y + _depthwise(seen, kernel[:, :, member], stride)
    return y


@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def _depthwise(x: Array, kernel: Array, stride: int) -> Array:
    """y[i, j] = sum_kl x[stride i + k - 1, stride j + m - 1] w[k, m], channel by channel."""
    return sum(tap * kernel[k, m] for k, m, tap in _taps(x, stride)).astype(x.dtype)


def _taps(x: Array, stride: int) -> list[tuple[int, int, Array]]:
    """The nine shifted pictures, each of the output's size."""
    height, width = ((side - 1) // stride + 1 for side in x.shape[1:3])
    # Were it not kept apart, XLA would pad anew for each of the nine.
    x = jax.lax.optimization_barrier(jnp.pad(x, [(0, 0), (1, 1), (1, 1), (0, 0)]))
    ends = stride * (height - 1) + 1, stride * (width - 1) + 1
    return [
        (k, m, x[:, k : k + ends[0] : stride, m : m + ends[1] : stride].astype(jnp.float32))
        for k in range(3)
        for m in range(3)
    ]


def _depthwise_forward(x, kernel, stride):
    return _depthwise(x, kernel, stride), (x, kernel)


def _depthwise_backward(stride, kept, g):
    x, kernel = kept
    g32, slices = g.astype(jnp.float32), math.gcd(len(g), 8)
    # Adding a few slices of the batch before the rest is summed writes an eighth to memory, in a fifth of the time.
    sums = [channel_sums(sum(jnp.split(tap * g32, slices))) for _, _, tap in _taps(x, stride)]
    g_kernel = jnp.stack(sums).reshape(kernel.shape).astype(kernel.dtype)
    # The transposed convolution is one with the kernel turned round, of g with zeros between its pixels.
    rest = [side - (stride * (out - 1) + 1) for side, out in zip(x.shape[1:3], g.shape[1:3], strict=True)]
    pads = [(0, 0, 0), *((0, more, stride - 1) for more in rest), (0, 0, 0)]
    spread = jax.lax.pad(g, jnp.zeros((), g.dtype), pads)
    return _depthwise(spread, kernel[::-1, ::-1], 1), g_kernel


_depthwise.defvjp(_depthwise_forward, _depthwise_backward)


class Part(NamedTuple):
    """A bottleneck of the body: its name, hidden channels, output channels, stride."""

    name: str
    hidden: int
    width: int
    stride: int


def bottlenecks(blocks: tuple[int, int, int, int], scale: int) -> Iterator[Part]:
    """The bottlenecks in their order; see `MobileFaceNet`."""
    stages = [  # hidden channels of the strided one and of those that follow, their output channels, how many follow
        (0, 128, 64 * scale, blocks[0] if blocks[0] > 1 else 0),
        (128, 128, 64 * scale, blocks[1]),
        (256, 256, 128 * scale, blocks[2]),
        (512, 256, 128 * scale, blocks[3]),
    ]
    for stage, (first, hidden, width, count) in enumerate(stages, 1):
        if first:
            yield Part(f"stage{stage}_down", first, width, 2)
        yield from (Part(f"stage{stage}_{i}", hidden, width, 1) for i in range(count))


class Bottleneck(nn.Module):
    """1x1 convolution to more channels, 3x3 depthwise, 1x1 back without activation; the input is added at stride 1.

    Attributes:
        hidden: channels in between.
        width: output channels.
        stride: of the depthwise convolution.
        activation: see `Convolution`.
    """

    hidden: int
    width: int
    stride: int
    activation: str

    @nn.compact
    def __call__(self, x: Float[Array, "n h w c"], train: bool) -> Float[Array, "n H W C"]:
        y = Convolution(self.hidden, activation=self.activation, name="expand")(x, train)
        y = Convolution(self.hidden, 3, self.stride, self.hidden, self.activation, name="depthwise")(y, train)
        y = Convolution(self.width, activation="none", name="project")(y, train)
        return x + y if self.stride == 1 else y


class MobileFaceNet(nn.Module):
    """The backbone: pictures to embeddings.

    Attributes:
        blocks: residual bottlenecks of each stage; where the first is 1, the first stage is a single grouped
            convolution in its place.
        scale: of the widths 64 and 128: 1 in the paper, 2 or 4 with InsightFace.
        embedding_size: d.
        relu6: the form with ReLU6 in place of PReLU, a pointwise convolution behind the stem's depthwise one (ReLU
            after both), and a bias in the last linear layer.
        dtype: type of the body; statistics, the last map's weighted sum and what follows are float32.
    """

    blocks: tuple[int, int, int, int] = (1, 4, 6, 2)
    scale: int = 2
    embedding_size: int = 512
    relu6: bool = False
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, images: Float[AnyArray, "n h w 3"], train: bool = False) -> Float[Array, "n d"]:
        """Embeds pictures.

        Args:
            images: pictures as the weights want them; their size, a multiple of 16, is fixed by the first call.
            train: normalise with the statistics of the batch, and update them where `batch_stats` is mutable.

        Returns:
            Embeddings, float32, not normalised.
        """
        narrow = 64 * self.scale
        activation = "relu6" if self.relu6 else "prelu"
        x = jnp.asarray(images, self.dtype)
        x = Convolution(narrow, 3, 2, activation=activation, name="stem")(x, train)  # [n,h/2,w/2,c]
        if self.blocks[0] == 1:
            first = "relu" if self.relu6 else "prelu"
            x = Convolution(narrow, 3, 1, STEM_GROUPS, first, name="stem_depthwise")(x, train)
            if self.relu6:
                x = Convolution(narrow, activation="relu", name="stem_pointwise")(x, train)
        for part in bottlenecks(self.blocks, self.scale):
            x = Bottleneck(part.hidden, part.width, part.stride, activation, name=part.name)(x, train)
        x = Convolution(LAST_WIDTH, activation=activation, name="last")(x, train).astype(jnp.float32)
        kernel = self.param("global", _init, (*x.shape[1:3], 1, LAST_WIDTH))
        x = (x * kernel[:, :, 0]).sum((1, 2))  # a depthwise convolution as large as the map: [n,c]
        x = BatchNorm(name="global_bn")(x, train)
        x = nn.Dense(self.embedding_size, use_bias=self.relu6, kernel_init=_init, name="fc")(x)  # [n,d]
        return BatchNorm(name="features")(x, train)
