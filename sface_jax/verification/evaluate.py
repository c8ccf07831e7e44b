"""Stage verify: verification accuracy of recognisers on benchmarks."""

from __future__ import annotations

import dataclasses
import hashlib
import io
from typing import Any

import jax
import numpy as np
from absl import logging
from etils import epath
from jaxtyping import Float32, UInt8
from ml_collections import ConfigDict

from sface_jax.core import files, mesh
from sface_jax.core.errors import UserError
from sface_jax.recognition.network import Network
from sface_jax.verification import networks, protocol
from sface_jax.verification.benchmarks import Benchmark, open_benchmark
from sface_jax.verification.embed import embed

PIXELS = "pixels"
PROTOCOL = "squared distance, 10-fold threshold on arange(0, 4, 0.01); TAR at FAR 1e-3 on arange(0, 4, 0.001)"


def run(config: ConfigDict, workdir: epath.Path) -> dict[str, Any]:
    """Measures every network on every benchmark and writes `workdir/verification/<network>.json`.

    Keys of the config: `networks` (names under `workdir/recognition`, or paths), `benchmarks` (see
    `benchmarks.open_benchmark`), `baselines` ("pixels" compares pictures without learning), `folds`, `batch_size`,
    `flip`. Embeddings are kept under `workdir/verification/embeddings` and made again when the network, the pictures
    or the way of embedding change.

    Returns:
        {benchmark: {network: {"accuracy", "std", "tar_at_far_1e-3"}}}.

    Raises:
        UserError: a network or a benchmark is not there, or a benchmark cannot be read.
    """
    workdir = epath.Path(workdir)
    if not config.benchmarks:
        raise UserError('no benchmark is named: set --config.benchmarks to "heldout" or "name=pairs_file:folder"')
    unknown = set(config.baselines) - {PIXELS}
    if unknown:
        raise UserError(f"there is no baseline {', '.join(sorted(unknown))}: the only one is {PIXELS}")
    loaded = networks.load_all(networks.find(config.networks, workdir, "networks"), "networks")
    table: dict[str, dict[str, dict[str, float]]] = {}
    documents = {
        name: {
            "network": name,
            "flip": "sum" if config.flip else "none",
            "preprocessing": dataclasses.asdict(network.preprocessing),
            "protocol": PROTOCOL,
            "benchmarks": {},
        }
        for name, network in loaded.items()
    }
    for name in config.baselines:
        documents[name] = {"network": name, "flip": "none", "protocol": PROTOCOL, "benchmarks": {}}
    sizes = {network.preprocessing.size for network in loaded.values()}
    for entry in config.benchmarks:
        # networks of one size share the pictures; the split is read as it is, whatever the size
        opened = {size: open_benchmark(entry, workdir, size, config.folds) for size in sizes}
        for name in documents:
            benchmark = opened[loaded[name].preprocessing.size if name in loaded else min(sizes)]
            if name in loaded:
                embeddings = _embed(config, workdir, name, loaded[name], benchmark)
            else:
                embeddings = pixels(benchmark.images)
            result = measure(embeddings, benchmark)
            documents[name]["benchmarks"][benchmark.name] = result
            kept = ("accuracy", "std", "tar_at_far_1e-3")
            table.setdefault(benchmark.name, {})[name] = {key: result[key] for key in kept}
    if mesh.is_lead():
        for name, document in documents.items():
            files.write_json(workdir / "verification" / f"{name}.json", document)
    for line in _lines(table):
        logging.info("%s", line)
    return table


def measure(embeddings: Float32[np.ndarray, "n d"], benchmark: Benchmark) -> dict[str, Any]:
    """Accuracy, true accept rate and ROC of embeddings of length one, JSON-able."""
    pairs = benchmark.pairs
    a, b = embeddings[pairs.first], embeddings[pairs.second]
    accuracy = protocol.kfold_accuracy(a, b, pairs.same, pairs.folds)
    tar = protocol.tar_at_far(a, b, pairs.same, 1e-3, pairs.folds)
    fmr, tmr = protocol.roc(a, b, pairs.same)
    return {
        "accuracy": accuracy.mean,
        "std": accuracy.std,
        "tar_at_far_1e-3": tar.mean,
        "tar_std": tar.std,
        "far": tar.far,
        "folds": pairs.folds,
        "pairs": len(pairs),
        "pictures": len(benchmark.images),
        "per_fold": accuracy.per_fold.tolist(),
        "thresholds": accuracy.thresholds.tolist(),
        "roc": {"fmr": fmr.tolist(), "tmr": tmr.tolist()},
        "sha256": benchmark.digest,
    }


def pixels(images: UInt8[np.ndarray, "n s s 3"]) -> Float32[np.ndarray, "n d"]:
    """A matcher without learning: grey pictures of at most 32 pixels, less their mean, as vectors of length one."""
    grey = images.astype(np.float32).mean(-1)
    step = max(images.shape[1] // 32, 1)
    side = images.shape[1] // step
    grey = grey[:, : side * step, : side * step].reshape(len(grey), side, step, side, step).mean((2, 4))
    flat = grey.reshape(len(grey), -1)
    flat = flat - flat.mean(1, keepdims=True)
    return flat / np.linalg.norm(flat, axis=1, keepdims=True).clip(1e-12)


def _embed(
    config: ConfigDict, workdir: epath.Path, name: str, network: Network, benchmark: Benchmark
) -> Float32[np.ndarray, "n d"]:
    """Embeddings of a benchmark's pictures, from the cache where it holds just these."""
    path = workdir / "verification" / "embeddings" / f"{name}_{benchmark.name}.npz"
    key = _fingerprint(network, benchmark.digest, config.flip)
    if path.exists():
        with np.load(io.BytesIO(path.read_bytes())) as stored:
            if str(stored["key"]) == key:
                return stored["embeddings"]
    options = {"batch_size": config.batch_size, "flip": config.flip, "progress": f"{name} on {benchmark.name}"}
    embeddings = embed(network, benchmark.images, **options)
    if mesh.is_lead():
        files.write_npz(path, embeddings=embeddings, key=np.array(key))
    return embeddings


def _fingerprint(network: Network, digest: str, flip: bool) -> str:
    """Changes whenever the embeddings would."""
    result = hashlib.sha256(f"{digest} {flip} {network.preprocessing} {network.module}".encode())
    for leaf in jax.tree.leaves(network.variables):
        result.update(np.ascontiguousarray(leaf).tobytes())
    return result.hexdigest()


def _lines(table: dict[str, dict[str, dict[str, float]]]) -> list[str]:
    """The table as a person reads it."""
    lines = []
    for benchmark, rows in table.items():
        lines.append(f"{benchmark:<16} {'accuracy':>16} {'TAR at FAR 1e-3':>17}")
        for name, row in sorted(rows.items(), key=lambda item: -item[1]["accuracy"]):
            accuracy = f"{100 * row['accuracy']:.2f} +- {100 * row['std']:.2f} %"
            tar = f"{100 * row['tar_at_far_1e-3']:.1f} %"
            lines.append(f"  {name:<14} {accuracy:>16} {tar:>17}")
    return lines
