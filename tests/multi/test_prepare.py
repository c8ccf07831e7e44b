"""Several processes prepare one dataset, and it is the one that a single process makes."""

import numpy as np
from PIL import Image

from tests.multi.launch import launch


def contents(folder):
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_two_processes_share_the_work_and_make_the_same_dataset(tmp_path):
    rng = np.random.default_rng(0)
    for identity in range(7):
        (tmp_path / "faces" / f"s{identity}").mkdir(parents=True)
        for number in range(6):
            image = Image.fromarray(rng.integers(0, 256, (9, 9, 3)).astype(np.uint8))
            image.save(tmp_path / "faces" / f"s{identity}" / f"{number}.png")
    alone = launch("prepare_worker", tmp_path / "faces", tmp_path / "alone")[0]
    together = launch("prepare_worker", tmp_path / "faces", tmp_path / "together", processes=2)
    assert alone["made"] == list(range(11))
    assert [share["made"] for share in together] == [[0, 2, 4, 6, 8, 10], [1, 3, 5, 7, 9]]
    assert alone["counts"] == together[0]["counts"] == together[1]["counts"]
    assert contents(tmp_path / "alone" / "authentic") == contents(tmp_path / "together" / "authentic")
    assert [path.name for path in (tmp_path / "together").iterdir()] == ["authentic"]
