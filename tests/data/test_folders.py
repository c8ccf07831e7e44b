from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from sface_jax.core import pictures
from sface_jax.core.errors import UserError
from sface_jax.data import folders

ORL = Path(__file__).parents[2] / ".." / "shared" / "data" / "orl"


def source(root, tmp_path, **options):
    return folders.FolderSource(root, image_size=8, log=tmp_path / "skipped.txt", **options)


def test_lists_in_natural_order_and_passes_over_other_files(face_folder):
    root = face_folder(identities=11, pictures_each=10, suffix="pgm", mode="L")
    (root / "s1" / "Thumbs.db").write_text("no picture")
    (root / "s1" / ".hidden.png").write_text("no picture")
    (root / "empty").mkdir()
    found = folders.scan(root)
    assert list(found) == [f"s{i}" for i in range(1, 12)]
    assert [path.name for path in found["s1"]] == [f"{i}.pgm" for i in range(1, 11)]


@pytest.mark.parametrize(
    ("suffix", "mode"),
    [(suffix, mode) for suffix in ("jpg", "JPEG", "png", "pgm", "bmp", "webp") for mode in ("L", "RGB")]
    + [(suffix, mode) for suffix in ("png", "bmp", "webp") for mode in ("RGBA", "P")],
)
def test_reads_every_format_as_rgb(tmp_path, suffix, mode):
    Image.new("RGB", (20, 30), (200, 200, 200)).convert(mode, palette=Image.Palette.ADAPTIVE).save(
        tmp_path / f"x.{suffix}"
    )
    image = folders.read_picture(tmp_path / f"x.{suffix}", 8)
    assert image.shape == (8, 8, 3) and image.dtype == np.uint8
    assert np.abs(image.astype(int) - 200).max() <= 3


def test_sixteen_bit_grey_keeps_its_upper_bits(tmp_path):
    Image.fromarray(np.full((8, 8), 200 * 256 + 9, np.uint16)).save(tmp_path / "x.png")
    assert (folders.read_picture(tmp_path / "x.png", 8) == 200).all()


def test_cuts_the_central_square(tmp_path):
    tall = np.zeros((12, 8, 3), np.uint8)
    tall[2:10] = np.random.default_rng(0).integers(0, 256, (8, 8, 3))
    Image.fromarray(tall).save(tmp_path / "x.png")
    np.testing.assert_array_equal(folders.read_picture(tmp_path / "x.png", 8), tall[2:10])


def test_shrinking_averages_a_fine_pattern(tmp_path):
    Image.fromarray(((np.indices((64, 64)).sum(0) % 2) * 255).astype(np.uint8)).save(tmp_path / "x.png")
    image = folders.read_picture(tmp_path / "x.png", 8)
    assert np.abs(image[2:-2, 2:-2].astype(int) - 127).max() <= 3


def test_a_truncated_jpeg_is_counted_named_and_skipped(face_folder, tmp_path):
    root = face_folder(identities=3, pictures_each=4, suffix="jpg", size=(40, 40))
    broken = root / "s2" / "3.jpg"
    broken.write_bytes(broken.read_bytes()[:-200])
    (root / "s3" / "2.jpg").write_bytes(b"")
    with pytest.raises(UserError, match=r"2 of 12 pictures under .* the first is s2/3.jpg .*max_unreadable from 0.01"):
        source(root, tmp_path)
    kept = source(root, tmp_path, max_unreadable=0.2)
    assert kept.skipped == 2 and kept.count("s2") == 3
    assert [line.split("\t")[0] for line in (tmp_path / "skipped.txt").read_text().splitlines()] == [
        "s2/3.jpg",
        "s3/2.jpg",
    ]
    given = list(kept.pictures(["s3", "s1"]))
    names = [f"s3/{n}.jpg" for n in "134"] + [f"s1/{n}.jpg" for n in "1234"]
    assert [f"{p.identity}/{p.name}" for p in given] == names
    np.testing.assert_array_equal(pictures.decode(given[0].content), folders.read_picture(root / "s3" / "1.jpg", 8))


def test_an_identity_with_one_picture_is_refused_or_dropped(face_folder, tmp_path):
    root = face_folder(identities=3, pictures_each=2)
    (root / "s2" / "1.png").unlink()
    with pytest.raises(
        UserError, match=r"1 of 3 identities .* fewer than 2 pictures \(the first: s2\).*drop_small_ident"
    ):
        source(root, tmp_path)
    assert source(root, tmp_path, drop_small_identities=True).identities == ["s1", "s3"]
    assert source(root, tmp_path, min_pictures=1).identities == ["s1", "s2", "s3"]


def test_a_subset_of_identities_is_drawn_by_the_seed(face_folder, tmp_path):
    root = face_folder(identities=9, pictures_each=2)
    chosen = [source(root, tmp_path, max_identities=4, seed=seed).identities for seed in (0, 0, 1, 2, 3)]
    assert all(len(names) == 4 for names in chosen) and chosen[0] == chosen[1]
    assert len({tuple(names) for names in chosen}) > 1


def test_missing_and_empty_folders(tmp_path):
    with pytest.raises(UserError, match="there is no folder"):
        folders.scan(tmp_path / "nowhere")
    (tmp_path / "empty" / "s1").mkdir(parents=True)
    with pytest.raises(UserError, match="holds no pictures"):
        folders.scan(tmp_path / "empty")


@pytest.mark.skipif(not ORL.exists(), reason="ORL is not at ../shared/data/orl")
def test_reads_orl(tmp_path):
    orl = folders.FolderSource(ORL, image_size=64, log=tmp_path / "skipped.txt")
    assert len(orl.identities) == 40 and orl.identities[:3] == ["s1", "s2", "s3"] and orl.skipped == 0
    first = next(iter(orl.pictures(["s2"])))
    image = pictures.decode(first.content)
    assert first.name == "1.pgm" and image.shape == (64, 64, 3) and (image[..., 0] == image[..., 2]).all()
