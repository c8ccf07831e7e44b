"""Writes a tiny set of templates in InsightFace's form."""

from __future__ import annotations

from itertools import combinations
from pathlib import Path

import numpy as np
from jaxtyping import UInt8

from sface_jax.core import pictures
from sface_jax.data import align

PREFIX = "tiny"


def write(folder: Path, images: UInt8[np.ndarray, "subjects pictures s s 3"], landmarks: bool = True) -> Path:
    """Four templates of each subject, numbered 10, 20, ... in a mixed order; subjects are 100, 101, ...

    The first template of the subjects in turn is in gallery G1 and G2, the others are probes; all templates are paired.
    Pictures 0, 1 of each four are frames of one video. Landmarks are those of an aligned picture.

    Args:
        folder: where to write.
        images: pictures, a multiple of four of each subject.
        landmarks: whether to write them.
    """
    subjects, count, size = images.shape[:3]
    meta, crops = folder / "meta", folder / "loose_crop"
    for made in (meta, crops):
        made.mkdir(parents=True)
    numbers = 10 * (1 + np.random.default_rng(0).permutation(4 * subjects).reshape(subjects, 4))
    subject_of = {int(number): 100 + subject for subject, row in enumerate(numbers) for number in row}
    media, faces = [], []
    points = " ".join(f"{x:.3f}" for x in align.template(size).ravel())
    for picture in range(count):  # pictures of a template do not stand together
        for subject in range(subjects):
            name = f"{picture * subjects + subject + 1}.png"
            (crops / name).write_bytes(pictures.encode_png(images[subject, picture], level=1))
            within = picture // 4
            media.append(f"{name} {numbers[subject, picture % 4]} {0 if within < 2 else within}")
            faces.append(f"{name} {points} {0.5 + picture / count / 2:.3f}")
    pairs = [f"{a} {b} {int(subject_of[a] == subject_of[b])}" for a, b in combinations(sorted(subject_of), 2)]
    lists = {f"{PREFIX}_face_tid_mid.txt": media, f"{PREFIX}_template_pair_label.txt": pairs}
    if landmarks:
        lists[f"{PREFIX}_name_5pts_score.txt"] = faces
    for gallery in (0, 1):
        rows = [f"{numbers[s, 0]},{100 + s}" for s in range(gallery, subjects, 2)]
        lists[f"{PREFIX}_1N_gallery_G{gallery + 1}.csv"] = ["TEMPLATE_ID,SUBJECT_ID", *rows]
    # as in IJB-C: a line for each picture of a probe, with further columns
    probes = [f"{n},{subject_of[int(n)]},img/{i}.png" for n in numbers[:, 1:].ravel() for i in range(2)]
    lists[f"{PREFIX}_1N_probe_mixed.csv"] = ["TEMPLATE_ID,SUBJECT_ID,FILENAME", *probes]
    for name, lines in lists.items():
        (meta / name).write_text("\n".join(lines) + "\n")
    return folder
