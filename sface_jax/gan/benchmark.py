"""The stage "benchmark": times the GAN's programs on this machine, against a matrix product timed in between."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from absl import logging
from etils import epath
from ml_collections import ConfigDict

from sface_jax.core import files, timing
from sface_jax.core import mesh as meshes
from sface_jax.core.errors import UserError
from sface_jax.gan import costs, programs
from sface_jax.gan.trainer import Trainer


def run(config: ConfigDict, workdir: epath.Path) -> dict[str, Any]:
    """Prints a table and writes `benchmark/benchmark.json`.

    Args:
        config: see configs/benchmark.py.
        workdir: gets the file.

    Raises:
        UserError: sizes and batches do not suit each other, or the networks.
    """
    device = jax.devices()[0].device_kind
    logging.info(
        "benchmark: %s x %s, %s, medians of %s rounds", jax.device_count(), device, config.dtype, config.rounds
    )
    if len(config.sizes) != len(config.batch_sizes):
        raise UserError("config.sizes and config.batch_sizes differ in length: give a batch for each size")
    told = {}
    for size, batch_size in zip(config.sizes, config.batch_sizes, strict=True):
        told[str(size)] = _measure(config, size, batch_size)
        _tell(told[str(size)])
    files.write_json(workdir / "benchmark" / "benchmark.json", {"device": device, "sizes": told})
    return told


def _measure(config: ConfigDict, size: int, batch_size: int) -> dict[str, Any]:
    config = ConfigDict({**config.to_dict(), "batch_size": batch_size})
    trainer = Trainer(config, np.ones(config.classes, np.int64), size, meshes.make_mesh())
    compiled, seconds = {}, {}
    for name, lower in programs.lowered(trainer).items():
        if name != "discriminator":
            began = time.perf_counter()
            compiled[name] = lower().compile()
            seconds[name] = time.perf_counter() - began
    works = _works(trainer, compiled)
    median = timing.interleaved(works, config.rounds)
    analytic = programs.counted(trainer)
    product = timing.PRODUCT_FLOPS / median.pop("product")
    rows = {
        name: {
            "seconds": median[name],
            "compile_seconds": seconds[name],
            "gflop_per_picture": analytic[name] / 1e9,
            "gflop_per_second": analytic[name] * batch_size / median[name] / 1e9,
        }
        for name in median
    }
    intervals = {phase.name: phase.interval for phase in trainer.phases}
    step = costs.amortised(median, intervals)
    return {
        "size": size,
        "batch_size": batch_size,
        "programs": rows,
        "matrix_product_gflop_per_second": product / 1e9,
        "training_pictures_per_second": batch_size / step,
        "training_gflop_per_second": costs.amortised(analytic, intervals) * batch_size / step / 1e9,
        "generation_pictures_per_second": batch_size / median["generator"],
    }


def _works(trainer: Trainer, compiled: dict[str, Any]) -> dict[str, Callable[[], None]]:
    """Functions that run each program once, to its end."""
    generator, n = trainer.generator, trainer.config.batch_size
    random = np.random.default_rng(0)
    batch = {
        "image": random.integers(0, 256, (n, *generator.picture_shape)).astype(np.uint8),
        "label": random.integers(0, trainer.config.classes, n).astype(np.int32),
    }
    real = meshes.shard_batch(batch, trainer.mesh)
    z = meshes.shard_batch(random.normal(size=(n, generator.z_dim)).astype(np.float32), trainer.mesh)
    # A phase takes the state's buffers and gives them back.
    held = {"state": trainer.init()}

    def phase(name: str) -> None:
        held["state"], _ = jax.block_until_ready(compiled[name](held["state"], real, trainer.weights))

    def generate() -> None:
        variables = {"params": held["state"].generator_ema, "buffers": held["state"].buffers}
        variables = jax.device_put(variables, meshes.replicated(trainer.mesh))  # with config.fsdp they lie in shares
        jax.block_until_ready(compiled["generator"](variables, z, real["label"]))

    works: dict[str, Callable[[], None]] = {
        "product": timing.matrix_product(trainer.config.dtype),
        "generator": generate,
    }
    for name in trainer.updates:
        works[name] = lambda name=name: phase(name)
    return works


def _tell(told: dict[str, Any]) -> None:
    logging.info(
        "%s x %s pixels, batch %s: training %.3g pictures/s (%.0f GFLOP/s), generation %.3g pictures/s; "
        "matrix product of %s: %.0f GFLOP/s",
        *(told["size"], told["size"], told["batch_size"], told["training_pictures_per_second"]),
        *(told["training_gflop_per_second"], told["generation_pictures_per_second"]),
        *(timing.PRODUCT, told["matrix_product_gflop_per_second"]),
    )
    logging.info("  %-10s %9s %9s %14s %9s", "program", "seconds", "compile", "GFLOP/picture", "GFLOP/s")
    for name, row in told["programs"].items():
        logging.info(
            "  %-10s %9.3f %9.1f %14.2f %9.0f",
            *(name, row["seconds"], row["compile_seconds"], row["gflop_per_picture"], row["gflop_per_second"]),
        )
