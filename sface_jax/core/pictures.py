"""Pictures as arrays and files: ranges, PNG, and grids."""

from __future__ import annotations

import io

import numpy as np
from jaxtyping import Float, UInt8
from PIL import Image

from sface_jax.core import files
from sface_jax.core.arrays import AnyArray

Pixels = UInt8[np.ndarray, "h w 3"]


def from_uint8(images: UInt8[AnyArray, "*n h w c"]) -> Float[AnyArray, "*n h w c"]:
    """Maps 0..255 to float32 in [-1, 1]: x / 127.5 - 1."""
    return images.astype("float32") / 127.5 - 1.0


def to_uint8(images: Float[AnyArray, "*n h w c"]) -> UInt8[np.ndarray, "*n h w c"]:
    """Maps [-1, 1] to 0..255, rounding half to even and clipping what lies outside."""
    return np.clip(np.rint((np.asarray(images, np.float32) + 1.0) * 127.5), 0, 255).astype(np.uint8)


def encode_png(image: Pixels) -> bytes:
    """Encodes an RGB picture as PNG."""
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, format="PNG")
    return buffer.getvalue()


def decode(content: bytes) -> Pixels:
    """Decodes any format Pillow reads to RGB.

    Raises:
        OSError: the content is no picture, or is cut short.
    """
    with Image.open(io.BytesIO(content)) as image:
        return np.asarray(image.convert("RGB"))


def write_png(path: files.PathLike, image: Pixels) -> None:
    """Writes a PNG file atomically."""
    files.write_bytes(path, encode_png(image))


def grid(images: UInt8[np.ndarray, "r c h w 3"], gap: int = 1) -> UInt8[np.ndarray, "height width 3"]:
    """Lays pictures out in rows and columns on white.

    Args:
        images: rows of pictures; by convention a row is an identity.
        gap: white pixels between neighbours.
    """
    rows, columns, height, width, _ = images.shape
    canvas = np.full((rows * (height + gap) - gap, columns * (width + gap) - gap, 3), 255, np.uint8)
    for r in range(rows):
        for c in range(columns):
            top, left = r * (height + gap), c * (width + gap)
            canvas[top : top + height, left : left + width] = images[r, c]
    return canvas
