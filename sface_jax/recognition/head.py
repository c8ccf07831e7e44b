"""The classifier on top of a backbone, used in training only: one class matrix, its rows spread over devices.

Device i of k holds rows [i C/k, (i+1) C/k) of the matrix and a k-th of the batch. It gathers the embeddings of the
whole batch, makes their cosines with its own rows, and the devices then exchange what the softmax needs of each
embedding: the maximum, the sum, the own class. So a step moves O(batch x embedding) numbers between devices, whatever
the number of classes: neither the matrix nor its gradient nor the logits ever leave their device.

That grows with a batch that grows with the devices. A mesh with a "model" axis of m > 1 devices spreads the classes
over those alone: each group of m classifies its own share of the batch, and the groups sum their gradients of the
matrix, O(C/m x embedding) numbers, whatever the number of devices.
"""

from __future__ import annotations

import functools
import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P
from jaxtyping import Array, Bool, Float, Int, Key

from sface_jax.core.mesh import ALL
from sface_jax.recognition.losses import normalise
from sface_jax.recognition.methods import Method

State = dict[str, Float[Array, ""]]


class Classified(NamedTuple):
    """What a batch's classification gives.

    Attributes:
        loss: cross entropy of the margin's logits, mean over the batch, plus the margin's own penalty.
        accuracy: share of the batch that is nearest to its own class among those looked at, without a margin.
        state: what the margin keeps for the next step.
        sampled: the classes that took part; the others' weights are to stay as they are. All, where `sample_rate` is 1.
    """

    loss: Float[Array, ""]
    accuracy: Float[Array, ""]
    state: State
    sampled: Bool[Array, " c"]


def axes(mesh: Mesh) -> tuple[str, ...]:
    """The axes of a mesh over whose devices the classes are spread."""
    return ("model",) if mesh.shape["model"] > 1 else ALL


def sharding(mesh: Mesh) -> NamedSharding:
    """Where the rows of the class matrix lie."""
    return NamedSharding(mesh, P(axes(mesh)))


def rows(num_classes: int, mesh: Mesh) -> int:
    """Rows of the class matrix on a mesh: the classes, rounded up to a multiple of the devices that share them."""
    devices = math.prod(mesh.shape[axis] for axis in axes(mesh))
    return math.ceil(num_classes / devices) * devices


def init(key: Key[Array, ""], num_classes: int, embedding_size: int, mesh: Mesh) -> Float[Array, "c d"]:
    """Draws the class matrix from N(0, 0.01^2); rows beyond the classes are zero, and stay so."""
    weight = 0.01 * jax.random.normal(key, (num_classes, embedding_size))
    return jnp.pad(weight, ((0, rows(num_classes, mesh) - num_classes), (0, 0)))


def classify(
    method: Method,
    embeddings: Float[Array, "n d"],
    labels: Int[Array, " n"],
    weight: Float[Array, "c d"],
    state: State,
    key: Key[Array, ""],
    *,
    num_classes: int,
    mesh: Mesh,
    sample_rate: float = 1.0,
) -> Classified:
    """Classifies a batch by its cosines with the classes, in float32.

    With `sample_rate` r < 1 each device looks at a share r of its classes only, those of the batch always among them
    (Partial FC: An et al., arXiv 2010.05222). The other classes are left out of the softmax.

    Args:
        method: the margin.
        embeddings: raw, of any float type; sharded over all devices by rows, as `labels` are.
        labels: 0 <= label < num_classes.
        weight: `rows(num_classes, mesh)` rows, as `sharding(mesh)` places them.
        state: what the margin keeps between steps.
        key: of this step; the same on every device.
        num_classes: rows of the matrix that are classes.
        mesh: the devices.
        sample_rate: r, in (0, 1].
    """
    local = functools.partial(
        _on_device, method=method, num_classes=num_classes, sample_rate=sample_rate, group=axes(mesh)
    )
    return jax.shard_map(
        local,
        mesh=mesh,
        in_specs=(P(ALL), P(ALL), P(axes(mesh)), P(), P()),
        out_specs=Classified(P(), P(), P(), P(axes(mesh))),
    )(embeddings, labels, weight, state, key)


