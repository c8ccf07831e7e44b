import io
import zlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from sface_jax.core import pictures
from sface_jax.core.errors import Damaged

IMAGE = np.kron(np.random.default_rng(0).integers(0, 256, (5, 6, 3)), np.ones((4, 4, 1))).astype(np.uint8)  # 20 x 24


def saved(image, kind, **options):
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def with_exif(orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    return saved(Image.fromarray(IMAGE), "JPEG", exif=exif, quality=100, subsampling=0)


@pytest.mark.parametrize("quality", [60, 95])
@pytest.mark.parametrize("subsampling", [0, 1, 2])
def test_jpeg_is_decoded_as_pillow_does(quality, subsampling):
    content = saved(Image.fromarray(IMAGE), "JPEG", quality=quality, subsampling=subsampling)
    expected = np.asarray(Image.open(io.BytesIO(content)))
    np.testing.assert_array_equal(pictures.decode(content), expected)
    into = np.zeros((2, 20, 24, 3), np.uint8)
    pictures.decode_into(content, into[1])
    np.testing.assert_array_equal(into, [np.zeros_like(expected), expected])


def test_encodings_that_are_written():
    np.testing.assert_array_equal(pictures.decode(pictures.encode_png(IMAGE)), IMAGE)
    jpeg = pictures.encode_jpeg(IMAGE)
    assert np.abs(pictures.decode(jpeg).astype(int) - IMAGE).mean() < 3
    for content in (jpeg, pictures.encode_png(IMAGE)):
        assert pictures.kept_by_every_reader(content)
    assert [pictures.suffix(content) for content in (jpeg, pictures.encode_png(IMAGE))] == [".jpg", ".png"]


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_turns_pictures_upright_on_every_way(orientation):
    content = with_exif(orientation)
    upright = pictures.decode(content)
    turned = {1: IMAGE, 2: IMAGE[:, ::-1], 3: IMAGE[::-1, ::-1], 4: IMAGE[::-1], 5: IMAGE.swapaxes(0, 1),
              6: np.rot90(IMAGE, -1), 7: IMAGE[::-1, ::-1].swapaxes(0, 1), 8: np.rot90(IMAGE)}[orientation]  # fmt: skip
    assert upright.shape == turned.shape and np.abs(upright.astype(int) - turned).mean() < 3
    into = np.empty_like(upright)
    pictures.decode_into(content, into)
    np.testing.assert_array_equal(into, upright)
    assert pictures.kept_by_every_reader(content) == (orientation == 1)


def test_what_readers_disagree_on_is_not_kept():
    image = Image.fromarray(IMAGE)
    for mode, kind in (("L", "JPEG"), ("CMYK", "JPEG"), ("L", "PNG"), ("P", "PNG"), ("RGBA", "PNG"), ("RGB", "BMP")):
        content = saved(image.convert(mode), kind)
        assert pictures.decode(content).shape == IMAGE.shape and not pictures.kept_by_every_reader(content)
    sixteen = saved(Image.fromarray(np.full((8, 8), 200 * 256 + 9, np.uint16)), "PNG")
    assert (pictures.decode(sixteen) == 200).all() and not pictures.kept_by_every_reader(sixteen)
    assert not pictures.kept_by_every_reader(saved(image, "PNG", transparency=(1, 2, 3)))


def test_a_picture_that_claims_to_be_huge_is_refused_before_memory_is_taken():
    def chunk(kind, content):
        return len(content).to_bytes(4) + kind + content + zlib.crc32(kind + content).to_bytes(4)

    header = (60000).to_bytes(4) * 2 + bytes([8, 2, 0, 0, 0])
    png = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")
    jpeg = bytearray(pictures.encode_jpeg(IMAGE))
    size = jpeg.index(b"\xff\xc0") + 5
    jpeg[size : size + 4] = (60000).to_bytes(2) * 2
    for content in (png, bytes(jpeg)):
        with pytest.raises(Damaged, match="60000x60000|3600000000 pixels"):
            pictures.decode(content)


def test_a_picture_of_another_size_is_told():
    content = pictures.encode_jpeg(IMAGE)
    for shape in ((24, 20, 3), (8, 8, 3), (64, 64, 3)):
        with pytest.raises(Damaged, match=f"24x20 pixels, not {shape[1]}x{shape[0]}"):
            pictures.decode_into(content, np.empty(shape, np.uint8))


@pytest.mark.parametrize("content", [b"", b"GIF89a", b"%!PS-Adobe", b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"RIFF"])
def test_what_is_no_picture_is_told(content):
    with pytest.raises(Damaged, match="cannot be read as a picture"):
        pictures.decode(content)


@given(st.data())
def test_a_damaged_jpeg_is_told_or_read_never_anything_else(data):
    content = bytearray(pictures.encode_jpeg(IMAGE))
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    content = bytes(content[: data.draw(st.integers(0, len(content)))])
    try:
        assert pictures.decode(content).dtype == np.uint8
    except Damaged as error:
        assert "\n" not in str(error)


def test_a_jpeg_cut_short_is_told_wherever_it_is_cut():
    content = pictures.encode_jpeg(IMAGE)
    for length in range(0, len(content) - 2, 7):
        with pytest.raises(Damaged):
            pictures.decode(content[:length])
