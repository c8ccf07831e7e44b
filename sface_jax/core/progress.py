"""A progress line that a person can read: a bar on a terminal, a plain line now and then in a log."""

from __future__ import annotations

import logging
import sys
import time

from sface_jax.core import mesh, watchdog

NOTED = 15.0
"""Least seconds between two lines in a process's log."""

notes = logging.getLogger("sface_jax.notes")
"""Goes to each process's log, see `logs.to_file`, and not to the terminal."""
notes.propagate = False
notes.setLevel(logging.INFO)


def duration(seconds: float) -> str:
    """Writes a time span as 45s, 3m05s or 2h07m."""
    seconds = int(seconds + 0.5)
    if seconds < 60:
        return f"{seconds}s"
    if seconds < 3600:
        return f"{seconds // 60}m{seconds % 60:02d}s"
    return f"{seconds // 3600}h{seconds % 3600 // 60:02d}m"


def _short(value: float | int | str) -> str:
    """Writes a number with three digits, large ones in full."""
    if isinstance(value, str | int):
        return str(value)
    return f"{value:.0f}" if abs(value) >= 1000 else f"{value:.3g}"


class Progress:
    """Shows how far a task is, how fast it goes and how long it still takes."""

    def __init__(self, name: str, total: int, unit: str = "steps", start: int = 0, interval: float | None = None):
        """Starts the clock.

        Args:
            name: what is going on, shown first in the line.
            total: the count at which the task is done.
            unit: what is counted.
            start: count already done before now (a resumed task); left out of the rate.
            interval: least seconds between two lines; by default 0.2 on a terminal, 15 in a log.
        """
        self.name, self.total, self.unit, self.start = name, total, unit, start
        self.stream = sys.stderr
        self.tty = self.stream.isatty()
        self.interval = (0.2 if self.tty else 15.0) if interval is None else interval
        self.began = self.shown = self.noted = time.monotonic()
        self.first: tuple[float, int] | None = None  # when how much was done, the first time that it was told
        self.width = 0

    def update(self, done: int, **facts: float | int | str) -> None:
        """Shows `done` of the total with some facts, unless a line was shown a moment ago."""
        now = time.monotonic()
        self.first = self.first or (now, done)
        watchdog.beat(self.name, done, self.total)
        if now - self.shown >= self.interval:
            self.shown = now
            self._show(done, facts, end="" if self.tty else "\n")

    def close(self, done: int | None = None, **facts: float | int | str) -> None:
        """Shows the last line, with the time taken."""
        self._show(self.total if done is None else done, facts, end="\n")

    def _show(self, done: int, facts: dict[str, float | int | str], end: str) -> None:
        now = time.monotonic()
        elapsed = now - self.began
        rate = (done - self.start) / elapsed if elapsed > 0 else 0.0
        since, begun = self.first or (now, done)
        if done > begun and now > since:
            rate = (done - begun) / (now - since)  # without what comes before the first, such as compilation
        left = f"{duration((self.total - done) / rate)} left" if rate > 0 and done < self.total else duration(elapsed)
        shown = "  ".join(f"{k} {_short(v)}" for k, v in facts.items())
        line = f"{done}/{self.total} {self.unit}  {_short(rate)}/s  {left}  {shown}".rstrip()
        if end == "\n" or now - self.noted >= NOTED:
            self.noted = now
            notes.info("%s: %s", self.name, line)
        if not mesh.is_lead():
            return
        if self.tty:
            filled = 20 * done // max(self.total, 1)
            line = f"\r{self.name}: {'█' * filled}{'░' * (20 - filled)} {line}".ljust(self.width)
        else:
            line = f"{self.name}: {line}"
        self.stream.write(line + end)
        self.stream.flush()
        self.width = len(line) if end == "" else 0
