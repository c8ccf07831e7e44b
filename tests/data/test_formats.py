"""A path tells its reader and writer; round trips through every format lose nothing."""

from __future__ import annotations

import os

import pytest

from sface_jax.core.errors import Damaged, UserError
from sface_jax.data import formats
from sface_jax.data.folders import FolderSource
from tests.data import containers
from tests.data.containers import Memory, picture


@pytest.mark.parametrize("name", ["train.rec", "faces.tar", "faces.parquet"])
def test_round_trips(tmp_path, name):
    source = containers.faces()
    assert formats.write(tmp_path / "folder", source) == ([tmp_path / "folder"], 0)
    folder = FolderSource(tmp_path / "folder")
    expected = containers.tree(tmp_path / "folder")
    assert expected == containers.content(source)
    written, renamed = formats.write(tmp_path / "x" / name, folder)
    assert set(written) == set((tmp_path / "x").iterdir()) and renamed == 0
    for path in (tmp_path / "x" / name, tmp_path / "x"):
        found = formats.open_source(path)
        assert containers.content(found) == expected and found.class_names == folder.class_names
    formats.write(tmp_path / "back", found)
    assert containers.tree(tmp_path / "back") == expected
    again = tmp_path / "y" / name
    formats.write(again, FolderSource(tmp_path / "back"))
    assert again.read_bytes() == (tmp_path / "x" / name).read_bytes()
    assert not list(tmp_path.glob("**/.*"))


def test_names_get_the_suffix_of_their_content(tmp_path):
    source = containers.faces(suffixless=True)
    formats.write(tmp_path / "new", source)
    found = {name.rpartition(".")[0]: content for name, content in containers.tree(tmp_path / "new").items()}
    assert found == containers.content(source)
    assert {path.suffix for path in (tmp_path / "new").glob("*/*")} == {".jpg", ".png"}


@pytest.mark.parametrize("name", ["new", "new.rec", "new.tar", "new.parquet"])
def test_suffixes_that_lie_are_mended(tmp_path, name):
    table = (
        *(("1.jpg", "PNG", "1.jpg.png"), ("1.png", "PNG", "1.png"), ("2.JPEG", "JPEG", "2.JPEG")),
        *(("3.bmp", "JPEG", "3.jpg"), ("4", "PNG", "4.png"), ("5.pgm", "PPM", "5.pgm"), ("v1.2", "JPEG", "v1.2.jpg")),
        *(("6.jpg", "PNG", "6.jpg.png.png"), ("6.jpg.png", "PNG", "6.jpg.png"), ("6.png", "PNG", "6.png")),
    )
    contents = [picture(i, kind) for i, (_, kind, _) in enumerate(table)]
    source = Memory({who: {old: content for (old, _, _), content in zip(table, contents, strict=True)} for who in "ab"})
    assert formats.write(tmp_path / name, source).renamed == 10
    found = containers.content(formats.open_source(tmp_path / name))
    assert found == {
        f"{who}/{new}": content for who in "ab" for (_, _, new), content in zip(table, contents, strict=True)
    }
    broken = Memory({"a": {"1.jpg": b"no picture"}})
    with pytest.raises(Damaged, match=r"picture 1\.jpg cannot be read"):
        formats.write(tmp_path / "broken" / name, broken)


def test_a_second_rec_needs_a_folder_of_its_own(tmp_path):
    formats.write(tmp_path / "train.rec", containers.faces())
    with pytest.raises(UserError, match=r"write val\.rec into a folder of its own"):
        formats.write(tmp_path / "val.rec", containers.faces())
    with pytest.raises(UserError, match=r"train\.idx is there already"):
        formats.write(tmp_path / "train.rec", containers.faces())


@pytest.mark.parametrize("name", ["train.rec", "faces.tar", "faces.parquet"])
def test_what_changes_on_disk_changes_the_version(tmp_path, name):
    (file, *_), _ = formats.write(tmp_path / name, containers.faces())
    found = formats.open_source(tmp_path / name)
    assert found.version() == formats.open_source(tmp_path / name).version()
    before = found.version()
    os.utime(file, ns=(0, 0))
    assert found.version() != before


@pytest.mark.parametrize("suffix", ["", ".rec", ".tar", ".parquet"])
@pytest.mark.parametrize(
    ("identity", "name"),
    [("..", "1.jpg"), ("a", "../1.jpg"), ("/a", "1.jpg"), ("a", "/etc/1.jpg"), ("a\\b", "1.jpg"), ("", "1.jpg")]
    + [("a", "1\n.jpg"), ("a\0", "1.jpg"), (".a", "1.jpg"), ("a" * 300, "1.jpg")],
)
def test_names_that_lead_elsewhere_are_refused(tmp_path, identity, name, suffix):
    with pytest.raises(UserError, match="no file may have"):
        formats.write(tmp_path / f"new{suffix}", Memory({identity: {name: picture(0)}}))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", ["new", "new.rec", "new.tar", "new.parquet"])
def test_nothing_is_left_half_done(tmp_path, name):
    class Failing(Memory):
        def read(self, position):
            if position == 3:
                raise Damaged("record 3 is cut short")
            return super().read(position)

    source = Failing({"a": {f"{i}.jpg": picture(i) for i in range(5)}})
    with pytest.raises(Damaged):
        formats.write(tmp_path / name, source)
    assert not list(tmp_path.iterdir())
    source = containers.faces()
    formats.write(tmp_path / name, source)
    with pytest.raises(UserError, match="there already"):
        formats.write(tmp_path / name, source)


def test_paths_that_are_no_source_are_told(tmp_path):
    (tmp_path / "a.zip").write_bytes(b"PK")
    (tmp_path / "a.tar.gz").write_bytes(b"")
    (tmp_path / "a.mp4").write_bytes(b"")
    (tmp_path / "empty").mkdir()
    (tmp_path / "two").mkdir()
    for name in ("a.rec", "b.rec"):
        (tmp_path / "two" / name).write_bytes(b"")
    for name, match in (
        ("none", "there are no pictures at"),
        ("none.rec", "there are no pictures at"),
        ("a.zip", "is compressed"),
        ("a.tar.gz", "is compressed"),
        ("a.mp4", "in no format known here"),
        ("empty", "holds no pictures"),
        ("two", "several .rec"),
    ):
        with pytest.raises(UserError, match=match):
            formats.open_source(tmp_path / name)
    for name in ("gs://none/a.rec", "gs://none/{0..1}.tar", "s3://none/a.parquet", "gs://none/a.csv"):
        with pytest.raises(UserError, match="on a remote disk"):
            formats.open_source(name)
    with pytest.raises(UserError, match="no format written here"):
        formats.write(tmp_path / "a.zip", containers.faces())
