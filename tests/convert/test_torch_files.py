"""PyTorch's files are read to the last bit and written so that it reads them, and nothing in them is run."""

from __future__ import annotations

import os
import pickle
import pickletools
import struct
import zipfile
from collections import OrderedDict

import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays_of

from sface_jax.convert import torch_files
from sface_jax.core.errors import UserError
from tests.convert import pytorch
from tests.convert.pytorch import Call


class Id:
    """A storage by its persistent id."""

    def __init__(self, kind, key, size, *rest):
        self.pid = "storage", pytorch.STORAGES[kind], key, "cuda:0", size, *rest


class Pickler(pickle.Pickler):
    def persistent_id(self, obj):
        return obj.pid if isinstance(obj, Id) else None


def dump(stream, content):
    with pytorch.pretended_modules():
        Pickler(stream, 2).dump(content)


def tensor(array, key="0", kind="Float", size=None, rest=()):
    strides = tuple(stride // array.itemsize for stride in array.strides)
    storage = Id(kind, key, array.size if size is None else size, *rest)
    return Call(pytorch.TENSOR, storage, 0, array.shape, strides, False, OrderedDict())


def write(path, content, storages=(), root="archive", order=b"little", how=zipfile.ZIP_STORED):
    """A file of PyTorch's since 1.6."""
    with zipfile.ZipFile(path, "w", how) as archive:
        with archive.open(f"{root}/data.pkl", "w") as entry:
            dump(entry, content)
        if order:
            archive.writestr(f"{root}/byteorder", order)
        for key, array in enumerate(storages):
            archive.writestr(f"{root}/data/{key}", array.tobytes())
        archive.writestr(f"{root}/version", "3\n")
    return path


def write_old(path, content, storages=(), little=True):
    """A file of PyTorch's before 1.6."""
    with path.open("wb") as stream:
        for part in (0x1950A86A20F9469CFC6C, 1001, {"protocol_version": 1001, "little_endian": little}, content):
            dump(stream, part)
        dump(stream, [str(key) for key in range(len(storages))])
        for array in storages:
            stream.write(struct.pack("<q", array.size) + array.tobytes())
    return path


A, B = np.arange(6, dtype=np.float32).reshape(2, 3), np.array([3, -1])


@pytest.mark.parametrize("old", [False, True])
def test_both_formats_give_containers_with_arrays(tmp_path, old):
    rest = (None,) if old else ()
    parameter = Call(pytorch.PARAMETER, tensor(A, rest=rest), True, OrderedDict())
    half = np.array([1.5, 2.5], jnp.bfloat16)
    content = {
        "epoch": 3,
        "state_dict": OrderedDict(w=parameter, turned=tensor(A.T, rest=rest), n=tensor(B, "1", "Long", rest=rest)),
        "groups": [{"lr": 0.1, "params": (0, 1)}],
        "half": tensor(half, "2", "BFloat16", rest=rest),
    }
    storages = [A, B, half]
    path = tmp_path / "net.pth"
    found = torch_files.read(write_old(path, content, storages) if old else write(path, content, storages))
    assert found["epoch"] == 3 and found["groups"] == [{"lr": 0.1, "params": [0, 1]}]
    assert pytorch.same(found["state_dict"], {"w": A, "turned": np.ascontiguousarray(A.T), "n": B})
    np.testing.assert_array_equal(found["half"].astype(np.float32), [1.5, 2.5])


shapes = arrays_of.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=3)
numbers = st.sampled_from([np.float32, np.int64, np.float16]).flatmap(lambda dtype: arrays_of.arrays(dtype, shapes))


@settings(max_examples=30, deadline=None)
@given(st.dictionaries(st.text(min_size=1, max_size=9).filter(str.isprintable), numbers, max_size=4))
def test_what_is_written_is_read(tmp_path_factory, arrays):
    path = tmp_path_factory.mktemp("written") / "net.pth"
    torch_files.write(path, arrays)
    found = torch_files.read(path)
    assert list(found) == list(arrays) and pytorch.same(found, arrays)


def test_what_is_written_has_the_opcodes_that_pytorch_allows(tmp_path):
    """The pickle is, but for the memo, the one that PyTorch writes: its reader of weights alone takes few others."""
    torch_files.write(tmp_path / "net.pth", {"w": A, "n": np.zeros((), np.int64)})
    with zipfile.ZipFile(tmp_path / "net.pth") as archive:
        assert {entry.compress_type for entry in archive.infolist()} == {zipfile.ZIP_STORED}
        content, names = archive.read("net/data.pkl"), archive.namelist()
    assert names == ["net/data.pkl", "net/byteorder", "net/data/0", "net/data/1", "net/version"]
    allowed = {"PROTO", "GLOBAL", "EMPTY_TUPLE", "REDUCE", "MARK", "BINUNICODE", "LONG1", "TUPLE", "BINPERSID"}
    allowed |= {"NEWFALSE", "SETITEMS", "STOP"}
    opcodes = list(pickle_opcodes(content))
    assert {name for name, _ in opcodes} <= allowed
    assert {argument for name, argument in opcodes if name == "GLOBAL"} == {
        "collections OrderedDict", "torch._utils _rebuild_tensor_v2", "torch FloatStorage", "torch LongStorage",
    }  # fmt: skip


