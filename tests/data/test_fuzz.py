"""Damaged files of every format: a result or a typed error in one line, never a crash, a hang or a heap of memory.

The environment variable SFACE_JAX_FUZZ sets the number of examples of each format, SFACE_JAX_FUZZ_SEED the seed.
"""

from __future__ import annotations

import json
import os
import pickle
import random
import struct
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, seed, settings
from hypothesis import strategies as st

from sface_jax.core import pictures
from sface_jax.core.errors import UserError
from sface_jax.data import landmarks, pairs, recordio, tables, webdataset
from sface_jax.data.folders import FolderSource
from sface_jax.data.recordio import RecordSource
from sface_jax.data.tables import TableSource
from sface_jax.data.webdataset import TarSource
from tests.data import containers
from tests.data.test_webdataset import pack

EXAMPLES = int(os.environ.get("SFACE_JAX_FUZZ", 100))
SEED = int(os.environ.get("SFACE_JAX_FUZZ_SEED", 0))
LONGEST = 5.0  # seconds that an example may take
MOST = 100e6  # bytes that it may take

# What is apt to be taken for a length, an offset or an opcode.
NUMBERS = [0, 1, 2, 3, 24, 32, 2**16, 2**29 - 1, 2**29, 2**31 - 1, 2**31, 2**32 - 1, 2**62, 2**63 - 1, 2**64 - 1]
PIECES = [struct.pack(kind, number) for number in NUMBERS for kind in "BIQ" if number < 256 ** struct.calcsize(kind)]
PIECES += [b"", b"\n", b"\t", b"\0" * 512, b"\x95", b"\x96", b"\x8e", b"\x8d", b"R", b"b", b"(", b".", b"\x94", b"2"]
PIECES += [b"0", b"1", b"-", b"999999999999999999999", b"\xff\xd8", b"\xff\xc0", b"\xff\xda", b"cos\nsystem\n"]
TEXT = [b",", b"\t", b";", b" ", b"\n", b"\r", b'"', b"\0", b"\xff", b"\xc2\xa0", b"-1", b"1e999", b"nan", b"9" * 20]
TEXT += [b"..", b"/", b"path", b"label", b"id", b".jpg", b"x" * 300, "\u2028".encode(), "\u0663".encode()]
PIECES += [struct.pack("<I", 0xCED7230A), struct.pack("<f", float("nan")), b"17777777777", b"L", b"x", b"S", b"K"]


@st.composite
def mutated(draw, wholes, pieces=PIECES):
    """One of some files, with a few edits: pieces put in, over or out, copied, cut off."""
    content = bytearray(draw(st.sampled_from(wholes)))
    # One number drawn, many choices from it: thousands of choices would make drawing slower than reading.
    choose = random.Random(draw(st.integers(0, 2**64 - 1)))
    for _ in range(choose.choice([1, 1, 2, 3, 8])):
        # Headers and ends are where formats are decided.
        near = choose.choice([len(content), len(content), min(len(content), 600)])
        place = choose.randrange(near + 1)
        if choose.random() < 0.1:
            place = len(content) - min(len(content), choose.randrange(64))
        piece = choose.choice(pieces) if choose.random() < 0.7 else choose.randbytes(choose.randrange(1, 9))
        kind = choose.randrange(5)
        if kind == 0:
            content[place : place + len(piece)] = piece
        elif kind == 1:
            content[place:place] = piece
        elif kind == 2:
            del content[place : place + choose.choice([1, 4, 100, len(content)])]
        elif kind == 3:
            start = choose.randrange(len(content) + 1)
            content[place:place] = content[start : start + choose.choice([1, 8, 512])]
        elif content:
            content[place % len(content)] ^= 1 << choose.randrange(8)
    return bytes(content)


