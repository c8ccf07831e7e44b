"""Files of facial landmarks: five points a picture, in the order of `data/align.py`.

One line a picture: its name, then x1 y1 ... x5 y5, between tabs, commas or spaces. A line of column names may come
first, and before it a line that counts the pictures, as in CelebA's `list_landmarks_celeba.txt`. The name is
`<identity>/<picture>`, with any folders before it, or the picture's file name alone where no other has it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np
from absl import logging
from etils import epath
from jaxtyping import Bool, Float32, Int

from sface_jax.core import files
from sface_jax.core.errors import Damaged, UserError
from sface_jax.data import listing
from sface_jax.data.align import Landmarks

COLUMNS = "left_eye right_eye nose mouth_left mouth_right"
_POINTS = 5


def read(path: files.PathLike) -> dict[str, Landmarks]:
    """Reads a file of landmarks: name -> float32 [5, 2], x and y in pixels.

    Raises:
        UserError: the file is missing or empty, or most of its faces have left and right confused.
        Damaged: a line is not of the format, names a picture again, or lines are missing.
    """
    path = epath.Path(path)
    if not path.exists():
        raise UserError(f"there is no landmarks file {path}")
    found: dict[str, Landmarks] = {}
    expected = None
    try:
        lines = path.read_text().splitlines()
    except UnicodeDecodeError as error:
        raise Damaged(f"{path} is no text of landmarks ({error})") from error
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            if not found and line.strip().isdecimal():
                expected = int(line)
                continue
            if not found and _names_columns(line):
                continue
            name, points = _parse(line)
            if name in found:
                raise ValueError(f"{name} has landmarks already")
        except ValueError as error:
            raise Damaged(f"{path}, line {number}: {error}") from error
        found[name] = points
    if not found:
        raise UserError(f"{path} holds no landmarks: write a line `name x1 y1 ... x5 y5` for each picture")
    if expected is not None and expected != len(found):
        raise Damaged(f"{path} holds landmarks of {len(found)} pictures, its first line promises {expected}")
    _check_order(path, found)
    return found


def write(path: files.PathLike, landmarks: Mapping[str, Landmarks]) -> None:
    """Writes a file that `read` reads, between tabs, to a hundredth of a pixel; it appears whole.

    Args:
        path: the file.
        landmarks: name, as `<identity>/<picture>` -> landmarks.

    Raises:
        UserError: a name has a tab or a line break in it.
    """
    header = "\t".join(["name", *(f"{point}_{axis}" for point in COLUMNS.split() for axis in "xy")])
    rows = [header]
    for name, points in landmarks.items():
        if len(f"{name}.".splitlines()) > 1 or "\t" in name:
            raise UserError(f"the name {name!r} has a tab or a line break in it: rename the picture")
        rows.append("\t".join([name, *(f"{value:.2f}" for value in points.ravel())]))
    files.write_text(path, "\n".join(rows) + "\n")


def match(
    landmarks: Mapping[str, Landmarks],
    class_names: Sequence[str],
    labels: Int[np.ndarray, " n"],
    names: Sequence[str],
) -> tuple[Float32[np.ndarray, "n 5 2"], Bool[np.ndarray, " n"]]:
    """Finds the landmarks of each picture of a source.

    Args:
        landmarks: as `read` gives them.
        class_names: the identities, by label.
        labels: the label of each picture.
        names: the name of each picture within its identity.

    Returns:
        The landmarks, NaN where there are none, and whether there are some.

    Raises:
        UserError: none of the pictures is named in the file, or one of its names fits several pictures.
    """
    found = np.full((len(names), _POINTS, 2), np.nan, np.float32)
    alone = Counter(names)
    used = set()
    for position, (label, name) in enumerate(zip(labels, names, strict=True)):
        full = f"{class_names[label]}/{name}"
        key = full if full in landmarks else name
        if key not in landmarks:
            continue
        if key != full and alone[name] > 1:
            raise UserError(
                f"the landmarks file names {name!r}, and {alone[name]} pictures are called that, such as {full!r}: "
                "name them as <identity>/<picture>"
            )
        found[position] = landmarks[key]
        used.add(key)
    if not used:
        asked = f"{class_names[labels[0]]}/{names[0]}" if len(names) else "no picture"
        raise UserError(
            f"the landmarks file names none of the pictures: it has {next(iter(landmarks), 'nothing')!r}, "
            f"the source {asked!r}"
        )
    if len(used) < len(landmarks):
        unused = len(landmarks) - len(used)
        logging.warning("%d of %d pictures in the landmarks file are not in the source", unused, len(landmarks))
    return found, ~np.isnan(found).any(axis=(1, 2))


def _names_columns(line: str) -> bool:
    """Whether a line before the first picture names the columns; CelebA's has no word for that of the names."""
    fields = line.replace(",", " ").split()
    return len(fields) in (2 * _POINTS, 2 * _POINTS + 1) and not any(map(listing.is_number, fields))


def _parse(line: str) -> tuple[str, Landmarks]:
    """A line's name and points.

    Raises:
        ValueError: it is not of the format.
    """
    separator = next((mark for mark in "\t," if mark in line), None)
    fields = [field.strip() for field in line.strip().rsplit(separator, 2 * _POINTS)]
    if len(fields) != 2 * _POINTS + 1 or not fields[0]:
        raise ValueError(f"has {len(fields) - 1} fields after the name, not x and y of {_POINTS} points")
    # A name may have spaces in it, but what ends in a number is a column too many: a box, or a score.
    if listing.is_number(fields[0].rsplit(separator)[-1]) and len(fields[0].rsplit(separator)) > 1:
        raise ValueError(f"has more than {2 * _POINTS} numbers after the name: keep x and y of {_POINTS} points")
    values = np.array([float(field) for field in fields[1:]], np.float32)
    if not np.isfinite(values).all():
        raise ValueError("has a coordinate that is not finite")
    return "/".join(fields[0].strip('"').split("/")[-2:]), values.reshape(_POINTS, 2)


def _check_order(path: epath.Path, found: Mapping[str, Landmarks]) -> None:
    """Refuses a file whose points come in another order: what is aligned by it would be no face."""
    left, right, _, mouth_left, mouth_right = np.stack(list(found.values())).transpose(1, 2, 0)
    swapped = np.mean((left[0] > right[0]) & (mouth_left[0] > mouth_right[0]))
    if swapped > 0.5:
        raise UserError(
            f"{path}: in {swapped:.0%} of the faces left and right are confused: the points are left eye, right eye, "
            "nose, left and right corner of the mouth, as seen in the picture, not by the person"
        )
