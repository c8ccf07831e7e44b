"""Verification packs of Python 2 and 3 are read alike, nothing in them runs, and InsightFace reads ours."""

from __future__ import annotations

import os
import pickle
import pickletools
import struct

import numpy as np
import pytest
from etils import epath

from sface_jax.core.errors import Damaged, UserError
from sface_jax.data import pairs
from sface_jax.verification.benchmarks import open_benchmark
from tests.data.containers import FIXTURE, picture

CONTENTS = [b"\x00\xffone", b"two\n", b"\x80", b"four" * 300]
SAME = [True, False]


def read(folder, value, protocol=4):
    path = folder / "pack.bin"
    path.write_bytes(value if isinstance(value, bytes) else pickle.dumps(value, protocol))
    return pairs.read_bin(path)


@pytest.mark.skipif(not FIXTURE.exists(), reason="the fixture is not at ../shared/fixtures")
def test_the_fixture(tmp_path):
    images, same = pairs.read_bin(FIXTURE / "lfw200_py3.bin")
    assert len(images) == 400 and same.shape == (200,) and same.dtype == bool
    assert (same.reshape(10, 2, 10) == [[True], [False]]).all()
    old, those = pairs.read_bin(FIXTURE / "lfw200_py2.bin")
    assert old == images and (those == same).all()
    pairs.write_bin(tmp_path / "new.bin", images, same)
    with (tmp_path / "new.bin").open("rb") as file:
        assert pickle.load(file, encoding="bytes") == (images, same.tolist())
    benchmark = open_benchmark(f"lfw={FIXTURE}/lfw200_py2.bin", epath.Path(tmp_path), 112)
    assert benchmark.name == "lfw" and benchmark.pairs.folds == 10 and len(benchmark.images) == len(set(images)) == 312
    assert open_benchmark(f"{FIXTURE}/lfw200_py3.bin", epath.Path(tmp_path), 112).digest == benchmark.digest


@pytest.mark.parametrize("protocol", range(6))
def test_ways_to_hold_pictures_and_labels(tmp_path, protocol):
    arrays = [np.frombuffer(content, np.uint8) for content in CONTENTS]
    for contents in (CONTENTS, tuple(CONTENTS), list(map(bytearray, CONTENTS)), arrays):
        for same in (SAME, [1, 0], list(np.array(SAME)), np.array(SAME), np.array(SAME, np.int64), (1.0, 0.0)):
            for value in ((contents, same), [contents, same]):
                found, labels = read(tmp_path, value, protocol)
                assert found == CONTENTS and labels.tolist() == SAME and labels.dtype == bool


