"""The classifier spread over a mesh of devices against one device that holds all of it."""

import numpy as np

from tests.multi import head_worker
from tests.multi.launch import launch


def test_eight_devices_classify_as_one_with_every_margin(tmp_path):
    launch("head_worker", tmp_path / "one.npz", 1, 1)
    (told,) = launch("head_worker", tmp_path / "eight.npz", 2, 4, devices=8)
    few, many = told["1024"], told["65536"]
    assert few == many and "all-gather" in few  # what moves between devices does not grow with the classes
    assert max(kind["largest_bytes"] for kind in few.values()) == 4 * head_worker.ROWS * head_worker.SIZE
    one, eight = np.load(tmp_path / "one.npz"), np.load(tmp_path / "eight.npz")
    assert one.files == eight.files and len(one.files) >= 4 * 13
    for name in one.files:
        kind = name.split("/")[1]
        # a gradient's error is told as a share of its largest entry
        tolerance = {"loss": 1e-5, "accuracy": 0, "state": 1e-5}.get(kind, 1e-4)
        np.testing.assert_allclose(eight[name], one[name], atol=tolerance * np.abs(one[name]).max(), err_msg=name)
