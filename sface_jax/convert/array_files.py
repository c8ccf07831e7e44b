"""State dicts of several networks in one file of arrays, `.npz` or `.safetensors`, named <network>/<name>."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Mapping
from types import ModuleType

import numpy as np
from etils import epath

from sface_jax.core import files
from sface_jax.core.errors import UserError

SUFFIXES = (".npz", ".safetensors")
NETWORKS = ("G_ema", "G", "D")


def arrays(path: files.PathLike) -> dict[str, np.ndarray]:
    """Reads a file of arrays, name -> array; pickled objects are refused.

    Raises:
        UserError: the file is of another kind or damaged, or its package is missing.
    """
    path = epath.Path(path)
    if path.suffix not in SUFFIXES:
        raise UserError(f"{path} is no file of arrays: take one in {' or '.join(SUFFIXES)}")
    package = None if path.suffix == ".npz" else safetensors_package()
    try:
        content = path.read_bytes()
        return dict(package.load(content)) if package else _npz(content)
    except KeyError as error:
        raise UserError(f"{path} holds {error}, which NumPy does not know: save it in float32") from error
    except Exception as error:  # each format has its own kinds for a damaged file
        raise UserError(f"{path} cannot be read ({error}): fetch or write it anew") from error


def _npz(content: bytes) -> dict[str, np.ndarray]:
    """The arrays of an `.npz`; a small file may not become gigabytes."""
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        if sum(entry.file_size for entry in archive.infolist()) > max(20 * len(content), 2**30):
            raise ValueError("it would become more than twenty times as large")
    return dict(np.load(io.BytesIO(content), allow_pickle=False))


def read(path: files.PathLike) -> dict[str, dict[str, np.ndarray]]:
    """Reads the state dicts of a file.

    Returns:
        "G_ema", "G", "D" -> name -> array, as far as they are there.

    Raises:
        UserError: the file is of another kind or damaged, or holds something else.
    """
    networks: dict[str, dict[str, np.ndarray]] = {}
    for name, array in arrays(path).items():
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
    named = {f"{network}/{name}": array for network, of in networks.items() for name, array in of.items()}
    if path.suffix == ".npz":
        files.write_npz(path, **named)
    else:
        files.write_bytes(path, safetensors_package().save(named))


def safetensors_package() -> ModuleType:
    try:
        import safetensors.numpy
    except ImportError as error:
        raise UserError("a .safetensors file needs a package: install '.[convert]', or take .npz") from error
    return safetensors.numpy
