"""Devices: the ("data", "model") mesh, and arrays placed on it."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, Sharding
from jax.sharding import PartitionSpec as P

from sface_jax.core.errors import UserError

ALL = ("data", "model")
"""Both axes of the mesh: every device."""

SMALL = 2**14
"""Entries below which `spread` leaves an array whole: there is nothing to save."""


def make_mesh(data: int = -1, model: int = 1) -> Mesh:
    """Lays all devices out as a ("data", "model") mesh with Auto axes.

    Batches are shared by every device, along both axes. So are the classes of a recogniser's classifier, unless there
    is a second axis: then each group of devices along that has all classes, see `recognition.head`.

    Args:
        data: devices along the first axis; -1 takes what `model` leaves.
        model: devices along the second axis.

    Raises:
        UserError: the two sizes do not multiply to the number of devices.
    """
    count = jax.device_count()
    data = count // model if data == -1 else data
    if data * model != count:
        raise UserError(
            f"mesh {data}x{model} does not fit the {count} devices: set config.mesh so that data*model={count}"
        )
    return jax.make_mesh((data, model), ("data", "model"), axis_types=(AxisType.Auto, AxisType.Auto))


def batch_sharding(mesh: Mesh, axis: int = 0) -> NamedSharding:
    """Sharding of arrays of which one axis, by default the first, is the global batch (or all classes)."""
    return NamedSharding(mesh, P(*[None] * axis, ALL))


def replicated(mesh: Mesh) -> NamedSharding:
    """Sharding of arrays that every device holds whole."""
    return NamedSharding(mesh, P())


def spread(tree: Any, mesh: Mesh) -> Any:
    """Shardings of arrays that the devices keep in shares: along the largest axis that divides among all of them.

    Arrays without such an axis, and small ones (`SMALL`), stay whole on every device.

    Args:
        tree: of arrays or shapes.
        mesh: the devices.

    Returns:
        A tree of shardings.
    """

    def of(x: Any) -> NamedSharding:
        axes = [axis for axis, size in enumerate(x.shape) if size % mesh.size == 0]
        if not axes or math.prod(x.shape) < SMALL:
            return replicated(mesh)
        return batch_sharding(mesh, max(axes, key=lambda axis: x.shape[axis]))

    return jax.tree.map(of, tree)


def cut(tree: Any, shardings: Any, mesh: Mesh) -> Any:
    """In a program: brings what is summed over the devices, such as gradients, to where it is to lie, in shares or not.

    Whole first: of a convolution's gradient that is asked for in shares at once, XLA makes a ring of small convolutions
    between which shares of the kernel go round.
    """
    whole = jax.lax.with_sharding_constraint(tree, replicated(mesh))
    return jax.lax.with_sharding_constraint(whole, shardings)


def shapes(tree: Any, where: Any = None) -> Any:
    """Shapes on devices, to lower a program for them without the arrays.

    Args:
        tree: of arrays or shapes.
        where: the sharding of all of them, or a tree of shardings; None for shapes that lie nowhere yet.
    """
    if where is None or isinstance(where, Sharding):
        return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=where), tree)
    return jax.tree.map(lambda x, own: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=own), tree, where)


def replicate(tree: Any, mesh: Mesh) -> Any:
    """Puts a tree of arrays, wherever they are, whole on every device."""
    # By way of the host: whoever loaded them may have placed them on the devices of another mesh.
    return jax.device_put(jax.device_get(tree), replicated(mesh))


def shard_batch(batch: Any, mesh: Mesh) -> Any:
    """Joins each process's slice of a batch (a tree of NumPy arrays) into global arrays, a share on every device."""
    sharding = batch_sharding(mesh)
    if jax.process_count() == 1:
        return jax.device_put(batch, sharding)
    return jax.tree.map(lambda x: jax.make_array_from_process_local_data(sharding, x), batch)


def shard_whole(batch: Any, mesh: Mesh) -> jax.Array:
    """Shards over all devices an array that every process has whole; see `shard_read`."""
    return shard_read(lambda rows: batch[rows], len(batch), mesh)


def shard_read(read: Callable[[np.ndarray], np.ndarray], size: int, mesh: Mesh) -> jax.Array:
    """Makes an array sharded over all devices of rows that each process reads for its own devices.

    Unlike `shard_batch`, it puts row i in place i whatever the order of the devices in the mesh, which on a TPU slice
    is not that of the processes.

    Args:
        read: gives the rows at some of the positions 0..size - 1.
        size: rows in all, a multiple of the devices.
        mesh: the devices.
    """
    sharding = batch_sharding(mesh)
    places = sharding.addressable_devices_indices_map((size,))
    parts = [jax.device_put(read(np.arange(size)[rows]), device) for device, (rows,) in places.items()]
    return jax.make_array_from_single_device_arrays((size, *parts[0].shape[1:]), sharding, parts)


def is_lead() -> bool:
    """Whether this process is the one that writes files and talks to the terminal."""
    return jax.process_index() == 0


def as_lead_has_it(value: float | int) -> float | int:
    """Returns the lead process's value on every process, so that all of them take the same way."""
    if jax.process_count() == 1:
        return value
    from jax.experimental import multihost_utils

    return float(multihost_utils.broadcast_one_to_all(value))


def agreed(value: bool) -> bool:
    """Whether a value is true on every process; all must call this."""
    if jax.process_count() == 1:
        return value
    from jax.experimental import multihost_utils

    return bool(multihost_utils.process_allgather(np.array(value)).all())


def barrier(name: str) -> None:
    """Waits until every process of the run has come to the barrier of that name."""
    if jax.process_count() > 1:
        from jax.experimental import multihost_utils

        multihost_utils.sync_global_devices(name)
