"""Stage verify: verification accuracy of recognisers on benchmarks."""

from __future__ import annotations

import dataclasses
import hashlib
import io
import time
from collections.abc import Callable
from typing import Any

import numpy as np
from absl import logging
from etils import epath
from jaxtyping import Float32, UInt8
from ml_collections import ConfigDict

from sface_jax.core import files, mesh
from sface_jax.core.errors import UserError
from sface_jax.recognition.network import Network, OpenNetwork, fingerprint, load
from sface_jax.verification import networks, overrides, table
from sface_jax.verification.benchmarks import (
    Benchmark,
    TemplateBenchmark,
    is_templates,
    open_benchmark,
    open_templates,
)
from sface_jax.verification.embed import FLIPS, features, fuse, together
from sface_jax.verification.measure import PROTOCOLS, measure, measure_templates

PIXELS = "pixels"
SIZE = 112  # until a network says what it wants
AXES = ("log", "normal")

AnyBenchmark = Benchmark | TemplateBenchmark
WritePage = Callable[..., None]
"""Writes a page into a folder; see `report.verification.write_page`, which `main` hands over."""


def run(
    config: ConfigDict, workdir: epath.Path, open_network: OpenNetwork = load, write_page: WritePage | None = None
) -> dict[str, Any]:
    """Measures every network on every benchmark and writes `workdir/verification/<network>.json`.

    Keys of the config: `networks` (names under `workdir/recognition`, or paths), or a single `network`; `preprocessing`
    in place of the networks' own (see `overrides.override`); `benchmarks`, `root`, `crop`, `folds` and `uneven_folds`
    (see `benchmarks.open_benchmark` and `open_templates`); `norm_weighting` and `detector_weighting` of templates;
    `baselines` ("pixels" compares pictures without learning); `batch_size`; `flip` (ways of `embed.fuse`, the first of
    which is the network's result); `replicates` of the bootstrap; `det_axes`; `show_authentic` (whether the page may
    show the hardest pairs). Embeddings are kept under `workdir/verification/embeddings` and made again when the network
    or the pictures change.

    Returns:
        {benchmark: {network: {"accuracy", "std", "tar_at_far_1e-3"}}}.

    Raises:
        UserError: a network or a benchmark is not there, or a benchmark cannot be read.
    """
    workdir = epath.Path(workdir)
    _check(config)
    names, key = ((config.network,), "network") if config.network else (config.networks, "networks")
    loaded = {
        name: overrides.override(network, config.preprocessing)
        for name, network in networks.load_all(networks.find(names, workdir, key), key, open_network).items()
    }
    documents: dict[str, dict[str, Any]] = {name: _document(name, config) for name in (*loaded, *config.baselines)}
    for name, network in loaded.items():
        documents[name] |= {"flip": config.flip[0], "preprocessing": dataclasses.asdict(network.preprocessing)}
    shown: dict[tuple[str, str], Any] = {}
    smallest = min(network.preprocessing.size for network in loaded.values())
    for entry in config.benchmarks:
        opened = _open(config, entry, workdir)
        for name, document in documents.items():
            size = loaded[name].preprocessing.size if name in loaded else smallest
            benchmark = opened.at(size, config.crop)
            if name in loaded:
                result = _judge(config, workdir, name, loaded[name], benchmark)
            elif isinstance(benchmark, Benchmark):
                result = measure(pixels(benchmark.images.all()), benchmark, config.replicates)
            else:
                continue  # pixels know no templates
            document["benchmarks"][benchmark.name] = result
            if config.show_authentic and name in loaded and "hardest" in result:
                shown[name, benchmark.name] = _hardest(result, benchmark)
    folder = workdir / "verification"
    if mesh.is_lead():
        for name, document in documents.items():
            files.write_json(folder / f"{name}.json", document)
        every = table.gather(folder, documents)
        files.write_text(folder / "table.md", table.markdown(every))
        if write_page:
            tables = {words: table.rows(every, figure) for figure, words in table.FIGURES.items()}
            tables = {words: cells for words, cells in tables.items() if cells}
            write_page(folder, every, tables, shown, log=config.det_axes == "log")
        for figure in table.FIGURES:
            for line in table.lines(every, figure):
                logging.info("%s", line)
    found: dict[str, dict[str, Any]] = {}
    for name, document in documents.items():
        for benchmark, result in document["benchmarks"].items():
            found.setdefault(benchmark, {})[name] = table.headline(result)
    return found


