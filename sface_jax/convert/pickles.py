"""The networks in a pickle of StyleGAN2-ADA for PyTorch, read without running anything in it; see `unpickling`.

The format: modules are reduced to `torch_utils.persistence._reconstruct_persistent_obj` of a dict whose "state" is the
module's `__dict__`, and whose source code is passed over; storages to `torch.storage._load_from_bytes` of a stream in
PyTorch's legacy format.
"""

from __future__ import annotations

import dataclasses
import io
from collections.abc import Iterator
from typing import Any

import numpy as np
from etils import epath

from sface_jax.convert.unpickling import NAMES, Function, Inert, Storage, Tensor, Unpickler, read_stream
from sface_jax.core.errors import UserError
from sface_jax.core.files import PathLike

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
            content = _Unpickler(file, _NAMES).load()
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


def _tensors(module: _Module) -> Iterator[tuple[str, Tensor]]:
    """The state dict of a module: its parameters, its persistent buffers, then those of its children."""
    for prefix, part in _modules(module):
        left_out = part.state.get("_non_persistent_buffers_set", ())
        own = list(part.state.get("_parameters", {}).items())
        own += [(name, value) for name, value in part.state.get("_buffers", {}).items() if name not in left_out]
        for name, value in own:
            if isinstance(value, Tensor):
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


class _Module(Inert):
    """Stands for a module, of which it keeps the `__dict__`."""

    state: dict[str, Any] = {}

    def __setstate__(self, state: Any) -> None:
        if isinstance(state, dict):
            self.state = state


class _EasyDict(dict):
    """Stands for a dict whose entries are attributes too."""

    def __setstate__(self, state: Any) -> None:
        """Passes over the state; see `Inert`."""


def _module(meta: Any) -> _Module:
    """`_reconstruct_persistent_obj`: keeps meta["state"]; the source code in meta["module_src"] stays a string."""
    module = _Module()
    module.__setstate__(meta["state"])
    return module


def _storage(content: bytes) -> Storage:
    """`_load_from_bytes`: reads a storage in PyTorch's legacy format."""
    storage = read_stream(io.BytesIO(content))
    if not isinstance(storage, Storage) or storage.array is None:
        raise UserError("has something else in place of a storage")
    return storage


_NAMES: dict[str, Any] = {
    **NAMES,
    "dnnlib.EasyDict": _EasyDict,
    "dnnlib.util.EasyDict": _EasyDict,
    "torch_utils.persistence._reconstruct_persistent_obj": Function(_module),
    "torch.storage._load_from_bytes": Function(_storage),
}


class _Unpickler(Unpickler):
    """Also knows the modules of PyTorch and of StyleGAN2-ADA."""

    def find_class(self, module: str, name: str) -> Any:
        """Returns the stand-in, and never imports."""
        if module.startswith("torch.nn."):
            return _Module
        if module.startswith("dnnlib.tflib"):
            raise UserError("holds TensorFlow networks: convert it to PyTorch first, with StyleGAN2-ADA's own script")
        return super().find_class(module, name)
