"""Pictures written into the page itself."""

from __future__ import annotations

import base64
import dataclasses
import io

from etils import epath
from PIL import Image

LONGEST = 1400  # pixels: twice the width of the column they are shown in


@dataclasses.dataclass(frozen=True)
class Picture:
    """A picture as a data URI with its size in pixels."""

    uri: str
    width: int
    height: int


def picture(path: epath.Path, limit: int = 400_000) -> Picture | None:
    """Reads a picture file into a data URI.

    A file above `limit` bytes is scaled to at most `LONGEST` pixels a side and becomes a JPEG, of lower quality until
    it fits.

    Returns:
        None if the file is no readable picture: a report does without it.
    """
    content, kind = path.read_bytes(), "png"
    try:
        with Image.open(io.BytesIO(content)) as opened:
            image = opened.convert("RGB")
            kind = (opened.format or kind).lower()
    except OSError:
        return None
    if len(content) > limit:
        image.thumbnail((LONGEST, LONGEST))
        kind = "jpeg"
        for quality in (92, 80, 60, 40):
            buffer = io.BytesIO()
            image.save(buffer, format="JPEG", quality=quality)
            content = buffer.getvalue()
            if len(content) <= limit:
                break
    return Picture(f"data:image/{kind};base64,{base64.b64encode(content).decode()}", image.width, image.height)
