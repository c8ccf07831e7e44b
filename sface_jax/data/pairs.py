"""Verification pairs: drawn from a labelled split, read from a list in LFW's or another format, or from a pack.

A pack is InsightFace's `.bin`: a pickle of 2P encoded pictures, the first and second of each pair in turn, and P
booleans, whether both show one identity.
"""

from __future__ import annotations

import dataclasses
import pickle
import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from absl import logging
from etils import epath
from jaxtyping import Bool, Integer

from sface_jax.core import files
from sface_jax.core.errors import Damaged, UserError
from sface_jax.core.unpickling import ARRAYS, Array, Unpickler
from sface_jax.data import folders
from sface_jax.data.dataset import PictureSet
from sface_jax.data.sources import Source


@dataclasses.dataclass(frozen=True)
class Pairs:
    """Pairs of pictures, fold after fold; folds are of equal length, or the first P mod folds have one pair more.

    Attributes:
        first: position of each pair's first picture.
        second: position of its second picture.
        same: whether both show one identity (mated).
        folds: number of folds.
    """

    first: Integer[np.ndarray, " p"]
    second: Integer[np.ndarray, " p"]
    same: Bool[np.ndarray, " p"]
    folds: int

    def __len__(self) -> int:
        return len(self.same)

    def in_folds(self, folds: int) -> Pairs:
        """Deals the pairs anew into `folds` equal folds, mated and non-mated in turn (LFW's View 1 has one fold).

        Pairs that do not fill a round are left out.
        """
        order = self.dealt(folds)
        return Pairs(self.first[order], self.second[order], self.same[order], folds)

    def dealt(self, folds: int) -> Integer[np.ndarray, " k"]:
        """The places of the pairs that `in_folds` deals, in its order."""
        return _deal(np.flatnonzero(self.same), np.flatnonzero(~self.same), folds)


