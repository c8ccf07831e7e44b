"""Verification benchmarks: pictures, and the pairs of them, or of templates, to be judged."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from absl import logging
from etils import epath
from jaxtyping import Int, Integer, UInt8

from sface_jax.core import files, pictures
from sface_jax.core.errors import Damaged, UserError
from sface_jax.data import dataset, folders, ijb, local, pairs, resize, splits
from sface_jax.data.pairs import Pairs
from sface_jax.verification import protocol


@dataclasses.dataclass(frozen=True)
class Benchmark:
    """Pictures and pairs.

    Attributes:
        name: what results are filed under.
        images: the pictures that occur in pairs, each once.
        pairs: positions among them.
        digest: SHA-256 over pictures and pairs.
        names: of the pictures.
        subjects: whom each picture shows, 0, 1, ...
        subjects_named: whether the pictures' names tell whom they show; else those joined by mated pairs are taken for
            one subject.
        file: SHA-256 of the file of pairs.
    """

    name: str
    images: UInt8[np.ndarray, "n s s 3"]
    pairs: Pairs
    digest: str
    names: Sequence[str]
    subjects: Integer[np.ndarray, " n"]
    subjects_named: bool
    file: str


@dataclasses.dataclass(frozen=True)
class TemplateBenchmark:
    """Templates and pairs of them, such as IJB-C's.

    Attributes:
        name: what results are filed under.
        images: of all templates, read when asked for.
        templates: what they belong to.
        digest: SHA-256 over the lists, and over the sizes and times of the pictures.
        file: SHA-256 over the hashes of the lists.
    """

    name: str
    images: ijb.Pictures
    templates: ijb.TemplateSet
    digest: str
    file: str


def open_benchmark(
    entry: str,
    workdir: epath.Path,
    size: int,
    folds: int = 10,
    root: str = "",
    crop: float = 1.0,
    uneven_folds: bool = False,
) -> Benchmark:
    """Opens a benchmark of pairs.

    Folds are those of the file. A file without folds, a list or a pack, is cut into `folds` in its order, as
    InsightFace does; unless some would have pairs of one kind only: then its pairs are dealt anew.

    Args:
        entry: "heldout" or "verification", the split of that name of `workdir/authentic`; or "name=pairs_file:folder",
            a list of pairs (see `pairs.read_pairs_file`) and the folder it speaks of; or such a file alone, which is
            then named after itself, or after its folder where it is a "pairs.txt"; or "name=pack.bin" or "pack.bin",
            InsightFace's pack.
        workdir: the work directory.
        size: side to which pictures are cut and resized.
        folds: folds for a file that has none or one (such as LFW's pairsDevTest.txt).
        root: the folder of pictures for a pairs file alone.
        crop: the share of each picture's side that is kept, see `resize.square`.
        uneven_folds: allow folds of unequal length, where a file without folds does not divide.

    Raises:
        UserError: the entry is malformed, or what it names is not there or cannot be read.
    """
    if entry in splits.JUDGING:
        return _of_dataset(entry, workdir, size, crop)
    name, pairs_file, folder = parse(entry, root)
    if pairs_file.endswith(".bin"):
        read = _pack(pairs_file, size, crop)
    else:
        paths, drawn = pairs.read_pairs_file(pairs_file, folder)
        images = np.stack([folders.read_picture(path, size, crop) for path in paths])
        # LFW's format names people; a list of paths need not
        subjects = None if pairs.is_list(pairs_file) else [path.parent.name for path in paths]
        read = _Read(images, drawn, [f"{path.parent.name}/{path.name}" for path in paths], subjects)
    return _benchmark(name, read, _sha256(pairs_file), folds, uneven_folds)


def open_templates(entry: str, size: int) -> TemplateBenchmark:
    """Opens a benchmark of templates, see `is_templates`.

    Args:
        entry: "name=templates:folder", a folder as `ijb.read` takes it.
        size: side to which pictures are aligned.

    Raises:
        UserError: the entry is malformed, or see `ijb.read`.
    """
    name, _, folder = parse(entry)
    found = ijb.read(folder)
    lists = hashlib.sha256("".join(f"{file} {of}" for file, of in sorted(found.sha256.items())).encode()).hexdigest()
    pictures_stamp = local.stamp(found.folder / picture for picture in found.names)
    digest = hashlib.sha256(f"{lists} {pictures_stamp}".encode()).hexdigest()
    return TemplateBenchmark(name, ijb.Pictures(found, size), found, digest, lists)


def is_templates(entry: str) -> bool:
    """Whether an entry of `config.benchmarks` names templates: "name=templates:folder"."""
    return entry.partition("=")[2].startswith("templates:")


def parse(entry: str, root: str = "") -> tuple[str, str, str]:
    """Splits an entry of `config.benchmarks` into its name, the file of pairs, and the folder of pictures.

    Raises:
        UserError: it is malformed.
    """
    if "=" in entry:
        name, _, rest = entry.partition("=")
        pairs_file, _, folder = rest.partition(":")
    else:
        path = epath.Path(entry)
        pairs_file, folder = entry, root
        name = path.resolve().parent.name if path.stem == "pairs" else path.stem
    if not (name and pairs_file and (folder or pairs_file.endswith(".bin"))) or "/" in name:
        raise UserError(
            f'config.benchmarks has {entry!r}: it must be "heldout", "name=pairs_file:folder", "name=pack.bin", '
            '"name=templates:folder", '
            "or a pairs file with its folder of pictures in --config.root"
        )
    return name, pairs_file, folder


class _Read(NamedTuple):
    """What a file of pairs holds; `subjects` are names, where they are known."""

    images: UInt8[np.ndarray, "n s s 3"]
    pairs: Pairs
    names: Sequence[str]
    subjects: Sequence[str] | None


def _of_dataset(name: str, workdir: epath.Path, size: int, crop: float) -> Benchmark:
    opened = dataset.open(workdir / "authentic", "workdir")
    if name not in opened.splits:
        raise UserError(
            f"{workdir / 'authentic'} has no identities for {name}: prepare it with --config.{name}_identities, "
            f"or leave {name} out of config.benchmarks"
        )
    split = opened[name]
    file = workdir / "authentic" / f"{name}_pairs.txt"
    drawn = pairs.read_split_pairs(file, split)
    used, positions = np.unique(np.concatenate([drawn.first, drawn.second]), return_inverse=True)
    first, second = np.split(positions, 2)
    images = split.images(used)
    if crop != 1:
        images = np.stack([resize.square(image, size, crop) for image in images])
    subjects = [split.class_names[label] for label in split.labels[used]]
    read = _Read(images, dataclasses.replace(drawn, first=first, second=second), split.names_of(used), subjects)
    return _benchmark(name, read, _sha256(file), drawn.folds, uneven=False)


def _pack(path: str, size: int, crop: float) -> _Read:
    """Opens InsightFace's pack."""
    contents, same = pairs.read_bin(path)
    positions = {content: number for number, content in enumerate(dict.fromkeys(contents))}
    images = np.empty((len(positions), size, size, 3), np.uint8)
    for number, content in enumerate(positions):
        try:
            images[number] = resize.square(pictures.decode(content), size, crop)
        except Damaged as error:
            raise Damaged(f"{path}: picture {contents.index(content)} {error}") from error
    found = np.array([positions[content] for content in contents], np.int64)
    names = [f"picture {contents.index(content)}" for content in positions]
    return _Read(images, Pairs(found[::2], found[1::2], same, 1), names, None)


def _benchmark(name: str, read: _Read, file: str, folds: int, uneven: bool) -> Benchmark:
    drawn = read.pairs
    if drawn.folds == 1:
        drawn = _in_folds(name, drawn, folds, uneven)
    digest = hashlib.sha256(np.ascontiguousarray(read.images).data)
    for part in (drawn.first, drawn.second, drawn.same):
        digest.update(np.ascontiguousarray(part, np.int64).data)
    if read.subjects is None:
        subjects = linked(drawn, len(read.images))
    else:
        subjects = np.unique(read.subjects, return_inverse=True)[1]
    named = read.subjects is not None
    return Benchmark(name, read.images, drawn, digest.hexdigest(), read.names, subjects, named, file)


def _in_folds(name: str, drawn: Pairs, folds: int, uneven: bool) -> Pairs:
    """Cuts pairs into folds in their order, or deals them anew where that parts mated from non-mated."""
    try:
        protocol.check_folds(len(drawn), folds, uneven)
    except UserError as error:
        raise UserError(f"{name}: {error}") from error
    if drawn.same.all() or not drawn.same.any():
        raise UserError(f"{name}: all {len(drawn)} pairs are of one kind: check the labels of its file")
    if all(part.any() and not part.all() for part in np.array_split(drawn.same, folds)):
        return dataclasses.replace(drawn, folds=folds)
    dealt = drawn.in_folds(folds)
    logging.info("%s: its pairs are dealt anew into %d folds, for in its order mated ones lie together", name, folds)
    if len(dealt) < len(drawn):
        logging.warning("%s: %d of %d pairs fill no round of folds", name, len(drawn) - len(dealt), len(drawn))
    if not len(dealt):
        raise UserError(f"{name} has too few pairs for {folds} folds")
    return dealt


def linked(drawn: Pairs, pictures: int) -> Int[np.ndarray, " n"]:
    """Subjects as far as the pairs tell them: pictures joined by mated pairs show one.

    Args:
        drawn: the pairs.
        pictures: how many pictures they speak of.

    Returns:
        The subject of each picture, 0, 1, ...
    """
    subject = np.arange(pictures)
    first, second = drawn.first[drawn.same], drawn.second[drawn.same]
    while True:  # each round the lowest number travels on by one pair, and by all those it has joined
        lowest = subject.copy()
        np.minimum.at(lowest, first, subject[second])
        np.minimum.at(lowest, second, subject[first])
        lowest = lowest[lowest]
        if np.array_equal(lowest, subject):
            return np.unique(subject, return_inverse=True)[1]
        subject = lowest


def _sha256(path: files.PathLike) -> str:
    return hashlib.sha256(epath.Path(path).read_bytes()).hexdigest()
