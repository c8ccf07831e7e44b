"""Times pieces of work against each other on a machine that does other things too."""

from __future__ import annotations

import resource
import statistics
import time
from collections.abc import Callable, Mapping

import jax
import jax.numpy as jnp

PRODUCT = 2048  # rows and columns of the matrix product
PRODUCT_FLOPS = 2 * PRODUCT**3


def matrix_product(dtype: str) -> Callable[[], None]:
    """A matrix product of `PRODUCT_FLOPS` operations, to tell the machine from the code."""
    matrix = jax.random.normal(jax.random.key(0), (PRODUCT, PRODUCT), jnp.dtype(dtype))
    multiply = jax.jit(jnp.matmul)
    return lambda: jax.block_until_ready(multiply(matrix, matrix))


def peak_gib() -> float:
    """The most memory that this process has held so far, in GiB (Linux tells it in KiB)."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


def interleaved(works: Mapping[str, Callable[[], None]], rounds: int) -> dict[str, float]:
    """The median seconds of each piece of work, after one that is not timed.

    Args:
        works: name -> function that returns when its work is done.
        rounds: how often to run each; they take turns, so that what disturbs the machine disturbs all of them.
    """
    for work in works.values():
        work()
    times: dict[str, list[float]] = {name: [] for name in works}
    for _ in range(rounds):
        for name, work in works.items():
            began = time.perf_counter()
            work()
            times[name].append(time.perf_counter() - began)
    return {name: statistics.median(of) for name, of in times.items()}
