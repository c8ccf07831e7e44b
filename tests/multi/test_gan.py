"""The GAN's training over devices and processes, its batch whole and in parts, and cut off by SIGKILL.

Sums are taken in another order on other devices. The losses then differ by some 1e-7 of themselves after a few steps;
1e-4 leaves room for what G and D, at odds with each other, may make of it. What is watched is a fit to a few pictures.
"""

import json

import numpy as np
import pytest

from tests.multi.launch import TRAINING_LAYOUTS, killed, launch

STEPS = 5
IN_PARTS = json.dumps({"accumulate": 2})


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    """A run on one device which nothing disturbed."""
    return launch("gan_worker", tmp_path_factory.mktemp("alone"), STEPS)[0]


def test_a_run_killed_and_started_again_ends_with_the_same_state(alone, tmp_path):
    killed("gan_worker", tmp_path, STEPS, KILL_AT="3")
    (again,) = launch("gan_worker", tmp_path, STEPS)
    assert again == alone


@pytest.mark.parametrize(("layout", "fsdp"), list(zip(TRAINING_LAYOUTS, (False, True), strict=True)))
def test_several_devices_and_processes_have_the_losses_of_one(alone, tmp_path, layout, fsdp):
    told = launch("gan_worker", tmp_path, STEPS, json.dumps({"fsdp": fsdp}), **layout)
    assert all(one == told[0] for one in told)
    assert told[0]["devices"] == layout["processes"] * layout.get("devices", 1)
    np.testing.assert_allclose(told[0]["losses"], alone["losses"], rtol=1e-4)
    np.testing.assert_allclose(told[0]["watched"], alone["watched"], rtol=1e-3, atol=1e-3)
    assert told[0]["best"] == alone["best"]


def test_a_batch_in_parts_is_the_same_on_one_device_and_eight_and_goes_on_in_shares(alone, tmp_path):
    one, eight = tmp_path / "one", tmp_path / "eight"
    (told,) = launch("gan_worker", one, 3, IN_PARTS)
    launch("gan_worker", eight, 1, IN_PARTS)
    (shared,) = launch("gan_worker", eight, 3, json.dumps({"accumulate": 2, "fsdp": True}), devices=8)
    np.testing.assert_allclose(shared["losses"], told["losses"], rtol=1e-4)
    assert told["losses"] != alone["losses"][:3]