def pickle_opcodes(content):
    return ((opcode.name, argument) for opcode, argument, _ in pickletools.genops(content))


@pytest.mark.parametrize("old", [False, True])
@pytest.mark.parametrize(
    "function", [os.system, eval, exec, getattr, __import__, pytorch.OTHERS["torch.nn.modules.linear.Linear"]]
)
def test_a_file_that_would_run_code_is_refused(tmp_path, function, old):
    target = tmp_path / "created"
    attack = Call(function, f"touch {target}" if function is os.system else f"open({str(target)!r}, 'w')")
    path = (write_old if old else write)(tmp_path / "net.pth", {"state_dict": {"w": attack}})
    with pytest.raises(UserError, match=rf"would call [\w.]+{function.__name__}, .*not run"):
        torch_files.read(path)
    assert not target.exists()


def test_files_that_lie_about_their_size_are_refused(tmp_path):
    path = tmp_path / "net.pth"
    much = np.zeros(10**6, np.float32)
    cases = {
        "larger than itself": lambda: write(path, {"w": tensor(much)}, [much], how=zipfile.ZIP_DEFLATED),
        "storage 0 that is missing": lambda: write(path, {"w": tensor(A)}),
        "storage 0 that is .*cut short": lambda: write(path, {"w": tensor(A, size=10**12)}, [A]),
        "needs 6 numbers, in a storage of 2": lambda: write(path, {"w": tensor(A, size=2)}, [A.ravel()[:2]]),
        "tensor": lambda: write(path, {"w": tensor(np.broadcast_to(np.float32(1), (10**6, 10**6)), size=6)}, [A]),
        "storage without sense": lambda: write(path, {"w": tensor(A, size=-1)}, [A]),
        "storage 0 twice": lambda: write(path, [tensor(A), tensor(A.astype(np.float64), kind="Double")], [A]),
        "cut short": lambda: write_old(path, {"w": tensor(A, size=10**12)}, [A]),
    }
    for told, make in cases.items():
        with pytest.raises(UserError, match=told) as raised:
            torch_files.read(make())
        assert "\n" not in str(raised.value)


def test_a_small_pickle_cannot_grow(tmp_path):
    doubled = []
    for _ in range(60):  # 2^60 lists, were each written out
        doubled = [doubled, doubled]
    found = torch_files.read(write(tmp_path / "net.pth", doubled))
    assert found[0] is found[1]
    own: dict = {}
    own["own"] = own
    with pytest.raises(UserError, match="in itself"):
        torch_files.read(write(tmp_path / "net.pth", own))
    memo = b"\x80\x02]r\xff\xff\xff\x7f."  # an entry of the memo far beyond the others
    with zipfile.ZipFile(tmp_path / "net.pth", "w") as archive:
        archive.writestr("a/data.pkl", memo)
    assert torch_files.read(tmp_path / "net.pth") == []


def test_files_of_another_kind_are_named(tmp_path):
    path = tmp_path / "net.pth"
    whole = write(path, {"w": tensor(A)}, [A]).read_bytes()
    old = write_old(path, {"w": tensor(A)}, [A]).read_bytes()
    for content, told in {
        b"": "no file of PyTorch",
        b"\x00" * 300: "no file of PyTorch",
        whole[: len(whole) // 2]: "damaged",
        old[: len(old) // 2]: "damaged",
        old[:-4]: "cut short",
        pickle.dumps({"w": 1}): "legacy format|damaged",
    }.items():
        path.write_bytes(content)
        with pytest.raises(UserError, match=told):
            torch_files.read(path)
    for make in (lambda: write(path, {}, order=b"big"), lambda: write_old(path, {}, little=False)):
        make()
        with pytest.raises(UserError, match="big-endian"):
            torch_files.read(path)
    write(path, {}, root="a/b")
    with pytest.raises(UserError, match="no data.pkl"):
        torch_files.read(path)
    for content in (Id("Float", "0", 6), {"w": Id("Float", "0", 6)}):
        with pytest.raises(UserError, match="holds a Storage"):
            torch_files.read(write(path, content, [A]))


def test_keys_that_take_for_ever_to_hash_are_refused(tmp_path):
    # t = (); 60 times t = (t, t); {t: None}
    pickled = b"\x80\x02})" + b"".join(b"q%ch%c\x86" % (i, i) for i in range(60)) + b"Ns."
    with zipfile.ZipFile(tmp_path / "x.pt", "w") as archive:
        archive.writestr("x/data.pkl", pickled)
        archive.writestr("x/byteorder", "little")
    with pytest.raises(UserError, match="names and numbers for keys"):
        torch_files.read(tmp_path / "x.pt")
