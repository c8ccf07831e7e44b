"""Sets of templates: IJB-B, IJB-C and what else comes in the form in which InsightFace distributes them.

A template is a set of pictures of one person, stills and frames of videos; a medium is a still or a video. In a folder:

    meta/<set>_face_tid_mid.txt          "name template medium", a line for each picture
    meta/<set>_template_pair_label.txt   "template template label", 1 for mated and 0 for non-mated pairs
    meta/<set>_name_5pts_score.txt       "name x1 y1 ... x5 y5 score": landmarks as in `align`, and the detector's score
    meta/<set>_1N_gallery_<name>.csv     a line of column names, then "template,subject", further columns ignored
    meta/<set>_1N_probe_mixed.csv        the same: what is searched for in each of the galleries
    loose_crop/<name>                    the pictures

Without landmarks pictures are cut and resized as they are; galleries and probes may be absent.
"""

from __future__ import annotations

import csv
import dataclasses
import hashlib
import os
import re
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.csv
from absl import logging
from jaxtyping import Bool, Float, Float32, Int, Int32, UInt8

from sface_jax.core import pictures
from sface_jax.core.errors import Damaged, UserError
from sface_jax.core.files import PathLike
from sface_jax.data import align, resize

_MEDIA = {"name": pa.string(), "template": pa.int32(), "medium": pa.int32()}
_PAIRS = {"template 1": pa.int32(), "template 2": pa.int32(), "label": pa.int32()}
_FACES = {"name": pa.string()} | {f"{axis}{i}": pa.float32() for i in range(1, 6) for axis in "xy"}
_FACES["score"] = pa.float32()


@dataclasses.dataclass(frozen=True)
class Enrolment:
    """Templates of known subjects: a gallery, or probes.

    Attributes:
        templates: positions of templates, rising.
        subjects: the number of each one's subject.
    """

    templates: Int32[np.ndarray, " k"]
    subjects: Int32[np.ndarray, " k"]


@dataclasses.dataclass(frozen=True)
class TemplateSet:
    """Templates, pairs of them, and galleries.

    Attributes:
        folder: of the pictures.
        names: of the pictures.
        landmarks: of each picture, if there are some.
        scores: the detector's score of each picture, if there are some.
        template: position of each picture's template, 0 to t - 1 in the order of the templates' numbers.
        media: the number of each picture's medium.
        first: position of each pair's first template.
        second: position of its second template.
        same: whether the pair is mated.
        galleries: by name.
        probes: what is searched for in the galleries.
        sha256: of the files that were read, by name.
    """

    folder: Path
    names: Sequence[str]
    landmarks: Float32[np.ndarray, "n 5 2"] | None
    scores: Float32[np.ndarray, " n"] | None
    template: Int32[np.ndarray, " n"]
    media: Int32[np.ndarray, " n"]
    first: Int32[np.ndarray, " p"]
    second: Int32[np.ndarray, " p"]
    same: Bool[np.ndarray, " p"]
    galleries: Mapping[str, Enrolment]
    probes: Enrolment | None
    sha256: Mapping[str, str]

    @property
    def faceless(self) -> Bool[np.ndarray, " n"]:
        """The pictures whose landmarks are those of no face (see `align.LEAST_FIT`); none where there are none."""
        if self.landmarks is None:
            return np.zeros(len(self.names), bool)
        return _fit(self.landmarks) < align.LEAST_FIT


class Pictures:
    """The pictures of a set, aligned and decoded when asked for: `recognition.features.Images`."""

    def __init__(self, of: TemplateSet, size: int):
        """Prepares to read.

        Args:
            of: the set.
            size: side of the pictures. By landmarks they are aligned to it; those without, or with landmarks of no
                face (`TemplateSet.faceless`), are cut and resized, see `resize.square`.
        """
        self._set, self._size = of, size
        self._aligned = np.zeros(len(of.names), bool) if of.landmarks is None else ~of.faceless

    def __len__(self) -> int:
        return len(self._set.names)

    def images(self, indices: Int[np.ndarray, " k"]) -> UInt8[np.ndarray, "k s s 3"]:
        """The pictures at these positions, RGB.

        Raises:
            Damaged: a picture cannot be read.
        """
        with ThreadPoolExecutor(os.cpu_count()) as threads:
            read = list(threads.map(self._read, np.asarray(indices).tolist()))
        return np.stack(read) if read else np.empty((0, self._size, self._size, 3), np.uint8)

    def _read(self, index: int) -> UInt8[np.ndarray, "s s 3"]:
        path = self._set.folder / self._set.names[index]
        try:
            picture = pictures.decode(path.read_bytes())
        except (OSError, Damaged) as error:
            raise Damaged(f"{path} cannot be read as a picture ({error}): restore it from the original") from error
        if self._aligned[index]:
            return align.align(picture, self._set.landmarks[index], self._size)
        return resize.square(picture, self._size)


