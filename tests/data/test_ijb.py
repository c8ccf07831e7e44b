"""Sets of templates as InsightFace distributes them."""

import hashlib

import numpy as np
import pytest

from sface_jax.core import pictures
from sface_jax.core.errors import Damaged, UserError
from sface_jax.data import align, ijb, resize
from tests.data import template_set

SUBJECTS, PICTURES, SIZE = 4, 12, 40
MEDIA, PAIRS, FACES = (f"tiny_{name}.txt" for name in ("face_tid_mid", "template_pair_label", "name_5pts_score"))
GALLERY, PROBES = "tiny_1N_gallery_G1.csv", "tiny_1N_probe_mixed.csv"


@pytest.fixture
def images():
    return np.random.default_rng(0).integers(0, 256, (SUBJECTS, PICTURES, SIZE, SIZE, 3), np.uint8)


@pytest.fixture
def folder(tmp_path, images):
    return template_set.write(tmp_path / "set", images)


def test_reads_what_the_lists_say(folder):
    read = ijb.read(folder)
    meta = folder / "meta"
    lines = [line.split() for line in (meta / MEDIA).read_text().splitlines()]
    numbers = sorted({int(number) for _, number, _ in lines})
    assert list(read.names) == [name for name, _, _ in lines]
    assert [numbers[place] for place in read.template] == [int(number) for _, number, _ in lines]
    assert read.media.tolist() == [int(medium) for *_, medium in lines]
    pairs = [tuple(map(int, line.split())) for line in (meta / PAIRS).read_text().splitlines()]
    assert [(numbers[a], numbers[b], s) for a, b, s in zip(read.first, read.second, read.same, strict=True)] == pairs
    assert read.first.dtype == read.second.dtype == np.int32
    np.testing.assert_allclose(read.landmarks[5], align.template(SIZE), atol=1e-3)
    assert read.scores[0] == 0.5 and not read.faceless.any()
    assert set(read.galleries) == {"G1", "G2"}
    assert read.galleries["G1"].subjects.tolist().count(100) == 1 and set(read.galleries["G2"].subjects) == {101, 103}
    assert len(read.probes.templates) == len(set(read.probes.templates)) == 3 * SUBJECTS
    assert read.sha256[PAIRS] == hashlib.sha256((meta / PAIRS).read_bytes()).hexdigest()
    assert set(read.sha256) == {path.name for path in meta.iterdir()}


def test_pictures_are_aligned_by_their_landmarks(folder, images):
    faces = folder / "meta" / FACES
    lines = faces.read_text().splitlines()
    lines[1] = " ".join([lines[1].split()[0], *["7"] * 10, "0.9"])  # all points in one: no face
    faces.write_text("\n".join(reversed(lines)))  # the order does not matter
    read = ijb.read(folder)
    assert read.faceless.tolist() == [i == 1 for i in range(len(read.names))]
    found = ijb.Pictures(read, 24)
    assert len(found) == SUBJECTS * PICTURES
    np.testing.assert_array_equal(
        found.images(np.array([2, 1])),
        [align.align(images[2, 0], read.landmarks[2], 24), resize.square(images[1, 0], 24)],
    )


def test_without_landmarks_pictures_are_cut_as_they_are(tmp_path, images):
    read = ijb.read(template_set.write(tmp_path / "set", images, landmarks=False))
    assert read.landmarks is None and read.scores is None
    np.testing.assert_array_equal(ijb.Pictures(read, SIZE).images(np.arange(4)), images[:, 0])
    assert ijb.Pictures(read, SIZE).images(np.arange(0)).shape == (0, SIZE, SIZE, 3)


def test_searches_may_be_absent(folder):
    for path in (folder / "meta").glob("*.csv"):
        path.unlink()
    read = ijb.read(folder)
    assert read.galleries == {} and read.probes is None


@pytest.mark.parametrize("name", [MEDIA, PAIRS, PROBES, GALLERY])
def test_a_missing_list_is_named(folder, name):
    (folder / "meta" / name).unlink()
    if name == GALLERY:
        (folder / "meta" / "tiny_1N_gallery_G2.csv").unlink()
    with pytest.raises(UserError, match=name.removeprefix("tiny")):
        ijb.read(folder)


