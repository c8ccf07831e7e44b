"""The loop around a train step: resuming, checkpoints, logging, ending. What a step does is not its business."""

from __future__ import annotations

import math
import queue
import signal
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import jax
import numpy as np
from absl import logging
from etils import epath

from sface_jax.core import files
from sface_jax.core.checkpoint import Checkpoints
from sface_jax.core.errors import Interrupted, Unfinished
from sface_jax.core.metrics import MetricWriter
from sface_jax.core.progress import Progress

State = TypeVar("State")
Tell = Callable[[np.ndarray], list[str]]

STARVED = 20.0
"""Percent of `input_bound_percent` above which the input pipeline is worth mending."""


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
    tensorboard: bool = False,
    hooks: Iterable[tuple[int, Callable[[State, int], dict[str, float] | None]]] = (),
    padded: str = "",
    tell: Tell = lambda records: [str(record) for record in records],
) -> State:
    """Trains from the newest checkpoint, or from `state`, to `total_steps`.

    A run cut off at any step and started again goes through the same states as one that was not: the batches and
    every random number are functions of the step.

    With the scalars of the steps `input_bound_percent` is logged: the share of the time since the last logged step for
    which this process's devices stood idle because the next batch was not there, see `_InputClock`.

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
    clock, logged = time.monotonic(), start
    input_clock, warned = _InputClock(), False
    try:
        with _until_terminated() as terminated:
            iterator: Iterator[Any] = iter(batches(start)) if start < total_steps else iter(())
            for number in range(start, total_steps):
                batch = input_clock.next(iterator)
                state, scalars = step(state, batch, number)
                input_clock.dispatched(scalars)
                done = number + 1
                last = done == total_steps
                window.add(done, scalars, batch)
                if done % log_every == 0 or last:
                    means = window.means()
                    window = _Window(name, directory, checkpoints, tell)
                    seconds = time.monotonic() - clock
                    if pictures_per_step:
                        means["pictures_per_second"] = pictures_per_step * (done - logged) / seconds
                    starved = 100 * input_clock.idle() / seconds
                    if starved > STARVED and logged > start and not warned:
                        warned = True
                        _warn(name, starved, done - logged)
                    clock, logged = time.monotonic(), done
                    writer.write(done, means | {"input_bound_percent": starved})
                    progress.update(done, **means, input_bound=f"{starved:.0f}%")
                for every, hook in hooks:
                    if done % every == 0 or last:
                        extra = hook(state, done)
                        if extra:
                            writer.write(done, extra)
                asked = not last and terminated(done)
                if done % checkpoint_every == 0 or last or asked:
                    window.check()  # so that every checkpoint is a good one
                    checkpoints.save(done, state)
                if asked:
                    raise Interrupted(f"{name}: saved at step {done} of {total_steps}; run the same command to go on")
        if start < total_steps:
            progress.close()
    finally:
        input_clock.close()
        writer.close()
        checkpoints.close()
    return state


def _warn(name: str, starved: float, steps: int) -> None:
    logging.warning(
        "%s: for %.0f %% of the last %d steps the device stood idle because the next batch was not there: "
        "--config=configs/benchmark.py:loader tells what the input pipeline gives; where it augments pictures, raise "
        "--config.workers to the number of cores",
        *(name, starved, steps),
    )


class _InputClock:
    """How long the devices of this process stand idle because the next batch is not there.

    To wait for a batch does no harm while the device is at work on earlier steps. So a thread notes when the results of
    each step are there, and of a wait only what comes after those of the last step is counted. The first batch, for
    which workers have to start, is not; nor is what a process waits for another one, within a step. Where the thread is
    late to note a step, because the pipeline keeps Python busy, too little is counted, never too much.
    """

    def __init__(self):
        """Starts the thread."""
        self._steps: queue.SimpleQueue[tuple[int, Any] | None] = queue.SimpleQueue()
        self._dispatched = 0
        self._ready = 0, 0.0  # the last step whose results are there, and since when
        self._idle = 0.0
        # a daemon, so that a device that never answers does not keep a failed run from ending
        threading.Thread(target=self._watch, name="input-clock", daemon=True).start()

    def next(self, iterator: Iterator[Any]) -> Any:
        """Takes the next batch, and counts the wait as far as the device was idle."""
        began = time.monotonic()
        batch = next(iterator)
        ended = time.monotonic()
        step, since = self._ready
        if step and step == self._dispatched:
            self._idle += max(ended - max(began, since), 0.0)
        return batch

    def dispatched(self, results: Any) -> None:
        """A step was given to the device; `results` are not donated to a later one."""
        self._dispatched += 1
        self._steps.put((self._dispatched, results))

    def idle(self) -> float:
        """The seconds counted since this was last asked."""
        idle, self._idle = self._idle, 0.0
        return idle

    def close(self) -> None:
        """Ends the thread once the device is done."""
        self._steps.put(None)

    def _watch(self) -> None:
        while (step := self._steps.get()) is not None:
            number, results = step
            try:
                jax.block_until_ready(results)
            except RuntimeError:
                return  # whoever reads the results will be told
            self._ready = number, time.monotonic()


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


@contextmanager
def _until_terminated() -> Iterator[Callable[[int], bool]]:
    """Gives a function that tells, after each step, whether SIGTERM has asked the run to end."""
    if jax.process_count() > 1:
        from jax.experimental import multihost_utils

        # The runtime catches the signal and lets all processes agree on one step.
        yield multihost_utils.reached_preemption_sync_point
        return
    asked: list[int] = []
    try:
        before = signal.signal(signal.SIGTERM, lambda number, frame: asked.append(number))
    except ValueError:  # not the main thread: signals are somebody else's
        yield lambda step: False
        return
    try:
        yield lambda step: bool(asked)
    finally:
        signal.signal(signal.SIGTERM, before)
