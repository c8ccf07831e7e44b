"""A teacher's embeddings of a training set, made once and kept on disk."""

from __future__ import annotations

import hashlib
from concurrent.futures import ThreadPoolExecutor

import jax
import numpy as np
from absl import logging
from etils import epath
from jaxtyping import Float32

from sface_jax.core import files
from sface_jax.core import mesh as meshes
from sface_jax.data.dataset import PictureSet
from sface_jax.recognition.features import features
from sface_jax.recognition.network import Network, fingerprint

BLOCK = 256  # pictures hashed at a time


def cached(
    teacher: Network, pictures: PictureSet, mesh: jax.sharding.Mesh, directory: epath.Path
) -> Float32[np.ndarray, "n 2 d"]:
    """The teacher's embeddings of every picture, of length one, from the cache or made for it.

    Args:
        teacher: the network.
        pictures: the training set.
        mesh: devices to share the work.
        directory: the cache; a file is named after the hash of teacher and pictures.

    Returns:
        For each picture, in order: its embedding, and that of its mirror image.
    """
    path = directory / f"{_key(teacher, pictures)}.npy"
    if not path.exists():
        logging.info("the teacher embeds %s pictures once, for %s", len(pictures), path)
        views = features(teacher, pictures, mesh=mesh, progress="teacher")
        rows = views / np.linalg.norm(views, axis=-1, keepdims=True).clip(1e-12)
        if meshes.is_lead():
            files.write_npy(path, rows)
        meshes.barrier("teacher's embeddings")
        return rows
    logging.info("the teacher's embeddings come from %s", path)
    return files.read_npy(path)


def _key(teacher: Network, pictures: PictureSet) -> str:
    """Changes with the teacher's weights and preprocessing, and with the pictures and their order."""
    digest = hashlib.sha256(fingerprint(teacher).encode())
    blocks = [range(start, min(start + BLOCK, len(pictures))) for start in range(0, len(pictures), BLOCK)]
    with ThreadPoolExecutor() as pool:
        for of_block in pool.map(lambda block: hashlib.sha256(pictures.images(block)).digest(), blocks):
            digest.update(of_block)
    return digest.hexdigest()[:24]
