"""The audit finds the same whatever the devices and processes."""

import shutil

from etils import epath

from tests.multi.alike import close
from tests.multi.launch import LAYOUTS, launch
from tests.verification import tiny


def test_findings_do_not_depend_on_devices_or_processes(tmp_path):
    work = epath.Path(tmp_path / "work")
    tiny.write_dataset(work / "authentic", {"train": 6, "heldout": 3}, each=4)
    tiny.write_dataset(work / "synthetic", {"train": 12}, each=3, first_index=100)
    for seed, name in enumerate(("matcher", "second")):
        tiny.write_network(work / "recognition" / name, seed=seed)
    found = []
    for number, options in enumerate(({}, *LAYOUTS)):
        shutil.copytree(work, tmp_path / str(number))
        found += launch("audit_worker", tmp_path / str(number), **options)
    assert [one["devices"] for one in found] == [1, 2, 2, 8, 8, 8, 8]
    for one in found[1:]:
        close(one["told"], found[0]["told"])
        assert (one["headline"], one["kept"]) == (found[0]["headline"], found[0]["kept"])
