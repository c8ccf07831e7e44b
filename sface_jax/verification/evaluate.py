"""Stage verify: verification accuracy of recognisers on benchmarks."""

from __future__ import annotations

import dataclasses
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
from sface_jax.verification import cache, networks, overrides, table
from sface_jax.verification.benchmarks import (
    AnyBenchmark,
    Benchmark,
    distinct,
    is_templates,
    open_benchmark,
    open_templates,
)
from sface_jax.verification.embed import FLIPS, fuse, together
from sface_jax.verification.measure import PROTOCOLS, measure, measure_templates

PIXELS = "pixels"
SIZE = 112  # until a network says what it wants
AXES = ("log", "normal")

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
    found = networks.find(names, workdir, key)
    loaded = {
        name: overrides.override(network, config.preprocessing)
        for name, network in networks.load_all(found, key, open_network).items()
    }
    if set(loaded) & set(config.baselines):
        raise UserError(f"a network has the name of the baseline {PIXELS}: rename it, or set --config.baselines=()")
    documents: dict[str, dict[str, Any]] = {name: _document(name, config) for name in (*loaded, *config.baselines)}
    for name, network in loaded.items():
        documents[name] |= {
            "path": str(found[name]),
            "fingerprint": fingerprint(network),
            "flip": config.flip[0],
            "preprocessing": dataclasses.asdict(network.preprocessing),
        }
    shown: dict[tuple[str, str], Any] = {}
    opened = [_open(config, entry, workdir) for entry in config.benchmarks]
    distinct([benchmark.name for benchmark in opened])
    batch_size = min(config.batch_size, max(len(benchmark.images) for benchmark in opened))
    smallest = min(network.preprocessing.size for network in loaded.values())
    for benchmark in opened:
        for name, document in documents.items():
            if name in loaded:
                seen = benchmark.at(loaded[name].preprocessing.size, config.crop)
                result = _judge(config, workdir, name, loaded[name], document["fingerprint"], seen, batch_size)
            elif isinstance(benchmark, Benchmark):
                seen = benchmark.at(smallest, config.crop)
                result = measure(pixels(seen.images.all()), seen, config.replicates)
            else:
                continue  # pixels know no templates
            document["benchmarks"][benchmark.name] = result
            if config.show_authentic and name in loaded and "hardest" in result:
                shown[name, benchmark.name] = _hardest(result, seen)
    if mesh.is_lead():
        _write(config, workdir / "verification", documents, shown, write_page)
    return {
        benchmark.name: {
            name: table.headline(document["benchmarks"][benchmark.name])
            for name, document in documents.items()
            if benchmark.name in document["benchmarks"]
        }
        for benchmark in opened
    }


def _write(
    config: ConfigDict,
    folder: epath.Path,
    documents: dict[str, dict[str, Any]],
    shown: dict[tuple[str, str], Any],
    write_page: WritePage | None,
) -> None:
    """Writes what was measured, with what earlier runs left, and tells the table."""
    every = table.gather(folder, documents)
    for name in documents:
        files.write_json(folder / f"{name}.json", every[name])
    tables = table.tables(every)
    files.write_text(folder / "table.md", table.markdown(tables))
    if write_page:
        write_page(folder, every, tables, shown, notes=table.notes(tables), log=config.det_axes == "log")
    for line in table.lines(tables):
        logging.info("%s", line)


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
    told = {"network": name, "path": "", "fingerprint": "", "flip": "none", "crop": config.crop}
    return told | {"protocols": PROTOCOLS, "benchmarks": {}}


def _open(config: ConfigDict, entry: str, workdir: epath.Path) -> AnyBenchmark:
    if not is_templates(entry):
        return open_benchmark(entry, workdir, SIZE, config.folds, config.root, config.crop, config.uneven_folds)
    if config.crop != 1:
        raise UserError(f"pictures of {entry} are aligned by their landmarks: set --config.crop=1.0")
    return open_templates(entry, SIZE)


def _judge(
    config: ConfigDict,
    workdir: epath.Path,
    name: str,
    network: Network,
    fingerprint: str,
    benchmark: AnyBenchmark,
    batch_size: int,
) -> dict[str, Any]:
    """A network's result on a benchmark: by the first way of `config.flip`, the headlines of the others beside it."""
    kept, mirror = workdir / "verification" / "embeddings", set(config.flip) != {"none"}
    embedded = cache.embed(kept, name, network, fingerprint, benchmark, mirror=mirror, batch_size=batch_size)
    try:
        measured = {flip: _measure(config, embedded.features, flip, benchmark) for flip in config.flip}
    except UserError as error:
        raise UserError(f"{name} on {benchmark.name}: {error}") from error
    result = measured[config.flip[0]] | embedded.speed
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
        (at,) = np.flatnonzero(benchmark.places == pair["pair"])
        sides = benchmark.pairs.first[at], benchmark.pairs.second[at]
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
