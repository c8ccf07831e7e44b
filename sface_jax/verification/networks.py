"""Finds the recognisers that a config names."""

from __future__ import annotations

from collections.abc import Sequence

from etils import epath

from sface_jax.core.errors import UserError
from sface_jax.recognition import network as recogniser


def where(name: str, workdir: epath.Path) -> epath.Path:
    """The folder of a network: a path is taken as it is, a name means `workdir/recognition/<name>`."""
    name = str(name)
    return epath.Path(name) if "/" in name else epath.Path(workdir) / "recognition" / name


def find(names: Sequence[str], workdir: epath.Path, key: str) -> dict[str, epath.Path]:
    """The folders of networks, by the last part of their names.

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
    missing = [str(name) for name, path in zip(names, paths, strict=True) if not path.is_dir()]
    if missing:
        raise UserError(
            f"there is no network {', '.join(missing)} under {epath.Path(workdir) / 'recognition'}: "
            f"train it first, or change --config.{key}"
        )
    found = {path.name: path for path in paths}
    if len(found) < len(paths):
        raise UserError(f"--config.{key} names two networks that end alike: {', '.join(map(str, names))}")
    return found


def load_all(found: dict[str, epath.Path], key: str) -> dict[str, recogniser.Network]:
    """Loads the networks that `find` found.

    Raises:
        UserError: a folder holds no trained recogniser.
    """
    return {name: recogniser.load(path, key) for name, path in found.items()}
