"""How fast a training goes and what it takes: logged with its scalars, and told at its end."""

from __future__ import annotations

import json
import queue
import statistics
import threading
import time
from collections.abc import Iterator
from typing import Any

import jax
from absl import logging
from etils import epath

from sface_jax.core import chips, timing

STARVED = 20.0
"""Percent of `input_bound_percent` above which the input pipeline is worth mending."""


class Speed:
    """Measures the steps between two logged ones.

    `input_bound_percent` is the share of the time for which this process's devices stood idle because the next batch
    was not there. To wait for a batch does no harm while the device is at work on earlier steps. So a thread notes when
    the results of each step are there, and of a wait only what comes after those of the last step is counted. The first
    batch, for which workers have to start, is not; nor is what a process waits for another one, within a step. Where
    the thread is late to note a step, because the pipeline keeps Python busy, too little is counted, never too much.
    """

    def __init__(self, name: str, pictures_per_step: int = 0, flops_per_step: float = 0.0):
        """Starts the clock, and the thread.

        Args:
            name: what is measured, for the warning.
            pictures_per_step: global batch; 0 leaves its rate out.
            flops_per_step: floating-point operations of a step on all devices, as the network's definition has them; 0
                leaves the share of the peak out.
        """
        self._name, self._pictures, self._flops = name, pictures_per_step, float(flops_per_step)
        chip = chips.of(jax.devices()[0].device_kind)
        self._peak = chip.tflops * 1e12 * jax.device_count() if chip else None
        self._clock, self._measured, self._warned = time.monotonic(), 0, False
        self._steps: queue.SimpleQueue[tuple[int, Any] | None] = queue.SimpleQueue()
        self._dispatched = 0
        self._ready = 0, 0.0  # the last step whose results are there, and since when
        self._idle = 0.0
        # a daemon, so that a device that never answers does not keep a failed run from ending
        threading.Thread(target=self._watch, name="speed", daemon=True).start()

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

    def measure(self) -> dict[str, float]:
        """What the steps since the last call took.

        Returns:
            "steps_per_second", "pictures_per_second", "tflops_per_second" (of all devices), "share_of_peak" (percent of
            what the devices could do in bfloat16, where that is known), "input_bound_percent", "memory_gib" (the most
            of a device's memory in use so far; on CPUs, of the process).
        """
        now, steps = time.monotonic(), self._dispatched - self._measured
        seconds, idle = now - self._clock, self._idle
        first, self._clock, self._measured, self._idle = not self._measured, now, self._dispatched, 0.0
        rate = steps / seconds
        told = {"steps_per_second": rate}
        if self._pictures:
            told["pictures_per_second"] = self._pictures * rate
        if self._flops:
            told["tflops_per_second"] = self._flops * rate / 1e12
            if self._peak:
                told["share_of_peak"] = 100 * self._flops * rate / self._peak
        told["input_bound_percent"] = starved = 100 * idle / seconds
        told["memory_gib"] = memory_gib()
        if starved > STARVED and not first and not self._warned:
            self._warned = True
            logging.warning(
                "%s: for %.0f %% of the last %d steps the device stood idle because the next batch was not there: "
                "--config=configs/benchmark.py:loader tells what the input pipeline gives; where it augments pictures, "
                "raise --config.workers to the number of cores",
                *(self._name, starved, steps),
            )
        return told

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


def memory_gib() -> float:
    """The most memory in use so far: of the first device, or of this process where it has none of its own."""
    used = (jax.local_devices()[0].memory_stats() or {}).get("peak_bytes_in_use")
    return used / 2**30 if used else timing.peak_gib()


def line(measured: dict[str, float]) -> dict[str, str]:
    """What of `Speed.measure` a person wants to see beside the steps a second, as short as it gets."""
    shown = {
        "pictures": ("pictures_per_second", "{:.3g}/s"),
        "peak": ("share_of_peak", "{:.0f}%"),
        "input-bound": ("input_bound_percent", "{:.0f}%"),
        "memory": ("memory_gib", "{:.1f}GiB"),
    }
    return {name: form.format(measured[key]) for name, (key, form) in shown.items() if key in measured}


def usual(directory: epath.Path) -> dict[str, float]:
    """The medians of what `Speed.measure` told over a whole training, read from its metrics.jsonl; of memory the most.

    Empty where nothing was logged.
    """
    path = directory / "metrics.jsonl"
    log = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
    columns = {key: [of[key] for of in log if of.get(key) is not None] for key in KEYS}
    kind = {"memory_gib": max}
    return {key: kind.get(key, statistics.median)(column) for key, column in columns.items() if column}


KEYS = (
    *("steps_per_second", "pictures_per_second", "tflops_per_second", "share_of_peak"),
    *("input_bound_percent", "memory_gib"),
)
