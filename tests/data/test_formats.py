"""A path tells its reader and writer; round trips through every format lose nothing."""

from __future__ import annotations

import pytest

from sface_jax.core.errors import Damaged, UserError
from sface_jax.data import formats
from sface_jax.data.folders import FolderSource
from tests.data import containers
from tests.data.containers import Memory, picture


@pytest.mark.parametrize("name", ["train.rec", "faces.tar", "faces.parquet"])
def test_round_trips(tmp_path, name):
    source = containers.faces()
    names = formats.write(tmp_path / "folder", source)
    folder = FolderSource(tmp_path / "folder")
    expected = containers.tree(tmp_path / "folder")
    assert expected == containers.content(source) and set(names) == set(expected)
    formats.write(tmp_path / "x" / name, folder)
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
        formats.write(tmp_path / name, source, beside={"README.md": b"card"})
    assert not list(tmp_path.iterdir())
    source = containers.faces()
    formats.write(tmp_path / name, source, beside={"README.md": b"card"})
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
    with pytest.raises(UserError, match="no format written here"):
        formats.write(tmp_path / "a.zip", containers.faces())
