"""The stage "benchmark_verification": what the protocols cost once embeddings are there."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from absl import logging
from etils import epath
from jaxtyping import Bool, Float, Float32, Int32
from ml_collections import ConfigDict

from sface_jax.core import files, timing
from sface_jax.verification import protocol, templates


def run(config: ConfigDict, workdir: epath.Path) -> dict[str, Any]:
    """Prints a table and writes `benchmark/verification.json`.

    Embeddings are random, of the shape of a benchmark of pairs and of IJB-C. "loops" is what the sweep saves: a
    comparison of all distances with each threshold, fold by fold, as the published evaluator does it.

    Args:
        config: see configs/benchmark.py.
        workdir: gets the file.
    """
    result: dict[str, Any] = {"device": jax.devices()[0].device_kind} | _pairs(config)
    if config.pictures:
        result |= _templates(config)
    files.write_json(epath.Path(workdir) / "benchmark" / "verification.json", result)
    return result


def _pairs(config: ConfigDict) -> dict[str, float]:
    rng = np.random.default_rng(0)
    shape = (config.pairs, config.dimensions)
    same = np.arange(config.pairs) % 2 == 0
    a = rng.standard_normal(shape, np.float32)
    b = np.where(same[:, None], a, 0) + rng.standard_normal(shape, np.float32)
    a, b = (x / np.linalg.norm(x, axis=1, keepdims=True) for x in (a, b))

    def together() -> None:
        compared = protocol.compare(a, b, same)
        compared.accuracy(), compared.tar_at_far(), compared.points()

    def apart() -> None:
        protocol.kfold_accuracy(a, b, same), protocol.tar_at_far(a, b, same), protocol.roc(a, b, same)

    works = {"protocol": together, "protocol, each figure by itself": apart, "loops": lambda: _loops(a, b, same)}
    seconds = timing.interleaved(works, config.rounds)
    logging.info("%d pairs of %d dimensions: accuracy, TAR at FAR and ROC", *shape)
    for name, of in seconds.items():
        logging.info("  %-34s %9.2f ms  %6.1f x", name, 1000 * of, seconds["loops"] / of)
    return {f"{name}_ms": 1000 * of for name, of in seconds.items()}


def _loops(a: Float[np.ndarray, "p d"], b: Float[np.ndarray, "p d"], same: Bool[np.ndarray, " p"]) -> None:
    """The comparisons that the published evaluator makes: for each fold, on the others and on itself."""
    distance = np.square(a - b).sum(1)
    for test in np.array_split(np.arange(len(same)), 10):
        train = np.setdiff1d(np.arange(len(same)), test)
        for part in (train, test):
            for threshold in protocol.ACCURACY_GRID:
                accepted = distance[part] < threshold
                np.sum(accepted & same[part]), np.sum(accepted & ~same[part])
                np.sum(~accepted & same[part]), np.sum(~accepted & ~same[part])
        for threshold in protocol.RATE_GRID:
            accepted = distance[train] < threshold
            np.sum(accepted & same[train]), np.sum(accepted & ~same[train])


def _templates(config: ConfigDict) -> dict[str, float]:
    rng = np.random.default_rng(0)
    subjects = max(config.templates // 6, 2)
    subject = np.concatenate([np.arange(subjects), rng.integers(0, subjects, config.templates - subjects)])
    template = np.sort(rng.permutation(np.arange(config.pictures) % config.templates)).astype(np.int32)
    media = rng.integers(0, 6, config.pictures).astype(np.int32)
    embeddings = rng.standard_normal((config.pictures, config.dimensions), np.float32)
    told = min(64, config.dimensions)  # of the dimensions, by whom a picture shows
    embeddings[:, :told] += 4 * rng.standard_normal((subjects, told), np.float32)[subject[template]]
    first, second, same = _drawn(rng, subject, subjects, config.template_pairs)

    seconds: dict[str, float] = {}

    def timed(name: str, work: Callable[[], Any]) -> Any:
        began = time.perf_counter()
        found = work()
        seconds[name] = time.perf_counter() - began
        return found

    pooled: Float32[np.ndarray, "t d"] = timed("pooling", lambda: templates.pool(embeddings, template, media))
    timed("scores and rates", lambda: templates.measure(pooled, first, second, same))
    peak = timing.peak_gib()
    shape = (config.pictures, config.dimensions, config.templates, config.template_pairs)
    logging.info("%d pictures of %d dimensions in %d templates, %d pairs, compilation included", *shape)
    for name, of in seconds.items():
        logging.info("  %-34s %9.2f s", name, of)
    logging.info("  %-34s %9.2f GiB, of which %.2f are embeddings", "peak memory", peak, embeddings.nbytes / 2**30)
    return {f"templates: {name}_s": of for name, of in seconds.items()} | {"templates: peak_gib": peak}


def _drawn(
    rng: np.random.Generator, subject: np.ndarray, subjects: int, pairs: int
) -> tuple[Int32[np.ndarray, " p"], Int32[np.ndarray, " p"], Bool[np.ndarray, " p"]]:
    """Pairs as IJB-C has them: sorted by first templates, which are one of each subject, one mated pair in 800."""
    first = np.sort(rng.integers(0, subjects, pairs)).astype(np.int32)
    second = rng.integers(subjects, len(subject), pairs).astype(np.int32)
    mates = np.argsort(subject[subjects:], kind="stable") + subjects
    found = np.searchsorted(subject[mates], first[::800]).clip(max=len(mates) - 1)
    second[::800] = mates[found]
    return first, second, subject[first] == subject[second]
