"""Verification benchmarks: pictures, and the pairs of them, or of templates, to be judged."""

from __future__ import annotations

import dataclasses
import hashlib
import re
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from absl import logging
from etils import epath
from jaxtyping import Int, Integer

from sface_jax.core import files
from sface_jax.core.errors import UserError
from sface_jax.data import dataset, ijb, local, pairs, splits
from sface_jax.data.pairs import Pairs
from sface_jax.verification import protocol
from sface_jax.verification.pictures import Pictures


@dataclasses.dataclass(frozen=True)
class Benchmark:
    """Pictures and pairs.

    Attributes:
        name: what results are filed under.
        images: the pictures that occur in pairs, each once.
        pairs: positions among them.
        digest: SHA-256 over the encoded pictures and the pairs.
        subjects: whom each picture shows, 0, 1, ...
        subjects_named: whether the pictures' names tell whom they show; else those joined by mated pairs are taken for
            one subject.
        file: SHA-256 of the file of pairs.
        places: of the pairs in the file, from 0; not in rising order where they were dealt anew.
        left_out: how many pairs of the file are in no fold.
    """

    name: str
    images: Pictures
    pairs: Pairs
    digest: str
    subjects: Integer[np.ndarray, " n"]
    subjects_named: bool
    file: str
    places: Integer[np.ndarray, " p"]
    left_out: int

    @property
    def crop(self) -> float:
        """The share of the pictures' side that is kept."""
        return self.images.crop

    def at(self, size: int, crop: float) -> Benchmark:
        """The same with its pictures cut and resized otherwise, see `Pictures`."""
        return dataclasses.replace(self, images=dataclasses.replace(self.images, size=size, crop=crop))


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
    crop: float = 1.0

    def at(self, size: int, crop: float = 1.0) -> TemplateBenchmark:
        """The same with its pictures aligned to another size; they are never cropped."""
        return dataclasses.replace(self, images=ijb.Pictures(self.templates, size))


AnyBenchmark = Benchmark | TemplateBenchmark


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
        UserError: the entry is malformed, `crop` is out of (0, 4], or what it names is not there or cannot be read.
    """
    if not 0 < crop <= 4:
        raise UserError(f"config.crop is {crop}: the share of the side to keep lies above 0 and up to 4")
    if is_templates(entry):
        raise UserError(f"{entry} names templates, which have no place here: name pairs")
    if entry in splits.JUDGING:
        name, read = entry, _of_dataset(entry, workdir)
    else:
        name, pairs_file, folder = parse(entry, root)
        read = _pack(pairs_file) if pairs_file.endswith(".bin") else _list(pairs_file, folder)
    drawn, places = read.pairs, np.arange(len(read.pairs))
    if drawn.folds == 1:
        drawn, places = _in_folds(name, drawn, folds, uneven_folds)
    images = Pictures(read.content, read.names, read.where, size, crop)
    digest = hashlib.sha256(images.digest())
    for part in (drawn.first, drawn.second, drawn.same):
        digest.update(np.ascontiguousarray(part, np.int64).data)
    named = read.subjects is not None
    return Benchmark(
        name,
        images,
        drawn,
        digest.hexdigest(),
        subjects=np.unique(read.subjects, return_inverse=True)[1] if named else linked(drawn, len(images)),
        subjects_named=named,
        file=hashlib.sha256(epath.Path(read.file).read_bytes()).hexdigest(),
        places=places,
        left_out=len(read.pairs) - len(drawn),
    )


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
    stamp = local.stamp(found.folder / picture for picture in found.names)
    digest = hashlib.sha256(f"{lists} {stamp}".encode()).hexdigest()
    return TemplateBenchmark(name, ijb.Pictures(found, size), found, digest, lists)


def distinct(names: Sequence[str]) -> None:
    """Refuses benchmarks of one name, whose results would take each other's place.

    Raises:
        UserError: see above.
    """
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice:
        raise UserError(f"two benchmarks are called {twice}: write name=... before one of them")


def is_templates(entry: str) -> bool:
    """Whether an entry of `config.benchmarks` names templates: "name=templates:folder"."""
    return "/" not in entry.partition("=")[0] and entry.partition("=")[2].startswith("templates:")


def parse(entry: str, root: str = "") -> tuple[str, str, str]:
    """Splits an entry of `config.benchmarks` into its name, the file of pairs, and the folder of pictures.

    Raises:
        UserError: it is malformed.
    """
    name, given, rest = entry.partition("=")
    if given and "/" not in name:
        # at the last colon that is not that of gs://
        apart = re.fullmatch("(.+):(?!//)(.+)", rest)
        pairs_file, folder = apart.groups() if apart else (rest, root)
    else:
        path = epath.Path(entry)
        pairs_file, folder = entry, root
        name = files.absolute(path).parent.name if path.stem == "pairs" else path.stem
    if not (name and pairs_file and (folder or pairs_file.endswith(".bin"))):
        raise UserError(
            f'config.benchmarks has {entry!r}: it must be "heldout", "name=pairs_file:folder", "name=pack.bin", '
            '"name=templates:folder", '
            "or a pairs file with its folder of pictures in --config.root"
        )
    if not name.isprintable() or len(name) > 100:
        raise UserError(f"{name[:20]!r}... is no name for a benchmark: take up to 100 characters that can be printed")
    return name, pairs_file, folder


class _Read(NamedTuple):
    """What a file of pairs speaks of; `where` is for error lines, `subjects` are names, where they are known."""

    file: files.PathLike
    content: Callable[[int], bytes]
    names: Sequence[str]
    where: str
    pairs: Pairs
    subjects: Sequence[str] | None


def _of_dataset(name: str, workdir: epath.Path) -> _Read:
    opened = dataset.open(workdir / "authentic", "workdir")
    if name not in opened.splits:
        raise UserError(
            f"{workdir / 'authentic'} has no identities for {name}: prepare it with --config.{name}_identities, "
            f"or leave {name} out of config.benchmarks"
        )
    split, file = opened[name], workdir / "authentic" / f"{name}_pairs.txt"
    drawn = pairs.read_split_pairs(file, split)
    used, positions = np.unique(np.concatenate([drawn.first, drawn.second]), return_inverse=True)
    first, second = np.split(positions, 2)
    return _Read(
        file,
        lambda index: split.encoded(int(used[index])),
        split.names_of(used),
        str(workdir / "authentic"),
        dataclasses.replace(drawn, first=first, second=second),
        [split.class_names[label] for label in split.labels[used]],
    )


def _list(file: str, folder: str) -> _Read:
    """Opens pairs in LFW's format, or a list of paths."""
    paths, drawn = pairs.read_pairs_file(file, folder)
    # LFW's format names people; a list of paths need not
    subjects = None if pairs.is_list(file) else [path.parent.name for path in paths]
    names = [str(path.relative_to(folder)) for path in paths]
    return _Read(file, lambda index: paths[index].read_bytes(), names, folder, drawn, subjects)


