"""WebDataset's tars are read by offset, whoever packed them; damage is told."""

from __future__ import annotations

import io
import json
import pickle
import tarfile

import pytest

from sface_jax.core.errors import Damaged, UserError
from sface_jax.data import webdataset
from sface_jax.data.webdataset import TarSource
from tests.data import containers
from tests.data.containers import picture


def pack(path, found, form=tarfile.PAX_FORMAT):
    with tarfile.open(path, "w", format=form) as tar:
        for name, content in found.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            tar.addfile(entry, io.BytesIO(content))
    return path


ONE, TWO, THREE = (picture(i) for i in range(3))
SAMPLES = {"0.jpg": ONE, "0.cls": b"7", "0.txt": b"of nobody", "1.cls": b"12\n", "1.jpg": TWO, "x/2.jpg": THREE}


def test_labels_beside_pictures(tmp_path):
    source = TarSource(pack(tmp_path / "a.tar", {**SAMPLES, "x/2.cls": b"7"}))
    assert containers.content(source) == {"07/0.jpg": ONE, "07/2.jpg": THREE, "12/1.jpg": TWO}
    facts = {"label": 1, "identity": "Ann", "name": "first.jpg"}, {"label": 0, "identity": "Bob"}
    found = {
        "0.jpg": ONE,
        "0.json": json.dumps(facts[0]).encode(),
        "1.jpg": TWO,
        "1.json": json.dumps(facts[1]).encode(),
    }
    source = TarSource(pack(tmp_path / "b.tar", found))
    assert source.class_names == ["Bob", "Ann"] and containers.content(source) == {
        "Bob/1.jpg": TWO,
        "Ann/first.jpg": ONE,
    }
    found = {"0.png": ONE, "0.json": b'{"class": "b"}', "1.png": TWO, "1.json": b'{"class": "a"}'}
    assert containers.content(TarSource(pack(tmp_path / "c.tar", found))) == {"a/1.png": TWO, "b/0.png": ONE}


@pytest.mark.parametrize("form", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_folders_of_identities(tmp_path, form):
    deep = "/".join("f" * 60 for _ in range(2))
    long = "n" * 80 + ".jpg"
    found = {"README.md": b"hello", f"{deep}/s10/{long}": ONE, f"{deep}/s2/a.b.jpg": TWO, f"{deep}/s2/a.c.jpg": THREE}
    found[f"{deep}/s2/._a.jpg"] = b"of a Mac"
    expected = {"s2/a.b.jpg": TWO, "s2/a.c.jpg": THREE, f"s10/{long}": ONE}
    source = pickle.loads(pickle.dumps(TarSource(pack(tmp_path / "a.tar", found, form))))
    assert containers.content(source) == expected and source.class_names == ["s2", "s10"]


def test_shards(tmp_path):
    source = containers.faces()
    webdataset.write(tmp_path / "faces.tar", source, shard_bytes=2000)
    shards = sorted(tmp_path.iterdir())
    assert [path.name for path in shards[:2]] == ["faces-000000.tar", "faces-000001.tar"] and len(shards) > 3
    for pattern in (tmp_path, f"{tmp_path}/faces-{{000000..{len(shards) - 1:06d}}}.tar"):
        assert containers.content(TarSource(pattern)) == containers.content(source)
    with tarfile.open(shards[0]) as tar:
        names = tar.getnames()
        assert names[:2] == ["Zoë_Q/1.jpg", "Zoë_Q/1.cls"] and tar.extractfile(names[1]).read() == b"0"
    with pytest.raises(UserError, match="there already"):
        webdataset.write(tmp_path / "faces.tar", source, shard_bytes=2000)
    shards[1].unlink()
    with pytest.raises(UserError, match="no local file"):
        TarSource(f"{tmp_path}/faces-{{000000..000002}}.tar")


def test_damage_is_told(tmp_path):
    path = tmp_path / "a.tar"

    def told(match, found=None, content=None, error=Damaged):
        if found is not None:
            pack(path, found)
        if content is not None:
            path.write_bytes(content)
        with pytest.raises(error, match=match):
            TarSource(path)

    told("no label for the key 'x/2'", SAMPLES)
    told("holds no label", {**SAMPLES, "x/2.cls": b"seven"})
    told("not valid JSON", {"0.jpg": ONE, "0.json": b"[" * 100_000})
    told("several pictures of the key", {**SAMPLES, "0.png": ONE})
    told("in no folder", {"0.jpg": ONE, "1.jpg": TWO})
    told("several folders of pictures that have the same name", {"a/s1/0.jpg": ONE, "b/s1/1.jpg": TWO})
    told("holds no pictures", {"a/0.txt": b""})
    told("which no file may have", {"a\nb/0.jpg": ONE})
    whole = pack(path, {"a/0.jpg": ONE, "b/1.jpg": TWO}).read_bytes()
    told("no tar, or damaged at byte 0", content=b"x" + whole[1:])
    told("is cut short", content=whole[:700])
    told("is cut short", content=whole[:1024])
    told("goes on behind its end", content=whole + whole)
    with tarfile.open(path, "w") as tar:
        link = tarfile.TarInfo("a/0.jpg")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        tar.addfile(link)
    told("links in place of files")
    for name, match in (
        ("a.tar.gz", "is to be unpacked first"),
        ("none.tar", "no local file"),
        ("{5..2}.tar", "no shards"),
    ):
        with pytest.raises(UserError, match=match):
            TarSource(tmp_path / name)