def _check(config: ConfigDict) -> None:
    if not config.benchmarks:
        raise UserError('no benchmark is named: set --config.benchmarks to "heldout" or "name=pairs_file:folder"')
    unknown = set(config.baselines) - {PIXELS}
    if unknown:
        raise UserError(f"there is no baseline {', '.join(sorted(unknown))}: the only one is {PIXELS}")
    if not config.flip or set(config.flip) - set(FLIPS):
        raise UserError(f"config.flip is {config.flip}: name one or more of {', '.join(FLIPS)}")
    if config.det_axes not in AXES:
        raise UserError(f"config.det_axes is {config.det_axes!r}: choose from {', '.join(AXES)}")


def _document(name: str, config: ConfigDict) -> dict[str, Any]:
    return {"network": name, "flip": "none", "crop": config.crop, "protocols": PROTOCOLS, "benchmarks": {}}


def _open(config: ConfigDict, entry: str, workdir: epath.Path) -> AnyBenchmark:
    if not is_templates(entry):
        return open_benchmark(entry, workdir, SIZE, config.folds, config.root, config.crop, config.uneven_folds)
    if config.crop != 1:
        raise UserError(f"pictures of {entry} are aligned by their landmarks: set --config.crop=1.0")
    return open_templates(entry, SIZE)


def _judge(
    config: ConfigDict, workdir: epath.Path, name: str, network: Network, benchmark: AnyBenchmark
) -> dict[str, Any]:
    """A network's result on a benchmark: by the first way of `config.flip`, the headlines of the others beside it."""
    views, speed = _features(config, workdir, name, network, benchmark)
    try:
        measured = {flip: _measure(config, views, flip, benchmark) for flip in config.flip}
    except UserError as error:
        raise UserError(f"{name} on {benchmark.name}: {error}") from error
    result = measured[config.flip[0]] | speed
    if len(measured) > 1:
        result["flips"] = {flip: table.headline(of) for flip, of in measured.items()}
    return result


def _measure(
    config: ConfigDict, views: Float32[np.ndarray, "n v d"], flip: str, benchmark: AnyBenchmark
) -> dict[str, Any]:
    if isinstance(benchmark, Benchmark):
        return measure(fuse(views, flip), benchmark, config.replicates if flip == config.flip[0] else 0)
    return measure_templates(
        together(views, flip),
        benchmark,
        norm_weighting=config.norm_weighting,
        detector_weighting=config.detector_weighting,
    )


def _hardest(result: dict[str, Any], benchmark: Benchmark) -> list[dict[str, Any]]:
    """The pairs of `measure.hardest` with their pictures' names and pixels."""
    found = []
    for pair in result["hardest"]:
        sides = benchmark.pairs.first[pair["pair"]], benchmark.pairs.second[pair["pair"]]
        named = [benchmark.images.names[i] for i in sides]
        found.append(pair | {"names": named, "pictures": list(benchmark.images.images(np.array(sides)))})
    return found


def pixels(images: UInt8[np.ndarray, "n s s 3"]) -> Float32[np.ndarray, "n d"]:
    """A matcher without learning: grey pictures of at most 32 pixels, less their mean, as vectors of length one."""
    grey = images.astype(np.float32).mean(-1)
    step = max(images.shape[1] // 32, 1)
    side = images.shape[1] // step
    grey = grey[:, : side * step, : side * step].reshape(len(grey), side, step, side, step).mean((2, 4))
    flat = grey.reshape(len(grey), -1)
    flat = flat - flat.mean(1, keepdims=True)
    return flat / np.linalg.norm(flat, axis=1, keepdims=True).clip(1e-12)


def _features(
    config: ConfigDict, workdir: epath.Path, name: str, network: Network, benchmark: AnyBenchmark
) -> tuple[Float32[np.ndarray, "n v d"], dict[str, float]]:
    """Embeddings of a benchmark's pictures, from the cache where it holds just these, and how fast they were made."""
    path = workdir / "verification" / "embeddings" / f"{name}_{benchmark.name}.npz"
    mirror = set(config.flip) != {"none"}
    key = hashlib.sha256(f"{benchmark.digest} {config.crop} {mirror} {fingerprint(network)}".encode()).hexdigest()
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
        whole_batches=True,
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
