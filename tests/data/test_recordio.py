"""RecordIO is read and written to the last byte, whatever wrote it; damage is told."""

from __future__ import annotations

import json
import pickle
import shutil
import struct

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sface_jax.core import pictures
from sface_jax.core.errors import Damaged, UserError
from sface_jax.data import recordio
from tests.data import containers
from tests.data.containers import FIXTURE, picture

MAGIC = struct.pack("<I", 0xCED7230A)
fixture = pytest.mark.skipif(not FIXTURE.exists(), reason="the fixture is not at ../shared/fixtures")


def pack(label, content, number=0):
    """A record's content, as MXNet's `recordio.pack` makes it."""
    if np.ndim(label):
        return struct.pack("<IfQQ", len(label), 0, number, 0) + np.asarray(label, "<f4").tobytes() + content
    return struct.pack("<IfQQ", 0, label, number, 0) + content


def part(content, place=0):
    return MAGIC + struct.pack("<I", place << 29 | len(content)) + content + b"\0" * (-len(content) % 4)


def write(path, records, index=True):
    """Writes records {index: content} by hand."""
    content, lines = b"", ""
    for number, record in records.items():
        lines += f"{number}\t{len(content)}\n"
        content += record if record.startswith(MAGIC) else part(record)
    path.write_bytes(content)
    if index:
        path.with_suffix(".idx").write_text(lines)
    return path


@fixture
@pytest.mark.parametrize("index", [True, False])
def test_the_fixture(tmp_path, index):
    for name in ("train.rec", "train.idx", "property") if index else ("train.rec",):
        shutil.copyfile(FIXTURE / name, tmp_path / name)
    expected = json.loads((FIXTURE / "expected.json").read_text())["truth"]
    found = list(recordio.read(tmp_path / "train.rec"))
    assert [(number, label, len(content)) for number, label, content in found] == [tuple(row[:3]) for row in expected]
    assert all(type(number) is int and type(label) is int for number, label, _ in found)
    for (_, _, content), (*_, mean) in zip(found, expected, strict=True):
        np.testing.assert_allclose(pictures.decode(content).mean((0, 1)), mean, atol=0.5)
    source = pickle.loads(pickle.dumps(recordio.RecordSource(tmp_path / "train.rec")))
    assert list(source.class_names) == [str(label) for label in range(8)] and source.names[0] == "0000001"
    assert list(containers.content(source).values()) == [content for _, _, content in found]


@fixture
def test_what_is_written_is_what_mxnet_wrote(tmp_path):
    recordio.write(tmp_path / "new" / "train.rec", recordio.RecordSource(FIXTURE / "train.rec"))
    for name in ("train.rec", "train.idx", "property"):
        assert (tmp_path / "new" / name).read_bytes() == (FIXTURE / name).read_bytes()


def test_arrays_for_labels_and_png(tmp_path):
    """Landmarks behind the class; no record 0, as im2rec writes, or one, whose label has a picture."""
    labels = [np.array([label, *np.linspace(0, 111, 10)], np.float32) for label in (3, 900, 3)]
    contents = [picture(i, "PNG") for i in range(3)]
    path = write(tmp_path / "a.rec", {i: pack(labels[i], contents[i], i) for i in range(3)})
    assert list(recordio.read(path)) == [(0, 3, contents[0]), (1, 900, contents[1]), (2, 3, contents[2])]
    source = recordio.RecordSource(path)
    assert list(source.class_names) == ["003", "900"] and source.labels.tolist() == [0, 0, 1]
    assert list(source.names) == ["0000000", "0000002", "0000001"]
    assert source.read(1) == contents[2]
    np.testing.assert_array_equal(source.label(1), labels[2])
    # InsightFace's records 0 and of identities, around pictures with arrays of two for labels.
    records = {i: pack([label, 0], contents[i - 1], i) for i, label in ((1, 5), (2, 5), (3, 6))}
    records |= {4: pack([1, 3], b"", 4), 5: pack([3, 4], b"", 5), 0: pack([4, 6], b"")}
    for index in (True, False):
        path = write(tmp_path / f"b{index}.rec", records, index)
        assert [row[:2] for row in recordio.read(path)] == [(1, 5), (2, 5), (3, 6)]


def test_without_ids_records_are_counted(tmp_path):
    plain = {i: pack(float(i), picture(i)) for i in range(3)}
    assert [row[0] for row in recordio.read(write(tmp_path / "a.rec", plain, index=False))] == [0, 1, 2]
    last = {1: pack(0.0, picture(1)), 2: pack(0.5, picture(2)), 0: pack([3, 3], b"")}
    assert [row[:2] for row in recordio.read(write(tmp_path / "b.rec", last, index=False))] == [(1, 0), (2, 0.5)]


