"""Pictures and containers for tests."""

from __future__ import annotations

import io
import os
from pathlib import Path

import numpy as np
from PIL import Image

FIXTURE = Path(os.path.dirname(__file__)).parents[2] / "shared" / "fixtures" / "insightface_format"


def picture(seed, kind="JPEG", size=8):
    buffer = io.BytesIO()
    pixels = np.random.default_rng(seed).integers(0, 256, (size, size, 3)).astype(np.uint8)
    Image.fromarray(pixels).save(buffer, kind)
    return buffer.getvalue()


class Memory:
    """A source of given pictures: {identity: {name: content}}."""

    def __init__(self, found):
        self.class_names = list(found)
        self.labels = np.repeat(np.arange(len(found), dtype=np.int32), [len(those) for those in found.values()])
        self.names = [name for those in found.values() for name in those]
        self._contents = [content for those in found.values() for content in those.values()]

    def read(self, position):
        return self._contents[position]

    def version(self):
        return ""


def faces(suffixless=False):
    """Names of all sorts, JPEG and PNG."""
    names = ("1.jpg", "a b.png", "v1.2.jpg", "Ünïcode.png", "10.jpeg")
    people = ("Zoë_Q", "s2", "s10", "J. Smith")
    found = {}
    for i, person in enumerate(people):
        kinds = ["PNG" if name.endswith("png") else "JPEG" for name in names]
        contents = [picture(10 * i + j, kind) for j, kind in enumerate(kinds)]
        found[person] = {f"{j:03d}" if suffixless else names[j]: content for j, content in enumerate(contents)}
    return Memory(found)


def content(source):
    """{"<identity>/<picture>": bytes} of a source, whose labels must ascend."""
    assert (np.diff(source.labels) >= 0).all() and source.labels.dtype == np.int32
    assert source.labels.max() + 1 == len(source.class_names) == len(set(source.class_names))
    names = [f"{source.class_names[label]}/{name}" for label, name in zip(source.labels, source.names, strict=True)]
    assert len(set(names)) == len(names)
    return {name: source.read(position) for position, name in enumerate(names)}


def tree(folder):
    """{"<identity>/<picture>": bytes} of a folder."""
    return {os.path.relpath(path, folder): path.read_bytes() for path in Path(folder).glob("*/*")}
