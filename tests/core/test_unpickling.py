"""Pickles are read without running anything in them, in time and memory that go with their length."""

from __future__ import annotations

import io
import pickle
import struct
import time
from collections import OrderedDict

import numpy as np
import pytest

from sface_jax.core.errors import UserError
from sface_jax.core.unpickling import ARRAYS, CONTAINERS, Array, Unpickler


def load(content, names=ARRAYS, encoding="bytes"):
    return Unpickler(io.BytesIO(content), names, encoding).load()


@pytest.mark.parametrize("protocol", range(6))
@pytest.mark.parametrize("kind", ["u1", "?", ">i4", "<f8"])
def test_arrays_of_numbers(protocol, kind):
    array = np.arange(6).reshape(2, 3).astype(kind)
    for value in (array, np.asfortranarray(array), array[0]):
        found = load(pickle.dumps(value, protocol))
        assert isinstance(found, Array) and found.value.dtype == value.dtype
        np.testing.assert_array_equal(found.value, value)
    assert load(pickle.dumps(array[1, 2], protocol)) == array[1, 2].item()


@pytest.mark.parametrize("protocol", range(6))
def test_bytes(protocol):
    for value in (b"\x00\xffabc", bytearray(b"\x80xyz"), b"", bytearray()):
        assert load(pickle.dumps(value, protocol)) == bytes(value)


def test_arrays_as_old_numpy_named_them():
    content = pickle.dumps(np.arange(3, dtype=np.uint8), 2).replace(b"numpy._core", b"numpy.core")
    np.testing.assert_array_equal(load(content).value, [0, 1, 2])


BUFFER = 100_000


def repeated(function, times=BUFFER):
    """A long argument in the memo, handed to a function again and again; the results stay on the stack."""
    argument = b"X" + struct.pack("<I", BUFFER) + b"a" * BUFFER + b"X\x06\x00\x00\x00latin1\x86q\x010"
    return b"\x80\x02c" + function + b"\nq\x000" + argument + b"h\x00h\x01R" * times + b"."


SMALL = {
    "one argument for many calls": repeated(b"_codecs\nencode"),
    "BYTEARRAY8": b"\x80\x05\x96" + struct.pack("<Q", 2**40) + b".",
    "BINBYTES8": b"\x80\x04\x8e" + struct.pack("<Q", 2**40) + b".",
    "BINUNICODE8": b"\x80\x04\x8d" + struct.pack("<Q", 2**62) + b".",
    "FRAME": b"\x80\x04\x95" + struct.pack("<Q", 2**40) + b".",
    "LONG4": b"\x80\x02\x8b" + struct.pack("<i", 2**31 - 1) + b".",
    "BINBYTES": b"\x80\x03B" + struct.pack("<I", 2**32 - 1) + b".",
    "a nest of tuples for a key": b"\x80\x02})" + b"\x85" * 50_000 + b"K\x01s.",
    "tuples of themselves for a key": b"\x80\x02})" + b"2\x86" * 60 + b"K\x01s.",
    "a long number for a key": b"\x80\x02}\x8b" + struct.pack("<i", BUFFER) + b"\x01" * BUFFER + b"K\x01s.",
    "EXT1": b"\x80\x02\x82\x01.",
    "BINPERSID": b"\x80\x02K\x01Q.",
    "NEXT_BUFFER": b"\x80\x05\x97.",
    "bytes by their number": b"\x80\x02cbuiltins\nbytearray\nJ\xff\xff\xff\x7f\x85R.",
    "numbers of any length": b"\x80\x02cnumpy\ndtype\nU\x07V999999\x85R.",
    "arrays of objects": b"\x80\x02cnumpy\ndtype\nU\x02O8\x85R.",
}


@pytest.mark.parametrize("case", SMALL)
def test_small_files_take_little(case):
    began = time.monotonic()
    with pytest.raises((UserError, EOFError, ValueError, TypeError, pickle.UnpicklingError)):
        load(SMALL[case])
    assert time.monotonic() - began < 5


def test_a_dict_of_state_is_not_copied_again_and_again():
    state = pickle.dumps({str(number): number for number in range(5000)}, 2)[2:-1]
    made = b"ccollections\nOrderedDict\nq\xfe)Rh\xffb"
    content = b"\x80\x02" + state + b"q\xff0" + made + b"h\xfe)Rh\xffb" * 5000 + b"."
    with pytest.raises(UserError, match="hands more"):
        load(content, CONTAINERS, "ASCII")
    assert load(pickle.dumps(OrderedDict(a=1)), CONTAINERS, "ASCII") == {"a": 1}


def test_a_name_that_is_refused_is_told_in_one_line():
    name = "a\nb\x1b[31m" + "c" * 10_000
    content = b"\x80\x04X" + struct.pack("<I", len(name)) + name.encode() + b"X\x01\x00\x00\x00d\x93."
    with pytest.raises(UserError, match="would call") as told:
        load(content)
    assert str(told.value).isprintable() and len(str(told.value)) < 200
