"""The pictures of a container, by identity: contiguous labels in ascending order, names of identities and pictures."""

from __future__ import annotations

import collections
import os
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from absl import logging
from jaxtyping import Int32, Int64

from sface_jax.core.errors import Damaged
from sface_jax.data.folders import natural

_LONGEST = 255  # bytes of a file's name


class Listing(NamedTuple):
    """What a `Source` tells of its pictures, and where they lie.

    Attributes:
        order: of each picture, its place in the container.
        labels: the label of each picture, ascending.
        class_names: the identities, by label.
        names: the name of each picture, none twice within an identity.
    """

    order: Int64[np.ndarray, " n"]
    labels: Int32[np.ndarray, " n"]
    class_names: list[str]
    names: list[str]


def by_number(
    numbers: Sequence[int] | Int64[np.ndarray, " n"],
    identities: Sequence[str] | None,
    names: Sequence[str],
    where: str,
) -> Listing:
    """Lists pictures by the number of their identity.

    Args:
        numbers: of each picture, as they lie; any whole numbers from 0.
        identities: of each picture, a name that goes with the number; where names and numbers do not go together, or
            without names, an identity is named by its number.
        names: the name of each picture.
        where: the container, for what is told.

    Raises:
        Damaged: a number is negative, or a name is none that a file could have.
    """
    numbers = np.asarray(numbers, np.int64)
    if len(numbers) == 0 or numbers.min() < 0:
        raise Damaged(f"{where} has a negative label" if len(numbers) else f"{where} holds no pictures")
    classes, labels = np.unique(numbers, return_inverse=True)
    class_names = _named(labels, identities, len(classes), where) if identities is not None else None
    if class_names is None:
        width = len(str(classes[-1]))
        class_names = [f"{number:0{width}d}" for number in classes.tolist()]
    return _listing(labels, class_names, names, where)


def by_identity(identities: Sequence[str], names: Sequence[str], where: str) -> Listing:
    """Lists pictures by the name of their identity, in natural order; see `by_number`."""
    if not identities:
        raise Damaged(f"{where} holds no pictures")
    class_names = [_checked(name, where) for name in dict.fromkeys(identities)]
    class_names.sort(key=lambda name: (natural(name), name))
    label = {name: number for number, name in enumerate(class_names)}
    return _listing(np.array([label[name] for name in identities]), class_names, names, where)


def identities(paths: Sequence[str], where: str) -> list[str]:
    """The identity of each picture by its path: the folder it lies in.

    Raises:
        Damaged: a picture lies in no folder, or two folders of pictures have the same name.
    """
    folders = [os.path.dirname(path) for path in paths]
    last = {folder: os.path.basename(folder) for folder in set(folders)}
    if "" in last.values():
        raise Damaged(f"{where} has no labels, and pictures in no folder that would tell the identity")
    if len(set(last.values())) < len(last):
        raise Damaged(f"{where} has no labels, and several folders of pictures that have the same name")
    return [last[folder] for folder in folders]


def _named(labels: np.ndarray, identities: Sequence[str], classes: int, where: str) -> list[str] | None:
    found = dict(zip(labels.tolist(), identities, strict=True))
    agree = all(found[label] == name for label, name in zip(labels.tolist(), identities, strict=True))
    if not agree or len(set(found.values())) < classes:
        logging.warning("%s: names and labels of identities do not go together; they are named by their labels", where)
        return None
    return [_checked(found[label], where) for label in range(classes)]


def _listing(labels: np.ndarray, class_names: list[str], names: Sequence[str], where: str) -> Listing:
    order = np.argsort(labels, kind="stable")
    labels = labels[order].astype(np.int32)
    listed = [_checked(names[position], where) for position in order.tolist()]
    return Listing(order, labels, class_names, _distinct(labels.tolist(), listed, where))


def _distinct(labels: list[int], names: list[str], where: str) -> list[str]:
    """Numbers the pictures of an identity that have the same name."""
    taken = set(zip(labels, names, strict=True))
    if len(taken) == len(names):
        return names
    met: collections.Counter[tuple[int, str]] = collections.Counter()
    made, altered = [], 0
    for label, name in zip(labels, names, strict=True):
        met[label, name] += 1
        if met[label, name] > 1:
            stem, suffix = os.path.splitext(name)
            while (label, new := f"{stem}-{met[label, name]}{suffix}") in taken:
                met[label, name] += 1
            taken.add((label, new))
            name, altered = new, altered + 1
        made.append(name)
    logging.warning(
        "%s: %d pictures have the name of another one of their identity; they were numbered", where, altered
    )
    return made


def _checked(name: str, where: str) -> str:
    if not usable(name):
        raise Damaged(f"{where} has the name {ascii(name[:80])}, which no file may have")
    return name


def usable(name: str) -> bool:
    """Whether a file or folder may have the name: one that is seen, and does not lead elsewhere."""
    plain = name.isprintable() and not name.startswith(".") and "/" not in name and "\\" not in name
    return plain and 0 < len(name.encode()) <= _LONGEST


def is_number(field: str) -> bool:
    """Whether a field of a list is a number."""
    try:
        float(field)
    except ValueError:
        return False
    return True