def _deal(mated: np.ndarray, non_mated: np.ndarray, folds: int) -> np.ndarray:
    """The order that gives every fold as many of each kind, mated first."""
    parts = [kind[: len(kind) // folds * folds].reshape(-1, folds).T for kind in (mated, non_mated)]
    return np.concatenate(parts, axis=1).reshape(-1)


def capacity(labels: Integer[np.ndarray, " n"], *, folds: int = 10, seed: int) -> int:
    """The largest `pairs_per_fold` (even) that `make_pairs` can draw with the same labels, folds and seed."""
    groups = _groups(labels, folds, seed)
    return min(2 * min(_possible(labels, group)) // (folds // len(groups)) for group in groups) // 2 * 2


def make_pairs(labels: Integer[np.ndarray, " n"], *, folds: int = 10, pairs_per_fold: int, seed: int) -> Pairs:
    """Draws pairs for a k-fold protocol, half of each fold mated and half non-mated, none twice.

    With at least two identities a fold, no identity is in two folds: the threshold chosen on nine folds meets people
    it has not seen. With fewer (ORL: 8 held-out identities, 10 folds) folds share identities and pictures, but no
    pair; the spread over such folds understates the uncertainty.

    Mated pairs are spread evenly over the identities, as far as each has pairs to give; non-mated pairs are uniform
    over the pairs of pictures.

    Args:
        labels: the identity of each picture.
        folds: number of folds.
        pairs_per_fold: pairs in a fold, even.
        seed: chooses the pairs.

    Returns:
        The pairs, `folds * pairs_per_fold` of them; positions refer to `labels`.

    Raises:
        UserError: the pictures cannot give that many pairs.
    """
    labels = np.asarray(labels)
    most = capacity(labels, folds=folds, seed=seed)
    if pairs_per_fold % 2 or not 0 < pairs_per_fold <= most:
        raise UserError(
            f"pairs_per_fold={pairs_per_fold} must be even and at least 2; {len(labels)} pictures of "
            f"{len(np.unique(labels))} identities give at most {most} in each of {folds} folds"
        )
    groups = _groups(labels, folds, seed)
    each = folds // len(groups)  # folds that a group fills
    parts = []
    for number, group in enumerate(groups):
        rng = np.random.default_rng((seed, number))
        count = pairs_per_fold // 2 * each
        drawn = np.concatenate([_mated(labels, group, count, rng), _non_mated(labels, group, count, rng)])
        parts.append(drawn[_deal(np.arange(count), np.arange(count, 2 * count), each)])
    first, second = np.concatenate(parts).T
    return Pairs(first, second, labels[first] == labels[second], folds)


def _groups(labels: np.ndarray, folds: int, seed: int) -> list[np.ndarray]:
    """The identities of each fold, or all of them once where they do not suffice for disjoint folds."""
    classes, counts = np.unique(labels, return_counts=True)
    if len(classes) < 2 * folds:
        return [classes]
    # Shuffled, then dealt from the one with most pictures to the one with fewest: folds of about equal size.
    order = np.random.default_rng(seed).permutation(len(classes))
    order = order[np.argsort(-counts[order], kind="stable")]
    return [classes[order[fold::folds]] for fold in range(folds)]


def _possible(labels: np.ndarray, group: np.ndarray) -> tuple[int, int]:
    """How many mated and non-mated pairs the pictures of some identities can form."""
    counts = np.array([np.sum(labels == label) for label in group])
    total = counts.sum()
    return int(np.sum(counts * (counts - 1) // 2)), int((total**2 - np.sum(counts**2)) // 2)


def _mated(labels: np.ndarray, group: np.ndarray, count: int, rng: np.random.Generator) -> np.ndarray:
    """Takes one pair of each identity, then a second of each that has one, and so on."""
    drawn, ranks = [], []
    for label in group:
        members = np.flatnonzero(labels == label)
        i, j = np.triu_indices(len(members), 1)
        order = rng.permutation(len(i))[:count]
        drawn.append(np.stack([members[i[order]], members[j[order]]], axis=1))
        ranks.append(np.arange(len(order)))
    ranks = np.concatenate(ranks)
    order = np.lexsort((rng.random(len(ranks)), ranks))
    return np.concatenate(drawn)[order[:count]]


def _non_mated(labels: np.ndarray, group: np.ndarray, count: int, rng: np.random.Generator) -> np.ndarray:
    """Draws pairs of pictures until `count` different ones show two identities."""
    members = np.flatnonzero(np.isin(labels, group))
    drawn = np.empty((0, 2), np.int64)
    while len(drawn) < count:
        candidates = np.sort(rng.choice(members, (4 * count, 2)), axis=1)
        candidates = candidates[labels[candidates[:, 0]] != labels[candidates[:, 1]]]
        drawn = np.concatenate([drawn, candidates])
        drawn = drawn[np.sort(np.unique(drawn, axis=0, return_index=True)[1])]
    return drawn[:count]


class _Line(NamedTuple):
    number: int
    first: tuple[str, int]
    second: tuple[str, int]


def read_pairs_file(path: files.PathLike, root: files.PathLike) -> tuple[list[epath.Path], Pairs]:
    """Reads LFW's `pairs.txt` or `pairsDevTest.txt`, or a list of paths, for a folder of pictures.

    LFW's: the first line is "folds<TAB>mated pairs a fold" or "mated pairs", then as many `name i j` and
    `name1 i name2 j` lines a fold; see `numbers` for which picture i of a name is.

    A list of paths has a line `path1 path2 same` for a pair, apart by commas, tabs or blanks, or two lines
    `path1 same` and `path2 same`, as CALFW and CPLFW have; `same` is 0 where the identities differ. It has one fold.

    Args:
        path: the file.
        root: the folder that the file speaks of.

    Returns:
        The pictures that the pairs name, each once, and the pairs as positions among them.

    Raises:
        UserError: the file is not in these formats, or names a picture that is not there.
    """
    rows = _rows(path)
    if _is_list(rows):
        return _read_list(path, rows, epath.Path(root))
    lines, folds = _parse(path, rows)
    people = {name for line in lines for name, _ in (line.first, line.second)}
    numbered = {
        name: dict(zip(numbers(name, [path.name for path in listed]), listed, strict=True))
        for name, listed in folders.scan(root).items()
        if name in people
    }
    pairs, keys = _resolve(path, lines, folds, numbered, f"under {root}")
    return keys, pairs


def is_list(path: files.PathLike) -> bool:
    """Whether a file of pairs is a list of paths, which does not tell whom they show; see `read_pairs_file`.

    Raises:
        UserError: there is no such file, or it holds no text.
    """
    return _is_list(_rows(path))


def read_split_pairs(path: files.PathLike, split: PictureSet | Source) -> Pairs:
    """Reads a pairs file in LFW's format for a split or a source; see `numbers` for which picture i of a name is.

    Returns:
        The pairs, as positions in the split.

    Raises:
        UserError: the file is not in LFW's format, or names a picture that is not there.
    """
    lines, folds = _parse(path, _rows(path))
    people = {name for line in lines for name, _ in (line.first, line.second)}
    order = np.argsort(split.labels, kind="stable")
    bounds = np.searchsorted(split.labels[order], np.arange(len(split.class_names) + 1))
    numbered = {
        name: dict(zip(numbers(name, _names(split, order[start:end])), order[start:end].tolist(), strict=True))
        for name, start, end in zip(split.class_names, bounds, bounds[1:], strict=False)
        if name in people
    }
    where = f"in split {split.name}" if isinstance(split, PictureSet) else "in the source"
    pairs, positions = _resolve(path, lines, folds, numbered, where)
    positions = np.array(positions)
    return dataclasses.replace(pairs, first=positions[pairs.first], second=positions[pairs.second])


def write_pairs_file(
    path: files.PathLike,
    pairs: Pairs,
    labels: Integer[np.ndarray, " n"],
    class_names: Sequence[str],
    names: Sequence[str] | None = None,
) -> None:
    """Writes pairs in LFW's format, pictures numbered within their class as the readers understand it, see `numbers`.

    Args:
        path: the file.
        pairs: as `make_pairs` gives them, each fold half mated.
        labels: the label of each picture that `pairs` refers to.
        class_names: names by label.
        names: the name of each picture within its class; without, they are taken to be in natural order, and not to
            be called as LFW's are.
    """
    labels = np.asarray(labels)
    number = np.empty(len(labels), np.int64)
    for label in np.unique(labels):
        members = np.flatnonzero(labels == label)
        number[members] = numbers(class_names[label], ["" if names is None else names[i] for i in members])
    lines = [f"{pairs.folds}\t{len(pairs) // pairs.folds // 2}"]
    for a, b, same in zip(pairs.first, pairs.second, pairs.same, strict=True):
        second = f"{number[b]}" if same else f"{class_names[labels[b]]}\t{number[b]}"
        lines.append(f"{class_names[labels[a]]}\t{number[a]}\t{second}")
    files.write_text(path, "\n".join(lines) + "\n")


def numbers(identity: str, names: Sequence[str]) -> list[int]:
    """The numbers by which LFW's format knows the pictures of an identity.

    Where all are called <identity>_<4 digits>, as LFW's are, it is that number; else their place, from 1, in the
    natural order of the names. So a file means the same pictures in a folder, a container and a dataset.
    """
    found = [re.fullmatch(rf"{re.escape(identity)}_([0-9]{{4}})(\.\w+)?", name) for name in names]
    if all(found):
        told = [int(match[1]) for match in found]
        if len(set(told)) == len(told):
            return told
        logging.warning("%s has several pictures of the same number: pairs count its pictures in order", identity)
    order = sorted(range(len(names)), key=lambda i: (folders.natural(names[i]), names[i]))
    return (np.argsort(order) + 1).tolist()


def _names(split: PictureSet | Source, positions: np.ndarray) -> list[str]:
    """The names of pictures within their identity."""
    if isinstance(split, PictureSet):
        return [name.rpartition("/")[2] for name in split.names_of(positions)]
    return [split.names[position] for position in positions.tolist()]


def _rows(path: files.PathLike) -> list[tuple[int, str]]:
    """The lines that are not empty, and their numbers."""
    path = epath.Path(path)
    if not path.exists():
        raise UserError(f"there is no pairs file {path}")
    try:
        text = path.read_bytes().decode("utf-8-sig")  # editors of Windows begin a file with a mark
    except UnicodeDecodeError as error:
        raise UserError(f"{path} is no pairs file: it holds no text") from error
    rows = [(number, line.rstrip()) for number, line in enumerate(text.splitlines(), start=1) if line.strip()]
    if not rows:
        raise UserError(f"{path} is empty: a pairs file has lines in LFW's format, or paths")
    return rows


def _is_list(rows: list[tuple[int, str]]) -> bool:
    fields = _fields(rows[0][1])
    return len(fields) > 1 and not all(map(_is_whole, fields))


def _fields(line: str) -> list[str]:
    for separator in ("\t", ","):
        if separator in line:
            return [field.strip() for field in line.split(separator)]
    return line.split()


def _is_whole(field: str) -> bool:
    return re.fullmatch("[0-9]{1,9}", field) is not None


def _read_list(path: files.PathLike, rows: list[tuple[int, str]], root: epath.Path) -> tuple[list[epath.Path], Pairs]:
    """Reads a list of paths, see `read_pairs_file`."""
    parsed = [(number, _fields(line)) for number, line in rows]
    if not _is_whole(parsed[0][1][-1]):
        parsed = parsed[1:]  # the names of a table's columns
    found = [(number, fields[:-1], fields[-1]) for number, fields in parsed]
    if all(len(names) == 1 for _, names, _ in found) and len(found) % 2 == 0:
        odd = next((n for (n, _, a), (_, _, b) in zip(found[::2], found[1::2], strict=True) if a != b), 0)
        if odd:
            raise UserError(f"{path}, line {odd}: the two pictures of a pair must have the same number behind them")
        found = [(n, a + b, same) for (n, a, same), (_, b, _) in zip(found[::2], found[1::2], strict=True)]
    positions: dict[str, int] = {}
    for number, names, same in found:
        if len(names) != 2 or not _is_whole(same):
            raise UserError(f"{path}, line {number} is no pair: write two paths, and 1 or 0 for the same person or not")
        for name in names:
            if name not in positions and not (root / name).exists():
                raise UserError(f"{path}, line {number}: there is no picture {name} under {root}")
            positions.setdefault(name, len(positions))
    first, second = (np.array([positions[names[side]] for _, names, _ in found], np.int64) for side in (0, 1))
    same = np.array([int(same) > 0 for _, _, same in found], bool)
    return [root / name for name in positions], Pairs(first, second, same, folds=1)


def _parse(path: files.PathLike, rows: list[tuple[int, str]]) -> tuple[list[_Line], int]:
    """The pairs that a file in LFW's format names, and the number of folds."""
    try:
        header = [int(field) for field in rows[0][1].split()]
        folds, mated = header if len(header) == 2 else (1, *header)
        if folds < 1 or mated < 1:
            raise ValueError(f"the first line is {rows[0][1]!r}")
        lines = [_line(number, row) for number, row in rows[1:]]
    except (ValueError, IndexError) as error:
        raise UserError(f"{path} is no pairs file in LFW's format ({error})") from error
    for position, line in enumerate(lines):
        if (position // mated % 2 == 0) != (line.first[0] == line.second[0]):
            raise UserError(f"{path}, line {line.number}: each fold lists {mated} mated, then {mated} non-mated pairs")
    if len(lines) != 2 * folds * mated:
        raise UserError(f"{path} lists {len(lines)} pairs, its first line promises {2 * folds * mated}")
    return lines, folds


def _line(number: int, row: str) -> _Line:
    fields = row.split("\t") if "\t" in row else row.split()
    if len(fields) == 3:
        fields.insert(2, fields[0])
    if len(fields) != 4:
        raise ValueError(f"line {number} has {len(fields)} fields")
    return _Line(number, (fields[0], int(fields[1])), (fields[2], int(fields[3])))


def _resolve(
    path: files.PathLike, lines: list[_Line], folds: int, numbered: Mapping[str, Mapping[int, object]], where: str
) -> tuple[Pairs, list]:
    """Turns names and numbers into positions in the list of the pictures that occur."""
    positions: dict[tuple[str, int], int] = {}
    found: list = []
    for line in lines:
        for name, number in (line.first, line.second):
            if (name, number) in positions:
                continue
            if number not in numbered.get(name, {}):
                raise UserError(f"{path}, line {line.number}: there is no picture {number} of {name} {where}")
            positions[name, number] = len(found)
            found.append(numbered[name][number])
    first = np.array([positions[line.first] for line in lines], np.int64)
    second = np.array([positions[line.second] for line in lines], np.int64)
    same = np.array([line.first[0] == line.second[0] for line in lines], bool)
    return Pairs(first, second, same, folds), found


def read_bin(path: files.PathLike) -> tuple[list[bytes], Bool[np.ndarray, " p"]]:
    """Reads a verification pack, as Python 2 or 3 wrote it; nothing in it is run.

    Args:
        path: a `.bin`; its pictures are bytes, bytearrays or one-dimensional arrays of uint8.

    Returns:
        2P encoded pictures (those of pair i are 2i and 2i + 1; one that occurs twice in the file may be one object),
        and whether each pair is mated.

    Raises:
        UserError: there is no such file.
        Damaged: it is none of a pack, cut short, or would call something.
    """
    path = epath.Path(path)
    if not path.exists():
        raise UserError(f"there is no pack of pairs {path}")
    with path.open("rb") as file:
        try:
            contents, same = Unpickler(file, ARRAYS, encoding="bytes").load()
            return _pictures(contents), _booleans(same, len(contents))
        except UserError as error:
            raise Damaged(f"{path} {error}") from error
        except EOFError as error:
            raise Damaged(f"{path} is cut short, or no pack of pairs: fetch it again") from error
        except Exception as error:  # what damaged opcodes lead to may be any exception
            raise Damaged(f"{path} is damaged, or no pack of pairs ({type(error).__name__}): fetch it again") from error


def _pictures(contents: Any) -> list[bytes]:
    if not isinstance(contents, list | tuple):
        raise Damaged("holds no list of pictures")
    made: dict[int, bytes] = {}  # the pickle may name a picture many times: it is copied once
    for content in contents:
        if id(content) in made:
            continue
        value = content.value if isinstance(content, Array) else content
        if isinstance(value, np.ndarray) and value.dtype == np.uint8 and value.ndim == 1:
            value = value.tobytes()
        if not isinstance(value, bytes | bytearray):
            raise Damaged("holds something else than encoded pictures")
        made[id(content)] = bytes(value)
    return [made[id(content)] for content in contents]


def _booleans(same: Any, pictures: int) -> Bool[np.ndarray, " p"]:
    values = same.value.tolist() if isinstance(same, Array) and same.value.ndim == 1 else same
    if not isinstance(values, list | tuple) or not all(type(value) in (bool, int, float) for value in values):
        raise Damaged("holds no list of booleans")
    if pictures % 2:
        raise Damaged(f"holds {pictures} pictures, an odd number, where each pair has two")
    if pictures != 2 * len(values) or not pictures:
        raise Damaged(f"holds {pictures} pictures and {len(values)} labels, not two pictures for each")
    if not all(value in (0, 1) for value in values):
        raise Damaged("has labels other than true and false")
    return np.array(values, bool)


def write_bin(path: files.PathLike, images: Sequence[bytes], same: Bool[np.ndarray, " p"]) -> None:
    """Writes a verification pack that InsightFace opens, `pickle.load(file, encoding="bytes")`.

    Args:
        path: the `.bin`; it appears whole or not at all.
        images: 2P encoded pictures; those of pair i are 2i and 2i + 1.
        same: whether each pair is mated.
    """
    if len(images) != 2 * len(same):
        raise ValueError(f"{len(images)} pictures are not two for each of {len(same)} pairs")
    files.write_bytes(path, pickle.dumps((list(images), np.asarray(same, bool).tolist()), protocol=4))
