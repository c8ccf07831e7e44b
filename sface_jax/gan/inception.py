"""Inception-v3 up to its pooled features, in the form in which Fréchet distances are published.

Szegedy et al. 2016 (arXiv 1512.00567), as TensorFlow's graph of 2015 has it and pytorch-fid carries it over. That
graph departs from the paper's network in two ways: its average pools do not count the padding, and the last block
pools by maximum. Modules are named as pytorch-fid names them.
"""

from __future__ import annotations

from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from sface_jax.core.arrays import AnyArray

SIZE = 299
FEATURES = 2048


class Layer(NamedTuple):
    """A convolution with BatchNorm and ReLU: name, features, kernel's height and width, stride (2: no padding)."""

    name: str
    features: int
    kernel: tuple[int, int] = (1, 1)
    stride: int = 1


Branch = tuple[Layer | tuple[Layer, ...], ...]
"""Layers one after the other; layers in a tuple of their own stand side by side, and are concatenated."""

ROW, COLUMN = (1, 7), (7, 1)


class Convolution(nn.Module):
    """Convolution without bias, BatchNorm with the running statistics, ReLU; in full float32 on every device."""

    features: int
    kernel: tuple[int, int]
    stride: int
    padding: str

    @nn.compact
    def __call__(self, x: Float[Array, "n h w c"]) -> Float[Array, "n h2 w2 features"]:
        strides, precision = (self.stride, self.stride), jax.lax.Precision.HIGHEST
        x = nn.Conv(
            self.features, self.kernel, strides, self.padding, use_bias=False, precision=precision, name="conv"
        )(x)
        return nn.relu(nn.BatchNorm(use_running_average=True, epsilon=1e-3, name="bn")(x))


class Mixed(nn.Module):
    """Branches side by side, the last of them a pool.

    Attributes:
        branches: the others, in the order of the result's channels.
        pool: "average" or "max", both 3x3; or "reduce", a maximum with stride 2.
        pool_features: of the 1x1 convolution behind the pool, if there is one.
    """

    branches: tuple[Branch, ...]
    pool: str
    pool_features: int = 0

    @nn.compact
    def __call__(self, x: Float[Array, "n h w c"]) -> Float[Array, "n h2 w2 c2"]:
        pooled = _POOLS[self.pool](x)
        if self.pool_features:
            pooled = _apply(Layer("branch_pool", self.pool_features), pooled)
        results = []
        for branch in self.branches:
            y = x
            for step in branch:
                side_by_side = (step,) if isinstance(step, Layer) else step
                y = jnp.concatenate([_apply(layer, y) for layer in side_by_side], -1)
            results.append(y)
        return jnp.concatenate([*results, pooled], -1)


class Inception(nn.Module):
    """Pictures to features of length 2048, the input of the classifier that is left out here."""

    @nn.compact
    def __call__(self, images: Float[AnyArray, "n h w 3"]) -> Float[Array, "n 2048"]:
        """Looks at RGB pictures in [-1, 1] of any size, resized as pytorch-fid does: bilinear, not anti-aliased."""
        x = jnp.asarray(images, jnp.float32)
        x = jax.image.resize(x, (len(x), SIZE, SIZE, 3), "bilinear", antialias=False)
        x = Convolution(32, (3, 3), 2, "VALID", name="Conv2d_1a_3x3")(x)  # [n, 149, 149, 32]
        x = Convolution(32, (3, 3), 1, "VALID", name="Conv2d_2a_3x3")(x)
        x = Convolution(64, (3, 3), 1, "SAME", name="Conv2d_2b_3x3")(x)
        x = _reduce(x)  # [n, 73, 73, 64]
        x = Convolution(80, (1, 1), 1, "VALID", name="Conv2d_3b_1x1")(x)
        x = Convolution(192, (3, 3), 1, "VALID", name="Conv2d_4a_3x3")(x)
        x = _reduce(x)  # [n, 35, 35, 192]
        for name, pool_features in (("b", 32), ("c", 64), ("d", 64)):
            x = Mixed(_A, "average", pool_features, name=f"Mixed_5{name}")(x)
        x = Mixed(_B, "reduce", name="Mixed_6a")(x)  # [n, 17, 17, 768]
        for name, narrow in (("b", 128), ("c", 160), ("d", 160), ("e", 192)):
            x = Mixed(_c(narrow), "average", 192, name=f"Mixed_6{name}")(x)
        x = Mixed(_D, "reduce", name="Mixed_7a")(x)  # [n, 8, 8, 1280]
        for name, pool in (("b", "average"), ("c", "max")):
            x = Mixed(_E, pool, 192, name=f"Mixed_7{name}")(x)
        return x.mean((1, 2))


def _apply(layer: Layer, x: Float[Array, "n h w c"]) -> Float[Array, "n h2 w2 c2"]:
    """Adds a layer to the module that is being called."""
    padding = "VALID" if layer.stride > 1 else "SAME"
    return Convolution(layer.features, layer.kernel, layer.stride, padding, name=layer.name)(x)


def _reduce(x: Float[Array, "n h w c"]) -> Float[Array, "n h2 w2 c"]:
    return nn.max_pool(x, (3, 3), strides=(2, 2))


_POOLS = {
    "average": lambda x: nn.avg_pool(x, (3, 3), padding="SAME", count_include_pad=False),
    "max": lambda x: nn.max_pool(x, (3, 3), padding="SAME"),
    "reduce": _reduce,
}

# The blocks' branches, by the letters that torchvision's classes have.
_A = (
    (Layer("branch1x1", 64),),
    (Layer("branch5x5_1", 48), Layer("branch5x5_2", 64, (5, 5))),
    (Layer("branch3x3dbl_1", 64), Layer("branch3x3dbl_2", 96, (3, 3)), Layer("branch3x3dbl_3", 96, (3, 3))),
)
_B = (
    (Layer("branch3x3", 384, (3, 3), 2),),
    (Layer("branch3x3dbl_1", 64), Layer("branch3x3dbl_2", 96, (3, 3)), Layer("branch3x3dbl_3", 96, (3, 3), 2)),
)


def _c(narrow: int) -> tuple[Branch, ...]:
    return (
        (Layer("branch1x1", 192),),
        (Layer("branch7x7_1", narrow), Layer("branch7x7_2", narrow, ROW), Layer("branch7x7_3", 192, COLUMN)),
        (
            *(Layer("branch7x7dbl_1", narrow), Layer("branch7x7dbl_2", narrow, COLUMN)),
            *(Layer("branch7x7dbl_3", narrow, ROW), Layer("branch7x7dbl_4", narrow, COLUMN)),
            Layer("branch7x7dbl_5", 192, ROW),
        ),
    )


_D = (
    (Layer("branch3x3_1", 192), Layer("branch3x3_2", 320, (3, 3), 2)),
    (
        *(Layer("branch7x7x3_1", 192), Layer("branch7x7x3_2", 192, ROW)),
        *(Layer("branch7x7x3_3", 192, COLUMN), Layer("branch7x7x3_4", 192, (3, 3), 2)),
    ),
)
_E = (
    (Layer("branch1x1", 320),),
    (Layer("branch3x3_1", 384), (Layer("branch3x3_2a", 384, (1, 3)), Layer("branch3x3_2b", 384, (3, 1)))),
    (
        *(Layer("branch3x3dbl_1", 448), Layer("branch3x3dbl_2", 384, (3, 3))),
        (Layer("branch3x3dbl_3a", 384, (1, 3)), Layer("branch3x3dbl_3b", 384, (3, 1))),
    ),
)
