"""Benchmarks of pairs: one set of pairs in every format, its folds, its subjects, what is wrong with it."""

import numpy as np
import pytest
from etils import epath
from hypothesis import given, settings
from hypothesis import strategies as st

from sface_jax.core import files, pictures
from sface_jax.core.errors import UserError
from sface_jax.data import pairs
from sface_jax.data.pairs import Pairs
from sface_jax.verification.benchmarks import linked, open_benchmark, parse
from tests.verification import tiny

PEOPLE, EACH = 10, 4


@pytest.fixture(scope="module")
def faces(tmp_path_factory):
    """A folder of pictures with the same 40 pairs as LFW has them, as a list, and as a pack."""
    folder = epath.Path(tmp_path_factory.mktemp("faces"))
    for person in range(PEOPLE):
        for i, image in enumerate(tiny.render(np.full(EACH, person), np.arange(EACH)), start=1):
            pictures.write_png(folder / "pictures" / f"p{person}" / f"p{person}_{i:04d}.png", image)
    lines, listed, content, same = ["10\t2"], [], [], []
    for fold in range(10):
        of_fold = [(fold, 1, fold, 2), (fold, 3, fold, 4)]
        of_fold += [(fold, i, (fold + 1) % PEOPLE, i + 2) for i in (1, 2)]
        for a, i, b, j in of_fold:
            lines.append(f"p{a}\t{i}\t{j}" if a == b else f"p{a}\t{i}\tp{b}\t{j}")
            names = [f"p{p}/p{p}_{k:04d}.png" for p, k in ((a, i), (b, j))]
            listed.append(f"{names[0]} {names[1]} {int(a == b)}")
            content += [(folder / "pictures" / name).read_bytes() for name in names]
            same.append(a == b)
    files.write_text(folder / "lfw.txt", "\n".join(lines) + "\n")
    files.write_text(folder / "list.txt", "\n".join(listed) + "\n")
    pairs.write_bin(folder / "pack.bin", content, np.array(same))
    pairs.write_bin(folder / "odd.bin", content[:74], np.array(same[:37]))
    pairs.write_bin(folder / "alike.bin", content[:4] * 10, np.ones(20, bool))
    return folder


def opened(faces, file, **options):
    entry = f"mine={faces / file}" + ("" if file.endswith(".bin") else f":{faces}/pictures")
    return open_benchmark(entry, faces, tiny.SIZE, **options)


def test_the_same_pairs_in_every_format(faces):
    as_lfw, as_list, as_pack = (opened(faces, file) for file in ("lfw.txt", "list.txt", "pack.bin"))
    assert as_lfw.digest == as_list.digest == as_pack.digest
    assert len({as_lfw.file, as_list.file, as_pack.file}) == 3
    for found in (as_lfw, as_list, as_pack):
        assert len(found.pairs) == 40 and found.pairs.folds == 10 and len(found.images) == PEOPLE * EACH
    assert as_lfw.subjects_named and not as_list.subjects_named and not as_pack.subjects_named
    assert len(set(as_lfw.subjects)) == PEOPLE and as_lfw.images.names[0] == "p0/p0_0001.png"
    # two mated pairs of each person share no picture: a pack cannot tell that they are of one
    assert len(set(as_pack.subjects)) == 2 * PEOPLE


def test_folds_are_in_the_order_of_the_file_or_dealt_anew(faces):
    assert opened(faces, "pack.bin", folds=5).pairs.same.tolist() == opened(faces, "pack.bin").pairs.same.tolist()
    lines = (faces / "list.txt").read_text().splitlines()
    apart = sorted(lines, key=lambda line: line.endswith("0"))  # mated pairs first, as in LFW's View 1
    files.write_text(faces / "apart.txt", "\n".join(apart) + "\n")
    dealt = opened(faces, "apart.txt").pairs
    assert dealt.same.reshape(10, 4).sum(1).tolist() == [2] * 10


