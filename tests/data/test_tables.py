"""Lists in text and Parquet give the pictures they name or hold."""

from __future__ import annotations

import pickle

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from sface_jax.core.errors import Damaged, UserError
from sface_jax.data import tables
from sface_jax.data.tables import TableSource
from tests.data import containers
from tests.data.containers import picture

CONTENTS = [picture(i) for i in range(4)]
PATHS = ["a/1.jpg", "a/2.jpg", "b c/1.jpg", "b c/2.jpg"]


@pytest.fixture
def folder(tmp_path):
    for path, content in zip(PATHS, CONTENTS, strict=True):
        (tmp_path / path).parent.mkdir(exist_ok=True)
        (tmp_path / path).write_bytes(content)
    return tmp_path


def opened(folder, name, text, **columns):
    (folder / name).write_text(text)
    return pickle.loads(pickle.dumps(TableSource(folder / name, **columns)))


NAMED = {"x/1.jpg": CONTENTS[0], "x/2.jpg": CONTENTS[1], "y/1.jpg": CONTENTS[2]}
NUMBERED = {"03/1.jpg": CONTENTS[2], "10/1.jpg": CONTENTS[0], "10/2.jpg": CONTENTS[1]}


@pytest.mark.parametrize(
    ("name", "text", "expected"),
    [
        ("a.csv", "path,label\na/1.jpg,x\nb c/1.jpg,y\na/2.jpg,x\n", NAMED),
        ("a.csv", '\ufeffid;File\nx;"a/1.jpg"\ny;"b c/1.jpg"\nx;a/2.jpg\n', NAMED),
        ("a.tsv", "a/1.jpg\tx\nb c/1.jpg\ty\na/2.jpg\tx\n", NAMED),
        ("a.txt", "a/1.jpg 10\n\na/2.jpg 10\n", {"10/1.jpg": CONTENTS[0], "10/2.jpg": CONTENTS[1]}),
        ("a.csv", "label,identity,image\n2,x,a/1.jpg\n5,y,b c/1.jpg\n2,x,a/2.jpg\n", NAMED),
        ("a.csv", "image,person\na/1.jpg,10\na/2.jpg,10\nb c/1.jpg,3\n", NUMBERED),
        ("a.lst", "0\t10.000\ta/1.jpg\n1\t10\ta/2.jpg\n2\t3\tb c/1.jpg\n", NUMBERED),
        ("a.lst", "1\ta/1.jpg\t10\n1\ta/2.jpg\t10\n1\tb c/1.jpg\t3\n", NUMBERED),
        ("a.txt", "a/1.jpg\na/2.jpg\n", {"a/1.jpg": CONTENTS[0], "a/2.jpg": CONTENTS[1]}),
        ("a.csv", "path,label\na/1.jpg,007\nb c/1.jpg,007\n", {"007/1.jpg": CONTENTS[0], "007/1-2.jpg": CONTENTS[2]}),
    ],
)
def test_lists_in_text(folder, name, text, expected):
    assert containers.content(opened(folder, name, text)) == expected


def test_columns_are_told(folder, caplog):
    """Also a separator at the end of each line is none, and `id` is the last column to be taken for a label."""
    with caplog.at_level("INFO"):
        found = opened(folder, "a.csv", "a/1.jpg,x,\na/2.jpg,x,\nb c/1.jpg,y,\n")
        assert containers.content(found) == NAMED and "'column 1' as the pictures and 'column 2'" in caplog.text
        found = opened(folder, "a.csv", "id,path,person\n1,a/1.jpg,x\n2,a/2.jpg,x\n3,b c/1.jpg,y\n")
        assert containers.content(found) == NAMED and "'path' as the pictures and 'person'" in caplog.text
    assert "one picture" not in caplog.text
    opened(folder, "a.csv", "path,id\na/1.jpg,1\na/2.jpg,2\n", label_column="id")
    assert "every identity has one picture" in caplog.text


def test_a_picture_that_is_missing_is_told_with_its_line(folder):
    found = opened(folder, "a.csv", "path,label\na/1.jpg,x\n\na/3.jpg,x\na/2.jpg,y\n")
    with pytest.raises(Damaged, match=r"a\.csv, line 4: there is no picture .*a/3\.jpg"):
        found.read(1)
    before = found.version()
    (folder / "a" / "3.jpg").write_bytes(CONTENTS[3])
    assert found.read(1) == CONTENTS[3] and found.version() != before


