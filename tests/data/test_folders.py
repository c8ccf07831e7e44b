from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from sface_jax.core import pictures
from sface_jax.core.errors import UserError
from sface_jax.data import folders, resize
from sface_jax.data.sources import Chosen, Source

ORL = Path(__file__).parents[2] / ".." / "shared" / "data" / "orl"


def read_picture(path: Path, size: int) -> np.ndarray:
    return resize.square(pictures.decode(path.read_bytes()), size)


def test_lists_in_natural_order_and_passes_over_other_files(face_folder):
    root = face_folder(identities=11, pictures_each=10, suffix="pgm", mode="L")
    (root / "s1" / "Thumbs.db").write_text("no picture")
    (root / "s1" / ".hidden.png").write_text("no picture")
    (root / "empty").mkdir()
    (root / "beside.pgm").write_text("no identity")
    found = folders.scan(root)
    assert list(found) == [f"s{i}" for i in range(1, 12)]
    assert [path.name for path in found["s1"]] == [f"{i}.pgm" for i in range(1, 11)]
    assert [path.name for path in folders.passed_over(root)] == ["beside.pgm", "Thumbs.db"]


@pytest.mark.parametrize(
    ("suffix", "mode"),
    [(suffix, mode) for suffix in ("jpg", "JPEG", "png", "pgm", "bmp", "webp") for mode in ("L", "RGB")]
    + [(suffix, mode) for suffix in ("png", "bmp", "webp") for mode in ("RGBA", "P")],
)
def test_reads_every_format_as_rgb(tmp_path, suffix, mode):
    Image.new("RGB", (20, 30), (200, 200, 200)).convert(mode, palette=Image.Palette.ADAPTIVE).save(
        tmp_path / f"x.{suffix}"
    )
    image = read_picture(tmp_path / f"x.{suffix}", 8)
    assert image.shape == (8, 8, 3) and image.dtype == np.uint8
    assert np.abs(image.astype(int) - 200).max() <= 3


def test_sixteen_bit_grey_keeps_its_upper_bits(tmp_path):
    Image.fromarray(np.full((8, 8), 200 * 256 + 9, np.uint16)).save(tmp_path / "x.png")
    assert (read_picture(tmp_path / "x.png", 8) == 200).all()


def test_cuts_the_central_square(tmp_path):
    tall = np.zeros((12, 8, 3), np.uint8)
    tall[2:10] = np.random.default_rng(0).integers(0, 256, (8, 8, 3))
    Image.fromarray(tall).save(tmp_path / "x.png")
    np.testing.assert_array_equal(read_picture(tmp_path / "x.png", 8), tall[2:10])


def test_shrinking_averages_a_fine_pattern(tmp_path):
    Image.fromarray(((np.indices((64, 64)).sum(0) % 2) * 255).astype(np.uint8)).save(tmp_path / "x.png")
    image = read_picture(tmp_path / "x.png", 8)
    assert np.abs(image[2:-2, 2:-2].astype(int) - 127).max() <= 3


def test_a_source_gives_out_the_files_as_they_are(face_folder):
    root = face_folder(identities=3, pictures_each=2, suffix="jpg")
    source = folders.FolderSource(root)
    assert isinstance(source, Source)
    assert source.class_names == ["s1", "s2", "s3"] and source.labels.tolist() == [0, 0, 1, 1, 2, 2]
    assert source.names == ["1.jpg", "2.jpg"] * 3
    assert source.read(3) == (root / "s2" / "2.jpg").read_bytes()
    (root / "s2" / "2.jpg").unlink()
    with pytest.raises(OSError):
        source.read(3)


def test_chosen_identities_are_a_source_too(face_folder):
    whole = folders.FolderSource(face_folder(identities=4, pictures_each=2))
    part = Chosen(whole, np.array([1, 3]))
    assert part.class_names == ["s2", "s4"] and part.labels.tolist() == [0, 0, 1, 1]
    assert [part.read(i) for i in range(4)] == [whole.read(i) for i in (2, 3, 6, 7)]


def test_missing_and_empty_folders(tmp_path):
    with pytest.raises(UserError, match="there is no folder"):
        folders.scan(tmp_path / "nowhere")
    (tmp_path / "empty" / "s1").mkdir(parents=True)
    with pytest.raises(UserError, match="holds no pictures"):
        folders.scan(tmp_path / "empty")


@pytest.mark.skipif(not ORL.exists(), reason="ORL is not at ../shared/data/orl")
def test_reads_orl():
    orl = folders.FolderSource(ORL)
    assert len(orl.class_names) == 40 and orl.class_names[:3] == ["s1", "s2", "s3"] and len(orl.names) == 400
    image = read_picture(ORL / "s2" / orl.names[10], 64)
    assert orl.names[10] == "1.pgm" and image.shape == (64, 64, 3) and (image[..., 0] == image[..., 2]).all()
