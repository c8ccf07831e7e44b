"""Cuts and resizes pictures."""

from __future__ import annotations

import math

import numpy as np
from jaxtyping import UInt8
from PIL import Image


def square(image: UInt8[np.ndarray, "h w 3"], size: int, crop: float = 1.0) -> UInt8[np.ndarray, "s s 3"]:
    """Cuts a picture's central square and resizes that with an antialiasing Lanczos filter.

    Args:
        image: the picture.
        size: side of the result.
        crop: the share of the central square's side to keep, about the same centre; above 1 the picture is first
            surrounded by its edge pixels.
    """
    height, width, _ = image.shape
    side = crop * min(height, width)
    if (height, width) == (size, size) and crop == 1:
        return image
    margin = max(math.ceil((side - min(height, width)) / 2), 0)
    if margin:
        image = np.pad(image, [(margin, margin), (margin, margin), (0, 0)], mode="edge")
        height, width = height + 2 * margin, width + 2 * margin
    left, top = (width - side) / 2, (height - side) / 2
    box = (left, top, left + side, top + side)
    return np.asarray(Image.fromarray(image).resize((size, size), Image.Resampling.LANCZOS, box=box))
