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

import numpy as np
import pytest
from hypothesis import given, seed, settings
from hypothesis import strategies as st

from sface_jax.core import pictures
from sface_jax.core.errors import UserError
from sface_jax.data import pairs, recordio, webdataset
from sface_jax.data.recordio import RecordSource
from sface_jax.data.webdataset import TarSource
from tests.data import containers
from tests.data.test_webdataset import pack

EXAMPLES = int(os.environ.get("SFACE_JAX_FUZZ", 300))
SEED = int(os.environ.get("SFACE_JAX_FUZZ_SEED", 0))
LONGEST = 5.0  # seconds that an example may take

# What is apt to be taken for a length, an offset or an opcode.
NUMBERS = [0, 1, 2, 3, 24, 32, 2**16, 2**29 - 1, 2**29, 2**31 - 1, 2**31, 2**32 - 1, 2**62, 2**63 - 1, 2**64 - 1]
PIECES = [struct.pack(kind, number) for number in NUMBERS for kind in "BIQ" if number < 256 ** struct.calcsize(kind)]
PIECES += [b"", b"\n", b"\t", b"\0" * 512, b"\x95", b"\x96", b"\x8e", b"\x8d", b"R", b"b", b"(", b".", b"\x94", b"2"]
PIECES += [b"0", b"1", b"-", b"999999999999999999999", b"\xff\xd8", b"\xff\xc0", b"\xff\xda", b"cos\nsystem\n"]
PIECES += [struct.pack("<I", 0xCED7230A), struct.pack("<f", float("nan")), b"17777777777", b"L", b"x", b"S", b"K"]


@st.composite
def mutated(draw, wholes):
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
        piece = choose.choice(PIECES) if choose.random() < 0.7 else choose.randbytes(choose.randrange(1, 9))
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


def checked(read):
    """Runs a reader on damaged content."""
    began = time.monotonic()
    try:
        read()
    except UserError as error:
        assert str(error) and "\n" not in str(error)
    assert time.monotonic() - began < LONGEST


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
