"""The loop around a train step: resuming, checkpoints, logging, ending. What a step does is not its business."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from typing import Any, TypeVar

import jax
import numpy as np
from absl import logging
from etils import epath

from sface_jax.core import endings, files, speed, watchdog
from sface_jax.core.checkpoint import Checkpoints
from sface_jax.core.errors import Interrupted, Unfinished
from sface_jax.core.metrics import MetricWriter
from sface_jax.core.progress import Progress

State = TypeVar("State")
Tell = Callable[[np.ndarray], list[str]]


def run(
    name: str,
    state: State,
    step: Callable[[State, Any, int], tuple[State, dict[str, jax.Array]]],
    batches: Callable[[int], Iterable[Any]],
    *,
    total_steps: int,
    directory: Any,
    log_every: int = 50,
    checkpoint_every: int = 1000,
    keep: int = 2,
    pictures_per_step: int = 0,
    flops_per_step: float = 0.0,
    profile: int = 0,
    tensorboard: bool = False,
    hooks: Iterable[tuple[int, Callable[[State, int], dict[str, float] | None]]] = (),
    padded: str = "",
    tell: Tell = lambda records: [str(record) for record in records],
) -> State:
    """Trains from the newest checkpoint, or from `state`, to `total_steps`.

    A run cut off at any step and started again goes through the same states as one that was not: the batches and
    every random number are functions of the step.

    With the scalars of the steps it is logged how fast they went and what they took, see `speed.Speed`.

    Args:
        name: shown in the progress line.
        state: the initial state, already placed on its devices; has a field `step`. It may be donated.
        step: one train step, given the state, a batch and the step's number.
        batches: gives the batches from a step on; where one is a dict with "index", the positions of its records in the
            dataset, a loss that is not finite is told with them.
        total_steps: where to stop.
        directory: the stage's folder; gets `checkpoints/` and `metrics.jsonl`.
        log_every: steps between two logged ones.
        checkpoint_every: steps between two checkpoints.
        keep: newest checkpoints to keep.
        pictures_per_step: global batch, for the rate that is logged; 0 leaves it out.
        flops_per_step: see `speed.Speed`.
        profile: steps to trace, once the first logged one is done; the trace goes to `profile/`.
        tensorboard: also write TensorBoard events.
        hooks: (every, function) called with the state and the number of steps done, also at the end; scalars that a
            hook returns are logged.
        padded: see `Checkpoints.restore`.
        tell: names the records at positions of "index".

    Returns:
        The state after `total_steps`; it is saved.

    Raises:
        Unfinished: a loss is not finite.
        Interrupted: SIGTERM came; the state is saved.
    """
    checkpoints = Checkpoints(directory / "checkpoints", keep=keep)
    restored = checkpoints.restore(state, padded)
    state = state if restored is None else restored
    start = int(state.step)
    writer = MetricWriter(directory, start_step=start, tensorboard=tensorboard)
    progress = Progress(name, total_steps, start=start)
    window = _Window(name, directory, checkpoints, tell)
    measured = speed.Speed(name, pictures_per_step, flops_per_step)
    profiler = _Profiler(name, directory / "profile", profile)
    try:
        with endings.asked_to_end() as asked_to_end:
            iterator: Iterator[Any] = iter(batches(start)) if start < total_steps else iter(())
            for number in range(start, total_steps):
                batch = measured.next(iterator)
                state, scalars = step(state, batch, number)
                measured.dispatched(scalars)
                done = number + 1
                profiler.after(scalars)
                watchdog.beat(name, done, total_steps)
                last = done == total_steps
                window.add(done, scalars, batch)
                if done % log_every == 0 or last:
                    means = window.means()
                    window = _Window(name, directory, checkpoints, tell)
                    told = measured.measure()
                    writer.write(done, means | told)
                    progress.update(done, **speed.line(told), **means)
                    profiler.begin()
                for every, hook in hooks:
                    if done % every == 0 or last:
                        extra = hook(state, done)
                        if extra:
                            writer.write(done, extra)
                asked = asked_to_end(done) and not last
                if done % checkpoint_every == 0 or last or asked:
                    window.check()  # so that every checkpoint is a good one
                    checkpoints.save(done, state)
                if asked:
                    raise Interrupted(f"{name}: saved at step {done} of {total_steps}; run the same command to go on")
        if start < total_steps:
            progress.close()
    finally:
        profiler.end()
        measured.close()
        writer.close()
        checkpoints.close()
    return state


class _Profiler:
    """Traces some steps, after those that compile."""

    def __init__(self, name: str, directory: epath.Path, steps: int):
        self._name, self._directory, self._wanted, self._left = name, directory, steps, 0

    def begin(self) -> None:
        """Starts, the first time that it is called."""
        if self._wanted:
            self._left, self._wanted = self._wanted, 0
            jax.profiler.start_trace(str(self._directory))

    def after(self, results: Any) -> None:
        """A step was given to the device; after the last that is wanted the trace is written."""
        if self._left == 1:
            jax.block_until_ready(results)
            self.end()
        elif self._left:
            self._left -= 1

    def end(self) -> None:
        """Writes what was traced, if anything."""
        if self._left:
            self._left = 0
            jax.profiler.stop_trace()
            logging.info(
                "%s: the trace of some steps is in %s: open it with Perfetto or XProf", self._name, self._directory
            )


class _Window:
    """The scalars of the steps since the last logged one, and which records each step saw."""

    def __init__(self, name: str, directory: epath.Path, checkpoints: Checkpoints, tell: Tell):
        self._name, self._directory, self._checkpoints, self._tell = name, directory, checkpoints, tell
        self._steps: list[tuple[int, dict[str, jax.Array], Any]] = []

    def add(self, step: int, scalars: dict[str, jax.Array], batch: Any) -> None:
        """Adds a step; a batch may name its records in "index"."""
        self._steps.append((step, scalars, batch.get("index") if isinstance(batch, dict) else None))

    def means(self) -> dict[str, float]:
        """The mean of each scalar over the steps that gave it, each known to be finite."""
        columns: dict[str, list[float]] = {}
        for values in self.check():
            for key, value in values.items():
                columns.setdefault(key, []).append(value)
        return {key: sum(column) / len(column) for key, column in columns.items()}

    def check(self) -> list[dict[str, float]]:
        """Gives the scalars of each step.

        Raises:
            Unfinished: one is not finite.
        """
        values = jax.device_get([scalars for _, scalars, _ in self._steps])
        for (step, _, records), of in zip(self._steps, values, strict=True):
            for key, value in of.items():
                if not math.isfinite(value):
                    self._stop(key, float(value), step, records)
        return [{key: float(value) for key, value in of.items()} for of in values]

    def _stop(self, key: str, value: float, step: int, records: np.ndarray | None) -> None:
        saw = ""
        if records is not None:
            path = self._directory / f"nonfinite_{jax.process_index()}.json"
            named = self._tell(np.asarray(records))
            files.write_json(path, {"step": step, "scalar": key, "pictures": named})
            saw = f" on pictures {', '.join(named[:3])}, ... ({path} has all {len(named)})"
        saved = self._checkpoints.latest_step()
        last = "nothing was saved before" if saved is None else f"the last checkpoint, a good one, is step {saved}"
        raise Unfinished(
            f"{self._name}: {key} is {value} at step {step}{saw}; {last}: look at these pictures, or begin anew in "
            "another --workdir with a lower learning_rate or a longer warm-up"
        )
