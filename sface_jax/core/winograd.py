"""The 3x3 convolution in Winograd's form, which saves CPUs more than half of the products."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from sface_jax.core.arrays import AnyArray


def correlate(x: Float[AnyArray, "n h w c"], kernel: Float[AnyArray, "3 3 c d"]) -> Float[Array, "n h w d"]:
    """Correlates pictures with a 3x3 kernel, zeros beyond the border; equal to a convolution but for the rounding.

    16 products for each 2x2 pixels in place of 36: F(2x2, 3x3) of Lavin and Gray (arXiv 1509.09308),

        y = A^T [(G g G^T) * (B^T d B)] A

    for windows d of 4x4 pixels. Its gradients have the same form, and so the same saving.
    """
    n, h, w, c = x.shape

    def windows(d: Float[AnyArray, "n _ _ c"], axis: int) -> list[Float[AnyArray, "n _ _ c"]]:
        d0, d1, d2, d3 = (jax.lax.slice_in_dim(d, i, i + d.shape[axis] - 3, 2, axis) for i in range(4))
        return [d0 - d2, d1 + d2, d2 - d1, d1 - d3]  # B^T d

    def taps(g: Float[AnyArray, "3 *rest"]) -> list[Float[AnyArray, "*rest"]]:
        return [g[0], 0.5 * (g[0] + g[1] + g[2]), 0.5 * (g[0] - g[1] + g[2]), g[2]]  # G g

    def pixels(m: Float[AnyArray, "4 *rest"], axis: int) -> Float[AnyArray, "..."]:
        return jnp.stack([m[0] + m[1] + m[2], m[1] - m[2] - m[3]], axis)  # A^T m

    padded = jnp.pad(x, [(0, 0), (1, 1 + h % 2), (1, 1 + w % 2), (0, 0)])
    tiles = jnp.stack([tile for row in windows(padded, 1) for tile in windows(row, 2)])  # [16, n, H, W, c]
    kernels = jnp.stack([tap for row in taps(kernel) for tap in taps(row)])  # [16, c, d]
    products = (tiles.reshape(16, -1, c) @ kernels).reshape(4, 4, *tiles.shape[1:4], -1)
    rows = pixels(products, 3)  # [4, n, H, 2, W, d], the second of the two axes of 4 now leading
    y = pixels(rows, 4)  # [n, H, 2, W, 2, d]
    return y.reshape(n, 2 * y.shape[1], 2 * y.shape[3], -1)[:, :h, :w]