def _pack(file: str) -> _Read:
    """Opens InsightFace's pack."""
    contents, same = pairs.read_bin(file)
    first_at: dict[bytes, int] = {}  # each different picture: its first place in the file
    for place, content in enumerate(contents):
        first_at.setdefault(content, place)
    number = {content: i for i, content in enumerate(first_at)}
    found = np.array([number[content] for content in contents], np.int64)
    names = [f"picture {place}" for place in first_at.values()]
    return _Read(file, list(first_at).__getitem__, names, file, Pairs(found[::2], found[1::2], same, 1), None)


def _in_folds(name: str, drawn: Pairs, folds: int, uneven: bool) -> tuple[Pairs, Int[np.ndarray, " p"]]:
    """Cuts pairs into folds in their order, or deals them anew where that parts mated from non-mated.

    Returns:
        The pairs, and the place where each stood before.
    """
    try:
        protocol.check_folds(len(drawn), folds, uneven, flag="--config.uneven_folds=True")
    except UserError as error:
        raise UserError(f"{name}: {error}") from error
    if drawn.same.all() or not drawn.same.any():
        raise UserError(f"{name}: all {len(drawn)} pairs are of one kind: check the labels of its file")
    if all(part.any() and not part.all() for part in np.array_split(drawn.same, folds)):
        return dataclasses.replace(drawn, folds=folds), np.arange(len(drawn))
    fewest = min(int(drawn.same.sum()), int((~drawn.same).sum()))
    if fewest < folds:
        raise UserError(f"{name}: {fewest} pairs of one kind do not fill {folds} folds: set --config.folds={fewest}")
    places = drawn.dealt(folds)
    logging.warning(
        "%s: its pairs are dealt anew into %d folds, for in its order mated ones lie together; published evaluators "
        "keep the order, and tell other figures",
        *(name, folds),
    )
    if len(places) < len(drawn):
        logging.warning("%s: %d of %d pairs fill no round of folds", name, len(drawn) - len(places), len(drawn))
    return drawn.in_folds(folds), places


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
