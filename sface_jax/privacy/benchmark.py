"""The stage "benchmark_matching": what comparing all with all costs, beside the bare matrix product."""

from __future__ import annotations

import functools
import importlib.util
import os
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from absl import logging
from etils import epath
from jaxtyping import Array, Float32
from ml_collections import ConfigDict

from sface_jax.core import files, timing
from sface_jax.core.progress import duration
from sface_jax.privacy import matching, tiles

THRESHOLDS = (0.1, 0.2, 0.3, 0.4, 0.5)


def run(config: ConfigDict, workdir: epath.Path) -> dict[str, Any]:
    """Prints a table and writes `benchmark/matching.json`.

    Embeddings are random, sorted by label, of the whole shape; a slice of both sides is timed, all in turns: the engine
    with histograms, thresholds and the nearest neighbour, the bare matrix product in the same blocks, and FAISS's flat
    index where faiss is installed.

    Args:
        config: see configs/benchmark.py.
        workdir: gets the file.
    """
    before = timing.peak_gib()
    query, gallery = (_embeddings(seed, rows, config.dimensions) for seed, rows in enumerate((config.n, config.m)))
    labels = [np.sort(np.arange(len(x), dtype=np.int32) % config.identities) for x in (query, gallery)]
    held = (query.nbytes + gallery.nbytes) / 2**30
    q, g = query[: config.queries], gallery[: config.gallery]
    of_q, of_g = labels[0][: config.queries], labels[1][: config.gallery]

    engine = functools.partial(matching.match, q, g, of_q, of_g, thresholds=THRESHOLDS, top_k=1, gallery_side=False)
    both = functools.partial(matching.match, q, g, of_q, of_g, thresholds=THRESHOLDS, top_k=10)
    # the memory is that of the whole gallery with the queries of one part
    matching.match(query[: matching.PART], gallery, labels[0][: matching.PART], labels[1], thresholds=THRESHOLDS)
    beyond = timing.peak_gib() - before - held

    works: dict[str, Callable[[], Any]] = {
        "matrix product": _product(q, g),
        "engine": engine,
        "engine, 10 neighbours, both sides": both,
    }
    if importlib.util.find_spec("faiss"):
        works["faiss flat, 1 neighbour"] = _faiss(q, g)
    seconds = timing.interleaved(works, config.rounds)
    pairs = len(q) * len(g)
    logging.info(
        "%s x %s of %s dimensions on %s x %s; the whole: %s x %s",
        *(f"{len(q):,}", f"{len(g):,}", config.dimensions, jax.device_count(), jax.devices()[0].device_kind),
        *(f"{config.n:,}", f"{config.m:,}"),
    )
    result: dict[str, Any] = {"device": jax.devices()[0].device_kind, "peak_gib_beyond_embeddings": beyond}
    for name, of in seconds.items():
        whole = of / pairs * config.n * config.m
        rate = seconds["matrix product"] / of
        logging.info(
            "  %-36s %8.3f G comparisons/s  %5.2f of the product's rate  the whole: %s",
            *(name, pairs / of / 1e9, rate, duration(whole)),
        )
        result[name] = {"comparisons_per_second": pairs / of, "of_the_product": rate, "whole_seconds": whole}
    logging.info("  peak memory beyond the embeddings (%.2f GiB): %.2f GiB", held, beyond)
    files.write_json(epath.Path(workdir) / "benchmark" / "matching.json", result)
    return result


def _embeddings(seed: int, rows: int, dimensions: int) -> Float32[np.ndarray, "n d"]:
    """Rows of length one, made in place: no second array of that size is ever held."""
    rng = np.random.default_rng(seed)
    x = np.empty((rows, dimensions), np.float32)
    for start in range(0, rows, matching.PART):
        part = x[start : start + matching.PART]
        rng.standard_normal(out=part, dtype=np.float32)
        part /= np.linalg.norm(part, axis=1, keepdims=True)
    return x


def _product(query: Float32[np.ndarray, "n d"], gallery: Float32[np.ndarray, "m d"]) -> Callable[[], None]:
    """All blocks of the score matrix, one after the other and each in place of the one before."""
    cut = [x[: len(x) // tiles.BLOCK * tiles.BLOCK].reshape(-1, tiles.BLOCK, x.shape[1]) for x in (query, gallery)]

    @jax.jit
    def multiply(queries: Float32[Array, "a b d"], galleries: Float32[Array, "c b d"]) -> Float32[Array, "b b"]:
        def over(_, query):
            def one(_, other):
                return jnp.matmul(query, other.T, precision=jax.lax.Precision.HIGHEST), None

            return jax.lax.scan(one, nothing, galleries)[0], None

        nothing = jnp.zeros((tiles.BLOCK, tiles.BLOCK))
        return jax.lax.scan(over, nothing, queries)[0]

    on_device = [jnp.asarray(x) for x in cut]
    return lambda: jax.block_until_ready(multiply(*on_device))


def _faiss(query: Float32[np.ndarray, "n d"], gallery: Float32[np.ndarray, "m d"]) -> Callable[[], Any]:
    """The nearest neighbour by FAISS's exact index, on all cores."""
    faiss = importlib.import_module("faiss")
    faiss.omp_set_num_threads(len(os.sched_getaffinity(0)))
    index = faiss.IndexFlatIP(query.shape[1])
    index.add(gallery)
    return lambda: index.search(query, 1)
