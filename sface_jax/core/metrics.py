"""Scalars of a run: `metrics.jsonl`, one object a logged step, and TensorBoard events where tensorflow is installed."""

from __future__ import annotations

import importlib.util
import json
import math
from collections.abc import Mapping

from etils import epath

from sface_jax.core import files, mesh


class MetricWriter:
    """Appends scalars; only the lead process writes."""

    def __init__(self, directory: files.PathLike, start_step: int = 0, tensorboard: bool = False):
        """Opens the log.

        Args:
            directory: folder of `metrics.jsonl`.
            start_step: the step the run (re)starts from; lines of later steps, left by a run that was cut off,
                are dropped so that every step is told once.
            tensorboard: also write event files through `clu.metric_writers`, if tensorflow is installed.
        """
        self.path = epath.Path(directory) / "metrics.jsonl"
        self.events = None
        if not mesh.is_lead():
            return
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self._drop_after(start_step)
        if tensorboard and importlib.util.find_spec("tensorflow"):
            import tensorflow as tf

            tf.config.set_visible_devices([], "GPU")
            from clu import metric_writers

            self.events = metric_writers.SummaryWriter(str(directory))

    def _drop_after(self, step: int) -> None:
        if not self.path.exists():
            return
        kept = []
        for line in self.path.read_text().splitlines():
            try:
                if json.loads(line)["step"] <= step:
                    kept.append(line + "\n")
            except (json.JSONDecodeError, KeyError):
                continue  # the last line of a killed run may be cut short
        files.write_text(self.path, "".join(kept))

    def write(self, step: int, scalars: Mapping[str, float | int]) -> None:
        """Appends one step's scalars; what is not finite is written as null."""
        if not mesh.is_lead():
            return
        values = {name: float(value) for name, value in scalars.items()}
        record = {"step": step, **{k: v if math.isfinite(v) else None for k, v in values.items()}}
        files.append_text(self.path, json.dumps(record) + "\n")
        if self.events is not None:
            self.events.write_scalars(step, values)

    def close(self) -> None:
        """Flushes the event files."""
        if self.events is not None:
            self.events.close()
