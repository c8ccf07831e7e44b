"""A network's raw embeddings of many pictures, over all devices."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Protocol, runtime_checkable

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from jax.sharding import PartitionSpec as P
from jaxtyping import Array, Float, Float32, Int, UInt8

from sface_jax.core import mesh as meshes
from sface_jax.core.progress import Progress
from sface_jax.recognition.network import Network, Preprocessing

CPU_PIXELS = 8 * 112 * 112
"""Input pixels of the pieces in which a CPU takes its share of a batch: their activations stay in its caches."""


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
    whole_batches: bool = False,
) -> Float32[np.ndarray, "k v d"]:
    """The network's raw embeddings of pictures in the given order, and of their mirror images.

    All batches have one shape, the last one being padded, so that the network is compiled once; what the padding gives
    is dropped. Pictures of another size than the network's are resized to it (bilinear, anti-aliased). Each process
    reads the pictures of its own devices only, those of the next batch while this one is computed.

    Args:
        network: the recogniser with its preprocessing.
        images: RGB pictures 0..255, or something to read them from batch by batch, such as a split of a dataset.
        indices: which of them, all by default.
        batch_size: pictures in a batch over all devices, rounded up to a multiple of the devices.
        mirror: whether to embed mirror images too.
        mesh: devices to share the batch, all by default.
        progress: name for a progress line; none is shown without.
        whole_batches: pad to `batch_size` even where there are fewer pictures than that, so that sets of all lengths
            share one compiled program.

    Returns:
        v embeddings of each picture, 2 with mirror images and 1 without, the same on every process.

    Raises:
        ValueError: there are no pictures.
    """
    mesh = meshes.make_mesh() if mesh is None else mesh
    indices = np.arange(len(images)) if indices is None else np.asarray(indices, np.int64)
    if not len(indices):
        raise ValueError("there are no pictures to embed")
    read = images.__getitem__ if isinstance(images, np.ndarray) else images.images
    if not whole_batches:
        batch_size = min(batch_size, len(indices))
    batch_size = -(-batch_size // mesh.size) * mesh.size
    forward = _compiled(network.module, network.preprocessing, mirror, mesh)
    variables = meshes.replicate(network.variables, mesh)
    shown = Progress(progress, len(indices), unit="pictures") if progress else None
    rows, before = None, None
    for start, pixels in _batches(read, indices, batch_size, mesh):
        output = forward(variables, pixels)  # [b, v, d]
        if rows is None:
            rows = np.empty((len(indices), *output.shape[1:]), np.float32)
        # the batch before is fetched while this one is computed, so that devices never wait
        if before is not None:
            rows[start - batch_size : start] = before
            if shown:
                shown.update(start)
        before = output
    rows[start:] = np.asarray(before)[: len(indices) - start]
    if shown:
        shown.close()
    return rows


def _batches(
    read: Callable[[np.ndarray], np.ndarray], indices: Int[np.ndarray, " k"], size: int, mesh: Mesh
) -> Iterator[tuple[int, UInt8[Array, "b h w 3"]]]:
    """The place of each batch's first picture, and its pixels on the devices; one batch is read ahead."""

    def load(start: int) -> UInt8[Array, "b h w 3"]:
        places = np.minimum(np.arange(start, start + size), len(indices) - 1)  # the last picture once more as padding
        return meshes.shard_read(lambda rows: read(indices[places[rows]]), size, mesh)

    with ThreadPoolExecutor(1) as reader:
        coming = reader.submit(load, 0)
        for start in range(0, len(indices), size):
            pixels = coming.result()
            if start + size < len(indices):
                coming = reader.submit(load, start + size)
            yield start, pixels


@functools.lru_cache(maxsize=16)
def _compiled(
    module: nn.Module, preprocessing: Preprocessing, mirror: bool, mesh: Mesh
) -> Callable[..., Float[Array, "b v d"]]:
    """The way from pixels to embeddings as one function, compiled once for each shape of batch.

    Every device computes its own share without a word to the others. Only the embeddings are gathered, and by a
    collective only where there are several processes: in one, the host fetches them from its devices.
    """
    on_cpu = mesh.devices.flat[0].platform == "cpu"
    several = len({device.process_index for device in mesh.devices.flat}) > 1
    most = max(CPU_PIXELS // (preprocessing.size**2 * (1 + mirror)), 1)

    def forward(variables: Any, pixels: UInt8[Array, "b h w 3"]) -> Float[Array, "b v d"]:
        x = preprocessing(pixels)  # [b, s, s, 3] float32
        views = jnp.stack([x, x[:, :, ::-1]], axis=1) if mirror else x[:, None]  # [b, v, s, s, 3]
        e = module.apply(variables, views.reshape(-1, *x.shape[1:]), train=False)  # [b v, d]
        return e.astype(jnp.float32).reshape(*views.shape[:2], -1)  # [b, v, d]

    def share(variables: Any, pixels: UInt8[Array, "b h w 3"]) -> Float[Array, "b v d"]:
        own = functools.partial(forward, variables)
        return _in_pieces(own, pixels, most) if on_cpu else own(pixels)

    rows = meshes.batch_sharding(mesh)
    return jax.jit(
        jax.shard_map(share, mesh=mesh, in_specs=(P(), rows.spec), out_specs=rows.spec),
        in_shardings=(meshes.replicated(mesh), rows),
        out_shardings=meshes.replicated(mesh) if several else rows,
    )


def _in_pieces(
    function: Callable[..., Float[Array, "p v d"]], pixels: UInt8[Array, "b h w 3"], most: int
) -> Float[Array, "b v d"]:
    """The function of a batch, computed for one piece of at most `most` rows after the other."""
    count = -(-len(pixels) // most)
    size = -(-len(pixels) // count)
    even = jnp.pad(pixels, [(0, count * size - len(pixels)), (0, 0), (0, 0), (0, 0)])
    pieces = jax.lax.map(function, even.reshape(count, size, *pixels.shape[1:]))  # [count, size, v, d]
    return pieces.reshape(-1, *pieces.shape[2:])[: len(pixels)]
