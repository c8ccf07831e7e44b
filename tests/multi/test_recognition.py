"""The recogniser's training over devices and processes, and cut off by SIGKILL."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sface_jax.recognition import network
from tests.multi.launch import killed, launch

STEPS = 7


@pytest.fixture(scope="module")
def teacher(tmp_path_factory):
    """A teacher that was never trained."""
    narrow = network.architecture("iresnet_narrow", blocks=(1,), widths=(8,), strides=(2,), embedding_size=8)
    module = network.build(narrow)
    variables = jax.jit(module.init)(jax.random.key(1), jnp.zeros((1, 16, 16, 3)))
    folder = tmp_path_factory.mktemp("teacher")
    network.save(folder, network.Network(module, variables, network.Preprocessing(16)))
    return folder


@pytest.fixture(scope="module")
def alone(teacher, tmp_path_factory):
    """A run on one device which nothing disturbed."""
    return launch("recognition_worker", tmp_path_factory.mktemp("alone"), teacher, STEPS)[0]


def test_a_run_killed_and_started_again_ends_with_the_same_parameters(alone, teacher, tmp_path):
    killed("recognition_worker", tmp_path, teacher, STEPS, KILL_AT="5")
    (again,) = launch("recognition_worker", tmp_path, teacher, STEPS)
    assert again == alone


def test_two_devices_have_the_losses_of_one(alone, teacher, tmp_path):
    (two,) = launch("recognition_worker", tmp_path, teacher, STEPS, devices=2)
    assert two["devices"] == 2
    np.testing.assert_allclose(two["losses"][:5], alone["losses"][:5], rtol=1e-5)


def test_two_processes_with_two_devices_each_train_as_one(alone, teacher, tmp_path):
    both = launch("recognition_worker", tmp_path, teacher, STEPS, processes=2, devices=2)
    assert both[0] == both[1] and both[0]["devices"] == 4
    np.testing.assert_allclose(both[0]["losses"][:5], alone["losses"][:5], rtol=1e-5)


def test_a_run_goes_on_with_more_devices(alone, teacher, tmp_path):
    # 4 classes are padded to 8 rows of the class matrix there
    launch("recognition_worker", tmp_path, teacher, 4)
    (grown,) = launch("recognition_worker", tmp_path, teacher, STEPS, devices=8)
    np.testing.assert_allclose(grown["losses"], alone["losses"], rtol=1e-4)


def test_a_cached_teacher_is_the_same_for_one_process_and_two(teacher, tmp_path):
    one, two = tmp_path / "one", tmp_path / "two"
    for folder in (one, two):
        folder.mkdir()
    (alone,) = launch("recognition_worker", one, teacher, 4, TEACHER_CACHE="1")
    both = launch("recognition_worker", two, teacher, 4, processes=2, devices=2, TEACHER_CACHE="1")
    assert both[0] == both[1]
    np.testing.assert_allclose(both[0]["losses"], alone["losses"], rtol=1e-5)
    caches = [list((folder / "recognition/teacher_cache").iterdir()) for folder in (one, two)]
    assert [path.name for path in caches[0]] == [path.name for path in caches[1]] and len(caches[0]) == 1
