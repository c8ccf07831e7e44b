"""The classifier spread over a mesh of devices against one device that holds all of it."""

import numpy as np
import pytest

from tests.multi import head_worker
from tests.multi.launch import launch


@pytest.fixture(scope="module")
def one(tmp_path_factory):
    """What one device makes, which holds all classes."""
    file = tmp_path_factory.mktemp("one") / "one.npz"
    launch("head_worker", file, 1, 1)
    return np.load(file)


def close(found, one):
    assert found.files == one.files and len(one.files) >= 4 * 13
    for name in one.files:
        kind = name.split("/")[1]
        # a gradient's error is told as a share of its largest entry
        tolerance = {"loss": 1e-5, "accuracy": 0, "state": 1e-5}.get(kind, 1e-4)
        np.testing.assert_allclose(found[name], one[name], atol=tolerance * np.abs(one[name]).max(), err_msg=name)


def test_eight_devices_classify_as_one_with_every_margin(one, tmp_path):
    (told,) = launch("head_worker", tmp_path / "eight.npz", 8, 1, devices=8)
    few, many = told["1024"], told["65536"]
    assert few == many and "all-gather" in few  # what moves between devices does not grow with the classes
    assert max(kind["largest_bytes"] for kind in few.values()) == 4 * head_worker.ROWS * head_worker.SIZE
    close(np.load(tmp_path / "eight.npz"), one)


def test_so_do_two_groups_of_four_that_share_the_classes(one, tmp_path):
    (told,) = launch("head_worker", tmp_path / "groups.npz", 2, 4, devices=8)
    # half of the batch is gathered in each group; the groups sum their gradients of a quarter of the matrix
    gathered, summed = told["1024"]["all-gather"], told["65536"]["all-reduce"]
    assert gathered["largest_bytes"] == 4 * head_worker.ROWS // 2 * head_worker.SIZE
    assert summed["largest_bytes"] == 4 * 65536 // 4 * head_worker.SIZE
    close(np.load(tmp_path / "groups.npz"), one)
