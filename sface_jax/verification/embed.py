"""Embeddings as verification uses them: of picture and mirror image, put together, of length one."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jax.sharding import Mesh
from jaxtyping import Float, Float32, Float64, Int, UInt8

from sface_jax.recognition.features import Images, features
from sface_jax.recognition.network import Network

FLIPS = ("none", "sum", "concatenate")
"""Ways to put the embeddings of a picture and its mirror image together, see `fuse`."""


def embed(
    network: Network,
    images: UInt8[np.ndarray, "n h w 3"] | Images,
    indices: Int[np.ndarray, " k"] | Sequence[int] | None = None,
    *,
    batch_size: int = 256,
    flip: str = "sum",
    mesh: Mesh | None = None,
    progress: str = "",
    whole_batches: bool = False,
) -> Float32[np.ndarray, "k d"]:
    """Embeds pictures in the given order: `features`, put together by `fuse`.

    Args:
        network: the recogniser with its preprocessing.
        images: RGB pictures 0..255, or something to read them from batch by batch, such as a split of a dataset.
        indices: which of them, all by default.
        batch_size: see `features`.
        flip: one of `FLIPS`.
        mesh: see `features`.
        progress: see `features`.
        whole_batches: see `features`.

    Returns:
        Rows of length one, the same on every process.
    """
    views = features(
        network,
        images,
        indices,
        batch_size=batch_size,
        mirror=flip != "none",
        mesh=mesh,
        progress=progress,
        whole_batches=whole_batches,
    )
    return fuse(views, flip).astype(np.float32)


def fuse(features: Float32[np.ndarray, "k v d"], flip: str) -> Float64[np.ndarray, "k _"]:
    """Puts the embeddings of picture and mirror image together, see `together`, and divides by the length.

    In float64, as InsightFace's verification.py does; an embedding of zeros stays one.
    """
    rows = together(features.astype(np.float64), flip)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True).clip(1e-12)


def together(features: Float[np.ndarray, "k v d"], flip: str) -> Float[np.ndarray, "k _"]:
    """Puts the embeddings of picture and mirror image together; their length stays, by which some weigh pictures.

    Args:
        features: raw embeddings of the picture and, but for "none", of its mirror image.
        flip: "none" takes the picture's alone; "sum" is f(x) + f(mirror(x)), the convention of InsightFace's
            verification.py; "concatenate" is both, one after the other.
    """
    if flip == "none":
        return features[:, 0]
    return features.sum(1) if flip == "sum" else features.reshape(len(features), -1)
