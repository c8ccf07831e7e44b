"""State dicts of several networks in one file of arrays, `.npz` or `.safetensors`, named <network>/<name>."""

from __future__ import annotations

from collections.abc import Mapping
from types import ModuleType

import numpy as np
from etils import epath

from sface_jax.core import files
from sface_jax.core.errors import UserError

SUFFIXES = (".npz", ".safetensors")
NETWORKS = ("G_ema", "G", "D")


def read(path: files.PathLike) -> dict[str, dict[str, np.ndarray]]:
    """Reads the state dicts of a file.

    Returns:
        "G_ema", "G", "D" -> name -> array, as far as they are there.

    Raises:
        UserError: the file is of another kind or damaged, or holds something else.
    """
    path = epath.Path(path)
    if path.suffix not in SUFFIXES:
        raise UserError(f"{path} cannot be converted: take a file in .pkl, {', '.join(SUFFIXES)}")
    package = None if path.suffix == ".npz" else _safetensors()
    try:
        arrays = dict(package.load(path.read_bytes()) if package else np.load(path, allow_pickle=False))
    except Exception as error:  # each format has its own kinds for a damaged file
        raise UserError(f"{path} cannot be read ({error}): fetch or write it anew") from error
    networks: dict[str, dict[str, np.ndarray]] = {}
    for name, array in arrays.items():
        network, _, rest = name.partition("/")
        if network not in NETWORKS or not rest:
            raise UserError(f"{path} holds {name!r}: let each name begin with its network, as in G_ema/{name}")
        networks.setdefault(network, {})[rest] = array
    return networks


def write(path: files.PathLike, networks: Mapping[str, Mapping[str, np.ndarray]]) -> None:
    """Writes state dicts, each under its network's name; the file appears whole or not at all.

    Raises:
        UserError: the suffix is of another kind, its package is missing, or no space is left.
    """
    path = epath.Path(path)
    if path.suffix not in SUFFIXES:
        raise UserError(f"{path} cannot be written: take a file in {' or '.join(SUFFIXES)}")
    arrays = {f"{network}/{name}": array for network, named in networks.items() for name, array in named.items()}
    if path.suffix == ".npz":
        files.write_npz(path, **arrays)
    else:
        files.write_bytes(path, _safetensors().save(arrays))


def _safetensors() -> ModuleType:
    try:
        import safetensors.numpy
    except ImportError as error:
        raise UserError("a .safetensors file needs a package: install '.[convert]', or take .npz") from error
    return safetensors.numpy
