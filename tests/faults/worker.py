"""`sface_jax.main` on a small run, with what the environment asks for going wrong inside.

FAULT_BEACON=file: the number of each step, shard or part is added there as it begins.
FAULT_PACE=seconds: what each takes at least.
FAULT_NAN=n: step n gets parameters that are not finite; with FAULT_NAN_AFTER, it leaves such behind.
FAULT_SPOIL=n: step n gets parameters that are a little off, which nothing may overlook.
FAULT_STALL=n: the main thread of this process never comes back from step n.
FAULT_SLOW=seconds: every rename takes up to so long, and so does every file between its first half and its second.
"""

from __future__ import annotations

import os
import random
import time
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
from jax._src import compiler, distributed

from sface_jax import main
from sface_jax.data import dataset
from sface_jax.gan import network, trainer
from sface_jax.privacy import matching
from sface_jax.recognition import trainer as recognition
from sface_jax.synthesis import shards
from tests.recognition.toy import Toy
from tests.synthesis import small


class _Named(Toy):
    """Its pictures have names."""

    def names_of(self, indices: Any) -> list[str]:
        """Of the pictures at some positions."""
        return [f"picture {i}" for i in indices]


def _begins(number: int) -> None:
    """A step, shard or part begins."""
    with open(os.environ["FAULT_BEACON"], "a") as file:
        file.write(f"{number}\n")
    time.sleep(float(os.environ.get("FAULT_PACE", 0)))
    while number == int(os.environ.get("FAULT_STALL", -1)):
        time.sleep(1)


def _changed(state: Any, factor: float) -> Any:
    """The state with one of the networks' arrays multiplied."""
    field = "params" if hasattr(state, "params") else "discriminator"
    leaves, tree = jax.tree.flatten(getattr(state, field))
    change = jax.jit(lambda x: x * factor, out_shardings=leaves[0].sharding)
    return state.replace(**{field: jax.tree.unflatten(tree, [change(leaves[0]), *leaves[1:]])})


def _disturb(kind: type) -> None:
    step = kind.step

    def disturbed(self: Any, state: Any, batch: Any, number: int) -> Any:
        _begins(number)
        bad, after = number == int(os.environ.get("FAULT_NAN", -1)), "FAULT_NAN_AFTER" in os.environ
        if number == int(os.environ.get("FAULT_SPOIL", -1)):
            state = _changed(state, 1.0001)
        state, scalars = step(self, _changed(state, jnp.nan) if bad and not after else state, batch, number)
        return (_changed(state, jnp.nan) if bad and after else state), scalars

    kind.step = disturbed


def _announce(owner: Any, name: str, number: Any) -> None:
    """Lets a function say which shard or part begins."""
    function = getattr(owner, name)

    def announced(*arguments: Any, **options: Any) -> Any:
        _begins(number(*arguments))
        return function(*arguments, **options)

    setattr(owner, name, announced)


def _cache_of_each() -> None:
    """Lets every process keep what it compiled, where JAX lets only the first: half of a campaign was compilation."""
    write, state = compiler._cache_write, distributed.global_state

    def written(*arguments: Any) -> None:
        own, state.process_id = state.process_id, 0
        try:
            write(*arguments)
        finally:
            state.process_id = own

    compiler._cache_write = written


def _slow(most: float) -> None:
    def late(function: Any) -> Any:
        def delayed(*arguments: Any, **options: Any) -> Any:
            time.sleep(random.uniform(0, most))
            return function(*arguments, **options)

        return delayed

    def in_halves(path: Path, content: bytes) -> int:
        with path.open("wb") as file:
            file.write(content[: len(content) // 2])
            file.flush()
            time.sleep(random.uniform(0, most))
            return file.write(content[len(content) // 2 :])

    os.replace, os.rename, Path.write_bytes = late(os.replace), late(os.rename), in_halves


if __name__ == "__main__":
    _cache_of_each()
    toy = _Named()
    dataset_open = dataset.open
    dataset.open = lambda path, *key: {"train": toy} if "synthetic" not in str(path) else dataset_open(path, *key)
    network.load = small.load
    _disturb(trainer.Trainer)
    _disturb(recognition.Trainer)
    _announce(shards.Shards, "write", lambda self, shard, stream: shard)
    _announce(matching, "_compute", lambda task, start, gallery: start // matching.PART)
    if "FAULT_SLOW" in os.environ:
        _slow(float(os.environ["FAULT_SLOW"]))
    main.STAGES["matching"] = "tests.faults.comparison"
    main.GIVEN["synthesize"] = {"open_embedder": "tests.synthesis.small"}
    main.entry()