@pytest.mark.parametrize("protocol", [0, 1, 2])
def test_packs_of_python_2(tmp_path, protocol):
    """As its pickle module writes them: strings for bytes, and NumPy's arrays of strings."""
    if protocol == 0:
        text = [b"S" + repr(content)[1:].encode() + b"\n" for content in CONTENTS]
    else:
        text = [b"T" + struct.pack("<i", len(content)) + content for content in CONTENTS]
    content = b"((l" + b"".join(item + b"a" for item in text) + b"(lI01\naI00\nat."
    assert read(tmp_path, content)[0] == CONTENTS and read(tmp_path, content)[1].tolist() == SAME
    array = (
        b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n(I0\ntS'b'\ntR(I1\n(I3\ntcnumpy\ndtype\n"
        b"(S'u1'\nI0\nI1\ntR(I3\nS'|'\nNNNI-1\nI-1\nI0\ntbI00\nS'\\x00\\xffa'\ntb"
    )
    scalar = (
        b"cnumpy.core.multiarray\nscalar\n(cnumpy\ndtype\n(S'b1'\nI0\nI1\ntR(I3\nS'|'\nNNNI-1\nI-1\nI0\ntbS'\\x01'\ntR"
    )
    images, same = read(tmp_path, b"((l" + array + b"a" + array + b"a(l" + scalar + b"at.")
    assert images == [b"\x00\xffa"] * 2 and same.tolist() == [True]


class Call:
    def __init__(self, function, *args):
        self.call = function, args

    def __reduce__(self):
        return self.call


@pytest.mark.parametrize("protocol", range(6))
@pytest.mark.parametrize("function", [os.system, eval, exec, getattr, __import__, open, bytes.fromhex, np.load])
def test_a_pack_that_would_create_a_file_is_refused(tmp_path, function, protocol):
    target = tmp_path / "created"
    attack = Call(function, f"touch {target}" if function is os.system else f"open({str(target)!r}, 'w').close()")
    if function is open:
        attack = Call(open, str(target), "w")
    for value in (attack, (attack, SAME), ([*CONTENTS[1:], attack], SAME), (CONTENTS, [True, attack])):
        with pytest.raises(
            Damaged, match="pack.bin would call [a-zA-Z_.]+, which no arrays need: it was not run"
        ) as told:
            read(tmp_path, value, protocol)
        assert "\n" not in str(told.value) and not target.exists()


@pytest.mark.parametrize(
    "content",
    [
        b"cos\nsystem\n(S'touch {0}'\ntR.",
        b"(S'touch {0}'\nios\nsystem\n.",
        b"(cos\nsystem\nS'touch {0}'\no.",
        b"c__builtin__\napply\n(cos\nsystem\n(S'touch {0}'\nttR.",
        b"\x80\x02cposix\nsystem\nX{1}touch {0}\x85R.",
        b"\x80\x04\x8c\x05posix\x8c\x06system\x93X{1}touch {0}\x85R.",
        b"\x80\x04\x8c\x08builtins\x8c\x0a__import__\x93)R.",
        b"\x80\x02cnumpy\nndarray\n}X\x0c\x00\x00\x00__setstate__cos\nsystem\nsb.",
        b"\x80\x02ccopyreg\n_reconstructor\ncos\nsystem\nN\x86R.",
        b"\x80\x02cos\nsystem\nX{1}touch {0}\x85\x81.",
    ],
)
def test_classic_attacks(tmp_path, content):
    target = str(tmp_path / "created").encode()
    content = content.replace(b"{0}", target).replace(b"{1}", struct.pack("<I", len(target) + 6))
    assert list(pickletools.genops(content))
    with pytest.raises(Damaged) as told:
        read(tmp_path, content)
    assert "\n" not in str(told.value) and os.listdir(tmp_path) == ["pack.bin"]


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ((CONTENTS, [True]), "4 pictures and 1 labels"),
        (([], []), "0 pictures and 0 labels"),
        ((CONTENTS, [True, 2]), "labels other than true and false"),
        ((CONTENTS, [True, None]), "no list of booleans"),
        ((CONTENTS, b"ab"), "no list of booleans"),
        ((b"abcd", SAME), "no list of pictures"),
        (([*CONTENTS[1:], "text"], SAME), "something else than encoded pictures"),
        (([np.zeros((2, 2), np.uint8)] * 4, SAME), "something else than encoded pictures"),
        (([np.zeros(2, np.float32)] * 4, SAME), "something else than encoded pictures"),
        ({"images": CONTENTS}, "is damaged, or no pack"),
        (b"", "is cut short"),
        (b"\xff\xd8\xff", "is damaged, or no pack"),
        (pickle.dumps((CONTENTS, SAME))[:-9], "is cut short"),
    ],
)
def test_what_is_no_pack_is_told(tmp_path, value, message):
    with pytest.raises(Damaged, match=message):
        read(tmp_path, value)
    with pytest.raises(UserError, match="there is no pack"):
        pairs.read_bin(tmp_path / "none.bin")


def test_one_picture_in_many_places_is_copied_once(tmp_path):
    array = np.zeros(100_000, np.uint8)
    images, _ = read(tmp_path, ([array] * 20_000, [True] * 10_000))
    assert len(images) == 20_000 and all(image is images[0] for image in images)


def test_lists_of_paths(tmp_path):
    for name in ("a/1.png", "a/2.png", "b/1.png", "c 3.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(picture(0, "PNG"))

    def told(text):
        (tmp_path / "pairs.txt").write_text(text)
        paths, found = pairs.read_pairs_file(tmp_path / "pairs.txt", tmp_path)
        assert found.folds == 1
        names = [str(path.relative_to(tmp_path)) for path in paths]
        return [(names[i], names[j], bool(s)) for i, j, s in zip(found.first, found.second, found.same, strict=True)]

    both = [("a/1.png", "a/2.png", True), ("a/1.png", "b/1.png", False)]
    assert told("a/1.png a/2.png 1\na/1.png b/1.png 0\n") == both
    assert told("first,second,same\na/1.png, a/2.png, 1\na/1.png, b/1.png, 0\n") == both
    assert told("a/1.png 3\na/2.png 3\na/1.png 0\nb/1.png 0\n") == both  # CALFW's: the number of the fold
    assert told("a/1.png\tc 3.png\t0\n") == [("a/1.png", "c 3.png", False)]
    for text, message in (
        ("a/1.png b/1.png maybe\na/1.png b/1.png so\n", "line 2 is no pair"),
        ("a/1.png a/2.png 1\na/1.png 1\n", "line 2 is no pair"),
        ("a/1.png 1\na/2.png 0\n", "line 1: the two pictures"),
        ("a/1.png a/3.png 1\n", "there is no picture a/3.png under"),
    ):
        with pytest.raises(UserError, match=message):
            told(text)
    rows = [f"a/1.png a/2.png 1\na/{i % 2 + 1}.png b/1.png 0" for i in range(6)]
    (tmp_path / "pairs.txt").write_text("\n".join(rows))
    benchmark = open_benchmark(f"mine={tmp_path}/pairs.txt:{tmp_path}", epath.Path(tmp_path), 8, folds=4)
    assert benchmark.pairs.folds == 4 and benchmark.pairs.same.tolist() == [True, False] * 6