def test_columns_by_name(folder):
    text = "who,where,what\nx,a/1.jpg,1\ny,b c/1.jpg,2\nx,a/2.jpg,3\n"
    assert containers.content(opened(folder, "a.csv", text, image_column="where", label_column="who")) == NAMED
    for columns, match in (
        ({}, "does not tell which column"),
        ({"image_column": "where"}, "say which has the pictures and which the labels"),
        ({"image_column": "where", "label_column": "whom"}, "has no column 'whom'"),
        ({"label_column": "whom"}, "has no column 'whom'"),
    ):
        with pytest.raises(UserError, match=match):
            opened(folder, "a.csv", text, **columns)


@pytest.mark.parametrize(
    ("text", "match"),
    [
        ("", "is empty"),
        ("path,label\n", "lists no pictures"),
        ("path,label\na/1.jpg,x\na/2.jpg\n", "line 3 has another number of columns"),
        ("path,label\na/1.jpg,x,3\n", "line 2 has another number of columns"),
        ("path,label\n\nc/1.jpg,x\n", r"a\.csv, line 3: there is no picture .*c/1\.jpg"),
        ("path,id\na/1.jpg,1\na/2.jpg,2\n", "every row has another 'id', so it tells no identity"),
        ("path,label\na\0/1.jpg,x\n", "a path that no file may have"),
        ("path,label\na/1.jpg,../x\n", "the name '../x', which no file may have"),
        ("path,label\n" + "a" * 200_000 + ",1\n", "is no table"),
    ],
)
def test_bad_lists_are_told(folder, text, match):
    with pytest.raises(UserError, match=match):
        opened(folder, "a.csv", text)


def test_parquet(folder):
    def written(name, **columns):
        pq.write_table(pa.table(columns), folder / name, row_group_size=2)
        return containers.content(pickle.loads(pickle.dumps(TableSource(folder / name))))

    image = [{"bytes": content, "path": path} for content, path in zip(CONTENTS, PATHS, strict=True)]
    plain = {f"{i}/{path[-5:]}": content for i, path, content in zip((0, 0, 1, 1), PATHS, CONTENTS, strict=True)}
    assert written("a.parquet", path=PATHS, label=[0, 0, 1, 1]) == plain
    assert written("b.parquet", image=image, label=[0, 0, 1, 1]) == plain
    assert written("c.parquet", jpg=CONTENTS, filename=PATHS, label=[0, 0, 1, 1]) == plain
    image[0]["bytes"] = None  # Hugging Face's, where the pictures are files
    assert written("d.parquet", image=image, label=[0, 0, 1, 1]) == plain
    mixed = written("e.parquet", image=CONTENTS, label=["y", "x", "y", "x"])
    assert mixed == {f"{'yxyx'[i]}/{i:07d}": content for i, content in enumerate(CONTENTS)}
    for columns, match in (
        ({"image": [1, 2], "label": [1, 2]}, "neither paths nor pictures"),
        ({"path": PATHS[:2], "label": [0.5, 1.5]}, "neither whole numbers nor names"),
        ({"path": PATHS[:2], "label": [1, None]}, "neither whole numbers nor names"),
        ({"speed": [1, 2]}, "say which has the pictures"),
    ):
        with pytest.raises(UserError, match=match):
            written("bad.parquet", **columns)


def test_rows_that_are_not_together_are_told(tmp_path, caplog, monkeypatch):
    monkeypatch.setattr(tables, "_CACHE", 0)
    for labels, told in ([0, 0, 1, 1, 2, 2], False), ([0, 1, 2, 0, 1, 2], True):
        table = pa.table({"image": [picture(i) for i in range(6)], "label": labels})
        pq.write_table(table, tmp_path / "a.parquet", row_group_size=3)
        TableSource(tmp_path / "a.parquet")
        assert ("Sort the table by its label" in caplog.text) == told


def test_several_parquet_files_and_their_classes(tmp_path):
    source = containers.faces()
    tables.write(tmp_path / "train-00000-of-00001.parquet", source)
    assert containers.content(TableSource(tmp_path)) == containers.content(source)
    table = pq.read_table(tmp_path / "train-00000-of-00001.parquet").drop_columns("identity")
    pq.write_table(table.slice(0, 7), tmp_path / "train-00000-of-00001.parquet")
    pq.write_table(table.slice(7), tmp_path / "train-00001-of-00002.parquet")
    found = TableSource(tmp_path)
    assert containers.content(found) == containers.content(source) and found.class_names == source.class_names
    whole = (tmp_path / "train-00001-of-00002.parquet").read_bytes()
    for content in (whole[:-20], whole[:8], b"", whole[:-30] + b"\0" * 30):
        (tmp_path / "train-00001-of-00002.parquet").write_bytes(content)
        with pytest.raises(Damaged, match="no Parquet file"):
            TableSource(tmp_path)
