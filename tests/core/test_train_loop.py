"""The loop: what ends it, and that it goes on where it ended."""

import itertools
import json
import os
import signal
import time

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from etils import epath

from sface_jax.core import train_loop
from sface_jax.core.checkpoint import Checkpoints
from sface_jax.core.errors import Interrupted, Unfinished


class Counter(flax.struct.PyTreeNode):
    step: object
    total: object


def start():
    return Counter(step=jnp.zeros((), jnp.int32), total=jnp.zeros(()))


def add(state, batch, number):
    assert number == state.step
    return Counter(step=state.step + 1, total=state.total + batch), {"loss": state.total}


def run(directory, step=add, total_steps=10, **options):
    return train_loop.run(
        "count", start(), step, lambda first: map(float, itertools.count(first)),
        total_steps=total_steps, directory=epath.Path(directory), log_every=2, checkpoint_every=4, **options,
    )  # fmt: skip


def test_a_run_goes_on_where_it_stopped(tmp_path):
    assert run(tmp_path, total_steps=6).total == sum(range(6))
    assert run(tmp_path, total_steps=10).total == sum(range(10))
    log = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in log] == [2, 4, 6, 8, 10]
    assert log[0]["loss"] == pytest.approx(0.0) and log[1]["loss"] == pytest.approx((1 + 3) / 2)


def test_sigterm_saves_and_ends(tmp_path):
    def step(state, batch, number):
        if number == 6:
            os.kill(os.getpid(), signal.SIGTERM)
        return add(state, batch, number)

    handler = signal.getsignal(signal.SIGTERM)
    with pytest.raises(Interrupted, match="saved at step 7 of 10"):
        run(tmp_path, step)
    assert signal.getsignal(signal.SIGTERM) == handler
    first = []

    def watched(state, batch, number):
        first.append(number)
        return add(state, batch, number)

    assert run(tmp_path, watched).total == sum(range(10))
    assert first[0] == 7


def test_a_loss_that_is_not_finite_ends_the_run_with_the_step_to_go_back_to(tmp_path):
    def step(state, batch, number):
        state, told = add(state, batch, number)
        return state, {"loss": told["loss"] * (jnp.nan if number == 5 else 1.0)}

    with pytest.raises(Unfinished, match="loss is nan at step 6; the last checkpoint, a good one, is step 4"):
        run(tmp_path, step)


def test_no_bad_state_is_saved_and_the_records_that_made_it_are_told(tmp_path):
    def batches(first):
        return ({"value": float(i), "index": np.arange(3) + 10 * i} for i in itertools.count(first))

    def step(state, batch, number):
        state, told = add(state, batch["value"], number)
        return state, {"loss": told["loss"] * (jnp.nan if number == 6 else 1.0)}

    options = {"total_steps": 20, "directory": epath.Path(tmp_path), "log_every": 100, "checkpoint_every": 4}
    with pytest.raises(Unfinished, match="at step 7 on pictures 60, 61, 62, .* is step 4"):
        train_loop.run("count", start(), step, batches, **options)
    assert json.loads((tmp_path / "nonfinite_0.json").read_text())["pictures"] == ["60", "61", "62"]
    assert Checkpoints(tmp_path / "checkpoints", read_only=True).latest_step() == 4


def test_a_first_step_that_is_not_finite_is_told_too(tmp_path):
    with pytest.raises(Unfinished, match="at step 1; nothing was saved before"):
        run(tmp_path, lambda state, batch, number: (add(state, batch, number)[0], {"loss": jnp.array(jnp.inf)}))


def test_hooks_are_called_on_their_steps_and_at_the_end(tmp_path):
    seen = []
    run(tmp_path, hooks=[(4, lambda state, step: seen.append(step) or {"extra": step})])
    assert seen == [4, 8, 10]
    assert '"extra": 8.0' in (tmp_path / "metrics.jsonl").read_text()


def test_a_run_that_waits_for_its_input_is_told_once(tmp_path, caplog):
    options = {"total_steps": 12, "directory": epath.Path(tmp_path), "log_every": 3, "checkpoint_every": 100}

    def slow(first):
        while True:
            time.sleep(0.03)
            yield 1.0

    train_loop.run("count", start(), add, slow, **options)
    log = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert all(50 < line["input_bound_percent"] <= 100 for line in log[1:])
    assert caplog.text.count("raise --config.workers") == 1


def test_a_run_whose_device_is_busy_is_not_input_bound(tmp_path, caplog):
    @jax.jit
    def work(x):
        return jax.lax.fori_loop(0, 20, lambda _, x: jnp.tanh(x @ x), x)

    def step(state, batch, number):
        state, told = add(state, batch, number)
        return state, {"loss": told["loss"] + 0 * work(jnp.ones((300, 300))).sum()}

    run(tmp_path, step)
    log = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert all(line["input_bound_percent"] < 5 for line in log)
    assert "--config.workers" not in caplog.text
