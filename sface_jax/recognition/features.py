"""A network's raw embeddings of many pictures, over all devices."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any, Protocol, runtime_checkable

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Array, Float, Float32, Int, UInt8

from sface_jax.core import mesh as meshes
from sface_jax.core.progress import Progress
from sface_jax.recognition.network import Network, Preprocessing


@runtime_checkable
class Images(Protocol):
    """Random access to pictures; `sface_jax.data.dataset.PictureSet` is one."""

    def __len__(self) -> int:
        """How many there are."""

    def images(self, indices: Int[np.ndarray, " k"]) -> UInt8[np.ndarray, "k h w 3"]:
        """The pictures at these positions, RGB."""


def features(
    network: Network,
    images: UInt8[np.ndarray, "n h w 3"] | Images,
    indices: Int[np.ndarray, " k"] | Sequence[int] | None = None,
    *,
    batch_size: int = 256,
    mirror: bool = True,
    mesh: Mesh | None = None,
    progress: str = "",
) -> Float32[np.ndarray, "k v d"]:
    """The network's raw embeddings of pictures in the given order, and of their mirror images.

    All batches have one shape, the last one being padded, so that the network is compiled once. Pictures of another
    size than the network's are resized to it (bilinear, anti-aliased). Each process reads the pictures of its own
    devices only.

    Args:
        network: the recogniser with its preprocessing.
        images: RGB pictures 0..255, or something to read them from batch by batch, such as a split of a dataset.
        indices: which of them, all by default.
        batch_size: pictures in a batch over all devices, rounded up to a multiple of the devices.
        mirror: whether to embed mirror images too.
        mesh: devices to share the batch, all by default.
        progress: name for a progress line; none is shown without.

    Returns:
        v embeddings of each picture, 2 with mirror images and 1 without, the same on every process.
    """
    mesh = meshes.make_mesh() if mesh is None else mesh
    indices = np.arange(len(images)) if indices is None else np.asarray(indices, np.int64)
    if not len(indices):
        raise ValueError("there are no pictures to embed")
    read = images.__getitem__ if isinstance(images, np.ndarray) else images.images
    # a few pictures need no large batch; a multiple of the devices divides evenly
    batch_size = -(-min(batch_size, len(indices)) // mesh.size) * mesh.size
    forward = _compiled(network.module, network.preprocessing, mirror, mesh)
    variables = meshes.replicate(network.variables, mesh)
    shown = Progress(progress, len(indices), unit="pictures") if progress else None
    rows, pending = [], None
    for start in range(0, len(indices), batch_size):
        taken = indices[start : start + batch_size]
        padded = np.concatenate([taken, np.repeat(taken[-1:], batch_size - len(taken))])
        output = forward(variables, meshes.shard_read(lambda rows, of=padded: read(of[rows]), batch_size, mesh))
        # read the batch before while this one is computed
        if pending is not None:
            rows.append(np.asarray(pending))
            if shown:
                shown.update(start)
        pending = output
    rows.append(np.asarray(pending))
    if shown:
        shown.close()
    return np.concatenate(rows)[: len(indices)]


@functools.lru_cache(maxsize=16)
def _compiled(
    module: nn.Module, preprocessing: Preprocessing, mirror: bool, mesh: Mesh
) -> Callable[..., Float[Array, "b v d"]]:
    """The way from pixels to embeddings as one function, compiled once for each shape of batch."""

    def forward(variables: Any, pixels: UInt8[Array, "b h w 3"]) -> Float[Array, "b v d"]:
        x = preprocessing(pixels)  # [b, s, s, 3] float32
        # a new axis for the two views, so that the batch stays sharded as it is
        views = jnp.stack([x, x[:, :, ::-1]], axis=1) if mirror else x[:, None]  # [b, v, s, s, 3]
        e = module.apply(variables, views.reshape(-1, *x.shape[1:]), train=False)  # [b v, d]
        return e.astype(jnp.float32).reshape(*views.shape[:2], -1)  # [b, v, d]

    return jax.jit(
        forward,
        in_shardings=(meshes.replicated(mesh), meshes.batch_sharding(mesh)),
        out_shardings=meshes.replicated(mesh),
    )
