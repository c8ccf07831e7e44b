"""The loop around a train step: resuming, checkpoints, logging, ending. What a step does is not its business."""

from __future__ import annotations

import math
import signal
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import jax

from sface_jax.core.checkpoint import Checkpoints
from sface_jax.core.errors import Interrupted, Unfinished
from sface_jax.core.metrics import MetricWriter
from sface_jax.core.progress import Progress

State = TypeVar("State")


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
) -> State:
    """Trains from the newest checkpoint, or from `state`, to `total_steps`.

    A run cut off at any step and started again goes through the same states as one that was not: the batches and
    every random number are functions of the step.

    Args:
        name: shown in the progress line.
        state: the initial state, already placed on its devices; has a field `step`. It may be donated.
        step: one train step, given the state, a batch and the step's number.
        batches: gives the batches from a step on.
        total_steps: where to stop.
        directory: the stage's folder; gets `checkpoints/` and `metrics.jsonl`.
        log_every: steps between two logged ones.
        checkpoint_every: steps between two checkpoints.
        keep: newest checkpoints to keep.
        pictures_per_step: global batch, for the rate that is logged; 0 leaves it out.
        tensorboard: also write TensorBoard events.
        hooks: (every, function) called with the state and the number of steps done, also at the end; scalars that a
            hook returns are logged.

    Returns:
        The state after `total_steps`; it is saved.

    Raises:
        Unfinished: a loss is not finite.
        Interrupted: SIGTERM came; the state is saved.
    """
    checkpoints = Checkpoints(directory / "checkpoints", keep=keep)
    restored = checkpoints.restore(state)
    state = state if restored is None else restored
    start = int(state.step)
    writer = MetricWriter(directory, start_step=start, tensorboard=tensorboard)
    progress = Progress(name, total_steps, start=start)
    pending: dict[str, list[jax.Array]] = {}
    clock, logged = time.monotonic(), start
    try:
        with _until_terminated() as terminated:
            iterator: Iterator[Any] = iter(batches(start)) if start < total_steps else iter(())
            for number in range(start, total_steps):
                state, scalars = step(state, next(iterator), number)
                for key, value in scalars.items():
                    pending.setdefault(key, []).append(value)
                done = number + 1
                last = done == total_steps
                if done % log_every == 0 or last:
                    means = _means(pending, name, done, checkpoints)
                    pending = {}
                    if pictures_per_step:
                        rate = pictures_per_step * (done - logged) / (time.monotonic() - clock)
                        means["pictures_per_second"] = rate
                    clock, logged = time.monotonic(), done
                    writer.write(done, means)
                    progress.update(done, **means)
                for every, hook in hooks:
                    if done % every == 0 or last:
                        extra = hook(state, done)
                        if extra:
                            writer.write(done, extra)
                if done % checkpoint_every == 0 or last:
                    checkpoints.save(done, state)
                if not last and terminated(done):
                    if done % checkpoint_every:
                        checkpoints.save(done, state)
                    raise Interrupted(f"{name}: saved at step {done} of {total_steps}; run the same command to go on")
        if start < total_steps:
            progress.close()
    finally:
        writer.close()
        checkpoints.close()
    return state


def _means(pending: dict[str, list[jax.Array]], name: str, step: int, checkpoints: Checkpoints) -> dict[str, float]:
    """Averages what was collected since the last logged step, and stops the run where it is not finite."""
    values = jax.device_get(pending)
    means = {key: float(sum(float(v) for v in column) / len(column)) for key, column in values.items()}
    for key, value in means.items():
        if not math.isfinite(value):
            raise Unfinished(
                f"{name}: {key} is {value} before step {step}: lower the learning rate or look at the data; "
                f"the newest checkpoint is step {checkpoints.latest_step()}"
            )
    return means


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