@pytest.mark.parametrize("crop", [0.5, 2.0])
def test_a_crop_keeps_the_centre(faces, crop):
    whole, cropped = opened(faces, "lfw.txt"), opened(faces, "lfw.txt", crop=crop)
    assert cropped.digest == whole.digest
    whole, cropped = whole.images.all(), cropped.images.all()
    assert cropped.shape == whole.shape
    centre = slice(tiny.SIZE // 2 - 4, tiny.SIZE // 2 + 4)
    if crop < 1:
        part = whole[:, tiny.SIZE // 4 : -tiny.SIZE // 4, tiny.SIZE // 4 : -tiny.SIZE // 4].mean((1, 2))
        np.testing.assert_allclose(cropped.mean((1, 2)), part, atol=6)
    else:
        small = cropped[:, centre, centre].astype(float).mean((1, 2))
        expected = whole[:, 8:24, 8:24].astype(float).mean((1, 2))
        np.testing.assert_allclose(small, expected, atol=12)


@pytest.mark.parametrize(
    ("file", "options", "told"),
    [
        ("odd.bin", {}, "mine: 37 pairs do not divide into 10 folds: use 37 folds, or allow"),
        ("alike.bin", {}, "mine: all 20 pairs are of one kind"),
        ("pack.bin", {"folds": 7}, "40 pairs do not divide into 7 folds: use 5 or 8 folds"),
        ("list.txt", {"folds": 41}, "41 folds need at least 2 folds and 41 pairs"),
    ],
)
def test_what_is_wrong_is_one_clear_line(faces, file, options, told):
    with pytest.raises(UserError, match=told) as error:
        opened(faces, file, **options)
    assert "\n" not in str(error.value)


def test_a_file_of_windows_means_the_same(faces):
    for file in ("lfw.txt", "list.txt"):
        text = (faces / file).read_text().replace("\n", "  \r\n")
        (faces / "windows.txt").write_bytes(b"\xef\xbb\xbf" + text.encode())
        assert opened(faces, "windows.txt").digest == opened(faces, file).digest


@pytest.mark.parametrize(
    ("entry", "parts"),
    [
        ("lfw=gs://b/pairs.txt:gs://b/faces", ("lfw", "gs://b/pairs.txt", "gs://b/faces")),
        ("lfw=/a:b/pairs.txt:/f", ("lfw", "/a:b/pairs.txt", "/f")),
        ("/data/a=b/x.bin", ("x", "/data/a=b/x.bin", "root")),
        ("x=pack.bin", ("x", "pack.bin", "root")),
    ],
)
def test_entries(entry, parts):
    assert parse(entry, "root") == parts


def test_a_picture_that_cannot_be_decoded_is_named_at_once(faces):
    lines = "p0/p0_0001.png broken.png 1\np1/p1_0001.png p2/p2_0001.png 0\n"
    files.write_text(faces / "two.txt", lines * 2)
    (faces / "pictures" / "broken.png").write_bytes(b"none")
    with pytest.raises(UserError, match="pictures: broken.png .*: mend it") as error:
        opened(faces, "two.txt", folds=2, uneven_folds=True)
    assert "\n" not in str(error.value)


def test_folds_of_unequal_length_are_those_of_the_published_evaluator(faces):
    assert len(opened(faces, "odd.bin", uneven_folds=True).pairs) == 37


@settings(max_examples=50, deadline=None)
@given(st.integers(1, 30), st.lists(st.tuples(st.integers(0, 29), st.integers(0, 29), st.booleans()), max_size=40))
def test_subjects_are_the_pictures_that_mated_pairs_join(pictures, drawn):
    drawn = [(a % pictures, b % pictures, same) for a, b, same in drawn]
    first, second, same = (np.array([pair[i] for pair in drawn], kind) for i, kind in enumerate((int, int, bool)))
    found = linked(Pairs(first, second, same, 1), pictures)
    groups = [{i} for i in range(pictures)]
    for a, b, mated in drawn:
        if mated and groups[a] is not groups[b]:
            groups[a] |= groups[b]
            for i in groups[b]:
                groups[i] = groups[a]
    for i in range(pictures):
        assert set(np.flatnonzero(found == found[i])) == groups[i]
