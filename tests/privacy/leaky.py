"""Embeddings of made-up people, and of a synthetic set that leaks them as much as is asked for."""

import numpy as np

from sface_jax.privacy.relations import Faces

WIDTH = 32
SCALE = 1 / np.sqrt(1 + np.arange(WIDTH))  # not all directions alike: some faces are plain


def centres(seed: int, count: int) -> np.ndarray:
    """Where people are; the first ones are the same for any count."""
    return np.random.default_rng([seed, 1]).standard_normal((count, WIDTH)) * SCALE


def people(seed: int, where: np.ndarray, each: int, first: int = 0) -> Faces:
    """So many pictures of each, around the centres."""
    noise = np.random.default_rng([seed, 2]).standard_normal((len(where) * each, WIDTH)) * SCALE
    rows = np.repeat(where, each, axis=0) + 0.6 * noise
    labels = first + np.repeat(np.arange(len(where)), each)
    return Faces((rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32), labels)


def released(seed: int, *, leak: float, members: int = 60, heldout: int = 30) -> tuple[Faces, Faces, Faces]:
    """Members, held-out people, and synthetic identities called as members: `leak` of each is the member, 0 is none."""
    own, others = centres(seed, members), centres(seed + 1, heldout)
    made = leak * own + np.sqrt(1 - leak**2) * centres(seed + 2, members)
    return people(seed, own, 6), people(seed + 1, others, 6, first=members), people(seed + 2, made, 6)
