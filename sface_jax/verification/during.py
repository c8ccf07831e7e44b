"""Verification accuracy while a recogniser trains. It is written down; nothing is chosen by it."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from etils import epath

from sface_jax.recognition.network import Network
from sface_jax.verification.benchmarks import distinct, open_benchmark
from sface_jax.verification.embed import embed
from sface_jax.verification.protocol import compare


def open_judge(
    benchmarks: Sequence[str], workdir: epath.Path, size: int, batch_size: int
) -> Callable[[Network], dict[str, float]]:
    """Reads benchmarks once, to judge the network of many steps by them.

    Args:
        benchmarks: entries as in `benchmarks.open_benchmark`.
        workdir: the work directory.
        size: side of the network's pictures.
        batch_size: pictures in a batch over all devices.

    Returns:
        A function of a network that gives "<benchmark>_accuracy", InsightFace's, and "<benchmark>_tar_at_far_1e-3". All
        processes call it together. It compiles the network once for all benchmarks and steps.

    Raises:
        UserError: a benchmark cannot be read.
    """
    found = [open_benchmark(entry, workdir, size) for entry in benchmarks]
    distinct([benchmark.name for benchmark in found])
    opened = [(benchmark, benchmark.images.all()) for benchmark in found]

    def judge(network: Network) -> dict[str, float]:
        found = {}
        for benchmark, images in opened:
            pairs = benchmark.pairs
            rows = embed(network, images, batch_size=batch_size, whole_batches=True)
            compared = compare(rows[pairs.first], rows[pairs.second], pairs.same, pairs.folds)
            found[f"{benchmark.name}_accuracy"] = compared.accuracy().mean
            found[f"{benchmark.name}_tar_at_far_1e-3"] = compared.tar_at_far(1e-3).mean
        return found

    return judge
