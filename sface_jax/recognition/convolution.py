"""The 3x3 convolution of residual networks, in forms that suit CPUs too: with its gradients, and without."""

from __future__ import annotations

import functools
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from sface_jax.core import winograd

LAYOUT = ("NHWC", "HWIO", "NHWC")
CACHE = 24 * 2**20
"""Bytes of input and gradient that a CPU's last cache is taken to hold; beyond it a weight gradient takes longer."""

MOST_PIECES = 32
SMALL = 14
"""Side of a map up to which nine matrix products are faster on CPUs than one convolution for the weight gradient."""

WIDE, MIDDLING = 256, 64
"""Channels from which what Winograd's form saves in products on CPUs is more than what it adds in additions: for inputs
of any size, and for those of at most `CACHED` numbers, whose windows stay in the caches."""

CACHED = 8 * 56 * 56 * 64

Images = Float[Array, "n h w c"]
Kernel = Float[Array, "3 3 c d"]


class Conv3(nn.Module):
    """A 3x3 convolution without bias that pads one pixel on all four sides, whatever the stride.

    Attributes:
        features: output channels.
        stride: of height and width.
        kernel_init: draws the kernel.
        dtype: to compute in; the kernel is float32.
    """

    features: int
    stride: int = 1
    kernel_init: Any = nn.initializers.lecun_normal()
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "n h w c"]) -> Float[Array, "n H W d"]:
        """Applies the layer."""
        kernel = self.param("kernel", self.kernel_init, (3, 3, x.shape[-1], self.features))
        return convolve(x.astype(self.dtype), kernel.astype(self.dtype), self.stride)


@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def convolve(x: Float[Array, "n h w c"], kernel: Kernel, stride: int) -> Float[Array, "n H W d"]:
    """Correlates pictures with a 3x3 kernel, zeros beyond the border.

    Where no gradient is asked for, a CPU takes Winograd's form in wide layers: the same but for the rounding.
    """
    plain = functools.partial(_plain, stride=stride)
    pays = min(kernel.shape[2:]) >= (MIDDLING if x.size <= CACHED else WIDE)
    if stride == 1 and pays and x.dtype == jnp.float32:
        return jax.lax.platform_dependent(x, kernel, cpu=winograd.correlate, default=plain)
    return plain(x, kernel)


def _plain(x: Array, kernel: Array, stride: int) -> Array:
    return jax.lax.conv_general_dilated(x, kernel, (stride, stride), [(1, 1)] * 2, dimension_numbers=LAYOUT)


def _forward(x: Array, kernel: Array, stride: int) -> tuple[Array, tuple[Array, Array]]:
    return _plain(x, kernel, stride), (x, kernel)


def _backward(stride: int, kept: tuple[Array, Array], gradient: Array) -> tuple[Array, Array]:
    x, kernel = kept
    by_x = _by_input(x, kernel, gradient, stride)
    if stride == 2 and x.shape[1] % 2 == x.shape[2] % 2 == 0:
        by_x = jax.lax.platform_dependent(
            x, kernel, gradient, cpu=_in_phases, default=functools.partial(_by_input, stride=stride)
        )
    whole = functools.partial(_by_kernel, stride=stride)
    on_cpu = functools.partial(_by_taps if gradient.shape[1] <= SMALL else _in_pieces, stride=stride)
    return by_x, jax.lax.platform_dependent(x, gradient, cpu=on_cpu, default=whole)


convolve.defvjp(_forward, _backward)


def _by_input(x: Images, kernel: Kernel, gradient: Float[Array, "n H W d"], stride: int) -> Images:
    """The gradient of the input as XLA writes it: a convolution of the gradient, with zeros between its pixels."""
    return jax.linear_transpose(lambda x: _plain(x, kernel, stride), x)(gradient)[0]


def _in_phases(x: Images, kernel: Kernel, gradient: Float[Array, "n H W d"]) -> Images:
    """The same for stride 2 without those zeros: a 2x2 convolution gives each 2x2 pixels at once.

    Along an axis, pixel 2q gets w[1] g[q], and pixel 2q + 1 gets w[2] g[q] + w[0] g[q + 1].
    """
    n, height, width, c = x.shape
    place = (
        jnp.zeros((2, 2, 3), kernel.dtype).at[0, 0, 1].set(1).at[0, 1, 2].set(1).at[1, 1, 0].set(1)
    )  # [neighbour, phase, tap]
    phases = jnp.einsum("api,bqj,ijcd->abdpqc", place, place, kernel).reshape(2, 2, -1, 4 * c)
    y = jax.lax.conv_general_dilated(gradient, phases, (1, 1), [(0, 1)] * 2, dimension_numbers=LAYOUT)
    y = y.reshape(n, height // 2, width // 2, 2, 2, c).transpose(0, 1, 3, 2, 4, 5)
    return y.reshape(x.shape)


def _by_kernel(x: Images, gradient: Float[Array, "n H W d"], stride: int) -> Kernel:
    """The weight gradient as XLA writes it: a convolution of the input with the gradient."""
    kernel = jax.ShapeDtypeStruct((3, 3, x.shape[-1], gradient.shape[-1]), x.dtype)
    return jax.linear_transpose(lambda kernel: _plain(x, kernel, stride), kernel)(gradient)[0]


def _in_pieces(x: Images, gradient: Float[Array, "n H W d"], stride: int) -> Kernel:
    """The sum of the weight gradients of pieces of the batch that fit the cache."""
    pieces, size = 1, 4 * (x.size + gradient.size)
    while size > CACHE * pieces and len(x) % (2 * pieces) == 0 and pieces < MOST_PIECES:
        pieces *= 2
    parts = zip(jnp.split(x, pieces), jnp.split(gradient, pieces), strict=True)
    return sum(_by_kernel(*part, stride=stride) for part in parts)


def _by_taps(x: Images, gradient: Float[Array, "n H W d"], stride: int) -> Kernel:
    """A matrix product for each of the nine taps: the pixels below the tap with the gradient."""
    height, width, d = gradient.shape[1:]
    padded = jnp.pad(x, [(0, 0), (1, 1), (1, 1), (0, 0)])
    flat = gradient.reshape(-1, d)

    def tap(i: int, j: int) -> Float[Array, "c d"]:
        below = padded[:, i : i + stride * (height - 1) + 1 : stride, j : j + stride * (width - 1) + 1 : stride]
        return below.reshape(len(flat), -1).T @ flat

    return jnp.stack([jnp.stack([tap(i, j) for j in range(3)]) for i in range(3)])
