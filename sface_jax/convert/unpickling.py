"""Pickles with tensors of PyTorch, read without running anything in them (see `core.unpickling`), without PyTorch.

Tensors are calls of `torch._utils._rebuild_tensor_v2` with a storage and strides. The pickle names a storage by a
persistent id; where its bytes lie depends on the file, see `torch_files` for the one in use. In PyTorch's legacy
format, a stream, they follow: the pickles of a magic number, a version, facts of the system, the content, and the list
of the storages' keys; then for each key the number of elements, int64, and their little-endian bytes.
"""

from __future__ import annotations

import io
import math
import struct
from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp
import numpy as np

from sface_jax.core import unpickling
from sface_jax.core.errors import UserError
from sface_jax.core.unpickling import Function, Inert

MAGIC = 0x1950A86A20F9469CFC6C
PROTOCOL = 1001
_MOST_DIMENSIONS = 64

STORAGES = {
    "FloatStorage": np.float32,
    "DoubleStorage": np.float64,
    "HalfStorage": np.float16,
    "BFloat16Storage": jnp.bfloat16,
    "LongStorage": np.int64,
    "IntStorage": np.int32,
    "ShortStorage": np.int16,
    "CharStorage": np.int8,
    "ByteStorage": np.uint8,
    "UntypedStorage": np.uint8,
    "BoolStorage": np.bool_,
}
"""PyTorch's storage classes, and the types of their elements."""


class StorageType(Inert):
    """Stands for a storage class, of which the type of its elements matters."""

    def __init__(self, dtype: Any):
        self.dtype = np.dtype(dtype)


class Storage(Inert):
    """A flat array of `size` elements; `array` is None until its bytes are found."""

    def __init__(self, dtype: np.dtype, size: int):
        self.dtype, self.size = dtype, size
        self.array: np.ndarray | None = None

    def fill(self, content: bytes) -> None:
        """Takes the bytes.

        Raises:
            UserError: they are fewer or more than the elements need.
        """
        if len(content) != self.size * self.dtype.itemsize:
            raise UserError("has a storage that is cut short: fetch it again")
        self.array = np.frombuffer(content, self.dtype)


class Tensor(Inert):
    """A view of a storage, by `_rebuild_tensor_v2`'s arguments."""

    def __init__(self, storage: Any, offset: int, size: tuple[int, ...], stride: tuple[int, ...], *rest: Any):
        if not isinstance(storage, Storage) or not len(size) == len(stride) <= _MOST_DIMENSIONS:
            raise UserError("has a tensor without sense")
        # Products of numbers of a million digits would take for ever.
        if not all(type(n) is int and abs(n) < 1 << 48 for n in (offset, *size, *stride)):
            raise UserError("has a tensor without sense")
        self.storage, self.offset, self.size, self.stride = storage, offset, size, stride

    @property
    def array(self) -> np.ndarray:
        """The view, read-only.

        Raises:
            UserError: it does not stay within its storage.
        """
        base, offset, size, stride = self.storage.array, self.offset, self.size, self.stride
        if base is None or min((offset, *size, *stride)) < 0:
            raise UserError("has a tensor without sense")
        if 0 in size:
            return np.zeros(size, base.dtype)
        end = offset + sum((n - 1) * step for n, step in zip(size, stride, strict=True)) + 1
        # Overlapping views could be made as large as one likes out of a few bytes; no network has any.
        if max(end, offset + math.prod(size)) > len(base):
            raise UserError(f"has a tensor that needs {max(end, math.prod(size))} numbers, in a storage of {len(base)}")
        strides = [step * base.itemsize for step in stride]
        return np.lib.stride_tricks.as_strided(base[offset:], tuple(size), strides, writeable=False)


def _parameter(data: Any, *rest: Any) -> Any:
    """`_rebuild_parameter`: the tensor itself."""
    return data


NAMES: dict[str, Any] = {
    **unpickling.CONTAINERS,
    "torch._utils._rebuild_tensor": Function(Tensor),
    "torch._utils._rebuild_tensor_v2": Function(Tensor),
    "torch._utils._rebuild_parameter": Function(_parameter),
    "torch._utils._rebuild_parameter_with_state": Function(_parameter),
    "torch.storage.UntypedStorage": StorageType(np.uint8),
    **{f"torch.{name}": StorageType(dtype) for name, dtype in STORAGES.items()},
    **dict.fromkeys(("torch.device", "torch.Size", "torch.memory_format"), Inert),
    **{f"torch.float{bits}": Inert for bits in (16, 32, 64)},
    **{f"torch.int{bits}": Inert for bits in (8, 16, 32, 64)},
    **dict.fromkeys(("torch.uint8", "torch.bool", "torch.bfloat16"), Inert),
    **dict.fromkeys(("numpy.dtype", "numpy.ndarray"), Inert),
    **{
        f"numpy.{core}.{name}": Inert
        for core in ("core", "_core")
        for name in ("multiarray.scalar", "multiarray._reconstruct", "numeric._frombuffer")
    },
}
"""What stands for the names that any file of tensors may use."""


class Unpickler(unpickling.Unpickler):
    """Also knows storages.

    Attributes:
        storages: by their keys, as the pickle names them; see `persistent_load`.
    """

    hint = ". Where you trust the file, save its state dict alone"

    def __init__(self, stream: io.BufferedIOBase, names: Mapping[str, Any] = NAMES):
        super().__init__(stream, names)
        self.storages: dict[str, Storage] = {}

    def persistent_load(self, pid: Any) -> Storage:
        """Returns the storage of the id ("storage", class, key, device, size, view), still empty."""
        if not isinstance(pid, tuple) or len(pid) not in (5, 6):
            raise UserError("has a storage of an unknown kind")
        kind, cls, key, _, size, *view = pid
        if kind != "storage" or not isinstance(cls, StorageType) or not isinstance(key, str) or any(view):
            raise UserError("has a storage of an unknown kind")
        if type(size) is not int or size < 0:
            raise UserError("has a storage without sense")
        storage = self.storages.setdefault(key, Storage(cls.dtype, size))
        if (storage.dtype, storage.size) != (cls.dtype, size):
            raise UserError(f"has the storage {key} twice")
        return storage


def read_stream(stream: io.BufferedIOBase) -> Any:
    """Reads PyTorch's legacy format, from where the stream stands.

    Args:
        stream: which can be sought in.

    Returns:
        The content, with `Tensor`s and `Storage`s in it.

    Raises:
        UserError: it is of another format, of a big-endian machine, cut short, or names something unknown.
    """
    magic, protocol, system = (Unpickler(stream).load() for _ in range(3))
    if (magic, protocol) != (MAGIC, PROTOCOL) or not isinstance(system, dict):
        raise UserError("is not in PyTorch's legacy format")
    if system.get("little_endian") is False:
        raise UserError("is of a big-endian machine: save it anew on another one")
    reader = Unpickler(stream)
    content = reader.load()
    keys = Unpickler(stream).load()
    start = stream.tell()
    end = stream.seek(0, 2)
    stream.seek(start)
    for key in keys:
        storage = reader.storages[key]
        (count,) = struct.unpack("<q", stream.read(8))
        length = storage.size * storage.dtype.itemsize
        if count != storage.size or length > end - stream.tell():
            raise UserError("has a storage that is cut short: fetch it again")
        storage.fill(stream.read(length))
    return content
