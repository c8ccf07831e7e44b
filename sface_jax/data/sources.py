"""Where labelled pictures come from: what stages ask of a source, and the source of procedural faces."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, runtime_checkable

import numpy as np
from jaxtyping import Int32, Integer

from sface_jax.core import pictures

PROCEDURAL = "procedural"
"""What a config calls the source of procedural faces."""

_BLOCK = 256  # pictures rendered at a time


@runtime_checkable
class Source(Protocol):
    """Labelled pictures by position, encoded as they lie; a new format is one small class like this.

    A source lists what is there when it is opened, and reads a picture when it is asked for. It is picklable: worker
    processes get copies.

    Attributes:
        class_names: the identities, by label.
        labels: the label of each picture, ascending: pictures of an identity lie together.
        names: the name of each picture within its identity, with its suffix where it has one, e.g. "0001.jpg".
    """

    class_names: Sequence[str]
    labels: Int32[np.ndarray, " n"]
    names: Sequence[str]

    def read(self, position: int) -> bytes:
        """The encoded picture at a position.

        Raises:
            Damaged: it cannot be had, because the container is damaged there.
            OSError: it cannot be had, because the file system says so.
        """

    def version(self) -> str:
        """Changes where what `read` gives out may have changed."""


class Chosen:
    """Some identities of a source, as a source.

    Attributes:
        whole: the source with all of them.
    """

    def __init__(self, source: Source, labels: Integer[np.ndarray, " c"]):
        """Keeps the identities with the given labels, ascending, and numbers them anew."""
        self.whole, self._positions = source, np.flatnonzero(np.isin(source.labels, labels))
        self.class_names = [source.class_names[label] for label in labels]
        self.labels = np.searchsorted(labels, np.asarray(source.labels)[self._positions]).astype(np.int32)
        self.names = [source.names[position] for position in self._positions]

    def read(self, position: int) -> bytes:
        """See `Source`."""
        return self.whole.read(int(self._positions[position]))

    def version(self) -> str:
        """See `Source`."""
        return self.whole.version()


class ProceduralFaces:
    """Rendered faces of people who do not exist: identity i, picture j depend on (seed, i, j) alone."""

    def __init__(self, *, seed: int, identities: int, pictures_per_identity: int, image_size: int):
        """Sets the collection's size; nothing is rendered yet."""
        self.seed, self.image_size = seed, image_size
        self.class_names = [f"face_{number:05d}" for number in range(identities)]
        self.labels = np.repeat(np.arange(identities, dtype=np.int32), pictures_per_identity)
        self.names = [f"{index:04d}" for index in range(pictures_per_identity)] * identities
        self._rendered: tuple[int, list[bytes]] = -1, []

    def read(self, position: int) -> bytes:
        """Renders the picture at a position, and those about it: they are wanted next."""
        block = position // _BLOCK
        if self._rendered[0] != block:
            self._rendered = block, self._render(block)
        return self._rendered[1][position % _BLOCK]

    def version(self) -> str:
        """See `Source`."""
        return f"{self.seed} {self.image_size}"

    def _render(self, block: int) -> list[bytes]:
        from sface_jax.data import faces

        positions = np.arange(block * _BLOCK, min((block + 1) * _BLOCK, len(self.labels)))
        indices = np.array([int(self.names[position]) for position in positions])
        images = faces.render(self.seed, self.labels[positions], indices, self.image_size)
        return [pictures.encode_png(image) for image in images]
