"""PyTorch's files of tensors, `.pt` and `.pth`, read and written without PyTorch; reading runs nothing of theirs.

The format since PyTorch 1.6 is a zip file of stored entries: <name>/data.pkl is a pickle (see `unpickling`),
<name>/data/<key> are the bytes of a storage, <name>/byteorder is "little" or "big". Before it, all was one stream.
"""

from __future__ import annotations

import io
import pickle
import struct
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from etils import epath

from sface_jax.convert.unpickling import STORAGES, Inert, Storage, Tensor, Unpickler, read_stream
from sface_jax.core import files
from sface_jax.core.errors import UserError

SUFFIXES = (".pt", ".pth")

_NUMBERS = (bool, int, float, str, type(None))


def read(path: files.PathLike) -> Any:
    """Reads what `torch.save` wrote, if it is made of tensors, containers, numbers and strings.

    Args:
        path: `.pt` or `.pth`, of any version of PyTorch.

    Returns:
        The object saved, usually a dict or a dict of dicts; tensors are read-only NumPy arrays of their own types
        (bfloat16 is ml_dtypes'), tuples and sets are lists, and NumPy's numbers, which nobody needs, are None.

    Raises:
        UserError: the file is of another kind, damaged or of a big-endian machine, or holds something else, which is
            named: a pickled model, say, or a call.
    """
    path = epath.Path(path)
    with path.open("rb") as file:
        start = file.read(4)
        file.seek(0)
        try:
            content = _read_zip(file) if start == b"PK\x03\x04" else _read_old(file, start)
            return _plain(content, {})
        except UserError as error:
            raise UserError(f"{path} {error}") from error
        except Exception as error:  # what damaged opcodes lead to may be any exception
            raise UserError(f"{path} is damaged ({type(error).__name__}: {error}): fetch it again") from error


def _read_old(file: Any, start: bytes) -> Any:
    if start[:1] != b"\x80":
        raise UserError("is no file of PyTorch")
    return read_stream(file)


def _read_zip(file: Any) -> Any:
    size = file.seek(0, 2)
    with zipfile.ZipFile(file) as archive:
        entries = archive.infolist()
        # Neither compressed nor overlapping entries: what is read is no larger than the file.
        if any(e.compress_type != zipfile.ZIP_STORED for e in entries) or sum(e.file_size for e in entries) > size:
            raise UserError("has entries larger than itself, as no file of PyTorch: do not trust it")
        roots = [e.filename.removesuffix("data.pkl") for e in entries if e.filename.endswith("/data.pkl")]
        if len(roots) != 1 or roots[0].count("/") != 1:
            raise UserError("is a zip file, but none of PyTorch: there is no data.pkl in it")
        names = {e.filename: e.file_size for e in entries}
        if f"{roots[0]}byteorder" in names and archive.read(f"{roots[0]}byteorder").strip() != b"little":
            raise UserError("is of a big-endian machine: save it anew on another one")
        reader = Unpickler(io.BytesIO(archive.read(f"{roots[0]}data.pkl")))
        content = reader.load()
        for key, storage in reader.storages.items():
            name = f"{roots[0]}data/{key}"
            if names.get(name) != storage.size * storage.dtype.itemsize:
                raise UserError(f"has a storage {key} that is missing or cut short: fetch it again")
            storage.fill(archive.read(name))
    return content


def _plain(value: Any, done: dict[int, Any]) -> Any:
    """Containers with arrays in place of tensors; what is in many places is made once."""
    if isinstance(value, _NUMBERS):
        return value
    if id(value) in done:
        if done[id(value)] is done:
            raise UserError("has a container in itself")
        return done[id(value)]
    done[id(value)] = done
    if isinstance(value, Tensor):
        made: Any = value.array
    elif isinstance(value, Mapping):
        made = {key: _plain(item, done) for key, item in value.items()}
    elif isinstance(value, Sequence | set) and not isinstance(value, bytes):
        made = [_plain(item, done) for item in value]
    elif isinstance(value, Storage) or not isinstance(value, Inert | bytes | complex):
        raise UserError(f"holds a {type(value).__name__} where arrays and numbers are expected")
    else:
        made = None
    done[id(value)] = made
    return made


def write(path: files.PathLike, arrays: Mapping[str, np.ndarray]) -> None:
    """Writes a state dict: what `torch.load(path, weights_only=True)` returns as an OrderedDict of tensors.

    Args:
        path: `.pt` or `.pth`; it appears whole or not at all.
        arrays: name -> array of real or whole numbers.

    Raises:
        UserError: no space is left.
    """
    path, buffer = epath.Path(path), io.BytesIO()
    arrays = {name: np.ascontiguousarray(array).reshape(np.shape(array)) for name, array in arrays.items()}
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as archive:

        def add(name: str, content: bytes) -> None:
            # A time of its own would make the file another one at each writing.
            archive.writestr(zipfile.ZipInfo(f"{path.stem}/{name}"), content)

        add("data.pkl", b"".join(_opcodes(arrays)))
        add("byteorder", b"little")
        for key, array in enumerate(arrays.values()):
            add(f"data/{key}", array.astype(array.dtype.newbyteorder("<")).tobytes())
        add("version", b"3\n")
    files.write_bytes(path, buffer.getvalue())


def _opcodes(arrays: Mapping[str, np.ndarray]) -> Iterator[bytes]:
    """The pickle of an OrderedDict of calls of `_rebuild_tensor_v2`, each of a storage that is named by its key."""
    classes = {np.dtype(dtype): name for name, dtype in STORAGES.items() if name != "UntypedStorage"}
    empty = _name("collections", "OrderedDict") + pickle.EMPTY_TUPLE + pickle.REDUCE
    yield pickle.PROTO + b"\x02" + empty + pickle.MARK
    for key, (name, array) in enumerate(arrays.items()):
        strides = [stride // array.itemsize for stride in array.strides]
        yield _text(name) + _name("torch._utils", "_rebuild_tensor_v2") + pickle.MARK
        yield pickle.MARK + _text("storage") + _name("torch", classes[array.dtype]) + _text(str(key)) + _text("cpu")
        yield _whole(array.size) + pickle.TUPLE + pickle.BINPERSID
        yield _whole(0) + _tuple(array.shape) + _tuple(strides) + pickle.NEWFALSE + empty
        yield pickle.TUPLE + pickle.REDUCE
    yield pickle.SETITEMS + pickle.STOP


def _name(module: str, name: str) -> bytes:
    return pickle.GLOBAL + f"{module}\n{name}\n".encode()


def _text(text: str) -> bytes:
    encoded = text.encode()
    return pickle.BINUNICODE + struct.pack("<I", len(encoded)) + encoded


def _whole(number: int) -> bytes:
    encoded = pickle.encode_long(number)
    return pickle.LONG1 + struct.pack("<B", len(encoded)) + encoded


def _tuple(numbers: Sequence[int]) -> bytes:
    return pickle.MARK + b"".join(map(_whole, numbers)) + pickle.TUPLE
