"""What picture files carry besides pixels: EXIF, XMP, IPTC, comments. Names, places and devices may be among it."""

from __future__ import annotations

import struct
from collections.abc import Iterator

_PNG = b"\x89PNG\r\n\x1a\n"
_PNG_KEPT = frozenset(
    {b"IHDR", b"PLTE", b"tRNS", b"IDAT", b"IEND", b"gAMA", b"cHRM", b"sRGB", b"iCCP", b"sBIT", b"pHYs"}
)
_SOS, _COMMENT = 0xDA, 0xFE
# APP0 (JFIF), APP2 (colour profile) and APP14 (Adobe's colour transform) say how pixels are to be read.
_APP, _APP_KEPT = range(0xE0, 0xF0), frozenset({0xE0, 0xE2, 0xEE})


def carried(content: bytes) -> bool:
    """Whether a JPEG or PNG carries anything that its pixels do not need."""
    return any(not needed for needed, _ in _parts(content))


def stripped(content: bytes) -> bytes:
    """The same JPEG or PNG without what its pixels do not need; not a pixel changes.

    What EXIF says of how the picture was turned goes too: meant for pictures that are upright as they are.
    """
    parts = list(_parts(content))
    return content if all(needed for needed, _ in parts) else b"".join(part for needed, part in parts if needed)


def _parts(content: bytes) -> Iterator[tuple[bool, bytes]]:
    """The content in pieces, each with whether it is needed; in one piece where it is neither JPEG nor PNG."""
    if content[:2] == b"\xff\xd8":
        yield from _jpeg(content)
    elif content[:8] == _PNG:
        yield from _png(content)
    else:
        yield True, content


def _jpeg(content: bytes) -> Iterator[tuple[bool, bytes]]:
    yield True, content[:2]
    position = 2
    while len(content) >= position + 4 and content[position] == 0xFF and content[position + 1] != _SOS:
        marker, length = content[position + 1], struct.unpack_from(">H", content, position + 2)[0]
        end = position + 2 + length
        needed = not (marker == _COMMENT or (marker in _APP and marker not in _APP_KEPT))
        yield needed, content[position:end]
        position = end
    yield True, content[position:]


def _png(content: bytes) -> Iterator[tuple[bool, bytes]]:
    yield True, content[:8]
    position = 8
    while len(content) >= position + 12:
        end = position + 12 + struct.unpack_from(">I", content, position)[0]
        yield content[position + 4 : position + 8] in _PNG_KEPT, content[position:end]
        position = end
    yield True, content[position:]
