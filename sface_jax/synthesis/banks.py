"""Features of pictures by class: those of an authentic dataset, and of synthetic pictures drawn for the purpose."""

from __future__ import annotations

from collections.abc import Callable

import jax
import numpy as np
from jaxtyping import Array, Float, Int

from sface_jax.core import pictures
from sface_jax.core.arrays import AnyArray
from sface_jax.core.progress import Progress
from sface_jax.data import dataset
from sface_jax.synthesis.draw import Draw
from sface_jax.synthesis.sampling import FOR_CENTRES, Samples

# a batch of pictures in [-1, 1] -> features of length one, on the devices
Features = Callable[[Float[AnyArray, "n h w 3"]], Float[Array, "n d"]]


class Bank:
    """Features of pictures by class."""

    def __init__(self, features: Float[np.ndarray, "n d"], labels: Int[np.ndarray, " n"]):
        """Sorts features of length one by their labels; every class 0 ... max(labels) must occur."""
        order = np.argsort(labels, kind="stable")
        self._features = features[order]
        self._ends = np.cumsum(np.bincount(labels))

    def __getitem__(self, label: int) -> Float[np.ndarray, "m d"]:
        """The features of a class."""
        return self._features[self._ends[label - 1] if label else 0 : self._ends[label]]

    def centres(self) -> Float[np.ndarray, "c d"]:
        """The mean direction of each class, of length one."""
        sums = np.stack([self[label].sum(0, dtype=np.float64) for label in range(len(self._ends))])
        return (sums / np.maximum(np.linalg.norm(sums, axis=1, keepdims=True), 1e-12)).astype(np.float32)

    def nearest(self, features: Float[np.ndarray, "n d"], labels: Int[np.ndarray, " n"]) -> Float[np.ndarray, " n"]:
        """The largest cosine of each feature with those of its class."""
        return np.array(
            [(self[label] @ f).max() for f, label in zip(features, labels.tolist(), strict=True)], np.float32
        )


def authentic_bank(split: dataset.Split, features: Features, batch_size: int) -> Bank:
    """Embeds every picture of an authentic split; its k-th label, in ascending order, is the generator's class k."""

    def embed(rows: Int[np.ndarray, " b"]) -> Float[Array, "b d"]:
        return features(pictures.from_uint8(split.images(rows)))

    rows = _shared_out(len(split), batch_size, embed, "synthesize: authentic pictures")
    return Bank(rows, np.searchsorted(split.classes, split.labels))


def synthetic_bank(classes: int, count: int, draw: Draw, features: Features, batch_size: int) -> Bank:
    """Draws and embeds `count` pictures of every class that will not be in the dataset."""

    def embed(rows: Int[np.ndarray, " b"]) -> Float[Array, "b d"]:
        return features(draw(Samples(rows // count, rows % count, np.full(len(rows), FOR_CENTRES))))

    rows = _shared_out(classes * count, batch_size, embed, "synthesize: centres")
    return Bank(rows, np.arange(classes * count) // count)


def _shared_out(
    total: int, batch_size: int, embed: Callable[[Int[np.ndarray, " b"]], Float[Array, "b d"]], name: str
) -> Float[np.ndarray, "n d"]:
    """Embeds rows 0 ... total - 1, an equal part in each process, and gives all of them to all processes."""
    part = -(-total // jax.process_count())
    first = jax.process_index() * part
    progress, done, waiting = Progress(name, part, unit="pictures"), [], None
    for start in range(first, first + part, batch_size):
        # what goes past the end starts again at the front: all batches and parts have one shape
        launched = embed(np.arange(start, start + batch_size) % total)
        if waiting is not None:
            done.append(np.asarray(waiting))
            progress.update(start - first)
        waiting = launched
    done.append(np.asarray(waiting))
    progress.close()
    mine = np.concatenate(done)[:part]
    if jax.process_count() == 1:
        return mine
    from jax.experimental import multihost_utils

    return np.asarray(multihost_utils.process_allgather(mine)).reshape(-1, mine.shape[1])[:total]