def _on_device(
    embeddings: Float[Array, "m d"],
    labels: Int[Array, " m"],
    weight: Float[Array, "k d"],
    state: State,
    key: Key[Array, ""],
    *,
    method: Method,
    num_classes: int,
    sample_rate: float,
    group: tuple[str, ...],
) -> Classified:
    """Shapes: the devices that share the classes have m rows each and n together, of b in the whole batch."""
    others = tuple(axis for axis in ALL if axis not in group)
    whole = functools.partial(lax.all_gather, axis_name=group, tiled=True)
    embeddings = embeddings.astype(jnp.float32)
    x = whole(normalise(embeddings))  # [n,d]
    device, count = lax.axis_index(group), len(weight)
    labels = whole(labels) - device * count  # [n], outside 0..k-1 where the class lies on another device
    classes = jnp.arange(count)  # [k], those of this device that are looked at
    sampled = lax.pcast(jnp.ones(count, bool), group, to="varying")
    method_key, sample_key = jax.random.split(key)
    if sample_rate < 1:
        size = min(count, max(math.ceil(sample_rate * count), len(labels)))
        classes, labels = _sample(jax.random.fold_in(sample_key, device), labels, count, size)
        sampled = jnp.zeros(count, jnp.int32).at[classes].set(1)
        sampled = (lax.pmax(sampled, others) if others else sampled) > 0
        weight = weight[classes]  # [s,d]
    # Margins act on differences of 1e-2 in the cosine: no fast, coarse matrix product here.
    cosine = lax.dot_general(x, normalise(weight), (((1,), (1,)), ((), ())), precision=lax.Precision.HIGHEST)  # [n,k]
    mine = labels[:, None] == jnp.arange(len(classes))  # [n,k]
    real = None if num_classes == lax.axis_size(group) * count else device * count + classes < num_classes  # [k]

    def over_classes(values: Float[Array, "n k"]) -> Float[Array, " n"]:
        return lax.psum(values.sum(1), group)

    def highest(values: Float[Array, "n k"]) -> Float[Array, " n"]:
        return lax.pmax(lax.stop_gradient(values).max(1), group)

    # A margin may look at the whole batch: what it takes of each row is a number or two.
    norms = lax.all_gather(_norm(embeddings), ALL, tiled=True)  # [b]
    own = over_classes(jnp.where(mine, cosine, 0))  # [n]
    of_rows, state, penalty = method.rows(method_key, state, _gathered(own, group, others), norms)
    of_rows = jax.tree.map(lambda of: _share(of, len(x), others) if of.ndim else of, of_rows)
    logits = method.logits(cosine, labels, of_rows)
    if real is not None:
        cosine, logits = (jnp.where(real, values, -jnp.inf) for values in (cosine, logits))
    # -log softmax = log sum_j exp(l_j - top) + top - l_y
    top = highest(logits)
    total = over_classes(jnp.exp(logits - top[:, None]))
    loss = (jnp.log(total) + top - over_classes(jnp.where(mine, logits, 0))).mean()
    accuracy = (own >= highest(cosine)).mean()
    # What the margin makes of the whole batch is the same on every device, and its mean says so to the compiler.
    state, penalty = lax.pmean((lax.stop_gradient(state), penalty), ALL)
    if others:
        loss, accuracy = lax.pmean((loss, accuracy), others)
    return Classified(loss + penalty, accuracy, state, sampled)


def _gathered(x: Float[Array, " n"], group: tuple[str, ...], others: tuple[str, ...]) -> Float[Array, " b"]:
    """The rows of all groups; for the compiler they then differ between all devices, as the norms do."""
    return lax.pcast(lax.all_gather(x, others, tiled=True), group, to="varying") if others else x


def _share(x: Float[Array, " b"], size: int, axes: tuple[str, ...]) -> Float[Array, " n"]:
    """This group's rows of what was made of the whole batch."""
    return lax.dynamic_slice_in_dim(x, lax.axis_index(axes) * size, size) if axes else x


def _norm(x: Float[Array, "n d"]) -> Float[Array, " n"]:
    """L2 norm of each row, with a finite gradient at zero."""
    return jnp.sqrt(jnp.maximum(jnp.square(x).sum(1), 1e-24))


def _sample(
    key: Key[Array, ""], labels: Int[Array, " n"], count: int, size: int
) -> tuple[Int[Array, " s"], Int[Array, " n"]]:
    """Draws `size` of the device's classes, those of the batch first, and counts labels among them anew."""
    wanted = jnp.zeros(count).at[jnp.where((labels < 0) | (labels >= count), count, labels)].set(1, mode="drop")
    chosen = lax.top_k(wanted + jax.random.uniform(key, (count,)), size)[1]  # uniform is below 1
    place = jnp.full(count, -1).at[chosen].set(jnp.arange(size))
    inside = (labels >= 0) & (labels < count)
    return chosen, jnp.where(inside, place[jnp.clip(labels, 0, count - 1)], -1)
