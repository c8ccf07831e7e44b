"""The GAN's training over devices and processes, and cut off by SIGKILL."""

import numpy as np
import pytest

from tests.multi.launch import killed, launch

STEPS = 5


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    """A run on one device which nothing disturbed."""
    return launch("gan_worker", tmp_path_factory.mktemp("alone"), STEPS)[0]


def test_a_run_killed_and_started_again_ends_with_the_same_state(alone, tmp_path):
    killed("gan_worker", tmp_path, STEPS, KILL_AT="3")
    (again,) = launch("gan_worker", tmp_path, STEPS)
    assert again == alone


def test_two_devices_have_the_losses_of_one(alone, tmp_path):
    (two,) = launch("gan_worker", tmp_path, STEPS, devices=2)
    assert two["devices"] == 2
    np.testing.assert_allclose(two["losses"], alone["losses"], rtol=1e-5)
    np.testing.assert_allclose(two["watched"], alone["watched"], rtol=1e-3, atol=1e-4)
    assert two["best"] == alone["best"]


def test_two_processes_with_two_devices_have_the_losses_of_one(alone, tmp_path):
    both = launch("gan_worker", tmp_path, STEPS, processes=2, devices=2)
    assert both[0] == both[1] and both[0]["devices"] == 4
    np.testing.assert_allclose(both[0]["losses"], alone["losses"], rtol=1e-4)
    np.testing.assert_allclose(both[0]["watched"], alone["watched"], rtol=1e-3, atol=1e-3)
    assert both[0]["best"] == alone["best"]
