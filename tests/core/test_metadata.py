import io

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, PngImagePlugin

from sface_jax.core import metadata, pictures

IMAGE = Image.fromarray(np.random.default_rng(0).integers(0, 256, (9, 8, 3)).astype(np.uint8))


def saved(kind, **options):
    buffer = io.BytesIO()
    IMAGE.save(buffer, kind, **options)
    return buffer.getvalue()


def exif():
    found = Image.Exif()
    found[0x010E] = "Jane Doe"
    return found


def text():
    found = PngImagePlugin.PngInfo()
    found.add_text("Author", "Jane Doe")
    found.add_itxt("Comment", "Jane Doe", zip=True)
    return found


@pytest.mark.parametrize(
    "content",
    [
        saved("JPEG", exif=exif()),
        saved("JPEG", comment="Jane Doe"),
        saved("JPEG", xmp=b"<x>Jane Doe</x>", exif=exif(), comment="Jane Doe", progressive=True),
        saved("PNG", pnginfo=text()),
        saved("PNG", exif=exif()),
    ],
)
def test_what_is_no_pixel_goes_and_no_pixel_changes(content):
    assert metadata.carried(content)
    stripped = metadata.stripped(content)
    assert b"Jane" not in stripped and not metadata.carried(stripped) and len(stripped) < len(content)
    np.testing.assert_array_equal(pictures.decode(stripped), pictures.decode(content))


@pytest.mark.parametrize(
    "content", [saved("JPEG"), saved("PNG"), saved("JPEG", icc_profile=b"profile"), saved("BMP"), b"", b"\xff\xd8\xff"]
)
def test_what_carries_nothing_stays_as_it_is(content):
    assert not metadata.carried(content) and metadata.stripped(content) == content


@given(st.sampled_from([saved("JPEG", exif=exif()), saved("PNG", pnginfo=text())]), st.data())
def test_damaged_files_do_no_harm(content, data):
    content = bytearray(content[: data.draw(st.integers(0, len(content)))])
    for _ in range(data.draw(st.integers(0, 3)) if content else 0):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    assert len(metadata.stripped(bytes(content))) <= len(content)
