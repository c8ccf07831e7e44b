"""Pictures as arrays and files: ranges, decoding and encoding, and grids."""

from __future__ import annotations

import io
import struct

import numpy as np
import simplejpeg
from jaxtyping import Float, UInt8
from PIL import Image, ImageOps, UnidentifiedImageError

from sface_jax.core import files
from sface_jax.core.arrays import AnyArray
from sface_jax.core.errors import Damaged

Pixels = UInt8[np.ndarray, "h w 3"]

FORMATS = ("JPEG", "PNG", "PPM", "BMP", "WEBP")
"""What is read, by Pillow's names. Its other readers are many, old, and some of them start programs."""

MOST_PIXELS = 2**26
"""A picture that claims to be larger is refused before memory is taken for it."""

_JPEG, _PNG = b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n"
_ORIENTATION = 0x0112  # EXIF's tag


def from_uint8(images: UInt8[AnyArray, "*n h w c"]) -> Float[AnyArray, "*n h w c"]:
    """Maps 0..255 to float32 in [-1, 1]: x / 127.5 - 1."""
    return images.astype("float32") / 127.5 - 1.0


def to_uint8(images: Float[AnyArray, "*n h w c"]) -> UInt8[np.ndarray, "*n h w c"]:
    """Maps [-1, 1] to 0..255, rounding half to even and clipping what lies outside."""
    return np.clip(np.rint((np.asarray(images, np.float32) + 1.0) * 127.5), 0, 255).astype(np.uint8)


def encode_png(image: Pixels, level: int = 6) -> bytes:
    """Encodes an RGB picture as PNG; level 1 is 4 times as fast as 6, and 8 % larger on faces."""
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, format="PNG", compress_level=level)
    return buffer.getvalue()


def encode_jpeg(image: Pixels, quality: int = 95) -> bytes:
    """Encodes an RGB picture as JPEG, with colour at full resolution."""
    return simplejpeg.encode_jpeg(np.ascontiguousarray(image), quality, "RGB", "444")


def decode(content: bytes) -> Pixels:
    """Decodes a picture of one of `FORMATS` to RGB, upright where EXIF says how it was turned.

    Transparency is dropped; of 16 bits the upper 8 are kept.

    Raises:
        Damaged: the content is no picture of these formats, is cut short or altered, or is larger than `MOST_PIXELS`.
    """
    if _plain_jpeg(content):
        return _decode_jpeg(content)
    try:
        with Image.open(io.BytesIO(content), formats=FORMATS) as image:
            _refuse_giants(*image.size)
            return np.asarray(_to_rgb(ImageOps.exif_transpose(image)))
    except Damaged:
        raise
    except Exception as error:  # what Pillow's readers raise on damaged content may be anything
        raise Damaged(f"cannot be read as a picture ({_one_line(error)})") from error


def decode_into(content: bytes, image: Pixels) -> None:
    """Decodes a picture into an array of its size, which must be contiguous: `decode` without a copy.

    Raises:
        Damaged: see `decode`; or the picture is of another size.
    """
    if is_jpeg(content) and not _turned(content):
        try:
            decoded = simplejpeg.decode_jpeg(content, "RGB", buffer=image)
        except ValueError:
            decoded = None  # not RGB, or of another size, or damaged: `decode` tells
        if decoded is not None and decoded.shape == image.shape:
            return
    decoded = decode(content)
    if decoded.shape != image.shape:
        raise Damaged(f"is a picture of {decoded.shape[1]}x{decoded.shape[0]} pixels, not {len(image[0])}x{len(image)}")
    image[:] = decoded


def kept_by_every_reader(content: bytes) -> bool:
    """Whether content that `decode` reads is a JPEG or PNG which any reader takes for the same 8-bit RGB pixels.

    Not so: grey pictures and palettes, 16 bits, transparency, CMYK, pictures that EXIF turns.
    """
    if content[:8] == _PNG:
        depth, colour = content[24:26]
        return (depth, colour) == (8, 2) and b"tRNS" not in content[:4096] and b"eXIf" not in content
    return _plain_jpeg(content) and simplejpeg.decode_jpeg_header(content)[2] == "YCbCr"


def is_jpeg(content: bytes) -> bool:
    """Whether content begins as a JPEG does."""
    return content[:3] == _JPEG


def suffix(content: bytes) -> str:
    """The suffix of a file with this content: ".jpg", ".png", or what else Pillow finds in it.

    Raises:
        Damaged: the content is no picture of `FORMATS`.
    """
    if is_jpeg(content) or content[:8] == _PNG:
        return ".jpg" if is_jpeg(content) else ".png"
    try:
        with Image.open(io.BytesIO(content), formats=FORMATS) as image:
            return f".{image.format.lower()}"
    except Exception as error:
        raise Damaged(f"cannot be read as a picture ({_one_line(error)})") from error


def _plain_jpeg(content: bytes) -> bool:
    """Whether the content is a JPEG of one or three channels that EXIF does not turn."""
    if not is_jpeg(content):
        return False
    try:
        height, width, colours, _ = simplejpeg.decode_jpeg_header(content)
    except ValueError:  # damaged, or with chroma sampled in a way that only Pillow knows
        return False
    _refuse_giants(width, height)
    return colours in ("YCbCr", "RGB", "Gray") and not _turned(content)


def _turned(content: bytes) -> bool:
    """Whether EXIF asks for a JPEG to be turned or mirrored."""
    position = 2
    while content[position : position + 1] == b"\xff" and len(content) >= position + 4:
        marker, length = content[position + 1], struct.unpack_from(">H", content, position + 2)[0]
        if marker == 0xE1 and content[position + 4 : position + 10] == b"Exif\0\0":
            exif = Image.Exif()
            try:
                exif.load(content[position + 4 : position + 2 + length])
                return exif.get(_ORIENTATION, 1) in range(2, 9)
            except Exception:  # EXIF that cannot be read asks for nothing
                return False
        if not (0xE0 <= marker <= 0xEF or marker == 0xFE) or length < 2:  # EXIF lies among comments and the like
            return False
        position += 2 + length
    return False


def _decode_jpeg(content: bytes) -> Pixels:
    try:
        return simplejpeg.decode_jpeg(content, "RGB")
    except ValueError as error:
        raise Damaged(f"cannot be read as a picture ({_one_line(error)})") from error


def _refuse_giants(width: int, height: int) -> None:
    if width * height > MOST_PIXELS:
        raise Damaged(f"claims to be a picture of {width}x{height} pixels, more than {MOST_PIXELS:,}")


def _to_rgb(image: Image.Image) -> Image.Image:
    """Keeps the upper 8 of 16 bits, which `convert` would clip."""
    if image.mode.startswith("I"):
        image = Image.fromarray((np.asarray(image).astype(np.int64) >> 8).clip(0, 255).astype(np.uint8))
    return image.convert("RGB")


def _one_line(error: Exception) -> str:
    if isinstance(error, UnidentifiedImageError):
        return f"it is none of {', '.join(FORMATS)}"
    return " ".join(str(error).split()) or type(error).__name__


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
