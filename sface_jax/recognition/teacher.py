"""A teacher's embeddings of a training set, made once and kept on disk."""

from __future__ import annotations

import hashlib
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from absl import logging
from etils import epath
from jaxtyping import Array, Float, Float32, UInt8

from sface_jax.core import files
from sface_jax.core import mesh as meshes
from sface_jax.core.progress import Progress
from sface_jax.data.dataset import PictureSet
from sface_jax.recognition.losses import normalise
from sface_jax.recognition.network import Network, fingerprint

BATCH = 256  # pictures over all devices


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
        rows = _embed(teacher, pictures, mesh)
        if meshes.is_lead():
            files.write_npy(path, rows)
        meshes.barrier("teacher's embeddings")
        return rows
    logging.info("the teacher's embeddings come from %s", path)
    return files.read_npy(path)


def _key(teacher: Network, pictures: PictureSet) -> str:
    """Changes with the teacher's weights and preprocessing, and with the pictures and their order."""
    digest = hashlib.sha256(fingerprint(teacher).encode())
    blocks = [range(start, min(start + BATCH, len(pictures))) for start in range(0, len(pictures), BATCH)]
    with ThreadPoolExecutor() as pool:
        for of_block in pool.map(lambda block: hashlib.sha256(pictures.images(block)).digest(), blocks):
            digest.update(of_block)
    return digest.hexdigest()[:24]


def _embed(teacher: Network, pictures: PictureSet, mesh: jax.sharding.Mesh) -> Float32[np.ndarray, "n 2 d"]:
    size = -(-min(BATCH, len(pictures)) // mesh.size) * mesh.size
    variables = meshes.replicate(teacher.variables, mesh)
    whole = meshes.replicated(mesh)

    def both(variables: Any, batch: UInt8[Array, "b h w 3"]) -> Float[Array, "b 2 d"]:
        x = teacher.preprocessing(batch)  # [b,s,s,3]
        views = jnp.stack([x, x[:, :, ::-1]], 1).reshape(-1, *x.shape[1:])  # [b 2,s,s,3]
        return normalise(teacher.module.apply(variables, views, train=False)).reshape(len(x), 2, -1)

    run = jax.jit(both, in_shardings=(whole, meshes.batch_sharding(mesh)), out_shardings=whole)
    shown, rows = Progress("teacher", len(pictures), unit="pictures"), []
    for start in range(0, len(pictures), size):
        indices = np.minimum(np.arange(start, start + size), len(pictures) - 1)
        mine = np.array_split(indices, jax.process_count())[jax.process_index()]
        rows.append(np.asarray(run(variables, meshes.shard_batch(pictures.images(mine), mesh))))
        shown.update(min(start + size, len(pictures)))
    shown.close()
    return np.concatenate(rows)[: len(pictures)]
