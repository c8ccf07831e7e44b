import numpy as np
import pytest

from sface_jax.core.errors import Damaged, UserError
from sface_jax.data import align, landmarks

POINTS = np.round(align.template(112), 2)
ROW = " ".join(f"{value:.2f}" for value in POINTS.ravel())
CELEBA = "lefteye_x lefteye_y righteye_x righteye_y nose_x nose_y leftmouth_x leftmouth_y rightmouth_x rightmouth_y"


def test_a_written_file_reads_back(tmp_path):
    written = {"Ann Lee/0001.jpg": POINTS, "Bo/2.png": POINTS + np.float32(1.5)}
    landmarks.write(tmp_path / "landmarks.tsv", written)
    found = landmarks.read(tmp_path / "landmarks.tsv")
    assert list(found) == list(written)
    for name, points in found.items():
        np.testing.assert_allclose(points, written[name], atol=0.01)
        assert points.dtype == np.float32
    assert [path.name for path in tmp_path.iterdir()] == ["landmarks.tsv"]


@pytest.mark.parametrize(
    "text",
    [
        f"Ann/1.jpg {ROW}\nBo Li/2 b.jpg {ROW}\n",
        f"Ann/1.jpg\t{ROW}\n\nBo Li/2 b.jpg\t{ROW}\n".replace(" ", "\t").replace("Bo\tLi/2\tb", "Bo Li/2 b"),
        f"Ann/1.jpg,{ROW}\nBo Li/2 b.jpg,{ROW}\n".replace(" ", ", ").replace("Bo, Li/2, b", "Bo Li/2 b"),
        f"name,{CELEBA}\nAnn/1.jpg,{ROW}\nBo Li/2 b.jpg,{ROW}\n".replace(" ", ",").replace("Bo,Li/2,b", "Bo Li/2 b"),
        f"2\n{CELEBA}\nAnn/1.jpg   {ROW}\nBo Li/2 b.jpg  {ROW}  \n",
        f"/data/casia/Ann/1.jpg {ROW}\r\n./Bo Li/2 b.jpg {ROW}\r\n",
    ],
    ids=["spaces", "tabs", "commas", "header", "CelebA", "folders"],
)
def test_reads_what_people_have(tmp_path, text):
    (tmp_path / "list.txt").write_text(text)
    found = landmarks.read(tmp_path / "list.txt")
    assert list(found) == ["Ann/1.jpg", "Bo Li/2 b.jpg"]
    for points in found.values():
        np.testing.assert_allclose(points, POINTS, atol=1e-5)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (f"a.jpg {ROW}\nb.jpg 1 2 3\n", "line 2: has 3 fields after the name"),
        (f"a.jpg {ROW}\nb.jpg {ROW} 0.99\n", "line 2: has more than 10 numbers"),
        (f"a.jpg {ROW}\na.jpg {ROW}\n", "line 2: a.jpg has landmarks already"),
        (f"a.jpg {ROW}\nb.jpg {ROW[:-5]}five\n", "line 2: could not convert"),
        (f"a.jpg {ROW[:-5]}nan\n", "line 1: has a coordinate that is not finite"),
        (f"3\na.jpg {ROW}\n", "of 1 pictures, its first line promises 3"),
        ("what is this\n", "line 1: has 2 fields"),
    ],
)
def test_a_wrong_line_is_named(tmp_path, text, reason):
    (tmp_path / "list.txt").write_text(text)
    with pytest.raises(Damaged, match=reason):
        landmarks.read(tmp_path / "list.txt")


def test_a_file_of_no_use_is_refused(tmp_path):
    (tmp_path / "empty").write_text(f"{CELEBA}\n")
    (tmp_path / "binary").write_bytes(bytes(range(256)))
    swapped = " ".join(map(str, POINTS[[1, 0, 2, 4, 3]].ravel()))
    (tmp_path / "swapped").write_text(f"a.jpg {swapped}\nb.jpg {swapped}\nc.jpg {ROW}\n")
    for name, reason in (
        ("missing", "there is no landmarks file"),
        ("empty", "holds no landmarks"),
        ("binary", "is no text"),
        ("swapped", "in 67% of the faces left and right are confused"),
    ):
        with pytest.raises(UserError, match=reason):
            landmarks.read(tmp_path / name)
    with pytest.raises(UserError, match="a tab or a line break"):
        landmarks.write(tmp_path / "out", {"a\tb": POINTS})


def test_pictures_find_theirs_by_full_name_or_by_a_name_of_their_own():
    known = {"Ann/1.jpg": POINTS, "3.jpg": POINTS + 1, "elsewhere.jpg": POINTS}
    labels = np.array([0, 0, 1, 1])
    found, there = landmarks.match(known, ["Ann", "Bo"], labels, ["1.jpg", "2.jpg", "1.jpg", "3.jpg"])
    assert there.tolist() == [True, False, False, True]
    np.testing.assert_array_equal(found[[0, 3]], [POINTS, POINTS + 1])
    assert np.isnan(found[1:3]).all()
    with pytest.raises(UserError, match="2 pictures are called that, such as 'Ann/1.jpg'"):
        landmarks.match({"1.jpg": POINTS}, ["Ann", "Bo"], labels, ["1.jpg", "2.jpg", "1.jpg", "3.jpg"])
    with pytest.raises(UserError, match="names none of the pictures: it has 'x.jpg', the source 'Ann/1.jpg'"):
        landmarks.match({"x.jpg": POINTS}, ["Ann"], labels[:1], ["1.jpg"])