@pytest.mark.parametrize("name", [MEDIA, PAIRS, FACES, PROBES])
def test_an_empty_list_is_named(folder, name):
    (folder / "meta" / name).write_text("\n" if name != PROBES else "TEMPLATE_ID,SUBJECT_ID\n")
    with pytest.raises(UserError, match=name):
        ijb.read(folder)


@pytest.mark.parametrize(
    ("name", "line", "told"),
    [
        (MEDIA, "5.png 10", "has 2 fields between single spaces, not 3: name, template, medium"),
        (MEDIA, "5.png ten 1", "template is 'ten', no whole number"),
        (MEDIA, "5.png 99999999999 1", "no whole number of 32 bits"),
        (PAIRS, "10 20", "has 2 fields"),
        (PAIRS, "10 20 yes", "label is 'yes'"),
        (PAIRS, "10 20 2", "the label is 2, neither 1 nor 0"),
        (PAIRS, "10 25 1", "no picture is of template 25"),
        (PAIRS, "10 999 1", "no picture is of template 999"),
        (FACES, "5.png 1 2 3 4 5 6 7 8 9 10", "has 11 fields"),
        (FACES, "5.png 1 2 3 4 5 6 7 8 9 x 0.5", "y5 is 'x', no number"),
        (FACES, "5.png 1 2 3 4 5 6 7 8 9 nan 0.5", "a number is not finite"),
        (FACES, "5.png 1 2 3 4 5 6 7 8 9 1 -1", "the score is negative"),
        (PROBES, "10", "does not begin with the numbers of a template and a subject"),
        (PROBES, "25,100", "no picture is of template 25"),
    ],
)
def test_a_bad_line_is_named_by_its_number(folder, name, line, told):
    path = folder / "meta" / name
    lines = path.read_text().splitlines()
    path.write_text("\r\n".join([lines[0], "", *lines[1:4], line, *lines[5:]]))
    with pytest.raises(Damaged, match=f"{name}, line 6: .*{told}"):
        ijb.read(folder)


def test_lists_that_contradict_are_refused(folder):
    meta = folder / "meta"
    kept = {name: (meta / name).read_text() for name in (FACES, PROBES, PAIRS)}
    (meta / FACES).write_text(kept[FACES].replace("3.png ", "300.png ", 1))
    with pytest.raises(Damaged, match="has no line for 3.png"):
        ijb.read(folder)
    (meta / FACES).write_text(kept[FACES])
    template = kept[PROBES].splitlines()[1].split(",")[0]
    (meta / PROBES).write_text(kept[PROBES] + f"{template},555\n")
    with pytest.raises(Damaged, match=f"line 26: template {template} is of subject 100 before"):
        ijb.read(folder)
    (meta / PROBES).write_text("\n".join(kept[PROBES].splitlines()[1:]))
    with pytest.raises(Damaged, match="line 1: is no line of column names"):
        ijb.read(folder)
    (meta / PROBES).write_text(kept[PROBES])
    (meta / PAIRS).write_text("\n".join(line for line in kept[PAIRS].splitlines() if line[-1] == "0"))
    with pytest.raises(UserError, match="all pairs are non-mated"):
        ijb.read(folder)


def test_most_landmarks_must_be_of_faces(folder):
    path = folder / "meta" / FACES
    lines = [line.split() for line in path.read_text().splitlines()]
    path.write_text(
        "\n".join(
            " ".join([name, *points[2:4], *points[:2], *points[4:6], *points[8:10], *points[6:8], s])
            for name, *points, s in lines
        )
    )  # left and right confused
    with pytest.raises(Damaged, match="of 48 of 48 pictures are those of no face: .* left eye, right eye"):
        ijb.read(folder)


def test_pictures_that_cannot_be_read_are_named(folder):
    read = ijb.read(folder)
    content = pictures.encode_jpeg(np.zeros((SIZE, SIZE, 3), np.uint8))
    (folder / "loose_crop" / "3.png").write_bytes(content[: len(content) // 2])
    with pytest.raises(Damaged, match="3.png cannot be read as a picture"):
        ijb.Pictures(read, 16).images(np.arange(5))
    (folder / "loose_crop" / "3.png").unlink()
    with pytest.raises(UserError, match="there is no picture .*3.png, which tiny_face_tid_mid.txt names"):
        ijb.read(folder)
    with pytest.raises(UserError, match="has no list of pictures"):
        ijb.read(folder / "elsewhere")
