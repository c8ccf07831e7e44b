"""Which attempt at which picture goes into which batch, and which attempt is taken."""

from __future__ import annotations

import collections
import itertools
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import NamedTuple

import numpy as np
from jaxtyping import Int, UInt8

from sface_jax.core import pictures
from sface_jax.synthesis.draw import Draw
from sface_jax.synthesis.rejection import Judge
from sface_jax.synthesis.sampling import Samples


class Taken(NamedTuple):
    """A picture of the dataset.

    Attributes:
        png: its file.
        attempt: the attempt a that passed, from 0; -1 - a where none passed and a came nearest.
    """

    png: bytes
    attempt: int


class _Rejected(NamedTuple):
    """The attempt that came nearest so far."""

    violation: float
    attempt: int
    image: UInt8[np.ndarray, "h w 3"]


def take(
    labels: Int[np.ndarray, " n"],
    indices: Int[np.ndarray, " n"],
    draw: Draw,
    batch_size: int,
    judge: Judge | None = None,
    attempts: int = 1,
) -> Iterator[Taken]:
    """Yields pictures in order, each drawn until the judge accepts it.

    Rejected pictures go into the next batches, before those not drawn yet, so that the devices stay busy and few
    pictures wait for one before them. The devices draw one batch while the host settles and encodes the one before.

    Args:
        labels: classes of the pictures.
        indices: their numbers in the class.
        draw: draws one batch.
        batch_size: samples in it.
        judge: accepts or rejects; None accepts all.
        attempts: most draws of a picture. After the last one, the one that came nearest to passing is taken, the
            earlier of two equals.
    """
    fresh, again = iter(range(len(labels))), collections.deque[tuple[int, int]]()
    rejected: dict[int, _Rejected] = {}
    done: dict[int, tuple[Future[bytes], int]] = {}

    def launch(batch: list[tuple[int, int]]):
        # The last batch is filled up from the front: its shape, and so the program, stays the same.
        rows, tries = np.resize(batch, (batch_size, 2)).T
        samples = Samples(labels[rows], indices[rows], tries)
        drawn = draw(samples)
        return batch, samples, drawn, judge and judge.look(drawn, samples.labels)

    def settle(pool: ThreadPoolExecutor, batch: list[tuple[int, int]], samples: Samples, drawn, look) -> None:
        violations = judge.violations(look, samples.labels) if judge else np.zeros(len(drawn))
        # the rows that filled the batch up are left out
        for (row, attempt), image, violation in zip(batch, pictures.to_uint8(drawn), violations, strict=False):
            if violation == 0:
                rejected.pop(row, None)
                done[row] = pool.submit(pictures.encode_png, image), attempt
                continue
            if row not in rejected or violation < rejected[row].violation:
                rejected[row] = _Rejected(violation, attempt, image.copy())
            if attempt + 1 < attempts:
                again.append((row, attempt + 1))
            else:
                nearest = rejected.pop(row)
                done[row] = pool.submit(pictures.encode_png, nearest.image), -1 - nearest.attempt

    with ThreadPoolExecutor() as pool:
        flying, row = None, 0
        while row < len(labels):
            batch = [again.popleft() for _ in range(min(len(again), batch_size))]
            batch += [(fresh_row, 0) for fresh_row in itertools.islice(fresh, batch_size - len(batch))]
            launched = launch(batch) if batch else None
            if flying:
                settle(pool, *flying)
            flying = launched
            while row in done:
                png, attempt = done.pop(row)
                yield Taken(png.result(), attempt)
                row += 1
