"""The stage "benchmark_recognition": times a recogniser's training step and embedding, against a matrix product."""

from __future__ import annotations

from typing import Any

import jax
import numpy as np
from absl import logging
from etils import epath
from ml_collections import ConfigDict

from sface_jax.core import files, timing
from sface_jax.core import mesh as meshes
from sface_jax.recognition import programs
from sface_jax.recognition.trainer import Trainer


def run(config: ConfigDict, workdir: epath.Path) -> dict[str, Any]:
    """Prints a table and writes `benchmark/recognition.json`.

    Args:
        config: see configs/benchmark.py.
        workdir: gets the file.
    """
    trainer = Trainer(config, config.classes, config.batch_size, config.image_size, meshes.make_mesh())
    device, n = jax.devices()[0].device_kind, config.batch_size
    logging.info(
        "%s, %s pixels, %s classes, batch %s, %s: %s x %s, medians of %s rounds",
        *(config.network, config.image_size, config.classes, n, config.dtype),
        *(jax.device_count(), device, config.rounds),
    )
    embed = programs.lowered(trainer)["embed"]().compile()
    median = timing.interleaved(_works(trainer, embed), config.rounds)
    told: dict[str, Any] = {"matrix_product_gflop_per_second": timing.PRODUCT_FLOPS / median["product"] / 1e9}
    counted = programs.counted(trainer)
    for name in ("train", "embed"):
        rate = counted[name] * n / median[name]
        row = told[name] = {
            "seconds": median[name],
            "pictures_per_second": n / median[name],
            "gflop_per_picture": counted[name] / 1e9,
            "gflop_per_second": rate / 1e9,
        }
        share = ""
        if config.peak_tflops:
            row["share_of_peak"] = rate / config.peak_tflops / 1e12
            share = f", {100 * row['share_of_peak']:.1f} % of peak"
        logging.info(
            "  %-6s %8.3f s, %8.1f pictures/s, %8.0f GFLOP/s%s",
            *(name, row["seconds"], row["pictures_per_second"], row["gflop_per_second"], share),
        )
    logging.info("  matrix product of %s: %.0f GFLOP/s", timing.PRODUCT, told["matrix_product_gflop_per_second"])
    files.write_json(workdir / "benchmark" / "recognition.json", {"device": device, "batch_size": n, **told})
    return told


def _works(trainer: Trainer, embed: jax.stages.Compiled) -> dict[str, Any]:
    """A step, an embedding of a batch, and a matrix product, each of which returns when it is done."""
    random, config = np.random.default_rng(0), trainer.config
    side = trainer.image_size
    batch = {
        "image": random.integers(0, 256, (config.batch_size, side, side, 3)).astype(np.uint8),
        "label": random.integers(0, config.classes, config.batch_size).astype(np.int32),
    }
    images = meshes.shard_batch(batch["image"], trainer.mesh)
    # A step takes the state's buffers and gives them back.
    held = {"state": trainer.init()}

    def train() -> None:
        held["state"], _ = jax.block_until_ready(trainer.step(held["state"], batch, 0))

    def run_embed() -> None:
        state = held["state"]
        variables = {"params": state.params["backbone"], "batch_stats": state.batch_stats}
        jax.block_until_ready(embed(variables, images))

    return {"product": timing.matrix_product(config.dtype), "train": train, "embed": run_embed}
