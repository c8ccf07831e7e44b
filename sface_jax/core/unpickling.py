"""Pickles read without running anything in them, and without taking more time or memory than their length warrants.

A pickle is a program: it names functions and calls them. Here every name that it may use stands for a class or
function of ours, or for a container of Python's that does nothing but hold; any other name ends the reading. Nothing
is imported.
"""

from __future__ import annotations

import collections
import io
import pickle
import re
from collections.abc import Callable, Mapping, Sized
from typing import Any

import numpy as np

from sface_jax.core.errors import UserError

_LONGEST_KEY = 4096
_MOST_DIMENSIONS = 32
_NUMBERS = re.compile(r"[<>|=]?(b1|[iu][1248]|f[248])")


class Inert:
    """Stands for whatever is not looked at: made of anything, keeps nothing."""

    def __new__(cls, *args: Any) -> Inert:
        """Takes whatever the pickle calls it with."""
        return super().__new__(cls)

    def __setstate__(self, state: Any) -> None:
        """Passes over the state that a pickle would set; sent to a class in place of an instance, it fails."""


class Function(Inert):
    """Stands for a function."""

    def __init__(self, function: Callable[..., Any]):
        self.function = function

    def __call__(self, *args: Any) -> Any:
        """Calls it."""
        return self.function(*args)


class Dtype(Inert):
    """Stands for `numpy.dtype`, of plain numbers alone."""

    def __init__(self, name: str | bytes, *rest: Any):
        name = _text(name)
        if not _NUMBERS.fullmatch(name):
            raise UserError("has an array of something else than numbers")
        self.dtype = np.dtype(name)

    def __setstate__(self, state: Any) -> None:
        """Takes the order of the bytes from (version, order, ...)."""
        self.dtype = self.dtype.newbyteorder(_text(state[1]))


class Array(Inert):
    """Stands for `numpy.ndarray`; `value` is None until its content is told."""

    value: np.ndarray | None = None

    def __setstate__(self, state: Any) -> None:
        """Takes the content from (version, shape, type, whether in Fortran's order, bytes)."""
        _, shape, dtype, fortran, content = state
        self.value = _array(content, dtype, shape, "F" if fortran else "C")


def _array(content: Any, dtype: Any, shape: Any, order: str) -> np.ndarray:
    """A view of bytes, none of them left over."""
    if not isinstance(content, bytes | bytearray | memoryview) or not isinstance(dtype, Dtype):
        raise UserError("has an array without sense")
    flat = np.frombuffer(content, dtype.dtype)
    # Bounded first: the product of numbers of a million digits would take for ever.
    if len(shape) > _MOST_DIMENSIONS or not all(type(n) is int and 0 <= n <= len(flat) for n in shape):
        raise UserError("has an array without sense")
    return flat.reshape(shape, order=order)


def _reconstruct(cls: Any, *rest: Any) -> Array:
    """`numpy.core.multiarray._reconstruct`: an array whose content follows as its state."""
    return Array()


def _frombuffer(content: Any, dtype: Any, shape: Any, order: Any) -> Array:
    """`numpy.core.numeric._frombuffer`, by which protocol 5 writes arrays."""
    made = Array()
    made.value = _array(content, dtype, shape, _text(order))
    return made


def _scalar(dtype: Any, content: bytes) -> bool | int | float:
    """`numpy.core.multiarray.scalar`, as Python's number."""
    return _array(content, dtype, (), "C").item()


def _encode(text: str, encoding: str | bytes = "latin1") -> bytes:
    """`_codecs.encode`, by which old protocols write bytes."""
    if _text(encoding) not in ("latin1", "latin-1"):
        raise UserError("has bytes in another encoding than latin1")
    return text.encode("latin1")


def _bytes(content: str | bytes | bytearray = b"", *encoding: str | bytes) -> bytes:
    """`bytes` and `bytearray`, of text or bytes; of a number, they would be as long as it says."""
    return _encode(content, *encoding) if isinstance(content, str) else b"".join([content])


def _text(word: str | bytes) -> str:
    """A word that Python 2 may have written."""
    return word.decode("latin1") if isinstance(word, bytes) else word


CONTAINERS: dict[str, Any] = {
    # Immutable types of Python's: a pickle can make instances of them, and change nothing.
    "collections.OrderedDict": collections.OrderedDict,
    "builtins.set": set,
    "__builtin__.set": set,
    "_codecs.encode": Function(_encode),
}
"""What stands for the names of Python's containers, and for bytes in old protocols."""

ARRAYS: dict[str, Any] = {
    "_codecs.encode": Function(_encode),
    **{f"{where}.{name}": Function(_bytes) for where in ("builtins", "__builtin__") for name in ("bytes", "bytearray")},
    "numpy.dtype": Dtype,
    "numpy.ndarray": Array,
    **{
        f"numpy.{core}.{name}": Function(function)
        for core in ("core", "_core")
        for name, function in (
            ("multiarray._reconstruct", _reconstruct),
            ("multiarray.scalar", _scalar),
            ("numeric._frombuffer", _frombuffer),
        )
    },
}
"""What stands for the names that bytes and NumPy's arrays of numbers use, as Python 2 and 3, NumPy 1 and 2 write."""


