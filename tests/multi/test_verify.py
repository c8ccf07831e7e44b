"""Verification tells the same figures whatever the devices and processes."""

import shutil

import numpy as np
from etils import epath

from tests.data import template_set
from tests.multi.alike import close
from tests.multi.launch import LAYOUTS, launch
from tests.verification import tiny


def test_figures_do_not_depend_on_devices_or_processes(tmp_path):
    work = epath.Path(tmp_path / "work")
    tiny.write_dataset(work / "authentic", {"train": 2, "heldout": 6}, each=5)
    tiny.write_pairs(work / "authentic")
    tiny.write_network(work / "recognition" / "combined")
    images = np.stack([tiny.render(np.full(8, person), np.arange(8)) for person in range(4)])
    folder = template_set.write(tmp_path / "set", images)
    found = []
    for number, options in enumerate(({}, *LAYOUTS)):
        shutil.copytree(work, tmp_path / str(number))
        found += launch("verify_worker", tmp_path / str(number), folder, **options)
    assert [one["devices"] for one in found] == [1, 2, 2, 8, 8, 8, 8]
    for one in found[1:]:
        close(one["told"], found[0]["told"])
        close(one["table"], found[0]["table"])