def read(folder: PathLike) -> TemplateSet:
    """Reads the lists of a set; its pictures are only looked for.

    Raises:
        UserError: a file or picture is not there, a list is empty, or all pairs are of one kind.
        Damaged: a line is malformed or names an unknown template, or most landmarks are those of no face.
    """
    folder = Path(folder)
    meta, crops = folder / "meta", folder / "loose_crop"
    found = sorted(meta.glob("*_face_tid_mid.txt"))
    if len(found) != 1:
        what = f"has {len(found)} lists" if found else "has no list"
        raise UserError(f"{meta} {what} of pictures: it should hold one <set>_face_tid_mid.txt, as for IJB-C")
    if not crops.is_dir():
        raise UserError(f"there is no folder {crops}: it should hold the pictures that {found[0].name} names")
    prefix = found[0].name.removesuffix("_face_tid_mid.txt")
    digests: dict[str, str] = {}

    names, numbers, media = _table(found[0], _MEDIA, digests)
    names = names.to_pylist()
    if absent := next((name for name in names if not os.path.exists(crops / name)), None):
        raise UserError(f"there is no picture {crops / absent}, which {found[0].name} names")
    known, template = np.unique(numbers.to_numpy(), return_inverse=True)
    faces = meta / f"{prefix}_name_5pts_score.txt"
    landmarks, scores = _faces(faces, names, digests) if faces.exists() else (None, None)
    first, second, same = _pairs(meta / f"{prefix}_template_pair_label.txt", known, digests)
    galleries, probes = _enrolments(meta, prefix, known, digests)
    read = TemplateSet(
        folder=crops,
        names=names,
        landmarks=landmarks,
        scores=scores,
        template=template.astype(np.int32),
        media=media.to_numpy(),
        first=first,
        second=second,
        same=same,
        galleries=galleries,
        probes=probes,
        sha256=digests,
    )
    if faceless := int(read.faceless.sum()):
        told = f"{faces}: the landmarks of {faceless} of {len(names)} pictures are those of no face"
        if 2 * faceless > len(names):
            order = "left eye, right eye, nose, left and right corner of the mouth, as seen in the picture"
            raise Damaged(f"{told}: they should be {order}")
        logging.warning("%s: these pictures are cut and resized as they are", told)
    return read


def _faces(
    path: Path, names: Sequence[str], digests: dict[str, str]
) -> tuple[Float32[np.ndarray, "n 5 2"], Float32[np.ndarray, " n"]]:
    """Landmarks and scores of the pictures, whatever the order of the lines."""
    listed, *columns = _table(path, _FACES, digests)
    values = np.stack([column.to_numpy() for column in columns], axis=1)  # [n, 11]
    if not np.isfinite(values).all():
        raise Damaged(f"{_line(path, int(np.argmin(np.isfinite(values).all(1))))}: a number is not finite")
    if (values[:, -1] < 0).any():
        raise Damaged(f"{_line(path, int(np.argmax(values[:, -1] < 0)))}: the score is negative")
    listed = listed.to_pylist()
    if listed != names:
        rows = {name: row for row, name in enumerate(listed)}
        if len(rows) < len(listed):
            raise Damaged(f"{path} names pictures twice, and in another order than the list of templates")
        if absent := next((name for name in names if name not in rows), None):
            raise Damaged(f"{path} has no line for {absent}")
        if unused := len(rows) - len(set(names)):
            logging.warning("%s: %d lines are of pictures in no template", path, unused)
        values = values[[rows[name] for name in names]]
    return np.ascontiguousarray(values[:, :10]).reshape(-1, 5, 2), np.ascontiguousarray(values[:, 10])


def _pairs(
    path: Path, known: Int32[np.ndarray, " t"], digests: dict[str, str]
) -> tuple[Int32[np.ndarray, " p"], Int32[np.ndarray, " p"], Bool[np.ndarray, " p"]]:
    """Positions of both templates of each pair, and whether it is mated."""
    first, second, label = (column.to_numpy() for column in _table(path, _PAIRS, digests))
    if wrong := ((label != 0) & (label != 1)).nonzero()[0].tolist()[:1]:
        raise Damaged(f"{_line(path, wrong[0])}: the label is {label[wrong[0]]}, neither 1 nor 0")
    places = []
    for numbers in (first, second):
        place = np.searchsorted(known, numbers).clip(max=len(known) - 1).astype(np.int32)
        if (unknown := known[place] != numbers).any():
            row = int(np.argmax(unknown))
            raise Damaged(f"{_line(path, row)}: no picture is of template {numbers[row]}")
        places.append(place)
    if label.all() or not label.any():
        raise UserError(f"{path}: all pairs are {'mated' if label[0] else 'non-mated'}; there must be both kinds")
    return *places, label == 1


