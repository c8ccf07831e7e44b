"""The networks in a pickle of StyleGAN2-ADA for PyTorch, read without running anything in it and without PyTorch.

A pickle is a program: it names functions and calls them. Here every name it may use stands for a class or function of
this file, or for a container of Python's that does nothing but hold; any other name ends the reading. Nothing is
imported, and the source code that comes with each module is passed over.

The format: modules are reduced to `torch_utils.persistence._reconstruct_persistent_obj` of a dict whose "state" is the
module's `__dict__`; tensors to `torch._utils._rebuild_tensor_v2` of a storage and its strides; storages to
`torch.storage._load_from_bytes` of a stream in PyTorch's legacy format: the pickles of a magic number, a version, facts
of the system, an object that names storages by persistent ids, and the list of their keys; then for each key the number
of elements, int64, and their little-endian bytes.
"""

from __future__ import annotations

import collections
import dataclasses
import io
import math
import pickle
import struct
from collections.abc import Callable, Iterator
from typing import Any

import jax.numpy as jnp
import numpy as np
from etils import epath

from sface_jax.core.errors import UserError
from sface_jax.core.files import PathLike

_MAGIC = 0x1950A86A20F9469CFC6C
_PROTOCOL = 1001

_STORAGES = {
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
_MOST_MODULES = 10_000
_PLAIN = (bool, int, float, str, type(None))


@dataclasses.dataclass(frozen=True)
class StateDict:
    """A network as PyTorch knows it.

    Attributes:
        arrays: its parameters and buffers by their names in the state dict, and in its order; read-only.
        attributes: the plain attributes (numbers, strings, None) of its modules by dotted name: "z_dim",
            "b4.mbstd.group_size".
    """

    arrays: dict[str, np.ndarray]
    attributes: dict[str, Any] = dataclasses.field(default_factory=dict)


def read(path: PathLike) -> dict[str, StateDict]:
    """Reads the networks of a pickle that StyleGAN2-ADA for PyTorch wrote.

    Args:
        path: a `.pkl`.

    Returns:
        "G", "D", "G_ema" -> the network, as far as they are there.

    Raises:
        UserError: the file is no such pickle, is cut short, or names something that no network needs.
    """
    path = epath.Path(path)
    with path.open("rb") as file:
        start = file.read(2)
        if start[:1] != b"\x80":
            hint = ", but a PyTorch archive: save its state dicts as .npz" if start == b"PK" else ""
            raise UserError(f"{path} is not a pickle{hint}")
        file.seek(0)
        try:
            content = _Unpickler(file).load()
            networks = _networks(content)
        except UserError as error:
            raise UserError(f"{path} {error}") from error
        except Exception as error:  # what damaged opcodes lead to may be any exception
            if isinstance(error, EOFError) or "truncated" in str(error):
                raise UserError(f"{path} is cut short: fetch it again") from error
            raise UserError(f"{path} is damaged ({type(error).__name__}: {error}): fetch it again") from error
    if not networks:
        raise UserError(f"{path} holds none of the networks G, D and G_ema")
    return networks


def _networks(content: Any) -> dict[str, StateDict]:
    if not isinstance(content, dict):
        return {}
    networks = {}
    for name in ("G", "D", "G_ema"):
        if isinstance(module := content.get(name), _Module):
            arrays = {key: tensor.array for key, tensor in _tensors(module)}
            networks[name] = StateDict(arrays, dict(_attributes(module)))
    return networks


def _tensors(module: _Module) -> Iterator[tuple[str, _Tensor]]:
    """The state dict of a module: its parameters, its persistent buffers, then those of its children."""
    for prefix, part in _modules(module):
        left_out = part.state.get("_non_persistent_buffers_set", ())
        own = list(part.state.get("_parameters", {}).items())
        own += [(name, value) for name, value in part.state.get("_buffers", {}).items() if name not in left_out]
        for name, value in own:
            if isinstance(value, _Tensor):
                yield prefix + name, value
            elif value is not None:
                raise UserError(f"has something else than an array in {prefix}{name}")


def _attributes(module: _Module) -> Iterator[tuple[str, Any]]:
    for prefix, part in _modules(module):
        for name, value in part.state.items():
            if not name.startswith("_") and isinstance(value, _PLAIN):
                yield prefix + name, value


def _modules(module: _Module) -> Iterator[tuple[str, _Module]]:
    """A module and all below it, with the prefix of their names, in the order of a state dict."""
    waiting, met = [("", module)], 0
    while waiting:
        prefix, part = waiting.pop()
        yield prefix, part
        # A module in many places would make a small file's tree as large as one likes.
        if (met := met + 1) > _MOST_MODULES:
            raise UserError(f"has more than {_MOST_MODULES} modules")
        children = part.state.get("_modules", {}).items()
        for name, child in reversed(children):
            if isinstance(child, _Module):
                waiting.append((f"{prefix}{name}.", child))
            elif child is not None:
                raise UserError(f"has something else than a module in {name}")


class _Inert:
    """Stands for whatever is not looked at: made of anything, keeps nothing."""

    def __new__(cls, *args: Any) -> _Inert:
        """Takes whatever the pickle calls it with."""
        return super().__new__(cls)

    def __setstate__(self, state: Any) -> None:
        """Passes over the state that a pickle would set; sent to a class in place of an instance, it fails."""


class _Function(_Inert):
    """Stands for a function."""

    def __init__(self, function: Callable[..., Any]):
        self.function = function

    def __call__(self, *args: Any) -> Any:
        return self.function(*args)


class _Module(_Inert):
    """Stands for a module, of which it keeps the `__dict__`."""

    state: dict[str, Any] = {}

    def __setstate__(self, state: Any) -> None:
        if isinstance(state, dict):
            self.state = state


class _EasyDict(dict):
    """Stands for a dict whose entries are attributes too."""

    def __setstate__(self, state: Any) -> None:
        """Passes over the state; see `_Inert`."""


class _StorageType(_Inert):
    """Stands for a storage class, of which the type of its elements matters."""

    def __init__(self, dtype: Any):
        self.dtype = np.dtype(dtype)


class _Storage(_Inert):
    """A flat array, filled in after the pickle that names it."""

    def __init__(self, dtype: np.dtype, size: int):
        self.array = np.zeros(0, dtype)
        self.size = size


class _Tensor(_Inert):
    """A view of a storage."""

    def __init__(self, array: np.ndarray):
        self.array = array


def _module(meta: Any) -> _Module:
    """`_reconstruct_persistent_obj`: keeps meta["state"]; the source code in meta["module_src"] stays a string."""
    module = _Module()
    module.__setstate__(meta["state"])
    return module


def _tensor(storage: Any, offset: int, size: tuple[int, ...], stride: tuple[int, ...], *rest: Any) -> _Tensor:
    """`_rebuild_tensor_v2`: a view that stays within its storage."""
    if not isinstance(storage, _Storage) or len(size) != len(stride) or min((offset, *size, *stride)) < 0:
        raise UserError("has a tensor without sense")
    base = storage.array
    end = offset + sum((n - 1) * step for n, step in zip(size, stride, strict=True)) + 1
    if 0 in size:
        return _Tensor(np.zeros(size, base.dtype))
    # Overlapping views could be made as large as one likes out of a few bytes; no network has any.
    if max(end, offset + math.prod(size)) > len(base):
        raise UserError(f"has a tensor that needs {max(end, math.prod(size))} numbers, in a storage of {len(base)}")
    strides = [step * base.itemsize for step in stride]
    return _Tensor(np.lib.stride_tricks.as_strided(base[offset:], tuple(size), strides, writeable=False))


def _parameter(data: Any, *rest: Any) -> Any:
    """`_rebuild_parameter`: the tensor itself."""
    return data


def _storage(content: bytes) -> _Storage:
    """`_load_from_bytes`: reads a storage in PyTorch's legacy format."""
    stream = io.BytesIO(content)
    magic, protocol, _ = (_Unpickler(stream).load() for _ in range(3))
    if (magic, protocol) != (_MAGIC, _PROTOCOL):
        raise UserError("has a storage that is not in PyTorch's legacy format")
    unpickler = _StorageUnpickler(stream)
    storage = unpickler.load()
    for key in _Unpickler(stream).load():
        named = unpickler.storages[key]
        (count,) = struct.unpack("<q", stream.read(8))
        content = stream.read(named.size * named.array.itemsize)
        if count != named.size or len(content) < count * named.array.itemsize:
            raise UserError("has a storage that is cut short: fetch it again")
        named.array = np.frombuffer(content, named.array.dtype)
    if not isinstance(storage, _Storage):
        raise UserError("has something else in place of a storage")
    return storage


def _latin(text: str, encoding: str) -> bytes:
    """`_codecs.encode`, by which old protocols write bytes."""
    if encoding != "latin1":
        raise UserError(f"has bytes in the encoding {encoding}")
    return text.encode(encoding)


_GLOBALS: dict[str, Any] = {
    # Immutable types of Python's: a pickle can make instances of them, and change nothing.
    "collections.OrderedDict": collections.OrderedDict,
    "builtins.set": set,
    "__builtin__.set": set,
    "_codecs.encode": _Function(_latin),
    "dnnlib.EasyDict": _EasyDict,
    "dnnlib.util.EasyDict": _EasyDict,
    "torch_utils.persistence._reconstruct_persistent_obj": _Function(_module),
    "torch._utils._rebuild_tensor": _Function(_tensor),
    "torch._utils._rebuild_tensor_v2": _Function(_tensor),
    "torch._utils._rebuild_parameter": _Function(_parameter),
    "torch._utils._rebuild_parameter_with_state": _Function(_parameter),
    "torch.storage._load_from_bytes": _Function(_storage),
    "torch.storage.UntypedStorage": _StorageType(np.uint8),
    **{f"torch.{name}": _StorageType(dtype) for name, dtype in _STORAGES.items()},
    **dict.fromkeys(("torch.device", "torch.Size", "torch.memory_format"), _Inert),
    **{f"torch.float{bits}": _Inert for bits in (16, 32, 64)},
    **{f"torch.int{bits}": _Inert for bits in (8, 16, 32, 64)},
    **dict.fromkeys(("torch.uint8", "torch.bool", "torch.bfloat16"), _Inert),
    **dict.fromkeys(("numpy.dtype", "numpy.ndarray"), _Inert),
    **{
        f"numpy.{core}.{name}": _Inert
        for core in ("core", "_core")
        for name in ("multiarray.scalar", "multiarray._reconstruct", "numeric._frombuffer")
    },
}


class _Unpickler(pickle.Unpickler):
    """Follows a pickle in which every name stands for something of this file."""

    def find_class(self, module: str, name: str) -> Any:
        """Returns the stand-in, and never imports."""
        if (found := _GLOBALS.get(f"{module}.{name}")) is not None:
            return found
        if module.startswith("torch.nn."):
            return _Module
        if module.startswith("dnnlib.tflib"):
            raise UserError("holds TensorFlow networks: convert it to PyTorch first, with StyleGAN2-ADA's own script")
        raise UserError(f"would call {module}.{name}, which no network needs: it was not run; do not trust this file")


class _StorageUnpickler(_Unpickler):
    """Also knows the persistent ids of the legacy format: ("storage", class, key, device, size, view)."""

    def __init__(self, stream: io.BytesIO):
        super().__init__(stream)
        self.storages: dict[str, _Storage] = {}

    def persistent_load(self, pid: Any) -> _Storage:
        """Returns the storage of that id, still empty."""
        kind, cls, key, _, size, *view = pid
        if kind != "storage" or not isinstance(cls, _StorageType) or size < 0 or any(view):
            raise UserError("has a storage of an unknown kind")
        return self.storages.setdefault(key, _Storage(cls.dtype, size))
