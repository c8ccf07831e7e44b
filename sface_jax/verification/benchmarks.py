"""Verification benchmarks: pictures, and the pairs of them to be judged."""

from __future__ import annotations

import dataclasses
import hashlib

import numpy as np
from absl import logging
from etils import epath
from jaxtyping import UInt8

from sface_jax.core import pictures
from sface_jax.core.errors import Damaged, UserError
from sface_jax.data import dataset, folders, pairs, resize, splits
from sface_jax.data.pairs import Pairs

PACK_FOLDS = 10


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
        entry: "heldout" or "verification", the split of that name of `workdir/authentic`; or "name=pairs_file:folder",
            a list of pairs (see `pairs.read_pairs_file`) and the folder it speaks of; or such a file alone, which is
            then named after itself, or after its folder where it is a "pairs.txt"; or "name=pack.bin" or "pack.bin",
            InsightFace's pack.
        workdir: the work directory.
        size: side to which pictures of a folder are cut and resized.
        folds: folds for a pairs file that has only one (such as LFW's pairsDevTest.txt).
        root: the folder of pictures for a pairs file alone.

    Raises:
        UserError: the entry is malformed, or what it names is not there or cannot be read.
    """
    if entry in splits.JUDGING:
        return _of_dataset(entry, workdir, folds)
    if "=" in entry:
        name, _, rest = entry.partition("=")
        pairs_file, _, folder = rest.partition(":")
    else:
        path = epath.Path(entry)
        pairs_file, folder = entry, root
        name = path.resolve().parent.name if path.stem == "pairs" else path.stem
    pack = pairs_file.endswith(".bin")
    if not (name and pairs_file and (folder or pack)) or "/" in name:
        raise UserError(
            f'config.benchmarks has {entry!r}: it must be "heldout", "name=pairs_file:folder", "name=pack.bin", '
            "or a pairs file with its folder of pictures in --config.root"
        )
    if pack:
        return _pack(name, pairs_file, size, folds)
    paths, drawn = pairs.read_pairs_file(pairs_file, folder)
    return _benchmark(name, np.stack([folders.read_picture(path, size) for path in paths]), drawn, folds)


def _of_dataset(name: str, workdir: epath.Path, folds: int) -> Benchmark:
    opened = dataset.open(workdir / "authentic", "workdir")
    if name not in opened.splits:
        raise UserError(
            f"{workdir / 'authentic'} has no identities for {name}: prepare it with --config.{name}_identities, "
            f"or leave {name} out of config.benchmarks"
        )
    split = opened[name]
    drawn = pairs.read_split_pairs(workdir / "authentic" / f"{name}_pairs.txt", split)
    used, positions = np.unique(np.concatenate([drawn.first, drawn.second]), return_inverse=True)
    first, second = np.split(positions, 2)
    return _benchmark(name, split.images(used), dataclasses.replace(drawn, first=first, second=second), folds)


def _benchmark(name: str, images: UInt8[np.ndarray, "n s s 3"], drawn: Pairs, folds: int) -> Benchmark:
    if drawn.folds == 1:
        dealt = drawn.in_folds(folds)
        if len(dealt) < len(drawn):
            logging.warning("%s: %d of %d pairs fill no round of folds", name, len(drawn) - len(dealt), len(drawn))
        drawn = dealt
    if not len(drawn):
        raise UserError(f"{name} has too few pairs for {folds} folds")
    digest = hashlib.sha256(np.ascontiguousarray(images).data)
    for part in (drawn.first, drawn.second, drawn.same):
        digest.update(np.ascontiguousarray(part, np.int64).data)
    return Benchmark(name, images, drawn, digest.hexdigest())


def _pack(name: str, path: str, size: int, folds: int) -> Benchmark:
    """Opens InsightFace's pack: folds of equal length in the order of the file, where its length allows."""
    contents, same = pairs.read_bin(path)
    positions = {content: number for number, content in enumerate(dict.fromkeys(contents))}
    images = np.empty((len(positions), size, size, 3), np.uint8)
    for number, content in enumerate(positions):
        try:
            images[number] = resize.square(pictures.decode(content), size)
        except Damaged as error:
            raise Damaged(f"{path}: picture {contents.index(content)} {error}") from error
    found = np.array([positions[content] for content in contents], np.int64)
    drawn = Pairs(found[::2], found[1::2], same, PACK_FOLDS if len(same) % PACK_FOLDS == 0 else 1)
    return _benchmark(name, images, drawn, folds)