def _enrolments(
    meta: Path, prefix: str, known: Int32[np.ndarray, " t"], digests: dict[str, str]
) -> tuple[dict[str, Enrolment], Enrolment | None]:
    """Galleries and probes, or neither."""
    start = f"{prefix}_1N_gallery_"
    lists, probes = sorted(meta.glob(f"{start}*.csv")), meta / f"{prefix}_1N_probe_mixed.csv"
    if bool(lists) != probes.exists():
        absent = meta / f"{start}G1.csv" if probes.exists() else probes
        raise UserError(f"there is no file {absent}: searches need galleries and probes")
    if not lists:
        return {}, None
    galleries = {path.stem.removeprefix(start): _enrolment(path, known, digests) for path in lists}
    return galleries, _enrolment(probes, known, digests)


def _enrolment(path: Path, known: Int32[np.ndarray, " t"], digests: dict[str, str]) -> Enrolment:
    """Templates and subjects of a list, which may have a line for each picture of a template."""
    subjects: dict[int, int] = {}
    for number, row in enumerate(csv.reader(_content(path, digests).decode(errors="replace").splitlines()), start=1):
        if number == 1 and row and not _whole(row[0]) or not row:
            continue
        if number == 1:
            raise Damaged(f"{path}, line 1: is no line of column names")
        if len(row) < 2 or not (_whole(row[0]) and _whole(row[1])):
            raise Damaged(f"{path}, line {number}: does not begin with the numbers of a template and a subject")
        template, subject = int(row[0]), int(row[1])
        if subjects.setdefault(template, subject) != subject:
            raise Damaged(f"{path}, line {number}: template {template} is of subject {subjects[template]} before")
        if known[min(np.searchsorted(known, template), len(known) - 1)] != template:
            raise Damaged(f"{path}, line {number}: no picture is of template {template}")
    if not subjects:
        raise UserError(f"{path} has no lines but that of column names")
    numbers = np.array(sorted(subjects), np.int32)
    found = [subjects[number] for number in numbers.tolist()]
    return Enrolment(np.searchsorted(known, numbers).astype(np.int32), np.array(found, np.int32))


def _table(path: Path, columns: Mapping[str, pa.DataType], digests: dict[str, str]) -> list[pa.ChunkedArray]:
    """The columns of a list, whose fields stand between single spaces.

    Raises:
        UserError: there is no such file, or nothing in it.
        Damaged: a line is malformed.
    """
    content = _content(path, digests)
    if not content.strip():
        raise UserError(f"{path} is empty: it should have lines of {', '.join(columns)}")
    try:
        table = pyarrow.csv.read_csv(
            pa.BufferReader(content),
            pyarrow.csv.ReadOptions(column_names=list(columns)),
            pyarrow.csv.ParseOptions(delimiter=" ", quote_char=False),
            pyarrow.csv.ConvertOptions(column_types=dict(columns), null_values=[], strings_can_be_null=False),
        )
    except pa.ArrowInvalid as error:
        raise _malformed(path, content, columns, error) from error
    return table.columns


def _malformed(path: Path, content: bytes, columns: Mapping[str, pa.DataType], error: Exception) -> Damaged:
    """Finds the line that a reader of many lines at once could not."""
    for number, line in enumerate(content.splitlines(), start=1):
        fields = line.decode(errors="replace").split(" ")
        if not line:
            continue
        if len(fields) != len(columns):
            told = f"has {len(fields)} fields between single spaces, not {len(columns)}: {', '.join(columns)}"
            return Damaged(f"{path}, line {number}: {told}")
        for field, (column, kind) in zip(fields, columns.items(), strict=True):
            if pa.types.is_integer(kind) and not _whole(field):
                return Damaged(f"{path}, line {number}: {column} is {field!r}, no whole number of 32 bits")
            if pa.types.is_floating(kind) and not _number(field):
                return Damaged(f"{path}, line {number}: {column} is {field!r}, no number")
    return Damaged(f"{path}: {' '.join(str(error).split())}")


def _content(path: Path, digests: dict[str, str]) -> bytes:
    """What a file holds, whose hash is noted."""
    try:
        content = path.read_bytes()
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror}): restore it from the original") from error
    digests[path.name] = hashlib.sha256(content).hexdigest()
    return content


def _line(path: Path, row: int) -> str:
    """Names the line of a row: lines without anything in them are no rows."""
    lines = (number for number, line in enumerate(path.read_bytes().splitlines(), start=1) if line)
    return f"{path}, line {next(number for place, number in enumerate(lines) if place == row)}"


def _whole(field: str) -> bool:
    return re.fullmatch(r"-?[0-9]+", field) is not None and -(2**31) <= int(field) < 2**31


def _number(field: str) -> bool:
    try:
        float(field)
    except ValueError:
        return False
    return True


def _fit(landmarks: Float32[np.ndarray, "n 5 2"]) -> Float[np.ndarray, " n"]:
    """The share of the template's variance that each picture's landmarks explain, see `align.similarity`."""
    p, q = (points.astype(np.float64) @ [1, 1j] for points in (landmarks, align.template(112)))
    p, q = p - p.mean(-1, keepdims=True), q - q.mean()
    spread = np.square(np.abs(p)).sum(-1) * np.vdot(q, q).real
    return np.divide(np.square(np.abs(p.conj() @ q)), spread, out=np.zeros(len(p)), where=spread > 0)