class _Rest:
    """What is left of a stream; a pickle that wants more is told so before anything is allocated."""

    def __init__(self, stream: io.BufferedIOBase):
        start = stream.tell()
        self.left = stream.seek(0, 2) - start
        stream.seek(start)
        self._stream = stream

    def read(self, count: int) -> bytes:
        if count > self.left:
            raise EOFError("the pickle ends too early")
        self.left -= count
        return self._stream.read(count)

    def readline(self) -> bytes:
        line = self._stream.readline()
        self.left -= len(line)
        return line


# Python's own reader in Python: the one in C can be made to take gigabytes by a memo of far-apart numbers.
class Unpickler(pickle._Unpickler):
    """Follows a pickle in which every name stands for something known.

    Attributes:
        names: of the file's kind, as "module.name".
    """

    hint = ""  # what else to say of a name that is refused

    def __init__(self, stream: io.BufferedIOBase, names: Mapping[str, Any], encoding: str = "ASCII"):
        """Starts where the stream stands.

        Args:
            stream: which can be sought in.
            names: what stands for each name.
            encoding: of the strings of Python 2; "bytes" leaves them as bytes.
        """
        rest = _Rest(stream)
        super().__init__(rest, encoding=encoding)
        self.names = names
        self._credit = 4 * rest.left + 1024

    def find_class(self, module: str, name: str) -> Any:
        """Returns the stand-in, and never imports."""
        if (found := self.names.get(f"{module}.{name}")) is not None:
            return found
        if not name:
            raise EOFError("the pickle ends within a name")
        shown = ascii(f"{module}.{name}"[:80])[1:-1]
        raise UserError(f"would call {shown}, which no arrays need: it was not run{self.hint}")

    def persistent_load(self, pid: Any) -> Any:
        """Refuses ids of what lies outside the pickle."""
        raise UserError("refers to something outside itself")

    def get_extension(self, code: int) -> None:
        """Refuses the numbers of `copyreg`'s registry, which would get round `find_class`."""
        raise UserError("calls something by a number of a registry: it was not run")

    def load_bytearray8(self) -> None:
        """Makes a bytearray of bytes that are there, where Python makes room for as many as the pickle says."""
        self.append(bytearray(self.read(int.from_bytes(self.read(8), "little"))))

    def load_reduce(self) -> None:
        """Calls a function."""
        self._charge(self.stack[-1], *self.stack[-1])
        super().load_reduce()

    def _instantiate(self, klass: Any, args: list[Any]) -> None:
        self._charge(*args)
        super()._instantiate(klass, args)

    def load_newobj(self) -> None:
        """Makes an object."""
        self._charge(self.stack[-1])
        super().load_newobj()

    def load_newobj_ex(self) -> None:
        """Makes an object, with keywords."""
        self._charge(*self.stack[-2:])
        super().load_newobj_ex()

    def load_build(self) -> None:
        """Sets an object's state."""
        self._charge(self.stack[-1])
        super().load_build()

    def load_setitem(self) -> None:
        """Sets an entry of a dict."""
        self._plain_keys(self.stack[-2:-1])
        super().load_setitem()

    def load_setitems(self) -> None:
        """Sets entries of a dict."""
        self._plain_keys(self.stack[::2])
        super().load_setitems()

    def load_dict(self) -> None:
        """Makes a dict."""
        self._plain_keys(self.stack[::2])
        super().load_dict()

    def load_additems(self) -> None:
        """Adds items to a set."""
        self._plain_keys(self.stack)
        super().load_additems()

    def load_frozenset(self) -> None:
        """Makes a frozen set."""
        self._plain_keys(self.stack)
        super().load_frozenset()

    dispatch = {
        **pickle._Unpickler.dispatch,
        pickle.BYTEARRAY8[0]: load_bytearray8,
        pickle.REDUCE[0]: load_reduce,
        pickle.NEWOBJ[0]: load_newobj,
        pickle.NEWOBJ_EX[0]: load_newobj_ex,
        pickle.BUILD[0]: load_build,
        pickle.SETITEM[0]: load_setitem,
        pickle.SETITEMS[0]: load_setitems,
        pickle.DICT[0]: load_dict,
        pickle.ADDITEMS[0]: load_additems,
        pickle.FROZENSET[0]: load_frozenset,
    }

    def _charge(self, *arguments: Any) -> None:
        # One long argument, kept in the memo and handed to many calls, would be copied as often: the square of the
        # file's length. No honest file hands over more than it holds.
        self._credit -= sum(len(argument) for argument in arguments if isinstance(argument, Sized))
        if self._credit < 0:
            raise UserError("hands more to functions than it holds")

    def _plain_keys(self, keys: list[Any]) -> None:
        # A tuple of tuples of tuples, few bytes long, takes for ever to be hashed; so do long keys, set many times.
        for key in keys:
            if not isinstance(key, str | int | bytes | float | None):
                raise UserError("has something else than names and numbers for keys")
            length = len(key) if isinstance(key, str | bytes) else key.bit_length() if isinstance(key, int) else 0
            if length > _LONGEST_KEY:
                raise UserError("has a key too long for a name")
