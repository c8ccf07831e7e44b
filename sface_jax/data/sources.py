"""Where labelled pictures come from: what a builder asks of a source, and the source of procedural faces."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple, Protocol, runtime_checkable

import numpy as np

from sface_jax.core import pictures

_BLOCK = 256  # pictures rendered at a time


class Picture(NamedTuple):
    """A picture on its way into a dataset: PNG of the final size, RGB."""

    identity: str
    name: str
    content: bytes


@runtime_checkable
class Source(Protocol):
    """A collection of identities with pictures; a new kind of input is one small class like this."""

    identities: Sequence[str]
    image_size: int

    def count(self, identity: str) -> int:
        """How many pictures an identity has."""

    def pictures(self, identities: Sequence[str]) -> Iterator[Picture]:
        """The pictures of the given identities, in their order."""


class ProceduralFaces:
    """Rendered faces of people who do not exist: identity i, picture j depend on (seed, i, j) alone."""

    def __init__(self, *, seed: int, identities: int, pictures_per_identity: int, image_size: int):
        """Sets the collection's size; nothing is rendered yet."""
        self.seed, self.image_size = seed, image_size
        self.pictures_per_identity = pictures_per_identity
        self.identities = [f"face_{number:05d}" for number in range(identities)]

    def count(self, identity: str) -> int:
        """How many pictures an identity has."""
        return self.pictures_per_identity

    def pictures(self, identities: Sequence[str]) -> Iterator[Picture]:
        """Renders the pictures of the given identities, in their order."""
        from sface_jax.data import faces

        wanted = [(identity, index) for identity in identities for index in range(self.pictures_per_identity)]
        for start in range(0, len(wanted), _BLOCK):
            block = wanted[start : start + _BLOCK]
            numbers = np.array([int(identity.removeprefix("face_")) for identity, _ in block])
            indices = np.array([index for _, index in block])
            images = faces.render(self.seed, numbers, indices, self.image_size)
            for (identity, index), image in zip(block, images, strict=True):
                yield Picture(identity, f"{index:04d}", pictures.encode_png(image))