def peak(anew=False):
    """The most memory that this process had, in bytes, also that of C libraries; anew looks from now on."""
    reset = Path("/proc/self/clear_refs")
    if not os.access(reset, os.W_OK):
        return 0  # not on Linux
    if anew:
        reset.write_text("5")
    (line,) = (line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
    return 1024 * int(line.split()[1])


def checked(read):
    """Runs a reader on damaged content."""
    began, before = time.monotonic(), peak(anew=True)
    try:
        read()
    except UserError as error:
        assert str(error) and "\n" not in str(error)
    assert time.monotonic() - began < LONGEST
    assert peak() - before < MOST


def read_all(source):
    for position in range(min(len(source.labels), 50)):
        source.read(position)


def fuzz(function):
    return settings(max_examples=EXAMPLES, deadline=None, database=None)(seed(SEED)(function))


RECORDS = [(label, containers.picture(label, kind)) for label, kind in enumerate(("JPEG", "PNG", "JPEG"))]


def record_files(folder):
    """With identities' records, with arrays for labels, in parts."""
    path = folder / "whole.rec"
    recordio.write(path, containers.faces())
    yield path.read_bytes(), path.with_suffix(".idx").read_bytes()
    magic = struct.pack("<I", 0xCED7230A)
    content, index = b"", b""
    for number, (label, picture) in enumerate(RECORDS):
        index += b"%d\t%d\n" % (number, len(content))
        record = recordio._header(number, [label, 1.5, 2.5]) + picture + b"\0" * (-len(picture) % 4) + magic + b"end"
        content += b"".join(recordio._parts(record))
    yield content, index


@pytest.fixture(scope="module")
def records(tmp_path_factory):
    return list(record_files(tmp_path_factory.mktemp("records")))


@pytest.mark.parametrize("which", ["rec", "rec without idx", "idx", "lst", "property"])
def test_records(tmp_path, records, which):
    path = tmp_path / "a.rec"
    lists = b"".join(b"%d\t0\tAnn/%d.jpg\n" % (number, number) for number in range(25))

    @fuzz
    @given(st.data())
    def run(data):
        content, index = data.draw(st.sampled_from(records))
        parts = {"rec": content, "idx": index, "lst": lists, "property": b"4,8,8\n"}
        kind = which.split()[0]
        parts[kind] = data.draw(mutated([parts[kind]]))
        path.write_bytes(parts["rec"])
        for suffix in ("idx", "lst"):
            path.with_suffix(f".{suffix}").unlink(missing_ok=True)
            if suffix == kind or (suffix == "idx" and which != "rec without idx"):
                path.with_suffix(f".{suffix}").write_bytes(parts[suffix])
        if kind == "property":
            (tmp_path / "property").write_bytes(parts["property"])
        checked(lambda: list(recordio.read(path)))
        checked(lambda: read_all(RecordSource(path)))

    run()


def packs():
    contents = [picture for _, picture in RECORDS] * 2
    same = [True, False, True]
    arrays = [np.frombuffer(content, np.uint8) for content in contents]
    for protocol in range(6):
        yield pickle.dumps((contents, same), protocol)
        yield pickle.dumps((arrays, np.array(same)), protocol)
        yield pickle.dumps((list(map(bytearray, contents)), list(np.array(same))), protocol)


@fuzz
@given(mutated(list(packs())))
def test_packs(tmp_path_factory, content):
    path = tmp_path_factory.getbasetemp() / "fuzzed.bin"
    path.write_bytes(content)
    checked(lambda: pairs.read_bin(path))


@fuzz
@given(mutated([containers.picture(1, kind, size) for kind in ("JPEG", "PNG") for size in (8, 40)]))
def test_pictures(content):
    checked(lambda: pictures.decode(content))


@pytest.fixture(scope="module")
def tars(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tars")
    webdataset.write(folder / "a.tar", containers.faces())
    long = {f"{'d' * 90}/s{i}/{'n' * 90}{i}.jpg": picture for i, picture in RECORDS}
    named = {f"{i}.jpg": picture for i, picture in RECORDS}
    named |= {f"{i}.json": json.dumps({"label": i, "identity": f"p{i}"}).encode() for i, _ in RECORDS}
    made = [
        pack(folder / f"{i}.tar", found, form) for i, (found, form) in enumerate(((long, 1), (long, 2), (named, 0)))
    ]
    return [path.read_bytes() for path in (folder / "a.tar", *made)]


def mended(content):
    """With the sums of its headers put right, for otherwise none would get further."""
    content = bytearray(content)
    for start in range(0, len(content) - 511, 512):
        if content[start + 257 : start + 262] == b"ustar":
            content[start + 148 : start + 156] = b" " * 8
            content[start + 148 : start + 156] = b"%06o\0 " % sum(content[start : start + 512])
    return bytes(content)


def test_tars(tmp_path, tars):
    @fuzz
    @given(mutated(tars), st.booleans())
    def run(content, mend):
        (tmp_path / "a.tar").write_bytes(mended(content) if mend else content)
        checked(lambda: read_all(TarSource(tmp_path / "a.tar")))

    run()


LINES = [(f"{who}/{who}_{i:04d}.jpg", who, i) for who in ("Ann", "Bob") for i in (1, 2, 3)]
POINTS = [10.0, 10.0, 20.0, 10.0, 15.0, 15.0, 11.0, 20.0, 19.0, 20.0]
TEXTS = {
    "lists": [
        "path,label\n" + "".join(f"{path},{who}\n" for path, who, _ in LINES),
        "".join(f"{path}\t{i}\n" for path, _, i in LINES),
        "".join(f"{row}\t{i}.0\t{path}\n" for row, (path, _, i) in enumerate(LINES)),
        "".join(f'"{path}";{who};\n' for path, who, _ in LINES),
        "".join(f"{path} {i}\n" for path, _, i in LINES),
    ],
    "pairs": [
        "1\t2\nAnn\t1\t2\nBob\t2\t3\nAnn\t1\tBob\t1\nAnn\t2\tBob\t2\n",
        "1\nAnn\t1\t2\nAnn\t1\tBob\t1\n",
        "".join(f"{path},{LINES[0][0]},{who == 'Ann':d}\n" for path, who, _ in LINES),
        "".join(f"{path} 1\n" for path, _, _ in LINES),
    ],
    "landmarks": [
        "".join(f"{path}\t" + "\t".join(map(str, POINTS)) + "\n" for path, _, _ in LINES),
        f"{len(LINES)}\n{landmarks.COLUMNS}\n"
        + "".join(f"{path} {' '.join(map(str, POINTS))}\n" for path, _, _ in LINES),
    ],
}


@pytest.mark.parametrize("kind", TEXTS)
def test_texts(tmp_path, kind):
    for path, _, number in LINES:
        (tmp_path / path).parent.mkdir(exist_ok=True)
        (tmp_path / path).write_bytes(containers.picture(number))
    readers = {
        "lists": lambda path: read_all(TableSource(path)),
        "pairs": lambda path: (
            pairs.read_pairs_file(path, tmp_path),
            pairs.read_split_pairs(path, FolderSource(tmp_path)),
        ),
        "landmarks": landmarks.read,
    }

    @fuzz
    @given(mutated([text.encode() for text in TEXTS[kind]], TEXT))
    def run(content):
        (tmp_path / "a.csv").write_bytes(content)
        checked(lambda: readers[kind](tmp_path / "a.csv"))

    run()


def test_parquet(tmp_path):
    tables.write(tmp_path / "a.parquet", containers.faces())
    pq.write_table(
        pa.table({"path": [path for path, _, _ in LINES], "label": [0, 0, 0, 1, 1, 1]}), tmp_path / "b.parquet"
    )
    wholes = [(tmp_path / name).read_bytes() for name in ("a.parquet", "b.parquet")]

    @fuzz
    @given(mutated(wholes))
    def run(content):
        (tmp_path / "c.parquet").write_bytes(content)
        checked(lambda: read_all(TableSource(tmp_path / "c.parquet")))

    run()
