"""How fast a training goes, and what holds it up."""

import json
import time
from types import SimpleNamespace

import jax
import pytest
from etils import epath

from sface_jax.core import chips
from sface_jax.core import speed as speed_module
from sface_jax.core.speed import Speed, usual


class Busy:
    """The results of a step that is ready at a time."""

    def __init__(self, until):
        self.until = until

    def block_until_ready(self):
        time.sleep(max(self.until - time.monotonic(), 0))


def slow(seconds):
    while True:
        time.sleep(seconds)
        yield 1.0


@pytest.mark.parametrize(
    ("batch", "work", "expected"), [(0.02, 0.0, 1.0), (0.0, 0.02, 0.0), (0.03, 0.015, 0.5), (0.015, 0.03, 0.0)]
)
def test_only_waits_of_an_idle_device_count_as_input_bound(batch, work, expected):
    speed, batches, done = Speed("steps"), slow(batch), 0.0
    for _ in range(13):
        speed.next(batches)
        done = max(done, time.monotonic()) + work  # the device takes one step after the other
        speed.dispatched(Busy(done))
    assert speed.measure()["input_bound_percent"] / 100 == pytest.approx(expected, abs=0.2)
    speed.dispatched(Busy(0.0))
    assert speed.measure()["input_bound_percent"] == 0
    speed.close()


def test_rates_are_those_of_the_steps_since_the_last_call(monkeypatch):
    monkeypatch.setattr(chips, "of", lambda kind: SimpleNamespace(tflops=2.0))
    clock = iter([100.0, 104.0, 105.0])
    monkeypatch.setattr(speed_module.time, "monotonic", lambda: next(clock))
    speed = Speed("steps", pictures_per_step=8, flops_per_step=1e12)
    for steps, rate in ((2, 0.5), (3, 3.0)):
        speed._dispatched += steps
        told = speed.measure()
        assert told["steps_per_second"] == rate and told["pictures_per_second"] == 8 * rate
        assert told["tflops_per_second"] == rate
        assert told["share_of_peak"] == pytest.approx(100 * rate / (2 * jax.device_count()))
        assert told["memory_gib"] > 0.01
    speed.close()


def test_the_usual_speed_is_the_median_of_a_log_and_the_most_memory(tmp_path):
    assert usual(epath.Path(tmp_path)) == {}
    log = [{"steps_per_second": r, "memory_gib": m, "loss": 1.0} for r, m in ((1.0, 2.0), (9.0, 4.0), (5.0, 3.0))]
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in [*log, {"extra": 1.0}]))
    assert usual(epath.Path(tmp_path)) == {"steps_per_second": 5.0, "memory_gib": 4.0}
