"""Embeddings of benchmarks, kept on disk until the network or the pictures change."""

from __future__ import annotations

import hashlib
import time
from typing import NamedTuple
from zipfile import BadZipFile

import numpy as np
from absl import logging
from etils import epath
from jaxtyping import Float32

from sface_jax.core import files, mesh
from sface_jax.recognition.network import Network
from sface_jax.verification.benchmarks import AnyBenchmark
from sface_jax.verification.embed import features


class Embedded(NamedTuple):
    """Raw embeddings of a benchmark's pictures, see `embed.features`, and how fast they were made."""

    features: Float32[np.ndarray, "n v d"]
    seconds: float

    @property
    def speed(self) -> dict[str, float]:
        """Seconds, and pictures a second."""
        return {"embedding_seconds": self.seconds, "pictures_per_second": len(self.features) / self.seconds}


def embed(
    folder: epath.Path,
    name: str,
    network: Network,
    fingerprint: str,
    benchmark: AnyBenchmark,
    *,
    mirror: bool,
    batch_size: int,
) -> Embedded:
    """Embeds the pictures of a benchmark, or reads what an earlier run kept of just these.

    Args:
        folder: of all that is kept.
        name: the network's.
        network: the recogniser.
        fingerprint: of the network, see `recognition.network.fingerprint`.
        benchmark: its pictures.
        mirror: whether mirror images are wanted too.
        batch_size: see `embed.features`; smaller sets are filled up to it, so that all share one compiled program.
    """
    path = folder / name / f"{benchmark.name}.npz"
    key = hashlib.sha256(f"{benchmark.digest} {benchmark.crop} {mirror} {fingerprint}".encode()).hexdigest()
    kept = stored(path, key)
    if kept is not None:
        return Embedded(kept["features"], float(kept["seconds"]))
    began = time.perf_counter()
    told = f"{name} on {benchmark.name}"
    found = features(network, benchmark.images, batch_size=batch_size, whole_batches=True, mirror=mirror, progress=told)
    made = Embedded(found, time.perf_counter() - began)
    logging.info(
        "%s embedded %s pictures%s in %.1f s, compilation included: %.1f pictures/s",
        *(name, len(found), " and their mirror images" if mirror else "", made.seconds, len(found) / made.seconds),
    )
    if mesh.is_lead():
        keep(path, key, features=found, seconds=np.array(made.seconds))
    return made


def keep(path: epath.Path, key: str, **arrays: np.ndarray) -> None:
    """Writes arrays under a key that stands for all they depend on."""
    files.write_npz(path, compressed=False, key=np.array(key), **arrays)


def stored(path: epath.Path, key: str) -> dict[str, np.ndarray] | None:
    """The arrays that are kept under this key; nothing where the file is another's, or damaged."""
    if not path.exists():
        return None
    try:
        with path.open("rb") as file, np.load(file) as kept:
            if str(kept["key"]) == key:
                return {name: kept[name] for name in kept.files}
    except (OSError, EOFError, KeyError, ValueError, BadZipFile):
        logging.warning("%s is damaged: what it held is made anew", path)
    return None
