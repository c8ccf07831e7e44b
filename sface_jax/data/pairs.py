"""Verification pairs: drawn from a labelled split, or read from a file in LFW's format."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from etils import epath
from jaxtyping import Bool, Integer

from sface_jax.core import files
from sface_jax.core.errors import UserError
from sface_jax.data import folders
from sface_jax.data.dataset import Split


@dataclasses.dataclass(frozen=True)
class Pairs:
    """Pairs of pictures, fold after fold; folds are of equal length.

    Attributes:
        first: position of each pair's first picture.
        second: position of its second picture.
        same: whether both show one identity (mated).
        folds: number of folds; fold f is pairs [f*P/folds, (f+1)*P/folds).
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
        order = _deal(np.flatnonzero(self.same), np.flatnonzero(~self.same), folds)
        return Pairs(self.first[order], self.second[order], self.same[order], folds)


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
    """Reads LFW's `pairs.txt` or `pairsDevTest.txt` for a folder of pictures.

    Picture i of a name is the file `<name>/<name>_<i, 4 digits>.*`; in a folder named otherwise it is the i-th
    picture in natural order, from 1.

    Args:
        path: the file; its first line is "folds<TAB>mated pairs a fold" or "mated pairs", then as many
            `name i j` and `name1 i name2 j` lines a fold.
        root: the folder of `<identity>/<picture>` files.

    Returns:
        The pictures that the pairs name, each once, and the pairs as positions among them.

    Raises:
        UserError: the file is not in this format, or names a picture that is not there.
    """
    lines, folds = _parse(path)
    people = {name for line in lines for name, _ in (line.first, line.second)}
    numbered = {name: _numbered(listed, name) for name, listed in folders.scan(root).items() if name in people}
    pairs, keys = _resolve(path, lines, folds, numbered, f"under {root}")
    return keys, pairs


def read_split_pairs(path: files.PathLike, split: Split) -> Pairs:
    """Reads a pairs file for a dataset's split; picture i of a name is its i-th in the split, from 1.

    Returns:
        The pairs, as positions in the split.

    Raises:
        UserError: the file is not in LFW's format, or names a picture that is not there.
    """
    lines, folds = _parse(path)
    numbered = {
        split.class_names[label]: dict(enumerate(np.flatnonzero(split.labels == label).tolist(), start=1))
        for label in split.classes
    }
    pairs, positions = _resolve(path, lines, folds, numbered, f"in split {split.name}")
    positions = np.array(positions)
    return dataclasses.replace(pairs, first=positions[pairs.first], second=positions[pairs.second])


def write_pairs_file(
    path: files.PathLike, pairs: Pairs, labels: Integer[np.ndarray, " n"], class_names: Sequence[str]
) -> None:
    """Writes pairs in LFW's format, pictures numbered from 1 within their class.

    Args:
        path: the file.
        pairs: as `make_pairs` gives them, each fold half mated.
        labels: the label of each picture that `pairs` refers to.
        class_names: names by label.
    """
    labels = np.asarray(labels)
    number = np.empty(len(labels), np.int64)
    for label in np.unique(labels):
        members = np.flatnonzero(labels == label)
        number[members] = np.arange(1, len(members) + 1)
    lines = [f"{pairs.folds}\t{len(pairs) // pairs.folds // 2}"]
    for a, b, same in zip(pairs.first, pairs.second, pairs.same, strict=True):
        second = f"{number[b]}" if same else f"{class_names[labels[b]]}\t{number[b]}"
        lines.append(f"{class_names[labels[a]]}\t{number[a]}\t{second}")
    files.write_text(path, "\n".join(lines) + "\n")


def _parse(path: files.PathLike) -> tuple[list[_Line], int]:
    """The pairs that the file names, and the number of folds."""
    path = epath.Path(path)
    if not path.exists():
        raise UserError(f"there is no pairs file {path}")
    rows = [(number, line) for number, line in enumerate(path.read_text().splitlines(), start=1) if line.strip()]
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


def _numbered(listed: list[epath.Path], name: str) -> dict[int, epath.Path]:
    """A person's pictures by number: LFW's own where the files are named so, else counted from 1."""
    prefix = f"{name}_"
    tails = [path.stem.removeprefix(prefix) if path.stem.startswith(prefix) else "" for path in listed]
    if all(len(tail) == 4 and tail.isdigit() for tail in tails):
        return {int(tail): path for tail, path in zip(tails, listed, strict=True)}
    return dict(enumerate(listed, start=1))


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
