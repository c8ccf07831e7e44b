"""Verification benchmarks: pictures, and the pairs of them to be judged."""

from __future__ import annotations

import dataclasses
import hashlib

import numpy as np
from etils import epath
from jaxtyping import UInt8

from sface_jax.core.errors import UserError
from sface_jax.data import dataset, folders, pairs
from sface_jax.data.pairs import Pairs

HELDOUT = "heldout"


@dataclasses.dataclass(frozen=True)
class Benchmark:
    """Pictures and pairs.

    Attributes:
        name: what results are filed under.
        images: the pictures that occur in pairs, each once.
        pairs: positions among them.
        digest: SHA-256 over pictures and pairs.
    """

    name: str
    images: UInt8[np.ndarray, "n s s 3"]
    pairs: Pairs
    digest: str


def open_benchmark(entry: str, workdir: epath.Path, size: int, folds: int = 10, root: str = "") -> Benchmark:
    """Opens a benchmark.

    Args:
        entry: "heldout", the held-out identities of `workdir/authentic`; or "name=pairs_file:folder", a file in LFW's
            format and the folder <folder>/<identity>/<picture> it speaks of; or such a file alone, which is then named
            after itself, or after its folder where it is a "pairs.txt".
        workdir: the work directory.
        size: side to which pictures of a folder are cut and resized.
        folds: folds for a pairs file that has only one (such as LFW's pairsDevTest.txt).
        root: the folder of pictures for a pairs file alone.

    Raises:
        UserError: the entry is malformed, or what it names is not there or cannot be read.
    """
    if entry == HELDOUT:
        return _heldout(workdir, folds)
    if "=" in entry:
        name, _, rest = entry.partition("=")
        pairs_file, _, folder = rest.partition(":")
    else:
        path = epath.Path(entry)
        pairs_file, folder = entry, root
        name = path.resolve().parent.name if path.stem == "pairs" else path.stem
    if not (name and pairs_file and folder) or "/" in name:
        raise UserError(
            f'config.benchmarks has {entry!r}: it must be "heldout", "name=pairs_file:folder", '
            "or a pairs file with its folder of pictures in --config.root"
        )
    paths, drawn = pairs.read_pairs_file(pairs_file, folder)
    return _benchmark(name, np.stack([_read(path, size) for path in paths]), drawn, folds)


def _heldout(workdir: epath.Path, folds: int) -> Benchmark:
    opened = dataset.open(workdir / "authentic", "workdir")
    if HELDOUT not in opened.splits:
        raise UserError(
            f"{workdir / 'authentic'} holds no identities out: prepare it with --config.heldout_identities, "
            f"or leave {HELDOUT} out of config.benchmarks"
        )
    split = opened[HELDOUT]
    drawn = pairs.read_split_pairs(workdir / "authentic" / "heldout_pairs.txt", split)
    used, positions = np.unique(np.concatenate([drawn.first, drawn.second]), return_inverse=True)
    first, second = np.split(positions, 2)
    return _benchmark(HELDOUT, split.images(used), dataclasses.replace(drawn, first=first, second=second), folds)


def _benchmark(name: str, images: UInt8[np.ndarray, "n s s 3"], drawn: Pairs, folds: int) -> Benchmark:
    if drawn.folds == 1:
        drawn = drawn.in_folds(folds)
    digest = hashlib.sha256(np.ascontiguousarray(images).data)
    for part in (drawn.first, drawn.second, drawn.same):
        digest.update(np.ascontiguousarray(part, np.int64).data)
    return Benchmark(name, images, drawn, digest.hexdigest())


def _read(path: epath.Path, size: int) -> UInt8[np.ndarray, "s s 3"]:
    try:
        return folders.read_picture(path, size)
    except OSError as error:
        raise UserError(f"{path} cannot be read as a picture: mend it, or leave out its pairs") from error
