"""Schedule, clipping and SGD against the published implementations' figures."""

import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs import classification
from sface_jax.recognition import optimiser

FIXTURES = Path(__file__).parents[3] / "shared" / "fixtures" / "recognition"
pytestmark = pytest.mark.skipif(not FIXTURES.exists(), reason=f"no reference figures in {FIXTURES}")


@pytest.fixture(scope="module")
def published():
    return json.loads((FIXTURES / "schedule.json").read_text())


def rates(milestones, epochs, steps_per_epoch=7, base=0.1):
    """The rate of each epoch's first and last step: [epochs, 2]."""
    first = np.arange(epochs) * steps_per_epoch
    rate = jax.vmap(
        lambda step: optimiser.learning_rate(
            step,
            base=base,
            schedule="milestones",
            total_steps=epochs * steps_per_epoch,
            milestones=[steps_per_epoch * milestone for milestone in milestones],
        )
    )
    return rate(jnp.asarray(np.stack([first, first + steps_per_epoch - 1], 1).ravel())).reshape(epochs, 2)


def test_the_configs_schedule_is_the_published_one(published):
    recipe, config = published["sface"], classification.get_config()
    found = rates(config.milestones, int(config.epochs), base=config.learning_rate)
    np.testing.assert_allclose(found, np.array(recipe["lr_per_epoch"])[:, None] * [1, 1], rtol=1e-5)


def test_elasticfaces_schedule_is_the_published_one(published):
    recipe = published["elasticface"]
    found = rates([m - 1 for m in recipe["milestones"]], recipe["epochs"])
    np.testing.assert_allclose(found, np.array(recipe["lr_per_epoch"])[:, None] * [1, 1], rtol=1e-5)


def test_the_rate_is_linear_in_the_batch(published):
    config = classification.get_config()
    for processes, expected in published["sface"]["base_lr_by_processes"].items():
        batch = published["sface"]["batch_size_per_process"] * int(processes)
        np.testing.assert_allclose(config.learning_rate * batch / config.learning_rate_batch, expected)


def test_clipping_is_the_published_one(published):
    for case in published["gradient_clipping"]["examples"]:
        gradient = [jnp.asarray(part) for part in case["gradients"]]
        total = optimiser.norm(gradient)
        np.testing.assert_allclose(total, case["total_norm"], rtol=1e-6)
        clipped = optimiser.clip(gradient, total, float(published["gradient_clipping"]["max_norm"]))
        for found, expected in zip(clipped, case["clipped"], strict=True):
            np.testing.assert_allclose(found, expected, rtol=1e-6)


def test_sgd_is_the_published_one(published):
    trace = published["sgd_example"]
    params = jnp.asarray(trace["param_start"])
    velocity = jnp.zeros_like(params)
    for step in trace["steps"]:
        params, velocity = optimiser.sgd(
            params, velocity, jnp.asarray(step["grad"]), step["lr"], trace["momentum"], trace["weight_decay"]
        )
        np.testing.assert_allclose(params, step["param_after"], rtol=1e-5)
        np.testing.assert_allclose(velocity, step["momentum_after"], rtol=1e-5)


def test_the_polynomial_schedule_is_the_published_one(published):
    for case in published["arcface_torch_polynomial"]["cases"]:
        if case["power"] == 1:
            found = [
                optimiser.learning_rate(
                    step,
                    base=case["base_lr"],
                    schedule="polynomial",
                    total_steps=case["total_iters"],
                    warmup_steps=case["warmup_iters"],
                )
                for step in case["steps"]
            ]
            np.testing.assert_allclose(found, case["lr"], rtol=1e-4, atol=1e-8)
