"""The arrays of pytorch-fid's Inception: names and shapes as PyTorch lists them, and values made of a seed."""

from __future__ import annotations

import math

import numpy as np

# Module: its convolutions as name, output and input channels, height and width of the kernel.
_CONVOLUTIONS = """
-:
  Conv2d_1a_3x3 32x3x3x3  Conv2d_2a_3x3 32x32x3x3  Conv2d_2b_3x3 64x32x3x3  Conv2d_3b_1x1 80x64x1x1
  Conv2d_4a_3x3 192x80x3x3
Mixed_5b:
  branch1x1 64x192x1x1  branch3x3dbl_1 64x192x1x1  branch3x3dbl_2 96x64x3x3  branch3x3dbl_3 96x96x3x3
  branch5x5_1 48x192x1x1  branch5x5_2 64x48x5x5  branch_pool 32x192x1x1
Mixed_5c:
  branch1x1 64x256x1x1  branch3x3dbl_1 64x256x1x1  branch3x3dbl_2 96x64x3x3  branch3x3dbl_3 96x96x3x3
  branch5x5_1 48x256x1x1  branch5x5_2 64x48x5x5  branch_pool 64x256x1x1
Mixed_5d:
  branch1x1 64x288x1x1  branch3x3dbl_1 64x288x1x1  branch3x3dbl_2 96x64x3x3  branch3x3dbl_3 96x96x3x3
  branch5x5_1 48x288x1x1  branch5x5_2 64x48x5x5  branch_pool 64x288x1x1
Mixed_6a:
  branch3x3 384x288x3x3  branch3x3dbl_1 64x288x1x1  branch3x3dbl_2 96x64x3x3  branch3x3dbl_3 96x96x3x3
Mixed_6b:
  branch1x1 192x768x1x1  branch7x7_1 128x768x1x1  branch7x7_2 128x128x1x7  branch7x7_3 192x128x7x1
  branch7x7dbl_1 128x768x1x1  branch7x7dbl_2 128x128x7x1  branch7x7dbl_3 128x128x1x7  branch7x7dbl_4 128x128x7x1
  branch7x7dbl_5 192x128x1x7  branch_pool 192x768x1x1
Mixed_6c:
  branch1x1 192x768x1x1  branch7x7_1 160x768x1x1  branch7x7_2 160x160x1x7  branch7x7_3 192x160x7x1
  branch7x7dbl_1 160x768x1x1  branch7x7dbl_2 160x160x7x1  branch7x7dbl_3 160x160x1x7  branch7x7dbl_4 160x160x7x1
  branch7x7dbl_5 192x160x1x7  branch_pool 192x768x1x1
Mixed_6d:
  branch1x1 192x768x1x1  branch7x7_1 160x768x1x1  branch7x7_2 160x160x1x7  branch7x7_3 192x160x7x1
  branch7x7dbl_1 160x768x1x1  branch7x7dbl_2 160x160x7x1  branch7x7dbl_3 160x160x1x7  branch7x7dbl_4 160x160x7x1
  branch7x7dbl_5 192x160x1x7  branch_pool 192x768x1x1
Mixed_6e:
  branch1x1 192x768x1x1  branch7x7_1 192x768x1x1  branch7x7_2 192x192x1x7  branch7x7_3 192x192x7x1
  branch7x7dbl_1 192x768x1x1  branch7x7dbl_2 192x192x7x1  branch7x7dbl_3 192x192x1x7  branch7x7dbl_4 192x192x7x1
  branch7x7dbl_5 192x192x1x7  branch_pool 192x768x1x1
Mixed_7a:
  branch3x3_1 192x768x1x1  branch3x3_2 320x192x3x3  branch7x7x3_1 192x768x1x1  branch7x7x3_2 192x192x1x7
  branch7x7x3_3 192x192x7x1  branch7x7x3_4 192x192x3x3
Mixed_7b:
  branch1x1 320x1280x1x1  branch3x3_1 384x1280x1x1  branch3x3_2a 384x384x1x3  branch3x3_2b 384x384x3x1
  branch3x3dbl_1 448x1280x1x1  branch3x3dbl_2 384x448x3x3  branch3x3dbl_3a 384x384x1x3  branch3x3dbl_3b 384x384x3x1
  branch_pool 192x1280x1x1
Mixed_7c:
  branch1x1 320x2048x1x1  branch3x3_1 384x2048x1x1  branch3x3_2a 384x384x1x3  branch3x3_2b 384x384x3x1
  branch3x3dbl_1 448x2048x1x1  branch3x3dbl_2 384x448x3x3  branch3x3dbl_3a 384x384x1x3  branch3x3dbl_3b 384x384x3x1
  branch_pool 192x2048x1x1
"""


def shapes() -> dict[str, tuple[int, ...]]:
    """Name -> shape of every array of the state dict, the classifier among them."""
    found: dict[str, tuple[int, ...]] = {"fc.weight": (1008, 2048), "fc.bias": (1008,)}
    prefix, words = "", iter(_CONVOLUTIONS.split())
    for word in words:
        if word.endswith(":"):
            prefix = "" if word == "-:" else f"{word[:-1]}."
            continue
        shape = tuple(map(int, next(words).split("x")))
        found[f"{prefix}{word}.conv.weight"] = shape
        for leaf in ("weight", "bias", "running_mean", "running_var"):
            found[f"{prefix}{word}.bn.{leaf}"] = shape[:1]
        found[f"{prefix}{word}.bn.num_batches_tracked"] = ()
    return found


def state_dict() -> dict[str, np.ndarray]:
    """Values that keep the activations' size from layer to layer, drawn in the order of the names."""
    rng = np.random.default_rng(0)
    return {name: _values(rng, name, shape) for name, shape in sorted(shapes().items())}


def _values(rng: np.random.Generator, name: str, shape: tuple[int, ...]) -> np.ndarray:
    if not shape:
        return np.array(0)
    u = rng.random(shape, np.float32)
    if name.endswith("running_var"):
        return 0.5 + 1.5 * u
    if name.endswith("bn.weight"):
        return 0.7 + 0.7 * u
    if len(shape) == 1:
        return 0.6 * u - 0.3
    return (2 * u - 1) * np.float32(math.sqrt(6 / math.prod(shape[1:])))


def pictures() -> np.ndarray:
    """Two pictures of 40 x 48 pixels in [-1, 1], in stripes of different widths."""
    y, x, colour = np.meshgrid(np.arange(40), np.arange(48), np.arange(3), indexing="ij")
    return np.stack([np.sin(0.3 * x + 0.1 * y + colour), np.sin(0.9 * y - 0.2 * x * colour)]).astype(np.float32)
