"""The recogniser's training over devices and processes, and cut off by SIGKILL."""

import numpy as np
import pytest

from tests.multi.launch import killed, launch

STEPS = 7


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    """A run on one device which nothing disturbed, and its work directory."""
    workdir = tmp_path_factory.mktemp("alone")
    return launch("recognition_worker", workdir, STEPS)[0], workdir


def test_a_run_killed_and_started_again_ends_with_the_same_parameters(alone, tmp_path):
    killed("recognition_worker", tmp_path, STEPS, KILL_AT="5")
    (again,) = launch("recognition_worker", tmp_path, STEPS)
    assert again == alone[0]


def test_two_devices_have_the_losses_of_one(alone, tmp_path):
    (two,) = launch("recognition_worker", tmp_path, STEPS, devices=2)
    assert two["devices"] == 2
    np.testing.assert_allclose(two["losses"][:5], alone[0]["losses"][:5], rtol=1e-5)


def test_two_processes_with_two_devices_train_with_a_teacher(alone, tmp_path):
    teacher = alone[1] / "recognition" / "toy"
    one = launch("recognition_worker", tmp_path / "one", 3, teacher)[0]
    both = launch("recognition_worker", tmp_path / "four", 3, teacher, processes=2, devices=2)
    assert both[0] == both[1] and both[0]["devices"] == 4
    np.testing.assert_allclose(both[0]["losses"], one["losses"], rtol=1e-4)
