"""Cuts and resizes pictures."""

from __future__ import annotations

import numpy as np
from jaxtyping import UInt8
from PIL import Image


def square(image: UInt8[np.ndarray, "h w 3"], size: int) -> UInt8[np.ndarray, "s s 3"]:
    """Cuts a picture's central square and resizes that with an antialiasing Lanczos filter."""
    height, width, _ = image.shape
    if (height, width) == (size, size):
        return image
    side = min(height, width)
    left, top = (width - side) / 2, (height - side) / 2
    box = (left, top, left + side, top + side)
    return np.asarray(Image.fromarray(image).resize((size, size), Image.Resampling.LANCZOS, box=box))