@settings(max_examples=50, deadline=None)
@given(st.lists(st.sampled_from([MAGIC, b"abcd", b"x", b""]), max_size=12).map(b"".join))
def test_pictures_with_the_magic_number_in_them(tmp_path_factory, content):
    record = pack(7.0, content, 1)
    parts = list(recordio._parts(record))
    whole = b"".join(parts)
    # No magic number at a multiple of 4 but where parts begin.
    starts = [i for i in range(0, len(whole), 4) if whole[i : i + 4] == MAGIC]
    assert len(starts) == len(parts) // 3
    path = write(tmp_path_factory.mktemp("parts") / "a.rec", {1: whole, 2: pack(8.0, b"end", 2)})
    assert list(recordio.read(path)) == [(1, 7, content), (2, 8, b"end")]
    path.with_suffix(".idx").unlink()
    assert list(recordio.read(path)) == [(1, 7, content), (2, 8, b"end")]


def test_names_from_a_list(tmp_path):
    records = {i: pack(float(label), picture(i), i) for i, label in ((1, 4), (2, 4), (3, 9))}
    path = write(tmp_path / "a.rec", records)
    expected = {f"{name}/{i}.jpg": picture(i) for name, i in (("Ann", 1), ("Ann", 2), ("Bob", 3))}
    of = path.with_suffix(".lst")
    of.write_text("1\t4.0\tset/Ann/1.jpg\n3\t9\tset/Bob/3.jpg\n2\t4\tset/Ann/2.jpg\n")  # MXNet's
    assert containers.content(recordio.RecordSource(path)) == expected
    of.write_text("1\t/set/Ann/1.jpg\t4\n1\t/set/Ann/2.jpg\t4\n1\t/set/Bob/3.jpg\t9\n")  # InsightFace's
    assert containers.content(recordio.RecordSource(path)) == expected
    of.write_text("1\t4\tAnn/1.jpg\n")  # of another file
    assert recordio.RecordSource(path).class_names == ["4", "9"]
    of.write_text("1\t4\tAnn/1.jpg\n2\t4\tBob/2.jpg\n3\t9\tBob/3.jpg\n")  # names that do not go with the labels
    assert recordio.RecordSource(path).class_names == ["4", "9"]


def test_damage_is_told(tmp_path):
    source = containers.faces()
    path = tmp_path / "train.rec"
    recordio.write(path, source)
    whole, index = path.read_bytes(), path.with_suffix(".idx").read_text()
    (tmp_path / "train.lst").unlink()

    def told(match, content=whole, lines=index, error=Damaged):
        path.write_bytes(content)
        path.with_suffix(".idx").unlink(missing_ok=True)
        if lines is not None:
            path.with_suffix(".idx").write_text(lines)
        with pytest.raises(error, match=match) as caught:
            list(recordio.read(path))
            recordio.RecordSource(path)
        assert "\n" not in str(caught.value)

    for lines in (index, None):
        told("is cut short", whole[:-3], lines)
        told("is cut short|no record", whole[: len(whole) // 2], lines)
        told("no record at byte 0", b"\0" + whole[1:], lines)
        told("too short", part(b"abc") + whole, "1\t0\n" if lines else None)
        told("within its label", part(pack([1, 2], b"")[:-1]), "1\t0\n" if lines else None)
        told("out of order", part(b"a" * 24, 2), "1\t0\n" if lines else None)
    told("not .index<TAB>offset", lines="1\t0\nx\t5\n")
    told("not .index<TAB>offset", lines="1\t99999999999999999999\n")
    told("names a record twice", lines="1\t0\n1\t5108\n")
    told("middle of records|no record", lines=index.replace("2\t", "2\t0", 1).replace("\n3\t", "\n3\t1", 1))
    told("is cut short", lines=f"1\t{2**62}\n")
    told("cut short", lines="1\t-4\n")
    told("holds no pictures", lines=index.splitlines()[-1])
    told("is empty", b"", None)
    told("is empty", lines="")
    told("whole numbers", part(pack(0.5, b"x")), "1\t0\n")
    told("whole numbers", part(pack(float("nan"), b"x")), "1\t0\n")
    (tmp_path / "property").write_text("8;112;112")
    told("classes,height,width")
    with pytest.raises(UserError, match="no local file"):
        recordio.RecordSource(tmp_path / "none.rec")
    with pytest.raises(UserError, match="there already"):
        recordio.write(path, source)
    assert not list(tmp_path.glob(".*"))
