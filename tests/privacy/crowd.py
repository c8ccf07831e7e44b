"""Embeddings of made-up people: an identity is a direction, a picture of it lies near."""

import numpy as np

from sface_jax.privacy.relations import Faces


def unit(rows: np.ndarray) -> np.ndarray:
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


def people(count: int, each: int, *, first: int = 0, seed: int = 0, width: int = 32, spread: float = 0.5) -> Faces:
    """`count` identities with `each` pictures; identity i is the same direction whatever the seed of the pictures."""
    labels = np.repeat(np.arange(first, first + count), each)
    centres = unit(
        np.stack([np.random.default_rng((9, i)).standard_normal(width) for i in range(first, first + count)])
    )
    noise = unit(np.random.default_rng((seed, first)).standard_normal((count * each, width)))
    return Faces(unit(centres[labels - first] + spread * noise), labels)
