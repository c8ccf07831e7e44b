"""The recogniser's training over devices and processes, its batch whole and in parts, and cut off by SIGKILL.

One device holds all classes, several spread them. Sums are taken in another order on other devices: losses differ by
some 1e-7, and more after steps of a large rate.
"""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sface_jax.recognition import network
from tests.multi.launch import TRAINING_LAYOUTS, killed, launch

STEPS = 7
CACHED = json.dumps({"teacher_cache": True})


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


@pytest.mark.parametrize(("layout", "fsdp"), list(zip(TRAINING_LAYOUTS, (False, True), strict=True)))
def test_several_devices_and_processes_have_the_losses_of_one(alone, teacher, tmp_path, layout, fsdp):
    told = launch("recognition_worker", tmp_path, teacher, STEPS, json.dumps({"fsdp": fsdp}), **layout)
    assert all(one == told[0] for one in told)
    assert told[0]["devices"] == layout["processes"] * layout.get("devices", 1)
    np.testing.assert_allclose(told[0]["losses"][:5], alone["losses"][:5], rtol=1e-5)


def test_a_batch_in_parts_goes_on_with_more_devices_and_in_shares(alone, teacher, tmp_path):
    """4 classes are padded to 8 rows of the class matrix there."""
    one, grown = tmp_path / "one", tmp_path / "grown"
    one.mkdir()
    grown.mkdir()
    in_parts, shared = json.dumps({"accumulate": 2}), json.dumps({"accumulate": 2, "fsdp": True})
    (expected,) = launch("recognition_worker", one, teacher, STEPS, in_parts)
    launch("recognition_worker", grown, teacher, 4, in_parts)
    (told,) = launch("recognition_worker", grown, teacher, STEPS, shared, devices=8)
    np.testing.assert_allclose(told["losses"], expected["losses"], rtol=1e-4)
    assert expected["losses"][:4] != alone["losses"][:4]


def test_a_cached_teacher_is_the_same_for_one_process_and_two(teacher, tmp_path):
    one, two = tmp_path / "one", tmp_path / "two"
    for folder in (one, two):
        folder.mkdir()
    (alone,) = launch("recognition_worker", one, teacher, 4, CACHED)
    both = launch("recognition_worker", two, teacher, 4, CACHED, processes=2, devices=2)
    assert both[0] == both[1]
    np.testing.assert_allclose(both[0]["losses"], alone["losses"], rtol=1e-5)
    caches = [list((folder / "recognition/teacher_cache").iterdir()) for folder in (one, two)]
    assert [path.name for path in caches[0]] == [path.name for path in caches[1]] and len(caches[0]) == 1
