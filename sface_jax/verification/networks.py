"""Finds the recognisers that a config names."""

from __future__ import annotations

from collections.abc import Sequence

from etils import epath

from sface_jax.core.errors import UserError
from sface_jax.recognition.network import Network, OpenNetwork, load


def where(name: str, workdir: epath.Path) -> epath.Path:
    """Where a network lies: in `workdir/recognition/<name>`, or at the path that the name is."""
    trained = epath.Path(workdir) / "recognition" / str(name)
    path = epath.Path(str(name))
    return path if "/" in str(name) or (path.exists() and not trained.exists()) else trained


def find(names: Sequence[str], workdir: epath.Path, key: str) -> dict[str, epath.Path]:
    """The folders or files of networks, by the last part of their names, without a suffix.

    Args:
        names: names or paths.
        workdir: the work directory.
        key: the config key that names them, for the error line.

    Raises:
        UserError: none is named, one is not there, or two have the same last name.
    """
    if not names:
        raise UserError(f"no network is named: set --config.{key} to names under {workdir}/recognition, or to paths")
    paths = [where(name, workdir) for name in names]
    missing = [str(name) for name, path in zip(names, paths, strict=True) if not path.exists()]
    if missing:
        raise UserError(
            f"there is no network {', '.join(missing)} under {epath.Path(workdir) / 'recognition'}: "
            f"train it first, or change --config.{key}"
        )
    found = {path.name if path.is_dir() else path.stem: path for path in paths}
    if len(found) < len(paths):
        raise UserError(f"--config.{key} names two networks that end alike: {', '.join(map(str, names))}")
    return found


def load_all(found: dict[str, epath.Path], key: str, open_network: OpenNetwork = load) -> dict[str, Network]:
    """Loads the networks that `find` found.

    Raises:
        UserError: one of them is no trained recogniser.
    """
    return {name: open_network(str(path), key) for name, path in found.items()}
