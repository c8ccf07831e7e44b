"""Stage verify: verification accuracy of recognisers on benchmarks."""

from __future__ import annotations

import dataclasses
import hashlib
import io
import time
from typing import Any

import numpy as np
from absl import logging
from etils import epath
from jaxtyping import Float32, UInt8
from ml_collections import ConfigDict

from sface_jax.core import files, mesh
from sface_jax.core.errors import UserError
from sface_jax.recognition.network import Network, OpenNetwork, fingerprint, load
from sface_jax.verification import networks, protocol
from sface_jax.verification.benchmarks import Benchmark, open_benchmark
from sface_jax.verification.embed import FLIPS, features, fuse

PIXELS = "pixels"
PROTOCOL = "squared distance, 10-fold threshold on arange(0, 4, 0.01); TAR at FAR 1e-3 on arange(0, 4, 0.001)"


def run(config: ConfigDict, workdir: epath.Path, open_network: OpenNetwork = load) -> dict[str, Any]:
    """Measures every network on every benchmark and writes `workdir/verification/<network>.json`.

    Keys of the config: `networks` (names under `workdir/recognition`, or paths), or a single `network`; `benchmarks`
    and `root` (see `benchmarks.open_benchmark`), `baselines` ("pixels" compares pictures without learning), `folds`,
    `batch_size`, `flip` (ways of `embed.fuse`, the first of which is the network's result). Embeddings are kept under
    `workdir/verification/embeddings` and made again when the network or the pictures change.

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
    if not config.flip or set(config.flip) - set(FLIPS):
        raise UserError(f"config.flip is {config.flip}: name one or more of {', '.join(FLIPS)}")
    names, key = ((config.network,), "network") if config.network else (config.networks, "networks")
    loaded = networks.load_all(networks.find(names, workdir, key), key, open_network)
    table: dict[str, dict[str, dict[str, float]]] = {}
    documents = {
        name: {
            "network": name,
            "flip": config.flip[0],
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
        opened = {size: open_benchmark(entry, workdir, size, config.folds, config.root) for size in sizes}
        for name in documents:
            benchmark = opened[loaded[name].preprocessing.size if name in loaded else min(sizes)]
            if name in loaded:
                views, speed = _features(config, workdir, name, loaded[name], benchmark)
                fused = {flip: measure(fuse(views, flip), benchmark) for flip in config.flip}
                result = fused[config.flip[0]] | speed
                if len(fused) > 1:
                    result["flips"] = {flip: _headline(of) for flip, of in fused.items()}
            else:
                result = measure(pixels(benchmark.images), benchmark)
            documents[name]["benchmarks"][benchmark.name] = result
            kept = _headline(result) | ({"flips": result["flips"]} if "flips" in result else {})
            table.setdefault(benchmark.name, {})[name] = kept
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


def _headline(result: dict[str, Any]) -> dict[str, float]:
    return {key: result[key] for key in ("accuracy", "std", "tar_at_far_1e-3")}


def _features(
    config: ConfigDict, workdir: epath.Path, name: str, network: Network, benchmark: Benchmark
) -> tuple[Float32[np.ndarray, "n v d"], dict[str, float]]:
    """Embeddings of a benchmark's pictures, from the cache where it holds just these, and how fast they were made."""
    path = workdir / "verification" / "embeddings" / f"{name}_{benchmark.name}.npz"
    mirror = set(config.flip) != {"none"}
    key = hashlib.sha256(f"{benchmark.digest} {mirror} {fingerprint(network)}".encode()).hexdigest()
    if path.exists():
        with np.load(io.BytesIO(path.read_bytes())) as stored:
            if str(stored["key"]) == key:
                speed = {word: float(stored[word]) for word in ("embedding_seconds", "pictures_per_second")}
                return stored["features"], speed
    began = time.perf_counter()
    views = features(
        network,
        benchmark.images,
        batch_size=config.batch_size,
        mirror=mirror,
        progress=f"{name} on {benchmark.name}",
    )
    seconds = time.perf_counter() - began
    speed = {"embedding_seconds": seconds, "pictures_per_second": len(views) / seconds}
    logging.info(
        "%s embedded %s pictures%s in %.1f s, compilation included: %.1f pictures/s",
        *(name, len(views), " and their mirror images" if mirror else "", seconds, speed["pictures_per_second"]),
    )
    if mesh.is_lead():
        files.write_npz(path, features=views, key=np.array(key), **{word: np.array(x) for word, x in speed.items()})
    return views, speed


def _lines(table: dict[str, dict[str, dict[str, float]]]) -> list[str]:
    """The table as a person reads it."""
    lines = []
    labels = [f"{name} {flip}".strip() for rows in table.values() for name, row in rows.items() for flip in _flips(row)]
    width = max(map(len, labels), default=0)
    for benchmark, rows in table.items():
        lines.append(f"{benchmark:<{width + 2}} {'accuracy':>16} {'TAR at FAR 1e-3':>17}")
        for name, row in sorted(rows.items(), key=lambda item: -item[1]["accuracy"]):
            for flip, figures in _flips(row).items():
                accuracy = f"{100 * figures['accuracy']:.2f} +- {100 * figures['std']:.2f} %"
                tar = f"{100 * figures['tar_at_far_1e-3']:.1f} %"
                lines.append(f"  {f'{name} {flip}'.strip():<{width}} {accuracy:>16} {tar:>17}")
    return lines


def _flips(row: dict[str, Any]) -> dict[str, dict[str, float]]:
    """A network's figures by its ways of putting picture and mirror image together; nameless where it has one."""
    return row.get("flips", {"": row})
